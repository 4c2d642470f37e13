//! MCP over HTTP: both eras on one endpoint, what it lists, and what it refuses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::node::{Answer, LEGACY, MODERN, TestNode, assert_says, hits, list, modern_meta, modern_request, texts};
use crate::tls::{OPEN, status, wait_until};

/// The tools, in the order that clients have come to know.
const TOOLS: [&str; 15] = [
    "search",
    "fetch",
    "find_similar",
    "list_collections",
    "describe_collection",
    "list_documents",
    "add_documents",
    "update_document",
    "delete_documents",
    "create_collection",
    "delete_collection",
    "get_status",
    "create_snapshot",
    "list_snapshots",
    "restore_snapshot",
];

fn error_code(answer: &Answer) -> i64 {
    answer.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("expected an error: {answer:?}"))
}

#[test]
fn a_client_without_sessions_discovers_the_server() {
    let node = TestNode::start();
    let found = node.modern("server/discover", json!({})).result();
    assert_eq!(found["resultType"], "complete");
    let versions: Vec<&str> = list(&found["supportedVersions"]).iter().filter_map(Value::as_str).collect();
    assert!(versions.contains(&MODERN) && versions.contains(&LEGACY), "{versions:?}");
    for capability in ["tools", "resources", "prompts", "completions"] {
        assert!(found["capabilities"][capability].is_object(), "{capability}: {found}");
    }
    assert_says(found["instructions"].as_str().expect("text"), &["search", "fetch"]);
    assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "cairn");
}

#[test]
fn an_older_client_is_answered_in_the_version_it_asks_for() {
    let node = TestNode::start();
    for version in ["2025-03-26", "2025-06-18", LEGACY] {
        let client = json!({"name": "it", "version": "1"});
        let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let result = node.post(&[], &body.to_string()).result();
        assert_eq!(result["protocolVersion"], version);
        assert_eq!(result["serverInfo"]["name"], "cairn");
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let accepted = node.post(&[("mcp-protocol-version", version)], &initialized.to_string());
        assert_eq!((accepted.status, accepted.text.as_str()), (202, ""));
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        assert_eq!(node.post(&[("mcp-protocol-version", version)], &ping.to_string()).result(), json!({}));
    }
}

#[test]
fn tools_are_listed_alike_in_both_eras() {
    let node = TestNode::start();
    let modern = node.modern("tools/list", json!({})).result();
    let legacy = node.legacy("tools/list", json!({})).result();
    assert_eq!(texts(&modern["tools"], "name"), TOOLS);
    assert_eq!(modern["tools"], legacy["tools"]);
    assert_eq!(modern["tools"], node.modern("tools/list", json!({})).result()["tools"]);
    for tool in list(&modern["tools"]) {
        let name = tool["name"].as_str().expect("a name");
        assert!(tool["title"].is_string() && tool["description"].is_string(), "{tool}");
        assert_eq!(tool["inputSchema"]["type"], "object");
        // With a schema, structured content would have to come beside the text.
        let in_text = ["search", "fetch", "find_similar", "list_documents"].contains(&name);
        assert_eq!(tool["outputSchema"]["type"], if in_text { Value::Null } else { json!("object") }, "{name}");
        let reads = ["search", "fetch", "find_similar", "get_status"].contains(&name)
            || name.starts_with("list_")
            || name.starts_with("describe_");
        assert_eq!(tool["annotations"]["readOnlyHint"], reads, "{name}");
        let destroys = name.starts_with("delete_") || name == "restore_snapshot";
        assert_eq!(tool["annotations"]["destructiveHint"], destroys, "{name}");
        assert_eq!(tool["annotations"]["openWorldHint"], false, "{name}");
    }
}

#[test]
fn answers_that_clients_may_keep_say_for_how_long_and_for_whom() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    let uri = node.modern("resources/list", json!({})).result()["resources"][0]["uri"].clone();
    for (method, params) in [
        ("server/discover", json!({})),
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({ "uri": uri })),
    ] {
        let result = node.modern(method, params).result();
        assert!(result["ttlMs"].is_u64(), "{method}: {result}");
        // What a token may see can differ, so no shared cache may hand it on.
        assert_eq!(result["cacheScope"], "private", "{method}");
        assert_eq!(result["resultType"], "complete", "{method}");
    }
}

#[test]
fn headers_must_say_what_the_body_says() {
    let node = TestNode::start();
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": modern_meta()}}).to_string();
    let version = ("mcp-protocol-version", MODERN);
    for headers in [vec![version, ("mcp-method", "tools/call")], vec![version]] {
        let answer = node.post(&headers, &body);
        assert_eq!((answer.status, error_code(&answer)), (400, -32020), "{headers:?}");
    }
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "get_status", "_meta": modern_meta()}});
    let answer = node.post(&[version, ("mcp-method", "tools/call"), ("mcp-name", "search")], &call.to_string());
    assert_eq!((answer.status, error_code(&answer)), (400, -32020));
    // The commonest call has the same rules, however it is answered.
    let search = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "search", "arguments": {"query": "x"}, "_meta": modern_meta()}});
    for headers in [
        vec![version, ("mcp-method", "tools/call"), ("mcp-name", "fetch")],
        vec![version, ("mcp-method", "tools/list"), ("mcp-name", "search")],
        vec![version, ("mcp-method", "tools/call")],
        vec![version],
    ] {
        let answer = node.post(&headers, &search.to_string());
        assert_eq!((answer.status, error_code(&answer)), (400, -32020), "{headers:?}");
    }
}

#[test]
fn a_request_that_says_too_little_or_too_much_is_refused_by_its_code() {
    let node = TestNode::start();
    let bare = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).to_string();
    let answer = node.post(&[("mcp-protocol-version", MODERN), ("mcp-method", "tools/list")], &bare);
    assert_eq!((answer.status, error_code(&answer)), (400, -32602), "no _meta");

    let future = bare.replace("{}", &format!("{{\"_meta\":{}}}", modern_meta())).replace(MODERN, "2099-01-01");
    let answer = node.post(&[("mcp-protocol-version", "2099-01-01"), ("mcp-method", "tools/list")], &future);
    assert_eq!((answer.status, error_code(&answer)), (400, -32022), "a version of the future");
    assert_eq!(answer.json()["error"]["data"]["requested"], "2099-01-01");
    assert!(list(&answer.json()["error"]["data"]["supported"]).contains(&json!(MODERN)));

    let answer = node.modern("tools/rename", json!({}));
    assert_eq!((answer.status, error_code(&answer)), (404, -32601), "an unknown method");
}

#[test]
fn what_is_no_json_rpc_is_refused_before_it_is_looked_at() {
    let node = TestNode::start();
    for body in ["", "{\"jsonrpc", "[]", "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", "\u{0}\u{1}", "7"] {
        let status = node.post(&[("mcp-protocol-version", LEGACY)], body).status;
        assert!((400..500).contains(&status), "{body:?}: {status}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!((400..500).contains(&node.post(&[], &deep).status), "100,000 levels deep");
    node.call("get_status", json!({}));
}

#[test]
fn what_is_no_request_is_told_so_in_json_rpc() {
    let node = TestNode::start();
    for (body, code, words) in [
        ("{\"jsonrpc\":\"2.0\",\"id\":1,", -32700, "not JSON"),
        ("", -32700, "not JSON"),
        ("{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"ping\"}", -32600, "id is [1]"),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", -32600, "id is null"),
        ("{\"jsonrpc\":\"2.0\",\"id\":99999999999999999999,\"method\":\"ping\"}", -32600, "64 bits"),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":[]}", -32600, "params is []"),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", -32600, "batch"),
        ("{\"id\":1,\"method\":\"ping\"}", -32600, "jsonrpc is missing"),
        ("\"ping\"", -32600, "a text"),
    ] {
        let answer = node.post(&[("mcp-protocol-version", LEGACY)], body);
        assert_eq!((answer.status, error_code(&answer)), (400, code), "{body}");
        assert_eq!(answer.json()["jsonrpc"], "2.0");
        assert_says(answer.json()["error"]["message"].as_str().expect("words"), &[words]);
    }
    let marked = "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";
    assert_eq!(node.post(&[("mcp-protocol-version", LEGACY)], marked).result(), json!({}), "a byte order mark");
    let latin: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Gr\xf6\xdfe\"}";
    let headers = [("content-type", "application/json"), ("accept", "*/*"), ("mcp-protocol-version", LEGACY)];
    let latin = node.request("POST", &node.mcp, &headers, Some(latin));
    assert_eq!((latin.status, error_code(&latin)), (400, -32700));
    assert_says(&latin.text, &["not UTF-8: byte 0xf6 at line 1 column 37"]);
    let notification = node
        .post(&[("mcp-protocol-version", LEGACY)], "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    assert_eq!(notification.status, 202);
    let other = node.request("POST", &node.mcp, &[("content-type", "text/plain"), ("accept", "*/*")], Some(b"{}"));
    assert_eq!(other.status, 415, "the media type itself");
}

/// A request whose `params` are not those of its method has a method that there is.
#[test]
fn parameters_that_are_none_are_not_called_an_unknown_method() {
    let node = TestNode::start();
    for (method, params, code, words) in [
        ("tools/call", json!({"name": "search", "arguments": "pump"}), -32602, "arguments is not an object"),
        ("tools/call", json!({"arguments": {}}), -32602, "name is missing"),
        ("tools/call", json!({"name": 5}), -32602, "name is missing or not a string"),
        ("resources/read", json!({"url": "ctx://"}), -32602, "uri is missing"),
        (
            "prompts/get",
            json!({"name": "answer_with_citations", "arguments": []}),
            -32602,
            "arguments is not an object",
        ),
        ("completion/complete", json!({}), -32602, "ref is missing"),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "x"}}), -32602, "argument is missing"),
        ("server/discover", json!(null), -32602, "_meta is missing"),
        ("tools/cal", json!({}), -32601, "there is no method 'tools/cal'; there are"),
        (
            "resources/subscribe",
            json!({"uri": "ctx://x"}),
            -32601,
            "there is no method 'resources/subscribe'; there are",
        ),
        ("logging/setLevel", json!({"level": "info"}), -32601, "there is no method 'logging/setLevel'"),
    ] {
        let mut body = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        if !params.is_null() {
            body["params"] = params.clone();
        }
        let answer = node.post(&[("mcp-protocol-version", LEGACY)], &body.to_string()).json();
        assert_eq!(answer["error"]["code"], code, "{method} {params}: {answer}");
        assert_says(answer["error"]["message"].as_str().expect("words"), &[words]);
    }
}

#[test]
fn clients_that_take_json_are_answered_with_or_without_a_slash() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let params = json!({"name": "search", "arguments": {"query": "alpha"}, "_meta": {"progressToken": 1}});
    let search = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    for url in [node.mcp.clone(), format!("{}/", node.mcp)] {
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("application/json"),
            Some("application/*, text/*"),
            Some("text/html, */*;q=0.1"),
        ] {
            let mut headers = vec![("content-type", "application/json"), ("mcp-protocol-version", LEGACY)];
            headers.extend(accept.map(|accept| ("accept", accept)));
            let answer = node.request("POST", &url, &headers, Some(ping.as_bytes()));
            assert_eq!(answer.result(), json!({}), "{url} {accept:?}");
        }
        let headers =
            [("content-type", "application/json"), ("accept", "application/json"), ("mcp-protocol-version", LEGACY)];
        let answer = node.request("POST", &url, &headers, Some(search.as_bytes()));
        assert_eq!(answer.header("content-type"), "application/json", "no stream for who takes none");
        let result = answer.result();
        let found: Value = serde_json::from_str(result["content"][0]["text"].as_str().expect("text")).expect("JSON");
        assert_eq!(hits(&found), ["a"]);
        for accept in ["text/event-stream", "text/html", "application/json;q=0"] {
            let headers = [("content-type", "application/json"), ("accept", accept)];
            assert_eq!(node.request("POST", &url, &headers, Some(ping.as_bytes())).status, 406, "{accept}");
        }
    }
}

#[test]
fn a_search_that_fails_is_answered_alike_on_every_way_in() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    let calls = || node.get(&format!("{}/metrics", node.admin)).text;
    let errors = |metrics: &str| {
        let line =
            |line: &&str| line.starts_with("cairn_tool_calls") && line.contains("search") && line.contains("error");
        metrics.lines().find(line).and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    for arguments in [json!({"query": "x", "collections": ["nowhere"]}), json!({"query": "x", "limit": 0}), json!({})] {
        let params = json!({"name": "search", "arguments": arguments});
        let before = errors(&calls());
        let (direct, legacy) = (node.modern("tools/call", params.clone()), node.legacy("tools/call", params.clone()));
        assert_eq!(errors(&calls()), before + 2, "each is asked once: {arguments}");
        // A request that asks for progress takes the long way.
        let mut long = params.clone();
        long["_meta"] = json!({"progressToken": 1});
        let ordinary = node.modern("tools/call", long.clone());
        assert_eq!((direct.result(), &direct.text), (ordinary.result(), &ordinary.text), "{arguments}");
        assert_eq!(legacy.text, node.legacy("tools/call", long).text, "{arguments}");
    }
}

#[test]
fn only_post_is_spoken() {
    let node = TestNode::start();
    for method in ["GET", "DELETE", "PUT"] {
        let answer = node.request(method, &node.mcp, &[("accept", "text/event-stream")], None);
        assert_eq!(answer.status, 405, "{method}");
    }
    let lost = node.get(&format!("{}/elsewhere", node.base()));
    assert_eq!(lost.status, 404);
    assert_says(&lost.text, &["/mcp"]);
}

#[test]
fn pages_of_other_sites_are_refused() {
    let node = TestNode::start();
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    for (header, value, status) in [
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("host", "evil.example", 403),
        ("host", "evil.example:7171", 403),
        ("origin", "http://localhost:3000", 200),
        ("host", "localhost", 200),
    ] {
        let answer = node.post(&[("mcp-protocol-version", LEGACY), (header, value)], &ping);
        assert_eq!(answer.status, status, "{header}: {value}");
        let tools = format!("{}/v1/tools/get_status", node.base());
        let headers = [("content-type", "application/json"), (header, value)];
        assert_eq!(node.request("POST", &tools, &headers, Some(b"{}")).status, status, "{header}: {value}, REST");
    }
    let listed = TestNode::with(&[("CAIRN_SERVER_ALLOWED_HOSTS", "docs.example")]);
    let headers = [("host", "docs.example"), ("origin", "https://docs.example"), ("mcp-protocol-version", LEGACY)];
    assert_eq!(listed.post(&headers, &ping).status, 200);
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let node = TestNode::with(&[("CAIRN_SERVER_REQUEST_BYTES_MAX", "64KiB")]);
    let text = "word ".repeat(20_000);
    let arguments = json!({"collection": "notes", "documents": [{"id": "big", "text": text}]});
    let answer = node.modern("tools/call", json!({"name": "add_documents", "arguments": arguments}));
    assert_eq!(answer.status, 413);
    let tools = format!("{}/v1/tools/add_documents", node.base());
    let headers = [("content-type", "application/json")];
    assert_eq!(node.request("POST", &tools, &headers, Some(arguments.to_string().as_bytes())).status, 413);
    assert_eq!(node.call("get_status", json!({}))["documents"], 0);
}

#[test]
fn an_unknown_tool_is_an_error_of_the_protocol() {
    let node = TestNode::start();
    for answer in [
        node.modern("tools/call", json!({"name": "drop_tables", "arguments": {}})),
        node.legacy("tools/call", json!({"name": "drop_tables", "arguments": {}})),
    ] {
        assert_eq!(error_code(&answer), -32602);
        assert_says(&answer.text, &["drop_tables", "search"]);
    }
}

#[test]
fn a_bad_argument_is_an_answer_that_tells_what_was_expected() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    for (tool, arguments, words) in [
        ("search", json!({}), &["query"][..]),
        ("search", json!({"query": ""}), &["query"]),
        ("search", json!({"query": ["a", "b"]}), &["query", "a list", "a text"]),
        ("search", json!({"query": "alpha", "limit": "5x"}), &["limit", "'5x'", "a whole number"]),
        ("search", json!({"query": "alpha", "limit": 5.5}), &["limit", "5.5", "a whole number"]),
        ("search", json!({"query": "alpha", "limit": -1}), &["limit", "-1", "a whole number from 1 to 50"]),
        ("search", json!({"query": "alpha", "limit": 3, "top_k": 2}), &["'limit'", "twice", "'top_k'"]),
        ("search", json!({"query": "alpha", "min_score": "much"}), &["min_score", "'much'", "a number"]),
        ("search", json!({"query": "alpha", "collections": {"a": 1}}), &["collections[0]", "an object", "a text"]),
        ("fetch", json!({"id": "notes/a", "range": ["x", 3]}), &["range[0]", "'x'"]),
        ("fetch", json!({}), &["'id'", "missing", "collection/document"]),
        ("add_documents", json!({"collection": "notes", "documents": [7]}), &["documents[0]", "7", "\"text\""]),
        (
            "add_documents",
            json!({"collection": "notes", "documents": [{"text": "x"}, {"text": "x", "metadata": [1]}]}),
            &["documents[1].metadata", "a list", "an object"],
        ),
        (
            "add_documents",
            json!({"collection": "notes", "documents": [{"text": "x", "colour": "red"}]}),
            &["'colour'", "documents[0]", "id, text"],
        ),
        ("delete_documents", json!({"ids": ["notes/a"], "dry_run": "perhaps"}), &["dry_run", "true or false"]),
        (
            "list_documents",
            json!({"collection": "notes", "order": "updated", "cursor": "notes/a"}),
            &["cursor", "next_cursor"],
        ),
        ("search", json!({"query": "alpha", "colour": "red"}), &["colour", "collections"]),
        ("search", json!({"query": "alpha", "mode": "psychic"}), &["psychic", "hybrid"]),
        (
            "search",
            json!({"query": "alpha", "mode": "fuzzy"}),
            &["mode is 'fuzzy', expected one of hybrid, dense, lexical"],
        ),
        ("search", json!({"query": "alpha", "mode": 7}), &["mode is 7, expected one of hybrid, dense, lexical"]),
        ("search", json!({"query": "alpha", "limit": true}), &["limit is true", "from 1 to 50"]),
        ("search", json!({"query": "alpha", "min_score": 7}), &["min_score is 7", "from 0 to 1"]),
        ("search", json!({"query": "alpha", "min_score": "x"}), &["'x'", "a number from 0 to 1"]),
        ("fetch", json!({"id": "notes/a", "chunk": 5}), &["chunk is 5", "one passage, 0"]),
        ("delete_documents", json!({"ids": ["notes/a#0"]}), &["'notes/a#0' is a passage", "give 'notes/a'"]),
        ("update_document", json!({"id": "notes/a#0", "text": "x"}), &["'notes/a#0' is a passage", "give 'notes/a'"]),
        ("delete_documents", json!({"collection": "notes", "filter": {}}), &["no condition", "delete the collection"]),
        (
            "delete_documents",
            json!({"collection": "notes", "filter": {"and": [{}, {"not": {"or": []}}]}, "dry_run": true}),
            &["no condition"],
        ),
        (
            "add_documents",
            json!({"collection": "notes", "documents": [{"content_base64": "!x"}]}),
            &["nothing was written", "documents[0]: content_base64 is not base64: character 1 is '!'"],
        ),
        (
            "add_documents",
            json!({"collection": "new", "documents": [{"id": "b"}, {"text": " "}]}),
            &["nothing was written", "new/b: expected one of text", "documents[1]: ", "no text"],
        ),
        ("search", json!({"query": "alpha", "limit": 0}), &["limit", "1", "50"]),
        ("search", json!({"query": "alpha", "limit": 51}), &["limit", "50"]),
        ("search", json!({"query": "alpha", "max_tokens": 1}), &["max_tokens", "100"]),
        ("search", json!({"query": "alpha", "collections": ["nowhere"]}), &["nowhere", "notes"]),
        ("search", json!({"query": "alpha", "filter": {"year": {"newer": 3}}}), &["newer", "gte"]),
        ("search", json!({"query": "alpha", "filter": ["year"]}), &["object"]),
        ("search", json!({"query": "alpha", "after": "yesterday"}), &["yesterday", "RFC 3339"]),
        ("fetch", json!({"id": "notes/nothing"}), &["notes/nothing"]),
        ("fetch", json!({"id": "notes/a#9"}), &["notes/a#9", "one passage"]),
        ("fetch", json!({"id": "aa"}), &["'aa'", "search or list_documents"]),
        ("fetch", json!({"id": "elsewhere/notes/A"}), &["did you mean", "notes/a"]),
        ("find_similar", json!({"id": "nowhere/a"}), &["nowhere/a"]),
        ("list_documents", json!({"collection": "nowhere"}), &["nowhere", "notes"]),
        ("list_documents", json!({"collection": "notes", "limit": 0}), &["limit", "1"]),
        ("add_documents", json!({"collection": "notes", "documents": []}), &["documents"]),
        ("add_documents", json!({"collection": "Not A Name", "documents": [{"text": "x"}]}), &["Not A Name", "a-z"]),
        ("update_document", json!({"id": "notes/nothing", "title": "x"}), &["notes/nothing"]),
        ("delete_documents", json!({}), &["ids", "filter"]),
        ("delete_documents", json!({"ids": ["notes/a"], "filter": {"x": 1}}), &["ids", "filter"]),
        ("create_collection", json!({"name": "../etc"}), &["../etc", "a-z"]),
        ("create_collection", json!({"name": "x", "model": "gpt"}), &["gpt"]),
        ("delete_collection", json!({"name": "notes", "confirm": "note"}), &["confirm"]),
        ("get_status", json!({"verbose": true}), &["verbose"]),
    ] {
        assert_says(&node.refusal(tool, arguments), words);
    }
    let status = node.call("get_status", json!({}));
    assert_eq!((&status["documents"], &status["collections"]), (&json!(1), &json!(1)), "nothing was made or deleted");
}

#[test]
fn names_that_models_invent_are_understood() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha", "metadata": {"k": 1}}, {"id": "b", "text": "alpha beta"}]));
    for arguments in [
        json!({"q": "alpha", "top_k": 1, "collection": "notes", "where": {"k": 1}}),
        json!({"question": "alpha", "max_results": 1, "collections": "notes", "filters": {"k": 1}, "mode": "semantic"}),
        json!({"query": "alpha", "k": 1, "mode": "keyword", "filter": {"k": 1}, "collections": null}),
    ] {
        assert_eq!(hits(&node.call("search", arguments)), ["a"]);
    }
    assert_eq!(node.call("fetch", json!({"document_id": "notes/a"}))["text"], "alpha");
}

#[test]
fn what_can_mean_one_thing_only_is_taken() {
    let node = TestNode::start();
    for documents in [json!(["alpha"]), json!("alpha beta"), json!({"id": 7, "text": "alpha gamma"})] {
        let written = node.call("add_documents", json!({"collection": "notes", "documents": documents}));
        assert_eq!(written["created"], 1, "{documents}: {written}");
    }
    let text = json!([{"id": "t", "text": "alpha", "metadata": "{\"k\": 1}"}]).to_string();
    node.call("add_documents", json!({"collection": "notes", "documents": text}));
    assert_eq!(node.call("fetch", json!({"id": "notes/7"}))["text"], "alpha gamma");
    for arguments in [
        json!({"query": "alpha", "limit": 2.0}),
        json!({"query": "alpha", "limit": "2"}),
        json!({"query": "alpha", "limit": " 2.0 ", "min_score": "0", "mode": "Lexical", "cursor": null}),
        json!({"query": "alpha", "limit": 2, "collections": "[\"notes\"]", "filter": null, "detail": null}),
        json!({"query": "alpha", "limit": 2, "after": "2020-01-01", "before": "2100-01-01T12:00:00"}),
    ] {
        assert_eq!(list(&node.call("search", arguments.clone())["results"]).len(), 2, "{arguments}");
    }
    let filtered = node.call("search", json!({"query": "alpha", "filter": "{\"k\": {\"exists\": true}}"}));
    assert_eq!(hits(&filtered), ["t"]);
    let tried = node.call("delete_documents", json!({"ids": "[\"notes/7\", \"notes/t\"]", "dry_run": "true"}));
    assert_eq!((&tried["matched"], &tried["dry_run"]), (&json!(2), &json!(true)));
    let before = node.call("search", json!({"query": "alpha", "after": "2100-01-01"}));
    assert_eq!(list(&before["results"]).len(), 0);
}

#[test]
fn what_exists_is_there_however_long_it_is() {
    let node = TestNode::start();
    let long = "a plan of many words ".repeat(200);
    node.add(
        "plans",
        json!([
            {"id": "short", "text": "one", "metadata": {"plan": "brief"}},
            {"id": "long", "text": "two", "metadata": {"plan": long}},
            {"id": "steps", "text": "three", "metadata": {"plan": [{"step": 1}, {"step": 2}]}},
            {"id": "empty", "text": "four", "metadata": {"plan": []}},
            {"id": "none", "text": "five", "metadata": {"other": 1}},
            {"id": "null", "text": "six", "metadata": {"plan": null}},
        ]),
    );
    for (filter, ids) in [
        (json!({"plan": {"exists": true}}), &["empty", "long", "short", "steps"][..]),
        (json!({"plan": {"exists": false}}), &["none", "null"]),
        (json!({"plan": null}), &["none", "null"]),
        (json!({"plan": {"gt": "a"}}), &["long", "short"]),
        (json!({"plan.step": 2}), &["steps"]),
        (json!({"plan": {"ne": "brief"}}), &["empty", "long", "none", "null", "steps"]),
    ] {
        let tried = json!({"collection": "plans", "filter": filter, "dry_run": true});
        let matched: Vec<String> = texts(&node.call("delete_documents", tried)["documents"], "id");
        let ids: Vec<String> = ids.iter().map(|id| format!("plans/{id}")).collect();
        assert_eq!(matched, ids, "{filter}");
    }
    let words = node.refusal("delete_documents", json!({"collection": "plans", "filter": {"plan": {"ne": long}}}));
    assert_says(&words, &["'ne'", "'plan'", "1,024 bytes"]);
}

#[test]
fn each_hit_is_a_resource_that_can_be_read() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a b/ü?#1.md", "text": "# Alpha\n\nThe first letter."}]));
    let result = node
        .modern(
            "tools/call",
            json!({"name": "search", "arguments": {"query": "letter", "include": ["links", "structured"]}}),
        )
        .result();
    let links: Vec<&Value> = list(&result["content"]).iter().filter(|item| item["type"] == "resource_link").collect();
    assert_eq!(links.len(), list(&result["structuredContent"]["results"]).len());
    let hit = &result["structuredContent"]["results"][0];
    assert_eq!((&links[0]["uri"], &links[0]["name"], &links[0]["title"]), (&hit["uri"], &hit["id"], &hit["title"]));
    let read = node.modern("resources/read", json!({"uri": links[0]["uri"]})).result();
    assert_eq!(read["contents"][0]["uri"], links[0]["uri"]);
    assert_says(read["contents"][0]["text"].as_str().expect("text"), &["The first letter."]);
    let legacy = node.legacy("resources/read", json!({"uri": links[0]["uri"]})).result();
    assert_eq!(legacy["contents"], read["contents"]);
}

#[test]
fn resources_are_listed_page_by_page_each_once() {
    let node = TestNode::start();
    let written: Vec<Value> =
        (0..130).map(|n| json!({"id": format!("{n:03}"), "text": format!("number {n}")})).collect();
    node.add("first", json!(written));
    node.add("second", json!(written));
    let (mut uris, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let page = node.modern("resources/list", params).result();
        uris.extend(texts(&page["resources"], "uri"));
        match page.get("nextCursor") {
            Some(next) => cursor = next.clone(),
            None => break,
        }
    }
    let listed = uris.len();
    assert!(uris.is_sorted(), "the order is fixed");
    uris.dedup();
    assert_eq!((listed, uris.len()), (260, 260));
    assert_eq!(error_code(&node.modern("resources/list", json!({"cursor": "made up"}))), -32602);
}

#[test]
fn a_document_is_read_whole_by_its_template() {
    let node = TestNode::start();
    let text: String = (0..3_000).map(|n| format!("Sentence number {n} stands here.\n\n")).collect();
    node.add("notes", json!([{"id": "long.txt", "text": text, "media_type": "text/plain"}]));
    let templates = node.modern("resources/templates/list", json!({})).result();
    let template = templates["resourceTemplates"][0]["uriTemplate"].as_str().expect("a template").to_owned();
    let uri = template.replace("{collection}", "notes").replace("{+document}", "long.txt");
    let read = node.modern("resources/read", json!({ "uri": uri })).result();
    let read = read["contents"][0]["text"].as_str().expect("text");
    for n in [0, 1, 1_500, 2_999] {
        let sentence = format!("Sentence number {n} stands here.");
        assert_eq!(read.matches(&sentence).count(), 1, "{sentence}");
    }
}

#[test]
fn the_list_of_tools_names_the_collections_and_stays_what_it_is() {
    let node = TestNode::start();
    let tools = || node.modern("tools/list", json!({})).result()["tools"].take();
    let named = |tools: &Value| tools[0]["inputSchema"]["properties"]["collections"]["description"].clone();
    let empty = tools();
    assert!(!named(&empty).as_str().expect("a description").contains("There are"), "{empty}");
    node.call("create_collection", json!({"name": "parts", "description": "What can be ordered"}));
    node.add("parts", json!([{"id": "a", "text": "alpha"}]));
    node.add("notes", json!([{"id": "a", "text": "alpha"}, {"id": "b", "text": "beta"}]));
    let some = tools();
    assert_says(
        named(&some).as_str().expect("a description"),
        &["There are notes (2 documents), parts (1 documents: What can be ordered)."],
    );
    assert_eq!(tools(), some);
    assert_eq!(node.legacy("tools/list", json!({})).result()["tools"], some);
    // What experts set is taken, and not shown.
    assert!(some[0]["inputSchema"]["properties"].get("dense_weight").is_none());
    assert_eq!(hits(&node.call("search", json!({"query": "beta", "dense_weight": 0.1, "fusion": "convex"})))[0], "b");
}

#[test]
fn a_missing_resource_is_an_invalid_parameter() {
    let node = TestNode::start();
    for uri in ["ctx://00000000/notes/a", "file:///etc/passwd", "ctx://", "ctx://x/../../etc/passwd"] {
        let answer = node.modern("resources/read", json!({ "uri": uri }));
        assert_eq!(error_code(&answer), -32602, "{uri}");
    }
}

#[test]
fn prompts_are_filled_in() {
    let node = TestNode::start();
    let prompts = node.modern("prompts/list", json!({})).result();
    assert_eq!(list(&prompts["prompts"]).len(), 2);
    for prompt in list(&prompts["prompts"]) {
        let required = list(&prompt["arguments"]).iter().filter(|argument| argument["required"] == true);
        let arguments: Value = required
            .map(|argument| (argument["name"].as_str().expect("a name").to_owned(), json!("tidal-energy")))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let filled = node.modern("prompts/get", json!({"name": prompt["name"], "arguments": arguments})).result();
        assert_says(filled["messages"][0]["content"]["text"].as_str().expect("text"), &["tidal-energy", "search"]);
        let empty = node.modern("prompts/get", json!({"name": prompt["name"], "arguments": {}}));
        assert_eq!(error_code(&empty), -32602);
    }
    assert_eq!(error_code(&node.modern("prompts/get", json!({"name": "nothing"}))), -32602);
}

#[test]
fn collections_and_documents_are_completed() {
    let node = TestNode::start();
    for (collection, ids) in [("manual", ["install.md", "introduction.md"]), ("mails", ["a", "b"])] {
        let documents: Vec<Value> = ids.iter().map(|id| json!({"id": id, "text": "words"})).collect();
        node.add(collection, json!(documents));
    }
    let complete = |reference: Value, name: &str, value: &str, context: Value| {
        let params =
            json!({"ref": reference, "argument": {"name": name, "value": value}, "context": {"arguments": context}});
        let completion = node.modern("completion/complete", params).result()["completion"].take();
        list(&completion["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let prompt = json!({"type": "ref/prompt", "name": "summarize_collection"});
    let template = json!({"type": "ref/resource", "uri": "ctx://node/{collection}/{+document}"});
    assert_eq!(complete(prompt.clone(), "collection", "ma", json!({})), ["mails", "manual"]);
    assert_eq!(complete(prompt, "collection", "man", json!({})), ["manual"]);
    assert_eq!(complete(template.clone(), "document", "int", json!({"collection": "manual"})), ["introduction.md"]);
    assert_eq!(complete(template, "document", "x", json!({"collection": "manual"})), [""; 0]);
}

#[test]
fn long_work_reports_progress_to_those_who_ask() {
    let node = TestNode::start();
    let documents: Vec<Value> = (0..50).map(|n| json!({"id": n.to_string(), "text": format!("number {n}")})).collect();
    let arguments = json!({"collection": "notes", "documents": documents});
    let params = json!({"name": "add_documents", "arguments": arguments, "_meta": {"progressToken": "t-1"}});
    let messages = node.modern("tools/call", params).messages();
    let (last, reports) = messages.split_last().expect("an answer");
    assert_eq!(last["result"]["structuredContent"]["created"], 50, "{last}");
    assert!(!reports.is_empty());
    let mut before = -1.0;
    for report in reports {
        assert_eq!(
            (&report["method"], &report["params"]["progressToken"]),
            (&json!("notifications/progress"), &json!("t-1"))
        );
        let done = report["params"]["progress"].as_f64().expect("a number");
        assert!(done > before && done <= 50.0, "{report}");
        before = done;
    }
}

#[test]
fn a_search_is_answered_alike_on_every_way_in() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}, {"id": "b", "text": "alpha beta"}]));
    let url = format!("{}/v1/tools/search", node.base());
    for include in [json!([]), json!(["scores", "source", "metadata", "dates", "links", "searched", "structured"])] {
        let arguments = json!({"query": "alpha", "limit": 2, "include": include, "max_tokens": 4000});
        let params = json!({"name": "search", "arguments": arguments});
        let modern = node.modern("tools/call", params.clone()).result();
        // A request that asks for progress takes the long way.
        let mut long = params.clone();
        long["_meta"] = json!({"progressToken": 1});
        assert_eq!(node.modern("tools/call", long).result(), modern);
        let legacy = node.legacy("tools/call", params).result();
        assert_eq!(legacy["content"], modern["content"]);
        assert_eq!(legacy["structuredContent"], modern["structuredContent"]);
        let rest =
            node.request("POST", &url, &[("content-type", "application/json")], Some(arguments.to_string().as_bytes()));
        assert_eq!(rest.text, modern["content"][0]["text"].as_str().expect("text"), "REST gives the text itself");
        let is_all = include != json!([]);
        assert_eq!(modern["structuredContent"].is_object(), is_all, "{modern}");
        assert_eq!(list(&modern["content"]).len(), if is_all { 3 } else { 1 }, "{modern}");
        assert_eq!(hits(&rest.json()), ["a", "b"]);
    }
    let arguments = json!({"query": "alpha", "limit": 2});
    for id in [json!(0), json!("text"), json!(-7)] {
        let (headers, mut body) = modern_request("tools/call", json!({"name": "search", "arguments": arguments}));
        body["id"] = id.clone();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(node.post(&headers, &body.to_string()).json()["id"], id);
    }
}

#[test]
fn the_same_tools_are_served_as_rest() {
    let node = TestNode::start();
    let post = |tool: &str, body: &str| {
        let url = format!("{}/v1/tools/{tool}", node.base());
        node.request("POST", &url, &[("content-type", "application/json")], Some(body.as_bytes()))
    };
    let added = post("add_documents", r#"{"collection":"notes","documents":[{"id":"a","text":"alpha"}]}"#);
    assert_eq!((added.status, &added.json()["created"]), (200, &json!(1)));
    assert_eq!(hits(&post("search", r#"{"query":"alpha"}"#).json()), ["a"]);
    for (tool, body, status, code) in [
        ("search", "{}", 400, "bad_argument"),
        ("search", "{", 400, "bad_argument"),
        ("fetch", r#"{"id":"notes/b"}"#, 404, "not_found"),
        ("drop_tables", "{}", 404, "not_found"),
        ("create_collection", r#"{"name":"notes"}"#, 409, "conflict"),
    ] {
        let answer = post(tool, body);
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{tool} {body}");
    }
}

/// Plain searches are answered on a shorter way; a request that says more than it must goes the ordinary one.
#[test]
fn both_ways_to_a_search_give_the_same_bytes() {
    let node = TestNode::start();
    let text =
        "# Kites\n\nThe red kite, \"Milvus milvus\", is a bird of prey & keeps its forked tail – even in a gale.\u{1}";
    node.add(
        "notes",
        json!([{"id": "a b/ü.md", "text": text, "url": "https://example.org/?a=\"b\"", "metadata": {"n": 1.5}}]),
    );
    for arguments in
        [json!({"query": "forked tail"}), json!({"query": "kite", "detail": "snippet", "filter": {"n": 1.5}})]
    {
        let plain = json!({"name": "search", "arguments": arguments});
        let mut more = plain.clone();
        more["_meta"] = json!({"it/anything": true});
        for ask in [TestNode::modern, TestNode::legacy] {
            let (direct, ordinary) = (ask(&node, "tools/call", plain.clone()), ask(&node, "tools/call", more.clone()));
            assert_eq!(direct.result()["isError"], false);
            assert_eq!(direct.text, ordinary.text);
        }
    }
}

/// The messages of an answer that is a stream, as they come.
struct Messages {
    lines: std::io::Lines<BufReader<TcpStream>>,
}

impl Messages {
    fn open(node: &TestNode, method: &str, params: Value) -> Self {
        Self::open_with(node, "", method, params)
    }

    /// * `more`: lines of the head.
    fn open_with(node: &TestNode, more: &str, method: &str, params: Value) -> Self {
        let (headers, body) = modern_request(method, params);
        let body = body.to_string();
        let address = node.base().trim_start_matches("http://").to_owned();
        let mut socket = TcpStream::connect(&address).expect("connected");
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{more}{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).expect("sent");
        Self { lines: BufReader::new(socket).lines() }
    }

    fn next(&mut self) -> Value {
        let data = self.lines.find_map(|line| line.expect("readable").strip_prefix("data: ").map(str::to_owned));
        serde_json::from_str(&data.expect("the stream goes on")).expect("JSON")
    }

    /// Reads on until a message of each method has come; the last of them.
    fn until(&mut self, methods: &[&str]) -> Value {
        let mut missing = methods.to_vec();
        loop {
            let message = self.next();
            missing.retain(|method| message["method"] != *method);
            if missing.is_empty() {
                return message;
            }
        }
    }
}

#[test]
fn a_client_that_listens_hears_of_what_changed() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    let id = node.call("get_status", json!({}))["node"].as_str().expect("an id").to_owned();
    let uri = format!("ctx://{}/notes/a", &id[..8]);
    let filter = json!({
        "toolsListChanged": true, "resourcesListChanged": true, "promptsListChanged": true, "resourceSubscriptions": [uri],
    });
    let mut messages = Messages::open(&node, "subscriptions/listen", json!({ "notifications": filter }));
    let acknowledged = messages.next();
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    let accepted = &acknowledged["params"]["notifications"];
    assert_eq!((&accepted["toolsListChanged"], &accepted["promptsListChanged"]), (&json!(true), &Value::Null));
    // It takes none of the places of requests.
    assert_eq!(node.metric("cairn_requests_in_flight"), 0);
    // A new collection is in the list of tools and in that of resources.
    node.add("birds", json!([{"id": "b", "text": "beta"}]));
    messages.until(&["notifications/tools/list_changed", "notifications/resources/list_changed"]);
    node.add("notes", json!([{"id": "a", "text": "alpha, changed"}]));
    let document = messages.until(&["notifications/resources/updated"]);
    assert_eq!(document["params"]["uri"], uri, "{document}");
}

#[test]
fn notifications_end_with_their_token() {
    let node = TestNode::with_arguments(&OPEN, &[("CAIRN_SERVER_TLS", "off")]);
    let first = node.token.clone().expect("shown at the first start");
    let made = node.cairn_json(&["token", "create", "laptop", "--json"]);
    let laptop = made["token"].as_str().expect("shown this once").to_owned();
    wait_until("the new token", || status(&node, &laptop) == 200);
    let add = |text: &str| {
        let arguments = json!({"collection": "notes", "documents": [{"id": "a", "text": text}]});
        let (url, bearer) = (format!("{}/v1/tools/add_documents", node.base()), format!("Bearer {first}"));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = node.request("POST", &url, &headers, Some(arguments.to_string().as_bytes()));
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    add("one");
    let more = format!("Authorization: Bearer {laptop}\r\nConnection: close\r\n");
    let params = json!({"notifications": {"resourcesListChanged": true}});
    let mut messages = Messages::open_with(&node, &more, "subscriptions/listen", params);
    messages.until(&["notifications/subscriptions/acknowledged"]);
    add("two");
    messages.until(&["notifications/resources/list_changed"]);
    node.cairn_json(&["token", "revoke", "laptop", "--json"]);
    wait_until("the refusal", || status(&node, &laptop) == 401);
    add("three");
    let rest: Vec<String> = messages.lines.map(|line| line.expect("readable")).collect();
    assert!(!rest.iter().any(|line| line.contains("list_changed")), "{rest:?}");
}
