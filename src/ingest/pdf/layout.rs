//! Converts characters with positions to lines and paragraphs in reading order.
//!
//! A PDF positions strings; it mostly lacks spaces, line ends and columns, and the order in the file is arbitrary. They
//! are derived from the positions: a gap is a space, another baseline a line, a larger step than usual a paragraph, and
//! a gap that many lines share separates columns (see [`columns`](super::columns)).

use unicode_normalization::UnicodeNormalization;

use super::columns::regions;
use super::{bidi, hyphen};

/// Text of one page, in bytes.
const PAGE_TEXT_MAX: usize = 8 << 20;
/// Separate strings of one page.
const PIECES_MAX: usize = 1 << 20;
/// A gap of at least this part of the font size is a space; kerning stays below, spaces are 0.2 to 0.35, and 0.11 where
/// they are narrow between letters with reduced spacing.
const SPACE: f32 = 0.1;
/// A narrower space, relative to the size, is ignored.
const NO_SPACE: f32 = 0.05;
/// A backward move of more than this part of the size is not kerning.
const BACK: f32 = -0.4;
/// A line step this much larger than the usual one starts a paragraph.
const PARAGRAPH: f32 = 1.35;
/// Text that is drawn again within this part of the size is made bold that way.
const AGAIN: f32 = 0.12;
/// Two pieces are on one line if they share this part of the smaller height: indices and exponents do.
const SHARED: f32 = 0.5;

/// A position on the page, relative to the direction of writing.
#[derive(Debug, Clone, Copy)]
pub(super) struct PagePosition {
    /// Along the line.
    pub(super) along: f32,
    /// Across the lines, growing downwards.
    pub(super) down: f32,
    /// Size of the font on the page.
    pub(super) size: f32,
    /// Direction of writing, in degrees.
    rotation: i16,
}

impl PagePosition {
    /// At `(x, y)` of the page, written along the unit vector `direction`.
    pub(super) fn new(x: f32, y: f32, direction: (f32, f32), size: f32) -> Self {
        let (ux, uy) = direction;
        let rotation = uy.atan2(ux).to_degrees().round() as i16;
        Self { along: x * ux + y * uy, down: x * uy - y * ux, size, rotation: rotation.rem_euclid(360) }
    }
}

/// Characters without a gap between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) start: f32,
    pub(super) end: f32,
    /// The baseline.
    pub(super) down: f32,
    pub(super) size: f32,
    /// Bytes in the text of the page.
    text: (u32, u32),
    /// A space was drawn before it.
    space: bool,
    rotation: i16,
}

impl Piece {
    /// The length of its text in bytes.
    pub(super) fn length(&self) -> usize {
        (self.text.1 - self.text.0) as usize
    }

    /// Its text, from that of the page.
    pub(super) fn text_in<'t>(&self, content: &'t str) -> &'t str {
        &content[self.text.0 as usize..self.text.1 as usize]
    }

    fn top(&self) -> f32 {
        self.down - 0.75 * self.size
    }

    fn bottom(&self) -> f32 {
        self.down + 0.2 * self.size
    }
}

/// Everything drawn on one page.
#[derive(Debug, Default)]
pub(super) struct PageContent {
    text: String,
    pieces: Vec<Piece>,
    /// Where the last character started in `text`, and its position.
    last: Option<(usize, f32)>,
    /// A space was drawn since.
    space: bool,
    /// The visible area: left, bottom, right, top.
    window: Option<[f32; 4]>,
}

impl PageContent {
    /// An empty page; characters outside of `window` (left, bottom, right, top) are left out.
    pub(super) fn new(window: Option<[f32; 4]>) -> Self {
        Self { window, ..Self::default() }
    }

    /// Whether it has reached the limit of a page.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() > PAGE_TEXT_MAX || self.pieces.len() > PIECES_MAX
    }

    /// Length of the text so far, in bytes.
    pub(super) fn length(&self) -> usize {
        self.text.len()
    }

    /// Adds what is drawn from `position` to `end` along the line.
    pub(super) fn push(&mut self, raw: &str, position: PagePosition, end: f32) {
        let PagePosition { along, down, size, rotation } = position;
        if raw.trim().is_empty() {
            // Word spacing may cancel the width of a space: then it separates nothing.
            self.space |= end - along > NO_SPACE * size;
            return;
        }
        if !(along.is_finite() && down.is_finite() && end.is_finite() && size.is_finite()) || self.is_hidden(position) {
            return;
        }
        let start = self.text.len();
        clean(raw, &mut self.text);
        if let (Some((begin, last_along)), Some(last)) = (self.last, self.pieces.last()) {
            let again = last.rotation == rotation
                && (down - last.down).abs() < AGAIN * size
                && (along - last_along).abs() < AGAIN * size
                && self.text[begin..start] == self.text[start..];
            if again {
                self.text.truncate(start);
                return;
            }
        }
        let space = std::mem::take(&mut self.space);
        self.last = Some((start, along));
        let text = (start as u32, self.text.len() as u32);
        if let Some(last) = self.pieces.last_mut() {
            let gap = along - last.end;
            let on = !space
                && last.rotation == rotation
                && (down - last.down).abs() < 0.02 * size
                && (size - last.size).abs() < 0.02 * size
                && (BACK * size..=SPACE * size).contains(&gap);
            if on {
                last.end = last.end.max(end);
                last.text.1 = text.1;
                return;
            }
        }
        self.pieces.push(Piece { start: along, end: end.max(along), down, size, text, space, rotation });
    }

    /// Whether a character is outside of the page.
    fn is_hidden(&self, position: PagePosition) -> bool {
        let Some([left, bottom, right, top]) = self.window else { return false };
        let (sine, cosine) = f32::from(position.rotation).to_radians().sin_cos();
        let x = position.along * cosine + position.down * sine;
        let y = position.along * sine - position.down * cosine;
        let edge = position.size.max(1.0);
        x < left - edge || x > right + edge || y < bottom - edge || y > top + edge
    }

    /// The text of the page. Words divided at the end of a line have [`hyphen::DIVIDED`] after their hyphen.
    pub(super) fn into_text(self) -> String {
        let mut rotations: Vec<(i16, usize)> = Vec::new();
        for piece in &self.pieces {
            match rotations.iter_mut().find(|(rotation, _)| *rotation == piece.rotation) {
                Some((_, length)) => *length += piece.length(),
                None => rotations.push((piece.rotation, piece.length())),
            }
        }
        // The main direction of the page comes first; the stable sort otherwise keeps the order of the file.
        rotations.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
        let mut out = Writer { text: String::with_capacity(self.text.len() * 9 / 8), content: &self.text };
        for (rotation, _) in rotations {
            let pieces = self.pieces.iter().filter(|piece| piece.rotation == rotation).copied().collect::<Vec<_>>();
            let rightwards = !bidi::is_right_to_left(&self.text);
            for rows in regions(pieces, rightwards, &self.text) {
                out.region(&rows);
            }
        }
        out.text
    }
}

/// Pieces on one line, from left to right.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) pieces: Vec<Piece>,
    /// Baseline and size of the largest piece on it.
    pub(super) down: f32,
    pub(super) size: f32,
}

/// Pieces to lines, from the top.
pub(super) fn rows(mut pieces: Vec<Piece>) -> Vec<Row> {
    pieces.sort_by(|a, b| a.down.total_cmp(&b.down).then(a.start.total_cmp(&b.start)));
    let mut rows: Vec<Row> = Vec::new();
    for piece in pieces {
        let joined = rows.iter_mut().rev().take(3).find(|row| belongs(&piece, row));
        match joined {
            Some(row) => {
                if piece.size > row.size * 1.05 {
                    (row.down, row.size) = (piece.down, piece.size);
                }
                row.pieces.push(piece);
            }
            None => rows.push(Row { down: piece.down, size: piece.size, pieces: vec![piece] }),
        }
    }
    for row in &mut rows {
        row.pieces.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.down.total_cmp(&b.down)));
    }
    rows.sort_by(|a, b| a.down.total_cmp(&b.down));
    rows
}

/// Whether a piece is on a line: on its baseline, or an index or exponent of it. Initials of several lines are not.
fn belongs(piece: &Piece, row: &Row) -> bool {
    let (small, large) = if piece.size < row.size { (piece.size, row.size) } else { (row.size, piece.size) };
    if (piece.down - row.down).abs() < 0.15 * small {
        return true;
    }
    let top = piece.top().max(row.down - 0.75 * row.size);
    let bottom = piece.bottom().min(row.down + 0.2 * row.size);
    large < 2.2 * small && bottom - top > SHARED * 0.95 * small
}

/// Joins lines.
struct Writer<'t> {
    text: String,
    content: &'t str,
}

impl Writer<'_> {
    /// Adds a column, or the whole page.
    fn region(&mut self, rows: &[Row]) {
        let mut usual: Option<f32> = None;
        let mut before: Option<&Row> = None;
        let mut lines: Vec<(bool, String)> = Vec::with_capacity(rows.len());
        for row in rows {
            let line = line(row, self.content);
            if line.is_empty() {
                continue;
            }
            let paragraph = match before {
                None => true,
                Some(last) => {
                    let step = row.down - last.down;
                    let size = row.size.max(last.size).max(f32::MIN_POSITIVE);
                    let resized = (row.size - last.size).abs() > 0.15 * size;
                    let known = usual.unwrap_or(step.min(2.2 * size));
                    usual = Some(known.min(step.max(0.5 * size)));
                    step > PARAGRAPH * known || resized
                }
            };
            lines.push((paragraph, line));
            before = Some(row);
        }
        // All lines of a paragraph determine its direction.
        let whole = lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>();
        let leftwards = whole.iter().map(|line| bidi::balance(line)).sum::<i64>() > 0;
        for (paragraph, line) in lines {
            let line = if bidi::has_right_to_left(&line) { bidi::logical(&line, leftwards) } else { line };
            self.break_line(paragraph, &line);
            self.text.push_str(&line);
        }
    }

    /// Ends the line before `next`; a divided word is marked.
    fn break_line(&mut self, paragraph: bool, next: &str) {
        if self.text.is_empty() {
            return;
        }
        match hyphen::end_of(&self.text, next) {
            hyphen::End::Divided => self.text.push(hyphen::DIVIDED),
            hyphen::End::Kept => {}
            hyphen::End::Line => self.text.push_str(if paragraph { "\n\n" } else { "\n" }),
        }
    }
}

/// The text of a row in visual order, from left to right.
fn line(row: &Row, content: &str) -> String {
    let mut line = String::new();
    let mut last: Option<&Piece> = None;
    for piece in &row.pieces {
        let text = piece.text_in(content);
        if let Some(before) = last {
            let size = piece.size.min(before.size);
            let again = (piece.start - before.start).abs() < AGAIN * size
                && (piece.down - before.down).abs() < AGAIN * size
                && before.text_in(content) == text;
            if again {
                continue;
            }
            let gap = piece.start - before.end;
            // Above one another on one line: a fraction.
            let stacked = (piece.down - before.down).abs() > 0.9 * size;
            if gap > SPACE * size || (piece.space && gap > BACK * size) || stacked {
                line.push(' ');
            }
        }
        line.push_str(text);
        last = Some(piece);
    }
    line
}

/// Appends `raw`, the text of one code or mark, with ligatures as letters, exotic spaces as spaces, and without control
/// characters. Right-to-left letters are added in visual order: whole lines are converted later.
fn clean(raw: &str, text: &mut String) {
    let start = text.len();
    for character in raw.chars() {
        match character {
            ' '..='~' => text.push(character),
            // Ligatures of Latin letters, and the shapes that Arabic letters take within words.
            '\u{fb00}'..='\u{fb06}' | '\u{fb50}'..='\u{fdf1}' | '\u{fe70}'..='\u{fefc}' => {
                text.extend(character.nfkc())
            }
            _ if character.is_whitespace() => text.push(' '),
            _ if character.is_control() => {}
            _ => text.push(character),
        }
    }
    if text[start..].chars().nth(1).is_some() && bidi::has_right_to_left(&text[start..]) {
        let seen = bidi::logical(&text[start..], true);
        text.truncate(start);
        text.push_str(&seen);
    }
}
