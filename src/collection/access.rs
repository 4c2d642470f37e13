//! The rights of a permit: reads of the node's collections, and the entry to their writes (`adding.rs`, `notes.rs`).
//!
//! Invariants: a collection beyond the permit's reach is not there, whatever is asked of it; a document beyond it is neither shown nor
//! replaced nor deleted.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use super::Library;
use super::errors::WriteError;
use super::passage::{PassageKey, PassageReader};
use super::searcher::Searcher;
use crate::base::Lsn;
use crate::calls::Permit;
use crate::index::lexical::LexicalError;
use crate::store::{self, CollectionId, CollectionInfo, DocumentEntry, ReadError};

/// The documents of a collection that a call reaches.
pub struct Reached(Option<HashSet<Lsn>>);

impl Reached {
    /// Whether a document is among them.
    ///
    /// * `document`: the LSN of its record.
    #[must_use]
    pub fn has(&self, document: Lsn) -> bool {
        self.0.as_ref().is_none_or(|reached| reached.contains(&document))
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
    ) -> Result<Vec<store::SourceEntry>, ReadError> {
        // A source that is the prefix itself begins with it too, before all others.
        let from = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let mut sources = self.library.reader.sources(collection, from, limit)?;
        sources.retain(|source| source.source.starts_with(prefix));
        Ok(sources)
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
        let Some(filter) = self.permit.reach().documents() else { return Ok(Reached(None)) };
        let Some(searcher) = self.searcher(collection) else { return Ok(Reached(Some(HashSet::new()))) };
        let keys = searcher.matching(filter)?.keys();
        Ok(Reached(Some(keys.into_iter().map(|key| PassageKey(key).document()).collect())))
    }

    /// Checks that a write finds none of these documents, or those that the permit reaches.
    ///
    /// # Errors
    /// [`WriteError::DocumentOutOfReach`] with the first that is beyond it.
    pub(super) async fn check_reach(
        &self,
        collection: &Arc<CollectionInfo>,
        ids: impl IntoIterator<Item = &str> + Clone,
    ) -> Result<(), WriteError> {
        if self.permit.reach().documents().is_none() || self.first_beyond(collection, ids.clone())?.is_none() {
            return Ok(());
        }
        // What was just written is not in the index yet, which decides.
        self.flush().await?;
        match self.first_beyond(collection, ids)? {
            None => Ok(()),
            Some(id) => Err(WriteError::DocumentOutOfReach { collection: collection.name.clone(), id: id.to_owned() }),
        }
    }

    fn first_beyond<'i>(
        &self,
        collection: &Arc<CollectionInfo>,
        ids: impl IntoIterator<Item = &'i str>,
    ) -> Result<Option<&'i str>, WriteError> {
        let reached = self.reached(collection)?;
        for id in ids {
            if self.lookup(collection.id, id)?.is_some_and(|entry| !reached.has(entry.lsn)) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Has a document written only if it replaces none, or one that the permit reaches: the version that was looked at.
    ///
    /// * `reached`: what the permit reaches, kept for the next document of a call. It is determined when a document replaces one.
    ///
    /// # Errors
    /// As [`Self::check_reach`].
    pub(super) async fn pin_reach(
        &self,
        collection: &Arc<CollectionInfo>,
        reached: &mut Option<Reached>,
        document: &mut store::NewDocument,
    ) -> Result<(), WriteError> {
        if self.permit.reach().documents().is_none() {
            return Ok(());
        }
        let entry = self.lookup(collection.id, &document.id)?;
        if let Some(entry) = &entry
            && !reached.as_ref().is_some_and(|reached| reached.has(entry.lsn))
        {
            self.check_reach(collection, [document.id.as_str()]).await?;
            *reached = Some(self.reached(collection)?);
        }
        // Of the entry that was looked at before the check: one that another call writes meanwhile is a conflict.
        document.if_version.get_or_insert(entry.map_or(0, |entry| entry.version));
        Ok(())
    }

    /// Checks that the permit reaches every document of a collection.
    ///
    /// # Errors
    /// As [`Self::check_reach`].
    pub(super) async fn check_whole(&self, collection: &Arc<CollectionInfo>) -> Result<(), WriteError> {
        if self.permit.reach().documents().is_none() {
            return Ok(());
        }
        let all = self.list(collection.id, None, "", usize::MAX)?;
        self.check_reach(collection, all.iter().map(|(id, _)| id.as_str())).await
    }

    /// Checks that the permit reaches every document of a source.
    ///
    /// # Errors
    /// As [`Self::check_reach`].
    pub(super) async fn check_source(&self, collection: &Arc<CollectionInfo>, source: &str) -> Result<(), WriteError> {
        if self.permit.reach().documents().is_none() {
            return Ok(());
        }
        let all = self.library.reader.list_source(collection.id, source, None, usize::MAX)?;
        self.check_reach(collection, all.iter().map(|(id, _)| id.as_str())).await
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
