//! Tables, colours and JSON on standard output.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use super::Failure;
use crate::base::ByteSize;

/// Prints a value as JSON: indented on a terminal, one line otherwise.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    let text = if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
    line(&text)
}

/// Prints a line. A closed pipe (`cairn ls | head`) ends the program quietly.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// A table with a header, as wide as the terminal. Columns named in `numbers` are aligned to the right.
pub(super) fn table(header: &[&str], numbers: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        // In a pipe every row is one line, however long.
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase()).add_attribute(Attribute::Bold)));
    for row in rows {
        table.add_row(row.into_iter().zip(header).map(|(text, name)| {
            let cell = Cell::new(text);
            if numbers.contains(name) { cell.set_alignment(CellAlignment::Right) } else { cell }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    line(&text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

/// Text in bold on a terminal.
pub(super) fn bold(text: &str) -> String {
    styled(text, "1")
}

/// Text dimmed on a terminal.
pub(super) fn dim(text: &str) -> String {
    styled(text, "2")
}

fn styled(text: &str, code: &str) -> String {
    let plain = !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("\u{1b}[{code}m{text}\u{1b}[0m") }
}

/// A field of an answer as text; empty when it is absent.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A count of an answer, with thousands separated: `12,345`.
pub(super) fn count(value: &Value, name: &str) -> String {
    thousands(value[name].as_u64().unwrap_or_default())
}

/// `12,345`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 document`, `12,345 documents`: `noun` with an `s` unless there is one of it.
pub(super) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A number of bytes of an answer: `1.5 MiB`.
pub(super) fn size(value: &Value, name: &str) -> String {
    ByteSize(value[name].as_u64().unwrap_or_default()).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_separated() {
        let shown: Vec<String> = [0, 999, 1_000, 1_234_567].map(super::thousands).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn one_is_singular() {
        let shown: Vec<String> = [0, 1, 2, 1_000].map(|number| super::counted(number, "document")).into();
        assert_eq!(shown, ["0 documents", "1 document", "2 documents", "1,000 documents"]);
    }
}
