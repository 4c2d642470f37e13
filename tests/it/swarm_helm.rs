//! Charts of a Docker stack, with the real Helm: it prints the plain objects, whatever text is in them; each value changes what it names; a
//! wrong value is refused; no secret is in a file of values.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cairn::migrate::folder::OutputFile;
use cairn::migrate::helm::charts;
use cairn::migrate::objects::{Home, KubeObject};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::k3s_applied::lost;
use crate::kube_apiserver::{ApiServer, program};
use crate::left_out::left_out;
use crate::node::{cairn, stderr, stdout};

/// A text that no file of values may have.
const SECRET: &str = "correct-horse-battery";

fn helm() -> Option<PathBuf> {
    let helm = program("helm");
    if helm.is_none() {
        left_out("Helm is missing: install Go and run `make setup-kube`");
    }
    helm
}

fn object<T: DeserializeOwned + Into<KubeObject>>(value: Value) -> KubeObject {
    serde_json::from_value::<T>(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}")).into()
}

fn config(name: &str, data: &[(&str, &str)]) -> KubeObject {
    let data: BTreeMap<&str, &str> = data.iter().copied().collect();
    object::<ConfigMap>(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": data}),
    )
}

/// Texts that Helm, Go's templates or YAML read as something.
fn nasty() -> Vec<String> {
    let texts = [
        "{{",
        "}}",
        "{{-",
        "-}}",
        "{{ .Values.x }}",
        "{{{{}}}}",
        "{{{",
        "}}}",
        "{{/* x */}}",
        "{{- /* x */ -}}",
        "{{ \"{{\" }}",
        "{{`{{`}}",
        "`",
        "\"",
        "'",
        "\\",
        "\\n",
        "\n",
        "\n\n\n",
        " leading",
        "trailing ",
        "\tx",
        "# x",
        "a # b",
        "|",
        ">",
        "|-",
        "---",
        "a\n---\nb\n",
        "a\n---\n",
        "...\n",
        "%YAML 1.1",
        "&a",
        "*a",
        "!x",
        "yes",
        "NO",
        "on",
        "~",
        "null",
        "1_000",
        "0x1f",
        "1e3",
        "08",
        "",
        " ",
        "ä\u{2028}\u{2029}\u{85}\u{feff}\u{1f980}",
        "a\r\nb\r\n",
        "a\rb",
        "\u{1}",
        "\u{7f}",
        "$(X) $$ ${Y}",
        "server {\n  listen 80;\n    root {{ .root }};\n}\n",
        "\n  a\n b\n",
        "  a\nb\n",
        "a\n\n",
        "a\n ",
        "\u{e000}0-0\u{e000}",
        "{{ template \"x\" }}",
        "{{ fail \"x\" }}",
        "{{ end }}",
        "@",
        "- a",
        "? a",
        "a: b",
        "a:",
        "[a]",
        "{a: b}",
    ];
    texts.map(str::to_owned).into()
}

/// A stack with every kind of object.
fn stack() -> Vec<(Home, KubeObject)> {
    let mut texts: Vec<(String, String)> =
        nasty().into_iter().enumerate().map(|(at, text)| (format!("k{at}"), text)).collect();
    texts.push(("large".to_owned(), "{{ x }} `\"' # |\n  ä".repeat(5000)));
    let texts: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
    let mut objects = vec![(Home::Configs, config("texts", &texts))];
    for mut document in parse(include_str!("../data/helm/objects.yaml")) {
        let home = match document["home"].as_str().expect("a home") {
            "namespace" => Home::Namespace,
            "configs" => Home::Configs,
            "secrets" => Home::Secrets,
            "volumes" => Home::Volumes,
            "networks" => Home::Networks,
            service => Home::Service(service.strip_prefix("services/").expect("of a service").to_owned()),
        };
        objects.push((home, typed(document["object"].take())));
    }
    objects
}

fn typed(value: Value) -> KubeObject {
    match value["kind"].as_str().expect("a kind") {
        "Namespace" => object::<Namespace>(value),
        "ConfigMap" => object::<ConfigMap>(value),
        "Secret" => object::<Secret>(value),
        "PersistentVolume" => object::<PersistentVolume>(value),
        "PersistentVolumeClaim" => object::<PersistentVolumeClaim>(value),
        "Service" => object::<Service>(value),
        "Deployment" => object::<Deployment>(value),
        "StatefulSet" => object::<StatefulSet>(value),
        "DaemonSet" => object::<DaemonSet>(value),
        "Job" => object::<Job>(value),
        "CronJob" => object::<CronJob>(value),
        "Ingress" => object::<Ingress>(value),
        "NetworkPolicy" => object::<NetworkPolicy>(value),
        "PodDisruptionBudget" => object::<PodDisruptionBudget>(value),
        "HorizontalPodAutoscaler" => object::<HorizontalPodAutoscaler>(value),
        kind => panic!("a {kind}"),
    }
}

fn phases() -> Vec<Vec<String>> {
    [&["mcp-db", "shop"][..], &["agent", "global", "nightly"], &["web"]]
        .map(|phase| phase.iter().map(|name| (*name).to_owned()).collect())
        .into()
}

fn write(files: &[OutputFile]) -> TempDir {
    let folder = tempfile::tempdir().expect("temporary directory");
    for file in files {
        let path = folder.path().join(&file.name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, &file.text).expect("written");
    }
    folder
}

fn run(helm: &Path, arguments: &[&str]) -> Output {
    // Of its own, so that nothing of the user's is read.
    let home = tempfile::tempdir().expect("temporary directory");
    let mut command = Command::new(helm);
    command.env_clear().env("HOME", home.path()).args(arguments);
    command.output().expect("Helm runs")
}

/// What Helm prints.
fn template(helm: &Path, chart: &Path, more: &[&str]) -> Result<Vec<Value>, String> {
    let chart = chart.to_str().expect("UTF-8");
    let output = run(helm, &[&["template", "shop", chart], more].concat());
    if !output.status.success() {
        return Err(stderr(&output));
    }
    Ok(parse(&stdout(&output)))
}

fn parse(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text).map(|one| Value::deserialize(one).expect("YAML"));
    documents.filter(|document| !document.is_null()).collect()
}

fn name_of(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn by_name(objects: Vec<Value>) -> BTreeMap<(String, String), Value> {
    let count = objects.len();
    let all: BTreeMap<_, _> = objects.into_iter().map(|object| (name_of(&object), object)).collect();
    assert_eq!(all.len(), count, "an object is there twice");
    all
}

/// What the charts should print: all but the Namespace and the Secrets.
fn expected(objects: &[(Home, KubeObject)]) -> BTreeMap<(String, String), Value> {
    let all = objects.iter().map(|(_, object)| serde_json::to_value(object).expect("JSON"));
    by_name(all.filter(|object| object["kind"] != "Namespace" && object["kind"] != "Secret").collect())
}

fn assert_same(found: &BTreeMap<(String, String), Value>, expected: &BTreeMap<(String, String), Value>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, object) in expected {
        assert_eq!(found[name], *object, "{name:?}");
    }
}

#[test]
fn helm_prints_the_plain_objects() {
    let Some(helm) = helm() else { return };
    let objects = stack();
    let folder = write(&charts(&objects, "shop", "shop", &phases()));
    let found = template(&helm, &folder.path().join("charts/shop"), &[]).expect("rendered");
    assert_same(&by_name(found), &expected(&objects));
}

/// Every key and every value of a ConfigMap is a text out of what has a meaning somewhere.
#[test]
fn every_text_survives() {
    let Some(helm) = helm() else { return };
    let mut runner = TestRunner::deterministic();
    let letters = "[{}\\-\"`'#|>:\\\\ \n\r\t%@&*!ä\u{2028}\u{feff}$(.)/a0]{0,30}";
    let mut text =
        || proptest::string::string_regex(letters).expect("a pattern").new_tree(&mut runner).expect("a text").current();
    let texts: Vec<(String, String)> = (0..2000).map(|at| (format!("k{at}"), text())).collect();
    let objects: Vec<(Home, KubeObject)> = texts
        .chunks(100)
        .enumerate()
        .map(|(at, chunk)| {
            let data: Vec<(&str, &str)> = chunk.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
            (Home::Configs, config(&format!("c{at}"), &data))
        })
        .collect();
    let folder = write(&charts(&objects, "shop", "shop", &[]));
    let found = template(&helm, &folder.path().join("charts/shop"), &[]).expect("rendered");
    assert_same(&by_name(found), &expected(&objects));
}

#[test]
fn helm_finds_nothing_wrong_with_the_charts() {
    let Some(helm) = helm() else { return };
    let folder = write(&charts(&stack(), "shop", "shop", &phases()));
    let chart = folder.path().join("charts/shop");
    let names: BTreeSet<String> = fs::read_dir(chart.join("charts"))
        .expect("charts of services")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["agent", "global_", "mcp-db", "nightly", "shop", "web"]);
    let lint = |chart: &Path, more: &[&str]| {
        let output = run(&helm, &[&["lint", "--strict", chart.to_str().expect("UTF-8")], more].concat());
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    };
    lint(&chart, &["--with-subcharts"]);
    for entry in fs::read_dir(chart.join("charts")).expect("charts of services") {
        let service = entry.expect("an entry").path();
        lint(&service, &[]);
        template(&helm, &service, &[]).expect("a chart of its own");
    }
    let package =
        run(&helm, &["package", chart.to_str().expect("UTF-8"), "-d", folder.path().to_str().expect("UTF-8")]);
    assert!(package.status.success(), "{}", stderr(&package));
    let packed = template(&helm, &folder.path().join("shop-0.1.0.tgz"), &[]).expect("rendered");
    assert_same(&by_name(packed), &expected(&stack()));
}

/// A field that changes: the kind and the name of its object, where it is, and what it becomes.
type Change<'a> = (&'a str, &'a str, String, Value);

/// Of each value: how to set it, and the fields that change, and nothing else does.
#[test]
fn each_value_changes_the_fields_that_it_is_for() {
    let Some(helm) = helm() else { return };
    let objects = stack();
    let plain = expected(&objects);
    let folder = write(&charts(&objects, "shop", "shop", &phases()));
    let chart = folder.path().join("charts/shop");
    let web = "/spec/template/spec/containers/0";
    let image = |tag: &str, digest: &str| json!(format!("registry.example:5000/shop/web{tag}{digest}"));
    let cases: Vec<(&[&str], Vec<Change<'_>>)> = vec![
        (&["web.replicas=5"], vec![("Deployment", "web", "/spec/replicas".into(), json!(5))]),
        (&["web.replicas=0"], vec![("Deployment", "web", "/spec/replicas".into(), json!(0))]),
        (&["mcp-db.replicas=20000000"], vec![("StatefulSet", "mcp-db", "/spec/replicas".into(), json!(20_000_000))]),
        (
            &["web.image.tag=2.0-rc", "web.image.digest="],
            vec![
                ("Deployment", "web", format!("{web}/image"), image(":2.0-rc", "")),
                ("Deployment", "web", "/spec/template/spec/initContainers/0/image".into(), image(":2.0-rc", "")),
                (
                    "Deployment",
                    "web",
                    "/spec/template/metadata/labels/app.kubernetes.io~1version".into(),
                    json!("2.0-rc"),
                ),
            ],
        ),
        (&["web.env.PORT=9090"], vec![]),
        (
            &["web.resources.limits.memory=1Gi"],
            vec![("Deployment", "web", format!("{web}/resources/limits/memory"), json!("1Gi"))],
        ),
        (
            &["mcp-db.resources.requests.cpu=250m"],
            vec![("StatefulSet", "mcp-db", format!("{web}/resources"), json!({"requests": {"cpu": "250m"}}))],
        ),
        (
            &["mcp-db.storage.data.size=9Gi"],
            vec![(
                "StatefulSet",
                "mcp-db",
                "/spec/volumeClaimTemplates/0/spec/resources/requests/storage".into(),
                json!("9Gi"),
            )],
        ),
        (
            &["mcp-db.storage.data.storageClass=fast"],
            vec![("StatefulSet", "mcp-db", "/spec/volumeClaimTemplates/0/spec/storageClassName".into(), json!("fast"))],
        ),
        (
            &["sharedVolumes.files.size=7Gi"],
            vec![
                ("PersistentVolumeClaim", "files", "/spec/resources/requests/storage".into(), json!("7Gi")),
                ("PersistentVolume", "shop-files", "/spec/capacity/storage".into(), json!("7Gi")),
            ],
        ),
        (
            &["web.ingress.hosts[1]=c.example", "web.ingress.hosts[0]=a.example"],
            vec![
                ("Ingress", "web", "/spec/rules/2/host".into(), json!("c.example")),
                ("Ingress", "web", "/spec/tls/0/hosts/2".into(), json!("c.example")),
            ],
        ),
        (
            &["web.hpa.minReplicas=3", "web.hpa.maxReplicas=4", "web.hpa.cpuPercent=50"],
            vec![
                ("HorizontalPodAutoscaler", "web", "/spec/minReplicas".into(), json!(3)),
                ("HorizontalPodAutoscaler", "web", "/spec/maxReplicas".into(), json!(4)),
                (
                    "HorizontalPodAutoscaler",
                    "web",
                    "/spec/metrics/0/resource/target/averageUtilization".into(),
                    json!(50),
                ),
            ],
        ),
        (&["web.pdb.maxUnavailable=2"], vec![("PodDisruptionBudget", "web", "/spec/maxUnavailable".into(), json!(2))]),
        (&["nightly.schedule=@daily"], vec![("CronJob", "nightly", "/spec/schedule".into(), json!("@daily"))]),
        (&["web.service.web.type=NodePort"], vec![("Service", "web", "/spec/type".into(), json!("NodePort"))]),
        (
            &["web.service.web-published.type=NodePort", "web.service.web-published.ports.tcp-8000=8001"],
            vec![
                ("Service", "web-published", "/spec/type".into(), json!("NodePort")),
                ("Service", "web-published", "/spec/ports/0/port".into(), json!(8001)),
            ],
        ),
    ];
    for (values, changes) in cases {
        let mut wanted = plain.clone();
        for (kind, name, pointer, value) in &changes {
            let object = wanted.get_mut(&((*kind).to_owned(), (*name).to_owned())).expect("an object");
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
            match object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}")) {
                Value::Array(list) => list[field.parse::<usize>().expect("a number")] = value.clone(),
                parent => parent[field.replace("~1", "/")] = value.clone(),
            }
        }
        // Numbers that are texts are given as texts.
        let is_text = values[0].starts_with("web.env.");
        if is_text {
            let variables = &mut wanted.get_mut(&("Deployment".to_owned(), "web".to_owned())).expect("there")["spec"]["template"]
                ["spec"]["containers"][0]["env"];
            variables[1]["value"] = json!("9090");
        }
        let set: Vec<&str> =
            values.iter().flat_map(|value| [if is_text { "--set-string" } else { "--set" }, value]).collect();
        let found = template(&helm, &chart, &set).unwrap_or_else(|error| panic!("{values:?}: {error}"));
        assert_same(&by_name(found), &wanted);
    }
    let moved = template(&helm, &chart, &["--set", "global.namespace=other"]).expect("rendered");
    let text = serde_json::to_string(&expected(&objects).into_values().collect::<Vec<_>>()).expect("JSON");
    let text = text.replace("\"namespace\":\"shop\"", "\"namespace\":\"other\"");
    let text = text.replace("\"kubernetes.io/metadata.name\":\"shop\"", "\"kubernetes.io/metadata.name\":\"other\"");
    assert_same(&by_name(moved), &by_name(serde_json::from_str(&text).expect("JSON")));
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    let Some(helm) = helm() else { return };
    let folder = write(&charts(&stack(), "shop", "shop", &phases()));
    let chart = folder.path().join("charts/shop");
    for (value, words) in [
        ("web.replica=2", "replica"),
        ("web.replicas=-1", "replicas"),
        ("web.replicas=2.5", "replicas"),
        ("web.replicas=null", "replicas"),
        ("web.image.tag=a b", "tag"),
        ("web.image.digest=sha256:12", "digest"),
        ("web.env.PORT=9090", "PORT"),
        ("web.env.PROT=x", "PROT"),
        ("web.resources.limits.memory=1GB", "memory"),
        ("web.resources.limit.memory=1Gi", "limit"),
        ("mcp-db.storage.data.size=big", "size"),
        ("web.ingress.hosts={a.example}", "hosts"),
        ("web.service.web-published.type=ClusterIP", "type"),
        ("web.service.web-published.ports.tcp-8000=70000", "tcp-8000"),
        ("web.hpa.minReplicas=0", "minReplicas"),
        ("wed.replicas=2", "wed"),
        ("web.enabled=2", "enabled"),
        ("global.namespace=A b", "namespace"),
    ] {
        let error = template(&helm, &chart, &["--set", value]).expect_err(value);
        assert!(error.contains("schema") && error.contains(words), "{value}: {error}");
    }
    // Charts around this one have global values of their own.
    template(&helm, &chart, &["--set", "global.imageRegistry=x"]).expect("rendered");
}

#[test]
fn each_phase_has_its_services_and_those_before() {
    let Some(helm) = helm() else { return };
    let folder = write(&charts(&stack(), "shop", "shop", &phases()));
    let chart = folder.path().join("charts/shop");
    let mut files: Vec<PathBuf> =
        fs::read_dir(chart.join("phases")).expect("phases").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut names = BTreeSet::new();
    assert_eq!(files.len(), phases().len());
    for (file, phase) in files.iter().zip(phases()) {
        names.extend(phase);
        let found = template(&helm, &chart, &["--values", file.to_str().expect("UTF-8")]).expect("rendered");
        let is_workload =
            |object: &&Value| !object["spec"]["template"].is_null() || !object["spec"]["jobTemplate"].is_null();
        let workloads: BTreeSet<String> = found.iter().filter(is_workload).map(|object| name_of(object).1).collect();
        assert_eq!(workloads, names);
        assert!(found.iter().any(|object| object["kind"] == "ConfigMap"));
    }
}

#[test]
fn no_secret_is_in_a_file_of_values_and_no_chart_has_a_secret() {
    let files = charts(&stack(), "shop", "shop", &phases());
    for file in &files {
        let is_of_web = file.name.ends_with("charts/web/templates/deployment.yaml");
        assert_eq!(file.text.contains(SECRET), is_of_web, "{}", file.name);
        assert!(!file.text.contains("kind: Secret"), "{}", file.name);
    }
    let readme = files.iter().find(|file| file.name == "charts/shop/README.md").expect("there");
    for line in ["* `db-password`, in `secrets.yaml`", "* `web-env`, in `services/web-secret.yaml`"] {
        assert!(readme.text.lines().any(|found| found == line), "{}", readme.text);
    }
    assert_eq!(charts(&stack(), "shop", "shop", &phases()), files, "the same bytes");
}

/// Without the waiting: nothing on this server starts a pod.
#[test]
fn a_server_is_brought_to_the_plain_objects_phase_by_phase() {
    let Some(server) = ApiServer::start() else { return };
    let helm = helm().expect("Helm is built with the API server: run `make setup-kube`");
    let mut objects = stack();
    for (_, object) in &mut objects {
        if let KubeObject::ConfigMap(config) = object {
            // What is applied on the server's side is JSON that the server reads as YAML, where these are a blank or an error.
            // `kubectl apply --server-side` has the same limit.
            let is_lost = |text: &str| text.contains(|letter: char| ('\u{7f}'..='\u{9f}').contains(&letter));
            config.data.iter_mut().for_each(|data| data.retain(|_, text| !is_lost(text)));
        }
    }
    let wanted = expected(&objects);
    let folder = write(&charts(&objects, "shop", "shop", &phases()));
    let chart = folder.path().join("charts/shop").display().to_string();
    server.must(&["create", "namespace", "shop"]);
    let run = |arguments: &[&str]| {
        let output = server.command(&helm).args(arguments).args(["--namespace", "shop"]).output().expect("Helm runs");
        assert!(output.status.success(), "helm {arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    let workloads = || {
        let names = server.must(&["get", "deploy,sts,ds,job,cronjob", "--namespace", "shop", "-o", "name"]);
        names.lines().filter_map(|name| Some(name.rsplit_once('/')?.1.to_owned())).collect::<BTreeSet<String>>()
    };
    let mut names = BTreeSet::new();
    for (number, phase) in phases().into_iter().enumerate() {
        let values = format!("{chart}/phases/{}.yaml", number + 1);
        let printed = run(&["upgrade", "--install", "shop", &chart, "--values", &values]);
        assert!(printed.contains("db-password, web-env"), "what has to be there is named: {printed}");
        names.extend(phase);
        assert_eq!(workloads(), names);
    }
    let mut found = Vec::new();
    let assert_live = |wanted: &BTreeMap<(String, String), Value>, found: &mut Vec<String>| {
        for ((kind, name), object) in wanted {
            let json = server.must(&["get", kind, name, "--namespace", "shop", "-o", "json"]);
            let mut object = object.clone();
            // Helm writes its own name there.
            if object["metadata"]["labels"].is_object() {
                object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
            }
            lost(&serde_json::from_str(&json).expect("JSON"), &object, &format!("{kind}/{name}"), found);
        }
    };
    assert_live(&wanted, &mut found);
    run(&["upgrade", "shop", &chart, "--set", "web.replicas=7"]);
    assert_eq!(server.must(&["get", "deploy/web", "--namespace", "shop", "-o", "jsonpath={.spec.replicas}"]), "7");
    run(&["rollback", "shop"]);
    assert_live(&wanted, &mut found);
    // The value of a variable that is empty is not stored.
    found.retain(|line| !line.ends_with("/value: rendered \"\", the server holds null"));
    assert!(found.is_empty(), "{found:#?}");
    run(&["uninstall", "shop"]);
    assert!(workloads().is_empty());
}

/// From the command line: the charts are next to the plain files, and print the same objects.
#[test]
fn the_charts_of_a_converted_stack_print_its_plain_files() {
    let Some(helm) = helm() else { return };
    let folder = tempfile::tempdir().expect("temporary directory");
    let stack = folder.path().join("stack.yml");
    let text = "\
version: '3.8'
services:
  web:
    image: nginx:1.27
    command: ['sh', '-c', 'echo \"{{.Task.Slot}}\" {{- x -}}']
    environment: {GREETING: '{{ hello }}', DB_PASSWORD: correct-horse-battery}
    labels: {tag: '{{.Name}}'}
    ports: ['8080:80']
    configs: [page]
    depends_on: [db]
    deploy: {replicas: 2}
  db:
    image: redis:7
    healthcheck: {test: 'redis-cli ping | grep PONG'}
configs:
  page: {file: ./page.html}
";
    fs::write(&stack, text).expect("written");
    fs::write(folder.path().join("page.html"), "<p>{{ page }}</p>\n{{- if `x` }}\n\n").expect("written");
    let output = folder.path().join("out");
    let convert = || {
        let result = cairn()
            .args(["migrate", "swarm"])
            .arg(&stack)
            .args(["--stack", "shop", "--with", "hpa,pdb,networkpolicy", "--helm", "-o"])
            .arg(&output)
            .output()
            .expect("the binary runs");
        assert!(result.status.success(), "{}", stderr(&result));
    };
    convert();
    // Over the charts of before.
    convert();
    let mut plain = Vec::new();
    for name in ["configs.yaml", "networks.yaml", "services/web.yaml", "services/db.yaml"] {
        if let Ok(text) = fs::read_to_string(output.join(name)) {
            plain.extend(parse(&text));
        }
    }
    let chart = output.join("charts/shop");
    let found = template(&helm, &chart, &["--namespace", "shop"]).expect("rendered");
    assert_same(&by_name(found), &by_name(plain));
    let lint = run(&helm, &["lint", "--strict", "--with-subcharts", chart.to_str().expect("UTF-8")]);
    assert!(lint.status.success(), "{}{}", stdout(&lint), stderr(&lint));
    let values = fs::read_to_string(chart.join("charts/web/values.yaml")).expect("values of web");
    assert!(values.contains("{{ hello }}") && !values.contains(SECRET), "{values}");
}
