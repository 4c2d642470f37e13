//! JSON Schemas that every client understands.

use rmcp::model::JsonObject;
use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
    json_schema,
};
use serde_json::Value;

/// An object with any fields: filters and metadata.
pub(super) fn object_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": true})
}

/// The schema of `T` without references, number formats or nullable types: some clients refuse or warn about those.
/// An optional field is one that is not required: of arguments, what may be left out; of answers, what may be absent.
pub(super) fn of<T: JsonSchema>(contract: Contract) -> JsonObject {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.contract = contract;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    simplify(&mut schema);
    match schema {
        Value::Object(mut object) => {
            object.remove("title");
            object.remove("description");
            object.entry("properties").or_insert_with(|| Value::Object(JsonObject::new()));
            object
        }
        _ => unreachable!("a struct's schema is an object"),
    }
}

/// The schema of `T` as a request sends it, without references.
pub(crate) fn plain<T: JsonSchema>() -> JsonObject {
    of::<T>(Contract::Deserialize)
}

/// The schema of `T`'s arguments as clients see it: expert arguments are accepted but not shown, since every session
/// pays for what is shown.
pub(super) fn visible<T: JsonSchema>() -> JsonObject {
    let mut schema = of::<T>(Contract::Deserialize);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.retain(|_, property| property.get("x-expert").is_none());
        properties.values_mut().for_each(shorten);
        // An argument that does not exist is refused with those that do.
        if !properties.is_empty() {
            schema.remove("additionalProperties");
        }
    }
    schema
}

/// Leaves out what an error would say, and what the property that contains it says.
fn shorten(property: &mut Value) {
    let Value::Object(property) = property else { return };
    property.remove("minimum");
    property.remove("maximum");
    if let Some(Value::Object(items)) = property.get_mut("items") {
        items.remove("additionalProperties");
        if items.contains_key("enum") {
            items.remove("description");
        }
        if let Some(Value::Object(properties)) = items.get_mut("properties") {
            properties.retain(|_, property| property.get("x-expert").is_none());
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("format");
            // `default: null` and friends say nothing that the description does not.
            if object.get("default").is_some_and(is_nothing) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type") != Some(&Value::from("null")));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}
