//! Facts about the log: sizes, position, state and damage, but nothing of the documents' content, so no permit is
//! needed.

use tokio::sync::watch;

use crate::base::{Lsn, NodeId};
use crate::store::{Damage, Epoch, Reader, SealedSegment, WriterState};

/// Figures of the node's log.
#[derive(Clone, Copy)]
pub struct LogFacts<'a>(&'a Reader);

impl<'a> LogFacts<'a> {
    pub(super) fn new(reader: &'a Reader) -> Self {
        Self(reader)
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node()
    }

    /// LSN of the last record that is on stable storage.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.0.last()
    }

    /// [`Self::last`], announced whenever it grows.
    #[must_use]
    pub fn positions(&self) -> watch::Receiver<Lsn> {
        self.0.positions()
    }

    /// Number of collections.
    #[must_use]
    pub fn collections(&self) -> usize {
        self.0.collections().len()
    }

    /// Whether it accepts writes.
    #[must_use]
    pub fn state(&self) -> WriterState {
        self.0.state()
    }

    /// Size of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.log_bytes()
    }

    /// Why reading it fails at the moment; `None` while it does not.
    #[must_use]
    pub fn read_failure(&self) -> Option<String> {
        self.0.read_failure()
    }

    /// Its damage.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.0.damage()
    }

    /// Its segments that no longer change, in order.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        self.0.sealed_segments()
    }

    /// The present epoch: another one after each restore, so that positions and versions may come again with another content.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    /// Its epochs, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Epoch> {
        self.0.history()
    }
}
