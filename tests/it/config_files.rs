//! Every configuration file that is shipped is one that the binary takes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::node::{assert_says, cairn, json_of, run_on, stderr, stdout};

/// Every file below `config/`, which are all settings.
fn shipped() -> Vec<PathBuf> {
    let mut files = below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"));
    files.sort();
    files
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("readable").path();
        if path.is_dir() { files.extend(below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn every_shipped_file_loads() {
    let files = shipped();
    for name in ["default.toml", "examples/pi.toml", "examples/server.toml", "examples/gpu.toml"] {
        assert!(files.iter().any(|path| path.ends_with(name)), "{name} in {files:?}");
    }
    for file in files {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = file.to_str().expect("UTF-8");
        json_of(&run_on(directory.path(), &["collection", "create", "notes", "--json", "--config", path]));
        let status = json_of(&run_on(directory.path(), &["status", "--json", "--config", path]));
        assert_eq!(status["ready"], true, "{path}");
    }
}

#[test]
fn the_printed_configuration_is_the_shipped_one() {
    let printed = stdout(&cairn().args(["serve", "--print-config"]).output().expect("the binary runs"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml");
    assert_eq!(printed, fs::read_to_string(folder).expect("readable"));
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("cairn.toml");
    fs::write(
        &file,
        "[server]\nlissen = \"127.0.0.1:1\"\nin_flight_max = -3\n[store]\nsegment_bytes = \"2 elephants\"\n",
    )
    .expect("written");
    let path = file.to_str().expect("UTF-8");
    let output = run_on(directory.path(), &["serve", "--config", path]);
    assert_eq!(output.status.code(), Some(2));
    assert_says(
        &stderr(&output),
        &["server.lissen", "server.in_flight_max", "-3", "store.segment_bytes", "2 elephants", path],
    );
}

#[test]
fn names_that_can_never_match_are_told_at_the_start() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for (name, words) in [
        ("*", &["'*'", "a pattern matches nothing"][..]),
        ("*.a.example", &["'*.a.example'", "list each name"]),
        ("https://a.example", &["'https://a.example'", "'a.example'", "every scheme and port"]),
        ("a.example:443", &["'a.example:443'", "'a.example'"]),
        ("a.example/mcp", &["'a.example/mcp'", "'a.example'"]),
        ("a example", &["'a example'", "a DNS name"]),
    ] {
        let mut command = cairn();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path());
        let output = command.env("CAIRN_SERVER_ALLOWED_HOSTS", name).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert_says(&stderr(&output), &[&["server.allowed_hosts", "CAIRN_SERVER_ALLOWED_HOSTS"], words].concat());
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (file, from_file, from_environment) =
        (directory.path().join("cairn.toml"), directory.path().join("one"), directory.path().join("two"));
    fs::write(&file, format!("[node]\ndata_dir = {:?}\n", from_file.to_str().expect("UTF-8"))).expect("written");
    let data_dir = |variable: Option<&Path>| {
        let run = |verb: &[&str]| -> Value {
            let mut command = cairn();
            command.args(verb).args(["--json", "--config"]).arg(&file);
            if let Some(path) = variable {
                command.env("CAIRN_NODE_DATA_DIR", path);
            }
            json_of(&command.output().expect("the binary runs"))
        };
        run(&["collection", "create", "notes"]);
        PathBuf::from(run(&["status"])["data_dir"].as_str().expect("a path"))
    };
    assert_eq!(data_dir(None), from_file);
    assert_eq!(data_dir(Some(&from_environment)), from_environment);
}
