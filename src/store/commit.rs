//! Writing: decides the effect of each operation, appends the records, and applies them to the catalog.
//!
//! All conditions are checked here, one operation after the other, against the catalog and the earlier operations of
//! the same group. The order is fixed: log, catalog, answer. If the log fails, the catalog is unchanged; if the catalog
//! fails, the records are safe and the next start rebuilds the catalog.

mod plan;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use self::plan::Plan;
use super::append::{Append, AppendError, Compressor, LogWriter, Purpose};
use super::catalog::{Applied, CatalogError};
use super::operation::{Operation, Outcome, WriteRequest};
use super::reader::{Change, Reader};
use super::trust::Trust;
use super::update::Update;
use crate::base::{ByteSize, Clock, Fault, Lsn, with_causes};

/// The result of a group. All of it is on stable storage.
#[derive(Debug)]
pub struct Committed {
    /// The outcomes of each request's operations; empty for a request that had already run, see [`super::RunOnce`].
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

    /// Informs readers of the result of the last write.
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
            began: Lsn::ZERO,
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
