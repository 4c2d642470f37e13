//! Labels of containers and services: those that somebody reads in a cluster become what he reads there, the others are written down.
//!
//! Neither labels nor the keys of annotations take what labels of Docker's hold (63 letters, few characters), so the set is one annotation in
//! JSON. Invariants: every label is marked; none becomes a label of Kubernetes.

mod cron;
mod traefik;

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::Ingress;

pub use self::cron::Schedule;
use super::{Context, Holder};
use crate::migrate::leaf::At;
use crate::migrate::report::Ledger;
use crate::migrate::stack::{ModeKind, Service};

/// The annotation with the labels of a service, of its workload, and of its containers, of its pods.
pub const ANNOTATION: &str = "cairn.local/swarm-labels";

/// Labels that programs of a swarm read through Docker's socket, with what they are for.
const READ_BY_OTHERS: &[(&str, &str)] = &[
    ("caddy", "caddy-docker-proxy reads Docker; write an Ingress"),
    ("com.df.", "Docker Flow reads Docker; write an Ingress"),
    ("com.ouroboros.", "Ouroboros updates containers of Docker"),
    ("com.centurylinklabs.watchtower.", "Watchtower updates containers of Docker"),
    ("io.portainer.", "Portainer reads Docker; it has an agent for Kubernetes"),
    ("prometheus.", "Prometheus finds containers of Docker by it; write a ServiceMonitor or annotations"),
    ("shepherd.", "Shepherd updates services of Docker"),
    ("swarm.autoscale", "an autoscaler of Docker reads it; --with hpa adds a HorizontalPodAutoscaler"),
    ("com.docker.swarm.", "Docker's own"),
];

/// What labels come to.
#[derive(Debug, Default)]
pub struct Labels {
    /// Of the workload.
    pub annotations: BTreeMap<String, String>,
    /// Of its pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Where a router of Traefik leads to the service.
    pub ingress: Option<Ingress>,
}

/// Whether the labels of a service make it a job with a schedule.
#[must_use]
pub fn schedule(service: &Service) -> Option<Schedule> {
    let is_replicated = service.mode.kind.is_none_or(|kind| kind.value == ModeKind::Replicated);
    let found = is_replicated.then(|| cron::schedule(&service.service_labels)).flatten();
    found.filter(|schedule| schedule.schedule.is_some())
}

/// Reads the labels of a service.
///
/// * `schedule`: that of [`schedule`], whose labels are read by it.
pub fn read(
    service: &Service,
    context: &Context<'_>,
    holder: &Holder,
    schedule: Option<&Schedule>,
    ledger: &mut Ledger,
) -> Labels {
    let mut result = Labels::default();
    // One that Kubernetes cannot run is marked, too.
    if let Some(schedule) = schedule.cloned().or_else(|| cron::schedule(&service.service_labels)) {
        schedule.mark(&service.service_labels, holder, ledger);
    }
    // `docker stack deploy` and Traefik read the labels of services, `docker compose` and Traefik those of containers.
    let all: Vec<&(String, At<String>)> = service.service_labels.iter().chain(&service.labels).collect();
    result.ingress = traefik::ingress(service, &all, context, ledger);
    let lists = [(&service.service_labels, false), (&service.labels, true)];
    for (labels, is_of_pod) in lists {
        let target = match is_of_pod {
            true => holder.metadata(&format!("annotations[{ANNOTATION:?}]")),
            false => holder.field(&format!("metadata.annotations[{ANNOTATION:?}]")),
        };
        let mut written = BTreeMap::new();
        for (key, value) in labels {
            written.insert(key.as_str(), value.value.as_str());
            if ledger.is_marked(value.leaf) {
                continue;
            }
            let reader = READ_BY_OTHERS.iter().find(|(start, _)| key.starts_with(start));
            match reader {
                Some((_, what)) => ledger.needs_input(value.leaf, format!("{what}; the label is in the annotation")),
                None => {
                    ledger.approximated(value.leaf, target.clone(), "written down; nothing in the cluster reads it")
                }
            }
        }
        if !written.is_empty() {
            let json = serde_json::to_string(&written).expect("texts are JSON");
            let annotations = if is_of_pod { &mut result.pod_annotations } else { &mut result.annotations };
            annotations.insert(ANNOTATION.to_owned(), json);
        }
    }
    result
}
