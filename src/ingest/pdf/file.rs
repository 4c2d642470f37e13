//! The file as a tree of objects, and the content of its streams.
//!
//! hayro-syntax reads objects in place and only on demand, so a large file needs little memory. It decompresses without
//! a limit, though: whatever this reader decompresses goes through [`unpack`], and what hayro decompresses (tables and
//! streams of objects, fonts) is measured before. All of it is charged to one [`Budget`] for each document.

use std::borrow::Cow;
use std::io::Read;

use hayro_syntax::object::dict::keys::{DECODE_PARMS, DP, EARLY_CHANGE, PREDICTOR};
use hayro_syntax::object::{Array, Dict, Object, Stream};
use hayro_syntax::{DecryptionError, Filter, LoadPdfError, Pdf};

use super::super::ParseError;

/// Maximum decompressed size of all streams of objects, and of the tables with the positions of objects.
const OBJECT_STREAMS_BYTES_MAX: usize = 128 << 20;
/// Work that every document may cause, in bytes read.
const WORK_MIN: usize = 32 << 20;
/// The same for each byte of the file: pages of text decompress to five times their size, drawings to twenty.
const WORK_PER_BYTE: usize = 64;
/// Maximum work for any document.
const WORK_MAX: usize = 1 << 30;
/// How far before its data the dictionary of a stream is searched.
const DICTIONARY_BYTES: usize = 1024;

/// Why a stream has no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unpacked {
    /// Its decompressed size is too large.
    TooLarge,
    /// Its filter is unknown or made for images, or its data is damaged from the start.
    Broken,
}

/// Work that a document may still cause, in bytes read.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    whole: usize,
}

impl Budget {
    /// For a file of `length` bytes.
    pub(super) fn new(length: usize) -> Self {
        let whole = length.saturating_mul(WORK_PER_BYTE).saturating_add(WORK_MIN).min(WORK_MAX);
        Self { left: whole, whole }
    }

    /// Subtracts `bytes`; returns false when less is left, and then nothing is left.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let enough = bytes <= self.left;
        self.left = if enough { self.left - bytes } else { 0 };
        enough
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// The initial budget.
    pub(super) fn whole(&self) -> usize {
        self.whole
    }
}

/// Opens a file; an encrypted one is tried with the empty password, which opens most.
pub(super) fn open(bytes: &[u8]) -> Result<Pdf, ParseError> {
    if !object_streams_fit(bytes) {
        return Err(ParseError::corrupt("PDF", "its compressed objects unpack to more than is allowed"));
    }
    Pdf::new(bytes.to_vec()).map_err(|error| match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => ParseError::Encrypted,
        LoadPdfError::Decryption(_) => {
            ParseError::corrupt("PDF", "it is encrypted in a way that is not known here; save it without encryption")
        }
        LoadPdfError::Invalid => ParseError::corrupt("PDF", "its structure cannot be read; the file may be cut short"),
    })
}

/// Whether the file ends like a PDF: a truncated one does not.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(2048)..];
    tail.windows(5).any(|window| window == b"%%EOF") || tail.windows(9).any(|window| window == b"startxref")
}

/// Measures everything that looks like a stream of objects before it is decompressed.
fn object_streams_fit(bytes: &[u8]) -> bool {
    let mut left = OBJECT_STREAMS_BYTES_MAX;
    let mut place = 0;
    while let Some(found) = bytes[place..].windows(6).position(|window| window == b"stream") {
        let start = place + found;
        place = start + 6;
        if bytes[..start].ends_with(b"end") {
            continue;
        }
        let before = &bytes[start.saturating_sub(DICTIONARY_BYTES)..start];
        let before = before.windows(3).rposition(|window| window == b"obj").map_or(before, |obj| &before[obj..]);
        // A name may be written with escapes: then any stream might be one.
        let suspect = [&b"ObjStm"[..], b"/XRef", b"#"]
            .iter()
            .any(|needle| before.windows(needle.len()).any(|window| window == *needle));
        if !suspect {
            continue;
        }
        let data = bytes[place..].trim_ascii_start();
        match inflate(data, left, Sink::Count) {
            Ok((size, _)) => left -= size.min(left),
            Err(Unpacked::TooLarge) => return false,
            Err(Unpacked::Broken) => {}
        }
    }
    true
}

/// The content of a stream, at most `max` bytes of it. Damage ends the content; what precedes it is valid.
pub(super) fn unpack<'a>(stream: &Stream<'a>, max: usize) -> Result<Cow<'a, [u8]>, Unpacked> {
    let mut data = stream.raw_data();
    for (index, filter) in stream.filters().iter().enumerate() {
        let parameters = parameters(stream.dict(), index);
        let plain = parameters.get::<i64>(PREDICTOR).is_none_or(|predictor| predictor < 2);
        let next = match filter {
            Filter::Crypt if index == 0 => continue,
            Filter::FlateDecode if plain => inflate(&data, max, Sink::Keep)?.1,
            Filter::LzwDecode if plain => lzw(&data, max, parameters.get::<i64>(EARLY_CHANGE) != Some(0))?,
            Filter::Ascii85Decode => ascii85(&data),
            Filter::AsciiHexDecode => ascii_hex(&data),
            Filter::RunLengthDecode => run_length(&data, max)?,
            // Predictors are used for images and tables; hayro supports them all, but without a limit.
            Filter::FlateDecode if index == 0 && stream.filters().len() == 1 => {
                inflate(&data, max, Sink::Count)?;
                return stream.decoded_data().map_err(|_| Unpacked::Broken);
            }
            _ => return Err(Unpacked::Broken),
        };
        data = Cow::Owned(next);
    }
    if data.len() > max { Err(Unpacked::TooLarge) } else { Ok(data) }
}

/// The decompressed size of a stream that hayro will decompress.
pub(super) fn measure(stream: &Stream<'_>, max: usize) -> Result<usize, Unpacked> {
    match stream.filters().as_slice() {
        [Filter::FlateDecode] => Ok(inflate(&stream.raw_data(), max, Sink::Count)?.0),
        _ => Ok(unpack(stream, max)?.len()),
    }
}

/// The parameters of the filter at `index`.
fn parameters<'a>(dictionary: &Dict<'a>, index: usize) -> Dict<'a> {
    let list = dictionary.get::<Array<'_>>(DECODE_PARMS).or_else(|| dictionary.get::<Array<'_>>(DP));
    match list {
        Some(list) => list.iter::<Object<'_>>().nth(index).and_then(Object::into_dict).unwrap_or_default(),
        None => dictionary.get(DECODE_PARMS).or_else(|| dictionary.get(DP)).unwrap_or_default(),
    }
}

/// Whether decompressed bytes are needed or only their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Keep,
    Count,
}

/// Decompresses deflated data, with or without its zlib header; damage ends it.
fn inflate(data: &[u8], max: usize, sink: Sink) -> Result<(usize, Vec<u8>), Unpacked> {
    for zlib in [true, false] {
        let (size, kept, whole) = drain(data, zlib, 32 << 10, max, sink)?;
        if whole {
            return Ok((size, kept));
        }
        // An error loses the part that was being decompressed: small parts get closer to the damage.
        let (size, kept, _) = drain(data, zlib, 64, max, sink)?;
        if size > 0 {
            return Ok((size, kept));
        }
    }
    if data.is_empty() { Ok((0, Vec::new())) } else { Err(Unpacked::Broken) }
}

/// Decompresses `part` bytes at a time: returns their number, the bytes if needed, and whether there was no damage.
fn drain(data: &[u8], zlib: bool, part: usize, max: usize, sink: Sink) -> Result<(usize, Vec<u8>, bool), Unpacked> {
    let mut decoder: Box<dyn Read> = if zlib {
        Box::new(flate2::bufread::ZlibDecoder::new(data))
    } else {
        Box::new(flate2::bufread::DeflateDecoder::new(data))
    };
    let (mut size, mut kept, mut part) = (0usize, Vec::new(), vec![0; part]);
    loop {
        let count = match decoder.read(&mut part) {
            Ok(0) => return Ok((size, kept, size > 0)),
            Ok(count) => count,
            Err(_) => return Ok((size, kept, false)),
        };
        size += count;
        if size > max {
            return Err(Unpacked::TooLarge);
        }
        if sink == Sink::Keep {
            kept.extend_from_slice(&part[..count]);
        }
    }
}

fn lzw(data: &[u8], max: usize, early: bool) -> Result<Vec<u8>, Unpacked> {
    use weezl::{BitOrder, LzwStatus, decode::Decoder};
    let mut decoder =
        if early { Decoder::with_tiff_size_switch(BitOrder::Msb, 8) } else { Decoder::new(BitOrder::Msb, 8) };
    let (mut out, mut part, mut rest) = (Vec::new(), vec![0; 32 << 10], data);
    loop {
        let step = decoder.decode_bytes(rest, &mut part);
        out.extend_from_slice(&part[..step.consumed_out]);
        rest = &rest[step.consumed_in..];
        if out.len() > max {
            return Err(Unpacked::TooLarge);
        }
        let idle = step.consumed_in == 0 && step.consumed_out == 0;
        if !matches!(step.status, Ok(LzwStatus::Ok)) || idle {
            return Ok(out);
        }
    }
}

fn ascii85(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 5 * 4);
    let mut group = Vec::with_capacity(5);
    for byte in data {
        match byte {
            b'!'..=b'u' => group.push(u32::from(byte - b'!')),
            b'z' if group.is_empty() => out.extend([0; 4]),
            b'~' => break,
            _ => continue,
        }
        if group.len() == 5 {
            out.extend(ascii85_group(&group));
            group.clear();
        }
    }
    if group.len() > 1 {
        let bytes = group.len() - 1;
        group.resize(5, 84);
        out.extend(&ascii85_group(&group)[..bytes]);
    }
    out
}

fn ascii85_group(digits: &[u32]) -> [u8; 4] {
    digits.iter().fold(0u32, |value, digit| value.wrapping_mul(85).wrapping_add(*digit)).to_be_bytes()
}

/// Two digits for each byte; white space is skipped and `>` ends it.
pub(super) fn ascii_hex(data: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = data
        .iter()
        .take_while(|byte| **byte != b'>')
        .filter_map(|byte| char::from(*byte).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect()
}

fn run_length(data: &[u8], max: usize) -> Result<Vec<u8>, Unpacked> {
    let (mut out, mut rest) = (Vec::new(), data);
    while let [length, after @ ..] = rest {
        match *length {
            128 => break,
            0..128 => {
                let count = (usize::from(*length) + 1).min(after.len());
                out.extend_from_slice(&after[..count]);
                rest = &after[count..];
            }
            _ => {
                let [byte, after @ ..] = after else { break };
                out.extend(std::iter::repeat_n(*byte, 257 - usize::from(*length)));
                rest = after;
            }
        }
        if out.len() > max {
            return Err(Unpacked::TooLarge);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_text_are_read() {
        assert_eq!(ascii85(b"87cURD]i,\"Ebo80~>"), b"Hello World!");
        assert_eq!(ascii85(b"zA~>"), [0, 0, 0, 0], "a lone digit is no byte");
        assert_eq!(ascii_hex(b"4 8 65 6c6C6f7>"), b"Hellop");
        assert_eq!(run_length(&[1, b'a', b'b', 254, b'c', 128, 9], 99).expect("fits"), b"abccc");
        assert_eq!(run_length(&[129, 0, 129, 0], 128), Err(Unpacked::TooLarge));
    }

    #[test]
    fn damage_ends_the_data_and_keeps_what_came_before() {
        let mut packed = Vec::new();
        let words = b"some words that are long enough to be packed, some words that are long enough".repeat(400);
        flate2::read::ZlibEncoder::new(&words[..], flate2::Compression::fast())
            .read_to_end(&mut packed)
            .expect("packs");
        let (size, kept) = inflate(&packed[..packed.len() - 30], 1 << 20, Sink::Keep).expect("a part");
        assert!(size > 0 && words.starts_with(&kept));
        assert_eq!(inflate(&packed, 1000, Sink::Count), Err(Unpacked::TooLarge));
        assert_eq!(inflate(b"no packed data", 1000, Sink::Count), Err(Unpacked::Broken));
    }

    #[test]
    fn work_is_a_multiple_of_the_file() {
        let mut budget = Budget::new(1000);
        assert_eq!(budget.whole(), WORK_MIN + 64_000);
        assert!(budget.spend(WORK_MIN) && !budget.is_spent());
        assert!(!budget.spend(64_001) && budget.is_spent());
    }
}
