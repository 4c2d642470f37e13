//! What one field manager said of an object: the part of it that an apply of the same manager would have to say again.
//!
//! Format: `metadata.managedFields[].fieldsV1` of the API, where `f:NAME` is a field, `k:{…}` an item of a list by its keys, `v:…` an item
//! of a set by its value, `i:N` one by its place, and `.` the thing itself.

use serde_json::{Map, Value, json};

/// What only the server writes.
const SERVERS_OWN: [&str; 7] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink", "deletionTimestamp"];

/// The part of an object that a manager applied; `None` where it applied nothing.
pub(super) fn applied_part(object: &Value, manager: &str) -> Option<Value> {
    let entries = object.pointer("/metadata/managedFields")?.as_array()?;
    let is_own = |entry: &&Value| {
        entry["manager"] == manager
            && entry["operation"] == "Apply"
            && entry.get("subresource").is_none_or(Value::is_null)
    };
    let fields = entries.iter().find(is_own)?.get("fieldsV1")?;
    let mut part = part(object, fields).unwrap_or_else(|| json!({}));
    if !part.is_object() {
        return None;
    }
    for name in ["apiVersion", "kind"] {
        part[name] = object[name].clone();
    }
    for name in ["name", "namespace"] {
        if let Some(text) = object.pointer(&format!("/metadata/{name}")) {
            part["metadata"][name] = text.clone();
        }
    }
    Some(part)
}

/// An object without its status and what only the server writes, to make it once more.
pub(super) fn without_servers_own(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        SERVERS_OWN.iter().for_each(|name| drop(metadata.remove(*name)));
    }
    object
}

fn part(value: &Value, fields: &Value) -> Option<Value> {
    let fields = fields.as_object()?;
    if fields.keys().all(|key| key == ".") {
        return Some(match value {
            // The thing itself, without what others said of it.
            Value::Object(_) if !fields.is_empty() => json!({}),
            value => value.clone(),
        });
    }
    match value {
        Value::Object(map) => {
            let mut result = Map::new();
            for (key, inner) in fields {
                let Some(name) = key.strip_prefix("f:") else { continue };
                if let Some(found) = map.get(name).and_then(|value| part(value, inner)) {
                    result.insert(name.to_owned(), found);
                }
            }
            Some(Value::Object(result))
        }
        Value::Array(items) => {
            Some(Value::Array(items.iter().enumerate().filter_map(|(at, item)| item_part(at, item, fields)).collect()))
        }
        other => Some(other.clone()),
    }
}

fn item_part(at: usize, item: &Value, fields: &Map<String, Value>) -> Option<Value> {
    fields.iter().find_map(|(key, inner)| {
        let (form, rest) = key.split_at_checked(2)?;
        match form {
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
                if !keys.iter().all(|(name, value)| item.get(name) == Some(value)) {
                    return None;
                }
                let mut found = part(item, inner)?;
                if let Some(map) = found.as_object_mut() {
                    map.extend(keys);
                }
                Some(found)
            }
            "v:" => (serde_json::from_str::<Value>(rest).ok()? == *item).then(|| item.clone()),
            "i:" => (rest.parse::<usize>().ok()? == at).then(|| part(item, inner)).flatten(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_manager_is_what_its_fields_name() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "labels": {"ours": "1", "theirs": "2"},
                "managedFields": [
                    {"manager": "other", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "cairn", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "cairn", "operation": "Apply", "fieldsV1": {
                        "f:metadata": {"f:labels": {".": {}, "f:ours": {}}, "f:finalizers": {"v:\"a\"": {}}},
                        "f:spec": {
                            "f:selector": {},
                            "f:template": {"f:spec": {"f:containers": {
                                "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {},
                                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}},
                            }}},
                        },
                    }},
                ],
                "finalizers": ["a", "b"],
            },
            "spec": {
                "replicas": 3, "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [
                    {"name": "side", "image": "s"},
                    {"name": "c", "image": "i", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                ]}},
            },
            "status": {"replicas": 3},
        });
        let container = json!({"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]});
        let expected = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"ours": "1"}, "finalizers": ["a"]},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [container]}}},
        });
        assert_eq!(applied_part(&object, "cairn"), Some(expected));
        assert_eq!(applied_part(&object, "nobody"), None);
        let bare = without_servers_own(&object);
        assert!(bare.get("status").is_none() && bare.pointer("/metadata/uid").is_none());
        assert_eq!(bare.pointer("/spec/replicas"), Some(&json!(3)));
    }
}
