//! The fields of objects that are values of a chart: what differs between sites and releases.
//!
//! Invariants: a field whose content is not of the usual form stays as it is. A variable that looks like a secret is not a value. A value
//! goes to every field that has to change with it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::settings::{Settings, integer, is_quantity, quantity, resources, text};
use super::template::Spots;
use crate::deploy::oci::is_tag;
use crate::migrate::objects::looks_secret;

/// The label that has the tag of the image.
const VERSION: &str = "app.kubernetes.io/version";
/// The label that every namespace has, with its name.
const NAMESPACE: &str = "kubernetes.io/metadata.name";
/// A DNS label.
pub(super) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
const REPOSITORY: &str = r"^[A-Za-z0-9\[][A-Za-z0-9._:/\[\]-]*$";
const TAG: &str = "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$";
const DIGEST: &str = "^([A-Za-z0-9+._-]+:[0-9a-f]{32,})?$";

/// The chart that objects are in.
pub(super) struct Scope<'a> {
    /// Its name.
    pub(super) chart: &'a str,
    /// The container that is the service; of the shared objects none is.
    pub(super) container: Option<&'a str>,
    /// The namespace of the objects.
    pub(super) namespace: &'a str,
    /// The size of each PersistentVolume that has the size of its claim, as an expression.
    pub(super) sizes: &'a BTreeMap<String, String>,
    /// The first level of the sizes of claims.
    pub(super) storage: &'static str,
}

/// An image in its parts, which together are its name again.
pub(super) struct Image<'a> {
    repository: &'a str,
    /// Without the colon before it; empty: none.
    pub(super) tag: &'a str,
    digest: &'a str,
}

impl<'a> Image<'a> {
    /// `None` when the name is not a usual one.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (named, digest) = name.split_once('@').map_or((name, ""), |(named, digest)| (named, digest));
        let (repository, tag) = match named.rsplit_once(':') {
            // A colon before a slash is that of a port.
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (named, ""),
        };
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/[]-".contains(&byte);
        let is_repository = repository.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
            && repository.bytes().all(is_part);
        let is_digest = digest.split_once(':').is_some_and(|(algorithm, digits)| {
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            !algorithm.is_empty()
                && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte))
                && digits.len() >= 32
                && digits.bytes().all(is_hex)
        });
        let image = Self { repository, tag, digest };
        let is_usual = is_repository && (tag.is_empty() || is_tag(tag)) && (digest.is_empty() || is_digest);
        (is_usual && image.name() == name).then_some(image)
    }

    fn name(&self) -> String {
        let part = |mark: char, text: &str| if text.is_empty() { String::new() } else { format!("{mark}{text}") };
        format!("{}{}{}", self.repository, part(':', self.tag), part('@', self.digest))
    }
}

/// The image of a service.
pub(super) fn image_of<'a>(object: &'a Value, scope: &Scope<'_>) -> Option<&'a str> {
    let pod = object.pointer(template_of(object)?)?.get("spec")?;
    main(pod, scope)?.get("image")?.as_str()
}

/// The template of an object, whose values are added to those of the chart.
pub(super) fn template(object: &Value, scope: &Scope<'_>, settings: &mut Settings) -> String {
    let mut object = object.clone();
    let spots = Spots::of(&object);
    let mut fields = Fields { scope, settings, spots };
    fields.namespace(&mut object);
    if let Some(template) = template_of(&object).and_then(|pointer| object.pointer_mut(pointer)) {
        fields.pod(template);
    }
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" | "StatefulSet" => fields.workload(&mut object),
        "CronJob" => {
            fields.text(object.pointer_mut("/spec/schedule"), &["schedule"], None, "When it runs, as cron has it");
        }
        "Service" => fields.service(&mut object),
        "Ingress" => fields.ingress(&mut object),
        "HorizontalPodAutoscaler" => fields.autoscaler(&mut object),
        "PodDisruptionBudget" => fields.budget(&mut object),
        "PersistentVolumeClaim" => {
            let storage = fields.scope.storage;
            fields.claim(&mut object, storage);
        }
        "PersistentVolume" => fields.volume(&mut object),
        _ => {}
    }
    fields.spots.template(&object)
}

/// The sizes of the PersistentVolumes of claims, as expressions, by the name of the volume.
pub(super) fn sizes(objects: &[&Value], storage: &'static str, settings: &mut Settings) -> BTreeMap<String, String> {
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let mut sizes = BTreeMap::new();
    for claim in of_kind("PersistentVolumeClaim") {
        let Some(name) = claim["metadata"]["name"].as_str() else { continue };
        let size = &claim["spec"]["resources"]["requests"]["storage"];
        let is_its_own = |volume: &&&Value| {
            let is_bound = volume["spec"]["claimRef"]["name"] == *name
                || volume["metadata"]["name"] == claim["spec"]["volumeName"];
            is_bound && volume["spec"]["capacity"]["storage"] == *size
        };
        for volume in of_kind("PersistentVolume").filter(is_its_own) {
            let expression = add_size(settings, storage, name, size);
            sizes.extend(volume["metadata"]["name"].as_str().map(str::to_owned).zip(expression));
        }
    }
    sizes
}

fn add_size(settings: &mut Settings, storage: &str, name: &str, size: &Value) -> Option<String> {
    size.as_str().filter(|text| is_quantity(text))?;
    settings.add(&[storage, name, "size"], size.clone(), quantity("Size of the volume, such as 10Gi"))
}

/// Where the template of the pods is in an object.
fn template_of(object: &Value) -> Option<&'static str> {
    match object["kind"].as_str()? {
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The container that is the service: a global job's is one of those that run first.
fn main<'a>(pod: &'a Value, scope: &Scope<'_>) -> Option<&'a Value> {
    let name = scope.container?;
    ["containers", "initContainers"].iter().flat_map(|list| items(&pod[*list])).find(|one| one["name"] == *name)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn items_mut(list: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

struct Fields<'a> {
    scope: &'a Scope<'a>,
    settings: &'a mut Settings,
    spots: Spots,
}

impl Fields<'_> {
    /// Makes a text a value.
    fn text(&mut self, field: Option<&mut Value>, path: &[&str], pattern: Option<&str>, description: &str) {
        let Some(field) = field.filter(|field| field.is_string()) else { return };
        if let Some(expression) = self.settings.add(path, field.clone(), text(pattern, description)) {
            *field = self.spots.scalar(format!("{expression} | quote"));
        }
    }

    /// Makes an amount a value.
    fn amount(&mut self, field: Option<&mut Value>, path: &[&str], description: &str) {
        let Some(field) = field.filter(|field| field.as_str().is_some_and(is_quantity)) else { return };
        if let Some(expression) = self.settings.add(path, field.clone(), quantity(description)) {
            *field = self.spots.scalar(format!("{expression} | quote"));
        }
    }

    /// Makes a whole number a value.
    fn number(&mut self, field: Option<&mut Value>, path: &[&str], (least, most): (i64, i64), description: &str) {
        let Some(field) = field else { return };
        if !field.as_i64().is_some_and(|number| (least..=most).contains(&number)) {
            return;
        }
        if let Some(expression) = self.settings.add(path, field.clone(), integer(least, most, description)) {
            *field = self.spots.scalar(format!("{expression} | int"));
        }
    }

    fn namespace(&mut self, object: &mut Value) {
        for pointer in ["/metadata/namespace", "/spec/claimRef/namespace"] {
            self.namespace_of(object.pointer_mut(pointer));
        }
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in items_mut(object.pointer_mut(&format!("/spec/{list}"))) {
                for peer in items_mut(rule.get_mut(peers)) {
                    let labels = peer.pointer_mut("/namespaceSelector/matchLabels");
                    self.namespace_of(labels.and_then(|labels| labels.get_mut(NAMESPACE)));
                }
            }
        }
    }

    fn namespace_of(&mut self, field: Option<&mut Value>) {
        let field = field.filter(|field| **field == *self.scope.namespace);
        self.text(field, &["global", "namespace"], Some(DNS_LABEL), "The namespace of the objects");
    }

    /// * `template`: of pods.
    fn pod(&mut self, template: &mut Value) {
        let Some(main) = template.get("spec").and_then(|pod| main(pod, self.scope)) else { return };
        let name = main["name"].clone();
        let image = main["image"].as_str().map(str::to_owned);
        let parts = image.as_deref().and_then(Image::of);
        let mut image_expression = None;
        if let Some(parts) = &parts {
            let add = |settings: &mut Settings, name: &str, value: &str, pattern, description| {
                settings.add(&["image", name], json!(value), text(Some(pattern), description))
            };
            let settings = &mut *self.settings;
            let added = [
                add(settings, "repository", parts.repository, REPOSITORY, "Registry and path of the image"),
                add(settings, "tag", parts.tag, TAG, "Tag of the image; empty: none"),
                add(
                    settings,
                    "digest",
                    parts.digest,
                    DIGEST,
                    "Digest of the image, which counts before the tag; empty: none",
                ),
            ];
            if added.iter().all(Option::is_some) {
                image_expression = Some(format!("include \"{}.image\" .Values.image | quote", self.scope.chart));
            }
        }
        if let (Some(expression), Some(parts)) = (&image_expression, &parts) {
            for list in ["containers", "initContainers"] {
                for container in items_mut(template["spec"].get_mut(list)) {
                    let field = container.get_mut("image").filter(|field| field.as_str() == image.as_deref());
                    if let Some(field) = field {
                        *field = self.spots.scalar(expression.clone());
                    }
                }
            }
            let is_end = |letter: char| letter.is_ascii_alphanumeric();
            let is_label = parts.tag.len() <= 63 && parts.tag.starts_with(is_end) && parts.tag.ends_with(is_end);
            let label = template.pointer_mut("/metadata/labels").and_then(|labels| labels.get_mut(VERSION));
            if let Some(label) = label.filter(|label| is_label && **label == *parts.tag) {
                let expression = ".Values.image.tag | trunc 63 | trimAll \"-_.\" | quote";
                *label = self.spots.scalar(expression.to_owned());
            }
        }
        for list in ["containers", "initContainers"] {
            for container in items_mut(template["spec"].get_mut(list)).filter(|one| one["name"] == name) {
                self.container(container);
            }
        }
    }

    fn container(&mut self, container: &mut Value) {
        let mut seen = Vec::new();
        for variable in items_mut(container.get_mut("env")) {
            let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) else { continue };
            let name = name.to_owned();
            if !looks_secret(&name, value) && !seen.contains(&name) {
                self.text(variable.get_mut("value"), &["env", &name], None, "");
            }
            seen.push(name);
        }
        let is_amounts = |value: &Value| {
            let all = value.as_object().into_iter().flatten();
            let mut parts = all.map(|(name, amounts)| {
                let mut amounts = amounts.as_object().into_iter().flatten();
                matches!(name.as_str(), "limits" | "requests")
                    && amounts.all(|(_, amount)| amount.as_str().is_some_and(is_quantity))
            });
            parts.all(|is_right| is_right)
        };
        let old = container.get("resources").cloned();
        let default = old.clone().unwrap_or_else(|| json!({}));
        if !is_amounts(&default) {
            return;
        }
        let Some(expression) = self.settings.add(&["resources"], default, resources()) else { return };
        if old.is_some() {
            container["resources"] = self.spots.tree(expression);
        } else {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            container["name"] = self.spots.text_and_field(&name, "resources", expression);
        }
    }

    fn workload(&mut self, object: &mut Value) {
        let most = i64::from(i32::MAX);
        self.number(object.pointer_mut("/spec/replicas"), &["replicas"], (0, most), "How many pods");
        let storage = self.scope.storage;
        for claim in items_mut(object.pointer_mut("/spec/volumeClaimTemplates")) {
            self.claim(claim, storage);
        }
    }

    fn claim(&mut self, claim: &mut Value, storage: &str) {
        let Some(name) = claim["metadata"]["name"].as_str().map(str::to_owned) else { return };
        let size = claim.pointer_mut("/spec/resources/requests/storage");
        self.amount(size, &[storage, &name, "size"], "Size of the volume, such as 10Gi");
        // An empty name is not a class: it is a volume that is made beforehand.
        let class = claim.pointer_mut("/spec/storageClassName").filter(|class| **class != "");
        let description = "The StorageClass that makes the volume";
        self.text(class, &[storage, &name, "storageClass"], Some("^[a-z0-9.-]+$"), description);
    }

    fn volume(&mut self, volume: &mut Value) {
        let expression = volume["metadata"]["name"].as_str().and_then(|name| self.scope.sizes.get(name));
        let size = volume.pointer_mut("/spec/capacity/storage");
        if let (Some(expression), Some(size)) = (expression, size) {
            *size = self.spots.scalar(format!("{expression} | quote"));
        }
    }

    fn service(&mut self, object: &mut Value) {
        let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else { return };
        if object["spec"]["clusterIP"] == "None" {
            return;
        }
        // Others in the cluster know the ports of the name; a port that is published is for those outside.
        let is_published = matches!(object["spec"]["type"].as_str(), Some("LoadBalancer" | "NodePort"));
        let kinds = if is_published { "^(LoadBalancer|NodePort)$" } else { "^(ClusterIP|LoadBalancer|NodePort)$" };
        let description = "ClusterIP: inside the cluster only; NodePort, LoadBalancer: on the nodes too";
        self.text(object.pointer_mut("/spec/type"), &["service", &name, "type"], Some(kinds), description);
        for port in items_mut(object.pointer_mut("/spec/ports")).filter(|_| is_published) {
            let Some(port_name) = port["name"].as_str().map(str::to_owned) else { continue };
            let path = ["service", &name, "ports", &port_name];
            self.number(port.get_mut("port"), &path, (1, 65_535), "The published port");
        }
    }

    fn ingress(&mut self, object: &mut Value) {
        let mut hosts: Vec<String> = Vec::new();
        for rule in items(&object["spec"]["rules"]) {
            let host = rule["host"].as_str().filter(|host| !hosts.iter().any(|other| other == host));
            hosts.extend(host.map(str::to_owned));
        }
        if hosts.is_empty() {
            return;
        }
        let count = hosts.len();
        let schema = json!({
            "type": "array", "minItems": count, "maxItems": count,
            "items": { "type": "string", "minLength": 1, "maxLength": 253 },
            "description": "Names of hosts, in the order of the rules",
        });
        let Some(expression) = self.settings.add(&["ingress", "hosts"], json!(hosts), schema) else { return };
        let expressions: Vec<(String, String)> = hosts
            .into_iter()
            .enumerate()
            .map(|(place, host)| (host, format!("index {expression} {place} | quote")))
            .collect();
        let mut replace = |field: Option<&mut Value>| {
            let Some(field) = field else { return };
            let known = expressions.iter().find(|(host, _)| *field == **host);
            if let Some((_, expression)) = known {
                *field = self.spots.scalar(expression.clone());
            }
        };
        items_mut(object.pointer_mut("/spec/rules")).for_each(|rule| replace(rule.get_mut("host")));
        for tls in items_mut(object.pointer_mut("/spec/tls")) {
            items_mut(tls.get_mut("hosts")).for_each(|host| replace(Some(host)));
        }
    }

    fn autoscaler(&mut self, object: &mut Value) {
        let range = (1, i64::from(i32::MAX));
        let fields = [("minReplicas", "The fewest pods"), ("maxReplicas", "The most pods")];
        for (field, description) in fields {
            self.number(object.pointer_mut(&format!("/spec/{field}")), &["hpa", field], range, description);
        }
        for metric in items_mut(object.pointer_mut("/spec/metrics")) {
            if metric["resource"]["name"] == "cpu" {
                let field = metric.pointer_mut("/resource/target/averageUtilization");
                let description = "Pods are added above this share of the requested processors, in percent";
                self.number(field, &["hpa", "cpuPercent"], range, description);
            }
        }
    }

    fn budget(&mut self, object: &mut Value) {
        for (field, description) in
            [("maxUnavailable", "The most pods that may be away"), ("minAvailable", "The fewest pods that stay")]
        {
            let range = (0, i64::from(i32::MAX));
            self.number(object.pointer_mut(&format!("/spec/{field}")), &["pdb", field], range, description);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_three_parts() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let whole = format!("host:5000/a/b:1.2@{digest}");
        let image = Image::of(&whole).expect("an image");
        assert_eq!((image.repository, image.tag, image.digest), ("host:5000/a/b", "1.2", digest.as_str()));
        let image = Image::of("host:5000/a").expect("an image");
        assert_eq!((image.repository, image.tag), ("host:5000/a", ""));
        for name in ["", "a:", "a@", "a b", "{{ x }}", "a@sha256:12", "a:x y", ":1"] {
            assert!(Image::of(name).is_none(), "{name}");
        }
    }
}
