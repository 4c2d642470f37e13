//! The tools that list and write documents.

use std::sync::Arc;

use serde_json::Value;

use super::super::arguments::{self, OrderArgument};
use super::super::{Place, Progress, ToolAnswer, ToolError, answers};
use super::NodeTools;
use super::inputs::{input, media_type_of};
use super::shapes::{answer, document_result, url_of, write_answer};
use crate::base::Fault;
use crate::collection::{Body, Conflict, DocumentInput, DocumentStatus, MediaType, PassageKey};
use crate::collection::{CollectionInfo, DocumentEntry};
use crate::mcp::ToolProvider as _;
use crate::retrieval::Filter;
use crate::retrieval::{SearchError, shown_metadata};

/// Documents in one call.
const DOCUMENTS_MAX: usize = 1_000;
/// Documents on one page of a list.
const PAGE_MAX: usize = 1_000;

impl NodeTools {
    pub(super) fn list_documents(
        &self,
        given: &arguments::ListDocuments,
    ) -> Result<answers::ListDocumentsAnswer, ToolError> {
        let info = self.existing(&given.collection)?;
        let limit = given.limit.unwrap_or(100);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(ToolError::bad_argument(format!("limit is {limit}, expected 1 to {PAGE_MAX}")));
        }
        let after = given.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        let by_id = given.order == OrderArgument::Id;
        let mut entries = match &given.filter {
            None if by_id => {
                let reader = self.library.reader();
                reader.list(info.id, after, &given.prefix, limit + 1).map_err(SearchError::from)?
            }
            filter => self.matching_documents(&info, filter.as_ref(), &given.prefix)?,
        };
        if !by_id {
            entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.lsn));
        }
        if let Some(after) = after {
            let lsn: u64 = after.parse().unwrap_or_default();
            entries.retain(|(id, entry)| if by_id { id.as_str() > after } else { entry.lsn.0 < lsn });
        }
        let last = entries.get(limit).and_then(|_| entries.get(limit - 1));
        let next_cursor = last.map(|(id, entry)| if by_id { id.clone() } else { entry.lsn.to_string() });
        entries.truncate(limit);
        self.document_page(&info, entries, next_cursor)
    }

    /// Every document of a collection that matches, by id. Cost: proportional to the collection without a filter.
    fn matching_documents(
        &self,
        info: &Arc<CollectionInfo>,
        filter: Option<&Value>,
        prefix: &str,
    ) -> Result<Vec<(String, DocumentEntry)>, ToolError> {
        let reader = self.library.reader();
        let Some(filter) = filter else {
            return Ok(reader.list(info.id, None, prefix, usize::MAX).map_err(SearchError::from)?);
        };
        let mut entries = Vec::new();
        for id in self.matching_ids(info, filter)?.into_iter().filter(|id| id.starts_with(prefix)) {
            if let Some(entry) = reader.lookup(info.id, &id).map_err(SearchError::from)? {
                entries.push((id, entry));
            }
        }
        Ok(entries)
    }

    /// Ids of the documents whose metadata matches, in byte order.
    fn matching_ids(&self, info: &Arc<CollectionInfo>, filter: &Value) -> Result<Vec<String>, ToolError> {
        let filter = Filter::from_json(filter).map_err(|error| ToolError::bad_argument(error.to_string()))?;
        let searcher = self.library.searcher(info).ok_or_else(|| ToolError::not_found("the collection is gone"))?;
        let matching = searcher.matching(&filter).map_err(SearchError::from)?;
        let mut documents: Vec<_> = matching.keys().keys().iter().map(|&key| PassageKey(key).document()).collect();
        documents.dedup();
        let mut ids = Vec::with_capacity(documents.len());
        for lsn in documents {
            ids.push(self.library.passages().document(lsn).map_err(SearchError::from)?.id.clone());
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    fn document_page(
        &self,
        info: &Arc<CollectionInfo>,
        entries: Vec<(String, DocumentEntry)>,
        next_cursor: Option<String>,
    ) -> Result<answers::ListDocumentsAnswer, ToolError> {
        let mut documents = Vec::with_capacity(entries.len());
        for (id, entry) in entries {
            let document = match self.library.passages().document(entry.lsn) {
                Ok(document) => document,
                Err(error) => {
                    tracing::error!(%error, id, "a document's record cannot be read");
                    continue;
                }
            };
            if !self.library.is_current(&document) {
                continue;
            }
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

    pub(super) async fn add_documents(
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
        // Calls with a key go one after another, so that of two at once the second gets the first one's answer.
        let _turn = match &key {
            Some(_) => Some(self.keyed_writes.lock().await),
            None => None,
        };
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
            match input(self, document, given.on_conflict) {
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

    pub(super) async fn update_document(
        &self,
        given: arguments::UpdateDocument,
    ) -> Result<answers::WriteAnswer, ToolError> {
        let (place, document) = self.find(&given.id, None)?;
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

    pub(super) async fn delete_documents(
        &self,
        given: arguments::DeleteDocuments,
    ) -> Result<answers::DeleteAnswer, ToolError> {
        let mut targets: Vec<(String, String)> = Vec::new();
        match (&given.filter, &given.collection, given.ids.is_empty()) {
            (None, None, false) => {
                for id in &given.ids {
                    let (place, document) = self.find(id, None)?;
                    targets.push((place.collection, document.id.clone()));
                }
            }
            (Some(filter_json), Some(collection), true) => {
                let info = self.existing(collection)?;
                let ids = self.matching_ids(&info, filter_json)?;
                targets.extend(ids.into_iter().map(|id| (info.name.clone(), id)));
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
        Ok(answers::DeleteAnswer { matched, deleted, dry_run: given.dry_run, documents: results, lsn })
    }
}
