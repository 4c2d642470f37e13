//! `cairn doctor`: problems of a machine and of a node's data, their effects, and repairing the data from a snapshot.

mod gpu;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use super::backend::{Backend, expect_node};
use super::gpu::Device;
use super::{Common, Failure, in_cluster, install, output, owner, quiet_logs};
use crate::app;
use crate::base::{ByteSize, Clock as _, Lsn, SystemClock};
use crate::config::Config;
use crate::deploy::{Finding, Tree, checkup};
use crate::extraction;
use crate::index::vector::kernels;
use crate::mcp::Tool;
use crate::snapshot::Snapshots;
use crate::store::{self, Reader};

/// What root found about the machine, for the process that continues as the owner of the data: JSON, a list of [`Finding`].
const FOUND_AS_ROOT: &str = "DOCTOR_FOUND_AS_ROOT";
/// Documents named.
const NAMED: usize = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn doctor            check the machine, test its GPU, read every record, name damage and what it affects
  cairn doctor --repair   replace damaged segments with copies from the snapshots

Stop the node to read every byte. For a running node, doctor reports what the node knows and what is wrong with the machine.

Exit code 1 means that a problem was found.")]
pub(super) struct Arguments {
    /// Replace damaged log segments with copies from the snapshots
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    device: Device,
}

/// The findings about the machine, without its node.
struct Machine {
    findings: Vec<Finding>,
    /// Skipped on another machine.
    gpu: Option<gpu::SelfTest>,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let config = common.load()?;
    quiet_logs(&config);
    // Of another machine only its node can be asked.
    let in_cluster = if common.url.is_none() && in_cluster::is_meant(common, &config) {
        install::connection::checkup()
    } else {
        None
    };
    let is_in_cluster = in_cluster.is_some();
    let mut silent = None;
    let node = if is_in_cluster {
        match pods_node(common, &config) {
            Ok(node) => node,
            Err(failure) => {
                silent = Some(Finding::obstacle("node", failure.to_string()));
                None
            }
        }
    } else {
        Backend::running(common.address(), config.clone())?
    };
    let has_data = config.data_dir.join("log").exists() || config.data_dir.join("swap.json").exists();
    let mut findings = match (&common.url, &node) {
        (Some(_), _) => Vec::new(),
        (None, None) if has_data && !is_in_cluster => {
            let found: Vec<Finding> = match std::env::var(FOUND_AS_ROOT) {
                Ok(found) => serde_json::from_str(&found)?,
                Err(_) => examined(&config, vec![config.server.listen, config.admin_listen]),
            };
            owner::go_on_as_owner(&config.data_dir, || false, Some((FOUND_AS_ROOT, serde_json::to_string(&found)?)))?;
            found
        }
        (None, _) => examined(&config, Vec::new()),
    };
    findings.extend(in_cluster.into_iter().flatten());
    findings.extend(silent);
    if common.url.is_none() {
        findings.extend(parsers());
    }
    let gpu = common.url.is_none().then(|| gpu::self_test(arguments.device.software));
    if let Some(gpu::SelfTest::Broken { what }) = &gpu {
        findings.push(Finding::obstacle("gpu", format!("the GPU: {what}")));
    }
    let mut machine = Machine { findings, gpu };
    if let Some(node) = node {
        if arguments.repair {
            return Err(anyhow!("the node is running; stop it, repair, and start it again").into());
        }
        let status = match node.call(Tool::GetStatus, json!({})) {
            Ok(status) => status,
            // A node may go between the greeting and the question; what the machine lacks may be why.
            Err(failure) if common.url.is_none() => {
                machine.findings.push(Finding::obstacle("node", failure.to_string()));
                print_machine_only(common, &machine)?;
                return well(&machine);
            }
            Err(failure) => return Err(failure),
        };
        return running(common, &status, &machine);
    }
    if !has_data || is_in_cluster {
        print_machine_only(common, &machine)?;
        if is_in_cluster {
            // The data is in the pod's volume, and the pod has it open.
            return well(&machine);
        }
        return expect_node(&config);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let snapshots = app::snapshots(&config, runtime.handle().clone());
    let mut checkup = match examine(&config, &snapshots) {
        Ok(checkup) => checkup,
        Err(failure) => {
            // Problems of the machine may be the cause.
            print_machine_only(common, &machine)?;
            return Err(failure);
        }
    };
    if arguments.repair && !checkup.ranges.is_empty() {
        let mended = repair(&config, &snapshots, &checkup)?;
        checkup = examine(&config, &snapshots)?;
        checkup.mended = mended;
    }
    print_report(common, &checkup, arguments.repair, &machine)
}

/// The node in the pod of this machine's cluster.
fn pods_node(common: &Common, config: &Config) -> Result<Option<Backend>, Failure> {
    let mut common = common.clone();
    in_cluster::name_it(&mut common, config)?;
    Backend::running(common.address(), config.clone())
}

/// The problems of this machine.
///
/// * `listens`: the configured addresses of a node that is not running.
fn examined(config: &Config, listens: Vec<SocketAddr>) -> Vec<Finding> {
    let subject = checkup::Subject {
        data_dir: config.data_dir.clone(),
        listens,
        now: SystemClock.now(),
        released: crate::base::RELEASED,
    };
    checkup::examine(&Tree::machine(), &subject)
}

/// The problems of the processes that read documents.
fn parsers() -> Option<Finding> {
    match extraction::probe() {
        Ok(protections) if protections.is_confined() => None,
        Ok(protections) => Some(Finding::warning(
            "parsers",
            format!(
                "the processes that read documents could open files and connections; they are kept back by {protections} only. Let this container or unit filter its own system calls (seccomp, prctl)"
            ),
        )),
        Err(error) => {
            Some(Finding::obstacle("parsers", format!("no process to read documents in can be started: {error}")))
        }
    }
}

/// A report with the findings about the machine, its processor and its GPU; the last two are `null` on another machine.
fn with_machine(mut report: Value, machine: &Machine) -> Value {
    let findings = machine.findings.iter();
    let findings =
        findings.map(|found| json!({"about": found.about, "problem": found.is_obstacle, "message": found.message}));
    report["machine"] = findings.collect();
    report["cpu"] = machine
        .gpu
        .as_ref()
        .map(|_| json!({"architecture": std::env::consts::ARCH, "instructions": kernels::instructions()}))
        .into();
    report["gpu"] = machine.gpu.as_ref().map(gpu::SelfTest::as_json).into();
    report
}

/// The processor, and what it does for vectors.
fn cpu() -> String {
    let instructions = kernels::instructions();
    let used = if instructions.is_empty() { "no vector instructions".to_owned() } else { instructions.join(", ") };
    format!("{}: {used}", std::env::consts::ARCH)
}

fn print_machine(machine: &Machine) -> Result<(), Failure> {
    machine.findings.iter().try_for_each(|found| {
        let level = if found.is_obstacle { "problem" } else { "warning" };
        output::line(&format!("{level:<9}{}", found.message))
    })?;
    if machine.gpu.is_some() {
        output::line(&format!("cpu      {}", cpu()))?;
    }
    let gpu = machine.gpu.as_ref().and_then(gpu::SelfTest::words);
    gpu.map_or(Ok(()), |words| output::line(&format!("gpu      {words}")))
}

/// The findings if no data is accessible.
fn print_machine_only(common: &Common, machine: &Machine) -> Result<(), Failure> {
    if common.json {
        return output::json(&with_machine(json!({"running": false}), machine));
    }
    print_machine(machine)
}

/// A running node's own findings.
fn running(common: &Common, status: &Value, machine: &Machine) -> Result<(), Failure> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut problems = texts(&status["damage"]);
    let is_damaged = !problems.is_empty();
    problems.extend(status["writes_reason"].as_str().map(|reason| format!("writes are refused: {reason}")));
    let wrong = texts(&status["settings"]["problems"]);
    problems.extend(wrong.iter().map(|problem| format!("the changed settings are not used: {problem}")));
    let mut warnings = texts(&status["snapshots"]["warnings"]);
    warnings.extend(status["erasure_overdue_seconds"].as_u64().map(|seconds| {
        let holder = status["log_held_by"]["name"].as_str();
        let reason = holder.map_or_else(|| "see docs/durability.md".to_owned(), |name| format!("{name} holds the log"));
        format!("deleted content should have been erased {}: {reason}", super::snapshot::ago(seconds))
    }));
    let restart = texts(&status["settings"]["restart"]);
    warnings
        .extend((!restart.is_empty()).then(|| format!("settings changed and need a restart: {}", restart.join(", "))));
    warnings.extend(status["snapshots"]["problem"].as_str().map(|problem| format!("snapshots: {problem}")));
    if common.json {
        let report = json!({"running": true, "problems": problems, "warnings": warnings});
        output::json(&with_machine(report, machine))?;
    } else {
        print_machine(machine)?;
        problems.iter().try_for_each(|problem| output::line(&format!("problem  {problem}")))?;
        warnings.iter().try_for_each(|warning| output::line(&format!("warning  {warning}")))?;
        if problems.is_empty() {
            output::line(
                "the running node reports no problems; stop it and run this again for a full byte-level check",
            )?;
        }
    }
    match (problems.is_empty(), is_damaged) {
        (true, _) => well(machine),
        (false, true) => {
            Err(anyhow!("the log is damaged; stop the node, then run `cairn doctor`: it names what is affected").into())
        }
        (false, false) => Err(anyhow!("the node has problems; fix what is listed above").into()),
    }
}

/// Fails when the machine has a problem.
fn well(machine: &Machine) -> Result<(), Failure> {
    match machine.findings.iter().filter(|found| found.is_obstacle).count() {
        0 => Ok(()),
        1 => Err(anyhow!("the machine has a problem").into()),
        count => Err(anyhow!("the machine has {count} problems").into()),
    }
}

struct Checkup {
    node: String,
    last: Lsn,
    log_bytes: u64,
    dead_bytes: u64,
    damage: Vec<String>,
    affected: Vec<store::Affected>,
    ranges: Vec<(Lsn, Lsn)>,
    warnings: Vec<String>,
    mended: Vec<String>,
}

fn examine(config: &Config, snapshots: &Snapshots) -> Result<Checkup, Failure> {
    let store_config = store::Config::new(config.data_dir.clone(), Arc::new(SystemClock));
    let (writer, reader, report) = store::open(store_config)?;
    let affected = scrub(&reader)?;
    let backups = snapshots.check_target();
    let mut warnings = backups.warnings;
    match (backups.problem, backups.newest) {
        (Some(problem), _) => warnings.push(format!("snapshots: {problem}")),
        (None, None) => warnings.push("there is no snapshot; `cairn snapshot create` makes one".to_owned()),
        (None, Some(_)) => {}
    }
    let free = rustix::fs::statvfs(&config.data_dir)
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
        .with_context(|| format!("cannot ask for the free space of {}", config.data_dir.display()))?;
    let reserve = config.store.reserve_bytes.0;
    if free < reserve.saturating_mul(2) {
        let (free, reserve) = (ByteSize(free), ByteSize(reserve));
        warnings.push(format!("{free} of the disk are free; below {reserve} writes are refused"));
    }
    if report.torn_bytes > 0 {
        let bytes = ByteSize(report.torn_bytes);
        warnings.push(format!("{bytes} of an unfinished write were cut off; nothing acknowledged was in them"));
    }
    let checkup = Checkup {
        node: report.node.to_string(),
        last: reader.last(),
        log_bytes: reader.log_bytes(),
        dead_bytes: reader.dead_bytes(),
        damage: reader.damage().iter().map(ToString::to_string).collect(),
        affected,
        ranges: reader.damaged_segments(),
        warnings,
        mended: Vec::new(),
    };
    // Whether the catalog can be vouched for matters to the next start only.
    let _ = writer.close();
    Ok(checkup)
}

/// Reads every record, so that undiscovered damage is found now.
fn scrub(reader: &Reader) -> Result<Vec<store::Affected>, Failure> {
    reader.check_records()?;
    Ok(reader.affected(NAMED)?)
}

fn repair(config: &Config, snapshots: &Snapshots, checkup: &Checkup) -> Result<Vec<String>, Failure> {
    let store_config = store::Config::new(config.data_dir.clone(), Arc::new(SystemClock));
    let (writer, reader, _) = store::open(store_config)?;
    let history = reader.history();
    let _ = writer.close();
    drop(reader);
    let scratch = config.data_dir.join("restore").join("repair");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let mut messages = Vec::new();
    for mended in snapshots.sound_segments(&history, &checkup.ranges, &scratch)? {
        let (first, last) = (mended.range.0, Lsn(mended.range.1.0 - 1));
        match mended.row {
            Some(row) => {
                store::repair(&config.data_dir, &row).context("cannot put a sound segment into the log")?;
                messages.push(format!("records {first} to {last}: replaced from the snapshots"));
            }
            None => messages.push(format!("records {first} to {last}: no snapshot has them")),
        }
    }
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    Ok(messages)
}

fn print_report(common: &Common, checkup: &Checkup, repaired: bool, machine: &Machine) -> Result<(), Failure> {
    let is_well = checkup.damage.is_empty() && checkup.affected.is_empty();
    if common.json {
        let affected: Vec<Value> = checkup
            .affected
            .iter()
            .map(|one| json!({"collection": one.collection, "id": one.document, "passages": one.passages}))
            .collect();
        let report = json!({
            "running": false, "node": checkup.node, "lsn": checkup.last.0, "log_bytes": checkup.log_bytes,
            "dead_bytes": checkup.dead_bytes, "problems": checkup.damage, "affected": affected,
            "warnings": checkup.warnings, "repairs": checkup.mended,
        });
        output::json(&with_machine(report, machine))?;
    } else {
        print_machine(machine)?;
        checkup.mended.iter().try_for_each(|line| output::line(&format!("repair   {line}")))?;
        checkup.damage.iter().try_for_each(|line| output::line(&format!("damage   {line}")))?;
        for one in &checkup.affected {
            let what = match one.passages {
                None => "cannot be read".to_owned(),
                Some(count) => format!("lacks {}", output::counted(count as u64, "passage")),
            };
            output::line(&format!("affected {}/{} {what}", one.collection, one.document))?;
        }
        checkup.warnings.iter().try_for_each(|line| output::line(&format!("warning  {line}")))?;
        if is_well {
            let (log, dead) = (ByteSize(checkup.log_bytes), ByteSize(checkup.dead_bytes));
            let records = output::thousands(checkup.last.0);
            output::line(&format!("the log is whole: {log} up to record {records}, {dead} of it dead"))?;
        }
    }
    match (is_well, repaired) {
        (true, _) => well(machine),
        (false, false) => Err(anyhow!("the log is damaged; `cairn doctor --repair` looks for sound segments in the snapshots").into()),
        (false, true) => Err(anyhow!(
            "the log is still damaged; `cairn snapshot restore` goes back to a snapshot, and adding the affected documents again heals them"
        )
        .into()),
    }
}
