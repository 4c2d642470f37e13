//! The tools: names, descriptions, schemas and hints.

use std::sync::{Arc, LazyLock};

use rmcp::model::{JsonObject, Tool as ToolDefinition, ToolAnnotations};
use schemars::generate::Contract;

use super::{answers, arguments, schema};

macro_rules! tools {
    ($($name:ident $wire:literal, $title:literal, $arguments:ident -> $answer:ident, $hints:ident, $description:literal;)*) => {
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
            definition($wire, $title, $description, Arc::new(schema::of::<arguments::$arguments>(Contract::Deserialize)), Arc::new(schema::of::<answers::$answer>(Contract::Serialize)), $hints),
        )*]);
    };
}

/// Hints for clients that ask before they act: read-only, destructive, idempotent.
type Hints = (bool, bool, bool);
const READS: Hints = (true, false, true);
const WRITES: Hints = (false, false, true);
const DESTROYS: Hints = (false, true, true);

tools! {
    Search "search", "Search", Search -> SearchAnswer, READS,
        "Finds the passages that answer a question, by words and by meaning, with citations. Searches all collections unless told which. Returns whole passages; use fetch for what surrounds them.";
    Fetch "fetch", "Fetch", Fetch -> FetchAnswer, READS,
        "Returns a document, or a passage with what surrounds it, by an id from search or list_documents.";
    FindSimilar "find_similar", "Find similar", FindSimilar -> SearchAnswer, READS,
        "Finds passages that mean the same as a document or a passage.";
    ListCollections "list_collections", "List collections", Nothing -> ListCollectionsAnswer, READS,
        "Lists the collections: what each is for, how many documents it holds, when it last changed.";
    DescribeCollection "describe_collection", "Describe collection", DescribeCollection -> DescribeCollectionAnswer, READS,
        "Describes a collection: size, model, and the metadata fields that filters can ask for.";
    ListDocuments "list_documents", "List documents", ListDocuments -> ListDocumentsAnswer, READS,
        "Lists the documents of a collection, page by page: by id or by last change, all or those whose metadata matches.";
    AddDocuments "add_documents", "Add documents", AddDocuments -> WriteAnswer, WRITES,
        "Adds or replaces documents, all in one atomic write. Answers when they are on stable storage and can be found. A document that cannot be taken is reported with its reason; the others are written.";
    UpdateDocument "update_document", "Update document", UpdateDocument -> WriteAnswer, WRITES,
        "Changes the text, title, url or metadata of one document.";
    DeleteDocuments "delete_documents", "Delete documents", DeleteDocuments -> DeleteAnswer, DESTROYS,
        "Deletes documents by id, or all that match a filter. Use dry_run first to see what would go.";
    CreateCollection "create_collection", "Create collection", CreateCollection -> CollectionAnswer, WRITES,
        "Creates a collection: a named set of documents that is searched together.";
    DeleteCollection "delete_collection", "Delete collection", DeleteCollection -> CollectionAnswer, DESTROYS,
        "Deletes a collection with all its documents. Needs its name twice.";
    GetStatus "get_status", "Status", Nothing -> StatusAnswer, READS,
        "Tells how the node is: version, readiness, sizes, whether writes are accepted.";
    CreateSnapshot "create_snapshot", "Create snapshot", CreateSnapshot -> CreateSnapshotAnswer, WRITES,
        "Takes a snapshot of the whole node, a backup that can be restored. Copies only what the last one does not have.";
    ListSnapshots "list_snapshots", "List snapshots", ListSnapshots -> ListSnapshotsAnswer, READS,
        "Lists this node's snapshots that are there, newest first, and says what is missing.";
    RestoreSnapshot "restore_snapshot", "Restore snapshot", RestoreSnapshot -> RestoreSnapshotAnswer, DESTROYS,
        "Takes the whole node back to a snapshot, to a position of the log or to a moment. Builds and checks the old state first, then starts the node again on it; what is there now is kept aside. Use dry_run first to see what would be done.";
}

fn definition(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    input: Arc<JsonObject>,
    output: Arc<JsonObject>,
    (read_only, destructive, idempotent): Hints,
) -> ToolDefinition {
    let mut tool = ToolDefinition::new(name, description, input);
    tool.title = Some(title.to_owned());
    tool.output_schema = Some(output);
    tool.annotations = Some(
        ToolAnnotations::with_title(title)
            .read_only(read_only)
            .destructive(destructive)
            .idempotent(idempotent)
            .open_world(false),
    );
    tool
}

/// The tools as clients see them, in a fixed order.
#[must_use]
pub fn definitions() -> &'static [ToolDefinition] {
    &DEFINITIONS
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
            check(&tool.name, &Value::Object((**tool.output_schema.as_ref().expect("has one")).clone()));
            assert_eq!(tool.input_schema["type"], "object");
            assert_eq!(tool.input_schema["additionalProperties"], false, "{}", tool.name);
        }
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
