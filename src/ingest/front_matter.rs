//! Front matter of a Markdown file: YAML between two `---` lines, TOML between two `+++` lines, or a JSON object.
//!
//! Blank lines may precede it. A field whose value is invalid YAML (`title: *Urgent*`, a Windows path in backticks) is
//! text, and the others keep their meaning. Intended front matter that cannot be read at all stays part of the text, as
//! a separate block that is not a heading.

use std::ops::Range;

use serde_json::{Map, Value};

use super::Document;
use super::block::{lines, shorten};

/// Longest front matter that is read, in bytes. Real ones are below 2 KiB; YAML aliases make longer ones a risk.
const BYTES_MAX: usize = 64 << 10;
/// Nested brackets; the YAML reader refuses deeper nesting, after quadratic time.
const NESTING_MAX: usize = 100;
/// Longest title kept, in bytes.
pub(super) const TITLE_BYTES_MAX: usize = 300;

/// The syntax of front matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    Yaml,
    Toml,
}

/// The position of front matter in a text.
struct Fenced {
    notation: Notation,
    /// First byte of the opening fence.
    start: usize,
    /// The part between the fences.
    content: Range<usize>,
    /// First byte after the closing fence's line.
    body: usize,
}

/// The part before the text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrontMatter {
    pub(super) fields: Map<String, Value>,
    /// Where the text starts.
    pub(super) body: usize,
    /// Front matter that could not be read, to be kept as a block of text; it ends where the body starts.
    pub(super) kept: Option<Range<usize>>,
}

fn find(text: &str) -> Option<Fenced> {
    let mut all = lines(text, 0..text.len()).skip_while(|line| line.is_blank());
    let first = all.next()?;
    let (notation, ends): (_, &[&str]) = match first.content.trim_end() {
        "---" => (Notation::Yaml, &["---", "..."]),
        "+++" => (Notation::Toml, &["+++"]),
        _ => return None,
    };
    let close = all
        .take_while(|line| line.start <= first.start + BYTES_MAX)
        .find(|line| ends.contains(&line.content.trim_end()))?;
    Some(Fenced { notation, start: first.start, content: first.next..close.start, body: close.next })
}

/// Reads the front matter of `text`, if any. Two rules around prose do not count.
pub(super) fn read(text: &str, warnings: &mut Vec<String>) -> FrontMatter {
    if let Some(found) = read_json(text) {
        return found;
    }
    let Some(found) = find(text) else { return FrontMatter::default() };
    let content = &text[found.content.clone()];
    if !looks_meant(content, found.notation) {
        return FrontMatter::default();
    }
    let fields = if is_nested_deeper(content) {
        Err(format!("is nested deeper than {NESTING_MAX} levels"))
    } else {
        match found.notation {
            Notation::Yaml => read_yaml(content, warnings),
            Notation::Toml => read_toml(content),
        }
    };
    match fields {
        Ok(fields) => FrontMatter { fields, body: found.body, kept: None },
        Err(reason) => {
            warnings.push(format!("front matter {reason} and was kept as text"));
            FrontMatter { fields: Map::new(), body: found.body, kept: Some(found.start..found.body) }
        }
    }
}

/// Whether this looks like fields rather than prose between two rules.
fn looks_meant(content: &str, notation: Notation) -> bool {
    let first = content.lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let Some(first) = first else { return true };
    match notation {
        Notation::Yaml => {
            key_of(first).is_some() || first.trim_start().starts_with(['{', '[', '?', '&', '!', '"', '\''])
        }
        Notation::Toml => first.contains('=') || first.trim_start().starts_with('['),
    }
}

/// The fields, or the error.
fn read_yaml(yaml: &str, warnings: &mut Vec<String>) -> Result<Map<String, Value>, String> {
    let error = match serde_yaml::from_str::<Value>(yaml) {
        Ok(Value::Object(fields)) => return Ok(fields),
        Ok(Value::Null) => return Ok(Map::new()),
        Ok(_) => return Err("is not a YAML mapping".to_owned()),
        Err(error) => shorten(&error.to_string(), 200),
    };
    let Some((fields, odd)) = field_by_field(yaml) else { return Err(format!("is not valid YAML ({error})")) };
    warnings.push(format!("front matter is not valid YAML ({error}); taken as plain text: {}", odd.join(", ")));
    Ok(fields)
}

/// The fields of a mapping, each read separately, and the names of those whose value is taken literally. `None` when it
/// is not a list of fields, or most of them are invalid.
fn field_by_field(yaml: &str) -> Option<(Map<String, Value>, Vec<String>)> {
    let mut entries: Vec<(&str, Range<usize>)> = Vec::new();
    for line in lines(yaml, 0..yaml.len()) {
        if let Some(key) = key_of(line.content) {
            entries.push((key, line.start..line.next));
        } else if line.is_blank() || line.content.starts_with([' ', '\t', '#', '-', ']', '}']) {
            if let Some((_, range)) = entries.last_mut() {
                range.end = line.next;
            }
        } else {
            return None;
        }
    }
    let (mut fields, mut odd) = (Map::new(), Vec::new());
    for (key, range) in &entries {
        let entry = &yaml[range.clone()];
        match serde_yaml::from_str::<Value>(entry) {
            Ok(Value::Object(read)) => fields.extend(read),
            _ => {
                let value = entry.split_once(':').map_or("", |(_, value)| value);
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                fields.insert((*key).to_owned(), Value::String(value));
                odd.push((*key).to_owned());
            }
        }
    }
    (odd.len() * 2 <= entries.len() || entries.len() == 1).then_some((fields, odd))
}

/// The name in a line `name: value` that starts at the margin.
fn key_of(line: &str) -> Option<&str> {
    let (key, value) = line.split_once(':')?;
    let is_key = key.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$')
        && key.len() <= 80
        && key.trim_end().chars().all(|c| c.is_alphanumeric() || "_-. /$".contains(c))
        && key.split(' ').count() <= 4;
    (is_key && (value.is_empty() || value.starts_with([' ', '\t', '\r']))).then(|| key.trim_end())
}

fn read_toml(content: &str) -> Result<Map<String, Value>, String> {
    // Each dot of a key is a table within a table.
    let keys = content.lines().map(|line| line.split('=').next().unwrap_or_default());
    if keys.map(|key| key.matches('.').count()).max().is_some_and(|dots| dots > NESTING_MAX) {
        return Err(format!("is nested deeper than {NESTING_MAX} levels"));
    }
    match toml::from_str::<toml::Table>(content) {
        Ok(table) => Ok(table.into_iter().map(|(key, value)| (key, json_of(value))).collect()),
        Err(error) => Err(format!("is not valid TOML ({})", shorten(error.message(), 200))),
    }
}

/// Dates become text, as they are written.
fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(on) => on.into(),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => items.into_iter().map(json_of).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, json_of(value))).collect())
        }
    }
}

/// A JSON object on separate lines at the start, as Hugo supports it.
fn read_json(text: &str) -> Option<FrontMatter> {
    let start = text.len() - text.trim_start().len();
    let head = &text[start..text.floor_char_boundary(start + BYTES_MAX)];
    if !head.starts_with('{') || is_nested_deeper(head.get(..head.find("\n}").unwrap_or(head.len()))?) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(head).into_iter::<Value>();
    let Some(Ok(Value::Object(fields))) = values.next() else { return None };
    let end = start + values.byte_offset();
    let rest = &text[end..];
    let line = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
    (!fields.is_empty() && rest[..line].trim().is_empty()).then_some(FrontMatter {
        fields,
        body: end + line,
        kept: None,
    })
}

/// Whether more than [`NESTING_MAX`] brackets or collections within a line are open at once. Brackets in strings count
/// too: nobody writes front matter with a hundred unclosed ones in a string.
fn is_nested_deeper(yaml: &str) -> bool {
    let mut open = 0usize;
    for line in yaml.lines() {
        // `- - - x` and `? ? ? x`: each mark opens a collection within the one before.
        let marks = line.split_ascii_whitespace().take_while(|word| matches!(*word, "-" | "?")).count();
        if marks > NESTING_MAX {
            return true;
        }
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > NESTING_MAX {
                return true;
            }
        }
    }
    false
}

/// Moves `title` and the address from `fields`; the rest becomes the document's metadata.
pub(super) fn apply(document: &mut Document, mut fields: Map<String, Value>) {
    document.title = take_text(&mut fields, &["title", "Title"]).map(|title| shorten(&title, TITLE_BYTES_MAX));
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
        // The order is kept: metadata is shown as written.
        fields.shift_remove(key);
        return Some((key, text));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_one(text: &str) -> (Value, &str, Vec<String>) {
        let mut warnings = Vec::new();
        let found = read(text, &mut warnings);
        (Value::Object(found.fields), &text[found.body..], warnings)
    }

    #[test]
    fn fields_are_read_and_the_body_follows() {
        let (fields, body, _) = read_one("---\r\ntitle: A\r\ntags: [x, y]\r\nnested: {a: 1}\r\n---\r\nbody");
        assert_eq!(fields, json!({"title": "A", "tags": ["x", "y"], "nested": {"a": 1}}));
        assert_eq!(body, "body");
        assert_eq!(read_one("\n\n---\ntitle: A\n---\nbody"), (json!({"title": "A"}), "body", vec![]));
    }

    #[test]
    fn toml_and_json_are_front_matter_too() {
        let toml = "+++\ntitle = \"Kiln\"\ndate = 2026-05-04\nweight = 3\n[extra]\nteam = \"heat\"\n+++\n\nWords.";
        let (fields, body, warnings) = read_one(toml);
        assert_eq!(fields, json!({"title": "Kiln", "date": "2026-05-04", "weight": 3, "extra": {"team": "heat"}}));
        assert_eq!((body, warnings.len()), ("\nWords.", 0));
        assert_eq!(read_one("{\n  \"title\": \"Kiln\"\n}\nWords."), (json!({"title": "Kiln"}), "Words.", vec![]));
        assert_eq!(read_one("{{ template }}\nWords.").1, "{{ template }}\nWords.");
        let (_, body, warnings) = read_one("+++\ntitle = \n+++\nWords.");
        assert_eq!(body, "Words.");
        assert!(warnings[0].starts_with("front matter is not valid TOML"), "{warnings:?}");
    }

    #[test]
    fn a_broken_value_is_text_and_the_others_keep_their_meaning() {
        for (line, key, value) in [
            ("title: *Gentle* start", "title", "*Gentle* start"),
            ("title: KB: resets", "title", "KB: resets"),
            ("source: `D:\\pumps\\new`", "source", "`D:\\pumps\\new`"),
            ("title: @home", "title", "@home"),
        ] {
            let text = format!("---\n{line}\nteam: water\nyear: 2026\n---\n\nBody.");
            let (fields, body, warnings) = read_one(&text);
            assert_eq!(
                (&fields[key], &fields["team"], &fields["year"]),
                (&json!(value), &json!("water"), &json!(2026))
            );
            assert_eq!(body, "\nBody.");
            assert!(warnings[0].ends_with(&format!("taken as plain text: {key}")), "{warnings:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_at_all_is_kept_as_a_block_of_text() {
        let mut warnings = Vec::new();
        let text = "---\na: [\nb: {\nwords that belong to nothing\n---\nbody";
        let found = read(text, &mut warnings);
        assert_eq!((found.fields.len(), found.kept, &text[found.body..]), (0, Some(0..text.len() - 4), "body"));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn thematic_breaks_are_no_front_matter() {
        for text in ["---\njust words\n---\n", "---\nno end", "---\n\nA page.\n\n# Heading\n\n---\n\nLast: words.\n"] {
            assert_eq!(read_one(text), (json!({}), text, vec![]));
        }
    }

    #[test]
    fn deep_nesting_is_a_warning_at_once() {
        for open in ["[", "{", "[{", "- ", "? ", "a: ["] {
            let mut warnings = Vec::new();
            let text = format!("---\na: 1\nb:\n  {}\n---\nbody", open.repeat((BYTES_MAX - 100) / open.len()));
            let found = read(&text, &mut warnings);
            assert!(found.fields.is_empty() && found.kept.is_some(), "{open}");
            assert!(warnings.iter().all(|warning| warning.contains("nested deeper")), "{open}: {warnings:?}");
            assert_eq!(warnings.len(), 1, "{open}");
        }
        let text = format!("+++\n{}a = 1\n+++\nbody", "a.".repeat(20_000));
        assert!(read(&text, &mut Vec::new()).kept.is_some());
        let nested = format!("---\na: {}{}\n---\nbody", "[".repeat(60), "]".repeat(60));
        assert!(!read(&nested, &mut Vec::new()).fields.is_empty(), "ordinary depths are read");
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
        assert!(read(&yaml, &mut warnings).fields.is_empty());
        assert_eq!(warnings.len(), 1);
    }
}
