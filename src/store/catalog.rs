//! The catalog: from names and ids to places in the log. A view: everything here follows from the log's records.
//!
//! One tree with small values; the first byte of a key says what it is:
//!
//! | key | value |
//! |---|---|
//! | `a` | LSN up to which records are applied, fingerprint of that record |
//! | `c` collection | [`CollectionInfo`] |
//! | `d` collection, document id | [`DocumentEntry`] |
//! | `e` expiry, collection, document id | nothing |
//! | `g` collection | time: a collection that was deleted then, and whose keys are still being removed |
//! | `k` collection, chunk digest | LSN of the chunk record, number of references to it |
//! | `n` collection, note key | LSN of the note's record, its value; an empty one was taken away |
//! | `r` answer key | LSN and time of the answer record |
//! | `s` collection, source, document id | nothing |
//! | `S` collection, source | digest of the source's last document, number of documents |
//! | `t` time, LSN of the answer record | answer key |
//! | `u` | nothing: a large change is being made; one that finds it at its start has half of it |
//! | `x` first LSN of a segment | bytes of dead records in it, more or less; when the first of them died |
//! | `z` collection, document id | last version of a document that was deleted, LSN of its tombstone |
//!
//! Numbers in keys are big endian, so that keys sort by them; in values little endian. A source inside a key has each 0
//! byte written as `00 ff` and ends with `00 00`, which keeps the order. The collections are also kept in memory.
//!
//! Left out: an `Lsn` → document map, because records name themselves, and any durability of its own.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::dead::DeadStats;
use super::record::{CollectionId, Decoder, Encode, NewCollection, RecordError};
use super::tree::{Pair, Tree};
use crate::base::{Digest, Fault, Lsn, UnixMillis};

/// Answers are remembered for a day.
pub(crate) const ANSWER_LIFETIME_MS: i64 = 24 * 60 * 60 * 1000;

/// Why the catalog could not answer. The log is not affected; the next start rebuilds the catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The engine returned an error.
    #[error("the catalog's engine failed")]
    Engine {
        /// The underlying error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine panicked, as it does on damaged files.
    #[error("the catalog's engine panicked")]
    Panicked,
    /// A value is not what was written to it.
    #[error("a catalog value is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl CatalogError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Engine { .. } | Self::Closed => Fault::Environment,
            Self::Panicked | Self::Damaged { .. } => Fault::Damage,
        }
    }
}

impl From<RecordError> for CatalogError {
    fn from(error: RecordError) -> Self {
        Self::Damaged { what: error.to_string() }
    }
}

/// A collection and its counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Its permanent id.
    pub id: CollectionId,
    /// As in [`NewCollection::name`].
    pub name: String,
    /// As in [`NewCollection::description`].
    pub description: String,
    /// As in [`NewCollection::model`].
    pub model: String,
    /// As in [`NewCollection::dimensions`].
    pub dimensions: u32,
    /// When it was created.
    pub created: UnixMillis,
    /// Documents in it.
    pub documents: u64,
    /// Chunks of all documents; one that two documents share counts twice.
    pub chunks: u64,
    /// Bytes of text in these chunks.
    pub text_bytes: u64,
    /// LSN of the last record that changed it.
    pub last_change: Lsn,
    /// Time of that record.
    pub last_change_time: UnixMillis,
}

impl CollectionInfo {
    /// A collection as created by its record.
    pub(crate) fn new(lsn: Lsn, time: UnixMillis, new: NewCollection) -> Self {
        let NewCollection { name, description, model, dimensions } = new;
        Self {
            id: CollectionId(lsn),
            name,
            description,
            model,
            dimensions,
            created: time,
            documents: 0,
            chunks: 0,
            text_bytes: 0,
            last_change: lsn,
            last_change_time: time,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.str(&self.name);
        out.str(&self.description);
        out.str(&self.model);
        out.u32(self.dimensions);
        out.i64(self.created.0);
        out.u64(self.documents);
        out.u64(self.chunks);
        out.u64(self.text_bytes);
        out.u64(self.last_change.0);
        out.i64(self.last_change_time.0);
        out
    }

    fn decode(id: CollectionId, value: &[u8]) -> Result<Self, RecordError> {
        let mut from = Decoder(value);
        let info = Self {
            id,
            name: from.str()?,
            description: from.str()?,
            model: from.str()?,
            dimensions: from.u32()?,
            created: UnixMillis(from.i64()?),
            documents: from.u64()?,
            chunks: from.u64()?,
            text_bytes: from.u64()?,
            last_change: Lsn(from.u64()?),
            last_change_time: UnixMillis(from.i64()?),
        };
        from.end()?;
        Ok(info)
    }
}

/// The catalog's entry for a document; the rest is in its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentEntry {
    /// LSN of the record of this version.
    pub lsn: Lsn,
    /// As in [`super::DocumentRecord::version`].
    pub version: u64,
    /// As in [`super::DocumentRecord::content_digest`].
    pub content_digest: Digest,
    /// As in [`super::DocumentRecord::source`].
    pub source: Option<String>,
    /// As in [`super::DocumentRecord::source_digest`].
    pub source_digest: Option<Digest>,
    /// Number of chunks.
    pub chunks: u32,
    /// Bytes of text in all chunks.
    pub text_bytes: u64,
    /// As in [`super::DocumentRecord::expires_at`].
    pub expires_at: Option<UnixMillis>,
}

impl DocumentEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.u64(self.lsn.0);
        out.u64(self.version);
        out.digest(&self.content_digest);
        out.option(self.source.as_deref(), Encode::str);
        out.option(self.source_digest.as_ref(), Encode::digest);
        out.u32(self.chunks);
        out.u64(self.text_bytes);
        out.option(self.expires_at, |out, time| out.i64(time.0));
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut from = Decoder(value);
        let entry = Self {
            lsn: Lsn(from.u64()?),
            version: from.u64()?,
            content_digest: from.digest()?,
            source: from.option(Decoder::str)?,
            source_digest: from.option(Decoder::digest)?,
            chunks: from.u32()?,
            text_bytes: from.u64()?,
            expires_at: from.option(Decoder::i64)?.map(UnixMillis),
        };
        from.end()?;
        Ok(entry)
    }
}

/// A declared source and the documents from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// Its name.
    pub source: String,
    /// `source_digest` of its most recently written document.
    pub source_digest: Option<Digest>,
    /// Its current documents.
    pub documents: u64,
}

/// Two numbers, or a number and a time: the shape of several values.
pub(crate) fn pair(first: u64, second: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    out.u64(first);
    out.u64(second);
    out
}

pub(crate) fn decode_pair(value: &[u8]) -> Result<(u64, u64), RecordError> {
    let mut from = Decoder(value);
    let pair = (from.u64()?, from.u64()?);
    from.end()?;
    Ok(pair)
}

/// The value under an `S` key.
pub(crate) fn encode_source(digest: Option<&Digest>, documents: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(41);
    out.option(digest, Encode::digest);
    out.u64(documents);
    out
}

pub(crate) fn decode_source(value: &[u8]) -> Result<(Option<Digest>, u64), RecordError> {
    let mut from = Decoder(value);
    let source = (from.option(Decoder::digest)?, from.u64()?);
    from.end()?;
    Ok(source)
}

/// The value under an `n` key.
pub(crate) fn encode_note(lsn: Lsn, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + value.len());
    out.u64(lsn.0);
    out.bytes(value);
    out
}

pub(crate) fn decode_note(value: &[u8]) -> Result<(Lsn, &[u8]), RecordError> {
    let mut from = Decoder(value);
    let note = (Lsn(from.u64()?), from.bytes()?);
    from.end()?;
    Ok(note)
}

/// Keys; the table is in the module's documentation.
pub(crate) mod key {
    use super::{CollectionId, Digest, Lsn, UnixMillis};

    pub(crate) const APPLIED: &[u8] = b"a";
    pub(crate) const COLLECTIONS: &[u8] = b"c";
    pub(crate) const EXPIRIES: &[u8] = b"e";
    pub(crate) const GARBAGE: &[u8] = b"g";
    pub(crate) const ANSWER_TIMES: &[u8] = b"t";
    pub(crate) const UNFINISHED: &[u8] = b"u";
    pub(crate) const DEAD: &[u8] = b"x";
    /// Kinds of key that are deleted with their collection.
    pub(crate) const OF_COLLECTION: &[u8] = b"dknsSz";

    /// The keys of one kind in one collection begin with this.
    pub(crate) fn of(kind: u8, collection: CollectionId) -> Vec<u8> {
        let mut key = Vec::with_capacity(41);
        key.push(kind);
        key.extend(collection.0.0.to_be_bytes());
        key
    }

    pub(crate) fn collection(collection: CollectionId) -> Vec<u8> {
        of(b'c', collection)
    }

    pub(crate) fn garbage(collection: CollectionId) -> Vec<u8> {
        of(b'g', collection)
    }

    pub(crate) fn document(collection: CollectionId, id: &str) -> Vec<u8> {
        with(of(b'd', collection), id)
    }

    pub(crate) fn deleted(collection: CollectionId, id: &str) -> Vec<u8> {
        with(of(b'z', collection), id)
    }

    pub(crate) fn chunk(collection: CollectionId, digest: &Digest) -> Vec<u8> {
        let mut key = of(b'k', collection);
        key.extend(digest.0);
        key
    }

    pub(crate) fn source(collection: CollectionId, source: &str) -> Vec<u8> {
        escaped(of(b'S', collection), source)
    }

    /// The keys of the documents of one source begin with this.
    pub(crate) fn source_documents(collection: CollectionId, source: &str) -> Vec<u8> {
        escaped(of(b's', collection), source)
    }

    pub(crate) fn source_document(collection: CollectionId, source: &str, id: &str) -> Vec<u8> {
        with(source_documents(collection, source), id)
    }

    pub(crate) fn note(collection: CollectionId, note: &str) -> Vec<u8> {
        with(of(b'n', collection), note)
    }

    pub(crate) fn expiry(time: UnixMillis, collection: CollectionId, id: &str) -> Vec<u8> {
        let mut key = vec![b'e'];
        key.extend(sortable(time));
        key.extend(collection.0.0.to_be_bytes());
        with(key, id)
    }

    pub(crate) fn dead(segment: Lsn) -> Vec<u8> {
        of(b'x', CollectionId(segment))
    }

    pub(crate) fn answer(answer: &str) -> Vec<u8> {
        with(vec![b'r'], answer)
    }

    pub(crate) fn answer_time(time: UnixMillis, lsn: Lsn) -> Vec<u8> {
        let mut key = vec![b't'];
        key.extend(sortable(time));
        key.extend(lsn.0.to_be_bytes());
        key
    }

    /// The collection in a key made by [`of`].
    pub(crate) fn collection_of(key: &[u8]) -> Option<CollectionId> {
        key.get(1..)?.first_chunk::<8>().map(|bytes| CollectionId(Lsn(u64::from_be_bytes(*bytes))))
    }

    /// What follows the collection in a key made by [`of`].
    pub(crate) fn rest(key: &[u8]) -> Option<&str> {
        std::str::from_utf8(key.get(9..)?).ok()
    }

    /// The time in an `e` or `t` key, and what follows.
    pub(crate) fn time_of(key: &[u8]) -> Option<(UnixMillis, &[u8])> {
        let (time, rest) = key.get(1..)?.split_first_chunk::<8>()?;
        Some((UnixMillis((u64::from_be_bytes(*time) ^ (1 << 63)) as i64), rest))
    }

    /// The source in an `S` key.
    pub(crate) fn source_of(key: &[u8]) -> Option<String> {
        let escaped = key.get(9..)?.strip_suffix(&[0, 0])?;
        let mut bytes = Vec::with_capacity(escaped.len());
        let mut after_zero = false;
        for byte in escaped {
            if !after_zero {
                bytes.push(*byte);
            }
            after_zero = !after_zero && *byte == 0;
        }
        String::from_utf8(bytes).ok()
    }

    /// Bytes that sort like the times.
    fn sortable(time: UnixMillis) -> [u8; 8] {
        (time.0 as u64 ^ (1 << 63)).to_be_bytes()
    }

    fn with(mut key: Vec<u8>, id: &str) -> Vec<u8> {
        key.extend(id.as_bytes());
        key
    }

    fn escaped(mut key: Vec<u8>, source: &str) -> Vec<u8> {
        for byte in source.bytes() {
            key.push(byte);
            if byte == 0 {
                key.push(0xff);
            }
        }
        key.extend([0, 0]);
        key
    }
}

/// The collections that exist.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collections {
    pub(crate) by_id: BTreeMap<CollectionId, Arc<CollectionInfo>>,
    by_name: BTreeMap<String, CollectionId>,
}

impl Collections {
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<CollectionInfo>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    pub(crate) fn insert(&mut self, info: Arc<CollectionInfo>) {
        self.by_name.insert(info.name.clone(), info.id);
        self.by_id.insert(info.id, info);
    }

    pub(crate) fn remove(&mut self, id: CollectionId) -> bool {
        let Some(info) = self.by_id.remove(&id) else { return false };
        if self.by_name.get(&info.name) == Some(&id) {
            self.by_name.remove(&info.name);
        }
        true
    }
}

/// See the module documentation.
pub(crate) struct Catalog {
    /// `None` after it was closed or failed.
    tree: RwLock<Option<Tree>>,
    pub(crate) collections: RwLock<Arc<Collections>>,
    /// A call failed, so the files must not be marked as trustworthy.
    failed: AtomicBool,
    /// Called before an update is applied, with its changes complete.
    #[cfg(test)]
    pub(crate) before_apply: parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// The catalog's position: the LSN applied last and that record's fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    pub(crate) lsn: Lsn,
    pub(crate) fingerprint: u64,
}

impl Catalog {
    /// Opens a tree as it is and reads its collections.
    pub(crate) fn open(tree: Tree) -> Result<Self, CatalogError> {
        let mut collections = Collections::default();
        tree.scan(key::COLLECTIONS, key::COLLECTIONS, |key, value| {
            let id = key::collection_of(key).ok_or(RecordError("collection key is too short"))?;
            collections.insert(Arc::new(CollectionInfo::decode(id, value)?));
            Ok(true)
        })?;
        let collections = RwLock::new(Arc::new(collections));
        Ok(Self {
            tree: RwLock::new(Some(tree)),
            collections,
            failed: AtomicBool::new(false),
            #[cfg(test)]
            before_apply: parking_lot::Mutex::default(),
        })
    }

    /// Makes a call and records whether it failed.
    pub(crate) fn ask<T>(&self, call: impl FnOnce(&Self) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        let result = call(self);
        if matches!(result, Err(CatalogError::Engine { .. } | CatalogError::Panicked | CatalogError::Damaged { .. })) {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Whether a call made with [`Self::ask`] failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Reads every pair, so that damage that makes the engine panic shows now.
    pub(crate) fn check(&self) -> Result<(), CatalogError> {
        self.with_tree(|tree| {
            tree.scan(b"", b"", |key, value| {
                if key.first() == Some(&b'd') {
                    DocumentEntry::decode(value)?;
                }
                Ok(true)
            })
        })
    }

    /// Dead bytes by segment, as last counted.
    pub(crate) fn dead(&self) -> Result<BTreeMap<Lsn, DeadStats>, CatalogError> {
        let mut counts = BTreeMap::new();
        self.with_tree(|tree| {
            tree.scan(key::DEAD, key::DEAD, |key, value| {
                let segment = key::collection_of(key).ok_or(RecordError("segment key is too short"))?;
                counts.insert(segment.0, DeadStats::decode(value)?);
                Ok(true)
            })
        })?;
        Ok(counts)
    }

    /// Whether there are keys of deleted collections left.
    pub(crate) fn has_garbage(&self) -> Result<bool, CatalogError> {
        Ok(!self.pairs(key::GARBAGE, key::GARBAGE, 1)?.is_empty())
    }

    pub(crate) fn with_tree<T>(&self, call: impl FnOnce(&Tree) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        call(self.tree.read().as_ref().ok_or(CatalogError::Closed)?)
    }

    /// Like [`Self::ask`], with exclusive access to the tree.
    pub(crate) fn with_tree_alone<T>(
        &self,
        call: impl FnOnce(&Tree) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        call(self.tree.write().as_ref().ok_or(CatalogError::Closed)?)
    }

    /// Whether the last change was interrupted, see [`Tree::apply_in_steps`]. The tree is unusable then.
    pub(crate) fn is_unfinished(&self) -> Result<bool, CatalogError> {
        self.get(key::UNFINISHED).map(|mark| mark.is_some())
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        self.with_tree(|tree| tree.get(key))
    }

    pub(crate) fn pairs(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Pair>, CatalogError> {
        self.with_tree(|tree| tree.pairs(prefix, from, limit))
    }

    pub(crate) fn applied(&self) -> Result<Applied, CatalogError> {
        match self.get(key::APPLIED)? {
            None => Ok(Applied::default()),
            Some(value) => {
                let (lsn, fingerprint) = decode_pair(&value)?;
                Ok(Applied { lsn: Lsn(lsn), fingerprint })
            }
        }
    }

    /// Closes the tree's files. Later calls return [`CatalogError::Closed`].
    pub(crate) fn close(&self) -> Result<(), CatalogError> {
        match self.tree.write().take() {
            Some(tree) => tree.close(),
            None => Ok(()),
        }
    }

    pub(crate) fn exists(&self, collection: CollectionId) -> bool {
        self.collections.read().by_id.contains_key(&collection)
    }

    pub(crate) fn lookup(&self, collection: CollectionId, id: &str) -> Result<Option<DocumentEntry>, CatalogError> {
        if !self.exists(collection) {
            return Ok(None);
        }
        let value = self.get(&key::document(collection, id))?;
        Ok(value.map(|value| DocumentEntry::decode(&value)).transpose()?)
    }

    /// LSN of the last record that concerns an id: that of the document, or of its deletion. `None` for an id that was never used, and in a
    /// collection that does not exist.
    pub(crate) fn last_change(&self, collection: CollectionId, id: &str) -> Result<Option<Lsn>, CatalogError> {
        if let Some(entry) = self.lookup(collection, id)? {
            return Ok(Some(entry.lsn));
        }
        let value = self.get(&key::deleted(collection, id))?;
        Ok(value.map(|value| decode_pair(&value)).transpose()?.map(|(_, lsn)| Lsn(lsn)))
    }

    /// LSN of the record of a chunk.
    pub(crate) fn chunk(&self, collection: CollectionId, digest: &Digest) -> Result<Option<Lsn>, CatalogError> {
        if !self.exists(collection) {
            return Ok(None);
        }
        let value = self.get(&key::chunk(collection, digest))?;
        Ok(value.map(|value| decode_pair(&value)).transpose()?.map(|(lsn, _)| Lsn(lsn)))
    }

    pub(crate) fn list(
        &self,
        collection: CollectionId,
        after: Option<&str>,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, DocumentEntry)>, CatalogError> {
        if !self.exists(collection) {
            return Ok(Vec::new());
        }
        let prefix = key::document(collection, prefix);
        let mut from = after.map(|after| just_after(key::document(collection, after))).unwrap_or_default();
        if from < prefix {
            from.clone_from(&prefix);
        }
        let mut found = Vec::new();
        for (key, value) in self.pairs(&prefix, &from, limit)? {
            let id = key::rest(&key).ok_or(RecordError("document key is not UTF-8"))?;
            found.push((id.to_owned(), DocumentEntry::decode(&value)?));
        }
        Ok(found)
    }

    pub(crate) fn list_source(
        &self,
        collection: CollectionId,
        source: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, DocumentEntry)>, CatalogError> {
        if !self.exists(collection) {
            return Ok(Vec::new());
        }
        let prefix = key::source_documents(collection, source);
        let from =
            after.map_or_else(|| prefix.clone(), |after| just_after(key::source_document(collection, source, after)));
        let mut found = Vec::new();
        for (key, _) in self.pairs(&prefix, &from, limit)? {
            let id = std::str::from_utf8(&key[prefix.len()..]).map_err(|_| RecordError("source key is not UTF-8"))?;
            // A commit may have removed it between the two reads.
            found.extend(self.lookup(collection, id)?.map(|entry| (id.to_owned(), entry)));
        }
        Ok(found)
    }

    pub(crate) fn sources(
        &self,
        collection: CollectionId,
        from: Bound<&str>,
        limit: usize,
    ) -> Result<Vec<SourceEntry>, CatalogError> {
        if !self.exists(collection) {
            return Ok(Vec::new());
        }
        let prefix = key::of(b'S', collection);
        let from = match from {
            Bound::Unbounded => prefix.clone(),
            Bound::Included(name) => key::source(collection, name),
            Bound::Excluded(name) => just_after(key::source(collection, name)),
        };
        let mut found = Vec::new();
        for (key, value) in self.pairs(&prefix, &from, limit)? {
            let source = key::source_of(&key).ok_or(RecordError("source key is not UTF-8"))?;
            let (source_digest, documents) = decode_source(&value)?;
            found.push(SourceEntry { source, source_digest, documents });
        }
        Ok(found)
    }

    /// Notes whose keys begin with `prefix`, by key in byte order, without deleted ones.
    pub(crate) fn notes(&self, collection: CollectionId, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, CatalogError> {
        if !self.exists(collection) {
            return Ok(Vec::new());
        }
        let prefix = key::note(collection, prefix);
        let mut found = Vec::new();
        for (key, value) in self.pairs(&prefix, &prefix, usize::MAX)? {
            let (_, note) = decode_note(&value)?;
            if !note.is_empty() {
                let key = key::rest(&key).ok_or(RecordError("note key is not UTF-8"))?;
                found.push((key.to_owned(), note.to_vec()));
            }
        }
        Ok(found)
    }

    /// A note; `None` when it does not exist.
    pub(crate) fn note(&self, collection: CollectionId, key: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        if !self.exists(collection) {
            return Ok(None);
        }
        let Some(value) = self.get(&key::note(collection, key))? else { return Ok(None) };
        let (_, note) = decode_note(&value)?;
        Ok(Some(note.to_vec()).filter(|note| !note.is_empty()))
    }

    pub(crate) fn expired(&self, now: UnixMillis, limit: usize) -> Result<Vec<(CollectionId, String)>, CatalogError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.with_tree(|tree| {
            tree.scan(key::EXPIRIES, key::EXPIRIES, |key, _| {
                let (time, rest) = key::time_of(key).ok_or(RecordError("expiry key is too short"))?;
                if time > now {
                    return Ok(false);
                }
                let (collection, id) = rest.split_first_chunk::<8>().ok_or(RecordError("expiry key is too short"))?;
                let collection = CollectionId(Lsn(u64::from_be_bytes(*collection)));
                let id = std::str::from_utf8(id).map_err(|_| RecordError("expiry key is not UTF-8"))?;
                if self.exists(collection) {
                    found.push((collection, id.to_owned()));
                }
                Ok(found.len() < limit)
            })
        })?;
        Ok(found)
    }

    /// LSN of the answer record for a key, unless it has expired.
    pub(crate) fn remembered(&self, answer_key: &str, now: UnixMillis) -> Result<Option<Lsn>, CatalogError> {
        let Some(value) = self.get(&key::answer(answer_key))? else { return Ok(None) };
        let (lsn, time) = decode_pair(&value)?;
        Ok((now.0.saturating_sub(time as i64) < ANSWER_LIFETIME_MS).then_some(Lsn(lsn)))
    }
}

/// The first key after `key`.
fn just_after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn source_keys_keep_the_source_and_the_order(one in "[a\u{0}\u{1}é]{0,6}", other in "[a\u{0}\u{1}é]{0,6}") {
            let collection = CollectionId(Lsn(4));
            let (one_key, other_key) = (key::source(collection, &one), key::source(collection, &other));
            prop_assert_eq!(one_key.cmp(&other_key), one.cmp(&other));
            prop_assert_eq!(key::source_of(&one_key), Some(one.clone()));
            let documents = key::source_document(collection, &one, "x");
            prop_assert_eq!(documents.starts_with(&key::source_documents(collection, &other)), one == other);
        }

        #[test]
        fn time_keys_sort_by_time(one: i64, other: i64) {
            let keys = [one, other].map(|time| key::answer_time(UnixMillis(time), Lsn(9)));
            prop_assert_eq!(keys[0].cmp(&keys[1]), one.cmp(&other));
            prop_assert_eq!(key::time_of(&keys[0]).map(|(time, _)| time.0), Some(one));
        }
    }
}
