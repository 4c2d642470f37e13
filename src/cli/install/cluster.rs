//! Cairn as a pod of this machine's K3s or RKE2 server.
//!
//! Invariants: what is rendered follows from the options and the program alone, so the same choices give the same bytes; what the
//! operator chose is in the record, and an upgrade without flags keeps it. Once the files are in place the server does the rest, also
//! when this process is gone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use super::{
    AUTHORITY, Arguments, DATA_BYTES, NoNode, Staged, Steps, TOKEN, agree, keep, load, lock, propose, record_findings,
    root_finding, show, store,
};
use crate::auth::Token;
use crate::cli::image::collect;
use crate::cli::k3s::{check_configuration, node_size};
use crate::cli::{Common, Failure};
use crate::deploy::k3s::{self, Assignment, NodeSize, Options, Settings, Variant};
use crate::deploy::oci::gpu::Drivers;
use crate::deploy::oci::{Image, Reference};
use crate::deploy::{
    Action, Change, Cluster, ClusterError, ClusterNode, Finding, FormatOf, Host, ImageFile, Installation, ManagedFile,
    Need, Node, Plan, Platform, PodNode, Pods, Program, Release, Role, Runner, Tree, cluster,
};

/// The API and what it runs on.
pub(super) struct Connection {
    pub(super) cluster: Cluster,
    // Dropped last: the client uses it.
    _runtime: Runtime,
}

impl Connection {
    fn open(tree: &Tree, node: ClusterNode, namespace: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let kubeconfig = tree.locate(&node.kubeconfig)?;
        let cluster = Cluster::connect(node, &kubeconfig, namespace, runtime.handle().clone());
        match cluster {
            Ok(cluster) => Ok(Self { cluster, _runtime: runtime }),
            Err(error @ ClusterError::Unreachable { .. }) => Err(Failure::unreachable(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// That of the node that is installed.
    pub(super) fn of(tree: &Tree, record: &Installation) -> Result<Self, Failure> {
        let node = Host::detect(tree)?.cluster.filter(|node| node.role == Role::Server);
        let node =
            node.context("Cairn is installed here for k3s, and this machine is no K3s or RKE2 server any more")?;
        Self::open(tree, node, &namespace(record)?)
    }

    fn node<'a>(&'a self, tree: &'a Tree, patience: Duration) -> PodNode<'a> {
        let format_of: FormatOf<'static> = Box::new(|data_dir| Ok(store::data_format(data_dir)?));
        PodNode::new(&self.cluster, tree, AUTHORITY.into(), patience, format_of)
    }

    /// Works on the node with what runs it and what asks it.
    pub(super) fn with<T>(
        &self,
        tree: &Tree,
        patience: Duration,
        work: impl FnOnce(&mut dyn Runner, &mut dyn Node) -> T,
    ) -> T {
        work(&mut Pods::new(&self.cluster, tree, patience), &mut self.node(tree, patience))
    }

    /// Deletes the namespace, and with it the data.
    pub(super) fn purge(&self, tree: &Tree, patience: Duration) -> Result<(), Failure> {
        Pods::new(&self.cluster, tree, patience).purge().map_err(|error| anyhow!(error).into())
    }
}

/// How the command line reaches the node that is installed, as variables; `None` where it is on this machine itself.
pub(super) fn reach(tree: &Tree) -> Result<Option<Vec<(&'static str, OsString)>>, Failure> {
    let Some(record) = Installation::read(tree)?.filter(|record| record.platform == Platform::K3s) else {
        return Ok(None);
    };
    let reach = Connection::of(tree, &record)?.node(tree, Duration::ZERO).reach();
    Ok(Some(reach.map_err(|error| anyhow!(error))?))
}

/// The namespace that a node was installed into.
fn namespace(record: &Installation) -> Result<String, Failure> {
    let (options, _) = options(record.chosen(), None)?;
    Ok(Settings::new(&options).map_err(Failure::usage)?.namespace().to_owned())
}

/// What is rendered: what was chosen before, and over it what is chosen now; with what is remembered of it.
fn options(before: &Map<String, Value>, now: Option<&Arguments>) -> Result<(Options, Map<String, Value>), Failure> {
    let mut choices = before.clone();
    if let Some(now) = now {
        if let Some(size) = now.node_size {
            choices.insert("node_size".to_owned(), size.name().into());
        } else if !choices.contains_key("node_size") {
            let size = node_size("auto").unwrap_or_default();
            choices.insert("node_size".to_owned(), size.name().into());
        }
        let with = now.with.iter().copied().chain(now.gpu.then_some(Variant::Gpu));
        let with: Vec<Value> = with.map(|variant| variant.to_string().into()).collect();
        if !with.is_empty() {
            choices.insert("with".to_owned(), with.into());
        }
        let mut set = choices.get("set").and_then(Value::as_object).cloned().unwrap_or_default();
        for Assignment { key, value } in &now.set {
            set.insert(key.clone(), value.clone().into());
        }
        if !set.is_empty() {
            choices.insert("set".to_owned(), set.into());
        }
    }
    let damaged =
        || anyhow!("the choices in installation.json are damaged; uninstall, and install with the flags you want");
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(damaged);
    let size: Option<NodeSize> =
        choices.get("node_size").map(text).transpose()?.map(|name| name.parse()).transpose()?;
    let with = choices.get("with").and_then(Value::as_array).into_iter().flatten();
    let with = with.map(|name| Ok(text(name)?.parse::<Variant>()?)).collect::<Result<_, Failure>>()?;
    let set = choices.get("set").and_then(Value::as_object).into_iter().flatten();
    let set = set.map(|(key, value)| Ok(Assignment { key: key.clone(), value: text(value)? }));
    let set = set.collect::<Result<_, Failure>>()?;
    Ok((Options { size, with, set, ..Options::default() }, choices))
}

/// What will be put onto the machine.
struct Prepared {
    release: Release,
    executable: Program,
    kept: Vec<ManagedFile>,
    choices: Map<String, Value>,
    plan: Plan,
    settings: Settings,
    connection: Option<Connection>,
}

pub(super) fn run(common: &Common, arguments: &Arguments, tree: &Tree, node: &ClusterNode) -> Result<(), Failure> {
    if arguments.listen.is_some() {
        let hint = "--listen is for systemd; in a cluster set `address` and `loadbalancer.port` with --set";
        return Err(Failure::usage(anyhow!(hint)));
    }
    let prepared = prepare(tree, node, arguments)?;
    if !propose(common, arguments, &prepared.plan, &prepared.release)? {
        return Ok(());
    }
    agree(arguments.yes, "Do this?")?;
    let _lock = lock(tree)?;
    // Before the manifests that carry it.
    keep(tree, &prepared.kept).map_err(|error| anyhow!(error))?;
    let Prepared { release, executable, choices, settings, .. } = &prepared;
    let patience = Duration::from_secs(arguments.timeout);
    let install = |runner: &mut dyn Runner, node: &mut dyn Node| {
        Change { tree, runner, node, report: &Steps }.install(release, executable, choices.clone())
    };
    match &prepared.connection {
        Some(connection) => {
            let changed = connection.with(tree, patience, install)?;
            show::in_cluster(common.json, &changed, &told(&connection.cluster, tree, settings)?)
        }
        None => {
            let mut staged = Staged { tree, kept: prepared.kept.clone() };
            show::staged(common.json, &install(&mut staged, &mut NoNode)?)
        }
    }
}

/// What a client needs to reach the node.
fn told(cluster: &Cluster, tree: &Tree, settings: &Settings) -> Result<show::Told, Failure> {
    let scheme = if settings.is_tls() { "https" } else { "http" };
    let bracketed = |address: String| if address.contains(':') { format!("[{address}]") } else { address };
    let url = match (settings.ingress_host(), settings.balanced_port()) {
        (Some(host), _) => format!("https://{host}/mcp"),
        (None, Some(port)) => match cluster.balanced_address()? {
            Some(address) => format!("{scheme}://{}:{port}/mcp", bracketed(address)),
            None => format!("{scheme}://<an address of a node>:{port}/mcp"),
        },
        (None, None) => format!("{scheme}://{}.{}.svc:7171/mcp", k3s::NAME, settings.namespace()),
    };
    let here = cluster.service_address()?.map(|address| format!("{scheme}://{}:7171", bracketed(address)));
    let authority =
        Some(PathBuf::from(AUTHORITY)).filter(|path| settings.is_tls() && tree.exists(path).unwrap_or(false));
    Ok(show::Told { url, here, authority, token: cluster.token()?, namespace: settings.namespace().to_owned() })
}

fn prepare(tree: &Tree, node: &ClusterNode, arguments: &Arguments) -> Result<Prepared, Failure> {
    let executable = std::env::current_exe().context("cannot find the file that is running")?;
    let executable = Program::at(&executable)?;
    let record = Installation::read(tree)?;
    let before = record.as_ref().map(|record| record.chosen().clone()).unwrap_or_default();
    let (mut options, choices) = options(&before, Some(arguments))?;
    let (image, gpu_drivers, without) = image(tree, &executable, &options)?;
    options.image_digest = Some(image.digest());
    let mut kept = Vec::new();
    // Of another store of secrets the token comes from there.
    if !options.with.contains(&Variant::ExternalSecrets) {
        let token = match tree.read(TOKEN)? {
            Some(bytes) => String::from_utf8(bytes).with_context(|| format!("{TOKEN} is no text"))?.trim().to_owned(),
            None => Token::random()?.reveal().to_owned(),
        };
        kept.push(ManagedFile { path: TOKEN.into(), mode: 0o600, bytes: format!("{token}\n").into_bytes() });
        options.token = Some(k3s::Token::new(token));
    }
    let settings = Settings::new(&options).map_err(Failure::usage)?;
    check_configuration(&settings)?;
    let rendered = k3s::render(&settings);
    // They carry the token.
    let files = rendered.files().map(|(name, text)| ManagedFile {
        path: node.manifests().join(name),
        mode: 0o600,
        bytes: text.as_bytes().to_vec(),
    });
    let version = env!("CARGO_PKG_VERSION");
    let mut release = Release::new(&executable, version, Platform::K3s, store::FORMAT, files.into(), None);
    release.image = Some(ImageFile {
        path: node.images().join(format!("cairn-{}.tar", release.name)),
        reference: image.reference().to_string(),
        digest: image.digest(),
        bytes: image.bytes(),
        gpu_drivers,
    });
    let (from, pending) = load(tree, record.as_ref())?;
    let needs = [Need { path: node.data_dir.join("storage"), bytes: DATA_BYTES, what: "data" }];
    let others: Vec<&Release> = pending.iter().collect();
    let mut plan = Plan::make(tree, &release, from.as_ref(), &others, &executable, &needs)?;
    plan.keep(tree, &kept)?;
    let mut findings = record_findings(record.as_ref(), Platform::K3s);
    findings.extend(without);
    if let Some(record) = record.as_ref().filter(|record| record.platform == Platform::K3s && record.current.is_some())
    {
        let found = namespace(record)?;
        if found != settings.namespace() {
            let wanted = settings.namespace();
            let message = format!(
                "the node is in namespace {found}, and its data cannot move to {wanted}; leave --set namespace away"
            );
            findings.push(Finding::obstacle("namespace", message));
        }
    }
    let mut connection = None;
    if tree.is_machine() {
        findings.extend(root_finding("it writes below /usr/local, /etc and K3s' folders"));
        match Connection::open(tree, node.clone(), settings.namespace()) {
            Ok(open) => {
                findings.extend(late_import(&open.cluster, node));
                connection = Some(open);
            }
            Err(failure) => findings.push(Finding::obstacle("api", failure.to_string())),
        }
        let distribution = node.distribution;
        let steps = [
            format!("wait until {distribution} has applied the manifests"),
            format!("wait until the pod {} of namespace {} is ready", cluster::POD, settings.namespace()),
            "ask the node a question".to_owned(),
        ];
        plan.actions.extend(steps.map(|what| Action::Run { what }));
    }
    plan.findings.splice(0..0, findings);
    Ok(Prepared { release, executable, kept, choices, plan, settings, connection })
}

/// The image that runs what is chosen: with a layer for GPUs where they are chosen and this machine has what it takes. Then also its
/// drivers; otherwise what is missing.
fn image(
    tree: &Tree,
    executable: &Program,
    options: &Options,
) -> Result<(Image, Option<String>, Vec<Finding>), Failure> {
    let settings = Settings::new(options).map_err(Failure::usage)?;
    let Some(is_nvidia) = settings.gpu_is_nvidia() else { return Ok((Image::of(&executable.path)?, None, Vec::new())) };
    // NVIDIA's container toolkit brings the driver; 200 MB of others would be of no use.
    let (name, drivers) = if is_nvidia { ("none", Drivers::Named(BTreeSet::new())) } else { ("all", Drivers::All) };
    match collect(tree, &drivers) {
        Ok(layer) => {
            let warnings = layer.notes.iter().map(|note| Finding::warning("gpu", note.clone())).collect();
            let image = Image::with_gpu(&executable.path, Reference::own_for_gpus(), layer)?;
            Ok((image, Some(name.to_owned()), warnings))
        }
        Err(failure) => {
            let message = format!(
                "the image has no layer for GPUs, and the node searches on the CPU: {failure}. Once that is mended, `cairn install` again \
                 brings an image with one"
            );
            Ok((Image::of(&executable.path)?, None, vec![Finding::warning("gpu", message)]))
        }
    }
}

fn late_import(cluster: &Cluster, node: &ClusterNode) -> Option<Finding> {
    (!cluster.imports_while_running()).then(|| {
        let (distribution, version, unit) = (node.distribution, cluster.version(), node.unit());
        let message = format!(
            "{distribution} {version} imports images only when it starts: when this waits for the pod, restart it with systemctl \
             restart {unit}"
        );
        Finding::warning("image", message)
    })
}

/// What the API knows to be wrong with the node that is installed here; `None` where none is, or this account may not ask.
pub(in crate::cli) fn checkup() -> Option<Vec<Finding>> {
    let tree = Tree::machine();
    let record = Installation::read(&tree).ok().flatten().filter(|record| record.platform == Platform::K3s)?;
    let current = record.current.as_deref().and_then(|name| Release::load(&tree, name).ok().flatten());
    let image = current.and_then(|release| release.image);
    Some(match Connection::of(&tree, &record) {
        Ok(connection) => {
            cluster::checkup::examine(&connection.cluster, image.as_ref().map(|image| image.digest.as_str()))
        }
        Err(_) if !rustix::process::geteuid().is_root() => Vec::new(),
        Err(failure) => vec![Finding::obstacle("api", failure.to_string())],
    })
}

/// Where the data of a node in a cluster is, by a name that can be typed back.
pub(super) fn data_of(connection: &Connection) -> Result<Option<PathBuf>, Failure> {
    if !connection.cluster.has_data()? {
        return Ok(None);
    }
    Ok(Some(connection.cluster.data_folder()?.unwrap_or_else(|| Path::new(cluster::CLAIM).to_owned())))
}
