//! `cairn collection`: creates, describes and deletes collections.

use clap::Subcommand;
use serde_json::{Value, json};

use super::backend::{Absent, Backend, Stay};
use super::{Common, Failure, documents, output};
use crate::mcp::Tool;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the collections
    #[command(alias = "ls")]
    List,
    /// Create a collection
    Create {
        /// 1 to 63 of a-z, 0-9, '-', '_' and '.'
        name: String,
        /// Purpose of the collection; agents read it to choose where to search
        #[arg(short, long, default_value = "")]
        description: String,
        /// Embedding model [default: the built-in one]
        #[arg(long)]
        model: Option<String>,
    },
    /// Show a collection's size, model and metadata fields for filters
    Describe {
        /// Name of the collection
        #[arg(env = "CAIRN_COLLECTION", value_name = "COLLECTION")]
        name: String,
    },
    /// Delete a collection and its documents
    #[command(alias = "rm")]
    Delete {
        /// Name of the collection
        #[arg(value_name = "COLLECTION")]
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let asks = matches!(arguments.action, Action::Delete { yes: false, .. });
    let absent = if matches!(arguments.action, Action::Create { .. }) { Absent::Make } else { Absent::Refuse };
    let backend = common.backend_for(if asks { Stay::Long } else { Stay::Brief }, absent)?;
    let answer = match &arguments.action {
        Action::List => return list(common, &backend),
        Action::Create { name, description, model } => {
            backend.call(Tool::CreateCollection, json!({"name": name, "description": description, "model": model}))?
        }
        Action::Describe { name } => return describe(common, &backend, name),
        Action::Delete { name, yes } => {
            let found = backend.call(Tool::DescribeCollection, json!({ "collection": name }))?;
            if !yes {
                let documents = output::counted(found["documents"].as_u64().unwrap_or_default(), "document");
                documents::confirm(&format!("delete '{name}' with its {documents}?"))?;
            }
            backend.call(Tool::DeleteCollection, json!({"name": name, "confirm": name}))?
        }
    };
    if common.json {
        return output::json(&answer);
    }
    output::line(&format!("{:<9}  {}", output::text(&answer, "status"), output::text(&answer, "name")))
}

/// Prints the collections.
pub(super) fn list(common: &Common, backend: &Backend) -> Result<(), Failure> {
    let answer = backend.call(Tool::ListCollections, json!({}))?;
    if common.json {
        return output::json(&answer);
    }
    let collections = answer["collections"].as_array().cloned().unwrap_or_default();
    if collections.is_empty() {
        eprintln!("there are no collections yet; add documents with `cairn add PATH -c NAME`");
        return Ok(());
    }
    let rows = collections
        .iter()
        .map(|info| {
            let text = |name| output::text(info, name).to_owned();
            let (documents, passages) = (output::count(info, "documents"), output::count(info, "passages"));
            vec![
                text("name"),
                documents,
                passages,
                output::size(info, "bytes"),
                text("updated_at"),
                text("description"),
            ]
        })
        .collect();
    let numbers = ["documents", "passages", "text"];
    output::table(&["name", "documents", "passages", "text", "updated", "description"], &numbers, rows)
}

fn describe(common: &Common, backend: &Backend, name: &str) -> Result<(), Failure> {
    let answer = backend.call(Tool::DescribeCollection, json!({ "collection": name }))?;
    if common.json {
        return output::json(&answer);
    }
    let line = |label: &str, value: String| output::line(&format!("{label:<12}{value}"));
    line("name", output::text(&answer, "name").to_owned())?;
    line("for", output::text(&answer, "description").to_owned())?;
    line("documents", output::count(&answer, "documents"))?;
    line("passages", output::count(&answer, "passages"))?;
    line("text", output::size(&answer, "bytes"))?;
    line("model", format!("{} ({} dimensions)", output::text(&answer, "model"), answer["dimensions"]))?;
    line("updated", output::text(&answer, "updated_at").to_owned())?;
    let fields = answer["fields"].as_array().into_iter().flatten();
    let fields: Vec<String> = fields
        .map(|field: &Value| format!("{} ({})", output::text(field, "name"), output::text(field, "type")))
        .collect();
    line("fields", if fields.is_empty() { "none".to_owned() } else { fields.join(", ") })?;
    if let Some(problem) = answer["problem"].as_str() {
        line("problem", problem.to_owned())?;
    }
    Ok(())
}
