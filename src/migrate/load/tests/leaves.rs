//! Each leaf of each file is in the tree or replaced.

use std::collections::BTreeSet;

use super::super::super::yaml::Entry;
use super::*;

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
    "ports: ['8000:80', '8000:81', 443]",
    "volumes: ['va:/d', './x:/y', {type: volume, source: vb, target: /d}]",
    "volumes: []",
    "configs: [c, {source: c, target: /c}]",
    "secrets: [s, t]",
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
    "dns: [1.1.1.1, 2.2.2.2]",
    "cap_add: [A, B]",
    "cap_add: [B, C]",
    "extra_hosts: {a: 1.1.1.1}",
    "extra_hosts: ['a:1.1.1.1', 'b:1.1.1.1']",
    "env_file: e.env",
    "env_file: [e.env, ./e.env]",
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
    "profiles: [q, r]",
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
