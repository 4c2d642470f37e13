//! From paths to files with the names that they have in a collection.
//!
//! Invariant: whatever a folder holds, each of its files is found or has a report of its own; no name ends the walk.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use indicatif::ProgressBar;
use parking_lot::Mutex;

use super::report::{Kind, Report, Status};
use super::{Arguments, Failure};
use crate::ingest::{FileKind, pages_saved_with};

/// File systems in which the kernel shows itself, and no documents are: `f_type` of statfs(2). Links there lead all over the
/// machine, time and again.
const OF_THE_KERNEL: [u64; 16] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinux
    0xcafe_4a11, // bpf
    0x4249_4e4d, // binfmt_misc
    0x6265_6570, // configfs
    0x6573_5543, // fusectl
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x1980_0202, // mqueue
    0x1cd1,      // devpts
];

const DEAD_LINK: &str = "a link that leads nowhere";

/// A file to be read.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    /// Its name in the collection.
    pub(super) source: String,
    /// Named by the user, so its failure is one; found in a folder it may be skipped.
    pub(super) named: bool,
    /// Bytes, as far as known.
    pub(super) length: u64,
}

/// A folder that was read completely: files that were not found are deleted.
pub(super) struct Folder {
    pub(super) prefix: String,
    /// Absolute, without links.
    pub(super) path: PathBuf,
}

/// The result of a walk.
#[derive(Default)]
pub(super) struct WalkResult {
    pub(super) found: Vec<SourceFile>,
    pub(super) reports: Vec<Report>,
    pub(super) complete: Vec<Folder>,
    /// Prefixes below which something could not be read: nothing there counts as deleted.
    pub(super) unreadable: Vec<String>,
}

/// * `bar`: shows how many files were found so far.
pub(super) fn walk(arguments: &Arguments, bar: &ProgressBar) -> Result<WalkResult, Failure> {
    let mut walked = WalkResult::default();
    for path in &arguments.paths {
        let kind = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if kind.is_dir() {
            let full = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
            let prefix = match &arguments.prefix {
                Some(prefix) => prefix.trim_matches('/').to_owned(),
                None => full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            };
            if let Some(other) = walked.complete.iter().find(|folder| folder.prefix == prefix) {
                if other.path == full {
                    continue;
                }
                return Err(Failure::usage(anyhow!(
                    "{} and {} would both be '{prefix}/': add them one by one, each with a --prefix of its own",
                    other.path.display(),
                    full.display()
                )));
            }
            walk_folder(path, &prefix, &mut walked, bar);
            walked.complete.push(Folder { prefix, path: full });
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let source = join(arguments.prefix.as_deref().unwrap_or_default().trim_matches('/'), &name);
            walked.found.push(SourceFile { path: path.clone(), source, named: true, length: kind.len() });
        }
    }
    leave_out_twins(&mut walked)?;
    Ok(walked)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let shown = path.display().to_string();
    if shown.starts_with("http://") || shown.starts_with("https://") {
        let hint = "save what is there first, for example with `curl -LO`, and add the file";
        return Failure::usage(anyhow!("addresses are not fetched: {shown}; {hint}"));
    }
    if leads_nowhere(path) {
        return anyhow!("cannot read {shown}: {DEAD_LINK}").into();
    }
    anyhow!("cannot read {shown}: {error}").into()
}

/// Two files with the same name: if they were given by name, that is an error to fix first; one in a folder is left
/// out, since this program cannot decide which one the name belongs to.
fn leave_out_twins(walked: &mut WalkResult) -> Result<(), Failure> {
    let WalkResult { found, reports, .. } = walked;
    let mut first: HashMap<&str, &Path> = HashMap::with_capacity(found.len());
    let mut is_kept = Vec::with_capacity(found.len());
    for file in &*found {
        let other = *first.entry(&file.source).or_insert(&file.path);
        // The first of a name is its own other.
        let is_first = std::ptr::eq(other, file.path.as_path());
        is_kept.push(is_first);
        if is_first || other == file.path {
            continue;
        }
        if file.named {
            let message =
                format!("two of the paths are both named '{}'; add them with different --prefix", file.source);
            return Err(Failure::usage(anyhow!(message)));
        }
        let reason = format!("its name becomes that of {}; rename one of them", other.display());
        reports.push(Report::new(file.source.clone(), Status::Failed).because(reason));
    }
    let mut is_kept = is_kept.into_iter();
    found.retain(|_| is_kept.next().unwrap_or(true));
    Ok(())
}

fn join(prefix: &str, rest: &str) -> String {
    match (prefix, rest) {
        ("", rest) => rest.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, rest) => format!("{prefix}/{rest}"),
    }
}

/// Whether a folder is in one of [`OF_THE_KERNEL`].
fn is_of_the_kernel(folder: &Path) -> bool {
    let kind = rustix::fs::statfs(folder).ok().and_then(|stat| u64::try_from(stat.f_type).ok());
    kind.is_some_and(|kind| OF_THE_KERNEL.contains(&kind))
}

fn walk_folder(root: &Path, prefix: &str, walked: &mut WalkResult, bar: &ProgressBar) {
    let source_of = |path: &Path| {
        let relative = path.strip_prefix(root).unwrap_or(path);
        join(prefix, &relative.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/"))
    };
    let of_the_kernel: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let left_out = Arc::clone(&of_the_kernel);
    let walker = ignore::WalkBuilder::new(root)
        .follow_links(true)
        .require_git(false)
        .sort_by_file_path(Ord::cmp)
        .filter_entry(move |entry| {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            // A link that is given by name is followed.
            if entry.depth() == 0 || !is_folder || !is_of_the_kernel(entry.path()) {
                return true;
            }
            left_out.lock().push(entry.path().to_owned());
            false
        })
        .build();
    for entry in walker {
        match entry {
            Ok(entry) => {
                // Following links, so this is what the name leads to. Pipes and devices would block or never end.
                if entry.file_type().is_some_and(|kind| kind.is_file()) {
                    let source = source_of(entry.path());
                    let pages = pages_saved_with(&entry.path().to_string_lossy());
                    if let Some(page) = pages.iter().find(|page| Path::new(page).is_file()) {
                        let reason = format!("a part of the saved web page {}", source_of(Path::new(page)));
                        let status = Status::Skipped(Kind::File(FileKind::PageAsset));
                        walked.reports.push(Report::new(source, status).because(reason));
                        continue;
                    }
                    let length = entry.metadata().map_or(1, |found| found.len());
                    walked.found.push(SourceFile { path: entry.into_path(), source, named: false, length });
                    bar.inc(1);
                }
            }
            Err(error) => {
                let path = path_of(&error);
                let source = path.as_deref().map_or_else(|| prefix.to_owned(), source_of);
                let is_loop = matches!(innermost(&error), ignore::Error::Loop { .. });
                if !is_loop {
                    // What such a link led to before may only be not mounted.
                    walked.unreadable.push(source.clone());
                }
                let (status, reason) = match path {
                    _ if is_loop => {
                        (Status::Skipped(Kind::Link), "a symbolic link that leads back to a folder above it".to_owned())
                    }
                    Some(path) if leads_nowhere(&path) => (Status::Skipped(Kind::DeadLink), DEAD_LINK.to_owned()),
                    _ => (Status::Failed, reason(&error)),
                };
                walked.reports.push(Report::new(source, status).because(reason));
            }
        }
    }
    for folder in &*of_the_kernel.lock() {
        let reason = "a file system of the kernel, which holds no documents".to_owned();
        walked.reports.push(Report::new(source_of(folder), Status::Skipped(Kind::OfTheKernel)).because(reason));
    }
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
        ignore::Error::Io(error) => in_words(error),
        other => other.to_string(),
    }
}

/// Whether it is a link without anything at its end.
fn leads_nowhere(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    is_link
        && fs::metadata(path).is_err_and(|error| {
            let is_missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            is_missing || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
        })
}

/// Why a file or folder was not read, without a library's words around it: the path is printed separately.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::NotFound => "it went away meanwhile".to_owned(),
        _ => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            cause.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_file_was_not_read_is_said_in_words() {
        let inner = io::Error::from_raw_os_error(5);
        let words = [in_words(&io::Error::from(io::ErrorKind::PermissionDenied)), in_words(&io::Error::other(inner))];
        assert_eq!(words[0], "this user may not read it");
        assert!(words[1].starts_with("Input/output error"), "{}", words[1]);
    }
}
