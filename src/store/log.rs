//! The log: all segments of a data directory, read by LSN.
//!
//! Invariants: what is visible here is durable; a position is one array lookup away; every returned byte has passed its
//! checksum. Damage is listed and skipped, never repaired here: `doctor` repairs it from a snapshot. [`load`] opens the
//! log, [`super::append`] writes it.

mod load;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::dead::DeadRecords;
use super::disk::{Disk, DiskFile, is_out_of_files, read_exact_at, read_file, replace_file, side_by_side};
use super::frame::{
    Compacted, FORMAT, FRAME_HEADER, FrameHeader, Kinds, PAYLOAD_MAX, SEGMENT_START, Salt, SegmentHeader, UnknownFrame,
    ZSTD,
};
use super::frames::{Frames, Slot};
use super::segment;
use crate::base::{Lsn, NodeId, UnixMillis};

pub use self::load::data_format;
pub(crate) use self::load::{Opening, Tail};

/// Damage beyond this many places is not counted: the list is for people, and the first places are enough.
const DAMAGE_MAX: usize = 1000;
/// Maximum size of the damage list that is stored for the next start.
const DAMAGE_BYTES_MAX: u64 = 1 << 20;
/// Sealed segments kept open; 64 MiB each, so a log of 16 GiB never opens a file twice.
const OPEN_FILES_MAX: usize = 256;
/// Longest time between looking up a record and reading it: a request's, generously. Tests wait for it.
const RETIRED_FOR: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 60 });
/// The damage of a segment whose header has a sound copy: every record in it is readable.
pub(crate) const HEADER_COPY_USED: &str = "segment header damaged, its copy is used";
/// The damage of a segment whose file is not there.
pub(crate) const SEGMENT_MISSING: &str = "segment missing";
/// Index files are four or eight bytes a frame; this is far above any segment's.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// A part of the log whose bytes differ from what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where the damage begins, in bytes.
    pub offset: u64,
    /// How many bytes are unusable; 0 when they are missing.
    pub length: u64,
    /// First and last affected record, if any.
    pub records: Option<(Lsn, Lsn)>,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at byte {}, {} bytes", self.path.display(), self.what, self.offset, self.length)?;
        match self.records {
            Some((first, last)) => write!(f, ", records {first} to {last}"),
            None => Ok(()),
        }
    }
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The record does not exist yet.
    #[error("record {lsn} does not exist, the last one is {last}")]
    Missing {
        /// The requested record.
        lsn: Lsn,
        /// The end of the log.
        last: Lsn,
    },
    /// The records are known to be damaged; `Reader::damage` lists the places.
    #[error("records {first} to {last} are damaged or missing")]
    Lost {
        /// The first of them.
        first: Lsn,
        /// The last of them.
        last: Lsn,
    },
    /// The record was dead and compaction dropped it.
    #[error("record {lsn} was replaced or deleted, and is no longer in the log")]
    Gone {
        /// The requested record.
        lsn: Lsn,
    },
    /// The record was found damaged.
    #[error("{path}: record {lsn} at byte {offset}: {what}")]
    Damaged {
        /// The requested record.
        lsn: Lsn,
        /// The segment.
        path: PathBuf,
        /// Where its frame begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The record is of another kind, so the caller's LSN is not from this log.
    #[error("record {lsn} is of kind {found}, expected kind {expected}")]
    Kind {
        /// The requested record.
        lsn: Lsn,
        /// Its kind; see `FORMAT.md`.
        found: u8,
        /// The requested kind.
        expected: u8,
    },
    /// A newer release wrote the record. It is not damaged: that release reads it.
    #[error("{path}: {unknown}")]
    Unknown {
        /// The segment.
        path: PathBuf,
        /// The record.
        unknown: UnknownFrame,
    },
    /// The disk failed.
    #[error("cannot read {path}")]
    Io {
        /// The segment.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The catalog failed.
    #[error("cannot read the catalog")]
    Catalog {
        /// The underlying error.
        #[from]
        source: super::CatalogError,
    },
}

impl ReadError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> crate::base::Fault {
        use crate::base::Fault;
        match self {
            Self::Missing { .. } | Self::Gone { .. } | Self::Kind { .. } => Fault::Caller,
            Self::Lost { .. } | Self::Damaged { .. } => Fault::Damage,
            Self::Io { .. } | Self::Unknown { .. } => Fault::Environment,
            Self::Catalog { source } => source.fault(),
        }
    }

    /// Whether it makes sense to continue reading after this record.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Gone { .. } | Self::Damaged { .. } | Self::Kind { .. } | Self::Missing { .. } => {
                true
            }
            Self::Io { .. } | Self::Unknown { .. } | Self::Catalog { .. } => false,
        }
    }
}

/// A frame with valid checksums.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) payload: Vec<u8>,
}

/// A frame as it is stored: header and payload, both with valid checksums.
pub(crate) struct StoredFrame {
    pub(crate) header: FrameHeader,
    pub(crate) bytes: Vec<u8>,
}

/// A segment.
pub(crate) struct Segment {
    pub(crate) first: Lsn,
    pub(crate) format: u16,
    pub(crate) salt: Salt,
    pub(crate) epoch: u64,
    pub(crate) created: UnixMillis,
    pub(crate) compacted: Option<Compacted>,
    /// Where its frames end.
    pub(crate) end: u64,
    pub(crate) frames: Frames,
    /// Its open file, once another file may have its name: readers must not use these offsets with that one.
    pub(crate) pinned: Option<Arc<dyn DiskFile>>,
}

/// A segment that compaction replaced, kept for readers that looked up a record before.
struct RetiredSegment {
    segment: Segment,
    /// One past its last LSN.
    next: Lsn,
    since: Instant,
}

/// Where a frame is.
struct Location {
    segment: Lsn,
    salt: Salt,
    offset: u64,
    /// Upper bound of its length, exact unless its neighbour is damaged.
    length: u64,
    file: Option<Arc<dyn DiskFile>>,
}

/// A record that the disk cannot read.
pub(crate) struct UnreadableRecord {
    lsn: Lsn,
    location: Location,
    pub(crate) error: ReadError,
}

impl Location {
    /// Whether another lookup finds the record elsewhere.
    fn is(&self, other: &Self) -> bool {
        self.segment == other.segment && self.offset == other.offset && self.file.is_some() == other.file.is_some()
    }
}

/// See the module documentation.
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    kinds: Kinds,
    pub(crate) node: NodeId,
    pub(crate) salt: Salt,
    /// Epoch of new segments.
    pub(crate) epoch: u64,
    /// In LSN order, never empty; the last one is active.
    pub(crate) segments: RwLock<Vec<Segment>>,
    /// The first record that should exist; earlier ones were cut on purpose.
    begin: AtomicU64,
    pub(crate) last: AtomicU64,
    announced: watch::Sender<Lsn>,
    files: Mutex<HashMap<Lsn, Arc<dyn DiskFile>>>,
    damage: Mutex<Vec<Damage>>,
    /// The record that the disk failed to read most recently.
    failing: Mutex<Option<Lsn>>,
    retired: Mutex<Vec<RetiredSegment>>,
    /// The statistics that compaction uses.
    pub(crate) dead: Mutex<DeadRecords>,
    decompressors: Mutex<Vec<zstd::bulk::Decompressor<'static>>>,
}

/// File of the segment that starts with `first`.
pub(crate) fn segment_path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:020}.seg", first.0))
}

fn index_path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:020}.idx", first.0))
}

/// Removes a segment with its index file.
pub(crate) fn remove_segment(disk: &dyn Disk, dir: &Path, first: Lsn) -> io::Result<()> {
    // An index file without its segment is never read.
    let _ = disk.remove(&index_path(dir, first));
    disk.remove(&segment_path(dir, first))
}

/// LSNs of the segment files in `names`; other files are ignored.
pub(crate) fn segment_firsts(names: &[String]) -> Vec<Lsn> {
    let digits = names.iter().filter_map(|name| name.strip_suffix(".seg")).filter(|digits| digits.len() == 20);
    let mut firsts: Vec<Lsn> = digits.filter_map(|digits| digits.parse().ok().map(Lsn)).collect();
    firsts.sort_unstable();
    firsts
}

impl Log {
    /// Creates the file of a new segment, durable with its name.
    pub(crate) fn create_segment(&self, first: Lsn, now: UnixMillis) -> io::Result<Arc<dyn DiskFile>> {
        let path = segment_path(&self.dir, first);
        let file = self.disk.create(&path)?;
        let header = self.new_header(first, now);
        file.write_at(&header.encode(), 0)?;
        // A name without a header is not a segment yet, and neither is a header without its name.
        let (named, written) = side_by_side(|| self.disk.sync_dir(&self.dir), || file.sync_all());
        written.and(named)?;
        Ok(file)
    }

    fn new_header(&self, first: Lsn, now: UnixMillis) -> SegmentHeader {
        let (node, salt, epoch) = (self.node, self.salt, self.epoch);
        SegmentHeader { format: FORMAT, node, first, created: now, salt, epoch, compacted: None }
    }

    /// Makes a newly created segment the active one.
    pub(crate) fn start_segment(&self, first: Lsn, now: UnixMillis) {
        self.segments.write().push(Segment {
            first,
            format: FORMAT,
            salt: self.salt,
            epoch: self.epoch,
            created: now,
            compacted: None,
            end: SEGMENT_START,
            frames: Frames::Dense(Vec::new()),
            pinned: None,
        });
    }

    /// Writes the index of a sealed segment. A failure or a crash only makes the next start scan that segment, so
    /// errors are ignored and nothing is synced.
    pub(crate) fn write_index(&self, first: Lsn, length: u64, frames: &Frames) {
        if frames.is_damaged() {
            return;
        }
        let path = index_path(&self.dir, first);
        let _ = self.disk.remove(&path);
        let bytes = segment::encode_index(self.node, first, length, frames);
        let _ = self.disk.create(&path).and_then(|file| file.write_at(&bytes, 0));
    }

    /// LSN of the last record.
    pub(crate) fn last(&self) -> Lsn {
        Lsn(self.last.load(Ordering::Acquire))
    }

    /// LSN of the first record that should exist.
    pub(crate) fn first_lsn(&self) -> Lsn {
        Lsn(self.begin.load(Ordering::Acquire))
    }

    /// First record of the segment that is being written.
    pub(crate) fn active_first(&self) -> Lsn {
        self.segments.read().last().expect("never empty").first
    }

    /// One past the last record of the sealed segments whose records are all before `before`; the first record that should
    /// exist when there are none.
    pub(crate) fn sealed_before(&self, before: Lsn) -> Lsn {
        let segments = self.segments.read();
        let ends = segments.iter().skip(1).map(|segment| segment.first);
        // What is missing in front of the first segment was not cut, and remains missing.
        ends.take_while(|end| *end <= before).last().map_or(self.first_lsn(), |end| end.max(self.first_lsn()))
    }

    /// Forgets the segments before `begin`, which must be the start of a segment, and removes their files.
    pub(crate) fn cut_front(&self, begin: Lsn) -> io::Result<()> {
        self.begin.store(begin.0, Ordering::Release);
        let gone: Vec<Lsn> = {
            let mut segments = self.segments.write();
            let at = segments.partition_point(|segment| segment.first < begin);
            segments.drain(..at).map(|segment| segment.first).collect()
        };
        for first in gone {
            self.files.lock().remove(&first);
            remove_segment(&*self.disk, &self.dir, first)?;
        }
        self.disk.sync_dir(&self.dir)
    }

    /// Announces the last record to followers. About 100 ns while none of them waits.
    pub(crate) fn announce(&self) {
        let last = self.last();
        self.announced.send_if_modified(|announced| std::mem::replace(announced, last) != last);
    }

    /// The positions that are announced from now on, and the last one before.
    pub(crate) fn positions(&self) -> watch::Receiver<Lsn> {
        self.announced.subscribe()
    }

    /// Bytes of all segments, without reserved space.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.read().iter().map(|segment| segment.end).sum()
    }

    /// Damage found so far, at most [`DAMAGE_MAX`] places, and what the disk cannot read now.
    pub(crate) fn damage(&self) -> Vec<Damage> {
        let mut all = self.damage.lock().clone();
        all.extend(self.unreadable_record().map(|UnreadableRecord { lsn, location, .. }| Damage {
            path: segment_path(&self.dir, location.segment),
            offset: location.offset,
            length: location.length,
            records: Some((lsn, lsn)),
            what: "the disk does not read it",
        }));
        all
    }

    /// Whether records are damaged or missing, as far as it is known.
    pub(crate) fn has_lost_records(&self) -> bool {
        self.damage.lock().iter().any(|damage| damage.what != HEADER_COPY_USED)
    }

    /// Segments with damage that makes records unreadable, by their first records, as far as it is known.
    pub(crate) fn damaged_segments(&self) -> BTreeSet<Lsn> {
        let damage = self.damage.lock();
        let is_unreadable = |damage: &&Damage| ![HEADER_COPY_USED, SEGMENT_MISSING].contains(&damage.what);
        let names: Vec<String> = damage
            .iter()
            .filter(is_unreadable)
            .filter_map(|damage| Some(damage.path.file_name()?.to_str()?.to_owned()))
            .collect();
        segment_firsts(&names).into_iter().collect()
    }

    /// Stores which records are known to be damaged for the next start, which reads index files where they exist and
    /// would not notice them. If this fails, the next start lacks that knowledge until one of the records is read.
    pub(crate) fn note_damage(&self) {
        let ranges: Vec<(u64, u64)> = self
            .damage
            .lock()
            .iter()
            .filter_map(|damage| damage.records.map(|(first, last)| (first.0, last.0)))
            .collect();
        let path = self.damage_path();
        if ranges.is_empty() {
            let _ = self.disk.remove(&path);
        } else if let Ok(bytes) = serde_json::to_vec(&ranges) {
            let _ = replace_file(&*self.disk, &path, &bytes);
        }
    }

    /// Checks whether damage found by an earlier run still exists.
    pub(crate) fn recall_damage(&self) {
        let bytes = read_file(&*self.disk, &self.damage_path(), DAMAGE_BYTES_MAX).unwrap_or_default();
        let ranges: Vec<(u64, u64)> = serde_json::from_slice(&bytes).unwrap_or_default();
        let last = self.last().0;
        let lsns = ranges.into_iter().flat_map(|(first, end)| first..=end.min(last));
        for lsn in lsns.take(DAMAGE_MAX) {
            // Reading adds it to the list.
            let _ = self.read(Lsn(lsn));
        }
    }

    fn damage_path(&self) -> PathBuf {
        self.dir.with_file_name("views").join("damage.json")
    }

    /// What the disk failed to read last; `None` when a retry succeeds.
    pub(crate) fn unreadable_record(&self) -> Option<UnreadableRecord> {
        let lsn = (*self.failing.lock())?;
        if let (Ok(location), Err(error @ ReadError::Io { .. })) = (self.locate(lsn), self.read(lsn)) {
            return Some(UnreadableRecord { lsn, location, error });
        }
        self.failing.lock().take_if(|failing| *failing == lsn);
        None
    }

    fn report(&self, damage: Damage) {
        let mut list = self.damage.lock();
        if list.len() < DAMAGE_MAX && !list.contains(&damage) {
            list.push(damage);
        }
    }

    fn locate(&self, lsn: Lsn) -> Result<Location, ReadError> {
        let last = self.last();
        if lsn == Lsn::ZERO || lsn > last {
            return Err(ReadError::Missing { lsn, last });
        }
        let lost = ReadError::Lost { first: lsn, last: lsn };
        {
            let segments = self.segments.read();
            // With the segments locked: a cut that removed some of them has moved the first record before.
            if lsn < self.first_lsn() {
                return Err(ReadError::Gone { lsn });
            }
            let Some(segment) = segments.partition_point(|segment| segment.first <= lsn).checked_sub(1) else {
                return Err(lost);
            };
            match locate_in(&segments[segment], lsn) {
                Ok(location) => return Ok(location),
                Err(Slot::Absent) => {}
                Err(Slot::Unreadable | Slot::At { .. }) => return Err(lost),
            }
        }
        let retired = self.retired.lock();
        let old = retired.iter().rev().find(|old| old.segment.first <= lsn && lsn < old.next);
        old.and_then(|old| locate_in(&old.segment, lsn).ok()).ok_or(ReadError::Gone { lsn })
    }

    /// Whether a record is known to be unreadable; undiscovered damage does not count.
    pub(crate) fn is_lost(&self, lsn: Lsn) -> bool {
        self.locate(lsn).is_err()
    }

    /// The first readable record at or after `lsn`; one past the end of the log when there is none.
    pub(crate) fn next_readable(&self, lsn: Lsn) -> Lsn {
        let end = self.last().next();
        let segments = self.segments.read();
        let at = segments.partition_point(|segment| segment.first <= lsn).saturating_sub(1);
        let mut found = segments[at..].iter().filter_map(|segment| segment.frames.next_readable(segment.first, lsn));
        found.next().map_or(end, |lsn| lsn.min(end))
    }

    /// First and last of the records from `from` on and before `to` that are damaged or missing, other than by compaction.
    pub(crate) fn lost_between(&self, from: Lsn, to: Lsn) -> Option<(Lsn, Lsn)> {
        let segments = self.segments.read();
        let at = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
        let mut found: Option<(Lsn, Lsn)> = None;
        let mut add = |first: Lsn, last: Lsn| {
            let (low, high) = found.unwrap_or((first, last));
            found = Some((low.min(first), high.max(last)));
        };
        let mut next = from;
        for (index, segment) in segments.iter().enumerate().skip(at).take_while(|(_, segment)| segment.first < to) {
            if next < segment.first {
                add(next, Lsn(segment.first.0 - 1));
            }
            if let Some((first, last)) = segment.frames.lost_in(segment.first, &(from.0..to.0)) {
                add(first, last);
            }
            next = next.max(segment_end(segment, segments.get(index + 1)));
        }
        if next < to {
            add(next, Lsn(to.0 - 1));
        }
        found
    }

    /// Whether a segment starts with this record.
    pub(crate) fn has_segment(&self, first: Lsn) -> bool {
        self.segments.read().binary_search_by_key(&first, |segment| segment.first).is_ok()
    }

    /// The segment that contains a record, and the bytes of its frame; `None` when it is not readable there.
    pub(crate) fn extent(&self, lsn: Lsn) -> Option<(Lsn, u64)> {
        let segments = self.segments.read();
        let segment = &segments[segments.partition_point(|segment| segment.first <= lsn).checked_sub(1)?];
        let location = locate_in(segment, lsn).ok()?;
        Some((segment.first, location.length))
    }

    /// Closes the segments that were replaced long enough ago; their space is freed with their last reader. Returns the
    /// time until the next one can be closed; `None` when none is left.
    pub(crate) fn drop_retired(&self) -> Option<Duration> {
        let (old, left) = {
            let mut retired = self.retired.lock();
            let (old, kept): (Vec<_>, Vec<_>) =
                retired.drain(..).partition(|segment| segment.since.elapsed() >= RETIRED_FOR);
            *retired = kept;
            (old, retired.iter().map(|segment| RETIRED_FOR.saturating_sub(segment.since.elapsed())).min())
        };
        // Without the lock: closing a file that has no name any more takes as long as freeing its space.
        drop(old);
        left
    }

    #[cfg(test)]
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.lock().is_empty()
    }

    /// Keeps readers of these segments on their current files. Called before other files get their names. A segment
    /// that is already pinned stays so, because after a failure its name may belong to another file.
    pub(crate) fn pin(&self, firsts: &[Lsn]) -> io::Result<()> {
        for first in firsts {
            let file = self.disk.open(&segment_path(&self.dir, *first), false)?;
            let mut segments = self.segments.write();
            if let Some(segment) = segments.iter_mut().find(|segment| segment.first == *first) {
                segment.pinned.get_or_insert(file);
            }
        }
        Ok(())
    }

    /// Replaces adjacent segments with a compacted one.
    pub(crate) fn replace(&self, firsts: &[Lsn], segment: Segment) {
        let end = segment.compacted.expect("it is compacted").end;
        let mut segments = self.segments.write();
        let at = segments.partition_point(|other| other.first < segment.first);
        let old: Vec<Segment> = segments.splice(at..at + firsts.len(), [segment]).collect();
        let nexts: Vec<Lsn> = firsts.iter().skip(1).copied().chain([end]).collect();
        let since = Instant::now();
        let retired = old.into_iter().zip(nexts).map(|(segment, next)| RetiredSegment { segment, next, since });
        // Before the other lock is released: at any moment a record is found in one of the two.
        self.retired.lock().extend(retired);
        let mut files = self.files.lock();
        firsts.iter().for_each(|first| drop(files.remove(first)));
    }

    /// The header of a record, without reading its payload.
    pub(crate) fn header(&self, lsn: Lsn) -> Result<FrameHeader, ReadError> {
        Ok(self.header_and_fingerprint(lsn)?.0)
    }

    /// Looks up a record and reads it. If compaction gave its segment's name to another file in between, it is looked
    /// up again: the bytes read were from another file.
    fn read_at<T>(&self, lsn: Lsn, read: impl Fn(&Location) -> Result<T, ReadFault>) -> Result<T, ReadError> {
        let mut location = self.locate(lsn)?;
        loop {
            let flaw = match read(&location) {
                Ok(value) => return Ok(value),
                Err(flaw) => flaw,
            };
            let again = self.locate(lsn)?;
            if again.is(&location) {
                return Err(match flaw {
                    ReadFault::Damaged(what) => self.damaged(lsn, &location, what),
                    ReadFault::Unknown(unknown) => {
                        ReadError::Unknown { path: segment_path(&self.dir, location.segment), unknown }
                    }
                    ReadFault::Io(source) => {
                        *self.failing.lock() = Some(lsn);
                        ReadError::Io { path: segment_path(&self.dir, location.segment), source }
                    }
                });
            }
            location = again;
        }
    }

    /// Distinguishes the record at `lsn` from one that a different epoch has there.
    pub(crate) fn fingerprint(&self, lsn: Lsn) -> Result<u64, ReadError> {
        Ok(self.header_and_fingerprint(lsn)?.1)
    }

    /// [`Self::header`] and [`Self::fingerprint`] in one read.
    pub(crate) fn header_and_fingerprint(&self, lsn: Lsn) -> Result<(FrameHeader, u64), ReadError> {
        self.read_at(lsn, |location| {
            let mut bytes = [0; FRAME_HEADER];
            self.read_bytes(location, &mut bytes, 0)?;
            let header = self.check(lsn, location, &bytes)?;
            Ok((header, header.fingerprint(location.salt)))
        })
    }

    /// Reads a record and checks it.
    pub(crate) fn read(&self, lsn: Lsn) -> Result<Frame, ReadError> {
        self.read_at(lsn, |location| self.read_frame(lsn, location))
    }

    fn read_frame(&self, lsn: Lsn, location: &Location) -> Result<Frame, ReadFault> {
        let (header, mut bytes) = self.read_checked(lsn, location)?;
        let payload = if header.flags & ZSTD == 0 {
            bytes.drain(..FRAME_HEADER);
            bytes
        } else {
            let stored = &bytes[FRAME_HEADER..];
            self.decompress(stored).ok_or(ReadFault::Damaged("payload cannot be decompressed"))?
        };
        Ok(Frame { header, payload })
    }

    /// Header and stored payload, both with valid checksums.
    fn read_checked(&self, lsn: Lsn, location: &Location) -> Result<(FrameHeader, Vec<u8>), ReadFault> {
        // Next to a damaged neighbour the length is only an upper bound, which can be a whole segment.
        let guess = location.length.clamp(FRAME_HEADER as u64, 64 << 10) as usize;
        let mut bytes = vec![0; guess];
        self.read_bytes(location, &mut bytes, 0)?;
        let header = self.check(lsn, location, &bytes)?;
        let end = FRAME_HEADER + header.stored as usize;
        if end > bytes.len() {
            if end as u64 > location.length {
                return Err(ReadFault::Damaged("length goes beyond the next record"));
            }
            bytes.resize(end, 0);
            self.read_bytes(location, &mut bytes[guess..], guess as u64)?;
        }
        bytes.truncate(end);
        if crc32c::crc32c(&bytes[FRAME_HEADER..]) != header.payload_crc {
            return Err(ReadFault::Damaged("payload checksum differs"));
        }
        Ok((header, bytes))
    }

    /// A record's frame as it is stored, checked.
    pub(crate) fn read_stored(&self, lsn: Lsn) -> Result<StoredFrame, ReadError> {
        self.read_at(lsn, |location| {
            let (header, bytes) = self.read_checked(lsn, location)?;
            Ok(StoredFrame { header, bytes })
        })
    }

    /// The payload of a stored frame.
    pub(crate) fn payload_of(&self, frame: &StoredFrame) -> Result<Vec<u8>, ReadError> {
        let stored = &frame.bytes[FRAME_HEADER..];
        if frame.header.flags & ZSTD == 0 {
            return Ok(stored.to_vec());
        }
        self.decompress(stored).ok_or_else(|| self.unreadable(frame.header.lsn, "payload cannot be decompressed"))
    }

    fn check(&self, lsn: Lsn, location: &Location, bytes: &[u8]) -> Result<FrameHeader, ReadFault> {
        match FrameHeader::parse(bytes, location.salt) {
            Some(header) if header.lsn == lsn => match header.unknown(self.kinds) {
                None => Ok(header),
                Some(unknown) => Err(ReadFault::Unknown(unknown)),
            },
            Some(_) => Err(ReadFault::Damaged("another record is in its place")),
            None => Err(ReadFault::Damaged("no valid frame header")),
        }
    }

    /// The error for a record found damaged; also adds it to the list.
    pub(crate) fn unreadable(&self, lsn: Lsn, what: &'static str) -> ReadError {
        match self.locate(lsn) {
            Ok(location) => self.damaged(lsn, &location, what),
            Err(error) => error,
        }
    }

    fn damaged(&self, lsn: Lsn, location: &Location, what: &'static str) -> ReadError {
        let path = segment_path(&self.dir, location.segment);
        let (offset, length) = (location.offset, location.length);
        self.report(Damage { path: path.clone(), offset, length, records: Some((lsn, lsn)), what });
        ReadError::Damaged { lsn, path, offset, what }
    }

    fn decompress(&self, stored: &[u8]) -> Option<Vec<u8>> {
        let (length, compressed) = stored.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > PAYLOAD_MAX {
            return None;
        }
        let pooled = self.decompressors.lock().pop();
        let mut decompressor = match pooled {
            Some(decompressor) => decompressor,
            None => zstd::bulk::Decompressor::new().ok()?,
        };
        let payload = decompressor.decompress(compressed, length).ok().filter(|payload| payload.len() == length);
        let mut pool = self.decompressors.lock();
        // As many as readers ever decompressed in parallel, within reason.
        if pool.len() < 64 {
            pool.push(decompressor);
        }
        payload
    }

    fn read_bytes(&self, location: &Location, buffer: &mut [u8], skip: u64) -> Result<(), ReadFault> {
        let file = match &location.file {
            Some(file) => Arc::clone(file),
            None => self.file(location.segment)?,
        };
        Ok(read_exact_at(&*file, buffer, location.offset + skip)?)
    }

    /// Closes files open for reading that are not in use. They are reopened on demand.
    pub(crate) fn forget_files(&self) {
        self.files.lock().clear();
    }

    fn file(&self, first: Lsn) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.lock().get(&first) {
            return Ok(Arc::clone(file));
        }
        let open = || self.disk.open(&segment_path(&self.dir, first), false);
        let file = match open() {
            Err(error) if is_out_of_files(&error) => {
                self.forget_files();
                open()?
            }
            opened => opened?,
        };
        let mut files = self.files.lock();
        if files.len() >= OPEN_FILES_MAX
            && let Some(other) = files.keys().next().copied()
        {
            files.remove(&other);
        }
        files.insert(first, Arc::clone(&file));
        Ok(file)
    }
}

/// A failed check of what was read, before it is known whether it was the right file.
enum ReadFault {
    Damaged(&'static str),
    Unknown(UnknownFrame),
    Io(io::Error),
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn locate_in(segment: &Segment, lsn: Lsn) -> Result<Location, Slot> {
    match segment.frames.slot(segment.first, lsn) {
        Slot::At { offset, next } => Ok(Location {
            segment: segment.first,
            salt: segment.salt,
            offset,
            length: next.unwrap_or(segment.end).saturating_sub(offset),
            file: segment.pinned.clone(),
        }),
        slot @ (Slot::Unreadable | Slot::Absent) => Err(slot),
    }
}

/// One past the last LSN that a segment covers.
pub(crate) fn segment_end(segment: &Segment, next: Option<&Segment>) -> Lsn {
    match (segment.compacted, next) {
        (Some(compacted), _) => compacted.end,
        (None, Some(next)) => next.first,
        (None, None) => Lsn(segment.first.0 + segment.frames.len() as u64),
    }
}
