//! Detects the columns of a page and their order.
//!
//! Lines are processed from the top. A gap between words that continues from line to line is a gutter while no word
//! covers it; it separates columns if there is running text on both sides for several lines. Lists, tables and
//! accidentally aligned spaces have narrow sides, few words or few lines, and stay line by line.

use super::layout::{Piece, Row, rows};

/// Narrowest gutter, in units of the usual font size. TeX has 1.0, minus overhang; spaces are 0.25 to 0.5.
const GUTTER: f32 = 0.6;
/// Nested columns: four columns need at most two levels.
const DEPTH_MAX: usize = 6;
/// Gutters that are followed at a time.
const ACTIVE_MAX: usize = 16;
/// Narrowest column, in units of the usual font size.
const COLUMN: f32 = 6.0;
/// Words on the average line of a column, and characters where words have no spaces between them.
const WORDS: f32 = 2.2;
const IDEOGRAPHS: f32 = 6.0;
/// Part of a column's width that its average line covers.
const FILLED: f32 = 0.5;
/// A vertical step that ends a group of columns when only one side continues, in units of the usual font size.
const APART: f32 = 2.2;
/// The same at the bottom, where one column is often longer than the other and continues after a heading.
const APART_BELOW: f32 = 6.0;

/// A part of a row without a gutter in it.
#[derive(Debug, Clone, Copy)]
struct Block {
    start: f32,
    end: f32,
    words: f32,
    /// Whether most of it has no spaces between words.
    ideographs: bool,
    characters: f32,
}

/// A gap that continues from row `first` to row `last`.
#[derive(Debug, Clone, Copy)]
struct Gutter {
    from: f32,
    to: f32,
    first: usize,
    last: usize,
}

/// Splits the pieces of a page into its columns, in the order of reading, each with its rows from the top.
pub(super) fn regions(pieces: Vec<Piece>, rightwards: bool, page_content: &str) -> Vec<Vec<Row>> {
    let mut out = Vec::new();
    split(pieces, rightwards, page_content, 0, &mut out);
    out
}

fn split(pieces: Vec<Piece>, rightwards: bool, page_content: &str, depth: usize, out: &mut Vec<Vec<Row>>) {
    let size = usual_size(&pieces);
    let rows = rows(pieces);
    let gutters = if depth < DEPTH_MAX && rows.len() > 2 { gutters(&rows, size, page_content) } else { Vec::new() };
    let mut whole = Vec::new();
    let mut gutters = gutters.into_iter().peekable();
    let mut sides = (Vec::new(), Vec::new());
    for (index, row) in rows.into_iter().enumerate() {
        match gutters.peek() {
            Some(gutter) if index >= gutter.first => {
                if !whole.is_empty() {
                    out.push(std::mem::take(&mut whole));
                }
                let middle = f32::midpoint(gutter.from, gutter.to);
                for piece in row.pieces {
                    let side = if f32::midpoint(piece.start, piece.end) < middle { &mut sides.0 } else { &mut sides.1 };
                    side.push(piece);
                }
                if index == gutter.last {
                    gutters.next();
                    let (left, right) = std::mem::take(&mut sides);
                    let (first, second) = if rightwards { (left, right) } else { (right, left) };
                    split(first, rightwards, page_content, depth + 1, out);
                    split(second, rightwards, page_content, depth + 1, out);
                }
            }
            _ => whole.push(row),
        }
    }
    if !whole.is_empty() {
        out.push(whole);
    }
}

/// The size that most of the text has.
fn usual_size(pieces: &[Piece]) -> f32 {
    let mut sizes: Vec<(f32, usize)> = pieces.iter().map(|piece| (piece.size, piece.length())).collect();
    sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = sizes.iter().map(|(_, length)| length).sum::<usize>() / 2;
    let mut sum = 0;
    let usual = sizes.iter().find(|(_, length)| {
        sum += length;
        sum > half
    });
    usual.map_or(1.0, |(size, _)| size.max(f32::MIN_POSITIVE))
}

fn blocks(row: &Row, size: f32, page_content: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for piece in &row.pieces {
        let text = piece.text_in(page_content);
        let characters = text.chars().count() as f32;
        let ideographs = text.chars().filter(|character| ('\u{2e80}'..'\u{fb00}').contains(character)).count() as f32;
        let words = text.split(' ').count() as f32;
        match blocks.last_mut() {
            Some(block) if piece.start - block.end < GUTTER * size => {
                block.end = block.end.max(piece.end);
                block.words += words;
                block.characters += characters;
                block.ideographs |= ideographs * 2.0 > characters;
            }
            _ => blocks.push(Block {
                start: piece.start,
                end: piece.end,
                words,
                characters,
                ideographs: ideographs * 2.0 > characters,
            }),
        }
    }
    blocks
}

/// The gutters between columns, from the top, in rows that do not overlap.
fn gutters(rows: &[Row], size: f32, page_content: &str) -> Vec<Gutter> {
    let blocks: Vec<Vec<Block>> = rows.iter().map(|row| blocks(row, size, page_content)).collect();
    let mut found: Vec<(usize, Gutter)> = candidates(rows, &blocks, size)
        .into_iter()
        .filter_map(|gutter| trim(gutter, rows, &blocks, size))
        .filter_map(|gutter| Some((lines_of_text(&gutter, &blocks, size)?, gutter)))
        .collect();
    // The longest first; of equal ones the wider, then the left one.
    found.sort_by(|(lines, a), (others, b)| {
        others.cmp(lines).then((b.to - b.from).total_cmp(&(a.to - a.from))).then(a.from.total_cmp(&b.from))
    });
    let mut taken = vec![false; rows.len()];
    let mut chosen = Vec::new();
    for (_, gutter) in found {
        let range = gutter.first..=gutter.last;
        if !taken[range.clone()].iter().any(|taken| *taken) {
            taken[range].fill(true);
            chosen.push(gutter);
        }
    }
    chosen.sort_by_key(|gutter| gutter.first);
    chosen
}

/// Gaps that continue for at least two rows.
fn candidates(rows: &[Row], blocks: &[Vec<Block>], size: f32) -> Vec<Gutter> {
    let least = GUTTER * size;
    let (mut active, mut done): (Vec<Gutter>, Vec<Gutter>) = (Vec::new(), Vec::new());
    for (index, row) in blocks.iter().enumerate() {
        let mut kept: Vec<Gutter> = Vec::with_capacity(active.len());
        for gutter in active {
            match gap_within(row, gutter.from, gutter.to) {
                Some((from, to)) if to - from >= least => kept.push(Gutter { from, to, last: index, ..gutter }),
                _ => done.push(gutter),
            }
        }
        let mut start = |from: f32, to: f32, first: usize| {
            let known = kept.iter().any(|gutter| gutter.from < to && from < gutter.to);
            if to - from >= least && !known && kept.len() < ACTIVE_MAX {
                kept.push(Gutter { from, to, first, last: index });
            }
        };
        for pair in row.windows(2) {
            start(pair[0].end, pair[1].start, index);
        }
        // Columns whose lines are not aligned: each row is one side.
        if let (Some(before), [.., own_last]) = (index.checked_sub(1), row.as_slice())
            && let ([first, ..], [.., last]) = (blocks[before].as_slice(), blocks[before].as_slice())
            && rows[index].down - rows[before].down < size
        {
            if own_last.end < first.start {
                start(own_last.end, first.start, before);
            } else if last.end < row[0].start {
                start(last.end, row[0].start, before);
            }
        }
        active = kept;
    }
    done.extend(active);
    done.retain(|gutter| gutter.last > gutter.first);
    done
}

/// The widest part of `from..to` that no block covers, if any.
fn gap_within(row: &[Block], from: f32, to: f32) -> Option<(f32, f32)> {
    let mut best: Option<(f32, f32)> = None;
    let first = row.partition_point(|block| block.end <= from);
    let mut left = if first == 0 { f32::NEG_INFINITY } else { row[first - 1].end };
    for block in row[first..].iter().map(|block| (block.start, block.end)).chain([(f32::INFINITY, f32::INFINITY)]) {
        let gap = (left.max(from), block.0.min(to));
        if gap.1 > gap.0 && best.is_none_or(|best| gap.1 - gap.0 > best.1 - best.0) {
            best = Some(gap);
        }
        left = block.1;
        if left >= to {
            break;
        }
    }
    best
}

/// Which sides of a gutter a row has.
fn sides(row: &[Block], gutter: &Gutter) -> (bool, bool) {
    let middle = f32::midpoint(gutter.from, gutter.to);
    (row.iter().any(|block| block.end <= middle), row.iter().any(|block| block.start >= middle))
}

/// Extends a gutter over rows above that do not cover it, and cuts off rows at its ends that are separate and have one
/// side only: they are not part of the columns.
fn trim(gutter: Gutter, rows: &[Row], blocks: &[Vec<Block>], size: f32) -> Option<Gutter> {
    let mut gutter = gutter;
    let near = |above: usize, apart: f32| rows[above + 1].down - rows[above].down < apart * size;
    while let Some(above) = gutter.first.checked_sub(1)
        && near(above, APART)
        && gap_within(&blocks[above], gutter.from, gutter.to).is_some_and(|gap| gap == (gutter.from, gutter.to))
    {
        gutter.first = above;
    }
    let range = gutter.first..=gutter.last;
    let seen: Vec<(bool, bool)> = blocks[range].iter().map(|row| sides(row, &gutter)).collect();
    let last_of = |side: fn(&(bool, bool)) -> bool| seen.iter().rposition(side);
    let first_of = |side: fn(&(bool, bool)) -> bool| seen.iter().position(side);
    // From here on only one side continues, and up to there only one.
    let both_end = last_of(|row| row.0)?.min(last_of(|row| row.1)?) + gutter.first;
    let both_start = first_of(|row| row.0)?.max(first_of(|row| row.1)?) + gutter.first;
    if let Some(cut) = (both_end..gutter.last).find(|row| !near(*row, APART_BELOW)) {
        gutter.last = cut;
    }
    if let Some(cut) = (gutter.first..both_start).rfind(|row| !near(*row, APART)) {
        gutter.first = cut + 1;
    }
    (gutter.first < gutter.last).then_some(gutter)
}

/// The number of lines of running text on the shorter side; `None` when the sides are not columns.
fn lines_of_text(gutter: &Gutter, blocks: &[Vec<Block>], size: f32) -> Option<usize> {
    let middle = f32::midpoint(gutter.from, gutter.to);
    let mut sides = [Side::default(), Side::default()];
    for row in &blocks[gutter.first..=gutter.last] {
        let split = row.partition_point(|block| f32::midpoint(block.start, block.end) < middle);
        sides[0].add(&row[..split]);
        sides[1].add(&row[split..]);
    }
    let lines = sides[0].lines.min(sides[1].lines);
    // The narrower the gap, the more lines must share it.
    let least = match (gutter.to - gutter.from) / size {
        1.5.. => 3,
        0.9..1.5 => 4,
        _ => 6,
    };
    (lines >= least && sides.iter().all(|side| side.is_column(size))).then_some(lines)
}

/// One side of a gutter.
#[derive(Debug)]
struct Side {
    lines: usize,
    start: f32,
    end: f32,
    covered: f32,
    words: f32,
    characters: f32,
    ideographs: usize,
}

impl Default for Side {
    fn default() -> Self {
        let (start, end) = (f32::INFINITY, f32::NEG_INFINITY);
        Self { lines: 0, start, end, covered: 0.0, words: 0.0, characters: 0.0, ideographs: 0 }
    }
}

impl Side {
    fn add(&mut self, blocks: &[Block]) {
        let [first, ..] = blocks else { return };
        let end = blocks.iter().fold(first.end, |end, block| end.max(block.end));
        self.lines += 1;
        self.start = self.start.min(first.start);
        self.end = self.end.max(end);
        self.covered += end - first.start;
        self.words += blocks.iter().map(|block| block.words).sum::<f32>();
        self.characters += blocks.iter().map(|block| block.characters).sum::<f32>();
        self.ideographs += usize::from(blocks.iter().any(|block| block.ideographs));
    }

    fn is_column(&self, size: f32) -> bool {
        let lines = self.lines as f32;
        let width = self.end - self.start;
        let texts =
            self.words >= WORDS * lines || (self.ideographs * 2 > self.lines && self.characters >= IDEOGRAPHS * lines);
        width >= COLUMN * size && self.covered >= FILLED * width * lines && texts
    }
}
