//! A file of settings for `--values`: YAML, or TOML by its ending, with the lines of what is in it.
//!
//! Invariants: a file is at most [`BYTES_MAX`] long, and what YAML repeats by aliases is bounded by its reader. A key that is empty (`null`) is
//! as one that is not there; a key that is there twice is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::keys::all_keys;
use super::settings::{Mistake, Problem, SettingsError};
use crate::base::tree::{Node, Origin, Value, read};

/// Largest file.
const BYTES_MAX: usize = 256 << 10;

/// A file of settings, as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct ValuesFile {
    /// As messages have it.
    name: Arc<str>,
    /// As the command that renders the same has it.
    argument: Arc<str>,
    tree: Node,
    /// Where lines are looked up in; empty where the tree has them.
    yaml: String,
}

impl ValuesFile {
    /// Reads the text of a file.
    ///
    /// * `path`: its name, for messages; `.toml` at its end makes it TOML.
    ///
    /// # Errors
    /// When it is not YAML or TOML, with the line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let name: Arc<str> = path.display().to_string().into();
        let refused = |location: String, message: String| SettingsError {
            problems: vec![Problem { location: Some(location), mistake: Mistake::Syntax { message } }],
        };
        if text.len() > BYTES_MAX {
            return Err(refused(
                name.to_string(),
                format!("the file has {} bytes, expected at most {BYTES_MAX}", text.len()),
            ));
        }
        if path.extension().is_some_and(|ending| ending == "toml") {
            let tree = Node::parse(text, Some(&name)).map_err(|problems| SettingsError {
                problems: problems
                    .into_iter()
                    .map(|problem| {
                        let location = format!("{name}:{}", problem.origin.trim_start_matches("line "));
                        Problem { location: Some(location), mistake: Mistake::Syntax { message: problem.message } }
                    })
                    .collect(),
            })?;
            return Ok(Self { argument: Arc::clone(&name), name, tree, yaml: String::new() });
        }
        // Its line is looked up when it is asked for.
        let origin = Origin::Line { file: Arc::clone(&name), line: 0 };
        let read = NodeSeed(&origin).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
            let line = error.location().map(|location| format!(":{}", location.line())).unwrap_or_default();
            refused(format!("{name}{line}"), format!("not a file of settings: {error}"))
        })?;
        let tree = match read {
            None => Node::table(origin),
            Some(tree @ Node { value: Value::Table(_), .. }) => tree,
            Some(_) => return Err(refused(name.to_string(), "found no table, expected KEY: VALUE".to_owned())),
        };
        Ok(Self { argument: Arc::clone(&name), name, tree, yaml: text.to_owned() })
    }

    /// One whose settings were stored, by its name. Its lines are not known.
    #[must_use]
    pub fn stored(name: &str, settings: &Map<String, Json>) -> Self {
        let name: Arc<str> = name.into();
        let origin = Origin::Named(Arc::clone(&name));
        let tree = NodeSeed(&origin).deserialize(&Json::Object(settings.clone())).ok().flatten();
        let tree = tree.unwrap_or_else(|| Node::table(origin));
        Self { argument: Arc::clone(&name), name, tree, yaml: String::new() }
    }

    /// What is in it, to be stored; nothing where it has what no setting takes, such as a date of TOML.
    #[must_use]
    pub fn settings(&self) -> Map<String, Json> {
        read(&self.tree, None).unwrap_or_default()
    }

    /// With another name in the command that renders the same.
    #[must_use]
    pub fn with_argument(mut self, argument: &str) -> Self {
        self.argument = argument.into();
        self
    }

    pub(super) fn argument(&self) -> &str {
        &self.argument
    }

    /// Whether it has a value for a key of `--set`, or for the group of a variant.
    #[must_use]
    pub fn sets(&self, key: &str) -> bool {
        let known = all_keys().into_iter().find(|known| known.name == key);
        let path = known.map_or_else(|| key.split('.').map(str::to_owned).collect(), |known| known.path);
        // A list is set as a whole, with all that `LIST.0.KEY` names.
        (1..=path.len()).any(|length| {
            let node = self.tree.at(&path[..length]);
            node.is_some_and(|node| length == path.len() || !matches!(node.value, Value::Table(_)))
        })
    }

    pub(super) fn tree(&self) -> &Node {
        &self.tree
    }

    /// Where a key is, as `FILE:LINE`; `None` where the file does not have it.
    ///
    /// * `key`: with dots between the names of tables.
    #[must_use]
    pub fn location(&self, key: &str) -> Option<String> {
        self.location_of(&key.split('.').map(str::to_owned).collect::<Vec<_>>())
    }

    pub(super) fn location_of(&self, path: &[String]) -> Option<String> {
        let name = &self.name;
        Some(match &self.tree.at(path)?.origin {
            Origin::Line { line: 0, .. } => {
                self.line_of(path).map_or_else(|| name.to_string(), |line| format!("{name}:{line}"))
            }
            origin => origin.to_string(),
        })
    }

    /// The line of what is at a path, from 1.
    fn line_of(&self, path: &[String]) -> Option<usize> {
        let found = StepSeed(path).deserialize(serde_yaml::Deserializer::from_str(&self.yaml));
        found.err().and_then(|error| error.location()).map(|location| location.line())
    }
}

/// Reads any value; `None` for null.
struct NodeSeed<'o>(&'o Origin);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Option<Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Node>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Option<Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.0)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.0)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.visit_i64(i64::try_from(value).map_err(|_| E::custom("the number is too large"))?)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.0)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.0)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(NodeSeed(self.0))? {
            list.extend(item);
        }
        Ok(Some(Node { value: Value::List(list), origin: self.0.clone() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let (mut table, mut seen) = (BTreeMap::new(), BTreeSet::new());
        while let Some(key) = pairs.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format!("the key '{key}' is set twice")));
            }
            if let Some(node) = pairs.next_value_seed(NodeSeed(self.0))? {
                table.insert(key, node);
            }
        }
        Ok(Some(Node { value: Value::Table(table), origin: self.0.clone() }))
    }
}

/// Follows a path and fails where it ends: the error has the line.
#[derive(Clone, Copy)]
struct StepSeed<'p>(&'p [String]);

/// What a [`StepSeed`] ends with.
const FOUND: &str = "found";

impl<'de> DeserializeSeed<'de> for StepSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StepSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FOUND)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let wanted = self.0.first().and_then(|step| step.parse::<usize>().ok());
        let mut at = 0;
        loop {
            let item = match wanted {
                Some(wanted) if wanted == at => items.next_element_seed(Self(&self.0[1..]))?,
                Some(_) => items.next_element::<IgnoredAny>()?.map(drop),
                None => return Err(de::Error::custom(FOUND)),
            };
            if item.is_none() {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        // A table is where its key is.
        let [step, rest @ ..] = self.0 else { return Err(de::Error::custom(FOUND)) };
        while let Some(is_step) = pairs.next_key_seed(KeySeed { step, is_last: rest.is_empty() })? {
            if is_step {
                pairs.next_value_seed(Self(rest))?;
            } else {
                pairs.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Compares a key; fails at the one that a path ends with.
struct KeySeed<'p> {
    step: &'p str,
    is_last: bool,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        match key == self.step {
            true if self.is_last => Err(E::custom(FOUND)),
            is_step => Ok(is_step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_file_says_what_the_file_said() {
        let text = "hosts: [a.example]\nconfig:\n  models: [{name: a}]\n  search: {limit: 3}\ndocuments:\n  git: {url: 'https://a.example/b'}\n";
        let file = ValuesFile::parse(Path::new("dir/site.yaml"), text).expect("YAML").with_argument("site.yaml");
        let stored = ValuesFile::stored("site.yaml", &file.settings());
        assert_eq!((stored.settings(), stored.argument()), (file.settings(), file.argument()));
        for set in ["hosts", "config.models.0.name", "config.search.limit", "documents", "documents.git"] {
            assert!(file.sets(set) && stored.sets(set), "{set}");
        }
        for unset in ["name", "config.search.languages", "documents.git.branch", "ingress", "documents.claim"] {
            assert!(!file.sets(unset) && !stored.sets(unset), "{unset}");
        }
    }

    #[test]
    fn a_line_is_that_of_the_key_or_the_item() {
        let text =
            "# sizes\nstorage:\n  size: 1GiB\n\nhosts:\n- a.example\n- b.example\nconfig:\n  search: {limit: 3}\n";
        let file = ValuesFile::parse(Path::new("values.yaml"), text).expect("YAML");
        let line = |path: &str| file.line_of(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        for (path, expected) in [
            ("storage", Some(2)),
            ("storage.size", Some(3)),
            ("hosts.1", Some(7)),
            ("config.search.limit", Some(9)),
            ("hosts.2", None),
            ("nothing", None),
        ] {
            assert_eq!(line(path), expected, "{path}");
        }
    }
}
