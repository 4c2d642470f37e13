//! Collections of documents: the write path (parse, split, embed, log, index) and the read views.
//!
//! Invariants:
//! * The log is written first; the indexes follow it. A write is answered when it is on stable storage and visible to the
//!   next search.
//! * One thread writes the log, one thread feeds the indexes, in the order of the log. Readers never wait for either.
//! * A passage's key is `document LSN << 20 | ordinal`: it follows from the log, so every rebuild gives the same keys.
//! * Expired documents are not shown, whether or not the sweep has removed them yet.

mod compactor;
mod input;
mod leases;
mod memory;
mod notes;
mod passage;
mod searcher;
mod upkeep;
mod views;
mod writer;

use std::collections::HashMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt as _;
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};

use crate::base::{ByteSize, Clock, Fault, Lsn};
use crate::embed::{EmbedError, Embedder, Models};
use crate::extraction::{self, Extraction, Request};
use crate::index::gpu::service::GpuClient;
pub use crate::index::gpu::service::{DeviceState, Verdict};
use crate::index::lexical::{LexicalError, WordCache};
use crate::index::vector;
use crate::ingest;
use crate::store::{self, CollectionId, Once, Operation, Outcome, Reader, WriteRequest};
use crate::task::{self, CpuPool, Held, Readiness};
use crate::telemetry::Metrics;

pub use crate::embed::DEFAULT_MODEL;
pub use crate::ingest::{MediaType, TOKEN_BYTES_MAX, estimate_tokens, prefix_within};
pub use crate::store::{ChunkRef, CollectionInfo, DocumentEntry, DocumentRecord, ReadError, WriterState};
pub use input::{Body, Conflict, DocumentInput, PrepareError};
pub use leases::Lease;
pub use memory::Memory;
pub use notes::{Folder, FolderOrigin};
pub use passage::{Passage, PassageKey};
pub use searcher::Searcher;
pub use writer::Written;

use self::input::{Assembling, Origin};
use self::memory::Admission;
use self::passage::PassageReader;
use self::views::{Merging, Views};
use self::writer::{Until, WriteQueue};

/// Passages per document at most: what fits beside the LSN in a key.
pub const PASSAGES_PER_DOCUMENT_MAX: usize = 1 << 20;
/// Longest id of a document, in bytes.
pub const DOCUMENT_ID_BYTES_MAX: usize = 512;

/// What a node's collections are told.
#[derive(Clone)]
pub struct Config {
    /// Directory of the log and the views.
    pub data_dir: PathBuf,
    /// Size at which a log segment is sealed.
    pub segment_bytes: u64,
    /// Free space below which writes are refused.
    pub reserve_bytes: u64,
    /// Bytes that the log may have; 0 for no limit.
    pub max_bytes: u64,
    /// Bytes each second that compaction reads and writes at most; 0 for no limit.
    pub compaction_bytes_per_second: u64,
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
}

#[cfg(test)]
impl Config {
    /// Small, in a directory of its own.
    fn for_test(directory: &std::path::Path) -> Self {
        Self {
            data_dir: directory.to_owned(),
            segment_bytes: 1 << 20,
            reserve_bytes: 0,
            max_bytes: 0,
            compaction_bytes_per_second: 0,
            extraction: extraction::Config::here(),
            limits: ingest::Limits::default(),
            chunks: ingest::ChunkConfig::default(),
            vectors: vector::Config::new(256),
            gpu: None,
            models: Arc::new(Models::built_in()),
            words: Arc::new(WordCache::new(1 << 20)),
            memory: Memory::ample(),
            clock: Arc::new(crate::base::SystemClock),
        }
    }
}

/// Why a node's collections could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log could not be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// An index directory cannot be used.
    #[error(transparent)]
    Lexical(#[from] LexicalError),
    /// An index directory cannot be used.
    #[error(transparent)]
    Vector(#[from] vector::OpenError),
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::Lexical(error) => error.fault(),
            Self::Vector(error) => error.fault(),
            Self::Thread(_) => Fault::Environment,
        }
    }
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No such collection.
    #[error("there is no collection '{name}'")]
    NoSuchCollection {
        /// The name asked for.
        name: String,
    },
    /// A collection of that name exists.
    #[error("collection '{name}' exists already")]
    CollectionExists {
        /// Its name.
        name: String,
    },
    /// A name that no collection can have.
    #[error(
        "'{name}' cannot name a collection: expected 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
    )]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// A model that this node does not have.
    #[error("there is no model '{name}', this node has {DEFAULT_MODEL}")]
    NoSuchModel {
        /// The name asked for.
        name: String,
    },
    /// No such document.
    #[error("there is no document '{id}' in collection '{collection}'")]
    NoSuchDocument {
        /// The collection's name.
        collection: String,
        /// The id asked for.
        id: String,
    },
    /// The document cannot be read as one.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The same, of a source whose same bytes could not be read when they came last.
    #[error(transparent)]
    StillUnread(PrepareError),
    /// The caller expected another version.
    #[error("{}", conflict(.id, *.expected, *.actual))]
    Conflict {
        /// The document.
        id: String,
        /// What the caller expected; 0 for "must not exist".
        expected: u64,
        /// What is there.
        actual: Option<u64>,
    },
    /// Others are being written, and there is no memory for this one beside them. Nothing was done.
    #[error("the node has no memory left for this beside what others are adding; try again in a moment")]
    Busy,
    /// It would take more memory than there is when nothing else goes on. Nothing was done.
    #[error(
        "adding this takes about {needed} of memory, and this node has {max} for that beside its indexes: send it in smaller parts, or \
         give the node more (memory.max_bytes, or the limit of its container or unit)"
    )]
    NoMemory {
        /// What it would take.
        needed: ByteSize,
        /// What there is.
        max: ByteSize,
    },
    /// The log refuses.
    #[error("{}", .0)]
    Commit(#[source] Arc<store::CommitError>),
    /// Stored data cannot be read.
    #[error(transparent)]
    Read(#[from] store::ReadError),
    /// The model cannot answer.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// It is on stable storage, and searches do not see it.
    #[error(
        "it is written, on stable storage, and cannot be found yet: {reason}; the index is taken up again by itself, so nothing has to be written again"
    )]
    NotVisible {
        /// Why the index does not have it.
        reason: String,
    },
    /// The node is stopping.
    #[error("the node is stopping; whether the write was done is not known")]
    Stopping,
    /// A thread of the write path has ended. Reads go on.
    #[error("the node cannot write: {reason}; whether this write was done is not known")]
    Broken {
        /// Which thread, and how it ended.
        reason: String,
    },
}

impl WriteError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoSuchCollection { .. }
            | Self::CollectionExists { .. }
            | Self::BadName { .. }
            | Self::NoSuchModel { .. }
            | Self::NoSuchDocument { .. }
            | Self::Conflict { .. }
            | Self::NoMemory { .. } => Fault::Caller,
            Self::Prepare(error) | Self::StillUnread(error) => error.fault(),
            Self::Commit(error) => error.fault(),
            Self::Read(error) => error.fault(),
            Self::Embed(error) => error.fault(),
            Self::Busy | Self::NotVisible { .. } | Self::Stopping | Self::Broken { .. } => Fault::Environment,
        }
    }
}

/// What became of one document of a write.
#[derive(Debug)]
pub struct DocumentOutcome {
    /// The document's id, or the name of the source when it could not be read.
    pub id: String,
    /// See [`DocumentStatus`].
    pub status: DocumentStatus,
    /// The version that is there now; `None` when nothing is.
    pub version: Option<u64>,
    /// Passages of that version.
    pub passages: usize,
}

/// How a document fared in a write.
#[derive(Debug)]
pub enum DocumentStatus {
    /// It is new.
    Created,
    /// It replaced an older version.
    Updated,
    /// It was there already, word for word.
    Unchanged,
    /// It is gone.
    Deleted,
    /// It was not taken; the others of the same call were.
    Failed(WriteError),
}

/// What became of a source: a file, with the documents in it.
#[derive(Debug)]
pub struct SourceOutcome {
    /// One entry per document that was created, updated or deleted; unchanged ones are counted only.
    pub documents: Vec<DocumentOutcome>,
    /// Documents that were there already, word for word.
    pub unchanged: usize,
    /// What was odd but did not stop anything, in words.
    pub warnings: Vec<String>,
}

/// What is done about a collection that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is made as soon as something is there to go in.
    Create,
    /// Nothing is written.
    Refuse,
}

/// What became of the documents of one call.
#[derive(Debug)]
pub struct Added {
    /// In the order of the call.
    pub outcomes: Vec<DocumentOutcome>,
    /// Up to where the write is.
    pub lsn: Lsn,
    /// Whether the collection was made for them.
    pub collection_created: bool,
}

/// The documents of one call, those that could not be prepared among them.
struct Addition {
    collection: String,
    collection_created: bool,
    documents: Vec<Result<Prepared, DocumentOutcome>>,
}

/// A document on its way to the log.
struct Prepared {
    id: String,
    passages: usize,
    /// The version that must be there.
    expected: Option<u64>,
}

impl Addition {
    /// * `written`: one for each that was prepared.
    fn added(self, written: &[Outcome], lsn: Lsn) -> Added {
        let mut written = written.iter();
        let mut outcome = |document: Result<Prepared, DocumentOutcome>| match document {
            Ok(Prepared { id, passages, expected }) => {
                let outcome = written.next().expect("each operation has an outcome");
                document_outcome(&self.collection, id, passages, expected, outcome)
            }
            Err(failed) => failed,
        };
        let outcomes = self.documents.into_iter().map(&mut outcome).collect();
        Added { outcomes, lsn, collection_created: self.collection_created }
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
        readiness.hold("log", "the log is being read");
        let (mut writer, reader, report) = store::open(store::Config {
            data_dir: config.data_dir.clone(),
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            max_bytes: config.max_bytes,
            catalog_cache_bytes: config.memory.catalog_bytes,
            clock: Arc::clone(&config.clock),
        })?;
        readiness.release("log");
        // So that a full disk is known before somebody's write meets it. The refusal itself is nobody's.
        let _ = writer.check_room(0);
        let views = Arc::new(RwLock::new(views::open_all(&config, &reader)?));
        let upkeep = upkeep::Upkeep::start(Arc::clone(&views), readiness).map_err(OpenError::Thread)?;
        let sizes = compactor::Sizes {
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            bytes_per_second: config.compaction_bytes_per_second,
        };
        let compactor = compactor::Compactor::start(Arc::clone(&reader), Arc::clone(&views), sizes, readiness, metrics)
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

    /// Ends what goes on in the background, for a library that is opened to be read once: nothing is cleared out, linked
    /// or merged any more.
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

    /// The log and the catalog.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Directory of the log and the views.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        &self.config.data_dir
    }

    /// Memory that the indexes take and cannot give back, in bytes.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        self.views.read().values().map(|views| views.vectors.memory_bytes() as u64).sum()
    }

    /// What may be in memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.config.memory
    }

    /// What work may take in memory beside the indexes, those that are still being built included, in bytes.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let views = self.views.read();
        let indexes = views.values().map(|views| views.vectors.memory_bytes_built() as u64).sum();
        self.config.memory.room_bytes(indexes)
    }

    /// Has graphs looked at in the background that changed, or of whose questions more is known, since they were last
    /// compared with a scan.
    pub fn look_at_recall(&self) {
        self.upkeep.look(&self.views);
    }

    /// The GPU; `None` where none is used.
    #[must_use]
    pub fn gpu(&self) -> Option<&GpuClient> {
        self.config.gpu.as_ref()
    }

    /// Lets the kernel have the mapped files of the vector indexes; what is needed comes back page by page.
    pub fn release_mapped(&self) {
        self.views.read().values().for_each(|views| views.vectors.release_mapped());
    }

    /// The words that are searched for.
    #[must_use]
    pub fn words(&self) -> &WordCache {
        &self.config.words
    }

    /// The models this node has.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.config.models
    }

    /// Every collection, by name.
    #[must_use]
    pub fn collections(&self) -> Vec<Arc<CollectionInfo>> {
        let mut collections = self.reader.collections();
        collections.sort_by(|left, right| left.name.cmp(&right.name));
        collections
    }

    /// The collection of that name.
    #[must_use]
    pub fn collection(&self, name: &str) -> Option<Arc<CollectionInfo>> {
        self.reader.collection(name)
    }

    fn existing(&self, name: &str) -> Result<Arc<CollectionInfo>, WriteError> {
        self.collection(name).ok_or_else(|| WriteError::NoSuchCollection { name: name.to_owned() })
    }

    /// Creates a collection.
    ///
    /// # Errors
    /// When the name is taken or no name, or the model is unknown; see [`WriteError`].
    pub async fn create_collection(
        &self,
        name: &str,
        description: &str,
        model: Option<&str>,
    ) -> Result<Arc<CollectionInfo>, WriteError> {
        self.create(name, description, model, Until::Visible).await
    }

    fn planned(&self, name: &str, description: &str, model: Option<&str>) -> Result<store::NewCollection, WriteError> {
        if !is_collection_name(name) {
            return Err(WriteError::BadName { name: name.to_owned() });
        }
        let model = model.unwrap_or(DEFAULT_MODEL);
        let info = self.config.models.info(model).ok_or_else(|| WriteError::NoSuchModel { name: model.to_owned() })?;
        Ok(store::NewCollection {
            name: name.to_owned(),
            description: description.to_owned(),
            model: info.name,
            dimensions: u32::try_from(info.dimensions).expect("a model has a few thousand dimensions"),
        })
    }

    async fn create(
        &self,
        name: &str,
        description: &str,
        model: Option<&str>,
        until: Until,
    ) -> Result<Arc<CollectionInfo>, WriteError> {
        let operation = Operation::CreateCollection(self.planned(name, description, model)?);
        let written = self.commit(vec![operation], until).await?;
        match written.outcomes.first() {
            Some(Outcome::CollectionExists(_)) => Err(WriteError::CollectionExists { name: name.to_owned() }),
            _ => self.existing(name),
        }
    }

    /// The collection of that name, created when there is none. The flag tells whether it was.
    ///
    /// # Errors
    /// As for [`Library::create_collection`].
    pub async fn ensure_collection(&self, name: &str) -> Result<(Arc<CollectionInfo>, bool), WriteError> {
        if let Some(info) = self.collection(name) {
            return Ok((info, false));
        }
        // What is put into it is waited for, should that have to be visible.
        match self.create(name, "", None, Until::Durable).await {
            Ok(info) => Ok((info, true)),
            // Somebody else was quicker.
            Err(WriteError::CollectionExists { .. }) => Ok((self.existing(name)?, false)),
            Err(error) => Err(error),
        }
    }

    /// Deletes a collection with its documents.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn delete_collection(&self, name: &str) -> Result<Arc<CollectionInfo>, WriteError> {
        let info = self.existing(name)?;
        self.commit(vec![Operation::DeleteCollection { collection: info.id }], Until::Visible).await?;
        Ok(info)
    }

    /// Writes documents, all in one atomic batch; a document that cannot be taken is reported and left out.
    ///
    /// # Errors
    /// When the collection is missing and is not to be made, or the log refuses. Nothing was written then.
    pub async fn add(
        self: &Arc<Self>,
        collection: &str,
        missing: Missing,
        inputs: Vec<DocumentInput>,
    ) -> Result<Added, WriteError> {
        let (operations, addition, held) = self.addition(collection, missing, inputs).await?;
        let written = self.commit_held(operations, Until::Visible, Some(held)).await?;
        Ok(addition.added(&written.outcomes, written.lsn))
    }

    /// Like [`Library::add`], once for a key: within a day a repeated call is given the first one's answer and writes
    /// nothing, also when both come at once, and whatever ends the node in between.
    ///
    /// * `key`: unique for its caller and at most [`store::NAME_BYTES_MAX`] bytes.
    /// * `compose`: makes the answer, on the thread that writes.
    ///
    /// # Errors
    /// As for [`Library::add`], or when an earlier answer cannot be read.
    pub async fn add_once(
        self: &Arc<Self>,
        collection: &str,
        missing: Missing,
        inputs: Vec<DocumentInput>,
        key: String,
        compose: impl Fn(Added) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Vec<u8>, WriteError> {
        // Decided by the writer; this only saves the work.
        if let Some(answer) = self.reader.remembered(&key)? {
            return Ok(answer);
        }
        let (operations, addition, held) = self.addition(collection, missing, inputs).await?;
        let addition = Mutex::new(Some(addition));
        let compose = move |outcomes: &[Outcome], lsn: Lsn| {
            let addition = addition.lock().take().expect("called once");
            compose(addition.added(outcomes, lsn))
        };
        let once = Once { key, compose: Arc::new(compose) };
        let written =
            self.queue.write(WriteRequest { operations, once: Some(once) }, Until::Visible, Some(held)).await?;
        written.answer.ok_or(WriteError::Stopping)
    }

    /// Prepares documents to be written.
    async fn addition(
        self: &Arc<Self>,
        collection: &str,
        missing: Missing,
        inputs: Vec<DocumentInput>,
    ) -> Result<(Vec<Operation>, Addition, Held), WriteError> {
        let known = self.collection(collection);
        let info = match (&known, missing) {
            (Some(info), _) => Arc::clone(info),
            (None, Missing::Create) => {
                let planned = self.planned(collection, "", None)?;
                Arc::new(CollectionInfo::new(Lsn::ZERO, self.config.clock.now(), planned))
            }
            (None, Missing::Refuse) => return Err(WriteError::NoSuchCollection { name: collection.to_owned() }),
        };
        let lengths: Vec<usize> = inputs.iter().map(DocumentInput::length).collect();
        let mut admission = self.admit(&lengths).await?;
        let documents = Vec::with_capacity(inputs.len());
        let mut addition = Addition { collection: collection.to_owned(), collection_created: false, documents };
        let mut operations = Vec::with_capacity(inputs.len());
        // Side by side, and in the order that they came in.
        let (info, most) = (&info, admission.parser_bytes_max);
        let preparing = inputs.into_iter().map(|input| async move {
            let (id, expected) = (input.id.clone().unwrap_or_default(), input.if_version);
            (id, expected, self.prepare(info, input, most).await)
        });
        let mut preparing = futures_util::stream::iter(preparing).buffered(admission.width);
        let mut kept = 0_u64;
        while let Some((id, expected, prepared)) = preparing.next().await {
            addition.documents.push(match prepared {
                Ok(document) => {
                    kept = kept.saturating_add(memory::kept_bytes(&document));
                    admission.keep(kept).await?;
                    let added = Ok(Prepared { id: document.id.clone(), passages: document.chunks.len(), expected });
                    operations.push(Operation::PutDocument(Box::new(document)));
                    added
                }
                Err(error) => Err(failed(id, error)),
            });
        }
        drop(preparing);
        if known.is_none() && !operations.is_empty() {
            let (made, created) = self.ensure_collection(collection).await?;
            if made.model != info.model {
                // Somebody else made it meanwhile, and not as it was going to be.
                return Err(WriteError::CollectionExists { name: collection.to_owned() });
            }
            for operation in &mut operations {
                if let Operation::PutDocument(document) = operation {
                    document.collection = made.id;
                }
            }
            addition.collection_created = created;
        }
        Ok((operations, addition, admission.write().await?))
    }

    /// Waits for memory in which sources of these lengths can be read and written.
    async fn admit(&self, lengths: &[usize]) -> Result<Admission, WriteError> {
        self.config.memory.room.set_max(self.room_bytes());
        Admission::to(&self.config, lengths).await
    }

    async fn prepare(
        &self,
        info: &Arc<CollectionInfo>,
        mut input: DocumentInput,
        parser_bytes_max: u64,
    ) -> Result<store::NewDocument, WriteError> {
        input::check(&input)?;
        let request = input::document_request(&mut input, &self.config, parser_bytes_max);
        let (mut documents, _) = self.read(info, request, Origin::Document(Box::new(input)), None).await?;
        documents.pop().ok_or_else(|| PrepareError::Empty.into())
    }

    /// Has a source read, and embeds what comes while the rest is still being read. Returns its documents and what was odd.
    ///
    /// * `admission`: what is asked for more room for the documents; `None` where the caller asks.
    async fn read(
        &self,
        info: &Arc<CollectionInfo>,
        request: Request,
        origin: Origin,
        mut admission: Option<&mut Admission>,
    ) -> Result<(Vec<store::NewDocument>, Vec<String>), WriteError> {
        let embedder = self.embedder(info)?;
        let mut assembling = Assembling::new(origin, Arc::clone(info), embedder, &self.config);
        let mut reading = self.extraction.read(request);
        // Most sources are short: read, embedded and hashed by one thread.
        if reading.is_short() {
            let begin = move || {
                reading.begin_here().map_err(PrepareError::from)?;
                while let Some(batch) = reading.ready().map_err(PrepareError::from)? {
                    assembling.take(&batch)?;
                }
                Ok::<_, WriteError>((reading, assembling))
            };
            (reading, assembling) = self.pool.run(begin).await?;
            if let Some(admission) = &mut admission {
                admission.keep(assembling.taken()).await?;
            }
        }
        while let Some(batch) = reading.next().await.map_err(PrepareError::from)? {
            assembling = self.pool.run(move || assembling.take(&batch).map(|()| assembling)).await?;
            if let Some(admission) = &mut admission {
                admission.keep(assembling.taken()).await?;
            }
        }
        let documents = assembling.finish()?;
        Ok((documents, reading.finish()))
    }

    fn embedder(&self, info: &CollectionInfo) -> Result<Arc<dyn Embedder>, WriteError> {
        self.config.models.get(&info.model).ok_or_else(|| WriteError::NoSuchModel { name: info.model.clone() })
    }

    /// Brings the documents of one source (a file) in line with its content: new and changed ones are written, those
    /// that the source no longer holds are deleted, in one atomic batch; a source without text holds none. Answers when that is on stable storage; searches
    /// see it within about half a second, or after [`Library::flush`]. Sources of a collection that is searched meanwhile wait
    /// until its graph has come near what was written, at most a second each.
    ///
    /// * `source`: the file's path as the caller names it; also the id of its document, or the prefix of its records' ids.
    ///
    /// # Errors
    /// When the source cannot be read as documents, or the log refuses. Nothing was written then.
    pub async fn sync_source(
        self: &Arc<Self>,
        collection: &str,
        source: &str,
        bytes: impl AsRef<[u8]> + Into<Vec<u8>>,
        metadata: Map<String, Value>,
    ) -> Result<SourceOutcome, WriteError> {
        let info = self.existing(collection)?;
        let digest = input::source_digest(source, bytes.as_ref(), &metadata, &info, &self.config);
        let known = self.reader.list_source(info.id, source, None, usize::MAX)?;
        if !known.is_empty() && known.iter().all(|(_, entry)| entry.source_digest == Some(digest)) {
            // It was in between something that could not be read.
            self.commit(self.forget_unread(info.id, source)?.into_iter().collect(), Until::Durable).await?;
            return Ok(SourceOutcome { documents: Vec::new(), unchanged: known.len(), warnings: Vec::new() });
        }
        let views = self.views.read().get(&info.id).cloned();
        if let Some(views) = views {
            self.upkeep.let_graph_follow(&views).await;
        }
        let mut admission = self.admit(&[bytes.as_ref().len()]).await?;
        let request = input::source_request(source, bytes.into(), &self.config, admission.parser_bytes_max);
        let origin = Origin::Source { name: source.to_owned(), digest, metadata };
        let read = self.read(&info, request, origin, Some(&mut admission)).await;
        let (documents, warnings) = match read {
            Ok(read) => read,
            Err(error @ (WriteError::Busy | WriteError::NoMemory { .. })) => return Err(error),
            Err(error) => return Err(self.note_unread(&info, source, digest, error).await),
        };
        let mut places: Vec<(String, usize)> = Vec::new();
        let mut operations = Vec::new();
        for document in documents {
            places.push((document.id.clone(), document.chunks.len()));
            operations.push(Operation::PutDocument(Box::new(document)));
        }
        let keep = places.iter().map(|(id, _)| id.clone()).collect();
        operations.push(Operation::DeleteFromSource { collection: info.id, source: source.to_owned(), keep });
        // Behind the others, so that their outcomes are in their places.
        let forgotten = self.forget_unread(info.id, source)?;
        let notes = usize::from(forgotten.is_some());
        operations.extend(forgotten);
        let held = admission.write().await?;
        let mut written = self.commit_held(operations, Until::Durable, Some(held)).await?;
        written.outcomes.truncate(written.outcomes.len().saturating_sub(notes));
        let gone = deleted(written.outcomes.pop());
        let mut outcome = SourceOutcome { documents: Vec::new(), unchanged: 0, warnings };
        let gone = gone.into_iter().map(|id| ((id, 0), Outcome::Deleted { version: 0 }));
        for ((id, passages), result) in places.into_iter().zip(written.outcomes).chain(gone) {
            let document = document_outcome(collection, id, passages, None, &result);
            if matches!(document.status, DocumentStatus::Unchanged) {
                outcome.unchanged += 1;
            } else {
                outcome.documents.push(document);
            }
        }
        Ok(outcome)
    }

    /// Deletes every document of a source. Returns their ids.
    ///
    /// # Errors
    /// When the collection does not exist or the log refuses.
    pub async fn delete_source(&self, collection: &str, source: &str) -> Result<Vec<String>, WriteError> {
        let info = self.existing(collection)?;
        let all = Operation::DeleteFromSource {
            collection: info.id,
            source: source.to_owned(),
            keep: std::collections::HashSet::new(),
        };
        let operations = [all].into_iter().chain(self.forget_unread(info.id, source)?).collect();
        let mut written = self.commit(operations, Until::Durable).await?;
        written.outcomes.truncate(1);
        Ok(deleted(written.outcomes.pop()))
    }

    /// Deletes documents by id, in one atomic batch.
    ///
    /// # Errors
    /// When the collection does not exist or the log refuses. An unknown id is reported in its outcome.
    pub async fn delete(&self, collection: &str, ids: &[String]) -> Result<(Vec<DocumentOutcome>, Lsn), WriteError> {
        let info = self.existing(collection)?;
        let operations = ids
            .iter()
            .map(|id| Operation::DeleteDocument { collection: info.id, id: id.clone(), if_version: None })
            .collect();
        let written = self.commit(operations, Until::Visible).await?;
        let outcomes = ids
            .iter()
            .zip(&written.outcomes)
            .map(|(id, outcome)| document_outcome(collection, id.clone(), 0, None, outcome))
            .collect();
        Ok((outcomes, written.lsn))
    }

    /// Waits until everything written so far is visible to searches.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn flush(&self) -> Result<Lsn, WriteError> {
        let request = WriteRequest::default();
        Ok(self.queue.write(request, Until::Visible, None).await?.lsn)
    }

    /// Closes the segment that is being written, so that everything acknowledged so far lies in segments that no longer
    /// change. Returns the LSN of the last record.
    ///
    /// # Errors
    /// When the log cannot be written or the node is stopping.
    pub async fn seal(&self) -> Result<Lsn, WriteError> {
        self.queue.seal().await
    }

    /// Clears out dead records as far as that is worth it, and waits until it is done. What the compactor would do by
    /// itself a little later; the segment that is being written is sealed for it.
    ///
    /// # Errors
    /// When the log cannot be written or the node is stopping.
    pub async fn compact(self: &Arc<Self>) -> Result<u64, WriteError> {
        self.flush().await?;
        if self.reader.is_active_rotten() {
            self.seal().await?;
        }
        let library = Arc::clone(self);
        tokio::task::spawn_blocking(move || library.compactor.settle()).await.map_err(|_| WriteError::Stopping)?;
        Ok(self.reader.log_bytes())
    }

    /// Keeps every record after `after` in the log, replaced or not, for a follower that has come as far as that; until the lease is dropped.
    ///
    /// * `name`: of the follower, for people.
    #[must_use]
    pub fn lease(&self, name: &str, after: Lsn) -> Lease {
        self.compactor.lease(name, after)
    }

    async fn commit(&self, operations: Vec<Operation>, until: Until) -> Result<Written, WriteError> {
        self.commit_held(operations, until, None).await
    }

    /// * `held`: given back when searches see what was written.
    async fn commit_held(
        &self,
        operations: Vec<Operation>,
        until: Until,
        held: Option<Held>,
    ) -> Result<Written, WriteError> {
        if operations.is_empty() {
            return Ok(Written { outcomes: Vec::new(), answer: None, lsn: self.reader.last() });
        }
        self.queue.write(WriteRequest { operations, once: None }, until, held).await
    }

    /// What the catalog knows of a document; `None` when there is none of that id.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn lookup(&self, collection: CollectionId, id: &str) -> Result<Option<DocumentEntry>, store::ReadError> {
        self.reader.lookup(collection, id)
    }

    /// Names of the sources of a collection that begin with `prefix`, after `after`, at most `limit`, in byte order.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn sources(
        &self,
        collection: CollectionId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<store::SourceEntry>, store::ReadError> {
        // A source that is the prefix itself begins with it too, before all others.
        let from = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let mut sources = self.reader.sources(collection, from, limit)?;
        sources.retain(|source| source.source.starts_with(prefix));
        Ok(sources)
    }

    /// The read view of a collection; `None` when its views are not open (it was just deleted).
    #[must_use]
    pub fn searcher(&self, info: &Arc<CollectionInfo>) -> Option<Searcher> {
        let views = self.views.read().get(&info.id).cloned()?;
        Some(Searcher::new(Arc::clone(info), views))
    }

    /// Why a collection that is there has no read view; `None` when it is gone.
    #[must_use]
    pub fn unindexed(&self, info: &CollectionInfo) -> Option<String> {
        let name = &self.reader.collection_by_id(info.id)?.name;
        Some(format!("collection '{name}' cannot be searched yet: its index is not made, which is tried again"))
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
                None if followed > Some(info.id.0) => "it could not be made so far".to_owned(),
                None => return None,
            };
            Some((info.name.clone(), format!("{reason}; it is tried again, and rebuilt when the node is restarted")))
        };
        self.collections().into_iter().filter_map(problem).collect()
    }

    /// Reads passages and documents from the log, with a cache.
    #[must_use]
    pub fn passages(&self) -> &PassageReader {
        &self.passages
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

    /// Deletes documents whose time has come, at most `limit`. Returns how many.
    ///
    /// # Errors
    /// When the log refuses.
    pub async fn sweep_expired(&self, limit: usize) -> Result<usize, WriteError> {
        let now = self.config.clock.now();
        let mut operations = Vec::new();
        for (collection, id) in self.reader.expired(now, limit)? {
            // Of the version that was looked at: one that is written meanwhile may stay longer.
            let entry = self.reader.lookup(collection, &id)?;
            let expired = entry.filter(|entry| entry.expires_at.is_some_and(|time| time <= now));
            let if_version = expired.map(|entry| entry.version);
            operations.extend(if_version.map(|_| Operation::DeleteDocument { collection, id, if_version }));
        }
        let written = self.commit(operations, Until::Durable).await?;
        Ok(written.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Deleted { .. })).count())
    }

    /// Waits until nothing is left to do in the background: graphs linked, segments merged. For benchmarks and tests.
    pub fn settle(&self) {
        self.upkeep.settle();
    }
}

fn conflict(id: &str, expected: u64, actual: Option<u64>) -> String {
    match (expected, actual) {
        (0, Some(version)) => format!("document '{id}' exists already, at version {version}"),
        (expected, Some(version)) => format!("document '{id}' is at version {version}, expected version {expected}"),
        (expected, None) => format!("there is no document '{id}', expected version {expected}"),
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

/// What a source lost.
fn deleted(outcome: Option<Outcome>) -> Vec<String> {
    match outcome {
        Some(Outcome::DeletedFromSource { ids }) => ids,
        _ => Vec::new(),
    }
}

fn failed(id: String, error: WriteError) -> DocumentOutcome {
    DocumentOutcome { id, status: DocumentStatus::Failed(error), version: None, passages: 0 }
}

fn document_outcome(
    collection: &str,
    id: String,
    passages: usize,
    expected: Option<u64>,
    outcome: &Outcome,
) -> DocumentOutcome {
    let done = |id, status, version: u64, passages| DocumentOutcome { id, status, version: Some(version), passages };
    match *outcome {
        Outcome::TooLarge { what, bytes, limit } => {
            let error = PrepareError::TooLarge { what, found: bytes, limit };
            failed(id, error.into())
        }
        Outcome::Created { version, .. } => done(id, DocumentStatus::Created, version, passages),
        Outcome::Updated { version, .. } => done(id, DocumentStatus::Updated, version, passages),
        Outcome::Unchanged { version } => done(id, DocumentStatus::Unchanged, version, passages),
        Outcome::Kept { version, chunks } => done(id, DocumentStatus::Unchanged, version, chunks as usize),
        Outcome::Deleted { .. } => DocumentOutcome { id, status: DocumentStatus::Deleted, version: None, passages: 0 },
        Outcome::Missing => {
            let error = WriteError::NoSuchDocument { collection: collection.to_owned(), id: id.clone() };
            failed(id, error)
        }
        Outcome::Conflict { actual } => {
            let error = WriteError::Conflict { id: id.clone(), expected: expected.unwrap_or_default(), actual };
            failed(id, error)
        }
        Outcome::NoSuchCollection => failed(id, WriteError::NoSuchCollection { name: collection.to_owned() }),
        Outcome::CollectionCreated(_)
        | Outcome::CollectionExists(_)
        | Outcome::CollectionDeleted
        | Outcome::Noted
        | Outcome::DeletedFromSource { .. } => unreachable!("the operation was on a document"),
    }
}
