//! A search answered without the protocol library: the path that agents take thousands of times a second.
//!
//! Only a request in its simplest form is answered here: every field known, nothing optional in use, headers and body
//! in agreement. Anything else gets `None` and takes the ordinary path, so the protocol's rules stay in one place. Both
//! paths give identical bytes for the same request; a test compares them. The whole result is stored as text with the
//! cached answer, so a repeated query costs a lookup and a copy.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answers::SearchAnswer;
use super::{Arguments, ErrorCode, Link, Tool, ToolAnswer, ToolError};
use crate::auth::Caller;

const MODERN: &str = "2026-07-28";
const LEGACY: [&str; 2] = ["2025-11-25", "2025-06-18"];

/// The protocol's headers as a request carried them; `None` where one is absent.
#[derive(Debug, Clone, Copy)]
pub struct Wire<'a> {
    /// `MCP-Protocol-Version`.
    pub version: &'a str,
    /// `Mcp-Method`.
    pub method: Option<&'a str>,
    /// `Mcp-Name`.
    pub name: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    jsonrpc: &'a str,
    #[serde(borrow)]
    id: &'a RawValue,
    method: &'a str,
    params: Params,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    name: String,
    arguments: Arguments,
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: String,
    #[serde(rename = "io.modelcontextprotocol/clientInfo")]
    _client: Client,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    _capabilities: Capabilities,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "version")]
    _version: String,
    #[serde(rename = "title")]
    _title: Option<String>,
}

/// Clients that can do more than the plainest may be owed more than the plainest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {}

/// A search's answer as text, ready to be sent.
#[derive(Debug)]
pub(super) struct Rendered {
    /// The answer as JSON: the text block.
    text: String,
    links: Vec<Link>,
    /// The members of the tool result, without the braces around them.
    members: String,
}

#[derive(Serialize)]
struct Text<'a> {
    r#type: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinkBlock<'a> {
    r#type: &'static str,
    uri: &'a str,
    name: &'a str,
    title: &'a str,
    mime_type: &'static str,
}

impl<'a> LinkBlock<'a> {
    pub(super) fn new(link: &'a Link) -> Self {
        let Link { uri, name, title } = link;
        Self { r#type: "resource_link", uri, name, title, mime_type: "text/plain" }
    }
}

impl Rendered {
    /// * `structured`: whether the answer also contains structured content.
    pub(super) fn new(answer: &SearchAnswer<'_>, links: Vec<Link>, structured: bool) -> Self {
        let write = "plain data serialises";
        let text = serde_json::to_string(answer).expect(write);
        let mut members = String::with_capacity(text.len() * 5 / 4 + links.len() * 256 + 64);
        members.push_str("\"content\":[");
        members.push_str(&serde_json::to_string(&Text { r#type: "text", text: &text }).expect(write));
        for link in &links {
            members.push(',');
            members.push_str(&serde_json::to_string(&LinkBlock::new(link)).expect(write));
        }
        members.push(']');
        if structured {
            members.push_str(",\"structuredContent\":");
            members.push_str(&text);
        }
        members.push_str(",\"isError\":false");
        Self { text, links, members }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> u64 {
        let links =
            self.links.iter().map(|link| 128 + link.uri.len() + link.name.len() + link.title.len()).sum::<usize>();
        (self.text.len() + self.members.len() + links) as u64
    }

    /// The same for the ordinary way.
    pub(super) fn to_answer(&self) -> ToolAnswer {
        ToolAnswer {
            structured: serde_json::from_str(&self.text).expect("written by serde_json"),
            text: self.text.clone(),
            links: self.links.clone(),
        }
    }
}

impl super::NodeTools {
    /// The answer of a search as JSON text.
    ///
    /// # Errors
    /// As [`super::ToolProvider::call`].
    pub async fn search_as_text(&self, arguments: Arguments, caller: &Caller) -> Result<String, ToolError> {
        self.search(arguments, caller).await.map(|rendered| rendered.text.clone())
    }

    /// The JSON-RPC response to `body`, if it is a search in its plainest form; `None` when it has to go the ordinary way. Where
    /// there is no room for it, it is refused: going the ordinary way would only cost more.
    pub async fn search_directly(
        &self,
        wire: Wire<'_>,
        body: &[u8],
        caller: &Caller,
    ) -> Option<Result<Vec<u8>, ToolError>> {
        let request: Request<'_> = serde_json::from_slice(body).ok()?;
        let Params { name, arguments, meta } = request.params;
        let is_search = request.jsonrpc == "2.0" && request.method == "tools/call" && name == Tool::Search.name();
        let is_modern = match (&meta, wire) {
            (Some(meta), Wire { version: MODERN, method: Some("tools/call"), name: Some("search") }) => {
                meta.version == MODERN
            }
            (None, Wire { version, method: None, name: None }) if LEGACY.contains(&version) => false,
            _ => return None,
        };
        if !is_search || is_modern != meta.is_some() || !is_plain_id(request.id.get()) {
            return None;
        }
        let searched: Result<Arc<Rendered>, ToolError> = self.search(arguments, caller).await;
        let failure;
        let members = match &searched {
            Ok(rendered) => rendered.members.as_str(),
            Err(error) if error.code == ErrorCode::Overloaded => return Some(Err(error.clone())),
            Err(error) => {
                let mut result = super::server::failure(error);
                // Written below, where it is due.
                result.result_type = None;
                failure = serde_json::to_string(&result).expect("plain data serialises");
                // Without the braces around them.
                &failure[1..failure.len() - 1]
            }
        };
        let id = request.id.get();
        let mut response = Vec::with_capacity(members.len() + id.len() + 64);
        response.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        response.extend_from_slice(id.as_bytes());
        response.extend_from_slice(b",\"result\":{");
        if is_modern {
            response.extend_from_slice(b"\"resultType\":\"complete\",");
        }
        response.extend_from_slice(members.as_bytes());
        response.extend_from_slice(b"}}");
        Some(Ok(response))
    }
}

/// A whole number or a text without escapes: what is echoed byte for byte.
fn is_plain_id(id: &str) -> bool {
    let number =
        id.len() <= 15 && id.bytes().all(|byte| byte.is_ascii_digit()) && (id.len() == 1 || !id.starts_with('0'));
    let text = id.len() <= 256 && id.starts_with('"') && !id.contains('\\');
    number || text
}
