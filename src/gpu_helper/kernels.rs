//! The shaders, put together for what is searched, and compiled when they are first needed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::device::{DeviceError, Gpu};
use crate::protocol::{Format, Metric};

const LIST: &str = include_str!("kernels/list.wgsl");
const SCORE: &str = include_str!("kernels/score.wgsl");
const MERGE: &str = include_str!("kernels/merge.wgsl");

/// Invocations of a workgroup, and rows of a block.
pub const GROUP: u32 = 256;

/// What a scoring shader is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub format: Format,
    pub metric: Metric,
    /// Queries that are scored together: 1, 2, 4 or 8.
    pub queries: u32,
    /// Entries of a list, a power of two.
    pub list: u32,
}

impl Format {
    /// Numbers of a chunk of 16 bytes.
    pub fn per_chunk(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::F16 => 8,
            Self::I8 => 16,
        }
    }

    /// vec4s of a query for each chunk.
    pub fn query_vectors(self) -> u32 {
        if self == Self::F16 { 2 } else { 1 }
    }
}

impl Shape {
    /// The shader's text.
    pub fn source(self) -> String {
        let Self { format, metric, queries, list } = self;
        let (number, read) = match format {
            Format::F32 => ("f32", "let a = bitcast<vec4<f32>>(row);".to_owned()),
            Format::F16 => (
                "f32",
                "let a = vec4<f32>(unpack2x16float(row.x), unpack2x16float(row.y));\n            \
                 let b = vec4<f32>(unpack2x16float(row.z), unpack2x16float(row.w));"
                    .to_owned(),
            ),
            Format::I8 => ("u32", String::new()),
        };
        let zero = if format == Format::I8 { "0i" } else { "0.0" };
        let each = |line: &dyn Fn(u32) -> String| (0..queries).map(line).collect::<Vec<_>>().join("\n");
        let mut begin = each(&|query| format!("var score{query} = {zero};"));
        let norm = match format {
            Format::F32 => "norm += dot(a, a);",
            Format::F16 => "norm += dot(a, a) + dot(b, b);",
            Format::I8 => "norm += length_of(row);",
        };
        let mut read = read;
        if metric == Metric::Cosine {
            begin.push_str(&format!("\nvar norm = {zero};"));
            read.push_str(norm);
        }
        let vectors = format.query_vectors();
        let add = each(&|query| {
            let place = format!("({query}u * tile.chunks + chunk) * {vectors}u");
            match (format, metric) {
                (Format::I8, Metric::L2) => format!("score{query} -= apart(row, queries[{place}]);"),
                (Format::I8, _) => format!("score{query} += product(row, queries[{place}]);"),
                (Format::F32, Metric::L2) => {
                    format!("{{ let d = a - queries[{place}]; score{query} -= dot(d, d); }}")
                }
                (Format::F32, _) => format!("score{query} += dot(a, queries[{place}]);"),
                (Format::F16, Metric::L2) => format!(
                    "{{ let d = a - queries[{place}]; let e = b - queries[{place} + 1u]; score{query} -= dot(d, d) + dot(e, e); }}"
                ),
                (Format::F16, _) => {
                    format!("score{query} += dot(a, queries[{place}]) + dot(b, queries[{place} + 1u]);")
                }
            }
        });
        let offer = each(&|query| {
            let score = match metric {
                Metric::Cosine => format!("f32(score{query}) * inverseSqrt(max(f32(norm), 1e-30))"),
                Metric::Dot | Metric::L2 => format!("f32(score{query})"),
            };
            format!("offer({query}u, {score}, place);")
        });
        let score =
            SCORE.replace("//BEGIN", &begin).replace("//READ", &read).replace("//ADD", &add).replace("//OFFER", &offer);
        let bytes = if format == Format::I8 { BYTES } else { "" };
        format!("const QUERIES = {queries}u;\nconst LIST = {list}u;\nalias Number = {number};\n{bytes}{LIST}{score}")
    }

    /// Bytes of a workgroup's memory that it takes.
    pub fn workgroup_bytes(self) -> u32 {
        self.queries * (self.list * 8 + 12) + 16
    }
}

/// What packed bytes need. Four products and their sum are one instruction where the device has it.
const BYTES: &str = "
fn product(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}
fn length_of(a: vec4<u32>) -> i32 {
    return product(a, a);
}
fn apart(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return product(a, a) + product(b, b) - 2i * product(a, b);
}
";

/// The shaders that were compiled so far.
#[derive(Default)]
pub struct Kernels {
    score: HashMap<Shape, wgpu::ComputePipeline>,
    merge: HashMap<u32, wgpu::ComputePipeline>,
}

impl Kernels {
    pub fn score(&mut self, gpu: &Gpu, shape: Shape) -> Result<wgpu::ComputePipeline, DeviceError> {
        match self.score.entry(shape) {
            Entry::Occupied(made) => Ok(made.get().clone()),
            Entry::Vacant(none) => Ok(none.insert(compile(gpu, &shape.source(), "score")?).clone()),
        }
    }

    pub fn merge(&mut self, gpu: &Gpu, list: u32) -> Result<wgpu::ComputePipeline, DeviceError> {
        match self.merge.entry(list) {
            Entry::Occupied(made) => Ok(made.get().clone()),
            Entry::Vacant(none) => {
                let source = format!("const QUERIES = 1u;\nconst LIST = {list}u;\n{LIST}{MERGE}");
                Ok(none.insert(compile(gpu, &source, "merge")?).clone())
            }
        }
    }
}

fn compile(gpu: &Gpu, source: &str, entry: &str) -> Result<wgpu::ComputePipeline, DeviceError> {
    gpu.checked(|| {
        let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
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
