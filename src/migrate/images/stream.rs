//! The bytes of an archive or of a layer, unpacked where they are compressed, and hashed on the way.
//!
//! Invariant: no more than [`UNPACKED_BYTES_MAX`] bytes come out of a stream, whatever its packed bytes claim.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::deploy::{Sha256, Sha256Hasher};

/// More than any image has. A few packed kilobytes can claim to be petabytes, which nobody waits for.
const UNPACKED_BYTES_MAX: u64 = 1 << 39;
/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 18;
/// The largest window of zstd that is given memory, as a power of two: zstd's own default, 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// They are not.
    Plain,
    /// RFC 1952
    Gzip,
    /// RFC 8878
    Zstd,
    /// In a form that is not read; with its name.
    Other(&'static str),
}

impl Packing {
    /// By the first bytes, of which six are enough.
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame that decoders skip; tools that make seekable archives begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Other("xz"),
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Other("lz4"),
            [b'P', b'K', 3, 4, ..] => Self::Other("zip"),
            [0x5d, 0, 0, ..] => Self::Other("lzma"),
            _ => Self::Plain,
        }
    }
}

/// Bytes as they are after unpacking.
pub(super) struct Unpacked<'a> {
    packing: Packing,
    bytes: Bytes<'a>,
    /// Bytes that have come out.
    position: u64,
    hasher: Option<Sha256Hasher>,
}

enum Bytes<'a> {
    File { file: BufReader<File>, length: u64 },
    Other(Box<dyn Read + 'a>),
}

impl<'a> Unpacked<'a> {
    /// The content of a file of this length.
    ///
    /// * `report`: gets the packed bytes that have been read, where the file is packed.
    pub(super) fn of_file(file: File, length: u64, report: &'a dyn Fn(u64)) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let packing = Packing::of(file.fill_buf()?);
        let bytes = match packing {
            Packing::Plain | Packing::Other(_) => Bytes::File { file, length },
            _ => {
                let counted = Counted::new(file, report);
                unpack(packing, BufReader::with_capacity(BUFFER_BYTES, counted))?
            }
        };
        Ok(Self { packing, bytes, position: 0, hasher: None })
    }

    /// What another reader gives. Where it is packed, what comes out is hashed.
    pub(super) fn of(from: impl Read + 'a) -> io::Result<Self> {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
        let packing = Packing::of(from.fill_buf()?);
        let hasher = (packing != Packing::Plain).then(Sha256Hasher::new);
        Ok(Self { packing, bytes: unpack(packing, from)?, position: 0, hasher })
    }

    /// Reads what is left; returns the digest of everything that has come out of another reader, where that was packed.
    pub(super) fn finish(mut self) -> io::Result<Option<Sha256>> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.map(Sha256Hasher::finish))
    }

    pub(super) fn packing(&self) -> Packing {
        self.packing
    }

    /// Bytes that have come out.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Passes bytes over; returns how many there were, which is fewer at the end. In a plain file they are not read.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<u64> {
        if let Bytes::File { file, length } = &mut self.bytes {
            let count = count.min(length.saturating_sub(self.position));
            file.seek_relative(i64::try_from(count).map_err(io::Error::other)?)?;
            self.position += count;
            return Ok(count);
        }
        io::copy(&mut self.by_ref().take(count), &mut io::sink())
    }
}

fn unpack<'a>(packing: Packing, from: impl BufRead + 'a) -> io::Result<Bytes<'a>> {
    Ok(Bytes::Other(match packing {
        Packing::Plain | Packing::Other(_) => Box::new(from),
        Packing::Gzip => Box::new(MultiGzDecoder::new(from)),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    }))
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.bytes {
            Bytes::File { file, .. } => file.read(buffer)?,
            Bytes::Other(from) => from.read(buffer)?,
        };
        self.position += count as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        if self.position > UNPACKED_BYTES_MAX && self.packing != Packing::Plain {
            let message = format!("it unpacks to more than {UNPACKED_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(count)
    }
}

/// A reader that reports how many bytes it has given.
pub(super) struct Counted<'a, R> {
    from: R,
    count: u64,
    report: &'a dyn Fn(u64),
}

impl<'a, R: Read> Counted<'a, R> {
    pub(super) fn new(from: R, report: &'a dyn Fn(u64)) -> Self {
        Self { from, count: 0, report }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.count += count as u64;
        (self.report)(self.count);
        Ok(count)
    }
}

/// A reader whose bytes are hashed.
pub(super) struct Hashed<R> {
    from: R,
    hasher: Sha256Hasher,
    count: u64,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, hasher: Sha256Hasher::new(), count: 0 }
    }

    /// Reads what is left; returns the digest of everything, and its length.
    pub(super) fn finish(mut self) -> io::Result<(Sha256, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.finish(), self.count))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}
