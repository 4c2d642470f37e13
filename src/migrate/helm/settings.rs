//! The values of a chart: what people change, with a default, and a schema that says what is right.
//!
//! Invariants: each value has a default and a schema, which the default fits; a name that is not a value is refused. Helm leaves out what
//! is set to `null`, so every value is required.

use serde_json::{Map, Value, json};

use crate::deploy::manifest;

/// Helm 3 before 3.18 reads this version of JSON Schema and none after it.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// Amounts as Kubernetes writes them: `apimachinery/pkg/api/resource`.
const QUANTITY: &str = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// A value.
struct Setting {
    path: Vec<String>,
    default: Value,
    schema: Value,
}

/// The values of a chart.
#[derive(Default)]
pub(super) struct Settings(Vec<Setting>);

impl Settings {
    /// Adds a value, and returns the expression that reads it. `None`: there is one of this name with another default.
    pub(super) fn add(&mut self, path: &[&str], default: Value, schema: Value) -> Option<String> {
        if let Some(setting) = self.0.iter().find(|setting| setting.path == path) {
            return (setting.default == default).then(|| expression(path));
        }
        let path_owned = path.iter().map(|part| (*part).to_owned()).collect();
        self.0.push(Setting { path: path_owned, default, schema });
        Some(expression(path))
    }

    /// `values.yaml`, each first level with a comment.
    ///
    /// * `comment`: that of a first level.
    pub(super) fn values(&self, head: &str, comment: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        head.lines().for_each(|line| text.push_str(&format!("# {line}\n")));
        for section in self.sections() {
            let mut tree = Map::new();
            for setting in self.0.iter().filter(|setting| setting.path[0] == section) {
                insert(&mut tree, &setting.path, setting.default.clone());
            }
            text.push('\n');
            comment(section).lines().for_each(|line| text.push_str(&format!("# {line}\n")));
            text.push_str(&manifest::to_yaml(&tree));
        }
        text
    }

    /// `values.schema.json`
    pub(super) fn schema(&self) -> String {
        let mut root = object();
        for setting in &self.0 {
            let mut node = &mut root;
            for (place, part) in setting.path.iter().enumerate() {
                if let Some(required) = node["required"].as_array_mut()
                    && !required.iter().any(|name| name == part)
                {
                    required.push(json!(part));
                }
                let next = &mut node["properties"][part];
                if place + 1 == setting.path.len() {
                    *next = setting.schema.clone();
                } else if next.is_null() {
                    *next = object();
                }
                node = next;
            }
        }
        // Charts around this one have global values of their own.
        if root["properties"]["global"].is_object() {
            root["properties"]["global"]["additionalProperties"] = json!(true);
        }
        root["$schema"] = json!(DIALECT);
        format!("{root:#}\n")
    }

    /// The first levels, in the order in which they were added.
    fn sections(&self) -> Vec<&str> {
        let mut sections: Vec<&str> = Vec::new();
        for setting in &self.0 {
            if !sections.contains(&setting.path[0].as_str()) {
                sections.push(&setting.path[0]);
            }
        }
        sections
    }
}

fn object() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {}, "required": [] })
}

fn insert(tree: &mut Map<String, Value>, path: &[String], value: Value) {
    let [name, rest @ ..] = path else { return };
    if rest.is_empty() {
        tree.insert(name.clone(), value);
    } else if let Some(inner) = tree.entry(name.clone()).or_insert_with(|| json!({})).as_object_mut() {
        insert(inner, rest, value);
    }
}

/// Reads a value: `.Values.env.PORT`, or `(index .Values "env" "a-b")` where a name is not one of Go.
fn expression(path: &[&str]) -> String {
    let is_name = |part: &&str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
    };
    if path.iter().all(is_name) {
        return format!(".Values.{}", path.join("."));
    }
    let parts: Vec<String> = path.iter().map(|part| Value::from(*part).to_string()).collect();
    format!("(index .Values {})", parts.join(" "))
}

/// The schema of a whole number.
pub(super) fn integer(least: i64, most: i64, description: &str) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most, "description": description })
}

/// The schema of a text.
pub(super) fn text(pattern: Option<&str>, description: &str) -> Value {
    let mut schema = json!({ "type": "string" });
    if !description.is_empty() {
        schema["description"] = json!(description);
    }
    if let Some(pattern) = pattern {
        schema["pattern"] = json!(pattern);
    }
    schema
}

/// The schema of an amount as a text.
pub(super) fn quantity(description: &str) -> Value {
    text(Some(QUANTITY), description)
}

/// The schema of requests and limits.
pub(super) fn resources() -> Value {
    let amounts = || {
        let number = json!({ "type": "number", "minimum": 0 });
        json!({ "type": "object", "additionalProperties": { "anyOf": [quantity("Such as 500m or 1Gi"), number] } })
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": { "limits": amounts(), "requests": amounts() },
        "description": "What the container may use, and what is reserved for it",
    })
}

/// Units of amounts.
const SUFFIXES: &[&str] = &["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Whether a text is an amount that [`quantity`] takes.
pub(super) fn is_quantity(text: &str) -> bool {
    let number = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number);
    let is_number = number.matches('.').count() <= 1 && number.bytes().any(|byte| byte.is_ascii_digit());
    let is_exponent = || {
        let digits = suffix.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_number && (SUFFIXES.contains(&suffix) || is_exponent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_expressions_defaults_and_a_schema() {
        let mut settings = Settings::default();
        let port = settings.add(&["env", "PORT"], json!("on"), text(None, "x"));
        assert_eq!(port.as_deref(), Some(".Values.env.PORT"));
        assert_eq!(settings.add(&["env", "PORT"], json!("on"), text(None, "x")), port);
        assert_eq!(settings.add(&["env", "PORT"], json!("off"), text(None, "x")), None);
        let other = settings.add(&["env", "a-\"b"], json!("text"), text(None, "x"));
        assert_eq!(other.as_deref(), Some(r#"(index .Values "env" "a-\"b")"#));
        settings.add(&["replicas"], json!(2), integer(0, 9, "x"));
        let values = settings.values("Of web", |name| format!("About {name}"));
        assert_eq!(
            values,
            "# Of web\n\n# About env\nenv:\n  PORT: 'on'\n  a-\"b: text\n\n# About replicas\nreplicas: 2\n"
        );
        let schema: Value = serde_json::from_str(&settings.schema()).expect("JSON");
        assert_eq!(schema["required"], json!(["env", "replicas"]));
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["properties"]["env"]["required"], json!(["PORT", "a-\"b"]));
        assert_eq!(schema["properties"]["env"]["additionalProperties"], json!(false));
        assert_eq!(schema["properties"]["replicas"]["maximum"], json!(9));
    }

    #[test]
    fn amounts_are_those_of_kubernetes() {
        for text in ["1", "0.5", ".5", "5.", "500m", "1Gi", "1e3", "1E-3", "2E", "3k"] {
            assert!(is_quantity(text), "{text}");
        }
        for text in ["", ".", "1.2.3", "1gb", "Gi", "1e", "1 Gi", "-1", "{{ x }}"] {
            assert!(!is_quantity(text), "{text}");
        }
    }
}
