//! The shaders, assembled for each kind of search, and compiled on first use.
//!
//! A search runs two. One of two scores: `score.wgsl` anything anywhere, and `tiles.wgsl` inner products of halves for
//! sixteen queries and more, where the device multiplies matrices. `select.wgsl` then finds the best scores.
//!
//! They are compiled without checks (see `unchecked.rs`), so the following must hold, and does for all vectors, queries
//! and filters:
//!
//! * All reads and writes are within their buffers. Block numbers are below a tile's number of blocks, because that
//!   many workgroups are dispatched, and rows are in whole blocks; all other indices are computed from numbers in
//!   `search.rs`, which creates the buffers with the same numbers. Values that a shader writes and later uses as an
//!   index (positions in lists, block numbers) are checked where they are written.
//! * Each loop counts up to a limit that does not change, or halves or doubles a number; `select.wgsl` documents the
//!   one that does neither.
//! * Nothing is divided by a number that may be 0.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::device::{DeviceError, Gpu};
use crate::protocol::{Format, Metric};
use crate::unchecked;

const KEYS: &str = include_str!("kernels/keys.wgsl");
const SCORE: &str = include_str!("kernels/score.wgsl");
const TILES: &str = include_str!("kernels/tiles.wgsl");
const LIST: &str = include_str!("kernels/list.wgsl");
const SELECT: &str = include_str!("kernels/select.wgsl");

/// Rows of a block.
pub const BLOCK: u32 = 256;
/// Bytes of a chunk: the contiguous part of a row.
pub const CHUNK_BYTES: u32 = 32;
/// Maximum queries of a pass: their accumulators still fit the registers.
pub const TOGETHER_MAX: u32 = 32;
/// Queries of a matrix that the device multiplies, and rows.
const TILE: u32 = 16;
/// Invocations of the workgroup that selects.
pub const SELECT_LANES: u32 = 256;
/// Entries of its list.
pub const LIST_ENTRIES: u32 = 1_536;

/// The parameters of a scoring shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    format: Format,
    metric: Metric,
    /// Queries that are scored together: a power of two up to [`TOGETHER_MAX`].
    queries: u32,
    /// Uses the matrix units.
    has_tiles: bool,
}

impl Format {
    /// Numbers of a chunk.
    pub fn per_chunk(self) -> u32 {
        match self {
            Self::F32 => 8,
            Self::F16 => 16,
            Self::I8 => 32,
        }
    }
}

impl Shape {
    /// The fastest variant on the device. Measured on an H200 with 1,000,000 × 384 halves: for up to 8 queries the
    /// matrix units are no faster, for 32 they take 330 µs and `score.wgsl` 780 µs.
    pub fn new(gpu: &Gpu, format: Format, metric: Metric, queries: u32) -> Self {
        let has_tiles = gpu.has_tiles() && (format, metric) == (Format::F16, Metric::Dot) && queries >= TILE;
        Self { format, metric, queries, has_tiles }
    }

    /// The shader's text.
    pub fn source(self) -> String {
        if self.has_tiles { self.tiles_source() } else { self.plain_source() }
    }

    fn plain_source(self) -> String {
        let Self { format, metric, queries, .. } = self;
        // With two rows for each invocation, half as much of the queries is read for each row; for a single query there
        // is little to read, and twice as many invocations have more reads in flight. More of either was slower.
        let (rows, ahead) = if queries == 1 { (1, 2) } else { (2, 1) };
        let lanes = BLOCK / rows;
        // vec4s of a query for each chunk, once they are floats, and of half a chunk.
        let vectors = if format == Format::F16 { 4 } else { 2 };
        let halves = vectors / 2;
        let (number, zero) = if format == Format::I8 { ("u32", "0i") } else { ("f32", "0.0") };
        let each_row = |line: &dyn Fn(u32) -> String| (0..rows).map(line).collect::<String>();
        let each_query = |lines: &dyn Fn(u32) -> String| (0..queries).map(lines).collect::<String>();

        let mut begin = each_query(&|q| each_row(&|r| format!("var score{q}_{r} = {zero};\n")));
        if metric == Metric::Cosine {
            begin += &each_row(&|r| format!("var norm{r} = {zero};\n"));
        }
        let staged = match format {
            Format::F32 => "staged[place] = bitcast<vec4<f32>>(words);",
            Format::F16 => {
                "staged[2u * place] = vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));\n\
                 staged[2u * place + 1u] = vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w));"
            }
            Format::I8 => "staged[place] = words;",
        };
        let unpack = |r: u32, words: &str| match format {
            Format::F32 => format!("let a{r} = bitcast<vec4<f32>>({words});\n"),
            Format::F16 => format!(
                "let a{r} = vec4<f32>(unpack2x16float({words}.x), unpack2x16float({words}.y));\n\
                 let b{r} = vec4<f32>(unpack2x16float({words}.z), unpack2x16float({words}.w));\n"
            ),
            Format::I8 => format!("let a{r} = {words};\n"),
        };
        let add = if metric == Metric::L2 { "apart" } else { "product" };
        let names = &["a", "b"][..halves as usize];
        let half_chunk = |c: u32, half: u32| {
            let mut text = format!("{{\nlet place = (chunk + {c}u - stage) * {}u;\n", queries * vectors);
            text += &each_row(&|r| unpack(r, &format!("w{c}_{r}_{half}")));
            if metric == Metric::Cosine {
                for name in names {
                    text += &each_row(&|r| format!("norm{r} = product({name}{r}, {name}{r}, norm{r});\n"));
                }
            }
            text += &each_query(&|q| {
                let mut lines = "{\n".to_owned();
                for (place, name) in (q * vectors + half * halves..).zip(names) {
                    lines += &format!("let {name} = staged[place + {place}u];\n");
                    lines += &each_row(&|r| format!("score{q}_{r} = {add}({name}{r}, {name}, score{q}_{r});\n"));
                }
                lines + "}\n"
            });
            text + "}\n"
        };
        let chunks = |ahead: u32| {
            let mut text = String::new();
            for c in 0..ahead {
                text += &each_row(&|r| {
                    let place = format!("base + (chunk + {c}u) * 512u + {}u", r * lanes * 2);
                    format!("let w{c}_{r}_0 = vectors[{place}];\nlet w{c}_{r}_1 = vectors[{place} + 1u];\n")
                });
            }
            for c in 0..ahead {
                text += &(half_chunk(c, 0) + &half_chunk(c, 1));
            }
            text
        };
        let score = |q: u32, r: u32| match metric {
            Metric::Cosine => format!("f32(score{q}_{r}) * inverseSqrt(max(f32(norm{r}), 1e-30))"),
            Metric::Dot | Metric::L2 => format!("f32(score{q}_{r})"),
        };
        let offer = words(rows) + &each_query(&|q| offers(q, rows, lanes, &|r| score(q, r)));
        let body = SCORE
            .replace("//BEGIN", &begin)
            .replace("//STAGED", staged)
            .replace("//AHEAD", &chunks(ahead))
            .replace("//ONE", &chunks(1))
            .replace("//OFFER", &offer);
        // At most 8 KiB, of the 16 that every device has.
        let stage = (128 / queries).clamp(4, 8);
        let numbers = if format == Format::I8 { BYTES } else { NUMBERS };
        format!(
            "const QUERIES = {queries}u;\nconst LANES = {lanes}u;\nconst VECTORS = {vectors}u;\nconst STAGE = {stage}u;\n\
             const AHEAD = {ahead}u;\nalias Number = {number};\n{numbers}{KEYS}{body}"
        )
    }

    fn tiles_source(self) -> String {
        let queries = self.queries;
        let sets = queries / TILE;
        // Tiles of a subgroup, and chunks that are read at once.
        let (share, ahead) = (4, 2);
        let lanes = 32 * (BLOCK / TILE / share);
        let rows = BLOCK / lanes;
        let mut begin = String::new();
        for s in 0..sets {
            begin += &(0..share).map(|t| format!("var sum{s}_{t} = Sums();\n")).collect::<String>();
        }
        let chunks = |ahead: u32| {
            let mut text = String::new();
            for c in 0..ahead {
                for t in 0..share {
                    let place = c * BLOCK * TILE + t * TILE * TILE;
                    text += &format!("let a{c}_{t} = coopLoadT<Rows>(&vectors[rows + {place}u], 16u);\n");
                }
            }
            for c in 0..ahead {
                for s in 0..sets {
                    let place = (c * sets + s) * TILE * TILE;
                    text += &format!("let b{c}_{s} = coopLoad<Queries>(&queries[query + {place}u], 16u);\n");
                    for t in 0..share {
                        text += &format!("sum{s}_{t} = coopMultiplyAdd(a{c}_{t}, b{c}_{s}, sum{s}_{t});\n");
                    }
                }
            }
            text
        };
        let mut offer = words(rows);
        for s in 0..sets {
            offer += "workgroupBarrier();\n";
            for t in 0..share {
                offer += &format!("coopStore(sum{s}_{t}, &sums[(subgroup * SHARE + {t}u) * 16u], STRIDE);\n");
            }
            offer += "workgroupBarrier();\n";
            for q in 0..TILE {
                let sum = |r: u32| format!("sums[{q}u * STRIDE + lane + {}u]", r * lanes);
                offer += &offers(s * TILE + q, rows, lanes, &sum);
            }
        }
        let body = TILES
            .replace("//BEGIN", &begin)
            .replace("//AHEAD", &chunks(ahead))
            .replace("//ONE", &chunks(1))
            .replace("//OFFER", &offer);
        format!(
            "enable f16;\nenable wgpu_cooperative_matrix;\nconst QUERIES = {queries}u;\nconst LANES = {lanes}u;\n\
             const SETS = {sets}u;\nconst AHEAD = {ahead}u;\nconst SHARE = {share}u;\n{KEYS}{body}"
        )
    }
}

/// The bits of a lane's rows, read when they differ from those of the previous query.
fn words(rows: u32) -> String {
    let words = (0..rows).map(|r| format!("var word{r} = 0u;\n")).collect::<String>();
    format!("var mask = NO_MASK;\n{words}")
}

/// Offers the scores of a lane's rows for a query.
fn offers(query: u32, rows: u32, lanes: u32, score: &dyn Fn(u32) -> String) -> String {
    let mut text = format!("if mask_of({query}u) != mask {{\nmask = mask_of({query}u);\n");
    for r in 0..rows {
        text += &format!("word{r} = admitted[mask + (row + {}u) / 32u];\n", r * lanes);
    }
    text += "}\n{\nvar key = 0u;\n";
    for r in 0..rows {
        text += &format!("key = max(key, offer({query}u, {}, row + {}u, word{r}));\n", score(r), r * lanes);
    }
    text + &format!("atomicMax(&most[{query}], key);\n}}\n")
}

/// Adds a chunk's part to a score: each multiply-add is one instruction.
const NUMBERS: &str = "
fn product(a: vec4<f32>, b: vec4<f32>, score: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, score))));
}
fn apart(a: vec4<f32>, b: vec4<f32>, score: f32) -> f32 {
    let d = a - b;
    return product(-d, d, score);
}
";

/// The same for packed bytes. Four products and their sum are one instruction where the device has it.
const BYTES: &str = "
fn product(a: vec4<u32>, b: vec4<u32>, score: i32) -> i32 {
    return score + dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}
fn apart(a: vec4<u32>, b: vec4<u32>, score: i32) -> i32 {
    return score - product(a, a, product(b, b, 0i)) + 2i * product(a, b, 0i);
}
";

/// The shaders that were compiled so far, and their bindings.
pub struct Kernels {
    pub score_bindings: wgpu::BindGroupLayout,
    pub select_bindings: wgpu::BindGroupLayout,
    score_layout: wgpu::PipelineLayout,
    score: HashMap<Shape, wgpu::ComputePipeline>,
    select: wgpu::ComputePipeline,
}

impl Kernels {
    pub fn new(gpu: &Gpu) -> Result<Self, DeviceError> {
        let buffer =
            |ty, has_dynamic_offset| wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None };
        let uniform = buffer(wgpu::BufferBindingType::Uniform, true);
        let read = buffer(wgpu::BufferBindingType::Storage { read_only: true }, false);
        let write = buffer(wgpu::BufferBindingType::Storage { read_only: false }, false);
        let (score_bindings, score_layout) = layout(gpu, &[uniform, read, read, read, write, write])?;
        let (select_bindings, select_layout) = layout(gpu, &[uniform, read, read, write])?;
        let source = format!("const LANES = {SELECT_LANES}u;\nconst LIST = {LIST_ENTRIES}u;\n{LIST}{SELECT}");
        let select = compile(gpu, &select_layout, &source, "choose")?;
        Ok(Self { score_bindings, select_bindings, score_layout, score: HashMap::new(), select })
    }

    pub fn score(&mut self, gpu: &Gpu, shape: Shape) -> Result<wgpu::ComputePipeline, DeviceError> {
        match self.score.entry(shape) {
            Entry::Occupied(made) => Ok(made.get().clone()),
            Entry::Vacant(none) => Ok(none.insert(compile(gpu, &self.score_layout, &shape.source(), "score")?).clone()),
        }
    }

    pub fn select(&self) -> &wgpu::ComputePipeline {
        &self.select
    }
}

/// How buffers are bound, one after the other.
fn layout(
    gpu: &Gpu,
    kinds: &[wgpu::BindingType],
) -> Result<(wgpu::BindGroupLayout, wgpu::PipelineLayout), DeviceError> {
    let entries: Vec<_> = kinds
        .iter()
        .zip(0..)
        .map(|(kind, binding)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: *kind,
            count: None,
        })
        .collect();
    gpu.checked(|| {
        let bindings =
            gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: 0,
        });
        (bindings, layout)
    })
}

fn compile(
    gpu: &Gpu,
    layout: &wgpu::PipelineLayout,
    source: &str,
    entry: &str,
) -> Result<wgpu::ComputePipeline, DeviceError> {
    gpu.checked(|| {
        let module = unchecked::module(&gpu.device, source);
        gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        })
    })
}
