//! What a user asks for: the settings of the manifests, a struct for each group of keys.
//!
//! A field is everything that there is to know of a key: its name, its type with the values that it takes (`spec/values.rs`), its default, and,
//! as its documentation, what `--help` shows. The keys of `--set`, the file of `--values`, and the JSON Schema follow ([`super::keys`]). So does the
//! spec of a resource in a cluster, and code that has the settings from elsewhere fills the structs.
//!
//! Invariants: a group that is an `Option` is a variant: it renders something of its own, and is named as `--with` names it. What two
//! fields must fulfil together is checked by [`super::Settings`].

mod additions;
mod forms;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::additions::{
    CertManager, DocumentSource, Documents, ExternalSecrets, Git, Gpu, Ingress, IssuerKind, LoadBalancer, Monitoring,
    StoreKind,
};
pub(super) use self::forms::is_misread;
use self::values::constant;
pub use self::values::{
    Annotations, Arch, AtLeast, Branch, Cidr, Collection, Configuration, Environment, Flag, Folder, GitImage, GitUrl,
    GpuCount, Group, Host, IngressPath, InstanceName, Interval, Labels, NodeMemory, NodePort, ObjectName, Property,
    Resource, Schedule, SecretName, Toleration, UnspecifiedAddress, ValueError,
};
use super::sizes::{Cpu, NodeSize};

/// The settings of the manifests of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(inline)]
pub struct Spec {
    /// the node's name, which its objects have; another one for each node of a namespace; cannot be changed once installed
    pub name: InstanceName,
    /// the namespace, of its own because removing the installation may remove it
    pub namespace: ObjectName,
    /// what the pod listens on; `::` where the cluster has IPv6 only
    pub address: UnspecifiedAddress,
    /// more names by which clients reach the node, with commas
    pub hosts: Vec<Host>,
    /// the cluster
    pub cluster: Cluster,
    /// the cluster's node that the pod runs on
    pub node: Node,
    /// taints that the pod tolerates, as KEY, KEY=VALUE or KEY=VALUE:EFFECT, with commas; `*` tolerates all of them
    pub tolerations: Vec<Toleration>,
    /// an existing PriorityClass
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<ObjectName>,
    /// the image
    pub image: Image,
    /// more variables of the container, such as `HTTPS_PROXY=http://proxy:3128`, with commas
    pub env: Environment,
    /// the pod
    pub pod: Pod,
    /// the Services
    pub service: Service,
    /// the volume
    pub storage: Storage,
    /// requests and limits
    pub resources: Resources,
    /// where snapshots go
    pub backup: Backup,
    /// a certificate by cert-manager instead of the node's own authority
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// documents that a job keeps in sync
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<Documents>,
    /// the token by the External Secrets Operator
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_secrets: Option<ExternalSecrets>,
    /// a GPU
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// a name on the cluster's ingress
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// a port on the cluster's nodes
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loadbalancer: Option<LoadBalancer>,
    /// scraping by the Prometheus Operator
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// Cairn's own settings, by section; `cairn serve --print-config` shows all of them
    pub config: Configuration,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: constant(super::PROGRAM),
            namespace: constant(super::PROGRAM),
            address: UnspecifiedAddress::default(),
            hosts: Vec::new(),
            cluster: Cluster::default(),
            node: Node::default(),
            tolerations: Vec::new(),
            priority_class: None,
            image: Image::default(),
            env: Environment::default(),
            pod: Pod::default(),
            service: Service::default(),
            storage: Storage::default(),
            resources: Resources::default(),
            backup: Backup::default(),
            cert_manager: None,
            documents: None,
            external_secrets: None,
            gpu: None,
            ingress: None,
            loadbalancer: None,
            monitoring: None,
            config: Configuration::default(),
        }
    }
}

/// A group of keys.
macro_rules! group {
    ($(#[$meta:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        #[schemars(inline)]
        pub struct $name { $($body)* }
    };
}
use group;

group! {
    /// The cluster.
    Cluster {
        /// the cluster's own DNS domain
        pub domain: ObjectName,
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self { domain: constant("cluster.local") }
    }
}

group! {
    /// On which nodes of the cluster the pod runs, and how big they are.
    #[derive(Default)]
    Node {
        /// how big the node is: pi, small, medium or large, or its memory; `small` where nothing says
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-option" = "--node-size"))]
        pub size: Option<NodeSize>,
        /// the node's memory such as 4GiB, instead of `--node-size`
        #[serde(skip_serializing_if = "Option::is_none")]
        pub memory: Option<NodeMemory>,
        /// run the pod on this node only, by its label `kubernetes.io/hostname`
        #[serde(skip_serializing_if = "Option::is_none")]
        pub name: Option<ObjectName>,
        /// labels of the nodes that the pod may run on, such as `disk=ssd`, with commas
        pub selector: Labels,
        /// labels of the nodes that are preferred for the pod
        pub prefer: Labels,
        /// the processor by the label `kubernetes.io/arch`, several with commas; `any` for an image that runs on all
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "that of this program"))]
        pub arch: Option<Arch>,
    }
}

group! {
    /// The image that the pod runs.
    #[derive(Default)]
    Image {
        /// the image by name and tag; the one of this version where nothing is named
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-option" = "--image"))]
        pub name: Option<String>,
        /// the image's digest; it is then named by that alone, which no other image can take
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-option" = "--image-digest"))]
        pub digest: Option<String>,
        /// Secrets with the credentials used to pull `--image`, with commas
        pub pull_secrets: Vec<SecretName>,
    }
}

group! {
    /// The pod.
    #[derive(Default)]
    Pod {
        /// annotations of the pod as KEY=VALUE, with commas
        pub annotations: Annotations,
    }
}

group! {
    /// The Services that clients use.
    #[derive(Default)]
    Service {
        /// annotations of the Services that clients use
        pub annotations: Annotations,
    }
}

group! {
    /// The volume.
    #[derive(Default)]
    Storage {
        /// size of the volume; grows only where its class allows that
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "by node size"))]
        pub size: Option<AtLeast<1024>>,
        /// StorageClass; empty: the cluster's default; cannot be changed once installed
        #[serde(skip_serializing_if = "Option::is_none")]
        pub class: Option<ObjectName>,
    }
}

group! {
    /// What the pod may take of its node.
    #[derive(Default)]
    Resources {
        /// CPU limit, such as 2 or 500m
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "by node size"))]
        pub cpu: Option<Cpu>,
        /// CPU request
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "by node size"))]
        pub cpu_request: Option<Cpu>,
        /// memory limit
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "by node size"))]
        pub memory: Option<AtLeast<128>>,
        /// memory request
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "by node size"))]
        pub memory_request: Option<AtLeast<16>>,
        /// limit of ephemeral storage: the container's log and /tmp
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "by node size"))]
        pub ephemeral: Option<AtLeast<96>>,
        /// request of ephemeral storage
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "by node size"))]
        pub ephemeral_request: Option<AtLeast<1>>,
    }
}

group! {
    /// Where snapshots go.
    #[derive(Default)]
    Backup {
        /// an existing PersistentVolumeClaim that snapshots are shipped to
        #[serde(skip_serializing_if = "Option::is_none")]
        pub claim: Option<ObjectName>,
        /// Secret whose key `access-key` holds the two lines of `snapshot.s3_access_key_file`
        #[serde(skip_serializing_if = "Option::is_none")]
        pub secret: Option<ObjectName>,
        /// addresses of the S3 service; empty: any. For `config.snapshot.target=s3://…`
        pub cidr: Vec<Cidr>,
    }
}
