//! What the tools take. Names that models are known to invent are accepted as aliases; anything else is an error that
//! lists what there is.

use schemars::JsonSchema;
use schemars::generate::Contract;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::lenient::{self, Given, Mistake, What};
use super::{Arguments, ToolError, values};

/// Reads a tool's arguments.
pub(super) fn read<T: for<'de> Deserialize<'de> + JsonSchema>(arguments: Arguments) -> Result<T, ToolError> {
    let arguments = Value::Object(arguments);
    if values::are_too_many_in_texts(&arguments) {
        return Err(ToolError::bad_argument(values::too_many()));
    }
    T::deserialize(Given(arguments)).map_err(|mistake| {
        let schema = Value::Object(super::schema::of::<T>(Contract::Deserialize));
        ToolError::bad_argument(explain(&mistake, &schema))
    })
}

/// A mistake in words, with what the schema says of the right ones: the library would list the aliases as well.
fn explain(mistake: &Mistake, schema: &Value) -> String {
    let place = if mistake.place.is_empty() { String::new() } else { format!(" in {}", mistake.place) };
    match &mistake.what {
        What::Wrong(_) => mistake.to_string(),
        What::NoNumber { found, expected } => {
            let number = expected.split(" of at").next().unwrap_or(expected);
            match named(mistake, schema).and_then(bounds) {
                Some((least, most)) => {
                    format!("{} is {found}, expected {number} from {least} to {most}", mistake.place)
                }
                None => mistake.to_string(),
            }
        }
        What::NoChoice { found, .. } => match named(mistake, schema).map(choices) {
            Some(choices) if !choices.is_empty() => {
                format!("{} is {found}, expected one of {}", mistake.place, choices.join(", "))
            }
            _ => mistake.to_string(),
        },
        What::Unknown { field, known } => {
            let properties = properties_within(schema, known);
            let names: Vec<&str> = properties.into_iter().flat_map(|names| names.keys().map(String::as_str)).collect();
            match names.as_slice() {
                [] => format!("unknown argument '{field}'{place}, expected no arguments"),
                names => format!("unknown argument '{field}'{place}, expected one of {}", names.join(", ")),
            }
        }
        What::Missing(field) => {
            let described = properties_with(schema, field).and_then(|property| property["description"].as_str());
            let described = described.map(|text| format!(": {text}")).unwrap_or_default();
            format!("'{field}' is missing{place}{described}")
        }
        What::Twice { field, name } if field == name => format!("'{field}' is given twice{place}; give it once"),
        What::Twice { field, name } => format!("'{field}' is given twice{place}, also as '{name}'; give one of them"),
    }
}

/// The property that a mistake was made in.
fn named<'a>(mistake: &Mistake, schema: &'a Value) -> Option<&'a Value> {
    properties_with(schema, mistake.place.rsplit('.').next().unwrap_or_default())
}

/// Between which numbers a property lies.
fn bounds(property: &Value) -> Option<(f64, f64)> {
    Some((property["minimum"].as_f64()?, property["maximum"].as_f64()?))
}

/// The words that a property may be, without the other names that are taken for them.
fn choices(property: &Value) -> Vec<&str> {
    let listed = property["enum"].as_array().into_iter().flatten();
    let described = property["oneOf"].as_array().into_iter().flatten().map(|choice| &choice["const"]);
    listed.chain(described).filter_map(Value::as_str).collect()
}

/// The properties of the object in a schema, or in a part of it, whose fields are among these.
fn properties_within<'a>(schema: &'a Value, known: &[&str]) -> Option<&'a Map<String, Value>> {
    let fits = |properties: &&Map<String, Value>| properties.keys().all(|name| known.contains(&name.as_str()));
    let own = schema.get("properties").and_then(Value::as_object).filter(fits);
    own.or_else(|| parts(schema).find_map(|part| properties_within(part, known)))
}

/// The property of that name, the outermost first.
fn properties_with<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
    let own = schema.get("properties").and_then(|properties| properties.get(field));
    own.or_else(|| parts(schema).find_map(|part| properties_with(part, field)))
}

fn parts(schema: &Value) -> impl Iterator<Item = &Value> {
    let (items, fields) = (schema.as_array(), schema.as_object());
    items.into_iter().flatten().chain(fields.into_iter().flat_map(Map::values))
}

/// An object, also when it comes as JSON text.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Ok(Option::<Value>::deserialize(deserializer)?.map(lenient::object_from_text))
}

/// A confirmation in words. A bare `true` confirms nothing, but says what is missing.
fn confirmation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// Which index answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ModeArgument {
    #[default]
    Hybrid,
    #[serde(alias = "vector", alias = "semantic")]
    Dense,
    #[serde(alias = "keyword", alias = "bm25")]
    Lexical,
}

/// How much of each passage is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum DetailArgument {
    Ids,
    Snippet,
    #[default]
    Full,
}

/// How the two rankings are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FusionArgument {
    Convex,
    Rrf,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    /// What to look for: a question or keywords.
    #[serde(alias = "q", alias = "question", alias = "text", alias = "queries")]
    pub query: String,
    /// Collections to search; all when left out.
    #[serde(default, alias = "collection")]
    pub collections: Vec<String>,
    /// Only documents whose metadata matches, for example {"team": "storage", "year": {"gte": 2024}}. Operators: eq, ne, in, nin, gt, gte, lt, lte, exists; and, or, not.
    #[serde(default, deserialize_with = "object", alias = "filters", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub filter: Option<Value>,
    /// hybrid (default), dense (meaning only) or lexical (words only).
    #[serde(default)]
    pub mode: ModeArgument,
    /// Passages wanted, 1 to 50. Default 8.
    #[serde(default, alias = "top_k", alias = "k", alias = "n", alias = "max_results", alias = "num_results")]
    #[schemars(range(min = 1, max = 50))]
    pub limit: Option<usize>,
    /// Continues where the previous answer ended: its next_cursor.
    #[serde(default)]
    pub cursor: Option<String>,
    /// full (default: whole passages), snippet (about 300 characters each) or ids (no text).
    #[serde(default)]
    pub detail: DetailArgument,
    /// Token budget of the answer, 50 to 20000. Default 6000.
    #[serde(default)]
    #[schemars(range(min = 50, max = 20000))]
    pub max_tokens: Option<usize>,
    /// Leaves out passages that score less, 0 to 1. Scores are relative to the best candidates of the same query.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_score: Option<f32>,
    /// Only documents changed at or after this RFC 3339 time; a date alone is its midnight in UTC.
    #[serde(default)]
    pub after: Option<String>,
    /// Only documents changed before this RFC 3339 time; a date alone is its midnight in UTC.
    #[serde(default)]
    pub before: Option<String>,
    /// convex (default: weighted scores) or rrf (reciprocal ranks).
    #[serde(default)]
    pub fusion: Option<FusionArgument>,
    /// Weight of meaning against words with convex fusion, 0 to 1. Default: 0.5 where the model knows the language, else 0.2.
    #[serde(default, alias = "alpha")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dense_weight: Option<f32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Fetch {
    /// An id from search or list_documents: `collection/document` for the document, `collection/document#3` for one passage with what surrounds it; or its ctx:// address.
    #[serde(alias = "uri", alias = "document_id", alias = "document")]
    pub id: String,
    /// With it, id is the document's own id within this collection.
    #[serde(default)]
    pub collection: Option<String>,
    /// A passage's place in the document, from 0: that passage with what surrounds it.
    #[serde(default, alias = "passage")]
    pub chunk: Option<usize>,
    /// Bytes of the document's text, start and end, as in a result's source: the passages that hold them.
    #[serde(default)]
    #[schemars(length(min = 2, max = 2))]
    pub range: Option<Vec<u64>>,
    /// Token budget of the answer, 50 to 20000. Default 8000.
    #[serde(default)]
    #[schemars(range(min = 50, max = 20000))]
    pub max_tokens: Option<usize>,
    /// Continues where the previous answer ended: its next_cursor.
    #[serde(default)]
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindSimilar {
    /// An id from search or list_documents; with `#n` the neighbours of that passage are found.
    #[serde(alias = "uri", alias = "document_id")]
    pub id: String,
    /// Collections to search; the document's own when left out.
    #[serde(default, alias = "collection")]
    pub collections: Vec<String>,
    /// Passages wanted, 1 to 50. Default 8.
    #[serde(default, alias = "top_k", alias = "k", alias = "n")]
    #[schemars(range(min = 1, max = 50))]
    pub limit: Option<usize>,
    /// Only documents whose metadata matches; see search.
    #[serde(default, deserialize_with = "object", alias = "filters", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub filter: Option<Value>,
    /// full, snippet (default) or ids.
    #[serde(default)]
    pub detail: Option<DetailArgument>,
    /// Token budget of the answer, 50 to 20000. Default 6000.
    #[serde(default)]
    #[schemars(range(min = 50, max = 20000))]
    pub max_tokens: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DescribeCollection {
    /// Name of the collection.
    #[serde(alias = "name")]
    pub collection: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDocuments {
    /// Name of the collection.
    #[serde(alias = "name")]
    pub collection: String,
    /// Only documents whose metadata matches; see search.
    #[serde(default, deserialize_with = "object", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub filter: Option<Value>,
    /// id (default) or updated (the last changed first).
    #[serde(default)]
    pub order: OrderArgument,
    /// Only ids that begin with this.
    #[serde(default)]
    pub prefix: String,
    /// Documents wanted, 1 to 1000. Default 100.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<usize>,
    /// Continues where the previous answer ended: its next_cursor.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// In which order documents are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OrderArgument {
    #[default]
    Id,
    #[serde(alias = "updated_at")]
    Updated,
}

/// What happens to a document whose id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ConflictArgument {
    #[default]
    #[serde(alias = "update", alias = "overwrite")]
    Replace,
    Skip,
    Fail,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDocument {
    /// Unique in the collection; the url, or a digest of the text, when left out.
    #[serde(default)]
    pub id: Option<String>,
    /// The document's text. Give one of text, uri and content_base64.
    #[serde(default, alias = "content")]
    pub text: Option<String>,
    /// A data: URI with the content, or the ctx:// address of a document to copy. Nothing is fetched from a network or a disk.
    #[serde(default)]
    pub uri: Option<String>,
    /// A file as base64 (PDF, HTML, …); its name in filename tells the format.
    #[serde(default)]
    pub content_base64: Option<String>,
    /// File name of content_base64.
    #[serde(default)]
    pub filename: Option<String>,
    /// Format of text: text/markdown (default), text/plain, text/html, application/json, text/csv, …
    #[serde(default, alias = "mime_type", alias = "content_type")]
    pub media_type: Option<String>,
    /// Replaces the title found in the text.
    #[serde(default)]
    pub title: Option<String>,
    /// Where people find the original; shown in citations.
    #[serde(default)]
    pub url: Option<String>,
    /// Any JSON object; filters ask for it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// RFC 3339 time from which the document is no longer shown; an answer warns of one that is past.
    #[serde(default)]
    pub expires_at: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddDocuments {
    /// Name of the collection; created when there is none.
    pub collection: String,
    /// The documents, at most 1000 a call.
    pub documents: Vec<NewDocument>,
    /// When an id is taken: replace (default), skip or fail.
    #[serde(default)]
    pub on_conflict: ConflictArgument,
    /// Any text; a repeated call with the same key gets the first call's answer instead of writing again. Kept for a day.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateDocument {
    /// An id from search or list_documents.
    #[serde(alias = "document_id")]
    pub id: String,
    /// New text; the old one stays when left out.
    #[serde(default, alias = "content")]
    pub text: Option<String>,
    /// Format of the new text; the old one's when left out.
    #[serde(default, alias = "mime_type")]
    pub media_type: Option<String>,
    /// New title.
    #[serde(default)]
    pub title: Option<String>,
    /// New url.
    #[serde(default)]
    pub url: Option<String>,
    /// Fields to set in the metadata; null removes one. An object replaces the whole field.
    #[serde(default, alias = "metadata")]
    pub metadata_patch: Option<Map<String, Value>>,
    /// Only when the document is at this version.
    #[serde(default)]
    pub if_version: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteDocuments {
    /// Ids of documents, collection/document as list_documents gives them; a passage's id is refused. Give either ids, or collection and filter.
    #[serde(default, alias = "id")]
    pub ids: Vec<String>,
    /// Collection for filter.
    #[serde(default)]
    pub collection: Option<String>,
    /// Deletes every document whose metadata matches; see search. One without a condition is refused: delete_collection deletes everything.
    #[serde(default, deserialize_with = "object", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub filter: Option<Value>,
    /// Only says what would be deleted.
    #[serde(default)]
    pub dry_run: bool,
    /// Deletes nothing unless exactly this many documents match.
    #[serde(default)]
    pub expected_count: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateCollection {
    /// 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit.
    #[serde(alias = "collection")]
    pub name: String,
    /// What it is for, in a sentence; shown to agents that choose where to search.
    #[serde(default)]
    pub description: String,
    /// Embedding model; the built-in one when left out.
    #[serde(default)]
    pub model: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteCollection {
    /// Name of the collection.
    #[serde(alias = "collection")]
    pub name: String,
    /// The name once more: deleting a collection deletes its documents.
    #[serde(deserialize_with = "confirmation")]
    pub confirm: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateSnapshot {
    /// Goes on without snapshots that are missing, in a place that is gone, empty or another one. Only when a person says that they
    /// are given up.
    #[serde(default)]
    pub begin_anew: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListSnapshots {
    /// Another node whose snapshots are meant: the beginning of its id, or any for those of all nodes.
    #[serde(default)]
    pub node: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreSnapshot {
    /// Another node whose data is to replace this node's: the beginning of its id, or any.
    #[serde(default)]
    pub node: Option<String>,
    /// Id of a snapshot from list_snapshots. The newest when neither this nor a position nor a time is given.
    #[serde(default, alias = "snapshot")]
    pub id: Option<String>,
    /// Position of the log to go back to, as lsn and generation say it.
    #[serde(default, alias = "lsn")]
    pub to_lsn: Option<u64>,
    /// Moment to go back to, such as 2026-07-28T09:30:00Z.
    #[serde(default, alias = "time")]
    pub to_time: Option<String>,
    /// Says what would be done, and does nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The word restore: everything written since the restored moment is put aside. Not needed for a dry run.
    #[serde(default, deserialize_with = "confirmation")]
    pub confirm: String,
}
