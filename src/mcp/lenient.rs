//! Lenient reading of arguments: a deserializer over JSON that accepts what models and client libraries send for a
//! value if it can mean only one thing, and reports for everything else which argument it is, what was found and what
//! was expected.
//!
//! | expected | also accepted |
//! |---|---|
//! | a whole number | `5.0`, `"5"` |
//! | a number | `"0.5"` |
//! | true or false | `"true"` |
//! | a text | a number |
//! | a list | one item, or the list as JSON text |
//! | an object | the object as JSON text; a text where the object has a field `text` |
//! | a word of several | the same in other case |
//! | an argument that may be left out | null |

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::{Map, Value};

/// Above it a number with a fraction may represent several integers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// How much of a wrong text is shown.
const SHOWN_MAX: usize = 60;

/// Why arguments cannot be read.
#[derive(Debug)]
pub(super) struct Mistake {
    /// Where: `documents[2].metadata`; empty for the arguments as a whole.
    pub(super) place: String,
    pub(super) what: MistakeKind,
}

/// The kind of mistake.
#[derive(Debug)]
pub(super) enum MistakeKind {
    /// In words that follow the place.
    Wrong(String),
    /// The value found in place of a number.
    NoNumber { found: String, expected: &'static str },
    /// The value found in place of one of several words; the accepted ones, with their other names.
    NoChoice { found: String, known: &'static [&'static str] },
    /// A field that does not exist; all that do, with their other names.
    Unknown { field: String, known: &'static [&'static str] },
    /// A field that has to be there.
    Missing(&'static str),
    /// A field that is given under two names; the second of them.
    Twice { field: &'static str, name: String },
}

impl Mistake {
    fn new(what: MistakeKind) -> Self {
        Self { place: String::new(), what }
    }

    fn within(mut self, outer: &str) -> Self {
        let inner = self.place;
        self.place = match inner.as_bytes().first() {
            None => outer.to_owned(),
            Some(b'[') => format!("{outer}{inner}"),
            Some(_) => format!("{outer}.{inner}"),
        };
        self
    }

    fn no_number(found: &Value, expected: &'static str) -> Self {
        Self::new(MistakeKind::NoNumber { found: describe(found), expected })
    }

    fn expected(found: &Value, expected: &str) -> Self {
        Self::new(MistakeKind::Wrong(format!("is {}, expected {expected}", describe(found))))
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => shown_text(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn shown_text(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("'{}…'", &text[..end]),
        None => format!("'{text}'"),
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, what } = self;
        match what {
            MistakeKind::Wrong(words) if place.is_empty() => f.write_str(words),
            MistakeKind::Wrong(words) => write!(f, "{place} {words}"),
            MistakeKind::NoNumber { found, expected } => write!(f, "{place} is {found}, expected {expected}"),
            MistakeKind::NoChoice { found, known } => {
                write!(f, "{place} is {found}, expected one of {}", known.join(", "))
            }
            MistakeKind::Unknown { field, .. } => write!(f, "unknown argument '{field}'"),
            MistakeKind::Missing(field) => write!(f, "'{field}' is missing"),
            MistakeKind::Twice { field, name } => write!(f, "'{field}' is given twice, also as '{name}'"),
        }
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(MistakeKind::Wrong(message.to_string()))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Str(text) => shown_text(text),
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Float(number) => number.to_string(),
            other => other.to_string(),
        };
        Self::new(MistakeKind::Wrong(format!("is {found}, expected {expected}")))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(MistakeKind::NoChoice { found: shown_text(found), known: expected })
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(MistakeKind::Unknown { field: field.to_owned(), known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(MistakeKind::Missing(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(MistakeKind::Twice { field, name: String::new() })
    }
}

/// A value from a caller.
pub(super) struct RawValue(pub(super) Value);

impl RawValue {
    fn whole(&self) -> Option<i128> {
        let from_float = |number: f64| (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i128);
        match &self.0 {
            Value::Number(number) => {
                let exact = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
                exact.or_else(|| number.as_f64().and_then(from_float))
            }
            Value::String(text) => {
                let text = text.trim();
                text.parse().ok().or_else(|| text.parse().ok().and_then(from_float))
            }
            _ => None,
        }
    }

    fn unsigned<T: TryFrom<i128>>(&self) -> Result<T, Mistake> {
        let number = self.whole().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| Mistake::no_number(&self.0, "a whole number of at least 0"))
    }

    fn signed<T: TryFrom<i128>>(&self) -> Result<T, Mistake> {
        let number = self.whole().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| Mistake::no_number(&self.0, "a whole number"))
    }

    fn number(&self) -> Result<f64, Mistake> {
        let number = match &self.0 {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number: &f64| number.is_finite()).ok_or_else(|| Mistake::no_number(&self.0, "a number"))
    }
}

/// A value that was written as JSON text, when it is one of this kind.
fn from_text(text: &str, opening: char) -> Option<Value> {
    text.trim_start().starts_with(opening).then(|| serde_json::from_str(text).ok()).flatten()
}

/// An object, also when it was given as JSON text; anything else unchanged.
pub(super) fn object_from_text(value: Value) -> Value {
    match &value {
        Value::String(text) => from_text(text, '{').unwrap_or(value),
        _ => value,
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $read:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            visitor.$visit(self.$read()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for RawValue {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.0.deserialize_any(visitor).map_err(de::Error::custom)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.0 {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) if text.trim().eq_ignore_ascii_case("true") => visitor.visit_bool(true),
            Value::String(text) if text.trim().eq_ignore_ascii_case("false") => visitor.visit_bool(false),
            other => Err(Mistake::expected(other, "true or false")),
        }
    }

    integers! {
        deserialize_u8 visit_u8 unsigned, deserialize_u16 visit_u16 unsigned, deserialize_u32 visit_u32 unsigned,
        deserialize_u64 visit_u64 unsigned, deserialize_u128 visit_u128 unsigned,
        deserialize_i8 visit_i8 signed, deserialize_i16 visit_i16 signed, deserialize_i32 visit_i32 signed,
        deserialize_i64 visit_i64 signed, deserialize_i128 visit_i128 signed,
        deserialize_f64 visit_f64 number
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_f32(self.number()? as f32)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Number(number) => visitor.visit_string(number.to_string()),
            other => Err(Mistake::expected(&other, "a text")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_string(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let items = match self.0 {
            Value::Array(items) => items,
            Value::String(text) => match from_text(&text, '[') {
                Some(Value::Array(items)) => items,
                _ => vec![Value::String(text)],
            },
            one => vec![one],
        };
        visitor.visit_seq(Items { items: items.into_iter(), next: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match object_from_text(self.0) {
            Value::Object(fields) => visitor.visit_map(&mut Fields::new(fields, false)),
            other => Err(Mistake::expected(&other, "an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let fields = match self.0 {
            Value::Object(fields) => fields,
            Value::String(text) if known.contains(&"text") => Map::from_iter([("text".to_owned(), text.into())]),
            other => match object_from_text(other) {
                Value::Object(fields) => fields,
                other => {
                    let example =
                        if known.contains(&"text") { "an object such as {\"text\": \"…\"}" } else { "an object" };
                    return Err(Mistake::expected(&other, example));
                }
            },
        };
        let mut fields = Fields::new(fields, true);
        visitor.visit_map(&mut fields).map_err(|mut mistake| {
            if let MistakeKind::Twice { name, .. } = &mut mistake.what
                && name.is_empty()
            {
                *name = fields.key;
            }
            mistake
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::String(text) => {
                let same = variants.iter().find(|variant| variant.eq_ignore_ascii_case(text.trim()));
                let variant = same.map_or(text.as_str(), |variant| variant);
                let variant: StrDeserializer<'_, Mistake> = variant.into_deserializer();
                visitor.visit_enum(variant)
            }
            other => Err(Mistake::new(MistakeKind::NoChoice { found: describe(&other), known: variants })),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The items of a list.
struct Items {
    items: std::vec::IntoIter<Value>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let place = self.next;
        self.next += 1;
        seed.deserialize(RawValue(item)).map(Some).map_err(|mistake| mistake.within(&format!("[{place}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The fields of an object.
struct Fields {
    fields: serde_json::map::IntoIter,
    /// Whether null means that a field was left out.
    skips_null: bool,
    key: String,
    value: Value,
}

impl Fields {
    fn new(fields: Map<String, Value>, skips_null: bool) -> Self {
        Self { fields: fields.into_iter(), skips_null, key: String::new(), value: Value::Null }
    }
}

impl<'de> MapAccess<'de> for &mut Fields {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        let skips_null = self.skips_null;
        let Some((key, value)) = self.fields.find(|(_, value)| !(skips_null && value.is_null())) else {
            return Ok(None);
        };
        (self.key, self.value) = (key, value);
        let key: StrDeserializer<'_, Mistake> = self.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        seed.deserialize(RawValue(self.value.take())).map_err(|mistake| mistake.within(&self.key))
    }
}
