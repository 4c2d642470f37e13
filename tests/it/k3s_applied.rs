//! The manifests on a real API server: each variant is taken without a warning, holds what was rendered, and changes nothing the second
//! time; its pods pass Pod Security; Kustomize renames it without breaking it; Helm installs it, upgrades it, rolls it back and removes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::k3s_manifests::{parse, render_into, variants};
use crate::k3s_rules::{Objects, items, text};
use crate::kube_apiserver::{ApiServer, program};
use crate::node::{assert_says, stderr, stdout};

/// Kinds that operators bring, as these define them, except for what is in them: group, version, kind, plural.
const OPERATORS: [(&str, &str, &str, &str); 6] = [
    ("cert-manager.io", "v1", "Certificate", "certificates"),
    ("cert-manager.io", "v1", "Issuer", "issuers"),
    ("external-secrets.io", "v1", "ExternalSecret", "externalsecrets"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    ("traefik.io", "v1alpha1", "ServersTransport", "serverstransports"),
];

/// What platforms ask for, in the ways that people write it.
const WRITTEN_OTHERWISE: &[&str] = &[
    "--set",
    "resources.cpu=0.5",
    "--set",
    "resources.cpu-request=0.1",
    "--set",
    "resources.memory=1.5GiB",
    "--set",
    "storage.size=1024GiB",
    "--set",
    "resources.ephemeral=1024MiB",
    "--set",
    "backup.secret=keys",
    "--set",
    "config.snapshot.target=s3://backups/site-7",
    "--set",
    "config.snapshot.s3_endpoint=https://minio.example:9000",
    "--set",
    "backup.cidr=10.0.0.0/8",
    "--set",
    "loadbalancer.cidr=10.0.0.0/8,192.0.2.0/24",
    "--with",
    "loadbalancer",
];

/// A server with the kinds of operators, and what a cluster has before Cairn is installed.
fn server() -> Option<ApiServer> {
    let server = ApiServer::start()?;
    let definitions = OPERATORS.map(|(group, version, kind, plural)| {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let names = json!({"kind": kind, "plural": plural});
        let versions =
            json!([{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions},
        })
    });
    server.create(&definitions);
    server.must(&["wait", "--for=condition=Established", "customresourcedefinitions", "--all"]);
    server.create(&[
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "edge-critical"}, "value": 1000}),
    ]);
    Some(server)
}

/// What only the server says of an object.
fn without_the_servers_own(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    for own in ["creationTimestamp", "managedFields", "resourceVersion", "uid"] {
        metadata.remove(own);
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        // An address, or a port of the nodes, is chosen anew each time.
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
    }
    object
}

/// Where `live` does not say what `wanted` says; what the server adds is no difference.
pub fn lost(live: &Value, wanted: &Value, path: &str, found: &mut Vec<String>) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            for (key, value) in wanted {
                lost(live.get(key).unwrap_or(&Value::Null), value, &format!("{path}/{key}"), found);
            }
        }
        (Value::Array(live), Value::Array(wanted)) if live.len() == wanted.len() => {
            for (place, (live, wanted)) in live.iter().zip(wanted).enumerate() {
                lost(live, wanted, &format!("{path}/{place}"), found);
            }
        }
        _ if live == wanted => {}
        _ => found.push(format!("{path}: rendered {wanted}, the server holds {live}")),
    }
}

/// Which object.
fn key(object: &Value) -> [&str; 3] {
    let metadata = &object["metadata"];
    [metadata["namespace"].as_str().unwrap_or_default(), text(&object["kind"]), text(&metadata["name"])]
}

/// Which version of which object.
fn version(object: &Value) -> ([&str; 3], &Value) {
    (key(object), &object["metadata"]["resourceVersion"])
}

/// The pods that a controller would make of these objects, with the volumes of a set.
fn pods(objects: &Objects) -> Vec<Value> {
    let pod = |template: &Value, object: &Value, name: String| {
        let mut pod = template.clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["namespace"] = object["metadata"]["namespace"].clone();
        pod
    };
    let set = objects.one("StatefulSet");
    let name = format!("{}-0", text(&set["metadata"]["name"]));
    let mut of_set = pod(&set["spec"]["template"], set, name.clone());
    for template in items(&set["spec"]["volumeClaimTemplates"]) {
        let volume = text(&template["metadata"]["name"]);
        let claimed = json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{volume}-{name}")}});
        of_set["spec"]["volumes"].as_array_mut().expect("a list").push(claimed);
    }
    let of_jobs = objects.of_kind("CronJob").map(|job| {
        pod(&job["spec"]["jobTemplate"]["spec"]["template"], job, format!("{}-1", text(&job["metadata"]["name"])))
    });
    std::iter::once(of_set).chain(of_jobs).collect()
}

/// A folder per variant, with the objects in it.
fn rendered(arguments: &[&str], namespace: &str) -> (TempDir, Objects) {
    let folder = tempfile::tempdir().expect("temporary directory");
    let namespace = format!("namespace={namespace}");
    render_into(folder.path(), &[arguments, &["--set", &namespace]].concat());
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.path()).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let objects = files.iter().flat_map(|file| parse(&fs::read_to_string(file).expect("rendered"))).collect();
    (folder, Objects(objects))
}

#[test]
fn every_variant_is_taken_as_it_is_rendered_and_its_pods_are_admitted() {
    let Some(server) = server() else { return };
    let more = [("written-otherwise", WRITTEN_OTHERWISE), ("medium", &["--node-size", "medium"])];
    // All at once, each in a namespace of its own: what takes time is each call of kubectl.
    let (namespaces, manifests) = (server.path("namespaces"), server.path("manifests"));
    fs::create_dir(&namespaces).expect("made");
    fs::create_dir(&manifests).expect("made");
    let mut wanted = Vec::new();
    for (name, arguments) in [&variants()[..], &more].concat() {
        let name = name.rsplit('/').next().expect("a part");
        let (folder, objects) = rendered(arguments, &format!("site{name}"));
        for (to, file) in [(&namespaces, "cairn-namespace.yaml"), (&manifests, "cairn.yaml")] {
            fs::copy(folder.path().join(file), to.join(format!("{name}.yaml"))).expect("copied");
        }
        wanted.push(objects);
    }
    server.apply(&namespaces, &[]);
    let tried = server.apply(&manifests, &["--dry-run=server"]);
    let held = server.apply(&manifests, &[]);
    assert_eq!(
        tried.into_iter().map(without_the_servers_own).collect::<Vec<_>>(),
        held.iter().cloned().map(without_the_servers_own).collect::<Vec<_>>(),
        "what a dry run shows is what is applied"
    );
    // `cairn install` and `cairn doctor` compare what the API holds with the file, and so need it word for word.
    let rendered = wanted.iter().flat_map(|objects| &objects.0).filter(|object| object["kind"] != "Namespace");
    let mut found = Vec::new();
    for object in rendered.clone() {
        let live = held.iter().find(|live| key(live) == key(object)).expect("applied");
        lost(live, object, &key(object).join("/"), &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(held.len(), rendered.count());

    let again = server.apply(&manifests, &[]);
    assert_eq!(
        again.iter().map(version).collect::<Vec<_>>(),
        held.iter().map(version).collect::<Vec<_>>(),
        "the second time changes nothing"
    );
    for folder in [namespaces, manifests] {
        server.must(&["diff", "--server-side", "-f", &folder.to_string_lossy()]);
    }
    let all: Vec<Value> = wanted.iter().flat_map(pods).collect();
    assert!(all.len() > wanted.len(), "those of jobs are among them");
    let admitted = server.would_create(&all);
    assert!(admitted.status.success() && stderr(&admitted).is_empty(), "{}", stderr(&admitted));
}

#[test]
fn two_nodes_are_applied_into_one_namespace_and_neither_changes_the_other() {
    let Some(server) = server() else { return };
    let everything = variants().pop().expect("the last one").1;
    // What belongs to the cluster one of them brings.
    let more = ["--set", "name=second", "--set", "gpu.own-runtime-class=false"];
    let (first_folder, first) = rendered(everything, "site");
    let (second_folder, second) = rendered(&[everything, &more].concat(), "site");
    let namespace = |folder: &TempDir, file: &str| server.apply(&folder.path().join(file), &[]);
    let namespaces =
        [namespace(&first_folder, "cairn-namespace.yaml"), namespace(&second_folder, "cairn-second-namespace.yaml")];
    assert_eq!(namespaces[0].iter().map(version).next(), namespaces[1].iter().map(version).next(), "the same object");
    let apply_first = || server.apply(&first_folder.path().join("cairn.yaml"), &[]);
    let apply_second = || server.apply(&second_folder.path().join("cairn-second.yaml"), &[]);
    let (held, of_second) = (apply_first(), apply_second());
    assert_eq!((held.len(), of_second.len()), (first.0.len() - 1, second.0.len() - 1));
    for (held, again) in [(&held, apply_first()), (&of_second, apply_second())] {
        assert_eq!(
            again.iter().map(version).collect::<Vec<_>>(),
            held.iter().map(version).collect::<Vec<_>>(),
            "nothing of it was changed by the other node"
        );
    }
    // The server's own selection, by which Services and policies find pods.
    for (name, others) in [("cairn", "second"), ("second", "cairn")] {
        let label = format!("app.kubernetes.io/instance={name}");
        let found = server.must(&["-n", "site", "get", "statefulsets,services,cronjobs", "-l", &label, "-o", "name"]);
        assert!(found.lines().count() >= 5, "{found}");
        let names = found.lines().filter_map(|line| line.rsplit('/').next());
        for found in names {
            assert!(found.starts_with(name) && !found.starts_with(others), "{found}");
        }
    }
    let admitted = server.would_create(&[pods(&first), pods(&second)].concat());
    assert!(admitted.status.success() && stderr(&admitted).is_empty(), "{}", stderr(&admitted));
}

/// What the server would have said of manifests that are wrong.
#[test]
fn the_server_refuses_and_warns_of_what_the_manifests_must_not_have() {
    let Some(server) = server() else { return };
    let (folder, mut wanted) = rendered(&[], "cairn");
    server.apply(&folder.path().join("cairn-namespace.yaml"), &[]);
    server.apply(&folder.path().join("cairn.yaml"), &[]);
    let pod = pods(&wanted).remove(0);
    let breaks: [(&str, Value, &str); 4] = [
        ("/spec/containers/0/securityContext/privileged", json!(true), "privileged"),
        ("/spec/containers/0/securityContext/capabilities", json!({"add": ["NET_ADMIN"]}), "unrestricted capabilities"),
        ("/spec/securityContext/runAsUser", json!(0), "runAsUser=0"),
        ("/spec/volumes/1", json!({"name": "tmp", "hostPath": {"path": "/"}}), "hostPath"),
    ];
    for (pointer, value, words) in breaks {
        let mut broken = pod.clone();
        *broken.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value.clone();
        if pointer.ends_with("runAsUser") {
            broken["spec"]["containers"][0]["securityContext"]["runAsUser"] = value;
        }
        if words == "privileged" {
            broken["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        }
        let refused = server.would_create(&[broken]);
        assert!(!refused.status.success(), "{pointer}");
        assert_says(&stderr(&refused), &["violates PodSecurity \"restricted:", words]);
    }
    // Of a set it only warns, and that is a failure here.
    let file = folder.path().join("broken.yaml");
    let apply_broken = |objects: &Objects| {
        fs::write(&file, objects.one("StatefulSet").to_string()).expect("written");
        server.kubectl(&[
            "apply",
            "--server-side",
            "--warnings-as-errors",
            "--dry-run=server",
            "-f",
            &file.to_string_lossy(),
        ])
    };
    let unbroken = apply_broken(&wanted);
    assert!(unbroken.status.success(), "{}", stderr(&unbroken));
    wanted.edit("StatefulSet", "/spec/template/spec/containers/0/securityContext/privileged", json!(true));
    wanted.edit(
        "StatefulSet",
        "/spec/template/spec/containers/0/securityContext/allowPrivilegeEscalation",
        json!(true),
    );
    let warned = apply_broken(&wanted);
    assert!(!warned.status.success());
    assert_says(&stderr(&warned), &["Warning: would violate PodSecurity"]);
    let (_, mut wanted) = rendered(&[], "cairn");
    wanted.edit("StatefulSet", "/spec/template/spec/containers/0/imagePullPollicy", json!("Never"));
    assert_says(&stderr(&apply_broken(&wanted)), &["imagePullPollicy"]);
}

/// Everything that a name is used for, in objects that Kustomize renamed.
fn assert_references_hold(objects: &Objects, namespace: &str, prefix: &str) {
    for object in &objects.0 {
        let is_namespace = object["kind"] == "Namespace";
        let name = text(&object["metadata"]["name"]);
        assert!(is_namespace || name.starts_with(prefix), "{name}");
        let is_in = if is_namespace { name } else { text(&object["metadata"]["namespace"]) };
        assert_eq!(is_in, namespace, "{name}");
    }
    let names = |kind: &'static str| -> BTreeSet<&str> {
        objects.of_kind(kind).map(|object| text(&object["metadata"]["name"])).collect()
    };
    let set = objects.one("StatefulSet");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let selects = |selector: &Value| {
        selector.as_object().is_some_and(|pairs| pairs.iter().all(|(key, value)| labels[key] == *value))
    };
    assert!(selects(&set["spec"]["selector"]["matchLabels"]));
    assert!(names("Service").contains(text(&set["spec"]["serviceName"])), "{set}");
    assert!(objects.of_kind("Service").all(|service| selects(&service["spec"]["selector"])));
    assert!(selects(&objects.of_kind("NetworkPolicy").next().expect("one")["spec"]["podSelector"]["matchLabels"]));
    assert!(selects(&objects.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]));
    for pod in pods(objects) {
        let account = text(&pod["spec"]["serviceAccountName"]);
        assert!(
            names("ServiceAccount").contains(account),
            "{account} is the account of a pod and is not among {:?}",
            names("ServiceAccount")
        );
    }
    let volumes: Vec<&Value> = items(&set["spec"]["template"]["spec"]["volumes"]).collect();
    let configuration = volumes.iter().find(|volume| volume["name"] == "config").expect("mounted");
    assert!(names("ConfigMap").contains(text(&configuration["configMap"]["name"])), "{configuration}");
    for mount in items(&set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]) {
        let claims = items(&set["spec"]["volumeClaimTemplates"]).map(|claim| &claim["metadata"]["name"]);
        let known: Vec<&Value> = volumes.iter().map(|volume| &volume["name"]).chain(claims).collect();
        assert!(known.contains(&&mount["name"]), "{mount}");
    }
}

/// A base with an overlay over it that renames everything.
fn overlay(folder: &Path, arguments: &[&str]) {
    render_into(&folder.join("base"), &[arguments, &["--kustomize"]].concat());
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["../base"],
        "namespace": "team-a", "namePrefix": "team-",
    });
    fs::create_dir(folder.join("team-a")).expect("made");
    fs::write(folder.join("team-a/kustomization.yaml"), overlay.to_string()).expect("written");
}

#[test]
fn kustomize_moves_everything_to_another_name_and_namespace() {
    let Some(server) = server() else { return };
    let Some(kustomize) = program("kustomize") else {
        panic!("kustomize is built with the API server: run `make setup-kube`")
    };
    for (place, arguments) in
        [&[][..], &["--with", "documents,loadbalancer", "--set", "documents.claim=manuals"]].into_iter().enumerate()
    {
        let folder = tempfile::tempdir().expect("temporary directory");
        overlay(folder.path(), arguments);
        let path = folder.path().join("team-a").display().to_string();
        let built = server.command(&kustomize).args(["build", &path]).output().expect("kustomize runs");
        assert!(built.status.success() && stderr(&built).is_empty(), "{}", stderr(&built));
        assert_eq!(server.must(&["kustomize", &path]), stdout(&built), "kubectl builds the same");
        let mut objects = Objects(parse(&stdout(&built)));
        assert_references_hold(&objects, "team-a", "team-");
        let file = folder.path().join("all.yaml");
        let write = |objects: &[Value]| {
            fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
                .expect("written")
        };
        let namespace = objects.0.iter().position(|object| object["kind"] == "Namespace").expect("one");
        write(&[objects.0.remove(namespace)]);
        server.apply(&file, &[]);
        write(&objects.0);
        // The second variant takes the place of the first.
        assert_eq!(server.apply(&file, &[]).len(), objects.0.len(), "{place}");
        for pod in pods(&objects) {
            let admitted = server.would_create(&[pod]);
            assert!(admitted.status.success(), "{}", stderr(&admitted));
        }
    }
}

/// The manual's recipe: the rendered files as templates of a chart, the namespace outside of it.
#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls_a_chart_of_the_rendered_files() {
    let Some(server) = server() else { return };
    let Some(helm) = program("helm") else { panic!("Helm is built with the API server: run `make setup-kube`") };
    let run = |arguments: &[&str]| {
        let output = server.command(&helm).args(arguments).args(["-n", "cairn"]).output().expect("helm runs");
        assert!(output.status.success(), "helm {arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    let chart = server.path("chart");
    let templates = chart.join("templates");
    fs::create_dir_all(&templates).expect("made");
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: cairn\nversion: 0.1.0\n").expect("written");
    let path = chart.display().to_string();
    let render = |more: &[&str]| {
        let (folder, objects) = rendered(more, "cairn");
        fs::copy(folder.path().join("cairn.yaml"), templates.join("cairn.yaml")).expect("copied");
        server.apply(&folder.path().join("cairn-namespace.yaml"), &[]);
        Objects(objects.0.into_iter().filter(|object| object["kind"] != "Namespace").collect())
    };
    let assert_held = |objects: &Objects| {
        let held: Vec<Value> = objects
            .0
            .iter()
            .map(|object| {
                let [namespace, kind, name] = key(object);
                let json = server.must(&["get", kind, name, "-n", namespace, "-o", "json"]);
                serde_json::from_str(&json).expect("JSON")
            })
            .collect();
        let mut found = Vec::new();
        for (live, object) in held.iter().zip(&objects.0) {
            let mut wanted = object.clone();
            // Helm writes its own name there.
            wanted["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
            lost(live, &wanted, &key(object).join("/"), &mut found);
        }
        assert!(found.is_empty(), "{found:#?}");
    };

    let first = render(&[]);
    run(&["upgrade", "--install", "cairn", &path]);
    assert_held(&first);
    let second = render(&["--set", "resources.memory=3GiB", "--with", "monitoring"]);
    assert!(second.0.len() > first.0.len(), "another setting brings another object");
    run(&["upgrade", "--install", "cairn", &path]);
    assert_held(&second);
    run(&["rollback", "cairn", "1"]);
    assert_held(&first);

    run(&["uninstall", "cairn"]);
    let kinds: BTreeSet<&str> = second.0.iter().map(|object| text(&object["kind"])).collect();
    let all = kinds.into_iter().collect::<Vec<_>>().join(",");
    let left = server.must(&["get", &all, "-n", "cairn", "-o", "name"]);
    // Kubernetes itself makes these in every namespace.
    let ours = left.lines().filter(|name| !name.ends_with("/default") && !name.ends_with("/kube-root-ca.crt"));
    assert_eq!(ours.collect::<Vec<_>>(), [] as [&str; 0]);
    let namespace = server.must(&["get", "namespace", "cairn", "-o", "jsonpath={.status.phase}"]);
    assert_eq!(namespace, "Active", "the namespace, and the data in it, stay");
}
