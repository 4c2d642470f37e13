//! Snapshots.

use axum::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::conditions::ASYNC;
use super::endpoint::{Endpoint, EndpointRequest, Json, NoBody, Nothing, RawJson, Reply};
use super::jobs::OrJob;
use super::node::Anything;
use super::problem::Failure;
use crate::mcp::answers::{CreateSnapshotAnswer, ListSnapshotsAnswer, RestoreSnapshotAnswer};
use crate::mcp::arguments;

/// Whose snapshots are listed.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfNode {
    /// Another node: the beginning of its id, or `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
}

/// `GET /v1/snapshots`
pub(crate) struct ListSnapshots;

impl Endpoint for ListSnapshots {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/snapshots";
    const ID: &'static str = "listSnapshots";
    const TAG: &'static str = "Snapshots";
    const SUMMARY: &'static str = "List the snapshots, newest first, and what is missing";
    type Path = Nothing;
    type Query = OfNode;
    type Body = NoBody;
    type Answer = RawJson<ListSnapshotsAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        Ok(Reply::ok(asked.tool("list_snapshots", json!({"node": asked.query.node})).await?))
    }
}

/// `POST /v1/snapshots`
pub(crate) struct CreateSnapshot;

impl Endpoint for CreateSnapshot {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/snapshots";
    const ID: &'static str = "createSnapshot";
    const TAG: &'static str = "Snapshots";
    const SUMMARY: &'static str = "Take a snapshot of the whole node";
    const SUCCESS: &'static [(u16, &'static str)] = &[(200, "Taken."), (202, "A job takes it.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[ASYNC];
    type Path = Nothing;
    type Query = Nothing;
    type Body = Json<arguments::CreateSnapshot>;
    type Answer = OrJob<CreateSnapshotAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let arguments = json!({"begin_anew": asked.body.0.begin_anew});
        asked.tool_maybe_later("create_snapshot", arguments).await
    }
}

/// `POST /v1/snapshots/restore`
pub(crate) struct RestoreSnapshot;

impl Endpoint for RestoreSnapshot {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/snapshots/restore";
    const ID: &'static str = "restoreSnapshot";
    const TAG: &'static str = "Snapshots";
    const SUMMARY: &'static str = "Restore the whole node to a snapshot, a position or a point in time; it restarts";
    const SUCCESS: &'static [(u16, &'static str)] = &[(200, "Restored, or planned."), (202, "A job restores it.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[ASYNC];
    type Path = Nothing;
    type Query = Nothing;
    type Body = Json<arguments::RestoreSnapshot>;
    type Answer = OrJob<RestoreSnapshotAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let given = &asked.body.0;
        let arguments = json!({
            "node": given.node, "id": given.id, "to_lsn": given.to_lsn, "to_time": given.to_time,
            "dry_run": given.dry_run, "confirm": given.confirm,
        });
        asked.tool_maybe_later("restore_snapshot", arguments).await
    }
}

/// Which snapshot is proved.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyQuery {
    /// The newest when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
}

/// `POST /v1/snapshots/verify`
pub(crate) struct VerifySnapshot;

impl Endpoint for VerifySnapshot {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/snapshots/verify";
    const ID: &'static str = "verifySnapshot";
    const TAG: &'static str = "Snapshots";
    const SUMMARY: &'static str =
        "Verify a snapshot: restore it to a scratch directory, compare every digest, repeat its searches";
    const SUCCESS: &'static [(u16, &'static str)] =
        &[(200, "What was found; `ok` says whether it is whole."), (202, "A job does it.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[ASYNC];
    type Path = Nothing;
    type Query = VerifyQuery;
    type Body = NoBody;
    type Answer = OrJob<Anything>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let id = asked.query.id.clone();
        asked
            .maybe_later("verify_snapshot", |shared, caller, _| async move {
                shared.tools.verify_snapshot(&caller, id).await
            })
            .await
    }
}

/// `GET /v1/snapshots/schedule`
pub(crate) struct SnapshotSchedule;

impl Endpoint for SnapshotSchedule {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/snapshots/schedule";
    const ID: &'static str = "snapshotSchedule";
    const TAG: &'static str = "Snapshots";
    const SUMMARY: &'static str = "Settings of snapshots, and their last results";
    type Path = Nothing;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = Anything;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        Ok(Reply::ok(fields(asked.shared.tools.snapshot_schedule(&asked.caller).await?)))
    }
}

/// Which snapshots are removed.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PruneQuery {
    /// Another node's: the beginning of its id, or `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// Only say which.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// `POST /v1/snapshots/prune`
pub(crate) struct PruneSnapshots;

impl Endpoint for PruneSnapshots {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/snapshots/prune";
    const ID: &'static str = "pruneSnapshots";
    const TAG: &'static str = "Snapshots";
    const SUMMARY: &'static str = "Remove the snapshots that the settings do not retain";
    type Path = Nothing;
    type Query = PruneQuery;
    type Body = NoBody;
    type Answer = Anything;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let PruneQuery { node, dry_run } = asked.query;
        Ok(Reply::ok(fields(asked.shared.tools.prune_snapshots(&asked.caller, node, dry_run).await?)))
    }
}

fn fields(value: Value) -> Anything {
    match value {
        Value::Object(fields) => fields,
        _ => Anything::new(),
    }
}
