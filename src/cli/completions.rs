//! `cairn completions`: the tab completions of a shell, including the names of existing collections.
//!
//! The library generates everything that follows from the command line, including options that a verb refuses, which
//! are removed. Where a collection is named, its words are replaced by a call of the program: it creates no node, and
//! prints nothing if there is none.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Failure, output};

/// Prints the names of the collections, a line each.
const NAMES: &str = "cairn collection list 2>/dev/null | awk 'NR > 1 { print $1 }'";

/// Prints the script of a shell.
pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    output::bytes(script(shell).as_bytes())
}

fn script(shell: Shell) -> String {
    // Into memory: the library panics if nobody reads the stream.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cairn", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => bash(&script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(&script),
        // The others complete what is on the command line.
        _ => script,
    }
}

/// After `-c`, and where a collection is the argument itself.
fn bash(script: &str) -> String {
    let mut out = format!("_cairn_collections() {{\n    {NAMES}\n}}\n\n");
    let (mut is_collection, mut is_argument, mut refused) = (false, false, Vec::new());
    for line in script.lines() {
        let trimmed = line.trim();
        if let Some(verb) = trimmed.strip_prefix("cairn__subcmd__").and_then(|verb| verb.strip_suffix(')')) {
            refused = refused_by(verb.split("__subcmd__"));
        }
        let line = if trimmed.starts_with("opts=") { without(line, &refused) } else { line.to_owned() };
        let line = if is_collection && trimmed.contains("compgen -f") {
            line.replace("compgen -f \"${cur}\"", "compgen -W \"$(_cairn_collections)\" -- \"${cur}\"")
        } else if is_argument && trimmed.starts_with("opts=") {
            line.replacen("opts=\"", "opts=\"$(_cairn_collections) ", 1)
        } else {
            line
        };
        is_collection = matches!(trimmed, "--collection)" | "-c)");
        is_argument = ["__ls)", "__collection__subcmd__describe)", "__collection__subcmd__delete)"]
            .iter()
            .any(|verb| trimmed.ends_with(verb));
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// The long options that a verb only accepts in order to refuse them.
fn refused_by<'a>(verbs: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for verb in verbs {
        let Some(below) = command.find_subcommand(verb) else { return Vec::new() };
        command = below;
    }
    let hidden = command.get_arguments().filter(|argument| argument.is_hide_set());
    hidden.filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect()
}

/// A line of words without these.
fn without(line: &str, words: &[String]) -> String {
    line.split(' ').filter(|word| !words.iter().any(|other| other == word)).collect::<Vec<_>>().join(" ")
}

fn zsh(script: &str) -> String {
    let mut out = String::with_capacity(script.len());
    // Refused options have no description.
    for line in script.lines().filter(|line| !line.ends_with("=[]: :_default' \\")) {
        let is_collection = [":COLLECTION", ":collection -- ", ":name -- Name of the collection"]
            .iter()
            .any(|mark| line.contains(mark));
        out.push_str(&if is_collection { line.replace(":_default", ":_cairn_collections") } else { line.to_owned() });
        out.push('\n');
        // Behind the line that says whose completions these are.
        if line.starts_with("#compdef") {
            out.push_str(&format!("\n_cairn_collections() {{\n    compadd -- $({NAMES})\n}}\n"));
        }
    }
    out
}

fn fish(script: &str) -> String {
    let mut out = String::with_capacity(script.len());
    for line in
        script.lines().filter(|line| !line.starts_with("complete ") || line.contains(" -d ") || line.contains(" -a "))
    {
        out.push_str(line);
        if line.contains(" -l collection ") {
            out.push_str(&format!(" -f -a \"({})\"", NAMES.replace('$', "\\$")));
        }
        out.push('\n');
    }
    out
}
