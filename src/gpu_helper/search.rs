//! A search on the device: upload the queries, score every tile, merge, read back.

use half::f16;
use wgpu::BufferUsages;

use crate::device::{DeviceError, Gpu};
use crate::kernels::{GROUP, Kernels, Shape};
use crate::matrix::DeviceMatrix;
use crate::protocol::{Format, LIMIT_MAX};

/// Most workgroups of a dispatch: enough for the largest GPU to hide what its memory takes to answer.
const GROUPS_MAX: u32 = 2_048;
/// Most entries that the lists of one pass hold: 16 MiB.
const ENTRIES_MAX: u32 = 1 << 21;

/// The best rows of each query with their scores, best first, equal scores by row. Scores of bytes are in the bytes' scale.
///
/// * `queries`: each of the matrix's dimensions.
/// * `limit`: 1 to [`LIMIT_MAX`].
/// * `filters`: bits of rows. `filter_of` says for each query which of them it may find, or `None` for all that are alive.
pub fn search(
    gpu: &Gpu,
    kernels: &mut Kernels,
    matrix: &DeviceMatrix,
    queries: &[&[f16]],
    limit: u32,
    filters: &[Vec<u32>],
    filter_of: &[Option<usize>],
) -> Result<Vec<Vec<(u32, f32)>>, DeviceError> {
    let limit = limit.clamp(1, LIMIT_MAX);
    let list = (limit + GROUP).next_power_of_two().max(512);
    let together = queries_together(gpu, matrix, queries.len(), list);
    let shape = Shape { format: matrix.layout.format, metric: matrix.layout.metric, queries: together, list };
    let words = matrix.alive().len().max(1);
    let mut admitted = matrix.alive().to_vec();
    admitted.resize(words, 0);
    for filter in filters {
        admitted
            .extend((0..words).map(|word| {
                filter.get(word).zip(matrix.alive().get(word)).map_or(0, |(filter, alive)| filter & alive)
            }));
    }
    let admitted = buffer_of(gpu, &admitted, BufferUsages::STORAGE)?;
    let passes: Vec<&[&[f16]]> = queries.chunks(together as usize).collect();
    let entries = u64::from(limit) * passes.len() as u64 * u64::from(together);
    let read = new_buffer(gpu, entries * 8, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
    let tiles = matrix.tiles.len().max(1) as u32;
    let groups_max = GROUPS_MAX.min(ENTRIES_MAX / (limit * together * tiles)).max(1);
    let groups: Vec<u32> = matrix.tiles.iter().map(|tile| tile.rows.div_ceil(GROUP).clamp(1, groups_max)).collect();
    let lists: u32 = groups.iter().sum();
    let mut last = None;
    for (pass, queries) in passes.iter().enumerate() {
        let mut words_of_queries: Vec<u32> = queries.iter().flat_map(|query| matrix.layout.query(query)).collect();
        words_of_queries.resize(words_of_queries.len() / queries.len() * together as usize, 0);
        let numbers = buffer_of(gpu, &words_of_queries, BufferUsages::STORAGE)?;
        let masks: Vec<u32> = (0..together as usize)
            .map(|query| {
                filter_of.get(pass * together as usize + query).copied().flatten().map_or(0, |filter| filter + 1)
            })
            .map(|filter| (filter * words) as u32)
            .collect();
        let known = buffer_of(gpu, &vec![0; together as usize], BufferUsages::STORAGE)?;
        let found = new_buffer(gpu, u64::from(lists.max(1) * limit * together) * 8, BufferUsages::STORAGE)?;
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut group = 0;
        for (tile, count) in matrix.tiles.iter().zip(&groups) {
            let blocks = tile.rows.div_ceil(GROUP);
            let of_tile =
                [tile.rows, blocks, matrix.layout.chunks(), *count, limit, tile.first, queries.len() as u32, group];
            let of_tile = buffer_of(gpu, &of_tile, BufferUsages::UNIFORM)?;
            let masks: Vec<u32> = masks.iter().map(|mask| mask + tile.first / 32).collect();
            let masks = buffer_of(gpu, &masks, BufferUsages::STORAGE)?;
            let pipeline = kernels.score(gpu, shape)?;
            let bindings = [&of_tile, &tile.vectors, &numbers, &admitted, &masks, &known, &found];
            dispatch(gpu, &mut commands, &pipeline, &bindings, *count)?;
            group += count;
        }
        let of_lists = buffer_of(gpu, &[lists, limit, together, 0], BufferUsages::UNIFORM)?;
        let own = new_buffer(gpu, u64::from(limit * together) * 8, BufferUsages::STORAGE | BufferUsages::COPY_SRC)?;
        let pipeline = kernels.merge(gpu, list)?;
        dispatch(gpu, &mut commands, &pipeline, &[&of_lists, &found, &own], together)?;
        commands.copy_buffer_to_buffer(&own, 0, &read, pass as u64 * own.size(), own.size());
        last = Some(gpu.checked(|| gpu.queue.submit([commands.finish()]))?);
    }
    let Some(submission) = last else { return Ok(Vec::new()) };
    read.map_async(wgpu::MapMode::Read, .., |_| {});
    gpu.wait(submission)?;
    let bytes = read.get_mapped_range(..).map_err(|error| DeviceError::Refused(error.to_string()))?;
    let entry = |bytes: &[u8]| {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (word(0), word(4))
    };
    let of_query = limit as usize * 8;
    Ok(bytes
        .chunks_exact(of_query)
        .take(queries.len())
        .map(|list| {
            let entries = list.chunks_exact(8).map(entry).take_while(|(key, _)| *key != 0);
            entries.map(|(key, row)| (row, score_of(key))).collect()
        })
        .collect())
}

/// Queries that are scored in one pass over the rows: as many as fit a workgroup's memory, and no more than there are.
fn queries_together(gpu: &Gpu, matrix: &DeviceMatrix, queries: usize, list: u32) -> u32 {
    let fits = |queries: u32| {
        let shape = Shape { format: Format::F16, metric: matrix.layout.metric, queries, list };
        shape.workgroup_bytes() <= gpu.limits.max_compute_workgroup_storage_size
    };
    [8, 4, 2]
        .into_iter()
        .find(|together| *together as usize <= queries.next_power_of_two() && fits(*together))
        .unwrap_or(1)
}

/// The score that a key was made from (see list.wgsl).
fn score_of(key: u32) -> f32 {
    f32::from_bits(if key & (1 << 31) != 0 { key & !(1 << 31) } else { !key })
}

fn new_buffer(gpu: &Gpu, size: u64, usage: BufferUsages) -> Result<wgpu::Buffer, DeviceError> {
    gpu.checked(|| {
        gpu.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    })
}

fn buffer_of(gpu: &Gpu, words: &[u32], usage: BufferUsages) -> Result<wgpu::Buffer, DeviceError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let buffer = new_buffer(gpu, bytes.len() as u64, usage | BufferUsages::COPY_DST)?;
    gpu.queue.write_buffer(&buffer, 0, &bytes);
    Ok(buffer)
}

fn dispatch(
    gpu: &Gpu,
    commands: &mut wgpu::CommandEncoder,
    pipeline: &wgpu::ComputePipeline,
    buffers: &[&wgpu::Buffer],
    groups: u32,
) -> Result<(), DeviceError> {
    gpu.checked(|| {
        let entries: Vec<_> = buffers
            .iter()
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
    })
}
