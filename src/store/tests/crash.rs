//! Power cuts, failing disks, decayed bytes.

use super::super::disk_test::Failure;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// Requests of one group; each is a list of (document, number of chunks).
    Commit(Vec<Vec<(u8, u8)>>),
    /// A power cut; the bits say which unsynced pieces survive.
    Crash(Vec<bool>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let request = vec((0_u8..6, 0_u8..4), 1..4);
    prop_oneof![
        3 => vec(request, 1..4).prop_map(Step::Commit),
        1 => vec(any::<bool>(), 1..40).prop_map(Step::Crash),
    ]
}

/// Makes requests whose every document differs from all before, so that each leaves a record.
struct Maker {
    collection: CollectionId,
    made: u32,
}

impl Maker {
    fn group(&mut self, group: &[Vec<(u8, u8)>]) -> Vec<WriteRequest> {
        group.iter().map(|documents| self.request(documents)).collect()
    }

    fn request(&mut self, documents: &[(u8, u8)]) -> WriteRequest {
        let put_one = |(id, chunks): &(u8, u8)| {
            self.made += 1;
            let texts: Vec<String> = (0..*chunks).map(|n| format!("{} {n} {}", self.made, "pad ".repeat(90))).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut new = document(self.collection, &format!("d{id}"), &texts);
            new.content_digest = Digest::of(&self.made.to_le_bytes());
            put(new)
        };
        request(documents.iter().map(put_one).collect())
    }
}

/// What a request's documents are recognised by in the log.
fn marks(request: &WriteRequest) -> Vec<Digest> {
    let put = |operation: &Operation| match operation {
        Operation::PutDocument(document) => Some(document.content_digest),
        _ => None,
    };
    request.operations.iter().filter_map(put).collect()
}

/// Digests of all documents in the log, in order. Every document must be complete.
fn written(reader: &Reader) -> Vec<Digest> {
    let put = |change: Change| match change.kind {
        ChangeKind::DocumentPut { document, bodies, .. } => {
            assert_eq!(document.chunks.len(), bodies.len());
            for (chunk, body) in document.chunks.iter().zip(&bodies) {
                assert_eq!(chunk.digest, body.digest);
                assert_eq!(body.digest, Digest::of(body.text.as_bytes()));
            }
            Some(document.content_digest)
        }
        _ => None,
    };
    changes(reader).into_iter().filter_map(put).collect()
}

/// The requests with an unknown outcome must be there in order, each complete, up to one of them.
fn reconcile(found: &[Digest], acknowledged: &mut Vec<Digest>, unknown: &[WriteRequest]) {
    assert!(found.starts_with(acknowledged), "an acknowledged write is gone");
    let mut rest = &found[acknowledged.len()..];
    for request in unknown {
        let marks = marks(request);
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix(&*marks).expect("whole requests in their order");
    }
    assert!(rest.is_empty(), "something was invented");
    *acknowledged = found.to_vec();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// After a power cut in the middle of an append the log contains every acknowledged request, and only complete ones
    /// beyond.
    #[test]
    fn a_crash_keeps_whole_requests_in_order(steps in vec(any_step(), 1..24)) {
        let mut disk = MemDisk::new();
        let (mut writer, mut reader, _) = open_mem(&disk).expect("opened");
        let mut maker = Maker { collection: new_collection(&mut writer, "docs"), made: 0 };
        let mut acknowledged = Vec::new();
        for step in steps {
            match step {
                Step::Commit(group) => {
                    let group = maker.group(&group);
                    acknowledged.extend(group.iter().flat_map(marks));
                    writer.commit(group).expect("committed");
                }
                Step::Crash(bits) => {
                    // The append that the power cut interrupts: its sync never comes.
                    let calls = bits.len() as u64 % 9;
                    disk.fail_at(calls, Failure::Io);
                    let mut unknown = Vec::new();
                    for _ in 0..9 {
                        let group = maker.group(&[vec![(0, 2), (1, 1)], vec![(2, 3)]]);
                        if writer.commit(group.clone()).is_ok() {
                            acknowledged.extend(group.iter().flat_map(marks));
                        } else {
                            unknown = group;
                            break;
                        }
                    }
                    let mut bits = bits.iter().cycle();
                    disk = disk.power_cut(|| *bits.next().expect("endless"));
                    let report;
                    (writer, reader, report) = open_mem(&disk).expect("opened");
                    prop_assert_eq!(report.damage, []);
                    reconcile(&written(&reader), &mut acknowledged, &unknown);
                }
            }
            prop_assert_eq!(&written(&reader), &acknowledged);
        }
        // What a process crash leaves: everything that was written.
        let (_, reader, report) = open_mem(&disk).expect("opened");
        prop_assert_eq!((report.torn_bytes, written(&reader)), (0, acknowledged));
    }
}

/// Runs a fixed history on a disk whose call number `call` fails, then cuts the power or not, and reopens.
fn fail_once(call: u64, failure: Failure, keep: Option<bool>) -> bool {
    let disk = MemDisk::new();
    disk.fail_at(call, failure);
    let mut acknowledged = Vec::new();
    let mut unknown = Vec::new();
    let mut failed = true;
    if let Ok((mut writer, reader, _)) = open_mem(&disk)
        && let Ok(committed) = writer.commit(vec![request(vec![create("docs")])])
    {
        let Outcome::CollectionCreated(collection) = committed.outcomes[0][0] else { panic!("it is new") };
        let mut maker = Maker { collection, made: 0 };
        failed = false;
        for _ in 0..12 {
            let group = maker.group(&[vec![(0, 2), (1, 1)], vec![(2, 2)]]);
            match writer.commit(group.clone()) {
                Ok(_) => acknowledged.extend(group.iter().flat_map(marks)),
                Err(CommitError::DiskFull { .. }) => {
                    assert_eq!(failure, Failure::Full);
                    failed = true;
                }
                Err(CommitError::ReadOnly { .. }) => assert!(matches!(reader.state(), WriterState::ReadOnly { .. })),
                Err(CommitError::Write { .. }) => {
                    failed = true;
                    unknown = group;
                }
                Err(
                    error @ (CommitError::Catalog { .. }
                    | CommitError::QuotaReached { .. }
                    | CommitError::NoFiles { .. }),
                ) => panic!("{error}"),
            }
            assert_eq!(written(&reader), acknowledged, "reads go on");
        }
    }
    let disk = keep.map_or_else(|| disk.clone(), |keep| disk.power_cut(|| keep));
    disk.fail_at(u64::MAX, Failure::Io);
    let (mut writer, reader, report) = open_mem(&disk).expect("opened");
    assert_eq!(report.damage, []);
    reconcile(&written(&reader), &mut acknowledged, &unknown);
    new_collection(&mut writer, "it goes on");
    let mattered = failed || disk.calls() == 0;
    drop((writer, reader));
    // What the failure kept from the disk must not affect later writes.
    let (_, reader, report) = open_mem(&disk.power_cut(|| false)).expect("opened");
    assert_eq!((report.damage, written(&reader)), (vec![], acknowledged));
    assert!(reader.collections().iter().any(|info| info.name == "it goes on"));
    mattered
}

#[test]
fn a_failure_of_any_one_call_loses_nothing_acknowledged() {
    for failure in [Failure::Io, Failure::Full] {
        for keep in [None, Some(true), Some(false)] {
            // After the last call nothing fails: the whole history was covered. Some calls may fail without harm.
            let harmed = (0..120).filter(|call| fail_once(*call, failure, keep)).count();
            assert!(harmed > 25, "{harmed} calls mattered");
        }
    }
}

#[test]
fn a_crash_leaves_a_write_with_its_answer_or_neither() {
    // Wherever the append is torn, and whatever part of it the disk kept.
    let (mut with, mut without) = (0, 0);
    for call in 0..4 {
        for kept in 0..64_u32 {
            let disk = MemDisk::new();
            let (mut writer, _, _) = open_mem(&disk).expect("opened");
            let collection = new_collection(&mut writer, "docs");
            let long = "pad ".repeat(400);
            let add = || once("key", &[7; 900], vec![put(document(collection, "a", &["x", &long]))]);
            disk.fail_at(call, Failure::Io);
            let is_acknowledged = writer.commit(vec![add()]).is_ok();
            let mut bit = 0;
            let disk = disk.power_cut(|| {
                bit += 1;
                kept >> (bit % 6) & 1 == 1
            });
            let (mut writer, reader, _) = open_mem(&disk).expect("opened");
            let is_there = reader.lookup(collection, "a").expect("looked up").is_some();
            assert_eq!(reader.remembered("key").expect("asked").is_some(), is_there, "call {call}, kept {kept:06b}");
            assert!(is_there || !is_acknowledged);
            // The retry is answered as the first one would have been.
            let retry = writer.commit(vec![add()]).expect("committed");
            assert_eq!(retry.answers[0].as_deref(), Some(&[7; 900][..]));
            assert_eq!(retry.outcomes[0].is_empty(), is_there);
            *(if is_there { &mut with } else { &mut without }) += 1;
        }
    }
    assert!(with > 0 && without > 0, "{with} {without}");
}

#[test]
fn an_append_whose_sync_failed_is_written_again_before_the_next_one() {
    let disk = MemDisk::new();
    let (mut writer, _, _) = open_mem(&disk).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    // An append is a write and a sync here, as the space is reserved.
    disk.fail_at(1, Failure::Io);
    writer.commit(vec![request(vec![put(document(collection, "a", &["x"]))])]).expect_err("the sync fails");
    let (mut writer, _, _) = open_mem(&disk).expect("opened");
    disk.fail_at(u64::MAX, Failure::Io);
    run(&mut writer, put(document(collection, "b", &["y"])));
    assert_eq!(disk.calls(), 4, "write, sync, write, sync");
}

/// A log of several segments with every kind of record.
fn small_log() -> (MemDisk, Vec<Change>) {
    let disk = MemDisk::new();
    let (mut writer, reader, _) = open_mem(&disk).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    let long = "word ".repeat(300);
    for id in ["a", "b", "c"] {
        let text = format!("{id} {}", "filler".repeat(60));
        run(&mut writer, put(document(collection, id, &[&text, "shared", &long])));
        writer.commit(vec![once(id, &[7; 900], Vec::new())]).expect("committed");
    }
    run(&mut writer, put(document(collection, "a", &["new"])));
    run(&mut writer, Operation::DeleteDocument { collection, id: "b".to_owned(), if_version: None });
    new_collection(&mut writer, "other");
    (disk, changes(&reader))
}

#[test]
fn a_flipped_byte_anywhere_is_survived_and_never_believed() {
    let (disk, before) = small_log();
    let segments: Vec<PathBuf> =
        disk.paths().into_iter().filter(|path| path.parent() == Some(Path::new("/data/log"))).collect();
    assert!(segments.iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).count() > 1);
    for path in segments {
        let original = disk.bytes(&path);
        let used = original.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in 0..used {
            for indexed in [true, false] {
                let copy = disk.power_cut(|| true);
                if !indexed {
                    copy.paths()
                        .iter()
                        .filter(|path| path.extension().is_some_and(|ext| ext == "idx"))
                        .for_each(|path| copy.remove(path).expect("removed"));
                    if path.extension().is_some_and(|ext| ext == "idx") {
                        continue;
                    }
                }
                let mut bytes = original.clone();
                bytes[at] ^= 0x10;
                copy.overwrite(&path, bytes);
                let (mut writer, reader, report) = open_mem(&copy).expect("one byte never closes the store");
                let mut missing = 0;
                for change in reader.changes_after(Lsn::ZERO) {
                    match change {
                        Ok(change) => {
                            let same = before.iter().find(|known| known.lsn == change.lsn).expect("not invented");
                            check_not_wrong(same, &change);
                            missing += usize::from(*same != change);
                        }
                        Err(error) => assert!(error.is_damage(), "{error}"),
                    }
                }
                let complete = missing == 0 && changes_count(&reader) == before.len();
                let told = report.torn_bytes > 0 || !reader.damage().is_empty();
                assert!(complete || told, "{} byte {at}: lost in silence", path.display());
                new_collection(&mut writer, "it goes on");
            }
        }
    }
}

fn changes_count(reader: &Reader) -> usize {
    reader.changes_after(Lsn::ZERO).filter(Result::is_ok).count()
}

/// A document may come without its damaged chunks, and otherwise as it was.
fn check_not_wrong(known: &Change, found: &Change) {
    let (
        ChangeKind::DocumentPut { document, bodies, .. },
        ChangeKind::DocumentPut { document: found_document, bodies: found_bodies, .. },
    ) = (&known.kind, &found.kind)
    else {
        assert_eq!(known, found);
        return;
    };
    assert_eq!(document.id, found_document.id);
    assert_eq!(found_document.chunks.len(), found_bodies.len());
    assert!(found_document.chunks.iter().all(|chunk| document.chunks.contains(chunk)));
    assert!(found_bodies.iter().all(|body| bodies.contains(body)));
}

#[test]
fn a_missing_segment_is_named_and_the_rest_is_read() {
    let (disk, _) = small_log();
    let mut segments: Vec<PathBuf> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect();
    segments.sort();
    disk.remove(&segments[0]).expect("removed");
    let (_, reader, report) = open_mem(&disk).expect("opened");
    assert_eq!((report.damage[0].what, &report.damage[0].path), ("segment missing", &segments[0]));
    assert!(matches!(reader.changes_after(Lsn::ZERO).next(), Some(Err(ReadError::Lost { first: Lsn(1), .. }))));
    assert!(changes_count(&reader) > 0);
    let recovered = reader.collections().into_iter().find(|info| info.id.0 == Lsn(1)).expect("its documents are left");
    assert_eq!(recovered.name, "recovered-1");
}

#[test]
fn a_foreign_or_renamed_or_newer_segment_is_refused() {
    let (disk, _) = small_log();
    let (foreign, _) = small_log();
    let last = disk.paths().into_iter().rfind(|path| path.extension().is_some_and(|ext| ext == "seg")).expect("there");
    let original = disk.bytes(&last);
    disk.overwrite(&last, foreign.bytes(&last));
    assert!(matches!(open_mem(&disk), Err(OpenError::ForeignSegment { .. })));
    disk.overwrite(&last, disk.bytes(Path::new("/data/log/00000000000000000001.seg")));
    assert!(matches!(open_mem(&disk), Err(OpenError::MisnamedSegment { first: Lsn(1), .. })));
    let mut newer = original;
    (newer[8], newer[128 + 8]) = (3, 3);
    disk.overwrite(&last, newer);
    let error = open_mem(&disk).err().expect("refused").to_string();
    assert!(error.contains("in segment format 3; this release reads formats 1 to 2: upgrade Cairn"), "{error}");
}
