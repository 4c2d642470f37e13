//! Settings as a tree of values that know where they came from, and the layers that are put into it.
//!
//! Invariants: a later layer replaces a value or a whole list; only a table is merged. A path that goes into a list (`models.0.name`)
//! changes one record of it, or appends one.

mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

pub(crate) use self::read::{Failure, FailureKind, read};

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key, such as `server.listen` or `models.0.name`; the file for a problem of the whole file, `syntax` for text
    /// that is not TOML.
    pub key: String,
    /// Where the value came from: a file with the line, a variable, an option.
    pub origin: String,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.message)
    }
}

/// The name most like `text`, when one is like it at all.
pub(crate) fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(text, name), name));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    // Below this, names share letters by chance; clap uses the same border.
    (best.0 > 0.7).then_some(best.1)
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The compiled-in defaults.
    Default,
    /// A line of a file.
    Line { file: Arc<str>, line: usize },
    /// A variable, by its name, or an option.
    Named(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    /// Neither a table nor a list.
    Scalar(toml::Value),
    /// A problem was found here and reported; the value is passed over.
    Refused,
}

impl Node {
    pub(crate) fn table(origin: Origin) -> Self {
        Self { value: Value::Table(BTreeMap::new()), origin }
    }

    /// A value that all came from one place.
    pub(crate) fn of(value: toml::Value, origin: &Origin) -> Self {
        let value = match value {
            toml::Value::Table(table) => {
                Value::Table(table.into_iter().map(|(key, value)| (key, Self::of(value, origin))).collect())
            }
            toml::Value::Array(items) => Value::List(items.into_iter().map(|item| Self::of(item, origin)).collect()),
            scalar => Value::Scalar(scalar),
        };
        Self { value, origin: origin.clone() }
    }

    /// Reads the text of a file.
    ///
    /// * `file`: its name; `None` for the defaults.
    ///
    /// # Errors
    /// Everything that is not TOML in it.
    pub(crate) fn parse(text: &str, file: Option<&str>) -> Result<Self, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines { file: file.map(Arc::from), starts: line_starts(text) };
        let mut problems: Vec<Problem> = errors
            .into_iter()
            .map(|error| {
                let at = error.span().map_or(0, |span| span.start);
                let line = text.lines().nth(lines.number(at) - 1).unwrap_or_default();
                let found: String = line.trim().chars().take(80).collect();
                let message = format!("'{found}' is not TOML: {}", error.message());
                Problem { key: "syntax".to_owned(), origin: lines.origin(at).to_string(), message }
            })
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let root = table_node(table.get_ref(), lines.origin(0), &lines, &mut problems);
        if problems.is_empty() { Ok(root) } else { Err(problems) }
    }

    /// The value at a path.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match &node.value {
            Value::Table(table) => table.get(step),
            Value::List(items) => items.get(step.parse::<usize>().ok()?),
            Value::Scalar(_) | Value::Refused => None,
        })
    }

    pub(crate) fn at_mut(&mut self, path: &[String]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, step| match &mut node.value {
            Value::Table(table) => table.get_mut(step),
            Value::List(items) => items.get_mut(step.parse::<usize>().ok()?),
            Value::Scalar(_) | Value::Refused => None,
        })
    }

    /// Puts another layer over this one.
    pub(crate) fn merge(&mut self, layer: Self) {
        match (&mut self.value, layer.value) {
            (Value::Table(own), Value::Table(others)) => {
                for (key, other) in others {
                    match own.get_mut(&key) {
                        Some(known) => known.merge(other),
                        None => drop(own.insert(key, other)),
                    }
                }
            }
            (own, other) => {
                *own = other;
                self.origin = layer.origin;
            }
        }
    }

    /// Puts a value at a path. Tables and records on the way are made where they are missing.
    ///
    /// # Errors
    /// In words, when the path leads through something that is neither, or past the end of a list.
    pub(crate) fn set(&mut self, path: &[&str], value: Self) -> Result<(), String> {
        let [step, rest @ ..] = path else {
            *self = value;
            return Ok(());
        };
        match &mut self.value {
            Value::Table(table) => {
                // What goes into a list that is not there yet begins it.
                let is_list = rest.first().is_some_and(|next| next.parse::<usize>().is_ok());
                let empty = if is_list { Value::List(Vec::new()) } else { Value::Table(BTreeMap::new()) };
                let next = table.entry((*step).to_owned());
                next.or_insert_with(|| Self { value: empty, origin: value.origin.clone() }).set(rest, value)
            }
            Value::List(items) => {
                let count = items.len();
                let index = step
                    .parse::<usize>()
                    .map_err(|_| format!("it is a list: name an item by its number, not '{step}'"))?;
                if index > count {
                    return Err(format!("the list has {count} items, so the next one is number {count}, not {index}"));
                }
                if index == count {
                    items.push(Self::table(value.origin.clone()));
                }
                items[index].set(rest, value)
            }
            Value::Scalar(_) | Value::Refused => {
                Err(format!("it is neither a table nor a list, so it has no '{step}'"))
            }
        }
    }

    /// Takes out what is at a path below tables.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        match (&mut self.value, path) {
            (Value::Table(table), [step]) => drop(table.remove(*step)),
            (Value::Table(table), [step, rest @ ..]) => {
                if let Some(next) = table.get_mut(*step) {
                    next.remove(rest);
                }
            }
            _ => {}
        }
    }

    /// As TOML, without what was refused.
    pub(crate) fn to_toml(&self) -> Option<toml::Value> {
        match &self.value {
            Value::Table(table) => Some(toml::Value::Table(
                table.iter().filter_map(|(key, node)| Some((key.clone(), node.to_toml()?))).collect(),
            )),
            Value::List(items) => Some(toml::Value::Array(items.iter().filter_map(Self::to_toml).collect())),
            Value::Scalar(value) => Some(value.clone()),
            Value::Refused => None,
        }
    }
}

/// Where each line of a file begins.
struct Lines {
    file: Option<Arc<str>>,
    starts: Vec<usize>,
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(place, _)| place + 1)).collect()
}

impl Lines {
    /// From 1.
    fn number(&self, place: usize) -> usize {
        self.starts.partition_point(|start| *start <= place)
    }

    fn origin(&self, place: usize) -> Origin {
        match &self.file {
            None => Origin::Default,
            Some(file) => Origin::Line { file: Arc::clone(file), line: self.number(place) },
        }
    }
}

fn table_node(table: &DeTable<'_>, origin: Origin, lines: &Lines, problems: &mut Vec<Problem>) -> Node {
    let mut node = BTreeMap::new();
    for (key, value) in table {
        // A value of several lines is looked for where its key is.
        let origin = lines.origin(key.span().start);
        node.insert(key.get_ref().to_string(), value_node(key.get_ref(), value.get_ref(), origin, lines, problems));
    }
    Node { value: Value::Table(node), origin }
}

fn value_node(key: &str, value: &DeValue<'_>, origin: Origin, lines: &Lines, problems: &mut Vec<Problem>) -> Node {
    let scalar = match value {
        DeValue::Table(table) => return table_node(table, origin, lines, problems),
        DeValue::Array(items) => {
            let item = |item: &toml::Spanned<DeValue<'_>>, problems: &mut Vec<Problem>| {
                value_node(key, item.get_ref(), lines.origin(item.span().start), lines, problems)
            };
            return Node { value: Value::List(items.iter().map(|one| item(one, problems)).collect()), origin };
        }
        DeValue::String(text) => Some(toml::Value::String(text.to_string())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(toml::Value::Integer),
        DeValue::Float(number) => number.as_str().parse().ok().map(toml::Value::Float),
        DeValue::Boolean(flag) => Some(toml::Value::Boolean(*flag)),
        DeValue::Datetime(time) => Some(toml::Value::Datetime(*time)),
    };
    let Some(scalar) = scalar else {
        let message = "the number is too large".to_owned();
        problems.push(Problem { key: key.to_owned(), origin: origin.to_string(), message });
        return Node { value: Value::Refused, origin };
    };
    Node { value: Value::Scalar(scalar), origin }
}
