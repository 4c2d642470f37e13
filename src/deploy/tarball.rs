//! Tar archives whose every byte follows from what is in them: one owner, one time, no names of users, no padding beyond the
//! end that the format asks for.
//!
//! Since the headers follow from the content, a reader that knows the content can demand them byte for byte. Paths and sizes
//! that a ustar header cannot hold go into a pax header before it.

use std::io;

use tar::{EntryType, Header};

/// Tar counts in blocks of so many bytes.
pub(super) const BLOCK: usize = 512;
/// Ends an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The first size that eleven octal digits cannot say.
const USTAR_BYTES_END: u64 = 1 << 33;

/// What a header says about a member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Relative, `/` between names, no `.` or `..`; a directory ends with `/`.
    pub(super) path: &'a str,
    /// Permission bits.
    pub(super) mode: u32,
    /// User and group id.
    pub(super) owner: u64,
    /// Length of the content; 0 for a directory.
    pub(super) bytes: u64,
}

/// The header blocks of a member.
///
/// # Errors
/// `InvalidInput` when the path is none that a tar archive can hold.
pub(super) fn header(entry: Entry<'_>) -> io::Result<Vec<u8>> {
    let mut blocks = Vec::with_capacity(BLOCK);
    let mut header = plain(entry.mode, entry.owner);
    header.set_entry_type(if entry.path.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
    let fits = header.set_path(entry.path).is_ok();
    let mut records = String::new();
    if !fits {
        // The name in the header is for readers that know no pax.
        header.set_path("long-name")?;
        records += &record("path", entry.path);
    }
    if entry.bytes < USTAR_BYTES_END {
        header.set_size(entry.bytes);
    } else {
        header.set_size(0);
        records += &record("size", &entry.bytes.to_string());
    }
    if !records.is_empty() {
        let mut extended = plain(0o644, 0);
        extended.set_entry_type(EntryType::XHeader);
        extended.set_path("pax-header")?;
        extended.set_size(records.len() as u64);
        extended.set_cksum();
        blocks.extend_from_slice(extended.as_bytes());
        blocks.extend_from_slice(records.as_bytes());
        blocks.resize(blocks.len() + padding(records.len() as u64), 0);
    }
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    Ok(blocks)
}

fn plain(mode: u32, owner: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

/// Zeros between a content of this length and the next header.
pub(super) fn padding(bytes: u64) -> usize {
    (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK
}

/// Bytes that a content takes with its padding.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes + padding(bytes) as u64
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn read_back(path: &str, content: &[u8]) -> (String, Vec<u8>) {
        let mut bytes = header(Entry { path, mode: 0o644, owner: 0, bytes: content.len() as u64 }).expect("fits");
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + padding(content.len() as u64), 0);
        bytes.extend_from_slice(&END);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entry = archive.entries().expect("readable").next().expect("a member").expect("readable");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("readable");
        (path, content)
    }

    proptest! {
        /// Whatever the length of a path, another program reads it and the content back.
        #[test]
        fn members_are_read_back(names in prop::collection::vec("[a-zé]{1,120}", 1..5), content in any::<Vec<u8>>()) {
            let path = names.join("/");
            prop_assert_eq!(read_back(&path, &content), (path, content));
        }
    }

    #[test]
    fn a_size_beyond_octal_goes_into_a_pax_header() {
        let blocks = header(Entry { path: "big", mode: 0o644, owner: 0, bytes: 1 << 33 }).expect("fits");
        assert_eq!(&blocks[BLOCK..BLOCK + 19], b"19 size=8589934592\n");
        assert_eq!(blocks.len(), 3 * BLOCK);
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        assert_eq!(record("path", "x"), "9 path=x\n");
        // One more byte makes one more digit, which makes two more bytes.
        assert!(record("path", "xx").starts_with("11 "));
        for length in [1, 2, 90, 91, 92, 989, 990, 991] {
            let record = record("path", &"x".repeat(length));
            assert_eq!(record.split(' ').next(), Some(record.len().to_string().as_str()));
        }
    }
}
