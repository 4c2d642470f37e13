//! The order of results: from ranked passages to results, each once.
//!
//! A ranking to some depth is a *tier*; the additional results of a ranking to twice the depth are the next one, and
//! follow all of it. The passages of a document beyond the first few come after everything else of the first tiers, and
//! of each later one; neighbours become one result, and copies in other documents are folded into the better one.
//!
//! Invariant: the order depends on the results and on the size of the first page, but not on how deep a page looks. So
//! an offset means the same result for every page.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Ranked;
use super::alike::Signature;
use crate::base::{Lsn, with_causes};
use crate::collection::{Access, DocumentRecord, Passage, PassageKey, ReadError, Searcher};
use crate::index::vector::inner_product;

/// Most bytes of passages that become one result.
const MERGED_BYTES_MAX: usize = 2_400;
/// Most copies that a result names.
const COPIES_MAX: usize = 3;
/// Passages that say the same have embeddings whose cosine is at least this; others are not compared word by word.
const NEAR_MIN: f32 = 0.85;

/// A result before its text is fitted.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) ranked: Ranked,
    pub(super) passage: Passage,
    /// The passages in it, by their positions in the document; the best one is among them.
    pub(super) run: Range<usize>,
    /// Ids within the node of passages of other documents that say the same, the first few.
    pub(super) also_in: Vec<String>,
    /// How many more there were.
    pub(super) more_copies: usize,
}

/// A passage that others are compared with.
struct Compared {
    passage: Passage,
    /// Worked out once it is needed.
    signature: OnceCell<Option<Signature>>,
}

impl Compared {
    fn new(passage: Passage) -> Self {
        Self { passage, signature: OnceCell::new() }
    }

    fn signature(&self) -> Option<&Signature> {
        let body = &self.passage.body;
        self.signature.get_or_init(|| Signature::of(&body.text, &body.headings)).as_ref()
    }

    /// Whether both say the same.
    fn is_like(&self, other: &Self) -> bool {
        inner_product(&self.passage.body.embedding, &other.passage.body.embedding) >= NEAR_MIN
            && matches!((self.signature(), other.signature()), (Some(own), Some(other)) if own.is_like(other))
    }
}

/// What is left out of an order, and how many passages of a document are grouped.
pub(super) struct Rules<'a> {
    /// Passages of one document before those of the others.
    pub(super) per_document: usize,
    pub(super) min_score: Option<f32>,
    /// Whether copies are folded; not if copies are what is searched for.
    pub(super) folds: bool,
    /// A document that is not to appear, in whichever version.
    pub(super) without: Option<&'a DocumentRecord>,
}

/// Results in order, as far as known.
pub(super) struct Order<'a> {
    rules: Rules<'a>,
    searchers: &'a [Searcher],
    access: Access<'a>,
    pub(super) placed: Vec<Placed>,
    /// Passages that were ranked in an earlier tier.
    ranked: FxHashSet<PassageKey>,
    /// Passages that are part of a neighbour's result.
    merged: FxHashSet<PassageKey>,
    /// Copies of one passage share its record in the log.
    records: FxHashMap<Lsn, usize>,
    /// The passages of the results, with the place of each.
    compared: Vec<(Compared, usize)>,
    /// Results of each document.
    of_document: FxHashMap<Lsn, usize>,
    /// Of a document that was found in two versions the better one is shown, as if the other had not been found.
    versions: Option<HashMap<(usize, String), Lsn>>,
    /// How many passages of each document were near the top.
    near_top: FxHashMap<Lsn, usize>,
    unreadable: Option<(usize, ReadError)>,
    /// Passages near the top of the tiers so far: those that may join a neighbour's result.
    close: FxHashSet<PassageKey>,
    /// Passages beyond the first few of their document, in their order.
    behind: Vec<Ranked>,
    /// Documents that were met.
    documents: FxHashSet<Lsn>,
    /// Whether a score below the least one was met: what follows scores less.
    is_ended: bool,
}

impl<'a> Order<'a> {
    pub(super) fn new(rules: Rules<'a>, searchers: &'a [Searcher], access: Access<'a>) -> Self {
        Self {
            rules,
            searchers,
            access,
            placed: Vec::new(),
            ranked: FxHashSet::default(),
            merged: FxHashSet::default(),
            records: FxHashMap::default(),
            compared: Vec::new(),
            of_document: FxHashMap::default(),
            versions: searchers.iter().any(Searcher::is_torn).then(HashMap::new),
            near_top: FxHashMap::default(),
            unreadable: None,
            close: FxHashSet::default(),
            behind: Vec::new(),
            documents: FxHashSet::default(),
            is_ended: false,
        }
    }

    /// Takes a tier, until there are `wanted` results. Whether a deeper one may add to it.
    ///
    /// * `ranked`: a ranking of `depth` candidates of each half, best first.
    pub(super) fn add(&mut self, ranked: &[Ranked], depth: usize, wanted: usize) -> bool {
        let is_first = self.ranked.is_empty();
        let fresh: Vec<Ranked> = ranked.iter().filter(|ranked| self.ranked.insert(ranked.key)).copied().collect();
        // Passages that are merely somewhere in a long list do not make a result longer.
        for ranked in fresh.iter().take(depth / 2) {
            self.close.insert(ranked.key);
            if is_first {
                *self.near_top.entry(ranked.key.document()).or_default() += 1;
            }
        }
        self.documents.extend(fresh.iter().map(|ranked| ranked.key.document()));
        for ranked in &fresh {
            if self.placed.len() >= wanted {
                return false;
            }
            if self.rules.min_score.is_some_and(|least| ranked.scores.score < least) {
                self.is_ended = true;
                break;
            }
            let of_document = self.of_document.get(&ranked.key.document()).copied().unwrap_or_default();
            if of_document >= self.rules.per_document {
                self.behind.push(*ranked);
            } else {
                self.place(*ranked);
            }
        }
        // A half that had less than it was asked for has no more.
        !self.is_ended && ranked.len() >= depth && !fresh.is_empty()
    }

    /// Takes what stood back, until there are `wanted` results.
    pub(super) fn add_behind(&mut self, wanted: usize) {
        for ranked in std::mem::take(&mut self.behind) {
            if self.placed.len() >= wanted {
                return;
            }
            self.place(ranked);
        }
    }

    /// How many documents were met, each of them shown or not.
    pub(super) fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Passages of a document near the top that are not among the results.
    pub(super) fn more_of(&self, document: Lsn) -> usize {
        let shown = self.placed.iter().filter(|placed| placed.passage.document.lsn == document);
        self.near_top
            .get(&document)
            .copied()
            .unwrap_or_default()
            .saturating_sub(shown.map(|placed| placed.run.len()).sum())
    }

    /// What could not be read and is left out, in words.
    ///
    /// # Errors
    /// When nothing of what was found can be read.
    pub(super) fn unreadable(&mut self) -> Result<Option<String>, ReadError> {
        let Some((count, error)) = self.unreadable.take() else { return Ok(None) };
        if self.placed.is_empty() {
            return Err(error);
        }
        let passages = if count == 1 { "1 passage".to_owned() } else { format!("{count} passages") };
        let cause = with_causes(&error);
        Ok(Some(format!("{passages} left out of the answer: {cause}")))
    }

    fn place(&mut self, ranked: Ranked) {
        if self.merged.contains(&ranked.key) {
            return;
        }
        let passage = match self.access.passages().passage(ranked.key) {
            Ok(passage) => passage,
            // It was replaced or deleted after it was found.
            Err(ReadError::Gone { .. }) => return,
            Err(error) => {
                tracing::error!(
                    error = %with_causes(&error), key = %ranked.key,
                    "a passage cannot be read and is left out of an answer"
                );
                self.unreadable.get_or_insert((0, error)).0 += 1;
                return;
            }
        };
        let document = &passage.document;
        let is_unwanted = |own: &DocumentRecord| own.id == document.id && own.collection == document.collection;
        if !self.access.library().is_current(document) || self.rules.without.is_some_and(is_unwanted) {
            return;
        }
        if let Some(versions) = &mut self.versions
            && *versions.entry((ranked.collection, document.id.clone())).or_insert(document.lsn) != document.lsn
        {
            return;
        }
        let compared = Compared::new(passage.clone());
        if self.rules.folds
            && let Some(place) = self.same_as(&compared)
        {
            self.fold(place, ranked.collection, &passage);
            return;
        }
        let place = self.placed.len();
        self.records.insert(document.chunks[passage.ordinal].lsn, place);
        self.compared.push((compared, place));
        let run = self.run(&passage, place);
        *self.of_document.entry(document.lsn).or_default() += 1;
        self.placed.push(Placed { ranked, passage, run, also_in: Vec::new(), more_copies: 0 });
    }

    /// The result that says what a passage says.
    fn same_as(&self, compared: &Compared) -> Option<usize> {
        let passage = &compared.passage;
        let document = &passage.document;
        if let Some(place) = self.records.get(&document.chunks[passage.ordinal].lsn) {
            return Some(*place);
        }
        let same = self.compared.iter().find(|(other, place)| {
            // Records of one file, and sections of one document, often differ in few words.
            let shown = &self.placed[*place].passage.document;
            let is_one_file = document.source.is_some() && document.source == shown.source;
            document.lsn != shown.lsn
                && !(is_one_file && document.collection == shown.collection)
                && compared.is_like(other)
        });
        same.map(|(_, place)| *place)
    }

    fn fold(&mut self, place: usize, collection: usize, passage: &Passage) {
        let collection = self.searchers.get(collection).map(|searcher| searcher.collection().name.as_str());
        let placed = &mut self.placed[place];
        if placed.passage.document.lsn == passage.document.lsn {
            return;
        }
        if placed.also_in.len() < COPIES_MAX {
            let id = format!("{}/{}#{}", collection.unwrap_or_default(), passage.document.id, passage.ordinal);
            placed.also_in.push(id);
        } else {
            placed.more_copies += 1;
        }
    }

    /// The passages of the same section around one that are close to the top too, as many as stay readable together.
    fn run(&mut self, passage: &Passage, place: usize) -> Range<usize> {
        let document = &passage.document;
        let mut run = passage.ordinal..passage.ordinal + 1;
        let mut bytes = passage.body.text.len();
        for is_forward in [true, false] {
            loop {
                let next = if is_forward { Some(run.end) } else { run.start.checked_sub(1) };
                let Some(next) = next.filter(|next| *next < document.chunks.len()) else { break };
                let key = PassageKey::new(document.lsn, next);
                if !self.close.contains(&key) || self.merged.contains(&key) {
                    break;
                }
                // One that cannot be read is met, and counted, on its own.
                let Ok(neighbor) = self.access.passages().passage(key) else { break };
                let is_placed = self.records.contains_key(&document.chunks[next].lsn);
                bytes += neighbor.body.text.len();
                if is_placed || neighbor.body.headings != passage.body.headings || bytes > MERGED_BYTES_MAX {
                    break;
                }
                self.merged.insert(key);
                self.records.insert(document.chunks[next].lsn, place);
                self.compared.push((Compared::new(neighbor), place));
                if is_forward {
                    run.end = next + 1;
                } else {
                    run.start = next;
                }
            }
        }
        run
    }
}
