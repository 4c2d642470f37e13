//! From a tree of values to serde's types, with where in the tree a value was found that could not be taken.
//!
//! serde stops at the first such value. Who reads notes it, puts another in its place or marks it as refused, and reads again, until
//! all the rest is read: so one run names every problem, in the order of the fields.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::{Node, Value};

/// Reads a value. What was refused is passed over.
///
/// * `fields`: where the fields of a struct are noted that shares its table with other structs, so that keys which it does not
///   know are not its business. `None`: they are problems.
///
/// # Errors
/// The first value that could not be taken.
pub(crate) fn read<T: DeserializeOwned>(node: &Node, fields: Option<&RefCell<BTreeSet<String>>>) -> Result<T, Failure> {
    T::deserialize(At { node, shared: fields })
}

/// Why a value was not taken.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Where it is below what was read, innermost step first.
    pub(crate) path: Vec<String>,
    pub(crate) what: FailureKind,
}

/// What is wrong with a value.
#[derive(Debug)]
pub(crate) enum FailureKind {
    /// It is not this.
    Expected(String),
    /// A field of a record.
    Missing,
    /// A key that its record does not have.
    Unknown { known: &'static [&'static str] },
    /// Anything else, in words.
    Said(String),
}

impl Failure {
    fn new(what: FailureKind) -> Self {
        Self { path: Vec::new(), what }
    }

    fn below(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Failure {}

/// What serde calls a type, as people do.
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
        Self::new(FailureKind::Said(message.to_string()))
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

/// A value that is read.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    /// Where the fields of a struct are noted, for a section that other structs share: keys that it does not know are not its
    /// business. `None`: they are problems.
    shared: Option<&'a RefCell<BTreeSet<String>>>,
}

impl<'a> At<'a> {
    fn inner(node: &'a Node) -> Self {
        Self { node, shared: None }
    }
}

impl<'de> Deserializer<'de> for At<'_> {
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
                let keys = table.iter().filter(|(_, node)| node.value != Value::Refused);
                let keys = keys.map(|(key, _)| key.as_str()).collect();
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
            Value::Scalar(toml::Value::String(text)) => visitor.visit_enum(Word(text)),
            _ => Err(Failure::new(FailureKind::Expected(one_of(variants)))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// A variant without fields.
struct Word<'a>(&'a str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let word: StringDeserializer<Failure> = self.0.to_owned().into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
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
            Some((index, node)) => match seed.deserialize(At::inner(node)) {
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
            Some(node) => seed.deserialize(At::inner(node)).map_err(|failure| failure.below(key)),
            None => Err(Failure::new(FailureKind::Missing).below(key)),
        }
    }
}
