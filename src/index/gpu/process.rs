//! Starts the helper: from memory, in a separate process group, with only one end of a socket pair from the node.
//!
//! Unsafe: between `fork` and `exec` the child calls `execveat`, because `/proc`, which the standard library needs to
//! run a program without a path, may not be mounted.

#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::ptr;

use super::program;

/// The helper's path on a machine that forbids executing programs from memory (`vm.memfd_noexec=2`).
pub const HELPER_ON_DISK: &str = "/usr/libexec/cairn-gpu";

/// Why the helper cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This program was built without it.
    #[error("this build of Cairn has no GPU helper")]
    NotBuilt,
    /// The kernel refuses to run it.
    #[error(
        "the GPU helper cannot be started; where vm.memfd_noexec is 2 it has to lie at {HELPER_ON_DISK} \
         (`cairn gpu extract`), and it needs the C library and the Vulkan loader of this machine"
    )]
    Exec(#[source] io::Error),
}

/// The running helper. Dropping it ends it.
pub(super) struct Helper {
    child: Child,
    socket: UnixStream,
}

impl Helper {
    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and waits until it has ended.
    pub(super) fn kill(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the helper. It ends when the calling thread does, so that thread must be long-lived.
pub(super) fn start() -> Result<Helper, StartError> {
    if !program::is_there() {
        return Err(StartError::NotBuilt);
    }
    let from_memory = program::in_memory().and_then(|memory| spawn(Some(memory)));
    from_memory.or_else(|error| spawn(None).map_err(|_| error)).map_err(StartError::Exec)
}

/// Runs the program in `memory`, or the one on disk.
fn spawn(memory: Option<OwnedFd>) -> io::Result<Helper> {
    let (ours, theirs) = UnixStream::pair()?;
    // Nothing of the node's own is passed on: its environment contains secrets.
    let environment: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(name, _)| !name.as_bytes().starts_with(b"CAIRN_")).collect();
    let mut command = match &memory {
        Some(memory) => Command::new(format!("/proc/self/fd/{}", memory.as_raw_fd())),
        None => Command::new(HELPER_ON_DISK),
    };
    command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        // Standard input, since any other descriptor number would need unsafe code on both sides.
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(memory) = &memory {
        let (program, name) = (memory.as_raw_fd(), CString::from(c"cairn-gpu"));
        let lines: Vec<CString> = environment
            .iter()
            .filter_map(|(name, value)| {
                CString::new([name.clone().into_vec(), value.clone().into_vec()].join(&b'=')).ok()
            })
            .collect();
        let run = move || {
            let arguments = [name.as_ptr(), ptr::null()];
            execute(program, &arguments, &lines)
        };
        // SAFETY: `run` allocates only where failure is acceptable (see `execute`) and touches nothing that another
        // thread may hold.
        unsafe { command.pre_exec(run) };
    }
    let child = command.spawn()?;
    Ok(Helper { child, socket: ours })
}

/// Replaces this process by the program of a descriptor; returns if that fails, so that its path is tried next.
fn execute(program: i32, arguments: &[*const libc::c_char; 2], environment: &[CString]) -> io::Result<()> {
    const VARIABLES_MAX: usize = 1_024;
    let mut variables = [ptr::null(); VARIABLES_MAX + 1];
    for (place, line) in variables.iter_mut().take(VARIABLES_MAX).zip(environment) {
        *place = line.as_ptr();
    }
    // SAFETY: both lists end with a null pointer, and what they point to lives until the end of this call; the
    // descriptor is open, because the parent holds it until the child has executed or failed.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            arguments.as_ptr(),
            variables.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Ok(())
}
