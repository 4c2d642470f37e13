//! Large files that somebody else names and that are read in any order: programs, bundles, archives.
//!
//! Invariant: only a regular file is opened. A pipe would be waited for, and a device has no end.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file; with its length in bytes. `None` when it is something else than a regular file.
///
/// # Errors
/// As [`File::open`].
pub fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, pipe) = (folder.path().join("file"), folder.path().join("pipe"));
        fs::write(&file, "content").expect("written");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
        assert_eq!(open(&file).expect("opened").expect("a file").1, 7);
        for other in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            assert!(open(other).expect("looked at").is_none(), "{}", other.display());
        }
        assert_eq!(open(&folder.path().join("none")).expect_err("none").kind(), io::ErrorKind::NotFound);
    }
}
