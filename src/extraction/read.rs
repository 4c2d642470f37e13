//! From the bytes of a source to its documents and their passages. Pure; the work of a child.

use serde_json::Value;

use super::wire::Order;
use super::{Document, Item, Passage};
use crate::index::analysis::Language;
use crate::ingest::{self, MediaType, ParseError, Parsed};

/// How much of a document's beginning is used to detect its language.
const LANGUAGE_SAMPLE_BYTES: usize = 2_000;
/// Longest title taken from the content, in bytes.
const TITLE_BYTES_MAX: usize = 1_000;
/// How much of a source's beginning is used to detect its format.
const HEAD_BYTES: usize = 8 << 10;

/// Reads a source. `emit` gets its items in order; items before an error must be discarded. Returns notes for the
/// person who added the source.
///
/// # Errors
/// [`ParseError`].
pub(super) fn read(order: &Order, bytes: Vec<u8>, mut emit: impl FnMut(&Item)) -> Result<Vec<String>, ParseError> {
    let given = order.title.as_deref().filter(|title| !title.trim().is_empty());
    let parsed = match (parse(order, &bytes), given) {
        (Err(ParseError::Empty), Some(title)) => {
            Parsed { documents: vec![ingest::Document::of_title(title, MediaType::Text)], warnings: Vec::new() }
        }
        // It has no documents; the caller decides whether that is an error.
        (Err(ParseError::Empty), None) => {
            emit(&Item::Source { documents: 0 });
            return Ok(Vec::new());
        }
        (parsed, _) => parsed?,
    };
    drop(bytes);
    emit(&Item::Source { documents: parsed.documents.len() as u64 });
    for mut document in parsed.documents {
        if let Some(title) = given {
            document.title = Some(title.to_owned());
        }
        // Invalid metadata in the content is not a reason to refuse it.
        let found = || document.title.as_deref().map(|title| ingest::shorten(title, TITLE_BYTES_MAX));
        let title = order.title.clone().or_else(found).unwrap_or_else(|| match &document.record {
            Some(record) => title_from(&format!("{}#{record}", order.id)),
            None => title_from(&order.id),
        });
        let language = language_of(&title, &document.text, document.media_type);
        let mut chunks = ingest::chunk(&document, &order.chunks);
        if chunks.is_empty()
            && let Some(title) = document.title.as_deref().filter(|title| !title.trim().is_empty())
        {
            // A title alone is a document too: bibliographies and product lists are full of them.
            chunks = ingest::chunk(&ingest::Document::of_title(title, document.media_type), &order.chunks);
        }
        emit(&Item::Document(Document {
            record: document.record.take(),
            title,
            url: document.url.take(),
            metadata: Value::Object(std::mem::take(&mut document.metadata)).to_string(),
            media_type: document.media_type.as_str().to_owned(),
            language: language.code().to_owned(),
            passages: chunks.len() as u64,
        }));
        let media_type = document.media_type;
        drop(document);
        for chunk in chunks {
            let plain = ingest::plain(&chunk.text, media_type);
            let plain = (plain != chunk.text).then(|| plain.into());
            emit(&Item::Passage(Passage {
                headings: chunk.headings,
                text: chunk.text,
                plain,
                start: chunk.range.start as u64,
                end: chunk.range.end as u64,
                page: chunk.page,
            }));
        }
    }
    Ok(parsed.warnings)
}

fn parse(order: &Order, bytes: &[u8]) -> Result<ingest::Parsed, ParseError> {
    let media_type = match order.media_type.as_deref().and_then(MediaType::from_mime) {
        Some(media_type) => media_type,
        None => detect(&order.name, bytes)?,
    };
    ingest::parse(&ingest::Source { name: &order.name, media_type, bytes }, &order.limits)
}

/// The format of a source, by its name and beginning.
fn detect(name: &str, bytes: &[u8]) -> Result<MediaType, ParseError> {
    MediaType::detect(name, &bytes[..bytes.len().min(HEAD_BYTES)])
}

/// The last part of an id that looks like a path, without its extension.
fn title_from(id: &str) -> String {
    let name = id.rsplit('/').find(|part| !part.is_empty()).unwrap_or(id);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    stem.replace(['_', '-'], " ")
}

fn language_of(title: &str, text: &str, media_type: MediaType) -> Language {
    // Programs are written in English, regardless of their comments; the detector would only guess.
    if media_type == MediaType::SourceCode {
        return Language::English;
    }
    let sample = &text[..text.floor_char_boundary(LANGUAGE_SAMPLE_BYTES * 2)];
    Language::detect(&format!("{title}. {}", ingest::plain(sample, media_type)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_long_row_of_white_space_is_not_all_of_a_source() {
        let text = [&[b' '; 2 * HEAD_BYTES], &b"{\"a\": 1}"[..]].concat();
        assert_eq!(detect("a.json", &text).ok(), Some(MediaType::Json));
        assert!(matches!(detect("a.md", b" \n"), Err(ParseError::Empty)));
    }

    fn passages(title: Option<&str>, name: &str, text: &str) -> Vec<String> {
        let order = Order {
            name: name.to_owned(),
            id: name.to_owned(),
            title: title.map(str::to_owned),
            media_type: None,
            limits: ingest::Limits::default(),
            chunks: ingest::ChunkConfig::default(),
            memory_bytes: u64::MAX,
            time: Duration::from_secs(60),
            length: text.len() as u64,
        };
        let mut found = Vec::new();
        read(&order, text.as_bytes().to_vec(), |item| {
            if let Item::Passage(passage) = item {
                found.push(passage.text.clone());
            }
        })
        .expect("text");
        found
    }

    #[test]
    fn a_document_with_a_title_and_no_text_is_its_title() {
        for (name, text) in
            [("a.md", ""), ("a.txt", " \n"), ("a.md", "---\nid: 7\n---\n"), ("a.md", "import x from 'y'\n")]
        {
            assert_eq!(passages(Some("Anchors"), name, text), ["Anchors"], "{text:?}");
            assert!(passages(None, name, text).is_empty(), "{text:?}");
            assert!(passages(Some(" "), name, text).is_empty(), "{text:?}");
        }
        assert_eq!(passages(Some("Anchors"), "a.md", "# Chains\n"), ["# Chains"]);
    }

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
}
