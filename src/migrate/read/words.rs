//! Commands, as lists of words or as one line that is split.
//!
//! No shell runs them. docker/cli splits with google/shlex, which has comments; compose-go with mattn/go-shellwords, which ends at `;`, `&`,
//! `|`, `<` and `>`, and drops what follows.

use super::super::leaf::{At, Item, ItemValue, Leaf};
use super::super::report::Outcome;
use super::super::stack::Words;
use super::super::{Dialect, Value};
use super::Reader;

impl Reader<'_> {
    /// A command. A null is none; an empty one clears the image's in compose-go, and is none to docker/cli, whose type has no difference.
    pub(super) fn words(&mut self, item: &Item) -> Option<Words> {
        match &item.value {
            ItemValue::List(items) => {
                let words = items.iter().filter_map(|item| self.word(item)).collect();
                Some(Words { words, empty: None })
            }
            ItemValue::NoItems(leaf) => self.no_words(item, *leaf),
            ItemValue::Scalar(At { value: Value::Null, .. }) => {
                self.nothing(item);
                None
            }
            ItemValue::Scalar(At { value, leaf }) => {
                let line = value.to_string();
                let Some((words, rest)) = split(&line, self.dialect) else {
                    self.mistake(
                        item,
                        format!("{}: a quote, a bracket or a backslash is not closed in the line", item.path),
                    );
                    return None;
                };
                if rest {
                    self.remark(
                        *leaf,
                        Outcome::Approximated,
                        "no shell runs the line: a comment, and for docker compose all from the first of ; & | < > on, is left out \
                         of the command, as before",
                    );
                }
                if words.is_empty() {
                    return self.no_words(item, *leaf);
                }
                Some(Words { words: words.into_iter().map(|word| At::new(word, *leaf)).collect(), empty: None })
            }
            ItemValue::Map(_) | ItemValue::NoKeys(_) => {
                self.wrong(item, "a line, or a list of words");
                None
            }
        }
    }

    /// A word of a list. Nothing between two commas is an empty one.
    fn word(&mut self, item: &Item) -> Option<At<String>> {
        match item.scalar() {
            Some(At { value: Value::Null, leaf }) => Some(At::new(String::new(), leaf)),
            _ => self.text(item),
        }
    }

    fn no_words(&mut self, item: &Item, leaf: Leaf) -> Option<Words> {
        if self.is_compose() {
            return Some(Words { words: Vec::new(), empty: Some(leaf) });
        }
        let reason = "docker stack deploy uses the image's where nothing is written";
        self.remark_all(item, Outcome::Converted, reason);
        None
    }
}

/// The words of a line, and whether a part of it was left out. Nothing where something is not closed.
pub(super) fn split(line: &str, dialect: Dialect) -> Option<(Vec<String>, bool)> {
    match dialect {
        Dialect::Stack => shlex(line),
        Dialect::Compose => shellwords(line),
    }
}

/// google/shlex at e7afc7fbc510. White space is ` \t\r\n`; a `#` begins a comment where a word would begin.
fn shlex(line: &str) -> Option<(Vec<String>, bool)> {
    let (mut words, mut word, mut has_comment) = (Vec::new(), None::<String>, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => {
                has_comment = true;
                letters.by_ref().find(|letter| *letter == '\n');
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        letter => word.push(letter),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => word.push(letters.next()?),
                        letter => word.push(letter),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(letters.next()?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Some((words, has_comment))
}

/// mattn/go-shellwords without variables and backticks, which compose-go leaves off. Backticks and `$(…)` hold their blanks together.
fn shellwords(line: &str) -> Option<(Vec<String>, bool)> {
    let (mut words, mut word, mut has_word) = (Vec::new(), String::new(), false);
    let (mut is_escaped, mut double, mut single, mut back, mut dollar) = (false, false, false, false, false);
    let mut ended = false;
    for letter in line.chars() {
        if is_escaped {
            word.push(letter);
            (is_escaped, has_word) = (false, true);
            continue;
        }
        match letter {
            '\\' if single => word.push(letter),
            '\\' => is_escaped = true,
            ' ' | '\t' | '\r' | '\n' => {
                if single || double || back || dollar {
                    word.push(letter);
                } else if has_word {
                    words.push(std::mem::take(&mut word));
                    has_word = false;
                }
            }
            '"' if !single && !dollar => {
                has_word |= double;
                double = !double;
            }
            '\'' if !double && !dollar => {
                has_word |= single;
                single = !single;
            }
            '(' if !single && !double && !back => {
                if dollar || !word.ends_with('$') {
                    return None;
                }
                dollar = true;
                word.push('(');
            }
            ';' | '&' | '|' | '<' | '>' if !(single || double || back || dollar) => {
                // `2>` is one sign.
                if letter == '>' && word.starts_with(|first: char| first.is_ascii_digit()) {
                    has_word = false;
                }
                ended = true;
                break;
            }
            _ => {
                match letter {
                    '`' if !single && !double && !dollar => back = !back,
                    ')' if !single && !double && !back => dollar = !dollar,
                    _ => {}
                }
                has_word = true;
                word.push(letter);
            }
        }
    }
    if has_word {
        words.push(word);
    }
    (!(is_escaped || single || double || back || dollar)).then_some((words, ended))
}
