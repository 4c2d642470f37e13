//! The rows and cases of the reference on Docker Swarm, each a small stack with the objects that it has to come to.
//!
//! They are the folders of `tests/data/swarm/cases`, whose `README.md` describes their form. What they expect is from the reference and
//! from the rules of Swarm and Kubernetes. Every stack is one that Docker's own loader reads, unless the case is about one that it refuses.
//! In addition each conversion has to be sound, to account for every value of the stack, and to come to the same bytes twice.

mod lookup;
mod sound;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::lookup::{Objects, steps};
use self::sound::faults;
use self::values::matches;
use crate::node::{cairn, stderr, stdout};

/// Variables of the process that converts, which must not get into any result.
const FOREIGN: &[(&str, &str)] = &[("TAG", "foreign"), ("ZONE", "foreign"), ("C", "foreign"), ("NONE", "foreign")];

/// A run of the program.
struct Conversion {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

#[test]
fn every_case_of_the_reference_comes_to_its_objects() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/swarm/cases");
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)
        .expect("the folder of the cases")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() >= 200, "{} cases", folders.len());
    let mut failures = Vec::new();
    let mut failed = 0;
    for folder in &folders {
        let found = case(folder);
        failed += usize::from(!found.is_empty());
        let name = folder.file_name().expect("a name").to_string_lossy();
        failures.extend(found.into_iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(failures.is_empty(), "{failed} of {} cases fail:\n{}", folders.len(), failures.join("\n"));
}

/// What is wrong with a case.
fn case(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("expect.yaml")).expect("expect.yaml");
    let expected: Value = match serde_yaml::from_str(&text) {
        Ok(expected) => expected,
        Err(error) => return vec![format!("expect.yaml: {error}")],
    };
    let mut failures = unknown_keys(&expected);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    let conversion = convert(folder, &expected, &first, directory.path());
    let codes = match &expected["exit"] {
        Value::Null => vec![0],
        Value::Array(codes) => codes.iter().filter_map(Value::as_i64).collect(),
        code => vec![code.as_i64().unwrap_or_default()],
    };
    if !conversion.code.is_some_and(|code| codes.contains(&i64::from(code))) {
        failures.push(format!("exit: expected {codes:?}, found {:?}: {}", conversion.code, conversion.stderr.trim()));
        return failures;
    }
    if conversion.code == Some(2) {
        for part in texts(&expected["error"]) {
            if !conversion.stderr.contains(part) {
                failures.push(format!("error: expected {part:?}, found {:?}", conversion.stderr.trim()));
            }
        }
        return failures;
    }

    let report = report(&first, &conversion);
    let entries = report["entries"].as_array().cloned().unwrap_or_default();
    if entries.is_empty() {
        failures.push("report: expected entries, found none".to_owned());
    }
    failures.extend(of_the_report(&expected["report"], &entries));
    for text in texts(&expected["not_in_report"]) {
        let table = fs::read_to_string(first.join("report.md")).unwrap_or_default();
        if report.to_string().contains(text) || table.contains(text) || conversion.stdout.contains(text) {
            failures.push(format!("not_in_report: {text:?} is in it"));
        }
    }
    failures.extend(leaves_without_an_entry(folder, &expected, &entries));

    let objects = match Objects::read(&first) {
        Ok(objects) => objects,
        Err(error) => {
            failures.push(error);
            return failures;
        }
    };
    failures.extend(faults(&objects));
    failures.extend(files_that_are_not_applied(&first));
    failures.extend(of_the_objects(&expected, &objects));
    convert(folder, &expected, &second, directory.path());
    if tree(&first) != tree(&second) {
        failures.push("a second conversion comes to other bytes".to_owned());
    }
    failures
}

/// A slip in an expectation would test nothing.
fn unknown_keys(expected: &Value) -> Vec<String> {
    const CASE: &[&str] =
        &["why", "arguments", "files", "exit", "error", "objects", "absent", "report", "not_in_report"];
    const OBJECT: &[&str] = &["object", "has", "lacks", "selects", "selects_not"];
    const ENTRY: &[&str] = &["path", "outcome", "reason"];
    let of = |value: &Value, keys: &[&str]| -> Vec<String> {
        let found = value.as_object().into_iter().flatten().map(|(key, _)| key);
        found.filter(|key| !keys.contains(&key.as_str())).map(|key| format!("expect.yaml: unknown key {key}")).collect()
    };
    let items = |key: &str| expected[key].as_array().cloned().unwrap_or_default();
    let mut unknown = of(expected, CASE);
    unknown.extend(items("objects").iter().flat_map(|object| of(object, OBJECT)));
    unknown.extend(items("report").iter().flat_map(|entry| of(entry, ENTRY)));
    for object in items("objects") {
        let paths = object["has"].as_object().into_iter().flatten().map(|(path, _)| path.as_str());
        let wrong = paths.chain(texts(&object["lacks"])).filter_map(|path| Some((path, steps(path).err()?)));
        unknown.extend(wrong.map(|(path, error)| format!("expect.yaml: {path}: {error}")));
    }
    unknown
}

/// A text or a list of them.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        text => text.as_str().into_iter().collect(),
    }
}

fn files(expected: &Value) -> Vec<&str> {
    let files = texts(&expected["files"]);
    if files.is_empty() { vec!["stack.yml"] } else { files }
}

/// Runs the program in a folder that has nothing to do with the stack's.
fn convert(folder: &Path, expected: &Value, into: &Path, elsewhere: &Path) -> Conversion {
    let arguments: Vec<String> = texts(&expected["arguments"])
        .into_iter()
        .map(|argument| argument.replace("{case}", &folder.to_string_lossy()))
        .collect();
    let mut command = cairn();
    command.current_dir(elsewhere).args(["migrate", "swarm"]);
    command.args(files(expected).into_iter().map(|file| folder.join(file)));
    command.arg("-o").arg(into).args(["--stack", "shop", "--json"]);
    if !arguments.iter().any(|argument| argument == "--dialect") {
        command.args(["--dialect", "stack"]);
    }
    command.args(&arguments).envs(FOREIGN.iter().copied());
    let output = command.output().expect("the program runs");
    Conversion { code: output.status.code(), stdout: stdout(&output), stderr: stderr(&output) }
}

/// The report in the folder, or else the one that was printed.
fn report(directory: &Path, conversion: &Conversion) -> Value {
    let written = fs::read_to_string(directory.join("report.json")).unwrap_or_else(|_| conversion.stdout.clone());
    serde_json::from_str(&written).unwrap_or_default()
}

/// The entry of a path, or the entry of what was dropped with all that is in it.
fn entry_of<'a>(path: &[Value], entries: &'a [Value]) -> Option<&'a Value> {
    let with =
        |prefix: &[Value]| entries.iter().find(|entry| entry["path"].as_array().is_some_and(|found| found == prefix));
    let dropped = |prefix: &[Value]| with(prefix).filter(|entry| entry["outcome"] == "dropped");
    with(path).or_else(|| (1..path.len()).rev().find_map(|length| dropped(&path[..length])))
}

fn of_the_report(expected: &Value, entries: &[Value]) -> Vec<String> {
    let mut failures = Vec::new();
    for wanted in expected.as_array().into_iter().flatten() {
        let path = wanted["path"].as_array().cloned().unwrap_or_default();
        let shown = Value::Array(path.clone());
        let Some(entry) = entry_of(&path, entries) else {
            failures.push(format!("report: {shown} has no entry"));
            continue;
        };
        let outcomes = texts(&wanted["outcome"]);
        let outcome = entry["outcome"].as_str().unwrap_or_default();
        if !outcomes.contains(&outcome) {
            failures.push(format!("report: {shown}: expected {outcomes:?}, found {outcome}: {}", entry["reason"]));
        }
        let reason = entry["reason"].as_str().unwrap_or_default();
        for part in texts(&wanted["reason"]) {
            if !reason.to_lowercase().contains(&part.to_lowercase()) {
                failures.push(format!("report: {shown}: expected a reason with {part:?}, found {reason:?}"));
            }
        }
    }
    failures
}

/// The values of the stack that nothing is said of. Where several files are merged, places in lists are not those of a file.
fn leaves_without_an_entry(folder: &Path, expected: &Value, entries: &[Value]) -> Vec<String> {
    let files = files(expected);
    let [file] = files[..] else { return Vec::new() };
    let text = fs::read_to_string(folder.join(file)).expect("the stack");
    if file.ends_with(".json") || text.contains("<<:") || text.contains(": &") {
        return Vec::new();
    }
    let Ok(tree) = serde_yaml::from_str::<Value>(&text) else { return Vec::new() };
    let mut paths = Vec::new();
    leaves(&tree, &mut Vec::new(), &mut paths);
    let missing = paths.into_iter().filter(|path| entry_of(path, entries).is_none());
    missing.map(|path| format!("report: {} has no entry", Value::Array(path))).collect()
}

fn leaves(value: &Value, path: &mut Vec<Value>, all: &mut Vec<Vec<Value>>) {
    let below: Vec<(Value, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (Value::from(index), item)).collect(),
        Value::Object(entries) => entries.iter().map(|(key, item)| (Value::from(key.as_str()), item)).collect(),
        _ => Vec::new(),
    };
    if below.is_empty() {
        all.push(path.clone());
    }
    for (step, item) in below {
        path.push(step);
        leaves(item, path, all);
        path.pop();
    }
}

fn of_the_objects(expected: &Value, objects: &Objects) -> Vec<String> {
    let mut failures = Vec::new();
    for wanted in expected["objects"].as_array().into_iter().flatten() {
        let names = wanted["object"].as_str().unwrap_or_default();
        let Some(object) = names.split(" or ").find_map(|name| objects.get(name)) else {
            failures.push(format!("{names} is not there; there are {}", objects.names()));
            continue;
        };
        for (path, value) in wanted["has"].as_object().into_iter().flatten() {
            match objects.find(object, path) {
                Err(error) => failures.push(format!("{names} {path}: {error}")),
                Ok(found) if matches(value, found.as_ref(), &objects.variables(object)) => {}
                Ok(found) => {
                    let found = found.map_or("nothing".to_owned(), |found| found.to_string());
                    failures.push(format!("{names} {path}: expected {value}, found {found}"));
                }
            }
        }
        for path in texts(&wanted["lacks"]) {
            match objects.find(object, path) {
                Err(error) => failures.push(format!("{names} {path}: {error}")),
                Ok(None | Some(Value::Null)) => {}
                Ok(Some(found)) => failures.push(format!("{names} {path}: expected nothing, found {found}")),
            }
        }
        for (key, is_selected) in [("selects", true), ("selects_not", false)] {
            for name in texts(&wanted[key]) {
                let Some(workload) = objects.get(name) else {
                    failures.push(format!("{names} {key}: {name} is not there; there are {}", objects.names()));
                    continue;
                };
                if objects.selects(object, workload) != is_selected {
                    let found = &object["spec"];
                    failures.push(format!("{names} {key}: expected {name}, found {found}"));
                }
            }
        }
    }
    for name in texts(&expected["absent"]) {
        if objects.get(name).is_some() {
            failures.push(format!("{name}: expected not to be there"));
        }
    }
    failures
}

/// The files of objects that the folder's `kustomization.yaml` does not name.
fn files_that_are_not_applied(directory: &Path) -> Vec<String> {
    let list = fs::read_to_string(directory.join("kustomization.yaml")).unwrap_or_default();
    let list: Value = serde_yaml::from_str(&list).unwrap_or_default();
    let resources = texts(&list["resources"]);
    let is_named = |path: &Path| resources.iter().any(|resource| path == Path::new(resource));
    let files = tree(directory).into_keys().filter(|path| path.extension().is_some_and(|kind| kind == "yaml"));
    let missing = files.filter(|path| path != Path::new("kustomization.yaml") && !is_named(path));
    missing.map(|path| format!("kustomization.yaml does not name {}", path.display())).collect()
}

/// Every file below a folder with its bytes.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("readable");
                all.insert(path.strip_prefix(directory).expect("below it").to_owned(), bytes);
            }
        }
    }
    all
}
