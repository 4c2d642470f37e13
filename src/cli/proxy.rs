//! `cairn mcp`: MCP on standard input and output, in front of a running node or of the data directory itself.

use std::io::IsTerminal as _;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::backend::{Absent, Backend, Stay};
use super::{Common, Failure, UNREACHABLE, quiet_logs};
use crate::api::answer_stdio;
use crate::auth::Caller;
use crate::base::{Fault, Lsn, NodeId};
use crate::calls::{Operation, Permit, Scope};
use crate::mcp::{
    Answering, Arguments as ToolArguments, Catalog, Context, ErrorCode, Link, NodeProvider, Tool, ToolAnswer,
    ToolDefinition, ToolError, ToolProvider, definitions,
};
use crate::task;

/// How long the node is waited for that announces a change, before it is asked again.
const CHANGE_WAIT: Duration = Duration::from_secs(50);
/// Between two questions when there is no node, or it does not answer.
const NODE_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
For clients that start their servers themselves:
  {\"mcpServers\": {\"cairn\": {\"command\": \"cairn\", \"args\": [\"mcp\"]}}}

Any number of clients can do so at once, with or without a running node (`cairn serve`). Without one, the first client opens \
the data directory and answers for the others; when it ends, another takes over.

It does not create a node: until there is one, each call says what to do (`cairn add PATH` and `cairn serve` create one), and \
the first call after that uses it.")]
pub(super) struct Arguments {}

pub(super) fn run(common: &Common, _: &Arguments) -> Result<(), Failure> {
    let config = common.load()?;
    quiet_logs(&config);
    // If there is no node yet the client is served anyway, and each call reports what to do: otherwise it would only
    // show that its server ended. A wrong address is an error.
    let backend = Arc::new(Backend::later(common.address(), config, Stay::Long, Absent::Refuse));
    let node = match backend.node() {
        Ok(node) => Some(node),
        Err(failure) if common.url.is_none() && failure.code == UNREACHABLE => {
            eprintln!("{failure}");
            None
        }
        Err(failure) => return Err(failure),
    };
    let node = node.map_or_else(OnceLock::new, OnceLock::from);
    let making_way = Arc::downgrade(&backend);
    task::spawn_thread("handover", move || Backend::make_way(&making_way))?;
    let provider = Arc::new(Tools { backend: Arc::clone(&backend), node, following: OnceLock::new() });
    let request_bytes_max = backend.request_bytes_max();
    if std::io::stdin().is_terminal() {
        eprintln!(
            "cairn mcp waits for an MCP client on standard input; Ctrl-C ends it, `cairn mcp --help` says how it is used"
        );
    }
    let ended = backend.runtime()?.block_on(speak(Catalog::new(provider, Vec::new()), request_bytes_max));
    backend.close();
    Ok(ended?)
}

/// Answers the client until it closes its end, or this process is stopped.
async fn speak(catalog: Catalog, request_bytes_max: usize) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ended = answer_stdio(catalog, request_bytes_max) => Ok(ended?),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// The tools of whichever node there is.
struct Tools {
    backend: Arc<Backend>,
    /// Empty as long as there is no node.
    node: OnceLock<NodeId>,
    /// Positions of its log, once a client wants to be notified.
    following: OnceLock<watch::Receiver<Lsn>>,
}

impl NodeProvider for Tools {
    fn node(&self) -> NodeId {
        // Addresses of documents are not asked for before there are any.
        self.node.get().copied().unwrap_or(NodeId([0; 16]))
    }

    fn changes(&self) -> Option<watch::Receiver<Lsn>> {
        if let Some(following) = self.following.get() {
            return Some(following.clone());
        }
        let (positions, following) = watch::channel(Lsn::ZERO);
        let backend = Arc::downgrade(&self.backend);
        let started = task::spawn_thread("follow", move || follow(&backend, &positions));
        match started {
            Ok(_) => Some(self.following.get_or_init(|| following).clone()),
            Err(error) => {
                tracing::warn!(%error, "this client is not notified of changes: cannot start a thread");
                None
            }
        }
    }

    fn enter(&self, operation: Operation, caller: &Caller, scope: &Scope<'_>) -> Result<Option<Permit>, ToolError> {
        match self.backend.node_here() {
            Some(node) => node.tools().enter(operation, caller, scope),
            // The node decides on each tool.
            None => Ok(None),
        }
    }
}

impl ToolProvider for Tools {
    fn definition(&self, name: &str) -> Option<ToolDefinition> {
        definitions().iter().find(|tool| tool.name == name).cloned()
    }

    fn names(&self, caller: &Caller) -> Vec<String> {
        match self.backend.node_here() {
            Some(node) => node.tools().names(caller),
            None => definitions().iter().map(|tool| tool.name.to_string()).collect(),
        }
    }

    fn tools<'a>(&'a self, context: Context<'a>) -> Answering<'a, Vec<ToolDefinition>> {
        Box::pin(async move {
            if let Some(node) = self.backend.node_here() {
                return node.tools().tools(context).await;
            }
            let collections = self.call(Tool::ListCollections.name(), ToolArguments::new(), context).await;
            crate::mcp::listed(definitions().to_vec(), &collections.unwrap_or_default().structured)
        })
    }

    fn call<'a>(
        &'a self,
        tool: &'a str,
        arguments: ToolArguments,
        context: Context<'a>,
    ) -> Answering<'a, Result<ToolAnswer, ToolError>> {
        Box::pin(async move {
            if let Some(node) = self.backend.node_here() {
                return node.tools().call(tool, arguments, context).await;
            }
            let tool = tool.to_owned();
            let backend = Arc::clone(&self.backend);
            let known = self.node.get().copied();
            let called = tokio::task::spawn_blocking(move || {
                let answer = backend.call(&tool, Value::Object(arguments))?;
                Ok::<_, Failure>((known.map_or_else(|| backend.node(), Ok)?, answer))
            });
            match called.await {
                Ok(Ok((node, structured))) => {
                    self.node.get_or_init(|| node);
                    Ok(ToolAnswer { links: links(&structured), ..ToolAnswer::new(structured) })
                }
                Ok(Err(failure)) => Err(tool_error(failure)),
                Err(error) => Err(ToolError::new(ErrorCode::Internal, error.to_string(), Fault::Environment)),
            }
        })
    }
}

/// Announces the positions of the log of whichever node there is, until this process ends.
fn follow(backend: &Weak<Backend>, positions: &watch::Sender<Lsn>) {
    let mut known = None;
    while let Some(backend) = backend.upgrade().filter(|_| !positions.is_closed()) {
        match backend.changed(known, CHANGE_WAIT) {
            Some(Ok(position)) => {
                // A node that was restored has another position, which may be a lower one.
                if known.replace(position) != Some(position) {
                    positions.send_replace(position);
                }
            }
            // No node yet, or it is gone for now. An older one has no such route.
            None | Some(Err(_)) => {
                drop(backend);
                std::thread::sleep(NODE_PAUSE);
            }
        }
    }
}

/// The error of a tool as it was; anything else is between here and the node.
fn tool_error(failure: Failure) -> ToolError {
    let message = failure.to_string();
    failure.error.downcast().unwrap_or_else(|_| ToolError::new(ErrorCode::Internal, message, Fault::Environment))
}

/// Links that a node adds to the results of a search, if requested: REST has only the results.
fn links(answer: &Value) -> Vec<Link> {
    let link = |result: &Value| {
        let text = |name: &str| result[name].as_str().map(str::to_owned);
        Some(Link { uri: text("uri")?, name: text("id")?, title: text("title")? })
    };
    answer["results"].as_array().into_iter().flatten().filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_linked_and_other_answers_are_not() {
        let result = json!({"id": "notes/a#0", "uri": "ctx://0102/notes/a#0", "title": "A › B", "text": "words"});
        let expected =
            Link { uri: "ctx://0102/notes/a#0".to_owned(), name: "notes/a#0".to_owned(), title: "A › B".to_owned() };
        assert_eq!(links(&json!({"results": [result]})), [expected]);
        assert_eq!(links(&json!({"documents": [{"id": "notes/a"}]})), []);
    }

    #[test]
    fn a_tools_error_comes_through_and_others_are_the_environments() {
        let error = ToolError::new(ErrorCode::Conflict, "version 3 is there", Fault::Caller);
        assert_eq!(tool_error(error.clone().into()), error);
        let unreachable = tool_error(Failure::unreachable(anyhow::anyhow!("nobody answers")));
        assert_eq!((unreachable.code, unreachable.fault), (ErrorCode::Internal, Fault::Environment));
        assert_eq!(unreachable.message, "nobody answers");
    }
}
