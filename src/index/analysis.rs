//! Text to index terms: words, their stems by language, stop words.
//!
//! The same rules apply to documents and queries; a document's language decides its stemmer, and a query is stemmed in
//! every language of its collection. Terms are lower case and have no diacritics.
//!
//! * Words: see `words.rs`.
//! * Stems: Snowball, for the languages it supports. A word that differs from its stem is also a term as written, with
//!   a mark in front, since it may be the stem of another word. So a word in a document can always be found, whatever
//!   its language.

mod words;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use frostem::{Algorithm, Stemmer};
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

pub use self::words::is_cjk;
use self::words::{WordKind, words};

/// In running text at least one word in this many is a stop word of its language (about one in two is usual).
const STOP_WORD_SHARE: usize = 5;

/// Distinct words of a query that are used. Nobody searches for more; without a bound each would cost a lookup in the
/// dictionary, and another for its neighbours.
const QUERY_WORDS_MAX: usize = 512;

/// A prefix that a word and its stem share distinguishes the word from others if it has at least this many bytes.
const SHARED_BYTES_MIN: usize = 3;

/// Words whose stems are cached: about 2 MB.
const STEMS_MAX: usize = 1 << 15;

macro_rules! languages {
    ($($name:ident $code:literal $stemmer:expr, $detected:path;)*) => {
        /// A language with rules of its own; everything else is [`Language::Other`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub enum Language {
            /// Unknown, mixed, or without rules.
            #[default]
            Other,
            $(#[doc = concat!("ISO 639-1 `", $code, "`.")] $name,)*
        }

        impl Language {
            /// Every language with rules.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// ISO 639-1 code; empty for [`Language::Other`].
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { Self::Other => "", $(Self::$name => $code,)* }
            }

            fn stemmer(self) -> Option<Stemmer> {
                let algorithm: Option<Algorithm> = match self { Self::Other => None, $(Self::$name => $stemmer,)* };
                algorithm.map(Stemmer::new)
            }

            fn from_detected(detected: whatlang::Lang) -> Self {
                match detected { $($detected => Self::$name,)* _ => Self::Other }
            }
        }
    };
}

languages! {
    Arabic "ar" Some(Algorithm::Arabic), whatlang::Lang::Ara;
    Chinese "zh" None, whatlang::Lang::Cmn;
    Danish "da" Some(Algorithm::Danish), whatlang::Lang::Dan;
    Dutch "nl" Some(Algorithm::Dutch), whatlang::Lang::Nld;
    English "en" Some(Algorithm::English), whatlang::Lang::Eng;
    Finnish "fi" Some(Algorithm::Finnish), whatlang::Lang::Fin;
    French "fr" Some(Algorithm::French), whatlang::Lang::Fra;
    German "de" Some(Algorithm::German), whatlang::Lang::Deu;
    Greek "el" Some(Algorithm::Greek), whatlang::Lang::Ell;
    Hungarian "hu" Some(Algorithm::Hungarian), whatlang::Lang::Hun;
    Italian "it" Some(Algorithm::Italian), whatlang::Lang::Ita;
    Japanese "ja" None, whatlang::Lang::Jpn;
    Korean "ko" None, whatlang::Lang::Kor;
    Norwegian "no" Some(Algorithm::Norwegian), whatlang::Lang::Nob;
    Portuguese "pt" Some(Algorithm::Portuguese), whatlang::Lang::Por;
    Romanian "ro" Some(Algorithm::Romanian), whatlang::Lang::Ron;
    Russian "ru" Some(Algorithm::Russian), whatlang::Lang::Rus;
    Spanish "es" Some(Algorithm::Spanish), whatlang::Lang::Spa;
    Swedish "sv" Some(Algorithm::Swedish), whatlang::Lang::Swe;
    Tamil "ta" Some(Algorithm::Tamil), whatlang::Lang::Tam;
    Turkish "tr" Some(Algorithm::Turkish), whatlang::Lang::Tur;
}

impl Language {
    /// The language of a text, from its first 2,000 bytes; [`Language::Other`] when the text is too short or too mixed.
    /// Cost: about 50 µs.
    #[must_use]
    pub fn detect(text: &str) -> Self {
        let mut end = text.len().min(2_000);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let sample = &text[..end];
        let Some(info) = whatlang::detect(sample) else { return Self::Other };
        let language = Self::from_detected(info.lang());
        if info.is_reliable() {
            return language;
        }
        // The detector is unsure about short texts; the stop words of the language it suggests are good evidence too.
        let (mut all, mut stop_words) = (0, 0);
        words(sample, |word, _| {
            all += 1;
            stop_words += usize::from(language.is_stop_word(word));
        });
        if stop_words * STOP_WORD_SHARE >= all && stop_words > 1 { language } else { Self::Other }
    }

    /// Stop words: words that occur in questions of any topic.
    fn is_stop_word(self, word: &str) -> bool {
        super::stop_words::of(self).binary_search(&word).is_ok()
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Language {
    type Err = std::convert::Infallible;

    /// Codes without rules are [`Language::Other`].
    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Ok(Self::ALL.iter().copied().find(|language| language.code() == code).unwrap_or_default())
    }
}

/// Marks a term as a word as written; no word starts with it.
pub(super) const EXACT_MARK: char = '\u{1}';

/// Without diacritics, so that `café` and `cafe` are one term.
fn fold(word: &str, out: &mut String) {
    out.clear();
    fold_onto(word, out);
}

fn fold_onto(word: &str, out: &mut String) {
    if word.is_ascii() {
        out.push_str(word);
    } else {
        out.extend(word.nfd().filter(|&character| !is_combining_mark(character)).flat_map(plain).nfc());
    }
}

/// Letters of a few languages that others write with two letters or without a stroke (as in Lucene's
/// ASCIIFoldingFilter).
fn plain(character: char) -> impl Iterator<Item = char> {
    let plain = match character {
        'œ' => "oe",
        'æ' => "ae",
        'ß' => "ss",
        'ø' => "o",
        'đ' | 'ð' => "d",
        'ł' => "l",
        'ħ' => "h",
        'ı' => "i",
        'þ' => "th",
        _ => "",
    };
    plain.chars().chain(plain.is_empty().then_some(character))
}

/// A cache of the terms of words. Texts repeat their words: without it stemming took a third of the time of indexing.
/// Holds at most 32,768 words, then is cleared.
#[derive(Clone, Default)]
pub struct Stems {
    known: HashMap<Language, HashMap<Box<str>, Terms>>,
    words: usize,
}

/// The terms of a word.
#[derive(Clone)]
struct Terms {
    stem: Box<str>,
    /// The word as written, with its mark, if it differs from the stem.
    exact: Option<Box<str>>,
}

impl Stems {
    /// Stems of one language.
    fn of(&mut self, language: Language) -> &mut HashMap<Box<str>, Terms> {
        if self.words >= STEMS_MAX {
            *self = Self::default();
        }
        self.known.entry(language).or_default()
    }
}

/// Calls `emit` with each term of a document's text, in order of its words.
pub fn document_terms(text: &str, language: Language, stems: &mut Stems, mut emit: impl FnMut(&str)) {
    let mut folded = String::with_capacity(64);
    let Some(stemmer) = language.stemmer() else {
        return words(text, |word, _| {
            fold(word, &mut folded);
            emit(&folded);
        });
    };
    let room = STEMS_MAX.saturating_sub(stems.words);
    let known = stems.of(language);
    let before = known.len();
    let mut exact = String::with_capacity(64);
    words(text, |word, _| {
        if let Some(terms) = known.get(word) {
            emit(&terms.stem);
            if let Some(exact) = &terms.exact {
                emit(exact);
            }
            return;
        }
        if !is_stemmable(word) {
            fold(word, &mut folded);
            return emit(&folded);
        }
        fold(&stemmer.stem(word), &mut folded);
        exact_term(word, &mut exact);
        let is_inflected = exact[EXACT_MARK.len_utf8()..] != folded;
        emit(&folded);
        if is_inflected {
            emit(&exact);
        }
        if known.len() - before < room {
            let exact = is_inflected.then(|| exact.as_str().into());
            known.insert(word.into(), Terms { stem: folded.as_str().into(), exact });
        }
    });
    let added = known.len() - before;
    stems.words += added;
}

/// The term of a word as written.
fn exact_term(word: &str, out: &mut String) {
    out.clear();
    out.push(EXACT_MARK);
    fold_onto(word, out);
}

/// Words with digits or punctuation are names, not inflected words.
fn is_stemmable(word: &str) -> bool {
    word.chars().all(char::is_alphabetic)
}

/// A word of a query with its terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryWord {
    /// The word as written, folded.
    pub text: String,
    /// Its stem in each language of the collection, without repetition; the first is the main one. The last is the word
    /// itself, for languages in which it is its own stem.
    pub stems: Vec<String>,
    /// The term of entries that have it as written and under another stem. `None` if it has no other forms.
    pub exact: Option<String>,
    /// Whether its parts are words of the query too.
    pub is_name: bool,
}

impl QueryWord {
    /// Whether it is a name whose sign makes it a different name: `C++`, `C#`, `--verify`, `.NET`.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.is_name && !(self.text.starts_with(char::is_alphanumeric) && self.text.ends_with(char::is_alphanumeric))
    }
}

/// The words of a query, each once, in order, without stop words unless there is nothing else or they are part of a
/// name. Of more than 512 distinct words the first ones count. Empty if the query has no words, only punctuation.
///
/// * `languages`: the languages of the collection, most frequent first.
#[must_use]
pub fn query_words(text: &str, languages: &[Language]) -> Vec<QueryWord> {
    let mut folded = String::new();
    let languages_or_other = if languages.is_empty() { &[Language::Other] } else { languages };
    distinct_words(text, languages)
        .iter()
        .map(|(word, kind)| {
            let mut stems: Vec<String> = Vec::with_capacity(2);
            for language in languages_or_other.iter().chain(&[Language::Other]) {
                stem(word, *language, &mut folded);
                if !stems.contains(&folded) {
                    stems.push(folded.clone());
                }
            }
            // The last one is the word itself.
            let exact = is_stemmable(word).then(|| {
                let mut exact = String::with_capacity(folded.len() + 1);
                exact_term(word, &mut exact);
                exact
            });
            let is_name = *kind == WordKind::Name;
            QueryWord { text: std::mem::take(&mut folded), stems, exact, is_name }
        })
        .collect()
}

/// Whether it contains a word that can be searched.
#[must_use]
pub fn has_words(text: &str) -> bool {
    let mut has = false;
    words(text, |_, _| has = true);
    has
}

/// Prefixes by which the words of a query can be found in a text of a language, folded like [`Folded`]: what a word
/// shares with its stem. Each once, at most `limit`.
#[must_use]
pub fn beginnings(text: &str, language: Language, limit: usize) -> Vec<String> {
    let (mut whole, mut stemmed) = (String::new(), String::new());
    let mut beginnings: Vec<String> = Vec::new();
    for (word, _) in distinct_words(text, &[language]).iter().take(limit) {
        fold(word, &mut whole);
        stem(word, language, &mut stemmed);
        let shared: usize = whole
            .chars()
            .zip(stemmed.chars())
            .take_while(|(one, other)| one == other)
            .map(|(one, _)| one.len_utf8())
            .sum();
        // A stem that shares too little is a different word.
        let beginning = if shared >= SHARED_BYTES_MIN { &whole[..shared] } else { &whole[..] };
        if !beginning.is_empty() && !beginnings.iter().any(|known| known == beginning) {
            beginnings.push(beginning.to_owned());
        }
    }
    beginnings
}

/// The words of a query, each once, in order, without stop words unless there is nothing else. Parts of a name that are
/// stop words are dropped too: the name itself is more specific.
fn distinct_words(text: &str, languages: &[Language]) -> Vec<(String, WordKind)> {
    let mut all: Vec<(String, WordKind)> = Vec::new();
    words(text, |word, kind| {
        if kind != WordKind::Inside && all.len() < QUERY_WORDS_MAX && !all.iter().any(|(known, _)| known == word) {
            all.push((word.to_owned(), kind));
        }
    });
    // The stop words of a short question are the best sign of its language; technical text falls back to English.
    let candidates = languages.iter().copied().chain([Language::English]);
    let stop_language = candidates
        .map(|language| (all.iter().filter(|(word, _)| language.is_stop_word(word)).count(), language))
        .fold((0, Language::Other), |best, next| if next.0 > best.0 { next } else { best })
        .1;
    if !all.iter().all(|(word, _)| stop_language.is_stop_word(word)) {
        all.retain(|(word, _)| !stop_language.is_stop_word(word));
    }
    all
}

/// The term of a word.
fn stem(word: &str, language: Language, out: &mut String) {
    match language.stemmer() {
        Some(stemmer) if is_stemmable(word) => fold(&stemmer.stem(word), out),
        _ => fold(word, out),
    }
}

/// A text in lower case without diacritics that maps each position to the original.
pub struct Folded<'a> {
    text: Cow<'a, str>,
    /// For each byte of `text`, and its end, the byte in the original; `None` where they are equal.
    origins: Option<Vec<u32>>,
}

impl<'a> Folded<'a> {
    /// O(n).
    #[must_use]
    pub fn of(original: &'a str) -> Self {
        if original.is_ascii() {
            let is_lower = !original.bytes().any(|byte| byte.is_ascii_uppercase());
            let text: Cow<'a, str> = if is_lower { original.into() } else { original.to_ascii_lowercase().into() };
            return Self { text, origins: None };
        }
        let mut text = String::with_capacity(original.len());
        let mut origins = Vec::with_capacity(original.len() + 1);
        for (offset, character) in original.char_indices() {
            if character.is_ascii() {
                text.push(character.to_ascii_lowercase());
            } else {
                // Letter by letter: a mark belongs to the letter before it, and a Hangul syllable stays one.
                let lower = character.to_lowercase().nfkd().filter(|&character| !is_combining_mark(character));
                text.extend(lower.flat_map(char::to_lowercase).flat_map(plain).nfc());
            }
            origins.resize(text.len(), u32::try_from(offset).unwrap_or(u32::MAX));
        }
        origins.push(u32::try_from(original.len()).unwrap_or(u32::MAX));
        Self { text: text.into(), origins: Some(origins) }
    }

    /// The folded text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The position of byte `at` of the folded text in the original: the start of its character, or the original's end.
    #[must_use]
    pub fn origin(&self, at: usize) -> usize {
        self.origins.as_ref().map_or(at, |origins| origins[at] as usize)
    }
}

/// The first character of a text passed to the index encodes its language: the tokenizer cannot learn it any other way.
/// Private use characters, one for each entry of [`Language::ALL`], U+E000 for [`Language::Other`].
pub(super) fn language_mark(language: Language) -> char {
    let position = Language::ALL.iter().position(|&known| known == language).map_or(0, |position| position + 1);
    char::from_u32(0xE000 + position as u32).expect("private use characters are valid")
}

fn read_mark(text: &str) -> (Language, &str) {
    let mut characters = text.chars();
    match characters.next().map(u32::from) {
        Some(mark @ 0xE000..0xE040) => {
            let language = (mark as usize - 0xE000).checked_sub(1).and_then(|position| Language::ALL.get(position));
            (language.copied().unwrap_or_default(), characters.as_str())
        }
        _ => (Language::Other, text),
    }
}

/// [`document_terms`] as a tantivy tokenizer.
#[derive(Clone, Default)]
pub(super) struct DocumentTokenizer {
    stems: Stems,
    terms: String,
    ends: Vec<usize>,
}

pub(super) struct DocumentTokens<'a> {
    tokenizer: &'a DocumentTokenizer,
    next: usize,
    token: Token,
}

impl Tokenizer for DocumentTokenizer {
    type TokenStream<'a> = DocumentTokens<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> DocumentTokens<'a> {
        self.terms.clear();
        self.ends.clear();
        let (language, text) = read_mark(text);
        let (terms, ends) = (&mut self.terms, &mut self.ends);
        document_terms(text, language, &mut self.stems, |term| {
            terms.push_str(term);
            ends.push(terms.len());
        });
        DocumentTokens { tokenizer: self, next: 0, token: Token::default() }
    }
}

impl TokenStream for DocumentTokens<'_> {
    fn advance(&mut self) -> bool {
        let Some(&end) = self.tokenizer.ends.get(self.next) else { return false };
        let start = self.next.checked_sub(1).map_or(0, |previous| self.tokenizer.ends[previous]);
        self.token.text.clear();
        self.token.text.push_str(&self.tokenizer.terms[start..end]);
        self.token.position = self.next;
        self.next += 1;
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str, language: Language) -> Vec<String> {
        let mut found = Vec::new();
        document_terms(text, language, &mut Stems::default(), |term| found.push(term.to_owned()));
        found
    }

    #[test]
    fn words_are_stemmed_in_their_language() {
        let english = ["restor", "\u{1}restoring", "the", "snapshot", "\u{1}snapshots"];
        assert_eq!(terms("Restoring the snapshots", Language::English), english);
        assert_eq!(terms("Las capturas", Language::Spanish), ["las", "captur", "\u{1}capturas"]);
        assert_eq!(terms("Häuser", Language::German), ["haus", "\u{1}hauser"]);
    }

    #[test]
    fn stems_that_are_known_are_those_that_are_worked_out() {
        let mut stems = Stems::default();
        for text in ["Restoring restored restores", "restoring the nodes", "nodes"] {
            for language in [Language::English, Language::Spanish, Language::Other, Language::English] {
                let mut found = Vec::new();
                document_terms(text, language, &mut stems, |term| found.push(term.to_owned()));
                assert_eq!(found, terms(text, language), "{text} {language}");
            }
        }
        // Far more words than the cache holds.
        for start in (0..3 * STEMS_MAX).step_by(1_000) {
            let letters = |number: usize| -> String {
                number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
            };
            let text: Vec<String> = (start..start + 1_000).map(letters).collect();
            document_terms(&text.join(" "), Language::English, &mut stems, |_| {});
            assert!(stems.known.values().map(HashMap::len).sum::<usize>() <= STEMS_MAX);
        }
    }

    #[test]
    fn diacritics_do_not_matter() {
        assert_eq!(terms("Café", Language::Other), terms("cafe", Language::Other));
    }

    #[test]
    fn letters_that_others_write_otherwise_are_one_term() {
        for (text, plain) in [("cœur", "coeur"), ("Straße", "strasse"), ("Ørsted", "orsted"), ("ﬁne", "fine")] {
            assert_eq!(terms(text, Language::Other), [plain]);
            assert_eq!(Folded::of(text).text(), plain);
        }
    }

    #[test]
    fn stop_words_go_unless_there_is_nothing_else() {
        let words = |text| -> Vec<String> {
            query_words(text, &[Language::English]).into_iter().map(|word| word.stems[0].clone()).collect()
        };
        assert_eq!(words("How do I restore a snapshot?"), ["restor", "snapshot"]);
        assert_eq!(words("to be or not to be"), ["to", "be", "or", "not"]);
    }

    #[test]
    fn a_query_is_stemmed_in_each_language_of_the_collection() {
        let words = query_words("capturas", &[Language::Spanish, Language::English]);
        let stems = vec!["captur".into(), "captura".into(), "capturas".into()];
        assert_eq!(
            words,
            [QueryWord { text: "capturas".into(), stems, exact: Some("\u{1}capturas".into()), is_name: false }]
        );
    }

    #[test]
    fn language_marks_survive() {
        for &language in Language::ALL.iter().chain(&[Language::Other]) {
            let text = format!("{}text", language_mark(language));
            assert_eq!(read_mark(&text), (language, "text"));
            assert_eq!(language.code().parse(), Ok(language));
        }
    }

    #[test]
    fn languages_are_told_apart() {
        for (text, language) in [
            (
                "The node keeps every document that it has acknowledged, even when the power fails in the middle of a write.",
                Language::English,
            ),
            (
                "El nodo conserva todos los documentos que ha confirmado, aunque falle la corriente durante una escritura.",
                Language::Spanish,
            ),
            (
                "Der Knoten behält jedes bestätigte Dokument, auch wenn mitten im Schreiben der Strom ausfällt.",
                Language::German,
            ),
            ("即使在写入过程中断电,节点也会保留其已确认的每个文档。", Language::Chinese),
        ] {
            assert_eq!(Language::detect(text), language, "{text}");
        }
        assert_eq!(Language::detect(""), Language::Other);
    }
}
