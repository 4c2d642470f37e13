//! The tools on the node itself.

mod documents;
mod inputs;
mod shapes;
mod snapshots;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::answers;
use super::arguments::{self, DetailArgument, FusionArgument, ModeArgument};
use super::direct::Rendered;
use super::{Arguments, Link, Place, Progress, Tool, ToolAnswer, ToolError, ToolProvider};
use crate::base::{ByteSize, NodeId};
use crate::collection::{CollectionInfo, DocumentRecord, WriterState};
use crate::collection::{Library, PassageKey};
use crate::retrieval::{self, Fusion, Mode, Retrieval, SearchError, SearchRequest, estimate_tokens, shown_metadata};
use crate::task::Readiness;
use crate::telemetry::{Metrics, ToolLabels};

use self::inputs::{cursor, detail, filter};
pub use self::snapshots::NodeSnapshots;
pub(crate) use self::snapshots::{snapshots_json, verified_json};

use self::shapes::{answer, place_of, search_result, summary, url_of};

/// Tokens of a fetch when the caller does not say.
const FETCH_TOKENS: usize = 8_000;
/// Rendered answers kept beside the answers themselves.
const RENDERED_MAX: usize = 1_024;

/// The tools of this node.
pub struct NodeTools {
    retrieval: Retrieval,
    library: Arc<Library>,
    backups: NodeSnapshots,
    readiness: Readiness,
    metrics: Metrics,
    rendered: quick_cache::sync::Cache<(u64, String), Arc<Rendered>>,
    /// Held during a write with an idempotency key.
    keyed_writes: tokio::sync::Mutex<()>,
}

impl ToolProvider for NodeTools {
    fn node(&self) -> NodeId {
        self.library.reader().node()
    }

    fn call<'a>(
        &'a self,
        tool: Tool,
        arguments: Arguments,
        progress: &'a dyn Progress,
    ) -> Pin<Box<dyn Future<Output = Result<ToolAnswer, ToolError>> + Send + 'a>> {
        Box::pin(async move {
            let start = Instant::now();
            let result = self.dispatch(tool, arguments, progress).await;
            self.observe(tool, result.is_ok(), start);
            result
        })
    }
}

impl NodeTools {
    /// The tools over a node's collections.
    #[must_use]
    pub fn new(retrieval: Retrieval, backups: NodeSnapshots, readiness: Readiness, metrics: Metrics) -> Self {
        let library = Arc::clone(retrieval.library());
        Self {
            retrieval,
            library,
            backups,
            readiness,
            metrics,
            rendered: quick_cache::sync::Cache::new(RENDERED_MAX),
            keyed_writes: tokio::sync::Mutex::default(),
        }
    }

    /// What the tools search.
    #[must_use]
    pub fn retrieval(&self) -> &Retrieval {
        &self.retrieval
    }

    /// Proves a snapshot, the newest when none is named; what was found, which may be that it is not whole.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub async fn verify_snapshot(&self, id: Option<String>) -> Result<Value, ToolError> {
        self.backups.verify(id).await
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
        progress: &dyn Progress,
    ) -> Result<ToolAnswer, ToolError> {
        match tool {
            Tool::Search => Ok(self.search_rendered(arguments)?.to_answer()),
            Tool::Fetch => answer(self.fetch(arguments::read(arguments)?)?),
            Tool::FindSimilar => self.find_similar(arguments::read(arguments)?),
            Tool::ListCollections => {
                arguments::read::<arguments::Nothing>(arguments)?;
                let collections = self.library.collections().iter().map(|info| summary(info)).collect();
                answer(answers::ListCollectionsAnswer { collections })
            }
            Tool::DescribeCollection => answer(self.describe(&arguments::read(arguments)?)?),
            Tool::ListDocuments => answer(self.list_documents(&arguments::read(arguments)?)?),
            Tool::AddDocuments => self.add_documents(arguments::read(arguments)?, progress).await,
            Tool::UpdateDocument => answer(self.update_document(arguments::read(arguments)?).await?),
            Tool::DeleteDocuments => answer(self.delete_documents(arguments::read(arguments)?).await?),
            Tool::CreateCollection => answer(self.create_collection(arguments::read(arguments)?).await?),
            Tool::DeleteCollection => answer(self.delete_collection(arguments::read(arguments)?).await?),
            Tool::CreateSnapshot => {
                arguments::read::<arguments::Nothing>(arguments)?;
                answer(self.backups.create(progress).await?)
            }
            Tool::ListSnapshots => {
                arguments::read::<arguments::Nothing>(arguments)?;
                answer(self.backups.list().await?)
            }
            Tool::RestoreSnapshot => answer(self.backups.restore(arguments::read(arguments)?, progress).await?),
            Tool::GetStatus => {
                arguments::read::<arguments::Nothing>(arguments)?;
                answer(self.status())
            }
        }
    }

    /// A search with its answer as text; from the cache when the same was asked before and nothing changed since.
    pub(super) fn search_rendered(&self, arguments: Arguments) -> Result<Arc<Rendered>, ToolError> {
        let given: arguments::Search = arguments::read(arguments)?;
        let filter = filter(given.filter.as_ref(), given.after.as_deref(), given.before.as_deref())?;
        let fusion = match (given.fusion, given.dense_weight) {
            (None | Some(FusionArgument::Convex), Some(weight)) if (0.0..=1.0).contains(&weight) => {
                Some(Fusion::Convex { dense_weight: weight })
            }
            (_, Some(weight)) if !(0.0..=1.0).contains(&weight) => {
                return Err(ToolError::bad_argument(format!("dense_weight is {weight}, expected 0 to 1")));
            }
            (Some(FusionArgument::Rrf), _) => Some(Fusion::ReciprocalRank { k: 60 }),
            _ => None,
        };
        let request = SearchRequest {
            query: given.query,
            collections: given.collections,
            mode: match given.mode {
                ModeArgument::Hybrid => Mode::Hybrid,
                ModeArgument::Dense => Mode::Dense,
                ModeArgument::Lexical => Mode::Lexical,
            },
            limit: given.limit,
            offset: cursor(given.cursor.as_deref())?,
            filter,
            tokens_max: given.max_tokens,
            min_score: given.min_score,
            detail: detail(given.detail),
            fusion,
        };
        let found = self.retrieval.search(&request)?;
        // Filters that mean the same share an answer, and each echoes its own spelling.
        let spelling = given.filter.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(rendered) = self.rendered.get(&(found.id, spelling.clone())) {
            return Ok(rendered);
        }
        let rendered = Arc::new(self.render(&found, request.mode, given.filter));
        self.rendered.insert((found.id, spelling), Arc::clone(&rendered));
        Ok(rendered)
    }

    fn find_similar(&self, given: arguments::FindSimilar) -> Result<ToolAnswer, ToolError> {
        let (place, document) = self.find(&given.id, None)?;
        let ordinal = place.passage.unwrap_or_default();
        let passage =
            self.library.passages().passage(PassageKey::new(document.lsn, ordinal)).map_err(SearchError::from)?;
        let collections = if given.collections.is_empty() { vec![place.collection] } else { given.collections };
        let request = SearchRequest {
            collections,
            limit: given.limit,
            filter: filter(given.filter.as_ref(), None, None)?,
            tokens_max: given.max_tokens,
            detail: detail(given.detail.unwrap_or(DetailArgument::Snippet)),
            ..SearchRequest::default()
        };
        let found = self.retrieval.find_similar(&passage, place.passage.is_none(), &request)?;
        Ok(self.render(&found, Mode::Dense, given.filter).to_answer())
    }

    fn render(&self, found: &retrieval::SearchAnswer, mode: Mode, filter: Option<Value>) -> Rendered {
        let node = self.node();
        let mut links = Vec::with_capacity(found.hits.len());
        let results = found
            .hits
            .iter()
            .map(|hit| {
                let result = search_result(hit, node);
                links.push(Link {
                    uri: place_of(hit).uri(node),
                    name: result.id.clone(),
                    title: result.title.clone(),
                    priority: hit.scores.score.clamp(0.0, 1.0),
                    last_modified: result.updated_at.clone(),
                });
                result
            })
            .collect();
        let answer = answers::SearchAnswer {
            results,
            searched: answers::Searched {
                collections: found.searched.clone(),
                filter,
                mode: mode.as_str().to_owned(),
                mode_used: found.mode_used.as_str().to_owned(),
                mode_reason: found.mode_reason.clone(),
                generation: found.lsn.0,
            },
            truncated: found.truncated,
            next_cursor: found.next_offset.map(|offset| offset.to_string()),
        };
        Rendered::new(&answer, links)
    }

    /// The document that an id names: as a whole id first, then with its end as a passage's number.
    fn find(&self, id: &str, collection: Option<&str>) -> Result<(Place, Arc<DocumentRecord>), ToolError> {
        let unknown = || {
            ToolError::not_found(format!(
                "there is no document '{id}'; expected an id from search or list_documents, such as collection/document"
            ))
        };
        let place = match collection {
            Some(collection) => Place::within(collection, id),
            None => Place::parse(id),
        };
        let place = place.ok_or_else(unknown)?;
        let info = self.library.collection(&place.collection).ok_or_else(unknown)?;
        let lookup = |id: &str| self.library.lookup(info.id, id).map_err(SearchError::from);
        let (place, entry) = match lookup(&place.whole())? {
            Some(entry) => (Place { document: place.whole(), passage: None, ..place }, entry),
            None => {
                let entry = lookup(&place.document)?.ok_or_else(unknown)?;
                (place, entry)
            }
        };
        let document = self.library.passages().document(entry.lsn).map_err(SearchError::from)?;
        if !self.library.is_current(&document) || place.passage.is_some_and(|passage| passage >= document.chunks.len())
        {
            return Err(unknown());
        }
        Ok((place, document))
    }

    fn fetch(&self, given: arguments::Fetch) -> Result<answers::FetchAnswer, ToolError> {
        let tokens_max = given.max_tokens.unwrap_or(FETCH_TOKENS);
        if !(50..=retrieval::TOKENS_MAX).contains(&tokens_max) {
            let most = retrieval::TOKENS_MAX;
            return Err(ToolError::bad_argument(format!("max_tokens is {tokens_max}, expected 50 to {most}")));
        }
        let (mut place, document) = self.find(&given.id, given.collection.as_deref())?;
        let total = document.chunks.len();
        if let Some(chunk) = given.chunk {
            if chunk >= total {
                return Err(ToolError::bad_argument(format!(
                    "chunk is {chunk}, the document has {total}, counted from 0"
                )));
            }
            place.passage = Some(chunk);
        }
        if let Some(range) = &given.range {
            return self.fetch_range(&place, &document, range, tokens_max);
        }
        let passages = self.library.passages();
        let tokens_of = |ordinal: usize| -> Result<usize, ToolError> {
            let text = passages.text(&document, ordinal..ordinal + 1).map_err(SearchError::from)?;
            Ok(estimate_tokens(&text))
        };
        let continued = given.cursor.as_deref().map(|text| cursor(Some(text))).transpose()?;
        let (mut first, mut last) = match (continued, place.passage) {
            (Some(start), _) if start < total => (start, start + 1),
            (Some(_), _) => return Err(ToolError::bad_argument("the cursor does not belong to this document")),
            (None, Some(passage)) => (passage, passage + 1),
            (None, None) => (0, 1),
        };
        // Grows until the budget is spent: forward from the start, and around a passage to both sides.
        let around = continued.is_none() && place.passage.is_some();
        let mut tokens = tokens_of(first)?;
        loop {
            let mut grown = false;
            if last < total {
                let more = tokens_of(last)?;
                if tokens + more <= tokens_max {
                    (tokens, last, grown) = (tokens + more, last + 1, true);
                }
            }
            if around && first > 0 {
                let more = tokens_of(first - 1)?;
                if tokens + more <= tokens_max {
                    (tokens, first, grown) = (tokens + more, first - 1, true);
                }
            }
            if !grown {
                break;
            }
        }
        self.fetched(&place, &document, first..last)
    }

    /// The passages that hold bytes `start..end` of a document's text, as many as the budget allows.
    fn fetch_range(
        &self,
        place: &Place,
        document: &DocumentRecord,
        range: &[u64],
        tokens_max: usize,
    ) -> Result<answers::FetchAnswer, ToolError> {
        let &[start, end] = range else {
            return Err(ToolError::bad_argument("range takes two numbers: the first byte and one past the last"));
        };
        let overlaps = |chunk: &&crate::collection::ChunkRef| chunk.range.start < end && start < chunk.range.end;
        let first = document.chunks.iter().position(|chunk| overlaps(&chunk));
        let Some(first) = first.filter(|_| start < end) else {
            let length = document.chunks.last().map_or(0, |chunk| chunk.range.end);
            return Err(ToolError::bad_argument(format!("no text stands at bytes {start} to {end}; it has {length}")));
        };
        let wanted = document.chunks[first..].iter().take_while(overlaps).count();
        let mut tokens = 0;
        let mut last = first;
        while last < first + wanted {
            let text = self.library.passages().text(document, last..last + 1).map_err(SearchError::from)?;
            tokens += estimate_tokens(&text);
            if tokens > tokens_max && last > first {
                break;
            }
            last += 1;
        }
        self.fetched(place, document, first..last)
    }

    fn fetched(
        &self,
        place: &Place,
        document: &DocumentRecord,
        passages: std::ops::Range<usize>,
    ) -> Result<answers::FetchAnswer, ToolError> {
        let std::ops::Range { start: first, end: last } = passages;
        let total = document.chunks.len();
        let text = self.library.passages().text(document, first..last).map_err(SearchError::from)?;
        let range = [document.chunks[first].range.start, document.chunks[last - 1].range.end];
        Ok(answers::FetchAnswer {
            id: place.to_string(),
            title: document.title.clone(),
            text,
            url: url_of(document, place, self.node()),
            collection: place.collection.clone(),
            document: document.id.clone(),
            version: document.version,
            updated_at: document.updated.to_string(),
            media_type: document.media_type.clone(),
            range,
            passages: [first, last],
            passages_total: total,
            metadata: shown_metadata(&document.metadata),
            truncated: last - first < total,
            next_cursor: (last < total).then(|| last.to_string()),
        })
    }

    fn existing(&self, name: &str) -> Result<Arc<CollectionInfo>, ToolError> {
        self.library.collection(name).ok_or_else(|| {
            let known = self.library.collections().iter().map(|info| info.name.clone()).collect();
            SearchError::NoSuchCollection { name: name.to_owned(), known }.into()
        })
    }

    fn describe(&self, given: &arguments::DescribeCollection) -> Result<answers::DescribeCollectionAnswer, ToolError> {
        let info = self.existing(&given.collection)?;
        let searcher = self.library.searcher(&info);
        let fields = match &searcher {
            Some(searcher) => searcher.fields().map_err(SearchError::from)?,
            None => Vec::new(),
        };
        Ok(answers::DescribeCollectionAnswer {
            summary: summary(&info),
            dimensions: info.dimensions,
            fields: fields
                .into_iter()
                .map(|(name, kind)| answers::FieldSummary { name, kind: kind.to_owned() })
                .collect(),
            unlinked: searcher.as_ref().map_or(0, |searcher| searcher.unlinked() as u64),
            lsn: searcher.as_ref().map_or(0, |searcher| searcher.lsn().0),
            problem: searcher.and_then(|searcher| searcher.broken()),
        })
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
        self.existing(&given.name)?;
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

    fn status(&self) -> answers::StatusAnswer {
        let reader = self.library.reader();
        let collections = self.library.collections();
        let mut reasons = self.readiness.reasons();
        let (writes, writes_reason) = match reader.state() {
            WriterState::Writable => ("writable", None),
            WriterState::ReadOnly { reason } => ("read_only", Some(reason)),
            WriterState::DiskFull { free, needed } => ("disk_full", Some(disk_full(free, needed))),
            WriterState::QuotaReached { used, limit } => ("quota_reached", Some(quota_reached(used, limit))),
        };
        if let Some(reason) = &writes_reason {
            reasons.insert("writes".to_owned(), reason.clone());
        }
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
            snapshots: self.backups.status(),
        }
    }
}

pub(crate) fn quota_reached(used: u64, limit: u64) -> String {
    let (used, limit) = (ByteSize(used), ByteSize(limit));
    format!(
        "the log has {used} of the {limit} that store.max_bytes allows; delete documents, or raise it; writing resumes by itself once there is room"
    )
}

pub(crate) fn disk_full(free: u64, needed: u64) -> String {
    let (free, needed) = (ByteSize(free), ByteSize(needed));
    format!("{free} of the disk are free, writing needs {needed}; it resumes by itself once there is room")
}
