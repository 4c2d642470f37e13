//! The newest snapshot of a repository that others write into.

use super::manifest::SnapshotManifest;
use super::repository::{Repository, RepositoryError};
use super::restore::RestoreError;
use super::{Snapshots, Whose};

/// Times that a newer snapshot may take the place of the one that was found.
const REPLACED_MAX: usize = 8;

impl Snapshots {
    /// The id of the newest snapshot, and its manifest or why that cannot be read.
    pub(super) fn newest_manifest(
        &self,
        repository: &Repository,
        whose: &Whose,
    ) -> Result<(String, Result<SnapshotManifest, RepositoryError>), RestoreError> {
        newest_that_stays(|| self.newest(repository, whose), |id| repository.snapshot(id))
    }
}

/// The newest snapshot and what `read` finds of it. A snapshot that is shipped takes the place of the one before, also between the
/// two looks: then the newer one is read.
fn newest_that_stays<T>(
    newest: impl Fn() -> Result<String, RestoreError>,
    read: impl Fn(&str) -> Result<T, RepositoryError>,
) -> Result<(String, Result<T, RepositoryError>), RestoreError> {
    let mut id = newest()?;
    for _ in 0..REPLACED_MAX {
        let found = read(&id);
        if !matches!(found, Err(RepositoryError::NoSuchSnapshot { .. } | RepositoryError::Missing { .. })) {
            return Ok((id, found));
        }
        let newer = newest()?;
        if newer == id {
            return Ok((id, found));
        }
        id = newer;
    }
    let found = read(&id);
    Ok((id, found))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn missing(id: &str) -> RepositoryError {
        RepositoryError::NoSuchSnapshot { id: id.to_owned(), target: "a folder".to_owned() }
    }

    #[test]
    fn a_snapshot_that_was_replaced_meanwhile_is_no_reason_to_fail() {
        let looks = Cell::new(0);
        let newest = || {
            looks.set(looks.get() + 1);
            Ok(format!("{}", looks.get().min(3)))
        };
        let read = |id: &str| if id == "3" { Ok(()) } else { Err(missing(id)) };
        let (id, found) = newest_that_stays(newest, read).expect("found");
        assert!(found.is_ok());
        assert_eq!((id.as_str(), looks.get()), ("3", 3));
    }

    #[test]
    fn one_that_is_gone_for_good_is_named() {
        let (id, found) = newest_that_stays(|| Ok("1".to_owned()), |id| Err::<(), _>(missing(id))).expect("found");
        assert!(matches!(found, Err(RepositoryError::NoSuchSnapshot { .. })), "{id}");
    }
}
