//! Fetching: a document page by page, or the section around a passage.

use std::ops::Range;
use std::str::FromStr;

use super::super::arguments::{self, Include, IncludeArgument};
use super::super::{DocumentRef, ToolError, UNKNOWN_CURSOR, answers};
use super::call::ReadContext;
use super::inputs::cursor;
use super::reading::counted_passages;
use super::shapes::title_of;
use crate::collection::{ChunkRef, DocumentRecord, Passage, PassageKey};
use crate::retrieval::{
    SearchError, TOKENS_MAX, TOKENS_MIN, path, prefix_priced, price, price_of_json, shown_metadata,
};

/// Tokens of a fetch when the caller does not say: of a document, and of a section.
const DOCUMENT_TOKENS: usize = 8_000;
const SECTION_TOKENS: usize = 2_000;
/// Tokens of `"text":""`, `truncated` and a cursor.
const TOKENS_OF_MEMBERS: usize = 24;

/// Where reading a document continues: a passage, and how much of it was already returned, in bytes. As text `7` or
/// `7.120`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    passage: usize,
    skipped: usize,
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (passage, skipped) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self { passage: passage.parse()?, skipped: skipped.parse()? })
    }
}

/// Passages of a document that are fetched.
struct Piece {
    passages: Range<usize>,
    /// Bytes of the first one that are left out.
    skipped: usize,
    /// Whether passages that belong to it were left out for the budget.
    is_cut: bool,
    /// Whether it is a part of a document that is read on with a cursor; else what lies around it is named.
    is_page: bool,
}

impl ReadContext<'_> {
    pub(super) fn fetch(&self, given: &arguments::Fetch) -> Result<answers::FetchAnswer, ToolError> {
        let (mut place, document) = self.find(&given.id, given.collection.as_deref())?;
        let total = document.chunks.len();
        if let Some(chunk) = given.chunk {
            if chunk >= total {
                let has = counted_passages(total);
                return Err(ToolError::bad_argument(format!("chunk is {chunk}, the document has {has}")));
            }
            place.passage = Some(chunk);
        }
        let position: Option<Position> = cursor(given.cursor.as_deref())?;
        if position.is_some_and(|position| position.passage >= total) {
            return Err(ToolError::bad_argument("the cursor does not belong to this document"));
        }
        let is_section = position.is_none() && (place.passage.is_some() || given.range.is_some());
        let tokens_max = given.max_tokens.unwrap_or(if is_section { SECTION_TOKENS } else { DOCUMENT_TOKENS });
        if !(TOKENS_MIN..=TOKENS_MAX).contains(&tokens_max) {
            return Err(ToolError::bad_argument(format!(
                "max_tokens is {tokens_max}, expected {TOKENS_MIN} to {TOKENS_MAX}"
            )));
        }
        let include = Include::of(&given.include);
        let copies = if include.has(IncludeArgument::Structured) { 2 } else { 1 };
        // The JSON around the text depends on where the text ends only by a few digits.
        let start = position.map(|position| position.passage).or(place.passage).unwrap_or_default();
        let probe = Piece { passages: start..start + 1, skipped: 0, is_cut: false, is_page: !is_section };
        let around = self.around(&place, &document, &probe, String::new(), include)?;
        let around = serde_json::to_string(&around).expect("plain data serialises");
        // Metadata that was asked for may be long: the text is what a fetch is for.
        let whole = tokens_max / copies;
        let budget = whole.saturating_sub(price_of_json(&around) + TOKENS_OF_MEMBERS).max(whole / 2);
        let piece = match (position, place.passage, given.range.as_deref()) {
            (Some(position), ..) => self.page(&document, position, budget)?,
            (None, _, Some(range)) => self.range(&document, range, budget)?,
            (None, Some(passage), None) => self.section(&document, passage, budget)?,
            (None, None, None) => self.page(&document, Position { passage: 0, skipped: 0 }, budget)?,
        };
        self.fetched(&place, &document, &piece, budget, include)
    }

    fn passage_of(&self, document: &DocumentRecord, ordinal: usize) -> Result<Passage, ToolError> {
        let key = PassageKey::new(document.lsn, ordinal);
        Ok(self.access.passages().passage(key).map_err(SearchError::from)?)
    }

    /// As many passages from a position on as fit, at least one.
    fn page(&self, document: &DocumentRecord, from: Position, budget: usize) -> Result<Piece, ToolError> {
        let total = document.chunks.len();
        let (mut last, mut tokens) = (from.passage, 0);
        while last < total {
            tokens += price(&self.passage_of(document, last)?.body.text) + 1;
            if tokens > budget && last > from.passage {
                break;
            }
            last += 1;
        }
        Ok(Piece { passages: from.passage..last, skipped: from.skipped, is_cut: last < total, is_page: true })
    }

    /// The passages around one that are under the same headings, as many as fit.
    fn section(&self, document: &DocumentRecord, passage: usize, budget: usize) -> Result<Piece, ToolError> {
        let own = self.passage_of(document, passage)?;
        let mut tokens = price(&own.body.text);
        let mut passages = passage..passage + 1;
        let (mut grows_on, mut grows_back, mut is_cut) = (true, true, false);
        while grows_on || grows_back {
            for is_forward in [true, false] {
                let grows = if is_forward { &mut grows_on } else { &mut grows_back };
                let next = if is_forward { Some(passages.end) } else { passages.start.checked_sub(1) };
                let Some(next) = next.filter(|next| *grows && *next < document.chunks.len()) else {
                    *grows = false;
                    continue;
                };
                let more = self.passage_of(document, next)?;
                let cost = price(&more.body.text) + 1;
                if more.body.headings != own.body.headings {
                    *grows = false;
                } else if tokens + cost > budget {
                    (*grows, is_cut) = (false, true);
                } else {
                    tokens += cost;
                    passages = passages.start.min(next)..passages.end.max(next + 1);
                }
            }
        }
        Ok(Piece { passages, skipped: 0, is_cut, is_page: false })
    }

    /// The passages that hold bytes `start..end` of a document's text, as many as the budget allows.
    fn range(&self, document: &DocumentRecord, range: &[u64], budget: usize) -> Result<Piece, ToolError> {
        let &[start, end] = range else {
            return Err(ToolError::bad_argument("range takes two numbers: the first byte and one past the last"));
        };
        let overlaps = |chunk: &&ChunkRef| chunk.range.start < end && start < chunk.range.end;
        let first = document.chunks.iter().position(|chunk| overlaps(&chunk));
        let Some(first) = first.filter(|_| start < end) else {
            let length = document.chunks.last().map_or(0, |chunk| chunk.range.end);
            return Err(ToolError::bad_argument(format!(
                "byte range {start} to {end} is outside the document, which has {length} bytes"
            )));
        };
        let wanted = document.chunks[first..].iter().take_while(overlaps).count();
        let (mut tokens, mut last) = (0, first);
        while last < first + wanted {
            tokens += price(&self.passage_of(document, last)?.body.text) + 1;
            if tokens > budget && last > first {
                break;
            }
            last += 1;
        }
        Ok(Piece { passages: first..last, skipped: 0, is_cut: last < first + wanted, is_page: false })
    }

    fn fetched(
        &self,
        place: &DocumentRef,
        document: &DocumentRecord,
        piece: &Piece,
        budget: usize,
        include: Include,
    ) -> Result<answers::FetchAnswer, ToolError> {
        let passages = piece.passages.clone();
        let texts = self.access.passages();
        // A section is read separately: if it continues a table it needs the header row.
        let text = if piece.is_page { texts.text(document, passages) } else { texts.passages(document, passages) };
        let text = text.map_err(SearchError::from)?;
        let unknown = || ToolError::bad_argument(UNKNOWN_CURSOR);
        let text = text.get(piece.skipped..).ok_or_else(unknown)?;
        // One passage may be more than there is room for.
        let fits = prefix_priced(text, budget);
        let fits = if fits < text.len() { text[..fits].rfind(char::is_whitespace).unwrap_or(fits) } else { fits };
        let is_cut = fits < text.len() && piece.passages.len() == 1;
        let text = if is_cut { &text[..fits] } else { text };
        let mut answer = self.around(place, document, piece, text.to_owned(), include)?;
        answer.truncated = is_cut || piece.is_cut;
        answer.next_cursor = match (piece.is_page, is_cut) {
            (false, false) => None,
            // The rest of it, and what lies behind.
            (_, true) => Some(format!("{}.{}", piece.passages.start, piece.skipped + fits.max(1))),
            (true, false) => (piece.passages.end < document.chunks.len()).then(|| piece.passages.end.to_string()),
        };
        Ok(answer)
    }

    /// An answer with the JSON around its text.
    fn around(
        &self,
        place: &DocumentRef,
        document: &DocumentRecord,
        piece: &Piece,
        text: String,
        include: Include,
    ) -> Result<answers::FetchAnswer, ToolError> {
        let Range { start: first, end: last } = piece.passages;
        let total = document.chunks.len();
        let neighbor = |ordinal: Option<usize>| -> Result<Option<answers::Neighbor>, ToolError> {
            let Some(ordinal) = ordinal.filter(|ordinal| *ordinal < total && !piece.is_page) else { return Ok(None) };
            let passage = self.passage_of(document, ordinal)?;
            let id = DocumentRef { passage: Some(ordinal), ..place.clone() }.to_string();
            let title = path(&passage).last().unwrap_or_default().to_owned();
            Ok(Some(answers::Neighbor { id, title }))
        };
        let title = match place.passage.filter(|_| !piece.is_page) {
            Some(passage) => title_of(path(&self.passage_of(document, passage)?)),
            None => document.title.clone(),
        };
        let with_dates = include.has(IncludeArgument::Dates);
        Ok(answers::FetchAnswer {
            id: place.to_string(),
            title,
            url: document.url.clone(),
            text,
            before: neighbor(first.checked_sub(1))?,
            after: neighbor(Some(last))?,
            truncated: false,
            next_cursor: None,
            source: include.has(IncludeArgument::Source).then(|| answers::FetchedSource {
                collection: place.collection.clone(),
                document: document.id.clone(),
                media_type: document.media_type.clone(),
                range: [document.chunks[first].range.start, document.chunks[last - 1].range.end],
                passages: [first, last],
                passages_total: total,
            }),
            version: with_dates.then_some(document.version),
            updated_at: with_dates.then(|| document.updated.to_string()),
            metadata: include.has(IncludeArgument::Metadata).then(|| shown_metadata(&document.metadata)),
        })
    }
}
