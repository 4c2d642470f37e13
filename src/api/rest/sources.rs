//! Sources: how `cairn add` sends files to a running node, and the folders that they came from.

use axum::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::collections::OfCollection;
use super::endpoint::{Endpoint, EndpointRequest, File, Json, NoBody, Nothing, Reply};
use super::problem::Failure;
use crate::collection::{DocumentStatus, Folder, FolderOrigin, SourceOutcome};
use crate::mcp::{SOURCES_PAGE, ToolError};

/// A source in a path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OfSource {
    /// The collection's name.
    pub(crate) collection: String,
    /// The file's path; slashes may be unescaped.
    pub(crate) source: String,
}

/// What goes with a file.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyncQuery {
    /// A JSON object that is added to the metadata of every document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<String>,
}

/// What became of a source.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SyncedSource {
    pub(crate) source: String,
    /// `created`, `updated`, `unchanged`, `deleted` (it has no text any more), `empty` (it never had any) or `failed`.
    pub(crate) status: String,
    /// Documents that are new.
    pub(crate) created: usize,
    /// Documents that changed.
    pub(crate) updated: usize,
    /// Documents that the source no longer holds.
    pub(crate) deleted: usize,
    /// Documents that were there already, word for word.
    pub(crate) unchanged: usize,
    /// Passages that were written.
    pub(crate) passages: usize,
    /// What was repaired or left out.
    pub(crate) warnings: Vec<String>,
    /// Documents that were not taken, with reasons.
    pub(crate) errors: Vec<String>,
}

impl SyncedSource {
    pub(crate) fn new(source: &str, outcome: &SourceOutcome) -> Self {
        let count = |wanted: fn(&DocumentStatus) -> bool| {
            outcome.documents.iter().filter(|document| wanted(&document.status)).count()
        };
        let created = count(|status| matches!(status, DocumentStatus::Created));
        let updated = count(|status| matches!(status, DocumentStatus::Updated));
        let deleted = count(|status| matches!(status, DocumentStatus::Deleted));
        let errors: Vec<String> = outcome
            .documents
            .iter()
            .filter_map(|document| match &document.status {
                DocumentStatus::Failed(error) => Some(format!("{}: {error}", document.id)),
                _ => None,
            })
            .collect();
        let status = match (created, updated + deleted, outcome.unchanged) {
            _ if !errors.is_empty() => "failed",
            (0, 0, 0) => "empty",
            (0, _, 0) if updated == 0 => "deleted",
            (0, 0, _) => "unchanged",
            (_, 0, 0) => "created",
            _ => "updated",
        };
        Self {
            source: source.to_owned(),
            status: status.to_owned(),
            created,
            updated,
            deleted,
            unchanged: outcome.unchanged,
            passages: outcome.documents.iter().map(|document| document.passages).sum(),
            warnings: outcome.warnings.clone(),
            errors,
        }
    }
}

/// `POST /v1/collections/{collection}/sources/{source}`
pub(crate) struct SyncSource;

impl Endpoint for SyncSource {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/collections/{collection}/sources/{*source}";
    const ID: &'static str = "syncSource";
    const TAG: &'static str = "Sources";
    const SUMMARY: &'static str = "Bring the documents of a file in line with its content";
    const SUCCESS: &'static [(u16, &'static str)] =
        &[(200, "On stable storage; searches see it within about half a second, or after a flush.")];
    type Path = OfSource;
    type Query = SyncQuery;
    type Body = File;
    type Answer = SyncedSource;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let metadata: Map<String, Value> = match asked.query.metadata.as_deref().map(serde_json::from_str) {
            None => Map::new(),
            Some(Ok(Value::Object(metadata))) => metadata,
            Some(Ok(other)) => {
                let message = format!("metadata is {other}, expected an object such as {{\"team\": \"storage\"}}");
                return Err(ToolError::bad_argument(message).into());
            }
            Some(Err(error)) => {
                return Err(ToolError::bad_argument(format!("metadata is not JSON: {error}")).into());
            }
        };
        let OfSource { collection, source } = &asked.path;
        let synced = asked.shared.tools.sync_source(&asked.caller, collection, source, asked.body.0, metadata).await?;
        Ok(Reply::ok(SyncedSource::new(source, &synced)))
    }
}

/// Which sources are listed.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only paths that begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
    /// Only paths after this one, in byte order: the last of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
    /// Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) limit: Option<usize>,
}

/// A file that was added.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ListedSource {
    pub(crate) source: String,
    /// How many documents it has.
    pub(crate) documents: u64,
}

/// A page of files.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SourcesPage {
    /// There are no more pages when it is empty.
    pub(crate) sources: Vec<ListedSource>,
}

/// `GET /v1/collections/{collection}/sources`
pub(crate) struct ListSources;

impl Endpoint for ListSources {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/collections/{collection}/sources";
    const ID: &'static str = "listSources";
    const TAG: &'static str = "Sources";
    const SUMMARY: &'static str = "List the files of a collection";
    type Path = OfCollection;
    type Query = ListQuery;
    type Body = NoBody;
    type Answer = SourcesPage;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let (query, collection) = (&asked.query, &asked.path.collection);
        let (prefix, limit) = (query.prefix.as_deref().unwrap_or_default(), query.limit.unwrap_or(SOURCES_PAGE));
        if !(1..=SOURCES_PAGE).contains(&limit) {
            let message = format!("limit is {limit}, expected 1 to {SOURCES_PAGE}");
            return Err(ToolError::bad_argument(message).into());
        }
        let listed =
            asked.shared.tools.sources(&asked.caller, collection, prefix, query.after.as_deref(), limit).await?;
        let listed = listed.into_iter().map(|(source, documents)| ListedSource { source, documents });
        Ok(Reply::ok(SourcesPage { sources: listed.collect() }))
    }
}

/// What became of a file's documents.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DeletedSource {
    pub(crate) source: String,
    /// How many documents were deleted; zero is not an error.
    pub(crate) deleted: u64,
}

/// `DELETE /v1/collections/{collection}/sources/{source}`
pub(crate) struct DeleteSource;

impl Endpoint for DeleteSource {
    const METHOD: Method = Method::DELETE;
    const PATH: &'static str = "/v1/collections/{collection}/sources/{*source}";
    const ID: &'static str = "deleteSource";
    const TAG: &'static str = "Sources";
    const SUMMARY: &'static str = "Delete the documents of a file";
    type Path = OfSource;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = DeletedSource;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let OfSource { collection, source } = asked.path;
        let deleted = asked.shared.tools.delete_source(&asked.caller, &collection, &source).await?;
        Ok(Reply::ok(DeletedSource { source, deleted: deleted.len() as u64 }))
    }
}

/// A folder that was added.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ListedFolder {
    /// What the names of its sources begin with.
    pub(crate) prefix: String,
    /// The machine that it is on.
    pub(crate) host: String,
    /// Its path there.
    pub(crate) path: String,
}

impl From<Folder> for ListedFolder {
    fn from(folder: Folder) -> Self {
        let Folder { prefix, origin: FolderOrigin { host, path } } = folder;
        Self { prefix, host, path }
    }
}

impl From<ListedFolder> for Folder {
    fn from(folder: ListedFolder) -> Self {
        let ListedFolder { prefix, host, path } = folder;
        Self { prefix, origin: FolderOrigin { host, path } }
    }
}

/// The folders of a collection.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Folders {
    pub(crate) folders: Vec<ListedFolder>,
}

/// `GET /v1/collections/{collection}/folders`
pub(crate) struct ListFolders;

impl Endpoint for ListFolders {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/collections/{collection}/folders";
    const ID: &'static str = "listFolders";
    const TAG: &'static str = "Sources";
    const SUMMARY: &'static str = "List the folders that were added, with the machine and path of each";
    type Path = OfCollection;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = Folders;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let folders = asked.shared.tools.folders(&asked.caller, &asked.path.collection).await?;
        Ok(Reply::ok(Folders { folders: folders.into_iter().map(ListedFolder::from).collect() }))
    }
}

/// A folder in a path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OfFolder {
    /// The collection's name.
    pub(crate) collection: String,
    /// The prefix of its sources' names; slashes may be unescaped.
    pub(crate) prefix: String,
}

/// Where a folder is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Origin {
    /// The machine, as it calls itself.
    pub(crate) host: String,
    /// Its absolute path there.
    pub(crate) path: String,
}

/// That a folder is remembered.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NotedFolder {
    pub(crate) prefix: String,
    /// `noted`.
    pub(crate) status: String,
}

/// `POST /v1/collections/{collection}/folders/{prefix}`
pub(crate) struct NoteFolder;

impl Endpoint for NoteFolder {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/collections/{collection}/folders/{*prefix}";
    const ID: &'static str = "noteFolder";
    const TAG: &'static str = "Sources";
    const SUMMARY: &'static str = "Remember where a folder is";
    type Path = OfFolder;
    type Query = Nothing;
    type Body = Json<Origin>;
    type Answer = NotedFolder;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let OfFolder { collection, prefix } = asked.path;
        let Origin { host, path } = asked.body.0;
        let origin = FolderOrigin { host, path };
        asked.shared.tools.note_folder(&asked.caller, &collection, &prefix, &origin).await?;
        Ok(Reply::ok(NotedFolder { prefix, status: "noted".to_owned() }))
    }
}
