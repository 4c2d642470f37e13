//! Passages and documents read back from the log, with a cache for those that are asked for again and again.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::base::Lsn;
use crate::ingest::estimate_tokens;
use crate::store::{ChunkBody, DocumentRecord, ReadError, Reader};

/// Initial memory for decoded documents and passages.
const CACHE_BYTES: u64 = 24 << 20;

/// Names a passage within the node: the LSN of its document's record and its place in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassageKey(pub u64);

impl PassageKey {
    const ORDINAL_BITS: u32 = 20;

    /// The key of a document's passage.
    #[must_use]
    pub fn new(document: Lsn, ordinal: usize) -> Self {
        Self(document.0 << Self::ORDINAL_BITS | ordinal as u64)
    }

    /// LSN of the document's record.
    #[must_use]
    pub fn document(self) -> Lsn {
        Lsn(self.0 >> Self::ORDINAL_BITS)
    }

    /// Place in the document, from 0.
    #[must_use]
    pub fn ordinal(self) -> usize {
        (self.0 & ((1 << Self::ORDINAL_BITS) - 1)) as usize
    }

    /// The keys of all passages of a document.
    #[must_use]
    pub fn all(document: Lsn, passages: u32) -> Range<u64> {
        Self::new(document, 0).0..Self::new(document, passages as usize).0
    }
}

impl fmt::Display for PassageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.document(), self.ordinal())
    }
}

/// A passage with its document.
#[derive(Debug, Clone)]
pub struct Passage {
    /// The document that contains it.
    pub document: Arc<DocumentRecord>,
    /// Its place in the document, from 0.
    pub ordinal: usize,
    /// Its headings, text, language and embedding.
    pub body: Arc<ChunkBody>,
    /// [`estimate_tokens`] of its text.
    pub tokens: usize,
}

#[derive(Clone)]
enum Cached {
    Document(Arc<DocumentRecord>),
    /// With the estimate of its text's tokens: counting costs as much as all else about a remembered passage.
    Body(Arc<ChunkBody>, usize),
}

#[derive(Clone)]
struct PassageWeighter;

impl Weighter<Lsn, Cached> for PassageWeighter {
    fn weight(&self, _: &Lsn, value: &Cached) -> u64 {
        let bytes = match value {
            Cached::Document(document) => {
                let texts = document.id.len() + document.title.len() + document.metadata.len();
                256 + texts + document.chunks.len() * 40
            }
            Cached::Body(body, _) => 128 + body.text.len() + body.embedding.len() * 2,
        };
        bytes as u64
    }
}

/// Reads passages and documents.
pub struct PassageReader {
    reader: Arc<Reader>,
    cache: Cache<Lsn, Cached, PassageWeighter>,
}

impl PassageReader {
    pub(super) fn new(reader: Arc<Reader>) -> Self {
        Self { reader, cache: Cache::with_weighter(20_000, CACHE_BYTES, PassageWeighter) }
    }

    /// Sets the size of the cache; surplus entries are evicted.
    pub fn set_cache_bytes(&self, bytes: u64) {
        self.cache.set_capacity(bytes);
    }

    /// A document's record by its LSN.
    ///
    /// # Errors
    /// When the record is not there or damaged.
    pub fn document(&self, lsn: Lsn) -> Result<Arc<DocumentRecord>, ReadError> {
        if let Some(Cached::Document(document)) = self.cache.get(&lsn) {
            return Ok(document);
        }
        let document = self.reader.document(lsn)?;
        self.cache.insert(lsn, Cached::Document(Arc::clone(&document)));
        Ok(document)
    }

    /// A passage by its key.
    ///
    /// # Errors
    /// When its document or its text is not there or damaged.
    pub fn passage(&self, key: PassageKey) -> Result<Passage, ReadError> {
        let document = self.document(key.document())?;
        let chunk = document
            .chunks
            .get(key.ordinal())
            .ok_or_else(|| ReadError::Missing { lsn: key.document(), last: self.reader.last() })?;
        let (body, tokens) = self.body(chunk.lsn)?;
        Ok(Passage { document, ordinal: key.ordinal(), body, tokens })
    }

    fn body(&self, lsn: Lsn) -> Result<(Arc<ChunkBody>, usize), ReadError> {
        if let Some(Cached::Body(body, tokens)) = self.cache.get(&lsn) {
            return Ok((body, tokens));
        }
        let body = Arc::new(self.reader.chunk(lsn)?);
        let tokens = estimate_tokens(&body.text);
        self.cache.insert(lsn, Cached::Body(Arc::clone(&body), tokens));
        Ok((body, tokens))
    }

    /// The text of a document's passages from `ordinals`. What stood between two of them (white space, front matter) is
    /// not kept, and a repeated header row of a table is left out: passages that touched are joined as they were, those one byte apart by a line break, others by a blank
    /// line.
    ///
    /// # Errors
    /// When a passage is not there or damaged.
    pub fn text(&self, document: &DocumentRecord, ordinals: Range<usize>) -> Result<String, ReadError> {
        self.joined(document, ordinals, false)
    }

    /// The same for passages that are read separately: if the first one continues a table, it keeps the header row that
    /// it repeats.
    ///
    /// # Errors
    /// When a passage does not exist or is damaged.
    pub fn passages(&self, document: &DocumentRecord, ordinals: Range<usize>) -> Result<String, ReadError> {
        self.joined(document, ordinals, true)
    }

    fn joined(&self, document: &DocumentRecord, ordinals: Range<usize>, keep_first: bool) -> Result<String, ReadError> {
        let mut text = String::new();
        let mut end = None;
        for chunk in document.chunks.get(ordinals).unwrap_or_default() {
            text.push_str(match end.map(|end| chunk.range.start.saturating_sub(end)) {
                None | Some(0) => "",
                Some(1) => "\n",
                Some(_) => "\n\n",
            });
            let (body, _) = self.body(chunk.lsn)?;
            let keeps_all = keep_first && end.is_none();
            text.push_str(if keeps_all { &body.text } else { repeated_and_own(&body.text, &chunk.range).1 });
            end = Some(chunk.range.end);
        }
        Ok(text)
    }
}

/// Splits a passage's text into the repeated part and its own: a continued table is stored below its header row, which
/// the document contains once.
///
/// * `range`: bytes of the passage in its document.
pub(super) fn repeated_and_own<'a>(text: &'a str, range: &Range<u64>) -> (&'a str, &'a str) {
    let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    text.split_at_checked(text.len().saturating_sub(length)).unwrap_or(("", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_document_then_place() {
        let key = PassageKey::new(Lsn(77), 5);
        assert_eq!((key.document(), key.ordinal()), (Lsn(77), 5));
        assert!(PassageKey::new(Lsn(77), 6) > key && PassageKey::new(Lsn(78), 0) > key);
        assert_eq!(PassageKey::all(Lsn(1), 2).collect::<Vec<_>>(), [1 << 20, (1 << 20) + 1]);
    }
}
