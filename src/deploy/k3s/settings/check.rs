//! What the fields of a spec must fulfil together, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;

use super::super::keys::Variant;
use super::super::sizes::NodeSize;
use super::super::spec::{AtLeast, Documents, Spec, ValueError};
use super::super::workload::ARCHITECTURE;
use super::draft::Draft;
use super::{Bounds, ClientToken, Mistake, RenderCommand, Settings};
use crate::deploy::executable::Architecture;
use crate::deploy::oci::Reference;

/// The settings of a spec. Where something is wrong the draft notes it, and its place holds anything.
///
/// * `held`: the processors that the image is for, where that is known.
pub(super) fn settings(
    draft: &mut Draft,
    spec: Spec,
    token: Option<ClientToken>,
    held: Option<&[Architecture]>,
    command: RenderCommand,
) -> Settings {
    namespace(draft, &spec);
    let size = node_size(draft, &spec);
    let own = draft.configuration(&spec.config);
    backup(draft, &spec, &own);
    gpu(draft, &spec);
    documents(draft, spec.documents.as_ref());
    self::token(draft, &spec, token.as_ref());
    let mut seen = BTreeSet::new();
    let ingress = spec.ingress.iter().map(|ingress| ingress.host.to_string());
    let mut hosts: Vec<String> = spec.hosts.iter().map(|host| host.to_string()).chain(ingress).collect();
    hosts.retain(|host| seen.insert(host.clone()));
    let architectures = architectures(draft, &spec, held);
    if spec.gpu.is_some() && held.is_some_and(|held| held.len() > 1) {
        let expected =
            "one processor with --with gpu: `cairn image build --gpu` adds what a GPU needs to an image for one";
        draft.refuse("node.arch", &architectures.join(","), expected);
    }
    Settings {
        size,
        token,
        image: image(draft, &spec),
        hosts,
        node_selector: node_selector(&spec),
        architectures,
        storage: spec.storage.size.map_or(size.defaults().storage, AtLeast::get),
        resources: bounds(draft, &spec, size),
        drain_timeout: drain_timeout(draft, &own),
        own,
        command,
        spec,
    }
}

/// Checks what an installation found out as `--set` would.
pub(super) fn fact<T: FromStr<Err = ValueError>>(draft: &mut Draft, key: &str, found: &str) {
    if let Err(ValueError { expected, .. }) = found.parse::<T>() {
        draft.refuse(key, found, &expected);
    }
}

fn namespace(draft: &mut Draft, spec: &Spec) {
    let name = spec.namespace.as_str();
    let is_shared = name == "default" || name.starts_with("kube-");
    if name.len() > 63 || name.contains('.') || is_shared {
        draft.refuse("namespace", name, "a namespace of its own, not one that the cluster shares");
    }
}

fn node_size(draft: &mut Draft, spec: &Spec) -> NodeSize {
    let by_memory = spec.node.memory.as_ref().map(|memory| NodeSize::for_memory(**memory));
    match (spec.node.size, by_memory, &spec.node.memory) {
        (Some(size), Some(other), Some(memory)) if size != other => {
            let found = memory.to_string().replace(' ', "");
            draft.refuse("node.memory", &found, &format!("nothing together with `--node-size {size}`"));
            size
        }
        (size, other, _) => size.or(other).unwrap_or_default(),
    }
}

fn bounds(draft: &mut Draft, spec: &Spec, size: NodeSize) -> Bounds {
    let (requested, defaults) = (&spec.resources, size.defaults());
    Bounds {
        cpu: bound(draft, "cpu", (requested.cpu_request, defaults.cpu_request), requested.cpu.unwrap_or(defaults.cpu)),
        memory: bound(
            draft,
            "memory",
            (requested.memory_request.map(AtLeast::get), defaults.memory_request),
            requested.memory.map_or(defaults.memory, AtLeast::get),
        ),
        ephemeral: bound(
            draft,
            "ephemeral",
            (requested.ephemeral_request.map(AtLeast::get), defaults.ephemeral_request),
            requested.ephemeral.map_or(defaults.ephemeral, AtLeast::get),
        ),
    }
}

/// A request and its limit. A request that nobody requested for is never above a limit.
fn bound<T: Copy + Ord + fmt::Display>(
    draft: &mut Draft,
    name: &str,
    (requested, default): (Option<T>, T),
    limit: T,
) -> (T, T) {
    let request = requested.unwrap_or(default);
    if request <= limit {
        return (request, limit);
    }
    if requested.is_some() {
        let key = format!("resources.{name}-request");
        draft.refuse(&key, &request.to_string(), &format!("at most the limit, {limit}"));
    }
    (limit, limit)
}

fn gpu(draft: &mut Draft, spec: &Spec) {
    if let Some(gpu) = &spec.gpu
        && *gpu.own_runtime_class
        && gpu.runtime_class().is_none()
    {
        draft.refuse("gpu.own-runtime-class", "true", "false, or a gpu.runtime-class");
    }
}

/// Refuses the name of an image where an installation brings its own.
pub(super) fn no_image(draft: &mut Draft, spec: &Spec) {
    for (key, found) in [("image.name", &spec.image.name), ("image.digest", &spec.image.digest)] {
        if let Some(found) = found {
            draft.refuse(key, found, "nothing: `cairn install` brings the image of its own release");
        }
    }
}

pub(super) fn image(draft: &mut Draft, spec: &Spec) -> String {
    let own = if spec.gpu.is_some() { Reference::this_release_for_gpus() } else { Reference::this_release() };
    let digest = spec.image.digest.as_deref();
    let Some(image) = spec.image.name.as_deref() else { return pinned(draft, digest, own) };
    let (name, own_digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let digest = digest.or(own_digest);
    let reference = name.parse::<Reference>().unwrap_or_else(|error| {
        draft.refuse("image.name", image, &format!("HOST/NAME:TAG, since {error}"));
        own
    });
    if reference.tag() == "latest" && digest.is_none() {
        draft.refuse("image.name", image, "a tag that does not move, or a digest");
    }
    pinned(draft, digest, reference)
}

/// By the digest where there is one, else by the tag.
fn pinned(draft: &mut Draft, digest: Option<&str>, reference: Reference) -> String {
    let Some(text) = digest else { return reference.to_string() };
    match text.strip_prefix("sha256:").map(str::parse) {
        Some(Ok(digest)) => reference.pinned(digest),
        _ => {
            draft.refuse("image.digest", text, "sha256: and 64 hex digits, as `cairn image inspect` prints it");
            reference.to_string()
        }
    }
}

/// On which nodes the pod runs, by their labels: those that were named.
fn node_selector(spec: &Spec) -> BTreeMap<String, String> {
    let mut labels = (*spec.node.selector).clone();
    labels.extend(spec.node.name.iter().map(|name| ("kubernetes.io/hostname".to_owned(), name.to_string())));
    labels
}

/// The processors that run the image, by Kubernetes' names; none where the image is said to run on any.
fn architectures(draft: &mut Draft, spec: &Spec, held: Option<&[Architecture]>) -> Vec<String> {
    let held = held.map(names);
    let architectures = match spec.node.arch.as_deref().map(String::as_str) {
        Some(chosen) if chosen != "any" => {
            let names: Vec<String> = chosen.split(',').map(str::to_owned).collect();
            if let Some(held) = held.filter(|held| names.iter().any(|name| !held.contains(name))) {
                draft.refuse("node.arch", chosen, &format!("what the image is for: {}", held.join(",")));
            }
            names
        }
        Some(_) if spec.image.name.is_some() => Vec::new(),
        Some(_) => {
            let expected = "those that Cairn's own image was built for: one such as amd64, or amd64,arm64";
            draft.refuse("node.arch", "any", expected);
            Vec::new()
        }
        None if draft.has_problem("node.arch") => Vec::new(),
        None => held.unwrap_or_else(|| names(&[Architecture::of_this_machine().unwrap_or(Architecture::X86_64)])),
    };
    // Elsewhere the pod would wait for a node that there cannot be.
    let selected = spec.node.selector.get(ARCHITECTURE);
    if let Some(selected) = selected.filter(|one| !architectures.is_empty() && !architectures.contains(one)) {
        let expected = format!("a processor that the image is for: {}", architectures.join(","));
        draft.refuse("node.selector", &format!("{ARCHITECTURE}={selected}"), &expected);
    }
    architectures
}

/// By Kubernetes' names.
pub(super) fn names(architectures: &[Architecture]) -> Vec<String> {
    architectures.iter().map(|one| one.oci().to_owned()).collect()
}

fn documents(draft: &mut Draft, documents: Option<&Documents>) {
    const SOURCES: &str = "one of documents.git, documents.claim and documents.config-map";
    let Some(documents) = documents else { return };
    let sources = [documents.git.is_some(), documents.claim.is_some(), documents.config_map.is_some()];
    match sources.into_iter().filter(|is_set| *is_set).count() {
        0 if draft.has_problem("documents.") => {}
        0 => {
            let (key, about) = ("documents.git".to_owned(), SOURCES.to_owned());
            draft.problem(None, Mistake::Missing { key, variant: Variant::Documents, about });
        }
        1 => {}
        _ => draft.refuse("documents", "several sources", SOURCES),
    }
}

pub(super) fn token(draft: &mut Draft, spec: &Spec, token: Option<&ClientToken>) {
    let Some(token) = token.map(ClientToken::reveal) else { return };
    // The value itself goes into no message.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) || token.len() < 16 {
        draft.problem(None, Mistake::Token { expected: "at least 16 printable characters without spaces" });
    }
    if spec.external_secrets.is_some() {
        draft.problem(None, Mistake::Token { expected: "none, for `--with external-secrets` brings it" });
    }
}

fn drain_timeout(draft: &mut Draft, own: &BTreeMap<String, String>) -> SignedDuration {
    let default = SignedDuration::from_secs(20);
    let Some(text) = own.get("server.drain_timeout").map(|value| value.trim_matches('"').to_owned()) else {
        return default;
    };
    match text.parse::<SignedDuration>() {
        Ok(duration) if duration >= SignedDuration::ZERO && duration <= SignedDuration::from_hours(1) => duration,
        _ => {
            draft.refuse("config.server.drain_timeout", &text, "a duration up to 1h such as 20s");
            default
        }
    }
}

fn backup(draft: &mut Draft, spec: &Spec, own: &BTreeMap<String, String>) {
    let target = own.get("snapshot.target").map(|value| value.trim_matches('"'));
    if let (Some(claim), Some(_)) = (&spec.backup.claim, target) {
        draft.refuse("backup.claim", claim, "nothing together with config.snapshot.target: it is the target");
    }
    // A folder that nothing is mounted at would be on the read-only root.
    if let Some(target) = target.filter(|target| !target.is_empty() && !target.starts_with("s3://")) {
        let expected = "s3://bucket/prefix; `backup.claim` ships to a volume";
        draft.refuse("config.snapshot.target", target, expected);
    }
}
