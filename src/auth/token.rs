//! The secret itself.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::files::FileError;
use crate::base::{Digest, Fault};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Distinguishes Cairn's tokens from others, for people and for scanners of leaked secrets.
const PREFIX: &str = "cairn_";

/// A secret; its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new random token.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn random() -> Result<Self, TokenError> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|source| TokenError::Random { source })?;
        Ok(Self(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The text to hand to a client.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn digest(&self) -> Digest {
        digest_of(&self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The digest that is stored for a token.
pub(super) fn digest_of(token: &str) -> Digest {
    Digest::of_parts([&b"cairn node token"[..], token.as_bytes()])
}

/// Why tokens could not be read, created or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file's content is invalid.
    #[error("{path} is not a token file; remove it, and the next start creates a new token")]
    Content {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The file of `server.token_file` does not contain a token.
    #[error("{path} holds no token: expected one line of at least {least} visible characters")]
    Weak {
        /// The file.
        path: std::path::PathBuf,
        /// Fewest characters.
        least: usize,
    },
    /// The name is invalid.
    #[error("invalid token name '{name}': expected 1 to 64 letters, digits, '.', '_', '-' or '@'")]
    Name {
        /// The given name.
        name: String,
    },
    /// The name is that of a token which is not in the file.
    #[error("a token cannot be named '{name}': that is how the log names {what}; choose another name")]
    Reserved {
        /// The name.
        name: String,
        /// The token that has it.
        what: &'static str,
    },
    /// A token with this name exists.
    #[error("there is a token named '{name}' already; revoke it first, or choose another name")]
    Exists {
        /// Its name.
        name: String,
    },
    /// No token has this name.
    #[error("there is no token named '{name}'; `cairn token list` shows all")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The maximum number of tokens exists.
    #[error("there are already {most} tokens, the most a node keeps; revoke one first")]
    TooMany {
        /// The limit.
        most: usize,
    },
    /// The system's random source failed.
    #[error("cannot create a token: the system's random source failed")]
    Random {
        /// The system's error.
        source: getrandom::Error,
    },
}

impl TokenError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Random { .. } => Fault::Environment,
            Self::Content { .. } => Fault::Damage,
            Self::Weak { .. }
            | Self::Name { .. }
            | Self::Reserved { .. }
            | Self::Exists { .. }
            | Self::Unknown { .. }
            | Self::TooMany { .. } => Fault::Caller,
        }
    }
}
