//! What is asked, what is answered, and the limits of both.

use serde::Deserialize;
use serde_json::Value;

use super::{Cursor, Filter, Fusion, Hit, SearchError};
use crate::base::{Lsn, setting};

/// Most hits in one answer.
pub const LIMIT_MAX: usize = 50;
/// Minimum and maximum tokens of one answer: what an id with its title may need, and what clients accept.
pub const TOKENS_MIN: usize = 100;
/// See [`TOKENS_MIN`].
pub const TOKENS_MAX: usize = 20_000;
/// Most tokens of a list of documents, for programs that read it to its end.
pub const LIST_TOKENS_MAX: usize = 200_000;
/// Longest query that is used, in bytes; the rest is cut off.
pub(super) const QUERY_BYTES_MAX: usize = 8 << 10;
/// Passages of a document that are skipped when its neighbours are wanted.
pub(super) const OWN_PASSAGES_MAX: usize = 1_000;
/// How deep a cursor can go.
pub(super) const OFFSET_MAX: usize = 500;
/// Maximum depth of candidates in each half.
pub(super) const DEPTH_MAX: usize = 2 * (OFFSET_MAX + LIMIT_MAX);
/// How many times deeper other documents are searched for when a few fill the first candidates.
pub(super) const OTHER_DOCUMENTS: usize = 8;
/// Passages of one document before those of the others, and in long answers.
pub(super) const PER_DOCUMENT: usize = 2;
pub(super) const PER_DOCUMENT_LONG: usize = 3;
/// Results from which on an answer is a long one.
pub(super) const LONG: usize = 20;

/// Defaults of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// Hits per answer.
    #[serde(deserialize_with = "setting::count::<_, 1, LIMIT_MAX>")]
    pub limit: usize,
    /// Tokens per answer.
    #[serde(deserialize_with = "setting::count::<_, TOKENS_MIN, TOKENS_MAX>")]
    pub tokens_max: usize,
    /// Candidates of each half.
    #[serde(deserialize_with = "setting::count::<_, 10, 1_000>")]
    pub candidates: usize,
    /// Memory for remembered answers.
    #[serde(deserialize_with = "setting::bytes::<_, 0>")]
    pub cache_bytes: u64,
    /// Memory for words that are searched for.
    #[serde(deserialize_with = "setting::bytes::<_, 0>")]
    pub word_cache_bytes: u64,
    /// Memory for passages and documents read from the log.
    #[serde(deserialize_with = "setting::bytes::<_, 0>")]
    pub passage_cache_bytes: u64,
}

/// Which halves are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Both, fused.
    #[default]
    Hybrid,
    /// Meaning alone: vectors.
    Dense,
    /// Words alone: BM25.
    Lexical,
}

impl Mode {
    /// As tools spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::Dense => "dense",
            Self::Lexical => "lexical",
        }
    }
}

/// How much of a passage an answer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Detail {
    /// Titles and places only.
    Ids,
    /// The part that fits the query best, about 300 characters.
    Snippet,
    /// As much as there is room for: long passages are shortened around what fits the query best, so that all results fit the
    /// budget.
    #[default]
    Fitted,
    /// The whole passage.
    Full,
}

/// A question.
#[derive(Debug, Clone, Default)]
pub struct SearchRequest {
    /// In words, or as a question.
    pub query: String,
    /// Names of collections; empty for all.
    pub collections: Vec<String>,
    /// Which halves are asked.
    pub mode: Mode,
    /// Hits wanted; `None` for the default.
    pub limit: Option<usize>,
    /// Where the last answer ended; `None` to begin.
    pub cursor: Option<Cursor>,
    /// Only documents whose metadata matches.
    pub filter: Option<Filter>,
    /// Tokens of the answer, its texts and the JSON around them; `None` for the default.
    pub tokens_max: Option<usize>,
    /// Only hits with at least this score.
    pub min_score: Option<f32>,
    /// How much of a passage is returned.
    pub detail: Detail,
    /// How the halves are fused; `None` for the model's way.
    pub fusion: Option<Fusion>,
    /// Identifies what the caller adds to the texts, as an arbitrary number: distinguishes answers that otherwise have
    /// the same request, since it determines what fits.
    pub shown: u32,
}

/// An answer.
#[derive(Debug)]
pub struct SearchAnswer {
    /// Distinguishes answers; equal for an answer from the cache.
    pub id: u64,
    /// Best first.
    pub hits: Vec<Hit>,
    /// The mode that was used.
    pub mode_used: Mode,
    /// Why it was not what the caller wanted.
    pub mode_reason: Option<String>,
    /// Names of the collections that were searched.
    pub searched: Vec<String>,
    /// Everything acknowledged up to here was searched.
    pub lsn: Lsn,
    /// Whether nothing of it fits well: what was asked for is probably not there.
    pub weak: bool,
    /// Whether more was found than the answer holds.
    pub truncated: bool,
    /// Where the next answer would begin.
    pub next: Option<Cursor>,
}

pub(super) fn in_range(
    name: &'static str,
    value: Option<usize>,
    default: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, SearchError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(SearchError::OutOfRange { name, found: value, expected })
}

/// A filter on the time of the last change, as `after` and `before` of a search.
#[must_use]
pub fn updated_between(after: Option<&str>, before: Option<&str>) -> Option<Filter> {
    let bound = |text: &str, inclusive| {
        let scalar = crate::index::filter::Filter::from_json(&serde_json::json!({ "_updated_at": text })).ok()?;
        match scalar {
            Filter::Equals(_, scalar) => Some((scalar, inclusive)),
            _ => None,
        }
    };
    let (lower, upper) = (after.and_then(|text| bound(text, true)), before.and_then(|text| bound(text, false)));
    (lower.is_some() || upper.is_some()).then(|| Filter::Range("_updated_at".into(), lower, upper))
}

/// Metadata as an answer shows it.
#[must_use]
pub fn shown_metadata(bytes: &[u8]) -> serde_json::Map<String, Value> {
    serde_json::from_slice(bytes).unwrap_or_default()
}
