//! The options of Docker's driver `local`, which are those of `mount`: `type`, `o` and `device`, and `size`.
//!
//! Invariant: no message has the text of `o`, which may hold a password.

use crate::migrate::leaf::At;
use crate::migrate::read::bytes;
use crate::migrate::{Dialect, Leaf};

/// Longest path of Linux, in bytes.
const PATH_MAX: usize = 4096;

/// What the driver mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalVolume {
    /// A folder of the driver's own.
    Plain {
        /// Its quota in bytes.
        size: Option<u64>,
    },
    /// A folder of the node.
    Folder {
        /// Its absolute path.
        path: String,
        /// Nothing is written to it.
        is_read_only: bool,
    },
    /// A folder of an NFS server.
    Export(NfsExport),
    /// Memory.
    Memory {
        /// Bytes.
        size: Option<u64>,
        /// Whether owner, group or mode are written, which an `emptyDir` has no field for.
        has_owner: bool,
    },
    /// Something that Cairn makes no object for.
    Other {
        /// What is missing, and what to do.
        reason: String,
    },
}

/// A folder of an NFS server (nfs(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsExport {
    /// Name or address.
    pub server: String,
    /// The folder.
    pub path: String,
    /// Nothing is written to it.
    pub is_read_only: bool,
    /// The rest of the options, for `mount`.
    pub options: Vec<String>,
}

impl LocalVolume {
    /// Reads the options.
    #[must_use]
    pub fn of(options: &[(String, At<String>)]) -> Self {
        let find = |name: &str| options.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.value.trim());
        let other = |reason: &str| Self::Other { reason: reason.to_owned() };
        if let Some((name, _)) =
            options.iter().find(|(key, _)| !matches!(key.as_str(), "type" | "o" | "device" | "size"))
        {
            let name = excerpt(name);
            return Self::Other { reason: format!("the driver local has no option {name:?}, and Docker refuses it") };
        }
        if options.iter().any(|(_, value)| value.value.contains("{{")) {
            return other(
                "the options have placeholders; write a PersistentVolume for each task, and bind claims to them",
            );
        }
        let (kind, device) = (find("type"), find("device"));
        let words: Vec<&str> = find("o").split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let value_of = |name: &str| {
            words.iter().find_map(|word| word.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
        };
        let is_read_only = words.contains(&"ro");
        if device.len() > PATH_MAX {
            return other("its device is longer than a path may be");
        }
        match kind.to_ascii_lowercase().as_str() {
            "nfs" | "nfs4" | "nfs3" => Self::nfs(kind, device, value_of("addr"), &words, is_read_only),
            "tmpfs" => Self::Memory {
                size: value_of("size").and_then(memory),
                has_owner: ["uid", "gid", "mode"].iter().any(|name| value_of(name).is_some()),
            },
            "cifs" | "smb" | "smb3" => other(
                "Kubernetes mounts SMB shares by a CSI driver: install csi-driver-smb, write a PersistentVolume with a \
                 Secret for the user, and bind the claim to it",
            ),
            _ if words.iter().any(|word| matches!(*word, "bind" | "rbind")) => match device.starts_with('/') {
                true => Self::Folder { path: device.to_owned(), is_read_only },
                false => other("the device of a bound folder is an absolute path; write it"),
            },
            "" | "none" if device.is_empty() => Self::Plain { size: memory(find("size")) },
            kind => Self::Other {
                reason: format!(
                    "it mounts a file system of type {:?}, which belongs to one node: write a PersistentVolume for \
                     it, and bind the claim to it",
                    excerpt(kind)
                ),
            },
        }
    }

    fn nfs(kind: &str, device: &str, address: Option<&str>, words: &[&str], is_read_only: bool) -> Self {
        let (host, path) = match device.split_once(":/") {
            Some((host, path)) => (host, format!("/{path}")),
            None => ("", device.to_owned()),
        };
        let server = address.unwrap_or(host).trim_start_matches('[').trim_end_matches(']');
        if server.is_empty() || !path.starts_with('/') {
            let reason = "an NFS volume needs `addr=SERVER` in `o`, and `:/FOLDER` as its device; write them";
            return Self::Other { reason: reason.to_owned() };
        }
        let is_of_mount = |word: &&str| !word.starts_with("addr=") && !matches!(*word, "rw" | "ro");
        let mut options: Vec<String> = words.iter().copied().filter(is_of_mount).map(str::to_owned).collect();
        let has_version = options
            .iter()
            .any(|word| word.starts_with("nfsvers=") || word.starts_with("vers=") || word.starts_with("v4"));
        if let (Some(version), false) = (kind.get(3..).filter(|version| !version.is_empty()), has_version) {
            options.insert(0, format!("nfsvers={version}"));
        }
        Self::Export(NfsExport { server: server.to_owned(), path, is_read_only, options })
    }
}

/// Bytes, of `100m` or `1073741824`.
fn memory(text: &str) -> Option<u64> {
    bytes(text, Dialect::Stack).and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
}

/// The start of a text, for messages.
pub fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The leaves of options.
pub fn leaves(options: &[(String, At<String>)]) -> impl Iterator<Item = Leaf> {
    options.iter().map(|(_, value)| value.leaf)
}
