//! A journal: entries next to the log, in a directory of their own, for what is not a document (who did what, and when).
//!
//! It owns that directory: segments of the log's format, written and read by the log's own code, the mark of where it begins, and a lock.
//! Kinds and payloads are its user's. It is synchronous and starts no thread; one [`Journal`] writes, any number of [`JournalReader`]s read.
//!
//! Invariants:
//! * What [`Journal::sync`] answered for is on stable storage. A crash keeps the entries before it, and of those after it the first few or
//!   none, each whole.
//! * A torn tail is cut. Damage is reported and stepped over, and so are entries that somebody removed: where a journal begins is written
//!   down before anything in front of it goes.
//! * What waits for the next sync is bounded.
//!
//! Left out: the catalog, because entries are read in their order, and compaction, because they go from the front, a segment at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::append::{Append, AppendError, Compressor, Limits, LogWriter, Purpose};
use super::disk::{Disk, RealDisk, checked_line, read_file, replace_file, text_in};
use super::frame::{Kinds, PAYLOAD_MAX};
use super::lock::Lock;
use super::log::{Damage, Log, Opening, ReadError, remove_segment, segment_firsts};
use super::{OpenError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, create_dir};
use crate::base::{ByteSize, Clock, Fault, Lsn, NodeId, UnixMillis, with_causes};

/// Entries that wait for a sync are synced when they take so many bytes.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Name of the file that says where the journal begins.
const BEGIN: &str = "begin";
const BEGIN_BYTES_MAX: u64 = 1 << 10;

/// What a journal needs to know.
#[derive(Clone)]
pub struct JournalConfig {
    /// Its directory, next to `log/`; made with mode 0700 if absent.
    pub dir: PathBuf,
    /// The node that begins it.
    pub node: NodeId,
    /// A segment is sealed before it gets longer than this, in bytes; kept between 4 KiB and 8 GiB.
    pub segment_bytes: u64,
    /// Bytes to leave free on the file system. Entries are refused below it.
    pub reserve_bytes: u64,
    /// Bytes that it may have; 0 for no limit. Entries are refused above it.
    pub max_bytes: u64,
    /// Where the times of the entries come from.
    pub clock: Arc<dyn Clock>,
}

/// What was found when a journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalReport {
    /// The first entry that is to be there.
    pub begin: Lsn,
    /// The last entry; 0 in an empty journal.
    pub last: Lsn,
    /// Bytes cut from the end: an append that was interrupted.
    pub torn_bytes: u64,
    /// What is damaged, as far as opening it shows; [`JournalReader::damage`] knows more once it was read.
    pub damage: Vec<Damage>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its place: 1, 2, 3, … Never used twice.
    pub lsn: Lsn,
    /// When it was appended.
    pub time: UnixMillis,
    /// What it is, in its user's numbers.
    pub kind: u8,
    /// What it says.
    pub payload: Vec<u8>,
}

/// Some entries in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalPage {
    /// In their order.
    pub entries: Vec<JournalEntry>,
    /// First and last of entries on the way that are damaged or missing.
    pub lost: Vec<(Lsn, Lsn)>,
    /// Where the next page begins.
    pub next: Lsn,
}

/// Why an entry was not taken or not made durable.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The entry is too long. The others are as they were.
    #[error("an entry of {} is longer than {}", ByteSize(*.bytes as u64), ByteSize(PAYLOAD_MAX as u64))]
    TooLarge {
        /// Bytes of its payload.
        bytes: usize,
    },
    /// Too little space. What waits still does, and a later sync succeeds once there is more.
    #[error("the disk is full: {} are free, writing needs {}", ByteSize(*.free), ByteSize(*.needed))]
    DiskFull {
        /// Bytes free; 0 when the file system itself refused.
        free: u64,
        /// Bytes that must be free, reserve included.
        needed: u64,
    },
    /// The journal is as long as it may be. What waits still does, and a later sync succeeds once some of it was cut off.
    #[error("the journal has {} of the {} that it may have", ByteSize(*.used), ByteSize(*.limit))]
    QuotaReached {
        /// Bytes of the journal.
        used: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The next segment cannot be opened. What waits still does, and a later sync succeeds once files may be opened again.
    #[error("as many files are open as this process may have; nothing was written")]
    NoFiles {
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written. Whether what waited is in it shows when it is opened anew; it is read-only until then.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier failure ended writing until the journal is opened anew.
    #[error("the journal is read-only: {reason}")]
    ReadOnly {
        /// That failure.
        reason: String,
    },
}

impl JournalError {
    /// Who can do something about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLarge { .. } => Fault::Caller,
            Self::DiskFull { .. }
            | Self::QuotaReached { .. }
            | Self::NoFiles { .. }
            | Self::Write { .. }
            | Self::ReadOnly { .. } => Fault::Environment,
        }
    }
}

impl From<AppendError> for JournalError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { free, needed, .. } => Self::DiskFull { free, needed },
            AppendError::Quota { used, limit } => Self::QuotaReached { used, limit },
            AppendError::NoFiles { source } => Self::NoFiles { source },
            AppendError::Failed { path, source } => Self::Write { path, source },
        }
    }
}

/// The one writer of a journal.
pub struct Journal {
    reader: JournalReader,
    writer: LogWriter,
    compressor: Compressor,
    clock: Arc<dyn Clock>,
    /// Entries that wait for a sync.
    waiting: Option<Append>,
    /// Why nothing is written any more.
    failure: Option<String>,
}

/// Reads a journal; cheap to clone.
#[derive(Clone)]
pub struct JournalReader {
    log: Arc<Log>,
    /// `None` only on a disk in memory.
    _lock: Option<Arc<Lock>>,
}

impl Journal {
    /// Opens the journal in a directory, or makes one. Cuts what a crash left unfinished. Takes time in proportion to the last segment.
    ///
    /// # Errors
    /// When another process has it open, it cannot be read or written, or another release wrote it in a format that this one does not read.
    pub fn open(config: JournalConfig) -> Result<(Self, JournalReport), OpenError> {
        create_dir(&RealDisk, &config.dir)?;
        let lock = Lock::take(&config.dir)?;
        Self::open_on(Arc::new(RealDisk), Some(lock), config)
    }

    /// Opens it on any disk; tests bring their own.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        lock: Option<Lock>,
        config: JournalConfig,
    ) -> Result<(Self, JournalReport), OpenError> {
        let JournalConfig { dir, node, segment_bytes, reserve_bytes, max_bytes, clock } = config;
        create_dir(&*disk, &dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync_dir(parent).map_err(|source| OpenError::Directory { path: parent.to_owned(), source })?;
        }
        let begin = begin_in(&*disk, &dir);
        finish_cut(&*disk, &dir, begin)?;
        let opening = Opening { kinds: Kinds::Any, node: Some(node), begin, promise: None, now: clock.now() };
        let (log, tail) = Log::open(disk, dir, &opening)?;
        let report = JournalReport { begin, last: log.last(), torn_bytes: tail.torn, damage: log.damage() };
        let reader = JournalReader { log: Arc::new(log), _lock: lock.map(Arc::new) };
        let segment_bytes = segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let writer = LogWriter::new(Arc::clone(&reader.log), tail, Limits { segment_bytes, reserve_bytes, max_bytes });
        let journal = Self { reader, writer, compressor: Compressor::new(), clock, waiting: None, failure: None };
        Ok((journal, report))
    }

    /// The reader of the same journal.
    #[must_use]
    pub fn reader(&self) -> &JournalReader {
        &self.reader
    }

    /// Adds an entry, which the next [`Self::sync`] makes durable and visible together with all that wait. When too much waits, this syncs.
    ///
    /// # Errors
    /// When the entry was not taken; see [`JournalError`].
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<Lsn, JournalError> {
        self.check()?;
        if payload.len() > PAYLOAD_MAX {
            return Err(JournalError::TooLarge { bytes: payload.len() });
        }
        if self.waiting.as_ref().is_some_and(|waiting| waiting.bytes() >= WAITING_BYTES_MAX) {
            self.sync()?;
        }
        let now = self.clock.now();
        let waiting = self.waiting.get_or_insert_with(|| Append::new(&self.reader.log, now));
        waiting.set_time(now);
        let lsn = waiting.push(kind, payload, &mut self.compressor);
        waiting.end_batch();
        Ok(lsn)
    }

    /// Makes everything that was appended durable, with one write and one sync; returns the last entry.
    ///
    /// # Errors
    /// See [`JournalError`], which says for each whether the entries still wait.
    pub fn sync(&mut self) -> Result<Lsn, JournalError> {
        self.check()?;
        let Some(waiting) = self.waiting.take() else { return Ok(self.reader.last()) };
        if let Err(error) = self.writer.append(&waiting, Purpose::Add, self.clock.now()) {
            if !matches!(error, AppendError::Failed { .. }) {
                self.waiting = Some(waiting);
            }
            return Err(self.failed(error.into()));
        }
        self.reader.log.announce();
        Ok(self.reader.last())
    }

    /// Forgets the entries that wait for a sync; their places are given to those that come.
    pub fn discard(&mut self) {
        self.waiting = None;
    }

    /// Syncs, and begins a new segment, so that what was written until now can be cut off.
    ///
    /// # Errors
    /// When it cannot be written; see [`JournalError`].
    pub fn rotate(&mut self) -> Result<Lsn, JournalError> {
        self.sync()?;
        let sealed = self.writer.seal(self.clock.now());
        sealed.map_err(|error| self.failed(error.into()))?;
        Ok(self.reader.last())
    }

    /// Removes the segments in which every entry is before `before`; the one that is being written stays. Returns the first entry that is
    /// left, or is to come. Interrupted, it is finished when the journal is opened.
    ///
    /// # Errors
    /// When it cannot be written; see [`JournalError`].
    pub fn cut(&mut self, before: Lsn) -> Result<Lsn, JournalError> {
        self.check()?;
        let log = Arc::clone(&self.reader.log);
        let begin = log.sealed_before(before);
        if begin > log.begin() {
            let path = log.dir.join(BEGIN);
            let cut = replace_file(&*log.disk, &path, checked_line(&begin.0.to_string()).as_bytes())
                .and_then(|()| log.cut_front(begin));
            // What is left of the segments then is removed at the next start.
            cut.map_err(|source| self.failed(JournalError::Write { path, source }))?;
        }
        Ok(begin)
    }

    fn check(&self) -> Result<(), JournalError> {
        match &self.failure {
            Some(reason) => Err(JournalError::ReadOnly { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn failed(&mut self, error: JournalError) -> JournalError {
        if matches!(error, JournalError::Write { .. }) {
            self.failure = Some(with_causes(&error));
        }
        error
    }
}

impl JournalReader {
    /// The first entry that is to be there.
    #[must_use]
    pub fn begin(&self) -> Lsn {
        self.log.begin()
    }

    /// The last entry that is durable; 0 in an empty journal.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.log.last()
    }

    /// Bytes of all segments, without reserved space.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Damage found so far, at most a thousand places.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.log.damage()
    }

    /// Follows the journal; see [`super::Reader::positions`].
    #[must_use]
    pub fn positions(&self) -> watch::Receiver<Lsn> {
        self.log.positions()
    }

    /// The entries from `from` on: as many as there are, but at most `most`, and no further one once they have `bytes` bytes together. So a
    /// page takes no more memory than that and one entry more. Entries that were cut off are stepped over.
    ///
    /// # Errors
    /// When the disk does not read, or only a newer release understands an entry.
    pub fn read(&self, from: Lsn, most: usize, bytes: usize) -> Result<JournalPage, ReadError> {
        let mut page = JournalPage { entries: Vec::new(), lost: Vec::new(), next: from.max(self.begin()) };
        let (end, mut taken) = (self.last().next(), 0);
        while page.next < end && page.entries.len() + page.lost.len() < most && taken < bytes {
            let lsn = self.log.next_readable(page.next).min(end);
            page.lost.extend(self.log.lost_between(page.next, lsn));
            page.next = lsn;
            if lsn == end {
                break;
            }
            match self.log.read(lsn) {
                Ok(frame) => {
                    taken += frame.payload.len();
                    let (time, kind) = (frame.header.time, frame.header.kind);
                    page.entries.push(JournalEntry { lsn, time, kind, payload: frame.payload });
                }
                // It was cut off in this moment, with what is before the beginning now.
                Err(ReadError::Gone { .. }) => {
                    page.lost.retain(|(_, last)| *last >= self.begin());
                    page.next = self.begin().max(lsn.next());
                    continue;
                }
                Err(error) if error.is_damage() => page.lost.push((lsn, lsn)),
                Err(error) => return Err(error),
            }
            page.next = lsn.next();
        }
        Ok(page)
    }
}

/// Where a journal begins. A damaged mark is as none: what is not there is named then.
fn begin_in(disk: &dyn Disk, dir: &Path) -> Lsn {
    let bytes = read_file(disk, &dir.join(BEGIN), BEGIN_BYTES_MAX).unwrap_or_default();
    text_in(&bytes).and_then(|text| text.parse().ok()).map_or(Lsn::ZERO.next(), Lsn)
}

/// Removes the segments that an interrupted [`Journal::cut`] left.
fn finish_cut(disk: &dyn Disk, dir: &Path, begin: Lsn) -> Result<(), OpenError> {
    let names = disk.list(dir).map_err(|source| OpenError::Read { path: dir.to_owned(), source })?;
    let firsts = segment_firsts(&names);
    let mut is_changed = false;
    for (first, next) in firsts.iter().zip(firsts.iter().skip(1)) {
        if *next <= begin {
            remove_segment(disk, dir, *first).map_err(|source| OpenError::Write { path: dir.to_owned(), source })?;
            is_changed = true;
        }
    }
    if is_changed {
        disk.sync_dir(dir).map_err(|source| OpenError::Write { path: dir.to_owned(), source })?;
    }
    Ok(())
}
