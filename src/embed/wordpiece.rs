//! BERT's uncased WordPiece tokenizer, allocation-free for each word.
//!
//! A separate implementation because it is on the path of every query and every ingested passage: the general tokenizer
//! library records offsets and strings for each step and takes ten times as long. The tests compare its output with the
//! reference's.
//!
//! Steps, as in BERT's `BasicTokenizer` and `WordpieceTokenizer`: drop control characters, lower-case, decompose (NFD)
//! and drop combining marks, split at white space, make every punctuation mark and CJK ideograph a word, then cut each
//! word greedily into the longest known pieces; a word with an unknown rest, or of over 100 characters, becomes
//! `[UNK]`.

use rustc_hash::FxHashMap;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Longer words become `[UNK]`.
const WORD_CHARS_MAX: usize = 100;

/// The piece for words that cannot be cut into pieces.
const UNKNOWN: &str = "[UNK]";
/// The prefix of pieces inside a word.
const CONTINUATION: &str = "##";

/// The vocabulary lacks the piece for unknown words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the vocabulary lacks {UNKNOWN}")]
pub struct VocabularyError;

/// A WordPiece vocabulary.
#[derive(Debug)]
pub struct WordPiece {
    /// Pieces at the start of a word.
    starts: Pieces,
    /// Pieces inside a word, without their `##`.
    continuations: Pieces,
    unknown: u32,
    /// The kind of each piece, by its number.
    kinds: Box<[PieceKind]>,
}

/// The kind of a piece in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// A word, or the start of one.
    Start,
    /// The continuation of a word.
    Continuation,
    /// A punctuation mark.
    Mark,
}

/// Pieces with their numbers.
#[derive(Debug)]
struct Pieces {
    numbers: FxHashMap<&'static str, u32>,
    /// A Bloom filter of the pieces, so that most prefixes of a word that are not pieces are not looked up: the map is
    /// larger than the processor's caches, and a word has as many prefixes as letters.
    filter: Box<[u64; FILTER_BITS / 64]>,
    /// The longest, in bytes; at most [`PIECE_BYTES_MAX`].
    longest: usize,
}

/// With BERT's 24,000 and 6,000 pieces at most one in twenty prefixes is a false positive.
const FILTER_BITS: usize = 1 << 19;
/// Longer pieces are only found as whole words. BERT's longest has 18 letters.
const PIECE_BYTES_MAX: usize = 128;

impl Pieces {
    fn new() -> Self {
        Self { numbers: FxHashMap::default(), filter: Box::new([0; FILTER_BITS / 64]), longest: 0 }
    }

    fn insert(&mut self, piece: &'static str, number: u32) {
        self.numbers.insert(piece, number);
        if piece.len() <= PIECE_BYTES_MAX {
            self.longest = self.longest.max(piece.len());
            let (place, bit) = place(piece.bytes().fold(0, step));
            self.filter[place] |= bit;
        }
    }

    /// The longest piece that is a prefix of `text`, as its length in bytes and its number.
    fn longest_in(&self, text: &str) -> Option<(usize, u32)> {
        // Bit n: the first n + 1 bytes may be a piece.
        let (mut ends, mut hash) = (0_u128, 0);
        for (at, byte) in text.bytes().take(self.longest).enumerate() {
            hash = step(hash, byte);
            let (place, bit) = place(hash);
            ends |= u128::from(self.filter[place] & bit != 0) << at;
        }
        while ends != 0 {
            let last = ends.ilog2();
            ends ^= 1 << last;
            let length = last as usize + 1;
            if text.is_char_boundary(length)
                && let Some(&number) = self.numbers.get(&text[..length])
            {
                return Some((length, number));
            }
        }
        None
    }
}

/// The hash of a text, given that of the text without its last byte.
fn step(hash: u64, byte: u8) -> u64 {
    (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// The word of the filter, and the bits in it. The high bits of a product depend on all bits of its factors.
fn place(hash: u64) -> (usize, u64) {
    let bit = (hash >> (u64::BITS - FILTER_BITS.ilog2())) as usize;
    (bit / 64, 1 << (bit % 64))
}

impl WordPiece {
    /// Reads a `vocab.txt` as BERT has it: a piece in each line, numbered from 0.
    ///
    /// # Errors
    /// When the piece for unknown words is missing.
    pub fn from_vocabulary(vocabulary: &'static str) -> Result<Self, VocabularyError> {
        let (mut starts, mut continuations) = (Pieces::new(), Pieces::new());
        let mut kinds = Vec::new();
        for (id, piece) in (0..).zip(vocabulary.lines()) {
            kinds.push(if piece.len() > CONTINUATION.len() && piece.starts_with(CONTINUATION) {
                PieceKind::Continuation
            } else if piece.chars().all(|character| !character.is_alphanumeric()) {
                PieceKind::Mark
            } else {
                PieceKind::Start
            });
            match piece.strip_prefix(CONTINUATION) {
                Some(rest) if !rest.is_empty() => continuations.insert(rest, id),
                _ => starts.insert(piece, id),
            };
        }
        let unknown = *starts.numbers.get(UNKNOWN).ok_or(VocabularyError)?;
        Ok(Self { starts, continuations, unknown, kinds: kinds.into() })
    }

    /// The kind of a piece; a mark for an unknown number.
    #[must_use]
    pub fn kind(&self, piece: u16) -> PieceKind {
        self.kinds.get(usize::from(piece)).copied().unwrap_or(PieceKind::Mark)
    }

    /// Whether a piece represents words that the vocabulary has no pieces for.
    #[must_use]
    pub fn is_unknown(&self, piece: u16) -> bool {
        u32::from(piece) == self.unknown
    }

    /// Number of pieces in the vocabulary.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.numbers.len() + self.continuations.numbers.len()
    }

    /// Whether the vocabulary is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `emit` with the id of each piece of `text`, in order, at most `limit` times. No special tokens are added.
    pub fn encode(&self, text: &str, limit: usize, mut emit: impl FnMut(u32)) {
        let mut left = limit;
        let mut word = String::with_capacity(64);
        let mut flush = |word: &mut String, left: &mut usize| {
            if !word.is_empty() {
                self.encode_word(word, left, &mut emit);
                word.clear();
            }
        };
        for character in text.chars() {
            if left == 0 {
                return;
            }
            if character.is_ascii() {
                match character {
                    'a'..='z' | '0'..='9' => word.push(character),
                    'A'..='Z' => word.push(character.to_ascii_lowercase()),
                    ' ' | '\t' | '\n' | '\r' => flush(&mut word, &mut left),
                    _ if character.is_ascii_punctuation() => {
                        flush(&mut word, &mut left);
                        word.push(character);
                        flush(&mut word, &mut left);
                    }
                    // The other ASCII characters are control characters: dropped without ending a word.
                    _ => {}
                }
                continue;
            }
            if character == '\u{FFFD}' || character.general_category_group() == GeneralCategoryGroup::Other {
                continue;
            }
            if character.is_whitespace() {
                flush(&mut word, &mut left);
                continue;
            }
            if is_ideograph(character) {
                flush(&mut word, &mut left);
                word.push(character);
                flush(&mut word, &mut left);
                continue;
            }
            for part in std::iter::once(character).nfd() {
                if part.general_category() == unicode_properties::GeneralCategory::NonspacingMark {
                    continue;
                }
                for lower in part.to_lowercase() {
                    if is_punctuation(lower) {
                        flush(&mut word, &mut left);
                        word.push(lower);
                        flush(&mut word, &mut left);
                    } else {
                        word.push(lower);
                    }
                }
            }
        }
        if left > 0 {
            flush(&mut word, &mut left);
        }
    }

    /// Greedy longest match from the left; all of the word or `[UNK]`.
    fn encode_word(&self, word: &str, left: &mut usize, emit: &mut impl FnMut(u32)) {
        let mut one = |piece: u32| {
            if *left > 0 {
                *left -= 1;
                emit(piece);
            }
        };
        if let Some(&whole) = self.starts.numbers.get(word) {
            return one(whole);
        }
        if word.len() > WORD_CHARS_MAX && word.chars().count() > WORD_CHARS_MAX {
            return one(self.unknown);
        }
        // At most 100 characters, so at most 100 pieces: they fit a stack buffer until the word is known to be
        // complete.
        let (mut pieces, mut count) = ([0u32; WORD_CHARS_MAX], 0);
        let mut start = 0;
        while start < word.len() {
            let vocabulary = if start == 0 { &self.starts } else { &self.continuations };
            let Some((length, piece)) = vocabulary.longest_in(&word[start..]) else { return one(self.unknown) };
            pieces[count] = piece;
            count += 1;
            start += length;
        }
        pieces[..count].iter().copied().for_each(one);
    }
}

/// Punctuation as defined by BERT: Unicode's, and the ASCII symbols that Unicode excludes.
fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || character.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The blocks BERT treats as words of one character. Hangul and kana are not among them.
fn is_ideograph(character: char) -> bool {
    matches!(u32::from(character),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B820..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VOCABULARY: &str = "[UNK]\na\nab\nabca\ncб\n##a\n##b\n##bc\n##bcab\n##б\n##бc\n##c";

    proptest! {
        #[test]
        fn each_piece_is_the_longest_that_fits(word in "[abcб]{1,20}") {
            let tokenizer = WordPiece::from_vocabulary(VOCABULARY).expect("it has the unknown one");
            let lines: Vec<&str> = VOCABULARY.lines().collect();
            let mut found = Vec::new();
            tokenizer.encode(&word, usize::MAX, |piece| found.push(lines[piece as usize]));
            let mut rest = word.as_str();
            for piece in &found {
                if *piece == UNKNOWN {
                    prop_assert_eq!(found.len(), 1);
                    return Ok(());
                }
                let is_start = rest.len() == word.len();
                let fitting = lines.iter().filter_map(|line| match line.strip_prefix(CONTINUATION) {
                    Some(inner) => (!is_start && rest.starts_with(inner)).then_some((inner.len(), *line)),
                    None => (is_start && rest.starts_with(line)).then_some((line.len(), *line)),
                });
                let (length, longest) = fitting.max().expect("one fits");
                prop_assert_eq!(*piece, longest);
                rest = &rest[length..];
            }
            prop_assert_eq!(rest, "");
        }
    }
}
