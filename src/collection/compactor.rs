//! Compaction of the log: when it runs, and how far it may go.
//!
//! One thread, asleep until something was written. Before it leaves records out, every view is checkpointed: a view that
//! begins again behind a record that is gone would never learn what that record had replaced.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::leases::{Lease, Leases};
use super::views::{Merging, Views};
use crate::base::{ByteSize, Lsn};
use crate::store::{CollectionId, CompactError, CompactionLimits, Reader};
use crate::task::{self, Readiness};
use crate::telemetry::Metrics;

/// Between two looks at a log that is being written into.
const PAUSE: Duration = Duration::from_secs(1);
/// After this long nobody reads what was replaced any more.
const RETIRED: Duration = Duration::from_secs(61);

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
}

/// The thread and its bell.
pub(super) struct Compactor {
    bell: CompactorBell,
    leases: Leases,
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
        let leases = Leases::default();
        let work = Work { reader, views, sizes, bell: bell.clone(), leases: leases.clone(), metrics: metrics.clone() };
        let thread = task::spawn_vital("compactor", readiness, move || {
            let _ended = Ended(&work.bell);
            work.run();
        })?;
        // What an earlier run left to do.
        bell.ring();
        Ok(Self { bell, leases, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn bell(&self) -> CompactorBell {
        self.bell.clone()
    }

    /// Keeps every record after `after`, whatever becomes of it, for as long as the lease lives.
    pub(super) fn lease(&self, name: &str, after: Lsn) -> Lease {
        self.leases.take(name, after, self.bell())
    }

    /// Waits for a round that begins now: nothing is left to do then that can be done.
    pub(super) fn settle(&self) {
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

/// Lets nobody wait for a thread that has ended, however it did.
struct Ended<'a>(&'a CompactorBell);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.0.0.lock().stopping = true;
        self.0.0.1.notify_all();
    }
}

struct Work {
    reader: Arc<Reader>,
    views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
    sizes: Sizes,
    bell: CompactorBell,
    leases: Leases,
    metrics: Metrics,
}

impl Work {
    fn run(&self) {
        let (state, changed) = &*self.bell.0;
        let mut replaced = false;
        loop {
            {
                let mut state = state.lock();
                if replaced && !state.rung {
                    changed.wait_while_for(&mut state, |state| !state.rung && !state.stopping, RETIRED);
                    self.reader.drop_retired();
                    replaced = false;
                }
                while !state.rung && !state.stopping {
                    changed.wait(&mut state);
                }
                if state.stopping {
                    return;
                }
                state.rung = false;
                state.begun += 1;
            }
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
        };
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
