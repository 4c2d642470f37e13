//! Text to vectors: the [`Embedder`] every model answers to, and the built-in static model.
//!
//! Invariants: an embedding is L2-normalised or all zeros (text without a known word); its length is the model's
//! [`ModelInfo::dimensions`]; the same text and model give the same vector on every run. Embeddings are computed before
//! a write is logged and stored with it, so that rebuilding an index never needs the model.

mod late;
mod near;
mod static_model;
mod wordpiece;

use std::sync::Arc;

use crate::base::Fault;

pub use static_model::StaticModel;
pub use wordpiece::{PieceKind, VocabularyError, WordPiece};

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
    /// Whether it knows the meaning of a language, by its code; one that is not known counts as one that it knows.
    #[must_use]
    pub fn knows(&self, language: &str) -> bool {
        language.is_empty() || self.languages.contains(&language)
    }

    /// Weight of the vector half for a collection written in the language of this code; empty for "not known".
    #[must_use]
    pub fn weight_for(&self, language: &str) -> f32 {
        if self.knows(language) { self.hybrid_weight } else { self.hybrid_weight_elsewhere }
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

    /// Whether the embedding of a text says something: the model knows a word of it.
    fn reads(&self, text: &str) -> bool {
        let _ = text;
        true
    }

    /// What [`Embedder::windows`] asks of a passage, to be kept beside its embedding. Empty where the model looks at passages as a
    /// whole only. Cost: that of embedding it.
    ///
    /// * `context`: title and headings, which every window is seen in the light of.
    /// * `language`: ISO 639-1 code; empty for "not known".
    fn run(&self, context: &str, text: &str, language: &str) -> Vec<u16> {
        let _ = (context, text, language);
        Vec::new()
    }

    /// Looks at passages in windows for the question of this embedding; `None` where the model does not.
    fn windows<'a>(&'a self, question: &'a [f32]) -> Option<Box<dyn Windows + 'a>> {
        let _ = question;
        None
    }

    /// Looks for a phrase in passages; `None` where the model does not know the order of words.
    fn phrase<'a>(&'a self, text: &str) -> Option<Box<dyn Phrase + 'a>> {
        let _ = text;
        None
    }

    /// Looks how near these words of a query stand to each other; `None` where the model does not know, or there are fewer than two.
    fn nearness(&self, words: &[&str]) -> Option<Box<dyn Nearness>> {
        let _ = words;
        None
    }
}

/// How near to each other the words of a query stand.
pub trait Nearness {
    /// 0 where no two neighbouring words of the query stand near each other in a passage, 1 where all follow each other.
    ///
    /// * `run`: of [`Embedder::run`].
    fn of(&self, run: &[u16]) -> f32;
}

/// A phrase that a passage may have.
pub trait Phrase {
    /// Whether the words of the phrase follow each other there, whatever punctuation lies between them.
    ///
    /// * `run`: of [`Embedder::run`].
    fn is_in(&self, run: &[u16]) -> bool;
}

/// Scores of passages by their best window, for one question.
pub trait Windows {
    /// How near a passage is to the question, about -1 to 1: as a whole, and by the window that comes nearest, with its context.
    ///
    /// * `whole`: the cosine of its embedding; it is the answer where the passage has no windows.
    /// * `run`: of [`Embedder::run`].
    fn similarity(&mut self, whole: f32, run: &[u16]) -> f32;
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
