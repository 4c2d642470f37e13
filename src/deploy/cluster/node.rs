//! The node in the pod, asked over the network by its release's own command line; its data where the volume is a folder of this machine.
//!
//! Invariants: what is asked goes over TLS, trusted by the authority that the API handed out. Data is touched as the user that it
//! belongs to, and only while no pod has it.

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::change::{Cause, Node};
use super::super::node::{Answer, FormatOf, ask, current, secure, self_test};
use super::super::release::{NodeAddress, Release};
use super::super::shape::MCP_PORT;
use super::super::tree::Tree;
use super::{Cluster, Trusted};

/// How the command line reaches a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Its address, without a path.
    pub url: String,
    /// Where the host of that leads: of the service.
    pub address: Option<IpAddr>,
    /// What to trust, where it speaks TLS.
    pub authority: Option<PathBuf>,
    /// The token.
    pub token: Option<String>,
}

impl Reach {
    /// As variables of the command line.
    #[must_use]
    pub fn variables(self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![("CAIRN_URL", self.url.into())];
        variables.extend(self.address.map(|address| ("CAIRN_RESOLVE", address.to_string().into())));
        variables.extend(self.authority.map(|path| ("CAIRN_CA", path.into())));
        variables.extend(self.token.map(|token| ("CAIRN_TOKEN", token.into())));
        variables
    }

    /// What is written down of it.
    #[must_use]
    pub fn address(&self) -> NodeAddress {
        NodeAddress { url: self.url.clone(), address: self.address }
    }
}

/// A node that runs as a pod.
pub struct PodNode<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    authority: PathBuf,
    patience: Duration,
    format_of: FormatOf<'a>,
}

impl<'a> PodNode<'a> {
    /// The node of a cluster.
    ///
    /// * `authority`: the file in which this machine stores what it trusts the node by. It is written whenever the node is asked.
    /// * `patience`: how long it may take to be ready.
    #[must_use]
    pub fn new(
        cluster: &'a Cluster,
        tree: &'a Tree,
        authority: PathBuf,
        patience: Duration,
        format_of: FormatOf<'a>,
    ) -> Self {
        Self { cluster, tree, authority, patience, format_of }
    }

    /// How the command line reaches the node now: its address, what to trust, the token.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn reach(&self) -> Result<Reach, Cause> {
        let address = self.cluster.service_address()?.ok_or("the node's service has no address")?;
        let trusted = self.cluster.trusted()?;
        if let Some(Trusted { pem, .. }) = &trusted
            && self.tree.read(&self.authority)?.as_deref() != Some(pem.as_bytes())
        {
            self.tree.make_folder(self.authority.parent().unwrap_or(Path::new("/")), 0o755)?;
            self.tree.write(&self.authority, pem.as_bytes(), 0o644)?;
        }
        let authority = trusted.as_ref().map(|_| self.authority.clone());
        let (token, resolved) = (self.cluster.token()?, address.parse().ok());
        let scheme = if trusted.is_some() { "https" } else { "http" };
        // A certificate that others issued has the service's name, and not the address that the cluster gave it.
        let name = match trusted.is_some_and(|trusted| !trusted.is_own) {
            true => format!("{}.{}.svc", self.cluster.names.node(), self.cluster.namespace),
            false if address.contains(':') => format!("[{address}]"),
            false => address,
        };
        Ok(Reach { url: format!("{scheme}://{name}:{MCP_PORT}"), address: resolved, authority, token })
    }

    /// Asks the pod.
    fn ask(&self, arguments: &[&str]) -> Answer {
        let reach = self.reach().map_err(|cause| (None, cause))?;
        ask(&current(self.tree), arguments, |command| {
            command.envs(reach.variables());
        })
    }

    /// The folder of the data, where it has a snapshot. What the pod shipped elsewhere, to a claim or to S3, only a pod reaches.
    fn folder_with(&self, snapshot: &str) -> Result<PathBuf, Cause> {
        let way = format!("restore it in a pod of the older release: cairn snapshot restore {snapshot}");
        match self.cluster.data_folder()? {
            None => Err(format!("the node's volume is not a folder on this machine; {way}").into()),
            Some(folder) if has_snapshot(&folder, snapshot) => Ok(folder),
            Some(folder) => {
                let snapshots = folder.join(SNAPSHOTS);
                Err(format!("snapshot {snapshot} is not in {}; {way}", snapshots.display()).into())
            }
        }
    }

    /// Asks the data, without a pod.
    fn ask_data(folder: &Path, executable: &Path, arguments: &[&str]) -> Answer {
        // The folder is made by the cluster, what is in it by the node.
        let inside = folder.join("log");
        let owner = fs::metadata(&inside)
            .or_else(|_| fs::metadata(folder))
            .map_err(|error| (None, Cause::from(format!("cannot read the owner of {}: {error}", folder.display()))))?;
        ask(executable, arguments, |command| {
            command.env("CAIRN_DATA_DIR", folder);
            if rustix::process::geteuid().is_root() {
                command.gid(owner.gid()).uid(owner.uid());
            }
        })
    }
}

/// Where a data directory has the manifests of its snapshots, unless they go elsewhere.
const SNAPSHOTS: &str = "snapshots/snapshots";

/// Whether a data directory has a snapshot. An encrypted one has another ending.
fn has_snapshot(folder: &Path, snapshot: &str) -> bool {
    let manifest = format!("{snapshot}.json");
    let entries = fs::read_dir(folder.join(SNAPSHOTS)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(&manifest))
}

impl Node for PodNode<'_> {
    fn secure(&mut self) -> Result<Option<String>, Cause> {
        if !self.cluster.has_data()? {
            return Ok(None);
        }
        let folder = self.cluster.data_folder()?;
        if let Some(folder) = &folder
            && (self.format_of)(folder)?.is_none()
        {
            return Ok(None);
        }
        match (secure(|arguments| self.ask(arguments)), folder) {
            // A pod that does not answer may be what this change is to fix.
            (Err(silent), Some(folder)) => secure(|arguments| Self::ask_data(&folder, &current(self.tree), arguments))
                .map_err(|cause| format!("{silent}; and without the pod: {cause}").into()),
            (secured, _) => secured,
        }
    }

    fn self_test(&mut self) -> Result<(), Cause> {
        self_test(self.patience, |arguments| self.ask(arguments))
    }

    /// `None` also where the volume is on another machine: what is there cannot be read.
    fn data_format(&mut self) -> Result<Option<u16>, Cause> {
        match self.cluster.data_folder()? {
            Some(folder) => (self.format_of)(&folder),
            None => Ok(None),
        }
    }

    fn check_restore(&mut self, snapshot: &str) -> Result<(), Cause> {
        self.folder_with(snapshot).map(drop)
    }

    fn restore(&mut self, release: &Release, snapshot: &str) -> Result<(), Cause> {
        let folder = self.folder_with(snapshot)?;
        let arguments = ["snapshot", "restore", snapshot, "--yes"];
        Self::ask_data(&folder, &release.executable(self.tree), &arguments).map(drop).map_err(|(_, cause)| cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_went_elsewhere_is_not_in_the_data_directory() {
        let directory = tempfile::tempdir().expect("temporary directory");
        assert!(!has_snapshot(directory.path(), "one"), "there is none yet");
        let folder = directory.path().join(SNAPSHOTS);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("one.json"), "{}").expect("written");
        fs::write(folder.join("two.json.age"), "x").expect("written");
        let found = ["one", "two", "tw", "three"].map(|snapshot| has_snapshot(directory.path(), snapshot));
        assert_eq!(found, [true, true, false, false]);
    }
}
