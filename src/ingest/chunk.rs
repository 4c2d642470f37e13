//! Documents to chunks: passages of bounded size along the document's structure.
//!
//! Blocks become *pieces* (a block, or a part of one that is too large), headings are attached to the piece below them,
//! and pieces are packed in order: within a section up to the target, across sections only while a chunk is too small
//! on its own. A chunk over several sections has the path they share, never one that applies to half of it.
//!
//! Passages end at natural boundaries: what introduces something (a heading, a line that ends in a colon, the first
//! line of an admonition, a short paragraph above code, a table or a list) stays with it. Headings and links without
//! further words are *thin*: nobody searches for them as a passage, so they are added to a neighbour that has room.

use std::ops::Range;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::block::{Block, BlockKind, HEADING_BYTES_MAX, lines, trim_blank_lines};
use super::tokens::{TOKEN_BYTES_MAX, count_tokens, estimate_tokens, prefix_within};
use super::{Document, encoded, markdown};

/// A paragraph up to this size that ends in a colon, or the first line of an admonition, stays with what it introduces.
const LEAD_TOKENS_MAX: usize = 64;
/// Tokens outside of blocks (comments, tags, badges) that may be within a chunk, and are shown with it.
const GAP_TOKENS_MAX: usize = 32;
/// A chunk with fewer tokens is too small to be found and is merged with a neighbour, and a paragraph stays with code,
/// a table or a list below it. Measured on documentation: up to 64 tokens cost .006 nDCG@10.
const SMALL_TOKENS: usize = 32;

/// Sizes in tokens of [`super::estimate_tokens`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkConfig {
    /// Pieces of a section are packed up to this size.
    pub target_tokens: usize,
    /// Maximum size of a chunk. A block up to this size is never cut.
    pub max_tokens: usize,
}

impl Default for ChunkConfig {
    fn default() -> Self {
        Self { target_tokens: 192, max_tokens: 256 }
    }
}

/// A passage of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Headings above the passage, outermost first, without the document's title. A passage over several sections has
    /// the path they share.
    pub headings: Vec<String>,
    /// `&document.text[range]`: without outer blank lines, but with the indentation of the first line. If the passage
    /// continues a table that started in an earlier one, it is preceded by the table's header row and a line break.
    pub text: String,
    /// Bytes in [`Document::text`], without the repeated header, which is `text.len() - range.len()` bytes long.
    pub range: Range<usize>,
    /// Page on which the passage starts; PDF only.
    pub page: Option<u32>,
}

/// Splits a document into chunks.
///
/// Chunks are in the order of the text and do not overlap; every word is in one, except for what parsers leave out
/// (front matter, parts of a Markdown page that readers do not see, licences above programs), encoded data (see
/// `encoded.rs`), and headings above something left out, which are in the title or in the paths of what follows.
/// [`super::estimate_tokens`] of a chunk is at most `max_tokens` (a `max_tokens` of 0 counts as 1, a target above it as
/// `max_tokens`), so it has at most [`TOKEN_BYTES_MAX`] bytes for each of them. Never fails; O(n).
#[must_use]
pub fn chunk(document: &Document, config: &ChunkConfig) -> Vec<Chunk> {
    let max = config.max_tokens.max(1);
    let target = config.target_tokens.clamp(1, max);
    let blobs = encoded::blobs(&document.text);
    let mut packer = Packer { text: &document.text, blobs, target, max, open: None, thin: None, done: Vec::new() };
    pack(document, &mut packer);
    packer.finish().into_iter().map(|span| span.into_chunk(document)).collect()
}

type Path = Rc<[String]>;

/// A stretch of text under one path: a piece with its headings, later a chunk.
#[derive(Debug, Clone)]
struct Span {
    range: Range<usize>,
    /// Upper bound of the count over `range`; its bytes are checked separately.
    tokens: usize,
    /// Header of the table that continues here, shown above, and its tokens.
    header: Option<(Range<usize>, usize)>,
    path: Path,
    /// Number of the section of its last piece.
    section: usize,
    /// It contains more than headings.
    has_body: bool,
    /// It contains only headings and links.
    thin: bool,
    /// What it introduces.
    lead: Lead,
}

/// What the end of a span introduces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    Nothing,
    /// Something directly below: code, a table, a list. A paragraph is read together with it.
    Shown,
    /// Anything that follows, like a heading or `For example:` does.
    Any,
}

/// Whether the end of a text announces that something follows: `Run this:`, `**Remediation:**`,
/// `<summary>Output</summary>`.
fn announces(text: &str) -> bool {
    let marks = |c: char| matches!(c, '*' | '_') || c.is_whitespace();
    text.trim_end_matches(marks).ends_with([':', '：']) || text.ends_with("</summary>")
}

impl Lead {
    fn of(kind: &BlockKind, text: &str, tokens: usize) -> Self {
        let announces = || announces(text) || text.trim_start().starts_with(":::");
        match kind {
            BlockKind::Heading { .. } => Self::Any,
            _ if tokens <= LEAD_TOKENS_MAX && announces() && !text.trim_matches(':').is_empty() => Self::Any,
            BlockKind::Prose | BlockKind::List if tokens <= SMALL_TOKENS => Self::Shown,
            _ => Self::Nothing,
        }
    }

    /// Whether a block of `kind` can be introduced.
    fn fits(self, kind: &BlockKind) -> bool {
        match self {
            Self::Nothing => false,
            Self::Shown => matches!(kind, BlockKind::Verbatim | BlockKind::Table { .. } | BlockKind::List),
            Self::Any => true,
        }
    }
}

impl Span {
    /// Whether this span may introduce a block of `kind` in `section`: headings introduce anything, paragraphs only
    /// within a section.
    fn introduces(&self, kind: &BlockKind, section: usize) -> bool {
        self.lead.fits(kind) && (!self.has_body || self.section == section)
    }

    fn into_chunk(self, document: &Document) -> Chunk {
        let after = document.pages.partition_point(|page| page.range.start <= self.range.start);
        let page = after.checked_sub(1).map(|index| document.pages[index].number);
        let own = &document.text[self.range.clone()];
        let text = match self.header {
            Some((header, _)) => format!("{}\n{own}", &document.text[header]),
            None => own.to_owned(),
        };
        Chunk { headings: self.path.to_vec(), text, range: self.range, page }
    }
}

/// Number of leading headings that two paths share.
fn shared(left: &Path, right: &Path) -> usize {
    left.iter().zip(right.iter()).take_while(|(left, right)| left == right).count()
}

/// The path of two neighbouring spans together. Headings alone pass their path to what is below them.
fn join_paths(left: &Span, right: &Span) -> Path {
    let common = shared(&left.path, &right.path);
    if common == right.path.len() || (!left.has_body && common == left.path.len()) {
        return Rc::clone(&right.path);
    }
    if common == left.path.len() {
        return Rc::clone(&left.path);
    }
    right.path[..common].into()
}

/// Passes the document to the packer as spans that fit: each is a block or a part of one, with its introduction.
fn pack(document: &Document, packer: &mut Packer<'_>) {
    let mut sections = Sections::new(document.title.as_deref());
    let mut pieces = Vec::new();
    let mut above: Option<Span> = None;
    for block in &document.blocks {
        let (path, section) = sections.enter(block);
        if block.range.is_empty() {
            continue;
        }
        let is_heading = matches!(block.kind, BlockKind::Heading { .. });
        let thin = matches!(block.kind, BlockKind::Heading { .. } | BlockKind::Links);
        // A table and its introduction are useless without each other, so the block is divided instead.
        let lead = above.as_ref().filter(|above| above.lead == Lead::Any && above.introduces(&block.kind, section));
        let room = lead.map_or(packer.max, |lead| packer.max.saturating_sub(lead.tokens));
        split_block(packer, block, room, &mut pieces);
        for Piece { range, tokens, header } in pieces.drain(..) {
            let text = &document.text[range.clone()];
            let lead = Lead::of(&block.kind, text, tokens);
            // Rules and frames of drawings are not content either.
            let thin = thin || !text.contains(char::is_alphanumeric);
            let next =
                Span { range, tokens, header, path: Rc::clone(&path), section, has_body: !is_heading, thin, lead };
            above = Some(match above.take() {
                Some(mut above) if above.introduces(&block.kind, section) && packer.fits(&above, &next) => {
                    packer.append(&mut above, next);
                    above
                }
                done => {
                    done.into_iter().for_each(|done| packer.add(done));
                    next
                }
            });
        }
    }
    above.into_iter().for_each(|above| packer.add(above));
}

/// Follows the headings; knows the path and the number of the current section.
struct Sections<'a> {
    title: Option<&'a str>,
    stack: Vec<(u8, &'a str)>,
    path: Path,
    number: usize,
    title_seen: bool,
}

impl<'a> Sections<'a> {
    fn new(title: Option<&'a str>) -> Self {
        Self { title, stack: Vec::new(), path: Vec::new().into(), number: 0, title_seen: false }
    }

    fn enter(&mut self, block: &'a Block) -> (Path, usize) {
        match &block.kind {
            BlockKind::Heading { level, title } => {
                self.number += 1;
                self.stack.retain(|(above, _)| above < level);
                // The first heading often repeats the title, which every chunk is indexed with anyway.
                let repeats = !self.title_seen && *level == 1 && self.title == Some(title);
                self.title_seen |= repeats;
                if !repeats && !title.is_empty() {
                    self.stack.push((*level, title));
                }
                self.path = self.stack.iter().map(|(_, title)| (*title).to_owned()).collect();
            }
            BlockKind::Boundary => self.number += 1,
            BlockKind::Prose | BlockKind::List | BlockKind::Links | BlockKind::Verbatim | BlockKind::Table { .. } => {}
        }
        (Rc::clone(&self.path), self.number)
    }
}

/// Packs spans into chunks.
struct Packer<'a> {
    text: &'a str,
    /// Ranges of encoded data; ascending.
    blobs: Vec<Range<usize>>,
    target: usize,
    max: usize,
    open: Option<Span>,
    /// A thin span after the open one that waits for the next.
    thin: Option<Span>,
    done: Vec<Span>,
}

impl Packer<'_> {
    /// Tokens between two spans: white space, or markup outside of blocks.
    fn tokens_between(&self, left: &Span, right: &Span) -> usize {
        let between = &self.text[left.range.end..right.range.start];
        if between.trim_ascii().is_empty() { 0 } else { count_tokens(between) }
    }

    /// Tokens of both spans and of the text between them, without a header that is shown above.
    fn joined_tokens(&self, left: &Span, right: &Span) -> usize {
        left.tokens + self.tokens_between(left, right) + right.tokens
    }

    /// Whether both are one passage. A table that continues in `right` has its header in `left`, or above it.
    fn fits(&self, left: &Span, right: &Span) -> bool {
        let (row, header) = left.header.as_ref().map_or((0, 0), |(row, tokens)| (row.len() + 1, *tokens));
        let bytes = row + (right.range.end - left.range.start);
        let between = self.tokens_between(left, right);
        header + left.tokens + between + right.tokens <= self.max
            && between <= GAP_TOKENS_MAX
            && bytes <= self.max.saturating_mul(TOKEN_BYTES_MAX)
            && !self.is_blob(left.range.end..right.range.start)
    }

    /// Whether there is encoded data in between, which belongs to no passage.
    fn is_blob(&self, between: Range<usize>) -> bool {
        encoded::is_blob_within(&self.blobs, &between)
    }

    fn append(&self, left: &mut Span, right: Span) {
        left.tokens = self.joined_tokens(left, &right);
        left.path = join_paths(left, &right);
        left.range.end = right.range.end;
        left.section = right.section;
        left.has_body |= right.has_body;
        left.thin &= right.thin;
        left.lead = right.lead;
    }

    fn belongs(&self, open: &Span, next: &Span) -> bool {
        if !self.fits(open, next) {
            return false;
        }
        let tokens = self.joined_tokens(open, next);
        if open.section == next.section {
            return tokens <= self.target || open.tokens < SMALL_TOKENS || next.tokens < SMALL_TOKENS;
        }
        // Descendants and siblings only: a last small section is unrelated to the next chapter.
        open.tokens < SMALL_TOKENS && shared(&open.path, &next.path) + 1 >= open.path.len()
    }

    /// Adds the next span. A thin one is appended to the open one in its section. One that starts a section waits for
    /// the next: it is added to the first passage below its own headings, otherwise to the one before, otherwise to the
    /// next.
    fn add(&mut self, mut next: Span) {
        if let Some(thin) = self.thin.take() {
            let is_above = shared(&thin.path, &next.path) == thin.path.len();
            let fits = self.fits(&thin, &next);
            if is_above && fits {
                next = self.below(thin, next);
            } else if is_above && self.is_told_below(&thin, &next) {
                // It is in the path of what follows.
            } else if let Some(thin) = self.append_thin(thin) {
                if fits {
                    next = self.below(thin, next);
                } else {
                    self.place(thin);
                }
            }
        }
        if !next.thin {
            return self.place(next);
        }
        let in_section = self.open.as_ref().is_some_and(|open| open.section == next.section);
        self.thin = if in_section { self.append_thin(next) } else { Some(next) };
    }

    /// Whether `thin` needs no passage: headings that markup separates from what follows are in its path.
    fn is_told_below(&self, thin: &Span, next: &Span) -> bool {
        let is_whole_in_path = thin.range.len() <= HEADING_BYTES_MAX;
        !thin.has_body && is_whole_in_path && self.tokens_between(thin, next) > GAP_TOKENS_MAX
    }

    /// Merges both, under the headings of the one that is not thin.
    fn below(&self, mut thin: Span, next: Span) -> Span {
        let path = Rc::clone(&next.path);
        self.append(&mut thin, next);
        thin.path = path;
        thin
    }

    /// Appends a thin span to the open one, which keeps its headings; returns it if there is no room.
    fn append_thin(&mut self, thin: Span) -> Option<Span> {
        let Some(mut open) = self.open.take() else { return Some(thin) };
        if !self.fits(&open, &thin) {
            self.open = Some(open);
            return Some(thin);
        }
        let path = if open.thin { join_paths(&open, &thin) } else { Rc::clone(&open.path) };
        self.append(&mut open, thin);
        open.path = path;
        self.open = Some(open);
        None
    }

    fn place(&mut self, next: Span) {
        match self.open.take() {
            Some(mut open) if self.belongs(&open, &next) => {
                self.append(&mut open, next);
                self.open = Some(open);
            }
            open => {
                self.close(open);
                self.open = Some(next);
            }
        }
    }

    /// Ends a chunk. A small one that could not be merged is added to the chunk before it, if that keeps its path.
    fn close(&mut self, open: Option<Span>) {
        let Some(open) = open else { return };
        if let Some(mut last) = self.done.pop() {
            let keeps_path = shared(&last.path, &open.path) == last.path.len();
            if open.tokens < SMALL_TOKENS && keeps_path && self.fits(&last, &open) {
                let path = Rc::clone(&last.path);
                self.append(&mut last, open);
                last.path = path;
                self.done.push(last);
                return;
            }
            self.done.push(last);
        }
        self.done.push(open);
    }

    fn finish(mut self) -> Vec<Span> {
        if let Some(thin) = self.thin.take()
            && let Some(thin) = self.append_thin(thin)
        {
            self.place(thin);
        }
        let open = self.open.take();
        self.close(open);
        self.done
    }
}

/// Whether a range has at most as many bytes as `tokens` allow.
fn bytes_fit(range: &Range<usize>, tokens: usize) -> bool {
    range.len() <= tokens.saturating_mul(TOKEN_BYTES_MAX)
}

/// Where a text may be cut, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Before a list item at the list's own indentation.
    Items,
    /// After blank lines, but neither after an introduction of the next lines nor within code.
    Thoughts,
    /// After blank lines.
    Groups,
    /// Before any list item.
    InnerItems,
    /// Before a line, but not after one that opens what follows: `name:`, `if (x) {`, a comment.
    Statements,
    Lines,
    Sentences,
    Words,
    Characters,
}

/// A block, or a part of one that is too large.
struct Piece {
    range: Range<usize>,
    tokens: usize,
    /// Header of the table that this continues, and its tokens.
    header: Option<(Range<usize>, usize)>,
}

/// Appends the pieces of a block with their token counts: the block itself if it fits. Encoded data is left out.
///
/// * `room`: tokens left next to the introduction of the block.
fn split_block(packer: &Packer<'_>, block: &Block, room: usize, pieces: &mut Vec<Piece>) {
    for range in encoded::without_blobs(&packer.blobs, block.range.clone()) {
        if let Some(range) = trim_blank_lines(packer.text, range) {
            split_text(packer, range, &block.kind, room, pieces);
        }
    }
}

fn split_text(packer: &Packer<'_>, range: Range<usize>, kind: &BlockKind, room: usize, pieces: &mut Vec<Piece>) {
    use Cut::{Characters, Groups, InnerItems, Items, Lines, Sentences, Statements, Thoughts, Words};
    let tokens = count_tokens(&packer.text[range.clone()]);
    // If there is hardly any room next to it, the introduction becomes a separate passage.
    let room = if room < packer.max / 2 { packer.max } else { room };
    if tokens <= room && bytes_fit(&range, room) {
        pieces.push(Piece { range, tokens, header: None });
        return;
    }
    let (mut limit, mut header) = (packer.target.min(room), None);
    let cuts: &[Cut] = match kind {
        BlockKind::List | BlockKind::Links => {
            &[Items, Thoughts, Groups, InnerItems, Statements, Lines, Sentences, Words, Characters]
        }
        BlockKind::Verbatim => &[Groups, Statements, Lines, Sentences, Words, Characters],
        BlockKind::Table { header: row } => {
            let above = estimate_tokens(&packer.text[row.clone()]);
            // A header that fills half of a passage would leave too little room for the rows.
            if above * 2 <= packer.max {
                limit = limit.min(packer.max - above);
                header = Some((row.clone(), above));
            }
            &[Lines, Sentences, Words, Characters]
        }
        BlockKind::Prose => &[Sentences, Lines, Words, Characters],
        BlockKind::Heading { .. } | BlockKind::Boundary => &[Words, Characters],
    };
    let mut found = Vec::new();
    split(packer.text, range, cuts, limit, &mut found);
    pieces.extend(found.into_iter().map(|(range, tokens)| {
        let header = header.clone().filter(|(row, _)| range.start >= row.end);
        Piece { range, tokens, header }
    }));
}

/// Cuts `range` at the first of `cuts` into pieces of at most `limit` tokens, as large as possible; what is still too
/// large is cut at the next.
fn split(text: &str, range: Range<usize>, cuts: &[Cut], limit: usize, pieces: &mut Vec<(Range<usize>, usize)>) {
    let Some((cut, finer)) = cuts.split_first() else { return };
    let mut open: Option<(Range<usize>, usize)> = None;
    let emit = |range: Range<usize>, tokens: usize, pieces: &mut Vec<_>| {
        pieces.extend(trim_blank_lines(text, range).map(|range| (range, tokens)));
    };
    for segment in segments(text, range, *cut, limit) {
        let tokens = count_tokens(&text[segment.clone()]);
        if let Some((range, sum)) = &mut open
            && *sum + tokens <= limit
            && bytes_fit(&(range.start..segment.end), limit)
        {
            range.end = segment.end;
            *sum += tokens;
            continue;
        }
        if let Some((range, sum)) = open.take() {
            emit(range, sum, pieces);
        }
        if (tokens > limit || !bytes_fit(&segment, limit)) && !finer.is_empty() {
            split(text, segment, finer, limit, pieces);
        } else {
            open = Some((segment, tokens));
        }
    }
    if let Some((range, sum)) = open {
        emit(range, sum, pieces);
    }
}

/// `range` cut everywhere `cut` allows; the segments cover it without gaps.
fn segments(text: &str, range: Range<usize>, cut: Cut, limit: usize) -> impl Iterator<Item = Range<usize>> {
    let starts: Box<dyn Iterator<Item = usize>> = match cut {
        Cut::Items => Box::new(item_starts(text, range.clone(), true)),
        Cut::Thoughts => Box::new(thought_starts(text, range.clone())),
        Cut::Groups => Box::new(group_starts(text, range.clone())),
        Cut::InnerItems => Box::new(item_starts(text, range.clone(), false)),
        Cut::Statements => Box::new(statement_starts(text, range.clone())),
        Cut::Lines => Box::new(lines(text, range.clone()).map(|line| line.start)),
        Cut::Sentences => Box::new(sentence_starts(text, range.clone())),
        Cut::Words => Box::new(word_starts(text, range.clone())),
        Cut::Characters => {
            let end = range.end;
            let next = move |at: &usize| (*at < end).then(|| at + prefix_within(&text[*at..end], limit));
            Box::new(std::iter::successors(Some(range.start), next))
        }
    };
    let mut from = range.start;
    starts.chain([range.end]).filter_map(move |start| {
        let segment = from..start;
        from = start.max(from);
        (!segment.is_empty()).then_some(segment)
    })
}

/// Lines of a list that start an item; `outer`: at the indentation of its first line or further out. Lines of code start none.
fn item_starts(text: &str, range: Range<usize>, outer: bool) -> impl Iterator<Item = usize> {
    let base = lines(text, range.clone()).next().map_or(0, |line| line.indent());
    let mut fence = None;
    lines(text, range).filter_map(move |line| {
        let in_code = markdown::is_in_fence(line.content.trim(), &mut fence);
        let first = line.content.trim_start().as_bytes().first().copied();
        let is_item = (!outer || line.indent() <= base)
            && first.is_some_and(|byte| byte.is_ascii_digit() || b"-*+".contains(&byte));
        (is_item && !in_code).then_some(line.start)
    })
}

/// Lines after blank lines, except if the line above introduces what follows: it ends in a colon, opens an admonition,
/// or code follows. Code is not divided.
fn thought_starts(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let (mut fence, mut blank, mut introduced) = (None, false, false);
    lines(text, range).filter_map(move |line| {
        let content = line.content.trim();
        let in_code = markdown::is_in_fence(content, &mut fence);
        if content.is_empty() {
            blank = true;
            return None;
        }
        let starts = blank && !introduced && !in_code && !content.starts_with(":::");
        blank = false;
        introduced = !in_code && (announces(content) || content.starts_with(":::"));
        starts.then_some(line.start)
    })
}

/// Lines, except after one that opens what follows.
fn statement_starts(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let mut opened = false;
    lines(text, range).filter_map(move |line| {
        let content = line.content.trim();
        let starts = !opened;
        opened =
            content.ends_with([':', '{', '(', '[', '\\']) || content.starts_with("# ") || content.starts_with("//");
        starts.then_some(line.start)
    })
}

/// Lines after blank lines.
fn group_starts(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let mut blank = false;
    lines(text, range).filter_map(move |line| {
        let starts = blank && !line.is_blank();
        blank = line.is_blank();
        starts.then_some(line.start)
    })
}

/// Starts of sentences: after `.`, `!`, `?` or `:` (with closing quotes or brackets) and white space, and after
/// ideographic full stops.
fn sentence_starts(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let (mut ended, mut wide, mut space) = (false, false, false);
    text[range.clone()].char_indices().filter_map(move |(offset, character)| {
        match character {
            '.' | '!' | '?' | ':' => (ended, wide, space) = (true, false, false),
            '。' | '！' | '？' | '；' => (ended, wide, space) = (true, true, false),
            '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '*' | '_' | '`' | '」' | '』' if ended && !space => {}
            _ if character.is_whitespace() => space = true,
            _ => {
                let starts = ended && (wide || space);
                (ended, wide, space) = (false, false, false);
                return starts.then_some(range.start + offset);
            }
        }
        None
    })
}

/// Characters after white space.
fn word_starts(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let mut space = false;
    text[range.clone()].char_indices().filter_map(move |(offset, character)| {
        let starts = space && !character.is_whitespace();
        space = character.is_whitespace();
        starts.then_some(range.start + offset)
    })
}

#[cfg(test)]
mod tests;
