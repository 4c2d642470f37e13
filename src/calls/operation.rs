//! Operations on a node, by name.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The name of a tool: 1 to 128 bytes. Cheap to clone.
#[derive(Clone)]
pub struct ToolName(Name);

/// Names of the node's own tools are static; those of other servers are not.
#[derive(Clone)]
enum Name {
    Builtin(&'static str),
    Other(Arc<str>),
}

impl ToolName {
    /// The name of one of the program's own tools.
    #[must_use]
    pub const fn builtin(name: &'static str) -> Self {
        Self(Name::Builtin(name))
    }

    /// A name from another server.
    #[must_use]
    pub fn other(name: &str) -> Self {
        Self(Name::Other(name.into()))
    }

    /// As in the protocol.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Builtin(name) => name,
            Name::Other(name) => name,
        }
    }

    /// For metrics, whose labels must stay few: names from other servers share one.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.0 {
            Name::Builtin(name) => name,
            Name::Other(_) => "other",
        }
    }
}

impl PartialEq for ToolName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ToolName {}

impl std::hash::Hash for ToolName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for ToolName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Serialize for ToolName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The effect of an operation on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It reads.
    Read,
    /// It adds or changes.
    Write,
    /// It deletes, or changes the whole node.
    Destroy,
}

/// Something that can be done with a node: a tool, or an operation of another interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Operation {
    name: ToolName,
    effect: Effect,
    is_tool: bool,
}

macro_rules! operations {
    ($($constant:ident $name:literal $effect:ident $description:literal;)*) => {
        impl Operation {
            $(#[doc = $description] pub const $constant: Self =
                Self { name: ToolName::builtin($name), effect: Effect::$effect, is_tool: false };)*

            /// Every operation that is not a tool.
            pub const OTHERS: &[Self] = &[$(Self::$constant),*];
        }
    };
}

operations! {
    LIST_TOOLS "list_tools" Read "The list of tools.";
    LIST_RESOURCES "list_resources" Read "The list of documents as MCP resources.";
    READ_RESOURCE "read_resource" Read "A document or passage as an MCP resource.";
    LIST_PROMPTS "list_prompts" Read "The list of prompts.";
    GET_PROMPT "get_prompt" Read "A prompt.";
    COMPLETE "complete" Read "Completion of an argument.";
    LISTEN "listen" Read "Notifications of changed lists.";
    SYNC_SOURCE "sync_source" Write "Brings the documents of a file in line with its content.";
    DELETE_SOURCE "delete_source" Destroy "Deletes the documents of a file.";
    LIST_SOURCES "list_sources" Read "The files that were added.";
    LIST_FOLDERS "list_folders" Read "The folders that were added, and where they are.";
    NOTE_FOLDER "note_folder" Write "Remembers where a folder is.";
    LIST_JOBS "list_jobs" Read "The long work that a caller started.";
    FLUSH "flush" Read "Waits until searches see everything written before.";
    COMPACT "compact" Write "Clears dead records out of the log.";
    VERIFY_SNAPSHOT "verify_snapshot" Read "Proves a snapshot.";
    SNAPSHOT_SCHEDULE "snapshot_schedule" Read "Settings of snapshots, and their last results.";
    PRUNE_SNAPSHOTS "prune_snapshots" Destroy "Removes the snapshots that the settings do not retain.";
    EVALUATE "evaluate" Write "Measures the quality of searches.";
    SWEEP "sweep" Destroy "Removes expired documents.";
    COPY_DOCUMENTS "copy_documents" Destroy "Copies documents from another node's log.";
    TAKE_SNAPSHOT "take_snapshot" Read "Reads what a snapshot needs.";
    OBSERVE "observe" Read "Reads the figures of metrics and logs.";
}

impl Operation {
    /// A call of a tool.
    #[must_use]
    pub const fn tool(name: ToolName, effect: Effect) -> Self {
        Self { name, effect, is_tool: true }
    }

    /// As in policies and audit records.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its effect on the node.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The tool's label in metrics; `None` when it is not one.
    pub(super) fn tool_label(&self) -> Option<&'static str> {
        self.is_tool.then(|| self.name.label())
    }
}

/// The collections that a call names.
#[derive(Debug, Clone)]
pub enum Scope<'a> {
    /// None: it concerns the node, or no particular collection.
    Node,
    /// Every collection that the caller may see.
    Every,
    /// One, which does not have to exist.
    One(Cow<'a, str>),
    /// These, which do not have to exist.
    Many(Cow<'a, [String]>),
}

impl Scope<'_> {
    /// The names, if there are any.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Node | Self::Every => Vec::new(),
            Self::One(name) => vec![name],
            Self::Many(names) => names.iter().map(String::as_str).collect(),
        }
    }
}
