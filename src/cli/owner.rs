//! Root, and data that belongs to another user.
//!
//! A node under systemd stores its data as a separate user. Files that root would write there, with a command on a
//! stopped node, would be unusable for the node; so such a command continues as the owner.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::anyhow;

use super::Failure;

/// Goes on as the user that `data_dir` belongs to, where this is root and the directory is not root's.
///
/// * `answers`: whether a node answers there; what it is asked to do it does as its own user.
/// * `note`: a variable for the process of the owner, by its name, and its value.
///
/// # Errors
/// When that is not possible. Otherwise returns only where there is nothing to do.
pub(super) fn go_on_as_owner(
    data_dir: &Path,
    answers: impl FnOnce() -> bool,
    note: Option<(&str, String)>,
) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Ok(found) = fs::metadata(data_dir) else { return Ok(()) };
    if found.uid() == 0 || answers() {
        return Ok(());
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // The running file, even if its owner has no access to its folder.
    let mut command = Command::new("/proc/self/exe");
    // The default is another one for that user; --data-dir still counts more.
    command.arg0("cairn").args(arguments).env("CAIRN_DATA_DIR", data_dir).envs(note);
    let error = command.gid(found.gid()).uid(found.uid()).exec();
    let shown = data_dir.display();
    let uid = found.uid();
    Err(anyhow!(error).context(format!("{shown} belongs to user {uid}, and this cannot continue as that user")).into())
}
