//! Configs and secrets: their objects, and the files that containers have of them.
//!
//! Invariants: nothing is made up for a secret or a config whose content is not known; the pod waits for it. A mount is one file, so that what
//! is next to it stays. No content of a secret, and no part of it, gets into the ledger.

mod rights;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, Secret, SecretVolumeSource, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::rights::Rights;
use super::storage::{Plan, Pod, Stored, is_annotation, unprotected};
use super::text::{Identity, Scope};
use super::{Context, Home, KubeObject, With, folded};
use crate::deploy::external_secret::{ExternalSecret, StoreEntry};
use crate::migrate::Dialect;
use crate::migrate::leaf::Leaf;
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::{FileMount, Payload, Service};

/// Most bytes of the data of a ConfigMap or a Secret (Kubernetes, `MaxSecretSize`).
const BYTES_MAX: usize = 1 << 20;
/// Most services for which placeholders of one content are filled in.
const USERS_MAX: usize = 32;
/// Longest key in a ConfigMap or a Secret.
const KEY_LENGTH_MAX: usize = 253;

/// A file that is not secret, or one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Config,
    Secret,
}

impl Kind {
    /// The key of a payload in its object: what Swarm calls it, without the name of the stack.
    fn data_key(self, key: &str, context: &Context<'_>) -> String {
        data_key(match self {
            Self::Config => context.names.config_in_swarm(key),
            Self::Secret => context.names.secret_in_swarm(key),
        })
    }

    fn object(self, name: &str) -> String {
        match self {
            Self::Config => format!("ConfigMap/{name}"),
            Self::Secret => format!("Secret/{name}"),
        }
    }

    fn name(self, key: &str, context: &Context<'_>) -> String {
        match self {
            Self::Config => context.names.config(key),
            Self::Secret => context.names.secret(key),
        }
    }

    /// What Swarm takes at most, in bytes (swarmkit, `api/validation`).
    fn swarm_max(self) -> usize {
        match self {
            Self::Config => 1000 << 10,
            Self::Secret => 500 << 10,
        }
    }

    fn option(self, key: &str) -> String {
        match self {
            Self::Config => format!("--config {key}=FILE"),
            Self::Secret => format!("--secret {key}=FILE"),
        }
    }

    /// Where a container has the file.
    fn path(self, file: &FileMount) -> String {
        let target = file.target.as_ref().map(|target| target.value.as_str()).filter(|target| !target.is_empty());
        let target = target.unwrap_or(&file.source.value);
        match self {
            _ if target.starts_with('/') => target.to_owned(),
            Self::Config => format!("/{target}"),
            Self::Secret => format!("/run/secrets/{target}"),
        }
    }
}

/// The secrets that `--with externalsecrets` asks a store for: all that a service uses.
#[must_use]
pub fn external_secrets(plan: &Plan<'_>, context: &Context<'_>, ledger: &mut Ledger) -> Vec<ExternalSecret> {
    if !context.options.with.contains(&With::ExternalSecrets) {
        return Vec::new();
    }
    let store = context.options.secret_store.as_str();
    let used = context.stack.secrets.iter().filter(|secret| plan.secrets.contains_key(secret.key.as_str()));
    used.map(|secret| {
        let name = context.names.secret(&secret.key);
        ledger.added(
            Target::new(format!("ExternalSecret/{name}"), "spec.secretStoreRef"),
            format!("--with externalsecrets: the ClusterSecretStore is {store}, or what --secret-store names"),
        );
        let entry = StoreEntry {
            secret_key: Kind::Secret.data_key(&secret.key, context),
            // What the store calls it: the name in Swarm.
            key: secret.name.as_ref().map_or(&secret.key, |name| &name.value).clone(),
            property: None,
        };
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: Some(context.options.namespace.clone()),
            ..ObjectMeta::default()
        };
        ExternalSecret::new(metadata, (store, "ClusterSecretStore"), vec![entry])
    })
    .collect()
}

/// The key of the content in a ConfigMap or a Secret: that of the stack, as far as Kubernetes takes it.
#[must_use]
pub fn data_key(key: &str) -> String {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let is_legal = !key.is_empty() && key.len() <= KEY_LENGTH_MAX && key != "." && !key.starts_with("..");
    match is_legal && key.chars().all(is_letter) {
        true => key.to_owned(),
        false => folded(key, KEY_LENGTH_MAX),
    }
}

/// Mounts the configs and secrets of a service.
pub(super) fn mount(pod: &mut Pod<'_>, ledger: &mut Ledger) {
    let service = pod.service;
    for (files, kind) in [(&service.configs, Kind::Config), (&service.secrets, Kind::Secret)] {
        // The JSON of a running stack has them in another order, and other names; where they are in the container is the same.
        let mut sorted: Vec<&FileMount> = files.iter().collect();
        sorted.sort_by_cached_key(|file| kind.path(file));
        sorted.into_iter().for_each(|file| mount_file(pod, file, kind, ledger));
    }
}

fn mount_file(pod: &mut Pod<'_>, file: &FileMount, kind: Kind, ledger: &mut Ledger) {
    let object = kind.name(&file.source.value, pod.context);
    // The field is named by its volume, and the name of that depends on the mode.
    let wanted = match kind {
        Kind::Config => format!("config-{object}"),
        Kind::Secret => format!("secret-{object}"),
    };
    let field = if kind == Kind::Config { "configMap" } else { "secret" };
    let mode_target = pod.holder.pod(&format!("volumes[name={}].{field}.defaultMode", folded(&wanted, 63)));
    let rights = Rights::of(file, pod, &mode_target, ledger);
    let mode = i32::try_from(rights.mode).ok();
    let volume = match kind {
        Kind::Config => Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: object.clone(),
                default_mode: mode,
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Kind::Secret => Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(object.clone()),
                default_mode: mode,
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
    };
    let name = pod.volume(&wanted, Some(format!("{field} {object} {}", rights.mode)), volume);
    let placed = pod.mount(VolumeMount {
        name: name.clone(),
        mount_path: kind.path(file),
        // A key that is not there would become a folder (kubernetes#62156), so it is the one that is written.
        sub_path: Some(kind.data_key(&file.source.value, pod.context)),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    let target_leaf = file.target.as_ref().map_or(file.source.leaf, |target| target.leaf);
    let index = match placed {
        Ok(index) => index,
        Err(reason) => {
            ledger.needs_input(target_leaf, format!("{reason}; the file is not mounted"));
            let leaves = [Some(file.source.leaf), file.mode.map(|mode| mode.leaf)];
            for leaf in leaves.into_iter().flatten().filter(|leaf| *leaf != target_leaf) {
                ledger.dropped(leaf, "the file is not mounted, as its target needs a decision");
            }
            return;
        }
    };
    if let Some(group) = rights.group {
        set_group(pod, group, file, ledger);
    }
    let name_field = if kind == Kind::Config { "configMap.name" } else { "secret.secretName" };
    ledger.converted(file.source.leaf, pod.holder.pod(&format!("volumes[name={name}].{name_field}")));
    ledger.converted(target_leaf, pod.field_of_mount(index, "mountPath"));
}

/// A pod has one `fsGroup`, and its processes get it whatever their own is.
fn set_group(pod: &mut Pod<'_>, group: u32, file: &FileMount, ledger: &mut Ledger) {
    match pod.result.fs_group {
        None => pod.result.fs_group = Some(i64::from(group)),
        Some(first) if first == i64::from(group) => {}
        Some(first) => {
            let owners = [&file.uid, &file.gid].into_iter().flatten();
            for owner in owners {
                let reason = format!(
                    "a pod has one fsGroup, here {first}, and this file is for {group}: all processes of the \
                                      pod may read both"
                );
                ledger.approximated(owner.leaf, pod.holder.pod("securityContext.fsGroup"), reason);
            }
        }
    }
}

/// The ConfigMaps and Secrets of a stack.
pub(super) fn objects(plan: &Plan<'_>, context: &Context<'_>, ledger: &mut Ledger) -> Vec<Stored> {
    let mut all = Vec::new();
    for payload in &context.stack.configs {
        let users = plan.configs.get(payload.key.as_str()).map_or(&[][..], Vec::as_slice);
        all.extend(
            object(payload, Kind::Config, users, context, ledger).map(|object| Stored { home: Home::Configs, object }),
        );
    }
    for payload in &context.stack.secrets {
        let users = plan.secrets.get(payload.key.as_str()).map_or(&[][..], Vec::as_slice);
        all.extend(
            object(payload, Kind::Secret, users, context, ledger).map(|object| Stored { home: Home::Secrets, object }),
        );
    }
    all
}

fn object(
    payload: &Payload,
    kind: Kind,
    users: &[&Service],
    context: &Context<'_>,
    ledger: &mut Ledger,
) -> Option<KubeObject> {
    let name = kind.name(&payload.key, context);
    let field = |field: &str| Target::new(kind.object(&name), field);
    if kind == Kind::Secret && context.options.with.contains(&With::ExternalSecrets) {
        mark_of_store(payload, &name, users.is_empty(), ledger);
        return None;
    }
    let contents = if kind == Kind::Config { &context.options.configs } else { &context.options.secrets };
    let chosen = contents.get(&payload.key);
    let Some(content) = chosen.or(payload.content.as_ref().map(|content| &content.value)) else {
        let key = kind.data_key(&payload.key, context);
        mark_missing(payload, kind, (&name, &key), users, ledger);
        return None;
    };
    let key = kind.data_key(&payload.key, context);
    let data_field = |is_text: bool| match (kind, is_text) {
        (Kind::Config, false) => field(&format!("binaryData[{key:?}]")),
        _ => field(&format!("data[{key:?}]")),
    };
    let content = filled(payload, content, users, context, &data_field(true), ledger);
    let text = std::str::from_utf8(&content).ok().filter(|_| kind == Kind::Config);
    let target = data_field(text.is_some());
    if content.len() > BYTES_MAX {
        let reason = format!(
            "it has {} bytes, and Kubernetes takes {BYTES_MAX} at most: mount it from a claim; nothing is written, and the \
             pods wait for {}",
            content.len(),
            kind.object(&name)
        );
        leaves(payload).for_each(|leaf| ledger.needs_input(leaf, reason.clone()));
        for user in users {
            ledger.cannot_move(format!(
                "service {}: {} is larger than Kubernetes takes",
                user.name,
                kind.object(&name)
            ));
        }
        return None;
    }
    mark(payload, kind, chosen.is_some(), &target, ledger);
    if content.len() > kind.swarm_max() && context.stack.dialect == Dialect::Stack {
        let reason = format!("Swarm refuses more than {} bytes, and Kubernetes takes it", kind.swarm_max());
        leaves(payload).take(1).for_each(|leaf| ledger.approximated(leaf, target.clone(), reason.clone()));
    }
    for leaf in payload.name.iter().map(|name| name.leaf).chain(payload.empty) {
        ledger.converted(leaf, field("metadata.name"));
    }
    ledger.added(field("immutable"), "a config or a secret of Swarm never changes: a new one has another name");
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(context.options.namespace.clone()),
        annotations: annotations(payload, &field("metadata.annotations"), ledger),
        ..ObjectMeta::default()
    };
    Some(match (kind, text) {
        (Kind::Secret, _) => Secret {
            metadata,
            data: Some(BTreeMap::from([(key, ByteString(content))])),
            immutable: Some(true),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
        .into(),
        (Kind::Config, Some(text)) => ConfigMap {
            metadata,
            data: Some(BTreeMap::from([(key, text.to_owned())])),
            immutable: Some(true),
            ..ConfigMap::default()
        }
        .into(),
        (Kind::Config, None) => ConfigMap {
            metadata,
            binary_data: Some(BTreeMap::from([(key, ByteString(content))])),
            immutable: Some(true),
            ..ConfigMap::default()
        }
        .into(),
    })
}

/// Fills in the placeholders of a content that has a template driver.
fn filled(
    payload: &Payload,
    content: &[u8],
    users: &[&Service],
    context: &Context<'_>,
    target: &Target,
    ledger: &mut Ledger,
) -> Vec<u8> {
    let Some(driver) = &payload.template_driver else { return content.to_vec() };
    if context.stack.dialect == Dialect::Compose {
        ledger.dropped(driver.leaf, "`docker compose` does not read it");
        return content.to_vec();
    }
    if driver.value != "golang" {
        ledger
            .needs_input(driver.leaf, "Swarm knows the template driver golang only; write what comes of the template");
        return content.to_vec();
    }
    let text = match std::str::from_utf8(content) {
        Ok(text) if text.contains("{{") => text,
        _ => {
            ledger.agrees(driver.leaf, "there is no placeholder in it");
            return content.to_vec();
        }
    };
    let is_single =
        |user: &Service| user.mode.kind.is_none() && user.mode.replicas.is_none_or(|replicas| replicas.value <= 1);
    // Without the service in it, the text differs only by whether there is one container.
    let has_service = text.contains(".Service.");
    let mut subjects: Vec<&Service> = users.iter().copied().take(USERS_MAX + 1).collect();
    if !has_service {
        let of = |wanted: bool| users.iter().copied().find(|user| is_single(user) == wanted);
        subjects = of(true).into_iter().chain(of(false)).collect();
    }
    let expand = |user: &&Service| {
        let service = format!("{}_{}", context.stack.name, user.name);
        let labels: Vec<(String, String)> =
            user.service_labels.iter().map(|(key, value)| (key.clone(), value.value.clone())).collect();
        let identity = if is_single(user) { Identity::Single } else { Identity::None };
        let expanded = Scope { service: &service, labels: &labels, identity }.expand(text);
        // Notes hold parts of the content, which may be a secret.
        (expanded.is_static() && subjects.len() <= USERS_MAX).then(|| unprotected(&expanded.text))
    };
    let results: Vec<Option<String>> = subjects.iter().map(expand).collect();
    match &results[..] {
        [Some(first), rest @ ..] if rest.iter().all(|other| other.as_ref() == Some(first)) => {
            let reason = "the placeholders are filled in, as they are the same for every container";
            ledger.approximated(driver.leaf, target.clone(), reason);
            first.clone().into_bytes()
        }
        [] => {
            ledger.dropped(driver.leaf, "no service uses it, so that nothing fills it in");
            content.to_vec()
        }
        _ => {
            let reason = "its placeholders differ from container to container, or are more than Cairn fills in; they are \
                          written as they are: write what comes of them, or fill them in when the container starts";
            ledger.needs_input(driver.leaf, reason);
            content.to_vec()
        }
    }
}

/// Marks what is in the object.
///
/// * `is_chosen`: whether the content is that of the command line.
fn mark(payload: &Payload, kind: Kind, is_chosen: bool, target: &Target, ledger: &mut Ledger) {
    if let Some(content) = &payload.content {
        match is_chosen {
            true => ledger.approximated(
                content.leaf,
                target.clone(),
                format!("the content is that of {}", kind.option(&payload.key)),
            ),
            false => ledger.converted(content.leaf, target.clone()),
        }
    }
    if let Some(external) = payload.external {
        match external.value {
            true => ledger.mark(
                external.leaf,
                Outcome::Converted,
                format!("the content is that of {}", kind.option(&payload.key)),
                Some(target.clone()),
            ),
            false => ledger.agrees(external.leaf, "it is the stack's"),
        }
    }
    for leaf in payload.driver.iter().map(|driver| driver.leaf).chain(options(payload)) {
        let reason = "the driver gives its value at each start; here it is that of the command line";
        ledger.approximated(leaf, target.clone(), reason);
    }
}

/// Marks what is left to a person.
///
/// * `name`, `key`: of the object, and of the payload in it.
fn mark_missing(payload: &Payload, kind: Kind, (name, key): (&str, &str), users: &[&Service], ledger: &mut Ledger) {
    if users.is_empty() {
        leaves(payload).for_each(|leaf| ledger.dropped(leaf, "no service uses it"));
        return;
    }
    let what = match payload.driver {
        Some(_) => "a driver has its content",
        None => "its content is not in the files",
    };
    let reason = format!(
        "{what}, and nothing is made up: give it with {}, or make {} with the key {key} yourself; the pods wait for it",
        kind.option(&payload.key),
        kind.object(name),
    );
    leaves(payload).for_each(|leaf| ledger.needs_input(leaf, reason.clone()));
}

/// Marks a secret that a store has.
fn mark_of_store(payload: &Payload, name: &str, is_unused: bool, ledger: &mut Ledger) {
    if is_unused {
        leaves(payload).for_each(|leaf| ledger.dropped(leaf, "no service uses it"));
        return;
    }
    let reason = format!(
        "--with externalsecrets: write its value into the store under {:?}; ExternalSecret/{name} makes the Secret of it",
        payload.name.as_ref().map_or(&payload.key, |name| &name.value)
    );
    leaves(payload).for_each(|leaf| ledger.needs_input(leaf, reason.clone()));
}

/// The labels of a config or a secret.
fn annotations(payload: &Payload, target: &Target, ledger: &mut Ledger) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (key, label) in &payload.labels {
        match is_annotation(key) {
            true => {
                ledger.converted(label.leaf, target.clone());
                all.insert(key.clone(), label.value.clone());
            }
            false => {
                ledger.dropped(label.leaf, "an annotation has no such key (63 letters, digits, `-`, `_` and `.`)");
            }
        }
    }
    Some(all).filter(|all| !all.is_empty())
}

fn options(payload: &Payload) -> impl Iterator<Item = Leaf> {
    payload.driver_options.iter().map(|(_, option)| option.leaf)
}

/// All leaves of a config or a secret.
fn leaves(payload: &Payload) -> impl Iterator<Item = Leaf> {
    // A new field does not compile until it is here.
    let Payload { key: _, empty, name, external, content, template_driver, driver, driver_options, labels } = payload;
    let texts = [name, template_driver, driver].into_iter().flatten().map(|text| text.leaf);
    let content = content.iter().map(|content| content.leaf);
    let external = external.iter().map(|external| external.leaf);
    let named = driver_options.iter().chain(labels).map(|(_, value)| value.leaf);
    content.chain(empty.iter().copied()).chain(texts).chain(external).chain(named)
}
