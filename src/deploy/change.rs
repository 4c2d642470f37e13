//! A change of what runs on a machine: install, upgrade, roll back, remove. One transaction each.
//!
//! Invariants:
//! * Every step can be done again, so whatever was interrupted is completed, or rolled back, by the next call.
//! * The record says what was begun before anything is put in place, and what runs only after it answered.
//! * A release that fails its checks is removed again, and the one before runs with the same bytes as before; data
//!   that the new one wrote in a format that the old one cannot read is restored from the snapshot that was proved before.

use std::error::Error;

use serde_json::{Map, Value};

use super::release::{Installation, Pending, Platform, Program, Release, ReleaseError};
use super::tree::{Tree, TreeError};
use crate::base::{Fault, with_causes};

/// What an outside helper says went wrong, in words for the operator.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Makes releases run on a machine.
pub trait Runner {
    /// Brings what a release needs, from its own folder, before its files are in place: an image. Fine when it is there.
    ///
    /// # Errors
    /// In words for the operator.
    fn stage(&mut self, release: &Release) -> Result<(), Cause>;

    /// Makes what outlives releases: users, folders, secrets. Fine when they exist.
    ///
    /// # Errors
    /// In words for the operator.
    fn prepare(&mut self, release: &Release) -> Result<(), Cause>;

    /// Makes a release run whose files are in place, and waits until it does.
    ///
    /// # Errors
    /// When it does not; with what its log says.
    fn start(&mut self, release: &Release) -> Result<(), Cause>;

    /// Ends it, so that nothing holds the data, until a release is started again.
    ///
    /// # Errors
    /// When it continues to run.
    fn stop(&mut self, release: &Release) -> Result<(), Cause>;

    /// Ends it for good, before its files are withdrawn. Data stays.
    ///
    /// # Errors
    /// When it continues to run.
    fn retire(&mut self, release: &Release) -> Result<(), Cause>;

    /// Ends a first installation that failed its checks: as [`Runner::retire`], and what it made in vain goes too.
    ///
    /// # Errors
    /// When it continues to run.
    fn abandon(&mut self, release: &Release) -> Result<(), Cause> {
        self.retire(release)
    }

    /// Removes what a release that failed its checks left behind, unless the one that runs in its place has it.
    ///
    /// # Errors
    /// In words for the operator.
    fn clear(&mut self, _failed: &Release, _instead: Option<&Release>) -> Result<(), Cause> {
        Ok(())
    }

    /// Lets the machine forget what was withdrawn.
    ///
    /// # Errors
    /// In words for the operator.
    fn forget(&mut self, release: &Release) -> Result<(), Cause>;
}

/// The node of a machine, as a change sees it.
pub trait Node {
    /// Takes a snapshot and proves it; its id. `None` when there is no data yet.
    ///
    /// # Errors
    /// When there is data and no proved snapshot of it.
    fn secure(&mut self) -> Result<Option<String>, Cause>;

    /// Waits until the node is ready, and asks it something.
    ///
    /// # Errors
    /// When it is not ready in time, or answers wrongly.
    fn self_test(&mut self) -> Result<(), Cause>;

    /// The format that its data is written in; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn data_format(&mut self) -> Result<Option<u16>, Cause>;

    /// Checks that [`Node::restore`] will find a snapshot, while the node still runs.
    ///
    /// # Errors
    /// When it will not, with what can be done instead.
    fn check_restore(&mut self, _snapshot: &str) -> Result<(), Cause> {
        Ok(())
    }

    /// Brings the data of a stopped node back to a snapshot, by a release that reads it.
    ///
    /// # Errors
    /// When the data stays as it is.
    fn restore(&mut self, release: &Release, snapshot: &str) -> Result<(), Cause>;
}

/// Shows what is being done.
pub trait Report {
    /// A step begins.
    fn step(&self, what: &str);

    /// A step begins that is about what runs rather than about files.
    fn running(&self, what: &str) {
        self.step(what);
    }
}

/// How a change ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The release that runs.
    pub current: String,
    /// The release that ran before, if another one did.
    pub previous: Option<String>,
    /// The snapshot from before the change.
    pub snapshot: Option<String>,
}

/// Why a change was not made. What ran before runs, except where the error says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A file could not be read, written or removed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A release or the record could not be read or written.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The node is installed in another way.
    #[error(
        "Cairn is installed here for {found}; `cairn uninstall` removes that and keeps the data, then install for {wanted}"
    )]
    OtherPlatform {
        /// How it is installed.
        found: Platform,
        /// How it was to be.
        wanted: Platform,
    },
    /// Nothing is installed.
    #[error("Cairn is not installed {location}; `cairn install` does that")]
    NotInstalled {
        /// Where it was expected, as [`Tree::location`] says it.
        location: String,
    },
    /// There is no release to roll back to.
    #[error("there is no release before {current} to roll back to")]
    NothingBefore {
        /// The release that runs.
        current: String,
    },
    /// A record names a release that is gone.
    #[error(
        "release {name} is recorded, but its folder is missing; run `cairn install` with the release that you want"
    )]
    ReleaseGone {
        /// Its name.
        name: String,
    },
    /// The release cannot read the data.
    #[error(
        "release {name} reads data up to format {supported}, and the data is written in format {found}; nothing was changed. {way}"
    )]
    DataTooNew {
        /// The release.
        name: String,
        /// Format of the data.
        found: u16,
        /// Newest format that the release reads.
        supported: u16,
        /// What can be done.
        way: String,
    },
    /// Nothing was changed, because the data could not be secured.
    #[error("the data could not be secured before the change; nothing was changed")]
    NotSecured {
        /// What was wrong.
        #[source]
        source: Cause,
    },
    /// The snapshot from before the change could not be restored.
    #[error("snapshot {snapshot} could not be restored, and the data is as it was; {runs}")]
    NotRestored {
        /// The snapshot.
        snapshot: String,
        /// What runs now.
        runs: String,
        /// What was wrong.
        #[source]
        source: Cause,
    },
    /// The new release failed its checks and was rolled back.
    #[error("{name} failed its checks and was rolled back; {runs}")]
    RolledBack {
        /// The release.
        name: String,
        /// What runs instead.
        runs: String,
        /// What was wrong with it.
        #[source]
        source: Cause,
    },
    /// The new release failed its checks, and so does the old one.
    #[error(
        "{name} failed its checks, and the previous release does not run either ({back}); `cairn rollback` tries again"
    )]
    RollbackFailed {
        /// The release.
        name: String,
        /// What went wrong on the way back.
        back: String,
        /// What was wrong with the new one.
        #[source]
        source: Cause,
    },
    /// What runs could not be ended or forgotten.
    #[error("{name} could not be removed; run this again")]
    NotRemoved {
        /// The release.
        name: String,
        /// What was wrong.
        #[source]
        source: Cause,
    },
}

impl ChangeError {
    /// Nothing is installed in a tree.
    #[must_use]
    pub fn not_installed(tree: &Tree) -> Self {
        Self::NotInstalled { location: tree.location() }
    }

    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Tree(error) => error.fault(),
            Self::Release(error) => error.fault(),
            Self::OtherPlatform { .. }
            | Self::NotInstalled { .. }
            | Self::NothingBefore { .. }
            | Self::DataTooNew { .. } => Fault::Caller,
            Self::ReleaseGone { .. } => Fault::Damage,
            Self::NotSecured { .. }
            | Self::NotRestored { .. }
            | Self::RolledBack { .. }
            | Self::RollbackFailed { .. }
            | Self::NotRemoved { .. } => Fault::Environment,
        }
    }
}

/// What a change works with.
pub struct Change<'a> {
    /// Where files go.
    pub tree: &'a Tree,
    /// Makes releases run.
    pub runner: &'a mut dyn Runner,
    /// The node that runs.
    pub node: &'a mut dyn Node,
    /// Shows each step.
    pub report: &'a dyn Report,
}

impl Change<'_> {
    /// Installs a release, or upgrades to it.
    ///
    /// * `choices`: what the operator chose, stored for upgrades.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn install(
        &mut self,
        to: &Release,
        executable: &Program,
        choices: Map<String, Value>,
    ) -> Result<Changed, ChangeError> {
        let record = Installation::read(self.tree)?.unwrap_or_else(|| Installation::new(to.platform));
        if record.platform != to.platform {
            return Err(ChangeError::OtherPlatform { found: record.platform, wanted: to.platform });
        }
        let way = "install a release that reads it";
        self.check_format(to, way)?;
        self.report.step(&format!("writing release {}", to.name));
        to.store(self.tree, executable)?;
        self.switch(record, to, Some(choices), None)
    }

    /// Rolls back to the release before, or rolls back a change that was interrupted.
    ///
    /// Returns `None` when what was rolled back was the first installation: nothing is installed then.
    ///
    /// * `restore_data`: whether the data goes back to the snapshot from before the upgrade, too, where the older release
    ///   cannot read it. What was written since is lost.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn rollback(&mut self, restore_data: bool) -> Result<Option<Changed>, ChangeError> {
        let mut record = Installation::read(self.tree)?.ok_or_else(|| ChangeError::not_installed(self.tree))?;
        if let Some(pending) = record.pending.clone() {
            let begun = self.load(&pending.to)?;
            self.report.step(&format!("rolling back the unfinished change to {}", pending.to));
            self.back(&mut record, &begun).map_err(|back| ChangeError::RollbackFailed {
                name: pending.to.clone(),
                back: with_causes(&*back),
                source: "the change was interrupted".into(),
            })?;
            let Installation { current, previous, .. } = record;
            return Ok(current.map(|current| Changed { current, previous, snapshot: pending.snapshot }));
        }
        let current = record.current.clone().ok_or_else(|| ChangeError::not_installed(self.tree))?;
        let Some(previous) = record.previous.clone() else { return Err(ChangeError::NothingBefore { current }) };
        let to = self.load(&previous)?;
        let way = match &record.snapshot {
            Some(snapshot) => format!(
                "`cairn rollback --restore-data` also restores snapshot {snapshot}; what was written since is lost"
            ),
            None => "there is no snapshot from before the upgrade".to_owned(),
        };
        let secured = match (self.check_format(&to, &way), record.snapshot.clone()) {
            (Err(ChangeError::DataTooNew { .. }), Some(snapshot)) if restore_data => {
                self.restore(&current, &to, &snapshot)?;
                Some(snapshot)
            }
            (checked, _) => {
                checked?;
                None
            }
        };
        self.switch(record, &to, None, secured).map(Some)
    }

    /// Stops the release that runs and brings the data back to a snapshot. Where that fails the release runs again.
    fn restore(&mut self, current: &str, to: &Release, snapshot: &str) -> Result<(), ChangeError> {
        let from = self.load(current)?;
        let failed = |runs, source| ChangeError::NotRestored { snapshot: snapshot.to_owned(), runs, source };
        let as_before = || format!("{current} runs as before");
        self.node.check_restore(snapshot).map_err(|source| failed(as_before(), source))?;
        self.report.running("stopping the node");
        self.runner.stop(&from).map_err(|source| ChangeError::NotRemoved { name: current.to_owned(), source })?;
        self.report.running(&format!("restoring snapshot {snapshot}"));
        let Err(source) = self.node.restore(to, snapshot) else { return Ok(()) };
        self.report.running("starting the node again");
        let runs = match self.runner.start(&from).and_then(|()| self.node.self_test()) {
            Ok(()) => as_before(),
            Err(error) => {
                format!("{current} does not run ({}); `cairn install` starts it again", with_causes(&*error))
            }
        };
        Err(failed(runs, source))
    }

    /// Removes what was installed. Data and snapshots are not touched.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn uninstall(&mut self) -> Result<(), ChangeError> {
        let record = Installation::read(self.tree)?.ok_or_else(|| ChangeError::not_installed(self.tree))?;
        let pending = record.pending.as_ref().map(|pending| pending.to.clone());
        let names: Vec<String> = pending.into_iter().chain(record.current).collect();
        for name in names {
            // A release whose folder is gone has left its files; what another one knows of them goes with that.
            let Some(release) = Release::load(self.tree, &name)? else { continue };
            self.remove(&release)?;
        }
        self.report.step("removing the releases");
        Installation::remove(self.tree)?;
        Ok(())
    }

    fn remove(&mut self, release: &Release) -> Result<(), ChangeError> {
        let failed = |source| ChangeError::NotRemoved { name: release.name.clone(), source };
        self.report.running("stopping the node");
        self.runner.retire(release).map_err(failed)?;
        self.report.step("removing what was put in place");
        release.withdraw(self.tree)?;
        self.runner.forget(release).map_err(failed)
    }

    fn load(&self, name: &str) -> Result<Release, ChangeError> {
        Release::load(self.tree, name)?.ok_or_else(|| ChangeError::ReleaseGone { name: name.to_owned() })
    }

    fn check_format(&mut self, to: &Release, way: &str) -> Result<(), ChangeError> {
        match self.node.data_format().map_err(|source| ChangeError::NotSecured { source })? {
            Some(found) if found > to.store_format => Err(ChangeError::DataTooNew {
                name: to.name.clone(),
                found,
                supported: to.store_format,
                way: way.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Makes `to`, whose folder is there, the release that runs.
    ///
    /// * `choices`: what was chosen for it; recorded once it runs.
    /// * `secured`: the snapshot that the data is at, where it was just restored: taking another one would have the release that ran
    ///   open it.
    fn switch(
        &mut self,
        mut record: Installation,
        to: &Release,
        choices: Option<Map<String, Value>>,
        secured: Option<String>,
    ) -> Result<Changed, ChangeError> {
        let from = match record.current.as_deref().map(|name| self.load(name)).transpose() {
            Err(error) if error.fault() == Fault::Damage => {
                self.report.step(&format!("{error}; cannot roll back to it"));
                None
            }
            from => from?,
        };
        // The same release again repairs what is in place; the release before stays what it was.
        let is_new = from.as_ref().is_none_or(|from| from.name != to.name);
        let begun = record.pending.take();
        let mut snapshot = secured.or_else(|| begun.as_ref().and_then(|begun| begun.snapshot.clone()));
        if from.is_some() && is_new && snapshot.is_none() {
            self.report.running("taking a snapshot and proving it");
            snapshot = self.node.secure().map_err(|source| ChangeError::NotSecured { source })?;
        }
        record.pending = Some(Pending { to: to.name.clone(), snapshot: snapshot.clone(), choices });
        record.write(self.tree)?;
        // Another change may have been interrupted with its files in place.
        let left = match begun {
            Some(begun) if begun.to != to.name => Release::load(self.tree, &begun.to)?,
            _ => None,
        };
        let others: Vec<&Release> = from.iter().chain(&left).collect();
        if let Err(source) = self.bring_up(to, &others) {
            let runs = from.as_ref().map_or_else(
                || "nothing is installed now; the data is kept".to_owned(),
                |from| format!("{} runs as before", from.name),
            );
            return Err(match self.back(&mut record, to) {
                Ok(()) => ChangeError::RolledBack { name: to.name.clone(), runs, source },
                Err(back) => ChangeError::RollbackFailed { name: to.name.clone(), back: with_causes(&*back), source },
            });
        }
        if let Some(left) = &left {
            self.runner
                .clear(left, Some(to))
                .map_err(|source| ChangeError::NotRemoved { name: left.name.clone(), source })?;
        }
        if is_new {
            record.previous = from.map(|from| from.name);
            record.snapshot.clone_from(&snapshot);
        }
        record.current = Some(to.name.clone());
        if let Some(choices) = record.pending.take().and_then(|pending| pending.choices) {
            record.choices = choices;
        }
        record.write(self.tree)?;
        record.prune(self.tree)?;
        Ok(Changed { current: to.name.clone(), previous: record.previous, snapshot })
    }

    fn bring_up(&mut self, to: &Release, others: &[&Release]) -> Result<(), Cause> {
        self.runner.stage(to)?;
        self.report.step("putting files in place");
        to.place(self.tree, others)?;
        self.report.running("making users and folders");
        self.runner.prepare(to)?;
        self.report.running("starting the node");
        self.runner.start(to)?;
        self.report.running("asking the node");
        self.node.self_test()
    }

    /// Puts back what `record` says runs, in the place of `to`.
    fn back(&mut self, record: &mut Installation, to: &Release) -> Result<(), Cause> {
        let snapshot = record.pending.as_ref().and_then(|pending| pending.snapshot.clone());
        match record.current.as_deref() {
            None => {
                self.report.step("removing what was installed");
                self.runner.abandon(to)?;
                to.withdraw(self.tree)?;
                self.runner.forget(to)?;
                Installation::remove(self.tree)?;
            }
            Some(name) => {
                let from = self.load(name)?;
                self.report.step(&format!("rolling back to {name}"));
                let format = self.node.data_format()?;
                if let (Some(format), Some(snapshot)) = (format, snapshot)
                    && format > from.store_format
                {
                    self.node.check_restore(&snapshot)?;
                    self.runner.stop(to)?;
                    self.report.running(&format!("restoring snapshot {snapshot}"));
                    self.node.restore(&from, &snapshot)?;
                }
                self.runner.stage(&from)?;
                from.place(self.tree, &[to])?;
                self.runner.start(&from)?;
                self.runner.clear(to, Some(&from))?;
                self.node.self_test()?;
                record.pending = None;
                record.write(self.tree)?;
                record.prune(self.tree)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
