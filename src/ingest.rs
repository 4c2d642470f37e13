//! Bytes to documents to chunks: parsers, text extraction and splitting.
//!
//! Everything here is pure: no disk, no threads, no clock. [`parse`] turns the bytes of a source into one [`Document`]
//! (a Markdown file, a PDF) or many (the lines of a JSONL file, the rows of a CSV file); [`chunk()`] splits a document
//! into passages along its structure; [`plain()`] removes markup from a passage for embedding and indexing.
//!
//! Invariants:
//! * Input is hostile until parsed. Sizes, nesting, record and page counts are bounded by [`Limits`]; no input panics,
//!   recurses without bound or takes more than linear time within the limits. Memory is a constant multiple of the
//!   source: two to five for real documents, about fifty for one that consists of tiny values or sections.
//! * [`Chunk::range`] always addresses [`Document::text`]: a citation can be shown in place. A passage that continues a
//!   table is shown below the table's header row, which its range does not cover.
//! * The same bytes and settings give the same chunks, so that a second sync of a file changes nothing.
//!
//! Left out on purpose: OCR.

mod block;
mod chunk;
mod csv_rows;
mod detect;
mod drawing;
mod encoded;
mod encoding;
mod front_matter;
mod html;
mod left_out;
mod licence;
mod mail;
mod mailbox;
mod markdown;
mod notebook;
mod pdf;
mod plain;
mod records;
mod settings;
mod source_code;
mod template;
mod text;
mod tokens;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::{ByteSize, Fault};
use block::{Block, BlockKind};

pub use block::shorten;
pub use chunk::{Chunk, ChunkConfig, chunk};
pub use detect::MediaType;
pub use left_out::{FileKind, left_out, pages_saved_with};
pub use plain::plain;
pub use settings::Settings;
pub use tokens::{TOKEN_BYTES_MAX, estimate_tokens, prefix_within};

/// The bytes of one file or upload.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Relative path or file name; its extension chooses among languages and delimiters, nothing is opened.
    pub name: &'a str,
    /// The format of the bytes; see [`MediaType::detect`].
    pub media_type: MediaType,
    /// The whole content.
    pub bytes: &'a [u8],
}

/// Bounds on what a source may hold; exceeding one is an error, never a silent cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a source as received.
    pub source_bytes_max: u64,
    /// Bytes of text extracted from a source, over all its documents.
    pub text_bytes_max: u64,
    /// Records of a JSONL, JSON or CSV source.
    pub records_max: usize,
    /// Nesting of JSON arrays and objects; values above 100 count as 100 (the JSON reader stops at 128).
    pub depth_max: usize,
    /// Pages of a PDF.
    pub pages_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_bytes_max: 64 << 20,
            text_bytes_max: 64 << 20,
            records_max: 1_000_000,
            depth_max: 64,
            pages_max: 20_000,
        }
    }
}

impl Limits {
    /// [`Self::text_bytes_max`] as a length in memory.
    fn text_max(&self) -> usize {
        usize::try_from(self.text_bytes_max).unwrap_or(usize::MAX)
    }

    /// Refuses extracted text of `length` bytes when it is over the limit.
    fn check_text(&self, length: usize) -> Result<(), ParseError> {
        if length > self.text_max() {
            return Err(ParseError::TooLarge {
                what: "extracted text",
                found: ByteSize(length as u64),
                limit: ByteSize(self.text_bytes_max),
            });
        }
        Ok(())
    }
}

/// One text with what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// `None`: the source is the document. `Some`: the record's id within the source, its `_id` or `id` field or
    /// otherwise the 1-based number of its line (JSONL, CSV) or element (JSON array).
    pub record: Option<String>,
    /// Title as the document states it, at most 300 bytes; `None` when it states none.
    pub title: Option<String>,
    /// Address the document gives for itself.
    pub url: Option<String>,
    /// Other metadata in the document: front matter, `<meta>`, PDF properties, other record fields.
    pub metadata: Map<String, Value>,
    /// The format it was parsed from.
    pub media_type: MediaType,
    /// Markdown, text and source code: the source without its byte order mark, with its line ends. Others: extracted
    /// text; the title of a document without text.
    pub text: String,
    /// Pages that have text, in order; PDF only.
    pub pages: Vec<Page>,
    /// Structure for [`chunk()`]: ascending, not overlapping.
    pub(crate) blocks: Vec<Block>,
}

impl Document {
    /// A document that only has a title, which is its text.
    #[must_use]
    pub fn of_title(title: &str, media_type: MediaType) -> Self {
        let blocks = Block::trimmed(title, 0..title.len(), BlockKind::Prose).into_iter().collect();
        Self { title: Some(title.to_owned()), ..Self::new(media_type, title.to_owned(), blocks) }
    }

    /// A document of `text` without metadata.
    fn new(media_type: MediaType, text: String, blocks: Vec<Block>) -> Self {
        Self { record: None, title: None, url: None, metadata: Map::new(), media_type, text, pages: Vec::new(), blocks }
    }
}

/// A page of a PDF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Position in the file, from 1; not the printed page label.
    pub number: u32,
    /// Bytes in [`Document::text`].
    pub range: Range<usize>,
}

/// The result of [`parse`].
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// In the order of the source.
    pub documents: Vec<Document>,
    /// What was repaired or left out, one sentence each, for the person who added the source.
    pub warnings: Vec<String>,
}

/// Why a source could not be parsed. Nothing of it is returned.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Over one of the byte limits.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size; for extracted text the size at which extraction stopped.
        found: ByteSize,
        /// The limit.
        limit: ByteSize,
    },
    /// Neither text nor a supported format.
    #[error("content looks like {looks_like}, expected text, HTML or PDF")]
    Binary {
        /// Common name of the format.
        looks_like: &'static str,
        /// The kind of such files.
        kind: FileKind,
    },
    /// Nothing but white space.
    #[error("there is no text in it")]
    Empty,
    /// Not UTF-8, and no other encoding makes it text.
    #[error(
        "not text in a known encoding: the first byte that is not UTF-8 is at offset {offset}; if you know the encoding, convert it with iconv -f ENCODING -t UTF-8"
    )]
    NotUtf8 {
        /// First invalid byte, from 0.
        offset: u64,
    },
    /// A PDF that does not open without a password.
    #[error("the PDF is encrypted and does not open with an empty password")]
    Encrypted,
    /// The content is invalid in its format.
    #[error("not valid {format}: {detail}")]
    Corrupt {
        /// Name of the format.
        format: &'static str,
        /// What was found, and where.
        detail: String,
        /// The parser's own error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Arrays or objects nested too deeply.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// [`Limits::depth_max`].
        limit: usize,
    },
    /// A PDF whose text cannot be read, or would be garbage.
    #[error("the text of the PDF cannot be read: {detail}")]
    Unreadable {
        /// The reason, and what to do.
        detail: String,
    },
    /// A PDF of images or drawings only.
    #[error("no page has text; a scanned PDF needs OCR first")]
    NoText,
    /// More records than allowed.
    #[error("more than {limit} records")]
    TooManyRecords {
        /// [`Limits::records_max`].
        limit: usize,
    },
    /// More pages than allowed.
    #[error("{found} pages, the limit is {limit}")]
    TooManyPages {
        /// Pages in the file.
        found: usize,
        /// [`Limits::pages_max`].
        limit: usize,
    },
    /// Two records of one source share an id.
    #[error("record id '{id}' appears twice, at {first} and {second}")]
    DuplicateRecord {
        /// The id, shortened when long.
        id: String,
        /// Line (JSONL) or element number (JSON array) of the first record, from 1.
        first: u64,
        /// The same for the second.
        second: u64,
    },
    /// An extension of an unsupported format.
    #[error("{} are not read", .kind.label(2))]
    UnknownType {
        /// The kind of such files.
        kind: FileKind,
    },
}

impl ParseError {
    /// Who can fix it: always the caller, by sending another source.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLarge { .. }
            | Self::Binary { .. }
            | Self::NotUtf8 { .. }
            | Self::Encrypted
            | Self::Unreadable { .. }
            | Self::Corrupt { .. }
            | Self::TooDeep { .. }
            | Self::NoText
            | Self::TooManyRecords { .. }
            | Self::TooManyPages { .. }
            | Self::DuplicateRecord { .. }
            | Self::UnknownType { .. }
            | Self::Empty => Fault::Caller,
        }
    }

    /// The kind of a file that is not a document; `None` when it is one with a problem. A file with a kind is left out
    /// of a folder without counting as a failure.
    #[must_use]
    pub fn file_kind(&self) -> Option<FileKind> {
        match self {
            Self::Binary { kind, .. } | Self::UnknownType { kind, .. } => Some(*kind),
            Self::Empty => Some(FileKind::Empty),
            Self::TooLarge { .. }
            | Self::NotUtf8 { .. }
            | Self::Encrypted
            | Self::Corrupt { .. }
            | Self::TooDeep { .. }
            | Self::Unreadable { .. }
            | Self::NoText
            | Self::TooManyRecords { .. }
            | Self::TooManyPages { .. }
            | Self::DuplicateRecord { .. } => None,
        }
    }

    /// An error in the syntax of `format`, described by `detail`.
    fn corrupt(format: &'static str, detail: impl Into<String>) -> Self {
        Self::Corrupt { format, detail: detail.into(), source: None }
    }
}

/// Parses a source into its documents.
///
/// Cost: CPU only, linear in the source; tens of MB/s for text, a few for PDF. Call it from a thread that may block.
///
/// # Errors
/// [`ParseError`]; no partial result.
pub fn parse(source: &Source<'_>, limits: &Limits) -> Result<Parsed, ParseError> {
    let length = source.bytes.len() as u64;
    if length > limits.source_bytes_max {
        return Err(ParseError::TooLarge {
            what: "source",
            found: ByteSize(length),
            limit: ByteSize(limits.source_bytes_max),
        });
    }
    if source.media_type == MediaType::Pdf {
        return pdf::parse(source.bytes, limits);
    }
    let mut warnings = Vec::new();
    let mut documents = match source.media_type {
        // Each part has its own encoding.
        MediaType::Mail if mailbox::is_one(source.bytes) => mailbox::parse(source.bytes, limits, &mut warnings)?,
        MediaType::Mail => vec![mail::parse(source.bytes, limits, &mut warnings)?],
        MediaType::WebArchive => vec![mail::parse_archive(source.bytes, limits)?],
        _ => parse_text(source, limits, &mut warnings)?,
    };
    for document in &mut documents {
        name_alone(document);
    }
    if documents.iter().all(|document| document.text.trim().is_empty()) {
        warnings.push("the source has no text".to_owned());
    } else {
        let all = documents.len();
        documents.retain(|document| document.record.is_none() || !document.text.trim().is_empty());
        match all - documents.len() {
            0 => {}
            1 => warnings.push("1 record has no text and was left out".to_owned()),
            empty => warnings.push(format!("{empty} records have no text and were left out")),
        }
    }
    Ok(Parsed { documents, warnings })
}

/// Parses a source that is text as a whole.
fn parse_text(source: &Source<'_>, limits: &Limits, warnings: &mut Vec<String>) -> Result<Vec<Document>, ParseError> {
    let text = encoding::decode(source.bytes, source.media_type, warnings)?;
    limits.check_text(text.len())?;
    Ok(match source.media_type {
        MediaType::Markdown => vec![markdown::parse(text, warnings)],
        MediaType::Text => vec![text::parse(text)],
        MediaType::SourceCode if left_out::is_minified(source.name, text.as_bytes()) => {
            return Err(ParseError::UnknownType { kind: FileKind::Generated });
        }
        MediaType::SourceCode => vec![source_code::parse(text, source.name)],
        MediaType::Html => vec![html::parse(&text, None, limits)?],
        MediaType::Json => records::parse_json(&text, limits, warnings)?,
        MediaType::JsonLines => records::parse_lines(&text, limits, warnings)?,
        MediaType::Csv => csv_rows::parse(&text, source.name, limits, warnings)?,
        MediaType::Notebook => notebook::parse(&text, limits, warnings)?,
        MediaType::Drawing => vec![drawing::parse(&text, limits)?],
        // Parsed from their bytes.
        MediaType::Pdf | MediaType::Mail | MediaType::WebArchive => Vec::new(),
    })
}

/// Makes the title the text of a document without other text: lists of books and products are full of them.
fn name_alone(document: &mut Document) {
    if let Some(title) = document.title.as_ref().filter(|title| !title.trim().is_empty())
        && document.text.trim().is_empty()
    {
        document.text = title.clone();
        document.blocks = Block::trimmed(title, 0..title.len(), BlockKind::Prose).into_iter().collect();
    }
}

#[cfg(test)]
mod tests;
