//! The manifests: shipped as they are rendered, taken by the node, and kept to the rules of everybody who checks such files.
//!
//! `UPDATE_EXPECT=1` rewrites what is shipped. A real API server gets them in [`crate::k3s_applied`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cairn::deploy::k3s::{Assignment, NodeSize, Options, Settings, Variant, keys};
use proptest::prelude::*;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::k3s_own_rules::{OWN, POD_SECURITY};
use crate::k3s_rules::{KUBE_LINTER, KUBE_SCORE, Objects, Rule, items, quantity, selects, text};
use crate::node::{TestNode, assert_says, cairn, clean, json_of, list, run_on, stderr, stdout};

/// What is shipped: folder below `k3s/`, and what it is rendered with.
const SHIPPED: &[(&str, &[&str])] = &[
    ("", &[]),
    ("examples/cert-manager", &["--with", "cert-manager"]),
    (
        "examples/documents",
        &[
            "--with",
            "documents",
            "--set",
            "documents.git=https://git.example/site/manuals.git",
            "--set",
            "documents.git.image=registry.example/git@sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730",
        ],
    ),
    ("examples/external-secrets", &["--with", "external-secrets", "--set", "external-secrets.store=vault"]),
    ("examples/gpu", &["--with", "gpu"]),
    ("examples/ingress", &["--with", "ingress", "--set", "ingress.host=cairn.example.com"]),
    ("examples/large", &["--node-size", "large"]),
    ("examples/loadbalancer", &["--with", "loadbalancer"]),
    ("examples/monitoring", &["--with", "monitoring"]),
    ("examples/pi", &["--node-size", "pi"]),
];

/// Everything at once: what the variants do to one another.
const EVERYTHING: &[&str] = &[
    "--with",
    "cert-manager,documents,external-secrets,gpu,ingress,loadbalancer,monitoring",
    "--set",
    "documents.claim=manuals",
    "--set",
    "tolerations=edge=true:NoSchedule,*",
    "--set",
    "node.prefer=disk=ssd",
    "--set",
    "pod.annotations=example.com/team=ops",
    "--set",
    "service.annotations=example.com/pool=site",
    "--set",
    "env=HTTPS_PROXY=http://proxy:3128",
    "--set",
    "image.pull-secrets=registry",
    "--set",
    "priority-class=edge-critical",
    "--set",
    "external-secrets.store=vault",
    "--set",
    "ingress.host=cairn.example.com",
    "--set",
    "gpu.own-runtime-class=true",
    "--set",
    "gpu.group=105",
];

/// A digest as an image has it.
const DIGEST: &str = "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730";

const FILES: [&str; 2] = ["cairn-namespace.yaml", "cairn.yaml"];

/// The oldest Kubernetes that docs/k3s.md names: the first in which `ReadWriteOncePod` is not a feature to be turned on.
const OLDEST: &str = "1.29.0";

/// Objects whose types are operators' and come with them: no schema of Kubernetes knows them.
const CUSTOM: [&str; 6] =
    ["Certificate", "ExternalSecret", "Issuer", "PrometheusRule", "ServersTransport", "ServiceMonitor"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn render(arguments: &[&str]) -> Output {
    cairn().args(["k3s", "render"]).args(arguments).output().expect("the binary runs")
}

pub fn render_into(folder: &Path, arguments: &[&str]) {
    let output = render(&[arguments, &["-o", folder.to_str().expect("UTF-8")]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
}

pub fn parse(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|document| !document.is_null())
        .collect()
}

fn objects(arguments: &[&str]) -> Objects {
    let output = render(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    Objects(parse(&stdout(&output)))
}

/// What is shipped, and everything at once, named.
pub fn variants() -> Vec<(&'static str, &'static [&'static str])> {
    [SHIPPED, &[("everything", EVERYTHING)]].concat()
}

fn configuration(objects: &Objects) -> String {
    text(&objects.one("ConfigMap")["data"]["cairn.toml"]).to_owned()
}

/// Every file below a folder.
fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("readable").path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.extend([path]) }
    }
    found
}

#[test]
fn what_is_shipped_is_what_is_rendered() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let shipped = root().join("k3s");
    let mut expected = BTreeSet::from([shipped.join("README.md")]);
    for (folder, arguments) in SHIPPED {
        let rendered = tempfile::tempdir().expect("temporary directory");
        render_into(rendered.path(), arguments);
        let folder = shipped.join(folder);
        for name in FILES {
            let path = folder.join(name);
            let text = fs::read_to_string(rendered.path().join(name)).expect("rendered");
            if update {
                fs::create_dir_all(&folder).expect("a folder");
                fs::write(&path, &text).expect("written");
            }
            let is = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                is == text,
                "{} is stale: run this test with UPDATE_EXPECT=1 and read what changed",
                path.display()
            );
            expected.insert(path);
        }
    }
    // Whatever else lies there was rendered by nobody, and is loaded by no test.
    assert_eq!(files_below(&shipped), expected);
}

#[test]
fn rendering_is_the_same_bytes_in_every_order() {
    let one = render(&["--with", "gpu,monitoring", "--set", "hosts=a.example", "--set", "storage.size=16GiB"]);
    let other =
        render(&["--set", "storage.size=16GiB", "--with", "monitoring", "--with", "gpu", "--set", "hosts=a.example"]);
    assert_eq!(stdout(&one), stdout(&other));
    // The command in the comment renders the same again.
    let command = stdout(&one).lines().find_map(|line| line.strip_prefix("#   cairn k3s render ").map(str::to_owned));
    let command = command.expect("the command in the comment");
    assert_eq!(stdout(&render(&command.split(' ').collect::<Vec<_>>())), stdout(&one));
}

/// So the files can be the templates of a chart.
#[test]
fn helm_takes_nothing_in_them_for_its_own() {
    for (name, arguments) in variants() {
        let rendered = stdout(&render(arguments));
        assert!(rendered.contains("kind: StatefulSet") && !rendered.contains("{{"), "{name}");
    }
}

#[test]
fn the_namespace_is_in_a_file_of_its_own() {
    for (name, arguments) in variants() {
        let folder = tempfile::tempdir().expect("temporary directory");
        render_into(folder.path(), arguments);
        let kinds = |file: &str| -> Vec<String> {
            let objects = parse(&fs::read_to_string(folder.path().join(file)).expect("rendered"));
            objects.iter().map(|object| text(&object["kind"]).to_owned()).collect()
        };
        assert_eq!(kinds(FILES[0]), ["Namespace"], "{name}");
        assert!(!kinds(FILES[1]).contains(&"Namespace".to_owned()), "{name}");
        // Nothing half-written stays, under no name.
        assert_eq!(files_below(folder.path()).len(), 2, "{name}");
    }
}

#[test]
fn the_node_takes_every_configuration() {
    for (name, arguments) in variants() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("cairn.toml");
        // The certificate is mounted in the pod only; whether it is there is looked at by `serve`.
        fs::write(&file, configuration(&objects(arguments))).expect("written");
        let path = file.to_str().expect("UTF-8");
        let on = |arguments: &[&str]| {
            json_of(&run_on(&directory.path().join("data"), &[arguments, &["--json", "--config", path]].concat()))
        };
        on(&["collection", "create", "notes"]);
        let status = on(&["status"]);
        assert_eq!(status["ready"], true, "{name}");
    }
}

/// The names by which an object refers to others, and what a rendering says about addresses.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    const NAMES: [&str; 3] = ["serviceAccountName", "serviceName", "secretName"];
    const OBJECTS: [&str; 6] = ["configMap", "service", "issuerRef", "credentials", "secret", "target"];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if NAMES.contains(&key.as_str()) { value } else { &value["name"] };
                if NAMES.contains(&key.as_str()) || OBJECTS.contains(&key.as_str()) {
                    found.extend(name.as_str().map(str::to_owned));
                }
                if key == "rootCAsSecrets" || key == "dnsNames" {
                    found.extend(items(value).map(text).map(str::to_owned));
                }
                if key == "serverName" || key.ends_with("serverstransport") {
                    found.insert(text(value).to_owned());
                }
                references(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// What selects pods, and for a ServiceMonitor Services, of these objects.
fn selectors(objects: &Objects) -> Vec<(String, Value)> {
    let pointers = ["/spec/selector/matchLabels", "/spec/podSelector/matchLabels", "/spec/selector"];
    let of = |object: &Value| {
        let selector = pointers.iter().find_map(|pointer| object.pointer(pointer))?;
        Some((format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"])), selector.clone()))
    };
    let of_peers = objects.of_kind("NetworkPolicy").flat_map(|policy| {
        let peers = items(&policy["spec"]["egress"]).flat_map(|rule| items(&rule["to"]));
        let own = peers.filter(|peer| peer["namespaceSelector"].is_null() && !peer["podSelector"].is_null());
        own.map(|peer| {
            (format!("a peer of {}", policy["metadata"]["name"]), peer["podSelector"]["matchLabels"].clone())
        })
    });
    objects.0.iter().filter_map(of).chain(of_peers).collect()
}

#[test]
fn two_nodes_share_a_namespace_without_an_object_a_reference_or_a_selector_in_common() {
    // What the operator named is the operator's, and what belongs to the cluster one of them brings.
    let chosen = BTreeSet::from(["cairn.example.com", "cairn.example", "vault"].map(str::to_owned));
    for (variant, arguments) in variants() {
        let more: &[&str] = if variant == "everything" { &["--set", "gpu.own-runtime-class=false"] } else { &[] };
        let first = objects(arguments);
        let second = objects(&[arguments, more, &["--set", "name=second"]].concat());
        assert_eq!(first.one("Namespace"), second.one("Namespace"), "{variant}: whichever file is applied last");
        let keys = |objects: &Objects| -> BTreeSet<(String, String)> {
            let of = |object: &Value| (text(&object["kind"]).to_owned(), text(&object["metadata"]["name"]).to_owned());
            objects.0.iter().filter(|object| object["kind"] != "Namespace").map(of).collect()
        };
        let common: Vec<_> = keys(&first).intersection(&keys(&second)).cloned().collect();
        assert!(common.is_empty(), "{variant}: {common:?}");
        assert_eq!(keys(&second).len() + more.len() / 2, keys(&first).len(), "{variant}");
        let of = |objects: &Objects| {
            let mut found = BTreeSet::new();
            objects.0.iter().for_each(|object| references(object, &mut found));
            found
        };
        let (of_first, of_second) = (of(&first), of(&second));
        assert!(of_first.contains("cairn-token") && of_second.contains("second-token"), "{variant}: {of_second:?}");
        let common: Vec<_> = of_first.intersection(&of_second).filter(|name| !chosen.contains(*name)).collect();
        assert!(common.is_empty(), "{variant}: {common:?}");
        let labelled = |objects: &Objects| {
            let templates = objects.0.iter().flat_map(|object| {
                [object.pointer("/spec/template"), object.pointer("/spec/jobTemplate/spec/template"), Some(object)]
            });
            let labels = templates.flatten().map(|object| object["metadata"]["labels"].clone());
            labels.filter(|labels| labels["app.kubernetes.io/component"] != "namespace").collect::<Vec<Value>>()
        };
        for (own, other) in [(&first, &second), (&second, &first)] {
            for (label, selector) in selectors(own) {
                assert!(
                    labelled(own).iter().any(|labels| selects(&selector, labels)),
                    "{variant}: {label} finds nothing"
                );
                assert!(
                    !labelled(other).iter().any(|labels| selects(&selector, labels)),
                    "{variant}: {label} {selector}"
                );
            }
        }
        let files = tempfile::tempdir().expect("temporary directory");
        render_into(files.path(), arguments);
        render_into(files.path(), &[arguments, &["--set", "name=second"]].concat());
        let names = files_below(files.path());
        assert_eq!(names.len(), 4, "{names:?}");
    }
    let job = objects(&["--with", "documents", "--set", "documents.claim=manuals", "--set", "name=second"]);
    let container = &job.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert!(items(&container["env"]).any(|one| one["value"] == "https://second.cairn.svc:7171"), "{container}");
    let base = tempfile::tempdir().expect("temporary directory");
    render_into(base.path(), &["--kustomize", "--set", "name=second"]);
    let text = fs::read_to_string(base.path().join("kustomization.yaml")).expect("rendered");
    assert_says(&text, &["cairn-second-namespace.yaml", "- name: second\n", "instance: \"second\""]);
}

/// What the container's variable says where the pod has this name in this namespace.
fn pod_variable(objects: &Objects, pod: &str, namespace: &str) -> String {
    let variables = &objects.pod()["containers"][0]["env"];
    let field = |name: &str| {
        let variable = items(variables).find(|variable| variable["name"] == name).expect("a variable");
        text(&variable["valueFrom"]["fieldRef"]["fieldPath"]).to_owned()
    };
    assert_eq!(
        (field("POD_NAME"), field("POD_NAMESPACE")),
        ("metadata.name".to_owned(), "metadata.namespace".to_owned())
    );
    let variable = items(variables).find(|variable| variable["name"] == "CAIRN_SERVER_POD").expect("a variable");
    text(&variable["value"]).replace("$(POD_NAME)", pod).replace("$(POD_NAMESPACE)", namespace)
}

/// Kustomize changes names and namespaces, and no text: the node takes them from its pod.
#[test]
fn a_base_for_kustomize_holds_under_another_name_and_namespace() {
    let folder = tempfile::tempdir().expect("temporary directory");
    render_into(folder.path(), &["--kustomize"]);
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("rendered");
    let base: Value = serde_yaml::from_str(&read("kustomization.yaml")).expect("YAML");
    assert_eq!(base["resources"], json!(["cairn-namespace.yaml", "cairn.yaml"]));
    let generator = &base["configMapGenerator"][0];
    assert_eq!((&generator["name"], &generator["files"]), (&json!("cairn"), &json!(["cairn.toml"])));
    let objects =
        Objects([read("cairn-namespace.yaml"), read("cairn.yaml")].iter().flat_map(|text| parse(text)).collect());
    assert_eq!(objects.of_kind("ConfigMap").count(), 0, "Kustomize makes it, named by its content");
    let template = &objects.workload()["template"]["metadata"];
    assert!(template["annotations"]["cairn.local/configuration"].is_null(), "a patched file would not be followed");
    assert!(!read("cairn.toml").contains("cairn.cairn.svc"), "{}", read("cairn.toml"));
    let file = folder.path().join("cairn.toml").to_string_lossy().into_owned();
    let variable = pod_variable(&objects, "team-cairn-0", "team-a");
    let node = TestNode::with_arguments(
        &["--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"],
        &[("CAIRN_CONFIG", &file), ("CAIRN_SERVER_POD", &variable)],
    );
    let port = node.base().rsplit_once(':').expect("a port").1.to_owned();
    let authority = node.data_dir().join("tls/authority.pem");
    for (name, is_own) in
        [("team-cairn.team-a.svc", true), ("team-cairn.team-a.svc.cluster.local", true), ("cairn.cairn.svc", false)]
    {
        let mut curl = clean(Command::new("curl"));
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        curl.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), "--cacert"]).arg(&authority);
        let answer = curl.arg(format!("https://{name}:{port}/authority.pem")).output().expect("curl runs");
        assert_eq!(
            (answer.status.success(), stdout(&answer) == "200"),
            (is_own, is_own),
            "{name}: {}",
            stderr(&answer)
        );
    }
}

/// The pods of the job are no less bounded than the node's.
#[test]
fn the_job_for_documents_keeps_the_rules_of_pods_and_reaches_the_node_alone() {
    for source in [
        &["--set", "documents.claim=manuals"][..],
        &["--set", "documents.config-map=manuals"],
        &[
            "--set",
            "documents.git=https://git.example/site/manuals.git",
            "--set",
            "documents.git.image=registry.example/git:2.50.1",
            "--set",
            "documents.git.branch=main",
            "--set",
            "documents.git.secret=git",
            "--set",
            "documents.git.cidr=10.1.0.0/16",
            "--set",
            "documents.path=docs/site",
        ],
    ] {
        let all = objects(&[&["--with", "documents", "--set", "documents.collection=manuals"], source].concat());
        let job = all.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"].clone();
        // The same rules, on the job's pod in the place of the node's.
        let mut as_node = all.clone();
        as_node.edit("StatefulSet", "/spec/template", job.clone());
        let of_pods = [
            "drop-net-raw-capability",
            "read-secret-from-env-var",
            "latest-tag, stable-version",
            "no-read-only-root-fs",
            "non-existent-service-account, default-service-account",
            "privilege-escalation-container, privileged-container",
            "run-as-non-root",
            "sensitive-host-mounts, writable-host-mount, docker-sock",
            "unset-cpu-requirements, unset-memory-requirements",
            "container-ephemeral-storage-request-and-limit",
            "container-security-context-user-group-id",
            "the pod has no access to the cluster",
            "no variables of services",
            "no registry is asked for what is there",
            "temporary files are bounded",
        ];
        let rules = [KUBE_LINTER, KUBE_SCORE, OWN].into_iter().flatten().filter(|rule| of_pods.contains(&rule.name));
        let rules: Vec<&Rule> = rules.chain(POD_SECURITY).collect();
        assert_eq!(rules.len(), of_pods.len() + POD_SECURITY.len());
        for rule in rules {
            assert!((rule.holds)(&as_node), "{source:?}: {}", rule.name);
        }
        let container = &job["spec"]["containers"][0];
        let arguments: Vec<&str> = items(&container["args"]).map(text).collect();
        assert_eq!(arguments[..4], ["add", "--yes", "--collection", "manuals"]);
        let policy = all.of_kind("NetworkPolicy").nth(1).expect("one of its own");
        let egress: Vec<&Value> = items(&policy["spec"]["egress"]).collect();
        let is_git = source.len() > 2;
        assert_eq!(egress.len(), if is_git { 3 } else { 2 }, "{policy}");
        if is_git {
            let clone = &job["spec"]["initContainers"][0];
            let expected = json!([
                "-c",
                "credential.helper=store --file=/run/secrets/git/credentials",
                "clone",
                "--depth=1",
                "--single-branch",
                "--branch=main",
                "--",
                "https://git.example/site/manuals.git",
                "/documents/repository",
            ]);
            assert_eq!((&clone["command"], &clone["args"]), (&json!(["git"]), &expected));
            assert_eq!(arguments[4], "/documents/repository/docs/site");
            assert_eq!(egress[2]["to"], json!([{"ipBlock": {"cidr": "10.1.0.0/16"}}]));
        }
    }
}

/// What the job runs, on a node: its own program with the variables and the files of the manifests.
#[test]
fn what_the_job_runs_brings_a_collection_in_step() {
    let all = objects(&["--with", "documents", "--set", "documents.claim=manuals"]);
    let container = &all.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    let directory = tempfile::tempdir().expect("temporary directory");
    let token = directory.path().join("token");
    fs::write(&token, "a-token-of-some-length\n").expect("written");
    let node = TestNode::with_arguments(
        &["--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"],
        &[
            ("CAIRN_SERVER_TOKEN_FILE", token.to_str().expect("UTF-8")),
            ("CAIRN_SERVER_POD", "cairn-0.cairn.svc.cluster.local"),
        ],
    );
    let manuals = directory.path().join("manuals");
    fs::create_dir(&manuals).expect("made");
    fs::write(manuals.join("relay.md"), "The relay in cabinet four trips.").expect("written");
    let port = node.base().rsplit_once(':').expect("a port").1.to_owned();
    let mut command = cairn();
    for variable in items(&container["env"]) {
        let value = match text(&variable["name"]) {
            "CAIRN_TOKEN_FILE" => token.display().to_string(),
            "CAIRN_CA" => node.data_dir().join("tls/authority.pem").display().to_string(),
            _ => text(&variable["value"]).replace("7171", &port),
        };
        command.env(text(&variable["name"]), value);
    }
    let arguments: Vec<String> = items(&container["args"])
        .map(|argument| text(argument).replace("/documents", &manuals.to_string_lossy()))
        .collect();
    let output =
        command.env("CAIRN_RESOLVE", "127.0.0.1").args(&arguments).arg("--json").output().expect("the binary runs");
    assert_eq!(json_of(&output)["created"], 1, "{}", stderr(&output));
}

/// The rendered configuration, the probes and the token's file, on a real node.
#[test]
fn a_node_of_the_manifests_answers_its_probes_and_its_clients() {
    let objects = objects(&["--node-size", "pi"]);
    let directory = tempfile::tempdir().expect("temporary directory");
    let (file, token_file) = (directory.path().join("cairn.toml"), directory.path().join("token"));
    fs::write(&file, configuration(&objects)).expect("written");
    fs::write(&token_file, "a-token-of-some-length").expect("written");
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    // Ports of a test are free ones; the rest is as in the pod.
    let node = TestNode::with_arguments(
        &["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0"],
        &[
            ("CAIRN_CONFIG", &path(&file)),
            ("CAIRN_SERVER_TOKEN_FILE", &path(&token_file)),
            ("CAIRN_SERVER_POD", &pod_variable(&objects, "cairn-0", "cairn")),
        ],
    );
    let container = &objects.pod()["containers"][0];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let probe = &container[probe]["httpGet"];
        assert!(node.admin.starts_with(&format!("{}://", text(&probe["scheme"]).to_lowercase())), "{}", node.admin);
        // kubelet names the pod by its address.
        let answer = node.request(
            "GET",
            &format!("{}{}", node.admin, text(&probe["path"])),
            &[("host", "10.42.0.7:9464")],
            None,
        );
        assert_eq!(answer.status, 200, "{probe}");
    }
    let as_client = |host: &str, token: &str| {
        let headers = [("host", host), ("authorization", token), ("content-type", "application/json")];
        node.request("POST", &format!("{}/v1/tools/get_status", node.base()), &headers, Some(b"{}")).status
    };
    assert_eq!(as_client("cairn.cairn.svc:7171", "Bearer a-token-of-some-length"), 200);
    assert_eq!(as_client("cairn.cairn.svc:7171", "Bearer another-token-of-some-length"), 401);
    assert_eq!(as_client("cairn.elsewhere.svc:7171", "Bearer a-token-of-some-length"), 403);
}

#[test]
fn every_variant_keeps_every_rule() {
    let mut broken = Vec::new();
    for (name, arguments) in variants() {
        for pinned in [false, true] {
            let arguments = if pinned { [arguments, &["--image-digest", DIGEST]].concat() } else { arguments.to_vec() };
            let objects = objects(&arguments);
            let failed =
                [KUBE_LINTER, KUBE_SCORE, POD_SECURITY, OWN].concat_rules().filter(|rule| !(rule.holds)(&objects));
            broken.extend(failed.map(|rule| format!("{name}: {}", rule.name)));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_rule_sees_what_it_is_about() {
    let good = objects(&[]);
    let mut blind = Vec::new();
    for rule in [KUBE_LINTER, KUBE_SCORE, POD_SECURITY, OWN].concat_rules() {
        let mut bad = good.clone();
        (rule.breaks)(&mut bad);
        if (rule.holds)(&bad) {
            blind.push(rule.name);
        }
    }
    assert!(blind.is_empty(), "{blind:#?}");
    let counts =
        [("kube-linter", KUBE_LINTER), ("kube-score", KUBE_SCORE), ("Pod Security", POD_SECURITY), ("own", OWN)];
    println!("{}", counts.map(|(name, rules)| format!("{name}: {} rules", rules.len())).join(", "));
}

trait Tables {
    fn concat_rules(&self) -> impl Iterator<Item = &'static Rule>;
}

impl Tables for [&'static [Rule]; 4] {
    fn concat_rules(&self) -> impl Iterator<Item = &'static Rule> {
        self.iter().copied().flatten()
    }
}

#[test]
fn sizes_follow_the_node() {
    let mut last = 0.0;
    for (size, memory) in [("pi", "900MiB"), ("small", "3.8GiB"), ("medium", "15GiB"), ("large", "62GiB")] {
        let by_name = objects(&["--node-size", size]);
        let limits = &by_name.pod()["containers"][0]["resources"]["limits"];
        assert!(quantity(&limits["memory"]) > last, "{size}");
        last = quantity(&limits["memory"]);
        for same in [&["--node-size", memory][..], &["--set", &format!("node.memory={memory}")]] {
            assert_eq!(objects(same).pod()["containers"][0]["resources"], by_name.pod()["containers"][0]["resources"]);
        }
    }
    assert!(render(&["--node-size", "auto"]).status.success());
}

#[test]
fn settings_reach_where_they_belong() {
    let objects = objects(&[
        "--set",
        "namespace=docs",
        "--set",
        "storage.size=64GiB",
        "--set",
        "storage.class=fast",
        "--set",
        "resources.memory=2GiB",
        "--set",
        "node.name=site-7",
        "--set",
        "hosts=docs.example",
        "--set",
        "config.search.limit=12",
        "--set",
        "config.server.drain_timeout=2m",
        "--set",
        "config.snapshot.target=s3://bucket/site-7",
        "--set",
        "config.snapshot.s3_endpoint=https://minio.example:9000",
        "--set",
        "backup.secret=keys",
        "--set",
        "backup.cidr=10.0.0.0/8",
        "--image",
        "registry.example/cairn:1",
        "--image-digest",
        DIGEST,
    ]);
    assert!(objects.0.iter().skip(1).all(|object| object["metadata"]["namespace"] == "docs"));
    let claim = &objects.workload()["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["resources"]["requests"]["storage"], "64Gi");
    assert_eq!(claim["storageClassName"], "fast");
    let pod = objects.pod();
    assert_eq!(pod["containers"][0]["image"], format!("registry.example/cairn@{DIGEST}"));
    assert_eq!(pod["nodeSelector"]["kubernetes.io/hostname"], "site-7");
    // The image runs on one kind of processor.
    assert!(pod["nodeSelector"]["kubernetes.io/arch"].is_string(), "{}", pod["nodeSelector"]);
    assert_eq!(pod["terminationGracePeriodSeconds"], 160);
    assert_says(
        &configuration(&objects),
        &["limit = 12", "max_bytes = \"2GiB\"", "\"docs.example\"", "/run/secrets/cairn-backup/access-key"],
    );
    let egress = &objects.one("NetworkPolicy")["spec"]["egress"][1];
    assert_eq!(
        *egress,
        json!({"ports": [{"port": 9000, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]})
    );
}

#[test]
fn what_platforms_ask_of_pods_reaches_them() {
    let objects = objects(&[
        "--set",
        "tolerations=edge=true:NoSchedule,node-role.kubernetes.io/control-plane,*",
        "--set",
        "node.selector=disk=ssd,site=7",
        "--set",
        "node.prefer=zone=a",
        "--set",
        "priority-class=edge-critical",
        "--set",
        "image.pull-secrets=registry,mirror",
        "--set",
        "env=HTTPS_PROXY=http://proxy:3128",
        "--set",
        "pod.annotations=example.com/team=ops",
        "--set",
        "service.annotations=metallb.io/address-pool=site",
        "--with",
        "ingress",
        "--set",
        "ingress.host=a.example",
        "--set",
        "ingress.path=/mcp",
        "--set",
        "ingress.annotations=example.com/auth=site",
        "--set",
        "node.arch=arm64",
    ]);
    let pod = objects.pod();
    assert_eq!(
        pod["tolerations"],
        json!([
            {"key": "edge", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
            {"operator": "Exists"},
        ])
    );
    assert_eq!(pod["nodeSelector"], json!({"disk": "ssd", "site": "7", "kubernetes.io/arch": "arm64"}));
    let term = &pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
    let expected = json!([{"key": "zone", "operator": "In", "values": ["a"]}]);
    assert_eq!(term["preference"]["matchExpressions"], expected);
    assert_eq!(pod["priorityClassName"], "edge-critical");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}, {"name": "mirror"}]));
    let variables = &pod["containers"][0]["env"];
    assert!(
        items(variables).any(|one| one["name"] == "HTTPS_PROXY" && one["value"] == "http://proxy:3128"),
        "{variables}"
    );
    let template = &objects.workload()["template"]["metadata"]["annotations"];
    assert_eq!(template["example.com/team"], "ops");
    let service = objects.of_kind("Service").find(|service| service["metadata"]["name"] == "cairn").expect("there");
    assert_eq!(service["metadata"]["annotations"]["metallb.io/address-pool"], "site");
    let ingress = objects.one("Ingress");
    assert_eq!(ingress["spec"]["rules"][0]["http"]["paths"][0]["path"], "/mcp");
    assert_eq!(ingress["metadata"]["annotations"]["example.com/auth"], "site");
}

#[test]
fn an_image_for_several_processors_runs_on_nodes_with_each_of_them() {
    let set = ["--set", "node.arch=amd64,arm64", "--set", "node.prefer=zone=a", "--with", "documents"];
    let both = objects(&[&set[..], &["--set", "documents.claim=manual"]].concat());
    let expected = json!([{"matchExpressions": [
        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}
    ]}]);
    let job = &both.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    for pod in [both.pod(), job] {
        let required = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(required["nodeSelectorTerms"], expected);
        assert_eq!(pod["nodeSelector"], Value::Null, "a label is one of them only");
    }
    let preferred = &both.pod()["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(list(preferred).len(), 1);
}

#[test]
fn a_gpu_takes_an_image_of_its_own_and_what_its_maker_needs() {
    let nvidia = objects(&["--with", "gpu"]);
    let pod = nvidia.pod();
    let container = &pod["containers"][0];
    assert_eq!(container["image"], format!("cairn.local/cairn:{}-gpu", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        (&pod["runtimeClassName"], &container["resources"]["limits"]["nvidia.com/gpu"]),
        (&json!("nvidia"), &json!("1"))
    );
    assert!(container["env"].to_string().contains("NVIDIA_DRIVER_CAPABILITIES"), "{container}");

    let set = ["--with", "gpu", "--set", "gpu.resource=gpu.intel.com/i915", "--set", "gpu.group=105"];
    let intel = objects(&set);
    let pod = intel.pod();
    let container = &pod["containers"][0];
    assert_eq!(container["resources"]["limits"]["gpu.intel.com/i915"], "1");
    assert_eq!(pod["securityContext"]["supplementalGroups"], json!([105]));
    assert_eq!(pod["tolerations"][0]["key"], "gpu.intel.com/i915");
    let text = pod.to_string().to_lowercase();
    assert!(!text.contains("nvidia"), "{text}");
}

#[test]
fn a_volume_for_backups_and_plain_text_behind_something_that_speaks_tls() {
    let objects = objects(&[
        "--with",
        "ingress,monitoring",
        "--set",
        "ingress.host=a.example",
        "--set",
        "backup.claim=nas",
        "--set",
        "config.server.tls=off",
    ]);
    let mounts = &objects.pod()["containers"][0]["volumeMounts"];
    assert!(items(mounts).any(|mount| mount["mountPath"] == "/var/lib/cairn-snapshots"), "{mounts}");
    assert_says(&configuration(&objects), &["target = \"/var/lib/cairn-snapshots\"", "tls = \"off\""]);
    assert_eq!(objects.pod()["containers"][0]["livenessProbe"]["httpGet"]["scheme"], "HTTP");
    assert_eq!(objects.one("ServiceMonitor")["spec"]["endpoints"][0]["scheme"], "http");
    assert_eq!(objects.of_kind("ServersTransport").count(), 0);
}

#[test]
fn a_token_becomes_a_secret_and_is_shown_nowhere_else() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("token");
    fs::write(&file, "a-token-of-some-length\n").expect("written");
    let objects = objects(&["--token-file", file.to_str().expect("UTF-8")]);
    let secret = objects.one("Secret");
    assert_eq!(secret["metadata"]["name"], "cairn-token");
    assert_eq!(secret["data"], json!({"token": "YS10b2tlbi1vZi1zb21lLWxlbmd0aA=="}));
    render_into(directory.path(), &["--token-file", file.to_str().expect("UTF-8")]);
    let mode = fs::metadata(directory.path().join("cairn.yaml")).expect("rendered").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&file, "short secret").expect("written");
    let refused = render(&["--token-file", file.to_str().expect("UTF-8")]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!stderr(&refused).contains("short secret"), "{}", stderr(&refused));
    assert_says(&stderr(&refused), &["the token of --token-file (not shown)", "16 printable characters"]);
}

#[test]
fn mistakes_are_named_all_at_once_with_what_was_meant() {
    let said = |arguments: &[&str], words: &[&str]| {
        let output = render(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert_says(&stderr(&output), words);
    };
    said(
        &[
            "--set",
            "storage.sise=1GiB",
            "--set",
            "namespace=kube-system",
            "--set",
            "gpu.count=2",
            "--with",
            "ingress",
            "--set",
            "resources.cpu=lots",
        ],
        &["'storage.sise'", "'storage.size'", "kube-system", "`--with gpu`", "ingress.host", "resources.cpu", "lots"],
    );
    // Those of Cairn's own settings too.
    said(
        &[
            "--set",
            "config.search.limit=999",
            "--set",
            "config.foo.bar=1",
            "--set",
            "storage.size=10",
            "--with",
            "ingress",
        ],
        &["config.search.limit", "config.foo.bar", "storage.size", "ingress.host"],
    );
    // One mistake is told once, where it was made.
    let output = render(&["--with", "ingress"]);
    assert!(stderr(&output).contains("ingress.host") && !stderr(&output).contains("config."), "{}", stderr(&output));
    said(&["--set", "tolerations=edge:Sometimes"], &["tolerations", "NoSchedule"]);
    said(&["--set", "env=CAIRN_LOG_FILTER=debug"], &["env", "config.SECTION.KEY"]);
    said(&["--set", "node.arch=any"], &["node.arch", "amd64,arm64"]);
    said(&["--set", "node.arch=amd64,any"], &["node.arch", "any"]);
    said(&["--with", "documents"], &["documents.git", "documents.claim", "documents.config-map"]);
    said(&["--with", "documents", "--set", "documents.git=https://git.example/a.git"], &["documents.git.image", "git"]);
    said(
        &[
            "--with",
            "documents",
            "--set",
            "documents.claim=a",
            "--set",
            "documents.schedule=often",
            "--set",
            "documents.path=../b",
        ],
        &["documents.schedule", "documents.path"],
    );
    let claim = ["--with", "documents", "--set", "documents.claim=a"];
    said(&[&claim[..], &["--set", "documents.schedule=99 * * * *"]].concat(), &["documents.schedule", "99", "minute"]);
    let git = ["--with", "documents", "--set", "documents.git=https://git.example/a.git"];
    said(&[&git[..], &["--set", "documents.git.image=x"]].concat(), &["documents.git.image", "digest"]);
    said(&["--with", "certmanager"], &["cert-manager"]);
    said(&["--set", "novalue"], &["KEY=VALUE"]);
    said(&["--set", "config.server.listen=0.0.0.0:80"], &["config.server.listen", "`address`"]);
    said(&["--set", "config.search.limmit=5"], &["config.search.limmit", "no such key"]);
    said(&["--set", "config.search.limit=5000"], &["config.search.limit", "5000"]);
    said(&["--set", "config.search.limit=[1"], &["config.search.limit"]);
    said(&["--set", "config.snapshot.target=/backup"], &["backup.claim"]);
    said(&["--set", "namespace=on"], &["namespace", "truth value"]);
    said(&["--set", "name=site-token"], &["name is 'site-token'", "such as cairn-2", "not ending in", "token"]);
    said(&["--set", "name=2nd"], &["name is '2nd'", "the first a letter"]);
    said(&["--image", "cairn"], &["--image", "cairn"]);
    said(&["--image", "registry.example/cairn:latest"], &["latest"]);
    said(&["--image-digest", "sha256:12"], &["--image-digest", "64 hex digits"]);
    said(&["--with", "gpu", "--set", "gpu.resource=gpu"], &["gpu.resource", "nvidia.com/gpu"]);
    said(
        &["--with", "gpu", "--set", "gpu.resource=amd.com/gpu", "--set", "gpu.own-runtime-class=true"],
        &["gpu.own-runtime-class", "gpu.runtime-class"],
    );
    said(&["--node-size", "huge"], &["huge", "auto"]);
    said(&["--node-size", "pi", "--set", "node.memory=64GiB"], &["node.memory", "--node-size"]);
    said(
        &["--set", "resources.memory=256MiB", "--set", "resources.memory-request=1GiB"],
        &["resources.memory-request"],
    );
}

/// A value for a key, with every variant turned on and what these need: `None` where it is refused. Where it is taken, the files hold
/// what was set and nothing else.
fn rendered_with(key: &str, value: &str) -> Option<Settings> {
    let assignment = |text: &str| text.parse::<Assignment>().expect("an assignment");
    // Documents have one source.
    let source: &[&str] = match key {
        _ if key.starts_with("documents.git") => {
            &["documents.git=https://git.example/a.git", "documents.git.image=registry.example/git:2.50.1"]
        }
        "documents.config-map" => &[],
        _ => &["documents.claim=manuals"],
    };
    let required = ["ingress.host=a.example", "external-secrets.store=vault"];
    let mut set: Vec<Assignment> = required.iter().chain(source).map(|text| assignment(text)).collect();
    set.push(Assignment { key: key.to_owned(), value: value.to_owned() });
    let options = Options { with: Variant::ALL.into_iter().collect(), set, ..Options::default() };
    let settings = Settings::new(&options).ok()?;
    let rendered = cairn::deploy::k3s::render(&settings);
    let found: Vec<Value> = [rendered.namespace, rendered.main].iter().flat_map(|text| parse(text)).collect();
    let wanted = [vec![cairn::deploy::k3s::namespace(&settings)], cairn::deploy::k3s::objects(&settings)].concat();
    let wanted: Vec<Value> = wanted.iter().map(|object| serde_json::to_value(object).expect("plain data")).collect();
    assert_eq!(found, wanted, "{key}={value}: a reader of YAML sees other objects");
    let own = configuration(&Objects(found)).parse::<toml::Table>();
    if key.starts_with("config.") {
        // A text in brackets or quotes is taken as TOML, and refused by the check of the whole when it is none.
        let is_toml = value.starts_with('[') || value.starts_with('"');
        let own = own.map(|own| own["snapshot"]["s3_region"].clone());
        let is_value = own.as_ref().is_ok_and(|own| !own.is_str() || own.as_str() == Some(value));
        assert!(is_value || is_toml, "{key}={value}: {own:?}");
    } else {
        assert!(own.is_ok(), "{key}={value}: {own:?}");
    }
    Some(settings)
}

/// Every key, and a setting of Cairn's own that takes any text.
fn every_key() -> Vec<String> {
    keys().into_iter().map(|key| key.name).chain(["config.snapshot.s3_region".to_owned()]).collect()
}

/// So the property below is about files, and not about refusals only.
#[test]
fn every_key_has_a_value_that_is_taken_together_with_all_variants() {
    const VALUES: [&str; 18] = [
        "second",
        "arm64",
        "8GiB",
        "64MiB",
        "2",
        "::",
        "10.0.0.0/8",
        "disk=ssd",
        "true",
        "https://git.example/b.git",
        "registry.example/git:2.51.0",
        "@daily",
        "60s",
        "/mcp",
        "Issuer",
        "SecretStore",
        "amd.com/gpu",
        "7172",
    ];
    let refused: Vec<String> =
        every_key().into_iter().filter(|key| !VALUES.iter().any(|value| rendered_with(key, value).is_some())).collect();
    assert!(refused.is_empty(), "no value of this test suits {refused:?}");
}

/// Any key; as often as all others together the one that takes any text.
fn some_key() -> impl Strategy<Value = String> {
    let all = every_key();
    let free = all.last().cloned().expect("the last one");
    prop_oneof![prop::sample::select(all), Just(free)]
}

/// Any text; often one that means something to YAML and TOML.
fn some_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,24}",
        "[a-z0-9.:/,-]{1,16}",
        "[a-z]{1,8}=[ -~]{0,12}",
        "[a-z\"'\\\\#:{}\\[\\]|>&*!%@,= -]{1,12}",
        "\\PC{0,8}"
    ]
}

proptest! {
    /// Whatever is set, it is refused, or it ends up as one value in files that hold nothing else.
    #[test]
    fn no_value_breaks_out_of_its_place(key in some_key(), value in some_value()) {
        rendered_with(&key, &value);
    }
}

#[test]
fn json_tells_what_was_rendered() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let written = json_of(&render(&["--json", "-o", folder.path().to_str().expect("UTF-8")]));
    assert_eq!(written["image"], format!("cairn.local/cairn:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(written["files"][0]["objects"], json!([{"kind": "Namespace", "name": "cairn"}]));
    assert_eq!(written["files"][1]["path"], folder.path().join("cairn.yaml").to_str().expect("UTF-8"));
    let shown = json_of(&render(&["--json"]));
    assert_eq!(shown["files"][1]["text"], fs::read_to_string(folder.path().join("cairn.yaml")).expect("written"));
}

#[test]
fn the_manual_lists_every_key_and_size() {
    let manual = fs::read_to_string(root().join("docs/k3s.md")).expect("the manual");
    let help = stdout(&render(&["--help"]));
    for key in keys() {
        assert!(manual.contains(&format!("`{}`", key.name)), "docs/k3s.md does not list {}", key.name);
        assert!(help.contains(&key.name), "--help does not list {}", key.name);
    }
    for size in NodeSize::ALL {
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{size}` |"))).expect("a row for each size");
        let defaults = size.defaults();
        for number in [defaults.memory, defaults.ephemeral, defaults.storage] {
            assert!(row.contains(&number.to_string()), "{number} in {row}");
        }
    }
}

/// A program that `make setup` installs.
pub fn scanner(name: &str) -> Command {
    let path = root().join("target/scanners/bin").join(name);
    assert!(path.exists(), "{} is missing: run `make setup` first", path.display());
    let mut command = clean(Command::new(path));
    command.stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

/// checkov passes by whatever begins with a dot.
pub fn visible_folder() -> TempDir {
    tempfile::Builder::new().prefix("cairn-").tempdir().expect("temporary directory")
}

/// Failed checks with the objects, and how many passed.
pub fn checkov(folder: &Path) -> (BTreeMap<String, BTreeSet<String>>, u64) {
    let output = scanner("checkov")
        .args(["--framework", "kubernetes", "--skip-download", "--output", "json", "--directory"])
        .arg(folder)
        .output()
        .expect("checkov runs");
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    let mut failed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for check in items(&report["results"]["failed_checks"]) {
        let place = format!("{} in {}", text(&check["resource"]), text(&check["file_path"]));
        failed.entry(text(&check["check_id"]).to_owned()).or_default().insert(place);
    }
    assert_eq!(report["summary"]["skipped"], 0, "checks are skipped here with a reason, not in the manifests");
    assert_eq!(report["summary"]["parsing_errors"], 0);
    (failed, report["summary"]["passed"].as_u64().expect("a count"))
}

#[test]
fn checkov_finds_nothing_in_any_variant() {
    let directory = visible_folder();
    for (name, arguments) in variants() {
        let folder = directory.path().join(if name.is_empty() { "plain" } else { name });
        render_into(&folder, &[arguments, &["--image-digest", DIGEST]].concat());
    }
    let (failed, passed) = checkov(directory.path());
    println!("checkov: {passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    // Fewer would mean that it no longer looks.
    assert!(passed >= 90 * variants().len() as u64, "{passed}");
}

/// What is shipped names the image by its tag, since its digest is known when it is built. Two checks are about exactly that.
#[test]
fn checkov_sees_that_a_tag_is_no_digest() {
    let directory = visible_folder();
    render_into(directory.path(), &[]);
    let (failed, _) = checkov(directory.path());
    assert_eq!(failed.keys().collect::<Vec<_>>(), ["CKV_K8S_15", "CKV_K8S_43"], "{failed:#?}");
}

#[test]
fn kubernetes_takes_every_object_in_its_three_newest_versions_and_the_oldest_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut files = Vec::new();
    for (name, arguments) in variants() {
        let objects = objects(arguments).0;
        for (place, object) in objects.iter().filter(|object| !CUSTOM.contains(&text(&object["kind"]))).enumerate() {
            let file = directory.path().join(format!("{}-{place}.json", name.replace('/', "-")));
            fs::write(&file, object.to_string()).expect("written");
            files.push(file);
        }
    }
    let versions = schema_versions();
    for version in versions.iter().rev().take(3).chain([&OLDEST.to_owned()]) {
        let validate = |files: &[PathBuf]| {
            scanner("kubernetes-validate")
                .args(["--strict", "--quiet", "-k", version])
                .args(files)
                .output()
                .expect("it runs")
        };
        let output = validate(&files);
        assert!(output.status.success(), "{version}: {}{}", stdout(&output), stderr(&output));
        // It sees a field that there is not.
        let mut wrong: Value = serde_json::from_str(&fs::read_to_string(&files[0]).expect("written")).expect("JSON");
        wrong["metadata"]["labbels"] = json!({});
        let file = directory.path().join("wrong.json");
        fs::write(&file, wrong.to_string()).expect("written");
        assert!(!validate(&[file]).status.success(), "{version}");
        println!("kubernetes-validate {version}: {} objects", files.len());
    }
}

/// The versions that it has schemas of, oldest first.
pub fn schema_versions() -> Vec<String> {
    let script = "import kubernetes_validate as k, os; print(os.path.dirname(k.__file__))";
    let output = scanner("python").args(["-c", script]).output().expect("python runs");
    let folder = PathBuf::from(stdout(&output).trim()).join("kubernetes-json-schema");
    let names = fs::read_dir(&folder).expect("schemas").map(|entry| entry.expect("readable").file_name());
    let mut versions: Vec<(u32, String)> = names
        .filter_map(|name| {
            let version = name.to_str()?.strip_prefix('v')?.strip_suffix("-local-strict")?.to_owned();
            Some((version.split('.').nth(1)?.parse().ok()?, version))
        })
        .collect();
    versions.sort();
    assert!(versions.len() >= 3, "{versions:?}");
    versions.into_iter().map(|(_, version)| version).collect()
}
