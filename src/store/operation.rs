//! What is written: operations, and what becomes of each.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::record::{ChunkBody, CollectionId, NewCollection};
use crate::base::{Digest, Lsn, UnixMillis};

/// Maximum length of a document id, source name, collection name, answer key or note, in bytes: they become keys and
/// values of the catalog.
pub const NAME_BYTES_MAX: usize = 4096;

/// An operation on the store.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Creates a collection, unless the name is in use.
    CreateCollection(NewCollection),
    /// Deletes a collection with all of its documents.
    DeleteCollection {
        /// Which one.
        collection: CollectionId,
    },
    /// Writes a document, new or replacing the one with its id.
    PutDocument(Box<NewDocument>),
    /// Deletes a document.
    DeleteDocument {
        /// Where it is.
        collection: CollectionId,
        /// Which one.
        id: String,
        /// The version that the caller expects; any other one is a conflict. 0: the document must not exist.
        if_version: Option<u64>,
    },
    /// Deletes the documents of a source that are not in `keep`. They are determined when the operation runs, so
    /// documents that another request wrote just before are included.
    DeleteFromSource {
        /// Where they are.
        collection: CollectionId,
        /// Their source.
        source: String,
        /// Ids of those that stay.
        keep: HashSet<String>,
    },
    /// Stores a small value with a collection and replaces the key's previous one.
    Note {
        /// Where.
        collection: CollectionId,
        /// Unique in the collection.
        key: String,
        /// At most [`NAME_BYTES_MAX`]; an empty value deletes the note.
        value: Vec<u8>,
    },
}

/// A document to write. The fields are those of [`super::DocumentRecord`].
#[derive(Debug, Clone)]
pub struct NewDocument {
    /// The collection to write to.
    pub collection: CollectionId,
    /// Unique in the collection.
    pub id: String,
    /// Title for people.
    pub title: String,
    /// Where the original is.
    pub url: Option<String>,
    /// A JSON object.
    pub metadata: Vec<u8>,
    /// The declared source that it belongs to.
    pub source: Option<String>,
    /// Digest of the original bytes.
    pub source_digest: Option<Digest>,
    /// Digest of everything the caller provided; nothing is written when it equals that of the current version.
    pub content_digest: Digest,
    /// Media type of the original.
    pub media_type: String,
    /// When it may be deleted.
    pub expires_at: Option<UnixMillis>,
    /// The version that the caller expects to replace; any other one is a conflict. 0: the document must not exist.
    pub if_version: Option<u64>,
    /// If a document has the id, leave it unchanged.
    pub unless_exists: bool,
    /// LSN of the version that the writer looked at, zero for none: another one that this request did not write is left
    /// unchanged, see [`Outcome::Overtaken`]. `None` where nothing was looked at.
    pub looked_at: Option<Lsn>,
    /// In the order of the document.
    pub chunks: Vec<NewChunk>,
}

/// A passage of a document to write.
#[derive(Debug, Clone)]
pub struct NewChunk {
    /// Bytes of the source.
    pub range: Range<u64>,
    /// Page of the source, from 1, if it has pages.
    pub page: Option<u32>,
    /// Its text and embedding.
    pub body: Arc<ChunkBody>,
}

/// Operations whose records survive a crash together or not at all. An operation with no effect or a conflict does not
/// stop the others.
#[derive(Debug, Clone, Default)]
pub struct WriteRequest {
    /// In order of execution.
    pub operations: Vec<Operation>,
    /// Makes it safe to send the request again; `None` for a request that runs each time it is sent.
    pub once: Option<RunOnce>,
    /// Nothing is done if this collection has changed after that position, see [`Outcome::Overtaken`]: for operations on
    /// documents that they do not name.
    pub unless_changed: Option<(CollectionId, Lsn)>,
}

/// Ensures that a request runs once in 24 hours: its answer is stored in the same batch as its effects, so that a crash
/// leaves both or neither, and a repeated request gets that answer.
#[derive(Clone)]
pub struct RunOnce {
    /// Idempotency key, which the caller of the store makes unique for the sender; at most [`NAME_BYTES_MAX`] bytes.
    pub key: String,
    /// Composes the answer from the outcome of each operation and the LSN of the answer's record. Called at most once,
    /// by the writer. An answer that does not fit into a record is returned but not stored.
    pub compose: Arc<Compose>,
}

/// See [`RunOnce::compose`].
pub type Compose = dyn Fn(&[Outcome], Lsn) -> Vec<u8> + Send + Sync;

impl fmt::Debug for RunOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOnce").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The collection was created.
    CollectionCreated(CollectionId),
    /// The name is in use; nothing was done.
    CollectionExists(CollectionId),
    /// The collection was deleted.
    CollectionDeleted,
    /// The document is new.
    Created {
        /// Its version.
        version: u64,
        /// LSN of its record.
        lsn: Lsn,
    },
    /// The document replaced an older version.
    Updated {
        /// Its version.
        version: u64,
        /// LSN of its record.
        lsn: Lsn,
    },
    /// The document exists with the same content digest; nothing was done.
    Unchanged {
        /// Its version.
        version: u64,
    },
    /// A document with the id exists and was left unchanged.
    Kept {
        /// Its version.
        version: u64,
        /// How many chunks it has.
        chunks: u32,
    },
    /// The document was deleted.
    Deleted {
        /// The version that it had.
        version: u64,
    },
    /// The document does not exist.
    Missing,
    /// The document does not have the expected version; nothing was done.
    Conflict {
        /// Its current version, if it exists.
        actual: Option<u64>,
    },
    /// Another request changed what the writer had looked at; nothing was done.
    Overtaken,
    /// The collection does not exist; nothing was done.
    NoSuchCollection,
    /// These documents of the source were deleted.
    DeletedFromSource {
        /// Their ids, in byte order.
        ids: Vec<String>,
    },
    /// The note was stored.
    Noted,
    /// The operation cannot be stored; nothing was done.
    TooLarge {
        /// Which part of it.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The maximum.
        limit: usize,
    },
}

impl WriteRequest {
    /// Whether it only deletes; such requests are accepted when the disk is nearly full.
    #[must_use]
    pub fn only_deletes(&self) -> bool {
        let deletes = |operation: &Operation| match operation {
            Operation::DeleteCollection { .. }
            | Operation::DeleteDocument { .. }
            | Operation::DeleteFromSource { .. } => true,
            Operation::Note { value, .. } => value.is_empty(),
            Operation::CreateCollection(_) | Operation::PutDocument(_) => false,
        };
        self.once.is_none() && self.operations.iter().all(deletes)
    }
}
