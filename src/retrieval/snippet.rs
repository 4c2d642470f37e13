//! The part of a passage that fits a query best.
//!
//! Invariant: a snippet costs time in proportion to its passage and to the words that are found there, whatever the query: of
//! which 64 words count, as for the index.

use std::cmp::Reverse;
use std::ops::Range;

use memchr::memmem::Finder;

use super::budget::prefix_priced;
use crate::index::analysis::{Folded, Language, beginnings};

/// Length of a snippet in characters, about, where the caller wants no other.
pub(super) const SNIPPET_CHARS: usize = 300;
/// The part of a snippet that may precede the first matching word, so that it starts with a line or a sentence.
const LEAD_PART: usize = 3;
/// Tokens of both ellipses.
const ELLIPSES_TOKENS: usize = 3;
/// Words of the query that are matched.
const WORDS_MAX: usize = 64;

/// Snippets of passages for one query.
pub(super) struct Snippets<'a> {
    query: &'a str,
    /// How the query's words begin in each language that came up.
    beginnings: Vec<(Language, Vec<Finder<'static>>)>,
}

/// A word of the query in a passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    start: usize,
    end: usize,
    word: usize,
}

impl<'a> Snippets<'a> {
    pub(super) fn new(query: &'a str) -> Self {
        Self { query, beginnings: Vec::new() }
    }

    /// The lines around the place where most of the query's words are close together, about `chars` characters; the
    /// beginning when none occurs. An ellipsis marks each side that was cut.
    ///
    /// * `language`: code of the passage's language, which determines how words are inflected.
    pub(super) fn snippet(&mut self, text: &str, language: &str, chars: usize) -> String {
        let text = text.trim();
        cut(text, self.place(text, language, chars))
    }

    /// The same with a price: at most `tokens`.
    ///
    /// * `whole`: the price of the text, more than `tokens`.
    pub(super) fn excerpt(&mut self, text: &str, language: &str, (whole, tokens): (usize, usize)) -> String {
        let chars = text.chars().count() * tokens / whole.max(1);
        let Some(room) = tokens.checked_sub(ELLIPSES_TOKENS).filter(|_| chars > 0) else {
            return text[..prefix_priced(text, tokens)].to_owned();
        };
        let text = text.trim();
        let place = self.place(text, language, chars);
        // A part is seldom dearer than the whole.
        let end = place.start + prefix_priced(&text[place.clone()], room);
        cut(text, place.start..if end < place.end { end_of_word(text, place.start..end) } else { end })
    }

    /// Where the snippet is in a text.
    fn place(&mut self, text: &str, language: &str, chars: usize) -> Range<usize> {
        if after(text, 0, chars) == text.len() {
            return 0..text.len();
        }
        let words = self.words(language.parse().unwrap_or_default());
        let mut start = best(text, words, chars).map_or(0, |position| beginning(text, position, chars / LEAD_PART));
        if after(text, start, chars) == text.len() {
            // The end of the text is near: the remaining space is used for the text before.
            let from = text.char_indices().rev().nth(chars - 1).map_or(0, |(offset, _)| offset);
            start = start.min(from + text[from..].find(char::is_whitespace).unwrap_or_default());
        }
        let end = after(text, start, chars);
        start..if end < text.len() { end_of_word(text, start..end) } else { end }
    }

    fn words(&mut self, language: Language) -> &[Finder<'static>] {
        let place = match self.beginnings.iter().position(|(known, _)| *known == language) {
            Some(place) => place,
            None => {
                self.beginnings.push((language, finders(self.query, language)));
                self.beginnings.len() - 1
            }
        };
        &self.beginnings[place].1
    }
}

/// Prefixes of the query's words in a language, ready to be matched.
fn finders(query: &str, language: Language) -> Vec<Finder<'static>> {
    let words = beginnings(query, language, WORDS_MAX);
    words.iter().filter(|word| !word.is_empty()).map(|word| Finder::new(word).into_owned()).collect()
}

/// A part of a text, with an ellipsis on each side that is cut.
fn cut(text: &str, part: Range<usize>) -> String {
    let mut snippet = String::with_capacity(part.len() + 8);
    if part.start > 0 {
        snippet.push('…');
    }
    snippet.push_str(text[part.clone()].trim());
    if part.end < text.len() {
        snippet.push('…');
    }
    snippet
}

/// Where the last whole word of a part ends; the end of the part where it is all one word.
fn end_of_word(text: &str, part: Range<usize>) -> usize {
    text[part.clone()].rfind(char::is_whitespace).map_or(part.end, |at| part.start + at)
}

/// Where `count` characters after byte `start` end; the end of the text when there are fewer.
fn after(text: &str, start: usize, count: usize) -> usize {
    let end = start.saturating_add(count);
    match text.as_bytes().get(start..end) {
        Some(bytes) if bytes.is_ascii() => end,
        _ => text[start..].char_indices().nth(count).map_or(text.len(), |(offset, _)| start + offset),
    }
}

/// Where the stretch begins that holds most of the words, the first of equal ones.
///
/// * `chars`: characters of the whole snippet.
fn best(text: &str, words: &[Finder<'_>], chars: usize) -> Option<usize> {
    let found = find(text, words);
    let mut counts = vec![0_usize; words.len()];
    let (mut distinct, mut next) = (0, 0);
    // The stretch in front of which `end` lies, and how many characters it has: both only move forward.
    let (mut end, mut length, mut from) = (0, 0, 0);
    let mut best: Option<(usize, Reverse<usize>)> = None;
    for first in &found {
        length -= text[from..first.start.min(end)].chars().count().min(length);
        from = first.start;
        end = end.max(from);
        let reach = after(text, end, chars - chars / LEAD_PART - length);
        length += text[end..reach].chars().count();
        end = reach;
        while let Some(more) = found.get(next).filter(|more| more.end <= end) {
            counts[more.word] += 1;
            distinct += usize::from(counts[more.word] == 1);
            next += 1;
        }
        best = best.max(Some((distinct, Reverse(first.start))));
        // A word that is longer than the stretch was never counted.
        if let Some(count) = counts.get_mut(first.word).filter(|count| **count > 0) {
            *count -= 1;
            distinct -= usize::from(*count == 0);
        }
    }
    best.map(|(_, Reverse(start))| start)
}

/// The words in a text, in its order.
fn find(text: &str, words: &[Finder<'_>]) -> Vec<Found> {
    let folded = Folded::of(text);
    let mut found = Vec::new();
    for (word, beginning) in words.iter().enumerate() {
        for at in beginning.find_iter(folded.text().as_bytes()) {
            let (start, end) = (folded.origin(at), folded.origin(at + beginning.needle().len()));
            if begins_word(text, start) {
                found.push(Found { start, end, word });
            }
        }
    }
    found.sort_unstable_by_key(|found| (found.start, found.end, found.word));
    found
}

/// Whether a word, or a part of a compound, begins at `start`. Scripts without spaces have words anywhere.
fn begins_word(text: &str, start: usize) -> bool {
    let Some(first) = text[start..].chars().next() else { return false };
    match text[..start].chars().next_back() {
        Some(before) if before.is_alphanumeric() => {
            crate::index::analysis::is_cjk(first) || (before.is_lowercase() && first.is_uppercase())
        }
        _ => true,
    }
}

/// A little before `position`: the start of its line or sentence when that is near, else of a word.
///
/// * `lead_chars`: how near, in characters.
fn beginning(text: &str, position: usize, lead_chars: usize) -> usize {
    let Some(nth) = lead_chars.checked_sub(1) else { return position };
    let from = text[..position].char_indices().rev().nth(nth).map_or(0, |(offset, _)| offset);
    if from == 0 {
        return 0;
    }
    let lead = &text[from..position];
    let sentence = lead.rfind(['\n', '.']).map(|at| from + at + 1);
    let word = lead.find(char::is_whitespace).map(|at| from + at);
    let start = sentence.or(word).unwrap_or(position);
    start + (text[start..].len() - text[start..].trim_start().len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::budget::price;
    use super::*;

    fn snippet(text: &str, query: &str) -> String {
        Snippets::new(query).snippet(text, "en", SNIPPET_CHARS)
    }

    #[test]
    fn a_short_passage_is_its_own_snippet() {
        assert_eq!(snippet(" a short text ", "anything"), "a short text");
    }

    #[test]
    fn the_snippet_holds_the_words_asked_for() {
        let filler = "Nothing to see in this sentence of the manual. ".repeat(30);
        let text = format!("{filler}The reserve keeps the disk from filling up. {filler}");
        let snippet = snippet(&text, "disk reserve");
        assert!(snippet.contains("The reserve keeps the disk"), "{snippet}");
        assert!(snippet.starts_with('…') && snippet.ends_with('…'), "{snippet}");
        assert!(snippet.chars().count() <= SNIPPET_CHARS + 2);
    }

    #[test]
    fn words_are_known_by_the_language_of_their_passage() {
        for (language, filler, sentence, query) in [
            ("de", "Hier steht nichts von Belang, nur Text. ", "Die Häuser stehen leer.", "Haus"),
            ("de", "Hier steht nichts von Belang, nur Text. ", "Das Gehäuse ist offen.", "gehaeuse offenes"),
            ("fr", "Rien à voir dans cette phrase, du tout. ", "Les chevaux mangeaient.", "cheval manger"),
            ("ru", "Здесь ничего нет, только текст для вида. ", "Книги лежат на столе.", "книгу стол"),
            ("zh", "这里没有任何值得一看的东西，只有文字。", "备份在夜里进行。", "夜里备份"),
            ("en", "Nothing to see in this sentence at all. ", "Set the PodCIDR of a node.", "cidr"),
            ("en", "Nothing to see in this sentence at all. ", "The cafés are happy.", "cafe happiness"),
        ] {
            let text = format!("{}{sentence} {}", filler.repeat(20), filler.repeat(20));
            let found = Snippets::new(query).snippet(&text, language, SNIPPET_CHARS);
            assert!(found.contains(sentence), "{query}: {found}");
        }
    }

    #[test]
    fn without_a_match_it_is_the_beginning() {
        let text = "word ".repeat(200);
        assert!(snippet(&text, "absent").starts_with("word word"));
    }

    #[test]
    fn characters_that_grow_in_lower_case_do_no_harm() {
        let text = format!("{}Ankara İzmir", "İstanbul ".repeat(100));
        assert!(snippet(&text, "istanbul").starts_with("İstanbul"));
        assert!(snippet(&text, "ankara").ends_with("Ankara İzmir"));
    }

    #[test]
    fn any_number_of_words_is_looked_for_in_bounded_time() {
        // As many distinct words as a query can have, nearly all of which the text is made of.
        let letters = || ('a'..='z').chain('0'..='9');
        let words: Vec<String> = letters().flat_map(|one| letters().map(move |two| format!("{one}{two}"))).collect();
        let query = words.join(" ");
        let looked_for = finders(&query, Language::English);
        assert!(looked_for.len() <= WORDS_MAX);
        let text = words.iter().cycle().take(20_000).cloned().collect::<Vec<_>>().join(" ");
        let found = find(&text, &looked_for);
        // Each place in the text is found for the few words that can begin there.
        assert!(found.len() <= text.len(), "{} places in {} bytes", found.len(), text.len());
        assert!(snippet(&text, &query).chars().count() <= SNIPPET_CHARS + 2);
    }

    /// The same by its definition: the first of those places from which on most words are found within the stretch.
    fn best_by_definition(text: &str, words: &[Finder<'_>]) -> Option<usize> {
        let found = find(text, words);
        let distinct = |start: usize| {
            let end = after(text, start, SNIPPET_CHARS - SNIPPET_CHARS / LEAD_PART);
            let inside = found.iter().filter(|found| found.start >= start && found.end <= end);
            inside.map(|found| found.word).collect::<std::collections::HashSet<_>>().len()
        };
        found.iter().map(|found| found.start).max_by_key(|&start| (distinct(start), Reverse(start)))
    }

    proptest! {
        #[test]
        fn the_stretch_is_the_best_one(
            text in prop::collection::vec(prop::sample::select(vec!["one ", "two ", "three ", "ö", "x ", "filler words ", "\n", "四五", ". "]), 0..400),
            query in prop::collection::vec(prop::sample::select(vec!["one", "two", "threes", "ö", "四五"]), 1..5),
        ) {
            let (text, query) = (text.concat(), query.join(" "));
            let words = finders(&query, Language::English);
            prop_assert_eq!(best(&text, &words, SNIPPET_CHARS), best_by_definition(&text, &words));
        }

        #[test]
        fn an_excerpt_costs_no_more_than_it_may(text in "\\PC{0,600}", query in "\\PC{0,40}", tokens in 0usize..120) {
            let whole = price(&text);
            prop_assume!(whole > tokens);
            let found = Snippets::new(&query).excerpt(&text, "en", (whole, tokens));
            prop_assert!(price(&found) <= tokens, "{} of {tokens}: {found}", price(&found));
        }

        #[test]
        fn a_snippet_is_a_part_of_its_passage(text in "\\PC{0,600}", query in "\\PC{0,40}") {
            let found = snippet(&text, &query);
            let inner = found.strip_prefix('…').unwrap_or(&found);
            prop_assert!(text.contains(inner) || text.contains(inner.strip_suffix('…').unwrap_or(inner)));
            prop_assert!(found.chars().count() <= SNIPPET_CHARS + 2);
        }
    }
}
