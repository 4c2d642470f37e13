//! Spelling tolerance: for a word that a collection lacks, the nearest words that it has.

use levenshtein_automata::{DFA, Distance, LevenshteinAutomatonBuilder, SINK_STATE};
use tantivy::schema::Field;
use tantivy::{Searcher, TantivyError};
use tantivy_fst::Automaton;

use super::super::analysis::EXACT_MARK;

/// Shorter words have too many neighbours to guess.
const WORD_CHARS_MIN: usize = 4;
/// Words of at least this length may have two errors.
const TWO_EDITS_CHARS_MIN: usize = 8;
/// At most this many neighbours replace an unknown word.
const NEIGHBOURS_MAX: usize = 3;
/// The factor of a neighbour's score for each edit.
const WEIGHT_PER_EDIT: f32 = 0.5;

/// The most frequent terms among the nearest to `word`, with the weight of each: 0.5 for one edit, 0.25 for two.
/// A swap of two neighbouring letters is one edit. Empty for short words and for words with digits, which are names.
pub(super) fn nearest(searcher: &Searcher, field: Field, word: &str) -> Result<Vec<(String, f32)>, TantivyError> {
    if !is_guessed(word) {
        return Ok(Vec::new());
    }
    let length = word.chars().count();
    for edits in 1..=if length >= TWO_EDITS_CHARS_MIN { 2 } else { 1 } {
        let automaton = Spelling(LevenshteinAutomatonBuilder::new(edits, true).build_dfa(word));
        let mut found: std::collections::BTreeMap<Vec<u8>, u64> = std::collections::BTreeMap::new();
        for segment in searcher.segment_readers() {
            let inverted = segment.inverted_index(field)?;
            let mut terms = inverted.terms().search(&automaton).into_stream()?;
            while let Some((term, info)) = terms.next() {
                // A word as written is also in the index as its stem.
                if term.first() == Some(&(EXACT_MARK as u8)) {
                    continue;
                }
                *found.entry(term.to_vec()).or_default() += u64::from(info.doc_freq);
            }
        }
        if !found.is_empty() {
            let mut found: Vec<(u64, String)> = found
                .into_iter()
                .filter_map(|(term, doc_freq)| String::from_utf8(term).ok().map(|term| (doc_freq, term)))
                .collect();
            found.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(&right.1)));
            found.truncate(NEIGHBOURS_MAX);
            let weight = WEIGHT_PER_EDIT.powi(i32::from(edits));
            return Ok(found.into_iter().map(|(_, term)| (term, weight)).collect());
        }
    }
    Ok(Vec::new())
}

/// Whether a word has neighbours that it may be a misspelling of.
fn is_guessed(word: &str) -> bool {
    word.chars().count() >= WORD_CHARS_MIN && word.chars().all(char::is_alphabetic)
}

struct Spelling(DFA);

impl Automaton for Spelling {
    type State = u32;

    fn start(&self) -> u32 {
        self.0.initial_state()
    }

    fn is_match(&self, state: &u32) -> bool {
        matches!(self.0.distance(*state), Distance::Exact(_))
    }

    fn can_match(&self, state: &u32) -> bool {
        *state != SINK_STATE
    }

    fn accept(&self, state: &u32, byte: u8) -> u32 {
        self.0.transition(*state, byte)
    }
}
