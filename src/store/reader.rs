//! Reading: records by LSN, the catalog, and the log as a sequence of changes.
//!
//! Readers never wait for the writer's disk: the log is read at positions that no longer change, and the catalog
//! returns the state after the last completed commit, or waits while a commit changes much of it.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::catalog::{Catalog, CollectionInfo, DocumentEntry, SourceEntry};
use super::commit::WriterState;
use super::lock::Lock;
use super::log::{Damage, Log, ReadError};
use super::record::{
    ChunkBody, ChunkText, CollectionId, DocumentRecord, Record, RecordError, Replaced, decode_chunk, decode_chunk_text,
    kind,
};
use super::sealed::{Epoch, SealedSegment};
use crate::base::{Clock, Digest, Lsn, NodeId, UnixMillis, with_causes};

/// A change made by a record, with everything that a view needs to follow it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The record's position in the log.
    pub lsn: Lsn,
    /// When it was written.
    pub time: UnixMillis,
    /// What changed.
    pub kind: ChangeKind,
}

/// The kind of a [`Change`].
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeKind {
    /// A collection was created; it is empty.
    CollectionCreated(CollectionInfo),
    /// A collection was deleted, with its documents.
    CollectionDeleted(CollectionId),
    /// A document was written.
    DocumentPut {
        /// The document.
        document: Arc<DocumentRecord>,
        /// The bodies of its chunks, in the order of `document.chunks`.
        bodies: Vec<Arc<ChunkBody>>,
        /// The replaced version, if any.
        replaced: Option<Replaced>,
    },
    /// A document was deleted.
    DocumentDeleted {
        /// Its collection.
        collection: CollectionId,
        /// Its id.
        id: String,
        /// Its last version.
        replaced: Replaced,
    },
    /// A version of a document was written that is replaced or deleted by the end of what is read: all that is left of it is which version
    /// it took the place of. Only in [`Reader::lasting_changes_between`].
    DocumentSuperseded {
        /// Its collection.
        collection: CollectionId,
        /// The version before it.
        replaced: Replaced,
    },
}

/// Reads a store; shared by everyone.
pub struct Reader {
    pub(crate) log: Arc<Log>,
    pub(crate) catalog: Catalog,
    pub(crate) state: Mutex<WriterState>,
    /// Bytes that a write leaves free on the file system.
    pub(crate) reserve_bytes: u64,
    pub(crate) clock: Arc<dyn Clock>,
    /// Dropped after the catalog, which must not be open twice. `None` only on a disk in memory.
    pub(crate) _lock: Option<Lock>,
}

impl Reader {
    /// Identity of the node that wrote the log.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.log.node
    }

    /// LSN of the last record; 0 in an empty log.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.log.last()
    }

    /// Follows the log without polling: the receiver holds the LSN of the last record, and wakes after each commit that
    /// adds one, when its records are on stable storage and in the catalog. A slow follower sees only the newest
    /// position; [`Self::changes_after`] has what lies between. The channel closes when the store is closed and all
    /// readers are dropped. Any number may follow; while none waits, it costs a commit about 100 ns.
    #[must_use]
    pub fn positions(&self) -> watch::Receiver<Lsn> {
        self.log.positions()
    }

    /// Whether the store accepts writes. The free space is queried each time, so that a full disk shows before a write
    /// fails, and free space again without one.
    #[must_use]
    pub fn state(&self) -> WriterState {
        let mut state = self.state.lock();
        if *state == WriterState::Writable {
            // Where it cannot be queried, the write will show.
            return match self.log.disk.free_space(&self.log.dir) {
                Ok(free) if free < self.reserve_bytes => WriterState::DiskFull { free, needed: self.reserve_bytes },
                Ok(_) | Err(_) => WriterState::Writable,
            };
        }
        let has_room = match *state {
            WriterState::DiskFull { needed, .. } => {
                self.log.disk.free_space(&self.log.dir).is_ok_and(|free| free >= needed)
            }
            // Whether a smaller write fits shows when one is made.
            WriterState::QuotaReached { used, .. } => self.log.bytes() < used,
            WriterState::Writable | WriterState::ReadOnly { .. } => false,
        };
        if has_room {
            *state = WriterState::Writable;
        }
        state.clone()
    }

    /// Bytes of all segments, without reserved space.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Why records or the catalog cannot be read, in words; `None` when no failure is known. A failed read is retried,
    /// so this recovers automatically.
    #[must_use]
    pub fn read_failure(&self) -> Option<String> {
        if self.catalog.has_failed() {
            return Some("the catalog cannot be read; restart the node: it is rebuilt from the log".to_owned());
        }
        let unreadable_record = self.log.unreadable_record()?;
        Some(format!("{}; the kernel's log says what is wrong with the disk", with_causes(&unreadable_record.error)))
    }

    /// Damage found since the store was opened, at most a thousand places, and what the disk cannot read now.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.log.damage()
    }

    /// The sealed segments, in LSN order.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        self.log.sealed_segments()
    }

    /// The id of the present epoch of the log.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.log.epoch
    }

    /// The epochs of the log, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Epoch> {
        self.log.history()
    }

    /// Distinguishes the record at `lsn` from one that a different epoch of the log (after a torn tail or a restore)
    /// has at the same position. A view that stores it with the LSN it has applied knows whether it still belongs to
    /// this log.
    pub fn fingerprint(&self, lsn: Lsn) -> Result<u64, ReadError> {
        self.log.fingerprint(lsn)
    }

    /// The version of a document whose record is at `lsn`.
    pub fn document(&self, lsn: Lsn) -> Result<Arc<DocumentRecord>, ReadError> {
        match self.record(lsn, kind::DOCUMENT_PUT)? {
            (_, Record::DocumentPut(document)) => Ok(document),
            (_, record) => Err(ReadError::Kind { lsn, found: record.kind(), expected: kind::DOCUMENT_PUT }),
        }
    }

    /// The body of the chunk whose record is at `lsn`.
    pub fn chunk(&self, lsn: Lsn) -> Result<ChunkBody, ReadError> {
        decode_chunk(&self.payload(lsn, kind::CHUNK)?.1).map_err(|error| self.log.unreadable(lsn, error.0))
    }

    /// The text of the chunk whose record is at `lsn`; cheaper than [`Self::chunk`].
    pub fn chunk_text(&self, lsn: Lsn) -> Result<ChunkText, ReadError> {
        decode_chunk_text(&self.payload(lsn, kind::CHUNK)?.1).map_err(|error| self.log.unreadable(lsn, error.0))
    }

    /// The changes after a record, up to the current end of the log, in LSN order: the same values as in
    /// [`super::Committed::changes`], as far as compaction has left them.
    ///
    /// Damage is an `Err` item and the iterator continues after it; a document with damaged chunks follows with the
    /// others. Any other error is the last item.
    pub fn changes_after(&self, after: Lsn) -> impl Iterator<Item = Result<Change, ReadError>> + '_ {
        self.changes_between(after, self.last())
    }

    /// Like [`Self::changes_after`], up to the existing record at `last`.
    pub fn changes_between(&self, after: Lsn, last: Lsn) -> impl Iterator<Item = Result<Change, ReadError>> + '_ {
        Changes { reader: self, next: after.next(), end: last, is_lasting_only: false, found: VecDeque::new() }
    }

    /// Like [`Self::changes_between`], without the content of versions that are replaced or deleted by `last`. Every view is built from
    /// these.
    ///
    /// Compaction drops dead records in no particular order. So of three versions the first may be there and the second not, and only the
    /// second names the first as replaced: a view that begins with the first would keep it for ever.
    pub fn lasting_changes_between(
        &self,
        after: Lsn,
        last: Lsn,
    ) -> impl Iterator<Item = Result<Change, ReadError>> + '_ {
        Changes { reader: self, next: after.next(), end: last, is_lasting_only: true, found: VecDeque::new() }
    }

    /// The collection with this name.
    #[must_use]
    pub fn collection(&self, name: &str) -> Option<Arc<CollectionInfo>> {
        self.catalog.collections.read().named(name).cloned()
    }

    /// The collection with this id.
    #[must_use]
    pub fn collection_by_id(&self, id: CollectionId) -> Option<Arc<CollectionInfo>> {
        self.catalog.collections.read().by_id.get(&id).cloned()
    }

    /// All collections, oldest first.
    #[must_use]
    pub fn collections(&self) -> Vec<Arc<CollectionInfo>> {
        self.catalog.collections.read().by_id.values().cloned().collect()
    }

    /// The current document with this id.
    pub fn lookup(&self, collection: CollectionId, id: &str) -> Result<Option<DocumentEntry>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.lookup(collection, id))?)
    }

    /// LSN of the record of the chunk with this digest, if a document of the collection has one: its embedding does not
    /// have to be computed again.
    pub fn find_chunk(&self, collection: CollectionId, digest: &Digest) -> Result<Option<Lsn>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.chunk(collection, digest))?)
    }

    /// At most `limit` documents whose ids begin with `prefix`, by id in byte order, starting after the id `after`.
    pub fn list(
        &self,
        collection: CollectionId,
        after: Option<&str>,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, DocumentEntry)>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.list(collection, after, prefix, limit))?)
    }

    /// At most `limit` documents of a source, by id in byte order, starting after the id `after`.
    pub fn list_source(
        &self,
        collection: CollectionId,
        source: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, DocumentEntry)>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.list_source(collection, source, after, limit))?)
    }

    /// At most `limit` sources that have documents, by name in byte order, those from the name `from` on.
    pub fn sources(
        &self,
        collection: CollectionId,
        from: Bound<&str>,
        limit: usize,
    ) -> Result<Vec<SourceEntry>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.sources(collection, from, limit))?)
    }

    /// At most `limit` documents whose expiry is `now` or before, earliest first.
    pub fn expired(&self, now: UnixMillis, limit: usize) -> Result<Vec<(CollectionId, String)>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.expired(now, limit))?)
    }

    /// A note of a collection; `None` when it does not exist.
    pub fn note(&self, collection: CollectionId, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.note(collection, key))?)
    }

    /// The notes of a collection whose keys begin with `prefix`, by key in byte order.
    pub fn notes(&self, collection: CollectionId, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
        Ok(self.catalog.ask(|catalog| catalog.notes(collection, prefix))?)
    }

    /// The answer stored for an idempotency key in the last 24 hours.
    pub fn remembered(&self, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(lsn) = self.catalog.ask(|catalog| catalog.remembered(key, self.clock.now()))? else { return Ok(None) };
        self.answer(lsn).map(Some)
    }

    /// The answer whose record is at `lsn`.
    pub(crate) fn answer(&self, lsn: Lsn) -> Result<Vec<u8>, ReadError> {
        match self.record(lsn, kind::ANSWER)? {
            (_, Record::Answer { answer, .. }) => Ok(answer),
            (_, record) => Err(ReadError::Kind { lsn, found: record.kind(), expected: kind::ANSWER }),
        }
    }

    fn payload(&self, lsn: Lsn, expected: u8) -> Result<(UnixMillis, Vec<u8>), ReadError> {
        let frame = self.log.read(lsn)?;
        match frame.header.kind {
            found if found == expected => Ok((frame.header.time, frame.payload)),
            found => Err(ReadError::Kind { lsn, found, expected }),
        }
    }

    fn record(&self, lsn: Lsn, expected: u8) -> Result<(UnixMillis, Record), ReadError> {
        let (time, payload) = self.payload(lsn, expected)?;
        let record = Record::decode(expected, lsn, time, &payload);
        Ok((time, record.map_err(|RecordError(what)| self.log.unreadable(lsn, what))?))
    }
}

/// See [`Reader::changes_after`].
struct Changes<'a> {
    reader: &'a Reader,
    next: Lsn,
    end: Lsn,
    /// See [`Reader::lasting_changes_between`].
    is_lasting_only: bool,
    /// Items of the record read last.
    found: VecDeque<Result<Change, ReadError>>,
}

impl Iterator for Changes<'_> {
    type Item = Result<Change, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.found.pop_front() {
                if item.as_ref().is_err_and(|error| !error.is_damage()) {
                    self.found.clear();
                    self.next = self.end.next();
                }
                return Some(item);
            }
            if self.next > self.end {
                return None;
            }
            let lsn = self.reader.log.next_readable(self.next).min(self.end.next());
            if lsn > self.next {
                let from = std::mem::replace(&mut self.next, lsn);
                // Records that compaction dropped are not missing.
                if let Some((first, last)) = self.reader.log.lost_between(from, lsn) {
                    return Some(Err(ReadError::Lost { first, last }));
                }
            }
            self.next = lsn.next();
            if let Err(error) = self.read(lsn) {
                self.found.push_back(Err(error));
            }
        }
    }
}

impl Changes<'_> {
    fn read(&mut self, lsn: Lsn) -> Result<(), ReadError> {
        let header = self.reader.log.header(lsn)?;
        if !kind::CHANGES.contains(&header.kind) {
            return Ok(());
        }
        let (time, record) = self.reader.record(lsn, header.kind)?;
        let kind = match record {
            Record::CollectionCreated(new) => ChangeKind::CollectionCreated(CollectionInfo::new(lsn, time, new)),
            Record::CollectionDeleted(collection) => ChangeKind::CollectionDeleted(collection),
            Record::DocumentPut(document) => {
                let is_superseded = self.is_lasting_only && self.is_superseded(lsn, &document)?;
                match (is_superseded, document.replaced) {
                    (false, _) => self.document(document)?,
                    (true, Some(replaced)) => {
                        ChangeKind::DocumentSuperseded { collection: document.collection, replaced }
                    }
                    (true, None) => return Ok(()),
                }
            }
            Record::DocumentDeleted { collection, id, replaced, .. } => {
                ChangeKind::DocumentDeleted { collection, id, replaced }
            }
            _ => return Ok(()),
        };
        self.found.push_back(Ok(Change { lsn, time, kind }));
        Ok(())
    }

    /// Whether a record that is read later, or one that was dropped, replaces or deletes a version of a document.
    fn is_superseded(&self, lsn: Lsn, document: &DocumentRecord) -> Result<bool, ReadError> {
        let (collection, id) = (document.collection, document.id.as_str());
        let (exists, last) = self
            .reader
            .catalog
            .ask(|catalog| Ok((catalog.exists(collection), catalog.last_change(collection, id)?)))?;
        // The catalog follows the log: of the last records it may not know yet. A collection comes into both before its documents.
        Ok(!exists || last.is_some_and(|last| lsn < last && last <= self.end))
    }

    fn document(&mut self, mut document: Arc<DocumentRecord>) -> Result<ChangeKind, ReadError> {
        let mut bodies = Vec::with_capacity(document.chunks.len());
        let mut lost = Vec::new();
        for (index, chunk) in document.chunks.iter().enumerate() {
            match self.reader.chunk(chunk.lsn) {
                Ok(body) => bodies.push(Arc::new(body)),
                Err(error) if error.is_damage() => {
                    self.found.push_back(Err(error));
                    lost.push(index);
                }
                Err(error) => return Err(error),
            }
        }
        if !lost.is_empty() {
            let mut index = 0..;
            Arc::make_mut(&mut document).chunks.retain(|_| index.next().is_some_and(|at: usize| !lost.contains(&at)));
        }
        let replaced = document.replaced;
        Ok(ChangeKind::DocumentPut { document, bodies, replaced })
    }
}
