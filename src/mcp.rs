//! The Model Context Protocol face: tools, resources, prompts and completions over what the node knows. No sockets.
//!
//! Owns the tools' names, arguments and answers; every other face (the command line, REST) calls the same tools.
//! [`Server`] speaks the protocol through rmcp, in both eras: 2026-07-28 (stateless, `server/discover`) and the older
//! `initialize` family. What stands behind the tools is a [`ToolProvider`]: the node itself ([`NodeTools`]), or a running
//! node reached over HTTP, which is how `cairn mcp` serves stdio.
//!
//! Invariants: lists have a fixed order; nothing here waits for a model or an index before it answers `initialize`,
//! `server/discover` or a list; a mistake of the caller is a tool error with words that tell what to do, never a
//! protocol error, except for a tool that does not exist.

mod answers;
mod arguments;
mod direct;
mod lenient;
mod node_tools;
mod place;
mod prompts;
mod schema;
mod server;
mod tools;
pub mod values;

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use serde_json::{Map, Value, json};

use crate::auth::Principal;
use crate::base::{Fault, NodeId};

pub use direct::Wire;
pub use node_tools::{NodeSnapshots, NodeTools};
pub(crate) use node_tools::{gpu_json, problems, prune_json, schedule_json, snapshots_json, verified_json};
pub use place::Place;
pub use server::{Presence, Server, WithoutStream};
pub use tools::{Tool, definitions};

/// The code of a source that could not be read when the same bytes came last either: no news.
pub const STILL_UNREAD: &str = "still_unread";
/// The code of [`ToolError::overloaded`].
pub const OVERLOADED: &str = "overloaded";

/// What is said of a cursor that no answer gave.
pub(crate) const UNKNOWN_CURSOR: &str =
    "the cursor is not valid here; pass the next_cursor of the previous answer to the same question";

/// Arguments of a call.
pub type Arguments = Map<String, Value>;

/// What answers a tool call.
pub trait ToolProvider: Send + Sync + 'static {
    /// The node that answers; part of resource addresses.
    fn node(&self) -> NodeId;

    /// Runs a tool for `principal`.
    fn call<'a>(
        &'a self,
        tool: Tool,
        arguments: Arguments,
        principal: Principal,
        progress: &'a dyn Progress,
    ) -> Pin<Box<dyn Future<Output = Result<ToolAnswer, ToolError>> + Send + 'a>>;
}

/// Where long work reports how far it is.
pub trait Progress: Send + Sync {
    /// `done` of `total` steps; `message` says what is being done.
    fn report(&self, done: u64, total: u64, message: &str);
}

/// For callers who do not want to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _done: u64, _total: u64, _message: &str) {}
}

/// What a tool answers.
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

/// Why a tool did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ToolError {
    /// Stable word for programs: `bad_argument`, `not_found`, `conflict`, `read_only`, `overloaded`, `not_visible`, `internal`;
    /// of sources also [`STILL_UNREAD`].
    pub code: &'static str,
    /// For people and models: what was found and what to do.
    pub message: String,
    /// Who can mend it.
    pub fault: Fault,
}

/// Characters of a message that are shown: what callers give is repeated in it, and may be of any length.
const MESSAGE_CHARS_MAX: usize = 1_000;

impl ToolError {
    /// An argument that cannot be used.
    #[must_use]
    pub fn bad_argument(message: impl Into<String>) -> Self {
        Self { code: "bad_argument", message: message.into(), fault: Fault::Caller }
    }

    /// Something that is not there.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: "not_found", message: message.into(), fault: Fault::Caller }
    }

    /// There is no room for the call now.
    #[must_use]
    pub fn overloaded() -> Self {
        let message = "the node is answering as many requests as it can; try again in a second";
        Self { code: OVERLOADED, message: message.to_owned(), fault: Fault::Environment }
    }

    /// The message without its middle where it is long: the beginning says what is wrong, the end what to do.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        let message = &self.message;
        let count = message.chars().count();
        if count <= MESSAGE_CHARS_MAX {
            return message.into();
        }
        let half = MESSAGE_CHARS_MAX / 2;
        let at = |nth| message.char_indices().nth(nth).map_or(message.len(), |(at, _)| at);
        format!("{} … {}", &message[..at(half)], &message[at(count - half)..]).into()
    }

    /// As the structured content of a tool error.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let fault = match self.fault {
            Fault::Caller => "caller",
            Fault::Environment => "environment",
            Fault::Damage => "damage",
        };
        json!({"error": {"code": self.code, "message": self.shown(), "fault": fault}})
    }
}
