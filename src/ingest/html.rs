//! HTML to text and blocks.
//!
//! The tokenizer of html5ever drives a text builder directly; no tree is built. Text extraction needs no tree, and
//! without one nesting costs nothing: 100,000 open `<div>`s take neither stack nor quadratic time.

mod extract;

use html5ever::TokenizerResult;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Tokenizer, TokenizerOpts};

use super::block::{BlockKind, shorten};
use super::front_matter::TITLE_BYTES_MAX;
use super::{Document, Limits, MediaType, ParseError};
use extract::Extractor;

/// Attributes of one tag. html5ever compares each with all before it, so more would be quadratic; pages have below 50.
const ATTRIBUTES_MAX: usize = 256;
/// Bytes fed to the tokenizer at a time.
const FEED_BYTES: usize = 1 << 20;

/// Parses a page: main text, headings, tables as `a | b` lines; scripts, styles, templates, drawings and navigation
/// are left out.
pub(super) fn parse(html: &str, limits: &Limits) -> Result<Document, ParseError> {
    check_attributes(html)?;
    let tokenizer = Tokenizer::new(Extractor::new(), TokenizerOpts::default());
    let queue = BufferQueue::default();
    let mut rest = html;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(FEED_BYTES.min(rest.len())));
        rest = after;
        queue.push_back(StrTendril::from_slice(piece));
        // The extractor never asks for a script to be run; whatever else the tokenizer pauses for, it goes on.
        while !matches!(tokenizer.feed(&queue), TokenizerResult::Done) {}
    }
    tokenizer.end();
    let page = tokenizer.sink.into_page();
    limits.check_text(page.text.len())?;
    let first_heading = page.blocks.iter().find_map(|block| match &block.kind {
        BlockKind::Heading { level: 1, title } => Some(title.clone()),
        _ => None,
    });
    let mut document = Document::new(MediaType::Html, page.text, page.blocks);
    document.title = Some(page.title).filter(|title| !title.is_empty()).or(first_heading);
    document.title = document.title.map(|title| shorten(&title, TITLE_BYTES_MAX));
    document.url = page.canonical;
    document.metadata = page.metadata;
    Ok(document)
}

/// Where [`check_attributes`] stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// Between attributes, or in the tag's name.
    Between,
    Name,
    /// Behind `=`.
    BeforeValue,
    Value(u8),
    Unquoted,
}

/// Refuses a tag with more than [`ATTRIBUTES_MAX`] attributes. The scan does not know scripts and comments, where it may
/// take text for a tag; `>` is frequent enough there that the limit is not met.
fn check_attributes(html: &str) -> Result<(), ParseError> {
    let bytes = html.as_bytes();
    let (mut state, mut count) = (State::Text, 0);
    for (index, byte) in bytes.iter().enumerate() {
        let space = byte.is_ascii_whitespace() || *byte == b'/';
        state = match (state, byte) {
            (State::Text, b'<') => {
                let next = bytes.get(index + 1).copied().unwrap_or(0);
                count = 0;
                if next.is_ascii_alphabetic() || next == b'/' { State::Unquoted } else { State::Text }
            }
            (State::Text, _) => State::Text,
            (State::Value(quote), byte) => {
                if *byte == quote {
                    State::Between
                } else {
                    State::Value(quote)
                }
            }
            (_, b'>') => State::Text,
            (State::BeforeValue, b'"' | b'\'') => State::Value(*byte),
            (State::BeforeValue, _) if byte.is_ascii_whitespace() => State::BeforeValue,
            (State::BeforeValue, _) => State::Unquoted,
            (State::Unquoted, _) if byte.is_ascii_whitespace() || (count == 0 && space) => State::Between,
            (State::Unquoted, _) => State::Unquoted,
            (State::Name, b'=') => State::BeforeValue,
            (State::Name | State::Between, _) if space => State::Between,
            // `name =` with space: the value belongs to the attribute already counted.
            (State::Between, b'=') => State::BeforeValue,
            (State::Between, _) => {
                count += 1;
                if count > ATTRIBUTES_MAX {
                    let detail = format!("a tag near byte {index} has more than {ATTRIBUTES_MAX} attributes");
                    return Err(ParseError::corrupt("HTML", detail));
                }
                State::Name
            }
            (State::Name, _) => State::Name,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::block::Block;

    fn page(html: &str) -> Document {
        parse(html, &Limits::default()).expect("HTML has no syntax errors")
    }

    fn headings(document: &Document) -> Vec<(u8, &str)> {
        let heading = |block: &'_ Block| -> Option<(u8, String)> {
            match &block.kind {
                BlockKind::Heading { level, title } => Some((*level, title.clone())),
                _ => None,
            }
        };
        document
            .blocks
            .iter()
            .filter_map(|block| heading(block).map(|(level, _)| (level, &document.text[block.range.clone()])))
            .collect()
    }

    #[test]
    fn structure_becomes_blank_lines_and_headings() {
        let document = page(
            "<html lang=en><head><title> My\n page </title><meta name=description content='About &amp; more'></head><body><h1>Top</h1><p>One <b>two</b>\n three</p><p>Four<br>five<h2>Sub <i>part</i></h2><ul><li>a<li><p>b</p></ul></body>",
        );
        assert_eq!(document.title.as_deref(), Some("My page"));
        assert_eq!(document.text, "Top\n\nOne two three\n\nFour\nfive\n\nSub part\n\n- a\n- b");
        assert_eq!(headings(&document), [(1, "Top"), (2, "Sub part")]);
        assert_eq!(document.metadata["description"], "About & more");
        assert_eq!(document.metadata["language"], "en");
    }

    #[test]
    fn permalink_marks_are_not_part_of_a_heading() {
        assert_eq!(page("<h1>Top<a href=#top>¶</a></h1>").title.as_deref(), Some("Top"));
    }

    #[test]
    fn scripts_styles_and_navigation_are_left_out() {
        let text = page("a<script>if (x<y) { \"<p>\" }</script><style>p{}</style><template><p>t</p></template><nav>menu<nav>x</nav></nav><svg><style/><path d=1><text>s</text></svg><noscript>n</noscript><!-- c -->b").text;
        assert_eq!(text, "a b");
    }

    #[test]
    fn html_inside_an_unclosed_drawing_is_kept() {
        assert_eq!(page("<svg><path><p>text").text, "text");
    }

    #[test]
    fn tables_are_lines_and_pre_is_verbatim() {
        let document = page(
            "<table><tr><th>a<th>b</tr><tr><td><p>1</p></td><td>2<br>3</td></tr></table><pre>\n  x\n    y &lt;z&gt;\n</pre>end",
        );
        assert_eq!(document.text, "a | b\n1 | 2 3\n\n  x\n    y <z>\n\nend");
    }

    #[test]
    fn deep_nesting_is_flat_work() {
        let html = format!("{}deep{}", "<div>".repeat(200_000), "</div>".repeat(200_000));
        assert_eq!(page(&html).text, "deep");
        let html = "<table><tr><td><ul><li><b><svg>".repeat(50_000);
        page(&html);
    }

    #[test]
    fn a_tag_with_endless_attributes_is_refused() {
        let html: String = (0..10_000).map(|n| format!(" a{n}=1")).collect();
        let found = parse(&format!("<p{html}>x"), &Limits::default());
        assert!(matches!(found, Err(ParseError::Corrupt { format: "HTML", .. })), "{found:?}");
        page(&format!("<p title=\"{html}\">x"));
    }
}
