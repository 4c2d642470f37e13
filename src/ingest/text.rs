//! Decoding of bytes to UTF-8, and plain text.

use std::ops::Range;

use super::block::{Block, BlockKind, lines};
use super::{Document, MediaType, ParseError, detect};

/// Decodes UTF-8 (with or without byte order mark) and UTF-16 with byte order mark.
///
/// Fewer than one invalid byte in a hundred are replaced by U+FFFD with a warning; more are an error, since the text
/// then is in another encoding and a silent guess would be wrong half of the time.
pub(super) fn decode(bytes: &[u8], warnings: &mut Vec<String>) -> Result<String, ParseError> {
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => decode_utf8(rest, 3, warnings),
        [0xff, 0xfe, rest @ ..] => Ok(decode_utf16(rest, u16::from_le_bytes, warnings)),
        [0xfe, 0xff, rest @ ..] => Ok(decode_utf16(rest, u16::from_be_bytes, warnings)),
        _ => decode_utf8(bytes, 0, warnings),
    }
}

fn decode_utf8(bytes: &[u8], skipped: u64, warnings: &mut Vec<String>) -> Result<String, ParseError> {
    if let Some(looks_like) = detect::binary_kind(bytes) {
        return Err(ParseError::Binary { looks_like });
    }
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text.to_owned()),
        Err(error) => error,
    };
    let invalid = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum::<usize>();
    if invalid.saturating_mul(100) >= bytes.len() {
        return Err(ParseError::NotUtf8 { offset: skipped + error.valid_up_to() as u64 });
    }
    let sequences = bytes.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    warnings.push(format!("{sequences} invalid UTF-8 sequences replaced"));
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, warnings: &mut Vec<String>) -> String {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut replaced = usize::from(!rest.is_empty());
    let mut text = String::with_capacity(pairs.len());
    for decoded in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        text.push(decoded.unwrap_or_else(|_| {
            replaced += 1;
            char::REPLACEMENT_CHARACTER
        }));
    }
    if replaced > 0 {
        warnings.push(format!("{replaced} invalid UTF-16 units replaced"));
    }
    text
}

/// Plain text: blocks are its paragraphs.
pub(super) fn parse(text: String) -> Document {
    let blocks = paragraphs(&text, 0..text.len());
    Document::new(MediaType::Text, text, blocks)
}

/// Paragraphs of `text[range]`, separated by blank lines. One that is mostly list items, log lines or columns is cut
/// between lines, not sentences.
pub(super) fn paragraphs(text: &str, range: Range<usize>) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut open, mut count, mut structured) = (None, 0, 0);
    let mut close = |open: &mut Option<Range<usize>>, count: &mut usize, structured: &mut usize| {
        if let Some(range) = open.take() {
            let kind = if *count > 1 && *structured * 2 > *count { BlockKind::Verbatim } else { BlockKind::Prose };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> (Result<String, ParseError>, Vec<String>) {
        let mut warnings = Vec::new();
        (decode(bytes, &mut warnings), warnings)
    }

    #[test]
    fn byte_order_marks_choose_the_encoding() {
        assert_eq!(decoded(b"\xef\xbb\xbfa\r\n").0.expect("UTF-8"), "a\r\n");
        assert_eq!(decoded(b"\xff\xfea\0\xac\x20").0.expect("UTF-16LE"), "a€");
        assert_eq!(decoded(b"\xfe\xff\0a\x20\xac").0.expect("UTF-16BE"), "a€");
    }

    #[test]
    fn a_few_bad_bytes_are_replaced_with_a_warning() {
        let mut bytes = b"word ".repeat(100);
        bytes[250] = 0xff;
        let (text, warnings) = decoded(&bytes);
        assert!(text.expect("mostly valid").contains('\u{fffd}'));
        assert_eq!(warnings, ["1 invalid UTF-8 sequences replaced"]);
    }

    #[test]
    fn latin_1_is_refused_with_its_offset() {
        assert!(matches!(decoded(b"caf\xe9 cr\xe8me").0, Err(ParseError::NotUtf8 { offset: 3 })));
    }

    #[test]
    fn a_nul_byte_is_not_text() {
        assert!(matches!(decoded(b"a\0b").0, Err(ParseError::Binary { .. })));
    }

    #[test]
    fn paragraphs_end_at_blank_lines() {
        let text = "one\ntwo\n \r\nthree\n";
        let found: Vec<_> =
            paragraphs(text, 0..text.len()).into_iter().map(|block| text[block.range].to_owned()).collect();
        assert_eq!(found, ["one\ntwo", "three"]);
    }
}
