//! The data directory, opened by this process.

use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::anyhow;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{Failure, NOTE_AFTER, Stay};
use crate::app::{Answering, Metrics, Node};
use crate::collection::OpenError;
use crate::config::Config;
use crate::task::{Drain, Readiness};

/// How long to wait for the indexes to catch up with the log: rebuilding large ones takes minutes.
const READY_PATIENCE: Duration = Duration::from_secs(600);

/// A node in this process. Closed when dropped, on a thread that may block.
pub(in crate::cli) struct Local {
    runtime: Handle,
    node: Arc<Node>,
    drain: Drain,
    answering: Mutex<Option<Answering>>,
    notice: Once,
}

impl Local {
    /// Opens the data directory in this process. For a long stay it answers other processes too.
    pub(in crate::cli) fn open(config: &Config, runtime: &Handle, stay: Stay) -> Result<Self, OpenError> {
        let node = Arc::new(Node::open(config, Readiness::default(), Metrics::new(), runtime, None)?);
        let drain = Drain::default();
        let answering = match stay {
            Stay::Brief => None,
            Stay::Long => runtime
                .block_on(node.answer_locally(config, &drain))
                .inspect_err(|error| tracing::warn!(%error, "other processes cannot use the data directory meanwhile"))
                .ok(),
        };
        Ok(Self { runtime: runtime.clone(), node, drain, answering: Mutex::new(answering), notice: Once::new() })
    }

    pub(in crate::cli) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Whether a call runs at the node.
    pub(super) fn is_used(&self) -> bool {
        // The sweep of a node that answers other processes has one, too.
        let own = 1 + usize::from(self.answering.lock().is_some());
        Arc::strong_count(&self.node) > own
    }

    /// Waits for the indexes to catch up with the log: before, searches would miss what is there.
    pub(in crate::cli) fn wait_ready(&self) -> Result<(), Failure> {
        if self.node.wait_ready(NOTE_AFTER) {
            return Ok(());
        }
        self.notice.call_once(|| eprintln!("waiting: {}", self.reasons()));
        if self.node.wait_ready(READY_PATIENCE) {
            return Ok(());
        }
        let minutes = READY_PATIENCE.as_secs() / 60;
        let reasons = self.reasons();
        Err(Failure::unreachable(anyhow!("not ready after {minutes} minutes: {reasons}; `cairn serve` continues it")))
    }

    fn reasons(&self) -> String {
        self.node.readiness().reasons().into_values().collect::<Vec<_>>().join("; ")
    }

    /// Answers the requests in flight and closes the files. Does nothing the second time.
    pub(super) fn close(&self) {
        self.end(Node::close);
    }

    /// The same without the upkeep of a large change; see [`Node::close_soon`].
    pub(super) fn close_soon(&self) {
        self.end(Node::close_soon);
    }

    fn end(&self, close: impl FnOnce(&Node)) {
        if self.drain.is_draining() {
            return;
        }
        self.drain.start();
        if let Some(answering) = self.answering.lock().take()
            && let Err(error) = self.runtime.block_on(answering.finish())
        {
            tracing::error!(%error, "cannot answer other processes any more");
        }
        close(&self.node);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.close();
    }
}
