//! `cairn install`, `rollback`, `uninstall`: Cairn onto this machine, back, and off again.
//!
//! Invariants: the plan is shown and agreed to before anything is written; what is shown is what is done, because both come
//! from the same [`Release`]. One change at a time: a lock in `/run` keeps a second one out.

mod arguments;
pub(super) mod cluster;
mod show;
mod unpack;

use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};

use self::arguments::PlatformArgument;
pub(super) use self::arguments::{Arguments, RollbackArguments, UninstallArguments};
pub(super) use self::unpack::add_waiting;
use super::{Common, Failure, output};
use crate::api;
use crate::auth::Token;
use crate::base::ByteSize;
use crate::config::{self, Config};
use crate::deploy::shape::{CONFIG_DIR, DATA_DIR, DOCUMENTS_DIR, MCP_PORT, SNAPSHOTS_DIR};
use crate::deploy::{
    self, Cause, Change, ClusterNode, Finding, FormatOf, Host, HostNode, Installation, ManagedFile, Need, Node, Plan,
    Platform, Program, Release, Report, Role, Runner, Systemd, Tree,
};
use crate::store;

/// Where the node keeps its data, wherever it runs.
/// The operator's settings.
const CONFIG: &str = "/etc/cairn/cairn.toml";
/// The token that clients get.
const TOKEN: &str = "/etc/cairn/token";
/// What clients of a node in a cluster have to trust, as this machine was told last.
const AUTHORITY: &str = "/etc/cairn/authority.pem";
/// Where systemd finds what starts with the machine.
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
/// Where releases go where the usual place cannot be written.
const OTHER_PREFIX: &str = "/opt/cairn";
/// Locked while the installation is changed.
const LOCK: &str = "/run/cairn-install.lock";
/// Space for the node's first documents, in addition to the installation's own files.
const DATA_BYTES: u64 = 256 << 20;
/// How long a node may take to end before it is removed.
const REMOVAL: Duration = Duration::from_secs(300);
/// Where the service listens when nobody says: everywhere, with TLS and a token.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), MCP_PORT);

/// Shows each step on standard error.
struct Steps;

impl Report for Steps {
    fn step(&self, what: &str) {
        eprintln!("… {what}");
    }
}

/// The same where nothing runs: of a tree that is staged only what happens to its files is a step.
struct FileSteps;

impl Report for FileSteps {
    fn step(&self, what: &str) {
        Steps.step(what);
    }

    fn running(&self, _: &str) {}
}

/// Reports the steps of a change to this tree.
fn report(tree: &Tree) -> &'static dyn Report {
    if tree.is_machine() { &Steps } else { &FileSteps }
}

/// A tree that is staged: nothing runs there.
struct Staged<'a> {
    tree: &'a Tree,
    kept: Vec<ManagedFile>,
}

impl Runner for Staged<'_> {
    fn stage(&mut self, release: &Release) -> Result<(), Cause> {
        if release.image.is_some() { deploy::cluster::bring_image(self.tree, release) } else { Ok(()) }
    }

    fn retire(&mut self, _: &Release) -> Result<(), Cause> {
        // What `systemctl disable` removes.
        for unit in [deploy::UNIT, deploy::systemd::DOCUMENTS_UNIT] {
            self.tree.remove(Path::new(WANTS).join(unit))?;
        }
        Ok(())
    }

    fn prepare(&mut self, _: &Release) -> Result<(), Cause> {
        keep(self.tree, &self.kept)
    }

    fn start(&mut self, release: &Release) -> Result<(), Cause> {
        if release.platform == Platform::K3s {
            // The server applies what it finds when it starts.
            return Ok(());
        }
        enable(self.tree, deploy::UNIT)
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn forget(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }
}

/// What `systemctl enable` does.
fn enable(tree: &Tree, unit: &str) -> Result<(), Cause> {
    tree.make_folder(WANTS, 0o755)?;
    Ok(tree.link(Path::new(WANTS).join(unit), Path::new("/etc/systemd/system").join(unit))?)
}

/// The node of a staged tree: there is none yet.
struct NoNode;

impl Node for NoNode {
    fn secure(&mut self) -> Result<Option<String>, Cause> {
        Ok(None)
    }

    fn self_test(&mut self) -> Result<(), Cause> {
        Ok(())
    }

    fn data_format(&mut self) -> Result<Option<u16>, Cause> {
        Ok(None)
    }

    fn restore(&mut self, _: &Release, _: &str) -> Result<(), Cause> {
        Ok(())
    }
}

/// Writes the files that outlive releases, where there are none.
fn keep(tree: &Tree, kept: &[ManagedFile]) -> Result<(), Cause> {
    for file in kept {
        if !tree.exists(&file.path)? {
            tree.make_folder(file.path.parent().unwrap_or(Path::new("/")), 0o755)?;
            tree.write(&file.path, &file.bytes, file.mode)?;
        }
    }
    Ok(())
}

/// What will be put onto the machine.
struct Prepared {
    tree: Tree,
    release: Release,
    executable: Program,
    /// Files that are made once and belong to the operator from then on.
    kept: Vec<ManagedFile>,
    choices: Map<String, Value>,
    plan: Plan,
    /// How clients reach it.
    server: api::Settings,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.bundle {
        return unpack::run(common, arguments, file);
    }
    let tree = tree_of(arguments)?;
    let host = Host::detect(&tree)?;
    let platform = platform(&host, arguments, &tree)?;
    if platform == Platform::K3s {
        // An image is made before K3s ever ran on it.
        let node = host.cluster.filter(|node| node.role == Role::Server).unwrap_or_else(ClusterNode::unseen);
        return cluster::run(common, arguments, &tree, &node);
    }
    if arguments.node_size.is_some() || !arguments.with.is_empty() || !arguments.set.is_empty() {
        let hint = "--node-size, --with and --set are for K3s; under systemd the settings are in";
        return Err(Failure::usage(anyhow!("{hint} {CONFIG}")));
    }
    let prepared = prepare(&tree, platform, arguments)?;
    if !propose(common, arguments, &prepared.plan, &prepared.release)? {
        return Ok(());
    }
    agree(arguments.yes, "Do this?")?;
    let _lock = lock(&tree)?;
    let patience = Duration::from_secs(arguments.timeout);
    let installed = {
        let Prepared { tree, release, executable, kept, choices, .. } = &prepared;
        let made = Made::before(tree, kept)?;
        let outliving = || keep(tree, kept);
        let (mut staged, mut systemd, mut nobody, mut node);
        let (runner, node): (&mut dyn Runner, &mut dyn Node) = if tree.is_machine() {
            systemd = Systemd::new(Box::new(outliving));
            node = host_node(tree, patience);
            (&mut systemd, &mut node)
        } else {
            staged = Staged { tree, kept: kept.clone() };
            nobody = NoNode;
            (&mut staged, &mut nobody)
        };
        let installed =
            Change { tree, runner, node, report: report(tree) }.install(release, executable, choices.clone());
        made.settle(installed)?
    };
    show::installed(common.json, &prepared.tree, &installed, &prepared.server)
}

/// Files that outlive releases, and are created by an installation: if the first one is rolled back, they are removed.
struct Made<'a> {
    tree: &'a Tree,
    paths: Vec<PathBuf>,
}

impl<'a> Made<'a> {
    /// Notes which of them are not there yet.
    fn before(tree: &'a Tree, kept: &[ManagedFile]) -> Result<Self, Failure> {
        let mut paths = Vec::new();
        for file in kept {
            if !tree.exists(&file.path)? {
                paths.push(file.path.clone());
            }
        }
        Ok(Self { tree, paths })
    }

    /// Takes them out again where nothing is installed in the end.
    fn settle<T, E: Into<Failure>>(self, outcome: Result<T, E>) -> Result<T, Failure> {
        let error = match outcome {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error.into(),
        };
        if matches!(Installation::read(self.tree), Ok(None)) {
            for path in self.paths {
                self.tree.remove(&path)?;
                self.tree.remove_if_empty(path.parent().unwrap_or(Path::new("/")));
            }
        }
        Err(error)
    }
}

/// The tree that is installed to: this machine's, or one that is staged; below which folder its releases are.
fn tree_of(arguments: &Arguments) -> Result<Tree, Failure> {
    let tree = below(arguments.root.as_deref())?;
    let is_installed = Installation::read(&tree)?.is_some();
    match &arguments.prefix {
        Some(prefix) if !prefix.is_absolute() => {
            let hint = "found --prefix {}, expected a folder that begins with /, such as /opt/cairn";
            Err(Failure::usage(anyhow!(hint.replace("{}", &prefix.display().to_string()))))
        }
        Some(prefix) if is_installed && prefix != tree.prefix() => {
            let found = tree.prefix().display();
            Err(Failure::usage(anyhow!(
                "Cairn is installed below {found}; `cairn uninstall` removes that and keeps the data"
            )))
        }
        Some(prefix) => Ok(tree.with_prefix(prefix.clone())),
        // As on systems whose /usr comes as an image.
        None if !is_installed && tree.volume(tree.prefix())?.is_read_only && !tree.volume("/opt")?.is_read_only => {
            Ok(tree.with_prefix(PathBuf::from(OTHER_PREFIX)))
        }
        None => Ok(tree),
    }
}

/// This machine's tree, or the one below a folder.
fn below(root: Option<&Path>) -> Result<Tree, Failure> {
    match root {
        None => Ok(Tree::machine()),
        Some(root) if root.exists() && !root.is_dir() => {
            let hint = "expected a folder, which may be one that is still to be made";
            Err(Failure::usage(anyhow!("--root {} is a file; {hint}", root.display())))
        }
        Some(root) => Ok(Tree::below(root)),
    }
}

/// Shows a plan; whether it is to be done.
fn propose(common: &Common, arguments: &Arguments, plan: &Plan, release: &Release) -> Result<bool, Failure> {
    let is_ready = plan.is_possible();
    if common.json {
        if arguments.dry_run || !is_ready {
            output::json(&show::plan_json(plan, release))?;
        }
    } else {
        show::plan(plan, release)?;
    }
    if !is_ready {
        return Err(anyhow!("nothing was changed; fix what is listed above and run this again").into());
    }
    Ok(!arguments.dry_run)
}

/// Works on the node that is installed, with what runs it and what asks it.
fn at_node<T>(
    tree: &Tree,
    record: &Installation,
    patience: Duration,
    work: impl FnOnce(&mut dyn Runner, &mut dyn Node) -> T,
) -> Result<T, Failure> {
    if !tree.is_machine() {
        return Ok(work(&mut Staged { tree, kept: Vec::new() }, &mut NoNode));
    }
    match record.platform {
        Platform::Systemd => Ok(work(&mut Systemd::new(Box::new(|| Ok(()))), &mut host_node(tree, patience))),
        Platform::K3s => Ok(cluster::Connection::of(tree, record)?.with(tree, patience, work)),
    }
}

pub(super) fn rollback(common: &Common, arguments: &RollbackArguments) -> Result<(), Failure> {
    let tree = below(arguments.root.as_deref())?;
    if tree.is_machine() {
        need_root("go back to another release")?;
    }
    let record = Installation::read(&tree)?.ok_or_else(|| deploy::ChangeError::not_installed(&tree))?;
    let question = match (&record.pending, &record.current, &record.previous) {
        (Some(pending), _, _) => format!("Take back {}, which was begun and not finished?", pending.to),
        (None, Some(current), Some(previous)) => format!("Run {previous} instead of {current}?"),
        (None, current, None) => {
            let current = current.clone().unwrap_or_default();
            return Err(deploy::ChangeError::NothingBefore { current }.into());
        }
        (None, None, Some(_)) => return Err(deploy::ChangeError::not_installed(&tree).into()),
    };
    agree(arguments.yes, &question)?;
    let _lock = lock(&tree)?;
    let changed = at_node(&tree, &record, Duration::from_secs(arguments.timeout), |runner, node| {
        Change { tree: &tree, runner, node, report: report(&tree) }.rollback(arguments.restore_data)
    })??;
    show::changed(common.json, changed.as_ref())
}

pub(super) fn uninstall(common: &Common, arguments: &UninstallArguments) -> Result<(), Failure> {
    let tree = below(arguments.root.as_deref())?;
    if tree.is_machine() {
        need_root("remove what was installed")?;
    }
    let record = Installation::read(&tree)?;
    if record.is_none() && !arguments.purge {
        return Err(deploy::ChangeError::not_installed(&tree).into());
    }
    let in_cluster = match &record {
        _ if !tree.is_machine() => None,
        Some(record) if record.platform == Platform::K3s => Some(cluster::Connection::of(&tree, record)?),
        Some(_) => None,
        // What an earlier call left, or one whose record is lost.
        None => cluster::Connection::left(&tree)?,
    };
    let data = in_cluster.as_ref().map(cluster::data_of).transpose()?.flatten();
    let to_purge: Vec<PathBuf> =
        if arguments.purge { data.iter().cloned().chain(kept_folders(&tree)?).collect() } else { Vec::new() };
    if record.is_none() && to_purge.is_empty() {
        return Err(deploy::ChangeError::not_installed(&tree).into());
    }
    // All questions before anything is removed: a path that is mistyped changes nothing.
    if record.is_some() {
        agree(arguments.yes, "Stop the node and remove the program? Data and snapshots stay.")?;
    }
    to_purge.iter().try_for_each(|path| typed_back(path))?;
    let _lock = lock(&tree)?;
    if let Some(record) = &record {
        at_node(&tree, record, REMOVAL, |runner, node| {
            Change { tree: &tree, runner, node, report: report(&tree) }.uninstall()
        })??;
    }
    if let (true, Some(connection)) = (arguments.purge, &in_cluster) {
        Steps.step("deleting the namespace");
        connection.purge(&tree, REMOVAL)?;
    }
    for path in &to_purge {
        // A volume may outlive its claim; one on another machine has no path.
        if path.is_absolute() {
            tree.remove_folder(path)?;
        }
    }
    let mut left = kept_folders(&tree)?;
    left.extend(data.filter(|path| !to_purge.contains(path)));
    show::uninstalled(common.json, &to_purge, &left)
}

/// What removing the program leaves.
fn kept_folders(tree: &Tree) -> Result<Vec<PathBuf>, Failure> {
    let folders = [DATA_DIR, SNAPSHOTS_DIR, DOCUMENTS_DIR, CONFIG_DIR].map(PathBuf::from);
    let mut there = Vec::new();
    for folder in folders {
        if tree.exists(&folder)? {
            there.push(folder);
        }
    }
    Ok(there)
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
        (None, None, Some(agent)) => Err(anyhow!(agent_words(agent)).into()),
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

fn agent_words(agent: &ClusterNode) -> String {
    format!(
        "this machine is an agent of {}, and manifests are applied by servers only. Put the image here with \
         `cairn image build -o {}/cairn.tar`, and on a server run `cairn install`; `--for systemd` installs a service here instead",
        agent.distribution,
        agent.images().display()
    )
}

fn prepare(tree: &Tree, platform: Platform, arguments: &Arguments) -> Result<Prepared, Failure> {
    let executable = std::env::current_exe().context("cannot find the file that is running")?;
    let executable = Program::at(&executable)?;
    let record = Installation::read(tree)?;
    let mut choices = record.as_ref().map(|record| record.chosen().clone()).unwrap_or_default();
    let mut findings = Vec::new();
    let first_settings = first_settings(arguments.listen.unwrap_or(LISTEN));
    let config = match settings(tree)? {
        Some(config) => config,
        None => Config::read(&first_settings, CONFIG)?,
    };
    let listen = config.server.listen;
    if arguments.listen.is_some_and(|wanted| wanted != listen) {
        let message = format!("the node listens on {listen}; change server.listen in {CONFIG}");
        findings.push(Finding::obstacle("listen", message));
    }
    choices.insert("listen".to_owned(), listen.to_string().into());
    let mut kept = vec![ManagedFile { path: CONFIG.into(), mode: 0o644, bytes: first_settings.into_bytes() }];
    if tree.is_machine() {
        let token = format!("{}\n", Token::random()?.reveal()).into_bytes();
        kept.push(ManagedFile { path: TOKEN.into(), mode: 0o600, bytes: token });
    } else {
        // One that many machines share would be no secret.
        let message = format!("each machine makes its own token at its first start: {TOKEN}");
        findings.push(Finding::warning("token", message));
    }
    let current = deploy::current(tree);
    let machine = deploy::systemd::Machine { current: &current, memory: memory(), gpu: arguments.gpu };
    let files = deploy::systemd::files(machine);
    let version = env!("CARGO_PKG_VERSION");
    let release = Release::new(&executable, version, platform, store::FORMAT, files, None);
    let (from, pending) = load(tree, record.as_ref())?;
    let needs = [Need { path: DATA_DIR.into(), bytes: DATA_BYTES, what: "data" }];
    let others: Vec<&Release> = pending.iter().collect();
    let mut plan = Plan::make(tree, &release, from.as_ref(), &others, &executable, &needs)?;
    plan.keep(tree, &kept)?;
    let admin = config.admin_listen;
    let guard = match (config.server.tls.covers(listen), config.server.guards(listen)) {
        (true, true) => ", with TLS and a token",
        (true, false) => ", with TLS",
        (false, true) => ", with a token",
        (false, false) => "",
    };
    let what =
        format!("the service listens on {listen} for MCP and REST{guard}, and on {admin} for health and metrics");
    plan.actions.push(deploy::Action::Run { what });
    findings.extend(unusual_prefix(tree));
    if tree.is_machine() {
        plan.actions.extend(
            ["make the user cairn and its folders", "systemctl enable, restart cairn", "ask the node a question"]
                .map(|what| deploy::Action::Run { what: what.to_owned() }),
        );
        findings.extend(machine_findings(listen, config.admin_listen));
    }
    findings.extend(record_findings(record.as_ref(), platform));
    plan.findings.splice(0..0, findings);
    Ok(Prepared { tree: tree.clone(), release, executable, kept, choices, plan, server: config.server })
}

/// What is to be said where the command is in no folder that shells look in.
fn unusual_prefix(tree: &Tree) -> Option<Finding> {
    let prefix = tree.prefix();
    (prefix != Path::new("/usr/local")).then(|| {
        let message =
            format!("the program goes below {0}: run it as {0}/bin/cairn, or add {0}/bin to PATH", prefix.display());
        Finding::warning("prefix", message)
    })
}

/// The release that runs, and the one that was begun.
fn load(tree: &Tree, record: Option<&Installation>) -> Result<(Option<Release>, Option<Release>), Failure> {
    let load = |name: Option<&str>| name.map_or(Ok(None), |name| Release::load(tree, name));
    let current = load(record.and_then(|record| record.current.as_deref()))?;
    let pending = record.and_then(|record| record.pending.as_ref());
    Ok((current, load(pending.map(|pending| pending.to.as_str()))?))
}

/// What is to be said of what is installed.
fn record_findings(record: Option<&Installation>, platform: Platform) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(record) = record else { return findings };
    if record.platform != platform {
        let message = format!("Cairn is installed here for {}; `cairn uninstall` removes that", record.platform);
        findings.push(Finding::obstacle("platform", message));
    }
    if let Some(pending) = &record.pending {
        let message = format!("the change to {} was begun and not finished; this completes it", pending.to);
        findings.push(Finding::warning("interrupted", message));
    }
    findings
}

/// The settings of the node that is installed, or will be from what lies there; `None` when there is no file.
fn settings(tree: &Tree) -> Result<Option<Config>, Failure> {
    if !tree.exists(CONFIG)? {
        return Ok(None);
    }
    let path = tree.locate(CONFIG)?;
    let config = Config::load(Some(&path), [], &config::Overrides::default());
    config.map(Some).map_err(Failure::usage)
}

fn first_settings(listen: SocketAddr) -> String {
    format!(
        "# What differs from the defaults, which `cairn serve --print-config` shows. Restart the service after a change.\n\n\
         [node]\ndata_dir = \"{DATA_DIR}\"\n\n[server]\nlisten = \"{listen}\"\n"
    )
}

/// Memory of this machine.
pub(super) fn memory() -> ByteSize {
    let told = rustix::system::sysinfo();
    ByteSize(told.totalram.saturating_mul(u64::from(told.mem_unit)))
}

/// What speaks against an installation on this machine, besides its files.
fn machine_findings(listen: SocketAddr, admin: SocketAddr) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        root_finding("it writes below /usr/local, /etc and /var/lib, makes a user and starts a service")
            .into_iter()
            .collect();
    match Systemd::version() {
        Some(version) if version < deploy::VERSION_MIN => findings.push(Finding::obstacle(
            "systemd",
            format!("systemd {version} is older than {}, which the unit needs", deploy::VERSION_MIN),
        )),
        Some(_) => {}
        None => findings.push(Finding::obstacle(
            "systemd",
            "systemd does not run on this machine now; --root / puts the files in place without starting anything",
        )),
    }
    // One that an interrupted installation left running, too.
    if !Systemd::is_up() {
        for (address, setting) in [(listen, "server.listen"), (admin, "admin.listen")] {
            if let Err(error) = TcpListener::bind(address) {
                let message = format!(
                    "cannot listen on {address} ({error}); end what uses it, or set another {setting} in {CONFIG}"
                );
                findings.push(Finding::obstacle("port", message));
            }
        }
    }
    findings
}

/// What is missing where this is not root.
fn root_finding(why: &str) -> Option<Finding> {
    (!rustix::process::geteuid().is_root()).then(|| {
        let message = format!("this needs root: {why}; run it with sudo, or see what it would do with --dry-run");
        Finding::obstacle("root", message)
    })
}

fn host_node(tree: &Tree, patience: Duration) -> HostNode<'_> {
    let format_of: FormatOf<'static> = Box::new(|data_dir| Ok(store::data_format(data_dir)?));
    HostNode::new(tree, DATA_DIR.into(), CONFIG.into(), patience, format_of)
}

fn need_root(what: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(anyhow!("root is needed to {what}; run this with sudo").into())
}

/// Keeps a second change out until it is dropped.
fn lock(tree: &Tree) -> Result<Option<File>, Failure> {
    if !tree.is_machine() {
        return Ok(None);
    }
    let file = File::options().create(true).truncate(false).write(true).open(LOCK);
    let file = file.with_context(|| format!("cannot open {LOCK}"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Failure::unreachable(anyhow!(
            "another `cairn install`, `rollback` or `uninstall` is at work; wait for it"
        ))),
        Err(TryLockError::Error(error)) => Err(anyhow!(error).context(format!("cannot lock {LOCK}")).into()),
    }
}

/// Asks for confirmation.
fn agree(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!("not a terminal; pass --yes to confirm")));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(anyhow!("nothing was changed").into()) }
}

/// Has a path typed back before what is in it is removed for ever.
fn typed_back(path: &Path) -> Result<(), Failure> {
    eprint!("Everything in {} will be gone. Type its path to remove it: ", path.display());
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if Path::new(answer.trim()) == path {
        return Ok(());
    }
    Err(anyhow!("nothing was removed: what was typed is not the path {}", path.display()).into())
}
