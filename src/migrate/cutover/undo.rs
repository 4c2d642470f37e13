//! Objects as they were before a run.
//!
//! What this manager had applied before is applied again, so that the fields belong to whom they did; an object that it had not touched
//! is written as it was. Invariants: claims, volumes and the namespace stay, whatever is undone. One object that cannot be restored
//! does not keep the others from it.

use serde::Serialize;
use serde_json::Value;

use super::MANAGER;
use super::ownership::{applied_part, without_servers_own};
use super::record::Before;
use crate::deploy::cluster::{ApiError, Apply, ObjectApi};

/// Kinds that data is in.
pub(super) const STAYS: [&str; 3] = ["Namespace", "PersistentVolume", "PersistentVolumeClaim"];

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// Which one: `Deployment/search`.
    pub object: String,
    /// In words: `deleted`, `restored`, `stays: …`, `not restored: …`.
    pub outcome: String,
    /// Whether it is not as it was, and should be.
    pub is_failure: bool,
}

/// Undoes what was done to objects, the last first.
pub(super) fn undo(api: &ObjectApi, objects: &[&Before]) -> Vec<Undone> {
    let mut result = Vec::new();
    for before in objects.iter().rev() {
        let (outcome, is_failure) = match undo_one(api, before) {
            Ok(Some(outcome)) => (outcome, false),
            Ok(None) => continue,
            Err(error) => (format!("not restored: {error}"), true),
        };
        result.push(Undone { object: before.key.label(), outcome, is_failure });
    }
    result
}

/// What was done; `None` where nothing had to be.
fn undo_one(api: &ObjectApi, before: &Before) -> Result<Option<String>, ApiError> {
    let key = &before.key;
    let live = api.get(key)?;
    let uid = |object: &Value| object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
    match (&before.object, live) {
        (None, None) => Ok(None),
        (None, Some(_)) if STAYS.contains(&key.kind.as_str()) => Ok(Some("stays: it may hold data".to_owned())),
        (None, Some(live)) => {
            api.delete(key, uid(&live).as_deref())?;
            Ok(Some("deleted".to_owned()))
        }
        (Some(_), None) if key.kind == "Job" => Ok(Some("not made again: it would run once more".to_owned())),
        (Some(object), None) => {
            api.apply(key, &without_servers_own(object), Apply { force: true, dry_run: false })?;
            Ok(Some("made again".to_owned()))
        }
        (Some(object), Some(live)) if uid(object) != uid(&live) => match key.kind.as_str() {
            "Job" => {
                api.delete(key, uid(&live).as_deref())?;
                Ok(Some("deleted; the Job before it is not made again, because it would run once more".to_owned()))
            }
            _ => {
                api.apply(key, &without_servers_own(object), Apply { force: true, dry_run: false })?;
                Ok(Some("restored".to_owned()))
            }
        },
        (Some(object), Some(live)) => {
            if same(object, &live) {
                return Ok(None);
            }
            if matches!(key.kind.as_str(), "PersistentVolume" | "PersistentVolumeClaim") {
                return Ok(Some("stays as it is now: a claim does not shrink".to_owned()));
            }
            match applied_part(object, MANAGER) {
                Some(part) => drop(api.apply(key, &part, Apply { force: true, dry_run: false })?),
                None => {
                    let mut whole = object.clone();
                    whole["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
                    api.replace(key, &whole)?;
                }
            }
            Ok(Some("restored".to_owned()))
        }
    }
}

/// Whether two objects differ in nothing but what the server counts and what controllers report.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    without_servers_own(one) == without_servers_own(other)
}
