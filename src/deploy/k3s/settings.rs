//! What is rendered: a [`Spec`] that was checked as a whole, with what follows from it.
//!
//! A spec comes out of the options of the command line and a file ([`draft`]), or from code. What its fields must fulfil together is checked
//! by [`check`].

mod check;
mod draft;
mod problem;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;

use self::draft::Draft;
pub use self::problem::{Mistake, PROBLEMS_MAX, Problem, SettingsError};
use super::keys::Variant;
use super::names::ObjectNames;
use super::sizes::{Cpu, NodeSize};
use super::spec::{Gpu, Host, ObjectName, Spec};
use super::values_file::ValuesFile;
use crate::base::ByteSize;
use crate::deploy::executable::Architecture;

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

/// A text that is not an assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found '{0}', expected KEY=VALUE such as storage.size=16GiB")]
pub struct AssignmentError(String);

/// What a command line has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// A file of settings, below all that follows.
    pub values: Option<ValuesFile>,
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
    /// The processors that the image is for, where that is known; `None`: that of this program.
    pub architectures: Option<Vec<Architecture>>,
    /// A token that clients use, rendered as a Secret. Without it a Secret may be made by other means, before or after.
    pub token: Option<ClientToken>,
    /// Whether the caller brings the image, so that no other may be named.
    pub brings_image: bool,
}

/// The token that clients use; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientToken(String);

impl ClientToken {
    /// Takes a text as a token.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken")
    }
}

/// What is rendered. Only valid settings can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub(super) spec: Spec,
    pub(super) token: Option<ClientToken>,
    pub(super) size: NodeSize,
    pub(super) image: String,
    /// Names by which clients reach the node in addition to those of its service, that of the Ingress among them.
    pub(super) hosts: Vec<String>,
    /// On which nodes the pod runs, by their labels.
    pub(super) node_selector: BTreeMap<String, String>,
    /// The processors that run the image, by Kubernetes' names; empty for an image that runs on any.
    pub(super) architectures: Vec<String>,
    pub(super) storage: ByteSize,
    pub(super) resources: Bounds,
    /// Cairn's own settings: key to value as TOML.
    pub(super) own: BTreeMap<String, String>,
    /// How long a stop waits for requests, which the pod's grace has to exceed.
    pub(super) drain_timeout: SignedDuration,
    /// The command that renders this.
    pub(super) command: RenderCommand,
}

/// What an installation finds out, and a command line cannot know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Digest of the image, `sha256:` and 64 hex digits.
    pub image_digest: Option<String>,
    /// The node of the cluster that has the image, by its label `kubernetes.io/hostname`.
    pub node_name: Option<String>,
    /// More names and addresses by which clients reach the node.
    pub hosts: Vec<String>,
    /// The token that clients use.
    pub token: Option<ClientToken>,
}

/// Requests and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) cpu: (Cpu, Cpu),
    pub(super) memory: (ByteSize, ByteSize),
    pub(super) ephemeral: (ByteSize, ByteSize),
}

impl Settings {
    /// Checks what a command line has.
    ///
    /// # Errors
    /// Every problem found, unknown keys first.
    pub fn new(options: &Options) -> Result<Self, SettingsError> {
        let (settings, problems) = Self::draft(options);
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError { problems }) }
    }

    /// Reads what a command line has as far as it can be: with problems, so that a caller can add others. Only without any of
    /// them may the settings be used.
    #[must_use]
    pub fn draft(options: &Options) -> (Self, Vec<Problem>) {
        let mut draft = Draft::of(options);
        let spec = draft.spec();
        if options.brings_image {
            check::no_image(&mut draft, &spec);
        }
        let held = options.architectures.as_deref();
        let mut command = RenderCommand::of(options);
        if let (Some(held), None) = (held, &spec.node.arch) {
            command.set.insert("node.arch".to_owned(), check::names(held).join(","));
        }
        let settings = check::settings(&mut draft, spec, options.token.clone(), held, command);
        (settings, draft.problems)
    }

    /// Adds what an installation found out. All else stays as it was checked.
    ///
    /// # Errors
    /// Every fact that cannot be rendered.
    pub fn complete(&mut self, facts: Facts) -> Result<(), SettingsError> {
        let Facts { image_digest, node_name, hosts, token } = facts;
        let mut draft = Draft::default();
        if let Some(digest) = image_digest {
            self.spec.image.digest = Some(digest.clone());
            self.image = check::image(&mut draft, &self.spec);
            self.command.digest = Some(digest);
        }
        if let Some(name) = node_name {
            check::fact::<ObjectName>(&mut draft, "node.name", &name);
            self.node_selector.insert("kubernetes.io/hostname".to_owned(), name.clone());
            self.command.set.insert("node.name".to_owned(), name);
        }
        if !hosts.is_empty() {
            hosts.iter().for_each(|host| check::fact::<Host>(&mut draft, "hosts", host));
            let named = self.spec.hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (own, of_ingress) = self.hosts.split_at(named.len().min(self.hosts.len()));
            let mut all = [own, &hosts, of_ingress].concat();
            let mut seen = BTreeSet::new();
            all.retain(|host| seen.insert(host.clone()));
            self.hosts = all;
            self.command.set.insert("hosts".to_owned(), [named, hosts].concat().join(","));
        }
        if let Some(token) = token {
            check::token(&mut draft, &self.spec, Some(&token));
            self.token = Some(token);
        }
        let problems = draft.problems;
        if problems.is_empty() { Ok(()) } else { Err(SettingsError { problems }) }
    }

    /// Checks a spec that comes from elsewhere than a command line.
    ///
    /// # Errors
    /// Every problem found.
    pub fn of(spec: Spec, token: Option<ClientToken>) -> Result<Self, SettingsError> {
        let mut draft = Draft::default();
        let settings = check::settings(&mut draft, spec, token, None, RenderCommand::default());
        let problems = draft.problems;
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError { problems }) }
    }

    /// Which GPUs the image is for: `Some(true)` where the driver comes from NVIDIA's container toolkit; `None` for none.
    #[must_use]
    pub fn gpu_is_nvidia(&self) -> Option<bool> {
        self.spec.gpu.as_ref().map(Gpu::is_nvidia)
    }

    /// The image as the pod names it.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The processors that the pod may run on, by Kubernetes' names; none where the image is said to run on any.
    #[must_use]
    pub fn architectures(&self) -> &[String] {
        &self.architectures
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.spec.namespace
    }

    /// The name of the node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The names of the node's objects.
    #[must_use]
    pub fn names(&self) -> ObjectNames {
        ObjectNames::of(self.name())
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
        let (namespace, domain) = (self.namespace(), &*self.spec.cluster.domain);
        let names = self.names();
        let (name, pod, headless) = (names.node(), names.pod(), names.headless());
        vec![
            name.to_owned(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
            format!("{pod}.{headless}.{namespace}.svc.{domain}"),
        ]
    }

    /// Whether the pod is bound to nodes by what was asked for.
    #[must_use]
    pub fn names_nodes(&self) -> bool {
        self.spec.node.name.is_some() || !self.spec.node.selector.is_empty()
    }

    /// Whether the certificate is cert-manager's.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        self.spec.cert_manager.is_some()
    }

    /// Whether the token comes from a store of secrets.
    #[must_use]
    pub fn has_external_token(&self) -> bool {
        self.spec.external_secrets.is_some()
    }

    /// Whether a job needs the node's own authority in a ConfigMap.
    #[must_use]
    pub fn needs_authority(&self) -> bool {
        self.spec.documents.is_some() && self.is_tls() && self.spec.cert_manager.is_none()
    }

    /// The size of the volume.
    #[must_use]
    pub fn storage(&self) -> ByteSize {
        self.storage
    }

    /// The class of the volume, where one was named.
    #[must_use]
    pub fn storage_class(&self) -> Option<&str> {
        self.spec.storage.class.as_deref().map(String::as_str)
    }

    /// The RuntimeClass that the pod needs and the manifests do not bring.
    #[must_use]
    pub fn runtime_class(&self) -> Option<&str> {
        self.spec.gpu.as_ref().filter(|gpu| !*gpu.own_runtime_class)?.runtime_class()
    }

    /// The class of the Ingress, where there is one.
    #[must_use]
    pub fn ingress_class(&self) -> Option<&str> {
        self.spec.ingress.as_ref().map(|ingress| ingress.class.as_str())
    }

    /// A setting of Cairn's that was asked for, without its quotes.
    pub(super) fn configured(&self, key: &str) -> Option<&str> {
        self.own.get(key).map(|value| value.trim_matches('"'))
    }

    /// The name under which an Ingress leads to the node, where one does.
    #[must_use]
    pub fn ingress_host(&self) -> Option<&str> {
        self.spec.ingress.as_ref().map(|ingress| ingress.host.as_str())
    }

    /// The port of the load balancer, where there is one.
    #[must_use]
    pub fn balanced_port(&self) -> Option<u16> {
        self.spec.loadbalancer.as_ref().map(|balancer| *balancer.port)
    }

    /// Whether the listeners speak TLS: they do on every address but loopback, unless that is turned off.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.configured("server.tls") != Some("off")
    }
}

/// The command that renders the same: options in one order, whatever the order they came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RenderCommand {
    values: Option<String>,
    size: Option<NodeSize>,
    with: BTreeSet<Variant>,
    image: Option<String>,
    digest: Option<String>,
    set: BTreeMap<String, String>,
}

impl RenderCommand {
    fn of(options: &Options) -> Self {
        Self {
            values: options.values.as_ref().map(|file| file.argument().to_owned()),
            size: options.size,
            with: options.with.clone(),
            image: options.image.clone(),
            digest: options.image_digest.clone(),
            set: options.set.iter().map(|one| (one.key.clone(), one.value.clone())).collect(),
        }
    }
}

impl fmt::Display for RenderCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cairn k3s render")?;
        self.values.iter().try_for_each(|name| write!(f, " --values {}", quoted(name)))?;
        self.size.iter().try_for_each(|size| write!(f, " --node-size {size}"))?;
        if !self.with.is_empty() {
            let names: Vec<&str> = self.with.iter().map(|variant| variant.name()).collect();
            write!(f, " --with {}", names.join(","))?;
        }
        self.image.iter().try_for_each(|image| write!(f, " --image {}", quoted(image)))?;
        self.digest.iter().try_for_each(|digest| write!(f, " --image-digest {}", quoted(digest)))?;
        self.set.iter().try_for_each(|(key, value)| write!(f, " --set {}", quoted(&format!("{key}={value}"))))
    }
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/:=@,%+".contains(letter);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
