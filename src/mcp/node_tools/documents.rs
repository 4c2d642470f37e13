//! Single documents and many at once, as REST reads and writes them. Each is the same operation as the tool that does it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::call::ReadContext;
use super::inputs::input;
use super::shapes::document_result;
use super::writing::{DocumentChange, IncomingDocument, RepeatKey, read_copies, scope_of_write};
use super::{Call, NodeTools, Tool};
use crate::auth::Caller;
use crate::base::Fault;
use crate::calls::{Permit, Scope};
use crate::collection::{Added, Body, CollectionInfo, DocumentOutcome, DocumentRecord, DocumentStatus, Missing};
use crate::mcp::answers::DocumentResult;
use crate::mcp::arguments::{ConflictArgument, NewDocument};
use crate::mcp::error::ended;
use crate::mcp::{DocumentRef, ErrorCode, NoProgress, ToolError};
use crate::retrieval::{SearchError, shown_metadata};

/// A document as it is stored.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct StoredDocument {
    /// Unique in its collection, and without its name: answers of tools and of writes have the name before it.
    pub(crate) id: String,
    pub(crate) collection: String,
    pub(crate) title: String,
    /// Where people find the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Its whole text, as it was extracted.
    pub(crate) text: String,
    /// The format it was extracted from.
    pub(crate) media_type: String,
    pub(crate) metadata: Map<String, Value>,
    /// The file that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Grows with each change; the end of its ETag.
    pub(crate) version: u64,
    /// When it last changed.
    pub(crate) updated_at: String,
    /// From when on it is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
    /// How many passages it has.
    pub(crate) passages: usize,
}

/// A state of a document: its version, in its collection. A collection that was deleted and created again is another
/// one, in which versions begin again; and so is one that was restored, in which they come again with another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DocumentVersion {
    /// The collection's id, with that of the log's epoch; `None` for any.
    pub(crate) collection: Option<u64>,
    pub(crate) version: u64,
}

impl DocumentVersion {
    /// * `epoch`: of the log.
    fn new(info: &CollectionInfo, epoch: u64, version: u64) -> Self {
        // Both are in it: ids are small numbers, epochs are random.
        Self { collection: Some(info.id.0.0 ^ epoch), version }
    }

    /// Whether this is the state of a document that is at `current`.
    pub(crate) fn is_of(self, current: Self) -> bool {
        self.version == current.version && self.collection.is_none_or(|id| Some(id) == current.collection)
    }
}

/// The state that a write expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Anything.
    None,
    /// No document of that id.
    Absent,
    /// A document of that id.
    Present,
    /// One of these.
    OneOf(Vec<DocumentVersion>),
}

impl Precondition {
    /// Whether a document that is at `current` is as expected.
    pub(crate) fn admits(&self, current: DocumentVersion) -> bool {
        match self {
            Self::None | Self::Present => true,
            Self::Absent => false,
            Self::OneOf(versions) => versions.iter().any(|version| version.is_of(current)),
        }
    }
}

/// The error where a document is not as expected.
fn not_as_expected(collection: &str, id: &str) -> ToolError {
    let shown: String = id.chars().take(200).collect();
    let message = format!("document '{collection}/{shown}' is at another version than If-Match names; read it again");
    ToolError::new(ErrorCode::Conflict, message, Fault::Caller)
}

impl ReadContext<'_> {
    /// A document that is as expected, and its state.
    ///
    /// # Errors
    /// `not_found`, or `conflict` when its state is another one.
    fn as_expected(
        &self,
        collection: &str,
        id: &str,
        expected: &Precondition,
    ) -> Result<(Arc<DocumentRecord>, DocumentVersion), ToolError> {
        let info = self.existing(collection)?;
        let document = self.exactly(collection, id)?;
        let state = DocumentVersion::new(&info, self.tools.library.log().epoch(), document.version);
        if expected.admits(state) { Ok((document, state)) } else { Err(not_as_expected(collection, id)) }
    }
}

impl NodeTools {
    fn enter(&self, tool: Tool, caller: &Caller, collection: &str) -> Result<Permit, ToolError> {
        Ok(self.calls.enter(tool.operation(), caller, &Scope::One(collection.into()))?)
    }

    /// A document with its whole text.
    ///
    /// # Errors
    /// When no document has that id, or it cannot be read.
    pub(crate) async fn document(
        &self,
        caller: &Caller,
        collection: &str,
        id: &str,
    ) -> Result<(StoredDocument, DocumentVersion), ToolError> {
        let permit = self.enter(Tool::Fetch, caller, collection)?;
        let call = Call { tools: self, permit: &permit, progress: &NoProgress };
        let read = call.read(&collection, |reading| {
            let (document, state) = reading.as_expected(collection, id, &Precondition::None)?;
            let text = reading.access.passages().text(&document, 0..document.chunks.len());
            let stored = StoredDocument {
                id: document.id.clone(),
                collection: collection.to_owned(),
                title: document.title.clone(),
                url: document.url.clone(),
                text: text.map_err(SearchError::from)?,
                media_type: document.media_type.clone(),
                metadata: shown_metadata(&document.metadata),
                source: document.source.clone(),
                version: document.version,
                updated_at: document.updated.to_string(),
                expires_at: document.expires_at.map(|time| time.to_string()),
                passages: document.chunks.len(),
            };
            Ok((stored, state))
        });
        let result = read.await;
        ended(permit, result)
    }

    /// Writes one document, in a collection that is created if missing.
    ///
    /// * `content`: its text or bytes if they are not part of `given`.
    ///
    /// # Errors
    /// `conflict` when the current state is not `expected`; see [`crate::collection::WriteError`].
    pub(crate) async fn put_document(
        &self,
        caller: &Caller,
        collection: &str,
        given: NewDocument,
        content: Option<Body>,
        expected: &Precondition,
    ) -> Result<(DocumentResult, DocumentVersion), ToolError> {
        let scope = scope_of_write(collection, [&given].into_iter());
        let permit = self.calls.enter(Tool::AddDocuments.operation(), caller, &scope)?;
        drop(scope);
        let call = Call { tools: self, permit: &permit, progress: &NoProgress };
        let written = async {
            let id = given.id.clone().unwrap_or_default();
            let mut documents = [Ok((given, content))];
            read_copies(call, collection, &mut documents).await?;
            let [document] = documents;
            let document = document.and_then(|(given, content)| input(given, content, ConflictArgument::Replace));
            let mut document = document.map_err(|(_, error)| error)?;
            let missing = match expected {
                Precondition::None | Precondition::Absent => Missing::Create,
                Precondition::Present | Precondition::OneOf(_) => Missing::Refuse,
            };
            document.if_version = match expected {
                Precondition::None => None,
                Precondition::Absent => Some(0),
                Precondition::Present | Precondition::OneOf(_) => {
                    let read = |reading: &ReadContext<'_>| reading.as_expected(collection, &id, expected);
                    let (_, current) = call.read(&collection, read).await?;
                    Some(current.version)
                }
            };
            let Added { mut outcomes, .. } = call.access().add(collection, missing, vec![document]).await?;
            let result = single(collection, outcomes.pop())?;
            let version = result.version.unwrap_or_default();
            // It may have been deleted meanwhile.
            let state = match call.access().collection(collection) {
                Some(info) => DocumentVersion::new(&info, self.library.log().epoch(), version),
                None => DocumentVersion { collection: None, version },
            };
            Ok((result, state))
        };
        let result = written.await;
        ended(permit, result)
    }

    /// Changes parts of one document.
    ///
    /// # Errors
    /// `not_found` when no document has that id, `conflict` when it is not as `expected`, or changes meanwhile.
    pub(crate) async fn patch_document(
        &self,
        caller: &Caller,
        collection: &str,
        id: &str,
        change: DocumentChange,
        expected: &Precondition,
    ) -> Result<(DocumentResult, DocumentVersion), ToolError> {
        let permit = self.enter(Tool::UpdateDocument, caller, collection)?;
        let call = Call { tools: self, permit: &permit, progress: &NoProgress };
        let changed = async {
            let place = DocumentRef { collection: collection.to_owned(), document: id.to_owned(), passage: None };
            let subject = Some(collection.to_owned());
            let mut state = None;
            let find = |reading: &ReadContext<'_>| {
                let (document, found) = reading.as_expected(collection, id, expected)?;
                state = Some(found);
                Ok((place, document))
            };
            let (_, outcome, _) = change.make(call, &subject, find).await?;
            let result = document_result(collection, &outcome);
            let (collection, version) = (state.and_then(|state| state.collection), result.version.unwrap_or_default());
            Ok((result, DocumentVersion { collection, version }))
        };
        let result = changed.await;
        ended(permit, result)
    }

    /// Deletes one document.
    ///
    /// # Errors
    /// `not_found` when no document has that id, `conflict` when it is at another version.
    pub(crate) async fn delete_document(
        &self,
        caller: &Caller,
        collection: &str,
        id: &str,
        expected: &Precondition,
    ) -> Result<(), ToolError> {
        let permit = self.enter(Tool::DeleteDocuments, caller, collection)?;
        let call = Call { tools: self, permit: &permit, progress: &NoProgress };
        let deleted = async {
            let read = |reading: &ReadContext<'_>| reading.as_expected(collection, id, expected);
            let (document, _) = call.read(&collection, read).await?;
            // What was checked is what is deleted.
            let version = matches!(expected, Precondition::OneOf(_)).then_some(document.version);
            let outcome = call.access().delete_at(collection, &document.id, version).await?;
            single(collection, Some(outcome)).map(drop)
        };
        let result = deleted.await;
        ended(permit, result)
    }

    /// Writes documents in one batch; rejected ones are reported, the others are written.
    ///
    /// * `documents`: each with its content where that comes apart from it; or why one of them cannot be read.
    /// * `key`: for the same documents again, within a day: nothing is written, and the answer is the first one.
    ///
    /// # Errors
    /// When nothing could be written.
    pub(crate) async fn add_bulk(
        &self,
        caller: &Caller,
        collection: &str,
        documents: Vec<Result<IncomingDocument, String>>,
        key: Option<RepeatKey<'_>>,
    ) -> Result<Vec<DocumentResult>, ToolError> {
        let read = documents.iter().filter_map(|document| document.as_ref().ok());
        let scope = scope_of_write(collection, read.map(|(given, _)| given));
        let permit = self.calls.enter(Tool::AddDocuments.operation(), caller, &scope)?;
        drop(scope);
        let call = Call { tools: self, permit: &permit, progress: &NoProgress };
        let written = super::writing::add_each(call, collection, documents, key);
        let result = written.await;
        ended(permit, result)
    }
}

/// The outcome of the only document of a call.
fn single(collection: &str, outcome: Option<DocumentOutcome>) -> Result<DocumentResult, ToolError> {
    let nothing = || ToolError::new(ErrorCode::Internal, "nothing was written", Fault::Environment);
    let outcome = outcome.ok_or_else(nothing)?;
    match outcome.status {
        DocumentStatus::Failed(error) => Err(error.into()),
        _ => Ok(document_result(collection, &outcome)),
    }
}
