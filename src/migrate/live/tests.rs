mod hostile;
mod script;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::migrate::stack::{
    EndpointMode, ModeKind, MountKind, PortMode, Protocol, ResourceAmount, RestartCondition, Service, Test, UpdateOrder,
};
use crate::migrate::{At, Node};

fn source(name: &str, text: &str) -> Source {
    Source::of(name, text.as_bytes()).expect("text")
}

fn file(stack: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/swarm/live").join(stack).join("swarm.json");
    fs::read_to_string(path).expect("it is there")
}

fn live(stack: &str) -> LiveStack {
    read(&[source("swarm.json", &file(stack))], Some(stack)).expect("a stack")
}

fn service<'a>(live: &'a LiveStack, name: &str) -> &'a Service {
    live.stack.services.iter().find(|service| service.name == name).expect("it is there")
}

fn value<T: Clone>(at: Option<&At<T>>) -> Option<T> {
    at.map(|at| at.value.clone())
}

fn texts(texts: &[At<String>]) -> Vec<&str> {
    texts.iter().map(|text| text.value.as_str()).collect()
}

fn pairs(texts: &[(String, At<String>)]) -> Vec<(&str, &str)> {
    texts.iter().map(|(name, text)| (name.as_str(), text.value.as_str())).collect()
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    keys.into_iter().map(String::as_str).collect()
}

/// What is at a path of the input: outcome and reason.
fn fate<'a>(live: &'a LiveStack, path: &str) -> Vec<(Outcome, &'a str)> {
    let outcomes = live.outcomes.iter();
    let of_path = outcomes.filter(|(leaf, ..)| live.leaves.written(*leaf).path.to_string() == path);
    of_path.map(|(_, outcome, reason)| (*outcome, reason.as_str())).collect()
}

/// The path of the service with a name.
fn path_of(live: &LiveStack, json: &str, list: &str, name: &str) -> String {
    let document = Node::documents(&source("swarm.json", json)).expect("JSON").remove(0);
    let crate::migrate::Value::List(items) = &document.get(list).expect("there").value else { panic!("a list") };
    let found = items.iter().position(|item| {
        let spec = item.get("Spec").unwrap_or(item);
        spec.get("Name").is_some_and(|found| found.value.to_string() == name)
    });
    assert!(live.leaves.iter().len() > 0);
    format!("{list}[{}]", found.expect("there"))
}

/// Each leaf is in the stack or has an outcome.
fn assert_covered(live: &LiveStack, name: &str) {
    let printed = format!("{:?}", live.stack);
    let in_stack: BTreeSet<usize> = printed
        .split("Leaf(")
        .skip(1)
        .map(|rest| rest.split(')').next().expect("closed").parse().expect("a number"))
        .collect();
    let with_outcome: BTreeSet<usize> = live.outcomes.iter().map(|(leaf, ..)| leaf.number()).collect();
    for (leaf, written) in live.leaves.iter() {
        let number = leaf.number();
        assert!(in_stack.contains(&number) || with_outcome.contains(&number), "{name}: {}", written.path);
    }
}

#[test]
fn every_leaf_is_in_the_stack_or_has_an_outcome() {
    for (name, others) in [("shop", 3), ("agents", 3), ("nightly", 3)] {
        let live = live(name);
        assert_covered(&live, name);
        let unknown: Vec<_> = live
            .outcomes
            .iter()
            .filter(|(_, outcome, reason)| *outcome == Outcome::Dropped && reason.contains("does not know"))
            .map(|(leaf, ..)| live.leaves.written(*leaf).path.to_string())
            .collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let notes = live.outcomes.iter().filter(|(.., reason)| reason.starts_with("not part of this stack")).count();
        assert_eq!(notes, others, "{name}");
    }
}

#[test]
fn a_service_has_what_its_file_says() {
    let live = live("shop");
    assert_eq!((live.stack.name.as_str(), live.stack.dialect), ("shop", Dialect::Stack));
    let names: Vec<_> = live.stack.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["api_server", "cache", "db", "web"]);

    let web = service(&live, "web");
    let image = value(web.image.as_ref()).expect("there");
    assert!(image.starts_with("nginx:1.27-alpine@sha256:") && image.len() == 25 + 64, "{image}");
    assert_eq!(value(web.hostname.as_ref()).as_deref(), Some("web-{{.Task.Slot}}"));
    let ports: Vec<_> = web
        .ports
        .iter()
        .map(|port| (port.target.value, value(port.published.as_ref()), value(port.mode.as_ref())))
        .collect();
    assert_eq!(ports, [(80, Some(8080), Some(PortMode::Ingress)), (443, Some(8443), Some(PortMode::Ingress))]);
    let files: Vec<_> = web
        .configs
        .iter()
        .chain(&web.secrets)
        .map(|file| {
            let text = |text: &Option<At<String>>| value(text.as_ref()).expect("there");
            (
                file.source.value.as_str(),
                text(&file.target),
                text(&file.uid),
                text(&file.gid),
                file.mode.expect("there").value,
            )
        })
        .collect();
    let row = |source, target: &str, uid: &str, gid: &str, mode| {
        (source, target.to_owned(), uid.to_owned(), gid.to_owned(), mode)
    };
    assert_eq!(
        files,
        [
            row("banner", "banner", "0", "0", 0o444),
            row("site", "/etc/nginx/conf.d/site.conf", "101", "101", 0o440),
            row("tls_key", "site.key", "101", "0", 0o400),
        ]
    );
    let networks: Vec<_> = web.networks.iter().map(|one| (one.network.as_str(), one.aliases.len())).collect();
    assert_eq!(networks, [("back", 0), ("front", 0)]);
    assert_eq!(pairs(&web.labels), [("org.example.part", "shop")]);
    assert_eq!(
        pairs(&web.service_labels),
        [
            ("traefik.enable", "true"),
            ("traefik.http.routers.web.rule", "Host(`shop.example.org`) && PathPrefix(`/a<b>`)"),
        ]
    );
    let check = web.health_check.as_ref().expect("there");
    let Some(Test::Shell(Some(_), line)) = &check.test else { panic!("{:?}", check.test) };
    assert_eq!(line.value, "wget -q -O /dev/null http://localhost/ || exit 1");
    let seconds = |duration: &Option<At<Duration>>| duration.map(|duration| duration.value.as_secs());
    assert_eq!(
        (
            seconds(&check.interval),
            seconds(&check.timeout),
            seconds(&check.start_period),
            seconds(&check.start_interval)
        ),
        (Some(15), Some(3), Some(90), None)
    );
    assert_eq!(value(check.retries.as_ref()), Some(5));
    assert_eq!(
        (seconds(&web.stop_grace_period), value(web.stop_signal.as_ref()).as_deref()),
        (Some(45), Some("SIGQUIT"))
    );
    assert_eq!(
        (web.mode.kind.map(|kind| kind.value), value(web.mode.replicas.as_ref())),
        (Some(ModeKind::Replicated), Some(3))
    );
    let update = web.update.as_ref().expect("there");
    assert_eq!(
        (value(update.parallelism.as_ref()), seconds(&update.delay), seconds(&update.monitor)),
        (Some(2), Some(10), Some(20))
    );
    assert_eq!(value(update.failure_action.as_ref()).as_deref(), Some("rollback"));
    assert_eq!(
        (value(update.max_failure_ratio.as_ref()), value(update.order.as_ref())),
        (Some(0.25), Some(UpdateOrder::StartFirst))
    );
    assert_eq!(value(web.rollback.as_ref().expect("there").parallelism.as_ref()), Some(0));
    assert_eq!(
        (
            value(web.restart.condition.as_ref()),
            seconds(&web.restart.delay),
            value(web.restart.max_attempts.as_ref()),
            seconds(&web.restart.window)
        ),
        (Some(RestartCondition::OnFailure), Some(2), Some(4), Some(120))
    );
    let resources = &web.resources;
    assert_eq!(
        (value(resources.cpu_limit.as_ref()), value(resources.cpu_reservation.as_ref())),
        (Some(500_000_000), Some(250_000_000))
    );
    assert_eq!(
        (value(resources.memory_limit.as_ref()), value(resources.memory_reservation.as_ref())),
        (Some(512 << 20), Some(64 << 20))
    );
    assert_eq!(value(resources.pids.as_ref()), Some(200));
    let placement = &web.placement;
    assert_eq!(texts(&placement.constraints), ["node.role==worker", "node.labels.zone != attic"]);
    assert_eq!((texts(&placement.spread), value(placement.max_replicas.as_ref())), (vec!["node.labels.zone"], Some(2)));
    assert_eq!(placement.platforms.len(), 3);

    let api = service(&live, "api_server");
    assert_eq!(texts(&api.entrypoint.as_ref().expect("there").words), ["/sbin/tini", "--"]);
    assert_eq!(
        texts(&api.command.as_ref().expect("there").words),
        ["/srv/api", "--listen", ":9000", "--name", "two words"]
    );
    let variables: Vec<_> = api.environment.iter().map(|one| (one.name.as_str(), one.value.as_deref())).collect();
    assert_eq!(
        variables,
        [
            ("DB_URL", Some("postgres://shop@db:5432/shop")),
            ("EMPTY", Some("")),
            ("GREETING", Some("a=b \"c\" é ☃ 🐳")),
            ("LEVEL", Some("info")),
            ("NODE", Some("{{.Node.Hostname}}")),
        ]
    );
    assert_eq!(texts(&api.networks[0].aliases), ["api", "api.internal"]);
    assert_eq!(value(api.endpoint_mode.as_ref()), Some(EndpointMode::Dnsrr));
    assert_eq!((value(api.init.as_ref()), value(api.read_only.as_ref())), (Some(true), Some(true)));
    assert_eq!(
        (value(api.user.as_ref()).as_deref(), value(api.working_dir.as_ref()).as_deref()),
        (Some("1000:1000"), Some("/srv"))
    );

    let db = service(&live, "db");
    let Some(Test::Program(_, words)) = &db.health_check.as_ref().expect("there").test else { panic!("a program") };
    assert_eq!(texts(words), ["pg_isready", "-U", "postgres"]);
    let bind = db.mounts.iter().find(|mount| mount.kind.value == MountKind::Bind).expect("there");
    assert_eq!((value(bind.source.as_ref()).as_deref(), bind.target.value.as_str()), (Some("/srv/backup"), "/backup"));
    assert_eq!(
        (value(bind.propagation.as_ref()).as_deref(), value(bind.read_only.as_ref())),
        (Some("rslave"), Some(true))
    );
    let cache = service(&live, "cache");
    assert!(matches!(cache.health_check.as_ref().expect("there").test, Some(Test::Disabled(_))));
    let sizes: Vec<_> = cache.mounts.iter().map(|mount| value(mount.tmpfs_size.as_ref())).collect();
    assert_eq!(sizes, [Some(67_108_864), None]);
    let state = &cache.mounts[1];
    assert_eq!((value(state.no_copy.as_ref()), value(state.subpath.as_ref()).as_deref()), (Some(true), Some("redis")));
}

#[test]
fn what_a_stack_makes_has_its_key_and_its_content() {
    let live = live("shop");
    let stack = &live.stack;
    assert_eq!(keys(stack.networks.iter().map(|one| &one.key)), ["back", "default", "front"]);
    assert_eq!(keys(stack.volumes.iter().map(|one| &one.key)), ["cache_state", "db_data"]);
    assert_eq!(keys(stack.configs.iter().map(|one| &one.key)), ["banner", "site"]);
    assert_eq!(keys(stack.secrets.iter().map(|one| &one.key)), ["db_password", "tls_key"]);
    let [back, _, front] = &stack.networks[..] else { panic!("three") };
    assert_eq!((value(back.internal.as_ref()), pairs(&back.driver_options)), (Some(true), vec![("encrypted", "")]));
    assert_eq!(keys(back.addressing.iter().map(|(name, _)| name)), ["ipam.config.Subnet", "ipam.config.Gateway"]);
    assert!(front.addressing.is_empty(), "the swarm chose the range: {:?}", front.addressing);
    assert_eq!(
        (value(front.attachable.as_ref()), pairs(&front.labels)),
        (Some(true), vec![("org.example.net", "front")])
    );
    assert_eq!(pairs(&stack.volumes[1].labels), [("org.example.backup", "nightly")]);
    let contents: Vec<_> = stack.configs.iter().map(|config| value(config.content.as_ref()).expect("there")).collect();
    let [banner, site] = ["Welcome, {{.Service.Name}}\n", "server { listen 80; add_header X-A \"a\\tb\"; }\n"];
    assert_eq!(contents, [banner.as_bytes(), site.as_bytes()]);
    assert!(stack.secrets.iter().all(|secret| secret.content.is_none() && secret.external.is_none()));
    assert_eq!(pairs(&stack.secrets[0].labels), [("org.example.rotates", "monthly")]);
}

#[test]
fn what_others_own_is_external_and_has_its_name() {
    let live = live("agents");
    let stack = &live.stack;
    let networks: Vec<_> = stack.networks.iter().map(|one| (one.key.as_str(), value(one.external.as_ref()))).collect();
    assert_eq!(networks, [("default", None), ("host", Some(true)), ("inner", None), ("traefik_public", Some(true))]);
    let volumes: Vec<_> = stack
        .volumes
        .iter()
        .map(|one| {
            (one.key.as_str(), value(one.name.as_ref()), value(one.external.as_ref()), pairs(&one.driver_options))
        })
        .collect();
    assert_eq!(
        volumes,
        [
            ("model_weights", Some("model_weights".to_owned()), Some(true), vec![]),
            (
                "scratch",
                Some("scratch-{{.Task.Slot}}".to_owned()),
                None,
                vec![("device", "tmpfs"), ("o", "size=1g"), ("type", "tmpfs")]
            ),
        ]
    );
    let configs: Vec<_> = stack
        .configs
        .iter()
        .map(|one| (one.key.as_str(), value(one.external.as_ref()), value(one.template_driver.as_ref())))
        .collect();
    assert_eq!(configs, [("company_shared_v3", Some(true), None), ("rendered_v2", None, Some("golang".to_owned()))]);
    assert_eq!((stack.secrets[0].key.as_str(), value(stack.secrets[0].external.as_ref())), ("licence", Some(true)));

    let model = service(&live, "model");
    let generic = &model.resources.generic[0];
    assert_eq!((generic.kind.value.as_str(), &generic.amount.value), ("NVIDIA-GPU", &ResourceAmount::Count(2)));
    let sources: Vec<_> = model.mounts.iter().map(|mount| value(mount.source.as_ref())).collect();
    assert_eq!(sources, [Some("model_weights".to_owned()), Some("scratch".to_owned()), None]);
    let agent = service(&live, "agent");
    assert_eq!(agent.mode.kind.map(|kind| kind.value), Some(ModeKind::Global));
    assert_eq!(texts(&agent.capabilities_added), ["CAP_NET_ADMIN", "CAP_SYS_PTRACE"]);
    assert_eq!(texts(&agent.capabilities_dropped), ["ALL"]);
    let ports: Vec<_> = agent
        .ports
        .iter()
        .map(|port| (port.target.value, port.protocol.map(|one| one.value), port.mode.map(|one| one.value)))
        .collect();
    assert_eq!(
        ports,
        [(8125, Some(Protocol::Udp), Some(PortMode::Host)), (9100, Some(Protocol::Tcp), Some(PortMode::Host))]
    );
    let [alpha, beta] = &live.nodes[..] else { panic!("two") };
    assert_eq!((alpha.hostname.as_str(), alpha.role.as_str(), alpha.labels.len()), ("alpha", "manager", 0));
    assert_eq!(
        (beta.role.as_str(), beta.architecture.as_deref(), beta.os.as_deref()),
        ("worker", Some("x86_64"), Some("linux"))
    );
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(beta.labels, [text("disk", "ssd"), text("gpu", "true"), text("zone", "cellar")]);
    assert_eq!(beta.engine_labels, [text("operatingsystem", "ubuntu 24.04")]);
}

#[test]
fn jobs_and_the_settings_of_containers_are_read() {
    let live = live("nightly");
    let mode = &service(&live, "backup").mode;
    assert_eq!(
        (mode.kind.map(|kind| kind.value), value(mode.replicas.as_ref()), value(mode.max_concurrent.as_ref())),
        (Some(ModeKind::ReplicatedJob), Some(4), Some(4))
    );
    let sweep = service(&live, "sweep");
    assert_eq!(
        (sweep.mode.kind.map(|kind| kind.value), value(sweep.restart.condition.as_ref())),
        (Some(ModeKind::GlobalJob), Some(RestartCondition::None))
    );
    let worker = service(&live, "worker");
    let hosts: Vec<_> =
        worker.extra_hosts.iter().map(|host| (host.value.name.as_str(), host.value.address.as_str())).collect();
    assert_eq!(hosts, [("ldap.example.org", "10.1.2.3"), ("six.example.org", "2001:db8::7")]);
    assert_eq!(texts(&worker.dns_servers), ["10.1.1.1", "10.1.1.2"]);
    assert_eq!(texts(&worker.dns_search), ["example.org", "corp.example.org"]);
    assert_eq!(pairs(&worker.sysctls), [("net.core.somaxconn", "1024"), ("net.ipv4.tcp_syncookies", "0")]);
    let ulimits: Vec<_> =
        worker.ulimits.iter().map(|one| (one.name.as_str(), one.soft.value, one.hard.value)).collect();
    assert_eq!(ulimits, [("nofile", 20_000, 40_000), ("nproc", 65_535, 65_535)]);
    let logging = worker.logging.as_ref().expect("there");
    assert_eq!(value(logging.driver.as_ref()).as_deref(), Some("gelf"));
    assert_eq!(pairs(&logging.options), [("gelf-address", "udp://10.1.1.9:12201"), ("tag", "{{.Name}}/{{.ID}}")]);
    assert_eq!((value(worker.tty.as_ref()), value(worker.stdin_open.as_ref())), (Some(true), Some(true)));
    assert_eq!(value(worker.mode.replicas.as_ref()), Some(0));
    // docker/cli 29.9 has the key in its schema and never sends it.
    assert_eq!(worker.compose.oom_score_adj, None);
    let check = worker.health_check.as_ref().expect("there");
    assert_eq!(value(check.start_interval.as_ref()), Some(Duration::from_millis(500)));
    let ports: Vec<_> = worker.ports.iter().map(|port| (value(port.published.as_ref()), port.target.value)).collect();
    let expected =
        [(None, 9000), (Some(53), 53), (Some(53), 53), (Some(7000), 7000), (Some(7001), 7001), (Some(7002), 7002)];
    assert_eq!(ports, expected);
    assert_eq!(pairs(&live.stack.networks[0].driver_options), [("com.docker.network.driver.mtu", "1400")]);
    let archive = &live.stack.volumes[0];
    assert_eq!(
        pairs(&archive.driver_options),
        [("device", ":/export/archive"), ("o", "addr=10.1.1.20,nfsvers=4"), ("type", "nfs")]
    );
}

#[test]
fn what_the_stack_has_no_field_for_says_why() {
    let live = live("nightly");
    let json = file("nightly");
    let worker = path_of(&live, &json, "services", "nightly_worker");
    for (field, outcome, part) in [
        ("ID", Outcome::Converted, "bookkeeping"),
        ("Version.Index", Outcome::Converted, "bookkeeping"),
        ("Spec.Labels[\"com.docker.stack.namespace\"]", Outcome::Converted, "bookkeeping"),
        ("Spec.TaskTemplate.ForceUpdate", Outcome::Converted, "bookkeeping"),
        ("Spec.TaskTemplate.Networks[0].Aliases[0]", Outcome::Converted, "own name"),
        ("Spec.TaskTemplate.ContainerSpec.Privileges.CredentialSpec", Outcome::Converted, "nothing is set"),
        ("Endpoint.Ports[0].PublishedPort", Outcome::Approximated, "the swarm chose this port"),
        ("Endpoint.Ports[1].PublishedPort", Outcome::Converted, "bookkeeping"),
    ] {
        let fates = fate(&live, &format!("{worker}.{field}"));
        let is_so = matches!(&fates[..], [(found, reason)] if *found == outcome && reason.contains(part));
        assert!(is_so, "{field}: {fates:?}");
    }
    let other = path_of(&live, &json, "services", "other_web");
    assert_eq!(
        fate(&live, &other),
        [(Outcome::Converted, "not part of this stack: the service 'other_web' belongs to the stack 'other'")]
    );
    let by_hand = path_of(&live, &json, "services", "by-hand");
    assert!(fate(&live, &by_hand)[0].1.ends_with("belongs to none of the stacks"));
    let previous = live.outcomes.iter().filter(|(.., reason)| reason.contains("before the last update")).count();
    assert!(previous > 10, "{previous}");
}

/// The smallest service.
fn small(name: &str, stack: Option<&str>, more: &str) -> String {
    let labels = stack.map_or("{}".to_owned(), |stack| format!("{{\"com.docker.stack.namespace\": \"{stack}\"}}"));
    format!(
        "{{\"ID\": \"id-{name}\", \"Spec\": {{\"Name\": \"{name}\", \"Labels\": {labels}, \"TaskTemplate\": \
         {{\"ContainerSpec\": {{\"Image\": \"a:1\"{more}}}}}, \"Mode\": {{\"Global\": {{}}}}}}}}"
    )
}

fn refusal(text: &str, stack: Option<&str>) -> String {
    read(&[source("swarm.json", text)], stack).expect_err(text).to_string()
}

#[test]
fn files_of_docker_inspect_are_known_by_their_content() {
    let json = file("shop");
    let document = Node::documents(&source("swarm.json", &json)).expect("JSON").remove(0);
    // The script writes each list between these lines.
    let lists = ["services", "networks", "volumes", "configs", "secrets", "nodes"].map(|list| {
        assert!(document.get(list).is_some(), "{list}");
        let text = json.split_once(&format!("\"{list}\":\n")).expect("there").1;
        let end = text.find("\n]").expect("closed") + 2;
        source(&format!("{list}.json"), &text[..end])
    });
    let of_files = read(&lists, Some("shop")).expect("a stack");
    assert_eq!(comparable(&of_files.stack), comparable(&live("shop").stack));
    assert_eq!(of_files.nodes.len(), 2);
    let position = &of_files.stack.services[0].at;
    assert_eq!((&*position.file, position.column), ("services.json", 5));

    let again = [&lists[..], &[source("again.json", lists[0].text())]].concat();
    let twice = read(&again, Some("shop")).expect("a stack");
    assert_eq!(comparable(&twice.stack), comparable(&of_files.stack));
    let notes = twice.outcomes.iter().filter(|(.., reason)| reason.contains("is here again; that of services.json:"));
    assert_eq!(notes.count(), 6);

    // Without the other files the names in the services have to do.
    let alone = read(&lists[..1], Some("shop")).expect("a stack");
    let web = service(&alone, "web");
    assert_eq!(web.configs[1].source.value, "site");
    assert_eq!(keys(alone.stack.secrets.iter().map(|one| &one.key)), ["db_password", "tls_key"]);
    let unknown = alone.outcomes.iter().filter(|(_, outcome, reason)| {
        *outcome == Outcome::NeedsInput && reason.contains("a network that the file does not describe")
    });
    assert_eq!(unknown.count(), 5);
}

#[test]
fn the_stack_is_chosen_by_its_label() {
    let list = |services: &[String]| format!("[{}]", services.join(","));
    let several = list(&[small("a_x", Some("a"), ""), small("b_x", Some("b"), ""), small("y", None, "")]);
    assert_eq!(refusal(&several, None), "the files have 2 stacks, expected one; name it with --stack: a, b");
    assert_eq!(refusal(&several, Some("c")), "found no service of the stack 'c'; the files have: a, b");
    let one = read(&[source("s.json", &several)], Some("b")).expect("there");
    assert_eq!(keys(one.stack.services.iter().map(|one| &one.name)), ["x"]);
    let by_hand = list(&[small("web", None, ""), small("db", None, "")]);
    let expected = "the services belong to no stack; name one with --stack, and it will be these: web, db";
    assert_eq!(refusal(&by_hand, None), expected);
    let named = read(&[source("s.json", &by_hand)], Some("shop")).expect("there");
    assert_eq!(keys(named.stack.services.iter().map(|one| &one.name)), ["db", "web"]);
    assert!(refusal("[]", None).starts_with("the files have no services"));
    assert!(refusal("", None).starts_with("the files have no services"));
}

#[test]
fn what_only_the_api_can_say_is_not_lost() {
    let more = ", \"Privileges\": {\"NoNewPrivileges\": true, \"Seccomp\": {\"Mode\": \"unconfined\"}, \"AppArmor\": \
                {\"Mode\": \"disabled\"}, \"CredentialSpec\": {\"Config\": \"\", \"File\": \"x.json\", \"Registry\": \
                \"\"}}, \"Env\": [\"A=1\", \"B\", \"A=2\"], \"Healthcheck\": {\"Test\": [\"CMD-SHELL\", \"a\", \"b\"]}, \
                \"Groups\": [\"7\"], \"OomScoreAdj\": -250, \"Isolation\": \"hyperv\", \"Later\": {\"New\": [1, 2]}";
    let live = read(&[source("s.json", &format!("[{}]", small("a_x", Some("a"), more)))], None).expect("there");
    let service = &live.stack.services[0];
    assert_eq!(
        texts(&service.compose.security_options),
        ["no-new-privileges:true", "seccomp:unconfined", "apparmor:unconfined"]
    );
    let variables: Vec<_> = service.environment.iter().map(|one| (one.name.as_str(), one.value.as_deref())).collect();
    assert_eq!(variables, [("A", Some("2")), ("B", None)]);
    assert_eq!((texts(&service.groups), value(service.compose.oom_score_adj.as_ref())), (vec!["7"], Some(-250)));
    let container = "services[0].Spec.TaskTemplate.ContainerSpec";
    for field in ["Privileges.CredentialSpec.File", "Healthcheck.Test[2]", "Isolation", "Later.New[0]", "Later.New[1]"]
    {
        let fates = fate(&live, &format!("{container}.{field}"));
        assert!(matches!(fates[..], [(Outcome::Dropped, _)]), "{field}: {fates:?}");
    }
    assert_eq!(fate(&live, &format!("{container}.Later.New[1]"))[0].1, "Cairn does not know it");
    assert_eq!(fate(&live, &format!("{container}.Env[0]"))[0].0, Outcome::Converted);
    let swap = "{\"ID\": \"1\", \"Spec\": {\"Name\": \"a_x\", \"Labels\": {\"com.docker.stack.namespace\": \"a\"}, \
                \"TaskTemplate\": {\"ContainerSpec\": {}, \"Resources\": {\"Limits\": {\"MemoryBytes\": 100}, \
                \"SwapBytes\": 20, \"MemorySwappiness\": 0}}}}";
    let live = read(&[source("s.json", swap)], None).expect("there");
    // moby, daemon/cluster/executor/container: the memory and the swap together.
    assert_eq!(value(live.stack.services[0].resources.swap.as_ref()), Some(120));
    assert_eq!(value(live.stack.services[0].resources.swappiness.as_ref()), Some(0));
}

#[test]
fn a_plugin_is_not_a_service_of_the_stack() {
    let plugin = "[{\"ID\": \"1\", \"Spec\": {\"Name\": \"a_p\", \"Labels\": {\"com.docker.stack.namespace\": \"a\"}, \
                  \"TaskTemplate\": {\"PluginSpec\": {\"name\": \"p\"}, \"Runtime\": \"plugin\"}}}]";
    let live = read(&[source("s.json", plugin)], None).expect("there");
    assert!(live.stack.services.is_empty());
    let fates = fate(&live, "services[0].Spec.TaskTemplate.PluginSpec.name");
    assert!(matches!(fates[..], [(Outcome::Dropped, _)]), "{fates:?}");
}

#[test]
fn text_of_json_arrives_as_it_is() {
    // What Go's encoder escapes, what others do, and a line longer than YAML allows a key to be.
    let long = "A".repeat(700_000);
    let more = format!(
        ", \"Env\": [\"A=\\u003ca\\u0026b\\u003e\\u2028\\t\\\\n\", \"B=\\ud83d\\udc33\\/\", \"C=a: b #c\", \"D={long}\"]"
    );
    let live = read(&[source("s.json", &format!("[{}]", small("a_x", Some("a"), &more)))], None).expect("there");
    let values: Vec<_> =
        live.stack.services[0].environment.iter().map(|one| one.value.as_deref().expect("there")).collect();
    assert_eq!(values, ["<a&b>\u{2028}\t\\n", "🐳/", "a: b #c", long.as_str()]);
}

#[test]
fn one_text_compares_both_forms() {
    let live = live("shop");
    let text = comparable(&live.stack);
    assert!(!text.contains("Leaf(") && !text.contains("Position"), "no places");
    assert!(!text.contains("sha256:"), "no digests");
    let mut changed = live.stack.clone();
    // What a file need not say.
    for service in &mut changed.services {
        service.placement.platforms.clear();
        if service.name != "web" {
            (service.update, service.rollback) = (None, None);
            service.restart = crate::migrate::stack::RestartPolicy::default();
            service.stop_grace_period = None;
        }
    }
    assert_eq!(comparable(&changed), text);
    changed.services[3].ports.pop();
    assert_ne!(comparable(&changed), text);
}
