//! What the tools answer. Field names are part of the interface: clients rely on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A score as people read it: four decimals.
pub(crate) fn rounded(score: f32) -> f64 {
    (f64::from(score) * 10_000.0).round() / 10_000.0
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SearchAnswer<'a> {
    /// Whether nothing fits well: what is asked for is probably not there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub weak: bool,
    /// Best first.
    pub results: Vec<SearchResult<'a>>,
    /// What was searched, and how: where it was asked for, where nothing was found, and where the answer is less than what was
    /// asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searched: Option<Searched>,
    /// Whether passages were left out or shortened to stay within the token budget.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Pass it as `cursor` for what follows; absent when there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SearchResult<'a> {
    /// Give it to fetch or find_similar; it is the citation too.
    pub id: String,
    /// Title of the document and the headings above the passage.
    pub title: String,
    /// Where to find the original, if that is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<&'a str>,
    /// The passage, or the part of it that fits best; an ellipsis marks each side that was cut.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub text: &'a str,
    /// Passages of other documents that say the same, at most three.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub also_in: &'a [String],
    /// How many more were found.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_copies: usize,
    /// Passages of the same document that were found near the top and are not shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_in_document: usize,
    /// How well it fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Scores>,
    /// Its exact location.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source<'a>>,
    /// Version of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// When the document last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The document's metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Address of the passage as a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scores {
    /// What results are ranked by, 0 to 1, relative to the best candidates of the same query.
    pub fused: f64,
    /// Cosine similarity to the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<f64>,
    /// BM25.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lexical: Option<f64>,
    /// How likely it is that the passage answers, 0 to 1; comparable between queries.
    pub relevance: f64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Source<'a> {
    /// The collection it is in.
    pub collection: &'a str,
    /// Id of its document within the collection.
    pub document: &'a str,
    /// The file it comes from, or its url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<&'a str>,
    /// Page of a PDF, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// First byte in the document's text.
    pub byte_start: u64,
    /// One past the last byte.
    pub byte_end: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Searched {
    /// Names of the collections.
    pub collections: Vec<String>,
    /// The filter, as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// hybrid, dense or lexical: what was asked for.
    pub mode: &'static str,
    /// What was used in the end.
    pub mode_used: &'static str,
    /// Why that is not what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// Everything acknowledged up to this position of the log was searched.
    pub generation: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FetchAnswer {
    pub id: String,
    pub title: String,
    /// Where to find the original, if that is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The text, or the part of it that fits the budget.
    pub text: String,
    /// The passage before the text; absent at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Neighbor>,
    /// The passage behind it; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Neighbor>,
    /// Whether text was left out to stay within the token budget.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Pass it as `cursor` for what follows; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Its exact location.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub source: Option<FetchedSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// What lies next to a text that was fetched.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Neighbor {
    /// Id of the passage.
    pub id: String,
    /// The last heading above it, or the document's title.
    pub title: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FetchedSource {
    pub collection: String,
    pub document: String,
    pub media_type: String,
    /// Bytes of the document's text that were given: start and end.
    pub range: [u64; 2],
    /// Passages that were given: first and one past the last.
    pub passages: [usize; 2],
    /// Passages of the whole document.
    pub passages_total: usize,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CollectionSummary {
    pub name: String,
    pub description: String,
    pub documents: u64,
    pub passages: u64,
    /// Bytes of text; absent where the caller may not see every document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Embedding model.
    pub model: String,
    /// When something in it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Position of that change in the log: it grows with each change. Absent where the caller may not see every document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ListCollectionsAnswer {
    pub collections: Vec<CollectionSummary>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DescribeCollectionAnswer {
    #[serde(flatten)]
    pub summary: CollectionSummary,
    /// Components of an embedding.
    pub dimensions: u32,
    /// Metadata that filters can ask for.
    pub fields: Vec<FieldSummary>,
    /// Passages not yet in the vector graph; they are scanned instead.
    pub unlinked: u64,
    /// Everything acknowledged up to this position of the log can be found.
    pub lsn: u64,
    /// What is wrong with its indexes, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FieldSummary {
    pub name: String,
    /// string, integer, number or boolean.
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DocumentSummary {
    pub id: String,
    pub title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListDocumentsAnswer {
    pub documents: Vec<DocumentSummary>,
    /// Documents of this page whose records are damaged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A document that is there and cannot be shown.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Unreadable {
    pub id: String,
    /// Where the damage is.
    pub reason: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DocumentResult {
    pub id: String,
    /// created, updated, unchanged, deleted, failed, or matched by a dry run.
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    pub passages: usize,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The code of that error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What is odd about it, though it went in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WriteAnswer {
    pub collection: String,
    /// One per document, in the order of the call.
    pub documents: Vec<DocumentResult>,
    pub created: usize,
    pub updated: usize,
    pub unchanged: usize,
    pub failed: usize,
    /// Everything written is on stable storage, at positions up to this one.
    pub lsn: u64,
    /// Whether the collection was made by this call.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub collection_created: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeleteAnswer {
    /// Documents that match.
    pub matched: usize,
    /// Documents that were deleted.
    pub deleted: usize,
    pub dry_run: bool,
    /// One per document, at most 1000.
    pub documents: Vec<DocumentResult>,
    pub lsn: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CollectionAnswer {
    /// created or deleted.
    pub status: String,
    pub name: String,
    /// Documents it had.
    pub documents: u64,
    pub model: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatusAnswer {
    /// Of the software.
    pub version: String,
    pub node: String,
    /// Whether everything is up.
    pub ready: bool,
    /// What is not, by name.
    pub not_ready: Map<String, Value>,
    /// writable, read_only, disk_full or quota_reached.
    pub writes: String,
    /// Why writes are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes_reason: Option<String>,
    pub collections: usize,
    pub documents: u64,
    pub passages: u64,
    /// Position of the last acknowledged record.
    pub lsn: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Damaged places in the log.
    pub damage: Vec<String>,
    /// For how many seconds deleted content should have been erased from the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erasure_overdue_seconds: Option<u64>,
    /// Who still needs records of the log: they are not erased before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_held_by: Option<LogHolder>,
    /// Embedding models.
    pub models: Vec<ModelStatus>,
    pub data_dir: String,
    pub gpu: GpuStatus,
    pub snapshots: SnapshotStatus,
    /// Settings that changed while the node runs.
    pub settings: SettingsStatus,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogHolder {
    /// Its name: snapshots for what was not shipped yet.
    pub name: String,
    /// It holds the records after this position.
    pub after_lsn: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SettingsStatus {
    /// Keys that were changed and need a restart.
    pub restart: Vec<String>,
    /// Why the changed settings are not used; the node runs with those from before.
    pub problems: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GpuStatus {
    /// off, starting, ready, failed or absent.
    pub state: &'static str,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who answers for each collection; where the GPU is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<GpuCollection>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GpuCollection {
    pub name: String,
    /// gpu or cpu.
    pub searched_by: &'static str,
    /// Why.
    pub reason: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SnapshotStatus {
    /// Where they go.
    pub target: String,
    /// Whether the log is shipped there automatically.
    pub scheduled: bool,
    /// ok; new where nothing was put yet; unknown before the first look; else what is wrong: gone, empty, foreign, elsewhere, missing,
    /// incomplete, unreadable, no_key, mixed, unmounted, unreachable or unanswered; failing, unproved: the last snapshot,
    /// the last proof was not well.
    pub state: &'static str,
    /// What is wrong, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How many of this node's snapshots are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<usize>,
    /// How many should be there and are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<usize>,
    /// When the place was looked at, seconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_seconds: Option<u64>,
    /// Id of this node's newest one that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Id of the last one that was proved to be whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
    /// How long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_age_seconds: Option<u64>,
    /// What should be looked after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What is being done now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<SnapshotWork>,
}

/// How far long work with snapshots is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SnapshotWork {
    /// `create`, `verify` or `restore`.
    pub work: &'static str,
    /// What it is doing, such as `copying`, `fetching` or `rebuilding`.
    pub step: &'static str,
    /// Bytes that are done; records when `rebuilding`.
    pub done: u64,
    /// Of how many; 0 while that is not known.
    pub total: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CreateSnapshotAnswer {
    pub id: String,
    /// Where it is.
    pub target: String,
    /// It holds the log up to here.
    pub lsn: u64,
    /// Bytes of the log.
    pub bytes: u64,
    /// Bytes that had to be copied.
    pub new_bytes: u64,
    pub segments: usize,
    pub new_segments: usize,
    pub documents: u64,
    /// Questions whose answers are kept for the proof.
    pub canaries: usize,
    /// What else is wrong with the place where snapshots go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Damage of the log that the snapshot has too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
}

/// A snapshot in another place than the one that is set.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Elsewhere {
    /// Its id.
    pub newest: String,
    /// Where it went.
    pub target: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListSnapshotsAnswer {
    /// Where they are.
    pub target: String,
    /// As in get_status: ok, new, or what is wrong.
    pub state: &'static str,
    /// What is wrong, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Where this node's newest snapshot is, when none of its own is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// Newest first.
    pub snapshots: Vec<SnapshotSummary>,
    /// Other nodes that have snapshots there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherNode>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OtherNode {
    /// Its id.
    pub node: String,
    /// Name of its machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub snapshots: usize,
    /// Id of its newest one.
    pub newest: String,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct SnapshotSummary {
    pub id: String,
    /// The node that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// manual, scheduled or shipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// It holds the log up to here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes that no older snapshot has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// When it was proved, if it was the last one proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<String>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RestoreSnapshotAnswer {
    /// planned, restarting, or scheduled for the next start.
    pub status: String,
    /// The snapshot whose history is followed.
    pub snapshot: String,
    /// The log ends here afterwards.
    pub lsn: u64,
    /// Records of the log that are put aside.
    pub records_set_aside: u64,
    pub bytes: u64,
    pub segments: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// Questions that gave the answers they gave when the snapshot was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<usize>,
    /// Where the present data will be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_data: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelStatus {
    pub name: String,
    pub dimensions: usize,
    /// Whether it is in memory already; it is loaded on first use.
    pub loaded: bool,
}
