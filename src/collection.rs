//! Collections of documents: the write path (parse, split, embed, log, index) and the read views.
//!
//! Invariants:
//! * The log is written first; the indexes follow it. A write is answered when it is on stable storage and visible to the
//!   next search.
//! * One thread writes the log, one thread feeds the indexes, in the order of the log. Readers never wait for either.
//! * A passage's key is `document LSN << 20 | ordinal`: it follows from the log, so every rebuild gives the same keys.
//! * Expired documents are not shown, whether or not the sweep has removed them yet.

mod access;
mod adding;
mod compactor;
mod copying;
mod errors;
mod facts;
mod input;
mod leases;
mod memory;
mod metrics;
mod notes;
mod outcomes;
mod passage;
mod searcher;
mod upkeep;
mod views;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::{Clock, Lsn};
use crate::embed::Models;
use crate::extraction::{self, Extraction};
use crate::index::gpu::service::GpuClient;
pub use crate::index::gpu::service::{DeviceState, Verdict};
use crate::index::lexical::WordCache;
use crate::index::vector;
use crate::ingest;
use crate::store::{self, CollectionId, Reader};
use crate::task::{self, CpuPool, Readiness};
use parking_lot::RwLock;

pub use crate::embed::{DEFAULT_MODEL, EmbedError};
pub use crate::ingest::{MediaType, TOKEN_BYTES_MAX, estimate_tokens, prefix_within};
pub use crate::store::{ChunkRef, CollectionInfo, DocumentEntry, DocumentRecord, ReadError, WriterState};
pub use access::{Access, Reached};
pub use copying::Progress;
pub use errors::{OpenError, WriteError};
pub use facts::LogFacts;
pub use input::{Body, Conflict, DocumentInput, PrepareError};
pub use leases::Lease;
pub use memory::Memory;
pub use notes::{Folder, FolderOrigin};
pub use outcomes::{Added, DocumentOutcome, DocumentStatus, Missing, SourceOutcome};
pub use passage::{Passage, PassageKey};
pub use searcher::Searcher;
pub use writer::Written;

pub use self::metrics::Metrics;
use self::passage::PassageReader;
use self::views::{Merging, Views};
use self::writer::WriteQueue;

/// Maximum passages for each document: what fits into a key with the LSN.
pub const PASSAGES_PER_DOCUMENT_MAX: usize = 1 << 20;
/// Longest id of a document, in bytes.
pub const DOCUMENT_ID_BYTES_MAX: usize = 512;

/// The configuration of a node's collections.
#[derive(Clone)]
pub struct Config {
    /// Directory of the log and the views.
    pub data_dir: PathBuf,
    /// Sizes of the log.
    pub store: store::Settings,
    /// Where and within which bounds documents are read.
    pub extraction: extraction::Config,
    /// Limits of what is parsed.
    pub limits: ingest::Limits,
    /// Sizes of passages.
    pub chunks: ingest::ChunkConfig,
    /// The vector index; its `dimensions` are replaced by the collection's model's.
    pub vectors: vector::Config,
    /// The GPU; `None` where none is used.
    pub gpu: Option<GpuClient>,
    /// The models of the node.
    pub models: Arc<Models>,
    /// Where words that are searched for are remembered.
    pub words: Arc<WordCache>,
    /// What may be in memory.
    pub memory: Memory,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Followers of the log that exist before it is opened; see [`Library::lease`].
    pub followers: Vec<Follower>,
}

/// Up to which record of a history something has come.
pub type ReachedPosition = Arc<dyn Fn(&[store::Epoch]) -> Lsn + Send + Sync>;

/// A follower of the log from its opening on. The first lease of its name takes over from it.
#[derive(Clone)]
pub struct Follower {
    /// Its name, for people.
    pub name: String,
    /// The position that it has reached in a log with this history.
    pub reached: ReachedPosition,
}

impl Follower {
    /// One that has reached `after` in whatever log is opened.
    #[must_use]
    pub fn at(name: &str, after: Lsn) -> Self {
        Self { name: name.to_owned(), reached: Arc::new(move |_| after) }
    }
}

#[cfg(test)]
impl Config {
    /// Small, in a separate directory.
    pub(crate) fn for_test(directory: &std::path::Path) -> Self {
        Self {
            data_dir: directory.to_owned(),
            store: store::Settings {
                segment_bytes: crate::base::ByteSize::mib(1),
                reserve_bytes: crate::base::ByteSize(0),
                max_bytes: crate::base::ByteSize(0),
                compaction_rate: crate::base::ByteSize(0),
                erase_within: std::time::Duration::ZERO,
            },
            extraction: extraction::Config::here(),
            limits: ingest::Limits::default(),
            chunks: ingest::ChunkConfig::default(),
            vectors: vector::Config::new(256),
            gpu: None,
            models: Arc::new(Models::built_in()),
            words: Arc::new(WordCache::new(1 << 20)),
            memory: Memory::ample(),
            clock: Arc::new(crate::base::SystemClock),
            followers: Vec::new(),
        }
    }
}

/// The node's collections.
pub struct Library {
    config: Config,
    reader: Arc<Reader>,
    extraction: Extraction,
    pool: CpuPool,
    queue: WriteQueue,
    views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
    passages: PassageReader,
    upkeep: upkeep::Upkeep,
    compactor: compactor::Compactor,
}

impl Library {
    /// Opens the log and the views in `config.data_dir`, creating them when absent, and brings the views up to the log.
    ///
    /// # Errors
    /// When another process holds the directory, or it cannot be read or written.
    pub fn open(
        config: Config,
        readiness: &Readiness,
        metrics: &Metrics,
    ) -> Result<(Arc<Self>, store::OpenReport), OpenError> {
        readiness.set_reason("log", "the log is being read");
        let (mut writer, reader, report) = store::open(store::Config {
            data_dir: config.data_dir.clone(),
            segment_bytes: config.store.segment_bytes.0,
            reserve_bytes: config.store.reserve_bytes.0,
            max_bytes: config.store.max_bytes.0,
            catalog_cache_bytes: config.memory.catalog_bytes,
            clock: Arc::clone(&config.clock),
        })?;
        readiness.clear_reason("log");
        // So that a full disk is detected before a write fails. The refusal itself is ignored.
        let _ = writer.check_room(0);
        let views = Arc::new(RwLock::new(views::open_all(&config, &reader)?));
        let upkeep = upkeep::Upkeep::start(Arc::clone(&views), readiness).map_err(OpenError::Thread)?;
        let sizes = compactor::Sizes {
            segment_bytes: config.store.segment_bytes.0,
            reserve_bytes: config.store.reserve_bytes.0,
            bytes_per_second: config.store.compaction_rate.0,
            erase_within: Some(config.store.erase_within).filter(|within| !within.is_zero()),
        };
        let history = reader.history();
        let followers = config.followers.iter();
        let leases: Vec<(String, Lsn)> =
            followers.map(|follower| (follower.name.clone(), (follower.reached)(&history))).collect();
        let compactor = compactor::Compactor::start(
            Arc::clone(&reader),
            Arc::clone(&views),
            sizes,
            leases::Leases::new(&leases),
            readiness,
            metrics,
        )
        .map_err(OpenError::Thread)?;
        let queue = WriteQueue::start(
            writer,
            config.clone(),
            Arc::clone(&reader),
            Arc::clone(&views),
            (upkeep.bell(), compactor.bell()),
            readiness,
            metrics,
        )
        .map_err(OpenError::Thread)?;
        compactor.set_sealer(queue.sealer());
        let passages = PassageReader::new(Arc::clone(&reader));
        let pool = CpuPool::start("prepare", task::cores()).map_err(OpenError::Thread)?;
        let extraction = Extraction::new(config.extraction.clone(), metrics.extraction.clone());
        let library = Self { config, reader, extraction, pool, queue, views, passages, upkeep, compactor };
        Ok((Arc::new(library), report))
    }

    /// Stops the threads in order: writes are answered, views are checkpointed, files are closed. Later writes are refused.
    pub fn close(&self) {
        self.end(Some(Merging::All));
    }

    /// Ends background work, for a library that is opened to be read once: nothing is compacted, linked or merged any
    /// more.
    pub fn freeze(&self) {
        self.compactor.stop();
        self.upkeep.stop();
    }

    /// Like [`Self::close`], and sooner: for a library that is thrown away (`keep` false), or that leaves merging to the node
    /// which opens it next.
    pub fn close_soon(&self, keep: bool) {
        self.end(keep.then_some(Merging::Later));
    }

    fn end(&self, checkpoint: Option<Merging>) {
        self.freeze();
        self.queue.close();
        if let Some(merging) = checkpoint {
            for views in self.views.read().values() {
                views.checkpoint(merging);
            }
        }
    }

    /// The position up to which every index has followed the log.
    #[must_use]
    pub fn indexed(&self) -> Lsn {
        let views = self.views.read();
        views.values().map(|views| views.applied()).min().unwrap_or_else(|| self.reader.last())
    }

    /// Facts about the log.
    #[must_use]
    pub fn log(&self) -> LogFacts<'_> {
        LogFacts::new(&self.reader)
    }

    /// Every collection, by name.
    fn all(&self) -> Vec<Arc<CollectionInfo>> {
        let mut collections = self.reader.collections();
        collections.sort_by(|left, right| left.name.cmp(&right.name));
        collections
    }

    /// Directory of the log and the views.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        &self.config.data_dir
    }

    /// Memory that the indexes cannot release, in bytes.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        self.views.read().values().map(|views| views.vectors.memory_bytes() as u64).sum()
    }

    /// What may be in memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.config.memory
    }

    /// Memory for current work in addition to the indexes, including those under construction, in bytes.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let views = self.views.read();
        let indexes = views.values().map(|views| views.vectors.memory_bytes_built() as u64).sum();
        self.config.memory.room_bytes(indexes)
    }

    /// Schedules background recall checks of graphs that changed, or that have new queries, since their last check.
    pub fn look_at_recall(&self) {
        self.upkeep.schedule(&self.views);
    }

    /// The GPU; `None` where none is used.
    #[must_use]
    pub fn gpu(&self) -> Option<&GpuClient> {
        self.config.gpu.as_ref()
    }

    /// Releases the mapped files of the vector indexes to the kernel; needed pages are read again.
    pub fn release_mapped(&self) {
        self.views.read().values().for_each(|views| views.vectors.release_mapped());
    }

    /// Sets the size of the cache of documents and passages, in bytes.
    pub fn set_passage_cache_bytes(&self, bytes: u64) {
        self.passages.set_cache_bytes(bytes);
    }

    /// The words that are searched for.
    #[must_use]
    pub fn words(&self) -> &WordCache {
        &self.config.words
    }

    /// The models this node has.
    #[must_use]
    pub fn models(&self) -> &Arc<Models> {
        &self.config.models
    }

    /// Keeps every record after `after` in the log, replaced or not, for a follower that has reached that position;
    /// until the lease is dropped.
    ///
    /// * `name`: of the follower, for people.
    #[must_use]
    pub fn lease(&self, name: &str, after: Lsn) -> Lease {
        self.compactor.lease(name, after)
    }

    /// The lease that holds records of the log: the name of its holder, and the position after which it holds them.
    #[must_use]
    pub fn log_holder(&self) -> Option<(String, Lsn)> {
        self.compactor.holder()
    }

    /// For how long deleted content should have been erased from the log; zero when nothing is overdue.
    #[must_use]
    pub fn erasure_overdue(&self) -> std::time::Duration {
        self.compactor.erasure_overdue()
    }

    /// Why an existing collection has no read view; `None` when it was deleted.
    #[must_use]
    pub fn unindexed(&self, info: &CollectionInfo) -> Option<String> {
        let name = &self.reader.collection_by_id(info.id)?.name;
        Some(format!("collection '{name}' cannot be searched yet: its index could not be created; retrying"))
    }

    /// Collections whose index lacks what is written, by name, and why.
    #[must_use]
    pub fn index_problems(&self) -> Vec<(String, String)> {
        let views = self.views.read().clone();
        let followed = views.values().map(|views| views.applied()).min();
        let problem = |info: Arc<CollectionInfo>| {
            let reason = match views.get(&info.id) {
                Some(views) => views.broken()?,
                // The log was followed past its creation.
                None if followed > Some(info.id.0) => "it could not be created so far".to_owned(),
                None => return None,
            };
            Some((info.name.clone(), format!("{reason}; it is tried again, and rebuilt when the node is restarted")))
        };
        self.all().into_iter().filter_map(problem).collect()
    }

    /// Why nothing can be written until the node is restarted; `None` while the threads of the write path run.
    #[must_use]
    pub fn write_failure(&self) -> Option<String> {
        self.queue.failure()
    }

    /// Whether a document may be shown.
    #[must_use]
    pub fn is_current(&self, document: &store::DocumentRecord) -> bool {
        self.is_to_come(document.expires_at)
    }

    /// Whether a document that expires then, or never, is still shown.
    #[must_use]
    pub fn is_to_come(&self, expires_at: Option<crate::base::UnixMillis>) -> bool {
        expires_at.is_none_or(|expiry| expiry > self.config.clock.now())
    }

    /// Waits until nothing is left to do in the background: graphs linked, segments merged. For benchmarks and tests.
    pub fn wait_until_idle(&self) {
        self.upkeep.wait_until_idle();
    }
}

/// Whether `name` can name a collection.
#[must_use]
pub fn is_collection_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase() | bytes[0].is_ascii_digit()
        && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}
