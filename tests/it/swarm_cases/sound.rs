//! What has to hold for every object of every conversion, by the rules of Kubernetes and by the reference.

use std::collections::BTreeSet;

use serde_json::Value;

use super::lookup::{Objects, items, template, text};
use super::values::quantity;

/// Longest label of a name, and longest name of the key of a label or an annotation.
const LABEL_MAX: usize = 63;

/// What is wrong with the objects.
pub(super) fn faults(objects: &Objects) -> Vec<String> {
    let mut faults: Vec<String> = objects.repeated.iter().map(|name| format!("{name} is there twice")).collect();
    for (name, object) in objects.iter() {
        let of = |fault: String| format!("{name}: {fault}");
        faults.extend(of_the_metadata(object).into_iter().map(of));
        if object["kind"] == "Service" {
            faults.extend(of_the_ports(items(&object["spec"]["ports"])).into_iter().map(of));
        }
        if let Some(template) = template(object) {
            faults.extend(of_the_template(object, template).into_iter().map(of));
        }
    }
    faults
}

/// A DNS label; for all but Services several with dots between.
fn is_name(name: &str, has_dots: bool) -> bool {
    let is_label = |label: &str| {
        let is_edge =
            |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        label.len() <= LABEL_MAX
            && is_edge(label.chars().next())
            && is_edge(label.chars().last())
            && label.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
    };
    if has_dots { name.split('.').all(is_label) } else { is_label(name) }
}

/// The name part of a key, and the value of a label.
fn is_qualified(name: &str) -> bool {
    let is_edge = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    name.len() <= LABEL_MAX
        && is_edge(name.chars().next())
        && is_edge(name.chars().last())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_name(prefix, true) && is_qualified(name),
        None => is_qualified(key),
    }
}

fn of_the_metadata(object: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let name = text(&object["metadata"]["name"]);
    let is_service = object["kind"] == "Service";
    if !is_name(name, !is_service) || is_service && name.starts_with(|first: char| first.is_ascii_digit()) {
        faults.push("an invalid name".to_owned());
    }
    let inner = template(object).map_or(&Value::Null, |template| &template["metadata"]);
    for metadata in [&object["metadata"], inner] {
        for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
            let is_valid = value.as_str().is_some_and(|value| value.is_empty() || is_qualified(value));
            if !is_key(key) || !is_valid {
                faults.push(format!("an invalid label {key}: {value}"));
            }
        }
        for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
            if !is_key(key) || !value.is_string() {
                faults.push(format!("an invalid annotation {key}"));
            }
        }
    }
    faults
}

/// Ports of a Service or of a container.
fn of_the_ports(ports: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for port in ports {
        let number = port.get("port").or_else(|| port.get("containerPort")).map(Value::to_string).unwrap_or_default();
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        if !numbers.insert((number.clone(), protocol)) {
            faults.push(format!("port {number}/{protocol} twice"));
        }
        match port["name"].as_str() {
            None if ports.len() > 1 && port.get("port").is_some() => faults.push(format!("port {number} has no name")),
            Some(name) if name.len() > 15 || !is_name(name, false) => {
                faults.push(format!("an invalid port name {name}"))
            }
            Some(name) if !names.insert(name) => faults.push(format!("two ports {name}")),
            _ => {}
        }
    }
    faults
}

fn of_the_template(object: &Value, template: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let pod = &template["spec"];
    if pod["enableServiceLinks"] != false {
        faults.push("enableServiceLinks is not false".to_owned());
    }
    if !pod["terminationGracePeriodSeconds"].is_u64() {
        faults.push("terminationGracePeriodSeconds is not written".to_owned());
    }
    let wanted = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    for (key, value) in wanted {
        if template["metadata"]["labels"].get(key) != Some(value) {
            faults.push(format!("the selector's {key} is not a label of its pods"));
        }
    }
    if object["spec"]["strategy"]["type"] == "Recreate" && object["spec"]["strategy"].get("rollingUpdate").is_some() {
        faults.push("Recreate with the settings of a rolling update".to_owned());
    }
    let rolling = &object["spec"]["strategy"]["rollingUpdate"];
    let is_zero = |value: &Value| *value == 0 || *value == "0" || *value == "0%";
    if is_zero(&rolling["maxSurge"]) && is_zero(&rolling["maxUnavailable"]) {
        faults.push("a rolling update that may replace nothing".to_owned());
    }
    let mut volumes = BTreeSet::new();
    let names = items(&pod["volumes"]).iter().map(|volume| text(&volume["name"]));
    let claims = items(&object["spec"]["volumeClaimTemplates"]).iter().map(|claim| text(&claim["metadata"]["name"]));
    for name in names.chain(claims) {
        if !is_name(name, false) || !volumes.insert(name) {
            faults.push(format!("the volume {name} is invalid or there twice"));
        }
    }
    let mut containers = BTreeSet::new();
    for container in items(&pod["initContainers"]).iter().chain(items(&pod["containers"])) {
        let name = text(&container["name"]);
        if !is_name(name, false) || !containers.insert(name) {
            faults.push(format!("the container {name} is invalid or there twice"));
        }
        if text(&container["image"]).is_empty() {
            faults.push(format!("the container {name} has no image"));
        }
        faults.extend(of_the_container(container, &volumes).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    faults
}

fn of_the_container(container: &Value, volumes: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = of_the_ports(items(&container["ports"]));
    let mut names = BTreeSet::new();
    for variable in items(&container["env"]) {
        let name = text(&variable["name"]);
        let is_text = variable.get("value").is_none_or(Value::is_string);
        if name.is_empty() || name.contains('=') || !is_text || !names.insert(name) {
            faults.push(format!("the variable {name} is invalid or there twice"));
        }
    }
    let mut paths = BTreeSet::new();
    for mount in items(&container["volumeMounts"]) {
        let (path, name) = (text(&mount["mountPath"]), text(&mount["name"]));
        if !path.starts_with('/') || !paths.insert(path) {
            faults.push(format!("the mount {path} is invalid or there twice"));
        }
        if !volumes.contains(name) {
            faults.push(format!("the mount {path} is of {name}, which is not a volume"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(probe) else { continue };
        for field in ["periodSeconds", "timeoutSeconds", "failureThreshold"] {
            if probe.get(field).is_some_and(|value| value.as_u64().is_none_or(|value| value == 0)) {
                faults.push(format!("a probe with {field}: {}", probe[field]));
            }
        }
    }
    let resources = &container["resources"];
    for (key, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = resources["limits"].get(key);
        if quantity(request).is_none() || limit.is_some_and(|limit| quantity(limit) < quantity(request)) {
            faults.push(format!("the request {key}: {request} is invalid or above its limit"));
        }
    }
    faults
}

#[test]
fn faults_are_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let written = r#"
kind: Deployment
metadata: {name: a_b, annotations: {"caddy.@x": "1"}}
spec:
  selector: {matchLabels: {app: a}}
  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: "of x"}}
    spec:
      containers:
        - name: a
          image: x
          env: [{name: A, value: 1}]
          volumeMounts: [{name: v, mountPath: /v}]
          livenessProbe: {timeoutSeconds: 0}
          resources: {requests: {memory: 2Gi}, limits: {memory: 1G}}
---
{kind: Service, metadata: {name: a.b}, spec: {ports: [{port: 1, name: x}, {port: 1, name: x}, {port: 2}]}}
"#;
    std::fs::write(directory.path().join("a.yaml"), written).expect("written");
    let found = faults(&Objects::read(directory.path()).expect("objects"));
    for expected in [
        "Deployment/a_b: an invalid name",
        "Deployment/a_b: an invalid annotation caddy.@x",
        "Deployment/a_b: an invalid label app: \"of x\"",
        "Deployment/a_b: enableServiceLinks is not false",
        "Deployment/a_b: terminationGracePeriodSeconds is not written",
        "Deployment/a_b: the selector's app is not a label of its pods",
        "Deployment/a_b: a rolling update that may replace nothing",
        "Deployment/a_b: a: the variable A is invalid or there twice",
        "Deployment/a_b: a: the mount /v is of v, which is not a volume",
        "Deployment/a_b: a: a probe with timeoutSeconds: 0",
        "Deployment/a_b: a: the request memory: \"2Gi\" is invalid or above its limit",
        "Service/a.b: an invalid name",
        "Service/a.b: port 1/TCP twice",
        "Service/a.b: two ports x",
        "Service/a.b: port 2 has no name",
    ] {
        assert!(found.iter().any(|fault| fault == expected), "{expected} in {found:#?}");
    }
    assert_eq!(found.len(), 15, "{found:#?}");
}
