//! Outcomes of writing documents.

use super::errors::WriteError;
use super::input::PrepareError;
use crate::base::Lsn;
use crate::store::Outcome;

/// The outcome of one document of a write.
#[derive(Debug)]
pub struct DocumentOutcome {
    /// The document's id, or the name of the source when it could not be read.
    pub id: String,
    /// See [`DocumentStatus`].
    pub status: DocumentStatus,
    /// The version that is there now; `None` when nothing is.
    pub version: Option<u64>,
    /// Passages of that version.
    pub passages: usize,
}

/// How a document fared in a write.
#[derive(Debug)]
pub enum DocumentStatus {
    /// It is new.
    Created,
    /// It replaced an older version.
    Updated,
    /// It was there already, word for word.
    Unchanged,
    /// It was deleted.
    Deleted,
    /// It was rejected; the others of the same call were not affected.
    Failed(WriteError),
}

/// The outcome of a source: a file, with its documents.
#[derive(Debug)]
pub struct SourceOutcome {
    /// One entry per document that was created, updated or deleted; unchanged ones are counted only.
    pub documents: Vec<DocumentOutcome>,
    /// Documents that were there already, word for word.
    pub unchanged: usize,
    /// Warnings, in words.
    pub warnings: Vec<String>,
}

/// What to do if a collection does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is made as soon as something is there to go in.
    Create,
    /// Nothing is written.
    Refuse,
}

/// The outcomes of the documents of one call.
#[derive(Debug)]
pub struct Added {
    /// In the order of the call.
    pub outcomes: Vec<DocumentOutcome>,
    /// Up to where the write is.
    pub lsn: Lsn,
    /// Whether the collection was made for them.
    pub collection_created: bool,
}

/// The documents of one call, those that could not be prepared among them.
pub(super) struct Addition {
    pub(super) collection: String,
    pub(super) collection_created: bool,
    pub(super) documents: Vec<Result<PreparedDocument, DocumentOutcome>>,
}

/// A document on its way to the log.
pub(super) struct PreparedDocument {
    pub(super) id: String,
    pub(super) passages: usize,
    /// The version that must be there.
    pub(super) expected: Option<u64>,
}

impl Addition {
    /// * `written`: one for each that was prepared.
    pub(super) fn added(self, written: &[Outcome], lsn: Lsn) -> Added {
        let mut written = written.iter();
        let mut outcome = |document: Result<PreparedDocument, DocumentOutcome>| match document {
            Ok(PreparedDocument { id, passages, expected }) => {
                let outcome = written.next().expect("each operation has an outcome");
                document_outcome(&self.collection, id, passages, expected, outcome)
            }
            Err(failed) => failed,
        };
        let outcomes = self.documents.into_iter().map(&mut outcome).collect();
        Added { outcomes, lsn, collection_created: self.collection_created }
    }
}

/// The documents that a source no longer contains.
pub(super) fn deleted(outcome: Option<Outcome>) -> Vec<String> {
    match outcome {
        Some(Outcome::DeletedFromSource { ids }) => ids,
        _ => Vec::new(),
    }
}

fn overtaken(id: &str) -> WriteError {
    WriteError::Overtaken { what: format!("document '{id}'") }
}

pub(super) fn failed(id: String, error: WriteError) -> DocumentOutcome {
    DocumentOutcome { id, status: DocumentStatus::Failed(error), version: None, passages: 0 }
}

pub(super) fn document_outcome(
    collection: &str,
    id: String,
    passages: usize,
    expected: Option<u64>,
    outcome: &Outcome,
) -> DocumentOutcome {
    let done = |id, status, version: u64, passages| DocumentOutcome { id, status, version: Some(version), passages };
    match *outcome {
        Outcome::TooLarge { what, bytes, limit } => {
            let error = PrepareError::TooLarge { what, found: bytes, limit };
            failed(id, error.into())
        }
        Outcome::Created { version, .. } => done(id, DocumentStatus::Created, version, passages),
        Outcome::Updated { version, .. } => done(id, DocumentStatus::Updated, version, passages),
        Outcome::Unchanged { version } => done(id, DocumentStatus::Unchanged, version, passages),
        Outcome::Kept { version, chunks } => done(id, DocumentStatus::Unchanged, version, chunks as usize),
        Outcome::Deleted { .. } => DocumentOutcome { id, status: DocumentStatus::Deleted, version: None, passages: 0 },
        Outcome::Missing => {
            let error = WriteError::NoSuchDocument { collection: collection.to_owned(), id: id.clone() };
            failed(id, error)
        }
        Outcome::Conflict { actual } => {
            let error = match expected {
                Some(expected) => WriteError::Conflict { id: id.clone(), expected, actual },
                // Of the version that was looked at.
                None => overtaken(&id),
            };
            failed(id, error)
        }
        Outcome::Overtaken => {
            let error = overtaken(&id);
            failed(id, error)
        }
        Outcome::NoSuchCollection => failed(id, WriteError::NoSuchCollection { name: collection.to_owned() }),
        Outcome::CollectionCreated(_)
        | Outcome::CollectionExists(_)
        | Outcome::CollectionDeleted
        | Outcome::Noted
        | Outcome::DeletedFromSource { .. } => unreachable!("the operation was on a document"),
    }
}
