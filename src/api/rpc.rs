//! Answers to invalid messages: the error object of JSON-RPC, for HTTP and stdio.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::mcp::values;

/// Not JSON.
const PARSE_ERROR: i32 = -32_700;
/// JSON, and not a request.
const INVALID_REQUEST: i32 = -32_600;
/// Longest id that is sent back.
const ID_BYTES_MAX: usize = 256;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Why a message cannot be answered, as the text of a JSON-RPC response.
#[derive(Debug)]
pub(super) struct Malformed {
    id: Value,
    code: i32,
    message: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, code, message } = self;
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).fmt(f)
    }
}

/// The members that every message has, as they were written. One of `null` is there.
#[derive(Deserialize, Default)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// A message without the mark that some editors and shells put first.
pub(super) fn without_mark(message: &[u8]) -> &[u8] {
    message.strip_prefix(BYTE_ORDER_MARK).unwrap_or(message)
}

/// Whether a message is a request because it has an id, even an invalid one. `null` counts: its sender waits for an
/// answer.
pub(super) fn has_id(message: &[u8]) -> bool {
    members(message).is_some_and(|members| members.id.is_some())
}

/// The method that a message names.
pub(super) fn method(message: &[u8]) -> Option<String> {
    serde_json::from_str(members(message)?.method?.get()).ok()
}

/// Whether no answer to a message is expected: a notification, or an answer itself.
pub(super) fn wants_no_answer(message: &[u8]) -> bool {
    members(message).is_some_and(|members| {
        let is_answer = members.result.is_some() || members.error.is_some();
        (members.method.is_some() && members.id.is_none()) || (members.method.is_none() && is_answer)
    })
}

/// The error for a message that is too large.
pub(super) fn too_large(id: Option<Value>, most: usize) -> Malformed {
    let most = crate::base::ByteSize(most as u64);
    let message = format!("the message is larger than {most} (server.request_bytes_max); send less at a time");
    Malformed { id: id.unwrap_or_default(), code: INVALID_REQUEST, message }
}

/// A message of more values than are read.
pub(super) fn too_many_values(message: &[u8]) -> Malformed {
    let mut finder = IdFinder::default();
    finder.scan(without_mark(message));
    Malformed { id: finder.id().unwrap_or_default(), code: INVALID_REQUEST, message: values::too_many() }
}

/// The error for an unreadable message.
pub(super) fn malformed(message: &[u8]) -> Malformed {
    let message = without_mark(message);
    let unread = |id, message| Malformed { id, code: PARSE_ERROR, message };
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(message) {
        return unread(Value::Null, format!("the message is not JSON: {error}"));
    }
    // It has the form of JSON, and something in it that is none.
    let found = match std::str::from_utf8(message) {
        Err(error) => Err(not_utf8(message, error.valid_up_to())),
        // Escapes have their four digits, or it would have no form: half of a pair is all that can be wrong with one.
        Ok(_) => serde_json::from_slice::<Sound>(message).map(drop).map_err(|error| {
            error.to_string().replace("unexpected end of hex escape", "lone surrogate in a \\u escape")
        }),
    };
    if let Err(words) = found {
        let mut finder = IdFinder::default();
        finder.scan(message);
        return unread(finder.id().unwrap_or_default(), format!("the message cannot be read: {words}"));
    }
    let refused = |id, message: String| Malformed { id, code: INVALID_REQUEST, message };
    let found = match message.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {
            return match members(message) {
                Some(members) => {
                    let id = members.id.and_then(|id| echoed(id.get()));
                    refused(id.unwrap_or_default(), members.mistake())
                }
                // All other errors were checked before.
                None => {
                    let error = serde_json::from_slice::<Members<'_>>(message).err();
                    let which = error.map(|error| format!(": {error}")).unwrap_or_default();
                    refused(Value::Null, format!("the message has a member twice{which}"))
                }
            };
        }
        Some(b'[') => {
            let message = "the message is a batch; Cairn does not accept batches: send each request separately";
            return refused(Value::Null, message.to_owned());
        }
        Some(b'"') => "a text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    };
    refused(Value::Null, format!("the message is {found}, expected an object such as {EXAMPLE}"))
}

/// Where a message stops being UTF-8.
fn not_utf8(message: &[u8], at: usize) -> String {
    let (before, byte) = (&message[..at], message.get(at).copied().unwrap_or_default());
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.len() - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) + 1;
    format!("it is not UTF-8: byte {byte:#04x} at line {line} column {column}")
}

/// JSON whose texts, numbers and depth are such as can be kept; nothing of it is.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Sound)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self, E> {
        if number.is_finite() { Ok(self) } else { Err(E::custom("number out of range")) }
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

const EXAMPLE: &str = r#"{"jsonrpc": "2.0", "id": 1, "method": "ping"}"#;

fn members(message: &[u8]) -> Option<Members<'_>> {
    let message = without_mark(message);
    // A list would be read as the members in their order.
    let is_object = message.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    is_object.then(|| serde_json::from_slice(message).ok()).flatten()
}

/// An id as it can be sent back.
pub(super) fn echoed(id: &str) -> Option<Value> {
    let id = (id.len() <= ID_BYTES_MAX).then(|| serde_json::from_str(id).ok()).flatten()?;
    match &id {
        Value::String(_) => Some(id),
        Value::Number(number) if number.is_i64() => Some(id),
        _ => None,
    }
}

impl Members<'_> {
    /// Its error, if any.
    fn mistake(&self) -> String {
        let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        let shown = |raw: &RawValue| {
            let (text, most) = (raw.get(), 60);
            let end = text.char_indices().nth(most).map_or(text.len(), |(at, _)| at);
            if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
        };
        match self.jsonrpc {
            None => return format!("jsonrpc is missing, expected {EXAMPLE}"),
            Some(version) if text(version).as_deref() != Some("2.0") => {
                return format!("jsonrpc is {}, expected \"2.0\"", shown(version));
            }
            Some(_) => {}
        }
        if let Some(id) = self.id
            && echoed(id.get()).is_none()
        {
            return format!(
                "id is {}, expected a text or a whole number within 64 bits; a notification has none",
                shown(id)
            );
        }
        match (self.method, self.params) {
            (None, _) => format!("method is missing, expected {EXAMPLE}"),
            (Some(method), _) if text(method).is_none() => format!("method is {}, expected a text", shown(method)),
            (Some(_), Some(params)) if !params.get().starts_with('{') => {
                format!("params is {}, expected an object", shown(params))
            }
            (Some(method), _) => format!("params is not what {} takes", shown(method)),
        }
    }
}

/// Finds the id of a message that is too large to be kept, as its bytes go by: a member of the outermost object.
#[derive(Debug, Default)]
pub(super) struct IdFinder {
    depth: usize,
    text: Option<Text>,
    /// The part read of a key or a value of the outermost object.
    kept: Vec<u8>,
    is_key: bool,
    is_id: bool,
    found: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    Escape,
}

impl IdFinder {
    /// Looks at the next bytes.
    pub(super) fn scan(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.found.is_some() {
                return;
            }
            self.step(byte);
        }
    }

    /// The result.
    pub(super) fn id(self) -> Option<Value> {
        self.found
    }

    fn step(&mut self, byte: u8) {
        let keeps = self.depth == 1 && (self.is_key || self.is_id) && self.kept.len() <= ID_BYTES_MAX;
        if let Some(text) = self.text {
            if keeps {
                self.kept.push(byte);
            }
            self.text = match (text, byte) {
                (Text::Escape, _) => Some(Text::Plain),
                (Text::Plain, b'\\') => Some(Text::Escape),
                (Text::Plain, b'"') => None,
                (Text::Plain, _) => Some(Text::Plain),
            };
            return;
        }
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                (self.is_key, self.is_id) = (self.depth == 1, false);
                self.kept.clear();
            }
            b'}' | b']' => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
            }
            b':' if self.depth == 1 => {
                (self.is_id, self.is_key) = (self.kept == b"\"id\"", false);
                self.kept.clear();
            }
            b',' if self.depth == 1 => {
                self.end_value();
                self.is_key = true;
            }
            b'"' => {
                self.text = Some(Text::Plain);
                if keeps {
                    self.kept.push(byte);
                }
            }
            _ if byte.is_ascii_whitespace() => {}
            _ if keeps => self.kept.push(byte),
            _ => {}
        }
    }

    fn end_value(&mut self) {
        if self.depth == 1 && self.is_id {
            self.found = std::str::from_utf8(&self.kept).ok().and_then(echoed);
        }
        self.is_id = false;
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_by_its_code_and_in_words() {
        for (message, code, id, words) in [
            (r#"{"jsonrpc":"2.0","id":1,"#, PARSE_ERROR, Value::Null, "not JSON"),
            ("", PARSE_ERROR, Value::Null, "not JSON"),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, INVALID_REQUEST, Value::Null, "batch"),
            ("7", INVALID_REQUEST, Value::Null, "a number"),
            (r#"{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}"#, INVALID_REQUEST, Value::Null, r#"id is {"a":1}"#),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, INVALID_REQUEST, Value::Null, "id is null"),
            (r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"ping"}"#, INVALID_REQUEST, Value::Null, "64 bits"),
            (r#"{"jsonrpc":"2.0","id":4,"method":"ping","params":[]}"#, INVALID_REQUEST, json!(4), "params is []"),
            (r#"{"jsonrpc":"1.0","id":"x","method":"ping"}"#, INVALID_REQUEST, json!("x"), "jsonrpc is \"1.0\""),
            (r#"{"id":"x","method":"ping"}"#, INVALID_REQUEST, json!("x"), "jsonrpc is missing"),
            (r#"{"jsonrpc":"2.0","id":4}"#, INVALID_REQUEST, json!(4), "method is missing"),
            (r#"{"jsonrpc":"2.0","id":4,"method":7}"#, INVALID_REQUEST, json!(4), "method is 7"),
        ] {
            let answer: Value = serde_json::from_str(&malformed(message.as_bytes()).to_string()).expect("JSON");
            assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{message}: {answer}");
            assert!(answer["error"]["message"].as_str().expect("words").contains(words), "{message}: {answer}");
        }
    }

    #[test]
    fn what_has_the_form_of_json_and_cannot_be_read_is_said_with_its_place() {
        let deep = format!(r#"{{"jsonrpc":"2.0","id":3,"params":{}{}}}"#, "[".repeat(300), "]".repeat(300));
        for (message, words) in [
            (&b"{\"jsonrpc\":\"2.0\",\n\"id\":3,\"method\":\"Gr\xf6\xdfe\"}"[..], "byte 0xf6 at line 2 column 20"),
            (
                br#"{"jsonrpc":"2.0","id":3,"method":"ping","params":{"query":"\ud800"}}"#,
                "lone surrogate in a \\u escape at line 1",
            ),
            (br#"{"jsonrpc":"2.0","id":3,"method":"ping","params":{"limit":1e400}}"#, "out of range at line 1"),
            (deep.as_bytes(), "recursion limit"),
        ] {
            let answer: Value = serde_json::from_str(&malformed(message).to_string()).expect("JSON");
            assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(PARSE_ERROR), &json!(3)), "{answer}");
            assert!(answer["error"]["message"].as_str().expect("words").contains(words), "{answer}");
        }
        let twice = malformed(br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"ping"}"#).to_string();
        assert!(twice.contains("a member twice: duplicate field `method`"), "{twice}");
    }

    #[test]
    fn who_waits_for_an_answer_is_seen() {
        for message in [r#"{"id":null,"method":"x"}"#, r#" {"method":"x","id":[]}"#, "\u{feff}{\"id\":1}"] {
            assert!(has_id(message.as_bytes()) && !wants_no_answer(message.as_bytes()), "{message}");
        }
        for message in [r#"{"method":"x"}"#, r#"{"id":1,"result":{}}"#, r#"{"id":null,"error":{"code":1}}"#] {
            assert!(wants_no_answer(message.as_bytes()), "{message}");
        }
    }

    #[test]
    fn an_id_is_found_wherever_it_is_and_nothing_else_is_taken_for_it() {
        let find = |message: &str| {
            let mut finder = IdFinder::default();
            message.as_bytes().chunks(3).for_each(|chunk| finder.scan(chunk));
            finder.id()
        };
        for (message, id) in [
            (r#"{"jsonrpc":"2.0","id":6,"method":"x","params":{"id":7,"t":"#, Some(json!(6))),
            (r#"{"params":{"id":7,"a":[{"id":8}]}, "id" : "a\"}b" ,"method":"x"}"#, Some(json!("a\"}b"))),
            (r#"{"method":"\"id\":3,","params":["id",4],"id":-5}"#, Some(json!(-5))),
            (r#"{"params":{"text":"{\"id\":1}"},"method":"id"}"#, None),
            (r#"{"id":{"id":1},"method":"x"}"#, None),
            (r#"[{"id":1}]"#, None),
            (r#"{"id":1"#, None),
        ] {
            assert_eq!(find(message), id, "{message}");
        }
    }
}
