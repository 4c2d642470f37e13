//! The objects of a cluster that do what a stack did.
//!
//! Invariants: equal input gives equal bytes. What Swarm does without being told is written out where Kubernetes does something else without
//! being told. Each leaf that a module here reads is marked in the [`Ledger`] by that module, with the field that it went to.

mod compose;
mod container;
mod facts;
mod labels;
mod names;
mod network;
mod payloads;
mod phases;
mod placement;
mod probes;
mod resources;
mod security;
#[cfg(test)]
mod service_test;
mod storage;
mod text;
mod update;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Secret, Service as ServiceObject,
};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use self::workload::{Decision, WorkloadKind};
use super::images::Images;
use super::report::{Ledger, Target};
use super::stack::{Service, Stack};
use super::{Leaves, Mistake};
use crate::deploy::external_secret::ExternalSecret;
use crate::deploy::kube_object::kube_objects;

pub use self::container::looks_secret;
pub use self::names::{Names, folded};
pub use self::phases::Order;
pub use self::placement::NodeLabel;
pub use self::text::HostNames;

kube_objects! {
    Namespace: Namespace,
    ConfigMap: ConfigMap,
    Secret: Secret,
    PersistentVolume: PersistentVolume,
    PersistentVolumeClaim: PersistentVolumeClaim,
    Service: ServiceObject,
    Deployment: Deployment,
    StatefulSet: StatefulSet,
    DaemonSet: DaemonSet,
    Job: Job,
    CronJob: CronJob,
    Ingress: Ingress,
    NetworkPolicy: NetworkPolicy,
    PodDisruptionBudget: PodDisruptionBudget,
    HorizontalPodAutoscaler: HorizontalPodAutoscaler,
    ExternalSecret: ExternalSecret,
}

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the objects are.
    pub namespace: String,
    /// Objects that a stack does not ask for.
    pub with: BTreeSet<With>,
    /// The ClusterSecretStore of [`With::ExternalSecrets`].
    pub secret_store: String,
    /// Whether the security of pods is tightened beyond what Swarm gave them.
    pub harden: bool,
    /// Whether passwords in plain variables become Secrets.
    pub moves_passwords: bool,
    /// The content of secrets by the key in the file, which no swarm gives away.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The content of configs by the key in the file.
    pub configs: BTreeMap<String, Vec<u8>>,
}

/// Objects that a stack does not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum With {
    /// A HorizontalPodAutoscaler for each Deployment.
    Hpa,
    /// A PodDisruptionBudget for each workload of several pods.
    Pdb,
    /// A NetworkPolicy for each network.
    NetworkPolicy,
    /// An ExternalSecret in place of each Secret.
    ExternalSecrets,
}

/// What every module here needs to know.
pub struct Context<'a> {
    /// The stack.
    pub stack: &'a Stack,
    /// What was asked for.
    pub options: &'a Options,
    /// The names of the objects.
    pub names: &'a Names,
    /// The images that are known.
    pub images: &'a Images,
}

/// The object that has the pod of a service, for the fields of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Kind and name: `Deployment/search`.
    pub object: String,
    /// Where the pod's template is in it: `spec.template`, of a CronJob `spec.jobTemplate.spec.template`.
    pub template: String,
}

impl Holder {
    /// A field of the pod: `volumes[0]`.
    #[must_use]
    pub fn pod(&self, field: &str) -> Target {
        Target::new(&self.object, format!("{}.spec.{field}", self.template))
    }

    /// A field of the pod's first container: `image`.
    #[must_use]
    pub fn container(&self, field: &str) -> Target {
        self.pod(&format!("containers[0].{field}"))
    }

    /// A field of the pod's metadata: `annotations`.
    #[must_use]
    pub fn metadata(&self, field: &str) -> Target {
        Target::new(&self.object, format!("{}.metadata.{field}", self.template))
    }

    /// A field of the object itself: `spec.replicas`.
    #[must_use]
    pub fn field(&self, field: &str) -> Target {
        Target::new(&self.object, field)
    }
}

/// Which file an object is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// The namespace's own.
    Namespace,
    /// Those of volumes that services name.
    Volumes,
    /// Those of files that are not secret.
    Configs,
    /// Those of files that are.
    Secrets,
    /// Those of networks.
    Networks,
    /// That of a service, by the name of its objects.
    Service(String),
}

/// What a stack comes to.
#[derive(Debug)]
pub struct Built {
    /// The objects in the order in which they are written.
    pub objects: Vec<(Home, KubeObject)>,
    /// Labels that nodes have to have.
    pub node_labels: BTreeSet<NodeLabel>,
    /// In which order the services start.
    pub order: Order,
}

/// What Swarm refuses about a service, and no schema does.
#[must_use]
pub fn refused(service: &Service, leaves: &Leaves) -> Option<Mistake> {
    let constraint = service.placement.constraints.iter().find_map(|constraint| {
        let error = placement::check(&constraint.value).err()?;
        let message = format!("Swarm refuses the constraint '{}': {error}", constraint.value);
        Some(leaves.mistake(constraint.leaf, message))
    });
    constraint.or_else(|| update::refused_of_job(service, leaves))
}

/// Makes the objects of a stack, and marks every leaf that becomes part of one.
pub fn build(context: &Context<'_>, ledger: &mut Ledger) -> Built {
    let plan = storage::Plan::of(context.stack);
    let decisions: BTreeMap<&str, Decision> = context
        .stack
        .services
        .iter()
        .map(|service| (service.name.as_str(), workload::decide(service, &plan, context, ledger)))
        .collect();
    let workloads = decisions.iter().map(|(name, decision)| ((*name).to_owned(), decision.workload.clone())).collect();
    let network = network::plan(context, &workloads, ledger);
    let mut node_labels = BTreeSet::new();
    let mut all = vec![(Home::Namespace, namespace(context).into())];
    let mut stored = plan.shared(context, ledger);
    // Keys of files and names of a swarm have different orders.
    stored.sort_by_cached_key(|stored| (stored.home.clone(), stored.object.metadata().name.clone()));
    all.extend(stored.into_iter().map(|stored| (stored.home, stored.object)));
    for service in &context.stack.services {
        let home = Home::Service(context.names.service(&service.name));
        let decision = &decisions[service.name.as_str()];
        let own = network.services.iter().filter(|(key, _)| *key == service.name);
        all.extend(own.map(|(_, object)| (home.clone(), object.clone().into())));
        let made = workload::objects(service, decision, (&network, &plan), context, ledger);
        node_labels.extend(made.node_labels);
        all.extend(made.objects.into_iter().map(|object| (home.clone(), object)));
        let policies = network.policies.iter().filter(|(key, _)| key.as_ref() == Some(&service.name));
        all.extend(policies.map(|(_, policy)| (home.clone(), policy.clone().into())));
        all.extend(extras(service, decision, context, ledger).into_iter().map(|object| (home.clone(), object)));
    }
    let secrets = payloads::external_secrets(&plan, context, ledger);
    all.extend(secrets.into_iter().map(|secret| (Home::Secrets, secret.into())));
    let shared = network.policies.iter().filter(|(key, _)| key.is_none());
    all.extend(shared.map(|(_, policy)| (Home::Networks, policy.clone().into())));
    for (home, object) in &mut all {
        label(home, object, context);
    }
    Built { objects: all, node_labels, order: phases::order(context) }
}

fn namespace(context: &Context<'_>) -> Namespace {
    let metadata = ObjectMeta { name: Some(context.options.namespace.clone()), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

/// Labels of every object: what it belongs to, and who wrote it.
fn label(home: &Home, object: &mut KubeObject, context: &Context<'_>) {
    let labels = object.metadata_mut().labels.get_or_insert_default();
    labels.insert("app.kubernetes.io/part-of".to_owned(), label_value(&context.stack.name));
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "cairn".to_owned());
    if let Home::Service(name) = home {
        labels.insert("app.kubernetes.io/instance".to_owned(), name.clone());
    }
}

/// Objects that were asked for and that no stack has.
fn extras(service: &Service, decision: &Decision, context: &Context<'_>, ledger: &mut Ledger) -> Vec<KubeObject> {
    let name = context.names.service(&service.name);
    let metadata = || ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(context.options.namespace.clone()),
        ..ObjectMeta::default()
    };
    let selector =
        || LabelSelector { match_labels: Some(decision.workload.selector.clone()), ..LabelSelector::default() };
    let mut objects: Vec<KubeObject> = Vec::new();
    if context.options.with.contains(&With::Pdb) && workload::is_plural(decision) {
        ledger
            .added(Target::new(format!("PodDisruptionBudget/{name}"), "spec"), "--with pdb: one pod leaves at a time");
        let spec = PodDisruptionBudgetSpec {
            max_unavailable: Some(workload::one_pod()),
            selector: Some(selector()),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        };
        objects.push(
            PodDisruptionBudget { metadata: metadata(), spec: Some(spec), ..PodDisruptionBudget::default() }.into(),
        );
    }
    if context.options.with.contains(&With::Hpa) && decision.kind == WorkloadKind::Deployment {
        let least = i32::try_from(decision.workload.replicas.max(1)).unwrap_or(i32::MAX);
        let reason = "--with hpa: up to four times as many pods while they use more than 80 % of the processors that they request";
        ledger.added(Target::new(format!("HorizontalPodAutoscaler/{name}"), "spec"), reason);
        let cpu = ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(80),
                ..MetricTarget::default()
            },
        };
        let spec = HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: name.clone(),
            },
            min_replicas: Some(least),
            max_replicas: least.saturating_mul(4),
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(cpu),
                ..MetricSpec::default()
            }]),
            ..HorizontalPodAutoscalerSpec::default()
        };
        objects.push(
            HorizontalPodAutoscaler { metadata: metadata(), spec: Some(spec), ..HorizontalPodAutoscaler::default() }
                .into(),
        );
    }
    objects
}

/// Whether a service is an MCP server, by its name, its image, its labels or its variables.
#[must_use]
pub fn is_mcp(service: &Service) -> bool {
    let is_word = |text: &str| {
        text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word.eq_ignore_ascii_case("mcp"))
    };
    let image = service.image.as_ref().is_some_and(|image| is_word(&image.value));
    let labels = service.labels.iter().chain(&service.service_labels);
    let label =
        labels.into_iter().any(|(key, _)| key.starts_with("mcp.") || key.starts_with("io.modelcontextprotocol."));
    let variable = service.environment.iter().any(|variable| variable.name.starts_with("MCP_"));
    is_word(&service.name) || image || label || variable
}

/// The tag of an image.
#[must_use]
pub fn tag_of(image: &str) -> Option<&str> {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map(|(_, tag)| tag)
}

/// A text as the value of a label: 63 letters, digits, `-`, `_` and `.`, a letter or a digit at both ends.
#[must_use]
pub fn label_value(text: &str) -> String {
    let fold = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.') => letter,
        _ => '-',
    };
    let is_end = |letter: char| !letter.is_ascii_alphanumeric();
    let all: String = text.chars().map(fold).collect();
    all.trim_start_matches(is_end).chars().take(63).collect::<String>().trim_end_matches(is_end).to_owned()
}
