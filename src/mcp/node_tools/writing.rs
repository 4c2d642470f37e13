//! The tools that write documents.

use super::super::arguments;
use super::super::{Progress, ToolAnswer, ToolError, answers};
use super::NodeTools;
use super::inputs::{input, media_type_of};
use super::reading::PAGE_MAX;
use super::shapes::{answer, document_result, write_answer};
use crate::base::Fault;
use crate::collection::{Body, Conflict, DocumentInput, DocumentStatus, MediaType};
use crate::retrieval::{SearchError, shown_metadata};

/// Documents in one call.
const DOCUMENTS_MAX: usize = 1_000;

impl NodeTools {
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
        let (place, document) = self.reading.find(&given.id, None)?;
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
                    let (place, document) = self.reading.find(id, None)?;
                    targets.push((place.collection, document.id.clone()));
                }
            }
            (Some(filter_json), Some(collection), true) => {
                let info = self.reading.existing(collection)?;
                let ids = self.reading.matching_ids(&info, filter_json)?;
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
