//! Jupyter notebooks to Markdown: cells in order, code with its lines, printed output. Pictures and other data in
//! outputs are left out.

use serde_json::Value;

use super::block::shorten;
use super::front_matter::TITLE_BYTES_MAX;
use super::{Document, Limits, MediaType, ParseError, html, markdown, records};

/// Parses a notebook of format 3 or 4. JSON without cells is treated as plain JSON.
pub(super) fn parse(source: &str, limits: &Limits, warnings: &mut Vec<String>) -> Result<Vec<Document>, ParseError> {
    let notebook = records::parse_value(source, limits)?;
    let Some(cells) = cells(&notebook) else { return records::parse_json(source, limits, warnings) };
    let meta = &notebook["metadata"];
    let language =
        [&meta["kernelspec"]["language"], &meta["language_info"]["name"]].iter().find_map(|name| name.as_str());
    let mut text = String::new();
    for cell in cells {
        let source = joined(if cell["source"].is_null() { &cell["input"] } else { &cell["source"] });
        match cell["cell_type"].as_str() {
            Some("code") => {
                push_fenced(&mut text, language.unwrap_or("python"), source.trim_end());
                for output in cell["outputs"].as_array().into_iter().flatten() {
                    push_output(&mut text, output, limits);
                }
            }
            Some("heading") => {
                let level = cell["level"].as_u64().unwrap_or(1).clamp(1, 6);
                push(&mut text, &format!("{} {}", "#".repeat(level as usize), source.trim()));
            }
            _ => push(&mut text, source.trim_end()),
        }
        limits.check_text(text.len())?;
    }
    let mut document = markdown::parse(text, warnings);
    document.media_type = MediaType::Notebook;
    if document.title.is_none() {
        let title = meta["title"].as_str().map(str::trim).filter(|title| !title.is_empty());
        document.title = title.map(|title| shorten(title, TITLE_BYTES_MAX));
    }
    Ok(vec![document])
}

/// The cells of format 4, or of the worksheets of format 3.
fn cells(notebook: &Value) -> Option<Vec<&Value>> {
    if let Some(cells) = notebook["cells"].as_array() {
        return Some(cells.iter().collect());
    }
    let sheets = notebook["worksheets"].as_array()?;
    Some(sheets.iter().filter_map(|sheet| sheet["cells"].as_array()).flatten().collect())
}

/// A text that is stored as a string or as a list of its lines.
fn joined(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

fn push(text: &mut String, paragraph: &str) {
    if paragraph.trim().is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(paragraph);
}

/// Adds a fenced block; the fence is longer than any in `content`.
fn push_fenced(text: &mut String, info: &str, content: &str) {
    if content.trim().is_empty() {
        return;
    }
    let longest = content.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(3.max(longest + 1));
    push(text, &format!("{fence}{info}\n{content}\n{fence}"));
}

fn push_output(text: &mut String, output: &Value, limits: &Limits) {
    let kind = output["output_type"].as_str();
    match kind {
        Some("stream") => push_fenced(text, "text", visible_text(&joined(&output["text"])).trim_end()),
        Some("error" | "pyerr") => {
            let trace: Vec<String> = match output["traceback"].as_array() {
                Some(lines) if !lines.is_empty() => lines.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => vec![format!("{}: {}", joined(&output["ename"]), joined(&output["evalue"]))],
            };
            push_fenced(text, "text", visible_text(&trace.join("\n")).trim_end());
        }
        _ => {
            // Format 3 has the representations of a result next to the type.
            let data = if output["data"].is_object() { &output["data"] } else { output };
            let form =
                |names: &[&str]| names.iter().map(|name| joined(&data[*name])).find(|form| !form.trim().is_empty());
            if let Some(words) = form(&["text/markdown"]) {
                push(text, words.trim_end());
            } else if let Some(plain) = form(&["text/plain", "text"]) {
                let plain = visible_text(&plain);
                let plain = plain.trim_end();
                // `<Figure size 640x480>`: the placeholder for a picture.
                if !(plain.starts_with('<') && plain.ends_with('>') && !plain.contains('\n')) {
                    push_fenced(text, "text", plain);
                }
            } else if let Some(page) =
                form(&["text/html", "html"]).and_then(|page| html::parse(&page, None, limits).ok())
            {
                push_fenced(text, "text", page.text.trim_end());
            }
        }
    }
}

/// The final output of a terminal: without colours, and only the last state of a line that was overwritten.
fn visible_text(output: &str) -> String {
    let mut plain = String::with_capacity(output.len());
    let mut rest = output;
    while let Some(escape) = rest.find('\u{1b}') {
        plain.push_str(&rest[..escape]);
        let after = &rest[escape + 1..];
        rest = match after.strip_prefix('[') {
            Some(sequence) => {
                let end = sequence.find(|character: char| character.is_ascii_alphabetic() || character == '\n');
                end.map_or("", |end| {
                    sequence[end..].strip_prefix(|c: char| c.is_ascii_alphabetic()).unwrap_or(&sequence[end..])
                })
            }
            None => after,
        };
    }
    plain.push_str(rest);
    let last = |line: &str| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned();
    plain.split('\n').map(last).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn notebook(value: &Value) -> Document {
        parse(&value.to_string(), &Limits::default(), &mut Vec::new()).expect("a notebook").remove(0)
    }

    #[test]
    fn cells_are_read_in_order_and_pictures_left_out() {
        let found = notebook(&json!({
            "nbformat": 4, "metadata": {"kernelspec": {"language": "python"}},
            "cells": [
                {"cell_type": "markdown", "source": ["# Wear\n", "\n", "We look at *pumps*."]},
                {"cell_type": "code", "source": ["import math\n", "\n", "def wear(x):\n", "    return math.sqrt(x)\n"],
                 "outputs": [
                    {"output_type": "stream", "name": "stdout", "text": ["10%\r50%\r100%\n", "\u{1b}[31mwear\u{1b}[0m is 4.2\n"]},
                    {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo".repeat(500), "text/plain": "<Figure size 1x1>"}},
                    {"output_type": "execute_result", "data": {"text/html": "<table><tr><td>1<td>2</table>", "text/plain": "   a  b\n0  1  2"}},
                    {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []},
                 ]},
                {"cell_type": "raw", "source": "as it is"},
            ],
        }));
        assert_eq!(
            found.text,
            "# Wear\n\nWe look at *pumps*.\n\n```python\nimport math\n\ndef wear(x):\n    return math.sqrt(x)\n```\n\n\
             ```text\n100%\nwear is 4.2\n```\n\n```text\n   a  b\n0  1  2\n```\n\n```text\nValueError: no\n```\n\nas it is"
        );
        assert_eq!((found.title.as_deref(), found.media_type), (Some("Wear"), MediaType::Notebook));
    }

    #[test]
    fn older_notebooks_and_fences_in_code_are_read() {
        let found = notebook(&json!({"nbformat": 3, "metadata": {}, "worksheets": [{"cells": [
            {"cell_type": "heading", "level": 2, "source": "Part"},
            {"cell_type": "code", "language": "python", "input": "s = '```'", "outputs": [{"output_type": "pyout", "text": "3"}]},
        ]}]}));
        assert_eq!(found.text, "## Part\n\n````python\ns = '```'\n````\n\n```text\n3\n```");
    }
}
