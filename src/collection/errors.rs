//! Why collections cannot be opened or written to.

use std::sync::Arc;

use super::input::PrepareError;
use crate::base::{ByteSize, Fault};
use crate::embed::EmbedError;
use crate::index::lexical::LexicalError;
use crate::index::vector;
use crate::store;

/// Why a node's collections could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log could not be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// An index directory cannot be used.
    #[error(transparent)]
    Lexical(#[from] LexicalError),
    /// An index directory cannot be used.
    #[error(transparent)]
    Vector(#[from] vector::OpenError),
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::Lexical(error) => error.fault(),
            Self::Vector(error) => error.fault(),
            Self::Thread(_) => Fault::Environment,
        }
    }
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No such collection.
    #[error("there is no collection '{name}'")]
    NoSuchCollection {
        /// The name asked for.
        name: String,
    },
    /// A collection of that name exists.
    #[error("collection '{name}' exists already")]
    CollectionExists {
        /// Its name.
        name: String,
    },
    /// A name that no collection can have.
    #[error(
        "'{name}' cannot name a collection: expected 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
    )]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// The caller may not make a collection of that name.
    #[error("you may not create collection '{name}' here")]
    OutOfReach {
        /// The name asked for.
        name: String,
    },
    /// The call would replace or delete a document that the caller may not see.
    #[error("you may not change document '{id}' in collection '{collection}'")]
    DocumentOutOfReach {
        /// The collection's name.
        collection: String,
        /// The document's id.
        id: String,
    },
    /// The call would replace or delete documents that it does not name, and the caller may not see all of them.
    #[error("you may not change all of {what}")]
    WholeOutOfReach {
        /// The collection or source.
        what: String,
    },
    /// The caller may not see the document that it would write.
    #[error("you may not write document '{id}' with this metadata: you would not see it")]
    WouldBeOutOfReach {
        /// The document's id.
        id: String,
    },
    /// Another call changed what this one was about to change. Nothing of it was done.
    #[error("another call changed {what} at the same time, so this one left it as it is; try again")]
    Overtaken {
        /// The document, collection or source.
        what: String,
    },
    /// Which documents the caller may see cannot be read.
    #[error(transparent)]
    Index(#[from] LexicalError),
    /// No such document.
    #[error("there is no document '{id}' in collection '{collection}'")]
    NoSuchDocument {
        /// The collection's name.
        collection: String,
        /// The id asked for.
        id: String,
    },
    /// The document cannot be read as one.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The same, of a source whose same bytes could not be read when they came last.
    #[error(transparent)]
    StillUnread(PrepareError),
    /// Embeddings of one model mean nothing to another.
    #[error("collection '{collection}' has embeddings of model {expected}, and these are of {found}")]
    OtherModel {
        /// The collection's name.
        collection: String,
        /// Its model.
        expected: String,
        /// The model of what was to be written.
        found: String,
    },
    /// The caller expected another version.
    #[error("{}", conflict(.id, *.expected, *.actual))]
    Conflict {
        /// The document.
        id: String,
        /// What the caller expected; 0 for "must not exist".
        expected: u64,
        /// The actual version.
        actual: Option<u64>,
    },
    /// Others are being written, and there is no memory left for this one. Nothing was done.
    #[error("the node has no memory left for this while others are adding documents; try again in a moment")]
    Busy,
    /// It needs more memory than there is even without other work. Nothing was done.
    #[error(
        "adding this takes about {needed} of memory, and this node has {max} for that beside its indexes: send it in smaller parts, or \
         give the node more (memory.max_bytes, or the limit of its container or unit)"
    )]
    NoMemory {
        /// The required memory.
        needed: ByteSize,
        /// The available memory.
        max: ByteSize,
    },
    /// The log refuses.
    #[error("{}", .0)]
    Commit(#[source] Arc<store::CommitError>),
    /// The log could not be compacted completely.
    #[error("dead records stay in the log for now")]
    Compact(#[source] Arc<store::CompactError>),
    /// Stored data cannot be read.
    #[error(transparent)]
    Read(#[from] store::ReadError),
    /// The model is unknown, or cannot answer.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// It is on stable storage, and searches do not see it.
    #[error(
        "it is written, on stable storage, and cannot be found yet: {reason}; the index recovers automatically; do not write it again"
    )]
    NotVisible {
        /// Why the index does not have it.
        reason: String,
    },
    /// The node is stopping.
    #[error("the node is stopping; whether the write was done is not known")]
    Stopping,
    /// A thread of the write path has ended. Reads continue.
    #[error("the node cannot write: {reason}; whether this write was done is not known")]
    Broken {
        /// Which thread, and how it ended.
        reason: String,
    },
}

impl WriteError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoSuchCollection { .. }
            | Self::CollectionExists { .. }
            | Self::BadName { .. }
            | Self::OutOfReach { .. }
            | Self::DocumentOutOfReach { .. }
            | Self::WholeOutOfReach { .. }
            | Self::WouldBeOutOfReach { .. }
            | Self::Overtaken { .. }
            | Self::NoSuchDocument { .. }
            | Self::OtherModel { .. }
            | Self::Conflict { .. }
            | Self::NoMemory { .. } => Fault::Caller,
            Self::Prepare(error) | Self::StillUnread(error) => error.fault(),
            Self::Commit(error) => error.fault(),
            Self::Compact(error) => error.fault(),
            Self::Read(error) => error.fault(),
            Self::Embed(error) => error.fault(),
            Self::Index(error) => error.fault(),
            Self::Busy | Self::NotVisible { .. } | Self::Stopping | Self::Broken { .. } => Fault::Environment,
        }
    }
}

fn conflict(id: &str, expected: u64, actual: Option<u64>) -> String {
    match (expected, actual) {
        (0, Some(version)) => format!("document '{id}' exists already, at version {version}"),
        (expected, Some(version)) => format!("document '{id}' is at version {version}, expected version {expected}"),
        (expected, None) => format!("there is no document '{id}', expected version {expected}"),
    }
}
