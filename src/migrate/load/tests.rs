//! Cases whose results Docker's own programs gave, properties of what is accounted for, and input that means harm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;

use super::super::yaml::Entry;
use super::*;

/// Files, and what docker/cli 29.9.3 or compose-go 2.16.2 make of them: the merged project as the program prints it, with the folder as `DIR`,
/// and null where it refuses them. Written by a program that calls both.
const CASES: &str = include_str!("../../../tests/data/swarm/loaded.json");

#[derive(Deserialize)]
struct Case {
    name: String,
    dialect: String,
    files: BTreeMap<String, String>,
    load: Vec<String>,
    env_file: Option<String>,
    #[serde(default)]
    profiles: Vec<String>,
    expected: Json,
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }
    folder
}

fn request(folder: &FilePath, names: &[&str], dialect: Option<Dialect>) -> Request {
    Request { files: names.iter().map(|name| folder.join(name)).collect(), dialect, ..Request::default() }
}

/// Loads files, with the folder as `DIR` in messages.
fn loaded(files: &[(&str, &str)], names: &[&str], dialect: Dialect) -> Result<Loaded, String> {
    let folder = folder(files);
    loaded_in(folder.path(), names, dialect)
}

fn loaded_in(folder: &FilePath, names: &[&str], dialect: Dialect) -> Result<Loaded, String> {
    load(&request(folder, names, Some(dialect)))
        .map_err(|error| error.to_string().replace(&*folder.to_string_lossy(), "DIR"))
}

fn refusal(files: &[(&str, &str)], names: &[&str], dialect: Dialect) -> String {
    loaded(files, names, dialect).expect_err("refused")
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(i64::try_from(*value).expect("small")),
        Value::Float(value) => json!(value),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.node))).collect())
        }
    }
}

/// A scalar as Go prints it, so that `1` and `"1"` are the same.
fn print(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Number(number) => Value::Float(number.as_f64().expect("a number")).to_string(),
        other => other.to_string(),
    }
}

/// `NAME=VALUE` of either form.
fn texts_of(value: &Json) -> Vec<String> {
    let pair = |name: &str, value: &str| format!("{name}={value}");
    match value {
        Json::Object(entries) => entries
            .iter()
            .map(|(name, value)| if value.is_null() { pair(name, "") } else { pair(name, &print(value)) })
            .collect(),
        Json::Array(items) => {
            let text = |item: &Json| {
                let text = print(item);
                if text.contains('=') { text } else { text + "=" }
            };
            items.iter().map(text).collect()
        }
        _ => Vec::new(),
    }
}

fn list_of(value: &Json) -> Vec<String> {
    match value {
        Json::Array(items) => items.iter().map(print).collect(),
        Json::Null => Vec::new(),
        other => vec![print(other)],
    }
}

/// What is comparable of a project in any form: one line for each fact.
fn facts(project: &Json) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let empty = Map::new();
    for section in ["networks", "volumes", "configs", "secrets"] {
        for (name, object) in project[section].as_object().unwrap_or(&empty) {
            // compose-go adds the network that services have without asking.
            if name != "default" {
                facts.insert(format!("{section} {name}"));
            }
            for field in ["driver", "internal", "attachable"] {
                facts.extend(scalar(&object[field]).map(|value| format!("{section} {name} {field} {value}")));
            }
            facts.extend(texts_of(&object["driver_opts"]).iter().map(|text| format!("{section} {name} option {text}")));
            facts.extend(texts_of(&object["labels"]).iter().map(|text| format!("{section} {name} label {text}")));
        }
    }
    for (name, service) in project["services"].as_object().unwrap_or(&empty) {
        let mut add = |what: String| facts.extend([format!("{name} {what}")]);
        add("is there".to_owned());
        service_facts(service, &mut add);
    }
    facts
}

/// What is nothing to Go is as if it were not there.
fn scalar(value: &Json) -> Option<String> {
    let is_nothing =
        value.is_null() || *value == json!(false) || *value == json!("") || value.is_object() || value.is_array();
    (!is_nothing).then(|| print(value))
}

fn service_facts(service: &Json, add: &mut dyn FnMut(String)) {
    for pointer in [
        "/image",
        "/user",
        "/hostname",
        "/read_only",
        "/tty",
        "/stdin_open",
        "/stop_signal",
        "/deploy/replicas",
        "/deploy/update_config/parallelism",
        "/deploy/update_config/order",
        "/deploy/restart_policy/condition",
        "/deploy/restart_policy/max_attempts",
        "/deploy/resources/limits/cpus",
        "/healthcheck/retries",
        "/healthcheck/interval",
        "/logging/driver",
        "/oom_score_adj",
        "/pids_limit",
    ] {
        if let Some(value) = service.pointer(pointer).and_then(scalar) {
            add(format!("{pointer} {value}"));
        }
    }
    let at = |pointer: &str| service.pointer(pointer).cloned().unwrap_or_default();
    // What files of variables and the shell give is the reader's.
    if service["env_file"].is_null() {
        texts_of(&service["environment"]).into_iter().for_each(|text| add(format!("environment {text}")));
    }
    for pointer in ["/labels", "/deploy/labels", "/sysctls", "/logging/options", "/build/args"] {
        texts_of(&at(pointer)).into_iter().for_each(|text| add(format!("{pointer} {text}")));
    }
    for pointer in [
        "/cap_add",
        "/dns",
        "/dns_search",
        "/tmpfs",
        "/security_opt",
        "/expose",
        "/deploy/placement/constraints",
        "/links",
    ] {
        for (place, text) in list_of(&at(pointer)).iter().enumerate() {
            add(format!("{pointer} {place} {text}"));
        }
    }
    for pointer in ["/command", "/entrypoint"] {
        let words = list_of(&at(pointer)).join(" ");
        if !words.is_empty() {
            add(format!("{pointer} {words}"));
        }
    }
    match at("/healthcheck/test") {
        Json::Null => {}
        Json::String(text) => add(format!("test CMD-SHELL {text}")),
        list => add(format!("test {}", list_of(&list).join(" "))),
    }
    for port in at("/ports").as_array().into_iter().flatten() {
        if port.is_object() {
            let field = |name: &str| scalar(&port[name]).unwrap_or_default();
            let protocol = if field("protocol").is_empty() { "tcp".to_owned() } else { field("protocol") };
            add(format!("port {}:{}/{protocol}", field("published"), field("target")));
        } else {
            for port in short::ports(&print(port), false).expect("a port") {
                match port.published.split_once('-') {
                    // docker/cli has a port for each of the range.
                    Some((first, last)) => {
                        let number = |text: &str| text.parse::<u16>().expect("a number");
                        for published in number(first)..=number(last) {
                            add(format!("port {published}:{}/{}", port.target, port.protocol));
                        }
                    }
                    None => add(format!("port {}:{}/{}", port.published, port.target, port.protocol)),
                }
            }
        }
    }
    for volume in at("/volumes").as_array().into_iter().flatten() {
        match volume.as_str() {
            Some(text) => add(format!("volume {}", short::volume(text).1)),
            None => add(format!("volume {}", print(&volume["target"]))),
        }
    }
    for kind in ["configs", "secrets"] {
        for object in service[kind].as_array().into_iter().flatten() {
            let source = object.as_str().map_or_else(|| print(&object["source"]), str::to_owned);
            let target = scalar(&object["target"]).filter(|target| *target != format!("/run/secrets/{source}"));
            let target = target.unwrap_or_default();
            add(format!("{kind} {source} {target}"));
        }
    }
    let names = |value: &Json| match value {
        Json::Object(entries) => entries.keys().cloned().collect(),
        other => list_of(other),
    };
    for kind in ["networks", "depends_on"] {
        for name in names(&service[kind]).into_iter().filter(|name| name != "default") {
            list_of(&service[kind][&name]["aliases"])
                .iter()
                .for_each(|alias| add(format!("{kind} {name} alias {alias}")));
            if let Some(address) = scalar(&service[kind][&name]["ipv4_address"]) {
                add(format!("{kind} {name} {address}"));
            }
            add(format!("{kind} {name}"));
        }
    }
}

#[test]
fn files_come_to_what_dockers_programs_make_of_them() {
    let cases: Vec<Case> = serde_json::from_str(CASES).expect("cases");
    assert!(cases.len() > 200);
    for case in cases {
        let files: Vec<(&str, &str)> = case.files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let folder = folder(&files);
        let dialect = if case.dialect == "stack" { Dialect::Stack } else { Dialect::Compose };
        let names: Vec<&str> = case.load.iter().map(String::as_str).collect();
        let request = Request {
            env_file: case.env_file.map(|name| folder.path().join(name)),
            profiles: case.profiles,
            ..request(folder.path(), &names, Some(dialect))
        };
        let found = load(&request).ok();
        let name = format!("{} for {:?}", case.name, dialect);
        assert_eq!(found.is_none(), case.expected.is_null(), "{name}");
        let Some(found) = found else { continue };
        let is_of_shell = |fact: &String| fact.contains(" environment ");
        let filter = |facts: BTreeSet<String>| -> Vec<String> {
            facts.into_iter().filter(|fact| request.env_file.is_none() || !is_of_shell(fact)).collect()
        };
        // compose-go writes the range of a port that Docker chooses from, docker/cli each port of it.
        let expected = filter(facts(&case.expected));
        let expected: Vec<String> =
            expected.into_iter().flat_map(spread).collect::<BTreeSet<_>>().into_iter().collect();
        let mut tree = json_of(&found.tree);
        // docker/cli leaves out the files of variables that it has read.
        if let (Some(services), true) = (tree["services"].as_object_mut(), dialect == Dialect::Stack) {
            for (name, service) in services {
                if let Some(files) = case.expected["services"][name].get("env_file") {
                    service["env_file"] = files.clone();
                }
            }
        }
        assert_eq!(filter(facts(&tree)), expected, "{name}");
    }
}

fn spread(fact: String) -> Vec<String> {
    let Some((service, rest)) = fact.split_once(" port ") else { return vec![fact] };
    let (published, target) = rest.split_once(':').expect("both");
    match published.split_once('-') {
        None => vec![fact],
        Some((first, last)) => {
            let number = |text: &str| text.parse::<u16>().expect("a number");
            (number(first)..=number(last)).map(|published| format!("{service} port {published}:{target}")).collect()
        }
    }
}

/// The leaves of a tree with their paths.
fn leaves(node: &Node, path: &Path, found: &mut Vec<(Path, Position)>) {
    match &node.value {
        Value::List(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(number, item)| leaves(item, &shape::index(path, number), found));
        }
        Value::Map(entries) if !entries.is_empty() => {
            entries.iter().for_each(|entry: &Entry| leaves(&entry.node, &shape::key(path, &entry.key), found));
        }
        _ => found.push((path.clone(), node.at.clone())),
    }
}

/// A path without places in lists, which change when lists are joined.
fn keys(path: &Path) -> Vec<String> {
    shape::steps(path).into_iter().filter(|step| *step != "[]").map(str::to_owned).collect()
}

/// Leaves of the named files that are neither in the tree nor replaced, or more often than they were written.
fn unaccounted(folder: &FilePath, names: &[String], found: &Loaded, is_copied: bool) -> Vec<String> {
    let mut there = Vec::new();
    leaves(&found.tree, &Path::default(), &mut there);
    there.extend(found.replaced.iter().map(|replaced| (replaced.written.path.clone(), replaced.written.at.clone())));
    let mut by_place: HashMap<String, Vec<Vec<String>>> = HashMap::new();
    for (path, at) in there {
        by_place.entry(at.to_string()).or_default().push(keys(&path));
    }
    let mut missing = Vec::new();
    for name in names {
        let source = Source::read(&folder.join(name)).expect("read");
        let mut written = Vec::new();
        for document in Node::documents(&source).expect("YAML") {
            leaves(&document, &Path::default(), &mut written);
        }
        for (path, at) in written {
            let path = keys(&path);
            let places = by_place.entry(at.to_string()).or_default();
            // An item of a list may have become a key of a map, or the other way round.
            let place = places.iter().position(|found| found.starts_with(&path) || path.starts_with(found));
            match place {
                Some(place) => {
                    places.swap_remove(place);
                }
                None => missing.push(format!("{} at {at} is nowhere", path.join("."))),
            }
        }
    }
    if !is_copied {
        // A test that is a text is two items of the list that both tests become.
        let is_more = |left: &Vec<Vec<String>>| left.iter().any(|path| path.last().is_none_or(|key| key != "test"));
        let left = by_place.iter().filter(|(_, left)| is_more(left));
        missing.extend(left.map(|(at, left)| format!("{at} is there {} times more: {left:?}", left.len())));
    }
    missing
}

#[test]
fn each_leaf_of_each_case_is_in_the_tree_or_replaced() {
    for case in serde_json::from_str::<Vec<Case>>(CASES).expect("cases") {
        let files: Vec<(&str, &str)> = case.files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let folder = folder(&files);
        let dialect = if case.dialect == "stack" { Dialect::Stack } else { Dialect::Compose };
        let names: Vec<&str> = case.load.iter().map(String::as_str).collect();
        let mut request = request(folder.path(), &names, Some(dialect));
        request.env_file = case.env_file.map(|name| folder.path().join(name));
        request.profiles = case.profiles;
        let Ok(found) = load(&request) else { continue };
        // `external: {name: n}` has become `name: n`.
        if case.name == "external" && dialect == Dialect::Compose {
            continue;
        }
        // These copy, and split ranges of ports, and write out what a list of names means.
        let is_copied = ["extends", "include", "range", "depends_on"].iter().any(|word| case.name.contains(word));
        assert_eq!(unaccounted(folder.path(), &case.load, &found, is_copied), [""; 0], "{} {dialect:?}", case.name);
    }
}

/// Lines of a service that go together in any number.
const LINES: &[&str] = &[
    "user: a",
    "user: ''",
    "read_only: true",
    "environment: [A=0, B=0, A=1]",
    "environment: {A: 2, C: , D: 0.5}",
    "environment: {}",
    "labels: {a: b}",
    "labels: [a=c, d]",
    "ports: ['80', '80:80', {target: 80, published: 80}]",
    "ports: ['8000:80', '8000:80', 443]",
    "volumes: ['va:/d', './x:/y', {type: volume, source: vb, target: /d}]",
    "volumes: []",
    "configs: [c, {source: c, target: /c}]",
    "secrets: [s, s]",
    "networks: [n, m]",
    "networks: {n: {aliases: [a, b], ipv4_address: 10.0.0.1}, m: }",
    "networks: {n: {aliases: [a], driver_opts: {a: b}}}",
    "logging: {driver: a, options: {b: c}}",
    "logging: {options: {b: d, e: f}}",
    "logging: {driver: z}",
    "command: [a, b]",
    "command: c d",
    "command: []",
    "healthcheck: {test: a, retries: 3}",
    "healthcheck: {test: [CMD, b], interval: 0s}",
    "dns: 1.1.1.1",
    "dns: [1.1.1.1, 2.2.2.2, 1.1.1.1]",
    "cap_add: [A, B]",
    "cap_add: [B, C]",
    "extra_hosts: {a: 1.1.1.1}",
    "extra_hosts: ['a:1.1.1.1', 'a:1.1.1.1']",
    "env_file: e.env",
    "env_file: [e.env, e.env]",
    "ulimits: {nofile: 3, nproc: {soft: 1, hard: 2}}",
    "ulimits: {nofile: {soft: 1, hard: 2}}",
    "deploy: {replicas: 0, labels: [a=b], placement: {constraints: [a, b]}}",
    "deploy: {replicas: 2, labels: {a: ''}, placement: {constraints: [b]}, resources: {limits: {memory: 0M}}}",
    "build: .",
    "build: {args: [A=1]}",
    "x-own: {a: [b, {}]}",
];

/// Lines that `docker compose` alone reads.
const COMPOSE_LINES: &[&str] = &[
    "ports: !override ['81:81']",
    "environment: !reset null",
    "labels: {a: !reset null, e: f}",
    "cap_add: [!reset A, D]",
    "profiles: [p]",
    "profiles: [q, q]",
    "annotations: {a: b}",
];

fn file(services: &[Vec<&str>]) -> String {
    let mut text = "services:\n".to_owned();
    for (number, lines) in services.iter().enumerate() {
        text += &format!("  s{number}:\n    image: x{number}\n");
        let mut written = BTreeSet::new();
        for line in lines {
            if written.insert(line.split(':').next().expect("a key")) {
                text += &format!("    {line}\n");
            }
        }
    }
    text + "networks: {n: {labels: [a=b]}, m: {}}\n"
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(96))]

    #[test]
    fn each_leaf_of_generated_files_is_in_the_tree_or_replaced(
        choices in proptest::collection::vec(
            proptest::collection::vec(
                proptest::collection::vec(proptest::prelude::any::<proptest::sample::Index>(), 0..9), 1..3), 1..4),
        is_compose in proptest::prelude::any::<bool>(),
    ) {
        let mut pool = LINES.to_vec();
        if is_compose {
            pool.extend(COMPOSE_LINES);
        }
        let texts: Vec<String> = choices.iter().map(|services| {
            let lines = |choice: &Vec<proptest::sample::Index>| choice.iter().map(|index| *index.get(&pool)).collect();
            file(&services.iter().map(lines).collect::<Vec<_>>())
        }).collect();
        let names: Vec<String> = (0..texts.len()).map(|number| format!("f{number}.yml")).collect();
        let mut files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
        files.push(("e.env", "A=1\nC=2\n"));
        let folder = folder(&files);
        let dialect = if is_compose { Dialect::Compose } else { Dialect::Stack };
        let names_only: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = loaded_in(folder.path(), &names_only, dialect).expect("loaded");
        proptest::prop_assert_eq!(unaccounted(folder.path(), &names, &found, false), [""; 0], "{:?}", texts);
    }
}

#[test]
fn a_leaf_that_is_replaced_says_by_what() {
    let files = [
        (
            "a.yml",
            "services:\n  web:\n    image: x\n    ports: ['80:80']\n    user: u\n  debug: {image: d, profiles: [debug]}\n",
        ),
        ("b.yml", "services:\n  web:\n    image: y\n    ports: !reset []\n"),
    ];
    let folder = folder(&files);
    let found = loaded_in(folder.path(), &["a.yml", "b.yml"], Dialect::Compose).expect("loaded");
    let show = |replaced: &Replaced| {
        let Replaced { written, reason, outcome } = replaced;
        format!("{} {}:{} {outcome:?}: {reason}", written.path, written.at.line, written.at.column)
    };
    let shown: Vec<String> =
        found.replaced.iter().map(show).map(|text| text.replace(&*folder.path().to_string_lossy(), "DIR")).collect();
    assert_eq!(
        shown,
        [
            "services.web.ports 4:19 Converted: !reset removes what earlier files say here, and has no value of its own",
            "services.web.ports[0] 4:13 Converted: !reset at DIR/b.yml:4:19 removes it",
            "services.web.image 3:12 Converted: DIR/b.yml:3:12 replaces it",
            "services.debug.image 6:18 Dropped: the profile `debug` is not chosen; --profile debug does",
            "services.debug.profiles[0] 6:32 Dropped: the profile `debug` is not chosen; --profile debug does",
        ]
    );
    let only_first = "services: {web: {image: x}}\n---\nservices: {two: {image: y}}\n";
    let found = loaded(&[("a.yml", only_first)], &["a.yml"], Dialect::Stack).expect("loaded");
    let reasons: Vec<&str> = found.replaced.iter().map(|replaced| replaced.reason.as_str()).collect();
    assert_eq!(reasons, ["docker stack deploy reads the first document of a file only"]);
}

#[test]
fn what_docker_stack_deploy_loses_is_dropped_with_a_warning() {
    let files = [
        ("a.yml", "services:\n  web:\n    image: x\n    ports: ['53:53/tcp', '53:53/udp']\n    environment: {A: a}\n"),
        ("b.yml", "services:\n  web:\n    environment: {A: ''}\n"),
    ];
    let found = loaded(&files, &["a.yml", "b.yml"], Dialect::Stack).expect("loaded");
    let dropped: Vec<String> =
        found.replaced.iter().filter(|one| !one.is_asked()).map(|one| one.written.path.to_string()).collect();
    assert_eq!(dropped, ["services.web.environment.A", "services.web.ports[0]"]);
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
}

#[test]
fn every_variable_without_a_value_is_named_at_each_place() {
    let text = "services:\n  web:\n    image: x:$TAG\n    user: ${TAG}${UID:?a-b}\n    environment: [\"A=$TAG\"]\n";
    let found = loaded(&[("a.yml", text)], &["a.yml"], Dialect::Stack).expect("loaded");
    let folder = FilePath::new(&*found.warnings[0].at.file).parent().expect("a folder").to_string_lossy().into_owned();
    let shown: Vec<String> = found.warnings.iter().map(|mistake| mistake.to_string().replace(&folder, "DIR")).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    let message = "the variable TAG has no value and is replaced by nothing; set it in the file of --env-file";
    assert_eq!(shown[0], format!("DIR/a.yml:3:12: services.web.image: {message}"));
    assert!(
        shown[2].starts_with("DIR/a.yml:4:11: services.web.user: docker stack deploy looks for '-'"),
        "{}",
        shown[2]
    );
    assert_eq!(shown[3], format!("DIR/a.yml:5:19: services.web.environment[0]: {message}"));
    // An unset variable in a constraint: docker/cli#735.
    let text = "services: {web: {image: x, deploy: {replicas: \"$N\"}}}\n";
    let message = refusal(&[("a.yml", text)], &["a.yml"], Dialect::Stack);
    assert_eq!(
        message,
        "DIR/a.yml:1:47: services.web.deploy.replicas: found \"\", expected a whole number; the variable N has no value, set it in the file of \
         --env-file"
    );
}

#[test]
fn variables_of_this_process_are_not_read() {
    let found = loaded(&[("a.yml", "services: {web: {image: \"x$PATH$HOME\"}}\n")], &["a.yml"], Dialect::Compose);
    let found = found.expect("loaded");
    let image = found.tree.get("services").and_then(|services| services.get("web")).and_then(|web| web.get("image"));
    assert_eq!(image.map(|image| image.value.to_string()), Some("x".to_owned()));
}

#[test]
fn names_of_files_in_other_folders_are_below_the_stacks() {
    let files = [
        ("a.yml", "include: [inc/b.yml]\nservices:\n  web:\n    extends: {file: ext/c.yml, service: c}\n"),
        (
            "inc/b.yml",
            "services:\n  b:\n    image: b\n    env_file: e.env\n    volumes: ['./d:/d:ro', 'named:/n', '/abs:/a', '~/h:/h']\n\
             configs: {k: {file: k.conf}}\nsecrets: {s: {file: ../s.txt}}\n",
        ),
        (
            "ext/c.yml",
            "services:\n  c:\n    image: c\n    env_file: [{path: e.env}, ../up.env]\n    build: {context: .}\n    volumes:\n      - {type: \
             bind, source: ./d, target: /d}\n      - {type: volume, source: d, target: /e}\n",
        ),
    ];
    let found = loaded(&files, &["a.yml"], Dialect::Compose).expect("loaded");
    let tree = json_of(&found.tree);
    assert_eq!(tree["services"]["b"]["env_file"], json!("./inc/e.env"));
    assert_eq!(tree["services"]["b"]["volumes"], json!(["./inc/d:/d:ro", "named:/n", "/abs:/a", "~/h:/h"]));
    assert_eq!(tree["configs"]["k"]["file"], json!("./inc/k.conf"));
    assert_eq!(tree["secrets"]["s"]["file"], json!("./s.txt"));
    assert_eq!(tree["services"]["web"]["env_file"], json!([{"path": "./ext/e.env"}, "./up.env"]));
    assert_eq!(tree["services"]["web"]["build"]["context"], json!("./ext"));
    assert_eq!(tree["services"]["web"]["volumes"][0]["source"], json!("./ext/d"));
    assert_eq!(tree["services"]["web"]["volumes"][1]["source"], json!("d"));
    assert!(tree["services"]["web"].get("extends").is_none() && tree.get("include").is_none());
    let resolved: Vec<String> = found.replaced.iter().map(|one| one.written.path.to_string()).collect();
    assert_eq!(resolved, ["include[0]", "services.web.extends.file", "services.web.extends.service"]);
}

#[test]
fn circles_name_each_step() {
    let files = [
        ("a.yml", "services:\n  a: {image: x, extends: {file: b.yml, service: b}}\n"),
        ("b.yml", "services:\n  b: {extends: {file: a.yml, service: a}}\n"),
    ];
    assert_eq!(
        refusal(&files, &["a.yml"], Dialect::Compose),
        "DIR/a.yml:2:26: services.a.extends: services extend one another in a circle: a (DIR/a.yml:2:26) extends b (DIR/b.yml:2:16) extends a"
    );
    let files = [("a.yml", "include: [b.yml]\n"), ("b.yml", "include: [c.yml]\n"), ("c.yml", "include: [b.yml]\n")];
    assert_eq!(
        refusal(&files, &["a.yml"], Dialect::Compose),
        "DIR/c.yml:1:11: files include one another in a circle: DIR/b.yml includes DIR/c.yml includes DIR/b.yml"
    );
    let files = [("a.yml", "services:\n  web: {extends: bass}\n  base: {image: x}\n")];
    assert_eq!(
        refusal(&files, &["a.yml"], Dialect::Compose),
        "DIR/a.yml:2:18: services.web.extends: DIR/a.yml has no service bass; did you mean base?"
    );
}

/// Runs something that has to end soon.
fn soon<T>(run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    result
}

#[test]
fn chains_of_files_and_services_are_bounded() {
    let names: Vec<String> = (0..70).map(|number| format!("f{number}.yml")).collect();
    let nested: Vec<String> =
        (1..=70).map(|number| format!("include: [f{number}.yml]\nservices: {{s{number}: {{image: x}}}}\n")).collect();
    let mut files: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(nested.iter().map(String::as_str)).collect();
    files.push(("f70.yml", "services: {}\n"));
    assert!(
        refusal(&files, &["f0.yml"], Dialect::Compose).ends_with("more than 16 files include one another in a row")
    );
    let wide =
        format!("include: [{}]\n", (1..70).map(|number| format!("g{number}.yml")).collect::<Vec<_>>().join(", "));
    let wide_names: Vec<String> = (1..70).map(|number| format!("g{number}.yml")).collect();
    let mut files: Vec<(&str, &str)> = wide_names.iter().map(|name| (name.as_str(), "services: {}\n")).collect();
    files.push(("a.yml", &wide));
    assert!(refusal(&files, &["a.yml"], Dialect::Compose).ends_with("more than 64 files up to here"));
    let chain: String = (0..40).map(|number| format!("  s{number}: {{extends: s{}}}\n", number + 1)).collect();
    let chain = format!("services:\n{chain}  s40: {{image: x}}\n");
    assert!(
        refusal(&[("a.yml", &chain)], &["a.yml"], Dialect::Compose)
            .ends_with("more than 16 services extend one another in a row")
    );
    // Each file includes the next one twice.
    let doubled: Vec<String> = (1..=16).map(|number| format!("include: [d{number}.yml, d{number}.yml]\n")).collect();
    let doubled_names: Vec<String> = (0..16).map(|number| format!("d{number}.yml")).collect();
    let mut files: Vec<(&str, &str)> =
        doubled_names.iter().map(String::as_str).zip(doubled.iter().map(String::as_str)).collect();
    files.push(("d16.yml", "services: {a: {image: x}}\n"));
    let found = soon(|| loaded(&files, &["d0.yml"], Dialect::Compose));
    assert!(found.expect_err("refused").contains("included more than"));
}

#[test]
fn copies_are_bounded() {
    let large = (0..50_000).map(|number| format!("A{number}=1")).collect::<Vec<_>>().join(", ");
    let services: String = (0..60).map(|number| format!("  s{number}: {{extends: base}}\n")).collect();
    let text = format!("services:\n  base: {{image: x, environment: [{large}]}}\n{services}");
    let message = soon(|| refusal(&[("a.yml", &text)], &["a.yml"], Dialect::Compose));
    assert!(message.contains("copy more than 1000000 values"), "{message}");
}

#[test]
fn long_lists_are_merged_in_linear_time() {
    let list = |from: usize| (from..from + 40_000).map(|number| format!("x{number}")).collect::<Vec<_>>().join(", ");
    let ports =
        (0..30).map(|number| format!("'{}-{}:1-65000'", number, number + 64_999)).collect::<Vec<_>>().join(", ");
    for dialect in [Dialect::Stack, Dialect::Compose] {
        let text = |from| {
            format!(
                "services: {{web: {{image: x, cap_add: [{}], environment: [{}], labels: [{}]}}}}\n",
                list(from),
                list(from),
                list(from)
            )
        };
        let (a, b) = (text(0), text(20_000));
        soon(|| loaded(&[("a.yml", &a), ("b.yml", &b)], &["a.yml", "b.yml"], dialect)).expect("loaded");
        let (a, b) =
            (format!("services: {{web: {{image: x, ports: [{ports}]}}}}\n"), "services: {web: {ports: ['1:1']}}\n");
        let found = soon(|| loaded(&[("a.yml", &a), ("b.yml", b)], &["a.yml", "b.yml"], dialect));
        assert!(found.expect_err("refused").contains("more than 200000 entries"));
    }
}

#[test]
fn many_removals_take_linear_time() {
    let keys: String = (0..30_000).map(|number| format!("A{number}: x, ")).collect();
    let resets: String = (0..30_000).map(|number| format!("A{number}: !reset x, ")).collect();
    let a = format!("services: {{web: {{image: x, environment: {{{keys}}}}}}}\n");
    let b = format!("services: {{web: {{environment: {{{resets}}}}}}}\n");
    let found =
        soon(|| loaded(&[("a.yml", &a), ("b.yml", &b)], &["a.yml", "b.yml"], Dialect::Compose)).expect("loaded");
    assert_eq!(json_of(&found.tree), json!({"services": {"web": {"image": "x"}}}));
}

#[test]
fn broken_files_are_refused_with_their_place() {
    for dialect in [Dialect::Stack, Dialect::Compose] {
        for (text, expected) in [
            ("", "DIR/a.yml:1:1: found nothing, expected a map with services"),
            ("- a\n", "DIR/a.yml:1:1: found a list, expected a map with services"),
            ("---\nnull\n", "DIR/a.yml:2:1: found nothing, expected a map with services"),
            ("a: [1\n", "DIR/a.yml:"),
        ] {
            let message = refusal(&[("a.yml", text)], &["a.yml"], dialect);
            assert!(message.starts_with(expected), "{dialect:?} {text:?}: {message}");
        }
        let large = "#".repeat((4 << 20) + 1);
        assert!(refusal(&[("a.yml", &large)], &["a.yml"], dialect).contains("expected at most 4194304"));
        let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, number| {
            let before = number - 1;
            text + &format!("a{number}: &a{number} [*a{before}, *a{before}]\n")
        });
        assert!(refusal(&[("a.yml", &bomb)], &["a.yml"], dialect).contains("more than 200000 values"));
    }
    for (text, expected) in [
        ("services: {web: {extends: [a]}}\n", "services.web.extends: found a list, expected the name of a service"),
        ("services: {web: {extends: {file: a.yml}}}\n", "services.web.extends: found no `service`"),
        (
            "services: {web: {extends: {file: [x], service: a}}}\n",
            "services.web.extends: found a list, expected the name of a file",
        ),
        ("include: b.yml\n", "include: found no list"),
        ("include: [3]\n", "include: found 3, expected a file"),
        ("include: [{path: []}]\n", "include: found a list, expected at least one file"),
        ("include: [{path: a.yml, project_directory: 3}]\n", "include: found 3, expected a folder"),
    ] {
        let message = refusal(&[("a.yml", text)], &["a.yml"], Dialect::Compose);
        assert!(message.contains(expected), "{text:?}: {message}");
    }
    // Sections of another kind than they should be are for the check of the schema, not for a panic.
    for text in [
        "services: [a]\n",
        "services: 3\n",
        "services: {web: 3}\n",
        "services: {web: {ports: 3, environment: 3}}\n",
        "networks: [a]\n",
    ] {
        for other in ["services: {web: {ports: [80], environment: {A: 1}}}\nnetworks: {a: {}}\n", text] {
            for dialect in [Dialect::Stack, Dialect::Compose] {
                let _ = loaded(&[("a.yml", text), ("b.yml", other)], &["a.yml", "b.yml"], dialect);
                let _ = loaded(&[("a.yml", other), ("b.yml", text)], &["a.yml", "b.yml"], dialect);
            }
        }
    }
}

#[test]
fn files_elsewhere_are_not_read() {
    let outside = folder(&[("secret.yml", "services: {base: {image: x}}\n")]);
    let secret = outside.path().join("secret.yml");
    let secret = secret.to_str().expect("UTF-8");
    let extends = |name: &str| format!("services: {{web: {{extends: {{file: \"{name}\", service: base}}}}}}\n");
    for name in [
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        secret,
        "link.yml",
        "sub",
        "pipe",
        "none.yml",
        "a\\0b",
        "",
    ] {
        for text in [
            extends(name),
            format!("include: [\"{name}\"]\n"),
            format!("include: [{{path: a2.yml, env_file: \"{name}\"}}]\n"),
        ] {
            let folder = folder(&[("a.yml", &text), ("a2.yml", "services: {}\n"), ("sub/x", "")]);
            std::os::unix::fs::symlink(secret, folder.path().join("link.yml")).expect("a link");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                folder.path().join("pipe"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .expect("a pipe");
            let message = soon(|| loaded_in(folder.path(), &["a.yml"], Dialect::Compose)).expect_err("refused");
            assert!(message.starts_with("DIR/a.yml:1:"), "{name}: {message}");
            let expected = match name {
                "link.yml" => "is outside the stack's folder",
                "sub" | "pipe" | "" => "is not a regular file",
                "none.yml" => "cannot read",
                name if name.contains('\\') => "cannot read",
                _ => "is outside the stack's folder",
            };
            assert!(message.contains(expected), "{name}: {message}");
        }
    }
    let folder = folder(&[("a.yml", &extends(secret))]);
    let request = Request { allow_outside: true, ..request(folder.path(), &["a.yml"], Some(Dialect::Compose)) };
    load(&request).expect("allowed");
}

#[test]
fn standard_input_is_a_file_too() {
    let request = |files: &[&str]| Request { files: files.iter().map(PathBuf::from).collect(), ..Request::default() };
    let found = load_from(&request(&["-"]), &mut &b"services: {web: {image: x, deploy: {placement: {}}}}\n"[..])
        .expect("loaded");
    assert_eq!(found.dialect, Dialect::Stack);
    let error = load_from(&request(&["-"]), &mut &b"services: {a: \"$\"}\n"[..]).expect_err("refused");
    assert!(error.to_string().starts_with("standard input:1:15: services.a: '$' is not a variable"), "{error}");
    let error = load_from(&request(&["-"]), &mut std::io::repeat(b'#')).expect_err("refused");
    assert!(error.to_string().contains("expected at most 4194304"), "{error}");
    assert!(matches!(load_from(&request(&["-", "-"]), &mut &b""[..]), Err(LoadError::InputTwice)));
    assert!(matches!(load_from(&request(&[]), &mut &b""[..]), Err(LoadError::Nothing)));
}

#[test]
fn the_dialect_is_what_the_files_are_written_in() {
    for (text, dialect, reason) in [
        (
            "services: {web: {image: x}}\n",
            Dialect::Stack,
            "nothing in the files decides, and docker stack deploy is the default",
        ),
        ("services: {web: {image: x, deploy: {placement: {}}}}\n", Dialect::Stack, "`deploy.placement` (weight 4)"),
        ("services: {web: {build: .}}\n", Dialect::Compose, "`build` without `image`, `build` (weight 6)"),
        ("name: a\nservices: {web: {image: x}}\n", Dialect::Compose, "`name` at the top (weight 10)"),
        (
            "services: {web: {image: x, container_name: y, deploy: {placement: {}, update_config: {}}}}\n",
            Dialect::Stack,
            "`deploy.placement`, `deploy.update_config` (weight 7), against `container_name` (weight 2)",
        ),
        (
            "services: {web: {image: x, profiles: [a], deploy: {update_config: {}}}}\n",
            Dialect::Compose,
            "`profiles` (weight 10), against `deploy.update_config` (weight 3)",
        ),
        (
            "services: {web: {image: x, hostname: 'a-{{.Task.Slot}}'}}\n",
            Dialect::Stack,
            "a template such as `{{.Task.Slot}}` (weight 6)",
        ),
        ("services:\n  web: {image: x, ports: !reset []}\n", Dialect::Compose, "`!reset` or `!override` (weight 10)"),
        (
            "services: {web: {image: x, mem_limit: 1g}}\n",
            Dialect::Compose,
            "a key of services that only docker compose has (weight 10)",
        ),
    ] {
        let folder = folder(&[("a.yml", text)]);
        let found = load(&request(folder.path(), &["a.yml"], None)).expect("loaded");
        assert_eq!((found.dialect, found.dialect_reason.as_str()), (dialect, reason), "{text}");
    }
    let found = loaded(&[("a.yml", "name: n\nservices: {}\n")], &["a.yml"], Dialect::Stack).expect("loaded");
    assert_eq!((found.dialect_reason.as_str(), found.name.as_deref()), ("--dialect", Some("n")));
}
