//! The files of a systemd host, as shipped under `systemd/` and compiled in.
//!
//! Pure: nothing here touches a machine. The units are static; what depends on the machine (its memory, its GPU) is in drop-ins, so
//! that `systemctl cat cairn` shows where each line came from.

use std::path::Path;

use super::release::ManagedFile;
use crate::base::ByteSize;

/// The unit.
pub const UNIT: &str = include_str!("../../systemd/cairn.service");
/// The drop-in that lets the unit use a GPU.
pub const GPU: &str = include_str!("../../systemd/cairn.service.d/gpu.conf");
/// The user, for `systemd-sysusers`.
pub const SYSUSERS: &str = include_str!("../../systemd/cairn.sysusers");
/// The folders, for `systemd-tmpfiles`.
pub const TMPFILES: &str = include_str!("../../systemd/cairn.tmpfiles");

/// The unit that makes the token of a machine at its first start.
pub const TOKEN: &str = include_str!("../../systemd/cairn-token.service");
/// The unit that adds what an image brought along.
pub const DOCUMENTS: &str = include_str!("../../systemd/cairn-documents.service");
/// Its name.
pub const DOCUMENTS_UNIT: &str = "cairn-documents.service";
/// Where the units say that the release is.
const CURRENT: &str = "/usr/local/lib/cairn/current";

/// What differs between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine<'a> {
    /// The link to the release that runs.
    pub current: &'a Path,
    /// Its memory.
    pub memory: ByteSize,
    /// Whether the node is to use its GPU.
    pub gpu: bool,
}

/// What a release puts onto such a machine, except for its own folder and the links to it.
#[must_use]
pub fn files(machine: Machine<'_>) -> Vec<ManagedFile> {
    let file = |path: &str, text: &str| {
        let text = text.replace(CURRENT, &machine.current.to_string_lossy());
        ManagedFile { path: path.into(), mode: 0o644, bytes: text.into_bytes() }
    };
    let mut files = vec![
        file("/etc/sysusers.d/cairn.conf", SYSUSERS),
        file("/etc/tmpfiles.d/cairn.conf", TMPFILES),
        file("/etc/systemd/system/cairn.service", UNIT),
        file("/etc/systemd/system/cairn-token.service", TOKEN),
        documents(machine.current),
        file("/etc/systemd/system/cairn.service.d/memory.conf", &memory_drop_in(machine.memory)),
    ];
    if machine.gpu {
        files.push(file("/etc/systemd/system/cairn.service.d/gpu.conf", GPU));
    }
    files
}

/// The unit that adds what an image brought along, which runs where it is wanted.
///
/// * `current`: the link to the release that runs.
#[must_use]
pub fn documents(current: &Path) -> ManagedFile {
    let text = DOCUMENTS.replace(CURRENT, &current.to_string_lossy());
    let path = Path::new("/etc/systemd/system").join(DOCUMENTS_UNIT);
    ManagedFile { path, mode: 0o644, bytes: text.into_bytes() }
}

/// Least memory that a limit leaves to the node.
const MEMORY_LEAST: u64 = 256 << 20;

/// The drop-in that prevents the node from taking the machine's memory: from half of it on the kernel slows the node down and takes
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

    fn pi() -> Machine<'static> {
        Machine { current: Path::new("/opt/cairn/lib/cairn/current"), memory: ByteSize(1 << 30), gpu: false }
    }

    #[test]
    fn the_units_run_what_the_link_points_at() {
        let runs = |unit: &str| unit.contains(&format!("ExecStart={CURRENT}/cairn "));
        assert!([UNIT, TOKEN, DOCUMENTS].into_iter().all(runs));
        let placed = files(pi());
        let unit = placed.iter().find(|file| file.path.ends_with("cairn.service")).expect("there");
        let text = String::from_utf8_lossy(&unit.bytes);
        assert!(text.contains("ExecStart=/opt/cairn/lib/cairn/current/cairn serve") && !text.contains("/usr/local"));
    }

    #[test]
    fn only_a_machine_with_a_gpu_gets_its_drop_in() {
        let gpu = |gpu| files(Machine { gpu, ..pi() }).iter().any(|file| file.path.ends_with("gpu.conf"));
        assert!(!gpu(false) && gpu(true));
    }

    #[test]
    fn memory_limits_follow_the_machine() {
        for (memory, high, max) in [(1 << 30, 512, 768), (64 << 30, 32_768, 49_152), (256 << 20, 256, 256)] {
            let text = memory_drop_in(ByteSize(memory));
            assert!(text.contains(&format!("MemoryHigh={high}M\nMemoryMax={max}M\n")), "{text}");
        }
    }
}
