//! What was acknowledged is there after every kind of end, and every view can be lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::node::{TestNode, agent, list, modern_request, send, texts};

/// Documents in one write.
const BATCH: usize = 5;
/// Clients that write at the same time.
const WRITERS: usize = 3;

/// What document `number` of write `write` says. Its length varies, so that batches end anywhere in a disk block.
fn text(write: &str, number: usize) -> String {
    let seed = write.bytes().fold(number as u32 + 1, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let words = 5 + (seed.wrapping_mul(2_654_435_761) >> 24) as usize;
    let body: Vec<String> = (0..words).map(|word| format!("{write}n{number}w{word}")).collect();
    format!("{} end", body.join(" "))
}

/// Writes batches until the node is gone; tells of each that was acknowledged.
fn write_until_killed(url: &str, round: usize, writer: usize, acknowledged: &mpsc::Sender<String>) {
    let agent = agent();
    for batch in 0.. {
        let write = format!("r{round:03}c{writer}b{batch:03}");
        let documents: Vec<Value> =
            (0..BATCH).map(|number| json!({"id": format!("{write}/{number}"), "text": text(&write, number)})).collect();
        let arguments = json!({"collection": "notes", "documents": documents});
        let (headers, body) = modern_request("tools/call", json!({"name": "add_documents", "arguments": arguments}));
        let mut request = agent.post(url).header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.content_type("application/json").send(body.to_string());
        // A node that dies in the middle breaks the connection, or the answer.
        let Ok(answer) = answer.and_then(|mut answer| answer.body_mut().read_to_string()) else { return };
        let answer: Value = serde_json::from_str(&answer).expect("a whole answer is JSON");
        assert_eq!(answer["result"]["structuredContent"]["created"], BATCH, "{answer}");
        if acknowledged.send(write).is_err() {
            return;
        }
    }
}

#[test]
fn a_hundred_kills_lose_nothing_acknowledged_and_leave_nothing_half() {
    const ROUNDS: usize = 100;
    // Small segments, so that kills hit their ends too.
    let mut node = TestNode::with(&[("CAIRN_STORE_SEGMENT_BYTES", "1MiB")]);
    let mut written = 0;
    for round in 0..ROUNDS {
        let (sender, receiver) = mpsc::channel();
        let mut acknowledged: Vec<String> = Vec::new();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (sender, url) = (sender.clone(), node.mcp.clone());
                scope.spawn(move || write_until_killed(&url, round, writer, &sender));
            }
            drop(sender);
            // The kill hits at another moment of the writers' work in each round.
            let enough = 1 + round % 12;
            acknowledged.extend(receiver.iter().take(enough));
            node.kill();
            acknowledged.extend(receiver.iter());
        });
        node.restart();
        written += acknowledged.len();
        check_round(&node, round, &acknowledged);
    }
    assert!(written >= ROUNDS, "each round waits for one write at least");
    let documents = node.call("get_status", json!({}))["documents"].as_u64().expect("a number");
    assert!(documents >= (written * BATCH) as u64, "{documents} documents, {written} writes of {BATCH}");
    assert_eq!(list(&node.call("get_status", json!({}))["damage"]).len(), 0);
}

/// Every acknowledged write of a round is there, and every write that is there is whole.
fn check_round(node: &TestNode, round: usize, acknowledged: &[String]) {
    let arguments =
        json!({"collection": "notes", "prefix": format!("r{round:03}"), "limit": 1000, "max_tokens": 200_000});
    let listed = node.call("list_documents", arguments);
    let mut present: BTreeMap<String, usize> = BTreeMap::new();
    let agent = agent();
    let url = format!("{}/v1/tools/fetch", node.base());
    for id in texts(&listed["documents"], "id") {
        let (write, number) = id.strip_prefix("notes/").and_then(|id| id.split_once('/')).expect("an id of ours");
        let body = json!({ "id": id }).to_string();
        let document =
            send(&agent, "POST", &url, &[("content-type", "application/json")], Some(body.as_bytes())).json();
        // Long paragraphs come back in the passages they were split into; the words are what was written.
        let found: Vec<&str> = document["text"].as_str().expect("text").split_whitespace().collect();
        let whole = text(write, number.parse().expect("a number"));
        assert_eq!(found, whole.split_whitespace().collect::<Vec<_>>(), "{id}");
        *present.entry(write.to_owned()).or_default() += 1;
    }
    for write in acknowledged {
        assert_eq!(present.get(write), Some(&BATCH), "{write} was acknowledged in round {round}");
    }
    for (write, documents) in present {
        assert_eq!(documents, BATCH, "{write} is half there in round {round}");
    }
}

/// Documents of two collections. In `coast` some are deleted and one is rewritten, so that a rebuild has something to get
/// wrong.
fn library(node: &TestNode) {
    let about = ["tides", "harbours", "lighthouses", "currents", "anchors", "sails", "charts", "storms"];
    for collection in ["sea", "coast"] {
        let documents: Vec<Value> = (0..120)
            .map(|n| {
                let topic = about[n % about.len()];
                json!({"id": format!("{topic}-{n}"), "title": format!("About {topic}"),
                    "text": format!("# {topic}\n\nReport {n} from the {collection} tells of {topic} near buoy {}.", n * 37 % 101),
                    "metadata": {"topic": topic, "number": n}})
            })
            .collect();
        node.add(collection, json!(documents));
    }
    node.call("delete_documents", json!({"collection": "coast", "filter": {"topic": "storms"}}));
    node.add("coast", json!([{"id": "tides-0", "text": "Rewritten: spring tides reach the old quay."}]));
}

/// What a node answers; equal before and after the loss of a view.
///
/// Only `sea` is asked for ranks and scores: BM25 counts a deleted document until its index segment is written anew, so
/// that a rebuilt index of `coast` weighs words a little differently, and rightly so.
fn answers(node: &TestNode) -> Vec<Value> {
    let mut answers = Vec::new();
    for mode in ["hybrid", "dense", "lexical"] {
        for arguments in [
            json!({"query": "lighthouses near buoy 37", "mode": mode, "collections": ["sea"], "include": ["scores"]}),
            json!({"query": "storms", "mode": mode, "collections": ["sea"], "include": ["scores"], "limit": 20}),
            json!({"query": "report", "mode": mode, "collections": ["sea"], "include": ["scores"], "filter": {"topic": "sails", "number": {"lt": 40}}}),
        ] {
            answers.push(node.call("search", arguments)["results"].take());
        }
        answers.push(json!(node.found("coast", "spring tides at the old quay", mode).first()));
        let gone = json!({"query": "storms", "mode": mode, "collections": ["coast"], "filter": {"topic": "storms"}});
        answers.push(node.call("search", gone)["results"].take());
    }
    answers.push(node.call("find_similar", json!({"id": "sea/anchors-4"}))["results"].take());
    for collection in ["sea", "coast"] {
        answers
            .push(node.call("list_documents", json!({"collection": collection, "limit": 1000, "max_tokens": 200_000})));
        answers.push(node.call("describe_collection", json!({ "collection": collection }))["documents"].take());
    }
    answers
}

/// Asserts that a node answers as before, and shows the first answer that differs.
#[track_caller]
fn assert_answers(node: &TestNode, before: &[Value], after_what: &str) {
    node.catch_up();
    for (number, (now, before)) in answers(node).iter().zip(before).enumerate() {
        assert_eq!(now, before, "answer {number} {after_what}");
    }
}

/// Everything below a directory that is not a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
}

#[test]
fn every_view_can_be_deleted_and_comes_back_from_the_log() {
    let mut node = TestNode::start();
    library(&node);
    let before = answers(&node);
    let views = node.data_dir().join("views");
    node.stop();
    let mut lost: Vec<PathBuf> =
        fs::read_dir(&views).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    assert!(lost.len() >= 3, "catalog, vectors, words: {lost:?}");
    lost.sort();
    lost.push(views);
    for view in lost {
        remove(&view);
        node.restart();
        assert_answers(&node, &before, &format!("after the loss of {}", view.display()));
        node.stop();
    }
}

#[test]
fn a_damaged_view_is_noticed_and_rebuilt() {
    let mut node = TestNode::start();
    library(&node);
    let before = answers(&node);
    let views = node.data_dir().join("views");
    node.stop();
    let names = files(&views);
    assert!(names.len() >= 4, "{names:?}");
    // How often damage in each kind of view was seen: equal answers alone could come of bytes that nobody reads.
    let mut noticed: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for name in names {
        // An earlier rebuild may have replaced it under another name.
        let Ok(mut bytes) = fs::read(&name) else { continue };
        if bytes.is_empty() {
            continue;
        }
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&name, &bytes).expect("written");
        let said_before = node.log().len();
        node.restart();
        assert_answers(&node, &before, &format!("after a flipped bit in {}", name.display()));
        node.stop();
        let said = node.log().split_off(said_before);
        let is_noticed =
            !said.contains("Trusted") || ["will be rebuilt", "catching up"].iter().any(|words| said.contains(words));
        let kind = name.strip_prefix(&views).expect("below it").iter().next().expect("a name");
        *noticed.entry(kind.into()).or_default() += usize::from(is_noticed);
    }
    // The rest only says when the others were believed last.
    let is_noticed = |kind: &str| noticed.get(Path::new(kind)).is_some_and(|times| *times > 0);
    assert!(["catalog", "lexical", "vectors"].into_iter().all(is_noticed), "{noticed:?}");
}

#[test]
fn a_killed_node_answers_as_before() {
    let mut node = TestNode::start();
    library(&node);
    let before = answers(&node);
    for round in 0..3 {
        node.kill();
        node.restart();
        assert_answers(&node, &before, &format!("in round {round}"));
    }
}

/// The last segment, and where its frames end: what follows are zeros, reserved for more. All of the log is in one
/// segment here.
fn end_of_log(node: &TestNode) -> (PathBuf, usize) {
    let segments = files(&node.data_dir().join("log"));
    assert_eq!(segments.len(), 1, "{segments:?}");
    let end = node.call("get_status", json!({}))["log_bytes"].as_u64().expect("a number") as usize;
    (segments[0].clone(), end)
}

#[test]
fn a_torn_end_of_the_log_is_cut_and_nothing_else() {
    let mut node = TestNode::start();
    library(&node);
    let before = answers(&node);
    for round in 0..3 {
        let (segment, end) = end_of_log(&node);
        node.kill();
        let mut bytes = fs::read(&segment).expect("readable");
        let tail = match round {
            0 => vec![1],
            1 => b"half a frame that was never acknowledged".to_vec(),
            // Something that was a frame elsewhere.
            _ => bytes[128..328].to_vec(),
        };
        bytes.splice(end..end + tail.len(), tail);
        fs::write(&segment, &bytes).expect("written");
        node.restart();
        assert_answers(&node, &before, &format!("after torn tail {round}"));
        assert_eq!(node.call("get_status", json!({}))["damage"], json!([]));
    }
}

#[test]
fn damage_inside_the_log_is_reported_and_the_rest_is_served() {
    let mut node = TestNode::start();
    library(&node);
    let (segment, end) = end_of_log(&node);
    node.stop();
    let mut bytes = fs::read(&segment).expect("readable");
    bytes[end / 2] ^= 0x01;
    fs::write(&segment, &bytes).expect("written");
    remove(&node.data_dir().join("views"));
    node.restart();
    let status = node.call("get_status", json!({}));
    let damage = list(&status["damage"]);
    assert_eq!(damage.len(), 1, "{status}");
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(damage[0].as_str().is_some_and(|words| words.contains(&name)), "{damage:?}");
    node.catch_up();
    assert!(!list(&node.call("search", json!({"query": "tides"}))["results"]).is_empty());
}

#[test]
fn concurrent_writers_and_readers_agree() {
    const PER_WRITER: usize = 40;
    let node = TestNode::start();
    node.add("notes", json!([{"id": "first", "text": "common ground"}]));
    let running = AtomicUsize::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (node, running) = (&node, &running);
            scope.spawn(move || {
                for n in 0..PER_WRITER {
                    let id = format!("w{writer}-{n}");
                    node.add("notes", json!([{"id": id, "text": format!("common word and {writer}x{n}y")}]));
                    assert_eq!(node.found("notes", &format!("{writer}x{n}y"), "lexical"), [id]);
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let (node, running) = (&node, &running);
        scope.spawn(move || {
            let mut before = 0;
            while running.load(Ordering::Relaxed) > 0 {
                let answer = node.call(
                    "search",
                    json!({"query": "common", "limit": 50, "mode": "lexical", "include": ["searched"]}),
                );
                let seen = answer["searched"]["generation"].as_u64().expect("a number");
                assert!(seen >= before, "a later search sees no less");
                before = seen;
            }
        });
    });
    assert_eq!(node.call("get_status", json!({}))["documents"], 1 + WRITERS * PER_WRITER);
}
