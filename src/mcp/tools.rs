//! The tools: names, descriptions, schemas and hints.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool as ToolDefinition, ToolAnnotations};
use serde_json::Value;

use crate::calls::Effect;

/// Characters of a purpose, and bytes of all collections, that the list names.
const PURPOSE_CHARS: usize = 80;
const NAMED_BYTES: usize = 400;

/// The node's tools, one line each: variant, name, title, arguments and answer (`text` for one without a schema), hints, description. The arguments' type does the
/// work ([`super::node_tools::NodeTool`]).
macro_rules! tools {
    ($($name:ident $wire:literal, $title:literal, $arguments:ty => $($answer:ident)::+, $hints:ident, $description:literal;)*) => {
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

            /// A call of it, as rules see it.
            #[must_use]
            pub const fn operation(self) -> $crate::calls::Operation {
                let effect = match self { $(Self::$name => $crate::mcp::tools::$hints.effect,)* };
                $crate::calls::Operation::tool($crate::calls::ToolName::builtin(self.name()), effect)
            }
        }

        static DEFINITIONS: std::sync::LazyLock<Vec<rmcp::model::Tool>> = std::sync::LazyLock::new(|| vec![$(
            $crate::mcp::tools::definition(
                ($wire, $title, $description),
                std::sync::Arc::new($crate::mcp::schema::visible::<$arguments>()),
                answer_schema!($($answer)::+),
                $crate::mcp::tools::$hints,
            ),
        )*]);

        impl NodeTools {
            /// Runs a tool with the arguments that its line names.
            async fn dispatch(
                &self,
                tool: Tool,
                arguments: $crate::mcp::Arguments,
                context: $crate::mcp::Context<'_>,
            ) -> Result<$crate::mcp::ToolAnswer, $crate::mcp::ToolError> {
                match tool { $(Tool::$name => self.run::<$arguments>(tool, arguments, context).await,)* }
            }
        }
    };
}

/// The schema of a tool's answer. Tools that return texts have none: with one the protocol requires structured content
/// in addition to the text, and clients that pass both to their model would pay for every text twice.
macro_rules! answer_schema {
    (text) => {
        None
    };
    ($answer:path) => {
        Some(std::sync::Arc::new($crate::mcp::schema::of::<$answer>(schemars::generate::Contract::Serialize)))
    };
}

/// The effect of a tool on the node: hints for clients that ask before they act, and the basis of policies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hints {
    pub(super) effect: Effect,
    idempotent: bool,
}

pub(super) const READS: Hints = Hints { effect: Effect::Read, idempotent: true };
pub(super) const WRITES: Hints = Hints { effect: Effect::Write, idempotent: true };
pub(super) const DESTROYS: Hints = Hints { effect: Effect::Destroy, idempotent: true };

/// What clients are shown of a tool.
pub(super) fn definition(
    (name, title, description): (&'static str, &'static str, &'static str),
    input: Arc<JsonObject>,
    output: Option<Arc<JsonObject>>,
    hints: Hints,
) -> ToolDefinition {
    let mut tool = ToolDefinition::new(name, description, input);
    tool.title = Some(title.to_owned());
    tool.output_schema = output;
    tool.annotations = Some(
        ToolAnnotations::with_title(title)
            .read_only(hints.effect == Effect::Read)
            .destructive(hints.effect == Effect::Destroy)
            .idempotent(hints.idempotent)
            .open_world(false),
    );
    tool
}

/// The tools as clients see them: the search tool names the collections, so that no call is needed to learn them.
///
/// * `collections`: an answer of `list_collections`.
pub(crate) fn listed(mut tools: Vec<ToolDefinition>, collections: &Value) -> Vec<ToolDefinition> {
    let named = named(collections["collections"].as_array().map(Vec::as_slice).unwrap_or_default());
    let search = tools.iter_mut().find(|tool| tool.name == "search");
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

/// The largest collections with purpose and size. It stays the same while little changes: an unchanged prefix of a
/// conversation is cheap.
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

    use super::super::{Tool, definitions};
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
            listed(definitions().to_vec(), &collections)[0].input_schema["properties"]["collections"]["description"]
                .clone()
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
