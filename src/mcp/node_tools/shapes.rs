//! From the types of the parts below to answers.

use std::sync::Arc;

use serde::Serialize;

use super::super::answers::{self, GpuCollection, GpuStatus, rounded};
use super::super::arguments::{Include, IncludeArgument};
use super::super::{DocumentRef, ErrorCode, ToolAnswer, ToolError};
use crate::base::{Fault, NodeId, with_causes};
use crate::collection::{Access, CollectionInfo, DeviceState, Verdict};
use crate::collection::{DocumentOutcome, DocumentStatus, EmbedError, WriteError};
use crate::retrieval::{Hit, SearchError, shown_metadata};

pub(super) fn answer(value: impl Serialize) -> Result<ToolAnswer, ToolError> {
    let structured = serde_json::to_value(value).expect("answers are plain data");
    Ok(ToolAnswer::new(structured))
}

/// The status of a document that did not go in.
pub(super) const FAILED: &str = "failed";

pub(super) fn document_result(collection: &str, outcome: &DocumentOutcome) -> answers::DocumentResult {
    let (status, error) = match &outcome.status {
        DocumentStatus::Created => ("created", None),
        DocumentStatus::Updated => ("updated", None),
        DocumentStatus::Unchanged => ("unchanged", None),
        DocumentStatus::Deleted => ("deleted", None),
        DocumentStatus::Failed(error) => (FAILED, Some(error)),
    };
    answers::DocumentResult {
        id: format!("{collection}/{}", outcome.id),
        status: status.to_owned(),
        version: outcome.version,
        passages: outcome.passages,
        error: error.map(|error| with_causes(error)),
        code: error.map(|error| write_code(error).as_str().to_owned()),
        warning: None,
    }
}

pub(super) fn write_answer(
    collection: String,
    documents: Vec<answers::DocumentResult>,
    lsn: u64,
    collection_created: bool,
) -> answers::WriteAnswer {
    let count = |status: &str| documents.iter().filter(|result| result.status == status).count();
    answers::WriteAnswer {
        created: count("created"),
        updated: count("updated"),
        unchanged: count("unchanged"),
        failed: count(FAILED),
        collection,
        documents,
        lsn,
        collection_created,
    }
}

/// A collection in numbers: of all its documents.
pub(super) fn summary(info: &CollectionInfo) -> answers::CollectionSummary {
    answers::CollectionSummary {
        name: info.name.clone(),
        description: info.description.clone(),
        documents: info.documents,
        passages: info.chunks,
        bytes: Some(info.text_bytes),
        model: info.model.clone(),
        updated_at: Some(info.last_change_time.to_string()),
        generation: Some(info.last_change.0),
    }
}

pub(super) fn reference_to(hit: &Hit) -> DocumentRef {
    DocumentRef {
        collection: hit.collection.clone(),
        document: hit.passage.document.id.clone(),
        passage: Some(hit.passage.ordinal),
    }
}

/// Titles, outermost first, as one line.
pub(super) fn title_of<'a>(path: impl Iterator<Item = &'a str>) -> String {
    path.collect::<Vec<_>>().join(" › ")
}

pub(super) fn search_result(hit: &Hit, include: Include, node: NodeId) -> answers::SearchResult<'_> {
    let document = &*hit.passage.document;
    let chunk = &document.chunks[hit.passage.ordinal];
    let place = reference_to(hit);
    let with = |wanted| include.has(wanted);
    answers::SearchResult {
        title: title_of(hit.path()),
        url: document.url.as_deref(),
        text: hit.text(),
        also_in: &hit.also_in,
        more_copies: hit.more_copies,
        more_in_document: hit.more_in_document,
        score: with(IncludeArgument::Scores).then(|| answers::Scores {
            fused: rounded(hit.scores.score),
            dense: hit.scores.dense.map(rounded),
            lexical: hit.scores.lexical.map(rounded),
            relevance: rounded(hit.scores.relevance),
        }),
        source: with(IncludeArgument::Source).then(|| answers::Source {
            collection: &hit.collection,
            document: &document.id,
            uri: document.source.as_deref().or(document.url.as_deref()),
            page: chunk.page,
            byte_start: document.chunks[hit.run.start].range.start,
            byte_end: document.chunks[hit.run.end - 1].range.end,
        }),
        version: with(IncludeArgument::Dates).then_some(document.version),
        updated_at: with(IncludeArgument::Dates).then(|| document.updated.to_string()),
        metadata: with(IncludeArgument::Metadata).then(|| shown_metadata(&document.metadata)),
        uri: with(IncludeArgument::Links).then(|| place.uri(node)),
        id: place.to_string(),
    }
}

impl From<SearchError> for ToolError {
    fn from(error: SearchError) -> Self {
        let fault = error.fault();
        let code = match &error {
            SearchError::NoSuchCollection { .. } | SearchError::NoSuchDocument { .. } => ErrorCode::NotFound,
            SearchError::EmptyQuery | SearchError::OutOfRange { .. } => ErrorCode::BadArgument,
            SearchError::Lexical(_)
            | SearchError::Embed(_)
            | SearchError::Read(_)
            | SearchError::Dimensions { .. }
            | SearchError::NoIndex { .. } => ErrorCode::Internal,
        };
        Self::new(code, with_causes(&error), fault)
    }
}

impl From<WriteError> for ToolError {
    fn from(error: WriteError) -> Self {
        Self::new(write_code(&error), with_causes(&error), error.fault())
    }
}

/// The code of a write that was not done.
fn write_code(error: &WriteError) -> ErrorCode {
    match error {
        WriteError::NoSuchCollection { .. } | WriteError::NoSuchDocument { .. } => ErrorCode::NotFound,
        WriteError::CollectionExists { .. } | WriteError::Conflict { .. } | WriteError::Overtaken { .. } => {
            ErrorCode::Conflict
        }
        WriteError::OutOfReach { .. }
        | WriteError::DocumentOutOfReach { .. }
        | WriteError::WholeOutOfReach { .. }
        | WriteError::WouldBeOutOfReach { .. } => ErrorCode::Forbidden,
        WriteError::BadName { .. } | WriteError::OtherModel { .. } | WriteError::Embed(EmbedError::Unknown { .. }) => {
            ErrorCode::BadArgument
        }
        WriteError::Prepare(_) if error.fault() == Fault::Caller => ErrorCode::BadArgument,
        // The document may be good: no process to read it in could be started.
        WriteError::Prepare(_) => ErrorCode::Internal,
        WriteError::StillUnread(_) => ErrorCode::StillUnread,
        WriteError::Commit(error) if error.is_passing() => ErrorCode::Overloaded,
        WriteError::Commit(_) | WriteError::Broken { .. } => ErrorCode::ReadOnly,
        WriteError::Compact(_) | WriteError::Read(_) | WriteError::Embed(_) | WriteError::Index(_) => {
            ErrorCode::Internal
        }
        WriteError::NotVisible { .. } => ErrorCode::NotVisible,
        WriteError::NoMemory { .. } => ErrorCode::BadArgument,
        WriteError::Busy | WriteError::Stopping => ErrorCode::Overloaded,
    }
}

/// How the GPU is, and what it is used for.
pub(super) fn gpu(access: Access<'_>) -> GpuStatus {
    let none = GpuStatus { state: "off", device: None, driver: None, reason: None, collections: Vec::new() };
    let Some(client) = access.library().gpu() else { return none };
    match client.state() {
        DeviceState::Starting => GpuStatus { state: "starting", ..none },
        DeviceState::Absent { reason } => GpuStatus { state: "absent", reason: Some(reason), ..none },
        DeviceState::Failed { reason, again_in } => {
            let reason = format!("{reason}; tried again after {} s", again_in.as_secs());
            GpuStatus { state: "failed", reason: Some(reason), ..none }
        }
        DeviceState::Ready { adapter } => {
            let verdict = |info: &Arc<CollectionInfo>| {
                let Verdict { by_gpu, reason } = access.searcher(info)?.device()?;
                let searched_by = if by_gpu { "gpu" } else { "cpu" };
                Some(GpuCollection { name: info.name.clone(), searched_by, reason })
            };
            let collections = access.collections().iter().filter_map(verdict).collect();
            let (device, driver) = (Some(adapter.name), Some(adapter.driver));
            GpuStatus { state: "ready", device, driver, reason: None, collections }
        }
    }
}
