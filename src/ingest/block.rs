//! The structure that parsers pass to the chunker: a flat list of blocks over the text of a document.

use std::ops::Range;

/// Longest heading kept in a path, in bytes: a path is copied into every chunk below it.
pub(super) const HEADING_BYTES_MAX: usize = 200;

/// A range of text that should stay in one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Bytes in the document's text, without outer blank lines.
    pub(crate) range: Range<usize>,
    /// How it may be cut if necessary.
    pub(crate) kind: BlockKind,
}

/// The kind of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Opens a section. The range is the heading's line, or empty where the text has none (items of source code).
    Heading {
        /// 1 is outermost.
        level: u8,
        /// Without markup; at most [`HEADING_BYTES_MAX`] bytes.
        title: String,
    },
    /// Running text: cut between sentences.
    Prose,
    /// A list: cut between items.
    List,
    /// A list or paragraph that consists of links: cut between items.
    Links,
    /// Tables, code, fields: cut at blank lines, then between lines.
    Verbatim,
    /// A table with a header row: cut between its rows; each part is shown below the header.
    Table {
        /// The header row, in Markdown with the row below it; bytes in the document's text, within the block.
        header: Range<usize>,
    },
    /// Ends a section without opening a named one (a new page); empty range.
    Boundary,
}

impl Block {
    /// A heading over `range`; `title` is shortened when long.
    pub(super) fn heading(range: Range<usize>, level: u8, title: &str) -> Self {
        Self { range, kind: BlockKind::Heading { level, title: shorten(title.trim(), HEADING_BYTES_MAX) } }
    }

    /// A block over `range` without its outer blank lines, or `None` when nothing is left.
    pub(super) fn trimmed(text: &str, range: Range<usize>, kind: BlockKind) -> Option<Self> {
        trim_blank_lines(text, range).map(|range| Self { range, kind })
    }
}

/// `text`, cut at a character boundary to at most `bytes_max` bytes and an ellipsis.
#[must_use]
pub fn shorten(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max);
    format!("{}…", text[..end].trim_end())
}

/// `range` without leading blank lines and trailing white space; the indentation of its first line stays.
/// `None` when it holds only white space.
pub(super) fn trim_blank_lines(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let inside = &text[range.clone()];
    let trimmed = inside.trim_start();
    if trimmed.is_empty() {
        return None;
    }
    let first = inside.len() - trimmed.len();
    let line = inside[..first].rfind('\n').map_or(0, |newline| newline + 1);
    Some(range.start + line..range.start + inside.trim_end().len())
}

/// A line of a text: where it starts, where its content ends (without `\r\n`), where the next one starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Offset of the first byte.
    pub(super) start: usize,
    /// Offset after the line end, or the end of the text.
    pub(super) next: usize,
    /// Content without its line end.
    pub(super) content: &'a str,
}

impl Line<'_> {
    /// Offset after the content without its trailing white space.
    pub(super) fn end(&self) -> usize {
        self.start + self.content.trim_end().len()
    }

    /// Whether the line holds only white space.
    pub(super) fn is_blank(&self) -> bool {
        self.content.trim().is_empty()
    }

    /// Columns of leading spaces and tabs; a tab counts four.
    pub(super) fn indent(&self) -> usize {
        self.content
            .bytes()
            .map_while(|byte| match byte {
                b' ' => Some(1),
                b'\t' => Some(4),
                _ => None,
            })
            .sum()
    }
}

/// The lines of `text[range]`.
pub(super) fn lines(text: &str, range: Range<usize>) -> impl Iterator<Item = Line<'_>> {
    let mut start = range.start;
    text[range].split_inclusive('\n').map(move |whole| {
        let content = whole.strip_suffix('\n').unwrap_or(whole);
        let line = Line { start, next: start + whole.len(), content: content.strip_suffix('\r').unwrap_or(content) };
        start = line.next;
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_keeps_the_first_indentation() {
        let text = "\n  \n    code\nmore\n\n";
        let range = trim_blank_lines(text, 0..text.len()).expect("not blank");
        assert_eq!(&text[range], "    code\nmore");
        assert_eq!(trim_blank_lines(" \n", 0..2), None);
    }

    #[test]
    fn lines_know_their_offsets() {
        let found: Vec<_> = lines("a\r\nb\n\nc", 0..7).map(|line| (line.start, line.content, line.next)).collect();
        assert_eq!(found, [(0, "a", 3), (3, "b", 5), (5, "", 6), (6, "c", 7)]);
    }
}
