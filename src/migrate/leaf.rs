//! The leaves of the input: each value that somebody wrote, with a number that follows it to the report.
//!
//! Invariants: a leaf is a scalar, or a list or a map with nothing in it. What an alias repeats is another leaf at each place of use, with the
//! line where its text is.

use std::fmt;

use serde::{Serialize, Serializer};

use super::yaml::{Node, Value};
use super::{Mistake, Position};

/// The number of a leaf in its [`Leaves`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leaf(u32);

impl Leaf {
    /// From 0.
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }
}

/// A value, and the leaf that it was read from. Several values may come from one leaf: `8080:80` is two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub leaf: Leaf,
}

impl<T> At<T> {
    /// A value with its leaf.
    pub fn new(value: T, leaf: Leaf) -> Self {
        Self { value, leaf }
    }

    /// Another value of the same leaf.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), leaf: self.leaf }
    }

    /// The same by reference.
    pub fn as_ref(&self) -> At<&T> {
        At { value: &self.value, leaf: self.leaf }
    }
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A key of a map.
    Key(String),
    /// The place in a list, from 0.
    Index(usize),
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Key(key) => serializer.serialize_str(key),
            Self::Index(index) => serializer.serialize_u64(*index as u64),
        }
    }
}

/// A path from the root of the input, shown as `services.web.ports[0]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
#[serde(transparent)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// One step further.
    #[must_use]
    pub fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// The key at a place, where it is a key.
    #[must_use]
    pub fn key(&self, place: usize) -> Option<&str> {
        match self.0.get(place) {
            Some(Segment::Key(key)) => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if key.is_empty() || key.contains(['.', '[', '"']) => write!(f, "[{key:?}]")?,
                Segment::Key(key) => write!(f, "{}{key}", if place > 0 { "." } else { "" })?,
            }
        }
        Ok(())
    }
}

/// What is known of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where it is in the tree.
    pub path: Path,
    /// Where it is in a file.
    pub at: Position,
}

/// Every leaf of the input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaves(Vec<Written>);

impl Leaves {
    /// One more leaf.
    pub fn push(&mut self, written: Written) -> Leaf {
        let leaf = Leaf(u32::try_from(self.0.len()).expect("files have a limited number of values"));
        self.0.push(written);
        leaf
    }

    /// Where a leaf was written.
    #[must_use]
    pub fn written(&self, leaf: Leaf) -> &Written {
        &self.0[leaf.0 as usize]
    }

    /// All of them in the order of their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Leaf, &Written)> {
        self.0.iter().enumerate().map(|(number, written)| (Leaf(number as u32), written))
    }

    /// A mistake at a leaf.
    #[must_use]
    pub fn mistake(&self, leaf: Leaf, message: impl Into<String>) -> Mistake {
        Mistake { at: self.written(leaf).at.clone(), message: message.into() }
    }
}

/// A tree of the input whose leaves are numbered.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Where it begins.
    pub at: Position,
    /// From the root.
    pub path: Path,
    /// The value.
    pub value: ItemValue,
}

/// The value of an [`Item`].
#[derive(Debug, Clone, PartialEq)]
pub enum ItemValue {
    /// A scalar.
    Scalar(At<Value>),
    /// A list with something in it.
    List(Vec<Item>),
    /// Keys with values, at least one.
    Map(Vec<(String, Item)>),
    /// `[]`
    NoItems(Leaf),
    /// `{}`
    NoKeys(Leaf),
}

impl Item {
    /// Numbers the leaves of a tree, in the order of the tree.
    ///
    /// * `path`: where the tree is in the input.
    pub fn number(node: &Node, path: Path, leaves: &mut Leaves) -> Self {
        let mut leaf = || leaves.push(Written { path: path.clone(), at: node.at.clone() });
        let value = match &node.value {
            Value::List(items) if items.is_empty() => ItemValue::NoItems(leaf()),
            Value::Map(entries) if entries.is_empty() => ItemValue::NoKeys(leaf()),
            Value::List(items) => {
                let numbered = items.iter().enumerate();
                let number = |(index, item)| Self::number(item, path.with(Segment::Index(index)), leaves);
                ItemValue::List(numbered.map(number).collect())
            }
            Value::Map(entries) => ItemValue::Map(
                entries
                    .iter()
                    .map(|entry| {
                        let path = path.with(Segment::Key(entry.key.clone()));
                        (entry.key.clone(), Self::number(&entry.node, path, leaves))
                    })
                    .collect(),
            ),
            scalar => ItemValue::Scalar(At { value: scalar.clone(), leaf: leaf() }),
        };
        Self { at: node.at.clone(), path, value }
    }

    /// The value of a key, where this is a map that has it. A key that is written with nothing behind it has a null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let ItemValue::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, item)| item)
    }

    /// The keys with their values; nothing where this is not a map with keys.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Self)> {
        let entries = match &self.value {
            ItemValue::Map(entries) => &entries[..],
            _ => &[],
        };
        entries.iter().map(|(key, item)| (key.as_str(), item))
    }

    /// The items; nothing where this is not a list with items.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.value {
            ItemValue::List(items) => items,
            _ => &[],
        }
    }

    /// The scalar, where this is one.
    #[must_use]
    pub fn scalar(&self) -> Option<At<&Value>> {
        match &self.value {
            ItemValue::Scalar(scalar) => Some(scalar.as_ref()),
            _ => None,
        }
    }

    /// The leaves at and below it.
    pub fn leaves(&self) -> Vec<Leaf> {
        match &self.value {
            ItemValue::Scalar(scalar) => vec![scalar.leaf],
            ItemValue::NoItems(leaf) | ItemValue::NoKeys(leaf) => vec![*leaf],
            ItemValue::List(items) => items.iter().flat_map(Self::leaves).collect(),
            ItemValue::Map(entries) => entries.iter().flat_map(|(_, item)| item.leaves()).collect(),
        }
    }

    /// A mistake here.
    #[must_use]
    pub fn mistake(&self, message: impl Into<String>) -> Mistake {
        Mistake { at: self.at.clone(), message: message.into() }
    }
}
