//! `cairn migrate`: off Docker Swarm.

mod cutover;
mod data;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Common, Failure, output};
use crate::base::Fault;
use crate::migrate::objects::With;
use crate::migrate::{self, Conversion, Key, Outcome, ReportEntry, folder};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn migrate swarm stack.yml -o k3s/
  cairn migrate script > collect.sh                   run it on a manager of the swarm: sh collect.sh shop > shop.json
  cairn migrate swarm shop.json -o k3s/
  cairn migrate apply k3s/ --dry-run
  cairn migrate keys update_config")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Convert a stack to objects of Kubernetes, and report what became of every setting
    #[command(after_help = SWARM_EXAMPLES)]
    Swarm(SwarmArguments),
    /// Bring the data of volumes to the cluster, and prove that all of it is there
    Data(data::Arguments),
    /// Bring a converted stack to a cluster, phase by phase
    #[command(after_help = cutover::APPLY_EXAMPLES)]
    Apply(cutover::ApplyArguments),
    /// Show how the services of a converted stack are doing on a cluster
    #[command(after_help = cutover::STATUS_EXAMPLES)]
    Status(cutover::StatusArguments),
    /// Return a cluster to what was there before the last `apply`
    #[command(after_help = cutover::ROLLBACK_EXAMPLES)]
    Rollback(cutover::RollbackArguments),
    /// Print the shell script that collects a running stack as JSON
    #[command(after_help = "\
Examples:
  cairn migrate script > collect.sh
  ssh manager sh -s shop < collect.sh > shop.json

The script only reads. It needs Docker's command line on a manager of the swarm, and nothing else.")]
    Script,
    /// Show what becomes of the keys of a stack's files
    #[command(after_help = "\
Examples:
  cairn migrate keys
  cairn migrate keys services.*.deploy
  cairn migrate keys healthcheck --json")]
    Keys {
        /// Show the keys that contain this
        text: Option<String>,
        /// Print all of them as the table of the manual
        #[arg(long, hide = true)]
        markdown: bool,
    },
}

const SWARM_EXAMPLES: &str = "\
Examples:
  cairn migrate swarm stack.yml -o k3s/
  cairn migrate swarm stack.yml production.yml -o k3s/ --stack shop --env-file shop.env
  cairn migrate swarm stack.yml -o k3s/ --secret db_password=db.txt --with networkpolicy,pdb --strict
  cairn migrate swarm shop.json -o k3s/
  kubectl apply -k k3s/                              or: cairn migrate apply k3s/

The report is printed, and written to report.md and report.json in the folder. Nothing is contacted, and nothing is applied.

Exit codes: 0 converted, 1 failed, or --strict and something was not carried over word for word, 2 the input or the command line is \
wrong.";

#[derive(Debug, clap::Args)]
struct SwarmArguments {
    /// Stack files, merged in this order, or the JSON of a running stack; - reads standard input
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Folder for the objects and the report
    #[arg(short, long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    output: PathBuf,
    /// Name of the stack [default: the file's `name`, else the name of its folder]
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// The program that the files are for
    #[arg(long, value_enum, default_value_t = DialectChoice::Auto, value_name = "PROGRAM")]
    dialect: DialectChoice,
    /// File with the variables that the files name; those of this shell are not used
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    env_file: Option<PathBuf>,
    /// Profile of a Compose file whose services are converted, too
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Namespace of the objects [default: the name of the stack]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Content of a secret, which no swarm gives away
    #[arg(long, value_name = "NAME=FILE")]
    secret: Vec<String>,
    /// Content of a config that is not in the files
    #[arg(long = "config", id = "config", value_name = "NAME=FILE")]
    configs: Vec<PathBuf>,
    /// Archives of the images, of `docker save` or OCI: what they say of users, health checks, ports and volumes is used
    #[arg(long, value_name = "ARCHIVE", num_args = 1.., value_hint = clap::ValueHint::FilePath)]
    images: Vec<PathBuf>,
    /// Add something: hpa, pdb, networkpolicy, externalsecrets
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    with: Vec<WithChoice>,
    /// The ClusterSecretStore of --with externalsecrets [default: default]
    #[arg(long, value_name = "NAME")]
    secret_store: Option<String>,
    /// Take rights away that Swarm gave, with a reason for each line
    #[arg(long)]
    harden: bool,
    /// Move passwords in plain variables into Secrets
    #[arg(long)]
    move_passwords: bool,
    /// Write charts of Helm, too: one of the stack, with one of each service, below charts/
    #[arg(long)]
    helm: bool,
    /// Read files outside the stack's folder that the stack names
    #[arg(long)]
    allow_outside: bool,
    /// Fail unless every setting was converted
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DialectChoice {
    /// `docker stack deploy`
    Stack,
    /// `docker compose`
    Compose,
    /// What the files look like
    Auto,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WithChoice {
    Hpa,
    Pdb,
    Networkpolicy,
    Externalsecrets,
}

pub(super) fn run(common: &Common, arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb {
        Verb::Swarm(arguments) => arguments.run(common),
        Verb::Data(arguments) => data::run(common, &arguments),
        Verb::Apply(arguments) => arguments.run(common),
        Verb::Status(arguments) => arguments.run(common),
        Verb::Rollback(arguments) => arguments.run(common),
        Verb::Script => output::bytes(migrate::SCRIPT.as_bytes()),
        Verb::Keys { markdown: true, .. } => output::bytes(migrate::keys_markdown().as_bytes()),
        Verb::Keys { text, .. } => list_keys(text.as_deref(), common),
    }
}

impl SwarmArguments {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let request = migrate::Request {
            files: self.files.clone(),
            stack: self.stack.clone(),
            dialect: match self.dialect {
                DialectChoice::Stack => Some(migrate::Dialect::Stack),
                DialectChoice::Compose => Some(migrate::Dialect::Compose),
                DialectChoice::Auto => None,
            },
            env_file: self.env_file.clone(),
            profiles: self.profile.clone(),
            allow_outside: self.allow_outside,
            namespace: self.namespace.clone(),
            images: self.images.clone(),
            secrets: contents("--secret", self.secret.iter().map(String::as_str))?,
            configs: contents("--config", self.configs.iter().filter_map(|path| path.to_str()))?,
            with: self.with.iter().map(|choice| choice.with()).collect(),
            harden: self.harden,
            moves_passwords: self.move_passwords,
            helm: self.helm,
            secret_store: self.secret_store.clone(),
        };
        let conversion = migrate::convert(&request).map_err(|error| match error.fault() {
            Fault::Caller => Failure::usage(error),
            _ => Failure::from(error),
        })?;
        folder::write(&self.output, &conversion.files).map_err(|error| match error.fault() {
            Fault::Caller => Failure::usage(error),
            _ => Failure::from(error),
        })?;
        if common.json {
            output::json(&conversion.json())?;
        } else {
            print(&conversion, &self.output)?;
        }
        if self.strict && !conversion.report.is_complete() {
            return Err(anyhow!(
                "--strict: not every setting was converted; {} says why",
                self.output.join("report.md").display()
            )
            .into());
        }
        Ok(())
    }
}

impl WithChoice {
    fn with(self) -> With {
        match self {
            Self::Hpa => With::Hpa,
            Self::Pdb => With::Pdb,
            Self::Networkpolicy => With::NetworkPolicy,
            Self::Externalsecrets => With::ExternalSecrets,
        }
    }
}

/// The contents of the files of `NAME=FILE`.
fn contents<'a>(
    option: &str,
    assignments: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut result = BTreeMap::new();
    for assignment in assignments {
        let parts = assignment.split_once('=').filter(|(name, file)| !name.is_empty() && !file.is_empty());
        let Some((name, file)) = parts else {
            let what = format!("{option} {assignment}: expected NAME=FILE, with the name that the stack's file has");
            return Err(Failure::usage(anyhow!(what)));
        };
        let files = migrate::Files::new(Path::new("."), true)?;
        let bytes = files.read(Path::new(""), file).with_context(|| format!("{option} {name}"))?;
        if result.insert(name.to_owned(), bytes).is_some() {
            return Err(Failure::usage(anyhow!("{option} {name} is there twice; name each once")));
        }
    }
    Ok(result)
}

/// What a person sees: what cannot move, what to decide, and where everything is.
fn print(conversion: &Conversion, folder: &Path) -> Result<(), Failure> {
    for warning in &conversion.warnings {
        eprintln!("cairn: {warning}");
    }
    let report = &conversion.report;
    for what in &report.cannot_move {
        output::line(&format!("{} {what}", output::bold("Cannot move:")))?;
    }
    let mut rows = Vec::new();
    for outcome in [Outcome::NeedsInput, Outcome::Dropped, Outcome::Approximated] {
        let entries = report.entries.iter().filter(|entry| entry.outcome == outcome);
        rows.extend(
            grouped(entries)
                .into_iter()
                .map(|(place, what, reason)| vec![outcome.as_str().to_owned(), place, what, reason]),
        );
    }
    if !rows.is_empty() {
        output::table(&["outcome", "where", "setting", "why"], &[], rows)?;
        output::line("")?;
    }
    let count = |outcome| output::thousands(report.count(outcome) as u64);
    output::line(&format!(
        "{}: {} converted, {} approximated, {} to decide, {} dropped, {} added by Cairn",
        output::bold(&format!("Stack {}", conversion.stack)),
        count(Outcome::Converted),
        count(Outcome::Approximated),
        count(Outcome::NeedsInput),
        count(Outcome::Dropped),
        count(Outcome::Added),
    ))?;
    output::line(&format!(
        "Read as {}: {}",
        match conversion.dialect {
            migrate::Dialect::Stack => "`docker stack deploy` reads it",
            migrate::Dialect::Compose => "`docker compose` reads it",
        },
        conversion.dialect_reason
    ))?;
    output::line(&format!("Every setting: {}", folder.join("report.md").display()))?;
    output::line(&format!("Then:          cairn migrate apply {}", folder.display()))
}

/// Entries with the same reason of the same key, as one row: `stack.yml:12 (and 3 more)`.
fn grouped<'a>(entries: impl Iterator<Item = &'a ReportEntry>) -> Vec<(String, String, String)> {
    let mut groups: Vec<(&ReportEntry, usize)> = Vec::new();
    for entry in entries {
        let is_same = |other: &&mut (&ReportEntry, usize)| {
            other.0.reason == entry.reason
                && other.0.path.0.len() == entry.path.0.len()
                && other.0.path.0.last() == entry.path.0.last()
        };
        match groups.iter_mut().find(is_same) {
            Some((_, more)) => *more += 1,
            None => groups.push((entry, 0)),
        }
    }
    let row = |(entry, more): (&ReportEntry, usize)| {
        let place = match more {
            0 => format!("{}:{}", entry.file, entry.line),
            more => format!("{}:{} (and {more} more)", entry.file, entry.line),
        };
        (place, entry.path.to_string(), entry.reason.clone())
    };
    groups.into_iter().map(row).collect()
}

fn list_keys(text: Option<&str>, common: &Common) -> Result<(), Failure> {
    let found = migrate::keys_matching(text.unwrap_or_default());
    if found.is_empty() {
        return Err(Failure::usage(anyhow!(
            "there is no such key in a stack's file; `cairn migrate keys` shows all of them"
        )));
    }
    if common.json {
        let row = |key: &&Key| json!(key);
        return output::json(&Value::Array(found.iter().map(row).collect()));
    }
    let row = |key: &&Key| {
        vec![
            key.path.to_owned(),
            key.stack.to_string(),
            key.compose.to_string(),
            key.target.to_owned(),
            key.note.to_owned(),
        ]
    };
    output::table(&["key", "stack deploy", "compose", "becomes", "note"], &[], found.iter().map(row).collect())
}
