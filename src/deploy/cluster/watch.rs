//! Waiting for a cluster: until a manifest was applied, a pod is ready, a pod is gone.
//!
//! What is waited for is asked for again and again: a watch that breaks off has to be started again anyway, and K3s reads its folders
//! every 15 seconds only. A failure that the cluster knows of ends the wait with its words.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};

use super::{ADDONS, Cause, Cluster, ClusterError, Pods, Sha256, addon_name};

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Reasons for which a container waits that do not go away by waiting.
const HOPELESS: [&str; 6] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "InvalidImageName",
    "RunContainerError",
    "CrashLoopBackOff",
];
/// Restarts before a pod is given up: the first may be for a claim or a secret that came late.
const RESTARTS: i32 = 3;

/// The end of a wait.
pub(super) struct Deadline {
    end: Instant,
    patience: Duration,
}

impl Deadline {
    pub(super) fn after(patience: Duration) -> Self {
        Self { end: Instant::now() + patience, patience }
    }

    /// Asks until there is an answer. A server that does not answer for a while, as while it is restarted, is asked again.
    ///
    /// * `question`: `None` while there is none.
    /// * `waiting`: for what, and what is known of it, when there was no answer in time.
    pub(super) fn wait<T>(
        &self,
        mut question: impl FnMut() -> Result<Option<T>, Cause>,
        waiting: impl FnOnce() -> String,
    ) -> Result<T, Cause> {
        loop {
            let silence = match question() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => None,
                Err(cause) if cause.downcast_ref().is_some_and(ClusterError::is_silence) => Some(cause),
                Err(cause) => return Err(cause),
            };
            if Instant::now() >= self.end {
                let seconds = self.patience.as_secs();
                return Err(silence.unwrap_or_else(|| format!("{} within {seconds} s (--timeout)", waiting()).into()));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

impl Pods<'_> {
    /// Waits until the server applied a manifest with this content, or says that it cannot.
    pub(super) fn applied(&self, path: &Path, bytes: &[u8], deadline: &Deadline) -> Result<(), Cause> {
        self.wait_applied(path, bytes, deadline, true)
    }

    /// The same in the place of a file that failed: what the server says meanwhile may be about that one still, so only the
    /// end of the wait is a failure.
    pub(super) fn applied_at_last(&self, path: &Path, bytes: &[u8], deadline: &Deadline) -> Result<(), Cause> {
        self.wait_applied(path, bytes, deadline, false)
    }

    fn wait_applied(&self, path: &Path, bytes: &[u8], deadline: &Deadline, fails_at_once: bool) -> Result<(), Cause> {
        let (name, wanted) = (addon_name(path), Sha256::of(bytes).to_string());
        let since = Instant::now();
        let known = RefCell::new(None);
        deadline.wait(
            || {
                if self.cluster.applied_checksum(&name)?.as_ref() == Some(&wanted) {
                    return Ok(Some(()));
                }
                let failure = self.cluster.failure_of(&name, since.elapsed())?;
                match failure {
                    Some(words) if fails_at_once => Err(format!("{} was not applied: {words}", path.display()).into()),
                    failure => {
                        *known.borrow_mut() = failure;
                        Ok(None)
                    }
                }
            },
            || {
                let words = known.borrow().clone().map_or_else(String::new, |words| format!(": {words};"));
                format!("{} was not applied{words}", path.display())
            },
        )
    }

    /// Waits until the pod of the newest revision is ready.
    pub(super) fn rolled_out(&self, deadline: &Deadline) -> Result<(), Cause> {
        let (sets, pods) = (self.cluster.api::<StatefulSet>(), self.cluster.api::<Pod>());
        let (set_name, pod_name) = (self.cluster.names.node(), self.cluster.names.pod());
        let known = RefCell::new(String::new());
        deadline.wait(
            || {
                let set = self.cluster.ask("show the StatefulSet", sets.get_opt(set_name))?;
                if set.as_ref().is_some_and(is_rolled_out) {
                    return Ok(Some(()));
                }
                let pod = self.cluster.ask("show the pod", pods.get_opt(&pod_name))?;
                *known.borrow_mut() = pod.as_ref().map_or_else(|| "there is no pod yet".to_owned(), state);
                let (Some(set), Some(pod)) = (set, pod) else { return Ok(None) };
                match (is_of_newest(&set, &pod), hopeless(&pod)) {
                    // The problems of a pod of another release do not matter any more.
                    (Some(false), _) => self.remove(&pod)?,
                    (Some(true), Some(words)) => {
                        return Err(format!("the pod does not start: {words}{}", self.cluster.last_words()).into());
                    }
                    _ => {}
                }
                Ok(None)
            },
            || format!("the pod was not ready; {}{}", known.borrow(), self.cluster.last_words()),
        )
    }

    /// Removes the pod of another release: its set does not replace one that never got ready. This one, and none that came after it.
    fn remove(&self, pod: &Pod) -> Result<(), Cause> {
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let name = self.cluster.names.pod();
        match self.cluster.runtime.block_on(self.cluster.api::<Pod>().delete(&name, &parameters)) {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            response => response
                .map(drop)
                .map_err(|error| self.cluster.refused("remove the pod of the other release", error).into()),
        }
    }

    /// The other nodes of the namespace.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn others(&self) -> Result<BTreeSet<String>, Cause> {
        let mut nodes = self.cluster.nodes_of_namespace()?;
        nodes.remove(self.cluster.names.node());
        Ok(nodes)
    }

    /// Deletes the namespace, and with it the claim to the data, and waits until it is gone. Where other nodes are in it, it stays, and
    /// the claim goes with what else outlives an installation.
    ///
    /// # Errors
    /// When it does not go.
    pub fn purge(&self) -> Result<(), Cause> {
        let deadline = Deadline::after(self.patience);
        if !self.others()?.is_empty() {
            self.cluster.delete_leftovers()?;
            return self.remove_claim(&deadline);
        }
        self.cluster.delete_namespace()?;
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        let name = &self.cluster.namespace;
        deadline.wait(
            || Ok(self.cluster.ask("show the namespace", namespaces.get_opt(name))?.is_none().then_some(())),
            || format!("the namespace {name} was not deleted"),
        )
    }

    /// Waits until there is no pod.
    pub(super) fn gone(&self, deadline: &Deadline) -> Result<(), Cause> {
        let (pods, name) = (self.cluster.api::<Pod>(), self.cluster.names.pod());
        deadline.wait(
            || Ok(self.cluster.ask("show the pod", pods.get_opt(&name))?.is_none().then_some(())),
            || "the pod did not stop".to_owned(),
        )
    }
}

impl ClusterError {
    /// Whether there was no answer at all, rather than a refusal.
    fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { source, .. } => match &**source {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                kube::Error::HyperError(_) | kube::Error::Service(_) => true,
                _ => false,
            },
            Self::Kubeconfig { .. } | Self::TooOld { .. } => false,
        }
    }
}

/// Whether a pod is of the newest revision of its set; `None` while the set's controller has not seen the newest.
fn is_of_newest(set: &StatefulSet, pod: &Pod) -> Option<bool> {
    let status = set.status.as_ref()?;
    if status.observed_generation < set.metadata.generation {
        return None;
    }
    let has = pod.metadata.labels.as_ref()?.get("controller-revision-hash")?;
    Some(status.update_revision.as_ref()? == has)
}

impl Cluster {
    /// The checksum of what the server applied of a manifest last; `None` before it did for the first time.
    pub(super) fn applied_checksum(&self, addon: &str) -> Result<Option<String>, ClusterError> {
        let addon = self.ask("show which manifests it applied", self.addons().get_opt(addon))?;
        let checksum = addon.and_then(|addon| Some(addon.data.get("spec")?.get("checksum")?.as_str()?.to_owned()));
        Ok(checksum.filter(|checksum| !checksum.is_empty()))
    }

    /// What the server says went wrong with a manifest, not longer ago than `since`.
    fn failure_of(&self, addon: &str, since: Duration) -> Result<Option<String>, Cause> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), ADDONS);
        let about = ListParams::default().fields(&format!("involvedObject.name={addon},involvedObject.kind=Addon"));
        let events = self.ask("show events", events.list(&about))?;
        let begun = jiff::Timestamp::now() - jiff::SignedDuration::try_from(since).unwrap_or_default();
        let mut failed = events.items.into_iter().filter(|event| {
            let reason = event.reason.as_deref().unwrap_or_default();
            let is_new = event.last_timestamp.as_ref().is_some_and(|time| time.0 >= begun);
            is_new && reason.ends_with("Failed")
        });
        Ok(failed.next_back().and_then(|event| event.message))
    }

    /// The end of the pod's log.
    fn last_words(&self) -> String {
        let lines = kube::api::LogParams { tail_lines: Some(10), ..kube::api::LogParams::default() };
        let log = self.runtime.block_on(self.api::<Pod>().logs(&self.names.pod(), &lines)).unwrap_or_default();
        if log.trim().is_empty() { String::new() } else { format!("\n{}", log.trim()) }
    }
}

/// Whether every pod of a set has the newest revision and is ready.
fn is_rolled_out(set: &StatefulSet) -> bool {
    let (Some(spec), Some(status)) = (&set.spec, &set.status) else { return false };
    let wanted = spec.replicas.unwrap_or(1);
    wanted > 0
        && status.observed_generation >= set.metadata.generation
        && status.update_revision == status.current_revision
        && status.updated_replicas.unwrap_or(status.current_replicas.unwrap_or_default()) >= wanted
        && status.ready_replicas.unwrap_or_default() >= wanted
}

pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

/// Those that run before the others, and those.
fn all_containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let first = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    first.chain(containers(pod))
}

/// How a pod is, in words.
pub(super) fn state(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "unknown".to_owned());
    let unmet = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unmet: Vec<&str> = unmet
        .filter(|condition| condition.status != "True")
        .filter_map(|condition| condition.message.as_deref())
        .collect();
    let waiting = all_containers(pod).filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let waiting: Vec<&str> =
        waiting.filter_map(|waiting| waiting.message.as_deref().or(waiting.reason.as_deref())).collect();
    let mut words = vec![format!("it is {phase}")];
    words.extend(unmet.into_iter().chain(waiting).map(str::to_owned));
    words.join("; ")
}

/// Reason, message and restarts of the first container that waits for more than those before it.
pub(super) fn waiting(pod: &Pod) -> Option<(String, String, i32)> {
    all_containers(pod).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().filter(|reason| reason != "PodInitializing")?;
        Some((reason, waiting.message.clone().unwrap_or_default(), container.restart_count))
    })
}

/// The first container that ended with an error, now or the last time.
pub(super) fn failed_container(pod: &Pod) -> Option<String> {
    let has_failed = |container: &&ContainerStatus| {
        let states = [&container.state, &container.last_state].into_iter().flatten();
        states.filter_map(|state| state.terminated.as_ref()).any(|ended| ended.exit_code != 0)
    };
    all_containers(pod).find(has_failed).map(|container| container.name.clone())
}

/// Why waiting for a pod makes no sense, in words.
fn hopeless(pod: &Pod) -> Option<String> {
    all_containers(pod).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        let is_hopeless =
            HOPELESS.contains(&reason) && (reason != "CrashLoopBackOff" || container.restart_count >= RESTARTS);
        is_hopeless.then(|| format!("{reason}: {}", waiting.message.as_deref().unwrap_or("no message")))
    })
}
