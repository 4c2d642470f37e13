use super::super::{Limits, MediaType, Source, parse};
use super::*;

fn document(name: &str, text: &str) -> Document {
    // By the name: a document may be empty here.
    let media_type = MediaType::detect(name, b"text").expect("text");
    let source = Source { name, media_type, bytes: text.as_bytes() };
    parse(&source, &Limits::default()).expect("parses").documents.swap_remove(0)
}

fn chunks(text: &str, target_tokens: usize, max_tokens: usize) -> Vec<Chunk> {
    chunk(&document("a.md", text), &ChunkConfig { target_tokens, max_tokens })
}

fn paths(chunks: &[Chunk]) -> Vec<String> {
    chunks.iter().map(|chunk| chunk.headings.join(" > ")).collect()
}

/// `count` distinct words of one token each.
fn words(count: usize) -> String {
    (0..count).map(|n| format!("w{}", char::from(b'a' + (n % 26) as u8))).collect::<Vec<_>>().join(" ")
}

#[test]
fn sections_have_their_heading_paths_without_the_title() {
    let text = format!("# Title\n\nIntro {0}\n\n## One\n\n{0}\n\n### Deep\n\n{0}\n\n## Two\n\n{0}\n", words(40));
    let found = chunks(&text, 100, 120);
    assert_eq!(paths(&found), ["", "One", "One > Deep", "Two"]);
    assert!(found[0].text.starts_with("# Title\n\nIntro"));
    assert!(found[2].text.starts_with("### Deep"));
}

#[test]
fn a_first_heading_that_differs_from_the_title_stays_in_the_path() {
    let found = chunks(&format!("---\ntitle: Front\n---\n# Other\n\n{}", words(40)), 100, 120);
    assert_eq!(paths(&found), ["Other"]);
}

#[test]
fn small_siblings_share_a_chunk_under_their_common_path() {
    let text = "# T\n\n## Flags\n\n### a\n\nfirst flag\n\n### b\n\nsecond flag\n\n### c\n\nthird flag\n";
    let found = chunks(text, 100, 120);
    assert_eq!(paths(&found), ["Flags"]);
    assert!(found[0].text.contains("### c\n\nthird flag"));
}

#[test]
fn a_heading_never_ends_a_chunk() {
    let text = format!("# T\n\n## One\n\n{}\n\n## Two\n\n{}\n", words(90), words(90));
    for found in chunks(&text, 100, 120) {
        let last = found.text.lines().last().unwrap_or_default();
        assert!(!last.starts_with('#'), "{:?}", found.text);
    }
}

#[test]
fn an_introduction_stays_with_what_it_introduces() {
    for lead in ["Run this:", ":::note Mind", "**Remedy:**", "<details>\n<summary>Output</summary>"] {
        let text = format!("{}\n\n{lead}\n\n```\n{}\n```\n", words(95), words(60));
        let found = chunks(&text, 100, 120);
        assert_eq!(found.len(), 2);
        assert!(found[1].text.starts_with(lead), "{found:#?}");
    }
}

#[test]
fn blocks_up_to_the_maximum_stay_whole() {
    let table: String = (0..12).map(|n| format!("| k{n} | v{n} |\n")).collect();
    let fence = format!("```\n{}```", "line of code\n".repeat(25));
    let text = format!("{}\n\n{table}\n{}\n\n{fence}\n", words(50), words(50));
    let found = chunks(&text, 60, 130);
    assert!(found.iter().any(|chunk| chunk.text.contains(table.trim_end())), "{found:#?}");
    assert!(found.iter().any(|chunk| chunk.text.contains(&fence)), "{found:#?}");
}

#[test]
fn large_tables_are_cut_between_lines() {
    let table: String = (0..100).map(|n| format!("| key number {n} | value {n} |\n")).collect();
    let found = chunks(&table, 60, 80);
    assert!(found.len() > 5);
    for chunk in &found {
        assert!(chunk.text.lines().all(|line| line.starts_with("| key") && line.ends_with(" |")), "{:?}", chunk.text);
    }
}

#[test]
fn large_lists_are_cut_between_items() {
    let list: String = (0..40).map(|n| format!("- item {n} has\n  two lines\n")).collect();
    for chunk in chunks(&list, 60, 80) {
        assert!(chunk.text.starts_with("- item") && chunk.text.ends_with("two lines"), "{:?}", chunk.text);
    }
}

#[test]
fn long_prose_is_cut_between_sentences() {
    let text = "This sentence has some words in it. And this one ends here! ".repeat(40);
    for chunk in chunks(&text, 50, 60) {
        assert!(chunk.text.ends_with(['.', '!']) && chunk.text.starts_with(['T', 'A']), "{:?}", chunk.text);
    }
    let chinese = "集群需要一台服务器。代理节点加入集群！".repeat(60);
    for chunk in chunks(&chinese, 50, 60) {
        assert!(chunk.text.ends_with(['。', '！']), "{:?}", chunk.text);
    }
}

#[test]
fn a_word_without_spaces_is_cut_between_characters() {
    let text = "x".repeat(10_000);
    let found = chunks(&text, 50, 60);
    assert_eq!(found.iter().map(|chunk| chunk.text.as_str()).collect::<String>(), text);
}

#[test]
fn mdx_tags_do_not_touch_chunk_edges() {
    let text = format!("<Tabs>\n<TabItem value=\"a\">\n\n{}\n\n</TabItem>\n</Tabs>\n", words(40));
    let found = chunks(&text, 100, 120);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].text, words(40));
}

#[test]
fn source_code_is_found_under_its_item() {
    let body = "    let value = compute(input);\n".repeat(8);
    let text = format!(
        "use std::io;\n\n/// Doc.\npub fn first() {{\n{body}}}\n\nimpl Thing {{\n    fn second() {{\n{body}    }}\n}}\n"
    );
    let found = chunk(&document("a.rs", &text), &ChunkConfig { target_tokens: 100, max_tokens: 140 });
    assert_eq!(paths(&found).last().map(String::as_str), Some("impl Thing"), "{found:#?}");
    assert!(found.iter().any(|chunk| chunk.text.contains("/// Doc.\npub fn first()")));
}

#[test]
fn an_empty_document_has_no_chunks() {
    for text in ["", "\n \n", "---\nid: x\n---\n"] {
        assert!(chunks(text, 100, 120).is_empty(), "{text:?}");
    }
}

#[test]
fn sizes_of_zero_are_usable() {
    let found = chunks("a b c", 0, 0);
    assert_eq!(found.iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn links_alone_go_to_a_neighbour() {
    let links = "- [One page](one.md)\n- [Another](two.md)";
    // Below the text of their section, above what they lead to, or wherever there is room.
    let found = chunks(&format!("# T\n\n{}\n\n## See also\n\n{links}\n", words(60)), 100, 120);
    assert_eq!(found.len(), 1);
    assert!(found[0].text.ends_with(links) && found[0].text.contains("## See also"));
    assert_eq!(paths(&found), [""]);
    let found = chunks(&format!("{}\n\n## Guides\n\n{links}\n\n### One\n\n{}\n", words(90), words(60)), 100, 120);
    assert_eq!(paths(&found), ["", "Guides > One"]);
    assert!(found[1].text.starts_with("## Guides\n\n- [One page]"));
    let found = chunks(&format!("{}\n\n## See also\n\n{links}\n\n## More\n\n{}\n", words(115), words(60)), 100, 120);
    assert_eq!(paths(&found), ["", "More"]);
    assert!(found[1].text.starts_with("## See also"));
    // A page of links is found by them.
    assert_eq!(chunks(&format!("# Index\n\n{links}\n"), 100, 120)[0].text, format!("# Index\n\n{links}"));
}

#[test]
fn a_short_paragraph_stays_with_the_code_below_it() {
    for below in ["```\nrun it\n```", "| a | b |\n|---|---|\n| 1 | 2 |", "- one\n- two"] {
        let text = format!("{}\n\nRun the installer.\n\n{below}\n", words(113));
        let found = chunks(&text, 100, 120);
        assert_eq!(
            found.last().map(|chunk| chunk.text.as_str()),
            Some(format!("Run the installer.\n\n{below}").as_str())
        );
    }
}

#[test]
fn an_introduction_stays_with_the_beginning_of_what_is_too_large_beside_it() {
    let list: String = (0..28).map(|n| format!("- item {n} is\n")).collect();
    let table: String = (0..15).map(|n| format!("| k{n} | v{n} |\n")).collect();
    let code = format!("```\n{}```\n", "line of code\n".repeat(36));
    for block in [list, format!("| K | V |\n|---|---|\n{table}"), code] {
        let lead = format!("{} follows:", words(30));
        let found = chunks(&format!("{lead}\n\n{block}"), 100, 120);
        let tokens = estimate_tokens(&block);
        assert!(tokens <= 120 && tokens + 30 > 120, "{tokens}");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].text.len() > lead.len() + 40, "{found:#?}");
    }
}

#[test]
fn a_step_stays_with_its_admonition_and_its_command() {
    let step = |n: usize| {
        format!(
            "{n}. {} and run:\n\n   :::note\n   Mind.\n   :::\n\n   ```sh\n   run {n}\n\n   wait\n   ```\n\n",
            words(20)
        )
    };
    let found = chunks(&(1..8).map(step).collect::<String>(), 60, 80);
    for chunk in &found {
        assert!(chunk.text.starts_with(|c: char| c.is_ascii_digit()) && chunk.text.ends_with("```"), "{found:#?}");
    }
    // A step that is too large is not cut between an introduction and its command.
    let large = format!("1. {}\n\n   {} then run:\n\n   ```sh\n   run\n   ```\n", words(50), words(20));
    let found = chunks(&large, 50, 60);
    assert!(found.iter().any(|chunk| chunk.text.contains("then run:\n\n   ```sh")), "{found:#?}");
}

#[test]
fn code_is_not_cut_behind_what_opens_a_block() {
    let code = format!("```yaml\n{}```\n", "key:\n  # A remark.\n  value: one two\n".repeat(40));
    for chunk in chunks(&code, 50, 60) {
        assert!(chunk.text.ends_with(['o', '`']), "{:?}", chunk.text);
    }
}

#[test]
fn a_heading_above_badges_is_told_by_the_path() {
    let badges: String =
        (0..8).map(|n| format!("[![Badge {n}](https://ci.example/{n}.svg)](https://ci.example)\n")).collect();
    let found = chunks(&format!("# Pump\n\n{badges}\nMoves water.\n\n## Use\n\n{badges}\nTurn it on.\n"), 100, 120);
    assert_eq!(found.iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>(), ["Moves water.", "Turn it on."]);
    assert_eq!(paths(&found), ["", "Use"]);
}
