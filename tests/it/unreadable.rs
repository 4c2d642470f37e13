//! What cannot be read is told: by the answer that lacks it, by `/ready`, by the status. Nothing passes for a short answer.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, documents, list, stderr, stdout, texts};
use crate::tls::wait_until;

/// The segment that a small node writes.
fn segment(node: &TestNode) -> PathBuf {
    let log = fs::read_dir(node.data_dir().join("log")).expect("a log");
    let mut segments: Vec<PathBuf> = log.map(|entry| entry.expect("readable").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    segments.into_iter().next().expect("a segment")
}

/// A node that has read nothing of what is in its log.
fn cold() -> TestNode {
    let mut node = TestNode::start();
    let text =
        |bird: &str| json!({"id": bird, "title": format!("The {bird}"), "text": format!("A {bird} sings at dawn.")});
    node.add("birds", Value::Array(["robin", "wren", "heron"].map(text).to_vec()));
    node.stop();
    node.restart();
    node
}

/// Changes one byte of the first place in a file where these bytes are.
fn flip(path: &PathBuf, within: &str) {
    let bytes = fs::read(path).expect("readable");
    let at = bytes.windows(within.len()).position(|window| window == within.as_bytes()).expect("in it");
    let mut file = File::options().write(true).open(path).expect("writable");
    file.seek(SeekFrom::Start(at as u64)).expect("a place");
    file.write_all(&[bytes[at] ^ 1]).expect("written");
}

fn ready(node: &TestNode) -> (u16, Value) {
    let answer = node.get(&format!("{}/ready", node.admin));
    (answer.status, answer.json())
}

#[test]
fn a_disk_that_does_not_read_makes_no_answer_shorter() {
    let node = cold();
    let (path, everything) = (segment(&node), json!({"collection": "birds"}));
    wait_until("the indexes have caught up", || ready(&node).0 == 200);
    // The disk has lost the file's content; the file is open, and its name is there.
    let bytes = fs::read(&path).expect("readable");
    File::options().write(true).open(&path).expect("writable").set_len(256).expect("cut");
    for (tool, arguments) in [
        ("list_documents", everything.clone()),
        ("list_documents", json!({"collection": "birds", "order": "updated"})),
        ("search", json!({"query": "Which bird sings?"})),
        ("search", json!({"query": "dawn", "mode": "lexical"})),
        ("search", json!({"query": "dawn", "mode": "dense", "detail": "ids"})),
        ("fetch", json!({"id": "birds/robin"})),
        ("find_similar", json!({"id": "birds/robin"})),
    ] {
        let words = node.refusal(tool, arguments);
        assert_says(&words, &["cannot read", path.to_str().expect("UTF-8")]);
    }
    let (status, detail) = ready(&node);
    assert_eq!(status, 503, "{detail}");
    assert_says(detail["reasons"]["reads"].as_str().expect("a reason"), &["cannot read"]);
    assert_says(detail["damage"][0].as_str().expect("a place"), &["the disk does not read it"]);
    let status = node.call("get_status", json!({}));
    assert_eq!((&status["ready"], list(&status["damage"]).len()), (&json!(false), 1), "{status}");
    let shown = node.cairn(&["status"]);
    assert_eq!(shown.status.code(), Some(3), "{}", stderr(&shown));
    assert_says(&stdout(&shown), &["ready       no: ", "damage      ", "the disk does not read it"]);
    // The disk is back: nobody has to do anything.
    File::options().write(true).open(&path).expect("writable").write_all(&bytes).expect("written");
    let (status, detail) = ready(&node);
    assert_eq!((status, &detail["damage"]), (200, &json!([])), "{detail}");
    let listed = node.call("list_documents", everything);
    assert_eq!(texts(&listed["documents"], "id"), ["birds/heron", "birds/robin", "birds/wren"]);
    assert_eq!(documents(&node.call("search", json!({"query": "Which bird sings?"}))).len(), 3);
}

#[test]
fn an_answer_that_lacks_what_is_damaged_says_so() {
    let node = cold();
    let path = segment(&node);
    flip(&path, "A wren sings");
    let answer = node.call("search", json!({"query": "sings at dawn"}));
    let mut found = documents(&answer);
    found.sort();
    assert_eq!(found, ["heron", "robin"]);
    assert_says(answer["searched"]["mode_reason"].as_str().expect("a reason"), &["1 passage left out", "checksum"]);
    // Not remembered as the answer: it says so each time.
    let again = node.call("search", json!({"query": "sings at dawn"}));
    assert_eq!(again["searched"]["mode_reason"], answer["searched"]["mode_reason"]);
    // Where nothing else is found it is an error, no empty list.
    let words = node.refusal("search", json!({"query": "wren", "mode": "lexical"}));
    assert_says(&words, &["checksum differs"]);
}

#[test]
fn damage_that_was_found_is_known_after_a_restart() {
    let mut node = cold();
    let path = segment(&node);
    // Sealed, with an index file: the next start does not look into it.
    node.call("create_snapshot", json!({}));
    node.stop();
    let bytes = fs::read(&path).expect("readable");
    flip(&path, "A wren sings");
    let found = node.cairn(&["doctor"]);
    assert_says(&stdout(&found), &["checksum differs"]);
    assert_says(&stdout(&node.cairn(&["status"])), &["damage      ", "checksum differs"]);
    node.restart();
    assert_eq!(list(&node.call("get_status", json!({}))["damage"]).len(), 1);
    // Mended, however that was done.
    node.stop();
    fs::write(&path, bytes).expect("written");
    node.restart();
    assert_eq!(node.call("get_status", json!({}))["damage"], json!([]));
}

#[test]
fn a_list_names_what_it_cannot_show() {
    let node = cold();
    flip(&segment(&node), "The heron");
    let listed = node.call("list_documents", json!({"collection": "birds"}));
    assert_eq!(texts(&listed["documents"], "id"), ["birds/robin", "birds/wren"]);
    assert_eq!(texts(&listed["unreadable"], "id"), ["birds/heron"]);
    assert_says(listed["unreadable"][0]["reason"].as_str().expect("a reason"), &["checksum differs"]);
    // The rest is served, so the node is ready, and says what is missing.
    wait_until("the indexes have caught up", || ready(&node).0 == 200);
    let (status, detail) = ready(&node);
    assert_eq!((status, list(&detail["damage"]).len()), (200, 1), "{detail}");
    assert_says(&stdout(&node.cairn(&["status"])), &["ready       yes", "damage      ", "checksum differs"]);
}
