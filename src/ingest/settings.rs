//! The settings of sources and passages, in section `[ingest]`.

use serde::Deserialize;

use super::{ChunkConfig, Limits};
use crate::base::{ByteSize, setting};

/// Limits of documents and passages.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// Largest source.
    #[serde(deserialize_with = "setting::size::<_, 1_024>")]
    pub source_bytes_max: ByteSize,
    /// The target size of a passage, in tokens.
    #[serde(deserialize_with = "setting::count::<_, 16, 512>")]
    pub passage_tokens: usize,
    /// The maximum size of a passage, in tokens.
    #[serde(deserialize_with = "setting::count::<_, 32, 512>")]
    pub passage_tokens_max: usize,
}

impl Settings {
    /// The limits of parsers.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let bytes = self.source_bytes_max.0;
        Limits { source_bytes_max: bytes, text_bytes_max: bytes, ..Limits::default() }
    }

    /// The sizes of passages.
    #[must_use]
    pub fn chunks(&self) -> ChunkConfig {
        ChunkConfig { target_tokens: self.passage_tokens, max_tokens: self.passage_tokens_max }
    }
}
