//! Names and networks: every name that Docker's DNS answers resolves, and ports are reached from where they were.
//!
//! Swarm answers a service's name on every port of its containers, whether the file lists ports or not. So each service has a Service of its
//! name. Where the ports that others use are known it has an address and those ports; where none is known it is headless, and its
//! name gives the addresses of the pods, which answer on every port.
//!
//! Invariants: a name leads to one Service; what cannot be a name of a Service is replaced in the texts that use it.

mod names;
mod pod;
mod policies;
mod published;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerPort, Service as ServiceObject, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(super) use self::pod::of_pod;
use super::text::{HostNames, Identity, hosts_with_ports};
use super::{Context, Holder, With};
use crate::migrate::report::{Ledger, Target};
use crate::migrate::stack::{EndpointMode, PortMode, Protocol, Service, Test};

/// What is known of the workload of a service.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The object, for the report.
    pub holder: Holder,
    /// What finds its pods.
    pub selector: BTreeMap<String, String>,
    /// How its pods differ.
    pub identity: Identity,
    /// How many there are at the start; 1 for each node.
    pub replicas: u64,
    /// Ports that its image, or a Compose file, says are used.
    pub exposed: Vec<(u16, Protocol)>,
}

/// What the networks of a stack come to.
#[derive(Debug, Default)]
pub struct NetworkObjects {
    /// With the key of the service that each is for.
    pub services: Vec<(String, ServiceObject)>,
    /// NetworkPolicies, with the key of the service, where it is for one.
    pub policies: Vec<(Option<String>, NetworkPolicy)>,
    /// Labels of the pods, by service.
    pub pod_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// Ports of the containers, by service.
    pub container_ports: BTreeMap<String, Vec<ContainerPort>>,
    /// Services whose pods are on the network of their node.
    pub host_network: BTreeSet<String>,
    /// The name of the headless Service of each StatefulSet, by service.
    pub governing: BTreeMap<String, String>,
    /// Names that have to be replaced in texts.
    pub host_names: HostNames,
}

/// Makes the Services and policies.
///
/// * `workloads`: by the key of the service; each service has one.
pub fn plan(context: &Context<'_>, workloads: &BTreeMap<String, Workload>, ledger: &mut Ledger) -> NetworkObjects {
    let mut result = NetworkObjects::default();
    let references = References::of(context);
    for service in &context.stack.services {
        let Some(workload) = workloads.get(&service.name) else { continue };
        own_service(context, service, workload, &references, &mut result, ledger);
    }
    names::further(context, workloads, &references, &mut result, ledger);
    published::plan(context, workloads, &mut result, ledger);
    policies::plan(context, workloads, &mut result, ledger);
    result
}

/// What the texts of a stack ask of names.
struct References {
    /// Names with the ports that they are asked on.
    ports: BTreeSet<(String, u16)>,
    /// Every text, for names without a port.
    texts: Vec<String>,
}

impl References {
    fn of(context: &Context<'_>) -> Self {
        let mut texts = Vec::new();
        for service in &context.stack.services {
            texts.extend(service.environment.iter().filter_map(|variable| variable.value.clone()));
            let commands = [&service.entrypoint, &service.command].into_iter().flatten();
            texts.extend(commands.flat_map(|words| &words.words).map(|word| word.value.clone()));
            match service.health_check.as_ref().and_then(|check| check.test.as_ref()) {
                Some(Test::Program(_, words)) => texts.extend(words.iter().map(|word| word.value.clone())),
                Some(Test::Shell(_, line)) => texts.push(line.value.clone()),
                _ => {}
            }
        }
        let with_port = |(host, port): (&str, u16)| (host.to_ascii_lowercase(), port);
        let ports = texts.iter().flat_map(|text| hosts_with_ports(text)).map(with_port).collect();
        Self { ports, texts }
    }

    /// The ports that one of these names is asked on.
    fn ports(&self, names: &[String]) -> BTreeSet<u16> {
        let is_named = |host: &String| names.iter().any(|name| name.eq_ignore_ascii_case(host));
        self.ports.iter().filter(|(host, _)| is_named(host)).map(|(_, port)| *port).collect()
    }

    /// Whether a text has this name.
    fn have(&self, name: &str) -> bool {
        self.texts.iter().any(|text| text.contains(name))
    }
}

/// The Service of a service's own name.
fn own_service(
    context: &Context<'_>,
    service: &Service,
    workload: &Workload,
    references: &References,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let name = context.names.service(&service.name);
    let target = |field: &str| Target::new(format!("Service/{name}"), field);
    let mode = service.endpoint_mode.as_ref();
    let ports = known_ports(service, workload, references.ports(&names_of(context, service)));
    let is_headless = mode.is_some_and(|mode| mode.value == EndpointMode::Dnsrr) || ports.is_empty();
    if let Some(mode) = mode {
        match (mode.value, is_headless) {
            (EndpointMode::Vip, true) => {
                let reason = "no port is known, and an address of a Service answers on listed ports only: the name gives \
                              the addresses of the pods";
                ledger.approximated(mode.leaf, target("spec.clusterIP"), reason);
            }
            _ => ledger.converted(mode.leaf, target("spec.clusterIP")),
        }
    }
    let reason = match is_headless {
        true => "other services reach it by this name, on every port",
        false => "other services reach it by this name, on the ports that are known; list further ones here",
    };
    ledger.added(target("spec"), reason);
    result.host_names.add(&service.name, &name);
    result.host_names.add(&format!("{}_{}", context.stack.name, service.name), &name);
    let object = service_object(context, &name, &workload.selector, if is_headless { Vec::new() } else { ports });
    result.services.push((service.name.clone(), object));
    if workload.identity == Identity::Numbered {
        let governing = if is_headless { name.clone() } else { format!("{name}-pods") };
        if !is_headless {
            let mut object = service_object(context, &governing, &workload.selector, Vec::new());
            publish_not_ready(&mut object);
            ledger.added(
                Target::new(format!("Service/{governing}"), "spec"),
                "a StatefulSet needs a headless Service, which gives its pods their names",
            );
            result.services.push((service.name.clone(), object));
        }
        result.governing.insert(service.name.clone(), governing);
    }
}

/// The names that a service has in Docker's DNS.
pub(super) fn names_of(context: &Context<'_>, service: &Service) -> Vec<String> {
    let mut names = vec![service.name.clone(), format!("{}_{}", context.stack.name, service.name)];
    names.extend(service.networks.iter().flat_map(|network| &network.aliases).map(|alias| alias.value.clone()));
    names.extend(service.hostname.iter().map(|name| name.value.clone()));
    names.extend(service.compose.container_name.iter().map(|name| name.value.clone()));
    names
}

/// Ports that others use within the cluster: those of the container that are published, that the image has, and that texts name.
fn known_ports(service: &Service, workload: &Workload, referred: BTreeSet<u16>) -> Vec<ServicePort> {
    let published = service.ports.iter().map(|port| (port.target.value, protocol_of(port.protocol)));
    let mut all: BTreeSet<(u16, Protocol)> = published.chain(workload.exposed.iter().copied()).collect();
    for port in referred {
        if !all.iter().any(|(number, _)| *number == port) {
            all.insert((port, Protocol::Tcp));
        }
    }
    // Outside it is the published port, and people use it inside, too.
    let outside: Vec<(u16, u16, Protocol)> = service
        .ports
        .iter()
        .filter(|port| port.mode.is_none_or(|mode| mode.value == PortMode::Ingress))
        .filter_map(|port| Some((port.published?.value, port.target.value, protocol_of(port.protocol))))
        .filter(|(number, _, protocol)| !all.contains(&(*number, *protocol)))
        .collect();
    let is_twice = |number: u16| all.iter().filter(|(other, _)| *other == number).count() > 1;
    let is_twice = |number: u16| is_twice(number) || outside.iter().filter(|(other, ..)| *other == number).count() > 1;
    let inside = all.iter().map(|(number, protocol)| (*number, *number, *protocol));
    let mut seen = BTreeSet::new();
    let every = inside.chain(outside.iter().copied()).filter(|(number, _, protocol)| seen.insert((*number, *protocol)));
    let ports = every.map(|(number, target, protocol)| {
        let name = match is_twice(number) || protocol != Protocol::Tcp {
            true => format!("port-{number}-{}", protocol_text(protocol).to_ascii_lowercase()),
            false => format!("port-{number}"),
        };
        service_port(&name, number, target, protocol)
    });
    ports.collect()
}

fn service_port(name: &str, port: u16, target: u16, protocol: Protocol) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(port),
        target_port: Some(IntOrString::Int(i32::from(target))),
        protocol: Some(protocol_text(protocol).to_owned()),
        ..ServicePort::default()
    }
}

fn protocol_of(protocol: Option<crate::migrate::At<Protocol>>) -> Protocol {
    protocol.map_or(Protocol::Tcp, |protocol| protocol.value)
}

fn protocol_text(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// A Service: headless without ports.
fn service_object(
    context: &Context<'_>,
    name: &str,
    selector: &BTreeMap<String, String>,
    ports: Vec<ServicePort>,
) -> ServiceObject {
    let is_headless = ports.is_empty();
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        cluster_ip: is_headless.then(|| "None".to_owned()),
        selector: Some(selector.clone()),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
        ..ServiceSpec::default()
    };
    ServiceObject { metadata: metadata(context, name), spec: Some(spec), ..ServiceObject::default() }
}

fn metadata(context: &Context<'_>, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(context.options.namespace.clone()),
        ..ObjectMeta::default()
    }
}

/// Peers find each other before they are ready: they often get ready by that.
fn publish_not_ready(object: &mut ServiceObject) {
    if let Some(spec) = &mut object.spec {
        spec.publish_not_ready_addresses = Some(true);
    }
}

/// Whether policies were asked for.
fn has_policies(context: &Context<'_>) -> bool {
    context.options.with.contains(&With::NetworkPolicy)
}
