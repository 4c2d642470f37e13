//! The node of this machine, asked through its own command line.
//!
//! Invariants: a release is asked by its own executable, as the user that the data belongs to: what it writes has the right owner,
//! and no release has to know what another one says over HTTP. Waiting has a deadline.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::change::{Cause, Node};
use super::release::{self, Release};
use super::tree::Tree;

/// Between two questions whether the node is ready.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Exit code of a command that found the node not ready.
const NOT_READY: i32 = 3;
/// Its exit code when the node serves and its snapshots are not what they should be: no reason to take a release back.
const BACKUPS: i32 = 4;

/// Reads the format of a data directory; `None` when there is no data.
pub type FormatOf<'a> = Box<dyn Fn(&Path) -> Result<Option<u16>, Cause> + 'a>;

/// A node that runs on this machine.
pub struct HostNode<'a> {
    tree: &'a Tree,
    data_dir: PathBuf,
    config: PathBuf,
    patience: Duration,
    format_of: FormatOf<'a>,
}

impl<'a> HostNode<'a> {
    /// The node on a data directory.
    ///
    /// * `config`: its settings; may be missing.
    /// * `patience`: how long it may take to be ready.
    #[must_use]
    pub fn new(
        tree: &'a Tree,
        data_dir: PathBuf,
        config: PathBuf,
        patience: Duration,
        format_of: FormatOf<'a>,
    ) -> Self {
        Self { tree, data_dir, config, patience, format_of }
    }

    /// Runs a verb as the owner of the data.
    fn ask(&self, executable: &Path, arguments: &[&str]) -> Answer {
        let owner = fs::metadata(&self.data_dir).map_err(|error| {
            let message = format!("cannot read the owner of {}: {error}", self.data_dir.display());
            (None, Cause::from(message))
        })?;
        ask(executable, arguments, |command| {
            command.env("CAIRN_DATA_DIR", &self.data_dir);
            if self.config.exists() {
                command.env("CAIRN_CONFIG", &self.config);
            }
            if rustix::process::geteuid().is_root() {
                command.gid(owner.gid()).uid(owner.uid());
            }
        })
    }
}

/// What a verb answers: its JSON, or its exit code with what it said.
pub(super) type Answer = Result<Value, (Option<i32>, Cause)>;

/// The executable of the release that runs.
pub(super) fn current(tree: &Tree) -> PathBuf {
    release::current(tree).join("cairn")
}

/// Runs a verb of a release by its own executable.
///
/// * `prepare`: adds what is to be asked, and as whom.
pub(super) fn ask(executable: &Path, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Answer {
    let failed =
        |message: String| Cause::from(format!("`{} {}` failed: {message}", executable.display(), arguments.join(" ")));
    let mut command = Command::new(executable);
    // Neither settings nor credentials of the person who installs are the node's.
    command.env_clear().env("CAIRN_JSON", "true").args(arguments).current_dir("/").stdin(Stdio::null());
    prepare(&mut command);
    let output = command.output().map_err(|error| (None, failed(error.to_string())))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_answered = output.status.success() || (arguments == ["status"] && output.status.code() == Some(BACKUPS));
    if !is_answered {
        return Err((output.status.code(), failed(said.trim().to_owned())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| (None, failed(format!("its answer is not JSON: {error}"))))
}

/// Takes a snapshot of a node that answers, and proves it; its id. `None` where nothing was ever written, so that there is nothing to protect.
pub(super) fn secure(ask: impl Fn(&[&str]) -> Answer) -> Result<Option<String>, Cause> {
    if ask(&["status"]).is_ok_and(|status| status["lsn"] == 0) {
        return Ok(None);
    }
    let created = ask(&["snapshot", "create"]).map_err(|(_, cause)| cause)?;
    let id = created["id"].as_str().ok_or("the snapshot has no id")?.to_owned();
    ask(&["snapshot", "verify", &id]).map_err(|(_, cause)| cause)?;
    Ok(Some(id))
}

/// Waits until a node is ready, and has it search.
pub(super) fn self_test(patience: Duration, ask: impl Fn(&[&str]) -> Answer) -> Result<(), Cause> {
    let start = Instant::now();
    let status = loop {
        match ask(&["status"]) {
            Ok(status) => break status,
            Err((Some(NOT_READY), cause)) if start.elapsed() >= patience => {
                let seconds = patience.as_secs();
                return Err(format!("not ready within {seconds} s (--timeout): {cause}").into());
            }
            Err((Some(NOT_READY), _)) => std::thread::sleep(ASK_EVERY),
            Err((_, cause)) => return Err(cause),
        }
    };
    if status["address"].is_null() {
        return Err("no node answers on the data directory".into());
    }
    if status["passages"].as_u64() == Some(0) {
        return Ok(());
    }
    let found = ask(&["search", "self-test"]).map_err(|(_, cause)| cause)?;
    match found["results"].as_array() {
        Some(results) if !results.is_empty() => Ok(()),
        _ => Err("a search found nothing, though there are passages".into()),
    }
}

impl Node for HostNode<'_> {
    fn secure(&mut self) -> Result<Option<String>, Cause> {
        if self.data_format()?.is_none() {
            return Ok(None);
        }
        secure(|arguments| self.ask(&current(self.tree), arguments))
    }

    fn self_test(&mut self) -> Result<(), Cause> {
        self_test(self.patience, |arguments| self.ask(&current(self.tree), arguments))
    }

    fn data_format(&mut self) -> Result<Option<u16>, Cause> {
        (self.format_of)(&self.data_dir)
    }

    fn restore(&mut self, release: &Release, snapshot: &str) -> Result<(), Cause> {
        let arguments = ["snapshot", "restore", snapshot, "--yes"];
        self.ask(&release.executable(self.tree), &arguments).map(drop).map_err(|(_, cause)| cause)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_into_which_nothing_was_written_has_nothing_to_keep() {
        let empty = secure(|arguments| match arguments {
            ["status"] => Ok(json!({"lsn": 0})),
            other => panic!("nothing else is asked of it: {other:?}"),
        });
        assert_eq!(empty.ok(), Some(None));
        let snapshot = secure(|arguments| match arguments {
            ["status"] => Ok(json!({"lsn": 7})),
            ["snapshot", "create"] => Ok(json!({"id": "seven"})),
            ["snapshot", "verify", "seven"] => Ok(json!({})),
            other => panic!("{other:?}"),
        });
        assert_eq!(snapshot.ok(), Some(Some("seven".to_owned())));
    }
}
