//! One file that holds a snapshot, for a disk that is carried: a tar archive with the manifest first, then its segments.
//!
//! An archive is a repository in one file: names within it are those of a repository, and it can be encrypted like one.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use super::Progress;
use super::manifest::{ManifestError, SnapshotManifest};
use super::repository::{Repository, RepositoryError, create, create_dirs};
use crate::base::Fault;

/// Manifests are read into memory.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
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
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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
    #[error("{path} is no whole snapshot archive: {what}")]
    Content {
        /// The archive.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

impl ArchiveError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Repository(error) => error.fault(),
            Self::Read { .. } | Self::Write { .. } => Fault::Environment,
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
    if to.exists() {
        return Err(write(io::ErrorKind::AlreadyExists.into()));
    }
    // Not `partial`, which fetching the pieces uses.
    let partial = to.with_extension("incomplete");
    let piece = to.with_extension("segment");
    let result = (|| {
        let _ = fs::remove_file(&partial);
        let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, create(&partial).map_err(write)?));
        let bytes = manifest.encode();
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

fn append(archive: &mut tar::Builder<BufWriter<File>>, name: &str, length: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

/// The manifest of an archive; nothing else in it is looked at.
pub(super) fn peek(from: &Path) -> Result<SnapshotManifest, ArchiveError> {
    let read = |source| ArchiveError::Read { path: from.to_owned(), source };
    let mut archive = tar::Archive::new(BufReader::new(File::open(from).map_err(read)?));
    first(&mut archive.entries().map_err(read)?, from)
}

/// The manifest, which is the first entry.
fn first<R: Read>(entries: &mut tar::Entries<'_, R>, from: &Path) -> Result<SnapshotManifest, ArchiveError> {
    let content = |what: String| ArchiveError::Content { path: from.to_owned(), what };
    let first = entries.next().ok_or_else(|| content("it is empty".to_owned()))?;
    let mut bytes = Vec::new();
    first
        .and_then(|entry| entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| content(error.to_string()))?;
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
        // It takes the place of one that is no good.
        Err(error) if error.fault() == Fault::Damage => {}
        Err(error) => return Err(error.into()),
    }
    let (mut done, total) = (0, manifest.bytes());
    let piece = scratch.join("import.seg");
    for segment in &mut manifest.segments {
        let mut entry = entries
            .next()
            .ok_or_else(|| content(format!("segments/{} is missing", segment.file)))?
            .map_err(|error| content(error.to_string()))?;
        let name = format!("segments/{}", segment.file);
        if entry.path_bytes() != name.as_bytes() {
            return Err(content(format!("found {}, expected {name}", String::from_utf8_lossy(&entry.path_bytes()))));
        }
        let _ = fs::remove_file(&piece);
        let mut file = create(&piece).map_err(write(&piece))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = entry.read(&mut buffer).map_err(|error| content(error.to_string()))?;
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
