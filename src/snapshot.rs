//! Snapshots: backups that are links or uploads of sealed log segments, their proof, and the way back.
//!
//! A snapshot is a manifest that names segment files. Taking one copies only segments that the repository lacks, so it is
//! also the incremental backup. The layout of a repository is in `snapshot/FORMAT.md`.
//!
//! Invariants:
//! * A manifest is written after the segments that it names, and removed before them.
//! * Nothing is believed: what is fetched has the manifest's digests, every frame is read, the views are rebuilt and
//!   questions are asked again before a restore touches the node's data or a verification says yes.
//! * A restore that fails or is interrupted leaves the node as it was; one that succeeds keeps the old data.
//!
//! Calls block for as long as disks and networks take. They run on threads that may, and use the given runtime for the
//! bucket and the write path.

mod archive;
mod bucket;
mod create;
mod crypt;
mod manifest;
mod mend;
mod plan;
mod prune;
mod repository;
mod restore;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::base::{Clock, Fault, Lsn, UnixMillis, with_causes};
use crate::collection::Library;

pub use archive::{ArchiveError, EXTENSION};
pub use bucket::{BucketConfig, BucketError};
pub use create::{CreateError, Created};
pub use crypt::{Key, KeyError};
pub use manifest::{
    Canary, CanaryAnswer, CollectionCount, EpochEntry, FORMAT, InstalledFile, Kind, ManifestError, SegmentEntry,
    SnapshotManifest,
};
pub use mend::Mended;
pub use prune::{Pruned, Retention};
pub use repository::{Listed, Repository, RepositoryError, Target};
use restore::Staged;
pub use restore::{Checked, Problem, RestoreError, RestorePlan, RestoreTarget};
pub use state::{Health, State};

/// What a node's snapshots are told.
#[derive(Clone)]
pub struct Config {
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// Where snapshots go; `None`: beside the data directory, and nothing is shipped by itself.
    pub target: Option<Target>,
    /// Key of an encrypted repository.
    pub key_file: Option<PathBuf>,
    /// How often a log that changed is shipped.
    pub interval: Duration,
    /// How often the newest snapshot is proved; zero: never by itself.
    pub verify_interval: Duration,
    /// What is kept.
    pub retention: Retention,
    /// The node's settings as text, for the manifests.
    pub configuration: String,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// A node, as a snapshot sees it: the live one, or one that was opened on what was brought back.
pub trait Probe: Send + Sync {
    /// Its collections.
    fn library(&self) -> &Arc<Library>;

    /// Up to `most` questions spread over the collections, taken from what is stored, with their answers.
    fn canaries(&self, most: usize) -> Vec<Canary>;

    /// Asks the questions again. For each, as many passages as it had answers, by an exact scan, best first; or why not, in
    /// words.
    fn ask(&self, canaries: &[Canary]) -> Vec<Result<Vec<CanaryAnswer>, String>>;

    /// Closes a node that [`Host::open`] opened.
    ///
    /// * `keep`: whether its files are used again.
    fn close(&self, keep: bool);
}

/// Opens nodes.
pub trait Host: Send + Sync + 'static {
    /// Opens a node on a data directory and waits until its views have followed the log.
    ///
    /// * `now`: what the node's clock says, so that documents which expired since are still there.
    /// * `report`: told which record the views have come to, and which is the last.
    ///
    /// # Errors
    /// When it cannot be opened or does not become ready.
    fn open(
        &self,
        data_dir: &Path,
        now: UnixMillis,
        report: &dyn Fn(Lsn, Lsn),
    ) -> Result<Box<dyn Probe>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Where long work reports how far it is.
pub trait Progress: Send + Sync {
    /// `done` of `total` bytes of what `step` names; records where it is [`REBUILDING`].
    fn report(&self, step: &'static str, done: u64, total: u64);
}

/// The step that makes the views from the log.
pub const REBUILDING: &str = "rebuilding";

/// How far long work of this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// `create`, `verify` or `restore`.
    pub work: &'static str,
    /// What it is doing; see [`Progress`].
    pub step: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 while that is not known.
    pub total: u64,
}

/// Passes reports on, and shows them as [`Snapshots::under_way`] while it lives.
struct Shown<'a> {
    among: &'a Mutex<BTreeMap<&'static str, UnderWay>>,
    work: &'static str,
    to: &'a dyn Progress,
}

impl Progress for Shown<'_> {
    fn report(&self, step: &'static str, done: u64, total: u64) {
        self.among.lock().insert(self.work, UnderWay { work: self.work, step, done, total });
        self.to.report(step, done, total);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.among.lock().remove(self.work);
    }
}

/// For callers who do not want to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _step: &'static str, _done: u64, _total: u64) {}
}

/// The outcome of a verification.
#[derive(Debug)]
pub struct Verified {
    /// The snapshot.
    pub id: String,
    /// What was looked at and what was wrong.
    pub checked: Checked,
    /// How long it took.
    pub took: Duration,
}

/// What a restore built and scheduled.
#[derive(Debug)]
pub struct Restored {
    /// What was done.
    pub plan: RestorePlan,
    /// What was checked.
    pub checked: Checked,
    /// Where the old data will be once the data directory is opened again.
    pub old_data: PathBuf,
}

/// The snapshots of a node.
pub struct Snapshots {
    config: Config,
    host: Arc<dyn Host>,
    runtime: Handle,
    /// Held while a snapshot is taken or removed, so that a removal never meets a half-written one of this process.
    writing: Mutex<()>,
    /// Held while a restore is built.
    restoring: Mutex<()>,
    under_way: Mutex<BTreeMap<&'static str, UnderWay>>,
}

impl Snapshots {
    /// Nothing is opened or made yet.
    #[must_use]
    pub fn new(config: Config, host: Arc<dyn Host>, runtime: Handle) -> Self {
        Self {
            config,
            host,
            runtime,
            writing: Mutex::default(),
            restoring: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    /// What they were told.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where snapshots go: the configured target, else a directory beside the data directory, else one in it.
    #[must_use]
    pub fn target(&self) -> Target {
        match &self.config.target {
            Some(target) => target.clone(),
            None => Target::Directory(default_target(&self.config.data_dir)),
        }
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// When its settings or the key cannot be used.
    pub fn repository(&self) -> Result<Repository, RepositoryError> {
        Repository::open(&self.target(), self.config.key_file.as_deref(), &self.runtime)
    }

    /// Takes a snapshot of a running node.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn create(&self, node: &dyn Probe, kind: Kind, progress: &dyn Progress) -> Result<Created, CreateError> {
        let _writing = self.writing.lock();
        let progress = &self.shown("create", progress);
        let repository = self.repository()?;
        let about =
            create::About { kind, now: self.config.clock.now(), configuration: self.config.configuration.clone() };
        let created = create::create(&repository, node, about, &self.runtime, progress);
        self.remember(|state| match &created {
            Ok(created) => {
                state.created = Some(state::Taken::of(&created.manifest));
                state.create_failure = None;
            }
            Err(CreateError::Empty) => {}
            Err(error) => state.create_failure = Some(with_causes(error)),
        });
        let created = created?;
        if kind == Kind::Shipped {
            self.thin(&repository, &created.manifest)?;
        }
        Ok(created)
    }

    /// Removes shipped snapshots that the one just taken makes superfluous: one a minute would be 10,000 a week.
    fn thin(&self, repository: &Repository, newest: &SnapshotManifest) -> Result<(), RepositoryError> {
        for id in repository.ids()?.into_iter().filter(|id| *id < newest.id) {
            let Ok(older) = repository.snapshot(&id) else { continue };
            if older.kind != Kind::Shipped || !prune::replaces(newest, &older) {
                // What lies before was looked at when this one was taken.
                break;
            }
            repository.remove_snapshot(&id)?;
        }
        Ok(())
    }

    /// Ships the log if it changed since the newest snapshot of this process. Returns what was taken.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn ship(&self, node: &dyn Probe) -> Result<Option<Created>, CreateError> {
        let last = node.library().reader().last();
        let state = State::read(&self.config.data_dir);
        let target = self.target().to_string();
        let fresh = state.created.as_ref().is_some_and(|taken| taken.last == last && taken.target == target);
        if last == Lsn::ZERO {
            return Ok(None);
        }
        let now = self.config.clock.now();
        let due = state.scheduled.is_none_or(|day| day < now.0.div_euclid(DAY));
        if fresh && !due {
            return Ok(None);
        }
        let kind = if due { Kind::Scheduled } else { Kind::Shipped };
        let created = self.create(node, kind, &NoProgress)?;
        if due {
            self.remember(|state| state.scheduled = Some(now.0.div_euclid(DAY)));
            self.prune(false)?;
        }
        Ok(Some(created))
    }

    /// Proves a snapshot, the newest when none is named: fetches it, reads every frame, rebuilds the views and asks its
    /// canaries, in a directory that is removed afterwards.
    ///
    /// # Errors
    /// When it cannot be tried. What is wrong with the snapshot is in the result.
    pub fn verify(&self, id: Option<&str>, progress: &dyn Progress) -> Result<Verified, RestoreError> {
        let start = std::time::Instant::now();
        let verified = self.try_verify(id, &self.shown("verify", progress));
        let (id, failure) = match &verified {
            Ok((id, checked)) => (id.clone(), checked.problems.first().map(ToString::to_string)),
            Err(error) => (id.unwrap_or("the newest snapshot").to_owned(), Some(with_causes(error))),
        };
        let now = self.config.clock.now();
        self.remember(|state| {
            state.verify_tried = Some(now);
            match failure {
                None => {
                    state.verified = Some(state::Proof { id, time: now });
                    state.verify_failure = None;
                }
                Some(failure) => state.verify_failure = Some(format!("{id}: {failure}")),
            }
        });
        let (id, checked) = verified?;
        Ok(Verified { id, checked, took: start.elapsed() })
    }

    fn try_verify(&self, id: Option<&str>, progress: &dyn Progress) -> Result<(String, Checked), RestoreError> {
        let repository = self.repository()?;
        let id = match id {
            Some(id) => id.to_owned(),
            None => match repository.ids()?.into_iter().next() {
                Some(id) => id,
                None => return Err(RepositoryError::Empty { target: repository.target().to_string() }.into()),
            },
        };
        let manifest = match repository.snapshot(&id) {
            Ok(manifest) => manifest,
            Err(error @ RepositoryError::Manifest { .. }) if error.fault() == Fault::Damage => {
                let problems = vec![Problem { name: format!("snapshots/{id}.json"), message: with_causes(&error) }];
                return Ok((id, Checked { problems, ..Checked::default() }));
            }
            Err(error) => return Err(error.into()),
        };
        let plan = match restore::whole(manifest) {
            Ok(plan) => plan,
            Err(RestoreError::Failed { problems }) => {
                return Ok((id, Checked { problems, ..Checked::default() }));
            }
            Err(error) => return Err(error),
        };
        let scratch = Scratch::make(&self.config.data_dir)?;
        let checked =
            restore::build(&repository, &*self.host, &plan, Staged { path: &scratch.path, keep: false }, progress)?;
        Ok((id, checked))
    }

    /// Says what a restore would do.
    ///
    /// # Errors
    /// When the wanted state cannot be put together.
    pub fn plan(&self, target: &RestoreTarget) -> Result<RestorePlan, RestoreError> {
        restore::plan(&self.repository()?, target, &self.config.data_dir.join("restore").join("lookup"))
    }

    /// Builds the wanted state beside the data, checks it, and writes down that the next opening of the data directory
    /// takes it. An interrupted restore goes on where it was when the same is asked for again.
    ///
    /// # Errors
    /// See [`RestoreError`]; the node's data is untouched.
    pub fn restore(&self, plan: RestorePlan, progress: &dyn Progress) -> Result<Restored, RestoreError> {
        let _restoring = self.restoring.lock();
        let progress = &self.shown("restore", progress);
        let staged = restore::staging(&self.config.data_dir, &plan);
        let checked =
            restore::build(&self.repository()?, &*self.host, &plan, Staged { path: &staged, keep: true }, progress)?;
        if !checked.problems.is_empty() {
            return Err(RestoreError::Failed { problems: checked.problems });
        }
        let old_data = restore::swap(&self.config.data_dir, &staged, checked.last, self.config.clock.now())?;
        Ok(Restored { plan, checked, old_data })
    }

    /// Removes what earlier restores kept: old data, and what was built and not used. Returns the directories.
    ///
    /// # Errors
    /// When a directory cannot be removed.
    pub fn drop_old(&self) -> io::Result<Vec<PathBuf>> {
        let _restoring = self.restoring.lock();
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.config.data_dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("before-restore-") && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
                removed.push(entry.path());
            }
        }
        removed.sort();
        Ok(removed)
    }

    /// Removes what the retention does not keep.
    ///
    /// # Errors
    /// When the repository cannot be used.
    pub fn prune(&self, dry_run: bool) -> Result<Pruned, RepositoryError> {
        let _writing = self.writing.lock();
        prune::prune(&self.repository()?, &self.config.retention, self.config.clock.now(), dry_run)
    }

    /// Writes a snapshot, the newest when none is named, to one file. Returns its id and the file's length.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn export(&self, id: Option<&str>, to: &Path, progress: &dyn Progress) -> Result<(String, u64), ArchiveError> {
        let repository = self.repository()?;
        let manifest = match id {
            Some(id) => repository.snapshot(id)?,
            None => match repository.ids()?.first() {
                Some(id) => repository.snapshot(id)?,
                None => return Err(RepositoryError::Empty { target: repository.target().to_string() }.into()),
            },
        };
        let bytes = archive::export(&repository, &manifest, to, progress)?;
        Ok((manifest.id, bytes))
    }

    /// Puts the snapshot of a file into the repository.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn import(&self, from: &Path, progress: &dyn Progress) -> Result<SnapshotManifest, ArchiveError> {
        let _writing = self.writing.lock();
        let scratch = Scratch::make(&self.config.data_dir).map_err(|error| match error {
            RestoreError::Staging { path, source } => ArchiveError::Write { path, source },
            other => ArchiveError::Content { path: from.to_owned(), what: other.to_string() },
        })?;
        archive::import(&self.repository()?, from, &scratch.path, progress)
    }

    /// Whether the newest snapshot should be proved now.
    #[must_use]
    pub fn is_proof_due(&self) -> bool {
        let state = State::read(&self.config.data_dir);
        let every = i64::try_from(self.config.verify_interval.as_millis()).unwrap_or(i64::MAX);
        let last = state.verify_tried.max(state.verified.map(|proof| proof.time));
        every > 0
            && state.created.is_some()
            && last.is_none_or(|last| self.config.clock.now().0.saturating_sub(last.0) >= every)
    }

    /// What this process is doing.
    #[must_use]
    pub fn under_way(&self) -> Vec<UnderWay> {
        self.under_way.lock().values().copied().collect()
    }

    fn shown<'a>(&'a self, work: &'static str, to: &'a dyn Progress) -> Shown<'a> {
        let shown = Shown { among: &self.under_way, work, to };
        shown.report("preparing", 0, 0);
        shown
    }

    /// How old the newest snapshot and the newest proof are, and what failed.
    #[must_use]
    pub fn health(&self) -> Health {
        let target = self.target();
        let is_beside = match &target {
            Target::Directory(_) => {
                self.repository().is_ok_and(|repository| repository.is_beside(&self.config.data_dir))
            }
            Target::Bucket(_) => false,
        };
        let configured = self.config.target.is_some();
        Health::new(
            State::read(&self.config.data_dir),
            target.to_string(),
            configured,
            is_beside,
            self.config.clock.now(),
        )
    }

    fn remember(&self, change: impl FnOnce(&mut State)) {
        let target = self.target().to_string();
        if let Err(error) = State::update(&self.config.data_dir, &target, change) {
            tracing::warn!(%error, "what became of a snapshot could not be written down");
        }
    }
}

const DAY: i64 = 24 * 60 * 60 * 1_000;

/// Beside the data directory where that can be made, else in it.
fn default_target(data_dir: &Path) -> PathBuf {
    let inside = data_dir.join("snapshots");
    let mut name = data_dir.file_name().unwrap_or_default().to_os_string();
    name.push("-snapshots");
    let beside = data_dir.with_file_name(name);
    let parent = match data_dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let can_be_beside = beside.is_dir() || rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok();
    if inside.is_dir() || !can_be_beside { inside } else { beside }
}

/// A directory for one proof, removed when dropped.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn make(data_dir: &Path) -> Result<Self, RestoreError> {
        let mut random = [0; 6];
        getrandom::fill(&mut random)
            .map_err(|source| RestoreError::Staging { path: data_dir.to_owned(), source: io::Error::other(source) })?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}-{random}", std::process::id());
        let folder = data_dir.join("verify");
        // What a process that was killed left behind is of no use to anybody.
        for left in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if is_abandoned(&left.path()) {
                let _ = fs::remove_dir_all(left.path());
            }
        }
        let path = folder.join(name);
        repository::create_dirs(&path).map_err(|source| RestoreError::Staging { path: path.clone(), source })?;
        Ok(Self { path })
    }
}

/// Whether its process has ended, or nothing in it changed for a day (in a container every process has the same number).
fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = name.split('-').next().unwrap_or_default();
    if !Path::new("/proc").join(process).exists() {
        return true;
    }
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > Duration::from_secs(24 * 60 * 60))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a scratch directory stays");
        }
        // Only when it is empty.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}
