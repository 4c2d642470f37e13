//! A stand-in for the API of a K3s server: it keeps objects and answers about them as the real one does, as far as `cairn install` asks.
//!
//! What is real: the paths, discovery, `Status` objects, `resourceVersion`, `generation`, `uid` and the time of creation, merge patches
//! of a scale and of a claim, preconditions, graceful deletion, orphans, selectors of fields and labels, the proxy to a service, logs.
//! What is not: authorization, admission, defaults, watches, and every field that nobody here reads. What acts on the objects is in
//! [`crate::kube_server`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The kinds that are known: plural, kind, group and version.
const KINDS: [(&str, &str, &str); 20] = [
    ("namespaces", "Namespace", "v1"),
    ("pods", "Pod", "v1"),
    ("services", "Service", "v1"),
    ("serviceaccounts", "ServiceAccount", "v1"),
    ("configmaps", "ConfigMap", "v1"),
    ("secrets", "Secret", "v1"),
    ("events", "Event", "v1"),
    ("nodes", "Node", "v1"),
    ("persistentvolumes", "PersistentVolume", "v1"),
    ("persistentvolumeclaims", "PersistentVolumeClaim", "v1"),
    ("statefulsets", "StatefulSet", "apps/v1"),
    ("networkpolicies", "NetworkPolicy", "networking.k8s.io/v1"),
    ("ingresses", "Ingress", "networking.k8s.io/v1"),
    ("poddisruptionbudgets", "PodDisruptionBudget", "policy/v1"),
    ("storageclasses", "StorageClass", "storage.k8s.io/v1"),
    ("runtimeclasses", "RuntimeClass", "node.k8s.io/v1"),
    ("addons", "Addon", "k3s.cattle.io/v1"),
    ("ingressclasses", "IngressClass", "networking.k8s.io/v1"),
    ("jobs", "Job", "batch/v1"),
    ("cronjobs", "CronJob", "batch/v1"),
];

/// Kinds that come with operators: only where somebody brought those.
const OPERATORS: [(&str, &str, &str); 4] = [
    ("servicemonitors", "ServiceMonitor", "monitoring.coreos.com/v1"),
    ("prometheusrules", "PrometheusRule", "monitoring.coreos.com/v1"),
    ("issuers", "Issuer", "cert-manager.io/v1"),
    ("certificates", "Certificate", "cert-manager.io/v1"),
];

/// Objects of these are in no namespace.
const OF_THE_CLUSTER: [&str; 6] =
    ["namespaces", "nodes", "persistentvolumes", "storageclasses", "runtimeclasses", "ingressclasses"];

fn all_kinds() -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
    KINDS.iter().chain(&OPERATORS)
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub plural: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(plural: &str, namespace: &str, name: &str) -> Self {
        Self { plural: plural.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// All objects.
#[derive(Default)]
pub struct Objects {
    all: BTreeMap<Key, Value>,
    version: u64,
}

impl Objects {
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.all.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.all.iter()
    }

    /// Stores an object: a new `resourceVersion`, and a new `generation` when what is wanted of it changed.
    pub fn put(&mut self, key: Key, mut object: Value) {
        self.version += 1;
        let before = self.all.get(&key);
        let (kind, version) = all_kinds()
            .find(|(plural, ..)| *plural == key.plural)
            .map(|known| (known.1, known.2))
            .expect("a known kind");
        object["kind"] = kind.into();
        object["apiVersion"] = version.into();
        let generation = before.and_then(|before| before["metadata"]["generation"].as_u64()).unwrap_or(0);
        let is_wanted_otherwise = before.is_none_or(|before| before["spec"] != object["spec"]);
        let metadata = &mut object["metadata"];
        metadata["name"] = key.name.clone().into();
        if !key.namespace.is_empty() {
            metadata["namespace"] = key.namespace.clone().into();
        }
        metadata["uid"] = match before {
            Some(before) => before["metadata"]["uid"].clone(),
            None => format!("00000000-0000-4000-8000-{:012}", self.version).into(),
        };
        metadata["creationTimestamp"] = match before {
            Some(before) => before["metadata"]["creationTimestamp"].clone(),
            None => now().into(),
        };
        metadata["resourceVersion"] = self.version.to_string().into();
        metadata["generation"] = (generation + u64::from(is_wanted_otherwise)).into();
        self.all.insert(key, object);
    }

    /// Changes an object that is there.
    pub fn change(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        if let Some(mut object) = self.all.get(key).cloned() {
            change(&mut object);
            if self.all.get(key) != Some(&object) {
                self.put(key.clone(), object);
            }
        }
    }

    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        self.version += 1;
        self.all.remove(key)
    }
}

/// What the API knows and how it answers.
pub struct Api {
    pub objects: Mutex<Objects>,
    /// As `/version` tells it.
    pub version: String,
    /// Whether operators brought their kinds.
    pub has_operators: AtomicBool,
    /// Whether they take those away just before the next manifest is applied.
    pub operators_go: AtomicBool,
    /// Where the pod's listener is.
    pod: SocketAddr,
    /// Where the pod's log is.
    log: PathBuf,
}

impl Api {
    pub fn new(version: &str, pod: SocketAddr, log: PathBuf) -> Arc<Self> {
        let (objects, has_operators, operators_go) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { objects, version: version.to_owned(), has_operators, operators_go, pod, log })
    }

    fn kinds(&self) -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
        let has_operators = self.has_operators.load(Ordering::SeqCst);
        KINDS.iter().chain(OPERATORS.iter().filter(move |_| has_operators))
    }

    /// The plural of a kind, where it is known.
    pub fn plural_of(&self, kind: &str, version: &str) -> Option<&'static str> {
        self.kinds().find(|known| known.1 == kind && known.2 == version).map(|known| known.0)
    }

    /// What there is of a group and version.
    fn discover(&self, version: &str) -> Response<Full<Bytes>> {
        let resources: Vec<Value> = self
            .kinds()
            .filter(|known| known.2 == version)
            .map(|(plural, kind, _)| {
                let is_namespaced = !OF_THE_CLUSTER.contains(plural);
                json!({"name": plural, "singularName": "", "kind": kind, "namespaced": is_namespaced, "verbs": ["get", "list", "delete"]})
            })
            .collect();
        if resources.is_empty() {
            return status(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource");
        }
        json_answer(
            StatusCode::OK,
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
        )
    }

    /// Answers at an address until the runtime ends.
    pub fn serve(self: &Arc<Self>, address: SocketAddr) -> Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("made");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a free port");
        let (api, handle) = (Arc::clone(self), runtime.handle().clone());
        runtime.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let api = Arc::clone(&api);
                handle.spawn(async move {
                    let answer = hyper::service::service_fn(move |request| {
                        let api = Arc::clone(&api);
                        async move { Ok::<_, Infallible>(api.answer(request).await) }
                    });
                    // An installer that is killed breaks its connections off.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        runtime
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        if path == "/version" {
            return json_answer(StatusCode::OK, &self.version());
        }
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        if let (&Method::GET, ["api", "v1"] | ["apis", _, _]) = (&parts.method, &words[..]) {
            return self.discover(words[1..].join("/").as_str());
        }
        let words = match words[..] {
            ["api", "v1", ..] => &words[2..],
            ["apis", _, _, ..] => &words[3..],
            _ => return status(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource"),
        };
        let (namespace, words) = match words {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let query = parts.uri.query().unwrap_or_default();
        match (&parts.method, words) {
            (&Method::GET, [plural]) => self.list(plural, namespace, query),
            (&Method::GET, ["pods", _, "log"]) => self.log(query),
            (&Method::GET, ["services", _, "proxy", rest @ ..]) => self.proxy(rest.join("/")).await,
            (&Method::GET, [plural, name]) => self.get(&Key::new(plural, namespace, name)),
            (&Method::PATCH, [plural, name, "scale"]) => self.scale(&Key::new(plural, namespace, name), &body),
            (&Method::PATCH, ["configmaps", name]) => {
                let key = Key::new("configmaps", namespace, name);
                self.objects.lock().put(key.clone(), body);
                self.get(&key)
            }
            (&Method::PATCH, ["persistentvolumeclaims", name]) => self.grow(namespace, name, &body),
            (&Method::DELETE, [plural, name]) => self.delete(&Key::new(plural, namespace, name), &body),
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "the stand-in does not do this"),
        }
    }

    fn version(&self) -> Value {
        let mut numbers = self.version.trim_start_matches('v').split('.');
        json!({
            "major": numbers.next(), "minor": numbers.next(), "gitVersion": self.version, "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64",
        })
    }

    fn get(&self, key: &Key) -> Response<Full<Bytes>> {
        self.objects.lock().get(key).map_or_else(|| absent(key), |object| json_answer(StatusCode::OK, object))
    }

    fn list(&self, plural: &str, namespace: &str, query: &str) -> Response<Full<Bytes>> {
        let Some((_, kind, version)) = self.kinds().find(|(known, ..)| *known == plural) else {
            return status(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource");
        };
        let selector = |name: &str| {
            let given = query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default();
            given.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/")
        };
        let pairs = |selector: &str| -> Vec<(String, String)> {
            let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.trim_start_matches('=').to_owned())).collect()
        };
        let wanted: Vec<(String, String)> = pairs(&selector("fieldSelector="))
            .into_iter()
            .map(|(field, value)| (format!("/{}", field.replace('.', "/")), value))
            .collect();
        let labels = pairs(&selector("labelSelector="));
        let objects = self.objects.lock();
        let items: Vec<&Value> = objects
            .iter()
            .filter(|(key, _)| key.plural == plural && (namespace.is_empty() || key.namespace == namespace))
            .map(|(_, object)| object)
            .filter(|object| {
                wanted.iter().all(|(field, value)| object.pointer(field).is_some_and(|found| *found == value.as_str()))
                    && labels.iter().all(|(name, value)| object["metadata"]["labels"][name] == value.as_str())
            })
            .collect();
        let metadata = json!({"resourceVersion": objects.version.to_string()});
        json_answer(
            StatusCode::OK,
            &json!({"kind": format!("{kind}List"), "apiVersion": version, "metadata": metadata, "items": items}),
        )
    }

    fn scale(&self, key: &Key, patch: &Value) -> Response<Full<Bytes>> {
        let mut objects = self.objects.lock();
        if objects.get(key).is_none() {
            return absent(key);
        }
        objects.change(key, |object| object["spec"]["replicas"] = patch["spec"]["replicas"].clone());
        let metadata = json!({"name": key.name, "namespace": key.namespace});
        let spec = json!({"replicas": patch["spec"]["replicas"]});
        let status = json!({"replicas": 0});
        json_answer(
            StatusCode::OK,
            &json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}),
        )
    }

    /// A larger request of a claim, where its class lets it grow.
    fn grow(&self, namespace: &str, name: &str, patch: &Value) -> Response<Full<Bytes>> {
        let key = Key::new("persistentvolumeclaims", namespace, name);
        let mut objects = self.objects.lock();
        let Some(claim) = objects.get(&key) else { return absent(&key) };
        let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
        if objects.get(&Key::new("storageclasses", "", class)).is_none_or(|class| class["allowVolumeExpansion"] != true)
        {
            let words = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
            return status(StatusCode::FORBIDDEN, "Forbidden", words);
        }
        let storage = patch["spec"]["resources"]["requests"]["storage"].clone();
        objects.change(&key, |claim| claim["spec"]["resources"]["requests"]["storage"] = storage);
        json_answer(StatusCode::OK, objects.get(&key).expect("still there"))
    }

    fn delete(&self, key: &Key, options: &Value) -> Response<Full<Bytes>> {
        let mut objects = self.objects.lock();
        let Some(object) = objects.get(key).cloned() else { return absent(key) };
        let precondition = &options["preconditions"]["uid"];
        if precondition.is_string() && *precondition != object["metadata"]["uid"] {
            return status(StatusCode::CONFLICT, "Conflict", "the UID in the precondition does not match");
        }
        // Both go in their own time: a pod has its grace, a namespace its content.
        if matches!(key.plural.as_str(), "pods" | "namespaces") {
            objects.change(key, |object| {
                if object["metadata"]["deletionTimestamp"].is_null() {
                    object["metadata"]["deletionTimestamp"] = now().into();
                }
            });
            return json_answer(StatusCode::OK, objects.get(key).expect("still there"));
        }
        objects.remove(key);
        if options["propagationPolicy"] == "Orphan" {
            let left: Vec<Key> = objects.iter().map(|(key, _)| key.clone()).collect();
            for other in left {
                objects.change(&other, |left| {
                    if left["metadata"]["ownerReferences"][0]["uid"] == object["metadata"]["uid"] {
                        left["metadata"].as_object_mut().expect("an object").remove("ownerReferences");
                    }
                });
            }
        }
        json_answer(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }

    fn log(&self, query: &str) -> Response<Full<Bytes>> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail =
            query.split('&').find_map(|pair| pair.strip_prefix("tailLines=")?.parse().ok()).unwrap_or(usize::MAX);
        let lines: Vec<&str> = text.lines().collect();
        let lines = lines[lines.len().saturating_sub(tail)..].join("\n");
        Response::new(Full::new(Bytes::from(lines)))
    }

    /// A request to the pod, whose certificate the API does not look at.
    async fn proxy(&self, path: String) -> Response<Full<Bytes>> {
        let url = format!("https://{}/{path}", self.pod);
        let told = tokio::task::spawn_blocking(move || get_unverified(&url)).await.expect("no panic");
        match told {
            Some((status, text)) => {
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response
            }
            None => status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "no endpoints available for service"),
        }
    }
}

/// Asks without looking at the certificate, as kubelets and the API do; `None` when nobody answers.
pub fn get_unverified(url: &str) -> Option<(u16, String)> {
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).max_idle_connections(0);
    let seconds = std::time::Duration::from_secs(5);
    let agent = config.tls_config(tls).timeout_global(Some(seconds)).build().new_agent();
    let mut response = agent.get(url).call().ok()?;
    let text = response.body_mut().read_to_string().ok()?;
    Some((response.status().as_u16(), text))
}

/// Now, as the API writes times: in whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn absent(key: &Key) -> Response<Full<Bytes>> {
    status(StatusCode::NOT_FOUND, "NotFound", &format!("{} \"{}\" not found", key.plural, key.name))
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Full<Bytes>> {
    let told = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "code": code.as_u16(),
    });
    json_answer(code, &told)
}
