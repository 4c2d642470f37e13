#![doc = include_str!("FORMAT.md")]

use std::fmt;
use std::ops::RangeInclusive;

use super::record::kind;
use crate::base::{Lsn, NodeId, UnixMillis};

/// The segment format that this build writes.
pub const FORMAT: u16 = 1;
/// The segment formats that this build reads. `FORMAT.md` describes how formats follow each other.
pub const FORMATS: RangeInclusive<u16> = 1..=NEWEST;
#[cfg(not(test))]
const NEWEST: u16 = FORMAT;
/// The unit tests also read a second format, with the layout of the first, to test what two formats need while only one
/// exists.
#[cfg(test)]
const NEWEST: u16 = FORMAT + 1;
/// Bytes before the first frame: the header and its copy.
pub(crate) const SEGMENT_START: u64 = 256;
/// Bytes of one copy of the segment header.
pub(crate) const SEGMENT_HEADER: usize = 128;
/// Bytes of a frame header.
pub(crate) const FRAME_HEADER: usize = 48;
/// Longest payload, stored or decompressed.
pub(crate) const PAYLOAD_MAX: usize = 64 << 20;
/// First four bytes of a frame.
pub(crate) const MARKER: u32 = u32::from_le_bytes(*b"FRM1");
/// The frame ends its batch.
pub(crate) const END_OF_BATCH: u8 = 1;
/// The payload is compressed.
pub(crate) const ZSTD: u8 = 2;
/// A release that does not know the frame's kind retains the frame and skips it.
pub(crate) const SKIPPABLE: u8 = 0x80;
/// All flags that this build knows.
const FLAGS: u8 = END_OF_BATCH | ZSTD | SKIPPABLE;

const SEGMENT_MAGIC: &[u8; 8] = b"CAIRNLOG";
/// Where a header names the release that wrote it, in this format and every later one.
const RELEASE: std::ops::Range<usize> = 88..104;

/// Fuzzers cannot guess checksums: for them every one is valid, so that they reach the code behind.
const UNCHECKED: bool = cfg!(fuzzing);

/// Random bytes of a node that make its frame headers unforgeable for anyone who cannot read its disk.
pub(crate) type Salt = [u8; 8];

/// Header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// One of [`FORMATS`].
    pub(crate) format: u16,
    pub(crate) node: NodeId,
    pub(crate) first: Lsn,
    pub(crate) created: UnixMillis,
    pub(crate) salt: Salt,
    /// Random id of the epoch that the segment was written in; a restore starts a new one.
    pub(crate) epoch: u64,
    /// What compaction dropped; `None` in a segment as originally written.
    pub(crate) compacted: Option<Compacted>,
}

/// Facts about a compacted segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// One past the last LSN that the segment covers.
    pub(crate) end: Lsn,
    /// Every dropped record was dead once the log had reached this LSN.
    pub(crate) as_of: Lsn,
    /// Length of the file.
    pub(crate) bytes: u64,
}

/// The first bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderCheck {
    /// A valid header; `spare` when only the copy was valid.
    Good { header: SegmentHeader, spare: bool },
    /// A format that this build does not read.
    Unsupported(UnsupportedFormat),
    /// Neither copy is valid.
    Bad,
}

/// A segment format outside [`FORMATS`], with the release that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedFormat {
    /// The format.
    pub found: u16,
    /// The release that wrote it: `Cairn` and its version, or "another release" where the header does not name it.
    pub release: String,
}

impl fmt::Display for UnsupportedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, release } = self;
        let (oldest, newest) = (FORMATS.start(), FORMATS.end());
        write!(f, "written by {release} in segment format {found}; this release reads ")?;
        if oldest == newest {
            write!(f, "format {newest}")?;
        } else {
            write!(f, "formats {oldest} to {newest}")?;
        }
        if found > newest {
            write!(f, ": upgrade Cairn, or restore a snapshot that this release took")
        } else {
            write!(f, ": use a release that reads format {found}")
        }
    }
}

impl std::error::Error for UnsupportedFormat {}

impl SegmentHeader {
    /// The header and its copy.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_START as usize] {
        let mut one = [0; SEGMENT_HEADER];
        one[..8].copy_from_slice(SEGMENT_MAGIC);
        one[8..10].copy_from_slice(&self.format.to_le_bytes());
        one[16..32].copy_from_slice(&self.node.0);
        one[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        one[40..48].copy_from_slice(&self.created.0.to_le_bytes());
        one[48..56].copy_from_slice(&self.salt);
        one[56..64].copy_from_slice(&self.epoch.to_le_bytes());
        if let Some(Compacted { end, as_of, bytes }) = self.compacted {
            one[64..72].copy_from_slice(&end.0.to_le_bytes());
            one[72..80].copy_from_slice(&as_of.0.to_le_bytes());
            one[80..88].copy_from_slice(&bytes.to_le_bytes());
        }
        let release = env!("CARGO_PKG_VERSION").as_bytes();
        let length = release.len().min(RELEASE.len());
        one[RELEASE][..length].copy_from_slice(&release[..length]);
        let crc = crc32c::crc32c(&one);
        one[12..16].copy_from_slice(&crc.to_le_bytes());
        let mut both = [0; SEGMENT_START as usize];
        both[..SEGMENT_HEADER].copy_from_slice(&one);
        both[SEGMENT_HEADER..].copy_from_slice(&one);
        both
    }

    /// Reads the header from the first bytes of a segment; missing bytes count as zeros.
    pub(crate) fn check(bytes: &[u8; SEGMENT_START as usize]) -> HeaderCheck {
        let (one, copy) = bytes.split_at(SEGMENT_HEADER);
        if let Some(header) = Self::parse(one) {
            return HeaderCheck::Good { header, spare: false };
        }
        if let Some(header) = Self::parse(copy) {
            return HeaderCheck::Good { header, spare: true };
        }
        let unsupported = |half: &[u8]| {
            let found = u16::from_le_bytes(array(half, 8));
            let is_one = half[..8] == *SEGMENT_MAGIC && !FORMATS.contains(&found);
            is_one.then(|| UnsupportedFormat { found, release: release_in(half) })
        };
        // A future format may have another checksum; two identical copies cannot be a coincidence.
        match (unsupported(one), unsupported(copy)) {
            (Some(found), other) if Self::is_sound(one) || other.as_ref() == Some(&found) => {
                HeaderCheck::Unsupported(found)
            }
            (_, Some(found)) if Self::is_sound(copy) => HeaderCheck::Unsupported(found),
            _ => HeaderCheck::Bad,
        }
    }

    /// Whether the checksum of one copy of a header is valid.
    fn is_sound(bytes: &[u8]) -> bool {
        let mut zeroed: [u8; SEGMENT_HEADER] = array(bytes, 0);
        zeroed[12..16].fill(0);
        bytes[..8] == *SEGMENT_MAGIC && (UNCHECKED || u32::from_le_bytes(array(bytes, 12)) == crc32c::crc32c(&zeroed))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if !Self::is_sound(bytes) {
            return None;
        }
        // Each format has its own reader.
        match u16::from_le_bytes(array(bytes, 8)) {
            1 => Some(Self::parse_1(bytes)),
            #[cfg(test)]
            NEWEST => Some(Self { format: NEWEST, ..Self::parse_1(bytes) }),
            _ => None,
        }
    }

    fn parse_1(bytes: &[u8]) -> Self {
        let lsn = |at| Lsn(u64::from_le_bytes(array(bytes, at)));
        Self {
            format: 1,
            node: NodeId(array(bytes, 16)),
            first: lsn(32),
            created: UnixMillis(i64::from_le_bytes(array(bytes, 40))),
            salt: array(bytes, 48),
            epoch: lsn(56).0,
            compacted: (lsn(64) != Lsn::ZERO).then(|| Compacted { end: lsn(64), as_of: lsn(72), bytes: lsn(80).0 }),
        }
    }
}

/// The release named in a header of any format.
fn release_in(header: &[u8]) -> String {
    let text = header.get(RELEASE).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok(text) if !text.is_empty() && text.chars().all(|sign| sign.is_ascii_graphic()) => format!("Cairn {text}"),
        _ => "another release".to_owned(),
    }
}

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_crc: u32,
    /// Bytes of the payload as stored.
    pub(crate) stored: u32,
    pub(crate) lsn: Lsn,
    pub(crate) time: UnixMillis,
    /// LSN of the first frame written together with this one.
    pub(crate) append: Lsn,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
}

impl FrameHeader {
    /// The header as written.
    pub(crate) fn encode(&self, salt: Salt) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        bytes[..4].copy_from_slice(&MARKER.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.stored.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.append.0.to_le_bytes());
        bytes[40] = self.kind;
        bytes[41] = self.flags;
        let crc = Self::crc(&bytes, salt);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if there are enough and its checksum is valid. A valid checksum means that
    /// this node wrote the header, so only its position needs checking.
    pub(crate) fn parse(bytes: &[u8], salt: Salt) -> Option<Self> {
        let bytes = bytes.first_chunk::<FRAME_HEADER>()?;
        let sound = u32::from_le_bytes(array(bytes, 0)) == MARKER
            && (UNCHECKED || u32::from_le_bytes(array(bytes, 4)) == Self::crc(bytes, salt));
        let header = sound.then(|| Self {
            payload_crc: u32::from_le_bytes(array(bytes, 8)),
            stored: u32::from_le_bytes(array(bytes, 12)),
            lsn: Lsn(u64::from_le_bytes(array(bytes, 16))),
            time: UnixMillis(i64::from_le_bytes(array(bytes, 24))),
            append: Lsn(u64::from_le_bytes(array(bytes, 32))),
            kind: bytes[40],
            flags: bytes[41],
        })?;
        (header.stored as usize <= PAYLOAD_MAX && header.append <= header.lsn).then_some(header)
    }

    /// The part of a frame that only a newer release knows; its checksums are valid, so it is not damaged.
    pub(crate) fn unknown(&self, kinds: Kinds) -> Option<UnknownFrame> {
        let flags = self.flags & !FLAGS;
        let what = if flags != 0 {
            format!("has the flags {flags:#04x}")
        } else if !kinds.contain(self.kind) && self.flags & SKIPPABLE == 0 {
            format!("is of kind {}", self.kind)
        } else {
            return None;
        };
        Some(UnknownFrame { lsn: self.lsn, what })
    }

    /// Whether this release retains the frame and skips it: it does not know the kind, and the frame allows that.
    pub(crate) fn is_skipped(&self) -> bool {
        self.flags & SKIPPABLE != 0 && !kind::KNOWN.contains(&self.kind)
    }

    /// Bytes from the start of this frame to the start of the next.
    pub(crate) fn length(&self) -> u64 {
        (FRAME_HEADER as u64 + u64::from(self.stored)).next_multiple_of(8)
    }

    /// Distinguishes this record from one that a different epoch of the log has at the same LSN.
    pub(crate) fn fingerprint(&self, salt: Salt) -> u64 {
        u64::from_le_bytes(array(&self.encode(salt), 4))
    }

    fn crc(bytes: &[u8; FRAME_HEADER], salt: Salt) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&salt), &bytes[8..])
    }
}

/// The record kinds that a log may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// Those of [`kind`].
    Records,
    /// Any: the owner of the log defines the numbers.
    Any,
}

impl Kinds {
    fn contain(self, number: u8) -> bool {
        self == Self::Any || kind::KNOWN.contains(&number)
    }
}

/// A record of a newer release that this one does not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFrame {
    /// The record.
    pub lsn: Lsn,
    /// What is unknown about it.
    what: String,
}

impl fmt::Display for UnknownFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lsn, what } = self;
        write!(
            f,
            "record {lsn} {what}, which this release does not know: a newer release wrote it; upgrade Cairn, or restore a \
             snapshot that this release took"
        )
    }
}

/// `N` bytes from `at`; the caller has checked that they are there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice is N long")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> FrameHeader {
        FrameHeader {
            payload_crc: 7,
            stored: 13,
            lsn: Lsn(9),
            time: UnixMillis(1_700_000_000_000),
            append: Lsn(8),
            kind: 3,
            flags: END_OF_BATCH,
        }
    }

    #[test]
    fn a_frame_header_with_any_bit_flipped_is_refused() {
        let salt = [1, 2, 3, 4, 5, 6, 7, 8];
        let bytes = frame().encode(salt);
        assert_eq!(FrameHeader::parse(&bytes, salt), Some(frame()));
        assert_eq!(FrameHeader::parse(&bytes, [0; 8]), None, "another node's salt");
        for bit in 0..FRAME_HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::parse(&flipped, salt), None, "bit {bit}");
        }
    }

    #[test]
    fn a_segment_header_survives_the_loss_of_either_copy() {
        let header = SegmentHeader {
            format: FORMAT,
            node: NodeId([5; 16]),
            first: Lsn(77),
            created: UnixMillis(3),
            salt: [9; 8],
            epoch: 6,
            compacted: Some(Compacted { end: Lsn(99), as_of: Lsn(120), bytes: 4096 }),
        };
        let bytes = header.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::check(&flipped),
                HeaderCheck::Good { header, spare: bit < SEGMENT_HEADER * 8 },
                "bit {bit}"
            );
        }
        assert_eq!(SegmentHeader::check(&[0; SEGMENT_START as usize]), HeaderCheck::Bad);
    }

    #[test]
    fn what_only_a_newer_release_knows_is_named() {
        let with = |kind, flags| FrameHeader { kind, flags, ..frame() };
        let unknown = |kind, flags| with(kind, flags).unknown(Kinds::Records).map(|unknown| unknown.what);
        let last = *kind::KNOWN.end();
        assert_eq!(unknown(last, END_OF_BATCH | ZSTD), None);
        assert_eq!(unknown(last + 1, 0), Some(format!("is of kind {}", last + 1)));
        assert_eq!(with(last + 1, 0).unknown(Kinds::Any), None);
        assert_eq!(unknown(1, END_OF_BATCH | 0x14).as_deref(), Some("has the flags 0x14"));
        // Skippable frames are skipped, unless they have an unknown flag.
        assert_eq!(unknown(last + 1, SKIPPABLE), None);
        assert!(with(last + 1, SKIPPABLE).is_skipped() && !with(last, SKIPPABLE).is_skipped());
        assert_eq!(unknown(last + 1, SKIPPABLE | 0x40).as_deref(), Some("has the flags 0x40"));
    }

    #[test]
    fn a_format_outside_the_range_is_named() {
        let header = |format| SegmentHeader {
            format,
            node: NodeId([5; 16]),
            first: Lsn(1),
            created: UnixMillis(3),
            salt: [9; 8],
            epoch: 0,
            compacted: None,
        };
        let refused = |bytes: &[u8; SEGMENT_START as usize]| match SegmentHeader::check(bytes) {
            HeaderCheck::Unsupported(format) => format.to_string(),
            other => panic!("expected a refusal, found {other:?}"),
        };
        let release = concat!("Cairn ", env!("CARGO_PKG_VERSION"));
        let newer = format!(
            "written by {release} in segment format 3; this release reads formats 1 to 2: upgrade Cairn, or restore a snapshot that \
             this release took"
        );
        // Regardless of which copy is damaged.
        for at in [0, SEGMENT_HEADER] {
            let mut bytes = header(3).encode();
            bytes[at + 20] ^= 1;
            assert_eq!(refused(&bytes), newer);
        }
        let mut other_checksum = header(3).encode();
        (other_checksum[12], other_checksum[SEGMENT_HEADER + 12]) = (0, 0);
        other_checksum[RELEASE].fill(0);
        other_checksum[SEGMENT_HEADER..][RELEASE].fill(0);
        assert!(refused(&other_checksum).starts_with("written by another release in segment format 3;"));
        other_checksum[SEGMENT_HEADER + 8] = 4;
        assert_eq!(SegmentHeader::check(&other_checksum), HeaderCheck::Bad, "two copies that do not agree");
        let older = format!(
            "written by {release} in segment format 0; this release reads formats 1 to 2: use a release that reads format 0"
        );
        assert_eq!(refused(&header(0).encode()), older);
        assert!(
            matches!(SegmentHeader::check(&header(2).encode()), HeaderCheck::Good { header, .. } if header.format == 2)
        );
    }
}
