//! `cairn doctor`: damage is named with what it affects, and mended from a snapshot.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, cairn, json_of, list, stdout};

fn sealed(node: &TestNode) -> PathBuf {
    let entries = fs::read_dir(node.data_dir().join("log")).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).min().expect("a segment")
}

fn text(id: usize) -> String {
    format!("Note {id} says word{id} in hall {}.", id * 7)
}

#[test]
fn damage_is_named_and_mended_from_a_snapshot() {
    let mut node = TestNode::start();
    let notes: Value = (0..30).map(|id| json!({"id": format!("n{id}"), "text": text(id)})).collect();
    node.add("notes", notes);
    node.call("create_snapshot", json!({}));
    node.add("notes", json!([{"id": "later", "text": "Written after the snapshot."}]));
    node.stop();

    let well = json_of(&node.cairn(&["--json", "doctor"]));
    assert_eq!((list(&well["problems"]).len(), list(&well["affected"]).len()), (0, 0), "{well}");

    // The snapshot has a link to the same file: the damaged bytes get a file of their own, as decay of one disk does.
    let segment = sealed(&node);
    let mut bytes = fs::read(&segment).expect("readable");
    let at = bytes.windows(5).position(|window| window == b"hall ").expect("a passage is stored as it is");
    bytes[at] ^= 1;
    fs::remove_file(&segment).expect("removed");
    fs::write(&segment, &bytes).expect("written");

    let output = node.cairn(&["--json", "doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(list(&found["problems"]).iter().any(|problem| problem.to_string().contains(&name)), "{found}");
    assert_eq!(list(&found["affected"]).len(), 1, "{found}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("cairn doctor --repair"), "{words}");

    let repaired = json_of(&node.cairn(&["--json", "doctor", "--repair"]));
    assert_eq!(list(&repaired["repairs"]).len(), 1, "{repaired}");
    assert_eq!((list(&repaired["problems"]).len(), list(&repaired["affected"]).len()), (0, 0), "{repaired}");
    node.restart();
    node.catch_up();
    for id in 0..30 {
        assert_eq!(node.call("fetch", json!({"id": format!("notes/n{id}")}))["text"], text(id).as_str());
    }
    assert_eq!(node.call("fetch", json!({"id": "notes/later"}))["text"], "Written after the snapshot.");
    assert_eq!(node.found("notes", "word7", "lexical"), ["n7"]);
}

#[test]
fn without_a_snapshot_doctor_says_so_and_changes_nothing() {
    let mut node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "The pump is blue."}, {"id": "b", "text": "The valve is red."}]));
    // What is damaged in the last append of all looks like a write that never ended, so there is one more.
    node.add("notes", json!([{"id": "c", "text": "The end."}]));
    let running = json_of(&node.cairn(&["--json", "doctor"]));
    assert_eq!(running["running"], true);
    node.stop();
    let segment = sealed(&node);
    let mut bytes = fs::read(&segment).expect("readable");
    let at = bytes.windows(4).position(|window| window == b"pump").expect("a passage is stored as it is");
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).expect("written");
    let output = node.cairn(&["doctor", "--repair"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&segment).expect("readable").len(), bytes.len());
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("affected notes/a"), "{shown}");
}

/// The answer for an idempotency key: no document refers to it, and neither a start nor a search reads it.
#[test]
fn damage_in_a_record_that_no_document_needs_is_named() {
    let mut node = TestNode::start();
    let notes = json!([{"id": "a", "text": "The pump is blue."}]);
    node.call("create_collection", json!({"name": "notes"}));
    node.call("add_documents", json!({"collection": "notes", "documents": notes, "idempotency_key": "0815"}));
    node.call("create_snapshot", json!({}));
    node.stop();
    let segment = sealed(&node);
    let mut bytes = fs::read(&segment).expect("readable");
    // The digest of the request, which only that record has.
    let digest = b"\"request\":\"";
    let at = bytes.windows(digest.len()).position(|window| window == digest).expect("it is stored as it is") + 1;
    bytes[at] ^= 1;
    fs::remove_file(&segment).expect("removed");
    fs::write(&segment, &bytes).expect("written");
    let output = node.cairn(&["--json", "doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((list(&found["problems"]).len(), list(&found["affected"]).len()), (1, 0), "{found}");
    let repaired = json_of(&node.cairn(&["--json", "doctor", "--repair"]));
    assert_eq!((list(&repaired["repairs"]).len(), list(&repaired["problems"]).len()), (1, 0), "{repaired}");
}

/// Mesa's rasteriser counts as a GPU where a test says so.
#[test]
fn doctor_proves_the_gpu() {
    let node = TestNode::start();
    let told = json_of(&node.cairn(&["--json", "doctor", "--software"]));
    assert_says(&told["gpu"]["name"].to_string(), &["llvmpipe"]);
    assert!(told["gpu"]["questions"].as_u64().is_some_and(|questions| questions >= 400), "{told}");
    let shown = stdout(&node.cairn(&["doctor", "--software"]));
    assert_says(&shown, &["gpu      llvmpipe", "questions answered right in "]);
}

#[test]
fn no_gpu_is_no_problem() {
    let node = TestNode::start();
    for (drivers, reason) in [("/nowhere.json", "Vulkan finds no GPU here;"), ("", "a rasteriser on the CPU (llvmpipe")]
    {
        let mut command = cairn();
        command.args(["doctor", "--data-dir"]).arg(node.data_dir());
        if !drivers.is_empty() {
            command.env("VK_DRIVER_FILES", drivers).env("VK_ICD_FILENAMES", drivers);
        }
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{}", stdout(&output));
        assert_says(&stdout(&output), &["gpu      none: ", reason, "docs/gpu.md"]);
    }
    let elsewhere = json_of(&node.cairn(&["--json", "doctor", "--url", node.base()]));
    assert_eq!(elsewhere["gpu"], Value::Null, "of another machine only its node is asked");
}

/// Answers the first question about a node's status and is gone: as a pod is that is replaced while the doctor asks.
fn answers_once(node: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let body = json!({"node": node}).to_string();
    let length = body.len();
    (listener, format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
}

#[test]
fn a_node_that_goes_while_it_is_asked_hides_nothing_of_the_machine() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let node = "0123456789abcdef0123456789abcdef";
    let (listener, answer) = answers_once(node);
    let listen = listener.local_addr().expect("an address");
    let running = json!({"pid": 1, "node": node, "listen": listen}).to_string();
    fs::write(directory.path().join("running.json"), running).expect("written");
    let stand_in = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("somebody asks");
        drop(listener);
        let mut reader = BufReader::new(socket);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a request");
            if line.trim().is_empty() {
                break;
            }
            if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = told.trim().parse().expect("a length");
            }
        }
        reader.by_ref().take(length).read_to_end(&mut Vec::new()).expect("a body");
        reader.into_inner().write_all(answer.as_bytes()).expect("answered");
    });
    let output = cairn().args(["--json", "doctor", "--data-dir"]).arg(directory.path()).output().expect("it runs");
    stand_in.join().expect("it was asked");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((output.status.code(), &told["running"]), (Some(1), &Value::Bool(false)), "{told}");
    let about: Vec<&str> = list(&told["machine"]).iter().filter_map(|found| found["about"].as_str()).collect();
    assert!(about.contains(&"node"), "{told}");
}
