//! Restoring a state of the log, and proving that a snapshot can be restored: both fetch, check and rebuild.
//!
//! Invariants: everything is built and checked in a separate directory. The node's data is changed only by the swap,
//! which the next opening of the data directory makes by renames; until then the node is unchanged, whatever happens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::create::{counts, stamp};
use super::manifest::{SegmentEntry, SnapshotManifest};
use super::plan::{self, Moment};
use super::repository::{Repository, RepositoryError, create_dirs};
use super::whose::{self, Whose, WhoseError};
use super::{CanaryAnswer, Host, Progress, REBUILDING, Scratch};
use crate::base::{Fault, Lsn, UnixMillis, with_causes};
use crate::store::{check_segment, cut_segment, lsn_at, schedule_swap};

/// Scores of a rebuilt index may differ by this much from those of the index they were taken from.
const SCORE_TOLERANCE: f64 = 1e-3;

/// What to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreTarget {
    /// The newest snapshot.
    Newest,
    /// The snapshot with this id.
    Snapshot(String),
    /// The state after this record.
    Lsn(Lsn),
    /// The state at this time.
    Time(UnixMillis),
}

/// Why nothing was restored. The node's data is untouched in every case.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// What would be restored is not the newest there was.
    #[error(
        "snapshot {missing} is missing from {target}; the newest that is left is {chosen}, which is older. `cairn snapshot restore {chosen}` takes it all the same"
    )]
    NewerMissing {
        /// The snapshot that should be there.
        missing: String,
        /// The one that would be used instead.
        chosen: String,
        /// Where.
        target: String,
    },
    /// No snapshot reaches so far.
    #[error("no snapshot holds record {wanted}; the newest one, {newest}, ends with record {last}")]
    NotReached {
        /// The position asked for.
        wanted: Lsn,
        /// The newest snapshot.
        newest: String,
        /// Its end.
        last: Lsn,
    },
    /// Nothing was written at that time.
    #[error("nothing had been written by {time}; the oldest record is of {oldest}")]
    TooEarly {
        /// The time asked for.
        time: UnixMillis,
        /// When the first record was written.
        oldest: UnixMillis,
    },
    /// Segments are missing for a state between two snapshots.
    #[error(
        "the state after record {wanted} cannot be put together: record {missing} is only in segments that were compacted later"
    )]
    Compacted {
        /// The position asked for.
        wanted: Lsn,
        /// The first record that is not to be had.
        missing: Lsn,
    },
    /// A directory or file of the data directory cannot be used.
    #[error("cannot use {path}")]
    Staging {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Too little space for it next to the data.
    #[error("{path} has {free} free, building the restored data next to the old data needs {needed}")]
    Space {
        /// Where.
        path: PathBuf,
        /// The available space.
        free: crate::base::ByteSize,
        /// The required space.
        needed: crate::base::ByteSize,
    },
    /// The result differs from the snapshot's description.
    #[error("the restored data failed its checks: {}", list(.problems))]
    Failed {
        /// At least one.
        problems: Vec<IntegrityProblem>,
    },
}

impl RestoreError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Repository(error) => error.fault(),
            Self::NotReached { .. } | Self::TooEarly { .. } | Self::Compacted { .. } => Fault::Caller,
            Self::Staging { .. } | Self::Space { .. } => Fault::Environment,
            Self::Failed { .. } | Self::NewerMissing { .. } => Fault::Damage,
        }
    }
}

fn list(problems: &[IntegrityProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityProblem {
    /// The file of the repository, or the part of the snapshot.
    pub name: String,
    /// The problem.
    pub message: String,
}

impl std::fmt::Display for IntegrityProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

/// The effect of a restore.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The snapshot whose history it follows.
    pub manifest: SnapshotManifest,
    /// The last record that it brings back; the end of the last whole batch at or before what was asked for.
    pub last: Lsn,
    /// The files it uses.
    pub segments: Vec<SegmentEntry>,
}

impl RestorePlan {
    /// Bytes that are fetched.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether the end is the snapshot's own, so that its counts and canaries hold.
    fn is_whole(&self) -> bool {
        self.last == self.manifest.last
    }
}

/// The result of building and checking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Segments.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Their readable records.
    pub records: u64,
    /// Documents in the rebuilt collections.
    pub documents: u64,
    /// Passages in the rebuilt collections.
    pub passages: u64,
    /// Canaries that were asked again.
    pub canaries: usize,
    /// Last record.
    pub last: Lsn,
    /// The problems; empty for a sound snapshot.
    pub problems: Vec<IntegrityProblem>,
}

/// The requested state, and the expected repository.
pub(super) struct RestoreRequest<'a> {
    pub(super) target: &'a RestoreTarget,
    pub(super) whose: &'a Whose,
    /// This node; `None` while its data directory holds nothing.
    pub(super) own: Option<&'a str>,
    /// Snapshots of this node that are missing.
    pub(super) missing: &'a [String],
}

impl RestoreRequest<'_> {
    /// The selected node, and its readable snapshots, newest first.
    pub(super) fn snapshots(
        &self,
        repository: &Repository,
    ) -> Result<(Option<String>, Vec<SnapshotManifest>), RestoreError> {
        // Snapshots that cannot be read lend nothing; `verify` and `list` name them.
        let (mut manifests, mut unreadable) = (Vec::new(), None);
        for listed in repository.snapshots()? {
            match listed.manifest {
                Ok(manifest) => manifests.push(manifest),
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
        }
        let target = repository.target().to_string();
        let nodes = whose::nodes(&manifests, &repository.notes()?);
        let node = whose::choose(self.whose, self.own, nodes, &target).map_err(RepositoryError::from)?;
        if let Some(node) = &node {
            manifests.retain(|manifest| manifest.node == *node);
        }
        match (manifests.is_empty(), unreadable) {
            (true, Some(error)) => Err(error.into()),
            (true, None) => Err(RepositoryError::Empty { target }.into()),
            (false, _) => Ok((node, manifests)),
        }
    }

    /// Refuses an older state where a newer snapshot should be there and is not.
    pub(super) fn check_newest(
        &self,
        repository: &Repository,
        node: Option<&str>,
        chosen: &str,
    ) -> Result<(), RestoreError> {
        let own = self.missing.first().filter(|_| node.is_none() || node == self.own).cloned();
        // The node's own last note; it may be from another machine.
        let note = node.map(|node| repository.note(node)).transpose()?.flatten();
        let promised = note.filter(|note| repository.ids().is_ok_and(|ids| !ids.contains(&note.newest)));
        match own.max(promised.map(|note| note.newest)).filter(|missing| missing.as_str() > chosen) {
            None => Ok(()),
            Some(missing) => Err(RestoreError::NewerMissing {
                missing,
                chosen: chosen.to_owned(),
                target: repository.target().to_string(),
            }),
        }
    }
}

/// Determines the files of the requested state.
///
/// * `scratch`: creates a directory for the one file that must be searched for a time.
pub(super) fn plan(
    repository: &Repository,
    wanted: &RestoreRequest<'_>,
    scratch: impl FnOnce() -> Result<Scratch, RestoreError>,
) -> Result<RestorePlan, RestoreError> {
    if let RestoreTarget::Snapshot(id) = wanted.target {
        let manifest = repository.snapshot(id)?;
        let is_meant = match (wanted.whose, wanted.own) {
            (Whose::Any, _) | (Whose::Own, None) => true,
            (Whose::Own, Some(own)) => manifest.node == own,
            (Whose::Node(named), _) => manifest.node.starts_with(named),
        };
        if !is_meant {
            let (id, own) = (id.clone(), wanted.own.unwrap_or("a new one").to_owned());
            return Err(RepositoryError::from(WhoseError::OfAnother { id, node: manifest.node, own }).into());
        }
        return whole(manifest);
    }
    let (node, manifests) = wanted.snapshots(repository)?;
    let newest = manifests.iter().max_by_key(|manifest| manifest.created).expect("not empty");
    // The end of the newest history, or of a time after it, is only that when nothing later is missing.
    if !matches!(wanted.target, RestoreTarget::Lsn(_)) {
        wanted.check_newest(repository, node.as_deref(), &newest.id)?;
    }
    let (manifest, last) = match *wanted.target {
        RestoreTarget::Newest => return whole(newest.clone()),
        RestoreTarget::Snapshot(_) => unreachable!("answered above"),
        RestoreTarget::Lsn(last) => {
            let manifest = plan::with_position(&manifests, last).ok_or_else(|| RestoreError::NotReached {
                wanted: last,
                newest: newest.id.clone(),
                last: newest.last,
            })?;
            (manifest, last)
        }
        RestoreTarget::Time(time) => {
            let (manifest, moment) = plan::at_time(&manifests, time).expect("there is a newest one");
            let too_early = || RestoreError::TooEarly {
                time,
                oldest: manifest.segments.first().map_or(manifest.created, |segment| segment.first_time),
            };
            let last = match moment {
                Moment::Known(last) => last,
                Moment::TooEarly => return Err(too_early()),
                Moment::Within(segment) => {
                    let scratch = scratch()?;
                    let file = scratch.path.join(format!("{:020}.seg", segment.first.0));
                    repository.fetch_segment(segment, &file, &mut |_| {})?;
                    let found = lsn_at(&file, time);
                    let found = found.map_err(|source| RestoreError::Staging { path: file.clone(), source })?;
                    found.unwrap_or(Lsn(segment.first.0 - 1))
                }
            };
            if last == Lsn::ZERO {
                return Err(too_early());
            }
            (manifest, last)
        }
    };
    if last == Lsn::ZERO {
        return Err(RestoreError::NotReached { wanted: last, newest: newest.id.clone(), last: newest.last });
    }
    let segments =
        plan::cover(&manifests, manifest, last).map_err(|missing| RestoreError::Compacted { wanted: last, missing })?;
    Ok(RestorePlan { manifest: manifest.clone(), last, segments })
}

/// A snapshot as it is.
pub(super) fn whole(manifest: SnapshotManifest) -> Result<RestorePlan, RestoreError> {
    let last = manifest.last;
    let segments = plan::cover(std::slice::from_ref(&manifest), &manifest, last).map_err(|missing| {
        let message = format!("record {missing} is in none of its segments");
        RestoreError::Failed { problems: vec![IntegrityProblem { name: manifest.id.clone(), message }] }
    })?;
    Ok(RestorePlan { manifest, last, segments })
}

/// Where a plan is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staged<'a> {
    /// The data directory to be.
    pub(super) path: &'a Path,
    /// Whether a node will run on it; the views are left as they fall otherwise.
    pub(super) keep: bool,
}

/// Fetches a plan's files into the log of `staged`, cuts the last, checks every frame, rebuilds the views next to them
/// and runs the canaries. Existing files with the right digest are kept. Problems of the data are in the result.
pub(super) fn build(
    repository: &Repository,
    host: &dyn Host,
    plan: &RestorePlan,
    staged: Staged<'_>,
    progress: &dyn Progress,
) -> Result<Checked, RestoreError> {
    let log = staged.path.join("log");
    let staging = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Staging { path, source }
    };
    create_dirs(&log).map_err(staging(&log))?;
    clean(staged.path, &log, plan).map_err(staging(staged.path))?;
    check_space(staged.path, plan)?;
    let total = plan.bytes();
    let mut checked = Checked { segments: plan.segments.len(), bytes: total, ..Checked::default() };
    std::thread::scope(|scope| {
        // Fetching waits for the disk or the network, checking is work for the processor.
        let (fetched, arriving) = std::sync::mpsc::channel::<&SegmentEntry>();
        let log = &log;
        let check_all = move || {
            let (mut records, mut problems) = (0, Vec::new());
            for segment in arriving {
                let path = segment_file(log, segment);
                records += check(segment, &path, &mut problems).map_err(staging(&path))?;
            }
            Ok::<_, RestoreError>((records, problems))
        };
        let checking = std::thread::Builder::new().spawn_scoped(scope, check_all).map_err(staging(log))?;
        let mut done = 0;
        for segment in &plan.segments {
            let arrived = repository.fetch_segment(segment, &segment_file(log, segment), &mut |bytes| {
                done += bytes;
                progress.report("fetching", done, total);
            });
            match arrived {
                // Checking has ended early when it failed, which is reported below.
                Ok(()) => drop(fetched.send(segment)),
                Err(error) if error.fault() == Fault::Damage => {
                    checked.problems.push(problem(&format!("segments/{}", segment.file), &error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(fetched);
        let (records, problems) = checking.join().expect("checking a segment does not panic")?;
        checked.records = records;
        checked.problems.extend(problems);
        Ok::<_, RestoreError>(())
    })?;
    if !checked.problems.is_empty() {
        return Ok(checked);
    }
    checked.last = plan.last;
    if let Some(segment) = plan.segments.last().filter(|segment| segment.end > plan.last.next()) {
        let path = segment_file(&log, segment);
        checked.last = cut_segment(&path, plan.last).map_err(staging(&path))?;
    }
    super::repository::sync_dir(&log).map_err(staging(&log))?;
    progress.report("reading the log", 0, 0);
    rebuild(host, plan, staged, progress, &mut checked);
    Ok(checked)
}

/// How long what a restore that was interrupted has fetched is kept for the next attempt.
const ATTEMPT_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes the remains of abandoned restores from a data directory. The caller has the directory open, so none is in
/// progress.
pub fn forget_old_attempts(data_dir: &Path) {
    let folder = data_dir.join("restore");
    let Ok(attempts) = fs::read_dir(&folder) else { return };
    for attempt in attempts.flatten() {
        let path = attempt.path();
        let age = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok()?.elapsed().ok();
        // Segments arrive in a directory inside.
        let ages = [age(&path), age(&path.join("log"))];
        if ages.into_iter().flatten().min().is_some_and(|age| age > ATTEMPT_KEPT) {
            tracing::info!(path = %path.display(), "removing what an interrupted restore left more than a day ago");
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "what an interrupted restore left cannot be removed");
            }
        }
    }
    // Only when it is empty.
    let _ = fs::remove_dir(&folder);
}

fn segment_file(log: &Path, segment: &SegmentEntry) -> PathBuf {
    log.join(format!("{:020}.seg", segment.first.0))
}

/// Removes what an earlier attempt left and this one does not want.
fn clean(staged: &Path, log: &Path, plan: &RestorePlan) -> io::Result<()> {
    let views = staged.join("views");
    if views.exists() {
        fs::remove_dir_all(views)?;
    }
    for entry in fs::read_dir(log)? {
        let path = entry?.path();
        if !plan.segments.iter().any(|segment| segment_file(log, segment) == path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn check_space(staged: &Path, plan: &RestorePlan) -> Result<(), RestoreError> {
    let there: u64 = plan
        .segments
        .iter()
        .filter_map(|segment| fs::metadata(segment_file(&staged.join("log"), segment)).ok())
        .map(|metadata| metadata.len())
        .sum();
    // The views are about as large as the log.
    let needed = (plan.bytes() * 2).saturating_sub(there);
    let size = crate::base::ByteSize;
    match super::too_little(staged, needed) {
        Some(free) => Err(RestoreError::Space { path: staged.to_owned(), free: size(free), needed: size(needed) }),
        None => Ok(()),
    }
}

fn problem(name: &str, error: &dyn std::error::Error) -> IntegrityProblem {
    let message = with_causes(error);
    // It already starts with the name.
    let message =
        message.strip_prefix(name).map_or(message.clone(), |rest| rest.trim_start_matches([':', ' ']).to_owned());
    IntegrityProblem { name: name.to_owned(), message }
}

/// Reads every frame; the number of readable ones.
fn check(segment: &SegmentEntry, path: &Path, problems: &mut Vec<IntegrityProblem>) -> io::Result<u64> {
    let name = format!("segments/{}", segment.file);
    let report = match check_segment(path) {
        Ok(report) => report,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(error) => {
            problems.push(IntegrityProblem { name, message: error.to_string() });
            return Ok(0);
        }
    };
    let mut wrong = |what: &str, found: u64, expected: u64| {
        if found != expected {
            let message = format!("{what} is {found}, the manifest says {expected}");
            problems.push(IntegrityProblem { name: name.clone(), message });
        }
    };
    wrong("the first record", report.first.0, segment.first.0);
    wrong("the length", report.bytes, segment.bytes);
    wrong("the number of records", report.records, segment.records);
    wrong("the state it was compacted for", report.as_of.0, segment.as_of.0);
    wrong("the number of damaged places", report.damage.len() as u64, segment.damage);
    Ok(report.records)
}

/// Opens a node on what was built and compares it with what the manifest says.
fn rebuild(host: &dyn Host, plan: &RestorePlan, staged: Staged<'_>, progress: &dyn Progress, checked: &mut Checked) {
    let manifest = &plan.manifest;
    let node = match host
        .open(staged.path, manifest.created, &|reached, last| progress.report(REBUILDING, reached.0, last.0))
    {
        Ok(node) => node,
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &*error;
            checked.problems.push(problem("views", error));
            return;
        }
    };
    let mut wrong = |name: &str, message: String| {
        checked.problems.push(IntegrityProblem { name: name.to_owned(), message });
    };
    let library = node.library();
    let last = library.log().last();
    if last != checked.last {
        wrong("log", format!("ends with record {last}, expected {}", checked.last));
    }
    let known: u64 = plan.segments.iter().map(|segment| segment.damage).sum();
    if known == 0 {
        for damage in library.log().damage() {
            wrong("log", damage.to_string());
        }
    }
    let permit = node.permit();
    let found = counts(library.access(&permit));
    if let Some(expected) = manifest.counts.as_ref().filter(|_| plan.is_whole()) {
        for count in expected {
            match found.iter().find(|found| found.name == count.name) {
                None => wrong("counts", format!("collection '{}' is missing", count.name)),
                Some(found) if found != count => wrong(
                    "counts",
                    format!(
                        "collection '{}' has {} documents and {} passages, the manifest says {} and {}",
                        count.name, found.documents, found.passages, count.documents, count.passages
                    ),
                ),
                Some(_) => {}
            }
        }
        if found.len() > expected.len() {
            wrong("counts", format!("{} collections, the manifest says {}", found.len(), expected.len()));
        }
    }
    progress.report("asking", 0, 0);
    let canaries = if plan.is_whole() { manifest.canaries.as_slice() } else { &[] };
    for (canary, answered) in canaries.iter().zip(node.ask(canaries)) {
        let name = format!("canary '{}' in '{}'", canary.query, canary.collection);
        match answered {
            Err(message) => wrong(&name, message),
            Ok(answers) => {
                let same = answers.len() == canary.answers.len()
                    && answers.iter().zip(&canary.answers).all(|(found, expected)| {
                        found.id == expected.id && (found.score - expected.score).abs() <= SCORE_TOLERANCE
                    });
                if !same {
                    let ids = |answers: &[CanaryAnswer]| {
                        answers.iter().map(|answer| answer.id.clone()).collect::<Vec<_>>().join(", ")
                    };
                    wrong(&name, format!("found {}, expected {}", ids(&answers), ids(&canary.answers)));
                }
            }
        }
    }
    checked.canaries = canaries.len();
    checked.documents = found.iter().map(|count| count.documents).sum();
    checked.passages = found.iter().map(|count| count.passages).sum();
    progress.report("closing", 0, 0);
    node.close(staged.keep);
}

/// Directory in which a plan is built.
pub(super) fn staging(data_dir: &Path, plan: &RestorePlan) -> PathBuf {
    data_dir.join("restore").join(format!("{}-at-{}", plan.manifest.id, plan.last))
}

/// Schedules the built data for the next opening of the data directory. Returns where the old data will be.
pub(super) fn swap(data_dir: &Path, staged: &Path, last: Lsn, now: UnixMillis) -> Result<PathBuf, RestoreError> {
    let mut id = format!("{}-{last}", stamp(now));
    while data_dir.join(format!("before-restore-{id}")).exists() {
        id.push('b');
    }
    schedule_swap(data_dir, staged, &id)
        .map_err(|source| RestoreError::Staging { path: data_dir.to_owned(), source })?;
    Ok(data_dir.join(format!("before-restore-{id}")))
}
