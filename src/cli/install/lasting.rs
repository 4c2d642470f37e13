//! Files that outlive releases: made once, and the operator's from then on.

use std::path::{Path, PathBuf};

use super::machine::{CONFIG, TOKEN};
use crate::cli::Failure;
use crate::deploy::{Cause, Installation, ManagedFile, Tree};

/// The settings of a service.
pub(super) fn settings_file(text: String) -> ManagedFile {
    ManagedFile { path: CONFIG.into(), mode: 0o644, bytes: text.into_bytes() }
}

/// The token that clients use.
pub(super) fn token_file(token: &str) -> ManagedFile {
    ManagedFile { path: TOKEN.into(), mode: 0o600, bytes: format!("{token}\n").into_bytes() }
}

/// Writes those that are not there yet.
pub(super) fn write_missing(tree: &Tree, files: &[ManagedFile]) -> Result<(), Cause> {
    for file in files {
        if !tree.exists(&file.path)? {
            tree.make_folder(file.path.parent().unwrap_or(Path::new("/")), 0o755)?;
            tree.write(&file.path, &file.bytes, file.mode)?;
        }
    }
    Ok(())
}

/// Those that an installation makes: where it is the first one and is rolled back, they are removed with it.
pub(super) struct FirstFiles<'a> {
    tree: &'a Tree,
    paths: Vec<PathBuf>,
}

impl<'a> FirstFiles<'a> {
    /// Notes which of them are not there yet.
    pub(super) fn before(tree: &'a Tree, files: &[ManagedFile]) -> Result<Self, Failure> {
        let mut paths = Vec::new();
        for file in files {
            if !tree.exists(&file.path)? {
                paths.push(file.path.clone());
            }
        }
        Ok(Self { tree, paths })
    }

    /// Removes them where the installation failed and nothing is installed in the end.
    pub(super) fn after<T, E: Into<Failure>>(self, outcome: Result<T, E>) -> Result<T, Failure> {
        let error = match outcome {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error.into(),
        };
        if matches!(Installation::read(self.tree), Ok(None)) {
            for path in self.paths {
                self.tree.remove(&path)?;
                self.tree.remove_if_empty(path.parent().unwrap_or(Path::new("/")));
            }
        }
        Err(error)
    }
}
