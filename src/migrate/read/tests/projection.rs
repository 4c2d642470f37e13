//! Parts of a stack as the small JSON that the cases of Docker's programs have.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::super::super::leaf::{At, Leaves};
use super::super::super::stack::{
    Dependency, EndpointMode, FileMount, HealthCheck, ModeKind, Mount, MountKind, Network, Payload, PortMode, Protocol,
    ResourceAmount, RestartCondition, RestartPolicy, Service, Stack, Test, UpdateConfig, UpdateOrder, Variable, Words,
};

/// A part of the service `a`, as the program that wrote the cases has it.
pub(super) fn projected(kind: &str, stack: &Stack, leaves: &Leaves) -> Json {
    let service = &stack.services[0];
    match kind {
        "ports" => ports(service),
        "mounts" => mounts(service),
        "command" => json!({"entrypoint": words(&service.entrypoint), "command": words(&service.command)}),
        "duration" => nanoseconds(service.stop_grace_period.map(|at| at.value)),
        "bytes" => json!(service.resources.memory_limit.expect("written").value),
        "cpus" => json!(service.resources.cpu_limit.expect("written").value),
        "health" => health(service.health_check.as_ref()),
        "environment" => {
            // A name alone in a file is left out where the shell does not have it.
            let is_there =
                |one: &&Variable| one.value.is_some() || leaves.written(one.leaf).path.key(2) == Some("environment");
            let variables = service.environment.iter().filter(is_there);
            json!(variables.map(|one| (one.name.clone(), one.value.clone())).collect::<BTreeMap<_, _>>())
        }
        "labels" => json!({
            "labels": pairs(&service.labels),
            "service_labels": pairs(&service.service_labels),
            "sysctls": pairs(&service.sysctls),
        }),
        "hosts" => {
            let mut hosts: Vec<_> =
                service.extra_hosts.iter().map(|at| format!("{} {}", at.value.name, at.value.address)).collect();
            hosts.sort();
            json!(hosts)
        }
        "dns" => json!({"servers": texts(&service.dns_servers), "search": texts(&service.dns_search)}),
        "ulimits" => json!(
            service
                .ulimits
                .iter()
                .map(|one| (one.name.clone(), [one.soft.value, one.hard.value]))
                .collect::<BTreeMap<_, _>>()
        ),
        "deploy" => deploy(service),
        "resources" => resources(service),
        "networks" => {
            let mut networks: BTreeMap<_, _> =
                service.networks.iter().map(|one| (one.network.clone(), texts(&one.aliases))).collect();
            if networks.is_empty() {
                networks.insert("default".to_owned(), json!([]));
            }
            json!(networks)
        }
        "files" => json!({"configs": files(&service.configs), "secrets": files(&service.secrets)}),
        "top" => top(stack),
        "plain" => plain(service),
        "depends" => {
            let condition =
                |one: &Dependency| one.condition.as_ref().map_or("service_started".to_owned(), |at| at.value.clone());
            let depends = &service.compose.depends_on;
            json!(depends.iter().map(|one| (one.service.clone(), condition(one))).collect::<BTreeMap<_, _>>())
        }
        kind => panic!("{kind}"),
    }
}

fn nanoseconds(duration: Option<std::time::Duration>) -> Json {
    json!(u64::try_from(duration.unwrap_or_default().as_nanos()).expect("fits"))
}

fn texts(texts: &[At<String>]) -> Json {
    json!(texts.iter().map(|at| &at.value).collect::<Vec<_>>())
}

fn pairs(pairs: &[(String, At<String>)]) -> Json {
    json!(pairs.iter().map(|(name, at)| (name, &at.value)).collect::<BTreeMap<_, _>>())
}

fn words(words: &Option<Words>) -> Json {
    words.as_ref().map_or(Json::Null, |words| texts(&words.words))
}

fn text(at: Option<&At<String>>) -> &str {
    at.map_or("", |at| &at.value)
}

fn ports(service: &Service) -> Json {
    let mut ports: Vec<Json> = service
        .ports
        .iter()
        .map(|port| {
            let protocol = match port.protocol.map_or(Protocol::Tcp, |at| at.value) {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            let mode = match port.mode.map_or(PortMode::Ingress, |at| at.value) {
                PortMode::Ingress => "ingress",
                PortMode::Host => "host",
            };
            let address = port.host_ip.map(|at| at.value.to_string()).unwrap_or_default();
            json!([port.published.map_or(0, |at| at.value), port.target.value, protocol, mode, address])
        })
        .collect();
    ports.sort_by_key(ToString::to_string);
    json!(ports)
}

fn mounts(service: &Service) -> Json {
    let mount = |mount: &Mount| {
        let kind = match mount.kind.value {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
            MountKind::NamedPipe => "npipe",
            MountKind::Image => "image",
            MountKind::Cluster => "cluster",
        };
        json!([
            kind,
            text(mount.source.as_ref()),
            mount.target.value,
            mount.read_only.is_some_and(|at| at.value),
            text(mount.propagation.as_ref()),
            mount.no_copy.is_some_and(|at| at.value),
            text(mount.subpath.as_ref()),
            mount.tmpfs_size.map_or(0, |at| at.value),
            mount.tmpfs_mode.map_or(0, |at| at.value),
        ])
    };
    json!(service.mounts.iter().map(mount).collect::<Vec<_>>())
}

fn health(check: Option<&HealthCheck>) -> Json {
    let Some(check) = check.filter(|check| **check != HealthCheck::default()) else { return json!({}) };
    let test = match &check.test {
        None => Json::Null,
        Some(Test::Disabled(_)) => json!(["NONE"]),
        Some(Test::Shell(_, line)) => json!(["CMD-SHELL", line.value]),
        Some(Test::Program(_, words)) => {
            json!(std::iter::once("CMD").chain(words.iter().map(|at| at.value.as_str())).collect::<Vec<_>>())
        }
    };
    json!({
        "test": test,
        "interval": nanoseconds(check.interval.map(|at| at.value)),
        "timeout": nanoseconds(check.timeout.map(|at| at.value)),
        "retries": check.retries.map_or(0, |at| at.value),
        "start_period": nanoseconds(check.start_period.map(|at| at.value)),
        "start_interval": nanoseconds(check.start_interval.map(|at| at.value)),
    })
}

fn deploy(service: &Service) -> Json {
    let mode = match service.mode.kind.map_or(ModeKind::Replicated, |at| at.value) {
        ModeKind::Replicated => "replicated",
        ModeKind::Global => "global",
        ModeKind::ReplicatedJob => "replicated-job",
        ModeKind::GlobalJob => "global-job",
    };
    let update = |update: &UpdateConfig| {
        json!({
            "parallelism": update.parallelism.map_or(1, |at| at.value),
            "delay": nanoseconds(update.delay.map(|at| at.value)),
            "failure_action": text(update.failure_action.as_ref()),
            "monitor": nanoseconds(update.monitor.map(|at| at.value)),
            "ratio": update.max_failure_ratio.map_or(json!(0), |at| json!(at.value)),
            "order": update.order.map_or("", |at| match at.value {
                UpdateOrder::StopFirst => "stop-first",
                UpdateOrder::StartFirst => "start-first",
            }),
        })
    };
    let restart = &service.restart;
    // The cases are of services that say something of it, or nothing at all.
    let restart = (*restart != RestartPolicy::default()).then(|| {
        json!({
            "condition": restart.condition.map_or("", |at| match at.value {
                RestartCondition::None => "none",
                RestartCondition::OnFailure => "on-failure",
                RestartCondition::Any => "any",
            }),
            "delay": nanoseconds(restart.delay.map(|at| at.value)),
            "max_attempts": restart.max_attempts.map_or(0, |at| at.value),
            "window": nanoseconds(restart.window.map(|at| at.value)),
        })
    });
    json!({
        "mode": mode,
        "replicas": service.mode.replicas.map(|at| at.value),
        "update": service.update.as_ref().map(update),
        "rollback": service.rollback.as_ref().map(update),
        "restart": restart,
        "constraints": texts(&service.placement.constraints),
        "spread": texts(&service.placement.spread),
        "max_replicas": service.placement.max_replicas.map_or(0, |at| at.value),
        "endpoint_mode": service.endpoint_mode.map_or("", |at| match at.value {
            EndpointMode::Vip => "vip",
            EndpointMode::Dnsrr => "dnsrr",
        }),
    })
}

fn resources(service: &Service) -> Json {
    let found = &service.resources;
    let generic = found.generic.iter().map(|one| match &one.amount.value {
        ResourceAmount::Count(count) => json!([one.kind.value, count]),
        ResourceAmount::Named(name) => json!([one.kind.value, name]),
    });
    json!({
        "cpu_limit": found.cpu_limit.map_or(0, |at| at.value),
        "memory_limit": found.memory_limit.map_or(0, |at| at.value),
        "pids": found.pids.map_or(0, |at| at.value),
        "cpu_reservation": found.cpu_reservation.map_or(0, |at| at.value),
        "memory_reservation": found.memory_reservation.map_or(0, |at| at.value),
        "generic": generic.collect::<Vec<_>>(),
    })
}

fn files(mounts: &[FileMount]) -> Json {
    let mount = |mount: &FileMount| {
        json!([
            mount.source.value,
            text(mount.target.as_ref()),
            text(mount.uid.as_ref()),
            text(mount.gid.as_ref()),
            mount.mode.map(|at| at.value),
        ])
    };
    json!(mounts.iter().map(mount).collect::<Vec<_>>())
}

fn top(stack: &Stack) -> Json {
    let mut found = BTreeMap::new();
    for Network { key, name, external, driver, driver_options, internal, attachable, labels, .. } in &stack.networks {
        let flags = json!([internal.is_some_and(|at| at.value), attachable.is_some_and(|at| at.value)]);
        let external = external.is_some_and(|at| at.value);
        let entry =
            json!([text(name.as_ref()), external, text(driver.as_ref()), pairs(driver_options), pairs(labels), flags]);
        found.insert(format!("networks.{key}"), entry);
    }
    for one in &stack.volumes {
        let external = one.external.is_some_and(|at| at.value);
        let (name, driver) = (text(one.name.as_ref()), text(one.driver.as_ref()));
        let entry = json!([name, external, driver, pairs(&one.driver_options), pairs(&one.labels), null]);
        found.insert(format!("volumes.{}", one.key), entry);
    }
    for (section, payloads) in [("configs", &stack.configs), ("secrets", &stack.secrets)] {
        for Payload { key, name, external, content, driver, driver_options, labels, .. } in payloads {
            let external = external.is_some_and(|at| at.value);
            let (name, driver) = (text(name.as_ref()), text(driver.as_ref()));
            let content = content.as_ref().map(|at| String::from_utf8_lossy(&at.value).into_owned());
            let entry = json!([name, external, driver, pairs(driver_options), pairs(labels), content]);
            found.insert(format!("{section}.{key}"), entry);
        }
    }
    json!(found)
}

fn plain(service: &Service) -> Json {
    let is = |at: Option<At<bool>>| at.is_some_and(|at| at.value);
    json!({
        "hostname": text(service.hostname.as_ref()),
        "user": text(service.user.as_ref()),
        "working_dir": text(service.working_dir.as_ref()),
        "tty": is(service.tty),
        "stdin_open": is(service.stdin_open),
        "read_only": is(service.read_only),
        "init": is(service.init),
        "stop_signal": text(service.stop_signal.as_ref()),
        "logging": service.logging.as_ref().map(|one| json!([text(one.driver.as_ref()), pairs(&one.options)])),
    })
}
