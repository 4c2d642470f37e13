//! Writes under a permit: documents are prepared on the caller's side, and everything conditional is decided by the thread that
//! writes the log.

use std::sync::Arc;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::access::{Access, LOOKS, Whole};
use super::errors::WriteError;
use super::input::{self, Assembling, DocumentInput, Origin, PrepareError};
use super::memory::{self, Admission};
use super::outcomes::{
    Added, Addition, DocumentOutcome, DocumentStatus, Missing, PreparedDocument, SourceOutcome, deleted,
    document_outcome, failed,
};
use super::writer::{WaitFor, Written};
use super::{Library, is_collection_name};
use crate::base::{Fault, Lsn};
use crate::embed::{DEFAULT_MODEL, Embedder};
use crate::extraction::Request;
use crate::store::{self, CollectionInfo, Operation, Outcome, RunOnce, WriteRequest};
use crate::task::MemoryReservation;

impl Access<'_> {
    pub(super) fn existing(&self, name: &str) -> Result<Arc<CollectionInfo>, WriteError> {
        self.collection(name).ok_or_else(|| WriteError::NoSuchCollection { name: name.to_owned() })
    }

    /// Whether a collection of that name may be made.
    fn reaches(&self, name: &str) -> Result<(), WriteError> {
        match self.permit.reach().admits(name) {
            true => Ok(()),
            false => Err(WriteError::OutOfReach { name: name.to_owned() }),
        }
    }

    /// Creates a collection.
    ///
    /// # Errors
    /// When the name is taken or no name, or the model is unknown; see [`WriteError`].
    pub async fn create_collection(
        &self,
        name: &str,
        description: &str,
        model: Option<&str>,
    ) -> Result<Arc<CollectionInfo>, WriteError> {
        self.create(name, description, model, WaitFor::Visible).await
    }

    async fn create(
        &self,
        name: &str,
        description: &str,
        model: Option<&str>,
        until: WaitFor,
    ) -> Result<Arc<CollectionInfo>, WriteError> {
        self.reaches(name)?;
        let operation = Operation::CreateCollection(self.library.planned(name, description, model)?);
        let written = self.library.commit(vec![operation], until).await?;
        match written.outcomes.first() {
            Some(Outcome::CollectionExists(_)) => Err(WriteError::CollectionExists { name: name.to_owned() }),
            _ => self.existing(name),
        }
    }

    /// The collection with this name, created if there is none. The flag is true if it was created.
    ///
    /// # Errors
    /// As for [`Access::create_collection`].
    pub async fn ensure_collection(&self, name: &str) -> Result<(Arc<CollectionInfo>, bool), WriteError> {
        if let Some(info) = self.collection(name) {
            return Ok((info, false));
        }
        // If writes must be visible, callers wait for what is put into it.
        match self.create(name, "", None, WaitFor::Durable).await {
            Ok(info) => Ok((info, true)),
            // Another caller was faster.
            Err(WriteError::CollectionExists { .. }) => Ok((self.existing(name)?, false)),
            Err(error) => Err(error),
        }
    }

    /// Deletes a collection with its documents.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn delete_collection(&self, name: &str) -> Result<Arc<CollectionInfo>, WriteError> {
        let info = self.existing(name)?;
        let delete = vec![Operation::DeleteCollection { collection: info.id }];
        self.commit_whole(&info, Whole::Collection, delete, WaitFor::Visible, None).await?;
        Ok(info)
    }

    /// Writes documents, all in one atomic batch; a rejected document is reported and left out.
    ///
    /// # Errors
    /// When the collection is missing and must not be created, or the log refuses. Nothing was written then.
    pub async fn add(
        &self,
        collection: &str,
        missing: Missing,
        inputs: Vec<DocumentInput>,
    ) -> Result<Added, WriteError> {
        let (operations, addition, held) = self.addition(collection, missing, inputs, false).await?;
        let written = self.library.commit_held(operations, WaitFor::Visible, Some(held)).await?;
        Ok(addition.added(&written.outcomes, written.lsn))
    }

    /// Like [`Access::add`], once for each key: within a day a repeated call gets the first one's answer and writes
    /// nothing, even if both are concurrent, and however the node ends in between.
    ///
    /// * `key`: unique for its caller and at most [`store::NAME_BYTES_MAX`] bytes.
    /// * `compose`: creates the answer, on the writer's thread.
    ///
    /// # Errors
    /// As for [`Access::add`], when an earlier answer cannot be read, or when a document cannot be taken for a reason that passes: that is
    /// not stored as the answer.
    pub async fn add_once(
        &self,
        collection: &str,
        missing: Missing,
        inputs: Vec<DocumentInput>,
        key: String,
        compose: impl Fn(Added) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Vec<u8>, WriteError> {
        // Decided by the writer; this only saves the work.
        if let Some(answer) = self.library.reader.remembered(&key)? {
            return Ok(answer);
        }
        let (operations, addition, held) = self.addition(collection, missing, inputs, true).await?;
        let addition = Mutex::new(Some(addition));
        let compose = move |outcomes: &[Outcome], lsn: Lsn| {
            let addition = addition.lock().take().expect("called once");
            compose(addition.added(outcomes, lsn))
        };
        let once = Some(RunOnce { key, compose: Arc::new(compose) });
        let request = WriteRequest { operations, once, ..WriteRequest::default() };
        let written = self.library.queue.write(request, WaitFor::Visible, Some(held)).await?;
        written.answer.ok_or(WriteError::Stopping)
    }

    /// Prepares documents to be written.
    ///
    /// * `is_kept`: whether the answer is kept, so that it may say nothing that passes.
    async fn addition(
        &self,
        collection: &str,
        missing: Missing,
        inputs: Vec<DocumentInput>,
        is_kept: bool,
    ) -> Result<(Vec<Operation>, Addition, MemoryReservation), WriteError> {
        let known = self.collection(collection);
        let info = match (&known, missing) {
            (Some(info), _) => Arc::clone(info),
            (None, Missing::Create) => {
                self.reaches(collection)?;
                let planned = self.library.planned(collection, "", None)?;
                Arc::new(CollectionInfo::new(Lsn::ZERO, self.library.config.clock.now(), planned))
            }
            (None, Missing::Refuse) => return Err(WriteError::NoSuchCollection { name: collection.to_owned() }),
        };
        let lengths: Vec<usize> = inputs.iter().map(DocumentInput::length).collect();
        let mut admission = self.library.admit(&lengths).await?;
        let documents = Vec::with_capacity(inputs.len());
        let mut addition = Addition { collection: collection.to_owned(), collection_created: false, documents };
        let mut operations = Vec::with_capacity(inputs.len());
        // Side by side, and in the order that they came in.
        let (info, most) = (&info, admission.parser_bytes_max);
        let preparing = inputs.into_iter().map(|input| async move {
            let (id, expected) = (input.id.clone().unwrap_or_default(), input.if_version);
            (id, expected, self.library.prepare(info, input, most).await)
        });
        let mut preparing = futures_util::stream::iter(preparing).buffered(admission.width);
        let (mut kept, mut reached) = (0_u64, None);
        while let Some((id, expected, prepared)) = preparing.next().await {
            let prepared = match prepared {
                Ok(mut document) => self.pin_reach(info, &mut reached, &mut document).await.map(|()| document),
                refused => refused,
            };
            addition.documents.push(match prepared {
                Ok(document) => {
                    kept = kept.saturating_add(memory::kept_bytes(&document));
                    admission.reserve_for_kept(kept).await?;
                    let added =
                        Ok(PreparedDocument { id: document.id.clone(), passages: document.chunks.len(), expected });
                    operations.push(Operation::PutDocument(Box::new(document)));
                    added
                }
                Err(error) if is_kept && error.fault() != Fault::Caller => return Err(error),
                Err(error) => Err(failed(id, error)),
            });
        }
        drop(preparing);
        // Before a collection is made for them: without room nothing is left behind.
        let held = admission.write().await?;
        if known.is_none() && !operations.is_empty() {
            let (made, created) = self.ensure_collection(collection).await?;
            if made.model != info.model {
                // Another caller created it meanwhile, with different properties.
                return Err(WriteError::CollectionExists { name: collection.to_owned() });
            }
            for operation in &mut operations {
                if let Operation::PutDocument(document) = operation {
                    document.collection = made.id;
                }
            }
            addition.collection_created = created;
        }
        Ok((operations, addition, held))
    }

    /// Syncs the documents of one source (a file) with its content: new and changed ones are written, those that the
    /// source no longer contains are deleted, in one atomic batch; a source without text has none. Returns when that is
    /// on stable storage; searches see it within about half a second, or after [`Access::flush`]. Sources of a
    /// collection that is being searched wait until its graph has nearly caught up, at most a second each.
    ///
    /// * `source`: the file's path as the caller names it; also the id of its document, or the prefix of its records'
    ///   ids.
    ///
    /// # Errors
    /// When the source cannot be read as documents, or the log refuses. Nothing was written then.
    pub async fn sync_source(
        &self,
        collection: &str,
        source: &str,
        bytes: impl AsRef<[u8]> + Into<Vec<u8>>,
        metadata: Map<String, Value>,
    ) -> Result<SourceOutcome, WriteError> {
        let info = self.existing(collection)?;
        // Before the work.
        let whole = Whole::Source(source);
        self.check_whole(&info, whole).await?;
        let digest = input::source_digest(source, bytes.as_ref(), &metadata, &info, &self.library.config);
        let known = self.library.reader.list_source(info.id, source, None, usize::MAX)?;
        if !known.is_empty() && known.iter().all(|(_, entry)| entry.source_digest == Some(digest)) {
            // It was in between something that could not be read.
            self.library
                .commit(self.library.forget_unread(info.id, source)?.into_iter().collect(), WaitFor::Durable)
                .await?;
            return Ok(SourceOutcome { documents: Vec::new(), unchanged: known.len(), warnings: Vec::new() });
        }
        let views = self.library.views.read().get(&info.id).cloned();
        if let Some(views) = views {
            self.library.upkeep.let_graph_follow(&views).await;
        }
        let mut admission = self.library.admit(&[bytes.as_ref().len()]).await?;
        let request = input::source_request(source, bytes.into(), &self.library.config, admission.parser_bytes_max);
        let origin = Origin::Source { name: source.to_owned(), digest, metadata };
        let read = self.library.read(&info, request, origin, Some(&mut admission)).await;
        let (documents, warnings) = match read {
            Ok(read) => read,
            Err(error @ (WriteError::Busy | WriteError::NoMemory { .. })) => return Err(error),
            Err(error) => return Err(self.library.note_unread(&info, source, digest, error).await),
        };
        let mut places: Vec<(String, usize)> = Vec::new();
        let mut operations = Vec::new();
        let mut reached = None;
        for mut document in documents {
            self.pin_reach(&info, &mut reached, &mut document).await?;
            places.push((document.id.clone(), document.chunks.len()));
            operations.push(Operation::PutDocument(Box::new(document)));
        }
        let keep = places.iter().map(|(id, _)| id.clone()).collect();
        operations.push(Operation::DeleteFromSource { collection: info.id, source: source.to_owned(), keep });
        // After the others, so that their outcomes keep their positions.
        let forgotten = self.library.forget_unread(info.id, source)?;
        let notes = usize::from(forgotten.is_some());
        operations.extend(forgotten);
        let held = admission.write().await?;
        let mut written = self.commit_whole(&info, whole, operations, WaitFor::Durable, Some(held)).await?;
        written.outcomes.truncate(written.outcomes.len().saturating_sub(notes));
        let gone = deleted(written.outcomes.pop());
        let mut outcome = SourceOutcome { documents: Vec::new(), unchanged: 0, warnings };
        let gone = gone.into_iter().map(|id| ((id, 0), Outcome::Deleted { version: 0 }));
        for ((id, passages), result) in places.into_iter().zip(written.outcomes).chain(gone) {
            let document = document_outcome(collection, id, passages, None, &result);
            if matches!(document.status, DocumentStatus::Unchanged) {
                outcome.unchanged += 1;
            } else {
                outcome.documents.push(document);
            }
        }
        Ok(outcome)
    }

    /// Deletes every document of a source. Returns their ids.
    ///
    /// # Errors
    /// When the collection does not exist or the log refuses.
    pub async fn delete_source(&self, collection: &str, source: &str) -> Result<Vec<String>, WriteError> {
        let info = self.existing(collection)?;
        let all = Operation::DeleteFromSource {
            collection: info.id,
            source: source.to_owned(),
            keep: std::collections::HashSet::new(),
        };
        let operations = [all].into_iter().chain(self.library.forget_unread(info.id, source)?).collect();
        let mut written = self.commit_whole(&info, Whole::Source(source), operations, WaitFor::Durable, None).await?;
        written.outcomes.truncate(1);
        Ok(deleted(written.outcomes.pop()))
    }

    /// Deletes documents by id, in one atomic batch.
    ///
    /// # Errors
    /// When the collection does not exist or the log refuses. An unknown id is reported in its outcome.
    pub async fn delete(&self, collection: &str, ids: &[String]) -> Result<(Vec<DocumentOutcome>, Lsn), WriteError> {
        let info = self.existing(collection)?;
        let (mut operations, mut reached) = (Vec::with_capacity(ids.len()), None);
        for id in ids {
            let if_version = self.pinned_version(&info, &mut reached, id).await?;
            operations.push(Operation::DeleteDocument { collection: info.id, id: id.clone(), if_version });
        }
        let written = self.library.commit(operations, WaitFor::Visible).await?;
        let outcomes = ids
            .iter()
            .zip(&written.outcomes)
            .map(|(id, outcome)| document_outcome(collection, id.clone(), 0, None, outcome))
            .collect();
        Ok((outcomes, written.lsn))
    }

    /// Deletes one document.
    ///
    /// * `version`: deletes it only at this version.
    ///
    /// # Errors
    /// When the collection does not exist or the log refuses. An unknown id and another version are reported in the outcome.
    pub async fn delete_at(
        &self,
        collection: &str,
        id: &str,
        version: Option<u64>,
    ) -> Result<DocumentOutcome, WriteError> {
        let info = self.existing(collection)?;
        let seen = self.pinned_version(&info, &mut None, id).await?;
        if let (Some(expected), Some(actual)) = (version, seen)
            && expected != actual
        {
            let outcome = Outcome::Conflict { actual: Some(actual).filter(|actual| *actual > 0) };
            return Ok(document_outcome(collection, id.to_owned(), 0, version, &outcome));
        }
        let if_version = version.or(seen);
        let operation = Operation::DeleteDocument { collection: info.id, id: id.to_owned(), if_version };
        let written = self.library.commit(vec![operation], WaitFor::Visible).await?;
        let outcome = written.outcomes.first().ok_or(WriteError::Stopping)?;
        Ok(document_outcome(collection, id.to_owned(), 0, version, outcome))
    }

    /// Commits operations on documents that they do not name, all of which the permit reaches: what is decided holds for the moment of
    /// the write.
    async fn commit_whole(
        &self,
        info: &Arc<CollectionInfo>,
        whole: Whole<'_>,
        mut operations: Vec<Operation>,
        until: WaitFor,
        mut held: Option<MemoryReservation>,
    ) -> Result<Written, WriteError> {
        for _ in 0..LOOKS {
            let unless_changed = self.check_whole(info, whole).await?.map(|seen| (info.id, seen));
            let again = if unless_changed.is_some() { operations.clone() } else { Vec::new() };
            let request = WriteRequest { operations, once: None, unless_changed };
            let written = self.library.queue.write(request, until, held.take()).await?;
            if !written.outcomes.iter().all(|outcome| *outcome == Outcome::Overtaken) {
                return Ok(written);
            }
            operations = again;
        }
        Err(WriteError::Overtaken { what: whole.name(info) })
    }

    /// Waits until everything written so far is visible to searches.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn flush(&self) -> Result<Lsn, WriteError> {
        let request = WriteRequest::default();
        Ok(self.library.queue.write(request, WaitFor::Visible, None).await?.lsn)
    }

    /// Closes the segment that is being written, so that everything acknowledged so far lies in segments that no longer
    /// change. Returns the LSN of the last record.
    ///
    /// # Errors
    /// When the log cannot be written or the node is stopping.
    pub async fn seal(&self) -> Result<Lsn, WriteError> {
        self.library.queue.seal().await
    }

    /// Removes dead records as far as that is worth it, and waits until it is done. The compactor would do the same a
    /// little later; the segment that is being written is sealed for it.
    ///
    /// # Errors
    /// When the log cannot be written, some of it could not be read, or the node is stopping.
    pub async fn compact(&self) -> Result<u64, WriteError> {
        let rounds = self.library.compactor.finished_rounds();
        self.flush().await?;
        if self.library.reader.is_active_worth_rewriting() {
            self.seal().await?;
        }
        let library = Arc::clone(self.library);
        tokio::task::spawn_blocking(move || library.compactor.wait_until_idle(rounds))
            .await
            .map_err(|_| WriteError::Stopping)?
            .map_err(WriteError::Compact)?;
        Ok(self.library.reader.log_bytes())
    }

    /// Deletes expired documents, at most `limit`. Returns how many.
    ///
    /// # Errors
    /// When the log refuses.
    pub async fn sweep_expired(&self, limit: usize) -> Result<usize, WriteError> {
        let now = self.library.config.clock.now();
        let mut operations = Vec::new();
        for (collection, id) in self.library.reader.expired(now, limit)? {
            // Of the version that was checked: one written meanwhile may stay longer.
            let entry = self.library.reader.lookup(collection, &id)?;
            let expired = entry.filter(|entry| entry.expires_at.is_some_and(|time| time <= now));
            let if_version = expired.map(|entry| entry.version);
            operations.extend(if_version.map(|_| Operation::DeleteDocument { collection, id, if_version }));
        }
        let written = self.library.commit(operations, WaitFor::Durable).await?;
        Ok(written.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Deleted { .. })).count())
    }
}

impl Library {
    fn planned(&self, name: &str, description: &str, model: Option<&str>) -> Result<store::NewCollection, WriteError> {
        if !is_collection_name(name) {
            return Err(WriteError::BadName { name: name.to_owned() });
        }
        let model = model.unwrap_or(DEFAULT_MODEL);
        let info = self.config.models.info(model).ok_or_else(|| self.config.models.unknown(model))?;
        Ok(store::NewCollection {
            name: name.to_owned(),
            description: description.to_owned(),
            model: info.name.clone(),
            dimensions: u32::try_from(info.dimensions).expect("a model has a few thousand dimensions"),
        })
    }

    /// Waits for memory in which sources of these lengths can be read and written.
    async fn admit(&self, lengths: &[usize]) -> Result<Admission, WriteError> {
        self.config.memory.budget.set_max(self.room_bytes());
        Admission::to(&self.config, lengths).await
    }

    async fn prepare(
        &self,
        info: &Arc<CollectionInfo>,
        mut input: DocumentInput,
        parser_bytes_max: u64,
    ) -> Result<store::NewDocument, WriteError> {
        input::check(&input)?;
        let request = input::document_request(&mut input, &self.config, parser_bytes_max);
        let (mut documents, _) = self.read(info, request, Origin::Document(Box::new(input)), None).await?;
        documents.pop().ok_or_else(|| PrepareError::Empty.into())
    }

    /// Reads a source, and embeds the first parts while the rest is still being read. Returns its documents and any
    /// warnings.
    ///
    /// * `admission`: grows with the documents; `None` if the caller does that.
    async fn read(
        &self,
        info: &Arc<CollectionInfo>,
        request: Request,
        origin: Origin,
        mut admission: Option<&mut Admission>,
    ) -> Result<(Vec<store::NewDocument>, Vec<String>), WriteError> {
        let embedder = self.embedder(info)?;
        let mut assembling = Assembling::new(origin, Arc::clone(info), embedder, &self.config);
        let mut reading = self.extraction.read(request);
        // Most sources are short: read, embedded and hashed by one thread.
        if reading.is_short() {
            let begin = move || {
                reading.start_blocking().map_err(PrepareError::from)?;
                while let Some(batch) = reading.ready().map_err(PrepareError::from)? {
                    assembling.process(&batch)?;
                }
                Ok::<_, WriteError>((reading, assembling))
            };
            (reading, assembling) = self.pool.run(begin).await?;
            if let Some(admission) = &mut admission {
                admission.reserve_for_kept(assembling.memory_bytes()).await?;
            }
        }
        while let Some(batch) = reading.next().await.map_err(PrepareError::from)? {
            assembling = self.pool.run(move || assembling.process(&batch).map(|()| assembling)).await?;
            if let Some(admission) = &mut admission {
                admission.reserve_for_kept(assembling.memory_bytes()).await?;
            }
        }
        let documents = assembling.finish()?;
        Ok((documents, reading.finish()))
    }

    fn embedder(&self, info: &CollectionInfo) -> Result<Arc<dyn Embedder>, WriteError> {
        Ok(Arc::clone(self.config.models.get(&info.model)?))
    }

    pub(super) async fn commit(&self, operations: Vec<Operation>, until: WaitFor) -> Result<Written, WriteError> {
        self.commit_held(operations, until, None).await
    }

    /// * `held`: released when searches see the write.
    async fn commit_held(
        &self,
        operations: Vec<Operation>,
        until: WaitFor,
        held: Option<MemoryReservation>,
    ) -> Result<Written, WriteError> {
        if operations.is_empty() {
            return Ok(Written { outcomes: Vec::new(), answer: None, lsn: self.reader.last() });
        }
        self.queue.write(WriteRequest { operations, ..WriteRequest::default() }, until, held).await
    }
}
