//! Compaction: rewrites segments with many dead records without them.
//!
//! Invariants:
//! * Only sealed, undamaged segments up to a floor that every follower has passed are touched, and a follower that is
//!   added meanwhile counts up to the moment at which they are replaced. A record is dropped only when the catalog says
//!   that something newer replaced it, and never if it is the last one of the log.
//! * Damage in a segment holds back that segment and no other.
//! * Tombstones stay until something replaces the deleted item.
//! * A process that is killed at any point leaves the old segments, or the new one and some of the old ones, which the
//!   next start removes: the new one is complete and durable before it takes the first one's name, and records which
//!   segments it covers.
//! * Compaction and writers never wait for each other: no lock is held during I/O.
//!
//! Selection: a segment of which at least [`DEAD_MIN`] is dead, the worst first, with neighbours that are worth it as
//! long as the result fits one segment; otherwise a segment in which something has been dead for too long, the one with the earliest death
//! first; otherwise a row of small ones. At 30 % the log is at most 1 ÷ 0.7 = 1.43 times the live data, and each freed
//! byte costs at most 0.7 ÷ 0.3 = 2.3 bytes of writing.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Reader;
use super::catalog::{Catalog, CatalogError};
use super::disk::DiskFile;
use super::frame::{Compacted, FrameHeader, SEGMENT_START, SegmentHeader};
use super::frames::Frames;
use super::log::{Log, ReadError, Segment, segment_end, segment_path};
use crate::base::{Fault, Lsn, UnixMillis};

/// Share of dead bytes from which a segment is rewritten, in percent.
const DEAD_MIN: u64 = 30;
/// A row of this many small segments is merged, so that their number stays low on a node that seals often.
const SMALL_ROW: usize = 8;
/// Bytes written between two checks of the clock and the stop signal.
const STEP_BYTES: u64 = 1 << 20;

/// Limits of a compaction.
#[derive(Debug, Clone, Copy)]
pub struct CompactionLimits {
    /// Only segments that end at or before this LSN; every view and every other follower has passed it, on stable storage.
    pub floor: Lsn,
    /// Longest segment to write, in bytes.
    pub segment_bytes: u64,
    /// Maximum bytes read and written each second, which leaves the disk for searches and writes; 0 for no limit.
    pub bytes_per_second: u64,
    /// Space to leave free on the file system while both the old and the new segments exist.
    pub reserve_bytes: u64,
    /// A segment that contains dead records of this age is rewritten, however few; `None`: only for its dead bytes.
    pub erase_within: Option<Duration>,
}

impl CompactionLimits {
    /// Records that died up to this time must be erased.
    fn erase_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.erase_within.map(|within| erase_until(now, within))
    }
}

fn erase_until(now: UnixMillis, within: Duration) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(i64::try_from(within.as_millis()).unwrap_or(i64::MAX)))
}

/// The result of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionReport {
    /// First record of the segments that were replaced.
    pub first: Lsn,
    /// How many segments there were.
    pub segments: usize,
    /// Their bytes.
    pub bytes_before: u64,
    /// Bytes of the new segment.
    pub bytes_after: u64,
    /// Records left out.
    pub records_dropped: u64,
}

/// Why a compaction was abandoned. The log is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// A record could not be read; its segment is left unchanged.
    #[error("a record cannot be read")]
    Read {
        /// First record of that segment.
        segment: Lsn,
        /// The cause.
        source: ReadError,
    },
    /// The new segment could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The catalog failed.
    #[error("the catalog does not say which records are alive")]
    Catalog(#[from] CatalogError),
    /// The caller refused to replace the segments.
    #[error("the records are held now")]
    Held,
    /// It was asked to stop.
    #[error("compaction was stopped")]
    Stopped,
}

impl CompactError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { source, .. } => source.fault(),
            Self::Catalog(source) => source.fault(),
            Self::Write { .. } | Self::Held | Self::Stopped => Fault::Environment,
        }
    }
}

impl Reader {
    /// Bytes of the log that are dead, as far as known.
    #[must_use]
    pub fn dead_bytes(&self) -> u64 {
        self.log.dead.lock().bytes()
    }

    /// Whether the active segment would be worth compacting if it were sealed.
    #[must_use]
    pub fn is_active_worth_rewriting(&self) -> bool {
        let dead = self.log.dead.lock();
        let segments = self.log.segments.read();
        segments
            .last()
            .is_some_and(|active| is_worth_rewriting(active.end - SEGMENT_START, dead.bytes_in(active.first)))
    }

    /// Whether the active segment contains records that have been dead for too long: it must be sealed and compacted.
    #[must_use]
    pub fn is_active_due(&self, erase_within: Duration) -> bool {
        let until = erase_until(self.clock.now(), erase_within);
        let dead = self.log.dead.lock();
        let segments = self.log.segments.read();
        let active = segments.last().and_then(|active| dead.get(active.first));
        active.is_some_and(|dead| dead.since <= until)
    }

    /// Time until the first dead record must be erased; `None` when nothing is dead.
    #[must_use]
    pub fn time_to_erasure(&self, erase_within: Duration) -> Option<Duration> {
        let earliest_death = self.log.dead.lock().earliest_death()?;
        Some(millis(earliest_death.0.saturating_sub(erase_until(self.clock.now(), erase_within).0)))
    }

    /// Time until the first record that died after `after` must be erased; `None` when there is none.
    #[must_use]
    pub fn time_to_erasure_after(&self, after: UnixMillis, erase_within: Duration) -> Option<Duration> {
        let death = self.log.dead.lock().earliest_death_after(after)?;
        Some(millis(death.0.saturating_sub(erase_until(self.clock.now(), erase_within).0)))
    }

    /// For how long the first dead record should have been erased; zero when none is due.
    #[must_use]
    pub fn erasure_overdue(&self, erase_within: Duration) -> Duration {
        let Some(death) = self.log.dead.lock().earliest_death() else { return Duration::ZERO };
        millis(erase_until(self.clock.now(), erase_within).0.saturating_sub(death.0))
    }

    /// Records that died up to this time must be erased now.
    #[must_use]
    pub fn erase_until(&self, erase_within: Duration) -> UnixMillis {
        erase_until(self.clock.now(), erase_within)
    }

    /// Whether [`Self::compact`] would find work; cheap.
    ///
    /// * `excluded`: as there.
    #[must_use]
    pub fn wants_compaction(&self, limits: &CompactionLimits, excluded: &BTreeSet<Lsn>) -> bool {
        !self.catalog.has_failed() && choose(&self.log, limits, excluded, self.clock.now()).is_some()
    }

    /// Rewrites the segments that are most worth it. Each call does one step; call it until it returns `None`.
    ///
    /// * `excluded`: segments to leave unchanged, by their first records: an earlier call could not read them.
    /// * `stop` is called after about every mebibyte; `true` cancels the work.
    /// * `permit` is called just before the segments are replaced, with one past their last record. `None` cancels the
    ///   work; what it returns is dropped when they are replaced.
    ///
    /// # Errors
    /// When something cannot be read or written, or `permit` refused; nothing has changed then.
    pub fn compact<P>(
        &self,
        limits: &CompactionLimits,
        excluded: &BTreeSet<Lsn>,
        stop: &dyn Fn(Duration) -> bool,
        permit: &dyn Fn(Lsn) -> Option<P>,
    ) -> Result<Option<CompactionReport>, CompactError> {
        self.log.drop_retired();
        if self.catalog.has_failed() {
            return Ok(None);
        }
        let now = self.clock.now();
        let Some(choice) = choose(&self.log, limits, excluded, now) else { return Ok(None) };
        let work = Work { log: &self.log, catalog: &self.catalog, now, limits, stop };
        work.rewrite(&choice, permit).map(Some)
    }

    /// Closes segments that were replaced longer ago than any request lasts. Returns the time until the next one can be
    /// closed; `None` when none is left.
    pub fn drop_retired(&self) -> Option<Duration> {
        self.log.drop_retired()
    }

    /// Whether segments that were replaced are open.
    #[cfg(test)]
    pub(crate) fn has_retired(&self) -> bool {
        self.log.has_retired()
    }
}

/// The time in milliseconds; zero for a negative one.
fn millis(time: i64) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap_or(0))
}

/// Adjacent segments that are merged into one.
struct MergePlan {
    firsts: Vec<Lsn>,
    end: Lsn,
    format: u16,
    epoch: u64,
    created: UnixMillis,
    bytes: u64,
    dead: Vec<u64>,
}

impl MergePlan {
    /// First record of the segment that contains `lsn`.
    fn segment_of(&self, lsn: Lsn) -> Lsn {
        let after = self.firsts.partition_point(|first| *first <= lsn);
        self.firsts[after.saturating_sub(1)]
    }
}

struct Candidate {
    first: Lsn,
    end: Lsn,
    format: u16,
    epoch: u64,
    created: UnixMillis,
    bytes: u64,
    dead: u64,
    /// When the first record that must be erased now died.
    due: Option<UnixMillis>,
    usable: bool,
}

impl Candidate {
    fn alive(&self) -> u64 {
        self.bytes - self.dead.min(self.bytes)
    }

    fn is_worth_rewriting(&self) -> bool {
        is_worth_rewriting(self.bytes, self.dead)
    }
}

fn is_worth_rewriting(bytes: u64, dead: u64) -> bool {
    // An empty segment has nothing to free.
    dead > 0 && dead.saturating_mul(100) >= bytes.saturating_mul(DEAD_MIN)
}

fn choose(log: &Log, limits: &CompactionLimits, excluded: &BTreeSet<Lsn>, now: UnixMillis) -> Option<MergePlan> {
    let erase_until = limits.erase_until(now);
    // Also what was found only when a record was read: the frames of an indexed segment are not scanned at a start.
    let damaged = log.damaged_segments();
    let is_unreadable = |segment: &Segment| {
        let first = segment.first;
        segment.frames.is_damaged() || damaged.contains(&first) || excluded.contains(&first)
    };
    let candidates: Vec<Candidate> = {
        let dead = log.dead.lock();
        let segments = log.segments.read();
        let sealed = segments.len() - 1;
        let candidate = |index: usize| {
            let segment: &Segment = &segments[index];
            let end = segment_end(segment, segments.get(index + 1));
            let adjoins = segments.get(index + 1).is_some_and(|next| next.first == end);
            Candidate {
                first: segment.first,
                end,
                format: segment.format,
                epoch: segment.epoch,
                created: segment.created,
                bytes: segment.end - SEGMENT_START,
                dead: dead.bytes_in(segment.first),
                due: dead.get(segment.first).map(|dead| dead.since).filter(|since| Some(*since) <= erase_until),
                usable: adjoins && end.0 <= limits.floor.0.saturating_add(1) && !is_unreadable(segment),
            }
        };
        (0..sealed).map(candidate).collect()
    };
    let free = log.disk.free_space(&log.dir).unwrap_or(u64::MAX).saturating_sub(limits.reserve_bytes);
    let most = limits.segment_bytes.min(free);
    let fits = |candidate: &Candidate| candidate.usable && candidate.alive() <= most;
    let worst = (0..candidates.len())
        .filter(|index| fits(&candidates[*index]) && candidates[*index].is_worth_rewriting())
        .max_by_key(|index| candidates[*index].dead * 1000 / candidates[*index].bytes.max(1));
    // Alone, it does not grow, even if it exceeds the limit for others.
    let oldest = (0..candidates.len())
        .filter(|index| candidates[*index].usable && candidates[*index].alive() <= free)
        .filter_map(|index| Some((candidates[index].due?, index)))
        .min();
    let worst = worst.or(oldest.map(|(_, index)| index));
    let small = |candidate: &Candidate| candidate.usable && candidate.alive() < limits.segment_bytes / 4;
    let row = match worst {
        Some(index) => grow(&candidates, index, most, |candidate| {
            candidate.is_worth_rewriting() || candidate.due.is_some() || small(candidate)
        }),
        None => {
            let row = (0..candidates.len()).map(|index| grow(&candidates, index, most, small));
            row.filter(|row| row.len() >= SMALL_ROW && small(&candidates[row.start]))
                .max_by_key(ExactSizeIterator::len)?
        }
    };
    let chosen = &candidates[row];
    let (one, last) = (chosen.first()?, chosen.last()?);
    Some(MergePlan {
        firsts: chosen.iter().map(|candidate| candidate.first).collect(),
        end: last.end,
        format: one.format,
        epoch: one.epoch,
        created: one.created,
        bytes: chosen.iter().map(|candidate| candidate.bytes).sum(),
        dead: chosen.iter().map(|candidate| candidate.dead).collect(),
    })
}

/// The row of segments from `at` on, as long as they are worth it, share epoch and format, and fit.
fn grow(candidates: &[Candidate], at: usize, most: u64, worth: impl Fn(&Candidate) -> bool) -> std::ops::Range<usize> {
    let mut bytes = candidates[at].alive();
    let joins = |next: &Candidate| {
        next.usable
            && next.epoch == candidates[at].epoch
            && next.format == candidates[at].format
            && u32::try_from(next.end.0 - candidates[at].first.0).is_ok()
    };
    let mut end = at + 1;
    while let Some(next) = candidates.get(end)
        && joins(next)
        && worth(next)
        && bytes + next.alive() <= most
    {
        bytes += next.alive();
        end += 1;
    }
    at..end
}

struct Work<'a> {
    log: &'a Log,
    catalog: &'a Catalog,
    now: UnixMillis,
    limits: &'a CompactionLimits,
    stop: &'a dyn Fn(Duration) -> bool,
}

/// The new segment while it is written.
struct Output {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    end: u64,
    lsns: Vec<u32>,
    offsets: Vec<u32>,
    pending: Vec<u8>,
}

impl Output {
    fn failed(&self) -> impl Fn(io::Error) -> CompactError {
        let path = self.path.clone();
        move |source| CompactError::Write { path: path.clone(), source }
    }

    fn flush(&mut self) -> Result<(), CompactError> {
        let at = self.end - self.pending.len() as u64;
        self.file.write_at(&self.pending, at).map_err(self.failed())?;
        self.pending.clear();
        // In small portions, so that no append waits for a large one.
        self.file.sync_data().map_err(self.failed())
    }
}

impl Work<'_> {
    fn rewrite<P>(
        &self,
        choice: &MergePlan,
        permit: &dyn Fn(Lsn) -> Option<P>,
    ) -> Result<CompactionReport, CompactError> {
        let first = choice.firsts[0];
        let path = segment_path(&self.log.dir, first).with_extension("seg.tmp");
        let written = self.write(choice, path.clone());
        let permitted = written.and_then(|written| Ok((written, permit(choice.end).ok_or(CompactError::Held)?)));
        if permitted.is_err() {
            // If it stays, the next start removes it.
            let _ = self.log.disk.remove(&path);
        }
        let ((output, compacted, dropped), _permit) = permitted?;
        self.swap(choice, &output, compacted)?;
        Ok(CompactionReport {
            first,
            segments: choice.firsts.len(),
            bytes_before: choice.bytes,
            bytes_after: output.end - SEGMENT_START,
            records_dropped: dropped,
        })
    }

    /// Writes the new segment, durable, under a temporary name.
    fn write(&self, choice: &MergePlan, path: PathBuf) -> Result<(Output, Compacted, u64), CompactError> {
        let first = choice.firsts[0];
        let _ = self.log.disk.remove(&path);
        let file = self.log.disk.create(&path).map_err(|source| CompactError::Write { path: path.clone(), source })?;
        let mut output =
            Output { file, path, end: SEGMENT_START, lsns: Vec::new(), offsets: Vec::new(), pending: Vec::new() };
        let began = Instant::now();
        let (mut dropped, mut moved) = (0, 0);
        let mut lsn = self.log.next_readable(first);
        while lsn < choice.end {
            let unreadable = |source| CompactError::Read { segment: choice.segment_of(lsn), source };
            let stored = self.log.read_stored(lsn).map_err(unreadable)?;
            let length = stored.bytes.len() as u64;
            moved += length;
            let is_alive = self.must_stay(&stored.header) || {
                let payload = self.log.payload_of(&stored).map_err(unreadable)?;
                self.catalog.refers(&stored.header, &payload, self.now)?
            };
            if is_alive {
                output.lsns.push((lsn.0 - first.0) as u32);
                output.offsets.push(u32::try_from(output.end / 8).expect("a segment is shorter than 32 GiB"));
                output.pending.extend(&stored.bytes);
                output.pending.resize(output.pending.len().next_multiple_of(8), 0);
                output.end += length.next_multiple_of(8);
            } else {
                dropped += 1;
            }
            if moved >= STEP_BYTES {
                output.flush()?;
                let pause = match self.limits.bytes_per_second {
                    0 => Duration::ZERO,
                    rate => Duration::from_secs_f64(moved as f64 / rate as f64),
                };
                moved = 0;
                if (self.stop)(pause) {
                    return Err(CompactError::Stopped);
                }
            }
            lsn = self.log.next_readable(lsn.next());
        }
        tracing::trace!(took = ?began.elapsed(), "a compacted segment was written");
        // Everything found dead was replaced by a record up to here.
        let compacted = Compacted { end: choice.end, as_of: self.log.last(), bytes: output.end };
        let header = SegmentHeader {
            // Frames are copied unchanged.
            format: choice.format,
            node: self.log.node,
            first,
            created: choice.created,
            salt: self.log.salt,
            epoch: choice.epoch,
            compacted: Some(compacted),
        };
        output.flush()?;
        output.file.write_at(&header.encode(), 0).map_err(output.failed())?;
        output.file.sync_all().map_err(output.failed())?;
        Ok((output, compacted, dropped))
    }

    /// Gives the new segment its name and removes those that it replaces.
    fn swap(&self, choice: &MergePlan, output: &Output, compacted: Compacted) -> Result<(), CompactError> {
        let (log, first) = (self.log, choice.firsts[0]);
        log.pin(&choice.firsts).map_err(output.failed())?;
        let named =
            log.disk.rename(&output.path, &segment_path(&log.dir, first)).and_then(|()| log.disk.sync_dir(&log.dir));
        if let Err(source) = named {
            // It is unknown which of the two has the name; both are complete, and readers have the old one open.
            return Err(output.failed()(source));
        }
        let frames = Frames::Sparse { lsns: output.lsns.clone(), offsets: output.offsets.clone(), lost: Vec::new() };
        log.write_index(first, output.end, &frames);
        log.replace(
            &choice.firsts,
            Segment {
                first,
                format: choice.format,
                salt: log.salt,
                epoch: choice.epoch,
                created: choice.created,
                compacted: Some(compacted),
                end: output.end,
                frames,
                pinned: None,
            },
        );
        {
            let cleared = choice.firsts.iter().copied().zip(choice.dead.iter().copied());
            log.dead.lock().clear(cleared, first, self.now);
        }
        // The new segment covers these; the next start removes those that a crash leaves.
        for old in &choice.firsts[1..] {
            let _ = log.disk.remove(&segment_path(&log.dir, *old));
            let _ = log.disk.remove(&segment_path(&log.dir, *old).with_extension("idx"));
        }
        let _ = log.disk.sync_dir(&log.dir);
        Ok(())
    }

    /// Whether a record must be kept whatever the catalog says.
    fn must_stay(&self, header: &FrameHeader) -> bool {
        // A record that a newer release wrote and marked as skippable can be judged only by that release.
        header.lsn >= self.log.last() || header.is_skipped()
    }
}
