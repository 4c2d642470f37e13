//! REST: documents as resources, problems, jobs, and a description that the node keeps to.

use serde_json::{Value, json};

use crate::node::{Answer, TestNode, assert_says, json_of, run_on};

const JSON: (&str, &str) = ("content-type", "application/json");

fn ask(node: &TestNode, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let body = (!body.is_empty() || method == "POST").then_some(body.as_bytes());
    node.request(method, &format!("{}{path}", node.base()), headers, body)
}

/// What a browser looks at before it lets a page read an answer.
fn cors(answer: &Answer) -> [&str; 2] {
    ["access-control-allow-origin", "access-control-allow-methods"].map(|name| answer.header(name))
}

#[test]
fn pages_of_listed_origins_may_use_the_node() {
    let origins = r#"["https://app.example", "http://tool.example:3000"]"#;
    let node = TestNode::with(&[("CAIRN_SERVER_CORS_ORIGINS", origins)]);
    let preflight = |origin: &str| {
        let asks =
            [("access-control-request-method", "PUT"), ("access-control-request-headers", "authorization, if-match")];
        ask(&node, "OPTIONS", "/v1/collections/a/documents/b", &[&asks[..], &[("origin", origin)]].concat(), "")
    };
    let app = ("origin", "https://app.example");
    let allowed = preflight(app.1);
    assert_eq!((allowed.status, cors(&allowed)[0]), (200, app.1));
    assert!(cors(&allowed)[1].contains("PUT"), "{:?}", allowed.headers);
    assert_eq!(allowed.header("access-control-allow-headers"), "authorization, if-match");
    assert!(allowed.header("vary").contains("origin"), "{:?}", allowed.headers);
    let other = preflight("https://other.example");
    assert_eq!((other.status, cors(&other)[0]), (403, ""));

    let markdown = ("content-type", "text/markdown");
    let put = ask(&node, "PUT", "/v1/collections/a/documents/b", &[markdown, app], "# Pump\n\nThe pump is blue.");
    assert_eq!((put.status, cors(&put)[0]), (201, app.1), "{}", put.text);
    assert!(put.header("access-control-expose-headers").contains("etag"), "{:?}", put.headers);
    // A plain search, which takes the short way, and a refusal, which its page has to be able to read.
    let search = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "search", "arguments": {"query": "pump"}}});
    let accept = ("accept", "application/json, text/event-stream");
    let version = ("mcp-protocol-version", "2025-11-25");
    let found = ask(&node, "POST", "/mcp", &[JSON, accept, version, app], &search.to_string());
    assert_says(&found.text, &["The pump is blue."]);
    assert_eq!(cors(&found)[0], app.1);
    let missing = ask(&node, "GET", "/v1/collections/a/documents/none", &[app], "");
    assert_eq!((missing.status, cors(&missing)[0]), (404, app.1));
    // Another page's request is refused, and a client that is no page is told nothing of pages.
    let refused = ask(&node, "GET", "/v1/status", &[("origin", "https://other.example")], "");
    assert_eq!((refused.status, cors(&refused)[0]), (403, ""));
    assert_says(&refused.text, &["server.cors_origins"]);
    assert_eq!(cors(&ask(&node, "GET", "/v1/status", &[], ""))[0], "");
    // The same without the setting: no page may read.
    let plain = TestNode::start();
    assert_eq!(cors(&ask(&plain, "GET", "/v1/status", &[("origin", "http://localhost:3000")], ""))[0], "");
}

#[test]
fn a_document_is_a_resource_with_versions() {
    let node = TestNode::start();
    let path = "/v1/collections/notes/documents/pumps/p1.md";
    let put = |headers: &[(&str, &str)], text: &str| {
        ask(
            &node,
            "PUT",
            path,
            &[headers, &[JSON]].concat(),
            &json!({"text": text, "metadata": {"site": "north"}}).to_string(),
        )
    };
    assert_eq!(put(&[("if-match", "*")], "none").status, 412);
    let made = put(&[("if-none-match", "*")], "# Pump\n\nThe pump is blue.");
    assert_eq!((made.status, made.header("location")), (201, path), "{}", made.text);
    // The collection's number, and the document's version in it.
    let collection = made.header("etag").strip_prefix('"').and_then(|tag| tag.strip_suffix("-1\"")).expect("version 1");
    let tag = |version: u64| format!("\"{collection}-{version}\"");
    assert_eq!(put(&[("if-none-match", "*")], "again").status, 412);
    assert_eq!(put(&[("if-match", "\"7\"")], "another").status, 412);
    let changed = put(&[("if-match", "\"1\"")], "# Pump\n\nThe pump is red.");
    assert_eq!((changed.status, changed.header("etag"), &changed.json()["status"]), (200, &*tag(2), &json!("updated")));

    let got = ask(&node, "GET", path, &[], "");
    let document = got.json();
    assert_eq!((got.status, got.header("etag")), (200, &*tag(2)));
    assert_eq!((&document["id"], &document["metadata"]["site"]), (&json!("pumps/p1.md"), &json!("north")));
    assert_says(document["text"].as_str().expect("a text"), &["The pump is red."]);
    let known = ask(&node, "GET", path, &[("if-none-match", "\"2\"")], "");
    assert_eq!((known.status, known.text.as_str()), (304, ""));

    let patch = json!({"title": "Red pump", "metadata": {"site": null, "year": 2026}}).to_string();
    assert_eq!(ask(&node, "PATCH", path, &[JSON, ("if-match", "\"1\"")], &patch).status, 412);
    let patched = ask(&node, "PATCH", path, &[JSON, ("if-match", &*tag(2))], &patch);
    assert_eq!((patched.status, patched.header("etag")), (200, &*tag(3)), "{}", patched.text);
    let document = ask(&node, "GET", path, &[], "").json();
    assert_eq!((&document["title"], &document["metadata"]), (&json!("Red pump"), &json!({"year": 2026})));

    let plain =
        ask(&node, "PUT", "/v1/collections/notes/documents/b", &[("content-type", "text/markdown")], "# B\n\nA valve.");
    assert_eq!(plain.status, 201, "{}", plain.text);
    let page = ask(&node, "GET", "/v1/collections/notes/documents?limit=1", &[], "").json();
    assert_eq!((&page["documents"][0]["id"], page["documents"][1].is_null()), (&json!("notes/b"), true));
    let cursor = page["next_cursor"].as_str().expect("there is more");
    let rest = ask(&node, "GET", &format!("/v1/collections/notes/documents?limit=1&cursor={cursor}"), &[], "").json();
    assert_eq!(rest["documents"][0]["id"], "notes/pumps/p1.md");

    assert_eq!(ask(&node, "DELETE", path, &[("if-match", "\"2\"")], "").status, 412);
    let deleted = ask(&node, "DELETE", path, &[("if-match", "\"3\"")], "");
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    for (method, body) in [("GET", ""), ("DELETE", ""), ("PATCH", "{}")] {
        let gone = ask(&node, method, path, &[JSON], body);
        assert_eq!((gone.status, &gone.json()["code"]), (404, &json!("not_found")), "{method}");
    }
}

#[test]
fn conditions_are_compared_as_the_standard_says() {
    let node = TestNode::start();
    let path = "/v1/collections/notes/documents/a";
    let put = |headers: &[(&str, &str)], text: &str| {
        let body = json!({ "text": text }).to_string();
        ask(&node, "PUT", path, &[headers, &[JSON]].concat(), &body)
    };
    let first = put(&[], "The heron.").header("etag").to_owned();
    let weak = format!("W/{first}");
    let listed = format!("\"abc\", {first}");
    for (tags, status) in [
        (&*first, 304),
        (&weak, 304),
        (&listed, 304),
        ("*", 304),
        ("\"1\"", 304),
        ("\"abc\"", 200),
        ("\"abc\", \"2\"", 200),
    ] {
        let got = ask(&node, "GET", path, &[("if-none-match", tags)], "");
        assert_eq!((got.status, got.header("etag")), (status, &*first), "{tags}");
    }
    // A weak tag allows no write, and what a request cannot check it does not ignore.
    for tags in [&*weak, "\"abc\"", "W/\"1\"", "\"7-1\""] {
        for (method, body) in [("PUT", "{\"text\": \"x\"}"), ("PATCH", "{\"title\": \"x\"}"), ("DELETE", "")] {
            let refused = ask(&node, method, path, &[JSON, ("if-match", tags)], body);
            assert_eq!(refused.status, 412, "{method} {tags}: {}", refused.text);
        }
    }
    for (method, body) in [("PATCH", "{\"title\": \"x\"}"), ("DELETE", "")] {
        let refused = ask(&node, method, path, &[JSON, ("if-none-match", "*")], body);
        assert_eq!(refused.status, 400, "{method}");
        assert_says(&refused.text, &["If-None-Match is for PUT"]);
    }
    assert_eq!(ask(&node, "GET", path, &[("if-match", "seven")], "").status, 200, "it is not read here");
    assert_eq!(put(&[("if-match", &*listed)], "Two herons.").status, 200);

    // A collection that is made again is another one, and versions begin again in it.
    assert_eq!(ask(&node, "DELETE", "/v1/collections/notes", &[], "").status, 200);
    let again = put(&[], "Another heron.");
    assert_eq!(again.status, 201);
    assert_ne!(again.header("etag"), first);
    assert_eq!(put(&[("if-match", &*first)], "x").status, 412);
    assert_eq!(ask(&node, "DELETE", path, &[("if-match", &*first)], "").status, 412);
    assert_eq!(ask(&node, "DELETE", path, &[("if-match", again.header("etag"))], "").status, 204);
}

#[test]
fn bodies_of_too_many_values_or_documents_are_refused_before_they_are_read() {
    let node = TestNode::start();
    let ndjson = ("content-type", "application/x-ndjson");
    let path = "/v1/collections/notes/documents";
    let many = ask(&node, "POST", path, &[ndjson], &"x\n".repeat(100_001));
    assert_eq!(many.status, 400, "{}", many.text);
    assert_says(&many.text, &["more than 100000 lines"]);
    let part = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nt\r\n";
    let form = format!("{}--x--\r\n", part.repeat(100_001));
    let many = ask(&node, "POST", path, &[("content-type", "multipart/form-data; boundary=x")], &form);
    assert_eq!(many.status, 400, "{}", many.text);
    assert_says(&many.text, &["more than 100000 files"]);
    let filter = format!("{{\"query\": \"x\", \"filter\": {{\"a\": [{}1]}}}}", "{},".repeat(100_000));
    let line = format!("{{\"id\": \"a\", \"text\": \"x\", \"metadata\": {{\"a\": [{}1]}}}}\n", "[],".repeat(100_000));
    for path in ["/v1/search", "/v1/tools/search", "/v1/similar", "/v1/collections"] {
        let refused = ask(&node, "POST", path, &[JSON], &filter);
        assert_eq!(refused.status, 400, "{path}");
        assert_says(&refused.text, &["more than 100000 values"]);
    }
    let refused = ask(&node, "POST", path, &[ndjson], &line);
    assert_says(&refused.text, &["\"status\":\"failed\"", "line 1: the message has more than 100000 values"]);
    assert_eq!(ask(&node, "GET", "/v1/collections/notes", &[], "").status, 404, "nothing was made");
}

#[test]
fn names_that_clients_resolve_are_refused() {
    let node = TestNode::start();
    for (method, path) in [
        ("PUT", "/v1/collections/notes/documents/.."),
        ("PUT", "/v1/collections/notes/documents/%2E"),
        ("POST", "/v1/collections/notes/sources/.."),
    ] {
        let refused = ask(&node, method, path, &[JSON], "{\"text\": \"x\"}");
        assert_eq!(refused.status, 400, "{path}: {}", refused.text);
        assert_says(&refused.text, &["in the path, which clients resolve"]);
    }
    let lines = "{\"id\": \"..\", \"text\": \"x\"}\n";
    let ndjson = ("content-type", "application/x-ndjson");
    let refused = ask(&node, "POST", "/v1/collections/notes/documents", &[ndjson], lines);
    assert_says(&refused.text, &["'..' cannot be the id of a document"]);
    // Within a name they are part of it, and its address says so.
    let made = ask(&node, "PUT", "/v1/collections/notes/documents/a%2F..%2Fb", &[JSON], "{\"text\": \"x\"}");
    assert_eq!((made.status, made.header("location")), (201, "/v1/collections/notes/documents/a%2F..%2Fb"));
    assert_eq!(ask(&node, "GET", made.header("location"), &[], "").json()["id"], "a/../b");
}

#[test]
fn many_documents_are_written_with_a_result_for_each() {
    let node = TestNode::start();
    let path = "/v1/collections/notes/documents";
    let lines = "{\"id\": \"a\", \"text\": \"The heron.\"}\nnot JSON\n\n{\"id\": \"b\", \"text\": \"The reeds.\"}\n{\"id\": \"c\"}\n";
    let ndjson = ("content-type", "application/x-ndjson");
    let results = |answer: &Answer| -> Vec<Value> {
        answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let added = ask(&node, "POST", path, &[ndjson, ("idempotency-key", "k1")], lines);
    let statuses: Vec<Value> = results(&added).iter().map(|result| result["status"].clone()).collect();
    assert_eq!(
        (added.status, statuses),
        (200, vec![json!("created"), json!("failed"), json!("created"), json!("failed")])
    );
    assert_says(results(&added)[1]["error"].as_str().expect("a reason"), &["line 2"]);
    let again = ask(&node, "POST", path, &[ndjson, ("idempotency-key", "k1")], lines);
    assert_eq!(again.text, added.text, "the first answer");

    let many: String =
        (0..2_300).map(|number| format!("{{\"id\": \"n{number}\", \"text\": \"Note {number}.\"}}\n")).collect();
    let added = results(&ask(&node, "POST", path, &[ndjson], &many));
    assert!(added.len() == 2_300 && added.iter().all(|result| result["status"] == "created"));
    assert_eq!(added[2_299]["id"], "notes/n2299");

    let form = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"pump.md\"\r\n\r\n# Pump\n\nIt is blue.\r\n\
                --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"t.csv\"\r\n\r\nname,size\npump,3\r\n--x--\r\n";
    let uploaded = ask(&node, "POST", path, &[("content-type", "multipart/form-data; boundary=x")], form);
    let ids: Vec<Value> = results(&uploaded).iter().map(|result| result["id"].clone()).collect();
    assert_eq!((uploaded.status, ids), (200, vec![json!("notes/pump.md"), json!("notes/t.csv")]), "{}", uploaded.text);
}

#[test]
fn problems_say_what_they_are() {
    let node = TestNode::with(&[("CAIRN_SERVER_REQUEST_BYTES_MAX", "64KiB")]);
    let large = "x".repeat(100_000);
    for (method, path, headers, body, status, code) in [
        ("GET", "/v1/collections/none", &[][..], "", 404, "not_found"),
        ("GET", "/v1/nothing", &[], "", 404, "not_found"),
        ("GET", "/v1/collections?x=1", &[], "", 400, "bad_argument"),
        ("POST", "/v1/collections", &[JSON], "{\"name\": \"A B\"}", 400, "bad_argument"),
        ("POST", "/v1/search", &[("content-type", "text/csv")], "a,b", 415, "bad_argument"),
        ("PUT", "/v1/collections/a/documents/b", &[("content-type", "image/png")], "x", 415, "bad_argument"),
        ("PUT", "/v1/collections/a/documents/b", &[JSON, ("if-match", "seven")], "{}", 400, "bad_argument"),
        ("DELETE", "/v1/status", &[], "", 405, "bad_argument"),
        ("POST", "/mcp", &[JSON, ("accept", "text/html")], "{}", 406, "bad_argument"),
        ("POST", "/v1/search", &[JSON], &large, 413, "bad_argument"),
        ("GET", "/v1/collections/a/sources?limit=1001", &[], "", 400, "bad_argument"),
    ] {
        let answer = ask(&node, method, path, headers, body);
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (status, &json!(code)), "{method} {path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:cairn:problem:{code}"));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()) && problem["title"].is_string());
    }
}

#[test]
fn long_work_can_be_left_to_a_job() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "The heron."}]));
    let started = ask(&node, "POST", "/v1/snapshots", &[("prefer", "respond-async")], "");
    let location = started.header("location").to_owned();
    assert_eq!(started.status, 202, "{}", started.text);
    let job = loop {
        let job = ask(&node, "GET", &location, &[], "").json();
        if job["status"] != "running" {
            break job;
        }
        std::thread::yield_now();
    };
    assert_eq!((&job["status"], &job["operation"]), (&json!("succeeded"), &json!("create_snapshot")), "{job}");
    let listed = ask(&node, "GET", "/v1/snapshots", &[], "").json();
    assert_eq!(listed["snapshots"][0]["id"], job["result"]["id"]);
    let verified = ask(&node, "POST", "/v1/snapshots/verify", &[], "").json();
    assert_eq!((&verified["ok"], &verified["id"]), (&json!(true), &job["result"]["id"]));
    assert_eq!(ask(&node, "GET", "/v1/jobs", &[], "").json()["jobs"][0]["id"], job["id"]);
    assert_eq!(ask(&node, "GET", "/v1/jobs/77", &[], "").status, 404);
}

#[test]
fn a_job_fails_with_the_problem_that_the_request_would_have_had() {
    let node = TestNode::start();
    let later = ("prefer", "respond-async");
    let path = "/v1/snapshots/verify?id=nope";
    let now = ask(&node, "POST", path, &[], "");
    let started = ask(&node, "POST", path, &[later], "");
    assert_eq!(started.status, 202, "{}", started.text);
    let job = loop {
        let job = ask(&node, "GET", started.header("location"), &[], "").json();
        if job["status"] != "running" {
            break job;
        }
        std::thread::yield_now();
    };
    assert_eq!((&job["status"], &job["error"]), (&json!("failed"), &now.json()), "{job}");
    // What is refused at once makes no job.
    let refused = ask(&node, "POST", "/v1/snapshots/restore", &[later, JSON], "{\"confirm\": \"yes\"}");
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_says(&refused.text, &["confirm is 'yes'"]);
    assert_eq!(ask(&node, "GET", "/v1/jobs", &[], "").json()["jobs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_other_resources_answer() {
    let node = TestNode::start();
    let made = ask(&node, "POST", "/v1/collections", &[JSON], "{\"name\": \"notes\", \"description\": \"Birds\"}");
    assert_eq!((made.status, made.header("location")), (201, "/v1/collections/notes"));
    node.add(
        "notes",
        json!([{"id": "a", "text": "The heron stands in the reeds."}, {"id": "b", "text": "A heron in water."}]),
    );
    let found = ask(&node, "POST", "/v1/search", &[JSON], "{\"query\": \"heron reeds\"}").json();
    assert_eq!(found["results"][0]["id"], "notes/a#0");
    let linked = ask(&node, "GET", "/v1/search?query=heron%20reeds&collections=notes&limit=1", &[], "").json();
    assert_eq!(linked["results"][0]["id"], "notes/a#0");
    let similar = ask(&node, "POST", "/v1/similar", &[JSON], "{\"id\": \"notes/a\"}").json();
    assert_eq!(similar["results"][0]["id"], "notes/b#0");
    assert_eq!(ask(&node, "GET", "/v1/collections", &[], "").json()["collections"][0]["description"], "Birds");
    assert_eq!(ask(&node, "GET", "/v1/collections/notes", &[], "").json()["documents"], 2);
    assert_eq!(ask(&node, "GET", "/v1/status", &[], "").json()["documents"], 2);
    let tools = ask(&node, "GET", "/v1/tools", &[], "").json();
    assert!(tools["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "search")));
    assert_eq!(ask(&node, "DELETE", "/v1/collections/notes", &[], "").json()["documents"], 2);
}

/// The number of a passage may be the end of a document's id, too.
#[test]
fn no_document_takes_the_place_of_anothers_citation() {
    let node = TestNode::start();
    let put = |document: &str, text: &str| {
        let path = format!("/v1/collections/notes/documents/{document}");
        assert_eq!(ask(&node, "PUT", &path, &[("content-type", "text/plain")], text).status, 201);
    };
    put("guide.md", "The true text of the guide.");
    put("guide.md%230", "Another text.");
    let fetched = node.call("fetch", json!({"id": "notes/guide.md#0"}));
    assert_says(&fetched.to_string(), &["The true text of the guide."]);
    let other = ask(&node, "GET", "/v1/collections/notes/documents/guide.md%230", &[], "").json();
    assert_eq!(other["text"], "Another text.");
    // Where there is no such passage, it is the document.
    put("lone.md%233", "A text of its own.");
    assert_says(&node.call("fetch", json!({"id": "notes/lone.md#3"})).to_string(), &["A text of its own."]);
}

#[test]
fn a_tag_from_before_a_restore_is_of_no_document() {
    let mut node = TestNode::start();
    let path = "/v1/collections/notes/documents/a";
    let put = |node: &TestNode, text: &str| {
        let answer = ask(node, "PUT", path, &[("content-type", "text/plain")], text);
        answer.header("etag").to_owned()
    };
    put(&node, "The first.");
    node.cairn_json(&["snapshot", "create", "--json"]);
    let before = put(&node, "The second.");
    node.stop();
    json_of(&run_on(&node.data_dir(), &["snapshot", "restore", "--yes", "--json"]));
    node.restart();
    let after = put(&node, "Another second.");
    assert_ne!(after, before);
    assert_eq!(ask(&node, "GET", path, &[("if-none-match", &before)], "").status, 200);
    assert_eq!(ask(&node, "PUT", path, &[("content-type", "text/plain"), ("if-match", &before)], "x").status, 412);
    assert_eq!(ask(&node, "GET", path, &[("if-none-match", &after)], "").status, 304);
}

#[test]
fn uploaded_files_keep_their_names_and_a_byte_order_mark_does_no_harm() {
    let node = TestNode::start();
    let path = "/v1/collections/notes/documents";
    let part = |disposition: &str, text: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"file\"; {disposition}\r\n\r\n{text}\r\n")
    };
    let form = [
        part("filename=\"_ber.txt\"; filename*=UTF-8''%c3%bcber%20uns&co.txt", "One."),
        part("filename*=utf-8'de'%c3%a4hnlich.txt", "Two."),
        "--x\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{\"a\": 1}\r\n--x--\r\n".to_owned(),
    ];
    let uploaded = ask(&node, "POST", path, &[("content-type", "multipart/form-data; boundary=x")], &form.concat());
    let results: Vec<Value> = uploaded.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<&str> = results.iter().filter_map(|result| result["id"].as_str()).collect();
    assert_eq!(ids, ["notes/über uns&co.txt", "notes/ähnlich.txt", "documents[2]"]);
    assert_says(results[2]["error"].as_str().expect("an error"), &["'metadata'", "is not a file"]);

    let marked = "\u{feff}{\"id\": \"z\", \"text\": \"With a mark.\"}";
    let added = ask(&node, "POST", path, &[("content-type", "application/x-ndjson")], &format!("{marked}\n"));
    assert_eq!(added.json()["status"], "created", "{}", added.text);
    assert_eq!(ask(&node, "PUT", &format!("{path}/z"), &[JSON], marked).status, 200);
}
