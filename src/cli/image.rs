//! `cairn image`: Cairn's own container image.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};
use std::mem;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Common, Failure, output};
use crate::base::ByteSize;
use crate::deploy::oci::gpu::{Collected, Drivers};
use crate::deploy::oci::{ArchivedImage, Image, Reference};
use crate::deploy::{Architecture, OWN_EXECUTABLE, Tree};
use crate::index::gpu::helper_program;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn image build -o .                                 write cairn-VERSION.tar here
  cairn image build -o - | ctr -n k8s.io images import -
  cairn image build -o . --gpu                           with a layer for GPUs, from this machine's libraries
  cairn image inspect                                    show names, digest and size
  cairn image inspect cairn-0.1.0.tar                    show those of an archive")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the image of this program, for containerd, K3s, podman and Docker
    #[command(after_help = "\
Examples:
  cairn image build -o cairn.tar
  cairn image build -o /var/lib/rancher/k3s/agent/images/
  cairn image build -o - | docker load
  cairn image build -o . --with-platform cairn-0.1.0-aarch64-linux
  cairn image build -o cairn.tar --name registry.example/edge/cairn:1.0
  cairn image build -o . --gpu                           for any GPU, with this machine's libraries
  cairn image build -o . --gpu --gpu-drivers none        for NVIDIA's, whose toolkit brings the driver

One tar that is both an OCI layout and a Docker archive. The same program gives the same bytes; with --gpu, the same program \
and libraries. The file gets its name once it is complete.")]
    Build {
        /// The file, a folder for it, or - for standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        of: Of,
    },
    /// Show what an archive holds, or what would be built, and write nothing
    #[command(after_help = "\
Examples:
  cairn image inspect                    what `cairn image build` would write
  cairn image inspect cairn.tar --json   name, digest and processors of an archive")]
    Inspect {
        /// An image archive, of Cairn or another program [default: what would be built]
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath,
            conflicts_with_all = ["executable", "with_platform", "name", "gpu"])]
        archive: Option<PathBuf>,
        #[command(flatten)]
        of: Of,
    },
}

/// The content of the image.
#[derive(Debug, clap::Args)]
struct Of {
    /// A static cairn for Linux [default: this program]
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
    /// The static cairn of the same release for another processor: the image is then for both
    #[arg(long, value_name = "FILE", conflicts_with = "gpu")]
    with_platform: Vec<PathBuf>,
    /// Name of the image with its host; the tag is this release's version where none is given [default: cairn.local/cairn:VERSION,
    /// with --gpu cairn.local/cairn:VERSION-gpu]
    #[arg(long)]
    name: Option<Reference>,
    /// Add a layer with what a GPU needs: this machine's C library, Vulkan loader and Mesa drivers
    #[arg(long)]
    gpu: bool,
    /// Drivers in that layer: all for GPUs, none, or names such as intel,radeon
    #[arg(long, value_name = "NAME,…", requires = "gpu", default_value = "all", value_delimiter = ',')]
    gpu_drivers: Vec<String>,
    /// Root folder of the system whose libraries are taken
    #[arg(long, value_name = "DIR", requires = "gpu", default_value = "/")]
    gpu_root: PathBuf,
}

/// An image, and notes on its libraries.
struct Built {
    image: Image,
    gpu: Option<Libraries>,
}

struct Libraries {
    count: usize,
    drivers: Vec<String>,
    notes: Vec<String>,
}

impl Of {
    fn image(&self) -> Result<Built, Failure> {
        let executable = self.executable.as_deref().unwrap_or(Path::new(OWN_EXECUTABLE));
        let name = |own: fn() -> Reference| self.name.clone().unwrap_or_else(own);
        if !self.gpu {
            return Ok(Built {
                image: Image::named(executable, &self.with_platform, name(Reference::this_release))?,
                gpu: None,
            });
        }
        let drivers = match &self.gpu_drivers[..] {
            [all] if all == "all" => Drivers::All,
            [none] if none == "none" => Drivers::Named(BTreeSet::new()),
            names => Drivers::Named(names.iter().cloned().collect()),
        };
        let mut collected = collect(&Tree::below(&self.gpu_root), &drivers)?;
        let gpu = Libraries {
            count: collected.libraries,
            drivers: mem::take(&mut collected.drivers),
            notes: mem::take(&mut collected.notes),
        };
        Ok(Built {
            image: Image::with_gpu(executable, name(Reference::this_release_for_gpus), collected)?,
            gpu: Some(gpu),
        })
    }

    /// As K3s' folder of images has it: with the version, so that a new release is a new file.
    fn file_name(&self) -> String {
        format!("cairn-{}{}.tar", env!("CARGO_PKG_VERSION"), if self.gpu { "-gpu" } else { "" })
    }
}

/// The layer for GPUs, with what is in a tree.
pub(super) fn collect(tree: &Tree, drivers: &Drivers) -> Result<Collected, Failure> {
    let helper = helper_program().map_err(anyhow::Error::from)?;
    Ok(Collected::from(tree, &helper, drivers)?)
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Build { output, of } => build(common, output, of),
        Verb::Inspect { archive: Some(file), .. } => print_archive(common, file),
        Verb::Inspect { archive: None, of } => print_result(common, &of.image()?, None),
    }
}

fn build(common: &Common, output: &Path, of: &Of) -> Result<(), Failure> {
    if output == Path::new("-") {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::usage(anyhow!(
                "the image would go to the terminal; pipe it to a program or name a file"
            )));
        }
        let Built { image, gpu } = of.image()?;
        gpu.iter().flat_map(|gpu| &gpu.notes).for_each(|note| eprintln!("warning: {note}"));
        image.write_to(stdout.lock())?;
        eprintln!("{} {} {}", image.reference(), image.digest(), ByteSize(image.bytes()));
        return Ok(());
    }
    let file = output::file_at(output, || Ok(of.file_name()))?;
    let own = [Path::new(OWN_EXECUTABLE)];
    let others = of.executable.iter().chain(&of.with_platform).map(PathBuf::as_path);
    output::refuse_replacing(&file, own.into_iter().chain(others), [])?;
    let built = of.image()?;
    built.image.write_file(&file)?;
    print_result(common, &built, Some(&file))
}

fn print_archive(common: &Common, file: &Path) -> Result<(), Failure> {
    let image = ArchivedImage::open(file).map_err(Failure::usage)?;
    let architectures: Vec<_> = image.architectures.iter().map(|one| one.oci()).collect();
    if common.json {
        return output::json(&json!({
            "name": image.name,
            "digest": image.digest(),
            "architectures": architectures,
            "os": "linux",
            "bytes": image.bytes,
            "file": file.to_string_lossy(),
        }));
    }
    print_rows(&[
        ("name", image.name.clone()),
        ("digest", image.digest()),
        ("architecture", architectures.join(", ")),
        ("size", size(image.bytes)),
        ("file", file.display().to_string()),
    ])
}

fn size(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", ByteSize(bytes))
}

fn print_rows(rows: &[(&str, String)]) -> Result<(), Failure> {
    rows.iter().try_for_each(|(name, value)| output::line(&format!("{name:<14}{value}")))
}

fn print_result(common: &Common, Built { image, gpu }: &Built, file: Option<&Path>) -> Result<(), Failure> {
    if common.json {
        return output::json(&description(image, gpu.as_ref(), file));
    }
    let mut rows = vec![
        ("name", image.reference().to_string()),
        ("pinned", image.pinned()),
        ("digest", image.digest()),
        ("architecture", image.architectures().map(Architecture::oci).collect::<Vec<_>>().join(", ")),
        ("size", size(image.bytes())),
    ];
    let is_for_several = image.architectures().nth(1).is_some();
    rows.extend(image.layers().map(|(architecture, layer)| {
        let of = if is_for_several { format!(", {}", architecture.oci()) } else { String::new() };
        ("layer", format!("sha256:{} ({} bytes{of})", layer.digest, layer.bytes))
    }));
    if let Some(gpu) = gpu {
        let drivers = if gpu.drivers.is_empty() { "none".to_owned() } else { gpu.drivers.join(", ") };
        rows.push(("libraries", gpu.count.to_string()));
        rows.push(("drivers", format!("{drivers}; NVIDIA's comes from its container toolkit")));
        rows.extend(gpu.notes.iter().map(|note| ("warning", note.clone())));
    }
    rows.extend(file.map(|file| ("file", file.display().to_string())));
    print_rows(&rows)
}

fn description(image: &Image, gpu: Option<&Libraries>, file: Option<&Path>) -> Value {
    let layers = image.layers().map(|(architecture, layer)| {
        json!({"digest": format!("sha256:{}", layer.digest), "bytes": layer.bytes, "architecture": architecture.oci()})
    });
    let mut description = json!({
        "name": image.reference().to_string(),
        "pinned": image.pinned(),
        "digest": image.digest(),
        "architectures": image.architectures().map(Architecture::oci).collect::<Vec<_>>(),
        "os": "linux",
        "bytes": image.bytes(),
        "layers": layers.collect::<Vec<_>>(),
        "file": file.map(Path::to_string_lossy),
    });
    if let Some(gpu) = gpu {
        description["gpu"] = json!({"libraries": gpu.count, "drivers": gpu.drivers, "warnings": gpu.notes});
    }
    description
}
