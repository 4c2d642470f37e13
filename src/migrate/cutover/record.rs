//! What was in the cluster before each run, stored in Secrets of the namespace.
//!
//! In the namespace, because a rollback may be run on another machine, and a folder of a conversion is written again and often
//! goes into version control. In Secrets, because the content of Secrets is part of it: the accounts that may read the one may read the
//! other. Format: gzip of the JSON of [`Record`], in parts of less than a Secret's 1 MiB, each with labels for stack, revision and part.
//!
//! Invariants: a record is complete before the first object of its run is changed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CutoverError, Input};
use crate::deploy::cluster::{Apply, ObjectApi, ObjectKey};
use crate::migrate::objects::{folded, label_value};

/// Labels of the Secrets.
const STACK: &str = "cairn.local/cutover-of";
const REVISION: &str = "cairn.local/cutover-revision";
const PART: &str = "cairn.local/cutover-part";
/// The annotation with how the run ended.
const STATE: &str = "cairn.local/cutover-state";
/// Runs that are stored; older ones are removed.
const RUNS_MAX: usize = 10;
/// Bytes of a part: a Secret takes 1 MiB.
const PART_BYTES: usize = 700 << 10;
/// Bytes of a record's JSON, against a record that unpacks without end.
const RECORD_BYTES_MAX: u64 = 256 << 20;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// It has not ended, or was interrupted.
    Applying,
    /// All of it is applied.
    Applied,
    /// A phase failed and was undone; those before it stay.
    Failed,
    /// It was rolled back.
    RolledBack,
}

impl RecordState {
    /// For people and for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Applying, Self::Applied, Self::Failed, Self::RolledBack].into_iter().find(|one| one.as_str() == text)
    }
}

/// An object as it was before a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// Which one.
    pub key: ObjectKey,
    /// All of it; `None` where it was not there.
    pub object: Option<Value>,
}

/// What was there before a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// From 1.
    pub revision: u64,
    /// The objects of the run, in the order in which they were applied.
    pub objects: Vec<Before>,
}

/// A run, without what was there before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// From 1.
    pub revision: u64,
    /// How it ended.
    pub state: RecordState,
    /// When it began, in UTC.
    pub time: String,
    /// The names of its Secrets, by part.
    #[serde(skip)]
    parts: BTreeMap<usize, String>,
}

/// The Secrets of a stack's runs.
pub(super) struct Records<'a> {
    api: &'a ObjectApi,
    stack: &'a str,
    namespace: &'a str,
}

impl<'a> Records<'a> {
    pub(super) fn of(input: &'a Input, api: &'a ObjectApi) -> Self {
        Self { api, stack: &input.stack, namespace: &input.namespace }
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Secret".to_owned(),
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Every stored run, from the oldest.
    pub(super) fn runs(&self) -> Result<Vec<Run>, CutoverError> {
        let labels = format!("{STACK}={}", label_value(self.stack));
        let secrets = self.api.list("v1", "Secret", self.namespace, &labels)?;
        let mut runs: BTreeMap<u64, Run> = BTreeMap::new();
        for secret in &secrets {
            let metadata = &secret["metadata"];
            let label = |name: &str| metadata["labels"][name].as_str()?.parse::<u64>().ok();
            let (Some(revision), Some(part), Some(name)) = (label(REVISION), label(PART), metadata["name"].as_str())
            else {
                continue;
            };
            let text = |name: &str| metadata["annotations"][name].as_str().unwrap_or_default();
            let run = runs.entry(revision).or_insert_with(|| Run {
                revision,
                state: RecordState::of(text(STATE)).unwrap_or(RecordState::Applying),
                time: metadata["creationTimestamp"].as_str().unwrap_or_default().to_owned(),
                parts: BTreeMap::new(),
            });
            run.parts.insert(usize::try_from(part).unwrap_or(usize::MAX), name.to_owned());
        }
        Ok(runs.into_values().collect())
    }

    /// What was there before a run.
    pub(super) fn read(&self, run: &Run) -> Result<Record, CutoverError> {
        let broken = |what: &str| {
            CutoverError::Record(format!(
                "the record of run {} in the namespace {} {what}; its Secrets have the label {REVISION}={0}",
                run.revision, self.namespace
            ))
        };
        let mut packed = Vec::new();
        for (expected, (part, name)) in run.parts.iter().enumerate() {
            if *part != expected {
                return Err(broken("is not complete"));
            }
            let secret = self.api.get(&self.key(name))?.ok_or_else(|| broken("is not complete"))?;
            let data = secret.pointer("/data/record").and_then(Value::as_str).unwrap_or_default();
            packed.extend(STANDARD.decode(data).map_err(|_| broken("cannot be read"))?);
        }
        unpacked(&packed).ok_or_else(|| broken("cannot be read"))
    }

    /// Stores what is there before a run.
    pub(super) fn write(&self, record: &Record) -> Result<(), CutoverError> {
        let packed = packed(record);
        for (part, bytes) in packed.chunks(PART_BYTES).enumerate() {
            let name = format!("cairn-cutover-{}-v{}-{part}", folded(self.stack, 40), record.revision);
            let key = self.key(&name);
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "cairn.local/cutover",
                "metadata": {
                    "name": name, "namespace": self.namespace,
                    "labels": {
                        STACK: label_value(self.stack), REVISION: record.revision.to_string(), PART: part.to_string(),
                        "app.kubernetes.io/managed-by": "cairn",
                    },
                    "annotations": {STATE: RecordState::Applying.as_str()},
                },
                "data": {"record": STANDARD.encode(bytes)},
            });
            // Two runs at once have the same number: the second one gets no further.
            if !self.api.create(&key, &secret)? {
                return Err(CutoverError::Record(format!(
                    "another `cairn migrate apply` has begun run {} in the namespace {}; wait until it has ended",
                    record.revision, self.namespace
                )));
            }
        }
        Ok(())
    }

    /// Writes down how a run ended.
    pub(super) fn mark(&self, revision: u64, state: RecordState) -> Result<(), CutoverError> {
        for run in self.runs()?.iter().filter(|run| run.revision == revision) {
            for name in run.parts.values() {
                let key = self.key(name);
                let Some(secret) = self.api.get(&key)? else { continue };
                let mut secret = super::ownership::without_servers_own(&secret);
                secret["metadata"]["annotations"][STATE] = state.as_str().into();
                self.api.apply(&key, &secret, Apply { force: true, dry_run: false })?;
            }
        }
        Ok(())
    }

    /// Removes the records of all but the newest runs.
    pub(super) fn prune(&self) -> Result<(), CutoverError> {
        let runs = self.runs()?;
        for run in &runs[..runs.len().saturating_sub(RUNS_MAX)] {
            for name in run.parts.values() {
                self.api.delete(&self.key(name), None)?;
            }
        }
        Ok(())
    }
}

fn packed(record: &Record) -> Vec<u8> {
    let bytes = serde_json::to_vec(record).expect("a record is JSON");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn unpacked(bytes: &[u8]) -> Option<Record> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).take(RECORD_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_a_broken_one_is_an_error() {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"x": "eQ=="}});
        let key = ObjectKey::of(&object, "s").expect("an object");
        let objects = vec![Before { key: key.clone(), object: Some(object) }, Before { key, object: None }];
        let record = Record { revision: 3, objects };
        let bytes = packed(&record);
        assert_eq!(unpacked(&bytes), Some(record));
        assert_eq!(unpacked(&bytes[..bytes.len() / 2]), None);
        assert_eq!(unpacked(b"no"), None);
    }
}
