//! `cairn search`: finds passages.

use serde_json::{Value, json};

use super::{Common, Failure, backend, output};
use crate::mcp::Tool;
use crate::retrieval::{LIMIT_MAX, TOKENS_MAX};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn search \"how do I restore a backup\"
  cairn search etcd snapshot -c manual -n 3
  cairn search quota --json --filter '{\"year\": {\"gte\": 2024}}'")]
pub(super) struct Arguments {
    /// A question or keywords
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,
    /// Collection to search; may be repeated [default: all]
    #[arg(short, long = "collection", env = "CAIRN_COLLECTION")]
    collections: Vec<String>,
    /// Number of passages, 1 to 50
    #[arg(short = 'n', long, value_name = "N", value_parser = output::whole::<usize>(1..=LIMIT_MAX as u64))]
    limit: Option<usize>,
    /// hybrid, dense or lexical
    #[arg(short, long, default_value = "hybrid", value_parser = ["hybrid", "dense", "lexical"], hide_possible_values = true)]
    mode: String,
    /// Only documents whose metadata matches, as JSON
    #[arg(short, long, value_name = "JSON")]
    filter: Option<String>,
    /// Print whole passages
    #[arg(long)]
    full: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let filter: Value = match &arguments.filter {
        None => Value::Null,
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Failure::usage(anyhow::anyhow!("--filter is not JSON: {error}")))?,
    };
    // People read the beginning of a list, programs all of it: whole passages, and what is known of each.
    let detail = if arguments.full || common.json { "full" } else { "snippet" };
    let include: &[&str] =
        if common.json { &["scores", "source", "metadata", "dates", "searched"] } else { &["searched"] };
    let answer = common.backend()?.call(
        Tool::Search,
        json!({
            "query": arguments.query.join(" "), "collections": backend::names(&arguments.collections),
            "limit": arguments.limit, "mode": arguments.mode, "filter": filter, "detail": detail,
            "include": include, "max_tokens": TOKENS_MAX,
        }),
    )?;
    if common.json {
        return output::json(&answer);
    }
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    for (rank, result) in results.iter().enumerate() {
        output::line(&format!("{:>2}  {}", rank + 1, output::bold(output::text(result, "title"))))?;
        for line in wrapped(output::text(result, "text"), arguments.full) {
            output::line(&format!("    {line}"))?;
        }
        output::line(&format!("    {}\n", output::dim(&source_line(result))))?;
    }
    if answer["weak"] == true {
        eprintln!("note: nothing fits well; what you ask for is probably not there");
    }
    let searched = answer["searched"]["collections"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let searched: Vec<&str> = searched.collect();
    if results.is_empty() {
        let places = if searched.is_empty() {
            "there are no collections yet; add documents with `cairn add PATH`".to_owned()
        } else {
            format!("searched {}", searched.join(", "))
        };
        eprintln!("nothing found; {places}");
        if let Some(reason) = answer["searched"]["mode_reason"].as_str() {
            eprintln!("note: {reason}");
        }
    } else if let Some(reason) = answer["searched"]["mode_reason"].as_str() {
        let (asked, used) = (output::text(&answer["searched"], "mode"), output::text(&answer["searched"], "mode_used"));
        if asked == used {
            eprintln!("note: {reason}");
        } else {
            eprintln!("only the {used} half was searched: {reason}");
        }
    }
    Ok(())
}

/// The location of a result, and its copies.
fn source_line(result: &Value) -> String {
    let mut source_line = output::text(result, "id").to_owned();
    let more = result["more_in_document"].as_u64().unwrap_or_default();
    let named = result["also_in"].as_array().map_or(0, Vec::len) as u64;
    let copies = named + result["more_copies"].as_u64().unwrap_or_default();
    if more > 0 {
        source_line.push_str(&format!("  +{more} in this document"));
    }
    if copies > 0 {
        source_line.push_str(&format!("  also in {}", output::counted(copies, "other place")));
    }
    source_line
}

/// Characters of a line of text, and of its prefix.
const LINE_CHARS: usize = 96;
const INDENT: usize = 4;

/// A passage in lines of at most 96 characters, fewer where the terminal is narrower; as it is when it is wanted whole.
fn wrapped(text: &str, whole: bool) -> Vec<String> {
    if whole {
        return text.lines().map(str::to_owned).collect();
    }
    let most =
        output::columns().map_or(LINE_CHARS, |columns| LINE_CHARS.min(columns.saturating_sub(INDENT))).max(INDENT);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
