//! Stores of earlier releases are read, those of later ones are refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::node::{TestNode, assert_says, list, run_on};

/// A store that the first release wrote: a compacted segment, a sealed one, and the one that was being written.
fn store_v1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store_v1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn segments(log: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(log).expect("readable").map(|entry| entry.expect("readable").path());
    let mut segments: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect();
    segments.sort();
    segments
}

#[test]
fn a_store_of_format_1_is_read() {
    let node = TestNode::on(|data_dir| copy(&store_v1().join("log"), &data_dir.join("log")));
    assert_eq!(node.call("get_status", json!({}))["lsn"], 36);
    node.catch_up();
    let status = node.call("get_status", json!({}));
    assert_eq!(list(&status["damage"]).len(), 0, "{status}");
    assert_eq!(status["node"], "ffce68031bf9a522f825ba5cf392a8c6");
    // What is in it is told in tests/data/store_v1/README.md.
    let fetched = node.call("fetch", json!({"id": "manuals/pump", "include": ["metadata"]}));
    assert_eq!(fetched["text"], "# Pump\n\nThe pump of hall two is drained on the first Monday of each month.");
    assert_eq!(fetched["metadata"]["hall"], 2);
    assert_says(&node.refusal("fetch", json!({"id": "manuals/valve"})), &["there is no document 'manuals/valve'"]);
    assert_eq!(node.found("manuals", "drained monday", "lexical"), ["pump"]);
    assert_eq!(node.found("notes", "compressor oiled", "lexical")[0], "n7");
    let listed = node.call("list_documents", json!({"collection": "notes"}));
    assert_eq!(list(&listed["documents"]).len(), 12);
    // Versions go on where they were, also of what is deleted.
    let added = node.add("manuals", json!([{"id": "valve", "text": "A new valve."}]));
    assert_eq!(added["documents"][0]["version"], 2, "{added}");
}

#[test]
fn a_store_of_a_newer_release_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let data_dir = directory.path().join("data");
    copy(&store_v1().join("log"), &data_dir.join("log"));
    let last = segments(&data_dir.join("log")).pop().expect("a segment");
    let mut bytes = fs::read(&last).expect("readable");
    for copy in [0, 128] {
        bytes[copy + 8] = 2;
        bytes[copy + 88..copy + 93].copy_from_slice(b"7.1.0");
    }
    fs::write(&last, &bytes).expect("written");
    let output = run_on(&data_dir, &["status"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        words.contains("written by Cairn 7.1.0 in segment format 2; this release reads format 1: upgrade Cairn"),
        "{words}"
    );
    assert_eq!(fs::read(&last).expect("readable"), bytes, "it was left alone");
}

/// As `src/store/FORMAT.md` describes a frame: the offset of the last one, and its node's salt.
fn last_frame(segment: &[u8]) -> (usize, [u8; 8]) {
    let salt = segment[48..56].try_into().expect("8 bytes");
    let is_mark = |at: &usize| segment[*at..*at + 4] == *b"FRM1";
    ((256..segment.len() - 48).step_by(8).rfind(is_mark).expect("a frame"), salt)
}

#[test]
fn a_record_that_only_a_newer_release_knows_is_refused_by_name() {
    for (offset, value, words) in [(40, 99, "is of kind 99"), (41, 0x21, "has the flags 0x20")] {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = directory.path().join("data");
        copy(&store_v1().join("log"), &data_dir.join("log"));
        let last = segments(&data_dir.join("log")).pop().expect("a segment");
        let mut bytes = fs::read(&last).expect("readable");
        let (at, salt) = last_frame(&bytes);
        bytes[at + offset] = value;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&salt), &bytes[at + 8..at + 48]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        fs::write(&last, &bytes).expect("written");
        for verb in ["status", "doctor"] {
            let output = run_on(&data_dir, &[verb]);
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(!output.status.success(), "{said}");
            let expected =
                format!("record 36 {words}, which this release does not know: a newer release wrote it; upgrade Cairn");
            assert!(said.contains(&expected) && said.contains(&*last.to_string_lossy()), "{verb}: {said}");
            assert!(!said.contains("damage"), "{verb}: {said}");
        }
        assert_eq!(fs::read(&last).expect("readable"), bytes, "it was left alone");
    }
}
