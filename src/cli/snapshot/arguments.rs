//! The arguments of `cairn snapshot`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::base::UnixMillis;
use crate::cli::{Failure, output};
use crate::snapshot::Whose;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn snapshot create                                  back up, next to the data or to snapshot.target
  cairn snapshot list                                    list snapshots, and report missing ones
  cairn snapshot verify                                  check that the newest can be restored
  cairn snapshot restore --to-time 2026-07-28T09:30:00Z  restore a point in time
  cairn snapshot export /media/stick/                    the newest in one file")]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Take a snapshot; copies only what the last one lacks
    #[command(after_help = "\
Examples:
  cairn snapshot create --json
  cairn snapshot create --begin-anew   on a new disk that replaces a lost one

A target that is missing, empty, or holds another repository, although this node stored snapshots there, is refused: its disk \
may not be mounted.")]
    Create {
        /// Continue without missing snapshots, and accept the target as it is now
        #[arg(long)]
        begin_anew: bool,
    },
    /// List this node's snapshots, newest first
    #[command(after_help = "\
Examples:
  cairn snapshot list
  cairn snapshot list --any          other nodes' snapshots too, in a shared repository

Exit code 1 means that snapshots are missing, that the target cannot be reached, or that the last snapshot failed.")]
    List(Nodes),
    /// Verify a snapshot: fetch it, check every byte, rebuild the indexes, repeat its searches
    #[command(after_help = "\
Examples:
  cairn snapshot verify
  cairn snapshot verify 20260728T093000Z-1234

Exit code 1 means that the snapshot is damaged or incomplete (every affected file is named), or that a newer one is missing.")]
    Verify {
        /// Which one [default: the newest]
        id: Option<String>,
    },
    /// Restore a snapshot, a position of the log, or a point in time
    #[command(after_help = "\
Examples:
  cairn snapshot restore --dry-run
  cairn snapshot restore 20260728T093000Z-1234 --yes
  cairn snapshot restore --to-time 2026-07-28T09:30:00Z
  cairn snapshot restore backup.cairn-snapshot
  cairn snapshot restore --node 904ab9d5   another node's newest, in a shared repository
  cairn snapshot restore --drop-old

The restored state is built and checked next to the data, then replaces it; until then nothing changes, even if it is \
interrupted. A running node keeps serving meanwhile and restarts at the end. The previous data stays in before-restore-… of \
the data directory until --drop-old.")]
    Restore(RestoreArguments),
    /// Write a snapshot to one file, for a removable disk
    #[command(
        after_help = "Examples:\n  cairn snapshot export /media/stick/\n  cairn snapshot export backup.cairn-snapshot --id 20260728T093000Z-1234"
    )]
    Export {
        /// The file, or a folder for it
        path: PathBuf,
        /// Which snapshot [default: the newest]
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Add the snapshot in a file to the repository
    #[command(after_help = "Example:\n  cairn snapshot import backup.cairn-snapshot && cairn snapshot restore")]
    Import {
        /// A file that `export` wrote
        path: PathBuf,
    },
    /// Remove snapshots that the retention settings do not keep
    #[command(after_help = "\
Examples:
  cairn snapshot prune --dry-run
  cairn snapshot prune --node 904ab9d5   those of a node that no longer exists, by this node's settings

Nothing is removed while an expected snapshot is missing.")]
    Prune {
        /// Show what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Show scheduled runs and their results
    #[command(after_help = "Example:\n  cairn snapshot schedule --json")]
    Schedule,
    /// Create a key for an encrypted repository
    #[command(
        args(crate::cli::on_its_own()),
        after_help = "\
Example:
  cairn snapshot keygen /etc/cairn/snapshot.key

Then set snapshot.encryption_key_file to it. Keep a copy elsewhere: without the key nobody reads the snapshots."
    )]
    Keygen {
        /// A file that does not exist yet
        path: PathBuf,
    },
}

/// Whose snapshots are used.
#[derive(Debug, clap::Args)]
pub(super) struct Nodes {
    /// Another node: the first digits of its id, as `list --any` shows it
    #[arg(long, value_name = "ID", conflicts_with = "any")]
    pub(super) node: Option<String>,
    /// All nodes that use the same repository
    #[arg(long)]
    pub(super) any: bool,
}

impl Nodes {
    /// In the form of the tools' argument.
    pub(super) fn named(&self) -> Option<&str> {
        if self.any { Some("any") } else { self.node.as_deref() }
    }

    pub(super) fn whose(&self) -> Result<Whose, Failure> {
        Whose::read(self.named()).map_err(Failure::usage)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArguments {
    /// Id of a snapshot, or a file that `export` wrote [default: the newest snapshot]
    #[arg(conflicts_with_all = ["to_lsn", "to_time"])]
    pub(super) id: Option<String>,
    /// Position of the log to restore
    #[arg(long, value_name = "LSN", conflicts_with = "to_time", value_parser = output::whole::<u64>(0..=u64::MAX))]
    pub(super) to_lsn: Option<u64>,
    /// Point in time to restore, such as 2026-07-28T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) to_time: Option<UnixMillis>,
    /// Show what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Remove data that earlier restores set aside, and do nothing else
    #[arg(long, conflicts_with_all = ["id", "to_lsn", "to_time", "yes", "dry_run"])]
    pub(super) drop_old: bool,
    #[command(flatten)]
    pub(super) nodes: Nodes,
}

fn moment(text: &str) -> Result<UnixMillis, String> {
    text.parse().map_err(|_| "expected a date and time with its zone, such as 2026-07-28T09:30:00Z".to_owned())
}
