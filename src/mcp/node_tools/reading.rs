//! The tools that read: plain functions, called under a compute permit.

use std::sync::Arc;

use serde_json::Value;

use super::super::answers;
use super::super::arguments::{self, Include, IncludeArgument, OrderArgument};
use super::super::{DocumentRef, ToolError, UNKNOWN_CURSOR};
use super::call::ReadContext;
use super::shapes::summary;
use crate::base::{ByteSize, Fault, Lsn};
use crate::collection::{CollectionInfo, DocumentEntry, DocumentRecord, PassageKey, ReadError};
use crate::retrieval::{self, Filter, SearchError, price, price_of_json, shown_metadata};

/// Tokens of a list of documents when the caller does not say.
const LIST_TOKENS: usize = 2_000;
/// Tokens of the JSON around the documents of a list.
const TOKENS_OF_LIST: usize = 30;
/// Documents on one page of a list.
pub(super) const PAGE_MAX: usize = 1_000;
/// Documents whose ids are compared with one that does not exist, and how many of them are named.
const NEAR_LOOKED_AT: usize = 10_000;
const NEAR_MAX: usize = 5;
/// Text that one call may copy from other documents.
pub(super) const COPIED_BYTES_MAX: u64 = 64 << 20;

/// A document's passages as their places.
pub(super) fn counted_passages(total: usize) -> String {
    match total {
        0 => "no passages".to_owned(),
        1 => "one passage, 0".to_owned(),
        total => format!("passages 0 to {}", total - 1),
    }
}

impl ReadContext<'_> {
    /// The document that an id names: a passage of one first, then as a whole id, then by the end of its id, as documents are
    /// cited, where only one ends so. Searches cite passages, so no document can take the place of another one's citation.
    pub(super) fn find(
        &self,
        id: &str,
        collection: Option<&str>,
    ) -> Result<(DocumentRef, Arc<DocumentRecord>), ToolError> {
        let place = match collection {
            Some(collection) => DocumentRef::within(collection, id),
            None => DocumentRef::parse(id),
        };
        if let Some(found) = self.passage_at(place.as_ref())? {
            return Ok(found);
        }
        let found = match self.at(place.as_ref())? {
            Some(found) => Some(found),
            None => self.at(self.cited(id, collection).as_ref())?,
        };
        self.visible_document(id, found.ok_or_else(|| self.unknown(id, collection))?)
    }

    /// The document that an id names in full: one that is changed or deleted is never guessed.
    pub(super) fn find_named(&self, id: &str) -> Result<(DocumentRef, Arc<DocumentRecord>), ToolError> {
        let found = self.at(DocumentRef::parse(id).as_ref())?;
        self.visible_document(id, found.ok_or_else(|| self.unknown(id, None))?)
    }

    /// The text of the document that an address names, to be copied. A call may copy many, so no similar ids are looked for.
    ///
    /// * `left`: bytes of text that the call may still copy.
    pub(super) fn copied(&self, uri: &str, left: &mut u64) -> Result<String, ToolError> {
        let shown: String = uri.chars().take(200).collect();
        let unknown =
            || ToolError::not_found(format!("there is no document '{shown}'; expected one that search lists"));
        let found = self.at(DocumentRef::parse(uri).as_ref())?;
        let (_, document) = self.visible_document(uri, found.ok_or_else(unknown)?)?;
        *left = left.checked_sub(document.text_bytes).ok_or_else(|| {
            let max = ByteSize(COPIED_BYTES_MAX);
            ToolError::bad_argument(format!(
                "'{shown}' makes more than {max} of text to copy; copy it in a call of its own"
            ))
        })?;
        Ok(self.access.passages().text(&document, 0..document.chunks.len()).map_err(SearchError::from)?)
    }

    /// The document at a place, within reach: whose whole id it is, or whose passage.
    fn at(&self, place: Option<&DocumentRef>) -> Result<Option<(DocumentRef, DocumentEntry)>, ToolError> {
        let Some(place) = place else { return Ok(None) };
        let Some(info) = self.access.collection(&place.collection) else { return Ok(None) };
        let reached = self.reached(&info)?;
        let find = |id: &str| -> Result<Option<DocumentEntry>, ToolError> {
            let found = self.access.lookup(info.id, id).map_err(SearchError::from)?;
            Ok(found.filter(|entry| reached.has(entry.lsn)))
        };
        if let Some(entry) = find(&place.whole())? {
            return Ok(Some((DocumentRef { document: place.whole(), passage: None, ..place.clone() }, entry)));
        }
        Ok(find(&place.document)?.map(|entry| (place.clone(), entry)))
    }

    /// The document at a place that names one of its passages, within reach.
    fn passage_at(&self, place: Option<&DocumentRef>) -> Result<Option<(DocumentRef, Arc<DocumentRecord>)>, ToolError> {
        let Some((place, passage)) = place.and_then(|place| Some((place, place.passage?))) else { return Ok(None) };
        let Some(info) = self.access.collection(&place.collection) else { return Ok(None) };
        let entry = self.access.lookup(info.id, &place.document).map_err(SearchError::from)?;
        let Some(entry) = entry else { return Ok(None) };
        if !self.reached(&info)?.has(entry.lsn) || !self.tools.library.is_to_come(entry.expires_at) {
            return Ok(None);
        }
        let document = self.access.passages().document(entry.lsn).map_err(SearchError::from)?;
        Ok((passage < document.chunks.len()).then(|| (place.clone(), document)))
    }

    /// A document that was found, if it may be shown and has the passage.
    fn visible_document(
        &self,
        id: &str,
        (place, entry): (DocumentRef, DocumentEntry),
    ) -> Result<(DocumentRef, Arc<DocumentRecord>), ToolError> {
        let document = self.access.passages().document(entry.lsn).map_err(SearchError::from)?;
        if let Some(time) = document.expires_at.filter(|_| !self.tools.library.is_current(&document)) {
            let whole = DocumentRef { passage: None, ..place };
            return Err(ToolError::not_found(format!("document '{whole}' expired at {time}; it is shown no more")));
        }
        let total = document.chunks.len();
        match place.passage {
            Some(passage) if passage >= total => {
                let (whole, has) = (DocumentRef { passage: None, ..place }, counted_passages(total));
                Err(ToolError::not_found(format!("there is no passage '{id}': document '{whole}' has {has}")))
            }
            _ => Ok((place, document)),
        }
    }

    /// The document of exactly that id.
    pub(super) fn exactly(&self, collection: &str, id: &str) -> Result<Arc<DocumentRecord>, ToolError> {
        let info = self.existing(collection)?;
        let entry = self.access.lookup(info.id, id).map_err(SearchError::from)?;
        let reached = self.reached(&info)?;
        let entry = entry.filter(|entry| reached.has(entry.lsn) && self.tools.library.is_to_come(entry.expires_at));
        let shown: String = id.chars().take(200).collect();
        let unknown = || ToolError::not_found(format!("there is no document '{shown}' in collection '{collection}'"));
        Ok(self.access.passages().document(entry.ok_or_else(unknown)?.lsn).map_err(SearchError::from)?)
    }

    /// Documents of a collection that an id may refer to, at most `limit`; expired ones are excluded.
    fn candidate_ids(&self, info: &Arc<CollectionInfo>, limit: usize) -> Option<(Vec<String>, usize)> {
        let entries = self.access.list(info.id, None, "", limit).ok()?;
        let (reached, looked_at) = (self.reached(info).ok()?, entries.len());
        let is_shown =
            |entry: &DocumentEntry| self.tools.library.is_to_come(entry.expires_at) && reached.has(entry.lsn);
        let ids = entries.into_iter().filter(|(_, entry)| is_shown(entry)).map(|(id, _)| id).collect();
        Some((ids, looked_at))
    }

    /// The document that the end of an id refers to: the only one whose id ends that way. `None` if there are several,
    /// or too many documents to decide.
    fn cited(&self, id: &str, collection: Option<&str>) -> Option<DocumentRef> {
        let (document, passage) = match id.rsplit_once('#').map(|(document, number)| (document, number.parse())) {
            Some((document, Ok(number))) => (document, Some(number)),
            _ => (id, None),
        };
        if document.is_empty() || document.starts_with("ctx://") {
            return None;
        }
        // The collection's name may be repeated.
        let ends = |own: &str| own == document || own.strip_suffix(document).is_some_and(|rest| rest.ends_with('/'));
        let mut found = None;
        let (mut left, mut is_ambiguous) = (NEAR_LOOKED_AT, false);
        for info in self.access.collections() {
            if collection.is_some_and(|collection| info.name != collection) {
                continue;
            }
            let (ids, looked_at) = self.candidate_ids(&info, left + 1)?;
            for own in ids {
                if ends(&format!("{}/{own}", info.name)) {
                    let place = DocumentRef { collection: info.name.clone(), document: own, passage };
                    is_ambiguous |= found.replace(place).is_some();
                }
            }
            left = left.checked_sub(looked_at)?;
        }
        found.filter(|_| !is_ambiguous)
    }

    /// The document that an id names as a whole: what is done to it would be done to all of it.
    pub(super) fn find_whole(&self, id: &str, done: &str) -> Result<(DocumentRef, Arc<DocumentRecord>), ToolError> {
        let (place, document) = self.find_named(id)?;
        if place.passage.is_some() {
            let whole = DocumentRef { passage: None, ..place };
            return Err(ToolError::bad_argument(format!(
                "'{id}' is a passage; to {done} its whole document give '{whole}'"
            )));
        }
        Ok((place, document))
    }

    /// The error for a missing document, with similar ids.
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

    /// Ids that end as `id` does: what is cited, or remembered, is often the end of an id. The longer the common end the better;
    /// where none ends so, those whose name has the other's in it.
    fn near(&self, id: &str, collection: Option<&str>) -> Vec<String> {
        // Nobody cites an address from memory, and clients ask for many at once.
        if id.starts_with("ctx://") {
            return Vec::new();
        }
        let wanted = id.split('#').next().unwrap_or(id).to_lowercase();
        let wanted: Vec<&str> = wanted.split('/').filter(|part| !part.is_empty()).collect();
        let named = collection.or_else(|| id.split_once('/').map(|(name, _)| name));
        let mut collections = self.access.collections();
        collections.sort_by_key(|info| Some(info.name.as_str()) != named);
        let stem = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
        let wanted_stem = wanted.last().map(|name| stem(name)).filter(|stem| stem.len() > 2);
        let (mut left, mut near) = (NEAR_LOOKED_AT, Vec::new());
        for info in collections {
            let Some((ids, looked_at)) = self.candidate_ids(&info, left) else { continue };
            left -= looked_at;
            for document in ids {
                let lower = document.to_lowercase();
                let common =
                    lower.rsplit('/').zip(wanted.iter().rev()).take_while(|(own, other)| own == *other).count();
                let own_stem = stem(lower.rsplit('/').next().unwrap_or(&lower));
                let resembles = wanted_stem.as_ref().is_some_and(|wanted| {
                    own_stem.len() > 2 && (own_stem.contains(wanted.as_str()) || wanted.contains(&own_stem))
                });
                if common > 0 || resembles {
                    near.push((
                        common,
                        DocumentRef { collection: info.name.clone(), document, passage: None }.to_string(),
                    ));
                }
            }
            if left == 0 {
                break;
            }
        }
        near.sort_by_key(|(common, _)| std::cmp::Reverse(*common));
        near.into_iter().take(NEAR_MAX).map(|(_, id)| id).collect()
    }

    pub(super) fn existing(&self, name: &str) -> Result<Arc<CollectionInfo>, ToolError> {
        self.access.collection(name).ok_or_else(|| {
            let known = self.access.collections().iter().map(|info| info.name.clone()).collect();
            SearchError::NoSuchCollection { name: name.to_owned(), known }.into()
        })
    }

    /// The collections as far as the call reaches.
    pub(super) fn collections(&self) -> Result<answers::ListCollectionsAnswer, ToolError> {
        let collections = self.access.collections().iter().map(|info| self.summary(info)).collect::<Result<_, _>>()?;
        Ok(answers::ListCollectionsAnswer { collections })
    }

    /// A collection in numbers: of the documents within reach.
    fn summary(&self, info: &Arc<CollectionInfo>) -> Result<answers::CollectionSummary, ToolError> {
        let reached = self.reached(info)?;
        let Some(documents) = reached.documents() else { return Ok(summary(info)) };
        let newest = match documents.iter().max().map(|lsn| self.access.passages().document(*lsn)).transpose() {
            // It was replaced, and its record cleared out of the log, meanwhile.
            Err(ReadError::Gone { .. }) => None,
            found => found.map_err(SearchError::from)?,
        };
        Ok(answers::CollectionSummary {
            documents: documents.len() as u64,
            passages: reached.passages(),
            bytes: None,
            updated_at: newest.map(|document| document.updated.to_string()),
            generation: None,
            ..summary(info)
        })
    }

    pub(super) fn describe(
        &self,
        given: &arguments::DescribeCollection,
    ) -> Result<answers::DescribeCollectionAnswer, ToolError> {
        let info = self.existing(&given.collection)?;
        let searcher = self.access.searcher(&info);
        // Names of fields, and work that is left, say something of documents beyond reach.
        let is_all = self.reached(&info)?.documents().is_none();
        let fields = match &searcher {
            Some(searcher) if is_all => searcher.fields().map_err(SearchError::from)?,
            _ => Vec::new(),
        };
        Ok(answers::DescribeCollectionAnswer {
            summary: self.summary(&info)?,
            dimensions: info.dimensions,
            fields: fields
                .into_iter()
                .map(|(name, kind)| answers::FieldSummary { name, kind: kind.to_owned() })
                .collect(),
            unlinked: searcher.as_ref().filter(|_| is_all).map_or(0, |searcher| searcher.unlinked() as u64),
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
            None if by_id && self.access.permit().reach().documents().is_none() => {
                let access = self.access;
                access.list(info.id, after, &given.prefix, limit + 1).map_err(SearchError::from)?
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
        let tokens_max = given.max_tokens.unwrap_or(LIST_TOKENS);
        if !(retrieval::TOKENS_MIN..=retrieval::LIST_TOKENS_MAX).contains(&tokens_max) {
            let (least, most) = (retrieval::TOKENS_MIN, retrieval::LIST_TOKENS_MAX);
            return Err(ToolError::bad_argument(format!("max_tokens is {tokens_max}, expected {least} to {most}")));
        }
        let include = Include::of(&given.include);
        let cursor_of = |id: &str, entry: &DocumentEntry| if by_id { id.to_owned() } else { entry.lsn.to_string() };
        self.document_page(&info, entries, next_cursor, &cursor_of, (tokens_max, include))
    }

    /// Every document of a collection that matches, by id. Cost: proportional to the collection without a filter.
    fn matching_documents(
        &self,
        info: &Arc<CollectionInfo>,
        filter: Option<&Value>,
        prefix: &str,
    ) -> Result<Vec<(String, DocumentEntry)>, ToolError> {
        let (access, reached) = (self.access, self.reached(info)?);
        let Some(filter) = filter else {
            let mut entries = access.list(info.id, None, prefix, usize::MAX).map_err(SearchError::from)?;
            entries.retain(|(_, entry)| reached.has(entry.lsn));
            return Ok(entries);
        };
        let mut entries = Vec::new();
        for id in self.matching_ids(info, filter)?.into_iter().filter(|id| id.starts_with(prefix)) {
            // Its newest version, which may have left the reach since it was indexed.
            let entry = access.lookup(info.id, &id).map_err(SearchError::from)?;
            entries.extend(entry.filter(|entry| reached.has(entry.lsn)).map(|entry| (id, entry)));
        }
        Ok(entries)
    }

    /// Ids of the documents whose metadata matches, in byte order.
    pub(super) fn matching_ids(&self, info: &Arc<CollectionInfo>, filter: &Value) -> Result<Vec<String>, ToolError> {
        let filter = Filter::from_json(filter).map_err(|error| ToolError::bad_argument(error.to_string()))?;
        let searcher = self.access.searcher(info).ok_or_else(|| ToolError::not_found("the collection is gone"))?;
        let filter = self.access.permit().reach().filter(Some(&filter)).unwrap_or(filter);
        let matching = searcher.matching(&filter).map_err(SearchError::from)?;
        let mut documents: Vec<_> = matching.keys().into_iter().map(|key| PassageKey(key).document()).collect();
        documents.dedup();
        let mut ids = Vec::with_capacity(documents.len());
        for lsn in documents {
            ids.push(self.access.passages().document(lsn).map_err(SearchError::from)?.id.clone());
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// * `next_cursor`, `cursor_of`: behind the last entry, and behind any.
    fn document_page(
        &self,
        info: &Arc<CollectionInfo>,
        entries: Vec<(String, DocumentEntry)>,
        mut next_cursor: Option<String>,
        cursor_of: &dyn Fn(&str, &DocumentEntry) -> String,
        (tokens_max, include): (usize, Include),
    ) -> Result<answers::ListDocumentsAnswer, ToolError> {
        let mut documents = Vec::with_capacity(entries.len());
        let mut unreadable = Vec::new();
        let copies = if include.has(IncludeArgument::Structured) { 2 } else { 1 };
        let mut left = (tokens_max / copies).saturating_sub(TOKENS_OF_LIST);
        let mut cursor: Option<String> = None;
        for (id, entry) in entries {
            let behind = cursor_of(&id, &entry);
            let mut fits = |shown: String| {
                let tokens = price_of_json(&shown) + 1;
                // A cursor may be needed behind it.
                let fits = cursor.is_none() || tokens + price(&behind) <= left;
                left = left.saturating_sub(tokens);
                fits
            };
            let place = DocumentRef { collection: info.name.clone(), document: id.clone(), passage: None };
            match self.document_of(info, &id, entry.lsn) {
                Ok(Some(document)) if self.tools.library.is_current(&document) => {
                    let summary = document_summary(&document, &place, include);
                    if !fits(serde_json::to_string(&summary).expect("plain data serialises")) {
                        next_cursor = cursor;
                        break;
                    }
                    documents.push(summary);
                }
                Ok(_) => {}
                // A disk that does not read would make a short list of any.
                Err(error) if error.fault() == Fault::Environment => return Err(SearchError::from(error).into()),
                Err(error) => {
                    tracing::error!(%error, id, "a document's record cannot be read");
                    let shown = answers::Unreadable { id: place.to_string(), reason: error.to_string() };
                    if !fits(serde_json::to_string(&shown).expect("plain data serialises")) {
                        next_cursor = cursor;
                        break;
                    }
                    unreadable.push(shown);
                }
            }
            cursor = Some(behind);
        }
        Ok(answers::ListDocumentsAnswer { documents, unreadable, next_cursor })
    }

    /// The record of a document that was listed; `None` when it was deleted since.
    fn document_of(
        &self,
        info: &Arc<CollectionInfo>,
        id: &str,
        lsn: Lsn,
    ) -> Result<Option<Arc<DocumentRecord>>, ReadError> {
        match self.access.passages().document(lsn) {
            // It was replaced, and its record cleared out of the log, since it was listed.
            Err(ReadError::Gone { .. }) => {
                let now = self.access.lookup(info.id, id)?;
                // What was reached was determined before the list.
                let now = now.filter(|entry| self.reached(info).is_ok_and(|reached| reached.has(entry.lsn)));
                now.map(|entry| self.access.passages().document(entry.lsn)).transpose()
            }
            found => found.map(Some),
        }
    }
}

fn document_summary(document: &DocumentRecord, place: &DocumentRef, include: Include) -> answers::DocumentSummary {
    let (with_source, with_dates) = (include.has(IncludeArgument::Source), include.has(IncludeArgument::Dates));
    answers::DocumentSummary {
        id: place.to_string(),
        title: document.title.clone(),
        url: document.url.clone(),
        passages: with_source.then_some(document.chunks.len() as u64),
        source: document.source.clone().filter(|_| with_source),
        version: with_dates.then_some(document.version),
        updated_at: with_dates.then(|| document.updated.to_string()),
        expires_at: document.expires_at.map(|time| time.to_string()).filter(|_| with_dates),
        metadata: include.has(IncludeArgument::Metadata).then(|| shown_metadata(&document.metadata)),
    }
}
