//! Finding things in the objects that a conversion wrote, as pods would find them.
//!
//! A path is that of a field, or begins with a word for something that several objects together say; `README.md` of the cases lists them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::values::expand;

/// Where labels of Swarm are stored that fit nowhere else.
const SWARM_LABELS: &str = "cairn.local/swarm-labels";
/// Labels that each pod of a StatefulSet has of its own.
const OF_ONE_POD: [&str; 2] = ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"];

/// All objects by kind and name, `Deployment/web`.
pub(super) struct Objects {
    all: BTreeMap<String, Value>,
    /// Objects that are there twice.
    pub(super) repeated: Vec<String>,
}

/// A step of a path.
pub(super) enum Step {
    /// A key.
    Key(String),
    /// A word with what stands behind it in parentheses.
    Call(String, String),
    /// `[3]`
    Index(usize),
    /// `[name=web]`
    Item(String, String),
}

impl Objects {
    /// Those in the files of a folder.
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
        let mut objects = Self { all: BTreeMap::new(), repeated: Vec::new() };
        for (path, bytes) in super::tree(directory) {
            let is_object = path.extension().is_some_and(|extension| extension == "yaml");
            if !is_object || path.file_name().is_some_and(|name| name == "kustomization.yaml") {
                continue;
            }
            for document in serde_yaml::Deserializer::from_slice(&bytes) {
                let object = <Value as serde::Deserialize>::deserialize(document)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                if object.is_null() {
                    continue;
                }
                let name = format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]));
                if objects.all.insert(name.clone(), object).is_some() {
                    objects.repeated.push(name);
                }
            }
        }
        Ok(objects)
    }

    /// By kind and name.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }

    /// For messages.
    pub(super) fn names(&self) -> String {
        self.all.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// All, by kind and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.all.iter().map(|(name, object)| (name.as_str(), object))
    }

    /// What is at a path of an object; an error for a path that cannot be one.
    pub(super) fn find(&self, object: &Value, path: &str) -> Result<Option<Value>, String> {
        let steps = steps(path)?;
        let (first, rest) = steps.split_first().ok_or("an empty path")?;
        let start = match first {
            Step::Key(word) => match word.as_str() {
                "pod" => template(object).map(|template| template["spec"].clone()),
                "main" => main_container(object).cloned(),
                "pod_labels" => template(object).map(|template| template["metadata"]["labels"].clone()),
                "security" => security(object),
                "nodes" => nodes(object),
                "policies" => Some(self.policies(object).into_iter().cloned().collect()),
                key => object.get(key).cloned(),
            },
            Step::Call(word, operand) => match word.as_str() {
                "mount" => self.mount(object, operand),
                "file" => self.file(object, operand),
                "env" => self.variables(object).remove(operand.as_str()).map(Value::String),
                "label" => swarm_label(&object["metadata"], operand),
                "pod_label" => template(object).and_then(|template| swarm_label(&template["metadata"], operand)),
                "admits" => Some(self.admits(object, operand)),
                _ => return Err(format!("unknown word {word}")),
            },
            Step::Index(_) | Step::Item(..) => return Err("a path begins with a key".to_owned()),
        };
        let step = |value: Value, step: &Step| match step {
            Step::Key(key) => value.get(key).cloned(),
            Step::Index(index) => value.get(index).cloned(),
            Step::Item(key, wanted) => {
                let is_it = |item: &&Value| match &item[key] {
                    Value::String(text) => text == wanted,
                    other => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| *other == wanted),
                };
                value.as_array()?.iter().find(is_it).cloned()
            }
            Step::Call(..) => None,
        };
        Ok(rest.iter().fold(start, |value, next| step(value?, next)))
    }

    /// The variables of the main container, as its program sees them; `{spec.nodeName}` is a field of the pod.
    pub(super) fn variables(&self, object: &Value) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let Some(container) = main_container(object) else { return variables };
        for from in items(&container["envFrom"]) {
            let data = match from.get("configMapRef") {
                Some(source) => self.payload(&format!("ConfigMap/{}", text(&source["name"]))),
                None => self.payload(&format!("Secret/{}", text(&from["secretRef"]["name"]))),
            };
            let values = data.into_iter().map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes).into_owned()));
            variables.extend(values);
        }
        for variable in items(&container["env"]) {
            let from = &variable["valueFrom"];
            let key_of = |kind: &str, source: &Value| {
                let mut data = self.payload(&format!("{kind}/{}", text(&source["name"])));
                data.remove(text(&source["key"])).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            let value = if let Some(field) = from.get("fieldRef") {
                Some(format!("{{{}}}", text(&field["fieldPath"])))
            } else if let Some(source) = from.get("configMapKeyRef") {
                key_of("ConfigMap", source)
            } else if let Some(source) = from.get("secretKeyRef") {
                key_of("Secret", source)
            } else {
                variable["value"].as_str().map(|value| expand(value, &variables))
            };
            variables.extend(value.map(|value| (text(&variable["name"]).to_owned(), value)));
        }
        variables
    }

    /// The bytes of a ConfigMap or a Secret by key.
    fn payload(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let Some(object) = self.get(name) else { return BTreeMap::new() };
        let is_secret = object["kind"] == "Secret";
        let (plain, encoded) = if is_secret { ("stringData", "data") } else { ("data", "binaryData") };
        let of = |field: &str, decode: &dyn Fn(&str) -> Vec<u8>| -> Vec<(String, Vec<u8>)> {
            let entries = object[field].as_object().into_iter().flatten();
            entries.map(|(key, value)| (key.clone(), decode(text(value)))).collect()
        };
        let mut all: BTreeMap<String, Vec<u8>> =
            of(encoded, &|value| STANDARD.decode(value).unwrap_or_default()).into_iter().collect();
        all.extend(of(plain, &|value| value.as_bytes().to_vec()));
        all
    }

    /// A mount of the main container with the volume that it shows.
    fn mount(&self, object: &Value, path: &str) -> Option<Value> {
        let mounts = items(&main_container(object)?["volumeMounts"]);
        let mut mount = mounts.iter().find(|mount| mount["mountPath"] == path)?.as_object()?.clone();
        let name = mount.get("name")?.clone();
        let volume = items(&template(object)?["spec"]["volumes"]).iter().find(|volume| volume["name"] == name);
        let claim_template =
            items(&object["spec"]["volumeClaimTemplates"]).iter().find(|template| template["metadata"]["name"] == name);
        let claim = volume.and_then(|volume| {
            self.get(&format!("PersistentVolumeClaim/{}", text(&volume["persistentVolumeClaim"]["claimName"])))
        });
        let backing = volume.map(|volume| self.backing(volume, claim));
        for (key, value) in [
            ("volume", volume.cloned()),
            ("claimTemplate", claim_template.cloned()),
            ("claim", claim.cloned()),
            ("backing", backing),
        ] {
            mount.extend(value.map(|value| (key.to_owned(), value)));
        }
        Some(Value::Object(mount))
    }

    /// What holds the files of a volume: `hostPath` or `nfs`, with the options of the mount.
    fn backing(&self, volume: &Value, claim: Option<&Value>) -> Value {
        let Some(claim) = claim else { return volume.clone() };
        let is_bound = |persistent: &&Value| {
            let (bound, name) = (&persistent["spec"]["claimRef"]["name"], &claim["metadata"]["name"]);
            persistent["kind"] == "PersistentVolume"
                && (bound == name || persistent["metadata"]["name"] == claim["spec"]["volumeName"])
        };
        let persistent = self.all.values().find(is_bound);
        let mut backing = persistent.map(|persistent| persistent["spec"].clone()).unwrap_or_default();
        if let Some(local) = backing.get("local").cloned() {
            backing["hostPath"] = local;
        }
        backing
    }

    /// A file that a ConfigMap or a Secret puts into the main container.
    fn file(&self, object: &Value, path: &str) -> Option<Value> {
        for mount in items(&main_container(object)?["volumeMounts"]) {
            let (at, part) = (text(&mount["mountPath"]), mount["subPath"].as_str());
            let inner = match part {
                Some(part) if at == path => part,
                Some(_) => continue,
                None => match path.strip_prefix(at).and_then(|rest| rest.strip_prefix('/')) {
                    Some(rest) => rest,
                    None => continue,
                },
            };
            let volumes = items(&template(object)?["spec"]["volumes"]);
            let Some(volume) = volumes.iter().find(|volume| volume["name"] == mount["name"]) else { continue };
            if let Some(mut found) = self.file_of(volume, inner) {
                found.insert("is_single".to_owned(), Value::Bool(part.is_some()));
                return Some(Value::Object(found));
            }
        }
        None
    }

    fn file_of(&self, volume: &Value, path: &str) -> Option<Map<String, Value>> {
        let projected = &volume["projected"];
        let sources = items(&projected["sources"]).iter().map(|source| (source, &projected["defaultMode"]));
        let own = [(volume, &Value::Null)];
        for (source, mode) in own.into_iter().chain(sources) {
            for (field, kind) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
                let Some(source) = source.get(field) else { continue };
                let name = source["secretName"].as_str().unwrap_or_else(|| text(&source["name"]));
                let name = format!("{kind}/{name}");
                let item = items(&source["items"]).iter().find(|item| item["path"] == path);
                let key = match item {
                    Some(item) => text(&item["key"]),
                    None if source.get("items").is_none() => path,
                    None => continue,
                };
                let modes = [item.map_or(&Value::Null, |item| &item["mode"]), &source["defaultMode"], mode];
                let mode = modes.into_iter().find_map(Value::as_u64).unwrap_or(0o644);
                let Some(bytes) = self.payload(&name).remove(key) else { continue };
                let file = json!({"object": name, "mode": mode, "bytes": bytes, "text": String::from_utf8(bytes.clone()).ok()});
                return file.as_object().cloned();
            }
        }
        None
    }

    /// The NetworkPolicies of the pods of a workload.
    fn policies(&self, workload: &Value) -> Vec<&Value> {
        let policies = self.all.values().filter(|object| object["kind"] == "NetworkPolicy");
        policies.filter(|policy| self.selects(policy, workload)).collect()
    }

    /// Who reaches a TCP port of the pods: `anyone`, `members` (of certain pods) or `nobody`.
    fn admits(&self, workload: &Value, port: &str) -> Value {
        let is_ingress = |policy: &&Value| {
            policy["spec"].get("policyTypes").is_none_or(|types| items(types).iter().any(|kind| kind == "Ingress"))
        };
        let policies: Vec<&Value> = self.policies(workload).into_iter().filter(is_ingress).collect();
        if policies.is_empty() {
            return "anyone".into();
        }
        let names_it = |entry: &Value| match &entry["port"] {
            Value::Null => true,
            Value::Number(number) => number.as_u64() == port.parse().ok(),
            Value::String(name) => items(&main_container(workload).unwrap_or(&Value::Null)["ports"])
                .iter()
                .any(|own| own["name"] == name.as_str() && own["containerPort"].as_u64() == port.parse().ok()),
            _ => false,
        };
        let has_port = |rule: &&Value| rule.get("ports").is_none_or(|ports| items(ports).iter().any(names_it));
        let rules: Vec<&Value> =
            policies.iter().flat_map(|policy| items(&policy["spec"]["ingress"])).filter(has_port).collect();
        let is_open = |rule: &&Value| {
            rule.get("from").is_none_or(|from| {
                items(from).is_empty() || items(from).iter().any(|peer| peer["ipBlock"]["cidr"] == "0.0.0.0/0")
            })
        };
        match rules.iter().any(is_open) {
            true => "anyone".into(),
            false if rules.is_empty() => "nobody".into(),
            false => "members".into(),
        }
    }

    /// Whether an object's selector names the pods of a workload; of a Service that is another name, whether the other does.
    pub(super) fn selects(&self, object: &Value, workload: &Value) -> bool {
        let spec = &object["spec"];
        if let Some(other) = spec["externalName"].as_str() {
            let name = other.split('.').next().unwrap_or_default();
            return self.get(&format!("Service/{name}")).is_some_and(|service| self.selects(service, workload));
        }
        let selector = match text(&object["kind"]) {
            "Service" => json!({"matchLabels": spec["selector"]}),
            "NetworkPolicy" => spec["podSelector"].clone(),
            _ => spec["selector"].clone(),
        };
        let is_service = object["kind"] == "Service";
        let Some(template) = template(workload) else { return false };
        let labels = &template["metadata"]["labels"];
        let wanted = selector["matchLabels"].as_object();
        if is_service && wanted.is_none_or(Map::is_empty) {
            return false;
        }
        let has =
            |(key, value): (&String, &Value)| OF_ONE_POD.contains(&key.as_str()) || labels.get(key) == Some(value);
        let meets = |expression: &Value| {
            let own = labels.get(text(&expression["key"]));
            let is_in = own.is_some_and(|own| items(&expression["values"]).contains(own));
            match text(&expression["operator"]) {
                "In" => is_in,
                "NotIn" => !is_in,
                "Exists" => own.is_some(),
                _ => own.is_none(),
            }
        };
        wanted.into_iter().flatten().all(has) && items(&selector["matchExpressions"]).iter().all(meets)
    }
}

/// The text of a value; nothing where it is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list; nothing where it is none.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The template of an object's pods.
pub(super) fn template(object: &Value) -> Option<&Value> {
    match text(&object["kind"]) {
        "Pod" => Some(object),
        "CronJob" => object["spec"]["jobTemplate"]["spec"].get("template"),
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => object["spec"].get("template"),
        _ => None,
    }
}

/// The container with the name of the object, or else the first.
fn main_container(object: &Value) -> Option<&Value> {
    let containers = items(&template(object)?["spec"]["containers"]);
    containers.iter().find(|container| container["name"] == object["metadata"]["name"]).or_else(|| containers.first())
}

/// What holds for the main container: the pod's security and what the container says otherwise.
fn security(object: &Value) -> Option<Value> {
    let mut all = template(object)?["spec"]["securityContext"].as_object().cloned().unwrap_or_default();
    all.extend(main_container(object)?["securityContext"].as_object().cloned().unwrap_or_default());
    Some(Value::Object(all))
}

/// What is required of nodes, in one list; nothing where nodes that meet one of several lists do.
fn nodes(object: &Value) -> Option<Value> {
    let spec = &template(object)?["spec"];
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = items(&required["nodeSelectorTerms"]);
    if terms.len() > 1 {
        return None;
    }
    let mut all = terms.first().map(|term| items(&term["matchExpressions"]).to_vec()).unwrap_or_default();
    let chosen = spec["nodeSelector"].as_object().into_iter().flatten();
    all.extend(chosen.map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]})));
    Some(Value::Array(all))
}

/// A label of Swarm: an annotation of its own, or in the annotation that has all of them.
fn swarm_label(metadata: &Value, key: &str) -> Option<Value> {
    let annotations = &metadata["annotations"];
    let all: Value = serde_json::from_str(text(&annotations[SWARM_LABELS])).unwrap_or_default();
    all.get(key).or_else(|| annotations.get(key)).cloned()
}

/// The steps of a path.
pub(super) fn steps(path: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inner) = rest.strip_prefix("[\"") {
            let (key, after) = inner.split_once("\"]").ok_or("[\" without \"]")?;
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (inside, after) = inner.split_once(']').ok_or("[ without ]")?;
            steps.push(match (inside.parse(), inside.split_once('=')) {
                (Ok(index), _) => Step::Index(index),
                (_, Some((key, value))) => Step::Item(key.to_owned(), value.to_owned()),
                _ => return Err(format!("[{inside}] is neither a number nor key=value")),
            });
            rest = after;
        } else {
            let end = rest.find(['.', '[', '(']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            if let Some(inner) = after.strip_prefix('(') {
                let (operand, behind) = inner.split_once(')').ok_or("( without )")?;
                steps.push(Step::Call(key.to_owned(), operand.to_owned()));
                rest = behind;
            } else {
                steps.push(Step::Key(key.to_owned()));
                rest = after;
            }
        }
    }
    Ok(steps)
}

#[test]
fn pods_are_found_as_they_find_things() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let written = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: a, annotations: {cairn.local/swarm-labels: '{"x.@y": "1"}', plain: "2"}}
spec:
  template:
    metadata: {labels: {app: a}}
    spec:
      securityContext: {runAsUser: 1, fsGroup: 2}
      nodeSelector: {disk: ssd}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: Exists}]}]
      containers:
        - {name: other}
        - name: a
          securityContext: {runAsUser: 3}
          env:
            - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
            - {name: B, value: "$(NODE)-$(LATE)-$$(NODE)"}
            - {name: LATE, value: late}
          volumeMounts:
            - {name: c, mountPath: /etc/c.conf, subPath: c.conf}
            - {name: s, mountPath: /run/secrets}
            - {name: d, mountPath: /data}
            - {name: n, mountPath: /nfs, readOnly: true}
      volumes:
        - {name: c, configMap: {name: c}}
        - {name: s, projected: {defaultMode: 256, sources: [{secret: {name: s, items: [{key: k, path: key.pem}]}}]}}
        - {name: n, persistentVolumeClaim: {claimName: n}}
  volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce]}}]
---
{kind: ConfigMap, metadata: {name: c}, data: {c.conf: text}}
---
{kind: Secret, metadata: {name: s}, data: {k: YWJj}}
---
{kind: PersistentVolumeClaim, metadata: {name: n}}
---
{kind: PersistentVolume, metadata: {name: shop-n}, spec: {claimRef: {name: n}, nfs: {server: s1}, mountOptions: [soft]}}
---
{kind: Service, metadata: {name: a-1}, spec: {selector: {app: a, apps.kubernetes.io/pod-index: "1"}}}
---
{kind: Service, metadata: {name: b}, spec: {selector: {app: b}}}
---
{kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: a-1.shop.svc.cluster.local}}
---
kind: NetworkPolicy
metadata: {name: n}
spec: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 80}]}, {from: [{podSelector: {}}]}]}
"#;
    fs::write(directory.path().join("a.yaml"), written).expect("written");
    fs::write(directory.path().join("kustomization.yaml"), "kind: Kustomization").expect("written");
    let objects = Objects::read(directory.path()).expect("objects");
    assert!(objects.get("Kustomization/").is_none() && objects.repeated.is_empty());
    let set = objects.get("StatefulSet/a").expect("read");
    let find = |path: &str| objects.find(set, path).expect(path).unwrap_or_default();
    for (path, expected) in [
        ("security", json!({"runAsUser": 3, "fsGroup": 2})),
        ("label(x.@y)", json!("1")),
        ("label(plain)", json!("2")),
        ("pod_labels.app", json!("a")),
        ("main.env[name=LATE].value", json!("late")),
        ("env(NODE)", json!("{spec.nodeName}")),
        ("env(B)", json!("{spec.nodeName}-$(LATE)-$(NODE)")),
        ("nodes[key=disk].values[0]", json!("ssd")),
        ("nodes[0].key", json!("zone")),
        ("file(/etc/c.conf).text", json!("text")),
        ("file(/etc/c.conf).mode", json!(0o644)),
        ("file(/run/secrets/key.pem).bytes", json!([97, 98, 99])),
        ("file(/run/secrets/key.pem).mode", json!(256)),
        ("file(/run/secrets/key.pem).object", json!("Secret/s")),
        ("file(/run/secrets/key.pem).is_single", json!(false)),
        ("file(/run/secrets/k)", Value::Null),
        ("mount(/data).claimTemplate.spec.accessModes[0]", json!("ReadWriteOnce")),
        ("mount(/nfs).readOnly", json!(true)),
        ("mount(/nfs).backing.nfs.server", json!("s1")),
        ("mount(/nfs).backing.mountOptions[0]", json!("soft")),
        ("policies[0].metadata.name", json!("n")),
        ("admits(80)", json!("anyone")),
        ("admits(81)", json!("members")),
        ("spec.none.at.all", Value::Null),
    ] {
        assert_eq!(find(path), expected, "{path}");
    }
    for (name, is_selected) in [("a-1", true), ("b", false), ("alias", true)] {
        let service = objects.get(&format!("Service/{name}")).expect("read");
        assert_eq!(objects.selects(service, set), is_selected, "{name}");
    }
    assert!(objects.find(set, "spec.x[").is_err() && objects.find(set, "unknown(x)").is_err());
}
