//! The token sink that writes text.

use std::cell::RefCell;

use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{Tag, TagKind, Token, TokenSink, TokenSinkResult};
use serde_json::{Map, Value};

use crate::ingest::block::{Block, BlockKind, shorten};

/// Longest value taken from an attribute, in bytes.
const META_BYTES_MAX: usize = 2000;
/// Longest `<title>` collected before it is shortened, in bytes.
const TITLE_COLLECT_MAX: usize = 4096;

/// What was found on a page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) text: String,
    pub(super) blocks: Vec<Block>,
    pub(super) title: String,
    pub(super) canonical: Option<String>,
    pub(super) metadata: Map<String, Value>,
}

/// Separation owed before the next word; the strongest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    Line,
    Paragraph,
}

/// Receives tokens and builds a [`Page`]. The tokenizer hands out shared references, hence the cell.
pub(super) struct Extractor {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    page: Page,
    gap: Gap,
    /// Start of the open block.
    block: usize,
    kind: BlockKind,
    /// Element whose content is skipped, and how often it is open.
    skipped: Option<(&'static str, usize)>,
    in_title: bool,
    title_seen: bool,
    /// Open `<pre>`, lists, tables and cells; saturating, since end tags may be missing or too many.
    pre: usize,
    lists: usize,
    tables: usize,
    /// The current row has a cell before this one.
    cell_before: bool,
    in_cell: bool,
    /// Marker owed before the next word: `- ` or ` | `.
    marker: &'static str,
    heading: Option<u8>,
}

/// Elements whose content is no text of the page.
const SKIPPED: &[&str] = &[
    "script", "style", "template", "noscript", "svg", "nav", "iframe", "noembed", "noframes", "object", "canvas",
    "select",
];

/// HTML elements that end an unclosed `<svg>`, as in the standard's rules for foreign content.
const BREAKOUT: &[&str] = &[
    "body",
    "div",
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "li",
    "table",
    "pre",
    "dl",
    "blockquote",
    "main",
    "article",
    "section",
];

impl Extractor {
    pub(super) fn new() -> Self {
        let state = State {
            page: Page::default(),
            gap: Gap::None,
            block: 0,
            kind: BlockKind::Prose,
            skipped: None,
            in_title: false,
            title_seen: false,
            pre: 0,
            lists: 0,
            tables: 0,
            cell_before: false,
            in_cell: false,
            marker: "",
            heading: None,
        };
        Self { state: RefCell::new(state) }
    }

    pub(super) fn into_page(self) -> Page {
        let mut state = self.state.into_inner();
        state.close_block();
        let length = state.page.text.trim_end().len();
        state.page.text.truncate(length);
        state.page.title = shorten(&collapse(&state.page.title), TITLE_COLLECT_MAX);
        state.page
    }
}

impl TokenSink for Extractor {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut state = self.state.borrow_mut();
        match token {
            Token::CharacterTokens(text) => state.characters(&text),
            Token::TagToken(tag) => return state.tag(&tag),
            Token::DoctypeToken(_)
            | Token::CommentToken(_)
            | Token::NullCharacterToken
            | Token::EOFToken
            | Token::ParseError(_) => {}
        }
        TokenSinkResult::Continue
    }
}

impl State {
    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        let starts = tag.kind == TagKind::StartTag;
        // Drawings are XML, where `<style/>` is complete; in HTML the slash means nothing.
        let complete = tag.self_closing && (name == "svg" || self.skipped.is_some_and(|(skipped, _)| skipped == "svg"));
        if !self.skip(name, starts, complete) {
            if starts {
                self.start(name, tag, complete);
            } else {
                self.end(name);
            }
        }
        // Also inside skipped content: a script there may hold what looks like tags.
        if starts && !complete { content_of(name) } else { TokenSinkResult::Continue }
    }

    /// Whether the tag belongs to skipped content. Raw text (`<script>`) has begun when its start tag passed here.
    fn skip(&mut self, name: &str, starts: bool, complete: bool) -> bool {
        let Some((skipped, depth)) = &mut self.skipped else { return false };
        if *skipped == "svg" && starts && BREAKOUT.contains(&name) {
            self.skipped = None;
            return false;
        }
        if name == *skipped && !(starts && complete) {
            *depth = if starts { *depth + 1 } else { *depth - 1 };
            if *depth == 0 {
                self.skipped = None;
                self.owe(Gap::Space);
            }
        }
        true
    }

    fn start(&mut self, name: &str, tag: &Tag, complete: bool) {
        if let Some(skipped) = SKIPPED.iter().find(|skipped| **skipped == name) {
            if !complete {
                self.skipped = Some((skipped, 1));
            }
            self.owe(Gap::Space);
            return;
        }
        match name {
            "title" => self.in_title = true,
            "html" => self.metadata("language", attribute(tag, "lang")),
            "meta" => self.meta(tag),
            "link" if attribute(tag, "rel") == Some("canonical") && self.page.canonical.is_none() => {
                self.page.canonical =
                    attribute(tag, "href").filter(|href| href.len() <= META_BYTES_MAX).map(str::to_owned);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                // Pages laid out by tables have headings in cells; they end the row.
                self.row();
                self.open_block(BlockKind::Prose);
                self.heading = Some(name.as_bytes()[1] - b'0');
            }
            "pre" => {
                self.open_block(BlockKind::Verbatim);
                self.pre += 1;
            }
            "ul" | "ol" | "dl" => {
                if self.lists == 0 && self.tables == 0 {
                    self.open_block(BlockKind::List);
                }
                self.owe(Gap::Line);
                self.lists += 1;
            }
            "li" => {
                self.owe(Gap::Line);
                self.marker = "- ";
            }
            "dt" | "dd" => self.owe(Gap::Line),
            "table" => {
                if self.tables == 0 && self.lists == 0 {
                    self.open_block(BlockKind::Verbatim);
                }
                self.tables += 1;
            }
            "tr" | "caption" => self.row(),
            "td" | "th" => {
                self.in_cell = true;
                if self.cell_before {
                    self.marker = " | ";
                }
                self.cell_before = true;
            }
            "br" => self.owe(Gap::Line),
            _ if is_block(name) => self.paragraph(),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "title" => {
                self.title_seen |= self.in_title;
                self.in_title = false;
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.open_block(if self.tables > 0 { BlockKind::Verbatim } else { BlockKind::Prose });
            }
            "pre" => {
                self.pre = self.pre.saturating_sub(1);
                self.open_block(BlockKind::Prose);
            }
            "ul" | "ol" | "dl" => {
                self.lists = self.lists.saturating_sub(1);
                self.marker = "";
                if self.lists == 0 && self.tables == 0 {
                    self.open_block(BlockKind::Prose);
                }
            }
            "li" => {
                self.owe(Gap::Line);
                self.marker = "";
            }
            "table" => {
                self.tables = self.tables.saturating_sub(1);
                self.in_cell = self.tables > 0;
                self.marker = "";
                if self.tables == 0 && self.lists == 0 {
                    self.open_block(BlockKind::Prose);
                }
            }
            "tr" | "caption" => self.row(),
            _ if is_block(name) => self.paragraph(),
            _ => {}
        }
    }

    /// A new line of a table.
    fn row(&mut self) {
        self.in_cell = false;
        self.cell_before = false;
        self.marker = "";
        self.owe(Gap::Line);
    }

    /// A block element: a paragraph of its own, inside lists a line, inside cells nothing.
    fn paragraph(&mut self) {
        if self.tables > 0 || self.lists > 0 {
            self.owe(Gap::Line);
        } else {
            self.open_block(BlockKind::Prose);
        }
    }

    fn owe(&mut self, gap: Gap) {
        let gap = if self.in_cell { gap.min(Gap::Space) } else { gap };
        self.gap = self.gap.max(gap);
    }

    /// Ends the open block; the next text starts one of `kind` behind a blank line. A cell stays one line.
    fn open_block(&mut self, kind: BlockKind) {
        if !self.in_cell {
            self.close_block();
            self.kind = kind;
        }
        self.owe(Gap::Paragraph);
    }

    fn close_block(&mut self) {
        let heading = self.heading.take();
        let (start, end) = (self.block, self.page.text.trim_end().len());
        if start >= end {
            return;
        }
        let block = Block::trimmed(&self.page.text, start..end, self.kind.clone());
        self.page.blocks.extend(block.map(|block| match heading {
            Some(level) => {
                let title = collapse(&self.page.text[block.range.clone()]);
                // Generators put the mark of a permalink behind the words.
                let title = title.trim_end_matches(|mark| matches!(mark, '¶' | '\u{e000}'..='\u{f8ff}'));
                Block::heading(block.range, level, title)
            }
            None => block,
        }));
        self.block = self.page.text.len();
    }

    fn characters(&mut self, text: &str) {
        if self.skipped.is_some() {
            return;
        }
        if self.in_title {
            if !self.title_seen && self.page.title.len() < TITLE_COLLECT_MAX {
                self.page.title.push_str(&shorten(text, TITLE_COLLECT_MAX));
            }
            return;
        }
        if self.pre > 0 && !self.in_cell {
            self.verbatim(text);
            return;
        }
        let space = |character: char| character.is_ascii_whitespace() || character == '\u{a0}';
        if text.starts_with(space) {
            self.owe(Gap::Space);
        }
        for word in text.split(space).filter(|word| !word.is_empty()) {
            self.settle();
            self.page.text.push_str(word);
            self.gap = Gap::Space;
        }
        if !text.ends_with(space) && self.gap == Gap::Space && text.contains(|character| !space(character)) {
            self.gap = Gap::None;
        }
    }

    fn verbatim(&mut self, text: &str) {
        // The line end behind `<pre>` is not part of the content.
        let text = if self.gap == Gap::Paragraph { text.trim_start_matches(['\r', '\n']) } else { text };
        if !text.is_empty() {
            self.settle();
            self.page.text.push_str(text);
        }
    }

    /// Writes the owed separation and marker.
    fn settle(&mut self) {
        let gap = if self.page.text.is_empty() { Gap::None } else { self.gap };
        self.gap = Gap::None;
        let marker = std::mem::take(&mut self.marker);
        let end = self.page.text.trim_end_matches([' ', '\n']).len();
        match gap {
            Gap::Paragraph => {
                self.page.text.truncate(end);
                self.page.text.push_str("\n\n");
                self.block = self.page.text.len();
            }
            Gap::Line => self.page.text.push('\n'),
            Gap::Space if marker.is_empty() => self.page.text.push(' '),
            Gap::Space | Gap::None => {}
        }
        self.page.text.push_str(marker);
    }

    fn meta(&mut self, tag: &Tag) {
        let name =
            attribute(tag, "name").or_else(|| attribute(tag, "property")).unwrap_or_default().to_ascii_lowercase();
        let key = match name.as_str() {
            "description" | "og:description" => "description",
            "keywords" => "keywords",
            "author" => "author",
            "date" | "article:published_time" => "date",
            _ => return,
        };
        self.metadata(key, attribute(tag, "content"));
    }

    /// Keeps the first value of a key.
    fn metadata(&mut self, key: &str, value: Option<&str>) {
        let value = value.map(collapse).filter(|value| !value.is_empty());
        if let Some(value) = value
            && !self.page.metadata.contains_key(key)
        {
            self.page.metadata.insert(key.to_owned(), Value::String(shorten(&value, META_BYTES_MAX)));
        }
    }
}

fn attribute<'a>(tag: &'a Tag, name: &str) -> Option<&'a str> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// White space as single spaces, none at the ends.
fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How the tokenizer must read what follows the start tag `name`.
fn content_of(name: &str) -> TokenSinkResult<()> {
    match name {
        "script" => TokenSinkResult::RawData(RawKind::ScriptData),
        "style" | "iframe" | "noembed" | "noframes" | "xmp" => TokenSinkResult::RawData(RawKind::Rawtext),
        "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
        "plaintext" => TokenSinkResult::Plaintext,
        _ => TokenSinkResult::Continue,
    }
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "center"
            | "details"
            | "dialog"
            | "div"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "header"
            | "hr"
            | "legend"
            | "main"
            | "menu"
            | "p"
            | "section"
            | "summary"
            | "thead"
            | "tbody"
            | "tfoot"
    )
}
