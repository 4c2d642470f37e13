//! A file of settings for `--values`: YAML, or TOML by its ending, with the lines of what is in it.
//!
//! Invariants: a file is at most [`BYTES_MAX`] long, nests at most [`DEPTH_MAX`] deep, and has at most [`VALUES_MAX`] values, those that
//! aliases repeat among them: reading one takes bounded time and memory. A key that is empty (`null`) is
//! as one that is not there; a key that is there twice is refused.

use std::cell::Cell;
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
/// Deepest nesting of what is in brackets. The reader of YAML takes time by its square.
const DEPTH_MAX: usize = 64;
/// Most values: a hundred times what there are keys.
const VALUES_MAX: usize = 20_000;

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
        if let Some(line) = too_deep(text) {
            let message = format!("found brackets nested deeper than {DEPTH_MAX}, expected KEY: VALUE");
            return Err(refused(format!("{name}:{line}"), message));
        }
        // Its line is looked up when it is asked for.
        let origin = Origin::Line { file: Arc::clone(&name), line: 0 };
        let read = NodeSeed::new(&origin, &Cell::new(VALUES_MAX))
            .deserialize(serde_yaml::Deserializer::from_str(text))
            .map_err(|error| {
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
        let tree =
            NodeSeed::new(&origin, &Cell::new(VALUES_MAX)).deserialize(&Json::Object(settings.clone())).ok().flatten();
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

/// The line, from 1, in which brackets nest too deep for a file of settings. Those in quotes and comments do not count.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut line, mut quote, mut is_comment, mut before) = (0_usize, 1, None, false, '\n');
    for letter in text.chars() {
        let begins_word = before.is_whitespace() || "[{,:-".contains(before);
        match (letter, quote) {
            ('\n', _) => {
                line += 1;
                is_comment = false;
            }
            _ if is_comment => {}
            (_, Some(end)) => quote = (letter != end || (end == '"' && before == '\\')).then_some(end),
            ('"' | '\'', None) if begins_word => quote = Some(letter),
            ('#', None) if before.is_whitespace() => is_comment = true,
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Some(line);
        }
        before = letter;
    }
    None
}

/// Reads any value; `None` for null.
#[derive(Clone, Copy)]
struct NodeSeed<'o> {
    origin: &'o Origin,
    /// How many more values may come.
    left: &'o Cell<usize>,
}

impl<'o> NodeSeed<'o> {
    fn new(origin: &'o Origin, left: &'o Cell<usize>) -> Self {
        Self { origin, left }
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Option<Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Node>, D::Error> {
        let left = self.left.get().checked_sub(1);
        let left =
            left.ok_or_else(|| de::Error::custom(format!("it has more than {VALUES_MAX} values, with repeated ones")))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Option<Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.origin)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.origin)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.visit_i64(i64::try_from(value).map_err(|_| E::custom("the number is too large"))?)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.origin)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Node::of(value.into(), self.origin)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            // One that is empty is passed over, and the next one is where it is in the file.
            list.push(item.unwrap_or_else(|| Node { value: Value::Refused, origin: self.origin.clone() }));
        }
        Ok(Some(Node { value: Value::List(list), origin: self.origin.clone() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let (mut table, mut seen) = (BTreeMap::new(), BTreeSet::new());
        while let Some(key) = pairs.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format!("the key '{key}' is set twice")));
            }
            if let Some(node) = pairs.next_value_seed(self)? {
                table.insert(key, node);
            }
        }
        Ok(Some(Node { value: Value::Table(table), origin: self.origin.clone() }))
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
        let text = "# sizes\nstorage:\n  size: 1GiB\n\nhosts:\n- a.example\n- b.example\nconfig:\n  search: {limit: 3}\ntolerations:\n- a\n-\n- b\n";
        let file = ValuesFile::parse(Path::new("values.yaml"), text).expect("YAML");
        let line = |path: &str| file.line_of(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        for (path, expected) in [
            ("storage", Some(2)),
            ("storage.size", Some(3)),
            ("hosts.1", Some(7)),
            ("config.search.limit", Some(9)),
            ("hosts.2", None),
            ("tolerations.2", Some(13)),
            ("nothing", None),
        ] {
            assert_eq!(line(path), expected, "{path}");
        }
    }

    #[test]
    fn brackets_count_where_yaml_counts_them() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert_eq!(too_deep(&format!("a: 1\nb: {deep}")), Some(2));
        assert_eq!(too_deep(&format!("a: {}", "[ # ]\n".repeat(DEPTH_MAX + 1))), Some(DEPTH_MAX + 1));
        assert_eq!(too_deep(&"a: [\"]\", ']',".repeat(DEPTH_MAX + 1)), Some(1));
        for good in [
            format!("a: '{deep}'\nb: \"\\\"{deep}\"\n# {deep}\n"),
            format!("a: {}", "[[]], ".repeat(DEPTH_MAX * 2)),
            format!("a: it's {{}}\nb: {}", "[x]".repeat(DEPTH_MAX * 2)),
        ] {
            assert_eq!(too_deep(&good), None, "{good}");
        }
    }

    #[test]
    fn a_file_takes_bounded_time_and_memory() {
        let items = vec!["x"; 20_000].join(",");
        let repeated = vec!["*a"; 10_000].join(",");
        let texts = [
            (format!("hosts: &a [{items}]\nb: [{repeated}]\n"), "more than 20000 values"),
            (format!("a: {}", "[".repeat(200_000)), "nested deeper than 64"),
            (format!("a: {}", "{b: ".repeat(50_000)), "nested deeper than 64"),
            (format!("a:\n  {}", "- ".repeat(100_000)), "not a file of settings"),
        ];
        for (text, expected) in texts {
            let error = ValuesFile::parse(Path::new("a.yaml"), &text).expect_err("it is not bounded").to_string();
            assert!(error.contains(expected), "{expected} in {error}");
        }
    }
}
