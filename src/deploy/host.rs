//! What a machine is: a K3s or RKE2 server or agent, a machine with systemd, or neither.
//!
//! Invariants: only files are read, so an image that is being built is recognised like a running machine; a data
//! directory that was moved is found wherever its configuration says.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::tree::{Tree, TreeError};

/// The two distributions of Kubernetes that apply manifests from a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// K3s.
    K3s,
    /// RKE2, its twin.
    Rke2,
}

impl Distribution {
    /// Both, in the order in which they are searched for.
    const ALL: [Self; 2] = [Self::K3s, Self::Rke2];

    /// The name of its program and its folders.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// Units of a server and of an agent.
    fn units(self) -> (&'static str, &'static str) {
        match self {
            Self::K3s => ("k3s", "k3s-agent"),
            Self::Rke2 => ("rke2-server", "rke2-agent"),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::K3s => "K3s",
            Self::Rke2 => "RKE2",
        })
    }
}

/// What a node of a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Has the API, and applies manifests.
    Server,
    /// Runs pods only.
    Agent,
}

/// A node of a K3s or RKE2 cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Which of the two.
    pub distribution: Distribution,
    /// What it does.
    pub role: Role,
    /// The folder with all its files.
    pub data_dir: PathBuf,
    /// How its administrator reaches the API; servers only.
    pub kubeconfig: PathBuf,
    /// What it is called in the cluster, where that is set.
    pub name: Option<String>,
}

impl ClusterNode {
    /// A K3s server as it will be, where none was seen yet.
    #[must_use]
    pub fn unseen() -> Self {
        Self {
            distribution: Distribution::K3s,
            role: Role::Server,
            data_dir: PathBuf::from("/var/lib/rancher/k3s"),
            kubeconfig: PathBuf::from("/etc/rancher/k3s/k3s.yaml"),
            name: None,
        }
    }

    /// The unit that runs it.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let (server, agent) = self.distribution.units();
        match self.role {
            Role::Server => server,
            Role::Agent => agent,
        }
    }

    /// Where manifests are put for it to apply.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.data_dir.join("server/manifests")
    }

    /// Where image archives are put for it to import.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.data_dir.join("agent/images")
    }

    /// Whether nodes of its cluster take images from one another: the embedded registry was turned on.
    #[must_use]
    pub fn shares_images(&self, tree: &Tree) -> bool {
        const KEY: &str = "embedded-registry";
        let command = unit(tree, self.unit()).ok().flatten().unwrap_or_default();
        let is_in_command =
            command.split_whitespace().any(|word| word.trim_matches(['"', '\'']).starts_with("--embedded-registry"));
        let set = setting_of(tree, self.distribution.name(), KEY).ok().flatten();
        is_in_command || set.is_some_and(|value| value.as_bool() == Some(true) || value.as_str() == Some("true"))
    }
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The cluster that it is a node of.
    pub cluster: Option<ClusterNode>,
    /// Whether systemd is there.
    pub has_systemd: bool,
}

/// Folders of units, first those that win.
const UNIT_FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

impl Host {
    /// Looks at a machine.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn detect(tree: &Tree) -> Result<Self, TreeError> {
        let mut cluster = None;
        for distribution in Distribution::ALL {
            cluster = match cluster {
                None => cluster_node(tree, distribution)?,
                found => found,
            };
        }
        let mut has_systemd = false;
        for path in ["/run/systemd/system", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"] {
            has_systemd |= tree.exists(path)?;
        }
        Ok(Self { cluster, has_systemd })
    }
}

fn cluster_node(tree: &Tree, distribution: Distribution) -> Result<Option<ClusterNode>, TreeError> {
    let name = distribution.name();
    let (server, agent) = distribution.units();
    let (server_unit, agent_unit) = (unit(tree, server)?, unit(tree, agent)?);
    let command = server_unit.as_deref().or(agent_unit.as_deref()).unwrap_or_default();
    let data_dir = match (flag(command, "data-dir", Some("d")), setting(tree, name, "data-dir")?) {
        (Some(path), _) | (None, Some(path)) => PathBuf::from(path),
        (None, None) => Path::new("/var/lib/rancher").join(name),
    };
    let kubeconfig = match (flag(command, "write-kubeconfig", Some("o")), setting(tree, name, "write-kubeconfig")?) {
        (Some(path), _) | (None, Some(path)) => PathBuf::from(path),
        (None, None) => PathBuf::from(format!("/etc/rancher/{name}/{name}.yaml")),
    };
    let node_name = match flag(command, "node-name", None) {
        Some(name) => Some(name),
        None => setting(tree, name, "node-name")?,
    };
    let has_server = tree.exists(data_dir.join("server/manifests"))?;
    let has_agent = tree.exists(data_dir.join("agent"))?;
    // Folders show what ran; a unit shows what will, also before its first start.
    let role = match (server_unit.is_some(), agent_unit.is_some()) {
        (true, _) => Some(Role::Server),
        (false, true) => Some(Role::Agent),
        (false, false) if has_server => Some(Role::Server),
        (false, false) if has_agent => Some(Role::Agent),
        (false, false) => None,
    };
    Ok(role.map(|role| ClusterNode { distribution, role, data_dir, kubeconfig, name: node_name }))
}

/// The text of a service, systemd's or OpenRC's, with the file of its environment; `None` when there is none.
fn unit(tree: &Tree, name: &str) -> Result<Option<String>, TreeError> {
    let units = UNIT_FOLDERS.iter().map(|folder| format!("{folder}/{name}.service"));
    for path in units.chain([format!("/etc/init.d/{name}")]) {
        if let Some(bytes) = tree.read(&path)? {
            // A command may span several lines.
            return Ok(Some(String::from_utf8_lossy(&bytes).replace("\\\n", " ")));
        }
    }
    Ok(None)
}

/// The value of a flag in a command line, as shells and units write them: `--name value`, `--name=value`, with quotes.
fn flag(command: &str, long: &str, short: Option<&str>) -> Option<String> {
    let mut words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        if name == long || short == Some(name) {
            return value.or_else(|| words.next()).map(|value| value.trim_matches(['"', '\'']).to_owned());
        }
    }
    None
}

/// A text of the configuration files.
fn setting(tree: &Tree, name: &str, key: &str) -> Result<Option<String>, TreeError> {
    Ok(setting_of(tree, name, key)?.as_ref().and_then(Value::as_str).map(str::to_owned))
}

/// A value of the configuration files; later files win, as they do for K3s.
fn setting_of(tree: &Tree, name: &str, key: &str) -> Result<Option<Value>, TreeError> {
    let folder = format!("/etc/rancher/{name}/config.yaml.d");
    let parts = tree.list(&folder)?.into_iter().filter(|name| name.ends_with(".yaml") || name.ends_with(".yml"));
    let mut files = vec![format!("/etc/rancher/{name}/config.yaml")];
    files.extend(parts.map(|part| format!("{folder}/{part}")));
    let mut found = None;
    for path in files {
        let Some(bytes) = tree.read(&path)? else { continue };
        // A file that K3s cannot read either says nothing.
        let Ok(settings) = serde_yaml::from_slice::<Value>(&bytes) else { continue };
        found = settings.get(key).cloned().or(found);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tree = Tree::below(directory.path());
        for (path, text) in files {
            tree.make_folder(Path::new(path).parent().expect("absolute"), 0o755).expect("made");
            tree.write(path, text.as_bytes(), 0o644).expect("written");
        }
        (directory, tree)
    }

    fn cluster(files: &[(&str, &str)]) -> Option<ClusterNode> {
        Host::detect(&tree(files).1).expect("readable").cluster
    }

    #[test]
    fn a_server_is_found_where_it_keeps_its_data() {
        let plain = cluster(&[("/etc/systemd/system/k3s.service", "ExecStart=/usr/local/bin/k3s server\n")]);
        let plain = plain.expect("a server");
        assert_eq!((plain.role, plain.distribution), (Role::Server, Distribution::K3s));
        assert_eq!(plain.manifests(), Path::new("/var/lib/rancher/k3s/server/manifests"));
        assert_eq!(plain.kubeconfig, Path::new("/etc/rancher/k3s/k3s.yaml"));
        let unit = "ExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--data-dir' \\\n\t'/mnt/ssd/k3s' \\\n";
        let moved = cluster(&[("/etc/systemd/system/k3s.service", unit)]).expect("a server");
        assert_eq!(moved.images(), Path::new("/mnt/ssd/k3s/agent/images"));
        let configured = cluster(&[
            ("/etc/systemd/system/k3s.service", "ExecStart=/usr/local/bin/k3s server\n"),
            ("/etc/rancher/k3s/config.yaml", "data-dir: /first\nwrite-kubeconfig: /root/k3s.yaml\n"),
            ("/etc/rancher/k3s/config.yaml.d/10-disk.yaml", "data-dir: /second\n"),
        ]);
        let configured = configured.expect("a server");
        assert_eq!(configured.data_dir, Path::new("/second"));
        assert_eq!(configured.kubeconfig, Path::new("/root/k3s.yaml"));
    }

    #[test]
    fn agents_and_the_twin_are_told_apart() {
        let agent = cluster(&[("/etc/systemd/system/k3s-agent.service", "ExecStart=/usr/local/bin/k3s agent\n")]);
        assert_eq!(agent.expect("an agent").role, Role::Agent);
        let rke2 = cluster(&[("/usr/local/lib/systemd/system/rke2-server.service", "ExecStart=rke2 server\n")]);
        let rke2 = rke2.expect("a server");
        assert_eq!(
            (rke2.distribution, rke2.data_dir.as_path()),
            (Distribution::Rke2, Path::new("/var/lib/rancher/rke2"))
        );
        let left = cluster(&[("/var/lib/rancher/k3s/server/manifests/ccm.yaml", "")]).expect("what ran");
        assert_eq!(left.role, Role::Server);
        assert_eq!(
            cluster(&[("/etc/init.d/k3s-agent", "command=/usr/local/bin/k3s\n")]).expect("OpenRC").role,
            Role::Agent
        );
        assert_eq!(cluster(&[("/etc/hosts", "")]), None);
    }
}
