//! From what a caller gives to what the log takes: parsed, split, embedded, hashed.

use std::sync::Arc;

use half::f16;
use serde_json::{Map, Value};

use super::{Config, DOCUMENT_ID_BYTES_MAX, PASSAGES_PER_DOCUMENT_MAX, WriteError};
use crate::base::{Digest, Fault, UnixMillis};
use crate::embed::{Embedder, Purpose};
use crate::index::analysis::Language;
use crate::ingest::{self, MediaType, ParseError};
use crate::store::{ChunkBody, CollectionInfo, NewChunk, NewDocument};

/// Part of every digest: changes when the same bytes would be split or embedded differently, so that a sync after an
/// upgrade writes them again.
const PREPARATION: &[u8] = b"cairn-preparation-2";
/// Largest metadata of a document, as JSON.
const METADATA_BYTES_MAX: usize = 64 << 10;
/// Longest title, in bytes: it is indexed with each passage and comes with each answer.
const TITLE_BYTES_MAX: usize = 1_000;
/// Longest address of an original, in bytes.
const URL_BYTES_MAX: usize = 4 << 10;
/// How much of a source's beginning tells its format.
const HEAD_BYTES: usize = 8 << 10;
/// How much of a document's beginning tells its language.
const LANGUAGE_SAMPLE_BYTES: usize = 2_000;

/// A document as a caller gives it.
#[derive(Debug, Clone, Default)]
pub struct DocumentInput {
    /// Its id, unique in the collection; made from the URL or the content when absent.
    pub id: Option<String>,
    /// Its content.
    pub body: Body,
    /// Replaces the title found in the content.
    pub title: Option<String>,
    /// Where a reader finds the original.
    pub url: Option<String>,
    /// What filters ask for; added to what the content says of itself.
    pub metadata: Map<String, Value>,
    /// The file it comes from.
    pub source: Option<String>,
    /// When it ceases to be shown.
    pub expires_at: Option<UnixMillis>,
    /// The version that must be there; `Some(0)`: none must be.
    pub if_version: Option<u64>,
    /// What happens when the id is taken.
    pub conflict: Conflict,
}

/// A document's content.
#[derive(Debug, Clone)]
pub enum Body {
    /// Text in the given format.
    Text(String, MediaType),
    /// A file's bytes; the format is told by the name and the bytes.
    File {
        /// File name.
        name: String,
        /// Content.
        bytes: Vec<u8>,
    },
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new(), MediaType::Text)
    }
}

/// What happens to a document whose id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflict {
    /// It replaces the old one.
    #[default]
    Replace,
    /// The old one stays.
    Skip,
}

/// Why something cannot become a document.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot be parsed.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Its id is empty, too long or has control characters.
    #[error(
        "'{id}' cannot be the id of a document: expected 1 to {DOCUMENT_ID_BYTES_MAX} bytes without control characters"
    )]
    BadId {
        /// The id, shortened.
        id: String,
    },
    /// It holds nothing.
    #[error("there is no text in it")]
    Empty,
    /// It splits into too many passages.
    #[error("{found} passages, expected at most {PASSAGES_PER_DOCUMENT_MAX}; split the document")]
    TooManyPassages {
        /// How many there would be.
        found: usize,
    },
    /// A file with records where one document was expected.
    #[error("the file holds {found} records, expected one document; add it as a file (`cairn add`) instead")]
    ManyDocuments {
        /// How many it holds.
        found: usize,
    },
    /// A part of it does not fit into a record.
    #[error("{what} has {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size in bytes.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The metadata is too large.
    #[error("the metadata has {found} bytes, expected at most {METADATA_BYTES_MAX}")]
    MetadataTooLarge {
        /// Its size as JSON.
        found: usize,
    },
}

impl PrepareError {
    /// Always the caller's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Parse(error) => error.fault(),
            Self::BadId { .. }
            | Self::Empty
            | Self::TooManyPassages { .. }
            | Self::ManyDocuments { .. }
            | Self::TooLarge { .. }
            | Self::MetadataTooLarge { .. } => Fault::Caller,
        }
    }
}

/// The documents of a source.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) documents: Vec<NewDocument>,
    pub(super) warnings: Vec<String>,
}

/// What a source's documents remember of it: equal digests mean that nothing needs to be done.
pub(super) fn source_digest(
    source: &str,
    bytes: &[u8],
    metadata: &Map<String, Value>,
    collection: &CollectionInfo,
    config: &Config,
) -> Digest {
    let metadata = serde_json::to_vec(metadata).expect("JSON serialises");
    let sizes = sizes(config);
    Digest::of_parts([PREPARATION, &sizes, collection.model.as_bytes(), source.as_bytes(), &metadata, bytes])
}

fn sizes(config: &Config) -> Vec<u8> {
    format!("{}/{}", config.chunks.target_tokens, config.chunks.max_tokens).into_bytes()
}

/// Parses, splits and embeds every document of a source; none when it has no text.
pub(super) fn prepare_source(
    source: &str,
    bytes: &[u8],
    digest: Digest,
    metadata: &Map<String, Value>,
    collection: &CollectionInfo,
    embedder: &dyn Embedder,
    config: &Config,
) -> Result<Prepared, WriteError> {
    let nothing = || Prepared { documents: Vec::new(), warnings: Vec::new() };
    let media_type = match detect(source, bytes) {
        Err(ParseError::Empty) => return Ok(nothing()),
        detected => detected.map_err(PrepareError::from)?,
    };
    let parsed = match ingest::parse(&ingest::Source { name: source, media_type, bytes }, &config.limits) {
        Err(ParseError::Empty) => return Ok(nothing()),
        parsed => parsed.map_err(PrepareError::from)?,
    };
    let mut documents = Vec::with_capacity(parsed.documents.len());
    for document in parsed.documents {
        let id = match &document.record {
            Some(record) => format!("{source}#{record}"),
            None => source.to_owned(),
        };
        let input = DocumentInput {
            id: Some(id),
            source: Some(source.to_owned()),
            metadata: metadata.clone(),
            ..DocumentInput::default()
        };
        match assemble(input, document, collection, embedder, config) {
            Ok(mut new) => {
                new.source_digest = Some(digest);
                documents.push(new);
            }
            // What was in it before is not in it any more.
            Err(WriteError::Prepare(PrepareError::Empty)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Prepared { documents, warnings: parsed.warnings })
}

/// What a source is, by its name and its beginning.
fn detect(name: &str, bytes: &[u8]) -> Result<MediaType, ParseError> {
    MediaType::detect(name, &bytes[..bytes.len().min(HEAD_BYTES)])
}

/// Parses, splits and embeds one document.
pub(super) fn prepare(
    mut input: DocumentInput,
    collection: &CollectionInfo,
    embedder: &dyn Embedder,
    config: &Config,
) -> Result<NewDocument, WriteError> {
    let body = std::mem::take(&mut input.body);
    let (name, media_type, bytes) = match &body {
        Body::Text(text, media_type) => (input.id.as_deref().unwrap_or("text"), *media_type, text.as_bytes()),
        Body::File { name, bytes } => {
            (name.as_str(), detect(name, bytes).map_err(PrepareError::from)?, bytes.as_slice())
        }
    };
    let parsed =
        ingest::parse(&ingest::Source { name, media_type, bytes }, &config.limits).map_err(PrepareError::from)?;
    let mut documents = parsed.documents;
    let document = match (documents.pop(), documents.len()) {
        (Some(document), 0) => document,
        (None, _) => return Err(PrepareError::Empty.into()),
        (Some(_), others) => return Err(PrepareError::ManyDocuments { found: others + 1 }.into()),
    };
    if input.id.is_none() {
        input.id = Some(input.url.clone().unwrap_or_else(|| format!("doc-{}", &Digest::of(bytes).to_string()[..16])));
    }
    assemble(input, document, collection, embedder, config)
}

fn assemble(
    input: DocumentInput,
    document: ingest::Document,
    collection: &CollectionInfo,
    embedder: &dyn Embedder,
    config: &Config,
) -> Result<NewDocument, WriteError> {
    let id = input.id.unwrap_or_default();
    if id.is_empty() || id.len() > DOCUMENT_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(PrepareError::BadId { id: id.chars().take(60).collect() }.into());
    }
    bounded("the title", input.title.as_deref(), TITLE_BYTES_MAX)?;
    bounded("the url", input.url.as_deref(), URL_BYTES_MAX)?;
    // What the content says of itself is no reason to refuse it.
    let found = document.title.as_deref().map(|title| ingest::shorten(title, TITLE_BYTES_MAX));
    let title = input.title.or(found).unwrap_or_else(|| title_from(&id));
    let url = input.url.or_else(|| document.url.clone().filter(|url| url.len() <= URL_BYTES_MAX));
    let mut metadata = document.metadata.clone();
    metadata.extend(input.metadata);
    let metadata = serde_json::to_vec(&metadata).expect("JSON serialises");
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(PrepareError::MetadataTooLarge { found: metadata.len() }.into());
    }
    let chunks = ingest::chunk(&document, &config.chunks);
    if chunks.is_empty() {
        return Err(PrepareError::Empty.into());
    }
    if chunks.len() > PASSAGES_PER_DOCUMENT_MAX {
        return Err(PrepareError::TooManyPassages { found: chunks.len() }.into());
    }
    let model = embedder.info().name.clone();
    let language = language_of(&title, &document.text, document.media_type);
    let mut texts = Vec::with_capacity(chunks.len());
    for chunk in &chunks {
        let mut text = context(&title, &chunk.headings);
        text.push_str(". ");
        text.push_str(&ingest::plain(&chunk.text, document.media_type));
        texts.push(text);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let embeddings = embedder.embed(&texts, Purpose::Passage)?;
    let content_digest = {
        let expires = input.expires_at.map_or_else(String::new, |time| time.0.to_string());
        Digest::of_parts([
            PREPARATION,
            &sizes(config),
            model.as_bytes(),
            title.as_bytes(),
            url.as_deref().unwrap_or_default().as_bytes(),
            &metadata,
            document.media_type.as_str().as_bytes(),
            expires.as_bytes(),
            document.text.as_bytes(),
        ])
    };
    let new_chunks = chunks
        .into_iter()
        .zip(embeddings)
        .map(|(chunk, embedding)| {
            let digest = Digest::of_parts(
                [model.as_bytes(), title.as_bytes(), chunk.text.as_bytes()]
                    .into_iter()
                    .chain(chunk.headings.iter().map(String::as_bytes)),
            );
            NewChunk {
                range: chunk.range.start as u64..chunk.range.end as u64,
                page: chunk.page,
                body: Arc::new(ChunkBody {
                    digest,
                    headings: chunk.headings,
                    text: chunk.text,
                    language: language.code().to_owned(),
                    embedding: embedding.into_iter().map(f16::from_f32).collect(),
                }),
            }
        })
        .collect();
    Ok(NewDocument {
        collection: collection.id,
        id,
        title,
        url,
        metadata,
        source: input.source,
        source_digest: None,
        content_digest,
        media_type: document.media_type.as_str().to_owned(),
        expires_at: input.expires_at,
        if_version: input.if_version,
        unless_exists: input.conflict == Conflict::Skip,
        chunks: new_chunks,
    })
}

fn bounded(what: &'static str, given: Option<&str>, limit: usize) -> Result<(), PrepareError> {
    match given.map_or(0, str::len) {
        found if found > limit => Err(PrepareError::TooLarge { what, found, limit }),
        _ => Ok(()),
    }
}

/// What a passage is found by besides its text: `title > heading > heading`. Measured on documentation: worth 0.03 to
/// 0.05 nDCG@10 on each half.
pub(super) fn context(title: &str, headings: &[String]) -> String {
    let mut context = title.to_owned();
    for heading in headings {
        context.push_str(" > ");
        context.push_str(heading);
    }
    context
}

/// The last part of an id that looks like a path, without its extension.
fn title_from(id: &str) -> String {
    let name = id.rsplit('/').find(|part| !part.is_empty()).unwrap_or(id);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    stem.replace(['_', '-'], " ")
}

fn language_of(title: &str, text: &str, media_type: MediaType) -> Language {
    // Programs are written in English, whatever their comments are in; the detector would only guess.
    if media_type == MediaType::SourceCode {
        return Language::English;
    }
    let mut end = text.len().min(LANGUAGE_SAMPLE_BYTES * 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let plain = ingest::plain(&text[..end], media_type);
    Language::detect(&format!("{title}. {plain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_come_from_the_last_part_of_an_id() {
        for (id, title) in [
            ("guides/air-gap_install.md", "air gap install"),
            ("README", "README"),
            (".profile", ".profile"),
            ("https://example.org/a/b/", "b"),
        ] {
            assert_eq!(title_from(id), title);
        }
    }

    #[test]
    fn a_long_row_of_white_space_is_not_all_of_a_source() {
        let text = [&[b' '; 2 * HEAD_BYTES], &b"{\"a\": 1}"[..]].concat();
        assert_eq!(detect("a.json", &text).ok(), Some(MediaType::Json));
        assert!(matches!(detect("a.md", b" \n"), Err(ParseError::Empty)));
    }

    #[test]
    fn the_context_is_a_path() {
        assert_eq!(context("Backup", &["Restore".into(), "From S3".into()]), "Backup > Restore > From S3");
    }
}
