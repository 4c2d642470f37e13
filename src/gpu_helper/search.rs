//! A search on the device: upload the queries, score every row, select the best, read them back.
//!
//! Queries share a pass over the rows, up to 32 of them. A pass writes a key of 4 bytes for each of its queries and
//! rows. These keys use at most a quarter of the matrix's own memory, but 64 MiB are always allowed, and never more
//! than a binding can hold; as many queries as that allows share a pass, rounded down to a power of two.
//!
//! The buffers that a call needs besides the matrix are kept with it for the next call as [`Scratch`]; they grow when
//! they are too small, and keep their bindings. So a call allocates nothing, and its fixed cost is one upload, one
//! submission and one wait. Scratch is dropped with its matrix. It is bounded: the keys as above, the bits of filters
//! by a binding, the rest by the limits of a request.

use std::time::Duration;

use half::f16;
use wgpu::BufferUsages;

use crate::device::{DeviceError, Gpu};
use crate::kernels::{BLOCK, CHUNK_BYTES, Kernels, LIST_ENTRIES, SELECT_LANES, Shape, TOGETHER_MAX};
use crate::matrix::DeviceMatrix;
use crate::protocol::LIMIT_MAX;

/// Bytes of keys that every matrix may use, regardless of its size.
const KEYS_BYTES: u64 = 64 << 20;
/// Approximate bytes of a matrix that one submission reads: no driver's watchdog triggers before a small GPU has read
/// them.
const SUBMISSION_BYTES: u64 = 16 << 30;
/// Distance between two uniforms: a multiple of every device's alignment.
const SLOT_BYTES: usize = 256;
/// Bytes of the time stamps, which follow the results.
const STAMP_BYTES: u64 = 16;

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the filters take {bytes} bytes, and a binding of this device holds {most}")]
    Filters { bytes: u64, most: u64 },
}

/// The results of a search.
pub struct SearchOutcome {
    /// The best rows of each query with their scores, best first, equal scores by row. Scores of bytes are in the bytes' scale.
    pub results: Vec<Vec<(u32, f32)>>,
    /// From the start of the first kernel to the end of the last, if the device reports it.
    pub on_device: Option<Duration>,
    /// How many times the rows were read.
    pub passes: u32,
}

/// The parameters of a search.
pub struct SearchRequest<'a> {
    /// Each of the matrix's dimensions.
    pub queries: &'a [&'a [f16]],
    /// Rows of each query, 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Bits of rows.
    pub filters: &'a [Vec<u32>],
    /// For each query the filter that applies, or `None` for all live rows.
    pub filter_of: &'a [Option<usize>],
}

/// The buffers that searches of a matrix need besides it.
#[derive(Default)]
pub struct Scratch {
    /// Uniforms, followed by the queries.
    uploads: Option<wgpu::Buffer>,
    /// A bit for each row: live rows first, then each filter.
    admitted: Option<wgpu::Buffer>,
    keys: Option<wgpu::Buffer>,
    /// The best key of each block.
    best: Option<wgpu::Buffer>,
    found: Option<wgpu::Buffer>,
    /// The results that are read back, and the time stamps.
    read: Option<wgpu::Buffer>,
    stamps: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    bindings: Option<Bindings>,
}

/// The bindings of the buffers.
struct Bindings {
    tiles: Vec<wgpu::BindGroup>,
    selection: wgpu::BindGroup,
}

impl Scratch {
    /// The matrix's own buffers have changed.
    pub fn forget_bindings(&mut self) {
        self.bindings = None;
    }
}

/// The numbers of a call.
struct Plan {
    shape: Shape,
    limit: u32,
    /// Blocks of the matrix.
    blocks: u32,
    /// Maximum bytes of keys.
    granted: u64,
    /// Queries of a pass.
    together: u32,
    passes: usize,
    /// Words of the bits for all rows of all blocks.
    bit_words: usize,
    /// Bytes of the queries of a pass.
    pass_bytes: usize,
}

impl Plan {
    fn new(gpu: &Gpu, matrix: &DeviceMatrix, question: &SearchRequest<'_>) -> Self {
        let (layout, blocks) = (matrix.layout, matrix.blocks());
        let keys_bytes = u64::from(blocks * BLOCK) * 4;
        let granted = KEYS_BYTES.max(matrix.block_bytes() / 4).min(gpu.binding_bytes_max());
        let wanted = (question.queries.len() as u32).next_power_of_two().min(TOGETHER_MAX);
        let fits = |together: &u32| u64::from(*together) * keys_bytes <= granted;
        let together =
            (0..).map(|halved| wanted >> halved).find(|together| *together <= 1 || fits(together)).unwrap_or(1);
        Self {
            shape: Shape::new(gpu, layout.format, layout.metric, together),
            limit: question.limit.clamp(1, LIMIT_MAX),
            blocks,
            granted,
            together,
            passes: question.queries.len().div_ceil(together as usize),
            bit_words: (blocks * (BLOCK / 32)) as usize,
            pass_bytes: (layout.chunks() * CHUNK_BYTES * together) as usize,
        }
    }

    /// The offset of the queries, after a slot for each pass and tile and one for each selection.
    fn queries_at(&self, tiles: usize) -> usize {
        self.passes * (tiles + 1) * SLOT_BYTES
    }

    fn found_bytes(&self) -> u64 {
        u64::from(self.limit * self.together) * self.passes as u64 * 8
    }

    /// The uniforms of `keys.wgsl` and `select.wgsl`, in the order of their use, and the queries.
    fn uploads(&self, matrix: &DeviceMatrix, question: &SearchRequest<'_>) -> Vec<u8> {
        let queries_at = self.queries_at(matrix.tiles.len());
        let mut uploads = vec![0; queries_at + self.passes * self.pass_bytes];
        let (slots, numbers) = uploads.split_at_mut(queries_at);
        let mut slots = slots.chunks_exact_mut(SLOT_BYTES);
        let groups = (self.limit * 4).next_multiple_of(SELECT_LANES).min(LIST_ENTRIES);
        let together = self.together as usize;
        for pass in 0..self.passes {
            let masks = (0..together)
                .map(|query| question.filter_of.get(pass * together + query).copied().flatten())
                // Never beyond the existing bits, since the shader does not check it.
                .map(|filter| filter.map_or(0, |filter| (filter + 1).min(question.filters.len())))
                .map(|part| (part * self.bit_words) as u32);
            let queries = (queries_at + pass * self.pass_bytes) / 16;
            for (tile, slot) in matrix.tiles.iter().zip(&mut slots) {
                let tile = [matrix.layout.chunks(), tile.first / BLOCK, self.blocks, queries as u32];
                put(slot, tile.into_iter().chain(masks.clone()));
            }
            if let Some(slot) = slots.next() {
                put(slot, [self.blocks, self.limit, groups, pass as u32 * self.together * self.limit]);
            }
        }
        // Chunk by chunk, with all queries' chunks next to each other.
        let chunk_bytes = CHUNK_BYTES as usize;
        let mut words = Vec::new();
        let passes = question.queries.chunks(together).zip(numbers.chunks_exact_mut(self.pass_bytes));
        for (queries, numbers) in passes {
            for (query, vector) in queries.iter().enumerate() {
                matrix.layout.words(vector, &mut words);
                let chunks = numbers.chunks_exact_mut(together * chunk_bytes).zip(words.chunks_exact(chunk_bytes / 4));
                for (chunk, words) in chunks {
                    put(&mut chunk[query * chunk_bytes..(query + 1) * chunk_bytes], words.iter().copied());
                }
            }
        }
        uploads
    }

    /// The bits of live rows, and of those that filters admit, for whole blocks: rows that do not exist have none.
    fn bits(&self, alive: &[u32], filters: &[Vec<u32>]) -> Vec<u8> {
        let mut bits = vec![0; (filters.len() + 1) * self.bit_words * 4];
        let mut parts = bits.chunks_exact_mut(self.bit_words * 4);
        if let Some(part) = parts.next() {
            put(part, alive.iter().copied());
        }
        for (part, filter) in parts.zip(filters) {
            put(part, filter.iter().zip(alive).map(|(filter, alive)| filter & alive));
        }
        bits
    }
}

/// Writes words in the device's format; surplus ones are left out.
fn put(bytes: &mut [u8], words: impl IntoIterator<Item = u32>) {
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// The best rows of each query.
pub fn search(
    gpu: &Gpu,
    kernels: &mut Kernels,
    matrix: &mut DeviceMatrix,
    question: &SearchRequest<'_>,
) -> Result<SearchOutcome, SearchError> {
    let count = question.queries.len();
    if matrix.blocks() == 0 || count == 0 {
        return Ok(SearchOutcome { results: vec![Vec::new(); count], on_device: None, passes: 0 });
    }
    let plan = Plan::new(gpu, matrix, question);
    let (bits_bytes, most) = ((question.filters.len() as u64 + 1) * plan.bit_words as u64 * 4, gpu.binding_bytes_max());
    if bits_bytes > most {
        return Err(SearchError::Filters { bytes: bits_bytes, most });
    }
    let score = kernels.score(gpu, plan.shape)?;
    let uploads = plan.uploads(matrix, question);
    let submitted = gpu.checked(|| {
        let buffers = buffers(gpu, &mut matrix.scratch, &plan, uploads.len() as u64, bits_bytes);
        gpu.queue.write_buffer(&buffers.uploads, 0, &uploads);
        if buffers.is_admitted_new || matrix.is_changed || !question.filters.is_empty() {
            let bits = plan.bits(&matrix.alive, question.filters);
            gpu.queue.write_buffer(&buffers.admitted, 0, &bits);
            matrix.is_changed = false;
        }
        let bindings = matrix.scratch.bindings.take().unwrap_or_else(|| bind(gpu, kernels, &buffers, matrix));
        let submission = submit(gpu, (&score, kernels.select()), &plan, &buffers, &bindings, matrix, count);
        matrix.scratch.bindings = Some(bindings);
        buffers.read.map_async(wgpu::MapMode::Read, ..plan.found_bytes() + STAMP_BYTES, |_| {});
        (submission, buffers.read, buffers.stamps.is_some())
    });
    let (submission, read, has_stamps) = submitted.inspect_err(|_| matrix.scratch = Scratch::default())?;
    gpu.wait(submission)?;
    let view = read
        .get_mapped_range(..plan.found_bytes() + STAMP_BYTES)
        .map_err(|error| DeviceError::Refused(error.to_string()))?;
    let (found, stamps) = view.split_at(plan.found_bytes() as usize);
    let on_device = has_stamps.then(|| {
        let ticks = long(&stamps[8..]).saturating_sub(long(stamps));
        Duration::from_nanos((ticks as f64 * f64::from(gpu.queue.get_timestamp_period())) as u64)
    });
    let lists = found.chunks_exact(plan.limit as usize * 8).take(count);
    let results = lists
        .map(|list| {
            let entries = list.chunks_exact(8).map(|entry| (word(entry), word(&entry[4..])));
            entries.take_while(|(key, _)| *key != 0).map(|(key, row)| (row, score_of(key))).collect()
        })
        .collect();
    drop(view);
    read.unmap();
    Ok(SearchOutcome { results, on_device, passes: plan.passes as u32 })
}

/// The buffers of a call.
struct Buffers {
    uploads: wgpu::Buffer,
    admitted: wgpu::Buffer,
    keys: wgpu::Buffer,
    best: wgpu::Buffer,
    found: wgpu::Buffer,
    read: wgpu::Buffer,
    stamps: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    is_admitted_new: bool,
}

/// Reuses buffers that are large enough, and replaces the others.
fn buffers(gpu: &Gpu, scratch: &mut Scratch, plan: &Plan, uploads_bytes: u64, bits_bytes: u64) -> Buffers {
    let bindings = &mut scratch.bindings;
    let most = gpu.binding_bytes_max() & !(SLOT_BYTES as u64 - 1);
    let mut grown = |buffer: &mut Option<wgpu::Buffer>, bytes: u64, most: u64, usage: BufferUsages| {
        if let Some(buffer) = buffer.as_ref().filter(|buffer| buffer.size() >= bytes) {
            return (buffer.clone(), false);
        }
        *bindings = None;
        // Half as large again, so that a growing matrix does not need a new one each time; the old one is dropped
        // first.
        *buffer = None;
        let size = (bytes + bytes / 2).next_multiple_of(SLOT_BYTES as u64).min(most).max(bytes);
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        (buffer.insert(gpu.device.create_buffer(&descriptor)).clone(), true)
    };
    let storage = BufferUsages::STORAGE;
    let keys_bytes = u64::from(plan.blocks * BLOCK) * 4 * u64::from(plan.together);
    let of_uploads = storage | BufferUsages::UNIFORM | BufferUsages::COPY_DST;
    let (uploads, _) = grown(&mut scratch.uploads, uploads_bytes, most, of_uploads);
    let (admitted, is_admitted_new) = grown(&mut scratch.admitted, bits_bytes, most, storage | BufferUsages::COPY_DST);
    let (keys, _) = grown(&mut scratch.keys, keys_bytes, plan.granted & !(SLOT_BYTES as u64 - 1), storage);
    let (best, _) = grown(&mut scratch.best, u64::from(plan.blocks * plan.together) * 4, most, storage);
    let (found, _) = grown(&mut scratch.found, plan.found_bytes(), most, storage | BufferUsages::COPY_SRC);
    let of_read = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
    let (read, _) = grown(&mut scratch.read, plan.found_bytes() + STAMP_BYTES, most, of_read);
    if scratch.stamps.is_none() && gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        let ty = wgpu::QueryType::Timestamp;
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count: 2 });
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: None, size: STAMP_BYTES, usage, mapped_at_creation: false };
        scratch.stamps = Some((set, gpu.device.create_buffer(&descriptor)));
    }
    Buffers { uploads, admitted, keys, best, found, read, stamps: scratch.stamps.clone(), is_admitted_new }
}

fn bind(gpu: &Gpu, kernels: &Kernels, buffers: &Buffers, matrix: &DeviceMatrix) -> Bindings {
    let bound = |layout: &wgpu::BindGroupLayout, buffers: &[wgpu::BindingResource<'_>]| {
        let entries: Vec<_> = buffers
            .iter()
            .zip(0..)
            .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource: resource.clone() })
            .collect();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
    };
    let slot =
        wgpu::BufferBinding { buffer: &buffers.uploads, offset: 0, size: wgpu::BufferSize::new(SLOT_BYTES as u64) };
    let slot = wgpu::BindingResource::Buffer(slot);
    let [uploads, admitted, keys, best, found] =
        [&buffers.uploads, &buffers.admitted, &buffers.keys, &buffers.best, &buffers.found]
            .map(wgpu::Buffer::as_entire_binding);
    let tiles = matrix.tiles.iter().map(|tile| {
        let vectors = tile.vectors.as_entire_binding();
        let resources = [slot.clone(), vectors, uploads.clone(), admitted.clone(), keys.clone(), best.clone()];
        bound(&kernels.score_bindings, &resources)
    });
    let tiles = tiles.collect();
    Bindings { tiles, selection: bound(&kernels.select_bindings, &[slot, keys, best, found]) }
}

/// Submits all work of a call; usually in one submission, see [`SUBMISSION_BYTES`]. Returns the last one, which must be
/// awaited.
fn submit(
    gpu: &Gpu,
    (score, select): (&wgpu::ComputePipeline, &wgpu::ComputePipeline),
    plan: &Plan,
    buffers: &Buffers,
    bindings: &Bindings,
    matrix: &DeviceMatrix,
    queries: usize,
) -> Option<wgpu::SubmissionIndex> {
    let at_once = (SUBMISSION_BYTES / matrix.block_bytes().max(1)).max(1) as usize;
    let mut slots = (0..).step_by(SLOT_BYTES);
    let mut submission = None;
    for start in (0..plan.passes).step_by(at_once) {
        let end = (start + at_once).min(plan.passes);
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let (is_first, is_last) = (start == 0, end == plan.passes);
        let stamps = buffers.stamps.as_ref();
        let writes = stamps.filter(|_| is_first || is_last).map(|(set, _)| wgpu::ComputePassTimestampWrites {
            query_set: set,
            beginning_of_pass_write_index: is_first.then_some(0),
            end_of_pass_write_index: is_last.then_some(1),
        });
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
        let mut work = commands.begin_compute_pass(&descriptor);
        for pass in start..end {
            work.set_pipeline(score);
            for (tile, bindings) in matrix.tiles.iter().zip(&bindings.tiles) {
                work.set_bind_group(0, bindings, &[slots.next().unwrap_or(0)]);
                work.dispatch_workgroups(tile.rows.div_ceil(BLOCK), 1, 1);
            }
            work.set_pipeline(select);
            work.set_bind_group(0, &bindings.selection, &[slots.next().unwrap_or(0)]);
            work.dispatch_workgroups(
                (queries - pass * plan.together as usize).min(plan.together as usize) as u32,
                1,
                1,
            );
        }
        drop(work);
        if is_last {
            commands.copy_buffer_to_buffer(&buffers.found, 0, &buffers.read, 0, plan.found_bytes());
            if let Some((set, stamps)) = stamps {
                commands.resolve_query_set(set, 0..2, stamps, 0);
                commands.copy_buffer_to_buffer(stamps, 0, &buffers.read, plan.found_bytes(), STAMP_BYTES);
            }
        }
        submission = Some(gpu.queue.submit([commands.finish()]));
    }
    submission
}

/// The score that a key was made from (see keys.wgsl).
fn score_of(key: u32) -> f32 {
    f32::from_bits(if key & (1 << 31) != 0 { key & !(1 << 31) } else { !key })
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn long(bytes: &[u8]) -> u64 {
    u64::from(word(bytes)) | u64::from(word(&bytes[4..])) << 32
}
