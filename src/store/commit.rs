//! Writing: decides the effect of each operation, appends the records, and applies them to the catalog.
//!
//! All conditions are checked here, one operation after the other, against the catalog and the earlier operations of
//! the same group. The order is fixed: log, catalog, answer. If the log fails, the catalog is unchanged; if the catalog
//! fails, the records are safe and the next start rebuilds the catalog.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::append::{Append, AppendError, Compressor, LogWriter, Purpose};
use super::catalog::{Applied, CatalogError, CollectionInfo};
use super::frame::PAYLOAD_MAX;
use super::reader::{Change, ChangeKind, Reader};
use super::record::{
    ChunkBody, ChunkRef, CollectionId, DocumentRecord, NewCollection, Record, Replaced, encode_chunk, kind,
};
use super::trust::Trust;
use super::update::Update;
use crate::base::{ByteSize, Clock, Digest, Fault, Lsn, UnixMillis, with_causes};

/// Maximum length of a document id, source name, collection name, answer key or note, in bytes: they become keys and
/// values of the catalog.
pub const NAME_BYTES_MAX: usize = 4096;

/// An operation on the store.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Creates a collection, unless the name is in use.
    CreateCollection(NewCollection),
    /// Deletes a collection with all of its documents.
    DeleteCollection {
        /// Which one.
        collection: CollectionId,
    },
    /// Writes a document, new or replacing the one with its id.
    PutDocument(Box<NewDocument>),
    /// Deletes a document.
    DeleteDocument {
        /// Where it is.
        collection: CollectionId,
        /// Which one.
        id: String,
        /// The version that the caller expects; any other one is a conflict. 0: the document must not exist.
        if_version: Option<u64>,
    },
    /// Deletes the documents of a source that are not in `keep`. They are determined when the operation runs, so
    /// documents that another request wrote just before are included.
    DeleteFromSource {
        /// Where they are.
        collection: CollectionId,
        /// Their source.
        source: String,
        /// Ids of those that stay.
        keep: HashSet<String>,
    },
    /// Stores a small value with a collection and replaces the key's previous one.
    Note {
        /// Where.
        collection: CollectionId,
        /// Unique in the collection.
        key: String,
        /// At most [`NAME_BYTES_MAX`]; an empty value deletes the note.
        value: Vec<u8>,
    },
}

/// A document to write. The fields are those of [`DocumentRecord`].
#[derive(Debug, Clone)]
pub struct NewDocument {
    /// The collection to write to.
    pub collection: CollectionId,
    /// Unique in the collection.
    pub id: String,
    /// Title for people.
    pub title: String,
    /// Where the original is.
    pub url: Option<String>,
    /// A JSON object.
    pub metadata: Vec<u8>,
    /// The declared source that it belongs to.
    pub source: Option<String>,
    /// Digest of the original bytes.
    pub source_digest: Option<Digest>,
    /// Digest of everything the caller provided; nothing is written when it equals that of the current version.
    pub content_digest: Digest,
    /// Media type of the original.
    pub media_type: String,
    /// When it may be deleted.
    pub expires_at: Option<UnixMillis>,
    /// The version that the caller expects to replace; any other one is a conflict. 0: the document must not exist.
    pub if_version: Option<u64>,
    /// If a document has the id, leave it unchanged.
    pub unless_exists: bool,
    /// In the order of the document.
    pub chunks: Vec<NewChunk>,
}

/// A passage of a document to write.
#[derive(Debug, Clone)]
pub struct NewChunk {
    /// Bytes of the source.
    pub range: Range<u64>,
    /// Page of the source, from 1, if it has pages.
    pub page: Option<u32>,
    /// Its text and embedding.
    pub body: Arc<ChunkBody>,
}

/// Operations whose records survive a crash together or not at all. An operation with no effect or a conflict does not
/// stop the others.
#[derive(Debug, Clone, Default)]
pub struct WriteRequest {
    /// In order of execution.
    pub operations: Vec<Operation>,
    /// Makes it safe to send the request again; `None` for a request that runs each time it is sent.
    pub once: Option<RunOnce>,
}

/// Ensures that a request runs once in 24 hours: its answer is stored in the same batch as its effects, so that a crash
/// leaves both or neither, and a repeated request gets that answer.
#[derive(Clone)]
pub struct RunOnce {
    /// Idempotency key, which the caller of the store makes unique for the sender; at most [`NAME_BYTES_MAX`] bytes.
    pub key: String,
    /// Composes the answer from the outcome of each operation and the LSN of the answer's record. Called at most once,
    /// by the writer. An answer that does not fit into a record is returned but not stored.
    pub compose: Arc<Compose>,
}

/// See [`RunOnce::compose`].
pub type Compose = dyn Fn(&[Outcome], Lsn) -> Vec<u8> + Send + Sync;

impl fmt::Debug for RunOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOnce").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The collection was created.
    CollectionCreated(CollectionId),
    /// The name is in use; nothing was done.
    CollectionExists(CollectionId),
    /// The collection was deleted.
    CollectionDeleted,
    /// The document is new.
    Created {
        /// Its version.
        version: u64,
        /// LSN of its record.
        lsn: Lsn,
    },
    /// The document replaced an older version.
    Updated {
        /// Its version.
        version: u64,
        /// LSN of its record.
        lsn: Lsn,
    },
    /// The document exists with the same content digest; nothing was done.
    Unchanged {
        /// Its version.
        version: u64,
    },
    /// A document with the id exists and was left unchanged.
    Kept {
        /// Its version.
        version: u64,
        /// How many chunks it has.
        chunks: u32,
    },
    /// The document was deleted.
    Deleted {
        /// The version that it had.
        version: u64,
    },
    /// The document does not exist.
    Missing,
    /// The document does not have the expected version; nothing was done.
    Conflict {
        /// Its current version, if it exists.
        actual: Option<u64>,
    },
    /// The collection does not exist; nothing was done.
    NoSuchCollection,
    /// These documents of the source were deleted.
    DeletedFromSource {
        /// Their ids, in byte order.
        ids: Vec<String>,
    },
    /// The note was stored.
    Noted,
    /// The operation cannot be stored; nothing was done.
    TooLarge {
        /// Which part of it.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The maximum.
        limit: usize,
    },
}

/// The result of a group. All of it is on stable storage.
#[derive(Debug)]
pub struct Committed {
    /// The outcomes of each request's operations; empty for a request that had already run, see [`RunOnce`].
    pub outcomes: Vec<Vec<Outcome>>,
    /// The answer of each request that runs only once.
    pub answers: Vec<Option<Vec<u8>>>,
    /// The changes in LSN order; [`Reader::changes_after`] returns the same ones later.
    pub changes: Vec<Change>,
    /// LSN of the last record in the log.
    pub last: Lsn,
}

/// Why a group was not committed. No write in it may be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// An earlier failure ended writing until the store is reopened.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// That failure.
        reason: String,
    },
    /// Too little space; nothing was written, and a later commit succeeds once there is more.
    #[error(
        "the disk is full: {} are free, writing needs {}; free some space{}",
        ByteSize(*.free), ByteSize(*.needed),
        if *.refuses_deletes { ": for deletes it is too little as well" } else { ", or delete documents: writing then resumes" }
    )]
    DiskFull {
        /// Bytes free; 0 when the file system itself refused.
        free: u64,
        /// Bytes that must be free, reserve included.
        needed: u64,
        /// Whether there is too little space even for deletes, which may use half of the reserve.
        refuses_deletes: bool,
    },
    /// The log has reached its quota; nothing was written, and a later commit succeeds once space is freed.
    #[error(
        "the log has {} of the {} that store.max_bytes allows; delete documents, or raise it",
        ByteSize(*.used), ByteSize(*.limit)
    )]
    QuotaReached {
        /// Bytes of the log.
        used: u64,
        /// The quota in bytes.
        limit: u64,
    },
    /// The next segment cannot be opened; nothing was written, and a later commit succeeds once files can be opened
    /// again.
    #[error(
        "as many files are open as this process may have; nothing was written, try again, or raise the limit of open files"
    )]
    NoFiles {
        /// The system's error.
        source: io::Error,
    },
    /// The log could not be written. Whether it contains the group shows at the next start; the store is read-only now.
    #[error("cannot write {path}")]
    Write {
        /// The segment.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The catalog failed. The store is read-only now; the next start rebuilds the catalog.
    #[error("the catalog failed")]
    Catalog {
        /// The underlying error.
        #[from]
        source: CatalogError,
    },
}

impl CommitError {
    /// Whether the same write may succeed a little later, without anyone's action.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NoFiles { .. })
    }

    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::ReadOnly { .. }
            | Self::DiskFull { .. }
            | Self::QuotaReached { .. }
            | Self::NoFiles { .. }
            | Self::Write { .. } => Fault::Environment,
            Self::Catalog { source } => source.fault(),
        }
    }
}

/// Whether the store accepts writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterState {
    /// It accepts writes.
    Writable,
    /// Not until it is reopened.
    ReadOnly {
        /// What happened.
        reason: String,
    },
    /// Not until there is more free space.
    DiskFull {
        /// Bytes free at the last attempt.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// Not until the log is shorter.
    QuotaReached {
        /// Bytes of the log at the last attempt.
        used: u64,
        /// The quota in bytes.
        limit: u64,
    },
}

impl WriteRequest {
    /// Whether it only deletes; such requests are accepted when the disk is nearly full.
    #[must_use]
    pub fn only_deletes(&self) -> bool {
        let deletes = |operation: &Operation| match operation {
            Operation::DeleteCollection { .. }
            | Operation::DeleteDocument { .. }
            | Operation::DeleteFromSource { .. } => true,
            Operation::Note { value, .. } => value.is_empty(),
            Operation::CreateCollection(_) | Operation::PutDocument(_) => false,
        };
        self.once.is_none() && self.operations.iter().all(deletes)
    }
}

/// The single writer of a store.
pub struct Writer {
    reader: Arc<Reader>,
    log: LogWriter,
    compressor: Compressor,
    trust: Trust,
    clock: Arc<dyn Clock>,
    /// Whether the catalog may contain keys of deleted collections.
    has_garbage: bool,
}

impl Writer {
    pub(crate) fn new(reader: Arc<Reader>, log: LogWriter, trust: Trust, clock: Arc<dyn Clock>) -> Self {
        Self { reader, log, compressor: Compressor::new(), trust, clock, has_garbage: true }
    }

    /// The reader of the same store.
    #[must_use]
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Executes a group of requests with one write and one sync. When it returns `Ok`, everything is on stable storage
    /// and visible to readers. On an error no request is acknowledged; see [`CommitError`] for what may be on the disk.
    pub fn commit(&mut self, group: Vec<WriteRequest>) -> Result<Committed, CommitError> {
        if let WriterState::ReadOnly { reason } = &*self.reader.state.lock() {
            return Err(CommitError::ReadOnly { reason: reason.clone() });
        }
        let purpose = if group.iter().all(WriteRequest::only_deletes) { Purpose::Delete } else { Purpose::Add };
        let deletes = |operation: &Operation| matches!(operation, Operation::DeleteCollection { .. });
        self.has_garbage |= group.iter().any(|request| request.operations.iter().any(deletes));
        let result = self.try_commit(group, purpose);
        self.note(result.as_ref().err(), purpose);
        result
    }

    /// Whether requests of about `bytes` bytes would be accepted. On an error only deletes are.
    ///
    /// # Errors
    /// [`CommitError::DiskFull`] or [`CommitError::QuotaReached`].
    pub fn check_room(&mut self, bytes: u64) -> Result<(), CommitError> {
        let result = self.log.check_space(bytes, Purpose::Add).map_err(CommitError::from);
        if let Err(error) = &result {
            self.note(Some(error), Purpose::Add);
        }
        result
    }

    /// Removes some keys of deleted collections from the catalog, so that their records count as dead. Each commit does
    /// this too; when idle, call it until it returns `false`.
    ///
    /// # Errors
    /// When the catalog failed; the store is read-only then.
    pub fn sweep(&mut self) -> Result<bool, CommitError> {
        if !self.has_garbage || matches!(*self.reader.state.lock(), WriterState::ReadOnly { .. }) {
            return Ok(false);
        }
        let reader = Arc::clone(&self.reader);
        let result = self.try_sweep(&reader).map_err(CommitError::from);
        if let Err(error) = &result {
            self.note(Some(error), Purpose::Delete);
        }
        result
    }

    fn try_sweep(&mut self, reader: &Reader) -> Result<bool, CatalogError> {
        self.has_garbage = reader.catalog.has_garbage()?;
        if self.has_garbage {
            let applied = reader.catalog.applied()?;
            self.trust.mark_dirty();
            Update::new(&reader.catalog, &reader.log).finish(applied)?;
        }
        Ok(self.has_garbage)
    }

    /// Seals the segment that is being written, so that everything so far is in segments that no longer change. Returns
    /// the LSN of the last record.
    ///
    /// # Errors
    /// When the log cannot be written; see [`CommitError`].
    pub fn seal(&mut self) -> Result<Lsn, CommitError> {
        if let WriterState::ReadOnly { reason } = &*self.reader.state.lock() {
            return Err(CommitError::ReadOnly { reason: reason.clone() });
        }
        let result = self.log.seal(self.clock.now()).map_err(CommitError::from);
        if let Err(error) = &result {
            self.note(Some(error), Purpose::Delete);
        }
        result.map(|()| self.reader.last())
    }

    /// Tells readers the result of the last write.
    fn note(&mut self, error: Option<&CommitError>, purpose: Purpose) {
        let state = match error {
            // Space for deletes does not imply space for other writes.
            None if purpose == Purpose::Delete => return,
            None => WriterState::Writable,
            // Nothing has changed: the next write is attempted as usual.
            Some(CommitError::NoFiles { .. }) => return,
            // A delete needs less space than any other write.
            Some(CommitError::DiskFull { free, needed, .. }) => {
                WriterState::DiskFull { free: *free, needed: *needed.max(&self.reader.reserve_bytes) }
            }
            Some(CommitError::QuotaReached { used, limit }) => WriterState::QuotaReached { used: *used, limit: *limit },
            Some(error @ (CommitError::ReadOnly { .. } | CommitError::Write { .. } | CommitError::Catalog { .. })) => {
                WriterState::ReadOnly { reason: with_causes(error) }
            }
        };
        if matches!(error, Some(CommitError::Catalog { .. })) {
            self.trust.withdraw();
        }
        *self.reader.state.lock() = state;
    }

    fn try_commit(&mut self, group: Vec<WriteRequest>, purpose: Purpose) -> Result<Committed, CommitError> {
        let now = self.clock.now();
        let reader = Arc::clone(&self.reader);
        let mut plan = Plan {
            update: Update::new(&reader.catalog, &reader.log),
            append: Append::new(&reader.log, now),
            reader: &reader,
            compressor: &mut self.compressor,
            changes: Vec::new(),
            answers: HashMap::new(),
            payload: Vec::new(),
            now,
        };
        let mut outcomes = Vec::with_capacity(group.len());
        let mut answers = Vec::with_capacity(group.len());
        for request in group {
            let (done, answer) = plan.request(request)?;
            outcomes.push(done);
            answers.push(answer);
            plan.append.end_batch();
        }
        let Plan { update, append, changes, .. } = plan;
        if append.is_empty() {
            return Ok(Committed { outcomes, answers, changes, last: reader.log.last() });
        }
        let applied = Applied { lsn: Lsn(append.next().0 - 1), fingerprint: append.fingerprint() };
        self.log.append(&append, purpose, now)?;
        self.trust.mark_dirty();
        let finished = update.finish(applied);
        // After the catalog, which followers may query. The records exist even if this fails.
        reader.log.announce();
        finished?;
        Ok(Committed { outcomes, answers, changes, last: applied.lsn })
    }

    /// Ends writing and marks the catalog as trustworthy, so that the next start does not rebuild it. Writes are
    /// durable without this call. Remaining readers get an error from the catalog from now on; another process can open
    /// the data directory once the last of them is dropped.
    pub fn close(mut self) -> Result<(), CatalogError> {
        self.reader.log.note_damage();
        let applied = self.note_dead();
        let closed = self.reader.catalog.close();
        match applied.and_then(|applied| closed.map(|()| applied)) {
            Ok(_) if self.reader.catalog.has_failed() => {
                self.trust.withdraw();
                Ok(())
            }
            Ok(applied) => {
                // Data that an earlier run left in the kernel's cache is certain only once it is on the disk.
                if self.trust.is_dirty() && self.log.prove_tail().is_ok() {
                    self.trust.mark_clean(applied);
                }
                Ok(())
            }
            Err(error) => {
                self.trust.withdraw();
                Err(error)
            }
        }
    }
}

impl Writer {
    /// Records in the catalog what compaction removed since the last commit; otherwise the next run would do it again.
    fn note_dead(&mut self) -> Result<Applied, CatalogError> {
        let reader = Arc::clone(&self.reader);
        let applied = reader.catalog.applied()?;
        if reader.log.dead.lock().is_changed() && !reader.catalog.has_failed() {
            self.trust.mark_dirty();
            Update::new(&reader.catalog, &reader.log).finish(applied)?;
        }
        Ok(applied)
    }
}

impl From<AppendError> for CommitError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { free, needed, refuses_deletes } => Self::DiskFull { free, needed, refuses_deletes },
            AppendError::Quota { used, limit } => Self::QuotaReached { used, limit },
            AppendError::NoFiles { source } => Self::NoFiles { source },
            AppendError::Failed { path, source } => Self::Write { path, source },
        }
    }
}

/// A group while its operations are decided.
struct Plan<'a> {
    reader: &'a Reader,
    update: Update<'a>,
    append: Append,
    compressor: &'a mut Compressor,
    changes: Vec<Change>,
    /// Answers that this group stores, by key.
    answers: HashMap<String, Vec<u8>>,
    /// Reused for every payload.
    payload: Vec<u8>,
    now: UnixMillis,
}

impl Plan<'_> {
    /// Executes a request; returns its outcomes, and its answer if it runs only once.
    fn request(&mut self, request: WriteRequest) -> Result<(Vec<Outcome>, Option<Vec<u8>>), CatalogError> {
        let WriteRequest { operations, once } = request;
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
        let actual = entry.as_ref().map(|entry| entry.version);
        if let Some(entry) = entry.as_ref().filter(|_| new.unless_exists) {
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
            created: old.as_ref().map_or(self.now, |old| old.created),
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
        Ok(match replaced {
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

    fn push(&mut self, record: &Record, old: Option<Arc<DocumentRecord>>) -> Result<Lsn, CatalogError> {
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
