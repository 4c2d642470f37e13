//! The mounts of a service, and the volumes that they describe.
//!
//! The swarm has no list of volumes: a stack's volume is in the mounts of each of its services, with labels and driver, and each node makes
//! it when a container needs it.

use std::collections::BTreeMap;

use super::document::{Kind, Objects};
use super::fields::{Fields, Reader};
use super::names::Names;
use super::objects::{STACK_LABEL, labels};
use super::service::{BOOKKEEPING, Context};
use crate::migrate::stack::{Mount, MountKind, Volume};
use crate::migrate::{At, Item, Leaf, Outcome};

/// Why a second description of a volume needs no field.
const AGAIN: &str = "the same is at another mount of the volume";
/// Why a description that differs is not written.
const DIFFERS: &str = "another mount of the volume says something else, and counts";

/// The volumes of the mounts so far, by their names in the swarm.
#[derive(Debug, Default)]
pub(super) struct Volumes(BTreeMap<String, Volume>);

/// Reads a mount.
pub(super) fn read(item: &Item, context: &mut Context<'_>) -> Option<Mount> {
    let kinds = [
        ("bind", MountKind::Bind),
        ("volume", MountKind::Volume),
        ("tmpfs", MountKind::Tmpfs),
        ("npipe", MountKind::NamedPipe),
        ("image", MountKind::Image),
        ("cluster", MountKind::Cluster),
    ];
    let reader = &mut *context.reader;
    let mut fields = reader.open(item);
    let (kind, target) = (fields.word("Type", &kinds, reader), fields.text("Target", reader));
    if kind.is_none() || target.is_none() {
        reader.refuse(item, "a mount with Type and Target");
    }
    let (kind, target) = (kind?, target?);
    let mut mount = Mount {
        kind,
        source: fields.text("Source", reader),
        target,
        read_only: fields.bool("ReadOnly", reader),
        propagation: None,
        create_host_path: None,
        no_copy: None,
        subpath: None,
        tmpfs_size: None,
        tmpfs_mode: None,
        other: Vec::new(),
    };
    let mut other = |name: &str, item: Option<&Item>| {
        let leaves = item.into_iter().flat_map(Item::leaves);
        mount.other.extend(leaves.map(|leaf| (name.to_owned(), leaf)));
    };
    other("consistency", fields.item("Consistency"));
    other("cluster", fields.item("ClusterOptions"));
    if let Some(mut bind) = fields.map("BindOptions", reader) {
        for key in ["NonRecursive", "ReadOnlyNonRecursive", "ReadOnlyForceRecursive"] {
            other("recursive", bind.item(key));
        }
        mount.propagation = bind.text("Propagation", reader);
        mount.create_host_path = bind.bool("CreateMountpoint", reader);
        bind.end(reader);
    }
    if let Some(mut tmpfs) = fields.map("TmpfsOptions", reader) {
        let leaves = tmpfs.item("Options").map_or_else(Vec::new, Item::leaves);
        mount.other.extend(leaves.into_iter().map(|leaf| ("options".to_owned(), leaf)));
        mount.tmpfs_size = tmpfs.integer("SizeBytes", reader);
        mount.tmpfs_mode = tmpfs.integer("Mode", reader);
        tmpfs.end(reader);
    }
    if let Some(mut image) = fields.map("ImageOptions", reader) {
        mount.subpath = image.text("Subpath", reader);
        image.end(reader);
    }
    read_volume(&mut fields, &mut mount, context);
    fields.end(context.reader);
    Some(mount)
}

/// The part of a mount that is about its volume.
fn read_volume(fields: &mut Fields<'_>, mount: &mut Mount, context: &mut Context<'_>) {
    let reader = &mut *context.reader;
    let options = fields.item("VolumeOptions");
    let is_labelled = options
        .and_then(|options| options.get("Labels"))
        .and_then(|labels| labels.get(STACK_LABEL))
        .and_then(Item::scalar)
        .is_some_and(|label| label.value.to_string() == context.names.stack);
    let (mut labels_of, mut driver, mut driver_options) = (Vec::new(), None, Vec::new());
    if let Some(item) = options {
        let mut fields = reader.open(item);
        mount.no_copy = fields.bool("NoCopy", reader);
        mount.subpath = fields.text("Subpath", reader);
        labels_of = labels(&mut fields, reader);
        if let Some(mut config) = fields.map("DriverConfig", reader) {
            driver = config.text("Name", reader);
            driver_options = config.named_texts("Options", reader);
            config.end(reader);
        }
        fields.end(reader);
    }
    let is_named = match mount.kind.value {
        MountKind::Volume => true,
        MountKind::Cluster => mount.source.as_ref().is_some_and(|source| !source.value.starts_with("group:")),
        _ => false,
    };
    let Some(name) = mount.source.clone().filter(|_| is_named) else {
        let leaves = labels_of.into_iter().map(|(name, label)| (format!("labels.{name}"), label.leaf));
        mount.other.extend(leaves);
        mount.other.extend(driver.map(|driver| ("driver".to_owned(), driver.leaf)));
        mount.other.extend(driver_options.into_iter().map(|(name, option)| (format!("driver.{name}"), option.leaf)));
        return;
    };
    let is_external = !is_labelled && !context.names.is_by_hand && mount.kind.value == MountKind::Volume;
    let identity = context.names.identify(Kind::Volume, &name.value, Some(is_external));
    mount.source = Some(At::new(identity.key.clone(), name.leaf));
    let volume = Volume {
        key: identity.key.clone(),
        empty: None,
        name: (!identity.is_plain).then(|| name.clone()),
        external: identity.is_external.then(|| At::new(true, name.leaf)),
        driver,
        driver_options,
        labels: labels_of,
        cluster: Vec::new(),
    };
    context.volumes.add(&name.value, volume, context.reader);
}

impl Volumes {
    /// A mount describes a volume, perhaps again.
    fn add(&mut self, name: &str, volume: Volume, reader: &mut Reader) {
        let Some(first) = self.0.get_mut(name) else {
            self.0.insert(name.to_owned(), volume);
            return;
        };
        if let Some(driver) = volume.driver {
            let is_same = first.driver.as_ref().is_none_or(|first| first.value == driver.value);
            mark_again(driver.leaf, is_same, reader);
        }
        for (more, all) in [(volume.labels, &first.labels), (volume.driver_options, &first.driver_options)] {
            for (key, value) in more {
                let is_same = find(all, &key) == Some(&value.value);
                mark_again(value.leaf, is_same, reader);
            }
        }
    }

    /// All volumes, after the descriptions of those on the node where the file was collected.
    pub(super) fn finish(self, objects: &Objects, names: &Names, reader: &mut Reader) -> Vec<Volume> {
        for object in objects.of(Kind::Volume) {
            let Some(volume) = self.0.get(&object.name) else {
                if self.0.keys().any(|template| fits(template, &object.name)) {
                    object.note(Outcome::Converted, "made from a name with placeholders", reader);
                } else if names.owns(object) {
                    let reason = format!(
                        "no service mounts the volume '{}' of the stack any more; copy it by hand if its data matter",
                        object.name
                    );
                    object.note(Outcome::Dropped, &reason, reader);
                } else {
                    object.note(Outcome::Converted, &super::objects::not_part(Kind::Volume, object), reader);
                }
                continue;
            };
            let item = object.number(reader);
            compare(&item, volume, reader);
        }
        let mut volumes: Vec<_> = self.0.into_values().collect();
        volumes.sort_by(|a, b| a.key.cmp(&b.key));
        volumes
    }
}

/// Whether a name with placeholders may have become this name.
fn fits(template: &str, name: &str) -> bool {
    let parts = template.split_once("{{").and_then(|(start, rest)| Some((start, rest.rsplit_once("}}")?.1)));
    parts.is_some_and(|(start, end)| name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)))
}

/// A value among texts that are sorted by name.
fn find<'a>(texts: &'a [(String, At<String>)], name: &str) -> Option<&'a String> {
    let at = texts.binary_search_by(|(one, _)| one.as_str().cmp(name)).ok()?;
    Some(&texts[at].1.value)
}

fn mark_again(leaf: Leaf, is_same: bool, reader: &mut Reader) {
    if is_same {
        reader.mark_leaf(leaf, Outcome::Converted, AGAIN);
    } else {
        reader.mark_leaf(leaf, Outcome::Dropped, DIFFERS);
    }
}

/// Compares what a node made with what the services ask for.
fn compare(item: &Item, volume: &Volume, reader: &mut Reader) {
    const SAME: &str = "as the mounts of the services have it";
    const DIFFERENT: &str = "the volume of this node differs from what the mounts of the services say, which counts";
    let mut fields = reader.open(item);
    let keys = ["CreatedAt", "Mountpoint", "Name", "Scope", "Status", "UsageData", "ClusterVolume"];
    fields.mark(&keys, Outcome::Converted, BOOKKEEPING, reader);
    let is_external = volume.external.is_some();
    let check = |leaf: Leaf, is_same: bool, reader: &mut Reader| {
        let (outcome, reason) = match (is_external, is_same) {
            (true, _) => (Outcome::Converted, "the volume is not the stack's"),
            (_, true) => (Outcome::Converted, SAME),
            (_, false) => (Outcome::Approximated, DIFFERENT),
        };
        reader.mark_leaf(leaf, outcome, reason);
    };
    if let Some(driver) = fields.text("Driver", reader) {
        let expected = volume.driver.as_ref().map_or("local", |driver| &driver.value);
        check(driver.leaf, driver.value == expected, reader);
    }
    let texts = [
        (labels(&mut fields, reader), &volume.labels),
        (fields.named_texts("Options", reader), &volume.driver_options),
    ];
    for (found, expected) in texts {
        for (key, value) in found {
            check(value.leaf, find(expected, &key) == Some(&value.value), reader);
        }
    }
    fields.end(reader);
}
