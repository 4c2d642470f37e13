//! Cairn as a pod of this machine's K3s or RKE2 server.
//!
//! Invariants: what is rendered follows from the options and the program alone, so the same choices give the same bytes; what the
//! operator chose is in the record, and an upgrade without flags keeps it. Once the files are in place the server does the rest, also
//! when this process is gone.

mod place;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use super::{
    AUTHORITY, Arguments, DATA_BYTES, Made, NoNode, Staged, Steps, TOKEN, agree, keep, load, lock, propose,
    record_findings, report, root_finding, show, store, unusual_prefix,
};
use crate::app::RunningNode;
use crate::auth::Token;
use crate::cli::backend::prove;
use crate::cli::image::collect;
use crate::cli::in_cluster::line_of;
use crate::cli::k3s::{checked, node_size};
use crate::cli::{Common, Failure};
use crate::deploy::Report as _;
use crate::deploy::cluster::this_machine;
use crate::deploy::k3s::{self, Assignment, NodeSize, Options, Settings, Variant};
use crate::deploy::oci::gpu::Drivers;
use crate::deploy::oci::{Image, Reference};
use crate::deploy::shape::MCP_PORT;
use crate::deploy::{
    self, Action, Change, Cluster, ClusterError, ClusterNode, Finding, FormatOf, Host, ImageFile, Installation,
    ManagedFile, Need, Node, Plan, Platform, PodNode, Pods, Program, Release, Role, Runner, Tree, cluster,
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
            node.context("Cairn is installed here for k3s, and this machine is no longer a K3s or RKE2 server")?;
        Self::open(tree, node, &namespace(record)?)
    }

    /// The cluster that a node was left in whose record is gone: by the labels of its namespace. `None` where there is none.
    pub(super) fn left(tree: &Tree) -> Result<Option<Self>, Failure> {
        let Some(node) = Host::detect(tree)?.cluster.filter(|node| node.role == Role::Server) else { return Ok(None) };
        let connection = Self::open(tree, node.clone(), k3s::NAME)?;
        let namespaces = connection.cluster.own_namespaces()?;
        match &namespaces[..] {
            [] => Ok(None),
            [namespace] => Self::open(tree, node, namespace).map(Some),
            several => Err(anyhow!(
                "there are nodes in the namespaces {}, and no record says which one is meant; remove one with `kubectl delete namespace`",
                several.join(", ")
            )
            .into()),
        }
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
    Ok(Some(reach.map_err(|error| anyhow!(error))?.variables()))
}

/// The node in this machine's cluster, for the command line.
pub(in crate::cli) struct Reached {
    pub(in crate::cli) url: String,
    /// Where the name in the address leads.
    pub(in crate::cli) resolve: Option<IpAddr>,
    /// For people.
    pub(in crate::cli) shown: String,
    pub(in crate::cli) ca: Option<PathBuf>,
    pub(in crate::cli) token: Option<String>,
}

/// How the node is reached that was installed into the cluster of this machine; `None` where none was.
///
/// The installation wrote its address down. Where it did not, the cluster is asked, which takes root.
pub(in crate::cli) fn reached() -> Result<Option<Reached>, Failure> {
    let tree = Tree::machine();
    let Some(record) = Installation::read(&tree)?.filter(|record| record.platform == Platform::K3s) else {
        return Ok(None);
    };
    let is_root = rustix::process::geteuid().is_root();
    let (node, asked) = match &record.node {
        Some(node) => (node.clone(), None),
        None if is_root => {
            let reach = Connection::of(&tree, &record)?.node(&tree, Duration::ZERO).reach();
            let reach = reach.map_err(|error| anyhow!(error))?;
            (reach.address(), reach.token)
        }
        None => {
            let hint = "Cairn was installed into this machine's cluster, and only root can ask where; run this with sudo, or give --url";
            return Err(Failure::unreachable(anyhow!(hint)));
        }
    };
    let shown = node.address.map_or_else(|| node.url.clone(), |address| shown(&node.url, address));
    let token = asked.or_else(|| line_of(Path::new(TOKEN))).or_else(|| {
        // Of another store of secrets it is in the cluster only; a node that made its own has one for this machine's root.
        let connection = is_root.then(|| Connection::of(&tree, &record).ok()).flatten()?;
        let given = connection.cluster.token().ok().flatten();
        given.or_else(|| RunningNode::read(&connection.cluster.data_folder().ok()??)?.token)
    });
    let ca = Some(PathBuf::from(AUTHORITY)).filter(|path| node.url.starts_with("https://") && path.exists());
    Ok(Some(Reached { url: node.url, resolve: node.address, shown, ca, token }))
}

/// An address in the place of the name in a URL.
fn shown(url: &str, address: IpAddr) -> String {
    let (scheme, place) = url.split_once("://").unwrap_or(("https", url));
    let port = place.rsplit_once(':').map(|(_, port)| port);
    format!("{scheme}://{}", SocketAddr::new(address, port.and_then(|port| port.parse().ok()).unwrap_or(MCP_PORT)))
}

/// The folder of this machine that holds the data of the node in its cluster.
pub(in crate::cli) fn data_here() -> Result<PathBuf, Failure> {
    let tree = Tree::machine();
    let record = Installation::read(&tree)?.ok_or_else(|| crate::deploy::ChangeError::not_installed(&tree))?;
    let namespace = namespace(&record)?;
    let in_pod = format!("kubectl -n {namespace} exec {} -- /cairn token create NAME", cluster::POD);
    let hint =
        || anyhow!("the node runs in this machine's cluster, and this account cannot see its data; use {in_pod}");
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::unreachable(hint()));
    }
    let found = Connection::of(&tree, &record)?.cluster.data_folder()?;
    found.ok_or_else(|| Failure::unreachable(hint()))
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
    let made = Made::before(tree, &prepared.kept)?;
    // Before the manifests that carry it.
    keep(tree, &prepared.kept).map_err(|error| anyhow!(error))?;
    let Prepared { release, executable, choices, settings, .. } = &prepared;
    let patience = Duration::from_secs(arguments.timeout);
    let install = |runner: &mut dyn Runner, node: &mut dyn Node| {
        Change { tree, runner, node, report: report(tree) }.install(release, executable, choices.clone())
    };
    match &prepared.connection {
        Some(connection) => {
            let changed = made.settle(connection.with(tree, patience, install))?;
            remember(tree, connection)?;
            publish_authority(&connection.cluster, settings)?;
            Steps.step("proving the addresses");
            show::in_cluster(common.json, &changed, &told(&connection.cluster, node, tree, settings)?)
        }
        None => {
            let mut staged = Staged { tree, kept: prepared.kept.clone() };
            show::staged(common.json, &made.settle(install(&mut staged, &mut NoNode))?)
        }
    }
}

/// Puts the authority of the node where a job finds it that has to trust it. It outlives releases, as the authority does.
fn publish_authority(cluster: &Cluster, settings: &Settings) -> Result<(), Failure> {
    if settings.needs_authority()
        && let Some(trusted) = cluster.trusted()?
    {
        cluster.publish_authority(&trusted.pem)?;
    }
    Ok(())
}

/// Writes down where the node is, for the other verbs.
fn remember(tree: &Tree, connection: &Connection) -> Result<(), Failure> {
    let reach = connection.node(tree, Duration::ZERO).reach().map_err(|error| anyhow!(error))?;
    if let Some(mut record) = Installation::read(tree)? {
        record.node = Some(reach.address());
        record.write(tree)?;
    }
    Ok(())
}

/// What a client needs to reach the node. Each address was tried by a client that trusts the authority and nobody else; what it cannot
/// use is said.
fn told(cluster: &Cluster, node: &ClusterNode, tree: &Tree, settings: &Settings) -> Result<show::Told, Failure> {
    let scheme = if settings.is_tls() { "https" } else { "http" };
    let at = |address: &str, port: u16| match address.contains(':') {
        true => format!("{scheme}://[{address}]:{port}"),
        false => format!("{scheme}://{address}:{port}"),
    };
    let service = cluster.service_address()?;
    let authority =
        Some(PathBuf::from(AUTHORITY)).filter(|path| settings.is_tls() && tree.exists(path).unwrap_or(false));
    let mut notes = Vec::new();
    let mut prove = |url: &str, resolve: Option<IpAddr>| {
        if let Err(reason) = proved(url, authority.as_deref(), resolve) {
            notes.push(format!("no client that trusts the authority alone can use {url}: {reason}"));
        }
    };
    let resolve = service.as_deref().and_then(|address| address.parse().ok());
    let url = match (settings.ingress_host(), settings.balanced_port()) {
        // What its certificate is, the ingress knows.
        (Some(host), _) => format!("https://{host}/mcp"),
        (None, Some(port)) => {
            let url = format!("{}/mcp", at(&balanced(cluster, node, tree)?, port));
            prove(&url, None);
            url
        }
        (None, None) => {
            let url = format!("{scheme}://{}.{}.svc:{MCP_PORT}/mcp", k3s::NAME, settings.namespace());
            prove(&url, resolve);
            url
        }
    };
    let here = service.map(|address| at(&address, MCP_PORT));
    if let Some(here) = &here {
        prove(here, None);
    }
    Ok(show::Told { url, here, authority, token: cluster.token()?, namespace: settings.namespace().to_owned(), notes })
}

/// Where the load balancer answers: where it says, or, while it says nothing, at this machine, as K3s' own does.
fn balanced(cluster: &Cluster, node: &ClusterNode, tree: &Tree) -> Result<String, Failure> {
    if let Some(address) = cluster.balanced_address()? {
        return Ok(address);
    }
    let members = cluster.members()?;
    let here = this_machine(tree, node, &members)?.or(members.first());
    let mut addresses = here.into_iter().flat_map(|here| &here.addresses);
    let address = addresses.find(|address| address.parse::<IpAddr>().is_ok());
    Ok(address.cloned().unwrap_or_else(|| "<an address of a node>".to_owned()))
}

/// Tries an address until it can be used, as long as a node takes to look its service up, and a load balancer to come up.
fn proved(url: &str, authority: Option<&Path>, resolve: Option<IpAddr>) -> Result<(), String> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let start = Instant::now();
    loop {
        match prove(url, authority, resolve) {
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(500)),
            tried => return tried,
        }
    }
}

fn prepare(tree: &Tree, node: &ClusterNode, arguments: &Arguments) -> Result<Prepared, Failure> {
    let executable = std::env::current_exe().context("cannot find the file that is running")?;
    let executable = Program::at(&executable)?;
    let record = Installation::read(tree)?;
    let before = record.as_ref().map(|record| record.chosen().clone()).unwrap_or_default();
    let (mut options, choices) = options(&before, Some(arguments))?;
    let mut findings = record_findings(record.as_ref(), Platform::K3s);
    let connection = match tree.is_machine() {
        true => {
            findings.extend(root_finding("it writes below /usr/local, /etc and K3s' folders"));
            match Connection::open(tree, node.clone(), checked(&options)?.namespace()) {
                Ok(open) => Some(open),
                Err(failure) => {
                    findings.push(Finding::obstacle("api", failure.to_string()));
                    None
                }
            }
        }
        false => None,
    };
    let (image, gpu_drivers, without) = image(tree, &executable, &options)?;
    options.image_digest = Some(image.digest());
    if let Some(Connection { cluster, .. }) = &connection {
        findings.extend(place::choose(tree, node, cluster, &mut options)?);
    }
    let mut kept = Vec::new();
    if !tree.is_machine() {
        // One that many machines share would be no secret.
        let namespace = Settings::new(&options).map_err(Failure::usage)?.namespace().to_owned();
        let message = format!(
            "the image has no token: each machine's own is made by kubectl -n {namespace} exec {} -- /cairn token create NAME, and by \
             `cairn install` on the machine",
            cluster::POD
        );
        findings.push(Finding::warning("token", message));
    } else if !options.with.contains(&Variant::ExternalSecrets) {
        // Of another store of secrets the token comes from there.
        let token = match tree.read(TOKEN)? {
            Some(bytes) => {
                String::from_utf8(bytes).with_context(|| format!("{TOKEN} is not UTF-8 text"))?.trim().to_owned()
            }
            None => Token::random()?.reveal().to_owned(),
        };
        kept.push(ManagedFile { path: TOKEN.into(), mode: 0o600, bytes: format!("{token}\n").into_bytes() });
        options.token = Some(k3s::ClientToken::new(token));
    }
    let settings = checked(&options)?;
    let rendered = k3s::render(&settings);
    // They carry the token.
    let files = rendered.files().map(|(name, text)| ManagedFile {
        path: node.manifests().join(name),
        mode: 0o600,
        bytes: text.as_bytes().to_vec(),
    });
    let mut files = Vec::from(files);
    if !tree.is_machine() {
        files.push(deploy::systemd::documents(&deploy::current(tree)));
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut release = Release::new(&executable, version, Platform::K3s, store::FORMAT, files, None);
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
    findings.extend(unusual_prefix(tree));
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
    if tree.is_machine() {
        if let Some(Connection { cluster, .. }) = &connection {
            findings.extend(late_import(cluster, node));
            let (needed, action) = place::needs(cluster, &settings)?;
            findings.extend(needed);
            plan.actions.extend(action);
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
    Some(match Connection::of(&tree, &record) {
        Ok(connection) => cluster::checkup::examine(&connection.cluster, &tree, current.as_ref()),
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
