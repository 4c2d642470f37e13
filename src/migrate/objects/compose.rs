//! What only `docker compose` reads: `docker stack deploy` ignores it, and a service of a swarm never had it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, ExecAction, HostPathVolumeSource, Lifecycle, LifecycleHandler, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Holder;
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::{Protocol, Service};

/// Where shared memory is in a container.
const SHARED_MEMORY: &str = "/dev/shm";

/// The ports of `expose`: `80`, `80/udp`, `80-82`.
#[must_use]
pub fn exposed(service: &Service) -> Vec<(u16, Protocol)> {
    let mut ports = Vec::new();
    for text in &service.compose.expose {
        let (range, protocol) = text.value.split_once('/').unwrap_or((&text.value, "tcp"));
        let protocol = match protocol {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            ports.extend((first..=last).map(|port| (port, protocol)));
        }
    }
    ports
}

/// Adds what Compose says to a pod whose first container is the service's.
pub fn extend(service: &Service, pod: &mut PodSpec, holder: &Holder, ledger: &mut Ledger) {
    let compose = &service.compose;
    for (place, port) in compose.expose.iter().enumerate() {
        ledger.converted(port.leaf, holder.container(&format!("ports[{place}].containerPort")));
    }
    if let Some(size) = compose.shm_size {
        ledger.approximated(
            size.leaf,
            holder.pod("volumes[name=shared-memory].emptyDir.sizeLimit"),
            "it counts against the memory limit of the container",
        );
        let memory = EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity(size.value.to_string())),
        };
        let volume = Volume { name: "shared-memory".to_owned(), empty_dir: Some(memory), ..Volume::default() };
        mount(pod, volume, SHARED_MEMORY);
    }
    for (place, device) in compose.devices.iter().enumerate() {
        let mut parts = device.value.split(':');
        let (source, target) = (parts.next().unwrap_or_default(), parts.next());
        let reason = "a container gets a device of its node by a device plugin, or with all rights (privileged); the \
                      file is mounted, and opening it needs one of the two";
        ledger.needs_input(device.leaf, reason);
        let path = HostPathVolumeSource { path: source.to_owned(), type_: Some("CharDevice".to_owned()) };
        let volume = Volume { name: format!("device-{place}"), host_path: Some(path), ..Volume::default() };
        mount(pod, volume, target.unwrap_or(source));
    }
    namespaces(service, pod, holder, ledger);
    if let Some(platform) = &compose.platform {
        let mut parts = platform.value.split('/');
        let selector = pod.node_selector.get_or_insert_with(BTreeMap::new);
        for (label, value) in [("kubernetes.io/os", parts.next()), ("kubernetes.io/arch", parts.next())] {
            selector.extend(value.map(|value| (label.to_owned(), value.to_owned())));
        }
        ledger.converted(platform.leaf, holder.pod("nodeSelector"));
    }
    if let Some(runtime) = &compose.runtime {
        let reason = "the node's containerd and a RuntimeClass of this name have to know it";
        ledger.approximated(runtime.leaf, holder.pod("runtimeClassName"), reason);
        pod.runtime_class_name = Some(runtime.value.clone());
    }
    if let Some(policy) = &compose.pull_policy {
        let (target, leaf) = (holder.container("imagePullPolicy"), policy.leaf);
        let kubernetes = match policy.value.as_str() {
            "always" => Some("Always"),
            "never" => Some("Never"),
            "missing" | "if_not_present" => Some("IfNotPresent"),
            _ => None,
        };
        match kubernetes {
            Some(policy) => {
                pod.containers[0].image_pull_policy = Some(policy.to_owned());
                ledger.converted(leaf, target);
            }
            None => ledger.dropped(leaf, "Kubernetes pulls always, never, or when the image is missing"),
        }
    }
    if let Some(score) = compose.oom_score_adj {
        ledger.dropped(score.leaf, "the kubelet chooses it by what the container requests");
    }
    for file in &compose.label_files {
        ledger.agrees(file.leaf, "its labels are those of the service");
    }
    for dependency in &compose.depends_on {
        let reason = "Kubernetes starts services at once; those that are not there yet are tried again. `cairn migrate \
                      apply` starts them in this order";
        let leaves =
            dependency.leaves.iter().copied().chain(dependency.condition.as_ref().map(|condition| condition.leaf));
        leaves.for_each(|leaf| ledger.mark(leaf, Outcome::Approximated, reason, None));
    }
    hooks(service, pod, holder, ledger);
}

fn mount(pod: &mut PodSpec, volume: Volume, path: &str) {
    let mount = VolumeMount { name: volume.name.clone(), mount_path: path.to_owned(), ..VolumeMount::default() };
    pod.volumes.get_or_insert_default().push(volume);
    pod.containers[0].volume_mounts.get_or_insert_default().push(mount);
}

/// Processes and shared memory of others.
fn namespaces(service: &Service, pod: &mut PodSpec, holder: &Holder, ledger: &mut Ledger) {
    let compose = &service.compose;
    for (mode, field) in [(&compose.pid, "hostPID"), (&compose.ipc, "hostIPC")] {
        let Some(mode) = mode else { continue };
        match mode.value.as_str() {
            "host" => {
                ledger.converted(mode.leaf, holder.pod(field));
                match field {
                    "hostPID" => pod.host_pid = Some(true),
                    _ => pod.host_ipc = Some(true),
                }
            }
            "private" | "shareable" | "" => ledger.agrees(mode.leaf, "each pod has its own"),
            _ => ledger.needs_input(
                mode.leaf,
                "containers that share it are containers of one pod; decide whether they move together",
            ),
        }
    }
}

/// Commands after the start and before the stop.
fn hooks(service: &Service, pod: &mut PodSpec, holder: &Holder, ledger: &mut Ledger) {
    for is_pre_stop in [false, true] {
        let name = if is_pre_stop { "preStop" } else { "postStart" };
        let hooks: Vec<_> = service.compose.hooks.iter().filter(|hook| hook.is_pre_stop == is_pre_stop).collect();
        for (place, hook) in hooks.iter().enumerate() {
            let target = holder.container(&format!("lifecycle.{name}.exec.command"));
            for (what, leaf) in &hook.other {
                ledger.dropped(
                    *leaf,
                    format!("a hook of Kubernetes runs as the container does, without {what} of its own"),
                );
            }
            let leaves: Vec<_> = hook.command.words.iter().map(|word| word.leaf).chain(hook.command.empty).collect();
            if place > 0 {
                let reason = "a container has one hook of a kind; put the commands into one";
                leaves.into_iter().for_each(|leaf| ledger.needs_input(leaf, reason));
                continue;
            }
            leaves.into_iter().for_each(|leaf| ledger.converted(leaf, target.clone()));
            let command = hook.command.words.iter().map(|word| word.value.clone()).collect();
            let handler =
                LifecycleHandler { exec: Some(ExecAction { command: Some(command) }), ..LifecycleHandler::default() };
            let lifecycle = pod.containers[0].lifecycle.get_or_insert_with(Lifecycle::default);
            match is_pre_stop {
                true => lifecycle.pre_stop = Some(handler),
                false => lifecycle.post_start = Some(handler),
            }
        }
    }
}
