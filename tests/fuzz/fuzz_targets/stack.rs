//! Bytes as the file of a stack, as the JSON of a running one, and as a file of variables, in both dialects; what is read is converted.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use cairn::migrate::{Dialect, Interpolator, Node, Outcome, Request, Source, Value, convert, variables};
use libfuzzer_sys::fuzz_target;

/// Where the file is that a conversion reads; each process has its own.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("cairn-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
});

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
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "it is refused for a reason");
            return;
        }
    }
    let file = FOLDER.join("stack.yml");
    std::fs::write(&file, bytes).expect("written");
    for dialect in [Dialect::Stack, Dialect::Compose] {
        let _ = variables(&source, dialect, &lookup);
        let request = Request {
            files: vec![file.clone()],
            stack: Some("shop".to_owned()),
            dialect: Some(dialect),
            ..Request::default()
        };
        match convert(&request) {
            Ok(found) => {
                let forgotten = found.report.entries.iter().find(|entry| entry.reason.contains("wrote nothing for it"));
                assert!(forgotten.is_none(), "forgotten: {forgotten:?}");
                let known = Outcome::ALL.iter().map(|outcome| found.report.count(*outcome)).sum::<usize>();
                assert_eq!(known, found.report.entries.len());
            }
            Err(error) => assert!(!error.to_string().is_empty(), "it is refused for a reason"),
        }
    }
});
