//! Encryption of a repository's files with a key of the operator. The layout is in `FORMAT.md`.
//!
//! Invariants: no byte of plain text is handed out before its block's tag was checked; a file that was cut, extended or
//! put together from others is refused. Memory: one block.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use crate::base::{Digest, Fault};

const MAGIC: &[u8; 8] = b"CAIRNEN1";
const SALT: usize = 32;
const BLOCK: usize = 64 << 10;
const TAG: usize = 16;
const WORD: &str = "CAIRN-SNAPSHOT-KEY-1 ";

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} is no key file of `cairn snapshot keygen`")]
    Content {
        /// Which one.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write the key file {path}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("no random numbers for a key")]
    Random {
        /// What it said.
        source: getrandom::Error,
    },
}

impl KeyError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Content { .. } => Fault::Caller,
            Self::Write { .. } | Self::Random { .. } => Fault::Environment,
        }
    }
}

/// A repository's key.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Reads a key file.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        let digits = text.trim().strip_prefix(WORD);
        let key = digits.and_then(|digits| digits.parse::<Digest>().ok());
        key.map(|Digest(key)| Self(key)).ok_or_else(|| KeyError::Content { path: path.to_owned() })
    }

    /// Writes a new key to a file that does not exist yet, readable by its owner only.
    ///
    /// # Errors
    /// When there is such a file, or it cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|source| KeyError::Random { source })?;
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{WORD}{}", Digest(key))?;
            file.sync_all()
        };
        write().map_err(|source| KeyError::Write { path: path.to_owned(), source })?;
        Ok(Self(key))
    }

    /// Encrypts everything that `plain` yields.
    pub(super) fn encrypt(&self, mut plain: impl Read, mut out: impl Write) -> io::Result<()> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        out.write_all(MAGIC)?;
        out.write_all(&salt)?;
        let key = self.for_file(&salt);
        let (mut block, mut next) = (Vec::new(), Vec::new());
        read_block(&mut plain, &mut block, BLOCK)?;
        for number in 0u64.. {
            // Only the end of the input tells which block is the last.
            let is_last = block.len() < BLOCK || {
                read_block(&mut plain, &mut next, BLOCK)?;
                next.is_empty()
            };
            key.seal_in_place_append_tag(nonce(number, is_last), Aad::empty(), &mut block)
                .map_err(|_| io::Error::other("encryption failed"))?;
            out.write_all(&block)?;
            if is_last {
                break;
            }
            std::mem::swap(&mut block, &mut next);
        }
        Ok(())
    }

    /// Decrypts a file. An error of kind `InvalidData` means a wrong key or a damaged file.
    pub(super) fn decrypt(&self, mut stored: impl Read, mut out: impl Write) -> io::Result<()> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the key is another one, or the file is damaged");
        let mut head = [0; MAGIC.len() + SALT];
        stored.read_exact(&mut head).map_err(|_| wrong())?;
        let (magic, salt) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(wrong());
        }
        let key = self.for_file(salt);
        let (mut block, mut next) = (Vec::new(), Vec::new());
        read_block(&mut stored, &mut block, BLOCK + TAG)?;
        for number in 0u64.. {
            let is_last = block.len() < BLOCK + TAG || {
                read_block(&mut stored, &mut next, BLOCK + TAG)?;
                next.is_empty()
            };
            let plain = key.open_in_place(nonce(number, is_last), Aad::empty(), &mut block).map_err(|_| wrong())?;
            out.write_all(plain)?;
            if is_last {
                break;
            }
            std::mem::swap(&mut block, &mut next);
        }
        Ok(())
    }

    fn for_file(&self, salt: &[u8]) -> LessSafeKey {
        let secret = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let expanded = secret.expand(&[b"cairn snapshot 1"], &CHACHA20_POLY1305);
        LessSafeKey::new(UnboundKey::from(expanded.expect("the length is the algorithm's own")))
    }
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}

/// Fills `block` with up to `length` bytes; fewer only at the end.
fn read_block(from: &mut impl Read, block: &mut Vec<u8>, length: usize) -> io::Result<()> {
    block.clear();
    from.by_ref().take(length as u64).read_to_end(block)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Key([7; 32]).encrypt(plain, &mut out).expect("encrypted");
        out
    }

    fn opened(key: u8, stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Key([key; 32]).decrypt(stored, &mut out).map(|()| out)
    }

    #[test]
    fn any_length_survives_and_only_with_its_key() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let plain: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let stored = sealed(&plain);
            assert_eq!(opened(7, &stored).expect("decrypted"), plain);
            assert_eq!(opened(8, &stored).expect_err("another key").kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_file_that_was_changed_cut_or_extended_is_refused() {
        let stored = sealed(&vec![1; BLOCK + 100]);
        for at in [0, 8, 39, 40, 41, 40 + BLOCK, 40 + BLOCK + TAG, stored.len() - 1] {
            let mut flipped = stored.clone();
            flipped[at] ^= 1;
            assert!(opened(7, &flipped).is_err(), "byte {at}");
        }
        for length in [0, 39, 40, 41, 40 + BLOCK, 40 + BLOCK + TAG, stored.len() - 1] {
            assert!(opened(7, &stored[..length]).is_err(), "cut to {length}");
        }
        assert!(opened(7, &[&stored[..], &[0]].concat()).is_err());
    }
}
