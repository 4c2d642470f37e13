//! How the node is, in words.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{ToolAnswer, ToolError, answers, arguments};
use super::shapes::{self, answer};
use super::{ALL, Call, NodeTool, NodeTools};
use crate::base::ByteSize;
use crate::calls::Scope;
use crate::collection::{Access, Library, WriterState};
use crate::task::Readiness;

impl NodeTool for arguments::GetStatus {
    fn scope(&self) -> Scope<'_> {
        Scope::Node
    }

    async fn run(self, call: Call<'_>) -> Result<ToolAnswer, ToolError> {
        let counts = match call.is_narrowed() {
            true => call.read(&ALL, |reading| Ok(counts(&reading.collections()?.collections))).await?,
            false => counts(&call.access().collections().iter().map(|info| shapes::summary(info)).collect::<Vec<_>>()),
        };
        answer(call.tools.status(call.access(), counts).await)
    }
}

impl NodeTools {
    async fn status(&self, access: Access<'_>, (documents, passages): (u64, u64)) -> answers::StatusAnswer {
        let snapshots = self.backups.status().await;
        let log = self.library.log();
        let settings = self.readiness.settings();
        let reasons = problems(Some(&self.library), &self.readiness);
        let shown = shown_to(access, &reasons);
        let (writes, writes_reason) = match (self.library.write_failure(), log.state()) {
            (Some(reason), _) | (None, WriterState::ReadOnly { reason }) => ("read_only", Some(reason)),
            (None, WriterState::Writable) => ("writable", None),
            (None, WriterState::DiskFull { free, needed }) => ("disk_full", Some(disk_full(free, needed))),
            (None, WriterState::QuotaReached { used, limit }) => ("quota_reached", Some(quota_reached(used, limit))),
        };
        let models = self.library.models();
        answers::StatusAnswer {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: log.node().to_string(),
            ready: reasons.is_empty(),
            not_ready: shown.into_iter().map(|(name, reason)| (name, reason.into())).collect(),
            writes: writes.to_owned(),
            writes_reason,
            collections: access.collections().len(),
            documents,
            passages,
            lsn: log.last().0,
            log_bytes: log.bytes(),
            damage: log.damage().iter().map(ToString::to_string).collect(),
            erasure_overdue_seconds: Some(self.library.erasure_overdue().as_secs()).filter(|seconds| *seconds > 0),
            log_held_by: self.library.log_holder().map(|(name, after)| answers::LogHolder { name, after_lsn: after.0 }),
            models: models
                .names()
                .filter_map(|name| models.info(name))
                .map(|info| answers::ModelStatus {
                    loaded: models.is_loaded(&info.name),
                    name: info.name.clone(),
                    dimensions: info.dimensions,
                })
                .collect(),
            data_dir: self.library.data_dir().display().to_string(),
            gpu: shapes::gpu(access),
            snapshots,
            settings: answers::SettingsStatus { restart: settings.restart, problems: settings.problems },
        }
    }
}

/// How the GPU is, and what it is used for, as `get_status` shows it.
pub(crate) fn gpu_json(access: Access<'_>) -> Value {
    serde_json::to_value(shapes::gpu(access)).expect("answers are plain data")
}

/// How many documents and passages collections have.
fn counts(collections: &[answers::CollectionSummary]) -> (u64, u64) {
    let sum = |count: fn(&answers::CollectionSummary) -> u64| collections.iter().map(count).sum();
    (sum(|info| info.documents), sum(|info| info.passages))
}

/// What names the index of a collection among the problems begins with this.
const INDEX_OF: &str = "index of ";

/// The problems as a call may see them: those of collections that it does not reach are not named.
pub(crate) fn shown_to(access: Access<'_>, problems: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_hidden = |name: &str| {
        let collection = name.strip_prefix(INDEX_OF);
        collection.is_some_and(|collection| !access.permit().reach().admits(collection))
    };
    let mut shown = problems.clone();
    shown.retain(|name, _| !is_hidden(name));
    if shown.len() < problems.len() {
        shown.insert("another index".to_owned(), "it is of a collection that you do not see".to_owned());
    }
    shown
}

/// Why the node is not ready, by name; empty when it is.
///
/// * `library`: `None` until the log is open.
pub(crate) fn problems(library: Option<&Library>, readiness: &Readiness) -> BTreeMap<String, String> {
    let mut problems = readiness.reasons();
    let Some(library) = library else { return problems };
    let writes = match library.log().state() {
        WriterState::Writable => None,
        WriterState::ReadOnly { reason } => Some(format!("read-only: {reason}; restart the node once that is mended")),
        WriterState::DiskFull { free, needed } => Some(disk_full(free, needed)),
        WriterState::QuotaReached { used, limit } => Some(quota_reached(used, limit)),
    };
    problems.extend(writes.map(|reason| ("writes".to_owned(), reason)));
    problems.extend(library.log().read_failure().map(|reason| ("reads".to_owned(), reason)));
    let indexes = library.index_problems().into_iter();
    problems.extend(indexes.map(|(name, reason)| (format!("{INDEX_OF}{name}"), reason)));
    problems
}

fn quota_reached(used: u64, limit: u64) -> String {
    let (used, limit) = (ByteSize(used), ByteSize(limit));
    format!(
        "the log has {used} of the {limit} that store.max_bytes allows; delete documents, or raise it; writing resumes automatically when there is room"
    )
}

fn disk_full(free: u64, needed: u64) -> String {
    let (free, needed) = (ByteSize(free), ByteSize(needed));
    format!("{free} of the disk are free, writing needs {needed}; it resumes automatically when there is room")
}
