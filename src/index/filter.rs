//! Metadata filters: conditions on a document's metadata, as a tree.
//!
//! JSON form, as tools accept it. An object's fields are joined by AND:
//!
//! ```json
//! {"team": "storage", "year": {"gte": 2024, "lt": 2026}, "tag": {"in": ["a", "b"]}, "reviewed": {"exists": true},
//!  "or": [{"status": "final"}, {"not": {"draft": true}}]}
//! ```
//!
//! Operators: `eq` `ne` `in` `nin` `gt` `gte` `lt` `lte` `exists`, and `and` `or` `not` at any level; a leading `$` is
//! allowed. Nested metadata is reached with dots: `owner.name`. A list in the metadata matches when one of its elements
//! does, whether it is a value, an object or a list. A field exists when it is present and not null, whatever its
//! value. Strings compare by Unicode code points, so RFC 3339 dates in one offset compare by time.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::base::Fault;

/// Maximum nesting of a filter.
const DEPTH_MAX: usize = 16;
/// Longest text in a comparison, in bytes. The index stores only the beginning of longer texts, which is longer than
/// this: so every comparison is correct.
pub(super) const TEXT_BYTES_MAX: usize = 1_024;
/// Longest name of a field, in bytes; no metadata has a longer one that anybody would filter by.
const NAME_BYTES_MAX: usize = 1_024;
/// Characters of a name in an error.
const NAME_SHOWN: usize = 60;
/// Maximum conditions in one filter, counting each value of an `in`.
const CONDITIONS_MAX: usize = 1_000;

/// A condition on a document's metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All parts are true; an empty list is true.
    And(Vec<Filter>),
    /// At least one part is true; an empty list is false.
    Or(Vec<Filter>),
    /// The part is false.
    Not(Box<Filter>),
    /// The field has this value.
    Equals(Arc<str>, Scalar),
    /// The field's value is between the bounds. Both bounds are of one kind.
    Range(Arc<str>, Option<Bound>, Option<Bound>),
    /// The field is present and not null.
    Exists(Arc<str>),
}

/// One end of a range: the value, and whether it is inclusive.
pub type Bound = (Scalar, bool);

/// A value that metadata can be compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// True or false.
    Bool(bool),
}

/// Why a filter is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The filter or a part of it is not an object.
    #[error("a filter is an object such as {{\"team\": \"storage\"}}, found {found}")]
    NotAnObject {
        /// The kind of value found.
        found: &'static str,
    },
    /// An operator that does not exist.
    #[error("unknown operator '{operator}' on '{field}', expected one of eq, ne, in, nin, gt, gte, lt, lte, exists")]
    UnknownOperator {
        /// Its field.
        field: String,
        /// The operator.
        operator: String,
    },
    /// An operator with an invalid value.
    #[error("'{operator}' on '{field}' takes {expected}")]
    BadValue {
        /// The field, or the operator's position.
        field: String,
        /// The operator.
        operator: String,
        /// What is expected.
        expected: &'static str,
    },
    /// Bounds of different kinds.
    #[error("'{operators}' on '{field}' take two numbers or two strings")]
    MixedBounds {
        /// The field.
        field: String,
        /// Both operators, as they were written.
        operators: String,
    },
    /// A combination of filters that is not a list.
    #[error(
        "'{operator}' takes a list of filters, such as {{\"{operator}\": [{{\"team\": \"storage\"}}]}}, found {found}"
    )]
    NotAList {
        /// `and` or `or`, as it was written.
        operator: String,
        /// The kind of value found.
        found: &'static str,
    },
    /// A name that no field has.
    #[error("the field name '{name}…' has {found} bytes, expected at most {NAME_BYTES_MAX}")]
    LongName {
        /// The beginning of the name.
        name: String,
        /// Its bytes.
        found: usize,
    },
    /// Nested too deep or too long.
    #[error("the filter is too large: at most {DEPTH_MAX} levels and {CONDITIONS_MAX} conditions")]
    TooLarge,
}

impl FilterError {
    /// Always the caller's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}

impl Filter {
    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`FilterError`] names the field and what it expects.
    pub fn from_json(value: &Value) -> Result<Self, FilterError> {
        let mut left = CONDITIONS_MAX;
        object(value, 0, &mut left)
    }

    /// Whether every document matches, whatever its metadata: a filter without a condition.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(Self::admits_all),
            Self::Or(parts) => parts.iter().any(Self::admits_all),
            Self::Not(part) => part.admits_nothing(),
            Self::Equals(..) | Self::Range(..) | Self::Exists(_) => false,
        }
    }

    fn admits_nothing(&self) -> bool {
        match self {
            Self::And(parts) => parts.iter().any(Self::admits_nothing),
            Self::Or(parts) => parts.iter().all(Self::admits_nothing),
            Self::Not(part) => part.admits_all(),
            Self::Equals(..) | Self::Range(..) | Self::Exists(_) => false,
        }
    }

    /// Approximate bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let text = |value: &Scalar| if let Scalar::Text(text) = value { text.len() } else { 0 };
        let bound = |bound: &Option<Bound>| bound.as_ref().map_or(0, |(value, _)| text(value));
        let own = match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::bytes).sum(),
            Self::Not(part) => part.bytes(),
            Self::Equals(name, value) => name.len() + text(value),
            Self::Range(name, lower, upper) => name.len() + bound(lower) + bound(upper),
            Self::Exists(name) => name.len(),
        };
        own + size_of::<Self>()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn object(value: &Value, depth: usize, left: &mut usize) -> Result<Filter, FilterError> {
    let Value::Object(fields) = value else { return Err(FilterError::NotAnObject { found: kind(value) }) };
    if depth >= DEPTH_MAX {
        return Err(FilterError::TooLarge);
    }
    let mut parts = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        *left = left.checked_sub(1).ok_or(FilterError::TooLarge)?;
        parts.push(match name.trim_start_matches('$') {
            "and" => Filter::And(list(name, value, depth, left)?),
            "or" => Filter::Or(list(name, value, depth, left)?),
            "not" => Filter::Not(Box::new(object(value, depth + 1, left)?)),
            _ => field(name, value, left)?,
        });
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
}

fn list(operator: &str, value: &Value, depth: usize, left: &mut usize) -> Result<Vec<Filter>, FilterError> {
    let Value::Array(items) = value else {
        return Err(FilterError::NotAList { operator: shortened(operator), found: kind(value) });
    };
    items.iter().map(|item| object(item, depth + 1, left)).collect()
}

fn field(name: &str, value: &Value, left: &mut usize) -> Result<Filter, FilterError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FilterError::LongName { name: shortened(name), found: name.len() });
    }
    // All conditions on it share its name.
    let name = &Arc::from(name);
    match value {
        Value::Object(operators) => conditions(name, operators, left),
        Value::Array(_) => any_of(name, "in", value, left),
        Value::Null => Ok(not(Filter::Exists(Arc::clone(name)))),
        _ => Ok(Filter::Equals(Arc::clone(name), scalar(name, "eq", value)?)),
    }
}

/// The beginning of a text that may have any length.
fn shortened(text: &str) -> String {
    text.chars().take(NAME_SHOWN).collect()
}

fn conditions(name: &Arc<str>, operators: &Map<String, Value>, left: &mut usize) -> Result<Filter, FilterError> {
    let mut parts = Vec::new();
    let (mut lower, mut upper) = (None, None);
    let bound = |operator: &str, value, is_inclusive| -> Result<_, FilterError> {
        Ok(Some((shortened(operator), (ordered(name, operator, value)?, is_inclusive))))
    };
    for (operator, value) in operators {
        match operator.trim_start_matches('$') {
            "eq" => parts.push(Filter::Equals(Arc::clone(name), scalar(name, operator, value)?)),
            "ne" => parts.push(not(Filter::Equals(Arc::clone(name), scalar(name, operator, value)?))),
            "in" => parts.push(any_of(name, operator, value, left)?),
            "nin" => parts.push(not(any_of(name, operator, value, left)?)),
            "gt" => lower = bound(operator, value, false)?,
            "gte" => lower = bound(operator, value, true)?,
            "lt" => upper = bound(operator, value, false)?,
            "lte" => upper = bound(operator, value, true)?,
            "exists" => match value {
                Value::Bool(true) => parts.push(Filter::Exists(Arc::clone(name))),
                Value::Bool(false) => parts.push(not(Filter::Exists(Arc::clone(name)))),
                _ => return Err(bad(name, operator, "true or false")),
            },
            _ => return Err(FilterError::UnknownOperator { field: shortened(name), operator: shortened(operator) }),
        }
    }
    if lower.is_some() || upper.is_some() {
        parts.push(range(name, lower, upper)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
}

/// Both bounds as one kind of value: the one that the index compares.
///
/// * `lower`, `upper`: each with its operator.
fn range(
    name: &Arc<str>,
    lower: Option<(String, Bound)>,
    upper: Option<(String, Bound)>,
) -> Result<Filter, FilterError> {
    let (lower, first) = lower.map_or((None, String::new()), |(operator, bound)| (Some(bound), operator));
    let (upper, second) = upper.map_or((None, String::new()), |(operator, bound)| (Some(bound), operator));
    let (lower, upper) = match (lower, upper) {
        (Some((Scalar::Integer(low), low_in)), Some((Scalar::Float(high), high_in))) => {
            (Some((Scalar::Float(low as f64), low_in)), Some((Scalar::Float(high), high_in)))
        }
        (Some((Scalar::Float(low), low_in)), Some((Scalar::Integer(high), high_in))) => {
            (Some((Scalar::Float(low), low_in)), Some((Scalar::Float(high as f64), high_in)))
        }
        (Some((Scalar::Text(_), _)), Some((Scalar::Integer(_) | Scalar::Float(_), _)))
        | (Some((Scalar::Integer(_) | Scalar::Float(_), _)), Some((Scalar::Text(_), _))) => {
            return Err(FilterError::MixedBounds {
                field: shortened(name),
                operators: format!("{first}' and '{second}"),
            });
        }
        bounds => bounds,
    };
    Ok(Filter::Range(Arc::clone(name), lower, upper))
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}

fn any_of(name: &Arc<str>, operator: &str, value: &Value, left: &mut usize) -> Result<Filter, FilterError> {
    let Value::Array(items) = value else { return Err(bad(name, operator, "a list of values")) };
    *left = left.checked_sub(items.len()).ok_or(FilterError::TooLarge)?;
    let parts: Result<Vec<_>, _> =
        items.iter().map(|item| Ok(Filter::Equals(Arc::clone(name), scalar(name, operator, item)?))).collect();
    Ok(Filter::Or(parts?))
}

fn ordered(name: &str, operator: &str, value: &Value) -> Result<Scalar, FilterError> {
    match scalar(name, operator, value)? {
        Scalar::Bool(_) => Err(bad(name, operator, "a number or a string")),
        other => Ok(other),
    }
}

fn scalar(name: &str, operator: &str, value: &Value) -> Result<Scalar, FilterError> {
    match value {
        Value::String(text) if text.len() > TEXT_BYTES_MAX => Err(bad(name, operator, "a text of at most 1,024 bytes")),
        Value::String(text) => Ok(Scalar::Text(text.clone())),
        Value::Bool(value) => Ok(Scalar::Bool(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Ok(Scalar::Integer(integer)),
            (None, Some(float)) => Ok(Scalar::Float(float)),
            (None, None) => Err(bad(name, operator, "a number within 64 bits")),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => Err(bad(name, operator, "a string, number or boolean")),
    }
}

fn bad(field: &str, operator: &str, expected: &'static str) -> FilterError {
    FilterError::BadValue { field: shortened(field), operator: shortened(operator), expected }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_json_form_reads_as_documented() {
        let filter = Filter::from_json(&json!({"team": "storage", "year": {"gte": 2024, "$lt": 2026}})).expect("valid");
        assert_eq!(
            filter,
            Filter::And(vec![
                Filter::Equals("team".into(), Scalar::Text("storage".into())),
                Filter::Range("year".into(), Some((Scalar::Integer(2024), true)), Some((Scalar::Integer(2026), false))),
            ])
        );
        assert_eq!(
            Filter::from_json(&json!({"not": {"tag": ["a", "b"]}})).expect("valid"),
            not(Filter::Or(vec![
                Filter::Equals("tag".into(), Scalar::Text("a".into())),
                Filter::Equals("tag".into(), Scalar::Text("b".into())),
            ]))
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (filter, message) in [
            (json!("x"), "a filter is an object such as {\"team\": \"storage\"}, found a string"),
            (
                json!({"year": {"above": 3}}),
                "unknown operator 'above' on 'year', expected one of eq, ne, in, nin, gt, gte, lt, lte, exists",
            ),
            (json!({"year": {"gt": true}}), "'gt' on 'year' takes a number or a string"),
            (json!({"year": {"gt": 1, "lt": "2"}}), "'gt' and 'lt' on 'year' take two numbers or two strings"),
            (
                json!({"$or": {"a": 1}}),
                "'$or' takes a list of filters, such as {\"$or\": [{\"team\": \"storage\"}]}, found an object",
            ),
            (json!({"a": {"ne": "x".repeat(1_025)}}), "'ne' on 'a' takes a text of at most 1,024 bytes"),
        ] {
            assert_eq!(Filter::from_json(&filter).expect_err("invalid").to_string(), message);
        }
    }

    #[test]
    fn names_are_bounded_shared_and_shown_in_part() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        let error = Filter::from_json(&json!({ long.as_str(): [1, 2] })).expect_err("too long").to_string();
        assert_eq!(error, format!("the field name '{}…' has 1025 bytes, expected at most 1024", &long[..NAME_SHOWN]));
        let error = Filter::from_json(&json!({"a": { long.as_str(): 1 }})).expect_err("unknown").to_string();
        assert!(error.len() < 200, "{error}");
        let name = &long[1..];
        let Ok(Filter::Or(parts)) = Filter::from_json(&json!({ name: (0..999).collect::<Vec<u32>>() })) else {
            panic!("a list of values")
        };
        let [Filter::Equals(first, _), .., Filter::Equals(last, _)] = parts.as_slice() else { panic!("values") };
        assert!(Arc::ptr_eq(first, last), "999 values share one name");
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let mut deep = json!({"a": 1});
        for _ in 0..100 {
            deep = json!({"not": deep});
        }
        assert_eq!(Filter::from_json(&deep), Err(FilterError::TooLarge));
        let long: Vec<u32> = (0..2_000).collect();
        assert_eq!(Filter::from_json(&json!({"a": {"in": long}})), Err(FilterError::TooLarge));
    }
}
