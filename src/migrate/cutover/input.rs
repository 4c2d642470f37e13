//! The folder that a conversion wrote, read back: its objects, what is still to decide, and the order of its services.
//!
//! Invariants: only the files that the report lists are read, each below the folder. Each object is there once, in the namespace of the
//! conversion or in none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::base::Fault;
use crate::deploy::cluster::{ObjectKey, documents};
use crate::migrate::folder::REPORT;

/// The file that lists the others for Kustomize.
const KUSTOMIZATION: &str = "kustomization.yaml";
/// Most objects of a folder.
const OBJECTS_MAX: usize = 5000;
/// Most bytes of a file: the report of a large stack has some megabytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A folder of a conversion.
#[derive(Debug, Clone)]
pub struct Input {
    /// Name of the stack.
    pub stack: String,
    /// Where its objects are.
    pub namespace: String,
    /// The objects in the order of the files.
    pub objects: Vec<InputObject>,
    /// What a person has still to decide.
    pub open: Vec<OpenEntry>,
    /// Names of workloads in the order in which they start, where the report says it.
    pub phases: Vec<Vec<String>>,
    /// For the name of a workload those that come before it, where the stack says so.
    pub depends_on: BTreeMap<String, Vec<String>>,
}

/// An object of a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct InputObject {
    /// Which one.
    pub key: ObjectKey,
    /// All of it.
    pub object: Value,
    /// Its file, below the folder.
    pub file: String,
}

/// Something that a person has still to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEntry {
    /// The file of the stack, with the line: `stack.yml:12`.
    pub place: String,
    /// What it is about: `services.web.secrets`.
    pub setting: String,
    /// Why.
    pub reason: String,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It is not what a conversion wrote.
    #[error("{folder} is not a folder of `cairn migrate swarm`: {reason}; name the folder of its -o")]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file says something that cannot be applied.
    #[error("{path}: {message}")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl InputError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Foreign { .. } | Self::Content { .. } => Fault::Caller,
            Self::Read { .. } => Fault::Environment,
        }
    }
}

/// Reads the folder of a conversion.
///
/// # Errors
/// See [`InputError`].
pub fn read(folder: &Path) -> Result<Input, InputError> {
    let foreign = |reason: &str| InputError::Foreign { folder: folder.to_owned(), reason: reason.to_owned() };
    let bytes = match contents(&folder.join(REPORT)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(foreign("it has no report.json"));
        }
        bytes => bytes.map_err(|source| InputError::Read { path: folder.join(REPORT), source })?,
    };
    let report: Value = serde_json::from_slice(&bytes).map_err(|_| foreign("its report.json is not JSON"))?;
    let text = |name: &str| report.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(stack), Some(namespace)) = (text("stack"), text("namespace")) else {
        return Err(foreign("its report.json names no stack and no namespace"));
    };
    let files = strings(report.get("files"));
    if !files.iter().any(|name| name == KUSTOMIZATION) {
        return Err(foreign("its report.json does not list kustomization.yaml"));
    }
    let mut input = Input {
        stack: stack.to_owned(),
        namespace: namespace.to_owned(),
        objects: Vec::new(),
        open: open(&report),
        phases: report
            .get("phases")
            .and_then(Value::as_array)
            .map(|phases| phases.iter().map(|phase| strings(Some(phase))).collect())
            .unwrap_or_default(),
        depends_on: report
            .get("depends_on")
            .and_then(Value::as_object)
            .map(|map| map.iter().map(|(name, list)| (name.clone(), strings(Some(list)))).collect())
            .unwrap_or_default(),
    };
    let mut seen = BTreeMap::new();
    for name in files.iter().filter(|name| name.ends_with(".yaml") && *name != KUSTOMIZATION) {
        let path = folder.join(name);
        if Path::new(name).components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(foreign("its report.json lists a file outside it"));
        }
        let bytes = contents(&path).map_err(|source| InputError::Read { path: path.clone(), source })?;
        for object in documents(&bytes) {
            let wrong = |error: &dyn ToString| InputError::Content { path: path.clone(), message: error.to_string() };
            let object = object.map_err(|error| wrong(&error))?;
            if object.is_null() {
                continue;
            }
            let found = input_object(object, name, &path, namespace)?;
            let same = (found.key.kind.clone(), found.key.namespace.clone(), found.key.name.clone());
            if let Some(other) = seen.insert(same, name.clone()) {
                let message = format!("{} is in {other}, too; remove one of them", found.key.label());
                return Err(InputError::Content { path, message });
            }
            input.objects.push(found);
            if input.objects.len() > OBJECTS_MAX {
                let message = format!("found more than {OBJECTS_MAX} objects; split the stack");
                return Err(InputError::Content { path, message });
            }
        }
    }
    if input.objects.is_empty() {
        return Err(foreign("it has no objects"));
    }
    Ok(input)
}

/// All of a file, as far as that is bounded.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)))
        }
        false => Ok(bytes),
    }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn open(report: &Value) -> Vec<OpenEntry> {
    let entries = report.get("entries").and_then(Value::as_array).into_iter().flatten();
    let needs_input = entries.filter(|entry| entry["outcome"] == "needs_input");
    let segment = |segment: &Value| segment.as_str().map_or_else(|| segment.to_string(), str::to_owned);
    needs_input
        .map(|entry| OpenEntry {
            place: format!("{}:{}", entry["file"].as_str().unwrap_or_default(), entry["line"]),
            setting: entry["path"].as_array().into_iter().flatten().map(segment).collect::<Vec<_>>().join("."),
            reason: entry["reason"].as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

fn input_object(object: Value, file: &str, path: &Path, namespace: &str) -> Result<InputObject, InputError> {
    let wrong = |message: String| InputError::Content { path: path.to_owned(), message };
    let Some(key) = ObjectKey::of(&object, namespace) else {
        return Err(wrong(
            "found a document without apiVersion, kind and metadata.name; expected an object".to_owned(),
        ));
    };
    if key.namespace != namespace {
        return Err(wrong(format!(
            "{} is in the namespace {}, expected {namespace}, that of report.json; convert again with --namespace",
            key.label(),
            key.namespace
        )));
    }
    if key.kind == "Namespace" && key.name != namespace {
        return Err(wrong(format!("found the namespace {}, expected {namespace}, that of report.json", key.name)));
    }
    Ok(InputObject { key, object, file: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn folder(report: &Value, files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(REPORT), report.to_string()).expect("written");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        folder
    }

    const CONFIG: &str =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: shop\n---\n---\n# nothing\n";

    #[test]
    fn objects_open_entries_and_phases_are_read() {
        let report = json!({
            "stack": "shop", "namespace": "shop", "files": ["a.yaml", "kustomization.yaml", "report.json"],
            "phases": [["db"], ["web"]],
            "depends_on": {"web": ["db"]},
            "entries": [
                {"outcome": "needs_input", "file": "stack.yml", "line": 3, "path": ["services", "web", "ports", 0], "reason": "r"},
                {"outcome": "converted", "file": "stack.yml", "line": 4, "path": [], "reason": ""},
            ],
        });
        let folder = folder(&report, &[("a.yaml", CONFIG), ("kustomization.yaml", "kind: Kustomization")]);
        let input = read(folder.path()).expect("read");
        assert_eq!(input.objects.iter().map(|one| one.key.label()).collect::<Vec<_>>(), ["ConfigMap/a"]);
        assert_eq!(input.phases, [["db"], ["web"]]);
        assert_eq!(input.depends_on["web"], ["db"]);
        let open = OpenEntry {
            place: "stack.yml:3".to_owned(),
            setting: "services.web.ports.0".to_owned(),
            reason: "r".to_owned(),
        };
        assert_eq!(input.open, [open]);
    }

    #[test]
    fn what_no_conversion_wrote_is_refused() {
        let empty = tempfile::tempdir().expect("a folder");
        let error = read(empty.path()).expect_err("refused");
        assert!(matches!(error, InputError::Foreign { .. }) && error.to_string().contains("report.json"), "{error}");
        let report = |file: &str| json!({"stack": "s", "namespace": "shop", "files": [file, "kustomization.yaml"]});
        let outside = folder(&report("../a.yaml"), &[]);
        assert!(read(outside.path()).expect_err("refused").to_string().contains("outside"));
        for (text, words) in [
            ("kind: ConfigMap\n", "without apiVersion"),
            ("a: [\n", "a.yaml"),
            (&CONFIG.replace("shop", "other"), "namespace other"),
            (&format!("{CONFIG}---\n{CONFIG}"), "too; remove one"),
            ("# nothing\n", "no objects"),
        ] {
            let folder = folder(&report("a.yaml"), &[("a.yaml", text)]);
            let error = read(folder.path()).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
