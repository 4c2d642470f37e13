//! The type of a column's cells: numbers, truth values or text.
//!
//! A column is numeric when each of its cells is a number in one of three notations: `1234.5`, `1,234.5` or `1.234,5`;
//! cells such as `n/a` and `-` count as missing. A value that is ambiguous (`1,234` alone), starts with a zero or a
//! plus (`007`), has more than 15 digits, or is in a column called version is text: a code, not an amount.

use serde_json::{Number, Value};

/// Numbers with up to this many digits are represented exactly.
const DIGITS_MAX: usize = 15;

/// Statistics of the cells of one column.
#[derive(Debug, Default)]
pub(super) struct Column {
    /// Cells with a value.
    cells: usize,
    plain: usize,
    english: usize,
    european: usize,
    truth: usize,
    is_code: bool,
}

/// The notation of a column's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// `1234.5`
    Plain,
    /// `1,234.5`
    English,
    /// `1.234,5`
    European,
}

impl Column {
    pub(super) fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let is_code = ["version", "release", "revision", "zip", "postcode", "plz", "phone"]
            .iter()
            .any(|word| name.contains(word));
        Self { is_code, ..Self::default() }
    }

    /// Counts a cell; without outer white space.
    pub(super) fn observe(&mut self, cell: &str) {
        if cell.is_empty() || says_nothing(cell) {
            return;
        }
        self.cells += 1;
        self.truth += usize::from(truth(cell).is_some());
        self.plain += usize::from(number(cell, Notation::Plain).is_some());
        self.english += usize::from(number(cell, Notation::English).is_some());
        self.european += usize::from(number(cell, Notation::European).is_some());
        let digits = cell.bytes().filter(u8::is_ascii_digit).count();
        let unsigned = cell.strip_prefix('-').unwrap_or(cell);
        let zero = unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit();
        self.is_code |= (zero || digits > DIGITS_MAX) && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    }

    /// The value of a cell where it is not UTF-8 text.
    pub(super) fn typed(&self, cell: &str) -> Option<Value> {
        if self.truth > 0 && self.truth == self.cells {
            return truth(cell).map(Value::Bool);
        }
        number(cell, self.notation()?)
    }

    fn notation(&self) -> Option<Notation> {
        if self.is_code || self.cells == 0 {
            return None;
        }
        let all = |count: usize| count == self.cells;
        match (all(self.plain), all(self.english), all(self.european)) {
            (true, _, _) => Some(Notation::Plain),
            (false, true, false) => Some(Notation::English),
            (false, false, true) => Some(Notation::European),
            // A remark among many numbers.
            (false, false, false) if self.plain * 10 >= self.cells * 9 => Some(Notation::Plain),
            _ => None,
        }
    }
}

/// Whether a cell marks a missing value.
fn says_nothing(cell: &str) -> bool {
    matches!(cell.to_ascii_lowercase().as_str(), "-" | "--" | "–" | "—" | "n/a" | "na" | "nan" | "null" | "none" | "?")
}

fn truth(cell: &str) -> Option<bool> {
    match cell {
        "true" | "TRUE" | "True" => Some(true),
        "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The number in a cell, in a notation.
fn number(cell: &str, notation: Notation) -> Option<Value> {
    let (sign, digits) = cell.strip_prefix('-').map_or(("", cell), |rest| ("-", rest));
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (digits, exponent) = match notation {
        Notation::Plain => split_exponent(digits)?,
        Notation::English | Notation::European => (digits, ""),
    };
    let (group, point) = match notation {
        Notation::Plain => (None, '.'),
        Notation::English => (Some(','), '.'),
        Notation::European => (Some('.'), ','),
    };
    let (whole, fraction) =
        digits.split_once(point).map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_some_and(|fraction| !is_digits(fraction)) {
        return None;
    }
    let whole = match group.filter(|group| whole.contains(*group)) {
        Some(group) => {
            let mut groups = whole.split(group);
            let first = groups.next().filter(|first| is_digits(first) && first.len() <= 3)?;
            groups
                .all(|group| is_digits(group) && group.len() == 3)
                .then(|| whole.replace(group, ""))
                .filter(|_| first != "0")?
        }
        None => whole.to_owned(),
    };
    if !is_digits(&whole) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    if whole.len() + fraction.map_or(0, str::len) > DIGITS_MAX {
        return None;
    }
    match fraction {
        None if exponent.is_empty() => format!("{sign}{whole}").parse::<i64>().ok().map(Value::from),
        _ => {
            let number = format!("{sign}{whole}.{}{exponent}", fraction.unwrap_or("0")).parse::<f64>().ok()?;
            Number::from_f64(number).map(Value::Number)
        }
    }
}

/// Digits and exponent. `12E4` is a code that a spreadsheet would spoil; `1.2e4` and `12e-4` are numbers.
fn split_exponent(digits: &str) -> Option<(&str, &str)> {
    let Some(at) = digits.find(['e', 'E']) else { return Some((digits, "")) };
    let (mantissa, exponent) = digits.split_at(at);
    let power = &exponent[1..];
    let unsigned = power.strip_prefix(['-', '+']).unwrap_or(power);
    let is_power = (1..=3).contains(&unsigned.len()) && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    (is_power && (mantissa.contains('.') || unsigned.len() < power.len())).then_some((mantissa, exponent))
}
