//! Every way into a node passes [`Calls::enter`] once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::auth::{Caller, Transport};
use crate::calls::{Call, EndedCall, Outcome, Reach, Refusal, Scope};
use crate::config::Overrides;
use crate::index::filter::Filter;
use crate::mcp::{Context, ToolProvider as _};

/// Hides a collection and documents from callers of one transport, and records which calls start and end.
#[derive(Clone, Default)]
struct Hides {
    from: Option<Transport>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Rule for Hides {
    fn admit(&self, call: &Call<'_>, reach: &mut Reach) -> Result<(), Refusal> {
        if Some(call.caller.transport()) == self.from {
            self.notes.lock().push(format!("{} {}", call.operation.name(), call.scope.names().join(",")));
            reach.narrow_to(["public".to_owned(), "fresh".to_owned()]);
            reach.narrow_by(Filter::from_json(&json!({"not": {"draft": true}})).expect("a filter"));
        }
        Ok(())
    }

    fn shows(&self, operation: &Operation, caller: &Caller) -> bool {
        Some(caller.transport()) != self.from || operation.name() != "restore_snapshot"
    }

    fn ended(&self, ended: &EndedCall<'_>) {
        if Some(ended.caller.transport()) == self.from {
            let fared = if ended.outcome == Outcome::Done { "done" } else { "failed" };
            self.notes.lock().push(format!("{} {fared}", ended.operation.name()));
        }
    }
}

/// A node that answers on a port, and the rule that watches it.
struct Watched {
    _directory: tempfile::TempDir,
    runtime: Runtime,
    node: Arc<Node>,
    port: u16,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let overrides = Overrides { data_dir: Some(directory.path().to_owned()), ..Overrides::default() };
        let config = Config::load(None, [], &overrides).expect("the defaults are valid");
        let runtime = Runtime::new().expect("a runtime");
        let rule = Hides { from: Some(Transport::Http), ..Hides::default() };
        let (readiness, metrics) = (Readiness::default(), Metrics::new());
        let rules: Vec<Box<dyn Rule>> = vec![Box::new(rule.clone())];
        let node = Node::open_under(rules, &config, readiness, metrics, runtime.handle(), None).expect("opened");
        let node = Arc::new(node);
        let here = Caller::local(Transport::CommandLine);
        for (collection, id, metadata) in [
            ("public", "heron", json!({})),
            ("public", "draft", json!({"draft": true})),
            ("secrets", "heron", json!({})),
        ] {
            let text = format!("The heron of {collection}/{id} stands in the reeds.");
            let document = json!({"id": id, "text": text, "metadata": metadata});
            let arguments = json!({"collection": collection, "documents": [document]});
            let Value::Object(arguments) = arguments else { unreachable!("it is an object") };
            let added = node.tools().call("add_documents", arguments, Context::of(&here));
            runtime.block_on(added).expect("added");
        }
        let answering = runtime.block_on(node.answer_locally(&config, &Drain::default())).expect("answers");
        Self { _directory: directory, runtime, port: answering.running.listen.port(), node, notes: rule.notes }
    }

    /// The answer's body.
    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connected");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    fn rest(&self, method: &str, path: &str, body: &Value) -> String {
        self.request(method, path, "", &body.to_string())
    }

    /// * `method`, `params`: of a message in an older protocol version, which needs no headers.
    fn mcp(&self, method: &str, params: &Value) -> String {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.request("POST", "/mcp", "MCP-Protocol-Version: 2025-11-25\r\n", &message.to_string())
    }

    /// Calls that started and ended since the last time.
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock())
    }
}

#[test]
fn each_way_in_enters_once_and_sees_what_it_may() {
    let node = Watched::start();
    let call = |tool: &str, arguments: Value| json!({"name": tool, "arguments": arguments});
    let search = json!({"query": "heron reeds"});
    let uri = |collection: &str| format!("ctx://{}/{collection}/heron", node.node.library().log().node().short());
    let complete = json!({"ref": {"type": "ref/resource", "uri": "ctx://x/{collection}/{+document}"},
        "argument": {"name": "document", "value": ""}, "context": {"arguments": {"collection": "public"}}});
    // The request, the call that enters, and whether it succeeds.
    let ways: Vec<(String, &str, bool)> = vec![
        // The fast path, and the ordinary one.
        (node.mcp("tools/call", &call("search", search.clone())), "search ", true),
        (node.mcp("tools/call", &json!({"name": "search", "arguments": search, "_meta": {"x": 1}})), "search ", true),
        (node.rest("POST", "/v1/tools/search", &search), "search ", true),
        (node.rest("POST", "/v1/tools/search", &json!({"queri": "x"})), "search ", false),
        (node.mcp("tools/call", &call("list_collections", json!({}))), "list_collections ", true),
        (
            node.rest("POST", "/v1/tools/list_documents", &json!({"collection": "public"})),
            "list_documents public",
            true,
        ),
        (
            node.rest("POST", "/v1/tools/list_documents", &json!({"collection": "secrets"})),
            "list_documents secrets",
            false,
        ),
        (node.rest("POST", "/v1/tools/fetch", &json!({"id": "secrets/heron"})), "fetch secrets", false),
        (node.rest("POST", "/v1/tools/fetch", &json!({"id": "public/draft"})), "fetch public", false),
        (node.rest("POST", "/v1/tools/find_similar", &json!({"id": "public/heron"})), "find_similar public", true),
        (
            node.rest("POST", "/v1/tools/delete_collection", &json!({"name": "secrets", "confirm": "secrets"})),
            "delete_collection secrets",
            false,
        ),
        (
            node.rest("POST", "/v1/tools/create_collection", &json!({"name": "hidden"})),
            "create_collection hidden",
            false,
        ),
        (node.rest("POST", "/v1/tools/get_status", &json!({})), "get_status ", true),
        (node.mcp("tools/list", &json!({})), "list_tools ", true),
        (node.mcp("resources/list", &json!({})), "list_resources ", true),
        (node.mcp("resources/read", &json!({"uri": uri("public")})), "read_resource public", true),
        (node.mcp("resources/read", &json!({"uri": uri("secrets")})), "read_resource secrets", false),
        (node.mcp("prompts/list", &json!({})), "list_prompts ", true),
        (node.mcp("completion/complete", &complete), "complete ", true),
        (node.rest("POST", "/v1/collections/fresh/sources/a.md", &json!({})), "sync_source fresh", true),
        (node.rest("POST", "/v1/collections/secrets/sources/a.md", &json!({})), "sync_source secrets", false),
        (node.rest("GET", "/v1/collections/fresh/sources", &json!({})), "list_sources fresh", true),
        (node.rest("GET", "/v1/collections/secrets/sources", &json!({})), "list_sources secrets", false),
        (node.rest("GET", "/v1/collections/secrets/folders", &json!({})), "list_folders secrets", false),
        (
            node.rest("POST", "/v1/collections/fresh/folders/x", &json!({"host": "h", "path": "/x"})),
            "note_folder fresh",
            true,
        ),
        (node.rest("DELETE", "/v1/collections/fresh/sources/a.md", &json!({})), "delete_source fresh", true),
        // What the caller does not see it cannot replace or delete either.
        (
            node.rest(
                "POST",
                "/v1/tools/add_documents",
                &json!({"collection": "public", "documents": [{"id": "draft", "text": "mine"}]}),
            ),
            "add_documents public",
            false,
        ),
        (
            node.rest("PUT", "/v1/collections/public/documents/draft", &json!({"text": "mine"})),
            "add_documents public",
            false,
        ),
        (node.rest("DELETE", "/v1/collections/public/documents/draft", &json!({})), "delete_documents public", false),
        (node.rest("POST", "/v1/collections/public/sources/draft", &json!({})), "sync_source public", false),
        (
            node.rest("POST", "/v1/tools/delete_collection", &json!({"name": "public", "confirm": "public"})),
            "delete_collection public",
            false,
        ),
        (node.rest("POST", "/v1/flush", &json!({})), "flush ", true),
        (node.rest("POST", "/v1/compact", &json!({})), "compact ", true),
        (node.rest("GET", "/v1/snapshots/schedule", &json!({})), "snapshot_schedule ", true),
        (node.rest("POST", "/v1/snapshots/prune", &json!({})), "prune_snapshots ", true),
        (node.rest("GET", "/v1/jobs", &json!({})), "list_jobs ", true),
    ];
    let mut expected = Vec::new();
    for (answer, entered, is_done) in &ways {
        assert!(!answer.is_empty(), "{entered}: no answer");
        assert!(!answer.contains("of secrets/heron") && !answer.contains("of public/draft"), "{entered}: {answer}");
        let (operation, _) = entered.split_once(' ').expect("two words");
        expected.extend([(*entered).to_owned(), format!("{operation} {}", if *is_done { "done" } else { "failed" })]);
    }
    assert_eq!(node.taken(), expected);
    let listed = node.rest("POST", "/v1/tools/list_collections", &json!({}));
    assert!(listed.contains("public") && !listed.contains("secrets"), "{listed}");
    let tools = node.mcp("tools/list", &json!({}));
    assert!(tools.contains("create_snapshot") && !tools.contains("restore_snapshot"), "{tools}");
    // Nothing is hidden from other callers.
    let here = Caller::local(Transport::CommandLine);
    let draft = json!({"id": "public/draft"});
    let Value::Object(draft) = draft else { unreachable!("it is an object") };
    let fetched =
        node.runtime.block_on(node.node.tools().call("fetch", draft, Context::of(&here))).expect("it is there");
    assert!(fetched.text.contains("of public/draft"), "{}", fetched.text);
    let permit = node.node.calls().enter(Operation::EVALUATE, &here, &Scope::Every).expect("admitted");
    let names =
        node.node.library().access(&permit).collections().iter().map(|info| info.name.clone()).collect::<Vec<_>>();
    assert_eq!(names, ["fresh", "public", "secrets"]);
    drop(permit);
    node.node.close();
    node.runtime.shutdown_background();
}
