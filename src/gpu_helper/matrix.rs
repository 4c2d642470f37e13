//! The vectors of a collection in the device's memory.
//!
//! Invariants: rows are in tiles, each a buffer that one binding can hold and one dispatch can reach, in whole blocks
//! of 256 rows; within a block they are in chunks of 32 bytes, all rows' first chunk, then all rows' second: what 256
//! invocations read together is contiguous, and the chunks of 16 rows of halves are a matrix of 16 × 16. All tiles
//! except the last are full. A row that was never written is never admitted.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use wgpu::BufferUsages;

use crate::device::{DeviceError, Gpu};
use crate::kernels::BLOCK;
use crate::protocol::{Format, Metric};
use crate::search::Scratch;

/// Largest tile: even a small GPU reads this much within a few hundredths of a second, so that no driver's watchdog
/// triggers.
const TILE_BYTES_MAX: u64 = 1 << 30;
/// Rows of the first buffer of a tile; it doubles.
const ROWS_MIN: u32 = 4_096;
/// How many standard deviations of a component of a unit vector a byte can represent.
const SPREAD: f32 = 5.0;
/// Around this number only integers are representable as floats, so adding it rounds: ten times as fast as the
/// instruction that not every CPU has.
const TO_WHOLE: f32 = 12_582_912.0;

/// The content of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub format: Format,
    pub metric: Metric,
    /// Numbers of a vector.
    pub dimensions: u32,
}

pub(crate) struct Tile {
    pub(crate) vectors: wgpu::Buffer,
    /// Number of its first row, a multiple of 256.
    pub(crate) first: u32,
    pub(crate) rows: u32,
    capacity: u32,
}

/// Rows on the device.
pub struct DeviceMatrix {
    pub(crate) layout: Layout,
    pub(crate) tiles: Vec<Tile>,
    rows: u32,
    /// A bit for each row that was not removed.
    pub(crate) alive: Vec<u32>,
    /// Whether the device's bits are outdated.
    pub(crate) is_changed: bool,
    pub(crate) scratch: Scratch,
    tile_rows: u32,
}

impl Layout {
    /// Chunks of a row, 32 bytes each.
    pub fn chunks(self) -> u32 {
        self.dimensions.div_ceil(self.format.per_chunk())
    }

    /// Bytes of a row.
    pub fn row_bytes(self) -> u64 {
        u64::from(self.chunks()) * 32
    }

    /// A vector as words, padded with zeros to whole chunks.
    pub fn words(self, vector: &[f16], words: &mut Vec<u32>) {
        words.clear();
        let floats = || {
            let mut floats = vec![0f32; vector.len()];
            vector.convert_to_f32_slice(&mut floats);
            floats
        };
        match self.format {
            Format::F32 => words.extend(floats().into_iter().map(f32::to_bits)),
            Format::F16 => words.extend(vector.chunks(2).map(|pair| {
                u32::from(pair[0].to_bits()) | u32::from(pair.get(1).copied().unwrap_or(f16::ZERO).to_bits()) << 16
            })),
            Format::I8 => {
                let scale = 127.0 * (self.dimensions as f32).sqrt() / SPREAD;
                words.extend(floats().chunks(4).map(|four| {
                    let mut bytes = [0u8; 4];
                    for (byte, number) in bytes.iter_mut().zip(four) {
                        // Rounds to the nearest integer, ties to even; values that are too large are clamped.
                        *byte = ((number * scale).clamp(-128.0, 127.0) + TO_WHOLE - TO_WHOLE) as i8 as u8;
                    }
                    u32::from_le_bytes(bytes)
                }));
            }
        }
        words.resize(self.chunks() as usize * 8, 0);
    }
}

impl DeviceMatrix {
    /// An empty matrix.
    pub fn new(gpu: &Gpu, layout: Layout) -> Self {
        let bytes = TILE_BYTES_MAX.min(gpu.binding_bytes_max());
        let block_bytes = layout.row_bytes() * u64::from(BLOCK);
        let blocks = (bytes / block_bytes).clamp(1, u64::from(gpu.limits.max_compute_workgroups_per_dimension));
        let tile_rows = blocks as u32 * BLOCK;
        Self {
            layout,
            tiles: Vec::new(),
            rows: 0,
            alive: Vec::new(),
            is_changed: true,
            scratch: Scratch::default(),
            tile_rows,
        }
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Blocks of 256 rows, of which the last may have fewer.
    pub fn blocks(&self) -> u32 {
        self.rows.div_ceil(BLOCK)
    }

    /// Bytes of these.
    pub fn block_bytes(&self) -> u64 {
        u64::from(self.blocks() * BLOCK) * self.layout.row_bytes()
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.tiles.iter().map(|tile| u64::from(tile.capacity) * self.layout.row_bytes()).sum()
    }

    /// Removes rows from all later searches.
    pub fn remove(&mut self, rows: std::ops::Range<u32>) {
        self.is_changed = true;
        for row in rows.start..rows.end.min(self.rows) {
            self.alive[row as usize / 32] &= !(1 << (row % 32));
        }
    }

    /// Appends rows of `dimensions` numbers each: a few at a time, since they are copied twice.
    pub fn append(&mut self, gpu: &Gpu, vectors: &[f16]) -> Result<(), DeviceError> {
        let dimensions = self.layout.dimensions as usize;
        self.is_changed = true;
        self.scratch.forget_bindings();
        let mut rest = vectors;
        while !rest.is_empty() {
            let room = self.make_room(gpu, (rest.len() / dimensions) as u32)? as usize;
            let (now, later) = rest.split_at(room.min(rest.len() / dimensions) * dimensions);
            self.write(gpu, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Makes room for up to `wanted` rows in the last tile; returns for how many.
    fn make_room(&mut self, gpu: &Gpu, wanted: u32) -> Result<u32, DeviceError> {
        // A search needs a key of four bytes for each, in one binding.
        let most = gpu.binding_bytes_max() / 4 / u64::from(BLOCK) * u64::from(BLOCK);
        if u64::from(self.rows) + u64::from(wanted) > most {
            return Err(DeviceError::TooMany { most });
        }
        let tile_rows = self.tile_rows;
        if self.tiles.last().is_none_or(|tile| tile.rows == tile_rows) {
            let capacity = ROWS_MIN.max(wanted.next_multiple_of(BLOCK)).min(tile_rows);
            let vectors = self.buffer(gpu, capacity)?;
            self.tiles.push(Tile { vectors, first: self.rows, rows: 0, capacity });
        }
        let (rows, capacity) = self.tiles.last().map_or((0, 0), |tile| (tile.rows, tile.capacity));
        if capacity < tile_rows && rows + wanted > capacity {
            let roomier = (capacity.saturating_add(capacity / 4)).next_multiple_of(BLOCK);
            let larger = (rows + wanted).next_multiple_of(BLOCK).max(roomier).min(tile_rows);
            let vectors = self.buffer(gpu, larger)?;
            let bytes = u64::from(capacity) * self.layout.row_bytes();
            if let Some(tile) = self.tiles.last_mut() {
                gpu.checked(|| {
                    let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                    commands.copy_buffer_to_buffer(&tile.vectors, 0, &vectors, 0, bytes);
                    gpu.queue.submit([commands.finish()]);
                })?;
                (tile.vectors, tile.capacity) = (vectors, larger);
            }
        }
        Ok(self.tiles.last().map_or(0, |tile| tile.capacity - tile.rows))
    }

    fn buffer(&self, gpu: &Gpu, rows: u32) -> Result<wgpu::Buffer, DeviceError> {
        gpu.checked(|| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: u64::from(rows) * self.layout.row_bytes(),
                usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        })
    }

    /// Writes rows after the last one; the last tile has room for them.
    fn write(&mut self, gpu: &Gpu, vectors: &[f16]) -> Result<(), DeviceError> {
        let (layout, chunks) = (self.layout, self.layout.chunks() as usize);
        let Some(tile) = self.tiles.last_mut() else { return Ok(()) };
        let count = vectors.len() / layout.dimensions as usize;
        let mut rows = vectors.chunks_exact(layout.dimensions as usize);
        let mut words = Vec::new();
        let mut at = tile.rows as usize;
        let end = at + count;
        while at < end {
            let (block, start) = (at / BLOCK as usize, at % BLOCK as usize);
            let part = (BLOCK as usize - start).min(end - at);
            // Chunk by chunk; for a partly written block, each chunk's part separately.
            let mut packed = vec![0u8; chunks * part * 32];
            for (place, row) in rows.by_ref().take(part).enumerate() {
                layout.words(row, &mut words);
                for (chunk, eight) in words.chunks_exact(8).enumerate() {
                    let to = (chunk * part + place) * 32;
                    for (bytes, word) in packed[to..to + 32].chunks_exact_mut(4).zip(eight) {
                        bytes.copy_from_slice(&word.to_le_bytes());
                    }
                }
            }
            let offset = |chunk: usize| ((block * chunks + chunk) * BLOCK as usize + start) as u64 * 32;
            gpu.checked(|| {
                if part == BLOCK as usize {
                    gpu.queue.write_buffer(&tile.vectors, offset(0), &packed);
                } else {
                    for (chunk, bytes) in packed.chunks_exact(part * 32).enumerate() {
                        gpu.queue.write_buffer(&tile.vectors, offset(chunk), bytes);
                    }
                }
            })?;
            at += part;
        }
        tile.rows = end as u32;
        let first = self.rows;
        self.rows += count as u32;
        self.alive.resize(self.rows.div_ceil(32) as usize, 0);
        for row in first..self.rows {
            self.alive[row as usize / 32] |= 1 << (row % 32);
        }
        // The upload is copied now and its memory released, not with the next search.
        gpu.queue.submit([]);
        Ok(())
    }
}
