//! The files of a systemd host, as shipped under `systemd/` and compiled in.
//!
//! Pure: nothing here touches a machine. The units are static; what depends on the machine (its memory, its GPU) is in drop-ins, so
//! that `systemctl cat cairn` shows where each line came from.

use std::path::{Path, PathBuf};

use crate::base::ByteSize;

/// The unit.
pub const UNIT: &str = include_str!("../../systemd/cairn.service");
/// The drop-in that lets the unit use a GPU.
pub const GPU: &str = include_str!("../../systemd/cairn.service.d/gpu.conf");
/// The user, for `systemd-sysusers`.
pub const SYSUSERS: &str = include_str!("../../systemd/cairn.sysusers");
/// The folders, for `systemd-tmpfiles`.
pub const TMPFILES: &str = include_str!("../../systemd/cairn.tmpfiles");

/// Name of the unit.
pub const UNIT_NAME: &str = "cairn.service";
/// The link to the release that runs.
pub const CURRENT: &str = "/usr/local/lib/cairn/current";
/// The link that puts the program on the path.
pub const PROGRAM: &str = "/usr/local/bin/cairn";

/// What a path is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The running program.
    Program,
    /// A symbolic link to this path.
    Link(PathBuf),
}

/// One path to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Absolute.
    pub path: PathBuf,
    /// Permissions; a link has none of its own.
    pub mode: u32,
    /// What it holds.
    pub content: Content,
}

/// What differs between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Its memory.
    pub memory: ByteSize,
    /// Whether the node is to use its GPU.
    pub gpu: bool,
}

/// Everything that an installation writes, all owned by root, in the order in which it is safe to write it: the links that make a
/// release the running one come last.
///
/// * `release`: folder of the release, `/usr/local/lib/cairn/<version>-<digest>`.
#[must_use]
pub fn items(release: &Path, machine: Machine) -> Vec<Item> {
    let bytes = |path: &str, text: &str| Item {
        path: PathBuf::from(path),
        mode: 0o644,
        content: Content::Bytes(text.as_bytes().to_vec()),
    };
    let link = |path: &str, target: PathBuf| Item { path: path.into(), mode: 0o777, content: Content::Link(target) };
    let mut items = vec![
        Item { path: release.join("cairn"), mode: 0o755, content: Content::Program },
        bytes("/etc/sysusers.d/cairn.conf", SYSUSERS),
        bytes("/etc/tmpfiles.d/cairn.conf", TMPFILES),
        bytes("/etc/systemd/system/cairn.service", UNIT),
        bytes("/etc/systemd/system/cairn.service.d/memory.conf", &memory_drop_in(machine.memory)),
    ];
    if machine.gpu {
        items.push(bytes("/etc/systemd/system/cairn.service.d/gpu.conf", GPU));
    }
    items.push(link(CURRENT, release.to_owned()));
    items.push(link(PROGRAM, Path::new(CURRENT).join("cairn")));
    items
}

/// Least memory that a limit leaves to the node.
const MEMORY_LEAST: u64 = 256 << 20;

/// The drop-in that keeps the node from taking the machine's memory: from half of it on the kernel slows the node down and takes
/// page cache back, at three quarters it ends the node, and systemd starts it again.
///
/// * `memory`: the machine's. Both limits are whole MiB and at least 256 MiB.
#[must_use]
pub fn memory_drop_in(memory: ByteSize) -> String {
    let mebibytes = |bytes: u64| bytes.max(MEMORY_LEAST) >> 20;
    let (high, max) = (mebibytes(memory.0 / 2), mebibytes(memory.0 / 4 * 3));
    format!(
        "# Half and three quarters of this machine's {} MiB. Written by the installation; a drop-in with a later name wins.\n\
         [Service]\nMemoryHigh={high}M\nMemoryMax={max}M\n",
        memory.0 >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PI: Machine = Machine { memory: ByteSize(1 << 30), gpu: false };

    #[test]
    fn a_release_is_complete_before_anything_points_at_it() {
        let release = Path::new("/usr/local/lib/cairn/0.1.0-0123abcd");
        let items = items(release, Machine { gpu: true, ..PI });
        let place = |path: &str| items.iter().position(|item| item.path == Path::new(path)).expect("written");
        let current = place(CURRENT);
        assert_eq!(items[current].content, Content::Link(release.to_owned()));
        assert_eq!(place("/usr/local/lib/cairn/0.1.0-0123abcd/cairn"), 0);
        assert!(place("/etc/systemd/system/cairn.service.d/gpu.conf") < current);
        assert_eq!(place(PROGRAM), items.len() - 1);
        assert!(UNIT.contains(&format!("ExecStart={CURRENT}/cairn serve")), "the unit runs what the link points at");
    }

    #[test]
    fn only_a_machine_with_a_gpu_gets_its_drop_in() {
        let gpu = Path::new("/etc/systemd/system/cairn.service.d/gpu.conf");
        assert!(!items(Path::new("/r"), PI).iter().any(|item| item.path == gpu));
    }

    #[test]
    fn memory_limits_follow_the_machine() {
        for (memory, high, max) in [(1 << 30, 512, 768), (64 << 30, 32_768, 49_152), (256 << 20, 256, 256)] {
            let text = memory_drop_in(ByteSize(memory));
            assert!(text.contains(&format!("MemoryHigh={high}M\nMemoryMax={max}M\n")), "{text}");
        }
    }
}
