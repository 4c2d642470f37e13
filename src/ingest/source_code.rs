//! Program text to blocks: one block for each item, with the name of the item.
//!
//! No grammar is used. In nearly every language an item starts at the left margin after a blank line, and its first
//! line names it after a keyword or before a parenthesis; where that fails, the passage only lacks a heading.

use super::block::{Block, BlockKind, Line, lines};
use super::{Document, MediaType, licence};

/// Parses a source file; the extension of `name` distinguishes YAML and section files from programs.
pub(super) fn parse(text: String, name: &str) -> Document {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    let style = match extension.as_str() {
        "yaml" | "yml" => Style::Keys,
        "toml" | "ini" | "cfg" | "conf" | "cnf" | "service" | "socket" | "timer" | "mount" | "target"
        | "editorconfig" => Style::Sections,
        _ => Style::Program,
    };
    let blocks = blocks(&text, style);
    Document::new(MediaType::SourceCode, text, blocks)
}

/// How items are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// By `key:` at the left margin.
    Keys,
    /// By `[section]`.
    Sections,
    /// By keywords, at the left margin or one level deeper.
    Program,
}

/// The item that a line starts.
enum Start {
    /// An item with its heading level and name.
    Item(u8, String),
    /// An item without a name.
    Unnamed,
}

fn blocks(text: &str, style: Style) -> Vec<Block> {
    let mut blocks = Vec::new();
    let begin = behind_licence(text, style);
    // Start of the open item, and its name once a line has given one.
    let (mut item, mut named) = (begin, false);
    // Comments and attributes directly above an item belong to it.
    let mut lead: Option<usize> = None;
    let mut previous_blank = true;
    let mut close = |item: usize, end: usize, heading: Option<(u8, String)>| {
        blocks.extend(Block::trimmed(text, item..end, BlockKind::Verbatim));
        if let Some((level, name)) = heading {
            blocks.push(Block::heading(end..end, level, &name));
        }
    };
    for line in lines(text, begin..text.len()) {
        if line.is_blank() {
            previous_blank = true;
            continue;
        }
        if previous_blank {
            lead = None;
        }
        if is_lead(&line, style) {
            lead = lead.or(Some(line.start));
            previous_blank = false;
            continue;
        }
        let from = lead.take().unwrap_or(line.start);
        let opens = previous_blank || from < line.start || line.start == begin;
        match start(&line, style, opens) {
            Some(Start::Item(level, name)) => {
                close(item, from, Some((level, name)));
                (item, named) = (from, true);
            }
            Some(Start::Unnamed) => {
                // The heading without a title ends the path of the item before.
                close(item, from, named.then(|| (1, String::new())));
                (item, named) = (from, false);
            }
            None => {}
        }
        previous_blank = false;
    }
    close(item, text.len(), None);
    blocks
}

/// Longest comment that is checked for a licence, in bytes.
const LICENCE_BYTES_MAX: usize = 8 << 10;

/// Where the text starts after a licence comment at its top; 0 if there is none, or nothing follows it.
fn behind_licence(text: &str, style: Style) -> usize {
    let head = text.floor_char_boundary(LICENCE_BYTES_MAX);
    let (mut in_block, mut end, mut reader) = (false, 0, licence::Reader::default());
    for line in lines(text, 0..head) {
        let trimmed = line.content.trim();
        let opens = style == Style::Program && trimmed.starts_with("/*");
        if !in_block && !opens && !is_comment(trimmed, style) {
            break;
        }
        in_block = (in_block || opens) && !trimmed.contains("*/");
        end = line.next;
        reader.line(trimmed);
    }
    let is_left_out = !in_block && end < head && reader.finish() && !text[end..].trim_start().is_empty();
    if is_left_out { end } else { 0 }
}

/// Whether a line is a comment to its end. `#!` does not count.
fn is_comment(trimmed: &str, style: Style) -> bool {
    match style {
        Style::Keys | Style::Sections => trimmed.starts_with(['#', ';']) && !trimmed.starts_with("#!"),
        Style::Program => ["//", "--", "# "].iter().any(|mark| trimmed.starts_with(mark)) || trimmed == "#",
    }
}

/// Whether a line is a comment, attribute or decorator of the item below.
fn is_lead(line: &Line<'_>, style: Style) -> bool {
    let trimmed = line.content.trim_start();
    match style {
        Style::Keys | Style::Sections => trimmed.starts_with('#') || trimmed.starts_with(';'),
        Style::Program => ["//", "#[", "# ", "@", "/*", "* ", "*/", "--"].iter().any(|mark| trimmed.starts_with(mark)),
    }
}

/// `opens`: the line follows a blank line or its own comments.
fn start(line: &Line<'_>, style: Style, opens: bool) -> Option<Start> {
    let content = line.content.trim_end();
    let margin = line.indent() == 0;
    match style {
        Style::Keys => {
            let (key, _) = content.split_once(':').filter(|_| margin)?;
            let is_key = !key.is_empty() && !key.starts_with(['-', '"', '{', '[']) && !key.contains(' ');
            is_key.then(|| Start::Item(1, key.to_owned()))
        }
        Style::Sections => {
            let name = content.trim().strip_prefix('[')?.trim_start_matches('[').split(']').next()?;
            margin.then(|| Start::Item(1, name.to_owned()))
        }
        Style::Program => {
            let name = keyword_name(content.trim_start()).or_else(|| margin.then(|| call_name(content)).flatten());
            match name {
                Some(name) if margin => Some(Start::Item(1, name)),
                Some(name) if opens && line.indent() <= 4 => Some(Start::Item(2, name)),
                _ if margin && opens && !content.starts_with(['}', ')', ']', '{']) => Some(Start::Unnamed),
                _ => None,
            }
        }
    }
}

const MODIFIERS: &[&str] = &[
    "pub",
    "async",
    "static",
    "export",
    "default",
    "public",
    "private",
    "protected",
    "internal",
    "final",
    "abstract",
    "unsafe",
    "virtual",
    "override",
    "inline",
    "sealed",
    "partial",
    "data",
    "open",
    "declare",
    "local",
    "extern",
    "\"C\"",
];

const KEYWORDS: &[&str] = &[
    "fn",
    "def",
    "class",
    "struct",
    "enum",
    "trait",
    "impl",
    "mod",
    "module",
    "interface",
    "func",
    "function",
    "fun",
    "namespace",
    "record",
    "object",
    "union",
    "macro_rules!",
    "resource",
    "variable",
    "output",
    "provider",
    "message",
    "service",
    "type",
    "sub",
    "defmodule",
    "defp",
    "proc",
];

/// `fn name` for a line that defines something by keyword.
fn keyword_name(line: &str) -> Option<String> {
    let mut rest = line;
    loop {
        let (word, after) = rest.split_once([' ', '\t'])?;
        let bare = word.split('(').next().unwrap_or(word);
        if MODIFIERS.contains(&bare) || (bare == "const" && after.trim_start().starts_with("fn ")) {
            rest = after.trim_start();
            continue;
        }
        if word.eq_ignore_ascii_case("create") {
            return Some(after.split(['(', ';']).next().unwrap_or(after).trim().to_owned())
                .filter(|name| !name.is_empty());
        }
        let keyword = bare.split('<').next().unwrap_or(bare);
        if !KEYWORDS.contains(&keyword) {
            return None;
        }
        let name = if keyword == "impl" {
            rest[4..].split('{').next()
        } else {
            after_receiver(after).split(['(', '{', ':', '=', ';', '<']).next()
        };
        let name = name.unwrap_or_default().trim();
        return (!name.is_empty()).then(|| format!("{keyword} {name}"));
    }
}

/// Skips the receiver of a Go method: `(s *Server) Start()`.
fn after_receiver(text: &str) -> &str {
    let text = text.trim_start();
    match text.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or(text, |(_, name)| name),
        None => text,
    }
}

/// The name before the parenthesis of a C-like or shell function definition at the left margin.
fn call_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once('(')?;
    let defines = line.ends_with('{') || (line.ends_with(')') && before.trim_end().contains(' '));
    if !defines || before.contains(['=', '"', '\'', '.']) || after.is_empty() {
        return None;
    }
    let name = before.trim_end().rsplit([' ', '*', '\t', '&']).next()?;
    let keyword = ["if", "for", "while", "switch", "return", "match", "else", "catch", "elif"].contains(&name);
    (!keyword && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str, name: &str) -> Vec<String> {
        let document = parse(text.to_owned(), name);
        let show = |block: &Block| match &block.kind {
            BlockKind::Heading { level, title } => format!("{level} {title}"),
            _ => document.text[block.range.clone()].lines().next().unwrap_or_default().to_owned(),
        };
        document.blocks.iter().map(show).collect()
    }

    #[test]
    fn rust_items_carry_their_names_and_comments() {
        let text = "use std::fmt;\n\n/// Doc.\n#[inline]\npub fn a(x: u8) -> u8 {\n    let y = x;\n\n    y\n}\n\nimpl fmt::Display for B {\n    fn fmt(&self) {}\n}\n";
        assert_eq!(
            outline(text, "a.rs"),
            ["use std::fmt;", "1 fn a", "/// Doc.", "1 impl fmt::Display for B", "impl fmt::Display for B {"]
        );
    }

    #[test]
    fn python_methods_stand_below_their_class() {
        let text = "class A(Base):\n    x = 1\n\n    def run(self):\n        pass\n\nprint(1)\n";
        assert_eq!(
            outline(text, "a.py"),
            ["1 class A", "class A(Base):", "2 def run", "    def run(self):", "1 ", "print(1)"]
        );
    }

    #[test]
    fn go_c_and_shell_functions_are_named() {
        assert_eq!(outline("func (s *Server) Start(x int) error {\n}\n", "a.go")[0], "1 func Start");
        assert_eq!(outline("static int main(int argc)\n{\n}\n", "a.c")[0], "1 main");
        assert_eq!(outline("cleanup() {\n  rm x\n}\n", "a.sh")[0], "1 cleanup");
    }

    #[test]
    fn a_licence_above_the_text_is_no_item() {
        let apache = [
            "Copyright 2026 The Pump Authors.",
            "",
            "Licensed under the Apache License, Version 2.0;",
            "you may obtain a copy at",
            "http://site.example",
            "",
            "distributed WITHOUT WARRANTIES of any kind.",
        ];
        let marked = |mark: &str| apache.map(|line| format!("{mark} {line}\n")).concat();
        let block = format!("/*\n{}\n*/\n", apache.join("\n * "));
        for (name, licence, rest) in [
            ("a.go", marked("//"), "package a\n"),
            ("a.py", marked("#"), "import os\n"),
            ("a.c", block, "int x;\n"),
            ("a.rs", "// SPDX-License-Identifier: MIT\n".to_owned(), "use a;\n"),
            ("a.yaml", marked("#"), "kind: Pod\n"),
        ] {
            let found = outline(&format!("{licence}\n{rest}"), name);
            assert_eq!(found.last().map(String::as_str), Some(rest.trim_end()), "{name}");
            assert!(!found.iter().any(|line| line.contains("opyright") || line.contains("SPDX")), "{name}: {found:?}");
            assert!(!outline(&licence, name).is_empty(), "{name}: a file that is nothing else");
        }
        for text in [
            "// Copyright 2026 Ana.\n//\n// Package pump moves water.\npackage pump\n",
            "// Package pump moves water.\npackage pump\n",
            "/* Copyright 2026, never ends\npackage pump\n",
            "#!/bin/sh\n# Copyright 2026 Ana\nrun\n",
        ] {
            assert_eq!(outline(text, "a.go")[0], text.lines().next().unwrap_or_default());
        }
    }

    #[test]
    fn configuration_is_cut_at_keys_and_sections() {
        assert_eq!(outline("kind: Pod\nspec:\n  a: 1\n", "a.yaml"), ["1 kind", "kind: Pod", "1 spec", "spec:"]);
        assert_eq!(outline("# c\n[unit]\na=1\n", "a.service"), ["1 unit", "# c"]);
    }
}
