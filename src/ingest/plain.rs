//! Removes markup: the form of a passage that is embedded and indexed.

use std::borrow::Cow;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::{MediaType, template};

/// The words of a passage without markup: Markdown loses tags, link targets, fence markers, table pipes and emphasis
/// marks, and keeps code, link texts, alternative texts and the `title="…"` of a code fence. Other media types are
/// already plain and are returned unchanged.
///
/// `text` may be any part of a document; it is read without the context that is missing. O(n).
#[must_use]
pub fn plain(text: &str, media_type: MediaType) -> Cow<'_, str> {
    match media_type {
        MediaType::Markdown | MediaType::Notebook => Cow::Owned(markdown(text)),
        MediaType::Text
        | MediaType::Html
        | MediaType::Pdf
        | MediaType::SourceCode
        | MediaType::Json
        | MediaType::JsonLines
        | MediaType::Csv
        | MediaType::Mail
        | MediaType::WebArchive
        | MediaType::Drawing => Cow::Borrowed(text),
    }
}

/// The words of a heading, on one line.
pub(super) fn inline(heading: &str) -> String {
    let heading = heading.rsplit_once(" {#").map_or(heading, |(title, _)| title.trim_end());
    if !heading.contains(['*', '_', '`', '[', '<', '\\', '&', '~', '{', '\n']) {
        return heading.to_owned();
    }
    // The mark prevents a heading such as `1. Install` from being read as a list.
    markdown(&format!("# {}", heading.replace(['\r', '\n'], " ")))
}

fn markdown(text: &str) -> String {
    let text = template::without_tags(text);
    let text = dedent(&text);
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_GFM;
    let mut words = Words { out: String::with_capacity(text.len()), in_row: false };
    for event in Parser::new_ext(&text, options) {
        words.event(event);
    }
    words.out.trim().to_owned()
}

/// Removes the indentation shared by all lines when it would make the first one a code block: a passage from a list or
/// a tab.
fn dedent(text: &str) -> Cow<'_, str> {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    if !text.starts_with("    ") && !text.starts_with('\t') {
        return Cow::Borrowed(text);
    }
    let shared = text.lines().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let lines: Vec<&str> = text.lines().map(|line| line.get(shared.min(indent(line))..).unwrap_or_default()).collect();
    Cow::Owned(lines.join("\n"))
}

struct Words {
    out: String,
    /// In a table row without its header, which the parser takes for a paragraph.
    in_row: bool,
}

impl Words {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) => self.text(&text),
            Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => self.out.push_str(&text),
            Event::Html(html) | Event::InlineHtml(html) => push_without_tags(&mut self.out, &html),
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                if let Some(title) = fence_title(&info) {
                    self.out.push_str(title);
                    self.line();
                }
            }
            Event::End(TagEnd::TableCell) => self.out.push(' '),
            Event::End(
                TagEnd::Paragraph
                | TagEnd::Heading(_)
                | TagEnd::CodeBlock
                | TagEnd::Item
                | TagEnd::TableHead
                | TagEnd::TableRow
                | TagEnd::HtmlBlock,
            )
            | Event::SoftBreak
            | Event::HardBreak
            | Event::Rule => self.line(),
            Event::Start(_) | Event::End(_) | Event::FootnoteReference(_) | Event::TaskListMarker(_) => {}
        }
    }

    fn text(&mut self, text: &str) {
        let at_line_start = self.out.is_empty() || self.out.ends_with('\n');
        self.in_row |= at_line_start && text.starts_with('|');
        if self.in_row {
            for cell in text.split(['|', ' ']) {
                self.out.push_str(cell);
                if !self.out.ends_with([' ', '\n']) && !self.out.is_empty() {
                    self.out.push(' ');
                }
            }
            return;
        }
        self.out.push_str(if at_line_start { without_directive(text) } else { text });
    }

    fn line(&mut self) {
        self.in_row = false;
        self.out.truncate(self.out.trim_end_matches([' ', '\n']).len());
        if !self.out.is_empty() {
            self.out.push('\n');
        }
    }
}

/// The title of an admonition (`:::note Title`, `::: tip`, `!!! warning "Title"`); other text is returned unchanged.
fn without_directive(text: &str) -> &str {
    let name_end = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
    if text.starts_with(":::") {
        let rest = text.trim_start_matches(':').trim_start();
        return rest[name_end(rest)..].trim_start();
    }
    if let Some(rest) = text.strip_prefix("!!! ").or_else(|| text.strip_prefix("??? ")) {
        return rest[name_end(rest)..].trim_start();
    }
    text
}

/// The value of `title="…"` in a fence's info string.
fn fence_title(info: &str) -> Option<&str> {
    let (_, value) = info.split_once("title=")?;
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    value[1..].split(quote).next()
}

/// Names of HTML elements as written in Markdown; other lower-case names in angle brackets are placeholders.
const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "article",
    "aside",
    "audio",
    "b",
    "blockquote",
    "br",
    "button",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "details",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "figcaption",
    "figure",
    "font",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "i",
    "iframe",
    "img",
    "input",
    "ins",
    "kbd",
    "label",
    "li",
    "link",
    "main",
    "mark",
    "meta",
    "nav",
    "ol",
    "p",
    "picture",
    "pre",
    "q",
    "s",
    "samp",
    "script",
    "section",
    "small",
    "source",
    "span",
    "strong",
    "style",
    "sub",
    "summary",
    "sup",
    "svg",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "time",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "video",
    "wbr",
];

/// The text after the HTML element or comment at the start of `text`.
pub(super) fn behind_element(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('<')?;
    if rest.starts_with("!--") {
        return rest.split_once("-->").map(|(_, after)| after);
    }
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric())?;
    let is_element = ELEMENTS.contains(&&rest[..end]) && rest[end..].starts_with([' ', '\t', '\n', '\r', '>', '/']);
    is_element.then(|| rest.split_once('>').map(|(_, after)| after))?
}

/// Appends `html` without its tags and comments. Names such as `<node-ip>` are kept: people write placeholders like
/// this.
fn push_without_tags(out: &mut String, html: &str) {
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let comment = rest.starts_with("<!--");
        let close = if comment { rest.find("-->").map(|at| at + 2) } else { rest.find('>') };
        let Some(close) = close else {
            // Not a tag, or one whose end is in another passage.
            out.push_str(if comment { "" } else { &rest[1..] });
            return;
        };
        let tag = &rest[1..close];
        let is_word = tag.starts_with(|c: char| c.is_ascii_lowercase())
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if is_word && !comment && !ELEMENTS.contains(&tag) {
            out.push_str(tag);
        } else if !out.ends_with(char::is_whitespace)
            && matches!(tag, "br" | "br/" | "br /" | "/td" | "/th" | "/li" | "/p")
        {
            out.push(' ');
        }
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> String {
        plain(text, MediaType::Markdown).into_owned()
    }

    #[test]
    fn markup_goes_and_words_stay() {
        assert_eq!(
            of("## A *b* `c_d`\n\n[link text](https://example.org/x) and **bold**"),
            "A b c_d\nlink text and bold"
        );
        assert_eq!(of("| a | b |\n|---|---|\n| `x` | 2 |"), "a b\nx 2");
        assert_eq!(of("| `--x` value  | | cut from *its* header |\n| 1 | 2 |"), "--x value cut from its header\n1 2");
        assert_eq!(of("```yaml title=\"/etc/a.yaml\"\nkey: <value>\n```"), "/etc/a.yaml\nkey: <value>");
        assert_eq!(of(":::note Version gate\nwords\n:::"), "Version gate\nwords");
        assert_eq!(of("::: tip\nwords\n:::"), "words");
        assert_eq!(of("!!! warning \"Mind\"\n    words"), "\"Mind\"\nwords");
        assert_eq!(of("> [!NOTE]\n> words"), "words");
        assert_eq!(of(":::info[Mind *this*]\nwords"), "[Mind this]\nwords");
        assert_eq!(of("Built for {{{ os }}} by `{{{ x }}}`"), "Built for  by {{{ x }}}");
        assert_eq!(of("<details open>\n<summary>More</summary>\n</details>"), "More");
        assert_eq!(of("use <node-ip> of <b>the</b> host <!-- hidden -->"), "use node-ip of the host");
        assert_eq!(of("![diagram of nodes](a.png) &amp; done"), "diagram of nodes & done");
    }

    #[test]
    fn indented_passages_are_read_as_text() {
        assert_eq!(of("    see [this](x)\n    and that"), "see this\nand that");
    }

    #[test]
    fn headings_become_one_line_of_words() {
        assert_eq!(inline("1. The `install` step {#install}"), "1. The install step");
        assert_eq!(inline("Plain title"), "Plain title");
    }

    #[test]
    fn other_media_types_are_untouched() {
        assert!(matches!(plain("a *b* <c>", MediaType::Text), Cow::Borrowed("a *b* <c>")));
    }

    proptest! {
        #[test]
        fn simple_words_survive_any_punctuation(words in prop::collection::vec("[a-z]{3,8}", 1..12), marks in "[*_|# .,]{1,12}") {
            let separators: Vec<char> = marks.chars().collect();
            let mut text = String::new();
            for (index, word) in words.iter().enumerate() {
                text.push_str(word);
                text.push(' ');
                text.push(separators[index % separators.len()]);
                text.push(' ');
            }
            let found = of(&text);
            for word in &words {
                prop_assert!(found.contains(word.as_str()), "{word} missing in {found:?} from {text:?}");
            }
        }

        #[test]
        fn any_text_is_accepted(text in "(?s).{0,300}") {
            of(&text);
        }
    }
}
