//! Releases on a machine, and the record of which one runs.
//!
//! A release is a folder of its own: the executable, every file that it puts elsewhere, and `release.json`, which names them.
//! So a rollback needs nothing but the folder: the same bytes are put in place again. `installation.json` says which release
//! runs, which one ran before, and which change is unfinished.
//!
//! Invariants: a folder gets its name when it is complete; the name has the digest of all that is in it, so a folder never
//! changes and two builds of one version never mix. The record is replaced whole.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tree::{Tree, TreeError};
use crate::base::{Digest, Fault};

/// Where releases and the record are.
#[must_use]
pub fn folder(tree: &Tree) -> PathBuf {
    tree.prefix().join("lib/cairn")
}

/// The link to the release that runs.
#[must_use]
pub fn current(tree: &Tree) -> PathBuf {
    folder(tree).join("current")
}

/// The command for people.
#[must_use]
pub fn command(tree: &Tree) -> PathBuf {
    tree.prefix().join("bin/cairn")
}

/// The record of what is installed.
pub(super) fn record(tree: &Tree) -> PathBuf {
    folder(tree).join("installation.json")
}

/// Format of `installation.json` and `release.json`.
const FORMAT: u16 = 1;
/// Digits of the digest in a release's name.
const NAME_DIGITS: usize = 8;
/// Most that a record may have: it is written by us, and read again by whatever version comes.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// How a node runs on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// As a service of systemd.
    Systemd,
    /// As a pod of the K3s or RKE2 server on this machine.
    K3s,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Systemd => "systemd",
            Self::K3s => "k3s",
        })
    }
}

/// A file that a release puts into the tree, and takes out again.
#[derive(Clone, PartialEq, Eq)]
pub struct ManagedFile {
    /// Where it goes.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for ManagedFile {
    /// Without the content, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes, {:o})", self.path.display(), self.bytes.len(), self.mode)
    }
}

/// The image that a release runs from, where it runs in containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Where its archive lies for K3s to import.
    pub path: PathBuf,
    /// Its name with the tag.
    pub reference: String,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// Size of the archive.
    pub bytes: u64,
    /// With a layer for GPUs: which drivers it has, as `cairn image build --gpu-drivers` takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_drivers: Option<String>,
}

/// A release, complete with the content of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Name of its folder: version and the beginning of a digest.
    pub name: String,
    /// Version of the executable.
    pub version: String,
    /// How it runs.
    pub platform: Platform,
    /// Newest format of the store that it reads.
    pub store_format: u16,
    /// What it puts into the tree in addition to its folder.
    pub files: Vec<ManagedFile>,
    /// What it runs from in a cluster.
    pub image: Option<ImageFile>,
}

#[derive(Serialize, Deserialize)]
struct ReleaseFile {
    format: u16,
    version: String,
    platform: Platform,
    store_format: u16,
    files: Vec<FileEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<ImageFile>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    path: PathBuf,
    mode: u32,
    blake3: String,
}

/// Why a release or the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file could not be read, written or removed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file is not what was written.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer release wrote it.
    #[error(
        "{path} has format {found}, newer than {FORMAT}, the newest this build reads; use the release that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
    },
    /// The executable is another one than the release was planned with.
    #[error("the executable {path} changed while it was being installed; nothing was changed, run this again")]
    OtherExecutable {
        /// Where it is.
        path: PathBuf,
    },
    /// The executable could not be read.
    #[error("cannot read the executable {path}")]
    Executable {
        /// Where it is.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl ReleaseError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Tree(error) => error.fault(),
            Self::Damaged { .. } => Fault::Damage,
            Self::Newer { .. } | Self::OtherExecutable { .. } | Self::Executable { .. } => Fault::Environment,
        }
    }
}

/// An executable that a release is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its content.
    pub digest: Digest,
}

impl Program {
    /// Reads it once, for its digest.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at(path: &Path) -> Result<Self, ReleaseError> {
        let failed = |source| ReleaseError::Executable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let (bytes, digest) = copy(&mut file, &mut io::sink()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), bytes, digest })
    }

    /// Whether a file of a tree is this executable.
    fn is_at(&self, tree: &Tree, path: &Path) -> bool {
        let Ok(path) = tree.locate(path) else { return false };
        let is_as_long = fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == self.bytes);
        is_as_long && Self::at(&path).is_ok_and(|found| found.digest == self.digest)
    }
}

/// Copies an executable; how long it is, and its digest.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<(u64, Digest)> {
    let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; 1 << 20], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok((bytes, Digest(*hasher.finalize().as_bytes()))),
            read => {
                hasher.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
                bytes += read as u64;
            }
        }
    }
}

impl Release {
    /// A release of this executable. Its name follows from all that it is made of, so a folder never changes its content.
    #[must_use]
    pub fn new(
        executable: &Program,
        version: &str,
        platform: Platform,
        store_format: u16,
        files: Vec<ManagedFile>,
        image: Option<ImageFile>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut take = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        take(&executable.digest.0);
        take(platform.to_string().as_bytes());
        for file in &files {
            take(file.path.as_os_str().as_encoded_bytes());
            take(&file.mode.to_le_bytes());
            take(&file.bytes);
        }
        let digest = hasher.finalize().to_hex();
        let name = format!("{version}-{}", &digest[..NAME_DIGITS]);
        Self { name, version: version.to_owned(), platform, store_format, files, image }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self, tree: &Tree) -> PathBuf {
        folder_of(tree, &self.name)
    }

    /// Its executable.
    #[must_use]
    pub fn executable(&self, tree: &Tree) -> PathBuf {
        self.folder(tree).join("cairn")
    }

    /// Whether its folder is there and whole, with this executable.
    #[must_use]
    pub fn is_stored(&self, tree: &Tree, executable: &Program) -> bool {
        Self::load(tree, &self.name).ok().flatten().as_ref() == Some(self)
            && executable.is_at(tree, &self.executable(tree))
    }

    /// Writes the folder, unless it is there.
    ///
    /// # Errors
    /// See [`ReleaseError`]; an incomplete folder has another name and is removed by the next attempt.
    pub fn store(&self, tree: &Tree, executable: &Program) -> Result<(), ReleaseError> {
        if self.is_stored(tree, executable) {
            return Ok(());
        }
        let partial = folder_of(tree, &format!(".{}.partial", self.name));
        tree.remove_folder(&partial)?;
        tree.make_folder(partial.join("files"), 0o755)?;
        let mut source = File::open(&executable.path)
            .map_err(|source| ReleaseError::Executable { path: executable.path.clone(), source })?;
        let mut copied = None;
        tree.write_with(partial.join("cairn"), 0o755, |file| {
            copied = Some(copy(&mut source, file)?);
            Ok(())
        })?;
        if copied != Some((executable.bytes, executable.digest)) {
            tree.remove_folder(&partial)?;
            tree.remove_if_empty(folder(tree));
            return Err(ReleaseError::OtherExecutable { path: executable.path.clone() });
        }
        let mut entries = Vec::new();
        for (number, file) in self.files.iter().enumerate() {
            // Secrets may be among them.
            tree.write(partial.join("files").join(number.to_string()), &file.bytes, 0o600)?;
            let blake3 = Digest::of(&file.bytes).to_string();
            entries.push(FileEntry { path: file.path.clone(), mode: file.mode, blake3 });
        }
        let file = ReleaseFile {
            format: FORMAT,
            version: self.version.clone(),
            platform: self.platform,
            store_format: self.store_format,
            files: entries,
            image: self.image.clone(),
        };
        let text = serde_json::to_vec_pretty(&file).expect("plain data serialises");
        tree.write(partial.join("release.json"), &text, 0o644)?;
        // What has the name is damaged, or was checked above.
        tree.remove_folder(self.folder(tree))?;
        tree.rename(partial, self.folder(tree))?;
        Ok(())
    }

    /// Reads a release's folder; `None` when there is none.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub fn load(tree: &Tree, name: &str) -> Result<Option<Self>, ReleaseError> {
        let folder = folder_of(tree, name);
        let path = folder.join("release.json");
        let Some(stored) = read_json::<ReleaseFile>(tree, &path)? else { return Ok(None) };
        let mut files = Vec::new();
        for (number, entry) in stored.files.into_iter().enumerate() {
            let path = folder.join("files").join(number.to_string());
            let damaged = |problem: &str| ReleaseError::Damaged { path: path.clone(), problem: problem.to_owned() };
            let bytes = tree.read(&path)?.ok_or_else(|| damaged("it is missing"))?;
            if Digest::of(&bytes).to_string() != entry.blake3 {
                return Err(damaged("its digest is not the one in release.json"));
            }
            files.push(ManagedFile { path: entry.path, mode: entry.mode, bytes });
        }
        Ok(Some(Self {
            name: name.to_owned(),
            version: stored.version,
            platform: stored.platform,
            store_format: stored.store_format,
            files,
            image: stored.image,
        }))
    }

    /// Puts its files in place, and takes those out that only `others` put there. What has the right content is left alone.
    ///
    /// # Errors
    /// See [`TreeError`]; doing it again completes it.
    pub fn place(&self, tree: &Tree, others: &[&Self]) -> Result<(), TreeError> {
        for file in &self.files {
            if tree.read(&file.path)?.as_deref() != Some(&file.bytes) {
                tree.make_folder(file.path.parent().unwrap_or(Path::new("/")), 0o755)?;
                tree.write(&file.path, &file.bytes, file.mode)?;
            }
        }
        let own: BTreeSet<&Path> = self.files.iter().map(|file| file.path.as_path()).collect();
        for other in others {
            for file in other.files.iter().filter(|file| !own.contains(file.path.as_path())) {
                tree.remove(&file.path)?;
            }
        }
        tree.link(current(tree), &self.name)?;
        let command = command(tree);
        tree.make_folder(command.parent().unwrap_or(Path::new("/")), 0o755)?;
        tree.link(command, current(tree).join("cairn"))
    }

    /// Takes out what it put in place, and the links to it.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn withdraw(&self, tree: &Tree) -> Result<(), TreeError> {
        for file in &self.files {
            tree.remove(&file.path)?;
        }
        tree.remove(current(tree))?;
        if tree.link_target(command(tree))?.as_deref() == Some(&current(tree).join("cairn")) {
            tree.remove(command(tree))?;
        }
        Ok(())
    }
}

/// Whether a name in [`FOLDER`] is a release. The link to the one that runs is none.
fn is_release(tree: &Tree, name: &str) -> Result<bool, TreeError> {
    let folder = folder_of(tree, name);
    Ok(tree.link_target(&folder)?.is_none() && tree.exists(folder.join("release.json"))?)
}

/// Whether a release can make the archive of its image again: with libraries of the machine it would be another one by now.
fn makes_its_image_again(tree: &Tree, name: &str) -> bool {
    let release = Release::load(tree, name).ok().flatten();
    release.is_none_or(|release| release.image.is_none_or(|image| image.gpu_drivers.is_none()))
}

/// Removes the archive of a release's image; a damaged release does not say where it is.
fn remove_image(tree: &Tree, name: &str) -> Result<(), TreeError> {
    match Release::load(tree, name).ok().flatten().and_then(|release| release.image) {
        Some(image) => tree.remove(image.path),
        None => Ok(()),
    }
}

/// Where the release with this name is.
fn folder_of(tree: &Tree, name: &str) -> PathBuf {
    folder(tree).join(name)
}

/// A change that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The release that is to run.
    pub to: String,
    /// The snapshot that was taken and proved before anything was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What the operator chose for it, in the place of what was chosen before; `None` where that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How a node in a cluster is reached from this machine, for every account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Its address, without a path.
    pub url: String,
    /// Where the host of that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// What is installed on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    format: u16,
    /// How the node runs.
    pub platform: Platform,
    /// The release that runs; `None` until the first one passed its checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The release before, which `rollback` runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The proved snapshot from before the change from `previous` to `current`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What was started and neither finished nor rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Where the node is, when it is in a cluster and answered once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeAddress>,
    /// What the operator chose, stored for upgrades: options by name.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub choices: serde_json::Map<String, serde_json::Value>,
}

impl Installation {
    /// Nothing yet.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self {
            format: FORMAT,
            platform,
            current: None,
            previous: None,
            snapshot: None,
            pending: None,
            node: None,
            choices: serde_json::Map::new(),
        }
    }

    /// The record of a machine; `None` when nothing was installed.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub fn read(tree: &Tree) -> Result<Option<Self>, ReleaseError> {
        read_json(tree, &record(tree))
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn write(&self, tree: &Tree) -> Result<(), TreeError> {
        tree.make_folder(folder(tree), 0o755)?;
        tree.remember_prefix()?;
        let text = serde_json::to_vec_pretty(self).expect("plain data serialises");
        tree.write(record(tree), &text, 0o644)
    }

    /// What the operator chose last, also for an unfinished change.
    #[must_use]
    pub fn chosen(&self) -> &serde_json::Map<String, serde_json::Value> {
        self.pending.as_ref().and_then(|pending| pending.choices.as_ref()).unwrap_or(&self.choices)
    }

    /// Removes the record and every release.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn remove(tree: &Tree) -> Result<(), TreeError> {
        for name in tree.list(folder(tree))? {
            if is_release(tree, &name)? || name.ends_with(".partial") {
                remove_image(tree, &name)?;
                tree.remove_folder(folder_of(tree, &name))?;
            }
        }
        tree.remove(record(tree))?;
        tree.remove_if_empty(folder(tree));
        tree.forget_prefix()
    }

    /// Removes the releases that are neither current, previous nor wanted by a change.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn prune(&self, tree: &Tree) -> Result<Vec<String>, TreeError> {
        let pending = self.pending.as_ref().map(|pending| &pending.to);
        let retained: Vec<&String> =
            [self.current.as_ref(), self.previous.as_ref(), pending].into_iter().flatten().collect();
        let mut removed = Vec::new();
        for name in tree.list(folder(tree))? {
            let is_release = is_release(tree, &name)?;
            let is_wanted = retained.contains(&&name) && !makes_its_image_again(tree, &name);
            if is_release && self.current.as_ref() != Some(&name) && pending != Some(&name) && !is_wanted {
                // A release makes it again from its executable.
                remove_image(tree, &name)?;
            }
            if (is_release && !retained.contains(&&name)) || (name.starts_with('.') && name.ends_with(".partial")) {
                tree.remove_folder(folder_of(tree, &name))?;
                removed.push(name);
            }
        }
        Ok(removed)
    }
}

fn read_json<T: serde::de::DeserializeOwned>(tree: &Tree, path: &Path) -> Result<Option<T>, ReleaseError> {
    #[derive(Deserialize)]
    struct Head {
        format: u16,
    }
    let Some(bytes) = tree.read(path)? else { return Ok(None) };
    let damaged = |problem: String| ReleaseError::Damaged { path: path.to_owned(), problem };
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(damaged(format!("it has {} bytes", bytes.len())));
    }
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if head.format > FORMAT {
        return Err(ReleaseError::Newer { path: path.to_owned(), found: head.format });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
}
