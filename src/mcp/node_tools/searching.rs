//! Searching: arguments to a question, an answer to text.

use std::sync::Arc;

use serde_json::Value;

use super::super::arguments::{self, FusionArgument, Include, IncludeArgument, ModeArgument};
use super::super::direct::{LinkBlock, Rendered};
use super::super::{Link, ToolAnswer, ToolError, answers};
use super::NodeTools;
use super::call::ReadContext;
use super::inputs::{cursor, detail, filter};
use super::shapes::{reference_to, search_result, title_of};
use crate::base::{Digest, NodeId};
use crate::collection::PassageKey;
use crate::retrieval::{
    self, Fusion, Hit, Mode, PreparedSearch, SearchError, SearchRequest, Surroundings, price, price_of_json,
};

/// Tokens of `"text":""` and a comma; of the names around the results with `truncated` and a cursor; of the names in `searched`.
const TOKENS_OF_MEMBER: usize = 4;
const TOKENS_OF_ENVELOPE: usize = 26;
const TOKENS_OF_SEARCHED: usize = 40;

/// A search as its caller put it.
pub(super) struct SearchCall {
    pub(super) request: SearchRequest,
    view: View,
}

/// What of an answer is shown.
struct View {
    include: Include,
    mode: Mode,
    /// The filter in its own spelling, which the answer echoes where it says what was searched.
    filter: Option<Value>,
}

/// Which answer a text is of: its id, and a digest of the filter in the spelling that it echoes.
pub(super) type RenderedKey = (u64, Option<Digest>);

/// About the bytes of an answer as text, twice.
pub(super) const RENDERED_MEAN: u64 = 8 << 10;

/// Weighs texts of answers in bytes.
#[derive(Clone)]
pub(super) struct RenderedWeighter;

impl quick_cache::Weighter<RenderedKey, Arc<Rendered>> for RenderedWeighter {
    fn weight(&self, _: &RenderedKey, rendered: &Arc<Rendered>) -> u64 {
        rendered.bytes() + 128
    }
}

impl SearchCall {
    pub(super) fn of(given: arguments::Search) -> Result<Self, ToolError> {
        let filter = filter(given.filter.as_ref(), given.after.as_deref(), given.before.as_deref())?;
        let fusion = match (given.fusion, given.dense_weight) {
            (None | Some(FusionArgument::Convex), Some(weight)) if (0.0..=1.0).contains(&weight) => {
                Some(Fusion::Convex { dense_weight: weight })
            }
            (_, Some(weight)) if !(0.0..=1.0).contains(&weight) => {
                return Err(ToolError::bad_argument(format!("dense_weight is {weight}, expected 0 to 1")));
            }
            (Some(FusionArgument::Rrf), _) => Some(Fusion::ReciprocalRank { k: 60 }),
            _ => None,
        };
        if let Some(least) = given.min_score.filter(|least| !(0.0..=1.0).contains(least)) {
            return Err(ToolError::bad_argument(format!("min_score is {least}, expected a number from 0 to 1")));
        }
        let include = Include::of(&given.include);
        let request = SearchRequest {
            query: given.query,
            collections: given.collections,
            mode: match given.mode {
                ModeArgument::Hybrid => Mode::Hybrid,
                ModeArgument::Dense => Mode::Dense,
                ModeArgument::Lexical => Mode::Lexical,
            },
            limit: given.limit,
            cursor: cursor(given.cursor.as_deref())?,
            filter,
            tokens_max: given.max_tokens,
            min_score: given.min_score,
            detail: detail(given.detail),
            fusion,
            shown: include.bits(),
        };
        let view = View { include, mode: request.mode, filter: given.filter };
        Ok(Self { request, view })
    }
}

impl NodeTools {
    /// An answer as text, rendered once for each spelling of its filter.
    pub(super) fn rendered(&self, found: &retrieval::SearchAnswer, question: &SearchCall) -> Arc<Rendered> {
        let view = &question.view;
        // Filters that mean the same share an answer, and each echoes its own spelling.
        let spelling = view.filter.as_ref().map(|filter| Digest::of(filter.to_string().as_bytes()));
        let key = (found.id, spelling);
        if let Some(rendered) = self.rendered.get(&key) {
            return rendered;
        }
        let rendered = Arc::new(render(self.library.log().node(), found, view));
        self.rendered.insert(key, Arc::clone(&rendered));
        rendered
    }
}

impl ReadContext<'_> {
    pub(super) fn search(&self, question: &SearchCall, asked: &PreparedSearch<'_>) -> Result<Arc<Rendered>, ToolError> {
        let found = self.with_surroundings(&question.view, |around| {
            self.tools.retrieval.answer(&question.request, asked, around)
        })?;
        Ok(self.tools.rendered(&found, question))
    }

    pub(super) fn find_similar(&self, given: arguments::FindSimilar) -> Result<ToolAnswer, ToolError> {
        let (place, document) = self.find(&given.id, None)?;
        let ordinal = place.passage.unwrap_or_default();
        let passage =
            self.access.passages().passage(PassageKey::new(document.lsn, ordinal)).map_err(SearchError::from)?;
        let collections = if given.collections.is_empty() { vec![place.collection] } else { given.collections };
        let include = Include::of(&given.include);
        let request = SearchRequest {
            collections,
            limit: given.limit,
            cursor: cursor(given.cursor.as_deref())?,
            filter: filter(given.filter.as_ref(), None, None)?,
            tokens_max: given.max_tokens,
            detail: detail(given.detail),
            shown: include.bits(),
            ..SearchRequest::default()
        };
        let view = View { include, mode: Mode::Dense, filter: given.filter };
        let found = self.with_surroundings(&view, |around| {
            self.tools.retrieval.find_similar(self.access, &passage, place.passage.is_none(), &request, around)
        })?;
        Ok(render(self.node(), &found, &view).to_answer())
    }

    /// Runs a search with the cost of its answer besides the texts.
    fn with_surroundings<T>(&self, view: &View, search: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let node = self.node();
        let around_hit = |hit: &Hit| {
            let mut result = search_result(hit, view.include, node);
            result.text = "";
            let around = serde_json::to_string(&result).expect("plain data serialises");
            // The text's own member, and the comma between results.
            let mut tokens = price_of_json(&around) + TOKENS_OF_MEMBER;
            if view.include.has(IncludeArgument::Links) {
                let block = serde_json::to_string(&LinkBlock::new(&link(hit, node))).expect("plain data serialises");
                tokens += price_of_json(&block);
            }
            tokens
        };
        let envelope = |names: &[String], reason: Option<&str>| {
            let mut tokens = TOKENS_OF_ENVELOPE;
            if reason.is_some() || view.include.has(IncludeArgument::Searched) {
                let names = names.iter().map(|name| price(name) + TOKENS_OF_MEMBER).sum::<usize>();
                let filter = view.filter.as_ref().map_or(0, |filter| price_of_json(&filter.to_string()));
                tokens += TOKENS_OF_SEARCHED + names + filter + reason.map_or(0, price);
            }
            tokens
        };
        let copies = if view.include.has(IncludeArgument::Structured) { 2 } else { 1 };
        search(&Surroundings { envelope: &envelope, hit: &around_hit, copies })
    }
}

fn render(node: NodeId, found: &retrieval::SearchAnswer, view: &View) -> Rendered {
    let results: Vec<_> = found.hits.iter().map(|hit| search_result(hit, view.include, node)).collect();
    let links = match view.include.has(IncludeArgument::Links) {
        true => found.hits.iter().map(|hit| link(hit, node)).collect(),
        false => Vec::new(),
    };
    // An answer that is less than what was asked for says so, asked or not.
    let says = view.include.has(IncludeArgument::Searched) || results.is_empty() || found.mode_reason.is_some();
    let searched = says.then(|| answers::Searched {
        collections: found.searched.clone(),
        filter: view.filter.clone(),
        mode: view.mode.as_str(),
        mode_used: found.mode_used.as_str(),
        mode_reason: found.mode_reason.clone(),
        generation: found.lsn.0,
    });
    let answer = answers::SearchAnswer {
        weak: found.weak,
        results,
        searched,
        truncated: found.truncated,
        next_cursor: found.next.map(|cursor| cursor.to_string()),
    };
    Rendered::new(&answer, links, view.include.has(IncludeArgument::Structured))
}

/// A passage as a resource.
fn link(hit: &Hit, node: NodeId) -> Link {
    let place = reference_to(hit);
    Link { uri: place.uri(node), name: place.to_string(), title: title_of(hit.path()) }
}
