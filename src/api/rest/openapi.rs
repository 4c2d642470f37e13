//! The OpenAPI 3.1 document, generated from the table of routes and the types of their input and answers.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::{Map, Value, json};

use super::endpoint::Schemas;
use super::operations;
use super::problem::Problem;
use crate::api::Shared;

/// Where it is.
const PATH: &str = "/v1/openapi.json";

/// The groups of routes, in the order of the document.
const TAGS: [&str; 8] = ["Search", "Collections", "Documents", "Sources", "Snapshots", "Node", "Jobs", "Tools"];

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// Adds the document to a router.
pub(super) fn mount(router: Router<Shared>) -> Router<Shared> {
    let answer = async || ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response();
    router.route(PATH, get(answer))
}

/// The document.
fn document() -> Value {
    let generator = |contract: Contract| {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings.contract = contract;
        });
        settings.into_generator()
    };
    let mut schemas = Schemas { requests: generator(Contract::Deserialize), answers: generator(Contract::Serialize) };
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, operation) in operations(&mut schemas) {
        // `{*name}` is the router's; a slash in a name may be sent as it is.
        let path = path.replace("{*", "{");
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[method] = operation;
    }
    let _ = schemas.answers.subschema_for::<Problem>();
    let mut definitions: Map<String, Value> = schemas.answers.take_definitions(true);
    definitions.extend(schemas.requests.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Cairn",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A context server: stores documents and answers searches with citations",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": TAGS.map(|name| json!({ "name": name })),
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": {
                "Problem": {
                    "description": "The request failed; `code` and `detail` say why.",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "One of the node's tokens (`cairn token`)."},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for operation in item.as_object().expect("operations").values() {
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "{name} twice");
                let parameters = operation["parameters"].as_array().expect("parameters");
                let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
                assert_eq!(in_path, path.matches('{').count(), "{path}");
            }
        }
    }
}
