//! Sealed segments as files that leave the data directory and return: for snapshots and restores.
//!
//! Invariants: a segment file never changes, it is only replaced by another one with the same name; so a hard link to
//! it is a copy. A restore is prepared next to the log and takes its place by renames that a journal makes atomic: the
//! next open finishes what was started.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile, RealDisk, checked_line, read_exact_at, replace_file, text_in};
use super::frame::{END_OF_BATCH, FORMAT, FRAME_HEADER, FrameHeader, HeaderCheck, Kinds, SEGMENT_START, SegmentHeader};
use super::frames::Frames;
use super::log::{Damage, HEADER_COPY_USED, Log, segment_end, segment_firsts, segment_path};
use super::segment::{self, BadRange, SegmentSpec, SparseScan, UNREADABLE};
use crate::base::{Clock, Lsn, NodeId, SystemClock, UnixMillis};

/// A sealed segment file; immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its path. Compaction may give the name to another file at any time: link it first, then check what was linked.
    pub path: PathBuf,
    /// LSN of its first record.
    pub first: Lsn,
    /// One past the last LSN it covers.
    pub end: Lsn,
    /// Length of the file.
    pub bytes: u64,
    /// [`Lsn::ZERO`] for an original segment; otherwise it was compacted and contains all records of `first..end` that
    /// were alive at `as_of`, so it is valid for the log's state at any LSN from there on.
    pub as_of: Lsn,
    /// The epoch in which it was written.
    pub epoch: u64,
    /// When it was started.
    pub created: UnixMillis,
}

/// A period of the log's history. A restore starts a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Random.
    pub id: u64,
    /// LSN of its first record.
    pub first: Lsn,
}

/// The content of a segment file.
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
    /// When the first record was written; the segment's creation when there is none.
    pub first_time: UnixMillis,
    /// When the last record was written; the segment's creation when there is none.
    pub last_time: UnixMillis,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// A segment file that was read from end to end.
struct Segment {
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
    spare: bool,
    bytes: u64,
    /// LSN and offset of each readable frame.
    frames: Vec<(Lsn, u64)>,
    damage: Vec<BadRange>,
}

impl Segment {
    fn read(path: &Path) -> io::Result<Self> {
        let file = RealDisk.open(path, false)?;
        let bytes = file.len()?;
        let mut start = [0; SEGMENT_START as usize];
        file.read_at(&mut start, 0)?;
        let (header, spare) = match SegmentHeader::check(&start) {
            HeaderCheck::Good { header, spare } => (header, spare),
            HeaderCheck::Unsupported(format) => return Err(invalid(format.to_string())),
            HeaderCheck::Bad => return Err(invalid("the segment header and its copy are damaged".to_owned())),
        };
        let end = header.compacted.map_or(Lsn(u64::MAX), |compacted| compacted.end);
        let (salt, first, next_segment) = (header.salt, header.first, Some(end));
        let spec = SegmentSpec { salt, kinds: Kinds::Records, first, next_segment, length: bytes };
        let whole = header.compacted.map(|compacted| compacted.bytes);
        let SparseScan { frames, damage, unknown } = segment::scan_compacted(&*file, &spec, whole)?;
        if let Some(unknown) = unknown {
            return Err(invalid(unknown.to_string()));
        }
        let Frames::Sparse { lsns, offsets, .. } = frames else {
            return Err(invalid("the segment has no frames".to_owned()));
        };
        let readable = lsns.into_iter().zip(offsets).filter(|(_, offset)| *offset != UNREADABLE);
        let frames =
            readable.map(|(lsn, offset)| (Lsn(header.first.0 + u64::from(lsn)), u64::from(offset) * 8)).collect();
        Ok(Self { file, header, spare, bytes, frames, damage })
    }

    fn header_at(&self, offset: u64) -> io::Result<FrameHeader> {
        let mut bytes = [0; FRAME_HEADER];
        read_exact_at(&*self.file, &mut bytes, offset)?;
        FrameHeader::parse(&bytes, self.header.salt).ok_or_else(|| invalid("a frame changed while it was read".into()))
    }

    /// The last frame that ends a batch and for which `is_before` is true; frames ascend in LSN.
    fn last_batch_end(&self, is_before: impl Fn(&FrameHeader) -> bool) -> io::Result<Option<(u64, FrameHeader)>> {
        for (_, offset) in self.frames.iter().rev() {
            let header = self.header_at(*offset)?;
            if header.flags & END_OF_BATCH != 0 && is_before(&header) {
                return Ok(Some((*offset, header)));
            }
        }
        Ok(None)
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The node whose records a data directory contains; `None` when it has none yet, or no header can be read. Reads only
/// the segments' headers, without the lock.
///
/// # Errors
/// When the log cannot be read.
pub fn data_node(data_dir: &Path) -> io::Result<Option<NodeId>> {
    let dir = data_dir.join("log");
    let names = match RealDisk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        names => names?,
    };
    let firsts = segment_firsts(&names);
    let is_more_than_one = firsts.len() > 1;
    for first in firsts {
        let file = match RealDisk.open(&segment_path(&dir, first), false) {
            // Compacted in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let (mut start, mut frame) = ([0; SEGMENT_START as usize], [0; FRAME_HEADER]);
        file.read_at(&mut start, 0)?;
        // The next segment is created before there is a record for it.
        let is_used = is_more_than_one || (file.read_at(&mut frame, SEGMENT_START)? > 0 && frame != [0; FRAME_HEADER]);
        if let (HeaderCheck::Good { header, .. }, true) = (SegmentHeader::check(&start), is_used) {
            return Ok(Some(header.node));
        }
    }
    Ok(None)
}

/// Reads a segment file with every checksum.
///
/// # Errors
/// When it cannot be read, neither copy of its header can be used, or it has a format, a kind of record or a flag that this release does
/// not know.
pub fn check_segment(path: &Path) -> io::Result<SegmentReport> {
    let segment = Segment::read(path)?;
    let header = &segment.header;
    let mut damage: Vec<Damage> = segment
        .damage
        .iter()
        .map(|bad| Damage {
            path: path.to_owned(),
            offset: bad.bytes.start,
            length: bad.bytes.end - bad.bytes.start,
            records: (!bad.lsns.is_empty() && bad.lsns.end != u64::MAX)
                .then(|| (Lsn(bad.lsns.start), Lsn(bad.lsns.end - 1))),
            what: bad.what,
        })
        .collect();
    if segment.spare {
        let (length, what) = (SEGMENT_START / 2, HEADER_COPY_USED);
        damage.push(Damage { path: path.to_owned(), offset: 0, length, records: None, what });
    }
    let time = |frame: Option<&(Lsn, u64)>| match frame {
        Some((_, offset)) => segment.header_at(*offset).map(|header| header.time),
        None => Ok(header.created),
    };
    let written_end = segment.frames.last().map_or(header.first, |(lsn, _)| lsn.next());
    Ok(SegmentReport {
        node: header.node,
        format: header.format,
        first: header.first,
        end: header.compacted.map_or(written_end, |compacted| compacted.end),
        as_of: header.compacted.map_or(Lsn::ZERO, |compacted| compacted.as_of),
        epoch: header.epoch,
        bytes: segment.bytes,
        records: segment.frames.len() as u64,
        first_time: time(segment.frames.first())?,
        last_time: time(segment.frames.last())?,
        damage,
    })
}

/// Last LSN in the file whose record was written at or before `time` and ends a batch.
///
/// # Errors
/// When the file cannot be read.
pub fn lsn_at(path: &Path, time: UnixMillis) -> io::Result<Option<Lsn>> {
    Ok(Segment::read(path)?.last_batch_end(|frame| frame.time <= time)?.map(|(_, frame)| frame.lsn))
}

/// Cuts a copied segment file after the last complete batch at or before `last`; returns the new last LSN. The file
/// must not be a hard link to one in a data directory or repository.
///
/// # Errors
/// When the file cannot be read or written, or no batch in it ends at or before `last`.
pub fn cut_segment(path: &Path, last: Lsn) -> io::Result<Lsn> {
    let segment = Segment::read(path)?;
    if segment.header.compacted.is_some() {
        return Err(invalid("a compacted segment cannot be cut".to_owned()));
    }
    let cut = segment.last_batch_end(|frame| frame.lsn <= last)?;
    let (offset, frame) = cut.ok_or_else(|| invalid(format!("no batch ends at or before record {last}")))?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(offset + frame.length())?;
    file.sync_all()?;
    Ok(frame.lsn)
}

/// The swap that the next open makes. Paths are relative to the data directory, which may be mounted elsewhere by then.
#[derive(Debug, Serialize, Deserialize)]
struct ScheduledSwap {
    staged: PathBuf,
    kept: PathBuf,
}

fn journal(data_dir: &Path) -> PathBuf {
    data_dir.join("swap.json")
}

/// Schedules a directory with a complete `log/` to become the node's data at the next open. The old log and views are
/// moved to `before-restore-<id>` in the data directory. A new epoch starts after the last record.
///
/// * `staged`: a directory inside `data_dir`, so that renames suffice.
///
/// # Errors
/// When the journal cannot be written, or the staged log cannot be read.
pub fn schedule_swap(data_dir: &Path, staged: &Path, id: &str) -> io::Result<()> {
    let relative = staged.strip_prefix(data_dir).map_err(|_| invalid(format!("{} is elsewhere", staged.display())))?;
    let log = staged.join("log");
    let last = segment_firsts(&RealDisk.list(&log)?).pop().ok_or_else(|| invalid("there is no segment".to_owned()))?;
    let segment = Segment::read(&segment_path(&log, last))?;
    if !segment.frames.is_empty() {
        let end = segment.frames.last().map_or(last, |(lsn, _)| lsn.next());
        let next = segment.header.compacted.map_or(end, |compacted| compacted.end);
        begin_epoch(&log, &segment.header, next)?;
    }
    let swap = ScheduledSwap { staged: relative.to_owned(), kept: format!("before-restore-{id}").into() };
    // A flipped bit in it would move the wrong directory.
    replace_file(&RealDisk, &journal(data_dir), checked_line(&serde_json::to_string(&swap)?).as_bytes())
}

/// Creates an empty segment of a new epoch after the restored segments.
fn begin_epoch(log: &Path, before: &SegmentHeader, first: Lsn) -> io::Result<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let header = SegmentHeader {
        format: FORMAT,
        first,
        created: SystemClock.now(),
        epoch: u64::from_le_bytes(random),
        compacted: None,
        ..*before
    };
    let file = RealDisk.create(&segment_path(log, first))?;
    file.write_at(&header.encode(), 0)?;
    file.sync_all()?;
    RealDisk.sync_dir(log)
}

/// Makes the swap that [`schedule_swap`] recorded, if any; also finishes one after a crash in the middle.
pub(super) fn carry_out_swap(data_dir: &Path) -> io::Result<()> {
    let bytes = match fs::read(journal(data_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    let Some(ScheduledSwap { staged, kept }) = text_in(&bytes).and_then(|text| serde_json::from_str(text).ok()) else {
        if data_dir.join("log").exists() {
            // The user can request the restore again; the node stays unchanged.
            return fs::rename(journal(data_dir), data_dir.join("swap.damaged"));
        }
        return Err(invalid(
            "a restore was interrupted and its journal swap.json is damaged: move the directory `log` from \
             before-restore-… back, remove swap.json, and restore again"
                .to_owned(),
        ));
    };
    let (staged, kept) = (data_dir.join(staged), data_dir.join(kept));
    if staged.join("log").exists() {
        RealDisk.create_dir(&kept)?;
        for name in ["log", "views"] {
            let (now, old, new) = (data_dir.join(name), kept.join(name), staged.join(name));
            if now.exists() && !old.exists() && (name == "views" || new.exists()) {
                fs::rename(&now, &old)?;
            }
        }
        if staged.join("views").exists() && !data_dir.join("views").exists() {
            fs::rename(staged.join("views"), data_dir.join("views"))?;
        }
        // Last: while it exists, the swap is not finished.
        fs::rename(staged.join("log"), data_dir.join("log"))?;
    }
    for directory in [&kept, data_dir, &staged] {
        if directory.exists() {
            File::open(directory)?.sync_all()?;
        }
    }
    fs::remove_file(journal(data_dir))?;
    File::open(data_dir)?.sync_all()?;
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    Ok(())
}

impl Log {
    pub(super) fn history(&self) -> Vec<Epoch> {
        let mut history: Vec<Epoch> = Vec::new();
        for segment in self.segments.read().iter() {
            if history.last().is_none_or(|last| last.id != segment.epoch) {
                history.push(Epoch { id: segment.epoch, first: segment.first });
            }
        }
        history
    }

    pub(super) fn sealed_segments(&self) -> Vec<SealedSegment> {
        let segments = self.segments.read();
        let sealed = segments.iter().zip(segments.iter().skip(1)).map(|(segment, next)| SealedSegment {
            path: segment_path(&self.dir, segment.first),
            first: segment.first,
            end: segment_end(segment, Some(next)),
            bytes: segment.end,
            as_of: segment.compacted.map_or(Lsn::ZERO, |compacted| compacted.as_of),
            epoch: segment.epoch,
            created: segment.created,
        });
        sealed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, open};
    use super::*;
    use crate::store::{NewCollection, Operation, WriteRequest};

    fn create(writer: &mut super::super::Writer, name: &str) {
        let new =
            NewCollection { name: name.to_owned(), description: String::new(), model: String::new(), dimensions: 3 };
        let request = WriteRequest { operations: vec![Operation::CreateCollection(new)], ..WriteRequest::default() };
        writer.commit(vec![request]).expect("committed");
    }

    fn names(data_dir: &Path) -> Vec<String> {
        let (writer, reader, report) = open(Config::new(data_dir.to_owned(), Arc::new(SystemClock))).expect("opened");
        assert_eq!(report.damage, []);
        let names = reader.collections().iter().map(|info| info.name.clone()).collect();
        writer.close().expect("closed");
        names
    }

    /// A directory with three collections, and next to it the first two staged for a restore.
    fn staged() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("made");
        let data_dir = directory.path().join("data");
        let (mut writer, reader, _) = open(Config::new(data_dir.clone(), Arc::new(SystemClock))).expect("opened");
        ["one", "two"].iter().for_each(|name| create(&mut writer, name));
        writer.seal().expect("sealed");
        create(&mut writer, "three");
        let sealed = reader.sealed_segments();
        assert_eq!(sealed.iter().map(|segment| (segment.first, segment.end)).collect::<Vec<_>>(), [(Lsn(1), Lsn(3))]);
        let log = data_dir.join("restore/x/log");
        fs::create_dir_all(&log).expect("made");
        fs::copy(&sealed[0].path, segment_path(&log, Lsn(1))).expect("copied");
        writer.close().expect("closed");
        drop(reader);
        (directory, data_dir)
    }

    #[test]
    fn a_scheduled_swap_is_carried_out_and_begins_a_new_history() {
        let (_directory, data_dir) = staged();
        schedule_swap(&data_dir, &data_dir.join("restore/x"), "x").expect("scheduled");
        assert_eq!(names(&data_dir), ["one", "two"]);
        assert!(!journal(&data_dir).exists() && !data_dir.join("restore/x").exists());
        let (_writer, reader, _) = open(Config::new(data_dir.clone(), Arc::new(SystemClock))).expect("opened");
        let history = reader.history();
        assert_eq!(history.iter().map(|epoch| epoch.first).collect::<Vec<_>>(), [Lsn(1), Lsn(3)]);
        assert_ne!(history[0].id, history[1].id);
        // The previous data can be restored by hand.
        assert_eq!(names(&data_dir.join("before-restore-x")), ["one", "two", "three"]);
    }

    /// Every state that a crash between two renames can leave.
    #[test]
    fn an_interrupted_swap_is_finished() {
        for moved in 0..4 {
            let (_directory, data_dir) = staged();
            schedule_swap(&data_dir, &data_dir.join("restore/x"), "x").expect("scheduled");
            let kept = data_dir.join("before-restore-x");
            fs::create_dir_all(&kept).expect("made");
            let steps =
                [("log", "before-restore-x/log"), ("views", "before-restore-x/views"), ("restore/x/log", "log")];
            for (from, to) in &steps[..moved] {
                fs::rename(data_dir.join(from), data_dir.join(to)).expect("moved");
            }
            assert_eq!(names(&data_dir), ["one", "two"], "after {moved} steps");
            assert_eq!(names(&kept), ["one", "two", "three"], "after {moved} steps");
        }
    }

    #[test]
    fn a_damaged_journal_leaves_the_node_as_it_was() {
        let (_directory, data_dir) = staged();
        schedule_swap(&data_dir, &data_dir.join("restore/x"), "x").expect("scheduled");
        let whole = fs::read(journal(&data_dir)).expect("read");
        for at in 0..whole.len() - 1 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(journal(&data_dir), flipped).expect("written");
            carry_out_swap(&data_dir).expect("set aside");
        }
        assert_eq!(names(&data_dir), ["one", "two", "three"]);
    }

    #[test]
    fn a_segment_is_cut_at_the_end_of_a_batch_and_checked() {
        let (_directory, data_dir) = staged();
        let path = segment_path(&data_dir.join("restore/x/log"), Lsn(1));
        let report = check_segment(&path).expect("read");
        assert_eq!((report.first, report.end, report.records, report.damage.len()), (Lsn(1), Lsn(3), 2, 0));
        assert_eq!(lsn_at(&path, report.last_time).expect("read"), Some(Lsn(2)));
        assert_eq!(lsn_at(&path, UnixMillis(report.first_time.0 - 1)).expect("read"), None);
        assert_eq!(cut_segment(&path, Lsn(1)).expect("cut"), Lsn(1));
        assert_eq!(check_segment(&path).expect("read").end, Lsn(2));
        let (bytes, whole) = (fs::read(&path).expect("read"), check_segment(&path).expect("read"));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, flipped).expect("written");
            // Padding after frames is never read, nor is the copy of a sound header.
            let is_told = |report: SegmentReport| {
                !report.damage.is_empty() || (report == whole && (at % 8 > 0 || (128..256).contains(&at)))
            };
            assert!(check_segment(&path).map_or(true, is_told), "byte {at}");
        }
    }
}
