//! `cairn gpu`: which GPUs there are, whether they compute right, and how fast.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Common, Failure, output};
use crate::deploy::write_file;
use crate::index::gpu::measure::{Bench, Measured};
use crate::index::gpu::{Adapter, AdapterKind, Format, Gpu, HELPER_ON_DISK, helper_program, selftest};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn gpu list                    what Vulkan finds on this machine
  cairn gpu selftest                compare its results with the exact definition
  cairn gpu bench --rows 1000000    searches and bytes per second, compared with this machine's CPU
  cairn gpu extract                 write the helper to /usr/libexec/cairn-gpu, for hardened machines

A separate helper program, which is part of this file, uses the GPU. It needs the Vulkan loader (libvulkan.so.1) and a driver.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the GPUs, best first; exit code 1 if there is none
    List,
    /// Run random searches and compare the results with the exact definition
    Selftest {
        /// Questions, at least
        #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = output::whole::<u32>(1..=10_000_000))]
        cases: u32,
        /// Seconds that an answer may take; the first of a kind compiles its shader
        #[arg(long, default_value_t = 60, value_name = "N", value_parser = output::whole::<u64>(1..=3_600))]
        patience: u64,
        #[command(flatten)]
        device: Device,
    },
    /// Write the helper's program to a file, for machines that run no programs from memory (vm.memfd_noexec = 2)
    Extract {
        /// Where to; it is looked for at /usr/libexec/cairn-gpu
        #[arg(default_value = HELPER_ON_DISK, value_name = "FILE")]
        path: PathBuf,
    },
    /// Measure exact searches on the GPU and on the CPU
    Bench {
        /// Vectors
        #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = output::whole::<u32>(1_000..=100_000_000))]
        rows: u32,
        /// Dimensions of a vector
        #[arg(long, default_value_t = 384, value_name = "N", value_parser = output::whole::<u32>(64..=4_096))]
        dimensions: u32,
        /// Batch sizes, up to 256
        #[arg(long, default_value = "1,8,64,256", value_delimiter = ',', value_name = "N,…", value_parser = output::whole::<u32>(1..=256))]
        batches: Vec<u32>,
        /// How the GPU stores the vectors
        #[arg(long, default_value = "halves,bytes", value_delimiter = ',', value_name = "FORMAT,…")]
        formats: Vec<VectorFormat>,
        #[command(flatten)]
        device: Device,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum VectorFormat {
    Floats,
    Halves,
    Bytes,
}

#[derive(Debug, clap::Args)]
pub(super) struct Device {
    /// Take a rasteriser on the CPU where there is no GPU: for tests
    #[arg(long, hide = true)]
    pub(super) software: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.action {
        Action::List => list(common),
        Action::Selftest { cases, patience, device } => {
            selftest(common, *cases as usize, Duration::from_secs(*patience), device)
        }
        Action::Extract { path } => extract(path),
        Action::Bench { rows, dimensions, batches, formats, device } => {
            let formats = formats.iter().map(|kept| match kept {
                VectorFormat::Floats => Format::F32,
                VectorFormat::Halves => Format::F16,
                VectorFormat::Bytes => Format::I8,
            });
            let batches = batches.iter().map(|batch| *batch as usize).collect();
            bench(common, &Bench { rows: *rows, dimensions: *dimensions, batches, formats: formats.collect() }, device)
        }
    }
}

fn list(common: &Common) -> Result<(), Failure> {
    let adapters = Gpu::start().and_then(|mut gpu| gpu.adapters()).map_err(anyhow::Error::from)?;
    if common.json {
        output::json(&json!({"gpus": adapters.iter().map(as_json).collect::<Vec<_>>()}))?;
    } else if !adapters.is_empty() {
        let rows = adapters.iter().map(|adapter| {
            vec![
                adapter.name.clone(),
                kind(adapter.kind).to_owned(),
                adapter.driver.clone(),
                format!("{} MiB", output::thousands(adapter.buffer_bytes_max >> 20)),
                if adapter.kind == AdapterKind::Software { "no, slower than the CPU itself" } else { "yes" }.to_owned(),
            ]
        });
        output::table(&["gpu", "kind", "driver", "largest buffer", "used"], &["largest buffer"], rows.collect())?;
    }
    if adapters.iter().any(|adapter| adapter.kind != AdapterKind::Software) {
        return Ok(());
    }
    Err(anyhow!(
        "Vulkan finds no GPU here. Cairn searches on the CPU. A GPU needs its driver's Vulkan part and the loader \
         (Debian: libvulkan1); in a container also the device, see docs/gpu.md"
    )
    .into())
}

fn selftest(common: &Common, cases: usize, patience: Duration, device: &Device) -> Result<(), Failure> {
    let (mut gpu, adapter) = open(device)?;
    let progress = ProgressBar::new(cases as u64).with_style(
        ProgressStyle::with_template("{bar:40} {pos} of {len} questions")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let report = selftest::run(&mut gpu, cases, patience, |asked| progress.set_position(asked as u64))
        .map_err(anyhow::Error::from)?;
    progress.finish_and_clear();
    if common.json {
        output::json(&json!({"gpu": as_json(&adapter), "questions": report.cases, "wrong": report.wrong}))?;
    } else {
        output::line(&format!("{}: {} answered", adapter.name, output::counted(report.cases as u64, "question")))?;
        report.wrong.iter().try_for_each(|wrong| output::line(&format!("wrong: {wrong}")))?;
    }
    if report.wrong.is_empty() {
        return Ok(());
    }
    Err(anyhow!("the GPU computes wrong results; try another driver").into())
}

fn extract(path: &Path) -> Result<(), Failure> {
    let program = helper_program().map_err(anyhow::Error::from)?;
    write_file(path, 0o755, &program)?;
    output::line(&format!("wrote {}", path.display()))
}

fn bench(common: &Common, bench: &Bench, device: &Device) -> Result<(), Failure> {
    let (mut gpu, adapter) = open(device)?;
    let Bench { rows, dimensions, .. } = *bench;
    let measured = bench.run(&mut gpu, |what| eprintln!("… {what}")).map_err(anyhow::Error::from)?;
    let per_second = |measured: &Measured| measured.batch as f64 / measured.median.as_secs_f64();
    if common.json {
        let rounds: Vec<Value> = measured
            .iter()
            .map(|round| {
                json!({
                    "what": round.what, "batch": round.batch, "queries_per_second": per_second(round),
                    "p50_ms": round.median.as_secs_f64() * 1e3, "p99_ms": round.worst.as_secs_f64() * 1e3,
                    "device_p50_ms": round.on_device.map(|took| took.as_secs_f64() * 1e3),
                    "bytes_per_second": round.bytes_per_second(),
                })
            })
            .collect();
        return output::json(
            &json!({"gpu": as_json(&adapter), "rows": rows, "dimensions": dimensions, "rounds": rounds}),
        );
    }
    output::line(&format!(
        "{}, {} × {dimensions}, the ten nearest, exact",
        adapter.name,
        output::thousands(u64::from(rows))
    ))?;
    output::line("")?;
    let table = measured.iter().map(|round| {
        vec![
            round.what.to_owned(),
            round.batch.to_string(),
            output::thousands(per_second(round) as u64),
            format!("{:.2} ms", round.median.as_secs_f64() * 1e3),
            format!("{:.2} ms", round.worst.as_secs_f64() * 1e3),
            round.on_device.map_or_else(String::new, |took| format!("{:.2} ms", took.as_secs_f64() * 1e3)),
            format!("{:.1} GB/s", round.bytes_per_second() / 1e9),
        ]
    });
    let header = ["what", "batch", "queries a second", "p50", "p99", "on the device", "vectors read"];
    output::table(&header, &header[1..], table.collect())
}

fn open(device: &Device) -> Result<(Gpu, Adapter), Failure> {
    let mut gpu = Gpu::start().map_err(anyhow::Error::from)?;
    let adapter = gpu.open(device.software).map_err(anyhow::Error::from)?;
    Ok((gpu, adapter))
}

fn kind(kind: AdapterKind) -> &'static str {
    match kind {
        AdapterKind::Discrete => "discrete",
        AdapterKind::Virtual => "virtual",
        AdapterKind::Integrated => "integrated",
        AdapterKind::Other => "other",
        AdapterKind::Software => "software",
    }
}

pub(super) fn as_json(adapter: &Adapter) -> Value {
    json!({
        "name": adapter.name, "driver": adapter.driver, "kind": kind(adapter.kind),
        "buffer_bytes_max": adapter.buffer_bytes_max, "workgroup_bytes_max": adapter.workgroup_bytes_max,
        "f16": adapter.has_f16, "subgroups": adapter.has_subgroups,
    })
}
