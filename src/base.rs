//! Types without a single owner: positions in the log, digests, node ids, byte sizes, time, and who can fix an error.
//!
//! Invariants: every type here is a plain value; nothing in this part uses the network, the disk except [`small_file`] and
//! [`regular_file`], or the machine's clock except [`SystemClock`].

use std::error::Error;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod prefetch;
pub mod regular_file;
pub mod setting;
pub mod small_file;
pub(crate) mod tree;

pub use prefetch::prefetch;

#[cfg(test)]
#[path = "../tests/left_out.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use more of it")]
pub(crate) mod left_out;

/// Position of a record in the log: 1, 2, 3, … without gaps when written; 0 means "before the first record".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// BLAKE3 digest, 32 bytes; shown and read as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digest of a sequence of parts. Each part is preceded by its length (u64, little endian), so that
    /// `["ab", "c"]` and `["a", "bc"]` differ.
    #[must_use]
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for Digest {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        read_hex(text).map(Self)
    }
}

/// Identity of a node, 16 random bytes created once with its data directory; shown as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The first eight hex digits: enough to distinguish the nodes of a site in addresses and tables.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for NodeId {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        read_hex(text).map(Self)
    }
}

/// Why a text is not a valid digest or node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// Wrong number of digits.
    #[error("expected {expected} hex digits, found {found} characters")]
    Length {
        /// How many digits the type has.
        expected: usize,
        /// How many characters the text has.
        found: usize,
    },
    /// A character that is not a hex digit.
    #[error("a character is not a hex digit")]
    Digit,
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    // Digit by digit, which takes a tenth of the time of `{:02x}`: every hit of an answer has addresses with the node's
    // id.
    let digit = |half: u8| char::from_digit(u32::from(half), 16).expect("four bits");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).try_for_each(|digit| f.write_char(digit))
}

fn read_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    if text.len() != N * 2 {
        return Err(HexError::Length { expected: N * 2, found: text.len() });
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| HexError::Digit)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| HexError::Digit)?;
    }
    Ok(bytes)
}

/// A number of bytes. Read from `64 MiB`, `2GB`, `512k` or a plain number (k, M, G, T are powers of 1000 before `B` or
/// alone; Ki, Mi, Gi, Ti are powers of 1024); shown with a binary unit and at most one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `count` × 1,048,576 bytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The size as `usize`; saturates where addresses are narrower than 64 bits.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        let decimals = usize::from(value.fract() > 0.05 && value < 100.0);
        write!(f, "{value:.decimals$} {}", units[unit])
    }
}

/// A text that is not a valid byte size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a byte size: expected a number with an optional unit, for example 64MiB, 2GB or 4096")]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            "ki" | "kib" => 1 << 10,
            "mi" | "mib" => 1 << 20,
            "gi" | "gib" => 1 << 30,
            "ti" | "tib" => 1 << 40,
            _ => return Err(ByteSizeError(text.to_owned())),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(|| ByteSizeError(text.to_owned()));
        }
        match number.parse::<f64>() {
            Ok(value) if value.is_finite() && value * (factor as f64) < u64::MAX as f64 => {
                Ok(Self((value * factor as f64) as u64))
            }
            _ => Err(ByteSizeError(text.to_owned())),
        }
    }
}

impl Serialize for ByteSize {
    /// As a text where that is exact, else as a number of bytes.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_string().replace(' ', "");
        if text.parse() == Ok(*self) { serializer.serialize_str(&text) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Who can fix an error. Interfaces turn it into an HTTP status, a JSON-RPC code or an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong; the same call will fail again.
    Caller,
    /// The machine, the disk or another program; the same call may succeed later.
    Environment,
    /// Stored data differs from what was written.
    Damage,
}

/// The message of `error` with those of its causes, in one line: `opening the log: a.seg: no space left`. A cause that
/// the text already contains is not repeated.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let words = source.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = source.source();
    }
    text
}

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

/// 2026-11-01: the date of this release. No correct clock shows an earlier time.
pub const RELEASED: UnixMillis = UnixMillis(1_793_491_200_000);

impl fmt::Display for UnixMillis {
    /// RFC 3339 with seconds in UTC, for example `2026-07-28T09:30:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.0}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl FromStr for UnixMillis {
    type Err = jiff::Error;

    /// Parses RFC 3339 (`2026-07-28T09:30:00Z`, any offset). Without an offset it is UTC, and a date alone is its
    /// midnight.
    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        let timestamp = text.parse::<jiff::Timestamp>().or_else(|error| {
            let civil: jiff::civil::DateTime = text.parse().map_err(|_| error)?;
            Ok::<_, jiff::Error>(civil.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
        });
        Ok(Self(timestamp?.as_millisecond()))
    }
}

/// The source of the time of day for a part, so that tests can set it.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> UnixMillis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(jiff::Timestamp::now().as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes_read_what_people_write() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64 MiB", 64 << 20), ("2GB", 2_000_000_000), ("1.5Ki", 1536), ("512k", 512_000)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1 elephant", "99999999999 TiB", "1.2.3"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn byte_sizes_show_a_binary_unit() {
        let shown: Vec<String> = [999, 1024, 1536, 64 << 20, 3 << 40].map(|n| ByteSize(n).to_string()).into();
        assert_eq!(shown, ["999 B", "1 KiB", "1.5 KiB", "64 MiB", "3 TiB"]);
    }

    #[test]
    fn digests_survive_text() {
        let digest = Digest::of(b"cairn");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("12".parse::<Digest>(), Err(HexError::Length { expected: 64, found: 2 }));
        assert_ne!(Digest::of_parts([&b"ab"[..], b"c"]), Digest::of_parts([&b"a"[..], b"bc"]));
    }

    #[test]
    fn times_are_rfc_3339() {
        let time: UnixMillis = "2026-07-28T11:30:00+02:00".parse().expect("valid");
        assert_eq!(time.to_string(), "2026-07-28T09:30:00Z");
    }

    #[test]
    fn a_time_without_an_offset_is_utc_and_a_date_is_its_midnight() {
        for (text, time) in [("2026-11-01", "2026-11-01T00:00:00Z"), ("2026-11-01T12:30:00", "2026-11-01T12:30:00Z")] {
            assert_eq!(text.parse::<UnixMillis>().expect(text).to_string(), time);
        }
        for text in ["", "yesterday", "2026-13-01", "01.11.2026", "2026"] {
            assert!(text.parse::<UnixMillis>().is_err(), "{text}");
        }
    }
}
