//! What servers of either era answer, and what is made of it.

use std::cell::RefCell;

use super::*;
use crate::deploy::cluster::ObjectKey;
use crate::migrate::cutover::input::InputObject;

fn answer(status: u16, kind: &'static str, body: &str) -> HttpAnswer {
    let headers = vec![("content-type".to_owned(), kind.to_owned())];
    HttpAnswer { status, headers, body: body.as_bytes().to_vec() }
}

/// An event of a stream, after one with a notification.
fn event(message: &Value) -> String {
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    format!(": hello\n\ndata: {notification}\n\nevent: message\ndata: {message}\n\n")
}

fn result(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// A server with sessions, whose answers are streams, and whose tools are on two pages.
fn legacy_server(
    path: &str,
    headers: &[(&'static str, String)],
    body: Option<&Value>,
    calls: &RefCell<Vec<String>>,
) -> HttpAnswer {
    if path != "/mcp" {
        return answer(404, "text/plain", "not found");
    }
    let header = |name: &str| headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
    let Some(body) = body else {
        calls.borrow_mut().push("DELETE".to_owned());
        return answer(200, "text/plain", "");
    };
    let method = body["method"].as_str().unwrap_or_default();
    calls.borrow_mut().push(method.to_owned());
    if method == "initialize" {
        let info = json!({"name": "old\u{7}", "version": "1"});
        let init = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info});
        let mut answer = answer(200, "text/event-stream", &event(&result(&body["id"], init)));
        answer.headers.push(("mcp-session-id".to_owned(), "s1".to_owned()));
        return answer;
    }
    assert_eq!((header("mcp-session-id"), header("mcp-protocol-version")), (Some("s1"), Some("2025-06-18")));
    let tools = match body.pointer("/params/cursor") {
        _ if method != "tools/list" => return answer(202, "text/plain", ""),
        None => json!({"tools": [{"name": "a"}, {"name": "b"}], "nextCursor": "2"}),
        Some(_) => json!({"tools": [{"name": "c"}]}),
    };
    answer(200, "text/event-stream; charset=utf-8", &event(&result(&body["id"], tools)))
}

/// A server without `initialize`.
fn modern_server(headers: &[(&'static str, String)], body: &Value) -> HttpAnswer {
    let header = |name: &str| headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
    let method = body["method"].as_str().unwrap_or_default();
    let error = |status, code: i64| {
        let error = json!({"jsonrpc": "2.0", "id": body["id"], "error": {"code": code, "message": "m"}});
        answer(status, "application/json", &error.to_string())
    };
    if header("mcp-method") != Some(method) {
        return error(400, -32020);
    }
    let meta = &body["params"]["_meta"];
    if meta["io.modelcontextprotocol/protocolVersion"].as_str() != header("mcp-protocol-version") {
        return error(400, -32602);
    }
    let found = match method {
        "server/discover" => json!({
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "new", "version": "2"}},
        }),
        "tools/list" => json!({"tools": [{"name": "a"}]}),
        _ => return error(404, -32601),
    };
    answer(200, "application/json", &result(&body["id"], found).to_string())
}

fn paths() -> Vec<String> {
    ["/", "/mcp"].map(str::to_owned).to_vec()
}

#[test]
fn a_server_with_sessions_is_asked_in_its_own_version_and_its_pages_are_counted() {
    let calls = RefCell::default();
    let send = |_: &'static str, path: &str, headers: &[(&'static str, String)], body: Option<&Value>| {
        Ok(legacy_server(path, headers, body, &calls))
    };
    let Heard::Server(server) = ask(&send, 8000, &paths()) else { panic!("a server") };
    let expected = McpServer {
        tools: Some(3),
        protocol: "2025-06-18".to_owned(),
        server: "old 1".to_owned(),
        endpoint: "8000/mcp".to_owned(),
    };
    assert_eq!(server, expected);
    assert_eq!(calls.into_inner(), ["initialize", "notifications/initialized", "tools/list", "tools/list", "DELETE"]);
}

#[test]
fn a_server_without_initialize_is_discovered() {
    let send = |_: &'static str, _: &str, headers: &[(&'static str, String)], body: Option<&Value>| {
        Ok(modern_server(headers, body.expect("a body")))
    };
    let Heard::Server(server) = ask(&send, 80, &paths()) else { panic!("a server") };
    assert_eq!((server.tools, server.protocol.as_str(), server.server.as_str()), (Some(1), "2026-07-28", "new 2"));
}

#[test]
fn what_is_not_a_server_is_distinguished() {
    let of = |answer: HttpAnswer| {
        let send = move |_: &'static str, _: &str, _: &[(&'static str, String)], _: Option<&Value>| Ok(answer.clone());
        ask(&send, 80, &paths())
    };
    assert!(matches!(of(answer(200, "text/html", "<html>")), Heard::NotMcp(_)));
    assert!(matches!(of(answer(200, "application/json", "{\"ok\": true}")), Heard::NotMcp(_)));
    assert!(matches!(of(answer(401, "text/plain", "")), Heard::Server(McpServer { tools: None, .. })));
    let proxy = |message: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "code": 503, "message": message});
        of(answer(503, "application/json", &status.to_string()))
    };
    let refused = "error trying to reach service: dial tcp 10.42.0.7:80: connect: connection refused";
    assert_eq!(proxy(refused), Heard::Nothing(refused.to_owned()));
    assert_eq!(
        proxy("error trying to reach service: net/http: HTTP/1.x transport connection broken: malformed HTTP response"),
        Heard::NotHttp
    );
    let init = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}});
    let only_first = |_: &'static str, _: &str, _: &[(&'static str, String)], body: Option<&Value>| {
        let body = body.expect("a body");
        Ok(match body["method"] == "initialize" {
            true => answer(200, "application/json", &result(&body["id"], init.clone()).to_string()),
            false => answer(500, "text/plain", "no"),
        })
    };
    assert!(matches!(ask(&only_first, 80, &paths()), Heard::Broken(_)));
}

#[test]
fn a_stream_is_read_only_as_far_as_its_events_have_ended() {
    let message = result(&json!(1), json!({}));
    let whole = event(&message);
    let of = |bytes: &[u8]| messages(&HttpAnswer { body: bytes.to_vec(), ..answer(200, "text/event-stream", "") });
    assert_eq!(of(whole.as_bytes()), std::slice::from_ref(&message));
    assert_eq!(of(whole.replace('\n', "\r\n").as_bytes()), [message]);
    assert_eq!(of(&whole.as_bytes()[..whole.len() - 1]), Vec::<Value>::new());
    assert_eq!(of(b"\xff\xfe"), Vec::<Value>::new());
}

#[test]
fn servers_are_known_by_label_image_and_variables_and_not_by_a_port() {
    let template = |labels: Value, image: &str, env: Value| json!({"metadata": {"labels": labels}, "spec": {"containers": [{"image": image, "env": env, "ports": [{"containerPort": 8000}]}]}});
    let known = |labels, image, env| known_by(&template(labels, image, env));
    assert_eq!(known(json!({"app.kubernetes.io/component": "mcp-server"}), "a", json!([])), Some("its label"));
    assert_eq!(known(json!({}), "acme/github-mcp:1", json!([])), Some("its image"));
    assert_eq!(known(json!({}), "a", json!([{"name": "MCP_MODE", "value": "x"}])), Some("its variables"));
    assert_eq!(known(json!({}), "acme/mcpx", json!([])), None);
    let stdio = template(json!({}), "a", json!([{"name": "MCP_TRANSPORT", "value": "stdio"}]));
    assert!(is_stdio(&stdio) && !is_stdio(&template(json!({}), "a", json!([]))));
}

#[test]
fn ports_come_from_services_containers_and_variables_and_others_protocols_are_left_out() {
    let labels = json!({"a": "b"});
    let container = json!({
        "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 5432}],
        "env": [{"name": "PORT", "value": "9000"}],
    });
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 8081}, {"port": 82}]},
    });
    let key = ObjectKey::of(&service, "s").expect("an object");
    let objects = vec![InputObject { key, object: service, file: String::new() }];
    let input = Input {
        stack: "s".to_owned(),
        namespace: "s".to_owned(),
        objects,
        open: Vec::new(),
        phases: Vec::new(),
        depends_on: Default::default(),
    };
    assert_eq!(ports(&input, &template), [8080, 8081, 82, 9000]);
}
