//! Who reaches whom: labels of pods for each network, and where it is asked for the policies that hold them apart.
//!
//! Policies add up: what one allows is allowed. So a pod that is on two networks is reached from both, and published ports and names stay
//! reachable by policies of their own.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{NetworkObjects, Workload, has_policies, metadata, protocol_of, protocol_text};
use crate::migrate::objects::Context;
use crate::migrate::report::{Ledger, Target};
use crate::migrate::stack::{Network, Service};

/// What the label of a network begins with.
const NETWORK_LABEL: &str = "cairn.local/network-";
/// Longest name part of a label's key.
const LABEL_MAX: usize = 63;
/// The network of services that name none.
const DEFAULT: &str = "default";

/// What a network is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One of the stack's own.
    Own,
    /// That of the node.
    Host,
    /// None at all.
    Nothing,
    /// Another stack's.
    External,
}

/// Makes the labels and policies.
pub(super) fn plan(
    context: &Context<'_>,
    workloads: &BTreeMap<String, Workload>,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for service in &context.stack.services {
        used.extend(networks_of(service));
    }
    let own: Vec<&str> = used.iter().copied().filter(|key| kind(context, key) == Kind::Own).collect();
    for service in &context.stack.services {
        let Some(workload) = workloads.get(&service.name) else { continue };
        attach(context, service, workload, own.len(), result, ledger);
    }
    for network in &context.stack.networks {
        describe(context, network, &own, ledger);
    }
    let is_internal = |key: &&str| described(context, key).and_then(|one| one.internal).is_some_and(|one| one.value);
    // With one network a policy would hold nobody apart, and shut out what is outside of the stack.
    if !has_policies(context) || own.len() < 2 && !own.iter().any(is_internal) {
        return;
    }
    for key in &own {
        result.policies.push((None, within(context, key)));
        let target = Target::new(format!("NetworkPolicy/{}", context.names.network(key)), "spec");
        ledger.added(target, "services reach each other where they share a network, as in Swarm");
    }
    for service in &context.stack.services {
        let Some(workload) = workloads.get(&service.name) else { continue };
        result.policies.extend(from_outside(context, service, workload).map(|one| (Some(service.name.clone()), one)));
        result.policies.extend(no_way_out(context, service, workload).map(|one| (Some(service.name.clone()), one)));
    }
}

/// The networks of a service.
fn networks_of(service: &Service) -> Vec<&str> {
    match &service.networks[..] {
        [] => vec![DEFAULT],
        networks => networks.iter().map(|network| network.network.as_str()).collect(),
    }
}

fn described<'a>(context: &Context<'a>, key: &str) -> Option<&'a Network> {
    context.stack.networks.iter().find(|network| network.key == key)
}

fn kind(context: &Context<'_>, key: &str) -> Kind {
    let Some(network) = described(context, key) else {
        return if key == "host" { Kind::Host } else { Kind::Own };
    };
    let is_external = network.external.is_some_and(|external| external.value);
    let name = network.name.as_ref().map_or(key, |name| name.value.as_str());
    match (is_external, name) {
        (_, "host") => Kind::Host,
        (_, "none") => Kind::Nothing,
        (true, _) => Kind::External,
        (false, _) => Kind::Own,
    }
}

fn label(context: &Context<'_>, key: &str) -> String {
    let name: String = context.names.network(key).chars().take(LABEL_MAX - "network-".len()).collect();
    format!("{NETWORK_LABEL}{}", name.trim_end_matches('-'))
}

/// The networks that a service is on.
fn attach(
    context: &Context<'_>,
    service: &Service,
    workload: &Workload,
    networks: usize,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let holder = &workload.holder;
    for key in networks_of(service) {
        match kind(context, key) {
            Kind::Own | Kind::External => {
                let labels = result.pod_labels.entry(service.name.clone()).or_default();
                labels.insert(label(context, key), "true".to_owned());
            }
            Kind::Host => {
                result.host_network.insert(service.name.clone());
            }
            Kind::Nothing => {}
        }
    }
    for attachment in &service.networks {
        let key = &attachment.network;
        let target = holder.metadata(&format!("labels[{:?}]", label(context, key)));
        let leaves = attachment.leaf.into_iter();
        for leaf in leaves {
            match kind(context, key) {
                Kind::Host => ledger.converted(leaf, holder.pod("hostNetwork")),
                Kind::Nothing => ledger.needs_input(leaf, "every pod has a network; a NetworkPolicy can close it"),
                Kind::Own if has_policies(context) || networks == 1 => ledger.converted(leaf, target.clone()),
                Kind::Own => {
                    let reason = "the pods have a label for the network, and are reached from all others; --with \
                                  networkpolicy holds networks apart";
                    ledger.approximated(leaf, target.clone(), reason);
                }
                Kind::External => {
                    let reason = "the network is another stack's: its services are found as NAME.NAMESPACE";
                    ledger.needs_input(leaf, reason);
                }
            }
        }
        for address in &attachment.addresses {
            ledger.dropped(address.leaf, "a pod has no fixed address; others find it by its name");
        }
        for (_, option) in &attachment.driver_options {
            ledger.dropped(option.leaf, "an option of Docker's network driver");
        }
    }
    if let Some(mode) = &service.compose.network_mode {
        match mode.value.as_str() {
            "host" => {
                result.host_network.insert(service.name.clone());
                ledger.converted(mode.leaf, holder.pod("hostNetwork"));
            }
            "bridge" | "default" => ledger.agrees(mode.leaf, "each pod has a network of its own"),
            "none" => ledger.needs_input(mode.leaf, "every pod has a network; a NetworkPolicy can close it"),
            _ => ledger.needs_input(
                mode.leaf,
                "two services with one network are two containers of one pod; decide whether they move together",
            ),
        }
    }
}

/// What a network says of itself.
fn describe(context: &Context<'_>, network: &Network, own: &[&str], ledger: &mut Ledger) {
    let name = context.names.network(&network.key);
    let policy = Target::new(format!("NetworkPolicy/{name}"), "metadata.name");
    let is_external = network.external.is_some_and(|external| external.value);
    let kind = kind(context, &network.key);
    let unused = "no service is on the network";
    let is_used = own.contains(&network.key.as_str());
    for leaf in network.empty.into_iter().chain(network.name.as_ref().map(|name| name.leaf)) {
        match kind {
            Kind::Host | Kind::Nothing => ledger.agrees(leaf, "the network of the node, or none"),
            Kind::External => ledger.needs_input(
                leaf,
                "the network is another stack's; move that stack, and name its services as NAME.NAMESPACE",
            ),
            Kind::Own if !is_used => ledger.agrees(leaf, unused),
            Kind::Own if has_policies(context) => ledger.converted(leaf, policy.clone()),
            Kind::Own => ledger.agrees(leaf, "the cluster has one network for all pods"),
        }
    }
    if let Some(external) = &network.external {
        match kind {
            Kind::External => ledger.needs_input(
                external.leaf,
                "the network is another stack's; move that stack, and name its services as NAME.NAMESPACE",
            ),
            _ => ledger.agrees(external.leaf, "the network of the node, or none"),
        }
    }
    if let Some(driver) = &network.driver {
        match driver.value.as_str() {
            "overlay" | "bridge" | "default" | "host" | "none" => {
                ledger.agrees(driver.leaf, "the cluster's own network reaches every node");
            }
            other => ledger.dropped(driver.leaf, format!("the cluster has one network, and {other} is not part of it")),
        }
    }
    for (option, value) in &network.driver_options {
        match option.as_str() {
            "encrypted" => {
                let reason =
                    "traffic between nodes is encrypted where K3s runs with --flannel-backend=wireguard-native";
                ledger.needs_input(value.leaf, reason);
            }
            _ => ledger.dropped(value.leaf, "an option of Docker's network driver; the cluster's network has its own"),
        }
    }
    if let Some(internal) = &network.internal {
        match (internal.value, has_policies(context)) {
            (false, _) => ledger.agrees(internal.leaf, "pods reach what is outside"),
            (true, _) if !is_used || is_external => ledger.agrees(internal.leaf, unused),
            (true, true) => {
                ledger.converted(internal.leaf, Target::new(format!("NetworkPolicy/{name}"), "spec.egress"))
            }
            (true, false) => {
                ledger.dropped(internal.leaf, "its pods reach what is outside; --with networkpolicy closes the way");
            }
        }
    }
    if let Some(attachable) = &network.attachable {
        ledger.dropped(attachable.leaf, "every pod is on the cluster's network, also one that is started by hand");
    }
    for (_, label) in &network.labels {
        ledger.dropped(label.leaf, "the network is not an object of the cluster");
    }
    for (part, leaf) in &network.addressing {
        let reason = format!("{part}: the cluster chooses the addresses of pods, and a pod has one interface, eth0");
        ledger.dropped(*leaf, reason);
    }
}

fn pods_of(context: &Context<'_>, key: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(label(context, key), "true".to_owned())])),
        ..LabelSelector::default()
    }
}

fn peer(selector: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

fn policy(
    context: &Context<'_>,
    name: &str,
    pods: LabelSelector,
    ingress: Option<Vec<NetworkPolicyIngressRule>>,
    egress: Option<Vec<NetworkPolicyEgressRule>>,
) -> NetworkPolicy {
    let types = [("Ingress", ingress.is_some()), ("Egress", egress.is_some())];
    NetworkPolicy {
        metadata: metadata(context, name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods),
            policy_types: Some(
                types.into_iter().filter(|(_, is_there)| *is_there).map(|(kind, _)| kind.to_owned()).collect(),
            ),
            ingress,
            egress,
        }),
    }
}

/// The pods of a network reach each other.
fn within(context: &Context<'_>, key: &str) -> NetworkPolicy {
    let from = NetworkPolicyIngressRule { from: Some(vec![peer(pods_of(context, key))]), ports: None };
    policy(context, &context.names.network(key), pods_of(context, key), Some(vec![from]), None)
}

fn port(number: u16, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    }
}

/// Everybody reaches the published ports of a service.
fn from_outside(context: &Context<'_>, service: &Service, workload: &Workload) -> Option<NetworkPolicy> {
    let ports: BTreeSet<(u16, &str)> =
        service.ports.iter().map(|port| (port.target.value, protocol_text(protocol_of(port.protocol)))).collect();
    if ports.is_empty() {
        return None;
    }
    let ports = ports.into_iter().map(|(number, protocol)| port(number, protocol)).collect();
    let selector = LabelSelector { match_labels: Some(workload.selector.clone()), ..LabelSelector::default() };
    let name = format!("{}-published", context.names.service(&service.name));
    let rule = NetworkPolicyIngressRule { from: None, ports: Some(ports) };
    Some(policy(context, &name, selector, Some(vec![rule]), None))
}

/// A service that is only on networks without a way out reaches their pods, and asks for names.
fn no_way_out(context: &Context<'_>, service: &Service, workload: &Workload) -> Option<NetworkPolicy> {
    let networks = networks_of(service);
    let is_internal = |key: &&str| {
        described(context, key).and_then(|network| network.internal).is_some_and(|internal| internal.value)
    };
    if !networks.iter().all(is_internal) {
        return None;
    }
    let pods = networks.iter().map(|key| peer(pods_of(context, key))).collect();
    let names = NetworkPolicyEgressRule { to: None, ports: Some(vec![port(53, "UDP"), port(53, "TCP")]) };
    let rules = vec![NetworkPolicyEgressRule { to: Some(pods), ports: None }, names];
    let selector = LabelSelector { match_labels: Some(workload.selector.clone()), ..LabelSelector::default() };
    let name = format!("{}-internal", context.names.service(&service.name));
    Some(policy(context, &name, selector, None, Some(rules)))
}
