//! One test suite for all engines: the requirements for any answer.

use std::cmp::Reverse;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::super::super::gpu::service::{GpuService, Options, Use};
use super::super::super::gpu::{FallbackLabels, Metrics};
use super::super::tests::{apply, build, clustered, filled, key, wide};
use super::*;
use crate::index::vector::VectorIndex;

const ROWS: usize = 6_000;
const LIMITS: [usize; 4] = [1, 10, 50, 200];

/// An index with removed rows, equal vectors, and rows that the device does not have.
struct Fixture {
    _dir: TempDir,
    index: Arc<VectorIndex>,
    queries: Vec<Vec<f16>>,
    allowed: Arc<RowSet>,
}

/// Asks one engine.
type Ask<'a> = dyn Fn(&Fixture, &[f16], usize, Option<&Arc<RowSet>>) -> Vec<Neighbor> + 'a;

impl Fixture {
    fn new(flat_max: usize) -> Self {
        let mut vectors = clustered(5, ROWS, 60, 0.5);
        for row in (7..ROWS).step_by(7) {
            vectors[row] = vectors[row - 7].clone();
        }
        let (dir, index) = filled(flat_max, &vectors);
        build(&index);
        let queries = clustered(5, ROWS + 20, 60, 0.5).split_off(ROWS);
        let keys: Vec<u64> = (0..ROWS).filter(|row| row % 3 != 1).map(key).collect();
        let allowed = Arc::new(index.view().row_set(&keys));
        Self { _dir: dir, index: Arc::new(index), queries, allowed }
    }

    /// Removes rows and adds some, without telling the device.
    fn change(&self) {
        let next = self.index.stats().applied.next();
        apply(&self.index, next, &[key(30)..key(36), key(99)..key(102)], &[]).expect("applied");
        let added = clustered(9, 40, 60, 0.5);
        let rows: Vec<(u64, &[f16])> = added.iter().enumerate().map(|(row, v)| (key(ROWS + row), &v[..])).collect();
        apply(&self.index, next.next(), &[], &rows).expect("applied");
    }

    /// The definition: every live row scored, sorted.
    fn defined(&self, query: &[f16], limit: usize, allowed: Option<&RowSet>) -> Vec<Neighbor> {
        let view = self.index.view.load();
        let rows = view.alive.iter().filter(|row| allowed.is_none_or(|allowed| allowed.contains(*row)));
        let score = |row: usize| Neighbor {
            key: *view.keys.row(row).first().expect("a key"),
            score: scan::dot(view.vectors.row(row), query),
        };
        let mut all: Vec<Neighbor> = rows.map(score).collect();
        all.sort_by_key(|neighbor| (Reverse(ordered(neighbor.score)), neighbor.key));
        all.truncate(limit);
        all
    }

    /// Checks an engine's answers; the part of the defined neighbours that it finds.
    fn recall(&self, ask: &Ask<'_>) -> f64 {
        let (mut found, mut there) = (0, 0);
        for query in &self.queries {
            for limit in LIMITS {
                for allowed in [None, Some(&self.allowed)] {
                    let answer = ask(self, query, limit, allowed);
                    let defined = self.defined(query, limit, allowed.map(AsRef::as_ref));
                    assert_eq!(answer.len(), defined.len(), "as many as there are");
                    let sorted =
                        |a: &Neighbor, b: &Neighbor| a.score > b.score || (a.score == b.score && a.key < b.key);
                    assert!(answer.is_sorted_by(sorted), "best first, equal scores by key");
                    let everything = self.defined(query, usize::MAX, allowed.map(AsRef::as_ref));
                    assert!(answer.iter().all(|one| everything.contains(one)), "live, allowed, and scored to the bit");
                    there += defined.len();
                    found += defined.iter().filter(|one| answer.contains(one)).count();
                }
            }
        }
        found as f64 / there as f64
    }
}

/// Orders as the score does.
fn ordered(score: f32) -> i64 {
    let bits = i64::from(score.to_bits());
    if score.is_sign_negative() { -(bits & 0x7fff_ffff) } else { bits }
}

fn service(memory_bytes_max: u64) -> GpuService {
    counted(memory_bytes_max, &Metrics::default())
}

fn counted(memory_bytes_max: u64, metrics: &Metrics) -> GpuService {
    let (batch_wait, idle) = (Duration::from_micros(300), Duration::from_millis(50));
    let options = Options { how: Use::Software, memory_bytes_max, batch_wait, idle };
    GpuService::start(options, metrics.clone()).expect("a thread")
}

/// Queries the device, again if it was too busy.
fn by_device(fixture: &Fixture, query: &[f16], limit: usize, allowed: Option<&Arc<RowSet>>) -> Vec<Neighbor> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    loop {
        // As every search does.
        let _ = fixture.index.asks_device();
        let asked = fixture.index.ask_device(&fixture.index.view(), &wide(query), limit, allowed.cloned());
        let answer = asked.and_then(|asked| runtime.block_on(asked.answer()));
        if let Some(found) = answer.and_then(|answer| fixture.index.collect(&fixture.index.view(), &answer)) {
            return found;
        }
        // The rasteriser uses the cores that polling would occupy.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_scan_answers_as_defined() {
    let fixture = Fixture::new(ROWS * 2);
    fixture.change();
    let recall = fixture.recall(&|fixture, query, limit, allowed| {
        Flat.nearest(&fixture.index.view.load(), query, limit, allowed.map(AsRef::as_ref)).expect("always")
    });
    assert_eq!(recall, 1.0);
}

#[test]
fn the_graph_answers_as_defined_but_for_a_few_that_it_misses() {
    let fixture = Fixture::new(100);
    fixture.change();
    let recall = fixture.recall(&|fixture, query, limit, allowed| {
        let view = fixture.index.view.load();
        let graph = Hnsw { expansion: 400, reach: view.graph.linked() };
        graph.nearest(&view, query, limit, allowed.map(AsRef::as_ref)).expect("enough is linked")
    });
    assert!(recall > 0.95, "{recall}");
}

#[test]
fn the_gpu_answers_as_defined() {
    let (service, fixture) = (service(0), Fixture::new(ROWS * 2));
    fixture.index.join_device(&service.client());
    by_device(&fixture, &fixture.queries[0], 1, None);
    fixture.change();
    assert_eq!(fixture.recall(&by_device), 1.0);
    let verdict = fixture.index.device().expect("it joined");
    assert!(verdict.by_gpu && verdict.reason.starts_with("a question takes the GPU"), "{verdict:?}");
}

#[test]
fn the_graph_is_compared_with_what_the_gpu_finds() {
    let metrics = Metrics::default();
    let (service, fixture) = (counted(0, &metrics), Fixture::new(100));
    fixture.index.join_device(&service.client());
    let questions = clustered(13, 256, 60, 0.5);
    for question in &questions {
        by_device(&fixture, question, 10, None);
    }
    assert!(fixture.index.is_recall_due());
    let before = metrics.questions.get();
    let told = fixture.index.check_recall().expect("the graph is complete");
    assert_eq!(metrics.questions.get() - before, 256);
    drop(service);
    for question in &questions {
        assert_eq!(fixture.index.search(&fixture.index.view(), &wide(question), 10).len(), 10);
    }
    let by_cpu = fixture.index.check_recall().expect("the graph is complete");
    assert_eq!((told.questions, told.at_10), (256, by_cpu.at_10));
}

#[test]
fn where_halves_find_no_room_bytes_do() {
    // 6,000 rows of 64 numbers: 768,000 bytes as halves.
    let (service, fixture) = (service(500_000), Fixture::new(ROWS * 2));
    fixture.index.join_device(&service.client());
    by_device(&fixture, &fixture.queries[0], 1, None);
    fixture.change();
    let recall = fixture.recall(&by_device);
    assert!(recall > 0.99, "{recall}");
    let verdict = fixture.index.device().expect("it joined");
    assert!(verdict.reason.ends_with("(as bytes: halves find no room)"), "{verdict:?}");
}

#[test]
fn what_finds_no_room_stays_with_the_cpu() {
    let (service, fixture) = (service(300_000), Fixture::new(ROWS * 2));
    fixture.index.join_device(&service.client());
    loop {
        let verdict = fixture.index.device().expect("it joined");
        assert!(!verdict.by_gpu, "{verdict:?}");
        if verdict.reason.starts_with("it finds no room on the device") {
            break;
        }
        std::thread::yield_now();
    }
    assert!(fixture.index.ask_device(&fixture.index.view(), &wide(&fixture.queries[0]), 1, None).is_none());
}

#[test]
fn who_is_searched_gets_the_room_of_who_is_not() {
    // Room for the halves of one.
    let service = service(1_000_000);
    let [first, second] = [Fixture::new(ROWS * 2), Fixture::new(ROWS * 2)];
    first.index.join_device(&service.client());
    by_device(&first, &first.queries[0], 1, None);
    second.index.join_device(&service.client());
    for fixture in [&second, &first, &second] {
        for query in &fixture.queries {
            assert_eq!(by_device(fixture, query, 10, None), fixture.defined(query, 10, None));
        }
    }
    assert!(!first.index.device().expect("it joined").by_gpu, "both do not fit");
}

#[test]
fn the_device_is_told_of_rows_that_went_before_it_had_them() {
    let metrics = Metrics::default();
    let (_service, fixture) = {
        let (service, fixture) = (counted(0, &metrics), Fixture::new(ROWS * 2));
        fixture.index.join_device(&service.client());
        (service, fixture)
    };
    let query = fixture.queries[0].clone();
    by_device(&fixture, &query, 1, None);
    // Nearer than all others, written and removed while they are few enough to be scanned; then enough others.
    let next = fixture.index.stats().applied.next();
    let near: Vec<(u64, &[f16])> = (0..600).map(|row| (key(ROWS + row), &query[..])).collect();
    apply(&fixture.index, next, &[], &near).expect("applied");
    apply(&fixture.index, next.next(), from_ref(&(key(ROWS)..key(ROWS + 600))), &[]).expect("applied");
    let others = clustered(17, 600, 60, 0.5);
    let others: Vec<(u64, &[f16])> =
        others.iter().enumerate().map(|(row, v)| (key(ROWS + 600 + row), &v[..])).collect();
    apply(&fixture.index, next.next().next(), &[], &others).expect("applied");
    let in_vain = || metrics.fallbacks.get_or_create(&FallbackLabels { reason: "changed" }).get();
    let before = in_vain();
    assert_eq!(by_device(&fixture, &query, 20, None), fixture.defined(&query, 20, None));
    assert_eq!(in_vain(), before);
}

#[test]
fn a_rewritten_matrix_is_loaded_anew() {
    let (service, fixture) = (service(0), Fixture::new(ROWS * 2));
    fixture.index.join_device(&service.client());
    by_device(&fixture, &fixture.queries[0], 1, None);
    let next = fixture.index.stats().applied.next();
    apply(&fixture.index, next, from_ref(&(key(0)..key(ROWS / 2 + 300))), &[]).expect("applied");
    let added = clustered(11, 5_000, 60, 0.5);
    let rows: Vec<(u64, &[f16])> = added.iter().enumerate().map(|(row, v)| (key(ROWS + row), &v[..])).collect();
    apply(&fixture.index, next.next(), &[], &rows).expect("applied");
    let next = next.next().next();
    apply(&fixture.index, next, from_ref(&(key(ROWS / 2 + 300)..key(ROWS - 300))), &[]).expect("applied");
    let generation = fixture.index.view.load().generation;
    while fixture.index.build_step(1_000).expect("builds") > 0 {}
    fixture.index.checkpoint(next).expect("durable");
    assert_ne!(fixture.index.view.load().generation, generation, "most rows were removed");
    for query in &fixture.queries {
        assert_eq!(by_device(&fixture, query, 20, None), fixture.defined(query, 20, None));
    }
    assert!(
        fixture
            .index
            .ask_device(&fixture.index.view(), &wide(&fixture.queries[0]), 1, Some(Arc::clone(&fixture.allowed)))
            .is_none()
    );
}
