//! What a node may take, and how its caches keep to it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use crate::node::{TestNode, assert_says, stderr, stdout};

/// The settings of the smallest node size, see `cairn k3s manifests --node-size pi`.
const BOARD: [(&str, &str); 4] = [
    ("CAIRN_MEMORY_MAX_BYTES", "320MiB"),
    ("CAIRN_SERVER_REQUEST_BYTES_MAX", "16MiB"),
    ("CAIRN_SERVER_IN_FLIGHT_MAX", "16"),
    ("CAIRN_SEARCH_CACHE_BYTES", "4MiB"),
];

#[test]
fn caches_share_what_the_node_may_take() {
    // 90 MiB are the node's own; half of the other 38 is for caches, which want 168.
    let node = TestNode::with(&[("CAIRN_MEMORY_MAX_BYTES", "128MiB")]);
    assert_eq!(node.metric("cairn_memory_max_bytes"), 128 << 20);
    let caches = node.metric("cairn_memory_cache_bytes");
    assert!((19 << 20..=20 << 20).contains(&caches), "{caches}");
    let roomy = TestNode::with(&[("CAIRN_MEMORY_MAX_BYTES", "2GiB")]);
    assert_eq!(roomy.metric("cairn_memory_cache_bytes"), 168 << 20);
}

/// A huge page has 2 MiB on most systems and 32 MiB where pages have 16 KiB, of which a small node would use a few.
#[test]
fn a_node_gets_no_huge_pages_unasked() {
    let node = TestNode::start();
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    assert_says(&status, &["THP_enabled:\t0\n"]);
}

/// Bytes that a process has for itself.
fn own_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    ["RssAnon:", "RssShmem:"].into_iter().filter_map(field).sum::<u64>() << 10
}

/// The same for a process and those that it started. One that has not become another program yet has no pages of its own,
/// whatever the system says of it: they are its parent's.
fn family_bytes(pid: u32) -> u64 {
    let command = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let own_command = command(pid);
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: u64 = children
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .filter(|child| command(*child) != own_command)
        .map(own_bytes)
        .sum();
    own_bytes(pid) + children
}

/// Files of records, one passage each, as many as a small board is for.
fn write_records(folder: &Path, files: u64, records: u64) {
    // Words that are not all alike, from a generator whose numbers are known.
    let mut state = 7_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = state >> 44;
        ["ba", "ce", "di", "fo", "gu", "ha", "ke", "li"][(number & 7) as usize].to_owned() + &(number >> 3).to_string()
    };
    for part in 0..files {
        let mut file =
            std::io::BufWriter::new(fs::File::create(folder.join(format!("part-{part}.jsonl"))).expect("a file"));
        for record in 0..records {
            let text = (0..8).map(|_| word()).collect::<Vec<_>>().join(" ");
            let line = json!({"id": format!("{part}-{record}"), "title": format!("Record {record}"), "text": text});
            writeln!(file, "{line}").expect("written");
        }
    }
}

#[test]
fn a_small_board_takes_what_it_is_for_within_its_memory() {
    const LIMIT: u64 = 320 << 20;
    const FILES: u64 = 5;
    const RECORDS: u64 = 20_000;
    let node = TestNode::with(&BOARD);
    let folder = node.scratch().join("records");
    fs::create_dir(&folder).expect("a folder");
    write_records(&folder, FILES, RECORDS);
    let (is_done, highest, searches) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                highest.fetch_max(family_bytes(node.pid()), Ordering::SeqCst);
                // The collection is made by the first file.
                if node.try_call("search", json!({"query": "record ba7 ce9", "collections": ["board"]})).is_ok() {
                    searches.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let added = node.cairn(&["add", folder.to_str().expect("UTF-8"), "-c", "board"]);
        let snapshot = node.cairn(&["snapshot", "create"]);
        let proof = node.cairn(&["snapshot", "verify"]);
        is_done.store(true, Ordering::SeqCst);
        for output in [&added, &snapshot, &proof] {
            assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
        }
    });
    let status = node.call("list_collections", json!({}));
    assert_eq!(status["collections"][0]["passages"], json!(FILES * RECORDS), "{status}");
    let highest = highest.into_inner();
    assert!(highest < LIMIT, "{} MiB of {} were taken", highest >> 20, LIMIT >> 20);
    assert!(searches.into_inner() >= 10, "searches went on");
}

#[test]
fn what_would_never_fit_is_refused_before_anything_is_done() {
    let node = TestNode::with(&[("CAIRN_MEMORY_MAX_BYTES", "64MiB")]);
    let file = node.scratch().join("large.txt");
    fs::write(&file, "All of it is in one line of many words. ".repeat(200_000)).expect("written");
    let refused = node.cairn(&["add", file.to_str().expect("UTF-8"), "-c", "notes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_says(
        &format!("{}{}", stdout(&refused), stderr(&refused)),
        &["of memory", "memory.max_bytes", "smaller parts"],
    );
    node.add("notes", json!([{"id": "pump", "text": "the pump in the cellar hums"}]));
    assert_eq!(node.found("notes", "cellar pump", "hybrid"), ["pump"]);
}

#[test]
fn a_node_without_room_for_caches_answers_all_the_same() {
    let node = TestNode::with(&[("CAIRN_MEMORY_MAX_BYTES", "1MiB")]);
    assert_eq!(node.metric("cairn_memory_cache_bytes"), 0);
    node.add("notes", json!([{"id": "pump", "text": "the pump in the cellar hums"}]));
    for _ in 0..2 {
        assert_eq!(node.found("notes", "cellar pump", "hybrid"), ["pump"]);
    }
    assert_eq!(node.metric("cairn_word_cache_bytes"), 0);
    assert!(node.log().contains("memory.max_bytes"), "{}", node.log());
}
