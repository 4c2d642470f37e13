//! The GPU in `cairn doctor`: whether there is one, and whether it computes correctly. A missing GPU is not a fault.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::gpu::as_json;
use crate::cli::output;
use crate::index::gpu::{Adapter, Failure, Gpu, GpuError, StartError, selftest};
use crate::task;

/// Questions that are asked: matrices in several formats, with filters and removed rows. A GPU answers them within a second.
const QUESTIONS: usize = 400;
/// Time limit of an answer; the first of each kind compiles its shader.
const PATIENCE: Duration = Duration::from_secs(15);
/// Total time limit.
const DEADLINE: Duration = Duration::from_secs(30);
/// How much longer a rasteriser may take for both: it shares the processors with everything else on the machine.
const SOFTWARE_FACTOR: u32 = 10;
/// The advice for a broken GPU.
const ADVICE: &str = "searches are right on the CPU; try another version of the driver, then `cairn gpu selftest`";

/// The result.
#[derive(Debug)]
pub(super) enum SelfTest {
    /// One that computes right.
    Right { adapter: Adapter, questions: usize, took: Duration },
    /// None that could be used, and why.
    None { why: String },
    /// One that is not to be trusted, or whose helper fails.
    Broken { what: String },
}

/// Looks at the GPU of this machine.
///
/// * `software`: a rasteriser on the CPU will do, for tests.
pub(super) fn self_test(software: bool) -> SelfTest {
    let (sender, outcome) = mpsc::channel();
    let factor = if software { SOFTWARE_FACTOR } else { 1 };
    let (patience, deadline) = (PATIENCE * factor, DEADLINE * factor);
    // A helper may use its full patience for every query. If it is not awaited, it ends with the process.
    let asking = task::spawn_thread("gpu-selftest", move || drop(sender.send(ask(software, patience))));
    if let Err(error) = asking {
        return SelfTest::Broken { what: format!("no thread for the GPU's self-test: {error}") };
    }
    let late =
        |_| SelfTest::Broken { what: format!("its self-test took longer than {} s; {ADVICE}", deadline.as_secs()) };
    outcome.recv_timeout(deadline).unwrap_or_else(late)
}

fn ask(software: bool, patience: Duration) -> SelfTest {
    let started = Instant::now();
    let opened = Gpu::start().and_then(|mut gpu| gpu.open(software).map(|adapter| (gpu, adapter)));
    let (mut gpu, adapter) = match opened {
        Ok(opened) => opened,
        Err(GpuError::Start(error)) => {
            let advice = match error {
                StartError::NotBuilt => "",
                StartError::Exec(_) => ". In a container it takes an image of `cairn image build --gpu`",
            };
            return SelfTest::None { why: format!("{:#}{advice}", anyhow::Error::from(error)) };
        }
        Err(GpuError::Failed { failure: Failure::NoDevice, message }) => {
            return SelfTest::None { why: format!("{message}; see docs/gpu.md") };
        }
        Err(error) => return SelfTest::Broken { what: format!("{:#}; {ADVICE}", anyhow::Error::from(error)) },
    };
    match selftest::run(&mut gpu, QUESTIONS, patience, |_| {}) {
        Ok(report) => judged(adapter, &report, started.elapsed()),
        Err(error) => {
            SelfTest::Broken { what: format!("{}: {:#}; {ADVICE}", adapter.name, anyhow::Error::from(error)) }
        }
    }
}

fn judged(adapter: Adapter, report: &selftest::Report, took: Duration) -> SelfTest {
    match report.wrong.first() {
        None => SelfTest::Right { adapter, questions: report.cases, took },
        Some(first) => {
            let wrong = output::counted(report.wrong.len() as u64, "answer");
            let what = format!("{} gives {wrong} of {} wrong ({first}); {ADVICE}", adapter.name, report.cases);
            SelfTest::Broken { what }
        }
    }
}

impl SelfTest {
    /// In words, if it is not a problem.
    pub(super) fn words(&self) -> Option<String> {
        match self {
            Self::Right { adapter, questions, took } => Some(format!(
                "{}: {} answered right in {:.1} s",
                adapter.name,
                output::counted(*questions as u64, "question"),
                took.as_secs_f64()
            )),
            Self::None { why } => Some(format!("none: {why}")),
            Self::Broken { .. } => None,
        }
    }

    pub(super) fn as_json(&self) -> Value {
        match self {
            Self::Right { adapter, questions, .. } => {
                let mut report = as_json(adapter);
                report["questions"] = (*questions).into();
                report
            }
            Self::None { why } => json!({"name": null, "reason": why}),
            Self::Broken { what } => json!({"name": null, "problem": what}),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::index::gpu::AdapterKind;

    use super::*;

    #[test]
    fn wrong_answers_are_a_problem_with_what_to_do() {
        let adapter = Adapter {
            name: "Test".to_owned(),
            kind: AdapterKind::Discrete,
            driver: String::new(),
            buffer_bytes_max: 0,
            workgroup_bytes_max: 0,
            has_f16: false,
            has_subgroups: false,
        };
        let right =
            judged(adapter.clone(), &selftest::Report { cases: 400, wrong: Vec::new() }, Duration::from_secs(1));
        assert_eq!(right.words().as_deref(), Some("Test: 400 questions answered right in 1.0 s"));
        let report = selftest::Report { cases: 400, wrong: vec!["rows are out of order".to_owned(); 2] };
        let SelfTest::Broken { what } = judged(adapter, &report, Duration::ZERO) else { panic!("not noticed") };
        assert!(what.starts_with("Test gives 2 answers of 400 wrong (rows are out of order); "), "{what}");
    }
}
