//! Scans one segment from start to end: the positions of its frames, damage, and where a torn tail is cut.
//!
//! Memory: a window of 256 KiB and four bytes for each frame. Time: one pass, even over damage, because a search for
//! the next frame never goes back and a frame with a valid header is skipped by its length.

use std::io;
use std::ops::Range;

use super::disk::DiskFile;
use super::frame::{END_OF_BATCH, FRAME_HEADER, FrameHeader, Kinds, MARKER, SEGMENT_START, Salt, UnknownFrame, array};
use super::frames::Frames;
use crate::base::{Lsn, NodeId};

/// Marks a frame that cannot be read in the list of offsets.
pub(crate) const UNREADABLE: u32 = u32::MAX;

const WINDOW: usize = 256 << 10;

/// A range of bytes without a readable frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRange {
    pub(crate) bytes: Range<u64>,
    /// The records that it contained: first and one past the last; empty when unknown.
    pub(crate) lsns: Range<u64>,
    pub(crate) what: &'static str,
}

/// The content of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Offset ÷ 8 of each frame by LSN, [`UNREADABLE`] for damaged ones.
    pub(crate) offsets: Vec<u32>,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Damage to what was durable.
    pub(crate) damage: Vec<BadRange>,
    /// Bytes after `end` that remain of an append that never became durable.
    pub(crate) torn: u64,
    /// The last append: the only bytes that may be in the kernel's cache and not on the disk.
    pub(crate) unproven: Range<u64>,
    /// The first record that only a newer release understands.
    pub(crate) unknown: Option<UnknownFrame>,
}

/// The segment to scan, and the known facts about it.
pub(crate) struct SegmentSpec {
    pub(crate) salt: Salt,
    pub(crate) kinds: Kinds,
    pub(crate) first: Lsn,
    /// LSN of the first frame of the segment after this one; `None` for the last segment, whose tail may be torn.
    pub(crate) next_segment: Option<Lsn>,
    /// Length of the file in bytes.
    pub(crate) length: u64,
}

/// Scans the segment in `file`. Fails only when the disk does.
pub(crate) fn scan(file: &dyn DiskFile, spec: &SegmentSpec) -> io::Result<Scan> {
    let mut window = Window { file, length: spec.length, start: 0, bytes: Vec::new() };
    let mut progress = Progress::new(spec);
    let mut position = SEGMENT_START;
    loop {
        let expected = progress.expected();
        let here = window.header(position, spec)?.filter(|header| header.lsn.0 == expected);
        let (gap, header) = match here {
            Some(header) => (None, header),
            // A frame is at least 48 bytes long, so the bytes skipped bound how many LSNs may be missing; this also bounds
            // the offsets kept for them.
            None => match window.search(position, spec, |at, header| {
                let missing = header.lsn.0.checked_sub(expected);
                missing.is_some_and(|missing| missing <= (at - position) / FRAME_HEADER as u64)
            })? {
                Search::Found { at, header } => (Some(position..at), header),
                Search::Zeros => return Ok(progress.finish(position, None, spec)),
                Search::Garbage { end } => return Ok(progress.finish(position, Some(position..end), spec)),
            },
        };
        let start = gap.as_ref().map_or(position, |gap| gap.end);
        let payload = start + FRAME_HEADER as u64;
        let whole = window.crc(payload, u64::from(header.stored))? == header.payload_crc;
        progress.frame(start, &header, gap, whole);
        if whole && progress.scan.unknown.is_none() {
            progress.scan.unknown = header.unknown(spec.kinds);
        }
        position = start + header.length();
    }
}

/// The positions of the frames in a compacted segment, and the damage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SparseScan {
    pub(crate) frames: Frames,
    pub(crate) damage: Vec<BadRange>,
    /// As in [`Scan::unknown`].
    pub(crate) unknown: Option<UnknownFrame>,
}

/// Scans a compacted segment, in which LSNs ascend with gaps. Frames follow each other directly, so any other byte is
/// damage; which records it contained is unknown, between the LSNs of its neighbours.
///
/// * `spec.next_segment`: one past the last LSN that the segment covers.
/// * `bytes`: the expected length of the file, if known.
pub(crate) fn scan_compacted(file: &dyn DiskFile, spec: &SegmentSpec, bytes: Option<u64>) -> io::Result<SparseScan> {
    let end = spec.next_segment.expect("a compacted segment is sealed");
    let mut window = Window { file, length: spec.length, start: 0, bytes: Vec::new() };
    let (mut lsns, mut offsets, mut lost, mut damage) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut position = SEGMENT_START;
    let mut expected = spec.first.0;
    let mut unknown = None;
    let fits = |expected: u64, header: &FrameHeader| {
        header.lsn.0 >= expected && u32::try_from(header.lsn.0 - spec.first.0).is_ok()
    };
    while position < spec.length {
        let here = window.header(position, spec)?.filter(|header| fits(expected, header));
        let (at, header) = match here {
            Some(header) => (position, header),
            None => match window.search(position, spec, |_, header| fits(expected, header))? {
                Search::Found { at, header } => {
                    let (bytes, lsns) = (position..at, expected..header.lsn.0);
                    lost.push(lsns.clone());
                    damage.push(BadRange { bytes, lsns, what: "no valid frame header" });
                    (at, header)
                }
                Search::Zeros | Search::Garbage { .. } => {
                    let (bytes, lsns) = (position..spec.length, expected..end.0);
                    lost.push(lsns.clone());
                    damage.push(BadRange { bytes, lsns, what: "no valid frame header" });
                    position = spec.length;
                    break;
                }
            },
        };
        let lsn = header.lsn.0;
        let whole = window.crc(at + FRAME_HEADER as u64, u64::from(header.stored))? == header.payload_crc;
        lsns.push((lsn - spec.first.0) as u32);
        offsets.push(if whole { offset_unit(at) } else { UNREADABLE });
        let next = at + header.length();
        if !whole {
            damage.push(BadRange { bytes: at..next, lsns: lsn..lsn + 1, what: "payload checksum differs" });
        } else if unknown.is_none() {
            unknown = header.unknown(spec.kinds);
        }
        expected = lsn + 1;
        position = next;
    }
    if bytes.is_some_and(|bytes| bytes > position) {
        lost.push(expected..end.0);
        damage.push(BadRange { bytes: position..position, lsns: expected..end.0, what: "records missing" });
    }
    lost.retain(|range| !range.is_empty());
    Ok(SparseScan { frames: Frames::Sparse { lsns, offsets, lost }, damage, unknown })
}

/// Collects frames and decides for each append whether bad bytes are damage or the end of the log.
struct Progress {
    first: u64,
    scan: Scan,
    append: Option<OpenAppend>,
}

/// The append of the most recently read frame.
struct OpenAppend {
    lsn: Lsn,
    start: u64,
    /// Bad ranges that belong to this append if no later append follows.
    bad: Vec<BadRange>,
    /// End of the last complete batch before the first bad range: offset and number of frames.
    cut: (u64, usize),
}

impl Progress {
    fn new(spec: &SegmentSpec) -> Self {
        Self { first: spec.first.0, scan: Scan::default(), append: None }
    }

    fn expected(&self) -> u64 {
        self.first + self.scan.offsets.len() as u64
    }

    /// Adds the next frame with a valid header. `gap` is what was skipped to find it, `whole` whether its payload is
    /// intact.
    fn frame(&mut self, start: u64, header: &FrameHeader, gap: Option<Range<u64>>, whole: bool) {
        let expected = self.expected();
        let before = self.scan.offsets.len();
        let gap = gap.map(|bytes| BadRange { bytes, lsns: expected..header.lsn.0, what: "no valid frame header" });
        let missing = (header.lsn.0 - expected) as usize;
        self.scan.offsets.resize(before + missing, UNREADABLE);
        if self.append.as_ref().is_none_or(|append| append.lsn != header.append) {
            // An append is written only after the previous one was synced, so bad ranges of that one are damage.
            if let Some(previous) = self.append.take() {
                self.scan.damage.extend(previous.bad);
            }
            let began_in_gap = gap.is_some() && header.append < header.lsn;
            let mut append = OpenAppend { lsn: header.append, start, bad: Vec::new(), cut: (start, before + missing) };
            match gap {
                Some(gap) if began_in_gap => {
                    append.start = gap.bytes.start;
                    append.cut = (gap.bytes.start, before);
                    append.bad.push(gap);
                }
                gap => self.scan.damage.extend(gap),
            }
            self.append = Some(append);
        } else if let (Some(append), Some(gap)) = (&mut self.append, gap) {
            append.bad.push(gap);
        }
        let append = self.append.as_mut().expect("set above");
        let end = start + header.length();
        if whole {
            self.scan.offsets.push(offset_unit(start));
        } else {
            self.scan.offsets.push(UNREADABLE);
            append.bad.push(BadRange {
                bytes: start..end,
                lsns: header.lsn.0..header.lsn.0 + 1,
                what: "payload checksum differs",
            });
        }
        if header.flags & END_OF_BATCH != 0 && append.bad.is_empty() {
            append.cut = (end, self.scan.offsets.len());
        }
    }

    /// Ends the scan at `end`; `garbage` is what follows the last frame if that is not zeros.
    fn finish(mut self, end: u64, garbage: Option<Range<u64>>, spec: &SegmentSpec) -> Scan {
        self.scan.end = end;
        if let Some(next) = spec.next_segment {
            self.scan.damage.extend(self.append.take().into_iter().flat_map(|append| append.bad));
            let missing = self.first + (self.scan.offsets.len() as u64)..next.0;
            if garbage.is_some() || !missing.is_empty() {
                let bytes = garbage.unwrap_or(end..end);
                self.scan.end = bytes.end.max(end);
                self.scan.damage.push(BadRange { bytes, lsns: missing, what: "records missing" });
            }
            return self.scan;
        }
        let used = garbage.as_ref().map_or(end, |garbage| garbage.end);
        let append = self.append.take().unwrap_or(OpenAppend {
            lsn: spec.first,
            start: SEGMENT_START,
            bad: Vec::new(),
            cut: (SEGMENT_START, 0),
        });
        // Older records in a gap at the start of the last append had been synced: they are cut with it, but reported.
        for bad in append.bad.iter().filter(|bad| bad.lsns.start < append.lsn.0) {
            let lsns = bad.lsns.start..bad.lsns.end.min(append.lsn.0);
            self.scan.damage.push(BadRange { bytes: bad.bytes.clone(), lsns, what: "no valid frame header" });
        }
        let (cut, frames) = append.cut;
        self.scan.offsets.truncate(frames);
        self.scan.end = cut;
        self.scan.torn = used.saturating_sub(cut);
        self.scan.unproven = append.start.min(cut)..cut;
        let kept = self.first..self.expected();
        self.scan.unknown.take_if(|unknown| !kept.contains(&unknown.lsn.0));
        self.scan
    }
}

enum Search {
    Found {
        at: u64,
        header: FrameHeader,
    },
    /// Only zeros until the end of the file.
    Zeros,
    /// No frame; `end` is just past the last nonzero byte.
    Garbage {
        end: u64,
    },
}

/// The part of the file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// At least `wanted` bytes from `at`, at most [`WINDOW`]; fewer only at the end of the file.
    fn at(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let loaded = self.start..self.start + self.bytes.len() as u64;
        let end = (at + wanted as u64).min(self.length);
        if at < loaded.start || end > loaded.end {
            let length = (self.length.saturating_sub(at)).min(WINDOW as u64) as usize;
            self.bytes.resize(length, 0);
            let read = self.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.start = at;
        }
        let from = at.saturating_sub(self.start) as usize;
        Ok(self.bytes.get(from..).unwrap_or_default())
    }

    /// The frame header at `at`, if it is valid and its frame fits into the file.
    fn header(&mut self, at: u64, spec: &SegmentSpec) -> io::Result<Option<FrameHeader>> {
        let salt = spec.salt;
        let header = FrameHeader::parse(self.at(at, FRAME_HEADER)?, salt);
        let length = self.length;
        Ok(header.filter(|header| {
            let fits = at + FRAME_HEADER as u64 + u64::from(header.stored) <= length;
            fits && spec.next_segment.is_none_or(|next| header.lsn < next)
        }))
    }

    fn crc(&mut self, mut at: u64, mut length: u64) -> io::Result<u32> {
        let mut crc = 0;
        while length > 0 {
            let bytes = self.at(at, 1)?;
            let take = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            if take == 0 {
                // The file was truncated while it was read.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            crc = crc32c::crc32c_append(crc, &bytes[..take]);
            at += take as u64;
            length -= take as u64;
        }
        Ok(crc)
    }

    /// Searches from `from` on for a frame that `accept` accepts, given the frame's offset and header.
    fn search(
        &mut self,
        from: u64,
        spec: &SegmentSpec,
        accept: impl Fn(u64, &FrameHeader) -> bool,
    ) -> io::Result<Search> {
        let mut at = from;
        let mut used = None;
        while at < self.length {
            let bytes = self.at(at, FRAME_HEADER)?;
            if bytes.is_empty() {
                break;
            }
            let mut step = 0;
            let mut candidate = None;
            while step < bytes.len() {
                let word = &bytes[step..bytes.len().min(step + 8)];
                if word.iter().any(|byte| *byte != 0) {
                    used = Some(at + (step + word.len()) as u64);
                    if word.len() == 8 && u32::from_le_bytes(array(word, 0)) == MARKER {
                        candidate = Some(at + step as u64);
                        break;
                    }
                }
                step += 8;
            }
            let Some(candidate) = candidate else {
                at += step as u64;
                continue;
            };
            if let Some(header) = self.header(candidate, spec)?
                && accept(candidate, &header)
            {
                return Ok(Search::Found { at: candidate, header });
            }
            at = candidate + 8;
        }
        Ok(used.map_or(Search::Zeros, |end| Search::Garbage { end: end.min(self.length) }))
    }
}

fn offset_unit(offset: u64) -> u32 {
    u32::try_from(offset / 8).expect("a segment is shorter than 32 GiB")
}

const INDEX_MAGIC: &[u8; 8] = b"CAIRNIDX";
const INDEX_DENSE: u32 = 1;
const INDEX_SPARSE: u32 = 2;
const INDEX_HEADER: usize = 48;

/// The index file of a sealed, undamaged segment.
pub(crate) fn encode_index(node: NodeId, first: Lsn, length: u64, frames: &Frames) -> Vec<u8> {
    let (format, lsns, offsets) = match frames {
        Frames::Dense(offsets) => (INDEX_DENSE, &Vec::new(), offsets),
        Frames::Sparse { lsns, offsets, .. } => (INDEX_SPARSE, lsns, offsets),
    };
    let mut bytes = Vec::with_capacity(INDEX_HEADER + (lsns.len() + offsets.len()) * 4 + 32);
    bytes.extend(INDEX_MAGIC);
    bytes.extend(format.to_le_bytes());
    bytes.extend((offsets.len() as u32).to_le_bytes());
    bytes.extend(node.0);
    bytes.extend(first.0.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    lsns.iter().chain(offsets).for_each(|number| bytes.extend(number.to_le_bytes()));
    let digest = blake3::hash(&bytes);
    bytes.extend(digest.as_bytes());
    bytes
}

/// The frames in an index file; `None` when it is damaged or belongs to another state of the segment.
pub(crate) fn decode_index(bytes: &[u8], node: NodeId, first: Lsn, length: u64) -> Option<Frames> {
    let (body, digest) = bytes.split_last_chunk::<32>()?;
    if body.len() < INDEX_HEADER || blake3::hash(body) != *digest {
        return None;
    }
    let count = u32::from_le_bytes(array(body, 12)) as usize;
    let (header, numbers) = body.split_at(INDEX_HEADER);
    let matches = header[..8] == *INDEX_MAGIC
        && array(header, 16) == node.0
        && u64::from_le_bytes(array(header, 32)) == first.0
        && u64::from_le_bytes(array(header, 40)) == length;
    if !matches {
        return None;
    }
    let mut numbers: Vec<u32> = numbers.chunks_exact(4).map(|number| u32::from_le_bytes(array(number, 0))).collect();
    match u32::from_le_bytes(array(header, 8)) {
        INDEX_DENSE if numbers.len() == count => Some(Frames::Dense(numbers)),
        INDEX_SPARSE if numbers.len() == count.checked_mul(2)? => {
            let offsets = numbers.split_off(count);
            Some(Frames::Sparse { lsns: numbers, offsets, lost: Vec::new() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::UnixMillis;
    use crate::store::disk::Disk;
    use crate::store::disk_test::MemDisk;
    use std::path::Path;

    const SALT: Salt = [3; 8];

    /// Frames of 64 bytes from LSN 1 on; each item is (append, ends a batch).
    fn segment(frames: &[(u64, bool)]) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT_START as usize];
        for (index, (append, end)) in frames.iter().enumerate() {
            let payload = [index as u8 + 1; 16];
            let header = FrameHeader {
                payload_crc: crc32c::crc32c(&payload),
                stored: 16,
                lsn: Lsn(index as u64 + 1),
                time: UnixMillis(0),
                append: Lsn(*append),
                kind: 1,
                flags: u8::from(*end) * END_OF_BATCH,
            };
            bytes.extend(header.encode(SALT));
            bytes.extend(payload);
        }
        bytes.extend([0; 256]);
        bytes
    }

    fn frame_at(index: usize) -> usize {
        SEGMENT_START as usize + index * 64
    }

    fn scan_bytes(bytes: &[u8], next_segment: Option<Lsn>) -> Scan {
        let disk = MemDisk::new();
        let file = disk.create(Path::new("/x")).expect("created");
        file.write_at(bytes, 0).expect("written");
        let length = bytes.len() as u64;
        let spec = SegmentSpec { salt: SALT, kinds: Kinds::Records, first: Lsn(1), next_segment, length };
        scan(&*file, &spec).expect("readable")
    }

    #[test]
    fn a_clean_segment_has_no_damage() {
        let found = scan_bytes(&segment(&[(1, true), (2, false), (2, true)]), None);
        assert_eq!(found.offsets, [32, 40, 48]);
        assert_eq!((found.end, found.torn, found.damage.len()), (frame_at(3) as u64, 0, 0));
        assert_eq!(found.unproven, frame_at(1) as u64..frame_at(3) as u64);
    }

    #[test]
    fn an_unfinished_batch_at_the_end_is_cut() {
        let found = scan_bytes(&segment(&[(1, true), (2, true), (2, false)]), None);
        assert_eq!((found.offsets.len(), found.end, found.torn), (2, frame_at(2) as u64, 64));
    }

    #[test]
    fn a_hole_in_the_last_append_cuts_from_there() {
        for (offset, length) in [(0, 4), (20, 1), (50, 1), (0, 64)] {
            let mut bytes = segment(&[(1, true), (2, true), (2, true), (2, true)]);
            let hole = frame_at(2) + offset;
            bytes[hole..hole + length].fill(0xee);
            let found = scan_bytes(&bytes, None);
            assert_eq!((found.offsets.len(), found.torn), (2, 128), "{offset} {length}");
            assert_eq!(found.damage, []);
        }
    }

    #[test]
    fn a_hole_over_the_start_of_the_last_append_cuts_all_of_it() {
        let mut bytes = segment(&[(1, true), (2, true), (2, true), (2, true)]);
        bytes[frame_at(1)..frame_at(2) + 8].fill(0);
        let found = scan_bytes(&bytes, None);
        assert_eq!((found.offsets.len(), found.torn, found.damage.len()), (1, 192, 0));
    }

    #[test]
    fn a_hole_before_the_last_append_is_damage() {
        for (offset, what) in [(4, "no valid frame header"), (50, "payload checksum differs")] {
            let mut bytes = segment(&[(1, true), (2, true), (3, true), (4, true)]);
            bytes[frame_at(1) + offset] ^= 1;
            let found = scan_bytes(&bytes, None);
            assert_eq!(found.offsets, [32, UNREADABLE, 48, 56]);
            assert_eq!(found.damage, [BadRange { bytes: frame_at(1) as u64..frame_at(2) as u64, lsns: 2..3, what }]);
            assert_eq!(found.torn, 0);
        }
    }

    #[test]
    fn damage_and_a_torn_tail_are_told_apart() {
        let mut bytes = segment(&[(1, true), (2, true), (3, true), (3, true)]);
        bytes[frame_at(0) + 50] ^= 1;
        bytes[frame_at(3) + 50] ^= 1;
        let found = scan_bytes(&bytes, None);
        assert_eq!(found.offsets, [UNREADABLE, 40, 48]);
        assert_eq!((found.damage.len(), found.torn), (1, 64));
    }

    #[test]
    fn records_lost_with_the_start_of_the_last_append_are_reported() {
        let mut bytes = segment(&[(1, true), (2, true), (3, true), (3, true)]);
        bytes[frame_at(1)..frame_at(3)].fill(0xee);
        let found = scan_bytes(&bytes, None);
        assert_eq!((found.offsets.len(), found.torn), (1, 192));
        assert_eq!(found.damage[0].lsns, 2..3);
    }

    #[test]
    fn nothing_is_cut_from_a_sealed_segment() {
        let mut bytes = segment(&[(1, true), (2, true), (2, true)]);
        bytes[frame_at(1) + 50] ^= 1;
        bytes.truncate(frame_at(3) - 10);
        let found = scan_bytes(&bytes, Some(Lsn(4)));
        assert_eq!(found.offsets, [32, UNREADABLE]);
        assert_eq!(found.damage.iter().map(|bad| bad.lsns.clone()).collect::<Vec<_>>(), [2..3, 3..4]);
    }

    #[test]
    fn a_frame_inside_a_payload_is_not_taken_for_one() {
        let forged = FrameHeader {
            payload_crc: 0,
            stored: 0,
            lsn: Lsn(2),
            time: UnixMillis(0),
            append: Lsn(2),
            kind: 1,
            flags: END_OF_BATCH,
        };
        let mut bytes = segment(&[(1, true), (2, true)]);
        bytes[frame_at(0) + 4] ^= 1;
        let inside = frame_at(0) + 16;
        bytes[inside..inside + FRAME_HEADER].copy_from_slice(&forged.encode([0; 8]));
        assert_eq!(scan_bytes(&bytes, None).offsets, [UNREADABLE, 40]);
    }

    #[test]
    fn a_damaged_or_foreign_index_is_refused() {
        let (node, first) = (NodeId([1; 16]), Lsn(5));
        let sparse = Frames::Sparse { lsns: vec![0, 4], offsets: vec![32, 40], lost: Vec::new() };
        let bytes = encode_index(node, first, 1000, &sparse);
        assert_eq!(decode_index(&bytes, node, first, 1000), Some(sparse));
        let dense = Frames::Dense(vec![16, 24, 99]);
        let bytes = encode_index(node, first, 1000, &dense);
        assert_eq!(decode_index(&bytes, node, first, 1000), Some(dense));
        assert_eq!(decode_index(&bytes, node, first, 1001), None);
        assert_eq!(decode_index(&bytes, NodeId([2; 16]), first, 1000), None);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert_eq!(decode_index(&flipped, node, first, 1000), None);
            assert_eq!(decode_index(&bytes[..at], node, first, 1000), None);
        }
    }
}
