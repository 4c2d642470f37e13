//! Tables, colours and JSON on standard output.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width};
use indicatif::ProgressState;
use serde_json::Value;

use super::{Common, Failure};
use crate::base::ByteSize;

/// Whether an answer went to standard output as JSON. That stream is the process's, and so is what is known of it.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Whether a person sees how far something is.
pub(super) fn is_watched(common: &Common) -> bool {
    !common.json && io::stderr().is_terminal()
}

/// Prints a value as JSON: indented on a terminal, one line otherwise.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    ANSWERED.store(true, Ordering::Relaxed);
    let text = if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
    line(&text)
}

/// Whether a verb has printed its answer as JSON: a second value would make both unreadable.
pub(super) fn is_answered() -> bool {
    ANSWERED.load(Ordering::Relaxed)
}

/// Prints a line. If nobody reads the output (`cairn ls | head`) it is dropped: the verb continues its work.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(if out.is_terminal() { writeln!(out, "{}", visible(text)) } else { writeln!(out, "{text}") })
}

/// Prints bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// The file for a verb's result, from the path given by the user: the file itself, or a folder for it.
///
/// * `name`: of the file in a folder.
pub(super) fn file_at(path: &Path, name: impl FnOnce() -> Result<String, Failure>) -> Result<PathBuf, Failure> {
    if path.as_os_str() == "-" {
        return Err(Failure::usage(anyhow!(
            "this is written to a file and not to standard output: name one, or a folder for it"
        )));
    }
    if path.is_dir() {
        return Ok(path.join(name()?));
    }
    let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let folder = if is_folder { Some(path) } else { path.parent().filter(|folder| !folder.as_os_str().is_empty()) };
    match folder {
        Some(folder) if !folder.is_dir() => {
            Err(anyhow!("there is no folder {}; make it, or name another", folder.display()).into())
        }
        _ => Ok(path.to_owned()),
    }
}

/// Refuses to replace a file with what is made of it: a key, or the program itself.
///
/// * `file`: what is going to be written.
/// * `files`: what is read for it.
/// * `folders`: all that is in these is read, too.
pub(super) fn refuse_replacing<'a>(
    file: &Path,
    files: impl IntoIterator<Item = &'a Path>,
    folders: impl IntoIterator<Item = &'a Path>,
) -> Result<(), Failure> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let (own, shown) = (identity(file), file.display());
    if own.is_some() && files.into_iter().any(|source| identity(source) == own) {
        return Err(Failure::usage(anyhow!("{shown} is read for this and would be replaced; write to another file")));
    }
    let parent = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(parent) = fs::canonicalize(parent) else { return Ok(()) };
    let is_around = |folder: &&Path| fs::canonicalize(folder).is_ok_and(|folder| parent.starts_with(folder));
    match folders.into_iter().find(is_around) {
        Some(folder) => Err(Failure::usage(anyhow!(
            "{shown} is inside {}, which goes into it; write to another folder",
            folder.display()
        ))),
        None => Ok(()),
    }
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result.context("cannot write to standard output")?),
    }
}

/// The macros of this part write to standard error with this, even if nobody reads it.
pub(super) fn note(text: fmt::Arguments<'_>) {
    let mut out = io::stderr().lock();
    let text = text.to_string();
    let _ = out.write_all(if out.is_terminal() { visible(&text) } else { text }.as_bytes());
}

/// The same for standard output.
pub(super) fn print_args(text: fmt::Arguments<'_>) {
    let _ = io::stdout().write_fmt(text);
}

/// Text for a terminal: characters that would move the cursor or change the terminal's state are replaced by a
/// replacement character. Titles, texts and names come from untrusted documents and files.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        // Our own styles.
        let style = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m"].into_iter().find(|style| rest.starts_with(style));
        let length = style.map_or(next.len_utf8(), str::len);
        match style {
            None if next.is_control() && !matches!(next, '\n' | '\t') => shown.push('\u{fffd}'),
            _ => shown.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    shown
}

/// Columns whose texts are cut short where a terminal is too narrow. All others are there whole: they are copied.
const MAY_BE_CUT: [&str; 2] = ["title", "description"];

/// A table with a header, as wide as the terminal. Columns named in `numbers` are aligned to the right.
pub(super) fn table(header: &[&str], numbers: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    // In a pipe every row is one line, however long.
    let width = io::stdout().is_terminal().then(terminal_width);
    line(&rendered(header, numbers, rows, width))
}

/// Columns of the terminal that is written to; `None` where it is none.
pub(super) fn columns() -> Option<usize> {
    io::stdout().is_terminal().then(|| usize::from(terminal_width()))
}

/// Columns of the terminal.
fn terminal_width() -> u16 {
    let named = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
    named.or_else(asked).filter(|width| *width > 0).unwrap_or(80)
}

/// A table, each row in one line. `width`: of the terminal, which lines exceed only where what must not be cut is too long for it.
fn rendered(header: &[&str], numbers: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let cut = width.filter(|_| header.iter().any(|name| MAY_BE_CUT.contains(name)));
    if let Some(width) = cut {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let mut names = Row::from(header.iter().map(|name| Cell::new(name.to_uppercase()).add_attribute(Attribute::Bold)));
    names.max_height(1);
    table.set_header(names);
    for row in rows {
        let mut row = Row::from(row.into_iter().zip(header).map(|(text, name)| {
            let cell = Cell::new(text);
            if numbers.contains(name) { cell.set_alignment(CellAlignment::Right) } else { cell }
        }));
        row.max_height(1);
        table.add_row(row);
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if cut.is_some() {
            // A column that is cut still has its name.
            let least = ColumnConstraint::LowerBoundary(Width::Fixed(name.len() as u16 + 2));
            column.set_constraint(if MAY_BE_CUT.contains(name) { least } else { ColumnConstraint::ContentWidth });
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// How fast a bar moves, in a few digits: `198`, `3.2`.
pub(super) fn rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    let rate = state.per_sec();
    // A bar without its rate is better than none.
    let _ = if rate < 10.0 { write!(out, "{rate:.1}") } else { write!(out, "{rate:.0}") };
}

/// A time such as `90s`, `5m` or `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 90s, 5m or 2h".to_owned();
    let length: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    length.try_into().map_err(|_| wrong())
}

/// An integer in a range: text that is not a number and numbers out of range get the same message.
pub(super) fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let found =
            text.parse().ok().filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        found.ok_or_else(|| match (*range.start(), *range.end()) {
            (0, u64::MAX) => "expected a whole number".to_owned(),
            (start, end) => format!("expected a whole number from {start} to {end}"),
        })
    }
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let hint = match text.rsplit_once(':') {
        // Other programs accept a bare port.
        None if text.parse::<u16>().is_ok() => {
            format!("; for this machine alone 127.0.0.1:{text}, for all networks 0.0.0.0:{text}")
        }
        Some(("", port)) => format!("; for all networks 0.0.0.0:{port}"),
        Some((name, port)) if name.parse::<std::net::IpAddr>().is_err() && port.parse::<u16>().is_ok() => match name {
            "localhost" => format!("; localhost is 127.0.0.1:{port}"),
            _ => "; names are not looked up".to_owned(),
        },
        _ => String::new(),
    };
    text.parse().map_err(|_| format!("expected ADDRESS:PORT such as 127.0.0.1:7171{hint}"))
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
    fn a_terminal_is_not_steered_by_what_documents_hold() {
        let title = "Pump\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m\tP2\nnext";
        assert_eq!(super::visible(title), "Pump\u{fffd}]0;owned\u{fffd}\u{fffd}[2J\u{fffd}\u{fffd}31m\tP2\nnext");
        assert_eq!(super::visible("\u{1b}[1mbold\u{1b}[0m é"), "\u{1b}[1mbold\u{1b}[0m é");
    }

    #[test]
    fn narrow_terminals_cut_titles_and_nothing_else() {
        let ids = ["manual/guides/calibration-of-flow-meters.pdf", "manual/a.md"];
        let title = "Calibration of flow meters and what to do when they drift";
        let rows = || ids.map(|id| [id, title, "12", "2026-11-27T20:58:49Z"].map(str::to_owned).into()).into();
        let header = ["id", "title", "passages", "updated"];
        for width in [60, 80, 100, 120, 200] {
            let text = super::rendered(&header, &["passages"], rows(), Some(width));
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 3, "{text}");
            for (line, id) in lines[1..].iter().zip(ids) {
                assert!(line.starts_with(id) && line.ends_with("2026-11-27T20:58:49Z"), "{text}");
                assert!(line.chars().count() <= usize::from(width).max(90), "{text}");
                assert_eq!(line.contains(title), width >= 200, "{text}");
            }
        }
        assert!(
            super::rendered(&header, &[], rows(), None)
                .lines()
                .all(|line| line.contains(title) || line.starts_with("ID"))
        );
        let wide = super::rendered(&["name", "created"], &[], vec![vec!["n".repeat(90), "c".repeat(30)]], Some(40));
        assert_eq!(wide.lines().count(), 2, "the terminal wraps it, and what is copied is whole");
    }

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
