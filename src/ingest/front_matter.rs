//! YAML between two `---` lines at the start of a Markdown file.

use std::ops::Range;

use serde_json::{Map, Value};

use super::Document;
use super::block::{lines, shorten};

/// Longest front matter that is read, in bytes. Real ones are below 2 KiB; YAML aliases make longer ones a risk.
const BYTES_MAX: usize = 64 << 10;
/// Longest title kept, in bytes.
pub(super) const TITLE_BYTES_MAX: usize = 300;

/// Where front matter lies in a text.
struct Fenced {
    /// The YAML between the fences.
    yaml: Range<usize>,
    /// First byte behind the closing fence's line.
    body: usize,
}

fn find(text: &str) -> Option<Fenced> {
    let mut all = lines(text, 0..text.len());
    let first = all.next().filter(|line| line.content.trim_end() == "---")?;
    let close =
        all.take_while(|line| line.start <= BYTES_MAX).find(|line| matches!(line.content.trim_end(), "---" | "..."))?;
    Some(Fenced { yaml: first.next..close.start, body: close.next })
}

/// Reads the front matter of `text`, if any: its fields and the offset at which the body starts. What is no YAML
/// mapping stays part of the text; broken YAML also leaves a warning.
pub(super) fn read(text: &str, warnings: &mut Vec<String>) -> (Map<String, Value>, usize) {
    let Some(found) = find(text) else { return (Map::new(), 0) };
    match serde_yaml::from_str::<Value>(&text[found.yaml]) {
        Ok(Value::Object(fields)) => (fields, found.body),
        Ok(Value::Null) => (Map::new(), found.body),
        // Two thematic breaks around prose.
        Ok(_) => (Map::new(), 0),
        Err(error) => {
            let message = shorten(&error.to_string(), 200);
            warnings.push(format!("front matter is not valid YAML and was kept as text: {message}"));
            (Map::new(), 0)
        }
    }
}

/// Moves `title` and the address out of `fields`; the rest becomes the document's metadata.
pub(super) fn apply(document: &mut Document, mut fields: Map<String, Value>) {
    document.title = take_text(&mut fields, &["title"]).map(|title| shorten(&title, TITLE_BYTES_MAX));
    document.url = take_text(&mut fields, &["url", "permalink", "canonical", "canonical_url"]);
    document.metadata = fields;
}

/// Removes and returns the first of `keys` whose value is a non-empty string or a number.
pub(super) fn take_text(fields: &mut Map<String, Value>, keys: &[&'static str]) -> Option<String> {
    take_field(fields, keys).map(|(_, text)| text)
}

/// The same, with the key.
pub(super) fn take_field(fields: &mut Map<String, Value>, keys: &[&'static str]) -> Option<(&'static str, String)> {
    for &key in keys {
        let text = match fields.get(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => continue,
        };
        // Order is kept: metadata is shown as written.
        fields.shift_remove(key);
        return Some((key, text));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_the_body_follows() {
        let text = "---\r\ntitle: A\r\ntags: [x, y]\r\nnested: {a: 1}\r\n---\r\nbody";
        let (fields, body) = read(text, &mut Vec::new());
        assert_eq!(&text[body..], "body");
        assert_eq!(fields["tags"], serde_json::json!(["x", "y"]));
        assert_eq!(fields["nested"]["a"], 1);
    }

    #[test]
    fn broken_yaml_stays_text_with_a_warning() {
        let mut warnings = Vec::new();
        assert_eq!(read("---\na: [\n---\nbody", &mut warnings), (Map::new(), 0));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn thematic_breaks_are_no_front_matter() {
        let mut warnings = Vec::new();
        assert_eq!(read("---\njust words\n---\n", &mut warnings).1, 0);
        assert_eq!(read("---\nno end", &mut warnings).1, 0);
        assert!(warnings.is_empty());
    }

    #[test]
    fn an_alias_bomb_is_a_warning() {
        let mut yaml = String::from("---\na0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let previous = vec![format!("*a{}", level - 1); 9].join(",");
            yaml.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        yaml.push_str("---\nbody");
        let mut warnings = Vec::new();
        assert_eq!(read(&yaml, &mut warnings).1, 0);
        assert_eq!(warnings.len(), 1);
    }
}
