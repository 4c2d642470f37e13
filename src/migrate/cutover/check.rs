//! What pods refer to and what is not there: Secrets, ConfigMaps and claims that neither the folder nor the cluster has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::CutoverError;
use super::input::Input;
use super::plan::{containers, is_workload, template};
use crate::deploy::cluster::{ObjectApi, ObjectKey};

/// References that lead nowhere, in words.
pub(super) fn missing(input: &Input, api: &ObjectApi) -> Result<Vec<String>, CutoverError> {
    let mut result = Vec::new();
    for ((kind, name), users) in references(input) {
        let has = |object: &super::input::InputObject| match object.key.kind.as_str() {
            // It makes a Secret of its target's name, which is its own where it names none.
            "ExternalSecret" if kind == "Secret" => {
                let target = object.object.pointer("/spec/target/name").and_then(Value::as_str);
                target.unwrap_or(&object.key.name) == name
            }
            other => other == kind && object.key.name == name,
        };
        if input.objects.iter().any(has) {
            continue;
        }
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: input.namespace.clone(),
            name: name.clone(),
        };
        if api.get(&key)?.is_none() {
            let users: Vec<String> = users.into_iter().collect();
            let how = match kind {
                "Secret" => format!("kubectl -n {} create secret generic {name} --from-file=KEY=FILE", input.namespace),
                "ConfigMap" => format!("kubectl -n {} create configmap {name} --from-file=KEY=FILE", input.namespace),
                _ => "create it".to_owned(),
            };
            result.push(format!(
                "{kind}/{name}, which {} refers to, is neither in the folder nor in the namespace {}; {how}",
                users.join(", "),
                input.namespace
            ));
        }
    }
    Ok(result)
}

/// What pods refer to and cannot start without, with the objects that do.
fn references(input: &Input) -> BTreeMap<(&'static str, String), BTreeSet<String>> {
    let mut all: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for object in input.objects.iter().filter(|object| is_workload(object)) {
        let Some(template) = template(&object.object) else { continue };
        let mut add = |kind: &'static str, holder: Option<&Value>, name: &str| {
            let Some(holder) = holder else { return };
            let is_optional = holder["optional"] == true;
            if let Some(name) = holder[name].as_str().filter(|name| !name.is_empty() && !is_optional) {
                all.entry((kind, name.to_owned())).or_default().insert(object.key.label());
            }
        };
        for container in containers(template) {
            for variable in container["env"].as_array().into_iter().flatten() {
                add("Secret", variable.pointer("/valueFrom/secretKeyRef"), "name");
                add("ConfigMap", variable.pointer("/valueFrom/configMapKeyRef"), "name");
            }
            for source in container["envFrom"].as_array().into_iter().flatten() {
                add("Secret", source.get("secretRef"), "name");
                add("ConfigMap", source.get("configMapRef"), "name");
            }
        }
        for volume in template.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten() {
            add("Secret", volume.get("secret"), "secretName");
            add("ConfigMap", volume.get("configMap"), "name");
            add("PersistentVolumeClaim", volume.get("persistentVolumeClaim"), "claimName");
            for source in volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten() {
                add("Secret", source.get("secret"), "name");
                add("ConfigMap", source.get("configMap"), "name");
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migrate::cutover::input::InputObject;

    #[test]
    fn every_form_of_reference_is_found_unless_it_is_optional() {
        let spec = json!({
            "initContainers": [{"envFrom": [{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "b"}}]}],
            "containers": [{"env": [
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "c", "key": "k"}}},
                {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "not", "key": "k", "optional": true}}},
                {"name": "Z", "value": "v"},
            ]}],
            "volumes": [
                {"secret": {"secretName": "d"}}, {"configMap": {"name": "e"}}, {"persistentVolumeClaim": {"claimName": "f"}},
                {"projected": {"sources": [{"secret": {"name": "g"}}]}}, {"emptyDir": {}},
            ],
        });
        let object = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "w"},
            "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}},
        });
        let key = ObjectKey::of(&object, "s").expect("an object");
        let object = InputObject { key, object, file: String::new() };
        let input = Input {
            stack: "s".to_owned(),
            namespace: "s".to_owned(),
            objects: vec![object],
            open: Vec::new(),
            phases: Vec::new(),
            depends_on: Default::default(),
        };
        let found: Vec<String> = references(&input).keys().map(|(kind, name)| format!("{kind}/{name}")).collect();
        let expected =
            ["ConfigMap/b", "ConfigMap/e", "PersistentVolumeClaim/f", "Secret/a", "Secret/c", "Secret/d", "Secret/g"];
        assert_eq!(found, expected);
    }
}
