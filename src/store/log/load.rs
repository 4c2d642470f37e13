//! Opening a log: which segments exist, what they contain, and where the last one is cut.
//!
//! Invariants: a segment that this release does not read is refused before anything is changed; durable records are
//! never cut, only a torn tail is; segments that a compacted one covers, and those whose creation was interrupted by a
//! power cut, are removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{
    Damage, HEADER_COPY_USED, INDEX_BYTES_MAX, Log, SEGMENT_MISSING, Segment, index_path, remove_segment,
    segment_firsts, segment_path,
};
use crate::base::{Lsn, NodeId, UnixMillis};
use crate::store::OpenError;
use crate::store::disk::{Disk, DiskFile, RealDisk, read_file};
use crate::store::frame::{FORMAT, FORMATS, HeaderCheck, Kinds, SEGMENT_START, SegmentHeader, array};
use crate::store::frames::Frames;
use crate::store::segment::{self, Scan, SegmentSpec, SparseScan};
use crate::store::trust::CleanShutdown;

/// The newest format among the segments of a data directory, including those of its journals; `None` when it has no
/// segments. Reads headers only, without the lock.
///
/// # Errors
/// When the log cannot be read.
pub fn data_format(data_dir: &Path) -> io::Result<Option<u16>> {
    let names = match RealDisk.list(data_dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut newest = None;
    for name in names {
        match format_in(&data_dir.join(&name)) {
            Ok(format) => newest = newest.max(format),
            // Other names are foreign, and so are files.
            Err(error) if name == "log" => return Err(error),
            Err(_) => {}
        }
    }
    Ok(newest)
}

/// The newest format among the segments in one directory.
fn format_in(dir: &Path) -> io::Result<Option<u16>> {
    format_of(dir, segment_firsts(&RealDisk.list(dir)?))
}

/// The newest format among the segments with these first records.
fn format_of(dir: &Path, firsts: Vec<Lsn>) -> io::Result<Option<u16>> {
    let mut newest = None;
    for first in firsts {
        let mut bytes = [0; SEGMENT_START as usize];
        let file = match RealDisk.open(&segment_path(dir, first), false) {
            // Compacted in the meantime: the segment that replaced it has its format.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        file.read_at(&mut bytes, 0)?;
        let format = match SegmentHeader::check(&bytes) {
            HeaderCheck::Unsupported(format) => format.found,
            HeaderCheck::Good { header, .. } => header.format,
            // A damaged header names no format, but there is data.
            HeaderCheck::Bad => *FORMATS.start(),
        };
        newest = newest.max(Some(format));
    }
    Ok(newest)
}

/// The state of the last segment when the log was opened.
pub(crate) struct Tail {
    pub(crate) file: Arc<dyn DiskFile>,
    /// Length of its file, including reserved space.
    pub(crate) allocated: u64,
    /// Bytes that may be in the kernel's cache only.
    pub(crate) unproven: std::ops::Range<u64>,
    pub(crate) torn: u64,
}

/// A segment file before its frames are read.
struct Candidate {
    first: Lsn,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    header: HeaderCheck,
    /// There are bytes after the header.
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
        if let HeaderCheck::Unsupported(format) = header {
            return Err(OpenError::Format { path, format });
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

/// How a log is opened.
pub(crate) struct Opening<'a> {
    /// Kinds of record that it may contain.
    pub(crate) kinds: Kinds,
    /// The writer of a new log; `None`: a node with a new id.
    pub(crate) node: Option<NodeId>,
    /// First record that must exist.
    pub(crate) begin: Lsn,
    /// What the previous run knew to be on the disk.
    pub(crate) clean_shutdown: Option<&'a CleanShutdown>,
    /// The node whose records were here, when there were any: without a segment the log is lost, and not new.
    pub(crate) previous: Option<&'a str>,
    /// The first record of a segment that was created: everything before it was on the disk. Zero when none is known.
    pub(crate) sealed_to: Lsn,
    /// The time of new segments.
    pub(crate) now: UnixMillis,
}

impl Log {
    /// Opens the log in `dir`, which exists, and creates it if necessary. Cuts a torn tail.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf, opening: &Opening<'_>) -> Result<(Self, Tail), OpenError> {
        let names = disk.list(&dir).map_err(|source| OpenError::Read { path: dir.clone(), source })?;
        let firsts = segment_firsts(&names);
        let last = firsts.last().copied();
        let mut candidates = Vec::with_capacity(firsts.len());
        for first in firsts {
            candidates.push(Candidate::open(&*disk, &dir, first, Some(first) == last)?);
        }
        if let Some(node) = opening.previous.filter(|_| !candidates.iter().any(|candidate| candidate.used)) {
            return Err(OpenError::Lost { path: dir, node: node.to_owned() });
        }
        // From here on this release reads what is there. The unfinished output of an interrupted compaction:
        for name in names.iter().filter(|name| name.ends_with(".seg.tmp")) {
            let path = dir.join(name);
            disk.remove(&path).map_err(|source| OpenError::Write { path, source })?;
        }
        // A segment is used only after its header was synced: without one, its creation was interrupted by a power cut.
        if let Some(unused) = candidates.pop_if(|candidate| !candidate.used) {
            let write = |source| OpenError::Write { path: unused.path.clone(), source };
            disk.remove(&unused.path).map_err(write)?;
            disk.sync_dir(&dir).map_err(write)?;
            if let Some(last) = candidates.pop() {
                candidates.push(Candidate::open(&*disk, &dir, last.first, true)?);
            }
        }
        remove_covered(&*disk, &dir, &mut candidates)?;
        let cut = take_before(opening.begin, &mut candidates);
        let mut headers = candidates.iter().filter_map(|candidate| match candidate.header {
            HeaderCheck::Good { header, .. } => Some(header),
            HeaderCheck::Unsupported(_) | HeaderCheck::Bad => None,
        });
        let (node, salt, epoch) = match (headers.next(), candidates.first()) {
            (Some(header), _) => (header.node, header.salt, headers.next_back().unwrap_or(header).epoch),
            (None, Some(candidate)) => return Err(OpenError::Header { path: candidate.path.clone() }),
            (None, None) => {
                let mut random = [0; 32];
                getrandom::fill(&mut random).map_err(|source| OpenError::Random { source })?;
                let epoch = u64::from_le_bytes(array(&random, 24));
                (opening.node.unwrap_or(NodeId(array(&random, 0))), array(&random, 16), epoch)
            }
        };
        let log = Self {
            disk,
            dir,
            kinds: opening.kinds,
            node,
            salt,
            epoch,
            segments: RwLock::default(),
            begin: AtomicU64::new(opening.begin.0),
            last: AtomicU64::new(0),
            announced: watch::Sender::default(),
            files: Mutex::default(),
            damage: Mutex::default(),
            failing: Mutex::default(),
            retired: Mutex::default(),
            dead: Mutex::default(),
            decompressors: Mutex::default(),
        };
        let last_shutdown = opening.clean_shutdown.filter(|clean_shutdown| clean_shutdown.node == log.node.to_string());
        let last = last_shutdown.map_or(Lsn::ZERO, |clean_shutdown| clean_shutdown.last);
        let tail = log.load(candidates, opening, last.max(Lsn(opening.sealed_to.0.saturating_sub(1))))?;
        if opening.sealed_to > Lsn::ZERO && !log.has_segment(opening.sealed_to) {
            // It is unknown how many records it had.
            let path = segment_path(&log.dir, opening.sealed_to);
            log.report(Damage { path, offset: 0, length: 0, records: None, what: SEGMENT_MISSING });
        }
        // What an interrupted cut left, once the rest was read.
        for first in &cut {
            let removed = remove_segment(&*log.disk, &log.dir, *first);
            removed.map_err(|source| OpenError::Write { path: segment_path(&log.dir, *first), source })?;
        }
        if !cut.is_empty() {
            let synced = log.disk.sync_dir(&log.dir);
            synced.map_err(|source| OpenError::Write { path: log.dir.clone(), source })?;
        }
        log.announce();
        Ok((log, tail))
    }

    /// Reads the segments, the last one in full. Missing records up to `last_shutdown` are damage, and new records come
    /// after them.
    fn load(&self, candidates: Vec<Candidate>, opening: &Opening<'_>, last_shutdown: Lsn) -> Result<Tail, OpenError> {
        let now = opening.now;
        let mut next = opening.begin;
        let nexts: Vec<Option<Lsn>> = candidates.iter().skip(1).map(|after| Some(after.first)).chain([None]).collect();
        let mut tail = None;
        for (candidate, next_segment) in candidates.into_iter().zip(nexts) {
            let Candidate { first, path, file, length, header, .. } = candidate;
            let header = self.check_header(first, &path, &header)?;
            let salt = header.map_or(self.salt, |header| header.salt);
            let compacted = header.and_then(|header| header.compacted);
            if first > next {
                self.report_missing(next, Lsn(first.0 - 1));
            }
            let read = |source| OpenError::Read { path: path.clone(), source };
            // A segment missing between two others is not part of the first of them.
            let mut end_lsn = match (compacted, next_segment) {
                (Some(compacted), Some(next)) => Some(compacted.end.min(next)),
                (Some(compacted), None) => Some(compacted.end),
                (None, next) => next,
            };
            let mut spec = SegmentSpec { salt, kinds: self.kinds, first, next_segment: end_lsn, length };
            let bytes = compacted.map(|compacted| compacted.bytes);
            let indexed = end_lsn.and_then(|after| self.read_index(first, after, length));
            let is_indexed = indexed.is_some() && bytes.is_none_or(|bytes| bytes == length);
            let (frames, end, damage, torn, unknown) = match indexed.filter(|_| is_indexed) {
                Some(frames) => (frames, length, Vec::new(), None, None),
                // Without its header it is unknown whether a segment was compacted.
                None if compacted.is_some() || (header.is_none() && end_lsn.is_some()) => {
                    let scan = segment::scan_compacted(&*file, &spec, bytes).map_err(read)?;
                    let SparseScan { frames, damage, unknown } = scan;
                    (frames, length, damage, None, unknown)
                }
                None => {
                    let mut scan = segment::scan(&*file, &spec).map_err(read)?;
                    if end_lsn.is_none() && first.0 + scan.offsets.len() as u64 <= last_shutdown.0 {
                        end_lsn = Some(last_shutdown.next());
                        spec.next_segment = end_lsn;
                        scan = segment::scan(&*file, &spec).map_err(read)?;
                    }
                    let Scan { offsets, end, damage, torn, unproven, unknown } = scan;
                    (Frames::Dense(offsets), end, damage, Some((torn, unproven)), unknown)
                }
            };
            if let Some(unknown) = unknown {
                return Err(OpenError::Unknown { path, unknown });
            }
            for bad in &damage {
                let records = (!bad.lsns.is_empty()).then(|| (Lsn(bad.lsns.start), Lsn(bad.lsns.end - 1)));
                let (offset, length) = (bad.bytes.start, bad.bytes.end - bad.bytes.start);
                self.report(Damage { path: path.clone(), offset, length, records, what: bad.what });
            }
            next = end_lsn.unwrap_or(Lsn(first.0 + frames.len() as u64));
            if end_lsn.is_some() {
                if !is_indexed && damage.is_empty() {
                    self.write_index(first, length, &frames);
                }
            } else {
                let (torn, unproven) = torn.expect("a segment without an end was scanned");
                let mut allocated = length;
                if torn > 0 {
                    let write = |source| OpenError::Write { path: path.clone(), source };
                    file.truncate(end).map_err(write)?;
                    file.sync_all().map_err(write)?;
                    allocated = end;
                }
                tail = Some(Tail { file, allocated, unproven, torn });
            }
            let epoch = header.map_or(self.epoch, |header| header.epoch);
            let created = header.map_or(UnixMillis(0), |header| header.created);
            let format = header.map_or(FORMAT, |header| header.format);
            let segment = Segment { first, format, salt, epoch, created, compacted, end, frames, pinned: None };
            self.segments.write().push(segment);
        }
        if next <= last_shutdown {
            self.report_missing(next, last_shutdown);
            next = last_shutdown.next();
        }
        self.last.store(next.0 - 1, Ordering::Release);
        // Nothing is written to a segment of another format, even an empty one.
        let other =
            self.segments.write().pop_if(|last| tail.is_some() && last.format != FORMAT && last.frames.len() == 0);
        let write = |source| OpenError::Write { path: segment_path(&self.dir, next), source };
        let file = match (tail, other) {
            (Some(tail), None) => return Ok(tail),
            (_, Some(_)) => self.replace_empty_segment(next, now).map_err(write)?,
            (None, None) => self.create_segment(next, now).map_err(write)?,
        };
        self.start_segment(next, now);
        Ok(Tail { file, allocated: SEGMENT_START, unproven: 0..0, torn: 0 })
    }

    /// Replaces an empty segment with a new one, so that a crash leaves either.
    fn replace_empty_segment(&self, first: Lsn, now: UnixMillis) -> io::Result<Arc<dyn DiskFile>> {
        let path = segment_path(&self.dir, first);
        let temporary = path.with_extension("seg.tmp");
        let file = self.disk.create(&temporary)?;
        file.write_at(&self.new_header(first, now).encode(), 0)?;
        file.sync_all()?;
        self.disk.rename(&temporary, &path)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }

    /// The header of a segment; `None` where it is lost.
    fn check_header(&self, first: Lsn, path: &Path, header: &HeaderCheck) -> Result<Option<SegmentHeader>, OpenError> {
        let damaged =
            |length| Damage { path: path.to_owned(), offset: 0, length, records: None, what: HEADER_COPY_USED };
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
                Ok(Some(header))
            }
            HeaderCheck::Unsupported(_) | HeaderCheck::Bad => {
                self.report(Damage { what: "segment header damaged", ..damaged(SEGMENT_START) });
                Ok(None)
            }
        }
    }

    /// No segment contains the records from `first` to `last`.
    fn report_missing(&self, first: Lsn, last: Lsn) {
        let (path, records) = (segment_path(&self.dir, first), Some((first, last)));
        self.report(Damage { path, offset: 0, length: 0, records, what: SEGMENT_MISSING });
    }

    fn read_index(&self, first: Lsn, after: Lsn, length: u64) -> Option<Frames> {
        let bytes = read_file(&*self.disk, &index_path(&self.dir, first), INDEX_BYTES_MAX).ok()?;
        segment::decode_index(&bytes, self.node, first, length).filter(|frames| match frames {
            Frames::Dense(offsets) => first.0 + offsets.len() as u64 == after.0,
            Frames::Sparse { lsns, .. } => lsns.last().is_none_or(|last| first.0 + u64::from(*last) < after.0),
        })
    }
}

/// Takes the segments whose records are all before `begin` out of `candidates`; the last one stays. Returns their first
/// records.
fn take_before(begin: Lsn, candidates: &mut Vec<Candidate>) -> Vec<Lsn> {
    if begin == Lsn::ZERO.next() {
        // Nothing was cut.
        return Vec::new();
    }
    let nexts = candidates.iter().skip(1).map(|candidate| candidate.first);
    let count = nexts.take_while(|next| *next <= begin).count();
    candidates.drain(..count).map(|candidate| candidate.first).collect()
}

/// Removes segments that an earlier compacted one covers: compaction was interrupted between the two.
fn remove_covered(disk: &dyn Disk, dir: &Path, candidates: &mut Vec<Candidate>) -> Result<(), OpenError> {
    let mut covered = Lsn::ZERO;
    let mut removed = false;
    let mut kept = Vec::with_capacity(candidates.len());
    for candidate in candidates.drain(..) {
        if candidate.first < covered {
            let write = |source| OpenError::Write { path: candidate.path.clone(), source };
            disk.remove(&candidate.path).map_err(write)?;
            removed = true;
            continue;
        }
        if let HeaderCheck::Good { header: SegmentHeader { compacted: Some(compacted), .. }, .. } = candidate.header {
            covered = compacted.end;
        }
        kept.push(candidate);
    }
    *candidates = kept;
    if removed {
        disk.sync_dir(dir).map_err(|source| OpenError::Write { path: dir.to_owned(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_was_compacted_after_it_was_listed_is_no_failure() {
        let directory = tempfile::tempdir().expect("a directory");
        let header = SegmentHeader {
            format: FORMAT,
            node: NodeId([5; 16]),
            first: Lsn(1),
            created: UnixMillis(3),
            salt: [9; 8],
            epoch: 0,
            compacted: None,
        };
        std::fs::write(segment_path(directory.path(), Lsn(1)), header.encode()).expect("written");
        assert_eq!(format_of(directory.path(), vec![Lsn(1), Lsn(9)]).expect("read"), Some(FORMAT));
    }
}
