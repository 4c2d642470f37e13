//! Derived files: hashed at a checkpoint, loaded only when the hashes match.
//!
//! A directory of derived files contains, in addition to the files, `checkpoint.json` (file names, lengths and BLAKE3
//! digests, and the LSN they represent) and, while they are being written, `dirty` (the boot id of the machine at the
//! first write).
//!
//! | found at start | meaning | what happens |
//! |---|---|---|
//! | `checkpoint.json`, no `dirty` | clean stop | every listed file is hashed; a difference discards the view |
//! | `dirty` with this boot's id | the process died, the page cache did not | trusted, then caught up from the log |
//! | `dirty` with another boot id | the machine died, writes may be lost | discarded |
//! | neither | new, or tampered with | discarded |
//!
//! Discarded means: the directory is emptied and the view is rebuilt from the log.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::Lsn;

const CHECKPOINT: &str = "checkpoint.json";
const DIRTY: &str = "dirty";

/// Whether a directory of derived files can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Every file matches its hash; the files represent this LSN.
    Verified(Lsn),
    /// Written by a process that died; what it wrote is in the page cache. The view knows its own LSN.
    SameBoot,
    /// Emptied: build it from the log.
    Nothing,
}

#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    lsn: u64,
    files: Vec<CheckpointFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CheckpointFile {
    name: String,
    bytes: u64,
    blake3: String,
}

/// Identifies the running boot of this machine; a constant if the kernel does not report it.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

/// Writes a small file durably: a mark that must exist before what it marks.
///
/// # Errors
/// When it cannot be written or synced.
pub fn write_mark(path: &Path, text: &str) -> io::Result<()> {
    write_synced(path, text.as_bytes())?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Decides whether `directory` can be used, and creates or empties it as needed. A trusted `checkpoint.json` still
/// exists after this call; call [`mark_dirty`] before the first write.
///
/// # Errors
/// When the directory cannot be created or emptied.
pub fn examine(directory: &Path) -> io::Result<Trust> {
    fs::create_dir_all(directory)?;
    let trust = match fs::read_to_string(directory.join(DIRTY)) {
        Ok(boot) if boot == boot_id() && boot != "unknown" => Trust::SameBoot,
        Ok(_) => Trust::Nothing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match verify(directory) {
            Ok(lsn) => Trust::Verified(lsn),
            Err(_) => Trust::Nothing,
        },
        Err(_) => Trust::Nothing,
    };
    if trust == Trust::Nothing {
        clear(directory)?;
    }
    Ok(trust)
}

/// Removes everything in `directory`.
///
/// # Errors
/// When a file cannot be removed.
pub fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Marks the files as about to change: from now on the last checkpoint is not trusted.
///
/// # Errors
/// When the mark cannot be written durably; the caller must not write then.
pub fn mark_dirty(directory: &Path) -> io::Result<()> {
    let path = directory.join(DIRTY);
    if path.exists() {
        return Ok(());
    }
    write_mark(&path, &boot_id())
}

/// Hashes and syncs the files of `directory`, and writes a checkpoint for them at `lsn`.
///
/// The caller must not change the files during the call.
///
/// # Errors
/// When a file cannot be read or synced; the directory stays dirty then.
pub fn checkpoint(directory: &Path, lsn: Lsn) -> io::Result<()> {
    let mut files = Vec::new();
    for name in names(directory)? {
        let path = directory.join(&name);
        let file = File::open(&path)?;
        let (bytes, blake3) = hash(&path)?;
        file.sync_all()?;
        files.push(CheckpointFile { name, bytes, blake3 });
    }
    let text = serde_json::to_vec_pretty(&Checkpoint { lsn: lsn.0, files }).map_err(io::Error::other)?;
    let partial = directory.join("checkpoint.partial");
    write_synced(&partial, &text)?;
    fs::rename(&partial, directory.join(CHECKPOINT))?;
    sync_directory(directory)?;
    match fs::remove_file(directory.join(DIRTY)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sync_directory(directory)
}

/// The derived files: everything except checkpoint, mark and lock files, by name.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bookkeeping = name == CHECKPOINT || name == DIRTY || name.ends_with(".partial") || name.ends_with(".lock");
        if entry.file_type()?.is_file() && !bookkeeping {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn verify(directory: &Path) -> io::Result<Lsn> {
    let text = fs::read(directory.join(CHECKPOINT))?;
    let checkpoint: Checkpoint = serde_json::from_slice(&text).map_err(io::Error::other)?;
    for file in &checkpoint.files {
        let path: PathBuf = directory.join(&file.name);
        if file.name.contains('/') || hash(&path)? != (file.bytes, file.blake3.clone()) {
            return Err(io::Error::other(format!("{} is not as it was written", path.display())));
        }
    }
    let expected: Vec<&str> = checkpoint.files.iter().map(|file| file.name.as_str()).collect();
    if names(directory)? != expected {
        return Err(io::Error::other("a file is missing or unknown"));
    }
    Ok(Lsn(checkpoint.lsn))
}

fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_hashed_is_trusted() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path();
        assert_eq!(examine(path).expect("empty"), Trust::Nothing);
        fs::write(path.join("a.bin"), b"some bytes").expect("write");
        checkpoint(path, Lsn(7)).expect("checkpoint");
        assert_eq!(examine(path).expect("clean"), Trust::Verified(Lsn(7)));

        mark_dirty(path).expect("mark");
        assert_eq!(examine(path).expect("same boot"), Trust::SameBoot);
        fs::write(path.join(DIRTY), "another boot").expect("write");
        assert_eq!(examine(path).expect("other boot"), Trust::Nothing);
        assert!(!path.join("a.bin").exists(), "a discarded directory is emptied");
    }

    #[test]
    fn a_changed_missing_or_added_file_is_not_trusted() {
        let changes: [fn(&Path); 3] = [
            |path| fs::write(path.join("a.bin"), b"some byteS").expect("write"),
            |path| fs::remove_file(path.join("a.bin")).expect("remove"),
            |path| fs::write(path.join("b.bin"), b"").expect("write"),
        ];
        for change in changes {
            let directory = tempfile::tempdir().expect("temporary directory");
            fs::write(directory.path().join("a.bin"), b"some bytes").expect("write");
            checkpoint(directory.path(), Lsn(7)).expect("checkpoint");
            change(directory.path());
            assert_eq!(examine(directory.path()).expect("examined"), Trust::Nothing);
        }
    }
}
