//! What a conversion writes, as others take it: a real API server, the schemas of Kubernetes, and checkov.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::k3s_applied::lost;
use crate::k3s_manifests::{checkov, scanner, schema_versions, visible_folder};
use crate::kube_apiserver::ApiServer;
use crate::node::{stderr, stdout};
use crate::swarm::{converted, data, fleet};

/// Everything that can be asked for, but what an operator has to bring.
const WITH: &[&str] = &["--with", "hpa,pdb,networkpolicy"];

/// Files of other people's kind, one of each way to write a stack.
const FILES: &[(&str, &str)] = &[
    ("stack-swarmprom.yml", "stack"),
    ("stack-traefik.yml", "stack"),
    ("stack-galera.yml", "stack"),
    ("stack-minio.yml", "stack"),
    ("stack-merges.yml", "stack"),
    ("stack-block-scalars.yml", "stack"),
    ("compose-homeassistant.yml", "compose"),
    ("compose-ollama.yml", "compose"),
    ("compose-spec.yml", "compose"),
];

/// The objects of a conversion.
fn objects(folder: &Path) -> Vec<Value> {
    let list = fs::read_to_string(folder.join("kustomization.yaml")).expect("kustomization.yaml");
    let list: Value = serde_yaml::from_str(&list).expect("YAML");
    let mut objects = Vec::new();
    for file in list["resources"].as_array().expect("resources") {
        let text = fs::read_to_string(folder.join(file.as_str().expect("a name"))).expect("a file");
        objects.extend(serde_yaml::Deserializer::from_str(&text).map(|document| {
            serde_json::to_value(<serde_yaml::Value as serde::Deserialize>::deserialize(document).expect("YAML"))
                .expect("JSON")
        }));
    }
    assert!(!objects.is_empty());
    objects
}

/// Conversions of the fleet and of [`FILES`], with their folders.
fn conversions(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("fleet")];
    fleet(WITH, &folders[0]);
    for (name, dialect) in FILES {
        let folder = root.join(name);
        let file = data("files").join(name).display().to_string();
        converted(&[&[&file, "--dialect", dialect, "--stack", "shop"], WITH].concat(), &folder);
        folders.push(folder);
    }
    folders
}

#[test]
fn the_fleet_is_applied_to_an_api_server_and_is_there_as_it_was_written() {
    let Some(server) = ApiServer::start() else { return };
    let folder = server.path("fleet");
    fleet(WITH, &folder);
    let wanted = objects(&folder);
    assert!(wanted.len() > 100, "{} objects", wanted.len());
    server.must(&["apply", "--server-side", "--warnings-as-errors", "-k", &folder.to_string_lossy()]);
    let mut different = Vec::new();
    for object in &wanted {
        let [kind, name] = [&object["kind"], &object["metadata"]["name"]].map(|text| text.as_str().expect("text"));
        let mut arguments = vec!["get", kind, name, "-o", "json"];
        if let Some(namespace) = object["metadata"]["namespace"].as_str() {
            arguments.extend(["-n", namespace]);
        }
        let live: Value = serde_json::from_str(&server.must(&arguments)).expect("JSON");
        lost(&live, object, &format!("{kind}/{name}"), &mut different);
    }
    // An empty text is what is so where nothing is written, and the server writes nothing.
    different.retain(|one| !one.ends_with("rendered \"\", the server holds null"));
    assert!(different.is_empty(), "{}", different.join("\n"));
    // The second time nothing changes.
    let before = server.must(&[
        "get",
        "deployments,statefulsets,daemonsets",
        "-n",
        "fleet",
        "-o",
        "jsonpath={.items[*].metadata.generation}",
    ]);
    server.must(&["apply", "--server-side", "--warnings-as-errors", "-k", &folder.to_string_lossy()]);
    let after = server.must(&[
        "get",
        "deployments,statefulsets,daemonsets",
        "-n",
        "fleet",
        "-o",
        "jsonpath={.items[*].metadata.generation}",
    ]);
    assert_eq!(before, after);
}

#[test]
fn kubernetes_takes_every_object_in_its_three_newest_versions() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut files = Vec::new();
    for (number, folder) in conversions(directory.path()).iter().enumerate() {
        for (place, object) in objects(folder).iter().enumerate() {
            let file = directory.path().join(format!("{number}-{place}.json"));
            fs::write(&file, object.to_string()).expect("written");
            files.push(file);
        }
    }
    for version in schema_versions().iter().rev().take(3) {
        let output = scanner("kubernetes-validate")
            .args(["--strict", "--quiet", "-k", version])
            .args(&files)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{version}: {}{}", stdout(&output), stderr(&output));
    }
}

/// The manual says what checkov finds, and why it is so.
#[test]
fn checkov_finds_only_what_the_manual_says() {
    let directory = visible_folder();
    conversions(directory.path());
    for report in ["report.json", "report.md", "label-nodes.sh"] {
        for folder in fs::read_dir(directory.path()).expect("a folder") {
            fs::remove_file(folder.expect("an entry").path().join(report)).expect("removed");
        }
    }
    let (failed, passed) = checkov(directory.path());
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/swarm.md")).expect("the manual");
    let listed: BTreeSet<&str> = manual
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("CKV"))
        .collect();
    let other: Vec<_> = failed.iter().filter(|(check, _)| !listed.contains(check.as_str())).collect();
    assert!(other.is_empty(), "{other:#?}");
    assert!(passed > 1_000, "{passed}");
}
