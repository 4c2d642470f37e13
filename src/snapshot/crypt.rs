//! Encryption of a repository's files: the age format (<https://age-encryption.org/v1>) with one X25519 key of the
//! operator, so that the `age` command can open the files and `age-keygen` can create keys.
//!
//! Invariants: no plain text is returned before its block's tag was verified; a file that was truncated, extended or
//! assembled from others is refused. Memory: one block of 64 KiB, and the header's [`HEADER_MAX`] at most.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use age::{Decryptor, Encryptor};

use crate::base::{Fault, small_file};

/// Longer headers are none of ours: one for a single key has 200 bytes. The library would read a header of any length.
const HEADER_MAX: u64 = 64 << 10;
/// The most by which a short file grows: its header, and the tag of its first block.
pub(super) const OVERHEAD_MAX: u64 = HEADER_MAX + 16;
/// The line that a header ends with begins so.
const HEADER_END: &[u8] = b"\n---";

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path} holds no age key: one line of it is expected to begin with AGE-SECRET-KEY-1, as `cairn snapshot keygen` writes it"
    )]
    Content {
        /// Which one.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write the key file {path}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl KeyError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Content { .. } => Fault::Caller,
            Self::Write { .. } => Fault::Environment,
        }
    }
}

/// A repository's key.
#[derive(Clone)]
pub struct Key(Identity);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Reads a key file: comments, and the secret key on a separate line.
    ///
    /// # Errors
    /// When it cannot be read or contains no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text =
            small_file::read_to_string(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let key = lines.next().and_then(|line| line.parse().ok());
        key.map(Self).ok_or_else(|| KeyError::Content { path: path.to_owned() })
    }

    /// A warning about a key file that users other than its owner and group can read.
    #[must_use]
    pub fn exposure(path: &Path) -> Option<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o007 != 0)
            .then(|| format!("everybody on this machine may read {} (mode {mode:04o}); `chmod 600` it", path.display()))
    }

    /// Writes a new key to a file that does not exist yet, readable by its owner only.
    ///
    /// # Errors
    /// When there is such a file, or it cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let key = Identity::generate();
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "# public key: {}\n{}", key.to_public(), key.to_string().expose_secret())?;
            file.sync_all()
        };
        write().map_err(|source| KeyError::Write { path: path.to_owned(), source })?;
        Ok(Self(key))
    }

    /// Encrypts everything that `plain` yields.
    pub(super) fn encrypt(&self, mut plain: impl Read, out: impl Write) -> io::Result<()> {
        let recipient = self.0.to_public();
        // Our own type: the crate's errors include translations into twenty languages, and a macro that orders them
        // randomly, so that no two builds are equal. A key of this kind is always accepted.
        let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            .map_err(|_| io::Error::other("nothing can be encrypted for this key"))?;
        let mut sealed = encryptor.wrap_output(out)?;
        io::copy(&mut plain, &mut sealed)?;
        sealed.finish()?.flush()
    }

    /// Decrypts a file. An error of kind `InvalidData` means a wrong key or a damaged file.
    pub(super) fn decrypt(&self, mut stored: impl Read, mut out: impl Write) -> io::Result<()> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the key is another one, or the file is damaged");
        let mut head = Vec::new();
        stored.by_ref().take(HEADER_MAX).read_to_end(&mut head)?;
        if !head.windows(HEADER_END.len()).any(|bytes| bytes == HEADER_END) {
            return Err(wrong());
        }
        let decryptor = Decryptor::new(head.as_slice().chain(stored)).map_err(|_| wrong())?;
        let identity = std::iter::once(&self.0 as &dyn age::Identity);
        let mut plain = decryptor.decrypt(identity).map_err(|_| wrong())?;
        let mut block = vec![0; 64 << 10];
        loop {
            match plain.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(read) => out.write_all(&block[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Errors that the reader detects are of this type; others come from the disk.
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                    return Err(wrong());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 64 << 10;

    fn sealed(key: &Key, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        key.encrypt(plain, &mut out).expect("encrypted");
        out
    }

    fn opened(key: &Key, stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        key.decrypt(stored, &mut out).map(|()| out)
    }

    #[test]
    fn any_length_survives_and_only_with_its_key() {
        let [key, other] = [(); 2].map(|()| Key(Identity::generate()));
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let plain: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let stored = sealed(&key, &plain);
            assert_eq!(opened(&key, &stored).expect("decrypted"), plain);
            assert_eq!(opened(&other, &stored).expect_err("another key").kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_file_that_was_changed_cut_or_extended_is_refused() {
        let key = Key(Identity::generate());
        let stored = sealed(&key, &vec![1; BLOCK + 100]);
        let body = stored.len() - (BLOCK + 16) - (100 + 16);
        let places = (0..body).chain([body, body + BLOCK, body + BLOCK + 16, stored.len() - 1]);
        for at in places {
            let mut flipped = stored.clone();
            flipped[at] ^= 1;
            let error = opened(&key, &flipped).expect_err("flipped");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
            assert!(opened(&key, &stored[..at]).is_err(), "cut to {at}");
        }
        assert!(opened(&key, &[&stored[..], &[0]].concat()).is_err());
        assert!(opened(&key, &vec![b'x'; 1 << 20]).is_err());
    }

    #[test]
    fn a_key_file_is_one_of_age() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let key = Key::generate(&path).expect("made");
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.starts_with("# public key: age1") && text.contains("\nAGE-SECRET-KEY-1"), "{text}");
        let stored = sealed(&key, b"plain");
        assert_eq!(opened(&Key::read(&path).expect("a key"), &stored).expect("decrypted"), b"plain");
        fs::write(&path, "secret\n").expect("written");
        assert!(matches!(Key::read(&path), Err(KeyError::Content { .. })));
    }
}
