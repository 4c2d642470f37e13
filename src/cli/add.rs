//! `cairn add`: files and folders into a collection, as a sync.

use std::collections::HashSet;
use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::backend::{Backend, Stay};
use super::{Common, Failure, documents, output};
use crate::base::ByteSize;
use crate::ingest::{FileKind, left_out, pages_saved_with};

/// Files being read or written at once: enough to share each disk sync among several.
const IN_FLIGHT: usize = 16;
/// Files that may be gone from a folder before anybody is asked, however small it is.
const GONE_UNASKED: usize = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn add docs/ -c manual                 a folder; again after changes
  cairn add report.pdf notes.md -c papers   single files
  cairn add docs/ -c manual --dry-run       only say what would be read

A folder is kept in step: new and changed files are written, unchanged ones are left alone, and documents whose files are \
gone are deleted (--keep leaves them). A folder is known by its name: give folders of the same name a --prefix each, or each \
takes the other's files for gone. Nothing is deleted when nothing of the folder could be read, or with an empty --prefix; when \
more than half of a folder's files are gone, and more than 10, it asks first.

Files listed in .gitignore and hidden files are left out. Markdown, text, HTML, saved web pages, mail, PDF, \
notebooks, SVG, source code, JSON, JSON lines and CSV are read.")]
pub(super) struct Arguments {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Collection; made when there is none
    #[arg(short, long, env = "CAIRN_COLLECTION", default_value = "default")]
    collection: String,
    /// Metadata for every document, for filters; may be given several times
    #[arg(long = "meta", value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// What stands before each path in document ids [default: the folder's name]
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Leave documents whose files are gone
    #[arg(long)]
    keep: bool,
    /// Do not ask before many documents are deleted
    #[arg(short, long)]
    yes: bool,
    /// Delete what earlier files left even when nothing could be read
    #[arg(long, conflicts_with = "keep")]
    delete_all: bool,
    /// Say what would be read, and stop
    #[arg(long)]
    dry_run: bool,
    /// List unchanged and skipped files too
    #[arg(short, long)]
    verbose: bool,
}

/// A file to be read.
struct Found {
    path: PathBuf,
    source: String,
    /// Named by the user, so its failure is one; found in a folder it may be skipped.
    named: bool,
}

/// What became of a file.
struct Report {
    source: String,
    status: &'static str,
    detail: Value,
    reason: Option<String>,
}

impl Report {
    /// Whether the file's documents are there now.
    fn went_in(&self) -> bool {
        matches!(self.status, "created" | "updated" | "unchanged")
    }
}

/// What an earlier add left below a prefix: each source with the number of its documents.
struct Known {
    prefix: String,
    sources: Vec<(String, u64)>,
}

/// What may become of the documents whose files are gone from a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// They go.
    Delete,
    /// They go when somebody says so: it looks like another folder of that name.
    Ask,
    /// They stay: it looks like a disk that is not there.
    Keep,
}

/// What a walk found.
#[derive(Default)]
struct Walked {
    found: Vec<Found>,
    reports: Vec<Report>,
    /// Prefixes of folders that were read to the end: what is not there is gone.
    complete: Vec<String>,
    /// Prefixes below which something could not be read: nothing there counts as gone.
    unreadable: Vec<String>,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let start = Instant::now();
    let metadata = read_metadata(&arguments.metadata)?;
    let limit = common.load()?.ingest.source_bytes_max;
    let walked = walk(arguments)?;
    if arguments.dry_run {
        return dry_run(common, &walked);
    }
    let backend = common.backend_for(Stay::Long)?;
    // Before anything is written, so that new files do not hide how many are gone.
    let known = known(&backend, arguments, &walked.complete)?;
    let bar = progress(common, walked.found.len());
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(walked.reports);
    std::thread::scope(|scope| {
        for _ in 0..IN_FLIGHT.min(walked.found.len()) {
            scope.spawn(|| {
                // Whoever asks the node meanwhile goes first, on this machine too.
                crate::task::give_way();
                while let Some(file) = walked.found.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bar.set_message(file.source.clone());
                    let report = sync(&backend, &arguments.collection, file, &metadata, limit);
                    reports.lock().push(report);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut reports = reports.into_inner();
    let mut problems = remove_gone(&backend, arguments, &walked.found, &walked.unreadable, &known, &mut reports)?;
    if reports.iter().any(|report| matches!(report.status, "created" | "updated" | "deleted"))
        && let Err(error) = backend.flush()
    {
        problems.push(format!("what went in cannot be found yet: {error}"));
    }
    reports.sort_by(|left, right| left.source.cmp(&right.source));
    show(common, arguments, &reports, problems, start.elapsed().as_secs_f64())
}

fn read_metadata(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    pairs
        .iter()
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| Failure::usage(anyhow!("--meta '{pair}': expected KEY=VALUE")))?;
            // Numbers and booleans are what they look like; everything else is text.
            let value = match serde_json::from_str::<Value>(value) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
                _ => Value::String(value.to_owned()),
            };
            Ok((key.to_owned(), value))
        })
        .collect()
}

fn walk(arguments: &Arguments) -> Result<Walked, Failure> {
    let mut walked = Walked::default();
    for path in &arguments.paths {
        let kind = fs::metadata(path).map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
        if kind.is_dir() {
            let prefix = match &arguments.prefix {
                Some(prefix) => prefix.trim_matches('/').to_owned(),
                None => folder_name(path)?,
            };
            walk_folder(path, &prefix, &mut walked);
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let source = join(arguments.prefix.as_deref().unwrap_or_default().trim_matches('/'), &name);
            walked.found.push(Found { path: path.clone(), source, named: true });
        }
    }
    let mut seen = HashSet::new();
    if let Some(twice) = walked.found.iter().find(|file| !seen.insert(&file.source)) {
        let message = format!("two of the paths are both named '{}'; add them with different --prefix", twice.source);
        return Err(Failure::usage(anyhow!(message)));
    }
    Ok(walked)
}

fn folder_name(path: &Path) -> Result<String, Failure> {
    let full = fs::canonicalize(path).map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
    Ok(full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

fn join(prefix: &str, rest: &str) -> String {
    match (prefix, rest) {
        ("", rest) => rest.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, rest) => format!("{prefix}/{rest}"),
    }
}

fn walk_folder(root: &Path, prefix: &str, walked: &mut Walked) {
    let source_of = |path: &Path| {
        let relative = path.strip_prefix(root).unwrap_or(path);
        join(prefix, &relative.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/"))
    };
    let is_file = |path: &String| Path::new(path).is_file();
    let walker =
        ignore::WalkBuilder::new(root).follow_links(true).require_git(false).sort_by_file_path(Ord::cmp).build();
    for entry in walker {
        match entry {
            Ok(entry) => {
                // Following links, so this is what the name leads to. Pipes and devices would block or never end.
                if entry.file_type().is_some_and(|kind| kind.is_file()) {
                    let source = source_of(entry.path());
                    if let Some(page) =
                        pages_saved_with(&entry.path().to_string_lossy()).iter().find(|page| is_file(page))
                    {
                        let page = source_of(Path::new(page));
                        let reason = Some(format!("a part of the saved web page {page}"));
                        walked.reports.push(Report { source, status: "skipped", detail: Value::Null, reason });
                        continue;
                    }
                    walked.found.push(Found { path: entry.into_path(), source, named: false });
                }
            }
            Err(error) => {
                let source = path_of(&error).map_or_else(|| prefix.to_owned(), |path| source_of(&path));
                let is_loop = matches!(innermost(&error), ignore::Error::Loop { .. });
                if !is_loop {
                    walked.unreadable.push(source.clone());
                }
                let reason = if is_loop {
                    "a symbolic link that leads back to a folder above it".to_owned()
                } else {
                    reason(&error)
                };
                let status = if is_loop { "skipped" } else { "failed" };
                walked.reports.push(Report { source, status, detail: Value::Null, reason: Some(reason) });
            }
        }
    }
    walked.complete.push(prefix.to_owned());
}

fn innermost(error: &ignore::Error) -> &ignore::Error {
    match error {
        ignore::Error::WithPath { err, .. }
        | ignore::Error::WithDepth { err, .. }
        | ignore::Error::WithLineNumber { err, .. } => innermost(err),
        other => other,
    }
}

fn path_of(error: &ignore::Error) -> Option<PathBuf> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path.clone()),
        ignore::Error::Loop { child, .. } => Some(child.clone()),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
    }
}

fn reason(error: &ignore::Error) -> String {
    match innermost(error) {
        ignore::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn progress(common: &Common, files: usize) -> ProgressBar {
    if common.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files  {per_sec}  {eta} left  {wide_msg}");
    ProgressBar::new(files as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn sync(backend: &Backend, collection: &str, file: &Found, metadata: &Map<String, Value>, limit: ByteSize) -> Report {
    let report = |status, detail, reason| Report { source: file.source.clone(), status, detail, reason };
    let bytes = match read(&file.path, limit) {
        Ok(bytes) => bytes,
        Err(error) => return report("failed", Value::Null, Some(error.to_string())),
    };
    // What a folder holds beside documents (pictures, archives) is no failure. A file that was emptied is, as long as what
    // it held before stays.
    if !file.named
        && let Some((kind, error)) = left_out(&file.source, &bytes)
        && kind != FileKind::Empty
    {
        return report("skipped", Value::Null, Some(error.to_string()));
    }
    match backend.sync_source(collection, &file.source, bytes, metadata) {
        Ok(detail) => {
            let status = match detail["status"].as_str() {
                Some("created") => "created",
                Some("updated") => "updated",
                Some("unchanged") => "unchanged",
                _ => "failed",
            };
            let reason = detail["errors"].as_array().and_then(|errors| errors.first()).and_then(Value::as_str);
            let reason = reason.map(str::to_owned);
            report(status, detail, reason)
        }
        Err(error) => report("failed", Value::Null, Some(error.to_string())),
    }
}

/// Reads a whole file, at most `limit` bytes; an error when somebody wrote into it meanwhile.
fn read(path: &Path, limit: ByteSize) -> anyhow::Result<Vec<u8>> {
    // Without waiting for the other end, which a named pipe may never have.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        bail!("not a regular file");
    }
    if before.len() > limit.0 {
        bail!("{} is more than ingest.source_bytes_max ({limit})", ByteSize(before.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or_default());
    (&file).take(limit.0 + 1).read_to_end(&mut bytes)?;
    let after = file.metadata()?;
    if bytes.len() as u64 != before.len() || after.len() != before.len() || after.modified()? != before.modified()? {
        bail!("the file changed while it was read; add it again when it is complete");
    }
    Ok(bytes)
}

/// What earlier adds left below the folders that were read to the end.
fn known(backend: &Backend, arguments: &Arguments, complete: &[String]) -> Result<Vec<Known>, Failure> {
    if arguments.keep {
        return Ok(Vec::new());
    }
    let mut known = Vec::new();
    for prefix in complete {
        if prefix.is_empty() {
            eprintln!("--prefix is empty: documents whose files are gone stay, for they may be another folder's");
            continue;
        }
        let sources = backend.sources(&arguments.collection, &format!("{prefix}/"))?;
        known.push(Known { prefix: prefix.clone(), sources });
    }
    Ok(known)
}

/// * `read`: files of the folder that could be read.
/// * `known`: files that were there earlier, `gone` of them are not any more.
fn judge(read: usize, known: usize, gone: usize) -> Verdict {
    match (read, gone) {
        (_, 0) => Verdict::Delete,
        (0, _) => Verdict::Keep,
        (_, gone) if gone > GONE_UNASKED && gone * 2 > known => Verdict::Ask,
        _ => Verdict::Delete,
    }
}

/// Deletes the documents of files that are no longer in the folders. Returns why some were kept that somebody may not want.
fn remove_gone(
    backend: &Backend,
    arguments: &Arguments,
    found: &[Found],
    unreadable: &[String],
    known: &[Known],
    reports: &mut Vec<Report>,
) -> Result<Vec<String>, Failure> {
    let present: HashSet<&str> = found.iter().map(|file| file.source.as_str()).collect();
    let is_out_of_reach =
        |source: &str| unreadable.iter().any(|place| source == *place || source.starts_with(&format!("{place}/")));
    let mut refusals = Vec::new();
    for Known { prefix, sources } in known {
        let gone: Vec<&(String, u64)> = sources
            .iter()
            .filter(|(source, _)| !present.contains(source.as_str()) && !is_out_of_reach(source))
            .collect();
        let below = format!("{prefix}/");
        let read = reports.iter().filter(|report| report.went_in() && report.source.starts_with(&below)).count();
        let gone_files = || {
            let (gone, known) = (output::thousands(gone.len() as u64), output::thousands(sources.len() as u64));
            format!("{gone} of {known} files below '{below}' are gone")
        };
        match judge(read, sources.len(), gone.len()) {
            _ if arguments.delete_all => {}
            Verdict::Delete => {}
            Verdict::Keep => {
                let documents = output::counted(gone.iter().map(|(_, documents)| documents).sum(), "document");
                eprintln!(
                    "nothing was read below '{below}'; {documents} of earlier files are kept, pass --delete-all to remove them"
                );
                continue;
            }
            Verdict::Ask if arguments.yes => {}
            Verdict::Ask if std::io::stdin().is_terminal() => {
                if documents::confirm(&format!("{}; delete their documents?", gone_files())).is_err() {
                    refusals.push(format!("{}; their documents are kept", gone_files()));
                    continue;
                }
            }
            Verdict::Ask => {
                refusals.push(format!("{}; their documents are kept, pass --yes to delete them", gone_files()));
                continue;
            }
        }
        for (source, _) in gone {
            let source = source.clone();
            reports.push(match backend.delete_source(&arguments.collection, &source) {
                Ok(documents) => {
                    Report { source, status: "deleted", detail: json!({"deleted": documents}), reason: None }
                }
                Err(error) => Report { source, status: "failed", detail: Value::Null, reason: Some(error.to_string()) },
            });
        }
    }
    Ok(refusals)
}

fn dry_run(common: &Common, walked: &Walked) -> Result<(), Failure> {
    if common.json {
        let files: Vec<&str> = walked.found.iter().map(|file| file.source.as_str()).collect();
        return output::json(&json!({"dry_run": true, "files": files}));
    }
    for file in &walked.found {
        output::line(&file.source)?;
    }
    for report in &walked.reports {
        eprintln!("{}: {}", report.source, report.reason.as_deref().unwrap_or_default());
    }
    eprintln!("{} would be read", output::counted(walked.found.len() as u64, "file"));
    Ok(())
}

fn show(
    common: &Common,
    arguments: &Arguments,
    reports: &[Report],
    mut problems: Vec<String>,
    seconds: f64,
) -> Result<(), Failure> {
    let count = |status: &str| reports.iter().filter(|report| report.status == status).count();
    let sum = |name: &str| reports.iter().filter_map(|report| report.detail[name].as_u64()).sum::<u64>();
    let failed = count("failed");
    if common.json {
        let files: Vec<Value> = reports
            .iter()
            .map(|report| {
                let mut file = json!({"source": report.source, "status": report.status});
                if let Some(reason) = &report.reason {
                    file["reason"] = reason.as_str().into();
                }
                if let Some(warnings) = report.detail["warnings"].as_array().filter(|warnings| !warnings.is_empty()) {
                    file["warnings"] = warnings.clone().into();
                }
                file
            })
            .collect();
        output::json(&json!({
            "collection": arguments.collection, "created": count("created"), "updated": count("updated"),
            "unchanged": count("unchanged"), "deleted": count("deleted"), "skipped": count("skipped"), "failed": failed,
            "passages": sum("passages"), "seconds": (seconds * 1000.0).round() / 1000.0, "files": files,
        }))?;
    } else {
        for report in reports {
            let quiet = matches!(report.status, "unchanged" | "skipped") && !arguments.verbose;
            if !quiet {
                let reason = report.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                output::line(&format!("{:<9}  {}{reason}", report.status, report.source))?;
            }
            for warning in report.detail["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                output::line(&format!("           {}", output::dim(&format!("warning: {warning}"))))?;
            }
        }
        let mut parts: Vec<String> = Vec::new();
        for status in ["created", "updated", "unchanged", "deleted", "skipped", "failed"] {
            if count(status) > 0 {
                parts.push(format!("{} {status}", count(status)));
            }
        }
        let parts = if parts.is_empty() { "nothing to read".to_owned() } else { parts.join(", ") };
        let passages = output::counted(sum("passages"), "passage");
        eprintln!("{}: {parts}; {passages} written in {seconds:.1} s", arguments.collection);
    }
    if failed > 0 {
        let were = if failed == 1 { "was" } else { "were" };
        let others = if reports.iter().any(Report::went_in) { "; the others are in" } else { "" };
        problems.insert(0, format!("{} {were} not read{others}", output::counted(failed as u64, "file")));
    }
    if problems.is_empty() { Ok(()) } else { Err(anyhow!(problems.join("\n")).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_much_is_asked_for_and_deleting_all_of_an_empty_folder_is_not_done() {
        for (read, known, gone, verdict) in [
            (0, 0, 0, Verdict::Delete),
            (5, 5, 0, Verdict::Delete),
            (0, 5, 5, Verdict::Keep),
            (0, 500, 1, Verdict::Keep),
            (1, 10, 10, Verdict::Delete),
            (1, 11, 11, Verdict::Ask),
            (100, 11, 11, Verdict::Ask),
            (11, 22, 11, Verdict::Delete),
            (10, 21, 11, Verdict::Ask),
            (900, 1_000, 100, Verdict::Delete),
        ] {
            assert_eq!(judge(read, known, gone), verdict, "{read} read, {gone} of {known} gone");
        }
    }

    #[test]
    fn metadata_is_what_it_looks_like() {
        let pairs = ["site=north", "year=2026", "live=true", "code=007", "note=a=b"].map(str::to_owned);
        let expected = json!({"site": "north", "year": 2026, "live": true, "code": "007", "note": "a=b"});
        assert_eq!(Value::Object(read_metadata(&pairs).expect("pairs")), expected);
        assert!(read_metadata(&["=x".to_owned()]).is_err());
    }
}
