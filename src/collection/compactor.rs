//! Compaction of the log: when it runs, and how far it may go.
//!
//! One thread, asleep until something was written, or until deleted content must be erased from the log's files
//! (`erase_within`): it only wakes for that while something is dead. Before it drops records, every view is
//! checkpointed: a view that restarts after a dropped record would never learn what that record had replaced.
//!
//! A segment that cannot be read holds back no other; it is tried again after an hour, or when someone asks for a round.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::leases::{Lease, Leases};
use super::metrics::Metrics;
use super::views::{Merging, Views};
use super::writer::Sealer;
use crate::base::{ByteSize, Lsn, UnixMillis};
use crate::store::{CollectionId, CompactError, CompactionLimits, CompactionReport, Reader};
use crate::task::{self, Readiness};

/// Between two checks of a log that is being written.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep while something is dead: the clock may be set, and what could not be cleared out in time is tried again.
const ERASURE_RETRY: Duration = Duration::from_secs(3_600);
/// A round ends after this many segments that the disk does not read: each can take the disk's own patience.
const UNREADABLE_MAX: usize = 16;

#[derive(Default)]
struct State {
    rung: bool,
    /// Someone waits for the next round, which tries everything.
    is_asked: bool,
    stopping: bool,
    /// Rounds that were begun and rounds that were finished.
    begun: u64,
    finished: u64,
    /// The last round that left something undone because of a failure.
    failure: Option<(u64, Arc<CompactError>)>,
}

/// Wakes the compactor.
#[derive(Clone, Default)]
pub(super) struct CompactorBell(Arc<(Mutex<State>, Condvar)>);

impl CompactorBell {
    pub(super) fn ring(&self) {
        self.0.0.lock().rung = true;
        self.0.1.notify_all();
    }

    /// Waits for `time`, or the order to stop, which it answers.
    fn pause(&self, time: Duration) -> bool {
        let mut state = self.0.0.lock();
        if !time.is_zero() {
            self.0.1.wait_while_for(&mut state, |state| !state.stopping, time);
        }
        state.stopping
    }
}

/// Sizes that compaction keeps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) segment_bytes: u64,
    pub(super) reserve_bytes: u64,
    pub(super) bytes_per_second: u64,
    /// How long what is dead may stay, see [`CompactionLimits::erase_within`].
    pub(super) erase_within: Option<Duration>,
}

/// The thread and its bell.
pub(super) struct Compactor {
    reader: Arc<Reader>,
    erase_within: Option<Duration>,
    bell: CompactorBell,
    leases: Leases,
    sealer: Arc<OnceLock<Sealer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Compactor {
    /// * `leases`: those that hold from the first round on.
    pub(super) fn start(
        reader: Arc<Reader>,
        views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
        sizes: Sizes,
        leases: Leases,
        readiness: &Readiness,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let bell = CompactorBell::default();
        let sealer = Arc::<OnceLock<Sealer>>::default();
        let work = CompactorThread {
            reader: Arc::clone(&reader),
            views,
            sizes,
            bell: bell.clone(),
            leases: leases.clone(),
            sealer: Arc::clone(&sealer),
            metrics: metrics.clone(),
        };
        let thread = task::spawn_vital("compactor", readiness, move || {
            let _ended = StopOnDrop(&work.bell);
            work.run();
        })?;
        // Work left by an earlier run.
        bell.ring();
        let erase_within = sizes.erase_within;
        Ok(Self { reader, erase_within, bell, leases, sealer, thread: Mutex::new(Some(thread)) })
    }

    /// Gives it the way to have the segment sealed that is being written, in which something may be due, too.
    pub(super) fn set_sealer(&self, sealer: Sealer) {
        // There is one writer.
        let _ = self.sealer.set(sealer);
        self.bell.ring();
    }

    pub(super) fn bell(&self) -> CompactorBell {
        self.bell.clone()
    }

    /// Keeps every record after `after` as long as the lease lives.
    pub(super) fn lease(&self, name: &str, after: Lsn) -> Lease {
        self.leases.acquire(name, after, self.bell())
    }

    /// The lease that holds records that exist: its name, and the position after which it holds them.
    pub(super) fn holder(&self) -> Option<(String, Lsn)> {
        self.leases.lowest().filter(|(_, after)| *after < self.reader.last())
    }

    /// For how long something dead should have been erased; zero when nothing is due.
    pub(super) fn erasure_overdue(&self) -> Duration {
        self.erase_within.map_or(Duration::ZERO, |within| self.reader.erasure_overdue(within))
    }

    /// How many rounds were finished.
    pub(super) fn finished_rounds(&self) -> u64 {
        self.bell.0.0.lock().finished
    }

    /// Waits for a round that begins now: nothing is left to do then that can be done.
    ///
    /// # Errors
    /// When a round after number `since` left something undone because of a failure.
    pub(super) fn wait_until_idle(&self, since: u64) -> Result<(), Arc<CompactError>> {
        let (state, changed) = &*self.bell.0;
        let mut state = state.lock();
        (state.rung, state.is_asked) = (true, true);
        let target = state.begun + 1;
        changed.notify_all();
        changed.wait_while(&mut state, |state| state.finished < target && !state.stopping);
        state.failure.clone().filter(|(round, _)| *round > since).map_or(Ok(()), |(_, error)| Err(error))
    }

    pub(super) fn stop(&self) {
        self.bell.0.0.lock().stopping = true;
        self.bell.0.1.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was logged when it happened.
            let _ = thread.join();
        }
    }
}

/// Ensures that nothing waits for a thread that has ended for any reason.
struct StopOnDrop<'a>(&'a CompactorBell);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.0.lock().stopping = true;
        self.0.0.1.notify_all();
    }
}

struct CompactorThread {
    reader: Arc<Reader>,
    views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
    sizes: Sizes,
    bell: CompactorBell,
    leases: Leases,
    sealer: Arc<OnceLock<Sealer>>,
    metrics: Metrics,
}

/// What the thread remembers from one round to the next.
struct Memory {
    /// Records that died up to this time were due in the last round. Those that are left are held back: by a lease, by
    /// damage, or by the space that they need.
    tried: UnixMillis,
    /// Segments that could not be read, by their first records, and since when.
    unreadable: BTreeMap<Lsn, Instant>,
    /// Whether the current holder of the log was logged.
    is_holder_logged: bool,
}

impl CompactorThread {
    fn run(&self) {
        let (state, changed) = &*self.bell.0;
        let mut memory = Memory { tried: UnixMillis(i64::MIN), unreadable: BTreeMap::new(), is_holder_logged: false };
        loop {
            // Not with the state locked: closing files takes time, and writers ring the bell.
            let retired = self.reader.drop_retired();
            {
                let mut state = state.lock();
                changed.notify_all();
                if !state.rung && !state.stopping {
                    let erasure = self.sleep_limit(memory.tried);
                    match retired.into_iter().chain(erasure).min() {
                        None => changed.wait(&mut state),
                        Some(time) => {
                            let is_late = changed.wait_for(&mut state, time).timed_out();
                            state.rung |= is_late && erasure == Some(time);
                        }
                    }
                }
                if state.stopping {
                    return;
                }
                if !std::mem::take(&mut state.rung) {
                    continue;
                }
                if std::mem::take(&mut state.is_asked) {
                    memory.unreadable.clear();
                }
                state.begun += 1;
            }
            let failure = match self.compact(&mut memory) {
                Ok(()) => None,
                Err(CompactError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "dead records stay in the log for now");
                    Some(Arc::new(error))
                }
            };
            {
                let mut state = state.lock();
                state.finished = state.begun;
                state.failure = failure.map(|error| (state.finished, error)).or_else(|| state.failure.take());
                changed.notify_all();
            }
            if self.bell.pause(PAUSE) {
                return;
            }
        }
    }

    /// Maximum time to sleep; `None` while nothing is dead, or nothing must be erased.
    ///
    /// * `tried`: see [`Memory::tried`].
    fn sleep_limit(&self, tried: UnixMillis) -> Option<Duration> {
        let within = self.sizes.erase_within?;
        self.reader.time_to_erasure(within)?;
        let next = self.reader.time_to_erasure_after(tried, within);
        Some(next.map_or(ERASURE_RETRY, |next| next.min(ERASURE_RETRY)))
    }

    /// Seals the segment that is being written when something in it is due and no lease holds it.
    fn seal_what_is_due(&self, floor: Lsn) {
        let Some(erase_within) = self.sizes.erase_within else { return };
        if floor < self.reader.last() || !self.reader.is_active_due(erase_within) {
            return;
        }
        if let Some(Err(error)) = self.sealer.get().map(Sealer::seal) {
            tracing::warn!(error = &error as &dyn std::error::Error, "deleted content stays in the log for now");
        }
    }

    /// The position up to which no lease holds records.
    fn leased_floor(&self) -> Lsn {
        self.leases.lowest().map_or(Lsn(u64::MAX), |(_, after)| after)
    }

    /// Logs which lease holds the log, and warns once when that delays erasure.
    fn log_holder(&self, is_logged: &mut bool) {
        let last = self.reader.last();
        let Some((name, after)) = self.leases.lowest().filter(|(_, after)| *after < last) else {
            *is_logged = false;
            return;
        };
        tracing::debug!(name, after = after.0, last = last.0, "the log is kept for a follower");
        let overdue = self.sizes.erase_within.map_or(Duration::ZERO, |within| self.reader.erasure_overdue(within));
        if overdue < ERASURE_RETRY {
            *is_logged = false;
        } else if !std::mem::replace(is_logged, true) {
            tracing::warn!(
                holder = name,
                after = after.0,
                overdue_seconds = overdue.as_secs(),
                "deleted content should be erased, and stays in the log until the holder has passed it"
            );
        }
    }

    /// Does what is worth doing now.
    ///
    /// # Errors
    /// When something is left undone because of a failure.
    fn compact(&self, memory: &mut Memory) -> Result<(), CompactError> {
        self.log_holder(&mut memory.is_holder_logged);
        let last = self.reader.last();
        let mut limits = CompactionLimits {
            floor: last.min(self.leased_floor()),
            segment_bytes: self.sizes.segment_bytes,
            bytes_per_second: self.sizes.bytes_per_second,
            reserve_bytes: self.sizes.reserve_bytes / 2,
            erase_within: self.sizes.erase_within,
        };
        if let Some(within) = self.sizes.erase_within {
            memory.tried = self.reader.erase_until(within);
        }
        self.seal_what_is_due(limits.floor);
        memory.unreadable.retain(|_, since| since.elapsed() < ERASURE_RETRY);
        let mut excluded: BTreeSet<Lsn> = memory.unreadable.keys().copied().collect();
        if !self.reader.wants_compaction(&limits, &excluded) {
            return Ok(());
        }
        let views: Vec<Arc<Views>> = self.views.read().values().cloned().collect();
        let mut floor = last;
        for view in views {
            let applied = view.applied();
            if !view.checkpoint(Merging::All) {
                return Ok(());
            }
            floor = floor.min(applied);
        }
        let stop = |pause| self.bell.pause(pause);
        let permit = |end| self.leases.permit_before(end);
        let mut failure = None;
        let mut failed = 0;
        loop {
            // A lease may have been acquired meanwhile.
            limits.floor = floor.min(self.leased_floor());
            let error = match self.reader.compact(&limits, &excluded, &stop, &permit) {
                Ok(Some(report)) => {
                    self.count(&report);
                    continue;
                }
                Ok(None) => break,
                Err(CompactError::Held) => continue,
                Err(error) => error,
            };
            let CompactError::Read { segment, .. } = &error else { return Err(error) };
            excluded.insert(*segment);
            memory.unreadable.insert(*segment, Instant::now());
            failed += 1;
            if failed == UNREADABLE_MAX {
                return Err(error);
            }
            failure.get_or_insert(error);
        }
        failure.map_or(Ok(()), Err)
    }

    fn count(&self, report: &CompactionReport) {
        self.metrics.compaction_bytes.inc_by(report.bytes_after);
        tracing::info!(
            first = report.first.0,
            segments = report.segments,
            before = %ByteSize(report.bytes_before),
            after = %ByteSize(report.bytes_after),
            dropped = report.records_dropped,
            "segments of the log were compacted"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::super::{Body, Config, DocumentInput, Follower, Library, MediaType, Missing};
    use super::*;
    use crate::base::{Clock, SystemClock, UnixMillis};
    use crate::calls::{Calls, Operation};

    const HOUR: Duration = Duration::from_secs(3_600);
    const SECRET: &str = "the combination is 4711";

    /// A clock that the test sets.
    struct TestClock(AtomicI64);

    impl Clock for TestClock {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.load(Ordering::SeqCst))
        }
    }

    fn open(directory: &Path, erase_within: Duration, clock: Arc<dyn Clock>) -> Arc<Library> {
        open_with(directory, erase_within, clock, Vec::new())
    }

    fn open_with(
        directory: &Path,
        erase_within: Duration,
        clock: Arc<dyn Clock>,
        followers: Vec<Follower>,
    ) -> Arc<Library> {
        let mut config = Config { clock, followers, ..Config::for_test(directory) };
        config.store.erase_within = erase_within;
        Library::open(config, &Readiness::default(), &Metrics::default()).expect("opened").0
    }

    /// Twenty documents, of which one holds the secret, and is deleted.
    async fn delete_secret(library: &Arc<Library>) {
        let permit = Calls::unwatched().internal_permit(Operation::SWEEP);
        let access = library.access(&permit);
        access.create_collection("notes", "", None).await.expect("created");
        let note = |number: usize| {
            let text = if number == 7 { SECRET.to_owned() } else { format!("note number {number}") };
            let body = Body::Text(text, MediaType::Text);
            DocumentInput { id: Some(format!("n{number}")), body, ..DocumentInput::default() }
        };
        access.add("notes", Missing::Refuse, (0..20).map(note).collect()).await.expect("written");
        access.delete("notes", &["n7".to_owned()]).await.expect("deleted");
    }

    /// Whether a file of the log holds the secret.
    fn holds_secret(directory: &Path) -> bool {
        let files = std::fs::read_dir(directory.join("log")).expect("readable");
        let mut files = files.map(|entry| std::fs::read(entry.expect("readable").path()).expect("readable"));
        files.any(|bytes| bytes.windows(SECRET.len()).any(|at| at == SECRET.as_bytes()))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn deleted_content_is_gone_from_the_log_in_time_also_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let permit = Calls::unwatched().internal_permit(Operation::COMPACT);
        let start = SystemClock.now().0;
        let clock = Arc::new(TestClock(AtomicI64::new(start)));
        let library = open(directory.path(), HOUR, Arc::clone(&clock) as Arc<dyn Clock>);
        delete_secret(&library).await;
        clock.0.store(start + 3_599_999, Ordering::SeqCst);
        library.access(&permit).compact().await.expect("a round");
        assert!(holds_secret(directory.path()), "it is too early");
        library.close();
        drop(library);
        let library = open(directory.path(), HOUR, Arc::clone(&clock) as Arc<dyn Clock>);
        library.access(&permit).compact().await.expect("a round");
        assert!(holds_secret(directory.path()), "a restart is no reason");
        let lease = library.lease("follower", Lsn::ZERO);
        clock.0.store(start + 3_600_000, Ordering::SeqCst);
        library.access(&permit).compact().await.expect("a round");
        assert!(holds_secret(directory.path()), "a follower needs it");
        drop(lease);
        library.access(&permit).compact().await.expect("a round");
        assert!(!holds_secret(directory.path()));
        let access = library.access(&permit);
        let info = access.collection("notes").expect("there");
        assert_eq!(access.list(info.id, None, "", 100).expect("listed").len(), 19);
        library.close();
    }

    /// There is no signal: the compactor wakes by its timer.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_idle_node_wakes_for_what_is_due() {
        let directory = tempfile::tempdir().expect("a directory");
        let library = open(directory.path(), Duration::from_millis(1_500), Arc::new(SystemClock));
        delete_secret(&library).await;
        let waiting = Arc::clone(&library);
        let wait = move || wait_until(&waiting, || waiting.reader.dead_bytes() == 0);
        tokio::task::spawn_blocking(wait).await.expect("it woke");
        assert!(!holds_secret(directory.path()));
        library.close();
    }
    /// Waits until something is so after a round, or after replaced segments were closed.
    fn wait_until(library: &Library, is_so: impl Fn() -> bool) {
        let (state, changed) = &*library.compactor.bell.0;
        let mut state = state.lock();
        changed.wait_while(&mut state, |_| !is_so());
    }

    /// A follower that exists before the log is opened, as snapshots do: the first round begins with the opening.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_not_shipped_is_held_from_the_first_round_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let permit = Calls::unwatched().internal_permit(Operation::COMPACT);
        let start = SystemClock.now().0;
        let clock = Arc::new(TestClock(AtomicI64::new(start)));
        let leases = vec![Follower::at("snapshots", Lsn(3))];
        let library = open_with(directory.path(), HOUR, Arc::clone(&clock) as Arc<dyn Clock>, leases.clone());
        delete_secret(&library).await;
        library.access(&permit).seal().await.expect("sealed");
        library.close();
        drop(library);
        clock.0.store(start + 7_200_001, Ordering::SeqCst);
        let library = open_with(directory.path(), HOUR, Arc::clone(&clock) as Arc<dyn Clock>, leases);
        library.access(&permit).compact().await.expect("a round");
        assert!(holds_secret(directory.path()));
        assert_eq!(library.log_holder(), Some(("snapshots".to_owned(), Lsn(3))));
        assert_eq!(library.erasure_overdue(), Duration::from_millis(3_600_001));
        // Its holder arrives, and passes it later.
        let lease = library.lease("snapshots", Lsn(4));
        library.access(&permit).compact().await.expect("a round");
        assert!(holds_secret(directory.path()));
        lease.keep_after(library.log().last());
        library.access(&permit).compact().await.expect("a round");
        assert!(!holds_secret(directory.path()));
        assert_eq!((library.log_holder(), library.erasure_overdue()), (None, Duration::ZERO));
        library.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_that_cannot_be_read_holds_back_its_own_file_and_is_reported() {
        let directory = tempfile::tempdir().expect("a directory");
        let permit = Calls::unwatched().internal_permit(Operation::COMPACT);
        let start = SystemClock.now().0;
        let clock = Arc::new(TestClock(AtomicI64::new(start)));
        let library = open(directory.path(), HOUR, Arc::clone(&clock) as Arc<dyn Clock>);
        let access = library.access(&permit);
        access.create_collection("first", "", None).await.expect("created");
        let note = |id: usize, text: &str| {
            let body = Body::Text(text.to_owned(), MediaType::Text);
            DocumentInput { id: Some(format!("n{id}")), body, ..DocumentInput::default() }
        };
        // Little of the file is dead, so that it is compacted only for what is due.
        let others = (1..20).map(|id| note(id, &format!("ship number {id}"))).collect();
        access.add("first", Missing::Refuse, others).await.expect("written");
        access.add("first", Missing::Refuse, vec![note(0, "harbour master")]).await.expect("written");
        access.add("first", Missing::Refuse, vec![note(0, "a second version")]).await.expect("written");
        access.seal().await.expect("sealed");
        delete_secret(&library).await;
        access.seal().await.expect("sealed");
        library.close();
        drop(library);
        let segment = std::fs::read_dir(directory.path().join("log")).expect("readable");
        let segment = segment.map(|entry| entry.expect("readable").path());
        let segment = segment.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).min();
        let segment = segment.expect("a segment");
        let mut bytes = std::fs::read(&segment).expect("readable");
        let at = bytes.windows(7).position(|window| window == b"harbour").expect("a passage is stored as it is");
        bytes[at] ^= 1;
        std::fs::write(&segment, &bytes).expect("written");
        let library = open(directory.path(), HOUR, Arc::clone(&clock) as Arc<dyn Clock>);
        library.access(&permit).compact().await.expect("nothing is due");
        assert!(library.log().damage().is_empty(), "only reading the record shows it");
        clock.0.store(start + 3_600_000, Ordering::SeqCst);
        let error = library.access(&permit).compact().await.expect_err("it is reported").to_string();
        assert!(error.starts_with("dead records stay in the log"), "{error}");
        assert!(!holds_secret(directory.path()), "it is in another file");
        assert_eq!(std::fs::read(&segment).expect("readable"), bytes, "a file with damage is left as it is");
        assert_eq!(library.log().damage().len(), 1);
        library.access(&permit).compact().await.expect("known damage is left alone");
        library.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn replaced_segments_are_closed_although_something_is_written_after_the_round() {
        let directory = tempfile::tempdir().expect("a directory");
        let permit = Calls::unwatched().internal_permit(Operation::COMPACT);
        let library = open(directory.path(), Duration::from_millis(1), Arc::new(SystemClock));
        delete_secret(&library).await;
        library.access(&permit).compact().await.expect("a round");
        assert!(!holds_secret(directory.path()));
        library.access(&permit).create_collection("other", "", None).await.expect("created");
        let waiting = Arc::clone(&library);
        let wait = move || wait_until(&waiting, || !waiting.reader.has_retired());
        tokio::task::spawn_blocking(wait).await.expect("they were closed");
        library.close();
    }
}
