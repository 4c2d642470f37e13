//! Applying a folder: a dry run of everything, then phase after phase, each until it is ready.
//!
//! Invariants: see [`super`]. The end of a phase is a deadline; what is known of its pods then is part of the result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::CutoverError;
use super::check;
use super::input::Input;
use super::mcp::{self, Gate};
use super::plan::{Plan, is_workload, template};
use super::ready::{Readiness, counts, readiness};
use super::record::{Before, Record, RecordState, Records};
use super::undo::{Undone, same, undo};
use crate::deploy::cluster::{ApiError, Apply, ObjectApi, ObjectKey, PodState};

/// Between two passes over what is not ready.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines of a pod's log that are shown.
const LOG_LINES: i64 = 10;
/// Restarts before a pod is given up: others of its phase may be late.
const RESTARTS_MAX: i32 = 5;
/// A reason for which a container waits, and which only another object ends.
const HOPELESS: [&str; 1] = ["InvalidImageName"];
/// Where objects are tried while their own namespace is not there.
const TRIAL: &str = "default";

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// Take fields that others manage.
    pub force: bool,
    /// Apply although something is open.
    pub accept_open: bool,
    /// For a phase.
    pub timeout: Duration,
    /// Workloads that are not asked whether they are MCP servers.
    pub skip_mcp: BTreeSet<String>,
}

/// What will be done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not there.
    Create,
    /// It is there, and differs.
    Change,
    /// It is a Job that cannot be changed, or that failed: it is deleted and made again.
    Replace,
    /// It is as it is to be.
    Unchanged,
}

impl Action {
    /// For people and for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Replace => "replace",
            Self::Unchanged => "unchanged",
        }
    }
}

/// A folder that the server would accept.
pub struct Cutover<'a> {
    api: &'a ObjectApi,
    input: &'a Input,
    options: &'a ApplyOptions,
    plan: Plan,
    before: Vec<Before>,
    actions: Vec<Action>,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// A phase that became ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseResult {
    /// What is in it.
    pub title: String,
    /// Object and state of what was waited for, and of its MCP server.
    pub ready: Vec<(String, String)>,
    /// Until it was ready.
    pub seconds: u64,
}

/// An object that did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Which one: `Deployment/search`.
    pub object: String,
    /// Why, in words.
    pub reason: String,
    /// What its pods and the cluster's events say.
    pub details: Vec<String>,
    /// The end of the log of one of its pods; empty where there is none.
    pub log: String,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The number of the run.
    pub revision: u64,
    /// Phases that are ready.
    pub phases: Vec<PhaseResult>,
    /// How many there are.
    pub phase_count: usize,
    /// What failed in the phase after them; nothing where all is ready.
    pub troubles: Vec<Trouble>,
    /// What was undone of that phase.
    pub undone: Vec<Undone>,
}

impl Applied {
    /// Whether all of it is ready.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.troubles.is_empty()
    }
}

/// Checks everything, and changes nothing.
///
/// # Errors
/// When something is open, or the server would not accept an object.
pub fn prepare<'a>(
    api: &'a ObjectApi,
    input: &'a Input,
    options: &'a ApplyOptions,
) -> Result<Cutover<'a>, CutoverError> {
    let mut remarks = open(api, input, options)?;
    let namespace = key_of_namespace(input);
    let is_new = api.get(&namespace)?.is_none();
    let (mut before, mut actions, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (at, object) in input.objects.iter().enumerate() {
        let live = match api.get(&object.key) {
            Ok(live) => live,
            Err(error @ ApiError::UnknownKind { .. }) => {
                refused.push(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match attempt(api, input, at, is_new, options.force) {
            Ok(result) => actions.push(match &live {
                None => Action::Create,
                Some(live) if is_failed_job(live) => Action::Replace,
                Some(live) if same(live, &result) => Action::Unchanged,
                Some(_) => Action::Change,
            }),
            Err(error) if error.is_immutable() && object.key.kind == "Job" => actions.push(Action::Replace),
            Err(error) if error.is_silence() => return Err(error.into()),
            Err(error) => refused.push(error),
        }
        before.push(Before { key: object.key.clone(), object: live });
    }
    if !refused.is_empty() {
        return Err(CutoverError::Refused(refused));
    }
    let records = Records::of(input, api);
    if !is_new {
        let runs = records.runs()?;
        if let Some(run) = runs.last().filter(|run| run.state == RecordState::Applying) {
            remarks.push(format!(
                "run {} was interrupted; `cairn migrate rollback` returns to what was before it",
                run.revision
            ));
        }
        if let Some(run) = runs.iter().rev().find(|run| run.state != RecordState::RolledBack) {
            let record = records.read(run)?;
            let is_here = |key: &ObjectKey| input.objects.iter().any(|object| object.key == *key);
            for gone in record.objects.iter().filter(|before| !is_here(&before.key)) {
                remarks.push(format!(
                    "{} was applied by run {} and is not in the folder any more; it stays: delete it when nothing needs it",
                    gone.key.label(),
                    run.revision
                ));
            }
        }
    }
    Ok(Cutover { api, input, options, plan: Plan::of(input), before, actions, remarks })
}

fn key_of_namespace(input: &Input) -> ObjectKey {
    ObjectKey {
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        namespace: String::new(),
        name: input.namespace.clone(),
    }
}

fn is_failed_job(live: &Value) -> bool {
    live["kind"] == "Job" && matches!(readiness(live), Readiness::Failed(_))
}

/// What is open: refused, or only remarked where that is accepted.
fn open(api: &ObjectApi, input: &Input, options: &ApplyOptions) -> Result<Vec<String>, CutoverError> {
    let mut words: Vec<String> = input
        .open
        .iter()
        .map(|open| format!("to decide: {} ({}): {}", open.setting, open.place, open.reason))
        .collect();
    words.extend(check::missing(input, api)?.into_iter().map(|missing| format!("missing: {missing}")));
    if words.is_empty() || options.accept_open {
        return Ok(words);
    }
    words.push("Nothing was applied. Decide these, or apply with --accept-open.".to_owned());
    Err(CutoverError::Open(words))
}

/// Has the server check an object. While its namespace is not there, it is tried under another name in one that is.
fn attempt(api: &ObjectApi, input: &Input, at: usize, is_new: bool, force: bool) -> Result<Value, ApiError> {
    let found = &input.objects[at];
    let how = Apply { force, dry_run: true };
    if !is_new || !api.is_namespaced(&found.key)? {
        return apply_object(api, input, at, how);
    }
    let name = format!("cairn-dry-run-{at}");
    let key = ObjectKey { namespace: TRIAL.to_owned(), name: name.clone(), ..found.key.clone() };
    let mut object = found.object.clone();
    object["metadata"]["namespace"] = TRIAL.into();
    object["metadata"]["name"] = name.as_str().into();
    api.apply(&key, &object, how).map_err(|error| error.renamed(&name, &found.key.name))
}

/// Applies an object. How many pods there are stays with the autoscaler where it has taken that over.
fn apply_object(api: &ObjectApi, input: &Input, at: usize, how: Apply) -> Result<Value, ApiError> {
    let found = &input.objects[at];
    let result = api.apply(&found.key, &found.object, how);
    let Err(ApiError::Conflict { fields, .. }) = &result else { return result };
    let is_scaled = input.objects.iter().any(|other| {
        let target = other.object.pointer("/spec/scaleTargetRef");
        let is_target = |target: &Value| target["kind"] == *found.key.kind && target["name"] == *found.key.name;
        other.key.kind == "HorizontalPodAutoscaler" && target.is_some_and(is_target)
    });
    if !is_scaled || fields.iter().any(|conflict| conflict.field != ".spec.replicas") {
        return result;
    }
    let mut object = found.object.clone();
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    api.apply(&found.key, &object, how)
}

impl Cutover<'_> {
    /// The steps: for each phase its title, and its objects with what will be done to them.
    #[must_use]
    pub fn steps(&self) -> Vec<(String, Vec<(String, Action)>)> {
        let of = |at: &usize| (self.input.objects[*at].key.label(), self.actions[*at]);
        self.plan.phases.iter().map(|phase| (phase.title.clone(), phase.objects.iter().map(of).collect())).collect()
    }

    /// Applies it.
    ///
    /// * `progress`: is called with lines for people.
    ///
    /// # Errors
    /// When what was there before cannot be stored. A phase that fails is not an error: see [`Applied`].
    pub fn run(&self, progress: &dyn Fn(&str)) -> Result<Applied, CutoverError> {
        let records = Records::of(self.input, self.api);
        let namespace = self.input.objects.iter().find(|object| object.key.kind == "Namespace");
        if let Some(object) = namespace {
            self.api.apply(&object.key, &object.object, self.how())?;
        }
        let revision = records.runs()?.last().map_or(1, |run| run.revision + 1);
        let order = self.plan.phases.iter().flat_map(|phase| &phase.objects);
        let objects = order.map(|at| self.before[*at].clone()).collect();
        records.write(&Record { revision, objects })?;
        let phase_count = self.plan.phases.len();
        let mut result =
            Applied { revision, phases: Vec::new(), phase_count, troubles: Vec::new(), undone: Vec::new() };
        for (number, phase) in self.plan.phases.iter().enumerate() {
            progress(&format!("phase {} of {phase_count}: {}", number + 1, phase.title));
            let begun = Instant::now();
            match self.phase(&phase.objects, progress) {
                Ok(ready) => {
                    let seconds = begun.elapsed().as_secs();
                    result.phases.push(PhaseResult { title: phase.title.clone(), ready, seconds });
                }
                Err(troubles) => {
                    result.troubles = troubles;
                    progress("the phase failed; undoing it");
                    let before: Vec<&Before> = phase.objects.iter().map(|at| &self.before[*at]).collect();
                    result.undone = undo(self.api, &before);
                    records.mark(revision, RecordState::Failed)?;
                    return Ok(result);
                }
            }
        }
        records.mark(revision, RecordState::Applied)?;
        records.prune()?;
        Ok(result)
    }

    fn how(&self) -> Apply {
        Apply { force: self.options.force, dry_run: false }
    }

    /// Applies the objects of a phase and waits for them.
    fn phase(&self, objects: &[usize], progress: &dyn Fn(&str)) -> Result<Vec<(String, String)>, Vec<Trouble>> {
        let deadline = Instant::now() + self.options.timeout;
        for at in objects {
            if let Err(error) = self.apply_one(*at, deadline) {
                return Err(vec![self.trouble(*at, error.to_string())]);
            }
        }
        let mut pending: Vec<usize> = objects.to_vec();
        let (mut ready, mut words) = (Vec::new(), BTreeMap::new());
        loop {
            let mut troubles = Vec::new();
            let mut left = Vec::new();
            for at in pending {
                match self.progress_of(at) {
                    Ok(Readiness::Ready(state)) => {
                        let label = self.input.objects[at].key.label();
                        if !state.is_empty() {
                            progress(&format!("  {label}: {state}"));
                            ready.push((label, state));
                        }
                    }
                    Ok(Readiness::Waiting(state)) => {
                        if words.insert(at, state.clone()).as_ref() != Some(&state) {
                            progress(&format!("  {}: {state}", self.input.objects[at].key.label()));
                        }
                        left.push(at);
                    }
                    Ok(Readiness::Failed(reason)) => troubles.push(self.trouble(at, reason)),
                    Err(error) if error.is_silence() => {
                        words.insert(at, error.to_string());
                        left.push(at);
                    }
                    Err(error) => troubles.push(self.trouble(at, error.to_string())),
                }
            }
            if !troubles.is_empty() {
                return Err(troubles);
            }
            if left.is_empty() {
                return Ok(ready);
            }
            if Instant::now() >= deadline {
                let seconds = self.options.timeout.as_secs();
                let late = |at: &usize| {
                    let state = words.get(at).cloned().unwrap_or_default();
                    self.trouble(*at, format!("not ready within {seconds} s (--timeout): {state}"))
                };
                return Err(left.iter().map(late).collect());
            }
            pending = left;
            std::thread::sleep(PAUSE);
        }
    }

    fn apply_one(&self, at: usize, deadline: Instant) -> Result<(), ApiError> {
        let found = &self.input.objects[at];
        if self.actions[at] == Action::Replace {
            self.api.delete(&found.key, None)?;
            while self.api.get(&found.key)?.is_some() {
                if Instant::now() >= deadline {
                    let action = format!("delete {}", found.key.label());
                    let message = "it is still there; something holds it by a finalizer".to_owned();
                    return Err(ApiError::Refused { action, code: 0, message });
                }
                std::thread::sleep(PAUSE);
            }
        }
        apply_object(self.api, self.input, at, self.how()).map(drop)
    }

    /// How far an object is, its MCP server included.
    fn progress_of(&self, at: usize) -> Result<Readiness, ApiError> {
        let found = &self.input.objects[at];
        let Some(live) = self.api.get(&found.key)? else {
            return Ok(Readiness::Failed("somebody deleted it".to_owned()));
        };
        if found.key.kind == "PersistentVolumeClaim" && self.is_bound_later(&live)? {
            return Ok(Readiness::Ready("bound with its first pod".to_owned()));
        }
        match readiness(&live) {
            Readiness::Ready(state) if self.is_gated(&found.key) => self.gated(&live, state),
            Readiness::Waiting(state) if is_workload(found) => {
                let pods = pods_of(self.api, &found.key, &live)?;
                let hopeless = pods.iter().find_map(hopeless);
                Ok(hopeless.map_or(Readiness::Waiting(state), Readiness::Failed))
            }
            other => Ok(other),
        }
    }

    fn is_gated(&self, key: &ObjectKey) -> bool {
        matches!(key.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet")
            && !self.options.skip_mcp.contains(&key.name)
    }

    fn gated(&self, live: &Value, state: String) -> Result<Readiness, ApiError> {
        let Some(key) = ObjectKey::of(live, &self.input.namespace) else { return Ok(Readiness::Ready(state)) };
        let Some(pod) = newest_ready(pods_of(self.api, &key, live)?) else {
            let has_pods = counts(live).is_some_and(|(_, ready)| ready > 0);
            let is_known = template(live).is_some_and(|template| mcp::known_by(template).is_some());
            return Ok(match has_pods && is_known {
                true => Readiness::Waiting("none of its pods is ready".to_owned()),
                false => Readiness::Ready(state),
            });
        };
        Ok(match mcp::gate(self.api, self.input, live, &pod.name) {
            Gate::Other => Readiness::Ready(state),
            Gate::Unasked(words) => Readiness::Ready(format!("{state}; not asked over MCP: {words}")),
            Gate::Answers(server) => Readiness::Ready(format!("{state}; {}", server.words())),
            Gate::Silent(words) => Readiness::Waiting(format!("{words} (--skip-mcp {} leaves this out)", key.name)),
        })
    }

    /// Whether a claim waits for a pod, by its class.
    fn is_bound_later(&self, claim: &Value) -> Result<bool, ApiError> {
        let Some(class) = claim.pointer("/spec/storageClassName").and_then(Value::as_str).filter(|it| !it.is_empty())
        else {
            return Ok(false);
        };
        if claim.pointer("/status/phase").is_some_and(|phase| phase == "Bound") {
            return Ok(false);
        }
        let key = ObjectKey {
            api_version: "storage.k8s.io/v1".to_owned(),
            kind: "StorageClass".to_owned(),
            namespace: String::new(),
            name: class.to_owned(),
        };
        let found = match self.api.get(&key) {
            // Not every account may read classes, and most of K3s wait.
            Err(ApiError::Forbidden { .. }) => return Ok(true),
            found => found?,
        };
        Ok(found.is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer"))
    }

    /// Everything that is known of why an object is not ready.
    fn trouble(&self, at: usize, reason: String) -> Trouble {
        let found = &self.input.objects[at];
        let (details, log) = evidence(self.api, &found.key);
        Trouble { object: found.key.label(), reason, details, log }
    }
}

/// What the pods and the events of an object say, and the end of a log.
pub(super) fn evidence(api: &ObjectApi, key: &ObjectKey) -> (Vec<String>, String) {
    let mut details = api.warnings(&key.namespace, &key.kind, &key.name);
    let pods = api.get(key).ok().flatten().and_then(|live| pods_of(api, key, &live).ok()).unwrap_or_default();
    let unready: Vec<&PodState> = pods.iter().filter(|pod| !pod.is_ready).collect();
    for pod in unready.iter().take(3) {
        details.push(match &pod.waiting {
            Some((reason, message, restarts)) if *restarts > 0 => {
                format!("Pod/{}: {reason} after {restarts} restarts: {message}", pod.name)
            }
            Some((reason, message, _)) => format!("Pod/{}: {reason}: {message}", pod.name),
            None => format!("Pod/{}: {}", pod.name, pod.words),
        });
        details.extend(api.warnings(&key.namespace, "Pod", &pod.name));
    }
    let log = unready.iter().map(|pod| api.last_words(&key.namespace, pod, LOG_LINES)).find(|log| !log.is_empty());
    (details, log.unwrap_or_default())
}

/// The pods of a workload that are not being deleted.
pub(super) fn pods_of(api: &ObjectApi, key: &ObjectKey, live: &Value) -> Result<Vec<PodState>, ApiError> {
    let selector = match key.kind.as_str() {
        "Job" => format!("job-name={}", key.name),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => {
            let labels = live.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
            let pair = |(key, value): (&String, &Value)| Some(format!("{key}={}", value.as_str()?));
            labels.into_iter().flatten().filter_map(pair).collect::<Vec<_>>().join(",")
        }
        _ => return Ok(Vec::new()),
    };
    if selector.is_empty() {
        return Ok(Vec::new());
    }
    let mut pods = api.pods(&key.namespace, &selector)?;
    pods.retain(|pod| !pod.is_leaving);
    Ok(pods)
}

/// The newest pod that is ready.
pub(super) fn newest_ready(pods: Vec<PodState>) -> Option<PodState> {
    pods.into_iter().filter(|pod| pod.is_ready).max_by_key(|pod| pod.created)
}

/// Why waiting for a pod makes no sense, in words.
fn hopeless(pod: &PodState) -> Option<String> {
    let (reason, message, restarts) = pod.waiting.as_ref()?;
    let is_hopeless = HOPELESS.contains(&reason.as_str()) || reason == "CrashLoopBackOff" && *restarts >= RESTARTS_MAX;
    is_hopeless.then(|| format!("{reason}: {message}"))
}
