//! A call that has entered, and what it reads.
//!
//! Invariant: a [`ReadContext`] reads the catalog, the indexes and the log, so only [`Call::read`] makes one, under a compute permit. An
//! answer that was rendered before is looked up without one.

use std::collections::HashMap;
use std::hash::{Hash, Hasher as _};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::direct::Rendered;
use super::super::{Progress, ToolError, arguments};
use super::NodeTools;
use super::searching::SearchCall;
use crate::base::NodeId;
use crate::calls::Permit;
use crate::collection::{Access, CollectionInfo, Reached};
use crate::retrieval::SearchError;
use crate::task::{Busy, Flow};

/// A call that has entered.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) tools: &'a NodeTools,
    pub(super) permit: &'a Permit,
    pub(super) progress: &'a dyn Progress,
}

/// The context of a call that reads. It only waits for the disk.
pub(super) struct ReadContext<'a> {
    pub(super) tools: &'a NodeTools,
    pub(super) access: Access<'a>,
    /// What the call reaches in each collection that it has looked at, by the collection's id.
    reached: Mutex<HashMap<u64, Arc<Reached>>>,
}

impl<'a> Call<'a> {
    /// The collections as far as the call reaches.
    pub(super) fn access(&self) -> Access<'a> {
        self.tools.library.access(self.permit)
    }

    /// Whether there are documents that the call does not reach.
    pub(super) fn is_narrowed(&self) -> bool {
        self.permit.reach().documents().is_some()
    }

    fn reading(&self) -> ReadContext<'a> {
        ReadContext { tools: self.tools, access: self.access(), reached: Mutex::default() }
    }

    /// The flow of a read: its caller, and the collection, or collections, that it names.
    fn flow(&self, subject: &impl Hash) -> Flow {
        let mut hasher = rustc_hash::FxHasher::default();
        subject.hash(&mut hasher);
        Flow { principal: self.permit.caller().id(), subject: hasher.finish() }
    }

    /// Reads when it is the flow's turn, or refuses at once.
    pub(super) async fn read<T>(
        &self,
        subject: &impl Hash,
        read: impl FnOnce(&ReadContext<'_>) -> Result<T, ToolError>,
    ) -> Result<T, ToolError> {
        let _permit = self.tools.compute_permit(self.flow(subject)).await?;
        read(&self.reading())
    }

    /// A cached answer needs no permit.
    pub(super) async fn search(&self, given: arguments::Search) -> Result<Arc<Rendered>, ToolError> {
        let question = SearchCall::of(given)?;
        let retrieval = &self.tools.retrieval;
        let mut asked = retrieval.ask(self.access(), &question.request)?;
        if let Some(found) = retrieval.remembered(&asked) {
            return Ok(self.tools.rendered(&found, &question));
        }
        // Before the turn: a model may be elsewhere.
        retrieval.embed(&question.request, &mut asked).await;
        let mut compute_permit = self.tools.compute_permit(self.flow(&question.request.collections)).await?;
        if asked.asks_device(question.request.mode) {
            let devices = retrieval.ask_devices(&question.request, &asked)?;
            if !devices.is_empty() {
                // Others compute while the GPU does.
                let paused = compute_permit.pause();
                asked.with(devices).await;
                compute_permit = paused.resume().await.map_err(|Busy| ToolError::overloaded())?;
            }
        }
        let answer = self.reading().search(&question, &asked);
        drop(compute_permit);
        answer
    }
}

impl ReadContext<'_> {
    pub(super) fn node(&self) -> NodeId {
        self.tools.library.log().node()
    }

    /// What the call reaches in a collection, determined once.
    pub(super) fn reached(&self, info: &Arc<CollectionInfo>) -> Result<Arc<Reached>, ToolError> {
        if let Some(known) = self.reached.lock().get(&info.id.0.0) {
            return Ok(Arc::clone(known));
        }
        let reached = Arc::new(self.access.reached(info).map_err(SearchError::from)?);
        self.reached.lock().insert(info.id.0.0, Arc::clone(&reached));
        Ok(reached)
    }
}
