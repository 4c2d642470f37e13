//! `cairn install` on a K3s server, which [`crate::kube_server`] stands in for: installed, upgraded, taken back, cut off, removed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::Value;

use crate::kube_server::Server;
use crate::left_out::on_request;
use crate::node::{CAIRN, assert_says, cairn, clean, json_of, list, stderr, stdout};

const VERSION: &str = "v1.33.4+k3s1";

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
    let is_found = found["results"][0]["document"] == "relay.md";
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
    assert_eq!(install(Path::new(CAIRN))["current"], first["current"]);
    assert!(finds(&first), "the data outlived the program");
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
    assert_says(&stderr(&output), &["did not come up well and was taken back", "runs as before"]);
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
    // What the cluster does not know is refused by it, in its words.
    let output = run(&hanging, &["install", "--yes", "--timeout", "60", "--with", "cert-manager"]);
    assert_says(&stderr(&output), &["was not applied: no matches for kind", "runs as before"]);
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
    at_desk(&["bundle", "keygen", "-o", "site.key"]);
    at_desk(&["bundle", "create", "-o", "site.bundle", "--key", "site.key", "--image", "nats.tar.gz"]);
    let root = directory.path().to_string_lossy();
    at_desk(&["install", "--bundle", "site.bundle", "--public-key", "site.pub", "--yes", "--root", &root]);
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
    let token = fs::read_to_string(directory.path().join("etc/cairn/token")).expect("staged");
    use base64::Engine as _;
    let secret = base64::prelude::BASE64_STANDARD.encode(token.trim());
    assert_says(&main, &["kind: StatefulSet", "cairn.local/cairn@sha256:", &secret]);
    assert!(place("server/manifests/cairn-namespace.yaml").exists());
    assert!(place(&format!("agent/images/cairn-{release}.tar")).exists());
    assert_eq!(stage()["current"], release, "a second time changes nothing");
}
