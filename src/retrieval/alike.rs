//! Passages that say the same: versions of one section, copies with another title.
//!
//! Invariant: only passages that hold no other fact are alike. What is short, and what differs by a number while it is not
//! long, is not alike: a record, a line of a log, a row of a table are told apart by little.

use std::cmp::Ordering;
use std::hash::{Hash as _, Hasher as _};

use rustc_hash::FxHasher;

/// Fewer words say too little to be called the same.
const WORDS_MIN: usize = 20;
/// From so many words on two texts may differ in numbers: a version in a long paragraph.
const WORDS_LONG: usize = 80;
/// What two texts share of all their sequences of three words, in percent: one word that was changed costs three on both sides, so this is
/// about one word in twenty-five.
const SHARED_MIN: usize = 75;
/// Words that are looked at: a passage has fewer.
const WORDS_MAX: usize = 2_000;

/// What of a passage is compared.
#[derive(Debug)]
pub(super) struct Signature {
    words: usize,
    /// The words in their order.
    all: u64,
    /// The words that have digits, in their order.
    numbers: u64,
    /// The last heading without its digits; `None` where there is none.
    heading: Option<u64>,
    /// Distinct sequences of three words, ascending.
    triples: Vec<u32>,
}

impl Signature {
    /// `None` for a text that is too short to be like another.
    ///
    /// * `headings`: those above the passage, outermost first.
    pub(super) fn of(text: &str, headings: &[String]) -> Option<Self> {
        let hashes: Vec<(u64, bool)> = words(without_headings(text)).take(WORDS_MAX).collect();
        let heading: Option<Vec<(u64, bool)>> = headings.last().map(|heading| words(heading).collect());
        let said = hashes.len() + heading.as_ref().map_or(0, Vec::len);
        if said < WORDS_MIN {
            return None;
        }
        let mut triples: Vec<u32> =
            hashes.windows(3).map(|three| hash(&[three[0].0, three[1].0, three[2].0]) as u32).collect();
        triples.sort_unstable();
        triples.dedup();
        let numbers: Vec<u64> = hashes.iter().filter(|(_, has_digit)| *has_digit).map(|(word, _)| *word).collect();
        let all: Vec<u64> = hashes.iter().map(|(word, _)| *word).collect();
        let heading = heading.map(|heading| {
            let letters = heading.iter().filter(|(_, has_digit)| !has_digit).map(|(word, _)| *word);
            hash(&letters.collect::<Vec<_>>())
        });
        Some(Self { words: hashes.len(), all: hash(&all), numbers: hash(&numbers), heading, triples })
    }

    /// Whether both say the same. Symmetric.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let is_one_section = self.heading.is_some() && self.heading == other.heading;
        if self.words == other.words && self.all == other.all {
            return is_one_section || self.words >= WORDS_MIN;
        }
        let (less, more) = (self.words.min(other.words), self.words.max(other.words));
        let is_long = less >= WORDS_LONG;
        let is_version = less >= WORDS_MIN && is_one_section && self.numbers == other.numbers;
        (is_long || is_version) && less * 100 >= more * SHARED_MIN && self.shares_enough(other)
    }

    fn shares_enough(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.triples.iter().peekable(), other.triples.iter().peekable());
        let mut shared = 0;
        while let (Some(one), Some(two)) = (left.peek(), right.peek()) {
            match one.cmp(two) {
                Ordering::Less => _ = left.next(),
                Ordering::Greater => _ = right.next(),
                Ordering::Equal => {
                    shared += 1;
                    (_, _) = (left.next(), right.next());
                }
            }
        }
        let all = self.triples.len() + other.triples.len() - shared;
        shared * 100 >= all * SHARED_MIN
    }
}

/// The text below the headings that it begins with: a heading may have another number in another version.
fn without_headings(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if !text.starts_with('#') {
            return text;
        }
        text = text.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

/// The words of a text as hashes, and whether they have digits. An ideograph is a word.
fn words(text: &str) -> impl Iterator<Item = (u64, bool)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(char::is_alphanumeric)?;
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
        word.chars().flat_map(char::to_lowercase).for_each(|character| character.hash(&mut hasher));
        Some((hasher.finish(), word.bytes().any(|byte| byte.is_ascii_digit())))
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
    fn a_number_tells_apart_what_is_not_long() {
        let sheet = |flow: usize| format!("{} flow {flow} bar.", prose(40));
        assert!(!alike(("Specifications", &sheet(20)), ("Specifications", &sheet(25))));
        let paragraph = |version: &str| format!("{} since version {version} of it.", prose(100));
        assert!(alike(("", &paragraph("1.10")), ("", &paragraph("1.11"))));
    }

    #[test]
    fn texts_that_share_a_beginning_are_not_alike() {
        let (one, two) = (prose(120), prose(120).replace("xx", "yy"));
        assert!(!alike(("Same", &one), ("Same", &two)));
    }

    #[test]
    fn ideographs_are_words() {
        let text = "这是一个关于水泵维护的长段落，说明每隔两千小时必须检查轴承并更换密封圈。";
        assert!(alike(("维护", text), ("维护", &text.replace("检查轴承", "检查轴承座"))));
    }
}
