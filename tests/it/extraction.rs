//! Documents are read in processes of their own: what those may do, and what happens when one is not enough for its document.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::node::{Answer, TestNode, assert_says, documents, modern_request};
use crate::tls::wait_until;

/// Children of a process that read documents.
fn parsers(parent: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").expect("mounted").filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let is_parser = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).nth(1) == Some(b"parse-helper") && parent_of(*pid) == Some(parent)
    };
    numbers.filter(is_parser).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    status_of(pid, "PPid:")?.parse().ok()
}

fn status_of(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

fn is_there(pid: u32) -> bool {
    status_of(pid, "State:").is_some_and(|state| !state.starts_with('Z'))
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, signal).expect("it is there");
}

/// Hands a file over; the answer says what became of it.
fn sync(node: &TestNode, name: &str, bytes: &[u8]) -> Answer {
    let url = format!("{}/v1/collections/files/sources/{name}", node.base());
    node.request("POST", &url, &[], Some(bytes))
}

/// That a file is taken, and found.
fn goes_on(node: &TestNode, name: &str) {
    let answer = sync(node, name, format!("# {name}\n\nThe heron of {name} stands in the reeds.").as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text);
    let flushed = node.request("POST", &format!("{}/v1/flush", node.base()), &[], Some(b""));
    assert_eq!(flushed.status, 200, "{}", flushed.text);
    let found = node.call("search", json!({"query": format!("heron {name}"), "limit": 50}));
    assert!(documents(&found).iter().any(|id| id.ends_with(name)), "{found}");
}

/// Text that takes several seconds to read on any machine.
fn long_text() -> Vec<u8> {
    let mut text = String::with_capacity(61 << 20);
    while text.len() < 60 << 20 {
        text.push_str("## A *heading* with [a link](x) in it\n\nWords, `code`, and **more** words; then a list:\n\n- one\n- two\n\n");
    }
    text.into_bytes()
}

/// A table of very many small rows: each is a document, which takes a hundred times its bytes.
fn many_rows(rows: usize) -> Vec<u8> {
    format!("text\n{}", "abc\n".repeat(rows)).into_bytes()
}

#[test]
fn a_parser_can_do_nothing_but_compute() {
    let node = TestNode::with(&[("CAIRN_SERVER_TOKEN_FILE", "/dev/null/none"), ("SECRET", "in the environment")]);
    goes_on(&node, "one.md");
    let pids = parsers(node.pid());
    assert!(!pids.is_empty());
    for pid in pids {
        for (name, value) in [("Seccomp:", "2"), ("NoNewPrivs:", "1"), ("Threads:", "1")] {
            assert_eq!(status_of(pid, name).as_deref(), Some(value), "{name}");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("there");
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).expect("a limit");
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(limit("Max core file size"), ["0", "0"]);
        assert_eq!(limit("Max file size"), ["0", "0"]);
        assert_eq!(limit("Max open files"), ["1", "1"]);
        assert_ne!(limit("Max data size"), ["unlimited", "unlimited"]);
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("there").trim(), "1000");
        // The rest only its owner or root may see.
        if rustix::process::geteuid().is_root() {
            let environment = fs::read(format!("/proc/{pid}/environ")).expect("readable by root");
            let environment = String::from_utf8_lossy(&environment).into_owned();
            assert!(!environment.contains("SECRET") && !environment.contains("CAIRN"), "{environment}");
            let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("readable by root")
                .map(|entry| fs::read_link(entry.expect("there").path()).expect("a link"))
                .collect();
            assert_eq!(open.len(), 1, "{open:?}");
            assert!(open[0].to_string_lossy().starts_with("socket:"), "{open:?}");
            assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).map(|memory| owner(&memory)).ok(), Some(0));
        }
    }
}

fn owner(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(metadata)
}

#[test]
fn a_document_that_takes_too_much_memory_is_refused_and_nothing_else() {
    let node = TestNode::with(&[("CAIRN_INGEST_PARSE_MEMORY_BYTES_MAX", "64MiB")]);
    goes_on(&node, "before.md");
    let answer = sync(&node, "rows.csv", &many_rows(300_000));
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_says(&answer.text, &["64 MiB", "memory", "ingest.parse_memory_bytes_max"]);
    goes_on(&node, "after.md");
    assert_eq!(sync(&node, "few.csv", &many_rows(3_000)).status, 200);
    assert_eq!(node.metric("cairn_documents_refused_total{reason=\"memory\"}"), 1);
}

#[test]
fn a_document_that_takes_too_long_is_refused_and_others_go_on_meanwhile() {
    let node = TestNode::with(&[("CAIRN_INGEST_PARSE_TIME_MAX", "1s")]);
    let long = long_text();
    std::thread::scope(|scope| {
        // More than there are places for.
        let refused: Vec<_> = (0..4)
            .map(|number| {
                let (node, long) = (&node, &long);
                scope.spawn(move || sync(node, &format!("long{number}.md"), long))
            })
            .collect();
        goes_on(&node, "meanwhile.md");
        for answer in refused {
            let answer = answer.join().expect("no panic");
            assert_eq!(answer.status, 400, "{}", answer.text);
            assert_says(&answer.text, &["more than 1 s", "processor time", "ingest.parse_time_max"]);
        }
    });
    goes_on(&node, "after.md");
}

#[test]
fn a_parser_that_crashes_costs_its_document_alone() {
    let node = TestNode::start();
    goes_on(&node, "before.md");
    let long = long_text();
    for (kind, said) in [(Signal::ABORT, "signal 6"), (Signal::KILL, "no memory left")] {
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| sync(&node, "long.md", &long));
            let mut working = Vec::new();
            wait_until("a parser that computes", || {
                working = parsers(node.pid()).into_iter().filter(|pid| has_computed(*pid, 20)).collect();
                !working.is_empty()
            });
            working.iter().for_each(|pid| signal(*pid, kind));
            let answer = answer.join().expect("no panic");
            assert_eq!(answer.status, 400, "{}", answer.text);
            assert_says(&answer.text, &["crashed the parser", said, "nothing else was affected"]);
        });
        goes_on(&node, "after.md");
    }
    // One that dies while it waits is not the next document's fault.
    for pid in parsers(node.pid()) {
        signal(pid, Signal::KILL);
        wait_until("its end", || !is_there(pid));
    }
    goes_on(&node, "later.md");
}

/// Whether a process has had the processor for so many ticks, of which there are a hundred a second.
fn has_computed(pid: u32, ticks: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let user = behind.split_whitespace().nth(11).and_then(|ticks| ticks.parse::<u64>().ok());
    user.is_some_and(|user| user >= ticks)
}

#[test]
fn nobody_reads_for_a_client_that_left() {
    let node = TestNode::start();
    let address = node.base().strip_prefix("http://").expect("plain").to_owned();
    let long = long_text();
    let arguments = json!({
        "collection": "files",
        "documents": [{"id": "long.md", "text": String::from_utf8_lossy(&long), "media_type": "text/markdown"}],
    });
    let (headers, call) = modern_request("tools/call", json!({"name": "add_documents", "arguments": arguments}));
    let kinds = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
    let headers = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .fold(kinds.to_owned(), |all, next| all + &next);
    let ways = [
        ("/v1/collections/files/sources/long.md", String::new(), long),
        (
            "/v1/tools/add_documents",
            "Content-Type: application/json\r\n".to_owned(),
            arguments.to_string().into_bytes(),
        ),
        ("/mcp", headers, call.to_string().into_bytes()),
    ];
    for (path, headers, body) in ways {
        let mut client = TcpStream::connect(&address).expect("answers");
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).expect("taken");
        client.write_all(&body).expect("taken");
        let mut working = Vec::new();
        wait_until("a parser that computes", || {
            working = parsers(node.pid()).into_iter().filter(|pid| has_computed(*pid, 20)).collect();
            !working.is_empty()
        });
        drop(client);
        for pid in working {
            wait_until(&format!("the end of the parser of {path}"), || !is_there(pid));
        }
        goes_on(&node, "after.md");
    }
    let listed = node.call("list_documents", json!({"collection": "files"}));
    assert!(!listed.to_string().contains("long.md"), "{listed}");
}

#[test]
fn parsers_end_with_their_node_however_it_ends() {
    let mut node = TestNode::start();
    goes_on(&node, "one.md");
    let pids = parsers(node.pid());
    assert!(!pids.is_empty());
    node.kill();
    for pid in pids {
        wait_until("the end of a parser", || !is_there(pid));
    }
}
