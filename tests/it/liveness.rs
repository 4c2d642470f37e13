//! `/health` says whether a restart would help: whether the threads that answer requests still do.

use std::time::Duration;

use serde_json::json;

use crate::node::TestNode;
use crate::notify::{Halted, workers};

/// Asks until the answer is this one. A node that never gives it runs into the limit of the test.
fn until(node: &TestNode, status: u16) -> String {
    loop {
        let answer = node.get(&format!("{}/health", node.admin));
        if answer.status == status {
            return answer.text;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn a_node_whose_workers_hang_is_not_alive() {
    let node = TestNode::start();
    assert_eq!(until(&node, 200), "ok\n");
    let halted = Halted::halt(workers(node.pid()));
    let words = until(&node, 503);
    assert!(words.starts_with("no thread has answered a request for"), "{words}");
    drop(halted);
    assert_eq!(until(&node, 200), "ok\n");
    node.call("get_status", json!({}));
}
