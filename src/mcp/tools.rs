//! The tools: names, descriptions, schemas and hints.

use std::sync::{Arc, LazyLock};

use rmcp::model::{JsonObject, Tool as ToolDefinition, ToolAnnotations};
use schemars::generate::Contract;
use serde_json::Value;

use super::{answers, arguments, schema};

/// Characters of a purpose, and bytes of all collections, that the list names.
const PURPOSE_CHARS: usize = 80;
const NAMED_BYTES: usize = 400;

macro_rules! tools {
    ($($name:ident $wire:literal, $title:literal, $arguments:ident -> $answer:tt, $hints:ident, $description:literal;)*) => {
        /// A tool of the node.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Tool {
            $(#[doc = $description] $name,)*
        }

        impl Tool {
            /// Every tool, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in the protocol.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }

            /// The tool of that name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name { $($wire => Some(Self::$name),)* _ => None }
            }
        }

        static DEFINITIONS: LazyLock<Vec<ToolDefinition>> = LazyLock::new(|| vec![$(
            definition($wire, $title, $description, Arc::new(schema::shown::<arguments::$arguments>()), answer_schema!($answer), $hints),
        )*]);
    };
}

/// The schema of a tool's answer. What brings texts has none: with one the protocol wants structured content beside the text,
/// and clients that hand both to their model would pay for every text twice.
macro_rules! answer_schema {
    (text) => {
        None
    };
    ($answer:ident) => {
        Some(Arc::new(schema::of::<answers::$answer>(Contract::Serialize)))
    };
}

/// Hints for clients that ask before they act: read-only, destructive, idempotent.
type Hints = (bool, bool, bool);
const READS: Hints = (true, false, true);
const WRITES: Hints = (false, false, true);
const DESTROYS: Hints = (false, true, true);

tools! {
    Search "search", "Search", Search -> text, READS,
        "Finds passages that answer a question, by words and meaning. Each has an id: cite it, and fetch it for the section around. `weak` says that nothing fits well: the answer is probably not there. Not for reading a known document: fetch it.";
    Fetch "fetch", "Fetch", Fetch -> text, READS,
        "Returns a document, or the section around a passage, by an id from search or list_documents.";
    FindSimilar "find_similar", "Find similar", FindSimilar -> text, READS,
        "Finds passages of other documents that mean the same as one you have. Not for questions: search.";
    ListCollections "list_collections", "List collections", Nothing -> ListCollectionsAnswer, READS,
        "Lists the collections with purpose, size and last change.";
    DescribeCollection "describe_collection", "Describe collection", DescribeCollection -> DescribeCollectionAnswer, READS,
        "Size, model and the metadata fields that a filter can ask for.";
    ListDocuments "list_documents", "List documents", ListDocuments -> text, READS,
        "Lists ids and titles of a collection's documents. Not for finding what they say: search.";
    AddDocuments "add_documents", "Add documents", AddDocuments -> WriteAnswer, WRITES,
        "Adds or replaces documents in one atomic write. They are durable and can be found when it answers. One that cannot be taken is reported; the others are written.";
    UpdateDocument "update_document", "Update document", UpdateDocument -> WriteAnswer, WRITES,
        "Changes text, title, url or metadata of a document; what is left out stays. What came from a file is written over when that file is added again.";
    DeleteDocuments "delete_documents", "Delete documents", DeleteDocuments -> DeleteAnswer, DESTROYS,
        "Deletes documents by id, or all that match a filter. Try dry_run first.";
    CreateCollection "create_collection", "Create collection", CreateCollection -> CollectionAnswer, WRITES,
        "Creates a collection. add_documents does so by itself.";
    DeleteCollection "delete_collection", "Delete collection", DeleteCollection -> CollectionAnswer, DESTROYS,
        "Deletes a collection with all its documents.";
    GetStatus "get_status", "Status", Nothing -> StatusAnswer, READS,
        "Version, readiness, sizes, whether writes are accepted, backups.";
    CreateSnapshot "create_snapshot", "Create snapshot", CreateSnapshot -> CreateSnapshotAnswer, WRITES,
        "Backs up the whole node.";
    ListSnapshots "list_snapshots", "List snapshots", ListSnapshots -> ListSnapshotsAnswer, READS,
        "Lists backups, newest first, and what is missing.";
    RestoreSnapshot "restore_snapshot", "Restore snapshot", RestoreSnapshot -> RestoreSnapshotAnswer, DESTROYS,
        "Takes the whole node back to a backup, a position or a moment, and starts it again; what is there now is kept aside. Try dry_run first.";
}

impl Tool {
    /// Whether its answer comes as text alone, unless a call asks for structured content too.
    #[must_use]
    pub fn answers_in_text(self) -> bool {
        matches!(self, Self::Search | Self::Fetch | Self::FindSimilar | Self::ListDocuments)
    }
}

fn definition(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    input: Arc<JsonObject>,
    output: Option<Arc<JsonObject>>,
    (read_only, destructive, idempotent): Hints,
) -> ToolDefinition {
    let mut tool = ToolDefinition::new(name, description, input);
    tool.title = Some(title.to_owned());
    tool.output_schema = output;
    tool.annotations = Some(
        ToolAnnotations::with_title(title)
            .read_only(read_only)
            .destructive(destructive)
            .idempotent(idempotent)
            .open_world(false),
    );
    tool
}

/// The tools, in a fixed order.
#[must_use]
pub fn definitions() -> &'static [ToolDefinition] {
    &DEFINITIONS
}

/// The tools as clients see them: a search names the collections, so that nobody has to ask first.
///
/// * `collections`: as list_collections answers.
pub(super) fn listed(collections: &Value) -> Vec<ToolDefinition> {
    let mut tools = DEFINITIONS.clone();
    let named = named(collections["collections"].as_array().map(Vec::as_slice).unwrap_or_default());
    let search = tools.iter_mut().find(|tool| tool.name == Tool::Search.name());
    if let (Some(named), Some(search)) = (named, search) {
        let mut schema = JsonObject::clone(&search.input_schema);
        if let Some(Value::String(description)) =
            schema.get_mut("properties").and_then(|properties| properties.pointer_mut("/collections/description"))
        {
            description.push(' ');
            description.push_str(&named);
        }
        search.input_schema = Arc::new(schema);
    }
    tools
}

/// The largest collections with purpose and size. It stays the same while little changes: what stands before a conversation
/// is cheap where it is what it was.
fn named(collections: &[Value]) -> Option<String> {
    let documents = |info: &Value| info["documents"].as_u64().unwrap_or_default();
    let mut all: Vec<&Value> = collections.iter().collect();
    all.sort_by_key(|info| (std::cmp::Reverse(documents(info)), info["name"].as_str()));
    let mut named = String::new();
    let mut count = 0;
    for info in &all {
        let name = info["name"].as_str()?;
        let purpose = info["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let purpose: String = purpose.chars().take(PURPOSE_CHARS).collect();
        let colon = if purpose.is_empty() { "" } else { ": " };
        let one = format!("{name} ({} documents{colon}{purpose})", about(documents(info)));
        if count > 0 && named.len() + one.len() > NAMED_BYTES {
            break;
        }
        named.push_str(if count > 0 { ", " } else { "There are " });
        named.push_str(&one);
        count += 1;
    }
    match all.len() - count {
        0 => {}
        more => named.push_str(&format!(" and {more} more: list_collections")),
    }
    (count > 0).then(|| named + ".")
}

/// A number by its first two figures: 1,234 is about 1,200.
fn about(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or_default().saturating_sub(1));
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_find_their_tool() {
        for &tool in Tool::ALL {
            assert_eq!(Tool::named(tool.name()), Some(tool));
        }
        assert_eq!(Tool::named("drop_tables"), None);
    }

    #[test]
    fn schemas_are_what_every_client_takes() {
        fn check(place: &str, schema: &Value) {
            match schema {
                Value::Object(object) => {
                    assert!(!object.contains_key("$ref") && !object.contains_key("format"), "{place}: {schema}");
                    if let Some(kind) = object.get("type") {
                        assert!(kind.is_string() || kind.is_object(), "{place}: {kind}");
                    }
                    object.iter().for_each(|(name, value)| check(&format!("{place}.{name}"), value));
                }
                Value::Array(items) => items.iter().for_each(|item| check(place, item)),
                _ => {}
            }
        }
        for tool in definitions() {
            check(&tool.name, &Value::Object((*tool.input_schema).clone()));
            let in_text = Tool::named(&tool.name).expect("its own name").answers_in_text();
            assert_eq!(tool.output_schema.is_none(), in_text, "{}", tool.name);
            if let Some(schema) = &tool.output_schema {
                check(&tool.name, &Value::Object((**schema).clone()));
            }
            assert_eq!(tool.input_schema["type"], "object");
        }
    }

    #[test]
    fn the_list_is_short() {
        let listed = definitions().iter().map(|tool| {
            let json = json!({"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema});
            crate::retrieval::price_of_json(&json.to_string())
        });
        // Every session pays for it. The estimate is a fifth above the count by o200k, which may be 2,000 with the names of collections.
        let tokens: usize = listed.sum();
        assert!(tokens <= 2_280, "{tokens}");
    }

    #[test]
    fn collections_are_named_the_largest_first_and_not_all_of_many() {
        let search = |collections: Value| {
            listed(&collections)[0].input_schema["properties"]["collections"]["description"].clone()
        };
        let few = json!({"collections": [
            {"name": "parts", "documents": 7, "description": ""},
            {"name": "manual", "documents": 1_234, "description": "How the\nmachine is used"},
        ]});
        let description = search(few).as_str().expect("a text").to_owned();
        assert!(
            description.ends_with("There are manual (1200 documents: How the machine is used), parts (7 documents)."),
            "{description}"
        );
        let one =
            |number: usize| json!({"name": format!("c{number:03}"), "documents": 5, "description": "x".repeat(200)});
        let many = json!({"collections": (0..100).map(one).collect::<Vec<_>>()});
        let description = search(many).as_str().expect("a text").to_owned();
        assert!(description.ends_with(" more: list_collections.") && description.len() < 600, "{description}");
        assert_eq!(search(json!({"collections": []})), search(json!(null)));
    }

    #[test]
    fn every_argument_is_described() {
        for tool in definitions() {
            for (name, property) in tool.input_schema["properties"].as_object().expect("properties") {
                assert!(property["description"].is_string(), "{}.{name}", tool.name);
            }
        }
    }
}
