//! Objects as YAML that Kubernetes reads as what they are.
//!
//! `kubectl`, the API server and K3s read YAML 1.1 (go-yaml 2): an unquoted `yes`, `on` or `1_000` is not text to them, as it is in YAML 1.2,
//! which the library here writes. Invariants: every text, also one that is a key, is read as the same text by both.

use serde::Serialize;
use serde_yaml::{Mapping, Value};

/// Texts, in any of three spellings, that are true or false in YAML 1.1.
const BOOLEANS: &[&str] = &["y", "n", "yes", "no", "on", "off"];

/// The text of an object.
///
/// # Panics
/// When the object is not plain data: a map whose keys are not texts, or a number that is none.
#[must_use]
pub fn to_yaml<T: Serialize>(object: &T) -> String {
    let value = serde_yaml::to_value(object).expect("plain data is YAML");
    let text = |value: &Value| serde_yaml::to_string(value).expect("plain data is YAML");
    let plain = text(&value);
    if !has_ambiguous(&value) {
        return plain;
    }
    // The library quotes what begins with `@`. The letter after it is one that nothing in the object has, so that both can be removed again.
    let letter = ('\u{e000}'..='\u{f8ff}').find(|letter| !plain.contains(*letter)).unwrap_or('\u{e000}');
    let mark = format!("@{letter}");
    text(&marked(value, &mark)).replace(&mark, "")
}

/// Whether YAML 1.1 takes an unquoted text for something else, which YAML 1.2 does not.
fn is_ambiguous(text: &str) -> bool {
    // In YAML 1.1 a number may have underscores, `1:30` is 90, and `2026-01-31` is a date; go-yaml takes the last two for texts, others do not.
    let number = || {
        let unsigned = text.strip_prefix(['-', '+']);
        let starts = unsigned
            .unwrap_or(text)
            .starts_with(|first: char| first.is_ascii_digit() || first == '.' || first == '_' && unsigned.is_some());
        starts && text.contains(['_', ':', '-'])
    };
    let is_word = || matches!(text, "=" | "<<") || BOOLEANS.iter().any(|word| text.eq_ignore_ascii_case(word));
    text.len() <= 3 && is_word() || number()
}

fn has_ambiguous(value: &Value) -> bool {
    match value {
        Value::String(text) => is_ambiguous(text),
        Value::Sequence(items) => items.iter().any(has_ambiguous),
        Value::Mapping(entries) => entries.iter().any(|(key, value)| has_ambiguous(key) || has_ambiguous(value)),
        _ => false,
    }
}

fn marked(value: Value, mark: &str) -> Value {
    match value {
        Value::String(text) if is_ambiguous(&text) => Value::String(format!("{mark}{text}")),
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(|item| marked(item, mark)).collect()),
        Value::Mapping(entries) => {
            let entries = entries.into_iter().map(|(key, value)| (marked(key, mark), marked(value, mark)));
            Value::Mapping(entries.collect::<Mapping>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts, each with whether go-yaml 2, by sigs.k8s.io/yaml 1.6, reads it as text when it is unquoted. Written by a program that calls it.
    const CASES: &str = include_str!("../../tests/data/k3s/plain_scalars.json");

    #[test]
    fn what_kubernetes_would_misread_is_quoted() {
        let cases: Vec<(String, bool)> = serde_json::from_str(CASES).expect("a list of two");
        assert!(cases.iter().any(|(_, is_text)| !is_text));
        for (text, is_text) in cases {
            let written = to_yaml(&[(&text, &text)]);
            let is_plain = written == format!("- - {text}\n  - {text}\n");
            assert!(is_text || !is_plain, "{text:?} is written as {written}");
            assert_eq!(serde_yaml::from_str::<Vec<(String, String)>>(&written).expect("YAML"), [(text.clone(), text)]);
        }
    }

    #[test]
    fn keys_are_quoted_and_letters_of_the_mark_stay() {
        let object = serde_json::json!({"a": ["1_000", "web", "a\nb\n"], "on": "yes", "\u{e000}": "@\u{e000}\u{e001}"});
        assert_eq!(
            to_yaml(&object),
            "a:\n- '1_000'\n- web\n- |\n  a\n  b\n'on': 'yes'\n\u{e000}: '@\u{e000}\u{e001}'\n"
        );
    }
}
