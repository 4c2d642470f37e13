//! A folder in the data directory for a restore that is tried, which goes with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RestoreError;
use super::repository;

/// A directory for one proof or search of a file, removed when dropped.
pub(super) struct Scratch {
    pub(super) path: PathBuf,
}

impl Scratch {
    pub(super) fn make(data_dir: &Path) -> Result<Self, RestoreError> {
        let mut random = [0; 6];
        getrandom::fill(&mut random)
            .map_err(|source| RestoreError::Staging { path: data_dir.to_owned(), source: io::Error::other(source) })?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}-{random}", std::process::id());
        let folder = data_dir.join("verify");
        // The remains of a killed process are useless.
        for left in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if is_abandoned(&left.path()) {
                let _ = fs::remove_dir_all(left.path());
            }
        }
        let path = folder.join(name);
        repository::create_dirs(&path).map_err(|source| RestoreError::Staging { path: path.clone(), source })?;
        Ok(Self { path })
    }
}

/// Whether its process has ended, or nothing in it changed for a day (in a container every process has the same number).
fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = name.split('-').next().unwrap_or_default();
    if !Path::new("/proc").join(process).exists() {
        return true;
    }
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > Duration::from_secs(24 * 60 * 60))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a scratch directory stays");
        }
        // Only when it is empty.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}
