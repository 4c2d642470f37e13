//! Where the processor's time of an uncached hybrid search goes, stage by stage, on a data directory that a node has filled.
//!
//! `cargo bench --bench stages -- DATA_DIR QUESTIONS`: a line of JSON and a line of a Markdown table. The node must be stopped.
//! Then the same with filters that admit less and less, where documents have the `draw` of `tests/bench/corpus.py`: what a search costs
//! when the filter was asked for before, what asking for it first costs, and which part of the ten nearest among what it admits the
//! vector part finds.
//! What the protocol takes besides is the node's time for each call, as `tests/bench/bench.py` measures it, less the sum.

mod cpu;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use cairn::app::{Metrics, Node};
use cairn::calls::Operation;
use cairn::collection::Searcher;
use cairn::config::{Config, Overrides};
use cairn::embed::StaticModel;
use cairn::index::lexical::Lookup;
use cairn::retrieval::{Filter, Mode, SearchRequest};
use cairn::task::Readiness;
use serde_json::json;

use self::cpu::cost;

/// Questions that are asked.
const QUESTIONS: usize = 1_500;
/// Of those how many are compared with an exact scan.
const RECALL_QUESTIONS: usize = 300;
/// recall@10.
const HITS: usize = 10;
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
    let settings = std::env::vars()
        .filter(|(name, _)| name.starts_with("CAIRN_INDEX_") || name.starts_with("CAIRN_SEARCH_"))
        .chain([("CAIRN_SEARCH_CACHE_BYTES".to_owned(), "0".to_owned())]);
    let config = Config::load(None, settings, &overrides).expect("settings");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let readiness = Readiness::default();
    let node = Node::open(&config, readiness.clone(), Metrics::new(), runtime.handle(), None).expect("opened");
    assert!(readiness.wait(PATIENCE), "the views follow the log");
    let questions: Vec<String> =
        fs::read_to_string(questions).expect("questions").lines().take(QUESTIONS).map(str::to_owned).collect();
    let permit = node.calls().internal_permit(Operation::EVALUATE);
    let access = node.library().access(&permit);
    let collection = access.collections().into_iter().max_by_key(|info| info.chunks).expect("a collection");
    let searcher = access.searcher(&collection).expect("opened");
    let model = StaticModel::built_in();
    let embeddings: Vec<Vec<f32>> = questions.iter().map(|question| model.embed_one(question)).collect();
    let retrieval = node.tools().retrieval();
    let candidates = retrieval.default_candidates();

    // The node looks at its recall, as it does in a quiet moment.
    embeddings.iter().for_each(|embedding| drop(searcher.nearest(embedding, candidates, None)));
    node.library().look_at_recall();
    node.library().wait_until_idle();
    let recall = searcher.recall();

    let embed = cost(&questions, |question| drop(model.embed_one(question)));
    let lexical = cost(&questions, |question| {
        drop(searcher.lexical(looked_up(&searcher, question), candidates, None).expect("searched"))
    });
    let mut next = embeddings.iter().cycle();
    let vector = cost(&questions, |_| drop(searcher.nearest(next.next().expect("endless"), candidates, None)));
    let rank = cost(&questions, |question| {
        drop(
            retrieval
                .rank(access, question, std::slice::from_ref(&collection.name), Mode::Hybrid, candidates, None)
                .expect("ranked"),
        );
    });
    let whole = cost(&questions, |question| {
        let request = SearchRequest { query: question.to_owned(), ..SearchRequest::default() };
        drop(retrieval.search(access, &request).expect("searched"));
    });
    let (fuse, read) = (rank - embed - lexical - vector, whole - rank);
    let row = json!({
        "passages": collection.chunks, "embed_us": embed, "lexical_us": lexical, "vector_us": vector, "fuse_us": fuse,
        "read_us": read, "whole_us": whole,
        "recall_at_10": recall.map(|recall| recall.at_10), "candidates": recall.map(|recall| recall.candidates),
    });
    println!("{row}");
    println!(
        "| {} | {embed:.0} | {lexical:.0} | {vector:.0} | {fuse:.0} | {read:.0} | {whole:.0} |",
        collection.chunks
    );
    let ask = |filter: Option<&Filter>| {
        cost(&questions, |question| {
            let request =
                SearchRequest { query: question.to_owned(), filter: filter.cloned(), ..SearchRequest::default() };
            drop(retrieval.search(access, &request).expect("searched"));
        })
    };
    let has_draw = searcher.fields().expect("fields").iter().any(|(name, _)| name == "draw");
    for least in [10_000, 5_000, 1_000, 100, 10, 1].into_iter().filter(|_| has_draw) {
        let filter = Filter::from_json(&json!({ "draw": { "lt": least } })).expect("a filter");
        let begun = Instant::now();
        let passages = searcher.matching(&filter).expect("matched");
        let first_ms = begun.elapsed().as_secs_f64() * 1e3;
        let allowed = &passages.keys();
        let (mut found, mut wanted) = (0, 0);
        for embedding in embeddings.iter().take(RECALL_QUESTIONS) {
            let exact = searcher.nearest_exact(embedding, HITS, allowed);
            let nearest = searcher.nearest(embedding, candidates, Some(&passages));
            let last = exact.last().map_or(f32::INFINITY, |neighbor| neighbor.score);
            found += nearest.iter().take(HITS).filter(|neighbor| neighbor.score >= last).count();
            wanted += exact.len();
        }
        let mut next = embeddings.iter().cycle();
        let vector_us =
            cost(&questions, |_| drop(searcher.nearest(next.next().expect("endless"), candidates, Some(&passages))));
        let lexical_us = cost(&questions, |question| {
            drop(searcher.lexical(looked_up(&searcher, question), candidates, Some(&passages)).expect("searched"));
        });
        let row = json!({
            "filter": "draw", "admitted": allowed.len(), "share": allowed.len() as f64 / collection.chunks as f64,
            "whole_us": ask(Some(&filter)), "unfiltered_us": ask(None), "vector_us": vector_us, "lexical_us": lexical_us,
            "recall_at_10": found as f64 / f64::from(wanted.max(1) as u32), "first_ms": first_ms,
        });
        println!("{row}");
    }
    node.close();
}

/// The words of a question in the one collection that is searched.
fn looked_up(searcher: &Searcher, question: &str) -> Lookup {
    Searcher::look_up(std::slice::from_ref(searcher), question).remove(0).expect("looked up")
}
