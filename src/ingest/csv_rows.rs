//! Delimited rows to documents: each row is a record under the names of the header row.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Number, Value};

use super::records::Records;
use super::{Document, Limits, MediaType, ParseError};

/// Parses CSV. The delimiter is a tab for `.tsv` and `.tab`, else the most frequent of comma, semicolon and tab in the
/// header row. A row's `id` column is its record id when no other row has the same value; otherwise it is its line.
pub(super) fn parse(text: &str, name: &str, limits: &Limits) -> Result<Vec<Document>, ParseError> {
    let delimiter = delimiter(text, name);
    let mut reader = reader(text, delimiter);
    let header = column_names(reader.headers().map_err(csv_error)?);
    let id_column = header.iter().position(|column| matches!(column.to_ascii_lowercase().as_str(), "id" | "_id"));
    let numbered = match id_column {
        Some(column) => !is_unique(text, delimiter, column)?,
        None => true,
    };
    let mut records = Records::new(MediaType::Csv, limits);
    for row in reader.records() {
        let row = row.map_err(csv_error)?;
        let line = row.position().map_or(0, csv::Position::line);
        let mut fields = Map::new();
        for (index, value) in row.iter().enumerate().filter(|(_, value)| !value.trim().is_empty()) {
            let column = header.get(index).cloned().unwrap_or_else(|| format!("column_{}", index + 1));
            let is_id = id_column == Some(index);
            let (column, value) =
                if is_id && !numbered { ("_id".to_owned(), text_value(value)) } else { (column, typed(value)) };
            fields.insert(column, value);
        }
        if !fields.is_empty() {
            records.add(Value::Object(fields), line, numbered)?;
        }
    }
    Ok(records.finish())
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text.as_bytes())
}

fn csv_error(source: csv::Error) -> ParseError {
    let detail = match source.position() {
        Some(position) => format!("line {}", position.line()),
        None => "no position known".to_owned(),
    };
    ParseError::Corrupt { format: "CSV", detail, source: Some(Box::new(source)) }
}

fn delimiter(text: &str, name: &str) -> u8 {
    let name = name.to_ascii_lowercase();
    if name.ends_with(".tsv") || name.ends_with(".tab") {
        return b'\t';
    }
    let (mut counts, mut quoted) = ([0usize; 3], false);
    for byte in text.bytes() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            b',' if !quoted => counts[0] += 1,
            b';' if !quoted => counts[1] += 1,
            b'\t' if !quoted => counts[2] += 1,
            _ => {}
        }
    }
    if counts[1] > counts[0] && counts[1] >= counts[2] {
        b';'
    } else if counts[2] > counts[0] {
        b'\t'
    } else {
        b','
    }
}

/// The header's names, made distinct: `column_3` for an empty one, `name_2` for a repeated one.
fn column_names(header: &csv::StringRecord) -> Vec<String> {
    let mut used: HashMap<String, usize> = HashMap::new();
    let mut distinct = |name: &str, position: usize| {
        let name = if name.is_empty() { format!("column_{position}") } else { name.to_owned() };
        let times = used.entry(name.clone()).or_default();
        *times += 1;
        if *times == 1 { name } else { format!("{name}_{times}") }
    };
    header.iter().zip(1..).map(|(name, position)| distinct(name.trim(), position)).collect()
}

/// Whether every row has its own value in `column`.
fn is_unique(text: &str, delimiter: u8, column: usize) -> Result<bool, ParseError> {
    let mut seen = HashSet::new();
    for row in reader(text, delimiter).records() {
        let row = row.map_err(csv_error)?;
        let value = row.get(column).unwrap_or_default().trim();
        if row.iter().all(|value| value.trim().is_empty()) {
            continue;
        }
        if value.is_empty() || !seen.insert(value.to_owned()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn text_value(value: &str) -> Value {
    Value::String(value.trim().to_owned())
}

/// Numbers and booleans as such, so that filters can compare them. `007` and `+1` stay text: they are codes, not numbers.
fn typed(value: &str) -> Value {
    let value = value.trim();
    match value {
        "true" | "TRUE" | "True" => return Value::Bool(true),
        "false" | "FALSE" | "False" => return Value::Bool(false),
        _ => {}
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    let is_code = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    if is_code || !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return text_value(value);
    }
    if let Ok(whole) = value.parse::<i64>() {
        return Value::Number(whole.into());
    }
    // Only what reads back as written: a long serial number is no float.
    let number = value.parse::<f64>().ok().filter(|number| number.to_string() == value).and_then(Number::from_f64);
    number.map_or_else(|| text_value(value), Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(text: &str, name: &str) -> Vec<Document> {
        parse(text, name, &Limits::default()).expect("valid CSV")
    }

    #[test]
    fn a_row_is_lines_and_metadata() {
        let found = rows("sku,price,notes\n007,1.5,\"two\nlines\"\n008,2,\n", "a.csv");
        assert_eq!(found[0].text, "sku: 007\nprice: 1.5\nnotes: two\nlines");
        assert_eq!(
            Value::Object(found[0].metadata.clone()),
            json!({"sku": "007", "price": 1.5, "notes": "two\nlines"})
        );
        assert_eq!(found.iter().map(|row| row.record.as_deref()).collect::<Vec<_>>(), [Some("2"), Some("4")]);
    }

    #[test]
    fn a_row_of_names_is_findable() {
        let found = rows("id,name\na1,Ana\nb2,Bo\n", "a.csv");
        assert_eq!(found.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["name: Ana", "name: Bo"]);
        assert_eq!(found[0].title.as_deref(), Some("Ana"));
        assert_eq!(rows("name\nAna\n", "a.csv")[0].text, "name: Ana");
    }

    #[test]
    fn delimiters_are_recognised() {
        for (text, name) in [("a;b\n1,5;2\n", "x.csv"), ("a\tb\n1,5\t2\n", "x.csv"), ("a\tb\n1,5\t2\n", "x.TSV")] {
            assert_eq!(rows(text, name)[0].text, "a: 1,5\nb: 2", "{text:?}");
        }
    }

    #[test]
    fn an_id_column_counts_only_when_unique() {
        let ids =
            |text: &str| rows(text, "a.csv").into_iter().map(|row| row.record.unwrap_or_default()).collect::<Vec<_>>();
        assert_eq!(ids("ID,x\na,1\nb,2\n"), ["a", "b"]);
        assert_eq!(ids("id,x\na,1\na,2\n"), ["2", "3"]);
        assert_eq!(rows("id,x\na,1\na,2\n", "a.csv")[1].text, "id: a\nx: 2");
    }

    #[test]
    fn odd_headers_and_ragged_rows_are_read() {
        assert_eq!(rows("a,,a\n1,2,3,4\n5\n", "a.csv")[0].text, "a: 1\ncolumn_2: 2\na_2: 3\ncolumn_4: 4");
        assert!(rows("", "a.csv").is_empty());
        assert!(rows("only,header\n", "a.csv").is_empty());
    }
}
