//! The named tokens of a node: digests only, stored in `token.json` in its data directory.
//!
//! Invariants: changes are made under a lock file, so that concurrent commands lose nothing. The file is replaced in
//! one rename; a running node sees the old list or the new one. A file from the time when a node had a single token is
//! read as a token named [`NODE`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::authenticator::{FILE_TOKEN, LOCAL_TOKEN};
use super::files::{self, FileError, FileLock};
use super::token::{Token, TokenError};
use crate::base::{Digest, UnixMillis};

/// The token that the first start creates.
pub const NODE: &str = "node";
/// Tokens of a node at most. Bounds the work of a request.
const TOKENS_MAX: usize = 256;
/// Longest name.
const NAME_BYTES_MAX: usize = 64;

/// What is stored about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedToken {
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    pub created: UnixMillis,
    /// When it expires; `None`: never.
    pub expires: Option<UnixMillis>,
    pub(super) digest: Digest,
}

impl NamedToken {
    /// Whether it has expired.
    #[must_use]
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TokenFile {
    Named {
        tokens: Vec<TokenEntry>,
    },
    /// The format from the time when a node had a single token.
    Single {
        blake3: String,
        created: String,
    },
}

#[derive(Serialize, Deserialize)]
struct TokenEntry {
    name: String,
    blake3: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl TokenEntry {
    fn read(self) -> Result<NamedToken, serde_json::Error> {
        use serde::de::Error as _;
        let time = |text: &str| text.parse().map_err(serde_json::Error::custom);
        Ok(NamedToken {
            digest: self.blake3.parse().map_err(serde_json::Error::custom)?,
            created: time(&self.created)?,
            expires: self.expires.as_deref().map(time).transpose()?,
            name: self.name,
        })
    }
}

pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("token.json")
}

/// All tokens, the oldest first; `None` when there has never been one.
pub(super) fn read(data_dir: &Path) -> Result<Option<Vec<NamedToken>>, TokenError> {
    let path = path(data_dir);
    let Some(bytes) = files::read(&path)? else { return Ok(None) };
    let parse = || -> Result<Vec<NamedToken>, serde_json::Error> {
        match serde_json::from_slice(&bytes)? {
            TokenFile::Named { tokens } => tokens.into_iter().map(TokenEntry::read).collect(),
            TokenFile::Single { blake3, created } => {
                Ok(vec![TokenEntry { name: NODE.to_owned(), blake3, created, expires: None }.read()?])
            }
        }
    };
    parse().map(Some).map_err(|source| TokenError::Content { path, source })
}

fn write(data_dir: &Path, tokens: &[NamedToken]) -> Result<(), FileError> {
    let tokens = tokens.iter().map(|token| TokenEntry {
        name: token.name.clone(),
        blake3: token.digest.to_string(),
        created: token.created.to_string(),
        expires: token.expires.map(|time| time.to_string()),
    });
    let file = TokenFile::Named { tokens: tokens.collect() };
    let text = serde_json::to_vec_pretty(&file).expect("plain data serialises");
    files::write(&path(data_dir), &text)
}

fn lock(data_dir: &Path) -> Result<FileLock, FileError> {
    files::make_directory(data_dir)?;
    FileLock::acquire(data_dir, "token.lock")
}

/// All tokens, the oldest first.
///
/// # Errors
/// When the file cannot be read.
pub fn list(data_dir: &Path) -> Result<Vec<NamedToken>, TokenError> {
    Ok(read(data_dir)?.unwrap_or_default())
}

/// Creates a token; a running node accepts it within a second. The secret is returned here and never again.
///
/// # Errors
/// When the name is in use, or the file cannot be written.
pub fn create(
    data_dir: &Path,
    name: &str,
    now: UnixMillis,
    expires: Option<UnixMillis>,
) -> Result<(Token, NamedToken), TokenError> {
    let is_name_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_name_letter) {
        return Err(TokenError::Name { name: name.to_owned() });
    }
    let reserved =
        [(LOCAL_TOKEN, "the command line on the node's own machine"), (FILE_TOKEN, "the token of server.token_file")];
    if let Some((_, what)) = reserved.into_iter().find(|(reserved, _)| *reserved == name) {
        return Err(TokenError::Reserved { name: name.to_owned(), what });
    }
    let _lock = lock(data_dir)?;
    let mut tokens = list(data_dir)?;
    if tokens.iter().any(|token| token.name == name) {
        return Err(TokenError::Exists { name: name.to_owned() });
    }
    if tokens.len() >= TOKENS_MAX {
        return Err(TokenError::TooMany { most: TOKENS_MAX });
    }
    let token = Token::random()?;
    let named = NamedToken { name: name.to_owned(), created: now, expires, digest: token.digest() };
    tokens.push(named.clone());
    write(data_dir, &tokens)?;
    Ok((token, named))
}

/// Revokes a token; a running node refuses it within a second.
///
/// # Errors
/// When no token has that name, or the file cannot be written.
pub fn revoke(data_dir: &Path, name: &str) -> Result<NamedToken, TokenError> {
    let _lock = lock(data_dir)?;
    let mut tokens = list(data_dir)?;
    let Some(place) = tokens.iter().position(|token| token.name == name) else {
        return Err(TokenError::Unknown { name: name.to_owned() });
    };
    let revoked = tokens.remove(place);
    write(data_dir, &tokens)?;
    Ok(revoked)
}

/// Creates the token named [`NODE`] when the node has never had a token, or replaces it when `renew` is set. Returned
/// only when it was created.
///
/// # Errors
/// See [`TokenError`].
pub fn token_of_node(data_dir: &Path, renew: bool, now: UnixMillis) -> Result<Option<Token>, TokenError> {
    let _lock = lock(data_dir)?;
    let known = match read(data_dir) {
        Ok(Some(_)) if !renew => return Ok(None),
        Ok(known) => known.unwrap_or_default(),
        // A file that cannot be read admits nobody: it contains nothing worth keeping.
        Err(TokenError::Content { .. }) if renew => Vec::new(),
        Err(error) => return Err(error),
    };
    let token = Token::random()?;
    let made = NamedToken { name: NODE.to_owned(), created: now, expires: None, digest: token.digest() };
    let others = known.into_iter().filter(|token| token.name != NODE);
    write(data_dir, &std::iter::once(made).chain(others).collect::<Vec<_>>())?;
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_tokens_are_refused() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for name in ["local", "token_file"] {
            let refused = create(directory.path(), name, UnixMillis(0), None);
            assert!(matches!(refused, Err(TokenError::Reserved { .. })), "{name}");
        }
    }

    #[test]
    fn a_token_is_shown_once_and_kept_as_a_digest() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let shown = token_of_node(directory.path(), false, UnixMillis(0)).expect("made").expect("new");
        assert_eq!(token_of_node(directory.path(), false, UnixMillis(0)).expect("read"), None);
        let kept = std::fs::read_to_string(path(directory.path())).expect("read");
        assert!(!kept.contains(shown.reveal()) && kept.contains(&shown.digest().to_string()));
        let renewed = token_of_node(directory.path(), true, UnixMillis(0)).expect("renewed").expect("new");
        assert_ne!(renewed, shown);
        assert_eq!(format!("{shown:?}"), "Token(…)");
    }

    #[test]
    fn the_one_token_of_an_older_node_goes_on_under_a_name() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let digest = Token::random().expect("random").digest();
        let text = format!(r#"{{"blake3": "{digest}", "created": "2026-07-28T09:30:00Z"}}"#);
        std::fs::write(path(directory.path()), text).expect("written");
        create(directory.path(), "laptop", UnixMillis(0), None).expect("made");
        let tokens = list(directory.path()).expect("read");
        let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        assert_eq!((names, tokens[0].digest), (vec![NODE, "laptop"], digest));
        assert_eq!(tokens[0].created.to_string(), "2026-07-28T09:30:00Z");
    }

    #[test]
    fn names_are_used_once_and_must_be_names() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let make = |name: &str| create(directory.path(), name, UnixMillis(0), None).map(drop);
        assert!(make("laptop").is_ok());
        assert!(matches!(make("laptop"), Err(TokenError::Exists { .. })));
        for name in ["", "two words", "a/b", "ü", &"x".repeat(65)] {
            assert!(matches!(make(name), Err(TokenError::Name { .. })), "{name}");
        }
        assert!(matches!(revoke(directory.path(), "phone"), Err(TokenError::Unknown { .. })));
        revoke(directory.path(), "laptop").expect("revoked");
        assert_eq!(list(directory.path()).expect("read"), []);
        assert_eq!(
            token_of_node(directory.path(), false, UnixMillis(0)).expect("read"),
            None,
            "revoked, not made anew"
        );
    }

    #[test]
    fn many_writers_lose_nothing() {
        let directory = tempfile::tempdir().expect("temporary directory");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let data_dir = directory.path();
                scope.spawn(move || create(data_dir, &format!("t{number}"), UnixMillis(0), None).expect("made"));
            }
        });
        assert_eq!(list(directory.path()).expect("read").len(), 16);
    }
}
