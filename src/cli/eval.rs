//! `cairn eval`: search quality on folders with questions and judgements, in BEIR's layout.
//!
//! Invariants: each folder is a collection of its own in one temporary node. A question is about its folder's collection; what
//! is found in another one is wrong, whatever its id.

mod folder;
mod measures;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use self::folder::{Folder, QueryLine, Questions};
use self::measures::{Judged, Measures, RankedDocument};
use super::backend::{Local, Stay, caller};
use super::{Common, Failure, output};
use crate::calls::{self, Operation};
use crate::collection::Access;
use crate::mcp::ToolError;
use crate::retrieval::{Fusion, Mode, Retrieval, SearchRequest};
use crate::store::CollectionId;

/// How deep recall is measured.
const DEPTH: usize = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
DIR holds queries.jsonl ({\"_id\", \"text\"}), qrels.tsv (query-id, corpus-id, score, with a header line), and the \
documents: corpus.jsonl ({\"_id\", \"title\", \"text\"}) or a folder docs/, whose files are named by their paths in the \
judgements. Everything is read into a temporary collection; the node and its data are not touched.

Several folders become a collection each. The questions of each are asked of its own collection alone, and of all collections \
at once. A folder without questions, or any folder of files, is searched beside the others:

  $ cairn eval questions/ ~/documents

With unanswerable.jsonl ({\"_id\", \"text\"}), questions that no document answers, it also measures how many of them get an \
answer marked as weak, and how many of the others do.

Measures, over all questions: nDCG@10 with linear gain, Recall@10, Recall@100 and MRR@10, for each search mode. The score of a \
document is that of its best passage.")]
pub(super) struct Arguments {
    /// Folders with questions and judgements, and folders that are searched together with them
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// Weight of dense against lexical ranking, 0 to 1 [default: as a search chooses it]
    #[arg(long, value_name = "WEIGHT", value_parser = weight)]
    dense_weight: Option<f32>,
    /// Candidates from each ranking [default: search.candidates]
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
struct QueryRunner<'a> {
    retrieval: &'a Retrieval,
    access: Access<'a>,
    candidates: usize,
    fusion: Option<Fusion>,
}

/// Which collections a question is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Its own.
    Alone,
    /// All.
    Beside,
}

impl Scope {
    const fn key(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Beside => "beside_others",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Beside => "beside others",
        }
    }
}

/// The measurements of a folder.
struct Report<'a> {
    folder: &'a Folder,
    documents: usize,
    passages: u64,
    rows: Vec<(Mode, Scope, Measures)>,
    /// Empty where no question is known to have no answer.
    weak: Vec<(Scope, Weak)>,
}

/// Shares of questions, 0 to 1, whose answer says of itself that nothing fits well.
struct Weak {
    /// Of those without an answer.
    unanswerable: f64,
    /// Of those with one.
    answerable: f64,
}

impl Report<'_> {
    fn queries(&self) -> usize {
        self.folder.questions.as_ref().map_or(0, |questions| questions.queries.len())
    }

    fn unanswerable(&self) -> usize {
        self.folder.questions.as_ref().map_or(0, |questions| questions.unanswerable.len())
    }

    fn totals(&self) -> String {
        let documents = output::counted(self.documents as u64, "document");
        let (passages, queries) =
            (output::counted(self.passages, "passage"), output::counted(self.queries() as u64, "question"));
        let unanswerable = match self.unanswerable() {
            0 => String::new(),
            count => format!(", {} without an answer", output::thousands(count as u64)),
        };
        format!("{documents}, {passages}, {queries}{unanswerable}")
    }
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let folders = folder::open(&arguments.directories)?;
    let scratch = tempdir()?;
    let result = (|| {
        let mut config = common.load()?;
        super::quiet_logs(&config);
        config.data_dir = scratch.join("data");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let local = Local::open(&config, runtime.handle(), Stay::Brief)?;
        let permit = local.node().calls().enter(Operation::EVALUATE, &caller(), &calls::Scope::Every);
        let permit = permit.map_err(ToolError::from)?;
        let library = local.node().library();
        let access = library.access(&permit);
        let start = Instant::now();
        let mut documents = Vec::with_capacity(folders.len());
        for folder in &folders {
            documents.push(folder.ingest(common, access, &runtime)?);
        }
        runtime.block_on(access.flush())?;
        let ingest_seconds = start.elapsed().as_secs_f64();
        library.wait_until_idle();
        let retrieval = local.node().tools().retrieval();
        let asked = QueryRunner {
            retrieval,
            access,
            candidates: arguments.candidates.unwrap_or_else(|| retrieval.default_candidates()),
            fusion: arguments.dense_weight.map(|dense_weight| Fusion::Convex { dense_weight }),
        };
        for folder in &folders {
            folder.warn_of_strangers(access)?;
        }
        let all: Vec<String> = folders.iter().map(|folder| folder.name.clone()).collect();
        let mut reports = Vec::with_capacity(folders.len());
        for (folder, documents) in folders.iter().zip(documents) {
            let info = access.collection(&folder.name).context("the collection was made above")?;
            let (mut rows, mut weak) = (Vec::new(), Vec::new());
            let own = std::slice::from_ref(&folder.name);
            let scopes = [(Scope::Alone, own), (Scope::Beside, &all[..])];
            let scopes = &scopes[..if all.len() > 1 { 2 } else { 1 }];
            if let Some(questions) = &folder.questions {
                for mode in [Mode::Hybrid, Mode::Dense, Mode::Lexical] {
                    for (scope, searched) in scopes {
                        rows.push((mode, *scope, measure(&asked, questions, info.id, searched, mode)?));
                    }
                }
                for (scope, searched) in scopes.iter().filter(|_| !questions.unanswerable.is_empty()) {
                    weak.push((*scope, measure_weak(&asked, questions, searched)?));
                }
            }
            reports.push(Report { folder, documents, passages: info.chunks, rows, weak });
        }
        print_result(common, &reports, ingest_seconds)
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

/// * `own`: the collection that the questions are about.
/// * `searched`: names of those that are searched.
fn measure(
    asked: &QueryRunner<'_>,
    questions: &Questions,
    own: CollectionId,
    searched: &[String],
    mode: Mode,
) -> Result<Measures, Failure> {
    let none = Judged::new();
    let documents = |text: &str, candidates| documents(asked, text, own, searched, mode, candidates);
    // The first question pays for the model, the files and the caches; none of that is what a question costs.
    if let Some(query) = questions.queries.first() {
        documents(&query.text, asked.candidates)?;
    }
    let mut sum = Measures::default();
    for query in &questions.queries {
        let judged = questions.judgements.get(&query._id).unwrap_or(&none);
        let start = Instant::now();
        // The first ranks are measured as in a search with default settings, the deep ones from a deeper ranking.
        let ranked = documents(&query.text, asked.candidates)?;
        let seconds = start.elapsed().as_secs_f64();
        sum.add(&ranked, &documents(&query.text, DEPTH * 4)?, judged, seconds);
    }
    Ok(sum.over(questions.queries.len()))
}

/// How often a search with default settings says that nothing fits well.
fn measure_weak(asked: &QueryRunner<'_>, questions: &Questions, searched: &[String]) -> Result<Weak, Failure> {
    let share = |queries: &mut dyn Iterator<Item = &QueryLine>| -> Result<f64, Failure> {
        let (mut count, mut marked) = (0usize, 0usize);
        for query in queries {
            let request = SearchRequest {
                query: query.text.clone(),
                collections: searched.to_vec(),
                fusion: asked.fusion,
                ..SearchRequest::default()
            };
            count += 1;
            marked += usize::from(asked.retrieval.search(asked.access, &request)?.weak);
        }
        Ok(marked as f64 / count.max(1) as f64)
    };
    Ok(Weak {
        unanswerable: share(&mut questions.unanswerable.iter())?,
        answerable: share(&mut questions.answerable())?,
    })
}

/// The documents of the best passages, each once, best first.
fn documents(
    asked: &QueryRunner<'_>,
    query: &str,
    own: CollectionId,
    searched: &[String],
    mode: Mode,
    candidates: usize,
) -> Result<Vec<RankedDocument>, Failure> {
    let ranked = asked.retrieval.rank(asked.access, query, searched, mode, candidates, asked.fusion)?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for passage in ranked {
        if seen.insert(passage.key.document()) {
            let document = asked.access.passages().document(passage.key.document())?;
            found.push((document.collection == own).then(|| document.id.clone()));
        }
    }
    Ok(found)
}

fn print_result(common: &Common, reports: &[Report<'_>], ingest_seconds: f64) -> Result<(), Failure> {
    if common.json {
        return output::json(&as_json(reports, ingest_seconds));
    }
    if let [report] = reports {
        show_table(&report.rows, false)?;
        show_weak(&report.weak)?;
        eprintln!("{}; read in {ingest_seconds:.1} s", report.totals());
        return Ok(());
    }
    for (index, report) in reports.iter().filter(|report| !report.rows.is_empty()).enumerate() {
        let gap = if index > 0 { "\n" } else { "" };
        output::line(&format!("{gap}{}", report.folder.name))?;
        show_table(&report.rows, true)?;
        show_weak(&report.weak)?;
    }
    for report in reports {
        eprintln!("{}: {}", report.folder.name, report.totals());
    }
    eprintln!("read in {ingest_seconds:.1} s");
    Ok(())
}

/// * `with_scope`: whether a column shows which collections were searched.
fn show_table(rows: &[(Mode, Scope, Measures)], with_scope: bool) -> Result<(), Failure> {
    let number = |value: f64| format!("{value:.4}");
    let rows = rows
        .iter()
        .map(|(mode, scope, measures)| {
            let mut row = vec![mode.as_str().to_owned()];
            row.extend(with_scope.then(|| scope.label().to_owned()));
            row.extend([measures.ndcg_at_10, measures.recall_at_10, measures.recall_at_100].map(number));
            row.extend([number(measures.mrr_at_10), format!("{:.2} ms", measures.seconds * 1e3)]);
            row
        })
        .collect();
    let numbers = ["nDCG@10", "Recall@10", "Recall@100", "MRR@10", "a query"];
    let mut header = vec!["mode"];
    header.extend(with_scope.then_some("searched"));
    header.extend(numbers);
    output::table(&header, &numbers, rows)
}

/// A column for each kind of search, if there are differences.
fn show_weak(weak: &[(Scope, Weak)]) -> Result<(), Failure> {
    if weak.is_empty() {
        return Ok(());
    }
    let row = |what: &str, share: fn(&Weak) -> f64| {
        let shares = weak.iter().map(|(_, weak)| format!("{:.1} %", share(weak) * 100.0));
        std::iter::once(what.to_owned()).chain(shares).collect()
    };
    let rows = vec![
        row("questions without an answer", |weak| weak.unanswerable),
        row("questions with an answer", |weak| weak.answerable),
    ];
    let header: Vec<&str> = std::iter::once("marked weak").chain(weak.iter().map(|(scope, _)| scope.label())).collect();
    output::line("")?;
    output::table(&header, &header[1..], rows)
}

/// Of one folder the measures of each mode, as they always were; of several by collection, mode and what was searched.
fn as_json(reports: &[Report<'_>], ingest_seconds: f64) -> Value {
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    let ingest_seconds = rounded(ingest_seconds);
    let value = |measures: &Measures| {
        json!({
            "ndcg_at_10": rounded(measures.ndcg_at_10), "recall_at_10": rounded(measures.recall_at_10),
            "recall_at_100": rounded(measures.recall_at_100), "mrr_at_10": rounded(measures.mrr_at_10),
            "query_ms": rounded(measures.seconds * 1e3),
        })
    };
    let shares =
        |weak: &Weak| json!({"unanswerable": rounded(weak.unanswerable), "answerable": rounded(weak.answerable)});
    if let [report] = reports {
        let modes: Map<String, Value> =
            report.rows.iter().map(|(mode, _, measures)| (mode.as_str().to_owned(), value(measures))).collect();
        let mut found = json!({
            "documents": report.documents, "passages": report.passages, "queries": report.queries(),
            "ingest_seconds": ingest_seconds, "modes": modes,
        });
        for (_, weak) in &report.weak {
            found["unanswerable"] = json!(report.unanswerable());
            found["marked_weak"] = shares(weak);
        }
        return found;
    }
    let mut collections = Map::new();
    for report in reports {
        let mut modes = Map::new();
        for (mode, scope, measures) in &report.rows {
            modes.entry(mode.as_str()).or_insert_with(|| json!({}))[scope.key()] = value(measures);
        }
        let mut found = json!({
            "documents": report.documents, "passages": report.passages, "queries": report.queries(), "modes": modes,
        });
        for (scope, weak) in &report.weak {
            found["unanswerable"] = json!(report.unanswerable());
            found["marked_weak"][scope.key()] = shares(weak);
        }
        collections.insert(report.folder.name.clone(), found);
    }
    json!({"ingest_seconds": ingest_seconds, "collections": collections})
}
