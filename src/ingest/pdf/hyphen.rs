//! Joins words that were divided at a line end, and keeps hyphens that belong to the word.
//!
//! `capabili-` `ties` loses its hyphen, `price-` `determining` keeps it. If the document contains the word elsewhere,
//! whole or with a hyphen, that decides; otherwise a list of common English words: two whole words with a hyphen
//! between them are a compound. Words of other languages are joined, which is right for most.

use rustc_hash::{FxHashMap, FxHashSet};

/// Marks a hyphen at the end of a line whose word continues in the next. No text contains it: control characters are
/// removed before.
pub(super) const DIVIDED: char = '\u{1}';

/// Common English words of three letters or more, from the vocabulary of the text model, one a line.
const WORDS: &str = include_str!("words.txt");

/// The kind of a line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It divides a word; it is not known yet whether the hyphen belongs to the word.
    Divided,
    /// It divides a word at a hyphen of the word.
    Kept,
    /// It ends a line.
    Line,
}

/// The kind of line end between `text` and the line `next`.
pub(super) fn end_of(text: &str, next: &str) -> End {
    let mut before = text.chars().rev();
    let hyphen = before.next().filter(|character| is_hyphen(*character));
    let (Some(hyphen), Some(letter), Some(first)) = (hyphen, before.next(), next.chars().next()) else {
        return End::Line;
    };
    match () {
        () if letter.is_alphabetic() && first.is_lowercase() => End::Divided,
        // A soft hyphen means that the word continues.
        () if hyphen == '\u{ad}' && first.is_alphanumeric() => End::Divided,
        // Codes, names and ranges: `QN-` `4471`, `Smith-` `Jones`, `1990-` `1995`. A page number does not count: `-2-`.
        () if text.rsplit(char::is_whitespace).next().is_some_and(|word| word.starts_with(is_hyphen)) => End::Line,
        () if letter.is_alphabetic() && first.is_alphanumeric() => End::Kept,
        () if letter.is_numeric() && first.is_numeric() => End::Kept,
        () => End::Line,
    }
}

fn is_hyphen(character: char) -> bool {
    matches!(character, '-' | '\u{ad}' | '\u{2010}')
}

fn is_in_word(character: char) -> bool {
    character.is_alphanumeric() || is_hyphen(character) || character == DIVIDED
}

/// Decides for each divided word of a document; also removes soft hyphens within lines.
pub(super) fn join(pages: &mut [String]) {
    let divided: Vec<(String, String)> = pages.iter().flat_map(|page| words(page)).flat_map(fragments).collect();
    if !divided.is_empty() {
        let known = WordCounts::of(pages, &divided);
        for page in pages.iter_mut().filter(|page| page.contains(DIVIDED)) {
            *page = rewritten(page, &known);
        }
    }
    for page in pages.iter_mut().filter(|page| page.contains('\u{ad}')) {
        page.retain(|character| character != '\u{ad}');
    }
}

/// The words of a text; divided ones are one.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character| !is_in_word(character)).filter(|word| !word.is_empty())
}

/// The parts before and after each division of a word, in lower case.
fn fragments(word: &str) -> impl Iterator<Item = (String, String)> {
    let parts: Vec<&str> = word.split(DIVIDED).collect();
    let pairs: Vec<_> =
        parts.windows(2).map(|pair| (lower(pair[0].trim_end_matches(is_hyphen)), lower(pair[1]))).collect();
    pairs.into_iter()
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// How often the relevant words occur in the document.
struct WordCounts<'w> {
    counts: FxHashMap<String, usize>,
    common: FxHashSet<&'w str>,
}

impl WordCounts<'_> {
    fn of(pages: &[String], divided: &[(String, String)]) -> Self {
        let mut counts: FxHashMap<String, usize> = FxHashMap::default();
        for (left, right) in divided {
            for word in [format!("{left}{right}"), format!("{left}-{right}"), left.clone(), right.clone()] {
                counts.entry(word).or_default();
            }
        }
        for word in pages.iter().flat_map(|page| words(page)).filter(|word| !word.contains(DIVIDED)) {
            let plain: String = word.chars().map(|c| if c == '\u{2010}' { '-' } else { c }).collect();
            if let Some(count) = counts.get_mut(lower(plain.trim_matches('-')).as_str()) {
                *count += 1;
            }
        }
        Self { counts, common: WORDS.lines().collect() }
    }

    fn count(&self, word: &str) -> usize {
        self.counts.get(word).copied().unwrap_or(0)
    }

    /// Whether the hyphen between `left` and `right` belongs to the word.
    fn is_compound(&self, left: &str, right: &str) -> bool {
        let joined = format!("{left}{right}");
        let (whole, compound) = (self.count(&joined), self.count(&format!("{left}-{right}")));
        if whole != compound {
            return compound > whole;
        }
        if left.contains('-') {
            return true;
        }
        let is_word = |part: &str| self.common.contains(part) || (part.chars().count() > 3 && self.count(part) > 0);
        // A continuation after the second part, as in `state-of-the-art`, is ignored.
        let right = right.split('-').next().unwrap_or(right);
        !self.common.contains(joined.as_str()) && is_word(left) && is_word(right)
    }
}

fn rewritten(page: &str, known: &WordCounts<'_>) -> String {
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(place) = rest.find(DIVIDED) {
        let (before, after) = (&rest[..place], &rest[place + DIVIDED.len_utf8()..]);
        out.push_str(before);
        let hyphen = out.pop().unwrap_or('-');
        let start = out
            .rfind(|character| !is_in_word(character))
            .map_or(0, |at| at + out[at..].chars().next().map_or(1, char::len_utf8));
        let end = after.find(|character| !is_in_word(character) || character == DIVIDED).unwrap_or(after.len());
        if hyphen != '\u{ad}'
            && known.is_compound(&lower(&out[start..]), &lower(after[..end].trim_end_matches(is_hyphen)))
        {
            out.push(hyphen);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> String {
        let mut pages = [text.replace('|', &DIVIDED.to_string())];
        join(&mut pages);
        let [page] = pages;
        page
    }

    #[test]
    fn a_divided_word_is_joined_and_a_compound_keeps_its_hyphen() {
        assert_eq!(joined("powerful capabili-|ties"), "powerful capabilities");
        assert_eq!(joined("the load-|bearing wall"), "the load-bearing wall");
        assert_eq!(joined("an up-to-|date list"), "an up-to-date list");
        assert_eq!(joined("die Wärmedäm-|mung"), "die Wärmedämmung");
        assert_eq!(joined("some-|thing in-|side"), "something inside");
    }

    #[test]
    fn the_document_decides_where_it_has_the_word() {
        assert_eq!(joined("flow-|meter and flowmeter"), "flowmeter and flowmeter");
        assert_eq!(joined("zor-|quil and zor-quil"), "zor-quil and zor-quil");
        assert_eq!(
            joined("Schleusen-|wärter; die Schleusen; der Schleusen-Wärter"),
            "Schleusen-wärter; die Schleusen; der Schleusen-Wärter"
        );
    }

    #[test]
    fn soft_hyphens_go() {
        assert_eq!(joined("Wert\u{ad}papier and load\u{ad}|bearing"), "Wertpapier and loadbearing");
    }

    #[test]
    fn ends_of_lines_are_told_apart() {
        assert_eq!(end_of("capabili-", "ties"), End::Divided);
        assert_eq!(end_of("QN-", "4471"), End::Kept);
        assert_eq!(end_of("Monday -", "friday"), End::Line);
        assert_eq!(end_of("1990-", "1995"), End::Kept);
        assert_eq!(end_of("the last line\n\n-2-", "Rule"), End::Line);
        assert_eq!(end_of("-2-", "1995"), End::Line);
        assert_eq!(end_of("the end", "of it"), End::Line);
    }
}
