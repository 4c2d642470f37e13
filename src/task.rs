//! Spawning, readiness, and the order to stop.
//!
//! Invariants: every task has a name and an owner that awaits it; nothing else in Cairn calls `tokio::spawn`. Long arithmetic
//! runs on the [`CpuPool`]; what takes less than a change of threads is worth is computed where it was asked, by who has one of
//! the [`Turns`].

mod memory;
mod pool;
mod turns;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use memory::{Resident, memory_limit, resident};
pub use pool::CpuPool;
pub use turns::{Busy, Flow, Paused, Turn, Turns};

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

/// Puts the calling thread, and all that it starts from now on, behind those that answer requests. It cannot be taken back.
pub fn give_way() {
    // Without a process this is about the calling thread alone. Where it is not allowed the thread does not give way.
    let _ = rustix::process::setpriority_process(None, BEHIND);
}

/// Processors that this process may use; at least one.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What still stands between the node and being ready, by name.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    reasons: Mutex<BTreeMap<String, String>>,
    /// Rung when the last reason goes.
    ready: Condvar,
}

impl Readiness {
    /// Says why the node is not ready; replaces an earlier reason of the same name.
    pub fn hold(&self, name: &str, reason: impl Into<String>) {
        self.shared.reasons.lock().insert(name.to_owned(), reason.into());
    }

    /// Takes a reason away.
    pub fn release(&self, name: &str) {
        let mut reasons = self.shared.reasons.lock();
        reasons.remove(name);
        if reasons.is_empty() {
            self.shared.ready.notify_all();
        }
    }

    /// Every reason, by name; empty when ready.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.shared.reasons.lock().clone()
    }

    /// Whether there is no reason.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.reasons.lock().is_empty()
    }

    /// Blocks until there is no reason left, at most for `patience`. Returns whether there is none.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut reasons = self.shared.reasons.lock();
        !self.shared.ready.wait_while_until(&mut reasons, |reasons| !reasons.is_empty(), deadline).timed_out()
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
        readiness.hold("log", "being read");
        readiness.hold("indexes", "catching up");
        assert!(!readiness.wait(Duration::ZERO));
        let releasing = readiness.clone();
        let thread = spawn_thread("releases", move || {
            releasing.release("log");
            releasing.release("indexes");
        })
        .expect("a thread");
        assert!(readiness.wait(Duration::from_secs(60)));
        assert!(readiness.reasons().is_empty());
        thread.join().expect("ended");
    }
}
