//! The catalog in its files: trusted, caught up or rebuilt, and always the same.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;

const BOOT: &str = "boot-one";

fn filled(directory: &Path) -> (Writer, Arc<Reader>) {
    let (mut writer, reader, report) = open_boot(directory, BOOT);
    assert_eq!(report.catalog, ViewState::Created);
    let collection = new_collection(&mut writer, "docs");
    for id in ["a", "b", "c"] {
        run(&mut writer, put(document(collection, id, &[id, "shared"])));
    }
    (writer, reader)
}

fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(directory.join("views/catalog"))
        .expect("listed")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).expect("read")))
        .collect();
    let manifest = directory.join("views/catalog.json");
    found.push((manifest.clone(), fs::read(&manifest).expect("read")));
    found.sort();
    found
}

#[test]
fn a_second_opener_is_told_who_holds_the_store() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let opened = open(config(directory.path())).expect("opened");
    let error = open(config(directory.path())).err().expect("held");
    assert!(matches!(&error, OpenError::Locked { pid: Some(pid), .. } if *pid == std::process::id()));
    assert!(error.to_string().contains(&format!("LOCK is held by process {} (", std::process::id())), "{error}");
    drop(opened);
    open(config(directory.path())).expect("free");
}

#[test]
fn after_a_clean_close_the_catalog_is_trusted_and_left_alone() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (writer, reader) = filled(directory.path());
    let before = dump(&reader);
    writer.close().expect("closed");
    assert!(matches!(reader.list(CollectionId(Lsn(1)), None, "", 1), Err(ReadError::Catalog { .. })));
    drop(reader);
    // sled makes a snapshot of its own at the first two starts; from then on nothing may change.
    let mut last = None;
    for _ in 0..4 {
        let (writer, reader, report) = open_boot(directory.path(), "boot-two");
        assert_eq!((report.catalog, dump(&reader)), (ViewState::Trusted, before.clone()));
        writer.close().expect("closed");
        last.replace(files(directory.path()));
    }
    let (writer, _, _) = open_boot(directory.path(), BOOT);
    writer.close().expect("closed");
    assert_eq!(last, Some(files(directory.path())));
}

#[test]
fn after_a_process_crash_it_is_caught_up_and_after_a_power_cut_rebuilt() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (writer, reader) = filled(directory.path());
    let before = dump(&reader);
    drop((writer, reader));
    let (writer, reader, report) = open_boot(directory.path(), BOOT);
    assert!(matches!(report.catalog, ViewState::Trusted | ViewState::CaughtUp { .. }), "{:?}", report.catalog);
    assert_eq!(dump(&reader), before);
    drop((writer, reader));
    let (_, reader, report) = open_boot(directory.path(), "boot-two");
    assert!(matches!(report.catalog, ViewState::Rebuilt { .. }), "{:?}", report.catalog);
    assert_eq!(dump(&reader), before);
}

/// Copies the files of one part of a data directory.
fn copy(from: &Path, to: &Path, part: &str) {
    fs::create_dir_all(to.join(part)).expect("made");
    for entry in fs::read_dir(from.join(part)).expect("listed") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            fs::copy(&path, to.join(part).join(path.file_name().expect("named"))).expect("copied");
        }
    }
}

#[test]
fn a_catalog_behind_the_log_is_caught_up_and_one_ahead_tells_what_the_log_lost() {
    let [directory, behind, ahead] = [(); 3].map(|()| tempfile::tempdir().expect("temporary directory"));
    let (writer, reader) = filled(directory.path());
    writer.close().expect("closed");
    drop(reader);
    copy(directory.path(), behind.path(), "views");
    copy(directory.path(), behind.path(), "views/catalog");
    copy(directory.path(), ahead.path(), "log");
    let (mut writer, reader, _) = open_boot(directory.path(), BOOT);
    let from = reader.last();
    run(&mut writer, put(document(CollectionId(Lsn(1)), "d", &["more"])));
    let (to, now) = (reader.last(), dump(&reader));
    writer.close().expect("closed");
    drop(reader);
    copy(directory.path(), behind.path(), "log");
    copy(directory.path(), ahead.path(), "views");
    copy(directory.path(), ahead.path(), "views/catalog");
    let (_writer, reader, report) = open_boot(behind.path(), BOOT);
    assert_eq!((report.catalog, dump(&reader)), (ViewState::CaughtUp { from, to }, now));
    let (mut writer, reader, report) = open_boot(ahead.path(), BOOT);
    let reason = "the catalog belongs to another history of the log".to_owned();
    assert_eq!(report.catalog, ViewState::Rebuilt { reason });
    let lost: Vec<_> = report.damage.iter().map(|damage| damage.records).collect();
    assert_eq!((lost, reader.last()), (vec![Some((from.next(), to))], to), "its numbers are not used again");
    // The same LSNs with other records: the catalog of the first epoch must not be accepted for this one.
    run(&mut writer, put(document(CollectionId(Lsn(1)), "e", &["other"])));
    let other = dump(&reader);
    writer.close().expect("closed");
    drop(reader);
    fs::remove_dir_all(ahead.path().join("views")).expect("removed");
    copy(directory.path(), ahead.path(), "views");
    copy(directory.path(), ahead.path(), "views/catalog");
    let (_writer, reader, report) = open_boot(ahead.path(), BOOT);
    let reason = "the catalog belongs to another history of the log".to_owned();
    assert_eq!((report.catalog, dump(&reader)), (ViewState::Rebuilt { reason }, other));
}

#[test]
fn damage_in_the_last_append_is_torn_off_after_a_crash_and_named_after_a_clean_close() {
    for is_clean in [false, true] {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (mut writer, reader) = filled(directory.path());
        let before = reader.last();
        run(&mut writer, put(document(CollectionId(Lsn(1)), "last", &["the last one"])));
        let last = reader.last();
        if is_clean {
            writer.close().expect("closed");
        } else {
            drop(writer);
        }
        drop(reader);
        let log = directory.path().join("log");
        let path = fs::read_dir(&log).expect("listed").map(|entry| entry.expect("entry").path()).max().expect("one");
        let mut bytes = fs::read(&path).expect("read");
        let end = bytes.iter().rposition(|&byte| byte != 0).expect("frames");
        bytes[end] ^= 1;
        fs::write(&path, &bytes).expect("written");

        for _ in 0..2 {
            let (mut writer, reader, report) = open_boot(directory.path(), BOOT);
            let lost: Vec<_> = report.damage.iter().filter_map(|damage| damage.records).collect();
            if !is_clean {
                assert_eq!((report.torn_bytes > 0, lost, report.last), (true, vec![], before));
                break;
            }
            assert_eq!((report.torn_bytes, report.last >= last), (0, true));
            assert!(lost.iter().all(|lost| *lost == (last, last)) && !lost.is_empty(), "{lost:?}");
            // A later one gets its own number.
            run(&mut writer, put(document(CollectionId(Lsn(1)), "new", &["after it"])));
            assert!(reader.last() > last);
            writer.close().expect("closed");
        }
    }
}

#[test]
fn a_damaged_or_missing_part_of_the_catalog_is_rebuilt() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (writer, reader) = filled(directory.path());
    let before = dump(&reader);
    writer.close().expect("closed");
    drop(reader);
    for round in 0..8 {
        let list = files(directory.path());
        let (path, mut bytes) = list[round % list.len()].clone();
        if round < 4 {
            let at = bytes.len() * (round + 1) / 6;
            bytes[at] ^= 1;
            fs::write(path, bytes).expect("written");
        } else {
            fs::remove_file(path).expect("removed");
        }
        let (writer, reader, report) = open_boot(directory.path(), BOOT);
        assert!(matches!(report.catalog, ViewState::Rebuilt { .. }), "{:?}", report.catalog);
        assert_eq!(dump(&reader), before);
        writer.close().expect("closed");
    }
}

/// More keys than the engine gets in one batch.
fn many(collection: CollectionId) -> WriteRequest {
    request((0..400).map(|n| put(document(collection, &format!("many-{n}"), &[&format!("text {n}")]))).collect())
}

#[test]
fn a_large_change_of_the_catalog_that_was_cut_off_costs_a_rebuild() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut writer, reader) = filled(directory.path());
    let info = reader.collection("docs").expect("there");
    writer.commit(vec![many(info.id)]).expect("durable");
    let before = dump(&reader);
    drop((writer, reader));
    // A process that ended behind it left nothing to detect it by.
    let (writer, reader, report) = open_boot(directory.path(), BOOT);
    assert!(matches!(report.catalog, ViewState::Trusted), "{:?}", report.catalog);
    assert_eq!(dump(&reader), before);
    // One that ended in the middle left the mark, and some of the keys.
    let key = super::super::catalog::key::document(info.id, "many-7");
    let half = [(super::super::catalog::key::UNFINISHED.to_vec(), Some(Vec::new())), (key, None)];
    reader.catalog.with_tree(|tree| tree.apply(half.into())).expect("applied");
    drop((writer, reader));
    let (_, reader, report) = open_boot(directory.path(), BOOT);
    assert!(
        matches!(&report.catalog, ViewState::Rebuilt { reason } if reason.contains("cut off")),
        "{:?}",
        report.catalog
    );
    assert_eq!(dump(&reader), before);
}

#[test]
fn a_catalog_that_failed_is_not_vouched_for() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (writer, reader) = filled(directory.path());
    let (before, info) = (dump(&reader), reader.collection("docs").expect("there"));
    let key = super::super::catalog::key::document(info.id, "b");
    reader.catalog.with_tree(|tree| tree.apply([(key, Some(vec![1, 2, 3]))].into())).expect("applied");
    assert!(matches!(reader.lookup(info.id, "b"), Err(ReadError::Catalog { .. })));
    writer.close().expect("closed");
    drop(reader);
    let (_, reader, report) = open_boot(directory.path(), BOOT);
    assert!(matches!(report.catalog, ViewState::Rebuilt { .. }), "{:?}", report.catalog);
    assert_eq!(dump(&reader), before);
}

#[test]
fn damage_that_makes_sled_panic_costs_a_rebuild_only() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (writer, reader) = filled(directory.path());
    let before = dump(&reader);
    drop((writer, reader));
    // Marked dirty in this boot, so the files are tried without a digest.
    let path = directory.path().join("views/catalog/db");
    for at in (0..4_000).step_by(400) {
        let mut bytes = fs::read(&path).expect("read");
        bytes[at..at + 8].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&path, bytes).expect("written");
        let (_, reader, _) = open_boot(directory.path(), BOOT);
        assert_eq!(dump(&reader), before, "byte {at}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { collection: usize, id: u8, texts: Vec<u8>, source: Option<u8>, expires: Option<i64> },
    Delete { collection: usize, id: u8 },
    Create(u8),
    DeleteCollection(usize),
    DeleteFromSource { collection: usize, source: u8, keep: Vec<u8> },
    Answer(u8),
    Note { collection: usize, key: u8, value: Vec<u8> },
    EndOfGroup,
}

fn any_step() -> impl Strategy<Value = Step> {
    let put = (0..3_usize, 0..5_u8, vec(0..5_u8, 0..4), proptest::option::of(0..2_u8), proptest::option::of(-9..9_i64));
    prop_oneof![
        8 => put.prop_map(|(collection, id, texts, source, expires)| Step::Put { collection, id, texts, source, expires }),
        3 => (0..3_usize, 0..5_u8).prop_map(|(collection, id)| Step::Delete { collection, id }),
        2 => (0..3_u8).prop_map(Step::Create),
        1 => (0..3_usize).prop_map(Step::DeleteCollection),
        1 => (0..3_usize, 0..2_u8, vec(0..5_u8, 0..3))
            .prop_map(|(collection, source, keep)| Step::DeleteFromSource { collection, source, keep }),
        1 => any::<u8>().prop_map(Step::Answer),
        2 => (0..3_usize, 0..2_u8, vec(any::<u8>(), 0..3)).prop_map(|(collection, key, value)| Step::Note { collection, key, value }),
        3 => Just(Step::EndOfGroup),
    ]
}

fn step_request(step: Step, collections: &[CollectionId]) -> Option<WriteRequest> {
    let pick = |index: usize| collections.get(index % collections.len().max(1)).copied();
    let operation = match step {
        Step::Put { collection, id, texts, source, expires } => {
            let texts: Vec<String> = texts.iter().map(|text| format!("text {text}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut new = document(pick(collection)?, &format!("d{id}"), &texts);
            new.source = source.map(|source| format!("s{source}"));
            new.source_digest = source.map(|source| Digest::of(&[source, id]));
            new.expires_at = expires.map(UnixMillis);
            put(new)
        }
        Step::Delete { collection, id } => {
            Operation::DeleteDocument { collection: pick(collection)?, id: format!("d{id}"), if_version: None }
        }
        Step::Create(name) => create(&format!("c{name}")),
        Step::DeleteCollection(index) => Operation::DeleteCollection { collection: pick(index)? },
        Step::DeleteFromSource { collection, source, keep } => Operation::DeleteFromSource {
            collection: pick(collection)?,
            source: format!("s{source}"),
            keep: keep.into_iter().map(|id| format!("d{id}")).collect(),
        },
        Step::Answer(key) => return Some(once(&format!("k{key}"), &[key], Vec::new())),
        Step::Note { collection, key, value } => {
            Operation::Note { collection: pick(collection)?, key: format!("n{key}"), value }
        }
        Step::EndOfGroup => return None,
    };
    Some(request(vec![operation]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A rebuild from the log makes the catalog that the commits made, and the replay their changes.
    #[test]
    fn the_catalog_follows_from_the_log(steps in vec(any_step(), 1..60)) {
        let disk = MemDisk::new();
        let (mut writer, reader, _) = open_mem(&disk).expect("opened");
        let mut collections = vec![new_collection(&mut writer, "c0")];
        let mut given = changes(&reader);
        let mut group = Vec::new();
        for step in steps.into_iter().chain([Step::EndOfGroup]) {
            match step_request(step, &collections) {
                Some(request) => group.push(request),
                None => {
                    given.extend(writer.commit(std::mem::take(&mut group)).expect("committed").changes);
                    let alive: Vec<CollectionId> = reader.collections().iter().map(|info| info.id).collect();
                    if !alive.is_empty() {
                        collections = alive;
                    }
                }
            }
        }
        let before = dump(&reader);
        prop_assert_eq!(changes(&reader), given);
        let (_, rebuilt, _) = open_mem(&disk).expect("opened");
        prop_assert_eq!(dump(&rebuilt), before);
        // The counts are what is there.
        for info in rebuilt.collections() {
            let documents = rebuilt.list(info.id, None, "", usize::MAX).expect("listed");
            prop_assert_eq!(info.documents, documents.len() as u64);
            prop_assert_eq!(info.chunks, documents.iter().map(|(_, entry)| u64::from(entry.chunks)).sum::<u64>());
        }
    }
}

/// All that was stored is gone, and a new, empty node would report that all is well.
#[test]
fn a_log_without_segments_is_lost_where_the_catalog_knows_of_records() {
    for is_closed in [true, false] {
        for is_emptied in [true, false] {
            let directory = tempfile::tempdir().expect("temporary directory");
            let (writer, reader) = filled(directory.path());
            if is_closed {
                writer.close().expect("closed");
            } else {
                drop(writer);
            }
            let node = reader.node().to_string();
            drop(reader);
            let log = directory.path().join("log");
            for entry in fs::read_dir(&log).expect("listed") {
                let path = entry.expect("entry").path();
                if is_emptied { fs::write(path, "").expect("emptied") } else { fs::remove_file(path).expect("removed") }
            }
            let left = || fs::read_dir(&log).expect("listed").count();
            let before = left();
            let error = open(config(directory.path())).err().expect("refused");
            assert!(matches!(&error, OpenError::Lost { node: lost, .. } if *lost == node), "{error}");
            assert_eq!(left(), before, "nothing was changed");
        }
    }
}

#[test]
fn an_empty_node_whose_log_is_gone_begins_anew() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (writer, reader, _) = open_boot(directory.path(), BOOT);
    writer.close().expect("closed");
    drop(reader);
    fs::remove_dir_all(directory.path().join("log")).expect("removed");
    let (_, _, report) = open_boot(directory.path(), BOOT);
    assert_eq!(report.last, Lsn::ZERO);
}
