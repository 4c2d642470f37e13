//! What the header of an ELF file says: which processor it is for, and which other files it asks for.
//!
//! 64-bit and little-endian, as all that Cairn runs on. A file may hold anything; what is read of it is bounded, and nothing panics.
//!
//! Source: System V ABI, gabi 4.1, chapters 4 and 5, and the GNU extensions.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// No linker makes nearly so many.
const SEGMENTS_MAX: u16 = 256;
const DYNAMIC_BYTES_MAX: u64 = 1 << 16;
/// Longest name or list of folders.
const TEXT_BYTES_MAX: u64 = 4_096;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// What can be read at any place.
pub(super) trait ReadAt {
    /// Up to `most` bytes from `offset` on; fewer at the end.
    fn part(&self, offset: u64, most: u64) -> io::Result<Vec<u8>>;

    /// How many bytes there are.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn part(&self, offset: u64, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(most).map_err(io::Error::other)?];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An offset that no file has.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn part(&self, offset: u64, most: u64) -> io::Result<Vec<u8>> {
        let bounded = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.len());
        Ok(self[bounded(offset)..bounded(offset.saturating_add(most))].to_vec())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// Why a file is none.
#[derive(Debug)]
pub(super) enum ElfError {
    /// It cannot be read.
    Read(io::Error),
    /// It is something else, or damaged.
    Kind(&'static str),
    /// Its end is missing: it should have at least so many bytes.
    Cut(u64),
}

impl From<io::Error> for ElfError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    /// `e_machine`.
    pub(super) machine: u16,
    /// Whether it can be started, and is not only loaded by others.
    pub(super) has_entry: bool,
    /// The program that loads it.
    pub(super) interpreter: Option<String>,
    /// Libraries that it asks for, in its order.
    pub(super) needed: Vec<String>,
    /// Folders that it wants searched before all others.
    pub(super) run_paths: Vec<String>,
}

impl Elf {
    /// Reads the header of an executable or a library.
    pub(super) fn read(file: &(impl ReadAt + ?Sized)) -> Result<Self, ElfError> {
        let all = |offset: u64, count: usize| -> Result<Vec<u8>, ElfError> {
            let bytes = file.part(offset, count as u64)?;
            if bytes.len() == count { Ok(bytes) } else { Err(ElfError::Kind("it ends in its header")) }
        };
        let header = all(0, HEADER_BYTES)?;
        if !header.starts_with(b"\x7fELF") {
            return Err(ElfError::Kind("no ELF header"));
        }
        if header[4] != 2 || header[5] != 1 {
            return Err(ElfError::Kind("it is for processors with 32 bits or the other byte order"));
        }
        // 0 is System V, which nearly every linker writes, 3 is Linux.
        if header[7] != 0 && header[7] != 3 {
            return Err(ElfError::Kind("for another system"));
        }
        if !matches!(u16_at(&header, 16), ET_EXEC | ET_DYN) {
            return Err(ElfError::Kind("an object or core file"));
        }
        let (table, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
        if usize::from(size) != SEGMENT_BYTES || count == 0 || count > SEGMENTS_MAX {
            return Err(ElfError::Kind("a damaged header"));
        }
        let table = all(table, usize::from(count) * SEGMENT_BYTES)?;
        let segments: Vec<Segment> = table.chunks_exact(SEGMENT_BYTES).map(Segment::from).collect();
        // The table of sections is the last thing in most files, and in none that was stripped of it.
        let sections = (u64_at(&header, 40), u64::from(u16_at(&header, 58)) * u64::from(u16_at(&header, 60)));
        let parts = segments.iter().map(|segment| (segment.offset, segment.bytes)).chain([sections]);
        let end = parts.filter(|(_, bytes)| *bytes > 0).map(|(at, bytes)| at.saturating_add(bytes)).max().unwrap_or(0);
        if end > file.length()? {
            return Err(ElfError::Cut(end));
        }
        let of = |kind: u32| segments.iter().find(|segment| segment.kind == kind);

        let interpreter = of(PT_INTERP).map(|found| text_at(file, found.offset)).transpose()?;
        let dynamic = match of(PT_DYNAMIC) {
            Some(found) => all(found.offset, found.bytes.min(DYNAMIC_BYTES_MAX) as usize)?,
            None => Vec::new(),
        };
        let entries = || {
            let pairs = dynamic.chunks_exact(16).map(|entry| (u64_at(entry, 0), u64_at(entry, 8)));
            pairs.take_while(|(tag, _)| *tag != DT_NULL)
        };
        // It is written as an address; in the file it lies where the segment does that is loaded there.
        let strings = entries().find(|(tag, _)| *tag == DT_STRTAB).and_then(|(_, address)| {
            let mut loaded = segments.iter().filter(|segment| segment.kind == PT_LOAD);
            let holder = loaded.find(|segment| {
                address.checked_sub(segment.address).is_some_and(|distance| distance < segment.bytes)
            })?;
            (address - holder.address).checked_add(holder.offset)
        });
        let texts = |wanted: u64| -> Result<Vec<String>, ElfError> {
            let offsets = entries().filter(|(tag, _)| *tag == wanted).map(|(_, offset)| offset);
            let text = |offset: u64| match strings.and_then(|start| start.checked_add(offset)) {
                Some(offset) => text_at(file, offset),
                None => Err(ElfError::Kind("a damaged header")),
            };
            offsets.map(text).collect()
        };
        let needed = texts(DT_NEEDED)?;
        // The older list counts only where there is no newer one.
        let newer = texts(DT_RUNPATH)?;
        let lists = if newer.is_empty() { texts(DT_RPATH)? } else { newer };
        let folders = lists.iter().flat_map(|list| list.split(':')).filter(|folder| !folder.is_empty());
        Ok(Self {
            machine: u16_at(&header, 18),
            has_entry: u64_at(&header, 24) != 0,
            interpreter,
            needed,
            run_paths: folders.map(str::to_owned).collect(),
        })
    }
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    bytes: u64,
}

impl From<&[u8]> for Segment {
    fn from(entry: &[u8]) -> Self {
        Self { kind: u32_at(entry, 0), offset: u64_at(entry, 8), address: u64_at(entry, 16), bytes: u64_at(entry, 32) }
    }
}

/// The text at a place, which ends with a zero.
fn text_at(file: &(impl ReadAt + ?Sized), offset: u64) -> Result<String, ElfError> {
    let bytes = file.part(offset, TEXT_BYTES_MAX)?;
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(ElfError::Kind("a damaged header"))?;
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| ElfError::Kind("a name that is not UTF-8"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A small library, for tests.
#[cfg(test)]
pub(super) fn library(machine: u16, needed: &[&str], run_path: Option<&str>) -> Vec<u8> {
    const DYNAMIC: usize = HEADER_BYTES + 2 * SEGMENT_BYTES;
    let mut strings = vec![0];
    let mut entries: Vec<(u64, u64)> = Vec::new();
    let named = needed.iter().map(|name| (DT_NEEDED, *name)).chain(run_path.map(|path| (DT_RUNPATH, path)));
    for (tag, text) in named {
        entries.push((tag, strings.len() as u64));
        strings.extend(text.bytes().chain([0]));
    }
    let table = (DYNAMIC + (entries.len() + 2) * 16) as u64;
    entries.extend([(DT_STRTAB, table), (DT_NULL, 0)]);
    let total = table + strings.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\x00".to_vec();
    bytes.resize(HEADER_BYTES, 0);
    bytes[16..18].copy_from_slice(&ET_DYN.to_le_bytes());
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    bytes[54..56].copy_from_slice(&(SEGMENT_BYTES as u16).to_le_bytes());
    bytes[56..58].copy_from_slice(&2u16.to_le_bytes());
    for (kind, offset, length) in [(PT_LOAD, 0, total), (PT_DYNAMIC, DYNAMIC as u64, entries.len() as u64 * 16)] {
        bytes.extend(u64::from(kind).to_le_bytes());
        bytes.extend([offset, offset, offset, length, length, 8].map(u64::to_le_bytes).concat());
    }
    bytes.extend(entries.iter().flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat()));
    bytes.extend(strings);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_folders_are_read() {
        let found = Elf::read(&library(62, &["libc.so.6", "libm.so.6"], Some("$ORIGIN:/opt/lib"))[..]).expect("one");
        assert_eq!((found.machine, found.has_entry, found.interpreter), (62, false, None));
        assert_eq!(found.needed, ["libc.so.6", "libm.so.6"]);
        assert_eq!(found.run_paths, ["$ORIGIN", "/opt/lib"]);
    }

    proptest! {
        /// Whatever is in a file, it is answered, and alike from memory and from a disk.
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Elf::read(&bytes[..]);
        }

        /// Also where one thing is wrong with an otherwise good file, or it is cut off.
        #[test]
        fn damage_does_not_panic(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            rest in any::<prop::sample::Index>(),
        ) {
            let mut bytes = library(183, &["libc.so.6", "libvulkan.so.1"], Some("$ORIGIN"));
            for (index, byte) in damage {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            let _ = Elf::read(&bytes[..]);
            bytes.truncate(rest.index(bytes.len()));
            let from_memory = Elf::read(&bytes[..]).ok();
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &bytes).unwrap();
            prop_assert_eq!(Elf::read(&file).ok(), from_memory);
        }
    }
}
