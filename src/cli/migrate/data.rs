//! `cairn migrate data`: the data of volumes, from Docker's folders to the cluster.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::base::{ByteSize, Fault};
use crate::cli::{Common, Failure, output};
use crate::migrate::data::{
    CopyRequest, DataError, Difference, Expected, PlanRequest, Progress, copy, display, host_name, plan, verify,
    volume_needs, write_plan,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn migrate data plan k3s/                        on each machine of the swarm
  cairn migrate data copy /var/lib/docker/volumes/shop_db/_data /srv/shop-db
  cairn migrate data verify /var/lib/docker/volumes/shop_db/_data /srv/shop-db")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Find the volumes of a converted stack on this machine, and plan how each one gets to the cluster
    #[command(after_help = "\
Examples:
  cairn migrate data plan k3s/
  cairn migrate data plan k3s/ --volume shop_media=/srv/media --claim shop_db=data-db-1
  cairn migrate data plan k3s/ --copy

Writes data/plan.json, and data/persistent-volumes.yaml for the volumes that are used where they are: apply it before the claims. \
Neither Docker nor the cluster is contacted.")]
    Plan(PlanArguments),
    /// Copy a folder with owners, permissions, links, holes and extended attributes, and write the list of its hashes
    #[command(after_help = "\
Examples:
  cairn migrate data copy /var/lib/docker/volumes/shop_db/_data /srv/shop-db
  cairn migrate data copy /srv/media /mnt/media --manifest media.jsonl

The source is only read. A copy that was interrupted is resumed by the same command. Sockets are not copied; labels of SELinux are those \
of the target; flags of chattr are not copied.

Exit codes: 0 copied, 1 failed or in use, 2 the command line is wrong.")]
    Copy {
        /// Folder to copy
        #[arg(value_hint = clap::ValueHint::DirPath)]
        source: PathBuf,
        /// Folder for the copy: an empty one, none, or that of a copy that was interrupted
        #[arg(value_hint = clap::ValueHint::DirPath)]
        target: PathBuf,
        /// File for the list of hashes [default: .NAME.cairn-manifest.jsonl next to the target]
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        manifest: Option<PathBuf>,
    },
    /// Compare a copy with its source, or with the list of what the source was
    #[command(after_help = "\
Examples:
  cairn migrate data verify /var/lib/docker/volumes/shop_db/_data /srv/shop-db
  cairn migrate data verify .shop-db.cairn-manifest.jsonl /srv/shop-db --json

Every file is read. With a list, the source is compared with it, too, where it is on this machine.

Exit codes: 0 equal, 1 different or failed, 2 the command line is wrong.")]
    Verify {
        /// The folder that was copied, or the list of its hashes
        #[arg(value_name = "SOURCE|MANIFEST", value_hint = clap::ValueHint::AnyPath)]
        expected: PathBuf,
        /// The copy
        #[arg(value_hint = clap::ValueHint::DirPath)]
        target: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct PlanArguments {
    /// Folder of a conversion
    #[arg(value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    /// Docker's folder
    #[arg(long, default_value = "/var/lib/docker", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    docker_root: PathBuf,
    /// Folder of a volume that is elsewhere
    #[arg(long, value_name = "NAME=PATH", value_parser = pair)]
    volume: Vec<(String, String)>,
    /// Claim that gets this machine's volume, where each machine has one
    #[arg(long, value_name = "VOLUME=CLAIM", value_parser = pair)]
    claim: Vec<(String, String)>,
    /// This machine's name in the cluster [default: its host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where the cluster has the data of claims
    #[arg(long, default_value = "/var/lib/rancher/k3s/storage", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    storage: PathBuf,
    /// Copy also what could be used where it is
    #[arg(long)]
    copy: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Plan(arguments) => run_plan(common, arguments),
        Verb::Copy { source, target, manifest } => run_copy(common, source, target, manifest.as_deref()),
        Verb::Verify { expected, target } => run_verify(common, expected, target),
    }
}

fn failure(error: DataError) -> Failure {
    match error.fault() {
        Fault::Caller => Failure::usage(error),
        Fault::Environment | Fault::Damage => Failure::from(error),
    }
}

fn run_plan(common: &Common, arguments: &PlanArguments) -> Result<(), Failure> {
    let request = PlanRequest {
        folder: arguments.folder.clone(),
        docker_root: arguments.docker_root.clone(),
        volumes: arguments.volume.iter().map(|(name, path)| (name.clone(), PathBuf::from(path))).collect(),
        claims: arguments.claim.iter().cloned().collect::<BTreeMap<_, _>>(),
        node: arguments.node.clone().unwrap_or_else(host_name),
        storage: arguments.storage.clone(),
        copies: arguments.copy,
    };
    let needs = volume_needs(&request.folder).map_err(failure)?;
    let plan = plan(&request, &needs).map_err(failure)?;
    let files = write_plan(&request.folder, &plan).map_err(failure)?;
    if common.json {
        return output::json(&json!(plan));
    }
    let rows = plan.volumes.iter().map(|volume| {
        let is_here = volume.source.is_some();
        let figure = |text: String| if is_here { text } else { String::new() };
        vec![
            volume.need.volume.clone(),
            volume.way.as_str().to_owned(),
            volume.claim.clone().or_else(|| volume.need.host_path.clone()).unwrap_or_default(),
            figure(output::thousands(volume.files)),
            figure(ByteSize(volume.bytes).to_string()),
            figure(format!("{}Gi", volume.size_gib)),
            volume.free.map(|free| ByteSize(free).to_string()).unwrap_or_default(),
            volume.reason.clone(),
        ]
    });
    let header = ["volume", "way", "claim", "files", "bytes", "size", "free", "reason"];
    output::table(&header, &["files", "bytes", "size", "free"], rows.collect())?;
    // In the order in which they are run, each once: services of several volumes are stopped once.
    let mut commands: Vec<&str> = Vec::new();
    for step in 0..=1 {
        for command in plan.volumes.iter().flat_map(|volume| &volume.commands) {
            let is_stop = command.starts_with("docker ");
            if is_stop == (step == 0) && !commands.contains(&command.as_str()) {
                commands.push(command);
            }
        }
    }
    if !commands.is_empty() {
        output::line("\nRun these in this order, before the objects are applied:")?;
    }
    for command in commands {
        output::line(&format!("  {command}"))?;
    }
    for file in files {
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

/// A bar, and what moves it.
struct Bar(ProgressBar);

impl Bar {
    fn new(common: &Common) -> Self {
        let bar = if output::is_watched(common) { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let template = "{wide_bar} {bytes:>10} / {total_bytes:10} {binary_bytes_per_sec:>12} {eta:>6} left";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    fn show(&self, progress: &Progress) -> ControlFlow<()> {
        if progress.bytes_total > 0 {
            self.0.set_length(progress.bytes_total);
        }
        self.0.set_position(progress.bytes);
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn run_copy(common: &Common, source: &Path, target: &Path, manifest: Option<&Path>) -> Result<(), Failure> {
    let bar = Bar::new(common);
    let copied = copy(&CopyRequest { source, target, manifest }, &mut |progress| bar.show(progress));
    drop(bar);
    let copied = copied.map_err(failure)?;
    let manifest = display(copied.manifest.as_os_str().as_encoded_bytes());
    if common.json {
        return output::json(&json!({
            "entries": copied.entries,
            "files": copied.files,
            "bytes": copied.bytes,
            "files_before": copied.files_before,
            "sockets": copied.sockets,
            "sockets_total": copied.sockets_total,
            "locked": copied.locked,
            "manifest": manifest,
        }));
    }
    output::line(&format!(
        "copied {} of {}: {} written ({}), {} right from before",
        output::counted(copied.entries, "entry").replace("entrys", "entries"),
        display(source.as_os_str().as_encoded_bytes()),
        output::counted(copied.files, "file"),
        ByteSize(copied.bytes),
        output::thousands(copied.files_before),
    ))?;
    output::line(&format!("manifest: {manifest}"))?;
    if copied.sockets_total > 0 {
        eprintln!("{} not copied: {}", output::counted(copied.sockets_total, "socket"), copied.sockets.join(", "));
    }
    if copied.locked > 0 {
        eprintln!("{} with flags of chattr (+i, +a), which are not copied", output::counted(copied.locked, "file"));
    }
    Ok(())
}

fn run_verify(common: &Common, expected: &Path, target: &Path) -> Result<(), Failure> {
    let is_folder = expected.is_dir();
    let expected =
        if is_folder { Expected::Source(expected.to_owned()) } else { Expected::Manifest(expected.to_owned()) };
    let bar = Bar::new(common);
    let (mut listed, mut written) = (Vec::<Value>::new(), Ok(()));
    let mut report = |difference: Difference| {
        if common.json {
            // The count has all of them.
            if listed.len() < 10_000 {
                let Difference { path, aspect, expected, found } = difference;
                listed.push(json!({"path": path, "aspect": aspect.as_str(), "expected": expected, "found": found}));
            }
        } else if written.is_ok() {
            written = bar.0.suspend(|| output::line(&difference.to_string()));
        }
    };
    let verified = verify(&expected, target, &mut |progress| bar.show(progress), &mut report);
    drop(bar);
    let verified = verified.map_err(failure)?;
    written?;
    if common.json {
        output::json(&json!({
            "ok": verified.differences == 0,
            "entries": verified.entries,
            "bytes": verified.bytes,
            "source_compared": verified.source_compared,
            "differences_total": verified.differences,
            "differences": listed,
        }))?;
    }
    if verified.differences > 0 {
        let count = output::counted(verified.differences, "difference");
        return Err(anyhow!("{count}: the copy is not what its source is; run `cairn migrate data copy` again").into());
    }
    if common.json {
        return Ok(());
    }
    let source = if verified.source_compared { ", and the source has not changed since" } else { "" };
    let entries = output::thousands(verified.entries);
    output::line(&format!("equal: {entries} entries, {} read{source}", ByteSize(verified.bytes)))
}
