//! The K3s or RKE2 server of this machine: a node as a pod, brought by the folders that the server watches.
//!
//! The image archive goes to `agent/images`, the manifests go to `server/manifests`; the API is asked only whether both arrived, is
//! asked to stop the pod, and to remove what a manifest left behind. So an installation is complete on the disk, and a server that
//! starts later applies it without anybody.
//!
//! Invariants: the server never sees half a file (see [`Tree`]), because it deletes what a shorter file does not name any more.
//! The namespace, and with it the claim to the data, is in a file of its own that is never emptied. Waiting has a deadline.

mod api;
pub mod checkup;
mod client;
mod members;
mod node;
mod objects;
mod volume;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use tokio::runtime::Handle;

use super::change::{Cause, Runner};
use super::host::{ClusterNode, Distribution};
use super::k3s::{AUTHORITY_KEY, INSTANCE_LABEL, NAME_LABEL, ObjectNames, PROGRAM, TOKEN_KEY, is_namespace_file};
use super::node::ask;
use super::release::{ManagedFile, Release};
use super::sha256::Sha256;
use super::tree::Tree;
use crate::base::Fault;

pub use self::api::{Access, ApiError, Apply, FieldConflict, HttpAnswer, HttpRequest, ObjectApi, ObjectKey, PodState};
pub use self::members::{Member, this_machine};
pub use self::node::{PodNode, Reach};
pub(crate) use self::objects::documents;
use self::objects::entries;
pub use self::volume::Fit;

/// The oldest Kubernetes that honours everything that the manifests say: claims that outlive their set, pods that have a volume for
/// themselves, evictions of unready pods.
pub const VERSION_MIN: (u32, u32) = (1, 29);
/// What a manifest says whose objects are to be removed.
const NOTHING: &[u8] = b"# Removed by `cairn uninstall`.\n";
/// What a manifest ends with that is to be applied although the server did so before.
const AGAIN: &[u8] = b"# Applied again: the cluster did not match this file.\n";
/// Within which the server reads its manifests several times, whatever patience there is for the pod.
const PASSES: Duration = Duration::from_secs(90);
/// How long the API may take to answer one question.
const ANSWER: Duration = Duration::from_secs(20);
/// Where K3s stores what it knows of its manifests.
const ADDONS: &str = "kube-system";

/// Why the API was no help.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its administrator's file cannot be read.
    #[error("cannot read the kubeconfig {path}{}", if *is_root { "" } else { "; run this as root" })]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Whether this is root.
        is_root: bool,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// It does not answer.
    #[error("the API of {distribution} does not answer; start it (systemctl start {unit}) and run this again")]
    Unreachable {
        /// What runs it.
        distribution: Distribution,
        /// Its unit.
        unit: &'static str,
        /// What went wrong.
        #[source]
        source: Cause,
    },
    /// It refused.
    #[error("the API of {distribution} refused to {action}")]
    Refused {
        /// What runs it.
        distribution: Distribution,
        /// What the request was, as a verb.
        action: &'static str,
        /// Its words.
        #[source]
        source: Box<kube::Error>,
    },
    /// It is too old.
    #[error("Kubernetes {found} is older than {}.{}, which the manifests need; upgrade {distribution} first", VERSION_MIN.0, VERSION_MIN.1)]
    TooOld {
        /// What runs it.
        distribution: Distribution,
        /// Its version.
        found: String,
    },
}

impl ClusterError {
    /// Always the machine's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Environment
    }
}

/// An authority that clients have to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Its certificate.
    pub pem: String,
    /// Whether it is the node's own.
    pub is_own: bool,
}

/// The API of this machine's server.
pub struct Cluster {
    client: Client,
    runtime: Handle,
    node: ClusterNode,
    namespace: String,
    names: ObjectNames,
    version: String,
}

impl Cluster {
    /// Connects to the API and asks its version.
    ///
    /// * `kubeconfig`: the file, where it lies on this machine.
    /// * `namespace`: where the node is, or will be.
    /// * `names`: what its objects are called there.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn connect(
        node: ClusterNode,
        kubeconfig: &Path,
        namespace: &str,
        names: ObjectNames,
        runtime: Handle,
    ) -> Result<Self, ClusterError> {
        let unreadable = |source| ClusterError::Kubeconfig {
            path: kubeconfig.to_owned(),
            is_root: rustix::process::geteuid().is_root(),
            source: Box::new(source),
        };
        let distribution = node.distribution;
        let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(unreadable)?;
        let config = runtime
            .block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()))
            .map_err(unreadable)?;
        let unreachable = |source: Cause| ClusterError::Unreachable { distribution, unit: node.unit(), source };
        let connected = runtime.block_on(async {
            let client = client::client(&config, ANSWER).map_err(unreachable)?;
            let version = tokio::time::timeout(ANSWER, client.apiserver_version());
            let version = version.await.map_err(|late| unreachable(late.into()))?;
            version.map(|version| (client, version)).map_err(|error| unreachable(error.into()))
        });
        let (client, version) = connected?;
        if !is_new_enough(&version.major, &version.minor) {
            return Err(ClusterError::TooOld { distribution, found: version.git_version });
        }
        let namespace = namespace.to_owned();
        Ok(Self { client, runtime, node, namespace, names, version: version.git_version })
    }

    /// Version of Kubernetes, as `v1.33.1+k3s1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the node is, or will be.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The names of the node's objects.
    #[must_use]
    pub fn names(&self) -> &ObjectNames {
        &self.names
    }

    fn refused(&self, action: &'static str, source: kube::Error) -> ClusterError {
        ClusterError::Refused { distribution: self.node.distribution, action, source: Box::new(source) }
    }

    /// Asks the API one thing.
    fn ask<T>(
        &self,
        action: &'static str,
        question: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        self.runtime.block_on(question).map_err(|error| self.refused(action, error))
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn addons(&self) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "k3s.cattle.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "k3s.cattle.io/v1".to_owned(),
            kind: "Addon".to_owned(),
            plural: "addons".to_owned(),
        };
        Api::namespaced_with(self.client.clone(), ADDONS, &resource)
    }

    /// The address inside the cluster that clients on this machine reach the node at.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn service_address(&self) -> Result<Option<String>, ClusterError> {
        let service = self.ask("show the service", self.api::<Service>().get_opt(self.names.node()))?;
        Ok(service.and_then(|service| service.spec?.cluster_ip).filter(|address| address != "None"))
    }

    /// Where the load balancer of `--with loadbalancer` answers, once it has an address.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn balanced_address(&self) -> Result<Option<String>, ClusterError> {
        let service = self.ask("show the load balancer", self.api::<Service>().get_opt(&self.names.load_balancer()))?;
        let status = service.and_then(|service| service.status?.load_balancer?.ingress);
        Ok(status.into_iter().flatten().find_map(|ingress| ingress.hostname.or(ingress.ip)))
    }

    /// What clients have to trust: the certificate of the node's own authority, fetched through the API, which knows the pod; where
    /// another authority issued the node's certificate, that one. `None` where the node speaks no TLS.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn trusted(&self) -> Result<Option<Trusted>, ClusterError> {
        let secret = self.ask("show the certificate", self.api::<Secret>().get_opt(&self.names.tls_secret()))?;
        let authority = secret.and_then(|secret| secret.data?.remove("ca.crt"));
        if let Some(pem) = authority.and_then(|bytes| String::from_utf8(bytes.0).ok()) {
            return Ok(Some(Trusted { pem, is_own: false }));
        }
        let (namespace, name) = (&self.namespace, self.names.node());
        let path = format!("/api/v1/namespaces/{namespace}/services/https:{name}:mcp/proxy/authority.pem");
        let request = http::Request::get(path).body(Vec::new()).expect("a path of our own");
        match self.runtime.block_on(self.client.request_text(request)) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            response => response
                .map(|pem| Some(Trusted { pem, is_own: true }))
                .map_err(|error| self.refused("forward a request to the node", error)),
        }
    }

    /// Puts an authority into a ConfigMap, for pods that have to trust it.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn publish_authority(&self, pem: &str) -> Result<(), ClusterError> {
        let name = self.names.authority();
        let labels = json!({NAME_LABEL: PROGRAM, INSTANCE_LABEL: self.names.node(), objects::MANAGED_BY: PROGRAM});
        let wanted = Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels},
            "data": {AUTHORITY_KEY: pem},
        }));
        let maps = self.api::<ConfigMap>();
        let parameters = PatchParams::apply(PROGRAM).force();
        let put = maps.patch(&name, &parameters, &wanted);
        self.ask("put the authority into a ConfigMap", put).map(drop)
    }

    /// The token that clients use, where it is in a Secret.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn token(&self) -> Result<Option<String>, ClusterError> {
        let secret = self.ask("show the token", self.api::<Secret>().get_opt(&self.names.token_secret()))?;
        let token = secret.and_then(|secret| secret.data?.remove(TOKEN_KEY));
        Ok(token.and_then(|bytes| String::from_utf8(bytes.0).ok()).map(|token| token.trim().to_owned()))
    }

    /// Whether there is a class of runtimes of this name.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn has_runtime_class(&self, name: &str) -> Result<bool, ClusterError> {
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        Ok(self.ask("show the runtime class", classes.get_opt(name))?.is_some())
    }

    /// Whether there is a class of ingresses of this name.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn has_ingress_class(&self, name: &str) -> Result<bool, ClusterError> {
        let classes: Api<IngressClass> = Api::all(self.client.clone());
        Ok(self.ask("show the ingress class", classes.get_opt(name))?.is_some())
    }

    /// Whether there is a claim to data.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn has_data(&self) -> Result<bool, ClusterError> {
        let claim = self.ask("show the claim", self.api::<PersistentVolumeClaim>().get_opt(&self.names.claim()))?;
        Ok(claim.and_then(|claim| claim.spec?.volume_name).is_some())
    }

    /// The namespaces that Cairn made, by their labels.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn own_namespaces(&self) -> Result<Vec<String>, ClusterError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let ours = ListParams::default().labels(&format!("{}={PROGRAM},{NAME_LABEL}={PROGRAM}", objects::MANAGED_BY));
        let found = self.ask("show the namespaces", namespaces.list(&ours))?;
        Ok(found.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect())
    }

    /// The nodes of the namespace, by the labels of their claims and sets.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn nodes_of_namespace(&self) -> Result<BTreeSet<String>, ClusterError> {
        let ours = ListParams::default().labels(&format!("{NAME_LABEL}={PROGRAM}"));
        let claims = self.ask("show the claims", self.api::<PersistentVolumeClaim>().list(&ours))?;
        let sets = self.ask("show the StatefulSets", self.api::<StatefulSet>().list(&ours))?;
        let metadata =
            claims.items.into_iter().map(|claim| claim.metadata).chain(sets.items.into_iter().map(|set| set.metadata));
        Ok(metadata.filter_map(|metadata| metadata.labels?.remove(INSTANCE_LABEL)).collect())
    }

    /// Deletes the namespace, and with it the claim to the data and whatever else is in it. The cluster does it in its own time.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn delete_namespace(&self) -> Result<(), ClusterError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match self.runtime.block_on(namespaces.delete(&self.namespace, &DeleteParams::default())) {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            response => response.map(drop).map_err(|error| self.refused("delete the namespace", error)),
        }
    }

    /// Deletes what of the node no manifest has, apart from its claim: Secrets that others made for it, and its authority.
    fn delete_leftovers(&self) -> Result<(), ClusterError> {
        let names = &self.names;
        let (secrets, maps) = (self.api::<Secret>(), self.api::<ConfigMap>());
        let parameters = DeleteParams::default();
        let deleted = |action, result: Result<(), kube::Error>| match result {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map_err(|error| self.refused(action, error)),
        };
        for name in [names.token_secret(), names.tls_secret(), names.authority()] {
            let result = self.runtime.block_on(secrets.delete(&name, &parameters)).map(drop);
            deleted("delete a Secret of the node", result)?;
        }
        let result = self.runtime.block_on(maps.delete(&names.authority(), &parameters)).map(drop);
        deleted("delete the authority's ConfigMap", result)
    }

    /// Whether the server imports an archive that appears while it runs: since 1.32.0, 1.31.5, 1.30.9 and 1.29.13. Others do it when
    /// they start.
    #[must_use]
    pub fn imports_while_running(&self) -> bool {
        imports_while_running(&self.version)
    }

    /// The folder on this machine that holds the node's data; `None` where it is elsewhere.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn data_folder(&self) -> Result<Option<PathBuf>, ClusterError> {
        let claim = self.ask("show the claim", self.api::<PersistentVolumeClaim>().get_opt(&self.names.claim()))?;
        let Some(name) = claim.and_then(|claim| claim.spec?.volume_name) else { return Ok(None) };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = self.ask("show the volume", volumes.get_opt(&name))?;
        let spec = volume.and_then(|volume| volume.spec);
        let path = spec
            .and_then(|spec| spec.host_path.map(|source| source.path).or_else(|| spec.local.map(|source| source.path)));
        Ok(path.map(PathBuf::from).filter(|path| path.is_dir()))
    }
}

/// `1` and `33+` or `33` are at least [`VERSION_MIN`].
fn is_new_enough(major: &str, minor: &str) -> bool {
    let number = |text: &str| text.trim_end_matches(|letter: char| !letter.is_ascii_digit()).parse::<u32>().ok();
    number(major).zip(number(minor)).is_some_and(|version| version >= VERSION_MIN)
}

/// The name under which K3s stores a manifest: its file's name up to the first dot.
fn addon_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Whether a manifest is the one with the Namespace: without it the server deletes that with all that is in it.
fn has_namespace(file: &ManagedFile) -> bool {
    let is_named_so = file.path.file_name().is_some_and(|name| is_namespace_file(&name.to_string_lossy()));
    is_named_so || entries([file].into_iter()).iter().any(|entry| entry.kind == "Namespace")
}

/// Releases as pods of this machine's server.
pub struct Pods<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    patience: Duration,
    /// What the server had applied before the files of a release were put in place: checksums by the names of Addons. A file of
    /// that checksum it does not apply again.
    applied: BTreeMap<String, String>,
}

impl<'a> Pods<'a> {
    /// A runner of releases.
    ///
    /// * `patience`: how long an image and a pod may take.
    #[must_use]
    pub fn new(cluster: &'a Cluster, tree: &'a Tree, patience: Duration) -> Self {
        Self { cluster, tree, patience, applied: BTreeMap::new() }
    }

    fn manifests<'r>(&self, release: &'r Release) -> impl Iterator<Item = &'r ManagedFile> + use<'r> {
        let folder = self.cluster.node.manifests();
        release.files.iter().filter(move |file| file.path.parent() == Some(&folder))
    }

    /// The end of waiting for the server to read its manifests.
    fn passes(&self) -> watch::Deadline {
        watch::Deadline::after(self.patience.max(PASSES))
    }

    fn scale(&self, replicas: i32) -> Result<(), Cause> {
        let sets = self.cluster.api::<StatefulSet>();
        let wanted = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        match self.cluster.runtime.block_on(sets.patch_scale(
            self.cluster.names.node(),
            &PatchParams::default(),
            &wanted,
        )) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop).map_err(|error| self.cluster.refused("scale the StatefulSet", error).into()),
        }
    }

    /// Waits until the cluster holds what a manifest says.
    ///
    /// Of a file that went well last the server compares the checksum only. So one that is put back after another one was applied in
    /// part, or whose objects somebody changed, is written with a line more, and then as it is.
    fn apply(&self, file: &ManagedFile, deadline: &watch::Deadline) -> Result<(), Cause> {
        let is_known = self.applied.get(&addon_name(&file.path)) == Some(&Sha256::of(&file.bytes).to_string());
        if !is_known || self.cluster.first_unlike(&entries([file].into_iter()))?.is_none() {
            return self.applied(&file.path, &file.bytes, deadline);
        }
        let again = [&file.bytes, AGAIN].concat();
        for bytes in [&again, &file.bytes] {
            self.tree.write(&file.path, bytes, file.mode)?;
            self.applied_at_last(&file.path, bytes, deadline)?;
        }
        Ok(())
    }

    fn forget_addon(&self, manifest: &Path) -> Result<(), Cause> {
        let (addons, name) = (self.cluster.addons(), addon_name(manifest));
        match self.cluster.runtime.block_on(addons.delete(&name, &DeleteParams::default())) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            response => response.map(drop).map_err(|error| self.cluster.refused("forget a manifest", error).into()),
        }
    }
}

/// Puts the archive of a release's image where the server imports it from. Fine when it is there.
///
/// The release writes it by its own executable: another version would write another image.
///
/// # Errors
/// When it cannot be written, or is not the image that the manifests name.
pub fn bring_image(tree: &Tree, release: &Release) -> Result<(), Cause> {
    let Some(file) = &release.image else { return Err("the release has no image".into()) };
    let archive = tree.locate(&file.path)?;
    if archive.metadata().is_ok_and(|found| found.len() == file.bytes) {
        return Ok(());
    }
    let folder = file.path.parent().unwrap_or(Path::new("/"));
    tree.make_folder(folder, 0o755)?;
    // An ending that the server does not know. Its time is that of now, which the server goes by.
    let partial = file.path.with_extension("tar.partial");
    let written = tree.locate(&partial)?;
    let executable = tree.locate(release.executable(tree))?;
    let (written, root) = (written.to_string_lossy(), tree.locate("/")?);
    let root = root.to_string_lossy();
    let mut arguments = vec!["image", "build", "-o", &written];
    if let Some(drivers) = &file.gpu_drivers {
        arguments.extend(["--gpu", "--gpu-drivers", drivers, "--gpu-root", &root]);
    }
    let answer = ask(&executable, &arguments, |_| {});
    let answer = answer.map_err(|(_, cause)| cause)?;
    if answer["digest"] != file.digest.as_str() {
        tree.remove(&partial)?;
        let mut message = format!("the image of {} is {}, not {}", release.name, answer["digest"], file.digest);
        if file.gpu_drivers.is_some() {
            message += ": its libraries are the machine's, and they have changed; `cairn install` with that release rebuilds it";
        }
        return Err(message.into());
    }
    Ok(tree.rename(&partial, &file.path)?)
}

impl Runner for Pods<'_> {
    fn stage(&mut self, release: &Release) -> Result<(), Cause> {
        let folder = self.cluster.node.images();
        self.tree.make_folder(&folder, 0o755)?;
        // Without it K3s imports every archive again at each start. It is read where it exists, and made by nobody.
        if keeps_a_cache(&self.cluster.version) && !self.tree.exists(folder.join(".cache.json"))? {
            self.tree.write(folder.join(".cache.json"), b"", 0o600)?;
        }
        for file in self.manifests(release) {
            let name = addon_name(&file.path);
            let checksum = self.cluster.applied_checksum(&name)?;
            self.applied.extend(checksum.map(|checksum| (name, checksum)));
        }
        bring_image(self.tree, release)
    }

    fn prepare(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn start(&mut self, release: &Release) -> Result<(), Cause> {
        let deadline = self.passes();
        self.make_room(release, &deadline)?;
        for file in self.manifests(release) {
            self.apply(file, &deadline)?;
        }
        let set = self
            .cluster
            .ask("show the StatefulSet", self.cluster.api::<StatefulSet>().get_opt(self.cluster.names.node()))?;
        // Stopped, by a change that was interrupted or by hand.
        if set.and_then(|set| set.spec?.replicas) == Some(0) {
            self.scale(1)?;
        }
        self.rolled_out(&watch::Deadline::after(self.patience))
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        self.scale(0)?;
        self.gone(&watch::Deadline::after(self.patience))
    }

    fn retire(&mut self, release: &Release) -> Result<(), Cause> {
        let deadline = self.passes();
        for file in self.manifests(release).filter(|file| !has_namespace(file)) {
            // A file that goes deletes nothing; one that names nothing any more does.
            if self.tree.exists(&file.path)? {
                self.tree.write(&file.path, NOTHING, file.mode)?;
                self.applied_at_last(&file.path, NOTHING, &deadline)?;
            }
        }
        // Of kinds that were in no file that went well the server knows nothing.
        self.clear(release, None)?;
        self.gone(&deadline)
    }

    fn abandon(&mut self, release: &Release) -> Result<(), Cause> {
        let is_in_vain = self.cluster.was_claimed_in_vain()?;
        self.retire(release)?;
        // Bound to a node where the pod cannot run, it would prevent every later pod from running.
        if is_in_vain { self.remove_claim(&watch::Deadline::after(self.patience)) } else { Ok(()) }
    }

    fn clear(&mut self, failed: &Release, instead: Option<&Release>) -> Result<(), Cause> {
        let stays = instead.map(|release| entries(self.manifests(release))).unwrap_or_default();
        Ok(self.cluster.remove_all(&entries(self.manifests(failed)), &stays)?)
    }

    fn forget(&mut self, release: &Release) -> Result<(), Cause> {
        for file in self.manifests(release) {
            self.forget_addon(&file.path)?;
        }
        Ok(())
    }
}

/// Major, minor and patch of a version such as `v1.33.1+k3s1`; fewer where it has fewer.
fn numbers(version: &str) -> Vec<u32> {
    version.trim_start_matches('v').split(['.', '+', '-']).take(3).filter_map(|number| number.parse().ok()).collect()
}

/// See [`Cluster::imports_while_running`].
fn imports_while_running(version: &str) -> bool {
    match numbers(version)[..] {
        [1, 29, patch] => patch >= 13,
        [1, 30, patch] => patch >= 9,
        [1, 31, patch] => patch >= 5,
        [1, minor, _] => minor > 31,
        [major, ..] => major > 1,
        [] => false,
    }
}

/// Whether this K3s maintains a cache of imported archives where it finds one, and with it what protects their images. It maintains one
/// since 1.33.1, and up to 1.33.13, 1.34.9, 1.35.6 and 1.36.2 the images in it lose their pins with every restart: the kubelet may
/// then remove them from a full disk, and nothing brings them back.
fn keeps_a_cache(version: &str) -> bool {
    match numbers(version)[..] {
        [1, 33, patch] => patch > 13,
        [1, 34, patch] => patch > 9,
        [1, 35, patch] => patch > 6,
        [1, 36, patch] => patch > 2,
        [1, minor, _] => minor > 36,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_new_enough("1", "33") && is_new_enough("1", "29+") && is_new_enough("2", "0"));
        assert!(!is_new_enough("1", "28") && !is_new_enough("1", "9") && !is_new_enough("", ""));
        for version in ["v1.33.14+k3s1", "v1.34.10+k3s1", "v1.36.3+rke2r1", "v1.40.2"] {
            assert!(keeps_a_cache(version), "{version}");
        }
        for version in ["v1.30.13+k3s1", "v1.33.13+k3s1", "v1.34.3+k3s1", "v1.35.6+k3s1", "v1.36.2+k3s1", "v1.9", ""] {
            assert!(!keeps_a_cache(version), "{version}");
        }
        assert!(imports_while_running("v1.29.13+k3s1") && imports_while_running("v1.36.2+k3s1"));
        assert!(!imports_while_running("v1.31.4+k3s1") && !imports_while_running(""));
    }

    #[test]
    fn the_file_with_the_namespace_is_known_by_its_name_and_by_what_is_in_it() {
        let file = |path: &str, text: &str| ManagedFile { path: path.into(), mode: 0o600, bytes: text.into() };
        let names = ObjectNames::of("second");
        let namespace = "kind: Namespace\nmetadata:\n  name: site\n";
        for path in [ObjectNames::of(PROGRAM).namespace_file(), names.namespace_file()] {
            assert!(has_namespace(&file(&format!("/m/{path}"), "")), "{path}");
        }
        assert!(has_namespace(&file("/m/other.yaml", namespace)));
        let main = format!("/m/{}", names.main_file());
        assert!(!has_namespace(&file(&main, "kind: Service\nmetadata:\n  name: second\n")));
    }

    #[test]
    fn an_addon_is_called_as_its_file_up_to_the_first_dot() {
        assert_eq!(addon_name(Path::new("/m/cairn.v2.yaml")), "cairn");
        assert_eq!(addon_name(Path::new("/m/cairn-namespace.yaml")), "cairn-namespace");
    }
}
