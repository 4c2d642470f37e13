//! Whether a passage answers at all: an absolute measure, from 0 to 1, in addition to the scores, which only compare
//! candidates of one search.
//!
//! It has two inputs: the share of the query's words in the passage, each weighted by its rarity (`BM25 / weights of
//! all words`), and the similarity of its meaning. A logistic curve over both gives the likelihood that such a passage
//! answers; [`is_weak`] draws the line at its middle.
//!
//! The curves were fitted for the built-in model on the open collections: their queries, against 200 queries whose
//! answer is in none of their documents. The figures are in `docs/searching.md`.

use super::{Candidate, Mode, Ranked};

/// Passages of which one at least has to fit.
const LOOKED_AT: usize = 3;
/// Below this a passage does not fit well.
const LINE: f32 = 0.5;

/// A logistic curve.
struct Curve {
    words: f32,
    meaning: f32,
    threshold: f32,
}

impl Curve {
    /// * `is_known`: whether the model knows the language: elsewhere meaning says less, and lies higher.
    const fn of(mode: Mode, is_known: bool) -> Self {
        let (words, meaning, threshold) = match (mode, is_known) {
            (Mode::Hybrid, true) => (7.15, 13.4, 8.5),
            (Mode::Hybrid, false) => (12.25, 18.25, 19.5),
            (Mode::Lexical, true) => (11.8, 0.0, 6.0),
            (Mode::Lexical, false) => (5.4, 0.0, 1.3),
            (Mode::Dense, true) => (0.0, 19.5, 7.0),
            (Mode::Dense, false) => (0.0, 19.5, 12.0),
        };
        Self { words, meaning, threshold }
    }
}

/// How likely a passage answers, 0 to 1.
///
/// * `total`: what a passage that has all words of the question would score.
/// * `is_known`: whether the model knows the language of its collection.
pub(super) fn of(scores: &Candidate, total: f32, mode: Mode, is_known: bool) -> f32 {
    let curve = Curve::of(mode, is_known);
    let share = if total > 0.0 { scores.lexical.unwrap_or_default() / total } else { 0.0 };
    let sum = curve.words * share + curve.meaning * scores.dense.unwrap_or_default() - curve.threshold;
    1.0 / (1.0 + (-sum).exp())
}

/// Whether nothing that was found fits well. False where nothing was found: that says enough.
pub(super) fn is_weak(ranked: &[Ranked]) -> bool {
    !ranked.is_empty() && ranked.iter().take(LOOKED_AT).all(|ranked| ranked.scores.relevance < LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relevance(lexical: Option<f32>, dense: Option<f32>, mode: Mode) -> f32 {
        of(&Candidate { lexical, dense, ..Candidate::default() }, 10.0, mode, true)
    }

    #[test]
    fn more_words_and_a_nearer_meaning_are_more() {
        let far = relevance(None, Some(0.2), Mode::Hybrid);
        let near = relevance(None, Some(0.7), Mode::Hybrid);
        let both = relevance(Some(9.0), Some(0.7), Mode::Hybrid);
        assert!(far < 0.01 && far < near && near < both && both > 0.95, "{far} {near} {both}");
        assert!(relevance(Some(9.0), None, Mode::Lexical) > 0.9);
        assert!(relevance(None, None, Mode::Lexical) < 0.1);
    }

    #[test]
    fn one_of_the_first_is_enough() {
        let ranked = |relevance| Ranked {
            key: crate::collection::PassageKey(1),
            collection: 0,
            scores: Candidate { relevance, ..Candidate::default() },
        };
        assert!(!is_weak(&[]));
        assert!(is_weak(&[ranked(0.1), ranked(0.4)]));
        assert!(!is_weak(&[ranked(0.1), ranked(0.2), ranked(0.9)]));
        assert!(is_weak(&[ranked(0.1), ranked(0.2), ranked(0.3), ranked(0.9)]));
    }
}
