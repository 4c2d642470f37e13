//! The effect of damage on documents, and replacing damaged segments with sound ones.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, RealDisk};
use super::log::{Frame, ReadError, SEGMENT_MISSING, segment_firsts, segment_path};
use super::record::{Record, decode_chunk, kind};
use super::{DocumentRecord, Reader, SegmentReport, check_segment};
use crate::base::Lsn;

/// Documents of a collection that are checked between two queries of the catalog.
const PAGE: usize = 1000;

/// A document affected by damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// Name of its collection.
    pub collection: String,
    /// Its id.
    pub document: String,
    /// Passages that cannot be read; `None` when the document record itself cannot.
    pub passages: Option<usize>,
}

impl Reader {
    /// The documents known to be damaged, at most `limit`. A document whose record was unreadable when the catalog was
    /// built is not included: its name is lost.
    ///
    /// # Errors
    /// When the catalog or the disk cannot be read.
    pub fn affected(&self, limit: usize) -> Result<Vec<Affected>, ReadError> {
        let mut found = Vec::new();
        for info in self.collections() {
            let mut after: Option<String> = None;
            loop {
                let page = self.list(info.id, after.as_deref(), "", PAGE)?;
                for (id, entry) in &page {
                    let lost = match self.document(entry.lsn) {
                        Ok(document) => Some(self.unreadable_chunks(&document)?),
                        Err(error) if error.is_damage() => None,
                        Err(error) => return Err(error),
                    };
                    if lost != Some(0) {
                        let (collection, document) = (info.name.clone(), id.clone());
                        found.push(Affected { collection, document, passages: lost });
                        if found.len() == limit {
                            return Ok(found);
                        }
                    }
                }
                match page.last() {
                    Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    /// Reads and decodes every record, also those that nothing refers to any more: afterwards [`Self::damage`] lists
    /// everything that is damaged. Returns how many are readable.
    ///
    /// # Errors
    /// When the disk fails, or only a newer release understands a record.
    pub fn check_records(&self) -> Result<u64, ReadError> {
        let mut readable = 0;
        let mut lsn = self.log.next_readable(Lsn::ZERO.next());
        while lsn <= self.last() {
            match self.check_record(lsn) {
                Ok(()) => readable += 1,
                // It is on the list now.
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            lsn = self.log.next_readable(lsn.next());
        }
        Ok(readable)
    }

    fn check_record(&self, lsn: Lsn) -> Result<(), ReadError> {
        let Frame { header, payload } = self.log.read(lsn)?;
        let decoded = match header.kind {
            _ if header.is_skipped() => Ok(()),
            kind::CHUNK => decode_chunk(&payload).map(drop),
            number => Record::decode(number, lsn, header.time, &payload).map(drop),
        };
        decoded.map_err(|error| self.log.unreadable(lsn, error.0))
    }

    /// How many chunks of a document are damaged.
    fn unreadable_chunks(&self, document: &DocumentRecord) -> Result<usize, ReadError> {
        let mut unreadable = 0;
        for chunk in &document.chunks {
            match self.log.read(chunk.lsn) {
                Ok(_) => {}
                Err(error) if error.is_damage() => unreadable += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(unreadable)
    }

    /// The ranges of LSNs, as first and one past the last, of sealed segments that are damaged or missing: [`repair`]
    /// needs sound segments for these.
    #[must_use]
    pub fn damaged_segments(&self) -> Vec<(Lsn, Lsn)> {
        let damage = self.damage();
        let mut ranges = Vec::new();
        let mut next = Lsn::ZERO.next();
        for segment in self.sealed_segments() {
            if next < segment.first {
                ranges.push((next, segment.first));
            }
            if damage.iter().any(|place| place.path == segment.path && place.what != SEGMENT_MISSING) {
                ranges.push((segment.first, segment.end));
            }
            next = segment.end;
        }
        if let Some(active) = self.log.segments.read().last()
            && next < active.first
        {
            ranges.push((next, active.first));
        }
        ranges
    }
}

/// A sound segment file that may replace a damaged one.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The file; it is copied.
    pub path: PathBuf,
    /// Its content.
    pub report: SegmentReport,
}

impl Replacement {
    /// Reads a segment file and accepts it when every checksum in it is valid.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn check(path: &Path) -> io::Result<Self> {
        let report = check_segment(path)?;
        match report.damage.first() {
            None => Ok(Self { path: path.to_owned(), report }),
            Some(damage) => Err(io::Error::new(io::ErrorKind::InvalidData, damage.to_string())),
        }
    }
}

/// Chooses a row of segments, given by first and one past the last LSN, that covers exactly `range`. Prefers long ones;
/// returns indices into `segments`.
#[must_use]
pub fn cover(segments: &[(Lsn, Lsn)], range: (Lsn, Lsn)) -> Option<Vec<usize>> {
    if range.0 == range.1 {
        return Some(Vec::new());
    }
    let mut starts: Vec<usize> =
        (0..segments.len()).filter(|at| segments[*at].0 == range.0 && segments[*at].1 <= range.1).collect();
    starts.retain(|at| segments[*at].1 > segments[*at].0);
    starts.sort_by_key(|at| std::cmp::Reverse(segments[*at].1));
    starts.into_iter().find_map(|at| {
        let rest = cover(segments, (segments[at].1, range.1))?;
        Some([vec![at], rest].concat())
    })
}

/// Replaces damaged or missing segments with sound ones. The store must not be open. The views are removed and rebuilt
/// by the next start.
///
/// * `row`: adjacent segments, all of this node's log; see [`cover`].
///
/// # Errors
/// When a file cannot be read or written. Segments replaced until then are sound; repeating the call is safe.
pub fn repair(data_dir: &Path, row: &[Replacement]) -> io::Result<()> {
    let log = data_dir.join("log");
    let (Some(first), Some(last)) = (row.first(), row.last()) else { return Ok(()) };
    let disk = RealDisk;
    // Segments that were merged into the damaged one must exist before the sound first one, which no longer covers
    // them.
    for replacement in row.iter().rev() {
        let path = segment_path(&log, replacement.report.first);
        let temporary = path.with_extension("seg.tmp");
        fs::copy(&replacement.path, &temporary)?;
        File::open(&temporary)?.sync_all()?;
        disk.rename(&temporary, &path)?;
        match fs::remove_file(path.with_extension("idx")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        disk.sync_dir(&log)?;
    }
    // Segments inside the range that are not in the row belong to the damaged state.
    let kept: Vec<Lsn> = row.iter().map(|replacement| replacement.report.first).collect();
    for other in segment_firsts(&disk.list(&log)?) {
        if first.report.first < other && other < last.report.end && !kept.contains(&other) {
            disk.remove(&segment_path(&log, other))?;
        }
    }
    disk.sync_dir(&log)?;
    match fs::remove_dir_all(data_dir.join("views")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_covers_a_range_without_gaps_or_overlaps() {
        let segments = [(1, 5), (5, 9), (1, 7), (9, 12), (7, 9), (6, 9)].map(|(first, end)| (Lsn(first), Lsn(end)));
        assert_eq!(cover(&segments, (Lsn(1), Lsn(9))), Some(vec![2, 4]));
        assert_eq!(cover(&segments, (Lsn(5), Lsn(12))), Some(vec![1, 3]));
        assert_eq!(cover(&segments, (Lsn(1), Lsn(6))), None);
    }
}
