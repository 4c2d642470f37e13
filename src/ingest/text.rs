//! Plain text to paragraphs.

use std::ops::Range;

use super::block::{Block, BlockKind, lines};
use super::{Document, MediaType};

/// Plain text: blocks are its paragraphs.
pub(super) fn parse(text: String) -> Document {
    let blocks = paragraphs(&text, 0..text.len());
    Document::new(MediaType::Text, text, blocks)
}

/// Paragraphs of `text[range]`, separated by blank lines. One that consists mostly of list items, log lines or columns
/// is cut between lines, not sentences.
pub(super) fn paragraphs(text: &str, range: Range<usize>) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut open, mut count, mut structured) = (None, 0, 0);
    let mut close = |open: &mut Option<Range<usize>>, count: &mut usize, structured: &mut usize| {
        if let Some(range) = open.take() {
            let kind = match header_row(text, range.clone()) {
                Some(header) => BlockKind::Table { header },
                None if *count > 1 && *structured * 2 > *count => BlockKind::Verbatim,
                None => BlockKind::Prose,
            };
            blocks.extend(Block::trimmed(text, range, kind));
        }
        (*count, *structured) = (0, 0);
    };
    for line in lines(text, range) {
        if line.is_blank() {
            close(&mut open, &mut count, &mut structured);
            continue;
        }
        let start = open.as_ref().map_or(line.start, |range| range.start);
        open = Some(start..line.end());
        count += 1;
        let first = line.content.as_bytes()[0];
        structured +=
            usize::from(first.is_ascii_digit() || b" \t[{|-*+<".contains(&first) || line.content.contains('\t'));
    }
    close(&mut open, &mut count, &mut structured);
    blocks
}

/// The first line of a paragraph that is a table written by a program: every line has the same number of cells, and the
/// first has no number where others have some.
fn header_row(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    const ROWS_MIN: usize = 4;
    let first = lines(text, range.clone()).next()?;
    let is_number = |cell: &str| cell.trim().starts_with(|c: char| c.is_ascii_digit());
    // A comma in each of a few lines is not a table.
    let cells = |delimiter: char| first.content.matches(delimiter).count();
    let (delimiter, count) = [('\t', 1), (';', 1), ('|', 1), (',', 2)]
        .into_iter()
        .map(|(delimiter, least)| (delimiter, cells(delimiter), least))
        .find(|(_, count, least)| count >= least)
        .map(|(delimiter, count, _)| (delimiter, count))?;
    if first.content.split(delimiter).any(|cell| cell.trim().is_empty() || is_number(cell)) {
        return None;
    }
    let (mut rows, mut numbers) = (1, false);
    for line in lines(text, range).skip(1) {
        if line.content.matches(delimiter).count() != count {
            return None;
        }
        rows += 1;
        numbers |= line.content.split(delimiter).any(is_number);
    }
    (rows >= ROWS_MIN && numbers).then(|| first.start..first.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_end_at_blank_lines() {
        let text = "one\ntwo\n \r\nthree\n";
        let found: Vec<_> =
            paragraphs(text, 0..text.len()).into_iter().map(|block| text[block.range].to_owned()).collect();
        assert_eq!(found, ["one\ntwo", "three"]);
    }

    #[test]
    fn a_table_between_delimiters_has_its_first_line_for_a_header() {
        let header = |text: &str| match paragraphs(text, 0..text.len())[0].kind.clone() {
            BlockKind::Table { header } => Some(text[header].to_owned()),
            _ => None,
        };
        let rows = |delimiter: &str| (0..5).map(|n| format!("part{delimiter}{n}{delimiter}bar\n")).collect::<String>();
        for delimiter in [",", ";", "\t"] {
            let first = format!("name{delimiter}limit{delimiter}unit");
            assert_eq!(header(&format!("{first}\n{}", rows(delimiter))), Some(first));
        }
        assert_eq!(header(&rows(",")), None);
        assert_eq!(header("First, a word, and\nthen, 2 words, and\n3 words here.\nAnd more, with 4, words.\n"), None);
    }
}
