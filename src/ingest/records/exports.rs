//! Full exports of other databases: one object around many records.
//!
//! Supported are Chroma's `get()` (parallel lists), Qdrant's scroll (points with a payload) and GeoJSON's feature
//! collections.

use serde_json::{Map, Value};

/// The records of an export; any other value unchanged.
pub(super) fn records(value: Value, warnings: &mut Vec<String>) -> Result<Vec<Value>, Value> {
    let Value::Object(mut fields) = value else { return Err(value) };
    if is_chroma(&fields) {
        return Ok(chroma(&mut fields));
    }
    if fields.get("type").and_then(Value::as_str) == Some("FeatureCollection")
        && let Some(Value::Array(features)) = fields.get_mut("features").map(Value::take)
    {
        return Ok(features.into_iter().map(feature).collect());
    }
    qdrant(fields, warnings)
}

fn is_chroma(fields: &Map<String, Value>) -> bool {
    let length = |name: &str| fields.get(name).and_then(Value::as_array).map(Vec::len);
    let Some(ids) = length("ids") else { return false };
    let flat = fields["ids"].as_array().is_some_and(|ids| ids.iter().all(Value::is_string));
    let lists = [length("documents"), length("metadatas")];
    flat && lists.iter().any(Option::is_some) && lists.iter().flatten().all(|length| *length == ids)
}

fn chroma(fields: &mut Map<String, Value>) -> Vec<Value> {
    let mut list = |name: &str| match fields.get_mut(name).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let (ids, mut documents, mut metadatas, mut uris) =
        (list("ids"), list("documents"), list("metadatas"), list("uris"));
    let take =
        |list: &mut Vec<Value>, index: usize| list.get_mut(index).map(Value::take).filter(|value| !value.is_null());
    let record = |(index, id): (usize, Value)| {
        let mut record = match take(&mut metadatas, index) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        record.insert("_id".to_owned(), id);
        for (name, list) in [("text", &mut documents), ("url", &mut uris)] {
            if let Some(value) = take(list, index) {
                record.insert(name.to_owned(), value);
            }
        }
        Value::Object(record)
    };
    ids.into_iter().enumerate().map(record).collect()
}

/// `{"result": {"points": […]}}`, or the points alone.
fn qdrant(mut fields: Map<String, Value>, warnings: &mut Vec<String>) -> Result<Vec<Value>, Value> {
    let holder = match fields.get("result") {
        Some(Value::Object(result)) => result,
        _ => &fields,
    };
    let is_point = |value: &Value| {
        value.get("id").is_some()
            && value.get("payload").is_some_and(|payload| payload.is_object() || payload.is_null())
    };
    let points = holder.get("points").and_then(Value::as_array);
    if !points.is_some_and(|points| !points.is_empty() && points.iter().all(is_point)) {
        return Err(Value::Object(fields));
    }
    if let Some(next) = holder.get("next_page_offset").filter(|next| !next.is_null()) {
        warnings.push(format!("this is one page of an export; the next one begins at {next}"));
    }
    let mut holder = match fields.get_mut("result").map(Value::take) {
        Some(Value::Object(result)) => result,
        _ => fields,
    };
    let Some(Value::Array(points)) = holder.get_mut("points").map(Value::take) else { return Ok(Vec::new()) };
    let record = |mut point: Value| {
        let mut record = match point.get_mut("payload").map(Value::take) {
            Some(Value::Object(payload)) => payload,
            _ => Map::new(),
        };
        record.insert("_id".to_owned(), point.get_mut("id").map(Value::take).unwrap_or_default());
        Value::Object(record)
    };
    Ok(points.into_iter().map(record).collect())
}

/// A GeoJSON feature: its properties, and its position if it is a point.
fn feature(mut feature: Value) -> Value {
    let mut record = match feature.get_mut("properties").map(Value::take) {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    if let Some(id) = feature.get_mut("id").map(Value::take).filter(|id| !id.is_null()) {
        record.insert("_id".to_owned(), id);
    }
    if let Some(Value::Object(mut geometry)) = feature.get_mut("geometry").map(Value::take) {
        if geometry.get("type").and_then(Value::as_str) != Some("Point") {
            geometry.shift_remove("coordinates");
        }
        record.insert("geometry".to_owned(), Value::Object(geometry));
    }
    Value::Object(record)
}
