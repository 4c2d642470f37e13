//! The state of a node's snapshots, stored in `snapshots.json` of the data directory so that every process knows it: it
//! says what must be found, never what exists.
//!
//! Invariants: concurrent changes of several processes are all kept; a change is on stable storage when it returns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{EpochEntry, Kind, SnapshotManifest};
use super::repository::{create_dirs, sync_dir};
use super::target_check::{Elsewhere, TargetCheck, time_of};
use crate::base::{Lsn, UnixMillis};
use crate::store::Epoch;

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Its id.
    pub id: String,
    /// When.
    pub time: UnixMillis,
    /// Why.
    pub kind: Kind,
    /// Its end.
    pub last: Lsn,
    /// Where.
    #[serde(default)]
    pub target: String,
    /// Epoch of the log in which it ends; `None` when it was taken before that was recorded.
    #[serde(default)]
    pub epoch: Option<String>,
}

impl Taken {
    pub(super) fn of(manifest: &SnapshotManifest, target: &str) -> Self {
        let SnapshotManifest { id, created, kind, last, .. } = manifest;
        let epoch = manifest.history_at(*last).last().map(|epoch| epoch.id.clone());
        Self { id: id.clone(), time: *created, kind: *kind, last: *last, target: target.to_owned(), epoch }
    }

    /// How far the snapshots have followed the log with this history: records that were written in the place of others
    /// after a restore were not shipped. [`Lsn::ZERO`] when that is unknown.
    #[must_use]
    pub fn reached_in(&self, history: &[Epoch]) -> Lsn {
        let epochs: Vec<EpochEntry> = history.iter().copied().map(EpochEntry::from).collect();
        let Some(at) = epochs.iter().position(|epoch| Some(&epoch.id) == self.epoch.as_ref()) else { return Lsn::ZERO };
        epochs.get(at + 1).map_or(self.last, |next| self.last.min(Lsn(next.first.0.saturating_sub(1))))
    }
}

/// A snapshot that was proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Its id.
    pub id: String,
    /// When.
    pub time: UnixMillis,
}

/// The snapshots that a node stored in one target and did not remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shipped {
    /// The node: a restore may bring another one's data here.
    pub(super) node: String,
    /// Id of the place's marker.
    pub(super) repository: Option<String>,
    /// Whether any of it is encrypted.
    #[serde(default)]
    pub(super) is_encrypted: bool,
    /// Ids of the snapshots.
    pub(super) snapshots: BTreeSet<String>,
    /// Whether that is all of them; release 0.1.0 remembered the last one only.
    pub(super) is_complete: bool,
}

impl Shipped {
    pub(super) fn new(node: &str, repository: Option<String>) -> Self {
        Self { node: node.to_owned(), repository, is_encrypted: false, snapshots: BTreeSet::new(), is_complete: false }
    }

    pub(super) fn newest(&self) -> Option<&str> {
        self.snapshots.last().map(String::as_str)
    }
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The newest snapshot taken here.
    pub created: Option<Taken>,
    /// Why the last attempt at one failed.
    pub create_failure: Option<String>,
    /// The newest proof.
    pub verified: Option<Proof>,
    /// The problems found by the last verification.
    pub verify_failure: Option<String>,
    /// Whether that was wrong with the snapshot, and not with the attempt.
    pub is_unsound: bool,
    /// When a verification was last tried.
    pub verify_tried: Option<UnixMillis>,
    /// Day since 1970 of the last scheduled snapshot.
    pub scheduled: Option<i64>,
    /// The stored snapshots, by [`super::Target::key`].
    pub(super) targets: BTreeMap<String, Shipped>,
    /// Whether the file could not be read, now or before.
    #[serde(skip)]
    is_damaged: bool,
}

impl State {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("snapshots.json")
    }

    /// An unreadable file is moved here.
    fn aside(data_dir: &Path) -> PathBuf {
        data_dir.join("snapshots.json.damaged")
    }

    /// The stored state; empty when the file is missing or unreadable. [`Health`] reports the latter until someone has
    /// dealt with it.
    #[must_use]
    pub fn read(data_dir: &Path) -> Self {
        let read = match fs::read(Self::path(data_dir)) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Self::default()),
            Err(_) => None,
        };
        let is_damaged = read.is_none() || Self::aside(data_dir).exists();
        Self { is_damaged, ..read.unwrap_or_default() }
    }

    /// What `node` put into the place that is remembered as `key`.
    ///
    /// * `marker`: the id that the place has: one that was moved is known by it.
    pub(super) fn shipped(&self, key: &str, node: &str, marker: Option<&str>) -> Option<Shipped> {
        let ours = |shipped: &&Shipped| shipped.node == node;
        if let Some(shipped) = self.targets.get(key) {
            return Some(shipped).filter(ours).cloned();
        }
        let moved = self
            .targets
            .values()
            .filter(ours)
            .find(|shipped| marker.is_some() && shipped.repository.as_deref() == marker);
        let last = || {
            let last = self.created.as_ref().filter(|taken| {
                taken.target == key || std::path::absolute(&taken.target).is_ok_and(|path| path == Path::new(key))
            })?;
            Some(Shipped { snapshots: BTreeSet::from([last.id.clone()]), ..Shipped::new(node, None) })
        };
        moved.cloned().or_else(last)
    }

    /// The newest snapshot of `node` in a place other than the one that is remembered as `key`.
    pub(super) fn elsewhere(&self, node: &str, key: &str) -> Option<Elsewhere> {
        let others = self.targets.iter().filter(|(place, shipped)| *place != key && shipped.node == node);
        let newest = others.filter_map(|(place, shipped)| Some((shipped.newest()?, place)));
        newest.max().map(|(newest, place)| Elsewhere { newest: newest.to_owned(), place: place.clone() })
    }

    pub(super) fn update(data_dir: &Path, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        create_dirs(data_dir)?;
        let create = |path: &Path| OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let lock = create(&data_dir.join("snapshots.lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        let mut state = Self::read(data_dir);
        if state == (Self { is_damaged: true, ..Self::default() }) {
            // Not there when it was set aside before.
            let _ = fs::rename(Self::path(data_dir), Self::aside(data_dir));
        }
        change(&mut state);
        let partial = data_dir.join("snapshots.json.partial");
        // One that a killed process left may be readable by others.
        let _ = fs::remove_file(&partial);
        let mut file = create(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(&state)?)?;
        file.sync_all()?;
        fs::rename(&partial, Self::path(data_dir))?;
        sync_dir(data_dir)
    }
}

/// The health of a node's snapshots: the result of the last check of the target. Ages are given only for snapshots that
/// were seen there.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Where they go.
    pub target: String,
    /// Whether they are stored there automatically.
    pub scheduled: bool,
    /// `ok`; `new` if nothing was stored yet; `unknown` before the first check; otherwise the problem in a word.
    pub standing: &'static str,
    /// The problem in a sentence: of the target, otherwise of the last attempted snapshot or proof.
    pub problem: Option<String>,
    /// Whether the place was seen and holds what this node put there.
    pub is_there: bool,
    /// Whether the last attempted snapshot succeeded, or none was attempted.
    pub succeeded: bool,
    /// How many of this node's snapshots are there.
    pub snapshots: Option<usize>,
    /// How many of them should be there and are not.
    pub missing: usize,
    /// Where the newest one is, when none of them is there: its id, and the place.
    pub elsewhere: Option<(String, String)>,
    /// Id of the newest one that is there.
    pub newest: Option<String>,
    /// Seconds since that was taken.
    pub age_seconds: Option<u64>,
    /// Id of the last one that was proved.
    pub verified: Option<String>,
    /// Seconds since then.
    pub verified_age_seconds: Option<u64>,
    /// Seconds since the target was checked.
    pub seen_seconds: Option<u64>,
    /// Further notes for the operator.
    pub warnings: Vec<String>,
}

impl Health {
    pub(super) fn new(
        state: &State,
        look: Option<&TargetCheck>,
        target: String,
        scheduled: bool,
        now: UnixMillis,
    ) -> Self {
        let age = |time: UnixMillis| u64::try_from(now.0.saturating_sub(time.0)).unwrap_or_default() / 1_000;
        let newest = look.and_then(|look| look.newest.clone());
        let taken = newest.as_deref().and_then(|id| match &state.created {
            Some(created) if created.id == id => Some(created.time),
            _ => time_of(id),
        });
        let is_missing = |id: &str| look.is_some_and(|look| look.missing.iter().any(|missing| missing == id));
        // A proof speaks for what is there: the snapshot itself, or later ones that have its files.
        let proof = state.verified.as_ref().filter(|proof| newest.is_some() && !is_missing(&proof.id));
        let mut warnings = look.map_or_else(Vec::new, |look| look.exposed.clone());
        // It is unknown on which disk a target is that was not seen.
        if look.is_some_and(|look| look.is_beside && look.sees) && (scheduled || newest.is_some()) {
            warnings.push(format!("{target} is on the disk of the data; a snapshot elsewhere survives that disk"));
        }
        if let Some(plain) =
            look.map(|look| look.plain).filter(|plain| *plain > 0 && look.is_some_and(|look| look.state != "mixed"))
        {
            warnings.push(format!("snapshots from before there was a key are not encrypted: {plain} in {target}"));
        }
        if taken.is_some_and(|taken| taken.0 > now.0 + CLOCK_TOLERANCE) {
            let id = newest.as_deref().unwrap_or_default();
            warnings.push(format!(
                "the newest snapshot, {id}, is dated in the future: a clock was wrong, and ages are not to be relied on"
            ));
        }
        if state.is_damaged {
            warnings.push(
                "snapshots.json could not be read, so snapshots that vanished before are not missed; see what `cairn snapshot \
                 list --any` shows, then remove snapshots.json.damaged"
                    .to_owned(),
            );
        }
        let place = look.and_then(|look| look.problem.clone());
        let created = state.create_failure.iter();
        let created = created.map(|failure| ("failing", format!("the last snapshot failed: {failure}")));
        let failed = state.verify_failure.iter().map(|failure| format!("the last verification failed: {failure}"));
        let found = failed.clone().filter(|_| state.is_unsound).map(|failure| ("unproved", failure));
        let mut failures = created.chain(found);
        // A problem with the target is more serious, and usually the cause of the failure.
        let (standing, problem) = match (look, place.clone()) {
            (Some(look), Some(problem)) => (look.state, Some(problem)),
            (look, _) => match failures.next() {
                Some((name, failure)) => (name, Some(failure)),
                None => (look.map_or("unknown", |look| look.state), None),
            },
        };
        warnings.extend(failures.map(|(_, failure)| failure));
        warnings.extend(failed.filter(|_| !state.is_unsound));
        Self {
            target,
            scheduled,
            standing,
            problem,
            is_there: look.is_some_and(|look| matches!(look.state, "ok" | "new")),
            succeeded: state.create_failure.is_none(),
            snapshots: look.filter(|look| look.sees).map(|look| look.snapshots),
            missing: look.map_or(0, |look| look.missing.len()),
            elsewhere: look.and_then(|look| look.elsewhere.clone()),
            age_seconds: taken.map(age),
            newest,
            verified: proof.map(|proof| proof.id.clone()),
            verified_age_seconds: proof.map(|proof| age(proof.time)),
            seen_seconds: look.map(|look| age(look.time)),
            warnings,
        }
    }
}

/// Clocks of machines may differ by this many milliseconds before it is reported.
const CLOCK_TOLERANCE: i64 = 5 * 60 * 1_000;
