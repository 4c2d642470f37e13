//! Scalars, lists and maps in the forms in which keys have them.
//!
//! A reading function returns nothing for a null, which gets a remark, and for what does not fit, which is a mistake.

use std::collections::BTreeMap;

use super::super::Value;
use super::super::leaf::{At, Item, ItemValue, Leaf};
use super::super::report::Outcome;
use super::{Reader, excerpt, hint};

/// Names with values, sorted. `None`: none is written.
pub(super) type Pairs = Vec<(String, At<Option<String>>)>;

impl Reader<'_> {
    /// The value of a key, read by a function. `None` where it is not written.
    pub(super) fn field<T>(
        &mut self,
        item: &Item,
        key: &str,
        read: impl FnOnce(&mut Self, &Item) -> Option<T>,
    ) -> Option<T> {
        item.get(key).and_then(|value| read(self, value))
    }

    /// Whether this is a map with keys. An empty one and a null have a remark.
    pub(super) fn is_map(&mut self, item: &Item) -> bool {
        match &item.value {
            ItemValue::Map(_) => return true,
            ItemValue::NoKeys(_) | ItemValue::Scalar(At { value: Value::Null, .. }) => self.nothing(item),
            _ => self.wrong(item, "a map"),
        }
        false
    }

    /// The items of a list. An empty one and a null have a remark.
    pub(super) fn list<'i>(&mut self, item: &'i Item) -> &'i [Item] {
        match &item.value {
            ItemValue::List(items) => return items,
            ItemValue::NoItems(_) | ItemValue::Scalar(At { value: Value::Null, .. }) => self.nothing(item),
            _ => self.wrong(item, "a list"),
        }
        &[]
    }

    /// A scalar that is not null.
    fn scalar<'i>(&mut self, item: &'i Item, expected: &str) -> Option<At<&'i Value>> {
        match item.scalar() {
            Some(At { value: Value::Null, .. }) => {
                self.nothing(item);
                None
            }
            None => {
                self.wrong(item, expected);
                None
            }
            scalar => scalar,
        }
    }

    /// Text; a number is text as Go prints it.
    pub(super) fn text(&mut self, item: &Item) -> Option<At<String>> {
        self.scalar(item, "text").map(|scalar| scalar.map(ToString::to_string))
    }

    /// Text with something in it. An empty one is as if it were not written.
    pub(super) fn some_text(&mut self, item: &Item) -> Option<At<String>> {
        let text = self.text(item)?;
        if text.value.is_empty() {
            self.nothing(item);
            return None;
        }
        Some(text)
    }

    /// `true` or `false`, in the words of YAML 1.1 where it is text.
    pub(super) fn truth(&mut self, item: &Item) -> Option<At<bool>> {
        let scalar = self.scalar(item, "true or false")?;
        let value = match scalar.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => match text.to_lowercase().as_str() {
                "y" | "yes" | "true" | "on" => Some(true),
                "n" | "no" | "false" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            self.wrong(item, "true or false");
        }
        Some(At::new(value?, scalar.leaf))
    }

    /// A whole number. One with a fraction loses it, as in Docker's programs.
    pub(super) fn number<T: TryFrom<i128>>(&mut self, item: &Item) -> Option<At<T>> {
        let scalar = self.scalar(item, "a whole number")?;
        let value = match scalar.value {
            Value::Int(value) => Some(*value),
            // Beyond 64 bits it fits no type that is asked for.
            Value::Float(value) if value.abs() < 1e18 => Some(*value as i128),
            Value::Text(text) => text.parse::<i64>().ok().map(i128::from),
            _ => None,
        };
        let Some(value) = value.and_then(|value| T::try_from(value).ok()) else {
            let range = match std::mem::size_of::<T>() {
                2 => "from 0 to 65535",
                _ if T::try_from(-1).is_err() => "of 0 or more",
                _ => "of at most 64 bits",
            };
            self.mistake(item, format!("{}: expected a whole number {range}", item.path));
            return None;
        };
        Some(At::new(value, scalar.leaf))
    }

    /// Any number.
    pub(super) fn float(&mut self, item: &Item) -> Option<At<f64>> {
        let scalar = self.scalar(item, "a number")?;
        let value = match scalar.value {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        let value = value.filter(|value: &f64| value.is_finite());
        if value.is_none() {
            self.wrong(item, "a number");
        }
        Some(At::new(value?, scalar.leaf))
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&mut self, item: &Item, choices: &[(&str, T)]) -> Option<At<T>> {
        let text = self.text(item)?;
        let lower = text.value.to_lowercase();
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == lower) {
            return Some(At::new(*value, text.leaf));
        }
        if text.value.is_empty() {
            self.nothing(item);
            return None;
        }
        let mut names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        names.dedup();
        let hint = hint(&lower, names.iter().copied());
        let found = excerpt(&text.value);
        let message = format!("{}: found '{found}', expected one of {}{hint}", item.path, names.join(", "));
        self.mistake(item, message);
        None
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, item: &Item) -> Vec<At<String>> {
        self.list(item).iter().filter_map(|item| self.text(item)).collect()
    }

    /// A text, or a list of texts.
    pub(super) fn one_or_texts(&mut self, item: &Item) -> Vec<At<String>> {
        match item.scalar() {
            Some(At { value, .. }) if *value != Value::Null => self.text(item).into_iter().collect(),
            _ => self.texts(item),
        }
    }

    /// `NAME: VALUE` in a map, or `NAME=VALUE` in a list. The last one of a name counts.
    pub(super) fn pairs(&mut self, item: &Item) -> Pairs {
        let mut pairs: BTreeMap<String, At<Option<String>>> = BTreeMap::new();
        let mut insert = |reader: &mut Self, name: String, value: At<Option<String>>| {
            if let Some(before) = pairs.insert(name, value) {
                reader.remark(before.leaf, Outcome::Dropped, "a later value of the same name replaces it");
            }
        };
        match &item.value {
            ItemValue::List(items) => {
                for item in items {
                    let Some(text) = self.text(item) else { continue };
                    let (name, value) = match text.value.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (text.value, None),
                    };
                    insert(self, name, At::new(value, text.leaf));
                }
            }
            ItemValue::NoItems(_) => self.nothing(item),
            _ if self.is_map(item) => {
                for (name, item) in item.entries() {
                    match item.scalar() {
                        Some(At { value: Value::Null, leaf }) => insert(self, name.to_owned(), At::new(None, leaf)),
                        Some(At { value, leaf }) => {
                            insert(self, name.to_owned(), At::new(Some(value.to_string()), leaf));
                        }
                        None => self.wrong(item, "text"),
                    }
                }
            }
            _ => {}
        }
        pairs.into_iter().collect()
    }

    /// Pairs in which no value is the same as an empty one.
    pub(super) fn labels(&mut self, item: &Item) -> Vec<(String, At<String>)> {
        let pairs = self.pairs(item).into_iter();
        pairs.map(|(name, value)| (name, value.map(Option::unwrap_or_default))).collect()
    }
}

/// The leaves below a value by the path from it: `config[0].subnet`.
///
/// * `prefix`: the name of the value.
pub(super) fn named_leaves(prefix: &str, item: &Item) -> Vec<(String, Leaf)> {
    let mut found = Vec::new();
    let mut rest = vec![(prefix.to_owned(), item)];
    while let Some((name, item)) = rest.pop() {
        match &item.value {
            ItemValue::Scalar(At { leaf, .. }) | ItemValue::NoItems(leaf) | ItemValue::NoKeys(leaf) => {
                found.push((name, *leaf));
            }
            ItemValue::List(items) => {
                rest.extend(items.iter().enumerate().rev().map(|(index, item)| (format!("{name}[{index}]"), item)));
            }
            ItemValue::Map(entries) => {
                rest.extend(entries.iter().rev().map(|(key, item)| (format!("{name}.{key}"), item)));
            }
        }
    }
    found
}
