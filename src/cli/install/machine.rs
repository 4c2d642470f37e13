//! The machine that is installed to: its tree, the files of Cairn there, the one change at a time, and the person at its terminal.

use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::arguments::Arguments;
use crate::cli::Failure;
use crate::deploy::shape::{CONFIG_DIR, DATA_DIR, DOCUMENTS_DIR, SNAPSHOTS_DIR};
use crate::deploy::{Installation, Report, Tree};

/// The operator's settings.
pub(super) const CONFIG: &str = "/etc/cairn/cairn.toml";
/// The token that clients get.
pub(super) const TOKEN: &str = "/etc/cairn/token";
/// What clients of a node in a cluster have to trust, as this machine last heard of it.
pub(super) const AUTHORITY: &str = "/etc/cairn/authority.pem";
/// Where releases go where the usual folder cannot be written.
const OTHER_PREFIX: &str = "/opt/cairn";
/// Held by the process that changes what is installed.
const LOCK: &str = "/run/cairn-install.lock";
/// Held by the process that installs from a bundle, which has another one change what is installed.
const BUNDLE_LOCK: &str = "/run/cairn-bundle.lock";

/// Shows each step on standard error.
struct Steps;

impl Report for Steps {
    fn step(&self, what: &str) {
        eprintln!("… {what}");
    }
}

/// The same where nothing runs: of a tree that is staged only what happens to its files is a step.
struct FileSteps;

impl Report for FileSteps {
    fn step(&self, what: &str) {
        Steps.step(what);
    }

    fn running(&self, _: &str) {}
}

/// What shows the steps of a change to this tree.
pub(super) fn reporter(tree: &Tree) -> &'static dyn Report {
    if tree.is_machine() { &Steps } else { &FileSteps }
}

/// Shows a step that is not part of a change.
pub(super) fn show_step(what: &str) {
    Steps.step(what);
}

/// The tree that is installed to: this machine's, or one that is staged; below which folder its releases are.
pub(super) fn tree_of(arguments: &Arguments) -> Result<Tree, Failure> {
    let tree = below(arguments.root.as_deref())?;
    let is_installed = Installation::read(&tree)?.is_some();
    match &arguments.prefix {
        Some(prefix) if !prefix.is_absolute() => {
            let hint = "found --prefix {}, expected a folder that begins with /, such as /opt/cairn";
            Err(Failure::usage(anyhow!(hint.replace("{}", &prefix.display().to_string()))))
        }
        Some(prefix) if is_installed && prefix != tree.prefix() => {
            let found = tree.prefix().display();
            Err(Failure::usage(anyhow!(
                "Cairn is installed below {found}; `cairn uninstall` removes that and keeps the data"
            )))
        }
        Some(prefix) => Ok(tree.with_prefix(prefix.clone())),
        // As on systems whose /usr comes as an image.
        None if !is_installed && tree.volume(tree.prefix())?.is_read_only && !tree.volume("/opt")?.is_read_only => {
            Ok(tree.with_prefix(PathBuf::from(OTHER_PREFIX)))
        }
        None => Ok(tree),
    }
}

/// This machine's tree, or the one below a folder.
pub(super) fn below(root: Option<&Path>) -> Result<Tree, Failure> {
    match root {
        None => Ok(Tree::machine()),
        Some(root) if root.exists() && !root.is_dir() => {
            let hint = "expected a folder, which need not exist yet";
            Err(Failure::usage(anyhow!("--root {} is a file; {hint}", root.display())))
        }
        Some(root) => Ok(Tree::below(root)),
    }
}

/// The folders that removing the program leaves, of those that are there.
pub(super) fn remaining_folders(tree: &Tree) -> Result<Vec<PathBuf>, Failure> {
    let folders = [DATA_DIR, SNAPSHOTS_DIR, DOCUMENTS_DIR, CONFIG_DIR].map(PathBuf::from);
    let mut there = Vec::new();
    for folder in folders {
        if tree.exists(&folder)? {
            there.push(folder);
        }
    }
    Ok(there)
}

pub(super) fn need_root(what: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(anyhow!("root is needed to {what}; run this with sudo").into())
}

/// Refuses a second change until it is dropped.
pub(super) fn lock(tree: &Tree) -> Result<Option<File>, Failure> {
    if !tree.is_machine() {
        return Ok(None);
    }
    locked(Path::new(LOCK)).map(Some)
}

/// Refuses a second bundle until it is dropped: both would be unpacked in one place.
pub(super) fn lock_bundle(tree: &Tree) -> Result<Option<File>, Failure> {
    if !tree.is_machine() {
        return Ok(None);
    }
    locked(Path::new(BUNDLE_LOCK)).map(Some)
}

fn locked(path: &Path) -> Result<File, Failure> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::unreachable(anyhow!(
            "another `cairn install`, `rollback` or `uninstall` is running; wait until it has ended"
        ))),
        Err(TryLockError::Error(error)) => {
            Err(anyhow!(error).context(format!("cannot lock {}", path.display())).into())
        }
    }
}

/// Asks whether to continue.
pub(in crate::cli) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!("not a terminal; pass --yes to confirm")));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(anyhow!("nothing was changed").into()) }
}

/// Has a path typed before what is in it is removed for ever.
pub(super) fn confirm_path(path: &Path) -> Result<(), Failure> {
    eprint!("Everything in {} will be deleted. Type its path to confirm: ", path.display());
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if Path::new(answer.trim()) == path {
        return Ok(());
    }
    Err(anyhow!("nothing was removed: the path that was typed is not {}", path.display()).into())
}
