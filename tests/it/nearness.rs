//! Words side by side count more than words apart, and a quoted phrase has to be there.

use serde_json::{Value, json};

use crate::node::TestNode;

const RED_VALVE: &str = "The red valve opens slowly when the blue lamp is lit.";
const BLUE_VALVE: &str = "The blue valve is next to the red lamp.";

/// A node with two passages of the same words, and others.
fn node(others: &[Value]) -> TestNode {
    let node = TestNode::start();
    let mut documents = vec![
        json!({"id": "right", "title": "Note", "text": RED_VALVE}),
        json!({"id": "wrong", "title": "Note", "text": BLUE_VALVE}),
    ];
    documents.extend_from_slice(others);
    node.add("hall", documents.into());
    node
}

/// The same with the plural, and with both lamps.
fn larger_node() -> TestNode {
    node(&[
        json!({"id": "plural", "title": "Note", "text": "All red valves are checked in May; the word is red-valve on the plan of the hall."}),
        json!({"id": "code", "title": "Signals", "text": "A blue lamp, then a red lamp: leave the hall."}),
    ])
}

fn ids(node: &TestNode, query: &str, mode: &str) -> Vec<String> {
    let answer = node.call("search", json!({"query": query, "collections": ["hall"], "mode": mode}));
    let results = answer["results"].as_array().expect("results");
    let id = |result: &Value| {
        result["id"].as_str().expect("id").trim_start_matches("hall/").trim_end_matches("#0").to_owned()
    };
    results.iter().map(id).collect()
}

#[test]
fn of_two_passages_with_the_same_words_that_with_them_side_by_side_is_first() {
    let node = node(&[]);
    for mode in ["lexical", "hybrid"] {
        for query in ["red valve", "blue lamp"] {
            assert_eq!(ids(&node, query, mode), ["right", "wrong"], "{query} {mode}");
        }
        for query in ["blue valve", "red lamp"] {
            assert_eq!(ids(&node, query, mode), ["wrong", "right"], "{query} {mode}");
        }
    }
}

#[test]
fn a_quoted_phrase_has_to_be_there() {
    let node = larger_node();
    for mode in ["lexical", "hybrid", "dense"] {
        let mut found = ids(&node, "\"red valve\"", mode);
        found.sort();
        assert_eq!(found, ["plural", "right"], "{mode}: the hyphen is no word, the plural alone would be another one");
        assert_eq!(ids(&node, "\"lamp is lit\" valve", mode), ["right"], "{mode}");
        assert_eq!(ids(&node, "“next to the red lamp”", mode), ["wrong"], "{mode}");
        let mut both = ids(&node, "\"red lamp\" \"blue lamp\"", mode);
        both.sort();
        assert_eq!(both, ["code"], "{mode}");
    }
}

#[test]
fn a_phrase_that_is_nowhere_is_told_and_its_words_are_found() {
    let node = larger_node();
    let answer = node.call("search", json!({"query": "\"lamp valve\" blue", "collections": ["hall"]}));
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(4), "{answer}");
    let reason = answer["searched"]["mode_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("\"lamp valve\""), "{answer}");
    // Without its second mark it is no phrase.
    let answer = node.call("search", json!({"query": "\"lamp valve", "collections": ["hall"]}));
    assert_eq!(answer["searched"]["mode_reason"], Value::Null, "{answer}");
}

#[test]
fn a_phrase_and_a_filter_both_hold() {
    let node = TestNode::start();
    let text = "Open the relief valve by hand.";
    node.add(
        "hall",
        json!([
            {"id": "one", "text": text, "metadata": {"hall": 1}},
            {"id": "two", "text": format!("{text} Then call."), "metadata": {"hall": 2}},
        ]),
    );
    let answer =
        node.call("search", json!({"query": "\"relief valve\"", "collections": ["hall"], "filter": {"hall": 2}}));
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(1), "{answer}");
    assert_eq!(answer["results"][0]["id"], "hall/two#0");
}

#[test]
fn the_sign_of_a_quoted_name_has_to_be_there() {
    let documents = json!([
        {"id": "c", "text": "A driver written in C runs on the controller."},
        {"id": "cpp", "text": "A driver written in C++ runs on the panel."},
        {"id": "csharp", "text": "A driver written in C# runs in the office."},
        {"id": "no", "text": "Pass --no-verify to leave the check out."},
        {"id": "yes", "text": "Pass --verify to check what was written."},
        {"id": "verify", "text": "We verify nothing, and no-verify is the word for it."},
    ]);
    let node = TestNode::start();
    node.add("hall", documents);
    for (query, expected) in
        [("\"C++\"", "cpp"), ("\"C#\"", "csharp"), ("\"--verify\"", "yes"), ("\"--no-verify\"", "no")]
    {
        for mode in ["lexical", "hybrid", "dense"] {
            assert_eq!(ids(&node, query, mode), [expected], "{query} {mode}");
        }
        let bare = query.trim_matches('"');
        assert_eq!(ids(&node, bare, "lexical")[0], expected, "{bare}");
    }
}

#[test]
fn what_a_reason_says_of_a_phrase_keeps_to_the_budget() {
    let node = node(&[]);
    let long = format!("\"{}\" valve", "the quick brown ".repeat(500));
    let answer = node.call("search", json!({"query": long, "collections": ["hall"], "max_tokens": 100}));
    assert!(answer.to_string().len() < 900, "{answer}");
    let many: Vec<String> =
        "red blue lamp valve lit slowly opens next hall".split(' ').map(|word| format!("\"{word}\"")).collect();
    let answer = node.call("search", json!({"query": many.join(" "), "collections": ["hall"]}));
    let reason = answer["searched"]["mode_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("only the first 8"), "{answer}");
}
