//! `$NAME` and `${NAME…}` in the values of a file, by the rules of the program that it was written for.
//!
//! The two programs differ, and a file that both read may mean two things. Invariants: the environment of this process is not looked at;
//! what a file's values come to has at most [`ROOM`] bytes, however often they name a large variable.

use std::cell::Cell;

use super::Dialect;

/// Largest sum of what is put in, in bytes.
pub(super) const ROOM: usize = 16 << 20;
/// Deepest nesting of variables in the defaults of others.
const DEPTH_MAX: usize = 32;

/// Why a value cannot be interpolated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpolationError {
    /// A `$` begins nothing that the program reads.
    #[error("'{found}' is not a variable for {program}; write $$ where a dollar sign is meant")]
    Syntax {
        /// From the dollar sign on, shortened.
        found: String,
        /// Whose rules they are.
        program: &'static str,
    },
    /// The file says that a variable has to have a value.
    #[error("the variable {name} is required{}{message}; set it in the file of --env-file", if message.is_empty() { "" } else { ": " })]
    Required {
        /// Its name.
        name: String,
        /// What the file says about it.
        message: String,
    },
    /// Defaults within defaults.
    #[error("variables are nested deeper than {DEPTH_MAX}")]
    Depth,
    /// Variables that are large, or many.
    #[error("the values of variables take more than {ROOM} bytes")]
    Size,
}

/// What a value came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interpolated {
    /// The value.
    pub text: String,
    /// Variables that have no value and no default. They are replaced by nothing, which the program does, too, with a warning.
    pub unset: Vec<String>,
    /// Variables that the file requires, and that the program does not: docker/cli takes `${NAME:?no-value}` for `NAME:?no` with the default
    /// `value`, because it looks for `-` before `?`. The default is in the text.
    pub misread: Vec<String>,
}

/// Interpolates the values of one set of files.
pub struct Interpolator<'l, 'a> {
    dialect: Dialect,
    lookup: &'l dyn Fn(&str) -> Option<&'a str>,
    room: Cell<usize>,
}

/// What follows a name in braces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `-`, `:-`
    Default,
    /// `?`, `:?`
    Required,
    /// `+`, `:+`
    Alternative,
}

impl<'l, 'a> Interpolator<'l, 'a> {
    /// * `lookup`: the value of a variable.
    #[must_use]
    pub fn new(dialect: Dialect, lookup: &'l dyn Fn(&str) -> Option<&'a str>) -> Self {
        Self::within(ROOM, dialect, lookup)
    }

    /// * `room`: as [`ROOM`].
    pub(super) fn within(room: usize, dialect: Dialect, lookup: &'l dyn Fn(&str) -> Option<&'a str>) -> Self {
        Self { dialect, lookup, room: Cell::new(room) }
    }

    /// What is left of the room.
    pub(super) fn room(&self) -> usize {
        self.room.get()
    }

    /// Replaces the variables in a value.
    ///
    /// # Errors
    /// See [`InterpolationError`].
    pub fn interpolate(&self, text: &str) -> Result<Interpolated, InterpolationError> {
        let mut result = Interpolated::default();
        match self.dialect {
            Dialect::Stack => self.stack(text, &mut result)?,
            Dialect::Compose => self.compose(text, 0, &mut result)?,
        }
        Ok(result)
    }

    /// docker/cli, `cli/compose/template`: `\$(?i:(\$)|(NAME)|{(NAME)})` with NAME `[_a-z][_a-z0-9]*(?::?[-?][^}]*)?`, which makes
    /// `$X-y` a variable with a default, too.
    fn stack(&self, text: &str, result: &mut Interpolated) -> Result<(), InterpolationError> {
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            self.push(&rest[..at], result)?;
            let after = &rest[at + 1..];
            let syntax = || syntax(&rest[at..], "docker stack deploy");
            if let Some(escaped) = after.strip_prefix('$') {
                self.push("$", result)?;
                rest = escaped;
                continue;
            }
            let inner = after.strip_prefix('{').unwrap_or(after);
            let name = name_of(inner).ok_or_else(syntax)?;
            let has_operator = operator(&inner[name.len()..]).is_some_and(|(kind, _)| kind != Operator::Alternative);
            let end = if has_operator { inner.find('}').unwrap_or(inner.len()) } else { name.len() };
            rest = &inner[end..];
            if inner.len() < after.len() {
                rest = rest.strip_prefix('}').ok_or_else(syntax)?;
            }
            self.stack_variable(&inner[..end], result)?;
        }
        self.push(rest, result)
    }

    /// The separators in the order in which docker/cli looks for them, anywhere in the braces.
    fn stack_variable(&self, variable: &str, result: &mut Interpolated) -> Result<(), InterpolationError> {
        let own = name_of(variable).unwrap_or_default();
        let is_required = variable[own.len()..].trim_start_matches(':').starts_with('?');
        for (separator, may_be_empty) in [(":-", false), ("-", true)] {
            if let Some((name, default)) = variable.split_once(separator) {
                if is_required {
                    result.misread.push(own.to_owned());
                }
                let value = (self.lookup)(name).filter(|value| may_be_empty || !value.is_empty());
                return self.push(value.unwrap_or(default), result);
            }
        }
        for (separator, may_be_empty) in [(":?", false), ("?", true)] {
            if let Some((name, message)) = variable.split_once(separator) {
                let value = (self.lookup)(name).filter(|value| may_be_empty || !value.is_empty());
                let missing =
                    || InterpolationError::Required { name: name.to_owned(), message: message.trim().to_owned() };
                return self.push(value.ok_or_else(missing)?, result);
            }
        }
        self.plain(variable, result)
    }

    /// compose-go, `template`: `\$(?i:(\$)|(NAME)|{(NAME(?::?[-+?](.*))?)})` with NAME `[_a-z][_a-z0-9]*`; any other `$` stays, and what
    /// stands after an operator is interpolated itself.
    fn compose(&self, text: &str, depth: usize, result: &mut Interpolated) -> Result<(), InterpolationError> {
        if depth > DEPTH_MAX {
            return Err(InterpolationError::Depth);
        }
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            self.push(&rest[..at], result)?;
            let after = &rest[at + 1..];
            if let Some(inner) = after.strip_prefix('{') {
                let syntax = || syntax(&rest[at..], "docker compose");
                let name = name_of(inner).ok_or_else(syntax)?;
                let tail = &inner[name.len()..];
                if let Some(behind) = tail.strip_prefix('}') {
                    self.plain(name, result)?;
                    rest = behind;
                    continue;
                }
                let (kind, width) = operator(tail).ok_or_else(syntax)?;
                let end = closing_brace(tail).ok_or_else(syntax)?;
                self.compose_variable(name, (kind, width == 2), &tail[width..end], depth, result)?;
                rest = &tail[end + 1..];
            } else if let Some(name) = name_of(after) {
                self.plain(name, result)?;
                rest = &after[name.len()..];
            } else {
                // `$$` is one dollar sign, and one alone is another.
                self.push("$", result)?;
                rest = after.strip_prefix('$').unwrap_or(after);
            }
        }
        self.push(rest, result)
    }

    fn compose_variable(
        &self,
        name: &str,
        (kind, is_strict): (Operator, bool),
        argument: &str,
        depth: usize,
        result: &mut Interpolated,
    ) -> Result<(), InterpolationError> {
        let value = (self.lookup)(name).filter(|value| !is_strict || !value.is_empty());
        match (kind, value) {
            (Operator::Default | Operator::Required, Some(value)) => self.push(value, result),
            (Operator::Default, None) | (Operator::Alternative, Some(_)) => self.compose(argument, depth + 1, result),
            (Operator::Alternative, None) => Ok(()),
            (Operator::Required, None) => {
                let mut message = Interpolated::default();
                self.compose(argument, depth + 1, &mut message)?;
                let message = message.text.trim().to_owned();
                Err(InterpolationError::Required { name: name.to_owned(), message })
            }
        }
    }

    /// A variable without an operator.
    fn plain(&self, name: &str, result: &mut Interpolated) -> Result<(), InterpolationError> {
        match (self.lookup)(name) {
            Some(value) => self.push(value, result),
            None => {
                result.unset.push(name.to_owned());
                Ok(())
            }
        }
    }

    fn push(&self, text: &str, result: &mut Interpolated) -> Result<(), InterpolationError> {
        let left = self.room.get().checked_sub(text.len()).ok_or(InterpolationError::Size)?;
        self.room.set(left);
        result.text.push_str(text);
        Ok(())
    }
}

/// The name at the beginning of a text: `[_a-zA-Z][_a-zA-Z0-9]*`.
fn name_of(text: &str) -> Option<&str> {
    let is_name = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    let end = text.bytes().position(|byte| !is_name(byte)).unwrap_or(text.len());
    (end > 0 && !text.as_bytes()[0].is_ascii_digit()).then(|| &text[..end])
}

/// The operator at the beginning of a text, and its width in bytes: 2 with a colon, which means that an empty value is none.
fn operator(text: &str) -> Option<(Operator, usize)> {
    let bare = text.strip_prefix(':').unwrap_or(text);
    let kind = match bare.bytes().next()? {
        b'-' => Operator::Default,
        b'?' => Operator::Required,
        b'+' => Operator::Alternative,
        _ => return None,
    };
    Some((kind, text.len() - bare.len() + 1))
}

/// Where the brace is closed that is open at the beginning of a text: at its own, or where braces do not match at the last one of the line, as
/// compose-go has it, whose pattern does not look beyond the line.
fn closing_brace(text: &str) -> Option<usize> {
    let line = &text[..text.find('\n').unwrap_or(text.len())];
    let last = line.rfind('}')?;
    let (mut open, mut at, bytes) = (1, 0, line.as_bytes());
    while at <= last {
        match bytes[at] {
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            b'{' => {
                open += 1;
                // compose-go passes over what follows an opening brace.
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    Some(last)
}

/// What is not a variable: up to its brace, or the dollar sign with the letter behind it. The rest may be a password.
fn syntax(text: &str, program: &'static str) -> InterpolationError {
    let line = text.lines().next().unwrap_or_default();
    let end = line.find('}').map(|at| at + 1).filter(|_| line.starts_with("${"));
    let most = if end.is_some() { 40 } else { 2 };
    let part = &line[..end.unwrap_or(line.len())];
    let found = match part.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &part[..end]),
        None => part.to_owned(),
    };
    InterpolationError::Syntax { found, program }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        Some(match name {
            "TAG" => "2",
            "EMPTY" => "",
            "_x1" => "under",
            _ => return None,
        })
    }

    fn text(dialect: Dialect, value: &str) -> String {
        Interpolator::new(dialect, &lookup).interpolate(value).expect(value).text
    }

    fn refusal(dialect: Dialect, value: &str) -> String {
        Interpolator::new(dialect, &lookup).interpolate(value).expect_err(value).to_string()
    }

    /// Values, with what docker/cli 29.9.3 and compose-go 2.16.2 make of them; null is an error. Written by a program that calls both with
    /// the variables above.
    const CASES: &str = include_str!("../../tests/data/swarm/interpolation.json");

    #[test]
    fn each_program_is_followed() {
        type Case = (String, Option<String>, Option<String>);
        for (value, stack, compose) in serde_json::from_str::<Vec<Case>>(CASES).expect("a list of three") {
            for (dialect, expected) in [(Dialect::Stack, stack), (Dialect::Compose, compose)] {
                let found = Interpolator::new(dialect, &lookup).interpolate(&value);
                assert_eq!(
                    found.as_ref().ok().map(|found| &found.text),
                    expected.as_ref(),
                    "{dialect:?} {value:?}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        assert_eq!(
            refusal(Dialect::Stack, "r/x:${TAG:+y}"),
            "'${TAG:+y}' is not a variable for docker stack deploy; write $$ where a dollar sign is meant"
        );
        assert!(refusal(Dialect::Stack, "a$-secret").starts_with("'$-…' is not a variable"));
        assert_eq!(
            refusal(Dialect::Compose, "${NONE:?set ${TAG}}"),
            "the variable NONE is required: set 2; set it in the file of --env-file"
        );
        assert_eq!(
            refusal(Dialect::Stack, "${NONE?}"),
            "the variable NONE is required; set it in the file of --env-file"
        );
    }

    #[test]
    fn what_is_missing_or_misread_is_named() {
        let found = Interpolator::new(Dialect::Stack, &lookup).interpolate("$NONE ${OTHER} ${X:?a-b}").expect("text");
        assert_eq!((found.text.as_str(), found.unset), ("  b", vec!["NONE".to_owned(), "OTHER".to_owned()]));
        assert_eq!(found.misread, ["X"]);
    }

    #[test]
    fn hostile_values_are_refused() {
        let deep = format!("{}{}", "${X:-".repeat(40), "}".repeat(40));
        assert_eq!(refusal(Dialect::Compose, &deep), InterpolationError::Depth.to_string());
        assert_eq!(text(Dialect::Stack, &deep), "${X:-".repeat(39) + &"}".repeat(39));
        for closed in [1, 1 << 16] {
            let open = "${X:-{".repeat(1 << 16) + &"}".repeat(closed);
            Interpolator::new(Dialect::Compose, &lookup).interpolate(&open).expect_err("refused");
        }
        let large = "x".repeat(1 << 20);
        let large: &'static str = large.leak();
        let found = Interpolator::new(Dialect::Compose, &|_| Some(large)).interpolate(&"$A".repeat(17));
        assert_eq!(found, Err(InterpolationError::Size));
    }
}
