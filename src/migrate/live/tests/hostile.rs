//! Files that Docker did not write.

use std::time::{Duration, Instant};

use super::{assert_covered, file, refusal, small, source};
use crate::migrate::Source;
use crate::migrate::live::{comparable, read};

#[test]
fn wrong_kinds_are_mistakes_with_their_places() {
    let service = |more: &str| format!("[\n{}\n]", small("a_x", Some("a"), more));
    for (more, expected) in [
        (", \"StopGracePeriod\": \"10s\"", "StopGracePeriod: found text, expected a whole number of nanoseconds"),
        (", \"StopGracePeriod\": -1", "StopGracePeriod: found a number, expected a whole number of nanoseconds"),
        (", \"TTY\": \"true\"", "TTY: found text, expected true or false"),
        (", \"Args\": \"a b\"", "Args: found text, expected a list"),
        (", \"Args\": [1]", "item 1: found a number, expected text"),
        (", \"Dir\": {\"a\": 1}", "Dir: found a map, expected text"),
        (", \"DNSConfig\": [1]", "DNSConfig: found a list, expected a map"),
        (", \"Mounts\": [{\"Type\": \"volume\"}]", "item 1: found a map, expected a mount with Type and Target"),
        (
            ", \"Mounts\": [{\"Type\": \"disk\", \"Target\": \"/a\"}]",
            "Type: found 'disk', expected one of: bind, volume",
        ),
        (", \"Ulimits\": [{\"Name\": \"a\"}]", "item 1: found a map, expected a limit with Name, Soft and Hard"),
        (", \"Secrets\": [null]", "item 1: found nothing, expected a file with SecretName and File"),
        (", \"Image\": \"b\"", "the key 'Image' is here again"),
    ] {
        let text = service(more);
        let found = refusal(&text, None);
        assert!(found.starts_with("swarm.json:2:") && found.contains(expected), "{more}: {found}");
    }
    let config = "{\"ID\": \"1\", \"Spec\": {\"Name\": \"a_c\", \"Labels\": {\"com.docker.stack.namespace\": \"a\"}, \
                  \"Data\": \"?secret?\"}}";
    let found = refusal(&format!("[{},\n{config}]", small("a_x", Some("a"), "")), None);
    assert!(found.starts_with("swarm.json:2:") && found.contains("expected text in base64"), "{found}");
    assert!(!found.contains("?secret?"), "{found}");
}

#[test]
fn hostile_files_are_refused_with_a_place() {
    for (text, expected) in [
        ("{\"cairn_swarm\": 2, \"services\": []}", "swarm.json:1:17: cairn_swarm: expected 1"),
        ("{\"cairn_swarm\": \"1\"}", "swarm.json:1:17: cairn_swarm: expected 1"),
        ("{\"cairn_swarm\": 1, \"services\": {}}", "swarm.json:1:32: found a single value"),
        ("{\"cairn_swarm\": 1, \"services\": [3]}", "swarm.json:1:33: found an object that is not a service"),
        ("hello", "swarm.json:1:1: found a single value"),
        ("services: {web: {image: a}}", "swarm.json:1:1: found an object that is not a service"),
        ("[{\"Spec\": {\"TaskTemplate\": {}}}]", "swarm.json:1:2: found a service without Name or ID"),
        ("{\"a\": 1, \"a\": 2}", "swarm.json:1:10: the key 'a' is here again"),
        ("[1, 2", "swarm.json:1:"),
    ] {
        let found = refusal(text, None);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    let deep = format!("{{\"cairn_swarm\": 1, \"services\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(refusal(&deep, None).contains("nest"), "{}", refusal(&deep, None));
    let deep = format!("[{}]", small("a_x", Some("a"), &format!(", \"New\": {}1{}", "[".repeat(40), "]".repeat(40))));
    assert!(read(&[source("s.json", &deep)], None).is_ok());
    let many = format!("{{\"cairn_swarm\": 1, \"services\": [{}1]}}", "1,".repeat(250_000));
    assert!(refusal(&many, None).contains("more than 200000 values"));
    assert!(Source::of("swarm.json", &vec![b' '; (4 << 20) + 1]).is_err());
    // No step looks through all values for each value.
    let started = Instant::now();
    let fields = |entry: fn(usize) -> String| (0..15_000).map(entry).collect::<Vec<_>>().join(",");
    let labels = fields(|number| format!("\"l{number}\": \"\""));
    let mount = format!(
        "{{\"Type\": \"volume\", \"Source\": \"v\", \"Target\": \"/v\", \"VolumeOptions\": {{\"Labels\": {{{labels}}}}}}}"
    );
    let service = small("a_x", Some("a"), &format!(", \"Mounts\": [{mount}, {mount}]"));
    let network = format!("{{\"Name\": \"host\", \"Id\": \"1\", \"IPAM\": {{}}, {labels}}}");
    let attached = service.replace("\"TaskTemplate\": {", "\"TaskTemplate\": {\"Networks\": [{\"Target\": \"1\"}], ");
    assert!(read(&[source("s.json", &format!("[{attached}, {network}]"))], None).is_ok());
    let ports = fields(|_| "{\"TargetPort\": 1}".to_owned());
    let endpoint = service.replace("\"ID\"", &format!("\"Endpoint\": {{\"Ports\": [{ports}]}}, \"ID\""));
    assert!(read(&[source("s.json", &format!("[{endpoint}]"))], None).is_ok());
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

/// One value of a file is replaced, each one of a service and of the first object of each kind.
#[test]
fn a_value_of_any_kind_in_any_field_is_reported_or_refused() {
    fn paths(value: &serde_json::Value, path: &str, all: &mut Vec<String>) {
        all.push(path.to_owned());
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    paths(value, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), all);
                }
            }
            serde_json::Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    paths(value, &format!("{path}/{index}"), all);
                }
            }
            _ => {}
        }
    }
    let (mut read_well, mut refused) = (0, 0);
    for (stack, service) in [("shop", "shop_web"), ("agents", "agents_model"), ("nightly", "nightly_worker")] {
        let mut document: serde_json::Value = serde_json::from_str(&file(stack)).expect("JSON");
        for (list, fields) in document.as_object_mut().expect("a map") {
            let Some(items) = fields.as_array_mut() else { continue };
            match list.as_str() {
                "services" => items.retain(|item| item["Spec"]["Name"] == service),
                _ => items.truncate(1),
            }
        }
        let mut all = Vec::new();
        paths(&document, "", &mut all);
        for path in all.iter().skip(1).filter(|path| !path.contains("PreviousSpec/") && !path.contains("Endpoint/")) {
            for other in ["null", "[]", "{}", "\"x\"", "-1", "{\"a\": {\"b\": 1}}"] {
                let mut changed = document.clone();
                *changed.pointer_mut(path).expect("there") = serde_json::from_str(other).expect("JSON");
                match read(&[source("s.json", &changed.to_string())], Some(stack)) {
                    Ok(live) => {
                        assert_covered(&live, &format!("{path} = {other}"));
                        let _ = comparable(&live.stack);
                        read_well += 1;
                    }
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(read_well > 500 && refused > 500, "{read_well} {refused}");
}
