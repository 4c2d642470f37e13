//! Late windows: how well the best part of a passage matches a query, in the context of its title.
//!
//! The vector of a passage is the mean of everything it says, so a passage that answers in one sentence of ten looks
//! like one that does not answer. Candidates are therefore rescored in windows of a few word pieces: a window's score
//! is the cosine between the query and the sum of the passage's context (title and headings) and the window. Without
//! the context a window means little (nDCG@10 of English queries .614 instead of .692 by such windows alone).
//!
//! With `s[t] = q · E[t]` for each different piece, the score of a window is `(S(context) + S(window)) / |context +
//! window|`, where `S` sums `s` over the pieces. Everything that does not depend on the query is computed when a
//! passage is indexed, and stored with its vector as a *run* of 16-bit numbers:
//!
//! | numbers | content |
//! |---|---|
//! | 1 | pieces of the context, c |
//! | 1 | pieces of the text, n |
//! | 1 | pieces of a window |
//! | c | the context's pieces |
//! | n | the text's pieces |
//! | rest | the length of context and window for each window, as f16 bits |
//!
//! Invariant: an invalid run (of another version, damaged, empty) has no score.

use std::cell::Cell;

use half::f16;

use super::Windows;

/// Word pieces of a context that are used.
pub(super) const CONTEXT_PIECES: usize = 24;
/// Word pieces of a text that are used.
pub(super) const TEXT_PIECES_MAX: usize = 1 << 11;
/// Word pieces of a window in a language that the model knows. Flat from 8 to 16.
const WINDOW: usize = 12;
/// The same in other languages, where pieces are letters and syllables.
const WINDOW_ELSEWHERE: usize = 48;
/// nDCG@10 of English collections is flat from 0.4 to 0.8.
const SHARE: f32 = 0.6;
/// The same for windows of letters and syllables.
const SHARE_ELSEWHERE: f32 = 0.4;
/// Numbers before the pieces.
const HEAD: usize = 3;
/// How many pieces ahead rows are prefetched.
const AHEAD: usize = 6;

/// Pieces of a window.
pub(super) const fn window(is_known: bool) -> usize {
    if is_known { WINDOW } else { WINDOW_ELSEWHERE }
}

/// The weight of the best window in the similarity of a passage; the rest is the whole.
pub(super) fn share(window: usize) -> f32 {
    if window == WINDOW { SHARE } else { SHARE_ELSEWHERE }
}

/// The number of windows of `pieces`; each starts half a window after the previous one, the last one may be shorter.
pub(super) fn windows(pieces: usize, window: usize) -> usize {
    pieces.div_ceil(window / 2).max(2) - 1
}

/// A passage's run.
///
/// * `lengths`: of context and window, one for each of [`windows`].
pub(super) fn run(context: &[u16], text: &[u16], window: usize, lengths: &[f32]) -> Vec<u16> {
    let mut run = Vec::with_capacity(HEAD + context.len() + text.len() + lengths.len());
    run.extend([context.len(), text.len(), window].map(|count| count as u16));
    run.extend_from_slice(context);
    run.extend_from_slice(text);
    run.extend(lengths.iter().map(|length| f16::from_f32(*length).to_bits()));
    run
}

/// The parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) context: &'a [u16],
    pub(super) text: &'a [u16],
    pub(super) window: usize,
    lengths: &'a [u16],
}

/// Parses a run; `None` if it is invalid.
pub(super) fn parts(run: &[u16]) -> Option<Parts<'_>> {
    let (head, rest) = run.split_at_checked(HEAD)?;
    let [context, text, window] = [head[0], head[1], head[2]].map(usize::from);
    let (context, rest) = rest.split_at_checked(context)?;
    let (text, lengths) = rest.split_at_checked(text)?;
    let fits = window >= 2 && !text.is_empty() && lengths.len() == windows(text.len(), window);
    fits.then_some(Parts { context, text, window, lengths })
}

thread_local! {
    static MEMO: Cell<Option<ScoreCache>> = const { Cell::new(None) };
}

/// The score of each piece for one query; reused by the thread, since it is as large as the vocabulary.
struct ScoreCache {
    /// NaN if not known yet.
    scores: Box<[f32]>,
    /// Those that are known.
    known: Vec<u16>,
    sums: Vec<f32>,
}

/// The scores of one question.
pub(super) struct Scores<P> {
    memo: Option<ScoreCache>,
    pieces: P,
}

/// The scores of pieces for a query.
pub(super) trait PieceScores {
    /// Called once for each piece.
    fn score(&self, piece: u16) -> f32;
    /// The piece will be scored soon.
    fn expect(&self, _piece: u16) {}
}

impl<P: PieceScores> Scores<P> {
    /// * `vocabulary`: how many pieces there are.
    pub(super) fn new(vocabulary: usize, pieces: P) -> Self {
        let known = MEMO.take().filter(|memo| memo.scores.len() == vocabulary);
        let memo = known.unwrap_or_else(|| ScoreCache {
            scores: vec![f32::NAN; vocabulary].into(),
            known: Vec::new(),
            sums: Vec::new(),
        });
        Self { memo: Some(memo), pieces }
    }

    /// The score of the best window of a run; `None` where it has none.
    fn best(&mut self, run: &[u16]) -> Option<f32> {
        let Parts { context, text, window, lengths } = parts(run)?;
        let memo = self.memo.as_mut()?;
        let before = memo.known.len();
        for piece in context.iter().chain(text) {
            if let Some(known) = memo.scores.get_mut(usize::from(*piece))
                && known.is_nan()
            {
                *known = 0.0;
                memo.known.push(*piece);
            }
        }
        let new = &memo.known[before..];
        new.iter().take(AHEAD).for_each(|piece| self.pieces.expect(*piece));
        for (place, piece) in new.iter().enumerate() {
            if let Some(next) = new.get(place + AHEAD) {
                self.pieces.expect(*next);
            }
            memo.scores[usize::from(*piece)] = self.pieces.score(*piece);
        }
        let scores = &memo.scores;
        let of = |piece: u16| scores.get(usize::from(piece)).copied().unwrap_or_default();
        let own: f32 = context.iter().map(|piece| of(*piece)).sum();
        let halves = &mut memo.sums;
        halves.clear();
        halves.extend(text.chunks(window / 2).map(|half| half.iter().map(|piece| of(*piece)).sum::<f32>()));
        if halves.len() == 1 {
            halves.push(0.0);
        }
        let sums = halves.windows(2).map(|pair| own + pair[0] + pair[1]);
        let lengths = lengths.iter().map(|length| f16::from_bits(*length).to_f32());
        sums.zip(lengths).filter(|(_, length)| *length > 0.0).map(|(sum, length)| sum / length).reduce(f32::max)
    }
}

impl<P: PieceScores> Windows for Scores<P> {
    fn similarity(&mut self, whole: f32, run: &[u16]) -> f32 {
        let Some((best, parts)) = self.best(run).zip(parts(run)) else { return whole };
        let share = share(parts.window);
        whole * (1.0 - share) + best * share
    }
}

impl<P> Drop for Scores<P> {
    fn drop(&mut self) {
        let Some(mut memo) = self.memo.take() else { return };
        for piece in memo.known.drain(..) {
            memo.scores[usize::from(piece)] = f32::NAN;
        }
        MEMO.set(Some(memo));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<F: Fn(u16) -> f32> PieceScores for F {
        fn score(&self, piece: u16) -> f32 {
            self(piece)
        }
    }

    #[test]
    fn windows_cover_the_text() {
        for (pieces, expected) in [(1, 1), (6, 1), (7, 1), (12, 1), (13, 2), (18, 2), (19, 3), (25, 4)] {
            assert_eq!(windows(pieces, 12), expected, "{pieces}");
        }
    }

    #[test]
    fn a_run_comes_apart_as_it_was_put_together() {
        let text: Vec<u16> = (0..19).collect();
        let made = run(&[7, 8], &text, 12, &[1.0, 2.0, 3.0]);
        let found = parts(&made).expect("a run");
        assert_eq!((found.context, found.text, found.window), (&[7, 8][..], &text[..], 12));
        for end in 0..made.len() {
            assert_eq!(parts(&made[..end]), None, "{end}");
        }
        assert_eq!(parts(&[0, 1, 0, 5, 0]), None);
        assert_eq!(parts(&[u16::MAX; 9]), None);
    }

    #[test]
    fn the_best_window_is_that_with_the_pieces_asked_for() {
        // Piece n scores n; windows of 4 start at every second piece.
        let made = run(&[10], &[0, 0, 0, 1, 9, 0, 0, 0], 4, &[1.0, 2.0, 1.0]);
        let mut scores = Scores::new(16, f32::from);
        assert_eq!(scores.best(&made), Some(19.0));
        drop(scores);
        let mut others = Scores::new(16, |_| 1.0);
        assert_eq!(others.best(&made), Some(5.0), "nothing is left of the question before");
        assert_eq!(others.best(&[]), None);
    }
}
