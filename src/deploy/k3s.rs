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
mod keys;
mod network;
mod settings;
mod sizes;
mod workload;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;

use super::output::{OutputError, write_whole};

pub use self::configuration::configuration;
pub use self::keys::{CONFIG, KEYS, Key, Variant, VariantError};
pub use self::settings::{Assignment, AssignmentError, Options, Problem, Settings, SettingsError, Token};
pub use self::sizes::{Cpu, CpuError, Defaults, NodeSize, NodeSizeError};

/// The name of every object that needs no other.
pub const NAME: &str = "cairn";
/// The Service that gives the pod its name in DNS.
pub const HEADLESS: &str = "cairn-headless";
/// The Service of `--with loadbalancer`.
pub const LOAD_BALANCER: &str = "cairn-loadbalancer";
/// The Secret with the token that clients use, and its key.
pub const TOKEN_SECRET: &str = "cairn-token";
/// See [`TOKEN_SECRET`].
pub const TOKEN_KEY: &str = "token";
/// The Secret with the certificate of `--with cert-manager`.
pub const TLS_SECRET: &str = "cairn-tls";
/// The file with the Namespace. It sorts before [`MAIN_FILE`], so K3s applies it first.
pub const NAMESPACE_FILE: &str = "cairn-namespace.yaml";
/// The file with everything else.
pub const MAIN_FILE: &str = "cairn.yaml";

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// [`NAMESPACE_FILE`]
    pub namespace: String,
    /// [`MAIN_FILE`]
    pub main: String,
    /// Permissions of the latter: it may hold the token.
    main_mode: u32,
}

impl Rendered {
    /// The files by name, in the order in which they are applied.
    #[must_use]
    pub fn files(&self) -> [(&'static str, &str); 2] {
        [(NAMESPACE_FILE, &self.namespace), (MAIN_FILE, &self.main)]
    }

    /// Writes both into a folder, each whole or not at all: K3s may be watching, and deletes what a half-written file lacks.
    ///
    /// # Errors
    /// The file that could not be written; those before it were.
    pub fn write_into(&self, folder: &Path) -> Result<(), OutputError> {
        for ((name, text), mode) in self.files().into_iter().zip([0o644, self.main_mode]) {
            let path = folder.join(name);
            write_whole(&path, mode, |out| {
                out.write_all(text.as_bytes()).map_err(|source| OutputError::Write { path: path.clone(), source })
            })?;
        }
        Ok(())
    }
}

/// An object of the cluster.
macro_rules! kube_objects {
    ($($kind:ident: $type:ty),+ $(,)?) => {
        /// An object of the cluster.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum KubeObject {
            $(#[doc = concat!("A ", stringify!($kind), ".")] $kind(Box<$type>),)+
        }

        impl KubeObject {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$kind(_) => stringify!($kind),)+ }
            }

            /// Its name and labels.
            #[must_use]
            pub fn metadata(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata,)+ }
            }
        }

        $(impl From<$type> for KubeObject {
            fn from(object: $type) -> Self {
                Self::$kind(Box::new(object))
            }
        })+
    };
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
    ServiceMonitor: custom::ServiceMonitor,
    ServersTransport: custom::ServersTransport,
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
    Rendered { namespace, main, main_mode }
}

/// The object of [`NAMESPACE_FILE`].
#[must_use]
pub fn namespace(settings: &Settings) -> KubeObject {
    workload::namespace(settings).into()
}

/// The objects of [`MAIN_FILE`], in an order in which each finds what it needs.
#[must_use]
pub fn objects(settings: &Settings) -> Vec<KubeObject> {
    let configuration = configuration(settings);
    let mut objects: Vec<KubeObject> =
        vec![workload::service_account(settings).into(), workload::config_map(settings, &configuration).into()];
    objects.extend(settings.token.iter().map(|token| workload::token_secret(settings, token).into()));
    objects.extend(settings.external_secret.iter().map(|asked| custom::external_secret(settings, asked).into()));
    if let Some(asked) = &settings.certificate {
        if asked.issuer.is_none() {
            let (root, authority, issuer) = custom::authority(settings);
            objects.extend([root.into(), authority.into(), issuer.into()]);
        }
        objects.push(custom::certificate(settings, asked).into());
    }
    let own_class =
        settings.gpu.iter().filter(|gpu| gpu.own_runtime_class).filter_map(|gpu| gpu.runtime_class.as_ref());
    objects.extend(own_class.map(|name| workload::runtime_class(name).into()));
    // The policy before the pod: it should hold when the pod starts.
    objects.push(network::network_policy(settings).into());
    objects.push(network::headless_service(settings).into());
    objects.push(network::cluster_service(settings).into());
    objects.push(workload::stateful_set(settings, &configuration).into());
    objects.push(workload::disruption_budget(settings).into());
    objects.extend(settings.load_balancer.iter().map(|asked| network::load_balancer(settings, asked).into()));
    if let Some(asked) = &settings.ingress {
        if asked.class == network::TRAEFIK && settings.is_tls() {
            objects.push(custom::servers_transport(settings).into());
        }
        objects.push(network::ingress(settings, asked).into());
    }
    objects.extend(settings.monitoring.iter().map(|asked| custom::service_monitor(settings, asked).into()));
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
        text.push_str(
            &serde_yaml::to_string(object).expect("plain data is YAML: names are text and no number is special"),
        );
    }
    text
}

/// Labels of every object. The version is among them, so nothing may be selected by all of them.
fn labels(component: &str) -> BTreeMap<String, String> {
    let mut labels = selector_labels();
    for (name, value) in
        [("version", settings::VERSION), ("component", component), ("part-of", NAME), ("managed-by", NAME)]
    {
        labels.insert(format!("app.kubernetes.io/{name}"), value.to_owned());
    }
    labels
}

/// Labels by which the pod is found. They can never change: a StatefulSet's selector is fixed.
fn selector_labels() -> BTreeMap<String, String> {
    ["name", "instance"].map(|name| (format!("app.kubernetes.io/{name}"), NAME.to_owned())).into()
}

fn selector() -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels()), ..LabelSelector::default() }
}

fn metadata(settings: &Settings, name: &str, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(settings.namespace.clone()),
        labels: Some(labels(component)),
        ..ObjectMeta::default()
    }
}
