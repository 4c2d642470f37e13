//! The memory of work on the collections, and its reservations.
//!
//! Invariants: memory that grows with a caller's input is reserved before the work starts, and released when searches
//! see the result. A parser's limit is reserved completely, since untrusted bytes decide how much it needs. Work that
//! does not fit waits for earlier work; work that would not fit into an idle node is refused, and nothing of it is
//! written.

use std::time::Duration;

use half::f16;

use super::{Config, WriteError};
use crate::base::ByteSize;
use crate::store::{NewChunk, NewDocument};
use crate::task::{self, MemoryBudget, MemoryReservation, ReserveError};

/// How long work waits for earlier work. On a small board a file of the maximum size takes about that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long work with a reservation waits for more. It occupies a parser and a compute slot meanwhile, and a rejected
/// caller retries.
const GROWING_PATIENCE: Duration = Duration::from_secs(5);
/// Memory of documents between their parser and the log, for each byte of their source. Measured on records of 1.4 KB:
/// 2.4; documents that need more reserve more on the way.
const KEPT_PER_BYTE: u64 = 3;
/// Memory that any of them may use without a reservation.
const KEPT_LEAST: u64 = 2 << 20;
/// The same in quarters from the log to the indexes, for each byte that was kept: encoded, in the catalog, and cut into words.
const WRITTEN_PER_KEPT_QUARTERS: u64 = 9;
/// Minimum memory of a parser, besides its source, …
const PARSER_LEAST: u64 = 16 << 20;
/// … and for each byte of it.
const PARSED_PER_BYTE: u64 = 4;

/// Memory limits of the parts of a node.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The limit of the indexes and [`Self::budget`] together, in bytes.
    pub shared_bytes: u64,
    /// Memory for concurrent work, in addition to the other fields and the node's base.
    pub budget: MemoryBudget,
    /// Pages of the catalog, in bytes.
    pub catalog_bytes: u64,
    /// What each thread that writes a lexical index gathers before it writes, in bytes; at least
    /// [`WRITER_BYTES_MIN`](crate::index::lexical::WRITER_BYTES_MIN).
    pub writer_bytes: usize,
    /// Threads that analyse texts while indexes catch up with the log.
    pub catch_up_threads: usize,
}

impl Memory {
    /// On a machine that has enough.
    #[must_use]
    pub fn ample() -> Self {
        Self {
            shared_bytes: u64::MAX,
            budget: MemoryBudget::new(u64::MAX),
            catalog_bytes: 32 << 20,
            writer_bytes: 48 << 20,
            catch_up_threads: 4,
        }
    }

    /// The least that a node does with.
    #[must_use]
    pub fn least() -> Self {
        Self {
            catalog_bytes: 2 << 20,
            writer_bytes: crate::index::lexical::WRITER_BYTES_MIN,
            catch_up_threads: 1,
            ..Self::ample()
        }
    }

    /// The memory for concurrent work if the indexes use `index_bytes`.
    #[must_use]
    pub fn room_bytes(&self, index_bytes: u64) -> u64 {
        self.shared_bytes.saturating_sub(index_bytes)
    }

    /// Memory that the catalog and the writer of an index always use, in bytes.
    #[must_use]
    pub fn standing_bytes(&self) -> u64 {
        self.catalog_bytes * CATALOG_TAKES + self.writer_bytes as u64
    }

    /// Memory of an open node while it processes its log: its catalog, the writers of its indexes, and data on its way
    /// to them.
    #[must_use]
    pub fn opening_bytes(&self) -> u64 {
        let writers = self.writer_bytes as u64 * self.catch_up_threads.min(task::cores()) as u64;
        self.catalog_bytes * CATALOG_TAKES + writers + (24 << 20)
    }
}

/// Actual memory of the catalog's engine for each byte of its page cache: it counts only the pages' content. Measured
/// with 2 to 32 MiB.
const CATALOG_TAKES: u64 = 4;

/// Room for something that is being added.
#[derive(Debug)]
pub(super) struct Admission {
    held: MemoryReservation,
    /// Memory of the documents received so far.
    kept: u64,
    /// The parsers' part of the reservation, …
    parsers: u64,
    /// … and each of them.
    pub(super) parser_bytes_max: u64,
    /// How many of them there may be at once.
    pub(super) width: usize,
}

impl Admission {
    /// Waits for room for sources of these lengths, which are read side by side and written together.
    pub(super) async fn to(config: &Config, lengths: &[usize]) -> Result<Self, WriteError> {
        let budget = &config.memory.budget;
        let all = lengths.iter().map(|length| *length as u64).fold(0, u64::saturating_add);
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let kept = KEPT_LEAST.saturating_add(all.saturating_mul(KEPT_PER_BYTE));
        // Settled by what there is, not by what is free now: whether a document can be read must not depend on the others.
        let max = budget.max();
        let left = max.saturating_sub(kept);
        let parser = config.extraction.memory_for(longest).min(left);
        let least = PARSER_LEAST.saturating_add((longest as u64).saturating_mul(PARSED_PER_BYTE));
        if parser < least.min(config.extraction.memory_bytes_max) {
            return Err(refusal(ReserveError::TooLarge { needed: kept.saturating_add(least), max }));
        }
        // Others are to find room, too.
        let beside = usize::try_from(left / 2 / parser.max(1)).unwrap_or(usize::MAX);
        let width = lengths.len().min(2 * task::cores()).min(beside).max(1);
        let parsers = parser.saturating_mul(width as u64);
        let held = budget.reserve(kept.saturating_add(parsers), PATIENCE).await.map_err(refusal)?;
        Ok(Self { held, kept: 0, parsers, parser_bytes_max: parser, width })
    }

    /// Reserves `kept` bytes for documents on their way to the log, in addition to the parsers.
    pub(super) async fn reserve_for_kept(&mut self, kept: u64) -> Result<(), WriteError> {
        self.kept = kept;
        self.held.grow_to(self.parsers.saturating_add(kept), GROWING_PATIENCE).await.map_err(refusal)
    }

    /// Room for writing the documents that came; nothing is parsed any more.
    pub(super) async fn write(mut self) -> Result<MemoryReservation, WriteError> {
        let bytes = KEPT_LEAST.saturating_add(self.kept.saturating_mul(WRITTEN_PER_KEPT_QUARTERS) / 4);
        self.held.shrink_to(bytes);
        self.held.grow_to(bytes, PATIENCE).await.map_err(refusal)?;
        Ok(self.held)
    }
}

fn refusal(why: ReserveError) -> WriteError {
    match why {
        ReserveError::Busy => WriteError::Busy,
        ReserveError::TooLarge { needed, max } => WriteError::NoMemory { needed: ByteSize(needed), max: ByteSize(max) },
    }
}

/// Memory of a document until it is in the log, in bytes.
pub(super) fn kept_bytes(document: &NewDocument) -> u64 {
    let passage = |chunk: &NewChunk| passage_bytes(&chunk.body.text, &chunk.body.headings, chunk.body.embedding.len());
    let own = (document.id.len() + document.title.len() + document.metadata.len()) as u64 + DOCUMENT_BYTES;
    own + document.chunks.iter().map(passage).sum::<u64>()
}

/// The same for a passage.
///
/// * `dimensions`: numbers of its vector.
pub(super) fn passage_bytes(text: &str, headings: &[String], dimensions: usize) -> u64 {
    let headings = headings.iter().map(|heading| heading.len() + 24).sum::<usize>();
    (text.len() + headings + dimensions * size_of::<f16>()) as u64 + PASSAGE_BYTES
}

/// Memory of a document and a passage besides their texts and vectors.
pub(super) const DOCUMENT_BYTES: u64 = 512;
const PASSAGE_BYTES: u64 = 256;
