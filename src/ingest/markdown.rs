//! Markdown to blocks.
//!
//! Chunking needs only the outer blocks, so a line scanner finds them: one pass, no tree, no memory beyond the blocks,
//! and MDX (imports, component tags), which CommonMark parsers take for text, is understood. Inline markup is left to
//! [`super::plain()`]. Two deviations from CommonMark: a fence may be indented by any amount (documentation nests them
//! in lists and tabs), and a line directly after a list item belongs to the list.
//!
//! Left out are parts that readers of the page do not see: MDX modules and tags, short comments and licences, link
//! definitions, rules, template and HTML tags; and parts without content: badges, and a table of contents that only
//! repeats the page's headings. If a page has nothing else, they are kept.

mod links;

use std::ops::Range;

use super::block::{Block, BlockKind, Line, lines};
use super::front_matter::{self, FrontMatter};
use super::{Document, MediaType, estimate_tokens, licence, plain, template};
use links::Wordless;

/// Parses a Markdown source.
pub(super) fn parse(text: String, warnings: &mut Vec<String>) -> Document {
    let FrontMatter { fields, body, kept } = front_matter::read(&text, warnings);
    let mut blocks = Vec::new();
    blocks.extend(kept.and_then(|kept| Block::trimmed(&text, kept, BlockKind::Verbatim)));
    blocks.extend(Scanner::new(&text).scan(body..text.len()));
    let mut document = Document::new(MediaType::Markdown, text, blocks);
    front_matter::apply(&mut document, fields);
    if document.title.is_none() {
        document.title = document.blocks.iter().find_map(|block| match &block.kind {
            BlockKind::Heading { level: 1, title } if !title.is_empty() => Some(title.clone()),
            _ => None,
        });
    }
    if document.blocks.iter().all(|block| block.range.is_empty()) {
        document.blocks = title_block(&document, body);
    }
    document
}

/// The text of a document that consists only of front matter: the title there, in place.
fn title_block(document: &Document, body: usize) -> Vec<Block> {
    let head = &document.text[..body];
    let place = document.title.as_deref().map(|title| head.find(title).map_or(0..body, |at| at..at + title.len()));
    place.and_then(|range| Block::trimmed(&document.text, range, BlockKind::Prose)).into_iter().collect()
}

/// The open block; it grows line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Paragraph,
    List,
    Table,
    /// Code fence, closed by at least `length` of `mark`. `in_list`: it belongs to the list that was open.
    Fence {
        mark: u8,
        length: usize,
        in_list: bool,
    },
    /// An HTML or MDX comment, up to the line with its end.
    Comment(&'static str),
    /// A component tag over several lines, left out up to a line that ends in `>`.
    Tag,
    /// `import` or `export` over several lines, left out up to a blank line.
    Module,
}

struct Scanner<'a> {
    text: &'a str,
    blocks: Vec<Block>,
    /// Comments, link definitions, badges and tables of contents: not blocks, unless there are no others.
    left_out: Vec<Block>,
    open: Option<(Open, Range<usize>)>,
    /// A blank line was seen since the last line of the open list.
    blank_in_list: bool,
    /// Header row and delimiter row of the open table.
    header: Option<Range<usize>>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, blocks: Vec::new(), left_out: Vec::new(), open: None, blank_in_list: false, header: None }
    }

    fn scan(mut self, body: Range<usize>) -> Vec<Block> {
        let mut all = lines(self.text, body).peekable();
        while let Some(line) = all.next() {
            self.line(line, all.peek());
        }
        self.close();
        links::leave_out_contents(self.text, &mut self.blocks, &mut self.left_out);
        if self.blocks.is_empty() {
            self.left_out.sort_by_key(|block| block.range.start);
            return self.left_out;
        }
        self.blocks
    }

    fn line(&mut self, line: Line<'a>, next: Option<&Line<'a>>) {
        let trimmed = line.content.trim();
        match self.open.as_ref().map(|(open, _)| *open) {
            Some(Open::Fence { mark, length, in_list }) => {
                self.extend(&line);
                if closes_fence(trimmed, mark, length) {
                    self.close_fence(in_list);
                }
            }
            Some(Open::Comment(end)) => {
                self.extend(&line);
                if let Some((_, after)) = trimmed.split_once(end) {
                    self.close_comment(after);
                }
            }
            Some(Open::Tag) => {
                self.extend(&line);
                if trimmed.is_empty() || trimmed.ends_with('>') {
                    self.open = None;
                }
            }
            Some(Open::Module) => {
                self.extend(&line);
                if trimmed.is_empty() {
                    self.open = None;
                }
            }
            _ if trimmed.is_empty() => self.blank(),
            open => self.start(line, trimmed, open, next),
        }
    }

    /// A line that may start a block; `open` is a paragraph, list, table or nothing.
    fn start(&mut self, line: Line<'a>, trimmed: &'a str, open: Option<Open>, next: Option<&Line<'a>>) {
        let indent = line.indent();
        let in_list = open == Some(Open::List) && indent >= 2;
        if let Some((mark, length)) = fence(trimmed) {
            if in_list {
                self.extend(&line);
                self.reopen(Open::Fence { mark, length, in_list });
            } else {
                self.open_block(Open::Fence { mark, length, in_list }, &line);
            }
            return;
        }
        if indent < 4 {
            if let Some((level, title)) = atx_heading(trimmed) {
                self.close();
                self.blocks.push(Block::heading(line.start..line.end(), level, &plain::inline(title)));
                return;
            }
            if let (Some(Open::Paragraph), Some(level)) = (open, setext_underline(trimmed)) {
                self.extend(&line);
                self.close_setext(level);
                return;
            }
        }
        if indent < 4 && is_thematic_break(trimmed) {
            self.close();
            return;
        }
        if open.is_none() && indent == 0 && is_module_line(trimmed) {
            self.open_block(Open::Module, &line);
            return;
        }
        if opens_component(trimmed) {
            self.close();
            if !trimmed.ends_with('>') {
                self.open = Some((Open::Tag, line.start..line.end()));
                return;
            }
            if is_only_a_tag(trimmed) {
                return;
            }
        }
        if indent < 4
            && let Some((start, end)) = COMMENTS.iter().find(|(start, _)| trimmed.starts_with(start))
        {
            self.open_block(Open::Comment(end), &line);
            if let Some((_, after)) = trimmed[start.len()..].split_once(end) {
                self.close_comment(after);
            }
            return;
        }
        if trimmed.starts_with(":::") && !in_list {
            // An admonition's first line is separate, so that its content is cut like any other.
            self.close();
            if !trimmed.trim_matches(':').is_empty() {
                self.open_block(Open::Paragraph, &line);
                self.close();
            }
            return;
        }
        if open.is_none() && template::is_markup(trimmed) {
            return;
        }
        match open {
            Some(Open::Table) if trimmed.contains('|') => self.extend(&line),
            Some(Open::List) if !self.blank_in_list || indent >= 2 || is_list_item(trimmed) => {
                self.blank_in_list = false;
                self.extend(&line);
            }
            _ if is_list_item(trimmed) && (open.is_none() || open == Some(Open::List) || indent < 4) => {
                self.open_block(Open::List, &line);
            }
            _ if opens_table(trimmed, next) => {
                self.open_block(Open::Table, &line);
                self.header = next.filter(|line| is_delimiter_row(line.content)).map(|next| line.start..next.end());
            }
            Some(Open::Paragraph) => self.extend(&line),
            _ => self.open_block(Open::Paragraph, &line),
        }
    }

    fn blank(&mut self) {
        match self.open {
            // The next line decides whether a list continues.
            Some((Open::List, _)) => self.blank_in_list = true,
            _ => self.close(),
        }
    }

    fn open_block(&mut self, open: Open, line: &Line<'_>) {
        self.close();
        self.open = Some((open, line.start..line.end()));
    }

    fn extend(&mut self, line: &Line<'_>) {
        if let Some((_, range)) = &mut self.open {
            range.end = line.end();
        }
    }

    fn reopen(&mut self, open: Open) {
        if let Some((current, _)) = &mut self.open {
            *current = open;
        }
    }

    fn close_fence(&mut self, in_list: bool) {
        if in_list {
            self.reopen(Open::List);
            self.blank_in_list = false;
        } else {
            self.close();
        }
    }

    /// `after`: the text after the comment on its last line. Longer comments are kept: issue templates and the like are
    /// written in them.
    fn close_comment(&mut self, after: &str) {
        let Some((_, range)) = self.open.take() else { return };
        let is_seen = !after.trim().is_empty() && !COMMENTS.iter().any(|(start, _)| after.trim().starts_with(start));
        let comment = &self.text[range.clone()];
        let is_kept = is_seen || (estimate_tokens(comment) > COMMENT_TOKENS_MAX && !licence::is_licence(comment));
        let blocks = if is_kept { &mut self.blocks } else { &mut self.left_out };
        blocks.extend(Block::trimmed(self.text, range, BlockKind::Prose));
    }

    fn close_setext(&mut self, level: u8) {
        if let Some((_, range)) = self.open.take() {
            let title = self.text[range.clone()].rsplit_once('\n').map_or("", |(title, _)| title);
            self.blocks.push(Block::heading(range.clone(), level, &plain::inline(title.trim())));
        }
    }

    fn close(&mut self) {
        self.blank_in_list = false;
        let header = self.header.take();
        let Some((open, range)) = self.open.take() else { return };
        let wordless = match open {
            Open::Paragraph | Open::List => links::wordless(&self.text[range.clone()]),
            _ => None,
        };
        let kind = match open {
            Open::Table if header.is_some() => BlockKind::Table { header: header.unwrap_or_default() },
            Open::Paragraph
                if wordless == Some(Wordless::Markup) || links::are_definitions(&self.text[range.clone()]) =>
            {
                self.left_out.extend(Block::trimmed(self.text, range, BlockKind::Prose));
                return;
            }
            Open::Paragraph | Open::List if wordless.is_some() => BlockKind::Links,
            // A comment without an end is text.
            Open::Paragraph | Open::Comment(_) => BlockKind::Prose,
            Open::List => BlockKind::List,
            Open::Table | Open::Fence { .. } => BlockKind::Verbatim,
            Open::Tag | Open::Module => return,
        };
        self.blocks.extend(Block::trimmed(self.text, range, kind));
    }
}

/// A shorter comment is an instruction to a program, or a note for its author.
const COMMENT_TOKENS_MAX: usize = 24;
/// Start and end of comments: of HTML, and of MDX.
const COMMENTS: [(&str, &str); 2] = [("<!--", "-->"), ("{/*", "*/}")];

/// Level and raw title of an ATX heading.
fn atx_heading(trimmed: &str) -> Option<(u8, &str)> {
    let rest = trimmed.trim_start_matches('#');
    let level = u8::try_from(trimmed.len() - rest.len()).ok().filter(|level| (1..=6).contains(level))?;
    if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return None;
    }
    let title = rest.trim();
    let without_marks = title.trim_end_matches('#');
    let closed = without_marks.is_empty() || without_marks.ends_with([' ', '\t']);
    Some((level, if closed { without_marks.trim_end() } else { title }))
}

fn setext_underline(trimmed: &str) -> Option<u8> {
    let all = |mark: u8| trimmed.bytes().all(|byte| byte == mark);
    match trimmed.as_bytes().first() {
        Some(b'=') if all(b'=') => Some(1),
        Some(b'-') if all(b'-') => Some(2),
        _ => None,
    }
}

/// Mark and length of a fence that `trimmed` opens.
fn fence(trimmed: &str) -> Option<(u8, usize)> {
    let mark = *trimmed.as_bytes().first().filter(|byte| matches!(byte, b'`' | b'~'))?;
    let length = trimmed.bytes().take_while(|byte| *byte == mark).count();
    let info = &trimmed[length..];
    (length >= 3 && !(mark == b'`' && info.contains('`'))).then_some((mark, length))
}

fn closes_fence(trimmed: &str, mark: u8, length: usize) -> bool {
    trimmed.len() >= length && trimmed.bytes().all(|byte| byte == mark)
}

/// Whether a line of a list belongs to code in it, including its fences; `open` is the result of [`fence`] for the open
/// fence.
pub(super) fn is_in_fence(trimmed: &str, open: &mut Option<(u8, usize)>) -> bool {
    match *open {
        Some((mark, length)) => {
            if closes_fence(trimmed, mark, length) {
                *open = None;
            }
            true
        }
        None => {
            // `- ```sh` opens one too.
            let content = item_content(trimmed);
            *open = fence(content.unwrap_or(trimmed));
            open.is_some() && content.is_none()
        }
    }
}

fn is_list_item(trimmed: &str) -> bool {
    item_content(trimmed).is_some()
}

/// The text after the mark of a list item.
fn item_content(trimmed: &str) -> Option<&str> {
    let rest = match trimmed.as_bytes() {
        [b'-' | b'*' | b'+', ..] => &trimmed[1..],
        [b'0'..=b'9', ..] => {
            let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
            trimmed[digits..].strip_prefix(['.', ')']).filter(|_| digits <= 9)?
        }
        _ => return None,
    };
    (rest.starts_with([' ', '\t']) && !is_thematic_break(trimmed)).then(|| rest.trim_start())
}

fn is_thematic_break(trimmed: &str) -> bool {
    let Some(mark) = trimmed.chars().next().filter(|mark| "-*_".contains(*mark)) else { return false };
    trimmed.chars().all(|character| character == mark || character == ' ' || character == '\t')
        && trimmed.matches(mark).count() >= 3
}

/// Whether a table starts here: a row in pipes, or a row with pipes above a delimiter row.
fn opens_table(trimmed: &str, next: Option<&Line<'_>>) -> bool {
    (trimmed.starts_with('|') && trimmed[1..].contains('|'))
        || (trimmed.contains('|') && next.is_some_and(|line| is_delimiter_row(line.content)))
}

/// Whether `line` is the row below the header row of a table.
fn is_delimiter_row(line: &str) -> bool {
    line.contains('-') && line.contains('|') && line.chars().all(|character| "|-: \t".contains(character))
}

/// Whether `trimmed` is an ES module line as in MDX, not a sentence or a shell command that starts alike.
fn is_module_line(trimmed: &str) -> bool {
    if let Some(rest) = trimmed.strip_prefix("import ") {
        return rest.starts_with(['\'', '"', '{', '*']) || rest.contains(" from '") || rest.contains(" from \"");
    }
    let Some(rest) = trimmed.strip_prefix("export ") else { return false };
    ["const ", "let ", "default ", "function ", "async function ", "class ", "{", "* from "]
        .iter()
        .any(|start| rest.starts_with(start))
}

/// Whether `trimmed` starts with the tag of a component: `<Tabs`, `</TabItem`, `<React.Fragment`, `<>`.
fn opens_component(trimmed: &str) -> bool {
    let Some(rest) = trimmed.strip_prefix('<') else { return false };
    let name = rest.strip_prefix('/').unwrap_or(rest);
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(name.len());
    if end == 0 {
        return name.starts_with('>');
    }
    // `<NODE_IP>` and `<IP>` are placeholders in prose, and no component has such a name.
    name.as_bytes()[0].is_ascii_uppercase()
        && name[..end].bytes().any(|byte| byte.is_ascii_lowercase())
        && (name[end..].is_empty() || name[end..].starts_with(['>', '/', ' ', '\t']))
}

/// Whether `trimmed` consists only of tags. Braces and quotes may contain `>`.
fn is_only_a_tag(trimmed: &str) -> bool {
    let (mut in_tag, mut braces, mut quote) = (false, 0usize, None);
    for character in trimmed.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if in_tag => quote = Some(character),
            (None, '{') if in_tag => braces += 1,
            (None, '}') if in_tag => braces = braces.saturating_sub(1),
            (None, '<') if !in_tag => in_tag = true,
            (None, '>') if in_tag && braces == 0 => in_tag = false,
            _ if in_tag || character.is_whitespace() => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str) -> Vec<(String, String)> {
        let document = parse(text.to_owned(), &mut Vec::new());
        let name = |kind: &BlockKind| match kind {
            BlockKind::Heading { level, title } => format!("h{level} {title}"),
            BlockKind::Prose => "prose".to_owned(),
            BlockKind::List => "list".to_owned(),
            BlockKind::Links => "links".to_owned(),
            BlockKind::Verbatim => "verbatim".to_owned(),
            BlockKind::Table { header } => format!("table {}", text[header.clone()].lines().next().unwrap_or_default()),
            BlockKind::Boundary => "boundary".to_owned(),
        };
        document.blocks.iter().map(|block| (name(&block.kind), document.text[block.range.clone()].to_owned())).collect()
    }

    fn kinds(text: &str) -> Vec<String> {
        outline(text).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn headings_of_both_styles_are_found_without_markup() {
        assert_eq!(
            kinds("# One ##\nTwo *words*\n---\n### `three` {#anchor}\n#no heading\n    # code"),
            ["h1 One", "h2 Two words", "h3 three", "prose"]
        );
    }

    #[test]
    fn fences_hide_their_content_also_inside_lists() {
        assert_eq!(kinds("```sh\n# comment\n\n- x\n```\nafter"), ["verbatim", "prose"]);
        assert_eq!(kinds("1. step\n\n   ```sh\n   # comment\n   ```\n\n2. step\n\nafter"), ["list", "prose"]);
        assert_eq!(kinds("````\n```\n# x\n````"), ["verbatim"]);
    }

    #[test]
    fn tables_are_blocks_with_and_without_outer_pipes() {
        assert_eq!(kinds("text\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nafter"), ["prose", "table | a | b |", "prose"]);
        assert_eq!(kinds("a | b\n--- | ---\n1 | 2\n"), ["table a | b"]);
        assert_eq!(kinds("| 1 | 2 |\n| 3 | 4 |\n"), ["verbatim"]);
    }

    #[test]
    fn rules_and_broken_front_matter_are_no_headings() {
        assert_eq!(
            kinds("---\n\nA page.\n\n# Heading\n\nText.\n\n---\n\nLast.\n")[..3],
            ["prose", "h1 Heading", "prose"]
        );
        assert_eq!(kinds("---\nfirst words\n---\nbody"), ["h2 first words", "prose"]);
        assert_eq!(kinds("---\na: [\nb: {\nc\n---\nbody"), ["verbatim", "prose"]);
        assert_eq!(kinds("---\ntitle: *x* y\n---\nbody"), ["prose"]);
    }

    #[test]
    fn mdx_modules_and_tags_are_left_out() {
        let text = "---\ntitle: T\n---\nimport Tabs from '@theme/Tabs';\nimport X from \"y\";\n\n<Tabs groupId=\"os\">\n<TabItem value=\"a\"\n  label={\"x > y\"}>\n\nwords\n\n</TabItem>\n</Tabs>\n";
        assert_eq!(outline(text), [("prose".to_owned(), "words".to_owned())]);
        assert_eq!(kinds("import the file first\n\nexport PATH=/x\n\n<Note>keep</Note>\n\n<NODE_IP>\n"), ["prose"; 4]);
    }

    #[test]
    fn admonition_markers_stay_in_the_text() {
        let found = outline(":::note Version\nwords\n:::\n");
        assert_eq!(found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), [":::note Version", "words"]);
    }

    #[test]
    fn what_readers_do_not_see_is_left_out() {
        for text in [
            "<!-- Copyright 2026 Ana. Licensed under X. -->",
            "<!--\nCopyright 2026 Ana\n\n# Licensed under X, which is no heading\n-->",
            "<!-- a --> <!-- b -->",
            "{/* of MDX */}",
            "[a]: https://site.example/a\n[b c]: ../b.md \"Title\"",
            "{% include head.html %}",
            "{{< toc >}}",
            "---",
            ":::",
            "[TOC]",
            "[a]: std::Map\n[b]: MAP",
            "<a name=\"x\"></a>\n<br/>",
            "<p align=center>\n<a href=x><img src=b.svg alt=Build></a>\n</p>",
            "<div>\n[![Build](a.svg)](b)\n</div>",
            "[![Build](https://ci.example/a.svg)](\nhttps://ci.example)\n[![Docs][badge]][docs]",
        ] {
            assert_eq!(
                outline(&format!("{text}\n\nwords\n\n{text}\n")),
                [("prose".to_owned(), "words".to_owned())],
                "{text}"
            );
        }
        for text in [
            "<!-- a comment --> and words",
            "<!-- never ends",
            "<!--\nPlease tell what you expected to happen and what happened instead, and how somebody else can see it happen, step by step.\n-->",
            "[10:02]: yes, we did",
            "[a]: more words than one",
            "[^1]: https://site.example/footnote",
            "{{< figure src=\"a.png\" title=\"Wiring of the pump\" >}}",
        ] {
            assert_eq!(kinds(&format!("words\n\n{text}\n")), ["prose"; 2], "{text}");
        }
        assert_eq!(kinds("words\n<!-- a -->\nmore"), ["prose"; 2]);
    }

    #[test]
    fn a_page_that_is_nothing_else_keeps_it() {
        assert_eq!(kinds("<!-- words -->\n"), ["prose"]);
        assert_eq!(kinds("[a]: https://site.example/\n\n<!-- words -->\n"), ["prose", "prose"]);
        assert_eq!(kinds("# Title\n\n<!-- words -->\n"), ["h1 Title"]);
    }

    #[test]
    fn links_alone_are_told_from_text() {
        for text in [
            "- [One](one.md)\n- [Two](two.md)\n  * [Three][3]\n",
            "1. <https://site.example/>\n2. https://site.example/b\n",
            "- **[One](one.md)**,\n- [Two](b (c).md \"T\")\n",
            "![Diagram of it](a.png)\n",
            "<img src=a.png alt=\"Diagram of it\">\n",
            "[One\npage](one.md)\n",
            "[One](one.md) | [Two](two.md)\n",
        ] {
            assert_eq!(kinds(text), ["links"], "{text}");
        }
        for text in [
            "- [One](one.md): about it\n- [Two](two.md)\n",
            "- One\n- [Two](two.md)\n",
            "- [ ] open\n- [x] done\n",
            "- [ ]\n",
            "- a [link](b) in words\n",
        ] {
            assert_eq!(kinds(text), ["list"], "{text}");
        }
        assert_eq!(kinds("See [One](one.md).\n"), ["prose"]);
    }

    #[test]
    fn contents_that_repeat_the_headings_are_left_out() {
        let page = "# T\n\n- [First *part*](#first-part)\n- [2nd](#second)\n\n## First part\n\na\n\n## 2nd\n\nb\n";
        assert_eq!(kinds(page), ["h1 T", "h2 First part", "prose", "h2 2nd", "prose"]);
        assert_eq!(kinds(&page.replace("[2nd]", "[Third]"))[1], "links");
        assert_eq!(kinds(&page.replace("(#second)", "(b.md#second)"))[1], "links");
    }

    #[test]
    fn admonitions_within_a_step_belong_to_it() {
        let text = "1. Run it:\n\n   :::note\n   Mind.\n   :::\n\n   ```sh\n   run\n   ```\n\n2. Wait.\n";
        assert_eq!(kinds(text), ["list"]);
    }

    #[test]
    fn the_title_comes_from_front_matter_then_from_the_first_heading() {
        let title = |text: &str| parse(text.to_owned(), &mut Vec::new()).title;
        assert_eq!(title("---\ntitle: \"A: b\"\n---\n# Other").as_deref(), Some("A: b"));
        assert_eq!(title("text\n\n# First\n# Second").as_deref(), Some("First"));
        assert_eq!(title("## Only a section"), None);
    }

    #[test]
    fn metadata_keeps_the_rest_of_the_front_matter() {
        let document = parse("---\ntitle: T\nurl: /a\nweight: 3\n---\nx".to_owned(), &mut Vec::new());
        assert_eq!(document.url.as_deref(), Some("/a"));
        assert_eq!(serde_json::Value::Object(document.metadata), serde_json::json!({"weight": 3}));
    }
}
