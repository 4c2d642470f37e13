//! Where a copy is made: the paths, the record of it next to the target, and what refuses it before anything is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use serde::{Deserialize, Serialize};

use super::copy::CopyRequest;
use super::facts::{Facts, Identity, open_handle};
use super::manifest::line;
use super::walk::Measure;
use super::{DataError, RawText, bytes_of, display, name_of, real_folder};
use crate::base::{ByteSize, small_file};
use crate::deploy::write_file;

/// What is known of the copy in a folder: `.NAME.cairn-migrate.json` next to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    cairn_migrate: u32,
    pub(super) source: RawText,
    pub(super) manifest: RawText,
    complete: bool,
}

/// The paths of a copy, without links on them.
pub(super) struct Paths {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) marker: PathBuf,
    pub(super) manifest: PathBuf,
}

impl Paths {
    pub(super) fn of(request: &CopyRequest<'_>) -> Result<Self, DataError> {
        let source = real_folder(request.source)?;
        let shown = || name_of(request.target);
        let target = match request.target.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => real_name(request.target)?,
            Err(error) => return Err(DataError::read(bytes_of(request.target), error)),
        };
        if target.exists() && !target.is_dir() {
            return Err(DataError::Kind { path: shown() });
        }
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(DataError::NotEmpty { target: shown() });
        };
        let near = |end: &str| {
            let mut near = std::ffi::OsString::from(".");
            near.push(name);
            near.push(end);
            parent.join(near)
        };
        let marker = near(".cairn-migrate.json");
        let manifest = request.manifest.map_or_else(|| Ok(near(".cairn-manifest.jsonl")), real_name)?;
        let this = Self { source, target, marker, manifest };
        this.check()?;
        Ok(this)
    }

    /// Refuses paths of which one is in the other, also where a folder has two paths.
    fn check(&self) -> Result<(), DataError> {
        let inside = |inner: &Path, outer: &Path| DataError::Inside { inner: name_of(inner), outer: name_of(outer) };
        if is_inside(&self.target, &self.source)? {
            return Err(inside(&self.target, &self.source));
        }
        if is_inside(&self.source, &self.target)? {
            return Err(inside(&self.source, &self.target));
        }
        for tree in [&self.source, &self.target] {
            if is_inside(&self.manifest, tree)? {
                return Err(DataError::ManifestInside { path: name_of(&self.manifest), tree: name_of(tree) });
            }
        }
        Ok(())
    }

    pub(super) fn read_marker(&self) -> Result<Option<Marker>, DataError> {
        let bytes = match small_file::read(&self.marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|error| DataError::read(bytes_of(&self.marker), error))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| DataError::Manifest {
            path: name_of(&self.marker),
            line: error.line() as u64,
            message: format!("it is not the record of a copy: {error}; remove it and the target"),
        })
    }

    pub(super) fn write_marker(&self, complete: bool) -> Result<(), DataError> {
        let marker = Marker {
            cairn_migrate: 1,
            source: RawText::new(bytes_of(&self.source)),
            manifest: RawText::new(bytes_of(&self.manifest)),
            complete,
        };
        Ok(write_file(&self.marker, 0o600, &line(&marker))?)
    }
}

/// A path whose last part need not be there, without links before it.
fn real_name(path: &Path) -> Result<PathBuf, DataError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| DataError::Kind { path: name_of(path) })?;
    Ok(real_folder(parent)?.join(name))
}

/// Whether a path is a folder or leads through it.
fn is_inside(path: &Path, folder: &Path) -> Result<bool, DataError> {
    let identity = |path: &Path| -> Result<Option<Identity>, DataError> {
        match open_handle(CWD, bytes_of(path)).and_then(Facts::of) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            facts => Ok(Some(facts.map_err(|error| DataError::read(bytes_of(path), error))?.identity)),
        }
    };
    let Some(folder) = identity(folder)? else { return Ok(false) };
    for around in path.ancestors() {
        if identity(around)? == Some(folder) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the target holds a copy that was interrupted; an error when it holds something else.
pub(super) fn check_target(paths: &Paths, marker: Option<&Marker>, has_manifest: bool) -> Result<bool, DataError> {
    let failure = |error| DataError::read(bytes_of(&paths.target), error);
    let is_empty = match fs::read_dir(&paths.target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        entries => entries.map_err(failure)?.next().transpose().map_err(failure)?.is_none(),
    };
    if is_empty {
        return Ok(false);
    }
    let target = name_of(&paths.target);
    let Some(marker) = marker else { return Err(DataError::NotEmpty { target }) };
    if marker.source.0 != bytes_of(&paths.source) {
        return Err(DataError::OtherSource {
            target,
            found: display(&marker.source.0),
            expected: name_of(&paths.source),
        });
    }
    if has_manifest && marker.manifest.0 != bytes_of(&paths.manifest) {
        return Err(DataError::OtherManifest { target, found: display(&marker.manifest.0) });
    }
    Ok(true)
}

/// Refuses what only root can copy.
pub(super) fn owner(path: &[u8], facts: &Facts) -> Result<(), DataError> {
    let user = rustix::process::geteuid();
    if !user.is_root() && facts.uid != user.as_raw() {
        return Err(DataError::Owner { path: display(path), uid: facts.uid, gid: facts.gid });
    }
    Ok(())
}

pub(super) fn check_space(target: &Path, sum: &Measure, before: &Measure) -> Result<(), DataError> {
    let folder = if target.exists() { target } else { target.parent().unwrap_or(target) };
    let stat = rustix::fs::statvfs(folder).map_err(|error| DataError::read(bytes_of(folder), error))?;
    let needed = sum.allocated.saturating_sub(before.allocated);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let shown = || name_of(target);
    if free < needed {
        return Err(DataError::Space { target: shown(), needed: ByteSize(needed), free: ByteSize(free) });
    }
    let needed = sum.nodes.saturating_sub(before.nodes);
    // File systems that make them as they are needed count none.
    if stat.f_files > 0 && stat.f_favail < needed {
        return Err(DataError::Nodes { target: shown(), needed, free: stat.f_favail });
    }
    Ok(())
}
