//! Sealed segments as files that leave the data directory and come back: for snapshots and restores.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{RealDisk, replace_file};
use super::frame::{END_OF_BATCH, FORMAT, FRAME_HEADER, FrameHeader, HeaderCheck, SEGMENT_START, SegmentHeader, array};
use super::log::{Damage, Log, segment_path};
use crate::base::{Lsn, NodeId, UnixMillis};

/// A sealed segment file; immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// Where it is.
    pub path: PathBuf,
    /// LSN of its first record.
    pub first: Lsn,
    /// One past the last LSN it covers.
    pub end: Lsn,
    /// Length of the file.
    pub bytes: u64,
    /// [`Lsn::ZERO`] for a segment as written; else it was compacted and holds all records of `first..end` that were
    /// alive at `as_of`, so it is valid for the log's state at any LSN from there on.
    pub as_of: Lsn,
    /// The history in which it was written.
    pub epoch: u64,
    /// When it was begun.
    pub created: UnixMillis,
}

/// A stretch of the log's history. A restore starts a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Random.
    pub id: u64,
    /// LSN of its first record.
    pub first: Lsn,
}

/// What a segment file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The node that wrote it.
    pub node: NodeId,
    /// Its format.
    pub format: u16,
    /// LSN of its first record.
    pub first: Lsn,
    /// One past the last LSN it covers.
    pub end: Lsn,
    /// See [`SealedSegment::as_of`].
    pub as_of: Lsn,
    /// See [`SealedSegment::epoch`].
    pub epoch: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Readable frames.
    pub records: u64,
    /// When the first record was written.
    pub first_time: UnixMillis,
    /// When the last record was written.
    pub last_time: UnixMillis,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// What a walk over the frames met.
struct Walk {
    header: SegmentHeader,
    frames: Vec<(u64, FrameHeader)>,
    /// Where the readable frames end.
    end: u64,
    damage: Option<&'static str>,
}

fn walk(path: &Path) -> io::Result<(Walk, u64)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut start = [0; SEGMENT_START as usize];
    reader.read_exact(&mut start)?;
    let header = match SegmentHeader::check(&start) {
        HeaderCheck::Good { header, .. } => header,
        HeaderCheck::TooNew(found) => {
            return Err(io::Error::other(format!("segment format {found} is newer than {FORMAT}")));
        }
        HeaderCheck::Bad => return Err(io::Error::other("the segment header and its copy are damaged")),
    };
    let mut walk = Walk { header, frames: Vec::new(), end: SEGMENT_START, damage: None };
    let mut payload = vec![0; 64 << 10];
    while walk.end < bytes {
        let mut head = [0; FRAME_HEADER];
        let whole = reader.read_exact(&mut head).is_ok();
        let expected = header.first.0 + walk.frames.len() as u64;
        let frame = FrameHeader::parse(&head, header.salt).filter(|frame| whole && frame.lsn.0 == expected);
        let Some(frame) = frame else {
            walk.damage = Some("no valid frame header");
            break;
        };
        let mut left = frame.length() - FRAME_HEADER as u64;
        let (mut stored, mut crc) = (frame.stored as usize, 0);
        while left > 0 {
            let take = payload.len().min(left as usize);
            if reader.read_exact(&mut payload[..take]).is_err() {
                break;
            }
            crc = crc32c::crc32c_append(crc, &payload[..take.min(stored)]);
            stored -= take.min(stored);
            left -= take as u64;
        }
        if left > 0 || crc != frame.payload_crc {
            walk.damage = Some("payload checksum differs");
            break;
        }
        walk.frames.push((walk.end, frame));
        walk.end += frame.length();
    }
    Ok((walk, bytes))
}

/// Reads a segment file with every checksum.
///
/// # Errors
/// When it cannot be read, or neither copy of its header can be used.
pub fn check_segment(path: &Path) -> io::Result<SegmentReport> {
    let (walk, bytes) = walk(path)?;
    let damage = walk.damage.map(|what| Damage {
        path: path.to_owned(),
        offset: walk.end,
        length: bytes - walk.end,
        records: None,
        what,
    });
    let time = |frame: Option<&(u64, FrameHeader)>| frame.map_or(walk.header.created, |(_, frame)| frame.time);
    Ok(SegmentReport {
        node: walk.header.node,
        format: FORMAT,
        first: walk.header.first,
        end: Lsn(walk.header.first.0 + walk.frames.len() as u64),
        as_of: Lsn::ZERO,
        epoch: u64::from_le_bytes(walk.header.salt),
        bytes,
        records: walk.frames.len() as u64,
        first_time: time(walk.frames.first()),
        last_time: time(walk.frames.last()),
        damage: damage.into_iter().collect(),
    })
}

/// Last LSN in the file whose record was written at or before `time` and ends a batch.
///
/// # Errors
/// When the file cannot be read.
pub fn lsn_at(path: &Path, time: UnixMillis) -> io::Result<Option<Lsn>> {
    let (walk, _) = walk(path)?;
    let ends = walk.frames.iter().filter(|(_, frame)| frame.time <= time && frame.flags & END_OF_BATCH != 0);
    Ok(ends.last().map(|(_, frame)| frame.lsn))
}

/// Cuts a copied segment file after the last whole batch at or before `last`; returns the new last LSN.
///
/// # Errors
/// When the file cannot be read or written, or no batch ends at or before `last`.
pub fn cut_segment(path: &Path, last: Lsn) -> io::Result<Lsn> {
    let (walk, _) = walk(path)?;
    let cut = walk.frames.iter().rev().find(|(_, frame)| frame.lsn <= last && frame.flags & END_OF_BATCH != 0);
    let (offset, frame) = cut.ok_or_else(|| io::Error::other(format!("no batch ends at or before record {last}")))?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(offset + frame.length())?;
    file.seek(SeekFrom::End(0))?;
    file.sync_all()?;
    Ok(frame.lsn)
}

/// What the next open does.
#[derive(Serialize, Deserialize)]
struct Swap {
    id: String,
    staged: PathBuf,
}

fn journal(data_dir: &Path) -> PathBuf {
    data_dir.join("swap.json")
}

fn history_path(log_dir: &Path) -> PathBuf {
    log_dir.join("history.json")
}

/// Marks a directory with `log/` full of segments to become the node's data at the next open. The old log and views go
/// to `before-restore-<id>` in the data directory. A new epoch begins.
///
/// # Errors
/// When the journal cannot be written.
pub fn schedule_swap(data_dir: &Path, staged: &Path, id: &str) -> io::Result<()> {
    let log = staged.join("log");
    let mut last = Lsn::ZERO;
    for entry in fs::read_dir(&log)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            last = last.max(Lsn(check_segment(&path)?.end.0 - 1));
        }
    }
    let mut history: Vec<Epoch> = fs::read(history_path(&data_dir.join("log")))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    history.retain(|epoch| epoch.first <= last);
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    if history.is_empty() {
        let salt = check_segment(&segment_path(&log, Lsn(1)))?.epoch;
        history.push(Epoch { id: salt, first: Lsn(1) });
    }
    history.push(Epoch { id: u64::from_le_bytes(random), first: last.next() });
    replace_file(&RealDisk, &history_path(&log), &serde_json::to_vec(&history)?)?;
    let swap = Swap { id: id.to_owned(), staged: staged.to_owned() };
    replace_file(&RealDisk, &journal(data_dir), &serde_json::to_vec(&swap)?)
}

/// Carries out what [`schedule_swap`] wrote down, if anything. Rolls forward after a crash.
pub(super) fn carry_out_swap(data_dir: &Path) -> io::Result<()> {
    let bytes = match fs::read(journal(data_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    let Swap { id, staged } = serde_json::from_slice(&bytes)?;
    let old = data_dir.join(format!("before-restore-{id}"));
    if staged.join("log").exists() {
        fs::create_dir_all(&old)?;
        for name in ["log", "views"] {
            if data_dir.join(name).exists() && !old.join(name).exists() {
                fs::rename(data_dir.join(name), old.join(name))?;
            }
        }
        fs::rename(staged.join("log"), data_dir.join("log"))?;
    }
    File::open(data_dir)?.sync_all()?;
    fs::remove_file(journal(data_dir))?;
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    Ok(())
}

impl Log {
    pub(super) fn history(&self) -> Vec<Epoch> {
        let read = fs::read(history_path(&self.dir)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.unwrap_or_else(|| vec![Epoch { id: u64::from_le_bytes(array(&self.salt, 0)), first: Lsn(1) }])
    }

    pub(super) fn sealed_segments(&self) -> Vec<SealedSegment> {
        let history = self.history();
        let segments = self.segments.read();
        let nexts = segments.iter().skip(1).map(|segment| segment.first);
        let sealed = segments.iter().zip(nexts).map(|(segment, end)| SealedSegment {
            path: segment_path(&self.dir, segment.first),
            first: segment.first,
            end,
            bytes: segment.end,
            as_of: Lsn::ZERO,
            epoch: history.iter().rev().find(|epoch| epoch.first <= segment.first).map_or(0, |epoch| epoch.id),
            created: UnixMillis(0),
        });
        sealed.collect()
    }
}
