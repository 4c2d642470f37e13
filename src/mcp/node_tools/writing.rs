//! The tools that write documents.

use serde_json::Value;

use super::super::arguments::{self, ConflictArgument, NewDocument};
use super::super::{ErrorCode, ToolAnswer, ToolError, answers};
use super::inputs::{deletes, input, media_type_of};
use super::reading::PAGE_MAX;
use super::shapes::{FAILED, answer, document_result, write_answer};
use super::{Call, NodeTool, collection_of};
use crate::auth::Caller;
use crate::base::{Fault, UnixMillis};
use crate::calls::Scope;
use crate::collection::{Added, Body, Conflict, DocumentInput, DocumentStatus, MediaType, Missing};
use crate::retrieval::{SearchError, shown_metadata};

/// Documents in one call.
const DOCUMENTS_MAX: usize = 1_000;
/// Documents whose reasons are listed if nothing was written.
const REASONS_MAX: usize = 5;
/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// A document of a call, with its content where that comes apart from it.
pub(crate) type IncomingDocument = (NewDocument, Option<Body>);

/// The key of a stored answer: includes the caller and the collection.
fn answer_key(caller: &Caller, collection: &str, key: &str) -> Result<String, ToolError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let found = key.len();
        return Err(ToolError::bad_argument(format!(
            "idempotency_key has {found} bytes, expected 1 to {KEY_BYTES_MAX}: a UUID does"
        )));
    }
    Ok(format!("{:016x}/{collection}/{key}", caller.id()))
}

/// An answer that was kept.
fn repeated(answer: &[u8]) -> Result<Value, ToolError> {
    serde_json::from_slice(answer).map_err(|error| unreadable(&error))
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
        Scope::One(self.collection.as_str().into())
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        if self.documents.is_empty() || self.documents.len() > DOCUMENTS_MAX {
            let found = self.documents.len();
            return Err(ToolError::bad_argument(format!(
                "documents has {found} entries, expected 1 to {DOCUMENTS_MAX}"
            )));
        }
        let documents = self.documents.into_iter().map(|document| Ok((document, None))).collect();
        let (conflict, key) = (self.on_conflict, self.idempotency_key.as_deref());
        answer_unless_refused(written(call, self.collection, documents, conflict, key).await?)
    }
}

/// Writes documents; what became of each, in their order.
///
/// * `documents`: each with its content where that comes apart from it; or why one of them cannot be read.
pub(super) async fn add_each(
    call: Call<'_>,
    collection: &str,
    documents: Vec<Result<IncomingDocument, String>>,
    key: Option<&str>,
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

/// The answer to a write of documents, also when nothing of it went in.
async fn written(
    call: Call<'_>,
    name: String,
    documents: Vec<Result<IncomingDocument, (String, ToolError)>>,
    conflict: ConflictArgument,
    key: Option<&str>,
) -> Result<Value, ToolError> {
    let (access, progress) = (call.access(), call.progress);
    let key = key.map(|key| answer_key(call.permit.caller(), &name, key)).transpose()?;
    // Before the documents are read, and before a collection is made for them.
    if let Some(key) = &key
        && let Some(answer) = access.remembered(key).map_err(SearchError::from)?
    {
        return repeated(&answer);
    }
    let total = documents.len() as u64;
    progress.report(0, total, "reading documents");
    let mut inputs = Vec::with_capacity(documents.len());
    let mut write = Write { collection: name.clone(), refused: Vec::new(), expired: Vec::new() };
    for (place, document) in documents.into_iter().enumerate() {
        match document.and_then(|(given, content)| input(&call.reading(), given, content, conflict)) {
            Ok(input) => {
                let expired = input.expires_at.filter(|time| !access.library().is_to_come(Some(*time)));
                write.expired.extend(expired.map(|time| (place, time)));
                inputs.push(input);
            }
            Err((id, error)) => write.refused.push((place, id, error)),
        }
    }
    let written = match key {
        None => {
            let answer = write.answer(access.add(&name, Missing::Create, inputs).await?);
            Ok(serde_json::to_value(answer).expect("answers are plain data"))
        }
        Some(key) => {
            let as_text = move |added| serde_json::to_vec(&write.answer(added)).expect("answers are plain data");
            repeated(&access.add_once(&name, Missing::Create, inputs, key, as_text).await?)
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
        let (given, access, reading) = (self, call.access(), call.reading());
        let (place, document) = match given.text {
            Some(_) => reading.find_whole(&given.id, "replace the text of")?,
            None => reading.find(&given.id, None)?,
        };
        let media_type = given.media_type.as_deref().unwrap_or(&document.media_type);
        let media_type = media_type_of(media_type)?;
        let (text, media_type) = match given.text {
            Some(text) => (text, media_type),
            // Text extracted from a PDF or a page is plain text now, whatever its origin.
            None => {
                let text = access.passages().text(&document, 0..document.chunks.len()).map_err(SearchError::from)?;
                let kept = matches!(media_type, MediaType::Markdown | MediaType::SourceCode);
                (text, if kept { media_type } else { MediaType::Text })
            }
        };
        let mut metadata = shown_metadata(&document.metadata);
        for (name, value) in given.metadata_patch.unwrap_or_default() {
            if value.is_null() {
                metadata.shift_remove(&name);
            } else {
                metadata.insert(name, value);
            }
        }
        let input = DocumentInput {
            id: Some(document.id.clone()),
            body: Body::Text(text, media_type),
            title: Some(given.title.unwrap_or_else(|| document.title.clone())),
            url: given.url.or_else(|| document.url.clone()),
            metadata,
            source: document.source.clone(),
            expires_at: document.expires_at,
            // The version that was read must still be current, otherwise another client's change would be lost.
            if_version: Some(given.if_version.unwrap_or(document.version)),
            conflict: Conflict::Replace,
        };
        let Added { mut outcomes, lsn, .. } = access.add(&place.collection, Missing::Refuse, vec![input]).await?;
        let outcome = outcomes.pop().ok_or_else(|| ToolError::not_found("nothing was written"))?;
        if let DocumentStatus::Failed(error) = outcome.status {
            return Err(error.into());
        }
        let results = vec![document_result(&place.collection, &outcome)];
        answer(write_answer(place.collection, results, lsn.0, false))
    }
}

impl NodeTool for arguments::DeleteDocuments {
    fn scope(&self) -> Scope<'_> {
        match &self.collection {
            Some(collection) => Scope::One(collection.into()),
            None => Scope::Many(self.ids.iter().filter_map(|id| collection_of(id)).collect::<Vec<_>>().into()),
        }
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        let (given, access, reading) = (self, call.access(), call.reading());
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
