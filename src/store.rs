//! The store: an append-only log that is the source of truth, and a catalog that finds things in it.
//!
//! It owns the data directory: the log's segments, the catalog as a view of the log, the lock that excludes a second
//! process, and the journals next to the log. It is synchronous and starts no thread; there is one [`Writer`] and any
//! number of users of a [`Reader`].
//!
//! Invariants:
//! * Acknowledged means on stable storage: [`Writer::commit`] returns after `fdatasync`.
//! * The records of a request survive a crash together or not at all, and in the order of the commits.
//! * Damage is reported and skipped; it never causes a panic, a loop or wrong data.
//! * The catalog is derived from the log alone and is rebuilt when in doubt.
//! * Nothing is written when nothing is requested.
//!
//! Left out: threads, and the decisions which documents expire and when to compact, which are the caller's.
//! `store/FORMAT.md` describes the bytes on disk.

mod append;
mod catalog;
mod commit;
mod compact;
mod dead;
mod disk;
#[cfg(test)]
mod disk_test;
mod frame;
mod frames;
mod journal;
mod lock;
mod log;
mod operation;
mod reader;
mod record;
mod repair;
mod sealed;
mod segment;
mod settings;
#[cfg(test)]
mod tests;
mod tree;
mod trust;
mod update;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::append::{Limits, LogWriter};
use self::disk::{Disk, RealDisk};
use self::frame::Kinds;
pub use self::lock::{HandoverRequest, holder, is_open};
use self::lock::{Lock, LockError};
use self::log::{Log, Opening};
use self::trust::{CatalogStorage, PreviousManifest};
use crate::base::{Clock, Fault, Lsn, NodeId};

pub use self::catalog::{CatalogError, CollectionInfo, DocumentEntry, SourceEntry};
pub use self::commit::{CommitError, Committed, Writer, WriterState};
pub use self::compact::{CompactError, CompactionLimits, CompactionReport};
pub use self::frame::{FORMAT, FORMATS, UnknownFrame, UnsupportedFormat};
pub use self::journal::{
    Journal, JournalConfig, JournalEntry, JournalError, JournalPage, JournalReader, JournalReport,
};
pub use self::log::{Damage, ReadError, data_format};
pub use self::operation::{NAME_BYTES_MAX, NewChunk, NewDocument, Operation, Outcome, RunOnce, WriteRequest};
pub use self::reader::{Change, ChangeKind, Reader};
pub use self::record::{ChunkBody, ChunkRef, ChunkText, CollectionId, DocumentRecord, NewCollection, Replaced};
pub use self::repair::{Affected, Replacement, cover, repair};
pub use self::sealed::{
    Epoch, SealedSegment, SegmentReport, check_segment, cut_segment, data_node, lsn_at, schedule_swap,
};
pub use self::settings::Settings;
pub use self::trust::ViewState;

/// Segments are at least this long, so that the header does not dominate, …
const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// … and at most this, so that offsets in units of 8 bytes fit 32 bits with room for one large append.
const SEGMENT_BYTES_MAX: u64 = 8 << 30;

/// Configuration of a store.
#[derive(Clone)]
pub struct Config {
    /// Directory of the store; created with mode 0700 if missing.
    pub data_dir: PathBuf,
    /// A segment is sealed before it gets longer than this, in bytes; kept between 4 KiB and 8 GiB.
    pub segment_bytes: u64,
    /// Bytes to leave free on the file system. Writes are refused below it.
    pub reserve_bytes: u64,
    /// Maximum size of the log in bytes; 0 for no limit. Writes are refused above it.
    pub max_bytes: u64,
    /// Size of the catalog pages that are cached in memory, in bytes.
    pub catalog_cache_bytes: u64,
    /// The source of the records' times.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// A store in `data_dir` with segments of 64 MiB, a reserve of 64 MiB and 32 MiB of the catalog in memory.
    #[must_use]
    pub fn new(data_dir: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            data_dir,
            segment_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            max_bytes: 0,
            catalog_cache_bytes: 32 << 20,
            clock,
        }
    }
}

/// The findings when the store was opened.
#[derive(Debug, Clone)]
pub struct OpenReport {
    /// Identity of the node.
    pub node: NodeId,
    /// LSN of the last record.
    pub last: Lsn,
    /// Bytes cut from the end of the log: an interrupted append that was never acknowledged.
    pub torn_bytes: u64,
    /// Records that are damaged.
    pub damage: Vec<Damage>,
    /// How the catalog was obtained.
    pub catalog: ViewState,
    /// What other users can do to the data directory, in words.
    pub warnings: Vec<String>,
}

/// Why a store could not be opened. The attempt lost nothing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is held by {}; use that node, or end the process", lock::holder(*.pid))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The other process, if it recorded its id.
        pid: Option<u32>,
    },
    /// A directory could not be created or the lock not be tried.
    #[error("cannot use {path}")]
    Directory {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file could not be written, cut or removed.
    #[error("cannot write {path}")]
    Write {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system's random source failed while creating the id of a new node.
    #[error("cannot create a node id: the system's random source failed")]
    Random {
        /// The underlying error.
        source: getrandom::Error,
    },
    /// A segment has a format that this release does not read.
    #[error("{path}: {format}")]
    Format {
        /// The segment.
        path: PathBuf,
        /// Its format, and which ones are read.
        format: UnsupportedFormat,
    },
    /// A record has a kind or a flag that this release does not know.
    #[error("{path}: {unknown}")]
    Unknown {
        /// The segment.
        path: PathBuf,
        /// The record.
        unknown: UnknownFrame,
    },
    /// A segment of another node is among the segments.
    #[error("{path}: written by node {found}, expected node {expected}")]
    ForeignSegment {
        /// The segment.
        path: PathBuf,
        /// The node that wrote it.
        found: NodeId,
        /// The node that wrote the first segment.
        expected: NodeId,
    },
    /// A segment was renamed.
    #[error("{path}: the first record is {first}, expected the one in the name")]
    MisnamedSegment {
        /// The segment.
        path: PathBuf,
        /// Its first record.
        first: Lsn,
    },
    /// There is no segment, though the catalog says that there were records.
    #[error(
        "{path} has no segments, and node {node} had records in it: the log was lost, and nothing was changed. Put the files back, \
         or restore a snapshot (`cairn snapshot list --any`); to start over with an empty node, choose another data directory"
    )]
    Lost {
        /// The directory of the log.
        path: PathBuf,
        /// The node that wrote it.
        node: String,
    },
    /// No segment has a readable header, so the log cannot be read.
    #[error("{path}: the segment header and its copy are damaged, and there is no other segment")]
    Header {
        /// The first segment.
        path: PathBuf,
    },
    /// The log could not be read to build the catalog.
    #[error("cannot replay the log")]
    Replay {
        /// The cause.
        source: ReadError,
    },
    /// The catalog could not be built, not even in memory.
    #[error("cannot build the catalog")]
    Catalog {
        /// The cause.
        source: CatalogError,
    },
}

impl OpenError {
    /// A record that could not be read while the catalog was built.
    fn replay(source: ReadError) -> Self {
        match source {
            ReadError::Unknown { path, unknown } => Self::Unknown { path, unknown },
            ReadError::Catalog { source } => Self::Catalog { source },
            source => Self::Replay { source },
        }
    }

    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Locked { .. }
            | Self::Directory { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Random { .. }
            | Self::Format { .. }
            | Self::Unknown { .. } => Fault::Environment,
            Self::ForeignSegment { .. } | Self::MisnamedSegment { .. } | Self::Header { .. } | Self::Lost { .. } => {
                Fault::Damage
            }
            Self::Replay { source } => source.fault(),
            Self::Catalog { source } => source.fault(),
        }
    }
}

impl From<LockError> for OpenError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { path, pid } => Self::Locked { path, pid },
            LockError::Io { path, source } => Self::Directory { path, source },
        }
    }
}

/// Opens the store in a directory, or creates one. Cuts what a crash left unfinished, brings the catalog up to date
/// with the log and reports its findings. Takes time in proportion to the last segment, or to the log when the catalog
/// must be rebuilt.
pub fn open(config: Config) -> Result<(Writer, Arc<Reader>, OpenReport), OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    create_dir(&*disk, &config.data_dir)?;
    let lock = Lock::acquire(&config.data_dir)?;
    sealed::carry_out_swap(&config.data_dir)
        .map_err(|source| OpenError::Write { path: config.data_dir.join("swap.json"), source })?;
    let warnings = permission_warnings(&config.data_dir);
    let (writer, reader, report) = open_on(disk, Some(lock), config, trust::boot_id(), CatalogStorage::Disk)?;
    Ok((writer, reader, OpenReport { warnings, ..report }))
}

/// What other users can do to a data directory. The files in it are accessible to the owner only; the directory
/// controls their names.
fn permission_warnings(data_dir: &Path) -> Vec<String> {
    // If it cannot be queried, it is not usable either, which is reported elsewhere.
    let Ok(found) = fs::metadata(data_dir) else { return Vec::new() };
    let (path, own) = (data_dir.display(), rustix::process::geteuid().as_raw());
    let mut warnings = Vec::new();
    let mode = found.mode() & 0o7777;
    if mode & 0o1002 == 0o2 {
        warnings.push(format!(
            "every user of this machine can remove or replace what is in {path} (its mode is {mode:04o}): `chmod 0700 {path}`"
        ));
    }
    if found.uid() != own && found.uid() != 0 {
        let owner = found.uid();
        warnings.push(format!(
            "{path} belongs to user {owner}, and this process runs as user {own}: that user can replace what is in it, and may not be \
             able to use what is written now"
        ));
    }
    warnings
}

/// Opens the store on any disk; tests provide their own.
fn open_on(
    disk: Arc<dyn Disk>,
    lock: Option<Lock>,
    config: Config,
    boot_id: Option<String>,
    storage: CatalogStorage,
) -> Result<(Writer, Arc<Reader>, OpenReport), OpenError> {
    let Config { data_dir, segment_bytes, reserve_bytes, max_bytes, catalog_cache_bytes, clock } = config;
    let (log_dir, views) = (data_dir.join("log"), data_dir.join("views"));
    let is_new = disk.list(&log_dir).map_or(true, |names| names.is_empty());
    create_dir(&*disk, &log_dir)?;
    create_dir(&*disk, &views)?;
    if is_new {
        // The names of the directories themselves, before anything in them is acknowledged.
        for path in [Some(&*data_dir), data_dir.parent()].into_iter().flatten() {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            disk.sync_dir(path).map_err(|source| OpenError::Directory { path: path.to_owned(), source })?;
        }
    }
    let previous = PreviousManifest::read(&*disk, &views);
    let clean_shutdown = previous.clean_shutdown();
    let opening = Opening {
        kinds: Kinds::Records,
        node: None,
        begin: Lsn::ZERO.next(),
        clean_shutdown: clean_shutdown.as_ref(),
        previous: previous.node_with_records(),
        sealed_to: Lsn::ZERO,
        now: clock.now(),
    };
    let (log, tail) = Log::open(Arc::clone(&disk), log_dir, &opening)?;
    log.recall_damage();
    let log = Arc::new(log);
    let torn_bytes = tail.torn;
    let (catalog, trust, state) =
        trust::open_catalog(disk, &views, previous, &log, boot_id, storage, catalog_cache_bytes)?;
    let report = OpenReport {
        node: log.node,
        last: log.last(),
        torn_bytes,
        damage: log.damage(),
        catalog: state,
        warnings: Vec::new(),
    };
    let segment_bytes = segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    let writer = LogWriter::new(Arc::clone(&log), tail, Limits { segment_bytes, reserve_bytes, max_bytes });
    let reader = Arc::new(Reader {
        log,
        catalog,
        state: Mutex::new(WriterState::Writable),
        reserve_bytes,
        clock: Arc::clone(&clock),
        _lock: lock,
    });
    Ok((Writer::new(Arc::clone(&reader), writer, trust, clock), reader, report))
}

fn create_dir(disk: &dyn Disk, path: &Path) -> Result<(), OpenError> {
    disk.create_dir(path).map_err(|source| {
        // The error for creating a folder where a file exists only says that something exists.
        let source = match source.kind() {
            io::ErrorKind::AlreadyExists => {
                io::Error::new(io::ErrorKind::NotADirectory, "it is a file, not a directory")
            }
            _ => source,
        };
        OpenError::Directory { path: path.to_owned(), source }
    })
}
