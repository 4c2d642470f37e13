//! The settings of the log, section `[store]`.

use std::time::Duration;

use serde::Deserialize;

use crate::base::{ByteSize, setting};

/// The log's sizes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// Size at which a segment is sealed.
    #[serde(deserialize_with = "setting::size::<_, { 1 << 20 }>")]
    pub segment_bytes: ByteSize,
    /// Free space below which writes are refused.
    #[serde(deserialize_with = "setting::size::<_, 0>")]
    pub reserve_bytes: ByteSize,
    /// Maximum size of the log; 0 for no limit.
    #[serde(deserialize_with = "setting::size::<_, 0>")]
    pub max_bytes: ByteSize,
    /// Maximum bytes that compaction reads and writes each second; 0 for no limit.
    #[serde(deserialize_with = "setting::size::<_, 0>")]
    pub compaction_rate: ByteSize,
    /// How long deleted and replaced content may stay in the log's files; 0: until erasing it is worth the work.
    #[serde(deserialize_with = "setting::duration::<_, 0, { setting::ANY }>")]
    pub erase_within: Duration,
}
