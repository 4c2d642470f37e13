//! Sources over REST: how `cairn add` hands files to a running node.
//!
//! `POST   /v1/collections/{collection}/sources/{path}` with the file as body: see [`crate::collection::Access::sync_source`].
//! `GET    /v1/collections/{collection}/sources?prefix=&after=&limit=`: paths and document counts.
//! `DELETE /v1/collections/{collection}/sources/{path}`: removes the source's documents.
//! `GET    /v1/collections/{collection}/folders`: the folders that were added, each with the machine and path that it came from.
//! `POST   /v1/collections/{collection}/folders/{prefix}` with `{"host", "path"}`: remembers where a folder is.
//! `POST   /v1/snapshots/verify?id=`: proves a snapshot, the newest when none is named; answers when it is done.
//! `GET    /v1/snapshots/schedule`: what is set for snapshots, and how it went.
//! `POST   /v1/snapshots/prune?node=&dry_run=`: removes the snapshots that the settings do not keep.
//! `POST   /v1/flush`: answers when everything written before can be found; writes of sources are answered when they are
//! on stable storage, a little earlier.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::asked::{Asked, Named};
use super::{Shared, error_response, json_response};
use crate::auth::Caller;
use crate::collection::{DocumentStatus, Folder, FolderOrigin, SourceOutcome};
use crate::mcp::ToolError;

/// Sources on one page.
const PAGE: usize = crate::mcp::SOURCES_PAGE;

#[derive(Debug, Deserialize)]
pub(super) struct SyncQuery {
    /// A JSON object that is added to the metadata of every document.
    metadata: Option<String>,
}

pub(super) async fn sync(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named((collection, source)): Named<(String, String)>,
    Asked(query): Asked<SyncQuery>,
    body: Bytes,
) -> Response {
    let metadata: Map<String, Value> = match query.metadata.as_deref().map(serde_json::from_str) {
        None => Map::new(),
        Some(Ok(Value::Object(metadata))) => metadata,
        Some(Ok(other)) => {
            let message = format!("metadata is {other}, expected an object such as {{\"team\": \"storage\"}}");
            return error_response(&ToolError::bad_argument(message));
        }
        Some(Err(error)) => {
            return error_response(&ToolError::bad_argument(format!("metadata is not JSON: {error}")));
        }
    };
    match shared.tools.sync_source(&caller, &collection, &source, body, metadata).await {
        Ok(outcome) => json_response(StatusCode::OK, outcome_json(&source, &outcome).to_string()),
        Err(error) => error_response(&error),
    }
}

/// What became of a source, as the REST interface and `cairn add --json` say it.
pub(crate) fn outcome_json(source: &str, outcome: &SourceOutcome) -> Value {
    let count = |wanted: fn(&DocumentStatus) -> bool| {
        outcome.documents.iter().filter(|document| wanted(&document.status)).count()
    };
    let created = count(|status| matches!(status, DocumentStatus::Created));
    let updated = count(|status| matches!(status, DocumentStatus::Updated));
    let deleted = count(|status| matches!(status, DocumentStatus::Deleted));
    let failed: Vec<String> = outcome
        .documents
        .iter()
        .filter_map(|document| match &document.status {
            DocumentStatus::Failed(error) => Some(format!("{}: {error}", document.id)),
            _ => None,
        })
        .collect();
    let status = match (created, updated + deleted, outcome.unchanged) {
        _ if !failed.is_empty() => "failed",
        (0, 0, 0) => "empty",
        (0, _, 0) if updated == 0 => "deleted",
        (0, 0, _) => "unchanged",
        (_, 0, 0) => "created",
        _ => "updated",
    };
    json!({
        "source": source,
        "status": status,
        "created": created,
        "updated": updated,
        "deleted": deleted,
        "unchanged": outcome.unchanged,
        "passages": outcome.documents.iter().map(|document| document.passages).sum::<usize>(),
        "warnings": outcome.warnings,
        "errors": failed,
    })
}

pub(super) async fn folders(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named(collection): Named<String>,
) -> Response {
    match shared.tools.folders(&caller, &collection) {
        Ok(folders) => {
            let folder = |folder: &Folder| json!({"prefix": folder.prefix, "host": folder.origin.host, "path": folder.origin.path});
            let folders: Vec<Value> = folders.iter().map(folder).collect();
            json_response(StatusCode::OK, json!({ "folders": folders }).to_string())
        }
        Err(error) => error_response(&error),
    }
}

pub(super) async fn note_folder(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named((collection, prefix)): Named<(String, String)>,
    body: Bytes,
) -> Response {
    let origin: FolderOrigin = match serde_json::from_slice(&body) {
        Ok(origin) => origin,
        Err(error) => {
            let what = if error.is_data() { String::new() } else { format!(": {error}") };
            let message = format!("expected an object with the texts host and path{what}");
            return error_response(&ToolError::bad_argument(message));
        }
    };
    match shared.tools.note_folder(&caller, &collection, &prefix, &origin).await {
        Ok(()) => json_response(StatusCode::OK, json!({"prefix": prefix, "status": "noted"}).to_string()),
        Err(error) => error_response(&error),
    }
}

/// * `_body`: read, though nothing in it counts, so that the connection goes on.
pub(super) async fn compact(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    _body: Bytes,
) -> Response {
    match shared.tools.compact(&caller).await {
        Ok(bytes) => json_response(StatusCode::OK, json!({"log_bytes": bytes}).to_string()),
        Err(error) => error_response(&error),
    }
}

/// * `_body`: see [`compact`].
pub(super) async fn flush(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    _body: Bytes,
) -> Response {
    match shared.tools.flush(&caller).await {
        Ok(lsn) => json_response(StatusCode::OK, json!({"generation": lsn.0}).to_string()),
        Err(error) => error_response(&error),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct VerifyQuery {
    #[serde(default)]
    id: Option<String>,
}

/// * `_body`: see [`compact`].
pub(super) async fn verify_snapshot(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<VerifyQuery>,
    _body: Bytes,
) -> Response {
    match shared.tools.verify_snapshot(&caller, query.id).await {
        Ok(verified) => json_response(StatusCode::OK, verified.to_string()),
        Err(error) => error_response(&error),
    }
}

pub(super) async fn snapshot_schedule(State(shared): State<Shared>, Extension(caller): Extension<Caller>) -> Response {
    match shared.tools.snapshot_schedule(&caller).await {
        Ok(schedule) => json_response(StatusCode::OK, schedule.to_string()),
        Err(error) => error_response(&error),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct PruneQuery {
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// * `_body`: see [`compact`].
pub(super) async fn prune_snapshots(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<PruneQuery>,
    _body: Bytes,
) -> Response {
    match shared.tools.prune_snapshots(&caller, query.node, query.dry_run).await {
        Ok(pruned) => json_response(StatusCode::OK, pruned.to_string()),
        Err(error) => error_response(&error),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    limit: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named(collection): Named<String>,
    Asked(query): Asked<ListQuery>,
) -> Response {
    let limit: usize = match query.limit.as_deref().map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(limit)) => limit.clamp(1, PAGE),
        Some(Err(_)) => {
            let message = format!("limit is '{}', expected 1 to {PAGE}", query.limit.unwrap_or_default());
            return error_response(&ToolError::bad_argument(message));
        }
    };
    let sources = match shared.tools.sources(&caller, &collection, &query.prefix, query.after.as_deref(), limit) {
        Ok(sources) => sources,
        Err(error) => return error_response(&error),
    };
    let sources: Vec<Value> =
        sources.into_iter().map(|(source, documents)| json!({"source": source, "documents": documents})).collect();
    json_response(StatusCode::OK, json!({ "sources": sources }).to_string())
}

pub(super) async fn remove(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named((collection, source)): Named<(String, String)>,
) -> Response {
    match shared.tools.delete_source(&caller, &collection, &source).await {
        Ok(ids) => json_response(StatusCode::OK, json!({"source": source, "deleted": ids.len()}).to_string()),
        Err(error) => error_response(&error),
    }
}
