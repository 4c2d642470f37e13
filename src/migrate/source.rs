//! The text of one file, and places in it.
//!
//! Invariants: a file has at most [`BYTES_MAX`] bytes, and its text is UTF-8 whatever it was saved as.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Fault, regular_file};

/// Largest file. The stacks of a whole company have some hundred kilobytes.
const BYTES_MAX: u64 = 4 << 20;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file, as messages name it.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Something wrong with what a file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct Mistake {
    /// Where.
    pub at: Position,
    /// What was found, and what was expected.
    pub message: String,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{path} is not a regular file; name the stack's YAML file")]
    Kind {
        /// Which one.
        path: PathBuf,
    },
    /// It is larger than any stack.
    #[error("{name} has {bytes} bytes, expected at most {BYTES_MAX}; is it a stack?")]
    TooLarge {
        /// Which one.
        name: Arc<str>,
        /// Its length, as far as it was read.
        bytes: u64,
    },
    /// It is text in another encoding, or no text.
    #[error("{at}: not {encoding}; save the file as UTF-8")]
    Encoding {
        /// Where the first bytes stand that are not.
        at: Position,
        /// What the file begins as.
        encoding: &'static str,
    },
    /// Four bytes for each character.
    #[error("{name} is UTF-32, which no YAML parser of Docker's reads; save the file as UTF-8")]
    Utf32 {
        /// Which one.
        name: Arc<str>,
    },
}

impl SourceError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } => Fault::Environment,
            Self::Kind { .. } | Self::TooLarge { .. } | Self::Encoding { .. } | Self::Utf32 { .. } => Fault::Caller,
        }
    }
}

/// The text of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    text: String,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let read = |source| SourceError::Read { path: path.to_owned(), source };
        let (file, _) =
            regular_file::open(path).map_err(read)?.ok_or_else(|| SourceError::Kind { path: path.to_owned() })?;
        let mut bytes = Vec::new();
        // One more, so that a file that grows meanwhile is seen to be too large.
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        Self::of(&path.display().to_string(), &bytes)
    }

    /// Takes the content of a file.
    ///
    /// * `name`: what messages call it.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn of(name: &str, bytes: &[u8]) -> Result<Self, SourceError> {
        let name: Arc<str> = name.into();
        if bytes.len() as u64 > BYTES_MAX {
            return Err(SourceError::TooLarge { name, bytes: bytes.len() as u64 });
        }
        let text = decode(&name, bytes)?;
        Ok(Self { name, text })
    }

    /// What messages call the file.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its text, without a byte order mark.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The text of a file by the rules of YAML 1.2.2, section 5.2: a byte order mark, or where zero bytes are, says what it is saved as.
fn decode(name: &Arc<str>, bytes: &[u8]) -> Result<String, SourceError> {
    match bytes {
        [0, 0, 0xfe, 0xff, ..] | [0xff, 0xfe, 0, 0, ..] | [0, 0, 0, _, ..] | [_, 0, 0, 0, ..] => {
            Err(SourceError::Utf32 { name: Arc::clone(name) })
        }
        [0xfe, 0xff, rest @ ..] => utf_16(name, rest, u16::from_be_bytes, "UTF-16, high bytes first"),
        [0xff, 0xfe, rest @ ..] => utf_16(name, rest, u16::from_le_bytes, "UTF-16, low bytes first"),
        [0, _, ..] => utf_16(name, bytes, u16::from_be_bytes, "UTF-16, high bytes first"),
        [_, 0, ..] => utf_16(name, bytes, u16::from_le_bytes, "UTF-16, low bytes first"),
        _ => {
            let rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            match std::str::from_utf8(rest) {
                Ok(text) => Ok(text.to_owned()),
                Err(error) => {
                    let before = String::from_utf8_lossy(&rest[..error.valid_up_to()]);
                    Err(SourceError::Encoding { at: end_of(name, &before), encoding: "UTF-8" })
                }
            }
        }
    }
}

fn utf_16(
    name: &Arc<str>,
    bytes: &[u8],
    unit: fn([u8; 2]) -> u16,
    encoding: &'static str,
) -> Result<String, SourceError> {
    let (units, rest) = bytes.as_chunks();
    let mut text = String::with_capacity(bytes.len());
    let characters = char::decode_utf16(units.iter().map(|pair| unit(*pair)));
    // Half a unit at the end is not a character either.
    for character in characters.map(Result::ok).chain((!rest.is_empty()).then_some(None)) {
        match character {
            Some(character) => text.push(character),
            None => return Err(SourceError::Encoding { at: end_of(name, &text), encoding }),
        }
    }
    Ok(text)
}

/// The place after a text.
fn end_of(name: &Arc<str>, text: &str) -> Position {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Position { file: Arc::clone(name), line: text.matches('\n').count() + 1, column: last.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "services:\r\n  größe: {image: a𝄞}\n";

    fn utf_16(text: &str, mark: &[u8], bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        mark.iter().copied().chain(text.encode_utf16().flat_map(bytes)).collect()
    }

    #[test]
    fn text_is_read_in_each_encoding_that_editors_save() {
        let with_mark = [b"\xef\xbb\xbf", TEXT.as_bytes()].concat();
        for bytes in [
            TEXT.as_bytes().to_vec(),
            with_mark,
            utf_16(TEXT, b"\xff\xfe", u16::to_le_bytes),
            utf_16(TEXT, b"\xfe\xff", u16::to_be_bytes),
            utf_16(TEXT, b"", u16::to_le_bytes),
            utf_16(TEXT, b"", u16::to_be_bytes),
        ] {
            assert_eq!(Source::of("stack.yml", &bytes).expect("text").text(), TEXT);
        }
        assert_eq!(Source::of("stack.yml", b"").expect("text").text(), "");
    }

    #[test]
    fn what_is_no_text_is_named_with_its_place() {
        let refusal = |bytes: &[u8]| Source::of("stack.yml", bytes).expect_err("refused").to_string();
        assert_eq!(refusal(b"a: b\nc: gr\xf6\xdfe\n"), "stack.yml:2:6: not UTF-8; save the file as UTF-8");
        let half = utf_16("a: b\nc: d", b"\xff\xfe", u16::to_le_bytes);
        assert!(refusal(&half[..half.len() - 1]).starts_with("stack.yml:2:4: not UTF-16, low bytes first"));
        assert!(refusal(b"\xff\xfe\x00\x00a\x00\x00\x00").contains("is UTF-32"));
        assert!(refusal(b"a\x00\x00\x00").contains("is UTF-32"));
        let large = vec![b'a'; usize::try_from(BYTES_MAX).expect("small") + 1];
        assert!(refusal(&large).contains("expected at most 4194304"));
    }
}
