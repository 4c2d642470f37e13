//! How fast a device searches, beside this machine's CPU: what `cairn gpu bench` shows.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::selftest::{Numbers, file_of};
use super::{Format, Gpu, GpuError, Metric};
use crate::index::vector::inner_product;
use half::f16;

/// Queries of a batch.
const BATCHES: [usize; 4] = [1, 8, 64, 256];
const LIMIT: u32 = 10;
/// Rounds of each batch, and how long they may take together.
const ROUNDS: usize = 200;
const ROUNDS_MIN: usize = 5;
const TIME: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// One kind of search.
#[derive(Debug)]
pub struct Measured {
    /// What searched.
    pub what: &'static str,
    /// Queries at once.
    pub batch: usize,
    /// Of a batch, from asking to having the answer.
    pub median: Duration,
    /// The 99th percentile of the rounds.
    pub worst: Duration,
    /// Bytes of all vectors.
    bytes: u64,
}

impl Measured {
    /// Bytes of all vectors in the time of a batch: what was read each second where a batch shares one pass over them, and less than that
    /// where it takes several.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.median.as_secs_f64()
    }
}

/// Measures exact searches among `rows` random vectors.
///
/// # Errors
/// When the device fails.
pub fn run(gpu: &mut Gpu, rows: u32, dimensions: u32, mut tell: impl FnMut(&str)) -> Result<Vec<Measured>, GpuError> {
    let mut numbers = Numbers(7);
    let count = rows as usize * dimensions as usize;
    tell("making vectors");
    let vectors: Vec<f16> = (0..rows).flat_map(|_| numbers.unit_vector(dimensions as usize)).collect();
    let file = file_of(&vectors)?;
    let queries: Vec<Vec<f16>> = (0..256).map(|_| numbers.unit_vector(dimensions as usize)).collect();
    let mut measured = Vec::new();
    for (what, format, bytes) in [("GPU, halves", Format::F16, 2), ("GPU, bytes", Format::I8, 1)] {
        tell(what);
        let matrix = gpu.load(file.as_fd(), (format, Metric::Dot), dimensions, rows)?;
        for batch in BATCHES {
            let given: Vec<&[f16]> = queries.iter().take(batch).map(Vec::as_slice).collect();
            // The first compiles the shader.
            gpu.search(&matrix, &given, LIMIT, (Vec::new(), vec![0; batch]), PATIENCE)?;
            let mut failed = None;
            let times = rounds(|| {
                let answer = gpu.search(&matrix, &given, LIMIT, (Vec::new(), vec![0; batch]), PATIENCE);
                failed = failed.take().or(answer.err());
            });
            if let Some(error) = failed {
                return Err(error);
            }
            measured.push(of(what, batch, times, count as u64 * bytes));
        }
        gpu.unload(matrix)?;
    }
    tell("CPU, one core");
    let times = rounds(|| {
        let query = &queries[0];
        let best = vectors.chunks_exact(dimensions as usize).map(|row| inner_product(row, query)).fold(0.0, f32::max);
        std::hint::black_box(best);
    });
    measured.push(of("CPU, one core", 1, times, count as u64 * 2));
    Ok(measured)
}

fn rounds(mut round: impl FnMut()) -> Vec<Duration> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < ROUNDS && (times.len() < ROUNDS_MIN || begun.elapsed() < TIME) {
        let start = Instant::now();
        round();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}

fn of(what: &'static str, batch: usize, times: Vec<Duration>, bytes: u64) -> Measured {
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    Measured { what, batch, median: at(0.5), worst: at(0.99), bytes }
}
