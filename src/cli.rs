//! The command line: one file for each verb, text for people and JSON for programs.
//!
//! Invariants: standard output contains only answers; everything else goes to standard error. Exit codes: 0 done, 1
//! failed, 2 usage, 3 not ready or unreachable, 4 backups are not as they should be. A verb talks to the node that runs
//! on the data directory, and opens the directory itself when none does.

/// The standard macro panics if nobody reads the stream any more (`cairn add … 2>&1 | head`): this one continues
/// without it, for the work matters more than the message. Defined before the verbs, so that it replaces the standard
/// one in each.
macro_rules! eprintln {
    ($($text:tt)+) => { $crate::cli::output::note(format_args!("{}\n", format_args!($($text)+))) };
}
/// The same without a line end.
macro_rules! eprint {
    ($($text:tt)+) => { $crate::cli::output::note(format_args!($($text)+)) };
}
/// The same for standard output.
macro_rules! println {
    ($($text:tt)+) => { $crate::cli::output::print_args(format_args!("{}\n", format_args!($($text)+))) };
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
mod migrate;
mod output;
mod owner;
mod proxy;
mod search;
mod serve;
mod snapshot;
mod status;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::builder::{BoolishValueParser, Resettable};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::base::{Fault, RELEASED};
use crate::collection::OpenError;
use crate::config::{Config, ConfigError, Overrides, Source};
use crate::mcp::{ErrorCode, ToolError};
use crate::telemetry::{self, LogFormat};

use self::backend::{Absent, Address, Backend, Stay, Unavailable};

/// A context server for AI agents: stores documents on this machine and answers searches over MCP.
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
  cairn add docs/ -c manual           add a folder and keep it in sync
  cairn search \"restore a backup\"     find passages, with citations
  cairn mcp                           speak MCP on standard input and output

The data directory, configuration and addresses can also be set by CAIRN_* variables; see `cairn serve --print-config`.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not ready or not found, 4 snapshots missing or failed.";

/// Above the options that every verb has.
const GLOBAL: &str = "Global options";

/// Which node is asked, and how.
const NODE: [&str; 5] = ["url", "token", "token_file", "ca", "resolve"];
/// Where a node's data and its settings are.
const PLACE: [&str; 2] = ["data_dir", "config"];

/// What such an option is called on the command line.
fn long(id: &'static str) -> &'static str {
    match id {
        "token_file" => "token-file",
        "data_dir" => "data-dir",
        id => id,
    }
}

/// Placeholders for global options where they are meaningless: help does not list them there, and using one is an error
/// ([`meaningless`]). Variables may set them: those are for the verbs that use them.
fn unlisted(ids: impl IntoIterator<Item = &'static str>) -> impl Iterator<Item = Arg> {
    // For the verbs below this one too.
    ids.into_iter().map(|id| Arg::new(id).long(long(id)).hide(true).global(true))
}

/// The same for a verb that asks no node, wherever it is.
fn without_node() -> impl Iterator<Item = Arg> {
    unlisted(NODE)
}

/// The same for a verb that neither calls a node nor accesses its data.
fn on_its_own() -> impl Iterator<Item = Arg> {
    unlisted(NODE.into_iter().chain(PLACE))
}

/// The first given option that is meaningless for the verb, in words; `None`: all of them are meaningful.
///
/// * `command`, `matches`: after the command line was parsed.
fn meaningless(command: &clap::Command, matches: &ArgMatches) -> Option<String> {
    let (mut command, mut matches, mut verbs) = (command, matches, Vec::new());
    while let Some((verb, inner)) = matches.subcommand() {
        command = command.find_subcommand(verb)?;
        matches = inner;
        verbs.push(verb);
    }
    let id = NODE.into_iter().chain(PLACE).find(|id| {
        let is_unlisted = command.get_arguments().any(|argument| argument.get_id() == id && argument.is_hide_set());
        is_unlisted && matches.value_source(id) == Some(ValueSource::CommandLine)
    })?;
    let instead = match (verbs[0], id) {
        ("serve", _) => "it runs a node on this machine, and --listen says where that answers",
        ("token", _) if NODE.contains(&id) => {
            "tokens lie in the data directory of a node: run this on its machine, with --data-dir if it is not the default one"
        }
        ("install", "data_dir") => {
            "an installed node keeps its data in /var/lib/cairn; mount another disk there, or set storage.size and \
             storage.class for K3s"
        }
        ("install", "config") => {
            "put the settings at /etc/cairn/cairn.toml before, below --root where one is given: they are checked and used. \
             For K3s use --set config.SECTION.KEY=VALUE"
        }
        ("eval", "data_dir") => "it measures in a data directory of its own, which is removed again",
        (_, id) if NODE.contains(&id) => "it asks no node",
        _ => "it looks at no node's data or settings",
    };
    Some(format!("`cairn {}` does not use --{}: {instead}", verbs.join(" "), long(id)))
}

/// The options of every verb.
#[derive(Clone, Args)]
struct Common {
    /// Where everything is kept [default: /var/lib/cairn for root, else ~/.local/share/cairn]
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings in TOML; see `cairn serve --print-config`
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use the node at this address instead of the one on the data directory
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_URL", value_name = "URL")]
    url: Option<String>,
    /// Token, for a node that requires one
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// File with the token, such as a mounted Secret
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate authority to trust for an https:// address, a PEM file [default: those of the system]
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Connect to this address instead of resolving the host of --url
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_RESOLVE", value_name = "ADDR")]
    resolve: Option<IpAddr>,
    /// Print JSON
    #[arg(long, global = true, help_heading = GLOBAL, env = "CAIRN_JSON", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set, value_parser = BoolishValueParser::new(), hide_possible_values = true, value_name = "BOOL")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the node
    #[command(args(without_node()))]
    Serve(serve::Arguments),
    /// Speak MCP on standard input and output
    Mcp(proxy::Arguments),
    /// Add files and folders to a collection and keep it in sync
    Add(add::Arguments),
    /// Find passages
    Search(search::Arguments),
    /// Print a document, or a passage with its section
    Get(documents::GetArguments),
    /// List collections, or the documents of one
    Ls(documents::ListArguments),
    /// Delete documents
    Rm(documents::RemoveArguments),
    /// Create, describe and delete collections
    Collection(collections::Arguments),
    /// Measure search quality on a folder with questions and judgements
    #[command(args(unlisted(NODE.into_iter().chain(["data_dir"]))))]
    Eval(eval::Arguments),
    /// Measure how many searches the node answers on this hardware
    Bench(bench::Arguments),
    /// List, self-test and benchmark GPUs
    #[command(args(on_its_own()))]
    Gpu(gpu::Arguments),
    /// Back up the node, verify the backups, restore one
    Snapshot(snapshot::Arguments),
    /// Find damage, report what it affects, repair it from snapshots
    Doctor(doctor::Arguments),
    /// Create, list and revoke tokens for clients of this machine's node
    #[command(args(without_node()))]
    Token(token::Arguments),
    /// Render manifests for K3s
    #[command(args(on_its_own()))]
    K3s(k3s::Arguments),
    /// Show the node's status
    Status(status::Arguments),
    /// Write Cairn's own container image
    #[command(args(on_its_own()))]
    Image(image::Arguments),
    /// Pack everything for a machine without a network into one signed file
    #[command(args(on_its_own()))]
    Bundle(bundle::Arguments),
    /// Move a stack off Docker Swarm
    #[command(args(on_its_own()))]
    Migrate(migrate::Arguments),
    /// Install the node on this machine, or upgrade it
    #[command(visible_alias = "upgrade", args(on_its_own()))]
    Install(install::Arguments),
    /// Return to the release from before the last upgrade
    #[command(args(on_its_own()))]
    Rollback(install::RollbackArguments),
    /// Remove what was installed; data and snapshots stay
    #[command(args(on_its_own()))]
    Uninstall(install::UninstallArguments),
    /// Print shell completions
    #[command(args(on_its_own()))]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    #[command(args(on_its_own()))]
    Man {
        /// Folder for the pages
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

impl Verb {
    /// Whether it asks a node, wherever that is.
    fn asks_a_node(&self) -> bool {
        // The doctor checks more of a machine than the node; tokens are in the data directory.
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
            | Self::Migrate(_)
            | Self::Install(_)
            | Self::Rollback(_)
            | Self::Uninstall(_)
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

    /// The failure of a verb that is one call of a tool: an invalid argument is a usage error, reported with the names
    /// of the command line.
    fn of_command_line(self) -> Self {
        let Some(error) = self.error.downcast_ref::<ToolError>() else { return self };
        let code = if error.code == ErrorCode::BadArgument && self.code == 1 { 2 } else { self.code };
        let message = error
            .message
            .replace("from search or list_documents", "that `cairn search` or `cairn ls` prints")
            .replace("expected_count is", "when it was asked they were");
        Self { code, error: ToolError { message, ..error.clone() }.into() }
    }

    /// Whether it may be different in a moment.
    fn is_for_now(&self) -> bool {
        self.code_of_tool() == Some(ErrorCode::Overloaded) || self.error.is::<Unavailable>()
    }

    /// Whether something is not there that was asked for.
    fn is_not_found(&self) -> bool {
        self.code_of_tool() == Some(ErrorCode::NotFound)
    }

    /// The code of a tool's error.
    fn code_of_tool(&self) -> Option<ErrorCode> {
        self.error.downcast_ref::<ToolError>().map(|error| error.code)
    }

    /// In the form of a tool's error. An error from a tool keeps its code and fault.
    fn as_tool_error(&self) -> ToolError {
        if let Some(error) = self.error.downcast_ref::<ToolError>() {
            return ToolError { message: self.to_string(), ..error.clone() };
        }
        let opening = self.error.downcast_ref::<OpenError>().map(OpenError::fault);
        let (code, fault) = match self.code {
            2 => (ErrorCode::Usage, Fault::Caller),
            UNREACHABLE => (ErrorCode::Unreachable, Fault::Environment),
            _ => (ErrorCode::Failed, Fault::Environment),
        };
        ToolError::new(code, self.to_string(), opening.unwrap_or(fault))
    }

    /// Prints it: in words, and if JSON is requested and no answer was printed yet, as the answer.
    fn report(&self, json: bool) {
        eprintln!("cairn: {self}");
        if json && !output::is_answered() {
            // It was printed already, and nobody reads a second message.
            let _ = output::json(&self.as_tool_error().to_json());
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        // An error that passes its cause through has the same words: printed once.
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

/// The verb of the unit that adds the documents which an image left for its machines, and removes them. Hidden: nobody
/// else needs it.
const ADD_WAITING: &str = "add-waiting";

/// Does what the command line says, and says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [verb, folder] = &given[..]
        && verb == ADD_WAITING
    {
        return ended(install::add_waiting(Path::new(folder)), false);
    }
    let mut command = without_empty(Cli::command());
    let matches = match command.try_get_matches_from_mut(std::env::args_os()) {
        Ok(matches) => matches,
        Err(error) => return misused(error),
    };
    if let Some(message) = meaningless(&command, &matches) {
        let json = matches.get_flag("json");
        return ended(Err(Failure::usage(anyhow!(message))), json);
    }
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => {
            let json = cli.common.json;
            ended(cli.run(), json)
        }
        Err(error) => misused(error),
    }
}

/// Says how it ended.
fn ended(outcome: Result<(), Failure>, json: bool) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::from(failure.code)
        }
    }
}

/// A variable with nothing in it is as one that is not set.
fn without_empty(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &Arg| {
        let name = argument.get_env();
        name.and_then(std::env::var_os).is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|argument| if is_empty(&argument) { argument.env(Resettable::Reset) } else { argument })
        .mut_subcommands(without_empty)
}

/// The variable that an error is about, if no option is wrong.
fn variable_of(error: &clap::Error) -> Option<String> {
    fn named(command: &clap::Command, option: &str, value: &str) -> Option<String> {
        let of = |argument: &Arg| {
            let rest = option.strip_prefix("--")?.strip_prefix(argument.get_long()?)?;
            let is_whole = !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-');
            let name = argument.get_env()?.to_str()?;
            (is_whole && std::env::var(name).is_ok_and(|text| text == value)).then(|| name.to_owned())
        };
        let below = command.get_subcommands().find_map(|verb| named(verb, option, value));
        command.get_arguments().find_map(of).or(below)
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let value = text(ContextKind::InvalidValue)?;
    let is_given =
        |given: OsString| given.to_str().is_some_and(|given| given == value || given.ends_with(&format!("={value}")));
    if std::env::args_os().skip(1).any(is_given) {
        return None;
    }
    named(&Cli::command(), text(ContextKind::InvalidArg)?, value)
}

/// A command line that cannot be understood, or asks for help.
fn misused(mut error: clap::Error) -> ExitCode {
    if let Some(variable) = variable_of(&error) {
        let tip = format!("this is the value of the variable {variable}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    // Nobody may be reading.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).take_while(|argument| argument != "--").collect();
    let last = arguments.iter().filter_map(|argument| argument.to_str()?.strip_prefix("--json")).next_back();
    let by_variable = std::env::var("CAIRN_JSON");
    let is_json = match (last, &by_variable) {
        (Some(text), _) => text.is_empty() || text.strip_prefix('=').is_some_and(is_yes),
        (None, Ok(text)) => is_yes(text),
        (None, Err(_)) => false,
    };
    if is_json {
        let text = error.render().to_string();
        let text = text.split("\n\nUsage:").next().unwrap_or_default().trim();
        let message = text.strip_prefix("error: ").unwrap_or(text).to_owned();
        let error = ToolError::new(ErrorCode::Usage, message, Fault::Caller);
        let _ = output::json(&error.to_json());
    }
    ExitCode::from(2)
}

/// The values that [`BoolishValueParser`] accepts for yes.
fn is_yes(text: &str) -> bool {
    ["y", "yes", "t", "true", "on", "1"].contains(&text.to_ascii_lowercase().as_str())
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`Failure`] with words for people and an exit code for programs.
    fn run(self) -> Result<(), Failure> {
        let mut common = self.common;
        if (self.verb.opens_data() || matches!(self.verb, Verb::Bench(_)))
            && let (None, Some(file)) = (&common.token, &common.token_file)
        {
            common.token = Some(in_cluster::token_in(file)?);
        }
        if let Ok(config) = common.load() {
            if self.verb.asks_a_node() {
                in_cluster::name_it(&mut common, &config)?;
            } else if matches!(self.verb, Verb::Token(_))
                && self.verb.opens_data()
                && in_cluster::is_meant(&common, &config)
            {
                common.data_dir = Some(install::connection::data_here()?);
            }
        }
        let common = &common;
        // `cairn doctor` does the same once root has examined the machine.
        if self.verb.opens_data()
            && !matches!(self.verb, Verb::Doctor(_))
            && common.url.is_none()
            && let Ok(config) = common.load()
        {
            let answers = || matches!(Backend::running(common.address(), config.clone()), Ok(Some(_)));
            owner::go_on_as_owner(&config.data_dir, answers, None)?;
        }
        let is_one_call =
            matches!(self.verb, Verb::Search(_) | Verb::Get(_) | Verb::Ls(_) | Verb::Rm(_) | Verb::Collection(_));
        let outcome = match self.verb {
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
            Verb::Migrate(arguments) => migrate::run(common, arguments),
            Verb::Install(arguments) => install::run(common, &arguments),
            Verb::Rollback(arguments) => install::rollback(common, &arguments),
            Verb::Uninstall(arguments) => install::uninstall(common, &arguments),
            Verb::Completions { shell } => completions::run(shell),
            Verb::Man { directory } => man(directory),
        };
        outcome.map_err(|failure| if is_one_call { failure.of_command_line() } else { failure })
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
        self.source(overrides.clone()).load().map_err(|error: ConfigError| Failure::usage(error))
    }

    /// The source of the settings.
    fn source(&self, overrides: Overrides) -> Source {
        // A variable that is not UTF-8 is none of ours; one with nothing in it is as one that is not set.
        let environment = std::env::vars_os()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Source { file: self.config.clone(), environment: environment.collect(), overrides }
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

    /// The named node, and the credentials for it.
    fn address(&self) -> Address {
        Address { url: self.url.clone(), token: self.token.clone(), ca: self.ca.clone(), resolve: self.resolve }
    }
}

/// Derived data is repaired automatically: no action is needed.
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
