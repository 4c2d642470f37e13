//! Durations, bytes and processors as Docker's programs write them.

use std::time::Duration;

use super::super::leaf::{At, Item};
use super::super::report::Outcome;
use super::super::{Dialect, Value};
use super::{Reader, excerpt};

/// Billionths in a whole.
const NANO: u64 = 1_000_000_000;

impl Reader<'_> {
    /// A duration: `1m30s`.
    pub(super) fn duration(&mut self, item: &Item) -> Option<At<Duration>> {
        let text = self.text(item)?;
        match duration(&text.value, self.dialect) {
            Some(value) => Some(At::new(value, text.leaf)),
            None => {
                let units = if self.is_compose() { "w, d, h, m, s, ms, us or ns" } else { "h, m, s, ms, us or ns" };
                let message = format!(
                    "{}: '{}' is not a duration; write numbers with units such as 1m30s ({units})",
                    item.path,
                    excerpt(&text.value)
                );
                self.mistake(item, message);
                None
            }
        }
    }

    /// Bytes, negative where that has a meaning: `512M`.
    pub(super) fn signed_bytes(&mut self, item: &Item) -> Option<At<i64>> {
        let value = match item.scalar() {
            Some(At { value: Value::Int(value), .. }) => i64::try_from(*value).ok(),
            Some(At { value: Value::Text(text), .. }) => bytes(text, self.dialect),
            Some(At { value: Value::Null, .. }) => {
                self.nothing(item);
                return None;
            }
            _ => None,
        };
        let Some(value) = value else {
            let message = format!("{}: expected an amount of bytes such as 512M or 2.5G", item.path);
            self.mistake(item, message);
            return None;
        };
        item.scalar().map(|scalar| At::new(value, scalar.leaf))
    }

    /// Bytes.
    pub(super) fn bytes(&mut self, item: &Item) -> Option<At<u64>> {
        let signed = self.signed_bytes(item)?;
        match u64::try_from(signed.value) {
            Ok(value) => Some(At::new(value, signed.leaf)),
            Err(_) => {
                self.remark(
                    signed.leaf,
                    Outcome::Converted,
                    "less than 0 means that there is no limit, as if nothing were written",
                );
                None
            }
        }
    }

    /// Processors, in billionths of one: `0.5`.
    pub(super) fn processors(&mut self, item: &Item) -> Option<At<u64>> {
        let text = self.text(item)?;
        match processors(&text.value) {
            Ok(value) => Some(At::new(value, text.leaf)),
            Err(expected) => {
                self.mistake(item, format!("{}: found '{}', expected {expected}", item.path, excerpt(&text.value)));
                None
            }
        }
    }

    /// Permissions: a number of YAML's, so that `0440` is octal. In text compose-go reads octal digits, docker/cli decimal ones.
    pub(super) fn permissions(&mut self, item: &Item) -> Option<At<u32>> {
        match item.scalar() {
            Some(At { value: Value::Text(text), leaf }) if self.is_compose() => match u32::from_str_radix(text, 8) {
                Ok(mode) => Some(At::new(mode, leaf)),
                Err(_) => {
                    self.mistake(item, format!("{}: expected octal digits such as 0440", item.path));
                    None
                }
            },
            _ => self.number(item),
        }
    }
}

/// Go's `time.ParseDuration`; compose-go has days and weeks besides. A negative one is none.
pub(super) fn duration(text: &str, dialect: Dialect) -> Option<Duration> {
    const UNITS: [(&str, u64); 10] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", NANO),
        ("m", 60 * NANO),
        ("h", 3_600 * NANO),
        ("d", 86_400 * NANO),
        ("w", 604_800 * NANO),
    ];
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let is_digit = |letter: char| letter.is_ascii_digit();
        let whole = &rest[..rest.find(|letter| !is_digit(letter)).unwrap_or(rest.len())];
        rest = &rest[whole.len()..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            fraction = &after[..after.find(|letter| !is_digit(letter)).unwrap_or(after.len())];
            rest = &after[fraction.len()..];
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = rest.find(|letter: char| letter == '.' || is_digit(letter)).unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        if dialect == Dialect::Stack && matches!(&rest[..end], "d" | "w") {
            return None;
        }
        rest = &rest[end..];
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(*unit)?)?.checked_add(part(fraction, *unit))?;
        if i64::try_from(sum).is_err() {
            return None;
        }
    }
    (!is_negative || sum == 0).then_some(Duration::from_nanos(sum))
}

/// The digits behind a point, times a unit. Go has as many of them as fit into 63 bits, and multiplies in floating point.
fn part(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1.0);
    for digit in digits.bytes() {
        if value > i64::MAX as u64 / 10 {
            break;
        }
        let next = value * 10 + u64::from(digit - b'0');
        if next > i64::MAX as u64 {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    // Less than the unit, and not negative.
    (value as f64 * (unit as f64 / scale)) as u64
}

/// docker/go-units, `RAMInBytes`: units are powers of 1024. compose-go reads a plain number first, which may be negative.
pub(in crate::migrate) fn bytes(text: &str, dialect: Dialect) -> Option<i64> {
    if dialect == Dialect::Compose
        && let Ok(plain) = text.parse()
    {
        return Some(plain);
    }
    let end = text.rfind(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | ' '))?;
    let (number, suffix) = match text.as_bytes()[end] {
        b' ' => (&text[..end], &text[end + 1..]),
        _ => text.split_at(end + 1),
    };
    let number = number_of(number)?;
    if number < 0.0 {
        return None;
    }
    let suffix = suffix.to_ascii_lowercase();
    let power = match suffix.strip_suffix("ib").or(suffix.strip_suffix('b')).unwrap_or(&suffix) {
        // `ib` alone is not a unit.
        "" if suffix != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let value = number * 1024_f64.powi(power);
    (value < 9.2e18).then_some(value as i64)
}

/// Go's `strconv.ParseFloat`, without its numbers of base 16 and its words: an underscore may be between two digits.
fn number_of(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' => {}
            b'_' if is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1)) => {}
            _ => return None,
        }
    }
    text.replace('_', "").parse().ok()
}

/// A decimal, with an exponent if any, or a fraction, in billionths (docker/cli, `opts.ParseCPUs`, whose type is a fraction).
///
/// # Errors
/// What was expected.
pub(super) fn processors(text: &str) -> Result<u64, &'static str> {
    const NUMBER: &str = "a number of processors such as 0.5";
    let (numerator, denominator) = match text.split_once('/') {
        Some((numerator, denominator)) => {
            (numerator.parse().map_err(|_| NUMBER)?, denominator.parse::<u64>().map_err(|_| NUMBER)?.into())
        }
        None => decimal(text).ok_or(NUMBER)?,
    };
    let denominator: i128 = denominator;
    let numerator: i128 = i128::checked_mul(numerator, NANO.into()).ok_or(NUMBER)?;
    if denominator == 0 {
        return Err(NUMBER);
    }
    if numerator % denominator != 0 {
        return Err("a number of processors with at most 9 digits behind the point");
    }
    u64::try_from(numerator / denominator).map_err(|_| "a number of processors of 0 or more")
}

/// A decimal number as a fraction.
fn decimal(text: &str) -> Option<(i128, i128)> {
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if !fraction.bytes().all(|byte| byte.is_ascii_digit())
        || digits.trim_start_matches(['-', '+']).trim_matches('.').is_empty()
    {
        return None;
    }
    let numerator: i128 = format!("{whole}{fraction}").parse().ok()?;
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    if exponent < 0 { Some((numerator, power)) } else { Some((numerator.checked_mul(power)?, 1)) }
}
