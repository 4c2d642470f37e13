//! A service as a workload: which kind it is, and its object with the pod that the other modules describe.
//!
//! Invariants: what finds pods (selectors) never changes with an image or a label; every service has exactly one workload.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, StatefulSet, StatefulSetOrdinals,
    StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::{ByteString, apimachinery::pkg::util::intstr::IntOrString};

use super::container::{Texts, identity};
use super::labels::{self, Schedule};
use super::network::{NetworkObjects, Workload, of_pod};
use super::placement::NodeLabel;
use super::text::{Scope, has_slot};
use super::update::{Lifetime, lifetime};
use super::{Context, Holder, KubeObject, compose, placement, probes, resources, security, storage, update};
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::{ModeKind, Service};

/// K3s has it on every node: the image that holds a pod's namespaces.
const PAUSE_IMAGE: &str = "rancher/mirrored-pause:3.6";

/// The annotation with the digest of the image, where its archive was read.
const DIGEST: &str = "cairn.local/image-digest";

/// What a service is in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadKind {
    /// So many pods, all alike.
    Deployment,
    /// So many pods, each with a number, and with volumes of its own.
    StatefulSet,
    /// One pod on each node.
    DaemonSet,
    /// Pods that end.
    Job,
    /// Pods that end, again and again.
    CronJob,
}

impl WorkloadKind {
    /// The kind of the object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }
}

/// What is decided about a service before its objects are made.
pub struct Decision {
    /// The kind.
    pub kind: WorkloadKind,
    /// For the network.
    pub workload: Workload,
    /// When it runs, where it has a schedule.
    pub schedule: Option<Schedule>,
    /// Whether its pods end.
    pub lifetime: Lifetime,
    /// The rule that decided it.
    pub rule: String,
}

/// Decides what a service is.
///
/// * `plan`: the volumes of the stack with their users.
pub fn decide(service: &Service, plan: &storage::Plan<'_>, context: &Context<'_>, ledger: &mut Ledger) -> Decision {
    let name = context.names.service(&service.name);
    let schedule = labels::schedule(service);
    let mode = service.mode.kind.map_or(ModeKind::Replicated, |kind| kind.value);
    let (lifetime, rule) = match schedule.is_some() {
        true => (update::job(service), "labels of swarm-cronjob give it a schedule".to_owned()),
        false => lifetime(service),
    };
    let texts = service.environment.iter().filter_map(|variable| variable.value.as_deref());
    let mounts = service.mounts.iter().filter_map(|mount| mount.source.as_ref()).map(|source| source.value.as_str());
    let hostname = service.hostname.iter().map(|hostname| hostname.value.as_str());
    let replicas = service.mode.replicas.map_or(1, |replicas| replicas.value);
    let is_numbered = texts.chain(mounts).chain(hostname).any(has_slot) && replicas != 1
        || service.hostname.as_ref().is_some_and(|hostname| has_slot(&hostname.value))
        || plan.needs_slots(service);
    let kind = match mode {
        ModeKind::Global | ModeKind::GlobalJob => WorkloadKind::DaemonSet,
        ModeKind::ReplicatedJob => WorkloadKind::Job,
        ModeKind::Replicated if schedule.is_some() => WorkloadKind::CronJob,
        ModeKind::Replicated if matches!(lifetime, Lifetime::Job { .. }) => WorkloadKind::Job,
        ModeKind::Replicated if is_numbered => WorkloadKind::StatefulSet,
        ModeKind::Replicated => WorkloadKind::Deployment,
    };
    let template = match kind {
        WorkloadKind::CronJob => "spec.jobTemplate.spec.template",
        _ => "spec.template",
    };
    let holder = Holder { object: format!("{}/{name}", kind.as_str()), template: template.to_owned() };
    mark_mode(service, kind, &rule, &holder, ledger);
    let is_job = matches!(kind, WorkloadKind::Job | WorkloadKind::CronJob);
    let exposed = compose::exposed(service).into_iter().chain(context.exposed(service)).collect();
    let workload = Workload {
        identity: identity(kind == WorkloadKind::StatefulSet, kind == WorkloadKind::DaemonSet, is_job, replicas),
        selector: selector(context, &name),
        replicas,
        exposed,
        holder,
    };
    Decision { kind, workload, schedule, lifetime, rule }
}

/// The labels that find the pods of a service.
fn selector(context: &Context<'_>, name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/instance".to_owned(), name.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), super::label_value(&context.stack.name)),
    ])
}

fn mark_mode(service: &Service, kind: WorkloadKind, reason: &str, holder: &Holder, ledger: &mut Ledger) {
    let mode = &service.mode;
    if let Some(written) = mode.kind {
        let target = holder.field("kind");
        match (written.value, kind) {
            (ModeKind::Global, _) => {
                let reason =
                    "one on each node that takes pods; Swarm starts it on drained nodes no more than Kubernetes does";
                ledger.mark(written.leaf, Outcome::Converted, reason, Some(target));
            }
            (ModeKind::GlobalJob, _) => {
                let reason = "each node runs it once, new ones too: its container runs first, and then one that waits";
                ledger.approximated(written.leaf, target, reason);
            }
            _ => ledger.converted(written.leaf, target),
        }
    }
    let Some(replicas) = mode.replicas else {
        if kind == WorkloadKind::Job && mode.kind.is_none() {
            ledger.added(holder.field("kind"), reason);
        }
        return;
    };
    match kind {
        WorkloadKind::CronJob => ledger.agrees(replicas.leaf, "swarm-cronjob starts it by the schedule"),
        WorkloadKind::DaemonSet => ledger.dropped(replicas.leaf, "one on each node"),
        WorkloadKind::Job => {
            ledger.mark(
                replicas.leaf,
                Outcome::Converted,
                "as many at once as have to end",
                Some(holder.field("spec.completions")),
            );
            ledger.converted(replicas.leaf, holder.field("spec.parallelism"));
        }
        _ => ledger.converted(replicas.leaf, holder.field("spec.replicas")),
    }
    if let Some(concurrent) = mode.max_concurrent {
        ledger.converted(concurrent.leaf, holder.field("spec.parallelism"));
    }
}

/// The objects of a service, and what they ask of nodes.
pub struct Made {
    /// The workload, and what belongs to it.
    pub objects: Vec<KubeObject>,
    /// Labels that nodes have to have.
    pub node_labels: BTreeSet<NodeLabel>,
}

/// The objects of a service besides those of its networks.
pub fn objects(
    service: &Service,
    decision: &Decision,
    (network, plan): (&NetworkObjects, &storage::Plan<'_>),
    context: &Context<'_>,
    ledger: &mut Ledger,
) -> Made {
    let name = context.names.service(&service.name);
    let holder = &decision.workload.holder;
    let scoped = format!("{}_{}", context.stack.name, service.name);
    let labels: Vec<(String, String)> =
        service.service_labels.iter().map(|(key, value)| (key.clone(), value.value.clone())).collect();
    let secret = format!("{name}-env");
    let texts = Texts {
        scope: Scope { service: &scoped, labels: &labels, identity: decision.workload.identity },
        host_names: &network.host_names,
        holder,
        secret: &secret,
    };
    let read = labels::read(service, context, holder, decision.schedule.as_ref(), ledger);
    let stored = plan.pod(service, decision.kind, context, holder, context.image(service), ledger);
    let program = texts.program(service, context, stored.needs.clone(), ledger);
    let image = context.image(service);
    let host_network = network.host_network.contains(&service.name);
    let accounts = image.map(|image| image as &dyn security::Accounts);
    let rights = security::rights(service, context, holder, accounts, host_network, ledger);
    let mut scheduling = placement::placement(service, &decision.workload.selector, holder, ledger);
    scheduling.join(stored.together);
    let probes = probes::probes(service, context.health_check(service).as_ref(), holder, ledger);
    let needs = resources::resources(service, holder, ledger);
    let restart_policy =
        update::restart(service, context.stack.dialect, (&decision.lifetime, &decision.rule), holder, ledger);
    let net = of_pod(service, &decision.workload, host_network, ledger);
    let is_server =
        matches!(decision.kind, WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet);
    let container = Container {
        name: name.clone(),
        image: image_of(service, context, holder, ledger),
        // `Always`, which `latest` means otherwise, would ask a registry at each start; a swarm has the image on its node.
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: program.command,
        args: program.args,
        working_dir: service.working_dir.as_ref().map(|folder| {
            ledger.converted(folder.leaf, holder.container("workingDir"));
            folder.value.clone()
        }),
        env: Some(program.env).filter(|all| !all.is_empty()),
        ports: network.container_ports.get(&service.name).cloned(),
        resources: needs.resources,
        startup_probe: probes.startup.filter(|_| is_server),
        liveness_probe: probes.liveness.filter(|_| is_server),
        readiness_probe: probes.readiness.filter(|_| is_server),
        security_context: Some(rights.container).filter(|rights| *rights != Default::default()),
        stdin: flag(service.stdin_open, &holder.container("stdin"), ledger),
        tty: flag(service.tty, &holder.container("tty"), ledger),
        volume_mounts: Some(stored.mounts).filter(|mounts| !mounts.is_empty()),
        ..Container::default()
    };
    ledger.added(holder.pod("enableServiceLinks"), "Swarm gives a container no variables for other services");
    ledger.added(holder.pod("automountServiceAccountToken"), "a container of Swarm has no token for an API");
    let mut security = rights.pod;
    security.fs_group = stored.fs_group;
    let mut pod = PodSpec {
        containers: vec![container],
        init_containers: Some(stored.init_containers).filter(|all| !all.is_empty()),
        volumes: Some(stored.volumes).filter(|volumes| !volumes.is_empty()),
        enable_service_links: Some(false),
        automount_service_account_token: Some(false),
        security_context: Some(security).filter(|security| *security != Default::default()),
        affinity: scheduling.affinity,
        topology_spread_constraints: Some(scheduling.spread).filter(|all| !all.is_empty()),
        tolerations: Some(scheduling.tolerations).filter(|all| !all.is_empty()),
        runtime_class_name: needs.runtime_class,
        restart_policy: Some(restart_policy.to_owned()),
        termination_grace_period_seconds: Some(update::grace_period(service, holder, ledger)),
        hostname: net.hostname,
        dns_config: net.dns_config,
        dns_policy: net.dns_policy,
        host_aliases: Some(net.host_aliases).filter(|all| !all.is_empty()),
        host_network: net.host_network.then_some(true),
        ..PodSpec::default()
    };
    compose::extend(service, &mut pod, holder, ledger);
    rest(service, ledger);
    let mut pod_labels = labels_of(service, &name, decision);
    pod_labels.extend(stored.labels);
    pod_labels.extend(network.pod_labels.get(&service.name).cloned().unwrap_or_default());
    let mut pod_annotations = read.pod_annotations;
    if let Some(digest) = image.and_then(|image| image.digest.clone()) {
        // K3s finds an image that came as a file by its tag only, so the digest is not part of the name.
        ledger.added(holder.metadata(&format!("annotations[{DIGEST:?}]")), "the digest of the image in its archive");
        pod_annotations.insert(DIGEST.to_owned(), digest);
    }
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(pod_annotations).filter(|all| !all.is_empty()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod),
    };
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(context.options.namespace.clone()),
        annotations: Some(read.annotations).filter(|all| !all.is_empty()),
        ..ObjectMeta::default()
    };
    let mut result = Vec::new();
    let is_job = matches!(decision.kind, WorkloadKind::Job | WorkloadKind::CronJob);
    if is_job {
        for config in [&service.update, &service.rollback].into_iter().flatten() {
            update::leaves_of(config).for_each(|leaf| ledger.agrees(leaf, "a job is not replaced while it runs"));
        }
    }
    if !program.secret.is_empty() {
        let data = program.secret.into_iter().map(|(name, value)| (name, ByteString(value))).collect();
        let metadata = ObjectMeta { name: Some(secret.clone()), annotations: None, ..metadata.clone() };
        result
            .push(Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }.into());
    }
    let is_single = decision.workload.replicas <= 1;
    let parts = Parts {
        service,
        decision,
        governing: network.governing.get(&service.name).cloned(),
        claims: stored.claim_templates,
        has_own_volume: stored.has_own_volume && is_single,
    };
    result.push(parts.object(metadata, template, ledger));
    result.extend(read.ingress.map(KubeObject::from));
    Made { objects: result, node_labels: scheduling.node_labels }
}

fn flag(value: Option<crate::migrate::At<bool>>, target: &Target, ledger: &mut Ledger) -> Option<bool> {
    let value = value?;
    ledger.converted(value.leaf, target.clone());
    value.value.then_some(true)
}

fn image_of(service: &Service, context: &Context<'_>, holder: &Holder, ledger: &mut Ledger) -> Option<String> {
    let Some(image) = &service.image else {
        ledger.added(holder.container("image"), "the service has no image; build one, and name it here");
        return Some(format!("{}:latest", context.names.service(&service.name)));
    };
    ledger.converted(image.leaf, holder.container("image"));
    Some(image.value.clone())
}

/// What reaches no object.
fn rest(service: &Service, ledger: &mut Ledger) {
    if let Some(init) = service.init {
        match init.value {
            true => ledger.dropped(
                init.leaf,
                "Kubernetes adds no process that reaps children; use an image with tini, or shareProcessNamespace, which \
                 lets the containers of the pod see each other",
            ),
            false => ledger.agrees(init.leaf, "Kubernetes adds no process"),
        }
    }
    for limit in &service.ulimits {
        let reason = format!("a pod has no field for it: set {} of containerd on the node", limit.name);
        ledger.dropped(limit.soft.leaf, reason.clone());
        ledger.dropped(limit.hard.leaf, reason);
    }
    if let Some(logging) = &service.logging {
        let driver = logging.driver.as_ref().map_or("json-file", |driver| driver.value.as_str());
        let is_local = matches!(driver, "json-file" | "local" | "none" | "journald");
        for leaf in
            logging.driver.iter().map(|driver| driver.leaf).chain(logging.options.iter().map(|(_, value)| value.leaf))
        {
            match is_local {
                true => ledger
                    .dropped(leaf, "the kubelet writes and rotates logs: --kubelet-arg=container-log-max-size of K3s"),
                false => ledger
                    .needs_input(leaf, format!("output went to {driver}; collect /var/log/pods on the nodes instead")),
            }
        }
    }
}

/// Labels of the pods, those that find them among them.
fn labels_of(service: &Service, name: &str, decision: &Decision) -> BTreeMap<String, String> {
    let mut labels = decision.workload.selector.clone();
    let is_mcp = super::is_mcp(service);
    let tier = match decision.kind {
        _ if is_mcp => "mcp-server",
        WorkloadKind::Job | WorkloadKind::CronJob => "job",
        WorkloadKind::DaemonSet => "agent",
        _ => "server",
    };
    let shown = if is_mcp && !name.starts_with("mcp-") { format!("mcp-{name}") } else { name.to_owned() };
    for (key, value) in [("name", shown), ("component", tier.to_owned()), ("managed-by", "cairn".to_owned())] {
        labels.insert(format!("app.kubernetes.io/{key}"), super::label_value(&value));
    }
    if let Some(version) = service.image.as_ref().and_then(|image| super::tag_of(&image.value)) {
        labels.insert("app.kubernetes.io/version".to_owned(), super::label_value(version));
    }
    labels
}

/// What the object of a workload is made of.
struct Parts<'a> {
    service: &'a Service,
    decision: &'a Decision,
    governing: Option<String>,
    claims: Vec<k8s_openapi::api::core::v1::PersistentVolumeClaim>,
    has_own_volume: bool,
}

impl Parts<'_> {
    fn object(self, metadata: ObjectMeta, template: PodTemplateSpec, ledger: &mut Ledger) -> KubeObject {
        let workload = &self.decision.workload;
        let holder = &workload.holder;
        let selector = LabelSelector { match_labels: Some(workload.selector.clone()), ..LabelSelector::default() };
        let replicas = i32::try_from(workload.replicas).unwrap_or(i32::MAX);
        match self.decision.kind {
            WorkloadKind::Deployment => {
                let rollout = update::deployment(self.service, self.has_own_volume, holder, ledger);
                let spec = DeploymentSpec {
                    replicas: Some(replicas),
                    selector,
                    template,
                    strategy: Some(rollout.strategy),
                    min_ready_seconds: Some(rollout.min_ready_seconds),
                    progress_deadline_seconds: Some(rollout.progress_deadline_seconds),
                    revision_history_limit: Some(rollout.revision_history_limit),
                    ..DeploymentSpec::default()
                };
                Deployment { metadata, spec: Some(spec), ..Deployment::default() }.into()
            }
            WorkloadKind::StatefulSet => {
                let rollout = update::stateful_set(self.service, holder, ledger);
                ledger.added(holder.field("spec.ordinals.start"), "slots of Swarm begin at 1");
                let retention = StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".to_owned()),
                    when_scaled: Some("Retain".to_owned()),
                };
                let spec = StatefulSetSpec {
                    replicas: Some(replicas),
                    selector,
                    service_name: self.governing,
                    template,
                    ordinals: Some(StatefulSetOrdinals { start: Some(1) }),
                    pod_management_policy: Some(rollout.pod_management_policy.to_owned()),
                    update_strategy: Some(rollout.strategy),
                    min_ready_seconds: Some(rollout.min_ready_seconds),
                    revision_history_limit: Some(rollout.revision_history_limit),
                    persistent_volume_claim_retention_policy: (!self.claims.is_empty()).then_some(retention),
                    volume_claim_templates: Some(self.claims).filter(|claims| !claims.is_empty()),
                };
                StatefulSet { metadata, spec: Some(spec), ..StatefulSet::default() }.into()
            }
            WorkloadKind::DaemonSet => {
                let is_job = self.service.mode.kind.is_some_and(|kind| kind.value == ModeKind::GlobalJob);
                let rollout = update::daemon_set(self.service, holder, ledger);
                let spec = DaemonSetSpec {
                    selector,
                    template: if is_job { once_on_each_node(template) } else { template },
                    update_strategy: Some(rollout.strategy),
                    min_ready_seconds: Some(rollout.min_ready_seconds),
                    revision_history_limit: Some(rollout.revision_history_limit),
                };
                DaemonSet { metadata, spec: Some(spec), ..DaemonSet::default() }.into()
            }
            WorkloadKind::Job => {
                let spec = self.job(template);
                Job { metadata, spec: Some(spec), ..Job::default() }.into()
            }
            WorkloadKind::CronJob => {
                let mut job = self.job(template);
                let schedule = self.decision.schedule.as_ref();
                let count = schedule.map_or(1, |schedule| schedule.replicas);
                let count = i32::try_from(count).unwrap_or(i32::MAX);
                (job.completions, job.parallelism) = (Some(count), Some(count));
                let written = schedule.and_then(|schedule| schedule.schedule.clone());
                let skips = schedule.is_some_and(|schedule| schedule.skips_running);
                let spec = CronJobSpec {
                    schedule: written.unwrap_or_default(),
                    concurrency_policy: Some(if skips { "Forbid" } else { "Replace" }.to_owned()),
                    job_template: JobTemplateSpec { metadata: None, spec: Some(job) },
                    ..CronJobSpec::default()
                };
                CronJob { metadata, spec: Some(spec), ..CronJob::default() }.into()
            }
        }
    }

    fn job(&self, template: PodTemplateSpec) -> JobSpec {
        let count = i32::try_from(self.decision.workload.replicas).unwrap_or(i32::MAX);
        let at_once =
            self.service.mode.max_concurrent.map_or(count, |most| i32::try_from(most.value).unwrap_or(i32::MAX));
        let backoff_limit = match self.decision.lifetime {
            Lifetime::Job { backoff_limit, .. } => Some(backoff_limit),
            Lifetime::Server => None,
        };
        JobSpec { completions: Some(count), parallelism: Some(at_once), backoff_limit, template, ..JobSpec::default() }
    }
}

/// A pod whose container runs first and once, and which then waits, so that its node does not run it again.
fn once_on_each_node(mut template: PodTemplateSpec) -> PodTemplateSpec {
    if let Some(pod) = &mut template.spec {
        pod.restart_policy = Some("Always".to_owned());
        let wait = Container {
            name: "wait".to_owned(),
            image: Some(PAUSE_IMAGE.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            ..Container::default()
        };
        let job = std::mem::replace(&mut pod.containers, vec![wait]);
        pod.init_containers.get_or_insert_default().extend(job);
    }
    template
}

/// Whole pods, for budgets.
#[must_use]
pub fn one_pod() -> IntOrString {
    IntOrString::Int(1)
}

/// Whether several pods are there, so that a budget says something.
#[must_use]
pub fn is_plural(decision: &Decision) -> bool {
    matches!(decision.kind, WorkloadKind::Deployment | WorkloadKind::StatefulSet) && decision.workload.replicas > 1
}
