//! How clients reach the pod once it runs, each address tried.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Pod;
use crate::cli::Failure;
use crate::cli::backend::prove;
use crate::cli::install::machine::AUTHORITY;
use crate::deploy::cluster::this_machine;
use crate::deploy::k3s::Settings;
use crate::deploy::shape::MCP_PORT;
use crate::deploy::{Cluster, ClusterNode, Tree};

/// What a client needs to reach the node.
pub(in crate::cli::install) struct PodAccess {
    /// Address of MCP for clients.
    pub(in crate::cli::install) url: String,
    /// Address of the service, for this machine.
    pub(in crate::cli::install) service: Option<String>,
    pub(in crate::cli::install) authority: Option<PathBuf>,
    pub(in crate::cli::install) token: Option<String>,
    /// The command that forwards a port of this machine to the node.
    pub(in crate::cli::install) port_forward: String,
    /// What is not as it should be.
    pub(in crate::cli::install) notes: Vec<String>,
}

impl PodAccess {
    /// Asks the cluster. Each address is tried by a client that trusts the authority and nobody else; what it cannot use is noted.
    pub(in crate::cli::install) fn of(pod: &Pod, cluster: &Cluster, tree: &Tree) -> Result<Self, Failure> {
        let settings = &pod.settings;
        let scheme = if settings.is_tls() { "https" } else { "http" };
        let at = |address: &str, port: u16| match address.contains(':') {
            true => format!("{scheme}://[{address}]:{port}"),
            false => format!("{scheme}://{address}:{port}"),
        };
        let service = cluster.service_address()?;
        let authority =
            Some(PathBuf::from(AUTHORITY)).filter(|path| settings.is_tls() && tree.exists(path).unwrap_or(false));
        let mut notes = Vec::new();
        let mut try_url = |url: &str, resolve: Option<IpAddr>| {
            if let Err(reason) = usable(url, authority.as_deref(), resolve) {
                notes.push(format!("no client that trusts the authority alone can use {url}: {reason}"));
            }
        };
        let resolve = service.as_deref().and_then(|address| address.parse().ok());
        let url = match (settings.ingress_host(), settings.balanced_port()) {
            // What its certificate is, the ingress knows.
            (Some(host), _) => format!("https://{host}/mcp"),
            (None, Some(port)) => {
                let url = format!("{}/mcp", at(&balanced(cluster, &pod.node, tree)?, port));
                try_url(&url, None);
                url
            }
            (None, None) => {
                let url = format!("{scheme}://{}.{}.svc:{MCP_PORT}/mcp", settings.name(), settings.namespace());
                try_url(&url, resolve);
                url
            }
        };
        let service = service.map(|address| at(&address, MCP_PORT));
        if let Some(service) = &service {
            try_url(service, None);
        }
        let (namespace, name) = (settings.namespace(), settings.name());
        let port_forward = format!("kubectl -n {namespace} port-forward service/{name} {MCP_PORT}");
        Ok(Self { url, service, authority, token: cluster.token()?, port_forward, notes })
    }
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

/// Tries an address until it can be used, as long as a node takes to look its service up, and a load balancer to start.
fn usable(url: &str, authority: Option<&Path>, resolve: Option<IpAddr>) -> Result<(), String> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let start = Instant::now();
    loop {
        match prove(url, authority, resolve) {
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(500)),
            outcome => return outcome,
        }
    }
}

/// Puts the authority of the node where a job finds it that has to trust it. It outlives releases, as the authority does.
pub(in crate::cli::install) fn publish_authority(cluster: &Cluster, settings: &Settings) -> Result<(), Failure> {
    if settings.needs_authority()
        && let Some(trusted) = cluster.trusted()?
    {
        cluster.publish_authority(&trusted.pem)?;
    }
    Ok(())
}
