//! Names of files, which are bytes: as JSON, and for people.
//!
//! Invariants: JSON gives back the same bytes. What people read has no character that moves a cursor, changes a terminal or turns the
//! direction of writing, and two different names differ in it.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are mostly text: a string in JSON where they are UTF-8, else an array of numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RawText(pub Vec<u8>);

impl RawText {
    /// From any bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_owned())
    }
}

impl Serialize for RawText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        }))
    }
}

/// A path for people: bytes that are not UTF-8 are `\xNN`, control characters `\u{N}`, a backslash is two. The empty path is `.`.
#[must_use]
pub fn display(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                letter if letter.is_control() || is_format(letter) => text.extend(letter.escape_unicode()),
                letter => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a string takes any text");
        }
    }
    text
}

/// Characters without a shape of their own that change how others are shown: Unicode's marks of direction, separators and joiners.
fn is_format(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_people_steer_no_terminal_and_stay_distinct() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "."),
            (b"plain name", "plain name"),
            (b"a\nb", "a\\u{a}b"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"\xff\xc3\xa9", "\\xff\u{e9}"),
            (b"a\\nb", "a\\\\nb"),
            ("x\u{202e}gpj".as_bytes(), "x\\u{202e}gpj"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
        ];
        for (bytes, text) in cases {
            assert_eq!(display(bytes), *text);
        }
    }

    #[test]
    fn json_gives_the_same_bytes_back() {
        for bytes in [&b"a"[..], b"\xff\n", b"", "\u{e9}\u{0}".as_bytes(), b"[1]"] {
            let text = serde_json::to_string(&RawText::new(bytes)).expect("JSON");
            assert_eq!(serde_json::from_str::<RawText>(&text).expect("read").0, bytes, "{text}");
        }
    }
}
