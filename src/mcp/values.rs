//! The maximum number of values in a message. A parsed message is a tree, in which an empty list, two bytes in the
//! message, needs a hundred; so they are counted before anything is parsed.

use serde_json::Value;

/// Values of one message. The largest call writes a thousand documents, so this is a hundred for each.
pub const VALUES_MAX: usize = 100_000;
/// Arguments that are always texts: never parsed as JSON.
const TEXTS: &[&str] = &["text", "content"];

/// Whether JSON has more than [`VALUES_MAX`] values: each follows an opening bracket or a comma. One pass; the parser
/// detects invalid JSON.
#[must_use]
pub fn are_too_many(json: &[u8]) -> bool {
    // Each needs a byte.
    json.len() > VALUES_MAX && count(json) > VALUES_MAX
}

/// The same for texts within arguments that may be read as JSON, all together.
pub(super) fn are_too_many_in_texts(arguments: &Value) -> bool {
    fn texts(value: &Value) -> usize {
        match value {
            Value::String(text) if text.trim_start().starts_with(['[', '{']) => count(text.as_bytes()),
            Value::Array(items) => items.iter().map(texts).sum(),
            Value::Object(fields) => fields.iter().map(|(key, value)| texts_of(key, value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    fn texts_of(key: &str, value: &Value) -> usize {
        if TEXTS.contains(&key) && value.is_string() { 0 } else { texts(value) }
    }
    texts(arguments) > VALUES_MAX
}

/// Values of JSON: each follows an opening bracket or a comma.
#[must_use]
pub fn count(json: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'[' | b'{' | b',' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// The error for such a message.
#[must_use]
pub fn too_many() -> String {
    format!("the message has more than {VALUES_MAX} values; send less at a time")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_counted_and_texts_are_one_each() {
        for (json, values) in
            [("[[],[],{}]", 6), (r#"{"a":"[[,,\",[","b":[1,2]}"#, 4), (r#""\\",[]"#, 2), ("7", 0), ("\"[[[", 0)]
        {
            assert_eq!(count(json.as_bytes()), values, "{json}");
        }
        let many = "[],".repeat(VALUES_MAX);
        assert!(are_too_many(many.as_bytes()) && !are_too_many(format!("\"{many}\"").as_bytes()));
    }

    #[test]
    fn texts_that_may_be_read_as_json_share_what_a_message_may_have() {
        let list = format!("[{}1]", "1,".repeat(VALUES_MAX / 2));
        assert!(!are_too_many_in_texts(&json!({"documents": list})));
        assert!(are_too_many_in_texts(&json!({"documents": [{"metadata": list}, {"metadata": format!(" {list}")}]})));
        assert!(!are_too_many_in_texts(&json!({"documents": [{"text": list}, {"content": list}, {"id": "a, b"}]})));
    }
}
