//! The folder of a conversion: what was written before is replaced, what somebody else wrote is not.
//!
//! Invariants: each file appears whole. A folder with other files in it is refused before anything is written; the list of one's own is in its
//! `report.json`, which is written last.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::Fault;
use crate::deploy::{OutputError, write_file};

/// The report for programs.
pub const REPORT: &str = "report.json";

/// A file of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Below the folder: `services/web.yaml`.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Its permissions.
    pub mode: u32,
}

/// Why a folder was not written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It has files that are not of a conversion.
    #[error("{folder} holds {file}, which no conversion wrote; choose an empty folder, or remove it")]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The first of them.
        file: PathBuf,
    },
    /// It is a file.
    #[error("{folder} is not a folder")]
    Kind {
        /// Which one.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("cannot write {path}")]
    Write {
        /// What.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl FolderError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Foreign { .. } | Self::Kind { .. } => Fault::Caller,
            Self::Write { .. } => Fault::Environment,
            Self::Output(error) => error.fault(),
        }
    }
}

/// Writes the files of a conversion, and removes those of the one before that are not among them.
///
/// * `files`: [`REPORT`] is one of them.
///
/// # Errors
/// See [`FolderError`].
pub fn write(folder: &Path, files: &[OutputFile]) -> Result<(), FolderError> {
    let before = written_before(folder)?;
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(write(folder))?;
    let (report, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.name == REPORT);
    for file in others.into_iter().chain(report) {
        let path = folder.join(&file.name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(write(parent))?;
        }
        write_file(&path, file.mode, file.text.as_bytes())?;
    }
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    for name in before.iter().filter(|name| !names.contains(name.as_str())) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write(&path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// The files that a conversion wrote into a folder.
fn written_before(folder: &Path) -> Result<Vec<String>, FolderError> {
    if folder.exists() && !folder.is_dir() {
        return Err(FolderError::Kind { folder: folder.to_owned() });
    }
    let found = files_below(folder).map_err(|source| FolderError::Write { path: folder.to_owned(), source })?;
    let listed = fs::read(folder.join(REPORT)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let listed = listed.and_then(|report: serde_json::Value| {
        let names = report.get("files")?.as_array()?.iter();
        names.map(|name| name.as_str().map(str::to_owned)).collect::<Option<BTreeSet<String>>>()
    });
    let listed = listed.unwrap_or_default();
    match found.iter().find(|name| !listed.contains(*name)) {
        Some(file) => Err(FolderError::Foreign { folder: folder.to_owned(), file: file.into() }),
        None => Ok(found),
    }
}

/// The files at most five levels below a folder, which is as deep as the charts of a conversion go; folders below that count as files.
fn files_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut open = vec![(folder.to_owned(), String::new())];
    while let Some((path, start)) = open.pop() {
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = format!("{start}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() && start.matches('/').count() < 5 {
                true => open.push((entry.path(), format!("{name}/"))),
                false => names.push(name),
            }
        }
    }
    // What `cairn migrate data plan` writes belongs to the machine and to no conversion.
    names.retain(|name| !name.starts_with("data/"));
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<OutputFile> {
        let list: Vec<&str> = names.iter().copied().chain([REPORT]).collect();
        let report = serde_json::json!({ "files": list }).to_string();
        let text = |name: &&str| if *name == REPORT { report.clone() } else { (*name).to_owned() };
        list.iter().map(|name| OutputFile { name: (*name).to_owned(), text: text(name), mode: 0o644 }).collect()
    }

    #[test]
    fn a_conversion_replaces_the_one_before_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let chart = "charts/shop/charts/web/templates/service.yaml";
        write(&path, &files(&["services/a.yaml", "services/b.yaml", chart])).expect("written");
        write(&path, &files(&["services/a.yaml"])).expect("written again");
        assert_eq!(files_below(&path).expect("there"), [REPORT, "services/a.yaml"]);
        fs::write(path.join("services/mine.yaml"), "x").expect("written");
        let error = write(&path, &files(&["services/a.yaml"])).expect_err("refused");
        assert!(error.to_string().contains("services/mine.yaml"), "{error}");
        fs::write(folder.path().join("file"), "x").expect("written");
        assert!(matches!(write(&folder.path().join("file"), &files(&[])), Err(FolderError::Kind { .. })));
        assert!(matches!(write(folder.path(), &files(&[])), Err(FolderError::Foreign { .. })));
    }
}
