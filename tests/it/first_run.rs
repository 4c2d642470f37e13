//! The first command of the README: `make run` ends with a node that answers questions about its own manual.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::node::{CAIRN, assert_says, clean, stderr, stdout};

/// Two addresses that nobody uses: free ones, taken together so that they differ.
fn free_addresses() -> [String; 2] {
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").to_string())
}

#[test]
fn make_run_starts_ingests_and_searches() {
    let [listen, admin] = free_addresses();
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = clean(Command::new("make"))
        .arg("run")
        .arg(format!("LISTEN={listen}"))
        .arg(format!("ADMIN={admin}"))
        .arg(format!("RUN_DATA={}", directory.path().join("data").display()))
        // The binary is built already; a second build inside the test would only wait for locks.
        .arg(format!("CAIRN={CAIRN}"))
        .env("RUN_ONCE", "1")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .output()
        .expect("make runs");
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    assert_says(&text, &[&format!("http://{listen}/mcp"), &admin, "cairn search", "manual/"]);
    // The passages that the search printed come from the manual.
    assert!(text.lines().any(|line| line.trim_start().starts_with("manual/docs/")), "{text}");
    let configurations: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line.trim()).ok()).collect();
    assert_eq!(configurations.len(), 2, "one to paste for HTTP, one for stdio: {text}");
    assert_eq!(configurations[0]["mcpServers"]["cairn"]["url"], format!("http://{listen}/mcp"));
    assert_eq!(configurations[1]["mcpServers"]["cairn"]["args"][0], "mcp");
    let command = configurations[1]["mcpServers"]["cairn"]["command"].as_str().expect("a path");
    assert!(Path::new(command).is_file(), "{command}");
    assert!(TcpListener::bind(&listen).is_ok(), "the node was stopped");
}
