//! Links without other words: navigation, "See also", badges, link definitions.

use std::collections::HashSet;

use super::item_content;
use crate::ingest::block::{Block, BlockKind};
use crate::ingest::plain;

/// Whether every line of `text` is a link definition, `[label]: address "title"`. One of the addresses must look like
/// one: a label may be a time or a name too.
pub(super) fn are_definitions(text: &str) -> bool {
    if !text.starts_with('[') {
        return false;
    }
    let mut certain = false;
    text.lines().all(|line| {
        let address = defined(line);
        certain |= address.is_some_and(|address| address.contains(['/', '#', '.']) || address.contains("::"));
        address.is_some()
    }) && certain
}

/// The address of a definition.
fn defined(line: &str) -> Option<&str> {
    let (label, rest) = line.trim().strip_prefix('[')?.split_once("]:")?;
    let (address, title) = rest.trim().split_once([' ', '\t']).unwrap_or((rest.trim(), ""));
    let title = title.trim();
    let is_label = !label.is_empty() && !label.starts_with('^') && !label.contains(']');
    (is_label && !address.is_empty() && (title.is_empty() || title.starts_with(['"', '\'', '(']))).then_some(address)
}

/// The kind of a list or paragraph without words of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wordless {
    /// Links and pictures, whose texts are words.
    Links,
    /// Badges, which are pictures that are links, or tags of HTML.
    Markup,
}

/// Detects a list or paragraph that consists of links, pictures and tags.
pub(super) fn wordless(text: &str) -> Option<Wordless> {
    if !text.contains(['[', ':', '<']) {
        return None;
    }
    if item_content(text.trim_start()).is_some() {
        // Most lists are recognised by their first line.
        return text.lines().all(|line| items(line).is_some()).then_some(Wordless::Links);
    }
    let links = items(text)?;
    let is_picture = text.contains("alt=") && !text.contains("<a ");
    let is_markup = links.iter().all(|link| link.text.starts_with("![")) && !is_picture;
    Some(if is_markup { Wordless::Markup } else { Wordless::Links })
}

/// A link without words around it.
struct Link<'a> {
    text: &'a str,
    address: &'a str,
}

/// The links of a text that contains nothing else, apart from HTML tags and list marks. `None`: there are other words.
fn items(text: &str) -> Option<Vec<Link<'_>>> {
    let text = text.trim();
    let mut rest = item_content(text).unwrap_or(text);
    let mut found = Vec::new();
    let mut has_tags = text.is_empty();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || BETWEEN.contains(&c));
        if rest.is_empty() {
            return (has_tags || !found.is_empty()).then_some(found);
        }
        if let Some(after) = plain::behind_element(rest) {
            has_tags = true;
            rest = after;
            continue;
        }
        let (link, after) = link(rest)?;
        found.push(link);
        rest = after;
    }
}

/// Marks between links and around them.
const BETWEEN: [char; 12] = ['*', '_', ',', ';', '|', '.', '·', '•', '–', '—', '/', '-'];

/// The link at the start of `text`, and what follows it.
fn link(text: &str) -> Option<(Link<'_>, &str)> {
    if let Some(rest) = text.strip_prefix('<') {
        let (address, after) = rest.split_once('>')?;
        return is_address(address).then_some((Link { text: address, address }, after));
    }
    let open = text.strip_prefix('!').unwrap_or(text);
    if !open.starts_with('[') {
        let end = text.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(text.len());
        let address = &text[..end];
        return is_address(address).then_some((Link { text: address, address }, &text[end..]));
    }
    let (label, after) = bracketed(open, '[', ']')?;
    if let Some((address, after)) = bracketed(after, '(', ')') {
        return Some((Link { text: label, address: address.trim() }, after));
    }
    if let Some((address, after)) = bracketed(after, '[', ']') {
        return Some((Link { text: label, address }, after));
    }
    // `[x]` and `[ ]` are boxes to tick.
    (label.trim().len() > 1).then_some((Link { text: label, address: "" }, after))
}

fn is_address(text: &str) -> bool {
    ["http://", "https://", "mailto:", "ftp://"].iter().any(|scheme| text.starts_with(scheme))
        && !text.contains(char::is_whitespace)
}

/// The text within the brackets at the start of `text`, which may be nested, and the text after them.
fn bracketed(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    if !text.starts_with(open) {
        return None;
    }
    let (mut depth, mut escaped) = (0usize, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == open => depth += 1,
            _ if character == close => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[1..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}

/// Moves tables of contents out of `blocks`: lists of links into this page whose words are all in its headings, so that
/// none is lost.
pub(super) fn leave_out_contents(text: &str, blocks: &mut Vec<Block>, left_out: &mut Vec<Block>) {
    let may_be = |block: &Block| block.kind == BlockKind::Links && text[block.range.clone()].contains("](#");
    if !blocks.iter().any(may_be) {
        return;
    }
    let headings: HashSet<String> = blocks
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::Heading { title, .. } => Some(words(title)),
            _ => None,
        })
        .flatten()
        .collect();
    let repeats = |link: &Link<'_>| {
        link.address.starts_with('#') && words(&plain::inline(link.text)).all(|word| headings.contains(&word))
    };
    let is_contents = |block: &mut Block| {
        let lines = text[block.range.clone()].lines();
        may_be(block) && lines.flat_map(|line| items(line).unwrap_or_default()).all(|link| repeats(&link))
    };
    left_out.extend(blocks.extract_if(.., is_contents));
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}
