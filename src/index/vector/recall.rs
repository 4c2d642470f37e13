//! How well the graph finds what an exact scan finds, looked at on questions that were asked.
//!
//! Recall belongs to data and questions, so that of a benchmark says little about a collection. The last questions that walked the
//! graph are kept, and in a quiet moment each is answered by both. Where the graph finds too little, walks look at more candidates:
//! among a million near-duplicates it takes five times as many as among a hundred thousand passages of different books.

use half::f16;

use super::Neighbor;
use super::matrix::View;

/// Questions that are kept, the latest.
const QUESTIONS: usize = 256;
/// How far below what is wanted a recall may be before walks look further: so few questions tell it no better, and a collection at the
/// border would be searched longer for a few questions that are hard.
const SLACK: f64 = 0.02;
/// How many times the candidates of the settings are looked at, at most.
const CANDIDATES_FACTOR: usize = 8;
/// Neighbours that are compared: recall@10.
pub(super) const NEIGHBORS: usize = 10;

/// What a look at the graph's recall found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// Part of the ten nearest that the graph finds, 0 to 1.
    pub at_10: f64,
    /// Questions it was measured on.
    pub questions: usize,
    /// Candidates that walks look at for it.
    pub candidates: usize,
}

/// The questions that a collection was asked lately, and what came out when the graph was last looked at.
#[derive(Default)]
pub(super) struct Sample {
    questions: Vec<Vec<f16>>,
    /// The next one to be replaced.
    next: usize,
    /// Questions since the last look, counted to [`QUESTIONS`].
    fresh: usize,
    /// What the last look found, and how far the graph reached then.
    last: Option<(Recall, usize)>,
}

impl Sample {
    /// Takes a question that walked the graph.
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

    /// Whether a look would tell something new: there are new questions, and the graph has changed by a sixteenth or was never
    /// looked at.
    pub(super) fn is_due(&self, linked: usize) -> bool {
        self.fresh == QUESTIONS && self.last.is_none_or(|(_, seen)| linked.abs_diff(seen) > seen / 16)
    }

    /// The questions to look at the graph with.
    pub(super) fn take_sample(&mut self) -> Vec<Vec<f16>> {
        self.fresh = 0;
        self.questions.clone()
    }

    pub(super) fn end(&mut self, recall: Recall, linked: usize) {
        self.last = Some((recall, linked));
    }
}

/// Compares the exact neighbours of each question with those that the graph finds, with more and more candidates until the recall is what is wanted; walks
/// look at as many from then on. A neighbour that is as near as the scan's tenth counts as found.
///
/// * `questions`: unit vectors.
/// * `exact`: the [`NEIGHBORS`] nearest of each.
/// * `least`: candidates to begin with.
/// * `wanted`: recall@10 that walks get once they have less by more than [`SLACK`].
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
