//! Searching: arguments to a question, an answer to text.

use std::sync::Arc;

use serde_json::Value;

use super::super::arguments::{self, DetailArgument, FusionArgument, ModeArgument};
use super::super::direct::Rendered;
use super::super::{Arguments, Link, ToolAnswer, ToolError, answers};
use super::inputs::{cursor, detail, filter};
use super::reading::Reading;
use super::shapes::search_result;
use crate::collection::PassageKey;
use crate::retrieval::{self, Asked, Fusion, Mode, SearchError, SearchRequest};

/// A search as its caller put it.
pub(super) struct Question {
    pub(super) request: SearchRequest,
    /// The filter in its own spelling, which the answer echoes.
    filter: Option<Value>,
}

/// What is known of a question without searching.
pub(super) enum Known {
    /// The same was asked before, and nothing changed since.
    Answer(Arc<Rendered>),
    /// It has to be searched.
    Nothing(Asked),
}

impl Question {
    pub(super) fn read(arguments: Arguments) -> Result<Self, ToolError> {
        let given: arguments::Search = arguments::read(arguments)?;
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
        let request = SearchRequest {
            query: given.query,
            collections: given.collections,
            mode: match given.mode {
                ModeArgument::Hybrid => Mode::Hybrid,
                ModeArgument::Dense => Mode::Dense,
                ModeArgument::Lexical => Mode::Lexical,
            },
            limit: given.limit,
            offset: cursor(given.cursor.as_deref())?,
            filter,
            tokens_max: given.max_tokens,
            min_score: given.min_score,
            detail: detail(given.detail),
            fusion,
        };
        Ok(Self { request, filter: given.filter })
    }
}

impl Reading {
    pub(super) fn known(&self, question: &Question) -> Result<Known, ToolError> {
        let asked = self.retrieval.ask(&question.request)?;
        Ok(match self.retrieval.remembered(&asked) {
            Some(found) => Known::Answer(self.rendered(&found, question)),
            None => Known::Nothing(asked),
        })
    }

    pub(super) fn search(&self, question: &Question, asked: &Asked) -> Result<Arc<Rendered>, ToolError> {
        let found = self.retrieval.answer(&question.request, asked)?;
        Ok(self.rendered(&found, question))
    }

    fn rendered(&self, found: &retrieval::SearchAnswer, question: &Question) -> Arc<Rendered> {
        // Filters that mean the same share an answer, and each echoes its own spelling.
        let spelling = question.filter.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(rendered) = self.rendered.get(&(found.id, spelling.clone())) {
            return rendered;
        }
        let rendered = Arc::new(self.render(found, question.request.mode, question.filter.clone()));
        self.rendered.insert((found.id, spelling), Arc::clone(&rendered));
        rendered
    }

    pub(super) fn find_similar(&self, given: arguments::FindSimilar) -> Result<ToolAnswer, ToolError> {
        let (place, document) = self.find(&given.id, None)?;
        let ordinal = place.passage.unwrap_or_default();
        let passage =
            self.library.passages().passage(PassageKey::new(document.lsn, ordinal)).map_err(SearchError::from)?;
        let collections = if given.collections.is_empty() { vec![place.collection] } else { given.collections };
        let request = SearchRequest {
            collections,
            limit: given.limit,
            filter: filter(given.filter.as_ref(), None, None)?,
            tokens_max: given.max_tokens,
            detail: detail(given.detail.unwrap_or(DetailArgument::Snippet)),
            ..SearchRequest::default()
        };
        let found = self.retrieval.find_similar(&passage, place.passage.is_none(), &request)?;
        Ok(self.render(&found, Mode::Dense, given.filter).to_answer())
    }

    fn render(&self, found: &retrieval::SearchAnswer, mode: Mode, filter: Option<Value>) -> Rendered {
        let node = self.node();
        let mut links = Vec::with_capacity(found.hits.len());
        let results = found
            .hits
            .iter()
            .map(|hit| {
                let result = search_result(hit, node);
                links.push(Link {
                    uri: result.uri.clone(),
                    name: result.id.clone(),
                    title: result.title.to_owned(),
                    priority: hit.scores.score.clamp(0.0, 1.0),
                    last_modified: result.updated_at.clone(),
                });
                result
            })
            .collect();
        let answer = answers::SearchAnswer {
            results,
            searched: answers::Searched {
                collections: found.searched.clone(),
                filter,
                mode: mode.as_str().to_owned(),
                mode_used: found.mode_used.as_str().to_owned(),
                mode_reason: found.mode_reason.clone(),
                generation: found.lsn.0,
            },
            truncated: found.truncated,
            next_cursor: found.next_offset.map(|offset| offset.to_string()),
        };
        Rendered::new(&answer, links)
    }
}
