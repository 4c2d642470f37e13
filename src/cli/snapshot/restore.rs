//! `cairn snapshot restore`: from a repository or a file, to a node that runs or a directory.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::arguments::RestoreArguments;
use super::progress::{Bar, call_with_progress};
use super::{LocalSnapshots, print};
use crate::base::{ByteSize, Lsn};
use crate::cli::backend::{Absent, Address, Backend, Stay};
use crate::cli::{Common, Failure, output, quiet_logs};
use crate::mcp::Tool;
use crate::snapshot::{EXTENSION, RestorePlan, RestoreTarget, Whose};

pub(super) fn drop_old(common: &Common) -> Result<(), Failure> {
    let removed = LocalSnapshots::existing(common)?.snapshots.drop_old()?;
    let text = match removed.len() {
        0 => "there is nothing from an earlier restore".to_owned(),
        _ => removed.iter().map(|path| format!("removed {}", path.display())).collect::<Vec<_>>().join("\n"),
    };
    print(common, &json!({"removed": removed}), &text)
}

pub(super) fn restore(common: &Common, arguments: &RestoreArguments) -> Result<(), Failure> {
    let config = common.load()?;
    quiet_logs(&config);
    let archive = arguments.id.as_ref().filter(|id| id.ends_with(&format!(".{EXTENSION}"))).map(PathBuf::from);
    if !arguments.dry_run && !arguments.yes && !io::stdin().is_terminal() {
        let hint = "a restore puts aside what is there now; add --yes, or --dry-run to see what would be done";
        return Err(Failure::usage(anyhow!(hint)));
    }
    if let Some(path) = archive {
        return restore_file(common, arguments, &path);
    }
    if let Some(node) = Backend::running(common.address(), config)? {
        return restore_running(common, &node, arguments);
    }
    let target = match (arguments.id.clone(), arguments.to_lsn, arguments.to_time) {
        (Some(id), _, _) => RestoreTarget::Snapshot(id),
        (None, Some(lsn), _) => RestoreTarget::Lsn(Lsn(lsn)),
        (None, None, Some(time)) => RestoreTarget::Time(time),
        (None, None, None) => RestoreTarget::Newest,
    };
    let local = LocalSnapshots::open(common)?;
    let plan = local.snapshots.plan(&target, &arguments.nodes.whose()?)?;
    let text = plan_text(&plan);
    if arguments.dry_run {
        return print(common, &plan_json(&plan), &text);
    }
    if !arguments.yes {
        confirm(&format!("{text}\nPut what is in {} aside and go back to this?", local.config.data_dir.display()))?;
    }
    carry_out(common, &local, plan)
}

/// Restores the content of a file: nothing is changed, including snapshots, before the plan was shown.
fn restore_file(common: &Common, arguments: &RestoreArguments, path: &std::path::Path) -> Result<(), Failure> {
    let local = LocalSnapshots::open(common)?;
    let plan = local.snapshots.plan_file(path)?;
    let text = plan_text(&plan);
    if arguments.dry_run {
        return print(common, &plan_json(&plan), &text);
    }
    let running = Backend::running(common.address(), local.config.clone())?;
    if !arguments.yes {
        let then = if running.is_some() { " The node starts again at the end." } else { "" };
        let data_dir = local.config.data_dir.display();
        confirm(&format!("{text}\nPut what is in {data_dir} aside and go back to this?{then}"))?;
    }
    let bar = Bar::new(common);
    let imported = local.snapshots.import(path, &bar);
    bar.finish();
    let imported = imported?;
    let Some(node) = running else {
        let target = RestoreTarget::Snapshot(imported.id);
        let plan = local.snapshots.plan(&target, &Whose::Any)?;
        return carry_out(common, &local, plan);
    };
    // The given file determines the node.
    let wanted = json!({"id": imported.id, "node": "any", "confirm": "restore"});
    let done = call_with_progress(common, &node, Tool::RestoreSnapshot, wanted, "restore")?;
    tell_restored(common, &done)
}

fn plan_text(plan: &RestorePlan) -> String {
    format!(
        "{}: {} in {}, up to record {}",
        plan.manifest.id,
        ByteSize(plan.bytes()),
        output::counted(plan.segments.len() as u64, "segment"),
        output::thousands(plan.last.0),
    )
}

/// Restores into the data directory, which no process has open.
fn carry_out(common: &Common, local: &LocalSnapshots, plan: RestorePlan) -> Result<(), Failure> {
    let mut value = plan_json(&plan);
    let bar = Bar::new(common);
    let restored = local.snapshots.restore(plan, &bar);
    bar.finish();
    let restored = restored?;
    // Opening the data directory carries the swap out.
    let backend =
        Backend::find(Address { url: None, ..common.address() }, local.config.clone(), Stay::Brief, Absent::Make)?;
    let status = backend.call(Tool::GetStatus, json!({}))?;
    backend.close_soon();
    value["status"] = "restored".into();
    value["lsn"] = restored.checked.last.0.into();
    value["documents"] = status["documents"].clone();
    value["canaries"] = restored.checked.canaries.into();
    let old_data = Some(&restored.old_data).filter(|path| path.join("log").exists());
    value["old_data"] = json!(old_data);
    let kept = old_data.map_or_else(String::new, |path| {
        format!("; what was there is in {} until `cairn snapshot restore --drop-old`", path.display())
    });
    let documents = output::counted(status["documents"].as_u64().unwrap_or_default(), "document");
    print(
        common,
        &value,
        &format!("restored to record {}: {documents}{kept}", output::thousands(restored.checked.last.0)),
    )
}

fn plan_json(plan: &RestorePlan) -> Value {
    json!({
        "status": "planned", "snapshot": plan.manifest.id, "lsn": plan.last.0, "bytes": plan.bytes(),
        "segments": plan.segments.len(),
    })
}

/// The node does it itself, while it serves.
fn restore_running(common: &Common, node: &Backend, arguments: &RestoreArguments) -> Result<(), Failure> {
    let wanted = |dry_run: bool| {
        let mut wanted = json!({
            "id": arguments.id, "to_lsn": arguments.to_lsn,
            "to_time": arguments.to_time.map(|time| time.to_string()), "dry_run": dry_run,
            "confirm": if dry_run { Value::Null } else { "restore".into() },
        });
        // An older node knows no such argument.
        if let Some(named) = arguments.nodes.named() {
            wanted["node"] = named.into();
        }
        wanted
    };
    let plan = node.call(Tool::RestoreSnapshot, wanted(true))?;
    let text = format!(
        "{}: {} in {}, up to record {}; {} put aside",
        output::text(&plan, "snapshot"),
        output::size(&plan, "bytes"),
        output::counted(plan["segments"].as_u64().unwrap_or_default(), "segment"),
        output::count(&plan, "lsn"),
        output::counted(plan["records_set_aside"].as_u64().unwrap_or_default(), "later record"),
    );
    if arguments.dry_run {
        return print(common, &plan, &text);
    }
    if !arguments.yes {
        confirm(&format!("{text}\nGo back to this? The node starts again at the end."))?;
    }
    let done = call_with_progress(common, node, Tool::RestoreSnapshot, wanted(false), "restore")?;
    tell_restored(common, &done)
}

fn tell_restored(common: &Common, done: &Value) -> Result<(), Failure> {
    let then = match output::text(done, "status") {
        "restarting" => "the node starts again on it",
        _ => "it takes its place when the process that has the data directory open has ended",
    };
    let text = format!(
        "restored to record {}: {}; {then}; what was there is in {} until `cairn snapshot restore --drop-old`",
        output::count(done, "lsn"),
        output::counted(done["documents"].as_u64().unwrap_or_default(), "document"),
        output::text(done, "old_data"),
    );
    print(common, done, &text)
}

fn confirm(question: &str) -> Result<(), Failure> {
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(anyhow!("nothing was done").into()),
    }
}
