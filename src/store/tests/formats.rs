//! Segments and records of other releases: they are refused by name when not understood, never changed, and never
//! called damaged.

use super::super::compact::CompactionLimits;
use super::super::frame::{END_OF_BATCH, FrameHeader, HeaderCheck, SEGMENT_START, SKIPPABLE, SegmentHeader};
use super::*;

/// A kind that this release does not know.
const COMING: u8 = 200;

fn segment(first: u64) -> PathBuf {
    log::segment_path(Path::new("/data/log"), Lsn(first))
}

fn header_of(disk: &MemDisk, path: &Path) -> SegmentHeader {
    let bytes = disk.bytes(path);
    match SegmentHeader::check(bytes[..SEGMENT_START as usize].try_into().expect("a header")) {
        HeaderCheck::Good { header, .. } => header,
        other => panic!("{other:?}"),
    }
}

/// Gives a segment another format, with right checksums.
fn set_format(disk: &MemDisk, path: &Path, format: u16) {
    let header = SegmentHeader { format, ..header_of(disk, path) };
    let mut bytes = disk.bytes(path);
    bytes[..SEGMENT_START as usize].copy_from_slice(&header.encode());
    disk.overwrite(path, bytes);
}

/// Where the frame of a record is.
fn frame_at(disk: &MemDisk, path: &Path, lsn: Lsn) -> (usize, FrameHeader) {
    let (bytes, salt) = (disk.bytes(path), header_of(disk, path).salt);
    let mut frames = (0..bytes.len()).step_by(8).filter_map(|at| Some((at, FrameHeader::parse(&bytes[at..], salt)?)));
    frames.find(|(_, header)| header.lsn == lsn).expect("it is there")
}

/// The frame of a record as it is stored.
fn frame(disk: &MemDisk, path: &Path, lsn: Lsn) -> Vec<u8> {
    let (at, header) = frame_at(disk, path, lsn);
    disk.bytes(path)[at..at + header.length() as usize].to_vec()
}

/// Gives a record another kind and more flags, with right checksums.
fn set_kind(disk: &MemDisk, path: &Path, lsn: Lsn, kind: u8, flags: u8) {
    let (at, header) = frame_at(disk, path, lsn);
    let header = FrameHeader { kind, flags: header.flags | flags, ..header };
    let (mut bytes, encoded) = (disk.bytes(path), header.encode(header_of(disk, path).salt));
    bytes[at..at + encoded.len()].copy_from_slice(&encoded);
    disk.overwrite(path, bytes);
}

fn note(writer: &mut Writer, collection: CollectionId, key: &str) -> Lsn {
    run(writer, Operation::Note { collection, key: key.to_owned(), value: b"value".to_vec() });
    writer.reader().last()
}

/// A sealed segment from 1 on with a note in it, and one that is being written; the LSNs of the note and of the last record.
fn two_segments(disk: &MemDisk) -> (Lsn, Lsn) {
    let (mut writer, reader, _) = open_mem(disk).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    run(&mut writer, put(document(collection, "a", &["x"])));
    let noted = note(&mut writer, collection, "one");
    run(&mut writer, put(document(collection, "b", &["y"])));
    writer.seal().expect("sealed");
    note(&mut writer, collection, "two");
    (noted, reader.last())
}

/// The same segment as a separate file in `<directory>/log`, as read by snapshots, restores and upgrades.
fn as_file(disk: &MemDisk, path: &Path) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("made");
    fs::create_dir(directory.path().join("log")).expect("made");
    let file = directory.path().join("log").join(path.file_name().expect("a name"));
    fs::write(&file, disk.bytes(path)).expect("written");
    (directory, file)
}

fn contents(reader: &Reader) -> Vec<String> {
    let collections = reader.collections();
    collections
        .iter()
        .flat_map(|info| reader.list(info.id, None, "", usize::MAX).expect("listed"))
        .map(|(id, entry)| {
            let document = reader.document(entry.lsn).expect("readable");
            format!("{id} {}", reader.chunk(document.chunks[0].lsn).expect("readable").text)
        })
        .collect()
}

#[test]
fn a_kind_or_flag_of_a_newer_release_is_refused_by_name_wherever_it_is() {
    for (kind, flags, words) in [(COMING, 0, "is of kind 200"), (0, 0x10, "has the flags 0x10")] {
        for (is_sealed, is_indexed) in [(true, true), (true, false), (false, false)] {
            let disk = MemDisk::new();
            let (noted, last) = two_segments(&disk);
            let (path, lsn) = if is_sealed { (segment(1), noted) } else { (segment(last.0), last) };
            let kind = if kind == 0 { frame_at(&disk, &path, lsn).1.kind } else { kind };
            set_kind(&disk, &path, lsn, kind, flags);
            if is_sealed && !is_indexed {
                disk.remove(&path.with_extension("idx")).expect("there");
            }
            let (before, calls) = (disk.bytes(&path), disk.calls());
            match open_mem(&disk) {
                Err(error @ OpenError::Unknown { .. }) => {
                    assert_eq!(error.fault(), Fault::Environment);
                    let says = error.to_string();
                    let expected = format!(
                        "{}: record {lsn} {words}, which this release does not know: a newer release wrote it; upgrade Cairn, or restore \
                         a snapshot that this release took",
                        path.display()
                    );
                    assert_eq!(says, expected);
                }
                other => panic!("{:?}", other.map(|(_, _, report)| report)),
            }
            assert_eq!(disk.bytes(&path), before, "after {} calls", disk.calls() - calls);
            let (_directory, file) = as_file(&disk, &path);
            let refusal = check_segment(&file).expect_err("refused").to_string();
            assert!(refusal.starts_with(&format!("record {lsn} {words}, ")), "{refusal}");
        }
    }
}

#[test]
fn a_record_that_becomes_unknown_while_the_log_is_open_is_not_damage() {
    let disk = MemDisk::new();
    let (mut writer, reader, _) = open_mem(&disk).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    run(&mut writer, put(document(collection, "a", &["x"])));
    let lsn = reader.last();
    set_kind(&disk, &segment(1), lsn, COMING, 0);
    let refusal = reader.document(lsn).expect_err("it is not known");
    assert!(matches!(&refusal, ReadError::Unknown { unknown, .. } if unknown.lsn == lsn), "{refusal:?}");
    assert_eq!(reader.damage(), []);
    let last = reader.changes_after(Lsn::ZERO).last().expect("changes");
    assert!(matches!(last, Err(ReadError::Unknown { .. })), "nothing comes after what is not understood");
}

/// What a newer release marks as skippable is read past, and compaction copies it byte for byte.
#[test]
fn a_skippable_record_of_a_newer_release_is_kept_as_it_is() {
    let disk = MemDisk::new();
    let (noted, last) = two_segments(&disk);
    set_kind(&disk, &segment(1), noted, COMING, SKIPPABLE);
    set_kind(&disk, &segment(last.0), last, COMING + 1, SKIPPABLE | END_OF_BATCH);
    let kept = [frame(&disk, &segment(1), noted), frame(&disk, &segment(last.0), last)];
    let (mut writer, reader, report) = open_mem(&disk).expect("opened");
    assert_eq!((report.damage, report.torn_bytes, report.last), (Vec::new(), 0, last));
    let collection = reader.collection("docs").expect("there").id;
    assert!(reader.changes_after(Lsn::ZERO).all(|change| change.is_ok()));
    assert_eq!(reader.notes(collection, "").expect("read"), [], "nobody here knows what they are");
    // Everything else in both segments dies.
    for id in ["a", "b"] {
        run(&mut writer, put(document(collection, id, &["new"])));
    }
    writer.seal().expect("sealed");
    note(&mut writer, collection, "end");
    let (floor, before) = (reader.last(), contents(&reader));
    let limits =
        CompactionLimits { floor, segment_bytes: 16 << 10, bytes_per_second: 0, reserve_bytes: 0, erase_within: None };
    let compacted = compact(&reader, &limits).expect("compacted").expect("something to do");
    assert!(compacted.segments > 1 && compacted.records_dropped > 0, "{compacted:?}");
    assert_eq!([noted, last].map(|lsn| frame(&disk, &segment(1), lsn)), kept);
    let (_directory, file) = as_file(&disk, &segment(1));
    assert_eq!(check_segment(&file).expect("read").damage, []);
    drop((writer, reader));
    let (_, reader, report) = open_mem(&disk).expect("opened");
    assert_eq!((report.damage, contents(&reader)), (Vec::new(), before));
}

#[test]
fn a_segment_of_another_format_that_is_read_is_not_written_into() {
    let disk = MemDisk::new();
    let (_, last) = two_segments(&disk);
    set_format(&disk, &segment(1), 2);
    set_format(&disk, &segment(last.0), 2);
    let (directory, file) = as_file(&disk, &segment(1));
    assert_eq!(
        (check_segment(&file).expect("read").format, data_format(directory.path()).expect("read")),
        (2, Some(2))
    );
    let (mut writer, reader, report) = open_mem(&disk).expect("opened");
    assert_eq!((report.damage, report.last), (Vec::new(), last));
    assert_eq!(contents(&reader), ["a x", "b y"]);
    let collection = reader.collection("docs").expect("there").id;
    run(&mut writer, put(document(collection, "c", &["z"])));
    assert_eq!(header_of(&disk, &segment(last.next().0)).format, FORMAT);
    // Frames are copied unchanged, so their segment keeps its format, and formats do not mix.
    for id in ["a", "b", "c"] {
        run(&mut writer, put(document(collection, id, &["new"])));
    }
    writer.seal().expect("sealed");
    note(&mut writer, collection, "end");
    let before = contents(&reader);
    let limits = CompactionLimits {
        floor: reader.last(),
        segment_bytes: 16 << 10,
        bytes_per_second: 0,
        reserve_bytes: 0,
        erase_within: None,
    };
    while compact(&reader, &limits).expect("compacted").is_some() {}
    assert_eq!(header_of(&disk, &segment(1)).format, 2);
    assert_eq!(header_of(&disk, &segment(last.next().0)).format, FORMAT);
    drop((writer, reader));
    let (_, reader, report) = open_mem(&disk).expect("opened");
    assert_eq!((report.damage, contents(&reader)), (Vec::new(), before));
}

/// Whatever call fails, and whatever the disk forgets.
#[test]
fn an_empty_segment_of_another_format_gives_way_to_one_of_this() {
    let clean = MemDisk::new();
    let (epoch, first) = {
        let (mut writer, reader, _) = open_mem(&clean).expect("opened");
        new_collection(&mut writer, "docs");
        writer.seal().expect("sealed");
        (reader.history()[0].id, reader.last().next())
    };
    set_format(&clean, &segment(first.0), 2);
    for call in 0..12 {
        for keep in [true, false] {
            let disk = clean.power_cut(|| true);
            disk.fail_at(call, super::super::disk_test::Failure::Io);
            drop(open_mem(&disk));
            let disk = disk.power_cut(|| keep);
            let (mut writer, reader, report) = open_mem(&disk).expect("opened");
            assert_eq!((report.damage, report.last.next()), (Vec::new(), first), "call {call}");
            new_collection(&mut writer, "more");
            assert_eq!(header_of(&disk, &segment(first.0)).format, FORMAT);
            assert_eq!(reader.history().iter().map(|history| history.id).collect::<Vec<_>>(), [epoch]);
        }
    }
}

#[test]
fn a_format_outside_the_range_is_refused_by_name() {
    for (format, next) in [(3, "upgrade Cairn"), (0, "use a release that reads format 0")] {
        let disk = MemDisk::new();
        let (_, last) = two_segments(&disk);
        for path in [segment(1), segment(last.0)] {
            set_format(&disk, &path, format);
            let before = disk.bytes(&path);
            let error = open_mem(&disk).err().expect("refused").to_string();
            let words = format!("in segment format {format}; this release reads formats 1 to 2: {next}");
            assert!(error.starts_with(&path.display().to_string()) && error.contains(&words), "{error}");
            assert_eq!(disk.bytes(&path), before);
            let (directory, file) = as_file(&disk, &path);
            assert!(check_segment(&file).expect_err("refused").to_string().contains(next));
            assert_eq!(data_format(directory.path()).expect("read"), Some(format));
            set_format_back(&disk, &path, before);
        }
    }
}

/// Undoes [`set_format`] to a format that is not read.
fn set_format_back(disk: &MemDisk, path: &Path, mut bytes: Vec<u8>) {
    let mut one: [u8; SEGMENT_START as usize] = bytes[..SEGMENT_START as usize].try_into().expect("a header");
    for at in [0, SEGMENT_START as usize / 2] {
        one[at + 8] = 1;
        one[at + 12..at + 16].fill(0);
        let crc = crc32c::crc32c(&one[at..at + SEGMENT_START as usize / 2]);
        one[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
    }
    bytes[..SEGMENT_START as usize].copy_from_slice(&one);
    disk.overwrite(path, bytes);
}
