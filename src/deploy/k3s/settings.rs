//! What is rendered: options as they come from outside, checked as a whole into settings that can only be valid.

mod forms;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::SignedDuration;

use self::reader::Reader;
use super::NAME;
use super::keys::{Variant, meant};
use super::sizes::{Cpu, NodeSize};

pub(super) use self::forms::toml_text;
use crate::base::{ByteSize, Fault};

/// The version that is rendered: that of this program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `KEY=VALUE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// One of `KEYS`, or `config.SECTION.KEY`.
    pub key: String,
    /// What it is set to.
    pub value: String,
}

impl FromStr for Assignment {
    type Err = AssignmentError;

    fn from_str(text: &str) -> Result<Self, AssignmentError> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self { key: key.trim().to_owned(), value: value.trim().to_owned() })
            }
            _ => Err(AssignmentError(text.to_owned())),
        }
    }
}

/// A text that is no assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found '{0}', expected KEY=VALUE such as storage.size=16GiB")]
pub struct AssignmentError(String);

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// How big the node is; `None`: small, or by the key `node.memory`.
    pub size: Option<NodeSize>,
    /// What is added.
    pub with: BTreeSet<Variant>,
    /// Keys and their values; of two for one key the later holds.
    pub set: Vec<Assignment>,
    /// The image by name and tag; `None`: this release's own.
    pub image: Option<String>,
    /// Its digest, `sha256:` and 64 hex digits. The image is then named by the digest alone.
    pub image_digest: Option<String>,
    /// A token that clients use, rendered as a Secret. Without it a Secret may be made by other means, before or after.
    pub token: Option<Token>,
}

/// A token; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a text as a token.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What is rendered. Only valid settings can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub(super) size: NodeSize,
    pub(super) image: String,
    pub(super) token: Option<Token>,
    pub(super) namespace: String,
    pub(super) address: IpAddr,
    /// Names by which clients reach the node besides those of its service.
    pub(super) hosts: Vec<String>,
    /// The cluster's DNS domain.
    pub(super) domain: String,
    /// On which nodes the pod runs, by their labels.
    pub(super) node_selector: BTreeMap<String, String>,
    /// On which of them rather than on others.
    pub(super) node_prefer: BTreeMap<String, String>,
    pub(super) tolerations: Vec<Tolerated>,
    pub(super) priority_class: Option<String>,
    pub(super) pull_secrets: Vec<String>,
    /// Variables of the container besides its own.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) pod_annotations: BTreeMap<String, String>,
    pub(super) service_annotations: BTreeMap<String, String>,
    pub(super) documents: Option<Documents>,
    pub(super) storage: ByteSize,
    pub(super) storage_class: Option<String>,
    pub(super) resources: Resources,
    pub(super) backup_claim: Option<String>,
    pub(super) backup_secret: Option<String>,
    pub(super) backup_cidrs: Vec<String>,
    pub(super) certificate: Option<Certificate>,
    pub(super) external_secret: Option<ExternalSecret>,
    pub(super) gpu: Option<Gpu>,
    pub(super) ingress: Option<Ingress>,
    pub(super) load_balancer: Option<LoadBalancer>,
    pub(super) monitoring: Option<Monitoring>,
    /// Cairn's own settings that were asked for: key to value as TOML.
    pub(super) own: BTreeMap<String, String>,
    /// How long a stop waits for requests, which the pod's grace has to exceed.
    pub(super) drain_timeout: SignedDuration,
    /// The command that renders this.
    pub(super) command: String,
}

/// Requests and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) cpu: (Cpu, Cpu),
    pub(super) memory: (ByteSize, ByteSize),
    pub(super) ephemeral: (ByteSize, ByteSize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// An existing issuer, and its kind; `None`: an authority of its own.
    pub(super) issuer: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExternalSecret {
    pub(super) store: String,
    pub(super) store_kind: String,
    pub(super) key: String,
    pub(super) property: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpu {
    pub(super) count: u8,
    pub(super) resource: String,
    pub(super) group: Option<u32>,
    pub(super) runtime_class: Option<String>,
    pub(super) own_runtime_class: bool,
}

impl Gpu {
    /// Whether a container toolkit brings the driver.
    pub(super) fn is_nvidia(&self) -> bool {
        self.resource.starts_with(NVIDIA)
    }
}

/// What the resources of NVIDIA's device plugin begin with.
const NVIDIA: &str = "nvidia.com/";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ingress {
    pub(super) host: String,
    pub(super) class: String,
    pub(super) secret: Option<String>,
    /// What is led to the node: this and what is below it.
    pub(super) path: String,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A taint that the pod bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tolerated {
    /// `None`: every one.
    pub(super) key: Option<String>,
    /// `None`: whatever it is.
    pub(super) value: Option<String>,
    /// `None`: all effects.
    pub(super) effect: Option<String>,
}

/// Documents that a job of the cluster keeps in sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Documents {
    pub(super) from: DocumentSource,
    pub(super) collection: String,
    pub(super) schedule: String,
    /// Within the source; empty for all of it.
    pub(super) path: String,
}

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DocumentSource {
    Claim(String),
    ConfigMap(String),
    Git {
        url: String,
        image: String,
        branch: Option<String>,
        /// Secret with `.git-credentials`.
        secret: Option<String>,
        cidrs: Vec<String>,
        size: ByteSize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoadBalancer {
    pub(super) port: u16,
    pub(super) cidrs: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Monitoring {
    pub(super) namespace: String,
    pub(super) interval: String,
    pub(super) release: Option<String>,
}

/// One thing that is wrong with what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A key that does not exist.
    #[error("there is no key '{key}'{}; `cairn k3s render --help` lists all of them", meant(nearest.as_deref()))]
    UnknownKey {
        /// What was found.
        key: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A key of something that is not rendered.
    #[error("{key} means nothing without `--with {variant}`")]
    WithoutVariant {
        /// The key.
        key: &'static str,
        /// What it belongs to.
        variant: Variant,
    },
    /// A value that has to be given.
    #[error("`--with {variant}` needs `--set {key}=…`: {about}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What needs it.
        variant: Variant,
        /// What it is.
        about: &'static str,
    },
    /// A value that the key cannot have.
    #[error("{key} is '{found}', expected {expected}")]
    Value {
        /// The key, or the option.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A token that cannot be one. Its value goes into no message.
    #[error("the token of --token-file (not shown) cannot be used: expected {expected}")]
    Token {
        /// What was expected.
        expected: &'static str,
    },
    /// A setting of Cairn's that the manifests decide.
    #[error("config.{key} is decided by the manifests: {instead}")]
    Decided {
        /// The key.
        key: String,
        /// What to do.
        instead: &'static str,
    },
}

/// Everything that is wrong with what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manifests cannot be rendered:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for SettingsError {}

impl SettingsError {
    /// Always whoever asked.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}

/// Settings of Cairn's that stand in more places than its configuration, and what to set instead.
const DECIDED: &[(&str, &str)] = &[
    ("node.data_dir", "the volume is mounted at /var/lib/cairn"),
    ("server.listen", "set `address`; ports are those of the services"),
    ("admin.listen", "set `address`; ports are those of the services"),
    ("server.allowed_hosts", "set `hosts`"),
    ("server.tls_names", "set `hosts`"),
    ("server.pod", "it is the pod; set `hosts` for other names"),
    ("log.format", "the container's output is one log, of lines of JSON"),
    ("server.tls_certificate_file", "use `--with cert-manager`"),
    ("server.tls_key_file", "use `--with cert-manager`"),
    ("server.token_file", "it is the key `token` of the Secret `cairn-token`"),
    ("snapshot.s3_access_key_file", "set `backup.secret`"),
];

impl Settings {
    /// Checks what is asked for.
    ///
    /// # Errors
    /// Every problem found, unknown keys first.
    pub fn new(options: &Options) -> Result<Self, SettingsError> {
        let (settings, problems) = Self::draft(options);
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError { problems }) }
    }

    /// Reads what is asked for as far as it can be: with problems for whoever looks for more of them elsewhere. Only without any of them
    /// are the settings good for something.
    #[must_use]
    pub fn draft(options: &Options) -> (Self, Vec<Problem>) {
        let mut reader = Reader::new(options);
        let settings = reader.settings(options);
        (settings, reader.problems)
    }

    /// Which GPUs the image is for: `Some(true)` where the driver comes from NVIDIA's container toolkit; `None` for none.
    #[must_use]
    pub fn gpu_is_nvidia(&self) -> Option<bool> {
        self.gpu.as_ref().map(Gpu::is_nvidia)
    }

    /// The image as the pod names it.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The class of node that resources follow.
    #[must_use]
    pub fn size(&self) -> NodeSize {
        self.size
    }

    /// Permissions of what is rendered: it may hold the token.
    #[must_use]
    pub fn mode(&self) -> u32 {
        if self.token.is_some() { 0o600 } else { 0o644 }
    }

    /// The names of the service, which clients in the cluster use.
    pub(super) fn service_names(&self) -> Vec<String> {
        let (namespace, domain) = (&self.namespace, &self.domain);
        vec![
            NAME.to_owned(),
            format!("{NAME}.{namespace}"),
            format!("{NAME}.{namespace}.svc"),
            format!("{NAME}.{namespace}.svc.{domain}"),
            format!("{NAME}-0.{NAME}-headless.{namespace}.svc.{domain}"),
        ]
    }

    /// Whether a job needs the node's own authority in a ConfigMap.
    #[must_use]
    pub fn needs_authority(&self) -> bool {
        self.documents.is_some() && self.is_tls() && self.certificate.is_none()
    }

    /// The size of the volume.
    #[must_use]
    pub fn storage(&self) -> ByteSize {
        self.storage
    }

    /// The class of the volume, where one was named.
    #[must_use]
    pub fn storage_class(&self) -> Option<&str> {
        self.storage_class.as_deref()
    }

    /// The RuntimeClass that the pod needs and the manifests do not bring.
    #[must_use]
    pub fn runtime_class(&self) -> Option<&str> {
        let gpu = self.gpu.as_ref().filter(|gpu| !gpu.own_runtime_class)?;
        gpu.runtime_class.as_deref()
    }

    /// The class of the Ingress, where there is one.
    #[must_use]
    pub fn ingress_class(&self) -> Option<&str> {
        self.ingress.as_ref().map(|ingress| ingress.class.as_str())
    }

    /// A setting of Cairn's that was asked for, without its quotes.
    pub(super) fn own(&self, key: &str) -> Option<&str> {
        self.own.get(key).map(|value| value.trim_matches('"'))
    }

    /// The name under which an Ingress leads to the node, where one does.
    #[must_use]
    pub fn ingress_host(&self) -> Option<&str> {
        self.ingress.as_ref().map(|ingress| ingress.host.as_str())
    }

    /// The port of the load balancer, where there is one.
    #[must_use]
    pub fn balanced_port(&self) -> Option<u16> {
        self.load_balancer.as_ref().map(|balancer| balancer.port)
    }

    /// Whether the listeners speak TLS: they do on every address but loopback, unless that is turned off.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.own("server.tls") != Some("off")
    }
}
