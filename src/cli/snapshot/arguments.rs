//! The arguments of `cairn snapshot`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::base::UnixMillis;
use crate::cli::{Failure, output};
use crate::snapshot::Whose;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn snapshot create                                  back up, beside the data or where snapshot.target says
  cairn snapshot list                                    what is there, and what should be there and is not
  cairn snapshot verify                                  prove that the newest can be restored
  cairn snapshot restore --to-time 2026-07-28T09:30:00Z  go back to a moment
  cairn snapshot export /media/stick/                    the newest in one file")]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Take a snapshot; copies only what the last one does not have
    #[command(after_help = "\
Examples:
  cairn snapshot create --json
  cairn snapshot create --begin-anew   on a new disk in the place of one that is lost

A place that is gone, empty, or holds another repository, though this node put snapshots there, is refused: its disk may \
only not be mounted.")]
    Create {
        /// Go on without snapshots that are missing, and take the place where they went as it is now
        #[arg(long)]
        begin_anew: bool,
    },
    /// List this node's snapshots, newest first
    #[command(after_help = "\
Examples:
  cairn snapshot list
  cairn snapshot list --any          those of other nodes too, in a repository that several share

Exit code 1 means that snapshots are missing, that the place where they go cannot be seen, or that the last one failed.")]
    List(Nodes),
    /// Prove a snapshot: fetch it, check every byte, rebuild the indexes, ask its questions again
    #[command(after_help = "\
Examples:
  cairn snapshot verify
  cairn snapshot verify 20260728T093000Z-1234

Exit code 1 means that the snapshot is not what it should be, every file with something wrong is named; or that a newer one \
is missing.")]
    Verify {
        /// Which one [default: the newest]
        id: Option<String>,
    },
    /// Go back to a snapshot, a position of the log, or a moment
    #[command(after_help = "\
Examples:
  cairn snapshot restore --dry-run
  cairn snapshot restore 20260728T093000Z-1234 --yes
  cairn snapshot restore --to-time 2026-07-28T09:30:00Z
  cairn snapshot restore backup.cairn-snapshot
  cairn snapshot restore --node 904ab9d5   another node's newest, in a repository that several share
  cairn snapshot restore --drop-old

The old state is built and checked beside the data, then takes its place; until then nothing changes, also when it is \
interrupted. A running node does it while it serves and starts again at the end. What was there before stays in \
before-restore-… of the data directory until --drop-old.")]
    Restore(RestoreArguments),
    /// Write a snapshot to one file, for a disk that is carried
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
    /// Put the snapshot of a file among the others
    #[command(after_help = "Example:\n  cairn snapshot import backup.cairn-snapshot && cairn snapshot restore")]
    Import {
        /// A file that `export` wrote
        path: PathBuf,
    },
    /// Remove snapshots that the settings do not keep
    #[command(after_help = "\
Examples:
  cairn snapshot prune --dry-run
  cairn snapshot prune --node 904ab9d5   those of a node that is gone, by this node's settings

Nothing is removed while a snapshot that should be there is missing.")]
    Prune {
        /// Say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Show what runs when, and how it went
    #[command(after_help = "Example:\n  cairn snapshot schedule --json")]
    Schedule,
    /// Make a key for an encrypted repository
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
    /// All nodes that write to the same place
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
    /// Position of the log to go back to
    #[arg(long, value_name = "LSN", conflicts_with = "to_time", value_parser = output::whole::<u64>(0..=u64::MAX))]
    pub(super) to_lsn: Option<u64>,
    /// Moment to go back to, such as 2026-07-28T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) to_time: Option<UnixMillis>,
    /// Say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Remove what earlier restores put aside, and do nothing else
    #[arg(long, conflicts_with_all = ["id", "to_lsn", "to_time", "yes", "dry_run"])]
    pub(super) drop_old: bool,
    #[command(flatten)]
    pub(super) nodes: Nodes,
}

fn moment(text: &str) -> Result<UnixMillis, String> {
    text.parse().map_err(|_| "expected a date and time with its zone, such as 2026-07-28T09:30:00Z".to_owned())
}
