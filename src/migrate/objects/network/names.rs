//! Names besides a service's own: host names, aliases, `tasks.NAME`, and those of containers in Compose files.

use std::collections::{BTreeMap, BTreeSet};

use super::{NetworkObjects, References, Workload, publish_not_ready, service_object};
use crate::migrate::leaf::Leaf;
use crate::migrate::objects::text::{Identity, Scope, has_slot};
use crate::migrate::objects::{Context, folded};
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::Service;

/// Most pods of one service that each have a Service of their own.
const PODS_MAX: u64 = 64;
/// Longest name of a Service.
const LENGTH_MAX: usize = 63;
/// What the label of a name begins with that several services share.
const ALIAS_LABEL: &str = "cairn.local/alias-";

/// A name that a service has in Docker's DNS.
struct Alias<'a> {
    service: &'a Service,
    leaf: Leaf,
    /// Whether it is found before it is ready.
    is_peer: bool,
}

/// Makes the further names resolve.
pub(super) fn further(
    context: &Context<'_>,
    workloads: &BTreeMap<String, Workload>,
    references: &References,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let mut aliases: BTreeMap<String, Vec<Alias<'_>>> = BTreeMap::new();
    for service in &context.stack.services {
        let Some(workload) = workloads.get(&service.name) else { continue };
        tasks(context, service, workload, references, result, ledger);
        for alias in service.networks.iter().flat_map(|network| &network.aliases) {
            let named = Alias { service, leaf: alias.leaf, is_peer: false };
            aliases.entry(alias.value.clone()).or_default().push(named);
        }
        if let Some(name) = &service.compose.container_name {
            let named = Alias { service, leaf: name.leaf, is_peer: true };
            aliases.entry(name.value.clone()).or_default().push(named);
        }
        if let Some(hostname) = &service.hostname {
            if has_slot(&hostname.value) && workload.identity == Identity::Numbered {
                pods(context, service, workload, result, ledger);
            } else if !hostname.value.contains("{{") {
                let named = Alias { service, leaf: hostname.leaf, is_peer: true };
                aliases.entry(hostname.value.clone()).or_default().push(named);
            }
        }
        for link in &service.compose.links {
            let (target, name) = link.value.split_once(':').unwrap_or((&link.value, &link.value));
            match context.stack.services.iter().find(|other| other.name == target) {
                Some(service) => {
                    aliases.entry(name.to_owned()).or_default().push(Alias {
                        service,
                        leaf: link.leaf,
                        is_peer: false,
                    });
                }
                None => ledger.needs_input(link.leaf, format!("there is no service {target} in the stack")),
            }
        }
    }
    for (name, named) in aliases {
        alias(context, &name, &named, workloads, result, ledger);
    }
}

/// `tasks.NAME`, which gives the addresses of the containers.
fn tasks(
    context: &Context<'_>,
    service: &Service,
    workload: &Workload,
    references: &References,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let own = context.names.service(&service.name);
    let scoped = format!("tasks.{}_{}", context.stack.name, service.name);
    let plain = format!("tasks.{}", service.name);
    if !references.have(&plain) && !references.have(&scoped) {
        return;
    }
    let name = folded(&format!("{own}-tasks"), LENGTH_MAX);
    let object = service_object(context, &name, &workload.selector, Vec::new());
    let reason = format!("{plain} gives the addresses of all pods; a name of a Service has no dot");
    ledger.added(Target::new(format!("Service/{name}"), "spec"), reason);
    result.services.push((service.name.clone(), object));
    result.host_names.add(&plain, &name);
    result.host_names.add(&scoped, &name);
}

fn is_headless(object: &k8s_openapi::api::core::v1::Service) -> bool {
    object.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// A Service for each pod of a StatefulSet, of the host name that it had.
fn pods(
    context: &Context<'_>,
    service: &Service,
    workload: &Workload,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let Some(hostname) = &service.hostname else { return };
    let own = context.names.service(&service.name);
    if workload.replicas > PODS_MAX {
        let reason = format!("more than {PODS_MAX} pods would each need a Service; decide which names are used");
        ledger.needs_input(hostname.leaf, reason);
        return;
    }
    let scoped = format!("{}_{}", context.stack.name, service.name);
    let mut is_same = true;
    for slot in 1..=workload.replicas {
        let scope = Scope { service: &scoped, labels: &[], identity: Identity::Single };
        // With the slot in place of the placeholder there is nothing left that differs.
        let text = hostname.value.replace("{{.Task.Slot}}", &slot.to_string());
        let expanded = scope.expand(&text.replace("{{ .Task.Slot }}", &slot.to_string()));
        if !expanded.is_static() {
            ledger.needs_input(hostname.leaf, "a host name that depends on more than the slot; write the names out");
            return;
        }
        let name = folded(&expanded.text, LENGTH_MAX);
        let pod = format!("{own}-{slot}");
        is_same &= expanded.text == pod;
        let mut selector = workload.selector.clone();
        selector.insert("statefulset.kubernetes.io/pod-name".to_owned(), pod);
        let mut object = service_object(context, &name, &selector, Vec::new());
        publish_not_ready(&mut object);
        ledger.converted(hostname.leaf, Target::new(format!("Service/{name}"), "metadata.name"));
        result.host_names.add(&expanded.text, &name);
        result.services.push((service.name.clone(), object));
    }
    if !is_same {
        let reason = format!("the names resolve, and the pods call themselves {own}-1 and so on");
        ledger.mark(hostname.leaf, Outcome::Approximated, reason, None);
    }
}

/// A name that one or several services have.
fn alias(
    context: &Context<'_>,
    name: &str,
    named: &[Alias<'_>],
    workloads: &BTreeMap<String, Workload>,
    result: &mut NetworkObjects,
    ledger: &mut Ledger,
) {
    let services: BTreeSet<&str> = named.iter().map(|alias| alias.service.name.as_str()).collect();
    let own = |service: &str| context.names.service(service);
    // Docker answers the name of another service with the containers of both.
    let other = context.stack.services.iter().find(|service| service.name == name && !services.contains(name));
    let object_name = folded(name, LENGTH_MAX);
    let is_taken = result.services.iter().any(|(_, object)| object.metadata.name.as_deref() == Some(&object_name));
    for alias in named {
        let target = Target::new(format!("Service/{object_name}"), "metadata.name");
        if other.is_some() {
            let reason =
                format!("{name} is the name of another service, too, and Docker answers with both; rename one");
            ledger.needs_input(alias.leaf, reason);
        } else if name.contains('.') {
            let reason = format!(
                "a Service's name has no dot: where the stack's texts name {name} as a host, they name {} now",
                own(&alias.service.name)
            );
            ledger.approximated(
                alias.leaf,
                Target::new(format!("Service/{}", own(&alias.service.name)), "metadata.name"),
                reason,
            );
        } else if object_name != name {
            let reason =
                format!("{name} cannot be the name of a Service: it is {object_name}, also in the stack's texts");
            ledger.approximated(alias.leaf, target, reason);
        } else {
            ledger.converted(alias.leaf, target);
        }
    }
    if other.is_some() || services.contains(name) && named.len() == 1 {
        return;
    }
    if name.contains('.') {
        if let Some(first) = named.first() {
            result.host_names.add(name, &own(&first.service.name));
        }
        return;
    }
    result.host_names.add(name, &object_name);
    if is_taken {
        return;
    }
    let one = services.first().copied().unwrap_or_default();
    let Some(workload) = workloads.get(one) else { return };
    let mut object = if services.len() == 1 {
        let like = result.services.iter().find(|(_, object)| object.metadata.name.as_ref() == Some(&own(one)));
        let ports = like.and_then(|(_, object)| object.spec.as_ref()?.ports.clone()).unwrap_or_default();
        service_object(context, &object_name, &workload.selector, ports)
    } else {
        let label = format!("{ALIAS_LABEL}{}", folded(name, LENGTH_MAX - "alias-".len()));
        for service in &services {
            let labels = result.pod_labels.entry((*service).to_owned()).or_default();
            labels.insert(label.clone(), "true".to_owned());
        }
        service_object(context, &object_name, &BTreeMap::from([(label, "true".to_owned())]), Vec::new())
    };
    if named.iter().any(|alias| alias.is_peer) && is_headless(&object) {
        publish_not_ready(&mut object);
    }
    result.services.push((one.to_owned(), object));
}
