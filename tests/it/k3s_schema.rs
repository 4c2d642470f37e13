//! The schema of a file of settings, held against what reads one.

use std::path::Path;

use cairn::deploy::k3s::{Options, Settings, ValuesFile, schema};
use serde_json::Value;

/// Whether a schema takes a value, by the keywords that ours have.
fn takes(schema: &Value, value: &Value) -> bool {
    let is_of = |kind: &str| match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("no type of JSON: {other}"),
    };
    let takes_all = |keyword: &str, items: Vec<&Value>| {
        schema.get(keyword).is_none_or(|schema| items.into_iter().all(|item| takes(schema, item)))
    };
    let has_type = match &schema["type"] {
        Value::String(kind) => is_of(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is_of),
        _ => true,
    };
    let is_in = |bound: &str, within: fn(f64, f64) -> bool| match (value.as_f64(), schema[bound].as_f64()) {
        (Some(value), Some(bound)) => within(value, bound),
        _ => true,
    };
    let has_form = match (value.as_str(), schema["pattern"].as_str()) {
        (Some(text), Some("=")) => text.contains('='),
        (Some(text), Some(pattern)) => is_match(pattern, text),
        _ => true,
    };
    let known = ["type", "enum", "not", "minimum", "maximum", "maxLength", "pattern", "items", "additionalProperties"];
    let notes = ["description", "default", "examples", "properties", "required"];
    let strange = schema.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let strange: Vec<&str> = strange.filter(|name| !known.contains(name) && !notes.contains(name)).collect();
    assert_eq!(strange, [""; 0], "a keyword that this test does not know");
    has_type
        && schema["enum"].as_array().is_none_or(|values| values.contains(value))
        && schema.get("not").is_none_or(|not| !takes(not, value))
        && is_in("minimum", |value, bound| value >= bound)
        && is_in("maximum", |value, bound| value <= bound)
        && value.as_str().is_none_or(|text| schema["maxLength"].as_u64().is_none_or(|most| text.len() as u64 <= most))
        && has_form
        && takes_all("items", value.as_array().into_iter().flatten().collect())
        && takes_all("additionalProperties", value.as_object().into_iter().flatten().map(|(_, item)| item).collect())
}

/// Whether a text is all of a pattern between `^` and `$`.
fn is_match(pattern: &str, text: &str) -> bool {
    use tantivy_fst::Automaton as _;
    let inner = pattern.strip_prefix('^').and_then(|inner| inner.strip_suffix('$')).expect("an anchored pattern");
    let automaton = tantivy_fst::Regex::new(inner).expect("a pattern");
    let end = text.bytes().fold(automaton.start(), |state, byte| automaton.accept(&state, byte));
    automaton.is_match(&end)
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    let schema = schema();
    for (key, good, bad) in [
        (
            "loadbalancer.port",
            &["7171", "'7171'", "1024", "65535", "6444"][..],
            &["6443", "'6443'", "80", "'80'", "65536", "true"][..],
        ),
        ("monitoring.interval", &["60s", "1m", "010s"], &["0s", "00m", "60", "1h", "+1s", "s"]),
        ("env", &["{PORT: 8080}", "{A: true}", "[A=b, C=d]", "{A: x}"], &["[A]", "{A: [1]}", "A=b"]),
        ("pod.annotations", &["{a: 1}", "{a.example/b: x}", "[a=1]"], &["{a: {b: c}}", "3"]),
        ("node.selector", &["{disk: ssd}", "[disk=ssd]"], &["[disk]", "{disk: [ssd]}"]),
        ("gpu.count", &["1", "'16'"], &["0", "17", "'17'", "1.5", "'x'"]),
        ("gpu.group", &["105", "'105'"], &["0", "'0'", "-1", "true"]),
        ("gpu.own-runtime-class", &["true", "'false'"], &["1", "'maybe'"]),
        ("documents.collection", &["manuals", "a.b-c_1"], &["Manuals", "-a", "'a b'", "5"]),
        ("address", &["'::'", "0.0.0.0"], &["127.0.0.1"]),
        ("storage.size", &["64GiB", "10000000000"], &["true", "[1]"]),
        ("resources.cpu", &["2", "0.5", "500m"], &["true", "[2]"]),
    ] {
        let (group, field) = key.split_once('.').unwrap_or(("", key));
        let pointer = format!("/properties/{}", key.replace('.', "/properties/"));
        let of_key = schema.pointer(&pointer).unwrap_or_else(|| panic!("{key} is in the schema"));
        for (text, is_good) in good.iter().map(|text| (text, true)).chain(bad.iter().map(|text| (text, false))) {
            let more = if group == "documents" { ", config-map: a" } else { "" };
            let file = match group {
                "" => format!("{field}: {text}\n"),
                group => format!("{group}: {{{field}: {text}{more}}}\n"),
            };
            let values = ValuesFile::parse(Path::new("a.yaml"), &file).expect("a file of settings");
            let read = Settings::new(&Options { values: Some(values), ..Options::default() });
            assert_eq!(read.is_ok(), is_good, "the reader on {file}{read:?}");
            let value: Value = serde_yaml::from_str(text).expect("YAML");
            assert_eq!(takes(of_key, &value), is_good, "the schema on {file}{of_key}");
        }
    }
}
