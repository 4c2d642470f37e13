//! This program as if it were built for the other processor, which its header alone decides.

use std::fs;
use std::path::{Path, PathBuf};

use crate::node::CAIRN;

/// `e_machine` of ELF files for 64-bit ARM.
pub const AARCH64: u16 = 183;

/// A copy in `folder`, under the name that a release has, for the processor that `e_machine` names.
pub fn foreign_executable(folder: &Path, machine: u16) -> PathBuf {
    let mut bytes = fs::read(CAIRN).expect("readable");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    let path = folder.join(format!("cairn-for-{machine}"));
    fs::write(&path, bytes).expect("written");
    path
}
