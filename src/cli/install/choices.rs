//! What the operator chose: stored in the record of the installation, so that an upgrade without flags repeats it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::arguments::Arguments;
use crate::cli::Failure;
use crate::cli::k3s::node_size;
use crate::deploy::Installation;
use crate::deploy::k3s::{self, Assignment, NodeSize, Options, ValuesFile, Variant};

/// The choices of an installation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Choices {
    /// systemd: where the node listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) listen: Option<SocketAddr>,
    /// systemd: whether the service may use the machine's GPU.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) gpu: bool,
    /// K3s: how big the node is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_size: Option<NodeSize>,
    /// K3s: what is added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    with: Vec<Variant>,
    /// K3s: keys and their values; an empty value is the default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<String, String>,
    /// K3s: a file of settings, below the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<StoredValues>,
    /// The file where this call read it: it knows its lines.
    #[serde(skip)]
    file: Option<ValuesFile>,
    /// Those of a newer release, which stay in the record.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A file of settings, in the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredValues {
    /// Its name, without its folder.
    file: String,
    /// What was in it.
    settings: Map<String, Value>,
}

impl Choices {
    /// Those of what is installed, or of an unfinished installation; none where nothing is.
    ///
    /// # Errors
    /// When the record has others than were ever written.
    pub(super) fn of(record: Option<&Installation>) -> Result<Self, Failure> {
        let Some(record) = record else { return Ok(Self::default()) };
        Self::read(record.chosen())
    }

    /// Reads them as the record has them.
    fn read(chosen: &Map<String, Value>) -> Result<Self, Failure> {
        serde_json::from_value(Value::Object(chosen.clone())).map_err(|_| {
            let variants = chosen.get("with").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let newer: Vec<&str> = variants.filter(|name| name.parse::<Variant>().is_err()).collect();
            if newer.is_empty() {
                return anyhow!("the choices in installation.json are damaged; run `cairn uninstall`, then install with the options that you want").into();
            }
            anyhow!(
                "installation.json has {}, which this release does not know: a newer release wrote it; use that release, or a newer one",
                newer.join(", ")
            )
            .into()
        })
    }

    /// With those of a pod that the command line has: what it does not name stays, and what is newer wins. So a key of a file that is new
    /// replaces what an earlier call set.
    ///
    /// * `values`: the file of `--values`; it takes the place of the one before.
    pub(super) fn for_pod(mut self, arguments: &Arguments, values: Option<ValuesFile>) -> Self {
        if let Some(values) = values {
            self.set.retain(|key, _| !values.sets(key));
            if values.sets("node.size") || values.sets("node.memory") {
                self.node_size = None;
            }
            let name = arguments.values.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            // The same file renders the same, wherever it is.
            let values = values.with_argument(&name);
            self.values = Some(StoredValues { file: name.into_owned(), settings: values.settings() });
            self.file = Some(values);
        }
        let values = self.values();
        let has_size = values.as_ref().is_some_and(|file| file.sets("node.size") || file.sets("node.memory"));
        let of_machine = || (!has_size).then(|| node_size("auto").unwrap_or_default());
        self.node_size = arguments.node_size.or(self.node_size).or_else(of_machine);
        if !arguments.with.is_empty() {
            self.with.clone_from(&arguments.with);
        }
        // A switch adds to what there is.
        if arguments.gpu && !self.with.contains(&Variant::Gpu) {
            self.with.push(Variant::Gpu);
        }
        // What was set for a variant that is not added any more means nothing.
        let is_added = |variant: Variant| {
            self.with.contains(&variant) || values.as_ref().is_some_and(|file| file.sets(variant.name()))
        };
        let groups: BTreeMap<String, Variant> =
            k3s::keys().into_iter().filter_map(|key| Some((key.name, key.variant?))).collect();
        self.set.retain(|key, _| groups.get(key).is_none_or(|variant| is_added(*variant)));
        self.set.extend(arguments.set.iter().map(|one| (one.key.clone(), one.value.clone())));
        self
    }

    /// The file of settings.
    fn values(&self) -> Option<ValuesFile> {
        let stored = || self.values.as_ref().map(|values| ValuesFile::stored(&values.file, &values.settings));
        self.file.clone().or_else(stored)
    }

    /// What the manifests are rendered from.
    pub(super) fn options(&self) -> Options {
        let assignment = |(key, value): (&String, &String)| Assignment { key: key.clone(), value: value.clone() };
        Options {
            values: self.values(),
            size: self.node_size,
            with: self.with.iter().copied().collect(),
            set: self.set.iter().map(assignment).collect(),
            brings_image: true,
            ..Options::default()
        }
    }

    /// The namespace of the pod.
    pub(super) fn namespace(&self) -> &str {
        self.name_at("namespace")
    }

    /// The name of the node in the cluster.
    pub(super) fn name(&self) -> &str {
        self.name_at("name")
    }

    /// What a key is set to whose default is the name of the program.
    fn name_at(&self, key: &str) -> &str {
        let of_file = || self.values.as_ref().and_then(|values| values.settings.get(key)?.as_str());
        // A key that was reset has its default, whatever the file says.
        let name = self.set.get(key).map(String::as_str).or_else(of_file).unwrap_or_default();
        if name.is_empty() { k3s::PROGRAM } else { name }
    }

    /// As the record has them.
    pub(super) fn to_record(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            // A struct with text keys is an object.
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_release_wrote_is_read_and_written_as_it_was() {
        let written = serde_json::json!({
            "listen": "0.0.0.0:7171", "node_size": "small", "with": ["loadbalancer", "gpu"],
            "set": {"namespace": "site", "storage.class": ""},
            "values": {"file": "site.yaml", "settings": {"name": "second", "hosts": ["a.example"], "config": {"search": {"limit": 3}}}},
            "of_a_newer_release": {"a": 1},
        });
        let choices: Choices = serde_json::from_value(written.clone()).expect("choices");
        assert_eq!(Value::Object(choices.to_record()), written);
        assert_eq!((choices.namespace(), choices.name()), ("site", "second"));
        assert_eq!(Choices::default().to_record(), Map::new());
        let service = serde_json::json!({"listen": "0.0.0.0:7171", "gpu": true});
        let choices: Choices = serde_json::from_value(service.clone()).expect("choices");
        assert!(choices.gpu);
        assert_eq!(Value::Object(choices.to_record()), service);
        assert_eq!((Choices::default().namespace(), Choices::default().name()), ("cairn", "cairn"));
    }

    /// The options of a command line.
    fn arguments(texts: &[&str]) -> Arguments {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let line = <Line as clap::Parser>::try_parse_from([&["install"], texts].concat());
        line.unwrap_or_else(|error| panic!("{error}")).arguments
    }

    fn keys(choices: &Choices) -> Vec<&str> {
        choices.set.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_switch_for_a_gpu_adds_to_what_was_chosen() {
        let chosen = Choices::default().for_pod(&arguments(&["--with", "loadbalancer"]), None);
        let chosen = chosen.for_pod(&arguments(&["--gpu"]), None);
        assert_eq!(chosen.with, [Variant::LoadBalancer, Variant::Gpu]);
        assert_eq!(chosen.clone().for_pod(&arguments(&["--gpu"]), None).with, chosen.with);
        assert_eq!(
            chosen.for_pod(&arguments(&["--with", "ingress", "--gpu"]), None).with,
            [Variant::Ingress, Variant::Gpu]
        );
    }

    #[test]
    fn a_variant_can_be_dropped_with_what_was_set_for_it() {
        let chosen = arguments(&["--with", "documents", "--set", "documents.config-map=x", "--set", "namespace=site"]);
        let chosen = Choices::default().for_pod(&chosen, None);
        assert_eq!(keys(&chosen), ["documents.config-map", "namespace"]);
        let dropped = chosen.clone().for_pod(&arguments(&["--with", "loadbalancer"]), None);
        assert_eq!(keys(&dropped), ["namespace"]);
        assert!(k3s::Settings::new(&dropped.options()).is_ok());
        let reset = ["--with", "loadbalancer", "--set", "documents.config-map="];
        assert!(k3s::Settings::new(&chosen.clone().for_pod(&arguments(&reset), None).options()).is_ok());
        // What this command line has is a mistake of it.
        let set = ["--with", "loadbalancer", "--set", "documents.config-map=y"];
        assert!(k3s::Settings::new(&chosen.for_pod(&arguments(&set), None).options()).is_err());
    }

    #[test]
    fn what_a_newer_release_chose_is_told_from_damage() {
        let said = |text: &str| {
            let chosen: Map<String, Value> = serde_json::from_str(text).expect("JSON");
            Choices::read(&chosen).expect_err("not ours").error.to_string()
        };
        let newer = said(r#"{"with": ["loadbalancer", "teleport"]}"#);
        assert!(newer.contains("teleport") && newer.contains("newer release"), "{newer}");
        assert!(said(r#"{"with": 3}"#).contains("damaged"));
    }
}
