//! From files to files: reads a stack, makes its objects, and writes what became of every leaf.
//!
//! Invariants: equal input gives equal bytes. The files of Kustomize name every object's file; the report has an entry for each leaf.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde_json::json;

use super::data::{self, VolumeNeed};
use super::defaults;
use super::folder::{OutputFile, REPORT};
use super::helm;
use super::images::{ImageQuery, Images, ImagesError};
use super::keys::{Fate, key_of};
use super::live::{self, LiveError, SwarmNode};
use super::load::{self, LoadError};
use super::objects::{self, Context, Home, KubeObject, Names, NodeLabel, Options, With, folded};
use super::read;
use super::report::{Ledger, Outcome, Report};
use super::stack::{Mount, MountKind, Stack};
use super::{Dialect, Item, Leaves, Mistake, Path as LeafPath, Source, SourceError};
use crate::base::Fault;
use crate::deploy::manifest;

/// The script that labels the nodes of the cluster as those of the swarm.
const NODES: &str = "label-nodes.sh";

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Stack files in the order in which they are merged, or the JSON of a running stack. `-` is standard input.
    pub files: Vec<PathBuf>,
    /// The name of the stack.
    pub stack: Option<String>,
    /// The program that the files are for; `None`: what they look like.
    pub dialect: Option<Dialect>,
    /// The variables that the files name.
    pub env_file: Option<PathBuf>,
    /// Profiles of a Compose file.
    pub profiles: Vec<String>,
    /// Whether files outside the stack's folder are read.
    pub allow_outside: bool,
    /// Where the objects are; `None`: the name of the stack.
    pub namespace: Option<String>,
    /// Archives of images.
    pub images: Vec<PathBuf>,
    /// The content of secrets by name.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The content of configs by name.
    pub configs: BTreeMap<String, Vec<u8>>,
    /// Objects that a stack does not ask for.
    pub with: BTreeSet<With>,
    /// Whether rights are taken away that Swarm gave.
    pub harden: bool,
    /// Whether passwords in plain variables become Secrets.
    pub moves_passwords: bool,
    /// Whether charts of Helm are written, too.
    pub helm: bool,
    /// The ClusterSecretStore of [`With::ExternalSecrets`]; `None`: `default`.
    pub secret_store: Option<String>,
}

/// Why a stack was not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    /// A file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The files are not a stack.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The JSON is that of no running stack.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The archives have other things than images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// What the files say is wrong.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
    /// Something in the command line does not fit.
    #[error("{0}")]
    Request(String),
}

impl ConversionError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Source(error) => error.fault(),
            Self::Load(error) => error.fault(),
            Self::Live(error) => error.fault(),
            Self::Images(error) => error.fault(),
            Self::Mistakes(_) | Self::Request(_) => Fault::Caller,
        }
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A stack that was converted.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// Its name.
    pub stack: String,
    /// Where its objects are.
    pub namespace: String,
    /// The program that its files are for.
    pub dialect: Dialect,
    /// How that is known.
    pub dialect_reason: String,
    /// The names of the objects of services, with those of the services that each needs.
    pub depends_on: BTreeMap<String, Vec<String>>,
    /// The volumes whose data somebody has to bring.
    pub volumes: Vec<VolumeNeed>,
    /// Everything that is written.
    pub files: Vec<OutputFile>,
    /// What became of each leaf.
    pub report: Report,
    /// What the user should know of the files.
    pub warnings: Vec<Mistake>,
}

impl Conversion {
    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let counts: BTreeMap<&str, usize> =
            Outcome::ALL.iter().map(|outcome| (outcome.as_str(), self.report.count(*outcome))).collect();
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).chain([REPORT]).collect();
        json!({
            "stack": self.stack,
            "namespace": self.namespace,
            "dialect": self.dialect.to_string(),
            "dialect_reason": self.dialect_reason,
            "complete": self.report.is_complete(),
            "counts": counts,
            "depends_on": self.depends_on,
            "volumes": self.volumes,
            "cannot_move": self.report.cannot_move,
            "warnings": self.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "files": names.into_iter().collect::<BTreeSet<_>>(),
            "entries": self.report.entries,
        })
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stack => "stack",
            Self::Compose => "compose",
        })
    }
}

/// A stack with what is known of its leaves.
struct Input {
    stack: Stack,
    ledger: Ledger,
    reason: String,
    warnings: Vec<Mistake>,
    nodes: Vec<SwarmNode>,
}

/// Converts a stack.
///
/// # Errors
/// See [`ConversionError`].
pub fn convert(request: &Request) -> Result<Conversion, ConversionError> {
    let Input { mut stack, mut ledger, reason, mut warnings, nodes } = input(request)?;
    in_order(&mut stack);
    defaults::strip(&mut stack, &mut ledger);
    check_contents(request, &stack)?;
    let namespace = request.namespace.clone().unwrap_or_else(|| folded(&stack.name, 63));
    if namespace != folded(&namespace, 63) {
        let message = format!("--namespace {namespace}: expected a DNS label, such as {}", folded(&namespace, 63));
        return Err(ConversionError::Request(message));
    }
    let images = images(request, &stack)?;
    let missing =
        images.missing(stack.services.iter().filter_map(|service| Some(service.image.as_ref()?.value.as_str())));
    if !request.images.is_empty() {
        for image in missing {
            let at =
                stack.services.iter().find(|service| service.image.as_ref().is_some_and(|other| other.value == image));
            warnings.extend(at.map(|service| Mistake {
                at: service.at.clone(),
                message: format!("{image} is in none of the archives of --images"),
            }));
        }
    }
    let options = Options {
        namespace: namespace.clone(),
        with: request.with.clone(),
        harden: request.harden,
        moves_passwords: request.moves_passwords,
        secret_store: request.secret_store.clone().unwrap_or_else(|| "default".to_owned()),
        secrets: request.secrets.clone(),
        configs: request.configs.clone(),
    };
    let names = Names::of(&stack);
    let context = Context { stack: &stack, options: &options, names: &names, images: &images };
    let built = objects::build(&context, &mut ledger);
    rest(&stack, &mut ledger);
    let volumes = data::of_conversion(&stack, &names, &namespace, &built.objects);
    let mut files = manifests(&built.objects)?;
    if request.helm {
        files.extend(helm::charts(&built.objects, &stack.name, &namespace, &built.order.phases));
    }
    files.push(node_script(&built.node_labels, &nodes));
    let report = ledger.finish();
    let mut conversion = Conversion {
        stack: stack.name.clone(),
        namespace,
        dialect: stack.dialect,
        dialect_reason: reason,
        depends_on: built.order.depends_on,
        volumes,
        files,
        report,
        warnings,
    };
    conversion.add_reports();
    Ok(conversion)
}

/// Reads files, or the JSON of a running stack.
fn input(request: &Request) -> Result<Input, ConversionError> {
    let mut sources = Vec::new();
    for path in request.files.iter().filter(|path| path.as_os_str() != "-") {
        sources.push(Source::read(path)?);
    }
    let live = sources.iter().filter(|source| is_inspection(source)).count();
    if live > 0 && live < request.files.len() {
        let message = "found files of a stack and the JSON of a running one; convert the one or the other";
        return Err(ConversionError::Request(message.to_owned()));
    }
    if live > 0 {
        let found = live::read(&sources, request.stack.as_deref())?;
        let mut ledger = Ledger::new(found.leaves);
        for (leaf, outcome, reason) in found.outcomes {
            ledger.mark(leaf, outcome, reason, None);
        }
        let reason = "the JSON of a running stack".to_owned();
        return Ok(Input { stack: found.stack, ledger, reason, warnings: Vec::new(), nodes: found.nodes });
    }
    from_files(request)
}

/// Whether a file is what `docker … inspect` prints, or the script that collects it.
fn is_inspection(source: &Source) -> bool {
    let text = source.text().trim_start();
    text.starts_with('[') || text.starts_with('{') && text.contains("\"cairn_swarm\"")
}

fn from_files(request: &Request) -> Result<Input, ConversionError> {
    let loaded = load::load(&load::Request {
        files: request.files.clone(),
        dialect: request.dialect,
        env_file: request.env_file.clone(),
        profiles: request.profiles.clone(),
        allow_outside: request.allow_outside,
    })?;
    let name = request.stack.clone().or(loaded.name).unwrap_or_else(|| {
        let folder = loaded.files.root().file_name().map(|name| name.to_string_lossy().into_owned());
        folder.unwrap_or_else(|| "stack".to_owned())
    });
    let mut leaves = Leaves::default();
    let tree = Item::number(&loaded.tree, LeafPath::default(), &mut leaves);
    let variables = loaded.variables;
    let lookup = |name: &str| variables.get(name).cloned();
    let found = read::read_with(&tree, &name, loaded.dialect, &loaded.files, &leaves, &lookup)
        .map_err(ConversionError::Mistakes)?;
    let replaced: Vec<_> =
        loaded.replaced.into_iter().map(|one| (leaves.push(one.written), one.outcome, one.reason)).collect();
    let mut ledger = Ledger::new(leaves);
    for (leaf, outcome, reason) in replaced {
        ledger.mark(leaf, outcome, reason, None);
    }
    for remark in found.remarks {
        ledger.mark(remark.leaf, remark.outcome, remark.reason, None);
    }
    let refused = found.stack.services.iter().filter_map(|service| objects::refused(service, ledger.leaves()));
    let refused: Vec<Mistake> = refused.collect();
    if !refused.is_empty() {
        // A variable without a value is often why.
        let is_here = |warning: &&Mistake| refused.iter().any(|mistake| mistake.at == warning.at);
        let because: Vec<Mistake> = loaded.warnings.iter().filter(is_here).cloned().collect();
        return Err(ConversionError::Mistakes(refused.into_iter().chain(because).collect()));
    }
    let held = read::leaves_of(&found.stack);
    for leaf in tree.leaves() {
        if !held.contains(&leaf) && !ledger.is_marked(leaf) {
            by_table(leaf, loaded.dialect, &mut ledger);
        }
    }
    Ok(Input {
        stack: found.stack,
        ledger,
        reason: loaded.dialect_reason,
        warnings: loaded.warnings,
        nodes: Vec::new(),
    })
}

/// Sorts what is a set to Docker and a list in a file, so that equal stacks give equal bytes.
fn in_order(stack: &mut Stack) {
    for service in &mut stack.services {
        service.mounts.sort_by(|one, other| one.target.value.cmp(&other.target.value));
        for files in [&mut service.configs, &mut service.secrets] {
            files.sort_by_cached_key(|file| file.target.as_ref().unwrap_or(&file.source).value.clone());
        }
    }
}

/// What the table of keys says of a leaf that no type has a field for.
fn by_table(leaf: super::Leaf, dialect: Dialect, ledger: &mut Ledger) {
    let path = ledger.leaves().written(leaf).path.clone();
    let (outcome, reason) = match key_of(&path) {
        Some(key) => (key.fate(dialect).outcome(), key.reason(dialect).to_owned()),
        None => (Fate::Ignored.outcome(), "Docker ignores it, so the service never had it.".to_owned()),
    };
    ledger.mark(leaf, outcome, reason, None);
}

/// Leaves that a type has a field for, and that no module wrote: the table of keys may know why.
fn rest(stack: &Stack, ledger: &mut Ledger) {
    for leaf in ledger.unmarked() {
        let path = ledger.leaves().written(leaf).path.clone();
        let known = key_of(&path).filter(|key| key.fate(stack.dialect).outcome() > Outcome::Converted);
        if let Some(key) = known {
            ledger.mark(leaf, key.fate(stack.dialect).outcome(), key.reason(stack.dialect).to_owned(), None);
        }
    }
}

/// `--secret` and `--config` name what the stack has.
fn check_contents(request: &Request, stack: &Stack) -> Result<(), ConversionError> {
    for (option, given, payloads) in
        [("--secret", &request.secrets, &stack.secrets), ("--config", &request.configs, &stack.configs)]
    {
        for name in given.keys() {
            if !payloads.iter().any(|payload| payload.key == *name) {
                let names: Vec<&str> = payloads.iter().map(|payload| payload.key.as_str()).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(ConversionError::Request(format!(
                    "{option} {name}: the stack has nothing of this name; it has {known}"
                )));
            }
        }
    }
    Ok(())
}

fn images(request: &Request, stack: &Stack) -> Result<Images, ConversionError> {
    if request.images.is_empty() {
        return Ok(Images::default());
    }
    let is_volume = |mount: &&Mount| mount.kind.value == MountKind::Volume;
    let mounts = stack.services.iter().flat_map(|service| &service.mounts).filter(is_volume);
    let folders: BTreeSet<String> = mounts.map(|mount| mount.target.value.clone()).collect();
    let query = ImageQuery { platform: None, folders: folders.into_iter().collect() };
    Ok(Images::read(&request.images, &query, &|_| {})?)
}

/// The files of the objects, and that of Kustomize.
fn manifests(objects: &[(Home, KubeObject)]) -> Result<Vec<OutputFile>, ConversionError> {
    let mut seen = BTreeSet::new();
    let mut by_file: BTreeMap<String, (String, u32)> = BTreeMap::new();
    for (home, object) in objects {
        let name = object.metadata().name.clone().unwrap_or_default();
        if !seen.insert((object.kind(), name.clone())) {
            return Err(ConversionError::Request(format!(
                "two things of the stack would be {} {name}; rename one of them in the stack",
                object.kind()
            )));
        }
        let (file, mode) = file_of(home, object);
        let entry = by_file.entry(file).or_insert_with(|| (String::new(), mode));
        entry.1 = entry.1.min(mode);
        if !entry.0.is_empty() {
            entry.0.push_str("---\n");
        }
        entry.0.push_str(&manifest::to_yaml(object));
    }
    let resources: String = by_file.keys().map(|name| format!("- {name}\n")).collect();
    let kustomization =
        format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}");
    let files = by_file.into_iter().map(|(name, (text, mode))| OutputFile { name, text, mode });
    let kustomization = OutputFile { name: "kustomization.yaml".to_owned(), text: kustomization, mode: 0o644 };
    Ok(files.chain([kustomization]).collect())
}

/// The file that an object is in. What holds secrets is readable by its owner only.
fn file_of(home: &Home, object: &KubeObject) -> (String, u32) {
    let mode = if matches!(object, KubeObject::Secret(_)) { 0o600 } else { 0o644 };
    let name = match home {
        Home::Namespace => "namespace.yaml".to_owned(),
        Home::Volumes => "volumes.yaml".to_owned(),
        Home::Configs => "configs.yaml".to_owned(),
        Home::Secrets => "secrets.yaml".to_owned(),
        Home::Networks => "networks.yaml".to_owned(),
        Home::Service(name) if mode == 0o600 => format!("services/{name}-secret.yaml"),
        Home::Service(name) => format!("services/{name}.yaml"),
    };
    (name, mode)
}

/// The commands that label nodes. Those of a running swarm are known by name; of others the label alone is.
fn node_script(labels: &BTreeSet<NodeLabel>, nodes: &[SwarmNode]) -> OutputFile {
    let mut text = String::from(
        "#!/bin/sh\n# Labels that the services ask of nodes. The nodes of the cluster may have other names than those of the swarm: check each line.\nset -eu\n",
    );
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    if labels.is_empty() {
        text.push_str("# No service asks for a label.\n");
    }
    for label in labels {
        let owners: Vec<(&str, String)> = nodes
            .iter()
            .filter_map(|node| {
                let all = node.labels.iter().chain(&node.engine_labels);
                let value = all.into_iter().find(|(key, _)| *key == label.key)?.1.clone();
                Some((node.hostname.as_str(), value))
            })
            .collect();
        let value = label.value.clone().unwrap_or_else(|| "VALUE".to_owned());
        if owners.is_empty() {
            text.push_str(&format!("# kubectl label node NODE {}\n", quoted(&format!("{}={value}", label.key))));
        }
        for (node, value) in owners {
            let pair = quoted(&format!("{}={value}", label.key));
            text.push_str(&format!("kubectl label --overwrite node {} {pair}\n", quoted(node)));
        }
    }
    let mut lines = BTreeSet::new();
    let unique: String = text.lines().filter(|line| lines.insert(*line)).map(|line| format!("{line}\n")).collect();
    OutputFile { name: NODES.to_owned(), text: unique, mode: 0o755 }
}

impl Conversion {
    fn add_reports(&mut self) {
        let title = format!(
            "# Stack {} on Kubernetes\n\nNamespace {}. Read as a file for {}: {}.\n\n",
            self.stack,
            self.namespace,
            match self.dialect {
                Dialect::Stack => "`docker stack deploy`",
                Dialect::Compose => "`docker compose`",
            },
            self.dialect_reason,
        );
        let mut text = title + &self.report.markdown();
        if !self.warnings.is_empty() {
            text.push_str("\n## Warnings\n\n");
            self.warnings.iter().for_each(|warning| text.push_str(&format!("* {warning}\n")));
        }
        self.files.push(OutputFile { name: "report.md".to_owned(), text, mode: 0o644 });
        let json = format!("{:#}\n", self.json());
        self.files.push(OutputFile { name: REPORT.to_owned(), text: json, mode: 0o644 });
    }
}
