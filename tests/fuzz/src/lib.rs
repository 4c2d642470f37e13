//! What holds for every document, whatever it was read from.

use cairn::ingest::{Chunk, ChunkConfig, Document, Limits, MediaType, Source, TOKEN_BYTES_MAX, chunk, estimate_tokens, parse, plain};

/// Small, so that a fuzzer meets them.
fn limits() -> Limits {
    Limits { source_bytes_max: 1 << 20, text_bytes_max: 1 << 20, records_max: 2_000, pages_max: 50, ..Limits::default() }
}

/// A file's name, which is the first line, and its content.
pub fn named(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

/// Reads `bytes` as `media_type`, and checks what comes out.
pub fn read(media_type: MediaType, name: &str, bytes: &[u8]) {
    let Ok(parsed) = parse(&Source { name, media_type, bytes }, &limits()) else { return };
    for config in [ChunkConfig::default(), ChunkConfig { target_tokens: 8, max_tokens: 16 }] {
        for document in &parsed.documents {
            check(document, &chunk(document, &config), &config);
        }
    }
}

fn check(document: &Document, chunks: &[Chunk], config: &ChunkConfig) {
    let mut end = 0;
    for chunk in chunks {
        assert!(chunk.range.start >= end, "passages overlap");
        end = chunk.range.end;
        assert!(chunk.text.ends_with(&document.text[chunk.range.clone()]), "a range addresses the text");
        assert!(chunk.text.len() <= config.max_tokens * TOKEN_BYTES_MAX, "a passage has too many bytes");
        assert!(!chunk.text.trim().is_empty(), "an empty passage");
        assert!(estimate_tokens(&chunk.text) <= config.max_tokens, "a passage is too long: {:?}", chunk.text);
        let plain = plain(&chunk.text, document.media_type);
        assert!(plain.len() <= 2 * chunk.text.len() + 64, "plain text grows: {plain:?}");
    }
    let mut at = 0;
    for page in &document.pages {
        assert!(page.range.start >= at && page.range.end <= document.text.len(), "pages address the text");
        at = page.range.end;
    }
}
