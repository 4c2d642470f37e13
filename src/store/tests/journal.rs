//! Journals: whatever the disk loses or refuses, exactly what was synced is there.

use super::super::disk_test::Failure;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const KIND: u8 = 77;

fn config(dir: &Path) -> JournalConfig {
    JournalConfig {
        dir: dir.to_owned(),
        node: NodeId([7; 16]),
        segment_bytes: 4 << 10,
        reserve_bytes: 0,
        max_bytes: 0,
        clock: TestClock::at(1_000),
    }
}

fn open_mem(disk: &MemDisk) -> Result<(Journal, JournalReport), OpenError> {
    Journal::open_on(Arc::new(disk.clone()), None, config(Path::new("/data/audit")))
}

/// Long enough that segments fill; never the same twice.
fn text(number: u32) -> Vec<u8> {
    format!("{number} {}", "who did what ".repeat(number as usize % 40)).into_bytes()
}

/// Every entry from the beginning on, in pages; nothing may be lost.
fn all(reader: &JournalReader) -> Vec<(Lsn, Vec<u8>)> {
    let (mut found, mut from) = (Vec::new(), Lsn::ZERO);
    loop {
        let page = reader.read(from, 7, 1 << 20).expect("readable");
        assert_eq!(page.lost, []);
        assert!(page.entries.len() <= 7);
        if page.entries.is_empty() {
            assert_eq!(page.next, reader.last().next());
            return found;
        }
        assert!(page.entries.iter().all(|entry| (entry.kind, entry.time) == (KIND, UnixMillis(1_000))));
        found.extend(page.entries.into_iter().map(|entry| (entry.lsn, entry.payload)));
        from = page.next;
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Sync,
    Rotate,
    /// Cuts after so many tenths of what is there.
    Cut(u8),
    /// A power cut, in the middle of a sync; the bits say which unsynced pieces survive.
    Crash(Vec<bool>),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u8..30).prop_map(Step::Append),
        3 => Just(Step::Sync),
        1 => Just(Step::Rotate),
        1 => (0_u8..11).prop_map(Step::Cut),
        1 => vec(any::<bool>(), 1..40).prop_map(Step::Crash),
    ]
}

/// What a journal has to hold.
#[derive(Default)]
struct Expected {
    synced: Vec<(Lsn, Vec<u8>)>,
    waiting: Vec<(Lsn, Vec<u8>)>,
    made: u32,
}

impl Expected {
    fn append(&mut self, journal: &mut Journal, count: u8) -> Result<(), JournalError> {
        for _ in 0..count {
            let payload = text(self.made);
            self.made += 1;
            let lsn = journal.append(KIND, &payload)?;
            self.waiting.push((lsn, payload));
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        self.synced.append(&mut self.waiting);
    }

    /// After a crash: what was synced, and the first few of the waiting entries.
    fn reconcile(&mut self, found: Vec<(Lsn, Vec<u8>)>, begin: Lsn) {
        self.synced.retain(|(lsn, _)| *lsn >= begin);
        assert!(found.starts_with(&self.synced), "what was synced is gone");
        assert!(self.waiting.starts_with(&found[self.synced.len()..]), "something was invented");
        self.synced = found;
        self.waiting.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_keeps_what_was_synced(steps in vec(any_step(), 1..40)) {
        let mut disk = MemDisk::new();
        let (mut journal, _) = open_mem(&disk).expect("opened");
        let mut expected = Expected::default();
        for step in steps {
            match step {
                Step::Append(count) => expected.append(&mut journal, count).expect("taken"),
                Step::Sync => {
                    let last = journal.sync().expect("synced");
                    expected.acknowledge();
                    prop_assert_eq!(Lsn(u64::from(expected.made)).min(last), last);
                }
                Step::Rotate => {
                    journal.rotate().expect("sealed");
                    expected.acknowledge();
                }
                Step::Cut(tenths) => {
                    let (begin, last) = (journal.reader().first_lsn().0, journal.reader().last().0);
                    let before = Lsn(begin + (last + 1 - begin) * u64::from(tenths) / 10);
                    let begin = journal.cut(before).expect("cut");
                    prop_assert!(begin <= before && begin == journal.reader().first_lsn());
                    expected.synced.retain(|(lsn, _)| *lsn >= begin);
                }
                Step::Crash(bits) => {
                    disk.fail_at(bits.len() as u64 % 7, Failure::Io);
                    let failed = (0..9).find_map(|number| {
                        expected.append(&mut journal, 5).expect("taken");
                        let done = match number % 3 {
                            0 => journal.sync(),
                            1 => journal.rotate(),
                            _ => journal.sync().and_then(|last| journal.cut(Lsn(last.0 / 2))),
                        };
                        let is_synced = journal.reader().last() >= expected.waiting.last().expect("appended").0;
                        if is_synced {
                            expected.acknowledge();
                        }
                        done.err()
                    });
                    if failed.is_some() {
                        let refusal = journal.append(KIND, b"");
                        prop_assert!(matches!(refusal, Err(JournalError::ReadOnly { .. })), "it was taken");
                    }
                    let mut bits = bits.iter().cycle();
                    disk = disk.power_cut(|| *bits.next().expect("endless"));
                    let report;
                    (journal, report) = open_mem(&disk).expect("opened");
                    prop_assert_eq!(report.damage, []);
                    expected.reconcile(all(journal.reader()), report.begin);
                    expected.made = journal.reader().last().0 as u32;
                }
            }
            let begin = journal.reader().first_lsn();
            expected.synced.retain(|(lsn, _)| *lsn >= begin);
            prop_assert_eq!(&all(journal.reader()), &expected.synced);
        }
        drop(journal);
        let (journal, report) = open_mem(&disk).expect("opened");
        prop_assert_eq!((report.torn_bytes, report.damage, all(journal.reader())), (0, vec![], expected.synced));
    }
}

#[test]
fn a_failure_of_any_one_call_loses_nothing_that_was_synced() {
    for failure in [Failure::Io, Failure::Full] {
        for keep in [None, Some(true), Some(false)] {
            let mut harmed = 0;
            for call in 0..80 {
                let disk = MemDisk::new();
                disk.fail_at(call, failure);
                let mut expected = Expected::default();
                let mut begin = Lsn(1);
                if let Ok((mut journal, _)) = open_mem(&disk) {
                    for round in 0..12 {
                        let taken = expected.append(&mut journal, 9);
                        let done = taken.and_then(|()| journal.sync()).and_then(|_| {
                            expected.acknowledge();
                            if round % 4 == 3 { journal.cut(Lsn(journal.reader().last().0 / 2)) } else { Ok(begin) }
                        });
                        match done {
                            Ok(cut) => begin = cut,
                            Err(JournalError::DiskFull { .. }) => harmed += 1,
                            Err(JournalError::Write { .. }) => {
                                harmed += 1;
                                break;
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                let disk = keep.map_or_else(|| disk.clone(), |keep| disk.power_cut(|| keep));
                disk.fail_at(u64::MAX, Failure::Io);
                let (mut journal, report) = open_mem(&disk).expect("opened");
                assert_eq!(report.damage, [], "call {call}");
                assert!(report.begin >= begin, "call {call}: it was cut");
                expected.reconcile(all(journal.reader()), report.begin);
                expected.append(&mut journal, 1).expect("taken");
                journal.sync().expect("it goes on");
                expected.acknowledge();
                drop(journal);
                let (journal, _) = open_mem(&disk.power_cut(|| false)).expect("opened");
                assert_eq!(all(journal.reader()), expected.synced, "call {call}");
            }
            assert!(harmed > 15, "{harmed} calls mattered");
        }
    }
}

/// A journal of several segments, cut in front.
fn filled() -> (MemDisk, Vec<(Lsn, Vec<u8>)>) {
    let disk = MemDisk::new();
    let (mut journal, _) = open_mem(&disk).expect("opened");
    let mut expected = Expected::default();
    for _ in 0..20 {
        expected.append(&mut journal, 6).expect("taken");
        journal.sync().expect("synced");
        expected.acknowledge();
    }
    let begin = journal.cut(Lsn(40)).expect("cut");
    assert!(begin > Lsn(1), "there is something to cut off");
    expected.synced.retain(|(lsn, _)| *lsn >= begin);
    (disk, expected.synced)
}

#[test]
fn a_flipped_byte_is_named_and_never_read_as_an_entry() {
    let (disk, expected) = filled();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "seg");
    for path in disk.paths().into_iter().filter(is_segment) {
        let bytes = disk.bytes(&path);
        for at in (0..bytes.len()).step_by(11) {
            let damaged = disk.power_cut(|| true);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            damaged.overwrite(&path, flipped);
            let (journal, report) = open_mem(&damaged).expect("opened");
            let page = journal.reader().read(Lsn::ZERO, usize::MAX, usize::MAX).expect("read");
            let mut lost = 0;
            for (lsn, payload) in &expected {
                match page.entries.iter().find(|entry| entry.lsn == *lsn) {
                    Some(entry) => assert_eq!(&entry.payload, payload),
                    None => lost += 1,
                }
            }
            // The end of the last append cannot be distinguished from an interrupted one.
            let is_named = !journal.reader().damage().is_empty() || report.torn_bytes > 0;
            assert!(lost == 0 || is_named, "byte {at} of {}: {lost} are missing in silence", path.display());
        }
    }
}

#[test]
fn entries_that_somebody_removed_are_named_and_those_that_were_cut_off_are_not() {
    let (disk, expected) = filled();
    let (journal, report) = open_mem(&disk).expect("opened");
    assert_eq!((report.begin, report.damage.len()), (expected[0].0, 0));
    assert_eq!(journal.reader().read(Lsn(1), 1, 1).expect("read").entries[0].lsn, report.begin);
    drop(journal);
    let first = log::segment_path(Path::new("/data/audit"), report.begin);
    disk.remove(&first).expect("there");
    let (journal, after) = open_mem(&disk).expect("opened");
    assert_eq!(
        (after.damage[0].what, after.damage[0].records.map(|(first, _)| first)),
        ("segment missing", Some(report.begin))
    );
    let page = journal.reader().read(Lsn::ZERO, usize::MAX, usize::MAX).expect("read");
    assert_eq!(page.lost[0].0, report.begin);
    let left = expected.len() - page.entries.len();
    assert_eq!(page.lost[0].1.0 - page.lost[0].0.0 + 1, left as u64);
    // Without the mark, entries that were cut cannot be distinguished from entries that someone removed.
    drop(journal);
    let mark = Path::new("/data/audit/begin");
    let mut bytes = disk.bytes(mark);
    bytes[3] ^= 1;
    disk.overwrite(mark, bytes);
    let (_, report) = open_mem(&disk).expect("opened");
    assert_eq!(report.damage[0].records.map(|(first, _)| first), Some(Lsn(1)));
}

#[test]
fn a_cut_hides_nothing_that_somebody_removed() {
    let (disk, expected) = filled();
    let begin = expected[0].0;
    disk.remove(&log::segment_path(Path::new("/data/audit"), begin)).expect("there");
    let (mut journal, report) = open_mem(&disk).expect("opened");
    assert_eq!(report.damage[0].what, log::SEGMENT_MISSING);
    for before in [Lsn(1), begin, begin.next()] {
        assert_eq!(journal.cut(before).expect("cut"), begin, "there is nothing before {before} to cut");
    }
    drop(journal);
    let (mut journal, again) = open_mem(&disk).expect("opened");
    assert_eq!((again.begin, again.damage), (begin, report.damage));
    // What is missing can be cut like everything else.
    let cut = journal.cut(journal.reader().last()).expect("cut");
    assert!(cut > begin);
    drop(journal);
    let (_, last) = open_mem(&disk).expect("opened");
    assert_eq!((last.begin, last.damage), (cut, Vec::new()));
}

#[test]
fn segments_that_somebody_removed_at_the_end_are_named_and_their_positions_are_not_used_again() {
    let (disk, expected) = filled();
    let last = expected.last().expect("filled").0;
    let segments: Vec<PathBuf> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect();
    assert!(segments.len() > 2);
    let first_of =
        |path: &Path| -> u64 { path.file_stem().and_then(|name| name.to_str()?.parse().ok()).expect("a segment") };
    let active = first_of(segments.last().expect("some"));
    for removed in 1..=segments.len() {
        let disk = disk.power_cut(|| true);
        segments.iter().rev().take(removed).for_each(|path| disk.remove(path).expect("there"));
        for opening in 0..2 {
            let (mut journal, report) = open_mem(&disk).expect("opened");
            let named = report.damage.iter().any(|damage| match damage.records {
                Some((_, end)) => end.next() == Lsn(active),
                None => damage.path == segments[segments.len() - 1],
            });
            assert!(named, "{removed} removed, opening {opening}: {:?}", report.damage);
            assert_eq!(report.last.next(), Lsn(active), "what was sealed is not written again");
            journal.append(KIND, b"later").expect("taken");
            assert_eq!(journal.sync().expect("synced"), Lsn(active));
            // As it was.
            drop(journal);
            if removed == 1 || opening == 1 {
                break;
            }
            disk.remove(&log::segment_path(Path::new("/data/audit"), Lsn(active))).expect("there");
        }
    }
    assert!(last >= Lsn(active));
}

#[test]
fn a_mark_that_cannot_be_read_is_no_missing_mark_and_nothing_is_changed_before_the_format_is_known() {
    let directory = tempfile::tempdir().expect("made");
    let dir = directory.path().join("audit");
    let (mut journal, _) = Journal::open(config(&dir)).expect("opened");
    for _ in 0..3 {
        journal.append(KIND, b"entry").expect("taken");
        journal.rotate().expect("sealed");
    }
    drop(journal);
    let names = || {
        let mut names = RealDisk.list(&dir).expect("listed");
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        names
    };
    let before = names();
    let mark = dir.join("begin");
    let whole = fs::read(&mark).expect("there is one");
    // As an interrupted cut leaves it; and the last segment is of a newer release.
    fs::write(&mark, disk::checked_line("3 4")).expect("written");
    let segment = log::segment_path(&dir, Lsn(4));
    let sound = fs::read(&segment).expect("read");
    let mut newer = sound.clone();
    (newer[8], newer[128 + 8]) = (9, 9);
    fs::write(&segment, newer).expect("written");
    fs::write(dir.join("00000000000000000001.seg.tmp"), b"").expect("written");
    assert!(matches!(Journal::open(config(&dir)), Err(OpenError::Format { .. })));
    assert_eq!(names(), before);
    assert!(dir.join("00000000000000000001.seg.tmp").exists());
    fs::write(&segment, sound).expect("written");
    // A link is not followed: an error other than that there is none.
    fs::remove_file(&mark).expect("removed");
    std::os::unix::fs::symlink("nowhere", &mark).expect("linked");
    assert!(matches!(Journal::open(config(&dir)), Err(OpenError::Read { path, .. }) if path == mark));
    fs::remove_file(&mark).expect("removed");
    fs::write(&mark, disk::checked_line("3")).expect("of a release that marked only the beginning");
    let (journal, report) = Journal::open(config(&dir)).expect("opened");
    assert_eq!((report.begin, report.last, report.damage), (Lsn(3), Lsn(3), Vec::new()));
    assert_eq!(names(), before[2..], "the cut was finished");
    drop(journal);
    assert_eq!(disk::text_in(&whole), Some("1 4"));
}

/// A reader in the middle of a page, while another thread cuts.
#[test]
fn entries_that_are_cut_while_somebody_reads_are_not_lost() {
    let disk = MemDisk::new();
    let (mut journal, _) = open_mem(&disk).expect("opened");
    let reader = journal.reader().clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let page = reader.read(Lsn(1), 100, 1 << 20).expect("readable");
                    assert_eq!(page.lost, []);
                }
            });
        }
        for _ in 0..2_000 {
            journal.append(KIND, b"entry").expect("taken");
            let last = journal.rotate().expect("sealed");
            journal.cut(last).expect("cut");
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(reader.damage(), []);
}

#[test]
fn a_page_is_bounded_by_entries_and_by_bytes() {
    let disk = MemDisk::new();
    let (mut journal, _) = open_mem(&disk).expect("opened");
    for number in 0..10_u8 {
        journal.append(KIND, &[number; 100]).expect("taken");
    }
    assert_eq!(journal.reader().read(Lsn::ZERO, 10, 1 << 20).expect("read").entries, [], "not before the sync");
    assert_eq!(journal.sync().expect("synced"), Lsn(10));
    let page = |from, most, bytes| {
        let page = journal.reader().read(Lsn(from), most, bytes).expect("read");
        (page.entries.len(), page.next)
    };
    assert_eq!(page(1, 4, usize::MAX), (4, Lsn(5)));
    assert_eq!(page(5, usize::MAX, 250), (3, Lsn(8)), "the one that reaches the limit is the last");
    assert_eq!(page(8, usize::MAX, 1), (1, Lsn(9)));
    assert_eq!(page(9, 100, usize::MAX), (2, Lsn(11)));
    assert_eq!(page(11, 100, usize::MAX), (0, Lsn(11)));
    assert_eq!(page(99, 100, usize::MAX), (0, Lsn(99)));
}

#[test]
fn what_waits_survives_a_full_disk_and_can_be_given_up() {
    let disk = MemDisk::new();
    let full = JournalConfig { reserve_bytes: 1 << 20, ..config(Path::new("/data/audit")) };
    let (mut journal, _) = Journal::open_on(Arc::new(disk.clone()), None, full).expect("opened");
    journal.append(KIND, b"one").expect("taken");
    disk.set_free(1 << 10);
    assert!(matches!(journal.sync(), Err(JournalError::DiskFull { .. })));
    disk.set_free(1 << 30);
    assert_eq!(journal.sync().expect("there is room"), Lsn(1));
    assert_eq!(journal.append(KIND, b"two").expect("taken"), Lsn(2));
    journal.discard();
    assert_eq!(journal.append(KIND, b"three").expect("taken"), Lsn(2), "nobody was told of the other");
    journal.sync().expect("synced");
    assert_eq!(
        all(journal.reader()).into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(),
        [&b"one"[..], b"three"]
    );
    assert!(matches!(journal.append(KIND, &vec![0; (64 << 20) + 1]), Err(JournalError::TooLarge { .. })));
}

#[test]
fn many_entries_take_one_sync() {
    let disk = MemDisk::new();
    let (mut journal, _) = open_mem(&disk).expect("opened");
    journal.append(KIND, b"first").expect("taken");
    journal.sync().expect("synced");
    disk.fail_at(u64::MAX, Failure::Io);
    for number in 0..30 {
        journal.append(KIND, &text(number % 3)).expect("taken");
    }
    assert_eq!(disk.calls(), 0, "appending does not touch the disk");
    journal.sync().expect("synced");
    assert_eq!(disk.calls(), 2, "a write and a sync");
}

#[tokio::test]
async fn followers_of_a_journal_learn_of_each_sync() {
    let disk = MemDisk::new();
    let (mut journal, _) = open_mem(&disk).expect("opened");
    let mut follower = journal.reader().positions();
    for number in 1..10 {
        journal.append(KIND, b"entry").expect("taken");
        assert!(!follower.has_changed().expect("open"));
        journal.sync().expect("synced");
        follower.changed().await.expect("open");
        assert_eq!(*follower.borrow_and_update(), Lsn(number));
    }
}

#[test]
fn a_journal_has_one_writer_and_its_format_counts() {
    let directory = tempfile::tempdir().expect("made");
    let dir = directory.path().join("audit");
    let (mut journal, report) = Journal::open(config(&dir)).expect("opened");
    assert_eq!((report.begin, report.last), (Lsn(1), Lsn(0)));
    journal.append(KIND, b"entry").expect("taken");
    journal.sync().expect("synced");
    assert!(matches!(Journal::open(config(&dir)), Err(OpenError::Locked { .. })));
    // A reader alone holds it too: its files must not become another journal's.
    let reader = journal.reader().clone();
    drop(journal);
    assert!(matches!(Journal::open(config(&dir)), Err(OpenError::Locked { .. })));
    drop(reader);
    let (journal, report) = Journal::open(config(&dir)).expect("opened");
    assert_eq!((report.last, all(journal.reader()).len()), (Lsn(1), 1));
    assert_eq!(data_format(directory.path()).expect("read"), Some(FORMAT));
    let segment = log::segment_path(&dir, Lsn(1));
    let mut bytes = fs::read(&segment).expect("read");
    (bytes[8], bytes[128 + 8]) = (9, 9);
    fs::write(&segment, bytes).expect("written");
    assert_eq!(data_format(directory.path()).expect("read"), Some(9), "a rollback is refused for it, too");
    drop(journal);
    let error = Journal::open(config(&dir)).err().expect("refused").to_string();
    assert!(error.contains("in segment format 9; this release reads"), "{error}");
}
