//! Dead records in the segments of a log: how many bytes, and since when. Compaction uses this to choose segments and
//! to know when content must be erased.
//!
//! Invariants: a record is dead from the time of the record that replaced it, so a rebuild of the catalog finds the
//! same times. The catalog on disk is updated from this with its next change.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Decoder, Encode, RecordError};
use crate::base::{Lsn, UnixMillis};

/// The dead records of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadStats {
    /// Bytes of dead records, approximately.
    pub(crate) bytes: u64,
    /// When the first of them died.
    pub(crate) since: UnixMillis,
}

impl DeadStats {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.u64(self.bytes);
        out.i64(self.since.0);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut from = Decoder(value);
        let dead = Self { bytes: from.u64()?, since: UnixMillis(from.i64()?) };
        from.end()?;
        Ok(dead)
    }
}

/// Dead records by segment, keyed by its first LSN, as far as known.
#[derive(Debug, Default)]
pub(crate) struct DeadRecords {
    segments: BTreeMap<Lsn, DeadStats>,
    /// Segments whose value in the catalog is outdated.
    changed: BTreeSet<Lsn>,
}

impl DeadRecords {
    /// Loads the catalog's values. Segments that no longer exist are dropped here, and from the catalog with its next
    /// change.
    pub(crate) fn load(stored: BTreeMap<Lsn, DeadStats>, is_there: impl Fn(Lsn) -> bool) -> Self {
        let (segments, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            stored.into_iter().partition(|(first, _)| is_there(*first));
        Self { segments, changed: gone.into_keys().collect() }
    }

    /// The dead records of a segment; `None` when there are none.
    pub(crate) fn get(&self, first: Lsn) -> Option<DeadStats> {
        self.segments.get(&first).copied()
    }

    /// Dead bytes of a segment.
    pub(crate) fn bytes_in(&self, first: Lsn) -> u64 {
        self.get(first).map_or(0, |dead| dead.bytes)
    }

    /// Dead bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|dead| dead.bytes).sum()
    }

    /// The earliest time of death of any record that still exists.
    pub(crate) fn earliest_death(&self) -> Option<UnixMillis> {
        self.segments.values().map(|dead| dead.since).min()
    }

    /// The earliest time of death in the segments in which nothing died up to `time`.
    pub(crate) fn earliest_death_after(&self, time: UnixMillis) -> Option<UnixMillis> {
        self.segments.values().map(|dead| dead.since).filter(|since| *since > time).min()
    }

    /// Adds a dead record of `bytes` bytes.
    pub(crate) fn add(&mut self, first: Lsn, bytes: u64, at: UnixMillis) {
        let dead = self.segments.entry(first).or_insert(DeadStats { bytes: 0, since: at });
        dead.bytes += bytes;
        dead.since = dead.since.min(at);
        self.changed.insert(first);
    }

    /// Subtracts what a compaction removed; it merged the segments into one with the first one's name.
    ///
    /// * `cleared`: the values of the segments, by first LSN, when the compaction started. Records added since died at
    ///   `began` or later.
    pub(crate) fn clear(&mut self, cleared: impl Iterator<Item = (Lsn, u64)>, into: Lsn, began: UnixMillis) {
        let mut bytes = 0;
        for (first, known) in cleared {
            bytes += self.segments.remove(&first).map_or(0, |dead| dead.bytes.saturating_sub(known));
            self.changed.insert(first);
        }
        if bytes > 0 {
            self.add(into, bytes, began);
        }
    }

    /// The values that the catalog needs once `records` (segment, bytes, time of death) were added, by segment.
    pub(crate) fn values_with(
        &self,
        records: impl Iterator<Item = (Lsn, u64, UnixMillis)>,
    ) -> Vec<(Lsn, Option<DeadStats>)> {
        let mut values: BTreeMap<Lsn, Option<DeadStats>> =
            self.changed.iter().map(|first| (*first, self.get(*first))).collect();
        for (first, bytes, at) in records {
            let value = values.entry(first).or_insert_with(|| self.get(first));
            let dead = value.get_or_insert(DeadStats { bytes: 0, since: at });
            dead.bytes += bytes;
            dead.since = dead.since.min(at);
        }
        values.into_iter().collect()
    }

    /// The catalog has these values. Others remain to be written, such as those that a compaction changed meanwhile.
    pub(crate) fn mark_written(&mut self, values: &[(Lsn, Option<DeadStats>)]) {
        for (first, value) in values {
            if self.get(*first) == *value {
                self.changed.remove(first);
            }
        }
    }

    /// Whether the catalog needs a change.
    pub(crate) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_counts_and_what_dies_during_a_compaction_is_not_forgotten() {
        let mut dead = DeadRecords::default();
        dead.add(Lsn(1), 10, UnixMillis(50));
        dead.add(Lsn(1), 10, UnixMillis(40));
        dead.add(Lsn(9), 5, UnixMillis(60));
        assert_eq!(dead.get(Lsn(1)), Some(DeadStats { bytes: 20, since: UnixMillis(40) }));
        assert_eq!((dead.earliest_death(), dead.bytes()), (Some(UnixMillis(40)), 25));
        assert_eq!(dead.earliest_death_after(UnixMillis(40)), Some(UnixMillis(60)));
        let written = dead.values_with(std::iter::empty());
        assert_eq!(written.len(), 2);
        dead.mark_written(&written);
        assert!(!dead.is_changed());
        let written = dead.values_with([(Lsn(9), 7, UnixMillis(80))].into_iter());
        assert_eq!(written, [(Lsn(9), Some(DeadStats { bytes: 12, since: UnixMillis(60) }))]);
        dead.add(Lsn(9), 7, UnixMillis(80));
        dead.clear([(Lsn(1), 20), (Lsn(9), 5)].into_iter(), Lsn(1), UnixMillis(70));
        let left = DeadStats { bytes: 7, since: UnixMillis(70) };
        dead.mark_written(&written);
        let changed = dead.values_with(std::iter::empty());
        assert_eq!(changed, [(Lsn(1), Some(left)), (Lsn(9), None)], "a compaction changed it before it was published");
        dead.mark_written(&changed);
        assert!(!dead.is_changed());
        assert_eq!(DeadStats::decode(&left.encode()), Ok(left));
        let loaded = DeadRecords::load([(Lsn(1), left), (Lsn(9), left)].into(), |first| first == Lsn(1));
        assert_eq!((loaded.get(Lsn(9)), loaded.is_changed()), (None, true));
    }
}
