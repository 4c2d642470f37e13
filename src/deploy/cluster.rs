//! The K3s or RKE2 server of this machine: a node as a pod, brought by the folders that the server watches.
//!
//! The image archive goes to `agent/images`, the manifests go to `server/manifests`; the API is asked only whether both arrived, and
//! is told to stop the pod. So an installation is complete on the disk, and a server that starts later applies it by itself.
//!
//! Invariants: the server never sees half a file (see [`Tree`]), because it deletes what a shorter file does not name any more.
//! The namespace, and with it the claim to the data, is in a file of its own that is never emptied. Waiting has a deadline.

pub mod checkup;
mod node;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Secret, Service};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use tokio::runtime::Handle;

use super::change::{Cause, Runner};
use super::host::{ClusterNode, Distribution};
use super::k3s::{LOAD_BALANCER, NAME, NAMESPACE_FILE, TLS_SECRET, TOKEN_KEY, TOKEN_SECRET};
use super::node::ask;
use super::release::{ManagedFile, Release};
use super::sha256::Sha256;
use super::tree::Tree;
use crate::base::Fault;

pub use node::PodNode;

/// The node's pod: the first of its set.
pub const POD: &str = "cairn-0";
/// The claim to the node's data.
pub const CLAIM: &str = "data-cairn-0";
/// The oldest Kubernetes that keeps everything that the manifests say: claims that outlive their set, pods that have a volume for
/// themselves, evictions of unready pods.
pub const VERSION_MIN: (u32, u32) = (1, 29);
/// What a manifest says whose objects are to be removed.
const NOTHING: &[u8] = b"# Removed by `cairn uninstall`.\n";
/// How long the API may take to answer one question.
const ANSWER: Duration = Duration::from_secs(20);
/// Where K3s keeps what it knows of its manifests.
const ADDONS: &str = "kube-system";

/// Why the API was no help.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its administrator's file cannot be read.
    #[error("cannot read {path}, by which the API is reached{}", if *is_root { "" } else { "; run this as root" })]
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
        /// What was asked, as a verb.
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

/// The API of this machine's server.
pub struct Cluster {
    client: Client,
    runtime: Handle,
    node: ClusterNode,
    namespace: String,
    version: String,
}

impl Cluster {
    /// Connects to the API and asks its version.
    ///
    /// * `kubeconfig`: the file, where it lies on this machine.
    /// * `namespace`: where the node is, or will be.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn connect(
        node: ClusterNode,
        kubeconfig: &Path,
        namespace: &str,
        runtime: Handle,
    ) -> Result<Self, ClusterError> {
        let unreadable = |source| ClusterError::Kubeconfig {
            path: kubeconfig.to_owned(),
            is_root: rustix::process::geteuid().is_root(),
            source: Box::new(source),
        };
        let distribution = node.distribution;
        let told = Kubeconfig::read_from(kubeconfig).map_err(unreadable)?;
        let mut config = runtime
            .block_on(kube::Config::from_custom_kubeconfig(told, &KubeConfigOptions::default()))
            .map_err(unreadable)?;
        (config.connect_timeout, config.read_timeout) = (Some(ANSWER), Some(ANSWER));
        let unreachable = |source: Cause| ClusterError::Unreachable { distribution, unit: node.unit(), source };
        let version = runtime.block_on(async {
            let client = Client::try_from(config).map_err(|error| unreachable(error.into()))?;
            let told = tokio::time::timeout(ANSWER, client.apiserver_version());
            let told = told.await.map_err(|late| unreachable(late.into()))?;
            told.map(|told| (client, told)).map_err(|error| unreachable(error.into()))
        });
        let (client, told) = version?;
        if !is_new_enough(&told.major, &told.minor) {
            return Err(ClusterError::TooOld { distribution, found: told.git_version });
        }
        let namespace = namespace.to_owned();
        Ok(Self { client, runtime, node, namespace, version: told.git_version })
    }

    /// Version of Kubernetes, as `v1.33.1+k3s1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
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
        let service = self.ask("show the service", self.api::<Service>().get_opt(NAME))?;
        Ok(service.and_then(|service| service.spec?.cluster_ip).filter(|address| address != "None"))
    }

    /// Where the load balancer of `--with loadbalancer` answers, once it was given an address.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn balanced_address(&self) -> Result<Option<String>, ClusterError> {
        let service = self.ask("show the load balancer", self.api::<Service>().get_opt(LOAD_BALANCER))?;
        let status = service.and_then(|service| service.status?.load_balancer?.ingress);
        Ok(status.into_iter().flatten().find_map(|place| place.hostname.or(place.ip)))
    }

    /// What clients have to trust: the certificate of the node's own authority, fetched through the API, which knows the pod; where
    /// another authority issued the node's certificate, that one. `None` where the node speaks no TLS.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn authority(&self) -> Result<Option<String>, ClusterError> {
        let given = self.ask("show the certificate", self.api::<Secret>().get_opt(TLS_SECRET))?;
        let given = given.and_then(|secret| secret.data?.remove("ca.crt"));
        if let Some(pem) = given.and_then(|bytes| String::from_utf8(bytes.0).ok()) {
            return Ok(Some(pem));
        }
        let namespace = &self.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/services/https:{NAME}:mcp/proxy/authority.pem");
        let request = http::Request::get(path).body(Vec::new()).expect("a path of our own");
        match self.runtime.block_on(self.client.request_text(request)) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            told => told.map(Some).map_err(|error| self.refused("pass a request on to the node", error)),
        }
    }

    /// The token that clients use, where it is in a Secret.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn token(&self) -> Result<Option<String>, ClusterError> {
        let secret = self.ask("show the token", self.api::<Secret>().get_opt(TOKEN_SECRET))?;
        let token = secret.and_then(|secret| secret.data?.remove(TOKEN_KEY));
        Ok(token.and_then(|bytes| String::from_utf8(bytes.0).ok()).map(|token| token.trim().to_owned()))
    }

    /// Whether there is a claim to data.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn has_data(&self) -> Result<bool, ClusterError> {
        let claim = self.ask("show the claim", self.api::<PersistentVolumeClaim>().get_opt(CLAIM))?;
        Ok(claim.and_then(|claim| claim.spec?.volume_name).is_some())
    }

    /// Deletes the namespace, and with it the claim to the data and whatever else is in it. The cluster does it in its own time.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn delete_namespace(&self) -> Result<(), ClusterError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match self.runtime.block_on(namespaces.delete(&self.namespace, &DeleteParams::default())) {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            told => told.map(drop).map_err(|error| self.refused("delete the namespace", error)),
        }
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
        let claim = self.ask("show the claim", self.api::<PersistentVolumeClaim>().get_opt(CLAIM))?;
        let Some(name) = claim.and_then(|claim| claim.spec?.volume_name) else { return Ok(None) };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = self.ask("show the volume", volumes.get_opt(&name))?;
        let spec = volume.and_then(|volume| volume.spec);
        let path =
            spec.and_then(|spec| spec.host_path.map(|place| place.path).or_else(|| spec.local.map(|place| place.path)));
        Ok(path.map(PathBuf::from).filter(|path| path.is_dir()))
    }
}

/// `1` and `33+` or `33` are at least [`VERSION_MIN`].
fn is_new_enough(major: &str, minor: &str) -> bool {
    let number = |text: &str| text.trim_end_matches(|letter: char| !letter.is_ascii_digit()).parse::<u32>().ok();
    number(major).zip(number(minor)).is_some_and(|version| version >= VERSION_MIN)
}

/// The name under which K3s keeps a manifest: its file's name up to the first dot.
fn addon_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Releases as pods of this machine's server.
pub struct Pods<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    patience: Duration,
}

impl<'a> Pods<'a> {
    /// A runner of releases.
    ///
    /// * `patience`: how long manifests, an image and a pod may take.
    #[must_use]
    pub fn new(cluster: &'a Cluster, tree: &'a Tree, patience: Duration) -> Self {
        Self { cluster, tree, patience }
    }

    fn manifests<'r>(&self, release: &'r Release) -> impl Iterator<Item = &'r ManagedFile> + use<'r> {
        let folder = self.cluster.node.manifests();
        release.files.iter().filter(move |file| file.path.parent() == Some(&folder))
    }

    fn scale(&self, replicas: i32) -> Result<(), Cause> {
        let sets = self.cluster.api::<StatefulSet>();
        let wanted = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        match self.cluster.runtime.block_on(sets.patch_scale(NAME, &PatchParams::default(), &wanted)) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop).map_err(|error| self.cluster.refused("scale the set", error).into()),
        }
    }

    /// Brings back what somebody else took away since the manifests were applied: the server applies a file once.
    fn mend(&self, release: &Release, deadline: &watch::Deadline) -> Result<(), Cause> {
        let set = self.cluster.ask("show the set", self.cluster.api::<StatefulSet>().get_opt(NAME))?;
        match set.map(|set| set.spec.and_then(|spec| spec.replicas)) {
            // Stopped, by a change that was interrupted or by hand.
            Some(Some(0)) => self.scale(1),
            Some(_) => Ok(()),
            None => {
                for file in self.manifests(release) {
                    // Forgotten and written anew, a file is applied as if it had just come.
                    self.forget_addon(&file.path)?;
                    self.tree.write(&file.path, &file.bytes, file.mode)?;
                    self.applied(&file.path, &file.bytes, deadline)?;
                }
                Ok(())
            }
        }
    }

    fn forget_addon(&self, manifest: &Path) -> Result<(), Cause> {
        let (addons, name) = (self.cluster.addons(), addon_name(manifest));
        match self.cluster.runtime.block_on(addons.delete(&name, &DeleteParams::default())) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            told => told.map(drop).map_err(|error| self.cluster.refused("forget a manifest", error).into()),
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
    let place = tree.locate(&file.path)?;
    if place.metadata().is_ok_and(|found| found.len() == file.bytes) {
        return Ok(());
    }
    let folder = file.path.parent().unwrap_or(Path::new("/"));
    tree.make_folder(folder, 0o755)?;
    // An ending that the server does not know. Its time is that of now, which the server goes by.
    let partial = file.path.with_extension("tar.partial");
    let written = tree.locate(&partial)?;
    let executable = tree.locate(release.executable())?;
    let (written, root) = (written.to_string_lossy(), tree.locate("/")?);
    let root = root.to_string_lossy();
    let mut arguments = vec!["image", "build", "-o", &written];
    if let Some(drivers) = &file.gpu_drivers {
        arguments.extend(["--gpu", "--gpu-drivers", drivers, "--gpu-root", &root]);
    }
    let told = ask(&executable, &arguments, |_| {});
    let told = told.map_err(|(_, cause)| cause)?;
    if told["digest"] != file.digest.as_str() {
        tree.remove(&partial)?;
        let mut message = format!("the image of {} is {}, not {}", release.name, told["digest"], file.digest);
        if file.gpu_drivers.is_some() {
            message += ": its libraries are the machine's, and they changed since; `cairn install` with that release makes it anew";
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
        bring_image(self.tree, release)
    }

    fn prepare(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn start(&mut self, release: &Release) -> Result<(), Cause> {
        let deadline = watch::Deadline::after(self.patience);
        for file in self.manifests(release) {
            self.applied(&file.path, &file.bytes, &deadline)?;
        }
        self.mend(release, &deadline)?;
        self.rolled_out(&deadline)
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        self.scale(0)?;
        self.gone(&watch::Deadline::after(self.patience))
    }

    fn retire(&mut self, release: &Release) -> Result<(), Cause> {
        let deadline = watch::Deadline::after(self.patience);
        for file in self.manifests(release).filter(|file| !file.path.ends_with(NAMESPACE_FILE)) {
            // A file that goes deletes nothing; one that names nothing any more does.
            if self.tree.exists(&file.path)? {
                self.tree.write(&file.path, NOTHING, file.mode)?;
                self.applied(&file.path, NOTHING, &deadline)?;
            }
        }
        self.gone(&deadline)
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

/// Whether this K3s keeps a cache of imported archives where it finds one: since 1.33.1, 1.32.5, 1.31.9 and 1.30.13.
fn keeps_a_cache(version: &str) -> bool {
    match numbers(version)[..] {
        [1, 30, patch] => patch >= 13,
        [1, 31, patch] => patch >= 9,
        [1, 32, patch] => patch >= 5,
        [1, 33, patch] => patch >= 1,
        [1, minor, _] => minor > 33,
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
        for version in ["v1.30.13+k3s1", "v1.33.1+k3s1", "v1.34.0+rke2r1", "v1.40.2"] {
            assert!(keeps_a_cache(version), "{version}");
        }
        for version in ["v1.30.12+k3s1", "v1.29.15+k3s1", "v1.33.0+k3s1", "v1.9", ""] {
            assert!(!keeps_a_cache(version), "{version}");
        }
        assert!(imports_while_running("v1.29.13+k3s1") && imports_while_running("v1.36.2+k3s1"));
        assert!(!imports_while_running("v1.31.4+k3s1") && !imports_while_running(""));
    }

    #[test]
    fn an_addon_is_called_as_its_file_up_to_the_first_dot() {
        assert_eq!(addon_name(Path::new("/m/cairn.v2.yaml")), "cairn");
        assert_eq!(addon_name(Path::new("/m/cairn-namespace.yaml")), "cairn-namespace");
    }
}
