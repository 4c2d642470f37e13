//! Where the processor's time of an uncached hybrid search goes, stage by stage, on a data directory that a node has filled.
//!
//! `cargo bench --bench stages -- DATA_DIR QUESTIONS`: a line of JSON and a line of a Markdown table. The node must be stopped.
//! What the protocol takes besides is the node's time for each call, as `tests/bench/bench.py` measures it, less the sum.

mod cpu;

use std::fs;
use std::path::PathBuf;

use cairn::app::Node;
use cairn::config::{Config, Overrides};
use cairn::embed::StaticModel;
use cairn::retrieval::{Mode, SearchRequest};
use cairn::task::Readiness;
use cairn::telemetry::Metrics;
use serde_json::json;

use self::cpu::cost;

/// Questions that are asked.
const QUESTIONS: usize = 1_500;
/// How long views may take to follow the log.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [data_dir, questions] = &arguments[..] else {
        eprintln!("stages: give a node's data directory and a file of questions; nothing was measured");
        return;
    };
    let overrides = Overrides { data_dir: Some(PathBuf::from(data_dir)), ..Overrides::default() };
    // Answers from memory are no searches.
    let settings = [("CAIRN_SEARCH_CACHE_BYTES".to_owned(), "0".to_owned())];
    let config = Config::load(None, settings, &overrides).expect("settings");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let readiness = Readiness::default();
    let node = Node::open(&config, readiness.clone(), Metrics::new(), runtime.handle(), None).expect("opened");
    assert!(readiness.wait(PATIENCE), "the views follow the log");
    let questions: Vec<String> =
        fs::read_to_string(questions).expect("questions").lines().take(QUESTIONS).map(str::to_owned).collect();
    let collection = node.library().collections().into_iter().max_by_key(|info| info.chunks).expect("a collection");
    let searcher = node.library().searcher(&collection).expect("opened");
    let model = StaticModel::built_in();
    let embeddings: Vec<Vec<f32>> = questions.iter().map(|question| model.embed_one(question)).collect();
    let retrieval = node.tools().retrieval();
    let candidates = retrieval.default_candidates();

    let embed = cost(&questions, |question| drop(model.embed_one(question)));
    let lexical = cost(&questions, |question| drop(searcher.lexical(question, candidates, None).expect("searched")));
    let mut next = embeddings.iter().cycle();
    let vector = cost(&questions, |_| drop(searcher.nearest(next.next().expect("endless"), candidates, None)));
    let rank = cost(&questions, |question| {
        drop(retrieval.rank(question, &collection.name, Mode::Hybrid, candidates, None).expect("ranked"));
    });
    let whole = cost(&questions, |question| {
        let request = SearchRequest { query: question.to_owned(), ..SearchRequest::default() };
        drop(retrieval.search(&request).expect("searched"));
    });
    let (fuse, read) = (rank - embed - lexical - vector, whole - rank);
    let row = json!({
        "passages": collection.chunks, "embed_us": embed, "lexical_us": lexical, "vector_us": vector, "fuse_us": fuse,
        "read_us": read, "whole_us": whole,
    });
    println!("{row}");
    println!(
        "| {} | {embed:.0} | {lexical:.0} | {vector:.0} | {fuse:.0} | {read:.0} | {whole:.0} |",
        collection.chunks
    );
    node.close();
}
