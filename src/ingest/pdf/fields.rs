//! Parts of a page outside its content: values of forms, ticked boxes, text boxes, stamps.
//!
//! These are annotations (ISO 32000-1, 12.5). Their appearance is drawn if it has text; a field whose appearance is
//! left to the viewer shows its value. Links and comments are left out: a page does not show them.

use hayro_syntax::object::dict::keys::{
    ANNOTS, AP, AS, BBOX, F, FF, FT, MATRIX, N, PARENT, RECT, RESOURCES, SUBTYPE, V,
};
use hayro_syntax::object::{self, Array, Dict, Name, Object, Rect, Stream};
use hayro_syntax::page::{Page, Resources};

use super::file::unpack;
use super::layout::{PageContent, PagePosition};
use super::page::{IDENTITY, Matrix, PageReader, PageStats, Stopped};
use super::text_string;

/// Longest value of a field, in bytes as stored.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Nested fields.
const PARENTS_MAX: usize = 8;
/// Largest size for a value without an appearance.
const SIZE_MAX: f32 = 12.0;
/// Bits of annotation flags: hidden, and not shown on a screen.
const HIDDEN: i64 = 1 << 1 | 1 << 5;
/// Bits of field flags.
const PASSWORD: i64 = 1 << 13;
const PUSH_BUTTON: i64 = 1 << 16;

/// Draws the annotations of a page that show text.
pub(super) fn draw<'a>(
    page: &Page<'a>,
    reader: &mut PageReader<'a>,
    page_content: &mut PageContent,
    seen: &mut PageStats,
) -> Result<(), Stopped> {
    let Some(list) = page.raw().get::<Array<'a>>(ANNOTS) else { return Ok(()) };
    for annotation in list.iter::<Dict<'a>>() {
        if !reader.budget.spend(annotation.data().len() + 1) {
            return Err(Stopped::Spent);
        }
        if annotation.get::<i64>(F).unwrap_or(0) & HIDDEN != 0 {
            continue;
        }
        let Some(area) = annotation.get::<Rect>(RECT) else { continue };
        match annotation.get::<Name<'_>>(SUBTYPE).as_deref() {
            Some(b"Widget") => field(&annotation, area, page, reader, page_content, seen)?,
            Some(b"FreeText" | b"Stamp") => {
                appearance(&annotation, area, page, reader, page_content, seen)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn field<'a>(
    widget: &Dict<'a>,
    area: Rect,
    page: &Page<'a>,
    reader: &mut PageReader<'a>,
    page_content: &mut PageContent,
    seen: &mut PageStats,
) -> Result<(), Stopped> {
    let flags = match inherited(widget, FF) {
        Some(Object::Number(flags)) => flags.as_i64(),
        _ => 0,
    };
    let kind = inherited(widget, FT).and_then(Object::into_name);
    let kind = kind.as_deref().unwrap_or_default();
    if kind == b"Tx" && flags & PASSWORD != 0 {
        return Ok(());
    }
    if kind == b"Btn" && flags & PUSH_BUTTON == 0 {
        let state = widget.get::<Object<'_>>(AS).or_else(|| inherited(widget, V)).and_then(Object::into_name);
        let is_on = state.is_some_and(|state| state.as_ref() as &[u8] != b"Off");
        write(if is_on { "[x]" } else { "[ ]" }, area, page_content);
        return Ok(());
    }
    if appearance(widget, area, page, reader, page_content, seen)? {
        return Ok(());
    }
    let value = match inherited(widget, V) {
        Some(Object::String(value)) => text_string(&value),
        Some(Object::Stream(value)) => {
            unpack(&value, VALUE_BYTES_MAX).map_or(String::new(), |value| text_string(&value))
        }
        Some(Object::Array(choices)) => {
            let choices: Vec<String> =
                choices.iter::<object::String<'_>>().map(|choice| text_string(&choice)).collect();
            choices.join(", ")
        }
        _ => String::new(),
    };
    write(&value, area, page_content);
    Ok(())
}

/// An entry of a field or of the field that it belongs to.
fn inherited<'a>(field: &Dict<'a>, key: &[u8]) -> Option<Object<'a>> {
    let mut field = field.clone();
    for _ in 0..PARENTS_MAX {
        if let Some(value) = field.get::<Object<'a>>(key) {
            return Some(value);
        }
        field = field.get(PARENT)?;
    }
    None
}

/// Draws the stored appearance of an annotation; false when that shows no text.
fn appearance<'a>(
    annotation: &Dict<'a>,
    area: Rect,
    page: &Page<'a>,
    reader: &mut PageReader<'a>,
    page_content: &mut PageContent,
    seen: &mut PageStats,
) -> Result<bool, Stopped> {
    let normal = annotation.get::<Dict<'a>>(AP).and_then(|looks| looks.get::<Object<'a>>(N));
    let form = match normal {
        Some(Object::Stream(form)) => form,
        Some(Object::Dict(states)) => {
            let state = annotation.get::<Name<'_>>(AS);
            let Some(form) = state.and_then(|state| states.get::<Stream<'a>>(state.as_ref() as &[u8])) else {
                return Ok(false);
            };
            form
        }
        _ => return Ok(false),
    };
    let before = page_content.length();
    // A form without resources uses those of the page, as elsewhere.
    let own = form.dict().get::<Dict<'a>>(RESOURCES).map(Resources::new);
    let matrix = placed(&form, area);
    reader.form(&form, own.as_ref().unwrap_or(page.resources()), matrix, page_content, seen)?;
    Ok(page_content.length() > before)
}

/// Moves the box of a form, after the form's own matrix, onto `area` (ISO 32000-1, 12.5.5).
fn placed(form: &Stream<'_>, area: Rect) -> Matrix {
    let Some(own) = form.dict().get::<Rect>(BBOX) else { return IDENTITY };
    let [a, b, c, d, e, f] = form.dict().get::<[f64; 6]>(MATRIX).unwrap_or([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    let corners = [(own.x0, own.y0), (own.x1, own.y0), (own.x0, own.y1), (own.x1, own.y1)];
    let corners = corners.map(|(x, y)| (a * x + c * y + e, b * x + d * y + f));
    let least = |pick: fn(&(f64, f64)) -> f64| corners.iter().map(pick).fold(f64::INFINITY, f64::min);
    let most = |pick: fn(&(f64, f64)) -> f64| corners.iter().map(pick).fold(f64::NEG_INFINITY, f64::max);
    let (left, bottom) = (least(|corner| corner.0), least(|corner| corner.1));
    let (width, height) = (most(|corner| corner.0) - left, most(|corner| corner.1) - bottom);
    let scale = |to: f64, from: f64| if from > 0.0 && to > 0.0 { to / from } else { 1.0 };
    let (sx, sy) = (scale(area.x1 - area.x0, width), scale(area.y1 - area.y0, height));
    [sx as f32, 0.0, 0.0, sy as f32, (area.x0 - left * sx) as f32, (area.y0 - bottom * sy) as f32]
}

/// Writes a value into the area of its field.
fn write(value: &str, area: Rect, page_content: &mut PageContent) {
    let lines: Vec<&str> = value.split(['\r', '\n']).filter(|line| !line.trim().is_empty()).collect();
    let height = (area.y1 - area.y0).abs() as f32;
    let (left, bottom, count) = (area.x0.min(area.x1) as f32, area.y0.min(area.y1) as f32, lines.len().max(1) as f32);
    let size = (height / count * 0.7).clamp(1.0, SIZE_MAX);
    // One line is centred, several start at the top.
    let first = if lines.len() == 1 { bottom + (height - size) / 2.0 + 0.2 * size } else { bottom + height - size };
    for (line, index) in lines.iter().zip(0u8..) {
        let position = PagePosition::new(left + 2.0, first - f32::from(index) * 1.2 * size, (1.0, 0.0), size);
        let width = 0.5 * size * line.chars().count() as f32;
        // A space before, so that it never runs into the text to its left.
        page_content.push(" ", position, position.along + size);
        page_content.push(line, position, position.along + width);
    }
}
