//! What `--with` and `--set` take: every key with its default and what it is for.

use std::fmt;
use std::str::FromStr;

use crate::base::tree::nearest;

/// Something that is added to the plain rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// A certificate by cert-manager instead of the node's own authority.
    CertManager,
    /// Documents that a job keeps in sync.
    Documents,
    /// The token by the External Secrets Operator.
    ExternalSecrets,
    /// A GPU.
    Gpu,
    /// A name on the cluster's ingress.
    Ingress,
    /// A port on the cluster's nodes.
    LoadBalancer,
    /// Scraping by the Prometheus Operator.
    Monitoring,
}

impl Variant {
    /// All, by name.
    pub const ALL: [Self; 7] = [
        Self::CertManager,
        Self::Documents,
        Self::ExternalSecrets,
        Self::Gpu,
        Self::Ingress,
        Self::LoadBalancer,
        Self::Monitoring,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CertManager => "cert-manager",
            Self::Documents => "documents",
            Self::ExternalSecrets => "external-secrets",
            Self::Gpu => "gpu",
            Self::Ingress => "ingress",
            Self::LoadBalancer => "loadbalancer",
            Self::Monitoring => "monitoring",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = VariantError;

    fn from_str(text: &str) -> Result<Self, VariantError> {
        Self::ALL.into_iter().find(|variant| variant.name() == text).ok_or_else(|| {
            let nearest = nearest(text, Self::ALL.iter().map(|variant| variant.name())).map(str::to_owned);
            VariantError { found: text.to_owned(), nearest }
        })
    }
}

/// A text that names no variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is nothing called '{found}' to add{}; expected some of {}", meant(nearest.as_deref()), names())]
pub struct VariantError {
    /// What was found.
    pub found: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

fn names() -> String {
    Variant::ALL.map(Variant::name).join(", ")
}

/// A setting of the rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// What stands before the equals sign.
    pub name: &'static str,
    /// Without this variant the key means nothing, and is refused.
    pub variant: Option<Variant>,
    /// What holds when it is not set; empty for nothing.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, variant: None, default, about }
}

const fn with(variant: Variant, name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, variant: Some(variant), default, about }
}

/// Settings of Cairn itself begin with this.
pub const CONFIG: &str = "config.";

/// Every key but Cairn's own settings, which are `config.SECTION.KEY`.
pub const KEYS: &[Key] = &[
    key("namespace", "cairn", "the namespace, of its own because removing the installation may remove it"),
    key("address", "0.0.0.0", "what the pod listens on; `::` where the cluster has IPv6 only"),
    key("hosts", "", "more names by which clients reach the node, with commas"),
    key("cluster.domain", "cluster.local", "the cluster's own DNS domain"),
    key("node.memory", "", "the node's memory such as 4GiB, instead of `--node-size`"),
    key("node.name", "", "the only node that the pod may run on, by its label `kubernetes.io/hostname`"),
    key("node.selector", "", "labels of the nodes that the pod may run on, such as `disk=ssd`, with commas"),
    key("node.prefer", "", "labels of the nodes that the pod runs on rather than on others"),
    key(
        "node.arch",
        "that of this program",
        "the processor by the label `kubernetes.io/arch`; `any` for an image with several",
    ),
    key(
        "tolerations",
        "",
        "taints that the pod bears, as KEY, KEY=VALUE or KEY=VALUE:EFFECT, with commas; `*` bears all of them",
    ),
    key("priority-class", "", "an existing PriorityClass"),
    key("image.pull-secrets", "", "Secrets by which the registry of `--image` is asked, with commas"),
    key("env", "", "more variables of the container, such as `HTTPS_PROXY=http://proxy:3128`, with commas"),
    key("pod.annotations", "", "annotations of the pod as KEY=VALUE, with commas"),
    key("service.annotations", "", "annotations of the Services that clients use"),
    key("storage.size", "by node size", "the volume; cannot be changed once installed"),
    key("storage.class", "", "StorageClass; empty: the cluster's default; cannot be changed once installed"),
    key("resources.cpu", "by node size", "most processor time, such as 2 or 500m"),
    key("resources.cpu-request", "by node size", "reserved processor time"),
    key("resources.memory", "by node size", "most memory"),
    key("resources.memory-request", "by node size", "reserved memory"),
    key("resources.ephemeral", "by node size", "most disk outside the volume: the container's log and /tmp"),
    key("resources.ephemeral-request", "by node size", "reserved disk outside the volume"),
    key("backup.claim", "", "an existing PersistentVolumeClaim that snapshots are shipped to"),
    key("backup.secret", "", "Secret whose key `access-key` holds the two lines of `snapshot.s3_access_key_file`"),
    key("backup.cidr", "", "addresses of the S3 service; empty: any. For `config.snapshot.target=s3://…`"),
    with(Variant::CertManager, "cert-manager.issuer", "", "an existing issuer; empty: an authority of its own"),
    with(Variant::CertManager, "cert-manager.issuer-kind", "ClusterIssuer", "ClusterIssuer or Issuer"),
    with(Variant::Documents, "documents.git", "", "a git repository, such as `https://git.example/site/manuals.git`"),
    with(
        Variant::Documents,
        "documents.git.image",
        "",
        "an image with git for it, by its digest or a tag other than latest; Cairn's own has nothing but Cairn",
    ),
    with(Variant::Documents, "documents.git.branch", "", "its branch; empty: the default one"),
    with(
        Variant::Documents,
        "documents.git.secret",
        "",
        "Secret whose key `credentials` is a line of git's credential store",
    ),
    with(Variant::Documents, "documents.git.cidr", "", "addresses of the git server; empty: any"),
    with(Variant::Documents, "documents.git.size", "1GiB", "most room for the copy of the repository"),
    with(
        Variant::Documents,
        "documents.claim",
        "",
        "an existing PersistentVolumeClaim with documents, in the place of a repository",
    ),
    with(
        Variant::Documents,
        "documents.config-map",
        "",
        "a ConfigMap whose keys are files, in the place of a repository",
    ),
    with(Variant::Documents, "documents.path", "", "a folder in it; empty: all of it"),
    with(Variant::Documents, "documents.collection", "documents", "the collection that they go into"),
    with(Variant::Documents, "documents.schedule", "*/15 * * * *", "when they are synced, as cron writes it"),
    with(Variant::ExternalSecrets, "external-secrets.store", "", "the secret store to read from; has to be given"),
    with(
        Variant::ExternalSecrets,
        "external-secrets.store-kind",
        "ClusterSecretStore",
        "ClusterSecretStore or SecretStore",
    ),
    with(Variant::ExternalSecrets, "external-secrets.key", "cairn", "what the token is called in the store"),
    with(Variant::ExternalSecrets, "external-secrets.property", "token", "its property there; empty: the whole entry"),
    with(Variant::Gpu, "gpu.count", "1", "GPUs"),
    with(
        Variant::Gpu,
        "gpu.resource",
        "nvidia.com/gpu",
        "what the device plugin calls them, such as `gpu.intel.com/i915` or `amd.com/gpu`",
    ),
    with(
        Variant::Gpu,
        "gpu.group",
        "",
        "number of the group that may use /dev/dri/renderD*; NVIDIA's devices need none",
    ),
    with(
        Variant::Gpu,
        "gpu.runtime-class",
        "nvidia",
        "RuntimeClass; K3s makes `nvidia` where it finds the runtime; none by default where `gpu.resource` is not NVIDIA's",
    ),
    with(Variant::Gpu, "gpu.own-runtime-class", "false", "true renders the RuntimeClass too, where nothing makes it"),
    with(Variant::Ingress, "ingress.host", "", "the name that clients use; has to be given"),
    with(
        Variant::Ingress,
        "ingress.class",
        "traefik",
        "IngressClass; `traefik` and `nginx` are configured to speak TLS to the node",
    ),
    with(
        Variant::Ingress,
        "ingress.secret",
        "",
        "Secret with the certificate that clients see; empty: the ingress's default",
    ),
    with(Variant::Ingress, "ingress.path", "/", "what of the node is led out: `/mcp` is MCP alone, without REST"),
    with(Variant::Ingress, "ingress.annotations", "", "annotations of the Ingress as KEY=VALUE, with commas"),
    with(
        Variant::LoadBalancer,
        "loadbalancer.port",
        "7171",
        "port on the nodes; 80 and 443 belong to the ingress, 6443 to K3s",
    ),
    with(Variant::LoadBalancer, "loadbalancer.cidr", "", "addresses that may connect, with commas; empty: any"),
    with(Variant::Monitoring, "monitoring.namespace", "monitoring", "the namespace that Prometheus runs in"),
    with(Variant::Monitoring, "monitoring.interval", "60s", "how often it scrapes"),
    with(
        Variant::Monitoring,
        "monitoring.release",
        "",
        "label `release` of the ServiceMonitor, by which Prometheus may choose",
    ),
];

/// ` (did you mean 'x'?)`, or nothing.
pub(super) fn meant(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" (did you mean '{nearest}'?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_nonsense() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("storage.sise", names()), Some("storage.size"));
        assert_eq!(nearest("resources.mem", names()), Some("resources.memory"));
        assert_eq!(nearest("zzz", names()), None);
        let error = "certmanager".parse::<Variant>().expect_err("unknown");
        assert_eq!(error.nearest.as_deref(), Some("cert-manager"));
    }

    #[test]
    fn a_key_of_a_variant_begins_with_its_name() {
        for key in KEYS {
            if let Some(variant) = key.variant {
                assert!(key.name.starts_with(&format!("{variant}.")), "{}", key.name);
            }
        }
    }
}
