//! The K3s or RKE2 server of this machine: a node as a pod, brought by the folders that the server watches.
//!
//! The image archive goes to `agent/images`, the manifests go to `server/manifests`; the API is asked only whether both arrived, and
//! is told to stop the pod. So an installation is complete on the disk, and a server that starts later applies it by itself.
//!
//! Invariants: the server never sees half a file (see [`Tree`]), because it deletes what a shorter file does not name any more.
//! The namespace, and with it the claim to the data, is in a file of its own that is never emptied. Waiting has a deadline.

mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Service};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use tokio::runtime::Handle;

use super::change::{Cause, Runner};
use super::host::{ClusterNode, Distribution};
use super::oci::Image;
use super::release::Release;
use super::sha256::Sha256;
use super::tree::Tree;
use crate::base::Fault;

/// Namespace of all objects.
pub const NAMESPACE: &str = "cairn";
/// Name of all objects.
pub const NAME: &str = "cairn";
/// The node's pod: the first of its set.
const POD: &str = "cairn-0";
/// The claim to the node's data.
const CLAIM: &str = "data-cairn-0";
/// The oldest Kubernetes that keeps everything that the manifests say: claims that outlive their set, pods that have a volume for
/// themselves, evictions of unready pods.
pub const VERSION_MIN: (u32, u32) = (1, 29);
/// The manifests' file that holds the namespace.
const NAMESPACE_FILE: &str = "cairn-namespace.yaml";
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
    version: String,
}

impl Cluster {
    /// Connects to the API and asks its version.
    ///
    /// * `kubeconfig`: the file, where it lies on this machine.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn connect(node: ClusterNode, kubeconfig: &Path, runtime: Handle) -> Result<Self, ClusterError> {
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
        Ok(Self { client, runtime, node, version: told.git_version })
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
        Api::namespaced(self.client.clone(), NAMESPACE)
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

    /// The certificate of the node's own authority, fetched through the API, which knows the pod.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn authority(&self) -> Result<String, ClusterError> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/services/https:{NAME}:mcp/proxy/authority.pem");
        let request = http::Request::get(path).body(Vec::new()).expect("a path of our own");
        self.ask("pass a request on to the node", self.client.request_text(request))
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

    /// Whether the node's pod is there and ready.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn is_running(&self) -> Result<bool, ClusterError> {
        let set = self.ask("show the set", self.api::<StatefulSet>().get_opt(NAME))?;
        Ok(set.and_then(|set| set.status?.ready_replicas).unwrap_or_default() > 0)
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

    fn manifests<'r>(&self, release: &'r Release) -> impl Iterator<Item = &'r super::release::ManagedFile> + use<'r> {
        let folder = self.cluster.node.manifests();
        release.files.iter().filter(move |file| file.path.parent() == Some(&folder))
    }

    fn scale_to_none(&self) -> Result<(), Cause> {
        let sets = self.cluster.api::<StatefulSet>();
        let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
        match self.cluster.runtime.block_on(sets.patch_scale(NAME, &PatchParams::default(), &none)) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop).map_err(|error| self.cluster.refused("stop the pod", error).into()),
        }
    }

    /// A pod of an older revision that never gets ready is not replaced by its set; removed, it is made anew.
    fn remove_stuck(&self) -> Result<(), Cause> {
        let set = self.cluster.ask("show the set", self.cluster.api::<StatefulSet>().get_opt(NAME))?;
        let pods = self.cluster.api::<Pod>();
        let pod = self.cluster.ask("show the pod", pods.get_opt(POD))?;
        let wanted = set.and_then(|set| set.status?.update_revision);
        let has = pod.and_then(|pod| pod.metadata.labels?.remove("controller-revision-hash"));
        if let (Some(wanted), Some(has)) = (wanted, has)
            && wanted != has
        {
            self.cluster.ask("remove the pod of the other release", pods.delete(POD, &DeleteParams::default()))?;
        }
        Ok(())
    }
}

impl Runner for Pods<'_> {
    fn stage(&mut self, release: &Release) -> Result<(), Cause> {
        let Some(file) = &release.image else { return Err("the release has no image".into()) };
        let folder = self.cluster.node.images();
        self.tree.make_folder(&folder, 0o755)?;
        // Without it K3s imports every archive again at each start. It is read where it exists, and made by nobody.
        if keeps_a_cache(&self.cluster.version) && !self.tree.exists(folder.join(".cache.json"))? {
            self.tree.write(folder.join(".cache.json"), b"", 0o600)?;
        }
        let image = Image::of(&self.tree.locate(release.executable())?)?;
        if image.digest() != file.digest {
            return Err(
                format!("the image of {} would be {}, not {}", release.name, image.digest(), file.digest).into()
            );
        }
        let place = self.tree.locate(&file.path)?;
        if place.metadata().is_ok_and(|found| found.len() == file.bytes) {
            return Ok(());
        }
        self.tree.write_with(&file.path, 0o600, |to| image.write_to(to).map_err(std::io::Error::other))?;
        Ok(())
    }

    fn prepare(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn start(&mut self, release: &Release) -> Result<(), Cause> {
        let deadline = watch::Deadline::after(self.patience);
        for file in self.manifests(release) {
            self.applied(&file.path, &file.bytes, &deadline)?;
        }
        self.rolled_out(&deadline)
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        self.scale_to_none()?;
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
            let name = addon_name(&file.path);
            match self.cluster.runtime.block_on(self.cluster.addons().delete(&name, &DeleteParams::default())) {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => {
                    result.map_err(|error| self.cluster.refused("forget a manifest", error))?;
                }
            }
        }
        Ok(())
    }
}

/// Whether this K3s keeps a cache of imported archives where it finds one: since 1.33.1, 1.32.5, 1.31.9 and 1.30.13.
fn keeps_a_cache(version: &str) -> bool {
    let numbers: Vec<u32> = version
        .trim_start_matches('v')
        .split(['.', '+', '-'])
        .take(3)
        .filter_map(|number| number.parse().ok())
        .collect();
    match numbers[..] {
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
    }

    #[test]
    fn an_addon_is_called_as_its_file_up_to_the_first_dot() {
        assert_eq!(addon_name(Path::new("/m/cairn.v2.yaml")), "cairn");
        assert_eq!(addon_name(Path::new("/m/cairn-namespace.yaml")), "cairn-namespace");
    }
}
