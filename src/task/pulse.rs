//! Whether a runtime still runs its tasks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Probes whether a runtime runs tasks, which is what requests need most. Probing never blocks.
#[derive(Debug, Clone)]
pub struct Pulse {
    runtime: Handle,
    /// Since when a probe task has been waiting to run; `None` when the last one ran.
    pending_since: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    /// A pulse of `runtime`.
    #[must_use]
    pub fn of(runtime: Handle) -> Self {
        Self { runtime, pending_since: Arc::default() }
    }

    /// How long the runtime has not run the probe task; spawns one when none is pending. Zero means that the last one
    /// ran.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let mut pending_since = self.pending_since.lock();
        if let Some(since) = *pending_since {
            return since.elapsed();
        }
        *pending_since = Some(Instant::now());
        drop(pending_since);
        let (pending_since, _entered) = (Arc::clone(&self.pending_since), self.runtime.enter());
        // The effect of the task is its result, so the handle is not needed.
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
        // The pending task runs next; the one after it is spawned again.
        runtime.block_on(async {
            while pulse.pending_since.lock().is_some() {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(pulse.silence(), Duration::ZERO);
    }
}
