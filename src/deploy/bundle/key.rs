//! Keys and signatures in minisign's format. Keys of minisign and rsign are taken as they are.

use std::fmt;
use std::io::{self, Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minisign::{SecretKeyBox, SignatureBox};

use super::super::output::{OutputError, write_whole};
use crate::base::{Fault, small_file};

/// Length of the binary form of a secret key.
const SECRET_KEY_BYTES: usize = 158;
const PUBLIC_KEY_BYTES: usize = 42;
/// ENAMETOOLONG
const NAME_TOO_LONG: i32 = 36;
/// Key files are small; what is longer is something else.
const KEY_FILE_BYTES_MAX: usize = 4 << 10;
const COMMENT_PREFIX: &str = "untrusted comment: ";
/// What signatures of Cairn, minisign and rsign begin with. This line is not signed, so nothing else may stand there.
const COMMENTS: [&str; 3] =
    ["signature from cairn secret key", "signature from minisign secret key", "signature from rsign secret key"];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read.
    #[error("cannot read the key {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A key that is there is not written over.
    #[error("{path} exists, and overwriting it would lose that key; choose another name")]
    Exists {
        /// Which one.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// It is not a secret key of minisign's format.
    #[error("{path} is not a secret key; `cairn bundle keygen` and `minisign -G` make one")]
    Secret {
        /// Which one.
        path: PathBuf,
    },
    /// It is not a public key of minisign's format.
    #[error(
        "{found:?} is not a public key; expected the .pub file of `cairn bundle keygen`, or its 56 characters that begin with RW"
    )]
    Public {
        /// What was found, shortened; of a file its name, for its content may be a secret.
        found: String,
    },
    /// It looks like the name of a file, and there is none.
    #[error("there is no file {path} with a public key")]
    Missing {
        /// Its name.
        path: PathBuf,
    },
    /// It is the other key of the pair.
    #[error("{path} is the secret key; use the public one, {}, and keep this where bundles are made", .path.with_extension("pub").display())]
    NotPublic {
        /// Which file.
        path: PathBuf,
    },
    /// It is protected, and there is no password.
    #[error("{path} is protected by a password; give it with --password-file")]
    Locked {
        /// Which one.
        path: PathBuf,
    },
    /// The password does not open it.
    #[error("{path}: the password is wrong")]
    Password {
        /// Which one.
        path: PathBuf,
    },
    /// It could not be made or used.
    #[error("the key cannot be used: {0}")]
    Other(String),
}

impl KeyError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Other(_) => Fault::Environment,
            Self::Output(error) => error.fault(),
            Self::Exists { .. }
            | Self::Secret { .. }
            | Self::Public { .. }
            | Self::Missing { .. }
            | Self::NotPublic { .. }
            | Self::Locked { .. }
            | Self::Password { .. } => Fault::Caller,
        }
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is not in minisign's format.
    #[error("its signature is not in minisign's format: {0}")]
    Form(&'static str),
    /// Another key made it.
    #[error("it is signed by key {found}, and the public key given is {expected}")]
    Key {
        /// Id of the key that signed.
        found: String,
        /// Id of the expected key.
        expected: String,
    },
    /// It is not of these bytes.
    #[error(
        "its signature does not match: it was altered after it was signed, or somebody else signed it in that key's name"
    )]
    Wrong,
}

/// A new pair of keys.
pub struct KeyPair(minisign::KeyPair);

impl KeyPair {
    /// Makes one; with a password the secret key is stored encrypted, which takes a moment on purpose.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(password: Option<&str>) -> Result<Self, KeyError> {
        let pair = match password {
            Some(password) => minisign::KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
            None => minisign::KeyPair::generate_unencrypted_keypair(),
        };
        pair.map(Self).map_err(other)
    }

    /// The part that may be known.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.pk.clone())
    }

    /// Writes the secret key to a file that only its owner can read, and the public one next to it, with `.pub` for an ending.
    /// Returns the name of the latter.
    ///
    /// # Errors
    /// [`KeyError::Exists`] when one of them is there; else when they cannot be written.
    pub fn write(&self, path: &Path) -> Result<PathBuf, KeyError> {
        let public = path.with_extension("pub");
        // A name that ends with .pub would be that of both.
        if let Some(path) = [path, &public].into_iter().find(|file| file.symlink_metadata().is_ok() || public == path) {
            return Err(KeyError::Exists { path: path.to_owned() });
        }
        let secret_text = self.0.sk.to_box(Some("cairn bundle secret key")).map_err(other)?.into_string();
        let public_text = self.0.pk.to_box().map_err(other)?.into_string();
        for (path, mode, text) in [(path, 0o600, secret_text), (&public, 0o644, public_text)] {
            write_whole::<_, KeyError>(path, mode, |out| {
                let write = |source| OutputError::Write { path: path.to_owned(), source };
                Ok(out.write_all(text.as_bytes()).map_err(write)?)
            })?;
        }
        Ok(public)
    }
}

/// A secret key as it lies in a file, perhaps protected by a password.
pub struct LockedKey {
    path: PathBuf,
    text: String,
    bytes: Vec<u8>,
}

impl LockedKey {
    /// Reads a key's file.
    ///
    /// # Errors
    /// When it cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let secret = || KeyError::Secret { path: path.to_owned() };
        let text = read_small(path)?.ok_or_else(secret)?;
        let bytes = text.lines().nth(1).and_then(|line| BASE64_STANDARD.decode(line.trim()).ok()).ok_or_else(secret)?;
        let is_known = bytes.len() == SECRET_KEY_BYTES
            && bytes.starts_with(b"Ed")
            && matches!(&bytes[2..4], b"Sc" | b"\0\0")
            && &bytes[4..6] == b"B2";
        if is_known { Ok(Self { path: path.to_owned(), text, bytes }) } else { Err(secret()) }
    }

    /// Whether a password is needed.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        &self.bytes[2..4] == b"Sc"
    }

    /// The key itself.
    ///
    /// # Errors
    /// When a password is needed and missing or wrong, or the key is damaged.
    pub fn unlock(self, password: Option<&str>) -> Result<SecretKey, KeyError> {
        let key = if self.is_protected() {
            let Some(password) = password else { return Err(KeyError::Locked { path: self.path }) };
            let opened =
                SecretKeyBox::from_string(&self.text).and_then(|key| key.into_secret_key(Some(password.to_owned())));
            opened.map_err(|_| KeyError::Password { path: self.path.clone() })?
        } else {
            // Not by way of its box: that demands a checksum, and minisign 0.11 writes none into a key without a password. Below
            // the two halves of the key are checked against each other.
            minisign::SecretKey::from_bytes(&self.bytes).map_err(|_| KeyError::Secret { path: self.path.clone() })?
        };
        let public = minisign::PublicKey::from_secret_key(&key).map_err(other)?;
        let key = SecretKey { key, public: PublicKey(public) };
        let probe = key.sign(b"probe", "probe")?;
        match key.public.verify(b"probe", probe.as_bytes()) {
            Ok(_) => Ok(key),
            Err(_) => Err(KeyError::Secret { path: self.path }),
        }
    }
}

/// A key that signs. Nothing shows it.
pub struct SecretKey {
    key: minisign::SecretKey,
    public: PublicKey,
}

impl SecretKey {
    /// Its other half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signature of some bytes, with a comment that is signed too.
    pub(super) fn sign(&self, bytes: &[u8], comment: &str) -> Result<String, KeyError> {
        let signature = minisign::sign(None, &self.key, bytes, Some(comment), Some(COMMENTS[0])).map_err(other)?;
        Ok(signature.into_string())
    }
}

/// A key that says who signed.
#[derive(Clone, Debug)]
pub struct PublicKey(minisign::PublicKey);

impl PublicKey {
    /// Reads a key from its file, or from the text itself.
    ///
    /// # Errors
    /// When it is neither.
    pub fn from_text_or_file(found: &str) -> Result<Self, KeyError> {
        if let Ok(key) = found.parse() {
            return Ok(key);
        }
        let public = || KeyError::Public { found: found.chars().take(80).collect() };
        let path = Path::new(found);
        match read_small(path) {
            Ok(text) => {
                let text = text.ok_or_else(public)?;
                text.parse().map_err(|_| {
                    if is_secret(&text) { KeyError::NotPublic { path: path.to_owned() } } else { public() }
                })
            }
            Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // A key has neither; base64 may have slashes.
                let is_name = found.contains('.') || path.parent().is_some_and(Path::is_dir) && found.len() < 40;
                Err(if is_name { KeyError::Missing { path: path.to_owned() } } else { public() })
            }
            // Longer than any name: it was to be the key itself.
            Err(KeyError::Read { source, .. }) if source.raw_os_error() == Some(NAME_TOO_LONG) => Err(public()),
            Err(error) => Err(error),
        }
    }

    /// What signatures name it by.
    #[must_use]
    pub fn id(&self) -> String {
        id(self.0.keynum())
    }

    /// Checks the signature of some bytes; returns the comment that it covers.
    pub(super) fn verify(&self, bytes: &[u8], signature: &[u8]) -> Result<String, SignatureError> {
        let text = std::str::from_utf8(signature).map_err(|_| SignatureError::Form("it is not UTF-8 text"))?;
        let lines: Vec<&str> = text.lines().collect();
        // The lengths of the two signatures in base64. The crate takes others for granted.
        if lines.len() != 4 || lines[1].len() != 100 || lines[3].len() != 88 {
            return Err(SignatureError::Form("it does not have four lines"));
        }
        let form = |_| SignatureError::Form("a line cannot be read");
        let signature = SignatureBox::from_string(text).map_err(form)?;
        let comment = signature.trusted_comment().map_err(form)?;
        if signature.to_string() != text {
            return Err(SignatureError::Form("it is not written as minisign writes it"));
        }
        if !COMMENTS.contains(&signature.untrusted_comment().map_err(form)?.as_str()) {
            return Err(SignatureError::Form("its untrusted comment is not that of a signature"));
        }
        if signature.keynum() != self.0.keynum() {
            return Err(SignatureError::Key { found: id(signature.keynum()), expected: self.id() });
        }
        minisign::verify(&self.0, &signature, Cursor::new(bytes), true, false, false)
            .map_err(|_| SignatureError::Wrong)?;
        Ok(comment)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads a key alone, or a key's file with its comment.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let public = || KeyError::Public { found: text.lines().next().unwrap_or_default().chars().take(16).collect() };
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let line = if first.starts_with(COMMENT_PREFIX) { lines.next().unwrap_or_default() } else { first };
        let bytes = BASE64_STANDARD.decode(line.trim()).map_err(|_| public())?;
        if lines.next().is_some() || bytes.len() != PUBLIC_KEY_BYTES || !bytes.starts_with(b"Ed") {
            return Err(public());
        }
        minisign::PublicKey::from_bytes(&bytes).map(Self).map_err(|_| public())
    }
}

impl fmt::Display for PublicKey {
    /// The key alone, as `minisign -P` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_base64())
    }
}

/// Whether the text of a key's file is that of a secret key, whole or not.
fn is_secret(text: &str) -> bool {
    let bytes = text.lines().nth(1).and_then(|line| BASE64_STANDARD.decode(line.trim()).ok()).unwrap_or_default();
    text.lines().next().is_some_and(|line| line.contains("secret key")) || bytes.len() > PUBLIC_KEY_BYTES
}

/// As minisign shows it.
fn id(keynum: &[u8]) -> String {
    keynum.iter().rev().map(|byte| format!("{byte:02X}")).collect()
}

fn other(error: minisign::PError) -> KeyError {
    KeyError::Other(error.to_string())
}

/// The text of a file; `None` when it is too long for a key, or not text.
fn read_small(path: &Path) -> Result<Option<String>, KeyError> {
    match small_file::read_to_string(path) {
        Ok(text) => Ok(Some(text).filter(|text| text.len() <= KEY_FILE_BYTES_MAX)),
        Err(error) if matches!(error.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidData) => Ok(None),
        Err(source) => Err(KeyError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pair() -> (SecretKey, PublicKey) {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate(None).unwrap();
        pair.write(&folder.path().join("site.key")).unwrap();
        (LockedKey::read(&folder.path().join("site.key")).unwrap().unlock(None).unwrap(), pair.public())
    }

    #[test]
    fn a_signature_holds_for_its_bytes_alone() {
        let (secret, public) = pair();
        let signature = secret.sign(b"bytes", "comment").unwrap();
        assert_eq!(public.verify(b"bytes", signature.as_bytes()), Ok("comment".to_owned()));
        assert_eq!(public.verify(b"byteS", signature.as_bytes()), Err(SignatureError::Wrong));
        let error = pair().1.verify(b"bytes", signature.as_bytes());
        assert!(matches!(error, Err(SignatureError::Key { .. })), "{error:?}");
    }

    #[test]
    fn no_byte_of_a_signature_can_be_altered() {
        let (secret, public) = pair();
        let signature = secret.sign(b"bytes", "comment").unwrap().into_bytes();
        for at in 0..signature.len() {
            for bit in 0..8 {
                let mut altered = signature.clone();
                altered[at] ^= 1 << bit;
                assert!(public.verify(b"bytes", &altered).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_protected_key_wants_its_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.key");
        KeyPair::generate(Some("secret")).unwrap().write(&path).unwrap();
        let open = |password| LockedKey::read(&path).unwrap().unlock(password);
        assert!(matches!(open(None), Err(KeyError::Locked { .. })));
        assert!(matches!(open(Some("wrong")), Err(KeyError::Password { .. })));
        assert!(open(Some("secret")).is_ok());
    }

    #[test]
    fn what_is_no_public_key_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.key");
        KeyPair::generate(None).unwrap().write(&path).unwrap();
        let read = |path: &Path| PublicKey::from_text_or_file(path.to_str().unwrap()).unwrap_err().to_string();
        let secret = fs::read_to_string(&path).unwrap();
        let said = read(&path);
        assert!(said.contains("secret key") && said.contains("site.pub"), "{said}");
        assert!(secret.lines().all(|line| !said.contains(line)), "{said}");
        assert!(PublicKey::from_text_or_file(folder.path().join("site.pub").to_str().unwrap()).is_ok());
        assert!(read(&folder.path().join("nosuch.pub")).contains("no file"));
        assert!(read(Path::new("nosuch")).contains("nosuch"));
        let notes = folder.path().join("notes.txt");
        fs::write(&notes, "the password of the depot").unwrap();
        let said = read(&notes);
        assert!(said.contains("notes.txt") && !said.contains("depot"), "{said}");
        assert!(read(Path::new(&"R".repeat(5_000))).contains("RRRR"));
    }

    #[test]
    fn public_keys_are_read_in_both_forms() {
        let public = KeyPair::generate(None).unwrap().public();
        let with_comment = format!("untrusted comment: minisign public key {}\n{public}\n", public.id());
        for text in [public.to_string(), with_comment] {
            assert_eq!(text.parse::<PublicKey>().unwrap().to_string(), public.to_string());
        }
        for text in ["", "RW", "untrusted comment: x", &format!("{public}\n{public}\n"), &"R".repeat(56)] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
    }
}
