//! The types of single values: each holds only what a cluster would take, is read from a text or what a file has in its place, and has a
//! schema.
//!
//! A value that cannot be taken is an `invalid_value` or `invalid_type` of serde's that says what was expected; who reads adds what was
//! found, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::forms::{
    inside, is_branch, is_cidr, is_collection, is_git_url, is_host, is_ingress_path, is_interval, is_key,
    is_label_value, is_list_of_architectures, is_object_name, is_pinned_image, is_resource, is_schedule, is_variable,
};
use crate::base::ByteSize;
use crate::deploy::k3s::names::is_node_name;
use crate::deploy::k3s::sizes::{Cpu, NodeSize};

/// A text that is not a value of a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found '{found}', expected {expected}")]
pub struct ValueError {
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl ValueError {
    fn new(found: &str, expected: impl fmt::Display) -> Self {
        Self { found: found.to_owned(), expected: expected.to_string() }
    }
}

/// Reads one value.
struct ValueVisitor<'e> {
    expected: &'e dyn fmt::Display,
    /// Whether a number or a truth value is taken as the text that it is.
    takes_numbers: bool,
}

impl ValueVisitor<'_> {
    fn number<E: Error>(&self, text: String, unexpected: Unexpected<'_>) -> Result<String, E> {
        if self.takes_numbers { Ok(text) } else { Err(E::invalid_type(unexpected, self)) }
    }
}

impl Visitor<'_> for ValueVisitor<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        self.number(value.to_string(), Unexpected::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        self.number(value.to_string(), Unexpected::Unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        self.number(value.to_string(), Unexpected::Float(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        self.number(value.to_string(), Unexpected::Bool(value))
    }
}

/// Reads a value by its text.
fn parsed<'de, D: Deserializer<'de>, T: FromStr>(
    deserializer: D,
    expected: &dyn fmt::Display,
    takes_numbers: bool,
) -> Result<T, D::Error> {
    let text = deserializer.deserialize_any(ValueVisitor { expected, takes_numbers })?;
    let unexpected = Unexpected::Str(&text);
    text.parse().map_err(|_| D::Error::invalid_value(unexpected, &expected.to_string().as_str()))
}

/// The schema of a type that is written as a text or a number.
macro_rules! schema {
    ([$($generics:tt)*] $name:ty, $schema:tt) => {
        impl<$($generics)*> JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// A type of values that is made from a text: what it holds, its schema, what is expected, and how it is read.
macro_rules! values {
    ($($(#[$meta:meta])* $name:ident($inner:ty) $schema:tt $expected:literal $read:expr;)+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                let read: fn(&str) -> Option<$inner> = $read;
                read(text).map(Self).ok_or_else(|| ValueError::new(text, $expected))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl Deref for $name {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // What holds a text is not written as a number.
                parsed(deserializer, &$expected, stringify!($inner) != "String")
            }
        }

        schema!([] $name, $schema);
    )+};
}

/// A text that has a form.
fn when(text: &str, has_form: fn(&str) -> bool) -> Option<String> {
    has_form(text).then(|| text.to_owned())
}

values! {
    /// The name of a node.
    InstanceName(String) {
        "type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 35,
        "not": {"pattern": "(^|-)(authority|default|documents|headless|loadbalancer|namespace|self-signed|tls|token)$"},
    }
        "a name such as cairn-2: at most 35 lower-case letters, digits and '-', the first a letter, and not ending in authority, \
         default, documents, headless, loadbalancer, namespace, self-signed, tls or token, as names of objects do"
        |text| when(text, is_node_name);
    /// The name of an object of the cluster.
    ObjectName(String) {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "maxLength": 253}
        "a name of lower-case letters, digits, '-' and '.'" |text| when(text, is_object_name);
    /// The name of a Secret.
    SecretName(String) {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "maxLength": 253}
        "names of Secrets" |text| when(text, is_object_name);
    /// A name or an address.
    Host(String) {"type": "string", "maxLength": 253}
        "names such as cairn.example.com" |text| when(text, is_host);
    /// An address and how many of its bits count.
    Cidr(String) {"type": "string", "examples": ["10.0.0.0/8"]}
        "addresses such as 10.0.0.0/8" |text| when(text, is_cidr);
    /// An address that means all of a machine's.
    UnspecifiedAddress(IpAddr) {"type": "string", "enum": ["0.0.0.0", "::"]}
        "0.0.0.0 or ::" |text| text.parse().ok().filter(IpAddr::is_unspecified);
    /// The memory of a node.
    NodeMemory(ByteSize) {"type": ["string", "integer"], "examples": ["4GiB"]}
        "the node's memory such as 4GiB" |text| text.parse().ok().filter(|memory: &ByteSize| memory.0 >= 256 << 20);
    /// Kinds of processors, or any.
    Arch(String) {"type": "string", "examples": ["amd64", "arm64", "amd64,arm64", "any"]}
        "amd64, arm64, both with a comma, or any" |text| when(text, is_list_of_architectures);
    /// The address of a git repository.
    GitUrl(String) {"type": "string", "pattern": "^https?://"}
        "https:// and a repository" |text| when(text, is_git_url);
    /// The name of a branch.
    Branch(String) {"type": "string"}
        "the name of a branch" |text| when(text, is_branch);
    /// An image that is the same tomorrow.
    GitImage(String) {"type": "string"}
        "an image by its digest (NAME@sha256:HEX), or by a tag that does not move (NAME:TAG, not latest)"
        |text| when(text, is_pinned_image);
    /// A folder within another one, without slashes around it.
    Folder(String) {"type": "string"}
        "a folder such as docs/manual" inside;
    /// The name of a collection.
    Collection(String) {"type": "string", "pattern": "^[a-z0-9][-a-z0-9_.]*$", "maxLength": 63}
        "at most 63 lower-case letters, digits, '-', '_' and '.', the first a letter or a digit" |text| when(text, is_collection);
    /// A schedule of cron.
    Schedule(String) {"type": "string", "examples": ["*/15 * * * *", "@daily"]}
        "minute, hour, day of the month, month and day of the week (0 to 6) such as */15 * * * *"
        |text| when(text, is_schedule);
    /// A part of an entry of a secret store; empty for the whole entry.
    Property(String) {"type": "string", "x-empty": true}
        "a property" |text| Some(text.to_owned());
    /// How many GPUs.
    GpuCount(u8) {"type": ["integer", "string"], "minimum": 1, "maximum": 16, "pattern": "^([1-9]|1[0-6])$"}
        "a number from 1 to 16" |text| text.parse().ok().filter(|count| (1..=16).contains(count));
    /// What a device plugin calls its devices.
    Resource(String) {"type": "string", "examples": ["nvidia.com/gpu"]}
        "a name with its domain such as nvidia.com/gpu" |text| when(text, is_resource);
    /// The number of a group.
    Group(u32) {"type": ["integer", "string"], "minimum": 1, "maximum": 4_294_967_295_u32, "pattern": "^[1-9][0-9]{0,9}$"}
        "a number above 0, as `stat -c %g /dev/dri/renderD128` prints it"
        |text| text.parse().ok().filter(|group| *group > 0);
    /// Whether or not.
    Flag(bool) {"type": ["boolean", "string"], "enum": [true, false, "true", "false"]}
        "true or false" |text| text.parse().ok();
    /// What of a node is served: a path, and what is below it.
    IngressPath(String) {"type": "string", "pattern": "^/[-A-Za-z0-9/_.]*$"}
        "a path such as /mcp" |text| when(text, is_ingress_path);
    /// A port on the nodes of a cluster.
    NodePort(u16) {
        "type": ["integer", "string"], "minimum": 1024, "maximum": 65_535, "not": {"enum": [6443, "6443"]},
        "pattern": "^(102[4-9]|10[3-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$",
    }
        "a port from 1024 to 65535 other than 6443" |text| text.parse().ok().filter(|port| *port >= 1024 && *port != 6443);
    /// A time between two scrapes.
    Interval(String) {"type": "string", "pattern": "^0*[1-9][0-9]{0,8}[sm]$"}
        "seconds or minutes such as 60s" |text| when(text, is_interval);
}

/// A default.
pub(super) fn constant<T: FromStr<Err = ValueError>>(text: &str) -> T {
    text.parse().expect("a default has the form of its type: a test makes them all")
}

impl Default for UnspecifiedAddress {
    fn default() -> Self {
        Self(Ipv4Addr::UNSPECIFIED.into())
    }
}

impl Default for Property {
    fn default() -> Self {
        constant("token")
    }
}

/// A size of at least this many MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AtLeast<const MIB: u64>(ByteSize);

impl<const MIB: u64> AtLeast<MIB> {
    pub(super) fn mib(mib: u64) -> Self {
        Self(ByteSize::mib(mib.max(MIB)))
    }

    /// The size.
    #[must_use]
    pub fn get(self) -> ByteSize {
        self.0
    }

    fn expected() -> String {
        format!("a size of at least {}", ByteSize::mib(MIB))
    }
}

impl<const MIB: u64> FromStr for AtLeast<MIB> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let size = text.parse().ok().filter(|size| *size >= ByteSize::mib(MIB));
        size.map(Self).ok_or_else(|| ValueError::new(text, Self::expected()))
    }
}

impl<'de, const MIB: u64> Deserialize<'de> for AtLeast<MIB> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, &Self::expected(), true)
    }
}

schema!([const MIB: u64] AtLeast<MIB>, {"type": ["string", "integer"], "examples": ["16GiB"]});
schema!([] Cpu, {"type": ["string", "number"], "examples": ["500m", 2]});
schema!([] NodeSize, {"type": "string", "examples": ["pi", "small", "medium", "large", "4GiB"]});
schema!([] Toleration, {"type": "string", "examples": ["edge=true:NoSchedule", "*"]});
schema!([] Labels, {
    "type": ["object", "array"], "additionalProperties": {"type": ["string", "number", "boolean"]},
    "items": {"type": "string", "pattern": "="},
});
schema!([] Annotations, {
    "type": ["object", "array"], "additionalProperties": {"type": ["string", "number", "boolean"]},
    "items": {"type": "string", "pattern": "="},
});
schema!([] Environment, {
    "type": ["object", "array"], "additionalProperties": {"type": ["string", "number", "boolean"]},
    "items": {"type": "string", "pattern": "="},
});
schema!([] Configuration, {"type": "object", "additionalProperties": {"type": ["object", "array"]}});

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, &"processor time such as 2 or 500m", true)
    }
}

impl Serialize for NodeSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, &"pi, small, medium, large or the node's memory such as 4GiB", false)
    }
}

/// A taint that the pod tolerates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// `None`: every one.
    pub key: Option<String>,
    /// `None`: whatever it is.
    pub value: Option<String>,
    /// `None`: all effects.
    pub effect: Option<String>,
}

impl Toleration {
    const EXPECTED: &str = "KEY, KEY=VALUE or KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute; or *";
}

impl FromStr for Toleration {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if text == "*" {
            return Ok(Self { key: None, value: None, effect: None });
        }
        let (taint, effect) = text.split_once(':').map_or((text, None), |(taint, effect)| (taint, Some(effect)));
        let (key, value) = taint.split_once('=').map_or((taint, None), |(key, value)| (key, Some(value)));
        let has_form =
            is_key(key) && value.is_none_or(is_label_value) && effect.is_none_or(|effect| EFFECTS.contains(&effect));
        let own = str::to_owned;
        has_form
            .then(|| Self { key: Some(own(key)), value: value.map(own), effect: effect.map(own) })
            .ok_or_else(|| ValueError::new(text, Self::EXPECTED))
    }
}

impl fmt::Display for Toleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key.as_deref().unwrap_or("*"))?;
        self.value.iter().try_for_each(|value| write!(f, "={value}"))?;
        self.effect.iter().try_for_each(|effect| write!(f, ":{effect}"))
    }
}

impl Serialize for Toleration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Toleration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, &Self::EXPECTED, false)
    }
}

/// What pairs of a name and a value have to be.
#[derive(Clone, Copy)]
struct PairForm {
    expected: &'static str,
    is_pair: fn(&str, &str) -> bool,
}

/// Reads pairs: a table, or a list of texts `NAME=VALUE`.
impl<'de> Visitor<'de> for PairForm {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((name, value)) = items.next_element_seed(PairSeed(self))? {
            pairs.insert(name, value);
        }
        Ok(pairs)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Self::Value, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some(name) = table.next_key::<String>()? {
            let value = table.next_value_seed(ValueSeed { form: self, name: &name })?;
            pairs.insert(name, value);
        }
        Ok(pairs)
    }
}

/// Reads `NAME=VALUE`.
struct PairSeed(PairForm);

impl<'de> DeserializeSeed<'de> for PairSeed {
    type Value = (String, String);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let PairForm { expected, is_pair } = self.0;
        let text = deserializer.deserialize_any(ValueVisitor { expected: &expected, takes_numbers: false })?;
        let pair = text.split_once('=').filter(|(name, value)| is_pair(name, value));
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

/// Reads the value of a name.
struct ValueSeed<'n> {
    form: PairForm,
    name: &'n str,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let PairForm { expected, is_pair } = self.form;
        let text = deserializer.deserialize_any(ValueVisitor { expected: &expected, takes_numbers: true })?;
        if is_pair(self.name, &text) {
            return Ok(text);
        }
        Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

/// A type of pairs.
macro_rules! pairs {
    ($($(#[$meta:meta])* $name:ident $expected:literal $is_pair:expr;)+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
        #[serde(transparent)]
        pub struct $name(BTreeMap<String, String>);

        impl $name {
            /// Takes pairs.
            ///
            /// # Errors
            /// The first pair that does not have the form.
            pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, ValueError> {
                let is_pair: fn(&str, &str) -> bool = $is_pair;
                match pairs.iter().find(|(name, value)| !is_pair(name, value)) {
                    Some((name, value)) => Err(ValueError::new(&format!("{name}={value}"), $expected)),
                    None => Ok(Self(pairs)),
                }
            }
        }

        impl Deref for $name {
            type Target = BTreeMap<String, String>;

            fn deref(&self) -> &BTreeMap<String, String> {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(PairForm { expected: $expected, is_pair: $is_pair }).map(Self)
            }
        }
    )+};
}

pairs! {
    /// Labels.
    Labels "labels such as disk=ssd" |key, value| is_key(key) && is_label_value(value);
    /// Annotations.
    Annotations "annotations such as example.com/team=ops" |key, _| is_key(key);
    /// Variables of the container in addition to those that set up Cairn.
    Environment "NAME=VALUE, of names that are not Cairn's: those are set by config.SECTION.KEY"
        |name, _| is_variable(name) && !name.starts_with("CAIRN_");
}

/// Settings of Cairn itself, as its file has them: sections with keys, and lists of tables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Configuration(pub serde_json::Map<String, serde_json::Value>);
