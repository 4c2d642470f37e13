//! What snapshots need of the node that they are taken of, and what they report to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Canary, CanaryAnswer};
use crate::base::{Lsn, UnixMillis};
use crate::calls::Permit;
use crate::collection::Library;

/// A node, as a snapshot sees it: the live one, or one that was opened on what was brought back.
pub trait Probe: Send + Sync {
    /// Its collections.
    fn library(&self) -> &Arc<Library>;

    /// The permit for taking or checking a snapshot: the node's own work.
    fn permit(&self) -> Permit;

    /// Up to `most` queries spread over the collections, derived from their content, with their answers.
    fn canaries(&self, most: usize) -> Vec<Canary>;

    /// Asks the questions again. For each, as many passages as it had answers, by an exact scan, best first; or why not, in
    /// words.
    fn ask(&self, canaries: &[Canary]) -> Vec<Result<Vec<CanaryAnswer>, String>>;

    /// Closes a node that [`Host::open`] opened.
    ///
    /// * `keep`: whether its files are used again.
    fn close(&self, keep: bool);
}

/// Opens nodes.
pub trait Host: Send + Sync + 'static {
    /// Opens a node on a data directory and waits until its views have caught up with the log.
    ///
    /// * `now`: the node's clock, so that documents that expired since still exist.
    /// * `report`: called with the record that the views have reached, and the last one.
    ///
    /// # Errors
    /// When it cannot be opened or does not become ready.
    fn open(
        &self,
        data_dir: &Path,
        now: UnixMillis,
        report: &dyn Fn(Lsn, Lsn),
    ) -> Result<Box<dyn Probe>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Where long work reports how far it is.
pub trait Progress: Send + Sync {
    /// `done` of `total` bytes of what `step` names; records where it is [`REBUILDING`].
    fn report(&self, step: &'static str, done: u64, total: u64);
}

/// The step that makes the views from the log.
pub const REBUILDING: &str = "rebuilding";

/// How far long work of this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// `create`, `verify` or `restore`.
    pub work: &'static str,
    /// What it is doing; see [`Progress`].
    pub step: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 while that is not known.
    pub total: u64,
}

/// Passes reports on, and shows them as [`Snapshots::under_way`] while it lives.
pub(super) struct TrackedProgress<'a> {
    pub(super) among: &'a Mutex<BTreeMap<&'static str, UnderWay>>,
    pub(super) work: &'static str,
    pub(super) to: &'a dyn Progress,
}

impl Progress for TrackedProgress<'_> {
    fn report(&self, step: &'static str, done: u64, total: u64) {
        self.among.lock().insert(self.work, UnderWay { work: self.work, step, done, total });
        self.to.report(step, done, total);
    }
}

impl Drop for TrackedProgress<'_> {
    fn drop(&mut self) {
        self.among.lock().remove(self.work);
    }
}

/// For callers that need no progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _step: &'static str, _done: u64, _total: u64) {}
}
