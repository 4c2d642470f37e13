//! systemd on this machine: its commands, and the node as a service.
//!
//! Invariants: commands get their arguments as a list, never through a shell, and their language is fixed, so that what they say
//! can be shown. Enabling, starting and forgetting can each be done again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::change::{Cause, Runner};
use super::release::Release;
use crate::base::Fault;

/// The node's unit.
pub const UNIT: &str = "cairn.service";
/// The oldest systemd that has what the unit asks for: credentials.
pub const VERSION_MIN: u32 = 247;
/// Lines of the log that a failure shows.
const LOG_LINES: &str = "15";

/// Why a program of the machine did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// The command line.
    pub command: String,
    /// What it said, or why it could not be run.
    pub message: String,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.command, self.message)
    }
}

impl std::error::Error for CommandError {}

impl CommandError {
    /// Always the machine's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Environment
    }
}

/// Runs a program and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be run or fails; with what it wrote to standard error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, CommandError> {
    let failed = |message: String| CommandError { command: format!("{program} {}", arguments.join(" ")), message };
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(failed(if said.is_empty() { output.status.to_string() } else { said.to_owned() }))
}

/// What makes the parts of a node that outlive its releases, once its user exists: folders with the right owner, secrets.
pub type Outliving<'a> = Box<dyn FnMut() -> Result<(), Cause> + 'a>;

/// The machine's systemd.
pub struct Systemd<'a> {
    outliving: Outliving<'a>,
}

impl<'a> Systemd<'a> {
    /// A runner of releases.
    #[must_use]
    pub fn new(outliving: Outliving<'a>) -> Self {
        Self { outliving }
    }

    /// Version of the systemd that manages this machine; `None` when none does.
    #[must_use]
    pub fn version() -> Option<u32> {
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        // `systemd 252 (252.30-1~deb12u2)`
        let output = run("systemctl", &["--version"]).ok()?;
        output.split_whitespace().nth(1)?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    }

    /// Whether the node runs as a service, or is about to: then its ports are its own.
    #[must_use]
    pub fn is_up() -> bool {
        let output = run("systemctl", &["show", "--property", "ActiveState,SubState", UNIT]);
        output.is_ok_and(|state| {
            let is = |line: &str| state.lines().any(|found| found == line);
            // Between two attempts to start, it holds no port, and something else may.
            !is("ActiveState=inactive") && !is("ActiveState=failed") && !is("SubState=auto-restart")
        })
    }
}

impl Runner for Systemd<'_> {
    fn stage(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn prepare(&mut self, release: &Release) -> Result<(), Cause> {
        let paths = |folder: &str| -> Vec<PathBuf> {
            let files = release.files.iter().map(|file| file.path.clone());
            files.filter(|path| path.parent() == Some(Path::new(folder))).collect()
        };
        for path in paths("/etc/sysusers.d") {
            run("systemd-sysusers", &[&path.to_string_lossy()])?;
        }
        for path in paths("/etc/tmpfiles.d") {
            run("systemd-tmpfiles", &["--create", &path.to_string_lossy()])?;
        }
        (self.outliving)()
    }

    fn start(&mut self, _: &Release) -> Result<(), Cause> {
        run("systemctl", &["daemon-reload"])?;
        run("systemctl", &["enable", UNIT])?;
        // A unit that failed too often is not started before it is forgiven.
        let _ = run("systemctl", &["reset-failed", UNIT]);
        // Waits until the node says that it serves.
        run("systemctl", &["restart", UNIT]).map(drop).map_err(|error| {
            let log = run("journalctl", &["--unit", UNIT, "--lines", LOG_LINES, "--no-pager", "--output", "cat"]);
            let log = log.unwrap_or_default();
            Cause::from(if log.trim().is_empty() { error.to_string() } else { format!("{error}\n{}", log.trim()) })
        })
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(run("systemctl", &["stop", UNIT]).map(drop)?)
    }

    fn retire(&mut self, _: &Release) -> Result<(), Cause> {
        match run("systemctl", &["disable", "--now", UNIT]) {
            Err(error) if error.message.contains("does not exist") || error.message.contains("not loaded") => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    fn forget(&mut self, _: &Release) -> Result<(), Cause> {
        run("systemctl", &["daemon-reload"])?;
        // Fails when there is nothing to forget.
        let _ = run("systemctl", &["reset-failed", UNIT]);
        Ok(())
    }
}
