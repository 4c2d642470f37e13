//! What is wrong with settings.

use std::fmt;

use crate::base::Fault;
pub use crate::base::tree::Problem;

/// Everything wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
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
