//! The ways to find the nearest rows of a view. All of them finally score with the same kernel, so that they give a row
//! bit-identical scores, and order equal scores by ascending row; only [`Hnsw`] may miss a neighbour.

use half::f16;

use super::super::gpu::service::DeviceResult;
use super::Neighbor;
use super::matrix::View;
use super::row_set::RowSet;
use super::scan::{self, Best};

/// A way to find the nearest rows.
pub(super) trait Engine {
    /// Up to `limit` live rows nearest to `query`, only from `allowed` if given; best first. `None` if the engine
    /// cannot answer, so that another one must.
    ///
    /// * `query`: a unit vector.
    fn nearest(&self, view: &View, query: &[f16], limit: usize, allowed: Option<&RowSet>) -> Option<Vec<Neighbor>>;
}

/// Scores every row.
pub(super) struct Flat;

/// Walks the graph, and scores the rows that it does not reach.
pub(super) struct Hnsw {
    /// Candidates that the walk considers.
    pub(super) expansion: usize,
    /// Rows below this may be found by the graph.
    pub(super) reach: usize,
}

/// Rescores the device's results, and scores the rows that the device did not have.
pub(super) struct GpuFlat<'a> {
    pub(super) found: &'a DeviceResult,
}

impl Engine for Flat {
    fn nearest(&self, view: &View, query: &[f16], limit: usize, allowed: Option<&RowSet>) -> Option<Vec<Neighbor>> {
        Some(view.scan(query, limit, allowed))
    }
}

impl Engine for Hnsw {
    fn nearest(&self, view: &View, query: &[f16], limit: usize, allowed: Option<&RowSet>) -> Option<Vec<Neighbor>> {
        view.walk(query, limit, self.expansion, allowed, self.reach)
    }
}

impl Engine for GpuFlat<'_> {
    fn nearest(&self, view: &View, query: &[f16], limit: usize, allowed: Option<&RowSet>) -> Option<Vec<Neighbor>> {
        let DeviceResult { generation, rows, wanted, scored } = self.found;
        if *generation != view.generation || *rows > view.vectors.count() {
            return None;
        }
        let passes = |row: usize| allowed.is_none_or(|allowed| allowed.contains(row));
        // Rows that were removed since the device was last told.
        let picked: Vec<usize> = scored
            .iter()
            .map(|scored| scored.row as usize)
            .filter(|row| view.alive.contains(*row) && passes(*row))
            .collect();
        if picked.len() < limit && scored.len() >= *wanted {
            return None;
        }
        let mut best = Best::new(limit);
        scan::pick(&view.vectors, query, &picked, &mut best);
        scan::scan(&view.vectors, &view.alive, query, *rows..view.vectors.count(), &mut best, passes);
        Some(view.neighbors(best))
    }
}

#[cfg(test)]
mod tests;
