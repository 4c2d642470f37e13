//! The groups that `--with` adds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::group;
use super::values::{
    Annotations, AtLeast, Branch, Cidr, Collection, Flag, Folder, GitImage, GitUrl, GpuCount, Group, IngressPath,
    Interval, NodePort, ObjectName, Property, Resource, Schedule, constant,
};
use crate::deploy::shape::MCP_PORT;

group! {
    /// A certificate by cert-manager.
    #[derive(Default)]
    CertManager {
        /// an existing issuer; empty: an authority of its own
        #[serde(skip_serializing_if = "Option::is_none")]
        pub issuer: Option<ObjectName>,
        /// ClusterIssuer or Issuer
        pub issuer_kind: IssuerKind,
    }
}

/// The kind of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum IssuerKind {
    /// For all namespaces.
    #[default]
    ClusterIssuer,
    /// For its own namespace.
    Issuer,
}

impl IssuerKind {
    /// As cert-manager calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIssuer => "ClusterIssuer",
            Self::Issuer => "Issuer",
        }
    }
}

group! {
    /// Documents that a job of the cluster keeps in sync, out of one of three sources.
    Documents {
        /// a git repository
        #[serde(skip_serializing_if = "Option::is_none")]
        pub git: Option<Git>,
        /// an existing PersistentVolumeClaim with documents, instead of a repository
        #[serde(skip_serializing_if = "Option::is_none")]
        pub claim: Option<ObjectName>,
        /// a ConfigMap whose keys are files, instead of a repository
        #[serde(skip_serializing_if = "Option::is_none")]
        pub config_map: Option<ObjectName>,
        /// a folder in it; empty: all of it
        #[serde(skip_serializing_if = "Option::is_none")]
        pub path: Option<Folder>,
        /// the collection for them
        pub collection: Collection,
        /// when they are synced, as a cron schedule
        pub schedule: Schedule,
    }
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            git: None,
            claim: None,
            config_map: None,
            path: None,
            collection: constant("documents"),
            schedule: constant("*/15 * * * *"),
        }
    }
}

/// Where documents are.
#[derive(Debug, Clone, Copy)]
pub enum DocumentSource<'a> {
    /// In a git repository.
    Git(&'a Git),
    /// In a volume, by its claim.
    Claim(&'a str),
    /// In a ConfigMap.
    ConfigMap(&'a str),
}

impl Documents {
    /// The source that was named; [`super::super::Settings`] have exactly one.
    #[must_use]
    pub fn source(&self) -> Option<DocumentSource<'_>> {
        let git = self.git.as_ref().map(DocumentSource::Git);
        let claim = || self.claim.as_ref().map(|name| DocumentSource::Claim(name));
        let config_map = || self.config_map.as_ref().map(|name| DocumentSource::ConfigMap(name));
        git.or_else(claim).or_else(config_map)
    }
}

/// A git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(inline)]
pub struct Git {
    /// a git repository, such as `https://git.example/site/manuals.git`
    #[schemars(extend("x-key" = "documents.git"))]
    pub url: GitUrl,
    /// an image with git for it, by its digest or a tag other than latest; Cairn's own has nothing but Cairn
    pub image: GitImage,
    /// its branch; empty: the default one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Branch>,
    /// Secret whose key `credentials` is a line of git's credential store
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectName>,
    /// addresses of the git server; empty: any
    #[serde(default)]
    pub cidr: Vec<Cidr>,
    /// size limit of the copy of the repository
    #[serde(default = "copy_size")]
    pub size: AtLeast<16>,
}

/// Room for the copy of a repository.
fn copy_size() -> AtLeast<16> {
    AtLeast::mib(1 << 10)
}

/// The token by the External Secrets Operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(inline)]
pub struct ExternalSecrets {
    /// the secret store to read from; required
    pub store: ObjectName,
    /// ClusterSecretStore or SecretStore
    #[serde(default)]
    pub store_kind: StoreKind,
    /// what the token is called in the store
    #[serde(default = "entry")]
    pub key: String,
    /// its property there; empty: the whole entry
    #[serde(default)]
    pub property: Property,
}

/// The entry of the store with the token.
fn entry() -> String {
    super::super::PROGRAM.to_owned()
}

/// The kind of a secret store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum StoreKind {
    /// For all namespaces.
    #[default]
    ClusterSecretStore,
    /// For its own namespace.
    SecretStore,
}

impl StoreKind {
    /// As the operator calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterSecretStore => "ClusterSecretStore",
            Self::SecretStore => "SecretStore",
        }
    }
}

group! {
    /// A GPU.
    Gpu {
        /// number of GPUs
        pub count: GpuCount,
        /// what the device plugin calls them, such as `gpu.intel.com/i915` or `amd.com/gpu`
        pub resource: Resource,
        /// number of the group that may use /dev/dri/renderD*; NVIDIA's devices need none
        #[serde(skip_serializing_if = "Option::is_none")]
        pub group: Option<Group>,
        /// RuntimeClass; K3s makes `nvidia` where it finds the runtime; none by default where `gpu.resource` is not NVIDIA's
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "nvidia"))]
        pub runtime_class: Option<ObjectName>,
        /// true renders the RuntimeClass too, where nothing makes it
        pub own_runtime_class: Flag,
    }
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            count: constant("1"),
            resource: constant("nvidia.com/gpu"),
            group: None,
            runtime_class: None,
            own_runtime_class: constant("false"),
        }
    }
}

impl Gpu {
    /// Whether a container toolkit brings the driver.
    #[must_use]
    pub fn is_nvidia(&self) -> bool {
        self.resource.starts_with("nvidia.com/")
    }

    /// The RuntimeClass of the pod: the one that was named, and of NVIDIA's the toolkit's.
    #[must_use]
    pub fn runtime_class(&self) -> Option<&str> {
        self.runtime_class.as_deref().map(String::as_str).or_else(|| self.is_nvidia().then_some("nvidia"))
    }
}

/// A name on the cluster's ingress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(inline)]
pub struct Ingress {
    /// the name that clients use; required
    pub host: ObjectName,
    /// IngressClass; `traefik` and `nginx` are configured to speak TLS to the node
    #[serde(default = "traefik")]
    pub class: ObjectName,
    /// Secret with the certificate that clients see; empty: the ingress's default
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectName>,
    /// path prefix to expose: `/mcp` is MCP alone, without REST
    #[serde(default = "everything")]
    pub path: IngressPath,
    /// annotations of the Ingress as KEY=VALUE, with commas
    #[serde(default)]
    pub annotations: Annotations,
}

/// The class that K3s brings.
fn traefik() -> ObjectName {
    constant("traefik")
}

/// Every path of the node.
fn everything() -> IngressPath {
    constant("/")
}

group! {
    /// A port on the cluster's nodes.
    LoadBalancer {
        /// port on the nodes; 80 and 443 belong to the ingress, 6443 to K3s
        pub port: NodePort,
        /// addresses that may connect, with commas; empty: any
        pub cidr: Vec<Cidr>,
    }
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self { port: constant(&MCP_PORT.to_string()), cidr: Vec::new() }
    }
}

group! {
    /// Scraping by the Prometheus Operator.
    Monitoring {
        /// the namespace that Prometheus runs in
        pub namespace: ObjectName,
        /// how often it scrapes
        pub interval: Interval,
        /// label `release` of the ServiceMonitor, by which Prometheus may choose
        #[serde(skip_serializing_if = "Option::is_none")]
        pub release: Option<ObjectName>,
    }
}

impl Default for Monitoring {
    fn default() -> Self {
        Self { namespace: constant("monitoring"), interval: constant("60s"), release: None }
    }
}
