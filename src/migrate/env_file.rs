//! Files of environment variables: those of `env_file`, and that of `--env-file`.
//!
//! The two programs read them differently: to docker/cli a line is a name and, as it stands, a value with its quotes; compose-go has quotes,
//! escapes, `export`, comments behind values, and variables in values.

use std::collections::HashMap;

use super::Dialect;
use super::interpolation::{Interpolator, ROOM};
use super::source::{Mistake, Position, Source};

/// A variable of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; `None` where the file leaves it to the shell that deploys.
    pub value: Option<String>,
    /// Where its name stands.
    pub at: Position,
}

/// The variables of a file, in its order. The last one of a name counts.
///
/// * `lookup`: the value of a variable that a value names; those of earlier lines are known.
///
/// # Errors
/// The first line that the program would refuse.
pub fn variables<'a>(
    source: &Source,
    dialect: Dialect,
    lookup: &dyn Fn(&str) -> Option<&'a str>,
) -> Result<Vec<Variable>, Mistake> {
    match dialect {
        Dialect::Stack => stack(source),
        Dialect::Compose => {
            Compose { source, rest: source.text(), room: ROOM, found: Vec::new(), known: HashMap::new() }.read(lookup)
        }
    }
}

/// docker/cli, `pkg/kvfile`.
fn stack(source: &Source) -> Result<Vec<Variable>, Mistake> {
    let mut found = Vec::new();
    for (number, whole) in source.text().lines().enumerate() {
        let line = whole.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let column = whole.chars().count() - line.chars().count() + 1;
        let at = Position { file: source.name().clone(), line: number + 1, column };
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(Mistake { at, message: "found '=', expected the name of a variable before it".to_owned() });
        }
        if name.contains([' ', '\t']) {
            return Err(Mistake { at, message: format!("the name '{name}' contains blanks; write NAME=VALUE") });
        }
        found.push(Variable { name: name.to_owned(), value, at });
    }
    Ok(found)
}

/// compose-go, `dotenv`.
struct Compose<'s> {
    source: &'s Source,
    /// What is not read yet.
    rest: &'s str,
    room: usize,
    found: Vec<Variable>,
    known: HashMap<String, String>,
}

impl<'s> Compose<'s> {
    fn read<'a>(mut self, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Result<Vec<Variable>, Mistake> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.is_empty() {
                return Ok(self.found);
            }
            if self.rest.starts_with('#') {
                self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
                continue;
            }
            if let Some(exported) =
                self.rest.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace))
            {
                self.rest = exported.trim_start_matches(is_blank);
            }
            let at = self.position();
            let (name, has_value) = self.name()?;
            let value = if has_value { Some(self.value(lookup)?) } else { None };
            if let Some(value) = &value {
                self.known.insert(name.to_owned(), value.clone());
            }
            self.found.push(Variable { name: name.to_owned(), value, at });
        }
    }

    /// Where the rest begins.
    fn position(&self) -> Position {
        let text = self.source.text();
        let before = &text[..text.len() - self.rest.len()];
        let line = before.rsplit('\n').next().unwrap_or_default();
        Position {
            file: self.source.name().clone(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }

    fn mistake(&self, message: String) -> Mistake {
        Mistake { at: self.position(), message }
    }

    /// A name, and whether a value follows.
    fn name(&mut self) -> Result<(&'s str, bool), Mistake> {
        let text = self.rest;
        let is_end = |letter: char| matches!(letter, '=' | ':' | '\n');
        let end = text.find(is_end).unwrap_or(text.len());
        let name = text[..end].trim_end();
        let is_name = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '-' | '[' | ']');
        if let Some(wrong) = name.chars().find(|letter| !is_name(*letter)) {
            let line = text.lines().next().unwrap_or_default();
            return Err(
                self.mistake(format!("found {wrong:?} in the name of a variable: {}; write NAME=VALUE", line.trim()))
            );
        }
        let has_value = matches!(text[end..].chars().next(), Some('=' | ':'));
        self.rest = text[(end + 1).min(text.len())..].trim_start_matches(is_blank);
        Ok((name, has_value))
    }

    fn value<'a>(&mut self, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Result<String, Mistake> {
        let text = self.rest;
        let Some(quote) = text.chars().next().filter(|letter| matches!(letter, '"' | '\'')) else {
            let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
            let value = line.split_once(" #").map_or(line, |(value, _)| value).trim_end();
            let value = self.expanded(value, lookup)?;
            self.rest = rest;
            return Ok(value);
        };
        // A backslash keeps the quote that follows it from being the end, and stays in front of anything else.
        let (mut value, mut is_escaped) = (String::new(), false);
        for (at, letter) in text.char_indices().skip(1) {
            match (letter, is_escaped) {
                ('\\', false) => is_escaped = true,
                (letter, false) if letter == quote => {
                    let value = if quote == '"' { self.expanded(&unescaped(&value), lookup)? } else { value };
                    self.rest = &text[at + 1..];
                    return Ok(value);
                }
                (letter, _) => {
                    if is_escaped && letter != quote {
                        value.push('\\');
                    }
                    is_escaped = false;
                    value.push(letter);
                }
            }
        }
        Err(self.mistake(format!("the value begins with {quote} and never ends")))
    }

    fn expanded<'a>(&mut self, value: &str, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Result<String, Mistake> {
        let known = either(lookup, &self.known);
        let interpolator = Interpolator::within(self.room, Dialect::Compose, &known);
        let (result, room) = (interpolator.interpolate(value), interpolator.room());
        self.room = room;
        result.map(|found| found.text).map_err(|error| self.mistake(error.to_string()))
    }
}

/// The value of a variable outside a file, or else of one in it.
fn either<'a: 'k, 'k>(
    outside: &'k dyn Fn(&str) -> Option<&'a str>,
    known: &'k HashMap<String, String>,
) -> impl Fn(&str) -> Option<&'k str> {
    move |name| outside(name).or_else(|| known.get(name).map(String::as_str))
}

/// White space within a line, as compose-go has it.
fn is_blank(letter: char) -> bool {
    matches!(letter, '\t' | '\x0b' | '\x0c' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

/// Escapes as in C, but for `\\c`, and `\\$` as `$$`. Three digits after `\\0` are an octal number; with fewer the zero alone is left out.
fn unescaped(text: &str) -> String {
    let (mut result, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let Some(letter) = after.chars().next() else {
            rest = &rest[at..];
            break;
        };
        let mut width = letter.len_utf8();
        match letter {
            'a' => result.push('\x07'),
            'b' => result.push('\x08'),
            'f' => result.push('\x0c'),
            'n' => result.push('\n'),
            'r' => result.push('\r'),
            't' => result.push('\t'),
            'v' => result.push('\x0b'),
            '"' | '\\' => result.push(letter),
            '$' => result.push_str("$$"),
            '0' => {
                let digits = after[1..].bytes().take(3).take_while(u8::is_ascii_digit).count();
                let digits = &after[1..=digits];
                width += digits.len();
                match u8::from_str_radix(digits, 8) {
                    Ok(code) if digits.len() == 3 => result.push(char::from(code)),
                    _ => {
                        result.push('\\');
                        result.push_str(digits);
                    }
                }
            }
            other => {
                result.push('\\');
                result.push(other);
            }
        }
        rest = &after[width..];
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        (name == "OUTER").then_some("outside")
    }

    fn read(dialect: Dialect, text: &str) -> Result<Vec<Variable>, Mistake> {
        variables(&Source::of(".env", text.as_bytes()).expect("text"), dialect, &lookup)
    }

    /// Files, with the variables that docker/cli 29.9.3 and compose-go 2.16.2 find in them when OUTER is set; null is an error. Written by a
    /// program that calls both.
    const CASES: &str = include_str!("../../tests/data/swarm/env_files.json");

    #[test]
    fn each_program_is_followed() {
        type Found = Option<HashMap<String, String>>;
        for (text, stack, compose) in
            serde_json::from_str::<Vec<(String, Found, Found)>>(CASES).expect("a list of three")
        {
            for (dialect, expected) in [(Dialect::Stack, stack), (Dialect::Compose, compose)] {
                let found = read(dialect, &text);
                let found_values: Found = found.as_ref().ok().map(|found| {
                    let value = |variable: &Variable| {
                        variable.value.clone().or_else(|| lookup(&variable.name).map(str::to_owned))
                    };
                    found.iter().filter_map(|variable| Some((variable.name.clone(), value(variable)?))).collect()
                });
                assert_eq!(found_values, expected, "{dialect:?} {text:?}: {found:?}");
            }
        }
    }

    #[test]
    fn places_are_those_of_the_names() {
        let text = "# top\r\n\r\n  A=1\r\nexport B='x\ny'\nC\n";
        let places = |dialect| {
            let found = read(dialect, text).expect("read");
            found
                .iter()
                .map(|variable| format!("{} {}:{}", variable.name, variable.at.line, variable.at.column))
                .collect::<Vec<_>>()
        };
        assert_eq!(places(Dialect::Compose), ["A 3:3", "B 4:8", "C 6:1"]);
        assert!(
            read(Dialect::Stack, text).expect_err("blanks").to_string().starts_with(".env:4:1: the name 'export B'")
        );
        let found = read(Dialect::Compose, "A=1\nB=\"x\n").expect_err("no end");
        assert_eq!(found.to_string(), ".env:2:3: the value begins with \" and never ends");
    }

    #[test]
    fn values_that_repeat_others_stay_small() {
        let text = (1..64).fold("A0=0123456789\n".to_owned(), |text, number| {
            text + &format!("A{number}=$A{before}$A{before}\n", before = number - 1)
        });
        assert!(read(Dialect::Compose, &text).expect_err("too large").message.contains("more than"));
    }
}
