//! Detects passages with the same content: copies, and versions of one section.
//!
//! Invariant: passages count as alike only if neither has an additional fact. Two texts may differ in articles, a few
//! such words and punctuation, and their sections in the number before the heading. Any other word that differs (a
//! number, a name, a "not") or is in a different position distinguishes them, however long they are: folded passages
//! are not shown, and nobody would notice a lost fact.

use std::hash::{Hash as _, Hasher as _};

use rustc_hash::FxHasher;

/// Fewer words say too little to be called the same.
const WORDS_MIN: usize = 20;
/// Words that are compared: real passages have fewer.
const WORDS_MAX: usize = 2_000;
/// Words that may occur in only one of two texts without changing the content.
const FILLERS: [&str; 12] = ["a", "an", "and", "the", "is", "are", "it", "its", "that", "which", "this", "also"];

/// What of a passage is compared.
#[derive(Debug)]
pub(super) struct Signature {
    words: usize,
    /// The words in their order.
    all: u64,
    /// The words that say something, in their order.
    facts: u64,
    /// The heading without the number in front of it; `None` where there is none.
    heading: Option<u64>,
    /// The numbers of the heading but for the one in front.
    heading_numbers: u64,
}

impl Signature {
    /// `None` for a text that is too short to be like another.
    ///
    /// * `headings`: those above the passage, outermost first.
    pub(super) fn of(text: &str, headings: &[String]) -> Option<Self> {
        let words_of = |text| words(text).take(WORDS_MAX).collect::<Vec<Word>>();
        let text = words_of(without_headings(text));
        let heading = headings.last().map(|heading| words_of(without_number(heading)));
        if text.len() + heading.as_ref().map_or(0, Vec::len) < WORDS_MIN {
            return None;
        }
        let hashes: Vec<u64> = text.iter().map(|word| word.hash).collect();
        let fillers = FILLERS.map(|word| words(word).map(|word| word.hash).next());
        let facts: Vec<u64> = hashes.iter().filter(|word| !fillers.contains(&Some(**word))).copied().collect();
        let numbers = heading.iter().flatten().filter(|word| word.has_digit).map(|word| word.hash).collect::<Vec<_>>();
        let heading = heading.map(|heading| hash(&heading.iter().map(|word| word.hash).collect::<Vec<_>>()));
        let (all, facts, heading_numbers) = (hash(&hashes), hash(&facts), hash(&numbers));
        Some(Self { words: hashes.len(), all, facts, heading, heading_numbers })
    }

    /// Whether both say the same. Symmetric.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let is_one_section = self.heading.is_some() && self.heading == other.heading;
        if self.words == other.words && self.all == other.all {
            return is_one_section || (self.words >= WORDS_MIN && self.heading_numbers == other.heading_numbers);
        }
        is_one_section && self.words.min(other.words) >= WORDS_MIN && self.facts == other.facts
    }
}

/// A heading without the number in front of it, which may be another one in another version: `5.1.11 Approval`.
fn without_number(heading: &str) -> &str {
    let rest = heading.trim_start().trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    if rest.starts_with(char::is_whitespace) && rest.contains(char::is_alphabetic) { rest } else { heading }
}

/// The text below the headings that it begins with.
fn without_headings(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if !text.starts_with('#') {
            return text;
        }
        text = text.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

/// A word as it is compared.
struct Word {
    hash: u64,
    has_digit: bool,
}

/// The words of a text, and the signs in front of and within them that make them others: `-m`, `+5`. An ideograph is a word.
fn words(text: &str) -> impl Iterator<Item = Word> {
    let mut rest = text;
    let mut before = ' ';
    std::iter::from_fn(move || {
        let start = rest.find(char::is_alphanumeric)?;
        before = rest[..start].chars().next_back().unwrap_or(before);
        rest = &rest[start..];
        let first = rest.chars().next()?;
        let end = if crate::index::analysis::is_cjk(first) {
            first.len_utf8()
        } else {
            let ends = |character: char| !character.is_alphanumeric() || crate::index::analysis::is_cjk(character);
            rest.find(ends).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(end);
        rest = after;
        let mut hasher = FxHasher::default();
        if matches!(before, '-' | '+' | '<' | '>' | '=' | '!' | '~') {
            before.hash(&mut hasher);
        }
        before = ' ';
        word.chars().flat_map(char::to_lowercase).for_each(|character| character.hash(&mut hasher));
        Some(Word { hash: hasher.finish(), has_digit: word.bytes().any(|byte| byte.is_ascii_digit()) })
    })
}

fn hash(words: &[u64]) -> u64 {
    let mut hasher = FxHasher::default();
    words.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(left: (&str, &str), right: (&str, &str)) -> bool {
        let of = |(heading, text): (&str, &str)| {
            let headings: Vec<String> = (!heading.is_empty()).then(|| heading.to_owned()).into_iter().collect();
            Signature::of(text, &headings)
        };
        match (of(left), of(right)) {
            (Some(left), Some(right)) => {
                assert_eq!(left.is_like(&right), right.is_like(&left));
                left.is_like(&right)
            }
            _ => false,
        }
    }

    /// Text of that many distinct words.
    fn prose(words: usize) -> String {
        (0..words).map(|word| format!("{} ", "word".repeat(1 + word % 3) + &"x".repeat(word / 3))).collect()
    }

    #[test]
    fn versions_of_a_section_are_alike() {
        let text = "### 5.1.11 Approval\n\nWhere possible, remove access to the approval sub-resource of the requests for \
                    certificates, since whoever has it can make new ones for any name in the whole cluster.";
        let other = text.replace("5.1.11", "5.1.13").replace("Where possible", "Where it is possible");
        assert!(alike(("5.1.11 Approval", text), ("5.1.13 Approval", &other)));
        assert!(!alike(("5.1.11 Approval", text), ("5.1.13 Refusal", &other)), "another section");
        assert!(!alike(("", text), ("", &other)), "no section at all");
        assert!(alike(("One", text), ("Two", text)), "word for word");
    }

    #[test]
    fn short_texts_are_told_apart_by_anything() {
        let report = |number: usize| format!("Pump report number {number} about the wear of the pump in hall two.");
        assert!(!alike(("", &report(1)), ("", &report(2))));
        assert!(!alike(("Reports", &report(1)), ("Reports", &report(2))));
        assert!(!alike(("", &report(1)), ("", &report(1))), "too short to be called the same");
    }

    #[test]
    fn another_fact_tells_apart_however_long_the_rest_is() {
        let rule = |word: &str| format!("{} Guests {word} enter the hall in their own shoes.", prose(200));
        for (one, other) in [
            ("may", "must not"),
            ("may", "may not"),
            ("should", "must"),
            ("of 70 degrees", "of 80 degrees"),
            ("-m", "-D"),
            ("5", "-5"),
        ] {
            assert!(!alike(("Rules", &rule(one)), ("Rules", &rule(other))), "{one} {other}");
        }
        let fed = |one: &str, other: &str| format!("{} Pump {one} feeds pump {other} of the hall.", prose(200));
        assert!(!alike(("Rules", &fed("north", "south")), ("Rules", &fed("south", "north"))));
        assert!(alike(("Rules", &rule("may also")), ("Rules", &rule("may"))));
    }

    #[test]
    fn the_number_of_a_heading_may_be_its_fact() {
        let text = prose(40);
        assert!(!alike(("What is new in 4.0.0", &text), ("What is new in 5.0.0", &text)));
        assert!(alike(("4.1 What is new", &text), ("5.2 What is new", &text)), "the number of the section");
        assert!(!alike(("2023", &text), ("2024", &text)), "nothing but a number");
    }

    #[test]
    fn texts_that_share_a_beginning_are_not_alike() {
        let (one, two) = (prose(120), prose(120).replace("xx", "yy"));
        assert!(!alike(("Same", &one), ("Same", &two)));
    }

    #[test]
    fn ideographs_are_words() {
        let text = "这是一个关于水泵维护的长段落，说明每隔两千小时必须检查轴承并更换密封圈。";
        assert!(alike(("维护", text), ("1.2 维护", text)));
        assert!(!alike(("维护", text), ("维护", &text.replace("必须", "不必"))));
    }
}
