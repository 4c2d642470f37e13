//! A journal: entries next to the log, in a separate directory, for data other than documents (who did what, and when).
//!
//! It owns that directory: segments in the log's format, written and read by the log's code, a mark of what must exist,
//! and a lock. Its user defines kinds and payloads. It is synchronous and starts no thread; one [`Journal`] writes, any
//! number of [`JournalReader`]s read.
//!
//! Invariants:
//! * Entries for which [`Journal::sync`] returned are on stable storage. A crash keeps them, and the first few or none
//!   of the later ones, each of them complete.
//! * A torn tail is cut. Damage is reported and skipped, and so are segments that someone removed, at the front and at
//!   the end: the new first entry is written down before anything in front of it is deleted, and the start of each new
//!   segment once it exists. Not noticed: entries that someone cuts off the end of the segment that is being written,
//!   which looks like an interrupted append, and a directory that was replaced with its mark.
//! * The entries waiting for the next sync are bounded.
//!
//! Left out: the catalog, because entries are read in order, and compaction, because entries are deleted from the
//! front, one segment at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::append::{Append, AppendError, Compressor, Limits, LogWriter, Purpose};
use super::disk::{Disk, RealDisk, checked_line, read_file, replace_file, text_in};
use super::frame::{Kinds, PAYLOAD_MAX};
use super::lock::Lock;
use super::log::{Damage, Log, Opening, ReadError};
use super::{OpenError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, create_dir};
use crate::base::{ByteSize, Clock, Fault, Lsn, NodeId, UnixMillis, with_causes};

/// Waiting entries are synced when they reach this size.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Name of the file that stores what must exist.
const MARK: &str = "begin";
const MARK_BYTES_MAX: u64 = 1 << 10;

/// Configuration of a journal.
#[derive(Clone)]
pub struct JournalConfig {
    /// Its directory, next to `log/`; created with mode 0700 if missing.
    pub dir: PathBuf,
    /// The node that creates it.
    pub node: NodeId,
    /// A segment is sealed before it gets longer than this, in bytes; kept between 4 KiB and 8 GiB.
    pub segment_bytes: u64,
    /// Bytes to leave free on the file system. Entries are refused below it.
    pub reserve_bytes: u64,
    /// Maximum size in bytes; 0 for no limit. Entries are refused above it.
    pub max_bytes: u64,
    /// The source of the entries' times.
    pub clock: Arc<dyn Clock>,
}

/// The findings when a journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalReport {
    /// The first entry that should exist.
    pub begin: Lsn,
    /// The last entry; 0 in an empty journal.
    pub last: Lsn,
    /// Bytes cut from the end: an interrupted append.
    pub torn_bytes: u64,
    /// The damage that opening it shows; [`JournalReader::damage`] knows more after reading.
    pub damage: Vec<Damage>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its position: 1, 2, 3, … Never used twice.
    pub lsn: Lsn,
    /// When it was appended.
    pub time: UnixMillis,
    /// Its kind, as defined by the user.
    pub kind: u8,
    /// Its content.
    pub payload: Vec<u8>,
}

/// Consecutive entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalPage {
    /// In order.
    pub entries: Vec<JournalEntry>,
    /// First and last LSN of damaged or missing entries in between.
    pub lost: Vec<(Lsn, Lsn)>,
    /// Where the next page starts.
    pub next: Lsn,
}

/// Why an entry was not accepted or not made durable.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The entry is too long. The others are unchanged.
    #[error("an entry of {} is longer than {}", ByteSize(*.bytes as u64), ByteSize(PAYLOAD_MAX as u64))]
    TooLarge {
        /// Bytes of its payload.
        bytes: usize,
    },
    /// Too little space. Waiting entries keep waiting, and a later sync succeeds once there is more.
    #[error("the disk is full: {} are free, writing needs {}", ByteSize(*.free), ByteSize(*.needed))]
    DiskFull {
        /// Bytes free; 0 when the file system itself refused.
        free: u64,
        /// Bytes that must be free, reserve included.
        needed: u64,
    },
    /// The journal has reached its size limit. Waiting entries keep waiting, and a later sync succeeds once some of it
    /// was cut.
    #[error("the journal has {} of the {} that it may have", ByteSize(*.used), ByteSize(*.limit))]
    QuotaReached {
        /// Bytes of the journal.
        used: u64,
        /// The size limit in bytes.
        limit: u64,
    },
    /// The next segment cannot be opened. Waiting entries keep waiting, and a later sync succeeds once files can be
    /// opened again.
    #[error("as many files are open as this process may have; nothing was written")]
    NoFiles {
        /// The system's error.
        source: io::Error,
    },
    /// It could not be written. Reopening it shows whether the waiting entries are in it; it is read-only until then.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An earlier failure ended writing until the journal is reopened.
    #[error("the journal is read-only: {reason}")]
    ReadOnly {
        /// That failure.
        reason: String,
    },
}

impl JournalError {
    /// Who can fix it.
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

/// The single writer of a journal.
pub struct Journal {
    reader: JournalReader,
    writer: LogWriter,
    compressor: Compressor,
    clock: Arc<dyn Clock>,
    /// Entries that wait for a sync.
    waiting: Option<Append>,
    /// Why writing has ended.
    failure: Option<String>,
    /// The last segment in the mark.
    marked: Lsn,
}

/// What must exist of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// The first entry.
    begin: Lsn,
    /// First entry of the last segment; zero when unknown.
    sealed_to: Lsn,
}

impl Mark {
    /// Without a mark, entries from the first one on must exist.
    const NONE: Self = Self { begin: Lsn(1), sealed_to: Lsn::ZERO };

    /// The mark of the journal in `dir`. A damaged one counts as missing: missing entries are reported then.
    fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(MARK);
        let bytes = match read_file(disk, &path, MARK_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => Vec::new(),
            // It is there: without it, what was cut would be reported as missing, and never be cut again.
            Err(source) => return Err(OpenError::Read { path, source }),
        };
        let mut numbers = text_in(&bytes).unwrap_or_default().split(' ').map(|number| number.parse().ok().map(Lsn));
        let Some(begin) = numbers.next().flatten() else { return Ok(Self::NONE) };
        // Before segments were marked, the first entry was all of it.
        Ok(Self { begin, sealed_to: numbers.next().flatten().unwrap_or(Lsn::ZERO) })
    }

    fn write(self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let line = checked_line(&format!("{} {}", self.begin.0, self.sealed_to.0));
        replace_file(disk, &dir.join(MARK), line.as_bytes())
    }
}

/// Reads a journal; cheap to clone.
#[derive(Clone)]
pub struct JournalReader {
    log: Arc<Log>,
    /// `None` only on a disk in memory.
    _lock: Option<Arc<Lock>>,
}

impl Journal {
    /// Opens the journal in a directory, or creates one. Cuts what a crash left unfinished. Takes time in proportion to
    /// the last segment.
    ///
    /// # Errors
    /// When another process has it open, it cannot be read or written, or another release wrote it in a format that
    /// this one does not read.
    pub fn open(config: JournalConfig) -> Result<(Self, JournalReport), OpenError> {
        create_dir(&RealDisk, &config.dir)?;
        let lock = Lock::acquire(&config.dir)?;
        Self::open_on(Arc::new(RealDisk), Some(lock), config)
    }

    /// Opens it on any disk; tests provide their own.
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
        let Mark { begin, sealed_to } = Mark::read(&*disk, &dir)?;
        let (kinds, node, now) = (Kinds::Any, Some(node), clock.now());
        let opening = Opening { kinds, node, begin, clean_shutdown: None, previous: None, sealed_to, now };
        let (log, tail) = Log::open(disk, dir, &opening)?;
        let report = JournalReport { begin, last: log.last(), torn_bytes: tail.torn, damage: log.damage() };
        let reader = JournalReader { log: Arc::new(log), _lock: lock.map(Arc::new) };
        let segment_bytes = segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let writer = LogWriter::new(Arc::clone(&reader.log), tail, Limits { segment_bytes, reserve_bytes, max_bytes });
        let compressor = Compressor::new();
        let journal = Self { reader, writer, compressor, clock, waiting: None, failure: None, marked: sealed_to };
        Ok((journal, report))
    }

    /// The reader of the same journal.
    #[must_use]
    pub fn reader(&self) -> &JournalReader {
        &self.reader
    }

    /// Adds an entry, which the next [`Self::sync`] makes durable and visible with all waiting ones. Syncs when too
    /// much is waiting.
    ///
    /// # Errors
    /// When the entry was not accepted; see [`JournalError`].
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
    /// See [`JournalError`], which says for each variant whether the entries still wait.
    pub fn sync(&mut self) -> Result<Lsn, JournalError> {
        self.check()?;
        let Some(waiting) = self.waiting.take() else { return Ok(self.reader.last()) };
        if let Err(error) = self.writer.append(&waiting, Purpose::Add, self.clock.now()) {
            if !matches!(error, AppendError::Failed { .. }) {
                self.waiting = Some(waiting);
            }
            return Err(self.failed(error.into()));
        }
        self.mark_segment();
        self.reader.log.announce();
        Ok(self.reader.last())
    }

    /// Writes down that a new segment was started. The entries are safe without it, so a failure is not an error; the next
    /// sync tries it again.
    fn mark_segment(&mut self) {
        let log = &self.reader.log;
        let (begin, sealed_to) = (log.first_lsn(), log.active_first());
        if sealed_to > begin.max(self.marked) && (Mark { begin, sealed_to }).write(&*log.disk, &log.dir).is_ok() {
            self.marked = sealed_to;
        }
    }

    /// Drops the entries that wait for a sync; later entries get their positions.
    pub fn discard(&mut self) {
        self.waiting = None;
    }

    /// Syncs and starts a new segment, so that everything written so far can be cut.
    ///
    /// # Errors
    /// When it cannot be written; see [`JournalError`].
    pub fn rotate(&mut self) -> Result<Lsn, JournalError> {
        self.sync()?;
        let sealed = self.writer.seal(self.clock.now());
        sealed.map_err(|error| self.failed(error.into()))?;
        self.mark_segment();
        Ok(self.reader.last())
    }

    /// Removes the segments in which every entry is before `before`; the active one stays. Returns the first remaining
    /// or future entry. If interrupted, it is finished when the journal is opened.
    ///
    /// # Errors
    /// When it cannot be written; see [`JournalError`].
    pub fn cut(&mut self, before: Lsn) -> Result<Lsn, JournalError> {
        self.check()?;
        let log = Arc::clone(&self.reader.log);
        let begin = log.sealed_before(before);
        if begin > log.first_lsn() {
            let sealed_to = log.active_first();
            let cut = (Mark { begin, sealed_to }).write(&*log.disk, &log.dir).and_then(|()| log.cut_front(begin));
            // The next start removes what is left of the segments.
            let path = log.dir.join(MARK);
            cut.map_err(|source| self.failed(JournalError::Write { path, source }))?;
            self.marked = sealed_to;
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
    /// The first entry that should exist.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.log.first_lsn()
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

    /// Up to `most` entries from `from` on, ending once they have `bytes` bytes in total. A page therefore needs at
    /// most that much memory plus one entry. Entries that were cut are skipped.
    ///
    /// # Errors
    /// When the disk cannot be read, or only a newer release understands an entry.
    pub fn read(&self, from: Lsn, most: usize, bytes: usize) -> Result<JournalPage, ReadError> {
        let mut page = JournalPage { entries: Vec::new(), lost: Vec::new(), next: from.max(self.first_lsn()) };
        let (end, mut taken) = (self.last().next(), 0);
        while page.next < end && page.entries.len() + page.lost.len() < most && taken < bytes {
            let lsn = self.log.next_readable(page.next).min(end);
            let lost = self.log.lost_between(page.next, lsn);
            // Entries that were cut meanwhile are not lost.
            let begin = self.first_lsn();
            if page.next < begin {
                page.next = begin;
                continue;
            }
            page.lost.extend(lost);
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
                // It was cut just now, and is before the first entry.
                Err(ReadError::Gone { .. }) => {
                    page.lost.retain(|(_, last)| *last >= self.first_lsn());
                    page.next = self.first_lsn().max(lsn.next());
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
