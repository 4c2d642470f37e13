//! Filters as tantivy queries over the metadata column.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::{Map, Value};
use tantivy::query::{AllQuery, BooleanQuery, EmptyQuery, ExistsQuery, Occur, Query, RangeQuery, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, OwnedValue, Type};
use tantivy::{DateTime, Index, TantivyError, Term};

use super::super::filter::{self, Filter, Scalar};

/// How much of a longer string is indexed. It exceeds what a filter may compare with, by more than a truncated
/// character: so the truncated string compares with any text of a filter like the whole one, and equals none.
const VALUE_BYTES_MAX: usize = filter::TEXT_BYTES_MAX + 8;

/// Metadata in the form of the index: nested objects flattened to dotted names, lists as several values, without nulls.
/// The index treats a dot as a step into an object, so `a.b` finds `{"a": {"b": …}}` and `{"a.b": …}` alike.
pub(super) fn indexable(metadata: &Map<String, Value>) -> BTreeMap<String, OwnedValue> {
    let flat = flat(metadata);
    let one_or_list = |mut values: Vec<OwnedValue>| match values.pop() {
        Some(only) if values.is_empty() => only,
        last => OwnedValue::Array(values.into_iter().chain(last).collect()),
    };
    flat.into_iter().map(|(name, values)| (name, one_or_list(values))).collect()
}

fn flat(metadata: &Map<String, Value>) -> BTreeMap<String, Vec<OwnedValue>> {
    let mut flat = BTreeMap::new();
    for (name, value) in metadata {
        flatten(name.clone(), value, &mut flat);
    }
    flat
}

/// Represents a field that exists but has no comparable value. No filter uses dates.
const THERE: OwnedValue = OwnedValue::Date(DateTime::MIN);

fn flatten(name: String, value: &Value, flat: &mut BTreeMap<String, Vec<OwnedValue>>) {
    let mut put = |name: String, value| flat.entry(name).or_default().push(value);
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            if fields.values().all(Value::is_null) {
                put(name.clone(), THERE);
            }
            for (inner, value) in fields {
                flatten(format!("{name}.{inner}"), value, flat);
            }
        }
        Value::Array(items) => {
            if items.iter().all(Value::is_null) {
                put(name.clone(), THERE);
            }
            for item in items {
                flatten(name.clone(), item, flat);
            }
        }
        Value::String(text) => put(name, OwnedValue::Str(text[..text.floor_char_boundary(VALUE_BYTES_MAX)].to_owned())),
        Value::Bool(value) => put(name, OwnedValue::Bool(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => put(name, OwnedValue::I64(integer)),
            (None, Some(float)) => put(name, OwnedValue::F64(float)),
            (None, None) => put(name, THERE),
        },
    }
}

/// Names and types of the metadata columns of all segments, by name.
pub(super) fn fields(index: &Index) -> Result<Vec<(String, &'static str)>, TantivyError> {
    let mut fields = std::collections::BTreeMap::new();
    for field in index.fields_metadata()? {
        let Some(name) = field.field_name.strip_prefix("metadata.") else { continue };
        let kind = match field.typ {
            Type::I64 | Type::U64 => "integer",
            Type::F64 => "number",
            Type::Bool => "boolean",
            // Exists, without a comparable value.
            Type::Date => continue,
            _ => "string",
        };
        // 12.50 and 3.00 are numbers of one column, though the index stores the second as an integer.
        let known = fields.insert(name.to_owned(), kind);
        if matches!((known, kind), (Some("number"), "integer") | (Some("integer"), "number")) {
            fields.insert(name.to_owned(), "number");
        }
    }
    Ok(fields.into_iter().collect())
}

/// Whether an entry with this metadata would match `filter`, as `query` decides for the entries of the index.
#[must_use]
pub fn admits(filter: &Filter, metadata: &Map<String, Value>) -> bool {
    matches_flat(filter, &flat(metadata))
}

fn matches_flat(filter: &Filter, flat: &BTreeMap<String, Vec<OwnedValue>>) -> bool {
    let any = |name: &str, is_it: &dyn Fn(&OwnedValue) -> bool| flat.get(name).is_some_and(|own| own.iter().any(is_it));
    match filter {
        Filter::And(parts) => parts.iter().all(|part| matches_flat(part, flat)),
        Filter::Or(parts) => parts.iter().any(|part| matches_flat(part, flat)),
        Filter::Not(part) => !matches_flat(part, flat),
        // As in the index, where a number with a fraction is never a whole one.
        Filter::Equals(name, value) => any(name, &|own| match (own, value) {
            (OwnedValue::I64(_), Scalar::Float(_)) => false,
            _ => compared(own, value) == Some(Ordering::Equal),
        }),
        Filter::Range(_, None, None) => true,
        Filter::Range(name, lower, upper) => {
            let within = |own: &OwnedValue, bound: Option<&filter::Bound>, side: Ordering| {
                bound.is_none_or(|(value, inclusive)| match compared(own, value) {
                    Some(Ordering::Equal) => *inclusive,
                    found => found == Some(side),
                })
            };
            any(name, &|own| {
                within(own, lower.as_ref(), Ordering::Greater) && within(own, upper.as_ref(), Ordering::Less)
            })
        }
        Filter::Exists(name) => {
            let is_below = |own: &String| own.strip_prefix(&**name).is_some_and(|rest| rest.starts_with('.'));
            flat.contains_key(&**name) || flat.keys().any(is_below)
        }
    }
}

/// How a value of the metadata compares with one of a filter; `None` where they are of different kinds.
fn compared(own: &OwnedValue, value: &Scalar) -> Option<Ordering> {
    match (own, value) {
        (OwnedValue::Str(own), Scalar::Text(value)) => Some(own.cmp(value)),
        (OwnedValue::Bool(own), Scalar::Bool(value)) => Some(own.cmp(value)),
        (OwnedValue::I64(own), Scalar::Integer(value)) => Some(own.cmp(value)),
        (OwnedValue::I64(own), Scalar::Float(value)) => (*own as f64).partial_cmp(value),
        (OwnedValue::F64(own), Scalar::Integer(value)) => own.partial_cmp(&(*value as f64)),
        (OwnedValue::F64(own), Scalar::Float(value)) => own.partial_cmp(value),
        _ => None,
    }
}

/// The query that matches the same entries as `filter`. Its scores are meaningless.
pub(super) fn query(filter: &Filter, field: Field) -> Box<dyn Query> {
    match filter {
        Filter::And(parts) if parts.is_empty() => Box::new(AllQuery),
        Filter::And(parts) => {
            let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::with_capacity(parts.len() + 1);
            // A boolean query with only exclusions matches nothing; this gives it something to exclude from.
            if parts.iter().all(|part| matches!(part, Filter::Not(_))) {
                clauses.push((Occur::Must, Box::new(AllQuery)));
            }
            for part in parts {
                clauses.push(match part {
                    Filter::Not(inner) => (Occur::MustNot, query(inner, field)),
                    other => (Occur::Must, query(other, field)),
                });
            }
            Box::new(BooleanQuery::new(clauses))
        }
        Filter::Or(parts) if parts.is_empty() => Box::new(EmptyQuery),
        Filter::Or(parts) => Box::new(BooleanQuery::union(parts.iter().map(|part| query(part, field)).collect())),
        Filter::Not(inner) => {
            Box::new(BooleanQuery::new(vec![(Occur::Must, Box::new(AllQuery)), (Occur::MustNot, query(inner, field))]))
        }
        Filter::Equals(name, value) => equals(field, name, value),
        Filter::Range(name, lower, upper) => range(field, name, lower.as_ref(), upper.as_ref()),
        Filter::Exists(name) => Box::new(ExistsQuery::new(format!("metadata.{name}"), true)),
    }
}

/// An integer also equals the same number written with a fraction, so both forms are queried.
fn equals(field: Field, name: &str, value: &Scalar) -> Box<dyn Query> {
    let exact = |term| -> Box<dyn Query> { Box::new(TermQuery::new(term, IndexRecordOption::Basic)) };
    match value {
        Scalar::Integer(integer) => Box::new(BooleanQuery::union(vec![
            exact(term(field, name, value)),
            exact(term(field, name, &Scalar::Float(*integer as f64))),
        ])),
        Scalar::Text(_) | Scalar::Float(_) | Scalar::Bool(_) => exact(term(field, name, value)),
    }
}

fn range(field: Field, name: &str, lower: Option<&filter::Bound>, upper: Option<&filter::Bound>) -> Box<dyn Query> {
    let bound = |side: Option<&filter::Bound>| match side {
        None => Bound::Unbounded,
        Some((value, true)) => Bound::Included(term(field, name, value)),
        Some((value, false)) => Bound::Excluded(term(field, name, value)),
    };
    match (lower, upper) {
        (None, None) => Box::new(AllQuery),
        _ => Box::new(RangeQuery::new(bound(lower), bound(upper))),
    }
}

fn term(field: Field, name: &str, value: &Scalar) -> Term {
    let mut term = Term::from_field_json_path(field, name, true);
    match value {
        Scalar::Text(text) => term.append_type_and_str(text),
        Scalar::Integer(integer) => term.append_type_and_fast_value(*integer),
        Scalar::Float(float) => term.append_type_and_fast_value(*float),
        Scalar::Bool(value) => term.append_type_and_fast_value(*value),
    }
    term
}
