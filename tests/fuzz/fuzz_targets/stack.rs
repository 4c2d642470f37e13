//! Bytes as the file of a stack, and as a file of variables, in both dialects.
#![no_main]

use cairn::migrate::{Dialect, Interpolator, Node, Source, Value, variables};
use libfuzzer_sys::fuzz_target;

/// One variable has a value, one an empty one.
fn lookup(name: &str) -> Option<&'static str> {
    match name {
        "TAG" => Some("2"),
        "EMPTY" => Some(""),
        _ => None,
    }
}

fn interpolate(node: &Node, interpolators: &[Interpolator<'_, '_>]) {
    match &node.value {
        Value::Text(text) => interpolators.iter().for_each(|one| drop(one.interpolate(text))),
        Value::List(items) => items.iter().for_each(|item| interpolate(item, interpolators)),
        Value::Map(entries) => entries.iter().for_each(|entry| interpolate(&entry.node, interpolators)),
        scalar => drop(scalar.to_string()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = Source::of("stack.yml", bytes) else { return };
    let interpolators = [Dialect::Stack, Dialect::Compose].map(|dialect| Interpolator::new(dialect, &lookup));
    match Node::documents(&source) {
        Ok(documents) => documents.iter().for_each(|document| interpolate(document, &interpolators)),
        Err(mistakes) => assert!(!mistakes.is_empty(), "it is refused for a reason"),
    }
    for dialect in [Dialect::Stack, Dialect::Compose] {
        let _ = variables(&source, dialect, &lookup);
    }
});
