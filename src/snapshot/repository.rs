//! Storage of snapshots: a directory or a bucket, with or without encryption.
//!
//! Invariants: a file gets its name only when it is complete, was read back and, in a directory, is on stable storage.
//! Segment files are named by their content, so one that exists with its length need not be written again. Files are
//! streamed, never held in memory; only manifests are. The directory itself is created by [`Repository::begin`] only:
//! writes to a target that has disappeared fail.

mod error;
mod files;
mod target;

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::bucket::{Bucket, BucketError, Http};
use super::crypt::{Key, OVERHEAD_MAX};

use super::manifest::{ManifestError, SegmentEntry, SnapshotManifest, is_id};
use super::marker::{self, MARKER, Marker, MarkerError, NOTES, Note};
use super::target_check::TargetError;
use crate::base::{Clock as _, Digest, SystemClock, UnixMillis};

pub use self::error::RepositoryError;
use self::files::{Hashing, Leftover, copy, read_back, tempfile_beside};
pub(super) use self::files::{create, create_dirs, digest_of, sync_dir};
pub use self::target::Target;

pub(super) const SEGMENTS: &str = "segments";
const MANIFESTS: &str = "snapshots";
const ENCRYPTED: &str = ".age";
const PARTIAL: &str = ".partial-";
/// A partial file older than this many milliseconds was abandoned.
const LEFTOVER_AGE: i64 = 24 * 60 * 60 * 1_000;
/// Manifests are read into memory; a node with a million segments has one of 300 MiB.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Name within its folder.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// When it got its place.
    pub(super) since: UnixMillis,
}

impl Stored {
    /// Whether the file can be the whole of something that has `bytes` bytes before encryption.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        if self.name.ends_with(ENCRYPTED) {
            self.bytes > bytes && self.bytes <= encrypted_max(bytes)
        } else {
            self.bytes == bytes
        }
    }
}

/// The most bytes that a file of `bytes` has once it is encrypted: a tag for each block of 64 KiB, and the head.
fn encrypted_max(bytes: u64) -> u64 {
    bytes + OVERHEAD_MAX + 16 * bytes.div_ceil(64 << 10)
}

/// The name of a snapshot in the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) id: String,
    pub(super) is_encrypted: bool,
}

/// A snapshot in the repository.
#[derive(Debug)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its manifest, if that can be read.
    pub manifest: Result<SnapshotManifest, RepositoryError>,
}

/// An open repository. Its calls block; bucket calls run on the given runtime, so they must not be made from one of its
/// tasks.
pub struct Repository {
    backend: Backend,
    key: Option<Key>,
    target: Target,
}

enum Backend {
    Directory(PathBuf),
    Bucket(Bucket),
}

impl Repository {
    /// Opens the repository at `target`; nothing is made.
    ///
    /// # Errors
    /// When the target's settings or the key cannot be used.
    pub(super) fn open(
        target: &Target,
        key_file: Option<&Path>,
        http: &Http,
        runtime: &Handle,
    ) -> Result<Self, RepositoryError> {
        let key = key_file.map(Key::read).transpose()?;
        let backend = match target {
            Target::Directory(path) => Backend::Directory(path.clone()),
            Target::Bucket(config) => {
                let client = http.client().map_err(BucketError::from);
                let opened = client.and_then(|client| Bucket::open(config, client, runtime.clone()));
                Backend::Bucket(
                    opened.map_err(|source| RepositoryError::Bucket { name: config.bucket.clone(), source })?,
                )
            }
        };
        Ok(Self { backend, key, target: target.clone() })
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

    /// Whether what is written gets encrypted.
    pub(super) fn is_encrypting(&self) -> bool {
        self.key.is_some()
    }

    /// Whether the place itself is there. A bucket says so when it is listed.
    pub(super) fn is_there(&self) -> Result<bool, RepositoryError> {
        let Backend::Directory(root) = &self.backend else { return Ok(true) };
        match fs::metadata(root) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(RepositoryError::Read { path: root.clone(), source: io::ErrorKind::NotADirectory.into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(RepositoryError::Read { path: root.clone(), source }),
        }
    }

    /// Makes the place, where it is a directory, and writes the marker.
    pub(super) fn begin(&self, marker: &Marker) -> Result<(), RepositoryError> {
        if let Backend::Directory(root) = &self.backend {
            if !root.exists()
                && let Some(mount_point) = super::mounts::unmounted(root)
            {
                return Err(TargetError::Unmounted { target: self.target.to_string(), mount_point }.into());
            }
            create_dirs(root).map_err(|source| RepositoryError::Write { path: root.clone(), source })?;
        }
        self.put_small("", MARKER, &marker.encode())
    }

    /// The marker; `None` in a new place, and in one that release 0.1.0 wrote.
    pub(super) fn marker(&self) -> Result<Option<Marker>, RepositoryError> {
        let wrong = |source| self.not_ours(MARKER, source);
        let found = self.read_small(MARKER, marker::BYTES_MAX)?;
        found.map(|bytes| Marker::decode(&bytes).map_err(wrong)).transpose()
    }

    /// The notes of the nodes that write here.
    pub(super) fn notes(&self) -> Result<Vec<Note>, RepositoryError> {
        let mut notes = Vec::new();
        for stored in self.list(NOTES)? {
            if let Some(id) = stored.name.strip_suffix(".json")
                && let Some(note) = self.note(id)?
            {
                notes.push(note);
            }
        }
        Ok(notes)
    }

    /// The note of one node.
    pub(super) fn note(&self, node: &str) -> Result<Option<Note>, RepositoryError> {
        let name = format!("{NOTES}/{node}.json");
        let wrong = |source| self.not_ours(&name, source);
        let found = self.read_small(&name, marker::BYTES_MAX)?;
        found.map(|bytes| Note::decode(&bytes).map_err(wrong)).transpose()
    }

    pub(super) fn put_note(&self, note: &Note) -> Result<(), RepositoryError> {
        self.put_small(NOTES, &format!("{}.json", note.node), &note.encode())
    }

    fn not_ours(&self, name: &str, source: MarkerError) -> RepositoryError {
        RepositoryError::Marker { name: name.to_owned(), target: self.target.to_string(), source }
    }

    /// A file that is read into memory; `None` when it is not there.
    fn read_small(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, RepositoryError> {
        match &self.backend {
            Backend::Directory(root) => {
                let path = root.join(name);
                let read = File::open(&path).and_then(|file| {
                    let mut bytes = Vec::new();
                    file.take(most).read_to_end(&mut bytes).map(|_| bytes)
                });
                match read {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    read => read.map(Some).map_err(|source| RepositoryError::Read { path, source }),
                }
            }
            Backend::Bucket(bucket) => match self.bucket_result(name, bucket.get(name, most)) {
                Err(RepositoryError::Missing { .. }) => Ok(None),
                read => read.map(Some),
            },
        }
    }

    /// Writes a file from memory and reads it back.
    fn put_small(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), RepositoryError> {
        match &self.backend {
            Backend::Directory(_) => self.place_file(folder, name, |partial| {
                let mut file = create(partial)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                read_back(&file, partial, &Digest::of(bytes))
            }),
            Backend::Bucket(bucket) => {
                let whole = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                self.bucket_result(&whole, bucket.put(&whole, bytes.to_vec()))
            }
        }
    }

    /// Stores a segment file under a name of [`Self::segment_name`].
    ///
    /// * `digest`: that of the file.
    pub(super) fn put_segment(&self, name: &str, path: &Path, digest: &Digest) -> Result<(), RepositoryError> {
        match (&self.backend, &self.key) {
            (Backend::Directory(_), None) => self.place_file(SEGMENTS, name, |partial| {
                // A link costs nothing and shares the blocks, which were read just now; sealed segments are never changed.
                if fs::hard_link(path, partial).is_ok() {
                    return Ok(());
                }
                let file = copy(path, partial)?;
                read_back(&file, partial, digest)
            }),
            (Backend::Directory(_), Some(key)) => self.place_file(SEGMENTS, name, |partial| {
                let mut out = BufWriter::new(Hashing { out: create(partial)?, hasher: blake3::Hasher::new() });
                key.encrypt(File::open(path)?, &mut out)?;
                let Hashing { out: file, hasher } = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                read_back(&file, partial, &Digest(*hasher.finalize().as_bytes()))
            }),
            (Backend::Bucket(bucket), None) => {
                self.bucket_result(name, bucket.upload(&format!("{SEGMENTS}/{name}"), path))
            }
            (Backend::Bucket(bucket), Some(key)) => {
                let sealed = tempfile_beside(path, ENCRYPTED);
                let encrypt = || -> io::Result<()> {
                    let mut out = BufWriter::new(create(&sealed)?);
                    key.encrypt(File::open(path)?, &mut out)?;
                    out.flush()
                };
                let encrypted = encrypt().map_err(|source| RepositoryError::Write { path: sealed.clone(), source });
                let put = encrypted
                    .and_then(|()| self.bucket_result(name, bucket.upload(&format!("{SEGMENTS}/{name}"), &sealed)));
                // Not there when it could not be made.
                let _ = fs::remove_file(&sealed);
                put
            }
        }
    }

    /// Fetches a segment file to `to`; it must have the digest in the manifest. An existing file with that digest is
    /// kept. `progress` is called with the bytes.
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
        let _leftover = Leftover(&partial);
        self.fetch(SEGMENTS, name, &partial, entry.bytes)?;
        let actual = digest_of(&partial, progress);
        let actual = actual.map_err(|source| RepositoryError::Read { path: partial.clone(), source })?;
        if actual != expected {
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
    ///
    /// * `bytes`: how long it is before encryption; a longer one is refused.
    fn fetch(&self, folder: &str, name: &str, to: &Path, bytes: u64) -> Result<(), RepositoryError> {
        let whole = format!("{folder}/{name}");
        let is_encrypted = name.ends_with(ENCRYPTED);
        let download = if is_encrypted { tempfile_beside(to, ENCRYPTED) } else { to.to_owned() };
        // Of a file that arrives encrypted nothing but its content stays.
        let _leftover = (is_encrypted && matches!(self.backend, Backend::Bucket(_))).then(|| Leftover(&download));
        let stored = match &self.backend {
            Backend::Directory(root) => root.join(&whole),
            Backend::Bucket(bucket) => {
                let most = if is_encrypted { encrypted_max(bytes) } else { bytes };
                self.bucket_result(&whole, bucket.download(&whole, &download, most))?;
                download.clone()
            }
        };
        let read = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => RepositoryError::Missing { name: whole.clone() },
            _ => RepositoryError::Read { path: stored.clone(), source },
        };
        if is_encrypted {
            let key = self.key.as_ref().ok_or_else(|| RepositoryError::NoKey { name: whole.clone() })?;
            let file = BufReader::with_capacity(1 << 20, File::open(&stored).map_err(read)?);
            let _ = fs::remove_file(to);
            let out = create(to).map_err(|source| RepositoryError::Write { path: to.to_owned(), source })?;
            let mut out = BufWriter::new(out);
            let decrypted = key.decrypt(file, &mut out).and_then(|()| out.flush());
            return decrypted.map_err(|source| match source.kind() {
                io::ErrorKind::InvalidData => RepositoryError::WrongKey { name: whole.clone() },
                _ => RepositoryError::Read { path: stored.clone(), source },
            });
        }
        if stored != to {
            File::open(&stored).map_err(read)?;
            let _ = fs::remove_file(to);
            copy(&stored, to).map(drop).map_err(|source| RepositoryError::Write { path: to.to_owned(), source })?;
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
        self.put_small(MANIFESTS, &name, &bytes)?;
        Ok(size)
    }

    /// Every snapshot, newest first, those that cannot be read too.
    ///
    /// # Errors
    /// When the repository cannot be listed.
    pub fn snapshots(&self) -> Result<Vec<Listed>, RepositoryError> {
        Ok(self.names()?.into_iter().map(|named| self.listed(named)).collect())
    }

    /// A snapshot whose name is known.
    pub(super) fn listed(&self, named: Named) -> Listed {
        let manifest = self.manifest(&named.file());
        Listed { id: named.id, manifest }
    }

    /// The names of all snapshots, newest first. A snapshot that is there both ways counts as encrypted.
    pub(super) fn names(&self) -> Result<Vec<Named>, RepositoryError> {
        let named = |stored: Stored| {
            let id = id_of(&stored.name).filter(|id| is_id(id))?.to_owned();
            Some(Named { id, is_encrypted: stored.name.ends_with(ENCRYPTED) })
        };
        let mut names: Vec<Named> = self.list(MANIFESTS)?.into_iter().filter_map(named).collect();
        names.sort_unstable_by(|left, right| right.cmp(left));
        names.dedup_by(|later, first| later.id == first.id);
        Ok(names)
    }

    /// Ids of all snapshots, newest first.
    pub(super) fn ids(&self) -> Result<Vec<String>, RepositoryError> {
        Ok(self.names()?.into_iter().map(|named| named.id).collect())
    }

    /// The snapshot with this id.
    ///
    /// # Errors
    /// When there is none, or its manifest cannot be read.
    pub fn snapshot(&self, id: &str) -> Result<SnapshotManifest, RepositoryError> {
        match self.names()?.iter().find(|named| named.id == id) {
            Some(named) => self.manifest(&named.file()),
            None => Err(RepositoryError::NoSuchSnapshot { id: id.to_owned(), target: self.target.to_string() }),
        }
    }

    fn manifest(&self, name: &str) -> Result<SnapshotManifest, RepositoryError> {
        let whole = format!("{MANIFESTS}/{name}");
        let stored = self.read_small(&whole, MANIFEST_BYTES_MAX)?;
        let stored = stored.ok_or_else(|| RepositoryError::Missing { name: whole.clone() })?;
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
        match &self.backend {
            Backend::Directory(root) => {
                let path = root.join(folder).join(name);
                let removed = fs::remove_file(&path).and_then(|()| sync_dir(&root.join(folder)));
                removed.map_err(|source| RepositoryError::Write { path, source })
            }
            Backend::Bucket(bucket) => self.bucket_result(name, bucket.delete(&format!("{folder}/{name}"))),
        }
    }

    /// The files of a folder. In a directory, leftovers of interrupted writes are removed on the way.
    fn list(&self, folder: &str) -> Result<Vec<Stored>, RepositoryError> {
        let root = match &self.backend {
            Backend::Bucket(bucket) => return self.bucket_result(folder, bucket.list(folder)),
            Backend::Directory(root) => root.join(folder),
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
            let metadata = match entry.metadata() {
                // Removed meanwhile by another process. A file that cannot be accessed for another reason must not
                // appear to be gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(read)?,
            };
            // A link keeps the time of its content; the change of the inode is when it was linked here.
            let since = UnixMillis(metadata.ctime().saturating_mul(1_000));
            if name.starts_with(PARTIAL) && SystemClock.now().0 - since.0 > LEFTOVER_AGE {
                // Another process may have done so.
                let _ = fs::remove_file(entry.path());
            }
            if metadata.is_file() && !name.starts_with('.') {
                found.push(Stored { name, bytes: metadata.len(), since });
            }
        }
        Ok(found)
    }

    /// Creates a file under a temporary name with `make`, which syncs it, then renames it.
    fn place_file(
        &self,
        folder: &str,
        name: &str,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), RepositoryError> {
        let Backend::Directory(root) = &self.backend else { unreachable!("buckets place objects themselves") };
        let folder = root.join(folder);
        let path = folder.join(name);
        let place = || -> io::Result<()> {
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => sync_dir(root)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            let partial = folder.join(format!("{PARTIAL}{}-{name}", std::process::id()));
            let _ = fs::remove_file(&partial);
            let made = make(&partial).and_then(|()| fs::rename(&partial, &path)).and_then(|()| sync_dir(&folder));
            // Still there when something failed, or when both names are links of one file.
            let _ = fs::remove_file(&partial);
            made
        };
        place().map_err(|source| RepositoryError::Write { path: path.clone(), source })
    }

    fn bucket_result<T>(&self, name: &str, result: Result<T, BucketError>) -> Result<T, RepositoryError> {
        result.map_err(|source| match source {
            BucketError::NotFound => RepositoryError::Missing { name: name.to_owned() },
            source => RepositoryError::Bucket { name: name.to_owned(), source },
        })
    }

    /// Whether the repository lies on the file system of `data_dir`.
    #[must_use]
    pub fn is_beside(&self, data_dir: &Path) -> bool {
        let Backend::Directory(root) = &self.backend else { return false };
        let device =
            |path: &Path| path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.dev());
        device(root) == device(data_dir)
    }
}

impl Named {
    fn file(&self) -> String {
        format!("{}.json{}", self.id, if self.is_encrypted { ENCRYPTED } else { "" })
    }
}

fn id_of(name: &str) -> Option<&str> {
    name.strip_suffix(ENCRYPTED).unwrap_or(name).strip_suffix(".json")
}
