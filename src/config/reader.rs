//! From a tree of values to the settings of the parts, using serde's types, but with every problem instead of the first
//! one.
//!
//! serde stops at the first invalid value. The reader records the problem, replaces the value by its default (in a
//! record of a list, which has no defaults, removes it), and reads again until everything is read. So one run reports
//! all problems, in the order of the fields.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::problem::ConfigProblem;
use super::tree::{Node, Value};

/// The existing keys, by section: those of every struct that was read from it. `None` for a list of tables.
pub(super) type Keys = BTreeMap<String, Option<BTreeSet<String>>>;

/// Reads sections and lists from the merged settings.
pub(super) struct Reader<'a> {
    settings: &'a mut Node,
    defaults: &'a Node,
    problems: &'a mut Vec<ConfigProblem>,
    keys: Keys,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a mut Node, defaults: &'a Node, problems: &'a mut Vec<ConfigProblem>) -> Self {
        Self { settings, defaults, problems, keys: Keys::new() }
    }

    /// Reads a struct from a section. Several structs may share one.
    pub(super) fn section<T: DeserializeOwned>(&mut self, name: &str) -> T {
        let root = [name.to_owned()];
        let fields = RefCell::default();
        loop {
            let node = self.settings.at(&root).or_else(|| self.defaults.at(&root));
            let node = node.expect("the defaults have every section: a test reads them");
            let outcome = T::deserialize(ValueReader { node, shared: Some(&fields) });
            self.keys.entry(name.to_owned()).or_default().get_or_insert_default().append(&mut fields.borrow_mut());
            match outcome {
                Ok(settings) => return settings,
                Err(failure) => self.note(&root, failure),
            }
        }
    }

    /// Reads a top-level list of tables (`[[name]]`); empty if it does not exist. Records with a problem are left out.
    #[cfg_attr(not(test), expect(dead_code, reason = "for issuers, models, upstreams and limits, which come next"))]
    pub(super) fn list<T: DeserializeOwned>(&mut self, name: &str) -> Vec<T> {
        self.keys.entry(name.to_owned()).or_insert(None);
        let root = [name.to_owned()];
        loop {
            let Some(node) = self.settings.at(&root).filter(|node| node.value != Value::Refused) else {
                return Vec::new();
            };
            let records: Result<Vec<T>, Failure> = de::Deserialize::deserialize(ValueReader { node, shared: None });
            match records {
                Ok(records) => return records,
                Err(failure) => self.note(&root, failure),
            }
        }
    }

    /// The keys of everything that was read.
    pub(super) fn keys(self) -> Keys {
        self.keys
    }

    /// Records a problem, and removes its value.
    fn note(&mut self, root: &[String], failure: Failure) {
        let Failure { path, kind } = failure;
        let path: Vec<String> = root.iter().cloned().chain(path.into_iter().rev()).collect();
        // A text in a list is identified by its value, a record by its number.
        let is_item = path.last().is_some_and(|step| step.parse::<usize>().is_ok());
        let shown = match self.settings.at(&path).map(|node| &node.value) {
            Some(Value::Scalar(_)) if is_item => &path[..path.len() - 1],
            _ => &path[..],
        };
        let nearest = (0..=path.len()).rev().find_map(|length| self.settings.at(&path[..length]));
        let origin = nearest.map_or_else(|| "default".to_owned(), |node| node.origin.to_string());
        let found = self.settings.at(&path).map_or_else(|| "nothing".to_owned(), shown_value);
        let is_known = is_refused(self.settings, &path);
        let (message, is_missing) = match kind {
            FailureKind::Expected(expected) => (format!("found {found}, expected {expected}"), false),
            FailureKind::Missing => ("is missing".to_owned(), true),
            FailureKind::Unknown { known } => {
                (unknown(path.last().map_or("", String::as_str), known.iter().copied()), false)
            }
            FailureKind::Other(message) => (message, false),
        };
        if !is_known {
            self.problems.push(ConfigProblem { key: shown.join("."), origin, message });
        }
        self.put_aside(&path, is_missing);
    }

    /// Makes the next pass skip what is at `path`.
    fn put_aside(&mut self, path: &[String], is_missing: bool) {
        // Below a list there are no defaults: an invalid value is removed, and a record that lacks a field is removed
        // entirely.
        let in_list = (1..path.len())
            .find(|length| matches!(self.settings.at(&path[..*length]).map(|node| &node.value), Some(Value::List(_))));
        let place = match in_list {
            Some(_) if is_missing => &path[..path.len() - 1],
            Some(_) => path,
            None => &path[..path.len().min(2)],
        };
        let default = self.defaults.at(place).cloned();
        let Some(node) = self.settings.at_mut(place) else {
            // A key that no layer has, and that the defaults lack too.
            unreachable!("the defaults have every key: a test reads them");
        };
        node.value = match (in_list, default) {
            (None, Some(default)) => {
                assert!(default.value != node.value, "the defaults are valid: a test reads them");
                default.value
            }
            _ => Value::Refused,
        };
    }
}

/// Whether a problem at a path was already reported.
fn is_refused(settings: &Node, path: &[String]) -> bool {
    matches!(settings.at(path).map(|node| &node.value), Some(Value::Refused))
}

/// A value for a message: as TOML, and a table or a list of them by its name.
fn shown_value(node: &Node) -> String {
    match &node.value {
        Value::Scalar(value) => value.to_string(),
        Value::Table(_) => "a table".to_owned(),
        Value::List(_) => match node.to_toml().map(|value| value.to_string()) {
            Some(text) if text.len() <= 60 => text,
            _ => "a list".to_owned(),
        },
        Value::Refused => "nothing".to_owned(),
    }
}

/// The message for an unknown key, with the one that was probably meant.
pub(super) fn unknown<'k>(key: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(key, name), name));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    // Below this, names resemble each other by chance; clap uses the same limit.
    match best.filter(|(score, _)| *score > 0.7) {
        Some((_, name)) => format!("there is no such key; did you mean '{name}'?"),
        None => "there is no such key".to_owned(),
    }
}

/// Why a value is invalid.
#[derive(Debug)]
struct Failure {
    /// Its path below the value that was read, innermost step first.
    path: Vec<String>,
    kind: FailureKind,
}

#[derive(Debug)]
enum FailureKind {
    /// It is not this.
    Expected(String),
    /// A missing field of a record.
    Missing,
    /// A key that its record does not have.
    Unknown { known: &'static [&'static str] },
    /// Anything else, in words.
    Other(String),
}

impl Failure {
    fn new(kind: FailureKind) -> Self {
        Self { path: Vec::new(), kind }
    }

    fn below(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Failure {}

/// User-facing names of serde's types.
fn in_words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a boolean" => "true or false".to_owned(),
        "a string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        _ if text.starts_with("struct ") => "a table".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        _ => text,
    }
}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(FailureKind::Other(message.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(FailureKind::Expected(in_words(expected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(FailureKind::Expected(in_words(expected)))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(FailureKind::Expected(one_of(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(FailureKind::Missing).below(field)
    }
}

/// `auto, on or off`
fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// A value being deserialised.
#[derive(Clone, Copy)]
struct ValueReader<'a> {
    node: &'a Node,
    /// Collects the fields of a struct, for a section that several structs share: keys that this one does not know may
    /// belong to another. `None`: unknown keys are problems.
    shared: Option<&'a RefCell<BTreeSet<String>>>,
}

impl<'a> ValueReader<'a> {
    fn inner(node: &'a Node) -> Self {
        Self { node, shared: None }
    }
}

impl<'de> Deserializer<'de> for ValueReader<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Scalar(toml::Value::String(text)) => visitor.visit_str(text),
            Value::Scalar(toml::Value::Integer(number)) => visitor.visit_i64(*number),
            Value::Scalar(toml::Value::Float(number)) => visitor.visit_f64(*number),
            Value::Scalar(toml::Value::Boolean(flag)) => visitor.visit_bool(*flag),
            Value::Scalar(other) => Err(de::Error::invalid_type(Unexpected::Other(other.type_str()), &visitor)),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Table(table) => {
                let keys = table.keys().map(String::as_str).collect();
                visitor.visit_map(Fields { table, keys, at: 0 })
            }
            Value::Refused => Err(Failure::new(FailureKind::Missing)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if let Some(shared) = self.shared {
            shared.borrow_mut().extend(fields.iter().map(|field| (*field).to_owned()));
        }
        let Value::Table(table) = &self.node.value else {
            return Err(Failure::new(FailureKind::Expected("a table".to_owned())));
        };
        let is_refused = |key: &str| table.get(key).is_none_or(|node| node.value == Value::Refused);
        let strange = table.keys().find(|key| !fields.contains(&key.as_str()) && !is_refused(key));
        match strange {
            Some(key) if self.shared.is_none() => {
                Err(Failure::new(FailureKind::Unknown { known: fields }).below(key.clone()))
            }
            _ => {
                let keys = fields.iter().copied().filter(|field| !is_refused(field)).collect();
                visitor.visit_map(Fields { table, keys, at: 0 })
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Scalar(toml::Value::String(text)) => visitor.visit_enum(UnitVariant(text)),
            _ => Err(Failure::new(FailureKind::Expected(one_of(variants)))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// A variant without fields.
struct UnitVariant<'a>(&'a str);

impl<'de> EnumAccess<'de> for UnitVariant<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let word: StringDeserializer<Failure> = self.0.to_owned().into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for UnitVariant<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Failure> {
        Err(Failure::new(FailureKind::Expected("a table".to_owned())))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(Failure::new(FailureKind::Expected("a list".to_owned())))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Failure> {
        Err(Failure::new(FailureKind::Expected("a table".to_owned())))
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        match self.items.find(|(_, node)| node.value != Value::Refused) {
            None => Ok(None),
            Some((index, node)) => match seed.deserialize(ValueReader::inner(node)) {
                Ok(item) => Ok(Some(item)),
                Err(failure) => Err(failure.below(index.to_string())),
            },
        }
    }
}

struct Fields<'a> {
    table: &'a BTreeMap<String, Node>,
    keys: Vec<&'a str>,
    at: usize,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        match self.keys.get(self.at) {
            None => Ok(None),
            Some(key) => {
                let key: StringDeserializer<Failure> = (*key).to_owned().into_deserializer();
                seed.deserialize(key).map(Some)
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let key = self.keys.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        match self.table.get(key) {
            Some(node) => seed.deserialize(ValueReader::inner(node)).map_err(|failure| failure.below(key)),
            None => Err(Failure::new(FailureKind::Missing).below(key)),
        }
    }
}
