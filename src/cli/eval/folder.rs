//! A folder that is measured on: its questions and judgements, and its documents, which become a collection of their own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Map;
use tokio::runtime::Runtime;

use super::measures::Judged;
use crate::cli::{Common, Failure, output};
use crate::collection::{Access, Body, DocumentInput, DocumentStatus, MediaType, Missing};

/// Documents written together.
const BATCH: usize = 500;
/// Longest collection name derived from a folder; a number may follow.
const NAME_MAX: usize = 50;

/// A folder as given.
pub(super) struct Folder {
    /// Of its collection.
    pub(super) name: String,
    path: PathBuf,
    documents: Documents,
    /// `None`: its documents are only in the way of others.
    pub(super) questions: Option<Questions>,
}

/// Where the documents are.
enum Documents {
    /// `corpus.jsonl`.
    Lines(PathBuf),
    /// A folder of files, named by their paths in it.
    Files(PathBuf),
}

/// The queries, and the relevant documents.
pub(super) struct Questions {
    pub(super) queries: Vec<QueryLine>,
    /// By the question's id.
    pub(super) judgements: HashMap<String, Judged>,
    /// Questions that none of the documents answers.
    pub(super) unanswerable: Vec<QueryLine>,
}

impl Questions {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let unanswerable = folder.join("unanswerable.jsonl");
        Ok(Self {
            queries: json_lines(&folder.join("queries.jsonl"))?,
            judgements: read_judgements(&folder.join("qrels.tsv"))?,
            unanswerable: if unanswerable.exists() { json_lines(&unanswerable)? } else { Vec::new() },
        })
    }

    /// Questions that a document is judged to answer.
    pub(super) fn answerable(&self) -> impl Iterator<Item = &QueryLine> {
        let is_answered = |query: &&QueryLine| {
            self.judgements.get(&query._id).is_some_and(|judged| judged.values().any(|&grade| grade > 0))
        };
        self.queries.iter().filter(is_answered)
    }
}

#[derive(Deserialize)]
struct CorpusLine {
    _id: String,
    #[serde(default)]
    title: String,
    text: String,
}

/// A line of `queries.jsonl` or `unanswerable.jsonl`.
#[derive(Deserialize)]
pub(super) struct QueryLine {
    pub(super) _id: String,
    pub(super) text: String,
}

/// Looks at the folders, in their order. Their collections have different names.
///
/// # Errors
/// When there are no questions in any of them, or what a folder holds cannot be read.
pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<Folder>, Failure> {
    let mut names = HashSet::new();
    let mut folders = Vec::with_capacity(paths.len());
    for path in paths {
        // With one of the two, the other was forgotten.
        let has_questions = ["queries.jsonl", "qrels.tsv"].iter().any(|name| path.join(name).exists());
        let is_beside = paths.len() > 1 && path.is_dir() && !has_questions;
        let questions = if is_beside { None } else { Some(Questions::read(path)?) };
        let (corpus, docs) = (path.join("corpus.jsonl"), path.join("docs"));
        let documents = if corpus.is_file() {
            Documents::Lines(corpus)
        } else if docs.is_dir() {
            Documents::Files(docs)
        } else if is_beside {
            Documents::Files(path.clone())
        } else {
            return Err(anyhow!("{} has neither corpus.jsonl nor docs/", path.display()).into());
        };
        let name = free(&name(path), &mut names);
        folders.push(Folder { name, path: path.clone(), documents, questions });
    }
    if folders.iter().all(|folder| folder.questions.is_none()) {
        return Err(
            anyhow!("none of the folders has queries.jsonl and qrels.tsv, so there is nothing to measure").into()
        );
    }
    for folder in folders.iter().filter(|folder| folder.questions.is_none()) {
        eprintln!(
            "{}: no queries.jsonl and no qrels.tsv; its documents are searched together with the others",
            folder.path.display()
        );
    }
    Ok(folders)
}

/// A collection's name for a folder.
fn name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.') { letter } else { '-' })
        .take(NAME_MAX)
        .collect();
    let name = name.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric());
    if name.is_empty() { "folder".to_owned() } else { name.to_owned() }
}

/// The name, or the first unused one of `name-2`, `name-3` ….
fn free(name: &str, taken: &mut HashSet<String>) -> String {
    let mut found = name.to_owned();
    for number in 2.. {
        if taken.insert(found.clone()) {
            break;
        }
        found = format!("{name}-{number}");
    }
    found
}

fn json_lines<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut items = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if !line.trim().is_empty() {
            let location = || format!("{}, line {}", path.display(), number + 1);
            items.push(serde_json::from_str(&line).with_context(location)?);
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

impl Folder {
    /// Says where judgements name documents that are not there: such a question finds nothing, however good the search is.
    ///
    /// # Errors
    /// When none of them is there.
    pub(super) fn warn_of_strangers(&self, access: Access<'_>) -> Result<(), Failure> {
        let Some(questions) = &self.questions else { return Ok(()) };
        let info = access.collection(&self.name).context("the collection was made before")?;
        let judged: BTreeSet<&str> = questions
            .judgements
            .values()
            .flat_map(|judged| judged.iter().filter(|(_, grade)| **grade > 0).map(|(id, _)| id.as_str()))
            .collect();
        let mut strangers = Vec::new();
        for id in &judged {
            if access.lookup(info.id, id)?.is_none() {
                strangers.push(*id);
            }
        }
        let Some(first) = strangers.first() else { return Ok(()) };
        let file = self.path.join("qrels.tsv");
        let (strange, all) =
            (output::thousands(strangers.len() as u64), output::counted(judged.len() as u64, "judged document"));
        if strangers.len() == judged.len() {
            return Err(Failure::from(anyhow!(
                "none of the {all} is among those that were read, so every measure would be 0: {} names '{first}', for example",
                file.display()
            )));
        }
        eprintln!(
            "warning: {}: {strange} of {all} are not among those that were read, such as '{first}'; they count as not found",
            file.display()
        );
        Ok(())
    }

    /// Reads the documents into the folder's collection; returns how many.
    pub(super) fn ingest(&self, common: &Common, access: Access<'_>, runtime: &Runtime) -> Result<usize, Failure> {
        runtime.block_on(access.create_collection(&self.name, "", None))?;
        match &self.documents {
            Documents::Lines(path) => self.ingest_lines(common, access, runtime, path),
            Documents::Files(path) => self.ingest_files(common, access, runtime, path),
        }
    }

    fn ingest_lines(
        &self,
        common: &Common,
        access: Access<'_>,
        runtime: &Runtime,
        path: &Path,
    ) -> Result<usize, Failure> {
        let lines: Vec<CorpusLine> = json_lines(path)?;
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
            let outcomes = runtime.block_on(access.add(&self.name, Missing::Refuse, inputs))?.outcomes;
            for outcome in outcomes {
                if let DocumentStatus::Failed(error) = outcome.status {
                    eprintln!("{}: {error}", outcome.id);
                }
            }
        }
        bar.finish_and_clear();
        Ok(count)
    }

    fn ingest_files(
        &self,
        common: &Common,
        access: Access<'_>,
        runtime: &Runtime,
        root: &Path,
    ) -> Result<usize, Failure> {
        let mut count = 0;
        let files: Vec<PathBuf> = ignore::WalkBuilder::new(root)
            .build()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
            .map(ignore::DirEntry::into_path)
            .collect();
        let bar = progress(common, files.len());
        for path in files {
            let source = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            match runtime.block_on(access.sync_source(&self.name, &source, bytes, Map::new())) {
                Ok(_) => count += 1,
                Err(error) => eprintln!("{source}: {error}"),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(count)
    }
}

fn progress(common: &Common, total: usize) -> ProgressBar {
    if !output::is_watched(common) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} documents  {per_sec}");
    ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::is_collection_name;

    #[test]
    fn each_folder_names_a_collection_of_its_own() {
        let mut taken = HashSet::new();
        let paths = ["/a/docs", "/b/Docs", "/c/docs-2", "/", "/a/_Größe 2", "/a/\u{4e2d}"];
        let found: Vec<String> = paths.map(|path| free(&name(Path::new(path)), &mut taken)).into();
        assert_eq!(found, ["docs", "docs-2", "docs-2-2", "folder", "gr--e-2", "folder-2"]);
        let long = name(Path::new(&format!("/{}", "x".repeat(200))));
        assert!(found.iter().chain([&long, &free(&long, &mut taken)]).all(|name| is_collection_name(name)));
    }
}
