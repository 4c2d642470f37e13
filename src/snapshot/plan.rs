//! Which segment files make the state of the log at one position. Pure.
//!
//! A segment as written serves every state; a compacted one those from its `as_of` on. Manifests may lend each other
//! segments where their histories agree: two logs with the same epochs up to a position hold the same records up to it.

use std::collections::BTreeMap;

use super::manifest::{SegmentEntry, SnapshotManifest};
use crate::base::{Lsn, UnixMillis};

/// Whether `other` saw the same records as `one` up to `last`, as far as it reaches.
fn agree(one: &SnapshotManifest, other: &SnapshotManifest, last: Lsn) -> bool {
    let common = last.min(other.last);
    one.node == other.node && one.history_at(common) == other.history_at(common)
}

/// The segments of `manifests` that can be used for the state at `last` in the history of `target`.
fn eligible<'a>(
    manifests: &'a [SnapshotManifest],
    target: &SnapshotManifest,
    last: Lsn,
) -> impl Iterator<Item = &'a SegmentEntry> {
    let lenders: Vec<&SnapshotManifest> = manifests.iter().filter(|lender| agree(target, lender, last)).collect();
    lenders.into_iter().flat_map(|lender| &lender.segments)
}

/// The segments that hold 1 to `last` in the history of `target`, in order: of all ways the one with the fewest bytes.
/// Only the last may reach beyond `last`; it has to be cut. On failure the first position that nothing covers.
pub(super) fn cover(
    manifests: &[SnapshotManifest],
    target: &SnapshotManifest,
    last: Lsn,
) -> Result<Vec<SegmentEntry>, Lsn> {
    let mut starts: BTreeMap<Lsn, Vec<&SegmentEntry>> = BTreeMap::new();
    let usable = eligible(manifests, target, last)
        .filter(|segment| segment.as_of <= last && segment.first <= last && segment.first < segment.end);
    for segment in usable {
        starts.entry(segment.first).or_default().push(segment);
    }
    // Segments lead forward only, so one pass in order of position finds the best way to each.
    let mut best: BTreeMap<Lsn, (u64, Option<&SegmentEntry>)> = BTreeMap::from([(Lsn(1), (0, None))]);
    let mut reached = Lsn(1);
    let mut position = Lsn(1);
    loop {
        let (bytes, _) = best[&position];
        for segment in starts.get(&position).into_iter().flatten() {
            let total = bytes + segment.bytes;
            let known = best.get(&segment.end).is_none_or(|(least, _)| total < *least);
            if known {
                best.insert(segment.end, (total, Some(segment)));
                reached = reached.max(segment.end);
            }
        }
        match best.range(position.next()..).next() {
            Some((&next, _)) if next <= last => position = next,
            _ => break,
        }
    }
    let ends = best.range(last.next()..).min_by_key(|(_, (bytes, _))| *bytes).map(|(&end, _)| end);
    let Some(mut end) = ends else { return Err(reached) };
    let mut chosen = Vec::new();
    while let Some((_, Some(segment))) = best.get(&end) {
        chosen.push((*segment).clone());
        end = segment.first;
    }
    chosen.reverse();
    Ok(chosen)
}

/// The manifest whose history leads to `last`, starting from the newest one; of several the one that ends first.
pub(super) fn with_position(manifests: &[SnapshotManifest], last: Lsn) -> Option<&SnapshotManifest> {
    let newest = manifests.iter().max_by_key(|manifest| manifest.created)?;
    let reaching = manifests.iter().filter(|manifest| {
        manifest.last >= last && manifest.node == newest.node && manifest.history_at(last) == newest.history_at(last)
    });
    reaching.min_by_key(|manifest| (manifest.last, manifest.created))
}

/// What is known about the log position of a point in time.
#[derive(Debug, PartialEq)]
pub(super) enum Moment<'a> {
    /// It is this one.
    Known(Lsn),
    /// It is in this segment: the file must be asked.
    Within(&'a SegmentEntry),
    /// Nothing was written so early.
    TooEarly,
}

/// The first manifest after `time`, or the newest, and the position of that time in its history.
pub(super) fn at_time(manifests: &[SnapshotManifest], time: UnixMillis) -> Option<(&SnapshotManifest, Moment<'_>)> {
    let next = manifests.iter().filter(|manifest| manifest.created >= time).min_by_key(|manifest| manifest.created);
    let target = next.or_else(|| manifests.iter().max_by_key(|manifest| manifest.created))?;
    if target.last_time <= time {
        return Some((target, Moment::Known(target.last)));
    }
    let begun = eligible(manifests, target, target.last)
        .filter(|segment| segment.first <= target.last && segment.first_time <= time);
    // Of two with the same first record the one as written knows every time.
    let found = begun.max_by_key(|segment| (segment.first, std::cmp::Reverse(segment.as_of)));
    let moment = match found {
        None => Moment::TooEarly,
        Some(segment) if segment.last_time <= time => Moment::Known(Lsn(segment.end.0 - 1)),
        Some(segment) => Moment::Within(segment),
    };
    Some((target, moment))
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::{manifest, segment};
    use super::*;

    fn chosen(manifests: &[SnapshotManifest], target: usize, last: u64) -> Result<Vec<(u64, u64, u64)>, u64> {
        let covered = cover(manifests, &manifests[target], Lsn(last)).map_err(|lsn| lsn.0)?;
        Ok(covered.iter().map(|segment| (segment.first.0, segment.end.0, segment.as_of.0)).collect())
    }

    #[test]
    fn a_snapshot_covers_itself_and_every_position_before_its_end() {
        let one = [manifest(&[("a", 1)], vec![segment(1, 5, 0), segment(5, 9, 0)])];
        assert_eq!(chosen(&one, 0, 8), Ok(vec![(1, 5, 0), (5, 9, 0)]));
        assert_eq!(chosen(&one, 0, 6), Ok(vec![(1, 5, 0), (5, 9, 0)]));
        assert_eq!(chosen(&one, 0, 4), Ok(vec![(1, 5, 0)]));
        assert_eq!(chosen(&one, 0, 9), Err(9));
    }

    #[test]
    fn compacted_segments_serve_no_state_before_they_were_compacted() {
        let mut compacted = segment(1, 9, 12);
        compacted.bytes = 10;
        let old = manifest(&[("a", 1)], vec![segment(1, 5, 0), segment(5, 9, 0)]);
        let new = manifest(&[("a", 1)], vec![compacted, segment(9, 13, 0)]);
        let both = [old, new];
        assert_eq!(chosen(&both, 1, 12), Ok(vec![(1, 9, 12), (9, 13, 0)]));
        assert_eq!(chosen(&both, 1, 10), Ok(vec![(1, 5, 0), (5, 9, 0), (9, 13, 0)]), "lent by the older manifest");
        assert_eq!(chosen(&both[1..], 0, 10), Err(1));
    }

    #[test]
    fn an_abandoned_history_lends_only_what_both_share() {
        let abandoned = manifest(&[("a", 1)], vec![segment(1, 5, 0), segment(5, 12, 0)]);
        let restored = manifest(&[("a", 1), ("b", 7)], vec![segment(1, 5, 0), segment(5, 7, 0), segment(7, 10, 0)]);
        let both = [abandoned, restored];
        assert_eq!(chosen(&both, 1, 9), Ok(vec![(1, 5, 0), (5, 7, 0), (7, 10, 0)]));
        assert_eq!(chosen(&both, 0, 11), Ok(vec![(1, 5, 0), (5, 12, 0)]));
        let mut gap = both.clone();
        gap[1].segments.remove(1);
        assert_eq!(chosen(&gap, 1, 9), Err(5), "records 5 and 6 of the abandoned log end in one with 7 to 11");
        assert_eq!(chosen(&gap, 1, 6), Ok(vec![(1, 5, 0), (5, 12, 0)]), "cut before they part");
    }

    #[test]
    fn a_position_belongs_to_the_newest_history() {
        let abandoned = manifest(&[("a", 1)], vec![segment(1, 12, 0)]);
        let mut restored = manifest(&[("a", 1), ("b", 7)], vec![segment(1, 7, 0), segment(7, 10, 0)]);
        restored.created = UnixMillis(99_000);
        let both = [abandoned, restored];
        assert_eq!(with_position(&both, Lsn(6)).map(|manifest| manifest.last), Some(Lsn(9)));
        assert_eq!(with_position(&both, Lsn(9)).map(|manifest| manifest.last), Some(Lsn(9)));
        assert_eq!(with_position(&both, Lsn(11)), None, "abandoned");
    }

    #[test]
    fn a_moment_is_found_in_the_snapshot_that_followed() {
        let one = [manifest(&[("a", 1)], vec![segment(1, 5, 0), segment(5, 9, 0)])];
        let moment = |time: i64| at_time(&one, UnixMillis(time)).expect("there is one").1;
        assert_eq!(moment(8_000), Moment::Known(Lsn(8)));
        assert_eq!(moment(99_000), Moment::Known(Lsn(8)));
        assert_eq!(moment(6_500), Moment::Within(&one[0].segments[1]));
        assert_eq!(moment(4_500), Moment::Known(Lsn(4)));
        assert_eq!(moment(500), Moment::TooEarly);
        assert_eq!(at_time(&[], UnixMillis(1)), None);
    }
}
