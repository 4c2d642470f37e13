//! How much memory this process may use, and how much it uses.
//!
//! Read from `/proc` and the control groups, the only place that shows the limits of a container, a pod or a systemd
//! unit.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// The memory that the process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resident {
    /// Bytes of anonymous memory, which the kernel cannot reclaim.
    pub own: u64,
    /// Bytes of mapped files, which the kernel reclaims when it needs memory.
    pub mapped: u64,
}

/// Bytes that this process may use: the limit of its control group and of the groups above it, or half of the machine's
/// memory where none is set or the limit is higher. `None` when the system does not report it.
///
/// Read once: a process is divided by its limit when it starts, and a dozen files say what it is.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    static LIMIT: LazyLock<Option<u64>> =
        LazyLock::new(|| limit_below(Path::new("/proc"), Path::new("/sys/fs/cgroup")));
    *LIMIT
}

/// The memory that this process uses at the moment; zeros when the system does not report it.
#[must_use]
pub fn resident() -> Resident {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name| kib(&status, name).unwrap_or_default();
    Resident { own: field("RssAnon:") + field("RssShmem:"), mapped: field("RssFile:") }
}

/// * `proc`, `groups`: where the process and control group file systems are mounted.
fn limit_below(proc: &Path, groups: &Path) -> Option<u64> {
    let machine = fs::read_to_string(proc.join("meminfo")).ok().and_then(|text| kib(&text, "MemTotal:"));
    let member = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let group = member.lines().filter_map(group_limits).flat_map(|(files, root, path)| {
        // The path of the group as the process sees it: in a container, the root of the mount.
        let mut folder = Some(Path::new(path));
        let mut limits = Vec::new();
        while let Some(path) = folder {
            let folder_of = groups.join(root).join(path.strip_prefix("/").unwrap_or(path));
            limits.extend(files.iter().filter_map(|file| number(&folder_of.join(file))));
            folder = path.parent();
        }
        limits
    });
    // Groups without a limit report "max", or in version 1 a number larger than any machine's memory.
    let group = group.filter(|limit| machine.is_none_or(|machine| *limit < machine)).min();
    group.or_else(|| machine.map(|machine| machine / 2))
}

/// The files that hold a group's memory limits, where the hierarchy is mounted, and the group's path, from a line of
/// `/proc/self/cgroup`: `0::/path` (version 2) or `4:memory:/path` (version 1).
fn group_limits(line: &str) -> Option<(&'static [&'static str], &'static str, &str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    match controllers {
        "" => Some((&["memory.max", "memory.high"], "", path)),
        names if names.split(',').any(|name| name == "memory") => Some((&["memory.limit_in_bytes"], "memory", path)),
        _ => None,
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bytes of a line `Name:   123 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(member: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("not the root")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        write("proc/meminfo", "MemTotal:        4096 kB\nMemFree:         1024 kB\n");
        write("proc/self/cgroup", member);
        files.iter().for_each(|(path, text)| write(&format!("groups/{path}"), text));
        limit_below(&root.path().join("proc"), &root.path().join("groups"))
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let files = [
            ("memory.max", "max\n"),
            ("pods/memory.max", "3000000\n"),
            ("pods/cairn/memory.max", "2000000\n"),
            ("pods/cairn/memory.high", "1000000\n"),
            ("pods/other/memory.max", "1000\n"),
        ];
        assert_eq!(limit("0::/pods/cairn\n", &files), Some(1_000_000));
        assert_eq!(limit("0::/pods\n", &files), Some(3_000_000));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        assert_eq!(limit("0::/\n", &[("memory.max", "1048576\n")]), Some(1 << 20));
    }

    #[test]
    fn groups_of_the_first_version_count_too() {
        let member = "5:cpu:/a\n4:hugetlb,memory:/a/b\n";
        let files = [("memory/a/b/memory.limit_in_bytes", "2097152"), ("cpu/a/memory.limit_in_bytes", "1")];
        assert_eq!(limit(member, &files), Some(2 << 20));
        // No limit is reported as a number larger than any machine's memory.
        assert_eq!(limit(member, &[("memory/a/b/memory.limit_in_bytes", "9223372036854771712")]), Some(2 << 20));
    }

    #[test]
    fn without_a_limit_it_is_half_of_the_machine() {
        assert_eq!(limit("0::/\n", &[("memory.max", "max\n")]), Some(2 << 20));
        assert_eq!(limit("", &[]), Some(2 << 20));
        assert!(memory_limit().is_some_and(|limit| limit > 0) && resident().own > 0);
    }
}
