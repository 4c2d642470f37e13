//! Compaction: live records stay, dead ones are removed, and it can be interrupted at any moment.

use std::time::Duration;

use super::super::disk_test::Failure;
use super::*;

const ROUNDS: u32 = 10;
const DOCUMENTS: u32 = 12;

fn limits(reader: &Reader) -> CompactionLimits {
    CompactionLimits {
        floor: reader.last(),
        segment_bytes: 16 << 10,
        bytes_per_second: 0,
        reserve_bytes: 0,
        erase_within: None,
    }
}

fn compact_all(reader: &Reader) -> Result<usize, CompactError> {
    let mut steps = 0;
    while compact(reader, &limits(reader))?.is_some() {
        steps += 1;
        assert!(steps < 100, "compaction does not end");
    }
    Ok(steps)
}

fn text(round: u32, id: u32, part: u32) -> String {
    // Not repetitive, so that compression does not hide what is retained.
    let words: Vec<String> = (0..60_u32)
        .map(|word| format!("{:08x}", Digest::of(format!("{round} {id} {part} {word}").as_bytes()).0[0]))
        .collect();
    format!("{round} {id} {part} {}", words.join(" "))
}

/// Writes every document once, and deletes each fourth one in every second round.
fn round(writer: &mut Writer, collection: CollectionId, round: u32) {
    for id in 0..DOCUMENTS {
        let operation = if id % 4 == 3 && round % 2 == 1 {
            Operation::DeleteDocument { collection, id: format!("d{id}"), if_version: None }
        } else if id % 4 == 2 {
            // One note of many values, and one that comes and goes.
            let value = if id == 2 { text(round, id, 0) } else { "here".repeat(round as usize % 2) };
            run(writer, Operation::Note { collection, key: format!("n{id}"), value: value.into_bytes() });
            put(document(collection, &format!("d{id}"), &[&text(round, id, 0), &text(0, id, 1)]))
        } else {
            let parts = [text(round, id, 0), text(0, id, 1)];
            put(document(collection, &format!("d{id}"), &[&parts[0], &parts[1]]))
        };
        run(writer, operation);
    }
}

/// A store with mostly dead records.
fn churned(disk: &MemDisk) -> (Writer, Arc<Reader>, CollectionId) {
    let (mut writer, reader, _) = open_mem(disk).expect("opened");
    let gone = new_collection(&mut writer, "gone");
    round(&mut writer, gone, 0);
    let collection = new_collection(&mut writer, "docs");
    (0..ROUNDS).for_each(|number| round(&mut writer, collection, number));
    run(&mut writer, Operation::DeleteCollection { collection: gone });
    writer.seal().expect("sealed");
    // One more write, so that the sweep of the deleted collection is in the catalog.
    run(&mut writer, put(document(collection, "last", &["the end"])));
    writer.seal().expect("sealed");
    (writer, reader, collection)
}

/// Every document with its texts, read through the log.
fn contents(reader: &Reader) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for info in reader.collections() {
        for (id, entry) in reader.list(info.id, None, "", usize::MAX).expect("listed") {
            let document = reader.document(entry.lsn).expect("readable");
            let texts = document.chunks.iter().map(|chunk| reader.chunk(chunk.lsn).expect("readable").text).collect();
            found.insert(format!("{} {id} {}", info.name, entry.version), texts);
        }
    }
    found
}

#[test]
fn what_is_dead_goes_and_what_is_alive_stays() {
    let disk = MemDisk::new();
    let (writer, reader, _) = churned(&disk);
    let (before, catalog, bytes) = (contents(&reader), dump(&reader), reader.log_bytes());
    assert!(compact_all(&reader).expect("compacted") > 0);
    assert_eq!(contents(&reader), before);
    assert_eq!(dump(&reader), catalog);

    // The size of the live documents when written once.
    let fresh = MemDisk::new();
    let (mut other, alive, _) = open_mem(&fresh).expect("opened");
    let collection = new_collection(&mut other, "docs");
    round(&mut other, collection, ROUNDS - 1);
    let (after, alive) = (reader.log_bytes(), alive.log_bytes());
    assert!(after * 2 <= alive * 3, "{after} bytes for {alive} that are alive; before {bytes}");

    // A catalog rebuilt from the compacted log alone is identical.
    drop((writer, reader));
    let (_, reader, report) = open_mem(&disk).expect("opened");
    assert_eq!((report.damage, report.torn_bytes), (Vec::new(), 0));
    assert_eq!(contents(&reader), before);
    assert_eq!(dump(&reader), catalog);
    assert!(reader.changes_after(Lsn::ZERO).all(|change| change.is_ok()), "gaps are no damage");
}

#[test]
fn versions_and_tombstones_survive() {
    let disk = MemDisk::new();
    let (mut writer, reader, collection) = churned(&disk);
    let version = |reader: &Reader, id: &str| reader.lookup(collection, id).expect("asked").map(|entry| entry.version);
    assert_eq!(version(&reader, "d3"), None, "deleted in the last round");
    compact_all(&reader).expect("compacted");
    let expected = match run(&mut writer, put(document(collection, "d3", &["again"]))) {
        Outcome::Created { version, .. } => version,
        other => panic!("expected a new document, found {other:?}"),
    };
    assert!(expected > 1, "a version is never used twice");
    drop((writer, reader));
    let (_, reader, _) = open_mem(&disk).expect("opened");
    assert_eq!(version(&reader, "d3"), Some(expected));
}

#[test]
fn nothing_beyond_the_floor_is_left_out() {
    let disk = MemDisk::new();
    let (_writer, reader, _) = churned(&disk);
    let all = changes(&reader);
    let half = Lsn(reader.last().0 / 2);
    let limits = CompactionLimits { floor: half, ..limits(&reader) };
    while compact(&reader, &limits).expect("compacted").is_some() {}
    let beyond = |changes: &[Change]| -> Vec<Lsn> {
        changes.iter().map(|change| change.lsn).filter(|lsn| *lsn > half).collect()
    };
    assert_eq!(beyond(&changes(&reader)), beyond(&all));
    assert!(changes(&reader).len() < all.len(), "something before it was");
}

#[test]
fn who_looked_a_record_up_before_can_still_read_it() {
    let disk = MemDisk::new();
    let (mut writer, reader, collection) = churned(&disk);
    let entry = reader.lookup(collection, "d0").expect("asked").expect("there");
    let old = reader.document(entry.lsn).expect("readable");
    run(&mut writer, put(document(collection, "d0", &["replaced"])));
    writer.seal().expect("sealed");
    run(&mut writer, put(document(collection, "d1", &["replaced"])));
    compact_all(&reader).expect("compacted");
    assert_eq!(reader.document(entry.lsn).expect("still readable"), old);
    drop((writer, reader));
    let (_, reader, _) = open_mem(&disk).expect("opened");
    assert!(matches!(reader.document(entry.lsn), Err(ReadError::Gone { .. })), "it was left out");
}

/// Fails, or loses power, at every call that compaction makes.
#[test]
fn a_compaction_can_end_anywhere() {
    let clean = MemDisk::new();
    let expected = {
        let (writer, reader, _) = churned(&clean);
        let expected = contents(&reader);
        drop((writer, reader));
        expected
    };
    for failure in [Failure::Io, Failure::Full] {
        for keep in [0_u64, u64::MAX, 0x5555_5555_5555_5555, 0x1357_9bdf_0246_8ace] {
            let mut failed = true;
            let mut call = 0;
            while failed {
                let disk = clean.power_cut(|| true);
                let (writer, reader, _) = open_mem(&disk).expect("opened");
                disk.fail_at(call, failure);
                failed = compact_all(&reader).is_err() || disk.calls() > call;
                assert_eq!(contents(&reader), expected, "call {call}: reads go on");
                drop((writer, reader));
                let mut bit = 0;
                let after = disk.power_cut(|| {
                    bit += 1;
                    keep >> (bit % 64) & 1 == 1
                });
                let (mut writer, reader, report) = open_mem(&after).expect("opened");
                assert_eq!(report.damage, [], "call {call}, kept {keep:x}");
                assert_eq!(contents(&reader), expected, "call {call}, kept {keep:x}");
                new_collection(&mut writer, "it goes on");
                call += 1;
            }
            assert!(call > 10, "{call} calls");
        }
    }
}

#[test]
fn damage_in_a_compacted_segment_is_named_and_never_answered() {
    let disk = MemDisk::new();
    let (writer, reader, _) = churned(&disk);
    let expected = contents(&reader);
    compact_all(&reader).expect("compacted");
    drop((writer, reader));
    let segment = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "seg")).min();
    let segment = segment.expect("there is one");
    let bytes = disk.bytes(&segment);
    let index = segment.with_extension("idx");
    for with_index in [true, false] {
        for at in (0..bytes.len()).step_by(if with_index { 7 } else { 13 }) {
            let damaged = disk.power_cut(|| true);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            damaged.overwrite(&segment, flipped);
            if !with_index {
                damaged.remove(&index).expect("removed");
            }
            let (_writer, reader, _) = open_mem(&damaged).expect("opened");
            let mut missing = 0;
            for info in reader.collections() {
                for (id, entry) in reader.list(info.id, None, "", usize::MAX).expect("listed") {
                    let Ok(document) = reader.document(entry.lsn) else {
                        missing += 1;
                        continue;
                    };
                    let texts: Result<Vec<String>, _> =
                        document.chunks.iter().map(|chunk| reader.chunk(chunk.lsn).map(|body| body.text)).collect();
                    match texts {
                        Ok(texts) => assert_eq!(expected[&format!("{} {id} {}", info.name, entry.version)], texts),
                        Err(_) => missing += 1,
                    }
                }
            }
            let lost = expected.len() - contents_len(&reader) + missing;
            assert!(lost == 0 || !reader.damage().is_empty(), "byte {at}: {lost} are missing in silence");
        }
    }
}

fn contents_len(reader: &Reader) -> usize {
    reader.collections().iter().map(|info| reader.list(info.id, None, "", usize::MAX).expect("listed").len()).sum()
}

#[test]
fn a_row_of_small_segments_becomes_one() {
    let disk = MemDisk::new();
    let (mut writer, reader, _) = open_mem(&disk).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    for id in 0..10 {
        run(&mut writer, put(document(collection, &format!("d{id}"), &["short"])));
        writer.seal().expect("sealed");
    }
    let expected = contents(&reader);
    assert_eq!(compact_all(&reader).expect("compacted"), 1);
    assert_eq!(contents(&reader), expected);
    let segments = disk.paths().iter().filter(|path| path.extension().is_some_and(|kind| kind == "seg")).count();
    assert_eq!(segments, 2);
}

#[test]
fn damage_holds_back_its_own_segment_alone() {
    let disk = MemDisk::new();
    let (writer, reader, _) = churned(&disk);
    let expected = contents(&reader);
    drop((writer, reader));
    // In a record that is dead and in a segment with an index file: only reading the record shows it.
    let damaged = disk.power_cut(|| true);
    let segment = log::segment_path(Path::new("/data/log"), Lsn(1));
    let mut bytes = damaged.bytes(&segment);
    let dead = text(0, 0, 0);
    let word = dead.split(' ').nth(40).expect("a word").as_bytes().to_vec();
    let at = bytes.windows(word.len()).position(|window| window == word).expect("a passage is stored as it is");
    bytes[at] ^= 1;
    damaged.overwrite(&segment, bytes.clone());
    let (mut writer, reader, report) = open_mem(&damaged).expect("opened");
    assert_eq!(report.damage, []);
    while writer.sweep().expect("swept") {}
    let (mut excluded, mut steps) = (BTreeSet::new(), 0);
    loop {
        match reader.compact(&limits(&reader), &excluded, &|_| false, &|_| Some(())) {
            Ok(Some(_)) => steps += 1,
            Ok(None) => break,
            Err(CompactError::Read { segment, source }) => {
                assert_eq!((segment, source.is_damage()), (Lsn(1), true));
                assert!(excluded.insert(segment), "it is tried once");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(steps > 0 && excluded.len() == 1, "{steps} steps, {excluded:?} excluded");
    assert_eq!(compact_all(&reader).expect("it is known now, and left alone"), 0);
    assert_eq!((damaged.bytes(&segment), contents(&reader)), (bytes, expected));
    // The others have lost what was dead, as without the damage.
    let (mut writer, sound, _) = open_mem(&disk).expect("opened");
    while writer.sweep().expect("swept") {}
    let first = sound.sealed_segments()[0].bytes;
    compact_all(&sound).expect("compacted");
    assert!(reader.log_bytes() < sound.log_bytes() + first + (4 << 10));
}

#[test]
fn segments_are_replaced_only_with_permission() {
    let disk = MemDisk::new();
    let (_writer, reader, _) = churned(&disk);
    let before: Vec<(PathBuf, Vec<u8>)> =
        disk.paths().into_iter().map(|path| (path.clone(), disk.bytes(&path))).collect();
    let asked = std::cell::Cell::new(Lsn::ZERO);
    let refusal = reader.compact(&limits(&reader), &BTreeSet::new(), &|_| false, &|end| {
        asked.set(end);
        None::<()>
    });
    assert!(matches!(refusal, Err(CompactError::Held)), "{refusal:?}");
    assert!(asked.get() > Lsn(1) && asked.get() <= reader.last().next());
    let after: Vec<(PathBuf, Vec<u8>)> =
        disk.paths().into_iter().map(|path| (path.clone(), disk.bytes(&path))).collect();
    assert_eq!(after, before);
    assert!(compact_all(&reader).expect("permitted") > 0);
}

#[test]
fn replaced_segments_are_open_until_no_request_reads_them() {
    let disk = MemDisk::new();
    let (_writer, reader, _) = churned(&disk);
    assert_eq!(reader.drop_retired(), None);
    compact(&reader, &limits(&reader)).expect("compacted").expect("something to do");
    assert!(reader.drop_retired().is_some_and(|left| left > Duration::ZERO), "they are left for a while");
}
