//! Room on the disk: what is deleted is cleared out, a limit is kept to, and what makes room always goes on.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, list, stdout};

fn text(seed: &str) -> String {
    // Words that compression does not fold, in sentences that become passages.
    let words: Vec<String> = (0..400_u32)
        .map(|word| {
            let hash = seed
                .bytes()
                .fold(word.wrapping_mul(2_654_435_761), |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
            format!("w{hash:08x}{}", if word % 12 == 11 { "." } else { "" })
        })
        .collect();
    words.join(" ")
}

fn documents(round: usize, count: usize) -> Value {
    (0..count).map(|id| json!({"id": format!("d{id}"), "text": text(&format!("{round} {id}"))})).collect()
}

/// A document has the given text: what one fetch gives of it, word by word.
fn assert_holds(node: &TestNode, id: &str, text: &str) {
    let fetched = node.call("fetch", json!({"id": id}));
    let words: Vec<&str> = fetched["text"].as_str().expect("a text").split_whitespace().collect();
    assert!(words.len() > 100, "{id} has only {} words", words.len());
    assert!(text.split_whitespace().take(words.len()).eq(words), "{id} has another text");
}

fn log_bytes(node: &TestNode) -> u64 {
    node.call("get_status", json!({}))["log_bytes"].as_u64().expect("a number")
}

fn disk_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable"));
    entries.map(|entry| entry.metadata().expect("readable").len()).sum()
}

fn compact(node: &TestNode) -> u64 {
    let answer = node.request("POST", &format!("{}/v1/compact", node.base()), &[], Some(b""));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["log_bytes"].as_u64().expect("a number")
}

/// Segments of 1 MiB, and no limit on the rate of compaction.
const SMALL: [(&str, &str); 2] = [("CAIRN_STORE_SEGMENT_BYTES", "1MiB"), ("CAIRN_STORE_COMPACTION_RATE", "0")];

#[test]
fn ten_times_the_same_data_takes_little_more_than_once() {
    const DOCUMENTS: usize = 500;
    let once = TestNode::with(&SMALL);
    once.add("notes", documents(0, DOCUMENTS));
    let alive = log_bytes(&once);
    drop(once);

    let mut node = TestNode::with(&SMALL);
    for round in 0..10 {
        node.add("notes", documents(round, DOCUMENTS));
    }
    compact(&node);
    let check = |node: &TestNode| {
        let after = disk_bytes(&node.data_dir().join("log"));
        // The segment that is being written is not touched, and has space reserved.
        let most = alive + alive / 2 + 2 * (1 << 20);
        assert!(after <= most, "{after} bytes on the disk for {alive} that are alive");
        let status = node.call("get_status", json!({}));
        assert_eq!((status["documents"].clone(), list(&status["damage"]).len()), (json!(DOCUMENTS), 0));
        for id in [0, 7, DOCUMENTS - 1] {
            assert_holds(node, &format!("notes/d{id}"), &text(&format!("9 {id}")));
        }
        let word = text("9 250").split(' ').next().expect("a word").to_owned();
        assert_eq!(node.found("notes", &word, "lexical"), ["d250"]);
        let old = text("3 250").split(' ').next().expect("a word").to_owned();
        assert_eq!(node.found("notes", &old, "lexical"), Vec::<String>::new());
    };
    check(&node);
    // The views are made anew from what is left.
    node.stop();
    fs::remove_dir_all(node.data_dir().join("views")).expect("removed");
    node.restart();
    node.catch_up();
    node.call("delete_collection", json!({"name": "catch-up", "confirm": "catch-up"}));
    check(&node);
}

#[test]
fn compaction_survives_being_killed() {
    let mut node = TestNode::with(&SMALL);
    for round in 0..6 {
        node.add("notes", documents(round, 200));
        // Mostly in the middle of a compaction: it begins after each write in the background.
        if round % 2 == 1 {
            node.kill();
            node.restart();
        }
    }
    compact(&node);
    let status = node.call("get_status", json!({}));
    assert_eq!((status["documents"].clone(), list(&status["damage"]).len()), (json!(200), 0));
    for id in 0..200 {
        assert_holds(&node, &format!("notes/d{id}"), &text(&format!("5 {id}")));
    }
}

#[test]
fn at_the_quota_writes_are_refused_deletes_go_on_and_writing_resumes() {
    let node = TestNode::with(&[SMALL[0], SMALL[1], ("CAIRN_STORE_MAX_BYTES", "3MiB")]);
    let mut batch = 0;
    let refusal = loop {
        let inputs: Value =
            (0..20).map(|id| json!({"id": format!("{batch}-{id}"), "text": text(&format!("{batch} {id}"))})).collect();
        match node.try_call("add_documents", json!({"collection": "notes", "documents": inputs})) {
            Ok(_) => batch += 1,
            Err(words) => break words,
        }
        assert!(batch < 100, "the quota was never reached");
    };
    assert!(refusal.contains("store.max_bytes"), "{refusal}");
    assert!(batch > 5, "{batch} batches fitted into 3 MiB");
    let status = node.call("get_status", json!({}));
    assert_eq!(status["writes"], "quota_reached", "{status}");
    assert_eq!(node.get(&format!("{}/ready", node.admin)).status, 503);
    // Reads go on.
    assert_holds(&node, "notes/0-0", &text("0 0"));

    let ids: Vec<String> =
        (0..batch - 2).flat_map(|batch| (0..20).map(move |id| format!("notes/{batch}-{id}"))).collect();
    for ids in ids.chunks(100) {
        node.call("delete_documents", json!({"ids": ids}));
    }
    compact(&node);
    node.add("notes", json!([{"id": "new", "text": "there is room again"}]));
    assert_eq!(node.call("get_status", json!({}))["writes"], "writable");
    assert_eq!(node.get(&format!("{}/ready", node.admin)).status, 200);
}

/// Whether a file of the log holds `text`.
fn log_holds(node: &TestNode, text: &str) -> bool {
    let files =
        fs::read_dir(node.data_dir().join("log")).expect("readable").map(|entry| entry.expect("readable").path());
    // One that was just replaced is gone.
    let mut contents = files.filter_map(|path| fs::read(path).ok());
    contents.any(|bytes| bytes.windows(text.len()).any(|at| at == text.as_bytes()))
}

#[test]
fn what_was_deleted_leaves_the_log_in_time_however_little_it_is() {
    const SECRET: &str = "the combination is 4711";
    let erase = |within: &'static str| [SMALL[0], SMALL[1], ("CAIRN_STORE_ERASE_WITHIN", within)];
    let fill = |node: &TestNode| {
        // In one write, so that the secret lies in one segment with much that is alive.
        let mut all = documents(0, 200);
        all.as_array_mut().expect("a list").push(json!({"id": "safe", "text": SECRET}));
        node.add("notes", all);
        node.call("delete_documents", json!({"ids": ["notes/safe"]}));
    };
    // An hour is not over yet, and without the setting it waits until it is worth the work.
    for within in ["1h", "0s"] {
        let node = TestNode::with(&erase(within));
        fill(&node);
        compact(&node);
        assert!(log_holds(&node, SECRET), "{within}");
    }
    let mut node = TestNode::with(&erase("1s"));
    fill(&node);
    // Each call waits for a round of the compactor, and between two there is a second.
    let rounds = (1..30).find(|_| {
        compact(&node);
        !log_holds(&node, SECRET)
    });
    assert!(rounds.is_some(), "it is there after thirty rounds");
    node.stop();
    node.restart();
    node.catch_up();
    node.call("delete_collection", json!({"name": "catch-up", "confirm": "catch-up"}));
    assert_eq!(node.call("get_status", json!({}))["documents"], 200);
    assert!(!log_holds(&node, SECRET));
}

/// The place where snapshots go got nothing so far: what was not shipped may not be dropped, also not at a start.
#[test]
fn what_was_not_shipped_is_held_and_what_is_late_for_it_is_shown() {
    let place = tempfile::tempdir().expect("temporary directory");
    let target = place.path().join("backup");
    let mut node = TestNode::with(&[
        ("CAIRN_SNAPSHOT_TARGET", target.to_str().expect("UTF-8")),
        ("CAIRN_SNAPSHOT_INTERVAL", "1h"),
        ("CAIRN_STORE_ERASE_WITHIN", "1s"),
    ]);
    let secret = "The combination is 4711.";
    node.add("notes", json!([{"id": "a", "text": secret}, {"id": "b", "text": "The valve is red."}]));
    node.call("delete_documents", json!({"ids": ["notes/a"]}));
    let status = loop {
        let status = node.call("get_status", json!({}));
        if status["erasure_overdue_seconds"].is_u64() {
            break status;
        }
    };
    assert_eq!(status["log_held_by"], json!({"name": "snapshots", "after_lsn": 0}), "{status}");
    let shown = stdout(&node.cairn(&["status"]));
    assert_says(&shown, &["erasure     overdue for ", "snapshots has not passed record 0 of the log"]);
    let metrics = node.get(&format!("{}/metrics", node.admin)).text;
    let overdue = metrics.lines().find_map(|line| line.strip_prefix("cairn_erasure_overdue_seconds "));
    assert!(overdue.is_some_and(|value| value.parse::<f64>().is_ok_and(|seconds| seconds >= 1.0)), "{metrics}");
    for _ in 0..2 {
        compact(&node);
        let log = fs::read_dir(node.data_dir().join("log")).expect("readable");
        let mut files = log.map(|entry| fs::read(entry.expect("readable").path()).expect("readable"));
        let is_held = files.any(|bytes| bytes.windows(secret.len()).any(|at| at == secret.as_bytes()));
        assert!(is_held, "it was dropped before it was shipped");
        node.stop();
        node.restart();
    }
}
