//! Clients that say too little, too slowly or nothing at all: what they get, and that they keep nobody out.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::node::{Answer, LEGACY, TestNode, assert_says, hits};
use crate::tls::{OPEN, wait_until};

/// A connection on which requests are written by hand.
struct Connection {
    stream: BufReader<TcpStream>,
}

/// What came back: status, head and body.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

impl Connection {
    fn to(node: &TestNode) -> Self {
        let address = node.base().split_once("://").expect("an address").1;
        Self { stream: BufReader::new(TcpStream::connect(address).expect("connects")) }
    }

    fn send(&mut self, text: &str) {
        // A node that has closed the connection says so when it is read.
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    /// The next answer; `None` when the node has closed the connection.
    fn receive(&mut self) -> Option<Reply> {
        let (mut head, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line.to_lowercase());
        }
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().expect("a number")];
        self.stream.read_exact(&mut body).expect("the whole body");
        Some(Reply { status, head, body: String::from_utf8(body).expect("UTF-8") })
    }

    fn ask(&mut self, request: &str) -> Reply {
        self.send(request);
        self.receive().expect("an answer")
    }

    /// Calls a tool over REST, on a connection that goes on.
    fn call(&mut self, tool: &str, arguments: &Value) -> Reply {
        self.ask(&rest(tool, &arguments.to_string()))
    }
}

fn rest(tool: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/tools/{tool} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// A search in the form that is answered by itself, announced with `length` bytes.
fn plain_head(length: usize) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         MCP-Protocol-Version: {LEGACY}\r\nContent-Length: {length}\r\n\r\n"
    )
}

fn other_head(length: usize) -> String {
    rest("get_status", &"x".repeat(length)).trim_end_matches('x').to_owned()
}

fn get(node: &TestNode) -> Answer {
    node.get(&format!("{}/", node.base()))
}

#[test]
fn a_stranger_is_refused_before_its_body_comes() {
    let node = TestNode::with_arguments(&OPEN, &[("CAIRN_SERVER_TLS", "off")]);
    for head in [plain_head(100), other_head(100), other_head(50 << 20)] {
        let mut connection = Connection::to(&node);
        let refused = connection.ask(&format!("{head}{{"));
        assert_eq!(refused.status, 401, "{head}");
        assert_says(&refused.head, &["connection: close"]);
    }
}

#[test]
fn a_body_that_does_not_come_ends_and_holds_no_place_in_flight() {
    let node = TestNode::with(&[("CAIRN_SERVER_IN_FLIGHT_MAX", "1"), ("CAIRN_SERVER_BODY_TIMEOUT", "2s")]);
    let mut halves: Vec<Connection> = [plain_head(100), other_head(100)]
        .into_iter()
        .map(|head| {
            let mut connection = Connection::to(&node);
            connection.send(&format!("{head}{{"));
            connection
        })
        .collect();
    assert_eq!(node.call("get_status", json!({}))["documents"], 0, "the one place is free");
    for half in &mut halves {
        let ended = half.receive().expect("an answer");
        assert_eq!(ended.status, 408, "{}", ended.body);
        assert_says(&ended.body, &["server.body_timeout"]);
        assert!(half.receive().is_none(), "the connection ends with it");
    }
}

#[test]
fn large_bodies_share_a_budget_and_small_ones_do_not_need_it() {
    let node = TestNode::with(&[("CAIRN_SERVER_REQUEST_BYTES_MAX", "1MiB"), ("CAIRN_SERVER_BODIES_BYTES_MAX", "1MiB")]);
    let mut half = Connection::to(&node);
    half.send(&other_head(900_000));
    half.send(&"x".repeat(400_000));
    let large = json!({"collection": "c", "documents": [{"id": "a", "text": "word ".repeat(60_000)}]}).to_string();
    let add = || {
        let url = format!("{}/v1/tools/add_documents", node.base());
        node.request("POST", &url, &[("content-type", "application/json")], Some(large.as_bytes()))
    };
    // Until the node has begun to read the other one.
    wait_until("the budget is taken", || add().status == 503);
    let refused = add();
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert_eq!(refused.json()["code"], "overloaded");
    assert_says(&refused.text, &["server.bodies_bytes_max", "1 MiB"]);
    node.call("search", json!({"query": "word"}));
    drop(half);
    wait_until("room again", || add().status == 200);
}

#[test]
fn clients_that_wait_make_room_for_others() {
    let node = TestNode::with(&[("CAIRN_SERVER_CONNECTIONS_MAX", "8")]);
    node.add("notes", json!([{"id": "a", "text": "The heron stands in the reeds."}]));
    // A head that never ends, nothing at all, a body that never comes, a connection that is kept.
    for begin in ["POST /mcp HTTP/1.1\r\nHost: x", "", &other_head(100), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let waiting: Vec<Connection> = (0..30)
            .map(|_| {
                let mut connection = Connection::to(&node);
                connection.send(begin);
                connection
            })
            .collect();
        assert_eq!(get(&node).status, 200, "{begin:?}");
        assert_eq!(node.found("notes", "heron", "lexical"), ["a"], "{begin:?}");
        drop(waiting);
    }
}

#[test]
fn who_was_let_in_keeps_his_connection_in_a_flood_from_his_own_address() {
    let node = TestNode::with(&[("CAIRN_SERVER_CONNECTIONS_MAX", "8")]);
    let mut owner = Connection::to(&node);
    assert_eq!(owner.call("get_status", &json!({})).status, 200);
    let flood: Vec<Connection> = (0..40).map(|_| Connection::to(&node)).collect();
    // It found a place, so those before it have taken theirs.
    assert_eq!(get(&node).status, 200);
    assert_eq!(owner.call("get_status", &json!({})).status, 200, "his connection is still there");
    drop(flood);
}

/// Most memory that the node has had at once, in bytes.
fn peak_memory(node: &TestNode) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn a_message_of_nothing_but_values_is_refused_before_it_is_read() {
    let node = TestNode::start();
    let values = format!("[{}[]]", "[],".repeat(1 << 20));
    let length = values.len() as u64;
    let message = |arguments: &str| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{{\"name\":\"add_documents\",\"arguments\":{arguments}}},\"id\":7}}"
        )
    };
    let in_text = format!("{{\"collection\":\"c\",\"documents\":\"{values}\"}}");
    let in_texts = format!("{{\"collection\":\"c\",\"documents\":[{{\"metadata\":\"{values}\"}}]}}");
    node.add("c", json!([{"id": "a", "text": "word ".repeat(10_000)}]));
    let before = peak_memory(&node);
    let legacy = [("mcp-protocol-version", LEGACY)];
    let refused = node.post(&legacy, &message(&format!("{{\"documents\":{values}}}")));
    assert_eq!((refused.status, &refused.json()["id"]), (400, &json!(7)), "{}", refused.text);
    assert_says(&refused.text, &["more than 100000 values", "send less at a time"]);
    for arguments in [&in_text, &in_texts] {
        let refused = node.post(&legacy, &message(arguments));
        assert_says(&refused.text, &["more than 100000 values"]);
    }
    for arguments in [&values, &in_text, &in_texts] {
        let refused = Connection::to(&node).ask(&rest("add_documents", arguments));
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert_says(&refused.body, &["more than 100000 values"]);
    }
    let grown = peak_memory(&node) - before;
    assert!(grown < 10 * length, "{grown} bytes for messages of {length}");
}

#[test]
fn a_request_says_once_whom_it_is_for() {
    let node = TestNode::start();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 200),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ] {
        assert_eq!(Connection::to(&node).ask(request).status, status, "{request:?}");
    }
    let admin = node.admin.split_once("://").expect("an address").1;
    let mut stream = BufReader::new(TcpStream::connect(admin).expect("connects"));
    stream.get_mut().write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    assert_says(&line, &["400"]);
}

#[test]
fn a_body_in_bad_pieces_is_the_callers_mistake() {
    let node = TestNode::start();
    for path in ["/v1/tools/get_status", "/mcp", "/v1/collections/c/sources/a.md"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let refused = Connection::to(&node).ask(&format!("{head}zz\r\n{{}}\r\n0\r\n\r\n"));
        assert_eq!(refused.status, 400, "{path}: {}", refused.body);
        assert_eq!(refused.json()["code"], "bad_argument");
    }
    assert_eq!(node.call("get_status", json!({}))["collections"], 0);
}

#[test]
fn silent_connections_leave_files_for_the_store() {
    let node = TestNode::with_files(200, &[("CAIRN_STORE_SEGMENT_BYTES", "1MiB")]);
    let silent: Vec<Connection> = (0..400)
        .map(|_| {
            let mut connection = Connection::to(&node);
            connection.send(&plain_head(100));
            connection
        })
        .collect();
    let text = |name: &str| format!("Pump {name} hums. {}", "It hums on and on. ".repeat(400));
    for number in 0..30 {
        let (collection, name) = (format!("c{}", number / 10), format!("p{number}"));
        node.add(&collection, json!([{"id": name, "text": text(&name)}]));
        assert_eq!(node.found(&collection, &name, "lexical")[0], name);
    }
    drop(silent);
    assert_eq!(node.call("get_status", json!({}))["ready"], true);
}

/// Files that a node may have open at first.
const FILES: u64 = 4_096;

/// Sets how many files the node may have open from now on.
fn allow_files(node: &TestNode, files: u64) {
    let pid = Pid::from_raw(node.pid().cast_signed()).expect("a process");
    let limit = Rlimit { current: Some(files), maximum: Some(FILES) };
    prlimit(Some(pid), Resource::Nofile, limit).expect("set");
}

#[test]
fn an_index_that_failed_is_never_called_visible_and_is_taken_up_again() {
    let node = TestNode::with_files(FILES, &[]);
    let mut connection = Connection::to(&node);
    let write = |connection: &mut Connection, collection: &str, id: &str| {
        let text = format!("The {id} stands in the reeds.");
        connection.call("add_documents", &json!({"collection": collection, "documents": [{"id": id, "text": text}]}))
    };
    let found = |connection: &mut Connection, collection: &str, word: &str| {
        let question = json!({"query": word, "collections": [collection], "mode": "lexical"});
        let answer = connection.call("search", &question);
        // A collection without an index is an error until it has one.
        if answer.status == 200 { hits(&answer.json()) } else { Vec::new() }
    };
    assert_eq!(write(&mut connection, "birds", "heron").status, 200);
    // What the search reads of the log is open then.
    assert_eq!(found(&mut connection, "birds", "heron"), ["heron"]);
    // From now on the node can open nothing, and what is open stays so.
    allow_files(&node, 3);
    for (collection, id) in [("birds", "bittern"), ("birds", "coot"), ("plants", "willow")] {
        let written = write(&mut connection, collection, id);
        assert_eq!(written.status, 503, "{}", written.body);
        assert_eq!(written.json()["code"], "not_visible", "{}", written.body);
        assert_says(&written.body, &["stable storage", "do not write it again"]);
    }
    assert_eq!(found(&mut connection, "birds", "heron"), ["heron"], "what was indexed is found");
    allow_files(&node, FILES);
    // Nothing but time brings them back.
    for (collection, id) in [("birds", "bittern"), ("birds", "coot"), ("plants", "willow")] {
        wait_until("it is found", || found(&mut connection, collection, id) == [id]);
    }
    assert_eq!(write(&mut connection, "birds", "rail").status, 200);
    assert_eq!(found(&mut connection, "birds", "rail"), ["rail"]);
}
