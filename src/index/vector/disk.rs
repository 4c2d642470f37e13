//! What lies in the directory of an index, and how it gets there.
//!
//! ```text
//! manifest.json          which of the files below belong together; first line: BLAKE3 of the rest
//! vectors-<n>.bin        rows of f16, appended            written since generation n
//! keys-<n>.bin           rows of u64, appended
//! pieces-<n>.bin         u16, those of all rows one after the other, appended
//! ends-<n>.bin           rows of u64: where the pieces of the row end
//! alive-<n>.bin          one bit a row, as of checkpoint n
//! graph-<n>.bin          the graph, as saved by checkpoint n
//! journal-<n>.bin        one record a batch since checkpoint n
//! ```
//!
//! A journal record, numbers little endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | log position that the batch brings the index to |
//! | 8 | number of rows after the batch |
//! | 8 | vectors refused so far |
//! | 4 | number of removed row ranges, n |
//! | 16 n | start and end (exclusive) of each |
//! | 8 | the first bytes of BLAKE3 over the journal's number and the above |
//!
//! The journal is not synced: it serves a restart after the process ended, when the page cache is intact. After the
//! machine went down the index goes back to its last checkpoint.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::graph::GraphState;
use crate::base::{Digest, Lsn};

/// Version of the files of this module; others are not read but rebuilt.
const FORMAT: u32 = 3;
const MANIFEST: &str = "manifest.json";
const PREFIXES: [&str; 7] = ["vectors-", "keys-", "ends-", "pieces-", "alive-", "graph-", "journal-"];
const RECORD_HEAD: usize = 28;
const CHECK_BYTES: usize = 8;

/// The operating system returned an error.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct DiskError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl DiskError {
    pub(super) fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

/// An immutable file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    /// BLAKE3 in hex.
    digest: String,
}

impl Sealed {
    pub(super) fn new(digest: Digest) -> Self {
        Self { digest: digest.to_string() }
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest.parse().ok()
    }

    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        self.digest() == Some(Digest::of(bytes))
    }
}

/// A saved graph.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedGraph {
    /// The checkpoint that wrote it.
    pub(super) number: u64,
    pub(super) file: Sealed,
    pub(super) state: GraphState,
}

/// A checkpoint: which files belong together, and their content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VectorManifest {
    pub(super) format: u32,
    pub(super) dimensions: usize,
    /// Number of this checkpoint; also of its `alive` and `journal` files.
    pub(super) number: u64,
    /// Number of the matrix: the checkpoint that started it.
    pub(super) generation: u64,
    pub(super) applied: Lsn,
    pub(super) rows: usize,
    pub(super) skipped: u64,
    pub(super) vectors: Sealed,
    pub(super) keys: Sealed,
    pub(super) ends: Sealed,
    pub(super) pieces: Sealed,
    pub(super) alive: Sealed,
    pub(super) graph: Option<SealedGraph>,
}

impl VectorManifest {
    /// The state before the first record.
    pub(super) fn empty(dimensions: usize, number: u64) -> Self {
        let nothing = Sealed::new(Digest::of(&[]));
        Self {
            format: FORMAT,
            dimensions,
            number,
            generation: number,
            applied: Lsn::ZERO,
            rows: 0,
            skipped: 0,
            vectors: nothing.clone(),
            keys: nothing.clone(),
            ends: nothing.clone(),
            pieces: nothing.clone(),
            alive: nothing,
            graph: None,
        }
    }

    /// `None` when there is none, or it is damaged or from another build.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, DiskError> {
        let path = dir.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DiskError::of("read", &path)(error)),
        };
        let parsed = (|| {
            let line = text.iter().position(|byte| *byte == b'\n')?;
            let (digest, body) = (std::str::from_utf8(&text[..line]).ok()?, &text[line + 1..]);
            (digest == Digest::of(body).to_string()).then(|| serde_json::from_slice::<Self>(body).ok())?
        })();
        Ok(parsed.filter(|manifest| manifest.format == FORMAT))
    }

    /// Replaces the previous manifest. All files that it names are already on stable storage.
    pub(super) fn write(&self, dir: &Path) -> Result<(), DiskError> {
        let body = serde_json::to_vec_pretty(self).expect("numbers and strings become JSON");
        let mut text = format!("{}\n", Digest::of(&body)).into_bytes();
        text.extend(body);
        let (path, temporary) = (dir.join(MANIFEST), dir.join("manifest.json.new"));
        write_synced(&temporary, &text)?;
        std::fs::rename(&temporary, &path).map_err(DiskError::of("replace", &path))?;
        sync_dir(dir)
    }

    pub(super) fn path(dir: &Path, kind: &str, number: u64) -> PathBuf {
        dir.join(format!("{kind}-{number}.bin"))
    }

    fn names(&self, name: &str) -> bool {
        let graph = self.graph.iter().map(|graph| ("graph", graph.number));
        let files = ["vectors", "keys", "ends", "pieces"].map(|kind| (kind, self.generation));
        let files = files.into_iter().chain([("alive", self.number), ("journal", self.number)]).chain(graph);
        files.into_iter().any(|(kind, number)| name == format!("{kind}-{number}.bin"))
    }

    /// Removes files of this module that no manifest names. If that fails, it is retried at the next checkpoint.
    pub(super) fn sweep(&self, dir: &Path, keep: Option<u64>) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && name.ends_with(".bin");
            let kept = keep.is_some_and(|number| name.ends_with(&format!("-{number}.bin")));
            if ours && !kept && !self.names(name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// A number greater than that of any file of the module, so that a new file never reuses an old name.
    pub(super) fn next_number(dir: &Path) -> Result<u64, DiskError> {
        let number = |name: &str| name.strip_suffix(".bin")?.rsplit_once('-')?.1.parse::<u64>().ok();
        let mut greatest = 0;
        for entry in std::fs::read_dir(dir).map_err(DiskError::of("list", dir))? {
            let name = entry.map_err(DiskError::of("list", dir))?.file_name();
            // Other names are foreign.
            greatest = name.to_str().and_then(number).map_or(greatest, |number| number.max(greatest));
        }
        Ok(greatest.saturating_add(1))
    }
}

/// Writes a whole file and syncs it; its name is not synced yet.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut file = File::create(path).map_err(DiskError::of("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(DiskError::of("write", path))
}

/// Syncs the content of `path`.
pub(super) fn sync_file(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(DiskError::of("sync", path))
}

/// Syncs the names in `dir`.
pub(super) fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    sync_file(dir)
}

/// One batch in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) applied: Lsn,
    pub(super) rows: usize,
    pub(super) skipped: u64,
    pub(super) removed: Vec<Range<usize>>,
}

/// The batches since a checkpoint.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    number: u64,
    length: u64,
}

impl Journal {
    pub(super) fn create(dir: &Path, number: u64) -> Result<Self, DiskError> {
        let path = VectorManifest::path(dir, "journal", number);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        Ok(Self { file: file.map_err(DiskError::of("create", &path))?, path, number, length: 0 })
    }

    /// Opens a journal and reads its complete records; a last one that was cut off by the end of the process is
    /// dropped. `None` when the file does not exist.
    pub(super) fn open(dir: &Path, number: u64) -> Result<Option<(Self, Vec<Record>)>, DiskError> {
        let path = VectorManifest::path(dir, "journal", number);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DiskError::of("open", &path)(error)),
        };
        let bytes = std::fs::read(&path).map_err(DiskError::of("read", &path))?;
        let (mut records, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((record, after)) = decode(rest, number) {
            records.push(record);
            rest = after;
        }
        let length = (bytes.len() - rest.len()) as u64;
        file.set_len(length).map_err(DiskError::of("truncate", &path))?;
        Ok(Some((Self { file, path, number, length }, records)))
    }

    /// Appends a record. After an error nothing has changed: the next record is written at the same position.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), DiskError> {
        let bytes = encode(record, self.number);
        self.file.write_all_at(&bytes, self.length).map_err(DiskError::of("append to", &self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(DiskError::of("sync", &self.path))
    }
}

fn check(bytes: &[u8], number: u64) -> [u8; CHECK_BYTES] {
    let digest = Digest::of_parts([&number.to_le_bytes()[..], bytes]);
    *digest.0.first_chunk().expect("a digest is longer than a check")
}

fn encode(record: &Record, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_HEAD + record.removed.len() * 16 + CHECK_BYTES);
    bytes.extend(record.applied.0.to_le_bytes());
    bytes.extend((record.rows as u64).to_le_bytes());
    bytes.extend(record.skipped.to_le_bytes());
    let ranges = u32::try_from(record.removed.len()).expect("a batch has fewer than 2^32 ranges");
    bytes.extend(ranges.to_le_bytes());
    for range in &record.removed {
        bytes.extend((range.start as u64).to_le_bytes());
        bytes.extend((range.end as u64).to_le_bytes());
    }
    bytes.extend(check(&bytes, number));
    bytes
}

/// The first record of `bytes` and what follows it; `None` when it is cut off or damaged.
fn decode(bytes: &[u8], number: u64) -> Option<(Record, &[u8])> {
    let head = bytes.first_chunk::<RECORD_HEAD>()?;
    let number_at = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let ranges = u32::from_le_bytes(*head.last_chunk()?) as usize;
    let end = RECORD_HEAD.checked_add(ranges.checked_mul(16)?)?;
    if bytes.get(end..end.checked_add(CHECK_BYTES)?)? != check(&bytes[..end], number) {
        return None;
    }
    let row_at = |at: usize| usize::try_from(number_at(at)?).ok();
    let removed = (0..ranges).map(|i| Some(row_at(RECORD_HEAD + i * 16)?..row_at(RECORD_HEAD + i * 16 + 8)?));
    let record = Record {
        applied: Lsn(number_at(0)?),
        rows: row_at(8)?,
        skipped: number_at(16)?,
        removed: removed.collect::<Option<_>>()?,
    };
    Some((record, &bytes[end + CHECK_BYTES..]))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A journal cut at any byte, or with any byte changed, yields a prefix of its records.
        #[test]
        fn a_damaged_journal_yields_a_prefix(
            lsns in vec((any::<u64>(), 0_usize..1000, vec((0_usize..99, 0_usize..99), 0..4)), 1..8),
            cut: prop::sample::Index,
            flip: Option<(prop::sample::Index, u8)>,
        ) {
            let records: Vec<Record> = lsns.into_iter().map(|(lsn, rows, removed)| Record {
                applied: Lsn(lsn), rows, skipped: 3, removed: removed.into_iter().map(|(start, end)| start..end).collect(),
            }).collect();
            let mut bytes: Vec<u8> = records.iter().flat_map(|record| encode(record, 7)).collect();
            let whole = bytes.len();
            let mut intact = whole;
            if let Some((at, mask)) = flip {
                let at = at.index(whole);
                bytes[at] ^= mask;
                if mask != 0 { intact = at; }
            } else {
                bytes.truncate(cut.index(whole + 1));
                intact = bytes.len();
            }
            let (mut found, mut rest) = (Vec::new(), &bytes[..]);
            while let Some((record, after)) = decode(rest, 7) {
                found.push(record);
                rest = after;
            }
            prop_assert!(records.starts_with(&found));
            let mut end = 0;
            let expected = records.iter().take_while(|record| { end += encode(record, 7).len(); end <= intact }).count();
            prop_assert_eq!(found.len(), expected);
            prop_assert!(decode(&bytes, 8).is_none(), "records belong to one journal");
        }
    }
}
