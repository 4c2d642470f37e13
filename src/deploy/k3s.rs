//! Manifests for K3s, and for any other Kubernetes: from settings to two files, without a cluster, a network or a clock.
//!
//! Invariants: equal settings give equal bytes. The Namespace has a file of its own, because K3s deletes what is no longer in a
//! file that it has applied: whatever is ever taken out of the other file, the Namespace, and with it the data, stays. The volume is
//! made by the StatefulSet's claim template and is in no file at all. Every object passes Pod Security `restricted`.
//!
//! Objects are typed: the compiler checks the names of fields. Those of Kubernetes are k8s-openapi's, built for the oldest version
//! that it knows, so that nothing is used that an older cluster would drop; those of operators are in [`custom`].

mod configuration;
pub mod custom;
mod documents;
mod keys;
mod names;
mod network;
mod settings;
mod sizes;
pub mod spec;
mod values_file;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::kube_object::kube_objects;
use super::manifest;
use super::output::{self, OutputError};

pub use self::configuration::configuration;
pub use self::keys::{CONFIG, Key, Variant, VariantError, keys, schema};
pub use self::names::{INSTANCE_LABEL, NAME_LABEL, ObjectNames, PROGRAM, is_namespace_file};
pub use self::settings::{
    Assignment, AssignmentError, ClientToken, Facts, Mistake, Options, PROBLEMS_MAX, Problem, Settings, SettingsError,
};
pub use self::sizes::{Cpu, CpuError, Defaults, NodeSize, NodeSizeError};
pub use self::spec::Spec;
pub use self::values_file::ValuesFile;

/// The key of the token in its Secret.
pub const TOKEN_KEY: &str = "token";
/// The key of the node's own authority in its ConfigMap.
pub const AUTHORITY_KEY: &str = "authority.pem";

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// [`ObjectNames::namespace_file`]
    pub namespace: String,
    /// [`ObjectNames::main_file`]
    pub main: String,
    names: ObjectNames,
    /// Permissions of the latter: it may hold the token.
    main_mode: u32,
}

impl Rendered {
    /// The files by name, in the order in which they are applied.
    #[must_use]
    pub fn files(&self) -> [(String, &str); 2] {
        [(self.names.namespace_file(), &self.namespace), (self.names.main_file(), &self.main)]
    }

    /// Writes both into a folder, each whole or not at all: K3s may be watching, and deletes what a half-written file lacks.
    ///
    /// # Errors
    /// The file that could not be written; those before it were.
    pub fn write_into(&self, folder: &Path) -> Result<(), OutputError> {
        let files = self.files().into_iter().zip([0o644, self.main_mode]);
        files.into_iter().try_for_each(|((name, text), mode)| write_file(folder, &name, text, mode))
    }
}

/// Writes a file into a folder, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(folder: &Path, name: &str, text: &str, mode: u32) -> Result<(), OutputError> {
    output::write_file(&folder.join(name), mode, text.as_bytes())
}

kube_objects! {
    Namespace: Namespace,
    ServiceAccount: ServiceAccount,
    ConfigMap: ConfigMap,
    Secret: Secret,
    Service: Service,
    StatefulSet: StatefulSet,
    NetworkPolicy: NetworkPolicy,
    PodDisruptionBudget: PodDisruptionBudget,
    RuntimeClass: RuntimeClass,
    Ingress: Ingress,
    Issuer: custom::Issuer,
    Certificate: custom::Certificate,
    ExternalSecret: custom::ExternalSecret,
    CronJob: CronJob,
    ServiceMonitor: custom::ServiceMonitor,
    PrometheusRule: custom::PrometheusRule,
    ServersTransport: custom::ServersTransport,
}

/// A kind of object that somebody else brings into a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// Group and version, as `apiVersion` has it.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// What needs it.
    pub variant: Variant,
    /// Who brings it.
    pub from: &'static str,
}

impl KubeObject {
    /// The kind that a cluster may not know; `None` for those that every cluster knows.
    fn requirement(&self) -> Option<Requirement> {
        let of = |version, variant, from| Some(Requirement { version, kind: self.kind(), variant, from });
        match self {
            Self::Issuer(object) => of(object.version(), Variant::CertManager, "cert-manager"),
            Self::Certificate(object) => of(object.version(), Variant::CertManager, "cert-manager"),
            Self::ExternalSecret(object) => {
                of(object.version(), Variant::ExternalSecrets, "the External Secrets Operator")
            }
            Self::ServiceMonitor(object) => of(object.version(), Variant::Monitoring, "the Prometheus Operator"),
            Self::PrometheusRule(object) => of(object.version(), Variant::Monitoring, "the Prometheus Operator"),
            Self::ServersTransport(object) => {
                of(object.version(), Variant::Ingress, "Traefik, which K3s has unless it runs with --disable=traefik")
            }
            Self::Namespace(_)
            | Self::ServiceAccount(_)
            | Self::ConfigMap(_)
            | Self::Secret(_)
            | Self::Service(_)
            | Self::StatefulSet(_)
            | Self::NetworkPolicy(_)
            | Self::PodDisruptionBudget(_)
            | Self::RuntimeClass(_)
            | Self::CronJob(_)
            | Self::Ingress(_) => None,
        }
    }
}

/// What a cluster has to know before it takes the manifests.
#[must_use]
pub fn requirements(settings: &Settings) -> BTreeSet<Requirement> {
    objects(settings).iter().filter_map(KubeObject::requirement).collect()
}

/// Renders both files.
#[must_use]
pub fn render(settings: &Settings) -> Rendered {
    let namespace =
        file(settings, &[namespace(settings)], "Deleting the Namespace deletes everything in it, the data too.");
    let main = file(
        settings,
        &objects(settings),
        "What is taken out of this file is deleted from the cluster; the volume is not in it.",
    );
    let main_mode = if settings.token.is_some() { 0o600 } else { 0o644 };
    Rendered { namespace, main, names: settings.names(), main_mode }
}

/// The same as a base for Kustomize, by the names of files: with the settings in a file of their own, out of which Kustomize makes the
/// ConfigMap. It is named by its content, so that a patch of the settings starts another pod, and what refers to it follows.
#[must_use]
pub fn kustomize(settings: &Settings) -> Vec<(String, String)> {
    let names = settings.names();
    let (namespace_file, main_file) = (names.namespace_file(), names.main_file());
    let mut objects = objects(settings);
    objects.retain(|object| !matches!(object, KubeObject::ConfigMap(_)));
    for object in &mut objects {
        if let KubeObject::StatefulSet(set) = object {
            let template = set.spec.as_mut().and_then(|spec| spec.template.metadata.as_mut());
            let annotations = template.and_then(|metadata| metadata.annotations.as_mut());
            annotations.map(|annotations| annotations.remove(workload::CONFIGURATION));
        }
    }
    let labels: Vec<String> =
        labels(&names, "node").iter().map(|(name, value)| format!("      {name}: \"{value}\"\n")).collect();
    let kustomization = format!(
        "# A base: overlays may set `namespace:` and `namePrefix:`. The pod learns its own name and namespace, and the names of its Service\n\
         # follow from them.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- {namespace_file}\n- {main_file}\n\
         configMapGenerator:\n- name: {}\n  namespace: {}\n  files:\n  - {}\n  options:\n    labels:\n{}",
        names.node(),
        settings.namespace(),
        configuration::FILE,
        labels.concat(),
    );
    let note = "`kubectl apply -k` takes the folder.";
    vec![
        ("kustomization.yaml".to_owned(), kustomization),
        (configuration::FILE.to_owned(), configuration(settings)),
        (namespace_file, file(settings, &[namespace(settings)], note)),
        (main_file, file(settings, &objects, note)),
    ]
}

/// The object of [`ObjectNames::namespace_file`].
#[must_use]
pub fn namespace(settings: &Settings) -> KubeObject {
    workload::namespace(settings).into()
}

/// The objects of [`ObjectNames::main_file`], in an order in which each finds what it needs.
#[must_use]
pub fn objects(settings: &Settings) -> Vec<KubeObject> {
    let configuration = configuration(settings);
    let mut objects: Vec<KubeObject> =
        vec![workload::service_account(settings).into(), workload::config_map(settings, &configuration).into()];
    objects.extend(settings.token.iter().map(|token| workload::token_secret(settings, token).into()));
    let spec = &settings.spec;
    objects.extend(spec.external_secrets.iter().map(|secret| custom::external_secret(settings, secret).into()));
    if let Some(certificate) = &spec.cert_manager {
        if certificate.issuer.is_none() {
            let (root, authority, issuer) = custom::authority(settings);
            objects.extend([root.into(), authority.into(), issuer.into()]);
        }
        objects.push(custom::certificate(settings, certificate).into());
    }
    let own_class = spec.gpu.iter().filter(|gpu| *gpu.own_runtime_class).filter_map(|gpu| gpu.runtime_class());
    objects.extend(own_class.map(|name| workload::runtime_class(settings, name).into()));
    // The policy before the pod: it should hold when the pod starts.
    objects.push(network::network_policy(settings).into());
    objects.push(network::headless_service(settings).into());
    objects.push(network::cluster_service(settings).into());
    objects.push(workload::stateful_set(settings, &configuration).into());
    objects.push(workload::disruption_budget(settings).into());
    objects.extend(spec.loadbalancer.iter().map(|balancer| network::load_balancer(settings, balancer).into()));
    if let Some(ingress) = &spec.ingress {
        if ingress.class.as_str() == network::TRAEFIK && settings.is_tls() {
            objects.push(custom::servers_transport(settings).into());
        }
        objects.push(network::ingress(settings, ingress).into());
    }
    if let Some(monitoring) = &spec.monitoring {
        let (monitor, rules) = (custom::service_monitor(settings, monitoring), custom::rules(settings, monitoring));
        objects.extend([monitor.into(), rules.into()]);
    }
    if let Some((documents, source)) =
        spec.documents.as_ref().and_then(|documents| Some((documents, documents.source()?)))
    {
        objects.push(documents::policy(settings, source).into());
        objects.push(documents::job(settings, documents, source).into());
    }
    objects
}

/// A file: how it was rendered, then each object as a document.
fn file(settings: &Settings, objects: &[KubeObject], note: &str) -> String {
    let secret =
        if settings.token.is_some() { "\n# It holds the token: keep it readable by its owner only." } else { "" };
    let mut text = format!(
        "# Cairn {} for a node of size {}. Rendered by\n#   {}\n# Render it again instead of editing it. {note}{secret}\n",
        settings::VERSION,
        settings.size,
        settings.command,
    );
    for object in objects {
        text.push_str("---\n");
        text.push_str(&manifest::to_yaml(object));
    }
    text
}

/// Labels of every object. The version is among them, so nothing may be selected by all of them.
fn labels(names: &ObjectNames, component: &str) -> BTreeMap<String, String> {
    program_labels(names, PROGRAM, component)
}

/// The same of another program than the node.
fn program_labels(names: &ObjectNames, program: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = names.labels_of_pods(program);
    for (name, value) in
        [("version", settings::VERSION), ("component", component), ("part-of", PROGRAM), ("managed-by", PROGRAM)]
    {
        labels.insert(format!("app.kubernetes.io/{name}"), value.to_owned());
    }
    labels
}

/// What finds the node's pod.
fn selector(settings: &Settings) -> LabelSelector {
    LabelSelector { match_labels: Some(settings.names().selector_labels()), ..LabelSelector::default() }
}

fn metadata(settings: &Settings, name: impl Into<String>, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(settings.namespace().to_owned()),
        labels: Some(labels(&settings.names(), component)),
        ..ObjectMeta::default()
    }
}
