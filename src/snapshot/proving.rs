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
            None => self.newest_manifest(&repository, &Whose::Own)?,
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
