//! What snapshots need from a node, and the schedule on which they are taken.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::runtime::Handle;

use super::{library_config, memory};
use crate::base::{ByteSize, Clock, Lsn, SystemClock, UnixMillis};
use crate::calls::{Calls, Operation, Permit};
use crate::collection::{self, Access, CollectionInfo, Follower, Library, PassageKey, Searcher};
use crate::config::Config;
use crate::embed::{self, Models};
use crate::index::filter::Filter;
use crate::index::lexical::Passages;
use crate::snapshot::{
    self, Canary, CanaryAnswer, CreateError, Health, Host, NoProgress, Probe, RestoreError, Retention, Snapshots,
    Taken, Verified,
};
use crate::store::{self, Epoch};
use crate::task::{self, Drain, MemoryBudget, MemoryReservation, Readiness, ReserveError};

/// Documents of a collection among which questions are chosen.
const SAMPLE: usize = 256;
/// Words of a question.
const QUERY_WORDS: usize = 12;
/// Passages of an answer.
const ANSWERS: usize = 5;
/// How long a rebuild may take: 1 M passages take minutes.
const REBUILD_PATIENCE: Duration = Duration::from_secs(4 * 3_600);

/// How long a proof waits for memory that other work has reserved.
const ROOM_PATIENCE: Duration = Duration::from_secs(600);

/// Rounds of the schedule between two checks of a bucket into which nothing was shipped.
const LOOKS_APART: u32 = 10;

/// How often a rebuild reports its progress.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// The snapshots of the node with these settings.
#[must_use]
pub fn snapshots(config: &Config, runtime: Handle) -> Snapshots {
    beside(
        config,
        Arc::new(Models::built_in()),
        memory::of_collections(config).budget,
        crate::fetch::Metrics::default(),
        runtime,
    )
}

/// The same for an open node.
///
/// * `models`: those of the node, which a proof uses too.
/// * `room`: the budget from which a proof reserves memory.
/// * `fetched`: the metrics of requests to a bucket.
pub(super) fn beside(
    config: &Config,
    models: Arc<Models>,
    budget: MemoryBudget,
    fetched: crate::fetch::Metrics,
    runtime: Handle,
) -> Snapshots {
    let told = snapshot::Config {
        data_dir: config.data_dir.clone(),
        target: config.snapshot.target.clone(),
        key_file: config.snapshot.key_file.clone(),
        live: live(config),
        fetch: config.fetch.clone(),
        fetched,
        clock: Arc::new(SystemClock),
    };
    Snapshots::new(told, Arc::new(Opens { config: library_config(config, models, None), budget }), runtime)
}

/// The snapshot settings that may change while the node runs.
pub(super) fn live(config: &Config) -> snapshot::Live {
    snapshot::Live {
        schedule: config.snapshot.schedule,
        retention: config.snapshot.retention.clone(),
        configuration: config.effective.clone(),
    }
}

/// The indexes of a collection, and every passage in its lexical index.
struct Opened {
    searcher: Searcher,
    passages: Arc<Passages>,
}

/// A node's collections, for taking a snapshot or checking one.
pub(super) struct Collections {
    library: Arc<Library>,
    calls: Calls,
    /// Memory reserved for a library that was opened for this.
    _held: Option<MemoryReservation>,
}

impl Collections {
    pub(super) fn new(library: Arc<Library>, calls: Calls) -> Self {
        Self { library, calls, _held: None }
    }

    fn open(&self, access: Access<'_>, info: &Arc<CollectionInfo>) -> Result<Opened, String> {
        let searcher = access.searcher(info).ok_or("its indexes are not open")?;
        if let Some(problem) = searcher.broken() {
            return Err(problem);
        }
        let passages = searcher.matching(&Filter::And(Vec::new())).map_err(|error| error.to_string())?;
        Ok(Opened { searcher, passages })
    }

    /// The passages that the vector index, without its graph, scores best among those in the lexical index: both have
    /// to be right.
    fn nearest(
        &self,
        access: Access<'_>,
        info: &CollectionInfo,
        opened: &Result<Opened, String>,
        query: &str,
        most: usize,
    ) -> Result<Vec<CanaryAnswer>, String> {
        let Opened { searcher, passages } = opened.as_ref().map_err(Clone::clone)?;
        let model = self.library.models().get(&info.model).map_err(|error| error.to_string())?;
        let embedding = task::block_on(embed::embed_one(&**model, query)).map_err(|error| error.to_string())?;
        let found = searcher.nearest_exact(&embedding, most, &passages.keys());
        let answer = |key: u64, score: f32| {
            let key = PassageKey(key);
            let document = access.passages().document(key.document()).map_err(|error| error.to_string())?;
            Ok(CanaryAnswer { id: format!("{}#{}", document.id, key.ordinal()), score: f64::from(score) })
        };
        found.into_iter().map(|neighbor| answer(neighbor.key, neighbor.score)).collect()
    }

    /// Up to `most` questions to a collection, from documents spread over the first ones by id.
    fn questions(access: Access<'_>, info: &Arc<CollectionInfo>, most: usize) -> Vec<String> {
        let Ok(documents) = access.list(info.id, None, "", SAMPLE) else { return Vec::new() };
        let step = (documents.len() / most.max(1)).max(1);
        let question = |lsn| -> Option<String> {
            let document = access.passages().document(lsn).ok()?;
            let key = PassageKey::new(lsn, document.chunks.len() / 2);
            let passage = access.passages().passage(key).ok()?;
            let words: Vec<&str> = passage.body.text.split_whitespace().take(QUERY_WORDS).collect();
            Some(words.join(" ")).filter(|query| !query.is_empty())
        };
        documents.iter().step_by(step).take(most).filter_map(|(_, entry)| question(entry.lsn)).collect()
    }
}

impl Probe for Collections {
    fn library(&self) -> &Arc<Library> {
        &self.library
    }

    fn permit(&self) -> Permit {
        self.calls.internal_permit(Operation::TAKE_SNAPSHOT)
    }

    fn canaries(&self, most: usize) -> Vec<Canary> {
        let permit = self.permit();
        let access = self.library.access(&permit);
        let collections = access.collections();
        let each = most.div_ceil(collections.len().max(1));
        let mut canaries = Vec::new();
        for info in &collections {
            let opened = self.open(access, info);
            for query in Self::questions(access, info, each.min(most - canaries.len())) {
                match self.nearest(access, info, &opened, &query, ANSWERS) {
                    Ok(answers) => canaries.push(Canary { collection: info.name.clone(), query, answers }),
                    Err(error) => {
                        tracing::warn!(collection = info.name, error, "a collection cannot answer for the snapshot");
                    }
                }
            }
        }
        canaries
    }

    fn ask(&self, canaries: &[Canary]) -> Vec<Result<Vec<CanaryAnswer>, String>> {
        let permit = self.permit();
        let access = self.library.access(&permit);
        let mut opened = HashMap::new();
        let mut one = |canary: &Canary| {
            let info = access.collection(&canary.collection).ok_or("there is no such collection")?;
            let opened = opened.entry(info.id).or_insert_with(|| self.open(access, &info));
            self.nearest(access, &info, opened, &canary.query, canary.answers.len())
        };
        canaries.iter().map(&mut one).collect()
    }

    fn close(&self, keep: bool) {
        self.library.close_soon(keep);
    }
}

/// Opens nodes on restored data.
struct Opens {
    config: collection::Config,
    budget: MemoryBudget,
}

/// A clock that always returns the time of the snapshot.
struct Stopped(UnixMillis);

impl Clock for Stopped {
    fn now(&self) -> UnixMillis {
        self.0
    }
}

impl Host for Opens {
    fn open(
        &self,
        data_dir: &Path,
        now: UnixMillis,
        report: &dyn Fn(Lsn, Lsn),
    ) -> Result<Box<dyn Probe>, Box<dyn std::error::Error + Send + Sync>> {
        let config = collection::Config {
            data_dir: PathBuf::from(data_dir),
            clock: Arc::new(Stopped(now)),
            memory: collection::Memory::least(),
            // The data being checked must not change.
            store: store::Settings { erase_within: Duration::ZERO, ..self.config.store.clone() },
            followers: vec![Follower::at("check", Lsn::ZERO)],
            ..self.config.clone()
        };
        let needed = config.memory.opening_bytes();
        let held = self.budget.reserve_blocking(needed, ROOM_PATIENCE).map_err(|error| match error {
            ReserveError::Busy => anyhow!(
                "the node has no memory left for it while documents are being added ({} for {} minutes); try again later",
                ByteSize(needed), ROOM_PATIENCE.as_secs() / 60
            ),
            ReserveError::TooLarge { needed, max } => anyhow!(
                "it takes about {} of memory, and this node has {} beside its indexes: give it more (memory.max_bytes, or the limit of \
                 its container or unit), or use `cairn snapshot verify` on another machine",
                ByteSize(needed), ByteSize(max)
            ),
        })?;
        let readiness = Readiness::default();
        let (library, _) = Library::open(config, &readiness, &collection::Metrics::default())?;
        library.freeze();
        let begun = Instant::now();
        while begun.elapsed() < REBUILD_PATIENCE && !readiness.wait(REPORT_EVERY) {
            report(library.indexed(), library.log().last());
        }
        if !readiness.is_ready() {
            library.close_soon(false);
            let reasons = readiness.reasons().into_values().collect::<Vec<_>>().join("; ");
            return Err(anyhow!("not ready after {} hours: {reasons}", REBUILD_PATIENCE.as_secs() / 3_600).into());
        }
        // A node that is opened for a check gets no calls.
        let calls = Calls::unwatched();
        Ok(Box::new(Collections { library, calls, _held: Some(held) }))
    }
}

/// The position up to which the log was shipped: later records are not compacted before they are shipped, so that every
/// point in time can be restored. A target that fails for longer than that period must not fill the disk.
fn shipped_to(snapshots: &Snapshots, history: &[Epoch]) -> Lsn {
    shipped(snapshots.last_taken(), &snapshots.live().retention, snapshots.config().clock.now(), history)
}

fn shipped(taken: Option<Taken>, retention: &Retention, now: UnixMillis, history: &[Epoch]) -> Lsn {
    let reach = i64::try_from(retention.point_in_time.as_millis()).unwrap_or(i64::MAX);
    match taken {
        Some(taken) if now.0.saturating_sub(taken.time.0) > reach => Lsn(u64::MAX),
        Some(taken) => taken.reached_in(history),
        None => Lsn::ZERO,
    }
}

/// The name of the lease for what was not shipped.
const LEASE: &str = "snapshots";

/// The followers that the log of a node with these settings has from the start: compaction begins when it is opened, and
/// a process without a schedule, such as `cairn mcp` on a data directory, must not drop what was not shipped either.
pub(super) fn followers(config: &Config) -> Vec<Follower> {
    if config.snapshot.target.is_none() {
        return Vec::new();
    }
    let (data_dir, retention) = (config.data_dir.clone(), config.snapshot.retention.clone());
    let reached =
        move |history: &[Epoch]| shipped(snapshot::last_taken(&data_dir), &retention, SystemClock.now(), history);
    vec![Follower { name: LEASE.to_owned(), reached: Arc::new(reached) }]
}

/// Ships, prunes, proves, and checks that shipped data still exists, until the shutdown starts. Work in progress is
/// then abandoned: a partial upload is never visible.
pub(super) async fn schedule(snapshots: Arc<Snapshots>, node: Arc<dyn Probe>, drain: Drain) {
    let ships = snapshots.config().target.is_some();
    let history = node.library().log().history();
    let lease = ships.then(|| node.library().lease(LEASE, shipped_to(&snapshots, &history)).for_good());
    let (mut failing, mut trouble) = (false, None);
    let looking = Arc::clone(&snapshots);
    let looked = tokio::task::spawn_blocking(move || looking.check_target());
    tokio::select! {
        () = drain.ordered() => return,
        looked = looked => {
            if let Ok(health) = looked {
                // Failures from before this start are logged again; later ones when they occur.
                for warning in health.warnings.iter().chain(health.problem.as_ref().filter(|_| health.is_there)) {
                    tracing::warn!("{warning}");
                }
                log_health(&health, &mut trouble);
            }
        }
    }
    let (mut rounds, mut changes) = (0_u32, snapshots.live_changes());
    loop {
        if let Some(lease) = &lease {
            lease.keep_after(shipped_to(&snapshots, &history));
        }
        let begun = tokio::time::Instant::now();
        loop {
            let interval = snapshots.live().schedule.interval;
            tokio::select! {
                () = drain.ordered() => return,
                () = tokio::time::sleep_until(begun + interval) => break,
                // The interval may have changed.
                Ok(()) = changes.changed() => {}
            }
        }
        rounds = rounds.wrapping_add(1);
        // Checking a bucket costs requests; shipping checks it too.
        let looks = rounds.is_multiple_of(if snapshots.target().is_remote() { LOOKS_APART } else { 1 });
        let (working, node) = (Arc::clone(&snapshots), Arc::clone(&node));
        let work = tokio::task::spawn_blocking(move || {
            let shipped = if ships { working.ship(&*node).map(drop) } else { Ok(()) };
            drop(node);
            let proof = working.is_proof_due().then(|| working.verify(None, &NoProgress));
            let health = if looks { working.check_target() } else { working.health() };
            (shipped, proof, health)
        });
        let done = tokio::select! {
            () = drain.ordered() => return,
            done = work => done,
        };
        let Ok((shipped, proof, health)) = done else {
            tracing::error!("the snapshot schedule panicked");
            continue;
        };
        log_health(&health, &mut trouble);
        log_shipping(shipped, &mut failing);
        if let Some(proof) = proof {
            log_proof(proof);
        }
    }
}

/// Logs a failure once, not every minute; the status keeps reporting it.
fn log_shipping(shipped: Result<(), CreateError>, failing: &mut bool) {
    let has_failed = shipped.is_err();
    if let Err(error) = shipped
        && !*failing
    {
        let error = anyhow::Error::from(error);
        tracing::error!(error = format!("{error:#}"), "the log could not be shipped");
    }
    *failing = has_failed;
}

fn log_proof(proof: Result<Verified, RestoreError>) {
    match proof {
        Ok(verified) if verified.checked.problems.is_empty() => {
            tracing::info!(id = verified.id, took_ms = verified.took.as_millis() as u64, "a snapshot was verified");
        }
        Ok(verified) => {
            for problem in verified.checked.problems {
                tracing::error!(id = verified.id, %problem, "a snapshot failed verification");
            }
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            tracing::error!(error = format!("{error:#}"), "no snapshot could be verified");
        }
    }
}

/// Logs once that the snapshot target has a problem, and once that it recovered.
fn log_health(health: &Health, logged: &mut Option<String>) {
    let problem = health.problem.as_ref().filter(|_| !health.is_there);
    if logged.as_ref() == problem {
        return;
    }
    match problem {
        Some(problem) => tracing::error!(snapshot_target = health.target, state = health.standing, "{problem}"),
        None => tracing::info!(snapshot_target = health.target, "all expected snapshots are present"),
    }
    *logged = problem.cloned();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_shipped_is_held_from_the_opening_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = directory.path().join("data");
        std::fs::create_dir(&data_dir).expect("made");
        let config = |settings: &str| {
            let text = format!("[node]\ndata_dir = {:?}\n{settings}", data_dir.display().to_string());
            Config::read(&text, "test").expect("valid")
        };
        let target = format!("[snapshot]\ntarget = {:?}\n", directory.path().join("backup").display().to_string());
        let library = |config: &Config| library_config(config, Arc::new(Models::built_in()), None);
        assert!(library(&config("")).followers.is_empty(), "nothing is shipped without a target");
        let followers = library(&config(&target)).followers;
        assert_eq!((followers.len(), followers[0].name.as_str()), (1, LEASE));
        let reached = |history: &[Epoch]| (followers[0].reached)(history);
        let first = [Epoch { id: 7, first: Lsn(1) }];
        assert_eq!(reached(&first), Lsn::ZERO, "nothing was shipped so far");
        let taken = |time: i64, epoch: Option<&str>| {
            let taken = serde_json::json!(
                {"id": "x", "time": time, "kind": "scheduled", "last": 70, "target": "x", "epoch": epoch}
            );
            let state = serde_json::json!({ "created": taken }).to_string();
            std::fs::write(data_dir.join("snapshots.json"), state).expect("written");
            assert!(snapshot::last_taken(&data_dir).is_some(), "a snapshot that was taken");
        };
        let now = SystemClock.now().0;
        taken(now, Some("0000000000000007"));
        assert_eq!(reached(&first), Lsn(70));
        let restored = [first[0], Epoch { id: 8, first: Lsn(41) }];
        assert_eq!(reached(&restored), Lsn(40), "others were written in the place of what was shipped");
        assert_eq!(reached(&restored[1..]), Lsn::ZERO, "another log");
        taken(now, None);
        assert_eq!(reached(&first), Lsn::ZERO);
        taken(0, None);
        assert_eq!(reached(&first), Lsn(u64::MAX), "a target that fails for long does not fill the disk");
    }
}
