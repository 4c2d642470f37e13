//! Whether a service is an MCP server, and whether it answers: `initialize` or `server/discover`, then `tools/list`, over Streamable HTTP.
//!
//! A server is known by the label that a conversion wrote, by its image, by its variables, or by answering; a port alone says nothing. It
//! is asked through the API server, which reaches pods from outside the cluster. Invariants: nothing but these methods is called; what a
//! server answers is bounded, and shown without control characters.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::input::Input;
use super::plan::{containers, selects, template};
use crate::deploy::cluster::{ApiError, HttpAnswer, HttpRequest, ObjectApi};

/// The last version with `initialize`; an older server answers with its own.
const LEGACY: &str = "2025-11-25";
/// The first version with `server/discover`.
const MODERN: &str = "2026-07-28";
/// Paths that servers answer at.
const PATHS: [&str; 3] = ["/mcp", "/", "/mcp/"];
/// Variables that name the path.
const PATH_VARIABLES: [&str; 4] = ["MCP_PATH", "MCP_HTTP_PATH", "MCP_ENDPOINT", "FASTMCP_STREAMABLE_HTTP_PATH"];
/// Variables that name the port.
const PORT_VARIABLES: [&str; 4] = ["MCP_PORT", "MCP_HTTP_PORT", "FASTMCP_PORT", "PORT"];
/// Ports of protocols that are not HTTP: a request there is only noise in a log.
const OTHER_PORTS: [u16; 13] = [22, 25, 53, 1883, 3306, 4222, 5432, 5672, 6379, 9092, 11211, 27017, 50051];
/// Most ports of a service that are asked.
const PORTS_MAX: usize = 8;
/// For one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The same of what nothing says is an MCP server.
const GUESS: Duration = Duration::from_secs(3);
/// Most bytes of an answer: the descriptions of many tools are long.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Most pages of a list of tools.
const PAGES_MAX: usize = 50;

/// A server that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct McpServer {
    /// How many tools it has; `None` where it wants a token before it lists them.
    pub tools: Option<u64>,
    /// The version of the protocol; nothing where it wants a token first.
    pub protocol: String,
    /// Its name and version; nothing where it does not say.
    pub server: String,
    /// Where it answered: `8080/mcp`.
    pub endpoint: String,
}

impl McpServer {
    /// For people.
    #[must_use]
    pub fn words(&self) -> String {
        let name = if self.server.is_empty() { String::new() } else { format!(" of {}", self.server) };
        match self.tools {
            Some(tools) => format!("{tools} tools{name} at {} (MCP {})", self.endpoint, self.protocol),
            None => format!("it wants a token at {}; its tools were not listed", self.endpoint),
        }
    }
}

/// What is known of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It is not an MCP server, as far as is known.
    Other,
    /// It is one, and cannot be asked over HTTP; why.
    Unasked(String),
    /// It answered.
    Answers(McpServer),
    /// It is one, and does not answer; in words.
    Silent(String),
}

/// By what a service is known to be an MCP server; `None` where nothing says so.
pub(super) fn known_by(template: &Value) -> Option<&'static str> {
    let is_word = |text: &str| {
        text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word.eq_ignore_ascii_case("mcp"))
    };
    let labels = template.pointer("/metadata/labels");
    if labels.is_some_and(|labels| labels["app.kubernetes.io/component"] == "mcp-server") {
        return Some("its label");
    }
    if containers(template).any(|container| container["image"].as_str().is_some_and(is_word)) {
        return Some("its image");
    }
    variables(template).any(|(name, _)| name.starts_with("MCP_")).then_some("its variables")
}

/// The variables of a pod's containers that have a value.
fn variables(template: &Value) -> impl Iterator<Item = (&str, &str)> {
    let main = template.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    main.flat_map(|container| container["env"].as_array().into_iter().flatten())
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str().unwrap_or_default())))
}

/// Whether the servers of a pod speak on standard input and output.
fn is_stdio(template: &Value) -> bool {
    let by_variable =
        variables(template).any(|(name, value)| name.ends_with("TRANSPORT") && value.eq_ignore_ascii_case("stdio"));
    let main = || template.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let words = main().flat_map(|container| ["command", "args"].map(|field| &container[field]));
    let mut words = words.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    by_variable || words.any(|word| matches!(word, "stdio" | "--stdio" | "--transport=stdio"))
}

/// Ports that a pod may answer HTTP at: those that its Services lead to, those of its containers, and those that its variables name.
fn ports(input: &Input, template: &Value) -> Vec<u16> {
    let main = || template.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let declared: Vec<&Value> = main().flat_map(|one| one["ports"].as_array().into_iter().flatten()).collect();
    let is_tcp = |port: &Value| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let mut found = Vec::new();
    let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
    let services = input.objects.iter().filter(|object| object.key.kind == "Service");
    for service in services.filter(|service| selects(&service.object, &labels)) {
        let ports = service.object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
        for port in ports.filter(|port| is_tcp(port)) {
            found.extend(match port.get("targetPort") {
                Some(Value::String(name)) => declared
                    .iter()
                    .find(|port| port["name"] == name.as_str())
                    .and_then(|port| number(&port["containerPort"])),
                Some(target) => number(target),
                None => number(&port["port"]),
            });
        }
    }
    found.extend(declared.iter().filter(|port| is_tcp(port)).filter_map(|port| number(&port["containerPort"])));
    let named = variables(template).filter(|(name, _)| PORT_VARIABLES.contains(name));
    found.extend(named.filter_map(|(_, value)| value.parse::<u16>().ok()).filter(|port| *port > 0));
    let mut seen = BTreeSet::new();
    found.retain(|port| !OTHER_PORTS.contains(port) && seen.insert(*port));
    found.truncate(PORTS_MAX);
    found
}

/// Asks a pod of a workload whether it is an MCP server.
pub(super) fn gate(api: &ObjectApi, input: &Input, workload: &Value, pod: &str) -> Gate {
    let Some(template) = template(workload) else { return Gate::Other };
    let known = known_by(template);
    if is_stdio(template) {
        let reason = "it speaks on standard input and output, which nothing in a cluster reaches";
        return if known.is_some() { Gate::Unasked(reason.to_owned()) } else { Gate::Other };
    }
    let ports = ports(input, template);
    let mut paths: Vec<String> = variables(template)
        .filter(|(name, value)| PATH_VARIABLES.contains(name) && value.starts_with('/'))
        .map(|(_, value)| value.to_owned())
        .collect();
    paths.extend(PATHS.map(str::to_owned));
    let timeout = if known.is_some() { ANSWER } else { GUESS };
    let mut heard = Vec::new();
    for port in ports {
        let over = |scheme: &str| {
            let start = format!("/api/v1/namespaces/{}/pods/{scheme}{pod}:{port}/proxy", input.namespace);
            let send = |method: &'static str, path: &str, headers: &[(&'static str, String)], body: Option<&Value>| {
                let request = HttpRequest {
                    method,
                    path: &format!("{start}{path}"),
                    headers: headers.to_vec(),
                    body: body.map(|body| body.to_string().into_bytes()).unwrap_or_default(),
                    timeout,
                    body_bytes: ANSWER_BYTES_MAX,
                };
                api.send(&request, |answer| is_stream(answer) && !messages(answer).is_empty())
            };
            ask(&send, port, &paths)
        };
        let mut found = over("");
        if known.is_some() && found.may_be_tls() {
            let encrypted = over("https:");
            if matches!(encrypted, Heard::Server(_) | Heard::Broken(_)) {
                found = encrypted;
            }
        }
        match found {
            Heard::Server(server) if server.tools.is_some() => return Gate::Answers(server),
            found => heard.push((port, found)),
        }
    }
    if known.is_some() {
        // Another port of it may be the one that lists tools, so this counts after all of them.
        let wants_token = heard.iter().find_map(|(_, heard)| match heard {
            Heard::Server(server) => Some(server.clone()),
            _ => None,
        });
        if let Some(server) = wants_token {
            return Gate::Answers(server);
        }
    }
    if known.is_none() {
        return match heard.into_iter().find_map(|(port, heard)| heard.broken().map(|words| (port, words))) {
            Some((port, words)) => Gate::Silent(format!("port {port}: {words}")),
            None => Gate::Other,
        };
    }
    let by = known.unwrap_or_default();
    if heard.is_empty() {
        return Gate::Unasked(format!("an MCP server by {by}, and no port of it is known"));
    }
    if heard.iter().all(|(_, heard)| matches!(heard, Heard::NotHttp)) {
        return Gate::Unasked(format!("an MCP server by {by}, and none of its ports speaks HTTP"));
    }
    let words: Vec<String> = heard.iter().map(|(port, heard)| format!("port {port}: {}", heard.words())).collect();
    Gate::Silent(format!("an MCP server by {by}, and it does not answer: {}", words.join("; ")))
}

/// Sends to one port of a pod.
type Send<'a> =
    dyn Fn(&'static str, &str, &[(&'static str, String)], Option<&Value>) -> Result<HttpAnswer, ApiError> + 'a;

/// What a port answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    /// A server, with its tools.
    Server(McpServer),
    /// A server that does not list its tools.
    Broken(String),
    /// Something else that speaks HTTP.
    NotMcp(String),
    /// Something that does not.
    NotHttp,
    /// Nothing.
    Nothing(String),
}

impl Heard {
    /// Whether the port may speak TLS: what speaks it answers 400, or nothing that is HTTP.
    fn may_be_tls(&self) -> bool {
        match self {
            Self::NotHttp => true,
            Self::NotMcp(words) => words.starts_with("HTTP 400"),
            _ => false,
        }
    }

    fn broken(&self) -> Option<String> {
        matches!(self, Self::Broken(_)).then(|| self.words())
    }

    fn words(&self) -> String {
        match self {
            Self::Server(server) => server.words(),
            Self::Broken(words) | Self::NotMcp(words) | Self::Nothing(words) => words.clone(),
            Self::NotHttp => "it does not speak HTTP".to_owned(),
        }
    }
}

/// Asks one port, path after path.
fn ask(send: &Send<'_>, port: u16, paths: &[String]) -> Heard {
    let mut last = Heard::Nothing("no answer".to_owned());
    for path in paths {
        match converse(send, port, path) {
            Heard::NotMcp(words) => last = Heard::NotMcp(words),
            heard => return heard,
        }
    }
    last
}

/// Asks one path: the older way, then the newer.
fn converse(send: &Send<'_>, port: u16, path: &str) -> Heard {
    let endpoint = format!("{port}{path}");
    let client = json!({"name": "cairn", "version": env!("CARGO_PKG_VERSION")});
    let parameters = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client});
    let answer = match send("POST", path, &headers(None), Some(&request(1, "initialize", &parameters))) {
        Ok(answer) => answer,
        Err(error) => return Heard::Nothing(error.to_string()),
    };
    if matches!(answer.status, 401 | 403) {
        let server = McpServer { tools: None, protocol: String::new(), server: String::new(), endpoint };
        return Heard::Server(server);
    }
    if let Some(words) = unreached(&answer) {
        // What Go's client says of an answer in another protocol, and of a connection that is closed instead of one.
        let is_other = words.contains("malformed HTTP") || words.contains("EOF") || words.contains("reset by peer");
        return if is_other { Heard::NotHttp } else { Heard::Nothing(words) };
    }
    let message = response(&answer, 1);
    let result = message.as_ref().and_then(|message| message.get("result"));
    let version = result.and_then(|result| result["protocolVersion"].as_str());
    match (result, version) {
        (Some(result), Some(version)) => legacy(send, endpoint, path, &answer, result, version),
        // A server of the newer era says in JSON-RPC that it does not know the method, or misses its headers.
        _ if message.is_some() || answer.status == 400 => modern(send, endpoint, path, &client, answer.status),
        _ => Heard::NotMcp(format!("HTTP {} at {path}", answer.status)),
    }
}

/// The headers of every request.
fn headers(version: Option<&str>) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
    ];
    headers.extend(version.map(|version| ("mcp-protocol-version", version.to_owned())));
    headers
}

fn request(id: usize, method: &str, parameters: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters})
}

fn legacy(send: &Send<'_>, endpoint: String, path: &str, answer: &HttpAnswer, result: &Value, version: &str) -> Heard {
    let mut headers = headers(Some(version));
    let session = answer.header("mcp-session-id").map(str::to_owned);
    headers.extend(session.clone().map(|id| ("mcp-session-id", id)));
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    // It has no answer to go by.
    let _ = send("POST", path, &headers, Some(&notification));
    let server =
        McpServer { tools: Some(0), protocol: printable(version), server: name_of(&result["serverInfo"]), endpoint };
    let tools = match result["capabilities"].get("tools") {
        Some(_) => tools(send, path, &headers, &json!({})),
        None => Ok(0),
    };
    if session.is_some() {
        let _ = send("DELETE", path, &headers, None);
    }
    match tools {
        Ok(tools) => Heard::Server(McpServer { tools: Some(tools), ..server }),
        Err(words) => Heard::Broken(format!("it answered initialize, and not tools/list: {words}")),
    }
}

fn modern(send: &Send<'_>, endpoint: String, path: &str, client: &Value, before: u16) -> Heard {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": client,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let parameters = json!({"_meta": meta});
    let mut with_method = headers(Some(MODERN));
    with_method.push(("mcp-method", "server/discover".to_owned()));
    let answer = send("POST", path, &with_method, Some(&request(1, "server/discover", &parameters)));
    let result = answer.as_ref().ok().and_then(|answer| response(answer, 1)?.get("result").cloned());
    let Some(result) = result.filter(|result| result["supportedVersions"].is_array()) else {
        return Heard::NotMcp(format!("HTTP {before} at {path}"));
    };
    let info = result.pointer("/_meta/io.modelcontextprotocol~1serverInfo").unwrap_or(&result["serverInfo"]);
    let server = McpServer { tools: Some(0), protocol: MODERN.to_owned(), server: name_of(info), endpoint };
    let tools = match result["capabilities"].get("tools") {
        Some(_) => tools(send, path, &headers(Some(MODERN)), &parameters),
        None => Ok(0),
    };
    match tools {
        Ok(tools) => Heard::Server(McpServer { tools: Some(tools), ..server }),
        Err(words) => Heard::Broken(format!("it answered server/discover, and not tools/list: {words}")),
    }
}

/// How many tools a server lists.
fn tools(send: &Send<'_>, path: &str, headers: &[(&'static str, String)], parameters: &Value) -> Result<u64, String> {
    let (mut count, mut parameters) = (0, parameters.clone());
    let mut headers = headers.to_vec();
    headers.push(("mcp-method", "tools/list".to_owned()));
    for page in 0..PAGES_MAX {
        let id = page + 2;
        let answer = send("POST", path, &headers, Some(&request(id, "tools/list", &parameters)));
        let answer = answer.map_err(|error| error.to_string())?;
        let message = response(&answer, id).ok_or_else(|| format!("HTTP {}", answer.status))?;
        if let Some(error) = message.get("error") {
            return Err(printable(error["message"].as_str().unwrap_or("an error")));
        }
        let list = message.pointer("/result/tools").and_then(Value::as_array);
        count += list.ok_or("its result has no tools")?.len() as u64;
        match message.pointer("/result/nextCursor").and_then(Value::as_str) {
            Some(cursor) => parameters["cursor"] = cursor.into(),
            None => return Ok(count),
        }
    }
    Err(format!("more than {PAGES_MAX} pages of tools"))
}

/// Why the API server did not reach the pod, in its words; `None` where the pod answered.
fn unreached(answer: &HttpAnswer) -> Option<String> {
    let status: Value = serde_json::from_slice(&answer.body).ok()?;
    let is_of_server = status["kind"] == "Status" && status["apiVersion"] == "v1" && answer.status >= 400;
    is_of_server.then(|| printable(status["message"].as_str().unwrap_or("the API server does not reach it")))
}

fn is_stream(answer: &HttpAnswer) -> bool {
    let kind = answer.header("content-type").unwrap_or_default();
    kind.to_ascii_lowercase().starts_with("text/event-stream")
}

/// The response to a request, among what an answer holds.
fn response(answer: &HttpAnswer, id: usize) -> Option<Value> {
    let is_response = |message: &Value| {
        let is_own = message["id"] == id || message.get("id").is_none_or(Value::is_null);
        message["jsonrpc"] == "2.0" && is_own && (message.get("result").is_some() || message.get("error").is_some())
    };
    messages(answer).into_iter().find(is_response)
}

/// The responses in a body, which is JSON or a stream of events.
fn messages(answer: &HttpAnswer) -> Vec<Value> {
    if !is_stream(answer) {
        return serde_json::from_slice(&answer.body).into_iter().collect();
    }
    let text = String::from_utf8_lossy(&answer.body).replace("\r\n", "\n").replace('\r', "\n");
    let mut found = Vec::new();
    // What follows the last empty line has not ended.
    let Some((whole, _)) = text.rsplit_once("\n\n") else { return found };
    for event in whole.split("\n\n") {
        let data: Vec<&str> = event
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.strip_prefix(' ').unwrap_or(data))
            .collect();
        // A stream may have notifications before the response.
        let message = serde_json::from_str::<Value>(&data.join("\n")).ok();
        found.extend(message.filter(|message| message.get("result").is_some() || message.get("error").is_some()));
    }
    found
}

fn name_of(info: &Value) -> String {
    let text = |name: &str| info[name].as_str().unwrap_or_default();
    printable(format!("{} {}", text("name"), text("version")).trim())
}

/// A text of a server, for people: short, and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(120).collect()
}

#[cfg(test)]
#[path = "mcp_test.rs"]
mod tests;
