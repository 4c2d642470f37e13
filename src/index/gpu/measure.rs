//! Compares the speed of a device with this machine's CPU: the figures of `cairn gpu bench`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;

use super::selftest::Numbers;
use super::{Format, Gpu, GpuError, Metric, QUERIES_MAX};
use crate::index::vector::inner_product;
use half::f16;

const LIMIT: u32 = 10;
/// Rounds of each batch, and their total time at most.
const ROUNDS: usize = 200;
const ROUNDS_MIN: usize = 5;
const TIME: Duration = Duration::from_secs(3);
/// How long each kind runs before it is measured: an idle card needs that long to raise its clock.
const WARM: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(120);
/// Rows that a core makes at a time.
const ROWS_AT_ONCE: usize = 4_096;

/// One kind of search.
#[derive(Debug)]
pub struct Measured {
    /// The device.
    pub what: &'static str,
    /// Queries at once.
    pub batch: usize,
    /// Time of a batch, from request to answer.
    pub median: Duration,
    /// The 99th percentile of the rounds.
    pub worst: Duration,
    /// The device's part of it, the median; if it reports that.
    pub on_device: Option<Duration>,
    /// Bytes of all vectors.
    bytes: u64,
    /// How many times they were read for a batch.
    passes: u32,
}

impl Measured {
    /// Bytes of vectors read each second of device time; of total time if the device does not report it.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 * f64::from(self.passes) / self.on_device.unwrap_or(self.median).as_secs_f64()
    }
}

/// What is measured.
#[derive(Debug)]
pub struct Bench {
    /// Random vectors.
    pub rows: u32,
    /// Numbers of each.
    pub dimensions: u32,
    /// Queries at once, 1 to [`QUERIES_MAX`].
    pub batches: Vec<usize>,
    /// The format on the device.
    pub formats: Vec<Format>,
}

impl Bench {
    /// Measures exact searches for the ten nearest.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&self, gpu: &mut Gpu, mut tell: impl FnMut(&str)) -> Result<Vec<Measured>, GpuError> {
        let dimensions = self.dimensions as usize;
        tell("making vectors");
        let (vectors, file) = self.vectors().map_err(GpuError::Memory)?;
        let mut numbers = Numbers(7);
        let queries: Vec<Vec<f16>> = (0..QUERIES_MAX).map(|_| numbers.unit_vector(dimensions)).collect();
        let mut measured = Vec::new();
        for format in &self.formats {
            let (what, number_bytes) = match format {
                Format::F32 => ("GPU, floats", 4),
                Format::F16 => ("GPU, halves", 2),
                Format::I8 => ("GPU, bytes", 1),
            };
            tell(what);
            let matrix = gpu.load(file.as_fd(), (*format, Metric::Dot), self.dimensions, self.rows)?;
            for batch in &self.batches {
                let given: Vec<&[f16]> = queries.iter().take(*batch).map(Vec::as_slice).collect();
                let mut on_device = Vec::new();
                let mut passes = 1;
                // The first search compiles the shader.
                let times = rounds(|| {
                    let answer = gpu.search(&matrix, &given, LIMIT, (Vec::new(), vec![0; given.len()]), PATIENCE)?;
                    on_device.extend(answer.on_device);
                    passes = answer.passes;
                    Ok(())
                })?;
                // The previous ones were the warm-up.
                let mut on_device = on_device.split_off(on_device.len().saturating_sub(times.len()));
                on_device.sort_unstable();
                measured.push(Measured {
                    on_device: on_device.get(on_device.len() / 2).copied(),
                    passes,
                    ..of(what, given.len(), times, vectors.len() as u64 * number_bytes)
                });
            }
            gpu.unload(matrix)?;
        }
        tell("CPU, one core");
        let times = rounds(|| {
            let query = &queries[0];
            let best = vectors.chunks_exact(dimensions).map(|row| inner_product(row, query)).fold(0.0, f32::max);
            std::hint::black_box(best);
            Ok(())
        })?;
        measured.push(of("CPU, one core", 1, times, vectors.len() as u64 * 2));
        Ok(measured)
    }

    /// Random vectors, also in a file in memory; generated on all cores.
    fn vectors(&self) -> io::Result<(Vec<f16>, File)> {
        let dimensions = self.dimensions as usize;
        let file = File::from(rustix::fs::memfd_create("vectors", MemfdFlags::CLOEXEC)?);
        let mut vectors = vec![f16::ZERO; self.rows as usize * dimensions];
        let at_once = ROWS_AT_ONCE * dimensions;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let of_core = (vectors.len().div_ceil(at_once).div_ceil(cores) * at_once).max(1);
        thread::scope(|scope| {
            let makers: Vec<_> = vectors
                .chunks_mut(of_core)
                .enumerate()
                .map(|(core, of_core_rows)| {
                    let file = &file;
                    scope.spawn(move || {
                        let mut numbers = Numbers(core as u64 + 1);
                        for (part, rows) in of_core_rows.chunks_mut(at_once).enumerate() {
                            for row in rows.chunks_exact_mut(dimensions) {
                                row.copy_from_slice(&numbers.unit_vector(dimensions));
                            }
                            let bytes: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
                            file.write_all_at(&bytes, (core * of_core + part * at_once) as u64 * 2)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            makers.into_iter().try_for_each(|maker| {
                maker.join().unwrap_or_else(|_| Err(io::Error::other("a thread that made vectors panicked")))
            })
        })?;
        Ok((vectors, file))
    }
}

fn rounds(mut round: impl FnMut() -> Result<(), GpuError>) -> Result<Vec<Duration>, GpuError> {
    round()?;
    let warm = Instant::now();
    while warm.elapsed() < WARM {
        round()?;
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < ROUNDS && (times.len() < ROUNDS_MIN || begun.elapsed() < TIME) {
        let start = Instant::now();
        round()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn of(what: &'static str, batch: usize, times: Vec<Duration>, bytes: u64) -> Measured {
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    Measured { what, batch, median: at(0.5), worst: at(0.99), on_device: None, bytes, passes: 1 }
}
