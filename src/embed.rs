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

/// The facts about its model that a collection stores.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Stable name, for example `static-minilm-256`. A model with other vectors has another name.
    pub name: String,
    /// Components of an embedding.
    pub dimensions: usize,
    /// ISO 639-1 codes of the languages that it understands.
    pub languages: Vec<String>,
    /// Weight of the vector half in hybrid search for those languages, 0 to 1, as measured for this model.
    pub hybrid_weight: f32,
    /// The same for other languages.
    pub hybrid_weight_elsewhere: f32,
}

impl ModelInfo {
    /// Whether it understands a language, given by its code; an unknown language counts as understood.
    #[must_use]
    pub fn knows(&self, language: &str) -> bool {
        language.is_empty() || self.languages.iter().any(|known| known == language)
    }

    /// Weight of the vector half for a collection in the language of this code; empty for "unknown".
    #[must_use]
    pub fn weight_for(&self, language: &str) -> f32 {
        if self.knows(language) { self.hybrid_weight } else { self.hybrid_weight_elsewhere }
    }
}

/// The purpose of an embedding. Asymmetric models use different prefixes for queries and passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A query or search phrase.
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
    /// The future ends within the model's own time limit, and may be polled outside a runtime: a model that needs a
    /// runtime spawns on its own handle. A model that only computes does so in the first poll.
    ///
    /// # Errors
    /// [`EmbedError`] when the model cannot answer; there is no partial result.
    fn embed<'a>(&'a self, texts: &'a [&'a str], purpose: Purpose) -> Embedding<'a>;

    /// Whether the embedding of a text is meaningful: the model knows at least one of its words.
    fn has_known_word(&self, text: &str) -> bool {
        let _ = text;
        true
    }

    /// The data for [`Embedder::windows`] of a passage, to be stored with its embedding. Empty if the model only uses
    /// whole passages. Cost: that of embedding it.
    ///
    /// * `context`: title and headings, which are part of every window.
    /// * `language`: ISO 639-1 code; empty for "unknown".
    fn run(&self, context: &str, text: &str, language: &str) -> Vec<u16> {
        let _ = (context, text, language);
        Vec::new()
    }

    /// Scores passages in windows for the query of this embedding; `None` if the model does not support it.
    fn windows<'a>(&'a self, question: &'a [f32]) -> Option<Box<dyn Windows + 'a>> {
        let _ = question;
        None
    }

    /// Finds a phrase in passages; `None` if the model does not know the order of words.
    fn phrase<'a>(&'a self, text: &str) -> Option<Box<dyn Phrase + 'a>> {
        let _ = text;
        None
    }

    /// Measures how close these query words are to each other; `None` if the model does not know, or there are fewer
    /// than two.
    fn proximity(&self, words: &[&str]) -> Option<Box<dyn Proximity>> {
        let _ = words;
        None
    }
}

/// How close the words of a query are to each other.
pub trait Proximity {
    /// 0 if no two neighbouring words of the query are close to each other in a passage, 1 if all follow each other.
    ///
    /// * `run`: of [`Embedder::run`].
    fn of(&self, run: &[u16]) -> f32;
}

/// A phrase to find in passages.
pub trait Phrase {
    /// Whether the words of the phrase follow each other there, regardless of punctuation between them.
    ///
    /// * `run`: of [`Embedder::run`].
    fn is_in(&self, run: &[u16]) -> bool;
}

/// Scores of passages by their best window, for one query.
pub trait Windows {
    /// The similarity of a passage to the query, about -1 to 1: as a whole, combined with its best window in context.
    ///
    /// * `whole`: the cosine of its embedding; it is the result if the passage has no windows.
    /// * `run`: of [`Embedder::run`].
    fn similarity(&mut self, whole: f32, run: &[u16]) -> f32;
}

/// The future vectors of some texts, in order.
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

/// Embeds a query; see [`embed`].
///
/// # Errors
/// As [`embed`].
pub async fn embed_one(model: &dyn Embedder, question: &str) -> Result<Vec<f32>, EmbedError> {
    Ok(embed(model, &[question], Purpose::Query).await?.pop().unwrap_or_default())
}
