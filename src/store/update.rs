//! The effect of records on the catalog, and which records it still refers to. Commits, catch-ups and rebuilds all use
//! this code, so a rebuilt catalog equals the one that the commits produced.
//!
//! An update collects its changes and applies them to the tree in one batch, together with the LSN they reach.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::catalog::{
    Applied, Catalog, CatalogError, CollectionInfo, Collections, DocumentEntry, decode_note, decode_pair,
    decode_source, encode_note, encode_source, key, pair,
};
use super::dead::DeadStats;
use super::frame::FrameHeader;
use super::log::Log;
use super::record::{
    ChunkRef, CollectionId, Decoder, DocumentRecord, NewCollection, Record, RecordError, Replaced, kind,
};
use super::tree::{Batch, Tree};
use crate::base::{Digest, Lsn, UnixMillis};

/// Maximum keys of deleted collections that one update removes, so that no commit waits for a large collection.
const SWEEP_KEYS: usize = 256;
/// Maximum keys changed in one batch of the engine; see [`Tree::apply_in_steps`].
const BATCH_KEYS_MAX: usize = 512;
/// Maximum expired answers removed for each one stored; more than one, so that a backlog shrinks.
const FORGET_ANSWERS: usize = 4;

/// Changes to the catalog that are not in its tree yet.
pub(crate) struct Update<'a> {
    catalog: &'a Catalog,
    log: &'a Log,
    batch: Batch,
    pub(crate) collections: Arc<Collections>,
    /// Collections whose counts differ from those in the tree.
    touched: Vec<CollectionId>,
    /// Documents whose records are not in the log yet.
    pending: HashMap<Lsn, Arc<DocumentRecord>>,
    /// Records that nothing refers to any more, and since when.
    dead: Vec<(Lsn, UnixMillis)>,
    /// The time of death of records found dead now.
    now: UnixMillis,
}

impl Catalog {
    /// Whether the catalog refers to a record, so that compaction keeps it. In doubt, yes.
    pub(crate) fn refers(&self, header: &FrameHeader, payload: &[u8], now: UnixMillis) -> Result<bool, CatalogError> {
        let lsn = header.lsn;
        if header.kind == kind::CHUNK {
            let mut from = Decoder(payload);
            let named: Result<(CollectionId, Digest), _> =
                from.collection().and_then(|collection| Ok((collection, from.digest()?)));
            let Ok((collection, digest)) = named else { return Ok(true) };
            return self.has(collection, &key::chunk(collection, &digest), |value| Ok(decode_pair(value)?.0 == lsn.0));
        }
        match Record::decode(header.kind, lsn, header.time, payload) {
            // They are few and short, and later records need them when the log is replayed.
            Ok(Record::CollectionCreated(_) | Record::CollectionDeleted(_)) | Err(_) => Ok(true),
            Ok(Record::DocumentPut(document)) => {
                let key = key::document(document.collection, &document.id);
                self.has(document.collection, &key, |value| Ok(DocumentEntry::decode(value)?.lsn == lsn))
            }
            Ok(Record::DocumentDeleted { collection, id, .. }) => {
                self.has(collection, &key::deleted(collection, &id), |value| Ok(decode_pair(value)?.1 == lsn.0))
            }
            Ok(Record::Note { collection, key, .. }) => {
                self.has(collection, &key::note(collection, &key), |value| Ok(decode_note(value)?.0 == lsn))
            }
            Ok(Record::Answer { key, .. }) => Ok(self.remembered(&key, now)? == Some(lsn)),
        }
    }

    /// Whether the collection exists and has a value under `key` for which `is_it` is true.
    fn has(
        &self,
        collection: CollectionId,
        key: &[u8],
        is_it: impl Fn(&[u8]) -> Result<bool, CatalogError>,
    ) -> Result<bool, CatalogError> {
        if !self.exists(collection) {
            return Ok(false);
        }
        self.get(key)?.map_or(Ok(false), |value| is_it(&value))
    }
}

impl<'a> Update<'a> {
    pub(crate) fn new(catalog: &'a Catalog, log: &'a Log) -> Self {
        let collections = Arc::clone(&catalog.collections.read());
        Self {
            catalog,
            log,
            batch: Batch::new(),
            collections,
            touched: Vec::new(),
            pending: HashMap::new(),
            dead: Vec::new(),
            now: UnixMillis(0),
        }
    }

    /// Number of changed keys.
    pub(crate) fn len(&self) -> usize {
        self.batch.len()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        match self.batch.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.catalog.get(key),
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.batch.insert(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.batch.insert(key, None);
    }

    /// The current document with this id.
    pub(crate) fn document(&self, collection: CollectionId, id: &str) -> Result<Option<DocumentEntry>, CatalogError> {
        let value = self.get(&key::document(collection, id))?;
        Ok(value.map(|value| DocumentEntry::decode(&value)).transpose()?)
    }

    /// Ids of the documents of a source, in byte order.
    pub(crate) fn source_documents(&self, collection: CollectionId, source: &str) -> Result<Vec<String>, CatalogError> {
        let prefix = key::source_documents(collection, source);
        let mut keys: BTreeSet<Vec<u8>> =
            self.catalog.pairs(&prefix, &prefix, usize::MAX)?.into_iter().map(|(key, _)| key).collect();
        for (key, value) in self.batch.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
            match value {
                Some(_) => keys.insert(key.clone()),
                None => keys.remove(key),
            };
        }
        let id = |key: &Vec<u8>| match std::str::from_utf8(&key[prefix.len()..]) {
            Ok(id) => Ok(id.to_owned()),
            Err(_) => Err(RecordError("source key is not UTF-8").into()),
        };
        keys.iter().map(id).collect()
    }

    /// The last version used for an id that no document has now; 0 when there was none.
    pub(crate) fn deleted_version(&self, collection: CollectionId, id: &str) -> Result<u64, CatalogError> {
        Ok(self.tombstone(collection, id)?.map_or(0, |(version, _)| version))
    }

    /// Last version and LSN of the tombstone of an id.
    fn tombstone(&self, collection: CollectionId, id: &str) -> Result<Option<(u64, Lsn)>, CatalogError> {
        let value = self.get(&key::deleted(collection, id))?;
        Ok(value.map(|value| decode_pair(&value)).transpose()?.map(|(version, lsn)| (version, Lsn(lsn))))
    }

    /// LSN of the chunk record with this digest and how often documents refer to it.
    pub(crate) fn chunk(&self, collection: CollectionId, digest: &Digest) -> Result<Option<(Lsn, u64)>, CatalogError> {
        let value = self.get(&key::chunk(collection, digest))?;
        Ok(value.map(|value| decode_pair(&value)).transpose()?.map(|(lsn, count)| (Lsn(lsn), count)))
    }

    /// The value of a note; empty when it was deleted.
    pub(crate) fn note(&self, collection: CollectionId, key: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        let value = self.get(&key::note(collection, key))?;
        Ok(value.map(|value| decode_note(&value).map(|(_, note)| note.to_vec())).transpose()?)
    }

    /// The record of a document; `None` when it is damaged.
    pub(crate) fn record(&self, lsn: Lsn) -> Option<Arc<DocumentRecord>> {
        if let Some(record) = self.pending.get(&lsn) {
            return Some(Arc::clone(record));
        }
        let frame = self.log.read(lsn).ok()?;
        match Record::decode(frame.header.kind, lsn, frame.header.time, &frame.payload) {
            Ok(Record::DocumentPut(document)) => Some(document),
            Ok(_) | Err(_) => None,
        }
    }

    /// Adds the effect of a record. `old` is the record of the document that it replaces or deletes, if the caller has
    /// it.
    pub(crate) fn apply(
        &mut self,
        lsn: Lsn,
        time: UnixMillis,
        record: &Record,
        old: Option<Arc<DocumentRecord>>,
    ) -> Result<(), CatalogError> {
        self.now = time;
        match record {
            Record::CollectionCreated(new) => {
                self.touched.push(CollectionId(lsn));
                let info = CollectionInfo::new(lsn, time, new.clone());
                Arc::make_mut(&mut self.collections).insert(Arc::new(info));
                Ok(())
            }
            Record::CollectionDeleted(collection) => {
                if Arc::make_mut(&mut self.collections).remove(*collection) {
                    self.remove(key::collection(*collection));
                    self.put(key::garbage(*collection), time.0.to_le_bytes().to_vec());
                }
                Ok(())
            }
            Record::DocumentPut(document) => {
                self.pending.insert(lsn, Arc::clone(document));
                self.put_document(lsn, time, document, old)
            }
            Record::DocumentDeleted { collection, id, version, replaced } => {
                // A compacted log may contain the tombstone alone.
                if let Some(entry) = self.document(*collection, id)? {
                    self.now = self.time_of_death(&entry, Some(*replaced), time);
                    self.drop_document(*collection, id, &entry, old)?;
                    self.remove(key::document(*collection, id));
                }
                self.put(key::deleted(*collection, id), pair(*version, lsn.0));
                self.change_collection(*collection, lsn, time, |_| {});
                Ok(())
            }
            Record::Answer { key, .. } => self.remember(lsn, time, key),
            Record::Note { collection, key, value } => {
                let place = key::note(*collection, key);
                if let Some(old) = self.get(&place)? {
                    self.is_dead(decode_note(&old)?.0);
                }
                self.put(place, encode_note(lsn, value));
                Ok(())
            }
        }
    }

    fn is_dead(&mut self, lsn: Lsn) {
        self.dead.push((lsn, self.now));
    }

    /// Counts a record as dead that no other record of the log refers to.
    pub(crate) fn count_orphan(&mut self, lsn: Lsn, died: UnixMillis) {
        self.dead.push((lsn, died));
    }

    /// When a version of a document died, given a record of the time `time` that names the version it replaced. If that
    /// is a different version, compaction has dropped the ones in between: this one died with the next version, but no
    /// earlier than it was written. The estimate errs towards erasing too early rather than too late.
    fn time_of_death(&self, entry: &DocumentEntry, replaced: Option<Replaced>, time: UnixMillis) -> UnixMillis {
        if replaced.is_some_and(|replaced| replaced.lsn == entry.lsn) {
            return time;
        }
        self.log.header(entry.lsn).map_or(time, |header| header.time.min(time))
    }

    fn put_document(
        &mut self,
        lsn: Lsn,
        time: UnixMillis,
        document: &DocumentRecord,
        old: Option<Arc<DocumentRecord>>,
    ) -> Result<(), CatalogError> {
        let (collection, id) = (document.collection, &document.id);
        if !self.collections.by_id.contains_key(&collection) {
            // Documents are only written to existing collections, so the collection's creation record is damaged.
            let lost = NewCollection {
                name: format!("recovered-{}", collection.0),
                description: "its creation record is damaged".to_owned(),
                model: String::new(),
                dimensions: 0,
            };
            self.touched.push(collection);
            let info = CollectionInfo::new(collection.0, time, lost);
            Arc::make_mut(&mut self.collections).insert(Arc::new(info));
        }
        // New references first, then old ones: a chunk in both versions always has a reference.
        self.count_chunks(collection, &document.chunks, 1)?;
        match self.document(collection, id)? {
            Some(entry) => {
                self.now = self.time_of_death(&entry, document.replaced, time);
                self.drop_document(collection, id, &entry, old)?;
            }
            None => {
                if let Some((_, tombstone)) = self.tombstone(collection, id)? {
                    self.is_dead(tombstone);
                    self.remove(key::deleted(collection, id));
                }
            }
        }
        let entry = DocumentEntry {
            lsn,
            version: document.version,
            content_digest: document.content_digest,
            source: document.source.clone(),
            source_digest: document.source_digest,
            chunks: document.chunks.len() as u32,
            text_bytes: document.text_bytes,
            expires_at: document.expires_at,
        };
        self.put(key::document(collection, id), entry.encode());
        if let Some(source) = &document.source {
            self.put(key::source_document(collection, source, id), Vec::new());
            let key = key::source(collection, source);
            let documents =
                self.get(&key)?.map(|value| decode_source(&value)).transpose()?.map_or(0, |(_, count)| count);
            self.put(key, encode_source(document.source_digest.as_ref(), documents + 1));
        }
        if let Some(time) = document.expires_at {
            self.put(key::expiry(time, collection, id), Vec::new());
        }
        self.change_collection(collection, lsn, time, |info| {
            info.documents += 1;
            info.chunks += u64::from(entry.chunks);
            info.text_bytes = info.text_bytes.saturating_add(entry.text_bytes);
        });
        Ok(())
    }

    /// Removes a document version's keys other than its entry.
    fn drop_document(
        &mut self,
        collection: CollectionId,
        id: &str,
        entry: &DocumentEntry,
        old: Option<Arc<DocumentRecord>>,
    ) -> Result<(), CatalogError> {
        self.is_dead(entry.lsn);
        // If the record is damaged, its references stay counted: an unneeded chunk is retained, but none is lost.
        if let Some(record) = old.filter(|old| old.lsn == entry.lsn).or_else(|| self.record(entry.lsn)) {
            self.count_chunks(collection, &record.chunks, -1)?;
        }
        if let Some(source) = &entry.source {
            self.remove(key::source_document(collection, source, id));
            let key = key::source(collection, source);
            match self.get(&key)?.map(|value| decode_source(&value)).transpose()? {
                Some((digest, documents)) if documents > 1 => {
                    self.put(key, encode_source(digest.as_ref(), documents - 1));
                }
                _ => self.remove(key),
            }
        }
        if let Some(time) = entry.expires_at {
            self.remove(key::expiry(time, collection, id));
        }
        if let Some(info) = Arc::make_mut(&mut self.collections).by_id.get_mut(&collection) {
            let info = Arc::make_mut(info);
            info.documents = info.documents.saturating_sub(1);
            info.chunks = info.chunks.saturating_sub(u64::from(entry.chunks));
            info.text_bytes = info.text_bytes.saturating_sub(entry.text_bytes);
        }
        Ok(())
    }

    fn count_chunks(&mut self, collection: CollectionId, chunks: &[ChunkRef], change: i64) -> Result<(), CatalogError> {
        for chunk in chunks {
            let count = self.chunk(collection, &chunk.digest)?;
            let (known, count) = count.unwrap_or((chunk.lsn, 0));
            let lsn = if change > 0 { chunk.lsn } else { known };
            match count.saturating_add_signed(change) {
                0 => {
                    self.is_dead(lsn);
                    self.remove(key::chunk(collection, &chunk.digest));
                }
                count => self.put(key::chunk(collection, &chunk.digest), pair(lsn.0, count)),
            }
        }
        Ok(())
    }

    fn change_collection(
        &mut self,
        id: CollectionId,
        lsn: Lsn,
        time: UnixMillis,
        change: impl FnOnce(&mut CollectionInfo),
    ) {
        if let Some(info) = Arc::make_mut(&mut self.collections).by_id.get_mut(&id) {
            let info = Arc::make_mut(info);
            change(info);
            info.last_change = lsn;
            info.last_change_time = time;
            if self.touched.last() != Some(&id) {
                self.touched.push(id);
            }
        }
    }

    fn remember(&mut self, lsn: Lsn, time: UnixMillis, answer_key: &str) -> Result<(), CatalogError> {
        let key = key::answer(answer_key);
        if let Some(value) = self.get(&key)? {
            let (old, old_time) = decode_pair(&value)?;
            self.is_dead(Lsn(old));
            self.remove(key::answer_time(UnixMillis(old_time as i64), Lsn(old)));
        }
        let oldest = self.catalog.pairs(key::ANSWER_TIMES, key::ANSWER_TIMES, FORGET_ANSWERS)?;
        for (time_key, answer_key) in oldest {
            let (written, answer) = key::time_of(&time_key).ok_or(RecordError("answer key is too short"))?;
            let is_old = time.0.saturating_sub(written.0) >= super::catalog::ANSWER_LIFETIME_MS;
            // An answer that this update has removed was stored again.
            if is_old && !self.batch.contains_key(&time_key) {
                let answer_key =
                    std::str::from_utf8(&answer_key).map_err(|_| RecordError("answer key is not UTF-8"))?;
                self.remove(key::answer(answer_key));
                if let Some(lsn) = answer.first_chunk::<8>() {
                    self.is_dead(Lsn(u64::from_be_bytes(*lsn)));
                }
                self.remove(time_key);
            }
        }
        self.put(key, pair(lsn.0, time.0 as u64));
        self.put(key::answer_time(time, lsn), answer_key.as_bytes().to_vec());
        Ok(())
    }

    /// Removes some keys of collections that earlier updates deleted.
    fn sweep(&mut self, tree: &Tree) -> Result<(), CatalogError> {
        let mut left = SWEEP_KEYS;
        for (garbage, deleted) in tree.pairs(key::GARBAGE, key::GARBAGE, SWEEP_KEYS)? {
            let Some(collection) = key::collection_of(&garbage) else { continue };
            let deleted = deleted.first_chunk::<8>().ok_or(RecordError("time of a deletion is too short"))?;
            self.now = UnixMillis(i64::from_le_bytes(*deleted));
            for kind in key::OF_COLLECTION {
                let prefix = key::of(*kind, collection);
                for (key, value) in tree.pairs(&prefix, &prefix, left)? {
                    match kind {
                        b'd' => {
                            let entry = DocumentEntry::decode(&value)?;
                            self.is_dead(entry.lsn);
                            if let (Some(time), Some(id)) = (entry.expires_at, key::rest(&key)) {
                                self.remove(key::expiry(time, collection, id));
                            }
                        }
                        b'k' => self.is_dead(Lsn(decode_pair(&value)?.0)),
                        b'z' => self.is_dead(Lsn(decode_pair(&value)?.1)),
                        b'n' => self.is_dead(decode_note(&value)?.0),
                        _ => {}
                    }
                    self.remove(key);
                    left -= 1;
                }
            }
            if left == 0 {
                break;
            }
            self.remove(garbage);
        }
        Ok(())
    }

    /// Adds the counts of dead records, as they will be, to the batch. The counts only guide compaction, so it does no
    /// harm that a crash between a compaction and the next commit leaves some too high.
    fn write_dead(&mut self) -> Vec<(Lsn, Option<DeadStats>)> {
        let values = self.log.dead.lock().values_with(self.dead.iter().filter_map(|(lsn, at)| {
            let (segment, bytes) = self.log.extent(*lsn)?;
            Some((segment, bytes, *at))
        }));
        for (segment, dead) in &values {
            match dead {
                Some(dead) => self.put(key::dead(*segment), dead.encode()),
                None => self.remove(key::dead(*segment)),
            }
        }
        values
    }

    /// Adds the dead records to their segments' counts, once the catalog no longer refers to them: a compaction that
    /// counted them before would keep them, and subtract them from the counts nevertheless.
    ///
    /// * `written`: the values in the catalog. A compaction may have changed some since.
    fn publish_dead(log: &Log, records: Vec<(Lsn, UnixMillis)>, written: &[(Lsn, Option<DeadStats>)]) {
        let mut dead = log.dead.lock();
        for (lsn, at) in records {
            // Looked up again: a compaction may have dropped it, or moved it to another segment.
            if let Some((segment, bytes)) = log.extent(lsn) {
                dead.add(segment, bytes, at);
            }
        }
        dead.mark_written(written);
    }

    /// Writes everything to the catalog: readers see all of it or nothing, and a crash leaves all of it, nothing, or a
    /// catalog that is known to be unusable.
    pub(crate) fn finish(mut self, applied: Applied) -> Result<(), CatalogError> {
        let catalog = self.catalog;
        let written = catalog.with_tree(|tree| self.complete(tree, applied))?;
        #[cfg(test)]
        if let Some(call) = catalog.before_apply.lock().take() {
            call();
        }
        let batch = std::mem::take(&mut self.batch);
        if batch.len() <= BATCH_KEYS_MAX {
            catalog.with_tree(|tree| tree.apply(batch))?;
        } else {
            catalog.with_tree_alone(|tree| tree.apply_in_steps(batch, key::UNFINISHED))?;
        }
        *catalog.collections.write() = self.collections;
        Self::publish_dead(self.log, self.dead, &written);
        Ok(())
    }

    /// Like [`Self::finish`], for a catalog that is being rebuilt and unusable until it is complete; see
    /// [`Tree::load`].
    pub(crate) fn load(mut self, applied: Applied) -> Result<(), CatalogError> {
        let catalog = self.catalog;
        let written = catalog.with_tree(|tree| {
            let written = self.complete(tree, applied)?;
            tree.load(std::mem::take(&mut self.batch))?;
            Ok(written)
        })?;
        *catalog.collections.write() = self.collections;
        Self::publish_dead(self.log, self.dead, &written);
        Ok(())
    }

    /// Adds the keys that every update writes. Returns the counts of dead records among them.
    fn complete(&mut self, tree: &Tree, applied: Applied) -> Result<Vec<(Lsn, Option<DeadStats>)>, CatalogError> {
        self.sweep(tree)?;
        for id in std::mem::take(&mut self.touched) {
            if let Some(info) = self.collections.by_id.get(&id) {
                let value = info.encode();
                self.put(key::collection(id), value);
            }
        }
        self.put(key::APPLIED.to_vec(), pair(applied.lsn.0, applied.fingerprint));
        Ok(self.write_dead())
    }
}
