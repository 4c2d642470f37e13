//! What became of a node's snapshots, kept in `snapshots.json` of the data directory so that every process knows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{Kind, SnapshotManifest};
use super::repository::{create_dirs, sync_dir};
use crate::base::{Lsn, UnixMillis};

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
}

impl Taken {
    pub(super) fn of(manifest: &SnapshotManifest) -> Self {
        let SnapshotManifest { id, created, kind, last, .. } = manifest;
        Self { id: id.clone(), time: *created, kind: *kind, last: *last, target: String::new() }
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

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The newest snapshot that was taken here.
    pub created: Option<Taken>,
    /// Why the last attempt at one failed.
    pub create_failure: Option<String>,
    /// The newest proof.
    pub verified: Option<Proof>,
    /// What the last verification found wrong.
    pub verify_failure: Option<String>,
    /// When a verification was last tried.
    pub verify_tried: Option<UnixMillis>,
    /// Day since 1970 of the last scheduled snapshot.
    pub scheduled: Option<i64>,
}

impl State {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("snapshots.json")
    }

    /// What is written down; nothing when there is no file, or one that cannot be read.
    #[must_use]
    pub fn read(data_dir: &Path) -> Self {
        fs::read(Self::path(data_dir)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn update(data_dir: &Path, target: &str, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let mut state = Self::read(data_dir);
        change(&mut state);
        if let Some(taken) = state.created.as_mut().filter(|taken| taken.target.is_empty()) {
            taken.target = target.to_owned();
        }
        create_dirs(data_dir)?;
        let partial = data_dir.join(format!("snapshots.json.{}", std::process::id()));
        fs::write(&partial, serde_json::to_vec_pretty(&state)?)?;
        fs::rename(&partial, Self::path(data_dir))?;
        sync_dir(data_dir)
    }
}

/// How a node's snapshots are.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Where they go.
    pub target: String,
    /// Whether they go there by themselves.
    pub scheduled: bool,
    /// What is written down.
    pub state: State,
    /// Seconds since the newest snapshot.
    pub age_seconds: Option<u64>,
    /// Seconds since the newest proof.
    pub verified_age_seconds: Option<u64>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl Health {
    pub(super) fn new(state: State, target: String, scheduled: bool, is_beside: bool, now: UnixMillis) -> Self {
        let age = |time: UnixMillis| u64::try_from(now.0.saturating_sub(time.0)).unwrap_or_default() / 1_000;
        let mut warnings = Vec::new();
        if is_beside && (scheduled || state.created.is_some()) {
            warnings.push(format!("{target} is on the disk of the data; a snapshot elsewhere survives that disk"));
        }
        warnings.extend(state.create_failure.iter().map(|failure| format!("the last snapshot failed: {failure}")));
        warnings.extend(state.verify_failure.iter().map(|failure| format!("the last verification failed: {failure}")));
        Self {
            target,
            scheduled,
            age_seconds: state.created.as_ref().map(|taken| age(taken.time)),
            verified_age_seconds: state.verified.as_ref().map(|proof| age(proof.time)),
            warnings,
            state,
        }
    }
}
