//! Deleted content leaves the log's files in time, and not before.

use std::time::Duration;

use super::*;

const WITHIN: Duration = Duration::from_secs(10);
const SECRET: &str = "the combination is 4711";

/// A store whose clock the test sets.
struct Timed {
    disk: MemDisk,
    clock: Arc<TestClock>,
    writer: Writer,
    reader: Arc<Reader>,
}

impl Timed {
    fn new() -> Self {
        Self::open(MemDisk::new(), TestClock::at(0))
    }

    fn open(disk: MemDisk, clock: Arc<TestClock>) -> Self {
        let config = Config {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            segment_bytes: 64 << 10,
            ..config(Path::new("/data"))
        };
        let (writer, reader, report) =
            open_on(Arc::new(disk.clone()), None, config, None, CatalogStorage::Memory).expect("opened");
        assert_eq!(report.damage, []);
        Self { disk, clock, writer, reader }
    }

    /// Rebuilds the catalog from the log.
    fn restarted(self) -> Self {
        let Self { disk, clock, .. } = self;
        Self::open(disk, clock)
    }

    fn at(&self, millis: i64) {
        self.clock.0.store(millis, Ordering::SeqCst);
    }

    fn put(&mut self, collection: CollectionId, id: &str, text: &str) {
        run(&mut self.writer, put(document(collection, id, &[text])));
    }

    fn delete(&mut self, collection: CollectionId, id: &str) {
        let outcome =
            run(&mut self.writer, Operation::DeleteDocument { collection, id: id.to_owned(), if_version: None });
        assert!(matches!(outcome, Outcome::Deleted { .. }));
    }

    /// Forty documents, and one with the secret among them, in a sealed segment.
    fn fill(&mut self, name: &str) -> CollectionId {
        let collection = new_collection(&mut self.writer, name);
        for number in 0..40 {
            let text = if number == 20 { SECRET.to_owned() } else { format!("{name} {number}") };
            self.put(collection, &format!("d{number}"), &text);
        }
        self.writer.seal().expect("sealed");
        collection
    }

    fn limits(&self) -> CompactionLimits {
        CompactionLimits {
            floor: self.reader.last(),
            segment_bytes: 2 << 10,
            bytes_per_second: 0,
            reserve_bytes: 0,
            erase_within: Some(WITHIN),
        }
    }

    fn compact(&self) -> usize {
        self.compact_to(&self.limits())
    }

    fn compact_to(&self, limits: &CompactionLimits) -> usize {
        let steps = (0..100).take_while(|_| compact(&self.reader, limits).expect("compacted").is_some());
        let steps = steps.count();
        assert!(steps < 100, "compaction does not end");
        steps
    }

    /// Whether some file of the log holds the secret.
    fn holds_secret(&self) -> bool {
        let files = self.disk.paths().into_iter().filter(|path| path.starts_with("/data/log"));
        files
            .map(|path| self.disk.bytes(&path))
            .any(|bytes| bytes.windows(SECRET.len()).any(|at| at == SECRET.as_bytes()))
    }

    fn documents(&self, collection: CollectionId) -> usize {
        let listed = self.reader.list(collection, None, "", usize::MAX).expect("listed");
        listed.iter().filter(|(_, entry)| self.reader.document(entry.lsn).is_ok()).count()
    }
}

#[test]
fn deleted_content_is_gone_in_time_and_not_before() {
    for restarts in [false, true] {
        let mut store = Timed::new();
        let collection = store.fill("docs");
        store.at(1_000);
        store.delete(collection, "d20");
        store.writer.seal().expect("sealed");
        store.at(10_999);
        if restarts {
            store = store.restarted();
        }
        assert_eq!(store.reader.time_to_erasure(WITHIN), Some(Duration::from_millis(1)));
        assert_eq!((store.compact(), store.holds_secret()), (0, true), "it is too early, and too little is dead");
        store.at(11_000);
        if restarts {
            store = store.restarted();
        }
        assert_eq!(store.reader.time_to_erasure(WITHIN), Some(Duration::ZERO));
        assert!(
            !store
                .reader
                .wants_compaction(&CompactionLimits { erase_within: None, ..store.limits() }, &BTreeSet::new())
        );
        assert_eq!((store.compact(), store.holds_secret()), (1, false));
        assert_eq!(store.reader.time_to_erasure(WITHIN), None, "nothing wakes for it any more");
        assert_eq!(store.documents(collection), 39);
        let store = store.restarted();
        assert_eq!((store.documents(collection), store.reader.time_to_erasure(WITHIN)), (39, None));
    }
}

#[test]
fn a_follower_that_has_not_passed_holds_it() {
    let mut store = Timed::new();
    let collection = store.fill("docs");
    store.delete(collection, "d20");
    store.writer.seal().expect("sealed");
    store.at(50_000);
    let limits = CompactionLimits { floor: Lsn(store.reader.last().0 - 3), ..store.limits() };
    assert_eq!((store.compact_to(&limits), store.holds_secret()), (0, true));
    assert!(store.compact() > 0 && !store.holds_secret());
}

#[test]
fn content_in_the_segment_that_is_being_written_is_due_as_well() {
    let mut store = Timed::new();
    let collection = new_collection(&mut store.writer, "docs");
    store.put(collection, "a", SECRET);
    store.put(collection, "b", "something else");
    store.at(1_000);
    store.put(collection, "a", "nothing");
    store.at(10_999);
    assert!(!store.reader.is_active_due(WITHIN));
    store.at(11_000);
    assert!(store.reader.is_active_due(WITHIN));
    store.writer.seal().expect("sealed");
    assert!(!store.reader.is_active_due(WITHIN));
    assert_eq!((store.compact(), store.holds_secret(), store.documents(collection)), (1, false, 2));
}

#[test]
fn a_deleted_collection_goes_without_another_write() {
    let mut store = Timed::new();
    let gone = store.fill("gone");
    let docs = store.fill("docs");
    store.delete(docs, "d20");
    store.at(1_000);
    run(&mut store.writer, Operation::DeleteCollection { collection: gone });
    store.writer.seal().expect("sealed");
    while store.writer.sweep().expect("swept") {}
    assert!(!store.writer.sweep().expect("swept"), "there is nothing left to do");
    store = store.restarted();
    while store.writer.sweep().expect("swept") {}
    // Most of a segment is dead, so it need not wait.
    assert!(store.compact() > 0);
    store.at(11_000);
    store.compact();
    assert_eq!((store.holds_secret(), store.documents(docs)), (false, 39));
}

/// The version that replaced the one with the secret is itself replaced, and erased for its size, before the catalog is
/// rebuilt: then nothing in the log says when the secret died.
#[test]
fn content_whose_successor_is_gone_goes_no_later() {
    let mut store = Timed::new();
    let collection = store.fill("docs");
    store.at(1_000);
    let filler = "between ".repeat(60);
    store.put(collection, "d20", &filler);
    store.writer.seal().expect("sealed");
    store.at(5_000);
    store.put(collection, "d20", "last");
    store.writer.seal().expect("sealed");
    assert_eq!((store.compact(), store.holds_secret()), (1, true), "only the large one");
    let store = store.restarted();
    store.at(11_000);
    assert_eq!((store.compact(), store.holds_secret()), (1, false));
    assert_eq!(store.documents(collection), 40);
}

/// Every version of a document that had the passage is gone from the log before the catalog is rebuilt: nothing in the
/// log says that the passage is dead, or when it died.
#[test]
fn a_passage_of_which_every_document_is_gone_is_erased_after_a_rebuild() {
    for is_damaged in [false, true] {
        let mut store = Timed::new();
        let collection = store.fill("docs");
        store.at(1_000);
        let filler = "between ".repeat(60);
        run(&mut store.writer, put(document(collection, "d20", &[SECRET, &filler])));
        store.writer.seal().expect("sealed");
        store.at(11_000);
        assert_eq!((store.compact(), store.holds_secret()), (1, true), "the first version goes, the passage is in use");
        store.delete(collection, "d20");
        store.writer.seal().expect("sealed");
        assert!(store.compact() > 0, "the second version goes, of which most of its segment consists");
        assert!(store.holds_secret());
        if is_damaged {
            // A record that cannot be read may be the one that refers to the passage.
            let segments = store.reader.sealed_segments();
            let mut bytes = store.disk.bytes(&segments[0].path);
            let at = bytes.windows(7).position(|window| window == b"docs 39").expect("a passage is stored as it is");
            bytes[at] ^= 1;
            store.disk.overwrite(&segments[0].path, bytes);
            store.disk.remove(&segments[0].path.with_extension("idx")).expect("removed");
            let Timed { disk, clock, .. } = store;
            let config = Config { clock: clock as Arc<dyn Clock>, ..config(Path::new("/data")) };
            let (_writer, reader, report) =
                open_on(Arc::new(disk), None, config, None, CatalogStorage::Memory).expect("opened");
            assert_eq!((report.damage.len(), reader.dead_bytes()), (1, 0));
            continue;
        }
        let store = store.restarted();
        assert!(store.reader.dead_bytes() > 0);
        store.at(22_000);
        assert!(store.compact() > 0);
        assert_eq!((store.holds_secret(), store.documents(collection)), (false, 39));
        assert_eq!(store.restarted().reader.time_to_erasure(WITHIN), None);
    }
}

/// The compaction sees the record alive, because the catalog does not have the deletion yet.
#[test]
fn what_dies_while_its_segment_is_compacted_is_not_forgotten() {
    let mut store = Timed::new();
    let collection = store.fill("docs");
    for number in 0..18 {
        store.delete(collection, &format!("d{number}"));
    }
    store.writer.seal().expect("sealed");
    store.at(10_500);
    let (reader, limits) = (Arc::clone(&store.reader), store.limits());
    let (sender, done) = std::sync::mpsc::channel();
    *store.reader.catalog.before_apply.lock() = Some(Box::new(move || {
        let first = reader.sealed_segments()[0].first;
        let report = compact(&reader, &limits).expect("compacted").expect("it is due");
        sender.send((first, report)).expect("awaited");
    }));
    store.delete(collection, "d20");
    let (first, report) = done.try_recv().expect("it was compacted meanwhile");
    assert!(report.first == first && report.records_dropped >= 36, "{report:?}");
    assert!(store.holds_secret());
    store.writer.seal().expect("sealed");
    store.at(20_500);
    assert_eq!(store.reader.time_to_erasure(WITHIN), Some(Duration::ZERO));
    assert!(store.compact() > 0 && !store.holds_secret());
    assert_eq!(store.documents(collection), 21);
}

#[test]
fn what_is_overdue_is_known_and_what_died_later_is_awaited() {
    let mut store = Timed::new();
    let collection = store.fill("docs");
    assert_eq!(store.reader.erasure_overdue(WITHIN), Duration::ZERO, "nothing is dead");
    store.at(1_000);
    store.delete(collection, "d20");
    store.writer.seal().expect("sealed");
    store.fill("more");
    store.at(4_000);
    let more = store.reader.collection("more").expect("there").id;
    store.delete(more, "d7");
    store.at(11_000);
    assert_eq!(store.reader.erasure_overdue(WITHIN), Duration::ZERO);
    let tried = store.reader.erase_until(WITHIN);
    assert_eq!(store.reader.time_to_erasure_after(tried, WITHIN), Some(Duration::from_secs(3)));
    store.at(12_500);
    assert_eq!(store.reader.erasure_overdue(WITHIN), Duration::from_millis(1_500));
    assert_eq!(store.reader.time_to_erasure_after(UnixMillis(4_000), WITHIN), None);
}

#[test]
fn the_catalog_on_disk_remembers_what_is_due_and_what_was_done() {
    let directory = tempfile::tempdir().expect("made");
    let clock = TestClock::at(0);
    let open = || {
        let lock = Lock::acquire(directory.path()).expect("free");
        let config = Config { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..config(directory.path()) };
        open_on(Arc::new(RealDisk), Some(lock), config, Some("boot".to_owned()), CatalogStorage::Disk).expect("opened")
    };
    let limits = |reader: &Reader| CompactionLimits {
        floor: reader.last(),
        segment_bytes: 2 << 10,
        bytes_per_second: 0,
        reserve_bytes: 0,
        erase_within: Some(WITHIN),
    };
    let (mut writer, reader, _) = open();
    let collection = new_collection(&mut writer, "docs");
    for number in 0..10 {
        run(&mut writer, put(document(collection, &format!("d{number}"), &[&format!("text {number}")])));
    }
    clock.0.store(1_000, Ordering::SeqCst);
    run(&mut writer, Operation::DeleteDocument { collection, id: "d5".to_owned(), if_version: None });
    writer.seal().expect("sealed");
    writer.close().expect("closed");
    drop(reader);
    let (writer, reader, report) = open();
    assert_eq!(report.catalog, ViewState::Trusted);
    clock.0.store(10_999, Ordering::SeqCst);
    assert!(!reader.wants_compaction(&limits(&reader), &BTreeSet::new()));
    clock.0.store(11_000, Ordering::SeqCst);
    let done = compact(&reader, &limits(&reader)).expect("compacted").expect("it is due");
    assert_eq!(done.records_dropped, 2, "the document and its chunk");
    writer.close().expect("closed");
    drop(reader);
    let (_writer, reader, report) = open();
    assert_eq!(report.catalog, ViewState::Trusted);
    assert_eq!((reader.dead_bytes(), reader.time_to_erasure(WITHIN)), (0, None), "nothing is done a second time");
}
