//! Routers of Traefik in labels, as an Ingress of the cluster's Traefik.
//!
//! Invariants: a rule is understood whole or not at all; what is more than hosts and paths is asked for.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::migrate::leaf::{At, Leaf};
use crate::migrate::objects::Context;
use crate::migrate::report::{Ledger, Target};
use crate::migrate::stack::Service;

const PREFIX: &str = "traefik.";
const ENTRY_POINTS: &str = "traefik.ingress.kubernetes.io/router.entrypoints";

/// One host with one path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    host: Option<String>,
    path: String,
    is_exact: bool,
}

/// The Ingress of a service, where its labels have a router that is understood. Marks every label of Traefik.
pub fn ingress(
    service: &Service,
    labels: &[&(String, At<String>)],
    context: &Context<'_>,
    ledger: &mut Ledger,
) -> Option<Ingress> {
    let own: BTreeMap<String, (&str, Leaf)> = labels
        .iter()
        .filter_map(|(key, value)| {
            let name = key.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX))?;
            Some((key[name.len()..].to_ascii_lowercase(), (value.value.as_str(), value.leaf)))
        })
        .collect();
    if own.is_empty() {
        return None;
    }
    let name = context.names.service(&service.name);
    let target = |field: &str| Target::new(format!("Ingress/{name}"), field);
    let is_off = own.get("enable").is_some_and(|(value, _)| *value == "false");
    let port = own
        .iter()
        .find(|(key, _)| key.starts_with("http.services.") && key.ends_with(".loadbalancer.server.port"))
        .and_then(|(_, (value, _))| value.parse::<u16>().ok());
    let first_port = service.ports.first().map(|port| port.target.value);
    let mut routes = Vec::new();
    let mut entry_points = Vec::new();
    let mut is_tls = false;
    for (key, (value, leaf)) in &own {
        if is_off {
            ledger.agrees(*leaf, "Traefik does not serve it");
            continue;
        }
        let parts: Vec<&str> = key.split('.').collect();
        match parts[..] {
            ["enable"] => ledger.agrees(*leaf, "the Ingress says so"),
            ["docker" | "swarm", ..] => ledger.agrees(*leaf, "the cluster's Traefik reaches every pod"),
            ["http", "routers", _, "rule"] => match routes_of(value) {
                Some(found) if port.or(first_port).is_some() => {
                    ledger.converted(*leaf, target("spec.rules"));
                    routes.extend(found);
                }
                Some(_) => ledger.needs_input(*leaf, "which port Traefik calls is not known; write an Ingress"),
                None => ledger.needs_input(*leaf, "an Ingress has hosts and paths; write an IngressRoute of Traefik's"),
            },
            ["http", "routers", _, "entrypoints"] => {
                ledger.converted(*leaf, target(&format!("metadata.annotations[{ENTRY_POINTS:?}]")));
                entry_points.extend(value.split(',').map(|point| point.trim().to_owned()));
            }
            ["http", "routers", _, "tls"] => {
                is_tls = *value == "true";
                ledger.approximated(
                    *leaf,
                    target("spec.tls"),
                    "with Traefik's own certificate until a Secret is named",
                );
            }
            ["http", "routers", _, "tls", ..] => {
                is_tls = true;
                ledger.needs_input(
                    *leaf,
                    "certificates come from cert-manager or from a resolver of the cluster's Traefik",
                );
            }
            ["http", "routers", _, "service"] => ledger.agrees(*leaf, "the service itself"),
            ["http", "services", _, "loadbalancer", "server", "port"] => {
                ledger.converted(*leaf, target("spec.rules[0].http.paths[0].backend.service.port.number"));
            }
            _ => ledger.needs_input(
                *leaf,
                "write a Middleware or an IngressRoute of Traefik's; the label is in the annotation",
            ),
        }
    }
    let port = port.or(first_port)?;
    (!routes.is_empty()).then(|| object(context, &name, &routes, port, &entry_points, is_tls))
}

fn object(
    context: &Context<'_>,
    name: &str,
    routes: &[Route],
    port: u16,
    entry_points: &[String],
    is_tls: bool,
) -> Ingress {
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: name.to_owned(),
            port: Some(ServiceBackendPort { number: Some(i32::from(port)), name: None }),
        }),
        resource: None,
    };
    let rule = |route: &Route| IngressRule {
        host: route.host.clone(),
        http: Some(HTTPIngressRuleValue {
            paths: vec![HTTPIngressPath {
                path: Some(route.path.clone()),
                path_type: if route.is_exact { "Exact" } else { "Prefix" }.to_owned(),
                backend: backend.clone(),
            }],
        }),
    };
    let hosts: Vec<String> = routes.iter().filter_map(|route| route.host.clone()).collect();
    let annotations = BTreeMap::from([(ENTRY_POINTS.to_owned(), entry_points.join(","))]);
    Ingress {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(context.options.namespace.clone()),
            annotations: (!entry_points.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(IngressSpec {
            ingress_class_name: Some("traefik".to_owned()),
            rules: Some(routes.iter().map(rule).collect()),
            tls: is_tls.then(|| vec![IngressTLS { hosts: Some(hosts), secret_name: None }]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}

/// The hosts and paths of a rule such as ``Host(`a`) && PathPrefix(`/b`)``; `None` where it is more than that.
fn routes_of(rule: &str) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    for alternative in rule.split("||") {
        let (mut hosts, mut paths) = (Vec::new(), Vec::new());
        for matcher in alternative.split("&&") {
            let (name, arguments) = matcher.trim().strip_suffix(')')?.split_once('(')?;
            let texts: Option<Vec<String>> = arguments.split(',').map(quoted).collect();
            match name.trim() {
                "Host" => hosts.extend(texts?.into_iter().map(Some)),
                "PathPrefix" => paths.extend(texts?.into_iter().map(|path| (path, false))),
                "Path" => paths.extend(texts?.into_iter().map(|path| (path, true))),
                _ => return None,
            }
        }
        if hosts.is_empty() {
            hosts.push(None);
        }
        if paths.is_empty() {
            paths.push(("/".to_owned(), false));
        }
        for host in &hosts {
            let legal = |host: &String| {
                let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
                !host.is_empty() && host.bytes().all(is_label)
            };
            if !host.as_ref().is_none_or(legal) || !paths.iter().all(|(path, _)| path.starts_with('/')) {
                return None;
            }
            for (path, is_exact) in &paths {
                let host = host.as_ref().map(|host| host.to_ascii_lowercase());
                routes.push(Route { host, path: path.clone(), is_exact: *is_exact });
            }
        }
    }
    Some(routes)
}

/// A text in backquotes or quotes.
fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = |mark: char| text.strip_prefix(mark)?.strip_suffix(mark);
    let inner = inner('`').or_else(|| inner('"')).or_else(|| inner('\''))?;
    (!inner.contains(['`', '"', '\''])).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(rule: &str) -> Option<Vec<String>> {
        let text = |route: Route| {
            format!("{}{}{}", route.host.unwrap_or_default(), route.path, if route.is_exact { "=" } else { "" })
        };
        routes_of(rule).map(|routes| routes.into_iter().map(text).collect())
    }

    #[test]
    fn rules_are_understood_whole_or_not_at_all() {
        let of = |rule: &str| routes(rule).map(|routes| routes.join(" "));
        assert_eq!(of("Host(`A.example`)").as_deref(), Some("a.example/"));
        assert_eq!(of("Host(`a`,`b`) && PathPrefix(`/x`)").as_deref(), Some("a/x b/x"));
        assert_eq!(of("Host(`a`) || Path(`/y`)").as_deref(), Some("a/ /y="));
        for rule in [
            "Host(`a`) && Headers(`x`, `y`)",
            "HostRegexp(`a`)",
            "!Host(`a`)",
            "Host(a)",
            "(Host(`a`) || Host(`b`)) && Path(`/`)",
            "",
        ] {
            assert_eq!(of(rule), None, "{rule}");
        }
    }
}
