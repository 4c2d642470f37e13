//! `cairn add`: files and folders into a collection, as a sync.
//!
//! Invariant: what it says of a file is so. A node that goes away is waited for; where nothing more can be written, nothing more is
//! tried, and the rest is named as not added.

mod origin;
mod report;
mod walk;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use self::report::{Kind, Report, Status};
use self::walk::{SourceFile, WalkResult};
use super::backend::{Absent, Backend, Stay, beside_service};
use super::{Common, Failure, UNREACHABLE, documents, output};
use crate::base::ByteSize;
use crate::ingest::{FileKind, left_out};
use crate::mcp::ErrorCode;

/// Files being read or written at once: enough to share each disk sync among several.
const IN_FLIGHT: usize = 16;
/// Files that may be missing from a folder without a question, however small it is.
const GONE_UNASKED: usize = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn add docs/ -c manual                 a folder; run it again after changes
  cairn add report.pdf notes.md -c papers   single files
  cairn add docs/ -c manual --dry-run       only show what would be read

A folder is kept in sync: new and changed files are written, unchanged ones are left alone, and documents whose files are \
gone or empty are deleted (--keep leaves them). A folder is known by its name, and the collection remembers where it came from: \
another folder of the same name is refused, give it a --prefix of its own. Nothing is deleted when nothing of the folder could \
be read, or with an empty --prefix; when more than half of a folder's files are gone, and more than 10, it asks first.

Files listed in .gitignore and hidden files are left out. Markdown, text, HTML, saved web pages, mail, PDF, notebooks, SVG, source \
code, JSON, JSON lines and CSV are read; what else a folder holds is skipped and counted.

Exit code 1 means that something that should be stored is not. A file of a folder that no parser can read counts once, until \
its content changes; -v still lists it. A file that this user may not read counts each time, because its content is unknown: \
make it readable, or name it in .gitignore.")]
pub(super) struct Arguments {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Collection; created if it does not exist
    #[arg(short, long, env = "CAIRN_COLLECTION", default_value = "default")]
    collection: String,
    /// Metadata for every document, for filters; may be repeated
    #[arg(long = "meta", value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Prefix of each path in document ids [default: the folder's name]
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// The folder has moved: remember its new path
    #[arg(long)]
    moved: bool,
    /// Keep documents whose files are gone
    #[arg(long)]
    keep: bool,
    /// Do not ask before deleting many documents
    #[arg(short, long)]
    yes: bool,
    /// Delete documents whose files are gone even if nothing could be read
    #[arg(long, conflicts_with = "keep")]
    delete_all: bool,
    /// Show what would be read, and stop
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for a node that restarts or is overloaded
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = super::output::duration)]
    wait: Duration,
    /// List unchanged and skipped files too
    #[arg(short, long)]
    verbose: bool,
}

/// Sources that an earlier add stored below a prefix, each with the number of its documents.
struct EarlierSources {
    prefix: String,
    sources: Vec<(String, u64)>,
}

impl EarlierSources {
    /// The prefix of the names below it.
    fn below(&self) -> String {
        format!("{}/", self.prefix)
    }
}

/// What to do with the documents whose files are missing from a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoneFiles {
    /// They go.
    Delete,
    /// Deleted after confirmation: it looks like another folder with that name.
    Ask,
    /// Kept: it looks like a disk that is not mounted.
    Keep,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let start = Instant::now();
    let metadata = read_metadata(&arguments.metadata)?;
    let config = common.load()?;
    let limit = config.ingest.source_bytes_max;
    let looking = looking(common);
    let walked = walk::walk(arguments, &looking);
    looking.finish_and_clear();
    let mut walked = walked?;
    if arguments.dry_run {
        return report::dry_run(common, &walked);
    }
    let backend = common.backend_for(Stay::Long, Absent::Make)?.patient(arguments.wait);
    if backend.address().is_none()
        && let Some(note) = beside_service(&config.data_dir)
    {
        eprintln!("{note}");
    }
    let folders = origin::check(&backend, arguments, &walked)?;
    // Before anything is written, so that new files do not hide how many are missing.
    let known = earlier_sources(&backend, arguments, &walked, &folders)?;
    let mut problems = hold_emptied(arguments, &mut walked, &known);
    let bar = progress(common, walked.found.len());
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(std::mem::take(&mut walked.reports));
    let work = Work {
        backend: &backend,
        collection: &arguments.collection,
        metadata: &metadata,
        limit,
        known: known.iter().flat_map(|known| known.sources.iter().map(|(source, _)| source.as_str())).collect(),
        stopped: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 0..IN_FLIGHT.min(walked.found.len()) {
            scope.spawn(|| {
                // Other requests to the node have priority, on this machine too.
                crate::task::give_way();
                while let Some(file) = walked.found.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bar.set_message(output::visible(&file.source));
                    let report = work.sync(file);
                    reports.lock().push(report);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let stopped = work.stopped.into_inner();
    let mut reports = reports.into_inner();
    if stopped.as_ref().is_none_or(|stop| stop.is_for_room) {
        problems.extend(remove_gone(&backend, arguments, &walked, &known, &mut reports)?);
        let changed = |report: &Report| matches!(report.status, Status::Created | Status::Updated | Status::Deleted);
        if reports.iter().any(changed)
            && let Err(error) = backend.flush()
        {
            problems.push(format!("the files were stored but are not searchable yet: {error}"));
        }
    }
    reports.sort_by(|left, right| left.source.cmp(&right.source));
    let stopped = stopped.map(|stop| stop.reason);
    report::print_report(common, arguments, &reports, problems, stopped.as_deref(), start.elapsed().as_secs_f64())
}

/// Why nothing more can be written.
struct Stop {
    reason: String,
    /// The node refuses writes that need space: deletes are still made.
    is_for_room: bool,
}

/// The state shared by the threads that read and write.
struct Work<'a> {
    backend: &'a Backend,
    collection: &'a str,
    metadata: &'a Map<String, Value>,
    limit: ByteSize,
    /// Sources that were there before.
    known: HashSet<&'a str>,
    stopped: Mutex<Option<Stop>>,
}

impl Work<'_> {
    /// A file that is not a document, or no longer one: its previous content is gone.
    fn leave_out(&self, file: &SourceFile, kind: FileKind) -> Report {
        let report = |status| Report::new(file.source.clone(), status);
        if !self.known.contains(file.source.as_str()) {
            return report(Status::Skipped(Kind::File(kind)));
        }
        match self.backend.delete_source(self.collection, &file.source) {
            Ok(documents) => Report { detail: json!({"deleted": documents}), ..report(Status::Deleted) },
            Err(failure) => self.failed(file, &failure),
        }
    }

    /// What a failure means for a file, and for all later ones.
    fn failed(&self, file: &SourceFile, failure: &Failure) -> Report {
        let report = |status| Report { named: file.named, ..Report::new(file.source.clone(), status) };
        match failure.code_of_tool() {
            Some(ErrorCode::StillUnread) => report(Status::StillFailed).because(failure.to_string()),
            // The same for every file: reported once.
            code if failure.code == UNREACHABLE || code == Some(ErrorCode::ReadOnly) => {
                let is_for_room = failure.code != UNREACHABLE;
                self.stopped.lock().get_or_insert_with(|| Stop { reason: failure.to_string(), is_for_room });
                report(Status::NotTried)
            }
            _ => report(Status::Failed).because(failure.to_string()),
        }
    }

    fn sync(&self, file: &SourceFile) -> Report {
        let report = |status| Report { named: file.named, ..Report::new(file.source.clone(), status) };
        if self.stopped.lock().is_some() {
            return report(Status::NotTried);
        }
        let bytes = match read(&file.path, self.limit) {
            Ok(bytes) => bytes,
            Err(error) => {
                return report(Status::Failed)
                    .because(error.downcast_ref().map_or_else(|| error.to_string(), walk::in_words));
            }
        };
        // Other files in a folder (pictures, archives) are not a failure.
        if !file.named
            && let Some((kind, error)) = left_out(&file.source, &bytes)
            && kind != FileKind::Empty
        {
            return self.leave_out(file, kind).because(error.to_string());
        }
        match self.backend.sync_source(self.collection, &file.source, bytes, self.metadata) {
            Ok(detail) => {
                let status = match detail["status"].as_str() {
                    Some("created") => Status::Created,
                    Some("updated") => Status::Updated,
                    // It was not there before this command: an earlier try wrote it, and was not heard of.
                    Some("unchanged") if detail["repeated"] == true && !self.known.contains(file.source.as_str()) => {
                        Status::Created
                    }
                    Some("unchanged") => Status::Unchanged,
                    Some("deleted") => Status::Deleted,
                    Some("empty") => Status::Skipped(Kind::File(FileKind::Empty)),
                    _ => Status::Failed,
                };
                let reason = match status {
                    Status::Deleted | Status::Skipped(_) => Some("there is no text in it".to_owned()),
                    _ => detail["errors"].as_array().and_then(|errors| errors.first()?.as_str()).map(str::to_owned),
                };
                Report { detail, reason, ..report(status) }
            }
            Err(failure) => self.failed(file, &failure),
        }
    }
}

fn read_metadata(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    pairs
        .iter()
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| Failure::usage(anyhow!("--meta '{pair}': expected KEY=VALUE")))?;
            // Numbers and booleans are recognised; everything else is text.
            let value = match serde_json::from_str::<Value>(value) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
                _ => Value::String(value.to_owned()),
            };
            Ok((key.to_owned(), value))
        })
        .collect()
}

/// How many files were found so far: a large disk takes minutes.
fn looking(common: &Common) -> ProgressBar {
    if !output::is_watched(common) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} looking for files: {human_pos} found");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn progress(common: &Common, files: usize) -> ProgressBar {
    if !output::is_watched(common) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files  {rate}/s  {eta} left  {wide_msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(files as u64).with_style(style.with_key("rate", output::rate))
}

/// Reads a whole file, at most `limit` bytes; an error when it was written to meanwhile.
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
fn earlier_sources(
    backend: &Backend,
    arguments: &Arguments,
    walked: &WalkResult,
    folders: &[crate::collection::Folder],
) -> Result<Vec<EarlierSources>, Failure> {
    let mut known = Vec::new();
    for folder in &walked.complete {
        if folder.prefix.is_empty() {
            if !arguments.keep {
                eprintln!("--prefix is empty: documents whose files are gone stay, for they may be another folder's");
            }
            continue;
        }
        let mut sources = backend.sources(&arguments.collection, &format!("{}/", folder.prefix))?;
        let foreign = origin::foreign(folder, folders);
        sources.retain(|(source, _)| !foreign.iter().any(|prefix| source.starts_with(prefix)));
        known.push(EarlierSources { prefix: folder.prefix.clone(), sources });
    }
    Ok(known)
}

/// Skips files that were not empty when they were added and are now, if that looks like a broken copy rather than
/// intention, until the user confirms. Returns why.
fn hold_emptied(arguments: &Arguments, walked: &mut WalkResult, known: &[EarlierSources]) -> Vec<String> {
    let mut problems = Vec::new();
    for folder in known {
        let before: HashMap<&str, u64> =
            folder.sources.iter().map(|(source, count)| (source.as_str(), *count)).collect();
        let is_emptied =
            |file: &SourceFile| file.length == 0 && !file.named && before.contains_key(file.source.as_str());
        let emptied = walked.found.iter().filter(|file| is_emptied(file)).count();
        // One that can be read says that the folder is there.
        if judge(1, before.len(), emptied) != GoneFiles::Ask || arguments.yes || arguments.delete_all {
            continue;
        }
        let (emptied, all) = (output::thousands(emptied as u64), output::thousands(before.len() as u64));
        let found = format!("{emptied} of {all} files below '{}' are empty now", folder.below());
        let is_wanted =
            std::io::stdin().is_terminal() && documents::confirm(&format!("{found}; delete their documents?")).is_ok();
        if !is_wanted {
            problems.push(format!("{found}; their documents are kept, pass --yes to delete them"));
            let (held, others) = std::mem::take(&mut walked.found).into_iter().partition(is_emptied);
            walked.found = others;
            // Left out, but there.
            let held: Vec<SourceFile> = held;
            walked.unreadable.extend(held.into_iter().map(|file| file.source));
        }
    }
    problems
}

/// * `read`: files of the folder that could be read.
/// * `known`: files that were there earlier, `gone` of them are missing now.
fn judge(read: usize, known: usize, gone: usize) -> GoneFiles {
    match (read, gone) {
        (_, 0) => GoneFiles::Delete,
        (0, _) => GoneFiles::Keep,
        (_, gone) if gone > GONE_UNASKED && gone * 2 > known => GoneFiles::Ask,
        _ => GoneFiles::Delete,
    }
}

/// Deletes the documents of files that are no longer in the folders. Returns why some were kept although they may be
/// unwanted.
fn remove_gone(
    backend: &Backend,
    arguments: &Arguments,
    walked: &WalkResult,
    known: &[EarlierSources],
    reports: &mut Vec<Report>,
) -> Result<Vec<String>, Failure> {
    let mut refusals = Vec::new();
    if arguments.keep {
        return Ok(refusals);
    }
    // Two files of one name are there too, though one of them is not in.
    let failed = reports.iter().filter(|report| report.status == Status::Failed).map(|report| &report.source);
    let present: HashSet<String> = walked.found.iter().map(|file| &file.source).chain(failed).cloned().collect();
    let is_out_of_reach =
        |source: &str| walked.unreadable.iter().any(|path| source == *path || source.starts_with(&format!("{path}/")));
    for folder in known {
        let EarlierSources { prefix: _, sources } = folder;
        let gone: Vec<&(String, u64)> =
            sources.iter().filter(|(source, _)| !present.contains(source) && !is_out_of_reach(source)).collect();
        let below = folder.below();
        let is_there =
            |report: &Report| report.went_in() || matches!(report.status, Status::NotTried | Status::Deleted);
        let read = reports.iter().filter(|report| is_there(report) && report.source.starts_with(&below)).count();
        let gone_files = || {
            let (gone, known) = (output::thousands(gone.len() as u64), output::thousands(sources.len() as u64));
            format!("{gone} of {known} files below '{below}' are gone")
        };
        match judge(read, sources.len(), gone.len()) {
            _ if arguments.delete_all => {}
            GoneFiles::Delete => {}
            GoneFiles::Keep => {
                let documents = gone.iter().map(|(_, documents)| documents).sum();
                let (documents, are) =
                    (output::counted(documents, "document"), if documents == 1 { "is" } else { "are" });
                eprintln!(
                    "nothing was read below '{below}'; {documents} of earlier files {are} kept, pass --delete-all to remove them"
                );
                continue;
            }
            GoneFiles::Ask if arguments.yes => {}
            GoneFiles::Ask if std::io::stdin().is_terminal() => {
                if documents::confirm(&format!("{}; delete their documents?", gone_files())).is_err() {
                    refusals.push(format!("{}; their documents are kept", gone_files()));
                    continue;
                }
            }
            GoneFiles::Ask => {
                refusals.push(format!("{}; their documents are kept, pass --yes to delete them", gone_files()));
                continue;
            }
        }
        for (source, _) in gone {
            let source = source.clone();
            reports.push(match backend.delete_source(&arguments.collection, &source) {
                Ok(documents) => {
                    Report { detail: json!({"deleted": documents}), ..Report::new(source, Status::Deleted) }
                }
                // As for each that would follow; where nothing could be written before, it was reported already.
                Err(failure) if failure.code == UNREACHABLE || failure.code_of_tool() == Some(ErrorCode::ReadOnly) => {
                    if !reports.iter().any(|report| report.status == Status::NotTried) {
                        refusals.push(format!("{failure}; the documents of files that are gone are kept"));
                    }
                    return Ok(refusals);
                }
                Err(failure) => Report::new(source, Status::Failed).because(failure.to_string()),
            });
        }
    }
    Ok(refusals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_much_is_asked_for_and_deleting_all_of_an_empty_folder_is_not_done() {
        for (read, known, gone, verdict) in [
            (0, 0, 0, GoneFiles::Delete),
            (5, 5, 0, GoneFiles::Delete),
            (0, 5, 5, GoneFiles::Keep),
            (0, 500, 1, GoneFiles::Keep),
            (1, 10, 10, GoneFiles::Delete),
            (1, 11, 11, GoneFiles::Ask),
            (100, 11, 11, GoneFiles::Ask),
            (11, 22, 11, GoneFiles::Delete),
            (10, 21, 11, GoneFiles::Ask),
            (900, 1_000, 100, GoneFiles::Delete),
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
