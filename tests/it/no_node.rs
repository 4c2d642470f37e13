//! Where there is no node: it is said, with what to do, and none is made by mistake.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use serde_json::Value;

use crate::command_line::verbs;
use crate::left_out::left_out;
use crate::node::{CAIRN, assert_says, clean, run_on, stderr, stdout};

/// Verbs that may begin a node's data.
const MAKING: [&str; 5] = ["serve", "add", "collection create", "snapshot restore", "snapshot import"];

/// Arguments for those that need some.
fn arguments(verb: &str) -> &'static [&'static str] {
    match verb {
        "search" => &["pump"],
        "get" | "rm" => &["notes/a"],
        "collection describe" | "collection delete" => &["notes"],
        "token create" | "token revoke" => &["laptop"],
        "snapshot export" => &["/nonexistent/out"],
        "eval" => &["/nonexistent"],
        _ => &[],
    }
}

/// Those that look at a node's data.
const READING: [&str; 20] = [
    "search",
    "get",
    "ls",
    "rm",
    "status",
    "doctor",
    "collection list",
    "collection describe",
    "collection delete",
    "snapshot create",
    "snapshot list",
    "snapshot verify",
    "snapshot export",
    "snapshot prune",
    "snapshot schedule",
    "token create",
    "token list",
    "token revoke",
    "bench",
    "mcp",
];

#[test]
fn a_file_in_the_place_of_the_data_directory_is_told() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("notes.md");
    fs::write(&file, "The pump is blue.").expect("written");
    for verb in ["serve", "add"] {
        let more: &[&str] = if verb == "add" {
            &[&file.to_string_lossy()]
        } else {
            &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        };
        let output = run_on(&file, &[&[verb], more].concat());
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert_says(&stderr(&output), &["notes.md", "it is a file"]);
    }
    assert_eq!(fs::read(&file).expect("readable"), b"The pump is blue.");
}

#[test]
fn no_verb_makes_a_node_by_mistake() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).expect("created");
    let nowhere = directory.path().join("nowhere");
    for verb in verbs().into_iter().map(|verb| verb.join(" ")) {
        if MAKING.contains(&verb.as_str()) {
            continue;
        }
        let words: Vec<&str> = verb.split(' ').chain(arguments(&verb).iter().copied()).collect();
        for data_dir in [&nowhere, &empty] {
            let output = run_on(data_dir, &words);
            if READING.contains(&verb.as_str()) && !["mcp", "bench"].contains(&verb.as_str()) {
                assert_eq!(output.status.code(), Some(3), "{verb}: {}", stderr(&output));
                let place = data_dir.to_str().expect("UTF-8");
                assert_says(
                    &stderr(&output),
                    &["no node in", place, "--data-dir", "--url", "cairn add", "cairn serve"],
                );
            }
            assert!(!nowhere.exists(), "{verb} made it");
            assert_eq!(fs::read_dir(&empty).expect("listed").count(), 0, "{verb} wrote into it");
        }
    }
    assert!(run_on(&nowhere, &["collection", "create", "notes"]).status.success());
    assert!(run_on(&nowhere, &["collection", "list"]).status.success());
}

#[test]
fn whose_it_is_is_said_where_it_may_not_be_opened() {
    if !rustix::process::geteuid().is_root() {
        left_out("only root can be another user");
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let data_dir = directory.path().join("data");
    assert!(run_on(&data_dir, &["collection", "create", "notes"]).status.success());
    let program = directory.path().join("cairn");
    fs::copy(CAIRN, &program).expect("copied");
    let mode = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    mode(directory.path(), 0o755);
    mode(&program, 0o755);
    let as_nobody = |verb: &[&str]| {
        let mut command = clean(std::process::Command::new(&program));
        command.args(["--data-dir".as_ref(), data_dir.as_os_str()]).args(verb).env("HOME", "/nonexistent");
        command.current_dir("/").uid(65_534).gid(65_534).stdin(Stdio::null()).output().expect("the binary runs")
    };
    // Closed to others, as it is made, and open to their eyes.
    for permissions in [0o700, 0o755] {
        mode(&data_dir, permissions);
        for verb in [&["status"][..], &["search", "x"], &["ls"], &["add", "/usr/share/common-licenses"]] {
            let output = as_nobody(verb);
            assert_eq!(output.status.code(), Some(3), "{verb:?}: {}", stderr(&output));
            assert_says(&stderr(&output), &["belongs to root", "sudo", "--url", "--token"]);
        }
    }
    assert_says(&stderr(&as_nobody(&["status"])), &["user 'nobody'"]);
    // What is not there belongs to nobody.
    let mut command = clean(std::process::Command::new(&program));
    command.args(["add", "/usr/share/common-licenses"]).env("HOME", "/nonexistent").env_remove("XDG_DATA_HOME");
    let output = command.current_dir("/").uid(65_534).gid(65_534).stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_says(
        &stderr(&output),
        &["there is no /nonexistent/.local/share/cairn", "user 'nobody' may not make it", "--data-dir"],
    );
    assert!(!stderr(&output).contains("belongs to"), "{}", stderr(&output));
    let json = as_nobody(&["status", "--json"]);
    let said: Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!(said["error"]["code"], "unreachable");
}
