//! The options of `cairn install`, `rollback` and `uninstall`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum as _;

use crate::cli::k3s::VariantParser;
use crate::deploy::k3s::{Assignment, NodeSize, Variant};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo cairn install              show what would be done, ask, do it
  sudo cairn install --yes        do it; over an older release this is the upgrade
  cairn install --dry-run         show what would be done
  sudo cairn install --with loadbalancer --set storage.size=64GiB
                                  as a pod of the K3s server on this machine, with what `cairn k3s render` takes
  sudo cairn install --values site.yaml --set name=second
                                  the same with a file of settings; --set overrides it
  cairn install --root image/     put the files into an image that is being built
  sudo cairn install --bundle site.bundle --public-key RW…
                                  everything from one signed file: program, settings, documents

The same release again repairs what is in place. A release that fails its checks is rolled back to the one before. \
An interrupted installation is completed by running this again, or rolled back by `cairn rollback`.")]
pub(in crate::cli) struct Arguments {
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Put the files below this folder, and start nothing
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Folder for the program [default: /usr/local, or /opt/cairn where that is read-only]
    #[arg(long, value_name = "DIR")]
    pub(super) prefix: Option<PathBuf>,
    /// What runs the node [default: K3s where this is a K3s server, else systemd]
    #[arg(long = "for", value_name = "PLATFORM")]
    pub(super) platform: Option<PlatformArgument>,
    /// Install from this bundle, which `cairn bundle create` made
    #[arg(long, value_name = "FILE")]
    pub(super) bundle: Option<PathBuf>,
    /// Public key of the bundle, or a file with it [default: that of the first bundle]
    #[arg(long, value_name = "KEY", requires = "bundle")]
    pub(super) public_key: Option<String>,
    /// Let the node use the machine's GPU; remembered for upgrades
    #[arg(long)]
    pub(super) gpu: bool,
    /// Address of MCP and REST, for the first installation [default: 0.0.0.0:7171]
    #[arg(long, value_name = "ADDR", value_parser = crate::cli::output::address)]
    pub(super) listen: Option<SocketAddr>,
    /// K3s: how big the node is: pi (for 260,000 passages), small (850,000), medium (3.4 million), large (13.6 million), or its
    /// memory such as 4GiB [default: this machine]
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::k3s::node_size)]
    pub(super) node_size: Option<NodeSize>,
    /// K3s: add something: cert-manager, documents, external-secrets, gpu, ingress, loadbalancer, monitoring [default: as installed]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = VariantParser, hide_possible_values = true)]
    pub(super) with: Vec<Variant>,
    /// K3s: file of settings, as for `cairn k3s render --values`; remembered for upgrades, until another one is given
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) values: Option<PathBuf>,
    /// K3s: set a key of `cairn k3s render`; remembered for upgrades; KEY= resets it
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<Assignment>,
    /// Time limit for the node to become ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = crate::cli::output::whole::<u64>(1..=86_400))]
    pub(super) timeout: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum PlatformArgument {
    /// A service of systemd
    Systemd,
    /// A pod of the K3s or RKE2 server on this machine
    K3s,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo cairn rollback                  run the release that ran before the last upgrade
  sudo cairn rollback --restore-data   and restore its data, where it cannot read the newer format
  cairn rollback --root image/         in an image that is being built

After an interrupted installation this rolls back what was started.")]
pub(in crate::cli) struct RollbackArguments {
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Roll back the image below this folder, where nothing runs
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Also restore the snapshot from before the upgrade, where the older release cannot read the data; what was written
    /// since is lost
    #[arg(long)]
    pub(super) restore_data: bool,
    /// Time limit for the node to become ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = crate::cli::output::whole::<u64>(1..=86_400))]
    pub(super) timeout: u64,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo cairn uninstall           stop the node and remove the program; data and snapshots stay
  sudo cairn uninstall --purge   also remove the data and the snapshots; asks for their paths
  cairn uninstall --root image/  remove it from an image that is being built")]
pub(in crate::cli) struct UninstallArguments {
    /// Do not ask whether to remove the program
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Remove it from the image below this folder, where nothing runs
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Also remove the data, the snapshots and the settings, after their paths are typed
    #[arg(long)]
    pub(super) purge: bool,
}

impl Arguments {
    /// The options for the program of a bundle, which does the rest.
    pub(super) fn passed_on(&self) -> Vec<OsString> {
        let mut passed: Vec<OsString> = Vec::new();
        let mut pass = |name: &str, value: Option<OsString>| {
            passed.push(name.into());
            passed.extend(value);
        };
        for (is_given, name) in [(self.yes, "--yes"), (self.dry_run, "--dry-run"), (self.gpu, "--gpu")] {
            if is_given {
                pass(name, None);
            }
        }
        // The program of the bundle runs elsewhere.
        for (name, path) in [("--root", &self.root), ("--values", &self.values)] {
            if let Some(path) = path {
                pass(name, Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()).into()));
            }
        }
        if let Some(prefix) = &self.prefix {
            pass("--prefix", Some(prefix.into()));
        }
        if let Some(platform) = self.platform.and_then(|platform| platform.to_possible_value()) {
            pass("--for", Some(platform.get_name().into()));
        }
        if let Some(listen) = self.listen {
            pass("--listen", Some(listen.to_string().into()));
        }
        if let Some(size) = self.node_size {
            pass("--node-size", Some(size.name().into()));
        }
        for variant in &self.with {
            pass("--with", Some(variant.to_string().into()));
        }
        for Assignment { key, value } in &self.set {
            pass("--set", Some(format!("{key}={value}").into()));
        }
        pass("--timeout", Some(self.timeout.to_string().into()));
        passed
    }
}
