//! Starting and ending children, from one thread that lives as long as any of them.
//!
//! A child ends with the thread that started it (the kernel ensures this, even when the node is killed), so no other
//! thread may start one.
//!
//! Unsafe: the path that the kernel used to start this program is in the auxiliary vector, which can only be read that
//! way.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::helper::VERB;
use super::wire::{self, HEAD, HELLO, Hello, PLAIN_BYTES_MAX};
use super::{Protections, allocator};
use crate::task;

/// How long a child may take to start. A slower machine could do nothing else either.
const HELLO_PATIENCE: Duration = Duration::from_secs(60);

/// An idle child. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Child {
    process: Option<std::process::Child>,
    /// `None` while it works: the waiting task holds the socket, because a duplicate would need a file descriptor.
    pub(super) socket: Option<UnixStream>,
    pub(super) protections: Protections,
    starter: Sender<ThreadRequest>,
}

impl Child {
    /// Whether it is alive, as far as its socket shows.
    pub(super) fn is_there(&self) -> bool {
        // It never sends anything unasked, so there is nothing to read while it lives.
        let Some(mut socket) = self.socket.as_ref() else { return false };
        matches!(socket.read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ends it, waits for that, and returns its exit status: an earlier one if it had already ended.
    pub(super) async fn end(mut self) -> Option<ExitStatus> {
        let process = self.process.take()?;
        let (reply, answer) = oneshot::channel();
        self.starter.send(ThreadRequest::End(process, Some(reply))).ok()?;
        answer.await.ok()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Immediately: it may be working. Fails only when it has ended.
            let _ = process.kill();
            // Without the thread all children have ended.
            let _ = self.starter.send(ThreadRequest::End(process, None));
        }
    }
}

/// A request to the thread.
enum ThreadRequest {
    /// The sender is for the child: the thread keeps none itself, so that it can end.
    Start(oneshot::Sender<io::Result<Child>>, Sender<ThreadRequest>),
    /// Ends the process if it has not ended, and returns its exit status.
    End(std::process::Child, Option<oneshot::Sender<ExitStatus>>),
}

/// Starts a child to see its restrictions, and ends it. Blocks for some milliseconds.
///
/// # Errors
/// When none can be started: no document can be read then.
pub fn probe() -> io::Result<Protections> {
    let starter = Starter::start(None, 0)?;
    let gone = |_| io::Error::other("the thread that starts parsers has ended");
    let child = starter.child().blocking_recv().map_err(gone)??;
    Ok(child.protections)
}

/// The thread that starts children. It ends when this and every child was dropped.
#[derive(Debug)]
pub(super) struct Starter {
    wishes: Option<Sender<ThreadRequest>>,
    thread: Option<JoinHandle<()>>,
}

impl Starter {
    /// Starts the thread.
    ///
    /// * `program`: the executable of the children; `None`: this one.
    /// * `memory_bytes_max`: the most that any document may need.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(super) fn start(program: Option<PathBuf>, memory_bytes_max: u64) -> io::Result<Self> {
        let (wishes, waiting) = channel();
        let programs = program.map_or_else(programs, |program| vec![program.into()]);
        // Children inherit the thread's low priority.
        let thread = task::spawn_behind("parsers", move || work(&waiting, &programs, memory_bytes_max))?;
        Ok(Self { wishes: Some(wishes), thread: Some(thread) })
    }

    /// Requests a child.
    pub(super) fn child(&self) -> oneshot::Receiver<io::Result<Child>> {
        let (reply, answer) = oneshot::channel();
        // Without the thread the reply is dropped, which the receiver notices.
        let _ = self.wishes.as_ref().map(|wishes| wishes.send(ThreadRequest::Start(reply, wishes.clone())));
        answer
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        self.wishes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(waiting: &Receiver<ThreadRequest>, programs: &[OsString], memory_bytes_max: u64) {
    while let Ok(wish) = waiting.recv() {
        match wish {
            ThreadRequest::Start(reply, starter) => {
                // If the receiver is gone, the child is dropped, which ends it.
                let _ = reply.send(start(programs, memory_bytes_max, starter));
            }
            ThreadRequest::End(mut process, reply) => {
                // For a process that has already ended this changes nothing, including its exit status.
                let _ = process.kill();
                let status = process.wait();
                if let (Some(reply), Ok(status)) = (reply, status) {
                    let _ = reply.send(status);
                }
            }
        }
    }
}

/// Starts a child and waits for its greeting.
fn start(programs: &[OsString], memory_bytes_max: u64, starter: Sender<ThreadRequest>) -> io::Result<Child> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "this program does not know where its file is");
    for program in programs {
        match spawn(program, memory_bytes_max) {
            Ok((process, socket)) => {
                let mut child =
                    Child { process: Some(process), socket: None, protections: Protections::default(), starter };
                child.protections = greeting(&socket)?;
                socket.set_nonblocking(true)?;
                child.socket = Some(socket);
                return Ok(child);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Paths of this program, best first.
fn programs() -> Vec<OsString> {
    // The running file, even if another one has taken its name.
    let mut programs = vec![OsString::from("/proc/self/exe")];
    // If `/proc` is not mounted: the path that the kernel used, and the caller's name for it. SAFETY: the value is null
    // or points to a string that the kernel keeps there for the lifetime of the process.
    let path = unsafe {
        let path = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
        (!path.is_null()).then(|| CStr::from_ptr(path))
    };
    programs.extend(path.map(|path| OsStr::from_bytes(path.to_bytes()).to_owned()));
    programs.extend(std::env::args_os().next());
    // A name without a slash would be looked up in PATH, where it may be another program.
    programs.retain(|program| program.as_bytes().contains(&b'/'));
    programs
}

fn spawn(program: &OsStr, memory_bytes_max: u64) -> io::Result<(std::process::Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new(program);
    command
        .arg0("cairn")
        .args([VERB, &memory_bytes_max.to_string()])
        .env_clear()
        // The allocator reserves memory on demand, so that the kernel's limit applies to memory in use.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        // Signals that a terminal sends to the node's group are not for the child: its parent ends it.
        .process_group(0)
        // `/dev/null` may not exist. The child closes the two that it does not use.
        .stdout(theirs.try_clone()?)
        .stderr(theirs.try_clone()?)
        .stdin(Stdio::from(theirs));
    Ok((command.spawn()?, ours))
}

fn greeting(mut socket: &UnixStream) -> io::Result<Protections> {
    let other =
        |what: &str| io::Error::other(format!("{what}; is the file of the running program another one by now?"));
    socket.set_read_timeout(Some(HELLO_PATIENCE))?;
    let mut head = [0; HEAD];
    socket.read_exact(&mut head)?;
    let Some((HELLO, length @ 0..PLAIN_BYTES_MAX)) = wire::head(&head) else {
        return Err(other("it does not answer as a parser"));
    };
    let mut hello = vec![0; length];
    socket.read_exact(&mut hello)?;
    let hello: Hello = wire::value(&hello).map_err(|_| other("it does not answer as a parser"))?;
    let own = env!("CARGO_PKG_VERSION");
    if hello.version != own {
        return Err(other(&format!("it is version {}, expected {own}", hello.version)));
    }
    Ok(hello.protections)
}

/// Why a child ended before its answer was complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExitCause {
    Memory,
    Time,
    Crash(String),
}

impl ExitCause {
    pub(super) fn of(status: Option<ExitStatus>) -> Self {
        let Some(status) = status else { return Self::Crash("it is not known how".to_owned()) };
        match (status.code(), status.signal()) {
            (Some(allocator::OUT_OF_MEMORY), _) => Self::Memory,
            (Some(101), _) => Self::Crash("it panicked".to_owned()),
            (Some(code), _) => Self::Crash(format!("exit status {code}")),
            (None, Some(libc::SIGPROF | libc::SIGXCPU)) => Self::Time,
            (None, Some(libc::SIGKILL)) => {
                Self::Crash("it was killed, as the kernel does when the machine has no memory left".to_owned())
            }
            (None, signal) => Self::Crash(format!("signal {}", signal.unwrap_or_default())),
        }
    }
}
