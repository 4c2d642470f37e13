//! Ports that are reached from outside: on every node by K3s' load balancer, or on the nodes that have a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Service as ServiceObject, ServicePort};

use super::{NetworkObjects, Workload, metadata, protocol_of, protocol_text, service_port};
use crate::migrate::objects::Context;
use crate::migrate::report::{Ledger, Target};
use crate::migrate::stack::{Port, PortMode, Protocol, Service};

/// Ports of a K3s node that are not free, with what has them. Those of Traefik are free where K3s runs with `--disable=traefik`.
const NODE_PORTS: &[(u16, Protocol, &str)] = &[
    (80, Protocol::Tcp, "Traefik of K3s; start K3s with --disable=traefik, or reach the service by an Ingress"),
    (443, Protocol::Tcp, "Traefik of K3s; start K3s with --disable=traefik, or reach the service by an Ingress"),
    (2379, Protocol::Tcp, "etcd of K3s; publish another port"),
    (2380, Protocol::Tcp, "etcd of K3s; publish another port"),
    (5001, Protocol::Tcp, "the image mirror of K3s; publish another port, unless it is off"),
    (6443, Protocol::Tcp, "the API server of K3s; publish another port"),
    (6444, Protocol::Tcp, "K3s itself; publish another port"),
    (8472, Protocol::Udp, "the network of K3s; publish another port"),
    (10248, Protocol::Tcp, "the kubelet; publish another port"),
    (10249, Protocol::Tcp, "kube-proxy; publish another port"),
    (10250, Protocol::Tcp, "the kubelet; publish another port"),
    (10256, Protocol::Tcp, "kube-proxy; publish another port"),
    (51820, Protocol::Udp, "WireGuard of K3s; publish another port"),
    (51821, Protocol::Udp, "WireGuard of K3s; publish another port"),
];

/// Makes the ports reachable.
pub(super) fn plan(
    context: &Context<'_>,
    workloads: &BTreeMap<String, Workload>,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let mut owners: BTreeMap<(u16, Protocol), &str> = BTreeMap::new();
    for service in &context.stack.services {
        let Some(workload) = workloads.get(&service.name) else { continue };
        for port in &service.ports {
            check(port, &service.name, &mut owners, ledger);
        }
        balancer(context, service, workload, result, ledger);
        let ports = container_ports(service, workload, ledger);
        if !ports.is_empty() {
            result.container_ports.insert(service.name.clone(), ports);
        }
    }
}

/// Whether the node has the port free.
fn check<'a>(port: &Port, service: &'a str, owners: &mut BTreeMap<(u16, Protocol), &'a str>, ledger: &mut Ledger) {
    let Some(published) = port.published else { return };
    let protocol = protocol_of(port.protocol);
    let number = published.value;
    if let Some((_, _, owner)) = NODE_PORTS.iter().find(|(other, kind, _)| (*other, *kind) == (number, protocol)) {
        ledger.needs_input(published.leaf, format!("port {number} of the node belongs to {owner}"));
    }
    match owners.get(&(number, protocol)) {
        Some(other) if *other != service => {
            let reason = format!("{other} publishes port {number}, too, and a node has it once; publish another port");
            ledger.needs_input(published.leaf, reason);
        }
        _ => {
            owners.insert((number, protocol), service);
        }
    }
}

/// The Service of the ports in `ingress` mode.
fn balancer(
    context: &Context<'_>,
    service: &Service,
    workload: &Workload,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let mut ingress: Vec<&Port> = service.ports.iter().filter(|port| !is_host(port)).collect();
    ingress.sort_by_key(|port| in_order(port));
    if ingress.is_empty() {
        return;
    }
    let name = format!("{}-published", context.names.service(&service.name));
    let object_of = |kind: &str| if kind == "NodePort" { format!("{name}-any") } else { name.clone() };
    for (kind, has_number) in [("LoadBalancer", true), ("NodePort", false)] {
        let mut ports: Vec<ServicePort> = Vec::new();
        for port in ingress.iter().filter(|port| port.published.is_some() == has_number) {
            let protocol = protocol_of(port.protocol);
            let number = port.published.map_or(port.target.value, |published| published.value);
            let field = format!("spec.ports[{}]", ports.len());
            let target = |part: &str| Target::new(format!("Service/{}", object_of(kind)), format!("{field}.{part}"));
            match port.published {
                Some(published) => ledger.converted(published.leaf, target("port")),
                None => {
                    let reason =
                        "the cluster chooses a port from 30000 on, as Swarm does; `kubectl get service` shows it";
                    ledger.approximated(port.target.leaf, target("nodePort"), reason);
                }
            }
            ledger.converted(port.target.leaf, target("targetPort"));
            if let Some(protocol) = port.protocol {
                ledger.converted(protocol.leaf, target("protocol"));
            }
            if let Some(mode) = port.mode {
                ledger.converted(mode.leaf, Target::new(format!("Service/{}", object_of(kind)), "spec.type"));
            }
            if let Some(protocol) = &port.app_protocol {
                ledger.converted(protocol.leaf, target("appProtocol"));
            }
            if let Some(ip) = port.host_ip {
                ledger.dropped(ip.leaf, "the load balancer of K3s answers on every address of the node");
            }
            let mut object = service_port(&port_name(number, protocol), number, port.target.value, protocol);
            object.app_protocol = port.app_protocol.as_ref().map(|protocol| protocol.value.clone());
            if let Some(own) = &port.name {
                ledger.dropped(own.leaf, "the name of a port is for people; the Service's is its number");
            }
            let is_there = ports.iter().any(|other| other.port == object.port && other.protocol == object.protocol);
            if !is_there {
                ports.push(object);
            }
        }
        if !ports.is_empty() {
            let mut spec = k8s_openapi::api::core::v1::ServiceSpec {
                type_: Some(kind.to_owned()),
                selector: Some(workload.selector.clone()),
                ports: Some(ports),
                ..Default::default()
            };
            // ServiceLB and Traefik see the client's address only this way; Swarm's mesh hides it as `Cluster` does.
            spec.external_traffic_policy = Some("Cluster".to_owned());
            let metadata = metadata(context, &object_of(kind));
            let object = ServiceObject { metadata, spec: Some(spec), ..ServiceObject::default() };
            result.services.push((service.name.clone(), object));
        }
    }
}

fn port_name(number: u16, protocol: Protocol) -> String {
    format!("{}-{number}", protocol_text(protocol).to_ascii_lowercase())
}

/// The order of ports, whatever it is in the file.
fn in_order(port: &Port) -> (u16, u16, Protocol) {
    let published = port.published.map_or(0, |published| published.value);
    (published, port.target.value, protocol_of(port.protocol))
}

fn is_host(port: &Port) -> bool {
    port.mode.is_some_and(|mode| mode.value == PortMode::Host)
}

/// The ports of the container, with those of the node in `host` mode.
fn container_ports(service: &Service, workload: &Workload, ledger: &mut Ledger) -> Vec<ContainerPort> {
    let mut ports: Vec<ContainerPort> = Vec::new();
    let mut all: Vec<&Port> = service.ports.iter().collect();
    all.sort_by_key(|port| (port.target.value, in_order(port)));
    for port in all {
        let protocol = protocol_of(port.protocol);
        let number = i32::from(port.target.value);
        let field =
            |ports: &[ContainerPort], part: &str| workload.holder.container(&format!("ports[{}].{part}", ports.len()));
        let mut object = ContainerPort {
            container_port: number,
            name: Some(port_name(port.target.value, protocol)),
            protocol: Some(protocol_text(protocol).to_owned()),
            ..ContainerPort::default()
        };
        if is_host(port) {
            let published = port.published.map_or(port.target, |published| published);
            object.host_port = Some(i32::from(published.value));
            object.host_ip = port.host_ip.map(|ip| ip.value.to_string());
            match port.published {
                Some(published) => ledger.converted(published.leaf, field(&ports, "hostPort")),
                None => {
                    let reason =
                        "Swarm chooses a free port of the node; Kubernetes does not: it is the container's own";
                    ledger.approximated(port.target.leaf, field(&ports, "hostPort"), reason);
                }
            }
            ledger.converted(port.target.leaf, field(&ports, "containerPort"));
            for leaf in [port.protocol.map(|at| at.leaf), port.mode.map(|at| at.leaf), port.host_ip.map(|at| at.leaf)] {
                leaf.into_iter().for_each(|leaf| ledger.converted(leaf, field(&ports, "hostPort")));
            }
            if let Some(own) = &port.name {
                ledger.dropped(own.leaf, "the name of a port is for people; the container's is its number");
            }
            if let Some(own) = &port.app_protocol {
                ledger.dropped(own.leaf, "a port of the node has no protocol above its own");
            }
        }
        let twin = ports.iter().position(|other| {
            (other.container_port, &other.protocol) == (number, &object.protocol)
                && (other.host_port == object.host_port || other.host_port.is_none() || object.host_port.is_none())
        });
        match twin {
            Some(twin) if object.host_port.is_some() => ports[twin] = object,
            Some(_) => {}
            None => ports.push(object),
        }
    }
    for (number, protocol) in &workload.exposed {
        let kind = protocol_text(*protocol);
        let is_there =
            |port: &ContainerPort| port.container_port == i32::from(*number) && port.protocol.as_deref() == Some(kind);
        if !ports.iter().any(is_there) {
            ports.push(ContainerPort {
                container_port: i32::from(*number),
                name: Some(port_name(*number, *protocol)),
                protocol: Some(kind.to_owned()),
                ..ContainerPort::default()
            });
        }
    }
    // Two ports of the node for one of the container would have one name.
    let mut names = std::collections::BTreeSet::new();
    for port in &mut ports {
        if port.name.clone().is_some_and(|name| !names.insert(name)) {
            port.name = None;
        }
    }
    ports
}
