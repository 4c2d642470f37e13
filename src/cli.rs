//! The command line: one file a verb, text for people and JSON for programs.
//!
//! Invariants: standard output carries answers alone; everything else goes to standard error. Exit codes: 0 done, 1 failed,
//! 2 usage, 3 not ready or unreachable, 4 backups that are not what they should be. A verb talks to the node that runs on the data directory, and opens the directory
//! itself when none does.

/// The standard macro panics where nobody reads the stream any more (`cairn add … 2>&1 | head`): this one goes on without, for the
/// work matters more than what is said of it. Defined before the verbs, so that it takes the place of the standard one in each.
macro_rules! eprintln {
    ($($text:tt)+) => { $crate::cli::output::note(format_args!("{}\n", format_args!($($text)+))) };
}
/// The same without a line end.
macro_rules! eprint {
    ($($text:tt)+) => { $crate::cli::output::note(format_args!($($text)+)) };
}
/// The same for standard output.
macro_rules! println {
    ($($text:tt)+) => { $crate::cli::output::told(format_args!("{}\n", format_args!($($text)+))) };
}

mod add;
mod backend;
mod bench;
mod bundle;
mod collections;
mod completions;
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

use anyhow::Context as _;
use clap::{Arg, Args, CommandFactory as _, Parser, Subcommand};

use crate::base::{Fault, RELEASED};
use crate::collection::OpenError;
use crate::config::{Config, ConfigError, Overrides};
use crate::mcp::{OVERLOADED, ToolError};
use crate::telemetry::{self, LogFormat};

use self::backend::{Absent, Address, Backend, Stay, Unavailable};

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
  cairn search \"restore a backup\"     find passages, with citations
  cairn mcp                           speak MCP on standard input and output

The data directory, configuration and addresses can also be set by CAIRN_* variables; see `cairn serve --print-config`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not ready or not there, 4 the snapshots are not what they should be.";

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

/// The exit code for a node that is not there or not ready.
const UNREACHABLE: u8 = 3;

/// Why a verb did not do what it was asked, with the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// The node is not there or not ready.
    fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self { code: UNREACHABLE, error: error.into() }
    }

    /// The node serves, and its snapshots are not what they should be.
    fn backups(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 4, error: error.into() }
    }

    /// The command line is wrong.
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// Whether it may be different in a moment.
    fn is_for_now(&self) -> bool {
        self.code_of_tool() == Some(OVERLOADED) || self.error.is::<Unavailable>()
    }

    /// Whether something is not there that was asked for.
    fn is_not_found(&self) -> bool {
        self.code_of_tool() == Some("not_found")
    }

    /// The code of a tool's error.
    fn code_of_tool(&self) -> Option<&'static str> {
        self.error.downcast_ref::<ToolError>().map(|error| error.code)
    }

    /// In the shape of a tool's error. One that comes from a tool keeps its code and fault.
    fn as_tool_error(&self) -> ToolError {
        if let Some(error) = self.error.downcast_ref::<ToolError>() {
            return ToolError { message: self.to_string(), ..error.clone() };
        }
        let opening = self.error.downcast_ref::<OpenError>().map(OpenError::fault);
        let (code, fault) = match self.code {
            2 => ("usage", Fault::Caller),
            UNREACHABLE => ("unreachable", Fault::Environment),
            _ => ("failed", Fault::Environment),
        };
        ToolError { code, message: self.to_string(), fault: opening.unwrap_or(fault) }
    }

    /// Says it: in words, and where JSON is wanted and no answer was given yet, as the answer.
    fn tell(&self, json: bool) {
        eprintln!("cairn: {self}");
        if json && !output::is_answered() {
            // It is said already, and nobody is there to be told that it cannot be said twice.
            let _ = output::json(&self.as_tool_error().to_json());
        }
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

/// Does what the command line says, and says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let json = cli.common.json;
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(json);
            ExitCode::from(failure.code)
        }
    }
}

/// A command line that cannot be understood, or asks for help.
fn misused(error: &clap::Error) -> ExitCode {
    // Nobody may be reading.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).take_while(|argument| argument != "--").collect();
    let is_given = |text: &str| arguments.iter().any(|argument| argument == text);
    let by_variable = std::env::var_os("CAIRN_JSON").is_some_and(|value| value == "true") && !is_given("--json=false");
    if is_given("--json") || is_given("--json=true") || by_variable {
        let text = error.render().to_string();
        let text = text.split("\n\nUsage:").next().unwrap_or_default().trim();
        let message = text.strip_prefix("error: ").unwrap_or(text).to_owned();
        let error = ToolError { code: "usage", message, fault: Fault::Caller };
        let _ = output::json(&error.to_json());
    }
    ExitCode::from(2)
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`Failure`] with words for people and an exit code for programs.
    fn run(self) -> Result<(), Failure> {
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
            Verb::Completions { shell } => completions::run(shell),
            Verb::Man { directory } => man(directory),
        }
    }
}

/// Writes the manual pages, with the date of this release.
fn man(directory: Option<PathBuf>) -> Result<(), Failure> {
    let page = |command: clap::Command| -> Result<(String, Vec<u8>), Failure> {
        let page = clap_mangen::Man::new(command);
        let (name, mut text) = (page.get_filename(), Vec::new());
        let day = RELEASED.to_string();
        page.date(&day[..day.find('T').unwrap_or(day.len())]).render(&mut text)?;
        Ok((name, text))
    };
    let Some(directory) = directory else { return output::bytes(&page(Cli::command())?.1) };
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut commands = vec![root];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let (name, text) = page(command)?;
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
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

    /// The node that runs on the data directory, or the directory itself, for one answer. Makes no node.
    fn backend(&self) -> Result<Backend, Failure> {
        self.backend_for(Stay::Brief, Absent::Refuse)
    }

    fn backend_for(&self, stay: Stay, absent: Absent) -> Result<Backend, Failure> {
        let config = self.load()?;
        quiet_logs(&config);
        Backend::find(self.address(), config, stay, absent)
    }

    /// Which node was named, and how to come in there.
    fn address(&self) -> Address {
        Address { url: self.url.clone(), token: self.token.clone(), ca: self.ca.clone(), resolve: self.resolve }
    }
}

/// What derives from the log mends itself: nobody has to do anything about that.
const COMMAND_LOGS: &str = "warn,cairn::collection=error,cairn::index=error,cairn::collection::writer=off";

/// Verbs other than `serve` say what went wrong themselves, also of a write; the log is for warnings they cannot see, and people read
/// it.
fn quiet_logs(config: &Config) {
    let filter = if config.log.filter == "info" { COMMAND_LOGS } else { &config.log.filter };
    let format = match config.log.format {
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_none() => LogFormat::Text,
        format => format,
    };
    // The filter was checked when the settings were loaded.
    let _ = telemetry::init(&telemetry::Config { format, filter: filter.to_owned() });
}
