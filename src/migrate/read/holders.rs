//! The leaves that a typed stack holds.
//!
//! Invariant: every field of every type is named here, so that a new one does not compile until it is.

use std::collections::BTreeSet;

use super::super::leaf::{At, Leaf};
use super::super::stack::{
    Attachment, ComposeOnly, Dependency, DeviceRequest, FileMount, GenericResource, HealthCheck, Hook, Logging, Mode,
    Mount, Network, Payload, Placement, Platform, Port, Resources, RestartPolicy, Service, Stack, Test, Ulimit,
    UpdateConfig, Variable, Volume, Words,
};

/// Every leaf that some value of the stack was read from.
#[must_use]
pub fn leaves_of(stack: &Stack) -> BTreeSet<Leaf> {
    let Stack { name: _, dialect: _, services, networks, volumes, configs, secrets } = stack;
    let mut leaves = BTreeSet::new();
    services.collect(&mut leaves);
    networks.collect(&mut leaves);
    volumes.collect(&mut leaves);
    configs.collect(&mut leaves);
    secrets.collect(&mut leaves);
    leaves
}

/// The leaves of a mount.
pub(super) fn leaves_of_mount(mount: &Mount) -> BTreeSet<Leaf> {
    let mut leaves = BTreeSet::new();
    mount.collect(&mut leaves);
    leaves
}

/// Something that was read from leaves.
trait Holder {
    /// Adds its leaves.
    fn collect(&self, leaves: &mut BTreeSet<Leaf>);
}

impl Holder for Leaf {
    fn collect(&self, leaves: &mut BTreeSet<Leaf>) {
        leaves.insert(*self);
    }
}

impl<T> Holder for At<T> {
    fn collect(&self, leaves: &mut BTreeSet<Leaf>) {
        leaves.insert(self.leaf);
    }
}

impl<T: Holder> Holder for Option<T> {
    fn collect(&self, leaves: &mut BTreeSet<Leaf>) {
        if let Some(value) = self {
            value.collect(leaves);
        }
    }
}

impl<T: Holder> Holder for Vec<T> {
    fn collect(&self, leaves: &mut BTreeSet<Leaf>) {
        for value in self {
            value.collect(leaves);
        }
    }
}

/// A value with a name.
impl<T: Holder> Holder for (String, T) {
    fn collect(&self, leaves: &mut BTreeSet<Leaf>) {
        self.1.collect(leaves);
    }
}

impl Holder for Test {
    fn collect(&self, leaves: &mut BTreeSet<Leaf>) {
        match self {
            Self::Disabled(leaf) => leaf.collect(leaves),
            Self::Program(leaf, words) => {
                leaf.collect(leaves);
                words.collect(leaves);
            }
            Self::Shell(leaf, line) => {
                leaf.collect(leaves);
                line.collect(leaves);
            }
        }
    }
}

/// Holders with fields that hold leaves, and fields that hold none.
macro_rules! holders {
    ($($holder:ident { $($field:ident),* $(; $($other:ident),*)? })*) => {$(
        impl Holder for $holder {
            fn collect(&self, leaves: &mut BTreeSet<Leaf>) {
                let Self { $($field,)* $($($other: _,)*)? } = self;
                $($field.collect(leaves);)*
            }
        }
    )*};
}

holders! {
    Service {
        image, entrypoint, command, environment, working_dir, user, groups, hostname, init, tty, stdin_open,
        read_only, stop_signal, stop_grace_period, health_check, extra_hosts, dns_servers, dns_search,
        dns_options, capabilities_added, capabilities_dropped, sysctls, ulimits, labels, service_labels, mode,
        resources, placement, update, rollback, restart, endpoint_mode, ports, networks, mounts, configs,
        secrets, logging, compose; name, at
    }
    Words { words, empty }
    Variable { leaf; name, value }
    HealthCheck { test, interval, timeout, retries, start_period, start_interval }
    Ulimit { soft, hard; name }
    Mode { kind, replicas, max_concurrent }
    Resources {
        cpu_limit, cpu_reservation, memory_limit, memory_reservation, pids, generic, devices, swap, swappiness
    }
    GenericResource { kind, amount }
    DeviceRequest { driver, count, ids, capabilities, options }
    Placement { constraints, spread, max_replicas, platforms }
    Platform { architecture, os }
    UpdateConfig { parallelism, delay, failure_action, monitor, max_failure_ratio, order }
    RestartPolicy { condition, delay, max_attempts, window }
    Port { target, published, protocol, mode, host_ip, name, app_protocol }
    Attachment { leaf, aliases, addresses, driver_options; network }
    Mount {
        kind, source, target, read_only, propagation, create_host_path, no_copy, subpath, tmpfs_size,
        tmpfs_mode, other
    }
    FileMount { source, target, uid, gid, mode }
    Logging { driver, options }
    Network { empty, name, external, driver, driver_options, internal, attachable, labels, addressing; key, subnets }
    Volume { empty, name, external, driver, driver_options, labels, cluster; key }
    Payload { empty, name, external, content, template_driver, driver, driver_options, labels; key }
    ComposeOnly {
        privileged, security_options, devices, shm_size, network_mode, pid, ipc, container_name, domain_name,
        expose, links, depends_on, platform, pull_policy, runtime, oom_score_adj, label_files, hooks
    }
    Hook { command, other; is_pre_stop }
    Dependency { condition, leaves; service }
}
