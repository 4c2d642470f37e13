//! Names and signs are found as they are written, and words whatever their language.

use serde_json::{Value, json};

use crate::node::TestNode;

/// Asserts which document is first, by words alone and with the meaning.
#[track_caller]
fn first(node: &TestNode, collection: &str, query: &str, expected: &str) {
    for mode in ["lexical", "hybrid"] {
        let found = node.found(collection, query, mode);
        assert_eq!(found.first().map(String::as_str), Some(expected), "{query}, {mode}: {found:?}");
    }
}

#[test]
fn a_name_with_signs_is_another_one_than_without() {
    let node = TestNode::start();
    node.add(
        "names",
        json!([
            {"id": "cpp", "text": "The plugin is written in C++ and needs a compiler."},
            {"id": "csharp", "text": "The plugin is written in C# and needs a compiler."},
            {"id": "c", "text": "The plugin is written in C and needs a compiler."},
            {"id": "vitamin", "text": "Vitamin C for the crew."},
            {"id": "no-verify", "text": "The option --no-verify switches the checks off before the commit is made."},
            {"id": "verify", "text": "Use the option --verify to check."},
        ]),
    );
    for (query, expected) in [("C++", "cpp"), ("C#", "csharp"), ("--no-verify", "no-verify"), ("--verify", "verify")] {
        first(&node, "names", query, expected);
    }
}

#[test]
fn names_and_numbers_are_found_in_their_other_spellings() {
    let node = TestNode::start();
    node.add(
        "spellings",
        json!([
            {"id": "functions", "text": "Function parseHTMLResponse reads what came."},
            {"id": "part", "text": "The seal KX-9 of pump P7 is in drawer 4."},
            {"id": "version", "text": "The fault is mended in v1.10.2 of the firmware."},
            {"id": "passages", "text": "A small board takes 100,000 passages."},
            {"id": "power", "text": "The heater takes 10kW at full load."},
            {"id": "ligatures", "text": "The oﬃce ﬁle is in the ﬂoor cabinet."},
            {"id": "wide", "text": "Ｐａｒｔ　Ｎｏ　ＱＺ８"},
            {"id": "raised", "text": "H₂O and E = mc²"},
            {"id": "french", "text": "Le cœur de la vanne, une œuvre."},
        ]),
    );
    for (query, expected) in [
        ("html", "functions"),
        ("response", "functions"),
        ("KX9", "part"),
        ("kx-9", "part"),
        ("1.10.2", "version"),
        ("v1.10", "version"),
        ("100000", "passages"),
        ("100 000 passages", "passages"),
        ("10 kW", "power"),
        ("office", "ligatures"),
        ("floor", "ligatures"),
        ("QZ8", "wide"),
        ("H2O", "raised"),
        ("mc2", "raised"),
        ("coeur", "french"),
        ("oeuvre", "french"),
    ] {
        first(&node, "spellings", query, expected);
    }
}

#[test]
fn a_word_is_found_as_it_stands_whatever_the_share_of_its_language() {
    let node = TestNode::start();
    let mut documents: Vec<Value> = (0..200)
        .map(|number| {
            json!({"id": format!("e{number}"),
                "text": format!("The relay number {number} in the cabinet was inspected by the crew and it is fine.")})
        })
        .collect();
    let texts = [
        ("fr", "Les pompes du deuxième étage sont cassées et les vannes restent fermées jusqu’à la réparation."),
        ("el", "Η αντλία του δευτέρου ορόφου είναι χαλασμένη και η βαλβίδα παραμένει κλειστή μέχρι την επισκευή."),
        ("ru", "Насосы второго этажа сломаны и клапаны остаются закрытыми до ремонта."),
        ("de", "Die Pumpen des zweiten Stockwerks sind defekt und die Ventile bleiben bis zur Reparatur geschlossen."),
    ];
    documents.extend(texts.map(|(id, text)| json!({"id": id, "text": text})));
    node.add("mixed", json!(documents));
    for (id, text) in texts {
        for word in text.split([' ', '’', '.']).filter(|word| word.chars().count() > 2) {
            let found = node.found("mixed", word, "lexical");
            assert!(found.iter().any(|found| found == id), "{word}: {found:?}");
        }
    }
}

#[test]
fn what_has_no_words_finds_nothing() {
    let node = TestNode::start();
    node.add(
        "signs",
        json!([
            {"id": "rocket", "text": "Deploy went fine 🚀 and the cat slept."},
            {"id": "seal", "text": "A seal of a pump."},
            {"id": "fuse", "text": "备用保险丝在黄色盒子里。"},
        ]),
    );
    let found = |query: &str, mode: &str| {
        node.call("search", json!({"query": query, "collections": ["signs"], "mode": mode}))["results"].clone()
    };
    for mode in ["lexical", "hybrid", "dense"] {
        for query in ["?", "\"\"", "…", "🐈"] {
            assert_eq!(found(query, mode), json!([]), "{query}, {mode}");
        }
    }
    for mode in ["lexical", "hybrid"] {
        let found = found("🚀", mode);
        assert_eq!((found.as_array().map(Vec::len), &found[0]["id"]), (Some(1), &json!("signs/rocket#0")));
    }
}

#[test]
fn a_word_as_it_is_asked_for_counts_more_than_its_other_forms() {
    let node = TestNode::start();
    node.add(
        "forms",
        json!([
            {"id": "operation", "text": "The operation of the crane takes two people."},
            {"id": "operators", "text": "The operators of the crane have two keys."},
            {"id": "operating", "text": "While operating the crane wear a helmet."},
        ]),
    );
    for (query, expected) in [("operators", "operators"), ("operating", "operating"), ("operation", "operation")] {
        first(&node, "forms", query, expected);
    }
}
