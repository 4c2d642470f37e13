//! One text for a stack, whether it was read from its files or from the running swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::migrate::stack::{
    Attachment, ComposeOnly, EndpointMode, FileMount, HealthCheck, ModeKind, MountKind, Network, Payload, PortMode,
    Protocol, RestartCondition, RestartPolicy, Service, Stack, Test, UpdateConfig, UpdateOrder, Volume,
};
use crate::migrate::{At, Leaf, Leaves, Path, Position, Written};

/// A stack as text, without leaves and positions. A file of `docker stack deploy` and the JSON of what it started give the same text.
///
/// Left out or made equal, because the one form cannot say it or says it otherwise:
/// * Docker's defaults: the JSON has them written out (`vip`, `any` after 5 s, stop-first, 10 s of grace, 0444, …), and zero or `false` is as
///   good as nothing there.
/// * Images: the JSON has a digest, `latest`, and no `docker.io/library/`.
/// * Platforms of the image, which only the JSON has.
/// * Keys: the JSON has the names in the swarm, `STACK_KEY` or `name`. Both are compared by these.
/// * The network `default`, which files need not name, the alias that is the service's name, and what Docker does not create: networks
///   without a service, volumes without a mount.
/// * Addresses of networks, which the swarm chooses where files do not.
/// * Capabilities: Docker puts `CAP_` before them, sorts them, and removes from the dropped what is added.
/// * What is external: its content, labels and driver are not in files.
/// * Contents of secrets, which are not in the JSON.
/// * An empty `command` or `entrypoint`, which is nothing in the JSON: the swarm uses that of the image.
/// * Of ports names and addresses, of mounts `create_host_path`, the mode of a tmpfs and consistency: `docker stack deploy` ignores them.
#[must_use]
pub fn comparable(stack: &Stack) -> String {
    let mut stack = stack.clone();
    let default = At::new((), any_leaf());
    let names = Names::new(&stack);
    for service in &mut stack.services {
        normalise(service, &names, default);
    }
    let services = stack.services.iter();
    let attached: BTreeSet<_> =
        services.clone().flat_map(|service| &service.networks).map(|one| one.network.clone()).collect();
    let mounted: BTreeSet<_> = services
        .flat_map(|service| &service.mounts)
        .filter(|mount| mount.kind.value == MountKind::Volume)
        .filter_map(|mount| mount.source.as_ref().map(|source| source.value.clone()))
        .collect();
    if !stack.networks.iter().any(|network| network.key == "default") {
        stack.networks.push(default_network());
    }
    stack.networks.iter_mut().for_each(|network| normalise_network(network, &names, default));
    stack.networks.retain(|network| attached.contains(&network.key));
    stack.networks.sort_by(|a, b| a.key.cmp(&b.key));
    stack.volumes.iter_mut().for_each(|volume| normalise_volume(volume, &names, default));
    stack.volumes.retain(|volume| mounted.contains(&volume.key));
    stack.volumes.sort_by(|a, b| a.key.cmp(&b.key));
    for config in &mut stack.configs {
        normalise_payload(config, &names.configs);
    }
    for secret in &mut stack.secrets {
        normalise_payload(secret, &names.secrets);
        secret.content = None;
    }
    stack.configs.sort_by(|a, b| a.key.cmp(&b.key));
    stack.secrets.sort_by(|a, b| a.key.cmp(&b.key));
    without_places(&format!("{stack:#?}\n"))
}

/// A leaf for defaults; its number is not printed.
fn any_leaf() -> Leaf {
    let at = Position { file: "".into(), line: 0, column: 0 };
    Leaves::default().push(Written { path: Path::default(), at })
}

/// Removes leaves and positions from a text of `{:#?}`.
fn without_places(text: &str) -> String {
    let mut left = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let inner = line.trim_start();
        let end = match inner.strip_prefix("leaf: ").or(inner.strip_prefix("at: ")).unwrap_or(inner) {
            "Leaf(" => ")",
            "Position {" => "}",
            _ => {
                let _ = writeln!(left, "{line}");
                continue;
            }
        };
        let indent = line.len() - inner.len();
        let is_end = |line: &str| line.len() - line.trim_start().len() == indent && line.trim_start().starts_with(end);
        let _ = lines.by_ref().find(|line| is_end(line));
    }
    left
}

/// The names in the swarm by the keys.
struct Names {
    stack: String,
    networks: BTreeMap<String, String>,
    volumes: BTreeMap<String, String>,
    configs: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

impl Names {
    fn new(stack: &Stack) -> Self {
        let name = |key: &str, name: Option<&At<String>>, external: Option<At<bool>>| {
            let full = match (name, external) {
                (Some(name), _) => name.value.clone(),
                (None, Some(At { value: true, .. })) => key.to_owned(),
                (None, _) => format!("{}_{key}", stack.name),
            };
            (key.to_owned(), full)
        };
        let payloads = |payloads: &[Payload]| {
            payloads.iter().map(|one| name(&one.key, one.name.as_ref(), one.external)).collect::<BTreeMap<_, _>>()
        };
        Self {
            stack: stack.name.clone(),
            networks: stack.networks.iter().map(|one| name(&one.key, one.name.as_ref(), one.external)).collect(),
            volumes: stack.volumes.iter().map(|one| name(&one.key, one.name.as_ref(), one.external)).collect(),
            configs: payloads(&stack.configs),
            secrets: payloads(&stack.secrets),
        }
    }

    /// A key as it is printed: the name without that of the stack.
    fn of(&self, names: &BTreeMap<String, String>, key: &str) -> String {
        let Some(name) = names.get(key) else { return key.to_owned() };
        let short = name.strip_prefix(&self.stack).and_then(|rest| rest.strip_prefix('_'));
        short.unwrap_or(name).to_owned()
    }
}

fn normalise(service: &mut Service, names: &Names, default: At<()>) {
    if let Some(image) = &mut service.image {
        image.value = image_name(&image.value);
    }
    for words in [&mut service.entrypoint, &mut service.command] {
        *words = words.take().filter(|words| !words.words.is_empty());
    }
    service.environment.sort_by(|a, b| a.name.cmp(&b.name));
    for flag in [&mut service.tty, &mut service.stdin_open, &mut service.read_only] {
        *flag = flag.filter(|flag| flag.value);
    }
    service.stop_grace_period.get_or_insert(default.map(|()| Duration::from_secs(10)));
    service.health_check = service.health_check.take().map(health_check).filter(|one| *one != HealthCheck::default());
    let added = capabilities(&service.capabilities_added);
    let dropped: BTreeSet<_> = capabilities(&service.capabilities_dropped).difference(&added).cloned().collect();
    service.capabilities_added = added.into_iter().map(|one| default.map(|()| one)).collect();
    service.capabilities_dropped = dropped.into_iter().map(|one| default.map(|()| one)).collect();
    service.sysctls.sort_by(|a, b| a.0.cmp(&b.0));
    service.ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    service.labels.sort_by(|a, b| a.0.cmp(&b.0));
    service.service_labels.sort_by(|a, b| a.0.cmp(&b.0));
    let oom_score_adj = service.compose.oom_score_adj.filter(|score| score.value != 0);
    service.compose = ComposeOnly { oom_score_adj, ..ComposeOnly::default() };
    if let Some(logging) = &mut service.logging {
        logging.options.sort_by(|a, b| a.0.cmp(&b.0));
    }
    let mode = &mut service.mode;
    let kind = *mode.kind.get_or_insert(default.map(|()| ModeKind::Replicated));
    if matches!(kind.value, ModeKind::Replicated | ModeKind::ReplicatedJob) {
        let replicas = *mode.replicas.get_or_insert(default.map(|()| 1));
        if kind.value == ModeKind::ReplicatedJob {
            mode.max_concurrent.get_or_insert(replicas);
        }
    }
    normalise_scheduling(service, default);
    normalise_uses(service, names, default);
}

fn normalise_scheduling(service: &mut Service, default: At<()>) {
    let resources = &mut service.resources;
    for amount in [
        &mut resources.cpu_limit,
        &mut resources.cpu_reservation,
        &mut resources.memory_limit,
        &mut resources.memory_reservation,
    ] {
        *amount = amount.filter(|amount| amount.value != 0);
    }
    resources.pids = resources.pids.filter(|pids| pids.value > 0);
    service.placement.max_replicas = service.placement.max_replicas.filter(|most| most.value > 0);
    service.placement.platforms.clear();
    service.update = Some(update_config(service.update.take(), default));
    service.rollback = Some(update_config(service.rollback.take(), default));
    let restart = &service.restart;
    service.restart = RestartPolicy {
        condition: restart.condition.or(Some(default.map(|()| RestartCondition::Any))),
        delay: restart.delay.or(Some(default.map(|()| Duration::from_secs(5)))),
        max_attempts: restart.max_attempts.filter(|most| most.value > 0),
        window: restart.window.filter(|window| !window.value.is_zero()),
    };
    service.endpoint_mode.get_or_insert(default.map(|()| EndpointMode::Vip));
}

fn normalise_uses(service: &mut Service, names: &Names, default: At<()>) {
    for port in &mut service.ports {
        port.protocol.get_or_insert(default.map(|()| Protocol::Tcp));
        port.mode.get_or_insert(default.map(|()| PortMode::Ingress));
        (port.host_ip, port.name, port.app_protocol) = (None, None, None);
    }
    service.ports.sort_by_key(|port| {
        let is_host = port.mode.is_some_and(|mode| mode.value == PortMode::Host);
        (port.published.map(|port| port.value), port.target.value, port.protocol.map(|one| one.value), is_host)
    });
    if service.networks.is_empty() {
        service.networks.push(Attachment {
            network: "default".to_owned(),
            leaf: None,
            aliases: Vec::new(),
            addresses: Vec::new(),
            driver_options: Vec::new(),
        });
    }
    for attachment in &mut service.networks {
        attachment.network = names.of(&names.networks, &attachment.network);
        attachment.leaf = None;
        attachment.addresses.clear();
        attachment.aliases.retain(|alias| alias.value != service.name);
        attachment.driver_options.sort_by(|a, b| a.0.cmp(&b.0));
    }
    service.networks.sort_by(|a, b| a.network.cmp(&b.network));
    for mount in &mut service.mounts {
        if let (MountKind::Volume | MountKind::Cluster, Some(source)) = (mount.kind.value, &mut mount.source) {
            source.value = names.of(&names.volumes, &source.value);
        }
        mount.read_only = mount.read_only.filter(|flag| flag.value);
        mount.no_copy = mount.no_copy.filter(|flag| flag.value);
        mount.tmpfs_size = mount.tmpfs_size.filter(|size| size.value > 0);
        (mount.create_host_path, mount.tmpfs_mode) = (None, None);
        mount.other.clear();
    }
    service.mounts.sort_by(|a, b| a.target.value.cmp(&b.target.value));
    for (mounts, known) in [(&mut service.configs, &names.configs), (&mut service.secrets, &names.secrets)] {
        for mount in mounts.iter_mut() {
            let FileMount { source, target, uid, gid, mode } = mount;
            target.get_or_insert_with(|| source.clone());
            source.value = names.of(known, &source.value);
            uid.get_or_insert(default.map(|()| "0".to_owned()));
            gid.get_or_insert(default.map(|()| "0".to_owned()));
            mode.get_or_insert(default.map(|()| 0o444));
        }
        mounts.sort_by(|a, b| a.source.value.cmp(&b.source.value));
    }
}

/// Without a digest and the registry that is meant anyway, and with a tag where neither is there.
fn image_name(image: &str) -> String {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    match digest {
        Some(digest) if !has_tag => format!("{name}@{digest}"),
        None if !has_tag => format!("{name}:latest"),
        _ => name.to_owned(),
    }
}

fn health_check(check: HealthCheck) -> HealthCheck {
    let set = |duration: Option<At<Duration>>| duration.filter(|duration| !duration.value.is_zero());
    match check.test {
        Some(Test::Disabled(leaf)) => HealthCheck { test: Some(Test::Disabled(leaf)), ..HealthCheck::default() },
        test => HealthCheck {
            test: test.map(|test| match test {
                Test::Shell(_, line) => Test::Shell(Some(line.leaf), line),
                test => test,
            }),
            interval: set(check.interval),
            timeout: set(check.timeout),
            retries: check.retries.filter(|retries| retries.value > 0),
            start_period: set(check.start_period),
            start_interval: set(check.start_interval),
        },
    }
}

/// As `docker stack deploy` sends them; `ALL` covers the others.
fn capabilities(written: &[At<String>]) -> BTreeSet<String> {
    let names: BTreeSet<_> = written
        .iter()
        .map(|one| one.value.trim().to_uppercase())
        .filter(|name| name != "RESET" && name != "CAP_RESET")
        .map(|name| if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
        .collect();
    if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
}

fn update_config(update: Option<UpdateConfig>, default: At<()>) -> UpdateConfig {
    let update = update.unwrap_or_default();
    UpdateConfig {
        parallelism: update.parallelism.or(Some(default.map(|()| 1))),
        delay: update.delay.filter(|delay| !delay.value.is_zero()),
        failure_action: update.failure_action.or_else(|| Some(default.map(|()| "pause".to_owned()))),
        monitor: update
            .monitor
            .filter(|monitor| !monitor.value.is_zero())
            .or(Some(default.map(|()| Duration::from_secs(5)))),
        max_failure_ratio: update.max_failure_ratio.filter(|ratio| ratio.value > 0.0),
        order: update.order.or(Some(default.map(|()| UpdateOrder::StopFirst))),
    }
}

fn default_network() -> Network {
    Network {
        key: "default".to_owned(),
        empty: None,
        name: None,
        external: None,
        driver: None,
        driver_options: Vec::new(),
        internal: None,
        attachable: None,
        labels: Vec::new(),
        addressing: Vec::new(),
        subnets: Vec::new(),
    }
}

fn normalise_network(network: &mut Network, names: &Names, default: At<()>) {
    network.key = names.of(&names.networks, &network.key);
    (network.name, network.empty) = (None, None);
    network.external = network.external.filter(|flag| flag.value);
    if network.external.is_some() {
        let external = network.external;
        *network = Network { key: std::mem::take(&mut network.key), external, ..default_network() };
        return;
    }
    network.driver.get_or_insert(default.map(|()| "overlay".to_owned()));
    network.internal = network.internal.filter(|flag| flag.value);
    network.attachable = network.attachable.filter(|flag| flag.value);
    network.addressing.clear();
    network.subnets.clear();
    network.driver_options.sort_by(|a, b| a.0.cmp(&b.0));
    network.labels.sort_by(|a, b| a.0.cmp(&b.0));
}

fn normalise_volume(volume: &mut Volume, names: &Names, default: At<()>) {
    volume.key = names.of(&names.volumes, &volume.key);
    (volume.name, volume.empty) = (None, None);
    volume.external = volume.external.filter(|flag| flag.value);
    if volume.external.is_some() {
        volume.driver_options.clear();
        volume.labels.clear();
        volume.driver = None;
    } else {
        volume.driver.get_or_insert(default.map(|()| "local".to_owned()));
    }
    volume.cluster.clear();
    volume.driver_options.sort_by(|a, b| a.0.cmp(&b.0));
    volume.labels.sort_by(|a, b| a.0.cmp(&b.0));
}

fn normalise_payload(payload: &mut Payload, names: &BTreeMap<String, String>) {
    if let Some(name) = names.get(&payload.key) {
        name.clone_into(&mut payload.key);
    }
    (payload.name, payload.empty) = (None, None);
    payload.external = payload.external.filter(|flag| flag.value);
    if payload.external.is_some() {
        (payload.content, payload.template_driver, payload.driver) = (None, None, None);
        payload.driver_options.clear();
        payload.labels.clear();
    }
    payload.driver_options.sort_by(|a, b| a.0.cmp(&b.0));
    payload.labels.sort_by(|a, b| a.0.cmp(&b.0));
}
