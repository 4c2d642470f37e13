//! A collection's vectors on the GPU: queries to the device, and its answers.

use std::sync::{Arc, Weak};
use std::time::Instant;

use half::f16;
use tokio::sync::oneshot;

use super::super::gpu::service::{DeviceResult, GpuClient, Seat, Snapshot, Vectors, Verdict};
use super::engine::{Engine as _, GpuFlat};
use super::matrix::View;
use super::row_set::RowSet;
use super::{Neighbor, VectorIndex, scan};

/// Queries of a recall check that are sent together.
const TOGETHER: usize = 8;

/// The connection of an index to the GPU.
pub(super) struct DevicePlacement {
    client: GpuClient,
    seat: Arc<Seat>,
}

/// A query that was sent to the GPU. [`DeviceQuery::answer`] waits for it, [`VectorIndex::collect`] converts it to
/// neighbours.
pub struct DeviceQuery {
    client: GpuClient,
    query: Vec<f16>,
    limit: usize,
    allowed: Option<Arc<RowSet>>,
    asked: Instant,
    reply: oneshot::Receiver<DeviceResult>,
}

/// The GPU's answer.
pub struct DeviceAnswer {
    query: Vec<f16>,
    limit: usize,
    allowed: Option<Arc<RowSet>>,
    found: DeviceResult,
}

impl DeviceQuery {
    /// Waits for the answer, at most a quarter of a second from the query; `None` if the CPU must search.
    pub async fn answer(self) -> Option<DeviceAnswer> {
        let Self { client, query, limit, allowed, asked, reply } = self;
        let found = client.wait(asked, reply).await?;
        Some(DeviceAnswer { query, limit, allowed, found })
    }
}

impl DevicePlacement {
    /// Records the index's new number of rows.
    pub(super) fn grew(&self, rows: usize) {
        self.client.grew(&self.seat, rows);
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.seat.verdict()
    }
}

impl Drop for DevicePlacement {
    fn drop(&mut self) {
        self.client.request_review(&self.seat);
    }
}

impl VectorIndex {
    /// Lets the GPU search this index if it is worth it. Once; later calls change nothing.
    pub fn join_device(self: &Arc<Self>, client: &GpuClient) {
        self.device.get_or_init(|| {
            let vectors: Weak<Self> = Arc::downgrade(self);
            DevicePlacement { client: client.clone(), seat: client.join(vectors) }
        });
    }

    /// Whether the GPU answers, and why; `None` if no GPU is used at all.
    #[must_use]
    pub fn device(&self) -> Option<Verdict> {
        self.device.get().map(DevicePlacement::verdict)
    }

    /// Whether a search may use the GPU now.
    #[must_use]
    pub fn asks_device(&self) -> bool {
        self.device.get().is_some_and(|placement| {
            let is_open = placement.seat.is_open();
            if !is_open {
                placement.client.mark_wanted(&placement.seat);
            }
            is_open
        })
    }

    /// Sends a query to the GPU: the `limit` vectors nearest to `query`, among `allowed` if given. `None` if the CPU
    /// searches: see [`Self::search`] and [`Self::search_among`]. The CPU scans a few allowed rows faster.
    #[must_use]
    pub fn ask_device(
        &self,
        view: &View,
        query: &[f32],
        limit: usize,
        allowed: Option<Arc<RowSet>>,
    ) -> Option<DeviceQuery> {
        let placement = self.device.get().filter(|placement| placement.seat.is_open())?;
        let admitted = match &allowed {
            None => view.live,
            Some(allowed) if !view.numbers(allowed) => return None,
            Some(allowed) if allowed.len() <= self.config.scan_max => return None,
            Some(allowed) => allowed.len().min(view.live),
        };
        let query = scan::unit_query(query, self.config.dimensions)?;
        // The graph answers when the GPU does not, and its recall is checked on the queries of both.
        if allowed.is_none()
            && view.graph.linked() > 0
            && let Some(mut sample) = self.sample.try_lock()
        {
            sample.record(&query);
        }
        let limit = limit.min(admitted);
        let reply = placement.client.ask(&placement.seat, query.clone(), limit, allowed.clone())?;
        Some(DeviceQuery { client: placement.client.clone(), query, limit, allowed, asked: Instant::now(), reply })
    }

    /// The `limit` nearest of each unit vector in `view`, by the GPU; waits for it. `None` if the GPU does not answer,
    /// or not exactly.
    pub(super) fn exact_by_device(
        &self,
        view: &View,
        queries: &[Vec<f16>],
        limit: usize,
    ) -> Option<Vec<Vec<Neighbor>>> {
        let placement = self.device.get().filter(|placement| placement.seat.is_exact())?;
        let mut exact = Vec::with_capacity(queries.len());
        // A few at a time, so that no other query waits for all of them.
        for queries in queries.chunks(TOGETHER) {
            let ask = |query: &Vec<f16>| placement.client.ask(&placement.seat, query.clone(), limit, None);
            let replies = queries.iter().map(ask).collect::<Option<Vec<_>>>()?;
            for (query, reply) in queries.iter().zip(replies) {
                let found = reply.blocking_recv().ok()?;
                exact.push(GpuFlat { found: &found }.nearest(view, query, limit.min(view.live), None)?);
            }
        }
        Some(exact)
    }

    /// The neighbours in an answer of the GPU, scored as in every other search, plus rows that it did not have. `None`
    /// if the index changed too much meanwhile, so that the CPU must search.
    #[must_use]
    pub fn collect(&self, view: &View, answer: &DeviceAnswer) -> Option<Vec<Neighbor>> {
        let DeviceAnswer { query, limit, allowed, found } = answer;
        let nearest = GpuFlat { found }.nearest(view, query, (*limit).min(view.live), allowed.as_deref());
        if nearest.is_none()
            && let Some(placement) = self.device.get()
        {
            placement.client.fell_back("changed");
        }
        nearest
    }
}

impl Vectors for VectorIndex {
    fn snapshot(&self) -> Snapshot {
        let view = self.view.load();
        Snapshot {
            generation: view.generation,
            file: Arc::clone(&view.file),
            dimensions: self.config.dimensions,
            rows: view.vectors.count(),
            live: view.live,
            alive: view.alive.clone(),
        }
    }

    fn samples(&self, count: usize) -> Vec<Vec<f16>> {
        let view = self.view.load();
        let step = (view.live / count.max(1)).max(1);
        view.alive.iter().step_by(step).take(count).map(|row| view.vectors.row(row).to_vec()).collect()
    }

    fn search_by_cpu(&self, query: &[f16], limit: usize) {
        // This query does not come from a search.
        std::hint::black_box(self.nearest(&self.view.load(), query, limit, |_, _| ()));
    }
}
