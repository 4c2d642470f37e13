//! Documents are read as people see them: what other programs write, added as a folder and asked for.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::node::{TestNode, json_of, list, stderr, texts};

/// A node to which a folder `docs` with these files was added.
struct Library {
    node: TestNode,
    report: Value,
}

impl Library {
    fn of(files: &[(&str, &[u8])]) -> Self {
        let node = TestNode::start();
        let folder = node.scratch().join("docs");
        for (name, content) in files {
            let path: PathBuf = folder.join(name);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("created");
            fs::write(path, content).expect("written");
        }
        let output = node.cairn(&["--json", "add", folder.to_str().expect("UTF-8"), "-c", "docs"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let report = json_of(&output);
        Self { node, report }
    }

    fn file(&self, source: &str) -> &Value {
        let found = list(&self.report["files"]).iter().find(|file| file["source"] == source);
        found.unwrap_or_else(|| panic!("{source} is not in {}", self.report))
    }

    fn text(&self, id: &str) -> String {
        self.node.call("fetch", json!({"id": format!("docs/{id}")}))["text"].as_str().expect("a text").to_owned()
    }

    fn first(&self, query: &str) -> Value {
        let answer = self.node.call(
            "search",
            json!({"query": query, "mode": "lexical", "limit": 1, "detail": "full", "include": ["source"]}),
        );
        list(&answer["results"]).first().cloned().unwrap_or_default()
    }

    /// Titles of the documents that a filter admits.
    fn titles(&self, filter: Value) -> Vec<String> {
        texts(&self.node.call("list_documents", json!({"collection": "docs", "filter": filter}))["documents"], "title")
    }
}

#[test]
fn a_column_of_prices_is_numbers_for_filters_and_stays_as_it_is_written() {
    let library = Library::of(&[
        ("parts.csv", b"id,name,price\nb7,Bolt,9.99\nn8,Nut,12.50\nr9,Ring,3.00\ns1,Seal,100.00\n"),
        (
            "teile.csv",
            "name;preis\nD\u{fc}se;12,50\nR\u{f6}hre;1.400,00\n"
                .chars()
                .map(|c| c as u8)
                .collect::<Vec<_>>()
                .as_slice(),
        ),
    ]);
    assert_eq!(library.titles(json!({"price": {"gte": 5}})), ["Bolt", "Nut", "Seal"]);
    assert_eq!(library.titles(json!({"preis": {"gte": 100}})), ["Röhre"]);
    assert_eq!(library.text("docs/parts.csv#n8"), "price: 12.50");
    let fields = library.node.call("describe_collection", json!({"collection": "docs"}))["fields"].clone();
    let price = list(&fields).iter().find(|field| field["name"] == "price").expect("a field");
    assert_eq!(price["type"], "number", "{fields}");
    let warning = library.file("docs/teile.csv")["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("windows-1252"), "{warning}");
}

/// A table's header stands above each of its parts. Its words are no commoner for that: a page that is about one of them is
/// found as well as without the table, and a row by the names of its column and its own.
#[test]
fn the_header_of_a_divided_table_makes_no_word_common() {
    let rows: String = (0..150).map(|n| format!("| part {n} | {} | bar |\n", n * 3)).collect();
    let table = format!("# Parts\n\n| Name | Limit | Unit |\n|---|---|---|\n{rows}");
    let library = Library::of(&[
        ("parts.md", table.as_bytes()),
        ("crane.md", b"# Crane\n\nThe limit is eleven tonnes while the tide is low.\n"),
        ("tide.md", b"# Tides\n\nThe tide is low twice a day, and the tide tables hang beside the door.\n"),
    ]);
    assert_eq!(library.first("limit tide")["source"]["document"], "docs/crane.md");
    assert_eq!(library.first("limit")["source"]["document"], "docs/crane.md");
    let found = library.first("limit of part 140");
    assert!(found["text"].as_str().is_some_and(|text| text.contains("| part 140 |")), "{found}");
}

#[test]
fn a_divided_table_is_shown_below_its_header_and_read_back_as_it_was() {
    let rows: String = (0..150).map(|n| format!("| part {n} | {} | bar |\n", n * 3)).collect();
    let table = format!("# Limits\n\n| Name | Limit | Unit |\n|---|---|---|\n{rows}");
    let library = Library::of(&[("limits.md", table.as_bytes())]);
    let found = library.first("part 140");
    let text = found["text"].as_str().expect("a text");
    assert!(text.starts_with("| Name | Limit | Unit |\n|---|---|---|\n| part ") && text.contains("part 140"), "{text}");
    assert_eq!(library.text("docs/limits.md"), table.trim_end());
    let (start, end) = (found["source"]["byte_start"].as_u64(), found["source"]["byte_end"].as_u64());
    let range = start.expect("a place") as usize..end.expect("a place") as usize;
    assert!(text.ends_with(&table[range.clone()]) && table[range].starts_with("| part "), "{found}");
}

#[test]
fn saved_pages_mail_notebooks_and_drawings_are_read_and_their_parts_left_out() {
    let page = "<!-- saved from url=(0030)https://site.example/pumps.html -->\n<html><head><title>Pumps</title></head><body>\
                <div id=cookie-banner>We use crumbs <button>Accept all</button></div><main><p>A pump lifts water.</p></main>\
                <footer>Imprint of the firm</footer></body></html>";
    let picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ".repeat(300);
    let archive = "Snapshot-Content-Location: https://site.example/v\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=x\r\n\r\n\
                   --x\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<title>Valves</title><p>A valve shuts =C3=B6il off.</p>\r\n\
                   --x\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--x--\r\n";
    let mail = "From: Ana <ana@site.example>\r\nSubject: Gasket\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Content-Transfer-Encoding: base64\r\n\r\nVGhlIGdhc2tldCBsZWFrcy4=\r\n";
    let notebook = json!({"nbformat": 4, "metadata": {}, "cells": [
        {"cell_type": "markdown", "source": "# Wear of bearings"},
        {"cell_type": "code", "source": ["def wear(x):\n", "    return x"], "outputs": [
            {"output_type": "display_data", "data": {"image/png": picture}}]},
    ]});
    let drawing = b"<svg><title>Plan</title><text>Tank of hall two</text></svg>";
    let library = Library::of(&[
        ("Pumps.html", page.as_bytes()),
        ("Pumps_files/app.js", b"function crumbs() {\n  return 1\n}\n"),
        ("Pumps_files/frame.html", b"<p>advertisement"),
        ("own_files/notes.md", b"No page of that name is here."),
        ("valves.mhtml", archive.as_bytes()),
        ("gasket.eml", mail.as_bytes()),
        ("wear.ipynb", notebook.to_string().as_bytes()),
        ("plan.svg", drawing),
        ("icon.svg", b"<svg><path d='M0 0'/></svg>"),
        ("lease.docx", b"PK\x03\x04\x14\0\x06\0"),
        ("tsconfig.json", b"{\n  // as strict as can be\n  \"strict\": true,\n}\n"),
    ]);
    for source in ["Pumps_files/app.js", "Pumps_files/frame.html", "icon.svg", "lease.docx"] {
        assert_eq!(library.file(&format!("docs/{source}"))["status"], "skipped", "{source}");
    }
    assert_eq!((&library.report["created"], &library.report["failed"]), (&json!(7), &json!(0)), "{}", library.report);
    assert_eq!(library.text("docs/Pumps.html"), "A pump lifts water.");
    let fetched = library.node.call("fetch", json!({"id": "docs/docs/Pumps.html"}));
    assert_eq!(fetched["url"], "https://site.example/pumps.html");
    assert_eq!(library.text("docs/valves.mhtml"), "A valve shuts öil off.");
    assert_eq!(library.text("docs/gasket.eml"), "From: Ana <ana@site.example>\n\nThe gasket leaks.");
    assert_eq!(library.text("docs/wear.ipynb"), "# Wear of bearings\n\n```python\ndef wear(x):\n    return x\n```");
    assert_eq!(library.text("docs/plan.svg"), "Plan\nTank of hall two");
    assert!(library.text("docs/tsconfig.json").contains("// as strict as can be"));
    assert_eq!(library.report["passages"], 7, "each is one passage: {}", library.report);
}

#[test]
fn front_matter_of_every_notation_gives_title_and_metadata() {
    let library = Library::of(&[
        ("toml.md", b"+++\ntitle = \"Boiler\"\n[extra]\nteam = \"steam\"\n+++\n\nLight it.\n"),
        ("odd.md", b"---\ntitle: *Kiln* notes\nteam: heat\n---\n\nFire it.\n"),
        ("rule.md", b"---\n\nA page that begins with a rule.\n\n# Lathe\n\nTurn it.\n\n---\n\nEnd.\n"),
    ]);
    assert_eq!(library.titles(json!({"extra.team": "steam"})), ["Boiler"]);
    assert_eq!(library.titles(json!({"team": "heat"})), ["*Kiln* notes"]);
    assert_eq!(library.file("docs/rule.md").get("warnings"), None);
    assert_eq!(library.first("turn it")["title"], "Lathe");
}
