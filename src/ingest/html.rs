//! HTML to text and blocks.
//!
//! The tokenizer of html5ever drives a text builder directly, without building a tree. Text extraction does not need
//! one, and nesting costs nothing: 100,000 open `<div>`s need neither stack nor quadratic time.

mod extract;

use html5ever::TokenizerResult;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Tokenizer, TokenizerOpts};
use url::Url;

use super::block::{BlockKind, shorten};
use super::front_matter::TITLE_BYTES_MAX;
use super::{Document, Limits, MediaType, ParseError};
use extract::{ExtractionScope, Extractor, Page};

/// Attributes of one tag. html5ever compares each with all before it, so more would be quadratic; real pages have fewer
/// than 50.
const ATTRIBUTES_MAX: usize = 256;
/// Bytes fed to the tokenizer at a time.
const FEED_BYTES: usize = 1 << 20;

/// Parses a page: main text, headings, tables as `a | b` lines, descriptions of pictures. Scripts, styles, templates,
/// drawings, navigation, the page's footer and cookie banners are left out. A page that would have no text then, or
/// where one of these elements does not end, is read again with them.
///
/// * `address`: where the page was saved from, if known from outside; for relative addresses on it.
pub(super) fn parse(html: &str, address: Option<&str>, limits: &Limits) -> Result<Document, ParseError> {
    check_attributes(html)?;
    let mut page = read(html, ExtractionScope::Main);
    if page.unsure {
        page = read(html, ExtractionScope::Whole);
    }
    if page.text.is_empty() {
        page = read(html, ExtractionScope::Everything);
    }
    limits.check_text(page.text.len())?;
    let first_heading = page.blocks.iter().find_map(|block| match &block.kind {
        BlockKind::Heading { level: 1, title } => Some(title.clone()),
        _ => None,
    });
    let url = own_address(&page, address);
    let mut document = Document::new(MediaType::Html, page.text, page.blocks);
    document.title = Some(page.title).filter(|title| !title.is_empty()).or(first_heading);
    document.title = document.title.map(|title| shorten(&title, TITLE_BYTES_MAX));
    document.url = url;
    document.metadata = page.metadata;
    Ok(document)
}

fn read(html: &str, scope: ExtractionScope) -> Page {
    let tokenizer = Tokenizer::new(Extractor::new(scope), TokenizerOpts::default());
    let queue = BufferQueue::default();
    let mut rest = html;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(FEED_BYTES.min(rest.len())));
        rest = after;
        queue.push_back(StrTendril::from_slice(piece));
        // The extractor never asks to run a script; for anything else that pauses the tokenizer, it continues.
        while !matches!(tokenizer.feed(&queue), TokenizerResult::Done) {}
    }
    tokenizer.end();
    tokenizer.sink.into_page()
}

/// The canonical address, made absolute if the page names its base; otherwise where it was saved from.
fn own_address(page: &Page, given: Option<&str>) -> Option<String> {
    let saved_from = page.saved_from.as_deref().or(given);
    let Some(canonical) = &page.canonical else { return saved_from.map(str::to_owned) };
    let base = [page.base.as_deref(), saved_from].into_iter().flatten().find_map(|base| Url::parse(base).ok());
    let joined = base.and_then(|base| base.join(canonical).ok());
    Some(joined.map_or_else(|| canonical.clone(), String::from))
}

/// The state of [`check_attributes`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// Between attributes, or in the tag's name.
    Between,
    Name,
    /// After `=`.
    BeforeValue,
    Value(u8),
    Unquoted,
}

/// Refuses a tag with more than [`ATTRIBUTES_MAX`] attributes. The scan does not know scripts and comments, where it
/// may mistake text for a tag; `>` is frequent enough there that the limit is not reached.
pub(super) fn check_attributes(html: &str) -> Result<(), ParseError> {
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
        parse(html, None, &Limits::default()).expect("HTML has no syntax errors")
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
    fn white_space_is_walked_over_once() {
        // `tests/it/parser_costs.rs` measures how the cost of each grows.
        for html in [
            format!("<pre>{}x", " <b>".repeat(100_000)),
            format!("<pre>{}{}x", " ".repeat(100_000), "<p>".repeat(100_000)),
            format!("<pre>{}{}x", "\n".repeat(100_000), "<td></table> ".repeat(50_000)),
        ] {
            assert_eq!(page(&html).text.trim(), "x");
        }
    }

    #[test]
    fn pictures_are_read_by_what_they_show() {
        let html = "<p>Wiring: <img src=w.png alt='Wiring of relay K7'></p><p><img src=l.png alt=''><img alt=IMG_7.jpg></p>\
                    <a href=x><img alt='Fetch the manual'></a><input type=image alt=Go><map><area alt='Hall two'></map>\
                    <span role=img aria-label='Warning sign'></span>";
        assert_eq!(page(html).text, "Wiring: Wiring of relay K7\n\nFetch the manual Go Hall two Warning sign");
    }

    #[test]
    fn raised_and_lowered_numbers_stay_apart() {
        for (html, text) in [
            ("10<sup>6</sup> cycles, 2<sup>10</sup> pages", "10^6 cycles, 2^10 pages"),
            ("5 m<sup>2</sup>, 10<sup>-3</sup>, x<sup>n+1</sup>", "5 m^2, 10^-3, x^(n+1)"),
            ("see note<sup>3</sup> and note<sup><a href=#f>4</a></sup>.", "see note^3 and note[4]."),
            ("text<sup class=reference><a>[5]</a></sup> end<sup>*</sup>", "text[5] end*"),
            ("the 1<sup>st</sup> of XX<sup>e</sup>, Relay<sup>TM</sup>", "the 1st of XXe, Relay™"),
            ("H<sub>2</sub>O, 101<sub>2</sub>, x<sub>n+1</sub>", "H2O, 101_2, x_(n+1)"),
            ("a <sup>1</sup>/<sub>2</sub>", "a 1/2"),
            (
                "<math><msup><mn>10</mn><mn>6</mn></msup></math> and <math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>",
                "10^6 and 1/2",
            ),
            ("<math alttext='E=mc^2'><mi>E</mi></math>.", "E=mc^2."),
            (
                "<math><msub><mi>x</mi><mrow><mi>i</mi><mo>+</mo><mn>1</mn></mrow></msub><annotation>TeX</annotation></math>",
                "x_(i+1)",
            ),
            ("<ruby>漢字<rp>(</rp><rt>kanji</rt></ruby>", "漢字(kanji)"),
            ("1<sup>2", "12"),
        ] {
            assert_eq!(page(html).text, text, "{html}");
        }
    }

    #[test]
    fn fields_of_forms_stand_apart() {
        let html = "<label>Name</label><input value=Ana><textarea>remark</textarea><button>Send</button><input type=hidden value=x>";
        assert_eq!(page(html).text, "Name Ana remark Send");
        assert_eq!(
            page("<ul><li><input type=checkbox checked>done<li><input type=checkbox>open</ul>").text,
            "- [x] done\n- [ ] open"
        );
    }

    #[test]
    fn lists_are_numbered_and_nested_as_they_are_shown() {
        assert_eq!(page("<ol start=4><li>a<ul><li>b</ul><li>c<li value=9>d</ol>").text, "4. a\n  - b\n5. c\n9. d");
        assert_eq!(page("<table><tr><td><p>one</p><ul><li>two</ul><td>three").text, "one - two | three");
    }

    #[test]
    fn permalinks_and_links_past_the_navigation_are_no_text() {
        let html = "<a class='skip-link' href='#main'>Skip to content</a><h1>Top<a class=headerlink href=#t>¶</a></h1>\
                    <h2>Next<a href=#n>#</a></h2><dl><dt>run()<a href=#r>¶</a><dd>Runs.</dl><p>C# and <a>#12</a>";
        assert_eq!(page(html).text, "Top\n\nNext\n\nrun()\nRuns.\n\nC# and #12");
    }

    #[test]
    fn footers_and_cookie_banners_are_not_the_page() {
        let text = |html: &str| page(html).text;
        let around = |inside: &str| {
            format!(
                "<div id=cookie-banner class=x>We use cookies <div><button>Accept</button></div></div>{inside}<footer>© Firm</footer>"
            )
        };
        assert_eq!(text(&around("<main><p>words</p></main>")), "words");
        assert_eq!(text("<div class=onetrust-pc-dark-filter>x</div><p>words<div role=contentinfo>f</div>"), "words");
        assert_eq!(text("<article>words<footer>by Ana</footer></article>"), "words\n\nby Ana");
        // A page about cookies, banners without an end, and pages that consist of one.
        assert_eq!(text("<div class=cookie-recipes>Bake.</div>"), "Bake.");
        assert_eq!(text("<div class=cookie-banner>We use<p>words"), "We use\n\nwords");
        assert_eq!(text(&format!("<div class=cookie-notice>{}</div>", "words ".repeat(2000))).len(), 11_999);
        assert_eq!(text("<nav><a>One</a></nav><footer>Two</footer>"), "One\n\nTwo");
    }

    #[test]
    fn lists_of_links_are_told_from_lists() {
        let kinds = |html: &str| page(html).blocks.into_iter().map(|block| block.kind).collect::<Vec<_>>();
        let links = "<ul><li><a href=a>One page</a><li><b><a href=b>Two</a></b></ul>";
        assert_eq!(kinds(links), [BlockKind::Links]);
        assert_eq!(kinds(&format!("<p>words</p>{links}<p>words</p>"))[1], BlockKind::Links);
        assert_eq!(kinds("<ul><li><a href=a>One</a> and more<li><a href=b>Two</a></ul>"), [BlockKind::List]);
    }

    #[test]
    fn header_rows_are_known() {
        let header = |html: &str| {
            let page = page(html);
            page.blocks.iter().find_map(|block| match &block.kind {
                BlockKind::Table { header } => Some(page.text[header.clone()].to_owned()),
                _ => None,
            })
        };
        let rows = "<tr><td>1<td>2<tr><td>3<td>4</table>";
        assert_eq!(header(&format!("<table><caption>C</caption><tr><th>a<th>b{rows}")).as_deref(), Some("a | b"));
        assert_eq!(header(&format!("<table><thead><tr><td>a<td>b</thead>{rows}")).as_deref(), Some("a | b"));
        assert_eq!(header(&format!("<p>x<table><tr><td><p><b>a</b></p><td><b>b</b>{rows}")).as_deref(), Some("a | b"));
        assert_eq!(header(&format!("<table><tr><th>a<td>b{rows}")), None);
    }

    #[test]
    fn addresses_are_made_absolute_where_the_page_says_how() {
        let url = |html: &str| page(html).url;
        let base = "<link rel=canonical href=/docs/a><base href='https://site.example/x/'>";
        assert_eq!(url(base).as_deref(), Some("https://site.example/docs/a"));
        assert_eq!(url("<link rel=canonical href=/docs/a>").as_deref(), Some("/docs/a"));
        assert_eq!(
            url("<!-- saved from url=(0026)https://site.example/page -->x").as_deref(),
            Some("https://site.example/page")
        );
    }

    #[test]
    fn where_a_word_may_be_broken_is_not_part_of_it() {
        assert_eq!(page("Ver&shy;sor&#8203;gung <p>a<wbr>b").text, "Versorgung\n\nab");
    }

    #[test]
    fn a_tag_with_endless_attributes_is_refused() {
        let html: String = (0..10_000).map(|n| format!(" a{n}=1")).collect();
        let found = parse(&format!("<p{html}>x"), None, &Limits::default());
        assert!(matches!(found, Err(ParseError::Corrupt { format: "HTML", .. })), "{found:?}");
        page(&format!("<p title=\"{html}\">x"));
    }
}
