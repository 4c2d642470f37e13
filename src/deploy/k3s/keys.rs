//! What `--with` and `--set` take: every key with its default and what it is for, out of the schema of [`Spec`].

use std::fmt;
use std::str::FromStr;

use schemars::generate::SchemaSettings;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::spec::Spec;
use crate::base::tree::nearest;

/// Something that is added to the plain rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// A certificate by cert-manager instead of the node's own authority.
    CertManager,
    /// Documents that a job keeps in sync.
    Documents,
    /// The token by the External Secrets Operator.
    ExternalSecrets,
    /// A GPU.
    Gpu,
    /// A name on the cluster's ingress.
    Ingress,
    /// A port on the cluster's nodes.
    LoadBalancer,
    /// Scraping by the Prometheus Operator.
    Monitoring,
}

impl Variant {
    /// All, by name.
    pub const ALL: [Self; 7] = [
        Self::CertManager,
        Self::Documents,
        Self::ExternalSecrets,
        Self::Gpu,
        Self::Ingress,
        Self::LoadBalancer,
        Self::Monitoring,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CertManager => "cert-manager",
            Self::Documents => "documents",
            Self::ExternalSecrets => "external-secrets",
            Self::Gpu => "gpu",
            Self::Ingress => "ingress",
            Self::LoadBalancer => "loadbalancer",
            Self::Monitoring => "monitoring",
        }
    }
}

impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Variant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = VariantError;

    fn from_str(text: &str) -> Result<Self, VariantError> {
        Self::ALL.into_iter().find(|variant| variant.name() == text).ok_or_else(|| {
            let nearest = nearest(text, Self::ALL.iter().map(|variant| variant.name())).map(str::to_owned);
            VariantError { found: text.to_owned(), nearest }
        })
    }
}

/// A text that names no variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is not a variant{}; expected any of {}", did_you_mean(nearest.as_deref()), names())]
pub struct VariantError {
    /// What was found.
    pub found: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

fn names() -> String {
    Variant::ALL.map(Variant::name).join(", ")
}

/// A setting of the rendering, as `--set` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What precedes the equals sign.
    pub name: String,
    /// Without this variant the key means nothing, and is refused.
    pub variant: Option<Variant>,
    /// What holds when it is not set; empty for nothing.
    pub default: String,
    /// What it is for.
    pub about: String,
    /// Where it is in a [`Spec`].
    pub(super) path: Vec<String>,
    /// Whether it takes several values, with commas between.
    pub(super) is_list: bool,
    /// Whether an empty text is a value, and not the default.
    pub(super) takes_empty: bool,
    /// The option that sets it, in the place of `--set`.
    pub(super) option: Option<String>,
}

/// Settings of Cairn itself begin with this.
pub const CONFIG: &str = "config.";

/// What the schema says of a key for us alone.
const OWN_KEYWORDS: [&str; 4] = ["x-key", "x-option", "x-default", "x-empty"];

/// Every key of `--set` but Cairn's own settings, which are `config.SECTION.KEY`: the fields of [`Spec`], in their order.
#[must_use]
pub fn keys() -> Vec<Key> {
    all_keys().into_iter().filter(|key| key.option.is_none()).collect()
}

/// The same with what has an option of its own.
pub(super) fn all_keys() -> Vec<Key> {
    let mut keys = Vec::new();
    collect(&raw_schema(), &mut Vec::new(), &mut keys);
    keys
}

/// The JSON Schema (2020-12) of a [`Spec`], which a file of settings has to fulfil.
#[must_use]
pub fn schema() -> Value {
    let mut schema = raw_schema();
    publish(&mut schema);
    schema["title"] = "Settings of cairn k3s render".into();
    schema
}

fn raw_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Spec>().to_value()
}

/// Takes out what is for us alone, and defaults that are nothing.
fn publish(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, _| !OWN_KEYWORDS.contains(&name.as_str()));
            let is_group = fields.contains_key("properties");
            if is_group || fields.get("default").is_some_and(Value::is_null) {
                fields.remove("default");
            }
            fields.values_mut().for_each(publish);
        }
        Value::Array(items) => items.iter_mut().for_each(publish),
        _ => {}
    }
}

/// Notes the keys below a group.
fn collect(schema: &Value, path: &mut Vec<String>, keys: &mut Vec<Key>) {
    let Some(fields) = schema["properties"].as_object() else { return };
    for (name, field) in fields {
        path.push(name.clone());
        if field["properties"].is_object() {
            collect(field, path, keys);
        } else if path[0] != CONFIG.trim_end_matches('.') {
            keys.push(key(field, path));
        }
        path.pop();
    }
}

fn key(field: &Value, path: &[String]) -> Key {
    let text = |keyword: &str| field[keyword].as_str().map(str::to_owned);
    let default = match &field["default"] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    };
    Key {
        name: text("x-key").unwrap_or_else(|| path.join(".")),
        variant: path[0].parse().ok(),
        default: text("x-default").unwrap_or(default),
        about: text("description").unwrap_or_default(),
        path: path.to_vec(),
        is_list: ["array", "object"].iter().any(|kind| is_of_type(field, kind)),
        takes_empty: field["x-empty"] == true,
        option: text("x-option"),
    }
}

/// Whether a schema takes values of a type.
fn is_of_type(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    }
}

/// ` (did you mean 'x'?)`, or nothing.
pub(super) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" (did you mean '{nearest}'?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_nonsense() {
        let keys = keys();
        let names = || keys.iter().map(|key| key.name.as_str());
        assert_eq!(nearest("storage.sise", names()), Some("storage.size"));
        assert_eq!(nearest("resources.mem", names()), Some("resources.memory"));
        assert_eq!(nearest("zzz", names()), None);
        let error = "certmanager".parse::<Variant>().expect_err("unknown");
        assert_eq!(error.nearest.as_deref(), Some("cert-manager"));
    }

    #[test]
    fn a_variant_is_a_group_that_need_not_be_there() {
        let schema = raw_schema();
        let optional = schema["properties"].as_object().expect("fields").iter();
        let optional = optional.filter(|(_, field)| field["properties"].is_object() && field["type"].is_array());
        let mut optional: Vec<&str> = optional.map(|(name, _)| name.as_str()).collect();
        optional.sort_unstable();
        assert_eq!(optional, Variant::ALL.map(Variant::name));
        for key in keys() {
            let is_known = key.variant.is_none_or(|variant| key.name.starts_with(&format!("{variant}.")));
            assert!(is_known, "{}", key.name);
            assert!(!key.about.is_empty(), "{} says nothing", key.name);
        }
    }

    #[test]
    fn what_is_for_us_alone_is_in_no_schema_that_is_published() {
        let text = schema().to_string();
        assert!(!text.contains("\"x-"), "{text}");
        assert!(text.contains("resources"), "{text}");
    }
}
