//! Proving snapshots: each is restored aside, read whole and asked its questions again.

use std::time::Duration;

use super::repository::RepositoryError;
use super::restore::{self, Checked, IntegrityProblem, RestoreError, Staged};
use super::scratch::Scratch;
use super::state::{Proof, State};
use super::{Progress, Snapshots, Whose};
use crate::base::{Fault, with_causes};

/// The outcome of a verification.
#[derive(Debug)]
pub struct Verified {
    /// The snapshot.
    pub id: String,
    /// The result and the problems.
    pub checked: Checked,
    /// How long it took.
    pub took: Duration,
}

impl Snapshots {
    /// Proves a snapshot, by default the newest: fetches it, reads every frame, rebuilds the views and runs its
    /// canaries, in a directory that is removed afterwards.
    ///
    /// # Errors
    /// When it cannot be tried. Problems of the snapshot are in the result.
    pub fn verify(&self, id: Option<&str>, progress: &dyn Progress) -> Result<Verified, RestoreError> {
        let start = std::time::Instant::now();
        let verified = match self.try_verify(id, &self.track("verify", progress)) {
            // Nothing was found out: there is nothing to prove.
            Err(
                error
                @ RestoreError::Repository(RepositoryError::NoSuchSnapshot { .. } | RepositoryError::Empty { .. }),
            ) => {
                return Err(error);
            }
            verified => verified,
        };
        let (id, failure) = match &verified {
            Ok((id, checked)) => (id.clone(), checked.problems.first().map(ToString::to_string)),
            Err(error) => (id.unwrap_or("the newest snapshot").to_owned(), Some(with_causes(error))),
        };
        // Where it could not be tried, nothing was found.
        let is_unsound = verified.is_ok() && failure.is_some();
        let now = self.config.clock.now();
        if failure.is_some() {
            self.failed("verify");
        }
        self.remember(|state| {
            state.verify_tried = Some(now);
            state.is_unsound = is_unsound;
            match failure {
                None => {
                    state.verified = Some(Proof { id, time: now });
                    state.verify_failure = None;
                }
                Some(failure) => state.verify_failure = Some(format!("{id}: {failure}")),
            }
        });
        let (id, checked) = verified?;
        Ok(Verified { id, checked, took: start.elapsed() })
    }

    fn try_verify(&self, id: Option<&str>, progress: &dyn Progress) -> Result<(String, Checked), RestoreError> {
        let repository = self.repository()?;
        let (id, manifest) = match id {
            Some(id) => (id.to_owned(), repository.snapshot(id)),
            None => newest_that_stays(|| self.newest(&repository, &Whose::Own), |id| repository.snapshot(id))?,
        };
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error @ RepositoryError::Manifest { .. }) if error.fault() == Fault::Damage => {
                let problems =
                    vec![IntegrityProblem { name: format!("snapshots/{id}.json"), message: with_causes(&error) }];
                return Ok((id, Checked { problems, ..Checked::default() }));
            }
            Err(error) => return Err(error.into()),
        };
        let plan = match restore::whole(manifest) {
            Ok(plan) => plan,
            Err(RestoreError::Failed { problems }) => {
                return Ok((id, Checked { problems, ..Checked::default() }));
            }
            Err(error) => return Err(error),
        };
        let scratch = Scratch::make(&self.config.data_dir)?;
        let checked =
            restore::build(&repository, &*self.host, &plan, Staged { path: &scratch.path, keep: false }, progress)?;
        Ok((id, checked))
    }

    /// Whether the newest snapshot should be proved now.
    #[must_use]
    pub fn is_proof_due(&self) -> bool {
        let state = State::read(&self.config.data_dir);
        let every = i64::try_from(self.live().schedule.verify_interval.as_millis()).unwrap_or(i64::MAX);
        let last = state.verify_tried.max(state.verified.map(|proof| proof.time));
        every > 0
            && state.created.is_some()
            && last.is_none_or(|last| self.config.clock.now().0.saturating_sub(last.0) >= every)
    }
}

/// Times that a newer snapshot may take the place of the one that was found.
const REPLACED_MAX: usize = 8;

/// The newest snapshot and what `read` finds of it. A snapshot that is shipped takes the place of the one before, also between the two looks:
/// then the newer one is read.
fn newest_that_stays<T>(
    newest: impl Fn() -> Result<String, RestoreError>,
    read: impl Fn(&str) -> Result<T, RepositoryError>,
) -> Result<(String, Result<T, RepositoryError>), RestoreError> {
    let mut id = newest()?;
    for _ in 0..REPLACED_MAX {
        match read(&id) {
            Err(RepositoryError::NoSuchSnapshot { .. } | RepositoryError::Missing { .. }) => {}
            found => return Ok((id, found)),
        }
        let replaced = std::mem::replace(&mut id, newest()?);
        if id == replaced {
            break;
        }
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
