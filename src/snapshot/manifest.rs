#![doc = include_str!("FORMAT.md")]

use serde::{Deserialize, Serialize};

use crate::base::{Digest, Fault, Lsn, NodeId, UnixMillis};
use crate::store::Epoch;

/// Newest manifest format that this build reads, and the one it writes.
pub const FORMAT: u16 = 1;

const HEAD: &[u8] = b"{\"blake3\":\"";
const MIDDLE: &[u8] = b"\",\"manifest\":";
const TAIL: &[u8] = b"}\n";
const HEX: usize = 64;

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Requested by a user.
    Manual,
    /// The day's.
    Scheduled,
    /// The log since the last one, every minute; without canaries.
    Shipped,
}

impl Kind {
    /// As manifests and tables spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Scheduled => "scheduled",
            Self::Shipped => "shipped",
        }
    }
}

/// A stretch of the log's history; see [`Epoch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochEntry {
    /// Its random id, 16 hex digits.
    pub id: String,
    /// LSN of its first record.
    pub first: Lsn,
}

impl From<Epoch> for EpochEntry {
    fn from(epoch: Epoch) -> Self {
        Self { id: format!("{:016x}", epoch.id), first: epoch.first }
    }
}

/// A segment file of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentEntry {
    /// Name below `segments/`.
    pub file: String,
    /// LSN of its first record.
    pub first: Lsn,
    /// One past the last LSN it covers.
    pub end: Lsn,
    /// 0 for a segment as written; else when it was compacted. See [`crate::store::SealedSegment::as_of`].
    pub as_of: Lsn,
    /// The history in which it was written, 16 hex digits.
    pub epoch: String,
    /// Length in bytes before encryption.
    pub bytes: u64,
    /// BLAKE3 before encryption.
    pub blake3: String,
    /// Readable records.
    pub records: u64,
    /// When its first record was written.
    pub first_time: UnixMillis,
    /// When its last record was written.
    pub last_time: UnixMillis,
    /// Damaged places that were known at that time.
    pub damage: u64,
}

impl SegmentEntry {
    /// The digest, if the text is one.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.blake3.parse().ok()
    }
}

/// The counts of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionCount {
    /// Its name.
    pub name: String,
    /// Documents.
    pub documents: u64,
    /// Passages.
    pub passages: u64,
    /// Embedding model.
    pub model: String,
}

/// A query with the node's answer at the time of the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The collection asked.
    pub collection: String,
    /// The question.
    pub query: String,
    /// The best passages by meaning, best first.
    pub answers: Vec<CanaryAnswer>,
}

/// One passage of a canary's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryAnswer {
    /// Id of the document, `#` and the passage's number.
    pub id: String,
    /// Cosine similarity.
    pub score: f64,
}

/// A snapshot: which segment files make it, and what a restore of it must show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotManifest {
    /// [`FORMAT`].
    pub format: u16,
    /// `YYYYMMDDTHHMMSSZ-<last LSN>`.
    pub id: String,
    /// When it was taken.
    pub created: UnixMillis,
    /// Version of the program that took it.
    pub cairn: String,
    /// The node's id.
    pub node: String,
    /// Why it was taken.
    pub kind: Kind,
    /// LSN of the last record in it.
    pub last: Lsn,
    /// When that record was written.
    pub last_time: UnixMillis,
    /// The epochs of the log, oldest first.
    pub history: Vec<EpochEntry>,
    /// In LSN order, without gaps.
    pub segments: Vec<SegmentEntry>,
    /// The counts of the collections; `None` when writes were too frequent for counts of a single state.
    pub counts: Option<Vec<CollectionCount>>,
    /// The embedding models in use.
    pub models: Vec<String>,
    /// The node's settings as TOML.
    pub configuration: String,
    /// Nothing; release 0.1.0 wants the field.
    pub files: [(); 0],
    /// Damage that the node knew of.
    pub damage: Vec<String>,
    /// Questions with their answers.
    pub canaries: Vec<Canary>,
}

/// Why bytes are not a valid manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not those that were written.
    #[error("the manifest is damaged: its checksum does not match")]
    Damaged,
    /// A newer build wrote it.
    #[error("snapshot format {found} is newer than {FORMAT}, the newest this build reads")]
    FormatTooNew {
        /// Its format.
        found: u16,
    },
    /// A field contains something that no node writes: the file is foreign.
    #[error("{field} is '{}', expected {expected}", .found.escape_debug())]
    Field {
        /// Which one.
        field: &'static str,
        /// Its value.
        found: String,
        /// The expected form.
        expected: &'static str,
    },
    /// The bytes are those that were written, and no manifest.
    #[error("this is not a manifest")]
    Unreadable {
        /// The parser's error.
        source: serde_json::Error,
    },
}

impl ManifestError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Damaged | Self::Field { .. } | Self::Unreadable { .. } => Fault::Damage,
            Self::FormatTooNew { .. } => Fault::Environment,
        }
    }
}

impl SnapshotManifest {
    /// The file: JSON with the digest of the inner object in front of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        let digest = Digest::of(&body).to_string();
        [HEAD, digest.as_bytes(), MIDDLE, &body, TAIL].concat()
    }

    /// Reads a file that [`Self::encode`] made. Any byte that is not as written is detected.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u16,
        }
        let body = Self::body(bytes).ok_or(ManifestError::Damaged)?;
        let unreadable = |source| ManifestError::Unreadable { source };
        let Versioned { format: found } = serde_json::from_slice(body).map_err(unreadable)?;
        if found > FORMAT {
            return Err(ManifestError::FormatTooNew { found });
        }
        let manifest: Self = serde_json::from_slice(body).map_err(unreadable)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether everything that is used as a file name, or compared as an id, has the form that nodes use: the digest
    /// proves that nothing changed since it was written, but not who wrote it.
    fn check(&self) -> Result<(), ManifestError> {
        let refuse = |field, found: &str, expected| {
            Err(ManifestError::Field { field, found: found.chars().take(100).collect(), expected })
        };
        if !is_id(&self.id) {
            return refuse("id", &self.id, "a time and a position, such as 20260728T093000Z-1234");
        }
        if self.node.parse::<NodeId>().is_err() {
            return refuse("node", &self.node, "32 hex digits");
        }
        for segment in &self.segments {
            if !is_file_name(&segment.file) {
                return refuse("file", &segment.file, "the name of a segment file");
            }
            if segment.digest().is_none() {
                return refuse("blake3", &segment.blake3, "64 hex digits");
            }
        }
        Ok(())
    }

    /// The inner object, if all around it and its digest are right.
    fn body(bytes: &[u8]) -> Option<&[u8]> {
        let rest = bytes.strip_prefix(HEAD)?;
        let (digest, rest) = rest.split_at_checked(HEX)?;
        let body = rest.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
        // The fuzzers cannot guess digests.
        (cfg!(fuzzing) || Digest::of(body).to_string().as_bytes() == digest).then_some(body)
    }

    /// Bytes of all segments, before encryption.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The epochs as they were when `last` was the end of the log.
    pub(super) fn history_at(&self, last: Lsn) -> &[EpochEntry] {
        let count = self.history.iter().take_while(|epoch| epoch.first <= last).count();
        &self.history[..count]
    }
}

/// Whether a text is the id of a snapshot: `YYYYMMDDTHHMMSSZ-<position>`. Such a text is also a safe file name.
pub(super) fn is_id(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((stamp, position)) = text.split_once('-') else { return false };
    stamp.len() == 16
        && stamp.is_ascii()
        && digits(&stamp[..8])
        && stamp[8..].starts_with('T')
        && digits(&stamp[9..15])
        && stamp.ends_with('Z')
        && digits(position)
        && position.len() <= 20
}

/// Whether a text is the plain name of a segment file, wherever it is put together with a folder.
fn is_file_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    text.len() <= 128 && text.bytes().all(plain) && text.contains(".seg") && !text.starts_with('.')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn segment(first: u64, end: u64, as_of: u64) -> SegmentEntry {
        SegmentEntry {
            file: format!("{first:020}-{end}-{as_of}.seg"),
            first: Lsn(first),
            end: Lsn(end),
            as_of: Lsn(as_of),
            epoch: "a".to_owned(),
            bytes: 100 * (end - first),
            blake3: Digest::of(b"").to_string(),
            records: end - first,
            first_time: UnixMillis(first.cast_signed() * 1_000),
            last_time: UnixMillis((end - 1).cast_signed() * 1_000),
            damage: 0,
        }
    }

    pub(crate) fn manifest(epochs: &[(&str, u64)], segments: Vec<SegmentEntry>) -> SnapshotManifest {
        let last = Lsn(segments.last().map_or(0, |segment| segment.end.0 - 1));
        SnapshotManifest {
            format: FORMAT,
            id: format!("20260728T093000Z-{last}"),
            created: UnixMillis(last.0.cast_signed() * 1_000),
            cairn: "0.1.0".to_owned(),
            node: "00".repeat(16),
            kind: Kind::Manual,
            last,
            last_time: UnixMillis(last.0.cast_signed() * 1_000),
            history: epochs.iter().map(|(id, first)| EpochEntry { id: (*id).to_owned(), first: Lsn(*first) }).collect(),
            segments,
            counts: Some(vec![CollectionCount {
                name: "notes".to_owned(),
                documents: 1,
                passages: 2,
                model: "static".to_owned(),
            }]),
            models: vec!["static".to_owned()],
            configuration: "[node]\n".to_owned(),
            files: [],
            damage: Vec::new(),
            canaries: vec![Canary {
                collection: "notes".to_owned(),
                query: "the heron".to_owned(),
                answers: vec![CanaryAnswer { id: "a#0".to_owned(), score: 0.123_456_789 }],
            }],
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let written = manifest(&[("a", 1)], vec![segment(1, 9, 0)]);
        assert_eq!(SnapshotManifest::decode(&written.encode()).expect("readable"), written);
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_is_detected() {
        let bytes = manifest(&[("a", 1)], vec![segment(1, 9, 0)]).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SnapshotManifest::decode(&flipped), Err(ManifestError::Damaged)), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(SnapshotManifest::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        type Break = fn(&mut SnapshotManifest);
        let breaks: [(&str, Break); 8] = [
            ("../../evil", |manifest| manifest.id = "../../evil".to_owned()),
            ("/tmp/x-1", |manifest| manifest.id = "/tmp/x-1".to_owned()),
            ("20260728T093000Z-8/x", |manifest| manifest.id.push_str("/x")),
            ("\\u{1b}", |manifest| manifest.id.push('\u{1b}')),
            ("../log/1.seg", |manifest| manifest.segments[0].file = "../log/1.seg".to_owned()),
            (".seg", |manifest| manifest.segments[0].file = ".seg".to_owned()),
            ("blake3", |manifest| manifest.segments[0].blake3 = "../x".to_owned()),
            ("32 hex digits", |manifest| manifest.node = "..".to_owned()),
        ];
        for (shown, change) in breaks {
            let mut changed = manifest(&[("a", 1)], vec![segment(1, 9, 0)]);
            change(&mut changed);
            let error = SnapshotManifest::decode(&changed.encode()).expect_err(shown);
            assert!(matches!(error, ManifestError::Field { .. }), "{error}");
            assert!(error.to_string().contains(shown) && !error.to_string().contains('\u{1b}'), "{shown}: {error}");
        }
    }

    #[test]
    fn a_newer_manifest_is_refused_by_its_format() {
        let newer = SnapshotManifest { format: 2, ..manifest(&[("a", 1)], vec![segment(1, 9, 0)]) };
        let error = SnapshotManifest::decode(&newer.encode()).expect_err("refused");
        assert_eq!(error.to_string(), "snapshot format 2 is newer than 1, the newest this build reads");
    }
}
