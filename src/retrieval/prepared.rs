//! A question on its way: its views, and what was computed for it before it is answered.
//!
//! Invariant: while a model or a device is waited for, no compute permit is held.

use std::sync::Arc;

use super::{Config, Filter, Mode};
use crate::base::Digest;
use crate::collection::{Access, Searcher};
use crate::embed::EmbedError;
use crate::index::vector::{DeviceAnswer, DeviceQuery};

/// A prepared search: its views, and the cache key of its answer.
pub struct PreparedSearch<'a> {
    pub(super) access: Access<'a>,
    /// The caller's, within what the call reaches.
    pub(super) filter: Option<Filter>,
    pub(super) searchers: Vec<Searcher>,
    /// Why collections that were asked for are not among them.
    pub(super) left_out: Vec<String>,
    /// `None` where an answer may not be remembered.
    pub(super) key: Option<Digest>,
    /// The defaults that the key is for.
    pub(super) defaults: Config,
    pub(super) precomputed: Precomputed,
}

/// Results computed before the answer.
#[derive(Default)]
pub(super) struct Precomputed {
    pub(super) embeddings: Embeddings,
    /// The GPU's results in each collection; empty if it was not used.
    pub(super) found: Vec<Option<DeviceAnswer>>,
}

/// A question's embedding by each model that is asked, or why that model gave none. They are few: a list.
#[derive(Default)]
pub(super) struct Embeddings(pub(super) Vec<(String, Embedded)>);

pub(super) type Embedded = Result<Arc<[f32]>, EmbedError>;

impl Embeddings {
    /// The embedding by a model; `None` where it was not asked.
    pub(super) fn of(&self, model: &str) -> Option<Result<&Arc<[f32]>, &EmbedError>> {
        self.0.iter().find(|(name, _)| name == model).map(|(_, made)| made.as_ref())
    }
}

/// Queries that were sent to the GPU: waiting for them needs no processor.
pub struct DeviceQueries {
    pub(super) questions: Vec<Option<DeviceQuery>>,
}

impl DeviceQueries {
    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.iter().all(Option::is_none)
    }
}

impl PreparedSearch<'_> {
    /// Whether the GPU may be asked first.
    #[must_use]
    pub fn asks_device(&self, mode: Mode) -> bool {
        mode != Mode::Lexical && self.searchers.iter().any(Searcher::asks_device)
    }

    /// Takes over what the GPU found.
    pub async fn with(&mut self, prepared: DeviceQueries) {
        let DeviceQueries { questions } = prepared;
        let mut found = Vec::with_capacity(questions.len());
        // They have been asked one and all; none waits longer for those before it.
        for question in questions {
            found.push(match question {
                Some(question) => question.answer().await,
                None => None,
            });
        }
        self.precomputed.found = found;
    }
}
