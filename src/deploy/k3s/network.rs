//! How the pod is reached and what it reaches: Services, NetworkPolicy, Ingress.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, IPBlock, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::settings::Settings;
use super::spec::{self, LoadBalancer};
use super::{metadata, selector};
use crate::deploy::shape::{ADMIN_PORT, MCP_PORT};

const DNS_PORT: u16 = 53;
/// The port of MCP and REST.
pub(super) const MCP: u16 = MCP_PORT;

/// Where clients of the cluster connect.
pub(super) fn cluster_service(settings: &Settings) -> Service {
    let mut service = service(settings, settings.name().to_owned(), "service", vec![port(settings, "mcp", MCP_PORT)]);
    annotate(&mut service, (*settings.spec.service.annotations).clone());
    if let Some(ingress) = &settings.spec.ingress
        && ingress.class.as_str() == TRAEFIK
        && settings.is_tls()
    {
        // Traefik takes these from the Service, not from the Ingress.
        let transport = format!("{}-{}@kubernetescrd", settings.namespace(), settings.name());
        annotate(
            &mut service,
            BTreeMap::from([
                ("traefik.ingress.kubernetes.io/service.serversscheme".to_owned(), "https".to_owned()),
                ("traefik.ingress.kubernetes.io/service.serverstransport".to_owned(), transport),
            ]),
        );
    }
    with_spec(service, |spec| spec.type_ = Some("ClusterIP".to_owned()))
}

/// The pod's own name in DNS, which a StatefulSet needs, and where metrics are scraped.
pub(super) fn headless_service(settings: &Settings) -> Service {
    let ports = vec![port(settings, "mcp", MCP_PORT), port(settings, "admin", ADMIN_PORT)];
    with_spec(service(settings, settings.names().headless(), "headless", ports), |spec| {
        spec.type_ = Some("ClusterIP".to_owned());
        spec.cluster_ip = Some("None".to_owned());
    })
}

/// A port on the cluster's nodes.
pub(super) fn load_balancer(settings: &Settings, balancer: &LoadBalancer) -> Service {
    let mut mcp = port(settings, "mcp", MCP_PORT);
    mcp.port = i32::from(*balancer.port);
    let mut service = service(settings, settings.names().load_balancer(), "loadbalancer", vec![mcp]);
    annotate(&mut service, (*settings.spec.service.annotations).clone());
    with_spec(service, |spec| {
        spec.type_ = Some("LoadBalancer".to_owned());
        spec.load_balancer_source_ranges = Some(balancer.cidr.iter().map(|cidr| cidr.to_string()).collect())
            .filter(|cidrs: &Vec<_>| !cidrs.is_empty());
    })
}

fn service(settings: &Settings, name: String, component: &str, ports: Vec<ServicePort>) -> Service {
    Service {
        metadata: metadata(settings, name, component),
        spec: Some(ServiceSpec {
            selector: Some(settings.names().selector_labels()),
            ports: Some(ports),
            // There is no other pod to go to. One that is not ready still answers searches, and takes the deletes that make
            // room on a full disk; without this nobody would reach it.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn annotate(service: &mut Service, annotations: BTreeMap<String, String>) {
    if !annotations.is_empty() {
        service.metadata.annotations.get_or_insert_default().extend(annotations);
    }
}

fn with_spec(mut service: Service, change: impl FnOnce(&mut ServiceSpec)) -> Service {
    if let Some(spec) = &mut service.spec {
        change(spec);
    }
    service
}

fn port(settings: &Settings, name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(if settings.is_tls() { "https" } else { "http" }.to_owned()),
        ..ServicePort::default()
    }
}

/// Only what is listed here reaches the pod and is reached by it. Policies are enforced some seconds after a pod's start, and in
/// clusters without a network plugin that knows them not at all, so the token is asked for all the same.
pub(super) fn network_policy(settings: &Settings) -> NetworkPolicy {
    // Clients behind a load balancer come with addresses of nodes or of their own, which no selector matches.
    let clients = settings.spec.loadbalancer.is_none().then(|| vec![namespaces(LabelSelector::default())]);
    let mut ingress = vec![NetworkPolicyIngressRule { from: clients, ports: Some(vec![port_of("TCP", MCP_PORT)]) }];
    ingress.extend(settings.spec.monitoring.iter().map(|monitoring| NetworkPolicyIngressRule {
        from: Some(vec![namespaces(named(&monitoring.namespace))]),
        ports: Some(vec![port_of("TCP", ADMIN_PORT)]),
    }));
    NetworkPolicy {
        metadata: metadata(settings, settings.name(), "node"),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(settings)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress(settings)),
        }),
    }
}

/// Looking names up.
pub(super) fn dns() -> NetworkPolicyEgressRule {
    let dns_pods = LabelSelector {
        match_labels: Some(BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())])),
        ..LabelSelector::default()
    };
    NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer { pod_selector: Some(dns_pods), ..namespaces(named("kube-system")) }]),
        ports: Some(vec![port_of("UDP", DNS_PORT), port_of("TCP", DNS_PORT)]),
    }
}

fn egress(settings: &Settings) -> Vec<NetworkPolicyEgressRule> {
    let mut rules = vec![dns()];
    if settings.configured("snapshot.target").is_some_and(|target| target.starts_with("s3://")) {
        rules.push(NetworkPolicyEgressRule {
            // Names cannot be listed here, only addresses.
            to: blocks(&settings.spec.backup.cidr),
            ports: Some(vec![port_of(
                "TCP",
                endpoint_port(settings.configured("snapshot.s3_endpoint").unwrap_or_default()),
            )]),
        });
    }
    rules
}

/// Ranges of addresses; `None`, which is all, for none.
pub(super) fn blocks(cidrs: &[spec::Cidr]) -> Option<Vec<NetworkPolicyPeer>> {
    let block = |cidr: &spec::Cidr| NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.to_string(), except: None }),
        ..NetworkPolicyPeer::default()
    };
    Some(cidrs.iter().map(block).collect::<Vec<_>>()).filter(|blocks| !blocks.is_empty())
}

/// The port of `https://host:port/…`; Amazon's without an endpoint.
pub(super) fn endpoint_port(endpoint: &str) -> u16 {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let authority = rest.split('/').next().unwrap_or_default();
    let named = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    named.unwrap_or(if scheme == "http" { 80 } else { 443 })
}

fn namespaces(selector: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

/// The namespace of that name, by the label that every namespace has.
fn named(namespace: &str) -> LabelSelector {
    let label = ("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    LabelSelector { match_labels: Some(BTreeMap::from([label])), ..LabelSelector::default() }
}

pub(super) fn port_of(protocol: &str, port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(i32::from(port))),
        end_port: None,
    }
}

/// The class that K3s brings.
pub(super) const TRAEFIK: &str = "traefik";

pub(super) fn ingress(settings: &Settings, ingress: &spec::Ingress) -> Ingress {
    let mut metadata = metadata(settings, settings.name(), "ingress");
    if ingress.class.as_str() == "nginx" {
        let mut annotations = BTreeMap::from([
            // Progress comes as a stream, and documents are larger than the megabyte that nginx takes.
            ("nginx.ingress.kubernetes.io/proxy-buffering".to_owned(), "off".to_owned()),
            ("nginx.ingress.kubernetes.io/proxy-body-size".to_owned(), "72m".to_owned()),
        ]);
        if settings.is_tls() {
            annotations.insert("nginx.ingress.kubernetes.io/backend-protocol".to_owned(), "HTTPS".to_owned());
        }
        metadata.annotations = Some(annotations);
    }
    if !ingress.annotations.is_empty() {
        metadata.annotations.get_or_insert_default().extend((*ingress.annotations).clone());
    }
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: settings.name().to_owned(),
            port: Some(ServiceBackendPort { name: Some("mcp".to_owned()), number: None }),
        }),
        resource: None,
    };
    let path = HTTPIngressPath { path: Some(ingress.path.to_string()), path_type: "Prefix".to_owned(), backend };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: Some(ingress.class.to_string()),
            rules: Some(vec![IngressRule {
                host: Some(ingress.host.to_string()),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls: Some(vec![IngressTLS {
                hosts: Some(vec![ingress.host.to_string()]),
                secret_name: ingress.secret.as_deref().cloned(),
            }]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_an_endpoint_is_the_one_it_is_reached_at() {
        for (endpoint, port) in [
            ("", 443),
            ("https://minio.example:9000", 9000),
            ("https://s3.example/path:1", 443),
            ("http://minio.example", 80),
            ("http://[::1]:9000", 9000),
        ] {
            assert_eq!(endpoint_port(endpoint), port, "{endpoint}");
        }
    }
}
