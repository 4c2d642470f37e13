//! `cairn snapshot`: backups, their proof, and the way back.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::anyhow;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::backend::{Absent, Address, Backend, Stay, expect_node, holds_node};
use super::{Common, Failure, output, quiet_logs};
use crate::app::{self, RunningNode};
use crate::base::{ByteSize, Lsn, UnixMillis};
use crate::config::Config;
use crate::mcp::{Tool, prune_json, schedule_json, snapshots_json, verified_json};
use crate::snapshot::{EXTENSION, Key, Progress, REBUILDING, RestorePlan, RestoreTarget, Snapshots, Target, Whose};

/// How often a node that works is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn snapshot create                                  back up, beside the data or where snapshot.target says
  cairn snapshot list                                    what is there, and what should be there and is not
  cairn snapshot verify                                  prove that the newest can be restored
  cairn snapshot restore --to-time 2026-07-28T09:30:00Z  go back to a moment
  cairn snapshot export /media/stick/                    the newest in one file")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take a snapshot; copies only what the last one does not have
    #[command(after_help = "\
Examples:
  cairn snapshot create --json
  cairn snapshot create --begin-anew   on a new disk in the place of one that is lost

A place that is gone, empty, or holds another repository, though this node put snapshots there, is refused: its disk may \
only not be mounted.")]
    Create {
        /// Go on without snapshots that are missing, and take the place where they went as it is now
        #[arg(long)]
        begin_anew: bool,
    },
    /// List this node's snapshots, newest first
    #[command(after_help = "\
Examples:
  cairn snapshot list
  cairn snapshot list --any          those of other nodes too, in a repository that several share

Exit code 1 means that snapshots are missing, that the place where they go cannot be seen, or that the last one failed.")]
    List(Nodes),
    /// Prove a snapshot: fetch it, check every byte, rebuild the indexes, ask its questions again
    #[command(after_help = "\
Examples:
  cairn snapshot verify
  cairn snapshot verify 20260728T093000Z-1234

Exit code 1 means that the snapshot is not what it should be, every file with something wrong is named; or that a newer one \
is missing.")]
    Verify {
        /// Which one [default: the newest]
        id: Option<String>,
    },
    /// Go back to a snapshot, a position of the log, or a moment
    #[command(after_help = "\
Examples:
  cairn snapshot restore --dry-run
  cairn snapshot restore 20260728T093000Z-1234 --yes
  cairn snapshot restore --to-time 2026-07-28T09:30:00Z
  cairn snapshot restore backup.cairn-snapshot
  cairn snapshot restore --node 904ab9d5   another node's newest, in a repository that several share
  cairn snapshot restore --drop-old

The old state is built and checked beside the data, then takes its place; until then nothing changes, also when it is \
interrupted. A running node does it while it serves and starts again at the end. What was there before stays in \
before-restore-… of the data directory until --drop-old.")]
    Restore(RestoreArguments),
    /// Write a snapshot to one file, for a disk that is carried
    #[command(
        after_help = "Examples:\n  cairn snapshot export /media/stick/\n  cairn snapshot export backup.cairn-snapshot --id 20260728T093000Z-1234"
    )]
    Export {
        /// The file, or a folder for it
        path: PathBuf,
        /// Which snapshot [default: the newest]
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Put the snapshot of a file among the others
    #[command(after_help = "Example:\n  cairn snapshot import backup.cairn-snapshot && cairn snapshot restore")]
    Import {
        /// A file that `export` wrote
        path: PathBuf,
    },
    /// Remove snapshots that the settings do not keep
    #[command(after_help = "\
Examples:
  cairn snapshot prune --dry-run
  cairn snapshot prune --node 904ab9d5   those of a node that is gone, by this node's settings

Nothing is removed while a snapshot that should be there is missing.")]
    Prune {
        /// Say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Show what runs when, and how it went
    #[command(after_help = "Example:\n  cairn snapshot schedule --json")]
    Schedule,
    /// Make a key for an encrypted repository
    #[command(
        args(super::on_its_own()),
        after_help = "\
Example:
  cairn snapshot keygen /etc/cairn/snapshot.key

Then set snapshot.encryption_key_file to it. Keep a copy elsewhere: without the key nobody reads the snapshots."
    )]
    Keygen {
        /// A file that does not exist yet
        path: PathBuf,
    },
}

/// Whose snapshots are meant.
#[derive(Debug, clap::Args)]
struct Nodes {
    /// Another node: the first digits of its id, as `list --any` shows it
    #[arg(long, value_name = "ID", conflicts_with = "any")]
    node: Option<String>,
    /// All nodes that write to the same place
    #[arg(long)]
    any: bool,
}

impl Nodes {
    /// As the tools take it.
    fn named(&self) -> Option<&str> {
        if self.any { Some("any") } else { self.node.as_deref() }
    }

    fn whose(&self) -> Result<Whose, Failure> {
        Whose::read(self.named()).map_err(Failure::usage)
    }
}

#[derive(Debug, clap::Args)]
struct RestoreArguments {
    /// Id of a snapshot, or a file that `export` wrote [default: the newest snapshot]
    #[arg(conflicts_with_all = ["to_lsn", "to_time"])]
    id: Option<String>,
    /// Position of the log to go back to
    #[arg(long, value_name = "LSN", conflicts_with = "to_time", value_parser = output::whole::<u64>(0..=u64::MAX))]
    to_lsn: Option<u64>,
    /// Moment to go back to, such as 2026-07-28T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to_time: Option<UnixMillis>,
    /// Say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Remove what earlier restores put aside, and do nothing else
    #[arg(long, conflicts_with_all = ["id", "to_lsn", "to_time", "yes", "dry_run"])]
    drop_old: bool,
    #[command(flatten)]
    nodes: Nodes,
}

fn moment(text: &str) -> Result<UnixMillis, String> {
    text.parse().map_err(|_| "expected a date and time with its zone, such as 2026-07-28T09:30:00Z".to_owned())
}

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
            say(common, &json!({"key_file": path}), &format!("wrote {}; {next}", path.display()))
        }
    }
}

/// What works without a node.
struct Desk {
    config: Config,
    snapshots: Snapshots,
    // Dropped last: the snapshots use it.
    _runtime: Runtime,
}

impl Desk {
    fn open(common: &Common) -> Result<Self, Failure> {
        if common.url.is_some() {
            let hint = "snapshots are files: run this on the node's machine, or with its settings, without --url";
            return Err(Failure::usage(anyhow!(hint)));
        }
        let mut config = common.load()?;
        quiet_logs(&config);
        // The node's own settings count, whatever this command was told.
        if Backend::running(common.address(), config.clone())?.is_some()
            && let Some(place) = RunningNode::read(&config.data_dir).and_then(|running| running.snapshots)
        {
            (config.snapshot.target, config.snapshot.key_file) = (place.target, place.key_file);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let snapshots = app::snapshots(&config, runtime.handle().clone());
        Ok(Self { config, snapshots, _runtime: runtime })
    }

    /// The same for verbs that need what is there already: on a wrong path nothing was lost, and nothing is there.
    fn existing(common: &Common) -> Result<Self, Failure> {
        let desk = Self::open(common)?;
        // One that is set may have been forgotten by this machine, not by its disk or bucket.
        let has_target = match desk.snapshots.target() {
            Target::Directory(path) => desk.config.snapshot.target.is_some() || path.exists(),
            Target::Bucket(_) => true,
        };
        // Nor can anything be said where this user may not look.
        if !has_target || holds_node(&desk.config.data_dir).is_err() {
            expect_node(&desk.config)?;
        }
        Ok(desk)
    }
}

/// The node at the address, or the one that runs on the data directory.
fn running(common: &Common) -> Result<Option<Backend>, Failure> {
    let config = common.load()?;
    quiet_logs(&config);
    Backend::running(common.address(), config)
}

fn say(common: &Common, value: &Value, text: &str) -> Result<(), Failure> {
    if common.json { output::json(value) } else { output::line(text) }
}

fn create(common: &Common, begin_anew: bool) -> Result<(), Failure> {
    // An older node knows no such argument.
    let arguments = if begin_anew { json!({"begin_anew": true}) } else { json!({}) };
    let answer = call_shown(common, &common.backend()?, Tool::CreateSnapshot, arguments, "create")?;
    let text = format!(
        "{}: {} up to record {}, {} of it new, in {}",
        output::text(&answer, "id"),
        output::size(&answer, "bytes"),
        output::count(&answer, "lsn"),
        output::size(&answer, "new_bytes"),
        output::text(&answer, "target"),
    );
    say(common, &answer, &text)?;
    for damage in answer["damage"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("the log was damaged before: {damage}");
    }
    // This one is there and was read back; what else is wrong is no failure of it.
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
        None => snapshots_json(&Desk::existing(common)?.snapshots, &nodes.whose()?)?,
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

fn show_list(answer: &Value) -> Result<(), Failure> {
    let others = answer["others"].as_array().map(Vec::as_slice).unwrap_or_default();
    let tell_others = || {
        others.iter().try_for_each(|other| {
            let host = other["host"].as_str().map_or_else(String::new, |host| format!(" on {host}"));
            output::line(&format!(
                "node {}{host} has {} there too, the newest {}; --node or --any lists them",
                output::text(other, "node"),
                output::counted(other["snapshots"].as_u64().unwrap_or_default(), "snapshot"),
                output::text(other, "newest"),
            ))
        })
    };
    let listed = answer["snapshots"].as_array().map(Vec::as_slice).unwrap_or_default();
    if listed.is_empty() {
        // Where they should be, what follows says so.
        if answer["problem"].is_null() {
            let whose = if others.is_empty() { "" } else { " of this node" };
            let target = output::text(answer, "target");
            let next = match &answer["elsewhere"] {
                Value::Null => "`cairn snapshot create` makes one".to_owned(),
                other => {
                    format!("its newest, {}, went to {}", output::text(other, "newest"), output::text(other, "target"))
                }
            };
            output::line(&format!("no snapshots{whose} in {target}; {next}"))?;
        }
        return tell_others();
    }
    let nodes: BTreeSet<&str> = listed.iter().filter_map(|snapshot| snapshot["node"].as_str()).collect();
    let shows_node = nodes.len() > 1;
    let rows = listed.iter().map(|snapshot| {
        let id = output::text(snapshot, "id").to_owned();
        let node = snapshot["node"].as_str().and_then(|node| node.get(..8)).unwrap_or_default();
        let node = shows_node.then(|| node.to_owned());
        if snapshot["problem"].is_string() {
            return [id].into_iter().chain(node).chain(["unreadable".to_owned()]).collect();
        }
        [id].into_iter()
            .chain(node)
            .chain([
                output::text(snapshot, "kind").to_owned(),
                output::text(snapshot, "created").to_owned(),
                output::count(snapshot, "lsn"),
                output::size(snapshot, "bytes"),
                output::size(snapshot, "new_bytes"),
                output::text(snapshot, "verified_at").to_owned(),
            ])
            .collect()
    });
    let titles = ["id"]
        .into_iter()
        .chain(shows_node.then_some("node"))
        .chain(["kind", "time", "lsn", "size", "new", "verified"]);
    output::table(&titles.collect::<Vec<_>>(), &["lsn", "size", "new"], rows.collect())?;
    // A column would be as wide as the longest of them. Those of one reason are told together.
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for snapshot in listed {
        let Some(problem) = snapshot["problem"].as_str() else { continue };
        let id = output::text(snapshot, "id");
        match reasons.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, ids)) => ids.push(id),
            None => reasons.push((problem, vec![id])),
        }
    }
    for (problem, ids) in reasons {
        let which = if ids.len() == listed.len() && ids.len() > 1 { "all".to_owned() } else { ids.join(", ") };
        output::line(&format!("\nunreadable, {which}: {problem}"))?;
    }
    tell_others()
}

fn verify(common: &Common, id: Option<&str>) -> Result<(), Failure> {
    let newest = id.is_none();
    let value = match running(common)? {
        Some(node) => shown(common, &node, "verify", || node.verify_snapshot(id))?,
        None => None,
    };
    let value = match value {
        Some(value) => value,
        None => {
            let desk = Desk::existing(common)?;
            let bar = Bar::new(common);
            let verified = desk.snapshots.verify(id, &bar);
            bar.finish();
            verified_json(&desk.snapshots, &verified?)
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
        return Err(
            anyhow!("snapshot {id} is not what it should be; take a new one with `cairn snapshot create`").into()
        );
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
    say(common, &value, &text)?;
    // Asked about one, the answer is about that one; asked about the newest, it is whether the backups are good.
    match value["problem"].as_str().filter(|_| newest) {
        Some(problem) => Err(anyhow!("{problem}").into()),
        None => Ok(()),
    }
}

fn drop_old(common: &Common) -> Result<(), Failure> {
    let removed = Desk::existing(common)?.snapshots.drop_old()?;
    let text = match removed.len() {
        0 => "there is nothing from an earlier restore".to_owned(),
        _ => removed.iter().map(|path| format!("removed {}", path.display())).collect::<Vec<_>>().join("\n"),
    };
    say(common, &json!({"removed": removed}), &text)
}

fn restore(common: &Common, arguments: &RestoreArguments) -> Result<(), Failure> {
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
    let desk = Desk::open(common)?;
    let plan = desk.snapshots.plan(&target, &arguments.nodes.whose()?)?;
    let text = plan_text(&plan);
    if arguments.dry_run {
        return say(common, &plan_json(&plan), &text);
    }
    if !arguments.yes {
        confirm(&format!("{text}\nPut what is in {} aside and go back to this?", desk.config.data_dir.display()))?;
    }
    carry_out(common, &desk, plan)
}

/// Goes back to what a file holds: nothing is done, not even among the snapshots, before it was said what.
fn restore_file(common: &Common, arguments: &RestoreArguments, path: &std::path::Path) -> Result<(), Failure> {
    let desk = Desk::open(common)?;
    let plan = desk.snapshots.plan_file(path)?;
    let text = plan_text(&plan);
    if arguments.dry_run {
        return say(common, &plan_json(&plan), &text);
    }
    let running = Backend::running(common.address(), desk.config.clone())?;
    if !arguments.yes {
        let then = if running.is_some() { " The node starts again at the end." } else { "" };
        let place = desk.config.data_dir.display();
        confirm(&format!("{text}\nPut what is in {place} aside and go back to this?{then}"))?;
    }
    let bar = Bar::new(common);
    let imported = desk.snapshots.import(path, &bar);
    bar.finish();
    let imported = imported?;
    let Some(node) = running else {
        let target = RestoreTarget::Snapshot(imported.id);
        let plan = desk.snapshots.plan(&target, &Whose::Any)?;
        return carry_out(common, &desk, plan);
    };
    // Whoever named the file named its node.
    let wanted = json!({"id": imported.id, "node": "any", "confirm": "restore"});
    let done = call_shown(common, &node, Tool::RestoreSnapshot, wanted, "restore")?;
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

/// Restores into the data directory, which nobody has open.
fn carry_out(common: &Common, desk: &Desk, plan: RestorePlan) -> Result<(), Failure> {
    let mut value = plan_json(&plan);
    let bar = Bar::new(common);
    let restored = desk.snapshots.restore(plan, &bar);
    bar.finish();
    let restored = restored?;
    // Opening the data directory carries the swap out.
    let backend =
        Backend::find(Address { url: None, ..common.address() }, desk.config.clone(), Stay::Brief, Absent::Make)?;
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
    say(
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
        return say(common, &plan, &text);
    }
    if !arguments.yes {
        confirm(&format!("{text}\nGo back to this? The node starts again at the end."))?;
    }
    let done = call_shown(common, node, Tool::RestoreSnapshot, wanted(false), "restore")?;
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
    say(common, done, &text)
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

fn export(common: &Common, path: &std::path::Path, id: Option<&str>, nodes: &Nodes) -> Result<(), Failure> {
    let desk = Desk::existing(common)?;
    let whose = nodes.whose()?;
    let bar = Bar::new(common);
    let id = match id {
        Some(id) => id.to_owned(),
        None => desk.snapshots.newest_id(&whose)?,
    };
    let to = output::file_at(path, || Ok(format!("{id}.{EXTENSION}")))?;
    let exported = desk.snapshots.export(&id, &to, &bar);
    bar.finish();
    let (id, bytes) = exported?;
    let text = format!("{id}: {} in {}", ByteSize(bytes), to.display());
    say(common, &json!({"id": id, "path": to, "bytes": bytes}), &text)
}

fn import(common: &Common, path: &std::path::Path) -> Result<(), Failure> {
    let desk = Desk::open(common)?;
    let bar = Bar::new(common);
    let imported = desk.snapshots.import(path, &bar);
    bar.finish();
    let manifest = imported?;
    let target = desk.snapshots.target().to_string();
    let text = format!("{}: {} in {target}", manifest.id, ByteSize(manifest.bytes()));
    say(common, &json!({"id": manifest.id, "target": target, "bytes": manifest.bytes()}), &text)
}

fn prune(common: &Common, dry_run: bool, nodes: &Nodes) -> Result<(), Failure> {
    let value = match running(common)? {
        Some(node) => node.prune_snapshots(nodes.named(), dry_run)?,
        None => None,
    };
    let value = match value {
        Some(value) => value,
        None => prune_json(&Desk::existing(common)?.snapshots, &nodes.whose()?, dry_run)?,
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
    say(common, &value, &text)?;
    let unreadable = names("unreadable");
    if !unreadable.is_empty() {
        let ids = unreadable.join(", ");
        eprintln!("no segment was removed, because snapshots that cannot be read may need it: {ids}");
    }
    Ok(())
}

fn schedule(common: &Common) -> Result<(), Failure> {
    let told = match running(common)? {
        Some(node) => node.snapshot_schedule()?,
        None => None,
    };
    let told = match told {
        Some(told) => told,
        None => schedule_json(&Desk::existing(common)?.snapshots),
    };
    if common.json {
        output::json(&told)?;
    } else {
        show_schedule(&told)?;
    }
    match told["problem"].as_str() {
        Some(problem) => Err(anyhow!("{problem}").into()),
        None => Ok(()),
    }
}

fn show_schedule(told: &Value) -> Result<(), Failure> {
    let line = |label: &str, value: String| output::line(&format!("{label:<12}{value}"));
    let number = |name: &str| told[name].as_u64();
    line("target", output::text(told, "target").to_owned())?;
    if told["scheduled"] == true {
        let every = output::count(told, "interval_seconds");
        line("ships", format!("every {every} s, if the log changed"))?;
        line("snapshot", "the first one of each day, in UTC".to_owned())?;
    } else {
        line("ships", "off; set snapshot.target".to_owned())?;
    }
    match number("verify_interval_seconds").unwrap_or_default() {
        0 => line("proof", "off".to_owned())?,
        seconds => line("proof", format!("every {} h", seconds.div_ceil(3_600)))?,
    }
    let cap = number("max_bytes").map_or_else(String::new, |most| format!(", within {}", ByteSize(most)));
    line(
        "keeps",
        format!(
            "{} daily, {} weekly, {} monthly, all of the last {} h{cap}",
            output::count(told, "daily"),
            output::count(told, "weekly"),
            output::count(told, "monthly"),
            number("point_in_time_seconds").unwrap_or_default() / 3_600
        ),
    )?;
    let is_known = matches!(output::text(told, "state"), "ok" | "new" | "failing" | "unproved");
    let none = if is_known { "none yet" } else { "unknown" };
    for (label, id, age) in [("newest", "newest", "age_seconds"), ("proved", "verified", "verified_age_seconds")] {
        let known = told[id].as_str().zip(number(age));
        line(label, known.map_or_else(|| none.to_owned(), |(id, age)| format!("{id}, {}", ago(age))))?;
    }
    let warnings = told["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    warnings.map(str::to_owned).try_for_each(|warning| line("warning", warning))
}

/// `5 minutes ago`
pub(super) fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", output::counted(count, unit))
}

/// `create: copying, 40 %`
pub(super) fn under_way(work: &Value) -> String {
    let (name, step) = (output::text(work, "work"), output::text(work, "step"));
    let share = work["done"].as_u64().unwrap_or_default() * 100;
    match share.checked_div(work["total"].as_u64().unwrap_or_default()) {
        Some(percent) => format!("{name}: {step}, {percent} %"),
        None => format!("{name}: {step}"),
    }
}

/// Calls a tool that takes long, and shows how far the node says that it is.
///
/// * `work`: what the node's status calls it.
fn call_shown(common: &Common, node: &Backend, tool: Tool, arguments: Value, work: &str) -> Result<Value, Failure> {
    shown(common, node, work, || node.call(tool, arguments))
}

/// The same for any question.
fn shown<T>(
    common: &Common,
    node: &Backend,
    work: &str,
    ask: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let bar = Bar::new(common);
    if bar.bar.is_hidden() {
        return ask();
    }
    let answer = std::thread::scope(|scope| {
        let (over, waiting) = std::sync::mpsc::channel::<()>();
        let bar = &bar;
        scope.spawn(move || {
            while waiting.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // Without an answer the bar stands still; the call itself tells what is wrong.
                let Some(status) = node.peek() else { continue };
                let under_way = status["snapshots"]["under_way"].as_array();
                if let Some(now) = under_way.into_iter().flatten().find(|now| now["work"] == work) {
                    let number = |name: &str| now[name].as_u64().unwrap_or_default();
                    bar.show(output::text(now, "step"), number("done"), number("total"));
                }
            }
        });
        let answer = ask();
        drop(over);
        answer
    });
    bar.finish();
    answer
}

/// A bar with the time that is left, on a terminal.
struct Bar {
    bar: ProgressBar,
    /// The step that is shown.
    step: Mutex<String>,
}

impl Bar {
    fn new(common: &Common) -> Self {
        let bar = if output::is_watched(common) { ProgressBar::no_length() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{elapsed}").expect("the template is valid"));
        // So that the time moves where nothing else does.
        bar.enable_steady_tick(ASK_EVERY);
        Self { bar, step: Mutex::default() }
    }

    fn show(&self, step: &str, done: u64, total: u64) {
        let mut shown = self.step.lock();
        if *shown != step {
            step.clone_into(&mut shown);
            let template = match (step, total) {
                (_, 0) => "{msg:12} {elapsed}",
                (REBUILDING, _) => "{msg:12} {wide_bar} {human_pos:>10} / {human_len:10} records {eta:>6} left",
                _ => "{msg:12} {wide_bar} {bytes:>10} / {total_bytes:10} {eta:>6} left",
            };
            self.bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
            self.bar.reset();
            self.bar.set_message(shown.clone());
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn report(&self, step: &'static str, done: u64, total: u64) {
        self.show(step, done, total);
    }
}
