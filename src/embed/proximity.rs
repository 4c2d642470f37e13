//! Term proximity: how close the words of a query are to each other in a passage, determined from its word pieces.
//!
//! A word index knows which words are in a passage, but not where. The pieces that are stored with its vector (see
//! [`super::late`]) do, and are only checked for candidates. Source of the idea: Rasolofo and Savoy, "Term Proximity
//! Scoring for Keyword-Based Retrieval Systems", ECIR 2003: pairs of neighbouring query words count by their distance.

use super::late;
use super::{Phrase, PieceKind, Proximity, WordPiece};

/// Number of pieces between two words from which on they are no longer close.
const GAP_MAX: usize = 10;
/// The weight of a pair in reverse order.
const REVERSED: f32 = 0.5;
/// Words that are used; with more, pairs are chance.
const WORDS_MAX: usize = 32;
/// Spellings of a word that are looked for.
const SPELLINGS_MAX: usize = 4;

/// A spelling of a word in pieces.
struct Spelling {
    /// At least one.
    pieces: Vec<u16>,
    word: usize,
}

/// The words of a query.
pub(super) struct WordProximity {
    /// Sorted by the shelf of their first piece.
    spellings: Vec<Spelling>,
    /// Where the spellings of each shelf end.
    ends: [u8; SHELVES],
    words: usize,
}

/// Groups spellings by their first piece, so that each piece is compared with few of them.
const SHELVES: usize = 256;

fn shelf(piece: u16) -> usize {
    usize::from(piece) % SHELVES
}

impl WordProximity {
    /// * `words`: of the query, in order; for each its spellings in pieces.
    ///
    /// `None` when fewer than two have a spelling.
    pub(super) fn new(words: impl Iterator<Item = Vec<Vec<u16>>>) -> Option<Self> {
        let mut near = Self { spellings: Vec::new(), ends: [0; SHELVES], words: 0 };
        for spellings in words.take(WORDS_MAX) {
            let word = near.words;
            let spelt = spellings.into_iter().take(SPELLINGS_MAX).filter(|pieces| !pieces.is_empty());
            near.spellings.extend(spelt.map(|pieces| Spelling { pieces, word }));
            near.words += 1;
        }
        near.spellings.sort_by_key(|spelling| shelf(spelling.pieces[0]));
        let mut end = 0;
        for (shelf_here, place) in near.ends.iter_mut().enumerate() {
            end += near.spellings[end..].iter().take_while(|spelling| shelf(spelling.pieces[0]) == shelf_here).count();
            *place = end as u8;
        }
        (near.words > 1).then_some(near)
    }

    /// The spellings that may start with a piece.
    #[inline]
    fn begun_by(&self, piece: u16) -> &[Spelling] {
        let shelf = shelf(piece);
        let start = shelf.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.spellings[usize::from(start)..usize::from(self.ends[shelf])]
    }

    /// Updates for each word how close it comes to the next one of the query.
    fn update_best(&self, pieces: &[u16], best: &mut [f32; WORDS_MAX]) {
        // The last end position of each word.
        let mut ends = [usize::MAX; WORDS_MAX];
        for (start, piece) in pieces.iter().enumerate() {
            for spelling in self.begun_by(*piece) {
                // Most spellings are one piece, and the others are rare: calling a function for each is not worth it.
                if spelling.pieces[0] != *piece || !pieces[start + 1..].starts_with(&spelling.pieces[1..]) {
                    continue;
                }
                let word = spelling.word;
                let mut pair = |first: usize, other: usize, share: f32| {
                    let gap = start.checked_sub(ends[other]);
                    if let Some(gap) = gap.filter(|gap| *gap <= GAP_MAX) {
                        best[first] = best[first].max(share / (1 + gap) as f32);
                    }
                };
                if word > 0 {
                    pair(word - 1, word - 1, 1.0);
                }
                if word + 1 < self.words {
                    pair(word, word + 1, REVERSED);
                }
                ends[word] = start + spelling.pieces.len();
            }
        }
    }
}

impl Proximity for WordProximity {
    fn of(&self, run: &[u16]) -> f32 {
        let Some(parts) = late::parts(run) else { return 0.0 };
        let mut best = [0f32; WORDS_MAX];
        for pieces in [parts.context, parts.text] {
            self.update_best(pieces, &mut best);
        }
        best[..self.words - 1].iter().sum::<f32>() / (self.words - 1) as f32
    }
}

/// Consecutive words.
pub(super) struct Sequence<'a> {
    /// Without punctuation.
    pieces: Vec<u16>,
    vocabulary: &'a WordPiece,
}

impl<'a> Sequence<'a> {
    pub(super) fn new(mut pieces: Vec<u16>, vocabulary: &'a WordPiece) -> Self {
        pieces.retain(|piece| vocabulary.kind(*piece) != PieceKind::Mark);
        Self { pieces, vocabulary }
    }

    fn is_among(&self, pieces: &[u16]) -> bool {
        let is_word = |piece: &&u16| self.vocabulary.kind(**piece) != PieceKind::Mark;
        let words: Vec<u16> = pieces.iter().filter(is_word).copied().collect();
        // `valve` is not in `valves`.
        let ends = |at: usize| words.get(at).is_none_or(|next| self.vocabulary.kind(*next) != PieceKind::Continuation);
        let mut places = words.windows(self.pieces.len().max(1)).enumerate();
        places.any(|(at, found)| found == self.pieces && ends(at + found.len()))
    }
}

impl Phrase for Sequence<'_> {
    fn is_in(&self, run: &[u16]) -> bool {
        let Some(parts) = late::parts(run) else { return false };
        [parts.text, parts.context].into_iter().any(|pieces| self.is_among(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(words: &[&[u16]], text: &[u16]) -> f32 {
        let lengths = vec![1.0; late::windows(text.len(), 12)];
        let run = late::run(&[], text, 12, &lengths);
        WordProximity::new(words.iter().map(|word| vec![word.to_vec()])).expect("words").of(&run)
    }

    #[test]
    fn nearer_is_more() {
        let words: [&[u16]; 2] = [&[1], &[2]];
        assert_eq!(near(&words, &[9, 1, 2, 9]), 1.0);
        assert_eq!(near(&words, &[9, 1, 9, 2]), 0.5);
        assert_eq!(near(&words, &[2, 1, 9, 9]), 0.5, "the other order");
        assert_eq!(near(&words, &[1, 2, 2, 1]), 1.0, "the best of several");
        assert_eq!(near(&words, &[1, 9, 9, 9]), 0.0);
        let mut far = vec![1];
        far.extend([9; GAP_MAX + 1]);
        far.push(2);
        assert_eq!(near(&words, &far), 0.0);
    }

    #[test]
    fn words_of_several_pieces_are_found_whole() {
        let words: [&[u16]; 3] = [&[1, 2], &[3], &[4]];
        assert_eq!(near(&words, &[1, 2, 3, 4]), 1.0);
        assert_eq!(near(&words, &[1, 9, 3, 4]), 0.5);
    }
}
