//! The measures of one question, and their means.

use std::collections::HashMap;

/// Judgements of a question: document to grade, above 0 for relevant.
pub(super) type Judged = HashMap<String, u32>;

/// A document found: its id, or `None` for one of a collection that the question is not about.
pub(super) type RankedDocument = Option<String>;

/// Means over all questions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measures {
    pub(super) ndcg_at_10: f64,
    pub(super) recall_at_10: f64,
    pub(super) recall_at_100: f64,
    pub(super) mrr_at_10: f64,
    /// Seconds a question at the default depth.
    pub(super) seconds: f64,
}

impl Measures {
    /// Adds what one question measured.
    ///
    /// * `ranked`: what a search of the default depth found, best first.
    /// * `deep`: what one of a hundred documents found.
    pub(super) fn add(&mut self, ranked: &[RankedDocument], deep: &[RankedDocument], judged: &Judged, seconds: f64) {
        self.seconds += seconds;
        self.ndcg_at_10 += ndcg(ranked, judged, 10);
        self.recall_at_10 += recall(ranked, judged, 10);
        self.mrr_at_10 += reciprocal_rank(ranked, judged, 10);
        self.recall_at_100 += recall(deep, judged, super::DEPTH);
    }

    /// The means, from the sums over this many queries.
    pub(super) fn over(self, questions: usize) -> Self {
        let count = questions.max(1) as f64;
        Self {
            ndcg_at_10: self.ndcg_at_10 / count,
            recall_at_10: self.recall_at_10 / count,
            recall_at_100: self.recall_at_100 / count,
            mrr_at_10: self.mrr_at_10 / count,
            seconds: self.seconds / count,
        }
    }
}

fn grade(found: &RankedDocument, judged: &Judged) -> u32 {
    found.as_ref().and_then(|id| judged.get(id)).copied().unwrap_or_default()
}

/// nDCG at `depth` with linear gain, as `ndcg_cut` of `trec_eval`; 0 when nothing is relevant.
fn ndcg(ranked: &[RankedDocument], judged: &Judged, depth: usize) -> f64 {
    let gain = |(rank, grade): (usize, u32)| f64::from(grade) / ((rank + 2) as f64).log2();
    let found: f64 = ranked.iter().take(depth).map(|found| grade(found, judged)).enumerate().map(gain).sum();
    let mut best: Vec<u32> = judged.values().copied().collect();
    best.sort_unstable_by(|left, right| right.cmp(left));
    let ideal: f64 = best.into_iter().take(depth).enumerate().map(gain).sum();
    if ideal > 0.0 { found / ideal } else { 0.0 }
}

fn recall(ranked: &[RankedDocument], judged: &Judged, depth: usize) -> f64 {
    let relevant = judged.values().filter(|&&grade| grade > 0).count();
    let found = ranked.iter().take(depth).filter(|found| grade(found, judged) > 0).count();
    if relevant > 0 { found as f64 / relevant as f64 } else { 0.0 }
}

fn reciprocal_rank(ranked: &[RankedDocument], judged: &Judged, depth: usize) -> f64 {
    let first = ranked.iter().take(depth).position(|found| grade(found, judged) > 0);
    first.map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<RankedDocument> {
        names.iter().map(|&name| Some(name.to_owned())).collect()
    }

    fn judged(grades: &[(&str, u32)]) -> Judged {
        grades.iter().map(|&(id, grade)| (id.to_owned(), grade)).collect()
    }

    /// Worked by hand: DCG = 2/log2(2) + 0 + 1/log2(4) = 2.5; ideal = 3/log2(2) + 2/log2(3) + 1/log2(4) = 4.7619.
    #[test]
    fn ndcg_is_the_textbook_one() {
        let value = ndcg(&ids(&["b", "x", "c"]), &judged(&[("a", 3), ("b", 2), ("c", 1)]), 10);
        assert!((value - 2.5 / 4.761_859_5).abs() < 1e-6, "{value}");
        assert_eq!(ndcg(&ids(&["a"]), &judged(&[("a", 0)]), 10), 0.0);
    }

    #[test]
    fn recall_and_reciprocal_rank_look_at_relevant_documents_only() {
        let (ranked, grades) = (ids(&["x", "b", "a"]), judged(&[("a", 1), ("b", 0), ("c", 2)]));
        assert!((recall(&ranked, &grades, 10) - 0.5).abs() < 1e-9);
        assert!((recall(&ranked, &grades, 2) - 0.0).abs() < 1e-9);
        assert!((reciprocal_rank(&ranked, &grades, 10) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_document_of_another_collection_takes_a_place_and_counts_for_nothing() {
        let (ranked, grades) = ([None, Some("a".to_owned())], judged(&[("a", 1)]));
        assert!((ndcg(&ranked, &grades, 10) - 1.0 / 3f64.log2()).abs() < 1e-9);
        assert!((recall(&ranked, &grades, 1) - 0.0).abs() < 1e-9);
        assert!((reciprocal_rank(&ranked, &grades, 10) - 0.5).abs() < 1e-9);
    }
}
