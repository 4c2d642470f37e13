//! Measures the graph's recall against an exact scan, on actual queries.
//!
//! Recall depends on data and queries, so that of a benchmark says little about a collection. The most recent queries
//! that walked the graph are kept, and in idle times each is answered by both. If the graph finds too little, walks
//! consider more candidates: a million near-duplicates need five times as many as a hundred thousand passages of
//! different books.

use half::f16;

use super::Neighbor;
use super::matrix::View;

/// Number of recent queries that are kept.
const QUESTIONS: usize = 256;
/// How far recall may be below the target before walks consider more candidates: with so few queries it is not known
/// more precisely, and a borderline collection would be searched longer for a few hard queries.
const SLACK: f64 = 0.02;
/// Maximum factor of the configured candidates.
const CANDIDATES_FACTOR: usize = 8;
/// Neighbours that are compared: recall@10.
pub(super) const NEIGHBORS: usize = 10;

/// The result of a recall check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// The share of the ten nearest that the graph finds, 0 to 1.
    pub at_10: f64,
    /// Questions it was measured on.
    pub questions: usize,
    /// Candidates that walks consider for it.
    pub candidates: usize,
}

/// Recent queries of a collection, and the result of the last recall check.
#[derive(Default)]
pub(super) struct Sample {
    questions: Vec<Vec<f16>>,
    /// The next one to be replaced.
    next: usize,
    /// Queries since the last check, counted up to [`QUESTIONS`].
    fresh: usize,
    /// The result of the last check, and how far the graph reached then.
    last: Option<(Recall, usize)>,
}

impl Sample {
    /// Records a query that walked the graph.
    pub(super) fn record(&mut self, question: &[f16]) {
        match self.questions.get_mut(self.next) {
            Some(place) => place.copy_from_slice(question),
            None => self.questions.push(question.to_vec()),
        }
        self.next = (self.next + 1) % QUESTIONS;
        self.fresh = (self.fresh + 1).min(QUESTIONS);
    }

    pub(super) fn last(&self) -> Option<Recall> {
        self.last.map(|(recall, _)| recall)
    }

    /// Whether a check would find something new: there are new queries, and the graph has changed by a sixteenth or was
    /// never checked.
    pub(super) fn is_due(&self, linked: usize) -> bool {
        self.fresh == QUESTIONS && self.last.is_none_or(|(_, seen)| linked.abs_diff(seen) > seen / 16)
    }

    /// The queries for a check.
    pub(super) fn take_sample(&mut self) -> Vec<Vec<f16>> {
        self.fresh = 0;
        self.questions.clone()
    }

    pub(super) fn end(&mut self, recall: Recall, linked: usize) {
        self.last = Some((recall, linked));
    }
}

/// Compares the exact neighbours of each query with those that the graph finds, with more and more candidates until the
/// recall reaches the target; walks consider as many from then on. A neighbour as near as the scan's tenth counts as
/// found.
///
/// * `questions`: unit vectors.
/// * `exact`: the [`NEIGHBORS`] nearest of each.
/// * `least`: candidates to start with.
/// * `wanted`: recall@10 that is restored once it is lower by more than [`SLACK`].
pub(super) fn measure(
    view: &View,
    questions: &[Vec<f16>],
    exact: &[Vec<Neighbor>],
    least: usize,
    wanted: f64,
) -> Option<Recall> {
    let reach = view.graph.linked().min(view.vectors.count());
    let there: usize = exact.iter().map(Vec::len).sum();
    if there == 0 {
        return None;
    }
    let (mut candidates, mut enough) = (least, wanted - SLACK);
    loop {
        let mut found = 0;
        for (question, exact) in questions.iter().zip(exact) {
            let walked = view.walk(question, NEIGHBORS, candidates, None, reach)?;
            let last = exact.last().map_or(f32::INFINITY, |neighbor| neighbor.score);
            found += walked.iter().filter(|neighbor| neighbor.score >= last).count().min(exact.len());
        }
        let recall = Recall { at_10: found as f64 / there as f64, questions: questions.len(), candidates };
        let more = candidates * 5 / 4;
        if recall.at_10 >= enough || more > least.saturating_mul(CANDIDATES_FACTOR) {
            view.graph.set_expansion_found(candidates);
            return Some(recall);
        }
        (candidates, enough) = (more, wanted);
    }
}
