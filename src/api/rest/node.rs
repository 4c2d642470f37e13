//! The node: how it is, and its upkeep.

use std::time::Duration;

use axum::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::conditions::ASYNC;
use super::endpoint::{Endpoint, EndpointRequest, NoBody, Nothing, RawJson, Reply};
use super::jobs::OrJob;
use super::problem::Failure;
use crate::base::{Fault, Lsn};
use crate::mcp::answers::StatusAnswer;
use crate::mcp::{ErrorCode, ToolError};

/// Where a request waits for a write, which takes it no place among those in flight.
pub(in crate::api) const CHANGES: &str = "/v1/changes";

/// `GET /v1/status`
pub(crate) struct GetStatus;

impl Endpoint for GetStatus {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/status";
    const ID: &'static str = "getStatus";
    const TAG: &'static str = "Node";
    const SUMMARY: &'static str = "Version, readiness, sizes, whether writes are accepted, snapshots";
    type Path = Nothing;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = RawJson<StatusAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        Ok(Reply::ok(asked.tool("get_status", json!({})).await?))
    }
}

/// Up to where something was written.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Flushed {
    /// A position in the log.
    pub(crate) generation: u64,
}

/// `POST /v1/flush`
pub(crate) struct Flush;

impl Endpoint for Flush {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/flush";
    const ID: &'static str = "flush";
    const TAG: &'static str = "Node";
    const SUMMARY: &'static str = "Wait until searches see everything that was written before";
    type Path = Nothing;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = Flushed;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let lsn = asked.shared.tools.flush(&asked.caller).await?;
        Ok(Reply::ok(Flushed { generation: lsn.0 }))
    }
}

/// Since when to wait.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesQuery {
    /// The generation that the client knows. Without it, and when it is another, the answer comes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<u64>,
    /// Seconds to wait at most, 0 to 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 60))]
    pub(crate) wait_s: Option<u64>,
}

/// `GET /v1/changes`
pub(crate) struct GetChanges;

/// Longest time that a request may wait for a change, in seconds.
const WAIT_SECONDS_MAX: u64 = 60;

impl Endpoint for GetChanges {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = CHANGES;
    const ID: &'static str = "getChanges";
    const TAG: &'static str = "Node";
    const SUMMARY: &'static str = "Position of the last write; waits for the next one where the client knows this one";
    type Path = Nothing;
    type Query = ChangesQuery;
    type Body = NoBody;
    type Answer = Flushed;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let ChangesQuery { known, wait_s } = asked.query;
        let wait = wait_s.unwrap_or_default();
        if wait > WAIT_SECONDS_MAX {
            let message = format!("wait_s is {wait}, expected 0 to {WAIT_SECONDS_MAX}");
            return Err(ToolError::bad_argument(message).into());
        }
        let changed = asked.shared.tools.changed(&asked.caller, known.map(Lsn), Duration::from_secs(wait));
        tokio::select! {
            changed = changed => Ok(Reply::ok(Flushed { generation: changed?.0 })),
            () = asked.shared.stopping.cancelled() => {
                let message = "the node is stopping; ask again when it has started";
                Err(ToolError::new(ErrorCode::Overloaded, message, Fault::Environment).into())
            }
        }
    }
}

/// What the log takes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Compacted {
    /// Bytes on disk.
    pub(crate) log_bytes: u64,
}

/// `POST /v1/compact`
pub(crate) struct Compact;

impl Endpoint for Compact {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/compact";
    const ID: &'static str = "compact";
    const TAG: &'static str = "Node";
    const SUMMARY: &'static str = "Clear deleted and replaced content out of the log now";
    const SUCCESS: &'static [(u16, &'static str)] = &[(200, "Done."), (202, "A job does it.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[ASYNC];
    type Path = Nothing;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = OrJob<Compacted>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        asked
            .maybe_later("compact", |shared, caller, _| async move {
                let bytes = shared.tools.compact(&caller).await?;
                Ok(json!({ "log_bytes": bytes }))
            })
            .await
    }
}

/// Any JSON object.
pub(crate) type Anything = serde_json::Map<String, Value>;
