//! `cairn migrate apply`, `status` and `rollback`: a converted stack on a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::base::Fault;
use crate::cli::install::machine::confirm;
use crate::cli::{Common, Failure, output};
use crate::deploy::cluster::{Access, ObjectApi};
use crate::migrate::cutover::{
    self, Action, Applied, ApplyOptions, CutoverError, Input, MANAGER, ServiceStatus, Trouble, Undone,
};

/// Which cluster.
#[derive(Debug, clap::Args)]
struct ClusterArguments {
    /// Kubeconfig of the cluster [default: KUBECONFIG, else that of K3s on this machine, else ~/.kube/config]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

pub(super) const APPLY_EXAMPLES: &str = "\
Examples:
  cairn migrate apply k3s/ --dry-run
  cairn migrate apply k3s/ --yes --timeout 10m
  cairn migrate apply k3s/ --kubeconfig site.yaml --context site-7

The services are applied in phases: each after those that it refers to. The next phase starts when this one is ready: its pods are, its \
jobs have ended well, and its MCP servers answer initialize or server/discover, and tools/list. A phase that fails is undone: what it \
changed is as it was before, and what it created is deleted, except for claims, volumes and the namespace, because data is in them. \
The phases before it stay. What was there before is stored in Secrets of the namespace, for `cairn migrate rollback`.

Exit codes: 0 all is ready, 1 something failed or was undone, 2 the folder or the command line is wrong, or something is still to \
decide, 3 the cluster does not answer.";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  cairn migrate status k3s/
  cairn migrate status k3s/ --json

Exit codes: 0 all is ready, 1 something is not, 2 the folder or the command line is wrong, 3 the cluster does not answer.";

pub(super) const ROLLBACK_EXAMPLES: &str = "\
Examples:
  cairn migrate rollback k3s/
  cairn migrate rollback k3s/ --to 0 --yes

Without --to it returns to what was there before the last run of apply. Claims, volumes and the namespace stay; a Job is not run once \
more.";

#[derive(Debug, clap::Args)]
pub(super) struct ApplyArguments {
    /// Folder that `cairn migrate swarm` wrote
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Show each step and have the cluster check it; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// How long a phase may take to become ready
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = output::duration)]
    timeout: Duration,
    /// Apply although settings are still to decide, or something that pods refer to is missing
    #[arg(long)]
    accept_open: bool,
    /// Take over fields that others manage
    #[arg(long)]
    force_conflicts: bool,
    /// Do not ask this service whether it is an MCP server
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    skip_mcp: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    /// Folder that `cairn migrate swarm` wrote
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    #[command(flatten)]
    cluster: ClusterArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArguments {
    /// Folder that `cairn migrate swarm` wrote
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Return to the result of this run, 0 for what was there before the first [default: the run before the last]
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// Show what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A cluster, and what its requests run on.
struct Connection {
    api: ObjectApi,
    // Dropped last: the client uses it.
    _runtime: Runtime,
}

impl ClusterArguments {
    fn connect(&self) -> Result<Connection, Failure> {
        let access = Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let api = ObjectApi::connect(&access, MANAGER, runtime.handle().clone());
        let api = api.map_err(|error| failure(error.into()))?;
        Ok(Connection { api, _runtime: runtime })
    }
}

fn failure(error: CutoverError) -> Failure {
    match error.fault() {
        _ if error.is_unreachable() => Failure::unreachable(error),
        Fault::Caller => Failure::usage(error),
        _ => Failure::from(error),
    }
}

fn input(folder: &Path) -> Result<Input, Failure> {
    cutover::read(folder).map_err(|error| failure(error.into()))
}

/// The cluster, for people.
fn place(api: &ObjectApi, input: &Input) -> String {
    let context = if api.context().is_empty() { String::new() } else { format!(" (context {})", api.context()) };
    format!("namespace {} of {}{context}", input.namespace, api.server())
}

impl ApplyArguments {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let input = input(&self.folder)?;
        let options = ApplyOptions {
            force: self.force_conflicts,
            accept_open: self.accept_open,
            timeout: self.timeout,
            skip_mcp: self.skip_mcp.iter().cloned().collect(),
        };
        let connection = self.cluster.connect()?;
        let prepared = cutover::prepare(&connection.api, &input, &options).map_err(failure)?;
        let steps = prepared.steps();
        if !common.json {
            let title = output::bold(&format!("Stack {}", input.stack));
            output::line(&format!("{title} in the {}", place(&connection.api, &input)))?;
            print_steps(&steps)?;
        }
        for remark in &prepared.remarks {
            eprintln!("note: {remark}");
        }
        if self.dry_run {
            if common.json {
                return output::json(
                    &json!({"dry_run": true, "phases": steps_json(&steps), "remarks": prepared.remarks}),
                );
            }
            return output::line("The cluster would accept all of it. Nothing was changed.");
        }
        confirm(self.yes, "Apply this?")?;
        let applied = prepared.run(&|line| eprintln!("{line}")).map_err(failure)?;
        if common.json {
            output::json(&json!(applied))?;
        } else {
            print_applied(&applied)?;
        }
        if applied.is_complete() {
            return Ok(());
        }
        let failed = applied.phases.len() + 1;
        let folder = self.folder.display();
        Err(anyhow!(
            "phase {failed} of {} failed and was undone; the phases before it stay. `cairn migrate status {folder}` shows what runs, \
             `cairn migrate rollback {folder}` undoes those too",
            applied.phase_count
        )
        .into())
    }
}

fn print_steps(steps: &[(String, Vec<(String, Action)>)]) -> Result<(), Failure> {
    for (number, (title, objects)) in steps.iter().enumerate() {
        output::line(&format!("\n{}", output::bold(&format!("Phase {}: {title}", number + 1))))?;
        for (object, action) in objects {
            output::line(&format!("  {:<9} {object}", action.as_str()))?;
        }
    }
    output::line("")
}

fn steps_json(steps: &[(String, Vec<(String, Action)>)]) -> Value {
    let object = |(object, action): &(String, Action)| json!({"object": object, "action": action.as_str()});
    let phase = |(title, objects): &(String, Vec<(String, Action)>)| json!({"title": title, "objects": objects.iter().map(object).collect::<Vec<_>>()});
    steps.iter().map(phase).collect()
}

fn print_applied(applied: &Applied) -> Result<(), Failure> {
    for phase in &applied.phases {
        output::line(&format!("ready    {} ({} s)", phase.title, phase.seconds))?;
    }
    for Trouble { object, reason, details, log } in &applied.troubles {
        output::line(&format!("failed   {object}: {reason}"))?;
        for detail in details {
            output::line(&format!("         {detail}"))?;
        }
        for line in log.lines() {
            output::line(&output::dim(&format!("         | {line}")))?;
        }
    }
    print_undone(&applied.undone)?;
    match applied.is_complete() {
        true => output::line(&format!("Run {}: all of it is ready.", applied.revision)),
        false => Ok(()),
    }
}

fn print_undone(undone: &[Undone]) -> Result<(), Failure> {
    for one in undone {
        let verb = if one.is_failure { "problem" } else { "undone" };
        output::line(&format!("{verb:<8} {}: {}", one.object, one.outcome))?;
    }
    Ok(())
}

impl StatusArguments {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let input = input(&self.folder)?;
        let connection = self.cluster.connect()?;
        let (services, runs) = cutover::status(&connection.api, &input).map_err(failure)?;
        let unready = services.iter().filter(|service| !service.is_ready).count();
        if common.json {
            output::json(&json!({"namespace": input.namespace, "services": services, "runs": runs}))?;
        } else {
            let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let row = |service: &ServiceStatus| {
                let mcp = service.mcp.as_ref().map_or_else(|| "-".to_owned(), |server| server.words());
                let (wanted, ready) = (number(service.wanted), number(service.ready));
                vec![service.name.clone(), service.kind.clone(), wanted, ready, mcp, service.reason.clone()]
            };
            let header = ["service", "kind", "wanted", "ready", "mcp", "why not"];
            output::table(&header, &["wanted", "ready"], services.iter().map(row).collect())?;
            for run in &runs {
                output::line(&format!(
                    "Run {} at {}: {}",
                    run.revision,
                    run.time,
                    run.state.as_str().replace('_', " ")
                ))?;
            }
        }
        match unready {
            0 => Ok(()),
            unready => Err(anyhow!("{unready} of {} services are not ready", services.len()).into()),
        }
    }
}

impl RollbackArguments {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let input = input(&self.folder)?;
        let connection = self.cluster.connect()?;
        let rollback = cutover::prepare_rollback(&connection.api, &input, self.to).map_err(failure)?;
        let steps = rollback.steps();
        if !common.json {
            let runs: Vec<String> = rollback.revisions().iter().map(u64::to_string).collect();
            output::line(&format!("Undoing run {} in the {}", runs.join(", "), place(&connection.api, &input)))?;
            for (object, word) in &steps {
                output::line(&format!("  {word:<8} {object}"))?;
            }
        }
        if self.dry_run {
            if common.json {
                let steps: Vec<Value> =
                    steps.iter().map(|(object, word)| json!({"object": object, "action": word})).collect();
                return output::json(&json!({"dry_run": true, "runs": rollback.revisions(), "steps": steps}));
            }
            return output::line("Nothing was changed.");
        }
        confirm(self.yes, "Undo this? Claims, volumes and the namespace stay.")?;
        let undone = rollback.run().map_err(failure)?;
        if common.json {
            output::json(&json!({"runs": rollback.revisions(), "undone": undone}))?;
        } else {
            print_undone(&undone)?;
        }
        match undone.iter().filter(|one| one.is_failure).count() {
            0 => Ok(()),
            failed => Err(anyhow!("{failed} objects were not restored; fix the reason and run this again").into()),
        }
    }
}
