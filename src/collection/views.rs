//! The views of a collection and how they follow the log.

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::input::{context, introduction_of};
use super::passage::{PassageKey, repeated_and_own};
use super::{Config, OpenError};
use crate::base::{Lsn, UnixMillis, with_causes};
use crate::embed::{DEFAULT_MODEL, Models};
use crate::index::analysis::Language;
use crate::index::derived;
use crate::index::lexical::{LexicalEntry, LexicalError, LexicalIndex, LexicalSearcher};
use crate::index::vector::{self, VectorIndex};
use crate::ingest::{self, MediaType};
use crate::store::{
    Change, ChangeKind, ChunkBody, CollectionId, CollectionInfo, DocumentRecord, ReadError, Reader, Replaced,
};
use crate::task;

/// Whether a checkpoint merges the segments of the lexical index first, which takes time in proportion to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merging {
    /// Into one, so that searches read each word once.
    All,
    /// Upkeep does it, when the node has run for a while.
    Later,
}

/// Passages applied between two commits of the indexes while catching up.
const CATCH_UP_BATCH: usize = 20_000;

/// Below this part of the ten nearest the log says that the graph finds too little.
const RECALL_LEAST: f64 = 0.8;

/// How long after a search a collection counts as one that is searched.
const SEARCHED_MILLIS: u64 = 5_000;
const NEVER: u64 = u64::MAX;

/// What searches see of both indexes: the same state of the log, so that a document is found in one version.
pub(super) struct IndexViews {
    pub(super) lexical: Arc<LexicalSearcher>,
    pub(super) vectors: Arc<vector::View>,
}

/// Both indexes of one collection.
pub(super) struct Views {
    pub(super) lexical: LexicalIndex,
    pub(super) vectors: Arc<VectorIndex>,
    /// The models of the node, and the name of the collection's.
    models: Arc<Models>,
    model: String,
    visible: ArcSwap<IndexViews>,
    /// Held from when one index shows another state until both are shown.
    showing: Mutex<()>,
    lexical_applied: AtomicU64,
    vectors_applied: AtomicU64,
    /// A failed index accepts nothing more: a commit after the failure would claim records that the index lacks, and
    /// the next start would trust it.
    lexical_failed: AtomicBool,
    vectors_failed: AtomicBool,
    broken: Mutex<Option<String>>,
    opened: Instant,
    /// Milliseconds from `opened` to the last search.
    searched: AtomicU64,
}

impl Views {
    pub(super) fn open(config: &Config, info: &CollectionInfo, trust: vector::Trust) -> Result<Self, OpenError> {
        let (lexical, lexical_applied) =
            LexicalIndex::open(&directory(config, "lexical", info.id), &config.words, config.memory.writer_bytes)?;
        let vectors_config = vector::Config { dimensions: dimensions(&config.models, info), ..config.vectors.clone() };
        let path = directory(config, "vectors", info.id);
        let (vectors, vectors_applied) = VectorIndex::open(&path, vectors_config, trust)?;
        let vectors = Arc::new(vectors);
        if let Some(gpu) = &config.gpu {
            vectors.join_device(gpu);
        }
        let visible = IndexViews { lexical: lexical.searcher(), vectors: vectors.view() };
        Ok(Self {
            lexical,
            vectors,
            models: Arc::clone(&config.models),
            model: info.model.clone(),
            visible: ArcSwap::from_pointee(visible),
            showing: Mutex::new(()),
            lexical_applied: AtomicU64::new(lexical_applied.0),
            vectors_applied: AtomicU64::new(vectors_applied.0),
            lexical_failed: AtomicBool::new(false),
            vectors_failed: AtomicBool::new(false),
            broken: Mutex::new(None),
            opened: Instant::now(),
            searched: AtomicU64::new(NEVER),
        })
    }

    /// What searches see. Cheap.
    pub(super) fn visible(&self) -> Arc<IndexViews> {
        self.visible.load_full()
    }

    /// Shows both indexes as they are.
    fn publish(&self) {
        self.visible.store(Arc::new(IndexViews { lexical: self.lexical.searcher(), vectors: self.vectors.view() }));
    }

    /// Records that a search runs.
    pub(super) fn note_search(&self) {
        self.searched.store(self.now(), Ordering::Relaxed);
    }

    /// Whether there was a search within the last seconds.
    pub(super) fn is_searched(&self) -> bool {
        let searched = self.searched.load(Ordering::Relaxed);
        searched != NEVER && self.now().saturating_sub(searched) < SEARCHED_MILLIS
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    /// Looks at how well the graph finds, when that is worth it.
    pub(super) fn check_recall(&self) {
        if !self.vectors.is_recall_due() {
            return;
        }
        if let Some(recall) = self.vectors.check_recall() {
            let percent = (recall.at_10 * 100.0).round();
            if recall.at_10 < RECALL_LEAST {
                tracing::warn!(
                    percent,
                    questions = recall.questions,
                    candidates = recall.candidates,
                    "the vector graph misses neighbours: a greater index.expansion_search finds more, for slower searches"
                );
            } else {
                tracing::debug!(
                    percent,
                    questions = recall.questions,
                    recall.candidates,
                    "the vector graph was compared with a scan"
                );
            }
        }
    }

    /// The position up to which both indexes have followed the log.
    pub(super) fn applied(&self) -> Lsn {
        Lsn(self.lexical_applied.load(Ordering::Acquire).min(self.vectors_applied.load(Ordering::Acquire)))
    }

    /// Whether something was written to its collection since the last change that is in it.
    fn lacks_changes_of(&self, info: &CollectionInfo) -> bool {
        self.applied() < info.last_change
    }

    /// Applies one change; visible after [`Views::commit`]. An index skips a change that it already has. An index that
    /// fails is set aside with its reason: the other one keeps answering.
    fn apply(&self, change: &Change) {
        if !self.lexical_failed.load(Ordering::Acquire)
            && let Err(reason) = caught(|| self.apply_lexical(change))
        {
            self.lexical_failed.store(true, Ordering::Release);
            self.set_broken(reason);
        }
        if !self.vectors_failed.load(Ordering::Acquire)
            && change.lsn.0 > self.vectors_applied.load(Ordering::Acquire)
            && let Err(reason) = caught(|| self.apply_vectors(change))
        {
            self.vectors_failed.store(true, Ordering::Release);
            self.set_broken(reason);
        }
    }

    fn apply_lexical(&self, change: &Change) -> Result<(), LexicalError> {
        if change.lsn.0 <= self.lexical_applied.load(Ordering::Acquire) {
            return Ok(());
        }
        match &change.kind {
            ChangeKind::DocumentPut { document, bodies, replaced } => {
                if let Some(replaced) = replaced {
                    self.lexical.remove(replaced.lsn)?;
                }
                self.add_lexical(document, bodies)
            }
            ChangeKind::DocumentDeleted { replaced, .. } | ChangeKind::DocumentSuperseded { replaced, .. } => {
                self.lexical.remove(replaced.lsn)
            }
            ChangeKind::CollectionCreated(_) | ChangeKind::CollectionDeleted(_) => Ok(()),
        }
    }

    fn add_lexical(&self, document: &DocumentRecord, bodies: &[Arc<ChunkBody>]) -> Result<(), LexicalError> {
        let (own, kind, source) = (&document.metadata, &document.media_type, document.source.as_deref());
        let language = bodies.first().map(|body| body.language.as_str());
        let metadata = indexed_metadata(own, kind, document.updated, source, language);
        let media_type = MediaType::from_mime(&document.media_type).unwrap_or(MediaType::Text);
        let mut introduction = String::new();
        for (ordinal, (body, chunk)) in bodies.iter().zip(&document.chunks).enumerate() {
            let (repeated, own) = repeated_and_own(&body.text, &chunk.range);
            let text = ingest::plain(own, media_type);
            let context = context(&document.title, &body.headings) + &introduction;
            if ordinal == 0 {
                introduction = introduction_of(&text);
            }
            let entry = LexicalEntry {
                key: PassageKey::new(document.lsn, ordinal).0,
                document: document.lsn,
                language: body.language.parse::<Language>().unwrap_or_default(),
                context: &context,
                text: &text,
                repeated: &ingest::plain(repeated, media_type),
                metadata: &metadata,
            };
            self.lexical.add([entry])?;
        }
        Ok(())
    }

    fn apply_vectors(&self, change: &Change) -> Result<(), vector::ApplyError> {
        let keys = |replaced: &Replaced| PassageKey::all(replaced.lsn, replaced.chunks);
        match &change.kind {
            ChangeKind::DocumentPut { document, bodies, replaced } => {
                let added: Vec<(u64, &[half::f16])> = bodies
                    .iter()
                    .enumerate()
                    .map(|(ordinal, body)| (PassageKey::new(document.lsn, ordinal).0, body.embedding.as_slice()))
                    .collect();
                let removed = replaced.as_ref().map(keys);
                let model = self.models.get(&self.model).ok();
                let media_type = MediaType::from_mime(&document.media_type).unwrap_or(MediaType::Text);
                let run = |body: &Arc<ChunkBody>| {
                    let context = context(&document.title, &body.headings);
                    model
                        .map(|model| model.run(&context, &ingest::plain(&body.text, media_type), &body.language))
                        .unwrap_or_default()
                };
                let runs: Vec<Vec<u16>> = bodies.iter().map(run).collect();
                self.vectors.apply_made_of(change.lsn, removed.as_slice(), &added, &runs)
            }
            ChangeKind::DocumentDeleted { replaced, .. } | ChangeKind::DocumentSuperseded { replaced, .. } => {
                self.vectors.apply(change.lsn, std::slice::from_ref(&keys(replaced)), &[])
            }
            ChangeKind::CollectionCreated(_) | ChangeKind::CollectionDeleted(_) => Ok(()),
        }
    }

    /// Makes what was applied visible, as the state of the log at `lsn`.
    fn commit(&self, lsn: Lsn) {
        let _showing = self.showing.lock();
        if !self.lexical_failed.load(Ordering::Acquire) && self.lexical_applied.load(Ordering::Acquire) < lsn.0 {
            match caught(|| self.lexical.commit(lsn)) {
                Ok(()) => self.lexical_applied.store(lsn.0, Ordering::Release),
                Err(reason) => {
                    self.lexical_failed.store(true, Ordering::Release);
                    self.set_broken(reason);
                }
            }
        }
        if !self.vectors_failed.load(Ordering::Acquire) {
            self.vectors_applied.fetch_max(lsn.0, Ordering::AcqRel);
        }
        self.vectors.publish();
        self.publish();
    }

    /// Takes nothing more: the log could not be read any further.
    fn abandon(&self, error: &ReadError) {
        self.lexical_failed.store(true, Ordering::Release);
        self.vectors_failed.store(true, Ordering::Release);
        self.set_broken(with_causes(error));
    }

    fn set_broken(&self, reason: String) {
        let mut broken = self.broken.lock();
        if broken.is_none() {
            tracing::error!(
                error = %reason,
                "an index stopped following the log; it is tried again, and the next start rebuilds it"
            );
            *broken = Some(reason);
        }
    }

    /// Whether an index failed.
    fn has_failed(&self) -> bool {
        self.lexical_failed.load(Ordering::Acquire) || self.vectors_failed.load(Ordering::Acquire)
    }

    /// Takes up an index that failed where it was last whole, and follows the log from there to `last`. Returns whether both
    /// are whole now.
    fn mend(&self, id: CollectionId, reader: &Reader, last: Lsn) -> bool {
        if self.lexical_failed.load(Ordering::Acquire) {
            match self.lexical.recover() {
                Ok(applied) => {
                    self.lexical_applied.store(applied.0, Ordering::Release);
                    self.lexical_failed.store(false, Ordering::Release);
                }
                Err(error) => {
                    tracing::debug!(error = %with_causes(&error), "an index cannot be resumed yet");
                    return false;
                }
            }
        }
        // A batch that failed there has changed nothing.
        self.vectors_failed.store(false, Ordering::Release);
        let before = self.broken.lock().take();
        for change in reader.lasting_changes_between(self.applied(), last) {
            match change {
                Ok(change) if collection_of(&change) == Some(id) => self.apply(&change),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a damaged record is left out of the indexes"),
            }
            if self.has_failed() {
                break;
            }
        }
        self.commit(last);
        let is_whole = !self.has_failed();
        if is_whole && before.is_some() {
            tracing::info!(lsn = last.0, "an index follows the log again");
        }
        is_whole
    }

    /// Why an index of the collection no longer follows the log.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.lock().clone()
    }

    /// Syncs and hashes the derived files. A failure costs a rebuild at the next start, so it is only logged.
    /// Returns whether there is one now, of everything that was applied.
    pub(super) fn checkpoint(&self, merging: Merging) -> bool {
        if self.broken().is_some() {
            return false;
        }
        let mut well = true;
        let lexical = match merging {
            Merging::All => self.lexical.merge_segments().and_then(|()| self.lexical.checkpoint()),
            Merging::Later => self.lexical.checkpoint(),
        };
        match lexical {
            Ok(done) => well &= done,
            Err(error) => {
                tracing::warn!(%error, "cannot write a checkpoint of a lexical index; the next start may rebuild it");
                well = false;
            }
        }
        if let Err(error) = self.vectors.checkpoint(Lsn(self.vectors_applied.load(Ordering::Acquire))) {
            tracing::warn!(%error, "cannot write a checkpoint of a vector index; the next start may rebuild it");
            well = false;
        }
        // Merged segments, and a matrix that was rewritten: what they replace is kept for as long as it is shown.
        let _showing = self.showing.lock();
        self.publish();
        well
    }
}

/// The error of a call, in words. Includes panics: a record that an index cannot process disables the index, and
/// neither ends the thread that follows the log nor recurs at each start.
fn caught<E: std::error::Error + 'static>(call: impl FnOnce() -> Result<(), E>) -> Result<(), String> {
    // The index accepts nothing more after a failure, and its locks have no poisoning.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| with_causes(&error)),
        Err(panic) => Err(format!("it panicked: {}", task::words_of(&*panic))),
    }
}

/// Components of a collection's embeddings.
fn dimensions(models: &Models, info: &CollectionInfo) -> usize {
    match info.dimensions {
        // Its creation record is damaged. A wrong guess costs the vector half alone.
        0 => models.info(DEFAULT_MODEL).map_or(0, |model| model.dimensions),
        known => known as usize,
    }
}

fn directory(config: &Config, kind: &str, id: CollectionId) -> std::path::PathBuf {
    config.data_dir.join("views").join(kind).join(id.0.to_string())
}

/// A document's metadata with what the node knows of it, under names that begin with an underscore.
///
/// * `own`: the metadata that it came with, as JSON.
/// * `language`: of its first passage.
pub(super) fn indexed_metadata(
    own: &[u8],
    media_type: &str,
    updated: UnixMillis,
    source: Option<&str>,
    language: Option<&str>,
) -> Map<String, Value> {
    let mut metadata: Map<String, Value> = serde_json::from_slice(own).unwrap_or_default();
    metadata.insert("_media_type".to_owned(), media_type.into());
    metadata.insert("_updated_at".to_owned(), updated.to_string().into());
    if let Some(source) = source {
        metadata.insert("_source".to_owned(), source.into());
    }
    if let Some(language) = language.filter(|language| !language.is_empty()) {
        metadata.insert("_language".to_owned(), language.into());
    }
    metadata
}

/// Opens the views of every collection and removes those of deleted collections.
pub(super) fn open_all(config: &Config, reader: &Reader) -> Result<HashMap<CollectionId, Arc<Views>>, OpenError> {
    let collections = reader.collections();
    for kind in ["lexical", "vectors"] {
        let known: Vec<String> = collections.iter().map(|info| info.id.0.to_string()).collect();
        for entry in fs::read_dir(config.data_dir.join("views").join(kind)).into_iter().flatten().flatten() {
            if !known.contains(&entry.file_name().to_string_lossy().into_owned()) {
                // Left over from a deletion that a crash interrupted; a failure leaves only unused bytes.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    let trust = boot_trust(config);
    collections.iter().map(|info| Ok((info.id, Arc::new(Views::open(config, info, trust)?)))).collect()
}

/// Whether the machine has run on since the views were last written. Remembers this boot for the next start.
fn boot_trust(config: &Config) -> vector::Trust {
    let (mark, boot) = (config.data_dir.join("views").join("boot"), derived::boot_id());
    if fs::read_to_string(&mark).is_ok_and(|known| known == boot) {
        return vector::Trust::SameBoot;
    }
    if let Err(error) = derived::write_mark(&mark, &boot) {
        tracing::warn!(%error, "cannot record this boot; the next start verifies the views");
    }
    vector::Trust::Verify
}

/// A state of the log, with its collections. Read while nothing is written: an append is in the log before it is in the
/// catalog, and a write in between would count as indexed.
pub(super) struct Position {
    last: Lsn,
    collections: Vec<Arc<CollectionInfo>>,
}

impl Position {
    /// The present one.
    pub(super) fn of(reader: &Reader) -> Self {
        Self { last: reader.last(), collections: reader.collections() }
    }

    pub(super) fn last(&self) -> Lsn {
        self.last
    }

    /// Whether views lack something that is in it.
    pub(super) fn is_ahead_of(&self, views: &HashMap<CollectionId, Arc<Views>>) -> bool {
        self.collections.iter().any(|info| views.get(&info.id).is_some_and(|view| view.lacks_changes_of(info)))
    }
}

/// Updates views that are behind up to `position`. Cost: proportional to the log from the first missing record.
///
/// * `threads_max`: maximum threads that analyse texts.
/// * `report`: called occasionally with the record that was reached, and the last one.
pub(super) fn catch_up(
    views: &HashMap<CollectionId, Arc<Views>>,
    reader: &Reader,
    position: Position,
    threads_max: usize,
    report: impl Fn(Lsn, Lsn),
) {
    let Position { last, collections } = position;
    let mut behind: HashMap<CollectionId, &Views> = HashMap::new();
    let mut from = last;
    for info in collections {
        let Some(view) = views.get(&info.id) else { continue };
        if view.lacks_changes_of(&info) {
            from = from.min(view.applied().max(Lsn(info.id.0.0.saturating_sub(1))));
            behind.insert(info.id, view);
        } else {
            // Nothing of this collection was written since: it is as current as the log.
            view.commit(last);
        }
    }
    if behind.is_empty() {
        return;
    }
    let start = Instant::now();
    tracing::info!(collections = behind.len(), from = from.0, to = last.0, "indexes are catching up with the log");
    let cores = task::cores().min(threads_max);
    let threads = (cores / behind.len()).max(1);
    behind.values().for_each(|view| view.lexical.set_bulk(Some(threads)));
    let mut uncommitted = 0;
    for change in reader.lasting_changes_between(from, last) {
        match change {
            Ok(change) => {
                let Some(view) = collection_of(&change).and_then(|id| behind.get(&id)) else { continue };
                view.apply(&change);
                uncommitted += passages(&change);
                if uncommitted >= CATCH_UP_BATCH {
                    behind.values().for_each(|view| view.commit(change.lsn));
                    report(change.lsn, last);
                    uncommitted = 0;
                }
            }
            Err(error) if error.is_damage() => tracing::error!(%error, "a damaged record is left out of the indexes"),
            Err(error) => {
                // Nothing after it was read: an index that claimed to be at the end would lack it for good.
                behind.values().for_each(|view| view.abandon(&error));
                return;
            }
        }
    }
    for view in behind.values() {
        view.commit(last);
        view.lexical.set_bulk(None);
    }
    tracing::info!(took_ms = start.elapsed().as_millis() as u64, "indexes have caught up with the log");
}

/// The cost of a change for the indexes: its passages, or one for a removal.
pub(super) fn passages(change: &Change) -> usize {
    match &change.kind {
        ChangeKind::DocumentPut { bodies, .. } => bodies.len(),
        ChangeKind::CollectionCreated(_)
        | ChangeKind::CollectionDeleted(_)
        | ChangeKind::DocumentDeleted { .. }
        | ChangeKind::DocumentSuperseded { .. } => 1,
    }
}

fn collection_of(change: &Change) -> Option<CollectionId> {
    match &change.kind {
        ChangeKind::CollectionCreated(info) => Some(info.id),
        ChangeKind::CollectionDeleted(id) => Some(*id),
        ChangeKind::DocumentPut { document, .. } => Some(document.collection),
        ChangeKind::DocumentDeleted { collection, .. } | ChangeKind::DocumentSuperseded { collection, .. } => {
            Some(*collection)
        }
    }
}

/// Applies freshly committed changes to all views; visible after [`commit_all`]. Returns whether each collection has its views.
pub(super) fn follow(
    views: &parking_lot::RwLock<HashMap<CollectionId, Arc<Views>>>,
    config: &Config,
    changes: &[Change],
) -> bool {
    let mut is_whole = true;
    for change in changes {
        match &change.kind {
            // It has them when others that were missing were made up for.
            ChangeKind::CollectionCreated(info) if views.read().contains_key(&info.id) => {}
            ChangeKind::CollectionCreated(info) => match Views::open(config, info, vector::Trust::Verify) {
                Ok(view) => {
                    views.write().insert(info.id, Arc::new(view));
                }
                Err(error) => {
                    tracing::error!(error = %with_causes(&error), collection = info.name, "cannot create the index of a new collection");
                    is_whole = false;
                }
            },
            ChangeKind::CollectionDeleted(id) => {
                let removed = views.write().remove(id);
                drop(removed);
                for kind in ["lexical", "vectors"] {
                    // Searches that still hold the view keep its mapped files; the next start removes what stays.
                    let _ = fs::remove_dir_all(directory(config, kind, *id));
                }
            }
            ChangeKind::DocumentPut { .. }
            | ChangeKind::DocumentDeleted { .. }
            | ChangeKind::DocumentSuperseded { .. } => {
                let view = collection_of(change).and_then(|id| views.read().get(&id).cloned());
                if let Some(view) = view {
                    view.apply(change);
                }
            }
        }
    }
    is_whole
}

/// Makes everything that was applied visible, as the state of the log at `last`. Returns whether all of it is.
pub(super) fn commit_all(views: &parking_lot::RwLock<HashMap<CollectionId, Arc<Views>>>, last: Lsn) -> bool {
    let current: Vec<Arc<Views>> = views.read().values().cloned().collect();
    current.iter().for_each(|view| view.commit(last));
    !current.iter().any(|view| view.has_failed())
}

/// Takes up indexes that failed, and makes those that could not be made, as the state of the log at `last`. Returns whether all are
/// whole now. Cost where one is not: the log since it was last whole.
pub(super) fn mend(
    views: &parking_lot::RwLock<HashMap<CollectionId, Arc<Views>>>,
    config: &Config,
    reader: &Reader,
    last: Lsn,
) -> bool {
    let mut is_whole = true;
    for info in reader.collections().into_iter().filter(|info| info.id.0 <= last) {
        let known = views.read().get(&info.id).cloned();
        let view = match known {
            Some(view) if !view.has_failed() => continue,
            Some(view) => view,
            None => match Views::open(config, &info, vector::Trust::Verify) {
                Ok(view) => {
                    let view = Arc::new(view);
                    views.write().insert(info.id, Arc::clone(&view));
                    view
                }
                Err(error) => {
                    tracing::debug!(error = %with_causes(&error), collection = info.name, "no index yet");
                    is_whole = false;
                    continue;
                }
            },
        };
        is_whole &= view.mend(info.id, reader, last);
    }
    is_whole
}

/// Why what was written to a collection up to `last` cannot be found; `None` when it can.
pub(super) fn why_not_visible(
    views: &parking_lot::RwLock<HashMap<CollectionId, Arc<Views>>>,
    reader: &Reader,
    collection: CollectionId,
    last: Lsn,
) -> Option<String> {
    let view = views.read().get(&collection).cloned();
    match view {
        // It was deleted meanwhile, and must not be found.
        None if reader.collection_by_id(collection).is_none() => None,
        None => Some("its indexes cannot be created".to_owned()),
        Some(view) if view.has_failed() || view.applied() < last => {
            Some(view.broken().unwrap_or_else(|| "its indexes are behind".to_owned()))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::base::Digest;
    use crate::store::{self, CompactionLimits, NewChunk, NewCollection, NewDocument, Operation, WriteRequest, Writer};

    fn open(directory: &Path) -> (Config, Writer, Arc<Reader>) {
        let config = Config::for_test(directory);
        let (writer, reader, _) = store::open(store::Config {
            data_dir: config.data_dir.clone(),
            segment_bytes: config.store.segment_bytes.0,
            reserve_bytes: 0,
            max_bytes: 0,
            catalog_cache_bytes: 1 << 20,
            clock: Arc::clone(&config.clock),
        })
        .expect("opened");
        (config, writer, reader)
    }

    fn create(writer: &mut Writer, name: &str) {
        let new = NewCollection {
            name: name.to_owned(),
            description: String::new(),
            model: DEFAULT_MODEL.to_owned(),
            dimensions: 256,
        };
        let request = WriteRequest { operations: vec![Operation::CreateCollection(new)], ..WriteRequest::default() };
        writer.commit(vec![request]).expect("durable");
    }

    #[test]
    fn what_is_written_while_views_catch_up_does_not_pass_for_indexed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (config, mut writer, reader) = open(directory.path());
        create(&mut writer, "first");
        let views = open_all(&config, &reader).expect("opened");
        let position = Position::of(&reader);
        let last = reader.last();
        create(&mut writer, "second");
        catch_up(&views, &reader, position, 1, |_, _| {});
        assert_eq!(views.values().map(|view| view.applied()).collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn views_that_lack_nothing_have_nothing_to_catch_up_with() {
        let directory = tempfile::tempdir().expect("a directory");
        let (config, mut writer, reader) = open(directory.path());
        let is_ahead = |views: &HashMap<_, _>| Position::of(&reader).is_ahead_of(views);
        assert!(!is_ahead(&open_all(&config, &reader).expect("opened")), "of an empty log");
        create(&mut writer, "first");
        let views = open_all(&config, &reader).expect("opened");
        assert!(is_ahead(&views));
        catch_up(&views, &reader, Position::of(&reader), 1, |_, _| {});
        assert!(!is_ahead(&views));
    }

    fn put(writer: &mut Writer, collection: CollectionId, id: &str, text: &str) {
        let body = ChunkBody {
            digest: Digest::of(text.as_bytes()),
            headings: Vec::new(),
            text: text.to_owned(),
            language: "en".to_owned(),
            embedding: vec![half::f16::from_f32(1.0 / 16.0); 256],
        };
        let document = NewDocument {
            collection,
            id: id.to_owned(),
            title: String::new(),
            url: None,
            metadata: b"{}".to_vec(),
            source: None,
            source_digest: None,
            content_digest: Digest::of(text.as_bytes()),
            media_type: "text/plain".to_owned(),
            expires_at: None,
            if_version: None,
            unless_exists: false,
            looked_at: None,
            chunks: vec![NewChunk { range: 0..text.len() as u64, page: None, body: Arc::new(body) }],
        };
        let operations = vec![Operation::PutDocument(Box::new(document))];
        writer.commit(vec![WriteRequest { operations, ..WriteRequest::default() }]).expect("durable");
    }

    /// Text that compression leaves as long as it is.
    fn noise(seed: &str, words: usize) -> String {
        (0..words).map(|word| format!("{} ", Digest::of(format!("{seed} {word}").as_bytes()))).collect()
    }

    #[test]
    fn indexes_that_begin_again_lack_what_was_replaced_by_something_that_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let (config, mut writer, reader) = open(directory.path());
        create(&mut writer, "docs");
        let collection = reader.collections()[0].id;
        put(&mut writer, collection, "a", "the heron");
        put(&mut writer, collection, "live", &noise("live", 500));
        writer.seal().expect("sealed");
        let second = reader.last();
        put(&mut writer, collection, "a", &noise("second", 500));
        writer.seal().expect("sealed");
        put(&mut writer, collection, "a", "the bittern");
        writer.seal().expect("sealed");
        let limits = CompactionLimits {
            floor: reader.last(),
            segment_bytes: 1 << 20,
            bytes_per_second: 0,
            reserve_bytes: 0,
            erase_within: None,
        };
        let report =
            reader.compact(&limits, &BTreeSet::new(), &|_| false, &|_| Some(())).expect("compacted").expect("worth it");
        assert_eq!(report.first, second.next(), "the first version stays");

        let views = open_all(&config, &reader).expect("opened");
        catch_up(&views, &reader, Position::of(&reader), 1, |_, _| {});
        let view = &views[&collection];
        assert_eq!((view.lexical.searcher().len(), view.vectors.live()), (2, 2), "a passage of each document");
    }
}
