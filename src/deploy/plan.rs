//! What an installation is going to do, and whether it can: worked out before anything is touched.
//!
//! Invariants: making a plan writes nothing. Every obstacle is found at once, each with what to do about it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::release::{ManagedFile, Program, Release, ReleaseError, command, current, record};
use super::tree::Tree;
use crate::base::ByteSize;

/// Room that stays free for whatever else the machine does.
const SPARE_BYTES: u64 = 32 << 20;
/// Files that a volume must still be able to hold.
const SPARE_FILES: u64 = 256;

/// One thing that is going to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A file appears.
    Create {
        /// Where.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file gets other content.
    Replace {
        /// Where.
        path: PathBuf,
        /// Its new size.
        bytes: u64,
        /// Whether somebody changed it since Cairn put it there: the change is lost.
        was_changed: bool,
    },
    /// A file has the right content already.
    Keep {
        /// Where.
        path: PathBuf,
    },
    /// A file of the release before goes.
    Remove {
        /// Where.
        path: PathBuf,
    },
    /// A link points to the release.
    Link {
        /// Where.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// A command of the machine is run, or its API is asked.
    Run {
        /// In words.
        what: String,
    },
}

/// An obstacle, or something that should be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about, as a short name: `disk`, `port`, `clock`.
    pub about: Cow<'static, str>,
    /// Whether it has to be fixed before anything can be done.
    pub is_obstacle: bool,
    /// What was found, and what to do.
    pub message: String,
}

impl Finding {
    /// Something that has to be fixed first.
    #[must_use]
    pub fn obstacle(about: &'static str, message: impl Into<String>) -> Self {
        Self { about: about.into(), is_obstacle: true, message: message.into() }
    }

    /// Something to know.
    #[must_use]
    pub fn warning(about: &'static str, message: impl Into<String>) -> Self {
        Self { about: about.into(), is_obstacle: false, message: message.into() }
    }
}

/// A folder that something will be written to in addition to the release's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The folder.
    pub path: PathBuf,
    /// How much.
    pub bytes: u64,
    /// For what, as it is shown.
    pub what: &'static str,
}

/// What is going to happen, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub actions: Vec<Action>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

impl Plan {
    /// Whether there is no obstacle.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.findings.iter().all(|finding| !finding.is_obstacle)
    }

    /// Whether files and links are all as they should be.
    #[must_use]
    pub fn changes_files(&self) -> bool {
        self.actions.iter().any(|action| !matches!(action, Action::Keep { .. } | Action::Run { .. }))
    }

    /// Works out how `to` comes in the place of `from`.
    ///
    /// * `others`: releases whose files may be in place, as after an interrupted change.
    /// * `needs`: what is written in addition.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn make(
        tree: &Tree,
        to: &Release,
        from: Option<&Release>,
        others: &[&Release],
        executable: &Program,
        needs: &[Need],
    ) -> Result<Self, ReleaseError> {
        let mut plan = Self::default();
        let mut writes: Vec<Need> = needs.to_vec();
        if to.is_stored(tree, executable) {
            plan.actions.push(Action::Keep { path: to.executable(tree) });
        } else {
            plan.actions.push(Action::Create { path: to.executable(tree), bytes: executable.bytes });
            writes.push(Need { path: to.folder(tree), bytes: executable.bytes, what: "the executable" });
        }
        if let Some(image) = &to.image {
            if from.and_then(|from| from.image.as_ref()) == Some(image) && tree.exists(&image.path)? {
                plan.actions.push(Action::Keep { path: image.path.clone() });
            } else {
                plan.actions.push(Action::Create { path: image.path.clone(), bytes: image.bytes });
                // Once as an archive, once unpacked by containerd on the same volume.
                writes.push(Need { path: image.path.clone(), bytes: 2 * image.bytes, what: "the image" });
            }
        }
        let known: Vec<&Release> = from.into_iter().chain(others.iter().copied()).collect();
        for file in &to.files {
            plan.file(tree, file, &known, &mut writes)?;
        }
        let goes = known.iter().flat_map(|release| &release.files);
        let mut goes: Vec<&Path> = goes.map(|file| file.path.as_path()).collect();
        goes.sort_unstable();
        goes.dedup();
        goes.retain(|path| to.files.iter().all(|file| file.path != *path));
        for path in goes {
            plan.actions.push(Action::Remove { path: path.to_owned() });
        }
        let (current, command) = (current(tree), command(tree));
        for (path, target) in [(&current, PathBuf::from(&to.name)), (&command, current.join("cairn"))] {
            if tree.link_target(path)?.as_deref() == Some(&target) {
                plan.actions.push(Action::Keep { path: path.clone() });
                continue;
            }
            if path == &command && tree.link_target(path)?.is_none() && tree.exists(path)? {
                let message = format!("{} is replaced by a link to the release", path.display());
                plan.findings.push(Finding::warning("command", message));
            }
            writes.push(Need { path: path.clone(), bytes: 0, what: "the command" });
            plan.actions.push(Action::Link { path: path.clone(), target });
        }
        writes.push(Need { path: record(tree), bytes: 0, what: "the record" });
        plan.room(tree, &writes)?;
        Ok(plan)
    }

    /// Adds files that are made where there are none, and never touched again.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn add_lasting(&mut self, tree: &Tree, files: &[ManagedFile]) -> Result<(), ReleaseError> {
        for file in files {
            let path = file.path.clone();
            self.actions.push(if tree.exists(&path)? {
                Action::Keep { path }
            } else {
                Action::Create { path, bytes: file.bytes.len() as u64 }
            });
        }
        Ok(())
    }

    fn file(
        &mut self,
        tree: &Tree,
        file: &ManagedFile,
        known: &[&Release],
        writes: &mut Vec<Need>,
    ) -> Result<(), ReleaseError> {
        let (path, bytes) = (file.path.clone(), file.bytes.len() as u64);
        let before: Vec<&[u8]> = known
            .iter()
            .flat_map(|release| &release.files)
            .filter(|known| known.path == path)
            .map(|known| known.bytes.as_slice())
            .collect();
        match tree.read(&path)? {
            Some(found) if found == file.bytes => self.actions.push(Action::Keep { path }),
            Some(found) if !before.is_empty() => {
                let was_changed = !before.contains(&found.as_slice());
                if was_changed {
                    let message =
                        format!("{} was changed after Cairn wrote it; the change will be lost", path.display());
                    self.findings.push(Finding::warning("changed", message));
                }
                writes.push(Need { path: path.clone(), bytes, what: "files" });
                self.actions.push(Action::Replace { path, bytes, was_changed });
            }
            Some(_) => {
                let message = format!("{} exists and was not written by Cairn; move it away first", path.display());
                self.findings.push(Finding::obstacle("foreign", message));
            }
            None => {
                writes.push(Need { path: path.clone(), bytes, what: "files" });
                self.actions.push(Action::Create { path, bytes });
            }
        }
        Ok(())
    }

    /// Adds up what each file system has to take.
    fn room(&mut self, tree: &Tree, writes: &[Need]) -> Result<(), ReleaseError> {
        let mut by_device: BTreeMap<u64, (u64, Vec<&Need>)> = BTreeMap::new();
        let mut read_only: Vec<&Path> = Vec::new();
        for need in writes {
            let volume = tree.volume(&need.path)?;
            if volume.is_read_only {
                read_only.push(&need.path);
            }
            let (bytes, needs) = by_device.entry(volume.device).or_default();
            *bytes += need.bytes;
            needs.push(need);
        }
        for path in read_only {
            let message = format!(
                "{} is on a file system that is mounted read-only; mount it writable, put the program elsewhere with --prefix, or stage \
                 the files with --root",
                path.display()
            );
            self.findings.push(Finding::obstacle("read-only", message));
        }
        for (bytes, needs) in by_device.into_values() {
            let Some(largest) = needs.iter().max_by_key(|need| need.bytes) else { continue };
            let volume = tree.volume(&largest.path)?;
            let wanted = bytes.saturating_add(SPARE_BYTES);
            if volume.free_bytes < wanted {
                let mut what: Vec<&str> = needs.iter().map(|need| need.what).collect();
                what.sort_unstable();
                what.dedup();
                let message = format!(
                    "{} is needed for {} where {} goes, and {} is free; make room, nothing was written",
                    ByteSize(wanted),
                    what.join(", "),
                    largest.path.display(),
                    ByteSize(volume.free_bytes),
                );
                self.findings.push(Finding::obstacle("disk", message));
            }
            if volume.free_files.is_some_and(|files| files < SPARE_FILES) {
                let message = format!(
                    "the file system of {} can hold {} more files; remove some (df -i shows where)",
                    largest.path.display(),
                    volume.free_files.unwrap_or_default()
                );
                self.findings.push(Finding::obstacle("inodes", message));
            }
        }
        Ok(())
    }
}
