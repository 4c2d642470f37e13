//! JSON and JSON Lines to documents: one for each record.
//!
//! The text of a record is its text field (`text`, `content`, `body`, …), and its small other fields are metadata. A
//! record without one becomes `key.path: value` lines, so that every value can be found; one that only has a title,
//! address or id becomes these. Long lists of numbers (embeddings, outlines of maps) and encoded data are left out.
//! Nesting is checked before the parser runs, and arrays of records are read one element at a time. JSON with comments,
//! surplus commas or `NaN` is accepted too; see [`lenient`]. Exports of databases are records; see [`exports`].

mod exports;
mod lenient;

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::block::{Block, BlockKind, shorten};
use super::front_matter::{TITLE_BYTES_MAX, take_field};
use super::{Document, Limits, MediaType, ParseError, encoded, text};

/// Fields that hold the text of a record, in order of preference.
const TEXT_FIELDS: &[&str] = &["text", "content", "body", "contents", "page_content", "passage", "chunk"];
const TITLE_FIELDS: &[&str] = &["title", "name", "headline", "subject"];
const URL_FIELDS: &[&str] = &["url", "uri", "link", "permalink"];
const ID_FIELDS: &[&str] = &["_id", "id"];
/// Largest field kept as metadata, in bytes of its JSON; larger ones become part of the text, where they can be
/// searched.
const METADATA_BYTES_MAX: usize = 1024;
/// Longest record id, in bytes: ids are keys in the catalog.
const ID_BYTES_MAX: usize = 512;
/// Longest `key.path` that is written before a value, in bytes: it repeats with every value below it.
const PATH_BYTES_MAX: usize = 400;
/// Values of one JSON value; each needs about 72 bytes once parsed, whatever its size in the file.
const VALUES_MAX: usize = 4_000_000;
/// An array of this many numbers is an embedding, a signal or an outline: nobody reads or searches for it.
const NUMBERS_MAX: usize = 64;

/// Collects the records of one source and enforces the limits.
pub(super) struct Records<'a> {
    limits: &'a Limits,
    media_type: MediaType,
    documents: Vec<Document>,
    text_bytes: usize,
    places: HashMap<String, u64>,
}

impl<'a> Records<'a> {
    pub(super) fn new(media_type: MediaType, limits: &'a Limits) -> Self {
        Self { limits, media_type, documents: Vec::new(), text_bytes: 0, places: HashMap::new() }
    }

    pub(super) fn finish(self) -> Vec<Document> {
        self.documents
    }

    /// Adds the record at `place` (line or element, from 1).
    fn add(&mut self, value: Value, place: u64) -> Result<(), ParseError> {
        self.add_record(value, Map::new(), place, false)
    }

    /// Adds a row of texts. `typed`: typed values for filters, for fields that are not text. `numbered`: its fields
    /// contain no id.
    pub(super) fn add_row(
        &mut self,
        fields: Map<String, Value>,
        typed: Map<String, Value>,
        place: u64,
        numbered: bool,
    ) -> Result<(), ParseError> {
        self.add_record(Value::Object(fields), typed, place, numbered)
    }

    fn add_record(
        &mut self,
        value: Value,
        typed: Map<String, Value>,
        place: u64,
        numbered: bool,
    ) -> Result<(), ParseError> {
        if self.documents.len() >= self.limits.records_max {
            return Err(ParseError::TooManyRecords { limit: self.limits.records_max });
        }
        let (id, mut document) = document(value, self.media_type, numbered, Lines::new(self.text_bytes, self.limits))?;
        let id = id.unwrap_or_else(|| place.to_string());
        if id.len() > ID_BYTES_MAX {
            let detail = format!("the id at {place} has {} bytes, expected at most {ID_BYTES_MAX}", id.len());
            return Err(ParseError::corrupt("record", detail));
        }
        if let Some(first) = self.places.insert(id.clone(), place) {
            return Err(ParseError::DuplicateRecord { id: shorten(&id, 80), first, second: place });
        }
        for (key, value) in typed {
            if let Some(shown) = document.metadata.get_mut(&key) {
                *shown = value;
            } else if TITLE_FIELDS.contains(&key.as_str()) {
                // It became the title, but filters may still use the column.
                document.metadata.insert(key, value);
            }
        }
        document.record = Some(id);
        self.text_bytes += document.text.len();
        self.documents.push(document);
        Ok(())
    }
}

/// Parses a JSON source: an array of objects or a database export is many records, anything else one document.
pub(super) fn parse_json(
    source: &str,
    limits: &Limits,
    warnings: &mut Vec<String>,
) -> Result<Vec<Document>, ParseError> {
    let shape = check_shape(source, limits)?;
    let cleaned = if shape.odd { Some(lenient::cleaned(source)) } else { None };
    let source = match &cleaned {
        // For text that is invalid even for the lenient reader, the error has the position in the original.
        Some(cleaned) if serde_json::from_str::<serde::de::IgnoredAny>(&cleaned.text).is_ok() => {
            warnings.extend(cleaned.warning());
            if cleaned.is_annotated() && !shape.records {
                return Ok(vec![annotated(source.to_owned())]);
            }
            cleaned.text.as_str()
        }
        _ => source,
    };
    let mut records = Records::new(MediaType::Json, limits);
    if shape.records {
        let mut failure = None;
        let mut reader = serde_json::Deserializer::from_str(source);
        let read = Elements { records: &mut records, failure: &mut failure }.deserialize(&mut reader);
        if let Some(error) = failure {
            return Err(error);
        }
        read.and_then(|()| reader.end()).map_err(json_error)?;
        return Ok(records.finish());
    }
    let value = serde_json::from_str(source).map_err(json_error)?;
    match exports::records(value, warnings) {
        Ok(exported) => {
            for (value, place) in exported.into_iter().zip(1..) {
                records.add(value, place)?;
            }
            Ok(records.finish())
        }
        Err(value) => Ok(vec![document(value, MediaType::Json, false, Lines::new(0, limits))?.1]),
    }
}

/// Parses one JSON value within the limits.
pub(super) fn parse_value(source: &str, limits: &Limits) -> Result<Value, ParseError> {
    check_shape(source, limits)?;
    serde_json::from_str(source).map_err(json_error)
}

/// A settings file with comments, which say more than the values: it is kept as written.
fn annotated(source: String) -> Document {
    let blocks = Block::trimmed(&source, 0..source.len(), BlockKind::Verbatim).into_iter().collect();
    Document::new(MediaType::Json, source, blocks)
}

/// Parses JSON Lines: one record a line, blank lines between them allowed.
pub(super) fn parse_lines(
    source: &str,
    limits: &Limits,
    warnings: &mut Vec<String>,
) -> Result<Vec<Document>, ParseError> {
    let mut records = Records::new(MediaType::JsonLines, limits);
    let mut warned = false;
    for (line, number) in source.lines().zip(1u64..) {
        if line.trim().is_empty() {
            continue;
        }
        let mut read = serde_json::from_str(line);
        if check_shape(line, limits)?.odd {
            let cleaned = lenient::cleaned(line);
            if let Ok(value) = serde_json::from_str(&cleaned.text) {
                read = Ok(value);
                if let Some(warning) = cleaned.warning().filter(|_| !warned) {
                    warnings.push(format!("line {number}: {warning}"));
                    warned = true;
                }
            }
        }
        let value = read.map_err(|source| ParseError::Corrupt {
            format: "JSON Lines",
            detail: format!("line {number} is not a JSON value"),
            source: Some(Box::new(source)),
        })?;
        records.add(value, number)?;
    }
    Ok(records.finish())
}

fn json_error(source: serde_json::Error) -> ParseError {
    let detail = format!("line {}, column {}", source.line(), source.column());
    ParseError::Corrupt { format: "JSON", detail, source: Some(Box::new(source)) }
}

/// The result of scanning the bytes of a JSON text.
struct Shape {
    /// It is an array of objects.
    records: bool,
    /// It contains something that JSON does not allow and [`lenient`] accepts.
    odd: bool,
}

/// Refuses a source that nests too deeply or has too many values, before anything is built, and returns its shape. One
/// pass over the bytes; strings are skipped. Values are counted by their commas, separately for each element of an
/// outer array. Syntax is left to the parser.
fn check_shape(source: &str, limits: &Limits) -> Result<Shape, ParseError> {
    let limit = limits.depth_max.min(100);
    let bytes = source.as_bytes();
    let start = lenient::behind_comments(bytes, 0);
    let outer_array = bytes.get(start) == Some(&b'[');
    let (mut any_object, mut all_objects) = (false, outer_array);
    let (mut depth, mut commas, mut digits) = (0usize, 0usize, 0usize);
    let (mut odd, mut behind_comma) = (start > 0 && !source[..start].trim().is_empty(), false);
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte.is_ascii_whitespace() {
            continue;
        }
        if byte == b'/' {
            let behind = lenient::behind_comments(bytes, at - 1);
            if behind > at {
                odd = true;
                at = behind;
                continue;
            }
        }
        match byte {
            b'{' if depth == 1 => any_object = true,
            b'}' | b']' | b',' => {}
            _ if depth == 1 => all_objects = false,
            _ => {}
        }
        odd |= (behind_comma && matches!(byte, b']' | b'}')) || matches!(byte, b'N' | b'I');
        behind_comma = byte == b',';
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        odd |= digits > lenient::DIGITS_MAX;
        match byte {
            b'"' => at = lenient::behind_string(bytes, at),
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return Err(ParseError::TooDeep { limit });
                }
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if outer_array && depth == 1 {
                    commas = 0;
                }
            }
            b',' => {
                commas += 1;
                if commas > VALUES_MAX {
                    return Err(ParseError::corrupt("JSON", format!("more than {VALUES_MAX} values in one record")));
                }
            }
            _ => {}
        }
    }
    Ok(Shape { records: any_object && all_objects, odd })
}

/// Reads the elements of an array as records. The reader's error type cannot hold ours, so it is returned separately.
struct Elements<'r, 'l> {
    records: &'r mut Records<'l>,
    failure: &'r mut Option<ParseError>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut place = 0;
        while let Some(value) = elements.next_element::<Value>()? {
            place += 1;
            if let Err(error) = self.records.add(value, place) {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("record refused"));
            }
        }
        Ok(())
    }
}

/// The id and document of one JSON value. `numbered`: fields named like an id are ignored.
fn document(
    value: Value,
    media_type: MediaType,
    numbered: bool,
    mut lines: Lines<'_>,
) -> Result<(Option<String>, Document), ParseError> {
    let mut fields = match value {
        Value::Object(fields) => fields,
        Value::String(text) => return Ok((None, from_text(media_type, text, &lines)?)),
        other => {
            lines.value(&other)?;
            return Ok((None, from_text(media_type, String::new(), &lines)?));
        }
    };
    let id = if numbered { None } else { take_field(&mut fields, ID_FIELDS) };
    let url = take_field(&mut fields, URL_FIELDS);
    let title = take_field(&mut fields, TITLE_FIELDS);
    let is_text = |value: Option<&Value>| matches!(value, Some(Value::String(text)) if !text.trim().is_empty());
    let text_field = TEXT_FIELDS.iter().find(|field| is_text(fields.get(**field)));
    let text = match text_field.and_then(|field| fields.shift_remove(*field)) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    fields.retain(|_, value| !is_data(value));
    // An empty text field is useless for filters.
    fields.retain(|key, value| {
        !TEXT_FIELDS.contains(&key.as_str()) || value.as_str().is_none_or(|text| !text.trim().is_empty())
    });
    let mut metadata = Map::new();
    for (key, value) in fields {
        let small = is_small(&value);
        if text.is_none() || !small {
            lines.field(&key, &value)?;
        }
        if small && !value.is_null() {
            metadata.insert(key, value);
        }
    }
    if text.is_none() && lines.out.is_empty() {
        for (key, value) in [&title, &url].into_iter().flatten() {
            lines.field(key, &Value::String(value.clone()))?;
        }
        if let (Some((_, id)), true) = (&id, lines.out.is_empty()) {
            lines.field("id", &Value::String(id.clone()))?;
        }
    }
    let mut document = from_text(media_type, text.unwrap_or_default(), &lines)?;
    document.title = title.map(|(_, title)| shorten(&title, TITLE_BYTES_MAX));
    document.url = url.map(|(_, url)| url);
    document.metadata = metadata;
    Ok((id.map(|(_, id)| id), document))
}

/// A document of running text with field lines below it.
fn from_text(media_type: MediaType, mut out: String, lines: &Lines<'_>) -> Result<Document, ParseError> {
    let mut blocks = text::paragraphs(&out, 0..out.len());
    if !lines.out.is_empty() {
        if !out.is_empty() {
            out.push_str("\n\n");
        }
        let start = out.len();
        out.push_str(&lines.out);
        blocks.extend(Block::trimmed(&out, start..out.len(), BlockKind::Verbatim));
    }
    lines.limits.check_text(lines.used + out.len())?;
    Ok(Document::new(media_type, out, blocks))
}

/// Whether a value is only meant for programs: many numbers, points of an outline, encoded data.
fn is_data(value: &Value) -> bool {
    match value {
        Value::String(text) => encoded::is_blob(text),
        Value::Array(items) if items.len() >= NUMBERS_MAX => {
            let numbers = |value: &Value| match value {
                Value::Array(point) => point.len() <= 4 && point.iter().all(Value::is_number),
                value => value.is_number(),
            };
            items.iter().all(numbers)
        }
        _ => false,
    }
}

/// Scalars, and arrays or objects of a few, are metadata.
fn is_small(value: &Value) -> bool {
    fn cost(value: &Value, left: usize) -> Option<usize> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => left.checked_sub(8),
            Value::String(text) => left.checked_sub(text.len() + 2),
            Value::Array(items) => items.iter().try_fold(left, |left, item| cost(item, left)),
            Value::Object(fields) => {
                fields.iter().try_fold(left, |left, (key, value)| cost(value, left.checked_sub(key.len() + 3)?))
            }
        }
    }
    cost(value, METADATA_BYTES_MAX).is_some()
}

/// Writes `key.path: value` lines. Recursion is bounded by the nesting that [`check_shape`] lets through.
struct Lines<'a> {
    out: String,
    path: String,
    /// Bytes of text in the records before this one.
    used: usize,
    limits: &'a Limits,
}

impl<'a> Lines<'a> {
    fn new(used: usize, limits: &'a Limits) -> Self {
        Self { out: String::new(), path: String::new(), used, limits }
    }

    fn field(&mut self, key: &str, value: &Value) -> Result<(), ParseError> {
        let length = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
        self.value(value)?;
        self.path.truncate(length);
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), ParseError> {
        if is_data(value) {
            return Ok(());
        }
        match value {
            Value::Null => Ok(()),
            Value::Bool(_) | Value::Number(_) => self.line(&value.to_string()),
            Value::String(text) => self.line(text.trim()),
            Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
                let words: Vec<String> = items.iter().filter(|item| !item.is_null()).map(scalar).collect();
                self.line(&words.join(", "))
            }
            Value::Array(items) => {
                items.iter().enumerate().try_for_each(|(index, item)| self.field(&index.to_string(), item))
            }
            Value::Object(fields) => fields.iter().try_for_each(|(key, value)| self.field(key, value)),
        }
    }

    fn line(&mut self, value: &str) -> Result<(), ParseError> {
        if value.is_empty() {
            return Ok(());
        }
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        if !self.path.is_empty() {
            self.out.push_str(&shorten(&self.path, PATH_BYTES_MAX));
            self.out.push_str(": ");
        }
        self.out.push_str(value);
        // A long key above many values repeats in every line: text can exceed the source.
        self.limits.check_text(self.used + self.out.len())
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn json(source: &str) -> Vec<Document> {
        parse_json(source, &Limits::default(), &mut Vec::new()).expect("valid JSON")
    }

    fn jsonl(source: &str) -> Result<Vec<Document>, ParseError> {
        parse_lines(source, &Limits::default(), &mut Vec::new())
    }

    #[test]
    fn a_corpus_line_is_title_and_text() {
        let found =
            jsonl("{\"_id\": \"d1\", \"title\": \"T\", \"text\": \"Words.\", \"year\": 1999}\n\n{\"text\":\"x\"}\n")
                .expect("valid");
        assert_eq!(found[0].record.as_deref(), Some("d1"));
        assert_eq!((found[0].title.as_deref(), found[0].text.as_str()), (Some("T"), "Words."));
        assert_eq!(Value::Object(found[0].metadata.clone()), json!({"year": 1999}));
        assert_eq!(found[1].record.as_deref(), Some("3"));
    }

    #[test]
    fn a_record_without_text_becomes_lines() {
        let found = json(r#"{"name":"web","spec":{"ports":[80,443],"env":[{"k":"A"}]},"none":null,"on":true}"#);
        assert_eq!(found[0].title.as_deref(), Some("web"));
        assert_eq!(found[0].text, "spec.ports: 80, 443\nspec.env.0.k: A\non: true");
        assert_eq!(found[0].record, None);
    }

    #[test]
    fn what_a_record_is_called_is_its_text_when_it_has_no_other() {
        let found =
            json(r#"[{"id":1,"name":"Ana"},{"_id":"b","title":"Bo","text":" "},{"id":3,"url":"x:y"},{"id":"d"}]"#);
        let texts: Vec<&str> = found.iter().map(|document| document.text.as_str()).collect();
        assert_eq!(texts, ["name: Ana", "title: Bo", "url: x:y", "id: d"]);
        assert_eq!((found[0].title.as_deref(), found[0].record.as_deref()), (Some("Ana"), Some("1")));
        assert!(found[1].metadata.is_empty());
        assert_eq!(json("[{}]")[0].text, "");
        let beside = json(r#"{"text":"","content":"Words.","year":1999}"#);
        assert_eq!((beside[0].text.as_str(), &beside[0].metadata["year"]), ("Words.", &json!(1999)));
    }

    #[test]
    fn an_array_of_objects_is_many_records_and_others_are_one() {
        let found = json(r#"[{"id":7,"body":"a"},{"body":"b"}]"#);
        assert_eq!(found.iter().map(|document| document.record.as_deref()).collect::<Vec<_>>(), [Some("7"), Some("2")]);
        assert_eq!(json("[1, {\"a\": 2}]").len(), 1);
        assert_eq!(json("[]")[0].text, "");
        assert_eq!(json("\"only words\"")[0].text, "only words");
    }

    #[test]
    fn large_fields_beside_the_text_stay_searchable() {
        let found = json(&format!(r#"{{"text":"short","notes":"{}"}}"#, "long ".repeat(400)));
        assert!(found[0].text.starts_with("short\n\nnotes: long long"));
        assert!(found[0].metadata.is_empty());
    }

    #[test]
    fn the_same_id_twice_names_both_lines() {
        let found = jsonl("{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"a\"}\n");
        assert!(matches!(found, Err(ParseError::DuplicateRecord { first: 1, second: 3, .. })), "{found:?}");
    }

    #[test]
    fn nesting_is_refused_before_it_can_overflow() {
        for open in ["[", "{\"a\":", "[[{\"b\":["] {
            let found = parse_json(&open.repeat(100_000), &Limits::default(), &mut Vec::new());
            assert!(matches!(found, Err(ParseError::TooDeep { limit: 64 })), "{open}");
        }
        assert_eq!(json(r#"{"a":"[[[[\"[[["}"#).len(), 1);
    }

    #[test]
    fn a_long_key_is_not_repeated_whole_before_every_value() {
        let found = json(&format!("{{\"{}\":[{}0]}}", "key".repeat(1_000), "{\"x\":1},".repeat(1_000)));
        assert!(found[0].text.starts_with("keykey") && found[0].text.ends_with("…: 0"), "{}", found[0].text);
        assert!(found[0].text.len() <= 1_001 * (PATH_BYTES_MAX + 10), "{}", found[0].text.len());
    }

    #[test]
    fn a_long_key_above_many_values_cannot_outgrow_the_limit() {
        let limits = Limits { text_bytes_max: 100_000, ..Limits::default() };
        let values = vec!["{\"x\":1}"; 5000].join(",");
        let source = format!("{{\"{}\":[{values}]}}", "k".repeat(5000));
        assert!(matches!(parse_json(&source, &limits, &mut Vec::new()), Err(ParseError::TooLarge { .. })));
    }

    #[test]
    fn records_are_counted() {
        let limits = Limits { records_max: 2, ..Limits::default() };
        assert!(matches!(
            parse_lines("1\n2\n3\n", &limits, &mut Vec::new()),
            Err(ParseError::TooManyRecords { limit: 2 })
        ));
        assert!(matches!(
            parse_json("[{},{},{}]", &limits, &mut Vec::new()),
            Err(ParseError::TooManyRecords { limit: 2 })
        ));
    }

    #[test]
    fn settings_with_remarks_are_kept_as_text() {
        let mut warnings = Vec::new();
        let source = "// Build.\n{\n  /* strict */ \"strict\": true, // all of it\n  \"lib\": [\"a//b\",],\n}\n";
        let found = parse_json(source, &Limits::default(), &mut warnings).expect("read").remove(0);
        assert_eq!((found.text.as_str(), found.blocks.len()), (source, 1));
        assert_eq!(warnings, ["comments or commas that JSON does not allow; kept as text"]);
    }

    #[test]
    fn records_with_remarks_commas_and_no_numbers_are_records() {
        let mut warnings = Vec::new();
        let source = "[ // list\n {\"id\": 1, \"name\": \"a\", \"x\": NaN,},\n {\"id\": 12345678901234567890123, \"name\": \"b\", \"x\": -Infinity},\n]";
        let found = parse_json(source, &Limits::default(), &mut warnings).expect("read");
        let ids: Vec<_> = found.iter().map(|document| document.record.as_deref().unwrap_or_default()).collect();
        assert_eq!(ids, ["1", "12345678901234567890123"]);
        assert_eq!(
            warnings,
            ["comments or commas that JSON does not allow; left out. NaN and Infinity are read as null"]
        );
        let mut warnings = Vec::new();
        let found =
            parse_lines("{\"text\":\"a\",\"x\":NaN}\n{\"text\":\"b\",\"x\":NaN}\n", &Limits::default(), &mut warnings);
        assert_eq!((found.expect("read").len(), warnings.len()), (2, 1));
        let error = parse_json("{\n  \"a\": tru, // no\n}", &Limits::default(), &mut Vec::new()).expect_err("broken");
        assert_eq!(error.to_string(), "not valid JSON: line 2, column 11");
    }

    #[test]
    fn embeddings_and_pictures_are_no_text() {
        let vector = vec!["0.25"; 384].join(",");
        let picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ".repeat(20);
        let found = json(&format!(
            r#"[{{"text":"words","embedding":[{vector}],"meta":{{"v":[{vector}],"icon":"{picture}","n":1}}}}]"#
        ));
        assert_eq!(found[0].text, "words\n\nmeta.n: 1");
        assert!(found[0].metadata.is_empty(), "{:?}", found[0].metadata);
    }

    #[test]
    fn exports_of_databases_are_records() {
        let chroma = json!({"ids": ["a", "b"], "documents": ["First.", "Second."], "embeddings": null,
            "metadatas": [{"page": 3}, null], "uris": null});
        let found = json(&chroma.to_string());
        assert_eq!(
            (found[0].record.as_deref(), found[0].text.as_str(), &found[0].metadata["page"]),
            (Some("a"), "First.", &json!(3))
        );
        assert_eq!((found.len(), found[1].record.as_deref()), (2, Some("b")));
        let qdrant = json!({"result": {"points": [{"id": 7, "payload": {"text": "Seventh.", "city": "Bonn"}, "vector": [0.5]}],
            "next_page_offset": 8}, "status": "ok", "time": 0.1});
        let mut warnings = Vec::new();
        let found = parse_json(&qdrant.to_string(), &Limits::default(), &mut warnings).expect("read");
        assert_eq!(
            (found[0].record.as_deref(), found[0].text.as_str(), &found[0].metadata["city"]),
            (Some("7"), "Seventh.", &json!("Bonn"))
        );
        assert_eq!(warnings, ["this is one page of an export; the next one begins at 8"]);
        let map = json!({"type": "FeatureCollection", "features": [{"type": "Feature", "id": "w1",
            "properties": {"name": "Main Street"}, "geometry": {"type": "Point", "coordinates": [7.1, 50.7]}}]});
        let found = json(&map.to_string());
        assert_eq!(
            (found[0].title.as_deref(), found[0].text.as_str()),
            (Some("Main Street"), "geometry.type: Point\ngeometry.coordinates: 7.1, 50.7")
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = jsonl("{}\n{\"a\":\n").expect_err("broken");
        assert_eq!(error.to_string(), "not valid JSON Lines: line 2 is not a JSON value");
    }
}
