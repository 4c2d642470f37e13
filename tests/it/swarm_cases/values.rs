//! Comparing what a case expects with what was found.

use std::collections::BTreeMap;

use serde_json::Value;

/// Whether a value is as expected. A map with one of the words below as its only key is a rule, anything else is the value itself.
///
/// * `variables`: what Kubernetes expands in the container, for `expands_to`.
pub(super) fn matches(expected: &Value, found: Option<&Value>, variables: &BTreeMap<String, String>) -> bool {
    let found = found.filter(|found| !found.is_null());
    if expected.is_null() {
        return found.is_none();
    }
    let Some((word, operand)) = rule(expected) else { return found == Some(expected) };
    let test = |expected: &Value| matches(expected, found, variables);
    match word {
        "one_of" => return operand.as_array().is_some_and(|all| all.iter().any(test)),
        "not" => return !test(operand),
        _ => {}
    }
    let Some(found) = found else { return false };
    match word {
        "any" => true,
        "contains" => found.as_str().zip(operand.as_str()).is_some_and(|(found, part)| found.contains(part)),
        "like" => found.as_str().zip(operand.as_str()).is_some_and(|(found, pattern)| is_like(found, pattern)),
        "part" => is_part(operand, Some(found), variables),
        "holds" => found.as_array().zip(operand.as_array()).is_some_and(|(found, wanted)| {
            wanted.iter().all(|wanted| found.iter().any(|item| is_part(wanted, Some(item), variables)))
        }),
        "at_least" => found.as_f64().zip(operand.as_f64()).is_some_and(|(found, least)| found >= least),
        "quantity" => quantity(found).zip(quantity(operand)).is_some_and(|(found, amount)| found == amount),
        "below" => quantity(found).zip(quantity(operand)).is_some_and(|(found, most)| found < most),
        "expands_to" => expanded(found, variables) == *operand,
        _ => false,
    }
}

const RULES: &[&str] =
    &["one_of", "not", "any", "contains", "like", "part", "holds", "at_least", "quantity", "below", "expands_to"];

fn rule(expected: &Value) -> Option<(&str, &Value)> {
    let map = expected.as_object().filter(|map| map.len() == 1)?;
    let (word, operand) = map.iter().next()?;
    RULES.contains(&word.as_str()).then_some((word, operand))
}

/// As [`matches`]; of a map only the keys that are named count, at any depth.
fn is_part(wanted: &Value, found: Option<&Value>, variables: &BTreeMap<String, String>) -> bool {
    match wanted.as_object().filter(|_| rule(wanted).is_none()) {
        None => matches(wanted, found, variables),
        Some(keys) => keys.iter().all(|(key, value)| is_part(value, found.and_then(|found| found.get(key)), variables)),
    }
}

/// `*` is any text.
fn is_like(text: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    let [first, middle @ .., last] = &parts[..] else { return text == pattern };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// A quantity of Kubernetes in thousandths.
pub(super) fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: i128 = match unit {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_i128.pow(2),
        "G" => 1000 * 1000_i128.pow(3),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let part = match fraction {
        "" => 0,
        digits => digits.parse::<i128>().ok()? * factor / 10_i128.pow(u32::try_from(digits.len()).ok()?),
    };
    Some(whole.parse::<i128>().ok()? * factor + part)
}

/// What Kubernetes makes of a text or of each of a list.
fn expanded(value: &Value, variables: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(expand(text, variables)),
        Value::Array(items) => items.iter().map(|item| expanded(item, variables)).collect(),
        other => other.clone(),
    }
}

/// The rules for `command`, `args` and `env`: `$(NAME)` is the variable where there is one, and `$$` is a dollar sign.
/// See <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>, `Container.args`.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let inner = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(escaped) = after.strip_prefix('$') {
            result.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = inner {
            match variables.get(name) {
                Some(value) => result.push_str(value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = behind;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result + rest
}

#[test]
fn rules_hold_for_what_they_say() {
    let holds = |expected: &str, found: &str| {
        let parse = |text: &str| serde_yaml::from_str::<Value>(text).expect("YAML");
        matches(&parse(expected), Some(&parse(found)), &BTreeMap::from([("A".to_owned(), "1".to_owned())]))
    };
    for (expected, found) in [
        ("null", "null"),
        ("3", "3"),
        ("{any: true}", "0"),
        ("{like: 'a*c*'}", "abcd"),
        ("{holds: [{a: 1}, {b: {like: '*x'}}]}", "[{b: yx, c: 1}, {a: 1, d: 2}]"),
        ("{part: {a: {b: 1}, z: null}}", "{a: {b: 1, c: 2}}"),
        ("{one_of: [null, 5, {at_least: 9}]}", "10"),
        ("{quantity: 1Gi}", "1024Mi"),
        ("{quantity: 1500m}", "'1.5'"),
        ("{below: 1Gi}", "64Mi"),
        ("{expands_to: ['1 $(B) $(A) $$']}", "['$(A) $(B) $$(A) $$$$']"),
    ] {
        assert!(holds(expected, found), "{expected} of {found}");
        assert!(!holds(&format!("{{not: {expected}}}"), found), "not {expected} of {found}");
    }
    for (expected, found) in [
        ("null", "1"),
        ("'3'", "3"),
        ("{a: 1}", "{a: 1, b: 2}"),
        ("{any: true}", "null"),
        ("{like: 'a*c'}", "abcd"),
        ("{holds: [{a: 1}]}", "[{a: 2}]"),
        ("{quantity: 1Gi}", "1G"),
        ("{expands_to: ['$(A)']}", "['$(A)']"),
    ] {
        assert!(!holds(expected, found), "{expected} of {found}");
    }
}
