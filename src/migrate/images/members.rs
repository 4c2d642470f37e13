//! The members of a tar archive, one after the other, from bytes that nobody has checked.
//!
//! The library's own iterator reads extended headers of any length into memory; this one decodes the same headers with it and refuses
//! them beyond [`EXTENDED_BYTES_MAX`].
//!
//! Invariants: memory does not depend on the archive. Where a member's content ends early, that is an error with its name.
//!
//! Source: POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Interchange Format"; GNU tar's manual, "Basic Tar Format". What has
//! content is as in Go's `archive/tar`, which Docker and containerd use.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::stream::Unpacked;

/// Headers of one member beyond the first: names, times, attributes. Go's limit.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;
/// What is wrong with a header that is something else.
pub(super) const CHECKSUM: &str = "its checksum";
/// Tar counts in blocks of so many bytes.
const BLOCK: usize = 512;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum MembersError {
    /// The bytes cannot be read or unpacked.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It ends within a member.
    #[error("it ends within {0}")]
    CutShort(String),
    /// It is not a tar.
    #[error("the header at byte {at} is invalid ({what})")]
    Header {
        /// Offset of the header.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// With content.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, to this path.
    Symlink(Vec<u8>),
    /// Another name of the file at this path of the archive.
    HardLink(Vec<u8>),
    /// A device or a pipe.
    Special,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    /// As written: it may be absolute, or have `..` in it.
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) user: u64,
    pub(super) group: u64,
    /// Length of the content.
    pub(super) bytes: u64,
}

/// Goes through the members of an archive.
pub(super) struct Members<'a, 'b> {
    from: &'a mut Unpacked<'b>,
    /// Content and padding of the last member that have not been passed.
    left: u64,
    padding: u64,
    /// Of the last member, for errors.
    name: String,
}

/// What headers before a member's own say of it.
#[derive(Debug, Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: Option<u64>,
    user: Option<u64>,
    group: Option<u64>,
}

impl<'a, 'b> Members<'a, 'b> {
    pub(super) fn new(from: &'a mut Unpacked<'b>) -> Self {
        Self { from, left: 0, padding: 0, name: String::new() }
    }

    /// The next member; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, MembersError> {
        let mut extended = Extended::default();
        loop {
            self.pass()?;
            let at = self.from.position();
            let Some(header) = self.header(at)? else { return Ok(None) };
            let kind = header.entry_type();
            let field = |field: &[u8], what| number(field).ok_or(MembersError::Header { at, what });
            let size = field(&header.as_old().size, "its size")?;
            if matches!(
                kind,
                EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
            ) {
                self.name = "an extended header".to_owned();
                self.content(size)?;
                if kind == EntryType::XGlobalHeader && size > EXTENDED_BYTES_MAX {
                    continue;
                }
                let bytes = self
                    .read_all(EXTENDED_BYTES_MAX)?
                    .ok_or(MembersError::Header { at, what: "an extended header of more than a megabyte" })?;
                match kind {
                    EntryType::XHeader => {
                        extended.records(&bytes).ok_or(MembersError::Header { at, what: "its extended header" })?;
                    }
                    EntryType::GNULongName => extended.name = Some(until_zero(&bytes)),
                    EntryType::GNULongLink => extended.link = Some(until_zero(&bytes)),
                    _ => {}
                }
                continue;
            }
            let link = || extended.link.clone().or_else(|| Some(header.link_name_bytes()?.into_owned()));
            let name = extended.name.clone().unwrap_or_else(|| header.path_bytes().into_owned());
            let (kind, has_content) = match kind {
                EntryType::Directory => (Kind::Folder, false),
                EntryType::Symlink => (Kind::Symlink(link().unwrap_or_default()), false),
                EntryType::Link => (Kind::HardLink(link().unwrap_or_default()), false),
                EntryType::Char | EntryType::Block | EntryType::Fifo => (Kind::Special, false),
                // Before POSIX, a folder was a file with a slash.
                _ if header.as_ustar().is_none() && header.as_gnu().is_none() && name.ends_with(b"/") => {
                    (Kind::Folder, false)
                }
                _ => (Kind::File, true),
            };
            if header.entry_type() == EntryType::GNUSparse {
                self.pass_sparse_map(&header)?;
            }
            let bytes = if has_content { extended.bytes.unwrap_or(size) } else { 0 };
            self.name = printable(&name);
            self.content(bytes)?;
            return Ok(Some(Member {
                name,
                kind,
                mode: (field(&header.as_old().mode, "its mode")? & 0o7777) as u32,
                user: extended.user.map_or_else(|| field(&header.as_old().uid, "its owner"), Ok)?,
                group: extended.group.map_or_else(|| field(&header.as_old().gid, "its group"), Ok)?,
                bytes,
            }));
        }
    }

    /// The content of the last member, which has not been read in part; `None` when it has more than `max` bytes.
    pub(super) fn read_all(&mut self, max: u64) -> Result<Option<Vec<u8>>, MembersError> {
        if self.left > max {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.from.by_ref().take(self.left).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < self.left {
            return Err(MembersError::CutShort(self.name.clone()));
        }
        self.left = 0;
        Ok(Some(bytes))
    }

    /// Where the content of the last member begins, in unpacked bytes.
    pub(super) fn position(&self) -> u64 {
        self.from.position()
    }

    /// A content of this length follows.
    fn content(&mut self, bytes: u64) -> Result<(), MembersError> {
        self.padding = (BLOCK as u64 - bytes % BLOCK as u64) % BLOCK as u64;
        self.left = bytes;
        // So that an offset never wraps.
        match self.from.position().checked_add(bytes).is_some_and(|end| end < 1 << 62) {
            true => Ok(()),
            false => Err(MembersError::CutShort(self.name.clone())),
        }
    }

    /// Passes what is left of the last member.
    fn pass(&mut self) -> Result<(), MembersError> {
        if self.from.skip(self.left)? < self.left {
            return Err(MembersError::CutShort(self.name.clone()));
        }
        // Some programs leave out the last padding.
        self.from.skip(self.padding)?;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header; `None` at the end of the archive, with or without the zeros that mark it.
    fn header(&mut self, at: u64) -> Result<Option<Header>, MembersError> {
        let mut header = Header::new_old();
        let read = self.block(header.as_mut_bytes())?;
        if read == 0 || header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if read < BLOCK {
            return Err(MembersError::CutShort("a header".to_owned()));
        }
        let sum = |value: fn(u8) -> i64| {
            let bytes = header.as_bytes().iter().enumerate();
            bytes.map(|(at, byte)| value(if (148..156).contains(&at) { b' ' } else { *byte })).sum::<i64>()
        };
        let expected = number(&header.as_old().cksum).and_then(|expected| i64::try_from(expected).ok());
        // Some old programs added signed bytes.
        let sums = [sum(i64::from), sum(|byte| i64::from(byte.cast_signed()))];
        match expected.is_some_and(|expected| sums.contains(&expected)) {
            true => Ok(Some(header)),
            false => Err(MembersError::Header { at, what: CHECKSUM }),
        }
    }

    /// Reads a block; returns how many bytes there were.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<usize> {
        let mut read = 0;
        while read < BLOCK {
            match self.from.read(&mut block[read..]) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Passes the blocks after a header of GNU's that say where a file has holes; the holes themselves are not in the archive.
    fn pass_sparse_map(&mut self, header: &Header) -> Result<(), MembersError> {
        let mut is_continued = header.as_bytes()[482] != 0;
        let mut block = [0; BLOCK];
        while is_continued {
            if self.block(&mut block)? < BLOCK {
                return Err(MembersError::CutShort("a header".to_owned()));
            }
            is_continued = block[504] != 0;
        }
        Ok(())
    }
}

impl Extended {
    /// Reads `LENGTH KEY=VALUE\n` after one another; `None` when they are not of that form.
    fn records(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            bytes = &bytes[length..];
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || std::str::from_utf8(value).ok()?.parse().ok();
            match key {
                // The second one is the true name of a file with holes.
                b"path" | b"GNU.sparse.name" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.bytes = Some(number()?),
                b"uid" => self.user = Some(number()?),
                b"gid" => self.group = Some(number()?),
                _ => {}
            }
        }
        Some(())
    }
}

/// A number in a header: octal digits, or GNU's binary form. Some programs leave out zeros, which the library refuses.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        [0x80, rest @ ..] => rest.iter().try_fold(0u64, |sum, byte| Some(sum.checked_mul(256)? | u64::from(*byte))),
        _ => {
            let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
            let text = text.split('\0').next().filter(|text| !text.starts_with('+'))?;
            if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
        }
    }
}

fn until_zero(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// A name from an archive, for a message: without control characters, and cut where it is long.
pub(super) fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(512)]);
    let mut letters = text.chars();
    let mut shortened: String = letters.by_ref().take(120).flat_map(char::escape_debug).collect();
    if letters.next().is_some() {
        shortened.push('…');
    }
    shortened
}
