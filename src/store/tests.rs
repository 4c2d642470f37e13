//! Tests of the store as a whole: crashes and failures on a disk in memory, views and locks in a real directory.

mod compaction;
mod crash;
mod erasure;
mod formats;
mod journal;
mod operations;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use half::f16;

use super::disk_test::MemDisk;
use super::*;
use crate::base::{Digest, UnixMillis};

/// A clock that tests set.
struct TestClock(AtomicI64);

impl TestClock {
    fn at(millis: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(millis)))
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

type Opened = (Writer, Arc<Reader>, OpenReport);

/// Small segments, so that tests cross their borders.
fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        segment_bytes: 4 << 10,
        reserve_bytes: 0,
        max_bytes: 0,
        catalog_cache_bytes: 1 << 20,
        clock: TestClock::at(1_000),
    }
}

/// On a disk in memory.
fn open_mem(disk: &MemDisk) -> Result<Opened, OpenError> {
    open_on(Arc::new(disk.clone()), None, config(Path::new("/data")), None, CatalogStorage::Memory)
}

/// In a directory, as after a process crash (`boot` as before) or a restart of the machine (another `boot`).
fn open_boot(directory: &Path, boot: &str) -> Opened {
    let lock = Lock::acquire(directory).expect("free");
    open_on(Arc::new(RealDisk), Some(lock), config(directory), Some(boot.to_owned()), CatalogStorage::Disk)
        .expect("opened")
}

fn body(text: &str) -> Arc<ChunkBody> {
    let embedding = text.bytes().take(3).map(|byte| f16::from_f32(f32::from(byte))).collect();
    Arc::new(ChunkBody {
        digest: Digest::of(text.as_bytes()),
        headings: vec!["Top".to_owned()],
        text: text.to_owned(),
        language: "en".to_owned(),
        embedding,
    })
}

/// A document whose chunks are `texts`; equal texts give equal content digests.
fn document(collection: CollectionId, id: &str, texts: &[&str]) -> NewDocument {
    NewDocument {
        collection,
        id: id.to_owned(),
        title: format!("Title of {id}"),
        url: None,
        metadata: b"{}".to_vec(),
        source: None,
        source_digest: None,
        content_digest: Digest::of_parts(texts.iter().map(|text| text.as_bytes())),
        media_type: "text/plain".to_owned(),
        expires_at: None,
        if_version: None,
        unless_exists: false,
        looked_at: None,
        chunks: texts
            .iter()
            .map(|text| NewChunk { range: 0..text.len() as u64, page: None, body: body(text) })
            .collect(),
    }
}

fn put(document: NewDocument) -> Operation {
    Operation::PutDocument(Box::new(document))
}

fn request(operations: Vec<Operation>) -> WriteRequest {
    WriteRequest { operations, ..WriteRequest::default() }
}

/// A request that is to be done once; its answer is `answer`.
fn once(key: &str, answer: &[u8], operations: Vec<Operation>) -> WriteRequest {
    let answer = answer.to_vec();
    let once = RunOnce { key: key.to_owned(), compose: Arc::new(move |_, _| answer.clone()) };
    WriteRequest { operations, once: Some(once), ..WriteRequest::default() }
}

fn create(name: &str) -> Operation {
    let [name, description, model] = [name, "for tests", "static"].map(str::to_owned);
    Operation::CreateCollection(NewCollection { name, description, model, dimensions: 3 })
}

/// One request with one operation.
fn run(writer: &mut Writer, operation: Operation) -> Outcome {
    let committed = writer.commit(vec![request(vec![operation])]).expect("committed");
    committed.outcomes.into_iter().flatten().next().expect("one outcome")
}

fn new_collection(writer: &mut Writer, name: &str) -> CollectionId {
    match run(writer, create(name)) {
        Outcome::CollectionCreated(id) => id,
        other => panic!("expected a new collection, found {other:?}"),
    }
}

/// One step of a compaction that nothing stops.
fn compact(reader: &Reader, limits: &CompactionLimits) -> Result<Option<CompactionReport>, CompactError> {
    reader.compact(limits, &BTreeSet::new(), &|_| false, &|_| Some(()))
}

fn changes(reader: &Reader) -> Vec<Change> {
    reader.changes_after(Lsn::ZERO).map(|change| change.expect("undamaged")).collect()
}

/// All that the catalog answers, as text by key: equal for equal catalogs.
fn dump(reader: &Reader) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for info in reader.collections() {
        let id = info.id;
        all.insert(format!("collection {}", info.name), format!("{info:?}"));
        for (document, entry) in reader.list(id, None, "", usize::MAX).expect("listed") {
            all.insert(format!("document {id:?} {document}"), format!("{entry:?}"));
        }
        for source in reader.sources(id, Bound::Unbounded, usize::MAX).expect("listed") {
            let documents = reader.list_source(id, &source.source, None, usize::MAX).expect("listed");
            all.insert(format!("source {id:?} {}", source.source), format!("{source:?} {documents:?}"));
        }
        for kind in [b'k', b'n', b'z'] {
            let prefix = catalog::key::of(kind, id);
            for (key, value) in reader.catalog.pairs(&prefix, &prefix, usize::MAX).expect("scanned") {
                all.insert(format!("pair {key:?}"), format!("{value:?}"));
            }
        }
    }
    let expired = reader.expired(UnixMillis(i64::MAX), usize::MAX).expect("listed");
    all.insert("expired".to_owned(), format!("{expired:?}"));
    all
}
