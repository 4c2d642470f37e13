//! Whether an object does what it is there for, by its status.
//!
//! The rules are those of `kubectl rollout status` and of the API's conditions: a status counts once its controller has seen the newest
//! generation.

use serde_json::Value;

/// How far an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It is ready; in words.
    Ready(String),
    /// It is not ready yet.
    Waiting(String),
    /// It will not become ready.
    Failed(String),
}

/// Judges an object by its status.
pub(super) fn readiness(object: &Value) -> Readiness {
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" if !is_observed(object) => {
            Readiness::Waiting("its controller has not seen it yet".to_owned())
        }
        "Deployment" => deployment(object),
        "StatefulSet" => stateful_set(object),
        "DaemonSet" => daemon_set(object),
        "Job" => job(object),
        "PersistentVolumeClaim" => claim(object),
        "Pod" => pod(object),
        "Namespace" if object.pointer("/status/phase").is_some_and(|phase| phase == "Terminating") => {
            Readiness::Failed("it is being deleted; wait until it is gone".to_owned())
        }
        _ => Readiness::Ready(String::new()),
    }
}

/// How many pods are asked for and how many are ready; `None` where that means nothing.
pub(super) fn counts(object: &Value) -> Option<(u64, u64)> {
    let status = |name: &str| number(object, &format!("/status/{name}")).unwrap_or(0);
    match object["kind"].as_str()? {
        "Deployment" | "StatefulSet" | "ReplicaSet" => Some((replicas(object), status("readyReplicas"))),
        "DaemonSet" => Some((status("desiredNumberScheduled"), status("numberReady"))),
        "Job" => Some((number(object, "/spec/completions").unwrap_or(1), status("succeeded"))),
        _ => None,
    }
}

fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

fn replicas(object: &Value) -> u64 {
    number(object, "/spec/replicas").unwrap_or(1)
}

fn is_observed(object: &Value) -> bool {
    let generation = number(object, "/metadata/generation").unwrap_or(0);
    number(object, "/status/observedGeneration").unwrap_or(0) >= generation
}

/// The reason and message of a condition that has this status.
fn condition(object: &Value, kind: &str, status: &str) -> Option<(String, String)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|one| one["type"] == kind && one["status"] == status)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((text("reason"), text("message")))
}

fn deployment(object: &Value) -> Readiness {
    let status = |name: &str| number(object, &format!("/status/{name}")).unwrap_or(0);
    let wanted = replicas(object);
    if let Some((reason, message)) = condition(object, "Progressing", "False")
        && reason == "ProgressDeadlineExceeded"
    {
        return Readiness::Failed(format!("{reason}: {message}"));
    }
    let refused = condition(object, "ReplicaFailure", "True").map(|(reason, message)| format!("{reason}: {message}"));
    let (updated, available) = (status("updatedReplicas"), status("availableReplicas"));
    if updated < wanted {
        let words = format!("{updated} of {wanted} pods are of the new version");
        return Readiness::Waiting(refused.map_or(words.clone(), |refused| format!("{words}; {refused}")));
    }
    if status("replicas") > updated {
        return Readiness::Waiting(format!("{} pods of the version before are left", status("replicas") - updated));
    }
    counted(available, wanted)
}

fn counted(ready: u64, wanted: u64) -> Readiness {
    match ready >= wanted {
        true => Readiness::Ready(format!("{ready} of {wanted} pods")),
        false => Readiness::Waiting(format!("{ready} of {wanted} pods are ready")),
    }
}

fn is_replaced_by_hand(object: &Value) -> bool {
    object.pointer("/spec/updateStrategy/type").is_some_and(|kind| kind == "OnDelete")
}

fn stateful_set(object: &Value) -> Readiness {
    let status = |name: &str| number(object, &format!("/status/{name}")).unwrap_or(0);
    let wanted = replicas(object);
    let revision = |name: &str| object.pointer(&format!("/status/{name}")).and_then(Value::as_str);
    let is_mixed = revision("updateRevision") != revision("currentRevision");
    if is_mixed && !is_replaced_by_hand(object) && status("updatedReplicas") < wanted {
        return Readiness::Waiting(format!("{} of {wanted} pods are of the new version", status("updatedReplicas")));
    }
    counted(status("readyReplicas"), wanted)
}

fn daemon_set(object: &Value) -> Readiness {
    let status = |name: &str| number(object, &format!("/status/{name}")).unwrap_or(0);
    let wanted = status("desiredNumberScheduled");
    if wanted == 0 {
        return Readiness::Ready("no node takes its pods".to_owned());
    }
    let updated = status("updatedNumberScheduled");
    if updated < wanted && !is_replaced_by_hand(object) {
        return Readiness::Waiting(format!("{updated} of {wanted} pods are of the new version"));
    }
    counted(status("numberAvailable"), wanted)
}

fn job(object: &Value) -> Readiness {
    if condition(object, "Complete", "True").is_some() {
        return Readiness::Ready("complete".to_owned());
    }
    if let Some((reason, message)) = condition(object, "Failed", "True") {
        return Readiness::Failed(format!("{reason}: {message}"));
    }
    if object.pointer("/spec/suspend").is_some_and(|suspend| suspend == true) {
        return Readiness::Ready("suspended".to_owned());
    }
    let (wanted, done) = counts(object).unwrap_or((1, 0));
    Readiness::Waiting(format!("{done} of {wanted} runs have ended well"))
}

fn claim(object: &Value) -> Readiness {
    match object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending") {
        "Bound" => Readiness::Ready("bound".to_owned()),
        "Lost" => Readiness::Failed("its volume is lost".to_owned()),
        phase => Readiness::Waiting(format!("no volume is bound to it ({phase})")),
    }
}

fn pod(object: &Value) -> Readiness {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Succeeded") => Readiness::Ready("ended well".to_owned()),
        Some("Failed") => Readiness::Failed("it ended with an error".to_owned()),
        _ if condition(object, "Ready", "True").is_some() => Readiness::Ready("ready".to_owned()),
        _ => Readiness::Waiting("not ready".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, spec: Value, status: Value) -> Value {
        json!({"kind": kind, "metadata": {"generation": 2}, "spec": spec, "status": status})
    }

    fn is_ready(object: &Value) -> bool {
        matches!(readiness(object), Readiness::Ready(_))
    }

    #[test]
    fn a_deployment_is_ready_when_only_new_pods_are_there_and_available() {
        let of = |status: Value| object("Deployment", json!({"replicas": 2}), status);
        let done = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert!(is_ready(&of(done.clone())));
        for (field, value) in
            [("observedGeneration", 1), ("updatedReplicas", 1), ("replicas", 3), ("availableReplicas", 1)]
        {
            let mut status = done.clone();
            status[field] = value.into();
            assert!(matches!(readiness(&of(status)), Readiness::Waiting(_)), "{field}");
        }
        let condition =
            json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]);
        let status = json!({"observedGeneration": 2, "conditions": condition});
        assert_eq!(readiness(&of(status)), Readiness::Failed("ProgressDeadlineExceeded: m".to_owned()));
        let none = object("Deployment", json!({"replicas": 0}), json!({"observedGeneration": 2}));
        assert!(is_ready(&none));
    }

    #[test]
    fn sets_jobs_and_claims_are_judged_by_their_own_fields() {
        let set = |current: &str, ready: u64| {
            let status = json!({"observedGeneration": 2, "updateRevision": "b", "currentRevision": current, "updatedReplicas": 0, "readyReplicas": ready});
            object("StatefulSet", json!({"replicas": 1}), status)
        };
        assert!(is_ready(&set("b", 1)) && !is_ready(&set("b", 0)) && !is_ready(&set("a", 1)));
        let mut by_hand = set("a", 1);
        by_hand["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        assert!(is_ready(&by_hand));
        let daemon = |updated: u64, available: u64| {
            let status = json!({"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": available});
            object("DaemonSet", json!({}), status)
        };
        assert!(is_ready(&daemon(2, 2)) && !is_ready(&daemon(1, 2)) && !is_ready(&daemon(2, 1)));
        let job = |kind: &str| {
            object("Job", json!({}), json!({"conditions": [{"type": kind, "status": "True", "reason": "r"}]}))
        };
        assert!(is_ready(&job("Complete")) && matches!(readiness(&job("Failed")), Readiness::Failed(_)));
        assert!(matches!(readiness(&job("Suspended")), Readiness::Waiting(_)));
        let claim = |phase: &str| object("PersistentVolumeClaim", json!({}), json!({ "phase": phase }));
        assert!(is_ready(&claim("Bound")) && matches!(readiness(&claim("Lost")), Readiness::Failed(_)));
        assert!(matches!(readiness(&claim("Pending")), Readiness::Waiting(_)));
    }
}
