//! The text operators of a page (ISO 32000-1, 9.4) to lines and paragraphs.
//!
//! A PDF places strings; spaces and line ends are mostly not in it. They are told from where a string starts and where
//! the one before it ended: another baseline is a line, a larger step than usual a paragraph, a gap a space.

use std::rc::Rc;

use lopdf::content::Content;
use lopdf::{Dictionary, Document, Object, ObjectId, Stream};

use super::font::{Font, Fonts};

/// What the content of a page or form may unpack to. Pages of text are below 1 MiB, maps and plots reach 10.
const CONTENT_BYTES_MAX: usize = 16 << 20;
/// What all content of a document may unpack to, forms counted as often as they are drawn.
const CONTENTS_BYTES_MAX: usize = 1 << 30;
/// Text of one page.
const PAGE_TEXT_MAX: usize = 8 << 20;
/// Forms within forms.
const FORM_DEPTH_MAX: usize = 8;
/// Graphics states kept by `q`.
const SAVED_MAX: usize = 512;

/// A gap of this part of the font size is a space; kerning stays below 0.1, spaces are 0.2 to 0.35.
const SPACE: f32 = 0.17;
/// A step across the line of this part of the font size is another line; indices and exponents stay below.
const LINE: f32 = 0.6;
/// A line step this much larger than the usual one begins a paragraph.
const PARAGRAPH: f32 = 1.35;

/// Reads the pages of a file one after another.
pub(super) struct PageReader<'a, 'f> {
    file: &'a Document,
    fonts: &'f mut Fonts<'a>,
    /// Content that may still be unpacked.
    left: usize,
}

impl<'a, 'f> PageReader<'a, 'f> {
    pub(super) fn new(file: &'a Document, fonts: &'f mut Fonts<'a>) -> Self {
        Self { file, fonts, left: CONTENTS_BYTES_MAX }
    }

    /// The text of a page, or why there is none.
    pub(super) fn read(&mut self, page: ObjectId) -> Result<String, &'static str> {
        let content = self
            .file
            .get_page_content_with_limit(page, CONTENT_BYTES_MAX.min(self.left))
            .map_err(|_| "its content unpacks to more than is allowed")?;
        self.left = self.left.saturating_sub(content.len());
        let mut resources = Vec::new();
        if let Ok((direct, ids)) = self.file.get_page_resources(page) {
            resources.extend(direct);
            resources.extend(ids.into_iter().filter_map(|id| self.file.get_dictionary(id).ok()));
        }
        let mut out = Layout::default();
        self.run(&content, &resources, IDENTITY, &mut out, 0);
        if out.text.len() > PAGE_TEXT_MAX {
            return Err("it has more text than is allowed on a page");
        }
        Ok(out.text)
    }

    /// Follows the operators of `content`. Stops at the first that cannot be read: what came before is good.
    fn run(&mut self, content: &[u8], resources: &[&'a Dictionary], base: Matrix, out: &mut Layout, depth: usize) {
        let mut state = State::new(base);
        let mut saved = Vec::new();
        for operation in Content::decode_iter(content).map_while(Result::ok) {
            if out.text.len() > PAGE_TEXT_MAX {
                return;
            }
            let operands = operation.operands.as_slice();
            match operation.operator.as_str() {
                "q" if saved.len() < SAVED_MAX => saved.push(state.clone()),
                "Q" => state = saved.pop().unwrap_or(state),
                "cm" => {
                    if let Some(matrix) = matrix(operands) {
                        state.page = multiply(matrix, state.page);
                    }
                }
                "BT" => state.set_line(IDENTITY),
                "Tf" => {
                    let name = operands.first().and_then(|name| name.as_name().ok());
                    state.font = name
                        .and_then(|name| find(self.file, resources, b"Font", name))
                        .and_then(|font| self.fonts.get(font.as_dict().ok()?));
                    state.size = number(operands, 1).unwrap_or(state.size);
                }
                "TL" => state.leading = number(operands, 0).unwrap_or(state.leading),
                "Tc" => state.character_space = number(operands, 0).unwrap_or(0.0),
                "Tw" => state.word_space = number(operands, 0).unwrap_or(0.0),
                "Tz" => state.stretch = number(operands, 0).unwrap_or(100.0) / 100.0,
                "Tm" => {
                    if let Some(matrix) = matrix(operands) {
                        state.set_line(matrix);
                        out.placed = true;
                    }
                }
                "Td" | "TD" => {
                    if let (Some(x), Some(y)) = (number(operands, 0), number(operands, 1)) {
                        if operation.operator == "TD" {
                            state.leading = -y;
                        }
                        state.next_line(x, y);
                        out.placed = true;
                    }
                }
                "T*" => state.next_line(0.0, -state.leading),
                "Tj" => state.show(operands.first(), out),
                "'" => {
                    state.next_line(0.0, -state.leading);
                    state.show(operands.first(), out);
                }
                "\"" => {
                    state.word_space = number(operands, 0).unwrap_or(0.0);
                    state.character_space = number(operands, 1).unwrap_or(0.0);
                    state.next_line(0.0, -state.leading);
                    state.show(operands.get(2), out);
                }
                "TJ" => {
                    for item in operands.first().and_then(|list| list.as_array().ok()).map_or(&[][..], Vec::as_slice) {
                        match item {
                            Object::String(..) => state.show(Some(item), out),
                            other => {
                                let back = other.as_float().ok().filter(|number| number.is_finite()).unwrap_or(0.0);
                                state.advance(-back / 1000.0 * state.size * state.stretch);
                            }
                        }
                    }
                }
                "Do" if depth < FORM_DEPTH_MAX => {
                    let name = operands.first().and_then(|name| name.as_name().ok());
                    let object = name.and_then(|name| find(self.file, resources, b"XObject", name));
                    if let Some(form) = object.and_then(|object| object.as_stream().ok()) {
                        self.form(form, resources, state.page, out, depth);
                    }
                }
                _ => {}
            }
        }
    }

    /// Draws a form: content with resources and a matrix of its own.
    fn form(&mut self, form: &'a Stream, outer: &[&'a Dictionary], page: Matrix, out: &mut Layout, depth: usize) {
        if form.dict.get(b"Subtype").and_then(Object::as_name).is_ok_and(|name| name != b"Form") {
            return;
        }
        // Drawing nothing a million times costs as well.
        self.left = self.left.saturating_sub(256);
        let Ok(content) = form.get_plain_content_with_limit(CONTENT_BYTES_MAX.min(self.left)) else { return };
        self.left = self.left.saturating_sub(content.len());
        let own = form.dict.get_deref(b"Resources", self.file).and_then(Object::as_dict);
        let resources = own.map_or_else(|_| outer.to_vec(), |own| vec![own]);
        let array = form.dict.get_deref(b"Matrix", self.file).and_then(Object::as_array);
        let matrix = array.ok().and_then(|array| matrix(array)).unwrap_or(IDENTITY);
        self.run(&content, &resources, multiply(matrix, page), out, depth + 1);
    }
}

/// The object `name` of a category in the first of `resources` that has it.
fn find<'a>(file: &'a Document, resources: &[&'a Dictionary], category: &[u8], name: &[u8]) -> Option<&'a Object> {
    resources.iter().find_map(|resources| {
        let names = resources.get_deref(category, file).and_then(Object::as_dict).ok()?;
        names.get_deref(name, file).ok()
    })
}

/// `[a b c d e f]`: x' = ax + cy + e, y' = bx + dy + f.
type Matrix = [f32; 6];

const IDENTITY: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// First `inner`, then `outer`.
fn multiply(inner: Matrix, outer: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = inner;
    let [oa, ob, oc, od, oe, of] = outer;
    [a * oa + b * oc, a * ob + b * od, c * oa + d * oc, c * ob + d * od, e * oa + f * oc + oe, e * ob + f * od + of]
}

fn number(operands: &[Object], index: usize) -> Option<f32> {
    operands.get(index)?.as_float().ok().filter(|number| number.is_finite())
}

fn matrix(operands: &[Object]) -> Option<Matrix> {
    let mut matrix = IDENTITY;
    for (index, entry) in matrix.iter_mut().enumerate() {
        *entry = number(operands, index)?;
    }
    Some(matrix)
}

/// Graphics and text state.
#[derive(Clone)]
struct State<'a> {
    page: Matrix,
    /// Where the line began, and where the next character goes.
    line: Matrix,
    next: Matrix,
    font: Option<Rc<Font<'a>>>,
    size: f32,
    leading: f32,
    character_space: f32,
    word_space: f32,
    /// Horizontal scale, 1 is normal.
    stretch: f32,
}

impl State<'_> {
    fn new(page: Matrix) -> Self {
        Self {
            page,
            line: IDENTITY,
            next: IDENTITY,
            font: None,
            size: 1.0,
            leading: 0.0,
            character_space: 0.0,
            word_space: 0.0,
            stretch: 1.0,
        }
    }

    fn set_line(&mut self, matrix: Matrix) {
        (self.line, self.next) = (matrix, matrix);
    }

    fn next_line(&mut self, x: f32, y: f32) {
        self.set_line(multiply([1.0, 0.0, 0.0, 1.0, x, y], self.line));
    }

    fn advance(&mut self, x: f32) {
        self.next = multiply([1.0, 0.0, 0.0, 1.0, x, 0.0], self.next);
    }

    fn show(&mut self, string: Option<&Object>, out: &mut Layout) {
        let Some(Object::String(codes, _)) = string else { return };
        let Some(font) = self.font.clone() else { return };
        let start = Place::of(multiply(self.next, self.page), self.size);
        let (width, count, spaces) = font.measure(codes);
        let spacing = self.character_space * count as f32 + self.word_space * spaces as f32;
        self.advance((width * self.size + spacing) * self.stretch);
        let end = Place::of(multiply(self.next, self.page), self.size);
        let mut text = String::new();
        font.decode(codes, &mut text, PAGE_TEXT_MAX);
        out.add(&text, start, end.along, font.is_guessed());
    }
}

/// A position in the direction of writing.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Along the line.
    along: f32,
    /// Across the lines, growing downwards.
    down: f32,
    /// Size of the font on the page.
    size: f32,
    /// Unit vector of the direction.
    direction: (f32, f32),
}

impl Place {
    fn of(matrix: Matrix, size: f32) -> Self {
        let [a, b, c, d, x, y] = matrix;
        let length = a.hypot(b);
        let direction = if length > 0.0 { (a / length, b / length) } else { (1.0, 0.0) };
        let (ux, uy) = direction;
        Self { along: x * ux + y * uy, down: x * uy - y * ux, size: (size * c.hypot(d)).abs(), direction }
    }
}

/// Puts strings together.
#[derive(Default)]
struct Layout {
    text: String,
    last: Option<Last>,
    /// Smallest line step so far: the usual one.
    usual_step: Option<f32>,
    /// The position was set since the last string, not reached by writing.
    placed: bool,
}

/// The string before.
struct Last {
    start: Place,
    end: f32,
    text: String,
    guessed: bool,
}

/// What separates two strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    None,
    Space,
    Line,
    Paragraph,
}

impl Layout {
    fn add(&mut self, raw: &str, start: Place, end: f32, guessed: bool) {
        let text = clean(raw);
        if text.is_empty() {
            return;
        }
        let placed = std::mem::take(&mut self.placed);
        if let Some(last) = &self.last {
            // Bold by writing twice, a hair apart.
            let again = last.text == text
                && (start.along - last.start.along).abs() < 0.1 * start.size
                && (start.down - last.start.down).abs() < 0.1 * start.size;
            if again {
                return;
            }
        }
        match self.gap(start, placed) {
            Gap::None => {}
            Gap::Space if self.text.ends_with(char::is_whitespace) || text.starts_with(' ') => {}
            Gap::Space => self.text.push(' '),
            Gap::Line => self.end_line(&text),
            Gap::Paragraph => {
                self.trim_end();
                self.text.push_str("\n\n");
            }
        }
        let starts_line = self.text.is_empty() || self.text.ends_with('\n');
        self.text.push_str(if starts_line { text.trim_start() } else { &text });
        self.last = Some(Last { start, end, text, guessed });
    }

    fn gap(&mut self, start: Place, placed: bool) -> Gap {
        let Some(last) = &self.last else { return Gap::None };
        let size = start.size.max(last.start.size).max(f32::MIN_POSITIVE);
        let turned = start.direction.0 * last.start.direction.0 + start.direction.1 * last.start.direction.1 < 0.99;
        let step = start.down - last.start.down;
        if turned || !step.is_finite() || step < -2.0 * size {
            return Gap::Paragraph;
        }
        if step.abs() < LINE * size {
            let gap = start.along - last.end;
            return match () {
                // Back to the left on nearly the same height: the next cell or an index.
                () if start.along < last.start.along - size => Gap::Line,
                () if gap > SPACE * size || (last.guessed && placed) => Gap::Space,
                () => Gap::None,
            };
        }
        if step < 0.0 {
            return Gap::Line;
        }
        let resized = (start.size - last.start.size).abs() > 0.15 * size;
        let usual = self.usual_step.unwrap_or(step.min(2.2 * size));
        self.usual_step = Some(usual.min(step));
        if step > PARAGRAPH * usual || resized { Gap::Paragraph } else { Gap::Line }
    }

    /// Ends the line before `next`; a word that was divided is joined.
    fn end_line(&mut self, next: &str) {
        self.trim_end();
        let mut before = self.text.chars().rev();
        let divided =
            matches!(before.next(), Some('-' | '\u{ad}' | '\u{2010}')) && before.next().is_some_and(char::is_lowercase);
        if divided && next.starts_with(char::is_lowercase) {
            self.text.pop();
        } else {
            self.text.push('\n');
        }
    }

    fn trim_end(&mut self) {
        self.text.truncate(self.text.trim_end().len());
    }
}

/// Ligatures as letters, exotic spaces as spaces, no control characters.
fn clean(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    for character in raw.chars() {
        match character {
            '\u{fb00}' => text.push_str("ff"),
            '\u{fb01}' => text.push_str("fi"),
            '\u{fb02}' => text.push_str("fl"),
            '\u{fb03}' => text.push_str("ffi"),
            '\u{fb04}' => text.push_str("ffl"),
            '\u{fb05}' | '\u{fb06}' => text.push_str("st"),
            '\n' | '\r' | '\t' => text.push(' '),
            _ if character.is_whitespace() => text.push(' '),
            _ if character.is_control() => {}
            _ => text.push(character),
        }
    }
    text
}
