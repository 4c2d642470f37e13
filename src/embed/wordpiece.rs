//! BERT's uncased WordPiece tokenizer, allocation-free per word.
//!
//! Our own because it is on the path of every query and every ingested passage: the general tokenizer library keeps
//! offsets and strings for each step and takes ten times as long. Its output is compared with the reference's in the tests.
//!
//! Steps, as in BERT's `BasicTokenizer` and `WordpieceTokenizer`: drop control characters, lower-case, decompose (NFD) and drop
//! combining marks, split at white space, make every punctuation mark and CJK ideograph a word, then cut each word
//! greedily into the longest known pieces; a word with an unknown rest, or of over 100 characters, becomes `[UNK]`.

use rustc_hash::FxHashMap;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Longer words become `[UNK]`.
const WORD_CHARS_MAX: usize = 100;

/// What stands for words that cannot be cut into pieces.
const UNKNOWN: &str = "[UNK]";
/// What begins a piece that is not the start of a word.
const CONTINUATION: &str = "##";

/// The vocabulary lacks the piece that stands for unknown words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the vocabulary lacks {UNKNOWN}")]
pub struct VocabularyError;

/// A WordPiece vocabulary.
#[derive(Debug)]
pub struct WordPiece {
    /// Pieces at the start of a word.
    starts: FxHashMap<&'static str, u32>,
    /// Pieces inside a word, without their `##`.
    continuations: FxHashMap<&'static str, u32>,
    /// Longest piece in bytes: no longer prefix is looked up.
    piece_bytes_max: usize,
    unknown: u32,
}

impl WordPiece {
    /// Reads a `vocab.txt` as BERT has it: a piece in each line, numbered from 0.
    ///
    /// # Errors
    /// When there is no piece for unknown words.
    pub fn from_vocabulary(vocabulary: &'static str) -> Result<Self, VocabularyError> {
        let (mut starts, mut continuations, mut piece_bytes_max) = (FxHashMap::default(), FxHashMap::default(), 0);
        for (id, piece) in (0..).zip(vocabulary.lines()) {
            piece_bytes_max = piece_bytes_max.max(piece.len());
            match piece.strip_prefix(CONTINUATION) {
                Some(rest) if !rest.is_empty() => continuations.insert(rest, id),
                _ => starts.insert(piece, id),
            };
        }
        let unknown = *starts.get(UNKNOWN).ok_or(VocabularyError)?;
        Ok(Self { starts, continuations, piece_bytes_max, unknown })
    }

    /// Number of pieces in the vocabulary.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len() + self.continuations.len()
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
        if let Some(&whole) = self.starts.get(word) {
            return one(whole);
        }
        if word.len() > WORD_CHARS_MAX && word.chars().count() > WORD_CHARS_MAX {
            return one(self.unknown);
        }
        // At most 100 characters, so at most 100 pieces: they fit a stack buffer until the word is known to be whole.
        let (mut pieces, mut count) = ([0u32; WORD_CHARS_MAX], 0);
        let mut start = 0;
        while start < word.len() {
            let vocabulary = if start == 0 { &self.starts } else { &self.continuations };
            let mut end = word.len().min(start + self.piece_bytes_max);
            let found = loop {
                if end <= start {
                    break None;
                }
                if word.is_char_boundary(end)
                    && let Some(&piece) = vocabulary.get(&word[start..end])
                {
                    break Some(piece);
                }
                end -= 1;
            };
            match found {
                Some(piece) => {
                    pieces[count] = piece;
                    count += 1;
                    start = end;
                }
                None => return one(self.unknown),
            }
        }
        pieces[..count].iter().copied().for_each(one);
    }
}

/// Punctuation in BERT's sense: Unicode's, and the ASCII symbols that Unicode does not count.
fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || character.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The blocks BERT treats as words of one character. Hangul and kana are not among them.
fn is_ideograph(character: char) -> bool {
    matches!(u32::from(character),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B820..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
