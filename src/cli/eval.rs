//! `cairn eval`: search quality on a folder with questions and judgements, in BEIR's layout.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::backend::{Local, Stay};
use super::{Common, Failure, output};
use crate::collection::{Body, DocumentInput, DocumentStatus, MediaType, Missing};
use crate::retrieval::{Fusion, Mode, Retrieval};

const COLLECTION: &str = "eval";
/// Documents written together.
const BATCH: usize = 500;
/// How deep recall is measured.
const DEPTH: usize = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
DIR holds queries.jsonl ({\"_id\", \"text\"}), qrels.tsv (query-id, corpus-id, score, with a header line), and the \
documents: corpus.jsonl ({\"_id\", \"title\", \"text\"}) or a folder docs/, whose files are named by their paths in the \
judgements. Everything is read into a temporary collection; the node and its data are not touched.

Measures, over all questions: nDCG@10 with linear gain, Recall@10, Recall@100 and MRR@10, for each way to search. The score of a document is that of its best passage.")]
pub(super) struct Arguments {
    /// Folder with questions and judgements
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Weight of meaning against words, 0 to 1 [default: as a search chooses it]
    #[arg(long, value_name = "WEIGHT", value_parser = weight)]
    dense_weight: Option<f32>,
    /// Candidates taken from each half [default: search.candidates]
    #[arg(long, value_name = "N", value_parser = output::whole::<usize>(1..=10_000))]
    candidates: Option<usize>,
}

fn weight(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => Ok(weight),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// How the questions are asked.
struct Asked<'a> {
    retrieval: &'a Retrieval,
    candidates: usize,
    fusion: Option<Fusion>,
}

#[derive(Deserialize)]
struct CorpusLine {
    _id: String,
    #[serde(default)]
    title: String,
    text: String,
}

#[derive(Deserialize)]
struct QueryLine {
    _id: String,
    text: String,
}

/// Judgements of a query: document to grade, above 0 for relevant.
type Judged = HashMap<String, u32>;

/// Means over all queries.
#[derive(Debug, Clone, Copy, Default)]
struct Measures {
    ndcg_at_10: f64,
    recall_at_10: f64,
    recall_at_100: f64,
    mrr_at_10: f64,
    /// Seconds per query at the default depth.
    seconds: f64,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let queries: Vec<QueryLine> = json_lines(&directory.join("queries.jsonl"))?;
    let judgements = read_judgements(&directory.join("qrels.tsv"))?;
    let scratch = tempdir()?;
    let result = (|| {
        let mut config = common.load()?;
        super::quiet_logs(&config);
        config.data_dir = scratch.join("data");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let local = Local::open(&config, runtime.handle(), Stay::Brief)?;
        let start = Instant::now();
        let documents = ingest(common, &local, &runtime, directory)?;
        runtime.block_on(local.node().library().flush())?;
        let ingest_seconds = start.elapsed().as_secs_f64();
        local.node().library().settle();
        let retrieval = local.node().tools().retrieval();
        let asked = Asked {
            retrieval,
            candidates: arguments.candidates.unwrap_or_else(|| retrieval.default_candidates()),
            fusion: arguments.dense_weight.map(|dense_weight| Fusion::Convex { dense_weight }),
        };
        warn_of_strangers(&local, &judgements)?;
        let passages = local.node().library().collection(COLLECTION).map_or(0, |info| info.chunks);
        let mut modes = Vec::new();
        for mode in [Mode::Hybrid, Mode::Dense, Mode::Lexical] {
            modes.push((mode, measure(&asked, &queries, &judgements, mode)?));
        }
        show(common, documents, passages, queries.len(), ingest_seconds, &modes)
    })();
    // A folder that stays costs only space.
    let _ = std::fs::remove_dir_all(&scratch);
    result
}

fn tempdir() -> Result<PathBuf, Failure> {
    let path = std::env::temp_dir().join(format!("cairn-eval-{}", std::process::id()));
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

fn json_lines<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut items = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if !line.trim().is_empty() {
            let place = || format!("{}, line {}", path.display(), number + 1);
            items.push(serde_json::from_str(&line).with_context(place)?);
        }
    }
    Ok(items)
}

fn read_judgements(path: &Path) -> anyhow::Result<HashMap<String, Judged>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut judgements: HashMap<String, Judged> = HashMap::new();
    for (number, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [query, document, score] = fields[..] else {
            bail!(
                "{}, line {}: expected three fields between tabs, found {}",
                path.display(),
                number + 1,
                fields.len()
            );
        };
        let score: i64 =
            score.trim().parse().with_context(|| format!("{}, line {}: the score", path.display(), number + 1))?;
        let grade = u32::try_from(score.max(0)).unwrap_or(u32::MAX);
        judgements.entry(query.to_owned()).or_default().insert(document.to_owned(), grade);
    }
    Ok(judgements)
}

/// Says where judgements name documents that are not there: such a question finds nothing, however good the search is.
fn warn_of_strangers(local: &Local, judgements: &HashMap<String, Judged>) -> Result<(), Failure> {
    let library = local.node().library();
    let info = library.collection(COLLECTION).context("the collection was made above")?;
    let judged: BTreeSet<&str> = judgements
        .values()
        .flat_map(|judged| judged.iter().filter(|(_, grade)| **grade > 0).map(|(id, _)| id.as_str()))
        .collect();
    let mut strangers = Vec::new();
    for id in &judged {
        if library.reader().lookup(info.id, id)?.is_none() {
            strangers.push(*id);
        }
    }
    let Some(first) = strangers.first() else { return Ok(()) };
    let (strange, all) =
        (output::thousands(strangers.len() as u64), output::counted(judged.len() as u64, "judged document"));
    if strangers.len() == judged.len() {
        return Err(Failure::from(anyhow!(
            "none of the {all} is among those that were read, so every measure would be 0: qrels.tsv names '{first}', for example"
        )));
    }
    eprintln!(
        "warning: {strange} of {all} are not among those that were read, such as '{first}'; they count as not found"
    );
    Ok(())
}

/// Reads the documents; returns how many.
fn ingest(common: &Common, local: &Local, runtime: &Runtime, directory: &Path) -> Result<usize, Failure> {
    let library = local.node().library();
    runtime.block_on(library.create_collection(COLLECTION, "", None))?;
    let corpus = directory.join("corpus.jsonl");
    if corpus.is_file() {
        let lines: Vec<CorpusLine> = json_lines(&corpus)?;
        let count = lines.len();
        let bar = progress(common, count);
        let mut lines = lines.into_iter().peekable();
        while lines.peek().is_some() {
            let inputs: Vec<DocumentInput> = lines
                .by_ref()
                .take(BATCH)
                .map(|line| DocumentInput {
                    id: Some(line._id),
                    title: Some(line.title),
                    body: Body::Text(line.text, MediaType::Text),
                    ..DocumentInput::default()
                })
                .collect();
            bar.inc(inputs.len() as u64);
            let outcomes = runtime.block_on(library.add(COLLECTION, Missing::Refuse, inputs))?.outcomes;
            for outcome in outcomes {
                if let DocumentStatus::Failed(error) = outcome.status {
                    eprintln!("{}: {error}", outcome.id);
                }
            }
        }
        bar.finish_and_clear();
        return Ok(count);
    }
    let docs = directory.join("docs");
    if !docs.is_dir() {
        return Err(anyhow!("{} has neither corpus.jsonl nor docs/", directory.display()).into());
    }
    let mut count = 0;
    let files: Vec<PathBuf> = ignore::WalkBuilder::new(&docs)
        .build()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(ignore::DirEntry::into_path)
        .collect();
    let bar = progress(common, files.len());
    for path in files {
        let source = path.strip_prefix(&docs).unwrap_or(&path).to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        match runtime.block_on(library.sync_source(COLLECTION, &source, bytes, Map::new())) {
            Ok(_) => count += 1,
            Err(error) => eprintln!("{source}: {error}"),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(count)
}

fn progress(common: &Common, total: usize) -> ProgressBar {
    if common.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} documents  {per_sec}");
    ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn measure(
    asked: &Asked<'_>,
    queries: &[QueryLine],
    judgements: &HashMap<String, Judged>,
    mode: Mode,
) -> Result<Measures, Failure> {
    let none = Judged::new();
    // The first question pays for the model, the files and the caches; none of that is what a question costs.
    if let Some(query) = queries.first() {
        documents(asked, &query.text, mode, asked.candidates)?;
    }
    let mut sum = Measures::default();
    for query in queries {
        let judged = judgements.get(&query._id).unwrap_or(&none);
        let start = Instant::now();
        // The first ranks are measured as a search with default settings gives them, the deep ones from a deeper ranking.
        let ranked = documents(asked, &query.text, mode, asked.candidates)?;
        sum.seconds += start.elapsed().as_secs_f64();
        sum.ndcg_at_10 += ndcg(&ranked, judged, 10);
        sum.recall_at_10 += recall(&ranked, judged, 10);
        sum.mrr_at_10 += reciprocal_rank(&ranked, judged, 10);
        let deep = documents(asked, &query.text, mode, DEPTH * 4)?;
        sum.recall_at_100 += recall(&deep, judged, DEPTH);
    }
    let count = queries.len().max(1) as f64;
    Ok(Measures {
        ndcg_at_10: sum.ndcg_at_10 / count,
        recall_at_10: sum.recall_at_10 / count,
        recall_at_100: sum.recall_at_100 / count,
        mrr_at_10: sum.mrr_at_10 / count,
        seconds: sum.seconds / count,
    })
}

/// Ids of the documents of the best passages, each once, best first.
fn documents(asked: &Asked<'_>, query: &str, mode: Mode, candidates: usize) -> Result<Vec<String>, Failure> {
    let ranked = asked.retrieval.rank(query, COLLECTION, mode, candidates, asked.fusion)?;
    let mut seen = HashSet::new();
    let mut ids = Vec::new();
    for passage in ranked {
        if seen.insert(passage.key.document()) {
            ids.push(asked.retrieval.library().passages().document(passage.key.document())?.id.clone());
        }
    }
    Ok(ids)
}

/// nDCG at `depth` with linear gain, as trec_eval's `ndcg_cut`; 0 when nothing is relevant.
fn ndcg(ranked: &[String], judged: &Judged, depth: usize) -> f64 {
    let gain = |(place, grade): (usize, u32)| f64::from(grade) / ((place + 2) as f64).log2();
    let grades = ranked.iter().take(depth).map(|id| judged.get(id).copied().unwrap_or_default());
    let found: f64 = grades.enumerate().map(gain).sum();
    let mut best: Vec<u32> = judged.values().copied().collect();
    best.sort_unstable_by(|left, right| right.cmp(left));
    let ideal: f64 = best.into_iter().take(depth).enumerate().map(gain).sum();
    if ideal > 0.0 { found / ideal } else { 0.0 }
}

fn recall(ranked: &[String], judged: &Judged, depth: usize) -> f64 {
    let relevant = judged.values().filter(|&&grade| grade > 0).count();
    let found = ranked.iter().take(depth).filter(|id| judged.get(*id).is_some_and(|&grade| grade > 0)).count();
    if relevant > 0 { found as f64 / relevant as f64 } else { 0.0 }
}

fn reciprocal_rank(ranked: &[String], judged: &Judged, depth: usize) -> f64 {
    let first = ranked.iter().take(depth).position(|id| judged.get(id).is_some_and(|&grade| grade > 0));
    first.map_or(0.0, |place| 1.0 / (place + 1) as f64)
}

fn show(
    common: &Common,
    documents: usize,
    passages: u64,
    queries: usize,
    ingest_seconds: f64,
    modes: &[(Mode, Measures)],
) -> Result<(), Failure> {
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    if common.json {
        let by_mode: Map<String, Value> = modes
            .iter()
            .map(|(mode, measures)| {
                let value = json!({
                    "ndcg_at_10": rounded(measures.ndcg_at_10), "recall_at_10": rounded(measures.recall_at_10),
                    "recall_at_100": rounded(measures.recall_at_100), "mrr_at_10": rounded(measures.mrr_at_10),
                    "query_ms": rounded(measures.seconds * 1e3),
                });
                (mode.as_str().to_owned(), value)
            })
            .collect();
        return output::json(&json!({
            "documents": documents, "passages": passages, "queries": queries,
            "ingest_seconds": rounded(ingest_seconds), "modes": by_mode,
        }));
    }
    let rows = modes
        .iter()
        .map(|(mode, measures)| {
            let number = |value: f64| format!("{value:.4}");
            vec![
                mode.as_str().to_owned(),
                number(measures.ndcg_at_10),
                number(measures.recall_at_10),
                number(measures.recall_at_100),
                number(measures.mrr_at_10),
                format!("{:.2} ms", measures.seconds * 1e3),
            ]
        })
        .collect();
    let header = ["mode", "nDCG@10", "Recall@10", "Recall@100", "MRR@10", "a query"];
    output::table(&header, &header[1..], rows)?;
    let documents = output::counted(documents as u64, "document");
    let (passages, queries) = (output::counted(passages, "passage"), output::counted(queries as u64, "question"));
    eprintln!("{documents}, {passages}, {queries}; read in {ingest_seconds:.1} s");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn judged(grades: &[(&str, u32)]) -> Judged {
        grades.iter().map(|&(id, grade)| (id.to_owned(), grade)).collect()
    }

    /// Worked by hand: DCG = 2/log2(2) + 0 + 1/log2(4) = 2.5; ideal = 3/log2(2) + 2/log2(3) + 1/log2(4) = 4.7619.
    #[test]
    fn ndcg_is_the_textbook_one() {
        let value = ndcg(&ids(&["b", "x", "c"]), &judged(&[("a", 3), ("b", 2), ("c", 1)]), 10);
        assert!((value - 2.5 / 4.761_859_5).abs() < 1e-6, "{value}");
        assert_eq!(ndcg(&ids(&["a"]), &judged(&[("a", 0)]), 10), 0.0);
    }

    #[test]
    fn recall_and_reciprocal_rank_look_at_relevant_documents_only() {
        let (ranked, grades) = (ids(&["x", "b", "a"]), judged(&[("a", 1), ("b", 0), ("c", 2)]));
        assert!((recall(&ranked, &grades, 10) - 0.5).abs() < 1e-9);
        assert!((recall(&ranked, &grades, 2) - 0.0).abs() < 1e-9);
        assert!((reciprocal_rank(&ranked, &grades, 10) - 1.0 / 3.0).abs() < 1e-9);
    }
}
