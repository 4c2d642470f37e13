//! Telling clients what changed (`subscriptions/listen`): the list of tools, the list of documents, single documents.
//!
//! Invariants: nothing is looked at before the log has grown, and then at most once in [`PAUSE`]; a client hears of a change, not of every one.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use rmcp::model::{ErrorData, SubscriptionFilter};
use rmcp::service::{SubscriptionContext, SubscriptionSendError};
use serde_json::{Value, json};

use super::server::{Server, left};
use super::{Context, Tool};

/// Between two looks. Agents ask again after a notification, so a flood of writes must not become a flood of questions.
const PAUSE: Duration = Duration::from_secs(1);
/// Documents that one stream can be about.
const SUBSCRIBED_MAX: usize = 100;

/// What a client may have seen.
#[derive(PartialEq, Eq)]
struct Seen {
    tools: u64,
    resources: u64,
    /// Versions of the documents that it subscribed to; `None` for what is not there.
    versions: Vec<Option<u64>>,
}

/// What of a request for notifications is kept. The prompts never change.
pub(super) fn accepted(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut accepted = requested.clone();
    accepted.prompts_list_changed = None;
    if let Some(uris) = &mut accepted.resource_subscriptions {
        uris.truncate(SUBSCRIBED_MAX);
    }
    accepted
}

fn digest(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

impl Server {
    /// Notifies a client of changes until it leaves, or the node stops.
    pub(super) async fn notify(
        &self,
        subscription: &SubscriptionContext,
        context: Context<'_>,
    ) -> Result<(), ErrorData> {
        let Some(mut changes) = self.catalog().node().changes() else { return Ok(()) };
        let (sink, accepted) = (subscription.sink(), subscription.accepted());
        let notifying = async {
            let begun = *changes.borrow_and_update();
            let mut seen = self.seen(accepted, context).await;
            if begun != self.asked_at() {
                // What was written meanwhile may be in what was just seen.
                seen =
                    Seen { tools: !seen.tools, resources: !seen.resources, versions: vec![None; seen.versions.len()] };
                changes.mark_changed();
            }
            // It ends when the log does.
            while changes.changed().await.is_ok() {
                tokio::time::sleep(PAUSE).await;
                changes.borrow_and_update();
                let now = self.seen(accepted, context).await;
                if now.tools != seen.tools {
                    sink.notify_tool_list_changed().await?;
                }
                if now.resources != seen.resources {
                    sink.notify_resource_list_changed().await?;
                }
                let uris = accepted.resource_subscriptions.iter().flatten();
                for ((uri, now), seen) in uris.zip(&now.versions).zip(&seen.versions) {
                    if now != seen {
                        sink.notify_resource_updated(uri).await?;
                    }
                }
                seen = now;
            }
            Ok::<_, SubscriptionSendError>(())
        };
        tokio::select! {
            biased;
            // Whoever cannot be told has left.
            _ = notifying => {}
            () = left(subscription.request_context()) => {}
        }
        Ok(())
    }

    async fn seen(&self, accepted: &SubscriptionFilter, context: Context<'_>) -> Seen {
        let wants = |wanted: Option<bool>| wanted == Some(true);
        let mut seen = Seen { tools: 0, resources: 0, versions: Vec::new() };
        if wants(accepted.tools_list_changed) {
            seen.tools = digest(&json!(self.catalog().tools(context).await));
        }
        if wants(accepted.resources_list_changed) {
            let listed = self.ask(Tool::ListCollections, json!({}), context).await.unwrap_or_default();
            let collections = listed["collections"].as_array().into_iter().flatten();
            seen.resources = digest(&collections.map(|info| json!([info["name"], info["generation"]])).collect());
        }
        for uri in accepted.resource_subscriptions.iter().flatten() {
            let arguments = json!({"id": uri, "max_tokens": crate::retrieval::TOKENS_MIN, "include": ["dates"]});
            let found = self.ask(Tool::Fetch, arguments, context).await;
            seen.versions.push(found.ok().and_then(|found| found["version"].as_u64()));
        }
        seen
    }
}
