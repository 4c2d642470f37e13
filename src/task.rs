//! Spawning, readiness, and the order to stop.
//!
//! Invariants: every task has a name and an owner that awaits it; nothing else in Cairn calls `tokio::spawn`. Long
//! arithmetic runs on the [`CpuPool`], never on the threads that answer sockets.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

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

/// Bounds how much arithmetic runs at once, so that it shares the cores with whatever answers requests.
#[derive(Debug, Clone)]
pub struct CpuPool {
    permits: Arc<Semaphore>,
    width: usize,
}

impl CpuPool {
    /// A pool that runs at most `width` jobs at once; at least one.
    #[must_use]
    pub fn new(width: usize) -> Self {
        let width = width.max(1);
        Self { permits: Arc::new(Semaphore::new(width)), width }
    }

    /// A pool as wide as the machine has cores.
    #[must_use]
    pub fn per_core() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }

    /// How many jobs run at once.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Runs `job` on a blocking thread once there is room. A panic of the job goes on in the caller.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let result = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job()
        })
        .await;
        match result {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// What still stands between the node and being ready, by name.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// Says why the node is not ready; replaces an earlier reason of the same name.
    pub fn hold(&self, name: &str, reason: impl Into<String>) {
        self.reasons.lock().insert(name.to_owned(), reason.into());
    }

    /// Takes a reason away.
    pub fn release(&self, name: &str) {
        self.reasons.lock().remove(name);
    }

    /// Every reason, by name; empty when ready.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.reasons.lock().clone()
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
