//! Constraints as swarmkit reads them (`manager/constraint`).
//!
//! Invariants: what swarmkit refuses is refused here. Time is linear in the text.

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `node.role`
    Role,
    /// `node.hostname`
    HostName,
    /// `node.platform.os`
    System,
    /// `node.platform.arch`
    Architecture,
    /// `node.labels.…`: the rest, whose case counts.
    NodeLabel(String),
    /// `engine.labels.…`: the rest, whose case counts.
    EngineLabel(String),
    /// `node.id`
    Id,
    /// `node.ip`
    Address,
    /// Anything else, which no node meets.
    Unknown,
}

/// A constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// What is compared.
    pub key: Key,
    /// Whether it has to differ: `!=`.
    pub is_negated: bool,
    /// What it is compared with, without regard to case.
    pub value: String,
}

/// Why swarmkit refuses a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Neither `==` nor `!=` is in it.
    #[error("found no operator, expected KEY == VALUE or KEY != VALUE")]
    Operator,
    /// Two letters at least: a letter or `_`, then letters, digits, `-`, `_` and `.`.
    #[error("the key before the operator is invalid, expected one such as node.labels.zone")]
    Key,
    /// There is nothing behind the operator.
    #[error("found no value behind the operator; is a variable not set?")]
    NoValue,
    /// Letters, digits, blanks and `:-_.*()?+[]\^$|/`.
    #[error("the value behind the operator has a character that Swarm does not allow")]
    Value,
}

impl Constraint {
    /// Reads `node.role == manager`; blanks are optional.
    ///
    /// # Errors
    /// What swarmkit refuses, with the whole service.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        // `==` is looked for first, wherever it is: `a!=b==c` has the key `a!=b`, which is invalid.
        let split = |operator| text.split_once(operator);
        let (key, value, is_negated) = match (split("=="), split("!=")) {
            (Some((key, value)), _) => (key, value, false),
            (None, Some((key, value))) => (key, value, true),
            (None, None) => return Err(ConstraintError::Operator),
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ConstraintError::Key);
        }
        if value.is_empty() {
            return Err(ConstraintError::NoValue);
        }
        if !value.chars().all(is_value_letter) {
            return Err(ConstraintError::Value);
        }
        Ok(Self { key: Key::of(key), is_negated, value: value.to_owned() })
    }
}

impl Key {
    fn of(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "node.role" => Self::Role,
            "node.hostname" => Self::HostName,
            "node.platform.os" => Self::System,
            "node.platform.arch" => Self::Architecture,
            "node.id" => Self::Id,
            "node.ip" => Self::Address,
            _ => Self::label(text).unwrap_or(Self::Unknown),
        }
    }

    /// `node.labels.X` or `engine.labels.X`: what nodes can be spread over.
    pub fn label(text: &str) -> Option<Self> {
        let behind = |prefix: &str| {
            let (start, rest) = text.split_at_checked(prefix.len())?;
            (start.eq_ignore_ascii_case(prefix) && !rest.is_empty()).then(|| rest.to_owned())
        };
        behind("node.labels.").map(Self::NodeLabel).or_else(|| behind("engine.labels.").map(Self::EngineLabel))
    }
}

fn is_key(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && text.len() > 1
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

fn is_value_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || ":-_.*()?+[]\\^$|/\t\n\x0c\r ".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_as_swarmkit_reads_them() {
        let read = |text| Constraint::parse(text).map(|found| (found.key, found.is_negated, found.value));
        let disk = || Key::NodeLabel("disk".to_owned());
        assert_eq!(read("node.labels.disk!=hdd"), Ok((disk(), true, "hdd".to_owned())));
        assert_eq!(read("  NODE.Labels.disk   ==  SSD  "), Ok((disk(), false, "SSD".to_owned())));
        assert_eq!(read("engine.labels.a.b==1"), Ok((Key::EngineLabel("a.b".to_owned()), false, "1".to_owned())));
        assert_eq!(read("Node.Role==manager").expect("valid").0, Key::Role);
        assert_eq!(read("node.ip != 210.8.4.0/24").expect("valid").0, Key::Address);
        assert_eq!(read("node.labels.==x").expect("valid for the parser").0, Key::Unknown);
        assert_eq!(read("node.role = manager"), Err(ConstraintError::Operator));
        assert_eq!(read("a!=b==c"), Err(ConstraintError::Key));
        assert_eq!(read("a==b"), Err(ConstraintError::Key), "a key has two letters");
        assert_eq!(read("node.labels.a/b==c"), Err(ConstraintError::Key));
        assert_eq!(read("node.labels.a == "), Err(ConstraintError::NoValue));
        assert_eq!(read("node.labels.a == <b"), Err(ConstraintError::Value));
        assert_eq!(read("node.labels.a == größe"), Err(ConstraintError::Value));
        // What is behind the first operator is the value, and `=` is not one of its letters.
        assert_eq!(read("node.labels.a===b"), Err(ConstraintError::Value));
    }
}
