//! MCP over standard input and output, in front of a running node and without one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::node::{LEGACY, TestNode, assert_says, cairn, hits, json_of, list, modern_meta, run_on, stderr};

/// `cairn mcp` as a desktop client starts it.
struct Client {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next_id: u64,
    /// Notifications that came between the answers.
    notified: Vec<Value>,
}

impl Client {
    fn start(data_dir: &Path) -> Self {
        let mut process = cairn()
            .arg("mcp")
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let (input, output) = (process.stdin.take(), process.stdout.take().expect("a pipe"));
        Self { process, input, output: BufReader::new(output), next_id: 0, notified: Vec::new() }
    }

    /// Starts it and shakes hands as clients with sessions do.
    fn initialized(data_dir: &Path) -> Self {
        let mut client = Self::start(data_dir);
        let info = json!({"name": "it", "version": "1"});
        let result =
            client.ask("initialize", json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": info}));
        assert_eq!(result["protocolVersion"], LEGACY);
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn send(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("open");
        writeln!(input, "{message}").expect("sent");
        input.flush().expect("sent");
    }

    /// The next message. Anything else on standard output would break the protocol.
    fn receive(&mut self) -> Value {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).expect("readable"), 0, "the server ended");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert_eq!(message["jsonrpc"], "2.0");
        message
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}));
        let mut answer = self.receive();
        while answer.get("method").is_some() {
            self.notified.push(answer);
            answer = self.receive();
        }
        assert_eq!(answer["id"], self.next_id, "{answer}");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let mut result = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        assert_ne!(result["isError"], true, "{result}");
        match result["structuredContent"].take() {
            Value::Null => serde_json::from_str(result["content"][0]["text"].as_str().expect("text")).expect("JSON"),
            structured => structured,
        }
    }

    /// Closes its input, which is how clients end a server.
    fn close(mut self) {
        self.input = None;
        let status = self.process.wait().expect("it can be waited for");
        assert!(status.success(), "{status}");
        let mut rest = String::new();
        self.output.read_line(&mut rest).expect("readable");
        assert_eq!(rest, "");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A data directory with a node's data, and no process.
fn made() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    json_of(&run_on(directory.path(), &["--json", "collection", "create", "notes"]));
    directory
}

fn note(id: &str, text: &str) -> Value {
    json!({"collection": "notes", "documents": [{"id": id, "text": text}]})
}

/// Reads notifications until there is one of each method, of this document where it is about one.
fn hear(client: &mut Client, methods: &[&str], uri: &str) {
    let is_heard = |client: &Client, method: &str| {
        client.notified.iter().any(|message| {
            message["method"] == method && (message["params"]["uri"].is_null() || message["params"]["uri"] == uri)
        })
    };
    while !methods.iter().all(|method| is_heard(client, method)) {
        let message = client.receive();
        assert!(message.get("id").is_none(), "{message}");
        client.notified.push(message);
    }
    client.notified.clear();
}

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
const UPDATED: &str = "notifications/resources/updated";

#[test]
fn a_session_is_notified_of_what_it_changes_itself() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("valve.md");
    std::fs::write(&file, "The valve is shut.").expect("written");
    let file = file.to_str().expect("UTF-8");
    json_of(&run_on(directory.path(), &["add", file, "-c", "other", "--json"]));
    let mut client = Client::initialized(directory.path());
    client.ask("tools/list", json!({}));
    client.ask("resources/list", json!({}));
    let write = |text: &str| json!({"collection": "notes", "documents": [{"id": "pump", "text": text}]});
    client.call("add_documents", write("The pump is blue."));
    hear(&mut client, &[TOOLS_CHANGED, RESOURCES_CHANGED], "");
    let listed = client.ask("resources/list", json!({}));
    let uri = listed["resources"][0]["uri"].as_str().expect("an address").to_owned();
    assert!(uri.ends_with("/notes/pump"), "{listed}");
    client.ask("resources/subscribe", json!({"uri": uri}));
    client.call("add_documents", write("The pump is red."));
    hear(&mut client, &[UPDATED, RESOURCES_CHANGED], &uri);
    // Another document's address, which is not subscribed to any more when it changes.
    client.ask("resources/unsubscribe", json!({"uri": uri}));
    client.call("add_documents", write("The pump is green."));
    hear(&mut client, &[RESOURCES_CHANGED], "");
    client.send(
        &json!({"jsonrpc": "2.0", "id": 99, "method": "resources/subscribe", "params": {"uri": "ctx://other/notes/x"}}),
    );
    let refused = client.receive();
    assert_says(&refused["error"]["message"].to_string(), &["there is no resource", "addresses here begin with"]);
    client.close();
}

#[test]
fn a_session_in_front_of_a_node_is_notified_of_what_others_write() {
    let node = TestNode::start();
    node.call("create_collection", json!({"name": "notes"}));
    let mut client = Client::initialized(&node.data_dir());
    client.ask("tools/list", json!({}));
    client.ask("resources/list", json!({}));
    node.call(
        "add_documents",
        json!({"collection": "notes", "documents": [{"id": "pump", "text": "The pump is blue."}]}),
    );
    hear(&mut client, &[TOOLS_CHANGED, RESOURCES_CHANGED], "");
    let listed = client.ask("resources/list", json!({}));
    let uri = listed["resources"][0]["uri"].as_str().expect("an address").to_owned();
    client.ask("resources/subscribe", json!({"uri": uri}));
    node.call("delete_documents", json!({"ids": ["notes/pump"]}));
    hear(&mut client, &[UPDATED, TOOLS_CHANGED, RESOURCES_CHANGED], &uri);
    client.close();
}

#[test]
fn without_a_node_the_data_directory_itself_answers() {
    let directory = made();
    let mut client = Client::initialized(directory.path());
    assert_eq!(list(&client.ask("tools/list", json!({}))["tools"]).len(), 15);
    client.call("add_documents", note("a", "The heron stands in the reeds."));
    let found = client.call("search", json!({"query": "heron"}));
    assert_eq!(hits(&found), ["a"]);
    client.close();

    let mut again = Client::initialized(directory.path());
    assert_eq!(again.call("fetch", json!({"id": "notes/a"}))["text"], "The heron stands in the reeds.");
    again.close();
}

#[test]
fn where_there_is_no_node_none_is_made_and_each_call_says_what_to_do() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let data_dir = directory.path().join("nowhere");
    let mut client = Client::initialized(&data_dir);
    assert_eq!(list(&client.ask("tools/list", json!({}))["tools"]).len(), 15);
    for (tool, arguments) in [
        ("search", json!({"query": "heron"})),
        ("list_collections", json!({})),
        ("add_documents", note("a", "The heron stands in the reeds.")),
    ] {
        let refused = client.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        assert_eq!(refused["isError"], true, "{tool}: {refused}");
        let words = refused["content"][0]["text"].as_str().expect("words");
        assert_says(words, &["no node", data_dir.to_str().expect("UTF-8"), "cairn add", "cairn serve"]);
    }
    assert!(!data_dir.exists());
    json_of(&run_on(&data_dir, &["--json", "collection", "create", "notes"]));
    client.call("add_documents", note("a", "The heron stands in the reeds."));
    let found = client.call("search", json!({"query": "heron", "include": ["links"]}));
    let url = found["results"][0]["uri"].as_str().expect("an address").to_owned();
    let read = client.ask("resources/read", json!({"uri": url}));
    assert_says(read["contents"][0]["text"].as_str().expect("text"), &["heron"]);
    client.close();
}

#[test]
fn clients_without_sessions_are_served_too() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut client = Client::start(directory.path());
    let found = client.ask("server/discover", json!({"_meta": modern_meta()}));
    assert!(found["supportedVersions"].is_array(), "{found}");
    let listed = client.ask("tools/list", json!({"_meta": modern_meta()}));
    assert_eq!(list(&listed["tools"]).len(), 15);
    client.close();
}

#[test]
fn clients_beside_a_running_node_share_it() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "The heron stands in the reeds."}]));
    let (mut first, mut second) = (Client::initialized(&node.data_dir()), Client::initialized(&node.data_dir()));
    assert_eq!(hits(&first.call("search", json!({"query": "heron"})))[0], "a");
    first.call("add_documents", note("b", "The kingfisher dives."));
    assert_eq!(hits(&second.call("search", json!({"query": "kingfisher"})))[0], "b");
    assert_eq!(node.call("get_status", json!({}))["documents"], 2);
    let refused = first.ask("tools/call", json!({"name": "search", "arguments": {"limit": 3}}));
    assert_eq!(refused["isError"], true);
    assert!(refused["content"][0]["text"].as_str().is_some_and(|words| words.contains("query")), "{refused}");
    let resource = first.call("search", json!({"query": "heron", "include": ["links"]}));
    assert!(resource["results"][0]["uri"].as_str().is_some_and(|url| url.starts_with("ctx://")), "{resource}");
    first.close();
    second.close();
}

#[test]
fn two_clients_without_a_node_never_meet_a_locked_directory() {
    let directory = made();
    let mut first = Client::initialized(directory.path());
    first.call("add_documents", note("a", "The heron stands in the reeds."));
    let mut second = Client::initialized(directory.path());
    assert_eq!(hits(&second.call("search", json!({"query": "heron"})))[0], "a");
    second.call("add_documents", note("b", "The kingfisher dives."));
    assert_eq!(hits(&first.call("search", json!({"query": "kingfisher"})))[0], "b");
    second.close();
    first.close();
}

/// A line that no JSON library would write.
/// As when a service restarts while a client's call makes `cairn mcp` open the directory.
#[test]
fn a_node_that_starts_gets_the_directory_from_a_client_that_has_it_open() {
    let directory = made();
    let data_dir = directory.path();
    let mut client = Client::initialized(data_dir);
    client.call("add_documents", note("before", "the pump hums"));

    let mut node = cairn()
        .args(["--json", "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    BufReader::new(node.stdout.take().expect("a pipe")).read_line(&mut line).expect("readable");
    let ready: Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: the node started with {line:?}"));
    // A call afterwards is the node's.
    client.call("add_documents", note("after", "the valve leaks"));
    let url = ready["mcp"].as_str().expect("an address").trim_end_matches("/mcp").to_owned();
    let listed = json_of(&run_on(data_dir, &["--url", &url, "ls", "notes", "--json"]));
    let ids: Vec<&str> = list(&listed["documents"]).iter().filter_map(|document| document["id"].as_str()).collect();
    assert_eq!(ids, ["notes/after", "notes/before"]);

    // A second node does not.
    let refused = run_on(data_dir, &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_says(&stderr(&refused), &["LOCK is held by process", "(cairn serve)"]);
    client.close();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(node.id()).expect("a process")).expect("not 0"),
        rustix::process::Signal::TERM,
    )
    .expect("it runs");
    assert!(node.wait().expect("it ends").success());
}

fn line(client: &mut Client, text: &str) {
    let input = client.input.as_mut().expect("open");
    input.write_all(text.as_bytes()).and_then(|()| input.write_all(b"\n")).expect("sent");
    input.flush().expect("sent");
}

#[test]
fn every_line_that_wants_an_answer_gets_one() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut client = Client::initialized(directory.path());
    for (text, code, id) in [
        ("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":", -32700, json!(null)),
        ("hello", -32700, json!(null)),
        ("{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"ping\",\"params\":[]}", -32600, json!(8)),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", -32600, json!(null)),
        ("[{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\"}]", -32600, json!(null)),
        (
            &format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"params\":{{\"a\":[{}1]}},\"id\":10}}",
                "[],".repeat(100_000)
            ),
            -32600,
            json!(10),
        ),
    ] {
        line(&mut client, text);
        let answer = client.receive();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{answer}");
    }
    // Nobody waits for these.
    for text in [
        "",
        "\r",
        "{\"jsonrpc\":\"2.0\",\"method\":\"window/logMessage\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":7}",
    ] {
        line(&mut client, text);
    }
    line(&mut client, "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":\"marked\",\"method\":\"ping\"}\r");
    assert_eq!(client.receive()["id"], "marked");
    client.close();
}

#[test]
fn a_message_may_be_as_large_as_a_request_over_http() {
    let directory = made();
    let mut client = Client::initialized(directory.path());
    let large = json!({"collection": "notes", "documents": [{"id": "a", "text": "pump word ".repeat(1_800_000)}]});
    let written = client.call("add_documents", large);
    assert_eq!(written["created"], 1);
    for (first, last) in [("\"id\":40,", ""), ("", ",\"id\":\"forty-one\""), ("", "")] {
        let text = "x".repeat(73 << 20);
        line(
            &mut client,
            &format!(
                "{{{first}\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"params\":{{\"id\":1,\"t\":\"{text}\"}}{last}}}"
            ),
        );
    }
    let answers = [client.receive(), client.receive(), client.receive()];
    assert_eq!(answers.each_ref().map(|answer| answer["id"].clone()), [json!(40), json!("forty-one"), json!(null)]);
    for answer in &answers {
        assert_eq!(answer["error"]["code"], -32600);
        assert!(answer["error"]["message"].as_str().is_some_and(|words| words.contains("72")), "{answer}");
    }
    assert_eq!(client.ask("ping", json!({})), json!({}));
    client.close();
}

#[test]
fn what_was_asked_is_answered_though_the_client_has_closed_its_end() {
    let directory = made();
    let mut client = Client::initialized(directory.path());
    let last = json!({"jsonrpc": "2.0", "id": 50, "method": "tools/call",
        "params": {"name": "add_documents", "arguments": note("a", "The heron stands in the reeds.")}});
    let mut input = client.input.take().expect("open");
    for id in 0..40 {
        writeln!(input, "{}", json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).expect("sent");
    }
    // Without a line feed.
    input.write_all(last.to_string().as_bytes()).expect("sent");
    drop(input);
    let mut ids: Vec<i64> = (0..41).map(|_| client.receive()["id"].as_i64().expect("a number")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).chain([50]).collect::<Vec<_>>());
    client.close();
    let mut again = Client::initialized(directory.path());
    assert_eq!(again.call("fetch", json!({"id": "notes/a"}))["text"], "The heron stands in the reeds.");
    again.close();
}

#[test]
fn requests_wait_while_nobody_reads_their_answers() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut client = Client::initialized(directory.path());
    let mut input = client.input.take().expect("open");
    // More than pipes and queues hold: the node stops reading before all are sent.
    let sending = std::thread::spawn(move || {
        for id in 0..4_000 {
            let list = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list", "params": {}});
            writeln!(input, "{list}").expect("sent");
        }
        drop(input);
    });
    let pid = client.process.id();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    };
    let mut most = 0;
    for answered in 0..4_000 {
        let answer = client.receive();
        assert!(answer["result"]["tools"].is_array());
        if answered % 100 == 0 {
            most = most.max(resident());
        }
    }
    sending.join().expect("all were sent");
    assert!(most < 400, "{most} MiB");
    client.close();
}
