//! The tools on the node itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use super::answers::{self, rounded};
use super::arguments::{self, ConflictArgument, DetailArgument, FusionArgument, ModeArgument};
use super::{Arguments, Link, Place, Progress, Tool, ToolAnswer, ToolError, ToolProvider};
use crate::base::{ByteSize, Fault, NodeId, UnixMillis};
use crate::collection::{
    Body, Conflict, DocumentInput, DocumentOutcome, DocumentStatus, Library, MediaType, PassageKey, WriteError,
};
use crate::index::filter::Filter;
use crate::retrieval::{
    self, Detail, Fusion, Hit, Mode, Retrieval, SearchError, SearchRequest, estimate_tokens, shown_metadata,
};
use crate::store::{CollectionInfo, DocumentRecord, WriterState};
use crate::task::Readiness;
use crate::telemetry::{Metrics, ToolLabels};

/// Documents in one call.
const DOCUMENTS_MAX: usize = 1_000;
/// Documents on one page of a list.
const PAGE_MAX: usize = 1_000;
/// Tokens of a fetch when the caller does not say.
const FETCH_TOKENS: usize = 8_000;
/// Rendered answers kept beside the answers themselves.
const RENDERED_MAX: usize = 1_024;

/// The tools of this node.
pub struct NodeTools {
    retrieval: Retrieval,
    library: Arc<Library>,
    readiness: Readiness,
    metrics: Metrics,
    rendered: quick_cache::sync::Cache<u64, Arc<ToolAnswer>>,
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
            let outcome = if result.is_ok() { "ok" } else { "error" };
            let labels = ToolLabels { tool: tool.name(), outcome };
            self.metrics.tool_calls.get_or_create(&labels).inc();
            self.metrics.tool_seconds.get_or_create(&labels).observe(start.elapsed().as_secs_f64());
            result
        })
    }
}

impl NodeTools {
    /// The tools over a node's collections.
    #[must_use]
    pub fn new(retrieval: Retrieval, readiness: Readiness, metrics: Metrics) -> Self {
        let library = Arc::clone(retrieval.library());
        Self { retrieval, library, readiness, metrics, rendered: quick_cache::sync::Cache::new(RENDERED_MAX) }
    }

    /// What the tools search.
    #[must_use]
    pub fn retrieval(&self) -> &Retrieval {
        &self.retrieval
    }

    async fn dispatch(
        &self,
        tool: Tool,
        arguments: Arguments,
        progress: &dyn Progress,
    ) -> Result<ToolAnswer, ToolError> {
        match tool {
            Tool::Search => self.search(arguments),
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
            Tool::GetStatus => {
                arguments::read::<arguments::Nothing>(arguments)?;
                answer(self.status())
            }
        }
    }

    fn search(&self, arguments: Arguments) -> Result<ToolAnswer, ToolError> {
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
        if let Some(rendered) = self.rendered.get(&found.id) {
            return Ok(ToolAnswer::clone(&rendered));
        }
        let rendered = self.render(&found, given.filter)?;
        self.rendered.insert(found.id, Arc::new(rendered.clone()));
        Ok(rendered)
    }

    fn find_similar(&self, given: arguments::FindSimilar) -> Result<ToolAnswer, ToolError> {
        let (place, document) = self.find(&given.id)?;
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
        self.render(&found, given.filter)
    }

    fn render(&self, found: &retrieval::SearchAnswer, filter: Option<Value>) -> Result<ToolAnswer, ToolError> {
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
        let rendered = answers::SearchAnswer {
            results,
            searched: answers::Searched {
                collections: found.searched.clone(),
                filter,
                mode_used: found.mode_used.as_str().to_owned(),
                mode_reason: found.mode_reason.clone(),
                lsn: found.lsn.0,
            },
            truncated: found.truncated,
            next_cursor: found.next_offset.map(|offset| offset.to_string()),
        };
        Ok(ToolAnswer { links, ..answer(rendered)? })
    }

    /// The document that an id names: as a whole id first, then with its end as a passage's number.
    fn find(&self, id: &str) -> Result<(Place, Arc<DocumentRecord>), ToolError> {
        let unknown = || {
            ToolError::not_found(format!(
                "there is no document '{id}'; expected an id from search or list_documents, such as collection/document"
            ))
        };
        let place = Place::parse(id).ok_or_else(unknown)?;
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
        let (place, document) = self.find(&given.id)?;
        let total = document.chunks.len();
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
        let text = passages.text(&document, first..last).map_err(SearchError::from)?;
        let range = [document.chunks[first].range.start, document.chunks[last - 1].range.end];
        Ok(answers::FetchAnswer {
            id: place.to_string(),
            title: document.title.clone(),
            text,
            url: url_of(&document, &place, self.node()),
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

    fn list_documents(&self, given: &arguments::ListDocuments) -> Result<answers::ListDocumentsAnswer, ToolError> {
        let info = self.existing(&given.collection)?;
        let limit = given.limit.unwrap_or(100);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(ToolError::bad_argument(format!("limit is {limit}, expected 1 to {PAGE_MAX}")));
        }
        let after = given.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        let mut entries =
            self.library.reader().list(info.id, after, &given.prefix, limit + 1).map_err(SearchError::from)?;
        let next_cursor = (entries.len() > limit).then(|| entries[limit - 1].0.clone());
        entries.truncate(limit);
        let mut documents = Vec::with_capacity(entries.len());
        for (id, entry) in entries {
            let document = match self.library.passages().document(entry.lsn) {
                Ok(document) => document,
                Err(error) => {
                    tracing::error!(%error, id, "a document's record cannot be read");
                    continue;
                }
            };
            let place = Place { collection: info.name.clone(), document: id, passage: None };
            documents.push(answers::DocumentSummary {
                id: place.to_string(),
                title: document.title.clone(),
                url: url_of(&document, &place, self.node()),
                version: document.version,
                passages: document.chunks.len() as u64,
                source: document.source.clone(),
                updated_at: document.updated.to_string(),
                expires_at: document.expires_at.map(|time| time.to_string()),
            });
        }
        Ok(answers::ListDocumentsAnswer { collection: info.name.clone(), documents, next_cursor })
    }

    async fn add_documents(
        &self,
        given: arguments::AddDocuments,
        progress: &dyn Progress,
    ) -> Result<ToolAnswer, ToolError> {
        if given.documents.is_empty() || given.documents.len() > DOCUMENTS_MAX {
            let found = given.documents.len();
            return Err(ToolError::bad_argument(format!(
                "documents has {found} entries, expected 1 to {DOCUMENTS_MAX}"
            )));
        }
        let key = given.idempotency_key.as_ref().map(|key| format!("{}/{key}", given.collection));
        let remembered = match &key {
            Some(key) => self.library.reader().remembered(key).map_err(SearchError::from)?,
            None => None,
        };
        if let Some(answer) = remembered
            && let Ok(structured) = serde_json::from_slice(&answer)
        {
            return Ok(ToolAnswer::new(structured));
        }
        let (info, collection_created) = self.library.ensure_collection(&given.collection).await?;
        let total = given.documents.len() as u64;
        progress.report(0, total, "reading documents");
        let mut inputs = Vec::with_capacity(given.documents.len());
        let mut refused = Vec::new();
        for (place, document) in given.documents.into_iter().enumerate() {
            match input(document, given.on_conflict) {
                Ok(input) => inputs.push(input),
                Err((id, error)) => refused.push((place, id, error)),
            }
        }
        let (outcomes, lsn) = self.library.add(&info.name, inputs).await?;
        progress.report(total, total, "written");
        let mut results: Vec<answers::DocumentResult> =
            outcomes.iter().map(|outcome| document_result(&info.name, outcome)).collect();
        for (place, id, error) in refused {
            let result = answers::DocumentResult {
                id: format!("{}/{id}", info.name),
                status: "failed".to_owned(),
                version: None,
                passages: 0,
                error: Some(error.message),
            };
            results.insert(place.min(results.len()), result);
        }
        let written = answer(write_answer(info.name.clone(), results, lsn.0, collection_created))?;
        if let Some(key) = key {
            self.library.remember(key, written.text.clone().into_bytes()).await?;
        }
        Ok(written)
    }

    async fn update_document(&self, given: arguments::UpdateDocument) -> Result<answers::WriteAnswer, ToolError> {
        let (place, document) = self.find(&given.id)?;
        let media_type = given.media_type.as_deref().unwrap_or(&document.media_type);
        let media_type = media_type_of(media_type)?;
        let (text, media_type) = match given.text {
            Some(text) => (text, media_type),
            // What was extracted from a PDF or a page is text now, whatever it came from.
            None => {
                let text =
                    self.library.passages().text(&document, 0..document.chunks.len()).map_err(SearchError::from)?;
                let kept = matches!(media_type, MediaType::Markdown | MediaType::SourceCode);
                (text, if kept { media_type } else { MediaType::Text })
            }
        };
        let mut metadata = shown_metadata(&document.metadata);
        for (name, value) in given.metadata_patch.unwrap_or_default() {
            if value.is_null() {
                metadata.shift_remove(&name);
            } else {
                metadata.insert(name, value);
            }
        }
        let input = DocumentInput {
            id: Some(document.id.clone()),
            body: Body::Text(text, media_type),
            title: Some(given.title.unwrap_or_else(|| document.title.clone())),
            url: given.url.or_else(|| document.url.clone()),
            metadata,
            source: document.source.clone(),
            expires_at: document.expires_at,
            // What was read must still be there, or somebody else's change would be lost.
            if_version: Some(given.if_version.unwrap_or(document.version)),
            conflict: Conflict::Replace,
        };
        let (mut outcomes, lsn) = self.library.add(&place.collection, vec![input]).await?;
        let outcome = outcomes.pop().ok_or_else(|| ToolError::not_found("nothing was written"))?;
        if let DocumentStatus::Failed(error) = outcome.status {
            return Err(error.into());
        }
        let results = vec![document_result(&place.collection, &outcome)];
        Ok(write_answer(place.collection, results, lsn.0, false))
    }

    async fn delete_documents(&self, given: arguments::DeleteDocuments) -> Result<answers::DeleteAnswer, ToolError> {
        let mut targets: Vec<(String, String)> = Vec::new();
        match (&given.filter, &given.collection, given.ids.is_empty()) {
            (None, None, false) => {
                for id in &given.ids {
                    let (place, document) = self.find(id)?;
                    targets.push((place.collection, document.id.clone()));
                }
            }
            (Some(filter_json), Some(collection), true) => {
                let info = self.existing(collection)?;
                let filter =
                    Filter::from_json(filter_json).map_err(|error| ToolError::bad_argument(error.to_string()))?;
                let searcher =
                    self.library.searcher(&info).ok_or_else(|| ToolError::not_found("the collection is gone"))?;
                let keys = searcher.matching(&filter).map_err(SearchError::from)?;
                let mut documents: Vec<_> = keys.keys().iter().map(|&key| PassageKey(key).document()).collect();
                documents.dedup();
                for lsn in documents {
                    let document = self.library.passages().document(lsn).map_err(SearchError::from)?;
                    targets.push((info.name.clone(), document.id.clone()));
                }
            }
            _ => return Err(ToolError::bad_argument("expected either ids, or collection and filter")),
        }
        targets.sort();
        targets.dedup();
        let matched = targets.len();
        if let Some(expected) = given.expected_count.filter(|&expected| expected != matched) {
            let message = format!("{matched} documents match, expected_count is {expected}; nothing was deleted");
            return Err(ToolError { code: "conflict", message, fault: Fault::Caller });
        }
        let mut lsn = self.library.reader().last().0;
        let mut results = Vec::new();
        let mut deleted = 0;
        if given.dry_run {
            results.extend(targets.iter().take(PAGE_MAX).map(|(collection, id)| answers::DocumentResult {
                id: format!("{collection}/{id}"),
                status: "matched".to_owned(),
                version: None,
                passages: 0,
                error: None,
            }));
        } else {
            for group in targets.chunk_by(|left, right| left.0 == right.0) {
                let collection = &group[0].0;
                let ids: Vec<String> = group.iter().map(|(_, id)| id.clone()).collect();
                let (outcomes, written) = self.library.delete(collection, &ids).await?;
                lsn = written.0;
                deleted += outcomes.iter().filter(|outcome| matches!(outcome.status, DocumentStatus::Deleted)).count();
                let room = PAGE_MAX - results.len();
                results.extend(outcomes.iter().take(room).map(|outcome| document_result(collection, outcome)));
            }
        }
        Ok(answers::DeleteAnswer { matched, deleted, dry_run: given.dry_run, results, lsn })
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
        let reasons = self.readiness.reasons();
        let (writes, writes_reason) = match reader.state() {
            WriterState::Writable => ("writable", None),
            WriterState::ReadOnly { reason } => ("read_only", Some(reason)),
            WriterState::DiskFull { free, needed } => ("disk_full", Some(disk_full(free, needed))),
        };
        let models = self.library.models();
        let mut names: Vec<String> = collections.iter().map(|info| info.model.clone()).collect();
        names.push(crate::embed::DEFAULT_MODEL.to_owned());
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
        }
    }
}

/// Why a full disk refuses writes, in words.
pub(crate) fn disk_full(free: u64, needed: u64) -> String {
    let (free, needed) = (ByteSize(free), ByteSize(needed));
    format!("{free} of the disk are free, writing needs {needed}; it resumes by itself once there is room")
}

fn answer(value: impl Serialize) -> Result<ToolAnswer, ToolError> {
    let structured = serde_json::to_value(value).expect("answers are plain data");
    Ok(ToolAnswer::new(structured))
}

fn cursor(text: Option<&str>) -> Result<usize, ToolError> {
    match text {
        None | Some("") => Ok(0),
        Some(text) => text.parse().map_err(|_| {
            ToolError::bad_argument("the cursor is not one of ours; pass next_cursor of the previous answer")
        }),
    }
}

fn detail(given: DetailArgument) -> Detail {
    match given {
        DetailArgument::Ids => Detail::Ids,
        DetailArgument::Snippet => Detail::Snippet,
        DetailArgument::Full => Detail::Full,
    }
}

fn filter(given: Option<&Value>, after: Option<&str>, before: Option<&str>) -> Result<Option<Filter>, ToolError> {
    for (name, text) in [("after", after), ("before", before)] {
        if let Some(text) = text
            && text.parse::<UnixMillis>().is_err()
        {
            let message = format!("{name} is '{text}', expected an RFC 3339 time such as 2026-07-28T09:30:00Z");
            return Err(ToolError::bad_argument(message));
        }
    }
    let normal =
        |text: Option<&str>| text.and_then(|text| text.parse::<UnixMillis>().ok()).map(|time| time.to_string());
    let time = retrieval::updated_between(normal(after).as_deref(), normal(before).as_deref());
    let given = match given {
        None | Some(Value::Null) => None,
        Some(value) => Some(Filter::from_json(value).map_err(|error| ToolError::bad_argument(error.to_string()))?),
    };
    Ok(match (given, time) {
        (Some(given), Some(time)) => Some(Filter::And(vec![given, time])),
        (given, time) => given.or(time),
    })
}

fn media_type_of(text: &str) -> Result<MediaType, ToolError> {
    MediaType::from_mime(text).ok_or_else(|| {
        ToolError::bad_argument(format!(
            "media_type is '{text}', expected text/markdown, text/plain, text/html, application/json, application/x-ndjson or text/csv"
        ))
    })
}

fn input(given: arguments::NewDocument, conflict: ConflictArgument) -> Result<DocumentInput, (String, ToolError)> {
    let id = given.id.clone().unwrap_or_default();
    let refuse = |message: String| (id.clone(), ToolError::bad_argument(message));
    let body = match (given.text, given.content_base64) {
        (Some(text), None) => {
            let media_type = given.media_type.as_deref().unwrap_or("text/markdown");
            Body::Text(text, media_type_of(media_type).map_err(|error| (id.clone(), error))?)
        }
        (None, Some(content)) => {
            let bytes = BASE64_STANDARD
                .decode(content.trim())
                .map_err(|error| refuse(format!("content_base64 is not base64: {error}")))?;
            let name = given.filename.or_else(|| given.id.clone()).unwrap_or_else(|| "document".to_owned());
            Body::File { name, bytes }
        }
        (Some(_), Some(_)) => return Err(refuse("expected either text or content_base64, found both".to_owned())),
        (None, None) => return Err(refuse("expected text or content_base64, found neither".to_owned())),
    };
    let expires_at = match given.expires_at.as_deref().map(str::parse::<UnixMillis>) {
        None => None,
        Some(Ok(time)) => Some(time),
        Some(Err(_)) => {
            return Err(refuse("expires_at is no RFC 3339 time such as 2026-07-28T09:30:00Z".to_owned()));
        }
    };
    Ok(DocumentInput {
        id: given.id,
        body,
        title: given.title,
        url: given.url,
        metadata: given.metadata,
        source: None,
        expires_at,
        if_version: (conflict == ConflictArgument::Fail).then_some(0),
        conflict: if conflict == ConflictArgument::Skip { Conflict::Skip } else { Conflict::Replace },
    })
}

fn document_result(collection: &str, outcome: &DocumentOutcome) -> answers::DocumentResult {
    let (status, error) = match &outcome.status {
        DocumentStatus::Created => ("created", None),
        DocumentStatus::Updated => ("updated", None),
        DocumentStatus::Unchanged => ("unchanged", None),
        DocumentStatus::Deleted => ("deleted", None),
        DocumentStatus::Failed(error) => ("failed", Some(error.to_string())),
    };
    answers::DocumentResult {
        id: format!("{collection}/{}", outcome.id),
        status: status.to_owned(),
        version: outcome.version,
        passages: outcome.passages,
        error,
    }
}

fn write_answer(
    collection: String,
    results: Vec<answers::DocumentResult>,
    lsn: u64,
    collection_created: bool,
) -> answers::WriteAnswer {
    let count = |status: &str| results.iter().filter(|result| result.status == status).count();
    answers::WriteAnswer {
        created: count("created"),
        updated: count("updated"),
        unchanged: count("unchanged"),
        failed: count("failed"),
        collection,
        results,
        lsn,
        collection_created,
    }
}

fn summary(info: &CollectionInfo) -> answers::CollectionSummary {
    answers::CollectionSummary {
        name: info.name.clone(),
        description: info.description.clone(),
        documents: info.documents,
        passages: info.chunks,
        text_bytes: info.text_bytes,
        model: info.model.clone(),
        updated_at: info.last_change_time.to_string(),
        generation: info.last_change.0,
    }
}

fn place_of(hit: &Hit) -> Place {
    Place {
        collection: hit.collection.clone(),
        document: hit.passage.document.id.clone(),
        passage: Some(hit.passage.ordinal),
    }
}

fn url_of(document: &DocumentRecord, place: &Place, node: NodeId) -> String {
    document.url.clone().unwrap_or_else(|| place.uri(node))
}

fn search_result(hit: &Hit, node: NodeId) -> answers::SearchResult {
    let (document, chunk) = (&hit.passage.document, &hit.passage.document.chunks[hit.passage.ordinal]);
    let place = place_of(hit);
    answers::SearchResult {
        id: place.to_string(),
        title: document.title.clone(),
        url: url_of(document, &place, node),
        text: hit.text.clone(),
        score: rounded(hit.scores.score),
        collection: hit.collection.clone(),
        document: document.id.clone(),
        headings: hit.passage.body.headings.clone(),
        range: [chunk.range.start, chunk.range.end],
        page: chunk.page,
        citation: citation(hit),
        version: document.version,
        updated_at: document.updated.to_string(),
        scores: answers::HalfScores { dense: hit.scores.dense.map(rounded), lexical: hit.scores.lexical.map(rounded) },
        metadata: shown_metadata(&document.metadata),
        also_in: hit.also_in.iter().map(|id| format!("{}/{id}", hit.collection)).collect(),
    }
}

/// `Title › Heading › Heading (document, page 3)`, or with the bytes where there are no pages.
fn citation(hit: &Hit) -> String {
    let (document, chunk) = (&hit.passage.document, &hit.passage.document.chunks[hit.passage.ordinal]);
    let mut citation = document.title.clone();
    for heading in &hit.passage.body.headings {
        citation.push_str(" › ");
        citation.push_str(heading);
    }
    match chunk.page {
        Some(page) => citation.push_str(&format!(" ({}, page {page})", document.id)),
        None => citation.push_str(&format!(" ({}, bytes {}–{})", document.id, chunk.range.start, chunk.range.end)),
    }
    citation
}

impl From<SearchError> for ToolError {
    fn from(error: SearchError) -> Self {
        let fault = error.fault();
        let code = match &error {
            SearchError::NoSuchCollection { .. } | SearchError::NoSuchDocument { .. } => "not_found",
            SearchError::EmptyQuery | SearchError::OutOfRange { .. } => "bad_argument",
            SearchError::Lexical(_) | SearchError::Embed(_) | SearchError::Read(_) | SearchError::Model(_) => {
                "internal"
            }
        };
        Self { code, message: error.to_string(), fault }
    }
}

impl From<WriteError> for ToolError {
    fn from(error: WriteError) -> Self {
        let fault = error.fault();
        let code = match &error {
            WriteError::NoSuchCollection { .. } | WriteError::NoSuchDocument { .. } => "not_found",
            WriteError::CollectionExists { .. } | WriteError::Conflict { .. } => "conflict",
            WriteError::BadName { .. } | WriteError::NoSuchModel { .. } | WriteError::Prepare(_) => "bad_argument",
            WriteError::Commit(_) => "read_only",
            WriteError::Read(_) | WriteError::Embed(_) => "internal",
            WriteError::Stopping => "overloaded",
        };
        Self { code, message: error.to_string(), fault }
    }
}

/// The status as JSON, for the admin listener.
impl NodeTools {
    /// What get_status answers.
    #[must_use]
    pub fn status_json(&self) -> Value {
        serde_json::to_value(self.status()).unwrap_or_else(|_| json!({}))
    }
}
