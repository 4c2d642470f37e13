//! Reading the values of settings: for `#[serde(deserialize_with = "setting::…")]` on the fields of a part's settings.
//!
//! The range of a value is an argument of its reader, so it is visible at the field. An invalid value is serde's
//! `invalid_type` or `invalid_value` error, which names what was expected; the part `config` adds what was found, and
//! where.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::ByteSize;

/// A value without parts, as in a settings file.
enum Scalar<'a> {
    Whole(i64),
    Number(f64),
    Text(&'a str),
}

struct ScalarVisitor<'e, F> {
    expected: &'e dyn fmt::Display,
    convert: F,
}

impl<T, F: Fn(Scalar<'_>) -> Option<T>> ScalarVisitor<'_, F> {
    fn take<E: Error>(&self, scalar: Scalar<'_>, unexpected: Unexpected<'_>) -> Result<T, E> {
        (self.convert)(scalar).ok_or_else(|| E::invalid_value(unexpected, &self.expected.to_string().as_str()))
    }
}

impl<T, F: Fn(Scalar<'_>) -> Option<T>> Visitor<'_> for ScalarVisitor<'_, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expected)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.take(Scalar::Whole(value), Unexpected::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        match i64::try_from(value) {
            Ok(whole) => self.take(Scalar::Whole(whole), Unexpected::Unsigned(value)),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.take(Scalar::Number(value), Unexpected::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
        self.take(Scalar::Text(value), Unexpected::Str(value))
    }
}

/// Reads a scalar.
///
/// * `expected`: the expected value, for the message.
/// * `convert`: `None` if the value is not valid.
fn scalar<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &dyn fmt::Display,
    convert: impl Fn(Scalar<'_>) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ScalarVisitor { expected, convert })
}

/// A whole number from `LEAST` to `MOST`.
///
/// # Errors
/// Where the value is anything else.
pub fn count<'de, D: Deserializer<'de>, const LEAST: usize, const MOST: usize>(
    deserializer: D,
) -> Result<usize, D::Error> {
    scalar(deserializer, &format_args!("a whole number from {LEAST} to {MOST}"), |value| match value {
        Scalar::Whole(number) => usize::try_from(number).ok().filter(|number| (LEAST..=MOST).contains(number)),
        Scalar::Number(_) | Scalar::Text(_) => None,
    })
}

/// A number from 0 to 1.
///
/// # Errors
/// Where the value is anything else.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let within = |number: f64| (0.0..=1.0).contains(&number).then_some(number);
    scalar(deserializer, &"a number from 0 to 1", |value| match value {
        Scalar::Whole(number) => within(number as f64),
        Scalar::Number(number) => within(number),
        Scalar::Text(_) => None,
    })
}

fn size_of(value: &Scalar<'_>) -> Option<ByteSize> {
    match value {
        Scalar::Whole(bytes) => u64::try_from(*bytes).ok().map(ByteSize),
        Scalar::Text(text) => text.parse().ok(),
        Scalar::Number(_) => None,
    }
}

/// A size of at least `LEAST` bytes: a number of bytes, or a text such as `64MiB`.
///
/// # Errors
/// Where the value is anything else.
pub fn size<'de, D: Deserializer<'de>, const LEAST: u64>(deserializer: D) -> Result<ByteSize, D::Error> {
    let expected = format!("a size of at least {}", ByteSize(LEAST));
    scalar(deserializer, &expected, |value| size_of(&value).filter(|size| size.0 >= LEAST))
}

/// The same as a number of bytes.
///
/// # Errors
/// Where the value is anything else.
pub fn bytes<'de, D: Deserializer<'de>, const LEAST: u64>(deserializer: D) -> Result<u64, D::Error> {
    size::<_, LEAST>(deserializer).map(|size| size.0)
}

/// A size of at least `LEAST` bytes; `None` for 0.
///
/// # Errors
/// Where the value is anything else.
pub fn optional_bytes<'de, D: Deserializer<'de>, const LEAST: u64>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let expected = if LEAST == 0 {
        "a size such as 64MiB, or 0".to_owned()
    } else {
        format!("0, or a size of at least {}", ByteSize(LEAST))
    };
    scalar(deserializer, &expected, |value| match size_of(&value)? {
        ByteSize(0) => Some(None),
        ByteSize(bytes) => (bytes >= LEAST).then_some(Some(bytes)),
    })
}

/// A text such as `20s`, `5m` or `300us`; from `LEAST` to `MOST` milliseconds, [`ANY`] for no upper bound.
///
/// # Errors
/// Where the value is anything else.
pub fn duration<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let shown = |milliseconds: u64| match jiff::SignedDuration::try_from(Duration::from_millis(milliseconds)) {
        Ok(duration) => format!("{duration:#}").replace(' ', ""),
        Err(_) => format!("{milliseconds}ms"),
    };
    let expected = match (LEAST, MOST) {
        (0, ANY) => "a duration such as 20s or 5m".to_owned(),
        (_, ANY) => format!("a duration of at least {}", shown(LEAST)),
        (0, _) => format!("a duration of at most {}", shown(MOST)),
        _ => format!("a duration from {} to {}", shown(LEAST), shown(MOST)),
    };
    let range = Duration::from_millis(LEAST)..=Duration::from_millis(MOST);
    scalar(deserializer, &expected, |value| {
        let Scalar::Text(text) = value else { return None };
        let duration: Duration = text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()?;
        (range.contains(&duration) || (MOST == ANY && duration >= *range.start())).then_some(duration)
    })
}

/// No upper bound of a [`duration`].
pub const ANY: u64 = u64::MAX;

/// A text.
///
/// # Errors
/// Where the value is anything else.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    scalar(deserializer, &"a text", |value| match value {
        Scalar::Text(text) => Some(text.to_owned()),
        Scalar::Whole(_) | Scalar::Number(_) => None,
    })
}

/// A path; `None` for an empty text.
///
/// # Errors
/// Where the value is not a text.
pub fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(Some(text(deserializer)?).filter(|text| !text.is_empty()).map(PathBuf::from))
}

/// An address with its port.
///
/// # Errors
/// Where the value is anything else.
pub fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    scalar(deserializer, &"an address and port such as 127.0.0.1:7171", |value| match value {
        Scalar::Text(text) => text.parse().ok(),
        Scalar::Whole(_) | Scalar::Number(_) => None,
    })
}
