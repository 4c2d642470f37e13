//! What files come to, next to what Docker's own programs make of them.

use std::collections::BTreeSet;

use serde_json::Map;

use super::super::short;
use super::*;

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
