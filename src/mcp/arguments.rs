//! What the tools take. Names that models are known to invent are accepted as aliases; anything else is an error that
//! lists what there is.

use schemars::JsonSchema;
use schemars::generate::Contract;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::lenient::{self, Mistake, MistakeKind, RawValue};
use super::{Arguments, ToolError, values};

/// Reads a tool's arguments.
pub(crate) fn read<T: for<'de> Deserialize<'de> + JsonSchema>(arguments: Arguments) -> Result<T, ToolError> {
    let arguments = Value::Object(arguments);
    if values::are_too_many_in_texts(&arguments) {
        return Err(ToolError::bad_argument(values::too_many()));
    }
    T::deserialize(RawValue(arguments)).map_err(|mistake| {
        let schema = Value::Object(super::schema::of::<T>(Contract::Deserialize));
        ToolError::bad_argument(explain(&mistake, &schema))
    })
}

/// A mistake in words, with what the schema says of the right ones: the library would list the aliases as well.
fn explain(mistake: &Mistake, schema: &Value) -> String {
    let place = if mistake.place.is_empty() { String::new() } else { format!(" in {}", mistake.place) };
    match &mistake.what {
        MistakeKind::Wrong(_) => mistake.to_string(),
        MistakeKind::NoNumber { found, expected } => {
            let number = expected.split(" of at").next().unwrap_or(expected);
            match named(mistake, schema).and_then(bounds) {
                Some((least, most)) => {
                    format!("{} is {found}, expected {number} from {least} to {most}", mistake.place)
                }
                None => mistake.to_string(),
            }
        }
        MistakeKind::NoChoice { found, .. } => match named(mistake, schema).map(choices) {
            Some(choices) if !choices.is_empty() => {
                format!("{} is {found}, expected one of {}", mistake.place, choices.join(", "))
            }
            _ => mistake.to_string(),
        },
        MistakeKind::Unknown { field, known } => {
            let properties = properties_within(schema, known);
            let names: Vec<&str> = properties.into_iter().flat_map(|names| names.keys().map(String::as_str)).collect();
            match names.as_slice() {
                [] => format!("unknown argument '{field}'{place}, expected no arguments"),
                names => format!("unknown argument '{field}'{place}, expected one of {}", names.join(", ")),
            }
        }
        MistakeKind::Missing(field) => {
            let described = properties_with(schema, field).and_then(|property| property["description"].as_str());
            let described = described.map(|text| format!(": {text}")).unwrap_or_default();
            format!("'{field}' is missing{place}{described}")
        }
        MistakeKind::Twice { field, name } if field == name => format!("'{field}' is given twice{place}; give it once"),
        MistakeKind::Twice { field, name } => {
            format!("'{field}' is given twice{place}, also as '{name}'; give one of them")
        }
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
pub(crate) enum ModeArgument {
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
pub(crate) enum DetailArgument {
    Ids,
    Snippet,
    #[default]
    Fitted,
    Full,
}

/// Details in addition to id, title and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IncludeArgument {
    #[serde(alias = "score")]
    Scores,
    #[serde(alias = "sources", alias = "citation", alias = "citations")]
    Source,
    Metadata,
    #[serde(alias = "date", alias = "version")]
    Dates,
    #[serde(alias = "link")]
    Links,
    Searched,
    Structured,
}

/// A set of [`IncludeArgument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Include(u32);

impl Include {
    pub(crate) fn of(wanted: &[IncludeArgument]) -> Self {
        Self(wanted.iter().fold(0, |set, one| set | 1 << *one as u32))
    }

    pub(crate) fn has(self, wanted: IncludeArgument) -> bool {
        self.0 & 1 << wanted as u32 != 0
    }

    /// The set as a number.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

/// Whether the arguments of a call ask for structured content.
pub(crate) fn ask_structured(arguments: &Arguments) -> bool {
    arguments.get("include").is_some_and(|include| {
        Vec::<IncludeArgument>::deserialize(RawValue(include.clone()))
            .is_ok_and(|include| include.contains(&IncludeArgument::Structured))
    })
}

/// How the two rankings are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FusionArgument {
    Convex,
    Rrf,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// A question or keywords.
    #[serde(alias = "q", alias = "question", alias = "text", alias = "queries")]
    pub query: String,
    /// Where to search; everywhere when left out.
    #[serde(default, alias = "collection")]
    pub collections: Vec<String>,
    /// Conditions on metadata, as {"team": "storage", "year": {"gte": 2024}}. Operators: eq, ne, in, nin, gt, gte, lt, lte, exists; and, or, not.
    #[serde(default, deserialize_with = "object", alias = "filters", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub filter: Option<Value>,
    /// dense: meaning only; lexical: words only.
    #[serde(default)]
    pub mode: ModeArgument,
    /// Results wanted. Default 6.
    #[serde(default, alias = "top_k", alias = "k", alias = "n", alias = "max_results", alias = "num_results")]
    #[schemars(range(min = 1, max = 50))]
    pub limit: Option<usize>,
    /// next_cursor of the previous answer.
    #[serde(default)]
    pub cursor: Option<String>,
    /// fitted: long passages shortened so that all results fit; full: whole; snippet: 300 characters; ids: no text.
    #[serde(default)]
    pub detail: DetailArgument,
    /// Of the whole answer. Default 1000.
    #[serde(default)]
    #[schemars(range(min = 100, max = 20000))]
    pub max_tokens: Option<usize>,
    /// What else to say of each result.
    #[serde(default)]
    pub include: Vec<IncludeArgument>,
    /// Leaves out passages that score less, 0 to 1. Scores are relative to the best candidates of the same query.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-expert" = true))]
    pub min_score: Option<f32>,
    /// Only documents changed at or after this RFC 3339 time or date.
    #[serde(default)]
    pub after: Option<String>,
    /// Only documents changed before.
    #[serde(default)]
    pub before: Option<String>,
    /// convex (default: weighted scores) or rrf (reciprocal ranks).
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub fusion: Option<FusionArgument>,
    /// Weight of meaning against words with convex fusion, 0 to 1. Default: 0.5 where the model knows the language, else 0.1.
    #[serde(default, alias = "alpha")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-expert" = true))]
    pub dense_weight: Option<f32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fetch {
    /// collection/document for the whole, collection/document#3 for the section around a passage.
    #[serde(alias = "uri", alias = "document_id", alias = "document")]
    pub id: String,
    /// Where id is, if id does not begin with it.
    #[serde(default)]
    pub collection: Option<String>,
    /// Number of a passage, from 0: the same as #number at the end of id.
    #[serde(default, alias = "passage")]
    #[schemars(extend("x-expert" = true))]
    pub chunk: Option<usize>,
    /// Bytes of the document's text, start and end, as in a result's source: the passages that hold them.
    #[serde(default)]
    #[schemars(length(min = 2, max = 2), extend("x-expert" = true))]
    pub range: Option<Vec<u64>>,
    /// Default 2000 for a section, 8000 for a document.
    #[serde(default)]
    #[schemars(range(min = 100, max = 20000))]
    pub max_tokens: Option<usize>,
    /// next_cursor of the previous answer.
    #[serde(default)]
    pub cursor: Option<String>,
    /// source, metadata, dates or structured: what else to say of it.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub include: Vec<IncludeArgument>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FindSimilar {
    /// A document, or a passage with #number.
    #[serde(alias = "uri", alias = "document_id")]
    pub id: String,
    /// Where to search; the document's own when left out.
    #[serde(default, alias = "collection")]
    pub collections: Vec<String>,
    /// Default 6.
    #[serde(default, alias = "top_k", alias = "k", alias = "n")]
    #[schemars(range(min = 1, max = 50))]
    pub limit: Option<usize>,
    /// Conditions on metadata; see search.
    #[serde(default, deserialize_with = "object", alias = "filters", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema", extend("x-expert" = true))]
    pub filter: Option<Value>,
    /// fitted (default), full, snippet or ids; see search.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub detail: DetailArgument,
    /// Of the whole answer. Default 1000.
    #[serde(default)]
    #[schemars(range(min = 100, max = 20000), extend("x-expert" = true))]
    pub max_tokens: Option<usize>,
    /// See search.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub include: Vec<IncludeArgument>,
    /// next_cursor of the previous answer.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListCollections {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetStatus {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescribeCollection {
    /// Its name.
    #[serde(alias = "name")]
    pub collection: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListDocuments {
    /// Its name.
    #[serde(alias = "name")]
    pub collection: String,
    /// See search.
    #[serde(default, deserialize_with = "object", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub filter: Option<Value>,
    /// updated: the last changed first.
    #[serde(default)]
    pub order: OrderArgument,
    /// Only ids that begin with this.
    #[serde(default)]
    pub prefix: String,
    /// Default 100.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<usize>,
    /// next_cursor of the previous answer.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Of the whole answer. Default 2000.
    #[serde(default)]
    #[schemars(range(min = 100, max = 200000))]
    pub max_tokens: Option<usize>,
    /// source, dates, metadata or structured: what else to say of each document.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub include: Vec<IncludeArgument>,
}

/// In which order documents are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderArgument {
    #[default]
    Id,
    #[serde(alias = "updated_at")]
    Updated,
}

/// What happens to a document whose id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConflictArgument {
    #[default]
    #[serde(alias = "update", alias = "overwrite")]
    Replace,
    Skip,
    Fail,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDocument {
    /// Default: the url, or a digest of the text.
    #[serde(default)]
    pub id: Option<String>,
    /// Give text or content_base64.
    #[serde(default, alias = "content")]
    pub text: Option<String>,
    /// data: with the content, or ctx:// of a document to copy. Nothing is fetched.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub uri: Option<String>,
    /// A file (PDF, HTML, …) as base64.
    #[serde(default)]
    pub content_base64: Option<String>,
    /// Of content_base64; determines its format.
    #[serde(default)]
    pub filename: Option<String>,
    /// Of text. Default text/markdown.
    #[serde(default, alias = "mime_type", alias = "content_type")]
    pub media_type: Option<String>,
    /// Instead of the one in the text.
    #[serde(default)]
    pub title: Option<String>,
    /// Where people find the original.
    #[serde(default)]
    pub url: Option<String>,
    /// For filters.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// RFC 3339 time from which it is not shown.
    #[serde(default)]
    pub expires_at: Option<String>,
}

impl NewDocument {
    /// A document of that id, without content so far.
    pub(crate) fn named(id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::default() }
    }

    /// The address of the document that it is a copy of; `None` where it has a content of its own.
    pub(crate) fn copied_from(&self) -> Option<&str> {
        let uri = self.uri.as_deref().filter(|uri| uri.starts_with("ctx://"))?;
        (self.text.is_none() && self.content_base64.is_none()).then_some(uri)
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddDocuments {
    /// Made when there is none.
    pub collection: String,
    /// At most 1000.
    pub documents: Vec<NewDocument>,
    /// When an id is taken.
    #[serde(default)]
    pub on_conflict: ConflictArgument,
    /// A call repeated with the same key within a day writes nothing and gets the first answer.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateDocument {
    /// collection/document
    #[serde(alias = "document_id")]
    pub id: String,
    /// The whole new text.
    #[serde(default, alias = "content")]
    pub text: Option<String>,
    /// Of the new text.
    #[serde(default, alias = "mime_type")]
    pub media_type: Option<String>,
    /// New title.
    #[serde(default)]
    pub title: Option<String>,
    /// New url.
    #[serde(default)]
    pub url: Option<String>,
    /// Fields to set; null removes one.
    #[serde(default, alias = "metadata")]
    pub metadata_patch: Option<Map<String, Value>>,
    /// Only at this version.
    #[serde(default)]
    pub if_version: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteDocuments {
    /// collection/document; give ids, or collection and filter.
    #[serde(default, alias = "id")]
    pub ids: Vec<String>,
    /// For filter.
    #[serde(default)]
    pub collection: Option<String>,
    /// See search; one without a condition is refused.
    #[serde(default, deserialize_with = "object", alias = "where")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub filter: Option<Value>,
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// Delete nothing unless so many match.
    #[serde(default)]
    pub expected_count: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateCollection {
    /// a-z, 0-9, '-', '_', '.'; at most 63.
    #[serde(alias = "collection")]
    pub name: String,
    /// What is in it, in a sentence: agents choose by it.
    #[serde(default)]
    pub description: String,
    /// Embedding model; the built-in one when left out.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub model: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteCollection {
    /// Its name.
    #[serde(alias = "collection")]
    pub name: String,
    /// Its name once more.
    #[serde(deserialize_with = "confirmation")]
    pub confirm: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateSnapshot {
    /// Go on without snapshots that are missing. Only when a person gives them up.
    #[serde(default)]
    pub begin_anew: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListSnapshots {
    /// Another node: the beginning of its id, or any.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub node: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreSnapshot {
    /// Another node whose data is wanted: the beginning of its id, or any.
    #[serde(default)]
    #[schemars(extend("x-expert" = true))]
    pub node: Option<String>,
    /// From list_snapshots. Default: the newest.
    #[serde(default, alias = "snapshot")]
    pub id: Option<String>,
    /// Position of the log.
    #[serde(default, alias = "lsn")]
    pub to_lsn: Option<u64>,
    /// Moment, as 2026-07-28T09:30:00Z.
    #[serde(default, alias = "time")]
    pub to_time: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// The word restore.
    #[serde(default, deserialize_with = "confirmation")]
    pub confirm: String,
}
