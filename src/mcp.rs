//! The Model Context Protocol interface: tools, resources, prompts and completions over the node's content. No sockets.
//!
//! Owns the tools' names, arguments and answers; every other interface (the command line, REST) calls the same tools.
//! [`Server`] implements the protocol with rmcp, in both eras: 2026-07-28 (stateless, `server/discover`) and the older
//! `initialize` family. The tools come from a [`Catalog`] of [`ToolProvider`]s; the first is the node itself
//! ([`NodeTools`]), or a running node reached over HTTP, which is how `cairn mcp` serves stdio.
//!
//! Invariants: lists have a fixed order; nothing here waits for a model or an index before it answers `initialize`,
//! `server/discover` or a list; a caller's mistake is a tool error that says what to do, never a protocol error, except
//! for a tool that does not exist.

pub(crate) mod answers;
pub(crate) mod arguments;
mod catalog;
mod direct;
mod error;
mod lenient;
mod listening;
mod metrics;
#[macro_use]
mod tools;
mod document_ref;
mod node_tools;
mod prompts;
mod schema;
mod server;
pub mod values;

use serde_json::{Map, Value};

pub use catalog::{Answering, Catalog, Context, NodeProvider, ToolProvider};
pub use direct::Wire;
pub use document_ref::DocumentRef;
pub use error::{ErrorCode, ToolError};
pub use metrics::Metrics;
pub(crate) use node_tools::{
    DocumentChange, DocumentVersion, IncomingDocument, Precondition, RepeatKey, StoredDocument,
};
pub use node_tools::{NodeSnapshots, NodeTools, SOURCES_PAGE};
pub use node_tools::{Tool, definitions};
pub(crate) use node_tools::{gpu_json, problems, prune_json, schedule_json, shown_to, snapshots_json, verified_json};
pub use rmcp::model::Tool as ToolDefinition;
pub(crate) use schema::plain as plain_schema;
pub use server::{Presence, Server, WithoutStream};
pub(crate) use tools::listed;

/// The error for an invalid cursor.
pub(crate) const UNKNOWN_CURSOR: &str =
    "the cursor is not valid here; pass the next_cursor of the previous answer to the same question";

/// Arguments of a call.
pub type Arguments = Map<String, Value>;

/// Where long work reports how far it is.
pub trait Progress: Send + Sync {
    /// `done` of `total` steps; `message` says what is being done.
    fn report(&self, done: u64, total: u64, message: &str);
}

/// For callers that need no progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _done: u64, _total: u64, _message: &str) {}
}

/// The answer of a tool.
#[derive(Debug, Clone, Default)]
pub struct ToolAnswer {
    /// Matches the tool's output schema, where it has one.
    pub structured: Value,
    /// The same as JSON text, for clients that read text only.
    pub text: String,
    /// Documents that the answer speaks of.
    pub links: Vec<Link>,
}

impl ToolAnswer {
    /// An answer without links.
    #[must_use]
    pub fn new(structured: Value) -> Self {
        Self { text: structured.to_string(), structured, links: Vec::new() }
    }
}

/// A document that an answer speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Address of the resource, `ctx://…`.
    pub uri: String,
    /// Id within the node.
    pub name: String,
    /// Title of the document and the headings above the passage.
    pub title: String,
}
