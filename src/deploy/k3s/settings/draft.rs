//! From options and a file to a [`Spec`], with every problem noted on the way.
//!
//! All of them are layers of one tree: the file, over it options, over it `--set`. The tree is read into the spec; what cannot be taken is
//! noted, refused, and the rest is read again.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::super::configuration::{toml_of, toml_value};
use super::super::keys::{CONFIG, Key, all_keys};
use super::super::spec::{Configuration, Spec, is_misread};
use super::super::values_file::ValuesFile;
use super::{Assignment, Mistake, Options, PROBLEMS_MAX, Problem};
use crate::base::tree::{Failure, FailureKind, Node, Origin, Value, nearest, read};

/// Settings of Cairn's that are in more places than its configuration, and what to set instead.
const DECIDED: &[(&str, &str)] = &[
    ("node.data_dir", "the volume is mounted at /var/lib/cairn"),
    ("server.listen", "set `address`; ports are those of the services"),
    ("admin.listen", "set `address`; ports are those of the services"),
    ("server.allowed_hosts", "set `hosts`"),
    ("server.tls_names", "set `hosts`"),
    ("server.pod", "it is the pod; set `hosts` for other names"),
    ("log.format", "the container's output is one log, of lines of JSON"),
    ("server.tls_certificate_file", "use `--with cert-manager`"),
    ("server.tls_key_file", "use `--with cert-manager`"),
    (
        "server.token_file",
        "put the token into the Secret `NAME-token` under the key `token`, NAME being the setting `name`",
    ),
    ("snapshot.s3_access_key_file", "set `backup.secret`"),
];

/// What was asked for, while it is read.
pub(super) struct Draft {
    tree: Node,
    file: Option<ValuesFile>,
    keys: Vec<Key>,
    /// Cairn's own settings of `--set`: key to value as TOML.
    own: BTreeMap<String, String>,
    pub(super) problems: Vec<Problem>,
}

impl Default for Draft {
    fn default() -> Self {
        let tree = Node::table(Origin::Default);
        Self { tree, file: None, keys: all_keys(), own: BTreeMap::new(), problems: Vec::new() }
    }
}

impl Draft {
    /// Lays the file, the options and `--set` over one another.
    pub(super) fn of(options: &Options) -> Self {
        let mut draft = Self::default();
        if let Some(file) = &options.values {
            draft.tree = file.tree().clone();
            draft.file = Some(file.clone());
        }
        for variant in &options.with {
            if draft.tree.at(&[variant.name().to_owned()]).is_none() {
                draft.set(&[variant.name()], Node::table(Origin::Named("--with".into())));
            }
        }
        let named = [
            ("node.size", "--node-size", options.size.map(|size| size.name().to_owned())),
            ("image.name", "--image", options.image.clone()),
            ("image.digest", "--image-digest", options.image_digest.clone()),
        ];
        for (key, option, text) in named {
            let steps: Vec<&str> = key.split('.').collect();
            text.into_iter().for_each(|text| draft.set(&steps, Node::of(text.into(), &Origin::Named(option.into()))));
        }
        options.set.iter().for_each(|assignment| draft.assign(assignment));
        draft
    }

    fn set(&mut self, path: &[&str], value: Node) {
        if let Err(message) = self.tree.set(path, value) {
            self.refuse(&path.join("."), "a value", &message);
        }
    }

    /// Lays one `KEY=VALUE` over the rest.
    fn assign(&mut self, Assignment { key, value }: &Assignment) {
        if value.chars().any(char::is_control) {
            self.note(key, None, value, ONE_LINE);
            return;
        }
        if let Some(own) = key.strip_prefix(CONFIG) {
            if self.may_configure(own, value, &[]) {
                self.own.insert(own.to_owned(), toml_value(value));
            }
            return;
        }
        let known = self.keys.iter().find(|known| known.name == *key && known.option.is_none());
        let Some(known) = known.cloned() else {
            let names = self.keys.iter().filter(|key| key.option.is_none()).map(|key| key.name.as_str());
            let nearest = nearest(key, names).map(str::to_owned);
            self.problem(None, Mistake::UnknownKey { key: key.clone(), nearest });
            return;
        };
        let is_reset = value.is_empty() && !known.takes_empty;
        if let Some(variant) = known.variant
            && !is_reset
            && self.tree.at(&known.path[..1]).is_none()
        {
            self.problem(None, Mistake::WithoutVariant { key: known.name, variant });
            return;
        }
        let origin = Origin::Named("--set".into());
        let path: Vec<&str> = known.path.iter().map(String::as_str).collect();
        if is_reset {
            // The default again, whatever a file says.
            self.tree.remove(&path);
        } else if is_misread(value) {
            self.note(key, None, value, OTHER_WORD);
        } else if known.is_list {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items = items.map(|item| Node::of(item.into(), &origin)).collect();
            self.set(&path, Node { value: Value::List(items), origin });
        } else {
            self.set(&path, Node::of(value.as_str().into(), &origin));
        }
    }

    /// Whether `config.KEY` may be set. The form only: whether there is such a setting is known to those who may read Cairn's
    /// configuration.
    ///
    /// * `path`: where it is in the tree; empty for `--set`.
    fn may_configure(&mut self, key: &str, value: &str, path: &[String]) -> bool {
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let is_index = |step: &str| step.parse::<u16>().is_ok();
        let steps: Vec<&str> = key.split('.').collect();
        let has_form = match &steps[..] {
            // A whole list of tables, and a key of one of them; the same in a section.
            [list] => is_word(list) && value.starts_with('['),
            [section, name] => is_word(section) && is_word(name),
            [list, index, name] => is_word(list) && is_index(index) && is_word(name),
            [section, list, index, name] => is_word(section) && is_word(list) && is_index(index) && is_word(name),
            _ => false,
        };
        if !has_form {
            self.note(
                &format!("{CONFIG}{key}"),
                self.location(path),
                value,
                "a setting such as config.search.limit=10",
            );
        } else if let Some((_, instead)) = DECIDED.iter().find(|(decided, _)| *decided == key) {
            self.problem(self.location(path), Mistake::Decided { key: key.to_owned(), instead });
        } else {
            return true;
        }
        false
    }

    /// Reads the tree. Where something is wrong the default is in its place, since the problem is reported instead.
    pub(super) fn spec(&mut self) -> Spec {
        for path in texts_in(&self.tree, &[]) {
            let Some(Node { value: Value::Scalar(text), .. }) = self.tree.at(&path) else { continue };
            let text = text.as_str().unwrap_or_default().to_owned();
            let is_own = path.first().is_some_and(|group| group == CONFIG.trim_end_matches('.'));
            if text.chars().any(char::is_control) {
                self.refuse_at(&path, &text, ONE_LINE);
            } else if !is_own && is_misread(&text) {
                self.refuse_at(&path, &text, OTHER_WORD);
            } else if text.is_empty() && !is_own && !self.takes_empty(&path) {
                // As with `--set`: the default.
                self.tree.remove(&path.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
        loop {
            match read(&self.tree, None) {
                Ok(spec) => return spec,
                Err(failure) => {
                    if !self.note_failure(failure) || self.is_full() {
                        return Spec::default();
                    }
                }
            }
        }
    }

    /// Cairn's own settings: those of the spec, and over them those of `--set`.
    pub(super) fn configuration(&mut self, configuration: &Configuration) -> BTreeMap<String, String> {
        let mut own = BTreeMap::new();
        for (key, value) in flat(configuration) {
            let path: Vec<String> = CONFIG.split_terminator('.').chain(key.split('.')).map(str::to_owned).collect();
            if self.may_configure(&key, &value, &path) {
                own.insert(key, value);
            }
        }
        own.extend(std::mem::take(&mut self.own));
        own
    }

    fn takes_empty(&self, path: &[String]) -> bool {
        self.keys.iter().any(|key| key.takes_empty && key.path == path)
    }

    /// Notes why a value was not taken, and takes it out of the way. `false` where there is nothing to take away.
    fn note_failure(&mut self, failure: Failure) -> bool {
        let path: Vec<String> = failure.path.into_iter().rev().collect();
        let node = self.tree.at(&path);
        match failure.what {
            FailureKind::Expected(expected) | FailureKind::Said(expected) => {
                let found = node.map_or_else(String::new, describe);
                self.refuse_at(&path, &found, &expected)
            }
            FailureKind::Unknown { .. } => {
                let key = path.join(".");
                let names: Vec<String> = self.keys.iter().map(|key| key.path.join(".")).collect();
                let nearest = nearest(&key, names.iter().map(String::as_str)).map(str::to_owned);
                self.problem(self.location(&path), Mistake::UnknownKey { key, nearest });
                self.put_aside(&path)
            }
            FailureKind::Missing => {
                // One that was refused was reported then.
                if node.is_none() {
                    self.note_missing(&path);
                }
                // What lacks something goes as a whole: all else of it was read by then.
                self.put_aside(&path[..path.len().saturating_sub(1)])
            }
        }
    }

    fn note_missing(&mut self, path: &[String]) {
        let Some(key) = self.keys.iter().find(|key| key.path == path).cloned() else { return };
        let group = &path[..path.len() - 1];
        let Some(variant) = key.variant else { return };
        // A part of a repository without one.
        if let Some(Node { value: Value::Table(parts), .. }) = self.tree.at(group)
            && key.name == group.join(".")
        {
            let parts = parts.iter().filter(|(_, node)| node.value != Value::Refused);
            let parts: Vec<(String, String)> = parts.map(|(part, node)| (part.clone(), describe(node))).collect();
            for (part, found) in parts {
                let path: Vec<String> = group.iter().cloned().chain([part]).collect();
                self.refuse_at(&path, &found, &format!("nothing without {}", key.name));
            }
            return;
        }
        let location = self.location(group);
        self.problem(location, Mistake::Missing { key: key.name, variant, about: key.about });
    }

    /// Has the next reading pass over what is at a path.
    fn put_aside(&mut self, path: &[String]) -> bool {
        match self.tree.at_mut(path) {
            Some(node) if !path.is_empty() && node.value != Value::Refused => {
                node.value = Value::Refused;
                true
            }
            _ => false,
        }
    }

    /// Notes that the value at a path cannot be taken. An item of a list, and a pair, are shown by what they are.
    fn refuse_at(&mut self, path: &[String], found: &str, expected: &str) -> bool {
        let is_item = path.last().is_some_and(|step| step.parse::<usize>().is_ok());
        let shown = if is_item { &path[..path.len() - 1] } else { path };
        let key = self.key_name(shown);
        let location = self.location(path);
        self.note(&key, location, found, expected);
        self.put_aside(path)
    }

    /// What a path is called: the option that set it, or its key.
    fn key_name(&self, path: &[String]) -> String {
        if let Some(Node { origin: Origin::Named(name), .. }) = self.tree.at(path)
            && let Some(key) = self.keys.iter().find(|key| key.path == path)
            && key.option.as_deref() == Some(name)
        {
            return name.to_string();
        }
        self.keys.iter().find(|key| key.path == path).map_or_else(|| path.join("."), |key| key.name.clone())
    }

    /// Where the nearest value to a path is in the file.
    fn location(&self, path: &[String]) -> Option<String> {
        if self.is_full() {
            return None;
        }
        let length = (1..=path.len()).rev().find(|length| self.tree.at(&path[..*length]).is_some())?;
        let node = self.tree.at(&path[..length])?;
        match &node.origin {
            Origin::Line { .. } => self.file.as_ref()?.location_of(&path[..length]),
            Origin::Default | Origin::Named(_) => None,
        }
    }

    /// Notes what is wrong with a key as a whole.
    ///
    /// * `key`: a key of `--set`, or the path of one with an option.
    pub(super) fn refuse(&mut self, key: &str, found: &str, expected: &str) {
        let path = self
            .keys
            .iter()
            .find(|known| known.name == key)
            .map_or_else(|| key.split('.').map(str::to_owned).collect(), |known| known.path.clone());
        let (key, location) = (self.key_name(&path), self.location(&path));
        self.note(&key, location, found, expected);
    }

    /// Whether something is wrong with a group or a key of it.
    pub(super) fn has_problem(&self, group: &str) -> bool {
        self.problems.iter().any(|problem| match &problem.mistake {
            Mistake::UnknownKey { key, .. }
            | Mistake::WithoutVariant { key, .. }
            | Mistake::Missing { key, .. }
            | Mistake::Value { key, .. }
            | Mistake::Decided { key, .. } => key.starts_with(group),
            Mistake::Token { .. } | Mistake::Syntax { .. } | Mistake::More => false,
        })
    }

    fn note(&mut self, key: &str, location: Option<String>, found: &str, expected: &str) {
        let (key, found, expected) = (key.to_owned(), found.to_owned(), expected.to_owned());
        self.problem(location, Mistake::Value { key, found, expected });
    }

    pub(super) fn problem(&mut self, location: Option<String>, mistake: Mistake) {
        match self.problems.len() {
            ..PROBLEMS_MAX => self.problems.push(Problem { location, mistake }),
            PROBLEMS_MAX => self.problems.push(Problem { location: None, mistake: Mistake::More }),
            _ => {}
        }
    }

    /// Whether more problems would not be shown.
    fn is_full(&self) -> bool {
        self.problems.len() > PROBLEMS_MAX
    }
}

const ONE_LINE: &str = "text on one line";
const OTHER_WORD: &str = "another word: readers of YAML take this one for a number or a truth value";

/// Where texts are in a tree.
fn texts_in(node: &Node, path: &[String]) -> Vec<Vec<String>> {
    let below = |step: String, node: &Node| texts_in(node, &[path, &[step]].concat());
    match &node.value {
        Value::Table(table) => table.iter().flat_map(|(key, node)| below(key.clone(), node)).collect(),
        Value::List(items) => items.iter().enumerate().flat_map(|(at, item)| below(at.to_string(), item)).collect(),
        Value::Scalar(value) if value.as_str().is_some() => vec![path.to_vec()],
        Value::Scalar(_) | Value::Refused => Vec::new(),
    }
}

/// A value for a message.
fn describe(node: &Node) -> String {
    match &node.value {
        Value::Scalar(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        Value::Table(_) => "a table".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Refused => "nothing".to_owned(),
    }
}

/// Keys as `--set` writes them, with their values as TOML: `SECTION.KEY`, `LIST.0.KEY` and `SECTION.LIST.0.KEY`.
fn flat(configuration: &Configuration) -> Vec<(String, String)> {
    fn records(name: &str, value: &Json) -> Vec<(String, String)> {
        let tables: Option<Vec<_>> = value.as_array().and_then(|items| items.iter().map(Json::as_object).collect());
        match tables.filter(|tables| !tables.is_empty()) {
            Some(tables) => {
                let of = |(at, table): (usize, &serde_json::Map<String, Json>)| {
                    let keys = table.iter().map(|(key, value)| (format!("{name}.{at}.{key}"), toml_of(value)));
                    keys.collect::<Vec<_>>()
                };
                tables.into_iter().enumerate().flat_map(of).collect()
            }
            None => vec![(name.to_owned(), toml_of(value))],
        }
    }
    let of_section = |(name, value): (&String, &Json)| match value {
        Json::Object(keys) => keys.iter().flat_map(|(key, value)| records(&format!("{name}.{key}"), value)).collect(),
        value => records(name, value),
    };
    configuration.0.iter().flat_map(of_section).collect::<Vec<_>>()
}
