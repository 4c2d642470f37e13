//! The tools on the node itself.

mod fetching;
mod inputs;
mod reading;
mod searching;
mod shapes;
mod snapshots;
mod writing;

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{Hash, Hasher as _};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::direct::Rendered;
use super::{Arguments, Place, Progress, Tool, ToolAnswer, ToolError, ToolProvider, answers, arguments};
use crate::auth::Principal;
use crate::base::{ByteSize, NodeId};
use crate::collection::{Library, WriterState};
use crate::retrieval::Retrieval;
use crate::task::{Busy, Flow, Readiness, Turn, Turns};
use crate::telemetry::{Metrics, ToolLabels};

use self::reading::Reading;
use self::searching::{Known, Question};
use self::shapes::{answer, summary};
pub use self::snapshots::NodeSnapshots;
pub(crate) use self::snapshots::{prune_json, schedule_json, snapshots_json, verified_json};

/// The tools of this node.
pub struct NodeTools {
    reading: Reading,
    /// Who may read: what looks into caches only needs no turn.
    turns: Turns,
    library: Arc<Library>,
    backups: NodeSnapshots,
    readiness: Readiness,
    metrics: Metrics,
}

impl ToolProvider for NodeTools {
    fn node(&self) -> NodeId {
        self.library.reader().node()
    }

    fn call<'a>(
        &'a self,
        tool: Tool,
        arguments: Arguments,
        principal: Principal,
        progress: &'a dyn Progress,
    ) -> Pin<Box<dyn Future<Output = Result<ToolAnswer, ToolError>> + Send + 'a>> {
        Box::pin(async move {
            let start = Instant::now();
            let result = self.dispatch(tool, arguments, principal, progress).await;
            self.observe(tool, result.is_ok(), start);
            result
        })
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
        turns: Turns,
    ) -> Self {
        let library = Arc::clone(retrieval.library());
        Self { reading: Reading::new(retrieval), turns, library, backups, readiness, metrics }
    }

    /// What the tools search.
    #[must_use]
    pub fn retrieval(&self) -> &Retrieval {
        &self.reading.retrieval
    }

    /// Proves a snapshot, the newest when none is named; what was found, which may be that it is not whole.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub async fn verify_snapshot(&self, id: Option<String>) -> Result<Value, ToolError> {
        self.backups.verify(id).await
    }

    /// What is set for snapshots, and how it went.
    pub async fn snapshot_schedule(&self) -> Value {
        self.backups.schedule().await
    }

    /// Removes the snapshots that the settings do not keep; says only which when `dry_run`.
    ///
    /// * `node`: another node's: the beginning of its id, or `any`.
    ///
    /// # Errors
    /// When the repository cannot be used, or something is missing there.
    pub async fn prune_snapshots(&self, node: Option<String>, dry_run: bool) -> Result<Value, ToolError> {
        self.backups.prune(node, dry_run).await
    }

    pub(super) fn observe(&self, tool: Tool, is_ok: bool, start: Instant) {
        let labels = ToolLabels { tool: tool.name(), outcome: if is_ok { "ok" } else { "error" } };
        self.metrics.tool_calls.get_or_create(&labels).inc();
        self.metrics.tool_seconds.get_or_create(&labels).observe(start.elapsed().as_secs_f64());
    }

    async fn dispatch(
        &self,
        tool: Tool,
        arguments: Arguments,
        principal: Principal,
        progress: &dyn Progress,
    ) -> Result<ToolAnswer, ToolError> {
        match tool {
            Tool::Search => Ok(self.search(arguments, principal).await?.to_answer()),
            Tool::Fetch => {
                let given: arguments::Fetch = arguments::read(arguments)?;
                let collection = given.collection.clone().or_else(|| Some(Place::parse(&given.id)?.collection));
                self.read(flow(principal, &collection), |reading| answer(reading.fetch(&given)?)).await
            }
            Tool::FindSimilar => {
                let given: arguments::FindSimilar = arguments::read(arguments)?;
                self.read(flow(principal, &given.collections), |reading| reading.find_similar(given)).await
            }
            Tool::ListCollections => {
                arguments::read::<arguments::Nothing>(arguments)?;
                let collections = self.library.collections().iter().map(|info| summary(info)).collect();
                answer(answers::ListCollectionsAnswer { collections })
            }
            Tool::DescribeCollection => {
                let given: arguments::DescribeCollection = arguments::read(arguments)?;
                self.read(flow(principal, &given.collection), |reading| answer(reading.describe(&given)?)).await
            }
            Tool::ListDocuments => {
                let given: arguments::ListDocuments = arguments::read(arguments)?;
                self.read(flow(principal, &given.collection), |reading| answer(reading.list_documents(&given)?)).await
            }
            Tool::AddDocuments => self.add_documents(arguments::read(arguments)?, principal, progress).await,
            Tool::UpdateDocument => answer(self.update_document(arguments::read(arguments)?).await?),
            Tool::DeleteDocuments => answer(self.delete_documents(arguments::read(arguments)?).await?),
            Tool::CreateCollection => answer(self.create_collection(arguments::read(arguments)?).await?),
            Tool::DeleteCollection => answer(self.delete_collection(arguments::read(arguments)?).await?),
            Tool::CreateSnapshot => answer(self.backups.create(arguments::read(arguments)?, progress).await?),
            Tool::ListSnapshots => answer(self.backups.list(arguments::read(arguments)?).await?),
            Tool::RestoreSnapshot => answer(self.backups.restore(arguments::read(arguments)?, progress).await?),
            Tool::GetStatus => {
                arguments::read::<arguments::Nothing>(arguments)?;
                answer(self.status().await)
            }
        }
    }

    /// A search with its answer as text. What is remembered needs no turn.
    pub(super) async fn search(&self, arguments: Arguments, principal: Principal) -> Result<Arc<Rendered>, ToolError> {
        let question = Question::read(arguments)?;
        match self.reading.known(&question)? {
            Known::Answer(rendered) => Ok(rendered),
            Known::Nothing(mut asked) => {
                let mut turn = self.turn(flow(principal, &question.request.collections)).await?;
                if asked.asks_device(question.request.mode) {
                    let devices = self.retrieval().ask_devices(&question.request, &asked)?;
                    if !devices.is_empty() {
                        // Others compute while the GPU does.
                        let paused = turn.pause();
                        asked.with(devices).await;
                        turn = paused.resume().await.map_err(|Busy| ToolError::overloaded())?;
                    }
                }
                let answer = self.reading.search(&question, &asked);
                drop(turn);
                answer
            }
        }
    }

    /// Waits for the flow's turn, or refuses at once.
    async fn turn(&self, flow: Flow) -> Result<Turn, ToolError> {
        let came = Instant::now();
        let Ok(turn) = self.turns.take(flow).await else {
            self.metrics.requests_shed.inc();
            return Err(ToolError::overloaded());
        };
        self.metrics.read_wait_seconds.observe(came.elapsed().as_secs_f64());
        Ok(turn)
    }

    /// Reads when it is the flow's turn, or refuses at once.
    async fn read<T>(&self, flow: Flow, read: impl FnOnce(&Reading) -> Result<T, ToolError>) -> Result<T, ToolError> {
        let _turn = self.turn(flow).await?;
        read(&self.reading)
    }

    async fn create_collection(
        &self,
        given: arguments::CreateCollection,
    ) -> Result<answers::CollectionAnswer, ToolError> {
        let info = self.library.create_collection(&given.name, &given.description, given.model.as_deref()).await?;
        Ok(answers::CollectionAnswer {
            status: "created".to_owned(),
            name: info.name.clone(),
            documents: 0,
            model: info.model.clone(),
        })
    }

    async fn delete_collection(
        &self,
        given: arguments::DeleteCollection,
    ) -> Result<answers::CollectionAnswer, ToolError> {
        self.reading.existing(&given.name)?;
        if given.confirm != given.name {
            let (name, found) = (&given.name, &given.confirm);
            return Err(ToolError::bad_argument(format!(
                "confirm is '{found}', expected the collection's name '{name}'"
            )));
        }
        let info = self.library.delete_collection(&given.name).await?;
        Ok(answers::CollectionAnswer {
            status: "deleted".to_owned(),
            name: info.name.clone(),
            documents: info.documents,
            model: info.model.clone(),
        })
    }

    async fn status(&self) -> answers::StatusAnswer {
        let snapshots = self.backups.status().await;
        let reader = self.library.reader();
        let collections = self.library.collections();
        let reasons = problems(Some(&self.library), &self.readiness);
        let (writes, writes_reason) = match (self.library.write_failure(), reader.state()) {
            (Some(reason), _) | (None, WriterState::ReadOnly { reason }) => ("read_only", Some(reason)),
            (None, WriterState::Writable) => ("writable", None),
            (None, WriterState::DiskFull { free, needed }) => ("disk_full", Some(disk_full(free, needed))),
            (None, WriterState::QuotaReached { used, limit }) => ("quota_reached", Some(quota_reached(used, limit))),
        };
        let models = self.library.models();
        let mut names: Vec<String> = collections.iter().map(|info| info.model.clone()).collect();
        names.push(crate::collection::DEFAULT_MODEL.to_owned());
        names.sort();
        names.dedup();
        answers::StatusAnswer {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: reader.node().to_string(),
            ready: reasons.is_empty(),
            not_ready: reasons.into_iter().map(|(name, reason)| (name, reason.into())).collect(),
            writes: writes.to_owned(),
            writes_reason,
            collections: collections.len(),
            documents: collections.iter().map(|info| info.documents).sum(),
            passages: collections.iter().map(|info| info.chunks).sum(),
            lsn: reader.last().0,
            log_bytes: reader.log_bytes(),
            damage: reader.damage().iter().map(ToString::to_string).collect(),
            models: names
                .iter()
                .filter_map(|name| models.info(name))
                .map(|info| answers::ModelStatus {
                    loaded: models.is_loaded(&info.name),
                    name: info.name,
                    dimensions: info.dimensions,
                })
                .collect(),
            data_dir: self.library.data_dir().display().to_string(),
            gpu: shapes::gpu(&self.library),
            snapshots,
        }
    }
}

/// How the GPU is, and what it is used for, as `get_status` shows it.
pub(crate) fn gpu_json(library: &Library) -> Value {
    serde_json::to_value(shapes::gpu(library)).expect("answers are plain data")
}

/// Why the node is not ready, by name; empty when it is.
///
/// * `library`: `None` until the log is open.
pub(crate) fn problems(library: Option<&Library>, readiness: &Readiness) -> BTreeMap<String, String> {
    let mut problems = readiness.reasons();
    let Some(library) = library else { return problems };
    let writes = match library.reader().state() {
        WriterState::Writable => None,
        WriterState::ReadOnly { reason } => Some(format!("read-only: {reason}; restart the node once that is mended")),
        WriterState::DiskFull { free, needed } => Some(disk_full(free, needed)),
        WriterState::QuotaReached { used, limit } => Some(quota_reached(used, limit)),
    };
    problems.extend(writes.map(|reason| ("writes".to_owned(), reason)));
    problems.extend(library.reader().read_trouble().map(|reason| ("reads".to_owned(), reason)));
    let indexes = library.index_problems().into_iter();
    problems.extend(indexes.map(|(name, reason)| (format!("index of {name}"), reason)));
    problems
}

fn quota_reached(used: u64, limit: u64) -> String {
    let (used, limit) = (ByteSize(used), ByteSize(limit));
    format!(
        "the log has {used} of the {limit} that store.max_bytes allows; delete documents, or raise it; writing resumes by itself once there is room"
    )
}

fn disk_full(free: u64, needed: u64) -> String {
    let (free, needed) = (ByteSize(free), ByteSize(needed));
    format!("{free} of the disk are free, writing needs {needed}; it resumes by itself once there is room")
}

/// Whose a read is: who asks, and the collection, or collections, that it names.
fn flow(principal: Principal, subject: &impl Hash) -> Flow {
    let mut hasher = rustc_hash::FxHasher::default();
    subject.hash(&mut hasher);
    Flow { principal: principal.tag(), subject: hasher.finish() }
}
