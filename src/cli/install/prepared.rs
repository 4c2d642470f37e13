//! What is going to be installed, worked out and not yet agreed to: the same for a service and for a pod.
//!
//! Invariants: preparing writes nothing; what is shown is what is done, because both come from the same [`Release`].

use std::path::Path;

use anyhow::Context as _;

use super::choices::Choices;
use crate::cli::Failure;
use crate::deploy::{Finding, Installation, ManagedFile, Need, Plan, Platform, Program, Release, Tree};

/// Room for the node's first documents, in addition to what the installation itself writes.
const DATA_BYTES: u64 = 256 << 20;

/// What will be put onto the machine.
pub(super) struct PreparedInstallation {
    pub(super) release: Release,
    pub(super) program: Program,
    /// Files that outlive releases.
    pub(super) lasting: Vec<ManagedFile>,
    pub(super) choices: Choices,
    pub(super) plan: Plan,
}

/// What is there before an installation.
pub(super) struct Before {
    pub(super) record: Option<Installation>,
    /// What was found on the way to a plan.
    pub(super) findings: Vec<Finding>,
}

impl Before {
    /// Reads the record.
    pub(super) fn read(tree: &Tree) -> Result<Self, Failure> {
        Ok(Self { record: Installation::read(tree)?, findings: Vec::new() })
    }

    /// Notes what is to be said of what is installed, and of where the program goes.
    pub(super) fn note_record(&mut self, platform: Platform) {
        let Some(record) = &self.record else { return };
        if record.platform != platform {
            let message = format!("Cairn is installed here for {}; `cairn uninstall` removes that", record.platform);
            self.findings.push(Finding::obstacle("platform", message));
        }
        if let Some(pending) = &record.pending {
            let message = format!("the change to release {} did not finish; this completes it", pending.to);
            self.findings.push(Finding::warning("interrupted", message));
        }
    }

    /// Notes where the command is in no folder that shells look in.
    pub(super) fn note_prefix(&mut self, tree: &Tree) {
        let prefix = tree.prefix();
        if prefix != Path::new("/usr/local") {
            let message = format!(
                "the program is installed below {0}: run it as {0}/bin/cairn, or add {0}/bin to PATH",
                prefix.display()
            );
            self.findings.push(Finding::warning("prefix", message));
        }
    }

    /// Works out how a release comes into the place of what is there.
    ///
    /// * `data`: the folder that the node's documents go into.
    pub(super) fn plan(
        &self,
        tree: &Tree,
        release: &Release,
        program: &Program,
        lasting: &[ManagedFile],
        data: &Path,
    ) -> Result<Plan, Failure> {
        let load = |name: Option<&str>| name.map_or(Ok(None), |name| Release::load(tree, name));
        let record = self.record.as_ref();
        let current = load(record.and_then(|record| record.current.as_deref()))?;
        let pending = record.and_then(|record| record.pending.as_ref());
        let pending = load(pending.map(|pending| pending.to.as_str()))?;
        let needs = [Need { path: data.to_owned(), bytes: DATA_BYTES, what: "data" }];
        let others: Vec<&Release> = pending.iter().collect();
        let mut plan = Plan::make(tree, release, current.as_ref(), &others, program, &needs)?;
        plan.add_lasting(tree, lasting)?;
        Ok(plan)
    }
}

/// The file that is running.
pub(super) fn own_program() -> Result<std::path::PathBuf, Failure> {
    Ok(std::env::current_exe().context("cannot find the file that is running")?)
}

/// What is missing where this is not root.
pub(super) fn root_finding(why: &str) -> Option<Finding> {
    (!rustix::process::geteuid().is_root()).then(|| {
        let message = format!("this needs root: {why}; run it with sudo, or see what it would do with --dry-run");
        Finding::obstacle("root", message)
    })
}
