//! From a tree of values to the settings of the parts: serde's types, with every problem instead of the first one.
//!
//! serde stops at the first value that it cannot take. The reader notes the problem, puts the default in its place (in a record of
//! a list, which has no defaults, nothing), and reads again, until all the rest is read. So one run names all problems, in the
//! order of the fields.

use std::cell::{LazyCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::base::tree::{Failure, FailureKind, Node, Value, nearest, read};

/// The keys that settings have, by section: those of every struct that was read from it. `None` for a list of tables.
pub(super) type Keys = BTreeMap<String, Option<BTreeSet<String>>>;

/// The same, made when they are first asked for.
pub(super) type LazyKeys<'a> = LazyCell<Keys, Box<dyn FnOnce() -> Keys + 'a>>;

/// Reads sections and lists out of the settings of all layers.
pub(super) struct Reader<'a> {
    settings: &'a mut Node,
    defaults: &'a Node,
    problems: &'a mut Vec<Problem>,
    keys: Keys,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a mut Node, defaults: &'a Node, problems: &'a mut Vec<Problem>) -> Self {
        Self { settings, defaults, problems, keys: Keys::new() }
    }

    /// Reads what a struct wants of a section. Several may share one.
    pub(super) fn section<T: DeserializeOwned>(&mut self, name: &str) -> T {
        let root = [name.to_owned()];
        let fields = RefCell::default();
        loop {
            let node = self.settings.at(&root).or_else(|| self.defaults.at(&root));
            let node = node.expect("the defaults have every section: a test reads them");
            let outcome = read(node, Some(&fields));
            self.keys.entry(name.to_owned()).or_default().get_or_insert_default().append(&mut fields.borrow_mut());
            match outcome {
                Ok(settings) => return settings,
                Err(failure) => self.note(&root, failure),
            }
        }
    }

    /// Reads a list of tables (`[[name]]`) at the top of the settings; empty where there is none. Records with a problem are left
    /// out.
    #[cfg_attr(not(test), expect(dead_code, reason = "for issuers, models, upstreams and limits, which come next"))]
    pub(super) fn list<T: DeserializeOwned>(&mut self, name: &str) -> Vec<T> {
        self.keys.entry(name.to_owned()).or_insert(None);
        let root = [name.to_owned()];
        loop {
            let Some(node) = self.settings.at(&root).filter(|node| node.value != Value::Refused) else {
                return Vec::new();
            };
            let records: Result<Vec<T>, Failure> = read(node, None);
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

    /// Notes what is wrong, and takes it out of the way.
    fn note(&mut self, root: &[String], failure: Failure) {
        let Failure { path, what } = failure;
        let path: Vec<String> = root.iter().cloned().chain(path.into_iter().rev()).collect();
        // A text in a list is known by what it is, a record by its number.
        let is_item = path.last().is_some_and(|step| step.parse::<usize>().is_ok());
        let shown = match self.settings.at(&path).map(|node| &node.value) {
            Some(Value::Scalar(_)) if is_item => &path[..path.len() - 1],
            _ => &path[..],
        };
        let nearest = (0..=path.len()).rev().find_map(|length| self.settings.at(&path[..length]));
        let origin = nearest.map_or_else(|| "default".to_owned(), |node| node.origin.to_string());
        let found = self.settings.at(&path).map_or_else(|| "nothing".to_owned(), shown_value);
        let is_known = is_refused(self.settings, &path);
        let (message, is_missing) = match what {
            FailureKind::Expected(expected) => (format!("found {found}, expected {expected}"), false),
            FailureKind::Missing => ("is missing".to_owned(), true),
            FailureKind::Unknown { known } => {
                (unknown(path.last().map_or("", String::as_str), known.iter().copied()), false)
            }
            FailureKind::Said(message) => (message, false),
        };
        if !is_known {
            self.problems.push(Problem { key: shown.join("."), origin, message });
        }
        self.put_aside(&path, is_missing);
    }

    /// Has the next reading pass over what is at `path`.
    fn put_aside(&mut self, path: &[String], is_missing: bool) {
        // Below a list there are no defaults: what is wrong there goes, and a record that lacks something goes whole.
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

/// Whether a problem was reported at a path already.
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

/// That a key does not exist, with the one that was probably meant.
pub(super) fn unknown<'k>(key: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    match nearest(key, known) {
        Some(name) => format!("there is no such key; did you mean '{name}'?"),
        None => "there is no such key".to_owned(),
    }
}
