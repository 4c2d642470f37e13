//! PDF to text, page by page.
//!
//! hayro-syntax reads the file ([`file`]); [`page`] follows the text operators of each page, [`font`] turns codes into
//! characters, [`fields`] adds the values of forms, and [`layout`] determines the reading order. A PDF is a program
//! from an untrusted source, so everything is bounded: bytes from compressed streams, pages, text, nesting, and the
//! work for a document as a multiple of its size; a panic of the reader is an error of the file.
//!
//! A document consists of what can be read: a character whose font does not define it is left out and counted, and if
//! most characters are like this the file is refused. Text in images and comments is left out. Hidden layers are read
//! like others.

mod bidi;
mod columns;
mod fields;
mod file;
mod font;
mod hyphen;
mod layout;
mod page;
mod unicode_map;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hayro_syntax::Pdf;
use hayro_syntax::page::Page as FilePage;
use serde_json::{Map, Value};

use super::block::{Block, BlockKind, shorten};
use super::front_matter::TITLE_BYTES_MAX;
use super::text::paragraphs;
use super::{Document, Limits, MediaType, Page, ParseError, Parsed};
use file::Budget;
use layout::PageContent;
use page::{PageReader, PageStats, Stopped};

/// Warnings about single pages; a damaged file would have one for each.
const PAGE_WARNINGS_MAX: usize = 5;
/// Names of fonts in a message.
const FONTS_NAMED_MAX: usize = 3;
/// Longest property kept, in bytes.
const PROPERTY_BYTES_MAX: usize = 2000;
/// If less than one character in this many could not be read, it is ignored; more are worth a warning.
const LOST_WORTH_SAYING: usize = 200;
/// Shorter text is not judged by its letters, in characters.
const JUDGED_MIN: usize = 60;

/// Parses a PDF. Warnings name pages without text, and characters that could not be read.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    // The closure changes nothing outside of it, so nothing is left half done.
    catch_unwind(AssertUnwindSafe(|| read(bytes, limits)))
        .unwrap_or_else(|_| Err(ParseError::corrupt("PDF", "its structure contradicts itself")))
}

fn read(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    let file = file::open(bytes)?;
    let pages = file.pages();
    if pages.len() > limits.pages_max {
        return Err(ParseError::TooManyPages { found: pages.len(), limit: limits.pages_max });
    }
    if pages.is_empty() {
        return Err(ParseError::corrupt("PDF", "it has no pages; the file may be cut short"));
    }
    let mut reader = PageReader::new(Budget::new(bytes.len()));
    let mut report = Report { cut_short: !file::has_end(bytes), ..Report::default() };
    let mut texts: Vec<(u32, String)> = Vec::new();
    let mut length = 0;
    for (page, number) in pages.iter().zip(1u32..) {
        match read_page(page, &mut reader, &mut report, number) {
            Ok(text) if text.trim().is_empty() => report.empty.push(number),
            Ok(text) => {
                length += text.len();
                limits.check_text(length)?;
                texts.push((number, text));
            }
            Err(reason) => report.unreadable.push(format!("page {number} could not be read: {}", reason?)),
        }
    }
    let (numbers, mut texts): (Vec<u32>, Vec<String>) = texts.into_iter().unzip();
    hyphen::join(&mut texts);
    report.judge(&texts)?;
    let mut document = Document::new(MediaType::Pdf, String::new(), Vec::new());
    for (number, text) in numbers.into_iter().zip(&texts) {
        append(&mut document, number, text);
    }
    properties(&file, &mut document);
    document.metadata.insert("pages".to_owned(), pages.len().into());
    Ok(Parsed { documents: vec![document], warnings: report.into_sentences(&texts) })
}

/// The text of a page; otherwise why it has none, or why the whole document is refused.
fn read_page<'a>(
    page: &FilePage<'a>,
    reader: &mut PageReader<'a>,
    report: &mut Report,
    number: u32,
) -> Result<String, Result<&'static str, ParseError>> {
    let window = page.media_box();
    let window = [window.x0, window.y0, window.x1, window.y1].map(|edge| edge as f32);
    let is_area = window[2] > window[0] && window[3] > window[1];
    let mut page_content = PageContent::new(is_area.then_some(window));
    let mut seen = PageStats::default();
    let drawn = reader
        .read(page, &mut page_content, &mut seen)
        .and_then(|()| fields::draw(page, reader, &mut page_content, &mut seen));
    report.add(seen, number);
    match drawn {
        Ok(()) => Ok(page_content.into_text()),
        Err(Stopped::TooLarge) => Err(Ok("its content unpacks to more than is allowed")),
        Err(Stopped::TooMuchText) => Err(Ok("it has more text than is allowed on a page")),
        Err(Stopped::Spent) => Err(Err(ParseError::corrupt(
            "PDF",
            format!(
                "its pages take more work than is allowed for a file of this size: {} to look at",
                crate::base::ByteSize(reader.budget.whole() as u64)
            ),
        ))),
    }
}

/// Adds the text of a page with its blocks.
fn append(document: &mut Document, number: u32, text: &str) {
    if !document.text.is_empty() {
        document.text.push_str("\n\n");
    }
    let start = document.text.len();
    document.text.push_str(text.trim());
    let range = start..document.text.len();
    document.blocks.push(Block { range: start..start, kind: BlockKind::Boundary });
    document.blocks.extend(paragraphs(&document.text, range.clone()));
    document.pages.push(Page { number, range });
}

/// Statistics for messages.
#[derive(Debug, Default)]
struct Report {
    cut_short: bool,
    empty: Vec<u32>,
    unreadable: Vec<String>,
    /// Characters that could not be read, by font; the order is the same in every run.
    lost: BTreeMap<String, usize>,
    lost_on: Vec<u32>,
    strings: usize,
    shapes: usize,
}

impl Report {
    fn add(&mut self, seen: PageStats, number: u32) {
        self.strings += seen.strings;
        self.shapes += seen.shapes;
        if !seen.lost.is_empty() {
            self.lost_on.push(number);
        }
        for (font, count) in seen.lost {
            *self.lost.entry(font).or_default() += count;
        }
    }

    fn lost_characters(&self) -> usize {
        self.lost.values().sum()
    }

    /// Refuses a document without usable text.
    fn judge(&mut self, texts: &[String]) -> Result<(), ParseError> {
        let lost = self.lost_characters();
        if lost > letters(texts) {
            let detail = format!(
                "{} of its characters are in fonts that do not say which letters they show ({}); print it to a new PDF, or run OCR over it",
                if texts.is_empty() { "all" } else { "most" },
                self.fonts()
            );
            return Err(ParseError::Unreadable { detail });
        }
        if is_rubbish(texts) {
            let detail = "its letters come out as signs, since its fonts number them in an order of their own; print it to a new PDF, or run OCR over it";
            return Err(ParseError::Unreadable { detail: detail.to_owned() });
        }
        if !texts.is_empty() {
            return Ok(());
        }
        Err(match () {
            () if !self.unreadable.is_empty() => ParseError::corrupt("PDF", self.unreadable.swap_remove(0)),
            () if self.cut_short => ParseError::corrupt("PDF", "no page has text; the file may be cut short"),
            () if self.shapes == 0 => ParseError::Unreadable { detail: "its pages are empty".to_owned() },
            () => ParseError::NoText,
        })
    }

    /// The fonts with the most unreadable characters.
    fn fonts(&self) -> String {
        let mut fonts: Vec<(&str, usize)> = self.lost.iter().map(|(font, count)| (font.as_str(), *count)).collect();
        fonts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let rest = if fonts.len() > FONTS_NAMED_MAX { ", …" } else { "" };
        let named: Vec<&str> = fonts.iter().take(FONTS_NAMED_MAX).map(|(font, _)| *font).collect();
        format!("{}{rest}", named.join(", "))
    }

    fn into_sentences(mut self, texts: &[String]) -> Vec<String> {
        let mut sentences = Vec::new();
        if self.cut_short {
            sentences.push("the file may be cut short: its end is missing".to_owned());
        }
        let lost = self.lost_characters();
        if lost > 0 && lost * LOST_WORTH_SAYING >= letters(texts) {
            let count = if lost == 1 { "1 character".to_owned() } else { format!("{lost} characters") };
            let places = if self.lost_on.len() == 1 { "page " } else { "pages " };
            sentences.push(format!(
                "{count} could not be read: the file does not say which letters they are (font {}; {places}{})",
                self.fonts(),
                listed(&self.lost_on)
            ));
        }
        let more = self.unreadable.len().saturating_sub(PAGE_WARNINGS_MAX);
        self.unreadable.truncate(PAGE_WARNINGS_MAX);
        sentences.append(&mut self.unreadable);
        if more > 0 {
            sentences.push(format!("{more} more pages could not be read"));
        }
        match self.empty.as_slice() {
            [] => {}
            [page] => sentences.push(format!("page {page} has no text")),
            pages => sentences.push(format!("{} pages have no text: {}", pages.len(), listed(pages))),
        }
        sentences
    }
}

/// The first ten of `pages`.
fn listed(pages: &[u32]) -> String {
    let first: Vec<String> = pages.iter().take(10).map(u32::to_string).collect();
    format!("{}{}", first.join(", "), if pages.len() > 10 { ", …" } else { "" })
}

/// Characters of all pages without white space.
fn letters(texts: &[String]) -> usize {
    texts.iter().map(|text| text.chars().filter(|character| !character.is_whitespace()).count()).sum()
}

/// Whether the text is mostly signs: fonts that number their letters in the order of use give `!"#$`. Rows of one sign,
/// as in tables of contents, count once.
fn is_rubbish(texts: &[String]) -> bool {
    let (mut words, mut signs, mut last) = (0usize, 0usize, ' ');
    for character in texts.iter().flat_map(|text| text.chars()).filter(|character| !character.is_whitespace()) {
        if character.is_alphanumeric() {
            words += 1;
        } else if character != last {
            signs += 1;
        }
        last = character;
    }
    words + signs >= JUDGED_MIN && signs * 2 > words * 3
}

/// A text string of the file: UTF-16 or UTF-8 with a mark, else PDFDocEncoding (ISO 32000-1, annex D.2).
fn text_string(bytes: &[u8]) -> String {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        char::decode_utf16(units).map_while(Result::ok).collect()
    };
    match bytes {
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).replace(char::REPLACEMENT_CHARACTER, ""),
        _ => bytes.iter().map(|byte| doc_character(*byte)).collect(),
    }
}

fn doc_character(byte: u8) -> char {
    const ACCENTS: [char; 8] = ['˘', 'ˇ', 'ˆ', '˙', '˝', '˛', '˚', '˜'];
    const SIGNS: [char; 33] = [
        '•', '†', '‡', '…', '—', '–', 'ƒ', '⁄', '‹', '›', '−', '‰', '„', '“', '”', '‘', '’', '‚', '™', 'ﬁ', 'ﬂ', 'Ł',
        'Œ', 'Š', 'Ÿ', 'Ž', 'ı', 'ł', 'œ', 'š', 'ž', '\u{9f}', '€',
    ];
    match byte {
        0x18..=0x1f => ACCENTS[usize::from(byte - 0x18)],
        0x80..=0xa0 => SIGNS[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

/// Title, author, subject and keywords from the information dictionary.
fn properties(file: &Pdf, document: &mut Document) {
    let info = file.metadata();
    let property = |value: &Option<Box<[u8]>>| {
        let text = text_string(value.as_deref()?)
            .replace(|character: char| character.is_control() && !character.is_whitespace(), "");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then(|| shorten(&text, PROPERTY_BYTES_MAX))
    };
    document.title =
        property(&info.title).filter(|title| is_sane_title(title)).map(|title| shorten(&title, TITLE_BYTES_MAX));
    let metadata: &mut Map<String, Value> = &mut document.metadata;
    for (value, name) in [(&info.author, "author"), (&info.subject, "subject"), (&info.keywords, "keywords")] {
        if let Some(value) = property(value) {
            metadata.insert(name.to_owned(), Value::String(value));
        }
    }
}

/// Whether a title was written by a person: programs leave file names and placeholders.
fn is_sane_title(title: &str) -> bool {
    let lower = title.to_lowercase();
    let is_file = [".doc", ".docx", ".dvi", ".tex", ".indd", ".ppt", ".pptx", ".xls", ".xlsx", ".odt", ".pdf", ".qxd"]
        .iter()
        .any(|extension| lower.ends_with(extension));
    !is_file
        && !lower.starts_with("microsoft word - ")
        && !matches!(lower.as_str(), "untitled" | "title" | "document" | "none" | "null" | "(anonymous)")
        && lower.chars().filter(|character| character.is_alphanumeric()).count() >= 3
}

#[cfg(test)]
mod tests;
