//! What is wrong with settings of the manifests.

use std::fmt::{self, Write as _};

use super::super::keys::{Variant, did_you_mean};
use crate::base::Fault;

/// Most problems that are looked for: each takes reading everything once more.
pub const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong with what is asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file and its line, where it is in a file.
    pub location: Option<String>,
    /// What is wrong.
    pub mistake: Mistake,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.iter().try_for_each(|location| write!(f, "{location}: "))?;
        // What a file has goes to a terminal, and control characters would change what it shows.
        self.mistake.to_string().chars().try_for_each(|letter| match letter.is_control() {
            true => write!(f, "{}", letter.escape_debug()),
            false => f.write_char(letter),
        })
    }
}

/// What is wrong with what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// A file that cannot be read as what it should be.
    #[error("{message}")]
    Syntax {
        /// What was found.
        message: String,
    },
    /// A key that does not exist.
    #[error("there is no key '{key}'{}; `cairn k3s render --help` lists all of them", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// What was found.
        key: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A key of something that is not rendered.
    #[error("{key} has no effect without `--with {variant}`")]
    WithoutVariant {
        /// The key.
        key: String,
        /// What it belongs to.
        variant: Variant,
    },
    /// A value that is required.
    #[error("`--with {variant}` needs `--set {key}=…`: {about}")]
    Missing {
        /// The key.
        key: String,
        /// What needs it.
        variant: Variant,
        /// What it is.
        about: String,
    },
    /// A value that the key cannot have.
    #[error("{key} is '{found}', expected {expected}")]
    Value {
        /// The key, or the option.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// An invalid token. Its value goes into no message.
    #[error("the token of --token-file (not shown) cannot be used: expected {expected}")]
    Token {
        /// What was expected.
        expected: &'static str,
    },
    /// More problems than are shown.
    #[error("there are more problems; fix these {PROBLEMS_MAX} first")]
    More,
    /// A setting of Cairn's that the manifests decide.
    #[error("config.{key} is decided by the manifests: {instead}")]
    Decided {
        /// The key.
        key: String,
        /// What to do.
        instead: &'static str,
    },
}

/// Everything that is wrong with what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manifests cannot be rendered:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for SettingsError {}

impl SettingsError {
    /// Always the caller's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}
