//! Who else can read or change what a node keeps, and what it says about that.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::node::{TestNode, assert_says, run_on, stderr};

fn all(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(all(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn what_a_node_writes_is_its_owner_s_alone() {
    let mut node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "A secret."}]));
    node.call("create_snapshot", json!({}));
    let check = |node: &TestNode| {
        for path in all(&node.data_dir()) {
            assert_eq!(mode(&path) & 0o077, 0, "{}: {:o}", path.display(), mode(&path));
        }
    };
    check(&node);
    node.stop();
    check(&node);
    // A command that opens the directory for itself, with the mask of a shell.
    let file = node.scratch().join("note.md");
    fs::write(&file, "# Another\n\nsecret").expect("written");
    node.cairn_json(&["add", file.to_str().expect("UTF-8"), "--collection", "more", "--json"]);
    check(&node);
}

#[test]
fn a_directory_that_anybody_can_change_is_warned_of() {
    let open = |data_dir: &Path| {
        fs::create_dir(data_dir).expect("made");
        fs::set_permissions(data_dir, Permissions::from_mode(0o777)).expect("changed");
    };
    let node = TestNode::on(open);
    assert_says(&node.log(), &["every user of this machine can remove or replace", "chmod 0700"]);
    let well = TestNode::start();
    assert!(!well.log().contains("every user"), "{}", well.log());
}

#[test]
fn a_second_node_stays_out_although_the_lock_file_was_removed() {
    let node = TestNode::start();
    fs::remove_file(node.data_dir().join("LOCK")).expect("there");
    // Where the running one can be reached is no longer known either.
    fs::remove_file(node.data_dir().join("running.json")).expect("there");
    let second = run_on(&node.data_dir(), &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    assert_says(&stderr(&second), &["LOCK is held by another process"]);
    node.add("notes", json!([{"id": "a", "text": "The first one goes on."}]));
}

#[test]
fn a_link_in_the_data_directory_is_not_written_through() {
    let precious = tempfile::tempdir().expect("temporary directory");
    let precious = precious.path().join("precious");
    fs::write(&precious, "text").expect("written");
    let node = TestNode::on(|data_dir| {
        fs::create_dir(data_dir).expect("made");
        for name in ["running.partial", "token.partial"] {
            std::os::unix::fs::symlink(&precious, data_dir.join(name)).expect("linked");
        }
    });
    node.call("get_status", json!({}));
    assert_eq!(fs::read_to_string(&precious).expect("there"), "text");
    let output = {
        let data_dir = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::symlink(&precious, data_dir.path().join("LOCK")).expect("linked");
        run_on(data_dir.path(), &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
    };
    assert!(!output.status.success());
    assert_says(&stderr(&output), &["LOCK"]);
    assert_eq!(fs::read_to_string(&precious).expect("there"), "text");
}

#[test]
fn what_an_old_restore_left_is_removed() {
    let old = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    let node = TestNode::on(|data_dir| {
        for (name, time) in [("old", old), ("new", SystemTime::now())] {
            let log = data_dir.join("restore").join(name).join("log");
            fs::create_dir_all(&log).expect("made");
            fs::write(log.join("00000000000000000001.seg"), "a part").expect("written");
            for directory in [&log, log.parent().expect("a parent")] {
                File::open(directory).expect("there").set_modified(time).expect("changed");
            }
        }
    });
    let left = fs::read_dir(node.data_dir().join("restore")).expect("there");
    let left: Vec<_> = left.map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(left, ["new"], "what was fetched today is taken up by the next attempt");
}
