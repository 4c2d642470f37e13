//! Writing the log: each append is one write and one `fdatasync`.
//!
//! Invariants: an append starts only after the previous one was synced. After a failed write or sync nothing is written
//! until the log is reopened: the content of the disk is unknown then, and a repeated sync would report success
//! falsely.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::{DiskFile, is_out_of_files, read_exact_at, side_by_side};
use super::frame::{END_OF_BATCH, FORMAT, FRAME_HEADER, FrameHeader, PAYLOAD_MAX, SEGMENT_START, Salt, ZSTD};
use super::log::{Log, Tail, segment_path};
use crate::base::{Lsn, UnixMillis};

/// Space is reserved in steps of this size, so that most syncs need not write the file's length.
const RESERVE_STEP: u64 = 4 << 20;
/// Payloads below this size gain too little from compression to pay for it on each read.
const COMPRESS_MIN: usize = 1 << 10;
/// zstd's fastest regular level, because every commit waits for it.
const COMPRESS_LEVEL: i32 = 1;

/// Compresses payloads where it helps.
pub(crate) struct Compressor {
    /// `None` when zstd found no memory; frames are then written as they are.
    context: Option<zstd::bulk::Compressor<'static>>,
    buffer: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new() -> Self {
        Self { context: zstd::bulk::Compressor::new(COMPRESS_LEVEL).ok(), buffer: Vec::new() }
    }

    /// The compressed form of `payload`, if that saves a tenth.
    fn compress(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() < COMPRESS_MIN {
            return None;
        }
        let most = payload.len() - payload.len() / 10;
        self.buffer.clear();
        self.buffer.resize(most, 0);
        self.buffer[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        // A buffer that is too small for the result is the usual sign that compression does not pay.
        let length = self.context.as_mut()?.compress_to_buffer(payload, &mut self.buffer[4..]).ok()?;
        Some(&self.buffer[..4 + length])
    }
}

/// The frames of one append, encoded, with their LSNs.
pub(crate) struct Append {
    salt: Salt,
    first: Lsn,
    time: UnixMillis,
    bytes: Vec<u8>,
    /// Offset ÷ 8 of each frame from the start of the append.
    starts: Vec<u64>,
    last: Option<FrameHeader>,
}

impl Append {
    /// An empty append at the end of `log`.
    pub(crate) fn new(log: &Log, time: UnixMillis) -> Self {
        Self { salt: log.salt, first: log.last().next(), time, bytes: Vec::new(), starts: Vec::new(), last: None }
    }

    /// LSN of the next frame.
    pub(crate) fn next(&self) -> Lsn {
        Lsn(self.first.0 + self.starts.len() as u64)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Its size in the log, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The time of the frames that follow.
    pub(crate) fn set_time(&mut self, time: UnixMillis) {
        self.time = time;
    }

    /// Adds a frame; the caller has checked that the payload is at most [`PAYLOAD_MAX`] bytes long.
    pub(crate) fn push(&mut self, kind: u8, payload: &[u8], compressor: &mut Compressor) -> Lsn {
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        let (stored, flags) = match compressor.compress(payload) {
            Some(compressed) => (compressed, ZSTD),
            None => (payload, 0),
        };
        let header = FrameHeader {
            payload_crc: crc32c::crc32c(stored),
            stored: stored.len() as u32,
            lsn: self.next(),
            time: self.time,
            append: self.first,
            kind,
            flags,
        };
        self.starts.push(self.bytes.len() as u64 / 8);
        self.bytes.extend(header.encode(self.salt));
        self.bytes.extend(stored);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.last = Some(header);
        header.lsn
    }

    /// Ends the batch: the frames since the last call survive together or not at all.
    pub(crate) fn end_batch(&mut self) {
        if let (Some(header), Some(start)) = (&mut self.last, self.starts.last()) {
            header.flags |= END_OF_BATCH;
            let at = *start as usize * 8;
            self.bytes[at..at + FRAME_HEADER].copy_from_slice(&header.encode(self.salt));
        }
    }

    /// The fingerprint of the last frame; see [`Log::fingerprint`].
    pub(crate) fn fingerprint(&self) -> u64 {
        self.last.map_or(0, |header| header.fingerprint(self.salt))
    }
}

/// Why an append was not made durable.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Too little space, for deletes too or not; nothing was written and the next append may succeed.
    Full { free: u64, needed: u64, refuses_deletes: bool },
    /// The log has reached its size limit; nothing was written and the next append may succeed.
    Quota { used: u64, limit: u64 },
    /// The next segment's file cannot be opened; nothing was written and the next append may succeed.
    NoFiles { source: io::Error },
    /// A write or sync failed; whether the append is on the disk is unknown, and the writer accepts no more.
    Failed { path: PathBuf, source: io::Error },
}

/// A segment that has reached this fraction of its size is sealed when half of it is dead.
const EARLY_SEAL_FROM: u64 = 8;

/// The size limits of the writer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A segment is sealed when the next append would exceed this size, or earlier when most of it is dead.
    pub(crate) segment_bytes: u64,
    /// Space left free on the file system.
    pub(crate) reserve_bytes: u64,
    /// Maximum size of the log in bytes; 0 for no limit.
    pub(crate) max_bytes: u64,
}

/// What an append is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It adds records and must leave the reserve free.
    Add,
    /// It only deletes, which lets compaction free space: it may use half of the reserve and exceed the quota.
    Delete,
}

/// Appends to a log. There is one for each [`Log`].
pub(crate) struct LogWriter {
    log: Arc<Log>,
    limits: Limits,
    file: Arc<dyn DiskFile>,
    first: Lsn,
    /// The segment's format; new records require [`FORMAT`].
    format: u16,
    end: u64,
    allocated: u64,
    unproven: Range<u64>,
    /// Whether the segment's header and name may not be on the disk yet.
    is_start_unproven: bool,
}

impl LogWriter {
    pub(crate) fn new(log: Arc<Log>, tail: Tail, limits: Limits) -> Self {
        let Tail { file, allocated, unproven, .. } = tail;
        let (first, format, end) = {
            let segments = log.segments.read();
            let last = segments.last().expect("never empty");
            (last.first, last.format, last.end)
        };
        // An append is made only once the start of its segment is on the disk, so one that may not be there itself
        // proves nothing.
        let is_start_unproven = unproven.start <= SEGMENT_START;
        Self { log, limits, file, first, format, end, allocated, unproven, is_start_unproven }
    }

    /// Makes an append durable and visible. After [`AppendError::Failed`] it must not be called again.
    pub(crate) fn append(&mut self, append: &Append, purpose: Purpose, now: UnixMillis) -> Result<(), AppendError> {
        if append.is_empty() {
            return Ok(());
        }
        let length = append.bytes.len() as u64;
        self.check_space(length, purpose)?;
        self.prove_tail()?;
        let is_full = self.end + length > self.limits.segment_bytes;
        if self.end > SEGMENT_START && (is_full || self.format != FORMAT || self.is_mostly_dead()) {
            self.roll(append.first, now)?;
        }
        self.reserve(length)?;
        self.file.write_at(&append.bytes, self.end).map_err(|source| self.failed(source))?;
        self.file.sync_data().map_err(|source| self.failed(source))?;
        let base = self.end / 8;
        self.end += length;
        let mut segments = self.log.segments.write();
        let segment = segments.last_mut().expect("never empty");
        segment.frames.extend(append.starts.iter().map(|start| {
            // An append of 32 GiB would not fit into memory.
            u32::try_from(base + start).expect("a segment is shorter than 32 GiB")
        }));
        segment.end = self.end;
        drop(segments);
        self.log.last.store(append.next().0 - 1, Ordering::Release);
        Ok(())
    }

    /// Whether so much of the segment is dead that it is sealed before it is full. Otherwise a store whose few
    /// documents are replaced repeatedly would retain a whole segment of dead records.
    fn is_mostly_dead(&self) -> bool {
        let bytes = self.end - SEGMENT_START;
        let dead = || self.log.dead.lock().bytes_in(self.first);
        bytes >= self.limits.segment_bytes / EARLY_SEAL_FROM && dead().saturating_mul(2) >= bytes
    }

    /// Seals the segment that is being written, unless it is empty.
    pub(crate) fn seal(&mut self, now: UnixMillis) -> Result<(), AppendError> {
        if self.end == SEGMENT_START {
            return Ok(());
        }
        self.prove_tail()?;
        self.roll(self.log.last().next(), now)
    }

    /// Whether `length` bytes may be appended.
    pub(crate) fn check_space(&self, length: u64, purpose: Purpose) -> Result<(), AppendError> {
        let growth = (self.end + length).saturating_sub(self.allocated);
        let needed_to = |purpose| {
            let reserve = match purpose {
                Purpose::Add => self.limits.reserve_bytes,
                Purpose::Delete => self.limits.reserve_bytes / 2,
            };
            reserve.saturating_add(growth)
        };
        let needed = needed_to(purpose);
        let (used, limit) = (self.log.bytes(), self.limits.max_bytes);
        if purpose == Purpose::Add && limit > 0 && used.saturating_add(length) > limit {
            return Err(AppendError::Quota { used, limit });
        }
        match self.log.disk.free_space(&self.log.dir) {
            Ok(free) if free < needed => {
                Err(AppendError::Full { free, needed, refuses_deletes: free < needed_to(Purpose::Delete) })
            }
            // Where the free space cannot be read, the write will show.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Writes the last append found at the start again, before the first new one follows it. If the sync of an earlier
    /// process failed, the kernel holds that append in its cache, marked clean, while the disk does not have it; only
    /// another write makes it reach the disk. The same applies to the header of a segment without another append, and
    /// to its name: the process that created it may have ended before it synced the directory.
    pub(crate) fn prove_tail(&mut self) -> Result<(), AppendError> {
        if self.is_start_unproven {
            let mut header = [0; SEGMENT_START as usize];
            // Shorter if the power failed while it was written; its first copy is complete then.
            let length = self.file.read_at(&mut header, 0).map_err(|source| self.failed(source))?;
            self.file.write_at(&header[..length], 0).map_err(|source| self.failed(source))?;
            self.file.sync_data().map_err(|source| self.failed(source))?;
            self.log.disk.sync_dir(&self.log.dir).map_err(|source| self.failed(source))?;
            self.is_start_unproven = false;
        }
        while !self.unproven.is_empty() {
            let length = (self.unproven.end - self.unproven.start).min(1 << 20);
            let mut bytes = vec![0; length as usize];
            let at = self.unproven.start;
            read_exact_at(&*self.file, &mut bytes, at).map_err(|source| self.failed(source))?;
            self.file.write_at(&bytes, at).map_err(|source| self.failed(source))?;
            self.unproven.start += length;
            if self.unproven.is_empty() {
                self.file.sync_data().map_err(|source| self.failed(source))?;
            }
        }
        Ok(())
    }

    /// Seals the segment and starts the next one. If there is no space for it, the old one stays complete and in use.
    fn roll(&mut self, first: Lsn, now: UnixMillis) -> Result<(), AppendError> {
        // The two steps are independent: only reserved space is cut off, and a new segment without a frame holds
        // nothing.
        let cut = || self.file.truncate(self.end).and_then(|()| self.file.sync_all());
        let (cut, mut created) = side_by_side(cut, || self.log.create_segment(first, now));
        if created.as_ref().err().is_some_and(is_out_of_files) {
            // Files open for reading are reopened on demand.
            self.log.forget_files();
            // What the first attempt left has no frames.
            let _ = self.log.disk.remove(&segment_path(&self.log.dir, first));
            created = self.log.create_segment(first, now);
        }
        cut.map_err(|source| self.failed(source))?;
        self.allocated = self.end;
        let file = match created {
            Ok(file) => file,
            Err(source) => {
                let path = segment_path(&self.log.dir, first);
                // If it stays, the next start removes it, as it has no frames.
                let removed = self.log.disk.remove(&path);
                if is_out_of_files(&source) && removed.as_ref().err().is_none_or(is_absent) {
                    return Err(AppendError::NoFiles { source });
                }
                let removed = removed.and_then(|()| self.log.disk.sync_dir(&self.log.dir));
                return Err(match (is_full(&source), removed) {
                    (true, Ok(())) => {
                        AppendError::Full { free: 0, needed: self.limits.reserve_bytes, refuses_deletes: true }
                    }
                    _ => AppendError::Failed { path, source },
                });
            }
        };
        {
            let segments = self.log.segments.read();
            let sealed = segments.last().expect("never empty");
            self.log.write_index(sealed.first, sealed.end, &sealed.frames);
        }
        self.log.start_segment(first, now);
        self.file = file;
        self.first = first;
        self.format = FORMAT;
        self.end = SEGMENT_START;
        self.allocated = SEGMENT_START;
        Ok(())
    }

    fn reserve(&mut self, length: u64) -> Result<(), AppendError> {
        let needed = self.end + length;
        if needed <= self.allocated {
            return Ok(());
        }
        let target = needed.next_multiple_of(RESERVE_STEP).min(self.limits.segment_bytes).max(needed);
        match self.file.allocate(self.allocated, target - self.allocated) {
            Ok(()) => {
                self.allocated = target;
                Ok(())
            }
            Err(source) if is_full(&source) => {
                Err(AppendError::Full { free: 0, needed: target - self.allocated, refuses_deletes: true })
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: io::Error) -> AppendError {
        AppendError::Failed { path: segment_path(&self.log.dir, self.first), source }
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
