//! Compares the content of the snapshot target with what this node recorded to have stored there.
//!
//! Invariants: nothing that is reported about backups (age, number, proof) comes from the record alone. The record says
//! what must exist, a check says what does; if they differ, or nothing could be seen, that is a named problem, and no
//! age is reported. A check changes nothing in the repository.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::create::stamp;
use super::manifest::SnapshotManifest;
use super::marker::Marker;
use super::repository::{Named, Repository, RepositoryError, Stored};
use super::state::{Shipped, State};
use crate::base::{Fault, UnixMillis, with_causes};

/// Ids that a message names.
const NAMED: usize = 3;

/// Why the place where snapshots go is not what this node left there.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The directory does not exist any more.
    #[error(
        "{target} is gone. It held {}; is its disk mounted? To start over there: `cairn snapshot create --begin-anew`", snapshot_count(*.count, .newest)
    )]
    Gone {
        /// Where.
        target: String,
        /// How many snapshots of this node it held.
        count: usize,
        /// The newest of them.
        newest: String,
    },
    /// There is nothing in it.
    #[error(
        "{target} is empty. It held {}; is its disk mounted? To start over there: `cairn snapshot create --begin-anew`", snapshot_count(*.count, .newest)
    )]
    Empty {
        /// Where.
        target: String,
        /// How many snapshots of this node it held.
        count: usize,
        /// The newest of them.
        newest: String,
    },
    /// This node's snapshots went to another place, which is not set any more.
    #[error(
        "{target} has no snapshot of this node; its newest, {newest}, went to {other}. Are these the node's settings (--config, \
         snapshot.target)? To begin here: `cairn snapshot create`"
    )]
    Elsewhere {
        /// The target that was checked.
        target: String,
        /// The node's newest snapshot.
        newest: String,
        /// Where it went.
        other: String,
    },
    /// Another repository is in its place.
    #[error(
        "{target} holds another repository, {found}; this node's snapshots went to {expected} there. If that is meant: `cairn snapshot create --begin-anew`"
    )]
    Foreign {
        /// Where.
        target: String,
        /// Id of its marker.
        found: String,
        /// Id of the marker that was there.
        expected: String,
    },
    /// Snapshots of this node are not there.
    #[error(
        "{} of the {count} snapshots that this node made in {target} are missing: {}. To continue without them: `cairn snapshot create --begin-anew`",
        .missing.len(), first(.missing)
    )]
    Missing {
        /// Where.
        target: String,
        /// Their ids, newest first.
        missing: Vec<String>,
        /// How many this node made and did not remove.
        count: usize,
    },
    /// The newest snapshot of another node is not there.
    #[error(
        "{id}, the newest snapshot of node {node}, is missing from {target}, so nothing is removed: what seems superfluous may belong to it"
    )]
    OthersMissing {
        /// Where.
        target: String,
        /// The node.
        node: String,
        /// Its newest snapshot.
        id: String,
    },
    /// Files of the newest snapshot are not there, or have another length.
    #[error(
        "{} of the newest snapshot, {id}, missing or cut in {target}: {}. `cairn snapshot create` brings again what the node still has",
        if .files.len() == 1 { "a file".to_owned() } else { format!("{} files", .files.len()) }, first(.files)
    )]
    Incomplete {
        /// Where.
        target: String,
        /// The snapshot.
        id: String,
        /// The files, in order.
        files: Vec<String>,
    },
    /// The newest snapshot cannot be read.
    #[error("the newest snapshot in {target}, {id}, cannot be read: {why}. `cairn snapshot create` makes another one")]
    Unreadable {
        /// Where.
        target: String,
        /// The snapshot.
        id: String,
        /// The problem of its manifest.
        why: String,
    },
    /// The existing files are encrypted, but new ones would not be.
    #[error(
        "the snapshots in {target} are encrypted and no key is set, so the next one would be readable by everybody: set snapshot.encryption_key_file to their key, or snapshot.target to another place"
    )]
    NoKey {
        /// Where.
        target: String,
    },
    /// Plain snapshots came after encrypted ones.
    #[error(
        "{} in {target} are not encrypted, though older ones are: {}. Set snapshot.encryption_key_file, and see to the files that everybody can read",
        if .plain.len() == 1 { "1 snapshot".to_owned() } else { format!("{} snapshots", .plain.len()) }, first(.plain)
    )]
    Mixed {
        /// Where.
        target: String,
        /// Ids of the plain ones.
        plain: Vec<String>,
    },
    /// The directory was to be made below the place of a disk that is not mounted.
    #[error(
        "{target} is below {mount_point}, where a disk of /etc/fstab belongs that is not mounted; mount it, or take it out of /etc/fstab"
    )]
    Unmounted {
        /// Where.
        target: String,
        /// The disk's place.
        mount_point: PathBuf,
    },
}

fn snapshot_count(count: usize, newest: &str) -> String {
    match count {
        1 => format!("a snapshot of this node, {newest}"),
        count => format!("{count} snapshots of this node, the newest {newest}"),
    }
}

fn first(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

impl TargetError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoKey { .. } => Fault::Caller,
            Self::Gone { .. }
            | Self::Empty { .. }
            | Self::Foreign { .. }
            | Self::Elsewhere { .. }
            | Self::Mixed { .. }
            | Self::Unmounted { .. } => Fault::Environment,
            Self::Missing { .. } | Self::OthersMissing { .. } | Self::Incomplete { .. } | Self::Unreadable { .. } => {
                Fault::Damage
            }
        }
    }

    /// As status and metrics spell it.
    fn name(&self) -> &'static str {
        match self {
            Self::Gone { .. } => "gone",
            Self::Empty { .. } => "empty",
            Self::Foreign { .. } => "foreign",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Missing { .. } | Self::OthersMissing { .. } => "missing",
            Self::Incomplete { .. } => "incomplete",
            Self::Unreadable { .. } => "unreadable",
            Self::NoKey { .. } => "no_key",
            Self::Mixed { .. } => "mixed",
            Self::Unmounted { .. } => "unmounted",
        }
    }

    /// Whether it forbids another snapshot there. Missing, truncated or exposed snapshots are a reason for one more.
    pub(super) fn forbids_writing(&self) -> bool {
        match self {
            Self::Gone { .. }
            | Self::Empty { .. }
            | Self::Foreign { .. }
            | Self::NoKey { .. }
            | Self::Unmounted { .. } => true,
            Self::Missing { .. }
            | Self::Elsewhere { .. }
            | Self::OthersMissing { .. }
            | Self::Incomplete { .. }
            | Self::Unreadable { .. }
            | Self::Mixed { .. } => false,
        }
    }

    /// Whether it prevents any statement about this node's snapshots.
    pub(super) fn hides(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::Empty { .. } | Self::Foreign { .. } | Self::Unmounted { .. } => true,
            Self::Missing { .. }
            | Self::Elsewhere { .. }
            | Self::OthersMissing { .. }
            | Self::Incomplete { .. }
            | Self::Unreadable { .. }
            | Self::NoKey { .. }
            | Self::Mixed { .. } => false,
        }
    }
}

/// The content of a repository.
pub(super) struct Survey {
    /// `None` in a new place and in one of release 0.1.0.
    pub(super) marker: Option<Marker>,
    /// Every snapshot, newest first.
    pub(super) names: Vec<Named>,
    /// Every segment file.
    pub(super) segments: Vec<Stored>,
    /// The snapshots that this node must find there; `None` before it stored any.
    pub(super) shipped: Option<Shipped>,
    /// Whether that was learned just now, from the snapshots themselves.
    pub(super) is_learned: bool,
    /// This node's newest snapshot that is there and can be read.
    pub(super) newest: Option<SnapshotManifest>,
    /// Snapshots that this node should find and does not, newest first.
    pub(super) missing: Vec<String>,
    /// Where its newest is, when it has none here.
    pub(super) elsewhere: Option<Elsewhere>,
    /// The problem.
    pub(super) trouble: Option<TargetError>,
    /// Plain snapshots that are older than every encrypted one, or all of them while there is a key.
    plain: usize,
}

impl Survey {
    fn nothing(shipped: Option<Shipped>, trouble: Option<TargetError>) -> Self {
        Self {
            marker: None,
            names: Vec::new(),
            segments: Vec::new(),
            shipped,
            is_learned: false,
            newest: None,
            missing: Vec::new(),
            elsewhere: None,
            trouble,
            plain: 0,
        }
    }

    /// This node's snapshots that are there, newest first.
    pub(super) fn own_snapshots(&self) -> impl Iterator<Item = &str> {
        let ours = self.shipped.as_ref().map(|shipped| &shipped.snapshots);
        self.names.iter().map(|named| named.id.as_str()).filter(move |id| ours.is_some_and(|ours| ours.contains(*id)))
    }
}

/// A snapshot in a target other than the one that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    pub(super) newest: String,
    pub(super) place: String,
}

/// Checks a repository.
///
/// * `own`: the node's id; `None` while its data directory is empty.
/// * `is_set`: whether the settings name the target. Without a setting, snapshots elsewhere mean that the setting was
///   lost.
///
/// # Errors
/// When nothing can be determined, because the target does not answer.
pub(super) fn survey(
    repository: &Repository,
    own: Option<&str>,
    state: &State,
    is_set: bool,
) -> Result<Survey, RepositoryError> {
    let mut survey = inspect(repository, own, state)?;
    if survey.trouble.is_none() && survey.own_snapshots().next().is_none() {
        survey.elsewhere = own.and_then(|own| state.elsewhere(own, &repository.target().key()));
        survey.trouble = survey.elsewhere.clone().filter(|_| !is_set).map(|elsewhere| elsewhere.missed(repository));
    }
    Ok(survey)
}

impl Elsewhere {
    /// The problem of the checked target.
    pub(super) fn missed(self, repository: &Repository) -> TargetError {
        let Self { newest, place } = self;
        TargetError::Elsewhere { target: repository.target().to_string(), newest, other: place }
    }
}

fn inspect(repository: &Repository, own: Option<&str>, state: &State) -> Result<Survey, RepositoryError> {
    let (target, key) = (repository.target().to_string(), repository.target().key());
    let remembered = own.and_then(|own| state.shipped(&key, own, None));
    let gone = |shipped: &Shipped, is_there: bool| {
        let (count, newest) = (shipped.snapshots.len(), shipped.newest().unwrap_or_default().to_owned());
        match (count, is_there, target.clone()) {
            (0, _, _) => None,
            (_, true, target) => Some(TargetError::Empty { target, count, newest }),
            (_, false, target) => Some(TargetError::Gone { target, count, newest }),
        }
    };
    // A key that was used may only have been forgotten, even when starting over.
    let unlocked = |shipped: &Shipped| {
        (shipped.is_encrypted && !repository.is_encrypting()).then(|| TargetError::NoKey { target: target.clone() })
    };
    let nothing = |is_there| {
        let trouble = remembered.as_ref().and_then(|shipped| gone(shipped, is_there).or_else(|| unlocked(shipped)));
        Survey::nothing(remembered.clone(), trouble)
    };
    if !repository.is_there()? {
        return Ok(nothing(false));
    }
    // The listing first: it shows best what answers.
    let names = repository.names()?;
    let marker = repository.marker()?;
    if marker.is_none() && names.is_empty() {
        return Ok(nothing(true));
    }
    let ours = remembered.as_ref().filter(|shipped| !shipped.snapshots.is_empty());
    let expected = ours.and_then(|shipped| shipped.repository.clone());
    if let (Some(marker), Some(expected)) = (&marker, expected)
        && marker.id != expected
    {
        let trouble = TargetError::Foreign { target, found: marker.id.clone(), expected };
        return Ok(Survey { marker: Some(marker.clone()), names, ..Survey::nothing(remembered, Some(trouble)) });
    }
    let mut survey = Survey { marker, names, ..Survey::nothing(None, None) };
    survey.segments = repository.segments()?;
    let is_locked = survey.names.iter().any(|named| named.is_encrypted) && !repository.is_encrypting();
    let place = survey.marker.as_ref().map(|marker| marker.id.as_str());
    survey.shipped = own.and_then(|own| state.shipped(&key, own, place));
    if let Some(own) = own
        && survey.shipped.as_ref().is_none_or(|shipped| !shipped.is_complete)
        && !is_locked
    {
        survey.shipped = Some(learn(repository, &survey, own));
        survey.is_learned = true;
    }
    let count = survey.shipped.as_ref().map_or(0, |shipped| shipped.snapshots.len());
    survey.missing = missing(repository, &survey, own)?;
    let trouble = read_newest(repository, &mut survey, is_locked)?;
    let oldest_encrypted = survey.names.iter().rev().find(|named| named.is_encrypted).map(|named| named.id.clone());
    let plain: Vec<&Named> = survey.names.iter().filter(|named| !named.is_encrypted).collect();
    let later: Vec<String> = plain
        .iter()
        .filter(|named| oldest_encrypted.as_ref().is_some_and(|oldest| named.id > *oldest))
        .map(|named| named.id.clone())
        .collect();
    survey.plain = if repository.is_encrypting() { plain.len() } else { 0 };
    let was_encrypted = survey.shipped.as_ref().is_some_and(|shipped| shipped.is_encrypted);
    // The gravest first.
    survey.trouble = if is_locked || (was_encrypted && !repository.is_encrypting()) {
        Some(TargetError::NoKey { target })
    } else if !survey.missing.is_empty() {
        let count = count.max(survey.missing.len());
        Some(TargetError::Missing { target, missing: survey.missing.clone(), count })
    } else if !later.is_empty() {
        Some(TargetError::Mixed { target, plain: later })
    } else {
        trouble
    };
    Ok(survey)
}

/// Ids of this node's snapshots that should be there and are not, the newest first.
fn missing(repository: &Repository, survey: &Survey, own: Option<&str>) -> Result<Vec<String>, RepositoryError> {
    let mut missing: BTreeSet<String> = survey.shipped.iter().flat_map(|shipped| &shipped.snapshots).cloned().collect();
    if let Some(own) = own
        && let Some(note) = repository.note(own)?
    {
        missing.insert(note.newest);
    }
    let there: BTreeSet<&str> = survey.names.iter().map(|named| named.id.as_str()).collect();
    missing.retain(|id| !there.contains(id.as_str()));
    Ok(missing.into_iter().rev().collect())
}

/// Reads the manifest of this node's newest snapshot into the survey. Returns what is wrong with that snapshot.
fn read_newest(
    repository: &Repository,
    survey: &mut Survey,
    is_locked: bool,
) -> Result<Option<TargetError>, RepositoryError> {
    let newest = survey.own_snapshots().next().map(str::to_owned);
    let newest = newest.and_then(|id| survey.names.iter().find(|named| named.id == id)).cloned();
    let newest = newest.filter(|named| !named.is_encrypted || !is_locked).map(|named| repository.listed(named));
    let target = || repository.target().to_string();
    match newest.map(|listed| (listed.id, listed.manifest)) {
        None => Ok(None),
        Some((id, Ok(manifest))) => {
            let files = incomplete(&manifest, &survey.segments);
            survey.newest = Some(manifest);
            Ok((!files.is_empty()).then(|| TargetError::Incomplete { target: target(), id, files }))
        }
        Some((_, Err(error @ (RepositoryError::Bucket { .. } | RepositoryError::Read { .. })))) => Err(error),
        Some((id, Err(error))) => Ok(Some(TargetError::Unreadable { target: target(), id, why: with_causes(&error) })),
    }
}

/// The snapshots in a repository of a node without a record, or with a record of only the last one: each manifest names
/// its node.
fn learn(repository: &Repository, survey: &Survey, own: &str) -> Shipped {
    let known = survey.shipped.as_ref();
    let mut shipped = Shipped::new(own, survey.marker.as_ref().map(|marker| marker.id.clone()));
    shipped.snapshots.extend(known.iter().flat_map(|known| &known.snapshots).cloned());
    shipped.is_encrypted = known.is_some_and(|known| known.is_encrypted);
    for named in &survey.names {
        // An unreadable one belongs to no node; it is listed as such.
        if let Ok(manifest) = repository.listed(named.clone()).manifest
            && manifest.node == own
        {
            shipped.is_encrypted |= named.is_encrypted;
            shipped.snapshots.insert(manifest.id);
        }
    }
    shipped.is_complete = true;
    shipped
}

/// Files of a snapshot that are not there in their length.
fn incomplete(manifest: &SnapshotManifest, segments: &[Stored]) -> Vec<String> {
    let there: std::collections::HashMap<&str, &Stored> =
        segments.iter().map(|stored| (stored.name.as_str(), stored)).collect();
    let wanted = manifest.segments.iter();
    let is_whole = |file: &str, bytes| there.get(file).is_some_and(|stored| stored.fits(bytes));
    wanted.filter(|entry| !is_whole(&entry.file, entry.bytes)).map(|entry| entry.file.clone()).collect()
}

/// The result of the last check, for status, readiness and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetCheck {
    /// When it ended.
    pub time: UnixMillis,
    /// `ok`, `new` where nothing was ever put, or the name of the trouble.
    pub state: &'static str,
    /// The trouble, in words.
    pub problem: Option<String>,
    /// This node's newest snapshot that is there.
    pub newest: Option<String>,
    /// How many of this node's snapshots are there.
    pub snapshots: usize,
    /// Ids of snapshots that this node made and that are not there.
    pub missing: Vec<String>,
    /// Where this node's newest snapshot is, when none of them is here: its id, and the place.
    pub elsewhere: Option<(String, String)>,
    /// Whether the place could be seen at all.
    pub sees: bool,
    /// Whether it is on the disk of the data.
    pub is_beside: bool,
    /// Snapshots that are not encrypted though there is a key.
    pub plain: usize,
    /// Warnings about key files.
    pub exposed: Vec<String>,
}

impl TargetCheck {
    /// * `found`: what was seen, or why nothing was.
    pub(super) fn new(found: &Result<Survey, RepositoryError>, is_beside: bool, time: UnixMillis) -> Self {
        match found {
            Ok(survey) => Self {
                time,
                state: match &survey.trouble {
                    Some(trouble) => trouble.name(),
                    None if survey.own_snapshots().next().is_none() => "new",
                    None => "ok",
                },
                problem: survey.trouble.as_ref().map(ToString::to_string),
                newest: survey.own_snapshots().next().map(str::to_owned),
                snapshots: survey.own_snapshots().count(),
                missing: survey.missing.clone(),
                elsewhere: survey.elsewhere.clone().map(|Elsewhere { newest, place }| (newest, place)),
                sees: survey.trouble.as_ref().is_none_or(|trouble| !trouble.hides()),
                is_beside,
                plain: survey.plain,
                exposed: Vec::new(),
            },
            Err(error) => Self { is_beside, ..Self::blind(time, "unreachable", with_causes(error)) },
        }
    }

    /// One that saw nothing.
    pub(super) fn blind(time: UnixMillis, state: &'static str, problem: String) -> Self {
        Self {
            time,
            state,
            problem: Some(problem),
            newest: None,
            snapshots: 0,
            missing: Vec::new(),
            elsewhere: None,
            sees: false,
            is_beside: false,
            plain: 0,
            exposed: Vec::new(),
        }
    }

    /// Adds a snapshot that was written and read back just now.
    pub(super) fn add(&mut self, id: &str, time: UnixMillis) {
        self.time = time;
        self.snapshots += 1;
        self.newest = Some(id.to_owned());
        self.elsewhere = None;
        // A new snapshot repairs these.
        if matches!(self.state, "new" | "elsewhere" | "incomplete" | "unreadable") {
            (self.state, self.problem) = ("ok", None);
        }
    }
}

/// When the snapshot with this id was taken, to the second; one or more seconds late if that second was taken.
pub(super) fn time_of(id: &str) -> Option<UnixMillis> {
    let text = id.get(..16)?;
    let part = |range: std::ops::Range<usize>| text.get(range);
    let spelled = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(9..11)?,
        part(11..13)?,
        part(13..15)?
    );
    spelled.parse().ok().filter(|time| stamp(*time) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_time() {
        assert_eq!(time_of("20260728T093000Z-7"), Some("2026-07-28T09:30:00Z".parse().expect("a time")));
        for other in ["20261328T093000Z-7", "x", "", "äääääääää"] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
