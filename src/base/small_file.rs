//! Small files that somebody else names: settings, keys, tokens, certificates.
//!
//! Invariant: reading one takes bounded memory, whatever the path leads to: `/dev/zero` and a disk image are refused. A pipe
//! is read to its end, for shells name one in `<(command)`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Largest small file in bytes; a bundle of every public authority has a quarter of this.
pub const BYTES_MAX: u64 = 1 << 20;

/// Reads a small file.
///
/// # Errors
/// As [`std::fs::read`], and [`io::ErrorKind::FileTooLarge`] when it has more than [`BYTES_MAX`] bytes.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        let message = format!("it is larger than {} MiB", BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Reads a small file as UTF-8.
///
/// # Errors
/// As [`read`], and [`io::ErrorKind::InvalidData`] when it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8: {}", error.utf8_error())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused_and_a_file_of_the_largest_size_is_read() {
        let error = read(Path::new("/dev/zero")).expect_err("it has no end");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        let mut bytes = vec![b'a'; BYTES_MAX as usize];
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(read(&path).expect("as large as may be"), bytes);
        bytes.push(b'a');
        std::fs::write(&path, &bytes).expect("written");
        assert!(read(&path).is_err());
        std::fs::write(&path, [0xff]).expect("written");
        assert_eq!(read_to_string(&path).expect_err("not text").kind(), io::ErrorKind::InvalidData);
    }
}
