//! `cairn mcp`: MCP on standard input and output, in front of a running node or of the data directory itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use rmcp::ServiceExt as _;
use serde_json::{Value, json};

use super::backend::Backend;
use super::{Common, Failure};
use crate::base::{Fault, NodeId};
use crate::mcp::{Arguments as ToolArguments, Progress, Server, Tool, ToolAnswer, ToolError, ToolProvider};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
For clients that start their servers themselves:
  {\"mcpServers\": {\"cairn\": {\"command\": \"cairn\", \"args\": [\"mcp\"]}}}

Several clients can do so at once while a node runs (`cairn serve`): each then talks to it. Without one, the first
takes the data directory for itself.")]
pub(super) struct Arguments {}

pub(super) fn run(common: &Common, _: &Arguments) -> Result<(), Failure> {
    let backend = common.backend()?;
    match backend.local() {
        Some((runtime, node)) => {
            let provider = Arc::clone(node.tools()) as Arc<dyn ToolProvider>;
            runtime.block_on(speak(provider))?;
        }
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let status = backend.call(Tool::GetStatus, json!({}))?;
            let node =
                status["node"].as_str().and_then(|text| text.parse().ok()).context("the node does not tell its id")?;
            let provider = Arc::new(RemoteTools { backend: Arc::new(backend), node });
            runtime.block_on(speak(provider))?;
            // Standard input may still be read by a thread that nothing ends.
            runtime.shutdown_background();
        }
    }
    Ok(())
}

async fn speak(provider: Arc<dyn ToolProvider>) -> anyhow::Result<()> {
    let service =
        Server::new(provider).serve(rmcp::transport::stdio()).await.context("the client did not begin as MCP")?;
    service.waiting().await.context("the connection ended badly")?;
    Ok(())
}

/// The tools of a running node.
struct RemoteTools {
    backend: Arc<Backend>,
    node: NodeId,
}

impl ToolProvider for RemoteTools {
    fn node(&self) -> NodeId {
        self.node
    }

    fn call<'a>(
        &'a self,
        tool: Tool,
        arguments: ToolArguments,
        _: &'a dyn Progress,
    ) -> Pin<Box<dyn Future<Output = Result<ToolAnswer, ToolError>> + Send + 'a>> {
        Box::pin(async move {
            let backend = Arc::clone(&self.backend);
            let called = tokio::task::spawn_blocking(move || backend.call(tool, Value::Object(arguments))).await;
            match called {
                Ok(Ok(structured)) => Ok(ToolAnswer::new(structured)),
                Ok(Err(failure)) => {
                    Err(ToolError { code: "bad_argument", message: failure.to_string(), fault: Fault::Caller })
                }
                Err(error) => {
                    Err(ToolError { code: "internal", message: error.to_string(), fault: Fault::Environment })
                }
            }
        })
    }
}
