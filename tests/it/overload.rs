//! More than a node can answer: who is refused, and who is not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::node::{Answer, TestNode, list};
use crate::tls::{OPEN, status, wait_until};

/// Requests that the node takes at once.
const ROOM: &str = "64";
/// Clients that call all the time: more than half of the room, and fewer than the room, so that nothing but the turns of
/// readers refuses anybody.
const CLIENTS: usize = 48;
/// Documents of the collection that is listed; a list in the order of their times looks at all of them.
const DOCUMENTS: usize = 4_000;
/// Searches of somebody else meanwhile.
const SEARCHES: usize = 60;

/// Ends the flood, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn call(node: &TestNode, token: &str, tool: &str, arguments: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("authorization", &format!("Bearer {token}"))];
    let url = format!("{}/v1/tools/{tool}", node.base());
    node.request("POST", &url, &headers, Some(arguments.to_string().as_bytes()))
}

fn add(node: &TestNode, token: &str, collection: &str, documents: Vec<Value>) {
    let arguments = json!({"collection": collection, "documents": documents});
    assert_eq!(call(node, token, "add_documents", &arguments).status, 200);
}

#[test]
fn whoever_floods_a_node_is_refused_and_others_are_not() {
    let settings = [("CAIRN_SERVER_IN_FLIGHT_MAX", ROOM), ("CAIRN_SERVER_TLS", "off")];
    let node = TestNode::with_arguments(&OPEN, &settings);
    let flooder = node.token.clone().expect("shown at the first start");
    let other = node.cairn_json(&["token", "create", "other", "--json"])["token"].as_str().expect("shown").to_owned();
    wait_until("the new token", || status(&node, &other) == 200);
    let document = |number: usize| json!({"id": format!("d{number}"), "text": format!("Pump {number} hums.")});
    for first in (0..DOCUMENTS).step_by(1_000) {
        add(&node, &flooder, "pumps", (first..first + 1_000).map(document).collect());
    }
    let words = json!({"id": "valve", "text": "The valve of the third boiler sticks."});
    add(&node, &flooder, "notes", vec![words]);

    let (is_over, answered, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let flood = json!({"collection": "pumps", "order": "updated", "limit": 1_000});
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = call(&node, &flooder, "list_documents", &flood);
                    match answer.status {
                        200 => answered.fetch_add(1, Ordering::Relaxed),
                        503 => {
                            assert_eq!(answer.header("retry-after"), "1");
                            assert_eq!(answer.json()["code"], "overloaded");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        status => panic!("{status}: {}", answer.text),
                    };
                }
            });
        }
        for number in 0..SEARCHES {
            let question = json!({"query": format!("valve {number}"), "collections": ["notes"]});
            let found = call(&node, &other, "search", &question);
            assert_eq!(found.status, 200, "search {number}: {}", found.text);
            assert_eq!(list(&found.json()["results"]).len(), 1, "{}", found.text);
        }
    });
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    let headers = [("authorization", &*format!("Bearer {other}"))];
    let metrics = node.request("GET", &format!("{}/metrics", node.admin), &headers, None);
    let shed = metrics.text.lines().find_map(|line| line.strip_prefix("cairn_requests_shed_total "));
    assert_eq!(shed, Some(refused.to_string().as_str()), "each refusal is counted");
    assert_eq!(
        call(&node, &flooder, "search", &json!({"query": "valve"})).status,
        200,
        "the flood leaves nothing behind"
    );
}
