//! Documents of another store, as its log has them: with their embeddings, so that nothing is parsed or embedded again.
//!
//! Invariants:
//! * What was copied and how far the other store was followed are in one batch: after a crash both are there or neither.
//! * Copying the same changes again ends with the same documents.
//! * Versions and times are those of this store; the progress says which positions of the other one they come from.

use std::sync::Arc;

use super::WriteError;
use super::access::Access;
use super::input::PrepareError;
use super::writer::WaitFor;
use crate::base::Lsn;
use crate::store::{
    Change, ChangeKind, ChunkBody, ChunkRef, CollectionId, CollectionInfo, DocumentRecord, NAME_BYTES_MAX, NewChunk,
    NewDocument, Operation, Outcome,
};

/// How far another store was followed: a note of the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Unique in the collection, for instance `followed/` and the other node's id.
    pub key: String,
    /// The position, in the follower's own form. At most [`crate::store::NAME_BYTES_MAX`] bytes.
    pub value: Vec<u8>,
}

impl Access<'_> {
    /// Brings changes of another store's collection into one of this store. The creation and the deletion of the other collection are
    /// not for this call: it changes documents only. Returns the position up to which everything is on stable storage.
    ///
    /// * `origin`: the other collection.
    /// * `changes`: of that collection, in the order of its log; see [`crate::store::Reader::lasting_changes_between`].
    ///
    /// # Errors
    /// When the collection does not exist or has another model, the permit does not reach all of its documents, the progress is too long, or
    /// the log refuses. Nothing was written then.
    pub async fn copy(
        &self,
        collection: &str,
        origin: &CollectionInfo,
        changes: &[Change],
        progress: Progress,
    ) -> Result<Lsn, WriteError> {
        let info = self.existing(collection)?;
        if self.permit.reach().documents().is_some() {
            return Err(WriteError::WholeOutOfReach { what: format!("collection '{collection}'") });
        }
        if (&info.model, info.dimensions) != (&origin.model, origin.dimensions) {
            return Err(WriteError::OtherModel {
                collection: collection.to_owned(),
                expected: info.model.clone(),
                found: origin.model.clone(),
            });
        }
        for (what, found) in [("key", progress.key.len()), ("value", progress.value.len())] {
            let limit = NAME_BYTES_MAX;
            if found > limit {
                return Err(PrepareError::TooLarge { what, found, limit }.into());
            }
        }
        let mut operations: Vec<Operation> = changes.iter().filter_map(|change| operation(info.id, change)).collect();
        operations.push(Operation::Note { collection: info.id, key: progress.key, value: progress.value });
        let written = self.library.commit(operations, WaitFor::Durable).await?;
        match written.outcomes.contains(&Outcome::NoSuchCollection) {
            // It was deleted meanwhile.
            true => Err(WriteError::NoSuchCollection { name: collection.to_owned() }),
            false => Ok(written.lsn),
        }
    }
}

/// What brings a change into `collection`; `None` for one that concerns no document.
fn operation(collection: CollectionId, change: &Change) -> Option<Operation> {
    match &change.kind {
        ChangeKind::DocumentPut { document, bodies, .. } => {
            Some(Operation::PutDocument(Box::new(copy_of(document, bodies, collection))))
        }
        ChangeKind::DocumentDeleted { id, .. } => {
            Some(Operation::DeleteDocument { collection, id: id.clone(), if_version: None })
        }
        ChangeKind::CollectionCreated(_) | ChangeKind::CollectionDeleted(_) | ChangeKind::DocumentSuperseded { .. } => {
            None
        }
    }
}

fn copy_of(document: &DocumentRecord, bodies: &[Arc<ChunkBody>], collection: CollectionId) -> NewDocument {
    let chunk = |(chunk, body): (&ChunkRef, &Arc<ChunkBody>)| NewChunk {
        range: chunk.range.clone(),
        page: chunk.page,
        body: Arc::clone(body),
    };
    NewDocument {
        collection,
        id: document.id.clone(),
        title: document.title.clone(),
        url: document.url.clone(),
        metadata: document.metadata.clone(),
        source: document.source.clone(),
        source_digest: document.source_digest,
        content_digest: document.content_digest,
        media_type: document.media_type.clone(),
        expires_at: document.expires_at,
        if_version: None,
        unless_exists: false,
        looked_at: None,
        chunks: document.chunks.iter().zip(bodies).map(chunk).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Body, Config, DocumentInput, Library, MediaType, Metrics, Missing};
    use super::*;
    use crate::calls::{Calls, Operation as Called};
    use crate::store::Reader;
    use crate::task::Readiness;

    fn open(directory: &tempfile::TempDir) -> Arc<Library> {
        Library::open(Config::for_test(directory.path()), &Readiness::default(), &Metrics::default()).expect("opened").0
    }

    fn text(id: &str, text: &str) -> DocumentInput {
        let body = Body::Text(text.to_owned(), MediaType::Text);
        DocumentInput { id: Some(id.to_owned()), body, ..DocumentInput::default() }
    }

    /// The bodies of a document's passages.
    fn bodies(reader: &Reader, collection: CollectionId, id: &str) -> Vec<ChunkBody> {
        let entry = reader.lookup(collection, id).expect("read").expect("there");
        let document = reader.document(entry.lsn).expect("read");
        document.chunks.iter().map(|chunk| reader.chunk(chunk.lsn).expect("read")).collect()
    }

    fn progress(position: Lsn) -> Progress {
        Progress { key: "followed/edge".to_owned(), value: position.0.to_le_bytes().to_vec() }
    }

    #[tokio::test]
    async fn a_follower_has_the_documents_their_embeddings_and_its_progress() {
        let directories = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
        let (edge, hub) = (open(&directories[0]), open(&directories[1]));
        let permit = Calls::unwatched().internal_permit(Called::COPY_DOCUMENTS);
        let (there, here) = (edge.access(&permit), hub.access(&permit));
        let origin = there.create_collection("pumps", "", None).await.expect("created");
        here.create_collection("site-7", "", None).await.expect("created");
        let info = here.create_collection("pumps", "", None).await.expect("created");
        let inputs = vec![text("worn", "The pump is worn."), text("new", "The pump is new."), text("lost", "Lost.")];
        there.add("pumps", Missing::Refuse, inputs).await.expect("written");
        there.delete("pumps", &["lost".to_owned()]).await.expect("deleted");

        let changes: Vec<Change> = edge.reader.changes_after(Lsn::ZERO).map(|change| change.expect("read")).collect();
        let reached = edge.reader.last();
        let first = here.copy("pumps", &origin, &changes, progress(reached)).await.expect("copied");
        assert!(hub.reader.lookup(info.id, "lost").expect("read").is_none());
        for id in ["worn", "new"] {
            let copied = bodies(&hub.reader, info.id, id);
            assert_eq!(copied, bodies(&edge.reader, origin.id, id));
            assert!(copied.iter().all(|body| body.embedding.len() == origin.dimensions as usize));
        }
        let noted = hub.reader.note(info.id, "followed/edge").expect("read");
        assert_eq!(noted, Some(reached.0.to_le_bytes().to_vec()));

        // The same again, as after a lost answer: 'lost' is written and deleted once more, and the others are as they were.
        let versions = |hub: &Library| {
            ["worn", "new"].map(|id| hub.reader.lookup(info.id, id).expect("read").expect("there").version)
        };
        let again = here.copy("pumps", &origin, &changes, progress(reached)).await.expect("copied");
        assert!(again > first);
        assert_eq!(versions(&hub), [1, 1]);
        assert!(hub.reader.lookup(info.id, "lost").expect("read").is_none());
    }

    #[tokio::test]
    async fn embeddings_of_another_model_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let hub = open(&directory);
        let permit = Calls::unwatched().internal_permit(Called::COPY_DOCUMENTS);
        let here = hub.access(&permit);
        let info = here.create_collection("pumps", "", None).await.expect("created");
        let before = hub.reader.last();
        let origin = CollectionInfo { model: "another".to_owned(), ..CollectionInfo::clone(&info) };
        let error = here.copy("pumps", &origin, &[], progress(before)).await.expect_err("another model");
        assert!(error.to_string().contains("another"), "{error}");
        assert_eq!(hub.reader.last(), before);
    }
}
