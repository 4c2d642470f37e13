//! Who may come in: the node token, and the one check that every listener makes.
//!
//! Invariants: a token is random and shown once; what is kept is its digest, in a file that only the owner reads. A
//! loopback listener asks for nothing, because whoever reaches it can read the data directory's owner's files as well
//! or is kept out by the machine; every other listener asks for the token unless the operator says otherwise.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::base::{Digest, Fault, UnixMillis};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Tells our tokens from others, for people and for scanners of leaked secrets.
const PREFIX: &str = "cairn_";

/// A secret; its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new random token.
    ///
    /// # Errors
    /// When the system has no random numbers.
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

    fn digest(&self) -> Digest {
        digest_of(&self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

fn digest_of(token: &str) -> Digest {
    Digest::of_parts([&b"cairn node token"[..], token.as_bytes()])
}

/// Why the node's token could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} is no token file; remove it, and the next start makes a new token")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The system has no random numbers.
    #[error("no random numbers for a token")]
    Random {
        /// What it said.
        source: getrandom::Error,
    },
}

impl TokenError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File { .. } | Self::Random { .. } => Fault::Environment,
            Self::Content { .. } => Fault::Damage,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct TokenFile {
    blake3: String,
    created: String,
}

/// The digest of the node's token, made with a new token when there is none or `renew` is set; the token itself is
/// returned only then.
///
/// # Errors
/// See [`TokenError`].
pub fn node_token(data_dir: &Path, renew: bool, now: UnixMillis) -> Result<(Digest, Option<Token>), TokenError> {
    let path = data_dir.join("token.json");
    let failed = |source| TokenError::File { path: path.clone(), source };
    if !renew {
        match fs::read(&path) {
            Ok(bytes) => {
                let file: Result<TokenFile, _> = serde_json::from_slice(&bytes);
                let digest = file.and_then(|file| file.blake3.parse().map_err(serde::de::Error::custom));
                return match digest {
                    Ok(digest) => Ok((digest, None)),
                    Err(source) => Err(TokenError::Content { path, source }),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let token = Token::random()?;
    let file = TokenFile { blake3: token.digest().to_string(), created: now.to_string() };
    let text = serde_json::to_vec_pretty(&file).expect("plain data serialises");
    let partial = data_dir.join("token.partial");
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        fs::File::open(data_dir)?.sync_all()
    };
    write().map_err(failed)?;
    Ok((token.digest(), Some(token)))
}

/// Who made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    /// Somebody on this machine.
    Local,
    /// Somebody with the node's token.
    Token,
}

/// Why a request is not let in. Says nothing of what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token came with it.
    #[error("this listener asks for the node's token: send `Authorization: Bearer TOKEN`")]
    Missing,
    /// Another token came with it.
    #[error("the token is not this node's")]
    Wrong,
}

/// The check at a listener.
#[derive(Debug, Clone)]
pub struct Door {
    /// `None`: everybody who reaches the listener may come in.
    accepted: Option<Vec<Digest>>,
}

impl Door {
    /// A door that asks for nothing.
    #[must_use]
    pub fn open() -> Self {
        Self { accepted: None }
    }

    /// A door that asks for a token with one of these digests.
    #[must_use]
    pub fn guarded(accepted: Vec<Digest>) -> Self {
        Self { accepted: Some(accepted) }
    }

    /// The digest of a token of this run only, for the command line of the same user.
    #[must_use]
    pub fn digest(token: &Token) -> Digest {
        token.digest()
    }

    /// Decides on a request.
    ///
    /// * `authorization`: the value of its `Authorization` header.
    ///
    /// # Errors
    /// When it may not come in.
    pub fn admit(&self, authorization: Option<&str>) -> Result<Principal, Refusal> {
        let Some(accepted) = &self.accepted else { return Ok(Principal::Local) };
        let (scheme, token) = authorization.and_then(|value| value.split_once(' ')).ok_or(Refusal::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::Missing);
        }
        let digest = blake3::Hash::from_bytes(digest_of(token.trim()).0);
        // blake3 compares in constant time; every digest is looked at, so the time tells nothing.
        let known = accepted.iter().filter(|known| digest == blake3::Hash::from_bytes(known.0)).count();
        if known > 0 { Ok(Principal::Token) } else { Err(Refusal::Wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_door_lets_in_its_token_only() {
        let (token, other) = (Token::random().expect("random"), Token::random().expect("random"));
        let door = Door::guarded(vec![Door::digest(&token)]);
        assert_eq!(door.admit(Some(&format!("Bearer {}", token.reveal()))), Ok(Principal::Token));
        assert_eq!(door.admit(Some(&format!("bearer {}", token.reveal()))), Ok(Principal::Token));
        assert_eq!(door.admit(Some(&format!("Bearer {}", other.reveal()))), Err(Refusal::Wrong));
        assert_eq!(door.admit(Some("Basic abc")), Err(Refusal::Missing));
        assert_eq!(door.admit(None), Err(Refusal::Missing));
        assert_eq!(Door::open().admit(None), Ok(Principal::Local));
    }

    #[test]
    fn a_token_is_shown_once_and_kept_as_a_digest() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (digest, shown) = node_token(directory.path(), false, UnixMillis(0)).expect("made");
        let shown = shown.expect("new");
        assert_eq!(node_token(directory.path(), false, UnixMillis(0)).expect("read"), (digest, None));
        let kept = fs::read_to_string(directory.path().join("token.json")).expect("read");
        assert!(!kept.contains(shown.reveal()) && kept.contains(&digest.to_string()));
        let (renewed, _) = node_token(directory.path(), true, UnixMillis(0)).expect("renewed");
        assert_ne!(renewed, digest);
        assert_eq!(format!("{shown:?}"), "Token(…)");
    }
}
