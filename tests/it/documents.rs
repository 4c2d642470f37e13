//! Documents through the tools: written, changed, deleted, found, filtered, read.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, documents, hits, list, outcomes, texts};
use crate::pdf;
use crate::tls::{open_node, status, wait_until};

const MODES: [&str; 3] = ["hybrid", "dense", "lexical"];

/// Status of each document of a write, in order.
fn statuses(answer: &Value) -> Vec<String> {
    outcomes(answer).iter().map(|document| document["status"].as_str().expect("a status").to_owned()).collect()
}

fn write(node: &TestNode, documents: Value) -> Value {
    node.call("add_documents", json!({"collection": "notes", "documents": documents}))
}

/// Birds of a pond, told apart by every field a filter can ask for.
fn birds(node: &TestNode) {
    node.add(
        "birds",
        json!([
            {"id": "heron", "title": "Grey heron", "text": "The grey heron stands still in shallow water and spears fish.",
             "metadata": {"family": "Ardeidae", "length_cm": 94, "diet": ["fish", "frogs"], "migrates": false,
                          "seen": {"by": "Ana", "on": "2024-03-01"}}},
            {"id": "kingfisher", "title": "Kingfisher", "text": "The kingfisher dives from a branch into water to catch fish.",
             "metadata": {"family": "Alcedinidae", "length_cm": 17, "diet": ["fish", "insects"], "migrates": false,
                          "seen": {"by": "Bo", "on": "2025-06-12"}}},
            {"id": "swallow", "title": "Barn swallow", "text": "The barn swallow hunts insects over water and winters in Africa.",
             "metadata": {"family": "Hirundinidae", "length_cm": 18.5, "diet": ["insects"], "migrates": true}},
            {"id": "mute-swan", "title": "Mute swan", "text": "The mute swan eats plants that grow under water.",
             "metadata": {"family": "Anatidae", "length_cm": 150, "diet": ["plants"], "migrates": false,
                          "seen": {"by": "Ana", "on": "2025-01-20"}}},
        ]),
    );
}

#[test]
fn a_search_right_after_a_write_finds_it() {
    let node = TestNode::start();
    for n in 0..20 {
        let word = format!("zq{}x", n * 7919);
        let written = write(&node, json!([{"id": n.to_string(), "text": format!("The code word is {word} today.")}]));
        let answer =
            node.call("search", json!({"query": word, "mode": "lexical", "limit": 1, "include": ["searched"]}));
        assert_eq!(hits(&answer), [n.to_string()]);
        assert!(answer["searched"]["generation"].as_u64() >= written["lsn"].as_u64(), "{answer}");
    }
}

#[test]
fn a_document_that_is_rewritten_is_found_in_one_version_by_every_search() {
    let node = TestNode::start();
    let version =
        |number: u32| json!([{"id": "same", "text": format!("The tide gauge reads version {number} of its table.")}]);
    write(&node, version(0));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=60 {
                write(&node, version(number));
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut last = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            for mode in MODES {
                let answer = node
                    .call("search", json!({"query": "tide gauge version table", "mode": mode, "include": ["dates"]}));
                let results = list(&answer["results"]);
                assert_eq!(results.len(), 1, "{mode}: {answer}");
                let shown = results[0]["version"].as_u64().expect("a version");
                assert!(shown >= last, "{mode}: version {last} was shown before {answer}");
                last = shown;
            }
        }
    });
}

#[test]
fn a_collection_that_is_named_twice_counts_once() {
    let node = TestNode::start();
    birds(&node);
    let once = node.call("search", json!({"query": "fish", "collections": ["birds"]}));
    assert_eq!(node.call("search", json!({"query": "fish", "collections": ["birds", "birds"]})), once);
    let similar =
        |collections: Value| node.call("find_similar", json!({"id": "birds/heron", "collections": collections}));
    assert_eq!(similar(json!(["birds", "birds"])), similar(json!(["birds"])));
}

#[test]
fn a_document_whose_id_ends_like_a_passage_is_deleted_by_it() {
    let node = TestNode::start();
    write(&node, json!([{"id": "list.csv#0", "text": "First row."}, {"id": "list.csv#1", "text": "Second row."}]));
    assert_eq!(node.call("delete_documents", json!({"ids": ["notes/list.csv#0"]}))["deleted"], 1);
    node.refusal("delete_documents", json!({"ids": ["notes/list.csv#1#0"]}));
    assert_eq!(node.call("list_documents", json!({"collection": "notes"}))["documents"][0]["id"], "notes/list.csv#1");
}

#[test]
fn an_equal_document_is_left_alone_and_a_changed_one_is_replaced() {
    let node = TestNode::start();
    let first = write(&node, json!([{"id": "a", "text": "The pump is red."}, {"text": "Without an id."}]));
    assert_eq!(statuses(&first), ["created", "created"]);
    let id = outcomes(&first)[1]["id"].as_str().expect("an id").to_owned();
    let again = write(&node, json!([{"id": "a", "text": "The pump is red."}, {"text": "Without an id."}]));
    assert_eq!(statuses(&again), ["unchanged", "unchanged"]);
    assert_eq!(outcomes(&again)[1]["id"], id, "the same text gets the same id");
    let changed = write(&node, json!([{"id": "a", "text": "The pump is blue."}]));
    assert_eq!((statuses(&changed), &outcomes(&changed)[0]["version"]), (vec!["updated".to_owned()], &json!(2)));
    assert_eq!(node.call("fetch", json!({"id": "notes/a"}))["text"], "The pump is blue.");
    assert_eq!(node.found("notes", "red", "lexical"), [""; 0], "the old text is gone");
}

#[test]
fn one_bad_document_does_not_keep_the_others_out() {
    let node = TestNode::start();
    let answer = write(
        &node,
        json!([
            {"id": "good", "text": "Fine."},
            {"id": "empty", "text": "  \n "},
            {"id": "nothing"},
            {"id": "both", "text": "x", "content_base64": "eA=="},
            {"id": "line\nbreak", "text": "x"},
            {"id": "torn", "content_base64": "%%%"},
            {"id": "when", "text": "x", "expires_at": "tomorrow"},
            {"id": "also-good", "text": "Fine too."},
        ]),
    );
    let expected = ["created", "failed", "failed", "failed", "failed", "failed", "failed", "created"];
    assert_eq!(statuses(&answer), expected, "in the order they were given: {answer}");
    let errors: Vec<&str> = outcomes(&answer)[1..7].iter().filter_map(|one| one["error"].as_str()).collect();
    for (error, word) in
        errors.iter().zip(["no text", "content_base64", "content_base64", "control", "base64", "RFC 3339"])
    {
        assert_says(error, &[word]);
    }
    assert_eq!(
        node.call("list_documents", json!({"collection": "notes"}))["documents"].as_array().map(Vec::len),
        Some(2)
    );
}

#[test]
fn an_update_happens_only_at_the_expected_version() {
    let node = TestNode::start();
    write(&node, json!([{"id": "a", "text": "First."}]));
    let update = |version: u64, text: &str| {
        node.try_call("update_document", json!({"id": "notes/a", "text": text, "if_version": version}))
    };
    assert_eq!(outcomes(&update(1, "Second.").expect("at version 1"))[0]["version"], 2);
    assert_says(&update(1, "Third.").expect_err("at version 2 by now"), &["version 2", "version 1"]);
    assert_eq!(node.call("fetch", json!({"id": "notes/a"}))["text"], "Second.");
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let node = TestNode::start();
    let given = json!([{"id": "a", "title": "Pump", "url": "https://example.org/pump", "text": "It turns.",
        "metadata": {"site": "north", "draft": true, "checked": 3}}]);
    write(&node, given);
    node.call(
        "update_document",
        json!({"id": "notes/a", "metadata_patch": {"draft": null, "checked": 4, "by": "Ana"}}),
    );
    let document = node.call("fetch", json!({"id": "notes/a", "include": ["metadata"]}));
    assert_eq!(document["metadata"], json!({"site": "north", "checked": 4, "by": "Ana"}));
    assert_eq!((&document["title"], &document["text"]), (&json!("Pump"), &json!("It turns.")));
    assert_eq!(document["url"], "https://example.org/pump");
    node.call("update_document", json!({"id": "notes/a", "text": "It stands still.", "title": "Old pump"}));
    let document = node.call("fetch", json!({"id": "notes/a", "include": ["metadata", "dates"]}));
    assert_eq!((&document["title"], &document["text"]), (&json!("Old pump"), &json!("It stands still.")));
    assert_eq!((&document["metadata"]["by"], &document["version"]), (&json!("Ana"), &json!(3)));
}

#[test]
fn an_update_of_the_title_keeps_a_structured_text_word_for_word() {
    let node = TestNode::start();
    let text = "# Pump\n\nIntro with *emphasis*.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```sh\nrun --now\n```\n\n## Care\n\n- oil\n- water\n";
    write(&node, json!([{"id": "a", "text": text}]));
    let before = node.call("fetch", json!({"id": "notes/a"}))["text"].clone();
    node.call("update_document", json!({"id": "notes/a", "title": "Renamed"}));
    assert_eq!(node.call("fetch", json!({"id": "notes/a"}))["text"], before);
}

#[test]
fn a_taken_id_is_handled_as_the_caller_says() {
    let node = TestNode::start();
    write(&node, json!([{"id": "a", "text": "First."}]));
    let add = |conflict: &str, text: &str| {
        let documents = json!([{"id": "a", "text": text}]);
        node.call("add_documents", json!({"collection": "notes", "documents": documents, "on_conflict": conflict}))
    };
    assert_eq!(statuses(&add("skip", "Second.")), ["unchanged"]);
    let taken = json!({"collection": "notes", "on_conflict": "fail", "documents": [{"id": "a", "text": "Second."}]});
    assert_says(&node.refusal("add_documents", taken), &["nothing was written", "notes/a"]);
    assert_eq!(node.call("fetch", json!({"id": "notes/a"}))["text"], "First.");
    assert_eq!(statuses(&add("replace", "Second.")), ["updated"]);
}

#[test]
fn a_repeated_key_repeats_the_answer_and_writes_nothing() {
    let mut node = TestNode::start();
    let arguments =
        json!({"collection": "notes", "idempotency_key": "k-1", "documents": [{"id": "a", "text": "First."}]});
    let first = node.call("add_documents", arguments.clone());
    node.call("delete_documents", json!({"ids": ["notes/a"]}));
    assert_eq!(node.call("add_documents", arguments.clone()), first);
    node.kill();
    node.restart();
    assert_eq!(node.call("add_documents", arguments), first, "the key survives a crash");
    node.refusal("fetch", json!({"id": "notes/a"}));
}

#[test]
fn a_document_that_is_to_be_skipped_is_kept_also_within_one_call_and_at_once() {
    let node = TestNode::start();
    let add = |texts: &[String]| {
        let documents: Vec<Value> = texts.iter().map(|text| json!({"id": "a", "text": text})).collect();
        let arguments = json!({"collection": "notes", "on_conflict": "skip", "documents": documents});
        node.call("add_documents", arguments)
    };
    let twice = add(&["First.".to_owned(), "Second.".to_owned()]);
    assert_eq!(texts(&twice["documents"], "status"), ["created", "unchanged"]);
    assert_eq!(node.call("fetch", json!({"id": "notes/a"}))["text"], "First.");
    node.call("delete_documents", json!({"ids": ["notes/a"]}));
    let created: u64 = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|caller| {
                let add = &add;
                scope.spawn(move || add(&[format!("From {caller}.")])["created"].as_u64().expect("a count"))
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("a call")).sum()
    });
    assert_eq!(created, 1, "one of them came first, and the others kept what it wrote");
    assert_eq!(node.call("fetch", json!({"id": "notes/a", "include": ["dates"]}))["version"], 2);
}

#[test]
fn a_key_belongs_to_its_caller_and_its_collection() {
    let node = open_node();
    let first = node.token.clone().expect("shown at the first start");
    let made = node.cairn_json(&["token", "create", "laptop", "--json"]);
    let laptop = made["token"].as_str().expect("shown this once").to_owned();
    wait_until("the new token", || status(&node, &laptop) == 200);
    let send = |token: &str, collection: &str, text: &str| {
        let arguments = json!({
            "collection": collection, "idempotency_key": "1", "documents": [{"id": text, "text": text}],
        });
        let (url, bearer) = (format!("{}/v1/tools/add_documents", node.base()), format!("Bearer {token}"));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        node.request("POST", &url, &headers, Some(arguments.to_string().as_bytes()))
    };
    let add = |token: &str, collection: &str, text: &str| {
        let answer = send(token, collection, text);
        assert_eq!(answer.status, 200, "{}", answer.text);
        texts(&answer.json()["documents"], "id")
    };
    assert_eq!(add(&first, "notes", "one"), ["notes/one"]);
    assert_eq!(add(&laptop, "notes", "two"), ["notes/two"], "another client counts from 1 too");
    assert_eq!(add(&first, "other", "three"), ["other/three"]);
    assert_eq!(add(&first, "notes", "one"), ["notes/one"]);
    // The same key for something else: what was not written is not answered as if it were.
    for token in [&first, &laptop] {
        let refused = send(token, "notes", "four");
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("key_reused")), "{}", refused.text);
    }
    let (url, bearer) = (format!("{}/v1/collections/notes/documents/four", node.base()), format!("Bearer {first}"));
    assert_eq!(node.request("GET", &url, &[("authorization", bearer.as_str())], None).status, 404);
}

#[test]
fn a_key_that_cannot_be_kept_is_refused() {
    let node = TestNode::start();
    let url = format!("{}/v1/collections/notes/documents", node.base());
    let post = |key: &str| {
        let headers = [("idempotency-key", key), ("content-type", "application/json")];
        node.request("POST", &url, &headers, Some(br#"{"id": "a", "text": "One."}"#))
    };
    for key in ["".to_owned(), "k".repeat(257)] {
        let arguments =
            json!({"collection": "notes", "idempotency_key": key, "documents": [{"id": "a", "text": "One."}]});
        assert_says(&node.refusal("add_documents", arguments), &["idempotency_key", "1 to 256"]);
        assert_eq!(post(&key).status, 400);
    }
    let longest = post(&"k".repeat(256));
    assert_eq!(longest.status, 200, "{}", longest.text);
}

#[test]
fn of_calls_with_one_key_at_once_a_single_one_writes() {
    let node = TestNode::start();
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let node = &node;
                scope.spawn(move || {
                    // A text without an id, so that each write would make a document.
                    let document = json!({"text": "Words."});
                    let key = "one-order";
                    node.call(
                        "add_documents",
                        json!({"collection": "notes", "idempotency_key": key, "documents": [document]}),
                    )
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    });
    assert!(answers.iter().all(|answer| answer["documents"] == answers[0]["documents"]), "{answers:?}");
    let listed = node.call("list_documents", json!({"collection": "notes"}));
    assert_eq!(texts(&listed["documents"], "id"), texts(&answers[0]["documents"], "id"));
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let node = TestNode::start();
    birds(&node);
    let filter = json!({"migrates": false});
    let delete = |more: Value| {
        let mut arguments = json!({"collection": "birds", "filter": filter});
        arguments.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        arguments
    };
    let dry = node.call("delete_documents", delete(json!({"dry_run": true})));
    assert_eq!((&dry["matched"], &dry["deleted"], &dry["dry_run"]), (&json!(3), &json!(0), &json!(true)));
    let mut named = texts(&dry["documents"], "id");
    named.sort();
    assert_eq!(named, ["birds/heron", "birds/kingfisher", "birds/mute-swan"]);
    assert_says(
        &node.refusal("delete_documents", delete(json!({"expected_count": 2}))),
        &["3", "2", "nothing was deleted"],
    );
    assert_eq!(node.call("describe_collection", json!({"collection": "birds"}))["documents"], 4);
    let done = node.call("delete_documents", delete(json!({"expected_count": 3})));
    assert_eq!((&done["matched"], &done["deleted"]), (&json!(3), &json!(3)));
    assert_eq!(
        texts(&node.call("list_documents", json!({"collection": "birds"}))["documents"], "id"),
        ["birds/swallow"]
    );
    assert_eq!(node.found("birds", "water", "hybrid"), ["swallow"]);
}

#[test]
fn deleted_documents_are_found_nowhere() {
    let mut node = TestNode::start();
    birds(&node);
    let gone = node.call("delete_documents", json!({"ids": ["birds/heron", "birds/swallow"]}));
    assert_eq!(gone["deleted"], 2);
    for round in ["before a crash", "after it"] {
        node.catch_up();
        for mode in MODES {
            let mut found = node.found("birds", "which bird lives at the water", mode);
            found.sort();
            assert_eq!(found, ["kingfisher", "mute-swan"], "{mode}, {round}");
        }
        node.refusal("fetch", json!({"id": "birds/heron"}));
        node.refusal("find_similar", json!({"id": "birds/heron"}));
        node.kill();
        node.restart();
    }
}

#[test]
fn filters_hold_in_every_mode() {
    let node = TestNode::start();
    birds(&node);
    for (filter, expected) in [
        (json!({"family": "Ardeidae"}), &["heron"][..]),
        (json!({"family": {"ne": "Ardeidae"}}), &["kingfisher", "mute-swan", "swallow"]),
        (json!({"family": {"in": ["Ardeidae", "Anatidae"]}}), &["heron", "mute-swan"]),
        (json!({"family": {"nin": ["Ardeidae", "Anatidae"]}}), &["kingfisher", "swallow"]),
        (json!({"diet": "fish"}), &["heron", "kingfisher"]),
        (json!({"migrates": true}), &["swallow"]),
        (json!({"length_cm": {"gte": 18, "lt": 100}}), &["heron", "swallow"]),
        (json!({"length_cm": 18.5}), &["swallow"]),
        (json!({"length_cm": {"gt": 94}}), &["mute-swan"]),
        (json!({"seen.by": "Ana"}), &["heron", "mute-swan"]),
        (json!({"seen.on": {"gte": "2025-01-01"}}), &["kingfisher", "mute-swan"]),
        (json!({"seen.on": {"exists": false}}), &["swallow"]),
        (json!({"seen.by": "Ana", "length_cm": {"lt": 100}}), &["heron"]),
        (json!({"or": [{"migrates": true}, {"diet": "plants"}]}), &["mute-swan", "swallow"]),
        (json!({"not": {"diet": "fish"}}), &["mute-swan", "swallow"]),
        (json!({"and": [{"diet": "fish"}, {"not": {"family": "Ardeidae"}}]}), &["kingfisher"]),
        (json!({"colour": "blue"}), &[]),
        (json!({}), &["heron", "kingfisher", "mute-swan", "swallow"]),
    ] {
        for mode in MODES {
            let arguments =
                json!({"query": "bird at the water", "collections": ["birds"], "mode": mode, "filter": filter});
            let answer = node.call("search", arguments);
            let mut found = documents(&answer);
            found.sort();
            assert_eq!(found, expected, "{filter}, {mode}");
        }
    }
}

#[test]
fn a_search_says_what_it_searched() {
    let node = TestNode::start();
    birds(&node);
    write(&node, json!([{"id": "a", "text": "Water the plants."}]));
    let everywhere = node.call("search", json!({"query": "water", "include": ["searched"]}));
    assert_eq!(everywhere["searched"]["collections"], json!(["birds", "notes"]));
    assert_eq!(documents(&everywhere).len(), 5);
    let filter = json!({"diet": "fish"});
    let one = node
        .call("search", json!({"query": "water", "collections": "birds", "filter": filter, "include": ["searched"]}));
    assert_eq!((&one["searched"]["collections"], &one["searched"]["filter"]), (&json!(["birds"]), &filter));
    assert_eq!(one["searched"]["mode_used"], "hybrid");
}

#[test]
fn hits_carry_what_a_citation_needs() {
    let node = TestNode::start();
    let text = "# Pump\n\nIt moves water.\n\n## Care\n\n### Weekly\n\nOil the bearing with SAE 30.\n\n## Storage\n\nKeep it dry.\n";
    let given = json!([{"id": "guides/pump.md", "url": "https://example.org/pump", "text": text, "metadata": {"site": "north"}}]);
    write(&node, given);
    let lean = &node.call("search", json!({"query": "which oil for the bearing", "limit": 1}))["results"][0];
    let expected = json!({
        "id": "notes/guides/pump.md#0", "title": "Pump", "url": "https://example.org/pump",
        "text": text.trim_start_matches("# Pump").trim(),
    });
    assert_eq!(*lean, expected, "nothing else by default");
    let all = json!(["scores", "source", "metadata", "dates", "links"]);
    let asked = json!({"query": "which oil for the bearing", "limit": 1, "include": all});
    let hit = &node.call("search", asked)["results"][0];
    assert_says(hit["text"].as_str().expect("text"), &["Oil the bearing with SAE 30."]);
    assert_eq!((&hit["source"]["collection"], &hit["source"]["document"]), (&json!("notes"), &json!("guides/pump.md")));
    assert_says(hit["uri"].as_str().expect("an address"), &["ctx://", "/notes/guides/pump.md#0"]);
    assert_eq!(hit["metadata"], json!({"site": "north"}));
    let byte = |end: &str| hit["source"][end].as_u64().expect("an offset") as usize;
    assert_says(&text[byte("byte_start")..byte("byte_end")], &["Oil the bearing with SAE 30."]);
    assert!(hit["updated_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{hit}");
    let score = hit["score"]["fused"].as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&score), "{score}");
}

#[test]
fn headings_lead_to_their_passages() {
    let node = TestNode::start();
    let filler =
        "This paragraph is about the general upkeep of machines in the hall and fills the passage with words. "
            .repeat(12);
    let text = format!(
        "# Manual\n\n## Boiler\n\n{filler}\n\n## Compressor\n\n### Draining\n\n{filler}\n\n## Crane\n\n{filler}\n"
    );
    write(&node, json!([{"id": "manual.md", "text": text}]));
    for mode in MODES {
        let arguments = json!({"query": "draining the compressor", "mode": mode, "limit": 1});
        let title = node.call("search", arguments)["results"][0]["title"].clone();
        assert_eq!(title, "Manual › Compressor › Draining", "{mode}");
    }
}

#[test]
fn similar_documents_are_neighbours_in_meaning_and_never_itself() {
    let node = TestNode::start();
    birds(&node);
    write(&node, json!([{"id": "tax", "text": "The tax office accepts declarations until the end of July."}]));
    let all = json!({"id": "birds/heron", "collections": ["birds", "notes"], "limit": 10});
    let similar = documents(&node.call("find_similar", all));
    assert!(!similar.contains(&"heron".to_owned()), "{similar:?}");
    assert_eq!(similar.last().map(String::as_str), Some("tax"), "what is about something else comes last");
    let own = documents(&node.call("find_similar", json!({"id": "birds/heron"})));
    assert!(!own.contains(&"tax".to_owned()), "its own collection unless told otherwise");
    let filtered = json!({"id": "birds/heron", "filter": {"migrates": true}});
    assert_eq!(documents(&node.call("find_similar", filtered)), ["swallow"]);
}

#[test]
fn a_fetch_gives_back_what_was_written() {
    let node = TestNode::start();
    let text = "# Pump\n\nIt moves water.\n\n```\ncode stays\n   as it is\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |";
    write(&node, json!([{"id": "guides/pump.md", "text": text, "metadata": {"n": 1}}]));
    let hit = node.call("search", json!({"query": "moves water"}))["results"][0]["id"].clone();
    for id in [json!("notes/guides/pump.md"), hit] {
        let document = node.call("fetch", json!({ "id": id }));
        assert_eq!(document, json!({"id": id, "title": "Pump", "text": text}), "nothing else by default");
        let more = node.call("fetch", json!({"id": id, "include": ["metadata", "source", "dates"]}));
        assert_eq!((&more["metadata"], &more["version"]), (&json!({"n": 1}), &json!(1)));
        assert_eq!((&more["collection"], &more["passages_total"]), (&json!("notes"), &json!(1)));
    }
    let own = node.call("fetch", json!({"id": "guides/pump.md", "collection": "notes"}));
    assert_eq!(own["text"], text, "by the document's own id within its collection");
}

#[test]
fn a_long_document_is_fetched_in_pieces_that_fit_together() {
    let node = TestNode::start();
    let paragraphs: Vec<String> = (0..200)
        .map(|n| format!("Paragraph {n} tells that valve number {n} is opened by hand after the check."))
        .collect();
    let text = paragraphs.join("\n\n");
    write(&node, json!([{"id": "long", "text": text}]));
    let (mut pieces, mut arguments) = (Vec::new(), json!({"id": "notes/long", "max_tokens": 500}));
    loop {
        let piece = node.call("fetch", arguments.clone());
        assert!(
            piece["text"].as_str().expect("text").len() <= 500 * 4,
            "within the budget, which counts four characters as a token at least"
        );
        pieces.push(piece["text"].as_str().expect("text").to_owned());
        match piece.get("next_cursor") {
            Some(cursor) => arguments["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert!(pieces.len() > 3);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&pieces.join("\n\n")), words(&text));
}

#[test]
fn a_passage_is_fetched_with_what_surrounds_it() {
    let node = TestNode::start();
    let sections: Vec<String> = (0..30)
        .map(|n| {
            format!(
                "## Section {n}\n\n{}",
                format!("Valve {n} is opened by hand after the check of day {n}. ").repeat(10)
            )
        })
        .collect();
    write(&node, json!([{"id": "manual", "text": sections.join("\n\n")}]));
    let hit = node.call("search", json!({"query": "Section 15 valve 15 day 15", "mode": "lexical", "limit": 1}));
    let hit = &hit["results"][0];
    assert_says(hit["text"].as_str().expect("text"), &["Valve 15 "]);
    let around = node.call("fetch", json!({"id": hit["id"]}));
    let text = around["text"].as_str().expect("text");
    assert_eq!(text, sections[15].trim_end(), "its section, all of it and nothing else");
    assert_eq!((&around["before"]["title"], &around["after"]["title"]), (&json!("Section 14"), &json!("Section 16")));
    assert_eq!((&around["title"], around.get("truncated")), (&json!("manual › Section 15"), None));
    // What lies around it can be fetched by the ids that are given.
    let before = node.call("fetch", json!({"id": around["before"]["id"]}));
    assert_says(before["text"].as_str().expect("text"), &["Valve 14 "]);
    let small = node.call("fetch", json!({"id": hit["id"], "max_tokens": 100}));
    assert_eq!(small["truncated"], true);
    assert!(small["text"].as_str().expect("text").len() < text.len(), "{small}");
}

#[test]
fn a_passage_is_found_by_the_introduction_of_its_document_too() {
    let node = TestNode::start();
    let page = |about: &str, more: &str| {
        let body = "Bricks are stacked by hand and burn for a day and a night. ".repeat(20);
        format!(
            "This page tells what there is about the {about}.\n\n{body}\n\n## Fan\n\nReplace the fan when it hums. {more}"
        )
    };
    let remark = "The belt is kept, and the cover goes back on as it was before with all of its screws.";
    write(
        &node,
        json!([
            {"id": "kiln", "title": "A", "text": page("tunnel kiln", &remark.repeat(5))},
            {"id": "dryer", "title": "B", "text": page("drying room", &remark.repeat(3))},
        ]),
    );
    let answer = node.call("search", json!({"query": "tunnel kiln fan hums", "mode": "lexical", "limit": 1}));
    assert_says(answer["results"][0]["id"].as_str().expect("id"), &["notes/kiln#"]);
    assert_says(answer["results"][0]["text"].as_str().expect("text"), &["Replace the fan"]);
}

#[test]
fn a_document_with_a_title_and_no_text_is_found() {
    let node = TestNode::start();
    let answer = node.call(
        "add_documents",
        json!({"collection": "notes", "documents": [
            {"id": "book", "title": "The care of tunnel kilns", "text": ""},
            {"id": "nothing", "text": ""},
        ]}),
    );
    assert_eq!((&answer["created"], &answer["failed"]), (&json!(1), &json!(1)), "{answer}");
    for mode in MODES {
        assert_eq!(node.found("notes", "tunnel kilns", mode), ["book"], "{mode}");
    }
}

#[test]
fn expired_documents_are_not_there() {
    let mut node = TestNode::start();
    let given = json!([
        {"id": "stale", "text": "The notice about the water outage.", "expires_at": "2020-01-01T00:00:00Z"},
        {"id": "fresh", "text": "The notice about the water outage, too.", "expires_at": "2999-01-01T00:00:00+02:00"},
    ]);
    let written = write(&node, given);
    assert_says(outcomes(&written)[0]["warning"].as_str().expect("a warning"), &["expired at 2020-01-01", "not shown"]);
    assert!(outcomes(&written)[1].get("warning").is_none(), "{written}");
    assert_says(&node.refusal("fetch", json!({"id": "notes/stale"})), &["notes/stale", "expired at 2020-01-01"]);
    for round in ["at once", "after a restart"] {
        node.catch_up();
        for mode in MODES {
            assert_eq!(node.found("notes", "water outage", mode), ["fresh"], "{mode}, {round}");
        }
        node.refusal("fetch", json!({"id": "notes/stale"}));
        let listed = node.call("list_documents", json!({"collection": "notes"}));
        assert_eq!(texts(&listed["documents"], "id"), ["notes/fresh"], "{round}");
        node.stop();
        node.restart();
    }
}

#[test]
fn an_answer_stays_within_its_budget_and_says_so() {
    let node = TestNode::start();
    let text = |n: usize| format!("The turbine report of month {n} speaks about blades, bearings and oil. ").repeat(12);
    let many: Vec<Value> = (0..20).map(|n| json!({"id": n.to_string(), "text": text(n)})).collect();
    write(&node, json!(many));
    let length = |answer: &Value| texts_length(answer);
    let small = node.call("search", json!({"query": "turbine report", "limit": 20, "max_tokens": 600}));
    assert_eq!(small["truncated"], true);
    assert!(small.to_string().len() <= 600 * 4 && list(&small["results"]).len() > 3, "{small}");
    let ids = node.call("search", json!({"query": "turbine report", "limit": 20, "detail": "ids", "max_tokens": 6000}));
    assert_eq!((list(&ids["results"]).len(), length(&ids)), (20, 0));
    let snippets =
        node.call("search", json!({"query": "turbine report", "limit": 20, "detail": "snippet", "max_tokens": 6000}));
    assert_eq!(list(&snippets["results"]).len(), 20);
    for result in list(&snippets["results"]) {
        assert!((1..=600).contains(&result["text"].as_str().expect("text").len()), "{result}");
    }
}

fn texts_length(answer: &Value) -> usize {
    list(&answer["results"]).iter().filter_map(|result| result["text"].as_str()).map(str::len).sum()
}

#[test]
fn equal_questions_get_equal_answers_until_a_write() {
    let node = TestNode::start();
    birds(&node);
    let ask = || node.call("search", json!({"query": "fish", "collections": ["birds"], "mode": "lexical"}));
    let first = ask();
    assert_eq!(ask(), first);
    node.add("birds", json!([{"id": "osprey", "text": "The osprey takes fish with its feet: fish, and only fish."}]));
    assert!(documents(&ask()).contains(&"osprey".to_owned()));
}

#[test]
fn documents_can_be_asked_for_by_time() {
    let node = TestNode::start();
    birds(&node);
    let ask = |bounds: Value| {
        let mut arguments = json!({"query": "water", "collections": ["birds"]});
        arguments.as_object_mut().expect("an object").extend(bounds.as_object().expect("an object").clone());
        documents(&node.call("search", arguments)).len()
    };
    assert_eq!(ask(json!({"after": "2020-01-01T00:00:00Z"})), 4);
    assert_eq!(ask(json!({"before": "2020-01-01T00:00:00Z"})), 0);
    assert_eq!(ask(json!({"after": "2999-01-01T00:00:00Z"})), 0);
    assert_eq!(ask(json!({"after": "2020-01-01T00:00:00Z", "before": "2999-01-01T00:00:00Z"})), 4);
}

#[test]
fn a_file_is_taken_as_base64() {
    let node = TestNode::start();
    let file = pdf::write(&[&pdf::page_about("anchors"), &pdf::page_about("sails")]);
    let content = base64::prelude::BASE64_STANDARD.encode(file);
    write(&node, json!([{"id": "boat", "content_base64": content, "filename": "boat.pdf"}]));
    let asked = json!({"query": "sails", "mode": "lexical", "include": ["source"]});
    let hit = &node.call("search", asked)["results"][0];
    assert_eq!((&hit["source"]["document"], &hit["source"]["page"]), (&json!("boat"), &json!(2)));
}

#[test]
fn collections_come_and_go() {
    let node = TestNode::start();
    let made = node.call("create_collection", json!({"name": "birds", "description": "What flies here"}));
    assert_eq!(made["status"], "created");
    assert_says(&node.refusal("create_collection", json!({"name": "birds"})), &["birds", "exists"]);
    birds(&node);
    let listed = node.call("list_collections", json!({}));
    assert_eq!(texts(&listed["collections"], "description"), ["What flies here"]);
    let described = node.call("describe_collection", json!({"collection": "birds"}));
    assert_eq!((&described["documents"], &described["passages"]), (&json!(4), &json!(4)));
    let kinds: Vec<(String, String)> =
        texts(&described["fields"], "name").into_iter().zip(texts(&described["fields"], "type")).collect();
    for (name, kind) in [("family", "string"), ("migrates", "boolean"), ("seen.by", "string"), ("diet", "string")] {
        assert!(kinds.contains(&(name.to_owned(), kind.to_owned())), "{name}: {kinds:?}");
    }
    let gone = node.call("delete_collection", json!({"name": "birds", "confirm": "birds"}));
    assert_eq!((&gone["status"], &gone["documents"]), (&json!("deleted"), &json!(4)));
    assert_eq!(list(&node.call("list_collections", json!({}))["collections"]).len(), 0);
    assert_eq!(documents(&node.call("search", json!({"query": "heron"}))), [""; 0]);
    node.add("birds", json!([{"id": "wren", "text": "The wren is small and loud."}]));
    assert_eq!(node.found("birds", "heron wren", "hybrid"), ["wren"], "a new collection of an old name is empty");
}

#[test]
fn documents_are_listed_in_order_page_by_page() {
    let node = TestNode::start();
    let many: Vec<Value> =
        (0..25).map(|n| json!({"id": format!("part-{n:02}"), "text": format!("number {n}")})).collect();
    write(&node, json!(many));
    write(&node, json!([{"id": "other", "text": "something else"}]));
    let (mut ids, mut arguments) = (Vec::new(), json!({"collection": "notes", "prefix": "part-", "limit": 10}));
    let mut pages = 0;
    loop {
        let page = node.call("list_documents", arguments.clone());
        ids.extend(texts(&page["documents"], "id"));
        pages += 1;
        match page.get("next_cursor") {
            Some(cursor) => arguments["cursor"] = cursor.clone(),
            None => break,
        }
    }
    let expected: Vec<String> = (0..25).map(|n| format!("notes/part-{n:02}")).collect();
    assert_eq!((pages, ids), (3, expected));
}

#[test]
fn a_source_that_is_the_prefix_itself_is_listed_with_those_below_it() {
    let node = TestNode::start();
    let sources = format!("{}/v1/collections/files/sources", node.base());
    for name in ["pre", "pre%2Fa.md", "pre%2Fb.md", "other"] {
        let answer = node.request("POST", &format!("{sources}/{name}"), &[], Some(b"The pump is blue."));
        assert_eq!(answer.status, 200, "{name}");
    }
    let listed = |query: &str| -> Vec<String> {
        let answer = node.request("GET", &format!("{sources}?{query}"), &[], None).json();
        let names = list(&answer["sources"]).iter().map(|source| source["source"].as_str().expect("a name").to_owned());
        names.collect()
    };
    assert_eq!(listed("prefix=pre"), ["pre", "pre/a.md", "pre/b.md"]);
    assert_eq!(listed("prefix=pre&limit=1"), ["pre"]);
    assert_eq!(listed("prefix=pre&limit=1&after=pre"), ["pre/a.md"]);
    assert_eq!(listed("prefix=pre&after=other"), ["pre", "pre/a.md", "pre/b.md"]);
    assert_eq!(listed("prefix=pre%2F&after=pre"), ["pre/a.md", "pre/b.md"]);
    assert_eq!(listed(""), ["other", "pre", "pre/a.md", "pre/b.md"]);
}
