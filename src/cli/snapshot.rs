//! `cairn snapshot`: backups, their proof, and the way back.

mod arguments;
mod progress;
mod restore;
mod show;

use anyhow::anyhow;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::arguments::{Nodes, Verb};
use self::progress::{Bar, call_with_progress, with_progress};
use self::restore::{drop_old, restore};
use self::show::{show_list, show_schedule};
use super::backend::{Backend, expect_node, holds_node};
use super::{Common, Failure, output, quiet_logs};
use crate::app::{self, RunningNode};
use crate::base::ByteSize;
use crate::config::Config;
use crate::mcp::{Tool, prune_json, schedule_json, snapshots_json, verified_json};
use crate::snapshot::{EXTENSION, Key, Snapshots, Target};

pub(super) use self::arguments::Arguments;
pub(super) use self::show::{ago, span, under_way};

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Create { begin_anew } => create(common, *begin_anew),
        Verb::List(nodes) => list(common, nodes),
        Verb::Verify { id } => verify(common, id.as_deref()),
        Verb::Restore(arguments) if arguments.drop_old => drop_old(common),
        Verb::Restore(arguments) => restore(common, arguments),
        Verb::Export { path, id, nodes } => export(common, path, id.as_deref(), nodes),
        Verb::Import { path } => import(common, path),
        Verb::Prune { dry_run, nodes } => prune(common, *dry_run, nodes),
        Verb::Schedule => schedule(common),
        Verb::Keygen { path } => {
            Key::generate(path)?;
            let next = format!("set snapshot.encryption_key_file to {}, and keep a copy elsewhere", path.display());
            print(common, &json!({"key_file": path.to_string_lossy()}), &format!("wrote {}; {next}", path.display()))
        }
    }
}

/// What works without a node.
struct LocalSnapshots {
    config: Config,
    snapshots: Snapshots,
    // Dropped last: the snapshots use it.
    _runtime: Runtime,
}

impl LocalSnapshots {
    fn open(common: &Common) -> Result<Self, Failure> {
        if common.url.is_some() {
            let hint = "snapshots are files: run this on the node's machine, or with its settings, without --url";
            return Err(Failure::usage(anyhow!(hint)));
        }
        let mut config = common.load()?;
        quiet_logs(&config);
        // The node's own settings apply, whatever was passed to this command.
        if Backend::running(common.address(), config.clone())?.is_some()
            && let Some(snapshots) = RunningNode::read(&config.data_dir).and_then(|running| running.snapshots)
        {
            (config.snapshot.target, config.snapshot.key_file) = (snapshots.target, snapshots.key_file);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let snapshots = app::snapshots(&config, runtime.handle().clone());
        Ok(Self { config, snapshots, _runtime: runtime })
    }

    /// The same for verbs that need what is there already: on a wrong path nothing was lost, and nothing is there.
    fn existing(common: &Common) -> Result<Self, Failure> {
        let local = Self::open(common)?;
        // One that is set may have been forgotten by this machine, not by its disk or bucket.
        let has_target = match local.snapshots.target() {
            Target::Directory(path) => local.config.snapshot.target.is_some() || path.exists(),
            Target::Bucket(_) => true,
        };
        // Nothing can be reported if this user has no access.
        if !has_target || holds_node(&local.config.data_dir).is_err() {
            expect_node(&local.config)?;
        }
        Ok(local)
    }
}

/// The node at the address, or the one that runs on the data directory.
fn running(common: &Common) -> Result<Option<Backend>, Failure> {
    let config = common.load()?;
    quiet_logs(&config);
    Backend::running(common.address(), config)
}

fn print(common: &Common, value: &Value, text: &str) -> Result<(), Failure> {
    if common.json { output::json(value) } else { output::line(text) }
}

fn create(common: &Common, begin_anew: bool) -> Result<(), Failure> {
    // An older node knows no such argument.
    let arguments = if begin_anew { json!({"begin_anew": true}) } else { json!({}) };
    let answer = call_with_progress(common, &common.backend()?, Tool::CreateSnapshot, arguments, "create")?;
    let text = format!(
        "{}: {} up to record {}, {} of it new, in {}",
        output::text(&answer, "id"),
        output::size(&answer, "bytes"),
        output::count(&answer, "lsn"),
        output::size(&answer, "new_bytes"),
        output::text(&answer, "target"),
    );
    print(common, &answer, &text)?;
    for damage in answer["damage"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("the log was damaged before: {damage}");
    }
    // This one exists and was read back; other problems are not its failure.
    if let Some(problem) = answer["problem"].as_str() {
        eprintln!("{problem}");
    }
    Ok(())
}

fn list(common: &Common, nodes: &Nodes) -> Result<(), Failure> {
    let answer = match running(common)? {
        Some(node) => {
            let arguments = nodes.named().map_or_else(|| json!({}), |node| json!({"node": node}));
            node.call(Tool::ListSnapshots, arguments)?
        }
        None => snapshots_json(&LocalSnapshots::existing(common)?.snapshots, &nodes.whose()?)?,
    };
    if common.json {
        output::json(&answer)?;
    } else {
        show_list(&answer)?;
    }
    match answer["problem"].as_str() {
        Some(problem) => Err(anyhow!("{problem}").into()),
        None => Ok(()),
    }
}

fn verify(common: &Common, id: Option<&str>) -> Result<(), Failure> {
    let newest = id.is_none();
    let value = match running(common)? {
        Some(node) => with_progress(common, &node, "verify", || node.verify_snapshot(id))?,
        None => None,
    };
    let value = match value {
        Some(value) => value,
        None => {
            let local = LocalSnapshots::existing(common)?;
            let bar = Bar::new(common);
            let verified = local.snapshots.verify(id, &bar);
            bar.finish();
            verified_json(&local.snapshots, &verified?)
        }
    };
    let id = output::text(&value, "id");
    if value["ok"] != true {
        if common.json {
            output::json(&value)?;
        } else {
            for problem in value["problems"].as_array().into_iter().flatten() {
                let (name, message) = (output::text(problem, "name"), output::text(problem, "message"));
                output::line(&format!("{name}: {message}"))?;
            }
        }
        return Err(anyhow!("snapshot {id} failed verification; take a new one with `cairn snapshot create`").into());
    }
    let number = |name: &str| value[name].as_u64().unwrap_or_default();
    let text = format!(
        "{id} is whole: {}, {}, {}, {} rebuilt, {} answered as before, in {:.1} s",
        output::counted(number("segments"), "segment"),
        output::size(&value, "bytes"),
        output::counted(number("records"), "record"),
        output::counted(number("documents"), "document"),
        output::counted(number("canaries"), "question"),
        value["seconds"].as_f64().unwrap_or_default(),
    );
    print(common, &value, &text)?;
    // Asked about one, the answer is about that one; asked about the newest, it is whether the backups are good.
    match value["problem"].as_str().filter(|_| newest) {
        Some(problem) => Err(anyhow!("{problem}").into()),
        None => Ok(()),
    }
}

fn export(common: &Common, path: &std::path::Path, id: Option<&str>, nodes: &Nodes) -> Result<(), Failure> {
    let local = LocalSnapshots::existing(common)?;
    let whose = nodes.whose()?;
    let bar = Bar::new(common);
    let manifest = local.snapshots.manifest(id, &whose)?;
    let id = &manifest.id;
    let to = output::file_at(path, || Ok(format!("{id}.{EXTENSION}")))?;
    let exported = local.snapshots.export(&manifest, &to, &bar);
    bar.finish();
    let bytes = exported?;
    let text = format!("{id}: {} in {}", ByteSize(bytes), to.display());
    print(common, &json!({"id": id, "path": to.to_string_lossy(), "bytes": bytes}), &text)
}

fn import(common: &Common, path: &std::path::Path) -> Result<(), Failure> {
    let local = LocalSnapshots::open(common)?;
    let bar = Bar::new(common);
    let imported = local.snapshots.import(path, &bar);
    bar.finish();
    let manifest = imported?;
    let target = local.snapshots.target().to_string();
    let text = format!("{}: {} in {target}", manifest.id, ByteSize(manifest.bytes()));
    print(common, &json!({"id": manifest.id, "target": target, "bytes": manifest.bytes()}), &text)
}

fn prune(common: &Common, dry_run: bool, nodes: &Nodes) -> Result<(), Failure> {
    let value = match running(common)? {
        Some(node) => node.prune_snapshots(nodes.named(), dry_run)?,
        None => None,
    };
    let value = match value {
        Some(value) => value,
        None => prune_json(&LocalSnapshots::existing(common)?.snapshots, &nodes.whose()?, dry_run)?,
    };
    let names = |field: &str| -> Vec<&str> {
        value[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let text = format!(
        "{} {} and {} ({}); {} kept",
        if dry_run { "would remove" } else { "removed" },
        output::counted(names("snapshots").len() as u64, "snapshot"),
        output::counted(names("segments").len() as u64, "segment file"),
        output::size(&value, "bytes"),
        output::count(&value, "kept"),
    );
    print(common, &value, &text)?;
    let unreadable = names("unreadable");
    if !unreadable.is_empty() {
        let ids = unreadable.join(", ");
        eprintln!("no segment was removed, because snapshots that cannot be read may need it: {ids}");
    }
    Ok(())
}

fn schedule(common: &Common) -> Result<(), Failure> {
    let schedule = match running(common)? {
        Some(node) => node.snapshot_schedule()?,
        None => None,
    };
    let schedule = match schedule {
        Some(schedule) => schedule,
        None => schedule_json(&LocalSnapshots::existing(common)?.snapshots),
    };
    if common.json {
        output::json(&schedule)?;
    } else {
        show_schedule(&schedule)?;
    }
    match schedule["problem"].as_str() {
        Some(problem) => Err(anyhow!("{problem}").into()),
        None => Ok(()),
    }
}
