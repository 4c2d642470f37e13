//! Properties of all formats: parsing any bytes returns, and chunks match the text.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ALL: [MediaType; 12] = [
    MediaType::Markdown,
    MediaType::Text,
    MediaType::Html,
    MediaType::Pdf,
    MediaType::SourceCode,
    MediaType::Json,
    MediaType::JsonLines,
    MediaType::Csv,
    MediaType::Notebook,
    MediaType::Mail,
    MediaType::WebArchive,
    MediaType::Drawing,
];

/// Pieces with a meaning in some format, so that random texts get beyond their first line.
fn fragment() -> impl Strategy<Value = String> {
    let marks = prop::sample::select(vec![
        "# ",
        "## Head\n",
        "\n\n",
        "\n",
        "\r\n",
        "---\n",
        "===\n",
        "```\n",
        "~~~ sh\n",
        "| a | b |\n",
        "|---|---|\n",
        "- ",
        "  - ",
        "1. ",
        "> ",
        "<Tabs>\n",
        "</Tabs>\n",
        "<Tab\n",
        "import x from 'y'\n",
        "export const a = 1\n",
        ":::note\n",
        "<!-- ",
        " -->",
        "<div>",
        "</p>",
        "<table><tr><td>",
        "<pre>\n",
        "<script>",
        "<svg>",
        "<h2>",
        "<li>",
        "&amp;",
        "&#x",
        "{\"a\":",
        "[1,",
        "\"text\":\"",
        "\"}",
        "]\n",
        ",",
        ";",
        "\t",
        "\"",
        "fn name() {\n",
        "class A:\n",
        "    def b(self):\n",
        "}\n\n",
        "key: value\n",
        "。",
        "! ",
        ". ",
        "\u{feff}",
        "\u{a0}",
        "e\u{301}",
        "🙂",
        "title: [\n",
    ]);
    // Characters that count as no token, in any number.
    let nothing = (prop::sample::select(vec![" ", "\n", "\t", "\u{a0}", "\u{301}", "\u{7f}"]), 20usize..900);
    let nothing = nothing.prop_map(|(sign, count)| sign.repeat(count));
    prop_oneof![1 => nothing, 3 => marks.prop_map(str::to_owned), 3 => "[a-zA-Z0-9äß边]{1,12} ", 1 => "\\PC{0,20}"]
}

fn text() -> impl Strategy<Value = String> {
    vec(fragment(), 0..80).prop_map(|fragments| fragments.concat())
}

fn parsed(media_type: MediaType, name: &str, bytes: &[u8]) -> Result<Parsed, ParseError> {
    parse(&Source { name, media_type, bytes }, &Limits::default())
}

/// Invariants of every list of chunks.
fn check(document: &Document, config: &ChunkConfig) -> Result<Vec<Chunk>, TestCaseError> {
    let chunks = chunk(document, config);
    let mut end = 0;
    for chunk in &chunks {
        prop_assert!(chunk.range.start >= end, "chunks overlap");
        end = chunk.range.end;
        // After a repeated header row it is the text itself.
        let own = &document.text[chunk.range.clone()];
        let header = chunk.text.strip_suffix(own);
        prop_assert!(header.is_some_and(|header| header.is_empty() || header.ends_with('\n')), "{:?}", chunk.text);
        prop_assert!(!chunk.text.trim().is_empty(), "empty chunk");
        prop_assert_eq!(chunk.text.trim_end(), &chunk.text);
        let tokens = estimate_tokens(&chunk.text);
        prop_assert!(tokens <= config.max_tokens, "{tokens} tokens in {:?}", chunk.text);
        let bytes = chunk.text.len();
        prop_assert!(bytes <= config.max_tokens * TOKEN_BYTES_MAX, "{bytes} bytes in {:?}", chunk.text);
    }
    Ok(chunks)
}

/// Text outside of chunks contains nothing that `counts`.
fn check_nothing_lost(document: &Document, chunks: &[Chunk], counts: fn(char) -> bool) -> Result<(), TestCaseError> {
    let ends = std::iter::once(0).chain(chunks.iter().map(|chunk| chunk.range.end));
    let starts = chunks.iter().map(|chunk| chunk.range.start).chain([document.text.len()]);
    for (from, to) in ends.zip(starts) {
        let lost = &document.text[from..to];
        prop_assert!(!lost.contains(counts), "{lost:?} is in no chunk");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn chunks_are_true_to_the_text(text in text(), target in 1usize..40, more in 0usize..40) {
        let config = ChunkConfig { target_tokens: target, max_tokens: target + more };
        for media_type in ALL {
            let Ok(parsed) = parsed(media_type, "a.rs", text.as_bytes()) else { continue };
            for document in &parsed.documents {
                let chunks = check(document, &config)?;
                // Markdown leaves out much by design; see below.
                if !matches!(media_type, MediaType::Markdown | MediaType::Notebook) {
                    check_nothing_lost(document, &chunks, |character| !character.is_whitespace())?;
                }
            }
        }
    }

    #[test]
    fn markdown_without_hidden_parts_loses_no_word(text in text(), target in 4usize..60) {
        // No front matter, no tags, comments and modules; rules and the ends of admonitions go.
        let text = text.replace('<', "(").replace("import", "in").replace("export", "ex");
        let text = format!("x {text}");
        let parsed = parsed(MediaType::Markdown, "a.md", text.as_bytes()).expect("text");
        let chunks = check(&parsed.documents[0], &ChunkConfig { target_tokens: target, max_tokens: target * 2 })?;
        check_nothing_lost(&parsed.documents[0], &chunks, char::is_alphanumeric)?;
    }

    #[test]
    fn text_and_code_documents_are_the_source_itself(text in text()) {
        let text = text.trim_start_matches('\u{feff}');
        for media_type in [MediaType::Markdown, MediaType::Text, MediaType::SourceCode] {
            let parsed = parsed(media_type, "a.py", text.as_bytes()).expect("text");
            prop_assert_eq!(&parsed.documents[0].text, text);
        }
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in vec(any::<u8>(), 0..400), prefix in prop::sample::select(vec![&b""[..], b"%PDF-1.4\n", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"<p>"])) {
        let bytes = [prefix, &bytes].concat();
        let _ = MediaType::detect("upload", &bytes);
        for media_type in ALL {
            if let Ok(parsed) = parsed(media_type, "a", &bytes) {
                for document in &parsed.documents {
                    check(document, &ChunkConfig::default())?;
                }
            }
        }
    }

    #[test]
    fn words_of_html_survive(words in vec("[a-z]{2,8}", 1..40), tags in vec(prop::sample::select(vec!["p", "div", "b", "li", "td", "h2", "pre", "tr", "table", "ul", "span", "br"]), 40)) {
        let html: String = words.iter().zip(&tags).map(|(word, tag)| format!("<{tag}>{word}</{tag}> ")).collect();
        let parsed = parsed(MediaType::Html, "a.html", html.as_bytes()).expect("HTML");
        let found: Vec<&str> = parsed.documents[0].text.split(|c: char| !c.is_ascii_lowercase()).filter(|word| !word.is_empty()).collect();
        prop_assert_eq!(found, words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn no_passage_is_larger_than_its_tokens_allow() {
    let config = ChunkConfig::default();
    let marks = format!("e{}", "\u{301}".repeat(1 << 20));
    let gap = format!("one{}two", "\n".repeat(1 << 20));
    let padded: String = (0..40).map(|row| format!("| {row:<2000} | {row:<2000} |\n")).collect::<String>().replacen(
        '\n',
        "\n|---|---|\n",
        1,
    );
    let indented = format!("    one\n{}two\n", " ".repeat(1 << 20));
    let spaced = format!("fn main() {{\n{}}}\n", format!("{}x;\n", " ".repeat(3_000)).repeat(20));
    for (media_type, text) in [
        (MediaType::Text, &marks),
        (MediaType::Markdown, &marks),
        (MediaType::Text, &gap),
        (MediaType::Markdown, &gap),
        (MediaType::Markdown, &padded),
        (MediaType::Markdown, &indented),
        (MediaType::SourceCode, &spaced),
        (MediaType::Html, &format!("<pre>{indented}</pre>")),
        (MediaType::Csv, &format!("a,b\n{marks},2\n")),
        (MediaType::Json, &format!("{{\"text\": \"{marks}\"}}")),
    ] {
        let found = parsed(media_type, "a.rs", text.as_bytes()).expect("text");
        for document in &found.documents {
            for chunk in check(document, &config).expect("bounded") {
                assert!(chunk.text.len() <= 256 * 16, "{media_type:?}: {} bytes", chunk.text.len());
            }
        }
    }
}

#[test]
fn a_source_over_the_limit_is_refused() {
    let limits = Limits { source_bytes_max: 3, ..Limits::default() };
    let error =
        parse(&Source { name: "a.txt", media_type: MediaType::Text, bytes: b"four" }, &limits).expect_err("too large");
    assert_eq!(error.to_string(), "source is 4 B, the limit is 3 B");
    assert_eq!(error.fault(), Fault::Caller);
}

#[test]
fn utf_16_counts_by_its_decoded_size() {
    let limits = Limits { text_bytes_max: 5, ..Limits::default() };
    let bytes: Vec<u8> = [0xff, 0xfe].into_iter().chain("€€".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let found = parse(&Source { name: "a.txt", media_type: MediaType::Text, bytes: &bytes }, &limits);
    assert!(matches!(found, Err(ParseError::TooLarge { what: "extracted text", .. })), "{found:?}");
}

#[test]
fn a_source_without_text_is_a_warning() {
    let found = parsed(MediaType::Html, "a.html", b"<img src=x>").expect("HTML");
    assert_eq!(found.warnings, ["the source has no text"]);
}

#[test]
fn a_record_without_text_costs_only_itself() {
    let found =
        parsed(MediaType::JsonLines, "a.jsonl", b"{\"text\":\"x\"}\n{}\n{\"text\":\"\"}\n").expect("JSON lines");
    assert_eq!((found.documents.len(), found.warnings.len()), (1, 1));
    assert_eq!(found.warnings, ["2 records have no text and were left out"]);
}

#[test]
fn a_title_alone_is_a_passage_in_every_format() {
    for (media_type, text, passage) in [
        (MediaType::Html, "<title>Anchors</title><body></body>", "Anchors"),
        (MediaType::Json, r#"{"title": "Anchors", "text": "", "tags": []}"#, "title: Anchors"),
        (MediaType::JsonLines, r#"{"_id": "a", "title": "Anchors", "text": ""}"#, "title: Anchors"),
        (MediaType::Csv, "id,title,text\n7,Anchors,\n", "title: Anchors"),
        (MediaType::Mail, "Subject: Anchors\r\n\r\n", "Anchors"),
        (MediaType::Notebook, r#"{"cells": [], "metadata": {"title": "Anchors"}}"#, "Anchors"),
        (MediaType::Drawing, "<svg><title>Anchors</title></svg>", "Anchors"),
    ] {
        let found = parsed(media_type, "a", text.as_bytes()).expect("text");
        let chunks = chunk(&found.documents[0], &ChunkConfig::default());
        assert_eq!(chunks.iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>(), [passage], "{text:?}");
    }
}

#[test]
fn each_part_of_a_divided_table_begins_with_the_header_row() {
    let config = ChunkConfig { target_tokens: 60, max_tokens: 80 };
    let rows = 0..70;
    let markdown: String = rows.clone().map(|n| format!("| item {n} | {} | bar |\n", n * 3)).collect();
    let html: String = rows.map(|n| format!("<tr><td>item {n}<td>{}<td>bar", n * 3)).collect();
    for (media_type, text, header) in [
        (
            MediaType::Markdown,
            format!("# T\n\n| Name | Limit | Unit |\n|---|--:|---|\n{markdown}\nend\n"),
            "| Name | Limit | Unit |\n|---|--:|---|",
        ),
        (MediaType::Html, format!("<table><tr><th>Name<th>Limit<th>Unit{html}</table>end"), "Name | Limit | Unit"),
    ] {
        let found = parsed(media_type, "a", text.as_bytes()).expect("text");
        let document = &found.documents[0];
        let chunks = chunk(document, &config);
        assert!(chunks.len() > 5);
        for chunk in &chunks {
            assert!(chunk.text.contains(header), "{}", chunk.text);
            assert!(estimate_tokens(&chunk.text) <= config.max_tokens);
            assert!(chunk.text.ends_with(&document.text[chunk.range.clone()]));
        }
        let repeated: Vec<usize> = chunks.iter().map(|chunk| chunk.text.len() - chunk.range.len()).collect();
        assert_eq!(repeated[0], 0);
        assert!(repeated[1..].iter().all(|length| *length == header.len() + 1), "{repeated:?}");
    }
    // A header that would fill half a passage is not repeated.
    let wide = format!("| {} |\n|---|\n{}", "wide ".repeat(60), "| x |\n".repeat(200));
    let found = parsed(MediaType::Markdown, "a", wide.as_bytes()).expect("text");
    let chunks = chunk(&found.documents[0], &config);
    assert!(chunks.iter().all(|chunk| chunk.text.len() == chunk.range.len()));
}

#[test]
fn encoded_data_is_in_no_passage() {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let picture: String = (0..20_000usize).map(|n| char::from(digits[(n * n + n / 3) % 64])).collect();
    for (media_type, text) in [
        (MediaType::Markdown, format!("# Chart\n\nBefore ![chart](data:image/png;base64,{picture}) after.\n")),
        (MediaType::Text, format!("Before\n{picture}\nafter.\n")),
        (MediaType::SourceCode, format!("icon: {picture}\nafter: 1\n")),
        (MediaType::Html, format!("<p>Before <img src='data:image/png;base64,{picture}'> {picture} after.</p>")),
        (MediaType::Json, format!("{{\"before\": 1, \"picture\": \"{picture}\"}}")),
    ] {
        let found = parsed(media_type, "a.yaml", text.as_bytes()).expect("text");
        let chunks = chunk(&found.documents[0], &ChunkConfig::default());
        assert!((1..=3).contains(&chunks.len()), "{media_type:?}: {} passages", chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.text.len() < 200), "{media_type:?}");
    }
}

#[test]
fn a_title_alone_is_a_passage() {
    let config = ChunkConfig::default();
    for (media_type, text, passage) in [
        (MediaType::Markdown, "# Anchors\n", "# Anchors"),
        (MediaType::Markdown, "---\ntitle: Anchors\n---\n", "Anchors"),
        (
            MediaType::Markdown,
            "---\ntitle: >\n  Anchors and\n  chains\nid: 7\n---\n\n",
            "---\ntitle: >\n  Anchors and\n  chains\nid: 7\n---",
        ),
        (MediaType::Text, "Anchors\n", "Anchors"),
    ] {
        let found = parsed(media_type, "a", text.as_bytes()).expect("text");
        let chunks = chunk(&found.documents[0], &config);
        assert_eq!(chunks.iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>(), [passage], "{text:?}");
        assert_eq!(&text[chunks[0].range.clone()], passage);
    }
    for text in ["", "\n \n", "---\n---\n", "---\nid: 7\n---\n", "import x from 'y'\n"] {
        let found = parsed(MediaType::Markdown, "a", text.as_bytes()).expect("text");
        assert_eq!(chunk(&found.documents[0], &config), [], "{text:?}");
    }
}
