//! The controllers of [`crate::kube_server`]: what applies manifests, imports images, places and runs the pod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

use crate::kube_api::{Api, Key, Objects, get_unverified, now};
use crate::kube_server::{EMPTIER, NAMESPACE, NODE_IP, POD_IP, SERVICE_IP, this_node};
use crate::node::clean;

/// User of the image.
const USER: u32 = 65532;
/// The annotation that says which manifest an object came from.
const OWNER: &str = "objectset.rio.cattle.io/owner-name";
/// The annotation of an Addon with the kinds that its last success had.
const KINDS: &str = "addon.k3s.cattle.io/gvks";

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
    /// Names of images that a full disk does not cost.
    pub pinned: BTreeSet<String>,
    /// Whether files are applied whatever their checksums.
    pub is_forced: bool,
    pub process: Option<Child>,
    /// Until when a container that ended is not started again.
    pub pause: Option<Instant>,
}

impl Controllers {
    pub fn look(&mut self) {
        self.import();
        self.deploy();
        self.end_namespaces();
        self.reclaim();
        self.balance();
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
        let mut is_well = true;
        for path in files {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let is_known = [".yaml", ".yml", ".json"].iter().any(|ending| name.to_lowercase().ends_with(ending));
            if name.starts_with('.') || !is_known {
                continue;
            }
            let Ok(changed) = fs::metadata(&path).and_then(|found| found.modified()) else { continue };
            if !self.is_forced && self.manifests.get(&path) == Some(&changed) {
                continue;
            }
            let Ok(bytes) = fs::read(&path) else { continue };
            let addon = name.split('.').next().expect("a name").to_owned();
            match self.apply(&addon, &bytes) {
                Ok(()) => {
                    self.manifests.insert(path, changed);
                }
                Err((reason, words)) => {
                    is_well = false;
                    self.tell(&addon, reason, &words);
                }
            }
        }
        // After a start everything is applied whatever its checksum, until a pass goes well.
        self.is_forced &= !is_well;
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
        {
            let mut objects = self.api.objects.lock();
            if objects.get(&key).is_none() {
                objects.put(key.clone(), json!({"metadata": {}, "spec": {"checksum": ""}}));
            }
            if !self.is_forced && objects.get(&key).expect("put")["spec"]["checksum"] == checksum.as_str() {
                return Ok(());
            }
        }
        if self.api.operators_go.swap(false, Ordering::SeqCst) {
            self.api.has_operators.store(false, Ordering::SeqCst);
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
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            let (Some(kind), Some(version), Some(name)) = (text("/kind"), text("/apiVersion"), text("/metadata/name"))
            else {
                self.problems.lock().push(format!("{addon} was seen with half an object: {object}"));
                return Err(("ParseManifestFailed", "an object without a kind or a name".to_owned()));
            };
            let namespace = text("/metadata/namespace").unwrap_or_default();
            let plural = self.api.plural_of(&kind, &version);
            wanted.push((plural.map(|plural| Key::new(plural, &namespace, &name)), object));
        }
        self.tell(addon, "ApplyingManifest", "Applying manifest");
        let mut failures: Vec<String> = Vec::new();
        let mut objects = self.api.objects.lock();
        for (key, object) in &wanted {
            let applied = match key {
                // It does not say which.
                None => Err("the server could not find the requested resource".to_owned()),
                Some(key) => apply_one(&mut objects, addon, key, object),
            };
            failures.extend(applied.err());
        }
        let known = objects.get(&key).expect("put")["metadata"]["annotations"][KINDS].clone();
        let known: Vec<&str> = known.as_str().unwrap_or_default().split(';').collect();
        let kinds: BTreeSet<&str> = wanted.iter().filter_map(|(key, _)| Some(key.as_ref()?.plural.as_str())).collect();
        let gone: Vec<Key> = objects
            .iter()
            .filter(|(key, object)| {
                object["metadata"]["annotations"][OWNER] == addon
                    && wanted.iter().all(|(wanted, _)| wanted.as_ref() != Some(*key))
                    && (kinds.contains(key.plural.as_str()) || known.contains(&key.plural.as_str()))
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
        if !failures.is_empty() {
            return Err(("ApplyManifestFailed", format!("Applying manifest failed: {}", failures.join(", "))));
        }
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(";");
        let annotations = json!({KINDS: kinds});
        objects.put(key, json!({"metadata": {"annotations": annotations}, "spec": {"checksum": checksum}}));
        drop(objects);
        self.tell(addon, "AppliedManifest", "Applied manifest");
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
                Ok(names) => {
                    self.pinned.extend(names.iter().map(|(name, _)| name.clone()));
                    self.images.extend(names);
                }
                Err(error) => {
                    self.problems.lock().push(format!("{} was seen and is no image: {error}", path.display()))
                }
            }
            self.archives.insert(path, stamp);
        }
        let rows = self.images.keys().map(|name| {
            let label = if self.pinned.contains(name) { "io.cri-containerd.pinned=pinned" } else { "-" };
            format!("{name} type digest size platforms {label}\n")
        });
        // Whoever reads it meanwhile sees the old list or the new one.
        let (partial, list) = (self.root.join("store/images.partial"), self.root.join("store/images.txt"));
        let _ = fs::write(&partial, rows.collect::<String>()).and_then(|()| fs::rename(partial, list));
        let names: Vec<Value> = self.images.keys().map(|name| json!({"names": [name], "sizeBytes": 1})).collect();
        self.api.objects.lock().change(&Key::new("nodes", "", &this_node()), |node| {
            node["status"]["images"] = names.into();
        });
    }

    /// What K3s does when it starts: it applies every file, and imports every archive unless it has a cache that says that it did.
    /// Up to 1.33.13, 1.34.9, 1.35.6 and 1.36.2 what is not imported again loses its pin.
    pub fn begin(&mut self) {
        self.is_forced = true;
        if self.root.join("k3s/agent/images/.cache.json").exists() {
            let numbers: Vec<u32> =
                self.api.version.trim_start_matches('v').split(['.', '+']).take(3).flat_map(str::parse).collect();
            let keeps = match numbers[..] {
                [1, 33, patch] => patch > 13,
                [1, 34, patch] => patch > 9,
                [1, 35, patch] => patch > 6,
                [1, 36, patch] => patch > 2,
                [1, minor, _] => minor > 36,
                _ => false,
            };
            if !keeps {
                self.pinned.clear();
            }
        } else {
            self.archives.clear();
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
            objects.remove(&key);
        }
    }

    /// Volumes whose claims are gone: the class's policy is to delete.
    fn reclaim(&self) {
        let mut objects = self.api.objects.lock();
        let volumes: Vec<Key> =
            objects.iter().map(|(key, _)| key.clone()).filter(|key| key.plural == "persistentvolumes").collect();
        for key in volumes {
            let is_of_claim = |(claim_key, claim): (&Key, &Value)| {
                claim_key.plural == "persistentvolumeclaims" && claim["spec"]["volumeName"] == key.name.as_str()
            };
            if !objects.iter().any(is_of_claim) {
                objects.remove(&key);
                let _ = fs::remove_dir_all(self.root.join("storage").join(&key.name));
            }
        }
    }

    /// What ServiceLB does: the addresses of the nodes, where the ports are free.
    fn balance(&self) {
        let mut objects = self.api.objects.lock();
        let services: Vec<Key> = objects
            .iter()
            .filter(|(key, object)| key.plural == "services" && object["spec"]["type"] == "LoadBalancer")
            .map(|(key, _)| key.clone())
            .collect();
        for key in services {
            objects.change(&key, |service| service["status"] = json!({"loadBalancer": {"ingress": [{"ip": NODE_IP}]}}));
        }
    }

    // The set and its pod.

    fn set(&self) {
        let mut objects = self.api.objects.lock();
        let names = NodeKeys::of(&objects);
        let (key, pod_key) = (names.set.clone(), names.pod.clone());
        let pod = objects.get(&pod_key).cloned();
        let Some(set) = objects.get(&key).cloned() else {
            // Collected with its owner, unless it was left without one.
            if pod.is_some_and(|pod| pod["metadata"]["ownerReferences"].is_array()) {
                objects.change(&pod_key, |pod| pod["metadata"]["deletionTimestamp"] = now().into());
            }
            return;
        };
        let owner = json!([{"kind": "StatefulSet", "name": key.name, "uid": set["metadata"]["uid"]}]);
        let mut hasher = DefaultHasher::new();
        set["spec"]["template"].to_string().hash(&mut hasher);
        let revision = format!("{}-{:x}", key.name, hasher.finish());
        let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
        let is_ready = pod.as_ref().is_some_and(|pod| pod["status"]["conditions"][0]["status"] == "True");
        let has = pod.as_ref().map(|pod| pod["metadata"]["labels"]["controller-revision-hash"].clone());
        let is_new = has.as_ref().is_some_and(|has| *has == revision.as_str());
        match &pod {
            None if wanted > 0 => {
                claim(&mut objects, names.claim, &set);
                let mut pod = set["spec"]["template"].clone();
                pod["metadata"]["labels"]["controller-revision-hash"] = revision.clone().into();
                pod["metadata"]["ownerReferences"] = owner;
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
            // One without an owner is adopted.
            Some(_) => objects.change(&pod_key, |pod| pod["metadata"]["ownerReferences"] = owner),
            None => {}
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

    /// Places the pod, the emptiest node first, and binds its claim there; why not, when no node will do.
    fn schedule(&self, objects: &mut Objects, pod: &Value) -> Result<String, String> {
        let claim_key = NodeKeys::of(objects).claim;
        let claim = objects.get(&claim_key).cloned().unwrap_or_default();
        let volume = claim["spec"]["volumeName"].as_str().map(str::to_owned);
        let place = volume.as_deref().and_then(|name| objects.get(&Key::new("persistentvolumes", "", name)));
        let place = place.map(|volume| {
            volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0]
                .clone()
        });
        let asked = &pod["spec"]["containers"][0]["resources"]["limits"];
        let devices: Vec<&String> =
            asked.as_object().into_iter().flatten().map(|(name, _)| name).filter(|name| name.contains('/')).collect();
        let fits = |node: &Value| {
            let labels = &node["metadata"]["labels"];
            let selector = pod["spec"]["nodeSelector"].as_object();
            let is_selected = selector.into_iter().flatten().all(|(name, value)| labels[name] == *value);
            let is_bound_here = place.as_ref().is_none_or(|place| *place == labels["kubernetes.io/hostname"]);
            is_selected
                && is_bound_here
                && devices.iter().all(|device| node["status"]["allocatable"][device.as_str()].is_string())
        };
        let nodes: Vec<(String, bool)> = objects
            .iter()
            .filter(|(key, _)| key.plural == "nodes")
            .map(|(key, node)| (key.name.clone(), fits(node)))
            .collect();
        let chosen = nodes.iter().filter(|(_, fits)| *fits).max_by_key(|(name, _)| name == EMPTIER);
        let Some((node, _)) = chosen else {
            return Err(format!("0/{} nodes are available: none has what the pod asks for", nodes.len()));
        };
        let known = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
        if objects.get(&Key::new("storageclasses", "", known)).is_none() {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        if volume.is_none() {
            // A folder of that node, as local-path makes it.
            let name = "pvc-1";
            let mut folder = self.root.join("storage").join(name);
            if *node == this_node() {
                fs::create_dir_all(&folder).expect("made");
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("set");
            } else {
                folder = PathBuf::from("/of/another/node").join(name);
            }
            let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
            let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}});
            let spec = json!({"hostPath": {"path": folder, "type": "DirectoryOrCreate"}, "nodeAffinity": affinity});
            objects.put(Key::new("persistentvolumes", "", name), json!({"metadata": {}, "spec": spec}));
            objects.change(&claim_key, |claim| claim["spec"]["volumeName"] = name.into());
        }
        Ok(node.clone())
    }

    /// What a kubelet does for the one pod.
    fn pod(&mut self) {
        let (key, pod) = {
            let objects = self.api.objects.lock();
            let key = NodeKeys::of(&objects).pod;
            let Some(pod) = objects.get(&key).cloned() else { return };
            (key, pod)
        };
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
        if pod["spec"]["nodeName"].is_null() {
            let mut objects = self.api.objects.lock();
            let placed = self.schedule(&mut objects, &pod);
            objects.change(&key, |pod| match placed {
                Ok(node) => pod["spec"]["nodeName"] = node.into(),
                Err(words) => {
                    pod["status"]["conditions"] = json!([
                        {"type": "Ready", "status": "False"},
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words},
                    ]);
                }
            });
            return;
        }
        let is_here = pod["spec"]["nodeName"] == this_node().as_str();
        let image = pod["spec"]["containers"][0]["image"].as_str().expect("an image").to_owned();
        let mut restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        let executable = self.images.get(&image).filter(|_| is_here).cloned();
        let waiting = match (&mut self.process, executable) {
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
        // Once it has run, it has an id.
        let has_run = waiting.is_none() || restarts > 0;
        self.api.objects.lock().change(&key, |pod| {
            pod["status"] = json!({
                "phase": if waiting.is_some() { "Pending" } else { "Running" },
                "podIP": POD_IP,
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{
                    "name": "cairn", "image": image, "imageID": image, "ready": is_ready, "restartCount": restarts, "state": state,
                    "containerID": if has_run { "containerd://1" } else { "" },
                }],
            });
        });
    }

    /// Starts the node: the program of the image, with what the objects give it.
    fn spawn(&self, executable: &Path) -> Child {
        let objects = self.api.objects.lock();
        let (settings, token) = (self.root.join("store/cairn.toml"), self.root.join("store/token"));
        let pod_key = NodeKeys::of(&objects).pod;
        let pod = objects.get(&pod_key).expect("it is being started");
        let volume = |name: &str| {
            let mut volumes = pod["spec"]["volumes"].as_array().expect("volumes").iter();
            volumes.find(|volume| volume["name"] == name).expect("a volume")
        };
        let map = volume("config")["configMap"]["name"].as_str().expect("a name");
        let map = objects.get(&Key::new("configmaps", NAMESPACE, map)).expect("applied before the set");
        fs::write(&settings, map["data"]["cairn.toml"].as_str().expect("settings")).expect("written");
        let secret = volume("token")["secret"]["secretName"].as_str().expect("a name");
        if let Some(secret) = objects.get(&Key::new("secrets", NAMESPACE, secret)) {
            let encoded = secret["data"]["token"].as_str().expect("a token");
            fs::write(&token, base64::prelude::BASE64_STANDARD.decode(encoded).expect("base64")).expect("written");
        }
        let log = File::options().create(true).append(true).open(self.root.join("pod.log")).expect("a log");
        let mut variables: Vec<(String, String)> = Vec::new();
        for variable in pod["spec"]["containers"][0]["env"].as_array().into_iter().flatten() {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.name") => pod_key.name.clone(),
                Some("metadata.namespace") => NAMESPACE.to_owned(),
                Some(other) => panic!("the stand-in does not know {other}"),
                None => variables
                    .iter()
                    .fold(variable["value"].as_str().expect("a value").to_owned(), |text, (name, value)| {
                        text.replace(&format!("$({name})"), value)
                    }),
            };
            variables.push((variable["name"].as_str().expect("a name").to_owned(), value));
        }
        clean(Command::new(executable))
            .envs(variables)
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

/// Where the objects of the one node are that runs here.
struct NodeKeys {
    set: Key,
    pod: Key,
    claim: Key,
}

impl NodeKeys {
    /// By the name of its set, or of the pod that outlived it.
    fn of(objects: &Objects) -> Self {
        let named = |plural: &str| {
            let mut keys = objects.iter().map(|(key, _)| key);
            keys.find(|key| key.plural == plural && key.namespace == NAMESPACE).map(|key| key.name.clone())
        };
        let of_pod = || named("pods").and_then(|pod| pod.strip_suffix("-0").map(str::to_owned));
        let name = named("statefulsets").or_else(of_pod).unwrap_or_else(|| "cairn".to_owned());
        Self {
            set: Key::new("statefulsets", NAMESPACE, &name),
            pod: Key::new("pods", NAMESPACE, &format!("{name}-0")),
            claim: Key::new("persistentvolumeclaims", NAMESPACE, &format!("data-{name}-0")),
        }
    }
}

/// Applies an object: what it is, with what the cluster keeps of what was there.
fn apply_one(objects: &mut Objects, addon: &str, key: &Key, object: &Value) -> Result<(), String> {
    let home = Key::new("namespaces", "", &key.namespace);
    if !key.namespace.is_empty() && objects.get(&home).is_none() {
        return Err(format!("namespaces \"{}\" not found", key.namespace));
    }
    let mut object = object.clone();
    object["metadata"]["annotations"][OWNER] = addon.into();
    if let Some(before) = objects.get(key) {
        for fixed in ["volumeClaimTemplates", "serviceName", "selector", "podManagementPolicy"] {
            if key.plural == "statefulsets" && before["spec"][fixed] != object["spec"][fixed] {
                return Err(format!("updates to statefulset spec for {fixed} are forbidden"));
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
    Ok(())
}

/// A claim out of the template, of the default class where it names none. Its volume comes with its pod.
fn claim(objects: &mut Objects, key: Key, set: &Value) {
    if objects.get(&key).is_none() {
        let mut claim = set["spec"]["volumeClaimTemplates"][0].clone();
        if claim["spec"]["storageClassName"].is_null() {
            claim["spec"]["storageClassName"] = "local-path".into();
        }
        objects.put(key, claim);
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
