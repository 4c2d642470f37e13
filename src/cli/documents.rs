//! `cairn get`, `cairn ls`, `cairn rm`: documents by id.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::backend::{Absent, Stay};
use super::{Common, Failure, collections, output};
use crate::mcp::Tool;
use crate::retrieval::{LIST_TOKENS_MAX, TOKENS_MAX, TOKENS_MIN};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn get manual/install.md       the whole document
  cairn get install.md              the same, if no other id ends with it
  cairn get 'manual/install.md#4'   the section around its fifth passage")]
pub(super) struct GetArguments {
    /// An id from `cairn search` or `cairn ls`
    id: String,
    /// Stop after about this many tokens, 100 to 20,000 [default: everything]
    #[arg(long, value_name = "N", value_parser = output::whole::<usize>(TOKENS_MIN as u64..=TOKENS_MAX as u64))]
    max_tokens: Option<usize>,
}

pub(super) fn get(common: &Common, arguments: &GetArguments) -> Result<(), Failure> {
    let backend = common.backend()?;
    let include: &[&str] = if common.json { &["source", "metadata", "dates"] } else { &[] };
    let tokens_max = arguments.max_tokens.unwrap_or(TOKENS_MAX);
    let mut answer =
        backend.call(Tool::Fetch, json!({"id": arguments.id, "max_tokens": tokens_max, "include": include}))?;
    // A passage is one page; a document is read to its end unless a budget was given.
    let is_passage =
        answer["id"].as_str().and_then(|id| id.rsplit_once('#')).is_some_and(|(_, end)| end.parse::<usize>().is_ok());
    while arguments.max_tokens.is_none()
        && !is_passage
        && let Some(cursor) = answer["next_cursor"].as_str()
    {
        let arguments = json!({"id": arguments.id, "max_tokens": TOKENS_MAX, "cursor": cursor, "include": include});
        let next = backend.call(Tool::Fetch, arguments)?;
        let text = format!("{}\n\n{}", output::text(&answer, "text"), output::text(&next, "text"));
        answer["text"] = text.into();
        if common.json {
            answer["range"][1] = next["range"][1].clone();
            answer["passages"][1] = next["passages"][1].clone();
        }
        answer.as_object_mut().map(|answer| answer.shift_remove("truncated"));
        match next.get("next_cursor") {
            Some(cursor) => answer["next_cursor"] = cursor.clone(),
            None => {
                answer.as_object_mut().map(|answer| answer.shift_remove("next_cursor"));
            }
        }
    }
    if common.json {
        return output::json(&answer);
    }
    output::line(output::text(&answer, "text"))
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn ls                    the collections
  cairn ls manual             the documents of one
  cairn ls manual guides/     those whose ids begin with guides/")]
pub(super) struct ListArguments {
    /// Collection [default: list the collections]
    #[arg(env = "CAIRN_COLLECTION")]
    collection: Option<String>,
    /// Beginning of the ids
    #[arg(default_value = "")]
    prefix: String,
}

pub(super) fn list(common: &Common, arguments: &ListArguments) -> Result<(), Failure> {
    let backend = common.backend()?;
    let Some(collection) = &arguments.collection else { return collections::list(common, &backend) };
    let mut documents: Vec<Value> = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let page = json!({
            "collection": collection, "prefix": arguments.prefix, "limit": 1_000, "cursor": cursor,
            "max_tokens": LIST_TOKENS_MAX, "include": ["source", "dates"],
        });
        let mut answer = backend.call(Tool::ListDocuments, page)?;
        documents.extend(answer["documents"].as_array_mut().map(std::mem::take).unwrap_or_default());
        cursor = answer["next_cursor"].take();
        if cursor.is_null() {
            break;
        }
    }
    if common.json {
        return output::json(&json!({"collection": collection, "documents": documents}));
    }
    let rows = documents
        .iter()
        .map(|document| {
            let text = |name| output::text(document, name).to_owned();
            vec![
                text("id"),
                text("title"),
                output::count(document, "passages"),
                output::count(document, "version"),
                text("updated_at"),
            ]
        })
        .collect();
    output::table(&["id", "title", "passages", "version", "updated"], &["passages", "version"], rows)
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn rm manual/old.md manual/older.md
  cairn rm -c papers --filter '{\"year\": {\"lt\": 2000}}' --dry-run")]
pub(super) struct RemoveArguments {
    /// Document ids from `cairn ls`; passage ids are refused
    #[arg(value_name = "ID", required_unless_present = "filter", conflicts_with = "filter")]
    ids: Vec<String>,
    /// Collection for --filter
    #[arg(short, long, env = "CAIRN_COLLECTION")]
    collection: Option<String>,
    /// Delete every document whose metadata matches, as JSON; a filter that matches everything is refused
    #[arg(short, long, value_name = "JSON", requires = "collection")]
    filter: Option<String>,
    /// Show what would be deleted, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn remove(common: &Common, arguments: &RemoveArguments) -> Result<(), Failure> {
    let filter: Value = match &arguments.filter {
        None => Value::Null,
        Some(text) => {
            serde_json::from_str(text).map_err(|error| Failure::usage(anyhow!("--filter is not JSON: {error}")))?
        }
    };
    let collection = if filter.is_null() { Value::Null } else { json!(arguments.collection) };
    let ids = super::backend::names(&arguments.ids);
    let call = |dry_run: bool, expected: Value| json!({"ids": ids, "collection": collection, "filter": filter, "dry_run": dry_run, "expected_count": expected});
    // Ids were typed one by one; a filter may match more than was thought.
    let asks = !filter.is_null() && !arguments.yes && !arguments.dry_run;
    let backend = common.backend_for(if asks { Stay::Long } else { Stay::Brief }, Absent::Refuse)?;
    let mut answer = backend.call(Tool::DeleteDocuments, call(true, Value::Null))?;
    answer["dry_run"] = arguments.dry_run.into();
    let matched = answer["matched"].as_u64().unwrap_or_default();
    let found = output::counted(matched, "document");
    if !arguments.dry_run && matched > 0 {
        if asks {
            confirm(&format!("delete {found} from '{}'?", arguments.collection.as_deref().unwrap_or_default()))?;
        }
        answer = backend.call(Tool::DeleteDocuments, call(false, matched.into()))?;
    }
    if common.json {
        return output::json(&answer);
    }
    for result in answer["documents"].as_array().into_iter().flatten() {
        output::line(&format!("{:<9}  {}", output::text(result, "status"), output::text(result, "id")))?;
    }
    match (matched, arguments.dry_run) {
        (0, _) => eprintln!("no document matches; nothing was deleted"),
        (_, true) => eprintln!("{found} would be deleted"),
        (_, false) => {}
    }
    Ok(())
}

/// Asks on the terminal; without one, `--yes` is needed.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!("{question} pass --yes to do it without being asked")));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(anyhow!("nothing was deleted").into()) }
}
