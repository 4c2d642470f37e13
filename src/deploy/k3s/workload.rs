//! The pod and what belongs to it: StatefulSet, ServiceAccount, ConfigMap, Secret, PodDisruptionBudget, RuntimeClass.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, LocalObjectReference, Namespace, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, PreferredSchedulingTerm, Probe,
    ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, ServiceAccount, Toleration,
    Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::configuration::FILE;
use super::names::{CLAIM_TEMPLATE, ObjectNames, PROGRAM};
use super::settings::{ClientToken, Settings};
use super::sizes::{TMP, quantity};
use super::spec::Gpu;
use super::{TOKEN_KEY, labels, metadata, selector};
use crate::base::{ByteSize, Digest};
use crate::deploy::shape::{self, ADMIN_PORT, CONFIG_DIR, DATA_DIR, MCP_PORT, SNAPSHOTS_DIR};

/// User, group and the group of volumes: `cairn` in the image.
const USER: i64 = shape::USER as i64;
/// The annotation with the digest of the settings.
pub(super) const CONFIGURATION: &str = "cairn.local/configuration";
const TOKEN_DIR: &str = "/run/secrets/cairn";
pub(super) const TLS_DIR: &str = "/run/secrets/cairn-tls";
pub(super) const BACKUP_KEY_DIR: &str = "/run/secrets/cairn-backup";
/// Secrets are read by the group, which is the volume's.
const SECRET_MODE: i32 = 0o440;

pub(super) fn namespace(settings: &Settings) -> Namespace {
    // The same for each node that is in it: the last file to be applied would change it otherwise.
    let mut labels = labels(&ObjectNames::of(PROGRAM), "namespace");
    for mode in ["enforce", "audit", "warn"] {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".to_owned());
        labels.insert(format!("pod-security.kubernetes.io/{mode}-version"), "latest".to_owned());
    }
    let metadata =
        ObjectMeta { name: Some(settings.namespace().to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

/// Cairn does not talk to the cluster, so its account has no rights and the pod gets no token for it.
pub(super) fn service_account(settings: &Settings) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(settings, settings.name(), "node"),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

pub(super) fn config_map(settings: &Settings, configuration: &str) -> ConfigMap {
    ConfigMap {
        metadata: metadata(settings, settings.name(), "node"),
        data: Some(BTreeMap::from([(FILE.to_owned(), configuration.to_owned())])),
        ..ConfigMap::default()
    }
}

pub(super) fn token_secret(settings: &Settings, token: &ClientToken) -> Secret {
    Secret {
        metadata: metadata(settings, settings.names().token_secret(), "node"),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(TOKEN_KEY.to_owned(), ByteString(token.reveal().as_bytes().to_vec()))])),
        ..Secret::default()
    }
}

/// Lets the one pod be drained, also when it is not ready: refusing would block every drain of its node.
pub(super) fn disruption_budget(settings: &Settings) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(settings, settings.name(), "node"),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(settings)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

pub(super) fn runtime_class(settings: &Settings, name: &str) -> RuntimeClass {
    let labels = Some(labels(&settings.names(), "gpu"));
    RuntimeClass {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() },
        handler: name.to_owned(),
        ..RuntimeClass::default()
    }
}

pub(super) fn stateful_set(settings: &Settings, configuration: &str) -> StatefulSet {
    let spec = StatefulSetSpec {
        replicas: Some(1),
        service_name: Some(settings.names().headless()),
        selector: selector(settings),
        // With one pod there is no order to keep, and `OrderedReady` would never replace a pod that does not get ready: an
        // upgrade that fails could not be rolled back by the older manifest alone.
        pod_management_policy: Some("Parallel".to_owned()),
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            ..StatefulSetUpdateStrategy::default()
        }),
        revision_history_limit: Some(3),
        persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
            when_deleted: Some("Retain".to_owned()),
            when_scaled: Some("Retain".to_owned()),
        }),
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels(&settings.names(), "node")),
                // The pod reads its settings once, at its start, so other settings need another pod.
                annotations: Some(annotations(settings, configuration)),
                ..ObjectMeta::default()
            }),
            spec: Some(pod(settings)),
        },
        volume_claim_templates: Some(vec![claim(settings)]),
        ..StatefulSetSpec::default()
    };
    StatefulSet { metadata: metadata(settings, settings.name(), "node"), spec: Some(spec), ..StatefulSet::default() }
}

fn annotations(settings: &Settings, configuration: &str) -> BTreeMap<String, String> {
    let mut annotations = (*settings.spec.pod.annotations).clone();
    annotations.insert(CONFIGURATION.to_owned(), Digest::of(configuration.as_bytes()).to_string());
    annotations
}

/// A claim template cannot be changed once installed, so nothing in it may follow the version.
fn claim(settings: &Settings) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(CLAIM_TEMPLATE.to_owned()),
            labels: Some(settings.names().selector_labels()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            // One pod at a time, also while a node that was lost comes back.
            access_modes: Some(vec!["ReadWriteOncePod".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(quantity(settings.storage)))])),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: settings.storage_class().map(str::to_owned),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn pod(settings: &Settings) -> PodSpec {
    let (volumes, mut mounts): (Vec<Volume>, Vec<VolumeMount>) = volumes(settings).into_iter().unzip();
    // Its volume is the claim template's.
    mounts.insert(0, mount(CLAIM_TEMPLATE, DATA_DIR, false));
    let drain = settings.drain_timeout.as_secs();
    PodSpec {
        service_account_name: Some(settings.name().to_owned()),
        automount_service_account_token: Some(false),
        // The variables of services would look like Cairn's own settings.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(drain + shape::FLUSH.as_secs().cast_signed()),
        runtime_class_name: settings.spec.gpu.as_ref().and_then(Gpu::runtime_class).map(str::to_owned),
        tolerations: Some(tolerations(settings)).filter(|tolerations| !tolerations.is_empty()),
        node_selector: node_selector(settings),
        affinity: affinity(settings),
        priority_class_name: settings.spec.priority_class.as_deref().cloned(),
        image_pull_secrets: pull_secrets(settings),
        security_context: Some(pod_security(settings.spec.gpu.as_ref().and_then(|gpu| gpu.group.as_deref().copied()))),
        containers: vec![container(settings, mounts)],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

/// The Secrets with the credentials used to pull the image.
pub(super) fn pull_secrets(settings: &Settings) -> Option<Vec<LocalObjectReference>> {
    let names = settings.spec.image.pull_secrets.iter();
    let secrets: Vec<_> = names.map(|name| LocalObjectReference { name: name.to_string() }).collect();
    Some(secrets).filter(|secrets| !secrets.is_empty())
}

/// Taints that the pod tolerates: those that were named, and of nodes with a GPU, which are often closed to pods that need none.
pub(super) fn tolerations(settings: &Settings) -> Vec<Toleration> {
    let named = settings.spec.tolerations.iter().map(|tolerated| Toleration {
        key: tolerated.key.clone(),
        operator: Some(if tolerated.value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value: tolerated.value.clone(),
        effect: tolerated.effect.clone(),
        ..Toleration::default()
    });
    let of_gpu = settings.spec.gpu.iter().map(|gpu| Toleration {
        key: Some(gpu.resource.to_string()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    });
    of_gpu.chain(named).collect()
}

/// The label with a node's processor.
pub(super) const ARCHITECTURE: &str = "kubernetes.io/arch";

/// Labels of the nodes that a pod may run on, the processor among them where the image is for one.
pub(super) fn node_selector(settings: &Settings) -> Option<BTreeMap<String, String>> {
    let mut labels = settings.node_selector.clone();
    if let [one] = &settings.architectures[..] {
        labels.insert(ARCHITECTURE.to_owned(), one.clone());
    }
    Some(labels).filter(|labels| !labels.is_empty())
}

/// Nodes that a pod may run on, where labels cannot say it: an image for several processors.
pub(super) fn required_nodes(settings: &Settings) -> Option<NodeSelector> {
    if settings.architectures.len() < 2 {
        return None;
    }
    let processor = NodeSelectorRequirement {
        key: ARCHITECTURE.to_owned(),
        operator: "In".to_owned(),
        values: Some(settings.architectures.clone()),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![processor]), match_fields: None };
    Some(NodeSelector { node_selector_terms: vec![term] })
}

/// Nodes that the pod may run on, and those of them that are better than others.
fn affinity(settings: &Settings) -> Option<Affinity> {
    let expression = |(key, value): (&String, &String)| NodeSelectorRequirement {
        key: key.clone(),
        operator: "In".to_owned(),
        values: Some(vec![value.clone()]),
    };
    let expressions: Vec<NodeSelectorRequirement> = settings.spec.node.prefer.iter().map(expression).collect();
    let preferred = (!expressions.is_empty()).then(|| {
        let preference = NodeSelectorTerm { match_expressions: Some(expressions), match_fields: None };
        vec![PreferredSchedulingTerm { preference, weight: 100 }]
    });
    node_affinity(required_nodes(settings), preferred)
}

/// An affinity to nodes; `None` where there is nothing to say.
pub(super) fn node_affinity(
    required: Option<NodeSelector>,
    preferred: Option<Vec<PreferredSchedulingTerm>>,
) -> Option<Affinity> {
    if required.is_none() && preferred.is_none() {
        return None;
    }
    let node = NodeAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: preferred,
    };
    Some(Affinity { node_affinity: Some(node), ..Affinity::default() })
}

/// What Pod Security asks of a pod.
pub(super) fn pod_security(group: Option<u32>) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        supplemental_groups: group.map(|group| vec![i64::from(group)]),
        // Looking at every file of a large volume would make each start slow.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(seccomp()),
        ..PodSecurityContext::default()
    }
}

/// What Pod Security asks of a container, and a root that nothing is written to.
pub(super) fn security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        seccomp_profile: Some(seccomp()),
        ..SecurityContext::default()
    }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

fn container(settings: &Settings, mounts: Vec<VolumeMount>) -> Container {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: PROGRAM.to_owned(),
        image: Some(settings.image.clone()),
        // The image comes as a file. `Always` would ask a registry that a node without internet cannot reach.
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(vec!["serve".to_owned()]),
        env: Some(environment(settings)),
        ports: Some(vec![port("mcp", MCP_PORT), port("admin", ADMIN_PORT)]),
        resources: Some(resources(settings)),
        startup_probe: Some(probe(settings, shape::STARTED)),
        liveness_probe: Some(probe(settings, shape::ALIVE)),
        readiness_probe: Some(probe(settings, shape::READY)),
        security_context: Some(security()),
        // The end of the log is the reason of a container that stops on its own.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn environment(settings: &Settings) -> Vec<EnvVar> {
    let variable =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() };
    let of_pod = |name: &str, field: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: field.to_owned() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    // Variables, not arguments, so that `kubectl exec POD -- /cairn status` sees them too.
    let mut variables = vec![
        variable("CAIRN_CONFIG", format!("{CONFIG_DIR}/{FILE}")),
        variable("CAIRN_SERVER_TOKEN_FILE", format!("{TOKEN_DIR}/{TOKEN_KEY}")),
        of_pod("POD_NAME", "metadata.name"),
        of_pod("POD_NAMESPACE", "metadata.namespace"),
        // As the pod is called where it runs: anyone who gives objects another namespace or prefix changes no text.
        variable("CAIRN_SERVER_POD", format!("$(POD_NAME).$(POD_NAMESPACE).svc.{}", *settings.spec.cluster.domain)),
    ];
    variables.extend(settings.spec.env.iter().map(|(name, value)| variable(name, value.clone())));
    if settings.spec.gpu.as_ref().is_some_and(Gpu::is_nvidia) {
        // Vulkan's libraries come with `graphics`.
        variables.push(variable("NVIDIA_DRIVER_CAPABILITIES", "compute,graphics,utility".to_owned()));
    }
    variables
}

fn resources(settings: &Settings) -> ResourceRequirements {
    let resources = &settings.resources;
    let of = |cpu: String, memory: ByteSize, ephemeral: ByteSize| {
        let size = |size| Quantity(quantity(size));
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu)),
            ("memory".to_owned(), size(memory)),
            ("ephemeral-storage".to_owned(), size(ephemeral)),
        ])
    };
    let (cpu, memory, ephemeral) = (resources.cpu, resources.memory, resources.ephemeral);
    let requests = of(cpu.0.to_string(), memory.0, ephemeral.0);
    let mut limits = of(cpu.1.to_string(), memory.1, ephemeral.1);
    // A GPU is asked for by its limit; the request follows.
    limits.extend(settings.spec.gpu.iter().map(|gpu| (gpu.resource.to_string(), Quantity(gpu.count.to_string()))));
    ResourceRequirements { requests: Some(requests), limits: Some(limits), ..ResourceRequirements::default() }
}

/// Probes ask the admin listener, which has its own thread and needs no token.
///
/// * startup and liveness ask `/health`. It answers before the log is opened, so a rebuild of the indexes may take as long as it
///   needs: a restart would not help it. The startup probe's ten minutes are for a slow disk; liveness gives up after one.
/// * readiness asks `/ready`, which says no while indexes catch up and while writes are refused.
fn probe(settings: &Settings, question: shape::Probe) -> Probe {
    let seconds = |time: Duration| i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(question.path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            scheme: Some(if settings.is_tls() { "HTTPS" } else { "HTTP" }.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(seconds(question.period)),
        timeout_seconds: Some(seconds(question.timeout)),
        failure_threshold: Some(question.failures.into()),
        ..Probe::default()
    }
}

/// Volumes with where they are mounted, but for the data's.
fn volumes(settings: &Settings) -> Vec<(Volume, VolumeMount)> {
    let names = settings.names();
    let mut volumes = vec![
        mounted("config", CONFIG_DIR, |volume| {
            let name = names.node().to_owned();
            volume.config_map = Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() });
        }),
        mounted("tmp", "/tmp", |volume| {
            let size_limit = Some(Quantity(quantity(TMP)));
            volume.empty_dir = Some(EmptyDirVolumeSource { size_limit, ..EmptyDirVolumeSource::default() });
        }),
        // The pod starts without the Secret: it then has the tokens that it made itself.
        secret("token", TOKEN_DIR, &names.token_secret(), true),
    ];
    if settings.spec.cert_manager.is_some() {
        volumes.push(secret("tls", TLS_DIR, &names.tls_secret(), false));
    }
    if let Some(claim) = &settings.spec.backup.claim {
        volumes.push(mounted("snapshots", SNAPSHOTS_DIR, |volume| {
            let claim_name = claim.to_string();
            volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None });
        }));
    }
    if let Some(name) = &settings.spec.backup.secret {
        volumes.push(secret("backup-key", BACKUP_KEY_DIR, name, false));
    }
    volumes
}

pub(super) fn mounted(name: &str, path: &str, fill: impl FnOnce(&mut Volume)) -> (Volume, VolumeMount) {
    let mut volume = Volume { name: name.to_owned(), ..Volume::default() };
    fill(&mut volume);
    let is_read_only = volume.config_map.is_some() || volume.secret.is_some();
    (volume, mount(name, path, is_read_only))
}

pub(super) fn mount(name: &str, path: &str, is_read_only: bool) -> VolumeMount {
    let read_only = is_read_only.then_some(true);
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only, ..VolumeMount::default() }
}

pub(super) fn secret(name: &str, path: &str, secret: &str, optional: bool) -> (Volume, VolumeMount) {
    mounted(name, path, |volume| {
        volume.secret = Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(SECRET_MODE),
            optional: optional.then_some(true),
            ..SecretVolumeSource::default()
        });
    })
}
