//! Which program a file was written for, by what is in it.
//!
//! A table of signs with weights. A key that `docker stack deploy` refuses weighs most, for a stack with it was never deployed; nothing is
//! refused by `docker compose` alone.

use super::super::Dialect;
use super::super::yaml::{Entry, Node, Tag, Value};
use super::shape::{as_text, entries, items};

/// The weight of what `docker stack deploy` refuses.
const REFUSED: u32 = 10;

struct Sign {
    dialect: Dialect,
    weight: u32,
    /// For the report.
    name: &'static str,
    is_there: fn(&Node) -> bool,
}

const fn stack(weight: u32, name: &'static str, is_there: fn(&Node) -> bool) -> Sign {
    Sign { dialect: Dialect::Stack, weight, name, is_there }
}

const fn compose(weight: u32, name: &'static str, is_there: fn(&Node) -> bool) -> Sign {
    Sign { dialect: Dialect::Compose, weight, name, is_there }
}

/// The signs, by program and weight.
const SIGNS: &[Sign] = &[
    compose(REFUSED, "`extends`", |file| service(file, "extends")),
    compose(REFUSED, "`include`", |file| file.get("include").is_some()),
    compose(REFUSED, "`profiles`", |file| service(file, "profiles")),
    compose(REFUSED, "`name` at the top", |file| file.get("name").is_some()),
    compose(REFUSED, "`!reset` or `!override`", has_tag),
    compose(REFUSED, "`depends_on` with conditions", |file| is_service(file, |one| is_map(one.get("depends_on")))),
    compose(REFUSED, "`env_file` with `path`", |file| {
        is_service(file, |one| {
            one.get("env_file").is_some_and(|list| items(list).iter().any(|item| is_map(Some(item))))
        })
    }),
    compose(REFUSED, "`version` 2", |file| version(file).is_some_and(|version| version.starts_with('2'))),
    compose(REFUSED, "a key of services that only docker compose has", |file| is_service(file, has_compose_key)),
    compose(5, "`build` without `image`", |file| is_service(file, |one| has(one, "build") && !has(one, "image"))),
    compose(1, "`build`", |file| service(file, "build")),
    compose(2, "`container_name`", |file| service(file, "container_name")),
    compose(2, "`network_mode`", |file| service(file, "network_mode")),
    compose(2, "`restart`", |file| service(file, "restart")),
    compose(1, "`depends_on`", |file| service(file, "depends_on")),
    compose(1, "`privileged`", |file| service(file, "privileged")),
    compose(1, "`devices`", |file| service(file, "devices")),
    compose(1, "`links`", |file| service(file, "links")),
    stack(6, "a template such as `{{.Task.Slot}}`", has_template),
    stack(6, "`template_driver`", |file| {
        ["configs", "secrets"]
            .iter()
            .any(|kind| section(file, kind).iter().any(|entry| has(&entry.node, "template_driver")))
    }),
    stack(5, "a network with the driver overlay", |file| {
        section(file, "networks").iter().any(|entry| entry.node.get("driver").and_then(as_text) == Some("overlay"))
    }),
    stack(4, "`deploy.placement`", |file| deploy(file, "placement")),
    stack(4, "`deploy.mode` global or a job", |file| {
        is_service(file, |one| {
            let mode = one.get("deploy").and_then(|deploy| deploy.get("mode")).and_then(as_text);
            mode.is_some_and(|mode| mode != "replicated")
        })
    }),
    stack(4, "a config or secret that is external", |file| {
        ["configs", "secrets"].iter().any(|kind| section(file, kind).iter().any(|entry| has(&entry.node, "external")))
    }),
    stack(3, "`deploy.update_config`", |file| deploy(file, "update_config")),
    stack(3, "`deploy.rollback_config`", |file| deploy(file, "rollback_config")),
    stack(3, "`deploy.endpoint_mode`", |file| deploy(file, "endpoint_mode")),
    stack(3, "`deploy.labels`", |file| deploy(file, "labels")),
    stack(3, "a network that is attachable", |file| {
        section(file, "networks").iter().any(|entry| has(&entry.node, "attachable"))
    }),
    stack(2, "`deploy.restart_policy`", |file| deploy(file, "restart_policy")),
    stack(2, "`version` 3 with `deploy`", |file| {
        version(file).is_some_and(|version| version.starts_with('3')) && service(file, "deploy")
    }),
    stack(1, "`deploy.replicas`", |file| deploy(file, "replicas")),
];

/// Keys of services that `docker stack deploy` does not know or refuses, and that files really have.
const COMPOSE_KEYS: &[&str] = &[
    "annotations",
    "attach",
    "blkio_config",
    "cgroup",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpus",
    "cpuset",
    "develop",
    "device_cgroup_rules",
    "dns_opt",
    "gpus",
    "group_add",
    "label_file",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "models",
    "oom_kill_disable",
    "pids_limit",
    "platform",
    "post_start",
    "pre_start",
    "pre_stop",
    "provider",
    "pull_policy",
    "runtime",
    "scale",
    "storage_opt",
    "use_api_socket",
    "uts",
    "volumes_from",
];

/// The dialect of a set of files, and why.
///
/// * `files`: their first documents.
pub(super) fn decide(files: &[&Node]) -> (Dialect, String) {
    let side = |dialect| {
        let found: Vec<&Sign> = SIGNS
            .iter()
            .filter(|sign| sign.dialect == dialect && files.iter().any(|file| (sign.is_there)(file)))
            .collect();
        let weight: u32 = found.iter().map(|sign| sign.weight).sum();
        let mut names: Vec<&str> = found.iter().map(|sign| sign.name).collect();
        names.truncate(4);
        (weight, names.join(", "))
    };
    let (stack, stack_signs) = side(Dialect::Stack);
    let (compose, compose_signs) = side(Dialect::Compose);
    let against = |signs: &str, weight| match weight {
        0 => String::new(),
        _ => format!(", against {signs} (weight {weight})"),
    };
    if compose > stack {
        (Dialect::Compose, format!("{compose_signs} (weight {compose}){}", against(&stack_signs, stack)))
    } else if stack > 0 {
        (Dialect::Stack, format!("{stack_signs} (weight {stack}){}", against(&compose_signs, compose)))
    } else {
        (Dialect::Stack, "nothing in the files decides, and docker stack deploy is the default".to_owned())
    }
}

fn section<'n>(file: &'n Node, name: &str) -> &'n [Entry] {
    file.get(name).map(entries).unwrap_or_default()
}

fn has(node: &Node, name: &str) -> bool {
    node.get(name).is_some()
}

fn is_map(node: Option<&Node>) -> bool {
    matches!(node, Some(Node { value: Value::Map(_), .. }))
}

fn is_service(file: &Node, is: fn(&Node) -> bool) -> bool {
    section(file, "services").iter().any(|entry| is(&entry.node))
}

fn service(file: &Node, name: &str) -> bool {
    section(file, "services").iter().any(|entry| has(&entry.node, name))
}

fn deploy(file: &Node, name: &str) -> bool {
    section(file, "services").iter().any(|entry| entry.node.get("deploy").is_some_and(|deploy| has(deploy, name)))
}

fn version(file: &Node) -> Option<String> {
    file.get("version").map(|version| version.value.to_string())
}

fn has_compose_key(service: &Node) -> bool {
    entries(service).iter().any(|entry| COMPOSE_KEYS.contains(&entry.key.as_str()))
}

fn has_template(node: &Node) -> bool {
    match &node.value {
        Value::Text(text) => text.match_indices("{{").any(|(at, _)| {
            let inner = text[at + 2..].trim_start_matches(['-', ' ']);
            [".Task.", ".Node.", ".Service."].iter().any(|name| inner.starts_with(name))
        }),
        Value::List(items) => items.iter().any(has_template),
        Value::Map(entries) => entries.iter().any(|entry| has_template(&entry.node)),
        _ => false,
    }
}

fn has_tag(node: &Node) -> bool {
    matches!(node.tag, Some(Tag::Reset | Tag::Override))
        || match &node.value {
            Value::List(items) => items.iter().any(has_tag),
            Value::Map(entries) => entries.iter().any(|entry| has_tag(&entry.node)),
            _ => false,
        }
}
