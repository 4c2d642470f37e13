//! The log: all segments of a data directory, read by LSN.
//!
//! Invariants: what is visible here is durable; a position is one array lookup away; every byte that is handed out has
//! passed its checksum. Damage is listed and stepped over, never repaired here: `doctor` does that from a snapshot.
//! Writing is in [`super::append`].

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::OpenError;
use super::disk::{Disk, DiskFile, read_exact_at, read_file};
use super::frame::{
    FORMAT, FRAME_HEADER, FrameHeader, HeaderCheck, PAYLOAD_MAX, SEGMENT_START, Salt, SegmentHeader, ZSTD,
};
use super::segment::{self, Place, Scan, UNREADABLE};
use crate::base::{Lsn, NodeId, UnixMillis};

/// Damage beyond this many places is counted by nobody: the list is for people, and the first places say enough.
const DAMAGE_MAX: usize = 1000;
/// Sealed segments kept open; 64 MiB each, so a log of 16 GiB never opens a file twice.
const OPEN_FILES_MAX: usize = 256;
/// Index files are four bytes a frame; this is far above any segment's.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// A place in the log whose bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where the damage begins, in bytes.
    pub offset: u64,
    /// How many bytes cannot be used; 0 when they are absent.
    pub length: u64,
    /// First and last record that were there, if any were.
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
    /// There is no such record yet.
    #[error("record {lsn} does not exist, the last one is {last}")]
    Missing {
        /// What was asked for.
        lsn: Lsn,
        /// The end of the log.
        last: Lsn,
    },
    /// The records are known to be damaged; `Reader::damage` says where.
    #[error("records {first} to {last} are damaged or missing")]
    Lost {
        /// The first of them.
        first: Lsn,
        /// The last of them.
        last: Lsn,
    },
    /// The record was found damaged.
    #[error("{path}: record {lsn} at byte {offset}: {what}")]
    Damaged {
        /// What was asked for.
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
        /// What was asked for.
        lsn: Lsn,
        /// Its kind; see `FORMAT.md`.
        found: u8,
        /// The kind asked for.
        expected: u8,
    },
    /// The disk failed.
    #[error("cannot read {path}")]
    Io {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The catalog failed.
    #[error("cannot read the catalog")]
    Catalog {
        /// What it said.
        #[from]
        source: super::CatalogError,
    },
}

impl ReadError {
    /// Who can do something about it.
    #[must_use]
    pub fn fault(&self) -> crate::base::Fault {
        use crate::base::Fault;
        match self {
            Self::Missing { .. } | Self::Kind { .. } => Fault::Caller,
            Self::Lost { .. } | Self::Damaged { .. } => Fault::Damage,
            Self::Io { .. } => Fault::Environment,
            Self::Catalog { source } => source.fault(),
        }
    }

    /// Whether reading on after this record makes sense.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Damaged { .. } | Self::Kind { .. } | Self::Missing { .. })
    }
}

/// A frame whose checksums are right.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) payload: Vec<u8>,
}

/// A segment's frames.
pub(crate) struct Segment {
    pub(crate) first: Lsn,
    pub(crate) salt: Salt,
    /// Where its frames end.
    pub(crate) end: u64,
    /// Offset ÷ 8 by LSN, [`UNREADABLE`] for damaged frames.
    pub(crate) offsets: Vec<u32>,
}

/// Where a frame is.
struct Location {
    segment: Lsn,
    salt: Salt,
    offset: u64,
    /// Upper bound of its length, exact unless its neighbour is damaged.
    length: u64,
}

/// What the last segment looked like when the log was opened.
pub(crate) struct Tail {
    pub(crate) file: Arc<dyn DiskFile>,
    /// Length of its file, reserved space included.
    pub(crate) allocated: u64,
    /// Bytes that may be in the kernel's cache only.
    pub(crate) unproven: std::ops::Range<u64>,
    pub(crate) torn: u64,
}

/// See the module.
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) salt: Salt,
    /// In LSN order, never empty; the last one is being written.
    pub(crate) segments: RwLock<Vec<Segment>>,
    pub(crate) last: AtomicU64,
    files: Mutex<HashMap<Lsn, Arc<dyn DiskFile>>>,
    damage: Mutex<Vec<Damage>>,
    decompressors: Mutex<Vec<zstd::bulk::Decompressor<'static>>>,
}

/// File of the segment that begins with `first`.
pub(crate) fn segment_path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:020}.seg", first.0))
}

fn index_path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:020}.idx", first.0))
}

/// Names of the segment files in `names`, by LSN; other files are none of ours.
fn segment_firsts(names: &[String]) -> Vec<Lsn> {
    let digits = names.iter().filter_map(|name| name.strip_suffix(".seg")).filter(|digits| digits.len() == 20);
    let mut firsts: Vec<Lsn> = digits.filter_map(|digits| digits.parse().ok().map(Lsn)).collect();
    firsts.sort_unstable();
    firsts
}

/// A segment file before its frames are read.
struct Candidate {
    first: Lsn,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    header: HeaderCheck,
    /// There is something after the header.
    used: bool,
}

impl Candidate {
    fn open(disk: &dyn Disk, dir: &Path, first: Lsn, is_last: bool) -> Result<Self, OpenError> {
        let path = segment_path(dir, first);
        let read = |source| OpenError::Read { path: path.clone(), source };
        let file = disk.open(&path, is_last).map_err(read)?;
        let length = file.len().map_err(read)?;
        let mut bytes = [0; SEGMENT_START as usize];
        file.read_at(&mut bytes, 0).map_err(read)?;
        let header = SegmentHeader::check(&bytes);
        if let HeaderCheck::TooNew(found) = header {
            return Err(OpenError::FormatTooNew { path, found, supported: FORMAT });
        }
        let used = header != HeaderCheck::Bad || !zeros_from(&*file, SEGMENT_START, length).map_err(read)?;
        Ok(Self { first, path, file, length, header, used })
    }
}

fn zeros_from(file: &dyn DiskFile, mut at: u64, length: u64) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    while at < length {
        let read = file.read_at(&mut buffer, at)?;
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(true)
}

impl Log {
    /// Opens the log in `dir`, which exists, and makes it if there is none. Cuts a torn tail.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf, now: UnixMillis) -> Result<(Self, Tail), OpenError> {
        let names = disk.list(&dir).map_err(|source| OpenError::Read { path: dir.clone(), source })?;
        let firsts = segment_firsts(&names);
        let last = firsts.last().copied();
        let mut candidates = Vec::with_capacity(firsts.len());
        for first in firsts {
            candidates.push(Candidate::open(&*disk, &dir, first, Some(first) == last)?);
        }
        // A segment is used only after its header was synced: without one it was being made when the power went.
        if let Some(unused) = candidates.pop_if(|candidate| !candidate.used) {
            let write = |source| OpenError::Write { path: unused.path.clone(), source };
            disk.remove(&unused.path).map_err(write)?;
            disk.sync_dir(&dir).map_err(write)?;
            if let Some(last) = candidates.pop() {
                candidates.push(Candidate::open(&*disk, &dir, last.first, true)?);
            }
        }
        let mut headers = candidates.iter().filter_map(|candidate| match candidate.header {
            HeaderCheck::Good { header, .. } => Some(header),
            HeaderCheck::TooNew(_) | HeaderCheck::Bad => None,
        });
        let (node, salt) = match (headers.next(), candidates.first()) {
            (Some(header), _) => (header.node, header.salt),
            (None, Some(candidate)) => return Err(OpenError::Header { path: candidate.path.clone() }),
            (None, None) => {
                let mut random = [0; 24];
                getrandom::fill(&mut random).map_err(|source| OpenError::Random { source })?;
                (NodeId(super::frame::array(&random, 0)), super::frame::array(&random, 16))
            }
        };
        let log = Self {
            disk,
            dir,
            node,
            salt,
            segments: RwLock::default(),
            last: AtomicU64::new(0),
            files: Mutex::default(),
            damage: Mutex::default(),
            decompressors: Mutex::default(),
        };
        let tail = log.load(candidates, now)?;
        Ok((log, tail))
    }

    /// Reads what the segments hold, the last one in full.
    fn load(&self, candidates: Vec<Candidate>, now: UnixMillis) -> Result<Tail, OpenError> {
        let mut next = Lsn::ZERO.next();
        let nexts: Vec<Option<Lsn>> = candidates.iter().skip(1).map(|after| Some(after.first)).chain([None]).collect();
        let mut tail = None;
        for (candidate, next_segment) in candidates.into_iter().zip(nexts) {
            let Candidate { first, path, file, length, header, .. } = candidate;
            let salt = self.check_header(first, &path, &header)?;
            if first > next {
                let records = Some((next, Lsn(first.0 - 1)));
                let path = segment_path(&self.dir, next);
                self.report(Damage { path, offset: 0, length: 0, records, what: "segment missing" });
            }
            let read = |source| OpenError::Read { path: path.clone(), source };
            let place = Place { salt, first, next_segment, length };
            let indexed = next_segment.and_then(|after| self.read_index(first, after, length));
            let is_indexed = indexed.is_some();
            let scan = match indexed {
                Some(offsets) => Scan { offsets, end: length, ..Scan::default() },
                None => segment::scan(&*file, &place).map_err(read)?,
            };
            for bad in &scan.damage {
                let records = (!bad.lsns.is_empty()).then(|| (Lsn(bad.lsns.start), Lsn(bad.lsns.end - 1)));
                let (offset, length) = (bad.bytes.start, bad.bytes.end - bad.bytes.start);
                self.report(Damage { path: path.clone(), offset, length, records, what: bad.what });
            }
            next = next_segment.unwrap_or(Lsn(first.0 + scan.offsets.len() as u64));
            let Scan { offsets, end, damage, torn, unproven } = scan;
            if next_segment.is_some() {
                if !is_indexed && damage.is_empty() {
                    self.write_index(first, length, &offsets);
                }
            } else {
                let mut allocated = length;
                if torn > 0 {
                    let write = |source| OpenError::Write { path: path.clone(), source };
                    file.truncate(end).map_err(write)?;
                    file.sync_all().map_err(write)?;
                    allocated = end;
                }
                tail = Some(Tail { file, allocated, unproven, torn });
            }
            self.segments.write().push(Segment { first, salt, end, offsets });
        }
        self.last.store(next.0 - 1, Ordering::Release);
        match tail {
            Some(tail) => Ok(tail),
            None => {
                let file = self
                    .create_segment(next, now)
                    .map_err(|source| OpenError::Write { path: segment_path(&self.dir, next), source })?;
                self.start_segment(next);
                Ok(Tail { file, allocated: SEGMENT_START, unproven: 0..0, torn: 0 })
            }
        }
    }

    /// The salt of a segment; where its header is lost, that of its neighbours.
    fn check_header(&self, first: Lsn, path: &Path, header: &HeaderCheck) -> Result<Salt, OpenError> {
        let damaged = |length| Damage {
            path: path.to_owned(),
            offset: 0,
            length,
            records: None,
            what: "segment header damaged, its copy is used",
        };
        match *header {
            HeaderCheck::Good { header, .. } if header.node != self.node => {
                Err(OpenError::ForeignSegment { path: path.to_owned(), found: header.node, expected: self.node })
            }
            HeaderCheck::Good { header, .. } if header.first != first => {
                Err(OpenError::MisnamedSegment { path: path.to_owned(), first: header.first })
            }
            HeaderCheck::Good { header, spare } => {
                if spare {
                    self.report(damaged(SEGMENT_START / 2));
                }
                Ok(header.salt)
            }
            HeaderCheck::TooNew(_) | HeaderCheck::Bad => {
                self.report(Damage { what: "segment header damaged", ..damaged(SEGMENT_START) });
                Ok(self.salt)
            }
        }
    }

    /// Makes the file of a new segment, durable with its name.
    pub(crate) fn create_segment(&self, first: Lsn, now: UnixMillis) -> io::Result<Arc<dyn DiskFile>> {
        let path = segment_path(&self.dir, first);
        let file = self.disk.create(&path)?;
        let header = SegmentHeader { node: self.node, first, created: now, salt: self.salt };
        file.write_at(&header.encode(), 0)?;
        file.sync_all()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }

    /// Makes a created segment the last one.
    pub(crate) fn start_segment(&self, first: Lsn) {
        let segment = Segment { first, salt: self.salt, end: SEGMENT_START, offsets: Vec::new() };
        self.segments.write().push(segment);
    }

    fn read_index(&self, first: Lsn, after: Lsn, length: u64) -> Option<Vec<u32>> {
        let bytes = read_file(&*self.disk, &index_path(&self.dir, first), INDEX_BYTES_MAX).ok()?;
        let offsets = segment::decode_index(&bytes, self.node, first, length)?;
        (first.0 + offsets.len() as u64 == after.0).then_some(offsets)
    }

    /// Writes the index of a sealed segment. A failure or a crash costs the next start a scan of that segment, nothing
    /// else, so errors are ignored and nothing is synced.
    pub(crate) fn write_index(&self, first: Lsn, length: u64, offsets: &[u32]) {
        if offsets.contains(&UNREADABLE) {
            return;
        }
        let path = index_path(&self.dir, first);
        let _ = self.disk.remove(&path);
        let bytes = segment::encode_index(self.node, first, length, offsets);
        let _ = self.disk.create(&path).and_then(|file| file.write_at(&bytes, 0));
    }

    /// LSN of the last record.
    pub(crate) fn last(&self) -> Lsn {
        Lsn(self.last.load(Ordering::Acquire))
    }

    /// Bytes of all segments, without reserved space.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.read().iter().map(|segment| segment.end).sum()
    }

    /// Damage found so far, at most [`DAMAGE_MAX`] places.
    pub(crate) fn damage(&self) -> Vec<Damage> {
        self.damage.lock().clone()
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
        let segments = self.segments.read();
        let Some(segment) = segments.partition_point(|segment| segment.first <= lsn).checked_sub(1) else {
            return Err(lost);
        };
        let segment = &segments[segment];
        let index = (lsn.0 - segment.first.0) as usize;
        let end = match segment.offsets.get(index + 1) {
            Some(&UNREADABLE) | None => segment.end,
            Some(&next) => u64::from(next) * 8,
        };
        match segment.offsets.get(index) {
            None | Some(&UNREADABLE) => Err(lost),
            Some(&offset) => {
                let offset = u64::from(offset) * 8;
                let length = end.saturating_sub(offset);
                Ok(Location { segment: segment.first, salt: segment.salt, offset, length })
            }
        }
    }

    /// Whether a record is known to be unreadable; says nothing about damage that nobody has met yet.
    pub(crate) fn is_lost(&self, lsn: Lsn) -> bool {
        self.locate(lsn).is_err()
    }

    /// The records from `lsn` on that are known to be unreadable, without a gap: the first readable one after them, or
    /// one past the end of the log. Equal to `lsn` when that is readable.
    pub(crate) fn next_readable(&self, lsn: Lsn) -> Lsn {
        let end = self.last().next();
        let segments = self.segments.read();
        let at = segments.partition_point(|segment| segment.first <= lsn).saturating_sub(1);
        for segment in &segments[at..] {
            let skip = lsn.0.saturating_sub(segment.first.0) as usize;
            let offsets = segment.offsets.get(skip..).unwrap_or_default();
            if let Some(index) = offsets.iter().position(|offset| *offset != UNREADABLE) {
                return Lsn(segment.first.0 + (skip + index) as u64).min(end);
            }
        }
        end
    }

    /// The header of a record, without reading its payload.
    pub(crate) fn header(&self, lsn: Lsn) -> Result<FrameHeader, ReadError> {
        let location = self.locate(lsn)?;
        let mut bytes = [0; FRAME_HEADER];
        self.read_bytes(&location, &mut bytes, 0)?;
        self.check(lsn, &location, &bytes)
    }

    /// Tells the record at `lsn` from another that a different history put there.
    pub(crate) fn fingerprint(&self, lsn: Lsn) -> Result<u64, ReadError> {
        let header = self.header(lsn)?;
        Ok(header.fingerprint(self.locate(lsn)?.salt))
    }

    /// Reads a record and checks it.
    pub(crate) fn read(&self, lsn: Lsn) -> Result<Frame, ReadError> {
        let location = self.locate(lsn)?;
        // Beside a damaged neighbour the length is only an upper bound, which can be a whole segment.
        let guess = location.length.clamp(FRAME_HEADER as u64, 64 << 10) as usize;
        let mut bytes = vec![0; guess];
        self.read_bytes(&location, &mut bytes, 0)?;
        let header = self.check(lsn, &location, &bytes)?;
        let end = FRAME_HEADER + header.stored as usize;
        if end > bytes.len() {
            if end as u64 > location.length {
                return Err(self.damaged(lsn, &location, "length goes beyond the next record"));
            }
            bytes.resize(end, 0);
            self.read_bytes(&location, &mut bytes[guess..], guess as u64)?;
        }
        bytes.truncate(end);
        let stored = &bytes[FRAME_HEADER..];
        if crc32c::crc32c(stored) != header.payload_crc {
            return Err(self.damaged(lsn, &location, "payload checksum differs"));
        }
        let payload = if header.flags & ZSTD == 0 {
            bytes.drain(..FRAME_HEADER);
            bytes
        } else {
            self.decompress(stored).ok_or_else(|| self.damaged(lsn, &location, "payload cannot be decompressed"))?
        };
        Ok(Frame { header, payload })
    }

    fn check(&self, lsn: Lsn, location: &Location, bytes: &[u8]) -> Result<FrameHeader, ReadError> {
        match FrameHeader::parse(bytes, location.salt) {
            Some(header) if header.lsn == lsn => Ok(header),
            Some(_) => Err(self.damaged(lsn, location, "another record is in its place")),
            None => Err(self.damaged(lsn, location, "no valid frame header")),
        }
    }

    /// The error for a record found damaged; also puts it on the list.
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
        // As many as readers that ever decompressed at once, within reason.
        if pool.len() < 64 {
            pool.push(decompressor);
        }
        payload
    }

    fn read_bytes(&self, location: &Location, buffer: &mut [u8], skip: u64) -> Result<(), ReadError> {
        let mut read = || read_exact_at(&*self.file(location.segment)?, buffer, location.offset + skip);
        read().map_err(|source| ReadError::Io { path: segment_path(&self.dir, location.segment), source })
    }

    fn file(&self, first: Lsn) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.lock().get(&first) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&segment_path(&self.dir, first), false)?;
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
