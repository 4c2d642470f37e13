//! `cairn install` on a K3s server, which [`crate::kube_server`] stands in for: installed, upgraded, taken back, cut off, removed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Value, json};

use crate::kube_api::Key;
use crate::kube_server::{EMPTIER, NODE_IP, SERVICE_IP, Server, this_node};
use crate::left_out::on_request;
use crate::node::{CAIRN, assert_says, cairn, clean, json_of, list, stderr, stdout};
use crate::tls::wait_until;

const VERSION: &str = "v1.36.3+k3s1";
/// One of those that lose the pins of images at a restart.
const FORGETFUL: &str = "v1.33.4+k3s1";

/// The program of another build: the same with more at its end.
fn build(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let mut bytes = fs::read(CAIRN).expect("readable");
    bytes.extend_from_slice(name.as_bytes());
    fs::write(&path, bytes).expect("written");
    executable(&path);
    path
}

fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

fn verb(program: &Path, arguments: &[&str]) -> Command {
    let mut command = clean(Command::new(program));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    verb(program, arguments).output().expect("the binary runs")
}

fn install(program: &Path) -> Value {
    json_of(&run(program, &["install", "--yes", "--json", "--node-size", "small", "--timeout", "60"]))
}

/// Asks with nothing but what was printed.
fn client(installed: &Value, arguments: &[&str]) -> Value {
    let text = |name: &str| installed[name].as_str().unwrap_or_else(|| panic!("no {name} in {installed}"));
    let mut command = verb(Path::new(CAIRN), arguments);
    command.args(["--json", "--url", text("service"), "--ca", text("authority")]).env("CAIRN_TOKEN", text("token"));
    json_of(&command.output().expect("the binary runs"))
}

fn add(folder: &Path, installed: &Value) {
    let path = folder.join("relay.md");
    fs::write(&path, "The relay in cabinet four trips when the pump starts.").expect("written");
    client(installed, &["add", &path.to_string_lossy(), "-c", "site"]);
}

fn finds(installed: &Value) -> bool {
    let found = client(installed, &["search", "why does the relay trip"]);
    let is_found = found["results"][0]["source"]["document"] == "relay.md";
    if !is_found {
        eprintln!("{found}");
    }
    is_found
}

/// Installed, upgraded, taken back by hand; the first installation, and what `manifests` said then.
///
/// * `manifests`: the files that the server applies.
fn journey(scratch: &Path, manifests: impl Fn() -> BTreeMap<String, Vec<u8>>) -> Value {
    let start = Instant::now();
    let first = install(Path::new(CAIRN));
    add(scratch, &first);
    assert!(finds(&first));
    eprintln!("from the copied file to the first answer: {:.1} s", start.elapsed().as_secs_f64());
    assert_says(first["url"].as_str().expect("an address"), &["https://cairn.cairn.svc:7171/mcp"]);

    let second_build = build(scratch, "cairn-2");
    let old = manifests();
    let second = install(&second_build);
    assert_eq!(second["previous"], first["current"]);
    assert!(second["snapshot"].is_string(), "the data was secured first: {second}");
    assert_eq!(second["token"], first["token"]);
    assert!(finds(&second));
    assert_ne!(manifests(), old, "the image is named by its digest");

    let back = json_of(&run(&second_build, &["rollback", "--yes", "--json", "--timeout", "60"]));
    assert_eq!((&back["current"], &back["previous"]), (&first["current"], &second["current"]));
    assert_eq!(manifests(), old, "byte for byte");
    assert!(finds(&first));
    first
}

#[test]
fn the_journey_on_a_real_server() {
    let Some(kubeconfig) = std::env::var_os("CAIRN_TEST_K8S") else {
        on_request("needs a K3s server; `make test-k8s` runs it on one");
        return;
    };
    assert!(Path::new(&kubeconfig).exists(), "the server's own kubeconfig");
    let scratch = tempfile::tempdir().expect("temporary directory");
    let planned = json_of(&run(Path::new(CAIRN), &["install", "--dry-run", "--json"]));
    let files = list(&planned["actions"]).iter().filter_map(|action| action["what"].as_str());
    let files: Vec<PathBuf> = files.filter(|what| what.ends_with(".yaml")).map(PathBuf::from).collect();
    assert_eq!(files.len(), 2, "Cairn is not installed yet: {planned}");
    let first = journey(scratch.path(), || {
        files.iter().map(|path| (path.display().to_string(), fs::read(path).expect("readable"))).collect()
    });
    let removed = run(Path::new(CAIRN), &["uninstall", "--yes"]);
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert!(files.iter().all(|path| !path.exists()));
    // The cluster may give the service another address.
    let again = install(Path::new(CAIRN));
    assert_eq!(again["current"], first["current"]);
    assert!(finds(&again), "the data outlived the program");
    assert!(run(Path::new(CAIRN), &["uninstall", "--yes"]).status.success());
}

#[test]
fn a_pod_is_installed_upgraded_taken_back_and_removed() {
    let Some(server) = Server::start(VERSION) else { return };
    journey(&server.path(""), || server.manifests());
    assert!(server.path("k3s/agent/images/.cache.json").exists(), "this version keeps a cache where it finds one");

    let doctor = run(Path::new(CAIRN), &["doctor", "--json"]);
    let told: Value = serde_json::from_str(&stdout(&doctor)).expect("JSON");
    let about: Vec<&str> = list(&told["machine"]).iter().filter_map(|found| found["about"].as_str()).collect();
    assert!(about.contains(&"storage") && !about.contains(&"pod") && !about.contains(&"manifest"), "{told}");

    let removed = run(Path::new(CAIRN), &["uninstall", "--yes"]);
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert_eq!(server.manifests(), BTreeMap::new());
    for (plural, name) in [
        ("statefulsets", "cairn"),
        ("pods", "cairn-0"),
        ("secrets", "cairn-token"),
        ("addons", "cairn"),
        ("addons", "cairn-namespace"),
    ] {
        assert!(!server.has(plural, name), "{plural}/{name}");
    }
    assert!(server.has("namespaces", "cairn") && server.has("persistentvolumeclaims", "data-cairn-0"));
    let volume = server.volumes().pop().expect("the data stays");
    assert_says(&stdout(&removed), &[&volume.to_string_lossy()]);

    let again = install(Path::new(CAIRN));
    assert!(finds(&again), "the data outlived the program");
    let mut purge = verb(Path::new(CAIRN), &["uninstall", "--yes", "--purge"]);
    let mut process = purge.stdin(Stdio::piped()).spawn().expect("the binary runs");
    writeln!(process.stdin.take().expect("a pipe"), "{}\n/etc/cairn", volume.display()).expect("typed");
    assert!(process.wait().expect("it ends").success());
    assert!(!server.has("namespaces", "cairn") && server.volumes().is_empty());
    server.assert_sound();
}

/// Another node of the namespace, as far as it has data there.
fn put_another_node(server: &Server) {
    let labels = json!({"app.kubernetes.io/name": "cairn", "app.kubernetes.io/instance": "cairn"});
    let claim =
        json!({"metadata": {"labels": labels}, "spec": {"volumeName": "pvc-other", "storageClassName": "local-path"}});
    let volume = json!({"metadata": {}, "spec": {"hostPath": {"path": server.path("storage/pvc-other")}}});
    fs::create_dir(server.path("storage/pvc-other")).expect("made");
    let mut objects = server.api.objects.lock();
    objects.put(Key::new("namespaces", "", "cairn"), json!({"metadata": {}}));
    objects.put(Key::new("persistentvolumes", "", "pvc-other"), volume);
    objects.put(Key::new("persistentvolumeclaims", "cairn", "data-cairn-0"), claim);
}

#[test]
fn a_node_with_a_name_of_its_own_is_installed_next_to_another_and_keeps_its_name() {
    let Some(server) = Server::start(VERSION) else { return };
    put_another_node(&server);
    let named = ["--node-size", "small", "--set", "name=second", "--timeout", "60"];
    let first = json_of(&run(Path::new(CAIRN), &[&["install", "--yes", "--json"], &named[..]].concat()));
    assert_eq!(
        (&first["url"], list(&first["notes"]).len()),
        (&json!("https://second.cairn.svc:7171/mcp"), 0),
        "{first}"
    );
    assert_eq!(first["port_forward"], "kubectl -n cairn port-forward service/second 7171");
    assert_eq!(
        server.manifests().into_keys().collect::<Vec<_>>(),
        ["cairn-second-namespace.yaml", "cairn-second.yaml"],
        "the files of another server's node have other names, and so have their Addons"
    );
    add(&server.path(""), &first);
    assert!(finds(&first));

    let before = server.manifests();
    let second = install(&build(&server.path(""), "cairn-2"));
    assert_eq!(second["previous"], first["current"], "the name is remembered");
    assert!(second["snapshot"].is_string() && finds(&second), "{second}");
    let renamed = run(Path::new(CAIRN), &["install", "--yes", "--set", "name=third"]);
    assert_eq!(renamed.status.code(), Some(1), "{}", stdout(&renamed));
    assert_says(&stdout(&renamed), &["the node is named second", "cannot move to third", "name=second"]);
    let reset = run(Path::new(CAIRN), &["install", "--yes", "--set", "name="]);
    assert_says(&stdout(&reset), &["the node is named second", "cannot move to cairn"]);
    let moved = run(Path::new(CAIRN), &["install", "--yes", "--set", "namespace=site"]);
    assert_says(&stdout(&moved), &["in namespace cairn", "cannot move to site", "namespace=cairn"]);
    let back = json_of(&run(Path::new(CAIRN), &["rollback", "--yes", "--json", "--timeout", "60"]));
    assert_eq!(back["current"], first["current"]);
    assert_eq!(server.manifests(), before, "byte for byte");
    assert!(finds(&first));

    let doctor = run(Path::new(CAIRN), &["doctor", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&doctor)).expect("JSON");
    let about: Vec<&str> = list(&report["machine"]).iter().filter_map(|found| found["about"].as_str()).collect();
    assert!(about.contains(&"storage") && !about.contains(&"pod") && !about.contains(&"manifest"), "{report}");
    assert_says(&report["machine"].to_string(), &["the claim data-second-0"]);
    assert_eq!(json_of(&run(Path::new(CAIRN), &["status", "--json"]))["documents"], 1);

    let volumes = server.volumes();
    let own = volumes.iter().find(|path| !path.ends_with("pvc-other")).expect("a volume").display().to_string();
    let mut purge = verb(Path::new(CAIRN), &["uninstall", "--yes", "--purge"]);
    purge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = purge.spawn().expect("the binary runs");
    writeln!(process.stdin.take().expect("a pipe"), "{own}\n/etc/cairn").expect("typed");
    let purged = process.wait_with_output().expect("it ends");
    assert!(purged.status.success(), "{}", stderr(&purged));
    assert_says(&stderr(&purged), &["the namespace stays for cairn"]);
    for (plural, name) in [
        ("statefulsets", "second"),
        ("pods", "second-0"),
        ("secrets", "second-token"),
        ("persistentvolumeclaims", "data-second-0"),
        ("addons", "cairn-second"),
        ("addons", "cairn-second-namespace"),
    ] {
        assert!(!server.has(plural, name), "{plural}/{name}");
    }
    assert!(server.has("namespaces", "cairn") && server.has("persistentvolumeclaims", "data-cairn-0"));
    assert_eq!(server.volumes(), [server.path("storage/pvc-other")], "the other node's data stays");
    server.assert_sound();
}

#[test]
fn a_pod_that_never_gets_ready_is_taken_back() {
    let Some(server) = Server::start(VERSION) else { return };
    let first = install(Path::new(CAIRN));
    add(&server.path(""), &first);
    let before = server.manifests();
    // It installs itself, and its node does not start: the model in it is damaged.
    let damaged = server.path("cairn-2");
    let mut bytes = fs::read(CAIRN).expect("readable");
    let word = b"\"dtype\"";
    let places: Vec<usize> = (0..bytes.len() - word.len()).filter(|at| bytes[*at..].starts_with(word)).collect();
    assert!(!places.is_empty(), "the head of the model is in the program");
    for at in places {
        bytes[at..at + 3].fill(0xff);
    }
    fs::write(&damaged, bytes).expect("written");
    executable(&damaged);
    let output = run(&damaged, &["install", "--yes", "--timeout", "60", "--set", "config.search.limit=7"]);
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert_says(&stderr(&output), &["failed its checks and was rolled back", "runs as before"]);
    assert_eq!(server.manifests(), before, "byte for byte");
    assert!(finds(&first));
    // No image, so no pod: it hangs, and a set does not replace it.
    server.imports.store(false, Ordering::SeqCst);
    let hanging = build(&server.path(""), "cairn-4");
    let output = run(&hanging, &["install", "--yes", "--timeout", "8"]);
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert_says(&stderr(&output), &["the pod was not ready", "Back-off pulling image", "runs as before"]);
    assert_eq!(server.manifests(), before, "byte for byte");
    assert!(finds(&first));
    server.imports.store(true, Ordering::SeqCst);
    // What the cluster does not know is found out before anything is written.
    let output =
        run(&hanging, &["install", "--yes", "--with", "cert-manager,ingress", "--set", "ingress.host=a.example"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert_says(
        &stdout(&output),
        &["kind Certificate of cert-manager.io/v1", "comes with cert-manager", "ServersTransport", "Traefik"],
    );
    assert_says(&stderr(&output), &["nothing was changed"]);
    assert_eq!(server.manifests(), before, "byte for byte");
    let third = install(&build(&server.path(""), "cairn-3"));
    assert_eq!(third["previous"], first["current"], "what was chosen for the one that failed is not kept");
    assert!(finds(&third));
    server.assert_sound();
}

/// Starts an installation and ends it without warning as soon as it says that it begins a step; whether it came so far.
fn cut_at(program: &Path, arguments: &[&str], step: &str) -> bool {
    let mut process =
        verb(program, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
    let mut told = lines.map_while(Result::ok);
    let came = told.any(|line| line.starts_with(&format!("… {step}")));
    process.kill().expect("it can be ended");
    process.wait().expect("it can be waited for");
    came
}

#[test]
fn what_is_cut_off_is_completed_or_taken_back() {
    let Some(server) = Server::start(VERSION) else { return };
    let (old, new) = (PathBuf::from(CAIRN), build(&server.path(""), "cairn-2"));
    let arguments = ["install", "--yes", "--node-size", "small", "--timeout", "60"];
    let steps = ["writing release", "putting files in place", "making users", "starting the node", "asking the node"];
    for step in steps {
        assert!(cut_at(&old, &arguments, step), "{step}");
    }
    let mut first = install(&old);
    add(&server.path(""), &first);
    for (number, step) in
        ["writing release", "taking a snapshot", "putting files in place", "starting the node", "asking the node"]
            .into_iter()
            .enumerate()
    {
        assert!(cut_at(&new, &arguments, step), "{step}");
        if number % 2 == 0 {
            // With nothing begun there is nothing to take back.
            let back = run(&old, &["rollback", "--yes", "--json", "--timeout", "60"]);
            assert!(back.status.success() || stderr(&back).contains("no release before"), "{step}: {}", stderr(&back));
            first = install(&old);
        } else {
            let second = install(&new);
            assert!(finds(&second), "{step}");
            first = install(&old);
        }
        assert!(finds(&first), "{step}");
    }
    for step in ["stopping the node", "removing what was put in place", "removing the releases"] {
        assert!(cut_at(&old, &["uninstall", "--yes"], step), "{step}");
        let again = run(&old, &["uninstall", "--yes"]);
        assert!(again.status.success() || stderr(&again).contains("not installed"), "{step}: {}", stderr(&again));
        assert_eq!(server.manifests(), BTreeMap::new(), "{step}");
        first = install(&old);
        assert!(finds(&first), "{step}");
    }
    server.assert_sound();
}

#[test]
fn what_stands_in_the_way_is_told_before_the_first_write() {
    let Some(mut server) = Server::machine("v1.28.15+k3s1") else { return };
    let told = |words: &[&str]| {
        let output = run(Path::new(CAIRN), &["install", "--yes"]);
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        assert_says(&stdout(&output), words);
        assert_says(&stderr(&output), &["nothing was changed"]);
    };
    told(&["does not answer", "systemctl start k3s"]);
    server.run();
    told(&["older than 1.29"]);
    assert_eq!(fs::read_dir("/usr/local").expect("readable").count(), 0);
    assert_eq!((server.manifests().len(), server.version()), (0, "v1.28.15+k3s1"));
}

/// What a later release's manifests do when the cluster takes a part of them: the set asks for a GPU that no node has, and another object
/// is refused.
#[test]
fn what_was_applied_in_part_is_taken_back_whole() {
    let Some(server) = Server::start(VERSION) else { return };
    let first = install(Path::new(CAIRN));
    add(&server.path(""), &first);
    let before = server.manifests();
    let set = || server.object("statefulsets", "cairn").expect("there")["spec"]["template"].clone();
    let old = set();
    // The operator goes after the plan was made: what was there when it was asked for is refused when it is applied.
    server.api.has_operators.store(true, Ordering::SeqCst);
    server.api.operators_go.store(true, Ordering::SeqCst);
    let arguments = [
        "install",
        "--yes",
        "--timeout",
        "5",
        "--with",
        "monitoring,gpu",
        "--set",
        "gpu.own-runtime-class=true",
        "--set",
        "gpu.runtime-class=own",
    ];
    let output = run(&build(&server.path(""), "cairn-2"), &arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_says(&said, &["the server could not find the requested resource", "was rolled back", "runs as before"]);
    assert_eq!((server.manifests(), set()), (before.clone(), old.clone()), "what ran before is what the cluster holds");
    assert!(!server.has_of_cluster("runtimeclasses", "own"), "what only the failed release had is gone");
    assert!(finds(&first));
    let doctor = run(Path::new(CAIRN), &["doctor"]);
    assert!(!stdout(&doctor).contains("cairn.yaml"), "{}", stdout(&doctor));

    // The same by hand: objects that somebody changed are as the file says again, though the server applied it before.
    server.api.objects.lock().change(&Key::new("statefulsets", "cairn", "cairn"), |set| {
        set["spec"]["template"]["spec"]["containers"][0]["image"] = "somebody.else/image:1".into();
    });
    let doctor = run(Path::new(CAIRN), &["doctor"]);
    assert_eq!(doctor.status.code(), Some(1), "{}", stderr(&doctor));
    assert_says(&stdout(&doctor), &["StatefulSet cairn has another image", "cairn install"]);
    let again = install(Path::new(CAIRN));
    assert_eq!((&again["current"], set()), (&first["current"], old));
    assert_eq!(server.manifests(), before, "byte for byte");
    assert!(finds(&again));
    server.assert_sound();
}

#[test]
fn the_first_installation_that_is_applied_in_part_leaves_nothing() {
    let Some(server) = Server::start(VERSION) else { return };
    let output = run(
        Path::new(CAIRN),
        &[
            "install",
            "--yes",
            "--timeout",
            "5",
            "--with",
            "gpu",
            "--set",
            "gpu.own-runtime-class=true",
            "--set",
            "gpu.runtime-class=own",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert_says(&stderr(&output), &["0/1 nodes are available", "was rolled back"]);
    for (plural, name) in [
        ("statefulsets", "cairn"),
        ("pods", "cairn-0"),
        ("services", "cairn"),
        ("persistentvolumeclaims", "data-cairn-0"),
    ] {
        assert!(!server.has(plural, name), "{plural}/{name}");
    }
    assert!(!server.has_of_cluster("runtimeclasses", "own"));
    assert!(finds_nothing(&install(Path::new(CAIRN))), "the next one runs");
    server.assert_sound();
}

/// Whether a node answers that has no documents yet.
fn finds_nothing(installed: &Value) -> bool {
    client(installed, &["status"])["documents"] == 0
}

#[test]
fn with_several_nodes_the_pod_is_bound_to_the_one_with_the_image() {
    let Some(server) = Server::start(VERSION) else { return };
    server.add_node();
    let planned = run(Path::new(CAIRN), &["install", "--dry-run", "--node-size", "small"]);
    assert_says(&stdout(&planned), &["the cluster has 2 nodes", &format!("bound to {}", this_node())]);
    // A node that was chosen has to have the image: it does not come up, and the claim that it was given goes with it.
    let elsewhere = format!("node.name={EMPTIER}");
    let output = run(Path::new(CAIRN), &["install", "--yes", "--timeout", "5", "--set", &elsewhere]);
    assert_says(&stderr(&output), &["Back-off pulling image", "was rolled back"]);
    assert!(!server.has("persistentvolumeclaims", "data-cairn-0"), "a claim that binds the next pod to that node");
    let first = install(Path::new(CAIRN));
    let pod = server.object("pods", "cairn-0").expect("there");
    assert_eq!(pod["spec"]["nodeSelector"]["kubernetes.io/hostname"], this_node().as_str());
    add(&server.path(""), &first);
    // A claim with data stays, whatever comes after it.
    let output = run(&build(&server.path(""), "cairn-2"), &["install", "--yes", "--timeout", "5", "--set", &elsewhere]);
    assert_says(&stderr(&output), &["was rolled back", "runs as before"]);
    assert!(finds(&first));
    server.assert_sound();
}

#[test]
fn a_volume_on_another_node_is_told_before_the_first_write() {
    let Some(server) = Server::start(VERSION) else { return };
    server.add_node();
    let namespace = json!({"metadata": {}});
    let claim = json!({"metadata": {}, "spec": {"volumeName": "pvc-1", "storageClassName": "local-path"}});
    let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [EMPTIER]}]);
    let volume = json!({"metadata": {}, "spec": {"hostPath": {"path": "/of/another/node"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}}}});
    {
        let mut objects = server.api.objects.lock();
        objects.put(Key::new("namespaces", "", "cairn"), namespace);
        objects.put(Key::new("persistentvolumes", "", "pvc-1"), volume);
        objects.put(Key::new("persistentvolumeclaims", "cairn", "data-cairn-0"), claim);
    }
    let output = run(Path::new(CAIRN), &["install", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stdout(&output), &["the data is on the node emptier", "cairn image build", "delete pvc data-cairn-0"]);
    assert!(server.manifests().is_empty());
}

#[test]
fn a_volume_grows_where_its_class_lets_it_and_otherwise_the_plan_says_no() {
    let Some(server) = Server::start(VERSION) else { return };
    let class = |name: &str, grows: bool| {
        let class = json!({"metadata": {}, "provisioner": "csi.example", "allowVolumeExpansion": grows, "reclaimPolicy": "Delete"});
        server.api.objects.lock().put(Key::new("storageclasses", "", name), class);
    };
    class("grows", true);
    let size = || {
        server.object("persistentvolumeclaims", "data-cairn-0").expect("claimed")["spec"]["resources"]["requests"]["storage"].clone()
    };
    let first = json_of(&run(
        Path::new(CAIRN),
        &["install", "--yes", "--json", "--node-size", "small", "--set", "storage.class=grows", "--timeout", "60"],
    ));
    add(&server.path(""), &first);
    assert_eq!(size(), "8Gi");
    let grown = run(Path::new(CAIRN), &["install", "--yes", "--set", "storage.size=64GiB", "--timeout", "60"]);
    assert!(grown.status.success(), "{}", stderr(&grown));
    assert_says(&stdout(&grown), &["grow the volume from 8 GiB to 64 GiB"]);
    assert_eq!(size(), "64Gi");
    assert!(finds(&first), "the data is that from before");
    // The set of the release before asked for less; it comes back around the same volume.
    let back = run(Path::new(CAIRN), &["rollback", "--yes", "--timeout", "60"]);
    assert!(back.status.success(), "{}", stderr(&back));
    assert_eq!(size(), "64Gi", "volumes do not shrink");
    assert!(finds(&first));
    class("grows", false);
    let before = server.manifests();
    for (wanted, words) in [
        ("storage.size=128GiB", "does not let it grow to 128 GiB"),
        ("storage.class=other", "cannot change to another one"),
    ] {
        let output = run(Path::new(CAIRN), &["install", "--yes", "--set", wanted]);
        assert_eq!(output.status.code(), Some(1), "{wanted}");
        assert_says(&stdout(&output), &[words, "snapshot restore"]);
        assert_eq!(server.manifests(), before, "{wanted}");
    }
    server.assert_sound();
}

#[test]
fn images_keep_their_pins_where_a_restart_would_cost_them() {
    let Some(mut server) = Server::start(FORGETFUL) else { return };
    let first = install(Path::new(CAIRN));
    assert!(!server.path("k3s/agent/images/.cache.json").exists(), "with a cache this version forgets the pins");
    server.restart();
    assert!(finds_nothing(&first), "it goes on");
    let unpinned = || stdout(&run(Path::new(CAIRN), &["doctor"])).contains("not pinned");
    assert!(!unpinned());
    // Somebody made it: the doctor says what it costs.
    fs::write(server.path("k3s/agent/images/.cache.json"), "").expect("written");
    server.restart();
    let told = stdout(&run(Path::new(CAIRN), &["doctor"]));
    assert_says(&told, &["not pinned", ".cache.json"]);
}

/// What the command line says where nobody named a node.
#[test]
fn on_the_server_every_verb_reaches_the_node_in_the_pod() {
    let Some(server) = Server::start(VERSION) else { return };
    let first = install(Path::new(CAIRN));
    let path = server.path("relay.md");
    fs::write(&path, "The relay in cabinet four trips when the pump starts.").expect("written");
    let file = path.to_string_lossy();
    let home = tempfile::tempdir().expect("temporary directory");
    let bare = |arguments: &[&str]| {
        verb(Path::new(CAIRN), arguments).env("HOME", home.path()).output().expect("the binary runs")
    };
    let added = bare(&["add", &file, "-c", "site", "--json"]);
    assert_eq!(json_of(&added)["created"], 1, "{}", stderr(&added));
    assert_says(&stderr(&added), &["the node in this machine's cluster", SERVICE_IP]);
    assert_eq!(
        json_of(&bare(&["search", "why does the relay trip", "--json"]))["results"][0]["source"]["document"],
        "relay.md"
    );
    assert_eq!(json_of(&bare(&["status", "--json"]))["documents"], 1);
    assert_eq!(json_of(&bare(&["ls", "site", "--json"]))["documents"][0]["id"], "site/relay.md");
    // The network of this test has no default route, which is a problem of its own.
    let doctor: Value = serde_json::from_str(&stdout(&bare(&["doctor", "--json"]))).expect("JSON");
    assert_eq!((&doctor["running"], list(&doctor["problems"]).len()), (&Value::Bool(true), 0), "{doctor}");
    let mut about = list(&doctor["machine"]).iter().filter_map(|found| found["about"].as_str());
    assert!(!about.any(|about| ["node", "pod", "manifest"].contains(&about)), "{doctor}");
    let token = stdout(&bare(&["token", "create", "laptop"]));
    let mut status =
        verb(Path::new(CAIRN), &["status", "--json", "--url", first["service"].as_str().expect("an address")]);
    status.args(["--ca", first["authority"].as_str().expect("a path")]).env("CAIRN_TOKEN", token.trim());
    // A node looks at its tokens when somebody comes, at most once a second.
    wait_until("the new token", || status.output().expect("the binary runs").status.success());
    assert_eq!(json_of(&status.output().expect("the binary runs"))["documents"], 1);
    let mut mcp =
        verb(Path::new(CAIRN), &["mcp"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
    writeln!(mcp.stdin.take().expect("a pipe"), "{call}").expect("written");
    let mut answer = String::new();
    BufReader::new(mcp.stdout.take().expect("a pipe")).read_line(&mut answer).expect("answered");
    assert!(answer.contains("\"serverInfo\""), "{answer}");
    mcp.wait().expect("it ends");
    // Whoever names a directory means it.
    let own = home.path().join("own");
    assert_eq!(
        json_of(&bare(&["add", &file, "-c", "site", "--json", "--data-dir", &own.to_string_lossy()]))["created"],
        1
    );
    assert!(!server.path("var-lib/cairn").exists(), "no verb made a node beside the one in the pod");
}

/// Asks as any client does that knows the authority and nothing else of Cairn.
fn curl(url: &str, authority: &str, more: &[&str]) -> Output {
    let url = url.trim_end_matches("/mcp");
    let mut command = clean(Command::new("curl"));
    command
        .args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--cacert", authority])
        .args(more)
        .arg(format!("{url}/"));
    command.output().expect("curl runs")
}

#[test]
fn addresses_that_are_printed_hold_for_any_client() {
    let Some(server) = Server::start(VERSION) else { return };
    let arguments = ["install", "--yes", "--json", "--node-size", "small", "--timeout", "60", "--with", "loadbalancer"];
    let installed = json_of(&run(Path::new(CAIRN), &arguments));
    assert_eq!(installed["url"], format!("https://{NODE_IP}:7171/mcp"), "{installed}");
    assert_eq!(list(&installed["notes"]).len(), 0, "{installed}");
    let text = |name: &str| installed[name].as_str().expect("told").to_owned();
    for url in [text("url"), text("service")] {
        let answer = curl(&url, &text("authority"), &[]);
        assert!(answer.status.success(), "{url}: {}", stderr(&answer));
    }
    let by_name = ["--resolve".to_owned(), format!("cairn.cairn.svc:7171:{SERVICE_IP}")];
    let answer = curl("https://cairn.cairn.svc:7171", &text("authority"), &by_name.each_ref().map(String::as_str));
    assert!(answer.status.success(), "{}", stderr(&answer));
    // The container's output is one log, of one form.
    let log = fs::read_to_string(server.path("pod.log")).expect("a log");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line["message"].is_string()), "{line}");
    }
    assert!(log.contains("Cairn answers MCP at") && !log.contains(&text("token")), "{log}");
    // A token that is wrong is said to be wrong, also where the certificate has other names.
    let status = |token: &str| {
        let mut command =
            verb(Path::new(CAIRN), &["status", "--url", "https://10.42.0.5:7171", "--ca", &text("authority")]);
        if !token.is_empty() {
            command.env("CAIRN_TOKEN", token);
        }
        command.output().expect("the binary runs")
    };
    for token in ["", "a-wrong-token-of-some-length"] {
        let refused = status(token);
        assert!(!refused.status.success());
        assert!(
            stderr(&refused).contains("token") && !stderr(&refused).contains("certificate"),
            "{}",
            stderr(&refused)
        );
    }
    server.assert_sound();
}

#[test]
fn one_installation_at_a_time() {
    let Some(server) = Server::start(VERSION) else { return };
    let lock = fs::File::create("/run/cairn-install.lock").expect("made");
    lock.lock().expect("locked");
    let output = run(Path::new(CAIRN), &["install", "--yes"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(server.manifests().is_empty());
}

#[test]
fn a_pod_for_gpus_runs_an_image_with_the_machines_libraries_also_when_it_comes_back() {
    let Some(server) = Server::start(VERSION) else { return };
    server.add_gpu();
    let with_gpu = |program: &Path| {
        let arguments = ["install", "--yes", "--json", "--node-size", "small", "--timeout", "60", "--with", "gpu"];
        json_of(&run(program, &arguments))
    };
    let first = with_gpu(Path::new(CAIRN));
    let expected = json_of(&run(Path::new(CAIRN), &["image", "inspect", "--gpu", "--gpu-drivers", "none", "--json"]));
    let manifest = |server: &Server| {
        let manifests = server.manifests();
        manifests.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<String>()
    };
    assert_says(&manifest(&server), &[expected["pinned"].as_str().expect("a name"), "runtimeClassName: nvidia"]);
    let archive = |installed: &Value| {
        server.path(&format!("k3s/agent/images/cairn-{}.tar", installed["current"].as_str().expect("a name")))
    };
    assert_eq!(fs::metadata(archive(&first)).expect("written").len(), expected["bytes"].as_u64().expect("a size"));

    add(&server.path(""), &first);
    // What was chosen stays chosen, and the archive of the release before is kept: no other day would make it again.
    let second = install(&build(&server.path(""), "cairn-2"));
    assert!(archive(&first).exists() && archive(&second).exists());
    let back = json_of(&run(Path::new(CAIRN), &["rollback", "--yes", "--json", "--timeout", "60"]));
    assert_eq!(back["current"], first["current"]);
    assert_says(&manifest(&server), &[expected["pinned"].as_str().expect("a name")]);
    assert!(run(Path::new(CAIRN), &["uninstall", "--yes"]).status.success());
    assert!(!archive(&first).exists() && !archive(&second).exists());
    server.assert_sound();
}

#[test]
fn a_machine_that_lacks_what_gpus_take_is_told_and_gets_the_plain_image() {
    let directory = moved_server();
    let output = cairn()
        .args(["install", "--dry-run", "--json", "--with", "gpu", "--root"])
        .arg(directory.path())
        .output()
        .expect("the binary runs");
    let planned = json_of(&output);
    let found = planned["findings"].to_string();
    assert_says(&found, &["no layer for GPUs", "the dynamic loader of glibc", "`cairn install` again"]);
    let plain = json_of(&run(Path::new(CAIRN), &["image", "inspect", "--json"]));
    let sizes: Vec<&Value> = list(&planned["actions"]).iter().map(|action| &action["bytes"]).collect();
    assert!(sizes.contains(&&plain["bytes"]), "{planned}");
}

/// The files of a machine with a K3s server whose data directory was moved.
fn moved_server() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    let unit = directory.path().join("etc/systemd/system/k3s.service");
    fs::create_dir_all(unit.parent().expect("a folder")).expect("made");
    fs::write(&unit, "[Service]\nExecStart=/usr/local/bin/k3s server --data-dir /mnt/k3s\n").expect("written");
    directory
}

#[test]
fn images_of_a_bundle_go_where_the_server_imports_them_from() {
    let directory = moved_server();
    let desk = tempfile::tempdir().expect("temporary directory");
    let at_desk = |arguments: &[&str]| {
        let output = verb(Path::new(CAIRN), arguments).current_dir(desk.path()).output().expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    };
    fs::write(desk.path().join("nats.tar.gz"), "an image").expect("written");
    fs::write(desk.path().join("site.yaml"), "namespace: site\n").expect("written");
    at_desk(&["bundle", "keygen", "-o", "site.key"]);
    at_desk(&["bundle", "create", "-o", "site.bundle", "--key", "site.key", "--image", "nats.tar.gz"]);
    let root = directory.path().to_string_lossy();
    let values = ["--values", "site.yaml", "--yes", "--root", &root];
    at_desk(&[&["install", "--bundle", "site.bundle", "--public-key", "site.pub"], &values[..]].concat());
    let manifest = fs::read_to_string(directory.path().join("mnt/k3s/server/manifests/cairn.yaml")).expect("staged");
    assert!(manifest.contains("namespace: site"), "the file is passed on to the program of the bundle");
    let images = directory.path().join("mnt/k3s/agent/images");
    assert_eq!(fs::read(images.join("nats.tar.gz")).expect("placed"), b"an image");
    let left: Vec<_> =
        fs::read_dir(&images).expect("a folder").map(|entry| entry.expect("listed").file_name()).collect();
    assert_eq!(left.len(), 2, "nothing but the two images: {left:?}");
}

#[test]
fn a_server_is_staged_into_an_image_that_is_being_built() {
    let directory = moved_server();
    let stage = || {
        let output =
            cairn().args(["install", "--yes", "--json", "--node-size", "pi", "--root"]).arg(directory.path()).output();
        json_of(&output.expect("the binary runs"))
    };
    let staged = stage();
    let release = staged["current"].as_str().expect("a name");
    let place = |path: &str| directory.path().join("mnt/k3s").join(path);
    let main = fs::read_to_string(place("server/manifests/cairn.yaml")).expect("staged");
    assert_says(&main, &["kind: StatefulSet", "cairn.local/cairn@sha256:"]);
    assert!(!main.contains("kind: Secret") && !directory.path().join("etc/cairn/token").exists(), "no token is shared");
    assert!(place("server/manifests/cairn-namespace.yaml").exists());
    assert!(place(&format!("agent/images/cairn-{release}.tar")).exists());
    assert_eq!(stage()["current"], release, "a second time changes nothing");
}

#[test]
fn settings_come_from_a_file_too_and_the_newest_wins() {
    let directory = moved_server();
    let desk = tempfile::tempdir().expect("temporary directory");
    let root = directory.path().to_string_lossy().into_owned();
    let run_install = |arguments: &[&str]| {
        let all = [&["install", "--yes", "--json", "--root", &root], arguments].concat();
        verb(Path::new(CAIRN), &all).current_dir(desk.path()).output().expect("the binary runs")
    };
    let stage = |arguments: &[&str]| {
        let staged = json_of(&run_install(arguments));
        let main = fs::read_to_string(directory.path().join("mnt/k3s/server/manifests/cairn-second.yaml"));
        (staged["current"].as_str().expect("a name").to_owned(), main.expect("staged"))
    };
    let write = |name: &str, text: &str| fs::write(desk.path().join(name), text).expect("written");
    // Every problem at once, with file, line and key.
    write("site.yaml", "name: second\nstorage:\n  size: 10\nimage:\n  name: registry.example/cairn:1\nhots: a\n");
    let refused = run_install(&["--values", "site.yaml", "--set", "resources.cpu=lots"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let problems = [
        "site.yaml:3: storage.size is '10'",
        "site.yaml:5: image.name is 'registry.example/cairn:1', expected nothing",
        "site.yaml:6: there is no key 'hots' (did you mean 'hosts'?)",
        "\n  resources.cpu is 'lots'",
    ];
    assert_says(&format!("{}{}", stdout(&refused), stderr(&refused)).replace("\\n", "\n"), &problems);
    let absent = run_install(&["--values", "absent.yaml"]);
    assert!(!absent.status.success() && stderr(&absent).contains("cannot read absent.yaml"), "{}", stderr(&absent));

    write(
        "site.yaml",
        "name: second\nnode: {size: medium}\nstorage: {size: 64GiB}\nhosts: [a.example]\ningress: {host: b.example}\n",
    );
    let (first, main) = stage(&["--values", "site.yaml", "--set", "storage.size=32GiB", "--set", "env=A=1"]);
    assert_says(
        &main,
        &[
            "cairn k3s render --values site.yaml",
            "for a node of size medium",
            "storage: 32Gi",
            "a.example",
            "kind: Ingress",
            "secretName: second-token",
        ],
    );
    assert_eq!(stage(&[]).0, first, "what was chosen is remembered");
    fs::create_dir(desk.path().join("elsewhere")).expect("made");
    fs::copy(desk.path().join("site.yaml"), desk.path().join("elsewhere/site.yaml")).expect("copied");
    let (moved, main) = stage(&["--values", "elsewhere/site.yaml", "--set", "storage.size=32GiB"]);
    assert_eq!(moved, first, "wherever the file is: {main}");

    // A new file takes the place of the one before, and its keys that of what was set; what was set for its variant goes with it.
    stage(&["--set", "ingress.path=/mcp"]);
    write("next.toml", "name = \"second\"\n[storage]\nsize = \"128GiB\"\n");
    let (next, main) = stage(&["--values", "next.toml"]);
    assert_ne!(next, first);
    assert_says(&main, &["--values next.toml", "storage: 128Gi", "name: A\n"]);
    assert!(!main.contains("a.example") && !main.contains("kind: Ingress"), "{main}");
    let (_, main) = stage(&["--set", "storage.size="]);
    assert!(!main.contains("storage: 128Gi"), "the default, whatever the file says: {main}");

    let renamed = run_install(&["--values", "next.toml", "--set", "name=third"]);
    assert_eq!(renamed.status.code(), Some(1), "{}", stdout(&renamed));
    let systemd = verb(Path::new(CAIRN), &["install", "--for", "systemd", "--root", "image", "--values", "next.toml"])
        .current_dir(desk.path())
        .output()
        .expect("the binary runs");
    assert_eq!(systemd.status.code(), Some(2));
    assert_says(&stderr(&systemd), &["--values", "for K3s", "/etc/cairn/cairn.toml"]);
}

#[test]
fn an_image_gets_a_node_for_k3s_before_k3s_ever_ran_there() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let here = |arguments: &[&str]| {
        let mut command = verb(Path::new(CAIRN), arguments);
        command.current_dir(directory.path()).output().expect("the binary runs")
    };
    for processors in ["arm64", "amd64,arm64"] {
        let set = format!("node.arch={processors}");
        let output = here(&["install", "--yes", "--for", "k3s", "--root", "image", "--set", &set]);
        assert_eq!(output.status.code(), Some(2));
        assert_says(
            &stderr(&output),
            &[&format!("node.arch is '{processors}'"), "image is for amd64", "--with-platform"],
        );
    }
    let output = here(&["install", "--yes", "--for", "k3s", "--root", "image", "--node-size", "pi"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("starting the node"), "{}", stderr(&output));
    let inside = |path: &str| directory.path().join("image").join(path);
    assert!(inside("var/lib/rancher/k3s/server/manifests/cairn.yaml").exists());
    assert_eq!(fs::read_dir(inside("var/lib/rancher/k3s/agent/images")).expect("a folder").count(), 1);
    assert!(here(&["uninstall", "--yes", "--root", "image"]).status.success());
    let mut left: Vec<PathBuf> = Vec::new();
    let mut folders = vec![directory.path().join("image")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() { folders.push(path) } else { left.push(path) }
        }
    }
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_path_that_is_mistyped_changes_nothing_and_a_lost_record_leaves_no_data_behind() {
    let Some(server) = Server::start(VERSION) else { return };
    let first = install(Path::new(CAIRN));
    add(&server.path(""), &first);
    let volume = server.volumes().pop().expect("a volume").display().to_string();
    let purge = |typed: &str| {
        let mut purge = verb(Path::new(CAIRN), &["uninstall", "--yes", "--purge"]);
        purge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = purge.spawn().expect("the binary runs");
        writeln!(process.stdin.take().expect("a pipe"), "{typed}").expect("typed");
        process.wait_with_output().expect("it ends")
    };
    let refused = purge(&format!("{volume}\n/etc/cairm"));
    assert_eq!(refused.status.code(), Some(1));
    assert_says(&stderr(&refused), &["nothing was removed", "/etc/cairn"]);
    assert!(finds(&first), "the node runs as before");
    assert!(run(Path::new(CAIRN), &["uninstall", "--yes"]).status.success());
    assert!(server.has("persistentvolumeclaims", "data-cairn-0"));
    // Nothing is installed, and the data is still known.
    let purged = purge(&format!("{volume}\n/etc/cairn"));
    assert!(purged.status.success(), "{}", stderr(&purged));
    assert!(!server.has("namespaces", "cairn") && server.volumes().is_empty() && !Path::new("/etc/cairn").exists());
    let nothing = purge("");
    assert_says(&stderr(&nothing), &["not installed"]);
    server.assert_sound();
}

#[test]
fn where_usr_local_is_read_only_the_program_goes_to_opt() {
    let Some(server) = Server::start(VERSION) else { return };
    let mounted = Command::new("mount").args(["-o", "remount,ro,bind", "/usr/local"]).status().expect("mount runs");
    assert!(mounted.success());
    let first = install(Path::new(CAIRN));
    add(&server.path(""), &first);
    assert!(Path::new("/opt/cairn/bin/cairn").exists());
    let second = install(&build(&server.path(""), "cairn-2"));
    assert_eq!(second["previous"], first["current"]);
    let installed = Path::new("/opt/cairn/bin/cairn");
    let back = json_of(&run(installed, &["rollback", "--yes", "--json", "--timeout", "60"]));
    assert_eq!(back["current"], first["current"]);
    assert!(finds(&first));
    let doctor = run(installed, &["doctor"]);
    assert!(
        !stdout(&doctor).contains("is missing") && stdout(&doctor).contains("storage class"),
        "{}",
        stdout(&doctor)
    );
    assert!(run(installed, &["uninstall", "--yes"]).status.success());
    assert!(!Path::new("/opt/cairn/lib/cairn").exists());
    server.assert_sound();
}
