//! The vectors of one collection on the device, and how they follow the index.
//!
//! Invariants: rows are appended in order and never changed; removed rows are reported in batches, since searches
//! filter them anyway. A matrix of another generation is a different matrix.

use std::os::fd::AsFd as _;

use super::super::ones::ones;
use super::super::vector::Bits;
use super::service::Snapshot;
use super::{DeviceMatrix, Format, Gpu, GpuError, Metric};

/// Bytes that are loaded at a time, so that queries about other collections run in between.
const SLICE_BYTES: usize = 32 << 20;
/// Rows beyond those on the device that each search scans itself, before they are loaded.
const TAIL: usize = 1_024;
/// Removed rows that were not reported to the device yet.
const REMOVED: usize = 8;
/// Ranges of a message.
const RANGES_MAX: usize = 100_000;

/// A collection on the device.
pub(super) struct Resident {
    pub(super) matrix: DeviceMatrix,
    pub(super) generation: u64,
    pub(super) format: Format,
    /// Rows on the device.
    pub(super) rows: usize,
    dimensions: usize,
    /// The rows that are alive on the device.
    alive: Bits,
    /// Removed rows of the collection, and rows on the device, at the last comparison.
    compared: (usize, usize),
}

/// Bytes of a row on the device.
pub(super) fn row_bytes(format: Format, dimensions: usize) -> u64 {
    let number = match format {
        Format::F32 => 4,
        Format::F16 => 2,
        Format::I8 => 1,
    };
    (dimensions * number).next_multiple_of(32) as u64
}

impl Resident {
    /// Loads the first rows.
    pub(super) fn create(gpu: &mut Gpu, snapshot: &Snapshot, format: Format) -> Result<Self, GpuError> {
        let dimensions = snapshot.dimensions;
        let rows = snapshot.rows.min(slice(dimensions));
        let file = snapshot.file.as_fd();
        // All vectors are unit vectors, so the inner product is the cosine.
        let matrix = gpu.load(file, (format, Metric::Dot), dimensions as u32, rows as u32)?;
        let mut alive = Bits::default();
        alive.extend(rows);
        Ok(Self { matrix, generation: snapshot.generation, format, rows, dimensions, alive, compared: (0, 0) })
    }

    /// Loads a slice of the missing rows; returns whether all are there now.
    pub(super) fn proceed(&mut self, gpu: &mut Gpu, snapshot: &Snapshot) -> Result<bool, GpuError> {
        let rows = snapshot.rows.min(self.rows + slice(self.dimensions));
        if rows > self.rows {
            gpu.append(&mut self.matrix, rows as u32)?;
            self.alive.extend(rows - self.rows);
            self.rows = rows;
        }
        Ok(self.rows >= snapshot.rows)
    }

    /// Bytes that it will need in addition once all due rows are loaded.
    pub(super) fn growth(&self, snapshot: &Snapshot) -> u64 {
        let rows = snapshot.rows.saturating_sub(self.rows);
        if rows > TAIL { rows as u64 * row_bytes(self.format, self.dimensions) } else { 0 }
    }

    /// Updates the device if that is due and takes no longer than a query may wait. Returns whether it can answer.
    pub(super) fn follow(&mut self, gpu: &mut Gpu, snapshot: &Snapshot) -> Result<bool, GpuError> {
        if self.generation != snapshot.generation {
            return Ok(false);
        }
        if snapshot.rows.saturating_sub(self.rows) > TAIL && !self.proceed(gpu, snapshot)? {
            return Ok(false);
        }
        self.forget(gpu, snapshot)?;
        Ok(true)
    }

    /// Reports removed rows to the device, if there are more than a few.
    pub(super) fn forget(&mut self, gpu: &mut Gpu, snapshot: &Snapshot) -> Result<(), GpuError> {
        let removed = snapshot.rows - snapshot.live;
        let (known, rows) = self.compared;
        if removed == 0 || (removed < known + REMOVED && rows == self.rows) {
            return Ok(());
        }
        let gone = |index| self.alive.word(index) & !snapshot.alive.word(index);
        let gone: Vec<usize> = ones((0..self.rows.div_ceil(64)).map(gone)).collect();
        let mut ranges: Vec<[u32; 2]> = Vec::new();
        for row in gone {
            self.alive.remove(row);
            let row = row as u32;
            match ranges.last_mut() {
                Some(last) if last[1] == row => last[1] = row + 1,
                _ => ranges.push([row, row + 1]),
            }
        }
        for ranges in ranges.chunks(RANGES_MAX) {
            gpu.remove(&self.matrix, ranges.to_vec())?;
        }
        self.compared = (removed, self.rows);
        Ok(())
    }

    /// Bytes of the device's memory.
    pub(super) fn bytes(&self) -> u64 {
        self.matrix.bytes()
    }
}

fn slice(dimensions: usize) -> usize {
    (SLICE_BYTES / (dimensions * 2)).max(1)
}
