//! The vector part alone: what it finds and what that costs, beside usearch called directly with the same settings.
//!
//! `cargo bench --bench vectors -- FOLDER [VECTORS [CANDIDATES]]`, where FOLDER is what `tests/bench/corpus.py` wrote. One line of JSON for
//! each row. Costs are the thread's own time on a processor, so that they hold on a busy machine.
//!
//! `CAIRN_BENCH_DIMENSIONS=384` turns the model's vectors into ones of more dimensions with the same products, which cost what such
//! vectors cost and are as hard to find. `CAIRN_BENCH_WRITE=DIR` writes vectors, questions and the true neighbours into DIR for
//! other libraries (`tests/bench/peers/run.py`), measures candidates from few to many, and leaves the other rows out.

mod cpu;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cairn::base::Lsn;
use cairn::embed::StaticModel;
use cairn::index::vector::{Config, Trust, VectorIndex};
use half::f16;
use serde_json::json;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use self::cpu::cost;

/// Hits that recall is measured of.
const HITS: usize = 10;
/// Questions that are asked.
const QUESTIONS: usize = 1_000;
/// Vectors of one batch of the index.
const BATCH: usize = 10_000;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("listed").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The passages of the corpus as unit vectors.
fn vectors(folder: &Path, count: usize, model: &StaticModel) -> Vec<Vec<f16>> {
    let mut paths = Vec::new();
    files(&folder.join("docs"), &mut paths);
    let mut vectors = Vec::with_capacity(count);
    for path in paths {
        for section in fs::read_to_string(path).expect("text").split("\n## ").skip(1) {
            if vectors.len() == count {
                return vectors;
            }
            vectors.push(model.embed_one(section).into_iter().map(f16::from_f32).collect());
        }
    }
    vectors
}

/// An isometry into more dimensions: rows of a random matrix, made orthonormal (Gram and Schmidt), of a fixed seed.
struct Isometry(Vec<Vec<f32>>);

impl Isometry {
    fn new(from: usize, to: usize) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            // xorshift64*, Vigna 2016; twelve uniform numbers make a normal one.
            (0..12).fold(-6.0f32, |sum, _| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                sum + (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u64 << 24) as f32
            })
        };
        let mut rows: Vec<Vec<f32>> = Vec::with_capacity(from);
        for _ in 0..from {
            let mut row: Vec<f32> = (0..to).map(|_| next()).collect();
            for known in &rows {
                let along: f32 = row.iter().zip(known).map(|(left, right)| left * right).sum();
                row.iter_mut().zip(known).for_each(|(value, known)| *value -= along * known);
            }
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            row.iter_mut().for_each(|value| *value /= norm);
            rows.push(row);
        }
        Self(rows)
    }

    fn apply(&self, vector: &[f32]) -> Vec<f32> {
        let mut image = vec![0f32; self.0[0].len()];
        for (value, row) in vector.iter().zip(&self.0) {
            image.iter_mut().zip(row).for_each(|(sum, part)| *sum += value * part);
        }
        image
    }
}

fn write(path: &Path, values: impl Iterator<Item = f32>) {
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    fs::write(path, bytes).expect("written");
}

fn recall(found: &[HashSet<u64>], truth: &[HashSet<u64>]) -> f64 {
    let hits: usize = found.iter().zip(truth).map(|(found, truth)| found.intersection(truth).count()).sum();
    hits as f64 / truth.iter().map(HashSet::len).sum::<usize>() as f64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [folder, rest @ ..] = &arguments[..] else {
        eprintln!("vectors: give the folder that tests/bench/corpus.py wrote; nothing was measured");
        return;
    };
    let folder = Path::new(folder);
    let count = rest.first().map_or(100_000, |count| count.parse().expect("a number of vectors"));
    let model = StaticModel::built_in();
    let mut vectors = vectors(folder, count, &model);
    let questions = fs::read_to_string(folder.join("queries.txt")).expect("questions");
    let mut questions: Vec<Vec<f32>> = questions.lines().take(QUESTIONS).map(|line| model.embed_one(line)).collect();
    if let Ok(wider) = std::env::var("CAIRN_BENCH_DIMENSIONS") {
        let isometry = Isometry::new(vectors[0].len(), wider.parse().expect("a number of dimensions"));
        for vector in &mut vectors {
            let wide: Vec<f32> = vector.iter().map(|value| value.to_f32()).collect();
            *vector = isometry.apply(&wide).into_iter().map(f16::from_f32).collect();
        }
        questions.iter_mut().for_each(|question| *question = isometry.apply(question));
    }
    let dimensions = vectors[0].len();
    let row = |what: &str, values: serde_json::Value| {
        let mut row = json!({"what": what, "vectors": vectors.len(), "dimensions": dimensions});
        row.as_object_mut().expect("an object").extend(values.as_object().expect("an object").clone());
        println!("{row}");
    };

    let directory = tempfile::tempdir().expect("a folder");
    let mut config = Config::new(dimensions);
    if let Some(expansion) = rest.get(1) {
        config.expansion_search = expansion.parse().expect("a number of candidates");
    }
    let (index, _) = VectorIndex::open(directory.path(), config.clone(), Trust::Verify).expect("opened");
    for (number, batch) in vectors.chunks(BATCH).enumerate() {
        let first = (number * BATCH) as u64;
        let added: Vec<(u64, &[f16])> = (first..).zip(batch.iter().map(Vec::as_slice)).collect();
        index.apply(Lsn(number as u64 + 1), &[], &added).expect("applied");
        index.publish();
    }
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| while index.build_step(1_000).expect("linked") > 0 {});
        }
    });
    let linked = begun.elapsed().as_secs_f64();
    let mut repaired = 0;
    loop {
        let step = index.verify_graph(10_000).expect("verified");
        repaired += step.repaired;
        if step.checked == 0 {
            break;
        }
    }
    let stats = index.stats();
    row(
        "build",
        json!({
            "seconds": linked, "threads": threads, "a_second": vectors.len() as f64 / linked, "repaired": repaired,
            "strays": stats.strays, "memory_mib": stats.memory_bytes >> 20, "mapped_mib": stats.mapped_bytes >> 20,
        }),
    );
    let keys =
        |found: Vec<cairn::index::vector::Neighbor>| found.into_iter().map(|hit| hit.key).collect::<HashSet<u64>>();
    let truth: Vec<HashSet<u64>> =
        questions.iter().map(|question| keys(index.exact(&index.view(), question, HITS, None))).collect();
    if let Some(folder) = std::env::var_os("CAIRN_BENCH_WRITE").map(PathBuf::from) {
        fs::create_dir_all(&folder).expect("made");
        write(&folder.join("vectors.f32"), vectors.iter().flatten().map(|value| value.to_f32()));
        write(&folder.join("questions.f32"), questions.iter().flatten().copied());
        let truth: Vec<Vec<u64>> = truth.iter().map(|keys| keys.iter().copied().collect()).collect();
        fs::write(folder.join("truth.json"), json!(truth).to_string()).expect("written");
        index.checkpoint(Lsn(u64::from(u32::MAX))).expect("kept");
        drop(index);
        for expansion in [16, 24, 32, 48, 64, 80, 96, 128, 192, 256] {
            config.expansion_search = expansion;
            let (index, _) = VectorIndex::open(directory.path(), config.clone(), Trust::Verify).expect("opened");
            assert_eq!(index.pending_graph(), 0, "nothing is built anew");
            let truth: Vec<HashSet<u64>> = truth.iter().map(|keys| keys.iter().copied().collect()).collect();
            let found: Vec<HashSet<u64>> =
                questions.iter().map(|question| keys(index.search(&index.view(), question, HITS))).collect();
            let cost = cost(&questions, |question| drop(index.search(&index.view(), question, HITS)));
            row("search", json!({"ef": expansion, "limit": HITS, "recall": recall(&found, &truth), "us": cost}));
        }
        return;
    }
    for limit in [HITS, 40] {
        let found: Vec<HashSet<u64>> = questions
            .iter()
            .map(|question| {
                index.search(&index.view(), question, limit).into_iter().take(HITS).map(|hit| hit.key).collect()
            })
            .collect();
        let cost = cost(&questions, |question| drop(index.search(&index.view(), question, limit)));
        row("search", json!({"limit": limit, "recall": recall(&found, &truth), "us": cost}));
    }
    for part in [2, 10, 100, 1_000, 10_000] {
        let allowed: Vec<u64> = (0..vectors.len() as u64)
            .filter(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 < u64::from(u32::MAX) / part)
            .collect();
        let truth: Vec<HashSet<u64>> =
            questions.iter().map(|question| keys(index.exact(&index.view(), question, HITS, Some(&allowed)))).collect();
        let rows = index.view().row_set(&allowed);
        let search = |question: &[f32]| index.search_among(&index.view(), question, 40, &rows).expect("one matrix");
        let found: Vec<HashSet<u64>> = questions
            .iter()
            .map(|question| search(question).into_iter().take(HITS).map(|hit| hit.key).collect())
            .collect();
        let cost = cost(&questions, |question| drop(search(question)));
        row(
            "filtered search",
            json!({"limit": 40, "one_in": part, "allowed": allowed.len(), "recall": recall(&found, &truth), "us": cost}),
        );
    }

    // Half of the vectors are replaced, as documents are: removed, and added again under later keys. Twice; the second time more rows
    // are dead than alive, and the matrix is written anew.
    let mut held: Vec<(u64, usize)> = (0..vectors.len() as u64).zip(0..).collect();
    for round in 1..=2u64 {
        let is_replaced = |key: u64| (key ^ round).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 0;
        let (replaced, kept): (Vec<_>, Vec<_>) = held.iter().copied().partition(|(key, _)| is_replaced(*key));
        let next = held.last().map_or(0, |(key, _)| key + 1);
        let fresh: Vec<(u64, usize)> = (next..).zip(replaced.iter().map(|(_, vector)| *vector)).collect();
        for (old, new) in replaced.chunks(BATCH).zip(fresh.chunks(BATCH)) {
            let removed: Vec<std::ops::Range<u64>> = old.iter().map(|(key, _)| *key..key + 1).collect();
            let added: Vec<(u64, &[f16])> =
                new.iter().map(|(key, vector)| (*key, vectors[*vector].as_slice())).collect();
            index.apply(index.stats().applied.next(), &removed, &added).expect("applied");
            index.publish();
        }
        held = kept.into_iter().chain(fresh).collect();
        while index.build_step(1_000).expect("linked") > 0 {}
        while index.verify_graph(10_000).expect("verified").checked > 0 {}
        index.checkpoint(index.stats().applied).expect("durable");
        let truth: Vec<HashSet<u64>> =
            questions.iter().map(|question| keys(index.exact(&index.view(), question, HITS, None))).collect();
        let found: Vec<HashSet<u64>> =
            questions.iter().map(|question| keys(index.search(&index.view(), question, HITS))).collect();
        let cost = cost(&questions, |question| drop(index.search(&index.view(), question, HITS)));
        row(
            "search after churn",
            json!({
                "round": round, "replaced": replaced.len(), "rows": index.len(), "live": index.live(),
                "recall": recall(&found, &truth), "us": cost,
            }),
        );
    }

    for (name, kind) in [("f16", ScalarKind::F16), ("i8", ScalarKind::I8)] {
        let options = IndexOptions {
            dimensions,
            metric: MetricKind::IP,
            quantization: kind,
            connectivity: config.connectivity,
            expansion_add: config.expansion_add,
            expansion_search: config.expansion_search,
            multi: false,
        };
        let direct = Index::new(&options).expect("made");
        direct.reserve(vectors.len()).expect("room");
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (direct, vectors) = (&direct, &vectors);
                scope.spawn(move || {
                    for (key, vector) in vectors.iter().enumerate().skip(thread).step_by(threads) {
                        let vector: Vec<f32> = vector.iter().map(|value| value.to_f32()).collect();
                        direct.add(key as u64, &vector).expect("added");
                    }
                });
            }
        });
        let seconds = begun.elapsed().as_secs_f64();
        for limit in [HITS, 40] {
            let found: Vec<HashSet<u64>> = questions
                .iter()
                .map(|question| direct.search(question, limit).expect("found").keys.into_iter().take(HITS).collect())
                .collect();
            let cost = cost(&questions, |question| drop(direct.search(question, limit)));
            row(
                &format!("usearch {name}"),
                json!({"limit": limit, "recall": recall(&found, &truth), "us": cost, "build_seconds": seconds}),
            );
        }
    }
}
