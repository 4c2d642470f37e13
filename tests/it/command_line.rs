//! What holds for every verb, also for one that is written tomorrow: the list is the program's own.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use cairn::cli::Cli;
use clap::CommandFactory as _;
use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, cairn, run_on, stderr, stdout};

/// Every verb, with the verbs above it: `["snapshot", "restore"]`.
pub fn verbs() -> Vec<Vec<String>> {
    fn leaves(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        let mut verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help").peekable();
        if verbs.peek().is_none() {
            found.push(path.to_owned());
        }
        for verb in verbs {
            leaves(verb, &[path, &[verb.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    leaves(&Cli::command(), &[], &mut found);
    found
}

/// Arguments with which a verb has much to do and does no harm; for those that are not named, none.
fn harmless(verb: &[String], scratch: &Path) -> Vec<String> {
    let path = |name: &str| scratch.join(name).display().to_string();
    let arguments: &[&str] = match verb.join(" ").as_str() {
        "serve" => &["--print-config"],
        "add" => &[&path("notes"), "-c", "notes", "-v"],
        "search" => &["number"],
        "get" => &["notes/0001"],
        "ls" => &["notes"],
        "rm" => &["notes/0002", "notes/0003"],
        "collection create" => &["other"],
        "collection describe" => &["notes"],
        "collection delete" => &["other", "--yes"],
        "eval" => &[&path("nothing")],
        "bench" => &["--seconds", "1", "--clients", "1"],
        "gpu bench" => &["--rows", "1000"],
        "gpu selftest" => &["--cases", "1"],
        "gpu extract" => &[&path("helper")],
        "snapshot export" => &[&path("out.cairn-snapshot")],
        "snapshot import" => &[&path("nothing.cairn-snapshot")],
        "snapshot keygen" => &[&path("snapshot.key")],
        "token create" => &["visitor"],
        "token revoke" => &["visitor"],
        "token file" => &[&path("token")],
        "image build" => &["-o", "-"],
        "bundle keygen" => &["-o", &path("site.key")],
        "bundle create" => &["-o", &path("site.bundle"), "--key", &path("site.key")],
        "bundle verify" | "bundle list" => &[&path("site.bundle"), "--public-key", &path("site.pub")],
        "migrate swarm" => &[&path("stack.yml"), "-o", &path("k3s")],
        "migrate data plan" => &[&path("k3s")],
        "migrate data copy" | "migrate data verify" => &[&path("nothing"), &path("copy")],
        "migrate apply" | "migrate status" | "migrate rollback" => &[&path("k3s")],
        "install" => &["--dry-run", "--root", &path("root")],
        "completions" => &["bash"],
        _ => &[],
    };
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

/// A stream whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A node with much to list.
fn node() -> TestNode {
    let node = TestNode::start();
    let documents: Vec<Value> =
        (0..900).map(|n| json!({"id": format!("{n:04}"), "text": format!("number {n}")})).collect();
    node.add("notes", json!(documents));
    std::fs::create_dir(node.scratch().join("notes")).expect("created");
    for number in 0..40 {
        let text = if number % 2 == 0 { format!("Note {number}.") } else { String::new() };
        std::fs::write(node.scratch().join(format!("notes/{number}.md")), text).expect("written");
    }
    node
}

#[test]
fn a_stream_that_nobody_reads_is_no_reason_to_panic() {
    let node = node();
    let mut seen = Vec::new();
    for verb in verbs() {
        let run = |arguments: &[String], without: &str| {
            let mut command = cairn();
            command.args(&verb).args(arguments).env("CAIRN_DATA_DIR", node.data_dir()).stdin(Stdio::null());
            command.stdout(if without.contains("out") { closed() } else { Stdio::null() });
            command.stderr(if without.contains("err") { closed() } else { Stdio::null() });
            let code = command.status().expect("the binary runs").code();
            assert!(matches!(code, Some(0..=3)), "{verb:?} {arguments:?} without {without}: {code:?}");
        };
        for without in ["out", "err", "out and err"] {
            run(&harmless(&verb, node.scratch()), without);
            run(&["--json".to_owned(), "--no-such-flag".to_owned()], without);
            run(&["--help".to_owned()], without);
        }
        seen.push(verb.join(" "));
    }
    assert!(seen.len() > 35 && seen.contains(&"snapshot restore".to_owned()), "{seen:?}");
}

#[test]
fn what_was_done_does_not_depend_on_who_reads_of_it() {
    let node = node();
    let mut command = cairn();
    let status = command
        .args(["add", "-c", "notes", "-v", "--data-dir"])
        .arg(node.data_dir())
        .args([node.scratch().join("notes"), node.scratch().join("notes/nothing.md")])
        .stdin(Stdio::null())
        .stdout(closed())
        .stderr(closed())
        .status();
    assert_eq!(status.expect("the binary runs").code(), Some(1), "a path that does not exist");
    let full = std::fs::File::options().write(true).open("/dev/full").expect("opened");
    let output = cairn().args(["completions", "bash"]).stdout(full).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &["standard output", "No space left"]);
}

/// Arguments with which a verb fails.
fn failing(verb: &[String], scratch: &Path) -> Vec<String> {
    match verb.join(" ").as_str() {
        "serve" => vec!["--config".to_owned(), scratch.join("nothing.toml").display().to_string()],
        "add" => vec![scratch.join("nothing").display().to_string()],
        "image build" => vec!["-o".to_owned(), scratch.join("nothing/image.tar").display().to_string()],
        "snapshot keygen" | "bundle keygen" | "gpu extract" => {
            let place = scratch.join("nothing/key").display().to_string();
            if verb[0] == "bundle" { vec!["-o".to_owned(), place] } else { vec![place] }
        }
        "collection create" => vec!["Bad Name".to_owned()],
        "man" => vec!["/dev/null/pages".to_owned()],
        _ => harmless(verb, scratch),
    }
}

#[test]
fn with_json_every_failure_is_json() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let data_dir = directory.path().join("nowhere");
    let mut failed = 0;
    for verb in verbs() {
        let words: Vec<&str> = verb.iter().map(String::as_str).collect();
        let misused = run_on(&data_dir, &[&["--json"], &words[..], &["--no-such-flag"]].concat());
        assert_eq!(misused.status.code(), Some(2), "{verb:?}");
        let said: Value = serde_json::from_slice(&misused.stdout).unwrap_or_else(|_| panic!("{verb:?}: {misused:?}"));
        assert_eq!((&said["error"]["code"], &said["error"]["fault"]), (&json!("usage"), &json!("caller")));
        assert_says(said["error"]["message"].as_str().expect("words"), &["--no-such-flag"]);

        let arguments = failing(&verb, directory.path());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run_on(&data_dir, &[&["--json"], &words[..], &arguments[..]].concat());
        let code = output.status.code();
        if code == Some(0) {
            continue;
        }
        failed += 1;
        let said: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{verb:?} is one value: {output:?}"));
        // A verb that had an answer gave it, and says the rest on standard error.
        let error = &said["error"];
        if error.is_null() {
            assert!(said.as_object().is_some_and(|fields| !fields.is_empty()), "{verb:?}: {said}");
        } else {
            assert!(error["code"].is_string() && error["fault"].is_string(), "{verb:?}: {said}");
            let message = error["message"].as_str().unwrap_or_else(|| panic!("{verb:?}: {said}"));
            assert_says(&stderr(&output), &[message]);
        }
    }
    assert!(failed > 25, "{failed} verbs failed");
    let by_variable = cairn().args(["search"]).env("CAIRN_JSON", "true").output().expect("the binary runs");
    assert_says(&stdout(&by_variable), &["\"usage\"", "QUERY"]);
}

/// An option that a verb does not use is refused, never left out in silence; what help lists is taken.
#[test]
fn what_help_does_not_list_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut refused = 0;
    for verb in verbs() {
        let help = stdout(&cairn().args(&verb).arg("--help").output().expect("the binary runs"));
        for option in ["--data-dir", "--config", "--url", "--token", "--token-file", "--ca", "--resolve"] {
            if help.contains(&format!("      {option} <")) {
                continue;
            }
            for is_first in [false, true] {
                let given = [option, "127.0.0.1"];
                let (before, behind): (&[&str], &[&str]) = if is_first { (&given, &[]) } else { (&[], &given) };
                let mut command = cairn();
                command.args(before).args(&verb).args(harmless(&verb, directory.path())).args(behind);
                let output = command.stdin(Stdio::null()).output().expect("the binary runs");
                assert_eq!(output.status.code(), Some(2), "{verb:?} {option}: {}", stderr(&output));
                assert_says(&stderr(&output), &[&verb.join(" "), "does not use", option]);
                refused += 1;
            }
        }
    }
    assert!(refused > 150, "{refused}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 0, "nothing was done");
    // A variable is for the verbs that take it.
    let pages = cairn().arg("man").env("CAIRN_URL", "http://127.0.0.1:1").output().expect("the binary runs");
    assert!(pages.status.success(), "{}", stderr(&pages));
    let installed = cairn().args(["install", "--yes", "--data-dir", "/srv", "--root"]).arg(directory.path()).output();
    assert_says(&stderr(&installed.expect("the binary runs")), &["/var/lib/cairn"]);
}

#[test]
fn the_manual_lists_every_verb() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command-line.md");
    let manual = std::fs::read_to_string(manual).expect("the manual");
    for verb in verbs() {
        assert!(manual.contains(&format!("\n| `{}` |", verb[0])), "{verb:?}");
    }
}

#[test]
fn a_tools_error_keeps_its_code() {
    let node = TestNode::start();
    let output = node.cairn(&["get", "notes/none", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &said["error"]["code"]), (Some(1), &json!("not_found")));
    assert_eq!(said["error"]["fault"], "caller");
}

/// Lines of prose are wrapped where the terminal ends, not before: wrapped twice they are ragged.
#[test]
fn help_is_wrapped_once() {
    fn look(command: &clap::Command) {
        let texts = [command.get_after_help(), command.get_after_long_help()];
        for text in texts.into_iter().flatten().map(ToString::to_string) {
            let lines: Vec<&str> = text.lines().collect();
            for (line, next) in lines.iter().zip(&lines[1.min(lines.len())..]) {
                let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
                assert!(!(is_prose(line) && is_prose(next)), "{}: {line}\n{next}", command.get_name());
            }
            // What stands beside an example is in one column.
            let mut columns = std::collections::BTreeSet::new();
            for line in lines.iter().filter(|line| line.starts_with("  cairn ")) {
                if let Some(at) = line.trim_start().find("   ") {
                    let rest = &line.trim_start()[at..];
                    columns.insert(line.len() - rest.trim_start().len());
                }
            }
            assert!(columns.len() <= 1, "{}: {columns:?}\n{text}", command.get_name());
        }
        command.get_subcommands().for_each(look);
    }
    look(&Cli::command());
    let help = Command::new("sh")
        .args(["-c", "exec \"$0\" snapshot restore --help", crate::node::CAIRN])
        .env("COLUMNS", "80")
        .output()
        .expect("sh runs");
    assert!(help.status.success());
}

/// A literal that was broken over two lines without a `\` at its end says the indentation of the second one too.
#[test]
fn what_is_said_has_no_holes() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut holes = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|kind| kind != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("readable");
            for (number, line) in text.lines().enumerate().filter(|(_, line)| has_hole(line)) {
                holes.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(holes.is_empty(), "{}", holes.join("\n"));
    assert!(has_hole(r#"    "end of the          sentence","#) && !has_hole("  sudo cairn install        do it"));
}

/// Whether a line of code has many blanks within a text, other than beside an example.
fn has_hole(line: &str) -> bool {
    const BLANKS: &str = "      ";
    let line = line.trim();
    let is_example = ["cairn ", "sudo cairn ", "//"].iter().any(|start| line.starts_with(start));
    let Some(at) = line.find(BLANKS).filter(|_| !is_example) else { return false };
    let is_word = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase());
    // What is indented in what is said begins a line there.
    !line[..at].ends_with("\\n")
        && is_word(line[..at].chars().next_back())
        && is_word(line[at..].trim_start().chars().next())
}
