//! What work on the collections takes in memory, and what it sets aside for it.
//!
//! Invariants: whatever grows with what a caller sends is set aside before it is taken up, and given back when searches see it. What
//! a parser may take is set aside whole, since it is somebody else's bytes that decide how much it takes. Work that would not fit
//! waits for the work before it; work that would not fit into an idle node is refused, and nothing of it is written.

use std::time::Duration;

use half::f16;

use super::{Config, WriteError};
use crate::base::ByteSize;
use crate::store::{NewChunk, NewDocument};
use crate::task::{self, MemoryBudget, MemoryReservation, ReserveError};

/// How long work waits for the work before it. On a small board a file of the largest size takes about that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long work that holds some waits for more. It keeps a parser and a place to compute meanwhile, and who is sent away sends it again.
const GROWING_PATIENCE: Duration = Duration::from_secs(5);
/// Memory that documents take between their parser and the log, for each byte of their source. Measured on records of
/// 1.4 KB: 2.4; what takes more asks for more as it goes.
const KEPT_PER_BYTE: u64 = 3;
/// What any of them may take without being asked about.
const KEPT_LEAST: u64 = 2 << 20;
/// The same in quarters from the log to the indexes, for each byte that was kept: encoded, in the catalog, and cut into words.
const WRITTEN_PER_KEPT_QUARTERS: u64 = 9;
/// What a parser has to have, besides its source, …
const PARSER_LEAST: u64 = 16 << 20;
/// … and for each byte of it.
const PARSED_PER_BYTE: u64 = 4;

/// What the parts of a node may take in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    /// What the indexes and [`Self::room`] may take together, in bytes.
    pub shared_bytes: u64,
    /// Memory for concurrent work, in addition to the other fields and the node's base.
    pub budget: MemoryBudget,
    /// Pages of the catalog, in bytes.
    pub catalog_bytes: u64,
    /// What each thread that writes a lexical index gathers before it writes, in bytes; at least
    /// [`WRITER_BYTES_MIN`](crate::index::lexical::WRITER_BYTES_MIN).
    pub writer_bytes: usize,
    /// Threads that take texts apart while indexes catch up with the log.
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

    /// What work may take at once where the indexes take `index_bytes`.
    #[must_use]
    pub fn room_bytes(&self, index_bytes: u64) -> u64 {
        self.shared_bytes.saturating_sub(index_bytes)
    }

    /// What the catalog and the writer of an index take at any time, in bytes.
    #[must_use]
    pub fn standing_bytes(&self) -> u64 {
        self.catalog_bytes * CATALOG_TAKES + self.writer_bytes as u64
    }

    /// Bytes that an open node takes which is fed with its log: its catalog, the writers of its indexes, and what is on its way to
    /// them.
    #[must_use]
    pub fn opening_bytes(&self) -> u64 {
        let writers = self.writer_bytes as u64 * self.catch_up_threads.min(task::cores()) as u64;
        self.catalog_bytes * CATALOG_TAKES + writers + (24 << 20)
    }
}

/// What the catalog's engine takes for each byte of pages that it is allowed: it counts their contents alone. Measured with 2 to
/// 32 MiB.
const CATALOG_TAKES: u64 = 4;

/// Room for something that is being added.
#[derive(Debug)]
pub(super) struct Admission {
    held: MemoryReservation,
    /// What the documents take that came so far.
    kept: u64,
    /// Of what is held, what its parsers may take, …
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

/// What a document takes until it is in the log, in bytes.
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

/// What a document and a passage take here, besides their texts and vectors.
pub(super) const DOCUMENT_BYTES: u64 = 512;
const PASSAGE_BYTES: u64 = 256;
