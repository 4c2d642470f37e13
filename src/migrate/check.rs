//! What Docker would refuse about a file: keys that it does not know, values of the wrong kind, and what is missing.
//!
//! Owns the reading of the two JSON schemas in `schema/`, the Compose Specification's and Docker's own, by which the programs decide. Of JSON
//! Schema it knows what these two use, which a test demands.
//!
//! Invariants: a message has no value in it, for it may be secret, but where the schema says what text it may be. Each value is looked at once,
//! however schemas nest, and there are at most [`MISTAKES_MAX`] mistakes, so that time and memory are bounded.

mod advice;
mod format;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value as Json;

use self::format::Format;
use super::leaf::{Path, Segment};
use super::yaml::{Entry, Node, Tag, Value};
use super::{Dialect, Mistake, Position};

static COMPOSE: LazyLock<Json> = LazyLock::new(|| json(include_str!("schema/compose-spec.json")));
static STACK: LazyLock<Json> = LazyLock::new(|| json(include_str!("schema/config_schema_v3.13.json")));

fn json(text: &str) -> Json {
    serde_json::from_str(text).expect("a test reads the schema")
}

/// Lists in which `docker compose` drops what is there twice before it looks at the schema (compose-go 2.16.2, `override/uncity.go`), below a
/// service. So it does with the labels of a network.
const MERGED: [&str; 26] = [
    "annotations",
    "build.additional_contexts",
    "build.args",
    "build.labels",
    "build.tags",
    "cap_add",
    "cap_drop",
    "configs",
    "deploy.labels",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "env_file",
    "environment",
    "expose",
    "labels",
    "links",
    "networks.*.aliases",
    "networks.*.link_local_ips",
    "ports",
    "profiles",
    "secrets",
    "sysctls",
    "tmpfs",
    "volumes",
];

/// Most mistakes of a file; those after them are mostly the same again.
const MISTAKES_MAX: usize = 50;
/// Most characters of a key or a value in a message.
const EXCERPT_MAX: usize = 60;

/// Everything that a program would refuse about a whole file, in the order of the file.
///
/// * `node`: the file after variables are replaced and values made what the program makes of them.
pub(super) fn check(node: &Node, dialect: Dialect) -> Vec<Mistake> {
    let Value::Map(entries) = &node.value else {
        let found = kind(&node.value);
        let message = format!("found {found}, expected a map with `services` in it");
        return vec![Mistake { at: node.at.clone(), message }];
    };
    let root = match dialect {
        Dialect::Stack => &*STACK,
        Dialect::Compose => &*COMPOSE,
    };
    let mut checker = Checker { root, dialect, path: Path::default(), mistakes: Vec::new() };
    if dialect == Dialect::Stack {
        checker.check_version(entries);
    }
    checker.check(root, node);
    checker.mistakes
}

/// What is at a place, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Int(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

/// What a schema wants, for messages.
fn kind_of(name: &str) -> &'static str {
    match name {
        "null" => "nothing",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        _ => "a map",
    }
}

/// Whether a value is of a type of JSON Schema.
fn is_of(value: &Value, name: &str) -> bool {
    match (name, value) {
        ("null", Value::Null)
        | ("boolean", Value::Bool(_))
        | ("integer" | "number", Value::Int(_))
        | ("string", Value::Text(_))
        | ("array", Value::List(_))
        | ("object", Value::Map(_)) => true,
        ("number", Value::Float(number)) => number.is_finite(),
        ("integer", Value::Float(number)) => number.is_finite() && number.fract() == 0.0,
        _ => false,
    }
}

/// The types that a schema allows; none: all.
fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => vec![],
    }
}

/// Words as a sentence has them: `a, b or c`.
fn either(words: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for (place, word) in words.iter().enumerate() {
        let last = place + 1 == words.len();
        text.push_str(if place == 0 {
            ""
        } else if last {
            " or "
        } else {
            ", "
        });
        text.push_str(word.as_ref());
    }
    text
}

/// What a map may have.
#[derive(Default)]
struct Shape {
    properties: Vec<(&'static str, &'static Json)>,
    patterns: Vec<(Format, &'static Json)>,
    required: Vec<&'static str>,
    /// Nothing else.
    is_closed: bool,
}

struct Checker {
    root: &'static Json,
    dialect: Dialect,
    /// Of the value that is checked.
    path: Path,
    mistakes: Vec<Mistake>,
}

impl Checker {
    /// A mistake in the value that is checked.
    fn mistake(&mut self, at: &Position, message: &str) {
        if self.mistakes.len() < MISTAKES_MAX {
            let at = at.clone();
            let root = if self.path.0.is_empty() { "" } else { ": " };
            self.mistakes.push(Mistake { at, message: format!("{}{root}{message}", self.path) });
        }
    }

    /// Checks a value below.
    fn descend(&mut self, segment: Segment, schemas: &[&'static Json], node: &Node) {
        self.path.0.push(segment);
        for schema in schemas {
            self.check(schema, node);
        }
        self.path.0.pop();
    }

    /// docker/cli has a schema for each of the versions 3.0 to 3.13; where none is written it is the last one.
    fn check_version(&mut self, entries: &[Entry]) {
        let Some(entry) = entries.iter().find(|entry| entry.key == "version") else { return };
        // Another kind of value is a mistake that the schema finds.
        let Value::Text(version) = &entry.node.value else { return };
        let is_one =
            version.strip_prefix("3.").and_then(|minor| minor.parse::<u8>().ok().filter(|_| !minor.starts_with('+')));
        let has_schema = |minor: u8| minor <= 13 && version[2..] == minor.to_string();
        if version.is_empty() || version == "3" || is_one.is_some_and(has_schema) {
            return;
        }
        let message = format!(
            "version: found {:?}, and `docker stack deploy` reads the versions 3.0 to 3.13; remove the line, or convert the file with \
             --dialect compose",
            excerpt(version)
        );
        self.mistake(&entry.node.at, &message);
    }

    /// Follows `$ref`.
    fn resolved(&self, mut schema: &'static Json) -> &'static Json {
        while let Some(target) = schema.get("$ref").and_then(Json::as_str) {
            match self.root.pointer(target.trim_start_matches('#')) {
                Some(found) => schema = found,
                None => break,
            }
        }
        schema
    }

    fn check(&mut self, schema: &'static Json, node: &Node) {
        // What is reset is not in the file that Compose checks.
        if self.dialect == Dialect::Compose && node.tag == Some(Tag::Reset) {
            return;
        }
        let schema = self.resolved(schema);
        if let Some(alternatives) = schema.get("oneOf").and_then(Json::as_array) {
            let alternatives: Vec<&'static Json> = alternatives.iter().map(|schema| self.resolved(schema)).collect();
            // No two of them have a kind of value in common.
            let fits = |schema: &&&Json| types(schema).iter().any(|name| is_of(&node.value, name));
            match alternatives.iter().find(fits) {
                Some(alternative) => self.check(alternative, node),
                None => {
                    let wanted: Vec<&str> = alternatives.iter().flat_map(|schema| types(schema)).collect();
                    self.wrong_kind(node, &wanted);
                }
            }
            return;
        }
        let mut wanted = types(schema);
        if let (true, Some(part)) = (wanted.is_empty(), schema.pointer("/allOf/0")) {
            wanted = types(self.resolved(part));
        }
        if !wanted.is_empty() && !wanted.iter().any(|name| is_of(&node.value, name)) {
            return self.wrong_kind(node, &wanted);
        }
        match &node.value {
            Value::Map(entries) => self.check_map(schema, entries, node),
            Value::List(items) => self.check_list(schema, items),
            Value::Text(text) => self.check_text(schema, text, node),
            // Borders are small numbers.
            Value::Int(number) => self.check_number(schema, *number as f64, node),
            Value::Float(number) => self.check_number(schema, *number, node),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn wrong_kind(&mut self, node: &Node, wanted: &[&str]) {
        let mut names: Vec<&str> = Vec::new();
        for name in wanted {
            // A whole number is a number.
            let is_covered = *name == "integer" && wanted.contains(&"number");
            if !is_covered && !names.contains(&kind_of(name)) {
                names.push(kind_of(name));
            }
        }
        let found = kind(&node.value);
        let is_scalar = matches!(node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        let hint = if is_scalar && wanted.contains(&"string") {
            "; put it in quotes"
        } else if node.value == Value::Null {
            "; write a value, or remove the key"
        } else if matches!(node.value, Value::Text(_))
            && ["boolean", "integer", "number"].iter().any(|name| wanted.contains(name))
        {
            "; remove the quotes, if it has any"
        } else {
            ""
        };
        let message = format!("found {found}, expected {}{hint}", either(&names));
        self.mistake(&node.at, &message);
    }

    /// What a schema says of a map, with what its `allOf` says.
    fn shape(&self, schema: &'static Json, shape: &mut Shape) {
        let schema = self.resolved(schema);
        let object = |key: &str| schema.get(key).and_then(Json::as_object).into_iter().flatten();
        let list = |key: &str| schema.get(key).and_then(Json::as_array).into_iter().flatten();
        shape.properties.extend(object("properties").map(|(name, below)| (name.as_str(), below)));
        let patterns = object("patternProperties");
        shape.patterns.extend(patterns.filter_map(|(pattern, below)| Some((format::pattern(pattern)?, below))));
        shape.required.extend(list("required").filter_map(Json::as_str));
        let closes = |key: &str| schema.get(key) == Some(&Json::Bool(false));
        shape.is_closed |= closes("additionalProperties") || closes("unevaluatedProperties");
        for part in list("allOf") {
            self.shape(part, shape);
        }
    }

    fn check_map(&mut self, schema: &'static Json, entries: &[Entry], node: &Node) {
        let mut shape = Shape::default();
        self.shape(schema, &mut shape);
        for entry in entries {
            let property = shape.properties.iter().find(|(name, _)| *name == entry.key).map(|(_, schema)| *schema);
            let matching =
                shape.patterns.iter().filter(|(format, _)| (format.accepts)(&entry.key)).map(|(_, schema)| *schema);
            let schemas: Vec<&'static Json> = property.into_iter().chain(matching).collect();
            if schemas.is_empty() && shape.is_closed {
                if self.mistakes.len() < MISTAKES_MAX {
                    self.mistake(&entry.at, &self.unknown(&shape, entry));
                }
            } else {
                self.descend(Segment::Key(entry.key.clone()), &schemas, &entry.node);
            }
        }
        let lacks = |name: &str| !entries.iter().any(|entry| entry.key == name);
        for name in shape.required.iter().filter(|name| lacks(name)) {
            self.mistake(&node.at, &format!("`{name}` is missing; write it"));
        }
        // The alternatives of `anyOf` are keys, of which one has to be there.
        let alternatives = schema.get("anyOf").and_then(Json::as_array).into_iter().flatten();
        let names: Vec<&str> = alternatives.filter_map(|schema| schema.pointer("/required/0")?.as_str()).collect();
        if !names.is_empty() && names.iter().all(|name| lacks(name)) {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            self.mistake(&node.at, &format!("{} is missing; write one of them", either(&names)));
        }
    }

    /// What to say of a key that a map may not have.
    fn unknown(&self, shape: &Shape, entry: &Entry) -> String {
        let known: Vec<&str> = shape.properties.iter().map(|(name, _)| *name).collect();
        if let (true, Some((format, _))) = (known.is_empty(), shape.patterns.first()) {
            return format!("found the name {:?}, expected {}", excerpt(&entry.key), format.expected);
        }
        advice::unknown_key(&known, entry, &self.path, self.dialect)
    }

    fn check_list(&mut self, schema: &'static Json, items: &[Node]) {
        if let Some(below) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.descend(Segment::Index(index), &[below], item);
            }
        }
        if schema.get("uniqueItems") == Some(&Json::Bool(true)) && !self.is_merged() {
            let mut seen = HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let mut text = String::new();
                canonical(item, &mut text);
                if !seen.insert(text) {
                    let message =
                        format!("item {} is in the list already, and each may be there once; remove it", index + 1);
                    self.mistake(&item.at, &message);
                }
            }
        }
    }

    /// Whether `docker compose` drops what is there twice in a list.
    fn is_merged(&self) -> bool {
        let matches = |pattern: &str| {
            let steps: Vec<&str> = pattern.split('.').collect();
            let fits = |(segment, step): (&Segment, &&str)| {
                *step == "*" || matches!(segment, Segment::Key(key) if key == step)
            };
            steps.len() == self.path.0.len() && self.path.0.iter().zip(&steps).all(fits)
        };
        self.dialect == Dialect::Compose
            && (matches("networks.*.labels") || MERGED.iter().any(|list| matches(&format!("services.*.{list}"))))
    }

    fn check_text(&mut self, schema: &'static Json, text: &str, node: &Node) {
        if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            let values: Vec<&str> = values.iter().filter_map(Json::as_str).collect();
            if !values.contains(&text) {
                let hint = advice::did_you_mean(text, &values);
                self.mistake(&node.at, &format!("found {:?}, expected {}{hint}", excerpt(text), either(&values)));
            }
        }
        let pattern = schema.get("pattern").and_then(Json::as_str).and_then(format::pattern);
        let format = schema.get("format").and_then(Json::as_str).and_then(format::format);
        for Format { accepts, expected } in pattern.into_iter().chain(format) {
            if !accepts(text) {
                self.mistake(&node.at, &format!("found {:?}, expected {expected}", excerpt(text)));
            }
        }
    }

    fn check_number(&mut self, schema: &'static Json, number: f64, node: &Node) {
        let border = |key: &str| schema.get(key).and_then(Json::as_f64);
        let (least, most) = (border("minimum"), border("maximum"));
        let expected = match (least, most) {
            (Some(least), Some(most)) if number < least || number > most => format!("{least} to {most}"),
            (Some(least), None) if number < least => format!("{least} or more"),
            (None, Some(most)) if number > most => format!("{most} or less"),
            _ => String::new(),
        };
        if !expected.is_empty() {
            self.mistake(&node.at, &format!("found {number}, expected {expected}"));
        }
        // A port is a number, too.
        let format = schema.get("format").and_then(Json::as_str).and_then(format::format);
        if let Some(format) = format.filter(|format| !(format.accepts)(&node.value.to_string())) {
            self.mistake(&node.at, &format!("found {}, expected {}", node.value, format.expected));
        }
    }
}

/// The beginning of a text.
fn excerpt(text: &str) -> String {
    let mut letters = text.chars();
    let mut short: String = letters.by_ref().take(EXCERPT_MAX).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    short
}

/// A text that is the same for equal values: 1 and 1.0 are, 1 and "1" are not.
fn canonical(node: &Node, text: &mut String) {
    match &node.value {
        Value::Text(value) => {
            let _ = write!(text, "{value:?}");
        }
        Value::List(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Map(entries) => {
            let mut sorted: Vec<&Entry> = entries.iter().collect();
            sorted.sort_by(|one, other| one.key.cmp(&other.key));
            text.push('{');
            for entry in sorted {
                let _ = write!(text, "{:?}:", entry.key);
                canonical(&entry.node, text);
                text.push(',');
            }
            text.push('}');
        }
        scalar => {
            let _ = write!(text, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests;
