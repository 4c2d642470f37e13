//! Filters as tantivy queries over the metadata column.

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
    let mut flat: BTreeMap<String, Vec<OwnedValue>> = BTreeMap::new();
    for (name, value) in metadata {
        flatten(name.clone(), value, &mut flat);
    }
    let one_or_list = |mut values: Vec<OwnedValue>| match values.pop() {
        Some(only) if values.is_empty() => only,
        last => OwnedValue::Array(values.into_iter().chain(last).collect()),
    };
    flat.into_iter().map(|(name, values)| (name, one_or_list(values))).collect()
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
