//! The command line: help, completions, manual pages, exit codes, JSON, and errors that name the next step.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::node::{CAIRN, TestNode, assert_says, cairn, hits, json_of, list, run_on, stderr, stdout, texts};

const VERBS: [&str; 22] = [
    "serve",
    "mcp",
    "add",
    "search",
    "get",
    "ls",
    "rm",
    "collection",
    "eval",
    "bench",
    "snapshot",
    "doctor",
    "token",
    "k3s",
    "status",
    "image",
    "bundle",
    "install",
    "rollback",
    "uninstall",
    "completions",
    "man",
];

fn run(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("temporary directory");
    run_on(&directory.path().join("data"), arguments)
}

#[test]
fn every_verb_explains_itself() {
    let help = stdout(&run(&["--help"]));
    for verb in VERBS {
        assert_says(&help, &[verb]);
        let output = run(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert_says(&stdout(&output), &["Usage: cairn", verb, "--json"]);
    }
    assert_says(&stdout(&run(&["--version"])), &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn completions_are_scripts_that_their_shell_accepts() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        assert_says(&stdout(&output), &["cairn", "collection", "search"]);
        assert!(!stdout(&output).contains("add-waiting"), "{shell}");
        // What a verb refuses is not offered for it.
        let count = |word: &str| stdout(&output).lines().filter(|line| line.contains(word)).count();
        let (refused, taken) = match shell {
            "bash" => ("--new-token --print-config --url", "--new-token --print-config --data-dir"),
            "zsh" => ("'--url=[]", "'--url=[Use"),
            _ => ("subcommand serve\" -l url", "subcommand search\" -l url"),
        };
        assert!(count(refused) == 0 && count(taken) > 0, "{shell}: {}", stdout(&output));
    }
    let near = run(&["add-waitin"]);
    assert!(!stderr(&near).contains("'add-waiting'"), "{}", stderr(&near));
    let directory = tempfile::tempdir().expect("temporary directory");
    let script = directory.path().join("cairn.bash");
    fs::write(&script, run(&["completions", "bash"]).stdout).expect("written");
    assert!(Command::new("bash").arg("-n").arg(script).status().expect("bash runs").success());
}

#[test]
fn completions_know_the_collections_that_there_are() {
    let node = TestNode::start();
    node.add("manuals", json!([{"id": "a", "text": "alpha"}]));
    node.add("papers", json!([{"id": "b", "text": "beta"}]));
    let directory = tempfile::tempdir().expect("temporary directory");
    let script = directory.path().join("cairn.bash");
    fs::write(&script, run(&["completions", "bash"]).stdout).expect("written");
    let complete = |data_dir: &std::path::Path, words: &[&str]| {
        let program = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                       _cairn cairn \"${COMP_WORDS[$COMP_CWORD]}\" \"${COMP_WORDS[$((COMP_CWORD - 1))]}\"; \
                       printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        bash.args(["-c", program, "bash"]).arg(&script).args(words).env("CAIRN_DATA_DIR", data_dir);
        let place = std::path::Path::new(CAIRN).parent().expect("a folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([place.to_owned()].into_iter().chain(std::env::split_paths(&path)));
        stdout(&bash.env("PATH", path.expect("folders")).output().expect("bash runs"))
    };
    for words in [&["cairn", "search", "-c", ""][..], &["cairn", "ls", ""], &["cairn", "collection", "describe", ""]] {
        let found = complete(&node.data_dir(), words);
        assert!(found.lines().any(|line| line == "manuals") && found.lines().any(|line| line == "papers"), "{found}");
    }
    assert_eq!(complete(&node.data_dir(), &["cairn", "add", "-c", "ma"]), "manuals\n");
    assert_eq!(complete(&node.data_dir(), &["cairn", "search", "--mode", "le"]), "lexical\n");
    assert_says(&complete(&node.data_dir(), &["cairn", "k3s", "render", "--with", ""]), &["gpu", "ingress"]);
    let nowhere = directory.path().join("nowhere");
    assert_eq!(complete(&nowhere, &["cairn", "search", "-c", ""]), "\n");
    assert!(!nowhere.exists());
}

#[test]
fn the_right_scheme_and_port_are_named() {
    let node = TestNode::start();
    let status = |url: &str| {
        let output = run(&["status", "--url", url]);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        stderr(&output)
    };
    assert_says(&status(&node.admin), &["admin address", "/metrics"]);
    assert_says(&status(&node.base().replace("http://", "https://")), &["plain HTTP", "use http://"]);
    let tls = TestNode::with(&[("CAIRN_SERVER_TLS", "on")]);
    assert_says(&status(&tls.base().replace("https://", "http://")), &["TLS", "use https://"]);
}

#[test]
fn every_verb_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let pages = directory.path().join("man");
    assert!(run(&["man", pages.to_str().expect("UTF-8")]).status.success());
    for verb in VERBS {
        let page = fs::read_to_string(pages.join(format!("cairn-{verb}.1"))).expect("a page");
        assert_says(&page, &[".TH", "SYNOPSIS"]);
        let title = page.lines().find(|line| line.starts_with(".TH")).expect("a title");
        assert!(title.contains("20") && title.matches('-').count() >= 2, "dated: {title}");
    }
    assert!(pages.join("cairn-snapshot-restore.1").exists(), "verbs of verbs too");
    assert_says(&stdout(&run(&["man"])), &[".TH", "SYNOPSIS"]);
}

#[test]
fn wrong_usage_is_code_2_and_says_what_is_right() {
    for (arguments, words) in [
        (&["serch", "x"][..], &["serch", "search"][..]),
        (&["search"], &["<QUERY>"]),
        (&["add"], &["<PATH>"]),
        (&["search", "x", "--filter", "{"], &["--filter", "JSON"]),
        (&["add", ".", "--meta", "novalue"], &["novalue", "KEY=VALUE"]),
        (&["rm"], &["<ID>"]),
        (&["rm", "--filter", "{}"], &["--collection"]),
        (&["serve", "--listen", "here"], &["here", "ADDRESS:PORT"]),
        (&["serve", "--listen", "8080"], &["127.0.0.1:8080", "0.0.0.0:8080"]),
        (&["serve", "--admin", "localhost:9000"], &["127.0.0.1:9000"]),
        (&["install", "--root", "/nonexistent", "--listen", "7171"], &["127.0.0.1:7171"]),
        (&["search", "x", "--mode", "psychic"], &["psychic", "hybrid"]),
        (&["token", "create", "x", "--expires", "wait_until"], &["wait_until", "90d"]),
        (&["snapshot", "restore", "--to-time", "yesterday"], &["yesterday", "2026-07-28T09:30:00Z"]),
        (&["add", ".", "--wait", "long"], &["long", "5m"]),
        (&["add", "https://example.org/a.pdf"], &["addresses are not fetched", "https://example.org/a.pdf"]),
        (&["status", "--url", "127.0.0.1:7171"], &["http://127.0.0.1:7171"]),
        (&["status", "--url", "ftp://127.0.0.1"], &["ftp://127.0.0.1", "http://"]),
        (&["status", "--url", "http://"], &["http://127.0.0.1:7171"]),
        (&["status", "--config", "/nonexistent.toml"], &["/nonexistent.toml"]),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert_says(&stderr(&output), words);
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn failures_are_code_1_and_say_what_to_do() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    for (arguments, words) in [
        (&["get", "notes/b"][..], &["notes/b"][..]),
        (&["search", "x", "-c", "nowhere"], &["nowhere", "notes"]),
        (&["ls", "nowhere"], &["nowhere"]),
        (&["add", "/nonexistent"], &["/nonexistent", "No such file"]),
        (&["rm", "notes/b"], &["notes/b"]),
        (&["collection", "create", "notes"], &["notes", "exists"]),
        (&["collection", "describe", "nowhere"], &["nowhere"]),
        (&["eval", "/nonexistent"], &["/nonexistent"]),
    ] {
        let output = node.cairn(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert_says(&stderr(&output), words);
        assert!(stderr(&output).starts_with("cairn: "), "{}", stderr(&output));
    }
}

/// What a node refuses in an argument is wrong with the command line, wherever it is found.
#[test]
fn a_wrong_argument_is_code_2_in_words_of_the_command_line() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    for (arguments, words) in [
        (&["collection", "create", "Bad Name"][..], &["Bad Name", "a-z"][..]),
        (&["search", "x", "-n", "0"], &["'0'", "--limit", "a whole number from 1 to 50"]),
        (&["search", "x", "-n", "51"], &["'51'", "a whole number from 1 to 50"]),
        (&["search", "x", "-n", "abc"], &["'abc'", "a whole number from 1 to 50"]),
        (&["search", "x", "--filter", "{\"a\": {\"near\": 1}}"], &["near", "exists"]),
        (&["rm", "-c", "notes", "--filter", "{\"a\": {\"near\": 1}}", "--yes"], &["near", "exists"]),
        (&["get", "notes/a", "--max-tokens", "5"], &["--max-tokens", "from 100 to 20000"]),
        (&["snapshot", "restore", "--to-lsn", "abc"], &["--to-lsn", "a whole number"]),
        (&["bench", "--seconds", "0"], &["--seconds", "from 1 to 600"]),
        (&["install", "--timeout", "x"], &["--timeout", "from 1 to 86400"]),
        (&["gpu", "selftest", "--cases", "x"], &["--cases", "a whole number"]),
        (&["eval", "x", "--candidates", "x"], &["--candidates", "a whole number"]),
    ] {
        let output = node.cairn(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert_says(&stderr(&output), words);
    }
    let missing = node.cairn(&["get", "nothing"]);
    assert_eq!(missing.status.code(), Some(1));
    assert_says(&stderr(&missing), &["`cairn ls`"]);
    assert!(!stderr(&missing).contains("list_documents"), "{}", stderr(&missing));
}

#[test]
fn a_variable_with_nothing_in_it_is_as_one_that_is_not_set() {
    let node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    let with = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = cairn();
        command.env("CAIRN_DATA_DIR", node.data_dir()).args(arguments).envs(variables.iter().copied());
        command.stdin(Stdio::null()).output().expect("the binary runs")
    };
    let names = ["URL", "COLLECTION", "CONFIG", "TOKEN", "TOKEN_FILE", "CA", "RESOLVE", "JSON", "SEARCH_LIMIT"];
    let names = names.map(|name| format!("CAIRN_{name}"));
    let empty: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    for arguments in [&["ls"][..], &["search", "alpha"], &["status"]] {
        let output = with(&empty, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    }
    assert_says(&stdout(&with(&empty, &["ls"])), &["NAME", "notes"]);
    for (value, is_json) in [("1", true), ("true", true), ("0", false), ("false", false)] {
        let output = with(&[("CAIRN_JSON", value)], &["ls"]);
        assert_eq!(output.stdout.starts_with(b"{"), is_json, "{value}: {}", stderr(&output));
        let misused = with(&[("CAIRN_JSON", value)], &["ls", "--no-such-flag"]);
        assert_eq!(misused.stdout.starts_with(b"{"), is_json, "{value}: {}", stderr(&misused));
    }
    let wrong = with(&[("CAIRN_JSON", "maybe")], &["ls"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_says(&stderr(&wrong), &["maybe", "the variable CAIRN_JSON"]);
    let both = with(&[("CAIRN_JSON", "maybe")], &["ls", "--json=perhaps"]);
    assert!(!stderr(&both).contains("CAIRN_JSON"), "{}", stderr(&both));
}

#[test]
fn another_program_at_the_address_is_not_taken_for_a_node_that_is_gone() {
    for says in ["HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "SSH-2.0-OpenSSH_9.9\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).expect("a request");
            stream.write_all(says.as_bytes()).expect("answered");
        });
        let output = run(&["--url", &url, "ls"]);
        answer.join().expect("answered");
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert_says(&stderr(&output), &[&url, "is not Cairn"]);
        assert!(!stderr(&output).contains("cairn serve"), "{}", stderr(&output));
    }
}

#[test]
fn an_unreachable_node_is_code_3() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
    let url = format!("http://127.0.0.1:{port}");
    for arguments in [&["status"][..], &["search", "x"], &["ls"], &["mcp"]] {
        let output = run(&[&["--url", url.as_str()], arguments].concat());
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert_says(&stderr(&output), &[&url, "cairn serve"]);
    }
    // Another node would not help here.
    let output = run(&["--url", "http://no-such-box.invalid:7171", "status"]);
    assert_eq!(output.status.code(), Some(3));
    assert_says(&stderr(&output), &["no-such-box.invalid", "no machine of that name"]);
}

#[test]
fn deleting_by_filter_asks_first() {
    let node = TestNode::start();
    node.add(
        "notes",
        json!([{"id": "a", "text": "alpha", "metadata": {"k": 1}}, {"id": "b", "text": "beta", "metadata": {"k": 1}}]),
    );
    let filter = ["rm", "-c", "notes", "--filter", "{\"k\": 1}"];
    let asked = node.cairn(&filter);
    assert_eq!(asked.status.code(), Some(2), "nobody is there to answer");
    assert_says(&stderr(&asked), &["2", "notes", "--yes"]);
    let asked = node.cairn(&["collection", "delete", "notes"]);
    assert_eq!(asked.status.code(), Some(2));
    assert_says(&stderr(&asked), &["notes", "2", "--yes"]);
    let dry = node.cairn_json(&[&["--json"], &filter[..], &["--dry-run"]].concat());
    assert_eq!((&dry["matched"], &dry["deleted"]), (&json!(2), &json!(0)));
    let done = node.cairn_json(&[&["--json"], &filter[..], &["--yes"]].concat());
    assert_eq!(done["deleted"], 2);
}

#[test]
fn every_verb_that_answers_has_json() {
    let node = TestNode::start();
    let file = node.scratch().join("heron.md");
    fs::write(&file, "# Heron\n\nIt stands in the reeds.\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let created = node.cairn_json(&["--json", "collection", "create", "birds", "--description", "What flies"]);
    assert_eq!(created["status"], "created");
    assert_eq!(node.cairn_json(&["--json", "add", file, "-c", "birds"])["created"], 1);
    let found = node.cairn_json(&["search", "reeds", "--json"]);
    assert_eq!(hits(&found), ["heron.md"]);
    assert_says(node.cairn_json(&["get", "birds/heron.md", "--json"])["text"].as_str().expect("text"), &["reeds"]);
    assert_eq!(texts(&node.cairn_json(&["ls", "--json"])["collections"], "name"), ["birds"]);
    assert_eq!(texts(&node.cairn_json(&["ls", "birds", "--json"])["documents"], "id"), ["birds/heron.md"]);
    assert_eq!(node.cairn_json(&["collection", "describe", "birds", "--json"])["documents"], 1);
    let status = node.cairn_json(&["status", "--json"]);
    assert_eq!((&status["ready"], &status["documents"]), (&json!(true), &json!(1)));
    assert_eq!(status["address"], node.base());
    assert_eq!(node.cairn_json(&["rm", "birds/heron.md", "--json"])["deleted"], 1);
    assert_eq!(node.cairn_json(&["collection", "delete", "birds", "--yes", "--json"])["status"], "deleted");
    let variable = cairn().args(["status", "--data-dir"]).arg(node.data_dir()).env("CAIRN_JSON", "true").output();
    assert_eq!(json_of(&variable.expect("the binary runs"))["ready"], true);
}

#[test]
fn people_get_tables_and_passages() {
    let node = TestNode::start();
    node.add("birds", json!([{"id": "heron", "title": "Heron", "text": "# Heron\n\n## Food\n\nIt spears fish."}]));
    assert_says(&stdout(&node.cairn(&["ls"])), &["NAME", "DOCUMENTS", "birds"]);
    assert_says(&stdout(&node.cairn(&["ls", "birds"])), &["ID", "TITLE", "birds/heron", "Heron"]);
    assert_says(&stdout(&node.cairn(&["search", "fish"])), &["Heron", "It spears fish.", "birds/heron#"]);
    assert_says(&stdout(&node.cairn(&["get", "birds/heron"])), &["# Heron", "It spears fish."]);
    assert_says(&stdout(&node.cairn(&["status"])), &["running at", node.base(), "ready", "yes", "documents", "1"]);
    let nothing = node.cairn(&["search", "qqqqzzzz", "--mode", "lexical"]);
    assert!(nothing.status.success() && stdout(&nothing).is_empty());
    assert_says(&stderr(&nothing), &["nothing found", "birds"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let node = TestNode::start();
    let documents: Vec<Value> =
        (0..900).map(|n| json!({"id": format!("{n:04}"), "text": format!("number {n}")})).collect();
    node.add("notes", json!(documents));
    let line =
        format!("{CAIRN} ls notes --data-dir '{}' | head -n 2; exit ${{PIPESTATUS[0]}}", node.data_dir().display());
    let output = Command::new("bash").arg("-c").arg(line).stdin(Stdio::null()).output().expect("bash runs");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert_eq!(stdout(&output).lines().count(), 2);
}

#[test]
fn variables_stand_for_flags_and_flags_win() {
    let (first, second) = (TestNode::start(), TestNode::start());
    first.add("here", json!([{"id": "a", "text": "alpha"}]));
    second.add("there", json!([{"id": "b", "text": "beta"}]));
    let names =
        |command: &mut Command| texts(&json_of(&command.output().expect("the binary runs"))["collections"], "name");
    assert_eq!(names(cairn().args(["ls", "--json"]).env("CAIRN_DATA_DIR", first.data_dir())), ["here"]);
    assert_eq!(names(cairn().args(["ls", "--json"]).env("CAIRN_URL", second.base())), ["there"]);
    let both = cairn()
        .args(["ls", "--json", "--data-dir"])
        .arg(second.data_dir())
        .env("CAIRN_DATA_DIR", first.data_dir())
        .output()
        .expect("the binary runs");
    assert_eq!(texts(&json_of(&both)["collections"], "name"), ["there"]);
    let listed = cairn().args(["ls", "--json"]).env("CAIRN_URL", first.base()).env("CAIRN_COLLECTION", "here").output();
    assert_eq!(list(&json_of(&listed.expect("the binary runs"))["documents"]).len(), 1);
}

#[test]
fn a_directory_left_by_a_dead_node_is_opened() {
    let mut node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "alpha"}]));
    node.kill();
    assert!(node.data_dir().join("running.json").exists(), "it had no time to tidy up");
    let status = node.cairn_json(&["status", "--json"]);
    assert_eq!((&status["documents"], &status["address"]), (&json!(1), &Value::Null));
    node.restart();
    node.catch_up();
    assert_eq!(node.cairn_json(&["status", "--json"])["address"], node.base());
}

#[test]
fn bench_asks_the_node_by_its_own_documents_and_writes_nothing() {
    let node = TestNode::start();
    let bench = |arguments: &[&str]| node.cairn(&[&["bench", "--seconds", "1", "--clients", "4"], arguments].concat());
    let refused = bench(&[]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert_says(&stderr(&refused), &["nothing to ask for", "cairn add"]);
    let documents: Vec<Value> = (0..40)
        .map(|number| json!({"id": format!("pump-{number}"), "text": format!("Pump {number} feeds cabinet {number} with cooling water from the northern basin.")}))
        .collect();
    node.call("add_documents", json!({"collection": "site", "documents": documents}));
    let written = node.call("get_status", json!({}))["lsn"].clone();
    let told = json_of(&bench(&["--json"]));
    let rounds = list(&told["rounds"]);
    assert_eq!((rounds.len(), &told["passages"], &told["questions"]), (5, &json!(40), &json!(40)));
    for round in rounds {
        let number = |name: &str| round[name].as_f64().unwrap_or_else(|| panic!("no {name} in {round}"));
        assert!(number("answered_per_second") > 0.0 && number("p50_ms") <= number("p99_ms"), "{round}");
        assert_eq!(round["failed"], 0, "{round}");
    }
    let (most, steady) = (&rounds[2]["answered_per_second"], &rounds[3]["asked_per_second"]);
    assert!((steady.as_f64().expect("a rate") / most.as_f64().expect("a rate") - 0.7).abs() < 0.001);
    assert_eq!(node.call("get_status", json!({}))["lsn"], written);
    let table = stdout(&bench(&["-c", "site"]));
    assert_says(
        &table,
        &["ROUND", "ANSWERS A SECOND", "70 % of that, constantly", "searches a second this node answers 99 of 100"],
    );
}

#[test]
fn a_command_says_nothing_of_indexes_that_mend_themselves() {
    let mut node = TestNode::start();
    node.add("notes", json!([{"id": "a", "text": "The heron stands."}, {"id": "b", "text": "The gull cries."}]));
    node.stop();
    let vectors = node.data_dir().join("views").join("vectors");
    for collection in fs::read_dir(&vectors).expect("read") {
        let path = collection.expect("an entry").path();
        fs::create_dir_all(path.join("manifest.json.new").join("in the way")).expect("created");
    }
    let removed = node.cairn(&["rm", "notes/a"]);
    assert_eq!((removed.status.code(), &*stderr(&removed)), (Some(0), ""));
}
