//! Who comes in: tokens that are made, end, and are taken back while the node runs.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, cairn, stderr, stdout};
use crate::tls::{OPEN, open_node, status, text, wait_until};

#[test]
fn tokens_are_made_and_taken_back_while_the_node_runs() {
    let mut node = open_node();
    let first = node.token.clone().expect("shown at the first start");
    let made = node.cairn_json(&["token", "create", "laptop", "--expires", "90d", "--json"]);
    let laptop = made["token"].as_str().expect("shown this once").to_owned();
    assert_eq!((&made["name"], &made["expired"]), (&json!("laptop"), &json!(false)));
    wait_until("the new token", || status(&node, &laptop) == 200);
    let listed = node.cairn_json(&["token", "list", "--json"]);
    let names: Vec<&str> =
        listed["tokens"].as_array().expect("a list").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["node", "laptop"]);
    assert!(!listed.to_string().contains("cairn_"), "no secret: {listed}");
    assert_says(&stdout(&node.cairn(&["token", "list"])), &["NAME", "laptop", "never"]);

    assert_eq!(node.cairn_json(&["token", "revoke", "laptop", "--json"])["status"], "revoked");
    wait_until("the refusal", || status(&node, &laptop) == 401);
    assert_eq!(status(&node, &first), 200, "the others go on");

    let visitor = node.cairn(&["token", "create", "visitor", "--expires", "1h"]);
    let visitor = stdout(&visitor).trim().to_owned();
    wait_until("the visitor", || status(&node, &visitor) == 200);
    // An hour later.
    let path = node.data_dir().join("token.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    file["tokens"][1]["expires"] = "2026-01-01T00:00:00Z".into();
    fs::write(&path, file.to_string()).expect("written");
    wait_until("the end", || status(&node, &visitor) == 401);
    let url = format!("{}/v1/tools/get_status", node.base());
    let refused = node.request("POST", &url, &[("authorization", &format!("Bearer {visitor}"))], Some(b"{}"));
    assert_says(&refused.text, &["expired"]);
    assert_says(&stdout(&node.cairn(&["token", "list"])), &["(over)"]);

    for (arguments, code, words) in [
        (&["token", "create", "node"][..], 1, "already"),
        (&["token", "create", "two words"], 2, "letters"),
        (&["token", "create", "x", "--expires", "0d"], 2, "--expires"),
        (&["token", "revoke", "laptop"], 1, "laptop"),
    ] {
        let output = node.cairn(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert_says(&stderr(&output), &[words]);
    }
    node.cairn_json(&["token", "create", "phone", "--json"]);
    node.stop();
    node.restart_with(&[&OPEN[..], &["--new-token"]].concat());
    assert_eq!(status(&node, &first), 401);
    let listed = node.cairn_json(&["token", "list", "--json"]).to_string();
    assert_says(&listed, &["node", "phone"]);
    let help = stdout(&node.cairn(&["token", "create", "--help"]));
    assert_says(&help, &["Examples:", "--expires"]);
}

#[test]
fn the_token_of_an_older_node_goes_on() {
    let node = open_node();
    let token = node.token.clone().expect("shown at the first start");
    let path = node.data_dir().join("token.json");
    let file: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    let entry = &file["tokens"][0];
    let older = json!({"blake3": entry["blake3"], "created": entry["created"]});
    fs::write(&path, older.to_string()).expect("written");
    let laptop = node.cairn_json(&["token", "create", "laptop", "--json"])["token"].as_str().expect("shown").to_owned();
    wait_until("both", || status(&node, &laptop) == 200 && status(&node, &token) == 200);
}

#[test]
fn a_token_out_of_a_file_is_taken_and_follows_the_file() {
    let mounted = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| mounted.path().join(name);
    let version = |name: &str, token: &str| {
        fs::create_dir(at(name)).expect("created");
        fs::write(at(name).join("token"), format!("{token}\n")).expect("written");
    };
    version("..1", "first-secret-of-the-cluster");
    symlink("..1", at("..data")).expect("linked");
    symlink("..data/token", at("token")).expect("linked");
    let node = TestNode::with_arguments(&OPEN, &[("CAIRN_SERVER_TOKEN_FILE", text(&at("token")))]);
    assert!(node.token.is_none(), "whoever gave one needs no other");
    assert_eq!(status(&node, "first-secret-of-the-cluster"), 200);
    version("..2", "another-one-of-the-cluster!");
    symlink("..2", at("..new")).expect("linked");
    fs::rename(at("..new"), at("..data")).expect("swapped");
    wait_until("the new token", || status(&node, "another-one-of-the-cluster!") == 200);
    assert_eq!(status(&node, "first-secret-of-the-cluster"), 401);
    assert!(!node.log().contains("of-the-cluster"), "{}", node.log());
}

#[test]
fn the_first_token_is_not_left_in_a_file() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = directory.path().join("output");
    let said = || fs::read_to_string(&output).unwrap_or_default();
    let begin = |more: &[&str]| {
        let file = fs::File::create(&output).expect("created");
        let mut command = cairn();
        command.arg("serve").args(OPEN).args(more).arg("--data-dir").arg(directory.path().join("data"));
        let mut process = command.stdout(file).stderr(std::process::Stdio::null()).spawn().expect("the binary runs");
        wait_until("the line about the token", || said().contains("The node's token"));
        process.kill().expect("it can be ended");
        process.wait().expect("it can be waited for");
    };
    begin(&[]);
    assert!(!said().contains("cairn_"), "{}", said());
    assert_says(&said(), &["not shown in a file", "cairn token create"]);
    // Whoever asks for a new one means to see it.
    begin(&["--new-token"]);
    assert!(said().contains("cairn_"), "{}", said());
}
