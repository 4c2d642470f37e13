//! Spawning, readiness, and shutdown.
//!
//! Invariants: every task has a name and an owner that awaits it; nothing else in Cairn calls `tokio::spawn`. Long
//! computations run on the [`CpuPool`]; work that costs less than a thread switch runs in its caller's task, under a
//! permit of the [`FairSemaphore`].

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

/// Runs `future` as a separate task, in a span with its name. The caller awaits or aborts the handle.
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
/// When the system cannot start another thread.
pub fn spawn_thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// The nice value of background threads, relative to the rest of the process: such a thread gets a tenth of a contended
/// core, and all of an idle one.
const BEHIND: i32 = 10;

/// Starts a named background thread; threads that it starts run in the background too. The caller joins it.
///
/// # Errors
/// When the system cannot start another thread.
pub fn spawn_behind<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    spawn_thread(name, || {
        give_way();
        body()
    })
}

/// Starts a background thread that the node cannot run without: when it panics, `readiness` fails.
///
/// # Errors
/// When the system cannot start another thread.
pub fn spawn_vital(
    name: &'static str,
    readiness: &Readiness,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let readiness = readiness.clone();
    spawn_behind(name, move || {
        // The thread's shared state is behind locks without poisoning, and nothing writes with it afterwards.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let reason = format!("the thread {name} panicked ({}); restart the node", words_of(&*panic));
            tracing::error!("{reason}");
            readiness.fail(name, reason);
        }
    })
}

/// The message of a panic.
#[must_use]
pub fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}

/// Lowers the priority of the calling thread, and of all threads that it starts from now on, below that of request
/// handling. This cannot be undone.
pub fn give_way() {
    // A process id of 0 means the calling thread only. Where the system forbids the change, the priority stays.
    let _ = rustix::process::setpriority_process(None, BEHIND);
}

/// Processors that this process may use, as of the first call; at least one.
#[must_use]
pub fn cores() -> usize {
    // The system is asked once: it reads the control groups, which takes as long as reading a small document.
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// Why the node is not ready, by name.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    shared: Arc<Shared>,
}

/// The result of settings that changed while the node runs. It does not affect readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsState {
    /// Keys that differ from the running node's and need a restart.
    pub restart: Vec<String>,
    /// Why newer settings are not used, in words.
    pub problems: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    reasons: Mutex<Reasons>,
    settings: Mutex<SettingsState>,
    /// Notified when the last reason is cleared or a permanent one is added.
    ready: Condvar,
    /// Notified when a permanent reason is added.
    failed: Notify,
}

#[derive(Debug, Default)]
struct Reasons {
    /// Reasons that can be cleared.
    transient: BTreeMap<String, String>,
    /// Reasons that stay until the node restarts.
    failed: BTreeMap<String, String>,
}

impl Readiness {
    /// Records why the node is not ready; replaces an earlier reason of the same name.
    pub fn set_reason(&self, name: &str, reason: impl Into<String>) {
        self.shared.reasons.lock().transient.insert(name.to_owned(), reason.into());
    }

    /// Removes a reason.
    pub fn clear_reason(&self, name: &str) {
        let mut reasons = self.shared.reasons.lock();
        reasons.transient.remove(name);
        if reasons.transient.is_empty() {
            self.shared.ready.notify_all();
        }
    }

    /// Records that the node has lost a part that only a restart restores.
    pub fn fail(&self, name: &str, reason: impl Into<String>) {
        self.shared.reasons.lock().failed.insert(name.to_owned(), reason.into());
        self.shared.ready.notify_all();
        self.shared.failed.notify_waiters();
    }

    /// Records the result of settings that changed.
    pub fn set_settings(&self, state: SettingsState) {
        *self.shared.settings.lock() = state;
    }

    /// The result of settings that changed.
    #[must_use]
    pub fn settings(&self) -> SettingsState {
        self.shared.settings.lock().clone()
    }

    /// Waits until a part with one of these names has failed, and returns the reason. A failing thread drops its state
    /// before [`spawn_vital`] records the failure; callers that find the state gone wait here for that moment.
    pub async fn failure_of(&self, names: &[&str]) -> String {
        loop {
            let failed = self.shared.failed.notified();
            if let Some(reason) = self.known_failure_of(names) {
                return reason;
            }
            failed.await;
        }
    }

    /// Why a part with one of these names failed; `None` when none has.
    #[must_use]
    pub fn known_failure_of(&self, names: &[&str]) -> Option<String> {
        let reasons = self.shared.reasons.lock();
        names.iter().find_map(|name| reasons.failed.get(*name).cloned())
    }

    /// Failures that only a restart fixes, by name; empty in a healthy node.
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

    /// Whether there are no reasons.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let reasons = self.shared.reasons.lock();
        reasons.transient.is_empty() && reasons.failed.is_empty()
    }

    /// Blocks until there are no reasons left or a permanent one is added, at most for `patience`. Returns whether
    /// there are none.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut reasons = self.shared.reasons.lock();
        let waits = |reasons: &mut Reasons| !reasons.transient.is_empty() && reasons.failed.is_empty();
        self.shared.ready.wait_while_until(&mut reasons, waits, deadline);
        reasons.transient.is_empty() && reasons.failed.is_empty()
    }
}

/// The shutdown signal: everything that waits for work waits for this too.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    token: CancellationToken,
}

impl Drain {
    /// Starts the shutdown. This cannot be undone.
    pub fn start(&self) {
        self.token.cancel();
    }

    /// Whether the shutdown has started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the shutdown to start.
    pub async fn ordered(&self) {
        self.token.cancelled().await;
    }

    /// A cancellation token for libraries; cancelled when the shutdown starts.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

/// A request to start the node again on its data directory, in the same process.
#[derive(Debug, Clone, Default)]
pub struct Restart {
    token: CancellationToken,
}

impl Restart {
    /// Requests the restart. This cannot be undone.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Waits for the request.
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
