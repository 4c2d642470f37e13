//! Answers of searches: in which order, each result once, what is folded and joined, and what they cost.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, hits, list, texts};

const MODES: [&str; 3] = ["hybrid", "dense", "lexical"];

fn write(node: &TestNode, documents: Value) {
    node.add("notes", documents);
}

/// Follows the cursors of a search to its end, with another limit for each page. The ids, in order.
fn all_pages(node: &TestNode, mut arguments: Value, limits: &[usize]) -> Vec<String> {
    let mut ids = Vec::new();
    for limit in limits.iter().cycle() {
        arguments["limit"] = json!(limit);
        let page = node.call("search", arguments.clone());
        ids.extend(texts(&page["results"], "id"));
        match page.get("next_cursor") {
            Some(cursor) => arguments["cursor"] = cursor.clone(),
            None => break,
        }
    }
    ids
}

#[test]
fn pages_of_any_size_give_every_result_once_and_in_one_order() {
    let node = TestNode::start();
    let mut many: Vec<Value> = (0..90)
        .map(|n| json!({"id": format!("d{n}"), "text": format!("Pump report number {n} about the wear of the pump in hall {}.", n % 5)}))
        .collect();
    // Documents of several passages, which do not stand together beyond the first few.
    many.extend((0..10).map(|n| {
        let sections: Vec<String> = (0..6)
            .map(|part| format!("## Part {part}\n\n{}", format!("Wear {part} of pump {n} is measured. ").repeat(12)))
            .collect();
        json!({"id": format!("long{n}"), "text": sections.join("\n\n")})
    }));
    write(&node, json!(many));
    let passages =
        node.call("describe_collection", json!({"collection": "notes"}))["passages"].as_u64().expect("a number");
    for mode in MODES {
        let asked = |first: usize| json!({"query": "pump wear report", "mode": mode, "detail": "ids", "max_tokens": 20000, "limit": first});
        for first in [7, 20] {
            let whole = all_pages(&node, asked(first), &[first]);
            let distinct: HashSet<&String> = whole.iter().collect();
            assert_eq!(whole.len(), distinct.len(), "{mode}: each once");
            assert!(whole.len() >= 90 && whole.len() as u64 <= passages, "{mode}: {} of {passages}", whole.len());
            for document in (0..90).map(|n| format!("notes/d{n}#0")) {
                assert!(distinct.contains(&document), "{mode}: {document} is lost");
            }
            for limits in [&[first, 1, 50, 3][..], &[first, 13], &[first, 2, 31, 5, 8]] {
                assert_eq!(all_pages(&node, asked(first), limits), whole, "{mode} {limits:?}");
            }
        }
    }
    // Past a write the answer says that it may be neither.
    let page = node.call("search", json!({"query": "pump wear report", "limit": 7}));
    assert!(page.get("searched").is_none(), "{page}");
    write(&node, json!([{"id": "new", "text": "Pump report about wear."}]));
    let next = node.call("search", json!({"query": "pump wear report", "limit": 7, "cursor": page["next_cursor"]}));
    assert_says(next["searched"]["mode_reason"].as_str().expect("a reason"), &["what is searched has changed since"]);
}

#[test]
fn one_document_does_not_fill_an_answer() {
    let node = TestNode::start();
    let log: String =
        (0..2_400).map(|n| format!("2026-11-{:02} alarm: pump P7 pressure low, value {n}\n", n % 28 + 1)).collect();
    write(
        &node,
        json!([
            {"id": "alarms.log", "text": log, "media_type": "text/plain"},
            {"id": "guide", "text": "# Pumps\n\nWhen the pressure of pump P7 is low, open valve V3 and look at the filter."},
            {"id": "other", "text": "The pressure of the boiler is low in summer."},
        ]),
    );
    for mode in MODES {
        let asked = json!({"query": "what to do when the pressure of pump P7 is low", "limit": 4, "mode": mode, "detail": "ids"});
        let answer = node.call("search", asked);
        let found = hits(&answer);
        assert!(found[..3].contains(&"guide".to_owned()), "{mode}: {found:?}");
        // Also where the log holds all candidates that a search looks at first.
        assert_eq!(found[..4].iter().filter(|id| *id == "alarms.log").count(), 2, "{mode}: {found:?}");
        assert!(found[..4].contains(&"other".to_owned()), "{mode}: {found:?}");
        let log =
            list(&answer["results"]).iter().find(|hit| hit["id"].as_str().is_some_and(|id| id.contains("alarms")));
        assert!(log.is_some_and(|hit| hit["more_in_document"].as_u64() > Some(0)), "{mode}: {answer}");
    }
}

#[test]
fn neighbours_become_one_result_and_a_table_keeps_one_header() {
    let node = TestNode::start();
    let rows: String = (0..120).map(|n| format!("| P-{n} | gasket of pump {n} |\n")).collect();
    write(&node, json!([{"id": "parts", "text": format!("# Parts\n\n| number | part |\n|---|---|\n{rows}")}]));
    let asked =
        json!({"query": "gasket of a pump", "limit": 1, "detail": "full", "max_tokens": 8000, "include": ["source"]});
    let hit = node.call("search", asked)["results"][0].clone();
    let text = hit["text"].as_str().expect("text");
    assert_eq!(text.matches("| number | part |").count(), 1, "{text}");
    let numbers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| P-")?.split(' ').next()).collect();
    assert!(numbers.len() > 25, "more than a passage has: {numbers:?}");
    let first: usize = numbers[0].parse().expect("a number");
    let expected: Vec<String> = (first..first + numbers.len()).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected, "in the order of the document, each once");
    let range = ["byte_start", "byte_end"].map(|end| hit["source"][end].as_u64().expect("an offset"));
    assert!(range[1] - range[0] > 600, "{hit}");
}

#[test]
fn versions_of_a_section_are_one_result_and_records_are_not() {
    let node = TestNode::start();
    let guide = |version: &str, word: &str| {
        format!(
            "# Guide {version}\n\n## 5.1 Approval of requests\n\nWherever possible, {word} access to the approval \
             sub-resource of requests for certificates, since whoever has it can make new ones for any name in the cluster."
        )
    };
    let words = [("1.7", "remove"), ("1.8", "remove"), ("1.9", "also remove"), ("2.0", "never remove")];
    let guides: Vec<Value> = words
        .iter()
        .map(|(version, word)| json!({"id": format!("guide-{version}"), "text": guide(version, word)}))
        .collect();
    write(&node, json!(guides));
    let answer = node.call("search", json!({"query": "who may approve requests for certificates"}));
    // What says the opposite is a result of its own.
    let results = list(&answer["results"]);
    let folded: Vec<usize> = results.iter().map(|result| result["also_in"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(folded.iter().sum::<usize>(), 2, "{answer}");
    let alone = results.iter().zip(&folded).filter(|(_, folded)| **folded == 0).map(|(result, _)| &result["id"]);
    assert_eq!(alone.collect::<Vec<_>>(), ["notes/guide-2.0#0"], "{answer}");
    for id in results.iter().flat_map(|result| result["also_in"].as_array().into_iter().flatten()) {
        assert_says(node.call("fetch", json!({"id": id}))["text"].as_str().expect("text"), &["sub-resource"]);
    }
    let readings: Vec<Value> = (0..8)
        .map(|n| json!({"id": format!("r{n}"), "text": format!("Gauge {n} of tank two showed 4.{n} bar at noon.")}))
        .collect();
    node.add("readings", json!(readings));
    let answer = node.call("search", json!({"query": "gauge of tank two", "collections": "readings", "limit": 8}));
    assert_eq!(list(&answer["results"]).len(), 8, "{answer}");
}

#[test]
fn a_document_is_found_by_the_end_of_its_id() {
    let node = TestNode::start();
    for (collection, id) in
        [("k0s", "k0s/reset.md"), ("k0s", "k0s/install.md"), ("k3s", "docs/install.md"), ("k3s", "docs/a/faq.md")]
    {
        node.add(collection, json!([{"id": id, "text": format!("What {collection} says in {id}.")}]));
    }
    let title = |arguments: Value| node.call("fetch", arguments)["id"].clone();
    assert_eq!(title(json!({"id": "k0s/reset.md"})), "k0s/k0s/reset.md");
    assert_eq!(title(json!({"id": "reset.md"})), "k0s/k0s/reset.md");
    assert_eq!(title(json!({"id": "reset.md#0"})), "k0s/k0s/reset.md#0");
    assert_eq!(title(json!({"id": "install.md", "collection": "k3s"})), "k3s/docs/install.md");
    assert_eq!(title(json!({"id": "k3s/docs/install.md", "collection": "k3s"})), "k3s/docs/install.md");
    assert_says(&node.refusal("fetch", json!({"id": "install.md"})), &["k0s/k0s/install.md", "k3s/docs/install.md"]);
    assert_says(&node.refusal("fetch", json!({"id": "stall.md"})), &["no document 'stall.md'", "install.md"]);
    let similar = node.call("find_similar", json!({"id": "reset.md"}));
    assert_eq!(hits(&similar), ["k0s/install.md"]);
    // What is changed or deleted is never guessed.
    for (tool, arguments) in [
        ("update_document", json!({"id": "a/faq.md", "title": "Questions"})),
        ("update_document", json!({"id": "a/faq.md", "text": "Nothing."})),
        ("delete_documents", json!({"ids": ["a/faq.md"]})),
        ("delete_documents", json!({"ids": ["faq.md"], "dry_run": true})),
    ] {
        assert_says(&node.refusal(tool, arguments), &["did you mean", "k3s/docs/a/faq.md"]);
    }
    assert_eq!(node.call("fetch", json!({"id": "k3s/docs/a/faq.md"}))["text"], "What k3s says in docs/a/faq.md.");
    assert_eq!(node.call("delete_documents", json!({"ids": ["k0s/k0s/reset.md"]}))["deleted"], 1);
}

#[test]
fn a_list_of_documents_keeps_its_budget() {
    let node = TestNode::start();
    let many: Vec<Value> = (0..300)
        .map(|n| json!({"id": format!("guides/chapter-{n:03}.md"), "title": format!("Chapter {n}"), "text": format!("Chapter {n}.")}))
        .collect();
    write(&node, json!(many));
    for order in ["id", "updated"] {
        let (mut ids, mut arguments) = (Vec::new(), json!({"collection": "notes", "order": order}));
        loop {
            let page = node.call("list_documents", arguments.clone());
            assert!(page.to_string().len() <= 2_000 * 4, "{}", page.to_string().len());
            assert!(
                page["documents"][0].as_object().is_some_and(|document| document.len() == 2),
                "id and title: {page}"
            );
            ids.extend(texts(&page["documents"], "id"));
            match page.get("next_cursor") {
                Some(cursor) => arguments["cursor"] = cursor.clone(),
                None => break,
            }
        }
        let distinct: HashSet<&String> = ids.iter().collect();
        assert_eq!((ids.len(), distinct.len()), (300, 300), "{order}");
    }
    let wide = json!({"collection": "notes", "limit": 1000, "max_tokens": 200_000, "include": ["source", "dates", "metadata"]});
    let page = node.call("list_documents", wide);
    assert_eq!(list(&page["documents"]).len(), 300);
    assert_eq!(page["documents"][0]["passages"], 1);
}
