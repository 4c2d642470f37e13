//! What this process may do: less and less.
//!
//! A driver is a megabyte of foreign code that reads what we hand it. It needs its device files and its libraries; it needs no
//! network, and once the device is open no new programs.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Descriptors that a driver may open.
const FILES_MAX: u64 = 1_024;

/// What every helper begins with: it ends with the node, leaves no core file, and reaches no network.
///
/// # Errors
/// When the kernel refuses.
pub fn enter() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    setrlimit(Resource::Nofile, Rlimit { current: Some(FILES_MAX), maximum: Some(FILES_MAX) })?;
    let mut denied = BTreeMap::new();
    // Local sockets stay: drivers talk to their daemons by them.
    let local = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_UNIX as u64);
    let local = SeccompRule::new(vec![local.map_err(io::Error::other)?]).map_err(io::Error::other)?;
    denied.insert(libc::SYS_socket, vec![local]);
    deny(denied)
}

/// What is over once the device is open: new programs, tracing others, loading code into the kernel.
///
/// # Errors
/// When the kernel refuses.
pub fn close() -> io::Result<()> {
    let calls = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_bpf,
        libc::SYS_mount,
    ];
    deny(calls.into_iter().map(|call| (call, Vec::new())).collect())
}

/// Has these calls fail with EPERM in every thread, for good.
fn deny(calls: BTreeMap<i64, Vec<SeccompRule>>) -> io::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refused, architecture).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}
