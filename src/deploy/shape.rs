//! What a node is to whatever runs it: its user, folders, ports, variables, probes and how it is stopped.
//!
//! The container image, the manifests for K3s, the systemd units and the installer read it here, each in the form that its own
//! world has; what carries a node over from another orchestrator compares with it. `tests/it/shape.rs` and `image.rs`
//! hold the files that are not rendered (`systemd/`, `images/`) to it.

use std::time::Duration;

/// User and group that a container runs as; a systemd host gives its user `cairn` a number of its own.
pub const USER: u32 = 65532;
/// The user's name on a systemd host and in the image.
pub const USER_NAME: &str = "cairn";
/// The data directory of a node.
pub const DATA_DIR: &str = "/var/lib/cairn";
/// Where its snapshots go when they stay on the machine.
pub const SNAPSHOTS_DIR: &str = "/var/lib/cairn-snapshots";
/// Where documents wait that an installation brought with it.
pub const DOCUMENTS_DIR: &str = "/var/lib/cairn-documents";
/// Where its settings are.
pub const CONFIG_DIR: &str = "/etc/cairn";
/// Port of MCP and REST.
pub const MCP_PORT: u16 = 7171;
/// Port of `/health`, `/ready` and `/metrics`.
pub const ADMIN_PORT: u16 = 9464;
/// Both.
pub const PORTS: &[u16] = &[MCP_PORT, ADMIN_PORT];
/// Variables that are set in a container.
pub const ENVIRONMENT: &[(&str, &str)] = &[("CAIRN_DATA_DIR", DATA_DIR), ("CAIRN_LOG_FORMAT", "json")];
/// Asks it to finish what it is doing and to stop.
pub const STOP_SIGNAL: &str = "SIGTERM";
/// How long it may take to stop after the requests in flight (`server.drain_timeout`): writing what is queued and the indexes, so
/// that the next start is quick.
pub const FLUSH: Duration = Duration::from_secs(40);

/// A question whether a node is well, over HTTP at [`ADMIN_PORT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The path that answers 200 while it is.
    pub path: &'static str,
    /// Between two questions.
    pub period: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// Bad answers in a row that count.
    pub failures: u16,
}

const fn probe(path: &'static str, period: u64, timeout: u64, failures: u16) -> Probe {
    Probe { path, period: Duration::from_secs(period), timeout: Duration::from_secs(timeout), failures }
}

/// Whether it has started: reading a large log takes minutes.
pub const STARTED: Probe = probe("/health", 2, 5, 300);
/// Whether it lives.
pub const ALIVE: Probe = probe("/health", 10, 5, 6);
/// Whether it is ready for requests.
pub const READY: Probe = probe("/ready", 5, 3, 2);
