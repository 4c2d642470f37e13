//! The token sink that writes text.

mod formula;
mod furniture;

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use html5ever::LocalName;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{Tag, TagKind, Token, TokenSink, TokenSinkResult};
use serde_json::{Map, Value};

use crate::ingest::block::{Block, BlockKind, shorten};
use formula::{Formula, Raised};

/// Longest value taken from an attribute, in bytes.
const META_BYTES_MAX: usize = 2000;
/// Longest `<title>` collected before it is shortened, in bytes.
const TITLE_COLLECT_MAX: usize = 4096;
/// Levels of lists that are indented.
const INDENTED_LISTS_MAX: usize = 8;
/// A banner with more text is taken for the page's own text, in bytes.
const BANNER_BYTES_MAX: usize = 6 << 10;

/// How much of a page counts as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ExtractionScope {
    /// Without navigation, footers, cookie banners, closed dialogs.
    Main,
    /// Without navigation.
    Whole,
    /// Everything that is visible.
    Everything,
}

/// What was found on a page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) text: String,
    pub(super) blocks: Vec<Block>,
    pub(super) title: String,
    pub(super) canonical: Option<String>,
    /// The base of relative addresses, if the page names one.
    pub(super) base: Option<String>,
    /// Where a browser saved it from.
    pub(super) saved_from: Option<String>,
    pub(super) metadata: Map<String, Value>,
    /// A skipped footer or banner does not end, or is too long to be one.
    pub(super) unsure: bool,
}

/// Separator to write before the next word; the strongest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    Line,
    Paragraph,
}

/// A marker to write before the next word, after the separator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Bullet,
    Number(i64),
    /// Between two cells.
    Cell,
}

/// Content that is skipped.
#[derive(Debug)]
struct Skipped {
    name: LocalName,
    /// How often the element is open.
    depth: usize,
    /// The reason: its name, or it looks like a footer or banner.
    guess: Guess,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Certain,
    Footer,
    Banner,
}

/// The outermost table that is open.
#[derive(Debug, Default)]
struct Table {
    /// Start of the row's text, cells of the row, how many of them are headers by element and by being bold.
    row: Option<usize>,
    cells: usize,
    headers: usize,
    bold: usize,
    /// No word of the cell was read yet.
    fresh: bool,
    in_head: bool,
    rows: usize,
    header: Option<Range<usize>>,
}

/// Receives tokens and builds a [`Page`]. The tokenizer only has shared references, hence the cell.
pub(super) struct Extractor {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    scope: ExtractionScope,
    page: Page,
    gap: Gap,
    /// Start of the open block.
    block: usize,
    kind: BlockKind,
    skipped: Option<Skipped>,
    in_title: bool,
    title_seen: bool,
    /// Open `<pre>`, links, tables and parts of a page with footers of their own; saturating, since end tags may be
    /// missing or surplus.
    pre: usize,
    links: usize,
    /// Words of the open block within links, and others.
    linked: usize,
    unlinked: usize,
    tables: usize,
    articles: usize,
    /// Open lists; of an ordered one the number of its next item.
    lists: Vec<Option<i64>>,
    table: Table,
    /// The current row has a cell before this one.
    cell_before: bool,
    in_cell: bool,
    marker: Marker,
    heading: Option<u8>,
    raised: Option<Raised>,
    formula: Option<Formula>,
    /// A parenthesis with a reading above characters is open.
    in_ruby_text: bool,
}

/// Elements whose content is not part of the page's text.
const SKIPPED: &[&str] = &[
    "script", "style", "template", "noscript", "nav", "iframe", "noembed", "noframes", "object", "canvas", "select",
    "datalist", "audio", "video", "rp",
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
    pub(super) fn new(scope: ExtractionScope) -> Self {
        let state = State {
            scope,
            page: Page::default(),
            gap: Gap::None,
            block: 0,
            kind: BlockKind::Prose,
            skipped: None,
            in_title: false,
            title_seen: false,
            pre: 0,
            links: 0,
            linked: 0,
            unlinked: 0,
            tables: 0,
            articles: 0,
            lists: Vec::new(),
            table: Table::default(),
            cell_before: false,
            in_cell: false,
            marker: Marker::None,
            heading: None,
            raised: None,
            formula: None,
            in_ruby_text: false,
        };
        Self { state: RefCell::new(state) }
    }

    pub(super) fn into_page(self) -> Page {
        let mut state = self.state.into_inner();
        state.end_row();
        state.close_block();
        let length = state.page.text.trim_end().len();
        state.page.text.truncate(length);
        state.page.title = shorten(&collapse(&state.page.title), TITLE_COLLECT_MAX);
        state.page.unsure |= state.skipped.is_some_and(|skipped| skipped.guess != Guess::Certain);
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
            Token::CommentToken(text) => state.comment(&text),
            Token::DoctypeToken(_) | Token::NullCharacterToken | Token::EOFToken | Token::ParseError(_) => {}
        }
        TokenSinkResult::Continue
    }
}

impl State {
    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        let starts = tag.kind == TagKind::StartTag;
        // Drawings and formulas are XML, where `<style/>` is complete; in HTML the slash means nothing.
        let in_svg = self.skipped.as_ref().is_some_and(|skipped| &*skipped.name == "svg");
        let complete = tag.self_closing && (name == "svg" || in_svg || self.formula.is_some());
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
        let Some(skipped) = &mut self.skipped else { return false };
        if &*skipped.name == "svg" && starts && BREAKOUT.contains(&name) {
            self.skipped = None;
            return false;
        }
        if name == &*skipped.name && !(starts && complete) {
            skipped.depth = if starts { skipped.depth + 1 } else { skipped.depth - 1 };
            if skipped.depth == 0 {
                self.skipped = None;
                self.owe(gap_around(name));
            }
        }
        true
    }

    fn skip_from(&mut self, tag: &Tag, guess: Guess) {
        self.skipped = Some(Skipped { name: tag.name.clone(), depth: 1, guess, bytes: 0 });
        self.owe(gap_around(&tag.name));
    }

    /// Whether `tag` opens something that is skipped.
    fn is_skipped(&self, name: &str, tag: &Tag) -> Option<Guess> {
        if name == "svg" || (SKIPPED.contains(&name) && (name != "nav" || self.scope < ExtractionScope::Everything)) {
            return Some(Guess::Certain);
        }
        if self.formula.is_some() && matches!(name, "annotation" | "annotation-xml") {
            return Some(Guess::Certain);
        }
        if self.scope > ExtractionScope::Main {
            return None;
        }
        if furniture::is_footer(name, tag) && self.articles == 0 {
            return Some(Guess::Footer);
        }
        furniture::is_banner(name, tag).then_some(Guess::Banner)
    }

    fn start(&mut self, name: &str, tag: &Tag, complete: bool) {
        if name == "svg" {
            self.description(attribute(tag, "aria-label"));
        }
        if let Some(guess) = self.is_skipped(name, tag) {
            if complete {
                self.owe(gap_around(name));
            } else {
                self.skip_from(tag, guess);
            }
            return;
        }
        if self.formula.is_some() && self.formula_start(name, complete) {
            return;
        }
        match name {
            "title" => self.in_title = true,
            "html" => self.metadata("language", attribute(tag, "lang")),
            "meta" => self.meta(tag),
            "base" => self.page.base = self.page.base.take().or_else(|| address(tag)),
            "link" if attribute(tag, "rel") == Some("canonical") && self.page.canonical.is_none() => {
                self.page.canonical = address(tag);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                // Pages laid out with tables have headings in cells; they end the row.
                self.row();
                self.open_block(BlockKind::Prose);
                self.heading = Some(name.as_bytes()[1] - b'0');
            }
            "pre" => {
                self.open_block(BlockKind::Verbatim);
                self.pre += 1;
            }
            "ul" | "ol" | "dl" | "menu" => self.start_list(name == "ol", tag),
            "li" => self.start_list_item(tag),
            "dt" | "dd" => self.owe(Gap::Line),
            "table" => self.start_table(),
            "thead" => {
                self.table.in_head = true;
                self.row();
            }
            "tr" | "caption" => self.row(),
            "td" | "th" => self.cell(name == "th"),
            "b" | "strong" => self.table.bold += usize::from(std::mem::take(&mut self.table.fresh)),
            "br" => self.owe(Gap::Line),
            "img" | "area" => self.description(attribute(tag, "alt")),
            "input" => self.input(tag),
            "textarea" | "button" | "label" | "output" | "meter" | "progress" => self.owe(Gap::Space),
            "sup" | "sub" => self.raise(name == "sup"),
            "a" => self.start_link(tag),
            "math" => self.math(tag, complete),
            "ruby" | "rb" | "rt" => self.start_ruby(name == "rt"),
            _ => self.start_other(name, tag),
        }
    }

    fn start_list(&mut self, is_numbered: bool, tag: &Tag) {
        if self.lists.is_empty() && self.tables == 0 {
            self.open_block(BlockKind::List);
        }
        self.owe(Gap::Line);
        let first = attribute(tag, "start").and_then(|start| start.trim().parse().ok()).unwrap_or(1);
        self.lists.push(is_numbered.then_some(first));
    }

    fn start_list_item(&mut self, tag: &Tag) {
        self.owe(Gap::Line);
        self.marker = match self.lists.last_mut() {
            Some(Some(next)) => {
                let given = attribute(tag, "value").and_then(|value| value.trim().parse().ok());
                let number = given.unwrap_or(*next);
                *next = number.saturating_add(1);
                Marker::Number(number)
            }
            _ => Marker::Bullet,
        };
    }

    fn start_table(&mut self) {
        if self.tables == 0 && self.lists.is_empty() {
            self.open_block(BlockKind::Verbatim);
        }
        if self.tables == 0 {
            self.table = Table::default();
        }
        self.tables += 1;
    }

    fn start_link(&mut self, tag: &Tag) {
        if furniture::is_skip_link(tag) {
            self.skip_from(tag, Guess::Certain);
            return;
        }
        self.links += 1;
        if let Some(raised) = &mut self.raised {
            raised.has_link = true;
        }
    }

    fn start_ruby(&mut self, is_text: bool) {
        self.end_ruby_text();
        if is_text && self.gap == Gap::None && !self.page.text.is_empty() {
            self.page.text.push('(');
            self.in_ruby_text = true;
        }
    }

    fn start_other(&mut self, name: &str, tag: &Tag) {
        if matches!(name, "article" | "main" | "blockquote") {
            self.articles += 1;
        }
        if attribute(tag, "role") == Some("img") {
            self.description(attribute(tag, "aria-label"));
        }
        if is_block(name) {
            self.paragraph();
        }
    }

    fn end(&mut self, name: &str) {
        if self.formula.is_some() && self.formula_end(name) {
            return;
        }
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
            "ul" | "ol" | "dl" | "menu" => {
                self.lists.pop();
                self.marker = Marker::None;
                if self.lists.is_empty() && self.tables == 0 {
                    self.open_block(BlockKind::Prose);
                }
            }
            "li" => {
                self.owe(Gap::Line);
                self.marker = Marker::None;
            }
            "table" => {
                self.row();
                self.tables = self.tables.saturating_sub(1);
                self.in_cell = self.tables > 0;
                if self.tables == 0 && self.lists.is_empty() {
                    self.open_block(BlockKind::Prose);
                }
            }
            "thead" => {
                self.row();
                self.table.in_head = false;
            }
            "tr" | "caption" => self.row(),
            "textarea" | "button" | "label" | "output" | "meter" | "progress" => self.owe(Gap::Space),
            "sup" | "sub" => self.lower(),
            "a" => self.links = self.links.saturating_sub(1),
            "rt" | "ruby" => self.end_ruby_text(),
            _ => {
                if matches!(name, "article" | "main" | "blockquote") {
                    self.articles = self.articles.saturating_sub(1);
                }
                if is_block(name) {
                    self.paragraph();
                }
            }
        }
    }

    fn cell(&mut self, is_header: bool) {
        self.in_cell = true;
        if self.cell_before {
            self.marker = Marker::Cell;
        }
        self.cell_before = true;
        if self.tables <= 1 {
            self.table.cells += 1;
            self.table.headers += usize::from(is_header);
            self.table.fresh = true;
        }
    }

    /// A new line of a table.
    fn row(&mut self) {
        self.end_row();
        self.in_cell = false;
        self.cell_before = false;
        self.marker = Marker::None;
        self.owe(Gap::Line);
    }

    /// Whether the row that ends is its table's header: by its elements, or if all cells are bold, as office programs
    /// write tables.
    fn end_row(&mut self) {
        if self.tables != 1 {
            return;
        }
        let table = &mut self.table;
        if table.cells > 1
            && let Some(start) = table.row
        {
            let all = |count: usize| count == table.cells;
            if table.rows == 0 && (table.in_head || all(table.headers) || all(table.bold)) {
                table.header = Some(start..self.page.text.len());
            }
            table.rows += 1;
        }
        (table.row, table.cells, table.headers, table.bold, table.fresh) = (None, 0, 0, 0, false);
    }

    /// A block element: a paragraph, inside lists a line, inside cells nothing.
    fn paragraph(&mut self) {
        if self.tables > 0 || !self.lists.is_empty() {
            self.owe(Gap::Line);
        } else {
            self.open_block(BlockKind::Prose);
        }
    }

    fn owe(&mut self, gap: Gap) {
        let gap = if self.in_cell { gap.min(Gap::Space) } else { gap };
        self.gap = self.gap.max(gap);
    }

    /// Ends the open block; the next text starts one of `kind` after a blank line. A cell stays one line.
    fn open_block(&mut self, kind: BlockKind) {
        if !self.in_cell {
            self.close_block();
            self.kind = kind;
        }
        self.owe(Gap::Paragraph);
    }

    fn close_block(&mut self) {
        let heading = self.heading.take();
        // Only what this block added is read: otherwise tags without text would scan the same white space repeatedly.
        let start = std::mem::replace(&mut self.block, self.page.text.len()).min(self.page.text.len());
        let (linked, unlinked) = (std::mem::take(&mut self.linked), std::mem::take(&mut self.unlinked));
        let kind = match self.kind {
            BlockKind::List if linked > 0 && unlinked == 0 => BlockKind::Links,
            _ => self.kind.clone(),
        };
        let block = Block::trimmed(&self.page.text, start..self.page.text.len(), kind);
        let header = self.table.header.take();
        self.page.blocks.extend(block.map(|mut block| match (heading, header) {
            (Some(level), _) => {
                let title = collapse(&self.page.text[block.range.clone()]);
                // Generators put the permalink mark after the words.
                let title = title.trim_end_matches(furniture::is_link_mark);
                Block::heading(block.range, level, title)
            }
            (None, Some(header)) if header.start >= block.range.start && header.end <= block.range.end => {
                block.kind = BlockKind::Table { header };
                block
            }
            (None, _) => block,
        }));
    }

    fn characters(&mut self, text: &str) {
        if let Some(skipped) = &mut self.skipped {
            skipped.bytes += text.len();
            self.page.unsure |= skipped.guess == Guess::Banner && skipped.bytes > BANNER_BYTES_MAX;
            return;
        }
        if self.in_title {
            if !self.title_seen && self.page.title.len() < TITLE_COLLECT_MAX {
                self.page.title.push_str(&shorten(text, TITLE_COLLECT_MAX));
            }
            return;
        }
        if self.links > 0 && furniture::is_permalink(text, self.heading.is_some()) {
            return;
        }
        if self.formula.is_some() && text.trim().is_empty() {
            return;
        }
        if self.pre > 0 && !self.in_cell {
            self.verbatim(text);
            return;
        }
        self.words(text);
    }

    /// Writes running text, white space as single spaces.
    fn words(&mut self, text: &str) {
        let space = |character: char| character.is_ascii_whitespace() || character == '\u{a0}';
        if text.starts_with(space) {
            self.owe(Gap::Space);
        }
        let mut written = false;
        for word in text.split(space).map(without_invisible).filter(|word| !word.is_empty()) {
            self.apply_gap();
            self.page.text.push_str(&word);
            self.gap = Gap::Space;
            written = true;
            if self.links > 0 {
                self.linked += 1;
            } else {
                self.unlinked += 1;
            }
        }
        if written && !text.ends_with(space) {
            self.gap = Gap::None;
        }
    }

    /// The text for a picture.
    fn description(&mut self, words: Option<&str>) {
        let words = words.map(str::trim).filter(|words| !words.is_empty() && !furniture::is_file_name(words));
        if let Some(words) = words {
            self.owe(Gap::Space);
            self.words(&shorten(words, META_BYTES_MAX));
            self.owe(Gap::Space);
        }
    }

    /// The visible value of a form field.
    fn input(&mut self, tag: &Tag) {
        self.owe(Gap::Space);
        let kind = attribute(tag, "type").unwrap_or_default().to_ascii_lowercase();
        match kind.as_str() {
            "hidden" | "password" | "radio" | "file" | "range" | "color" => {}
            "image" => self.description(attribute(tag, "alt")),
            // A task list shows what is done.
            "checkbox" if !self.lists.is_empty() => {
                self.words(if attribute(tag, "checked").is_some() { "[x]" } else { "[ ]" });
            }
            "checkbox" => {}
            _ => {
                let value = attribute(tag, "value").map(|value| shorten(value, META_BYTES_MAX));
                value.into_iter().for_each(|value| self.words(&value));
            }
        }
        self.owe(Gap::Space);
    }

    fn verbatim(&mut self, text: &str) {
        // The line end after `<pre>` is not part of the content.
        let text = if self.gap == Gap::Paragraph { text.trim_start_matches(['\r', '\n']) } else { text };
        if !text.is_empty() {
            self.apply_gap();
            self.page.text.push_str(text);
        }
    }

    /// Writes the pending separator and marker.
    fn apply_gap(&mut self) {
        let gap = if self.page.text.is_empty() { Gap::None } else { self.gap };
        self.gap = Gap::None;
        let marker = std::mem::replace(&mut self.marker, Marker::None);
        match gap {
            Gap::Paragraph => {
                // Scanned white space is removed, so each byte is scanned once.
                let end = self.page.text.trim_end_matches([' ', '\n']).len();
                self.page.text.truncate(end);
                self.page.text.push_str("\n\n");
                self.block = self.page.text.len();
            }
            Gap::Line => self.page.text.push('\n'),
            Gap::Space if marker != Marker::Cell => self.page.text.push(' '),
            Gap::Space | Gap::None => {}
        }
        if self.in_cell && self.table.row.is_none() {
            self.table.row = Some(self.page.text.len());
        }
        self.table.fresh = false;
        let levels = if self.in_cell { 0 } else { self.lists.len().saturating_sub(1).min(INDENTED_LISTS_MAX) };
        match marker {
            Marker::None => {}
            Marker::Cell => self.page.text.push_str(" | "),
            Marker::Bullet => {
                self.page.text.extend(std::iter::repeat_n("  ", levels));
                self.page.text.push_str("- ");
            }
            Marker::Number(number) => {
                self.page.text.extend(std::iter::repeat_n("  ", levels));
                self.page.text.push_str(&format!("{number}. "));
            }
        }
    }

    fn end_ruby_text(&mut self) {
        if std::mem::take(&mut self.in_ruby_text) {
            self.page.text.push(')');
        }
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

    /// Browsers write the page's address into a comment when they save it.
    fn comment(&mut self, text: &str) {
        if self.page.saved_from.is_some() || text.len() > META_BYTES_MAX {
            return;
        }
        let text = text.trim();
        let address = if let Some(rest) = text.strip_prefix("saved from url=(") {
            rest.split_once(')').map(|(_, address)| address)
        } else if text.starts_with("Page saved with SingleFile") {
            text.lines().find_map(|line| line.trim().strip_prefix("url:"))
        } else {
            None
        };
        let address = address.map(str::trim).filter(|address| address.starts_with("http"));
        self.page.saved_from = address.map(str::to_owned);
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

/// The separator for a skipped element: words are not joined across it, except for formulas and readings.
fn gap_around(name: &str) -> Gap {
    if matches!(name, "math" | "annotation" | "annotation-xml" | "rp") { Gap::None } else { Gap::Space }
}

fn attribute<'a>(tag: &'a Tag, name: &str) -> Option<&'a str> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

fn address(tag: &Tag) -> Option<String> {
    attribute(tag, "href")
        .map(str::trim)
        .filter(|href| !href.is_empty() && href.len() <= META_BYTES_MAX)
        .map(str::to_owned)
}

/// White space as single spaces, none at the ends.
fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A word without marks for possible line breaks.
fn without_invisible(word: &str) -> Cow<'_, str> {
    let invisible = ['\u{ad}', '\u{200b}', '\u{2060}', '\u{feff}'];
    if word.contains(invisible) { Cow::Owned(word.replace(invisible, "")) } else { Cow::Borrowed(word) }
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
            | "hgroup"
            | "hr"
            | "legend"
            | "main"
            | "nav"
            | "p"
            | "search"
            | "section"
            | "summary"
            | "tbody"
            | "tfoot"
    )
}
