//! The order of a cut-over: first what everything needs, then the workloads, each after those that it refers to.
//!
//! Where the report says the phases they count. Otherwise a workload comes after those that its stack says it depends on, and after those
//! whose Services its variables, its words or its files name; those that name each other come together. A job comes before the servers that name the same ones as it does: it prepares
//! what they use.
//!
//! Invariants: each object is in one phase; equal folders give equal plans.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::hosts::{gather, is_named};
use super::input::{Input, InputObject};

/// Kinds whose objects run pods.
pub(super) const WORKLOADS: [&str; 7] =
    ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet", "Pod"];
/// Kinds of the first phase in the order in which they are applied; others of that phase come after them.
const FIRST: [&str; 12] = [
    "Namespace",
    "PriorityClass",
    "StorageClass",
    "ServiceAccount",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "ConfigMap",
    "Secret",
    "ExternalSecret",
    "Role",
    "NetworkPolicy",
    "Service",
];
/// Kinds that follow the workload that they are for.
const ATTACHED: [&str; 3] = ["HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress"];
/// The label that objects of one service share.
const INSTANCE: &str = "/metadata/labels/app.kubernetes.io~1instance";
/// Most bytes of a file that are searched for names.
const TEXT_MAX: usize = 64 << 10;

/// Objects that are applied together, and have to be ready before the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Places in [`Input::objects`], in the order in which they are applied.
    pub objects: Vec<usize>,
    /// What is in it, for people.
    pub title: String,
}

/// The phases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In order; none is empty.
    pub phases: Vec<Phase>,
}

/// Whether an object runs pods.
pub(super) fn is_workload(object: &InputObject) -> bool {
    WORKLOADS.contains(&object.key.kind.as_str())
}

/// The template of an object's pods.
pub(super) fn template(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => Some(object),
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template"),
        _ => object.pointer("/spec/template"),
    }
}

/// Whether a Service leads to pods with these labels.
pub(super) fn selects(service: &Value, labels: &Value) -> bool {
    let selector = service.pointer("/spec/selector").and_then(Value::as_object);
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// The containers of a pod, those that run first too.
pub(super) fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/initContainers", "/spec/containers"]
        .into_iter()
        .filter_map(|pointer| template.pointer(pointer)?.as_array())
        .flatten()
}

impl Plan {
    /// The plan of a folder.
    #[must_use]
    pub fn of(input: &Input) -> Self {
        let objects = &input.objects;
        let workloads: Vec<usize> = (0..objects.len()).filter(|at| is_workload(&objects[*at])).collect();
        let levels = levels(input, &workloads);
        let mut by_level: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, object) in objects.iter().enumerate() {
            let instance = object.object.pointer(INSTANCE);
            let is_attached = ATTACHED.contains(&object.key.kind.as_str());
            let level = match (levels.get(&at), is_attached) {
                (Some(level), _) => *level,
                (None, false) => 0,
                (None, true) => {
                    let is_for =
                        |other: &&usize| instance.is_some() && objects[**other].object.pointer(INSTANCE) == instance;
                    let of_workload = workloads.iter().find(is_for).and_then(|other| levels.get(other));
                    of_workload.or(levels.values().max()).copied().unwrap_or(0)
                }
            };
            by_level.entry(level).or_default().push(at);
        }
        let phases = by_level.into_iter().map(|(level, mut phase)| {
            phase.sort_by_key(|at| {
                let kind = objects[*at].key.kind.as_str();
                let rank = FIRST.iter().chain(&WORKLOADS).chain(&ATTACHED).position(|known| *known == kind);
                (rank.unwrap_or(FIRST.len()), objects[*at].key.name.clone())
            });
            let names: Vec<String> =
                phase.iter().filter(|at| is_workload(&objects[**at])).map(|at| objects[*at].key.label()).collect();
            let title = match level {
                0 => "namespace, volumes, configs, secrets and names".to_owned(),
                _ => names.join(", "),
            };
            Phase { objects: phase, title }
        });
        Self { phases: phases.collect() }
    }
}

/// The phase of each workload, from 1.
fn levels(input: &Input, workloads: &[usize]) -> BTreeMap<usize, usize> {
    let name = |at: usize| input.objects[at].key.name.as_str();
    let listed = |at: usize| input.phases.iter().position(|phase| phase.iter().any(|one| one == name(at)));
    let after = dependencies(input, workloads);
    let computed = ordered(&after);
    let of = |(number, at): (usize, &usize)| {
        let level = listed(*at).unwrap_or(input.phases.len() + computed[number]);
        (*at, level + 1)
    };
    let levels: BTreeMap<usize, usize> = workloads.iter().enumerate().map(of).collect();
    // Numbers without gaps.
    let used: BTreeSet<usize> = levels.values().copied().collect();
    let dense = |level: usize| used.range(..level).count() + 1;
    levels.into_iter().map(|(at, level)| (at, dense(level))).collect()
}

/// For each workload those that have to be ready before it.
fn dependencies(input: &Input, workloads: &[usize]) -> Vec<BTreeSet<usize>> {
    let owners = owners(input, workloads);
    let mut after: Vec<BTreeSet<usize>> = workloads
        .iter()
        .enumerate()
        .map(|(number, at)| {
            let hosts = hosts_of(input, &input.objects[*at].object);
            let named = |name: &str| hosts.iter().any(|host| is_named(host, name));
            let found = owners.iter().filter(|(name, _)| named(name)).flat_map(|(_, numbers)| numbers.iter().copied());
            let listed = input.depends_on.get(&input.objects[*at].key.name);
            let is_listed = |other: &usize| {
                let name = &input.objects[workloads[*other]].key.name;
                listed.is_some_and(|names| names.contains(name))
            };
            found.chain((0..workloads.len()).filter(is_listed)).filter(|other| *other != number).collect()
        })
        .collect();
    let is_job = |number: usize| input.objects[workloads[number]].key.kind == "Job";
    let reached: Vec<BTreeSet<usize>> = (0..after.len()).map(|number| reached(&after, number)).collect();
    for job in (0..after.len()).filter(|number| is_job(*number)) {
        let uses = after[job].clone();
        for server in (0..after.len()).filter(|number| !is_job(*number)) {
            let shares = !after[server].is_disjoint(&uses);
            if shares && !uses.contains(&server) && !reached[job].contains(&server) {
                after[server].insert(job);
            }
        }
    }
    after
}

/// Which workloads are behind each name.
fn owners<'a>(input: &'a Input, workloads: &[usize]) -> BTreeMap<&'a str, BTreeSet<usize>> {
    let mut owners: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let services = || input.objects.iter().filter(|object| object.key.kind == "Service");
    for service in services() {
        for (number, at) in workloads.iter().enumerate() {
            let labels = template(&input.objects[*at].object).and_then(|template| template.pointer("/metadata/labels"));
            if labels.is_some_and(|labels| selects(&service.object, labels)) {
                owners.entry(&service.key.name).or_default().insert(number);
            }
        }
    }
    // Another name of one of these.
    for service in services() {
        let target = service.object.pointer("/spec/externalName").and_then(Value::as_str);
        let target = target.and_then(|target| target.split('.').next());
        if let Some(found) = target.and_then(|target| owners.get(target)).cloned() {
            owners.entry(&service.key.name).or_default().extend(found);
        }
    }
    owners
}

/// The hosts that a workload names.
fn hosts_of(input: &Input, object: &Value) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    let Some(template) = template(object) else { return hosts };
    let mut files: BTreeSet<(&str, &str)> = BTreeSet::new();
    for container in containers(template) {
        for words in ["command", "args"] {
            let words = container[words].as_array().into_iter().flatten().filter_map(Value::as_str);
            words.for_each(|word| gather(word, &mut hosts));
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            variable["value"].as_str().into_iter().for_each(|value| gather(value, &mut hosts));
            for (pointer, kind) in
                [("/valueFrom/secretKeyRef/name", "Secret"), ("/valueFrom/configMapKeyRef/name", "ConfigMap")]
            {
                files.extend(variable.pointer(pointer).and_then(Value::as_str).map(|name| (kind, name)));
            }
        }
        for source in container["envFrom"].as_array().into_iter().flatten() {
            for (pointer, kind) in [("/secretRef/name", "Secret"), ("/configMapRef/name", "ConfigMap")] {
                files.extend(source.pointer(pointer).and_then(Value::as_str).map(|name| (kind, name)));
            }
        }
    }
    for volume in template.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten() {
        files.extend(volume.pointer("/secret/secretName").and_then(Value::as_str).map(|name| ("Secret", name)));
        files.extend(volume.pointer("/configMap/name").and_then(Value::as_str).map(|name| ("ConfigMap", name)));
    }
    for object in &input.objects {
        if files.contains(&(object.key.kind.as_str(), object.key.name.as_str())) {
            texts(&object.object).iter().for_each(|text| gather(text, &mut hosts));
        }
    }
    hosts
}

/// The texts of a ConfigMap or a Secret.
fn texts(object: &Value) -> Vec<String> {
    let is_secret = object["kind"] == "Secret";
    let mut texts = Vec::new();
    for field in ["data", "stringData"] {
        for value in object[field].as_object().into_iter().flat_map(|map| map.values()).filter_map(Value::as_str) {
            let text = match is_secret && field == "data" {
                true => STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
                false => Some(value.to_owned()),
            };
            texts.extend(text.filter(|text| text.len() <= TEXT_MAX));
        }
    }
    texts
}

/// Everything that a node comes after, directly or not.
fn reached(after: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = after[from].iter().copied().collect();
    while let Some(node) = open.pop() {
        if found.insert(node) {
            open.extend(after[node].iter().copied());
        }
    }
    found
}

/// How many groups come before each node, where those that come after each other are one group.
fn ordered(after: &[BTreeSet<usize>]) -> Vec<usize> {
    let reached: Vec<BTreeSet<usize>> = (0..after.len()).map(|node| reached(after, node)).collect();
    let mut nodes: Vec<usize> = (0..after.len()).collect();
    // With itself a node reaches more than those that it comes after, unless they are in a cycle with it.
    nodes.sort_by_key(|node| reached[*node].len() + usize::from(!reached[*node].contains(node)));
    let mut levels = vec![0; after.len()];
    for node in &nodes {
        let strict = reached[*node].iter().filter(|other| !reached[**other].contains(node));
        let level = strict.map(|other| levels[*other] + 1).max().unwrap_or(0);
        levels[*node] = level;
    }
    levels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::deploy::cluster::ObjectKey;

    fn workload(kind: &str, name: &str, texts: &[&str]) -> Vec<Value> {
        let env: Vec<Value> = texts.iter().map(|text| json!({"name": "X", "value": text})).collect();
        let labels = json!({"app.kubernetes.io/instance": name});
        let metadata = json!({"name": name, "namespace": "s", "labels": labels});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "env": env}]}});
        vec![
            json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {"template": template}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels}}),
        ]
    }

    fn input(objects: Vec<Value>, phases: &[&[&str]]) -> Input {
        let one = |object: Value| InputObject {
            key: ObjectKey::of(&object, "s").expect("an object"),
            object,
            file: String::new(),
        };
        let phases = phases.iter().map(|phase| phase.iter().map(|name| (*name).to_owned()).collect()).collect();
        let objects = objects.into_iter().map(one).collect();
        Input {
            stack: "s".to_owned(),
            namespace: "s".to_owned(),
            objects,
            open: Vec::new(),
            phases,
            depends_on: BTreeMap::new(),
        }
    }

    /// The workloads of each phase but the first.
    fn titles(input: &Input) -> Vec<String> {
        Plan::of(input).phases.into_iter().skip(1).map(|phase| phase.title).collect()
    }

    #[test]
    fn a_workload_comes_after_those_that_it_names_and_after_the_job_that_prepares_them() {
        let mut objects = workload("Deployment", "web", &["http://api:80"]);
        objects.extend(workload("Deployment", "api", &["postgres://u:p@db:5432/x"]));
        objects.extend(workload("StatefulSet", "db", &[]));
        objects.extend(workload("Job", "migrate", &["db:5432"]));
        let titles = titles(&input(objects, &[]));
        assert_eq!(titles, ["StatefulSet/db", "Job/migrate", "Deployment/api", "Deployment/web"]);
    }

    #[test]
    fn a_job_that_uses_a_server_comes_after_it_and_a_cycle_is_one_phase() {
        let mut objects = workload("Job", "seed", &["http://api:80", "db:1"]);
        objects.extend(workload("Deployment", "api", &["db:1", "http://queue:1"]));
        objects.extend(workload("Deployment", "queue", &["http://api:80"]));
        objects.extend(workload("Deployment", "db", &[]));
        objects.extend(workload("Deployment", "alone", &["alone:80"]));
        let titles = titles(&input(objects, &[]));
        assert_eq!(titles, ["Deployment/alone, Deployment/db", "Deployment/api, Deployment/queue", "Job/seed"]);
    }

    #[test]
    fn files_secrets_and_second_names_count_and_the_order_of_the_conversion_comes_first() {
        let mut objects = workload("Deployment", "a", &[]);
        objects[0]["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "a-env", "key": "URL"}}}]);
        let data = json!({"URL": STANDARD.encode("redis://second:6379")});
        objects.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-env"}, "data": data}));
        objects.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "second"}, "spec": {"externalName": "z.s.svc"}}));
        objects.extend(workload("Deployment", "z", &[]));
        assert_eq!(titles(&input(objects.clone(), &[])), ["Deployment/z", "Deployment/a"]);
        assert_eq!(titles(&input(objects.clone(), &[&["a"], &["z"]])), ["Deployment/a", "Deployment/z"]);
        assert_eq!(titles(&input(objects.clone(), &[&["a"]])), ["Deployment/a", "Deployment/z"]);
        let mut depending = input([workload("Deployment", "a", &[]), workload("Deployment", "z", &[])].concat(), &[]);
        assert_eq!(titles(&depending), ["Deployment/a, Deployment/z"]);
        depending.depends_on.insert("a".to_owned(), vec!["z".to_owned(), "gone".to_owned()]);
        assert_eq!(titles(&depending), ["Deployment/z", "Deployment/a"]);
    }

    #[test]
    fn what_everything_needs_is_first_and_what_belongs_to_a_workload_is_with_it() {
        let mut objects = workload("Deployment", "web", &[]);
        let labels = json!({"app.kubernetes.io/instance": "web"});
        for kind in ["HorizontalPodAutoscaler", "Secret", "Namespace", "PersistentVolumeClaim"] {
            objects.push(json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "labels": labels}}));
        }
        let input = input(objects, &[]);
        let plan = Plan::of(&input);
        let kinds = |phase: &Phase| -> Vec<String> {
            phase.objects.iter().map(|at| input.objects[*at].key.kind.clone()).collect()
        };
        assert_eq!(kinds(&plan.phases[0]), ["Namespace", "PersistentVolumeClaim", "Secret", "Service"]);
        assert_eq!(kinds(&plan.phases[1]), ["Deployment", "HorizontalPodAutoscaler"]);
        assert_eq!(plan.phases.len(), 2);
    }
}
