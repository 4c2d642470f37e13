//! Converts the operators of a page (ISO 32000-1, 9.4) to characters with positions.
//!
//! Supported are the text operators, the graphics state as far as it moves text, forms, and marked content with
//! explicit text (`ActualText`). All work is charged to the document's [`Budget`].

use std::rc::Rc;

use hayro_syntax::content::UntypedIter;
use hayro_syntax::object::dict::keys::{ACTUAL_TEXT, CONTENTS, MATRIX, RESOURCES, SUBTYPE};
use hayro_syntax::object::{Array, Dict, Name, Object, Stream};
use hayro_syntax::page::{Page, Resources};
use rustc_hash::FxHashMap;

use super::file::{Budget, Unpacked, unpack};
use super::font::{Font, Fonts};
use super::layout::{PageContent, PagePosition};

/// Maximum decompressed content of a page or form. Pages of text are below 1 MiB, maps and plots reach 10.
const CONTENT_BYTES_MAX: usize = 16 << 20;
/// Nested forms.
const FORM_DEPTH_MAX: usize = 8;
/// Graphics states kept by `q`.
const SAVED_MAX: usize = 512;
/// Nested marked content.
const MARKS_MAX: usize = 64;
/// A string with at most this many codes may use character spacing as a gap between words.
const SHORT: usize = 3;
/// The cost of drawing a form in addition to its content, of named marked content and of a character, in bytes of work.
const FORM_WORK: usize = 512;
const MARK_WORK: usize = 128;
const CHARACTER_WORK: usize = 8;

/// Statistics of a page besides its text.
#[derive(Debug, Default)]
pub(super) struct PageStats {
    /// Characters that their font does not define, by the name of the font.
    pub(super) lost: FxHashMap<String, usize>,
    /// Operators that show text.
    pub(super) strings: usize,
    /// Images and shapes drawn.
    pub(super) shapes: usize,
}

/// Why a page was not read completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Its decompressed content is too large.
    TooLarge,
    /// It exceeds the maximum text of a page.
    TooMuchText,
    /// The document has used up its [`Budget`].
    Spent,
}

/// Reads the pages of a document one after another.
pub(super) struct PageReader<'a> {
    pub(super) fonts: Fonts<'a>,
    pub(super) budget: Budget,
}

impl<'a> PageReader<'a> {
    pub(super) fn new(budget: Budget) -> Self {
        Self { fonts: Fonts::new(), budget }
    }

    /// Draws the content of a page.
    pub(super) fn read(
        &mut self,
        page: &Page<'a>,
        page_content: &mut PageContent,
        seen: &mut PageStats,
    ) -> Result<(), Stopped> {
        let content = self.content(page)?;
        let mut run = Run { reader: self, page_content, seen, marks: Vec::new() };
        run.content(&content, page.resources(), IDENTITY, 0)
    }

    /// The content streams of a page, which are one program.
    fn content(&mut self, page: &Page<'a>) -> Result<Vec<u8>, Stopped> {
        let streams: Vec<Stream<'a>> = match page.raw().get::<Object<'a>>(CONTENTS) {
            Some(Object::Stream(stream)) => vec![stream],
            Some(Object::Array(list)) => list.iter::<Stream<'a>>().collect(),
            _ => Vec::new(),
        };
        let mut content = Vec::new();
        for stream in streams {
            content.extend_from_slice(&self.unpack(&stream, CONTENT_BYTES_MAX - content.len())?);
            content.push(b'\n');
            if content.len() > CONTENT_BYTES_MAX {
                return Err(Stopped::TooLarge);
            }
        }
        Ok(content)
    }

    fn unpack(&mut self, stream: &Stream<'a>, max: usize) -> Result<std::borrow::Cow<'a, [u8]>, Stopped> {
        match unpack(stream, max) {
            Ok(content) if self.budget.spend(content.len() + 1) => Ok(content),
            Ok(_) => Err(Stopped::Spent),
            Err(Unpacked::TooLarge) => {
                self.budget.spend(max.min(CONTENT_BYTES_MAX));
                Err(if self.budget.is_spent() { Stopped::Spent } else { Stopped::TooLarge })
            }
            Err(Unpacked::Broken) => Ok(std::borrow::Cow::Borrowed(&[])),
        }
    }

    /// Draws a separate form, such as the appearance of a field, transformed by `matrix`.
    pub(super) fn form(
        &mut self,
        form: &Stream<'a>,
        outer: &Resources<'a>,
        matrix: Matrix,
        page_content: &mut PageContent,
        seen: &mut PageStats,
    ) -> Result<(), Stopped> {
        let mut run = Run { reader: self, page_content, seen, marks: Vec::new() };
        run.form(form, outer, matrix, 0)
    }
}

/// The drawing of one page.
struct Run<'r, 'a> {
    reader: &'r mut PageReader<'a>,
    page_content: &'r mut PageContent,
    seen: &'r mut PageStats,
    /// Open marked content; `Some` if it has explicit text.
    marks: Vec<Option<Actual>>,
}

/// Explicit text of marked content.
struct Actual {
    text: String,
    /// From the start of the first character to the end of the last.
    span: Option<(PagePosition, f32)>,
}

impl<'a> Run<'_, 'a> {
    /// Executes the operators of `content`. Ends at the first invalid one: what precedes it is valid.
    fn content(
        &mut self,
        content: &[u8],
        resources: &Resources<'a>,
        base: Matrix,
        depth: usize,
    ) -> Result<(), Stopped> {
        let mut state = State::new(base);
        let mut saved = Vec::new();
        let mut fonts: FxHashMap<Vec<u8>, Option<Rc<Font<'a>>>> = FxHashMap::default();
        let mut operations = UntypedIter::new(content);
        let marks = self.marks.len();
        while let Some(operation) = operations.next() {
            let mut operands = operation.operands();
            match operation.operator.as_ref() as &[u8] {
                b"q" if saved.len() < SAVED_MAX => saved.push(state.clone()),
                b"Q" => state = saved.pop().unwrap_or(state),
                b"cm" => {
                    if let Some(matrix) = matrix(&mut operands) {
                        state.page = multiply(matrix, state.page);
                    }
                }
                b"BT" => state.set_line(IDENTITY),
                b"Tf" => {
                    if let Some(Object::Name(name)) = operands.next() {
                        state.font = self.font(name, resources, &mut fonts)?;
                    }
                    state.size = number(&mut operands).unwrap_or(state.size);
                }
                b"TL" => state.leading = number(&mut operands).unwrap_or(state.leading),
                b"Tc" => state.character_space = number(&mut operands).unwrap_or(0.0),
                b"Tw" => state.word_space = number(&mut operands).unwrap_or(0.0),
                b"Tz" => state.stretch = number(&mut operands).unwrap_or(100.0) / 100.0,
                b"Ts" => state.rise = number(&mut operands).unwrap_or(0.0),
                b"Tm" => {
                    if let Some(matrix) = matrix(&mut operands) {
                        state.set_line(matrix);
                    }
                }
                operator @ (b"Td" | b"TD") => {
                    if let (Some(x), Some(y)) = (number(&mut operands), number(&mut operands)) {
                        if operator == b"TD" {
                            state.leading = -y;
                        }
                        state.next_line(x, y);
                    }
                }
                b"T*" => state.next_line(0.0, -state.leading),
                b"Tj" => self.show(&mut state, operands.next())?,
                b"'" => {
                    state.next_line(0.0, -state.leading);
                    self.show(&mut state, operands.next())?;
                }
                b"\"" => {
                    state.word_space = number(&mut operands).unwrap_or(0.0);
                    state.character_space = number(&mut operands).unwrap_or(0.0);
                    state.next_line(0.0, -state.leading);
                    self.show(&mut state, operands.next())?;
                }
                b"TJ" => {
                    if let Some(Object::Array(list)) = operands.next() {
                        self.show_list(&mut state, list)?;
                    }
                }
                b"Do" => {
                    if let Some(Object::Name(name)) = operands.next() {
                        self.draw(name, resources, state.page, depth)?;
                    }
                }
                b"BI" | b"f" | b"F" | b"f*" | b"B" | b"B*" | b"b" | b"b*" | b"S" | b"s" | b"sh" => {
                    self.seen.shapes += 1
                }
                b"BMC" => self.open(None),
                b"BDC" => {
                    let stated = match operands.nth(1) {
                        Some(Object::Dict(own)) => own.get(ACTUAL_TEXT),
                        Some(Object::Name(name)) if self.reader.budget.spend(MARK_WORK) => {
                            let listed = resources.properties.get::<Dict<'_>>(name.as_ref() as &[u8]);
                            listed.and_then(|listed| listed.get::<hayro_syntax::object::String<'_>>(ACTUAL_TEXT))
                        }
                        _ => None,
                    };
                    self.open(stated.map(|text| super::text_string(&text)));
                }
                b"EMC" => self.close(marks),
                _ => {}
            }
        }
        while self.marks.len() > marks {
            self.close(marks);
        }
        Ok(())
    }

    fn font(
        &mut self,
        name: &Name<'_>,
        resources: &Resources<'a>,
        known: &mut FxHashMap<Vec<u8>, Option<Rc<Font<'a>>>>,
    ) -> Result<Option<Rc<Font<'a>>>, Stopped> {
        if let Some(font) = known.get(name.as_ref() as &[u8]) {
            return Ok(font.clone());
        }
        let font = resources.fonts.get::<Dict<'a>>(name.as_ref() as &[u8]).and_then(|font| {
            let enough = self.reader.budget.spend(font.data().len());
            enough.then(|| self.reader.fonts.get(&font, &mut self.reader.budget)).flatten()
        });
        if self.reader.budget.is_spent() {
            return Err(Stopped::Spent);
        }
        known.insert(name.to_vec(), font.clone());
        Ok(font)
    }

    fn draw(&mut self, name: &Name<'_>, resources: &Resources<'a>, page: Matrix, depth: usize) -> Result<(), Stopped> {
        // The lookup has a cost, even if it fails.
        if !self.reader.budget.spend(FORM_WORK) {
            return Err(Stopped::Spent);
        }
        let Some(object) = resources.x_objects.get::<Stream<'a>>(name.as_ref() as &[u8]) else { return Ok(()) };
        if !self.reader.budget.spend(object.dict().data().len()) {
            return Err(Stopped::Spent);
        }
        match object.dict().get::<Name<'_>>(SUBTYPE) {
            Some(kind) if kind.as_ref() as &[u8] == b"Image" => self.seen.shapes += 1,
            Some(kind) if kind.as_ref() as &[u8] != b"Form" => {}
            _ if depth < FORM_DEPTH_MAX => self.form(&object, resources, page, depth)?,
            _ => {}
        }
        Ok(())
    }

    /// Draws a form: content with its own resources and matrix.
    fn form(&mut self, form: &Stream<'a>, outer: &Resources<'a>, page: Matrix, depth: usize) -> Result<(), Stopped> {
        let content = match self.reader.unpack(form, CONTENT_BYTES_MAX) {
            Err(Stopped::TooLarge) => return Ok(()),
            content => content?,
        };
        let own = form.dict().get::<Dict<'a>>(RESOURCES).map(Resources::new);
        let matrix = form.dict().get::<Array<'_>>(MATRIX).and_then(|list| matrix_of(list.iter::<f32>()));
        let matrix = multiply(matrix.unwrap_or(IDENTITY), page);
        self.content(&content, own.as_ref().unwrap_or(outer), matrix, depth + 1)
    }

    fn open(&mut self, text: Option<String>) {
        // Nested text is already included in the outer text.
        if self.marks.len() < MARKS_MAX {
            self.marks.push(text.map(|text| Actual { text, span: None }));
        }
    }

    fn close(&mut self, floor: usize) {
        if self.marks.len() <= floor {
            return;
        }
        if let Some(Some(Actual { text, span: Some((start, end)) })) = self.marks.pop() {
            self.page_content.push(&text, start, end);
        }
    }

    fn show_list(&mut self, state: &mut State<'a>, list: &Array<'_>) -> Result<(), Stopped> {
        for item in list.iter::<Object<'_>>() {
            match item {
                Object::Number(back) => {
                    let step = -finite(back.as_f32()).unwrap_or(0.0) / 1000.0 * state.size;
                    if state.font.as_ref().is_some_and(|font| font.vertical) {
                        state.advance(0.0, step);
                    } else {
                        state.advance(step * state.stretch, 0.0);
                    }
                }
                item => self.show(state, Some(&item))?,
            }
        }
        Ok(())
    }

    fn show(&mut self, state: &mut State<'a>, string: Option<&Object<'_>>) -> Result<(), Stopped> {
        let Some(Object::String(string)) = string else { return Ok(()) };
        let mut codes = string.as_bytes();
        if codes.is_empty() {
            return Ok(());
        }
        if !self.reader.budget.spend(codes.len().saturating_mul(CHARACTER_WORK)) {
            return Err(Stopped::Spent);
        }
        self.seen.strings += 1;
        let Some(font) = state.font.clone() else {
            // No font, or an invalid one: the codes have no meaning.
            *self.seen.lost.entry("that the file does not describe".to_owned()).or_default() += codes.len();
            return Ok(());
        };
        let whole = multiply([1.0, 0.0, 0.0, 1.0, 0.0, state.rise], multiply(state.next, state.page));
        let axis = Axis::of(whole, font.vertical, state.size);
        // Headings are spaced out by it; if it moves one or two characters it represents a space.
        let is_gap = codes.len() <= SHORT && state.character_space > 0.0;
        let mut done = 0.0;
        let mut lost = 0;
        while !codes.is_empty() {
            let (glyph, length) = font.next(codes);
            codes = &codes[length..];
            let mut step = glyph.width * state.size + state.character_space;
            if glyph.is_space {
                step += state.word_space;
            }
            if !font.vertical {
                step *= state.stretch;
            }
            let step = finite(step).unwrap_or(0.0);
            let drawn = if is_gap { step - state.character_space * state.stretch } else { step };
            let (start, end) = (axis.at(done), axis.at(done + drawn).along);
            done += step;
            let actual = self.marks.iter_mut().rev().find_map(Option::as_mut);
            match (&glyph.text, actual) {
                (_, Some(Actual { span: Some((_, last)), .. })) => *last = last.max(end),
                (_, Some(actual)) => actual.span = Some((start, end)),
                (Some(text), None) => self.page_content.push(text, start, end),
                (None, None) => lost += 1,
            }
        }
        if lost > 0 {
            *self.seen.lost.entry(font.name.clone()).or_default() += lost;
        }
        if font.vertical {
            state.advance(0.0, -done)
        } else {
            state.advance(done, 0.0)
        }
        if self.page_content.is_full() { Err(Stopped::TooMuchText) } else { Ok(()) }
    }
}

/// `[a b c d e f]`: x' = ax + cy + e, y' = bx + dy + f.
pub(super) type Matrix = [f32; 6];

pub(super) const IDENTITY: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// First `inner`, then `outer`.
pub(super) fn multiply(inner: Matrix, outer: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = inner;
    let [oa, ob, oc, od, oe, of] = outer;
    [a * oa + b * oc, a * ob + b * od, c * oa + d * oc, c * ob + d * od, e * oa + f * oc + oe, e * ob + f * od + of]
}

fn finite(number: f32) -> Option<f32> {
    number.is_finite().then_some(number)
}

fn number<'b, 'a: 'b>(operands: &mut impl Iterator<Item = &'b Object<'a>>) -> Option<f32> {
    match operands.next()? {
        Object::Number(number) => finite(number.as_f32()),
        _ => None,
    }
}

fn matrix<'b, 'a: 'b>(operands: &mut impl Iterator<Item = &'b Object<'a>>) -> Option<Matrix> {
    matrix_of(std::iter::from_fn(|| number(operands)))
}

fn matrix_of(mut numbers: impl Iterator<Item = f32>) -> Option<Matrix> {
    let mut matrix = IDENTITY;
    for entry in &mut matrix {
        *entry = finite(numbers.next()?)?;
    }
    Some(matrix)
}

/// The line along which a string is written.
struct Axis {
    start: PagePosition,
    /// Length on the page of one unit of text space.
    scale: f32,
}

impl Axis {
    fn of(matrix: Matrix, vertical: bool, size: f32) -> Self {
        let [a, b, c, d, x, y] = matrix;
        let (across, up) = (a.hypot(b), c.hypot(d));
        let (ux, uy, scale, height) = if vertical { (-c, -d, up, across) } else { (a, b, across, up) };
        // A negative size reverses the letters, and their direction.
        let (ux, uy, scale) = if size < 0.0 { (-ux, -uy, -scale) } else { (ux, uy, scale) };
        let length = scale.abs();
        let direction = if length > 0.0 { (ux / length, uy / length) } else { (1.0, 0.0) };
        Self { start: PagePosition::new(x, y, direction, (size * height).abs()), scale }
    }

    fn at(&self, distance: f32) -> PagePosition {
        let mut position = self.start;
        position.along += distance * self.scale;
        position
    }
}

/// Graphics and text state.
#[derive(Clone)]
struct State<'a> {
    page: Matrix,
    /// The start of the line, and the position of the next character.
    line: Matrix,
    next: Matrix,
    font: Option<Rc<Font<'a>>>,
    size: f32,
    leading: f32,
    character_space: f32,
    word_space: f32,
    rise: f32,
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
            rise: 0.0,
            stretch: 1.0,
        }
    }

    fn set_line(&mut self, matrix: Matrix) {
        (self.line, self.next) = (matrix, matrix);
    }

    fn next_line(&mut self, x: f32, y: f32) {
        self.set_line(multiply([1.0, 0.0, 0.0, 1.0, x, y], self.line));
    }

    fn advance(&mut self, x: f32, y: f32) {
        self.next = multiply([1.0, 0.0, 0.0, 1.0, x, y], self.next);
    }
}
