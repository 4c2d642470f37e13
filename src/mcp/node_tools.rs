//! The tools on the node itself.
//!
//! Owns the list of them: each line names the type of the arguments, and that type does the work ([`NodeTool`]). Everything else
//! that faces ask of the node (sources, flush, snapshots, status) is here too, so that all of it enters at one place.

mod call;
mod documents;
mod fetching;
mod inputs;
mod reading;
mod searching;
mod shapes;
mod snapshots;
mod sources;
mod status;
mod writing;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use rmcp::model::Tool as ToolDefinition;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

use super::direct::Rendered;
use super::error::ended;
use super::metrics::Metrics;
use super::{Answering, Arguments, Context, DocumentRef, NodeProvider, ToolAnswer, ToolError, ToolProvider};
use super::{answers, arguments};
use crate::auth::Caller;
use crate::base::{Lsn, NodeId};
use crate::calls::{Calls, Operation, Permit, Scope};
use crate::collection::Library;
use crate::retrieval::Retrieval;
use crate::task::{FairPermit, FairSemaphore, Flow, Readiness};

use self::call::Call;
pub(crate) use self::documents::{DocumentVersion, Precondition, StoredDocument};
use self::searching::{RENDERED_MEAN, RenderedKey, RenderedWeighter};
use self::shapes::answer;
pub use self::snapshots::NodeSnapshots;
pub(crate) use self::snapshots::{prune_json, schedule_json, snapshots_json, verified_json};
pub use self::sources::SOURCES_PAGE;
pub(crate) use self::status::{gpu_json, problems, shown_to};
pub(crate) use self::writing::{DocumentChange, IncomingDocument, RepeatKey};

tools! {
    Search "search", "Search", arguments::Search => text, READS,
        "Finds passages that answer a question, by words and meaning. Each has an id: cite it, and fetch it for the section around. `weak` says that nothing fits well: the answer is probably not there. Not for reading a known document: fetch it.";
    Fetch "fetch", "Fetch", arguments::Fetch => text, READS,
        "Returns a document, or the section around a passage, by an id from search or list_documents.";
    FindSimilar "find_similar", "Find similar", arguments::FindSimilar => text, READS,
        "Finds passages of other documents that mean the same as one you have. Not for questions: search.";
    ListCollections "list_collections", "List collections", arguments::ListCollections => answers::ListCollectionsAnswer, READS,
        "Lists the collections with purpose, size and last change.";
    DescribeCollection "describe_collection", "Describe collection", arguments::DescribeCollection => answers::DescribeCollectionAnswer, READS,
        "Size, model and the metadata fields that a filter can ask for.";
    ListDocuments "list_documents", "List documents", arguments::ListDocuments => text, READS,
        "Lists ids and titles of a collection's documents. Not for finding what they say: search.";
    AddDocuments "add_documents", "Add documents", arguments::AddDocuments => answers::WriteAnswer, WRITES,
        "Adds or replaces documents in one atomic write. They are durable and can be found when it answers. One that cannot be taken is reported; the others are written.";
    UpdateDocument "update_document", "Update document", arguments::UpdateDocument => answers::WriteAnswer, WRITES,
        "Changes text, title, url or metadata of a document; what is left out stays. What came from a file is written over when that file is added again.";
    DeleteDocuments "delete_documents", "Delete documents", arguments::DeleteDocuments => answers::DeleteAnswer, DESTROYS,
        "Deletes documents by id, or all that match a filter. Try dry_run first.";
    CreateCollection "create_collection", "Create collection", arguments::CreateCollection => answers::CollectionAnswer, WRITES,
        "Creates a collection. add_documents does so automatically.";
    DeleteCollection "delete_collection", "Delete collection", arguments::DeleteCollection => answers::CollectionAnswer, DESTROYS,
        "Deletes a collection with all its documents.";
    GetStatus "get_status", "Status", arguments::GetStatus => answers::StatusAnswer, READS,
        "Version, readiness, sizes, whether writes are accepted, backups.";
    CreateSnapshot "create_snapshot", "Create snapshot", arguments::CreateSnapshot => answers::CreateSnapshotAnswer, WRITES,
        "Backs up the whole node.";
    ListSnapshots "list_snapshots", "List snapshots", arguments::ListSnapshots => answers::ListSnapshotsAnswer, READS,
        "Lists backups, newest first, and what is missing.";
    RestoreSnapshot "restore_snapshot", "Restore snapshot", arguments::RestoreSnapshot => answers::RestoreSnapshotAnswer, DESTROYS,
        "Takes the whole node back to a backup, a position or a moment, and starts it again; what is there now is kept aside. Try dry_run first.";
}

impl Tool {
    /// Whether its answer comes as text alone, unless a call asks for structured content too.
    #[must_use]
    pub fn answers_in_text(self) -> bool {
        matches!(self, Self::Search | Self::Fetch | Self::FindSimilar | Self::ListDocuments)
    }
}

impl AsRef<str> for Tool {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// The tools, in a fixed order.
#[must_use]
pub fn definitions() -> &'static [ToolDefinition] {
    &DEFINITIONS
}

/// The arguments of a tool of the node, and what it does with them.
trait NodeTool: for<'de> Deserialize<'de> + JsonSchema + Send {
    /// Which collections a call names.
    fn scope(&self) -> Scope<'_>;

    /// Runs the tool.
    fn run(self, call: Call<'_>) -> impl Future<Output = Result<ToolAnswer, ToolError>> + Send;
}

/// The tools of this node.
pub struct NodeTools {
    retrieval: Retrieval,
    /// Answers of searches as text.
    rendered: quick_cache::sync::Cache<RenderedKey, Arc<Rendered>, RenderedWeighter>,
    /// Limits reads: those that only use caches need no permit.
    compute: FairSemaphore,
    library: Arc<Library>,
    backups: NodeSnapshots,
    readiness: Readiness,
    metrics: Metrics,
    calls: Calls,
}

impl ToolProvider for NodeTools {
    fn definition(&self, name: &str) -> Option<ToolDefinition> {
        definitions().iter().find(|tool| tool.name == name).cloned()
    }

    fn has(&self, name: &str) -> bool {
        Tool::named(name).is_some()
    }

    fn names(&self, caller: &Caller) -> Vec<String> {
        let shown = Tool::ALL.iter().filter(|tool| self.calls.shows(&tool.operation(), caller));
        shown.map(|tool| tool.name().to_owned()).collect()
    }

    fn tools<'a>(&'a self, context: Context<'a>) -> Answering<'a, Vec<ToolDefinition>> {
        Box::pin(async move {
            let shown = Tool::ALL.iter().zip(definitions());
            let shown = shown.filter(|(tool, _)| self.calls.shows(&tool.operation(), context.caller));
            let shown = shown.map(|(_, definition)| definition.clone()).collect();
            // If the collections are unknown, the tools are shown without them.
            let collections = self.dispatch(Tool::ListCollections, Arguments::new(), context).await;
            super::tools::listed(shown, &collections.unwrap_or_default().structured)
        })
    }

    fn call<'a>(
        &'a self,
        tool: &'a str,
        arguments: Arguments,
        context: Context<'a>,
    ) -> Answering<'a, Result<ToolAnswer, ToolError>> {
        Box::pin(async move {
            match Tool::named(tool) {
                Some(tool) => self.dispatch(tool, arguments, context).await,
                None => Err(ToolError::not_found(format!("there is no tool '{tool}'"))),
            }
        })
    }
}

impl NodeProvider for NodeTools {
    fn node(&self) -> NodeId {
        self.library.log().node()
    }

    fn changes(&self) -> Option<watch::Receiver<Lsn>> {
        Some(self.library.log().positions())
    }

    fn enter(&self, operation: Operation, caller: &Caller, scope: &Scope<'_>) -> Result<Option<Permit>, ToolError> {
        Ok(Some(self.calls.enter(operation, caller, scope)?))
    }
}

impl NodeTools {
    /// The tools over a node's collections.
    ///
    /// * `turns`: of searches and other reads.
    #[must_use]
    pub fn new(
        retrieval: Retrieval,
        backups: NodeSnapshots,
        readiness: Readiness,
        metrics: Metrics,
        compute: FairSemaphore,
        calls: Calls,
    ) -> Self {
        let library = Arc::clone(retrieval.library());
        let bytes = retrieval.cache_bytes();
        let places = usize::try_from(bytes / RENDERED_MEAN).unwrap_or(usize::MAX);
        let rendered = quick_cache::sync::Cache::with_weighter(places, bytes / 2, RenderedWeighter);
        let tools = Self { retrieval, rendered, compute, library, backups, readiness, metrics, calls };
        tools.set_cache_bytes(bytes);
        tools
    }

    /// Sets the size of the caches of answers: one half is for the passages, one for the same as text.
    pub fn set_cache_bytes(&self, bytes: u64) {
        self.retrieval.set_cache_bytes(bytes - bytes / 2);
        self.rendered.set_capacity(bytes / 2);
    }

    /// The search behind the tools.
    #[must_use]
    pub fn retrieval(&self) -> &Retrieval {
        &self.retrieval
    }

    /// The way in.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Reads the arguments of a tool and begins its call. A call whose arguments cannot be read begins too, and ends so: rules count it.
    fn start_call<T: NodeTool>(
        &self,
        tool: Tool,
        arguments: Arguments,
        caller: &Caller,
    ) -> Result<(T, Permit), ToolError> {
        match arguments::read::<T>(arguments) {
            Ok(given) => {
                let permit = self.calls.enter(tool.operation(), caller, &given.scope())?;
                Ok((given, permit))
            }
            Err(error) => ended(self.calls.enter(tool.operation(), caller, &Scope::Node)?, Err(error)),
        }
    }

    async fn run<T: NodeTool>(
        &self,
        tool: Tool,
        arguments: Arguments,
        context: Context<'_>,
    ) -> Result<ToolAnswer, ToolError> {
        let progress = context.progress;
        if let Some(permit) = context.within {
            return arguments::read::<T>(arguments)?.run(Call { tools: self, permit, progress }).await;
        }
        let (given, permit) = self.start_call::<T>(tool, arguments, context.caller)?;
        let result = given.run(Call { tools: self, permit: &permit, progress }).await;
        ended(permit, result)
    }

    /// A search with its answer as text.
    pub(super) async fn search(&self, arguments: Arguments, caller: &Caller) -> Result<Arc<Rendered>, ToolError> {
        let (given, permit) = self.start_call::<arguments::Search>(Tool::Search, arguments, caller)?;
        let call = Call { tools: self, permit: &permit, progress: &super::NoProgress };
        let result = call.search(given).await;
        ended(permit, result)
    }

    /// Waits for the flow's turn, or refuses at once.
    async fn compute_permit(&self, flow: Flow) -> Result<FairPermit, ToolError> {
        let came = Instant::now();
        let Ok(compute_permit) = self.compute.acquire(flow).await else {
            self.metrics.requests_shed.inc();
            return Err(ToolError::overloaded());
        };
        self.metrics.read_wait_seconds.observe(came.elapsed().as_secs_f64());
        Ok(compute_permit)
    }
}

impl NodeTool for arguments::Search {
    fn scope(&self) -> Scope<'_> {
        every_or(&self.collections)
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        Ok(call.search(self).await?.to_answer())
    }
}

/// The collections that a search names: all, where it names none.
fn every_or(names: &[String]) -> Scope<'_> {
    match names {
        names if names.is_empty() || names.iter().any(|name| name == ALL) => Scope::Every,
        [name] => Scope::One(name.into()),
        names => Scope::Many(names.into()),
    }
}

/// Names all collections.
const ALL: &str = "*";

/// The collection that an id names.
fn collection_of(id: &str) -> Option<String> {
    Some(DocumentRef::parse(id)?.collection)
}

impl NodeTool for arguments::Fetch {
    fn scope(&self) -> Scope<'_> {
        match (&self.collection, collection_of(&self.id)) {
            (Some(collection), _) => Scope::One(collection.into()),
            (None, Some(collection)) => Scope::One(collection.into()),
            (None, None) => Scope::Every,
        }
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        let collection = self.collection.clone().or_else(|| collection_of(&self.id));
        call.read(&collection, |reading| answer(reading.fetch(&self)?)).await
    }
}

impl NodeTool for arguments::FindSimilar {
    fn scope(&self) -> Scope<'_> {
        let own = collection_of(&self.id);
        match (every_or(&self.collections), own) {
            // The document may be anywhere.
            (_, None) => Scope::Every,
            (Scope::Every, Some(own)) if self.collections.is_empty() => Scope::One(own.into()),
            (Scope::Every, Some(_)) => Scope::Every,
            (_, Some(own)) => Scope::Many(self.collections.iter().cloned().chain([own]).collect::<Vec<_>>().into()),
        }
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        let subject = self.collections.clone();
        call.read(&subject, |reading| reading.find_similar(self)).await
    }
}

impl NodeTool for arguments::ListCollections {
    fn scope(&self) -> Scope<'_> {
        Scope::Every
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        if call.is_narrowed() {
            return call.read(&ALL, |reading| answer(reading.collections()?)).await;
        }
        let collections = call.access().collections().iter().map(|info| shapes::summary(info)).collect();
        answer(answers::ListCollectionsAnswer { collections })
    }
}

impl NodeTool for arguments::DescribeCollection {
    fn scope(&self) -> Scope<'_> {
        Scope::One(self.collection.as_str().into())
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        call.read(&self.collection, |reading| answer(reading.describe(&self)?)).await
    }
}

impl NodeTool for arguments::ListDocuments {
    fn scope(&self) -> Scope<'_> {
        Scope::One(self.collection.as_str().into())
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        call.read(&self.collection, |reading| answer(reading.list_documents(&self)?)).await
    }
}

impl NodeTool for arguments::CreateCollection {
    fn scope(&self) -> Scope<'_> {
        Scope::One(self.name.as_str().into())
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        let info = call.access().create_collection(&self.name, &self.description, self.model.as_deref()).await?;
        answer(answers::CollectionAnswer {
            status: "created".to_owned(),
            name: info.name.clone(),
            documents: 0,
            model: info.model.clone(),
        })
    }
}

impl NodeTool for arguments::DeleteCollection {
    fn scope(&self) -> Scope<'_> {
        Scope::One(self.name.as_str().into())
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        call.read(&self.name, |reading| reading.existing(&self.name).map(drop)).await?;
        if self.confirm != self.name {
            let (name, found) = (&self.name, &self.confirm);
            return Err(ToolError::bad_argument(format!(
                "confirm is '{found}', expected the collection's name '{name}'"
            )));
        }
        let info = call.access().delete_collection(&self.name).await?;
        answer(answers::CollectionAnswer {
            status: "deleted".to_owned(),
            name: info.name.clone(),
            documents: info.documents,
            model: info.model.clone(),
        })
    }
}

impl NodeTool for arguments::CreateSnapshot {
    fn scope(&self) -> Scope<'_> {
        Scope::Node
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        answer(call.tools.backups.create(self, call.progress).await?)
    }
}

impl NodeTool for arguments::ListSnapshots {
    fn scope(&self) -> Scope<'_> {
        Scope::Node
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        answer(call.tools.backups.list(self).await?)
    }
}

impl NodeTool for arguments::RestoreSnapshot {
    fn scope(&self) -> Scope<'_> {
        Scope::Node
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        answer(call.tools.backups.restore(self, call.progress).await?)
    }
}
