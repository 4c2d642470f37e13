//! A service of the Engine API, but for its container.
//!
//! `docker service inspect` prints Docker's defaults where nothing was written (`InsertDefaults`), so they are values like others here.

use std::collections::BTreeSet;

use super::container;
use super::document::Kind;
use super::fields::{Fields, Reader};
use super::mounts::Volumes;
use super::names::Names;
use super::objects::{Files, Networks, labels};
use crate::migrate::stack::{
    Attachment, ComposeOnly, EndpointMode, GenericResource, Logging, Mode, ModeKind, Placement, Platform, Port,
    PortMode, Protocol, ResourceAmount, Resources, RestartCondition, RestartPolicy, Service, UpdateConfig, UpdateOrder,
};
use crate::migrate::{At, Item, ItemValue, Outcome};

/// What the swarm notes for itself.
pub(super) const BOOKKEEPING: &str = "bookkeeping of the swarm";

/// What the parts of a service write to.
pub(super) struct Context<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) names: &'a mut Names,
    pub(super) networks: &'a mut Networks,
    pub(super) volumes: &'a mut Volumes,
    pub(super) files: &'a mut Files,
}

/// Reads a service. `None`: it runs no container.
pub(super) fn read(item: &Item, context: &mut Context<'_>) -> Option<Service> {
    let mut fields = context.reader.open(item);
    bookkeeping(&mut fields, context.reader);
    let mut spec = fields.map("Spec", context.reader)?;
    let ports: Vec<_> = spec.item("EndpointSpec").into_iter().collect();
    if let Some(endpoint) = fields.item("Endpoint") {
        mark_endpoint(endpoint, ports.first().copied(), context.reader);
    }
    let mut task = spec.map("TaskTemplate", context.reader)?;
    let Some(inner) = task.item("ContainerSpec") else {
        context.reader.mark(
            item.get("Spec")?,
            Outcome::Dropped,
            "it runs a plugin of Docker or a container outside of services, which Kubernetes has not",
        );
        fields.end(context.reader);
        return None;
    };
    fields.end(context.reader);

    let name = spec.text("Name", context.reader)?;
    let identity = context.names.identify(Kind::Service, &name.value, Some(false));
    context.reader.mark_leaf(name.leaf, Outcome::Converted, "the name of the service");
    let mut service = empty(identity.key, item);
    service.service_labels = labels(&mut spec, context.reader);
    container::read(inner, &mut service, context);
    read_task(task, &mut spec, &mut service, context);
    if let Some(mode) = spec.map("Mode", context.reader) {
        service.mode = read_mode(mode, context.reader);
    }
    service.update = spec.map("UpdateConfig", context.reader).map(|fields| read_update(fields, context.reader));
    service.rollback = spec.map("RollbackConfig", context.reader).map(|fields| read_update(fields, context.reader));
    if let Some(item) = ports.first() {
        let mut endpoint = context.reader.open(item);
        let modes = [("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::Dnsrr)];
        service.endpoint_mode = endpoint.word("Mode", &modes, context.reader);
        let ports = endpoint.list("Ports", context.reader).iter();
        service.ports = ports.filter_map(|port| read_port(port, context.reader)).collect();
        endpoint.end(context.reader);
    }
    spec.end(context.reader);
    Some(service)
}

/// The fields that objects of the swarm have in common.
pub(super) fn bookkeeping(fields: &mut Fields<'_>, reader: &mut Reader) {
    let keys = ["ID", "Version", "CreatedAt", "UpdatedAt", "UpdateStatus", "ServiceStatus", "JobStatus"];
    fields.mark(&keys, Outcome::Converted, BOOKKEEPING, reader);
    let reason = "the specification before the last update, which is not in force; bookkeeping of the swarm";
    fields.mark(&["PreviousSpec"], Outcome::Converted, reason, reader);
}

/// What the swarm assigned: addresses, and ports where the specification leaves the choice to it.
fn mark_endpoint(item: &Item, spec: Option<&Item>, reader: &mut Reader) {
    let mut fields = reader.open(item);
    let identity = |port: &Item| {
        ["TargetPort", "Protocol", "PublishMode"]
            .map(|key| port.get(key).and_then(Item::scalar).map(|scalar| scalar.value.to_string()))
    };
    let of_spec = spec.and_then(|spec| spec.get("Ports")).map_or(&[][..], Item::items);
    let open: BTreeSet<_> = of_spec.iter().filter(|port| port.get("PublishedPort").is_none()).map(identity).collect();
    for port in fields.list("Ports", reader) {
        let is_open = open.contains(&identity(port));
        let mut port = reader.open(port);
        if is_open {
            let reason = "the swarm chose this port; the cluster chooses another, which clients have to be pointed to";
            port.mark(&["PublishedPort"], Outcome::Approximated, reason, reader);
        }
        let keys = ["Name", "Protocol", "TargetPort", "PublishedPort", "PublishMode"];
        port.mark(&keys, Outcome::Converted, BOOKKEEPING, reader);
        port.end(reader);
    }
    fields.mark(&["Spec", "VirtualIPs"], Outcome::Converted, BOOKKEEPING, reader);
    fields.end(reader);
}

fn empty(name: String, item: &Item) -> Service {
    Service {
        name,
        at: item.at.clone(),
        image: None,
        entrypoint: None,
        command: None,
        environment: Vec::new(),
        working_dir: None,
        user: None,
        groups: Vec::new(),
        hostname: None,
        init: None,
        tty: None,
        stdin_open: None,
        read_only: None,
        stop_signal: None,
        stop_grace_period: None,
        health_check: None,
        extra_hosts: Vec::new(),
        dns_servers: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        capabilities_added: Vec::new(),
        capabilities_dropped: Vec::new(),
        sysctls: Vec::new(),
        ulimits: Vec::new(),
        labels: Vec::new(),
        service_labels: Vec::new(),
        mode: Mode::default(),
        resources: Resources::default(),
        placement: Placement::default(),
        update: None,
        rollback: None,
        restart: RestartPolicy::default(),
        endpoint_mode: None,
        ports: Vec::new(),
        networks: Vec::new(),
        mounts: Vec::new(),
        configs: Vec::new(),
        secrets: Vec::new(),
        logging: None,
        compose: ComposeOnly::default(),
    }
}

fn read_task(mut task: Fields<'_>, spec: &mut Fields<'_>, service: &mut Service, context: &mut Context<'_>) {
    if let Some(fields) = task.map("Resources", context.reader) {
        read_resources(fields, &mut service.resources, context.reader);
    }
    if let Some(mut fields) = task.map("RestartPolicy", context.reader) {
        let conditions = [
            ("any", RestartCondition::Any),
            ("on-failure", RestartCondition::OnFailure),
            ("none", RestartCondition::None),
        ];
        service.restart = RestartPolicy {
            condition: fields.word("Condition", &conditions, context.reader),
            delay: fields.duration("Delay", context.reader),
            max_attempts: fields.integer("MaxAttempts", context.reader),
            window: fields.duration("Window", context.reader),
        };
        fields.end(context.reader);
    }
    if let Some(fields) = task.map("Placement", context.reader) {
        service.placement = read_placement(fields, context.reader);
    }
    if let Some(mut fields) = task.map("LogDriver", context.reader) {
        service.logging = Some(Logging {
            driver: fields.text("Name", context.reader),
            options: fields.named_texts("Options", context.reader),
        });
        fields.end(context.reader);
    }
    let reader = &mut *context.reader;
    // Before API version 1.44 networks could be at the service, and those of the task count more.
    let of_task = task.list("Networks", reader);
    let of_service = spec.item("Networks");
    match of_service {
        Some(item) if !of_task.is_empty() => {
            reader.mark(item, Outcome::Converted, "the networks of the task template count");
        }
        _ => {}
    }
    let items = if of_task.is_empty() { of_service.map_or(&[][..], |item| reader.list(item)) } else { of_task };
    for item in items {
        service.networks.extend(read_attachment(item, &service.name, context));
    }
    let reader = &mut *context.reader;
    task.mark(&["ForceUpdate"], Outcome::Converted, BOOKKEEPING, reader);
    if let Some(runtime) = task.text("Runtime", reader) {
        match runtime.value.as_str() {
            "container" => reader.mark_leaf(runtime.leaf, Outcome::Converted, "it runs containers, as pods do"),
            _ => reader.mark_leaf(runtime.leaf, Outcome::Dropped, "Kubernetes runs containers only"),
        }
    }
    task.end(reader);
}

fn read_mode(mut fields: Fields<'_>, reader: &mut Reader) -> Mode {
    let mut mode = Mode::default();
    let kinds = [
        ("Replicated", ModeKind::Replicated),
        ("Global", ModeKind::Global),
        ("ReplicatedJob", ModeKind::ReplicatedJob),
        ("GlobalJob", ModeKind::GlobalJob),
    ];
    for (key, kind) in kinds {
        let Some(item) = fields.item(key) else { continue };
        match &item.value {
            // A map without fields is a leaf itself, and says the kind.
            ItemValue::NoKeys(leaf) => mode.kind = Some(At::new(kind, *leaf)),
            ItemValue::Scalar(_) => drop(reader.open(item)),
            _ => {
                let mut inner = reader.open(item);
                let replicas = inner.integer("Replicas", reader);
                mode.replicas = replicas.or_else(|| inner.integer("TotalCompletions", reader));
                mode.max_concurrent = inner.integer("MaxConcurrent", reader);
                mode.kind = item.leaves().first().map(|leaf| At::new(kind, *leaf));
                inner.end(reader);
            }
        }
    }
    fields.end(reader);
    mode
}

fn read_resources(mut fields: Fields<'_>, resources: &mut Resources, reader: &mut Reader) {
    if let Some(mut limits) = fields.map("Limits", reader) {
        resources.cpu_limit = limits.integer("NanoCPUs", reader);
        resources.memory_limit = limits.integer("MemoryBytes", reader);
        resources.pids = limits.integer("Pids", reader);
        limits.end(reader);
    }
    if let Some(mut reservations) = fields.map("Reservations", reader) {
        resources.cpu_reservation = reservations.integer("NanoCPUs", reader);
        resources.memory_reservation = reservations.integer("MemoryBytes", reader);
        for item in reservations.list("GenericResources", reader) {
            let mut fields = reader.open(item);
            let named = fields.map("NamedResourceSpec", reader);
            let counted = fields.map("DiscreteResourceSpec", reader);
            if let Some(mut named) = named {
                let kind = named.text("Kind", reader);
                let value = named.text("Value", reader).map(|value| value.map(ResourceAmount::Named));
                resources.generic.extend(generic_resource(item, kind, value, reader));
                named.end(reader);
            }
            if let Some(mut counted) = counted {
                let kind = counted.text("Kind", reader);
                let value = counted.integer("Value", reader).map(|value| value.map(ResourceAmount::Count));
                resources.generic.extend(generic_resource(item, kind, value, reader));
                counted.end(reader);
            }
            fields.end(reader);
        }
        reservations.end(reader);
    }
    // The API has the swap alone, and the stack has it together with the memory.
    let memory = resources.memory_limit.map_or(0, |limit| i64::try_from(limit.value).unwrap_or(i64::MAX));
    let swap: Option<At<i64>> = fields.integer("SwapBytes", reader);
    resources.swap = swap.map(|swap| swap.map(|bytes| if bytes < 0 { bytes } else { bytes.saturating_add(memory) }));
    resources.swappiness = fields.integer("MemorySwappiness", reader);
    fields.end(reader);
}

fn generic_resource(
    item: &Item,
    kind: Option<At<String>>,
    amount: Option<At<ResourceAmount>>,
    reader: &mut Reader,
) -> Option<GenericResource> {
    if kind.is_none() || amount.is_none() {
        reader.refuse(item, "a resource with Kind and Value");
    }
    Some(GenericResource { kind: kind?, amount: amount? })
}

fn read_placement(mut fields: Fields<'_>, reader: &mut Reader) -> Placement {
    let mut placement = Placement {
        constraints: fields.texts("Constraints", reader),
        max_replicas: fields.integer("MaxReplicas", reader),
        ..Placement::default()
    };
    for item in fields.list("Preferences", reader) {
        let mut preference = reader.open(item);
        if let Some(mut spread) = preference.map("Spread", reader) {
            placement.spread.extend(spread.text("SpreadDescriptor", reader));
            spread.end(reader);
        }
        preference.end(reader);
    }
    for item in fields.list("Platforms", reader) {
        let mut platform = reader.open(item);
        let (architecture, os) = (platform.text("Architecture", reader), platform.text("OS", reader));
        if architecture.is_some() || os.is_some() {
            placement.platforms.push(Platform { architecture, os });
        }
        platform.end(reader);
    }
    fields.end(reader);
    placement
}

fn read_update(mut fields: Fields<'_>, reader: &mut Reader) -> UpdateConfig {
    let orders = [("stop-first", UpdateOrder::StopFirst), ("start-first", UpdateOrder::StartFirst)];
    let update = UpdateConfig {
        parallelism: fields.integer("Parallelism", reader),
        delay: fields.duration("Delay", reader),
        failure_action: fields.text("FailureAction", reader),
        monitor: fields.duration("Monitor", reader),
        max_failure_ratio: fields.ratio("MaxFailureRatio", reader),
        order: fields.word("Order", &orders, reader),
    };
    fields.end(reader);
    update
}

fn read_port(item: &Item, reader: &mut Reader) -> Option<Port> {
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
    let modes = [("ingress", PortMode::Ingress), ("host", PortMode::Host)];
    let mut fields = reader.open(item);
    let target = fields.integer("TargetPort", reader);
    let published: Option<At<u16>> = fields.integer("PublishedPort", reader);
    let protocol = fields.word("Protocol", &protocols, reader);
    let mode = fields.word("PublishMode", &modes, reader);
    let name = fields.text("Name", reader);
    fields.end(reader);
    if target.is_none() {
        reader.refuse(item, "a port with a TargetPort");
    }
    if let Some(open) = published.filter(|port| port.value == 0) {
        reader.mark_leaf(open.leaf, Outcome::Converted, "any port that is free");
    }
    let published = published.filter(|port| port.value != 0);
    Some(Port { target: target?, published, protocol, mode, host_ip: None, name, app_protocol: None })
}

fn read_attachment(item: &Item, service: &str, context: &mut Context<'_>) -> Option<Attachment> {
    let reader = &mut *context.reader;
    let mut fields = reader.open(item);
    let target = fields.text("Target", reader);
    if target.is_none() {
        reader.refuse(item, "an attachment with the ID of a network as Target");
    }
    let target = target?;
    let (aliases, own): (Vec<_>, Vec<_>) =
        fields.texts("Aliases", reader).into_iter().partition(|alias| alias.value != service);
    for alias in own {
        reader.mark_leaf(alias.leaf, Outcome::Converted, "the service's own name, which Docker adds");
    }
    let driver_options = fields.named_texts("DriverOpts", reader);
    fields.end(reader);
    let network = context.networks.attach(&target, context.names);
    if context.networks.is_unknown(&target.value) {
        let reason = "a network that the file does not describe; collect it with the script, or add what docker \
                      network inspect prints for this ID";
        reader.mark_leaf(target.leaf, Outcome::NeedsInput, reason);
    }
    Some(Attachment { network, leaf: Some(target.leaf), aliases, addresses: Vec::new(), driver_options })
}
