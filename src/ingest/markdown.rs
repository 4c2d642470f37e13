//! Markdown to blocks.
//!
//! Chunking needs the outer blocks only, so a line scanner finds them: one pass, no tree, no memory beyond the blocks,
//! and MDX (imports, component tags) is understood, which CommonMark parsers take for text. Inline markup is left to
//! [`super::plain()`]. Two liberties against CommonMark: a fence may be indented by any amount (documentation nests them
//! in lists and tabs), and what follows a list item without a blank line belongs to the list.

use std::ops::Range;

use super::block::{Block, BlockKind, Line, lines};
use super::front_matter::{self, FrontMatter};
use super::{Document, MediaType, plain};

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

/// What stands for a document that is nothing but its front matter: the title there, in place.
fn title_block(document: &Document, body: usize) -> Vec<Block> {
    let head = &document.text[..body];
    let place = document.title.as_deref().map(|title| head.find(title).map_or(0..body, |at| at..at + title.len()));
    place.and_then(|range| Block::trimmed(&document.text, range, BlockKind::Prose)).into_iter().collect()
}

/// What the open block is; it grows line by line.
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
    /// HTML comment, up to `-->`.
    Comment,
    /// A component tag over several lines, left out up to a line that ends in `>`.
    Tag,
    /// `import` or `export` over several lines, left out up to a blank line.
    Module,
}

struct Scanner<'a> {
    text: &'a str,
    blocks: Vec<Block>,
    open: Option<(Open, Range<usize>)>,
    /// A blank line was seen since the last line of the open list.
    blank_in_list: bool,
    /// Header row and delimiter row of the open table.
    header: Option<Range<usize>>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, blocks: Vec::new(), open: None, blank_in_list: false, header: None }
    }

    fn scan(mut self, body: Range<usize>) -> Vec<Block> {
        let mut all = lines(self.text, body).peekable();
        while let Some(line) = all.next() {
            self.line(line, all.peek());
        }
        self.close();
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
            Some(Open::Comment) => {
                self.extend(&line);
                if trimmed.contains("-->") {
                    self.close();
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
        if let Some((mark, length)) = fence(trimmed) {
            let in_list = open == Some(Open::List) && indent >= 2;
            if in_list {
                self.extend(&line);
                self.reopen(Open::Fence { mark, length, in_list });
            } else {
                self.begin(Open::Fence { mark, length, in_list }, &line);
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
            // A rule stands by itself: what follows it is not to be taken for one paragraph with it.
            self.begin(Open::Paragraph, &line);
            self.close();
            return;
        }
        if open.is_none() && indent == 0 && is_module_line(trimmed) {
            self.begin(Open::Module, &line);
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
        if indent < 4 && trimmed.starts_with("<!--") {
            self.begin(Open::Comment, &line);
            if trimmed.contains("-->") {
                self.close();
            }
            return;
        }
        if trimmed.starts_with(":::") {
            // An admonition's markers stand for themselves, so that its content is cut like any other.
            self.begin(Open::Paragraph, &line);
            self.close();
            return;
        }
        match open {
            Some(Open::Table) if trimmed.contains('|') => self.extend(&line),
            Some(Open::List) if !self.blank_in_list || indent >= 2 || is_list_item(trimmed) => {
                self.blank_in_list = false;
                self.extend(&line);
            }
            _ if is_list_item(trimmed) && (open.is_none() || open == Some(Open::List) || indent < 4) => {
                self.begin(Open::List, &line);
            }
            _ if opens_table(trimmed, next) => {
                self.begin(Open::Table, &line);
                self.header = next.filter(|line| is_delimiter_row(line.content)).map(|next| line.start..next.end());
            }
            Some(Open::Paragraph) => self.extend(&line),
            _ => self.begin(Open::Paragraph, &line),
        }
    }

    fn blank(&mut self) {
        match self.open {
            // Whether a list goes on is known at its next line.
            Some((Open::List, _)) => self.blank_in_list = true,
            _ => self.close(),
        }
    }

    fn begin(&mut self, open: Open, line: &Line<'_>) {
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
        let kind = match open {
            Open::Table if header.is_some() => BlockKind::Table { header: header.unwrap_or_default() },
            Open::Paragraph | Open::Comment => BlockKind::Prose,
            Open::List => BlockKind::List,
            Open::Table | Open::Fence { .. } => BlockKind::Verbatim,
            Open::Tag | Open::Module => return,
        };
        self.blocks.extend(Block::trimmed(self.text, range, kind));
    }
}

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

fn is_list_item(trimmed: &str) -> bool {
    let rest = match trimmed.as_bytes() {
        [b'-' | b'*' | b'+', ..] => &trimmed[1..],
        [b'0'..=b'9', ..] => {
            let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
            match trimmed[digits..].strip_prefix(['.', ')']) {
                Some(rest) if digits <= 9 => rest,
                _ => return false,
            }
        }
        _ => return false,
    };
    rest.starts_with([' ', '\t']) && !is_thematic_break(trimmed)
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

/// Whether `line` is what stands below the header row of a table.
fn is_delimiter_row(line: &str) -> bool {
    line.contains('-') && line.contains('|') && line.chars().all(|character| "|-: \t".contains(character))
}

/// Whether `trimmed` is an ES module line as MDX has them, not a sentence or a shell command that starts alike.
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
    // `<NODE_IP>` and `<IP>` are placeholders that people write in prose, and no component has such a name.
    name.as_bytes()[0].is_ascii_uppercase()
        && name[..end].bytes().any(|byte| byte.is_ascii_lowercase())
        && (name[end..].is_empty() || name[end..].starts_with(['>', '/', ' ', '\t']))
}

/// Whether `trimmed` is tags and nothing else. Braces and quotes may hold `>`.
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
            ["prose", "prose", "h1 Heading"]
        );
        assert_eq!(kinds("---\nfirst words\n---\nbody"), ["prose", "h2 first words", "prose"]);
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
        assert_eq!(
            found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
            [":::note Version", "words", ":::"]
        );
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
