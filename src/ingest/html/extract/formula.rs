//! Raised and lowered numbers: superscripts, subscripts, MathML. Written in sequence they would be other numbers: ten
//! to the sixth is not a hundred and six.

use html5ever::tokenizer::Tag;

use super::{Gap, Guess, META_BYTES_MAX, Marker, State, attribute};
use crate::ingest::block::shorten;

/// Longest superscript that is marked as one, in bytes; a longer one is separated by a space.
const RAISED_BYTES_MAX: usize = 40;

/// An open superscript or subscript, directly after a word.
#[derive(Debug)]
pub(super) struct Raised {
    above: bool,
    /// Where its text starts.
    start: usize,
    /// Nested ones are part of the outermost.
    depth: usize,
    pub(super) has_link: bool,
}

/// Elements of an open `<math>`, outermost first.
#[derive(Debug, Default)]
pub(super) struct Formula {
    open: Vec<Element>,
}

#[derive(Debug)]
struct Element {
    kind: Kind,
    children: usize,
    /// A parenthesis was written before its content.
    enclosed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Separators after its first and second child.
    Between(char, char),
    Other,
}

impl State {
    pub(super) fn raise(&mut self, above: bool) {
        if let Some(raised) = &mut self.raised {
            raised.depth += 1;
            return;
        }
        let follows = |character: char| {
            character.is_alphanumeric() || matches!(character, ')' | ']' | '}' | '"' | '”' | '.' | ',')
        };
        if self.gap == Gap::None && self.marker == Marker::None && self.page.text.ends_with(follows) {
            self.raised = Some(Raised { above, start: self.page.text.len(), depth: 1, has_link: false });
        }
    }

    pub(super) fn lower(&mut self) {
        let Some(raised) = &mut self.raised else { return };
        raised.depth -= 1;
        if raised.depth > 0 {
            return;
        }
        let Some(Raised { above, start, has_link, .. }) = self.raised.take() else { return };
        // A block or line that started within is not a number.
        if self.block > start || start >= self.page.text.len() || self.page.text[start..].contains('\n') {
            return;
        }
        if self.page.text.len() - start > RAISED_BYTES_MAX {
            self.page.text.insert(start, ' ');
            return;
        }
        let content = self.page.text.split_off(start);
        let before = self.page.text.chars().next_back().unwrap_or(' ');
        let text =
            if above { superscript(before, content.trim(), has_link) } else { subscript(before, content.trim()) };
        self.page.text.push_str(&text);
    }

    pub(super) fn math(&mut self, tag: &Tag, complete: bool) {
        match attribute(tag, "alttext").map(str::trim).filter(|words| !words.is_empty()) {
            Some(words) => {
                self.words(&shorten(words, META_BYTES_MAX));
                if !complete {
                    self.skip_from(tag, Guess::Certain);
                }
            }
            None if complete => {}
            None => self.formula = Some(Formula::default()),
        }
    }

    /// Handles an element within `<math>`; returns whether it is one.
    pub(super) fn formula_start(&mut self, name: &str, complete: bool) -> bool {
        let Some(formula) = &mut self.formula else { return false };
        if super::is_block(name) || matches!(name, "table" | "li" | "ul" | "ol" | "pre" | "math") {
            // HTML ends a formula that was not closed.
            self.formula = None;
            return false;
        }
        let mut enclosed = false;
        if let Some(parent) = formula.open.last_mut() {
            parent.children += 1;
            if let Kind::Between(second, third) = parent.kind
                && parent.children > 1
                && !self.page.text.is_empty()
            {
                self.page.text.push(if parent.children == 2 { second } else { third });
                self.gap = Gap::None;
                enclosed = name == "mrow";
            } else if matches!(parent.kind, Kind::Between('/', _)) {
                enclosed = name == "mrow";
            }
        }
        if complete {
            return true;
        }
        if enclosed {
            self.apply_gap();
            self.page.text.push('(');
        }
        let kind = match name {
            "msup" | "mover" => Kind::Between('^', '^'),
            "msub" | "munder" => Kind::Between('_', '_'),
            "msubsup" | "munderover" => Kind::Between('_', '^'),
            "mfrac" => Kind::Between('/', '/'),
            _ => Kind::Other,
        };
        if name == "msqrt" {
            self.apply_gap();
            self.page.text.push_str("√(");
            enclosed = true;
        }
        if let Some(formula) = &mut self.formula {
            formula.open.push(Element { kind, children: 0, enclosed });
        }
        true
    }

    /// Handles the end of an element within `<math>`; returns whether it is one.
    pub(super) fn formula_end(&mut self, name: &str) -> bool {
        if name == "math" || super::is_block(name) {
            let closed = self.formula.take();
            let open = closed.map_or(0, |formula| formula.open.iter().filter(|element| element.enclosed).count());
            self.page.text.extend(std::iter::repeat_n(')', open));
            return name == "math";
        }
        if let Some(element) = self.formula.as_mut().and_then(|formula| formula.open.pop())
            && element.enclosed
        {
            self.page.text.push(')');
        }
        true
    }
}

/// The notation of raised `content` after `before`.
fn superscript(before: char, content: &str, has_link: bool) -> String {
    const ENDINGS: &[&str] = &[
        "st", "nd", "rd", "th", "er", "re", "e", "ème", "eme", "es", "o", "a", "os", "as", "r", "me", "mes", "lle",
        "le",
    ];
    match content {
        "" => return String::new(),
        "TM" | "tm" => return "™".to_owned(),
        "SM" => return "℠".to_owned(),
        _ => {}
    }
    let alphanumeric = content.chars().all(char::is_alphanumeric);
    if has_link && alphanumeric {
        // A note.
        return format!("[{content}]");
    }
    if ENDINGS.contains(&content) && before.is_alphanumeric() {
        return content.to_owned();
    }
    let unsigned = content.strip_prefix(['-', '−', '–', '+']).unwrap_or(content);
    if unsigned.chars().all(|character| character.is_alphanumeric() || character == '.') && !unsigned.is_empty() {
        return format!("^{content}");
    }
    if content.starts_with(|character: char| character.is_alphanumeric() || matches!(character, '-' | '−' | '+')) {
        return format!("^({content})");
    }
    // Brackets, asterisks, daggers, signs: nothing that could be mistaken for a part of the word.
    content.to_owned()
}

/// The same for lowered content: chemists and people who search write H2O.
fn subscript(before: char, content: &str) -> String {
    if content.chars().all(char::is_alphanumeric) {
        let joins = !(before.is_ascii_digit() && content.starts_with(|c: char| c.is_ascii_digit()));
        return if joins { content.to_owned() } else { format!("_{content}") };
    }
    if content.starts_with(char::is_alphanumeric) { format!("_({content})") } else { content.to_owned() }
}
