//! An object as a template of Helm: text that Helm prints as it is, but for the spots where a value of the chart goes.
//!
//! Invariants: with no spot, what Helm prints is what the plain file of the object has, byte by byte, whatever text is in it. A mark of a
//! spot is a text that the object does not have.

use serde_json::Value;

use crate::deploy::manifest;

/// What begins an action of Go's `text/template`. What ends one means nothing outside of one.
const ACTION: &str = "{{";
/// An action that prints it.
const PRINTED: &str = "{{ \"{{\" }}";
/// What begins and ends a mark. Nobody writes it: it is of the part of Unicode for private use.
const MARK: char = '\u{e000}';

/// Text for a template of Helm, which Helm prints as it is.
pub(super) fn verbatim(text: &str) -> String {
    text.replace(ACTION, PRINTED)
}

/// What Helm writes at a spot.
enum Spot {
    /// What an expression comes to.
    Scalar(String),
    /// What an expression comes to, as a block of YAML.
    Tree(String),
    /// A text, and after it one more field, unless the expression is empty.
    TextAndField {
        /// The text.
        text: String,
        /// The name of the field.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

/// The spots of one object.
pub(super) struct Spots {
    mark: String,
    spots: Vec<Spot>,
}

impl Spots {
    /// None yet.
    pub(super) fn of(object: &Value) -> Self {
        let text = object.to_string();
        let mut number = 0_usize;
        loop {
            let mark = format!("{MARK}{number}-");
            if !text.contains(&mark) {
                return Self { mark, spots: Vec::new() };
            }
            number += 1;
        }
    }

    /// What to write into the object in place of a number or a text.
    ///
    /// * `expression`: prints it as YAML has it, a text in quotes.
    pub(super) fn scalar(&mut self, expression: String) -> Value {
        self.push(Spot::Scalar(expression))
    }

    /// What to write into the object in place of a mapping.
    pub(super) fn tree(&mut self, expression: String) -> Value {
        self.push(Spot::Tree(expression))
    }

    /// What to write into the object in place of a text, so that a field follows it where the expression is not empty.
    pub(super) fn text_and_field(&mut self, text: &str, field: &'static str, value: String) -> Value {
        self.push(Spot::TextAndField { text: text.to_owned(), field, value })
    }

    fn push(&mut self, spot: Spot) -> Value {
        self.spots.push(spot);
        Value::String(format!("{}{}{MARK}", self.mark, self.spots.len() - 1))
    }

    /// The template of the object that has the marks in it.
    pub(super) fn template(&self, object: &Value) -> String {
        let yaml = manifest::to_yaml(object);
        let mut template = String::with_capacity(yaml.len());
        for line in yaml.split_inclusive('\n') {
            match self.spot(line) {
                Some((before, spot, after)) => {
                    template.push_str(&verbatim(before));
                    template.push_str(&spot.text(column(before)));
                    template.push_str(&verbatim(after));
                }
                None => template.push_str(&verbatim(line)),
            }
        }
        // Helm cuts blanks off the end of an object, and they can be part of a text.
        if template.strip_suffix('\n').is_none_or(|text| text.ends_with(char::is_whitespace)) {
            template.push_str("# The end.\n");
        }
        template
    }

    /// The spot of a line, with what is before and after it.
    fn spot<'a>(&self, line: &'a str) -> Option<(&'a str, &Spot, &'a str)> {
        let (before, rest) = line.split_once(&self.mark)?;
        let (number, after) = rest.split_once(MARK)?;
        Some((before, self.spots.get(number.parse::<usize>().ok()?)?, after))
    }
}

impl Spot {
    /// Actions of Helm.
    ///
    /// * `column`: that of the field, in spaces.
    fn text(&self, column: usize) -> String {
        match self {
            Self::Scalar(expression) => format!("{{{{ {expression} }}}}"),
            Self::Tree(expression) => format!("{{{{ toYaml {expression} | nindent {} }}}}", column + 2),
            Self::TextAndField { text, field, value } => {
                let indent = " ".repeat(column);
                format!(
                    "{}\n{indent}{{{{- with {value} }}}}\n{indent}{field}: {{{{ toYaml . | nindent {} }}}}\n{indent}{{{{- end }}}}",
                    verbatim(&Value::from(text.as_str()).to_string()),
                    column + 2
                )
            }
        }
    }
}

/// Where the field of a line begins: `  - name: ` has it after four spaces.
fn column(before: &str) -> usize {
    let mut rest = before.trim_start_matches(' ');
    while let Some(behind) = rest.strip_prefix("- ") {
        rest = behind.trim_start_matches(' ');
    }
    before.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What `text/template` prints where the only actions are those that print `{{`.
    fn printed(template: &str) -> Option<String> {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, action)) = rest.split_once("{{") {
            text.push_str(before);
            text.push_str("{{");
            rest = action.strip_prefix(" \"{{\" }}")?;
        }
        Some(text + rest)
    }

    #[test]
    fn spots_are_where_the_marks_are() {
        let mut object = json!({"a": 1, "list": [{"name": "x", "rest": {}}], "{{ b }}": "{{{"});
        let mut spots = Spots::of(&object);
        object["a"] = spots.scalar(".Values.a | int".to_owned());
        object["list"][0]["name"] = spots.text_and_field("{{x", "more", ".Values.more".to_owned());
        object["list"][0]["rest"] = spots.tree(".Values.rest".to_owned());
        let expected = "\
a: {{ .Values.a | int }}
list:
- name: \"{{ \"{{\" }}x\"
  {{- with .Values.more }}
  more: {{ toYaml . | nindent 4 }}
  {{- end }}
  rest: {{ toYaml .Values.rest | nindent 4 }}
'{{ \"{{\" }} b }}': '{{ \"{{\" }}{'
";
        assert_eq!(spots.template(&object), expected);
    }

    #[test]
    fn a_mark_is_a_text_that_the_object_does_not_have() {
        let mut object = json!({"a": "\u{e000}0-0\u{e000}", "b": "\u{e000}1-", "c": 1});
        let mut spots = Spots::of(&object);
        object["c"] = spots.scalar(".Values.c".to_owned());
        assert_eq!(spots.template(&object), "a: \u{e000}0-0\u{e000}\nb: \u{e000}1-\nc: {{ .Values.c }}\n");
    }

    #[test]
    fn blanks_at_the_end_are_not_at_the_end() {
        let object = json!({"a": "x\n\n\n"});
        assert!(Spots::of(&object).template(&object).ends_with("\n\n# The end.\n"));
    }

    proptest! {
        #[test]
        fn helm_prints_what_the_plain_file_has(key in "[{}a\"` -]{1,6}", text in "[{}\"`'#|:\\-\\\\ \n\r\tä\u{2028}\u{e000}]{0,60}") {
            let object = json!({ "data": { key: text, "end": 1 } });
            let template = Spots::of(&object).template(&object);
            prop_assert_eq!(printed(&template), Some(manifest::to_yaml(&object)));
        }
    }
}
