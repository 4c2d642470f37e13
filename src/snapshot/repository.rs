//! Where snapshots are kept: a directory or a bucket, with or without encryption.
//!
//! Invariants: a file has its name only when it is whole and, in a directory, on stable storage. Segment files are named
//! by their content, so one that is there need not be written again. Files are streamed, never held in memory; only
//! manifests are.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::bucket::{Bucket, BucketConfig, BucketError};
use super::crypt::{Key, KeyError};
use super::manifest::{ManifestError, SegmentEntry, SnapshotManifest};
use crate::base::{Digest, Fault, UnixMillis};

pub(super) const SEGMENTS: &str = "segments";
const MANIFESTS: &str = "snapshots";
const ENCRYPTED: &str = ".age";
const PARTIAL: &str = ".partial-";
/// Manifests are read into memory; a node with a million segments has one of 300 MiB.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A prefix of a bucket.
    Bucket(BucketConfig),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Bucket(bucket) => write!(f, "s3://{}/{}", bucket.bucket, bucket.prefix),
        }
    }
}

/// Why a repository did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bucket failed.
    #[error("{name} in the bucket")]
    Bucket {
        /// What was asked for.
        name: String,
        /// What the service said.
        source: BucketError,
    },
    /// A file that a manifest names is not there.
    #[error("{name} is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A file's content is not what the manifest says.
    #[error("{name}: digest is {actual}, the manifest says {expected}")]
    DigestMismatch {
        /// Its name.
        name: String,
        /// What it should be.
        expected: String,
        /// What it is.
        actual: Digest,
    },
    /// A manifest cannot be used.
    #[error("{name}")]
    Manifest {
        /// Its name.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// The file is encrypted and there is no key.
    #[error("{name} is encrypted; set snapshot.encryption_key_file to the key that it was written with")]
    NoKey {
        /// Its name.
        name: String,
    },
    /// The file does not open with the key.
    #[error(
        "{name} does not open with the key of snapshot.encryption_key_file: the key is another one, or the file is damaged"
    )]
    WrongKey {
        /// Its name.
        name: String,
    },
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no such snapshot.
    #[error("there is no snapshot {id} in {target}; `cairn snapshot list` shows what there is")]
    NoSuchSnapshot {
        /// What was asked for.
        id: String,
        /// Where.
        target: String,
    },
    /// There is no snapshot at all.
    #[error("there is no snapshot in {target}; `cairn snapshot create` makes one")]
    Empty {
        /// Where.
        target: String,
    },
}

impl RepositoryError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Write { .. } => Fault::Environment,
            Self::Bucket { source, .. } => source.fault(),
            Self::Missing { .. } | Self::DigestMismatch { .. } => Fault::Damage,
            Self::Manifest { source, .. } => source.fault(),
            Self::NoKey { .. } | Self::WrongKey { .. } | Self::NoSuchSnapshot { .. } | Self::Empty { .. } => {
                Fault::Caller
            }
            Self::Key(error) => error.fault(),
        }
    }
}

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Name within its folder.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// When it got its place.
    pub(super) since: UnixMillis,
}

/// A snapshot in the repository.
#[derive(Debug)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its manifest, if that can be read.
    pub manifest: Result<SnapshotManifest, RepositoryError>,
}

/// An open repository. Its calls block; bucket calls are carried out on the given runtime, so none may be made from one of
/// its own tasks.
pub struct Repository {
    place: Place,
    key: Option<Key>,
    target: Target,
}

enum Place {
    Directory(PathBuf),
    Bucket(Bucket),
}

impl Repository {
    /// Opens the repository at `target`; a directory is made when the first file is written.
    ///
    /// # Errors
    /// When the target's settings or the key cannot be used.
    pub fn open(target: &Target, key_file: Option<&Path>, runtime: &Handle) -> Result<Self, RepositoryError> {
        let key = key_file.map(Key::read).transpose()?;
        let place = match target {
            Target::Directory(path) => Place::Directory(path.clone()),
            Target::Bucket(config) => {
                let opened = Bucket::open(config, runtime.clone());
                Place::Bucket(opened.map_err(|source| RepositoryError::Bucket { name: config.bucket.clone(), source })?)
            }
        };
        Ok(Self { place, key, target: target.clone() })
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The name that a file of this content gets.
    pub(super) fn segment_name(&self, first: u64, end: u64, digest: &Digest) -> String {
        let suffix = if self.key.is_some() { ENCRYPTED } else { "" };
        format!("{first:020}-{end}-{}.seg{suffix}", &digest.to_string()[..32])
    }

    /// The segment files there are.
    pub(super) fn segments(&self) -> Result<Vec<Stored>, RepositoryError> {
        self.list(SEGMENTS)
    }

    /// Stores a segment file under a name of [`Self::segment_name`].
    pub(super) fn put_segment(&self, name: &str, path: &Path) -> Result<(), RepositoryError> {
        match (&self.place, &self.key) {
            (Place::Directory(_), None) => {
                self.place_file(SEGMENTS, name, |partial| {
                    // A link costs nothing and shares the blocks; sealed segments are never changed.
                    if fs::hard_link(path, partial).is_ok() { Ok(()) } else { copy(path, partial) }
                })
            }
            (Place::Directory(_), Some(key)) => self.place_file(SEGMENTS, name, |partial| {
                let mut out = BufWriter::new(create(partial)?);
                key.encrypt(File::open(path)?, &mut out)?;
                out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
            }),
            (Place::Bucket(bucket), None) => self.asked(name, bucket.upload(&format!("{SEGMENTS}/{name}"), path)),
            (Place::Bucket(bucket), Some(key)) => {
                let sealed = tempfile_beside(path, ENCRYPTED);
                let encrypt = || -> io::Result<()> {
                    let mut out = BufWriter::new(create(&sealed)?);
                    key.encrypt(File::open(path)?, &mut out)?;
                    out.flush()
                };
                let encrypted = encrypt().map_err(|source| RepositoryError::Write { path: sealed.clone(), source });
                let put =
                    encrypted.and_then(|()| self.asked(name, bucket.upload(&format!("{SEGMENTS}/{name}"), &sealed)));
                // Not there when it could not be made.
                let _ = fs::remove_file(&sealed);
                put
            }
        }
    }

    /// Brings a segment file to `to`, which must have the digest of the manifest. One that is there already and has it
    /// stays. `progress` is told the bytes.
    pub(super) fn fetch_segment(
        &self,
        entry: &SegmentEntry,
        to: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), RepositoryError> {
        let name = &entry.file;
        let expected = entry.digest().ok_or_else(|| RepositoryError::Missing { name: name.clone() })?;
        if let Ok(there) = digest_of(to, &mut |_| {})
            && there == expected
        {
            progress(entry.bytes);
            return Ok(());
        }
        let partial = to.with_extension("partial");
        self.fetch(SEGMENTS, name, &partial)?;
        let actual = digest_of(&partial, progress);
        let actual = actual.map_err(|source| RepositoryError::Read { path: partial.clone(), source })?;
        if actual != expected {
            let _ = fs::remove_file(&partial);
            return Err(RepositoryError::DigestMismatch {
                name: format!("{SEGMENTS}/{name}"),
                expected: expected.to_string(),
                actual,
            });
        }
        let placed = File::open(&partial).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&partial, to));
        placed.map_err(|source| RepositoryError::Write { path: to.to_owned(), source })
    }

    /// Brings a file to `to`, decrypted.
    fn fetch(&self, folder: &str, name: &str, to: &Path) -> Result<(), RepositoryError> {
        let whole = format!("{folder}/{name}");
        let stored = match &self.place {
            Place::Directory(root) => root.join(&whole),
            Place::Bucket(bucket) => {
                let download = if name.ends_with(ENCRYPTED) { tempfile_beside(to, ENCRYPTED) } else { to.to_owned() };
                self.asked(&whole, bucket.download(&whole, &download))?;
                download
            }
        };
        let read = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => RepositoryError::Missing { name: whole.clone() },
            _ => RepositoryError::Read { path: stored.clone(), source },
        };
        if name.ends_with(ENCRYPTED) {
            let key = self.key.as_ref().ok_or_else(|| RepositoryError::NoKey { name: whole.clone() })?;
            let file = BufReader::with_capacity(1 << 20, File::open(&stored).map_err(read)?);
            let _ = fs::remove_file(to);
            let out = create(to).map_err(|source| RepositoryError::Write { path: to.to_owned(), source })?;
            let mut out = BufWriter::new(out);
            let decrypted = key.decrypt(file, &mut out).and_then(|()| out.flush());
            if matches!(self.place, Place::Bucket(_)) {
                let _ = fs::remove_file(&stored);
            }
            return decrypted.map_err(|source| match source.kind() {
                io::ErrorKind::InvalidData => RepositoryError::WrongKey { name: whole.clone() },
                _ => RepositoryError::Read { path: stored.clone(), source },
            });
        }
        if stored != to {
            File::open(&stored).map_err(read)?;
            let _ = fs::remove_file(to);
            copy(&stored, to).map_err(|source| RepositoryError::Write { path: to.to_owned(), source })?;
        }
        Ok(())
    }

    /// Stores a manifest: from then on the snapshot exists. Returns its size.
    pub(super) fn put_manifest(&self, manifest: &SnapshotManifest) -> Result<u64, RepositoryError> {
        let mut bytes = manifest.encode();
        let mut name = format!("{}.json", manifest.id);
        if let Some(key) = &self.key {
            let mut sealed = Vec::new();
            key.encrypt(&bytes[..], &mut sealed)
                .map_err(|source| RepositoryError::Write { path: PathBuf::from(&name), source })?;
            (bytes, name) = (sealed, name + ENCRYPTED);
        }
        let size = bytes.len() as u64;
        match &self.place {
            Place::Directory(_) => self.place_file(MANIFESTS, &name, |partial| {
                let mut file = create(partial)?;
                file.write_all(&bytes)?;
                file.sync_all()
            })?,
            Place::Bucket(bucket) => self.asked(&name, bucket.put(&format!("{MANIFESTS}/{name}"), bytes))?,
        }
        Ok(size)
    }

    /// Every snapshot, newest first, those that cannot be read too.
    ///
    /// # Errors
    /// When the repository cannot be listed.
    pub fn snapshots(&self) -> Result<Vec<Listed>, RepositoryError> {
        let mut names: Vec<String> = self.list(MANIFESTS)?.into_iter().map(|stored| stored.name).collect();
        names.retain(|name| id_of(name).is_some());
        names.sort_unstable_by(|left, right| right.cmp(left));
        Ok(names
            .into_iter()
            .map(|name| Listed { id: id_of(&name).unwrap_or_default().to_owned(), manifest: self.manifest(&name) })
            .collect())
    }

    /// Ids of all snapshots, newest first.
    pub(super) fn ids(&self) -> Result<Vec<String>, RepositoryError> {
        let names = self.list(MANIFESTS)?;
        let mut ids: Vec<String> = names.iter().filter_map(|stored| id_of(&stored.name).map(str::to_owned)).collect();
        ids.sort_unstable_by(|left, right| right.cmp(left));
        Ok(ids)
    }

    /// The snapshot with this id.
    ///
    /// # Errors
    /// When there is none, or its manifest cannot be read.
    pub fn snapshot(&self, id: &str) -> Result<SnapshotManifest, RepositoryError> {
        let names = self.list(MANIFESTS)?;
        match names.iter().find(|stored| id_of(&stored.name) == Some(id)) {
            Some(stored) => self.manifest(&stored.name),
            None => Err(RepositoryError::NoSuchSnapshot { id: id.to_owned(), target: self.target.to_string() }),
        }
    }

    fn manifest(&self, name: &str) -> Result<SnapshotManifest, RepositoryError> {
        let whole = format!("{MANIFESTS}/{name}");
        let stored = match &self.place {
            Place::Directory(root) => {
                let path = root.join(&whole);
                let read = File::open(&path).and_then(|file| {
                    let mut bytes = Vec::new();
                    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).map(|_| bytes)
                });
                read.map_err(|source| RepositoryError::Read { path, source })?
            }
            Place::Bucket(bucket) => self.asked(&whole, bucket.get(&whole, MANIFEST_BYTES_MAX))?,
        };
        let bytes = if name.ends_with(ENCRYPTED) {
            let key = self.key.as_ref().ok_or_else(|| RepositoryError::NoKey { name: whole.clone() })?;
            let mut plain = Vec::new();
            key.decrypt(&stored[..], &mut plain).map_err(|_| RepositoryError::WrongKey { name: whole.clone() })?;
            plain
        } else {
            stored
        };
        let manifest = SnapshotManifest::decode(&bytes)
            .map_err(|source| RepositoryError::Manifest { name: whole.clone(), source })?;
        if Some(manifest.id.as_str()) != id_of(name) {
            return Err(RepositoryError::Manifest { name: whole, source: ManifestError::Damaged });
        }
        Ok(manifest)
    }

    pub(super) fn remove_snapshot(&self, id: &str) -> Result<(), RepositoryError> {
        for stored in self.list(MANIFESTS)? {
            if id_of(&stored.name) == Some(id) {
                self.remove(MANIFESTS, &stored.name)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_segment(&self, name: &str) -> Result<(), RepositoryError> {
        self.remove(SEGMENTS, name)
    }

    fn remove(&self, folder: &str, name: &str) -> Result<(), RepositoryError> {
        match &self.place {
            Place::Directory(root) => {
                let path = root.join(folder).join(name);
                let removed = fs::remove_file(&path).and_then(|()| sync_dir(&root.join(folder)));
                removed.map_err(|source| RepositoryError::Write { path, source })
            }
            Place::Bucket(bucket) => self.asked(name, bucket.delete(&format!("{folder}/{name}"))),
        }
    }

    /// The files of a folder. In a directory, leftovers of interrupted writes are removed on the way.
    fn list(&self, folder: &str) -> Result<Vec<Stored>, RepositoryError> {
        let root = match &self.place {
            Place::Bucket(bucket) => return self.asked(folder, bucket.list(folder)),
            Place::Directory(root) => root.join(folder),
        };
        let read = |source| RepositoryError::Read { path: root.clone(), source };
        let entries = match fs::read_dir(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(read)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(read)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Removed meanwhile by somebody else.
            let Ok(metadata) = entry.metadata() else { continue };
            // A link keeps the time of its content; the change of the inode is when it was linked here.
            let since = UnixMillis(metadata.ctime().saturating_mul(1_000));
            if metadata.is_file() && !name.starts_with('.') {
                found.push(Stored { name, bytes: metadata.len(), since });
            }
        }
        Ok(found)
    }

    /// Makes a file under a temporary name with `make`, which syncs it, then gives it its own.
    fn place_file(
        &self,
        folder: &str,
        name: &str,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), RepositoryError> {
        let Place::Directory(root) = &self.place else { unreachable!("buckets place objects themselves") };
        let folder = root.join(folder);
        let path = folder.join(name);
        let place = || -> io::Result<()> {
            create_dirs(&folder)?;
            let partial = folder.join(format!("{PARTIAL}{}-{name}", std::process::id()));
            let _ = fs::remove_file(&partial);
            let made = make(&partial).and_then(|()| fs::rename(&partial, &path)).and_then(|()| sync_dir(&folder));
            // Still there when something failed, or when both names are links of one file.
            let _ = fs::remove_file(&partial);
            made
        };
        place().map_err(|source| RepositoryError::Write { path: path.clone(), source })
    }

    fn asked<T>(&self, name: &str, result: Result<T, BucketError>) -> Result<T, RepositoryError> {
        result.map_err(|source| match source {
            BucketError::NotFound => RepositoryError::Missing { name: name.to_owned() },
            source => RepositoryError::Bucket { name: name.to_owned(), source },
        })
    }

    /// Whether the repository lies on the file system of `data_dir`.
    #[must_use]
    pub fn is_beside(&self, data_dir: &Path) -> bool {
        let Place::Directory(root) = &self.place else { return false };
        let device =
            |path: &Path| path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.dev());
        device(root) == device(data_dir)
    }
}

fn id_of(name: &str) -> Option<&str> {
    name.strip_suffix(ENCRYPTED).unwrap_or(name).strip_suffix(".json")
}

/// Digest of a file, read in pieces.
pub(super) fn digest_of(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                progress(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}

pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn create_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Copies a file to a new one and syncs it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = create(to)?;
    io::copy(&mut File::open(from)?, &mut out)?;
    out.sync_all()
}

/// A name for a temporary file in the directory of `path`.
fn tempfile_beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{PARTIAL}{}-{name}{suffix}", std::process::id()))
}
