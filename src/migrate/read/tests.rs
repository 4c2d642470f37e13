//! Against Docker's programs, and what holds for any tree.

mod projection;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use self::projection::projected;
use super::super::leaf::{Item, Leaves, Path};
use super::super::stack::Stack;
use super::super::{Dialect, Files, Mistake, Node, Source};
use super::{Outcome, ReadStack, leaves_of, read_with};

/// Services with what docker/cli 29.9.3 (`stack`) and compose-go 2.16.2 (`compose`) make of them; null is an error, and a program that is
/// not there was not asked. Written by a program that calls both, in a folder that is shown as `/w`, with HOME=/home/u, shown as `~`, and
/// SHELL_SET=from-shell. docker/cli is followed up to what it sends to a swarm, without the search for the ids of configs and secrets.
const CASES: &str = include_str!("../../../tests/data/swarm/read.json");

#[derive(serde::Deserialize)]
struct Case {
    kind: String,
    service: String,
    #[serde(default)]
    top: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "present")]
    stack: Option<Json>,
    #[serde(default, deserialize_with = "present")]
    compose: Option<Json>,
}

/// A null that is there is not the same as nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

fn lookup(name: &str) -> Option<String> {
    (name == "SHELL_SET").then(|| "from-shell".to_owned())
}

struct Read {
    leaves: Leaves,
    tree: Item,
    result: Result<ReadStack, Vec<Mistake>>,
}

fn read_in(folder: &std::path::Path, text: &str, dialect: Dialect) -> Read {
    let files = Files::new(folder, false).expect("there");
    let nodes = Node::documents(&Source::of("stack.yml", text.as_bytes()).expect("text")).expect(text);
    let mut leaves = Leaves::default();
    let tree = Item::number(&nodes[0], Path::default(), &mut leaves);
    let result = read_with(&tree, "p", dialect, &files, &leaves, &lookup);
    Read { leaves, tree, result }
}

fn read(text: &str, dialect: Dialect) -> Read {
    read_in(tempfile::tempdir().expect("folder").path(), text, dialect)
}

fn errors(text: &str, dialect: Dialect) -> Vec<String> {
    read(text, dialect).result.expect_err(text).iter().map(ToString::to_string).collect()
}

fn stack_of(text: &str, dialect: Dialect) -> Stack {
    read(text, dialect).result.expect(text).stack
}

#[test]
fn each_program_is_followed() {
    let cases: Vec<Case> = serde_json::from_str(CASES).expect("a list of cases");
    assert!(cases.len() > 300);
    let mut wrong = Vec::new();
    for case in cases {
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in &case.files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        // Variables are replaced before a tree is read.
        let service = case.service.replace("$$", "$").replace('\n', "\n    ");
        let top = case.top.replace("${SHELL_SET}", "from-shell");
        let text = format!("services:\n  a:\n    image: i\n    {service}\n{top}\n");
        for (dialect, expected) in [(Dialect::Stack, &case.stack), (Dialect::Compose, &case.compose)] {
            let Some(expected) = expected else { continue };
            let read = read_in(folder.path(), &text, dialect);
            let found = match &read.result {
                Ok(found) => projected(&case.kind, &found.stack, &read.leaves),
                Err(_) => Json::Null,
            };
            let root = folder.path().canonicalize().expect("there").display().to_string();
            let found: Json = serde_json::from_str(&found.to_string().replace(&root, "/w")).expect("JSON");
            if found != *expected {
                wrong.push(format!(
                    "{dialect:?} {service:?} {top:?}:\n  {found}\n  {expected}\n  {:?}",
                    read.result.err()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Keys that both programs read. Every field of the types of a stack is written, but for those that only a running stack has.
const BOTH: &str = r#"
services:
  a:
    image: i
    entrypoint: [/e, x]
    command: run it
    environment: {A: 1, B: null}
    env_file: [e]
    working_dir: /w
    user: "1"
    hostname: h
    init: true
    tty: true
    stdin_open: true
    read_only: true
    stop_signal: SIGQUIT
    stop_grace_period: 3s
    healthcheck: {test: [CMD, t], interval: 1s, timeout: 1s, retries: 1, start_period: 1s, start_interval: 1s}
    extra_hosts: [a=1.2.3.4]
    dns: [1.1.1.1]
    dns_search: x
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    sysctls: {net.core.somaxconn: 1}
    ulimits: {nofile: 1, nproc: {soft: 1, hard: 2}}
    labels: [a=b]
    deploy:
      labels: {c: d}
      mode: replicated
      replicas: 2
      endpoint_mode: vip
      placement: {constraints: [node.role==manager], preferences: [{spread: node.labels.z}], max_replicas_per_node: 1}
      resources:
        limits: {cpus: "1", memory: 1G, pids: 1}
        reservations:
          cpus: "1"
          memory: 1G
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 1}}]
      restart_policy: {condition: any, delay: 1s, max_attempts: 1, window: 1s}
      update_config: {parallelism: 1, delay: 1s, failure_action: pause, monitor: 1s, max_failure_ratio: 0.1, order: stop-first}
      rollback_config: {parallelism: 1}
    ports: ["80:80/tcp", {target: 1, published: 2, protocol: udp, mode: host}]
    networks: {n: {aliases: [x], driver_opts: {a: b}}, m: null, o: {}}
    volumes:
      - v:/v:ro,nocopy,strange
      - {type: volume, source: v, target: /s, read_only: true, volume: {nocopy: true, subpath: x}}
      - {type: bind, source: /b, target: /b, bind: {propagation: rslave}, consistency: cached}
      - {type: tmpfs, target: /t, tmpfs: {size: 1}}
    configs: [{source: c, target: /c, uid: "1", gid: "1", mode: 0440}]
    secrets: [s]
    logging: {driver: json-file, options: {max-size: 1m}}
  b: {image: i, healthcheck: {disable: true}, networks: [n]}
  c: {image: i, healthcheck: {test: [CMD-SHELL, t]}}
  d: {image: i, healthcheck: {test: t}, restart: always}
  e: {image: i, healthcheck: {test: [NONE]}}
networks:
  n: {name: x, driver: overlay, driver_opts: {a: b}, internal: true, attachable: true, labels: {a: b}, ipam: {driver: d, config: [{subnet: 10.0.0.0/8}]}}
  m: null
  o: {external: {name: x}}
volumes:
  v: {name: x, driver: local, driver_opts: {type: nfs}, labels: [a=b], x-cluster-spec: {group: g, access_mode: {scope: single}}}
  w: {external: true}
  x: {}
configs:
  c: {name: x, file: ./c.txt, labels: {a: b}, template_driver: golang}
secrets:
  s: {external: true}
"#;

/// Keys that only `docker compose` reads.
const COMPOSE: &str = r#"
services:
  a:
    image: i
    privileged: true
    security_opt: [no-new-privileges:true]
    devices: [/dev/a]
    shm_size: 64m
    network_mode: host
    pid: host
    ipc: host
    container_name: x
    domainname: y
    expose: [80]
    links: [b]
    depends_on: {b: {condition: service_healthy, required: true, restart: true}}
    platform: linux/arm64
    pull_policy: always
    runtime: nvidia
    oom_score_adj: 1
    label_file: [e]
    post_start: [{command: [x], user: root, environment: {A: b}}]
    pre_stop: [{command: x y}]
    group_add: [g, 5]
    dns_opt: [ndots:2]
    gpus: [{driver: nvidia, count: 1, capabilities: [x], options: {a: b}}, {device_ids: [x]}]
    memswap_limit: -1
    mem_swappiness: 5
    mem_limit: 1g
    mem_reservation: 1m
    cpus: 0.5
    pids_limit: 5
    scale: 2
    command: []
    tmpfs: [/run, "/tmp:size=64m,mode=1777,noexec"]
    volumes:
      - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 01777}}
      - {type: bind, source: /b, target: /b, bind: {create_host_path: false, selinux: z, recursive: enabled}}
    ports: [{target: 1, published: "2", host_ip: 127.0.0.1, name: p, app_protocol: http}]
  b:
    image: i
    gpus: all
    networks: {n: {ipv4_address: 10.0.0.1, ipv6_address: "fd00::1"}}
    depends_on: [c]
    secrets: [s]
  c:
    image: i
    entrypoint: ""
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}
networks:
  n: {enable_ipv6: true, ipam: {options: {a: b}}}
configs:
  c: {content: text}
secrets:
  s: {environment: SHELL_SET}
"#;

/// The paths of leaves that nothing holds and nothing is said of.
fn lost(text: &str, dialect: Dialect) -> Vec<String> {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("e"), "E=1\n").expect("written");
    std::fs::write(folder.path().join("c.txt"), "c").expect("written");
    let read = read_in(folder.path(), text, dialect);
    let found = read.result.expect("a stack");
    let mut held = leaves_of(&found.stack);
    held.extend(found.remarks.iter().map(|remark| remark.leaf));
    let lost = read.tree.leaves().into_iter().filter(|leaf| !held.contains(leaf));
    lost.map(|leaf| read.leaves.written(leaf).path.to_string()).collect()
}

#[test]
fn every_leaf_of_a_key_with_a_field_is_held() {
    for (text, dialect) in [(BOTH, Dialect::Stack), (BOTH, Dialect::Compose), (COMPOSE, Dialect::Compose)] {
        assert_eq!(lost(text, dialect), [""; 0], "{dialect:?}");
    }
}

#[test]
fn what_is_empty_has_a_remark() {
    for empty in ["null", "[]", "{}"] {
        let keys = ["command", "environment", "ports", "volumes", "deploy", "labels", "networks", "healthcheck"];
        for key in keys {
            for dialect in [Dialect::Stack, Dialect::Compose] {
                let text = format!("services: {{a: {{image: i, {key}: {empty}}}}}");
                let read = read(&text, dialect);
                let Ok(found) = read.result else { continue };
                let leaf = read.tree.leaves()[1];
                let is_held = leaves_of(&found.stack).contains(&leaf);
                assert!(is_held || found.remarks.iter().any(|remark| remark.leaf == leaf), "{dialect:?} {text}");
            }
        }
    }
}

#[test]
fn nothing_of_compose_is_read_for_docker_stack_deploy() {
    let stack = stack_of(
        "services: {a: {image: i, privileged: true, devices: [/x], depends_on: [nope], network_mode: host, pid: host}}",
        Dialect::Stack,
    );
    assert_eq!(stack.services[0].compose, super::super::stack::ComposeOnly::default());
}

#[test]
fn all_mistakes_are_found_with_their_places() {
    let text = "services:\n  web:\n    image: i\n    volumes: [dat:/x]\n    networks: [bak]\n    secrets: [pas]\n    \
                stop_grace_period: 5\n    ports: [\"80:80:80:x\"]\nvolumes: {data: }\nnetworks: {back: }\n";
    let found = errors(text, Dialect::Stack);
    for expected in [
        "stack.yml:4:15: undefined volume 'dat': describe it under the top-level key 'volumes'; did you mean 'data'?",
        "stack.yml:5:16: undefined network 'bak': describe it under the top-level key 'networks'; did you mean 'back'?",
        "stack.yml:6:15: undefined secret 'pas'",
        "stack.yml:7:24: services.web.stop_grace_period: '5' is not a duration",
        "stack.yml:8:13: services.web.ports[0]: '80:80:80:x' is not a port",
    ] {
        assert!(found.iter().any(|error| error.starts_with(expected)), "{expected}: {found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn swarm_refuses_dnsrr_with_a_port_of_the_whole_swarm() {
    let text = |port: &str| format!("services: {{a: {{image: i, deploy: {{endpoint_mode: dnsrr}}, ports: [{port}]}}}}");
    assert!(
        errors(&text("\"80:80\""), Dialect::Stack)[0]
            .contains("refuses a port in mode ingress with endpoint_mode dnsrr")
    );
    stack_of(&text("{target: 80, mode: host}"), Dialect::Stack);
    // `docker compose` does not read `endpoint_mode`.
    stack_of(&text("\"80:80\""), Dialect::Compose);
}

#[test]
fn what_docker_drops_in_silence_is_said() {
    for (service, outcome, part) in [
        ("extra_hosts: [nothing]", Outcome::Dropped, "no address"),
        ("dns: [name]", Outcome::Dropped, "not an IP address"),
        ("tmpfs: /run", Outcome::Dropped, "ignores this key"),
        ("restart: \"no\"", Outcome::Dropped, "starts containers again"),
        ("restart: always, deploy: {restart_policy: {condition: none}}", Outcome::Dropped, "restart_policy counts"),
        ("ports: [\"127.0.0.1:80:80\"]", Outcome::Approximated, "all addresses"),
        ("healthcheck: {test: [curl, x]}", Outcome::Dropped, "not a test to Docker's engine"),
        ("command: \"a # b\"", Outcome::Approximated, "no shell"),
        ("environment: [A=1, A=2]", Outcome::Dropped, "later value"),
    ] {
        let text = format!("services: {{a: {{image: i, {service}}}}}");
        let found = read(&text, Dialect::Stack).result.expect(service).remarks;
        assert!(found.iter().any(|one| one.outcome == outcome && one.reason.contains(part)), "{service}: {found:?}");
    }
}

#[test]
fn an_empty_value_is_that_of_the_shell_only_for_docker_stack_deploy() {
    let text = "services: {a: {image: i, environment: {SHELL_SET: '', OTHER: ''}}}";
    let values = |dialect| -> Vec<_> {
        stack_of(text, dialect).services[0].environment.iter().map(|one| one.value.clone()).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(values(Dialect::Stack), [some(""), some("from-shell")]);
    assert_eq!(values(Dialect::Compose), [some(""), some("")]);
}

#[test]
fn values_are_in_no_message() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("e"), "hunter2 hunter2=hunter2\n").expect("written");
    let text = "services:\n  a:\n    image: i\n    env_file: e\n    environment: [\"P =hunter2\", {x: hunter2}]\n    \
                labels: {a: [hunter2]}\nconfigs: {c: {content: hunter2, file: x, external: maybe}}\n";
    for dialect in [Dialect::Stack, Dialect::Compose] {
        let mistakes = read_in(folder.path(), text, dialect).result.expect_err("mistakes");
        let values: Vec<_> =
            mistakes.iter().filter(|one| one.message.contains("hunter2") && &*one.at.file != "e").collect();
        assert!(mistakes.len() >= 3 && values.is_empty(), "{dialect:?}: {mistakes:?}");
    }
}

#[test]
fn services_that_wait_for_each_other_are_refused() {
    let text =
        "services: {a: {image: i, depends_on: [b]}, b: {image: i, links: ['c:x']}, c: {image: i, ipc: 'service:b'}}";
    assert_eq!(errors(text, Dialect::Compose), ["stack.yml:1:47: services wait for each other: b → c → b"]);
    stack_of(text, Dialect::Stack);
}

#[test]
fn services_that_are_shared_or_linked_have_to_be_there() {
    let text = "services: {a: {image: i, links: ['bb:x'], pid: 'service:c', ipc: host}, b: {image: i}}";
    let found = errors(text, Dialect::Compose);
    assert!(found.iter().any(|error| error.contains("1:34: undefined service 'bb'")), "{found:?}");
    assert!(found.iter().any(|error| error.contains("1:48: undefined service 'c'")), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn short_texts_that_say_much_are_refused() {
    let many = vec!["\"1-65535:1-65535\""; 20].join(", ");
    let found = errors(&format!("services: {{a: {{image: i, ports: [{many}]}}}}"), Dialect::Stack);
    assert!(found.iter().any(|error| error.contains("more than 400000 ports and variables")), "{found:?}");
}

/// Texts that mean something somewhere, and numbers at the ends of their types.
const SCALARS: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "65536",
    "9223372036854775807",
    "18446744073709551615",
    "1e300",
    ".nan",
    ".inf",
    "''",
    "':'",
    "'::'",
    "'/'",
    "'a:b:c:d'",
    "'1-2:3-4/tcp'",
    "'[::1]:1:1'",
    "'='",
    "'a='",
    "'C:\\x'",
    "'~'",
    "'é'",
    "'ab:é'",
    "'{{.Task.Slot}}'",
    "'on-failure:9999999999999999999999'",
    "'1h'",
    "'99999999999999999999h'",
    "'1.1.1s'",
    "'1/0'",
    "'9e999999999'",
    "'512M'",
    "'`'",
    "'$('",
    "'\"'",
    "'\\'",
    "volume",
    "bind",
    "CMD",
    "NONE",
    "data",
    "default",
    "[]",
    "{}",
    "[null]",
    "['']",
    "[[]]",
    "[{}]",
    "{a: null}",
    "{a: []}",
    "{a: {a: b}}",
    "{name: {}}",
    "{source: [x]}",
    "{target: '', source: ''}",
    "{type: cluster, target: a}",
    "{path: x, required: false}",
    "{soft: 1}",
    "{test: []}",
    "{resources: {limits: 5, reservations: {devices: [x], generic_resources: [{discrete_resource_spec: x}]}}}",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_tree_is_read_or_refused(
        values in proptest::collection::vec((0..80_usize, 0..SCALARS.len(), proptest::bool::ANY), 1..6),
        top in (0..SCALARS.len(), 0..SCALARS.len(), 0..SCALARS.len(), 0..SCALARS.len()),
        free in "[ -~é]{0,12}",
    ) {
        let keys = keys();
        let mut lines = BTreeMap::new();
        for (key, scalar, is_free) in values {
            let value = if is_free { json!(free).to_string() } else { SCALARS[scalar].to_owned() };
            lines.insert(keys[key % keys.len()], value);
        }
        let service: Vec<String> = lines.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let text = format!(
            "services: {{a: {{{}}}, b: {}}}\nnetworks: {}\nvolumes: {{data: {}}}\nsecrets: {}\n",
            service.join(", "), SCALARS[top.0], SCALARS[top.1], SCALARS[top.2], SCALARS[top.3],
        );
        for dialect in [Dialect::Stack, Dialect::Compose] {
            let read = read(&text, dialect);
            let Ok(found) = read.result else { continue };
            let mut held = leaves_of(&found.stack);
            held.extend(found.remarks.iter().map(|remark| remark.leaf));
            let mut lost = read.tree.leaves();
            lost.retain(|leaf| !held.contains(leaf));
            let paths: Vec<_> = lost.iter().map(|leaf| read.leaves.written(*leaf).path.to_string()).collect();
            // Maps of the texts have keys that are not the reader's, and so has a stack.
            let has_others = text.matches('{').count() > 4 || dialect == Dialect::Stack;
            proptest::prop_assert!(has_others || paths.is_empty(), "{text}{paths:?}");
        }
    }
}

/// The keys of services in the texts above.
fn keys() -> Vec<&'static str> {
    let lines = BOTH.lines().chain(COMPOSE.lines());
    let keys: BTreeSet<&str> = lines
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()))
        .filter_map(|line| line.split_once(':').map(|(key, _)| key))
        .collect();
    keys.into_iter().collect()
}
