//! The controllers of [`crate::kube_server`]: what applies manifests, imports images and runs the pod.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kube_api::{Api, Key, Objects, get_unverified, now, plural_of};
use crate::kube_server::{NAMESPACE, POD_IP, SERVICE_IP};
use crate::node::clean;

/// User of the image.
const USER: u32 = 65532;
/// The annotation that says which manifest an object came from.
const OWNER: &str = "objectset.rio.cattle.io/owner-name";

pub struct Controllers {
    pub api: Arc<Api>,
    pub root: PathBuf,
    pub problems: Arc<Mutex<Vec<String>>>,
    /// Files by the time they were changed when they were applied.
    pub manifests: HashMap<PathBuf, SystemTime>,
    pub archives: HashMap<PathBuf, (u64, SystemTime)>,
    /// Executables by every name of their images.
    pub images: BTreeMap<String, PathBuf>,
    /// Whether archives are imported, as they are while containerd works.
    pub imports: Arc<AtomicBool>,
    pub process: Option<Child>,
    /// Until when a container that ended is not started again.
    pub pause: Option<Instant>,
}

impl Controllers {
    pub fn look(&mut self) {
        self.import();
        self.deploy();
        self.end_namespaces();
        self.set();
        self.pod();
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    // The manifests.

    fn deploy(&mut self) {
        let Ok(entries) = fs::read_dir(self.root.join("k3s/server/manifests")) else { return };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for path in files {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let is_known = [".yaml", ".yml", ".json"].iter().any(|ending| name.to_lowercase().ends_with(ending));
            if name.starts_with('.') || !is_known {
                continue;
            }
            let Ok(changed) = fs::metadata(&path).and_then(|found| found.modified()) else { continue };
            if self.manifests.get(&path) == Some(&changed) {
                continue;
            }
            let Ok(bytes) = fs::read(&path) else { continue };
            let addon = name.split('.').next().expect("a name").to_owned();
            match self.apply(&addon, &bytes) {
                Ok(()) => {
                    self.manifests.insert(path, changed);
                }
                Err((reason, words)) => self.tell(&addon, reason, &words),
            }
        }
    }

    fn tell(&self, addon: &str, reason: &str, words: &str) {
        let about = json!({"kind": "Addon", "namespace": "kube-system", "name": addon});
        let event = json!({"metadata": {}, "reason": reason, "message": words, "lastTimestamp": now(), "involvedObject": about});
        let name = format!("{addon}.{reason}");
        self.api.objects.lock().put(Key::new("events", "kube-system", &name), event);
    }

    fn apply(&self, addon: &str, bytes: &[u8]) -> Result<(), (&'static str, String)> {
        let key = Key::new("addons", "kube-system", addon);
        let checksum = sha256(bytes);
        let mut objects = self.api.objects.lock();
        if objects.get(&key).is_some_and(|known| known["spec"]["checksum"] == checksum.as_str()) {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for document in serde_yaml::Deserializer::from_slice(bytes) {
            let object = <Value as serde::Deserialize>::deserialize(document).map_err(|error| {
                self.problems.lock().push(format!("{addon} was seen and is no YAML: {error}"));
                ("ParseManifestFailed", error.to_string())
            })?;
            if object.is_null() {
                continue;
            }
            let (Some(kind), Some(name)) = (object["kind"].as_str(), object["metadata"]["name"].as_str()) else {
                self.problems.lock().push(format!("{addon} was seen with half an object: {object}"));
                return Err(("ParseManifestFailed", "an object without a kind or a name".to_owned()));
            };
            let Some(plural) = plural_of(kind) else {
                return Err(("ApplyManifestFailed", format!("no matches for kind \"{kind}\"")));
            };
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            wanted.push((Key::new(plural, namespace, name), object));
        }
        for (key, object) in &wanted {
            let home = Key::new("namespaces", "", &key.namespace);
            if !key.namespace.is_empty() && objects.get(&home).is_none() {
                return Err(("ApplyManifestFailed", format!("namespaces \"{}\" not found", key.namespace)));
            }
            let mut object = object.clone();
            object["metadata"]["annotations"][OWNER] = addon.into();
            if let Some(before) = objects.get(key) {
                for fixed in ["volumeClaimTemplates", "serviceName", "selector", "podManagementPolicy"] {
                    if key.plural == "statefulsets" && before["spec"][fixed] != object["spec"][fixed] {
                        return Err((
                            "ApplyManifestFailed",
                            format!("updates to statefulset spec for {fixed} are forbidden"),
                        ));
                    }
                }
                for kept in ["/status", "/spec/clusterIP"] {
                    if let Some(value) = before.pointer(kept).cloned() {
                        let (parent, name) = kept.rsplit_once('/').expect("a path");
                        object.pointer_mut(parent).expect("the same kind")[name] = value;
                    }
                }
            } else if key.plural == "services" && object["spec"]["clusterIP"].is_null() {
                object["spec"]["clusterIP"] = SERVICE_IP.into();
            }
            objects.put(key.clone(), object);
        }
        let gone: Vec<Key> = objects
            .iter()
            .filter(|(key, object)| {
                object["metadata"]["annotations"][OWNER] == addon && wanted.iter().all(|(wanted, _)| wanted != *key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if key.plural == "namespaces" {
                objects.change(&key, |object| object["metadata"]["deletionTimestamp"] = now().into());
            } else {
                objects.remove(&key);
            }
        }
        objects.put(key, json!({"metadata": {}, "spec": {"checksum": checksum}}));
        Ok(())
    }

    // The images.

    fn import(&mut self) {
        let Ok(entries) = fs::read_dir(self.root.join("k3s/agent/images")) else { return };
        if !self.imports.load(Ordering::SeqCst) {
            return;
        }
        for path in
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "tar"))
        {
            let Ok(found) = fs::metadata(&path) else { continue };
            let stamp = (found.len(), found.modified().expect("a time"));
            if self.archives.get(&path) == Some(&stamp) {
                continue;
            }
            match unpack(&path, &self.root.join("store")) {
                Ok(names) => self.images.extend(names),
                Err(error) => {
                    self.problems.lock().push(format!("{} was seen and is no image: {error}", path.display()))
                }
            }
            self.archives.insert(path, stamp);
        }
    }

    // Namespaces that go.

    fn end_namespaces(&mut self) {
        let mut objects = self.api.objects.lock();
        let key = Key::new("namespaces", "", NAMESPACE);
        if objects.get(&key).is_none_or(|object| object["metadata"]["deletionTimestamp"].is_null()) {
            return;
        }
        let inside: Vec<Key> =
            objects.iter().map(|(key, _)| key.clone()).filter(|key| key.namespace == NAMESPACE).collect();
        if inside.is_empty() {
            objects.remove(&key);
            return;
        }
        for key in inside {
            if key.plural == "pods" {
                objects.change(&key, |pod| pod["metadata"]["deletionTimestamp"] = now().into());
                continue;
            }
            if key.plural == "persistentvolumeclaims" {
                // The class's policy is to delete.
                let volume =
                    objects.get(&key).expect("listed")["spec"]["volumeName"].as_str().expect("bound").to_owned();
                objects.remove(&Key::new("persistentvolumes", "", &volume));
                let _ = fs::remove_dir_all(self.root.join("storage").join(volume));
            }
            objects.remove(&key);
        }
    }

    // The set and its pod.

    fn set(&self) {
        let mut objects = self.api.objects.lock();
        let (key, pod_key) = (Key::new("statefulsets", NAMESPACE, "cairn"), Key::new("pods", NAMESPACE, "cairn-0"));
        let pod = objects.get(&pod_key).cloned();
        let Some(set) = objects.get(&key).cloned() else {
            // Collected with its owner.
            if pod.is_some() {
                objects.change(&pod_key, |pod| pod["metadata"]["deletionTimestamp"] = now().into());
            }
            return;
        };
        let mut hasher = DefaultHasher::new();
        set["spec"]["template"].to_string().hash(&mut hasher);
        let revision = format!("cairn-{:x}", hasher.finish());
        let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
        let is_ready = pod.as_ref().is_some_and(|pod| pod["status"]["conditions"][0]["status"] == "True");
        let has = pod.as_ref().map(|pod| pod["metadata"]["labels"]["controller-revision-hash"].clone());
        let is_new = has.as_ref().is_some_and(|has| *has == revision.as_str());
        match &pod {
            None if wanted > 0 => {
                self.claim(&mut objects, &set);
                let mut pod = set["spec"]["template"].clone();
                pod["metadata"]["labels"]["controller-revision-hash"] = revision.clone().into();
                pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]});
                objects.put(pod_key, pod);
            }
            // One that is not ready is left alone: whoever waits for it has to see to that.
            Some(_) if wanted == 0 || (!is_new && is_ready) => {
                objects.change(&pod_key, |pod| {
                    if pod["metadata"]["deletionTimestamp"].is_null() {
                        pod["metadata"]["deletionTimestamp"] = now().into();
                    }
                });
            }
            _ => {}
        }
        let is_done = is_new && is_ready;
        objects.change(&key, |set| {
            let generation = set["metadata"]["generation"].clone();
            let before = set["status"]["currentRevision"].clone();
            let current = if is_done || before.is_null() { revision.clone().into() } else { before };
            set["status"] = json!({
                "observedGeneration": generation, "replicas": i32::from(has.is_some()), "readyReplicas": i32::from(is_ready),
                "updatedReplicas": i32::from(is_new), "currentRevision": current, "updateRevision": revision,
            });
        });
    }

    /// A claim out of the template, and its volume: a folder of this machine, as local-path makes it.
    fn claim(&self, objects: &mut Objects, set: &Value) {
        let key = Key::new("persistentvolumeclaims", NAMESPACE, "data-cairn-0");
        if objects.get(&key).is_some() {
            return;
        }
        let volume = "pvc-1";
        let folder = self.root.join("storage").join(volume);
        fs::create_dir_all(&folder).expect("made");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("set");
        let mut claim = set["spec"]["volumeClaimTemplates"][0].clone();
        claim["spec"]["volumeName"] = volume.into();
        claim["spec"]["storageClassName"] = "local-path".into();
        objects.put(key, claim);
        objects.put(
            Key::new("persistentvolumes", "", volume),
            json!({"metadata": {}, "spec": {"hostPath": {"path": folder, "type": "DirectoryOrCreate"}}}),
        );
        let class = json!({"metadata": {}, "provisioner": "rancher.io/local-path", "reclaimPolicy": "Delete"});
        objects.put(Key::new("storageclasses", "", "local-path"), class);
    }

    /// What a kubelet does for the one pod.
    fn pod(&mut self) {
        let key = Key::new("pods", NAMESPACE, "cairn-0");
        let Some(pod) = self.api.objects.lock().get(&key).cloned() else { return };
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if let Some(mut process) = self.process.take() {
                // It may have ended by itself.
                let _ = kill_process(Pid::from_child(&process), Signal::TERM);
                process.wait().expect("it can be waited for");
            }
            self.pause = None;
            self.api.objects.lock().remove(&key);
            return;
        }
        let image = pod["spec"]["containers"][0]["image"].as_str().expect("an image").to_owned();
        let mut restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        let waiting = match (&mut self.process, self.images.get(&image).cloned()) {
            (None, _) if self.pause.is_some_and(|end| Instant::now() < end) => {
                let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str();
                Some(("CrashLoopBackOff", message.unwrap_or_default().to_owned()))
            }
            (None, None) => Some(("ImagePullBackOff", format!("Back-off pulling image \"{image}\""))),
            (None, Some(executable)) => {
                self.process = Some(self.spawn(&executable));
                None
            }
            (Some(process), _) => match process.try_wait().expect("it can be waited for") {
                None => None,
                Some(status) => {
                    self.process = None;
                    restarts += 1;
                    self.pause = Some(Instant::now() + Duration::from_secs(restarts.min(5)));
                    Some(("CrashLoopBackOff", format!("back-off restarting failed container: {status}")))
                }
            },
        };
        let is_ready = waiting.is_none()
            && get_unverified(&format!("https://{POD_IP}:9464/ready")).is_some_and(|(status, _)| status == 200);
        let state = match &waiting {
            Some((reason, message)) => json!({"waiting": {"reason": reason, "message": message}}),
            None => json!({"running": {"startedAt": now()}}),
        };
        let ready = if is_ready { "True" } else { "False" };
        self.api.objects.lock().change(&key, |pod| {
            pod["status"] = json!({
                "phase": if waiting.is_some() { "Pending" } else { "Running" },
                "podIP": POD_IP,
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{
                    "name": "cairn", "image": image, "imageID": image, "ready": is_ready, "restartCount": restarts, "state": state,
                }],
            });
        });
    }

    /// Starts the node: the program of the image, with what the objects give it.
    fn spawn(&self, executable: &Path) -> Child {
        let objects = self.api.objects.lock();
        let (settings, token) = (self.root.join("store/cairn.toml"), self.root.join("store/token"));
        let map = objects.get(&Key::new("configmaps", NAMESPACE, "cairn")).expect("applied before the set");
        fs::write(&settings, map["data"]["cairn.toml"].as_str().expect("settings")).expect("written");
        if let Some(secret) = objects.get(&Key::new("secrets", NAMESPACE, "cairn-token")) {
            let encoded = secret["data"]["token"].as_str().expect("a token");
            fs::write(&token, base64::prelude::BASE64_STANDARD.decode(encoded).expect("base64")).expect("written");
        }
        let log = File::options().create(true).append(true).open(self.root.join("pod.log")).expect("a log");
        clean(Command::new(executable))
            .args(["serve", "--listen", &format!("{POD_IP}:7171"), "--admin", &format!("{POD_IP}:9464")])
            .env("CAIRN_CONFIG", &settings)
            .env("CAIRN_SERVER_TOKEN_FILE", &token)
            .env("CAIRN_DATA_DIR", self.root.join("storage/pvc-1"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .gid(USER)
            .uid(USER)
            .spawn()
            .expect("the executable starts")
    }
}

fn sha256(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Unpacks the executable of an image; by every name that the image has.
fn unpack(path: &Path, store: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut blobs: HashMap<String, Vec<u8>> = HashMap::new();
    for entry in tar::Archive::new(File::open(path)?).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        blobs.insert(name, bytes);
    }
    let json = |name: &str| -> io::Result<Value> {
        let bytes = blobs.get(name).ok_or_else(|| io::Error::other(format!("no {name}")))?;
        Ok(serde_json::from_slice(bytes)?)
    };
    let blob =
        |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"));
    let mut names = Vec::new();
    for descriptor in json("index.json")?["manifests"].as_array().expect("a list") {
        let manifest = json(&blob(descriptor))?;
        let layer = &blobs[&blob(&manifest["layers"][0])];
        let executable = store.join(descriptor["digest"].as_str().expect("a digest").replace(':', "-"));
        for entry in tar::Archive::new(&layer[..]).entries()? {
            let mut entry = entry?;
            if entry.path()?.as_ref() == Path::new("cairn") && !executable.exists() {
                entry.unpack(&executable)?;
            }
        }
        let name = descriptor["annotations"]["io.containerd.image.name"].as_str().expect("a name");
        names.push((name.to_owned(), executable));
    }
    Ok(names)
}
