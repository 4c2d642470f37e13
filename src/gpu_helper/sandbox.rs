//! Restricts this process step by step.
//!
//! A driver is a megabyte of third-party code that reads our data. It needs its device files and its libraries; it
//! needs no network, and once the device is open no new programs.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Maximum descriptors that a driver may open.
const FILES_MAX: u64 = 1_024;

/// The first restrictions of every helper: it ends with the node, leaves no core file, and has no network.
///
/// # Errors
/// When the kernel refuses.
pub fn enter() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    setrlimit(Resource::Nofile, Rlimit { current: Some(FILES_MAX), maximum: Some(FILES_MAX) })?;
    let mut denied = BTreeMap::new();
    // Local sockets stay available: drivers use them to talk to their daemons.
    let local = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_UNIX as u64);
    let local = SeccompRule::new(vec![local.map_err(io::Error::other)?]).map_err(io::Error::other)?;
    denied.insert(libc::SYS_socket, vec![local]);
    deny(denied)
}

/// Further restrictions once the device is open: no new programs, no tracing, no loading of kernel code.
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

/// Makes these calls fail with EPERM in every thread, permanently.
fn deny(calls: BTreeMap<i64, Vec<SeccompRule>>) -> io::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refused, architecture).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}
