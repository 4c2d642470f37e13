//! The tools that read: plain functions, called by who has a turn.

use std::sync::Arc;

use serde_json::Value;

use super::super::answers;
use super::super::arguments::{self, OrderArgument};
use super::super::direct::Rendered;
use super::super::{Place, ToolError, UNKNOWN_CURSOR};
use super::inputs::cursor;
use super::shapes::{summary, url_of};
use crate::base::{Fault, Lsn, NodeId};
use crate::collection::{CollectionInfo, DocumentEntry, DocumentRecord, Library, PassageKey, ReadError};
use crate::retrieval::{self, Filter, Retrieval, SearchError, estimate_tokens, prefix_within, shown_metadata};

/// Tokens of a fetch when the caller does not say.
const FETCH_TOKENS: usize = 8_000;
/// Documents on one page of a list.
pub(super) const PAGE_MAX: usize = 1_000;
/// Documents whose ids are compared with one that does not exist, and how many of them are named.
const NEAR_LOOKED_AT: usize = 10_000;
const NEAR_MAX: usize = 3;
/// Rendered answers kept beside the answers themselves.
const RENDERED_MAX: usize = 1_024;

/// A document's passages as their places.
fn counted_passages(total: usize) -> String {
    match total {
        0 => "no passages".to_owned(),
        1 => "one passage, 0".to_owned(),
        total => format!("passages 0 to {}", total - 1),
    }
}

/// What reading needs. Nothing here waits for anything but the disk.
pub(super) struct Reading {
    pub(super) retrieval: Retrieval,
    pub(super) library: Arc<Library>,
    /// Answers of searches as text, by the answer's id and the filter's spelling.
    pub(super) rendered: quick_cache::sync::Cache<(u64, String), Arc<Rendered>>,
}

impl Reading {
    pub(super) fn new(retrieval: Retrieval) -> Self {
        let library = Arc::clone(retrieval.library());
        Self { retrieval, library, rendered: quick_cache::sync::Cache::new(RENDERED_MAX) }
    }

    pub(super) fn node(&self) -> NodeId {
        self.library.reader().node()
    }

    /// The document that an id names: as a whole id first, then with its end as a passage's number.
    pub(super) fn find(&self, id: &str, collection: Option<&str>) -> Result<(Place, Arc<DocumentRecord>), ToolError> {
        let unknown = || self.unknown(id, collection);
        let place = match collection {
            Some(collection) => Place::within(collection, id),
            None => Place::parse(id),
        };
        let place = place.ok_or_else(unknown)?;
        let info = self.library.collection(&place.collection).ok_or_else(unknown)?;
        let lookup = |id: &str| self.library.lookup(info.id, id).map_err(SearchError::from);
        let (place, entry) = match lookup(&place.whole())? {
            Some(entry) => (Place { document: place.whole(), passage: None, ..place }, entry),
            None => {
                let entry = lookup(&place.document)?.ok_or_else(unknown)?;
                (place, entry)
            }
        };
        let document = self.library.passages().document(entry.lsn).map_err(SearchError::from)?;
        if let Some(time) = document.expires_at.filter(|_| !self.library.is_current(&document)) {
            let whole = Place { passage: None, ..place };
            return Err(ToolError::not_found(format!("document '{whole}' expired at {time}; it is shown no more")));
        }
        let total = document.chunks.len();
        match place.passage {
            Some(passage) if passage >= total => {
                let (whole, has) = (Place { passage: None, ..place }, counted_passages(total));
                Err(ToolError::not_found(format!("there is no passage '{id}': document '{whole}' has {has}")))
            }
            _ => Ok((place, document)),
        }
    }

    /// The document that an id names as a whole: what is done to it would be done to all of it.
    pub(super) fn find_whole(&self, id: &str, done: &str) -> Result<(Place, Arc<DocumentRecord>), ToolError> {
        let (place, document) = self.find(id, None)?;
        if place.passage.is_some() {
            let whole = Place { passage: None, ..place };
            return Err(ToolError::bad_argument(format!(
                "'{id}' is a passage; to {done} its whole document give '{whole}'"
            )));
        }
        Ok((place, document))
    }

    /// That there is no such document, and which there are that may be meant.
    fn unknown(&self, id: &str, collection: Option<&str>) -> ToolError {
        let shown: String = id.chars().take(200).collect();
        let near = self.near(id, collection);
        let hint = if near.is_empty() {
            "expected an id from search or list_documents, such as collection/document".to_owned()
        } else {
            let near: Vec<String> = near.iter().map(|near| format!("'{near}'")).collect();
            format!("did you mean {}?", near.join(" or "))
        };
        ToolError::not_found(format!("there is no document '{shown}'; {hint}"))
    }

    /// Ids that end as `id` does: what is cited, or remembered, is often the end of an id. The longer the common end the better.
    fn near(&self, id: &str, collection: Option<&str>) -> Vec<String> {
        let wanted = id.split('#').next().unwrap_or(id).trim_start_matches("ctx://").to_lowercase();
        let wanted: Vec<&str> = wanted.split('/').filter(|part| !part.is_empty()).collect();
        let named = collection.or_else(|| id.split_once('/').map(|(name, _)| name));
        let mut collections = self.library.collections();
        collections.sort_by_key(|info| Some(info.name.as_str()) != named);
        let (mut left, mut near) = (NEAR_LOOKED_AT, Vec::new());
        for info in collections {
            let Ok(entries) = self.library.reader().list(info.id, None, "", left) else { continue };
            left -= entries.len();
            // One that expired cannot be meant.
            for (document, _) in entries.into_iter().filter(|(_, entry)| self.library.is_to_come(entry.expires_at)) {
                let lower = document.to_lowercase();
                let common =
                    lower.rsplit('/').zip(wanted.iter().rev()).take_while(|(own, other)| own == *other).count();
                if common > 0 {
                    near.push((common, Place { collection: info.name.clone(), document, passage: None }.to_string()));
                }
            }
            if left == 0 {
                break;
            }
        }
        near.sort_by_key(|(common, _)| std::cmp::Reverse(*common));
        near.into_iter().take(NEAR_MAX).map(|(_, id)| id).collect()
    }

    pub(super) fn fetch(&self, given: &arguments::Fetch) -> Result<answers::FetchAnswer, ToolError> {
        let tokens_max = given.max_tokens.unwrap_or(FETCH_TOKENS);
        if !(50..=retrieval::TOKENS_MAX).contains(&tokens_max) {
            let most = retrieval::TOKENS_MAX;
            return Err(ToolError::bad_argument(format!("max_tokens is {tokens_max}, expected 50 to {most}")));
        }
        let (mut place, document) = self.find(&given.id, given.collection.as_deref())?;
        let total = document.chunks.len();
        if let Some(chunk) = given.chunk {
            if chunk >= total {
                let has = counted_passages(total);
                return Err(ToolError::bad_argument(format!("chunk is {chunk}, the document has {has}")));
            }
            place.passage = Some(chunk);
        }
        if let Some(range) = &given.range {
            return self.fetch_range(&place, &document, range, tokens_max);
        }
        let passages = self.library.passages();
        let tokens_of = |ordinal: usize| -> Result<usize, ToolError> {
            let key = PassageKey::new(document.lsn, ordinal);
            Ok(passages.passage(key).map_err(SearchError::from)?.tokens)
        };
        let continued = given.cursor.as_deref().map(|text| cursor(Some(text))).transpose()?;
        let (mut first, mut last) = match (continued, place.passage) {
            (Some(start), _) if start < total => (start, start + 1),
            (Some(_), _) => return Err(ToolError::bad_argument("the cursor does not belong to this document")),
            (None, Some(passage)) => (passage, passage + 1),
            (None, None) => (0, 1),
        };
        // Grows until the budget is spent: forward from the start, and around a passage to both sides.
        let around = continued.is_none() && place.passage.is_some();
        let mut tokens = tokens_of(first)?;
        loop {
            let mut grown = false;
            if last < total {
                let more = tokens_of(last)?;
                if tokens + more <= tokens_max {
                    (tokens, last, grown) = (tokens + more, last + 1, true);
                }
            }
            if around && first > 0 {
                let more = tokens_of(first - 1)?;
                if tokens + more <= tokens_max {
                    (tokens, first, grown) = (tokens + more, first - 1, true);
                }
            }
            if !grown {
                break;
            }
        }
        self.fetched(&place, &document, first..last)
    }

    /// The passages that hold bytes `start..end` of a document's text, as many as the budget allows.
    fn fetch_range(
        &self,
        place: &Place,
        document: &DocumentRecord,
        range: &[u64],
        tokens_max: usize,
    ) -> Result<answers::FetchAnswer, ToolError> {
        let &[start, end] = range else {
            return Err(ToolError::bad_argument("range takes two numbers: the first byte and one past the last"));
        };
        let overlaps = |chunk: &&crate::collection::ChunkRef| chunk.range.start < end && start < chunk.range.end;
        let first = document.chunks.iter().position(|chunk| overlaps(&chunk));
        let Some(first) = first.filter(|_| start < end) else {
            let length = document.chunks.last().map_or(0, |chunk| chunk.range.end);
            return Err(ToolError::bad_argument(format!("no text stands at bytes {start} to {end}; it has {length}")));
        };
        let wanted = document.chunks[first..].iter().take_while(overlaps).count();
        let mut tokens = 0;
        let mut last = first;
        while last < first + wanted {
            let text = self.library.passages().text(document, last..last + 1).map_err(SearchError::from)?;
            tokens += estimate_tokens(&text);
            if tokens > tokens_max && last > first {
                break;
            }
            last += 1;
        }
        self.fetched(place, document, first..last)
    }

    fn fetched(
        &self,
        place: &Place,
        document: &DocumentRecord,
        passages: std::ops::Range<usize>,
    ) -> Result<answers::FetchAnswer, ToolError> {
        let std::ops::Range { start: first, end: last } = passages;
        let total = document.chunks.len();
        let mut text = self.library.passages().text(document, first..last).map_err(SearchError::from)?;
        // Earlier releases let a passage of few tokens be of any length.
        let fits = prefix_within(&text, retrieval::TOKENS_MAX);
        let is_cut = fits < text.len();
        text.truncate(fits);
        let range = [document.chunks[first].range.start, document.chunks[last - 1].range.end];
        Ok(answers::FetchAnswer {
            id: place.to_string(),
            title: document.title.clone(),
            text,
            url: url_of(document, place, self.node()),
            collection: place.collection.clone(),
            document: document.id.clone(),
            version: document.version,
            updated_at: document.updated.to_string(),
            media_type: document.media_type.clone(),
            range,
            passages: [first, last],
            passages_total: total,
            metadata: shown_metadata(&document.metadata),
            truncated: is_cut || last - first < total,
            next_cursor: (last < total).then(|| last.to_string()),
        })
    }

    pub(super) fn existing(&self, name: &str) -> Result<Arc<CollectionInfo>, ToolError> {
        self.library.collection(name).ok_or_else(|| {
            let known = self.library.collections().iter().map(|info| info.name.clone()).collect();
            SearchError::NoSuchCollection { name: name.to_owned(), known }.into()
        })
    }

    pub(super) fn describe(
        &self,
        given: &arguments::DescribeCollection,
    ) -> Result<answers::DescribeCollectionAnswer, ToolError> {
        let info = self.existing(&given.collection)?;
        let searcher = self.library.searcher(&info);
        let fields = match &searcher {
            Some(searcher) => searcher.fields().map_err(SearchError::from)?,
            None => Vec::new(),
        };
        Ok(answers::DescribeCollectionAnswer {
            summary: summary(&info),
            dimensions: info.dimensions,
            fields: fields
                .into_iter()
                .map(|(name, kind)| answers::FieldSummary { name, kind: kind.to_owned() })
                .collect(),
            unlinked: searcher.as_ref().map_or(0, |searcher| searcher.unlinked() as u64),
            lsn: searcher.as_ref().map_or(0, |searcher| searcher.lsn().0),
            problem: searcher.and_then(|searcher| searcher.broken()),
        })
    }

    pub(super) fn list_documents(
        &self,
        given: &arguments::ListDocuments,
    ) -> Result<answers::ListDocumentsAnswer, ToolError> {
        let info = self.existing(&given.collection)?;
        let limit = given.limit.unwrap_or(100);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(ToolError::bad_argument(format!("limit is {limit}, expected 1 to {PAGE_MAX}")));
        }
        let after = given.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        let by_id = given.order == OrderArgument::Id;
        let mut entries = match &given.filter {
            None if by_id => {
                let reader = self.library.reader();
                reader.list(info.id, after, &given.prefix, limit + 1).map_err(SearchError::from)?
            }
            filter => self.matching_documents(&info, filter.as_ref(), &given.prefix)?,
        };
        if !by_id {
            entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.lsn));
        }
        if let Some(after) = after {
            // By id any text is a place in the order, by time it is a position of the log.
            let lsn: u64 = match after.parse() {
                Ok(lsn) => lsn,
                Err(_) if by_id => 0,
                Err(_) => return Err(ToolError::bad_argument(UNKNOWN_CURSOR)),
            };
            entries.retain(|(id, entry)| if by_id { id.as_str() > after } else { entry.lsn.0 < lsn });
        }
        let last = entries.get(limit).and_then(|_| entries.get(limit - 1));
        let next_cursor = last.map(|(id, entry)| if by_id { id.clone() } else { entry.lsn.to_string() });
        entries.truncate(limit);
        self.document_page(&info, entries, next_cursor)
    }

    /// Every document of a collection that matches, by id. Cost: proportional to the collection without a filter.
    fn matching_documents(
        &self,
        info: &Arc<CollectionInfo>,
        filter: Option<&Value>,
        prefix: &str,
    ) -> Result<Vec<(String, DocumentEntry)>, ToolError> {
        let reader = self.library.reader();
        let Some(filter) = filter else {
            return Ok(reader.list(info.id, None, prefix, usize::MAX).map_err(SearchError::from)?);
        };
        let mut entries = Vec::new();
        for id in self.matching_ids(info, filter)?.into_iter().filter(|id| id.starts_with(prefix)) {
            if let Some(entry) = reader.lookup(info.id, &id).map_err(SearchError::from)? {
                entries.push((id, entry));
            }
        }
        Ok(entries)
    }

    /// Ids of the documents whose metadata matches, in byte order.
    pub(super) fn matching_ids(&self, info: &Arc<CollectionInfo>, filter: &Value) -> Result<Vec<String>, ToolError> {
        let filter = Filter::from_json(filter).map_err(|error| ToolError::bad_argument(error.to_string()))?;
        let searcher = self.library.searcher(info).ok_or_else(|| ToolError::not_found("the collection is gone"))?;
        let matching = searcher.matching(&filter).map_err(SearchError::from)?;
        let mut documents: Vec<_> = matching.keys().into_iter().map(|key| PassageKey(key).document()).collect();
        documents.dedup();
        let mut ids = Vec::with_capacity(documents.len());
        for lsn in documents {
            ids.push(self.library.passages().document(lsn).map_err(SearchError::from)?.id.clone());
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    fn document_page(
        &self,
        info: &Arc<CollectionInfo>,
        entries: Vec<(String, DocumentEntry)>,
        next_cursor: Option<String>,
    ) -> Result<answers::ListDocumentsAnswer, ToolError> {
        let mut documents = Vec::with_capacity(entries.len());
        let mut unreadable = Vec::new();
        for (id, entry) in entries {
            let document = match self.document_of(info, &id, entry.lsn) {
                Ok(Some(document)) => document,
                Ok(None) => continue,
                // A disk that does not read would make a short list of any.
                Err(error) if error.fault() == Fault::Environment => return Err(SearchError::from(error).into()),
                Err(error) => {
                    tracing::error!(%error, id, "a document's record cannot be read");
                    unreadable.push(answers::Unreadable {
                        id: Place { collection: info.name.clone(), document: id, passage: None }.to_string(),
                        reason: error.to_string(),
                    });
                    continue;
                }
            };
            if !self.library.is_current(&document) {
                continue;
            }
            let place = Place { collection: info.name.clone(), document: id, passage: None };
            documents.push(answers::DocumentSummary {
                id: place.to_string(),
                title: document.title.clone(),
                url: url_of(&document, &place, self.node()),
                version: document.version,
                passages: document.chunks.len() as u64,
                source: document.source.clone(),
                updated_at: document.updated.to_string(),
                expires_at: document.expires_at.map(|time| time.to_string()),
            });
        }
        Ok(answers::ListDocumentsAnswer { collection: info.name.clone(), documents, unreadable, next_cursor })
    }

    /// The record of a document that was listed; `None` when it was deleted since.
    fn document_of(&self, info: &CollectionInfo, id: &str, lsn: Lsn) -> Result<Option<Arc<DocumentRecord>>, ReadError> {
        match self.library.passages().document(lsn) {
            // It was replaced, and its record cleared out of the log, since it was listed.
            Err(ReadError::Gone { .. }) => {
                let now = self.library.lookup(info.id, id)?;
                now.map(|entry| self.library.passages().document(entry.lsn)).transpose()
            }
            found => found.map(Some),
        }
    }
}
