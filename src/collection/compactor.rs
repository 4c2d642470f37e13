//! Compaction of the log: when it runs, and how far it may go.
//!
//! One thread, asleep until something was written, or until deleted content must be erased from the log's files
//! (`erase_within`): it only wakes for that while something is dead. Before it drops records, every view is
//! checkpointed: a view that restarts after a dropped record would never learn what that record had replaced.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::leases::{Lease, Leases};
use super::metrics::Metrics;
use super::views::{Merging, Views};
use super::writer::Sealer;
use crate::base::{ByteSize, Lsn};
use crate::store::{CollectionId, CompactError, CompactionLimits, Reader};
use crate::task::{self, Readiness};

/// Between two checks of a log that is being written.
const PAUSE: Duration = Duration::from_secs(1);
/// After this long nothing reads replaced segments any more.
const RETIRED: Duration = Duration::from_secs(61);
/// The longest sleep while something is dead: the clock may be set, and what could not be cleared out in time is tried again.
const ERASURE_RETRY: Duration = Duration::from_secs(3_600);

#[derive(Default)]
struct State {
    rung: bool,
    stopping: bool,
    /// Rounds that were begun and rounds that were finished.
    begun: u64,
    finished: u64,
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
    bell: CompactorBell,
    leases: Leases,
    sealer: Arc<OnceLock<Sealer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Compactor {
    pub(super) fn start(
        reader: Arc<Reader>,
        views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
        sizes: Sizes,
        readiness: &Readiness,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let bell = CompactorBell::default();
        let (leases, sealer) = (Leases::default(), Arc::<OnceLock<Sealer>>::default());
        let work = CompactorThread {
            reader,
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
        Ok(Self { bell, leases, sealer, thread: Mutex::new(Some(thread)) })
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

    /// Waits for a round that begins now: nothing is left to do then that can be done.
    pub(super) fn wait_until_idle(&self) {
        let (state, changed) = &*self.bell.0;
        let mut state = state.lock();
        state.rung = true;
        let target = state.begun + 1;
        changed.notify_all();
        changed.wait_while(&mut state, |state| state.finished < target && !state.stopping);
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

impl CompactorThread {
    fn run(&self) {
        let (state, changed) = &*self.bell.0;
        let (mut replaced, mut was_due) = (false, false);
        loop {
            {
                let mut state = state.lock();
                if replaced && !state.rung {
                    changed.wait_while_for(&mut state, |state| !state.rung && !state.stopping, RETIRED);
                    self.reader.drop_retired();
                    replaced = false;
                }
                while !state.rung && !state.stopping {
                    match self.sleep_limit(was_due) {
                        None => changed.wait(&mut state),
                        Some(time) => state.rung |= changed.wait_for(&mut state, time).timed_out(),
                    }
                }
                if state.stopping {
                    return;
                }
                state.rung = false;
                state.begun += 1;
            }
            was_due = self.time_to_erasure() == Some(Duration::ZERO);
            match self.compact() {
                Ok(done) => replaced |= done,
                Err(CompactError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "dead records stay in the log for now");
                }
            }
            {
                let mut state = state.lock();
                state.finished = state.begun;
                changed.notify_all();
            }
            if self.bell.pause(PAUSE) {
                return;
            }
        }
    }

    /// Maximum time to sleep; `None` while nothing is dead, or nothing must be erased.
    ///
    /// * `was_due`: something was already due in the last round. It is held back then: by a lease, by damage, or by the
    ///   space that it needs.
    fn sleep_limit(&self, was_due: bool) -> Option<Duration> {
        let left = self.time_to_erasure()?;
        Some(if left.is_zero() && was_due { ERASURE_RETRY } else { left.min(ERASURE_RETRY) })
    }

    fn time_to_erasure(&self) -> Option<Duration> {
        self.reader.time_to_erasure(self.sizes.erase_within?)
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

    /// Does what is worth doing now. True when segments were replaced.
    fn compact(&self) -> Result<bool, CompactError> {
        let last = self.reader.last();
        let lowest = self.leases.lowest().filter(|(_, after)| *after < last);
        if let Some((name, after)) = &lowest {
            tracing::debug!(name, after = after.0, last = last.0, "the log is kept for a follower");
        }
        let mut limits = CompactionLimits {
            floor: lowest.map_or(last, |(_, after)| after),
            segment_bytes: self.sizes.segment_bytes,
            bytes_per_second: self.sizes.bytes_per_second,
            reserve_bytes: self.sizes.reserve_bytes / 2,
            erase_within: self.sizes.erase_within,
        };
        self.seal_what_is_due(limits.floor);
        if !self.reader.wants_compaction(&limits) {
            return Ok(false);
        }
        let views: Vec<Arc<Views>> = self.views.read().values().cloned().collect();
        for view in views {
            let applied = view.applied();
            if !view.checkpoint(Merging::All) {
                return Ok(false);
            }
            limits.floor = limits.floor.min(applied);
        }
        let mut done = false;
        while let Some(report) = self.reader.compact(&limits, &|pause| self.bell.pause(pause))? {
            done = true;
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
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::super::{Body, Config, DocumentInput, Library, MediaType, Missing};
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
        let mut config = Config { clock, ..Config::for_test(directory) };
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
        let wait = move || {
            let (state, changed) = &*waiting.compactor.bell.0;
            let mut state = state.lock();
            // Each round ends with a notice.
            changed.wait_while(&mut state, |_| waiting.reader.dead_bytes() > 0);
        };
        tokio::task::spawn_blocking(wait).await.expect("it woke");
        assert!(!holds_secret(directory.path()));
        library.close();
    }
}
