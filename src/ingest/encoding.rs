//! Bytes to text: UTF-8, UTF-16 and UTF-32, the encoding that a file declares, and a guess that is reported.
//!
//! In this order: a byte order mark; valid UTF-8, whatever the file declares (pages are often converted without
//! changing the declaration); the declared encoding; UTF-8 with a few damaged places; UTF-16 without its mark; the
//! guess of chardetng, which a warning names. If the result contains control characters, it was not text.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::{FileKind, MediaType, ParseError, detect};

/// How much of a file's beginning is searched for a declaration; browsers read 1 KiB, which long comments exceed.
const DECLARATION_BYTES: usize = 4 << 10;
/// How much of a file is used for a guess, starting at the first byte that is not ASCII.
const GUESS_BYTES: usize = 1 << 20;

/// Decodes the bytes of a text file; `media_type` says where a declaration may be.
pub(super) fn decode(bytes: &[u8], media_type: MediaType, warnings: &mut Vec<String>) -> Result<String, ParseError> {
    let wide = match bytes {
        [0xff, 0xfe, 0, 0, rest @ ..] => Some(decode_utf32(rest, u32::from_le_bytes, warnings)),
        [0, 0, 0xfe, 0xff, rest @ ..] => Some(decode_utf32(rest, u32::from_be_bytes, warnings)),
        [0xff, 0xfe, rest @ ..] => Some(decode_utf16(rest, u16::from_le_bytes, warnings)),
        [0xfe, 0xff, rest @ ..] => Some(decode_utf16(rest, u16::from_be_bytes, warnings)),
        _ => None,
    };
    if let Some(text) = wide {
        let binary = ParseError::Binary { looks_like: "binary data", kind: FileKind::Unknown };
        return if is_text(&text) { Ok(text) } else { Err(binary) };
    }
    let (marked, bytes) = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => (true, rest),
        _ => (false, bytes),
    };
    if let Some((looks_like, kind)) = detect::binary_kind(bytes) {
        return Err(ParseError::Binary { looks_like, kind });
    }
    if let Some(encoding) = unmarked_utf16(bytes) {
        let unit = if encoding == UTF_16LE { u16::from_le_bytes } else { u16::from_be_bytes };
        warnings.push(format!("read as {}, although it has no byte order mark", encoding.name()));
        return Ok(decode_utf16(bytes, unit, warnings));
    }
    let declared = if marked { None } else { declared(&bytes[..bytes.len().min(DECLARATION_BYTES)], media_type) };
    let error = match std::str::from_utf8(bytes) {
        // ISO-2022-JP consists of ASCII bytes; escapes distinguish it.
        Ok(_) if declared == Some(encoding_rs::ISO_2022_JP) && bytes.contains(&0x1b) => None,
        Ok(text) => return Ok(text.to_owned()),
        Err(error) => Some(error),
    };
    if let Some(encoding) = declared.filter(|encoding| *encoding != UTF_8) {
        let (text, replaced) = encoding.decode_without_bom_handling(bytes);
        if !replaced {
            return Ok(text.into_owned());
        }
        let broken = text.matches(char::REPLACEMENT_CHARACTER).count();
        if broken.saturating_mul(100) < text.len() {
            warnings
                .push(format!("{broken} places are not valid {}, which the file declares; replaced", encoding.name()));
            return Ok(text.into_owned());
        }
    }
    let offset = error.map_or(0, |error| error.valid_up_to()) as u64 + if marked { 3 } else { 0 };
    let counts = count(bytes);
    // Valid multi-byte characters prove the encoding; the rest is damage.
    if marked || counts.multibyte >= counts.broken {
        if counts.broken_bytes.saturating_mul(100) >= bytes.len() && counts.broken_bytes > 1 {
            return Err(ParseError::NotUtf8 { offset });
        }
        warnings.push(format!("{} invalid UTF-8 sequences replaced", counts.broken));
        return Ok(String::from_utf8_lossy(bytes).into_owned());
    }
    let encoding = guess(bytes);
    let (text, replaced) = encoding.decode_without_bom_handling(bytes);
    if !is_text(&text)
        || (replaced && text.matches(char::REPLACEMENT_CHARACTER).count().saturating_mul(100) >= text.len())
    {
        return Err(ParseError::NotUtf8 { offset });
    }
    warnings.push(format!(
        "read as {0}, which is a guess: the text is not UTF-8 and declares no other encoding. If letters are wrong, convert \
         it to UTF-8 with iconv and add it again",
        encoding.name()
    ));
    Ok(text.into_owned())
}

/// Statistics of the bytes when read as UTF-8.
struct Counts {
    /// Characters of two to four bytes.
    multibyte: usize,
    /// Invalid sequences.
    broken: usize,
    broken_bytes: usize,
}

fn count(bytes: &[u8]) -> Counts {
    let mut counts = Counts { multibyte: 0, broken: 0, broken_bytes: 0 };
    for chunk in bytes.utf8_chunks() {
        counts.multibyte += chunk.valid().bytes().filter(|byte| *byte >= 0xc0).count();
        counts.broken += usize::from(!chunk.invalid().is_empty());
        counts.broken_bytes += chunk.invalid().len();
    }
    counts
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    let first = bytes.iter().position(|byte| !byte.is_ascii()).unwrap_or(0);
    // The words before the first such byte count too.
    let start = first.saturating_sub(1 << 10);
    let sample = &bytes[start..bytes.len().min(start + GUESS_BYTES)];
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, true);
    detector.guess(None, Utf8Detection::Deny)
}

/// Whether at most one character in a hundred is a control character, as in text.
fn is_text(text: &str) -> bool {
    let is_odd =
        |character: &char| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    text.chars().filter(is_odd).count().saturating_mul(100) <= text.chars().count()
}

/// The encoding that a text declares, in the syntax of its format.
fn declared(head: &[u8], media_type: MediaType) -> Option<&'static Encoding> {
    let head = head.to_ascii_lowercase();
    let label = match media_type {
        MediaType::Html => xml_declaration(&head).or_else(|| meta_charset(&head)),
        MediaType::Drawing => xml_declaration(&head),
        // Python and the editors; style sheets; XML; LaTeX.
        MediaType::SourceCode | MediaType::Text => xml_declaration(&head)
            .or_else(|| value_behind(&head, b"coding:"))
            .or_else(|| value_behind(&head, b"coding="))
            .or_else(|| value_behind(&head, b"@charset"))
            .or_else(|| in_brackets_before(&head, b"{inputenc}")),
        MediaType::Markdown
        | MediaType::Pdf
        | MediaType::Json
        | MediaType::JsonLines
        | MediaType::Csv
        | MediaType::Notebook
        | MediaType::Mail
        | MediaType::WebArchive => None,
    }?;
    let label = match label {
        // As LaTeX calls them.
        b"latin1" | b"ansinew" => b"windows-1252".as_slice(),
        b"latin9" => b"iso-8859-15",
        other => other,
    };
    // If the declaration was found by reading bytes, the text is not UTF-16, whatever it says.
    Encoding::for_label(label).filter(|encoding| *encoding != UTF_16LE && *encoding != UTF_16BE)
}

/// `<?xml version="1.0" encoding="…"?>`
fn xml_declaration(head: &[u8]) -> Option<&[u8]> {
    let start = head.trim_ascii_start().strip_prefix(b"<?xml")?;
    let end = find(start, b"?>")?;
    value_behind(&start[..end], b"encoding=")
}

/// `<meta charset=…>` or `<meta http-equiv=content-type content="…; charset=…">`, outside of comments.
fn meta_charset(head: &[u8]) -> Option<&[u8]> {
    let mut rest = head;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        rest = &rest[at..];
        if rest.starts_with(b"<!--") {
            rest = &rest[find(rest, b"-->")?..];
            continue;
        }
        let end = rest.iter().position(|byte| *byte == b'>').unwrap_or(rest.len());
        if rest.starts_with(b"<meta")
            && let Some(label) = value_behind(&rest[..end], b"charset=")
        {
            return Some(label);
        }
        rest = &rest[end.max(1).min(rest.len())..];
    }
    None
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

/// The name after `key`, spaces and a quote.
fn value_behind<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &text[find(text, key)? + key.len()..];
    let skipped = rest.iter().take_while(|byte| b" \t\"'".contains(byte)).count();
    let rest = &rest[skipped..];
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_:.".contains(byte)).count();
    (length > 0).then_some(&rest[..length])
}

/// `[latin1]` in `\usepackage[latin1]{inputenc}`.
fn in_brackets_before<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let before = text[..find(text, word)?].trim_ascii_end().strip_suffix(b"]")?;
    Some(before[before.iter().rposition(|byte| *byte == b'[')? + 1..].trim_ascii())
}

/// Whether the bytes are UTF-16 without its mark: every second byte of Latin text is NUL then.
pub(super) fn unmarked_utf16(bytes: &[u8]) -> Option<&'static Encoding> {
    let window = &bytes[..bytes.len().min(detect::HEAD_BYTES) & !1];
    if window.len() < 8 || memchr::memchr(0, window).is_none() {
        return None;
    }
    let zeros = |offset: usize| window.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let encoding = match window.len() / 2 {
        units if even == 0 && odd * 4 >= units * 3 => UTF_16LE,
        units if odd == 0 && even * 4 >= units * 3 => UTF_16BE,
        _ => return None,
    };
    let (text, replaced) = encoding.decode_without_bom_handling(window);
    // The window may end within a pair.
    let replaced = replaced && text.matches(char::REPLACEMENT_CHARACTER).count() > 1;
    (!replaced && is_text(&text)).then_some(encoding)
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

fn decode_utf32(bytes: &[u8], unit: fn([u8; 4]) -> u32, warnings: &mut Vec<String>) -> String {
    let (units, rest) = bytes.as_chunks::<4>();
    let mut replaced = usize::from(!rest.is_empty());
    let mut text = String::with_capacity(units.len());
    for value in units {
        text.push(char::from_u32(unit(*value)).unwrap_or_else(|| {
            replaced += 1;
            char::REPLACEMENT_CHARACTER
        }));
    }
    if replaced > 0 {
        warnings.push(format!("{replaced} invalid UTF-32 units replaced"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8], media_type: MediaType) -> (Result<String, ParseError>, Vec<String>) {
        let mut warnings = Vec::new();
        (decode(bytes, media_type, &mut warnings), warnings)
    }

    fn text(bytes: &[u8]) -> String {
        decoded(bytes, MediaType::Text).0.expect("text")
    }

    #[test]
    fn byte_order_marks_choose_the_encoding() {
        assert_eq!(text(b"\xef\xbb\xbfa\r\n"), "a\r\n");
        assert_eq!(text(b"\xff\xfea\0\xac\x20"), "a€");
        assert_eq!(text(b"\xfe\xff\0a\x20\xac"), "a€");
        assert_eq!(text(b"\xff\xfe\0\0a\0\0\0\xac\x20\0\0"), "a€");
        assert_eq!(text(b"\0\0\xfe\xff\0\0\0a\0\0\x20\xac"), "a€");
        let (found, warnings) = decoded(b"\xff\xfe\0\0a\0\0\0\0\xd8\0\0b", MediaType::Text);
        assert_eq!(
            (found.expect("text").as_str(), warnings[0].as_str()),
            ("a\u{fffd}", "2 invalid UTF-32 units replaced")
        );
    }

    #[test]
    fn utf_16_without_its_mark_is_read_with_a_warning() {
        let little: Vec<u8> = "Pumpe läuft\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = "Pumpe läuft\r\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [little, big] {
            let (found, warnings) = decoded(&bytes, MediaType::Text);
            assert_eq!(found.expect("text"), "Pumpe läuft\r\n");
            assert!(warnings[0].contains("UTF-16"), "{warnings:?}");
        }
    }

    #[test]
    fn a_declared_encoding_is_no_guess() {
        let sjis = b"<html><head><!-- charset=koi8-r --><meta charset=Shift_JIS><p>\x83|\x83\x93\x83v</p>";
        for (bytes, media_type, expected) in [
            (&b"<meta charset='iso-8859-1'>caf\xe9"[..], MediaType::Html, "café"),
            (b"<META http-equiv=Content-Type content=\"text/html; charset=windows-1250\">\xb9", MediaType::Html, "ą"),
            (sjis, MediaType::Html, "ポンプ"),
            (b"<?xml version=\"1.0\" encoding=\"ISO-8859-2\"?><a>\xb1</a>", MediaType::SourceCode, "ą"),
            (b"#!/usr/bin/python\n# -*- coding: koi8-r -*-\n# \xce\xc1\xd3\xcf\xd3\n", MediaType::SourceCode, "насос"),
            (b"\\usepackage[latin1]{inputenc}\nM\xfcller", MediaType::Text, "Müller"),
            (b"<meta charset=iso-2022-jp>\x1b$B%]%s%W\x1b(B", MediaType::Html, "ポンプ"),
        ] {
            let (found, warnings) = decoded(bytes, media_type);
            let found = found.expect("text");
            assert!(found.contains(expected), "{found}");
            assert!(warnings.is_empty(), "{warnings:?}");
        }
        // Converted, with the old declaration left in.
        assert!(
            decoded("<meta charset=iso-8859-1>café".as_bytes(), MediaType::Html).0.expect("text").ends_with("café")
        );
    }

    #[test]
    fn an_undeclared_encoding_is_guessed_and_said() {
        let german = "Die Pumpe läuft wieder. Der Motor fördert Öl über die größere Düse, schließt aber träge.";
        let russian = "Насос работает. Двигатель подаёт масло через большую форсунку, но медленно закрывается.";
        let polish = "Pompa działa. Silnik podaje olej przez większą dyszę, ale zamyka się powoli. Łożysko źle chodzi.";
        for (text, encoding) in [
            (german, encoding_rs::WINDOWS_1252),
            (russian, encoding_rs::WINDOWS_1251),
            (polish, encoding_rs::WINDOWS_1250),
        ] {
            let (bytes, _, _) = encoding.encode(text);
            let (found, warnings) = decoded(&bytes, MediaType::Text);
            assert_eq!(found.expect("text"), text);
            assert!(warnings[0].contains(encoding.name()) && warnings[0].contains("guess"), "{warnings:?}");
        }
        // One letter in a long text does not count as damage.
        let bytes = [&b"plain words ".repeat(100)[..], b"caf\xe9 au lait"].concat();
        assert!(text(&bytes).ends_with("café au lait"));
    }

    #[test]
    fn a_few_bad_bytes_among_good_ones_are_replaced_with_a_warning() {
        let mut bytes = "wörter ".repeat(100).into_bytes();
        bytes[400] = 0xff;
        let (text, warnings) = decoded(&bytes, MediaType::Text);
        assert!(text.expect("mostly valid").contains('\u{fffd}'));
        assert!(warnings[0].ends_with("invalid UTF-8 sequences replaced"), "{warnings:?}");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert!(matches!(decoded(b"a\0b", MediaType::Text).0, Err(ParseError::Binary { .. })));
        let noise: Vec<u8> = (0..2000u32).map(|n| (n * 73 % 255 + 1) as u8).collect();
        assert!(matches!(decoded(&noise, MediaType::Text).0, Err(ParseError::NotUtf8 { .. })));
    }

    proptest! {
        #[test]
        fn utf_8_is_never_guessed_at(text in "\\PC{0,200}") {
            let (found, warnings) = decoded(text.as_bytes(), MediaType::Text);
            prop_assert_eq!(found.expect("text"), text.strip_prefix('\u{feff}').unwrap_or(&text));
            prop_assert!(warnings.is_empty());
        }
    }
}
