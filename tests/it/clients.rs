//! Clients that others wrote: the official conformance suites, the Inspector, and the Python and TypeScript SDKs.
//!
//! `make setup` installs them below `target/`. Scenarios that need tools made for the suite are listed, check by check,
//! in `tests/clients/*.yml`; the suite fails when something else fails, and when something listed passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::node::{CAIRN, LEGACY, MODERN, TestNode, clean, list, stderr, stdout};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Something that `make setup` installs.
fn installed(path: &str) -> PathBuf {
    let path = root().join("target").join(path);
    assert!(path.exists(), "{} is missing: run `make setup` first", path.display());
    path
}

/// A program of another language, without this test's own variables.
fn program(path: PathBuf) -> Command {
    let mut command = clean(Command::new(path));
    command.stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

fn node_js() -> Command {
    program(installed("npm/released/node_modules/.bin/node"))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn assert_succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}\n{}\n{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// A node with something in it.
fn stocked() -> TestNode {
    let node = TestNode::start();
    node.add(
        "birds",
        json!([{"id": "heron", "text": "The heron stands in the reeds."}, {"id": "wren", "text": "The wren is loud."}]),
    );
    node
}

/// Runs a conformance suite against a node; `baseline` lists what needs fixtures.
fn conforms(suite: &str, version: &str, baseline: &str, passed_min: usize) {
    let node = stocked();
    let results = node.scratch().join("results");
    let script = installed(suite).join("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    assert_succeeds(
        node_js()
            .arg(script)
            .args(["server", "--suite", "all", "--spec-version", version, "--url", &node.mcp, "--expected-failures"])
            .arg(root().join("tests/clients").join(baseline))
            .arg("--output-dir")
            .arg(&results),
    );
    let passed = passed_checks(&results);
    assert!(passed >= passed_min, "{passed} checks passed, expected {passed_min}: did the suite run at all?");
    node.call("get_status", json!({}));
}

/// Checks that passed, from the files that the suite leaves.
fn passed_checks(results: &Path) -> usize {
    let mut passed = 0;
    for scenario in fs::read_dir(results).expect("results") {
        let file = scenario.expect("readable").path().join("checks.json");
        let checks: Value = serde_json::from_slice(&fs::read(file).expect("checks")).expect("JSON");
        passed += list(&checks).iter().filter(|check| check["status"] == "SUCCESS").count();
    }
    passed
}

#[test]
fn the_released_conformance_suite_passes() {
    conforms("npm/released", LEGACY, "released-2025-11-25.yml", 8);
}

#[test]
fn the_coming_conformance_suite_passes_for_the_older_era() {
    conforms("npm/coming", LEGACY, "coming-2025-11-25.yml", 38);
}

#[test]
fn the_coming_conformance_suite_passes_for_the_era_without_sessions() {
    conforms("npm/coming", MODERN, "coming-2026-07-28.yml", 88);
}

#[test]
fn the_inspector_finds_nothing_to_object_to() {
    let node = stocked();
    let script =
        installed("npm/released").join("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let inspect = |arguments: &[&str]| {
        assert_succeeds(node_js().arg(&script).args(["--cli", &node.mcp, "--transport", "http"]).args(arguments))
    };
    for era in ["modern", "legacy"] {
        let listed: Value =
            serde_json::from_str(&inspect(&["--protocol-era", era, "--method", "tools/list", "--strict"]))
                .expect("JSON");
        assert_eq!(list(&listed["tools"]).len(), 15, "{era}");
        let called = inspect(&[
            "--protocol-era",
            era,
            "--method",
            "tools/call",
            "--tool-name",
            "search",
            "--tool-arg",
            "query=heron",
        ]);
        assert!(called.contains("The heron stands in the reeds."), "{era}: {called}");
    }
}

/// Runs a script that lists and calls every tool; it prints their names as JSON when all went well.
fn calls_every_tool(command: &mut Command) {
    let printed = assert_succeeds(command);
    let called: Value = serde_json::from_str(printed.lines().last().expect("a line")).expect("JSON");
    assert_eq!(list(&called["called"]).len(), 15, "{called}");
}

#[test]
fn the_python_client_calls_every_tool() {
    let node = TestNode::start();
    let python = || program(installed("venv/bin/python"));
    let script = root().join("tests/clients/every_tool.py");
    calls_every_tool(python().arg(&script).arg(&node.mcp));
}

#[test]
fn the_typescript_client_calls_every_tool_over_http() {
    let node = TestNode::start();
    calls_every_tool(node_js().arg(typescript(&node)).arg(&node.mcp));
}

#[test]
fn the_typescript_client_calls_every_tool_over_stdio() {
    let node = TestNode::start();
    calls_every_tool(node_js().arg(typescript(&node)).arg(CAIRN).arg(node.data_dir()));
}

/// The script, beside the packages that it imports: Node.js looks for them from where the script is.
fn typescript(node: &TestNode) -> PathBuf {
    let packages = installed("npm/released/node_modules");
    let place = node.scratch().join("client");
    fs::create_dir(&place).expect("created");
    std::os::unix::fs::symlink(packages, place.join("node_modules")).expect("linked");
    let script = place.join("every_tool.mjs");
    fs::copy(root().join("tests/clients/every_tool.mjs"), &script).expect("copied");
    script
}

#[test]
fn the_node_keeps_to_its_openapi_document() {
    let node = stocked();
    let mut schemathesis = program(installed("venv/bin/st"));
    schemathesis.current_dir(node.scratch()).args(["run", &format!("{}/v1/openapi.json", node.base())]);
    schemathesis.args(["--seed", "1", "--max-examples", "12", "--checks", "all"]);
    // A restore starts the node again. Arguments are read leniently, on purpose, so what violates a schema may be accepted and what
    // keeps to it may be refused (a collection that is not there); a document that is not there keeps its methods.
    schemathesis.args(["--exclude-path-regex", "restore", "--exclude-checks"]);
    schemathesis.arg("ignored_auth,positive_data_acceptance,negative_data_rejection,unsupported_method");
    let report = assert_succeeds(&mut schemathesis);
    let generated = report.lines().find_map(|line| line.trim().split_once(" generated, "));
    let (count, fared) = generated.unwrap_or_else(|| panic!("{report}"));
    assert!(count.parse::<u32>().is_ok_and(|count| count > 500), "{report}");
    assert_eq!(fared, format!("{count} passed"), "{report}");
    node.call("get_status", json!({}));
}
