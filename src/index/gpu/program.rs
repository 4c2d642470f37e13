//! The helper's program: compressed in this file, written to memory when it is started.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

/// Written by the build; empty where the helper was not built.
static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gpu-helper.zst"));

/// Whether there is one.
pub(super) fn is_there() -> bool {
    !COMPRESSED.is_empty()
}

/// Its bytes.
pub(super) fn bytes() -> io::Result<Vec<u8>> {
    zstd::decode_all(COMPRESSED)
}

/// The program in a sealed file in memory.
pub(super) fn in_memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("cairn-gpu", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every such file can be executed, and the flag is unknown.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("cairn-gpu", flags),
        made => made,
    }?;
    let mut file = File::from(memory);
    file.write_all(&bytes()?)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}
