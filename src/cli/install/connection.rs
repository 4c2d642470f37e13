//! The API of this machine's cluster, and the node that was installed into it.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::runtime::Runtime;

use super::choices::Choices;
use super::machine::{AUTHORITY, TOKEN};
use crate::app::RunningNode;
use crate::cli::Failure;
use crate::cli::in_cluster::line_of;
use crate::deploy::k3s::{ObjectNames, PROGRAM};
use crate::deploy::shape::MCP_PORT;
use crate::deploy::{
    ChangeError, Cluster, ClusterError, ClusterNode, Finding, FormatOf, Host, Installation, Node, Platform, PodNode,
    Pods, Release, Role, Runner, Tree, cluster,
};
use crate::store;

/// The API and what it runs on.
pub(super) struct Connection {
    pub(super) cluster: Cluster,
    // Dropped last: the client uses it.
    _runtime: Runtime,
}

impl Connection {
    /// * `name`: the node's, in the cluster.
    pub(super) fn open(tree: &Tree, node: ClusterNode, namespace: &str, name: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let kubeconfig = tree.locate(&node.kubeconfig)?;
        let cluster = Cluster::connect(node, &kubeconfig, namespace, ObjectNames::of(name), runtime.handle().clone());
        match cluster {
            Ok(cluster) => Ok(Self { cluster, _runtime: runtime }),
            Err(error @ ClusterError::Unreachable { .. }) => Err(Failure::unreachable(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// That of the node that is installed.
    pub(super) fn of(tree: &Tree, record: &Installation) -> Result<Self, Failure> {
        let node = server(tree)?
            .context("Cairn is installed here for k3s, and this machine is no longer a K3s or RKE2 server")?;
        let choices = Choices::of(Some(record))?;
        Self::open(tree, node, choices.namespace(), choices.name())
    }

    /// The cluster that a node was left in whose record is gone: by the labels of its namespace and of its claim. `None` where there is
    /// none.
    pub(super) fn left(tree: &Tree) -> Result<Option<Self>, Failure> {
        let Some(node) = server(tree)? else { return Ok(None) };
        let connection = Self::open(tree, node.clone(), PROGRAM, PROGRAM)?;
        let namespaces = connection.cluster.own_namespaces()?;
        let namespace = match &namespaces[..] {
            [] => return Ok(None),
            [namespace] => namespace,
            several => {
                return Err(anyhow!(
                    "there are nodes in the namespaces {}, and no record says which one is meant; remove one with `kubectl delete namespace`",
                    several.join(", ")
                )
                .into());
            }
        };
        let connection = Self::open(tree, node.clone(), namespace, PROGRAM)?;
        let names: Vec<String> = connection.cluster.nodes_of_namespace()?.into_iter().collect();
        match &names[..] {
            [] => Ok(Some(connection)),
            [name] => Self::open(tree, node, namespace, name).map(Some),
            several => Err(anyhow!(
                "the nodes {} are in the namespace {namespace}, and no record says which one is meant; remove one with `kubectl -n {namespace} \
                 delete pvc data-NAME-0`",
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

    /// Writes down where the node is, for the other verbs.
    pub(super) fn record_address(&self, tree: &Tree) -> Result<(), Failure> {
        let access = self.node(tree, Duration::ZERO).reach().map_err(|error| anyhow!(error))?;
        if let Some(mut record) = Installation::read(tree)? {
            record.node = Some(access.address());
            record.write(tree)?;
        }
        Ok(())
    }

    /// Where the data of the node is, by a name that can be typed.
    pub(super) fn data_folder(&self) -> Result<Option<PathBuf>, Failure> {
        if !self.cluster.has_data()? {
            return Ok(None);
        }
        Ok(Some(self.cluster.data_folder()?.unwrap_or_else(|| PathBuf::from(self.cluster.names().claim()))))
    }

    /// The other nodes of the namespace, which a removal leaves.
    pub(super) fn others(&self, tree: &Tree) -> Result<Vec<String>, Failure> {
        let others = Pods::new(&self.cluster, tree, Duration::ZERO).others().map_err(|error| anyhow!(error))?;
        Ok(others.into_iter().collect())
    }

    /// Deletes the namespace, and with it the data; of a namespace with other nodes the data alone.
    pub(super) fn purge(&self, tree: &Tree, patience: Duration) -> Result<(), Failure> {
        Pods::new(&self.cluster, tree, patience).purge().map_err(|error| anyhow!(error).into())
    }
}

/// This machine as a server of a cluster.
fn server(tree: &Tree) -> Result<Option<ClusterNode>, Failure> {
    Ok(Host::detect(tree)?.cluster.filter(|node| node.role == Role::Server))
}

/// The record of a node in this machine's cluster; `None` where none was installed into it.
fn record_of_pod(tree: &Tree) -> Result<Option<Installation>, Failure> {
    Ok(Installation::read(tree)?.filter(|record| record.platform == Platform::K3s))
}

/// How the command line reaches the node that is installed, as variables; `None` where it is on this machine itself.
pub(super) fn variables(tree: &Tree) -> Result<Option<Vec<(&'static str, OsString)>>, Failure> {
    let Some(record) = record_of_pod(tree)? else { return Ok(None) };
    let access = Connection::of(tree, &record)?.node(tree, Duration::ZERO).reach();
    Ok(Some(access.map_err(|error| anyhow!(error))?.variables()))
}

/// The node in this machine's cluster, for the command line.
pub(in crate::cli) struct NodeAccess {
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
pub(in crate::cli) fn node_access() -> Result<Option<NodeAccess>, Failure> {
    let tree = Tree::machine();
    let Some(record) = record_of_pod(&tree)? else { return Ok(None) };
    let is_root = rustix::process::geteuid().is_root();
    let (node, token) = match &record.node {
        Some(node) => (node.clone(), None),
        None if is_root => {
            let access = Connection::of(&tree, &record)?.node(&tree, Duration::ZERO).reach();
            let access = access.map_err(|error| anyhow!(error))?;
            (access.address(), access.token)
        }
        None => {
            let hint = "Cairn was installed into this machine's cluster, and only root can look its address up; run this with sudo, or give --url";
            return Err(Failure::unreachable(anyhow!(hint)));
        }
    };
    let shown = node.address.map_or_else(|| node.url.clone(), |address| with_address(&node.url, address));
    let token = token.or_else(|| line_of(Path::new(TOKEN))).or_else(|| {
        // Of another store of secrets it is in the cluster only; a node that made its own has one for this machine's root.
        let connection = is_root.then(|| Connection::of(&tree, &record).ok()).flatten()?;
        let of_secret = connection.cluster.token().ok().flatten();
        of_secret.or_else(|| RunningNode::read(&connection.cluster.data_folder().ok()??)?.token)
    });
    let ca = Some(PathBuf::from(AUTHORITY)).filter(|path| node.url.starts_with("https://") && path.exists());
    Ok(Some(NodeAccess { url: node.url, resolve: node.address, shown, ca, token }))
}

/// An address in the place of the name in a URL.
fn with_address(url: &str, address: IpAddr) -> String {
    let (scheme, authority) = url.split_once("://").unwrap_or(("https", url));
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    format!("{scheme}://{}", SocketAddr::new(address, port.and_then(|port| port.parse().ok()).unwrap_or(MCP_PORT)))
}

/// The folder of this machine that holds the data of the node in its cluster.
pub(in crate::cli) fn data_here() -> Result<PathBuf, Failure> {
    let tree = Tree::machine();
    let record = Installation::read(&tree)?.ok_or_else(|| ChangeError::not_installed(&tree))?;
    let choices = Choices::of(Some(&record))?;
    let pod = ObjectNames::of(choices.name()).pod();
    let in_pod = format!("kubectl -n {} exec {pod} -- /cairn token create NAME", choices.namespace());
    let hint =
        || anyhow!("the node runs in this machine's cluster, and this account cannot see its data; use {in_pod}");
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::unreachable(hint()));
    }
    let found = Connection::of(&tree, &record)?.cluster.data_folder()?;
    found.ok_or_else(|| Failure::unreachable(hint()))
}

/// What the API knows to be wrong with the node that is installed here; `None` where none is, or this account may not ask.
pub(in crate::cli) fn checkup() -> Option<Vec<Finding>> {
    let tree = Tree::machine();
    let record = record_of_pod(&tree).ok().flatten()?;
    let current = record.current.as_deref().and_then(|name| Release::load(&tree, name).ok().flatten());
    Some(match Connection::of(&tree, &record) {
        Ok(connection) => cluster::checkup::examine(&connection.cluster, &tree, current.as_ref()),
        Err(_) if !rustix::process::geteuid().is_root() => Vec::new(),
        Err(failure) => vec![Finding::obstacle("api", failure.to_string())],
    })
}
