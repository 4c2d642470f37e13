//! Text to vectors: the [`Embedder`] every model answers to, and the built-in static model.
//!
//! Invariants: an embedding is L2-normalised or all zeros (text without a known word); its length is the model's
//! [`ModelInfo::dimensions`]; the same text and model give the same vector on every run. Embeddings are computed before
//! a write is logged and stored with it, so that rebuilding an index never needs the model.

mod static_model;
mod wordpiece;

use std::sync::Arc;

use crate::base::Fault;

pub use static_model::StaticModel;
pub use wordpiece::{VocabularyError, WordPiece};

/// What a collection remembers of its model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Stable name, for example `static-minilm-256`. A change of the vectors is a change of the name.
    pub name: String,
    /// Components of an embedding.
    pub dimensions: usize,
    /// ISO 639-1 codes of the languages whose meaning it knows.
    pub languages: &'static [&'static str],
    /// Weight of the vector half in hybrid search for those languages, 0 to 1, as measured for this model.
    pub hybrid_weight: f32,
    /// The same for other languages.
    pub hybrid_weight_elsewhere: f32,
}

impl ModelInfo {
    /// Weight of the vector half for a collection written in the language of this code; empty for "not known".
    #[must_use]
    pub fn weight_for(&self, language: &str) -> f32 {
        let known = language.is_empty() || self.languages.contains(&language);
        if known { self.hybrid_weight } else { self.hybrid_weight_elsewhere }
    }
}

/// What a text is embedded for. Asymmetric models put different prefixes before queries and passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A question or search phrase.
    Query,
    /// A piece of a document.
    Passage,
}

/// A model that turns texts into vectors.
pub trait Embedder: Send + Sync {
    /// Name, dimensions and weight of the model.
    fn info(&self) -> &ModelInfo;

    /// Embeds each text, in order. Cost: see the model.
    ///
    /// # Errors
    /// [`EmbedError`] when the model cannot answer; no partial result.
    fn embed(&self, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// Why texts could not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The model's own files cannot be read as a model.
    #[error("model {model} cannot be used: {detail}")]
    Model {
        /// Name of the model.
        model: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl EmbedError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Model { .. } => Fault::Damage,
        }
    }
}

/// The models a node has, by name. Loading is lazy: the first embedding pays for it, not the start.
#[derive(Debug, Default)]
pub struct Models {
    built_in: std::sync::OnceLock<Arc<StaticModel>>,
}

/// Name of the model a collection gets when its creator names none.
pub const DEFAULT_MODEL: &str = static_model::NAME;

/// No name is that of a collection whose creation record is damaged: the default model is the best guess, and without any
/// every search by meaning would fail.
fn is_built_in(name: &str) -> bool {
    name.is_empty() || name == static_model::NAME
}

impl Models {
    /// The models that need no files: the built-in table.
    #[must_use]
    pub fn built_in() -> Self {
        Self::default()
    }

    /// The facts of a model without loading it, or `None` when there is no such model.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<ModelInfo> {
        is_built_in(name).then(static_model::info)
    }

    /// Whether the model answers without loading anything first.
    #[must_use]
    pub fn is_loaded(&self, name: &str) -> bool {
        is_built_in(name) && self.built_in.get().is_some()
    }

    /// The model, loaded on first use (a few milliseconds for the built-in one).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Embedder>> {
        is_built_in(name).then(|| -> Arc<dyn Embedder> {
            Arc::clone(self.built_in.get_or_init(|| Arc::new(StaticModel::built_in()))) as Arc<dyn Embedder>
        })
    }
}
