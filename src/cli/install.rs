//! `cairn install`, `rollback`, `uninstall`: Cairn onto this machine, back, and off again.
//!
//! An installation is a line: arguments → choices → what is prepared, for a service or for a pod → agreement → change → what clients need. Each
//! module uses only those before it, and `tests/it/layers.rs` holds that.
//!
//! Invariants: the plan is shown and agreed to before anything is written. One change at a time: a lock in `/run` refuses a second one.

mod arguments;
mod bundle;
mod choices;
pub(super) mod connection;
mod lasting;
pub(super) mod machine;
mod pod;
mod prepared;
mod service;
mod show;
mod staged;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;

use self::arguments::PlatformArgument;
pub(super) use self::arguments::{Arguments, RollbackArguments, UninstallArguments};
pub(super) use self::bundle::add_waiting;
use self::connection::Connection;
use self::lasting::{FirstFiles, write_missing};
use self::machine::{below, confirm, confirm_path, lock, need_root, remaining_folders, reporter, show_step, tree_of};
use self::pod::{Pod, PodAccess, publish_authority};
use self::prepared::PreparedInstallation;
use self::staged::{NoNode, Staged};
use super::{Common, Failure};
use crate::api;
use crate::deploy::{
    Change, ChangeError, Changed, ClusterNode, Host, Installation, Node, Platform, Role, Runner, Systemd, Tree,
};

/// How long a node may take to end before it is removed.
const REMOVAL: Duration = Duration::from_secs(300);

/// What runs the node, and how clients reach it.
enum Target {
    Service(Box<api::Settings>),
    Pod(Box<Pod>),
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.bundle {
        return bundle::run(common, arguments, file);
    }
    let tree = tree_of(arguments)?;
    let (prepared, target) = prepare(&tree, arguments)?;
    let is_possible = show::proposed(common.json, arguments.dry_run, &prepared)?;
    if !is_possible {
        return Err(anyhow!("nothing was changed; fix what is listed above and run this again").into());
    }
    if arguments.dry_run {
        return Ok(());
    }
    confirm(arguments.yes, "Do this?")?;
    let _lock = lock(&tree)?;
    let changed = change(&tree, &prepared, &target, Duration::from_secs(arguments.timeout))?;
    if !tree.is_machine() {
        return show::staged(common.json, &changed);
    }
    match &target {
        Target::Service(server) => show::service(common.json, &changed, server),
        Target::Pod(pod) => {
            let Some(connection) = &pod.connection else { return show::staged(common.json, &changed) };
            connection.record_address(&tree)?;
            publish_authority(&connection.cluster, &pod.settings)?;
            show_step("proving the addresses");
            show::pod(common.json, &changed, &PodAccess::of(pod, &connection.cluster, &tree)?)
        }
    }
}

/// Works out what is going to be done, for what runs the node here.
fn prepare(tree: &Tree, arguments: &Arguments) -> Result<(PreparedInstallation, Target), Failure> {
    let host = Host::detect(tree)?;
    if platform(&host, arguments, tree)? == Platform::K3s {
        // An image is made before K3s ever ran on it.
        let node = host.cluster.filter(|node| node.role == Role::Server).unwrap_or_else(ClusterNode::unseen);
        let (prepared, pod) = pod::prepare(tree, node, arguments)?;
        return Ok((prepared, Target::Pod(Box::new(pod))));
    }
    let has_values = arguments.values.is_some() || !arguments.set.is_empty();
    if arguments.node_size.is_some() || !arguments.with.is_empty() || has_values {
        let hint = "--node-size, --with, --values and --set are for K3s; under systemd the settings are in";
        return Err(Failure::usage(anyhow!("{hint} {}", machine::CONFIG)));
    }
    let (prepared, server) = service::prepare(tree, arguments)?;
    Ok((prepared, Target::Service(Box::new(server))))
}

/// Does what was prepared.
///
/// * `patience`: how long the node may take to be ready.
fn change(
    tree: &Tree,
    prepared: &PreparedInstallation,
    target: &Target,
    patience: Duration,
) -> Result<Changed, Failure> {
    let PreparedInstallation { release, program, lasting, choices, .. } = prepared;
    let first_files = FirstFiles::before(tree, lasting)?;
    if matches!(target, Target::Pod(_)) {
        // Before the manifests that carry the token.
        write_missing(tree, lasting).map_err(|error| anyhow!(error))?;
    }
    let install = |runner: &mut dyn Runner, node: &mut dyn Node| {
        Change { tree, runner, node, report: reporter(tree) }.install(release, program, choices.to_record())
    };
    let connection = match target {
        Target::Pod(pod) => pod.connection.as_ref(),
        Target::Service(_) => None,
    };
    first_files.after(match (connection, target) {
        (Some(connection), _) => connection.with(tree, patience, install),
        (None, Target::Service(_)) if tree.is_machine() => {
            let outliving = || write_missing(tree, lasting);
            install(&mut Systemd::new(Box::new(outliving)), &mut service::node(tree, patience))
        }
        (None, _) => install(&mut Staged { tree, lasting }, &mut NoNode),
    })
}

/// How the node is to run here.
fn platform(host: &Host, arguments: &Arguments, tree: &Tree) -> Result<Platform, Failure> {
    let server = host.cluster.as_ref().filter(|node| node.role == Role::Server);
    let agent = host.cluster.as_ref().filter(|node| node.role == Role::Agent);
    match (arguments.platform, server, agent) {
        (Some(PlatformArgument::Systemd), _, _) | (None, None, None) if host.has_systemd || !tree.is_machine() => {
            Ok(Platform::Systemd)
        }
        (Some(PlatformArgument::K3s), Some(_), _) | (None, Some(_), _) => Ok(Platform::K3s),
        // In an image nothing of K3s need be there yet.
        (Some(PlatformArgument::K3s), None, _) if !tree.is_machine() => Ok(Platform::K3s),
        (None, None, Some(agent)) => Err(anyhow!(agent_hint(agent)).into()),
        (Some(PlatformArgument::K3s), None, _) => {
            Err(anyhow!("this machine is not a K3s or RKE2 server; run this on the server, or use --for systemd")
                .into())
        }
        (Some(PlatformArgument::Systemd) | None, _, _) => Err(anyhow!(
            "this machine has neither K3s nor systemd; `cairn serve` runs the node under any other supervisor"
        )
        .into()),
    }
}

fn agent_hint(agent: &ClusterNode) -> String {
    format!(
        "this machine is an agent of {}, and manifests are applied by servers only. Put the image here with \
         `cairn image build -o {}/cairn.tar`, and on a server run `cairn install`; `--for systemd` installs a service here instead",
        agent.distribution,
        agent.images().display()
    )
}

/// Works on the node that is installed, with what runs it and what asks it.
fn at_node<T>(
    tree: &Tree,
    record: &Installation,
    patience: Duration,
    work: impl FnOnce(&mut dyn Runner, &mut dyn Node) -> T,
) -> Result<T, Failure> {
    if !tree.is_machine() {
        return Ok(work(&mut Staged { tree, lasting: &[] }, &mut NoNode));
    }
    match record.platform {
        Platform::Systemd => Ok(work(&mut Systemd::new(Box::new(|| Ok(()))), &mut service::node(tree, patience))),
        Platform::K3s => Ok(Connection::of(tree, record)?.with(tree, patience, work)),
    }
}

pub(super) fn rollback(common: &Common, arguments: &RollbackArguments) -> Result<(), Failure> {
    let tree = below(arguments.root.as_deref())?;
    if tree.is_machine() {
        need_root("roll back to another release")?;
    }
    let record = Installation::read(&tree)?.ok_or_else(|| ChangeError::not_installed(&tree))?;
    let question = match (&record.pending, &record.current, &record.previous) {
        (Some(pending), _, _) => format!("Roll back the unfinished change to {}?", pending.to),
        (None, Some(current), Some(previous)) => format!("Run {previous} instead of {current}?"),
        (None, current, None) => {
            let current = current.clone().unwrap_or_default();
            return Err(ChangeError::NothingBefore { current }.into());
        }
        (None, None, Some(_)) => return Err(ChangeError::not_installed(&tree).into()),
    };
    confirm(arguments.yes, &question)?;
    let _lock = lock(&tree)?;
    let changed = at_node(&tree, &record, Duration::from_secs(arguments.timeout), |runner, node| {
        Change { tree: &tree, runner, node, report: reporter(&tree) }.rollback(arguments.restore_data)
    })??;
    show::rolled_back(common.json, changed.as_ref())
}

pub(super) fn uninstall(common: &Common, arguments: &UninstallArguments) -> Result<(), Failure> {
    let tree = below(arguments.root.as_deref())?;
    if tree.is_machine() {
        need_root("remove what was installed")?;
    }
    let record = Installation::read(&tree)?;
    if record.is_none() && !arguments.purge {
        return Err(ChangeError::not_installed(&tree).into());
    }
    let connection = connection_for_removal(&tree, record.as_ref())?;
    let data = connection.as_ref().map(Connection::data_folder).transpose()?.flatten();
    let to_purge: Vec<PathBuf> =
        if arguments.purge { data.iter().cloned().chain(remaining_folders(&tree)?).collect() } else { Vec::new() };
    if record.is_none() && to_purge.is_empty() {
        return Err(ChangeError::not_installed(&tree).into());
    }
    // All questions before anything is removed: a path that is mistyped changes nothing.
    if record.is_some() {
        confirm(arguments.yes, "Stop the node and remove the program? Data and snapshots stay.")?;
    }
    to_purge.iter().try_for_each(|path| confirm_path(path))?;
    let _lock = lock(&tree)?;
    if let Some(record) = &record {
        at_node(&tree, record, REMOVAL, |runner, node| {
            Change { tree: &tree, runner, node, report: reporter(&tree) }.uninstall()
        })??;
    }
    if let (true, Some(connection)) = (arguments.purge, &connection) {
        let others = connection.others(&tree)?;
        show_step(&match &others[..] {
            [] => "deleting the namespace".to_owned(),
            others => format!("deleting the data; the namespace stays for {}", others.join(", ")),
        });
        connection.purge(&tree, REMOVAL)?;
    }
    for path in &to_purge {
        // A volume may outlive its claim; one on another machine has no path.
        if path.is_absolute() {
            tree.remove_folder(path)?;
        }
    }
    let mut left = remaining_folders(&tree)?;
    left.extend(data.filter(|path| !to_purge.contains(path)));
    show::uninstalled(common.json, &to_purge, &left)
}

/// The cluster that has a node to remove; `None` where the node is, or was, on this machine itself.
fn connection_for_removal(tree: &Tree, record: Option<&Installation>) -> Result<Option<Connection>, Failure> {
    match record {
        _ if !tree.is_machine() => Ok(None),
        Some(record) if record.platform == Platform::K3s => Connection::of(tree, record).map(Some),
        Some(_) => Ok(None),
        // What an earlier call left, or one whose record is lost.
        None => Connection::left(tree),
    }
}
