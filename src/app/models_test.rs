//! What clients get when a model fails, end to end: from a tool's arguments to its JSON.

use std::path::Path;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::*;
use crate::auth::{Caller, Transport};
use crate::embed::testing::Switched;
use crate::extraction;
use crate::mcp::{Context, Tool, ToolProvider as _};

/// A node with a model that fails on demand.
fn node(directory: &Path, model: Arc<Switched>) -> Node {
    let text = format!("[node]\ndata_dir = {:?}\n[index]\ngpu = \"off\"\n", directory.display().to_string());
    let config = Config::read(&text, "test").expect("valid");
    let (readiness, metrics) = (Readiness::default(), Metrics::new());
    let models = Arc::new(Models::built_in().with(model));
    let library =
        collection::Config { extraction: extraction::Config::here(), ..library_config(&config, models, None) };
    let (library, _) = Library::open(library, &readiness, &metrics.collections).expect("opened");
    let calls = Calls::new(Vec::new(), metrics.calls.clone());
    Node::over(library, calls, &config, (readiness, metrics), &Handle::current(), None)
}

async fn call(node: &Node, tool: Tool, arguments: Value) -> Result<Value, String> {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let answer = node.tools.call(tool.name(), arguments, Context::of(&Caller::local(Transport::CommandLine))).await;
    answer.map(|answer| answer.structured).map_err(|error| format!("{}: {}", error.code, error.message))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_that_a_model_does_not_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = Switched::new("switched-64", 64);
    let node = node(directory.path(), Arc::clone(&model));
    let made = json!({"name": "notes", "model": "switched-65"});
    let error = call(&node, Tool::CreateCollection, made).await.expect_err("an unknown model");
    let expected = "bad_argument: there is no model 'switched-65'; this node has static-minilm-256, switched-64";
    assert_eq!(error, expected);
    call(&node, Tool::CreateCollection, json!({"name": "notes", "model": "switched-64"})).await.expect("created");
    let documents = json!({"collection": "notes", "documents": [{"id": "pump", "text": "The pump is worn."}]});
    call(&node, Tool::AddDocuments, documents.clone()).await.expect("added");
    let answer = call(&node, Tool::Search, json!({"query": "worn pump"})).await.expect("an answer");
    assert_eq!(answer.get("searched"), None, "{answer}");
    model.fail("connection refused");
    let answer = call(&node, Tool::Search, json!({"query": "a worn pump"})).await.expect("an answer");
    assert_eq!(answer["results"][0]["id"], "notes/pump#0", "{answer}");
    assert_eq!(answer["searched"]["mode"], "hybrid", "{answer}");
    assert_eq!(answer["searched"]["mode_used"], "lexical", "{answer}");
    let reason = "model switched-64 does not answer: connection refused";
    assert_eq!(answer["searched"]["mode_reason"], reason, "{answer}");
    let dense = json!({"query": "a worn pump", "mode": "dense"});
    let error = call(&node, Tool::Search, dense).await.expect_err("no answer");
    assert_eq!(error, format!("internal: {reason}"));
    // A cached answer needs no model.
    let answer = call(&node, Tool::Search, json!({"query": "worn pump"})).await.expect("an answer");
    assert_eq!(answer.get("searched"), None, "{answer}");
    // The proof of a snapshot uses the node's models, not a separate set.
    let canaries = Probe::canaries(&snapshots::Collections::new(Arc::clone(&node.library), node.calls().clone()), 3);
    assert!(canaries.is_empty(), "{canaries:?}");
    let documents = json!({"collection": "notes", "documents": [{"id": "valve", "text": "The valve is red."}]});
    let error = call(&node, Tool::AddDocuments, documents).await.expect_err("nothing to write");
    assert!(error.ends_with(&format!("nothing was written: notes/valve: {reason}")), "{error}");
}
