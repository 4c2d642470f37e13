//! What a node may take, and how its caches keep to it.

use serde_json::json;

use crate::node::TestNode;

#[test]
fn caches_share_what_the_node_may_take() {
    // 96 MiB are the node's own; half of the other 32 is for caches, which want 168.
    let node = TestNode::with(&[("CAIRN_MEMORY_MAX_BYTES", "128MiB")]);
    assert_eq!(node.metric("cairn_memory_max_bytes"), 128 << 20);
    let caches = node.metric("cairn_memory_cache_bytes");
    assert!((15 << 20..=16 << 20).contains(&caches), "{caches}");
    let roomy = TestNode::with(&[("CAIRN_MEMORY_MAX_BYTES", "2GiB")]);
    assert_eq!(roomy.metric("cairn_memory_cache_bytes"), 168 << 20);
}

#[test]
fn a_node_without_room_for_caches_answers_all_the_same() {
    let node = TestNode::with(&[("CAIRN_MEMORY_MAX_BYTES", "1MiB")]);
    assert_eq!(node.metric("cairn_memory_cache_bytes"), 0);
    node.add("notes", json!([{"id": "pump", "text": "the pump in the cellar hums"}]));
    for _ in 0..2 {
        assert_eq!(node.found("notes", "cellar pump", "hybrid"), ["pump"]);
    }
    assert_eq!(node.metric("cairn_word_cache_bytes"), 0);
    assert!(node.log().contains("memory.max_bytes"), "{}", node.log());
}
