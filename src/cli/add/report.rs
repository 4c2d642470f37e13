//! The report on each file, for people and programs.

use std::collections::BTreeSet;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::super::{Common, Failure, output};
use super::Arguments;
use super::walk::WalkResult;
use crate::ingest::FileKind;

/// The outcome of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Updated,
    Unchanged,
    /// It was deleted, or no longer contains text.
    Deleted,
    /// Nothing that is read.
    Skipped(Kind),
    Failed,
    /// As when the same bytes were added last.
    StillFailed,
    /// Nothing more could be written when its turn came.
    NotTried,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
            Self::Skipped(_) => "skipped",
            Self::Failed | Self::StillFailed => "failed",
            Self::NotTried => "not_tried",
        }
    }
}

/// Why a file in a folder is not a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    File(FileKind),
    /// A link to a folder above it.
    Link,
    /// A link without anything at its end.
    DeadLink,
    /// A folder in which the kernel shows itself.
    OfTheKernel,
}

impl Kind {
    /// What `count` of it are called.
    fn label(self, count: usize) -> &'static str {
        match self {
            Self::File(kind) => kind.label(count),
            Self::Link if count == 1 => "link that leads back",
            Self::Link => "links that lead back",
            Self::DeadLink if count == 1 => "link that leads nowhere",
            Self::DeadLink => "links that lead nowhere",
            Self::OfTheKernel if count == 1 => "file system of the kernel",
            Self::OfTheKernel => "file systems of the kernel",
        }
    }

    /// Whether its content may be missed.
    fn has_text(self) -> bool {
        matches!(self, Self::File(kind) if kind.has_text())
    }
}

/// A file with what became of it.
pub(super) struct Report {
    pub(super) source: String,
    pub(super) status: Status,
    /// The node's answer.
    pub(super) detail: Value,
    pub(super) reason: Option<String>,
    /// Named by the user.
    pub(super) named: bool,
}

impl Report {
    pub(super) fn new(source: String, status: Status) -> Self {
        Self { source, status, detail: Value::Null, reason: None, named: false }
    }

    pub(super) fn because(self, reason: String) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// Whether the file's documents are there now.
    pub(super) fn went_in(&self) -> bool {
        matches!(self.status, Status::Created | Status::Updated | Status::Unchanged)
    }

    /// Whether it affects the exit code: a file that cannot be read is news once, unless it was given by name.
    fn is_news(&self) -> bool {
        self.status == Status::Failed || (self.status == Status::StillFailed && self.named)
    }

    /// Whether it has a line of its own.
    fn is_told(&self, verbose: bool) -> bool {
        match self.status {
            Status::Created | Status::Updated | Status::Deleted | Status::Failed => true,
            Status::Unchanged => verbose,
            Status::Skipped(_) | Status::StillFailed => verbose || self.named,
            // Together they have one.
            Status::NotTried => false,
        }
    }
}

/// Says what a walk found.
pub(super) fn dry_run(common: &Common, walked: &WalkResult) -> Result<(), Failure> {
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

/// `6 Office documents (docx, xlsx), 3 images, 1 archive`, the most first.
fn skipped(reports: &[Report]) -> Vec<(Kind, usize, BTreeSet<String>)> {
    let mut kinds: Vec<(Kind, usize, BTreeSet<String>)> = Vec::new();
    for report in reports {
        let Status::Skipped(kind) = report.status else { continue };
        let index = kinds.iter().position(|(known, ..)| *known == kind).unwrap_or_else(|| {
            kinds.push((kind, 0, BTreeSet::new()));
            kinds.len() - 1
        });
        let (_, count, extensions) = &mut kinds[index];
        *count += 1;
        if let Some((_, extension)) = report.source.rsplit('/').next().and_then(|name| name.rsplit_once('.')) {
            extensions.insert(extension.to_ascii_lowercase());
        }
    }
    kinds.sort_by_key(|(kind, count, _)| (std::cmp::Reverse(*count), *kind));
    kinds
}

/// The same in words.
fn skipped_words(reports: &[Report]) -> Option<String> {
    let kinds = skipped(reports);
    let all: usize = kinds.iter().map(|(_, count, _)| count).sum();
    let words = kinds.iter().map(|(kind, count, extensions)| {
        let name = kind.label(*count);
        let extensions: Vec<&str> = extensions.iter().map(String::as_str).collect();
        // Anyone who misses a file wants to know which ones they are.
        let which = if kind.has_text() { format!(" ({})", extensions.join(", ")) } else { String::new() };
        format!("{} {name}{which}", output::thousands(*count as u64))
    });
    let words: Vec<String> = words.collect();
    (all > 0).then(|| format!("{} skipped: {}", output::thousands(all as u64), words.join(", ")))
}

/// Says what became of the files.
///
/// * `problems`: what else is not as it was asked for.
/// * `stopped`: why nothing more could be written.
pub(super) fn print_report(
    common: &Common,
    arguments: &Arguments,
    reports: &[Report],
    mut problems: Vec<String>,
    stopped: Option<&str>,
    seconds: f64,
) -> Result<(), Failure> {
    let count = |status: &str| reports.iter().filter(|report| report.status.as_str() == status).count();
    let sum = |name: &str| reports.iter().filter_map(|report| report.detail[name].as_u64()).sum::<u64>();
    let news = reports.iter().filter(|report| report.is_news()).count();
    if let Some(reason) = stopped {
        let (left, all) = (count("not_tried"), reports.len());
        problems.insert(
            0,
            format!(
                "{reason}; {} of {} {} not added, run the same command again to continue",
                output::thousands(left as u64),
                output::counted(all as u64, "file"),
                if left == 1 { "is" } else { "are" }
            ),
        );
    }
    if news > 0 {
        let were = if news == 1 { "was" } else { "were" };
        let others = if reports.iter().any(Report::went_in) { "; the others are in" } else { "" };
        let others = if stopped.is_some() { "" } else { others };
        problems.insert(0, format!("{} {were} not read{others}", output::counted(news as u64, "file")));
    }
    let failure = (!problems.is_empty()).then(|| Failure::from(anyhow!(problems.join("\n"))));
    if common.json {
        let files: Vec<Value> = reports.iter().map(as_json).collect();
        let kinds: Vec<Value> = skipped(reports)
            .into_iter()
            .map(|(kind, count, extensions)| json!({"kind": kind.label(1), "files": count, "extensions": extensions}))
            .collect();
        let mut answer = json!({
            "collection": arguments.collection, "created": count("created"), "updated": count("updated"),
            "unchanged": count("unchanged"), "deleted": count("deleted"), "skipped": count("skipped"),
            "skipped_by_kind": kinds, "failed": count("failed"), "not_tried": count("not_tried"),
            "passages": sum("passages"), "seconds": (seconds * 1000.0).round() / 1000.0, "files": files,
        });
        if let Some(failure) = &failure {
            answer["error"] = failure.as_tool_error().to_json()["error"].take();
        }
        output::json(&answer)?;
        return failure.map_or(Ok(()), Err);
    }
    for report in reports.iter().filter(|report| report.is_told(arguments.verbose)) {
        let reason = report.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        output::line(&format!("{:<9}  {}{reason}", report.status.as_str(), report.source))?;
        for warning in report.detail["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output::line(&format!("           {}", output::dim(&format!("warning: {warning}"))))?;
        }
    }
    let mut parts: Vec<String> = Vec::new();
    for status in ["created", "updated", "unchanged", "deleted", "skipped", "failed"] {
        if count(status) > 0 {
            parts.push(format!("{} {status}", output::thousands(count(status) as u64)));
        }
    }
    if count("not_tried") > 0 {
        parts.push(format!("{} not tried", output::thousands(count("not_tried") as u64)));
    }
    let parts = if parts.is_empty() { "nothing to read".to_owned() } else { parts.join(", ") };
    let passages = output::counted(sum("passages"), "passage");
    eprintln!("{}: {parts}; {passages} written in {seconds:.1} s", arguments.collection);
    let hint = if arguments.verbose { "" } else { "; -v names them" };
    if let Some(words) = skipped_words(reports) {
        eprintln!("{words}{hint}");
    }
    let still = reports.iter().filter(|report| report.status == Status::StillFailed && !report.named).count();
    if still > 0 {
        eprintln!("{} still cannot be read, as last time{hint}", output::counted(still as u64, "file"));
    }
    failure.map_or(Ok(()), Err)
}

fn as_json(report: &Report) -> Value {
    let mut file = json!({"source": report.source, "status": report.status.as_str()});
    if let Some(reason) = &report.reason {
        file["reason"] = reason.as_str().into();
    }
    if report.status == Status::StillFailed {
        file["as_last_time"] = true.into();
    }
    if let Status::Skipped(kind) = report.status {
        file["kind"] = kind.label(1).into();
    }
    if let Some(warnings) = report.detail["warnings"].as_array().filter(|warnings| !warnings.is_empty()) {
        file["warnings"] = warnings.clone().into();
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::left_out;

    #[test]
    fn what_was_skipped_is_summed_up_by_kind() {
        let kind = |name: &str| left_out(name, b"\0\0").expect("no document").0;
        let names = ["a.docx", "b.XLSX", "c.png", "d/e.docx", "f.zip", "g.jpg", "h.odt", "README.bin"];
        let mut reports: Vec<Report> =
            names.map(|name| Report::new(name.to_owned(), Status::Skipped(Kind::File(kind(name))))).into();
        reports.push(Report::new("i.md".to_owned(), Status::Created));
        reports.push(Report::new("j.md".to_owned(), Status::Skipped(Kind::File(FileKind::Empty))));
        assert_eq!(
            skipped_words(&reports).as_deref(),
            Some(
                "9 skipped: 4 Office documents (docx, odt, xlsx), 2 pictures, 1 archive, 1 file without text, 1 binary file"
            )
        );
        assert_eq!(skipped_words(&reports[8..9]), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_news_once() {
        let failed = |status, named| Report { named, ..Report::new(String::new(), status) }.is_news();
        assert!(failed(Status::Failed, false) && failed(Status::Failed, true) && failed(Status::StillFailed, true));
        assert!(!failed(Status::StillFailed, false));
    }
}
