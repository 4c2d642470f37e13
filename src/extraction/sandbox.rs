//! Restricts a process that reads documents: it can compute, answer, and end.
//!
//! Each restriction is independent, and where the kernel or the container does not support one, the others still hold:
//! the parent logs once which are missing.
//!
//! * seccomp: only the system calls that a parser needs; no opening of files, no sockets, programs or processes.
//! * Landlock (Linux 5.13): no path can be read, written or executed, and no port used, regardless of the filter.
//! * Kernel limits: memory, descriptors, no growing files, no core file; processor time for each document ([`arm`]).
//! * It ends with the thread that started it, has no descriptor except the socket, and only root can read its memory.
//!
//! Unsafe: descriptors that nothing here owns are closed by number, and the filter, the timer and the clock are system
//! calls that none of our libraries offers.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetStatus,
    Scope,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

/// Memory in addition to the document's: the program's data, its stack, what the allocator retains.
const OWN_MEMORY: u64 = 128 << 20;
/// Descriptors that are closed individually where the kernel has no call for all of them (before Linux 5.9).
const DESCRIPTORS_MAX: i32 = 65_536;
/// The OOM score: the kernel ends such a process before all others when memory runs out.
const OOM_SCORE: &str = "1000";

/// The restrictions of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Protections {
    /// System calls are filtered.
    pub seccomp: bool,
    /// Files and ports are inaccessible.
    pub landlock: bool,
    /// Kernel limits are set.
    pub limits: bool,
}

impl Protections {
    /// Whether the process can neither open files nor connect nor start programs.
    #[must_use]
    pub fn is_confined(self) -> bool {
        self.seccomp
    }
}

impl fmt::Display for Protections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let walls =
            [(self.seccomp, "seccomp"), (self.landlock, "Landlock"), (self.limits, "limits of memory and files")];
        let built: Vec<&str> = walls.iter().filter(|(is_built, _)| *is_built).map(|(_, name)| *name).collect();
        f.write_str(if built.is_empty() { "nothing".to_owned() } else { built.join(", ") }.as_str())
    }
}

/// Confines this process permanently. It keeps descriptor 0.
///
/// * `memory_bytes_max`: the most that any document may need.
pub(super) fn confine(memory_bytes_max: u64) -> Protections {
    // If one of these fails, the others still hold, and the parent can end the process at any time.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // So that it keeps none of the node's mounts busy.
    let _ = std::env::set_current_dir("/");
    close_descriptors();
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Before the limit on descriptors: Landlock needs one.
    let landlock = close_paths();
    let limits = set_limits(memory_bytes_max).is_ok();
    let seccomp = filter_calls().is_ok();
    Protections { seccomp, landlock, limits }
}

/// Closes every descriptor but 0.
fn close_descriptors() {
    // SAFETY: nothing in this process uses another descriptor: it has just started.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0) };
    if closed != 0 {
        for descriptor in 1..DESCRIPTORS_MAX {
            // SAFETY: as above.
            unsafe { libc::close(descriptor) };
        }
    }
}

fn set_limits(memory_bytes_max: u64) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 1),
        (Resource::Data, memory_bytes_max.saturating_add(OWN_MEMORY)),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

fn close_paths() -> bool {
    const NEWEST: ABI = ABI::V6;
    let built = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .restrict_self()
    };
    built().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// The allowed calls. All others fail with `EPERM`, so that a library that merely tries one continues without it.
fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let free = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_setitimer,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_sched_yield,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = free.into_iter().map(|call| (call, Vec::new())).collect();
    // Nothing here needs executable memory.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        let not = SeccompCondition::new(2, SeccompCmpArgLen::Dword, executable, 0)?;
        calls.insert(call, vec![SeccompRule::new(vec![not])?]);
    }
    Ok(calls)
}

fn filter_calls() -> io::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let calls = allowed().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(calls, refused, SeccompAction::Allow, architecture).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    let length = program.len().try_into().map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // By `prctl`, not by the library's call: systemd units that allow typical service calls refuse that one. SAFETY:
    // the kernel copies the program, which lives until the end of this function, and its instructions have the kernel's
    // layout.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if set { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends this process by `SIGPROF` once it has computed for `time` from now on. Replaces an earlier setting.
pub(super) fn arm(time: Duration) {
    // Zero would disable it.
    let time = time.max(Duration::from_millis(1));
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(time.subsec_micros().cast_signed()),
    };
    let timer = libc::itimerval { it_value: value, it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 } };
    // SAFETY: both pointers are what the call expects, and null for the old value is allowed.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
}

/// Processor time that this process has used.
pub(super) fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole value of that type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::*;

    /// Runs `body` in a thread whose restrictions end with it.
    fn behind<T: Send + 'static>(wall: fn() -> bool, body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        std::thread::spawn(move || wall().then(body)).join().expect("no panic")
    }

    #[test]
    fn a_filtered_process_can_only_compute() {
        let found = behind(
            || filter_calls().is_ok(),
            || {
                let number = |error: io::Error| error.raw_os_error().unwrap_or_default();
                let sum: u64 = (0..1_000_000u64).collect::<Vec<_>>().iter().sum();
                let tried = [
                    std::fs::read("/etc/passwd").map(drop).map_err(number),
                    std::fs::write("/tmp/cairn-sandbox-test", "x").map_err(number),
                    std::fs::read_dir("/").map(drop).map_err(number),
                    UdpSocket::bind("127.0.0.1:0").map(drop).map_err(number),
                    TcpListener::bind("127.0.0.1:0").map(drop).map_err(number),
                    UnixStream::pair().map(drop).map_err(number),
                    Command::new("/bin/true").spawn().map(drop).map_err(number),
                    std::thread::Builder::new().spawn(|| ()).map(drop).map_err(number),
                ];
                (sum, tried)
            },
        );
        let (sum, tried) = found.expect("this kernel filters calls");
        assert_eq!(sum, 499_999_500_000);
        assert_eq!(tried, [Err(libc::EPERM); 8]);
    }

    #[test]
    fn memory_that_is_executed_is_refused() {
        let found = behind(
            || filter_calls().is_ok(),
            || {
                let map = |protection| {
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                    // SAFETY: a new mapping at an address that the kernel chooses; nothing is there before.
                    unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) != libc::MAP_FAILED }
                };
                (map(libc::PROT_READ | libc::PROT_WRITE), map(libc::PROT_READ | libc::PROT_EXEC))
            },
        );
        assert_eq!(found, Some((true, false)));
    }

    #[test]
    fn behind_landlock_no_path_is_reached() {
        // A kernel without Landlock cannot be tested.
        if let Some(read) = behind(close_paths, || std::fs::read("/etc/passwd").map_err(|error| error.kind())) {
            assert_eq!(read, Err(io::ErrorKind::PermissionDenied));
        }
    }

    #[test]
    fn what_is_missing_can_be_said() {
        let all = Protections { seccomp: true, landlock: true, limits: true };
        assert_eq!(all.to_string(), "seccomp, Landlock, limits of memory and files");
        assert_eq!(Protections::default().to_string(), "nothing");
    }
}
