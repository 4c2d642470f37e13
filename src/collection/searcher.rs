//! The read view of one collection: both indexes at one moment.

use std::sync::Arc;

use super::views::{IndexViews, Views};
use crate::base::Lsn;
use crate::embed::Phrase;
use crate::index::analysis::Language;
use crate::index::filter::Filter;
use crate::index::gpu::service::Verdict;
use crate::index::lexical::{self, LexicalError, LexicalHit, LexicalSearcher, Lookup, Passages};
use crate::index::vector::{DeviceAnswer, DeviceQuery, Neighbor, Recall};
use crate::store::CollectionInfo;

/// An immutable read view of a collection. Cheap to make; drop it after the search.
pub struct Searcher {
    info: Arc<CollectionInfo>,
    views: Arc<Views>,
    visible: Arc<IndexViews>,
}

impl Searcher {
    pub(super) fn new(info: Arc<CollectionInfo>, views: Arc<Views>) -> Self {
        let visible = views.visible();
        Self { info, views, visible }
    }

    /// The collection it shows.
    #[must_use]
    pub fn collection(&self) -> &CollectionInfo {
        &self.info
    }

    fn words(&self) -> &LexicalSearcher {
        &self.visible.lexical
    }

    /// Whether the halves show different states of the log, so that a document may be found in two versions: while one of them has
    /// failed, or catches up after a crash.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        let lsn = self.lsn();
        self.visible.vectors.applied() > lsn || self.views.applied() < lsn
    }

    /// Everything acknowledged up to this position is in the view.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.words().lsn()
    }

    /// Why the lexical half cannot answer, if it cannot.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.views.broken()
    }

    /// How far the view is behind the collection, in words; `None` when it shows every acknowledged write.
    #[must_use]
    pub fn behind(&self) -> Option<String> {
        let (visible, last) = (self.lsn(), self.info.last_change);
        (visible < last)
            .then(|| format!("the indexes follow the log: they show it up to {visible}, the last write is {last}"))
    }

    /// The language most of it is written in.
    #[must_use]
    pub fn main_language(&self) -> Language {
        self.words().main_language()
    }

    /// Number of passages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.visible.vectors.live().max(usize::try_from(self.words().len()).unwrap_or(usize::MAX))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks the words of a query up in collections that are searched together; see [`lexical::look_up`].
    pub fn look_up(searchers: &[Self], query: &str) -> Vec<Result<Lookup, LexicalError>> {
        let views: Vec<&LexicalSearcher> = searchers.iter().map(Self::words).collect();
        let failure = |(searcher, error): (&Self, _)| searcher.views.lexical.failure(error);
        let found = lexical::look_up(&views, query).into_iter();
        found.zip(searchers).map(|(found, searcher)| found.map_err(|error| failure((searcher, error)))).collect()
    }

    /// Passages by BM25; see [`LexicalSearcher::search`].
    ///
    /// * `lookup`: what [`Self::look_up`] found in this collection.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn lexical(
        &self,
        lookup: Lookup,
        limit: usize,
        among: Option<&Passages>,
    ) -> Result<Vec<LexicalHit>, LexicalError> {
        self.words().search(lookup, limit, among).map_err(|error| self.views.lexical.failure(error))
    }

    /// Passages by similarity of their embedding; see [`crate::index::vector::VectorIndex::search`].
    #[must_use]
    pub fn nearest(&self, embedding: &[f32], limit: usize, among: Option<&Passages>) -> Vec<Neighbor> {
        self.views.note_search();
        let (vectors, view) = (&self.views.vectors, &*self.visible.vectors);
        let Some(among) = among else { return vectors.search(view, embedding, limit) };
        let found = vectors.search_among(view, embedding, limit, &among.rows(view));
        found.unwrap_or_else(|| vectors.exact(view, embedding, limit, Some(&among.keys())))
    }

    /// Whether the GPU may be asked for neighbours.
    #[must_use]
    pub fn asks_device(&self) -> bool {
        self.views.vectors.asks_device()
    }

    /// Sends the query of [`Self::nearest`] to the GPU; `None` if the CPU must answer. See
    /// [`crate::index::vector::VectorIndex::ask_device`].
    #[must_use]
    pub fn ask_device(&self, embedding: &[f32], limit: usize, among: Option<&Passages>) -> Option<DeviceQuery> {
        let view = &*self.visible.vectors;
        self.views.vectors.ask_device(view, embedding, limit, among.map(|among| among.rows(view)))
    }

    /// The passages that the GPU found; `None` if the CPU must answer after all.
    #[must_use]
    pub fn collect(&self, answer: &DeviceAnswer) -> Option<Vec<Neighbor>> {
        self.views.note_search();
        self.views.vectors.collect(&self.visible.vectors, answer)
    }

    /// Whether the GPU answers, and why; `None` where none is used.
    #[must_use]
    pub fn device(&self) -> Option<Verdict> {
        self.views.vectors.device()
    }

    /// The similarity of each of these passages, whose keys ascend; those that have no embedding are left out. Cost: 0.1 µs a passage.
    #[must_use]
    pub fn similarities(&self, embedding: &[f32], passages: &[u64]) -> Vec<Neighbor> {
        self.views.vectors.exact(&self.visible.vectors, embedding, passages.len(), Some(passages))
    }

    /// The pieces of these passages, in their order; see [`crate::embed::Embedder::run`]. Empty if there are none.
    pub fn runs(&self, passages: &[u64], found: impl FnMut(usize, &[u16])) {
        self.visible.vectors.pieces(passages, found);
    }

    /// The `limit` passages nearest in meaning among `passages`, whose keys ascend, by a scan of them all; best first, equal scores by
    /// ascending key.
    #[must_use]
    pub fn nearest_exact(&self, embedding: &[f32], limit: usize, passages: &[u64]) -> Vec<Neighbor> {
        self.views.vectors.exact(&self.visible.vectors, embedding, limit, Some(passages))
    }

    /// The passages whose document matches `filter`.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn matching(&self, filter: &Filter) -> Result<Arc<Passages>, LexicalError> {
        self.words().matching(filter).map_err(|error| self.views.lexical.failure(error))
    }

    /// The passages that contain a phrase.
    ///
    /// * `text`: the phrase.
    /// * `phrase`: finds it in the pieces of a passage; `None` if the model does not know the order of words: then all
    ///   words suffice.
    /// * `among`: passages to choose from.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn having(
        &self,
        text: &str,
        phrase: Option<&dyn Phrase>,
        among: Option<&Passages>,
    ) -> Result<Passages, LexicalError> {
        let admit = |keys: &[u64]| {
            let mut admitted = vec![true; keys.len()];
            if let Some(phrase) = phrase {
                self.runs(keys, |place, run| admitted[place] = phrase.is_in(run));
            }
            admitted
        };
        self.words().having(text, among, admit).map_err(|error| self.views.lexical.failure(error))
    }

    /// Names and types of the metadata that filters can ask for.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn fields(&self) -> Result<Vec<(String, &'static str)>, LexicalError> {
        self.views.lexical.fields()
    }

    /// The measured recall of the vector graph; `None` if there is no graph, or it was never checked.
    #[must_use]
    pub fn recall(&self) -> Option<Recall> {
        self.views.vectors.recall()
    }

    /// Passages not yet linked into the vector graph; 0 for a collection that needs none.
    #[must_use]
    pub fn unlinked(&self) -> usize {
        self.views.vectors.pending_graph()
    }
}
