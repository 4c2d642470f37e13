//! Settings that change while a node runs: by SIGHUP, by a file that is written or replaced, and those that cannot be used.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::{TestNode, assert_says, hits, stderr, stdout};

/// A folder with a configuration file, outside of the data directory.
struct Settings {
    folder: TempDir,
}

impl Settings {
    fn new(text: &str) -> Self {
        let settings = Self { folder: tempfile::tempdir().expect("temporary directory") };
        fs::write(settings.file(), text).expect("written");
        settings
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("cairn.toml")
    }

    fn node(&self) -> TestNode {
        self.node_with(&[])
    }

    fn node_with(&self, environment: &[(&str, &str)]) -> TestNode {
        let file = self.file();
        let own = [("CAIRN_CONFIG", file.to_str().expect("UTF-8"))];
        TestNode::with(&[&own[..], environment].concat())
    }

    /// As `mv` does.
    fn replace(&self, text: &str) {
        let partial = self.folder.path().join("partial");
        fs::write(&partial, text).expect("written");
        fs::rename(partial, self.file()).expect("renamed");
    }
}

fn hang_up(node: &TestNode) {
    kill_process(Pid::from_raw(node.pid().cast_signed()).expect("a process"), Signal::HUP).expect("it runs");
}

fn settings_of(node: &TestNode) -> Value {
    node.call("get_status", json!({}))["settings"].clone()
}

/// Asks for the status until it is so.
fn until(node: &TestNode, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let settings = settings_of(node);
        if is_so(&settings) {
            return settings;
        }
    }
}

/// Reads the log until this is in it.
fn until_logged(node: &TestNode, words: &str) {
    while !node.log().contains(words) {
        // The node is asked for something, so that this test ends when it does.
        settings_of(node);
    }
}

fn with_documents(node: &TestNode) {
    let documents: Vec<Value> = (0..9)
        .map(|number| json!({"id": format!("d{number}"), "text": format!("Granite lantern number {number}.")}))
        .collect();
    node.add("notes", json!(documents));
}

fn found(node: &TestNode) -> usize {
    hits(&node.call("search", json!({"collections": ["notes"], "query": "granite lantern"}))).len()
}

#[test]
fn sighup_has_the_settings_read_again() {
    let settings = Settings::new("[search]\nlimit = 2\n");
    // While it is open for writing, nobody knows that it is whole.
    let mut file = File::options().append(true).open(settings.file()).expect("opened");
    let node = settings.node();
    with_documents(&node);
    assert_eq!(found(&node), 2);
    file.set_len(0).expect("emptied");
    file.write_all(b"[search]\nlimit = 4\n").expect("written");
    hang_up(&node);
    until_logged(&node, "settings reloaded: search.limit");
    assert_eq!(found(&node), 4, "remembered answers are of the other limit");
    hang_up(&node);
    until_logged(&node, "settings reloaded: nothing changed");
}

#[test]
fn a_file_that_is_replaced_or_written_is_taken_over() {
    let settings = Settings::new("[search]\nlimit = 2\n");
    let node = settings.node();
    with_documents(&node);
    settings.replace("[search]\nlimit = 5\n");
    until_logged(&node, "settings reloaded: search.limit");
    assert_eq!(found(&node), 5);
    fs::write(settings.file(), "[search]\nlimit = 3\ncandidates = 50\n").expect("written");
    until_logged(&node, "settings reloaded: search.candidates, search.limit");
    assert_eq!(found(&node), 3);
}

/// As the kubelet exchanges a ConfigMap: the file is a link into a folder whose name is a link, and only that one changes.
#[test]
fn a_config_map_that_is_exchanged_is_taken_over_again_and_again() {
    let settings = Settings { folder: tempfile::tempdir().expect("temporary directory") };
    let version = |name: &str, limit: u32| {
        let folder = settings.folder.path().join(name);
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("cairn.toml"), format!("[search]\nlimit = {limit}\n")).expect("written");
        symlink(name, settings.folder.path().join("..data_tmp")).expect("linked");
        fs::rename(settings.folder.path().join("..data_tmp"), settings.folder.path().join("..data")).expect("renamed");
    };
    version("..2026_1", 2);
    symlink("..data/cairn.toml", settings.file()).expect("linked");
    let node = settings.node();
    with_documents(&node);
    for (name, limit) in [("..2026_2", 3), ("..2026_3", 6)] {
        version(name, limit);
        while found(&node) != limit as usize {}
    }
    fs::remove_dir_all(settings.folder.path().join("..2026_2")).expect("removed");
    assert_eq!(settings_of(&node), json!({"restart": [], "problems": []}));
}

#[test]
fn wrong_settings_are_not_used_and_are_named_until_they_are_right() {
    let settings = Settings::new("[search]\nlimit = 2\n");
    let node = settings.node();
    with_documents(&node);
    settings.replace("[search]\nlimit = 4000\n\n[server]\nlissen = \"127.0.0.1:1\"\n");
    let state = until(&node, |state| state["problems"].as_array().is_some_and(|problems| problems.len() == 2));
    let file = settings.file().display().to_string();
    let unknown = format!("server.lissen ({file}:5): there is no such key; did you mean 'listen'?");
    let range = format!("search.limit ({file}:2): found 4000, expected a whole number from 1 to 50");
    assert_says(&state["problems"].to_string(), &[&unknown, &range]);
    until_logged(&node, "the changed settings are not used");
    assert_says(&node.log(), &[&unknown, &range]);
    assert_eq!(found(&node), 2);
    let ready = node.get(&format!("{}/ready", node.admin));
    assert_eq!((ready.status, &ready.json()["settings"]), (200, &state), "{}", ready.text);
    let shown = node.cairn(&["status"]);
    assert!(shown.status.success(), "{}", stderr(&shown));
    assert_says(&stdout(&shown), &["PROBLEM: the change is not used", &range]);
    let doctor = node.cairn(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert_says(&stdout(&doctor), &["the changed settings are not used", &range]);
    assert_says(&stderr(&doctor), &["fix what is listed above"]);
    settings.replace("[search]\nlimit = 4\n");
    until(&node, |state| state["problems"] == json!([]));
    assert_eq!(found(&node), 4);
}

#[test]
fn what_needs_a_restart_is_named_and_a_snapshot_has_the_settings_that_run() {
    let settings = Settings::new("[search]\nlimit = 2\n");
    let mut node = settings.node();
    with_documents(&node);
    let changed =
        "[search]\nlimit = 3\ntokens_max = 900\n[store]\nsegment_bytes = \"7MiB\"\n[server]\ndrain_timeout = \"19s\"\n";
    settings.replace(changed);
    let state = until(&node, |state| state["restart"] != json!([]));
    assert_eq!(state, json!({"restart": ["server.drain_timeout", "store.segment_bytes"], "problems": []}));
    until_logged(&node, "settings changed that need a restart: server.drain_timeout, store.segment_bytes");
    assert_says(
        &stdout(&node.cairn(&["status"])),
        &["changed and need a restart: server.drain_timeout, store.segment_bytes"],
    );
    assert_says(&stdout(&node.cairn(&["doctor"])), &["settings changed and need a restart: server.drain_timeout"]);
    let stored = |node: &TestNode| -> toml::Table {
        let output = node.cairn(&["snapshot", "create"]);
        assert!(output.status.success(), "{}", stderr(&output));
        newest_configuration(&node.data_dir())
    };
    let running = stored(&node);
    assert_eq!(running["search"]["limit"].as_integer(), Some(3));
    assert_eq!(running["store"]["segment_bytes"].as_str(), Some("64MiB"), "what runs, and not what the file has");
    node.stop();
    node.restart();
    assert_eq!(settings_of(&node), json!({"restart": [], "problems": []}));
    node.add("notes", json!([{"id": "more", "text": "Something new."}]));
    let restarted = stored(&node);
    assert_eq!(restarted["store"]["segment_bytes"].as_str(), Some("7MiB"));
}

/// The settings in the newest manifest beside a data directory.
fn newest_configuration(data_dir: &Path) -> toml::Table {
    fn manifests(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                manifests(&entry.path(), found);
            } else if entry.path().extension().is_some_and(|extension| extension == "json") {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    manifests(&PathBuf::from(format!("{}-snapshots", data_dir.display())), &mut found);
    let text = |path: &PathBuf| {
        let file: Value = serde_json::from_slice(&fs::read(path).expect("readable")).ok()?;
        Some(file["manifest"].clone())
    };
    let mut all: Vec<(String, String)> = found
        .iter()
        .filter_map(text)
        .filter_map(|manifest| {
            Some((manifest["id"].as_str()?.to_owned(), manifest["configuration"].as_str()?.to_owned()))
        })
        .collect();
    all.sort();
    all.pop().expect("a manifest with settings").1.parse().expect("settings are TOML")
}

#[test]
fn hosts_levels_and_the_schedule_of_snapshots_change_while_it_runs() {
    let settings = Settings::new("[snapshot]\ninterval = \"1h\"\n");
    let backups = tempfile::tempdir().expect("temporary directory");
    let target = backups.path().to_str().expect("UTF-8");
    let node = settings.node_with(&[("CAIRN_SNAPSHOT_TARGET", target)]);
    with_documents(&node);
    let ask = || node.request("GET", node.base(), &[("host", "new.example")], None).status;
    assert_eq!(ask(), 403);
    assert!(!node.log().contains("\"level\":\"DEBUG\""));
    settings.replace(
        "[snapshot]\ninterval = \"1s\"\n[server]\nallowed_hosts = [\"new.example\"]\n[log]\nlevel = \"debug\"\n",
    );
    until_logged(&node, "settings reloaded: log.level, server.allowed_hosts, snapshot.interval");
    assert_ne!(ask(), 403);
    // What is not HTTP is worth a line at that level.
    let mut stream = TcpStream::connect(node.base().trim_start_matches("http://")).expect("connected");
    stream.write_all(b"no request\r\n\r\n").expect("sent");
    until_logged(&node, "\"level\":\"DEBUG\"");
    while node.call("get_status", json!({}))["snapshots"]["snapshots"] != json!(1) {}
    settings.replace("[server]\nin_flight_max = 100\n");
    until_logged(&node, "settings reloaded: log.level, server.allowed_hosts, server.in_flight_max, snapshot.interval");
    assert_eq!(ask(), 403);
}

#[test]
fn a_restore_starts_with_the_settings_that_ran() {
    let settings = Settings::new("[search]\nlimit = 2\n");
    let node = settings.node();
    with_documents(&node);
    settings.replace("[search]\nlimit = 4\n[store]\nreserve_bytes = \"1MiB\"\n");
    until(&node, |state| state["restart"] == json!(["store.reserve_bytes"]));
    for verb in [&["snapshot", "create"][..], &["snapshot", "restore", "--yes"]] {
        let output = node.cairn(verb);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    until(&node, |state| state["restart"] == json!(["store.reserve_bytes"]));
    assert_eq!(found(&node), 4);
}
