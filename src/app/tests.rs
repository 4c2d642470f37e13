//! Every way into a node passes [`Calls::enter`] once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::auth::{Caller, Transport};
use crate::calls::{Call, EndedCall, Outcome, Reach, Refusal, Scope};
use crate::collection::FolderOrigin;
use crate::config::Overrides;
use crate::index::filter::Filter;
use crate::mcp::{Context, ErrorCode, ToolError, ToolProvider as _};

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

    /// A call of a tool by a caller that sees everything.
    fn call_unhidden(&self, tool: &str, arguments: Value) -> Result<Value, ToolError> {
        let Value::Object(arguments) = arguments else { unreachable!("it is an object") };
        let here = Caller::local(Transport::CommandLine);
        let called = self.node.tools().call(tool, arguments, Context::of(&here));
        self.runtime.block_on(called).map(|answer| answer.structured)
    }

    fn stop(self) {
        self.node.close();
        self.runtime.shutdown_background();
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
        // A change reads what it changes, in the same call.
        (
            node.rest("PATCH", "/v1/collections/public/documents/heron", &json!({"metadata": {"seen": 1}})),
            "update_document public",
            true,
        ),
        (
            node.rest("PATCH", "/v1/collections/public/documents/heron", &json!({"metadata": {"draft": true}})),
            "update_document public",
            false,
        ),
        (
            node.rest("PATCH", "/v1/collections/public/documents/draft", &json!({"title": "x"})),
            "update_document public",
            false,
        ),
        // What is copied is named, too.
        (
            node.rest("PUT", "/v1/collections/fresh/documents/copy", &json!({"uri": uri("public")})),
            "add_documents fresh,public",
            true,
        ),
        (
            node.rest("PUT", "/v1/collections/fresh/documents/copy", &json!({"uri": uri("secrets")})),
            "add_documents fresh,secrets",
            false,
        ),
        // An id that names no collection may be of any.
        (node.rest("POST", "/v1/tools/delete_documents", &json!({"ids": ["heron"]})), "delete_documents ", false),
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
    // What is not there is not entered.
    let unknown = node.mcp("tools/call", &call("nothing", json!({})));
    assert!(unknown.contains("list_collections") && !unknown.contains("restore_snapshot"), "{unknown}");
    let unknown = node.rest("POST", "/v1/tools/nothing", &json!({}));
    assert!(unknown.contains("list_collections") && !unknown.contains("restore_snapshot"), "{unknown}");
    assert_eq!(node.taken(), [""; 0]);
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
    node.stop();
}

#[test]
fn what_a_caller_does_not_see_shows_in_nothing() {
    let node = Watched::start();
    let here = Caller::local(Transport::CommandLine);
    let origin = FolderOrigin { host: "h".to_owned(), path: "/there".to_owned() };
    for (folder, draft) in [("plans", true), ("open", false)] {
        let Value::Object(metadata) = json!({"draft": draft, "merger": 1}) else { unreachable!("it is an object") };
        let source = format!("{folder}/merger.md");
        let synced = node.node.tools().sync_source(&here, "public", &source, b"The merger of 2031.".to_vec(), metadata);
        node.runtime.block_on(synced).expect("synced");
        let noted = node.node.tools().note_folder(&here, "public", folder, &origin);
        node.runtime.block_on(noted).expect("noted");
    }
    node.runtime.block_on(node.node.tools().flush(&here)).expect("flushed");
    // Names of files and folders are ids.
    let sources = node.rest("GET", "/v1/collections/public/sources", &json!({}));
    assert!(sources.contains("open/merger.md") && !sources.contains("plans"), "{sources}");
    let folders = node.rest("GET", "/v1/collections/public/folders", &json!({}));
    assert!(folders.contains("open") && !folders.contains("plans"), "{folders}");
    // Neither do errors give an id that the caller did not give.
    for (method, path, body, says) in [
        ("POST", "/v1/collections/public/folders/x", json!({"host": "h", "path": "/x"}), "all of collection 'public'"),
        ("DELETE", "/v1/collections/public", json!({}), "all of collection 'public'"),
        ("DELETE", "/v1/collections/public/sources/plans/merger.md", json!({}), "all of source 'plans/merger.md'"),
    ] {
        let refused = node.rest(method, path, &body);
        assert!(refused.contains(says) && refused.contains("forbidden"), "{path}: {refused}");
        assert!(!refused.contains("draft"), "{path}: {refused}");
    }
    let listed = node.rest("GET", "/v1/collections", &json!({}));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let public = &listed["collections"][0];
    let shown = ["name", "documents", "passages", "bytes", "generation"].map(|field| public[field].clone());
    assert_eq!(shown, [json!("public"), json!(2), json!(2), Value::Null, Value::Null], "{listed}");
    let described = node.rest("GET", "/v1/collections/public", &json!({}));
    let described: Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!((&described["documents"], &described["fields"]), (&json!(2), &json!([])), "{described}");
    let status: Value = serde_json::from_str(&node.rest("GET", "/v1/status", &json!({}))).expect("JSON");
    assert_eq!((&status["documents"], &status["passages"]), (&json!(2), &json!(2)), "{status}");
    let misspelt = json!({"query": "herom reets", "mode": "lexical"});
    let guessed = node.call_unhidden("search", misspelt.clone()).expect("searched").to_string();
    assert!(guessed.contains("nothing has"), "{guessed}");
    let guessed = node.rest("POST", "/v1/tools/search", &misspelt);
    assert!(guessed.contains("public/heron") && !guessed.contains("nothing has"), "{guessed}");
    // Nor do the node's problems, in `/ready` and `get_status`.
    let there = Caller::local(Transport::Http);
    let permit = node.node.calls().enter(Operation::OBSERVE, &there, &Scope::Node).expect("admitted");
    let names = ["index of public", "index of secrets", "reads"];
    let problems = names.map(|name| (name.to_owned(), "it is broken".to_owned())).into_iter().collect();
    let shown = crate::mcp::shown_to(node.node.library().access(&permit), &problems);
    assert_eq!(shown.keys().collect::<Vec<_>>(), ["another index", "index of public", "reads"]);
    drop(permit);
    node.stop();
}

#[test]
fn a_caller_writes_only_what_it_will_see() {
    let node = Watched::start();
    let path = "/v1/tools/add_documents";
    let add = |documents: Value| node.rest("POST", path, &json!({"collection": "public", "documents": documents}));
    let refused = add(json!([{"id": "mine", "text": "x", "metadata": {"draft": true}}]));
    assert!(refused.contains("forbidden") && refused.contains("you would not see it"), "{refused}");
    node.call_unhidden("fetch", json!({"id": "public/mine"})).expect_err("not written");
    // Two documents of one id in one call, as for anybody.
    let twice = add(json!([{"id": "twice", "text": "one"}, {"id": "twice", "text": "two"}]));
    assert!(twice.contains("\"created\":1") && twice.contains("\"updated\":1"), "{twice}");
    // Many that are beyond reach cost one look.
    let hidden: Vec<Value> = (0..200).map(|_| json!({"id": "draft", "text": "mine"})).collect();
    let refused = add(json!(hidden));
    assert!(refused.contains("you may not change document 'draft'"), "{refused}");
    assert!(node.rest("DELETE", "/v1/collections/public/documents/twice", &json!({})).is_empty());
    node.stop();
}

#[test]
fn what_is_deleted_or_changed_is_named_in_full() {
    let node = Watched::start();
    let document = json!({"collection": "other", "documents": [{"id": "docs/plan.md", "text": "A plan."}]});
    node.call_unhidden("add_documents", document).expect("added");
    assert!(node.call_unhidden("fetch", json!({"id": "plan.md"})).is_ok(), "to read, the end of an id is enough");
    for (tool, arguments) in
        [("delete_documents", json!({"ids": ["plan.md"]})), ("update_document", json!({"id": "plan.md", "title": "x"}))]
    {
        let error = node.call_unhidden(tool, arguments).expect_err("not guessed");
        assert_eq!(error.code, ErrorCode::NotFound);
        assert!(error.message.contains("did you mean 'other/docs/plan.md'"), "{error}");
    }
    // Rules decided on what the id names, which is another collection.
    for (tool, arguments) in [
        ("fetch", json!({"id": "docs/plan.md"})),
        ("delete_documents", json!({"ids": ["docs/plan.md"]})),
        ("update_document", json!({"id": "docs/plan.md", "title": "x"})),
    ] {
        let error = node.call_unhidden(tool, arguments).expect_err("beyond what it names");
        assert_eq!(error.code, ErrorCode::NotFound);
        assert!(!error.message.contains("other"), "{error}");
    }
    node.stop();
}

#[test]
fn a_key_is_of_one_request() {
    let node = Watched::start();
    let add = |text: &str| {
        let documents = json!([{"id": "a", "text": text}]);
        let arguments = json!({"collection": "keys", "idempotency_key": "k".repeat(256), "documents": documents});
        node.call_unhidden("add_documents", arguments)
    };
    let first = add("one").expect("written");
    assert_eq!(add("one").expect("repeated"), first);
    assert_eq!(add("two").expect_err("another").code, ErrorCode::KeyReused);
    node.stop();
}
