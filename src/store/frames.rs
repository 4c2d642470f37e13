//! Positions of the frames in one segment, by LSN.
//!
//! An original segment has a frame for every LSN and needs four bytes for each. A compacted one has gaps and needs
//! eight bytes for each remaining frame, regardless of the gaps.

use std::ops::Range;

use super::segment::UNREADABLE;
use crate::base::Lsn;

/// Offsets ÷ 8, [`UNREADABLE`] for damaged frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frames {
    /// One for every LSN, starting with the segment's first.
    Dense(Vec<u32>),
    /// The frames that compaction kept.
    Sparse {
        /// LSN minus the segment's first one, ascending.
        lsns: Vec<u32>,
        /// In the order of `lsns`.
        offsets: Vec<u32>,
        /// LSNs that may have existed: bytes between their neighbours are damaged.
        lost: Vec<Range<u64>>,
    },
}

/// What a segment contains at an LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A frame, in bytes; `next` is the start of the next frame whose position is known, if any.
    At {
        /// First byte.
        offset: u64,
        /// First byte of the next.
        next: Option<u64>,
    },
    /// A frame that is damaged, or may have existed.
    Unreadable,
    /// Nothing: the record was dead and was dropped.
    Absent,
}

impl Frames {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Dense(offsets) | Self::Sparse { offsets, .. } => offsets.len(),
        }
    }

    /// Adds the frames of the next LSNs; only the active segment grows.
    pub(crate) fn extend(&mut self, more: impl Iterator<Item = u32>) {
        match self {
            Self::Dense(offsets) => offsets.extend(more),
            Self::Sparse { .. } => unreachable!("a compacted segment is not written into"),
        }
    }

    /// What is at `lsn`, in a segment whose first LSN is `first`.
    pub(crate) fn slot(&self, first: Lsn, lsn: Lsn) -> Slot {
        let index = match self {
            Self::Dense(_) => (lsn.0 - first.0) as usize,
            Self::Sparse { lsns, lost, .. } => {
                match u32::try_from(lsn.0 - first.0).map(|delta| lsns.binary_search(&delta)) {
                    Ok(Ok(index)) => index,
                    _ if lost.iter().any(|range| range.contains(&lsn.0)) => return Slot::Unreadable,
                    _ => return Slot::Absent,
                }
            }
        };
        let (Self::Dense(offsets) | Self::Sparse { offsets, .. }) = self;
        match offsets.get(index) {
            None | Some(&UNREADABLE) => Slot::Unreadable,
            Some(&offset) => {
                let next = offsets.get(index + 1).filter(|next| **next != UNREADABLE);
                Slot::At { offset: u64::from(offset) * 8, next: next.map(|next| u64::from(*next) * 8) }
            }
        }
    }

    /// The first readable record at or after `from`.
    pub(crate) fn next_readable(&self, first: Lsn, from: Lsn) -> Option<Lsn> {
        let skip = from.0.saturating_sub(first.0);
        match self {
            Self::Dense(offsets) => {
                let skip = usize::try_from(skip).ok()?;
                let index = offsets.get(skip..)?.iter().position(|offset| *offset != UNREADABLE)?;
                Some(Lsn(first.0 + (skip + index) as u64))
            }
            Self::Sparse { lsns, offsets, .. } => {
                let at = lsns.partition_point(|delta| u64::from(*delta) < skip);
                let index = offsets[at..].iter().position(|offset| *offset != UNREADABLE)?;
                Some(Lsn(first.0 + u64::from(lsns[at + index])))
            }
        }
    }

    /// The LSNs in `range` that are damaged or may be missing, as first and last; `None` when there are none.
    pub(crate) fn lost_in(&self, first: Lsn, range: &Range<u64>) -> Option<(Lsn, Lsn)> {
        let mut found: Option<(u64, u64)> = None;
        let mut add = |from: u64, to: u64| {
            if from < to {
                let (low, high) = found.unwrap_or((from, to - 1));
                found = Some((low.min(from), high.max(to - 1)));
            }
        };
        match self {
            Self::Dense(offsets) => {
                let end = range.end.min(first.0 + offsets.len() as u64);
                let is_bad = |lsn: &u64| offsets[(lsn - first.0) as usize] == UNREADABLE;
                (range.start.max(first.0)..end).filter(is_bad).for_each(|lsn| add(lsn, lsn + 1));
            }
            Self::Sparse { lsns, offsets, lost } => {
                lost.iter().for_each(|bad| add(bad.start.max(range.start), bad.end.min(range.end)));
                let bad = lsns.iter().zip(offsets).filter(|(_, offset)| **offset == UNREADABLE);
                bad.map(|(delta, _)| first.0 + u64::from(*delta))
                    .filter(|lsn| range.contains(lsn))
                    .for_each(|lsn| add(lsn, lsn + 1));
            }
        }
        found.map(|(low, high)| (Lsn(low), Lsn(high)))
    }

    /// Whether a frame is known to be damaged or missing.
    pub(crate) fn is_damaged(&self) -> bool {
        match self {
            Self::Dense(offsets) => offsets.contains(&UNREADABLE),
            Self::Sparse { offsets, lost, .. } => !lost.is_empty() || offsets.contains(&UNREADABLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_absent_and_a_damaged_range_is_not() {
        let lost = std::iter::once(14..16).collect();
        let frames = Frames::Sparse { lsns: vec![0, 3, 7], offsets: vec![32, 40, UNREADABLE], lost };
        let first = Lsn(10);
        assert_eq!(frames.slot(first, Lsn(10)), Slot::At { offset: 256, next: Some(320) });
        assert_eq!(frames.slot(first, Lsn(11)), Slot::Absent);
        assert_eq!(frames.slot(first, Lsn(14)), Slot::Unreadable);
        assert_eq!(frames.slot(first, Lsn(17)), Slot::Unreadable);
        assert_eq!(frames.next_readable(first, Lsn(11)), Some(Lsn(13)));
        assert_eq!(frames.next_readable(first, Lsn(14)), None);
        assert_eq!(frames.lost_in(first, &(11..13)), None);
        assert_eq!(frames.lost_in(first, &(11..18)), Some((Lsn(14), Lsn(17))));
    }
}
