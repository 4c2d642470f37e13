//! How well the graph finds what an exact scan finds, looked at on questions that were asked.
//!
//! Recall belongs to data and questions, so that of a benchmark says little about a collection. The last questions that walked the
//! graph are kept, and in a quiet moment each is answered by both.

use half::f16;

use super::matrix::View;

/// Questions that are kept, the latest.
const QUESTIONS: usize = 32;
/// Neighbours that are compared: recall@10.
const NEIGHBORS: usize = 10;

/// What a look at the graph's recall found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// Part of the ten nearest that the graph finds, 0 to 1.
    pub at_10: f64,
    /// Questions it was measured on.
    pub questions: usize,
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
    pub(super) fn take(&mut self, question: &[f16]) {
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
    pub(super) fn begin(&mut self) -> Vec<Vec<f16>> {
        self.fresh = 0;
        self.questions.clone()
    }

    pub(super) fn end(&mut self, recall: Recall, linked: usize) {
        self.last = Some((recall, linked));
    }
}

/// Answers each question by the graph and by a scan of all rows. A tenth neighbour that is as near as the scan's counts as found.
///
/// * `questions`: unit vectors.
pub(super) fn look(view: &View, questions: &[Vec<f16>]) -> Option<Recall> {
    let reach = view.graph.linked().min(view.vectors.count());
    let (mut found, mut wanted) = (0, 0);
    for question in questions {
        let walked = view.walk(question, NEIGHBORS, None, reach)?;
        let scanned = view.scan(question, NEIGHBORS, None);
        let least = scanned.last()?.score;
        found += walked.iter().filter(|neighbor| neighbor.score >= least).count().min(scanned.len());
        wanted += scanned.len();
    }
    (wanted > 0).then(|| Recall { at_10: found as f64 / wanted as f64, questions: questions.len() })
}
