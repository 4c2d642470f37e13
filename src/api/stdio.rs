//! MCP on standard input and output, for clients that start their servers themselves.

use std::sync::Arc;

use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;

use crate::base::Fault;
use crate::mcp::{Server, ToolProvider};

/// Why a conversation over standard input and output did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// What came first was not MCP.
    #[error("the client did not begin as MCP")]
    Begin(#[source] Box<ServerInitializeError>),
    /// The task that answers panicked.
    #[error("the connection ended badly")]
    End(#[source] tokio::task::JoinError),
}

impl StdioError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Begin(_) => Fault::Caller,
            Self::End(_) => Fault::Damage,
        }
    }
}

/// Answers the client until it closes its end.
///
/// # Errors
/// See [`StdioError`].
pub async fn answer_stdio(provider: Arc<dyn ToolProvider>) -> Result<(), StdioError> {
    let serving = Server::new(provider).serve(rmcp::transport::stdio()).await;
    let service = serving.map_err(|error| StdioError::Begin(Box::new(error)))?;
    service.waiting().await.map_err(StdioError::End)?;
    Ok(())
}
