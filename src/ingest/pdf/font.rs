//! Maps the codes of a font to characters and widths.
//!
//! The meaning of a code is looked up where a viewer would: the font's map to Unicode, then the names of its glyphs
//! (its `Encoding` with `Differences`, or those of the embedded font), then the character collection of an Asian font,
//! then the embedded font's table. Names and embedded fonts are read by hayro-font, the predefined CMaps by hayro-cmap.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use hayro_cmap::{BfString, CMap, CMapName, CidFamily, WritingMode};
use hayro_font::{CMapResolverFn, FontCache, FontGlyph, FontResolverFn};
use hayro_syntax::object::dict::keys::{
    BASE_FONT, CHAR_PROCS, CID_TO_GID_MAP, CIDSYSTEMINFO, DESCENDANT_FONTS, DIFFERENCES, DW, DW2, ENCODING, FIRST_CHAR,
    FONT_DESC, FONT_FILE, FONT_FILE2, FONT_FILE3, FONT_MATRIX, LAST_CHAR, MISSING_WIDTH, ORDERING, REGISTRY, SUBTYPE,
    TO_UNICODE, W, WIDTHS,
};
use hayro_syntax::object::{self, Array, Dict, Name, Object, Stream};
use rustc_hash::FxHashMap;
use skrifa::{FontRef, MetadataProvider};

use super::file::{Budget, measure, unpack};
use super::unicode_map::UnicodeMap;

/// Largest map from codes to Unicode or to glyphs, decompressed. Real ones are below 100 KiB.
const MAP_BYTES_MAX: usize = 1 << 20;
/// Largest embedded font, decompressed. Asian ones reach 20 MiB.
const FONT_BYTES_MAX: usize = 32 << 20;
/// Fonts of a document; each page may define its own.
const FONTS_MAX: usize = 4096;
/// Widths of one font; a font has at most 65,536 codes.
const WIDTHS_MAX: usize = 1 << 16;
/// Width of a character in an average font, in units of its size.
const AVERAGE_WIDTH: f32 = 0.5;
/// Longest font name in a message, in bytes.
const NAME_BYTES_MAX: usize = 60;

/// The fonts of a document, each read once.
pub(super) struct Fonts<'a> {
    /// Keyed by the dictionary's address in memory: it is borrowed from the file.
    known: FxHashMap<usize, Option<Rc<Font<'a>>>>,
    programs: FontCache<'a>,
}

impl<'a> Fonts<'a> {
    pub(super) fn new() -> Self {
        Self { known: FxHashMap::default(), programs: FontCache::new() }
    }

    /// The font that `dictionary` describes; `None` when it describes none, or too many were read.
    pub(super) fn get(&mut self, dictionary: &Dict<'a>, budget: &mut Budget) -> Option<Rc<Font<'a>>> {
        let address = dictionary.data().as_ptr() as usize;
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        if self.known.len() >= FONTS_MAX {
            return None;
        }
        let font = Font::read(dictionary, self.programs.clone(), budget).map(Rc::new);
        self.known.insert(address, font.clone());
        font
    }
}

/// The characters of a font's codes, and their widths.
pub(super) struct Font<'a> {
    /// Its name in the file, without the prefix of a subset; for messages.
    pub(super) name: String,
    /// Lines run down the page.
    pub(super) vertical: bool,
    to_unicode: Option<UnicodeMap>,
    kind: Kind<'a>,
    known: RefCell<FxHashMap<(u32, u8), Rc<Glyph>>>,
}

enum Kind<'a> {
    Simple(Simple<'a>),
    Composite(Box<Composite>),
}

/// The character of a code.
#[derive(Debug)]
pub(super) struct Glyph {
    /// `None`: the file does not define it.
    pub(super) text: Option<Box<str>>,
    /// Step to the next character, in units of the font's size.
    pub(super) width: f32,
    /// The single byte 32, which word spacing widens.
    pub(super) is_space: bool,
}

impl<'a> Font<'a> {
    fn read(dictionary: &Dict<'a>, programs: FontCache<'a>, budget: &mut Budget) -> Option<Self> {
        let name = dictionary.get::<Name<'_>>(BASE_FONT).map_or("without a name".to_owned(), |name| {
            let name = String::from_utf8_lossy(&name).replace(char::is_control, "");
            let name = name.split_once('+').filter(|(prefix, _)| prefix.len() == 6).map_or(&*name, |(_, rest)| rest);
            super::shorten(name, NAME_BYTES_MAX)
        });
        let to_unicode = match dictionary.get::<Stream<'_>>(TO_UNICODE) {
            Some(map) => unpack(&map, MAP_BYTES_MAX).ok().and_then(|map| {
                // Sorting and lookups cost a little more than the bytes themselves.
                budget.spend(map.len().saturating_mul(4)).then(|| UnicodeMap::read(&map))
            }),
            None => None,
        };
        let subtype = dictionary.get::<Name<'_>>(SUBTYPE)?;
        let kind = if subtype.as_ref() == b"Type0" {
            Kind::Composite(Box::new(Composite::read(dictionary, budget)?))
        } else {
            Kind::Simple(Simple::read(dictionary, subtype.as_ref() == b"Type3", programs, budget))
        };
        let vertical = matches!(&kind, Kind::Composite(font) if font.vertical);
        Some(Self { name, vertical, to_unicode, kind, known: RefCell::default() })
    }

    /// The code at the start of `bytes` and its length; `bytes` is not empty.
    pub(super) fn next(&self, bytes: &[u8]) -> (Rc<Glyph>, usize) {
        let (code, length) = match &self.kind {
            Kind::Simple(_) => (u32::from(bytes[0]), 1),
            Kind::Composite(font) => font.next(bytes),
        };
        let key = (code, length as u8);
        if let Some(known) = self.known.borrow().get(&key) {
            return (known.clone(), length);
        }
        let glyph = Rc::new(self.lookup_glyph(code, length));
        self.known.borrow_mut().insert(key, glyph.clone());
        (glyph, length)
    }

    fn lookup_glyph(&self, code: u32, length: usize) -> Glyph {
        let mut text = String::new();
        let mapped = self.to_unicode.as_ref().is_some_and(|map| map.append(code, &mut text));
        let width = match &self.kind {
            Kind::Simple(font) => {
                if !mapped {
                    font.append(code, &mut text);
                }
                font.width(code)
            }
            Kind::Composite(font) => {
                let cid = font.cid(code, length);
                if !mapped {
                    font.append(code, cid, &mut text);
                }
                if font.vertical { font.step_down } else { font.widths.get(&cid).copied().unwrap_or(font.default) }
            }
        };
        let text = sign(&text).map_or(text, str::to_owned);
        let text = readable(&text).then(|| text.into_boxed_str());
        Glyph { text, width, is_space: length == 1 && code == 32 }
    }
}

/// List bullets, which symbol fonts have among their private characters.
fn sign(text: &str) -> Option<&'static str> {
    match text {
        "\u{f06c}" | "\u{f06e}" | "\u{f071}" | "\u{f076}" | "\u{f0a7}" | "\u{f0a8}" | "\u{f0b7}" | "\u{f0d8}" => {
            Some("•")
        }
        "\u{f0e0}" | "\u{f0e8}" => Some("→"),
        "\u{f0fc}" | "\u{f0fe}" => Some("✓"),
        _ => None,
    }
}

/// Whether `text` is meaningful: private characters and replacements are a glyph's number, not its meaning.
fn readable(text: &str) -> bool {
    let unreadable = |character| {
        matches!(character, '\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'.. )
            || (character as u32) & 0xfffe == 0xfffe
    };
    !text.is_empty() && !text.chars().any(unreadable) && !text.chars().all(|c| c.is_control() && !c.is_whitespace())
}

/// A font whose codes are single bytes.
struct Simple<'a> {
    /// `None` if hayro's reader would do more work than the file warrants.
    dictionary: Option<Dict<'a>>,
    programs: FontCache<'a>,
    font: OnceCell<Option<hayro_font::Font<'a>>>,
    first: usize,
    widths: Vec<f32>,
    missing: Option<f32>,
    /// The names of the glyphs are their codes, as in the bitmap fonts of TeX: `a65`.
    numbered: bool,
}

impl<'a> Simple<'a> {
    fn read(dictionary: &Dict<'a>, own_unit: bool, programs: FontCache<'a>, budget: &mut Budget) -> Self {
        let descriptor = dictionary.get::<Dict<'_>>(FONT_DESC).unwrap_or_default();
        // Type 3 fonts choose their own unit.
        let unit = own_unit
            .then(|| dictionary.get::<Array<'_>>(FONT_MATRIX).and_then(|matrix| matrix.iter::<f32>().next()))
            .flatten()
            .unwrap_or(0.001);
        let first = dictionary.get::<usize>(FIRST_CHAR).unwrap_or(0);
        let widths = dictionary
            .get::<Array<'_>>(WIDTHS)
            .map_or_else(Vec::new, |list| list.iter::<f32>().take(256).map(|width| width * unit).collect());
        let missing = descriptor.get::<f32>(MISSING_WIDTH).map(|width| width * unit).filter(|width| *width > 0.0);
        let plain = fits(dictionary, &descriptor, budget);
        let numbered = plain && own_unit && is_numbered(dictionary);
        let dictionary = plain.then(|| dictionary.clone());
        Self { dictionary, programs, font: OnceCell::new(), first, widths, missing, numbered }
    }

    fn font(&self) -> Option<&hayro_font::Font<'a>> {
        let load = || {
            let cmaps: CMapResolverFn = Arc::new(|_| None);
            self.programs.font(self.dictionary.as_ref()?, &stand_in(), &cmaps)
        };
        self.font.get_or_init(load).as_ref()
    }

    fn append(&self, code: u32, text: &mut String) {
        let Some(font) = self.font() else { return };
        let found = match font.glyph(font.map_code(code), code) {
            FontGlyph::Outline(glyph) => glyph.as_unicode(),
            FontGlyph::Type3(glyph) => glyph.as_unicode(),
        };
        push(found, text);
        if text.is_empty() && self.numbered {
            text.push_str(numbered(code));
            if text.is_empty() {
                text.extend(char::from_u32(code).filter(|c| c.is_ascii_graphic() || *c >= '\u{c0}'));
            }
        }
    }

    fn width(&self, code: u32) -> f32 {
        let listed = (code as usize).checked_sub(self.first).and_then(|index| self.widths.get(index).copied());
        if let Some(width) = listed.or(if self.widths.is_empty() { None } else { self.missing }) {
            return width;
        }
        // The file leaves the widths of the standard fonts to the viewer.
        let known = self.font().map(|font| font.code_advance(code).x as f32 / hayro_font::UNITS_PER_EM);
        known.filter(|width| width.is_finite() && *width > 0.0).unwrap_or(AVERAGE_WIDTH)
    }
}

/// Whether `Differences` names each glyph by a letter and its code.
fn is_numbered(dictionary: &Dict<'_>) -> bool {
    let Some(list) = dictionary.get::<Dict<'_>>(ENCODING).and_then(|own| own.get::<Array<'_>>(DIFFERENCES)) else {
        return false;
    };
    let (mut code, mut names) = (0i64, 0);
    for entry in list.iter::<Object<'_>>().take(1024) {
        match entry {
            Object::Number(number) => code = number.as_i64(),
            Object::Name(name) => {
                let number = name.as_str().get(1..).and_then(|number| number.parse::<i64>().ok());
                if name.as_ref() as &[u8] != b".notdef" && number != Some(code) {
                    return false;
                }
                (code, names) = (code + 1, names + 1);
            }
            _ => {}
        }
    }
    names > 1
}

/// Ligatures and quotes at their positions in TeX's T1 and OT1 encodings; other codes are those of ASCII and Latin-1.
fn numbered(code: u32) -> &'static str {
    match code {
        11 | 27 => "ff",
        12 | 28 => "fi",
        13 | 29 => "fl",
        14 | 30 => "ffi",
        15 | 31 => "ffl",
        16 => "“",
        17 => "”",
        18 => "„",
        21 => "–",
        22 => "—",
        39 => "’",
        96 => "‘",
        0xd7 => "Œ",
        0xf7 => "œ",
        0xff => "ß",
        _ => "",
    }
}

/// Whether hayro-font may read a font: it decompresses without a limit and trusts the numbers in the file.
fn fits(dictionary: &Dict<'_>, descriptor: &Dict<'_>, budget: &mut Budget) -> bool {
    let small = |key: &[u8]| dictionary.get::<i64>(key).is_none_or(|code| (0..=255).contains(&code));
    let lists = [ENCODING, CHAR_PROCS].iter().map(|key| match dictionary.get::<Object<'_>>(key) {
        Some(Object::Dict(entries)) => entries.data().len().saturating_mul(2),
        _ => 0,
    });
    if !small(FIRST_CHAR) || !small(LAST_CHAR) || !budget.spend(lists.sum::<usize>() + dictionary.data().len()) {
        return false;
    }
    let streams = [
        dictionary.get::<Stream<'_>>(TO_UNICODE).map(|stream| (stream, MAP_BYTES_MAX)),
        descriptor.get::<Stream<'_>>(FONT_FILE).map(|stream| (stream, FONT_BYTES_MAX)),
        descriptor.get::<Stream<'_>>(FONT_FILE2).map(|stream| (stream, FONT_BYTES_MAX)),
        descriptor.get::<Stream<'_>>(FONT_FILE3).map(|stream| (stream, FONT_BYTES_MAX)),
    ];
    streams.into_iter().flatten().all(|(stream, max)| match measure(&stream, max) {
        Ok(size) => budget.spend(size),
        Err(super::file::Unpacked::Broken) => true,
        Err(super::file::Unpacked::TooLarge) => false,
    })
}

/// hayro-font requires a program for each standard font, although names and widths come from its own tables. An empty
/// one suffices.
fn stand_in() -> FontResolverFn {
    Arc::new(|_| Some((Arc::new(EMPTY_FONT), 0)))
}

/// A TrueType font with one empty glyph: the tables `head`, `hhea` and `maxp`, which are all that opening requires.
static EMPTY_FONT: &[u8] = include_bytes!("empty.ttf");

fn push(found: Option<BfString>, text: &mut String) {
    match found {
        Some(BfString::Char(character)) => text.push(character),
        Some(BfString::String(string)) => text.push_str(&string),
        None => {}
    }
}

/// A font whose codes have one to four bytes and are mapped to glyph numbers by a CMap.
struct Composite {
    codes: Codes,
    vertical: bool,
    /// What numbers of glyphs mean in the font's character collection.
    collection: Option<CMap>,
    /// Glyph numbers to characters, from the embedded font.
    embedded: FxHashMap<u32, char>,
    widths: FxHashMap<u32, f32>,
    default: f32,
    step_down: f32,
}

enum Codes {
    /// Two bytes, which are the number.
    Identity,
    /// Two bytes of UTF-16, and the map to numbers.
    Utf16(CMap),
    Map(CMap),
}

impl Composite {
    fn read(dictionary: &Dict<'_>, budget: &mut Budget) -> Option<Self> {
        let descendant = dictionary.get::<Array<'_>>(DESCENDANT_FONTS)?.iter::<Dict<'_>>().next()?;
        let (codes, vertical, family) = codes(&dictionary.get::<Object<'_>>(ENCODING)?, budget)?;
        let family = family.or_else(|| {
            let system = descendant.get::<Dict<'_>>(CIDSYSTEMINFO)?;
            let registry = system.get::<object::String<'_>>(REGISTRY)?;
            let ordering = system.get::<object::String<'_>>(ORDERING)?;
            Some(CidFamily::from_registry_ordering(&registry, &ordering))
        });
        let collection = family.and_then(|family| family.ucs2_cmap()).and_then(|name| predefined(name, budget));
        let embedded = match collection {
            Some(_) => FxHashMap::default(),
            None => embedded(&descendant, budget).unwrap_or_default(),
        };
        let default = descendant.get::<f32>(DW).unwrap_or(1000.0) / 1000.0;
        let down = descendant.get::<Array<'_>>(DW2).and_then(|pair| pair.iter::<f32>().nth(1)).unwrap_or(-1000.0);
        let widths = descendant.get::<Array<'_>>(W).map_or_else(FxHashMap::default, |list| widths(&list));
        Some(Self { codes, vertical, collection, embedded, widths, default, step_down: down.abs() / 1000.0 })
    }

    fn next(&self, bytes: &[u8]) -> (u32, usize) {
        let pair = |bytes: &[u8]| match bytes {
            [high, low, ..] => (u32::from(*high) << 8 | u32::from(*low), 2),
            _ => (u32::from(bytes[0]), 1),
        };
        match &self.codes {
            Codes::Identity | Codes::Utf16(_) => pair(bytes),
            Codes::Map(map) => {
                let mut code = 0u32;
                for (byte, length) in bytes.iter().zip(1u8..=4) {
                    code = code << 8 | u32::from(*byte);
                    if map.lookup_cid_code(code, length).is_some() {
                        return (code, usize::from(length));
                    }
                }
                // Not assigned: in all of these encodings, a code with such a first byte is skipped as two bytes.
                if bytes[0] < 0x80 { (u32::from(bytes[0]), 1) } else { pair(bytes) }
            }
        }
    }

    fn cid(&self, code: u32, length: usize) -> u32 {
        match &self.codes {
            Codes::Identity => code,
            Codes::Utf16(map) | Codes::Map(map) => map.lookup_cid_code(code, length as u8).unwrap_or(0),
        }
    }

    fn append(&self, code: u32, cid: u32, text: &mut String) {
        if let Codes::Utf16(_) = self.codes
            && let Some(character) = char::from_u32(code)
        {
            text.push(character);
        } else if let Some(map) = &self.collection {
            push(map.lookup_bf_string(cid), text);
            if text.is_empty() {
                let found = (1..=4).find_map(|length| map.lookup_cid_code(cid, length));
                text.extend(found.and_then(char::from_u32));
            }
        } else {
            text.extend(self.embedded.get(&cid));
        }
    }
}

/// The encoding of a composite font, whether it runs down the page, and the collection that its numbers belong to.
fn codes(encoding: &Object<'_>, budget: &mut Budget) -> Option<(Codes, bool, Option<CidFamily>)> {
    let map = match encoding {
        Object::Name(name) => {
            let vertical = name.as_ref() == b"V" || name.ends_with(b"-V");
            match CMapName::from_bytes(name) {
                CMapName::IdentityH | CMapName::IdentityV => return Some((Codes::Identity, vertical, None)),
                known => {
                    let map = predefined(known, budget)?;
                    let family = map.metadata().character_collection.clone().map(|collection| collection.family);
                    let unicode = name.windows(5).any(|part| part == b"-UCS2" || part == b"-UTF1");
                    return Some((if unicode { Codes::Utf16(map) } else { Codes::Map(map) }, vertical, family));
                }
            }
        }
        Object::Stream(stream) => {
            let data = unpack(stream, MAP_BYTES_MAX).ok()?;
            if !budget.spend(data.len().saturating_mul(4)) {
                return None;
            }
            CMap::parse(&data, hayro_cmap::load_embedded)?
        }
        _ => return None,
    };
    let vertical = map.metadata().writing_mode == Some(WritingMode::Vertical);
    let family = map.metadata().character_collection.clone().map(|collection| collection.family);
    Some((Codes::Map(map), vertical, family.filter(|family| *family != CidFamily::AdobeIdentity)))
}

/// A CMap that every reader has.
fn predefined(name: CMapName<'_>, budget: &mut Budget) -> Option<CMap> {
    let data = hayro_cmap::load_embedded(name)?;
    // They unpack to about five times their size.
    budget.spend(data.len().saturating_mul(8)).then(|| CMap::parse(data, hayro_cmap::load_embedded)).flatten()
}

/// The `W` array of a composite font, by glyph number: `first [w w …]` or `first last w`.
fn widths(list: &Array<'_>) -> FxHashMap<u32, f32> {
    let mut widths = FxHashMap::default();
    let mut entries = list.iter::<Object<'_>>();
    let mut left = WIDTHS_MAX;
    let whole = |object: Option<Object<'_>>| match object {
        Some(Object::Number(number)) => u32::try_from(number.as_i64()).ok(),
        _ => None,
    };
    while let Some(first) = whole(entries.next()) {
        match entries.next() {
            Some(Object::Array(list)) => {
                for (cid, width) in (first..).zip(list.iter::<f32>()).take(left) {
                    widths.insert(cid, width / 1000.0);
                    left -= 1;
                }
            }
            Some(last) => {
                let (Some(last), Some(Object::Number(width))) = (whole(Some(last)), entries.next()) else { break };
                for cid in (first..=last).take(left) {
                    widths.insert(cid, width.as_f32() / 1000.0);
                    left -= 1;
                }
            }
            None => break,
        }
    }
    widths
}

/// The characters of glyphs according to the embedded font, for files without a map to Unicode.
fn embedded(descendant: &Dict<'_>, budget: &mut Budget) -> Option<FxHashMap<u32, char>> {
    let descriptor = descendant.get::<Dict<'_>>(FONT_DESC)?;
    let stream = descriptor.get::<Stream<'_>>(FONT_FILE2).or_else(|| descriptor.get(FONT_FILE3))?;
    let program = unpack(&stream, FONT_BYTES_MAX).ok().filter(|program| budget.spend(program.len()))?;
    let font = FontRef::new(&program).ok()?;
    // With a separate table from glyphs to outlines, the numbers in the file are not those of the font.
    let table = descendant.get::<Stream<'_>>(CID_TO_GID_MAP).and_then(|table| unpack(&table, 1 << 17).ok());
    let mut characters = FxHashMap::default();
    for (character, glyph) in font.charmap().mappings().take(WIDTHS_MAX) {
        if let Some(character) = char::from_u32(character) {
            characters.entry(glyph.to_u32()).or_insert(character);
        }
    }
    Some(match table {
        None => characters,
        Some(table) => {
            let glyphs = table.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
            (0..).zip(glyphs).filter_map(|(cid, glyph)| Some((cid, *characters.get(&glyph)?))).collect()
        }
    })
}
