//! Quotes that are opened and never closed: a CSV reader takes everything after one for a single cell.

use std::borrow::Cow;

/// `text` without such quotes, and their lines, from 1.
///
/// A quoted cell ends with a quote before a delimiter, a line end or the end. If the next quote is before something
/// else, and on a later line, it opened another cell, and the first one was never closed. On the same line it is part
/// of the cell, as in `"5" pipe"`. Each byte is read three times at most: the search for one quote ends at the next
/// that opens a cell.
pub(super) fn repaired(text: &str, delimiter: u8) -> (Cow<'_, str>, Vec<u64>) {
    let unclosed = unclosed(text.as_bytes(), delimiter);
    if unclosed.is_empty() {
        return (Cow::Borrowed(text), Vec::new());
    }
    let mut repaired = String::with_capacity(text.len());
    let (mut from, mut line, mut lines) = (0, 1u64, Vec::new());
    for quote in unclosed {
        let before = &text[from..quote];
        line += before.bytes().filter(|byte| *byte == b'\n').count() as u64;
        lines.push(line);
        repaired.push_str(before);
        from = quote + 1;
    }
    repaired.push_str(&text[from..]);
    (Cow::Owned(repaired), lines)
}

/// Positions of quotes that open a cell and do not end one.
fn unclosed(text: &[u8], delimiter: u8) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'"' {
            match end_of_quoted(text, at, delimiter) {
                Some(end) => at = end,
                None => {
                    found.push(at);
                    at += 1;
                }
            }
        }
        // The rest of the cell, and what ends it.
        let ends = |byte: &u8| *byte == delimiter || matches!(byte, b'\n' | b'\r');
        at += text[at..].iter().position(ends).unwrap_or(text.len() - at) + 1;
    }
    found
}

/// The position after the quote that ends the cell opened at `open`; `None` when it is never closed.
fn end_of_quoted(text: &[u8], open: usize, delimiter: u8) -> Option<usize> {
    let mut lines = false;
    let mut at = open + 1;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'\n' => lines = true,
            b'"' if text.get(at) == Some(&b'"') => at += 1,
            b'"' => {
                let spaces = text[at..].iter().take_while(|byte| **byte == b' ').count();
                let next = text.get(at + spaces);
                let ends = next.is_none_or(|next| *next == delimiter || matches!(next, b'\n' | b'\r'));
                return (ends || !lines).then_some(at);
            }
            _ => {}
        }
    }
    None
}
