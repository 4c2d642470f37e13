use super::*;
use crate::migrate::Source;

fn mistakes(text: &str, dialect: Dialect) -> Vec<String> {
    let source = Source::of("stack.yml", text.as_bytes()).expect("text");
    let documents = Node::documents(&source).expect("YAML");
    documents.iter().flat_map(|node| check(node, dialect)).map(|mistake| mistake.to_string()).collect()
}

fn service(body: &str) -> String {
    format!("services:\n  web:\n    image: x\n    {body}\n")
}

/// `accepted.json` has what docker/cli 29.9.3 (`loader.Load`) and compose-go 2.16.2 (`loader.LoadWithContext`) make of files, without those
/// whose mistake is not one that their schemas find: `[text, accepted by docker/cli, accepted by compose-go]`.
#[test]
fn files_are_refused_that_docker_refuses() {
    let cases: Vec<(String, bool, bool)> =
        serde_json::from_str(include_str!("../../../tests/data/swarm/accepted.json")).expect("JSON");
    assert!(cases.len() > 300);
    let mut wrong = Vec::new();
    for (text, stack, compose) in cases {
        for (dialect, accepted) in [(Dialect::Stack, stack), (Dialect::Compose, compose)] {
            let mistakes = mistakes(&text, dialect);
            if mistakes.is_empty() != accepted {
                wrong.push(format!("{dialect:?} accepts: {accepted}, mistakes: {mistakes:?}\n{text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_key_in_the_wrong_place_is_sent_to_the_right_one() {
    let stack = |body: &str| mistakes(&service(body), Dialect::Stack);
    assert_eq!(
        stack("replicas: 2"),
        ["stack.yml:4:5: services.web: unknown key `replicas`; it belongs below `deploy`"]
    );
    assert_eq!(
        stack("memory: 5m"),
        ["stack.yml:4:5: services.web: unknown key `memory`; it belongs below `deploy.resources.limits` or below \
             `deploy.resources.reservations`"]
    );
    assert_eq!(
        stack("deploy: {environment: {A: b}}"),
        ["stack.yml:4:14: services.web.deploy: unknown key `environment`; it belongs further up, to `services.web`"]
    );
    assert_eq!(
        stack("deploy: {replica: 2}"),
        ["stack.yml:4:14: services.web.deploy: unknown key `replica`; did you mean `replicas`?"]
    );
    assert_eq!(
        mistakes("web:\n  image: x\n", Dialect::Compose),
        ["stack.yml:1:1: unknown key `web`; if it is a service, write it below `services`"]
    );
    assert_eq!(
        mistakes("service: {}\n", Dialect::Stack),
        ["stack.yml:1:1: unknown key `service`; did you mean `services`?"]
    );
}

#[test]
fn a_key_of_the_other_program_is_named_as_such() {
    assert_eq!(
        mistakes(&service("group_add: [audio]"), Dialect::Stack),
        [
            "stack.yml:4:5: services.web: unknown key `group_add`: `docker compose` knows it, `docker stack deploy` refuses the file; \
             remove it, or convert the file with --dialect compose"
        ]
    );
    assert_eq!(
        mistakes(&service("mem_limit: 1g"), Dialect::Stack),
        [
            "stack.yml:4:5: services.web: `docker stack deploy` refuses `mem_limit`; use `deploy.resources.limits.memory`"
        ]
    );
    assert_eq!(mistakes(&service("mem_limit: 1g"), Dialect::Compose), [""; 0]);
    assert_eq!(
        mistakes("version: \"2.4\"\nservices: {}\n", Dialect::Stack),
        [
            "stack.yml:1:10: version: found \"2.4\", and `docker stack deploy` reads the versions 3.0 to 3.13; remove the line, or \
             convert the file with --dialect compose"
        ]
    );
}

#[test]
fn values_are_named_by_their_kind_and_never_shown() {
    let stack = |body: &str| mistakes(&service(body), Dialect::Stack);
    assert_eq!(
        stack("environment: {PASSWORD: true}"),
        [
            "stack.yml:4:29: services.web.environment.PASSWORD: found true or false, expected text, a number or nothing; put it in quotes"
        ]
    );
    assert_eq!(
        stack("environment: PASSWORD=hunter2"),
        ["stack.yml:4:18: services.web.environment: found text, expected a map or a list"]
    );
    assert_eq!(
        stack("deploy: {resources: {limits: {cpus: 0.5}}}"),
        ["stack.yml:4:41: services.web.deploy.resources.limits.cpus: found a number, expected text; put it in quotes"]
    );
    assert_eq!(
        stack("deploy: {update_config: {order: start_first, delay: 10x}}"),
        [
            "stack.yml:4:37: services.web.deploy.update_config.order: found \"start_first\", expected start-first or stop-first; did you \
             mean `start-first`?",
            "stack.yml:4:57: services.web.deploy.update_config.delay: found \"10x\", expected a time such as `90s` or `1m30s`",
        ]
    );
    assert_eq!(
        stack("volumes: [{source: a, target: /b}]"),
        ["stack.yml:4:15: services.web.volumes[0]: `type` is missing; write it"]
    );
    assert_eq!(
        stack("cap_add: [A, B, A]"),
        ["stack.yml:4:21: services.web.cap_add: item 3 is in the list already, and each may be there once; remove it"]
    );
    assert_eq!(
        mistakes("services:\n  a b: {}\n", Dialect::Stack),
        ["stack.yml:2:3: services: found the name \"a b\", expected a name of letters, digits, `.`, `_` and `-`"]
    );
    assert_eq!(
        mistakes("- a\n", Dialect::Compose),
        ["stack.yml:1:1: found a list, expected a map with `services` in it"]
    );
}

#[test]
fn hostile_files_give_few_short_messages() {
    let long = "a".repeat(100_000);
    let keys: String = (0..20).map(|number| format!("    ? {}{number}\n    : x\n", &long[..1_000])).collect();
    let text = format!("services:\n  web:\n{keys}");
    assert!(mistakes(&text, Dialect::Stack).iter().all(|mistake| mistake.len() < 400));
    let text = format!("services:\n  web:\n    stop_grace_period: {long}\n    expose: [{}]\n", "[], ".repeat(10_000));
    let mistakes = mistakes(&text, Dialect::Stack);
    assert_eq!(mistakes.len(), MISTAKES_MAX);
    assert!(mistakes.iter().all(|mistake| mistake.len() < 400));
}

#[test]
fn what_is_reset_is_not_checked() {
    assert_eq!(mistakes(&service("ports: !reset text"), Dialect::Compose), [""; 0]);
    assert_eq!(mistakes(&service("ports: !override text"), Dialect::Compose).len(), 1);
}

/// The schemas use nothing that the checker passes over.
#[test]
fn all_that_the_schemas_use_is_checked() {
    fn walk(root: &Json, schema: &Json) {
        let Json::Object(keywords) = schema else { return };
        for (keyword, value) in keywords {
            match keyword.as_str() {
                "$schema" | "$id" | "id" | "title" | "description" | "default" | "deprecated" | "type" | "required"
                | "enum" | "minimum" | "maximum" | "uniqueItems" | "$ref" => {}
                "additionalProperties" | "unevaluatedProperties" => assert!(value.is_boolean(), "{value}"),
                "pattern" => assert!(format::pattern(value.as_str().expect("text")).is_some(), "{value}"),
                "format" => assert!(format::format(value.as_str().expect("text")).is_some(), "{value}"),
                "properties" | "definitions" | "$defs" => {
                    value.as_object().expect("a map").values().for_each(|below| walk(root, below));
                }
                "patternProperties" => {
                    for (pattern, below) in value.as_object().expect("a map") {
                        assert!(format::pattern(pattern).is_some(), "{pattern}");
                        walk(root, below);
                    }
                }
                "items" => walk(root, value),
                "allOf" => value.as_array().expect("a list").iter().for_each(|below| walk(root, below)),
                "anyOf" => {
                    let is_key = |below: &Json| below["required"].as_array().is_some_and(|names| names.len() == 1);
                    assert!(value.as_array().expect("a list").iter().all(is_key), "{value}");
                }
                "oneOf" => {
                    let mut seen = HashSet::new();
                    for below in value.as_array().expect("a list") {
                        walk(root, below);
                        let target =
                            below.get("$ref").and_then(Json::as_str).map(|target| target.trim_start_matches('#'));
                        let below =
                            target.map_or(Some(below), |target| root.pointer(target)).expect("the schema has it");
                        assert!(!types(below).is_empty(), "{below}");
                        assert!(
                            types(below).iter().all(|name| seen.insert(*name)),
                            "two alternatives for one kind: {value}"
                        );
                    }
                    assert!(!(seen.contains("integer") && seen.contains("number")), "{value}");
                }
                // `constraints` of Docker's schema, which nothing refers to.
                "service" => {}
                other => panic!("the checker does not know the keyword {other}"),
            }
        }
        // What another schema is merged from has no keywords that would be lost.
        for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            assert!(part.get("$ref").is_some(), "{part}");
        }
    }
    for root in [&*STACK, &*COMPOSE] {
        walk(root, root);
    }
}
