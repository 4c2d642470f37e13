//! Fusing two ranked lists into one.

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::collection::PassageKey;

/// How the halves are fused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// `score = dense_weight · norm(dense) + (1 − dense_weight) · norm(lexical)`, each half min-max normalised over its
    /// candidates. Source: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023.
    Convex {
        /// Weight of the vector half, 0 to 1.
        dense_weight: f32,
    },
    /// `score = Σ 1 / (k + rank)`. Source: Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion", SIGIR 2009.
    ReciprocalRank {
        /// Rank offset; 60 in the source.
        k: u32,
    },
}

/// The scores of one passage.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Candidate {
    /// The score for ranking, 0 to 1.
    pub score: f32,
    /// Cosine similarity to the query, when the vector half found it.
    pub dense: Option<f32>,
    /// BM25, when the lexical half found it.
    pub lexical: Option<f32>,
    /// How likely it is that the passage answers, 0 to 1; comparable between searches.
    pub relevance: f32,
}

/// Fuses the lists of both halves.
///
/// * `lexical`, `dense`: `(key, score)`, best first, keys distinct within a list; lengths may differ.
/// * `weight`: of the vector half for a passage, where `fusion` is none: what is best for its model and its language.
/// * Returns every key of either list, best first; of equal scores the better by words first, then by ascending key: a word
///   that one passage has says more than a meaning that many share. Never fails.
#[must_use]
pub fn fuse(
    lexical: &[(PassageKey, f32)],
    dense: &[(PassageKey, f32)],
    fusion: Option<Fusion>,
    weight: impl Fn(PassageKey) -> f32,
) -> Vec<(PassageKey, Candidate)> {
    let weight = |key| match fusion {
        Some(Fusion::Convex { dense_weight }) => dense_weight,
        Some(Fusion::ReciprocalRank { .. }) => 0.5,
        None => weight(key),
    };
    let mut fused: FxHashMap<PassageKey, Candidate> =
        FxHashMap::with_capacity_and_hasher(lexical.len() + dense.len(), FxBuildHasher);
    let (lexical_part, dense_part) = (parts(lexical, fusion), parts(dense, fusion));
    for (&(key, raw), part) in lexical.iter().zip(lexical_part) {
        let candidate = fused.entry(key).or_default();
        candidate.score += part * (1.0 - weight(key));
        candidate.lexical = Some(raw);
    }
    for (&(key, raw), part) in dense.iter().zip(dense_part) {
        let candidate = fused.entry(key).or_default();
        candidate.score += part * weight(key);
        candidate.dense = Some(raw);
    }
    let mut fused: Vec<(PassageKey, Candidate)> = fused.into_iter().collect();
    let by_words = |candidate: &Candidate| candidate.lexical.unwrap_or_default();
    fused.sort_by(|(left_key, left), (right_key, right)| {
        let by_score = right.score.total_cmp(&left.score);
        by_score.then_with(|| by_words(right).total_cmp(&by_words(left))).then(left_key.cmp(right_key))
    });
    fused
}

/// What each entry of a list has of the best that it could have, 0 to 1.
fn parts(list: &[(PassageKey, f32)], fusion: Option<Fusion>) -> Vec<f32> {
    match fusion {
        None | Some(Fusion::Convex { .. }) => {
            let scores = list.iter().map(|&(_, score)| score);
            let high = scores.clone().fold(f32::NEG_INFINITY, f32::max);
            let low = scores.clone().fold(f32::INFINITY, f32::min);
            let span = high - low;
            scores.map(|score| if span > 0.0 { (score - low) / span } else { 1.0 }).collect()
        }
        Some(Fusion::ReciprocalRank { k }) => {
            // A passage that is first in both lists would get 2 / (k + 1): scaled so that this is 1.
            let scale = (k + 1) as f32;
            (1..=list.len()).map(|rank| scale / (k as f32 + rank as f32)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u64, f32)]) -> Vec<(PassageKey, f32)> {
        entries.iter().map(|&(key, score)| (PassageKey(key), score)).collect()
    }

    fn order(fused: &[(PassageKey, Candidate)]) -> Vec<u64> {
        fused.iter().map(|(key, _)| key.0).collect()
    }

    #[test]
    fn convex_fusion_weighs_normalised_scores() {
        let (lexical, dense) = (list(&[(1, 10.0), (2, 6.0), (3, 2.0)]), list(&[(3, 0.9), (2, 0.8), (4, 0.5)]));
        let fused = fuse(&lexical, &dense, Some(Fusion::Convex { dense_weight: 0.5 }), |_| 0.5);
        // 2: .5·.5 + .5·.75 = .625; 1: .5; 3: 0 + .5; 4: 0. Of 1 and 3 the words found 1 better.
        assert_eq!(order(&fused), [2, 1, 3, 4]);
        assert!((fused[0].1.score - 0.625).abs() < 1e-6);
        assert_eq!((fused[0].1.lexical, fused[0].1.dense), (Some(6.0), Some(0.8)));
        assert_eq!(order(&fuse(&lexical, &dense, Some(Fusion::Convex { dense_weight: 0.0 }), |_| 0.5))[0], 1);
        assert_eq!(order(&fuse(&lexical, &dense, Some(Fusion::Convex { dense_weight: 1.0 }), |_| 0.5))[0], 3);
    }

    #[test]
    fn each_passage_is_weighed_as_its_collection_is() {
        let (lexical, dense) = (list(&[(1, 9.0), (2, 9.0), (3, 1.0)]), list(&[(2, 0.9), (1, 0.8), (3, 0.7)]));
        let fused = fuse(&lexical, &dense, None, |key| if key.0 == 1 { 0.1 } else { 0.5 });
        assert!((fused[0].1.score - 1.0).abs() < 1e-6 && fused[0].0 == PassageKey(2));
        assert!((fused[1].1.score - 0.95).abs() < 1e-6 && fused[1].0 == PassageKey(1));
    }

    #[test]
    fn of_equal_scores_the_better_by_words_comes_first() {
        let (lexical, dense) = (list(&[(9, 7.0)]), list(&[(1, 0.9), (9, 0.1)]));
        let fused = fuse(&lexical, &dense, Some(Fusion::Convex { dense_weight: 0.5 }), |_| 0.5);
        assert_eq!(fused[0].1.score, fused[1].1.score);
        assert_eq!(order(&fused), [9, 1]);
    }

    #[test]
    fn one_candidate_is_a_full_score() {
        let fused = fuse(&list(&[(1, 3.0)]), &[], Some(Fusion::Convex { dense_weight: 0.5 }), |_| 0.5);
        assert!((fused[0].1.score - 0.5).abs() < 1e-6);
    }

    #[test]
    fn reciprocal_rank_fusion_looks_at_ranks_only() {
        let (lexical, dense) = (list(&[(1, 1000.0), (2, 1.0)]), list(&[(2, 0.2), (1, 0.1)]));
        let fused = fuse(&lexical, &dense, Some(Fusion::ReciprocalRank { k: 60 }), |_| 0.5);
        assert_eq!(order(&fused), [1, 2]);
        assert!((fused[0].1.score - fused[1].1.score).abs() < 1e-6);
    }
}
