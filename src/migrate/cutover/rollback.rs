//! Back to what was there before a run.
//!
//! Invariants: runs are undone from the newest, each as a whole; what was rolled back is not rolled back twice.

use super::input::Input;
use super::record::{Before, Record, RecordState, Records, Run};
use super::undo::{Undone, undo};
use super::{CutoverError, undo::STAYS};
use crate::deploy::cluster::ObjectApi;

/// Runs that can be undone.
pub struct Rollback<'a> {
    api: &'a ObjectApi,
    input: &'a Input,
    runs: Vec<(Run, Record)>,
}

/// Finds the runs to undo, and changes nothing.
///
/// * `to`: the run whose result is wanted, 0 for what was there before the first; `None`: what was there before the last.
///
/// # Errors
/// When there is no such run.
pub fn prepare_rollback<'a>(
    api: &'a ObjectApi,
    input: &'a Input,
    to: Option<u64>,
) -> Result<Rollback<'a>, CutoverError> {
    let records = Records::of(input, api);
    let all = records.runs()?;
    let open: Vec<&Run> = all.iter().filter(|run| run.state != RecordState::RolledBack).collect();
    let Some(last) = open.last() else {
        return Err(CutoverError::Record(format!(
            "there is no run of the stack {} in the namespace {} to roll back",
            input.stack, input.namespace
        )));
    };
    let to = to.unwrap_or(last.revision - 1);
    let oldest = open.first().map_or(last.revision, |run| run.revision);
    if to >= last.revision || to + 1 < oldest && to != 0 {
        let known: Vec<String> = open.iter().map(|run| run.revision.to_string()).collect();
        return Err(CutoverError::Record(format!(
            "--to {to}: expected a run before the last one, {}; stored are {}",
            last.revision,
            known.join(", ")
        )));
    }
    let chosen: Vec<&Run> = open.into_iter().rev().filter(|run| run.revision > to).collect();
    let runs = chosen.into_iter().map(|run| Ok((run.clone(), records.read(run)?))).collect::<Result<_, CutoverError>>();
    Ok(Rollback { api, input, runs: runs? })
}

impl Rollback<'_> {
    /// The numbers of the runs, from the newest.
    #[must_use]
    pub fn revisions(&self) -> Vec<u64> {
        self.runs.iter().map(|(run, _)| run.revision).collect()
    }

    /// What will be done, in words: object and `delete`, `restore` or `stays`.
    #[must_use]
    pub fn steps(&self) -> Vec<(String, &'static str)> {
        let word = |before: &Before| match before.object {
            None if STAYS.contains(&before.key.kind.as_str()) => "stays",
            None => "delete",
            Some(_) => "restore",
        };
        let oldest = self.runs.last().into_iter().flat_map(|(_, record)| &record.objects);
        let mut steps: Vec<(String, &'static str)> =
            oldest.rev().map(|before| (before.key.label(), word(before))).collect();
        for before in self.runs.iter().flat_map(|(_, record)| &record.objects) {
            if !steps.iter().any(|(label, _)| *label == before.key.label()) {
                steps.push((before.key.label(), word(before)));
            }
        }
        steps
    }

    /// Does it.
    ///
    /// # Errors
    /// When a run cannot be marked as rolled back. An object that cannot be restored is not an error: see [`Undone`].
    pub fn run(&self) -> Result<Vec<Undone>, CutoverError> {
        let records = Records::of(self.input, self.api);
        let mut result = Vec::new();
        for (run, record) in &self.runs {
            let objects: Vec<&Before> = record.objects.iter().collect();
            let undone = undo(self.api, &objects);
            let has_failed = undone.iter().any(|one| one.is_failure);
            result.extend(undone);
            if has_failed {
                // It can be tried again once the reason is gone.
                return Ok(result);
            }
            records.mark(run.revision, RecordState::RolledBack)?;
        }
        Ok(result)
    }
}
