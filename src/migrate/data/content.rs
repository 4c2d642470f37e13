//! The content of a file: read without its holes, and hashed.
//!
//! A hash is BLAKE3 of all bytes, as `b3sum` computes it. A file that is nearly all holes would take hours to hash so, and its size costs
//! nothing: it has a hash of the blocks that are not zero, each after its number, and of the length. Invariants: equal content
//! has equal hashes, wherever the holes are; the time is bounded by what a file occupies.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::str::FromStr;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::{DataError, display};
use crate::base::{Digest, HexError};

/// Bytes of a block that is left out where it is zero.
const BLOCK: usize = 4096;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Separates the hash of blocks from every other one.
const BLOCKS_CONTEXT: &str = "cairn 2026-11 content of a file by its blocks of 4096 bytes that are not zero";

/// How a content is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// BLAKE3 of all bytes.
    Whole,
    /// BLAKE3 of the blocks that are not zero.
    Blocks,
}

impl Method {
    /// For a file of the source.
    pub(super) fn of(facts: &Facts) -> Self {
        let most = facts.allocated.saturating_mul(4).saturating_add(1 << 20);
        if facts.size > most { Self::Blocks } else { Self::Whole }
    }
}

/// The hash of a content; in JSON `blake3:` or `blake3-blocks:` and 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hash {
    /// How it is computed.
    pub method: Method,
    /// Its value.
    pub digest: Digest,
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.method {
            Method::Whole => "blake3",
            Method::Blocks => "blake3-blocks",
        };
        write!(f, "{name}:{}", self.digest)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl FromStr for Hash {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let (method, digits) = match text.split_once(':') {
            Some(("blake3", digits)) => (Method::Whole, digits),
            Some(("blake3-blocks", digits)) => (Method::Blocks, digits),
            _ => return Err(HexError::Digit),
        };
        Ok(Self { method, digest: digits.parse()? })
    }
}

impl TryFrom<String> for Hash {
    type Error = HexError;

    fn try_from(text: String) -> Result<Self, HexError> {
        text.parse()
    }
}

/// Hashes a content whose pieces come in order.
pub(super) struct ContentHasher {
    method: Method,
    inner: blake3::Hasher,
    /// Up to where the content is hashed.
    at: u64,
    /// A block that has come in part, and its number.
    block: Box<[u8; BLOCK]>,
    number: u64,
}

impl ContentHasher {
    pub(super) fn new(method: Method) -> Self {
        let inner = match method {
            Method::Whole => blake3::Hasher::new(),
            Method::Blocks => blake3::Hasher::new_derive_key(BLOCKS_CONTEXT),
        };
        Self { method, inner, at: 0, block: Box::new([0; BLOCK]), number: 0 }
    }

    /// A piece at an offset; before it, from the end of the last one, the content is zero.
    pub(super) fn data(&mut self, offset: u64, mut bytes: &[u8]) {
        if self.method == Method::Whole {
            self.zeros(offset);
            self.inner.update(bytes);
            self.at = offset + bytes.len() as u64;
            return;
        }
        let mut at = offset;
        while !bytes.is_empty() {
            let (number, start) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            if number != self.number {
                self.finish_block();
                self.number = number;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - start));
            self.block[start..start + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            bytes = rest;
        }
    }

    fn zeros(&mut self, until: u64) {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        while self.at < until {
            let length = (until - self.at).min(ZEROS.len() as u64);
            self.inner.update(&ZEROS[..length as usize]);
            self.at += length;
        }
    }

    fn finish_block(&mut self) {
        if self.block.iter().any(|byte| *byte != 0) {
            self.inner.update(&self.number.to_le_bytes());
            self.inner.update(&self.block[..]);
            self.block.fill(0);
        }
    }

    /// * `size`: of the whole content in bytes.
    pub(super) fn finish(mut self, size: u64) -> Hash {
        match self.method {
            Method::Whole => self.zeros(size),
            Method::Blocks => {
                self.finish_block();
                self.inner.update(&size.to_le_bytes());
            }
        }
        Hash { method: self.method, digest: Digest(*self.inner.finalize().as_bytes()) }
    }
}

/// Reads a file of a known size without its holes.
pub(super) struct Content {
    buffer: Vec<u8>,
}

impl Content {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; PIECE] }
    }

    /// Reads a file, hands on each piece with its offset, and gives the hash.
    ///
    /// * `path`: for messages.
    pub(super) fn read(
        &mut self,
        file: &File,
        size: u64,
        method: Method,
        path: &[u8],
        mut piece: impl FnMut(u64, &[u8]) -> Result<(), DataError>,
    ) -> Result<Hash, DataError> {
        let failure = |error: Errno| DataError::read(path, error);
        let mut hasher = ContentHasher::new(method);
        let mut at = 0;
        while at < size {
            // A file system that knows no holes has data up to the end.
            let (start, end) = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, size),
                Ok(start) => (start, rustix::fs::seek(file, SeekFrom::Hole(start)).map_err(failure)?.min(size)),
                Err(error) => return Err(failure(error)),
            };
            at = start;
            while at < end {
                let length = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
                let read = file.read_at(&mut self.buffer[..length], at);
                let count = read.map_err(|error| DataError::read(path, error))?;
                if count == 0 {
                    return Err(DataError::InUse { path: display(path) });
                }
                hasher.data(at, &self.buffer[..count]);
                piece(at, &self.buffer[..count])?;
                at += count as u64;
            }
        }
        Ok(hasher.finish(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(method: Method, size: u64, pieces: &[(u64, &[u8])]) -> String {
        let mut hasher = ContentHasher::new(method);
        for (offset, bytes) in pieces {
            hasher.data(*offset, bytes);
        }
        hasher.finish(size).to_string()
    }

    /// The first value is that of the empty input in BLAKE3's test vectors.
    #[test]
    fn a_whole_content_has_the_hash_of_all_its_bytes() {
        let empty = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(hash(Method::Whole, 0, &[]), empty);
        let mut bytes = vec![0; 50_000];
        bytes[20_000..20_003].copy_from_slice(b"abc");
        let expected = format!("blake3:{}", Digest::of(&bytes));
        assert_eq!(hash(Method::Whole, 50_000, &[(20_000, b"abc")]), expected);
        assert_eq!(hash(Method::Whole, 50_000, &[(0, &bytes[..9_000]), (9_000, &bytes[9_000..])]), expected);
        assert_eq!(expected.parse::<Hash>().expect("a hash").to_string(), expected);
    }

    #[test]
    fn the_hash_of_blocks_depends_on_the_content_and_not_on_its_holes() {
        let mut bytes = vec![0; 3 * BLOCK + 5];
        bytes[BLOCK - 1] = 1;
        bytes[BLOCK] = 2;
        bytes[3 * BLOCK + 4] = 3;
        let size = bytes.len() as u64;
        let whole = hash(Method::Blocks, size, &[(0, &bytes)]);
        let at = BLOCK as u64;
        let sparse = hash(Method::Blocks, size, &[(at - 1, &[1, 2]), (3 * at + 4, &[3])]);
        assert_eq!(whole, sparse);
        for other in [
            hash(Method::Blocks, size + 1, &[(0, &bytes)]),
            hash(Method::Blocks, size, &[(at - 1, &[1]), (3 * at + 4, &[3])]),
            hash(Method::Blocks, size, &[(at - 1, &[1, 2]), (2 * at + 4, &[3])]),
            hash(Method::Blocks, size, &[(at - 2, &[1, 2]), (3 * at + 4, &[3])]),
        ] {
            assert_ne!(whole, other);
        }
    }
}
