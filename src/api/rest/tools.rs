//! The tools, as MCP clients call them.

use axum::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::endpoint::{Endpoint, EndpointRequest, NoBody, Nothing, Payload, RawJson, Reply, media_type, object};
use super::node::Anything;
use super::problem::Failure;
use crate::calls::{Operation, Scope};
use crate::mcp::{Arguments, Context, NodeProvider as _, Tool};

/// A tool in a path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OfTool {
    /// The tool's name.
    pub(crate) tool: String,
}

/// The tools.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ToolList {
    /// As MCP's `tools/list` answers.
    pub(crate) tools: Vec<Value>,
}

/// `GET /v1/tools`
pub(crate) struct ListTools;

impl Endpoint for ListTools {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/tools";
    const ID: &'static str = "listTools";
    const TAG: &'static str = "Tools";
    const SUMMARY: &'static str = "List the tools with their arguments";
    type Path = Nothing;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = ToolList;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let permit = asked.shared.tools.enter(Operation::LIST_TOOLS, &asked.caller, &Scope::Every)?;
        let tools = asked.shared.catalog.tools(Context::within(&asked.caller, permit.as_ref())).await;
        if let Some(permit) = permit {
            permit.end(crate::calls::Outcome::Done);
        }
        let tools = tools.iter().filter_map(|tool| serde_json::to_value(tool).ok()).collect();
        Ok(Reply::ok(ToolList { tools }))
    }
}

/// A tool's arguments.
pub(crate) struct ToolArguments(Arguments);

impl Payload for ToolArguments {
    async fn read(headers: &axum::http::HeaderMap, bytes: axum::body::Bytes) -> Result<Self, Failure> {
        // Without the media type a web page could send it without asking first.
        if media_type(headers) != "application/json" {
            return Err(Failure::unsupported("application/json"));
        }
        Ok(Self(object(headers, &bytes)?))
    }

    fn describe(schemas: &mut schemars::SchemaGenerator) -> Option<(bool, Vec<(&'static str, schemars::Schema)>)> {
        Some((false, vec![("application/json", schemas.subschema_for::<Anything>())]))
    }
}

/// `POST /v1/tools/{tool}`
pub(crate) struct CallTool;

impl Endpoint for CallTool {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/tools/{tool}";
    const ID: &'static str = "callTool";
    const TAG: &'static str = "Tools";
    const SUMMARY: &'static str = "Call a tool: its arguments in, its structured answer out";
    type Path = OfTool;
    type Query = Nothing;
    type Body = ToolArguments;
    type Answer = RawJson<Anything>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let (shared, caller, name) = (&asked.shared, &asked.caller, &asked.path.tool);
        let arguments = asked.body.0;
        let text = if name == Tool::Search.name() {
            shared.tools.search_as_text(arguments, caller).await?
        } else {
            shared.catalog.call(name, arguments, Context::of(caller)).await?.text
        };
        Ok(Reply::ok(text.into()))
    }
}
