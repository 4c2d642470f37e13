//! `cairn migrate swarm` on whole stacks: those of other people's kind under `tests/data/swarm/files`, a fleet of sixteen MCP servers, and
//! the JSON of stacks that run.
//!
//! The walk over a file is another parser's: each leaf that it finds has to be in the report, at its path and its line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::node::{cairn, stderr, stdout};

/// The folder of the stacks.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/swarm").join(name)
}

/// Converts into a folder.
pub fn convert(arguments: &[&str], output: &Path) -> Output {
    let mut command = cairn();
    command.args(["migrate", "swarm"]).args(arguments).arg("-o").arg(output);
    command.output().expect("the binary runs")
}

/// The same, which has to succeed. Returns the report.
pub fn converted(arguments: &[&str], output: &Path) -> Value {
    let found = convert(&[arguments, &["--json"]].concat(), output);
    assert!(found.status.success(), "{arguments:?}: {}", stderr(&found));
    serde_json::from_str(&stdout(&found)).expect("JSON")
}

/// The fleet, from its files.
pub fn fleet(more: &[&str], output: &Path) -> Value {
    let files = [data("mcp-fleet/stack.yml"), data("mcp-fleet/production.yml"), data("mcp-fleet/fleet.env")];
    let [stack, production, variables] = files.map(|path| path.display().to_string());
    converted(&[&[&stack, &production, "--env-file", &variables, "--stack", "fleet"], more].concat(), output)
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Every file below a folder, with its bytes.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let name = path.strip_prefix(folder).expect("below").to_owned();
                    found.insert(name, fs::read(&path).expect("a file"));
                }
            }
        }
    }
    found
}

/// Text of a file in any encoding that the stacks are saved in.
fn text_of(path: &Path) -> String {
    let bytes = fs::read(path).expect("a file");
    let units = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16(&units).expect("UTF-16")
    };
    let text = match bytes[..] {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => String::from_utf8(bytes).expect("UTF-8"),
    };
    text.trim_start_matches('\u{feff}').to_owned()
}

/// The paths of the leaves of a tree.
fn leaves(value: &Value, path: &mut Vec<Value>, all: &mut BTreeSet<String>) {
    let below: Vec<(Value, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (Value::from(index), item)).collect(),
        Value::Object(entries) => entries.iter().map(|(key, item)| (Value::from(key.as_str()), item)).collect(),
        _ => Vec::new(),
    };
    if below.is_empty() {
        all.insert(Value::Array(path.clone()).to_string());
    }
    for (step, item) in below {
        path.push(step);
        leaves(item, path, all);
        path.pop();
    }
}

/// Stacks by others, with the dialect that their name says.
fn files() -> Vec<(PathBuf, &'static str)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(data("files")).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yml"));
    files.sort();
    assert!(files.len() > 40, "{} files", files.len());
    let dialect = |path: &Path| {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("stack-")) {
            "stack"
        } else {
            "compose"
        }
    };
    files.into_iter().map(|path| (path.clone(), dialect(&path))).collect()
}

#[test]
fn every_leaf_of_every_stack_is_in_the_report() {
    let directory = directory();
    let mut missing = Vec::new();
    for (path, dialect) in files() {
        let name = path.display().to_string();
        let report = converted(
            &[&name, "--dialect", dialect, "--stack", "shop"],
            &directory.path().join(path.file_name().expect("a name")),
        );
        let entries = report["entries"].as_array().expect("entries");
        let found: BTreeSet<String> = entries.iter().map(|entry| entry["path"].to_string()).collect();
        let forgotten = entries
            .iter()
            .filter(|entry| entry["reason"].as_str().is_some_and(|reason| reason.contains("wrote nothing for it")));
        missing.extend(forgotten.map(|entry| format!("{name}: {} was read and forgotten", entry["path"])));
        let lines = text_of(&path).lines().count();
        let wrong = entries.iter().filter(|entry| {
            entry["outcome"] != "added"
                && !(1..=lines.max(1) as u64 + 1).contains(&entry["line"].as_u64().unwrap_or_default())
                && entry["file"] == name.as_str()
        });
        missing.extend(wrong.map(|entry| format!("{name}: {} is said to be in line {}", entry["path"], entry["line"])));
        // `extends`, `include`, tags and several documents change where a value is.
        let text = text_of(&path);
        if ["extends:", "include:", "!reset", "!override", "\n---", "%YAML"].iter().any(|other| text.contains(other)) {
            continue;
        }
        let Ok(mut tree) = serde_yaml::from_str::<serde_yaml::Value>(&text) else { continue };
        tree.apply_merge().expect("merges");
        let tree = serde_json::to_value(&tree).expect("text as keys");
        let mut all = BTreeSet::new();
        leaves(&tree, &mut Vec::new(), &mut all);
        missing.extend(all.difference(&found).map(|leaf| format!("{name}: {leaf}")));
    }
    assert!(missing.is_empty(), "{} leaves:\n{}", missing.len(), missing.join("\n"));
}

#[test]
fn converting_twice_gives_the_same_bytes() {
    let directory = directory();
    for (path, dialect) in files() {
        let name = path.display().to_string();
        let folders = ["first", "second"].map(|name| directory.path().join(name));
        for folder in &folders {
            converted(&[&name, "--dialect", dialect, "--stack", "shop"], folder);
        }
        assert!(tree(&folders[0]) == tree(&folders[1]), "{name}");
    }
}

/// Objects in the files of a conversion, with the digests of images removed, which only a running stack has.
fn objects(folder: &Path) -> BTreeMap<PathBuf, String> {
    let is_manifest = |path: &Path| path.extension().is_some_and(|ending| ending == "yaml");
    let without_digest = |line: &str| match line.split_once("@sha256:") {
        Some((start, digest)) if digest.len() == 64 && line.trim_start_matches([' ', '-']).starts_with("image:") => {
            start.to_owned()
        }
        _ => line.to_owned(),
    };
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines().map(without_digest).collect::<Vec<_>>().join("\n")
    };
    tree(folder).into_iter().filter(|(path, _)| is_manifest(path)).map(|(path, bytes)| (path, text(bytes))).collect()
}

/// Lines in which the objects of two conversions differ.
fn differences(one: &Path, other: &Path) -> Vec<String> {
    let (one, other) = (objects(one), objects(other));
    let names: BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let [first, second] = [&one, &other].map(|all| all.get(name).map(String::as_str).unwrap_or_default());
        if first != second {
            let pairs = first.lines().zip(second.lines()).find(|(first, second)| first != second);
            found.push(format!("{}: {pairs:?}", name.display()));
        }
    }
    found
}

/// The secrets of a conversion as options of another one; their payloads are written next to it.
fn secrets_of(folder: &Path) -> Vec<String> {
    let Ok(text) = fs::read_to_string(folder.join("secrets.yaml")) else { return Vec::new() };
    let mut options = Vec::new();
    for document in text.split("---\n") {
        let secret: Value = serde_yaml::from_str(document).expect("YAML");
        let name = secret["metadata"]["name"].as_str().expect("a name");
        let payloads = secret["data"].as_object().expect("data");
        let (key, payload) = payloads.iter().next().expect("a payload");
        let payload = payload.as_str().expect("text");
        let path = folder.with_extension(format!("{name}.payload"));
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload).expect("base64");
        fs::write(&path, bytes).expect("written");
        options.extend(["--secret".to_owned(), format!("{key}={}", path.display())]);
    }
    options
}

#[test]
fn the_files_of_a_stack_and_its_json_give_the_same_objects() {
    let directory = directory();
    for name in ["shop", "agents", "nightly"] {
        let [from_file, from_json] = ["file", "json"].map(|kind| directory.path().join(format!("{name}-{kind}")));
        let [file, json] =
            ["stack.yml", "swarm.json"].map(|file| data(&format!("live/{name}/{file}")).display().to_string());
        // A config of another stack is in the JSON, and not in the files.
        let shared = directory.path().join("shared.conf");
        fs::write(&shared, "shared = 1\n").expect("written");
        let config = format!("shared={}", shared.display());
        let more: &[&str] = if name == "agents" { &["--config", &config] } else { &[] };
        converted(&[&[file.as_str(), "--stack", name], more].concat(), &from_file);
        // No swarm gives a secret away.
        let secrets = secrets_of(&from_file);
        let given: Vec<&str> = secrets.iter().map(String::as_str).collect();
        converted(&[&[&json, "--stack", name], &given[..]].concat(), &from_json);
        assert_eq!(differences(&from_file, &from_json), [""; 0], "{name}");
        assert!(objects(&from_file).len() > 3, "{name}");
    }
    let [from_file, from_json] = ["file", "json"].map(|kind| directory.path().join(format!("fleet-{kind}")));
    let config = format!("company_rules={}", directory.path().join("shared.conf").display());
    fleet(&["--config", &config], &from_file);
    let (json, secrets) = (data("mcp-fleet/swarm.json").display().to_string(), secrets_of(&from_file));
    let given: Vec<&str> = secrets.iter().map(String::as_str).collect();
    converted(&[&[json.as_str()], &given[..]].concat(), &from_json);
    assert_eq!(differences(&from_file, &from_json), [""; 0], "fleet");
    assert!(objects(&from_file).len() > 30);
}

#[test]
fn no_value_of_a_secret_is_anywhere_but_in_its_secret() {
    let directory = directory();
    let folder = directory.path().join("out");
    fleet(&[], &folder);
    let mut secrets = 0;
    for (path, bytes) in tree(&folder) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The payloads of the fleet's secrets are `placeholder-payload-of-NAME`.
        let is_secret = path.file_name().is_some_and(|name| name == "secrets.yaml");
        assert!(!text.contains("placeholder-payload-of"), "{}", path.display());
        if is_secret {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.join(&path)).expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
            secrets += text.matches("kind: Secret").count();
        }
    }
    assert!(secrets > 0);
}

#[test]
fn strict_fails_unless_every_setting_was_converted() {
    let directory = directory();
    let plain = directory.path().join("plain.yml");
    fs::write(&plain, "services:\n  web:\n    image: r/web:1\n    read_only: true\n").expect("written");
    let found = convert(&[&plain.display().to_string(), "--strict"], &directory.path().join("plain"));
    assert!(found.status.success(), "{}{}", stdout(&found), stderr(&found));
    let ignored = directory.path().join("ignored.yml");
    fs::write(&ignored, "services:\n  web:\n    image: r/web:1\n    privileged: true\n").expect("written");
    let found =
        convert(&[&ignored.display().to_string(), "--strict", "--dialect", "stack"], &directory.path().join("ignored"));
    assert_eq!(found.status.code(), Some(1), "{}", stdout(&found));
    assert!(
        stdout(&found).contains("ignored.yml:4") && stderr(&found).contains("report.md"),
        "{}{}",
        stdout(&found),
        stderr(&found)
    );
    assert!(directory.path().join("ignored/report.json").exists(), "what was converted is there");
}

#[test]
fn mistakes_name_their_place_and_nothing_is_written() {
    let directory = directory();
    let file = directory.path().join("stack.yml");
    let output = directory.path().join("out");
    for (text, parts) in [
        ("services:\n  web:\n    image: a\n    replicas: 3\n", &["stack.yml:4:5", "deploy"][..]),
        ("services:\n  web:\n    imagee: a\n", &["stack.yml:3:5", "image"]),
        ("services:\n  web:\n    image: a\n    image: b\n", &["stack.yml:4:5", "line 3"]),
        ("services:\n  web: {image: a, ports: [\"70000:80\"]}\n", &["stack.yml:2"]),
        ("services:\n  web: {image: a, volumes: [\"data:/d\"]}\nvolumes: {date: }\n", &["stack.yml:2", "data"]),
        ("services: [\n", &["stack.yml:", "not YAML"]),
        ("", &["stack.yml"]),
    ] {
        fs::write(&file, text).expect("written");
        let found = convert(&[&file.display().to_string(), "--dialect", "stack"], &output);
        assert_eq!(found.status.code(), Some(2), "{text}: {}", stderr(&found));
        assert!(parts.iter().all(|part| stderr(&found).contains(part)), "{text}: {}", stderr(&found));
        assert!(!output.exists(), "{text}");
    }
    fs::write(&file, "services: {web: {image: a}}\n").expect("written");
    fs::create_dir(&output).expect("a folder");
    fs::write(output.join("mine.txt"), "x").expect("written");
    let found = convert(&[&file.display().to_string()], &output);
    assert_eq!(found.status.code(), Some(2));
    assert!(stderr(&found).contains("mine.txt"), "{}", stderr(&found));
    let found = convert(
        &[&file.display().to_string(), "--secret", &format!("none={}", file.display())],
        &directory.path().join("other"),
    );
    assert_eq!(found.status.code(), Some(2), "{}", stderr(&found));
}

#[test]
fn the_manual_has_the_table_of_keys() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/swarm.md");
    let manual = fs::read_to_string(&path).expect("the manual");
    let (before, after) = manual.split_once("<!-- keys -->\n").expect("the mark of the table");
    let found = cairn().args(["migrate", "keys", "--markdown"]).output().expect("the binary runs");
    assert!(found.status.success(), "{}", stderr(&found));
    let table = format!("\n{}", stdout(&found));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, format!("{before}<!-- keys -->\n{table}")).expect("written");
    } else {
        assert!(
            after == table,
            "docs/swarm.md lacks the table of `cairn migrate keys --markdown`; UPDATE_EXPECT=1 writes it"
        );
    }
}
