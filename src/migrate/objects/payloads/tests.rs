//! Configs and secrets of stack files as objects and mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::storage::tests::{Case, case, images};
use super::super::{Options, With};
use super::data_key;
use crate::migrate::Dialect;
use crate::migrate::images::Images;
use crate::migrate::report::Outcome;

/// Converts a stack with files in its folder.
fn with_files(text: &str, files: &[(&str, &[u8])], options: Options, images: &Images) -> Case {
    let folder = TempDir::new().expect("a folder");
    files.iter().for_each(|(name, content)| fs::write(folder.path().join(name), content).expect("written"));
    Case::of(&folder, text, Dialect::Stack, options, images)
}

fn plain(text: &str, files: &[(&str, &[u8])]) -> Case {
    with_files(text, files, Options::default(), &Images::default())
}

#[test]
fn a_config_is_one_file_at_its_path() {
    let text = "services: {a: {image: x, configs: [{source: nginx_conf, target: /etc/nginx/nginx.conf}, site]}}\n\
                configs: {nginx_conf: {file: n}, site: {file: s}}\n";
    let case = plain(text, &[("n", b"worker_processes 1;\n"), ("s", b"\xff\xfe\x00")]);
    let config = case.object("ConfigMap", "nginx-conf");
    assert_eq!(config["data"], json!({"nginx_conf": "worker_processes 1;\n"}));
    assert_eq!(config["immutable"], true);
    // kompose#1308: bytes that are not UTF-8.
    assert_eq!(case.object("ConfigMap", "site")["binaryData"], json!({"site": "//4A"}));
    let pod = case.pod("Deployment", "a");
    assert_eq!(
        pod["volumes"][0],
        json!({"name": "config-nginx-conf", "configMap": {"name": "nginx-conf", "defaultMode": 292}})
    );
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([
            {"name": "config-nginx-conf", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx_conf", "readOnly": true},
            {"name": "config-site", "mountPath": "/site", "subPath": "site", "readOnly": true},
        ])
    );
    assert_eq!(case.fate("configs.nginx_conf.file").0, Outcome::Converted);
    assert_eq!(case.fate("services.a.configs[0].target").0, Outcome::Converted);
}

#[test]
fn secrets_are_files_of_their_own_below_run_secrets() {
    let text = "services: {a: {image: x, secrets: [db_password, {source: key, target: tls.key}, {source: key, target: /k}]}}\n\
                secrets: {db_password: {file: p}, key: {file: k}}\n";
    let case = plain(text, &[("p", b"hunter2"), ("k", b"abc")]);
    let secret = case.object("Secret", "db-password");
    assert_eq!((&secret["type"], &secret["immutable"]), (&json!("Opaque"), &json!(true)));
    assert_eq!(secret["data"], json!({"db_password": "aHVudGVyMg=="}));
    let mounts = case.pod("Deployment", "a")["containers"][0]["volumeMounts"].clone();
    let found: Vec<(&Value, &Value)> = (0..3).map(|at| (&mounts[at]["mountPath"], &mounts[at]["subPath"])).collect();
    let expected = [("/k", "key"), ("/run/secrets/db_password", "db_password"), ("/run/secrets/tls.key", "key")];
    assert_eq!(found, expected.map(|(path, key)| (json!(path), json!(key))).each_ref().map(|(path, key)| (path, key)));
    // Two files of one secret are one volume.
    assert_eq!(case.pod("Deployment", "a")["volumes"].as_array().map(Vec::len), Some(2));
    assert!(case.entries.iter().all(|entry| !entry.reason.contains("hunter2")));
}

#[test]
fn nothing_is_made_up_for_what_is_not_there() {
    let text = "services: {a: {image: x, secrets: [s], configs: [c]}}\n\
                secrets: {s: {external: true, name: prod_s}}\nconfigs: {c: {external: true}}\n";
    let missing = case(text);
    assert_eq!(missing.count("Secret") + missing.count("ConfigMap"), 0);
    assert_eq!(missing.pod("Deployment", "a")["volumes"][1]["secret"]["secretName"], "prod-s");
    let (outcome, reason) = missing.fate("secrets.s.external");
    assert_eq!(outcome, Outcome::NeedsInput);
    assert!(reason.contains("--secret s=FILE"), "{reason}");
    assert!(missing.fate("configs.c.external").1.contains("--config c=FILE"));
    let options = Options {
        secrets: BTreeMap::from([("s".to_owned(), b"1".to_vec())]),
        configs: BTreeMap::from([("c".to_owned(), b"2".to_vec())]),
        ..Options::default()
    };
    let found = with_files(text, &[], options, &Images::default());
    assert_eq!(found.object("Secret", "prod-s")["data"], json!({"prod_s": "MQ=="}));
    assert_eq!(found.object("ConfigMap", "c")["data"], json!({"c": "2"}));
    assert_eq!(found.fate("secrets.s.external").0, Outcome::Converted);
}

#[test]
fn a_store_has_the_secrets_when_it_is_asked_for() {
    let text = "services: {a: {image: x, secrets: [s_1]}}\nsecrets: {s_1: {file: p}, unused: {file: p}}\n";
    let options = Options { with: BTreeSet::from([With::ExternalSecrets]), ..Options::default() };
    let case = with_files(text, &[("p", b"hunter2")], options, &Images::default());
    assert_eq!(case.count("Secret"), 0);
    let data = &case.object("ExternalSecret", "s-1")["spec"]["data"];
    assert_eq!(*data, json!([{"secretKey": "s_1", "remoteRef": {"key": "s_1"}}]));
    assert_eq!(case.count("ExternalSecret"), 1);
    assert_eq!(case.fate("secrets.s_1.file").0, Outcome::NeedsInput);
    assert_eq!(case.fate("secrets.unused.file").0, Outcome::Dropped);
}

/// Mode and `fsGroup` of a secret with a mode and an owner.
fn rights(user: &str, owner: &str, images: &Images) -> (Value, Value, Case) {
    let text = format!(
        "services: {{a: {{image: x, {user} secrets: [{{source: s, {owner}}}]}}}}\nsecrets: {{s: {{file: p}}}}\n"
    );
    let case = with_files(&text, &[("p", b"1")], Options::default(), images);
    let pod = case.pod("Deployment", "a");
    (pod["volumes"][0]["secret"]["defaultMode"].clone(), pod["securityContext"]["fsGroup"].clone(), case)
}

#[test]
fn owners_become_the_group_of_the_pod() {
    let none = Images::default();
    let octal = |mode: u32| json!(mode);
    // compose#13287: a file of another user's that only the user reads.
    let (mode, group, case) = rights("user: '1000:1000',", "mode: 0400, uid: '1000'", &none);
    assert_eq!((mode, group), (octal(0o440), json!(1000)));
    assert_eq!(case.fate("services.a.secrets[0].mode").0, Outcome::Approximated);
    assert_eq!(case.fate("services.a.secrets[0].uid").0, Outcome::Approximated);
    let (mode, group, _) = rights("user: '1000',", "mode: 0440, uid: '0', gid: '2000'", &none);
    assert_eq!((mode, group), (octal(0o440), json!(2000)));
    // Root's own file stays root's own.
    let (mode, group, case) = rights("user: '1000',", "mode: 0400", &none);
    assert_eq!((mode, group), (octal(0o400), Value::Null));
    assert_eq!(case.fate("services.a.secrets[0].mode").0, Outcome::Converted);
    // Root reads everything.
    let (mode, group, _) = rights("user: root,", "mode: 0400, uid: '1000'", &none);
    assert_eq!((mode, group), (octal(0o400), Value::Null));
    let (mode, group, _) = rights("", "mode: 0400, uid: '1000'", &images(json!({}), &[]));
    assert_eq!((mode, group), (octal(0o400), Value::Null));
    // Everyone may read it.
    let (mode, group, case) = rights("user: '1000',", "uid: '1000'", &none);
    assert_eq!((mode, group), (octal(0o444), Value::Null));
    assert_eq!(case.fate("services.a.secrets[0].uid").0, Outcome::Approximated);
    // The image says which group its user has.
    let (mode, group, _) = rights("", "mode: 0400, uid: '70'", &images(json!({"User": "app"}), &[]));
    assert_eq!((mode, group), (octal(0o440), json!(71)));
}

#[test]
fn placeholders_are_filled_in_where_they_are_the_same() {
    let text = "services: {a: {image: x, configs: [c, d, e]}}\nconfigs:\n  c: {file: c, template_driver: golang}\n  \
                d: {file: d, template_driver: golang}\n  e: {file: c}\n";
    let case = plain(text, &[("c", b"name={{.Service.Name}}"), ("d", b"token={{ env \"hunter2\" }}")]);
    assert_eq!(case.object("ConfigMap", "c")["data"]["c"], "name=shop_a");
    assert_eq!(case.fate("configs.c.template_driver").0, Outcome::Approximated);
    assert_eq!(case.object("ConfigMap", "d")["data"]["d"], "token={{ env \"hunter2\" }}");
    assert_eq!(case.fate("configs.d.template_driver").0, Outcome::NeedsInput);
    assert!(case.entries.iter().all(|entry| !entry.reason.contains("hunter2")));
    // Without a template driver Swarm fills in nothing.
    assert_eq!(case.object("ConfigMap", "e")["data"]["e"], "name={{.Service.Name}}");
}

#[test]
fn what_is_too_large_for_kubernetes_is_asked_for() {
    let text = "services: {a: {image: x, configs: [c, d]}}\nconfigs: {c: {file: c}, d: {file: d}}\n";
    let case = plain(text, &[("c", &vec![b'x'; (1 << 20) + 1]), ("d", &vec![b'x'; 1 << 20])]);
    assert_eq!(case.object("ConfigMap", "c"), Value::Null);
    assert_eq!(case.fate("configs.c.file").0, Outcome::NeedsInput);
    // Swarm takes 1000 KiB.
    assert!(case.object("ConfigMap", "d").is_object());
    assert_eq!(case.fate("configs.d.file").0, Outcome::Approximated);
}

#[test]
fn names_that_fold_together_stay_apart() {
    let text = "services: {a: {image: x, configs: [a_b, a-b, A.b]}}\n\
                configs: {a_b: {file: c}, a-b: {file: c}, A.b: {file: c}}\n";
    let case = plain(text, &[("c", b"1")]);
    let mut names: Vec<String> = case
        .objects
        .iter()
        .filter(|object| object.kind() == "ConfigMap")
        .map(|object| object.metadata().name.clone().unwrap_or_default())
        .collect();
    names.sort();
    assert_eq!(names, ["a-b", "a-b-2", "a-b-3"]);
    let mounts = case.pod("Deployment", "a")["containers"][0]["volumeMounts"].clone();
    let keys: Vec<&Value> = (0..3).map(|at| &mounts[at]["subPath"]).collect();
    assert_eq!(keys, ["A.b", "a-b", "a_b"]);
}

#[test]
fn keys_are_those_that_kubernetes_takes() {
    assert_eq!(data_key(".env.local"), ".env.local");
    assert_eq!(data_key("a_b-C.1"), "a_b-C.1");
    assert_eq!(data_key("größe"), "gr--e");
    assert_eq!(data_key(".."), "x");
}

#[test]
fn a_file_where_something_else_is_mounted_is_asked_for() {
    let text =
        "services: {a: {image: x, volumes: ['vd:/c'], configs: [c]}}\nvolumes: {vd: {}}\nconfigs: {c: {file: c}}\n";
    let case = plain(text, &[("c", b"1")]);
    assert_eq!(case.fate("services.a.configs[0]").0, Outcome::NeedsInput);
    assert_eq!(case.pod("Deployment", "a")["containers"][0]["volumeMounts"].as_array().map(Vec::len), Some(1));
    assert_eq!(case.pod("Deployment", "a")["volumes"].as_array().map(Vec::len), Some(1));
}
