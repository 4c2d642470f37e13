//! Objects of any kind, of any cluster that a kubeconfig names: read, applied on the server's side, put back, deleted.
//!
//! [`super::Cluster`] is the server of this machine and the node in it; here is what brings objects of others to a cluster.
//! Invariants: every request ends. What is applied belongs to one field manager, and nothing is taken from another one unasked. A
//! message names the object, and never what a Secret holds.

mod error;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

pub use self::error::{ApiError, FieldConflict};
use super::{ANSWER, client, watch};
use crate::deploy::change::Cause;

/// The kubeconfig of a K3s server.
const K3S: &str = "/etc/rancher/k3s/k3s.yaml";

/// Which cluster, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The kubeconfig; `None`: those that `KUBECONFIG` names, else that of K3s on this machine, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; `None`: the current one.
    pub context: Option<String>,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Group and version: `apps/v1`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; ignored where the kind has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// That of an object; `None` where it has no kind or no name.
    ///
    /// * `namespace`: of an object that names none.
    #[must_use]
    pub fn of(object: &Value, namespace: &str) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(Self {
            api_version: text("/apiVersion")?.to_owned(),
            kind: text("/kind")?.to_owned(),
            namespace: text("/metadata/namespace").unwrap_or(namespace).to_owned(),
            name: text("/metadata/name")?.to_owned(),
        })
    }

    /// For people: `Deployment/search`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Apply {
    /// Take fields that others manage.
    pub force: bool,
    /// Have the server check it, and change nothing.
    pub dry_run: bool,
}

/// How a pod is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodState {
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_leaving: bool,
    /// How it is, in words.
    pub words: String,
    /// Reason, message and restarts of a container that waits, such as `ImagePullBackOff`.
    pub waiting: Option<(String, String, i32)>,
    /// The container whose log says why, where one failed.
    pub container: Option<String>,
    /// The newest has the greatest: seconds since 1970.
    pub created: i64,
}

/// An answer of a program in the cluster, or of what forwards to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpAnswer {
    /// HTTP's code.
    pub status: u16,
    /// Names, in lower case, and values of its headers.
    pub headers: Vec<(String, String)>,
    /// Its body, as far as it was read.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The first header of this name.
    ///
    /// * `name`: in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// A request to a program in the cluster.
#[derive(Debug, Clone)]
pub struct HttpRequest<'a> {
    /// Method.
    pub method: &'static str,
    /// Path at the API server, with the part that forwards.
    pub path: &'a str,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Until the answer was read.
    pub timeout: Duration,
    /// Most bytes of the body that are read.
    pub body_bytes: usize,
}

/// The objects of a cluster.
pub struct ObjectApi {
    client: Client,
    runtime: Handle,
    server: String,
    context: String,
    manager: &'static str,
    kinds: RefCell<HashMap<(String, String), (ApiResource, bool)>>,
}

impl ObjectApi {
    /// Connects, and asks the server's version to know that it is there.
    ///
    /// * `manager`: the field manager of what is applied.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn connect(access: &Access, manager: &'static str, runtime: Handle) -> Result<Self, ApiError> {
        let (kubeconfig, path) = kubeconfig(access)?;
        let unusable = |source: Cause| ApiError::Kubeconfig { path: path.clone(), source };
        let context = access.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
        let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
        let config = runtime
            .block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &options))
            .map_err(|error| unusable(error.into()))?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = runtime.block_on(async { client::client(&config, ANSWER) }).map_err(unusable)?;
        let this = Self { client, runtime, server, context, manager, kinds: RefCell::default() };
        let asked = async { tokio::time::timeout(ANSWER * 2, this.client.apiserver_version()).await };
        match this.runtime.block_on(asked) {
            Err(late) => Err(ApiError::Unreachable { server: this.server, source: late.into() }),
            Ok(Err(error)) => Err(this.error("show its version", "", error)),
            Ok(Ok(_)) => Ok(this),
        }
    }

    /// The address of the server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The context of the kubeconfig that is used; empty where it has none.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The field manager of what is applied.
    #[must_use]
    pub fn manager(&self) -> &'static str {
        self.manager
    }

    fn error(&self, action: &str, object: &str, error: kube::Error) -> ApiError {
        ApiError::of(action.to_owned(), object, &self.server, error)
    }

    /// The kind at the server, and whether its objects are in namespaces; `None` where the server does not know it.
    fn resource(&self, api_version: &str, kind: &str) -> Result<Option<(ApiResource, bool)>, ApiError> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(found) = self.kinds.borrow().get(&key) {
            return Ok(Some(found.clone()));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let wanted = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) = match self.runtime.block_on(pinned_kind(&self.client, &wanted)) {
            Ok(found) => found,
            Err(kube::Error::Discovery(_)) => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(self.error("show the kinds that it knows", kind, error)),
        };
        let found = (resource, capabilities.scope == Scope::Namespaced);
        self.kinds.borrow_mut().insert(key, found.clone());
        Ok(Some(found))
    }

    fn api(&self, key: &ObjectKey) -> Result<Api<DynamicObject>, ApiError> {
        let Some((resource, is_namespaced)) = self.resource(&key.api_version, &key.kind)? else {
            return Err(unknown(key));
        };
        Ok(match is_namespaced {
            true => Api::namespaced_with(self.client.clone(), &key.namespace, &resource),
            false => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// Whether objects of a kind are in namespaces.
    ///
    /// # Errors
    /// See [`ApiError`]; the server may not know the kind.
    pub fn is_namespaced(&self, key: &ObjectKey) -> Result<bool, ApiError> {
        match self.resource(&key.api_version, &key.kind)? {
            Some((_, is_namespaced)) => Ok(is_namespaced),
            None => Err(unknown(key)),
        }
    }

    /// An object as the server holds it; `None` where there is none.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn get(&self, key: &ObjectKey) -> Result<Option<Value>, ApiError> {
        let found = self.runtime.block_on(self.api(key)?.get_opt(&key.name));
        let found = found.map_err(|error| self.error(&format!("show {}", key.label()), &key.label(), error))?;
        Ok(found.map(|object| value(&object)))
    }

    /// The objects of a kind in a namespace, with these labels; nothing where the server does not know the kind.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn list(&self, api_version: &str, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>, ApiError> {
        let Some((resource, _)) = self.resource(api_version, kind)? else { return Ok(Vec::new()) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let list = self.runtime.block_on(api.list(&ListParams::default().labels(labels)));
        let list = list.map_err(|error| self.error(&format!("list the objects of kind {kind}"), kind, error))?;
        // Objects of a list do not say their kind.
        let typed = |object: DynamicObject| {
            let mut object = value(&object);
            object["apiVersion"] = api_version.into();
            object["kind"] = kind.into();
            object
        };
        Ok(list.items.into_iter().map(typed).collect())
    }

    /// Applies an object on the server's side, strictly: a field that the server does not know is an error. What the server holds then.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn apply(&self, key: &ObjectKey, object: &Value, how: Apply) -> Result<Value, ApiError> {
        let mut parameters = PatchParams::apply(self.manager).validation_strict();
        parameters.force = how.force;
        parameters.dry_run = how.dry_run;
        let applied = self.runtime.block_on(self.api(key)?.patch(&key.name, &parameters, &Patch::Apply(object)));
        applied
            .map(|object| value(&object))
            .map_err(|error| self.error(&format!("apply {}", key.label()), &key.label(), error))
    }

    /// Makes an object; whether there was none of its name.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn create(&self, key: &ObjectKey, object: &Value) -> Result<bool, ApiError> {
        let action = format!("create {}", key.label());
        let object = dynamic(object, &action)?;
        let parameters = PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() };
        match self.runtime.block_on(self.api(key)?.create(&parameters, &object)) {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.error(&action, &key.label(), error)),
        }
    }

    /// Writes an object as a whole over the one that is there.
    ///
    /// * `object`: with the `resourceVersion` of the one that is there.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn replace(&self, key: &ObjectKey, object: &Value) -> Result<(), ApiError> {
        let action = format!("restore {}", key.label());
        let object = dynamic(object, &action)?;
        let parameters = PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() };
        let replaced = self.runtime.block_on(self.api(key)?.replace(&key.name, &parameters, &object));
        replaced.map(drop).map_err(|error| self.error(&action, &key.label(), error))
    }

    /// Deletes an object, and in the background what belongs to it; whether there was one.
    ///
    /// * `uid`: only that very object.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<bool, ApiError> {
        let mut parameters = DeleteParams::background();
        parameters.preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        match self.runtime.block_on(self.api(key)?.delete(&key.name, &parameters)) {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(self.error(&format!("delete {}", key.label()), &key.label(), error)),
        }
    }

    /// The pods with these labels.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn pods(&self, namespace: &str, labels: &str) -> Result<Vec<PodState>, ApiError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let list = self.runtime.block_on(pods.list(&ListParams::default().labels(labels)));
        let list = list.map_err(|error| self.error("list the pods", "Pod", error))?;
        Ok(list.items.iter().map(pod_state).collect())
    }

    /// The end of the log of a container of a pod, that of the run before where the container has just been started again; empty
    /// where there is none.
    #[must_use]
    pub fn last_words(&self, namespace: &str, pod: &PodState, lines: i64) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let read = |previous: bool| {
            let parameters = LogParams {
                container: pod.container.clone(),
                tail_lines: Some(lines),
                limit_bytes: Some(16 << 10),
                previous,
                ..LogParams::default()
            };
            let log = async { tokio::time::timeout(ANSWER, pods.logs(&pod.name, &parameters)).await };
            self.runtime.block_on(log).ok().and_then(Result::ok).unwrap_or_default()
        };
        let log = read(false);
        let log = if log.trim().is_empty() { read(true) } else { log };
        log.trim().to_owned()
    }

    /// What the cluster warns of about an object, the newest last.
    #[must_use]
    pub fn warnings(&self, namespace: &str, kind: &str, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let about = format!("involvedObject.kind={kind},involvedObject.name={name},type=Warning");
        let Ok(list) = self.runtime.block_on(events.list(&ListParams::default().fields(&about))) else {
            return Vec::new();
        };
        let mut items = list.items;
        items.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        let text = |event: Event| {
            let (reason, message) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
            format!("{reason}: {message}")
        };
        let mut texts: Vec<String> = items.into_iter().map(text).collect();
        texts.dedup();
        texts.split_off(texts.len().saturating_sub(3))
    }

    /// Sends a request through the API server, and reads the answer until it is whole or `is_enough` of what was read.
    ///
    /// # Errors
    /// When there was no answer in time.
    pub fn send(
        &self,
        request: &HttpRequest<'_>,
        is_enough: impl Fn(&HttpAnswer) -> bool,
    ) -> Result<HttpAnswer, ApiError> {
        let action = format!("forward a request to {}", request.path);
        let refused = |message: String| ApiError::Refused { action: action.clone(), code: 0, message };
        let mut built = Request::builder().method(request.method).uri(request.path);
        for (name, value) in &request.headers {
            built = built.header(*name, value);
        }
        let built = built.body(kube::client::Body::from(request.body.clone()));
        let built = built.map_err(|error| refused(error.to_string()))?;
        let answer = async {
            let answer = self.client.send(built).await?;
            let (head, mut body) = answer.into_parts();
            let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
            let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
            let mut answer = HttpAnswer { status: head.status.as_u16(), headers, body: Vec::new() };
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data() {
                    let left = request.body_bytes.saturating_sub(answer.body.len());
                    answer.body.extend_from_slice(&data[..data.len().min(left)]);
                }
                if answer.body.len() >= request.body_bytes || is_enough(&answer) {
                    break;
                }
            }
            Ok(answer)
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(request.timeout, answer).await });
        match answer {
            Err(_) => Err(refused(format!("no answer within {} s", request.timeout.as_secs()))),
            Ok(answer) => answer.map_err(|error: kube::Error| self.error(&action, "", error)),
        }
    }
}

fn unknown(key: &ObjectKey) -> ApiError {
    let (api_version, kind) = (key.api_version.clone(), key.kind.clone());
    ApiError::UnknownKind { object: key.label(), api_version, kind }
}

fn dynamic(object: &Value, action: &str) -> Result<DynamicObject, ApiError> {
    let wrong =
        |error: serde_json::Error| ApiError::Refused { action: action.to_owned(), code: 0, message: error.to_string() };
    serde_json::from_value(object.clone()).map_err(wrong)
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("it came as JSON")
}

/// The kubeconfig, and its file where it is one.
fn kubeconfig(access: &Access) -> Result<(Kubeconfig, Option<PathBuf>), ApiError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        Kubeconfig::read_from(&path)
            .map(|config| (config, Some(path.clone())))
            .map_err(|error| ApiError::Kubeconfig { path: Some(path), source: error.into() })
    };
    if let Some(path) = &access.kubeconfig {
        return read(path);
    }
    let named = Kubeconfig::from_env().map_err(|error| ApiError::Kubeconfig { path: None, source: error.into() })?;
    if let Some(config) = named {
        return Ok((config, None));
    }
    // A user who may not read that of the server may have another one.
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let paths = [Some(PathBuf::from(K3S)), home];
    let found = paths.into_iter().flatten().find(|path| std::fs::File::open(path).is_ok());
    read(&found.ok_or(ApiError::NoKubeconfig)?)
}

fn pod_state(pod: &Pod) -> PodState {
    let status = pod.status.as_ref();
    let conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    PodState {
        name: pod.metadata.name.clone().unwrap_or_default(),
        is_ready,
        is_leaving: pod.metadata.deletion_timestamp.is_some(),
        words: watch::state(pod),
        waiting: watch::waiting(pod),
        container: watch::failed_container(pod),
        created,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_needs_kind_and_name() {
        let key = ObjectKey::of(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}), "shop");
        assert_eq!(key.map(|key| (key.label(), key.namespace)), Some(("Secret/x".to_owned(), "shop".to_owned())));
        assert_eq!(ObjectKey::of(&json!({"kind": "Secret", "metadata": {"name": "x"}}), "shop"), None);
    }
}
