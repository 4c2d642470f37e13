//! Whether a runtime still runs what it is given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Asks a runtime for a sign of life: whether it runs a task, which is what a request needs most. Nobody who asks waits.
#[derive(Debug, Clone)]
pub struct Pulse {
    runtime: Handle,
    /// Since when a task waits to be run; `None` when the last one was.
    pending_since: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    /// The pulse of a runtime.
    #[must_use]
    pub fn of(runtime: Handle) -> Self {
        Self { runtime, pending_since: Arc::default() }
    }

    /// For how long the runtime has not run the task that it was given; gives it one when there is none. Zero says that it ran
    /// the last one.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let mut pending_since = self.pending_since.lock();
        if let Some(since) = *pending_since {
            return since.elapsed();
        }
        *pending_since = Some(Instant::now());
        drop(pending_since);
        let (pending_since, _entered) = (Arc::clone(&self.pending_since), self.runtime.enter());
        // What it does is its answer; nobody has to wait for the task itself.
        drop(super::spawn("pulse", async move { *pending_since.lock() = None }));
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_runtime_is_silent_while_its_threads_hang() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let pulse = Pulse::of(runtime.handle().clone());
        let (reached, waits) = mpsc::channel();
        let (go, held) = mpsc::channel::<()>();
        let hangs = runtime.spawn(async move {
            reached.send(()).expect("heard");
            held.recv().expect("released");
        });
        waits.recv().expect("it runs");
        assert_eq!(pulse.silence(), Duration::ZERO, "it was only just asked");
        let first = pulse.silence();
        assert!(first > Duration::ZERO && pulse.silence() >= first);
        go.send(()).expect("it waits");
        runtime.block_on(hangs).expect("ended");
        // The task that it was given comes next; the one after it is asked for anew.
        runtime.block_on(async {
            while pulse.pending_since.lock().is_some() {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(pulse.silence(), Duration::ZERO);
    }
}
