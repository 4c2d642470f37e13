//! The fields of Docker's JSON with their types, and what became of those that the stack has no field for.
//!
//! Invariants: each leaf of a map that was opened is either handed out with its value, or it gets an outcome here: [`Fields::end`] marks
//! those that nothing asked for. A value of the wrong kind is a mistake with its place, never a guess.

use std::time::Duration;

use crate::migrate::{At, Item, ItemValue, Leaf, Leaves, Mistake, Outcome, Value};

/// Why a leaf that says nothing needs no field.
const NOTHING: &str = "nothing is set";
/// Why a leaf that nothing asked for is lost.
const UNKNOWN: &str = "Cairn does not know it";

/// Collects the leaves with their outcomes, and the mistakes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) leaves: Leaves,
    pub(super) outcomes: Vec<(Leaf, Outcome, String)>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader {
    /// The stack has no field for these leaves.
    pub(super) fn mark(&mut self, item: &Item, outcome: Outcome, reason: &str) {
        self.outcomes.extend(item.leaves().into_iter().map(|leaf| (leaf, outcome, reason.to_owned())));
    }

    /// The same of one leaf.
    pub(super) fn mark_leaf(&mut self, leaf: Leaf, outcome: Outcome, reason: &str) {
        self.outcomes.push((leaf, outcome, reason.to_owned()));
    }

    /// The stack has no field for these leaves, and they are lost unless they say nothing.
    pub(super) fn mark_set(&mut self, item: &Item, reason: &str) {
        let is_nothing = |value: &Value| *value == Value::Null || *value == Value::Text(String::new());
        match &item.value {
            ItemValue::Scalar(scalar) if is_nothing(&scalar.value) => self.mark(item, Outcome::Converted, NOTHING),
            ItemValue::NoItems(_) | ItemValue::NoKeys(_) => self.mark(item, Outcome::Converted, NOTHING),
            ItemValue::Map(entries) => entries.iter().for_each(|(_, item)| self.mark_set(item, reason)),
            ItemValue::List(items) => items.iter().for_each(|item| self.mark_set(item, reason)),
            ItemValue::Scalar(_) => self.mark(item, Outcome::Dropped, reason),
        }
    }

    /// A value of the wrong kind.
    pub(super) fn refuse(&mut self, item: &Item, expected: &str) {
        let found = match &item.value {
            ItemValue::List(_) | ItemValue::NoItems(_) => "a list",
            ItemValue::Map(_) | ItemValue::NoKeys(_) => "a map",
            ItemValue::Scalar(scalar) => match scalar.value {
                Value::Null => "nothing",
                Value::Bool(_) => "true or false",
                Value::Int(_) | Value::Float(_) => "a number",
                _ => "text",
            },
        };
        let key = item.path.0.last().map(|segment| match segment {
            crate::migrate::Segment::Key(key) => format!("{key}: "),
            crate::migrate::Segment::Index(index) => format!("item {}: ", index + 1),
        });
        let advice = "the file is not as Docker writes it; collect it again";
        let message = format!("{}found {found}, expected {expected}; {advice}", key.unwrap_or_default());
        self.mistakes.push(item.mistake(message));
    }

    /// The scalar of an item.
    ///
    /// * `convert`: the value where it is of the right kind.
    pub(super) fn scalar<T>(
        &mut self,
        item: &Item,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<At<T>> {
        match item.scalar() {
            Some(At { value: Value::Null, leaf }) => {
                self.mark_leaf(leaf, Outcome::Converted, NOTHING);
                None
            }
            Some(At { value, leaf }) => {
                let converted = convert(value);
                if converted.is_none() {
                    self.refuse(item, expected);
                }
                converted.map(|value| At::new(value, leaf))
            }
            None => {
                self.refuse(item, expected);
                None
            }
        }
    }

    /// Text of any length.
    pub(super) fn text(&mut self, item: &Item) -> Option<At<String>> {
        self.scalar(item, "text", |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// The items of a list; none where there is nothing.
    pub(super) fn list<'a>(&mut self, item: &'a Item) -> &'a [Item] {
        match &item.value {
            ItemValue::List(items) => items,
            ItemValue::NoItems(leaf) | ItemValue::Scalar(At { value: Value::Null, leaf }) => {
                self.mark_leaf(*leaf, Outcome::Converted, NOTHING);
                &[]
            }
            _ => {
                self.refuse(item, "a list");
                &[]
            }
        }
    }

    /// The items of a list of texts.
    pub(super) fn texts(&mut self, item: &Item) -> Vec<At<String>> {
        self.list(item).iter().filter_map(|item| self.text(item)).collect()
    }

    /// A map that is read field by field.
    pub(super) fn open<'a>(&mut self, item: &'a Item) -> Fields<'a> {
        match &item.value {
            ItemValue::Map(_) => {}
            ItemValue::NoKeys(leaf) | ItemValue::Scalar(At { value: Value::Null, leaf }) => {
                self.mark_leaf(*leaf, Outcome::Converted, NOTHING);
            }
            _ => self.refuse(item, "a map"),
        }
        Fields { rest: item.entries().collect() }
    }
}

/// The fields of a map that nothing asked for yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: Vec<(&'a str, &'a Item)>,
}

impl<'a> Fields<'a> {
    /// Every field that nothing asked for yet.
    pub(super) fn all(self) -> impl Iterator<Item = (&'a str, &'a Item)> {
        self.rest.into_iter()
    }

    /// A field as it is.
    pub(super) fn item(&mut self, key: &str) -> Option<&'a Item> {
        let at = self.rest.iter().position(|(name, _)| *name == key)?;
        Some(self.rest.remove(at).1)
    }

    /// A map.
    pub(super) fn map(&mut self, key: &str, reader: &mut Reader) -> Option<Self> {
        self.item(key).map(|item| reader.open(item))
    }

    /// The items of a list.
    pub(super) fn list(&mut self, key: &str, reader: &mut Reader) -> &'a [Item] {
        self.item(key).map_or(&[], |item| reader.list(item))
    }

    /// Text that is not empty.
    pub(super) fn text(&mut self, key: &str, reader: &mut Reader) -> Option<At<String>> {
        let text = self.item(key).and_then(|item| reader.text(item))?;
        if text.value.is_empty() {
            reader.mark_leaf(text.leaf, Outcome::Converted, NOTHING);
            return None;
        }
        Some(text)
    }

    /// One of several words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)], reader: &mut Reader) -> Option<At<T>> {
        let item = self.item(key)?;
        let text = reader.text(item)?;
        if text.value.is_empty() {
            reader.mark_leaf(text.leaf, Outcome::Converted, NOTHING);
            return None;
        }
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("{key}: found '{}', expected one of: {}", text.value, words.join(", "));
            reader.mistakes.push(item.mistake(message));
        }
        found.map(|(_, value)| At::new(*value, text.leaf))
    }

    /// `true` or `false`.
    pub(super) fn bool(&mut self, key: &str, reader: &mut Reader) -> Option<At<bool>> {
        let item = self.item(key)?;
        reader.scalar(item, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A whole number that fits.
    pub(super) fn integer<T: TryFrom<i128>>(&mut self, key: &str, reader: &mut Reader) -> Option<At<T>> {
        let item = self.item(key)?;
        reader.scalar(item, "a whole number that Docker allows here", |value| match value {
            Value::Int(value) => T::try_from(*value).ok(),
            _ => None,
        })
    }

    /// Any number from 0 to 1.
    pub(super) fn ratio(&mut self, key: &str, reader: &mut Reader) -> Option<At<f64>> {
        let item = self.item(key)?;
        reader.scalar(item, "a number from 0 to 1", |value| match value {
            Value::Int(value @ (0 | 1)) => Some(if *value == 0 { 0.0 } else { 1.0 }),
            Value::Float(value) if (0.0..=1.0).contains(value) => Some(*value),
            _ => None,
        })
    }

    /// Nanoseconds.
    pub(super) fn duration(&mut self, key: &str, reader: &mut Reader) -> Option<At<Duration>> {
        let item = self.item(key)?;
        reader.scalar(item, "a whole number of nanoseconds, 0 or more", |value| match value {
            Value::Int(value) => u64::try_from(*value).ok().map(Duration::from_nanos),
            _ => None,
        })
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str, reader: &mut Reader) -> Vec<At<String>> {
        self.item(key).map_or_else(Vec::new, |item| reader.texts(item))
    }

    /// Texts by name, in the order of the names.
    pub(super) fn named_texts(&mut self, key: &str, reader: &mut Reader) -> Vec<(String, At<String>)> {
        let Some(fields) = self.map(key, reader) else { return Vec::new() };
        let entries = fields.rest.into_iter();
        let mut texts: Vec<_> =
            entries.filter_map(|(name, item)| Some((name.to_owned(), reader.text(item)?))).collect();
        texts.sort_by(|a, b| a.0.cmp(&b.0));
        texts
    }

    /// Fields that the stack needs nothing of.
    pub(super) fn mark(&mut self, keys: &[&str], outcome: Outcome, reason: &str, reader: &mut Reader) {
        for key in keys {
            if let Some(item) = self.item(key) {
                reader.mark(item, outcome, reason);
            }
        }
    }

    /// What is left is unknown.
    pub(super) fn end(self, reader: &mut Reader) {
        for (_, item) in self.rest {
            reader.mark(item, Outcome::Dropped, UNKNOWN);
        }
    }
}
