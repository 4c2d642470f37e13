//! The part of a passage that fits a query best.

use crate::index::analysis::{Language, query_words};

/// Length of a snippet in characters, about.
const SNIPPET_CHARS: usize = 300;

/// The lines around the place where most of the query's words stand together, about 300 characters; the beginning when
/// none does. An ellipsis marks each side that was cut.
pub(super) fn snippet(text: &str, query: &str) -> String {
    let text = text.trim();
    if text.chars().count() <= SNIPPET_CHARS {
        return text.to_owned();
    }
    let words: Vec<String> =
        query_words(query, &[Language::English]).into_iter().filter_map(|word| word.terms.into_iter().next()).collect();
    let lower = text.to_lowercase();
    // Lower-casing can change lengths; positions are only used where it did not.
    let comparable = lower.len() == text.len();
    let mut starts: Vec<usize> = words
        .iter()
        .filter(|_| comparable)
        .flat_map(|word| lower.match_indices(word.as_str()).map(|(position, _)| position).take(20))
        .collect();
    starts.sort_unstable();
    let window = |start: usize| {
        let end = text[start..].char_indices().nth(SNIPPET_CHARS).map_or(text.len(), |(offset, _)| start + offset);
        let distinct = words.iter().filter(|word| lower[start..end].contains(word.as_str())).count();
        (distinct, std::cmp::Reverse(start))
    };
    let best = starts.iter().copied().filter(|&start| text.is_char_boundary(start)).max_by_key(|&start| window(start));
    let start = best.map_or(0, |position| beginning(text, position));
    let end = text[start..].char_indices().nth(SNIPPET_CHARS).map_or(text.len(), |(offset, _)| start + offset);
    let end =
        if end < text.len() { text[start..end].rfind(char::is_whitespace).map_or(end, |at| start + at) } else { end };
    let mut snippet = String::with_capacity(end - start + 8);
    if start > 0 {
        snippet.push('…');
    }
    snippet.push_str(text[start..end].trim());
    if end < text.len() {
        snippet.push('…');
    }
    snippet
}

/// A little before `position`: the start of its line or sentence when that is near, else of a word.
fn beginning(text: &str, position: usize) -> usize {
    let mut from = position.saturating_sub(SNIPPET_CHARS / 3);
    while !text.is_char_boundary(from) {
        from += 1;
    }
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
    use super::*;

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
    fn without_a_match_it_is_the_beginning() {
        let text = "word ".repeat(200);
        assert!(snippet(&text, "absent").starts_with("word word"));
    }

    #[test]
    fn characters_that_grow_in_lower_case_do_no_harm() {
        let text = "İstanbul ".repeat(100);
        assert!(snippet(&text, "istanbul").starts_with("İstanbul"));
    }
}
