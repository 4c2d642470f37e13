//! SVG to text: the words of a drawing. Title and description, and each label as a line.

use std::cell::RefCell;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};

use super::block::{Block, BlockKind, shorten};
use super::front_matter::TITLE_BYTES_MAX;
use super::{Document, FileKind, Limits, MediaType, ParseError};

/// Elements that hold words; `foreignObject` holds HTML, where diagrams have their labels.
const WORDS: &[&str] = &["title", "desc", "text", "foreignobject"];

/// Whether a drawing may contain words. Checks the names only.
pub(super) fn has_words(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'<', bytes).any(|at| {
        let name = &bytes[at + 1..];
        WORDS.iter().any(|word| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes())))
    })
}

/// Parses a drawing. One without words is treated like any picture.
pub(super) fn parse(svg: &str, limits: &Limits) -> Result<Document, ParseError> {
    super::html::check_attributes(svg)?;
    let tokenizer = Tokenizer::new(Labels { state: RefCell::default() }, TokenizerOpts::default());
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from_slice(svg));
    while !matches!(tokenizer.feed(&queue), html5ever::TokenizerResult::Done) {}
    tokenizer.end();
    let mut state = tokenizer.sink.state.into_inner();
    state.end_line();
    limits.check_text(state.text.len())?;
    if state.text.is_empty() {
        return Err(ParseError::Binary { looks_like: "a drawing without words", kind: FileKind::Image });
    }
    let blocks = Block::trimmed(&state.text, 0..state.text.len(), BlockKind::Verbatim).into_iter().collect();
    let mut document = Document::new(MediaType::Drawing, state.text, blocks);
    document.title = state.title.map(|title| shorten(&title, TITLE_BYTES_MAX));
    Ok(document)
}

/// Collects the words.
struct Labels {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    text: String,
    line: String,
    /// Number of open elements in [`WORDS`]; saturating.
    open: usize,
    in_title: bool,
    title: Option<String>,
    /// A style or script is open.
    skipped: bool,
}

impl TokenSink for Labels {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut state = self.state.borrow_mut();
        match token {
            Token::CharacterTokens(text) if state.open > 0 && !state.skipped => state.line.push_str(&text),
            Token::TagToken(tag) => return state.tag(&tag),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

impl State {
    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let starts = tag.kind == TagKind::StartTag && !tag.self_closing;
        match &*tag.name {
            "style" | "script" => {
                self.skipped = starts;
                // Inside it, text that looks like a tag is not one.
                return if starts { TokenSinkResult::RawData(RawKind::Rawtext) } else { TokenSinkResult::Continue };
            }
            name if WORDS.contains(&name) => {
                self.end_line();
                self.in_title = starts && name == "title";
                self.open = match tag.kind {
                    TagKind::StartTag => self.open + usize::from(starts),
                    TagKind::EndTag => self.open.saturating_sub(1),
                };
            }
            // Lines of one label, and labels in HTML.
            "tspan" | "p" | "div" | "br" | "li" => self.line.push(' '),
            _ => {}
        }
        TokenSinkResult::Continue
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            return;
        }
        if self.in_title && self.title.is_none() {
            self.title = Some(words.clone());
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lines() {
        let svg = "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><title>Pump &amp; valve</title><style>text{}</style>\
                   <desc>How they are joined</desc><g><path d='M0 0'/><text x='1'><tspan>Inlet</tspan><tspan>DN 50</tspan></text>\
                   <foreignObject><div><span>Valve V7</span></div></foreignObject></g></svg>";
        let found = parse(svg, &Limits::default()).expect("words");
        assert_eq!(found.text, "Pump & valve\nHow they are joined\nInlet DN 50\nValve V7");
        assert_eq!(found.title.as_deref(), Some("Pump & valve"));
        assert!(has_words(svg.as_bytes()));
    }

    #[test]
    fn a_drawing_without_words_is_a_picture() {
        let svg = "<svg><style>text { fill: red }</style><path d='M0 0h9'/></svg>";
        assert!(!has_words(svg.as_bytes()));
        assert_eq!(parse(svg, &Limits::default()).expect_err("no words").file_kind(), Some(FileKind::Image));
    }
}
