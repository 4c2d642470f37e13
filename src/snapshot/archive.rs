//! One file that holds a snapshot, for a disk that is carried: a tar archive with the manifest first, then its segments.
//!
//! An archive is a repository in one file: names within it are those of a repository, and it can be encrypted like one.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use super::Progress;
use super::manifest::{ManifestError, SnapshotManifest};
use super::repository::{Repository, RepositoryError, create, create_dirs};
use crate::base::{ByteSize, Fault};

/// Manifests are read into memory.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// The block size of a tar archive.
const BLOCK: u64 = 512;
/// The last part of an archive's name.
pub const EXTENSION: &str = "cairn-snapshot";

/// Why a snapshot was not written to a file, or not read from one.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is a file of that name.
    #[error("{path} is there already; remove it, or write to another file")]
    Exists {
        /// Which one.
        path: PathBuf,
    },
    /// There is no room for the file.
    #[error("{path} needs {needed}, and {free} are free there; make room or write it elsewhere")]
    Space {
        /// Which one.
        path: PathBuf,
        /// Its length, and that of the segment that is being copied.
        needed: ByteSize,
        /// Free space there for an ordinary process.
        free: ByteSize,
    },
    /// It is another kind of file.
    #[error("{path} is not a snapshot file: expected one that `cairn snapshot export` wrote")]
    Another {
        /// Which one.
        path: PathBuf,
    },
    /// The manifest in it cannot be used.
    #[error("{path}")]
    Manifest {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// It is something else, or was cut.
    #[error("{path} is not a complete snapshot archive: {what}")]
    Content {
        /// The archive.
        path: PathBuf,
        /// The error found.
        what: String,
    },
}

impl ArchiveError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Repository(error) => error.fault(),
            Self::Read { .. } | Self::Write { .. } | Self::Space { .. } => Fault::Environment,
            Self::Exists { .. } | Self::Another { .. } => Fault::Caller,
            Self::Manifest { source, .. } => source.fault(),
            Self::Content { .. } => Fault::Damage,
        }
    }
}

/// Writes a snapshot to a file that does not exist yet; every segment is checked on the way. Plain, also from an encrypted
/// repository.
pub(super) fn export(
    repository: &Repository,
    manifest: &SnapshotManifest,
    to: &Path,
    progress: &dyn Progress,
) -> Result<u64, ArchiveError> {
    let write = |source| ArchiveError::Write { path: to.to_owned(), source };
    if to.symlink_metadata().is_ok() {
        return Err(ArchiveError::Exists { path: to.to_owned() });
    }
    let bytes = manifest.encode();
    check_space(manifest, bytes.len() as u64, to)?;
    // Not `partial`, which fetching the pieces uses.
    let partial = beside(to, ".incomplete");
    let piece = beside(to, ".segment");
    let result = (|| {
        let _ = fs::remove_file(&partial);
        let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, create(&partial).map_err(write)?));
        append(&mut archive, &format!("snapshots/{}.json", manifest.id), bytes.len() as u64, &bytes[..])
            .map_err(write)?;
        let (mut done, total) = (0, manifest.bytes());
        for segment in &manifest.segments {
            let _ = fs::remove_file(&piece);
            repository.fetch_segment(segment, &piece, &mut |read| {
                done += read;
                progress.report("exporting", done, total);
            })?;
            let file = File::open(&piece).map_err(write)?;
            append(&mut archive, &format!("segments/{}", segment.file), segment.bytes, file).map_err(write)?;
        }
        let mut out = archive.into_inner().map_err(write)?;
        out.flush().map_err(write)?;
        let file = out.into_inner().map_err(|error| write(error.into_error()))?;
        file.sync_all().map_err(write)?;
        let length = file.metadata().map_err(write)?.len();
        fs::rename(&partial, to).map_err(write)?;
        Ok(length)
    })();
    // Left over only when something failed.
    let _ = fs::remove_file(&partial);
    let _ = fs::remove_file(&piece);
    result
}

/// A name next to `path` with the same beginning.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(end);
    path.with_file_name(name)
}

/// Refuses what there is no room for: the file, and the segment that was fetched for it.
fn check_space(manifest: &SnapshotManifest, manifest_bytes: u64, to: &Path) -> Result<(), ArchiveError> {
    // A member has a header and is filled up to a whole block; two empty ones end the archive.
    let member = |bytes: u64| (bytes.div_ceil(BLOCK) + 1) * BLOCK;
    let segments = manifest.segments.iter().map(|segment| segment.bytes);
    let largest = segments.clone().max().unwrap_or_default();
    let needed = member(manifest_bytes) + segments.map(member).sum::<u64>() + 2 * BLOCK + largest;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match super::too_little(folder, needed) {
        Some(free) => Err(ArchiveError::Space { path: to.to_owned(), needed: ByteSize(needed), free: ByteSize(free) }),
        None => Ok(()),
    }
}

fn append(archive: &mut tar::Builder<BufWriter<File>>, name: &str, length: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

/// The manifest of an archive; the rest is not read.
pub(super) fn peek(from: &Path) -> Result<SnapshotManifest, ArchiveError> {
    let read = |source| ArchiveError::Read { path: from.to_owned(), source };
    let mut archive = tar::Archive::new(BufReader::new(File::open(from).map_err(read)?));
    first(&mut archive.entries().map_err(read)?, from)
}

/// Reading an archive failed. The library's message for a damaged one would repeat its content.
fn torn(from: &Path, at: &str, source: io::Error) -> ArchiveError {
    match source.raw_os_error() {
        Some(_) => ArchiveError::Read { path: from.to_owned(), source },
        None => ArchiveError::Content { path: from.to_owned(), what: format!("it is damaged or cut at {at}") },
    }
}

/// The manifest, which is the first entry.
fn first<R: Read>(entries: &mut tar::Entries<'_, R>, from: &Path) -> Result<SnapshotManifest, ArchiveError> {
    let another = || ArchiveError::Another { path: from.to_owned() };
    let entry = match entries.next() {
        Some(Ok(entry)) => entry,
        // For an invalid archive, the library's message repeats the file's content.
        Some(Err(error)) if error.raw_os_error().is_none() => return Err(another()),
        Some(Err(source)) => return Err(ArchiveError::Read { path: from.to_owned(), source }),
        None => return Err(another()),
    };
    if !entry.path_bytes().starts_with(b"snapshots/") {
        return Err(another());
    }
    let mut bytes = Vec::new();
    entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| torn(from, "its manifest", error))?;
    SnapshotManifest::decode(&bytes).map_err(|source| ArchiveError::Manifest { path: from.to_owned(), source })
}

/// Puts the snapshot of an archive into a repository. Every segment is checked before the manifest is written.
pub(super) fn import(
    repository: &Repository,
    from: &Path,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<SnapshotManifest, ArchiveError> {
    let read = |source| ArchiveError::Read { path: from.to_owned(), source };
    let content = |what: String| ArchiveError::Content { path: from.to_owned(), what };
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::Write { path, source }
    };
    create_dirs(scratch).map_err(write(scratch))?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, File::open(from).map_err(read)?));
    let mut entries = archive.entries().map_err(read)?;
    let mut manifest = first(&mut entries, from)?;
    match repository.snapshot(&manifest.id) {
        Err(RepositoryError::NoSuchSnapshot { .. }) => {}
        Ok(there) if there.node == manifest.node && there.last == manifest.last => {}
        Ok(_) => {
            return Err(content(format!("{} has another snapshot of its id, {}", repository.target(), manifest.id)));
        }
        // It replaces an invalid one.
        Err(error) if error.fault() == Fault::Damage => {}
        Err(error) => return Err(error.into()),
    }
    let (mut done, total) = (0, manifest.bytes());
    let piece = scratch.join("import.seg");
    for segment in &mut manifest.segments {
        let name = format!("segments/{}", segment.file);
        let mut entry = entries
            .next()
            .ok_or_else(|| content(format!("{name} is missing")))?
            .map_err(|error| torn(from, &name, error))?;
        if entry.path_bytes() != name.as_bytes() {
            return Err(content(format!("another file is where {name} belongs")));
        }
        let _ = fs::remove_file(&piece);
        let mut file = create(&piece).map_err(write(&piece))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = entry.read(&mut buffer).map_err(|error| torn(from, &name, error))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(write(&piece))?;
            done += count as u64;
            progress.report("importing", done, total);
        }
        file.sync_all().map_err(write(&piece))?;
        let actual = crate::base::Digest(*hasher.finalize().as_bytes());
        if actual.to_string() != segment.blake3 {
            return Err(content(format!("{name}: digest is {actual}, the manifest says {}", segment.blake3)));
        }
        segment.file = repository.segment_name(segment.first.0, segment.end.0, &actual);
        repository.put_segment(&segment.file, &piece, &actual)?;
    }
    let _ = fs::remove_file(&piece);
    repository.put_manifest(&manifest)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::SegmentEntry;
    use super::super::manifest::tests::{manifest, segment};
    use super::*;

    #[test]
    fn room_is_looked_for_before_anything_is_written() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let to = folder.path().join("stick");
        let small = segment(1, 2, 0);
        let huge = SegmentEntry { bytes: 1 << 60, ..small.clone() };
        check_space(&manifest(&[("a", 1)], vec![small]), 1_000, &to).expect("there is room");
        let refusal = check_space(&manifest(&[("a", 1)], vec![huge]), 1_000, &to).expect_err("no disk has so much");
        assert!(matches!(refusal, ArchiveError::Space { .. }), "{refusal}");
    }
}
