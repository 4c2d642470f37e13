//! The address of a running node, stored in its data directory for the command line.
//!
//! Invariant: the file appears complete, belongs to its owner alone, and is removed before another process can open the
//! data directory.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Node;
use super::listener_auth::ListenerAuth;
use crate::api::Listener;
use crate::config::Config;
use crate::snapshot::Target;

/// The address of a running node, stored in its data directory for the command line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningNode {
    /// Process id.
    pub pid: u32,
    /// Identity of the node: detects a leftover file whose port another node uses now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Address of MCP and REST.
    pub listen: SocketAddr,
    /// Whether it speaks TLS there, with a certificate of the data directory's authority for `auth::LOCAL_NAME`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// Address of the admin listener; only a process that was started as the node has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Where its snapshots are stored, for commands that access them directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Box<SnapshotLocation>>,
    /// A token of this run, for the command line of the same user; only if the listener requires one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Where a node's snapshots are stored, with absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotLocation {
    /// The configured target; `None`: next to the data directory.
    pub target: Option<Target>,
    /// Key of an encrypted repository.
    pub key_file: Option<PathBuf>,
}

impl SnapshotLocation {
    fn of(config: &Config) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self {
            target: config.snapshot.target.clone().map(Target::absolute),
            key_file: config.snapshot.key_file.as_ref().map(absolute),
        }
    }
}

impl fmt::Debug for RunningNode {
    /// Everything except the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, node, listen, tls, admin, snapshots, token: _ } = self;
        let mut shown = f.debug_struct("RunningNode");
        shown
            .field("pid", pid)
            .field("node", node)
            .field("listen", listen)
            .field("tls", tls)
            .field("admin", admin)
            .field("snapshots", snapshots)
            .finish_non_exhaustive()
    }
}

impl RunningNode {
    /// The entry for a node that answers requests.
    pub(super) fn new(
        config: &Config,
        node: &Node,
        listener: &Listener,
        listener_auth: &ListenerAuth,
        tls: bool,
        admin: Option<SocketAddr>,
    ) -> Self {
        Self {
            pid: std::process::id(),
            node: Some(node.library.log().node().to_string()),
            listen: listener.address(),
            tls,
            admin,
            snapshots: Some(Box::new(SnapshotLocation::of(config))),
            token: listener_auth.local.as_ref().map(|token| token.reveal().to_owned()),
        }
    }

    /// Address of MCP.
    #[must_use]
    pub fn mcp(&self) -> String {
        format!("{}/mcp", url(self.tls, self.listen))
    }

    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("running.json")
    }

    /// The entry in the data directory; it may be left over from a node that died.
    #[must_use]
    pub fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(data_dir)).ok()?).ok()
    }

    /// Writes it.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let partial = data_dir.join("running.partial");
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        // Created from scratch, so that nothing is written through a link that someone else placed there.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(&text)?;
        fs::rename(partial, Self::path(data_dir))
    }

    /// Removes it. Only for convenience; a leftover is detected because no node answers there.
    pub(super) fn remove(&self, data_dir: &Path) {
        if Self::read(data_dir).as_ref() == Some(self) {
            let _ = fs::remove_file(Self::path(data_dir));
        }
    }
}

/// The address of a listener as a URL without a path.
pub(super) fn url(tls: bool, address: SocketAddr) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{address}")
}
