//! Delimited rows to documents: each row is a record with the names of the header row.
//!
//! The text of a row is the content of its cells. For filters, a column is numeric when all its cells are numbers in
//! one notation; see [`columns`].

mod columns;
mod quotes;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::block::shorten;
use super::records::Records;
use super::{Document, Limits, MediaType, ParseError};
use columns::Column;

/// How much of a file is used to detect its delimiter and header row, in bytes and in rows.
const SAMPLE_BYTES: usize = 64 << 10;
const SAMPLE_ROWS: usize = 20;

/// Longest text of a cell that filters can compare.
const NAME_BYTES_MAX: usize = 1024;

/// Longest name of a column, in bytes: it is repeated with each of its cells.
const COLUMN_BYTES_MAX: usize = 200;

/// Parses CSV. A row's `id` column is its record id when no other row has the same value; otherwise it is its line.
pub(super) fn parse(
    text: &str,
    name: &str,
    limits: &Limits,
    warnings: &mut Vec<String>,
) -> Result<Vec<Document>, ParseError> {
    let delimiter = delimiter(text, name);
    let (text, unclosed) = quotes::repaired(text, delimiter);
    if let [first, ..] = unclosed[..] {
        let more = if unclosed.len() > 1 { format!(", and {} more", unclosed.len() - 1) } else { String::new() };
        warnings.push(format!("line {first}: a quote is opened and never closed; left out{more}"));
    }
    let Some(head) = Head::find(&text, delimiter, warnings)? else { return Ok(Vec::new()) };
    let survey = Survey::run(&text, delimiter, &head)?;
    if let Some((rows, line)) = survey.ragged {
        let rows = if rows == 1 { "1 row has".to_owned() } else { format!("{rows} rows have") };
        warnings.push(format!("{rows} more or fewer cells than the header row has names; the first is line {line}"));
    }
    let mut records = Records::new(MediaType::Csv, limits);
    for row in reader(&text, delimiter).records().skip(head.rows_before) {
        let row = row.map_err(csv_error)?;
        let line = line_of(&text, row.position());
        let (mut fields, mut typed) = (Map::new(), Map::new());
        for (index, value) in row.iter().enumerate().filter(|(_, value)| !value.trim().is_empty()) {
            let value = value.trim();
            let column = head.name(index);
            if head.id == Some(index) && survey.has_ids {
                fields.insert("_id".to_owned(), Value::String(value.to_owned()));
                continue;
            }
            let read = survey.columns.get(index).and_then(|column| column.typed(value));
            let text = || (value.len() <= NAME_BYTES_MAX).then(|| Value::String(value.to_owned()));
            if let Some(value) = read.or_else(text) {
                typed.insert(column.clone(), value);
            }
            fields.insert(column, Value::String(value.to_owned()));
        }
        if !fields.is_empty() {
            records.add_row(fields, typed, line, !survey.has_ids)?;
        }
    }
    Ok(records.finish())
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(text.as_bytes())
}

/// The line on which a row starts, from 1. The reader reports where it started to read, which may be before line ends.
fn line_of(text: &str, position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else { return 0 };
    let rest = usize::try_from(position.byte()).ok().and_then(|byte| text.as_bytes().get(byte..)).unwrap_or_default();
    let ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + ends.filter(|byte| **byte == b'\n').count() as u64
}

fn csv_error(source: csv::Error) -> ParseError {
    let detail = match source.position() {
        Some(position) => format!("line {}", position.line()),
        None => "no position known".to_owned(),
    };
    ParseError::Corrupt { format: "CSV", detail, source: Some(Box::new(source)) }
}

/// The first rows, up to [`SAMPLE_ROWS`].
fn sample(text: &str, delimiter: u8) -> Vec<csv::StringRecord> {
    let head = &text[..text.floor_char_boundary(SAMPLE_BYTES)];
    reader(head, delimiter).records().take(SAMPLE_ROWS).map_while(Result::ok).collect()
}

/// A tab for `.tsv` and `.tab`; the one named by `sep=` in a first line, as Excel writes it; otherwise the one of
/// comma, semicolon, tab and bar with which most of the first rows have the same number of cells.
fn delimiter(text: &str, name: &str) -> u8 {
    let name = name.to_ascii_lowercase();
    if name.ends_with(".tsv") || name.ends_with(".tab") {
        return b'\t';
    }
    if let [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', mark, b'\r' | b'\n', ..] = *text.as_bytes()
        && mark.is_ascii()
        && mark != b'"'
    {
        return mark;
    }
    let (mut best, mut found) = ((0, 0), b',');
    // If two fit equally, the one that is rarer in words.
    for delimiter in [b'\t', b';', b'|', b','] {
        let mut widths: HashMap<usize, usize> = HashMap::new();
        for row in sample(text, delimiter).iter().filter(|row| row.len() > 1) {
            *widths.entry(row.len()).or_default() += 1;
        }
        let score = widths.into_iter().map(|(width, rows)| (rows, width)).max().unwrap_or_default();
        if score > best {
            (best, found) = (score, delimiter);
        }
    }
    found
}

/// The part above the data.
struct Head {
    names: Vec<String>,
    /// Column that is called id.
    id: Option<usize>,
    /// Rows up to and including the header row.
    rows_before: usize,
}

impl Head {
    /// `None` when there is no row at all.
    fn find(text: &str, delimiter: u8, warnings: &mut Vec<String>) -> Result<Option<Self>, ParseError> {
        let rows = sample(text, delimiter);
        let filled = |row: &csv::StringRecord| row.iter().filter(|cell| !cell.trim().is_empty()).count();
        let is_mark = rows
            .first()
            .is_some_and(|row| row.get(0).is_some_and(|cell| cell.to_ascii_lowercase().starts_with("sep=")));
        let mut header = usize::from(is_mark && rows.len() > 1);
        // Reports have a line or two above their table.
        let widest = rows.iter().map(filled).max().unwrap_or(0);
        let above = rows.iter().skip(header).take_while(|row| filled(row) <= 1).count();
        if widest > 2 && above > 0 && header + above < rows.len() {
            let words =
                rows[header..header + above].iter().flat_map(|row| row.iter()).filter(|cell| !cell.trim().is_empty());
            let words = words.collect::<Vec<_>>().join(" ");
            if !words.is_empty() {
                warnings.push(format!("text above the header row is left out: {}", shorten(&words, 120)));
            }
            header += above;
        }
        let Some(row) = rows.get(header).cloned() else {
            // The file is empty, or the first row is larger than the sample.
            let Some(first) = reader(text, delimiter).records().next() else { return Ok(None) };
            let first = first.map_err(csv_error)?;
            return Ok(Some(Self::of(&first, 1)));
        };
        if rows.get(header + 1).is_some_and(|next| is_data(&row, next)) {
            warnings.push(
                "the first row has numbers, so it is taken for data: columns are called column_1, column_2, …"
                    .to_owned(),
            );
            let nameless = csv::StringRecord::from(vec![""; row.len()]);
            return Ok(Some(Self::of(&nameless, header)));
        }
        Ok(Some(Self::of(&row, header + 1)))
    }

    fn of(header: &csv::StringRecord, rows_before: usize) -> Self {
        let names = column_names(header);
        let id = names.iter().position(|name| matches!(name.to_ascii_lowercase().as_str(), "id" | "_id"));
        Self { names, id, rows_before }
    }

    fn name(&self, index: usize) -> String {
        self.names.get(index).cloned().unwrap_or_else(|| format!("column_{}", index + 1))
    }
}

/// Whether `first` is not a header: it has a number in a column where the row below has one too. Years are valid column
/// names.
fn is_data(first: &csv::StringRecord, next: &csv::StringRecord) -> bool {
    let number = |cell: &str| cell.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let is_year = |number: f64| number.fract() == 0.0 && (1000.0..3000.0).contains(&number);
    first
        .iter()
        .zip(next)
        .any(|(above, below)| number(above).is_some_and(|number| !is_year(number)) && number(below).is_some())
}

/// The header's names, made unique: `column_3` for an empty one, `name_2` for a repeated one.
fn column_names(header: &csv::StringRecord) -> Vec<String> {
    let mut used: HashMap<String, usize> = HashMap::new();
    let mut distinct = |name: &str, position: usize| {
        let name = if name.is_empty() { format!("column_{position}") } else { shorten(name, COLUMN_BYTES_MAX) };
        let times = used.entry(name.clone()).or_default();
        *times += 1;
        if *times == 1 { name } else { format!("{name}_{times}") }
    };
    header.iter().zip(1..).map(|(name, position)| distinct(name.trim(), position)).collect()
}

/// The results of one pass over the rows.
struct Survey {
    columns: Vec<Column>,
    /// Every row has its own value in the id column.
    has_ids: bool,
    /// Rows with another number of cells than the header, and the line of the first.
    ragged: Option<(usize, u64)>,
}

impl Survey {
    fn run(text: &str, delimiter: u8, head: &Head) -> Result<Self, ParseError> {
        let mut columns: Vec<Column> = head.names.iter().map(|name| Column::new(name)).collect();
        let mut ids = HashSet::new();
        let (mut has_ids, mut ragged) = (head.id.is_some(), None);
        for row in reader(text, delimiter).records().skip(head.rows_before) {
            let row = row.map_err(csv_error)?;
            if row.iter().all(|cell| cell.trim().is_empty()) {
                continue;
            }
            for (column, cell) in columns.iter_mut().zip(&row) {
                column.observe(cell.trim());
            }
            if has_ids && let Some(id) = head.id {
                let value = row.get(id).unwrap_or_default().trim();
                has_ids = !value.is_empty() && ids.insert(value.to_owned());
            }
            if row.len() != head.names.len() {
                let (rows, _) = ragged.get_or_insert((0, line_of(text, row.position())));
                *rows += 1;
            }
        }
        Ok(Self { columns, has_ids, ragged })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str, name: &str) -> (Vec<Document>, Vec<String>) {
        let mut warnings = Vec::new();
        (parse(text, name, &Limits::default(), &mut warnings).expect("valid CSV"), warnings)
    }

    fn rows(text: &str, name: &str) -> Vec<Document> {
        read(text, name).0
    }

    fn column(text: &str, name: &str) -> Vec<Value> {
        rows(text, "a.csv").iter().map(|row| row.metadata.get(name).cloned().unwrap_or_default()).collect()
    }

    #[test]
    fn a_long_name_is_not_repeated_whole_with_every_cell() {
        let found = rows(&format!("{0}a,{0}b,n\n1,2,x\n", "long ".repeat(1_000)), "a.csv");
        let names: Vec<&String> = found[0].metadata.keys().collect();
        assert!(names.len() == 3 && names.iter().all(|name| name.len() <= COLUMN_BYTES_MAX + 5), "{names:?}");
        assert!(found[0].text.len() < 3 * COLUMN_BYTES_MAX, "{}", found[0].text);
    }

    #[test]
    fn a_row_is_lines_and_metadata() {
        let found = rows("sku,price,notes\n007,1.50,\"two\nlines\"\n008,2,\n", "a.csv");
        assert_eq!(found[0].text, "sku: 007\nprice: 1.50\nnotes: two\nlines");
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
        assert_eq!((found[0].title.as_deref(), &found[0].metadata["name"]), (Some("Ana"), &json!("Ana")));
        assert_eq!(rows("name\nAna\n", "a.csv")[0].text, "name: Ana");
    }

    #[test]
    fn delimiters_are_recognised() {
        for (text, name) in [
            ("a;b\n1,5;2\n", "x.csv"),
            ("a\tb\n1,5\t2\n", "x.csv"),
            ("a\tb\n1,5\t2\n", "x.TSV"),
            ("a|b\n1,5|2\n", "x.csv"),
            ("sep=;\r\na;b\r\n1,5;2\r\n", "x.csv"),
            ("a, b;b\n1,5;2\n", "x.csv"),
        ] {
            let found = rows(text, name).remove(0).text;
            assert!(found.ends_with("\nb: 2") && found.contains(": 1,5"), "{text:?}: {found}");
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
    fn rows_are_known_by_their_lines_whatever_ends_them() {
        for (text, lines) in [
            ("a,b\n1,2\n\n3,4\n", ["2", "4"]),
            ("a,b\r\n1,2\r\n\r\n3,4\r\n", ["2", "4"]),
            ("a,b\r\n\"x\r\ny\",2\r\n3,4\r\n", ["2", "4"]),
        ] {
            let found: Vec<_> = rows(text, "a.csv").into_iter().filter_map(|row| row.record).collect();
            assert_eq!(found, lines, "{text:?}");
        }
    }

    #[test]
    fn odd_headers_and_ragged_rows_are_read_and_said() {
        let (found, warnings) = read("a,,a\n1,2,3,4\nx\n1,2,3\n", "a.csv");
        assert_eq!(found[0].text, "a: 1\ncolumn_2: 2\na_2: 3\ncolumn_4: 4");
        assert_eq!(warnings, ["2 rows have more or fewer cells than the header row has names; the first is line 2"]);
        assert!(rows("", "a.csv").is_empty());
        assert!(rows("only,header\n", "a.csv").is_empty());
    }

    #[test]
    fn a_quote_that_is_never_closed_eats_no_rows() {
        let mut text = String::from("id,name,remark\n1,Pump,\"never closed\n");
        (2..300).for_each(|n| text.push_str(&format!("{n},Part {n},remark {n}\n")));
        let (found, warnings) = read(&text, "a.csv");
        assert_eq!((found.len(), found[5].record.as_deref()), (299, Some("6")));
        assert!(found[0].text.contains("remark: never closed"), "{}", found[0].text);
        assert_eq!(warnings, ["line 2: a quote is opened and never closed; left out"]);
        // Closed by the quote of another row, far below.
        text.push_str("300,\"Bolt, long\",\"two\nlines\"\n");
        let (found, warnings) = read(&text, "a.csv");
        assert_eq!((found.len(), found[299].title.as_deref(), warnings.len()), (300, Some("Bolt, long"), 1));
        let (found, warnings) = read("a,b\n\"5\" pipe\",x\n\"one\ntwo\" ,y\n", "a.csv");
        assert_eq!((found.len(), warnings.len()), (2, 0));
    }

    #[test]
    fn a_column_of_numbers_is_numbers() {
        assert_eq!(
            column("p\n9.99\n12.50\n3.00\n100.00\n-1.5\n", "p"),
            [json!(9.99), json!(12.5), json!(3.0), json!(100.0), json!(-1.5)]
        );
        assert_eq!(
            column("p\n\"1,234.5\"\n\"12\"\n\"1,000,000\"\n", "p"),
            [json!(1234.5), json!(12), json!(1_000_000)]
        );
        assert_eq!(column("p;q\n12,50;1\n3;1\n1.234,5;1\n", "p"), [json!(12.5), json!(3), json!(1234.5)]);
        assert_eq!(column("p\n5\nn/a\n7\n", "p"), [json!(5), json!("n/a"), json!(7)]);
        assert_eq!(column("p\n1.5e-03\n2\n", "p"), [json!(0.0015), json!(2)]);
    }

    #[test]
    fn codes_and_what_can_be_read_in_two_ways_stay_text() {
        for cells in [
            ["007", "12"],
            ["A1", "12"],
            ["12E4", "13E4"],
            ["12345678901234567890", "1"],
            ["+49", "+50"],
            ["\"1,234\"", "\"5\""],
            ["12 kg", "13 kg"],
            ["$5", "$6"],
        ] {
            let text = format!("c\n{}\n{}\n", cells[0], cells[1]);
            assert!(column(&text, "c").iter().all(Value::is_string), "{cells:?}");
        }
        assert!(column("version\n1.9\n1.10\n", "version").iter().all(Value::is_string));
        assert_eq!(column("on\ntrue\nFALSE\n", "on"), [json!(true), json!(false)]);
    }

    #[test]
    fn the_header_row_is_found() {
        let (found, warnings) = read("Stock of hall two\n\nname,size,place\nBolt,4,A\nNut,5,B\n", "a.csv");
        assert_eq!((found.len(), found[0].text.as_str()), (2, "size: 4\nplace: A"));
        assert_eq!(warnings, ["text above the header row is left out: Stock of hall two"]);
        let (found, warnings) = read("1,Bolt,4.5\n2,Nut,5.5\n", "a.csv");
        assert_eq!((found.len(), found[0].text.as_str()), (2, "column_1: 1\ncolumn_2: Bolt\ncolumn_3: 4.5"));
        assert_eq!(warnings.len(), 1);
        assert_eq!(rows("place,2024,2025\nA,1,2\n", "a.csv")[0].metadata["2025"], json!(2));
    }
}
