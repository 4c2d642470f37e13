//! Verifies a device: random matrices and queries, answered by the GPU and by the definition.
//!
//! An answer is correct when its rows are admitted and in order, their scores match the definition to [`TOLERANCE`],
//! and no missing row is better than the last by more than that. Some rows have equal scores on purpose: they are
//! ordered by number.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use half::f16;
use rustix::fs::MemfdFlags;

use super::{Format, Gpu, GpuError, LIMIT_MAX, Metric, Scored};
use crate::index::vector::bytes_of;

/// Maximum deviation of a score from the definition, for vectors of length 1: sums of halves in another order.
pub const TOLERANCE: f64 = 2e-5;
/// Questions asked of each matrix.
const QUESTIONS: usize = 64;
const FORMATS: [Format; 3] = [Format::F16, Format::F32, Format::I8];
const METRICS: [Metric; 3] = [Metric::Dot, Metric::Cosine, Metric::L2];

/// The result.
#[derive(Debug, Default)]
pub struct Report {
    /// Questions that were asked.
    pub cases: usize,
    /// Errors in answers, the first hundred.
    pub wrong: Vec<String>,
}

/// A fixed sequence of numbers, so that failures can be reproduced (SplitMix64: Steele, Lea and Flood, 2014).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `below`, exclusive.
    fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    pub(super) fn unit_vector(&mut self, dimensions: usize) -> Vec<f16> {
        let numbers: Vec<f32> = (0..dimensions).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
        let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        numbers.into_iter().map(|number| f16::from_f32(number / length)).collect()
    }
}

/// Rows with their expected state.
struct Rows {
    format: Format,
    metric: Metric,
    vectors: Vec<Vec<f16>>,
    removed: Vec<bool>,
}

impl Rows {
    fn score(&self, row: usize, query: &[f16]) -> f64 {
        let numbers = |vector: &[f16]| -> Vec<f64> {
            match self.format {
                Format::I8 => bytes_of(vector).into_iter().map(f64::from).collect(),
                Format::F16 | Format::F32 => vector.iter().map(|number| number.to_f64()).collect(),
            }
        };
        let (row, query) = (numbers(&self.vectors[row]), numbers(query));
        let product: f64 = row.iter().zip(&query).map(|(a, b)| a * b).sum();
        match self.metric {
            Metric::Dot => product,
            Metric::Cosine => product / row.iter().map(|a| a * a).sum::<f64>().sqrt().max(1e-15),
            Metric::L2 => -row.iter().zip(&query).map(|(a, b)| (a - b).powi(2)).sum::<f64>(),
        }
    }

    /// The errors in an answer.
    fn fault(&self, query: &[f16], limit: usize, filter: Option<&[u32]>, answer: &[Scored]) -> Option<String> {
        let is_admitted =
            |row: usize| !self.removed[row] && filter.is_none_or(|filter| filter[row / 32] & (1 << (row % 32)) != 0);
        let scores: Vec<f64> = (0..self.vectors.len()).map(|row| self.score(row, query)).collect();
        let admitted = (0..self.vectors.len()).filter(|row| is_admitted(*row)).count();
        if answer.len() != limit.min(admitted) {
            return Some(format!("{} rows instead of {}", answer.len(), limit.min(admitted)));
        }
        // Bytes have a separate scale, in which sums are integers.
        let unit =
            if self.format == Format::I8 { scores.iter().fold(1.0, |most, score| score.abs().max(most)) } else { 1.0 };
        let mut is_found = vec![false; self.vectors.len()];
        for scored in answer {
            let row = scored.row as usize;
            if !is_admitted(row) {
                return Some(format!("row {row} was not to be found"));
            }
            if (f64::from(scored.score) - scores[row]).abs() > TOLERANCE * unit {
                return Some(format!("row {row} has {} instead of {}", scored.score, scores[row]));
            }
            is_found[row] = true;
        }
        let in_order = |pair: &[Scored]| {
            pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].row < pair[1].row)
        };
        if !answer.windows(2).all(in_order) {
            return Some("rows are out of order".to_owned());
        }
        let last = answer.last().map_or(f64::INFINITY, |scored| f64::from(scored.score));
        let missed = (0..scores.len())
            .find(|row| is_admitted(*row) && !is_found[*row] && scores[*row] > last + TOLERANCE * unit);
        missed.map(|row| format!("row {row} with {} is missing beside {last}", scores[row]))
    }
}

/// Runs at least `cases` random queries.
///
/// * `patience`: how long an answer may take; the first of each kind compiles its shader.
/// * `progress`: called with the number of queries so far.
///
/// # Errors
/// When the device fails.
pub fn run(
    gpu: &mut Gpu,
    cases: usize,
    patience: Duration,
    mut progress: impl FnMut(usize),
) -> Result<Report, GpuError> {
    let (mut numbers, mut report) = (Numbers(1), Report::default());
    while report.cases < cases {
        matrix(gpu, patience, &mut numbers, &mut report)?;
        progress(report.cases);
    }
    Ok(report)
}

/// One matrix, loaded in two parts, some of its rows removed, asked in batches.
fn matrix(gpu: &mut Gpu, patience: Duration, numbers: &mut Numbers, report: &mut Report) -> Result<(), GpuError> {
    let format = FORMATS[numbers.below(3) as usize];
    let metric = METRICS[numbers.below(3) as usize];
    let dimensions = 64 + numbers.below(200) as usize;
    let count = 1 + numbers.below(1_500) as usize;
    let mut vectors: Vec<Vec<f16>> = Vec::with_capacity(count);
    for row in 0..count {
        // One in eight equals an earlier row.
        let again = numbers.below(8) == 0 && row > 0;
        let vector =
            if again { vectors[numbers.below(row as u64) as usize].clone() } else { numbers.unit_vector(dimensions) };
        vectors.push(vector);
    }
    let file = file_of(&vectors.concat())?;
    let first = numbers.below(count as u64 + 1) as u32;
    let mut on_device = gpu.load(file.as_fd(), (format, metric), dimensions as u32, first)?;
    gpu.append(&mut on_device, count as u32)?;
    let gone = numbers.below(count as u64) as u32;
    let gone = [gone, (gone + numbers.below(40) as u32).min(count as u32)];
    gpu.remove(&on_device, vec![gone])?;
    let removed = (0..count as u32).map(|row| (gone[0]..gone[1]).contains(&row)).collect();
    let rows = Rows { format, metric, vectors, removed };
    let mut asked = 0;
    while asked < QUESTIONS {
        // Up to as many as share a pass, and more.
        let most = if numbers.below(8) == 0 { 70 } else { 16 };
        let batch = 1 + numbers.below(most) as usize;
        let limit = if numbers.below(4) == 0 { LIMIT_MAX } else { 50 };
        let limit = 1 + numbers.below(u64::from(limit)) as u32;
        let queries: Vec<Vec<f16>> = (0..batch)
            .map(|_| match numbers.below(4) {
                0 => rows.vectors[numbers.below(count as u64) as usize].clone(),
                _ => numbers.unit_vector(dimensions),
            })
            .collect();
        let filter: Vec<u32> = (0..count.div_ceil(32)).map(|_| (numbers.next() & numbers.next()) as u32).collect();
        let filter_of: Vec<u32> = (0..batch).map(|_| numbers.below(2) as u32).collect();
        let given: Vec<&[f16]> = queries.iter().map(Vec::as_slice).collect();
        let answer = gpu.search(&on_device, &given, limit, (vec![filter.clone()], filter_of.clone()), patience)?;
        for ((query, filter_of), found) in queries.iter().zip(&filter_of).zip(&answer.results) {
            let filter = (*filter_of == 1).then_some(&*filter);
            if let Some(fault) = rows.fault(query, limit as usize, filter, found)
                && report.wrong.len() < 100
            {
                report
                    .wrong
                    .push(format!("{count} × {dimensions} {format:?} {metric:?}, {limit} of {batch} queries: {fault}"));
            }
        }
        asked += batch;
    }
    report.cases += asked;
    gpu.unload(on_device)
}

/// Vectors in a file of memory, as the helper reads them.
fn file_of(vectors: &[f16]) -> Result<File, GpuError> {
    let write = || -> io::Result<File> {
        let mut file = File::from(rustix::fs::memfd_create("vectors", MemfdFlags::CLOEXEC)?);
        for part in vectors.chunks(1 << 20) {
            let bytes: Vec<u8> = part.iter().flat_map(|number| number.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        Ok(file)
    };
    write().map_err(GpuError::Memory)
}
