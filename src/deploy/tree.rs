//! The machine's file tree, or one below another root, as an installation changes it.
//!
//! Invariants: a file that others watch (systemd, K3s) is there whole or not at all: it is written under a hidden name in its own
//! folder, synced, and renamed. What was renamed, linked or removed is on stable storage when the call returns. Every path
//! is absolute and means the tree's own root, symbolic links included, so that staging never touches the machine it runs on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::shape::CONFIG_DIR;
use crate::base::Fault;

/// Links followed in one path before it is given up, as the kernel does.
const LINKS_MAX: usize = 40;

/// What could not be done to the tree.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}{}", hint(.source))]
pub struct TreeError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The file, as people see it.
    pub path: PathBuf,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root",
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable, or use --root to stage the files elsewhere",
        io::ErrorKind::StorageFull => "; make room and run this again; it resumes where it stopped",
        _ => "",
    }
}

impl TreeError {
    /// Always the machine's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Environment
    }
}

/// The file that says where releases are, where they are in no usual place.
const PREFIX: &str = "/etc/cairn/prefix";
/// Where releases usually are.
const USUAL_PREFIX: &str = "/usr/local";

/// A root folder and what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Absolute.
    root: PathBuf,
    is_machine: bool,
    /// Below it are the releases and the command.
    prefix: PathBuf,
}

impl Tree {
    /// The machine's own tree.
    #[must_use]
    pub fn machine() -> Self {
        Self::at(PathBuf::from("/"), true)
    }

    /// The tree of an image that is being built, or of a test. A path that is not absolute is one from the folder of this process.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        // It fails for an empty path only.
        Self::at(std::path::absolute(&root).unwrap_or(root), false)
    }

    fn at(root: PathBuf, is_machine: bool) -> Self {
        let mut tree = Self { root, is_machine, prefix: PathBuf::from(USUAL_PREFIX) };
        if let Ok(Some(bytes)) = tree.read(PREFIX) {
            let path = PathBuf::from(String::from_utf8_lossy(&bytes).trim());
            if path.is_absolute() {
                tree.prefix = path;
            }
        }
        tree
    }

    /// The same, for releases below another folder.
    #[must_use]
    pub fn with_prefix(self, prefix: PathBuf) -> Self {
        Self { prefix, ..self }
    }

    /// Below which folder releases and the command are; as the options of the installation say, or its record.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Writes down where releases are, unless that is the usual place.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub(super) fn remember_prefix(&self) -> Result<(), TreeError> {
        if self.prefix == Path::new(USUAL_PREFIX) {
            return self.remove(PREFIX);
        }
        self.make_folder(CONFIG_DIR, 0o755)?;
        self.write(PREFIX, format!("{}\n", self.prefix.display()).as_bytes(), 0o644)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub(super) fn forget_prefix(&self) -> Result<(), TreeError> {
        self.remove(PREFIX)?;
        self.remove_if_empty(CONFIG_DIR);
        Ok(())
    }

    /// Where it is, as the end of a sentence: "on this machine", or below which folder.
    #[must_use]
    pub fn location(&self) -> String {
        let root = self.root.display();
        match (self.is_machine, self.root.exists()) {
            (true, _) => "on this machine".to_owned(),
            (false, true) => format!("below {root}"),
            (false, false) => format!("below {root}: there is no such folder"),
        }
    }

    /// Whether this is the machine's own tree, whose services can be started.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        self.is_machine
    }

    /// A path as people see it.
    fn display_path(&self, path: &Path) -> PathBuf {
        if self.is_machine { path.to_owned() } else { self.root.join(path.strip_prefix("/").unwrap_or(path)) }
    }

    /// Where a file of the tree lies on this machine. Links inside the tree are followed within it; what does not exist yet is
    /// taken as it is written.
    ///
    /// # Errors
    /// When links lead in a circle.
    pub fn locate(&self, path: impl AsRef<Path>) -> Result<PathBuf, TreeError> {
        let path = path.as_ref();
        if self.is_machine() {
            return Ok(path.to_owned());
        }
        let mut left: Vec<PathBuf> = vec![path.to_owned()];
        let (mut resolved, mut links) = (PathBuf::new(), 0);
        while let Some(next) = left.pop() {
            let mut parts = next.components();
            let Some(part) = parts.next() else { continue };
            left.push(parts.as_path().to_owned());
            match part {
                Component::RootDir | Component::Prefix(_) => resolved.clear(),
                Component::CurDir => {}
                Component::ParentDir => {
                    resolved.pop();
                }
                Component::Normal(name) => {
                    resolved.push(name);
                    if let Ok(target) = fs::read_link(self.root.join(&resolved)) {
                        links += 1;
                        if links > LINKS_MAX {
                            let source = rustix::io::Errno::LOOP.into();
                            return Err(TreeError {
                                action: "follow the links of",
                                path: self.display_path(path),
                                source,
                            });
                        }
                        resolved.pop();
                        left.push(target);
                    }
                }
            }
        }
        Ok(self.root.join(resolved))
    }

    /// Where the entry itself lies: a link at the end of the path is not followed.
    fn locate_entry(&self, path: &Path) -> Result<PathBuf, TreeError> {
        let folder = self.locate(path.parent().unwrap_or(Path::new("/")))?;
        Ok(path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name)))
    }

    /// A file's content; `None` when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, TreeError> {
        let path = path.as_ref();
        match fs::read(self.locate(path)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(TreeError { action: "read", path: self.display_path(path), source }),
        }
    }

    /// Whether there is anything at this path.
    ///
    /// # Errors
    /// When links lead in a circle.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool, TreeError> {
        Ok(self.locate(path)?.exists())
    }

    /// Names in a folder, sorted; none when there is no such folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<String>, TreeError> {
        let path = path.as_ref();
        let failed = |source| TreeError { action: "read", path: self.display_path(path), source };
        let entries = match fs::read_dir(self.locate(path)?) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    /// Makes a folder and its parents; fine when it exists.
    ///
    /// * `mode`: of the folders that are made.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn make_folder(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), TreeError> {
        let path = path.as_ref();
        let failed = |source| TreeError { action: "make", path: self.display_path(path), source };
        let real_path = self.locate(path)?;
        let missing: Vec<&Path> = real_path.ancestors().take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            match fs::DirBuilder::new().mode(mode).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => sync_parent(folder).map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Writes a file whole, or leaves what was there.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn write(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), TreeError> {
        self.write_with(path, mode, |file| file.write_all(bytes))
    }

    /// The same, with content that `fill` produces.
    ///
    /// # Errors
    /// See [`TreeError`]; what `fill` says is passed on.
    pub fn write_with(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        let failed = |source| TreeError { action: "write", path: self.display_path(path), source };
        let real_path = self.locate(path)?;
        let partial = partial(&real_path);
        let write = || -> io::Result<()> {
            remove_if_there(&partial)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
            // The process's mask does not count: what is asked for is what others rely on.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            fill(&mut file)?;
            file.sync_all()?;
            fs::rename(&partial, &real_path)?;
            sync_parent(&real_path)
        };
        write().map_err(|source| {
            // What is left of it takes room that may be what was missing.
            let _ = fs::remove_file(&partial);
            failed(source)
        })
    }

    /// Makes `path` a symbolic link to `target`, in the place of whatever link or file had that name.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), TreeError> {
        let (path, target) = (path.as_ref(), target.as_ref());
        let real_path = self.locate_entry(path)?;
        let partial = partial(&real_path);
        let link = || -> io::Result<()> {
            remove_if_there(&partial)?;
            std::os::unix::fs::symlink(target, &partial)?;
            fs::rename(&partial, &real_path)?;
            sync_parent(&real_path)
        };
        link().map_err(|source| TreeError { action: "link", path: self.display_path(path), source })
    }

    /// What a symbolic link says; `None` when there is no link.
    ///
    /// # Errors
    /// When links lead in a circle.
    pub fn link_target(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>, TreeError> {
        Ok(fs::read_link(self.locate_entry(path.as_ref())?).ok())
    }

    /// Removes a file or link. Fine when there is none.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), TreeError> {
        let path = path.as_ref();
        let real_path = self.locate_entry(path)?;
        let removed = match fs::remove_file(&real_path) {
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_parent(&real_path),
        };
        removed.map_err(|source| TreeError { action: "remove", path: self.display_path(path), source })
    }

    /// Removes a folder with all that is in it. Fine when there is none.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn remove_folder(&self, path: impl AsRef<Path>) -> Result<(), TreeError> {
        let path = path.as_ref();
        let real_path = self.locate_entry(path)?;
        let removed = match fs::remove_dir_all(&real_path) {
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_parent(&real_path),
        };
        removed.map_err(|source| TreeError { action: "remove", path: self.display_path(path), source })
    }

    /// Removes a folder that is empty; leaves any other.
    pub fn remove_if_empty(&self, path: impl AsRef<Path>) {
        if let Ok(real_path) = self.locate_entry(path.as_ref()) {
            // "Not empty" and "not there" are both fine.
            let _ = fs::remove_dir(real_path);
        }
    }

    /// Gives a folder the name of another one that does not exist.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), TreeError> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (old, new) = (self.locate_entry(from)?, self.locate_entry(to)?);
        fs::rename(old, &new).and_then(|()| sync_parent(&new)).map_err(|source| TreeError {
            action: "rename",
            path: self.display_path(from),
            source,
        })
    }

    /// The file system on which `path` is or would be.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn volume(&self, path: impl AsRef<Path>) -> Result<Volume, TreeError> {
        let path = path.as_ref();
        let failed = |source| TreeError { action: "ask for the free space of", path: self.display_path(path), source };
        let real_path = self.locate(path)?;
        let existing = real_path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let device = fs::metadata(existing).map_err(failed)?.dev();
        let stat = rustix::fs::statvfs(existing).map_err(|error| failed(error.into()))?;
        Ok(Volume {
            device,
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            free_files: if stat.f_files == 0 { None } else { Some(stat.f_favail) },
            is_read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }
}

/// A mounted file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// The kernel's number for it: two paths with the same one share the room.
    pub device: u64,
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Files that can still be made; `None` where there is no limit.
    pub free_files: Option<u64>,
    /// Whether nothing can be written.
    pub is_read_only: bool,
}

/// A name that neither systemd nor K3s reads: K3s skips hidden files in its manifests and unknown endings among its images.
fn partial(real_path: &Path) -> PathBuf {
    let name = real_path.file_name().unwrap_or_default().to_string_lossy();
    real_path.with_file_name(format!(".{name}.partial"))
}

fn sync_parent(real_path: &Path) -> io::Result<()> {
    File::open(real_path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_the_tree() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tree = Tree::below(directory.path());
        tree.make_folder("/srv/units", 0o755).expect("made");
        tree.make_folder("/etc", 0o755).expect("made");
        tree.link("/etc/systemd", "/srv").expect("linked");
        tree.link("/etc/up", "../../../srv").expect("linked");
        tree.write("/etc/systemd/units/a", b"1", 0o644).expect("written");
        assert_eq!(fs::read(directory.path().join("srv/units/a")).expect("there"), b"1");
        assert_eq!(tree.locate("/etc/up/units/a").expect("found"), directory.path().join("srv/units/a"));
        tree.link("/etc/one", "/etc/two").expect("linked");
        tree.link("/etc/two", "/etc/one").expect("linked");
        let circle = tree.locate("/etc/one/a").expect_err("a circle").source.raw_os_error();
        assert_eq!(circle, Some(rustix::io::Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tree = Tree::below(directory.path());
        tree.write("/a.yaml", b"old", 0o600).expect("written");
        let full = |file: &mut File| file.write_all(b"ha").and(Err(io::ErrorKind::StorageFull.into()));
        let error = tree.write_with("/a.yaml", 0o600, full).expect_err("full");
        assert!(error.to_string().contains("/a.yaml; make room"), "{error}");
        assert_eq!(tree.read("/a.yaml").expect("readable"), Some(b"old".to_vec()));
        assert_eq!(tree.list("/").expect("readable"), ["a.yaml"]);
    }

    #[test]
    fn what_an_interrupted_write_left_is_written_over() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tree = Tree::below(directory.path());
        fs::write(directory.path().join(".a.partial"), b"ha").expect("written");
        tree.write("/a", b"whole", 0o640).expect("written");
        assert_eq!(tree.list("/").expect("readable"), ["a"]);
        let mode = fs::metadata(directory.path().join("a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        tree.remove("/a").expect("removed");
        tree.remove("/a").expect("fine when it is gone");
    }
}
