//! What a pod knows of names: its host name, its name servers, and lines of `/etc/hosts`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodDNSConfigOption};

use super::Workload;
use crate::migrate::objects::text::{Identity, has_slot};
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::Service;

/// Most name servers of a pod, those of the cluster among them (Kubernetes, `MaxDNSNameservers`).
const SERVERS_MAX: usize = 3;

/// Fields of a pod.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodNetwork {
    /// What the pod calls itself.
    pub hostname: Option<String>,
    /// Its resolver.
    pub dns_config: Option<PodDNSConfig>,
    /// Where names are asked.
    pub dns_policy: Option<String>,
    /// Lines of `/etc/hosts`.
    pub host_aliases: Vec<HostAlias>,
    /// Whether it is on the network of its node.
    pub host_network: bool,
}

/// Makes the fields.
///
/// * `host_network`: whether the service is on the network of its node.
pub fn of_pod(service: &Service, workload: &Workload, host_network: bool, ledger: &mut Ledger) -> PodNetwork {
    let holder = &workload.holder;
    let mut result = PodNetwork { host_network, ..PodNetwork::default() };
    // Without this a pod on the network of its node does not find services.
    result.dns_policy = host_network.then(|| "ClusterFirstWithHostNet".to_owned());
    result.hostname = hostname(service, workload, ledger);
    let mut config = PodDNSConfig::default();
    for (place, server) in service.dns_servers.iter().enumerate() {
        if place + 1 < SERVERS_MAX {
            let reason = "the cluster's own name server is asked first, for the names of services";
            ledger.approximated(server.leaf, holder.pod(&format!("dnsConfig.nameservers[{place}]")), reason);
            config.nameservers.get_or_insert_default().push(server.value.clone());
        } else {
            ledger.dropped(server.leaf, "a pod has three name servers at most, one of them the cluster's");
        }
    }
    for (place, domain) in service.dns_search.iter().enumerate() {
        ledger.converted(domain.leaf, holder.pod(&format!("dnsConfig.searches[{place}]")));
        config.searches.get_or_insert_default().push(domain.value.clone());
    }
    for (place, option) in service.dns_options.iter().enumerate() {
        ledger.converted(option.leaf, holder.pod(&format!("dnsConfig.options[{place}]")));
        let (name, value) = match option.value.split_once(':') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option.value.as_str(), None),
        };
        let option = PodDNSConfigOption { name: Some(name.to_owned()), value };
        config.options.get_or_insert_default().push(option);
    }
    result.dns_config = (config != PodDNSConfig::default()).then_some(config);
    result.host_aliases = host_aliases(service, workload, ledger);
    if let Some(domain) = &service.compose.domain_name {
        ledger.dropped(domain.leaf, "the domain of a pod is that of its Service");
    }
    result
}

/// What the pod calls itself. That the name is found is the work of Services.
fn hostname(service: &Service, workload: &Workload, ledger: &mut Ledger) -> Option<String> {
    let hostname = service.hostname.as_ref()?;
    if has_slot(&hostname.value) && workload.identity == Identity::Numbered {
        // The pods of a StatefulSet have their names already.
        return None;
    }
    let is_label = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    if is_label(&hostname.value) {
        if workload.identity == Identity::Numbered {
            let reason =
                "the pods of a StatefulSet call themselves by their own names; the name resolves to all of them";
            ledger.mark(hostname.leaf, Outcome::Approximated, reason, None);
            return None;
        }
        ledger.converted(hostname.leaf, workload.holder.pod("hostname"));
        return Some(hostname.value.clone());
    }
    let reason = match hostname.value.contains("{{") {
        true => "Kubernetes has one host name for all pods of a workload: they call themselves by their own names",
        false => "the host name of a pod is a DNS label: the pods call themselves by their own names",
    };
    ledger.mark(hostname.leaf, Outcome::Approximated, reason, None);
    None
}

fn host_aliases(service: &Service, workload: &Workload, ledger: &mut Ledger) -> Vec<HostAlias> {
    let mut by_address: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for host in &service.extra_hosts {
        let address = host.value.address.trim_matches(['[', ']']);
        if address == "host-gateway" {
            let reason = format!(
                "the address of the node differs from node to node: give {} an address, or use the pod's status.hostIP",
                host.value.name
            );
            ledger.needs_input(host.leaf, reason);
        } else if address.parse::<std::net::IpAddr>().is_err() {
            ledger.dropped(host.leaf, "it has no address, and Docker ignores it");
        } else {
            ledger.converted(host.leaf, workload.holder.pod("hostAliases"));
            by_address.entry(address.to_owned()).or_default().push(host.value.name.clone());
        }
    }
    by_address.into_iter().map(|(ip, names)| HostAlias { ip, hostnames: Some(names) }).collect()
}
