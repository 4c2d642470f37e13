//! The rights of a permit: reads of the node's collections, and the entry to their writes (`adding.rs`, `notes.rs`).
//!
//! Invariants:
//! * A collection beyond the permit's reach is not there, whatever is asked of it.
//! * A document beyond it is neither shown nor counted nor replaced nor deleted, and its id is in no answer to a caller that did not
//!   give it.
//! * A document is written only if the permit reaches it as it will be: a caller of one team cannot plant a document among
//!   those of another.
//! * What is replaced or deleted is what was looked at. A document that another call writes between the check and the write stays, and
//!   the caller is told to try again.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Library;
use super::errors::WriteError;
use super::passage::{PassageKey, PassageReader};
use super::searcher::Searcher;
use super::views::indexed_metadata;
use crate::base::Lsn;
use crate::calls::Permit;
use crate::index::lexical::{self, LexicalError};
use crate::store::{self, CollectionId, CollectionInfo, DocumentEntry, ReadError};

/// Times that something is looked at again when another call changes it meanwhile.
pub(super) const LOOKS: usize = 4;
/// Sources that are looked through at once for documents within reach.
const SOURCES_LOOKED_AT: usize = 256;

/// The documents of a collection that a call reaches.
pub struct Reached {
    /// `None`: all.
    documents: Option<HashSet<Lsn>>,
    passages: u64,
    /// Every document up to here is among them, or beyond reach.
    up_to: Lsn,
}

impl Reached {
    /// Whether a document is among them.
    ///
    /// * `document`: the LSN of its record.
    #[must_use]
    pub fn has(&self, document: Lsn) -> bool {
        self.documents.as_ref().is_none_or(|reached| reached.contains(&document))
    }

    /// LSNs of their records, in no order; `None` for all documents of the collection.
    #[must_use]
    pub fn documents(&self) -> Option<&HashSet<Lsn>> {
        self.documents.as_ref()
    }

    /// How many passages they have; 0 for all documents of the collection.
    #[must_use]
    pub fn passages(&self) -> u64 {
        self.passages
    }
}

/// Documents that are changed without being named.
#[derive(Clone, Copy)]
pub(super) enum Whole<'a> {
    /// Those of a collection.
    Collection,
    /// Those of a source.
    Source(&'a str),
}

impl Whole<'_> {
    /// For people.
    pub(super) fn name(self, collection: &CollectionInfo) -> String {
        let collection = &collection.name;
        match self {
            Self::Collection => format!("collection '{collection}'"),
            Self::Source(source) => format!("source '{source}' of collection '{collection}'"),
        }
    }
}

/// The node's collections under a permit.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub(super) library: &'a Arc<Library>,
    pub(super) permit: &'a Permit,
}

impl Library {
    /// The collections as far as `permit` reaches.
    #[must_use]
    pub fn access<'a>(self: &'a Arc<Self>, permit: &'a Permit) -> Access<'a> {
        Access { library: self, permit }
    }
}

impl<'a> Access<'a> {
    /// The permit.
    pub fn permit(&self) -> &'a Permit {
        self.permit
    }

    /// The library itself, for what is the node's.
    #[must_use]
    pub fn library(&self) -> &'a Arc<Library> {
        self.library
    }

    /// Every collection, by name.
    #[must_use]
    pub fn collections(&self) -> Vec<Arc<CollectionInfo>> {
        let mut collections = self.library.all();
        collections.retain(|info| self.permit.reach().admits(&info.name));
        collections
    }

    /// The collection of that name.
    #[must_use]
    pub fn collection(&self, name: &str) -> Option<Arc<CollectionInfo>> {
        self.library.reader.collection(name).filter(|info| self.permit.reach().admits(&info.name))
    }

    /// The catalog's entry for a document; `None` when the id is unknown.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn lookup(&self, collection: CollectionId, id: &str) -> Result<Option<DocumentEntry>, ReadError> {
        self.library.reader.lookup(collection, id)
    }

    /// The sources of a collection that begin with `prefix`, after `after`, at most `limit`, in byte order: those with documents that the
    /// permit reaches, which alone count.
    ///
    /// * `reached`: of this collection.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn sources(
        &self,
        collection: CollectionId,
        reached: &Reached,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<store::SourceEntry>, ReadError> {
        let reader = &self.library.reader;
        // A source that is the prefix itself begins with it too, before all others.
        let from = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        if reached.documents.is_none() {
            let mut sources = reader.sources(collection, from, limit)?;
            sources.retain(|source| source.source.starts_with(prefix));
            return Ok(sources);
        }
        let mut shown = Vec::new();
        let mut page = reader.sources(collection, from, SOURCES_LOOKED_AT)?;
        while let Some(last) = page.last().map(|source| source.source.clone()) {
            for mut source in page {
                if shown.len() == limit || !source.source.starts_with(prefix) {
                    return Ok(shown);
                }
                let documents = reader.list_source(collection, &source.source, None, usize::MAX)?;
                source.documents = documents.iter().filter(|(_, entry)| reached.has(entry.lsn)).count() as u64;
                if source.documents > 0 {
                    shown.push(source);
                }
            }
            page = reader.sources(collection, Bound::Excluded(last.as_str()), SOURCES_LOOKED_AT)?;
        }
        Ok(shown)
    }

    /// Documents of a collection by id, after `after`, whose ids begin with `prefix`, at most `limit`.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn list(
        &self,
        collection: CollectionId,
        after: Option<&str>,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, DocumentEntry)>, ReadError> {
        self.library.reader.list(collection, after, prefix, limit)
    }

    /// The answer that was stored under an idempotency key; `None` when there is none, or it is a day old.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn remembered(&self, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.library.reader.remembered(key)
    }

    /// The documents of a collection that the permit reaches. Cost: nothing where a call reaches all, as is usual; else proportional to the
    /// passages that it reaches.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn reached(&self, collection: &Arc<CollectionInfo>) -> Result<Reached, LexicalError> {
        let Some(filter) = self.permit.reach().documents() else {
            return Ok(Reached { documents: None, passages: 0, up_to: Lsn::ZERO });
        };
        let Some(searcher) = self.searcher(collection) else {
            return Ok(Reached { documents: Some(HashSet::new()), passages: 0, up_to: Lsn::ZERO });
        };
        let keys = searcher.matching(filter)?.keys();
        let passages = keys.len() as u64;
        let documents = keys.into_iter().map(|key| PassageKey(key).document()).collect();
        Ok(Reached { documents: Some(documents), passages, up_to: searcher.lsn() })
    }

    /// The document of an id, which the permit reaches; `None` when there is none.
    ///
    /// * `reached`: kept for the next document of a call. It is determined when a document is there.
    ///
    /// # Errors
    /// [`WriteError::DocumentOutOfReach`] when the permit does not reach it.
    async fn look_up(
        &self,
        collection: &Arc<CollectionInfo>,
        reached: &mut Option<Reached>,
        id: &str,
    ) -> Result<Option<DocumentEntry>, WriteError> {
        for _ in 0..LOOKS {
            let Some(entry) = self.lookup(collection.id, id)? else { return Ok(None) };
            let known = match reached.take() {
                Some(known) => known,
                None => self.reached(collection)?,
            };
            let known = if known.has(entry.lsn) || known.up_to >= entry.lsn {
                known
            } else {
                // What was just written is not in the index yet, which decides.
                self.flush().await?;
                self.reached(collection)?
            };
            if reached.insert(known).has(entry.lsn) {
                return Ok(Some(entry));
            }
            // Unless another call has replaced it since.
            if self.lookup(collection.id, id)?.is_some_and(|now| now.lsn == entry.lsn) {
                let (collection, id) = (collection.name.clone(), id.to_owned());
                return Err(WriteError::DocumentOutOfReach { collection, id });
            }
        }
        Err(WriteError::Overtaken { what: format!("document '{id}'") })
    }

    /// The version of a document that may be deleted: the one that was looked at, 0 where there is none. `None`, for any version, where the
    /// permit reaches all documents.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub(super) async fn pinned_version(
        &self,
        collection: &Arc<CollectionInfo>,
        reached: &mut Option<Reached>,
        id: &str,
    ) -> Result<Option<u64>, WriteError> {
        if self.permit.reach().documents().is_none() {
            return Ok(None);
        }
        let entry = self.look_up(collection, reached, id).await?;
        Ok(Some(entry.map_or(0, |entry| entry.version)))
    }

    /// Has a document written only if the permit reaches it as it will be, and if it replaces none, or one that the permit reaches: the
    /// version that was looked at.
    ///
    /// * `reached`: kept for the next document of a call.
    ///
    /// # Errors
    /// As [`Self::look_up`], and [`WriteError::WouldBeOutOfReach`].
    pub(super) async fn pin_reach(
        &self,
        collection: &Arc<CollectionInfo>,
        reached: &mut Option<Reached>,
        document: &mut store::NewDocument,
    ) -> Result<(), WriteError> {
        let Some(filter) = self.permit.reach().documents() else { return Ok(()) };
        if !lexical::admits(filter, &self.metadata_of(document)) {
            return Err(WriteError::WouldBeOutOfReach { id: document.id.clone() });
        }
        let entry = self.look_up(collection, reached, &document.id).await?;
        document.looked_at = Some(entry.map_or(Lsn::ZERO, |entry| entry.lsn));
        Ok(())
    }

    /// What filters ask of a document once it is written.
    fn metadata_of(&self, document: &store::NewDocument) -> Map<String, Value> {
        let language = document.chunks.first().map(|chunk| chunk.body.language.as_str());
        let now = self.library.config.clock.now();
        indexed_metadata(&document.metadata, &document.media_type, now, document.source.as_deref(), language)
    }

    /// Checks that the permit reaches every document of a collection or a source. Returns the last change of the collection that was looked
    /// at; `None` where the permit reaches all documents.
    ///
    /// # Errors
    /// [`WriteError::WholeOutOfReach`].
    pub(super) async fn check_whole(
        &self,
        collection: &Arc<CollectionInfo>,
        whole: Whole<'_>,
    ) -> Result<Option<Lsn>, WriteError> {
        if self.permit.reach().documents().is_none() {
            return Ok(None);
        }
        for _ in 0..LOOKS {
            let seen = self.existing(&collection.name)?.last_change;
            let all = match whole {
                Whole::Collection => self.list(collection.id, None, "", usize::MAX)?,
                Whole::Source(source) => self.library.reader.list_source(collection.id, source, None, usize::MAX)?,
            };
            let reached = self.reached(collection)?;
            let beyond = all.iter().map(|(_, entry)| entry.lsn).filter(|lsn| !reached.has(*lsn)).min();
            match beyond {
                None => return Ok(Some(seen)),
                Some(lsn) if lsn <= reached.up_to && self.existing(&collection.name)?.last_change == seen => {
                    return Err(WriteError::WholeOutOfReach { what: whole.name(collection) });
                }
                // What was just written is not in the index yet, or another call has replaced it since.
                Some(_) => {
                    self.flush().await?;
                }
            }
        }
        Err(WriteError::WholeOutOfReach { what: whole.name(collection) })
    }

    /// The read view of a collection; `None` when its views are not open (it was just deleted).
    #[must_use]
    pub fn searcher(&self, info: &Arc<CollectionInfo>) -> Option<Searcher> {
        let views = self.library.views.read().get(&info.id).cloned()?;
        Some(Searcher::new(Arc::clone(info), views))
    }

    /// Reads passages and documents from the log, with a cache.
    #[must_use]
    pub fn passages(&self) -> &'a PassageReader {
        &self.library.passages
    }
}
