//! Metadata of a repository: its marker, and a note of each node that writes to it. Pure.
//!
//! The marker distinguishes this repository from an empty disk, from another one, and from anything else that answers
//! at an address. A note records what a node shipped last, so that even a machine without local state detects a missing
//! newest snapshot. Both are plain text in an encrypted repository: they contain ids and times.

use serde::{Deserialize, Serialize};

use super::manifest::is_id;
use crate::base::{NodeId, UnixMillis};

/// Name of the marker, in the root of the repository.
pub(super) const MARKER: &str = "repository.json";
/// Folder of the notes, `<node id>.json` each.
pub(super) const NOTES: &str = "nodes";
/// Newest format of both that this build reads, and the one it writes.
const FORMAT: u16 = 1;
/// Larger ones are none of ours.
pub(super) const BYTES_MAX: u64 = 64 << 10;

/// Why a file is not a marker or a note.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It is something else.
    #[error("it is not what Cairn writes there")]
    Content {
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A field holds what no node writes.
    #[error("its field {field} is '{}'", .found.escape_debug())]
    Field {
        /// Which one.
        field: &'static str,
        /// Its content.
        found: String,
    },
    /// A newer build wrote it.
    #[error("format {found} of the repository is newer than {FORMAT}, the newest this build reads")]
    FormatTooNew {
        /// Its format.
        found: u16,
    },
}

/// The marker of a repository. Never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u16,
    /// Random, 32 hex digits.
    pub(super) id: String,
    created: UnixMillis,
}

impl Marker {
    /// A marker with this id.
    pub(super) fn new(id: String, now: UnixMillis) -> Self {
        Self { format: FORMAT, id, created: now }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MarkerError> {
        let marker: Self = decode(bytes)?;
        match marker.id.parse::<NodeId>() {
            Ok(_) => Ok(marker),
            Err(_) => Err(MarkerError::Field { field: "id", found: marker.id.chars().take(100).collect() }),
        }
    }
}

/// A node's summary of its snapshots in the repository. Rewritten with every snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    format: u16,
    /// The node's id.
    pub(super) node: String,
    /// Name of its machine when it wrote this; empty in an encrypted repository.
    #[serde(default)]
    pub(super) host: String,
    /// Its newest snapshot: it is in the repository, or something removed it.
    pub(super) newest: String,
    written: UnixMillis,
}

impl Note {
    pub(super) fn new(node: String, host: String, newest: String, now: UnixMillis) -> Self {
        Self { format: FORMAT, node, host, newest, written: now }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MarkerError> {
        let note: Self = decode(bytes)?;
        let refuse = |field, found: &str| Err(MarkerError::Field { field, found: found.chars().take(100).collect() });
        match (note.node.parse::<NodeId>(), is_id(&note.newest)) {
            (Err(_), _) => refuse("node", &note.node),
            (_, false) => refuse("newest", &note.newest),
            (Ok(_), true) => Ok(note),
        }
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data");
    bytes.push(b'\n');
    bytes
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, MarkerError> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u16,
    }
    let content = |source| MarkerError::Content { source };
    let Versioned { format: found } = serde_json::from_slice(bytes).map_err(content)?;
    if found > FORMAT {
        return Err(MarkerError::FormatTooNew { found });
    }
    serde_json::from_slice(bytes).map_err(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_read_as_they_were_written_and_nothing_else_is() {
        let marker = Marker::new("0a".repeat(16), UnixMillis(5));
        assert_eq!(Marker::decode(&marker.encode()).expect("readable"), marker);
        let note = Note::new("0b".repeat(16), "weir".to_owned(), "20260728T093000Z-7".to_owned(), UnixMillis(6));
        assert_eq!(Note::decode(&note.encode()).expect("readable"), note);
        for other in ["", "{}", "<html></html>", "[]", r#"{"format":1}"#, r#"{"format":1,"id":"..","created":1}"#] {
            assert!(Marker::decode(other.as_bytes()).is_err(), "{other}");
        }
        let newer = String::from_utf8(marker.encode()).expect("text").replace("\"format\": 1", "\"format\": 2");
        let error = Marker::decode(newer.as_bytes()).expect_err("refused").to_string();
        assert_eq!(error, "format 2 of the repository is newer than 1, the newest this build reads");
        let elsewhere = Note { newest: "../x".to_owned(), ..note };
        assert!(Note::decode(&elsewhere.encode()).is_err());
    }
}
