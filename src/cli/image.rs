//! `cairn image`: Cairn's own container image.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Common, Failure, output};
use crate::base::ByteSize;
use crate::deploy::OWN_EXECUTABLE;
use crate::deploy::oci::{Image, Reference};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn image build -o .                                 write cairn-VERSION.tar here
  cairn image build -o - | ctr -n k8s.io images import -
  cairn image inspect                                    what it would be: names, digest, size")]
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
  cairn image build -o cairn.tar --name registry.example/edge/cairn:1.0

One tar, OCI layout and docker archive at once. The same program gives the same bytes. The file appears under its name once it
is whole.")]
    Build {
        /// The file, a folder for it, or - for standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        of: Of,
    },
    /// Say what would be built, and write nothing
    #[command(after_help = "Example:\n  cairn image inspect --json")]
    Inspect {
        #[command(flatten)]
        of: Of,
    },
}

/// What the image is made of.
#[derive(Debug, clap::Args)]
struct Of {
    /// A static cairn for Linux [default: this program]
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
    /// Name of the image with its host; the tag is this release's version where none is given
    #[arg(long, default_value_t = Reference::own())]
    name: Reference,
}

impl Of {
    fn image(&self) -> Result<Image, Failure> {
        let executable = self.executable.as_deref().unwrap_or(Path::new(OWN_EXECUTABLE));
        Ok(Image::named(executable, self.name.clone())?)
    }
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Build { output, of } => build(common, output, of),
        Verb::Inspect { of } => {
            let image = of.image()?;
            show(common, &image, None)
        }
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
        let image = of.image()?;
        image.write_to(stdout.lock())?;
        eprintln!("{} {} {}", image.reference(), image.digest(), ByteSize(image.bytes()));
        return Ok(());
    }
    let file = if output.is_dir() { output.join(file_name()) } else { output.to_owned() };
    let image = of.image()?;
    image.write_file(&file)?;
    show(common, &image, Some(&file))
}

/// As K3s' folder of images has it: with the version, so that a new release is a new file.
fn file_name() -> String {
    format!("cairn-{}.tar", env!("CARGO_PKG_VERSION"))
}

fn show(common: &Common, image: &Image, file: Option<&Path>) -> Result<(), Failure> {
    if common.json {
        return output::json(&description(image, file));
    }
    let layer = image.layer();
    let rows = [
        ("name", image.reference().to_string()),
        ("pinned", image.pinned()),
        ("digest", image.digest()),
        ("architecture", image.architecture().oci().to_owned()),
        ("size", format!("{} ({} bytes)", ByteSize(image.bytes()), image.bytes())),
        ("layer", format!("sha256:{} ({} bytes)", layer.digest, layer.bytes)),
    ];
    for (name, value) in rows {
        output::line(&format!("{name:<14}{value}"))?;
    }
    match file {
        Some(file) => output::line(&format!("{:<14}{}", "file", file.display())),
        None => Ok(()),
    }
}

fn description(image: &Image, file: Option<&Path>) -> Value {
    let layer = image.layer();
    json!({
        "name": image.reference().to_string(),
        "pinned": image.pinned(),
        "digest": image.digest(),
        "architecture": image.architecture().oci(),
        "os": "linux",
        "bytes": image.bytes(),
        "layers": [{"digest": format!("sha256:{}", layer.digest), "bytes": layer.bytes}],
        "file": file,
    })
}
