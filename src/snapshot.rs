//! Snapshots: backups that are links or uploads of sealed log segments, their proof, and restoring them.
//!
//! A snapshot is a manifest that names segment files. Taking one copies only segments that the repository lacks, so it
//! is also the incremental backup. `snapshot/FORMAT.md` describes the layout of a repository.
//!
//! Invariants:
//! * A manifest is written after the segments that it names, and removed before them.
//! * The node records what it stored where (`state`), and checks that it exists (`target_check`) before it reports
//!   anything about it.
//! * Nothing is trusted: fetched files have the manifest's digests, every frame is read, the views are rebuilt and
//!   queries are run again before a restore changes the node's data or a verification succeeds.
//! * A restore that fails or is interrupted leaves the node unchanged; one that succeeds keeps the old data.
//!
//! Calls block for as long as disks and networks take. They run on threads that may block, and use the given runtime
//! for the bucket and the write path.

mod archive;
mod bucket;
mod create;
mod crypt;
mod host;
mod listing;
mod manifest;
mod marker;
mod mend;
mod metrics;
mod mounts;
mod newest;
mod plan;
mod proving;
mod prune;
mod repository;
mod restore;
mod scratch;
mod settings;
mod state;
mod taking;
mod target_check;
mod whose;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::base::{Clock, Fault, UnixMillis};
use crate::fetch;

pub use archive::{ArchiveError, EXTENSION};
use bucket::Http;
pub use bucket::{BucketConfig, BucketError};
pub use create::{CreateError, Created};
pub use crypt::{Key, KeyError};
use host::TrackedProgress;
pub use host::{Host, NoProgress, Probe, Progress, REBUILDING, UnderWay};
pub use listing::{ListingError, check_page};
pub use manifest::{
    Canary, CanaryAnswer, CollectionCount, EpochEntry, FORMAT, Kind, ManifestError, SegmentEntry, SnapshotManifest,
};
pub use marker::MarkerError;
pub use mend::Mended;
pub use metrics::{Metrics, WorkLabels};
pub use proving::Verified;
pub use prune::{Pruned, Retention};
pub use repository::{Listed, Repository, RepositoryError, Target};
use restore::Staged;
pub use restore::{Checked, IntegrityProblem, RestoreError, RestorePlan, RestoreTarget, forget_old_attempts};
use scratch::Scratch;
pub use settings::{Destination, Schedule};
use state::State;
pub use state::{Health, Proof, Taken};
pub use target_check::TargetError;
use target_check::{Survey, TargetCheck};
pub use whose::{NodeSummary, Whose, WhoseError};

/// The configuration of a node's snapshots.
#[derive(Clone)]
pub struct Config {
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// Where snapshots are stored; `None`: next to the data directory, and nothing is shipped automatically.
    pub target: Option<Target>,
    /// Key of an encrypted repository.
    pub key_file: Option<PathBuf>,
    /// What may change while the node runs.
    pub live: Live,
    /// How a bucket is asked.
    pub fetch: fetch::Config,
    /// Where that is counted.
    pub fetched: fetch::Metrics,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// The settings of a node's snapshots that may change while it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// When the log is shipped and proved.
    pub schedule: Schedule,
    /// The retention.
    pub retention: Retention,
    /// The node's settings as text, for the manifests.
    pub configuration: String,
}

/// The result of a restore, which is scheduled.
#[derive(Debug)]
pub struct Restored {
    /// The restored state.
    pub plan: RestorePlan,
    /// The checks.
    pub checked: Checked,
    /// Where the old data will be once the data directory is opened again.
    pub old_data: PathBuf,
}

/// The snapshots of a node.
pub struct Snapshots {
    config: Config,
    live: watch::Sender<Arc<Live>>,
    host: Arc<dyn Host>,
    http: Http,
    runtime: Handle,
    /// Locked while a snapshot is taken or removed, so that a removal never meets a half-written one of this process.
    writing: Mutex<()>,
    /// Held while a restore is built.
    restoring: Mutex<()>,
    under_way: Mutex<BTreeMap<&'static str, UnderWay>>,
    /// Locked while the target is checked.
    checking: Mutex<()>,
    /// When that began.
    check_began: Mutex<Option<UnixMillis>>,
    last_check: Mutex<Option<TargetCheck>>,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// After this many milliseconds a target that did not answer counts as unresponsive.
const CHECK_PATIENCE: i64 = 60_000;

/// The newest snapshot that the node of a data directory took; see [`Snapshots::last_taken`].
#[must_use]
pub fn last_taken(data_dir: &Path) -> Option<Taken> {
    State::read(data_dir).created
}

impl Snapshots {
    /// Nothing is opened or made yet.
    #[must_use]
    pub fn new(config: Config, host: Arc<dyn Host>, runtime: Handle) -> Self {
        Self {
            live: watch::Sender::new(Arc::new(config.live.clone())),
            http: Http::new(config.fetch.clone(), config.fetched.clone()),
            config,
            host,
            runtime,
            writing: Mutex::default(),
            restoring: Mutex::default(),
            under_way: Mutex::default(),
            checking: Mutex::default(),
            check_began: Mutex::default(),
            last_check: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// The initial configuration; see [`live`](Self::live) for later changes.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What holds now of what may change while the node runs.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.borrow())
    }

    /// Changes it.
    pub fn set_live(&self, live: Live) {
        self.live.send_replace(Arc::new(live));
    }

    /// Announces its changes.
    #[must_use]
    pub fn live_changes(&self) -> watch::Receiver<Arc<Live>> {
        self.live.subscribe()
    }

    /// Where snapshots are stored: the configured target, otherwise a directory next to the data directory, otherwise
    /// one in it.
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
        Repository::open(&self.target(), self.config.key_file.as_deref(), &self.http, &self.runtime)
    }

    /// The node whose records the data directory holds.
    fn node_id(&self) -> Option<String> {
        match crate::store::data_node(&self.config.data_dir) {
            Ok(node) => node.map(|node| node.to_string()),
            Err(error) => {
                tracing::warn!(%error, "the log cannot be asked whose it is");
                None
            }
        }
    }

    /// Checks the snapshot target and compares it with the record. Blocks as long as the target takes; while another
    /// thread checks, returns the previous result.
    #[must_use]
    pub fn check_target(&self) -> Health {
        let Some(_checking) = self.checking.try_lock() else { return self.health() };
        *self.check_began.lock() = Some(self.config.clock.now());
        let own = self.node_id();
        match self.repository() {
            // The result is stored, and returned below.
            Ok(repository) => drop(self.survey(&repository, own.as_deref())),
            Err(error) => self.saw(None, &Err(error), false),
        }
        *self.check_began.lock() = None;
        self.health()
    }

    fn survey(&self, repository: &Repository, own: Option<&str>) -> Result<Survey, RepositoryError> {
        let found =
            target_check::survey(repository, own, &State::read(&self.config.data_dir), self.config.target.is_some());
        self.saw(Some(repository), &found, true);
        found
    }

    /// * `learns`: whether what was learned of the snapshots there is remembered.
    fn saw(&self, repository: Option<&Repository>, found: &Result<Survey, RepositoryError>, learns: bool) {
        if let Ok(Survey { is_learned: true, shipped: Some(shipped), .. }) = found
            && learns
        {
            self.remember(|state| drop(state.targets.insert(self.target().key(), shipped.clone())));
        }
        let is_beside = repository.is_some_and(|repository| repository.is_beside(&self.config.data_dir));
        let mut look = TargetCheck::new(found, is_beside, self.config.clock.now());
        let access = match &self.config.target {
            Some(Target::Bucket(bucket)) => bucket.access_key_file.as_deref(),
            Some(Target::Directory(_)) | None => None,
        };
        look.exposed =
            [self.config.key_file.as_deref(), access].into_iter().flatten().filter_map(Key::exposure).collect();
        if look.problem.is_some() {
            self.failed("look");
        }
        *self.last_check.lock() = Some(look);
    }

    fn failed(&self, work: &'static str) {
        *self.failures.lock().entry(work).or_default() += 1;
    }

    /// How often `create`, `verify` and `look` failed in this process.
    #[must_use]
    pub fn failures(&self) -> [(&'static str, u64); 3] {
        let failures = self.failures.lock();
        ["create", "verify", "look"].map(|work| (work, failures.get(work).copied().unwrap_or_default()))
    }

    /// The newest snapshot that this node took, whatever became of it: up to its end the log was shipped.
    #[must_use]
    pub fn last_taken(&self) -> Option<Taken> {
        last_taken(&self.config.data_dir)
    }

    /// The last proof, whatever became of the snapshot.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        State::read(&self.config.data_dir).verified
    }

    /// All selected snapshots, newest first, including unreadable ones, and the other nodes that have some. Afterwards,
    /// [`Self::health`] reports which are missing.
    ///
    /// # Errors
    /// When the repository cannot be used, or `whose` matches no node.
    pub fn list(&self, whose: &Whose) -> Result<(Vec<Listed>, Vec<NodeSummary>), RepositoryError> {
        let repository = self.repository()?;
        let own = self.node_id();
        let survey = self.survey(&repository, own.as_deref())?;
        let mut listed: Vec<Listed> = survey.names.into_iter().map(|named| repository.listed(named)).collect();
        let manifests: Vec<SnapshotManifest> =
            listed.iter().filter_map(|listed| listed.manifest.as_ref().ok()).cloned().collect();
        let nodes = whose::nodes(&manifests, &repository.notes()?);
        let meant = match (whose, own) {
            // On a new machine every node may be the one that is wanted.
            (Whose::Own, own) => own,
            (whose, own) => whose::choose(whose, own.as_deref(), nodes.clone(), &repository.target().to_string())?,
        };
        let is_meant = |node: &str| meant.as_ref().is_none_or(|meant| meant == node);
        listed.retain(|listed| listed.manifest.as_ref().map_or(true, |manifest| is_meant(&manifest.node)));
        Ok((listed, nodes.into_iter().filter(|summary| !is_meant(&summary.node)).collect()))
    }

    /// The id of the newest snapshot, readable or not; an error when a newer one should be there.
    fn newest(&self, repository: &Repository, whose: &Whose) -> Result<String, RestoreError> {
        let own = self.node_id();
        let survey = self.visible(repository, own.as_deref())?;
        let target = &RestoreTarget::Newest;
        let wanted = restore::RestoreRequest { target, whose, own: own.as_deref(), missing: &survey.missing };
        let (node, id) = match survey.own_snapshots().next().filter(|_| *whose == Whose::Own) {
            Some(id) => (own.clone(), id.to_owned()),
            None => {
                let found = wanted.snapshots(repository);
                let (node, manifests) = found.map_err(|error| elsewhere(error, &survey, repository))?;
                let ids = manifests.into_iter().map(|manifest| manifest.id);
                (node, ids.max().expect("there is one"))
            }
        };
        wanted.check_newest(repository, node.as_deref(), &id)?;
        Ok(id)
    }

    /// Looks at the place; an error when what is there is not this node's, or nothing of it is left.
    fn visible(&self, repository: &Repository, own: Option<&str>) -> Result<Survey, RepositoryError> {
        let mut survey = self.survey(repository, own)?;
        let is_lost = !survey.missing.is_empty() && survey.own_snapshots().next().is_none();
        match survey.trouble.take_if(|trouble| trouble.hides() || is_lost) {
            Some(trouble) => Err(trouble.into()),
            None => Ok(survey),
        }
    }

    /// Says what a restore would do.
    ///
    /// # Errors
    /// When the wanted state cannot be put together, or is older than what was wanted.
    pub fn plan(&self, target: &RestoreTarget, whose: &Whose) -> Result<RestorePlan, RestoreError> {
        let repository = self.repository()?;
        let own = self.node_id();
        let survey = self.visible(&repository, own.as_deref())?;
        let wanted = restore::RestoreRequest { target, whose, own: own.as_deref(), missing: &survey.missing };
        let planned = restore::plan(&repository, &wanted, || Scratch::make(&self.config.data_dir));
        planned.map_err(|error| elsewhere(error, &survey, &repository))
    }

    /// The plan of restoring an exported file. The repository is not accessed; of the file only the manifest is read.
    ///
    /// # Errors
    /// When it is not such a file.
    pub fn plan_file(&self, path: &Path) -> Result<RestorePlan, FileError> {
        Ok(restore::whole(archive::peek(path)?)?)
    }

    /// Builds the wanted state next to the data, checks it, and schedules it for the next opening of the data
    /// directory. An interrupted restore resumes when the same one is requested again.
    ///
    /// # Errors
    /// See [`RestoreError`]; the node's data is untouched.
    pub fn restore(&self, plan: RestorePlan, progress: &dyn Progress) -> Result<Restored, RestoreError> {
        let _restoring = self.restoring.lock();
        let progress = &self.track("restore", progress);
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
    pub fn prune(&self, whose: &Whose, dry_run: bool) -> Result<Pruned, RepositoryError> {
        let _writing = self.writing.lock();
        let repository = self.repository()?;
        let own = self.node_id();
        let mut survey = self.survey(&repository, own.as_deref())?;
        // While something is not as it should be, nothing is known to be superfluous.
        if let Some(trouble) = survey.trouble.take_if(|trouble| !matches!(trouble, TargetError::Mixed { .. })) {
            return Err(trouble.into());
        }
        if let Some(elsewhere) = survey.elsewhere.take_if(|_| *whose == Whose::Own) {
            return Err(elsewhere.missed(&repository).into());
        }
        let target = repository.target().to_string();
        let notes = repository.notes()?;
        if let Some(note) = notes.iter().find(|note| survey.names.iter().all(|named| named.id != note.newest)) {
            let (node, id) = (note.node.clone(), note.newest.clone());
            return Err(TargetError::OthersMissing { target, node, id }.into());
        }
        let listed: Vec<Listed> = survey.names.into_iter().map(|named| repository.listed(named)).collect();
        let manifests: Vec<SnapshotManifest> =
            listed.iter().filter_map(|listed| listed.manifest.as_ref().ok()).cloned().collect();
        let nodes = whose::nodes(&manifests, &notes);
        let node = match whose::choose(whose, own.as_deref(), nodes, &target) {
            // Without its own snapshots there is nothing to remove except unused files.
            Err(WhoseError::OthersOnly { own, .. }) => Some(own),
            node => node?,
        };
        let forget = |id: &str| self.forget(id);
        let (live, now) = (self.live(), self.config.clock.now());
        let retention = &live.retention;
        prune::prune(&repository, prune::Pruning { listed, node, retention, now, dry_run, forget: &forget })
    }

    /// The manifest of a snapshot, by default the newest.
    ///
    /// # Errors
    /// When there is none, when it cannot be read, or when a newer one should be there.
    pub fn manifest(&self, id: Option<&str>, whose: &Whose) -> Result<SnapshotManifest, RestoreError> {
        let repository = self.repository()?;
        let manifest = match id {
            Some(id) => repository.snapshot(id),
            None => self.newest_manifest(&repository, whose)?.1,
        };
        Ok(manifest?)
    }

    /// Writes a snapshot to one file. Returns the file's length in bytes.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn export(&self, manifest: &SnapshotManifest, to: &Path, progress: &dyn Progress) -> Result<u64, ArchiveError> {
        archive::export(&self.repository()?, manifest, to, progress)
    }

    /// Puts the snapshot of a file into the repository.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn import(&self, from: &Path, progress: &dyn Progress) -> Result<SnapshotManifest, ArchiveError> {
        let _writing = self.writing.lock();
        // Before anything is made for it.
        archive::peek(from)?;
        let own = self.node_id();
        let repository = self.repository()?;
        let survey = self.writable(&repository, own.as_deref(), false)?;
        let scratch = Scratch::make(&self.config.data_dir).map_err(|error| match error {
            RestoreError::Staging { path, source } => ArchiveError::Write { path, source },
            other => ArchiveError::Content { path: from.to_owned(), what: other.to_string() },
        })?;
        let manifest = archive::import(&repository, from, &scratch.path, progress)?;
        if let Some(own) = own.filter(|own| *own == manifest.node) {
            self.remember(|state| self.add(state, &repository, &survey, &own, &manifest.id));
        }
        Ok(manifest)
    }

    /// What this process is doing.
    #[must_use]
    pub fn under_way(&self) -> Vec<UnderWay> {
        self.under_way.lock().values().copied().collect()
    }

    fn track<'a>(&'a self, work: &'static str, to: &'a dyn Progress) -> TrackedProgress<'a> {
        let shown = TrackedProgress { among: &self.under_way, work, to };
        shown.report("preparing", 0, 0);
        shown
    }

    /// The result of the last check, and failures. Reads only the data directory: [`Self::check_target`] checks the
    /// target.
    #[must_use]
    pub fn health(&self) -> Health {
        let (state, now) = (State::read(&self.config.data_dir), self.config.clock.now());
        let mut last_check = self.last_check.lock().clone();
        if let Some(began) = *self.check_began.lock()
            && now.0 - began.0 > CHECK_PATIENCE
        {
            let problem = format!("{} has not answered for {} seconds", self.target(), (now.0 - began.0) / 1_000);
            let time = last_check.map_or(began, |look| look.time);
            last_check = Some(TargetCheck::blind(time, "unanswered", problem));
        }
        Health::new(&state, last_check.as_ref(), self.target().to_string(), self.config.target.is_some(), now)
    }

    fn remember(&self, change: impl FnOnce(&mut State)) {
        if let Err(error) = State::update(&self.config.data_dir, change) {
            tracing::warn!(%error, "what became of a snapshot could not be written down");
        }
    }
}

/// Why an exported file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file, or the repository behind it.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The snapshot in it.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl FileError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Archive(error) => error.fault(),
            Self::Restore(error) => error.fault(),
        }
    }
}

/// If there is none, but there is one in another target, the message says so.
fn elsewhere(error: RestoreError, survey: &Survey, repository: &Repository) -> RestoreError {
    match (error, &survey.elsewhere) {
        (RestoreError::Repository(RepositoryError::Empty { .. }), Some(elsewhere)) => {
            RepositoryError::from(elsewhere.clone().missed(repository)).into()
        }
        (error, _) => error,
    }
}

/// Bytes that an ordinary process may still write in `folder`, if fewer than `needed`. `None` also if that cannot be
/// determined: the write will show.
fn too_little(folder: &Path, needed: u64) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize)).filter(|free| *free < needed)
}

/// Next to the data directory if it can be created there, otherwise in it.
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
