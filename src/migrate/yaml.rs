//! YAML as Docker's programs read it, with the place of each value.
//!
//! The parser is a library; what a plain scalar means is decided here, because it differs from program to program, and both of Docker's use
//! the same: go-yaml 3, whose rules are neither those of YAML 1.1 nor those of 1.2.
//!
//! Invariants: a file has at most [`VALUES_MAX`] values, those that aliases repeat among them, nests at most [`DEPTH_MAX`] deep, and has paths of
//! [`STEPS_MAX`] steps together, so that no small file becomes a large tree. Keys are text of at most [`KEY_MAX`] bytes, and each is there once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, Span};

use super::source::{Mistake, Position, Source};

/// Most values in a file.
const VALUES_MAX: usize = 200_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 64;
/// Most steps from the root to all values together: each value of the report has its path.
const STEPS_MAX: usize = 4_000_000;
/// Longest key in bytes. YAML itself limits keys without a question mark to 1,024 letters.
const KEY_MAX: usize = 1024;

/// A value and where it stands. What an alias repeats stands where its anchor is.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub at: Position,
    /// How it joins with other files.
    pub tag: Option<Tag>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`; `yes` and `on` are text.
    Bool(bool),
    /// A whole number in decimal, `0x`, `0o`, `0b`, or in octal with a leading zero.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys with values, in the order of the file; those that `<<` merges come last.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where it stands.
    pub at: Position,
    /// The value.
    pub node: Node,
}

/// A tag of the Compose Specification, for a value that several files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// `!reset`: as if no file had it.
    Reset,
    /// `!override`: in place of what others have.
    Override,
}

impl Node {
    /// Reads the documents of a file.
    ///
    /// # Errors
    /// The first thing that is not YAML, or every key that is there twice or is not text.
    pub fn documents(source: &Source) -> Result<Vec<Self>, Vec<Mistake>> {
        let mut builder = Builder::new(source.name());
        let options = granit_parser::options! { emit_comments: false };
        for event in Parser::new_from_str_with_options(source.text(), options) {
            let taken = match event {
                Ok((event, span)) => builder.read_event(event, span),
                Err(error) if *error.kind() == ErrorKind::RecursionLimitExceeded => {
                    Err(builder.too_deep(*error.marker()))
                }
                Err(error) => Err(builder.error(*error.marker(), format!("not YAML: {}", error.kind()))),
            };
            if let Err(error) = taken {
                builder.errors.push(error);
                return Err(builder.errors);
            }
        }
        match builder.errors.is_empty() {
            true => Ok(builder.documents),
            false => Err(builder.errors),
        }
    }

    /// The value of a key, where this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }
}

/// As Go's `fmt.Sprint` has it, which is what becomes of numbers where text is expected: `1.0` is `1`, and `0755` is `493`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<nil>"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&float_text(*value)),
            Self::Text(value) => f.write_str(value),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

/// The shortest decimal that reads as the same number; with an exponent below 1e-4 and from 1e6 on (Go, `fmt`, `%v`).
fn float_text(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN".to_owned() } else { format!("{}Inf", if value > 0.0 { '+' } else { '-' }) };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("it is a number");
    if (-4..6).contains(&exponent) {
        format!("{value}")
    } else {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

/// What an alias repeats.
struct Anchored {
    node: Node,
    values: usize,
    depth: usize,
}

/// A list or a map that is not closed yet.
struct Open {
    kind: Kind,
    at: Position,
    tag: Option<Tag>,
    /// 0: none.
    anchor: usize,
    /// Values of the file before this one.
    before: usize,
    /// Levels below this one.
    depth: usize,
}

enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// The lines of the keys.
        lines: HashMap<String, usize>,
        merged: Vec<Node>,
        key: Option<Key>,
    },
}

struct Key {
    text: String,
    at: Position,
    is_merge: bool,
}

/// A value that is complete, and how many levels it has.
struct Complete {
    node: Node,
    depth: usize,
    is_merge: bool,
}

struct Builder {
    file: Arc<str>,
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    values: usize,
    steps: usize,
    errors: Vec<Mistake>,
}

impl Builder {
    fn new(file: &Arc<str>) -> Self {
        Self {
            file: Arc::clone(file),
            documents: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            values: 0,
            steps: 0,
            errors: Vec::new(),
        }
    }

    fn position(&self, marker: Marker) -> Position {
        Position { file: Arc::clone(&self.file), line: marker.line(), column: marker.col() + 1 }
    }

    fn error(&self, marker: Marker, message: String) -> Mistake {
        Mistake { at: self.position(marker), message }
    }

    fn read_event(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, span.start)?;
                let is_plain = style == ScalarStyle::Plain;
                let (value, own, is_merge) = match tag.as_deref() {
                    None if is_plain => (resolve(&text), None, text == "<<"),
                    None => (Value::Text(text.into_owned()), None, false),
                    Some(tag) => match tag.core_suffix() {
                        Some("str") => (Value::Text(text.into_owned()), None, false),
                        Some(kind) => (self.cast(&text, kind, span.start)?, None, false),
                        None => {
                            let own = self.own_tag(tag, span.start)?;
                            (if is_plain { resolve(&text) } else { Value::Text(text.into_owned()) }, Some(own), false)
                        }
                    },
                };
                let node = Node { value, at: self.position(span.start), tag: own };
                self.anchor(anchor, &node, 1, 0, span.start)?;
                self.place(Complete { node, depth: 0, is_merge }, span.start)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(Kind::List(Vec::new()), anchor, tag.as_deref(), span.start)
            }
            Event::MappingStart(_, anchor, tag) => {
                let kind = Kind::Map { entries: Vec::new(), lines: HashMap::new(), merged: Vec::new(), key: None };
                self.begin(kind, anchor, tag.as_deref(), span.start)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span.start),
            Event::Alias(anchor) => {
                let Some(found) = self.anchors.get(&anchor) else {
                    return Err(self.error(
                        span.start,
                        "the anchor is around its own alias, and the value would have no end".to_owned(),
                    ));
                };
                let (node, values, depth) = (found.node.clone(), found.values, found.depth);
                self.steps += values * depth;
                self.spend(values, span.start)?;
                self.place(Complete { node, depth, is_merge: false }, span.start)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        kind: Kind,
        anchor: usize,
        tag: Option<&granit_parser::Tag>,
        start: Marker,
    ) -> Result<(), Mistake> {
        self.spend(1, start)?;
        let tag = match tag {
            Some(tag) if tag.core_suffix().is_none() => Some(self.own_tag(tag, start)?),
            _ => None,
        };
        if self.open.len() >= DEPTH_MAX {
            return Err(self.too_deep(start));
        }
        let at = self.position(start);
        self.open.push(Open { kind, at, tag, anchor, before: self.values - 1, depth: 0 });
        Ok(())
    }

    fn end(&mut self, marker: Marker) -> Result<(), Mistake> {
        let Open { kind, at, tag, anchor, before, depth } = self.open.pop().expect("the parser closes what it opened");
        let value = match kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { mut entries, mut lines, merged, .. } => {
                // What a map has itself counts more than what it merges, and of what it merges the first.
                for node in merged {
                    let Value::Map(others) = node.value else { continue };
                    entries.extend(
                        others.into_iter().filter(|entry| lines.insert(entry.key.clone(), entry.at.line).is_none()),
                    );
                }
                Value::Map(entries)
            }
        };
        let node = Node { value, at, tag };
        self.anchor(anchor, &node, self.values - before, depth + 1, marker)?;
        self.place(Complete { node, depth: depth + 1, is_merge: false }, marker)
    }

    /// Remembers a value for its aliases.
    fn anchor(&mut self, anchor: usize, node: &Node, values: usize, depth: usize, at: Marker) -> Result<(), Mistake> {
        if anchor != 0 {
            // The copy takes memory, too.
            self.spend(values, at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), values, depth });
        }
        Ok(())
    }

    /// Puts a value where it belongs.
    fn place(&mut self, complete: Complete, marker: Marker) -> Result<(), Mistake> {
        if self.open.len() + complete.depth > DEPTH_MAX {
            return Err(self.too_deep(marker));
        }
        let Complete { node, depth, is_merge } = complete;
        let Some(parent) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        parent.depth = parent.depth.max(depth);
        match &mut parent.kind {
            Kind::List(items) => items.push(node),
            Kind::Map { key: key @ None, lines, .. } => {
                let Value::Text(text) = node.value else {
                    let found = match &node.value {
                        Value::List(_) | Value::Map(_) => "found a list or a map as a key, expected text".to_owned(),
                        other => format!("found {other} as a key, expected text; put it in quotes"),
                    };
                    self.errors.push(Mistake { at: node.at.clone(), message: found });
                    *key = Some(Key { text: String::new(), at: node.at, is_merge: false });
                    return Ok(());
                };
                if text.len() > KEY_MAX {
                    let message = format!("a key of {} bytes, expected at most {KEY_MAX}", text.len());
                    return Err(Mistake { at: node.at, message });
                }
                if let Some(first) = lines.insert(text.clone(), node.at.line) {
                    let message = format!("the key '{text}' is here again, and before in line {first}; remove one");
                    self.errors.push(Mistake { at: node.at.clone(), message });
                }
                *key = Some(Key { text, at: node.at, is_merge });
            }
            Kind::Map { key: key @ Some(_), entries, merged, .. } => {
                let key = key.take().expect("it is there");
                if !key.is_merge {
                    entries.push(Entry { key: key.text, at: key.at, node });
                    return Ok(());
                }
                let nodes = match node.value {
                    Value::List(nodes) => nodes,
                    _ => vec![node],
                };
                for node in nodes {
                    if !matches!(node.value, Value::Map(_)) {
                        self.errors
                            .push(Mistake { at: key.at, message: "'<<' merges maps, and this is none".to_owned() });
                        return Ok(());
                    }
                    merged.push(node);
                }
            }
        }
        Ok(())
    }

    fn spend(&mut self, values: usize, at: Marker) -> Result<(), Mistake> {
        self.values += values;
        self.steps += values * self.open.len();
        if self.steps > STEPS_MAX {
            return Err(self.error(at, format!("the values up to here are {STEPS_MAX} steps from the root together")));
        }
        if self.values > VALUES_MAX {
            return Err(
                self.error(at, format!("more than {VALUES_MAX} values up to here, those of aliases among them"))
            );
        }
        Ok(())
    }

    fn too_deep(&self, at: Marker) -> Mistake {
        self.error(at, format!("nested deeper than {DEPTH_MAX} levels"))
    }

    fn own_tag(&self, tag: &granit_parser::Tag, at: Marker) -> Result<Tag, Mistake> {
        match tag.original().as_str() {
            "!reset" => Ok(Tag::Reset),
            "!override" => Ok(Tag::Override),
            other => Err(self.error(at, format!("found the tag {other}, expected none, !reset or !override"))),
        }
    }

    /// A scalar with a tag of YAML's own.
    fn cast(&self, text: &str, kind: &str, at: Marker) -> Result<Value, Mistake> {
        match (kind, resolve(text)) {
            ("null", value @ Value::Null) | ("bool", value @ Value::Bool(_)) | ("int", value @ Value::Int(_)) => {
                Ok(value)
            }
            ("float", Value::Int(value)) => Ok(Value::Float(value as f64)),
            ("float", value @ Value::Float(_)) => Ok(value),
            _ => Err(self.error(at, format!("'{text}' does not fit the tag !!{kind}"))),
        }
    }
}

/// What a plain scalar means to go-yaml 3 (`resolve.go`), but for dates, which are text here.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'0'..=b'9' | b'+' | b'-' => {
            let plain = text.replace('_', "");
            whole(&plain).map(Value::Int).or_else(|| float(&plain).map(Value::Float))
        }
        b'.' => float(text).map(Value::Float),
        _ => None,
    };
    number.unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Go's `strconv.ParseInt` with base 0, within 64 bits, signed or not.
fn whole(text: &str) -> Option<i128> {
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, base).ok()?);
    let value = if is_negative { -value } else { value };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// A number as `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number =
        unsigned.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    let value: f64 = if is_number { text.parse().ok()? } else { return None };
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Vec<Node> {
        Node::documents(&Source::of("stack.yml", text.as_bytes()).expect("text")).expect(text)
    }

    fn errors(text: &str) -> Vec<String> {
        let found = Node::documents(&Source::of("stack.yml", text.as_bytes()).expect("text"));
        found.expect_err(text).iter().map(ToString::to_string).collect()
    }

    /// The keys and values of a tree, with their lines, as `a.b=value@3`.
    fn leaves(node: &Node) -> Vec<String> {
        fn walk(node: &Node, path: &str, found: &mut Vec<String>) {
            match &node.value {
                Value::Map(entries) => {
                    entries.iter().for_each(|entry| walk(&entry.node, &format!("{path}.{}", entry.key), found));
                }
                Value::List(items) => {
                    items.iter().enumerate().for_each(|(index, item)| walk(item, &format!("{path}.{index}"), found));
                }
                scalar => found.push(format!("{}={scalar}@{}", path.trim_start_matches('.'), node.at.line)),
            }
        }
        let mut found = Vec::new();
        walk(node, "", &mut found);
        found
    }

    /// Plain scalars, and what go-yaml 3.0.6 prints for them with `fmt.Sprint` and calls their type.
    #[test]
    fn plain_scalars_are_what_go_yaml_takes_them_for() {
        const CASES: &str = include_str!("../../tests/data/swarm/scalars.json");
        let cases: Vec<[String; 3]> = serde_json::from_str(CASES).expect("a list of three");
        for [text, kind, printed] in cases {
            let value = resolve(&text);
            let found = match value {
                Value::Null => "null",
                Value::Bool(_) => "bool",
                Value::Int(_) => "int",
                Value::Float(_) => "float",
                _ => "string",
            };
            assert_eq!((found, value.to_string()), (kind.as_str(), printed), "{text:?}");
        }
    }

    #[test]
    fn places_anchors_and_merges_are_followed() {
        let text = "x-base: &base\n  image: a:1\n  replicas: 2\nservices:\n  one:\n    <<: *base\n    image: b\n  two:\n    \
                    <<: [{image: c}, *base]\n";
        assert_eq!(
            leaves(&documents(text)[0]),
            [
                "x-base.image=a:1@2",
                "x-base.replicas=2@3",
                "services.one.image=b@7",
                "services.one.replicas=2@3",
                "services.two.image=c@9",
                "services.two.replicas=2@3",
            ]
        );
        let [first, second] = &documents("a: 1\r\n---\r\nb: !reset null\r\nc: !override [x]\r\n")[..] else {
            panic!("two")
        };
        assert_eq!((leaves(first), leaves(second)), (vec!["a=1@1".into()], vec!["b=<nil>@3".into(), "c.0=x@4".into()]));
        assert_eq!(
            [second.get("b"), second.get("c")].map(|node| node.expect("there").tag),
            [Some(Tag::Reset), Some(Tag::Override)]
        );
        assert_eq!(documents("a: &x {b: *y}\n".replace("*y", "1").as_str()).len(), 1);
        assert!(documents("").is_empty());
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        assert_eq!(
            errors("a:\n  b: 1\n  c: 2\n  b: 3\n80: x\n? [a]\n: y\n"),
            [
                "stack.yml:4:3: the key 'b' is here again, and before in line 2; remove one",
                "stack.yml:5:1: found 80 as a key, expected text; put it in quotes",
                "stack.yml:6:3: found a list or a map as a key, expected text",
            ]
        );
        assert_eq!(
            errors("a: !vault x\n"),
            ["stack.yml:1:11: found the tag !vault, expected none, !reset or !override"]
        );
        assert_eq!(errors("a: !!int x\n"), ["stack.yml:1:10: 'x' does not fit the tag !!int"]);
        assert_eq!(
            errors("a: &x\n  b: *x\n"),
            ["stack.yml:2:6: the anchor is around its own alias, and the value would have no end"]
        );
        assert_eq!(errors("a:\n  <<: 3\n"), ["stack.yml:2:3: '<<' merges maps, and this is none"]);
        assert!(errors("a: [1\nb: 2\n")[0].starts_with("stack.yml:"), "{:?}", errors("a: [1\nb: 2\n"));
        assert!(errors("a: *none\n")[0].starts_with("stack.yml:1:"));
    }

    #[test]
    fn small_files_stay_small() {
        let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, number| {
            let before = number - 1;
            text + &format!("a{number}: &a{number} [*a{before}, *a{before}]\n")
        });
        assert!(errors(&bomb)[0].contains("more than 200000 values"));
        let nested = format!("{}{}{}", "[".repeat(60), "x, ".repeat(100_000), "]".repeat(60));
        assert!(errors(&nested)[0].contains("4000000 steps"), "{:?}", errors(&nested));
        assert!(errors(&format!("? {}\n: x\n", "k".repeat(1025)))[0].contains("a key of 1025 bytes"));
        let deep = (1..100).fold("a0: &a0 [x]\n".to_owned(), |text, number| {
            text + &format!("a{number}: &a{number} [*a{}]\n", number - 1)
        });
        assert!(errors(&deep)[0].contains("nested deeper than 64"));
        for (open, closed) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
            for count in [100, 100_000] {
                let text = open.repeat(count) + "x" + &closed.repeat(count);
                assert!(errors(&text)[0].contains("nest"), "{open} {count}: {:?}", errors(&text));
            }
        }
    }
}
