//! Starting, answering health checks, refusing what cannot be served, and stopping.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, cairn, run_on, stderr};

#[test]
fn a_ready_node_answers_where_its_line_says() {
    let node = TestNode::start();
    assert_says(&node.mcp, &["http://127.0.0.1:", "/mcp"]);
    assert_eq!(node.get(&format!("{}/health", node.admin)).status, 200);
    // It answers a moment before its indexes have looked at the log.
    node.catch_up();
    let ready = node.get(&format!("{}/ready", node.admin));
    let detail = ready.json();
    assert_eq!((ready.status, &detail["ready"], &detail["reasons"]), (200, &json!(true), &json!({})));
    // Told, and no reason to be unready.
    assert_eq!(detail["snapshots"]["age_seconds"], json!(null));
    assert_says(&node.get(node.base()).text, &["Cairn ", "/mcp"]);
    assert_eq!(node.get(&format!("{}/nothing", node.admin)).status, 404);
}

#[test]
fn metrics_count_what_was_done() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}, {"id": "b", "text": "beta"}]));
    node.call("search", json!({"query": "alpha"}));
    node.call("search", json!({"query": "alpha"}));
    node.call("search", json!({"query": "alpha", "limit": 3}));
    node.refusal("search", json!({}));
    let metrics = node.get(&format!("{}/metrics", node.admin));
    assert_says(metrics.header("content-type"), &["application/openmetrics-text"]);
    assert_says(
        &metrics.text,
        &[
            "cairn_documents{collection=\"notes\"} 2\n",
            "cairn_passages{collection=\"notes\"} 2\n",
            "cairn_documents_written_total 2\n",
            "cairn_tool_calls_total{tool=\"search\",outcome=\"ok\"} 3\n",
            "cairn_tool_calls_total{tool=\"search\",outcome=\"error\"} 1\n",
            "cairn_search_cache_hits_total 1\n",
            "cairn_embedding_cache_hits_total 1\n",
            "cairn_embedding_cache_misses_total 1\n",
            "cairn_read_only 0\n",
        ],
    );
    assert!(metrics.text.ends_with("# EOF\n"), "{}", metrics.text);
}

#[test]
fn the_line_for_people_names_both_addresses() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut process = cairn()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a line");
    kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
    assert!(process.wait().expect("it ends").success(), "Ctrl-C is a way to stop, not an error");
    assert_eq!(line.matches("http://127.0.0.1:").count(), 2, "{line}");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, "", "one line, and no more");
}

fn serve(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("temporary directory");
    run_on(directory.path(), &[&["serve"], arguments].concat())
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_helps() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    for (arguments, flag) in [
        (["--listen", &address, "--admin", "127.0.0.1:0"], "--listen"),
        (["--listen", "127.0.0.1:0", "--admin", &address], "--admin"),
    ] {
        let output = serve(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_says(&stderr(&output), &[&address, flag]);
    }
}

#[test]
fn a_second_node_on_the_same_data_names_the_first() {
    let node = TestNode::start();
    let output = node.cairn(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &[&node.pid().to_string()]);
    node.call("get_status", json!({}));
}

#[test]
fn a_body_without_arguments_is_told_in_words_of_json() {
    let node = TestNode::start();
    let url = format!("{}/v1/tools/search", node.base());
    let json = ("content-type", "application/json");
    for (body, words) in [
        ("[]", "not an object"),
        ("\"pump\"", "not an object"),
        ("", "'query' is missing"),
        ("{\"query\":", "not JSON"),
        ("query=pump", "not JSON"),
    ] {
        let answer = node.request("POST", &url, &[json], Some(body.as_bytes()));
        let message = answer.json()["detail"].as_str().expect("words").to_owned();
        assert_eq!(answer.status, 400, "{body}: {message}");
        assert_says(&message, &[words]);
        for foreign in ["deserialize", "target type", "sequence", "expected a map"] {
            assert!(!message.contains(foreign), "{message}");
        }
    }
    let typed = node.request("POST", &url, &[("content-type", "text/plain")], Some(b"{}"));
    assert_eq!(typed.status, 415);
    assert_says(&typed.json()["detail"].to_string(), &["Content-Type: application/json"]);
}

#[test]
fn addresses_that_ask_for_what_cannot_be_are_answered_in_json() {
    let node = TestNode::start();
    node.add("files", json!([{"id": "a", "text": "The pump is blue."}]));
    let sources = format!("{}/v1/collections/files/sources", node.base());
    for (method, url, status, words) in [
        ("GET", format!("{sources}?limit=many"), 400, "limit is 'many'"),
        ("GET", format!("{sources}?limit=1&limit=2"), 400, "limit is a list"),
        ("POST", format!("{sources}/%ff.md"), 400, "not UTF-8"),
        ("DELETE", format!("{sources}/%ff.md"), 400, "not UTF-8"),
        ("POST", format!("{sources}/a.md?metadata=%5B%5D"), 400, "metadata is [], expected an object"),
        ("POST", format!("{sources}/a.md?metadata=no"), 400, "metadata is not JSON"),
        ("POST", format!("{}/v1/collections/files/folders/a", node.base()), 400, "not an object"),
        ("GET", format!("{}/v1/tools/search", node.base()), 405, "does not support the method"),
        ("DELETE", format!("{}/v1/flush", node.base()), 405, "does not support the method"),
    ] {
        let answer = node.request(method, &url, &[], (method == "POST").then_some(b"[]".as_slice()));
        let message = answer.json()["detail"].as_str().expect("words").to_owned();
        assert_eq!(answer.status, status, "{method} {url}: {message}");
        assert_says(&message, &[words]);
        for foreign in ["deserialize", "invalid type", "invalid digit", "expected a map"] {
            assert!(!message.contains(foreign), "{message}");
        }
        if status == 405 {
            assert_says(answer.header("allow"), &["POST"]);
        }
    }
}

/// Addresses that other machines reach.
const OPEN: [&str; 4] = ["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0"];

/// Status of a tool call over REST with this `Authorization` header.
fn status_with(node: &TestNode, authorization: Option<&str>) -> u16 {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(authorization.map(|value| ("authorization", value)));
    let url = format!("{}/v1/tools/get_status", node.base());
    node.request("POST", &url, &headers, Some(b"{}")).status
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn other_machines_need_the_token_that_is_shown_once() {
    let mut node = TestNode::with_arguments(&OPEN, &[]);
    let token = node.token.clone().expect("shown at the first start");
    assert!(token.len() >= 40, "long enough never to be guessed");
    let refused = node.post(&[("mcp-protocol-version", "2025-11-25")], "{}");
    assert_eq!(refused.status, 401, "MCP requires a token");
    assert_says(refused.header("www-authenticate"), &["Bearer"]);
    for authorization in
        [None, Some(""), Some("Bearer"), Some("Bearer cairn_wrong"), Some(token.as_str()), Some("Basic Og==")]
    {
        assert_eq!(status_with(&node, authorization), 401, "{authorization:?}");
    }
    assert_eq!(status_with(&node, Some(&bearer(&token))), 200);
    assert_eq!(node.cairn_json(&["status", "--json"])["documents"], 0, "the owner's command line needs none");
    assert!(!anywhere_in(&node.data_dir(), &token), "only its digest is kept");
    assert!(!node.log().contains(&token));

    node.stop();
    node.restart();
    assert_eq!(
        (node.token.as_deref(), status_with(&node, Some(&bearer(&token)))),
        (None, 200),
        "still good, not shown"
    );

    node.stop();
    node.restart_with(&[&OPEN[..], &["--new-token"]].concat());
    let renewed = node.token.clone().expect("shown again when renewed");
    assert_eq!(status_with(&node, Some(&bearer(&token))), 401, "the old one is void");
    assert_eq!(status_with(&node, Some(&bearer(&renewed))), 200);
}

/// Whether a text stands in any file below a directory.
fn anywhere_in(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).expect("readable").any(|entry| {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            return anywhere_in(&path, text);
        }
        fs::read(path).expect("readable").windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn strangers_learn_from_the_admin_listener_only_that_it_lives() {
    let node = TestNode::with_arguments(&OPEN, &[]);
    let token = bearer(node.token.as_deref().expect("shown at the first start"));
    assert_eq!(node.get(&format!("{}/health", node.admin)).status, 200);
    let metrics = format!("{}/metrics", node.admin);
    assert_eq!(node.get(&metrics).status, 401);
    assert_eq!(node.request("GET", &metrics, &[("authorization", &token)], None).status, 200);
}

#[test]
fn a_flag_turns_authentication_off() {
    let node = TestNode::with_arguments(&[&OPEN[..], &["--allow-unauthenticated"]].concat(), &[]);
    assert_eq!((node.token.as_deref(), status_with(&node, None)), (None, 200));
}

#[test]
fn a_loopback_node_asks_for_nothing() {
    let node = TestNode::start();
    assert_eq!((node.token.as_deref(), status_with(&node, None)), (None, 200));
}

#[test]
fn a_stop_finishes_what_was_begun() {
    let mut node = TestNode::start();
    let mut log = Log::follow(&node);
    let body =
        json!({"collection": "notes", "documents": [{"id": "late", "text": "written while stopping"}]}).to_string();
    let mut stream = TcpStream::connect(node.base().strip_prefix("http://").expect("an address")).expect("connects");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    // The node asks for the body when it has begun to answer the request.
    write!(
        stream,
        "POST /v1/tools/add_documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    )
    .expect("sent");
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    reader.read_line(&mut line).expect("the end of the interim answer");

    node.terminate();
    log.wait_for("SIGTERM");
    stream.write_all(body.as_bytes()).expect("sent");
    let mut answer = String::new();
    reader.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(node.wait().success());

    node.restart();
    assert_eq!(node.call("fetch", json!({"id": "notes/late"}))["text"], "written while stopping");
}

/// Follows a node's log with `tail`, which waits for lines where a read would end.
struct Log {
    process: std::process::Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Log {
    fn follow(node: &TestNode) -> Self {
        let mut process = Command::new("tail")
            .args(["-n", "+1", "-f"])
            .arg(node.scratch().join("log"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("tail runs");
        let lines = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, lines }
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).expect("a line"), 0, "the log ended");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // It may have ended; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn logs_are_json_lines_where_nobody_watches() {
    let mut node = TestNode::start();
    node.stop();
    let log = node.log();
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert!(event["level"].is_string() && event["message"].is_string(), "{event}");
    }
}

/// Sends a request whose body is held back until the node asks for it, if it does. Returns the head of the answer.
fn send_slowly(stream: &mut TcpStream, path: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut read_head = || {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("an answer") > 0, "the connection ended after {head:?}");
        }
        head
    };
    let mut head = read_head();
    if head.starts_with("HTTP/1.1 100") {
        stream.write_all(body.as_bytes()).expect("sent");
        head = read_head();
    }
    let bytes = head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    reader.read_exact(&mut vec![0; bytes.expect("a length")]).expect("the body of the answer");
    head
}

#[test]
fn a_connection_goes_on_or_the_answer_says_that_it_ends() {
    let node = TestNode::start();
    let address = node.base().strip_prefix("http://").expect("an address").to_owned();
    let mut kept = TcpStream::connect(&address).expect("connects");
    for path in ["/v1/flush", "/v1/compact", "/v1/tools/get_status"] {
        let head = send_slowly(&mut kept, path, "{}");
        assert!(head.starts_with("HTTP/1.1 200") && !head.contains("close"), "{path}: {head}");
    }
    let head = send_slowly(&mut kept, "/v1/nothing", "{}");
    assert!(head.starts_with("HTTP/1.1 404") && !head.contains("close"), "{head}");
    // What is not let in is not read.
    let mut refused = TcpStream::connect(&address).expect("connects");
    let head = send_slowly(&mut refused, "/v1/flush HTTP/1.1\r\nOrigin: http://evil.example\r\nX: ", "{}");
    assert!(head.starts_with("HTTP/1.1 403") && head.contains("connection: close"), "{head}");
}

/// A request of which the node has the head and awaits the body, `length` bytes.
fn begun(node: &TestNode, path: &str, headers: &str, length: usize) -> (TcpStream, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(node.base().strip_prefix("http://").expect("an address")).expect("connects");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    reader.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    (stream, reader)
}

/// Documents that take a while to be taken apart.
fn much() -> String {
    let text = |number: usize| format!("Pump {number} hums, and the valve beside it sticks. ").repeat(600);
    let documents: Vec<Value> =
        (0..1_000).map(|number| json!({"id": number.to_string(), "text": text(number)})).collect();
    json!({"collection": "notes", "documents": documents}).to_string()
}

/// A request that the node works at.
fn working(node: &TestNode) -> TcpStream {
    let mut stream = TcpStream::connect(node.base().strip_prefix("http://").expect("an address")).expect("connects");
    let body = much();
    let head = format!(
        "POST /v1/tools/add_documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("sent");
    // It is received in its own time.
    while node.metric("cairn_requests_in_flight") != 1 {}
    stream
}

#[test]
fn who_goes_away_before_the_answer_makes_room() {
    let node = TestNode::with(&[("CAIRN_SERVER_IN_FLIGHT_MAX", "1")]);
    drop(working(&node));
    // The node sees the end of the connection when it sees it.
    while node.metric("cairn_requests_in_flight") != 0 {}
    assert_eq!(node.modern("tools/list", json!({})).status, 200);
}

#[test]
fn a_search_that_is_sent_slowly_takes_no_room() {
    let node = TestNode::with(&[("CAIRN_SERVER_IN_FLIGHT_MAX", "1")]);
    let _begun = begun(&node, "/mcp", "Accept: application/json, text/event-stream\r\n", 100);
    assert_eq!(node.modern("tools/list", json!({})).status, 200);
}

#[test]
fn more_requests_than_allowed_are_told_when_to_come_back() {
    let node = TestNode::with(&[("CAIRN_SERVER_IN_FLIGHT_MAX", "1")]);
    let stream = working(&node);
    let refused = node.modern("tools/list", json!({}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert_eq!(node.get(&format!("{}/health", node.admin)).status, 200, "health has its own thread");
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).expect("an answer");
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    assert_eq!(node.modern("tools/list", json!({})).status, 200);
}

#[test]
fn a_body_that_is_awaited_takes_no_room() {
    let node = TestNode::with(&[("CAIRN_SERVER_IN_FLIGHT_MAX", "1")]);
    let (mut stream, mut reader) = begun(&node, "/v1/tools/get_status", "", 2);
    assert_eq!(node.modern("tools/list", json!({})).status, 200);
    stream.write_all(b"{}").expect("sent");
    let mut status = String::new();
    reader.read_line(&mut status).expect("the end of the interim answer");
    status.clear();
    reader.read_line(&mut status).expect("an answer");
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
}

#[test]
fn a_new_data_directory_may_be_named_from_where_one_is() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut process = cairn()
        .args(["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--data-dir", "new", "--json"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("readable");
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let output = process.wait_with_output().expect("it ends");
    assert!(line.contains("token") && output.status.success(), "{line} {}", stderr(&output));
    assert!(directory.path().join("new/tls/authority.pem").exists());
}
