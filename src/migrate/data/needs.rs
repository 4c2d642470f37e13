//! The volumes of a conversion, with the claims and folders that need what is in them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodSpec};

use super::VolumeNeed;
use crate::migrate::objects::{Home, KubeObject, Names};
use crate::migrate::stack::{MountKind, Stack, Volume};

/// What Swarm puts a number into.
const SLOT: [&str; 2] = ["{{.Task.Slot}}", "{{ .Task.Slot }}"];

/// The volumes of a stack whose data somebody has to bring.
///
/// * `objects`: what the stack came to.
#[must_use]
pub fn of_conversion(stack: &Stack, names: &Names, namespace: &str, objects: &[(Home, KubeObject)]) -> Vec<VolumeNeed> {
    let mut needs = Vec::new();
    for volume in &stack.volumes {
        let mut need = VolumeNeed {
            volume: name_in_docker(volume, stack),
            namespace: namespace.to_owned(),
            mounts: mounts(stack, &volume.key),
            users: users(stack, &volume.key),
            ..VolumeNeed::default()
        };
        if need.users.is_empty() || is_served(volume) {
            continue;
        }
        let name = names.volume(&volume.key);
        let mut slots = Vec::new();
        for (_, object) in objects {
            match object {
                KubeObject::PersistentVolumeClaim(claim) if claim.metadata.name.as_ref() == Some(&name) => {
                    describe(claim, &mut need);
                    need.claims.push(name.clone());
                }
                KubeObject::StatefulSet(set) => {
                    let Some(spec) = &set.spec else { continue };
                    let templates = spec.volume_claim_templates.iter().flatten();
                    let Some(template) = templates.into_iter().find(|one| one.metadata.name.as_ref() == Some(&name))
                    else {
                        continue;
                    };
                    describe(template, &mut need);
                    let set = set.metadata.name.as_deref().unwrap_or_default();
                    slots.extend((1..=spec.replicas.unwrap_or(1)).map(|slot| (slot, format!("{name}-{set}-{slot}"))));
                }
                _ => {}
            }
            if let Some(pod) = pod_of(object) {
                let volumes = pod.volumes.iter().flatten().filter(|one| one.name == name);
                let path = volumes.filter_map(|one| one.host_path.as_ref()).map(|folder| folder.path.clone()).next();
                need.host_path = need.host_path.or(path);
            }
        }
        if SLOT.iter().any(|slot| need.volume.contains(slot)) {
            // Each slot has a volume of its own name.
            needs.extend(slots.into_iter().map(|(slot, claim)| {
                let volume = SLOT.iter().fold(need.volume.clone(), |name, text| name.replace(text, &slot.to_string()));
                VolumeNeed { volume, claims: vec![claim], ..need.clone() }
            }));
            continue;
        }
        need.claims.extend(slots.into_iter().map(|(_, claim)| claim));
        // A name with another placeholder cannot be looked for.
        if !need.volume.contains("{{") && (!need.claims.is_empty() || need.host_path.is_some()) {
            needs.push(need);
        }
    }
    needs
}

fn name_in_docker(volume: &Volume, stack: &Stack) -> String {
    match &volume.name {
        Some(name) => name.value.clone(),
        None if volume.external.is_some_and(|external| external.value) => volume.key.clone(),
        None => format!("{}_{}", stack.name, volume.key),
    }
}

/// Whether the data is on a server, or a folder of the user's own, and stays there.
fn is_served(volume: &Volume) -> bool {
    volume.driver_options.iter().any(|(name, _)| matches!(name.as_str(), "device" | "type"))
}

fn mounted<'a>(stack: &'a Stack, key: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    stack.services.iter().flat_map(move |service| {
        let is_it = move |mount: &&crate::migrate::stack::Mount| {
            mount.kind.value == MountKind::Volume && mount.source.as_ref().is_some_and(|source| source.value == key)
        };
        service.mounts.iter().filter(is_it).map(|mount| (service.name.as_str(), mount.target.value.as_str()))
    })
}

fn mounts(stack: &Stack, key: &str) -> Vec<String> {
    mounted(stack, key).map(|(_, target)| target.to_owned()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn users(stack: &Stack, key: &str) -> Vec<String> {
    mounted(stack, key).map(|(user, _)| format!("{}_{user}", stack.name)).collect::<BTreeSet<_>>().into_iter().collect()
}

fn describe(claim: &PersistentVolumeClaim, need: &mut VolumeNeed) {
    let Some(spec) = &claim.spec else { return };
    need.storage_class = spec.storage_class_name.clone();
    need.access_modes = spec.access_modes.clone().unwrap_or_default();
    let amount = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage"));
    need.request = amount.and_then(|amount| bytes(&amount.0));
}

/// An amount such as `1Gi`.
fn bytes(amount: &str) -> Option<u64> {
    let digits = amount.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let shift = match &amount[digits.len()..] {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn pod_of(object: &KubeObject) -> Option<&PodSpec> {
    match object {
        KubeObject::Deployment(object) => object.spec.as_ref()?.template.spec.as_ref(),
        KubeObject::StatefulSet(object) => object.spec.as_ref()?.template.spec.as_ref(),
        KubeObject::DaemonSet(object) => object.spec.as_ref()?.template.spec.as_ref(),
        KubeObject::Job(object) => object.spec.as_ref()?.template.spec.as_ref(),
        KubeObject::CronJob(object) => object.spec.as_ref()?.job_template.spec.as_ref()?.template.spec.as_ref(),
        _ => None,
    }
}
