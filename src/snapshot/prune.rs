//! Which snapshots are kept.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;

use super::manifest::{Kind, SnapshotManifest};
use super::repository::{Listed, Repository, RepositoryError};
use crate::base::{UnixMillis, setting};

/// Younger segments may belong to a snapshot in progress.
const YOUNG: i64 = 60 * 60 * 1_000;
const DAY: i64 = 24 * 60 * 60 * 1_000;

/// How much is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Retention {
    /// Days of which the last snapshot is kept.
    #[serde(deserialize_with = "setting::count::<_, 0, 10_000>")]
    pub daily: usize,
    /// Weeks, beginning on Mondays, in UTC.
    #[serde(deserialize_with = "setting::count::<_, 0, 10_000>")]
    pub weekly: usize,
    /// Months.
    #[serde(deserialize_with = "setting::count::<_, 0, 10_000>")]
    pub monthly: usize,
    /// Bytes that the segments may have together; the oldest snapshots go first, the newest never does.
    #[serde(deserialize_with = "setting::optional_bytes::<_, 0>")]
    pub max_bytes: Option<u64>,
    /// Everything younger than this is kept, so that every point in time within it can be restored.
    #[serde(deserialize_with = "setting::duration::<_, 0, { setting::ANY }>")]
    pub point_in_time: Duration,
}

/// The removed files, or those that would be removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of snapshots.
    pub snapshots: Vec<String>,
    /// Segment files that no snapshot needs any more.
    pub segments: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Snapshots that are left.
    pub kept: usize,
    /// Snapshots that cannot be read. While there are any, no segment is removed: they may need it.
    pub unreadable: Vec<String>,
}

/// What to prune.
pub(super) struct Pruning<'a> {
    /// Every snapshot there is.
    pub(super) listed: Vec<Listed>,
    /// Whose snapshots go; `None`: of every node those that its retention does not keep.
    pub(super) node: Option<String>,
    /// What stays.
    pub(super) retention: &'a Retention,
    pub(super) now: UnixMillis,
    /// Only says what would go.
    pub(super) dry_run: bool,
    /// Called before a snapshot is removed, so that it is not reported as missing.
    pub(super) forget: &'a dyn Fn(&str),
}

/// Removes what the retention does not keep, and verifies afterwards that it is gone.
pub(super) fn prune(repository: &Repository, pruning: Pruning<'_>) -> Result<Pruned, RepositoryError> {
    let Pruning { listed, node, retention, now, dry_run, forget } = pruning;
    let mut pruned = Pruned::default();
    let mut manifests = Vec::new();
    for listed in listed {
        match listed.manifest {
            Ok(manifest) => manifests.push(manifest),
            Err(_) => pruned.unreadable.push(listed.id),
        }
    }
    // Each node has its own retention, and leaves other nodes' snapshots alone.
    let is_meant = |other: &str| node.as_ref().is_none_or(|node| node == other);
    let nodes: HashSet<&str> = manifests.iter().map(|manifest| manifest.node.as_str()).collect();
    let mut kept = HashSet::new();
    for node in nodes {
        let own: Vec<&SnapshotManifest> = manifests.iter().filter(|manifest| manifest.node == node).collect();
        match is_meant(node) {
            true => kept.extend(retained(&own, retention, now)),
            false => kept.extend(own.iter().map(|manifest| manifest.id.clone())),
        }
    }
    pruned.kept = manifests.iter().filter(|manifest| is_meant(&manifest.node) && kept.contains(&manifest.id)).count();
    for manifest in &manifests {
        if !kept.contains(&manifest.id) {
            if !dry_run {
                forget(&manifest.id);
                repository.remove_snapshot(&manifest.id)?;
            }
            pruned.snapshots.push(manifest.id.clone());
        }
    }
    let still = |name: String| RepositoryError::NotRemoved { name, target: repository.target().to_string() };
    if !dry_run && !pruned.snapshots.is_empty() {
        let there = repository.ids()?;
        if let Some(id) = pruned.snapshots.iter().find(|id| there.contains(id)) {
            return Err(still(format!("snapshot {id}")));
        }
    }
    if !pruned.unreadable.is_empty() {
        return Ok(pruned);
    }
    let needed: HashSet<&str> = manifests
        .iter()
        .filter(|manifest| kept.contains(&manifest.id))
        .flat_map(|manifest| manifest.segments.iter().map(|segment| segment.file.as_str()))
        .collect();
    for stored in repository.segments()? {
        if !needed.contains(stored.name.as_str()) && now.0 - stored.since.0 > YOUNG {
            if !dry_run {
                repository.remove_segment(&stored.name)?;
            }
            pruned.bytes += stored.bytes;
            pruned.segments.push(stored.name);
        }
    }
    if !dry_run && !pruned.segments.is_empty() {
        let there: HashSet<String> = repository.segments()?.into_iter().map(|stored| stored.name).collect();
        if let Some(name) = pruned.segments.iter().find(|name| there.contains(*name)) {
            return Err(still(format!("segments/{name}")));
        }
    }
    Ok(pruned)
}

/// Ids of the snapshots of one node that stay.
fn retained(manifests: &[&SnapshotManifest], retention: &Retention, now: UnixMillis) -> HashSet<String> {
    let mut newest_first: Vec<&SnapshotManifest> = manifests.to_vec();
    newest_first.sort_by_key(|manifest| std::cmp::Reverse((manifest.created, manifest.last)));
    let window = i64::try_from(retention.point_in_time.as_millis()).unwrap_or(i64::MAX);
    let mut kept: Vec<&SnapshotManifest> = newest_first
        .iter()
        .copied()
        .enumerate()
        .filter(|(place, manifest)| *place == 0 || now.0 - manifest.created.0 < window)
        .map(|(_, manifest)| manifest)
        .collect();
    let whole = newest_first.iter().copied().filter(|manifest| manifest.kind != Kind::Shipped);
    for (most, period) in
        [(retention.daily, day as fn(UnixMillis) -> i64), (retention.weekly, week), (retention.monthly, month)]
    {
        let mut periods: Vec<i64> = Vec::new();
        for manifest in whole.clone() {
            let period = period(manifest.created);
            if periods.len() == most && periods.last() != Some(&period) {
                break;
            }
            if periods.last() != Some(&period) {
                periods.push(period);
                kept.push(manifest);
            }
        }
    }
    kept.sort_by_key(|manifest| std::cmp::Reverse((manifest.created, manifest.last)));
    kept.dedup_by_key(|manifest| manifest.id.clone());
    if let Some(most) = retention.max_bytes {
        let mut sizes: HashMap<&str, u64> = HashMap::new();
        let mut total = 0;
        let fitting = kept.iter().take_while(|manifest| {
            for segment in &manifest.segments {
                if sizes.insert(&segment.file, segment.bytes).is_none() {
                    total += segment.bytes;
                }
            }
            total <= most
        });
        let fitting = fitting.count().max(1);
        kept.truncate(fitting);
    }
    kept.into_iter().map(|manifest| manifest.id.clone()).collect()
}

fn day(time: UnixMillis) -> i64 {
    time.0.div_euclid(DAY)
}

/// 1970-01-01 was a Thursday.
fn week(time: UnixMillis) -> i64 {
    (day(time) + 3).div_euclid(7)
}

fn month(time: UnixMillis) -> i64 {
    // `YYYY-MM-…`
    let text = time.to_string();
    text.get(..7).and_then(|month| month.replace('-', "").parse().ok()).unwrap_or_default()
}

/// Whether `newer` lists every segment of `older` in the same history, so that whatever `older` can bring back `newer` can.
pub(super) fn replaces(newer: &SnapshotManifest, older: &SnapshotManifest) -> bool {
    newer.node == older.node
        && newer.last >= older.last
        && newer.history_at(older.last) == &older.history[..]
        && older.segments.iter().all(|segment| newer.segments.iter().any(|kept| kept == segment))
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::{manifest, segment};
    use super::*;

    fn taken(day: i64, kind: Kind, bytes: u64) -> SnapshotManifest {
        let mut piece = segment(1, 2, 0);
        (piece.bytes, piece.file) = (bytes, format!("{day}.seg"));
        let mut manifest = manifest(&[("a", 1)], vec![piece]);
        (manifest.created, manifest.id, manifest.kind) = (UnixMillis(day * DAY), day.to_string(), kind);
        manifest
    }

    fn kept(manifests: &[SnapshotManifest], retention: &Retention, now: i64) -> Vec<i64> {
        let all: Vec<&SnapshotManifest> = manifests.iter().collect();
        let mut days: Vec<i64> =
            retained(&all, retention, UnixMillis(now * DAY)).iter().map(|id| id.parse().expect("a day")).collect();
        days.sort_unstable();
        days
    }

    fn retention(daily: usize, weekly: usize, monthly: usize) -> Retention {
        Retention { daily, weekly, monthly, max_bytes: None, point_in_time: Duration::ZERO }
    }

    #[test]
    fn days_weeks_and_months_keep_their_last() {
        // 1970-01-01 to 1970-03-11; the 5th was the first Monday.
        let all: Vec<SnapshotManifest> = (0..70).map(|day| taken(day, Kind::Scheduled, 1)).collect();
        assert_eq!(kept(&all, &retention(3, 0, 0), 70), [67, 68, 69]);
        assert_eq!(kept(&all, &retention(0, 3, 0), 70), [59, 66, 69], "Sundays, and the newest");
        assert_eq!(kept(&all, &retention(0, 0, 9), 70), [30, 58, 69], "31 January, 28 February, and the newest");
    }

    #[test]
    fn shipped_ones_stay_for_the_window_only() {
        let all: Vec<SnapshotManifest> = (0..10).map(|day| taken(day, Kind::Shipped, 1)).collect();
        let window = Retention { point_in_time: Duration::from_secs(3 * 24 * 3_600), ..retention(30, 26, 12) };
        assert_eq!(kept(&all, &window, 10), [8, 9]);
    }

    #[test]
    fn the_cap_takes_the_oldest_and_never_the_newest() {
        let all: Vec<SnapshotManifest> = (0..5).map(|day| taken(day, Kind::Manual, 10)).collect();
        let capped = |most| Retention { max_bytes: Some(most), ..retention(30, 0, 0) };
        assert_eq!(kept(&all, &capped(25), 5), [3, 4]);
        assert_eq!(kept(&all, &capped(1), 5), [4]);
    }

    #[test]
    fn a_newer_one_replaces_an_older_whose_segments_it_has() {
        let older = manifest(&[("a", 1)], vec![segment(1, 5, 0)]);
        let newer = manifest(&[("a", 1)], vec![segment(1, 5, 0), segment(5, 9, 0)]);
        let compacted = manifest(&[("a", 1)], vec![segment(1, 9, 8)]);
        let restored = manifest(&[("a", 1), ("b", 3)], vec![segment(1, 5, 0), segment(5, 9, 0)]);
        assert!(replaces(&newer, &older));
        assert!(!replaces(&compacted, &older) && !replaces(&restored, &older) && !replaces(&older, &newer));
    }
}
