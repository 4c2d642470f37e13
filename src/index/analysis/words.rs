//! Splits a text into words: those that are indexed, and those of a query.
//!
//! Invariants: the words of a text depend only on the text, and are found in linear time; each is in lower case, and at
//! most [`WORD_BYTES_MAX`] long. Names that people search as written (`C++`, `--no-verify`, `v1.10.2`) are words in
//! addition to their parts.
//!
//! * Words: Unicode word boundaries (UAX #29) in the compatibility form (NFKC), so that ligatures, full-width,
//!   superscript and subscript letters are the letters that people type.
//! * Chinese, Japanese and Korean runs become overlapping pairs of characters, a run of one character that character.
//!   Measured on Chinese questions: nDCG@10 0.15 with words, 0.97 with pairs.
//! * A name is emitted as written and in its parts, which are words too: `etcd.service`, `PodCIDR`, `--no-verify`,
//!   `KX-9`, `10kW`. A number with thousands separators is emitted without them.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};
use unicode_segmentation::UnicodeSegmentation;

/// Nobody searches for longer words (base64, hashes of whole files); they are left out.
const WORD_BYTES_MAX: usize = 128;
/// A part number without its hyphens is a word up to this length.
const JOINED_BYTES_MAX: usize = 32;
/// Longer words before `++` and `#` are not names of programming languages.
const SIGNED_BYTES_MAX: usize = 10;
/// Letters before digits that are a word of their own: `server2`, but not `kx9`.
const LETTERS_MIN: usize = 3;
/// Letters after a number that may be a unit.
const UNIT_BYTES_MAX: usize = 4;

/// The kind of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordKind {
    /// A word, or a part of a name.
    Plain,
    /// A name as written, whose parts are words too: `on-call`, `--verify`, `C++`, `kx9` for `KX-9`.
    Name,
    /// A form by which a word can be found but which is not searched for: `server2` by `server`, `v1.10.2` by `1.10`.
    Inside,
}

/// Calls `emit` with each word of `text`, in lower case, before stemming. Names and their parts come in no particular
/// order.
pub(super) fn words(text: &str, mut emit: impl FnMut(&str, WordKind)) {
    let text = compatible(text);
    let mut lower = Lower { buffer: String::with_capacity(64) };
    let mut rest: &str = &text;
    while let Some(first) = rest.chars().next() {
        let cjk = is_cjk(first);
        let end = rest.find(|character| is_cjk(character) != cjk).unwrap_or(rest.len());
        let (span, after) = rest.split_at(end);
        rest = after;
        if cjk {
            pairs(span, &mut |pair| emit(pair, WordKind::Plain));
        } else {
            spaced(span, &mut lower, &mut emit);
        }
    }
}

/// Whether a character belongs to a script that has no spaces between words.
#[must_use]
pub fn is_cjk(character: char) -> bool {
    matches!(u32::from(character),
        0x1100..=0x11FF | 0x3005..=0x3007 | 0x3040..=0x30FF | 0x3130..=0x318F | 0x31F0..=0x31FF | 0x3400..=0x4DBF
        | 0x4E00..=0x9FFF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x20000..=0x323AF)
}

/// The text in the letters that people type: ligatures, full-width, superscript and subscript letters in their plain
/// form, without invisible characters.
fn compatible(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return text.into();
    }
    // Trademark signs would become letters of the word before them.
    let is_dropped =
        |character: char| matches!(character, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '™' | '℠');
    if is_nfkc_quick(text.chars()) == IsNormalized::Yes && !text.contains(is_dropped) {
        return text.into();
    }
    text.chars().filter(|character| !is_dropped(*character)).nfkc().collect::<String>().into()
}

fn pairs(run: &str, emit: &mut impl FnMut(&str)) {
    let mut previous: Option<usize> = None;
    let mut pairs = 0;
    for (position, character) in run.char_indices() {
        if let Some(start) = previous {
            emit(&run[start..position + character.len_utf8()]);
            pairs += 1;
        }
        previous = Some(position);
    }
    if pairs == 0 {
        emit(run);
    }
}

/// Words in lower case, in one buffer.
struct Lower {
    buffer: String,
}

impl Lower {
    /// The joined parts as one word.
    fn emit(&mut self, parts: &[&str], kind: WordKind, emit: &mut impl FnMut(&str, WordKind)) {
        if parts.iter().map(|part| part.len()).sum::<usize>() > WORD_BYTES_MAX {
            return;
        }
        self.buffer.clear();
        for part in parts {
            if part.is_ascii() {
                let start = self.buffer.len();
                self.buffer.push_str(part);
                self.buffer[start..].make_ascii_lowercase();
            } else {
                self.buffer.extend(
                    part.chars()
                        .map(|character| if is_hyphen(character) { '-' } else { character })
                        .flat_map(char::to_lowercase),
                );
            }
        }
        if !self.buffer.is_empty() {
            emit(&self.buffer, kind);
        }
    }
}

/// U+2011, which does not break lines, is U+2010 in the compatibility form.
fn is_hyphen(character: char) -> bool {
    matches!(character, '-' | '\u{2010}')
}

/// A connector in a name: a hyphen or a plus between letters or digits.
fn is_tie(character: char) -> bool {
    is_hyphen(character) || character == '+'
}

/// Bytes of the connector between the word that ends where `rest` starts and the next one; 0 if there is none.
fn tie(rest: &str) -> usize {
    let mut characters = rest.chars();
    match (characters.next(), characters.next()) {
        (Some(tie), Some(next)) if is_tie(tie) && next.is_alphanumeric() => tie.len_utf8(),
        _ => 0,
    }
}

/// The words of a run in scripts with spaces.
fn spaced(span: &str, lower: &mut Lower, emit: &mut impl FnMut(&str, WordKind)) {
    let is_ascii = span.is_ascii();
    // The start of the current name, and its number of connectors.
    let mut chain: Option<(usize, usize)> = None;
    // The current number with groups of three digits.
    let mut thousands = Thousands::default();
    let mut behind = 0;
    for (start, word) in span.unicode_word_indices() {
        let end = start + word.len();
        let before = &span[behind..start];
        if !is_ascii {
            signs(before, emit);
        }
        thousands.next(before, word, lower, emit);
        behind = end;
        let tied = tie(&span[end..]);
        let (began, ties) = chain.unwrap_or((start, 0));
        compound(word, lower, emit);
        let signed = sign_behind(word, &span[end..]);
        if !signed.is_empty() {
            lower.emit(&[word, signed], WordKind::Name, emit);
        }
        if tied > 0 {
            chain = Some((began, ties + 1));
            continue;
        }
        chain = None;
        let name = &span[began..end];
        if ties > 0 {
            lower.emit(&[name], WordKind::Name, emit);
            joined(name, ties, lower, emit);
        }
        let sign = sign_before(&span[..began], word);
        if !sign.is_empty() {
            lower.emit(&[sign, name], WordKind::Name, emit);
        }
    }
    thousands.end(lower, emit);
    if !is_ascii {
        signs(&span[behind..], emit);
    }
}

/// A part number as one word, since people omit its hyphen: `kx9` for `KX-9`.
fn joined(name: &str, ties: usize, lower: &mut Lower, emit: &mut impl FnMut(&str, WordKind)) {
    let has_both = name.contains(|character: char| character.is_ascii_digit()) && name.contains(char::is_alphabetic);
    if !has_both || name.len() > JOINED_BYTES_MAX || ties > 2 || name.contains('+') {
        return;
    }
    let parts: Vec<&str> = name.split(is_hyphen).collect();
    lower.emit(&parts, WordKind::Name, emit);
}

/// The sign after a word that makes it a different name: `C++`, `C#`. Empty if there is none.
fn sign_behind<'a>(word: &str, rest: &'a str) -> &'a str {
    let length = if rest.starts_with("++") {
        2
    } else if rest.starts_with('#') {
        1
    } else {
        return "";
    };
    let ends = !rest[length..].starts_with(|next: char| next.is_alphanumeric() || matches!(next, '+' | '#'));
    let is_name = word.len() <= SIGNED_BYTES_MAX && word.starts_with(|first: char| first.is_ascii_alphabetic());
    if ends && is_name { &rest[..length] } else { "" }
}

/// The sign before a word that makes it an option or a name: `--verify`, `-n`, `.NET`. Empty if there is none.
fn sign_before<'a>(before: &'a str, word: &str) -> &'a str {
    if !word.starts_with(char::is_alphabetic) {
        return "";
    }
    let sign = if before.ends_with("--") {
        "--"
    } else if before.ends_with('-') {
        "-"
    } else if before.ends_with('.') {
        "."
    } else {
        return "";
    };
    let (outer, sign) = before.split_at(before.len() - sign.len());
    let begins = outer.chars().next_back().is_none_or(|last| {
        last.is_whitespace() || matches!(last, '`' | '"' | '\'' | '(' | '[' | '{' | '<' | '|' | ',' | '=')
    });
    if begins { sign } else { "" }
}

/// Pictures that represent words.
fn signs(between: &str, emit: &mut impl FnMut(&str, WordKind)) {
    for (at, character) in between.char_indices() {
        if matches!(u32::from(character), 0x2600..=0x27BF | 0x2B00..=0x2BFF | 0x1F000..=0x1FAFF) {
            emit(&between[at..at + character.len_utf8()], WordKind::Plain);
        }
    }
}

/// Joins numbers with thousands separators: `100,000`, `100 000` and `100'000` are `100000`.
#[derive(Default)]
struct Thousands {
    digits: String,
    groups: usize,
}

impl Thousands {
    /// The next word, and the text before it.
    fn next(&mut self, before: &str, word: &str, lower: &mut Lower, emit: &mut impl FnMut(&str, WordKind)) {
        if !word.starts_with(|first: char| first.is_ascii_digit()) {
            return self.end(lower, emit);
        }
        let goes_on = self.groups > 0 && matches!(before, " " | "'" | "’");
        if goes_on && word.len() == 3 && is_number(word) {
            self.digits.push_str(word);
            self.groups += 1;
            return;
        }
        self.end(lower, emit);
        // The parts of a word are separated by points or commas, never both.
        let mut groups = word.split([',', '.', '_', '\'', '’']);
        let first = groups.next().unwrap_or_default();
        if first.len() > 3 || !is_number(first) || first.starts_with('0') {
            return;
        }
        self.digits.push_str(first);
        self.groups = 1;
        for group in groups {
            if group.len() != 3 || !is_number(group) {
                self.clear();
                return;
            }
            self.digits.push_str(group);
            self.groups += 1;
        }
    }

    /// The number is complete.
    fn end(&mut self, lower: &mut Lower, emit: &mut impl FnMut(&str, WordKind)) {
        if self.groups > 1 {
            lower.emit(&[&self.digits], WordKind::Plain, emit);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.digits.clear();
        self.groups = 0;
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// One Unicode word, and its parts if it has any.
fn compound(word: &str, lower: &mut Lower, emit: &mut impl FnMut(&str, WordKind)) {
    if word.len() > WORD_BYTES_MAX {
        return;
    }
    // `L'homme`, `don't`, `node's`: the longer side is the word.
    let word = match word.find(['\'', '’']) {
        Some(split) => {
            let (left, right) = (&word[..split], word[split..].trim_start_matches(['\'', '’']));
            if right.len() > left.len() { right } else { left }
        }
        None => word,
    };
    if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return lower.emit(&[word], WordKind::Plain, emit);
    }
    let mut start = 0;
    let mut parts = 0;
    let is_name = !word.starts_with(|first: char| first.is_ascii_digit());
    let mut characters = word.char_indices();
    let mut previous = ' ';
    while let Some((position, character)) = characters.next() {
        let inner = !character.is_alphanumeric();
        // `getUser`, and `HTMLResponse`: the last of several capitals starts the next word. `CPUs` is one word, `10kW`
        // has a unit.
        let begins = || characters.clone().take(2).filter(|(_, next)| next.is_lowercase()).count() == 2;
        let hump =
            is_name && character.is_uppercase() && (previous.is_lowercase() || (previous.is_uppercase() && begins()));
        if (inner || hump) && position > start {
            if position - start > 1 {
                lower.emit(&[&word[start..position]], WordKind::Plain, emit);
            }
            parts += 1;
        }
        if inner {
            start = position + character.len_utf8();
        } else if hump {
            start = position;
        }
        previous = character;
    }
    if parts > 0 && word.len() - start > 1 {
        lower.emit(&[&word[start..]], WordKind::Plain, emit);
    }
    lower.emit(&[word], WordKind::Plain, emit);
    digits_and_letters(word, lower, emit);
}

/// A number with its unit becomes two words (`10kW`), a word with its number is also found without it (`server2`), and
/// a version without its `v` and by its minor version (`v1.10.2` by `1.10.2` and `1.10`).
fn digits_and_letters(word: &str, lower: &mut Lower, emit: &mut impl FnMut(&str, WordKind)) {
    let is_digit = |byte: u8| byte.is_ascii_digit();
    let bytes = word.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return };
    if is_digit(*first) && last.is_ascii_alphabetic() {
        let number = word.trim_end_matches(|character: char| character.is_alphabetic());
        let unit = &word[number.len()..];
        if unit.len() <= UNIT_BYTES_MAX && number.bytes().all(|byte| is_digit(byte) || matches!(byte, b'.' | b',')) {
            lower.emit(&[number], WordKind::Plain, emit);
            lower.emit(&[unit], WordKind::Plain, emit);
        }
        return;
    }
    let number = word.strip_prefix(['v', 'V']).filter(|rest| rest.bytes().next().is_some_and(is_digit));
    if let Some(number) = number {
        lower.emit(&[number], WordKind::Plain, emit);
    }
    let version = number.unwrap_or(word);
    if is_digit(*last) && version.bytes().all(|byte| is_digit(byte) || byte == b'.') {
        let mut points = version.match_indices('.').map(|(at, _)| at);
        if let (Some(_), Some(second)) = (points.next(), points.next()) {
            lower.emit(&[&version[..second]], WordKind::Inside, emit);
        }
        return;
    }
    if number.is_none() && is_digit(*last) {
        let letters = word.trim_end_matches(|character: char| character.is_ascii_digit());
        if letters.chars().count() >= LETTERS_MIN && letters.chars().all(char::is_alphabetic) {
            lower.emit(&[letters], WordKind::Inside, emit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        words(text, |word, _| found.push(word.to_owned()));
        found.sort();
        found
    }

    #[track_caller]
    fn assert_words(text: &str, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(sorted(text), expected, "{text}");
    }

    #[test]
    fn runs_without_spaces_become_pairs() {
        assert_words("黑豹队 NFL 中", &["黑豹", "豹队", "nfl", "中"]);
        assert_words("カーネル", &["カー", "ーネ", "ネル"]);
    }

    #[test]
    fn compounds_give_the_whole_and_the_parts() {
        assert_words("tls_san", &["tls_san", "tls", "san"]);
        assert_words("k3s.io", &["k3s.io", "k3s", "io"]);
        assert_words("PodSecurity", &["podsecurity", "pod", "security"]);
        assert_words("parseHTMLResponse", &["parsehtmlresponse", "parse", "html", "response"]);
        assert_words("IDs of CPUs", &["ids", "of", "cpus"]);
    }

    #[test]
    fn names_with_hyphens_give_the_whole_and_the_parts() {
        assert_words("an on-call engineer", &["an", "on-call", "on", "call", "engineer"]);
        assert_words("state-of-the-art", &["state-of-the-art", "state", "of", "the", "art"]);
        assert_words("KX-9", &["kx-9", "kx9", "kx", "9"]);
        assert_words("a - b -- c", &["a", "b", "c"]);
    }

    #[test]
    fn options_and_signed_names_are_found_as_written() {
        assert_words("--no-verify", &["--no-verify", "no-verify", "no", "verify"]);
        assert_words("`--verify=x` -n", &["--verify", "verify", "x", "-n", "n"]);
        assert_words("C++, C# and C.", &["c++", "c", "c#", "c", "and", "c"]);
        assert_words("on .NET and net", &["on", ".net", "net", "and", "net"]);
        assert_words("a.b#anchor x+y", &["a.b", "anchor", "x+y", "x", "y"]);
        assert_words("-5 degrees", &["5", "degrees"]);
    }

    #[test]
    fn numbers_are_found_however_they_are_grouped() {
        for text in ["100,000", "100.000", "100 000", "100'000", "100_000", "100\u{a0}000", "100\u{202f}000"] {
            assert!(sorted(text).contains(&"100000".to_owned()), "{text}: {:?}", sorted(text));
        }
        for text in ["100,00", "1,2,3", "0,100", "12 34", "port 80, 443"] {
            assert!(!sorted(text).iter().any(|word| word.len() > 3 && is_number(word)), "{text}: {:?}", sorted(text));
        }
        assert_words("10kW", &["10kw", "10", "kw"]);
        assert_words("2.5GB", &["2.5gb", "5gb", "2.5", "gb"]);
        assert!(sorted("v1.10.2").iter().any(|word| word == "1.10.2"));
        assert!(sorted("v1.10.2").iter().any(|word| word == "1.10"));
        assert_words("server2", &["server2", "server"]);
        assert_words("k3s", &["k3s"]);
    }

    #[test]
    fn compatibility_forms_are_the_letters_that_people_type() {
        assert_words("The oﬃce ﬁle", &["the", "office", "file"]);
        assert_words("Ｐａｒｔ　Ｎｏ　ＫＸ９", &["part", "no", "kx9"]);
        assert_words("H₂O mc²", &["h2o", "mc2"]);
        assert_words("Do\u{ad}cker™", &["docker"]);
    }

    #[test]
    fn pictures_are_words_and_marks_are_not() {
        assert_words("fine 🚀 and 🐈 slept.", &["fine", "🚀", "and", "🐈", "slept"]);
        assert_words("? \"\" … —", &[]);
    }

    #[test]
    fn words_that_nobody_searches_for_are_left_out() {
        assert_words(&"x".repeat(WORD_BYTES_MAX + 1), &[]);
        assert_words(&"ab-".repeat(100), &["ab"; 100]);
    }
}
