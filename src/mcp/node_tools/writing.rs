//! The tools that write documents.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::arguments::{self, ConflictArgument, NewDocument};
use super::super::{DocumentRef, ErrorCode, ToolAnswer, ToolError, answers};
use super::call::ReadContext;
use super::inputs::{deletes, input, media_type_of};
use super::reading::{COPIED_BYTES_MAX, PAGE_MAX};
use super::shapes::{FAILED, answer, document_result, write_answer};
use super::{Call, NodeTool, collection_of};
use crate::auth::Caller;
use crate::base::{Digest, Fault, Lsn, UnixMillis};
use crate::calls::Scope;
use crate::collection::{
    Added, Body, Conflict, DocumentInput, DocumentOutcome, DocumentRecord, DocumentStatus, MediaType, Missing,
};
use crate::retrieval::{SearchError, shown_metadata};

/// Documents in one call.
const DOCUMENTS_MAX: usize = 1_000;
/// Documents whose reasons are listed if nothing was written.
const REASONS_MAX: usize = 5;
/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// A document of a call, with its content where that comes apart from it.
pub(crate) type IncomingDocument = (NewDocument, Option<Body>);

/// A document of a call, or its id and what is wrong with it.
type ReceivedDocument = Result<IncomingDocument, (String, ToolError)>;

/// What makes a call safe to repeat.
#[derive(Clone, Copy)]
pub(crate) struct RepeatKey<'a> {
    /// The client's key.
    pub(crate) key: &'a str,
    /// Which of the writes of its request, from 0.
    pub(crate) part: usize,
}

impl RepeatKey<'_> {
    /// The key of the stored answer: includes the caller and the collection.
    fn stored(self, caller: &Caller, collection: &str) -> Result<String, ToolError> {
        let Self { key, part } = self;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let found = key.len();
            return Err(ToolError::bad_argument(format!(
                "idempotency_key has {found} bytes, expected 1 to {KEY_BYTES_MAX}: a UUID does"
            )));
        }
        let key = Digest::of_parts([key.as_bytes(), &part.to_le_bytes()]);
        Ok(format!("{:016x}/{collection}/{key}", caller.id()))
    }
}

/// Identifies what a call writes.
fn digest_of(documents: &[ReceivedDocument], conflict: ConflictArgument) -> Digest {
    let of_content = |content: &Body| match content {
        Body::Text(text, kind) => Digest::of_parts([&b"text"[..], kind.as_str().as_bytes(), text.as_bytes()]),
        Body::Typed(kind, bytes) => Digest::of_parts([&b"typed"[..], kind.as_str().as_bytes(), bytes.as_slice()]),
        Body::File { name, bytes } => Digest::of_parts([&b"file"[..], name.as_bytes(), bytes.as_slice()]),
    };
    let of_document = |document: &ReceivedDocument| match document {
        Ok((given, content)) => {
            let given = serde_json::to_vec(given).expect("plain data serialises");
            let content = content.as_ref().map(of_content);
            Digest::of_parts([given.as_slice(), content.as_ref().map_or(&[][..], |digest| &digest.0[..])])
        }
        Err((id, error)) => Digest::of_parts([id.as_bytes(), error.message.as_bytes()]),
    };
    let documents: Vec<Digest> = documents.iter().map(of_document).collect();
    Digest::of_parts([&[conflict as u8][..]].into_iter().chain(documents.iter().map(|digest| &digest.0[..])))
}

/// An answer as it is kept, with what it is the answer to.
fn stored_answer(request: &Digest, answer: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(&json!({"request": request.to_string(), "answer": answer})).expect("answers are plain data")
}

/// An answer that was kept, if it is to the same request.
fn repeated(kept: &[u8], request: &Digest) -> Result<Value, ToolError> {
    let mut kept: Value = serde_json::from_slice(kept).map_err(|error| unreadable(&error))?;
    match kept["request"].as_str() {
        Some(first) if first == request.to_string() => Ok(kept["answer"].take()),
        _ => {
            let message = "this idempotency_key was used for other documents within a day, and nothing was written now; give each \
                           request a key of its own, and repeat it word for word";
            Err(ToolError::new(ErrorCode::KeyReused, message, Fault::Caller))
        }
    }
}

fn unreadable(error: &serde_json::Error) -> ToolError {
    let message = format!("the answer kept for this idempotency_key cannot be read: {error}; give another key");
    ToolError::new(ErrorCode::Internal, message, Fault::Damage)
}

/// The answer to a write, unless nothing of it went in.
fn answer_unless_refused(structured: Value) -> Result<ToolAnswer, ToolError> {
    let documents = structured["documents"].as_array().map(Vec::as_slice).unwrap_or_default();
    if documents.is_empty() || documents.iter().any(|document| document["status"] != FAILED) {
        return Ok(ToolAnswer::new(structured));
    }
    let text = |document: &Value, field: &str| document[field].as_str().unwrap_or_default().to_owned();
    let mut reasons: Vec<String> = documents
        .iter()
        .take(REASONS_MAX)
        .map(|document| format!("{}: {}", text(document, "id"), text(document, "error")))
        .collect();
    if documents.len() > REASONS_MAX {
        reasons.push(format!("and {} more", documents.len() - REASONS_MAX));
    }
    // Where the documents failed for several reasons, what is wrong with one of them is for the caller to mend.
    let codes: Vec<_> = documents.iter().map(|document| ErrorCode::named(&text(document, "code"))).collect();
    let code = codes[0].filter(|_| codes.iter().all(|code| *code == codes[0])).unwrap_or(ErrorCode::BadArgument);
    let message = format!("nothing was written: {}", reasons.join("; "));
    Err(ToolError::new(code, message, code.fault()))
}

impl NodeTool for arguments::AddDocuments {
    fn scope(&self) -> Scope<'_> {
        scope_of_write(&self.collection, self.documents.iter())
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        if self.documents.is_empty() || self.documents.len() > DOCUMENTS_MAX {
            let found = self.documents.len();
            return Err(ToolError::bad_argument(format!(
                "documents has {found} entries, expected 1 to {DOCUMENTS_MAX}"
            )));
        }
        let documents = self.documents.into_iter().map(|document| Ok((document, None))).collect();
        let conflict = self.on_conflict;
        let key = self.idempotency_key.as_deref().map(|key| RepeatKey { key, part: 0 });
        answer_unless_refused(written(call, self.collection, documents, conflict, key).await?)
    }
}

/// The collections of a write: the one that is written to, and those that are copied from.
pub(super) fn scope_of_write<'a>(collection: &'a str, documents: impl Iterator<Item = &'a NewDocument>) -> Scope<'a> {
    let copied = documents.filter_map(|document| collection_of(document.copied_from()?));
    let mut names: Vec<String> = copied.filter(|name| name != collection).collect();
    if names.is_empty() {
        return Scope::One(collection.into());
    }
    names.push(collection.to_owned());
    names.sort_unstable();
    names.dedup();
    Scope::Many(names.into())
}

/// Writes documents; what became of each, in their order.
///
/// * `documents`: each with its content where that comes apart from it; or why one of them cannot be read.
pub(super) async fn add_each(
    call: Call<'_>,
    collection: &str,
    documents: Vec<Result<IncomingDocument, String>>,
    key: Option<RepeatKey<'_>>,
) -> Result<Vec<answers::DocumentResult>, ToolError> {
    let refused = |message| (String::new(), ToolError::bad_argument(message));
    let documents = documents.into_iter().map(|document| document.map_err(refused)).collect();
    let mut answer = written(call, collection.to_owned(), documents, ConflictArgument::Replace, key).await?;
    serde_json::from_value(answer["documents"].take()).map_err(|error| unreadable(&error))
}

/// What the answer to a write needs besides its outcomes. Places are those of the documents in the call.
struct Write {
    collection: String,
    /// Documents that cannot be read, with their ids.
    refused: Vec<(usize, String, ToolError)>,
    /// Documents that expired before they were written.
    expired: Vec<(usize, UnixMillis)>,
}

impl Write {
    fn answer(&self, added: Added) -> answers::WriteAnswer {
        let Self { collection, refused, expired } = self;
        let mut results: Vec<answers::DocumentResult> =
            added.outcomes.iter().map(|outcome| document_result(collection, outcome)).collect();
        for (place, id, error) in refused {
            let result = answers::DocumentResult {
                id: format!("{collection}/{id}"),
                status: FAILED.to_owned(),
                version: None,
                passages: 0,
                error: Some(error.shortened_message().into_owned()),
                code: Some(error.code.as_str().to_owned()),
                warning: None,
            };
            results.insert((*place).min(results.len()), result);
        }
        for (place, result) in results.iter_mut().enumerate() {
            // One that has no id and got none.
            if result.id.strip_prefix(collection) == Some("/") {
                result.id = format!("documents[{place}]");
            }
        }
        for (place, time) in expired {
            if let Some(result) = results.get_mut(*place).filter(|result| result.status != FAILED) {
                result.warning = Some(format!("it expired at {time}, which is past: it is not shown"));
            }
        }
        write_answer(collection.clone(), results, added.lsn.0, added.collection_created)
    }
}

/// Reads the content of those documents that are copies of others, all of them under one compute permit.
pub(super) async fn read_copies(
    call: Call<'_>,
    collection: &str,
    documents: &mut [ReceivedDocument],
) -> Result<(), ToolError> {
    let is_copy = |document: &ReceivedDocument| matches!(document, Ok((given, None)) if given.copied_from().is_some());
    if !documents.iter().any(is_copy) {
        return Ok(());
    }
    let read = |reading: &ReadContext<'_>| {
        let mut left = COPIED_BYTES_MAX;
        for document in documents.iter_mut() {
            let Ok((given, content @ None)) = document else { continue };
            let Some(uri) = given.copied_from() else { continue };
            match reading.copied(uri, &mut left) {
                Ok(text) => *content = Some(Body::Text(text, MediaType::Markdown)),
                Err(error) => *document = Err((given.id.take().unwrap_or_default(), error)),
            }
        }
        Ok(())
    };
    call.read(&collection, read).await
}

/// The answer to a write of documents, also when nothing of it went in.
async fn written(
    call: Call<'_>,
    name: String,
    mut documents: Vec<ReceivedDocument>,
    conflict: ConflictArgument,
    key: Option<RepeatKey<'_>>,
) -> Result<Value, ToolError> {
    let (access, progress) = (call.access(), call.progress);
    let key = key.map(|key| key.stored(call.permit.caller(), &name)).transpose()?;
    let key = key.map(|key| (key, digest_of(&documents, conflict)));
    // Before the documents are read, and before a collection is made for them.
    if let Some((key, request)) = &key
        && let Some(answer) = access.remembered(key).map_err(SearchError::from)?
    {
        return repeated(&answer, request);
    }
    let total = documents.len() as u64;
    progress.report(0, total, "reading documents");
    read_copies(call, &name, &mut documents).await?;
    let mut inputs = Vec::with_capacity(documents.len());
    let mut write = Write { collection: name.clone(), refused: Vec::new(), expired: Vec::new() };
    for (place, document) in documents.into_iter().enumerate() {
        match document.and_then(|(given, content)| input(given, content, conflict)) {
            Ok(input) => {
                let expired = input.expires_at.filter(|time| !access.library().is_to_come(Some(*time)));
                write.expired.extend(expired.map(|time| (place, time)));
                inputs.push(input);
            }
            // What the node could not do now is not stored as the answer for a day.
            Err((_, error)) if key.is_some() && error.fault != Fault::Caller => return Err(error),
            Err((id, error)) => write.refused.push((place, id, error)),
        }
    }
    let written = match key {
        None => {
            let answer = write.answer(access.add(&name, Missing::Create, inputs).await?);
            Ok(serde_json::to_value(answer).expect("answers are plain data"))
        }
        Some((key, request)) => {
            let to_keep = move |added| stored_answer(&request, &write.answer(added));
            repeated(&access.add_once(&name, Missing::Create, inputs, key, to_keep).await?, &request)
        }
    };
    progress.report(total, total, "written");
    written
}

impl NodeTool for arguments::UpdateDocument {
    fn scope(&self) -> Scope<'_> {
        collection_of(&self.id).map_or(Scope::Every, |collection| Scope::One(collection.into()))
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        let Self { id, text, media_type, title, url, metadata_patch, if_version } = self;
        let is_new_text = text.is_some();
        let change = DocumentChange { text, media_type, title, url, metadata_patch, if_version };
        let find = |reading: &ReadContext<'_>| match is_new_text {
            true => reading.find_whole(&id, "replace the text of"),
            false => reading.find_named(&id),
        };
        let (collection, outcome, lsn) = change.make(call, &collection_of(&id), find).await?;
        answer(write_answer(collection.clone(), vec![document_result(&collection, &outcome)], lsn.0, false))
    }
}

/// What changes in a document; what is left out stays.
#[derive(Debug, Default)]
pub(crate) struct DocumentChange {
    /// The whole new text, …
    pub(crate) text: Option<String>,
    /// … and its format.
    pub(crate) media_type: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) url: Option<String>,
    /// Fields to set; null removes one.
    pub(crate) metadata_patch: Option<Map<String, Value>>,
    /// The version that has to be there; `None` for the one that is read.
    pub(crate) if_version: Option<u64>,
}

impl DocumentChange {
    /// Changes the document that `find` finds. Returns its collection, its outcome, and up to where the write is.
    ///
    /// * `subject`: the collection, as far as the call names it.
    pub(super) async fn make(
        self,
        call: Call<'_>,
        subject: &Option<String>,
        find: impl FnOnce(&ReadContext<'_>) -> Result<(DocumentRef, Arc<DocumentRecord>), ToolError>,
    ) -> Result<(String, DocumentOutcome, Lsn), ToolError> {
        let has_text = self.text.is_some();
        let read = |reading: &ReadContext<'_>| {
            let (place, document) = find(reading)?;
            let old = match has_text {
                true => String::new(),
                false => {
                    let text = reading.access.passages().text(&document, 0..document.chunks.len());
                    text.map_err(SearchError::from)?
                }
            };
            Ok((place.collection, document, old))
        };
        let (collection, document, old) = call.read(subject, read).await?;
        let media_type = media_type_of(self.media_type.as_deref().unwrap_or(&document.media_type))?;
        let (text, media_type) = match self.text {
            Some(text) => (text, media_type),
            // Text extracted from a PDF or a page is plain text now, whatever its origin.
            None => {
                let kept = matches!(media_type, MediaType::Markdown | MediaType::SourceCode);
                (old, if kept { media_type } else { MediaType::Text })
            }
        };
        let mut metadata = shown_metadata(&document.metadata);
        for (name, value) in self.metadata_patch.unwrap_or_default() {
            if value.is_null() {
                metadata.shift_remove(&name);
            } else {
                metadata.insert(name, value);
            }
        }
        let input = DocumentInput {
            id: Some(document.id.clone()),
            body: Body::Text(text, media_type),
            title: Some(self.title.unwrap_or_else(|| document.title.clone())),
            url: self.url.or_else(|| document.url.clone()),
            metadata,
            source: document.source.clone(),
            expires_at: document.expires_at,
            // The version that was read must still be current, otherwise another client's change would be lost.
            if_version: Some(self.if_version.unwrap_or(document.version)),
            conflict: Conflict::Replace,
        };
        let Added { mut outcomes, lsn, .. } = call.access().add(&collection, Missing::Refuse, vec![input]).await?;
        let outcome = outcomes.pop().ok_or_else(|| ToolError::not_found("nothing was written"))?;
        match outcome.status {
            DocumentStatus::Failed(error) => Err(error.into()),
            _ => Ok((collection, outcome, lsn)),
        }
    }
}

impl NodeTool for arguments::DeleteDocuments {
    fn scope(&self) -> Scope<'_> {
        if let Some(collection) = &self.collection {
            return Scope::One(collection.into());
        }
        let names: Option<Vec<String>> = self.ids.iter().map(|id| collection_of(id)).collect();
        match names {
            Some(mut names) if !names.is_empty() => {
                names.sort_unstable();
                names.dedup();
                Scope::Many(names.into())
            }
            // An id may be of any collection where it names none.
            _ => Scope::Every,
        }
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        let (given, access) = (self, call.access());
        let find = |reading: &ReadContext<'_>| {
            let mut targets: Vec<(String, String)> = Vec::new();
            match (&given.filter, &given.collection, given.ids.is_empty()) {
                (None, None, false) => {
                    for id in &given.ids {
                        let (place, document) = reading.find_whole(id, "delete")?;
                        targets.push((place.collection, document.id.clone()));
                    }
                }
                (Some(filter_json), Some(collection), true) => {
                    let info = reading.existing(collection)?;
                    deletes(filter_json, collection)?;
                    let ids = reading.matching_ids(&info, filter_json)?;
                    targets.extend(ids.into_iter().map(|id| (info.name.clone(), id)));
                }
                _ => return Err(ToolError::bad_argument("expected either ids, or collection and filter")),
            }
            Ok(targets)
        };
        let mut targets = call.read(&given.collection, find).await?;
        targets.sort();
        targets.dedup();
        let matched = targets.len();
        if let Some(expected) = given.expected_count.filter(|&expected| expected != matched) {
            let message = format!("{matched} documents match, expected_count is {expected}; nothing was deleted");
            return Err(ToolError::new(ErrorCode::Conflict, message, Fault::Caller));
        }
        let mut lsn = access.library().log().last().0;
        let mut results = Vec::new();
        let mut deleted = 0;
        if given.dry_run {
            results.extend(targets.iter().take(PAGE_MAX).map(|(collection, id)| answers::DocumentResult {
                id: format!("{collection}/{id}"),
                status: "matched".to_owned(),
                version: None,
                passages: 0,
                error: None,
                code: None,
                warning: None,
            }));
        } else {
            for group in targets.chunk_by(|left, right| left.0 == right.0) {
                let collection = &group[0].0;
                let ids: Vec<String> = group.iter().map(|(_, id)| id.clone()).collect();
                let (outcomes, written) = access.delete(collection, &ids).await?;
                lsn = written.0;
                deleted += outcomes.iter().filter(|outcome| matches!(outcome.status, DocumentStatus::Deleted)).count();
                let room = PAGE_MAX - results.len();
                results.extend(outcomes.iter().take(room).map(|outcome| document_result(collection, outcome)));
            }
        }
        answer(answers::DeleteAnswer { matched, deleted, dry_run: given.dry_run, documents: results, lsn })
    }
}
