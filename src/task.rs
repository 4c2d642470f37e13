//! Spawning, readiness, and the order to stop.
//!
//! Invariants: every task has a name and an owner that awaits it; nothing else in Cairn calls `tokio::spawn`. Long arithmetic
//! runs on the [`CpuPool`]; what takes less than a change of threads is worth is computed where it was asked, by who has one of
//! the [`FairSemaphore`].

mod blocking;
mod fair_semaphore;
mod memory;
mod memory_budget;
mod pool;
mod pulse;

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use blocking::block_on;
pub use fair_semaphore::{Busy, FairPermit, FairSemaphore, Flow, PausedPermit};
pub use memory::{Resident, memory_limit, resident};
pub use memory_budget::{MemoryBudget, MemoryReservation, ReserveError};
pub use pool::CpuPool;
pub use pulse::Pulse;

/// Runs `future` as a task of its own, in a span with its name. The caller awaits or aborts the handle.
#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}

/// Starts a named thread; the caller joins it.
///
/// # Errors
/// When the machine has no thread left.
pub fn spawn_thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// How much nicer than the rest of the process a thread is that works behind it: it gets a tenth of a core that is wanted by both,
/// and all of one that is not.
const BEHIND: i32 = 10;

/// Starts a named thread that gives way to those that answer requests, with all threads that it starts itself; the caller joins it.
///
/// # Errors
/// When the machine has no thread left.
pub fn spawn_behind<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    spawn_thread(name, || {
        give_way();
        body()
    })
}

/// Starts a thread as [`spawn_behind`] does, one that the node cannot do without: when it panics, `readiness` has failed.
///
/// # Errors
/// When the machine has no thread left.
pub fn spawn_vital(
    name: &'static str,
    readiness: &Readiness,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let readiness = readiness.clone();
    spawn_behind(name, move || {
        // What the thread shared is behind locks that know of no poison, and nobody writes with it any more.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let reason = format!("the thread {name} panicked ({}); restart the node", words_of(&*panic));
            tracing::error!("{reason}");
            readiness.fail(name, reason);
        }
    })
}

/// What a panic said.
#[must_use]
pub fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}

/// Puts the calling thread, and all that it starts from now on, behind those that answer requests. It cannot be taken back.
pub fn give_way() {
    // Without a process this is about the calling thread alone. Where it is not allowed the thread does not give way.
    let _ = rustix::process::setpriority_process(None, BEHIND);
}

/// Processors that this process may use, as it was when it was first asked; at least one.
#[must_use]
pub fn cores() -> usize {
    // The system is asked once: it looks into the control groups, which takes as long as reading a small document.
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// What still stands between the node and being ready, by name.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    shared: Arc<Shared>,
}

/// What became of settings that changed while the node runs. Neither keeps it from being ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsState {
    /// Keys that differ from what the node runs with, and need a restart.
    pub restart: Vec<String>,
    /// Why newer settings are not used, in words.
    pub problems: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    reasons: Mutex<Reasons>,
    settings: Mutex<SettingsState>,
    /// Rung when the last reason goes, or one comes that stays.
    ready: Condvar,
    /// Rung when one comes that stays.
    failed: Notify,
}

#[derive(Debug, Default)]
struct Reasons {
    /// Those that go.
    transient: BTreeMap<String, String>,
    /// Those that stay until the node is restarted.
    failed: BTreeMap<String, String>,
}

impl Readiness {
    /// Says why the node is not ready; replaces an earlier reason of the same name.
    pub fn set_reason(&self, name: &str, reason: impl Into<String>) {
        self.shared.reasons.lock().transient.insert(name.to_owned(), reason.into());
    }

    /// Takes a reason away.
    pub fn clear_reason(&self, name: &str) {
        let mut reasons = self.shared.reasons.lock();
        reasons.transient.remove(name);
        if reasons.transient.is_empty() {
            self.shared.ready.notify_all();
        }
    }

    /// Says that the node has lost a part that only a restart gives back.
    pub fn fail(&self, name: &str, reason: impl Into<String>) {
        self.shared.reasons.lock().failed.insert(name.to_owned(), reason.into());
        self.shared.ready.notify_all();
        self.shared.failed.notify_waiters();
    }

    /// Says what became of settings that changed.
    pub fn set_settings(&self, state: SettingsState) {
        *self.shared.settings.lock() = state;
    }

    /// What became of settings that changed.
    #[must_use]
    pub fn settings(&self) -> SettingsState {
        self.shared.settings.lock().clone()
    }

    /// Waits until a part of one of these names has failed, and returns the reason. What a thread transient is dropped before
    /// [`spawn_vital`] can say why, so whoever finds it gone waits here for a moment.
    pub async fn failure_of(&self, names: &[&str]) -> String {
        loop {
            let failed = self.shared.failed.notified();
            if let Some(reason) = self.known_failure_of(names) {
                return reason;
            }
            failed.await;
        }
    }

    /// Why a part of one of these names failed; `None` when none has.
    #[must_use]
    pub fn known_failure_of(&self, names: &[&str]) -> Option<String> {
        let reasons = self.shared.reasons.lock();
        names.iter().find_map(|name| reasons.failed.get(*name).cloned())
    }

    /// What only a restart mends, by name; empty in a node that is well.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, String> {
        self.shared.reasons.lock().failed.clone()
    }

    /// Every reason, by name; empty when ready.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, String> {
        let reasons = self.shared.reasons.lock();
        reasons.transient.iter().chain(&reasons.failed).map(|(name, reason)| (name.clone(), reason.clone())).collect()
    }

    /// Whether there is no reason.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let reasons = self.shared.reasons.lock();
        reasons.transient.is_empty() && reasons.failed.is_empty()
    }

    /// Blocks until there is no reason left or one that stays, at most for `patience`. Returns whether there is none.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut reasons = self.shared.reasons.lock();
        let waits = |reasons: &mut Reasons| !reasons.transient.is_empty() && reasons.failed.is_empty();
        self.shared.ready.wait_while_until(&mut reasons, waits, deadline);
        reasons.transient.is_empty() && reasons.failed.is_empty()
    }
}

/// The order to stop: everyone who waits for work waits for this too.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    token: CancellationToken,
}

impl Drain {
    /// Gives the order. It cannot be taken back.
    pub fn start(&self) {
        self.token.cancel();
    }

    /// Whether the order was given.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the order.
    pub async fn ordered(&self) {
        self.token.cancelled().await;
    }

    /// A token that libraries take; cancelled with the order.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

/// The wish that the node starts again on its data directory, in the same process.
#[derive(Debug, Clone, Default)]
pub struct Restart {
    token: CancellationToken,
}

impl Restart {
    /// Wishes it. Cannot be taken back.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Waits for the wish.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_last_reason() {
        let readiness = Readiness::default();
        assert!(readiness.wait(Duration::ZERO), "nothing stands in the way");
        readiness.set_reason("log", "being read");
        readiness.set_reason("indexes", "catching up");
        assert!(!readiness.wait(Duration::ZERO));
        let releasing = readiness.clone();
        let thread = spawn_thread("releases", move || {
            releasing.clear_reason("log");
            releasing.clear_reason("indexes");
        })
        .expect("a thread");
        assert!(readiness.wait(Duration::from_secs(60)));
        assert!(readiness.reasons().is_empty());
        thread.join().expect("ended");
    }

    #[test]
    fn a_vital_thread_that_panics_is_a_reason_that_stays() {
        let readiness = Readiness::default();
        readiness.set_reason("indexes", "catching up");
        let well = spawn_vital("well", &readiness, || {}).expect("a thread");
        well.join().expect("ended");
        assert!(readiness.failures().is_empty(), "a thread may end");
        let ill = spawn_vital("ill", &readiness, || panic!("out of {}", "luck")).expect("a thread");
        assert!(!readiness.wait(Duration::from_secs(600)), "what stays is not waited for");
        ill.join().expect("the panic went no further");
        readiness.clear_reason("ill");
        readiness.clear_reason("indexes");
        let reason = "the thread ill panicked (out of luck); restart the node";
        assert_eq!(readiness.reasons(), BTreeMap::from([("ill".to_owned(), reason.to_owned())]));
    }
}
