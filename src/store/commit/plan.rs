//! Decides the effect of each operation of a group, one after the other.
//!
//! Invariant: nothing is written here; what is decided is the catalog, the records and the outcomes of a group together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::append::{Append, Compressor};
use super::super::catalog::{CatalogError, CollectionInfo};
use super::super::frame::PAYLOAD_MAX;
use super::super::operation::{NAME_BYTES_MAX, NewChunk, NewDocument, Operation, Outcome, RunOnce, WriteRequest};
use super::super::reader::{Change, ChangeKind, Reader};
use super::super::record::{
    ChunkBody, ChunkRef, CollectionId, DocumentRecord, NewCollection, Record, Replaced, encode_chunk, kind,
};
use super::super::update::Update;
use crate::base::{Lsn, UnixMillis};

/// A group while its operations are decided.
pub(super) struct Plan<'a> {
    pub(super) reader: &'a Reader,
    pub(super) update: Update<'a>,
    pub(super) append: Append,
    pub(super) compressor: &'a mut Compressor,
    pub(super) changes: Vec<Change>,
    /// Answers that this group stores, by key.
    pub(super) answers: HashMap<String, Vec<u8>>,
    /// Reused for every payload.
    pub(super) payload: Vec<u8>,
    pub(super) now: UnixMillis,
    /// LSN of the first record of the request that is being decided.
    pub(super) began: Lsn,
}

impl Plan<'_> {
    /// Executes a request; returns its outcomes, and its answer if it runs only once.
    pub(super) fn request(&mut self, request: WriteRequest) -> Result<(Vec<Outcome>, Option<Vec<u8>>), CatalogError> {
        let WriteRequest { operations, once, unless_changed } = request;
        self.began = self.append.next();
        let last_change = |collection| self.update.collections.by_id.get(&collection).map(|info| info.last_change);
        if unless_changed.is_some_and(|(collection, seen)| last_change(collection) > Some(seen)) {
            return Ok((vec![Outcome::Overtaken; operations.len()], None));
        }
        let Some(RunOnce { key, compose }) = once else { return Ok((self.operations(operations)?, None)) };
        if let Some(outcome) = too_large("answer key", key.len(), NAME_BYTES_MAX) {
            return Ok((vec![outcome; operations.len()], None));
        }
        if let Some(answer) = self.remembered(&key)? {
            return Ok((Vec::new(), Some(answer)));
        }
        let outcomes = self.operations(operations)?;
        let answer = compose(&outcomes, self.append.next());
        if key.len() + answer.len() + 8 <= PAYLOAD_MAX {
            self.push(&Record::Answer { key: key.clone(), answer: answer.clone() }, None)?;
            self.answers.insert(key, answer.clone());
        }
        Ok((outcomes, Some(answer)))
    }

    fn operations(&mut self, operations: Vec<Operation>) -> Result<Vec<Outcome>, CatalogError> {
        operations.into_iter().map(|operation| self.operation(operation)).collect()
    }

    /// The stored answer for a key; `None` if its record is damaged: the request then runs again.
    fn remembered(&self, key: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        if let Some(answer) = self.answers.get(key) {
            return Ok(Some(answer.clone()));
        }
        let lsn = self.reader.catalog.remembered(key, self.now)?;
        Ok(lsn.and_then(|lsn| self.reader.answer(lsn).ok()))
    }

    fn operation(&mut self, operation: Operation) -> Result<Outcome, CatalogError> {
        match operation {
            Operation::CreateCollection(new) => self.create_collection(new),
            Operation::DeleteCollection { collection } => {
                if !self.exists(collection) {
                    return Ok(Outcome::NoSuchCollection);
                }
                let lsn = self.push(&Record::CollectionDeleted(collection), None)?;
                self.changed(lsn, ChangeKind::CollectionDeleted(collection));
                Ok(Outcome::CollectionDeleted)
            }
            Operation::PutDocument(document) => self.put_document(*document),
            Operation::DeleteDocument { collection, id, if_version } => {
                self.delete_document(collection, id, if_version)
            }
            Operation::DeleteFromSource { collection, source, keep } => {
                self.delete_from_source(collection, &source, &keep)
            }
            Operation::Note { collection, key, value } => self.note(collection, key, value),
        }
    }

    fn exists(&self, collection: CollectionId) -> bool {
        self.update.collections.by_id.contains_key(&collection)
    }

    fn create_collection(&mut self, new: NewCollection) -> Result<Outcome, CatalogError> {
        if let Some(info) = self.update.collections.named(&new.name) {
            return Ok(Outcome::CollectionExists(info.id));
        }
        // The catalog holds these texts in memory and in a single value, so they must stay short.
        for (what, text) in [("name", &new.name), ("description", &new.description), ("model", &new.model)] {
            if let Some(outcome) = too_large(what, text.len(), NAME_BYTES_MAX) {
                return Ok(outcome);
            }
        }
        let record = Record::CollectionCreated(new.clone());
        let lsn = self.push(&record, None)?;
        let info = CollectionInfo::new(lsn, self.now, new);
        self.changed(lsn, ChangeKind::CollectionCreated(info));
        Ok(Outcome::CollectionCreated(CollectionId(lsn)))
    }

    fn put_document(&mut self, new: NewDocument) -> Result<Outcome, CatalogError> {
        let collection = new.collection;
        if !self.exists(collection) {
            return Ok(Outcome::NoSuchCollection);
        }
        if let Some(outcome) = check_size(&new) {
            return Ok(outcome);
        }
        let entry = self.update.document(collection, &new.id)?;
        let lsn = entry.as_ref().map_or(Lsn::ZERO, |entry| entry.lsn);
        if new.looked_at.is_some_and(|looked_at| looked_at != lsn && lsn < self.began) {
            return Ok(Outcome::Overtaken);
        }
        // One that has expired is not there for anybody, whether or not it was removed yet.
        let shown = entry.as_ref().filter(|entry| entry.expires_at.is_none_or(|expiry| expiry > self.now));
        let actual = shown.map(|entry| entry.version);
        if let Some(entry) = shown.filter(|_| new.unless_exists) {
            return Ok(Outcome::Kept { version: entry.version, chunks: entry.chunks });
        }
        if new.if_version.is_some_and(|expected| expected != actual.unwrap_or(0)) {
            return Ok(Outcome::Conflict { actual });
        }
        let is_readable = |lsn| lsn >= self.append_start() || !self.reader.log.is_lost(lsn);
        if let Some(entry) = &entry
            && entry.content_digest == new.content_digest
            && is_readable(entry.lsn)
        {
            return Ok(Outcome::Unchanged { version: entry.version });
        }
        let old = entry.as_ref().and_then(|entry| self.update.record(entry.lsn));
        let version = match &entry {
            Some(entry) => entry.version + 1,
            None => self.update.deleted_version(collection, &new.id)? + 1,
        };
        let (chunks, bodies) = self.push_chunks(collection, new.chunks)?;
        let document = Arc::new(DocumentRecord {
            lsn: self.append.next(),
            collection,
            id: new.id,
            title: new.title,
            url: new.url,
            metadata: new.metadata,
            source: new.source,
            source_digest: new.source_digest,
            content_digest: new.content_digest,
            media_type: new.media_type,
            created: old.as_ref().filter(|_| actual.is_some()).map_or(self.now, |old| old.created),
            updated: self.now,
            expires_at: new.expires_at,
            version,
            text_bytes: bodies.iter().map(|body| body.text.len() as u64).sum(),
            chunks,
            replaced: entry.as_ref().map(|entry| Replaced { lsn: entry.lsn, chunks: entry.chunks }),
        });
        let lsn = self.push(&Record::DocumentPut(Arc::clone(&document)), old)?;
        let replaced = document.replaced;
        self.changed(lsn, ChangeKind::DocumentPut { document, bodies, replaced });
        Ok(match actual {
            Some(_) => Outcome::Updated { version, lsn },
            None => Outcome::Created { version, lsn },
        })
    }

    /// Writes the chunks that the collection lacks and returns references to all.
    fn push_chunks(
        &mut self,
        collection: CollectionId,
        chunks: Vec<NewChunk>,
    ) -> Result<(Vec<ChunkRef>, Vec<Arc<ChunkBody>>), CatalogError> {
        let mut written = HashMap::new();
        let mut refs = Vec::with_capacity(chunks.len());
        let mut bodies = Vec::with_capacity(chunks.len());
        for NewChunk { range, page, body } in chunks {
            let known = match written.get(&body.digest) {
                Some(lsn) => Some(*lsn),
                None => self
                    .update
                    .chunk(collection, &body.digest)?
                    .map(|(lsn, _)| lsn)
                    // A document that contains a damaged chunk repairs it.
                    .filter(|lsn| *lsn >= self.append_start() || !self.reader.log.is_lost(*lsn)),
            };
            let lsn = known.unwrap_or_else(|| {
                self.payload.clear();
                encode_chunk(collection, &body, &mut self.payload);
                self.append.push(kind::CHUNK, &self.payload, self.compressor)
            });
            written.insert(body.digest, lsn);
            refs.push(ChunkRef { lsn, digest: body.digest, range, page });
            bodies.push(body);
        }
        Ok((refs, bodies))
    }

    fn delete_document(
        &mut self,
        collection: CollectionId,
        id: String,
        if_version: Option<u64>,
    ) -> Result<Outcome, CatalogError> {
        if !self.exists(collection) {
            return Ok(Outcome::NoSuchCollection);
        }
        let entry = self.update.document(collection, &id)?;
        let actual = entry.as_ref().map(|entry| entry.version);
        if if_version.is_some_and(|expected| expected != actual.unwrap_or(0)) {
            return Ok(Outcome::Conflict { actual });
        }
        let Some(entry) = entry else { return Ok(Outcome::Missing) };
        let replaced = Replaced { lsn: entry.lsn, chunks: entry.chunks };
        let record = Record::DocumentDeleted { collection, id: id.clone(), version: entry.version, replaced };
        let lsn = self.push(&record, None)?;
        self.changed(lsn, ChangeKind::DocumentDeleted { collection, id, replaced });
        Ok(Outcome::Deleted { version: entry.version })
    }

    fn delete_from_source(
        &mut self,
        collection: CollectionId,
        source: &str,
        keep: &HashSet<String>,
    ) -> Result<Outcome, CatalogError> {
        if !self.exists(collection) {
            return Ok(Outcome::NoSuchCollection);
        }
        let mut ids = self.update.source_documents(collection, source)?;
        ids.retain(|id| !keep.contains(id));
        for id in &ids {
            self.delete_document(collection, id.clone(), None)?;
        }
        Ok(Outcome::DeletedFromSource { ids })
    }

    fn note(&mut self, collection: CollectionId, key: String, value: Vec<u8>) -> Result<Outcome, CatalogError> {
        if !self.exists(collection) {
            return Ok(Outcome::NoSuchCollection);
        }
        let too_large =
            too_large("note key", key.len(), NAME_BYTES_MAX).or_else(|| too_large("note", value.len(), NAME_BYTES_MAX));
        if let Some(outcome) = too_large {
            return Ok(outcome);
        }
        // No record is needed for a note that is unchanged, or that is deleted and does not exist.
        if self.update.note(collection, &key)?.unwrap_or_default() != value {
            self.push(&Record::Note { collection, key, value }, None)?;
        }
        Ok(Outcome::Noted)
    }

    /// LSN of the first record of this group; records from there on are not in the log yet.
    fn append_start(&self) -> Lsn {
        self.reader.log.last().next()
    }

    pub(super) fn push(&mut self, record: &Record, old: Option<Arc<DocumentRecord>>) -> Result<Lsn, CatalogError> {
        self.payload.clear();
        record.encode(&mut self.payload);
        let lsn = self.append.push(record.kind(), &self.payload, self.compressor);
        self.update.apply(lsn, self.now, record, old)?;
        Ok(lsn)
    }

    fn changed(&mut self, lsn: Lsn, kind: ChangeKind) {
        self.changes.push(Change { lsn, time: self.now, kind });
    }
}

fn too_large(what: &'static str, bytes: usize, limit: usize) -> Option<Outcome> {
    (bytes > limit).then_some(Outcome::TooLarge { what, bytes, limit })
}

/// Whether a part of a document is too long for a key or a record. The sums are upper bounds of the encoded lengths.
fn check_size(new: &NewDocument) -> Option<Outcome> {
    let source = new.source.as_deref().unwrap_or_default().len();
    let url = new.url.as_deref().unwrap_or_default().len();
    let texts = new.id.len() + new.title.len() + new.media_type.len() + new.metadata.len() + url + source;
    let record = texts + new.chunks.len() * 64 + 256;
    let chunk = |body: &ChunkBody| {
        let headings: usize = body.headings.iter().map(|heading| heading.len() + 4).sum();
        too_large(
            "chunk",
            headings + body.language.len() + body.text.len() + body.embedding.len() * 2 + 64,
            PAYLOAD_MAX,
        )
    };
    too_large("document id", new.id.len(), NAME_BYTES_MAX)
        .or_else(|| too_large("source", source, NAME_BYTES_MAX))
        .or_else(|| too_large("document", record, PAYLOAD_MAX))
        .or_else(|| new.chunks.iter().find_map(|new| chunk(&new.body)))
}
