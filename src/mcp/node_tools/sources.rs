//! Operations of the node that interfaces use in addition to the tools: sources and folders for `cairn add`,
//! maintenance, snapshots.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::error::ended;
use super::super::{NoProgress, ToolError};
use super::{Call, NodeTools};
use crate::auth::Caller;
use crate::base::Lsn;
use crate::calls::{Operation, Permit, Scope};
use crate::collection::{Folder, FolderOrigin, SourceOutcome};
use crate::retrieval::SearchError;

/// Sources on one page at most.
pub const SOURCES_PAGE: usize = 1_000;

impl NodeTools {
    fn on(&self, operation: Operation, caller: &Caller, collection: &str) -> Result<Permit, ToolError> {
        Ok(self.calls.enter(operation, caller, &Scope::One(collection.into()))?)
    }

    /// Brings the documents of a source in line with its content, in a collection that is made when it is missing; see
    /// [`crate::collection::Access::sync_source`].
    ///
    /// # Errors
    /// When the source cannot be read as documents, or nothing can be written. Nothing was written then.
    pub async fn sync_source(
        &self,
        caller: &Caller,
        collection: &str,
        source: &str,
        bytes: impl AsRef<[u8]> + Into<Vec<u8>> + Send,
        metadata: Map<String, Value>,
    ) -> Result<SourceOutcome, ToolError> {
        let permit = self.on(Operation::SYNC_SOURCE, caller, collection)?;
        let access = self.library.access(&permit);
        let synced = async {
            access.ensure_collection(collection).await?;
            Ok(access.sync_source(collection, source, bytes, metadata).await?)
        };
        let result = synced.await;
        ended(permit, result)
    }

    /// Deletes every document of a source. Returns their ids.
    ///
    /// # Errors
    /// When there is no such collection, or nothing can be written.
    pub async fn delete_source(
        &self,
        caller: &Caller,
        collection: &str,
        source: &str,
    ) -> Result<Vec<String>, ToolError> {
        let permit = self.on(Operation::DELETE_SOURCE, caller, collection)?;
        let result = self.library.access(&permit).delete_source(collection, source).await;
        ended(permit, result.map_err(ToolError::from))
    }

    /// Names of a collection's sources that begin with `prefix`, after `after`, each with the number of its documents.
    ///
    /// * `limit`: at most [`SOURCES_PAGE`] are returned.
    ///
    /// # Errors
    /// When the collection does not exist, or the catalog cannot be read.
    pub async fn sources(
        &self,
        caller: &Caller,
        collection: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, ToolError> {
        let permit = self.on(Operation::LIST_SOURCES, caller, collection)?;
        let call = Call { tools: self, permit: &permit, progress: &NoProgress };
        let listed = call.read(&collection, |reading| {
            let info = reading.access.collection(collection).ok_or_else(|| no_collection(collection))?;
            let (reached, limit) = (reading.reached(&info)?, limit.clamp(1, SOURCES_PAGE));
            let sources = reading.access.sources(info.id, &reached, prefix, after, limit);
            let sources = sources.map_err(SearchError::from)?;
            Ok(sources.into_iter().map(|source| (source.source, source.documents)).collect())
        });
        let result = listed.await;
        ended(permit, result)
    }

    /// The folders that were added to a collection.
    ///
    /// # Errors
    /// When there is no such collection, or the catalog cannot be read.
    pub async fn folders(&self, caller: &Caller, collection: &str) -> Result<Vec<Folder>, ToolError> {
        let permit = self.on(Operation::LIST_FOLDERS, caller, collection)?;
        let call = Call { tools: self, permit: &permit, progress: &NoProgress };
        let listed = call.read(&collection, |reading| {
            let info = reading.access.collection(collection).ok_or_else(|| no_collection(collection))?;
            let reached = reading.reached(&info)?;
            Ok(reading.access.folders(info.id, &reached).map_err(SearchError::from)?)
        });
        let result = listed.await;
        ended(permit, result)
    }

    /// Remembers where a folder is, with its collection.
    ///
    /// # Errors
    /// When a text is too long, or nothing can be written.
    pub async fn note_folder(
        &self,
        caller: &Caller,
        collection: &str,
        prefix: &str,
        origin: &FolderOrigin,
    ) -> Result<(), ToolError> {
        let permit = self.on(Operation::NOTE_FOLDER, caller, collection)?;
        let access = self.library.access(&permit);
        let noted = async {
            access.ensure_collection(collection).await?;
            Ok(access.note_folder(collection, prefix, origin).await?)
        };
        let result = noted.await;
        ended(permit, result)
    }

    /// Waits until everything written so far is visible to searches. Returns up to where that is.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn flush(&self, caller: &Caller) -> Result<Lsn, ToolError> {
        let permit = self.calls.enter(Operation::FLUSH, caller, &Scope::Node)?;
        let result = self.library.access(&permit).flush().await;
        ended(permit, result.map_err(ToolError::from))
    }

    /// The position of the last write.
    ///
    /// * `known`: waits for another one as long as it is this one, `wait` at most.
    ///
    /// # Errors
    /// When a rule refuses it.
    pub async fn changed(&self, caller: &Caller, known: Option<Lsn>, wait: Duration) -> Result<Lsn, ToolError> {
        let permit = self.calls.enter(Operation::LISTEN, caller, &Scope::Node)?;
        let mut positions = self.library.log().positions();
        // The log may end meanwhile, and time may run out: the position is what it is then.
        let _ = tokio::time::timeout(wait, positions.wait_for(|position| Some(*position) != known)).await;
        let position = *positions.borrow();
        ended(permit, Ok(position))
    }

    /// Clears dead records out of the log as far as that is worth it. Returns the log's bytes.
    ///
    /// # Errors
    /// When the log cannot be written or the node is stopping.
    pub async fn compact(&self, caller: &Caller) -> Result<u64, ToolError> {
        let permit = self.calls.enter(Operation::COMPACT, caller, &Scope::Node)?;
        let result = self.library.access(&permit).compact().await;
        ended(permit, result.map_err(ToolError::from))
    }

    /// Proves a snapshot, the newest when none is named; what was found, which may be that it is not whole.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub async fn verify_snapshot(&self, caller: &Caller, id: Option<String>) -> Result<Value, ToolError> {
        let permit = self.calls.enter(Operation::VERIFY_SNAPSHOT, caller, &Scope::Node)?;
        let result = self.backups.verify(id).await;
        ended(permit, result)
    }

    /// The settings of snapshots, and their results.
    ///
    /// # Errors
    /// When the caller is not allowed to see them.
    pub async fn snapshot_schedule(&self, caller: &Caller) -> Result<Value, ToolError> {
        let permit = self.calls.enter(Operation::SNAPSHOT_SCHEDULE, caller, &Scope::Node)?;
        let schedule = self.backups.schedule().await;
        ended(permit, Ok(schedule))
    }

    /// Removes the snapshots that the settings do not keep; says only which when `dry_run`.
    ///
    /// * `node`: another node's: the beginning of its id, or `any`.
    ///
    /// # Errors
    /// When the repository cannot be used, or something is missing there.
    pub async fn prune_snapshots(
        &self,
        caller: &Caller,
        node: Option<String>,
        dry_run: bool,
    ) -> Result<Value, ToolError> {
        let permit = self.calls.enter(Operation::PRUNE_SNAPSHOTS, caller, &Scope::Node)?;
        let result = self.backups.prune(node, dry_run).await;
        ended(permit, result)
    }
}

fn no_collection(name: &str) -> ToolError {
    ToolError::not_found(format!("there is no collection '{name}'"))
}
