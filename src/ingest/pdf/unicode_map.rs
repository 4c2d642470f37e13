//! The `ToUnicode` map of a font: codes to characters (ISO 32000-1, 9.10.3).
//!
//! Like in other readers, only its `bfchar` and `bfrange` lists are used: many maps lack the PostScript around them,
//! have spaces in numbers, name a base map, or declare a code length that their font does not have. Ranges stay ranges,
//! so the cost of a map depends on its bytes, not on the numbers in it.

use super::file::ascii_hex;

/// Maximum characters for one code.
const TEXT_UNITS_MAX: usize = 64;

/// Codes to text.
#[derive(Debug, Default)]
pub(super) struct UnicodeMap {
    /// Ascending by first code; if two contain a code, the later in the file wins.
    ranges: Vec<Range>,
}

#[derive(Debug)]
struct Range {
    first: u32,
    last: u32,
    /// UTF-16 units of the first code; the last unit grows with the code.
    units: Vec<u16>,
}

impl UnicodeMap {
    /// Reads a map; invalid parts are skipped.
    pub(super) fn read(data: &[u8]) -> Self {
        let mut ranges = Vec::new();
        let mut tokens = Tokens { rest: data };
        while let Some(token) = tokens.next() {
            match token {
                Token::Word(b"beginbfchar") => characters(&mut tokens, &mut ranges),
                Token::Word(b"beginbfrange") => spans(&mut tokens, &mut ranges),
                _ => {}
            }
        }
        ranges.sort_by_key(|range| range.first);
        Self { ranges }
    }

    /// Appends the text of `code`; false where the map has none.
    pub(super) fn append(&self, code: u32, text: &mut String) -> bool {
        let end = self.ranges.partition_point(|range| range.first <= code);
        // Overlapping ranges are rare: a few steps back find the one that contains the code.
        let Some(range) = self.ranges[..end].iter().rev().take(8).find(|range| code <= range.last) else {
            return false;
        };
        let offset = code - range.first;
        let before = text.len();
        let (body, tail) = range.units.split_at(range.units.len() - 1);
        // A pair of surrogates is one character, which the offset is added to.
        if let ([body @ .., high @ 0xd800..0xdc00], [low @ 0xdc00..0xe000]) = (body, tail) {
            let scalar = 0x10000 + ((u32::from(*high) - 0xd800) << 10) + (u32::from(*low) - 0xdc00);
            push_units(body, text);
            text.extend(scalar.checked_add(offset).and_then(char::from_u32));
        } else {
            push_units(body, text);
            text.extend(u32::from(tail[0]).checked_add(offset).and_then(char::from_u32));
        }
        // A map to nothing or to the null character means that the producer did not know.
        if text[before..].chars().all(|character| character == '\0') {
            text.truncate(before);
        }
        text.len() > before
    }
}

fn push_units(units: &[u16], text: &mut String) {
    text.extend(char::decode_utf16(units.iter().copied()).map_while(Result::ok));
}

/// `<code> <text>` up to `endbfchar`.
fn characters(tokens: &mut Tokens<'_>, ranges: &mut Vec<Range>) {
    while let Some(Token::Hex(code)) = tokens.next() {
        let Some(Token::Hex(text)) = tokens.next() else { return };
        if let Some(code) = number(&code) {
            push(ranges, code, code, &text);
        }
    }
}

/// `<first> <last> <text>` or `<first> <last> [<text> …]` up to `endbfrange`.
fn spans(tokens: &mut Tokens<'_>, ranges: &mut Vec<Range>) {
    while let Some(Token::Hex(first)) = tokens.next() {
        let (Some(Token::Hex(last)), Some(target)) = (tokens.next(), tokens.next()) else { return };
        let (Some(first), Some(last)) = (number(&first), number(&last)) else { return };
        match target {
            Token::Hex(text) => push(ranges, first, last, &text),
            Token::Open => {
                let mut code = Some(first);
                loop {
                    match tokens.next() {
                        Some(Token::Hex(text)) => {
                            if let Some(code) = code.filter(|code| *code <= last) {
                                push(ranges, code, code, &text);
                            }
                            code = code.and_then(|code| code.checked_add(1));
                        }
                        Some(Token::Close) => break,
                        _ => return,
                    }
                }
            }
            _ => return,
        }
    }
}

fn push(ranges: &mut Vec<Range>, first: u32, last: u32, text: &[u8]) {
    // A single byte is a character, although texts are UTF-16.
    let units: Vec<u16> = match text {
        [byte] => vec![u16::from(*byte)],
        _ => text.as_chunks::<2>().0.iter().take(TEXT_UNITS_MAX).map(|pair| u16::from_be_bytes(*pair)).collect(),
    };
    if first <= last && !units.is_empty() {
        ranges.push(Range { first, last, units });
    }
}

/// A code of one to four bytes, most significant first.
fn number(bytes: &[u8]) -> Option<u32> {
    (1..=4).contains(&bytes.len()).then(|| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

#[derive(Debug)]
enum Token<'a> {
    Hex(Vec<u8>),
    Open,
    Close,
    Word(&'a [u8]),
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = self.rest.trim_ascii_start();
        let first = *self.rest.first()?;
        let length = match first {
            b'<' => self.rest.iter().position(|byte| *byte == b'>').map_or(self.rest.len(), |end| end + 1),
            b'%' => self.rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(self.rest.len()),
            b'[' | b']' | b'>' | b'(' | b')' | b'{' | b'}' => 1,
            _ => {
                let ends = |byte: &u8| byte.is_ascii_whitespace() || b"<>[](){}%".contains(byte);
                self.rest.iter().position(ends).unwrap_or(self.rest.len())
            }
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(match first {
            b'<' => Token::Hex(ascii_hex(&token[1..])),
            b'[' => Token::Open,
            b']' => Token::Close,
            _ => Token::Word(token),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(map: &str, code: u32) -> Option<String> {
        let mut text = String::new();
        UnicodeMap::read(map.as_bytes()).append(code, &mut text).then_some(text)
    }

    #[test]
    fn characters_and_ranges_are_read() {
        let map = "2 beginbfchar <01> <0041> <02> <00660069> endbfchar 2 beginbfrange <10> <1F> <0061>\n<20> <22> [<0058> <0059> <005A>] endbfrange";
        for (code, expected) in [(1, "A"), (2, "fi"), (0x10, "a"), (0x12, "c"), (0x20, "X"), (0x22, "Z")] {
            assert_eq!(text(map, code).as_deref(), Some(expected), "{code}");
        }
        assert_eq!(text(map, 3), None);
    }

    #[test]
    fn maps_that_break_the_rules_are_read() {
        assert_eq!(text("beginbfchar < 00 21 > < 00 48 > endbfchar", 0x21).as_deref(), Some("H"), "spaces");
        assert_eq!(text("/Other usecmap 1 beginbfchar <21> <0048>", 0x21).as_deref(), Some("H"), "cut off");
        assert_eq!(text("1 beginbfchar <21> <48> endbfchar", 0x21).as_deref(), Some("H"), "one byte");
        assert_eq!(text("% beginbfchar <21> <0048>\n", 0x21), None, "a comment");
        assert_eq!(text("1 beginbfchar <21> <0000> endbfchar", 0x21), None, "nothing");
    }

    #[test]
    fn pairs_of_surrogates_grow_as_one_character() {
        assert_eq!(text("beginbfrange <05> <06> <D83DDE00> endbfrange", 6).as_deref(), Some("\u{1f601}"));
    }

    #[test]
    fn a_range_of_all_codes_costs_no_more_than_its_bytes() {
        let map = "beginbfrange <00000000> <FFFFFFFF> <0041> endbfrange ".repeat(1000);
        assert_eq!(UnicodeMap::read(map.as_bytes()).ranges.len(), 1000);
        assert_eq!(text(&map, 1).as_deref(), Some("B"));
        assert_eq!(text(&map, u32::MAX), None);
        let list = "beginbfrange <00000000> <FFFFFFFF> [<0041>] endbfrange";
        assert_eq!(UnicodeMap::read(list.as_bytes()).ranges.len(), 1);
    }
}
