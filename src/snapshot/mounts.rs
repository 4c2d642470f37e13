//! Disks that this machine knows and that are not mounted: a directory made below such a place is on another disk. Pure, but for
//! [`unmounted`].

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The place of a disk at or above `path` that `/etc/fstab` names and that is not mounted.
pub(super) fn unmounted(path: &Path) -> Option<PathBuf> {
    // Where there is no such file, nothing is known of disks that should be there.
    let (table, mounted) = (fs::read("/etc/fstab").ok()?, fs::read("/proc/self/mountinfo").ok()?);
    missing(&table, &mounted, path)
}

fn missing(table: &[u8], mounted: &[u8], path: &Path) -> Option<PathBuf> {
    let known = places(table, 1).filter(|place| place.parent().is_some() && path.starts_with(place));
    let is_mounted = |place: &PathBuf| places(mounted, 4).any(|other| other == *place);
    // The deepest decides: what is above it is a directory of another disk.
    known.max_by_key(|place| place.as_os_str().len()).filter(|place| !is_mounted(place))
}

/// The absolute paths in one column of a table, escapes resolved.
fn places(table: &[u8], column: usize) -> impl Iterator<Item = PathBuf> + '_ {
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii_start().starts_with(b"#"));
    let fields = move |line: &'_ [u8]| {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        fields.nth(column).map(plain)
    };
    lines.filter_map(fields).filter(|place| place.is_absolute())
}

/// Spaces and their like are written as a backslash and three octal digits.
fn plain(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = (first == b'\\').then(|| after.get(..3)).flatten();
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        (bytes, rest) = match code {
            Some(code) => ([&bytes[..], &[code]].concat(), &after[3..]),
            None => ([&bytes[..], &[first]].concat(), after),
        };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"# <device> <place>\nUUID=1 / ext4 defaults 0 1\nUUID=2 /mnt/backup ext4 nofail 0 2\n\
        UUID=3 none swap sw 0 0\n  # UUID=4 /old ext4\nnas:/x /mnt/two\\040words nfs defaults 0 0\nUUID=5 /srv ext4\n";
    const MOUNTED: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n29 22 8:5 / /srv rw - ext4 /dev/sda5 rw\n";

    #[test]
    fn a_disk_of_the_table_that_is_not_mounted_is_missed() {
        let missed = |path: &str| missing(TABLE, MOUNTED, Path::new(path));
        assert_eq!(missed("/mnt/backup/site-7"), Some("/mnt/backup".into()));
        assert_eq!(missed("/mnt/backup"), Some("/mnt/backup".into()));
        assert_eq!(missed("/mnt/two words/x"), Some("/mnt/two words".into()));
        for there in ["/mnt/backups", "/srv/x", "/var/lib/x", "/old/x", "relative"] {
            assert_eq!(missed(there), None, "{there}");
        }
    }
}
