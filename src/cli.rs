//! The command line: one file a verb, text for people and JSON for programs.
//!
//! Invariants: standard output carries answers alone; everything else goes to standard error. Exit codes: 0 done, 1 failed,
//! 2 usage, 3 not ready or unreachable. A verb talks to the node that runs on the data directory, and opens the directory
//! itself when none does.

mod add;
mod backend;
mod bench;
mod bundle;
mod collections;
mod doctor;
mod documents;
mod eval;
mod gpu;
mod image;
mod in_cluster;
mod install;
mod k3s;
mod output;
mod owner;
mod proxy;
mod search;
mod serve;
mod snapshot;
mod status;
mod token;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides};
use crate::telemetry;

use self::backend::{Address, Backend, Stay};

/// A context server for AI agents: keeps documents on this machine and answers searches over MCP.
#[derive(Parser)]
#[command(name = "cairn", version, arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cairn serve                         start the node
  cairn add docs/ -c manual           put a folder in, and keep it in step
  cairn search \"restore a backup\"   find passages, with citations
  cairn mcp                           speak MCP on standard input and output

The data directory, configuration and addresses can also be set by CAIRN_* variables; see `cairn serve --print-config`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not ready or not there.";

/// Above the options that every verb has.
const GLOBAL: &str = "Options of every verb";

/// Stands in for a global option where it means nothing, so that help does not list it. Still taken: variables set it.
fn unlisted(name: &'static str) -> Arg {
    Arg::new(name).long(name).hide(true)
}

/// The same for the settings, so that a verb can have a `--config` of its own.
fn unlisted_config() -> Arg {
    unlisted("config").value_parser(clap::value_parser!(PathBuf))
}

/// What every verb takes.
#[derive(Clone, Args)]
struct Common {
    /// Where everything is kept [default: /var/lib/cairn for root, else ~/.local/share/cairn]
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings in TOML; see `cairn serve --print-config`
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Talk to the node at this address instead of the one on the data directory
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_URL", value_name = "URL")]
    url: Option<String>,
    /// The node's token, for a node that asks for one
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The same, read from a file, as a mounted Secret is
    #[arg(long, global = true, hide = true, env = "CAIRN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust this authority of a node at an https:// address, a PEM file [default: those of the system]
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Connect to this address, whatever the host in --url is called
    #[arg(long, global = true, hide = true, env = "CAIRN_RESOLVE", value_name = "ADDR")]
    resolve: Option<IpAddr>,
    /// Print JSON
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_JSON", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set, hide_possible_values = true, value_name = "BOOL")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the node
    #[command(arg(unlisted("url")), arg(unlisted("token")), arg(unlisted("ca")))]
    Serve(serve::Arguments),
    /// Speak MCP on standard input and output
    Mcp(proxy::Arguments),
    /// Put files and folders into a collection, and keep it in step with them
    Add(add::Arguments),
    /// Find passages
    Search(search::Arguments),
    /// Print a document, or a passage with what surrounds it
    Get(documents::GetArguments),
    /// List collections, or the documents of one
    Ls(documents::ListArguments),
    /// Delete documents
    Rm(documents::RemoveArguments),
    /// Create, describe and delete collections
    Collection(collections::Arguments),
    /// Measure search quality on a folder with questions and judgements
    #[command(arg(unlisted("url")), arg(unlisted("token")), arg(unlisted("ca")))]
    Eval(eval::Arguments),
    /// Measure what the node can answer on this hardware
    Bench(bench::Arguments),
    /// List this machine's GPUs, prove that they compute right, measure them
    #[command(arg(unlisted("url")), arg(unlisted("token")), arg(unlisted("ca")))]
    Gpu(gpu::Arguments),
    /// Back the node up, prove the backups, go back to one
    Snapshot(snapshot::Arguments),
    /// Find damage, say what it affects, mend it from the snapshots
    Doctor(doctor::Arguments),
    /// Make tokens for clients of this machine's node, list them, take them back
    #[command(arg(unlisted("url")), arg(unlisted("token")), arg(unlisted("ca")))]
    Token(token::Arguments),
    /// Manifests for K3s
    K3s(k3s::Arguments),
    /// Tell how the node is
    Status(status::Arguments),
    /// Write Cairn's own container image
    #[command(arg(unlisted("url")), arg(unlisted("token")))]
    Image(image::Arguments),
    /// Pack everything for a machine without a network into one signed file
    #[command(arg(unlisted("url")), arg(unlisted("token")), arg(unlisted_config()))]
    Bundle(bundle::Arguments),
    /// Install the node on this machine, or upgrade it
    #[command(visible_alias = "upgrade", arg(unlisted("url")), arg(unlisted("token")))]
    Install(install::Arguments),
    /// Run the release from before the last upgrade again
    #[command(arg(unlisted("url")), arg(unlisted("token")))]
    Rollback(install::RollbackArguments),
    /// Add the documents that an image left for its machines, and remove them; for the unit that does so
    #[command(hide = true)]
    AddWaiting {
        /// The folder that holds a folder for each collection
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Remove what was installed; data and snapshots stay
    #[command(arg(unlisted("url")), arg(unlisted("token")))]
    Uninstall(install::UninstallArguments),
    /// Print the tab completions of a shell
    #[command(arg(unlisted("url")), arg(unlisted("token")), arg(unlisted("ca")))]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one per verb into a folder
    #[command(arg(unlisted("url")), arg(unlisted("token")), arg(unlisted("ca")))]
    Man {
        /// Folder for the pages
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

impl Verb {
    /// Whether it asks a node, wherever that is.
    fn asks_a_node(&self) -> bool {
        // Of a machine the doctor looks at more than the node; tokens lie in the data directory.
        self.opens_data() && !matches!(self, Self::Serve(_) | Self::Doctor(_) | Self::Token(_))
    }

    /// Whether it may open the data directory.
    fn opens_data(&self) -> bool {
        match self {
            Self::Serve(_)
            | Self::Mcp(_)
            | Self::Add(_)
            | Self::Search(_)
            | Self::Get(_)
            | Self::Ls(_)
            | Self::Rm(_)
            | Self::Collection(_)
            | Self::Snapshot(_)
            | Self::Doctor(_)
            | Self::Status(_) => true,
            Self::Token(arguments) => arguments.is_about_data(),
            Self::Eval(_)
            | Self::Bench(_)
            | Self::Gpu(_)
            | Self::K3s(_)
            | Self::Image(_)
            | Self::Bundle(_)
            | Self::Install(_)
            | Self::Rollback(_)
            | Self::Uninstall(_)
            | Self::AddWaiting { .. }
            | Self::Completions { .. }
            | Self::Man { .. } => false,
        }
    }
}

/// Why a verb did not do what it was asked, with the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// The node is not there or not ready.
    fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 3, error: error.into() }
    }

    /// The node serves, and its snapshots are not what they should be.
    fn backups(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 4, error: error.into() }
    }

    /// The command line is wrong.
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        // An error that passes its cause through has the same words: said once.
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
        }
        Ok(())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, error: error.into() }
    }
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`Failure`] with words for people and an exit code for programs.
    pub fn run(self) -> Result<(), Failure> {
        let mut common = self.common;
        if let (None, Some(file)) = (&common.token, &common.token_file) {
            common.token = Some(in_cluster::token_in(file)?);
        }
        if let Ok(config) = common.load() {
            if self.verb.asks_a_node() {
                in_cluster::name_it(&mut common, &config)?;
            } else if matches!(self.verb, Verb::Token(_))
                && self.verb.opens_data()
                && in_cluster::is_meant(&common, &config)
            {
                common.data_dir = Some(install::cluster::data_here()?);
            }
        }
        let common = &common;
        if self.verb.opens_data()
            && common.url.is_none()
            && let Ok(config) = common.load()
        {
            let answers = || matches!(Backend::running(common.address(), config.clone()), Ok(Some(_)));
            owner::go_on_as_owner(&config.data_dir, answers)?;
        }
        match self.verb {
            Verb::Serve(arguments) => serve::run(common, &arguments),
            Verb::Mcp(arguments) => proxy::run(common, &arguments),
            Verb::Add(arguments) => add::run(common, &arguments),
            Verb::Search(arguments) => search::run(common, &arguments),
            Verb::Get(arguments) => documents::get(common, &arguments),
            Verb::Ls(arguments) => documents::list(common, &arguments),
            Verb::Rm(arguments) => documents::remove(common, &arguments),
            Verb::Collection(arguments) => collections::run(common, &arguments),
            Verb::Eval(arguments) => eval::run(common, &arguments),
            Verb::Bench(arguments) => bench::run(common, &arguments),
            Verb::Gpu(arguments) => gpu::run(common, &arguments),
            Verb::Snapshot(arguments) => snapshot::run(common, &arguments),
            Verb::Doctor(arguments) => doctor::run(common, &arguments),
            Verb::Token(arguments) => token::run(common, &arguments),
            Verb::K3s(arguments) => k3s::run(common, &arguments),
            Verb::Status(arguments) => status::run(common, &arguments),
            Verb::Image(arguments) => image::run(common, &arguments),
            Verb::Bundle(arguments) => bundle::run(common, &arguments),
            Verb::Install(arguments) => install::run(common, &arguments),
            Verb::Rollback(arguments) => install::rollback(common, &arguments),
            Verb::Uninstall(arguments) => install::uninstall(common, &arguments),
            Verb::AddWaiting { folder } => install::add_waiting(&folder),
            Verb::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "cairn", &mut std::io::stdout());
                Ok(())
            }
            Verb::Man { directory } => man(directory),
        }
    }
}

fn man(directory: Option<PathBuf>) -> Result<(), Failure> {
    match directory {
        Some(directory) => {
            std::fs::create_dir_all(&directory)?;
            clap_mangen::generate_to(Cli::command(), &directory)?;
        }
        None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
    }
    Ok(())
}

impl Common {
    fn overrides(&self) -> Overrides {
        Overrides { data_dir: self.data_dir.clone(), ..Overrides::default() }
    }

    /// The settings, for every verb but `serve`, which has flags of its own.
    fn load(&self) -> Result<Config, Failure> {
        self.load_with(&self.overrides())
    }

    fn load_with(&self, overrides: &Overrides) -> Result<Config, Failure> {
        // A variable that is not UTF-8 is none of ours.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Config::load(self.config.as_deref(), environment, overrides).map_err(|error: ConfigError| Failure::usage(error))
    }

    /// The node that runs on the data directory, or the directory itself, for one answer.
    fn backend(&self) -> Result<Backend, Failure> {
        self.backend_for(Stay::Brief)
    }

    fn backend_for(&self, stay: Stay) -> Result<Backend, Failure> {
        let config = self.load()?;
        quiet_logs(&config);
        Backend::find(self.address(), config, stay)
    }

    /// Which node was named, and how to come in there.
    fn address(&self) -> Address {
        Address { url: self.url.clone(), token: self.token.clone(), ca: self.ca.clone(), resolve: self.resolve }
    }
}

/// Verbs other than `serve` say what went wrong themselves; the log is for warnings they cannot see.
fn quiet_logs(config: &Config) {
    let filter = if config.log.filter == "info" { "warn".to_owned() } else { config.log.filter.clone() };
    // The filter was checked when the settings were loaded.
    let _ = telemetry::init(&telemetry::Config { filter, ..config.log.clone() });
}
