//! A stack as charts of Helm: one of the stack, and in it one of each service.
//!
//! The charts of the services are in the folder `charts` of the other, where Helm needs no registry, no lock file and no step beforehand.
//! Helm installs everything at once, so the phases are files of values: each installs the services of its
//! phase and those before it, and `helm upgrade --install --wait` ends when they are ready.
//!
//! Invariants: with the default values Helm prints every object of the plain files, but the Namespace and the Secrets, and nothing else.
//! No value of a Secret, and no variable that looks like one, is in a file of values.

mod fields;
mod settings;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use self::fields::{Image, Scope};
use self::settings::Settings;
use self::template::verbatim;
use super::folder::OutputFile;
use super::objects::{Home, KubeObject, folded};
use crate::deploy::manifest;

/// The version of every chart. It is the user's to raise.
const VERSION: &str = "0.1.0";
/// The annotation of a chart with the phase in which its service starts, from 1 on.
const PHASE: &str = "cairn.local/phase";
/// The first level of the sizes of volumes that services share. No service has this name, which has a capital.
const SHARED_STORAGE: &str = "sharedVolumes";
/// What Helm reads in every chart under one name, so that no chart can have it.
const GLOBAL: &str = "global";
/// Files of editors and of version control.
const IGNORED: &str = ".git/\n.gitignore\n*.bak\n*.orig\n*.swp\n*~\n";

/// The charts of a stack, below `charts/`.
///
/// * `stack`: the name of the stack.
/// * `namespace`: that of the objects.
/// * `phases`: names of objects of services; those of the first start first. A service that is in none starts with the first.
#[must_use]
pub fn charts(objects: &[(Home, KubeObject)], stack: &str, namespace: &str, phases: &[Vec<String>]) -> Vec<OutputFile> {
    let objects: Vec<(&Home, Value)> = objects
        .iter()
        .map(|(home, object)| (home, serde_json::to_value(object).expect("an object is plain data")))
        .collect();
    let charts = Charts { objects, stack, name: folded(stack, 53), namespace, phases };
    charts.files()
}

struct Charts<'a> {
    objects: Vec<(&'a Home, Value)>,
    stack: &'a str,
    /// Of the chart of the stack.
    name: String,
    namespace: &'a str,
    phases: &'a [Vec<String>],
}

impl Charts<'_> {
    fn files(&self) -> Vec<OutputFile> {
        let services: BTreeSet<&str> = self.objects.iter().filter_map(|(home, _)| service_of(home)).collect();
        let mut files = self.of_stack(&services);
        for service in services {
            files.extend(self.of_service(service));
        }
        files
    }

    /// The objects of a home that charts have.
    fn of_home(&self, is_home: impl Fn(&Home) -> bool) -> Vec<&Value> {
        let is_of_charts = |object: &Value| object["kind"] != "Secret" && object["kind"] != "Namespace";
        let all = self.objects.iter().filter(|(home, object)| is_home(home) && is_of_charts(object));
        all.map(|(_, object)| object).collect()
    }

    /// The phase of a service, from 1 on.
    fn phase(&self, service: &str) -> usize {
        self.phases.iter().position(|phase| phase.iter().any(|name| name == service)).map_or(1, |place| place + 1)
    }

    /// The Secrets that a chart needs, with the files that have them.
    fn secrets(&self, is_home: impl Fn(&Home) -> bool) -> BTreeMap<String, String> {
        let all = self.objects.iter().filter(|(home, object)| is_home(home) && object["kind"] == "Secret");
        all.filter_map(|(home, object)| {
            let file = match service_of(home) {
                Some(name) => format!("services/{name}-secret.yaml"),
                None => "secrets.yaml".to_owned(),
            };
            Some((object["metadata"]["name"].as_str()?.to_owned(), file))
        })
        .collect()
    }

    fn of_service(&self, service: &str) -> Vec<OutputFile> {
        let objects = self.of_home(|home| service_of(home) == Some(service));
        let chart = chart_of(service);
        let sizes = BTreeMap::new();
        let scope = Scope {
            chart: &chart,
            container: Some(service),
            namespace: self.namespace,
            sizes: &sizes,
            storage: "storage",
        };
        let mut settings = Settings::default();
        let enabled = json!({ "type": "boolean", "description": "Whether the chart of the stack installs this one" });
        settings.add(&["enabled"], json!(true), enabled);
        let mut folder = Folder::new(format!("charts/{}/charts/{chart}", self.name));
        folder.templates(&objects, &scope, &mut settings);
        let helper = format!(
            "{{{{- define \"{chart}.image\" -}}}}\n{{{{ .repository }}}}{{{{ with .tag }}}}:{{{{ . }}}}{{{{ end }}}}\
             {{{{ with .digest }}}}@{{{{ . }}}}{{{{ end }}}}\n{{{{- end }}}}\n"
        );
        let image = objects.iter().find_map(|object| fields::image_of(object, &scope)).and_then(Image::of);
        if image.is_some() {
            folder.add("templates/_helpers.tpl", helper);
        }
        let phase = self.phase(service);
        let mut chart_file = json!({
            "apiVersion": "v2",
            "name": chart,
            "description": format!("The service {service} of the stack {}", self.name),
            "type": "application",
            "version": VERSION,
            "annotations": { PHASE: phase.to_string() },
        });
        if let Some(tag) = image.map(|image| image.tag).filter(|tag| !tag.is_empty()) {
            chart_file["appVersion"] = json!(tag);
        }
        folder.add("Chart.yaml", manifest::to_yaml(&chart_file));
        let head = format!("What people change about the service {service}; values.schema.json says what is right.");
        folder.add("values.yaml", settings.values(&head, comment));
        folder.add("values.schema.json", settings.schema());
        let secrets = self.secrets(|home| service_of(home) == Some(service));
        let shared =
            "It uses volumes, configs and Secrets that the chart around it has, or that are applied before it.";
        let text = format!("# {chart}\n\n{}. {shared}\n{}", chart_file["description"].as_str().unwrap_or_default(), {
            secret_list(&secrets)
        });
        folder.add("README.md", text);
        folder.files
    }

    fn of_stack(&self, services: &BTreeSet<&str>) -> Vec<OutputFile> {
        let objects = self.of_home(|home| service_of(home).is_none());
        let mut settings = Settings::default();
        let namespace =
            json!({ "type": "string", "pattern": fields::DNS_LABEL, "description": "The namespace of the objects" });
        settings.add(&[GLOBAL, "namespace"], json!(self.namespace), namespace);
        let sizes = fields::sizes(&objects, SHARED_STORAGE, &mut settings);
        let scope = Scope {
            chart: &self.name,
            container: None,
            namespace: self.namespace,
            sizes: &sizes,
            storage: SHARED_STORAGE,
        };
        let mut folder = Folder::new(format!("charts/{}", self.name));
        folder.templates(&objects, &scope, &mut settings);
        let mut dependencies = Vec::new();
        for service in services {
            let chart = chart_of(service);
            dependencies.push(json!({ "name": chart, "version": VERSION, "condition": format!("{chart}.enabled") }));
            // The chart of the service has a schema of all of its values.
            let schema = json!({
                "type": "object",
                "properties": { "enabled": { "type": "boolean" } },
                "description": format!("Values of the service {service}, as in charts/{chart}/values.yaml"),
            });
            settings.add(&[&chart], json!({ "enabled": true }), schema);
        }
        let mut chart_file = json!({
            "apiVersion": "v2",
            "name": self.name,
            "description": format!("The stack {}", self.name),
            "type": "application",
            "version": VERSION,
        });
        if !dependencies.is_empty() {
            chart_file["dependencies"] = Value::Array(dependencies);
        }
        folder.add("Chart.yaml", manifest::to_yaml(&chart_file));
        let head = format!("What people change about the stack {}; values.schema.json says what is right.", self.name);
        folder.add("values.yaml", settings.values(&head, comment));
        folder.add("values.schema.json", settings.schema());
        for (name, text) in self.phase_files(services) {
            folder.add(&name, text);
        }
        let secrets = self.secrets(|_| true);
        folder.add("templates/NOTES.txt", verbatim(&self.notes(&secrets)));
        folder.add("README.md", self.readme(services, &secrets));
        folder.files
    }

    /// Values with which a phase is installed, by the name of the file. Each file has a value for each service: without any, Helm would use
    /// those of the upgrade before.
    fn phase_files(&self, services: &BTreeSet<&str>) -> Vec<(String, String)> {
        let count = self.phase_count();
        let width = count.to_string().len();
        let file = |phase: usize| {
            let enabled: BTreeMap<String, Value> = services
                .iter()
                .map(|service| (chart_of(service), json!({ "enabled": self.phase(service) <= phase })))
                .collect();
            let text =
                format!("# What is installed when phase {phase} of {count} ends.\n{}", manifest::to_yaml(&enabled));
            (format!("phases/{phase:0width$}.yaml"), text)
        };
        (1..=count).map(file).collect()
    }

    fn phase_count(&self) -> usize {
        self.phases.len().max(1)
    }

    fn notes(&self, secrets: &BTreeMap<String, String>) -> String {
        let mut text = format!("The stack {} is in the namespace {}.\n", self.name, self.namespace);
        if !secrets.is_empty() {
            let names: Vec<&str> = secrets.keys().map(String::as_str).collect();
            text.push_str(&format!(
                "Its pods wait until these Secrets are there, which no chart has: {}.\n",
                names.join(", ")
            ));
        }
        text
    }

    fn readme(&self, services: &BTreeSet<&str>, secrets: &BTreeMap<String, String>) -> String {
        let Self { name, namespace, .. } = self;
        let files: BTreeSet<&str> = secrets.values().map(String::as_str).collect();
        let applied: String = ["namespace.yaml"].into_iter().chain(files).map(|file| format!(" -f {file}")).collect();
        let mut phases = String::from("| phase | services |\n|---|---|\n");
        for phase in 1..=self.phase_count() {
            let all: Vec<&str> = services.iter().copied().filter(|service| self.phase(service) == phase).collect();
            phases.push_str(&format!("| {phase} | {} |\n", all.join(", ")));
        }
        let title = match self.stack == name {
            true => format!("# {name}\n\nThe stack as a chart of Helm"),
            false => format!("# {name}\n\nThe stack {:?} as a chart of Helm", self.stack),
        };
        format!(
            "{title}, with a chart of each service in `charts/`. With the default values, `helm template` prints the \
             objects of the plain files next to `charts/`, but for the Namespace, which `helm uninstall` would delete \
             with all that is in it, and for the Secrets, whose values are in no chart.\n\
             {}\n## Install\n\nIn the folder of the plain files:\n\n\
             ```sh\nkubectl apply{applied}\nfor phase in charts/{name}/phases/*.yaml; do\n  \
             helm upgrade --install {name} charts/{name} --namespace {namespace} --wait --wait-for-jobs --values \"$phase\" || break\n\
             done\n```\n\n\
             Each phase waits until its services are ready, and the next one starts those that need them:\n\n{phases}\n\
             The phases are for the first time: a phase removes the services of later ones. After that, \
             `helm upgrade {name} charts/{name} --namespace {namespace}` is enough; without `--values` it uses those of the \
             upgrade before. Where `kubectl apply -k` made the \
             objects, add `--take-ownership` once.\n\n\
             ## Values\n\n\
             `values.yaml` has what concerns the stack, `charts/SERVICE/values.yaml` what concerns a service. Write what \
             differs into a file of your own, the values of a service below its name, and give it with `--values`:\n\n\
             ```yaml\n{}:\n  resources:\n    limits:\n      memory: 1Gi\n```\n\n\
             A value that a schema does not know is refused. Variables are texts: write `PORT: \"8080\"`, or use \
             `--set-string`. Variables that look like passwords are not values; they are in the templates as they were in \
             the stack. Values of `env` are as Kubernetes reads them: `$(NAME)` is another \
             variable, `$$` is `$`. For another namespace set `global.namespace`, and give the same to `--namespace`. \
             A Job cannot be changed: delete it before an upgrade that changes it.\n",
            secret_list(secrets),
            services.first().map_or("SERVICE".to_owned(), |service| chart_of(service)),
        )
    }
}

/// The Secrets that have to be there, for people.
fn secret_list(secrets: &BTreeMap<String, String>) -> String {
    if secrets.is_empty() {
        return String::new();
    }
    let lines: String = secrets.iter().map(|(name, file)| format!("* `{name}`, in `{file}`\n")).collect();
    format!("\nThese Secrets have to be in the namespace before, from the plain files:\n\n{lines}")
}

/// A comment of a first level of values.
fn comment(section: &str) -> String {
    match section {
        "enabled" => "Read by the chart of the stack, which installs this one or does not.",
        "env" => "Variables, as Kubernetes reads them: $(NAME) is another variable, $$ is $.",
        GLOBAL => "Read by the charts of all services.",
        "hpa" => "When pods are added.",
        "image" => "REPOSITORY:TAG@DIGEST. Where there is a digest, it decides.",
        "ingress" => "Names under which the service is reached, in the order of the rules.",
        "pdb" => "How many pods may be away at once, when nodes are drained.",
        "replicas" => "How many pods there are.",
        "resources" => "What the container may use, and what is reserved for it.",
        "schedule" => "When it runs, as cron has it.",
        "service" => "How the Services are reached, and published ports.",
        "storage" | SHARED_STORAGE => {
            "Volumes by the names of their claims. Kubernetes changes no claim of a StatefulSet afterwards."
        }
        service => return format!("The service {service}: charts/{service}/values.yaml has the other values."),
    }
    .to_owned()
}

fn service_of(home: &Home) -> Option<&str> {
    match home {
        Home::Service(name) => Some(name),
        _ => None,
    }
}

/// The name of the chart of a service, which is the first level of its values.
fn chart_of(service: &str) -> String {
    // Names of services have no underscore.
    if service == GLOBAL { format!("{GLOBAL}_") } else { service.to_owned() }
}

/// The files of a chart.
struct Folder {
    path: String,
    files: Vec<OutputFile>,
}

impl Folder {
    fn new(path: String) -> Self {
        let mut folder = Self { path, files: Vec::new() };
        folder.add(".helmignore", IGNORED.to_owned());
        folder
    }

    fn add(&mut self, name: &str, text: String) {
        self.files.push(OutputFile { name: format!("{}/{name}", self.path), text, mode: 0o644 });
    }

    /// A template of each kind.
    fn templates(&mut self, objects: &[&Value], scope: &Scope<'_>, settings: &mut Settings) {
        let mut by_kind: BTreeMap<&str, String> = BTreeMap::new();
        for object in objects {
            let text = by_kind.entry(file_of(object["kind"].as_str().unwrap_or_default())).or_default();
            if !text.is_empty() {
                text.push_str("---\n");
            }
            text.push_str(&fields::template(object, scope, settings));
        }
        for (name, text) in by_kind {
            self.add(&format!("templates/{name}.yaml"), text);
        }
    }
}

/// The name of the template of a kind.
fn file_of(kind: &str) -> &'static str {
    match kind {
        "ConfigMap" => "configmap",
        "PersistentVolume" => "persistentvolume",
        "PersistentVolumeClaim" => "persistentvolumeclaim",
        "Service" => "service",
        "Deployment" => "deployment",
        "StatefulSet" => "statefulset",
        "DaemonSet" => "daemonset",
        "Job" => "job",
        "CronJob" => "cronjob",
        "Ingress" => "ingress",
        "NetworkPolicy" => "networkpolicy",
        "PodDisruptionBudget" => "pdb",
        "HorizontalPodAutoscaler" => "hpa",
        "ExternalSecret" => "externalsecret",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn service(name: &str) -> (Home, KubeObject) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        (Home::Service(name.to_owned()), Service { metadata, ..Service::default() }.into())
    }

    fn text<'a>(files: &'a [OutputFile], name: &str) -> &'a str {
        &files.iter().find(|file| file.name == name).unwrap_or_else(|| panic!("{name} in {files:#?}")).text
    }

    #[test]
    fn names_of_charts_are_legal_and_of_no_other_meaning() {
        let files = charts(&[service("global"), service("web")], "My Stack!", "shop", &[]);
        assert!(text(&files, "charts/my-stack/Chart.yaml").contains("\nname: my-stack\n"));
        assert!(text(&files, "charts/my-stack/charts/global_/Chart.yaml").contains("\nname: global_\n"));
        assert!(text(&files, "charts/my-stack/values.yaml").contains("\nglobal_:\n  enabled: true\n"));
        assert!(files.iter().all(|file| file.mode == 0o644));
    }

    #[test]
    fn a_service_without_a_phase_starts_with_the_first() {
        let phases: Vec<Vec<String>> = (0..10).map(|number| vec![format!("s{number}")]).collect();
        let files = charts(&[service("s0"), service("s9"), service("web")], "shop", "shop", &phases);
        let enabled = |name: &str| text(&files, &format!("charts/shop/phases/{name}.yaml")).to_owned();
        assert!(enabled("01").ends_with("s0:\n  enabled: true\ns9:\n  enabled: false\nweb:\n  enabled: true\n"));
        assert!(enabled("10").ends_with("s0:\n  enabled: true\ns9:\n  enabled: true\nweb:\n  enabled: true\n"));
        assert!(text(&files, "charts/shop/charts/s9/Chart.yaml").contains("cairn.local/phase: '10'"));
    }
}
