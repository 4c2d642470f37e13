//! PDF to text, page by page.
//!
//! lopdf reads the file; [`page`] follows the text operators of each page and [`font`] turns codes into characters. The
//! file format is a program that strangers wrote, so everything is held down: bytes out of compressed streams, pages,
//! text, nesting of forms; a panic of the reader is an error of the file.
//!
//! Left out: text in images, annotations and form fields, and the reading order of columns other than the file's own.

mod font;
mod page;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lopdf::{DecompressError, Dictionary, LoadOptions, Object, ObjectId, decode_text_string};
use serde_json::{Map, Value};

use super::block::{Block, BlockKind, shorten};
use super::front_matter::TITLE_BYTES_MAX;
use super::text::paragraphs;
use super::{Document, Limits, MediaType, Page, ParseError, Parsed};
use font::Fonts;
use page::PageReader;

/// What one compressed stream may unpack to while the file is loaded.
const STREAM_BYTES_MAX: usize = 32 << 20;
/// What all object streams of a file may unpack to: their objects take many times that in memory.
const OBJECT_STREAMS_BYTES_MAX: usize = 128 << 20;
/// Warnings about single pages; a broken file would have one for each.
const PAGE_WARNINGS_MAX: usize = 5;
/// Longest property kept, in bytes.
const PROPERTY_BYTES_MAX: usize = 2000;

/// Parses a PDF. Pages without text are named in a warning.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    // Nothing outside the closure is changed by it, so nothing is left half done.
    catch_unwind(AssertUnwindSafe(|| read(bytes, limits)))
        .unwrap_or_else(|_| Err(ParseError::corrupt("PDF", "its structure contradicts itself")))
}

fn read(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    let mut file = load(bytes)?;
    prefer_unicode_maps(&mut file);
    let pages: Vec<ObjectId> = file.page_iter().take(limits.pages_max.saturating_add(1)).collect();
    if pages.len() > limits.pages_max {
        return Err(ParseError::TooManyPages { found: file.get_pages().len(), limit: limits.pages_max });
    }
    if pages.is_empty() {
        return Err(ParseError::corrupt("PDF", "it has no pages; the file may be cut short"));
    }
    let mut warnings = Warnings::default();
    let mut document = Document::new(MediaType::Pdf, String::new(), Vec::new());
    let mut fonts = Fonts::new(&file);
    let mut reader = PageReader::new(&file, &mut fonts);
    for (id, number) in pages.iter().zip(1u32..) {
        let text = match reader.read(*id) {
            Ok(text) => text,
            Err(reason) => {
                warnings.unreadable.push(format!("page {number} could not be read: {reason}"));
                continue;
            }
        };
        if text.trim().is_empty() {
            warnings.empty.push(number);
            continue;
        }
        append(&mut document, number, &text);
        limits.check_text(document.text.len())?;
    }
    if document.pages.is_empty() {
        return Err(if warnings.unreadable.is_empty() {
            ParseError::NoText
        } else {
            ParseError::corrupt("PDF", warnings.unreadable.swap_remove(0))
        });
    }
    properties(&file, &mut document);
    document.metadata.insert("pages".to_owned(), pages.len().into());
    Ok(Parsed { documents: vec![document], warnings: warnings.into_sentences() })
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

/// What is said about pages, in few sentences.
#[derive(Debug, Default)]
struct Warnings {
    empty: Vec<u32>,
    unreadable: Vec<String>,
}

impl Warnings {
    fn into_sentences(mut self) -> Vec<String> {
        let more = self.unreadable.len().saturating_sub(PAGE_WARNINGS_MAX);
        self.unreadable.truncate(PAGE_WARNINGS_MAX);
        if more > 0 {
            self.unreadable.push(format!("{more} more pages could not be read"));
        }
        let count = self.empty.len();
        if count == 1 {
            self.unreadable.push(format!("page {} has no text", self.empty[0]));
        } else if count > 1 {
            let first: Vec<String> = self.empty.iter().take(10).map(u32::to_string).collect();
            let rest = if count > 10 { ", …" } else { "" };
            self.unreadable.push(format!("{count} pages have no text: {}{rest}", first.join(", ")));
        }
        self.unreadable
    }
}

thread_local! {
    /// What object streams may still unpack to during the load on this thread: lopdf's filter is a plain function, and
    /// its own limit is one for each stream only.
    static OBJECT_STREAMS_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Loads the file; one that is encrypted is tried with the empty password, which opens most.
fn load(bytes: &[u8]) -> Result<lopdf::Document, ParseError> {
    let options = |force_reconstruct| LoadOptions {
        password: Some(String::new()),
        filter: Some(keep),
        max_decompressed_size: Some(per_stream_limit(bytes)),
        force_reconstruct,
        ..LoadOptions::default()
    };
    let load = |force_reconstruct| {
        OBJECT_STREAMS_LEFT.set(OBJECT_STREAMS_BYTES_MAX);
        lopdf::Document::load_mem_with_options(bytes, options(force_reconstruct))
    };
    let loaded = match load(false) {
        // A table of contents that points elsewhere: look for the objects themselves.
        Ok(file) if !file.is_encrypted() && file.page_iter().next().is_none() => load(true).or(Ok(file)),
        other => other,
    };
    let file = loaded.map_err(load_error)?;
    if file.is_encrypted() {
        return Err(ParseError::Encrypted);
    }
    if OBJECT_STREAMS_LEFT.get() == 0 {
        return Err(ParseError::corrupt("PDF", "its compressed objects unpack to more than is allowed"));
    }
    Ok(file)
}

fn load_error(error: lopdf::Error) -> ParseError {
    match error {
        lopdf::Error::InvalidPassword | lopdf::Error::Decryption(_) => ParseError::Encrypted,
        lopdf::Error::Decompress(_) => {
            ParseError::corrupt("PDF", "a compressed stream is broken or unpacks to more than is allowed")
        }
        other => ParseError::Corrupt {
            format: "PDF",
            detail: "its structure cannot be read; the file may be cut short".to_owned(),
            source: Some(Box::new(other)),
        },
    }
}

/// The filter does not see object streams of encrypted files, so there the budget is shared out beforehand.
fn per_stream_limit(bytes: &[u8]) -> usize {
    let count = |needle: &[u8]| bytes.windows(needle.len()).filter(|window| *window == needle).count();
    if count(b"/Encrypt") == 0 {
        return STREAM_BYTES_MAX;
    }
    // Any stream might be an object stream under an escaped name, hence all are counted.
    (OBJECT_STREAMS_BYTES_MAX * 4 / count(b"endstream").max(1)).min(STREAM_BYTES_MAX)
}

/// Drops images, which hold no text and most of the bytes, and object streams beyond the budget.
fn keep(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    let Ok(stream) = object.as_stream() else { return Some((id, object.clone())) };
    if stream.dict.get(b"Subtype").and_then(Object::as_name).is_ok_and(|name| name == b"Image") {
        return None;
    }
    if stream.dict.has_type(b"ObjStm") {
        let left = OBJECT_STREAMS_LEFT.get();
        let size = match stream.decompressed_content_with_limit(left) {
            Ok(content) => content.len(),
            Err(lopdf::Error::Decompress(DecompressError::MemoryLimitExceeded { .. })) => left,
            // Broken: lopdf leaves it out as well.
            Err(_) => 0,
        };
        OBJECT_STREAMS_LEFT.set(left - size.min(left));
        if size >= left {
            return None;
        }
    }
    // Of objects that stand in the file itself, as every stream does, lopdf keeps its own and only asks for a yes.
    Some((id, Object::Null))
}

/// Removes `/Encoding` from fonts that also map to Unicode: the map is what the producer wrote for text extraction, the
/// encoding often names glyphs that only the embedded font knows, and lopdf prefers the encoding.
fn prefer_unicode_maps(file: &mut lopdf::Document) {
    let has_map = |font: &Dictionary, file: &lopdf::Document| {
        font.has_type(b"Font") && font.get_deref(b"ToUnicode", file).is_ok_and(|map| map.as_stream().is_ok())
    };
    let mapped: Vec<ObjectId> = file
        .objects
        .iter()
        .filter(|(_, object)| object.as_dict().is_ok_and(|font| has_map(font, file)))
        .map(|(id, _)| *id)
        .collect();
    for id in mapped {
        if let Ok(font) = file.get_dictionary_mut(id) {
            font.remove(b"Encoding");
        }
    }
}

/// Title, author, subject and keywords from the information dictionary.
fn properties(file: &lopdf::Document, document: &mut Document) {
    let Ok(info) = file.trailer.get_deref(b"Info", file).and_then(Object::as_dict) else { return };
    let property = |key: &[u8]| {
        let text = info.get_deref(key, file).ok().and_then(|value| decode_text_string(value).ok())?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then(|| shorten(&text.replace('\0', ""), PROPERTY_BYTES_MAX))
    };
    document.title =
        property(b"Title").filter(|title| is_sane_title(title)).map(|title| shorten(&title, TITLE_BYTES_MAX));
    let metadata: &mut Map<String, Value> = &mut document.metadata;
    for (key, name) in [(&b"Author"[..], "author"), (b"Subject", "subject"), (b"Keywords", "keywords")] {
        if let Some(value) = property(key) {
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
