//! Notifying clients of changes: the list of tools, the list of documents, single documents. Later versions of the protocol ask for it
//! (`subscriptions/listen`); earlier ones are notified for as long as their session lasts, which only standard input and output have.
//!
//! Invariants:
//! * Nothing is looked at before the log has grown, and then at most once in [`PAUSE`]; a client hears of a change, not of every one.
//! * Each look is a call of its own, of a caller that is authenticated again: one that is not let in any more hears nothing more.
//! * What cannot be looked at now is neither changed nor gone: it stays as it was known.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rmcp::model::{ErrorData, ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{Peer, RoleServer, SubscriptionContext, SubscriptionSink};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::ended;
use super::server::{Server, caller_now, client_left};
use super::{Context, ErrorCode, Tool, ToolDefinition, ToolError};
use crate::auth::Caller;
use crate::calls::{Operation, Permit, Scope};
use crate::task;

/// Time between two checks. Agents query again after a notification, so a flood of writes must not become a flood of
/// queries.
const PAUSE: Duration = Duration::from_secs(1);
/// Documents that one client can be notified of.
const SUBSCRIBED_MAX: usize = 100;

/// Versions of documents by their addresses; `None` for what is not there.
type Versions = BTreeMap<String, Option<u64>>;

/// What a client has seen, or what was observed now; `None` for a list that it has not seen, so that no change of it matters, or that could
/// not be observed.
#[derive(Default)]
struct Observed {
    tools: Option<u64>,
    resources: Option<u64>,
    /// Of the documents that it subscribed to.
    versions: Versions,
}

impl Observed {
    /// What is known after this observation: what it lacks is as it was before.
    fn after(self, mut before: Self) -> Self {
        before.versions.extend(self.versions);
        Self {
            tools: self.tools.or(before.tools),
            resources: self.resources.or(before.resources),
            versions: before.versions,
        }
    }

    /// Makes all of it differ from what is observed next: what was written meanwhile may be in it already.
    fn doubt(&mut self) {
        (self.tools, self.resources) = (self.tools.map(|digest| !digest), self.resources.map(|digest| !digest));
        self.versions.values_mut().for_each(|version| *version = version.is_none().then_some(u64::MAX));
    }
}

/// What is observed for a client.
struct Watched {
    tools: bool,
    resources: bool,
    documents: Vec<String>,
}

/// A session of an earlier version of the protocol.
#[derive(Default)]
pub(super) struct Session {
    seen: Mutex<Observed>,
    is_notified: AtomicBool,
    ended: CancellationToken,
}

impl Session {
    /// Ends the notifications.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// The client is about to see these tools.
    pub(super) fn sees_tools(&self, tools: &[ToolDefinition]) {
        self.seen.lock().tools = Some(digest(&json!(tools)));
    }

    /// Notifies the client of a document's changes no more.
    pub(super) fn unsubscribe(&self, uri: &str) {
        self.seen.lock().versions.remove(uri);
    }

    fn watched(&self) -> Watched {
        let seen = self.seen.lock();
        Watched {
            tools: seen.tools.is_some(),
            resources: seen.resources.is_some(),
            documents: seen.versions.keys().cloned().collect(),
        }
    }

    /// What the client has seen of what was now observed, which it has seen from now on.
    fn replace(&self, now: &Observed) -> Observed {
        let mut seen = self.seen.lock();
        let mut before = Observed::default();
        for (uri, version) in &now.versions {
            // Unless it has unsubscribed meanwhile.
            if let Some(seen) = seen.versions.get_mut(uri) {
                before.versions.insert(uri.clone(), std::mem::replace(seen, *version));
            }
        }
        before.tools = now.tools.and_then(|tools| seen.tools.replace(tools));
        before.resources = now.resources.and_then(|resources| seen.resources.replace(resources));
        before
    }
}

/// Where notifications go.
#[derive(Clone, Copy)]
enum Sink<'a> {
    /// A request that listens.
    Request(&'a SubscriptionSink),
    /// A session.
    Session(&'a Peer<RoleServer>),
}

/// The client has left.
struct Gone;

impl Sink<'_> {
    async fn tools_changed(self) -> Result<(), Gone> {
        match self {
            Self::Request(sink) => sink.notify_tool_list_changed().await.map_err(|_| Gone),
            Self::Session(peer) => peer.notify_tool_list_changed().await.map_err(|_| Gone),
        }
    }

    async fn resources_changed(self) -> Result<(), Gone> {
        match self {
            Self::Request(sink) => sink.notify_resource_list_changed().await.map_err(|_| Gone),
            Self::Session(peer) => peer.notify_resource_list_changed().await.map_err(|_| Gone),
        }
    }

    async fn resource_updated(self, uri: &str) -> Result<(), Gone> {
        match self {
            Self::Request(sink) => sink.notify_resource_updated(uri).await.map_err(|_| Gone),
            Self::Session(peer) => {
                peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await.map_err(|_| Gone)
            }
        }
    }

    /// Notifies of what differs. A first observation reports nothing.
    async fn notify(self, before: &Observed, now: &Observed) -> Result<(), Gone> {
        if now.tools.is_some() && now.tools != before.tools {
            self.tools_changed().await?;
        }
        if now.resources.is_some() && now.resources != before.resources {
            self.resources_changed().await?;
        }
        for (uri, version) in &now.versions {
            if before.versions.get(uri).is_some_and(|before| before != version) {
                self.resource_updated(uri).await?;
            }
        }
        Ok(())
    }
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
    /// Notifies a client of changes until it leaves, it is not let in any more, or the node stops.
    ///
    /// * `permit`: for the first look.
    pub(super) async fn notify(
        &self,
        subscription: &SubscriptionContext,
        caller: &Caller,
        permit: Option<Permit>,
    ) -> Result<(), ErrorData> {
        let Some(mut changes) = self.catalog().node().changes() else { return Ok(()) };
        let (sink, accepted) = (Sink::Request(subscription.sink()), subscription.accepted());
        let wants = |wanted: Option<bool>| wanted == Some(true);
        let watched = Watched {
            tools: wants(accepted.tools_list_changed),
            resources: wants(accepted.resources_list_changed),
            documents: accepted.resource_subscriptions.clone().unwrap_or_default(),
        };
        let notifying = async {
            let begun = *changes.borrow_and_update();
            let mut before = self.observe(&watched, caller, permit).await;
            if begun != self.asked_at() {
                before.doubt();
                changes.mark_changed();
            }
            // Of those that could not be looked at, any version is news.
            for uri in &watched.documents {
                before.versions.entry(uri.clone()).or_insert(Some(u64::MAX));
            }
            // It ends when the log does.
            while changes.changed().await.is_ok() {
                tokio::time::sleep(PAUSE).await;
                changes.borrow_and_update();
                let caller = caller_now(subscription.request_context()).ok_or(Gone)?;
                let permit = self.enter(Operation::LISTEN, &caller, &Scope::Every).map_err(|_| Gone)?;
                let now = self.observe(&watched, &caller, permit).await;
                sink.notify(&before, &now).await?;
                before = now.after(before);
            }
            Ok::<_, Gone>(())
        };
        tokio::select! {
            biased;
            // A client that cannot be notified has left, or may not be here.
            _ = notifying => {}
            () = client_left(subscription.request_context()) => {}
        }
        Ok(())
    }

    /// Notifies the client of a session of changes, until the session ends. Clients may say several times that they are ready.
    pub(super) fn notify_session(&self, session: &Arc<Session>, peer: Peer<RoleServer>, caller: Caller) {
        if session.is_notified.swap(true, Ordering::Relaxed) {
            return;
        }
        let Some(mut changes) = self.catalog().node().changes() else { return };
        changes.borrow_and_update();
        let (server, session, ended) = (self.clone(), Arc::clone(session), session.ended.clone());
        let notifying = async move {
            let sink = Sink::Session(&peer);
            while changes.changed().await.is_ok() {
                tokio::time::sleep(PAUSE).await;
                changes.borrow_and_update();
                let Ok(permit) = server.enter(Operation::LISTEN, &caller, &Scope::Every) else { break };
                let now = server.observe(&session.watched(), &caller, permit).await;
                let before = session.replace(&now);
                if sink.notify(&before, &now).await.is_err() {
                    break;
                }
            }
        };
        task::spawn("notify", async move {
            tokio::select! {
                () = notifying => {}
                () = ended.cancelled() => {}
            }
        });
    }

    /// Subscribes the client of a session to a document.
    ///
    /// # Errors
    /// When it has subscribed to as many as there may be, or the document cannot be looked at now.
    pub(super) async fn subscribe_session(
        &self,
        session: &Session,
        uri: String,
        context: Context<'_>,
    ) -> Result<(), ToolError> {
        let version = self.version_of(&uri, context).await?;
        let subscribed = &mut session.seen.lock().versions;
        if subscribed.len() >= SUBSCRIBED_MAX && !subscribed.contains_key(&uri) {
            let message = format!("this client has subscribed to {SUBSCRIBED_MAX} documents, expected at most that");
            return Err(ToolError::bad_argument(message));
        }
        subscribed.insert(uri, version);
        Ok(())
    }

    /// The client of a session is about to see the documents.
    pub(super) async fn session_sees_resources(&self, session: &Session, context: Context<'_>) {
        // What cannot be listed now has not been seen now.
        if let Ok(resources) = self.resources_digest(context).await {
            session.seen.lock().resources = Some(resources);
        }
    }

    async fn resources_digest(&self, context: Context<'_>) -> Result<u64, ToolError> {
        let listed = self.ask(Tool::ListCollections, json!({}), context).await?;
        let collections = listed["collections"].as_array().into_iter().flatten();
        // A caller that may not see every document is not shown the generation.
        let state = |info: &Value| json!([info["name"], info["generation"], info["documents"], info["updated_at"]]);
        Ok(digest(&collections.map(state).collect()))
    }

    /// What is there now, in a call of its own.
    async fn observe(&self, watched: &Watched, caller: &Caller, permit: Option<Permit>) -> Observed {
        let context = Context::within(caller, permit.as_ref());
        let mut observed = Observed::default();
        if (watched.tools || watched.resources)
            && let Ok(resources) = self.resources_digest(context).await
        {
            observed.resources = watched.resources.then_some(resources);
            // The tools name the collections, and are listed without them where those cannot be.
            if watched.tools {
                observed.tools = Some(digest(&json!(self.catalog().tools(context).await)));
            }
        }
        for uri in &watched.documents {
            if let Ok(version) = self.version_of(uri, context).await {
                observed.versions.insert(uri.clone(), version);
            }
        }
        if let Some(permit) = permit {
            let _ = ended(permit, Ok(()));
        }
        observed
    }

    /// The version of a document; `None` when it is not there.
    async fn version_of(&self, uri: &str, context: Context<'_>) -> Result<Option<u64>, ToolError> {
        let arguments = json!({"id": uri, "max_tokens": crate::retrieval::TOKENS_MIN, "include": ["dates"]});
        match self.ask(Tool::Fetch, arguments, context).await {
            Ok(fetched) => Ok(fetched["version"].as_u64()),
            Err(error) if error.code == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_stays_as_it_was_known() {
        let versions = |versions: &[(&str, Option<u64>)]| -> Versions {
            versions.iter().map(|(uri, version)| ((*uri).to_owned(), *version)).collect()
        };
        let known = [("a", Some(1)), ("b", None), ("c", Some(3))];
        let before = Observed { tools: Some(1), resources: Some(2), versions: versions(&known) };
        let now = Observed { tools: None, resources: Some(4), versions: versions(&[("b", Some(7)), ("c", None)]) };
        let after = now.after(before);
        assert_eq!((after.tools, after.resources), (Some(1), Some(4)));
        assert_eq!(after.versions, versions(&[("a", Some(1)), ("b", Some(7)), ("c", None)]));
    }

    #[test]
    fn a_session_keeps_what_it_saw_while_nothing_can_be_looked_at() {
        let session = Session::default();
        session.sees_tools(&[]);
        session.seen.lock().versions.insert("a".to_owned(), Some(1));
        let seen = session.seen.lock().tools;
        let before = session.replace(&Observed::default());
        assert_eq!((before.tools, before.versions), (None, Versions::new()), "nothing to compare");
        let seen_now = session.seen.lock();
        assert_eq!((seen_now.tools, seen_now.versions.get("a")), (seen, Some(&Some(1))));
    }
}
