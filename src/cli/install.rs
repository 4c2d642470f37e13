//! `cairn install`, `rollback`, `uninstall`: Cairn onto this machine, back, and off again.
//!
//! Invariants: the plan is shown and agreed to before anything is written; what is shown is what is done, because both come
//! from the same [`Release`]. One change at a time: a lock in `/run` keeps a second one out.

mod show;
mod unpack;

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ValueEnum as _;
use serde_json::{Map, Value};

use super::{Common, Failure, output};
use crate::auth::Token;
use crate::base::ByteSize;
use crate::deploy::{
    self, Cause, Change, ClusterNode, Finding, FormatOf, Host, HostNode, Installation, ManagedFile, Need, Node, Plan,
    Platform, Program, Release, Report, Role, Runner, Systemd, Tree,
};
use crate::store;

/// Where the node keeps its data, wherever it runs.
const DATA_DIR: &str = "/var/lib/cairn";
/// The operator's settings.
const CONFIG: &str = "/etc/cairn/cairn.toml";
/// The token that clients get.
const TOKEN: &str = "/etc/cairn/token";
/// Held by whoever changes what is installed.
const LOCK: &str = "/run/cairn-install.lock";
/// Room for the node's first documents, beside what the installation itself writes.
const DATA_BYTES: u64 = 256 << 20;
/// Where the service listens when nobody says: everywhere, with TLS and a token.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7171);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo cairn install              show what would be done, ask, do it
  sudo cairn install --yes        do it; over an older release this is the upgrade
  cairn install --dry-run         show what would be done
  cairn install --root image/     put the files into an image that is being built
  sudo cairn install --bundle site.bundle --public-key RW…
                                  everything from one signed file: program, settings, documents

The same release again repairs what is in place. A release that does not come up well is taken back, and the one before
runs again. What was interrupted is completed by running this again, or taken back by `cairn rollback`.")]
pub(super) struct Arguments {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Put the files below this folder, and start nothing
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What runs the node [default: K3s where this is a K3s server, else systemd]
    #[arg(long = "for", value_name = "PLATFORM")]
    platform: Option<PlatformArgument>,
    /// Install from this bundle, which `cairn bundle create` made
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Public key of the bundle, or a file with it [default: that of the first bundle]
    #[arg(long, value_name = "KEY", requires = "bundle")]
    public_key: Option<String>,
    /// Let the service use the machine's GPU
    #[arg(long)]
    gpu: bool,
    /// Address of MCP and REST, for the first installation [default: 0.0.0.0:7171]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// How long the node may take to be ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PlatformArgument {
    /// A service of systemd
    Systemd,
    /// A pod of the K3s or RKE2 server on this machine
    K3s,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo cairn rollback                  run the release from before the last upgrade
  sudo cairn rollback --restore-data   and bring its data back, where it cannot read the newer one's

After an installation that was interrupted this takes back what was begun.")]
pub(super) struct RollbackArguments {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Go back to the snapshot from before the upgrade too, where the older release cannot read the data; what was written
    /// since is lost
    #[arg(long)]
    restore_data: bool,
    /// How long the node may take to be ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo cairn uninstall           stop the node and remove the program; data and snapshots stay
  sudo cairn uninstall --purge   remove the data and the snapshots as well; asks for their paths")]
pub(super) struct UninstallArguments {
    /// Do not ask whether to remove the program
    #[arg(long, short)]
    yes: bool,
    /// Remove the data, the snapshots and the settings too, after their paths were typed
    #[arg(long)]
    purge: bool,
}

impl Arguments {
    /// The options for the program of a bundle, which does the rest.
    fn passed_on(&self) -> Vec<OsString> {
        let mut passed: Vec<OsString> = Vec::new();
        let mut pass = |name: &str, value: Option<OsString>| {
            passed.push(name.into());
            passed.extend(value);
        };
        for (is_given, name) in [(self.yes, "--yes"), (self.dry_run, "--dry-run"), (self.gpu, "--gpu")] {
            if is_given {
                pass(name, None);
            }
        }
        if let Some(root) = &self.root {
            pass("--root", Some(root.into()));
        }
        if let Some(platform) = self.platform.and_then(|platform| platform.to_possible_value()) {
            pass("--for", Some(platform.get_name().into()));
        }
        if let Some(listen) = self.listen {
            pass("--listen", Some(listen.to_string().into()));
        }
        pass("--timeout", Some(self.timeout.to_string().into()));
        passed
    }
}

/// Shows each step on standard error.
struct Steps;

impl Report for Steps {
    fn step(&self, what: &str) {
        eprintln!("… {what}");
    }
}

/// A tree that is staged: nothing runs there.
struct Staged<'a> {
    tree: &'a Tree,
    kept: Vec<ManagedFile>,
}

impl Runner for Staged<'_> {
    fn stage(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn retire(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn prepare(&mut self, _: &Release) -> Result<(), Cause> {
        keep(self.tree, &self.kept)
    }

    fn start(&mut self, _: &Release) -> Result<(), Cause> {
        // What `systemctl enable` makes.
        let wants = Path::new("/etc/systemd/system/multi-user.target.wants");
        self.tree.make_folder(wants, 0o755)?;
        Ok(self.tree.link(wants.join(deploy::UNIT), Path::new("/etc/systemd/system").join(deploy::UNIT))?)
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn forget(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }
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
    listen: SocketAddr,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.bundle {
        return unpack::run(common, arguments, file);
    }
    let tree = arguments.root.clone().map_or_else(Tree::machine, Tree::below);
    let host = Host::detect(&tree)?;
    let platform = platform(&host, arguments, &tree)?;
    let prepared = prepare(&tree, platform, arguments)?;
    let is_ready = prepared.plan.is_possible();
    if common.json {
        if arguments.dry_run || !is_ready {
            output::json(&show::plan_json(&prepared.plan, &prepared.release))?;
        }
    } else {
        show::plan(&prepared.plan, &prepared.release)?;
    }
    if !is_ready {
        return Err(anyhow!("nothing was changed; mend what stands in the way and run this again").into());
    }
    if arguments.dry_run {
        return Ok(());
    }
    agree(arguments.yes, "Do this?")?;
    let _lock = lock(&tree)?;
    let patience = Duration::from_secs(arguments.timeout);
    let changed = {
        let Prepared { tree, release, executable, kept, choices, .. } = &prepared;
        let outliving = || keep(tree, kept);
        let (mut staged, mut systemd, mut nobody, mut node);
        let (runner, node): (&mut dyn Runner, &mut dyn Node) = if tree.is_machine() {
            systemd = Systemd::new(Box::new(outliving));
            node = host_node(patience);
            (&mut systemd, &mut node)
        } else {
            staged = Staged { tree, kept: kept.clone() };
            nobody = NoNode;
            (&mut staged, &mut nobody)
        };
        Change { tree, runner, node, report: &Steps }.install(release, executable, choices.clone())?
    };
    show::installed(common.json, &prepared.tree, &changed, prepared.listen)
}

pub(super) fn rollback(common: &Common, arguments: &RollbackArguments) -> Result<(), Failure> {
    let tree = Tree::machine();
    need_root("go back to another release")?;
    let record = Installation::read(&tree)?.ok_or(deploy::ChangeError::NotInstalled)?;
    let question = match (&record.pending, &record.current, &record.previous) {
        (Some(pending), _, _) => format!("Take back {}, which was begun and not finished?", pending.to),
        (None, Some(current), Some(previous)) => format!("Run {previous} instead of {current}?"),
        (None, current, None) => {
            let current = current.clone().unwrap_or_default();
            return Err(deploy::ChangeError::NothingBefore { current }.into());
        }
        (None, None, Some(_)) => return Err(deploy::ChangeError::NotInstalled.into()),
    };
    agree(arguments.yes, &question)?;
    let _lock = lock(&tree)?;
    let (mut runner, mut node) = (Systemd::new(Box::new(|| Ok(()))), host_node(Duration::from_secs(arguments.timeout)));
    let mut change = Change { tree: &tree, runner: &mut runner, node: &mut node, report: &Steps };
    let changed = change.rollback(arguments.restore_data)?;
    show::changed(common.json, changed.as_ref())
}

pub(super) fn uninstall(common: &Common, arguments: &UninstallArguments) -> Result<(), Failure> {
    let tree = Tree::machine();
    need_root("remove what was installed")?;
    let record = Installation::read(&tree)?;
    if record.is_none() && !arguments.purge {
        return Err(deploy::ChangeError::NotInstalled.into());
    }
    let _lock = lock(&tree)?;
    if record.is_some() {
        agree(arguments.yes, "Stop the node and remove the program? Data and snapshots stay.")?;
        let (mut runner, mut node) = (Systemd::new(Box::new(|| Ok(()))), host_node(Duration::ZERO));
        Change { tree: &tree, runner: &mut runner, node: &mut node, report: &Steps }.uninstall()?;
    }
    let mut purged = Vec::new();
    if arguments.purge {
        for path in kept_folders(&tree)? {
            typed_back(&path)?;
            tree.remove_folder(&path)?;
            purged.push(path);
        }
    }
    let left = kept_folders(&tree)?;
    show::uninstalled(common.json, &purged, &left)
}

/// What removing the program leaves.
fn kept_folders(tree: &Tree) -> Result<Vec<PathBuf>, Failure> {
    let folders = [DATA_DIR, "/var/lib/cairn-snapshots", "/etc/cairn"].map(PathBuf::from);
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
        (None, None, Some(agent)) => Err(anyhow!(agent_words(agent)).into()),
        (Some(PlatformArgument::K3s), None, _) => {
            Err(anyhow!("this machine is no K3s or RKE2 server; run this on the server, or use --for systemd").into())
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
    let mut choices = record.as_ref().map(|record| record.choices.clone()).unwrap_or_default();
    let mut findings = Vec::new();
    if platform == Platform::K3s {
        return Err(anyhow!("this version installs under systemd only; `cairn k3s render` writes the manifests").into());
    }
    let settings = settings(tree)?;
    let listen = match (&settings, arguments.listen) {
        (Some(settings), Some(wanted)) if settings.server.listen != wanted => {
            let message = format!("the node listens on {}; change server.listen in {CONFIG}", settings.server.listen);
            findings.push(Finding::obstacle("listen", message));
            settings.server.listen
        }
        (Some(settings), _) => settings.server.listen,
        (None, wanted) => wanted.unwrap_or(LISTEN),
    };
    let admin = settings.as_ref().map(|settings| settings.admin_listen);
    choices.insert("listen".to_owned(), listen.to_string().into());
    let kept = vec![
        ManagedFile { path: CONFIG.into(), mode: 0o644, bytes: first_settings(listen).into_bytes() },
        ManagedFile { path: TOKEN.into(), mode: 0o600, bytes: format!("{}\n", Token::random()?.reveal()).into_bytes() },
    ];
    let memory = ByteSize(memory_bytes());
    let files = deploy::systemd::files(deploy::systemd::Machine { memory, gpu: arguments.gpu });
    let version = env!("CARGO_PKG_VERSION");
    let release = Release::new(&executable, version, platform, store::FORMAT, files, None);
    let load = |name: &Option<String>| match name {
        Some(name) => Release::load(tree, name),
        None => Ok(None),
    };
    let from = load(&record.as_ref().and_then(|record| record.current.clone()))?;
    let pending = load(&record.as_ref().and_then(|record| record.pending.as_ref().map(|pending| pending.to.clone())))?;
    let needs = [Need { path: DATA_DIR.into(), bytes: DATA_BYTES, what: "data" }];
    let others: Vec<&Release> = pending.iter().collect();
    let mut plan = Plan::make(tree, &release, from.as_ref(), &others, &executable, &needs)?;
    plan.keep(tree, &kept)?;
    if tree.is_machine() {
        plan.actions.extend(
            ["make the user cairn and its folders", "systemctl enable, restart cairn", "ask the node a question"]
                .map(|what| deploy::Action::Run { what: what.to_owned() }),
        );
        findings.extend(machine_findings(from.is_some(), listen, admin));
    }
    if let Some(record) = record.as_ref().filter(|record| record.platform != platform) {
        let message = format!("Cairn is installed here for {}; `cairn uninstall` removes that", record.platform);
        findings.push(Finding::obstacle("platform", message));
    }
    if let Some(pending) = record.as_ref().and_then(|record| record.pending.as_ref()) {
        let message = format!("the change to {} was begun and not finished; this completes it", pending.to);
        findings.push(Finding::warning("interrupted", message));
    }
    plan.findings.splice(0..0, findings);
    Ok(Prepared { tree: tree.clone(), release, executable, kept, choices, plan, listen })
}

/// The settings of the node that is installed, or will be from what lies there; `None` when there is no file.
fn settings(tree: &Tree) -> Result<Option<crate::config::Config>, Failure> {
    if !tree.exists(CONFIG)? {
        return Ok(None);
    }
    let path = tree.locate(CONFIG)?;
    let config = crate::config::Config::load(Some(&path), [], &crate::config::Overrides::default());
    config.map(Some).map_err(Failure::usage)
}

fn first_settings(listen: SocketAddr) -> String {
    format!(
        "# What differs from the defaults, which `cairn serve --print-config` shows. Restart the service after a change.\n\n\
         [node]\ndata_dir = \"{DATA_DIR}\"\n\n[server]\nlisten = \"{listen}\"\n"
    )
}

/// Memory of this machine.
fn memory_bytes() -> u64 {
    let told = rustix::system::sysinfo();
    told.totalram.saturating_mul(u64::from(told.mem_unit))
}

/// What speaks against an installation on this machine, besides its files.
fn machine_findings(is_installed: bool, listen: SocketAddr, admin: Option<SocketAddr>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !rustix::process::geteuid().is_root() {
        let message = "this needs root: it writes below /usr/local, /etc and /var/lib, makes a user and starts a service; \
                       run it with sudo, or see what it would do with --dry-run";
        findings.push(Finding::obstacle("root", message));
    }
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
    if !(is_installed && Systemd::is_active()) {
        let admin = admin.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)));
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

fn host_node(patience: Duration) -> HostNode<'static> {
    let format_of: FormatOf<'static> = Box::new(|data_dir| Ok(store::data_format(data_dir)?));
    HostNode::new(DATA_DIR.into(), CONFIG.into(), patience, format_of)
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

/// Asks whether to go on.
fn agree(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!("nobody can be asked here; give --yes")));
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
    Err(anyhow!("{} stays; what was typed is not its path", path.display()).into())
}
