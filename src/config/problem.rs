//! Problems of settings.

use std::fmt;

use crate::base::Fault;

/// A problem of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Dotted key, such as `server.listen` or `models.0.name`; or the file for a problem of the whole file.
    pub key: String,
    /// Where the value came from: a file with the line, a variable, an option.
    pub origin: String,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.message)
    }
}

/// All problems of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration has problems:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Always the operator's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}
