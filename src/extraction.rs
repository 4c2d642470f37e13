//! From untrusted bytes to passages, in confined processes.
//!
//! A parser reads whatever someone sent. It runs in a child of the same program that can only compute: no files, no
//! network, no other programs, bounded memory and time (`sandbox`). A document that exceeds a limit ends only its
//! child; the next document gets another one.
//!
//! * [`Extraction`] is the parent's side: children are started on demand, kept while there is work, and ended when
//!   there is none, when a document exceeds a limit, and when the caller waiting for a document is gone.
//! * [`serve`] is the child's: an order and the bytes come in, documents with their passages go out, in pieces.
//! * `read` is the work of a child: parse, split, remove markup, detect the language. It is pure.
//!
//! Invariants:
//! * Sizes in a child's answer are not trusted: counts, lengths and ranges are checked ([`Batch::decode`]), and the
//!   whole answer is bounded by the document's limits.
//! * A document is read once. It is not retried after its child died, in this or another child.
//! * No child works without a caller: dropping an [`ExtractionStream`] ends it.
//!
//! Left out: a separate process for each document. It would cost more than most documents. A child that a document has
//! taken over could therefore give wrong answers for the documents that it gets afterwards.

mod allocator;
mod child;
mod helper;
mod metrics;
mod pool;
mod read;
mod sandbox;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{ByteSize, Fault, setting};
use crate::ingest::{ChunkConfig, Limits, MediaType};

pub use allocator::Counted;
pub use child::probe;
pub use helper::{VERB, serve};
pub use metrics::{Metrics, RefusedLabels};
pub use pool::{Extraction, ExtractionStream};
pub use sandbox::Protections;
pub use wire::Batch;

/// The process in which documents are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// In children of this program.
    Children,
    /// In children of the program at this path, which is Cairn.
    ChildrenOf(PathBuf),
    /// In this process, for tests, benchmarks and fuzzing, whose programs are not Cairn. No limit of memory or time
    /// applies.
    InProcess,
}

/// How documents are read.
#[derive(Debug, Clone)]
pub struct Config {
    /// In which process.
    pub isolation: Isolation,
    /// Children that compute at once; at least one.
    pub width: usize,
    /// Memory that reading one document may use, in bytes.
    pub memory_bytes_max: u64,
    /// Processor time that reading one document may use.
    pub time_max: Duration,
}

/// The settings of reading documents, in section `[ingest]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// Memory that reading one document may use, in bytes; `None`: what the node's memory leaves. With less than 16 MiB
    /// not even small documents can be read.
    #[serde(deserialize_with = "setting::optional_bytes::<_, { 16 << 20 }>")]
    pub parse_memory_bytes_max: Option<u64>,
    /// Processor time that reading one document may use.
    #[serde(deserialize_with = "setting::duration::<_, 1_000, { setting::ANY }>")]
    pub parse_time_max: Duration,
}

impl Config {
    /// Reads in this process; for tests, benchmarks and fuzzing.
    #[must_use]
    pub fn here() -> Self {
        Self { isolation: Isolation::InProcess, width: 1, memory_bytes_max: 1 << 30, time_max: Duration::from_secs(60) }
    }

    /// Memory that reading `length` bytes may use, in bytes. Real documents need two to five times their size, a PDF
    /// with compressed objects up to a hundred times.
    #[must_use]
    pub fn memory_for(&self, length: usize) -> u64 {
        (length as u64).saturating_mul(128).saturating_add(32 << 20).min(self.memory_bytes_max)
    }

    /// The same for processor time: a slow machine reads a PDF at half a megabyte a second.
    fn time_for(&self, length: usize) -> Duration {
        (Duration::from_secs(10) + Duration::from_millis(length as u64 >> 8)).min(self.time_max)
    }
}

/// Memory that reading a document may use when the settings leave it open: a fifth of the node's memory, within 64 MiB
/// and 1 GiB.
///
/// * `node_bytes`: memory that the node may use.
#[must_use]
pub fn memory_bytes_max(node_bytes: u64) -> u64 {
    (node_bytes / 5).clamp(64 << 20, 1 << 30)
}

/// A source to read.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its file name or path; its extension distinguishes formats, nothing is opened.
    pub name: String,
    /// Id of the document, or of the source whose records are documents. Used as the title of a document without one.
    pub id: String,
    /// Title that replaces the one in the content.
    pub title: Option<String>,
    /// The type of the bytes; `None`: detected from the name and the bytes.
    pub media_type: Option<MediaType>,
    /// The maximum content of the source.
    pub limits: Limits,
    /// Sizes of passages.
    pub chunks: ChunkConfig,
    /// Maximum memory for reading it, in bytes; never more than [`Config::memory_for`]. The caller reserves it: nothing
    /// here waits for memory.
    pub memory_bytes_max: u64,
    /// The whole content.
    pub bytes: Vec<u8>,
}

/// A document that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// As [`crate::ingest::Document::record`].
    pub record: Option<String>,
    /// The request's title, otherwise the content's, otherwise one derived from the id.
    pub title: String,
    /// Address that the document states for itself.
    pub url: Option<String>,
    /// Its metadata: a JSON object.
    pub metadata: String,
    /// MIME type of what it was parsed from; see [`MediaType::as_str`].
    pub media_type: String,
    /// ISO 639-1 code; empty when unknown.
    pub language: String,
    /// How many passages follow.
    pub passages: u64,
}

/// A passage of the document before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// As [`crate::ingest::Chunk::headings`].
    pub headings: Vec<String>,
    /// As [`crate::ingest::Chunk::text`].
    pub text: String,
    /// The text without markup; `None` if that is the text itself.
    pub plain: Option<String>,
    /// Bytes in the document's text: `text` may start with a header from elsewhere, and ends with these.
    pub start: u64,
    /// After the last one.
    pub end: u64,
    /// Page on which it starts.
    pub page: Option<u32>,
}

/// A part of an answer, in the order of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// First item: the number of documents.
    Source {
        /// Number of documents.
        documents: u64,
    },
    /// A document begins.
    Document(Document),
    /// A passage of it.
    Passage(Passage),
}

/// The resources used for reading a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Peak memory in bytes: what was requested from the allocator, including the source.
    pub memory_bytes: u64,
}

/// Why a source was not read.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// Its content is not valid in its format: the parser's message.
    #[error("{reason}")]
    Unreadable {
        /// See [`crate::ingest::ParseError`].
        reason: String,
    },
    /// It needs too much memory.
    #[error(
        "reading it takes more than {limit} of memory; split it, or give the node more (ingest.parse_memory_bytes_max, memory.max_bytes)"
    )]
    Memory {
        /// The limit.
        limit: ByteSize,
    },
    /// It takes too much time.
    #[error(
        "reading it takes more than {} s of processor time; split it, or raise ingest.parse_time_max", limit.as_secs()
    )]
    Time {
        /// The limit.
        limit: Duration,
    },
    /// The process that read it ended.
    #[error(
        "reading it crashed the parser ({how}); nothing else was affected. Convert it to another format, and please report the file"
    )]
    Crash {
        /// How it ended.
        how: String,
    },
    /// No process could be started to read it.
    #[error("no process to read documents in can be started")]
    Start(#[source] std::io::Error),
}

impl ExtractError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreadable { .. } | Self::Memory { .. } | Self::Time { .. } | Self::Crash { .. } => Fault::Caller,
            Self::Start(_) => Fault::Environment,
        }
    }

    /// An answer that no correct child gives.
    fn nonsense(what: &str) -> Self {
        Self::Crash { how: format!("its answer contradicts itself: {what}") }
    }
}
