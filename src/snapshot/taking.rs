//! Taking snapshots: into a repository that is this node's, and what is thinned there afterwards.

use std::io;

use super::create::{CreateError, Created};
use super::manifest::{Kind, SnapshotManifest};
use super::marker;
use super::repository::{Repository, RepositoryError};
use super::state::{Shipped, State, Taken};
use super::target_check::{self, Survey};
use super::{NoProgress, Probe, Progress, Snapshots, Whose, create, prune};
use crate::base::{Lsn, with_causes};

const DAY: i64 = 24 * 60 * 60 * 1_000;

impl Snapshots {
    /// Opens the target for another snapshot: refuses one that differs from what this node left there, and marks a new
    /// one.
    ///
    /// * `anew`: missing snapshots were given up.
    pub(super) fn writable(
        &self,
        repository: &Repository,
        own: Option<&str>,
        anew: bool,
    ) -> Result<Survey, RepositoryError> {
        let mut state = State::read(&self.config.data_dir);
        if let Some(own) = own.filter(|_| anew) {
            // Given up only once something has replaced it. A key that was used stays necessary.
            let key = self.target().key();
            let is_encrypted = state.shipped(&key, own, None).is_some_and(|shipped| shipped.is_encrypted);
            state.targets.insert(key, Shipped { is_encrypted, ..Shipped::new(own, None) });
        }
        let found = target_check::survey(repository, own, &state, self.config.target.is_some());
        self.saw(Some(repository), &found, !anew);
        let mut survey = found?;
        if let Some(trouble) = survey.trouble.take_if(|trouble| trouble.forbids_writing()) {
            return Err(trouble.into());
        }
        if survey.marker.is_none() {
            let known = survey.shipped.as_ref().and_then(|shipped| shipped.repository.clone());
            let id = known.map_or_else(random_id, Ok);
            let id = id.map_err(|source| RepositoryError::Write { path: self.config.data_dir.clone(), source })?;
            let marker = marker::Marker::new(id, self.config.clock.now());
            repository.begin(&marker)?;
            if !survey.names.is_empty() {
                tracing::info!(snapshot_target = %repository.target(), id = marker.id, "a repository of an earlier release was marked");
            }
            survey.marker = Some(marker);
        }
        Ok(survey)
    }

    /// Takes a snapshot of a running node.
    ///
    /// * `anew`: missing snapshots were given up, and the target is accepted as it is.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn create(
        &self,
        node: &dyn Probe,
        kind: Kind,
        anew: bool,
        progress: &dyn Progress,
    ) -> Result<Created, CreateError> {
        let _writing = self.writing.lock();
        if node.library().log().last() == Lsn::ZERO {
            return Err(CreateError::Empty);
        }
        let progress = &self.track("create", progress);
        let created = self.try_create(node, kind, anew, progress);
        if let Err(error) = &created {
            self.failed("create");
            // A problem with the target is detected there, and ends there.
            if !matches!(error, CreateError::Repository(RepositoryError::Target(_))) {
                self.remember(|state| state.create_failure = Some(with_causes(error)));
            }
        }
        created
    }

    fn try_create(
        &self,
        node: &dyn Probe,
        kind: Kind,
        anew: bool,
        progress: &dyn Progress,
    ) -> Result<Created, CreateError> {
        let own = node.library().log().node().to_string();
        let repository = self.repository()?;
        let survey = self.writable(&repository, Some(&own), anew)?;
        let about =
            create::About { kind, now: self.config.clock.now(), configuration: self.live().configuration.clone() };
        let created = create::create(&repository, &survey, node, about, &self.runtime, progress)?;
        let id = &created.manifest.id;
        self.remember(|state| {
            let key = repository.target().key();
            state.created = Some(Taken::of(&created.manifest, &key));
            state.create_failure = None;
            if anew {
                state.targets.remove(&key);
            }
            self.add(state, &repository, &survey, &own, id);
        });
        let host = if repository.is_encrypting() { String::new() } else { host() };
        let note = marker::Note::new(own.clone(), host, id.clone(), self.config.clock.now());
        if let Err(error) = repository.put_note(&note) {
            // The snapshot is there; only a machine that remembers nothing would not miss it.
            tracing::warn!(error = with_causes(&error), "cannot record the newest snapshot in the repository");
        }
        match self.last_check.lock().as_mut() {
            Some(look) => look.add(id, self.config.clock.now()),
            None => unreachable!("the place was looked at above"),
        }
        if anew {
            // The entries in the last note are outdated by now.
            self.survey(&repository, Some(&own))?;
        }
        if kind == Kind::Shipped {
            self.thin(&repository, &survey, &created.manifest)?;
        }
        Ok(created)
    }

    /// Remembers a snapshot that is in the repository.
    pub(super) fn add(&self, state: &mut State, repository: &Repository, survey: &Survey, own: &str, id: &str) {
        let place = survey.marker.as_ref().map(|marker| marker.id.clone());
        let known = survey.shipped.clone().unwrap_or_else(|| Shipped::new(own, None));
        let there = state.targets.entry(repository.target().key()).or_insert(known);
        if there.node != own {
            *there = survey.shipped.clone().unwrap_or_else(|| Shipped::new(own, None));
        }
        there.repository = place;
        there.is_encrypted |= repository.is_encrypting();
        there.is_complete = true;
        there.snapshots.insert(id.to_owned());
    }

    /// Forgets a snapshot that is about to be removed, so that it is not reported as missing.
    pub(super) fn forget(&self, id: &str) {
        self.remember(|state| {
            if let Some(shipped) = state.targets.get_mut(&self.target().key()) {
                shipped.snapshots.remove(id);
            }
        });
    }

    /// Removes shipped snapshots that the latest one makes superfluous: one each minute would be 10,000 a week.
    ///
    /// * `survey`: the previous content.
    fn thin(&self, repository: &Repository, survey: &Survey, newest: &SnapshotManifest) -> Result<(), RepositoryError> {
        for id in survey.own_snapshots().filter(|id| **id < *newest.id) {
            let Ok(older) = repository.snapshot(id) else { continue };
            if older.kind != Kind::Shipped || !prune::replaces(newest, &older) {
                // Earlier ones were checked when this one was taken.
                break;
            }
            self.forget(id);
            repository.remove_snapshot(id)?;
            if let Some(look) = self.last_check.lock().as_mut() {
                look.snapshots -= 1;
            }
        }
        Ok(())
    }

    /// Ships the log if it changed since the newest existing snapshot. Returns the snapshot taken.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub fn ship(&self, node: &dyn Probe) -> Result<Option<Created>, CreateError> {
        let last = node.library().log().last();
        let state = State::read(&self.config.data_dir);
        let key = self.target().key();
        let is_shipped = state.created.as_ref().is_some_and(|taken| taken.last == last && taken.target == key);
        // Shipped snapshots that are missing or incomplete are shipped again.
        let is_there = self.last_check.lock().as_ref().is_none_or(|look| {
            let is_missing = |taken: &Taken| look.missing.contains(&taken.id);
            !matches!(look.state, "incomplete" | "unreadable") && !state.created.as_ref().is_some_and(is_missing)
        });
        let fresh = is_shipped && is_there && state.create_failure.is_none();
        if last == Lsn::ZERO {
            return Ok(None);
        }
        let now = self.config.clock.now();
        let due = state.scheduled.is_none_or(|day| day < now.0.div_euclid(DAY));
        if fresh && !due {
            return Ok(None);
        }
        let kind = if due { Kind::Scheduled } else { Kind::Shipped };
        let created = self.create(node, kind, false, &NoProgress)?;
        if due {
            self.remember(|state| state.scheduled = Some(now.0.div_euclid(DAY)));
            self.prune(&Whose::Own, false)?;
        }
        Ok(Some(created))
    }
}

fn random_id() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(crate::base::NodeId(random).to_string())
}

/// The name of this machine.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().chars().take(64).collect()
}
