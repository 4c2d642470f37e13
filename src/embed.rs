//! Text to vectors: the [`Embedder`] every model answers to, the set of [`Models`] of a node, and the built-in static model.
//!
//! Invariants: an embedding is L2-normalised or all zeros (text without a known word); its length is the model's
//! [`ModelInfo::dimensions`]; the same text and model give the same vector on every run. Embeddings are computed before
//! a write is logged and stored with it, so that rebuilding an index never needs the model. [`embed`] checks what a model returns
//! before anything else sees it.

mod error;
mod late;
mod models;
mod proximity;
mod static_model;
#[cfg(test)]
pub(crate) mod testing;
mod wordpiece;

use std::future::Future;
use std::pin::Pin;

pub use error::EmbedError;
pub use models::{DEFAULT_MODEL, Models};
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
    pub languages: Vec<String>,
    /// Weight of the vector half in hybrid search for those languages, 0 to 1, as measured for this model.
    pub hybrid_weight: f32,
    /// The same for other languages.
    pub hybrid_weight_elsewhere: f32,
}

impl ModelInfo {
    /// Whether it knows the meaning of a language, by its code; one that is not known counts as one that it knows.
    #[must_use]
    pub fn knows(&self, language: &str) -> bool {
        language.is_empty() || self.languages.iter().any(|known| known == language)
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

    /// Embeds each text, in order. Cost: see the model. Call [`embed`] instead, which checks the result.
    ///
    /// The future ends within the model's own time limit, and may be polled outside a runtime: a model that needs one spawns on a handle
    /// of its own. One that only computes does so in the first poll.
    ///
    /// # Errors
    /// [`EmbedError`] when the model cannot answer; no partial result.
    fn embed<'a>(&'a self, texts: &'a [&'a str], purpose: Purpose) -> Embedding<'a>;

    /// Whether the embedding of a text says something: the model knows a word of it.
    fn has_known_word(&self, text: &str) -> bool {
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
    fn proximity(&self, words: &[&str]) -> Option<Box<dyn Proximity>> {
        let _ = words;
        None
    }
}

/// How near to each other the words of a query stand.
pub trait Proximity {
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

/// The vectors of some texts, in their order, while they are being made.
pub type Embedding<'a> = Pin<Box<dyn Future<Output = Result<Vec<Vec<f32>>, EmbedError>> + Send + 'a>>;

/// Embeds each text, in order, and checks that the model returned a vector of its length, of finite numbers, for each.
///
/// # Errors
/// As [`Embedder::embed`], and [`EmbedError::BadAnswer`] when the check fails.
pub async fn embed(model: &dyn Embedder, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
    let vectors = model.embed(texts, purpose).await?;
    let info = model.info();
    let bad = |detail: String| EmbedError::BadAnswer { model: info.name.clone(), detail };
    if vectors.len() != texts.len() {
        return Err(bad(format!("{} vectors for {} texts", vectors.len(), texts.len())));
    }
    if let Some(vector) = vectors.iter().find(|vector| vector.len() != info.dimensions) {
        return Err(bad(format!("a vector of {} numbers instead of {}", vector.len(), info.dimensions)));
    }
    if vectors.iter().flatten().any(|value| !value.is_finite()) {
        return Err(bad("a vector with a number that is not finite".to_owned()));
    }
    Ok(vectors)
}

/// Embeds a question; see [`embed`].
///
/// # Errors
/// As [`embed`].
pub async fn embed_one(model: &dyn Embedder, question: &str) -> Result<Vec<f32>, EmbedError> {
    Ok(embed(model, &[question], Purpose::Query).await?.pop().unwrap_or_default())
}
