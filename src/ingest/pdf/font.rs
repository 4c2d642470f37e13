//! Codes of a font to characters and widths.

use std::collections::HashMap;
use std::rc::Rc;

use lopdf::{Dictionary, Document, Encoding, Object};

/// Largest map from codes to Unicode, unpacked. Real ones are below 100 KiB.
const MAP_BYTES_MAX: usize = 1 << 20;
/// All such maps of a document; fonts beyond are not read.
const MAPS_BYTES_MAX: usize = 64 << 20;
/// Fonts of a document; each page may name its own.
const FONTS_MAX: usize = 4096;
/// Widths of one font; a font has at most 65,536 codes.
const WIDTHS_MAX: usize = 1 << 16;
/// Codes decoded at a time: one code may stand for a long string.
const DECODE_BYTES: usize = 8192;
/// Width of a character of an average font, in thousandths of its size.
const AVERAGE_WIDTH: f32 = 500.0;

/// The fonts of a document, read once each.
pub(super) struct Fonts<'a> {
    file: &'a Document,
    /// By the address of the dictionary, which does not move while the file is borrowed.
    known: HashMap<*const Dictionary, Option<Rc<Font<'a>>>>,
    map_bytes: usize,
}

impl<'a> Fonts<'a> {
    pub(super) fn new(file: &'a Document) -> Self {
        Self { file, known: HashMap::new(), map_bytes: 0 }
    }

    /// The font that `dictionary` describes; `None` when its codes cannot be read.
    pub(super) fn get(&mut self, dictionary: &'a Dictionary) -> Option<Rc<Font<'a>>> {
        let address = std::ptr::from_ref(dictionary);
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        if self.known.len() >= FONTS_MAX {
            return None;
        }
        let font = self.read(dictionary).map(Rc::new);
        self.known.insert(address, font.clone());
        font
    }

    fn read(&mut self, dictionary: &'a Dictionary) -> Option<Font<'a>> {
        if let Ok(map) = dictionary.get_deref(b"ToUnicode", self.file).and_then(Object::as_stream) {
            self.map_bytes += map.get_plain_content_with_limit(MAP_BYTES_MAX).map_or(0, |content| content.len());
            if self.map_bytes > MAPS_BYTES_MAX {
                return None;
            }
        }
        let encoding = dictionary.get_font_encoding_with_limit(self.file, MAP_BYTES_MAX).ok()?;
        let subtype = dictionary.get(b"Subtype").and_then(Object::as_name).unwrap_or_default();
        let (wide, widths) = match subtype {
            b"Type0" => (true, composite_widths(self.file, dictionary)),
            _ => (false, simple_widths(self.file, dictionary)),
        };
        // Type 3 fonts choose their own unit.
        let unit = match subtype {
            b"Type3" => number(dictionary.get_deref(b"FontMatrix", self.file).and_then(Object::as_array).ok()?.first()),
            _ => None,
        };
        Some(Font { encoding, wide, widths, unit: unit.unwrap_or(0.001) })
    }
}

/// How codes of a font become characters, and how wide they are.
pub(super) struct Font<'a> {
    encoding: Encoding<'a>,
    /// Codes have two bytes.
    wide: bool,
    widths: Widths,
    /// Length of a width unit at font size 1.
    unit: f32,
}

#[derive(Debug)]
struct Widths {
    by_code: HashMap<u16, f32>,
    default: f32,
}

impl Font<'_> {
    /// Appends the characters of `codes`; what has no meaning is left out.
    pub(super) fn decode(&self, codes: &[u8], out: &mut String, bytes_max: usize) {
        for part in codes.chunks(DECODE_BYTES) {
            if out.len() > bytes_max {
                return;
            }
            // An error says that the encoding is not known: then no code has a meaning.
            if self.encoding.write_to_string(part, out).is_err() {
                return;
            }
        }
    }

    /// Width of `codes` at size 1, their number, and how many are the space that word spacing widens.
    pub(super) fn measure(&self, codes: &[u8]) -> (f32, usize, usize) {
        let width = |code: u16| self.widths.by_code.get(&code).copied().unwrap_or(self.widths.default);
        let (sum, count, spaces) = if self.wide {
            let (pairs, _) = codes.as_chunks::<2>();
            (pairs.iter().map(|pair| width(u16::from_be_bytes(*pair))).sum::<f32>(), pairs.len(), 0)
        } else {
            let spaces = codes.iter().filter(|code| **code == b' ').count();
            (codes.iter().map(|code| width(u16::from(*code))).sum::<f32>(), codes.len(), spaces)
        };
        (sum * self.unit, count, spaces)
    }

    /// Whether [`Self::measure`] guesses: the file leaves the widths of the standard fonts to the reader.
    pub(super) fn is_guessed(&self) -> bool {
        self.widths.by_code.is_empty()
    }
}

fn number(object: Option<&Object>) -> Option<f32> {
    object.and_then(|object| object.as_float().ok()).filter(|number| number.is_finite())
}

fn simple_widths(file: &Document, font: &Dictionary) -> Widths {
    let first = font.get_deref(b"FirstChar", file).and_then(Object::as_i64).unwrap_or(0);
    let widths = font.get_deref(b"Widths", file).and_then(Object::as_array).map_or(&[][..], Vec::as_slice);
    let codes = (0i64..).map(|index| u16::try_from(first.saturating_add(index)).ok());
    let by_code = codes
        .zip(widths.iter().take(256))
        .filter_map(|(code, width)| Some((code?, number(file.dereference(width).ok().map(|(_, width)| width))?)))
        .collect();
    Widths { by_code, default: AVERAGE_WIDTH }
}

/// The `W` array of a composite font: `code [w w …]` or `first last w`.
fn composite_widths(file: &Document, font: &Dictionary) -> Widths {
    let mut widths = Widths { by_code: HashMap::new(), default: 1000.0 };
    let descendant = font
        .get_deref(b"DescendantFonts", file)
        .and_then(Object::as_array)
        .ok()
        .and_then(|fonts| fonts.first())
        .and_then(|object| file.dereference(object).ok())
        .and_then(|(_, object)| object.as_dict().ok());
    let Some(descendant) = descendant else { return widths };
    widths.default = number(descendant.get_deref(b"DW", file).ok()).unwrap_or(1000.0);
    let entries = descendant.get_deref(b"W", file).and_then(Object::as_array).map_or(&[][..], Vec::as_slice);
    let code = |object: &Object| object.as_i64().ok().and_then(|code| u16::try_from(code).ok());
    let (mut rest, mut left) = (entries, WIDTHS_MAX);
    while let [first, second, after @ ..] = rest {
        let Some(first) = code(first) else { break };
        let second = file.dereference(second).map_or(second, |(_, object)| object);
        if let Ok(list) = second.as_array() {
            for (code, width) in (first..=u16::MAX).zip(list.iter().take(left)) {
                widths.by_code.insert(code, number(Some(width)).unwrap_or(widths.default));
            }
            left = left.saturating_sub(list.len());
            rest = after;
        } else if let (Some(last), [width, after @ ..]) = (code(second), after) {
            let width = number(Some(width)).unwrap_or(widths.default);
            for code in (first..=last).take(left) {
                widths.by_code.insert(code, width);
            }
            left = left.saturating_sub(usize::from(last.saturating_sub(first)) + 1);
            rest = after;
        } else {
            break;
        }
    }
    widths
}
