//! Handing the data directory over: a process that acts as the node makes room for a node that starts.
//!
//! Invariants: a call that runs is waited for, for a while; calls that come meanwhile wait for the node; nothing is written to
//! the directory after its lock was released.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Backend, LOCK_POLL, NodeHandle, Resolution};
use crate::store::HandoverRequest;

/// How often to check whether a node wants the directory. A start of a node is waiting for this.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// How long the calls that run may take until the files are closed under them.
const CALLS_PATIENCE: Duration = Duration::from_secs(5);

impl Backend {
    /// Checks, for as long as there is a backend, whether a node wants the data directory that this process has open, and
    /// hands it over. Afterwards calls go to that node. For a thread of its own.
    pub(in crate::cli) fn make_way(backend: &Weak<Self>) {
        while let Some(backend) = backend.upgrade() {
            if backend.is_local() && HandoverRequest::is_made(&backend.config.data_dir) {
                backend.hand_over();
            }
            drop(backend);
            std::thread::sleep(CHECK_EVERY);
        }
    }

    fn is_local(&self) -> bool {
        self.resolved().is_some_and(|handle| matches!(&*handle, NodeHandle::Local(_)))
    }

    fn hand_over(&self) {
        {
            // Calls that come now wait here until the files are closed.
            let _resolving = self.resolving.lock();
            let handle = {
                let mut resolution = self.resolution.lock();
                match &*resolution {
                    Resolution::Found(handle) if matches!(&**handle, NodeHandle::Local(_)) => {
                        let handle = Arc::clone(handle);
                        *resolution = Resolution::Unknown;
                        handle
                    }
                    _ => return,
                }
            };
            let NodeHandle::Local(local) = &*handle else { return };
            let start = Instant::now();
            let is_used = || Arc::strong_count(&handle) > 1 || local.is_used();
            while is_used() && start.elapsed() < CALLS_PATIENCE {
                std::thread::sleep(LOCK_POLL);
            }
            local.close();
        }
        // The node is found now and not at the next call: notifications come from it.
        if let Err(error) = self.handle() {
            tracing::warn!(error = %error.error, "the data directory was handed over, and no node answers yet");
        }
    }
}
