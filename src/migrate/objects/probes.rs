//! Health checks as probes.
//!
//! A swarm runs one check for three ends: a container gets requests once the check succeeded, gets none and is replaced once it failed so many
//! times, and has time to start. Kubernetes has a probe for each end. Defaults and rules: moby's `daemon/health.go`.
//!
//! Invariants: no probe has a command that Docker did not run; none is stricter than the check. Times are whole seconds, 1 at least.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ExecAction, Probe};

use super::Holder;
use super::text::protected;
use super::update::whole_seconds;
use crate::migrate::leaf::{At, Leaf};
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::{HealthCheck, Service, Test};

/// Between two tests, where nothing is written.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long a test may take, where nothing is written.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tests while a container starts, where nothing is written; since Docker 25.
const START_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row, where nothing is written.
const RETRIES: u64 = 3;
/// Words of tests that change something, so that twice is not once.
const CHANGING: &[&str] = &[
    "decr", "del", "hset", "incr", "insert", "lpush", "mkdir", "mktemp", "mv", "publish", "rm", "rpush", "tee",
    "touch", "truncate", "update", "xadd",
];
/// Methods of HTTP that change something.
const CHANGING_METHODS: &[&str] = &["DELETE", "PATCH", "POST", "PUT"];
/// How options begin that make a request of such a method.
const CHANGING_OPTIONS: &[&str] = &["--data", "--post-"];

/// The probes of a container.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Probes {
    /// While it succeeds for the first time, the others wait.
    pub startup: Option<Probe>,
    /// The container is started again when it fails.
    pub liveness: Option<Probe>,
    /// The pod gets no requests when it fails.
    pub readiness: Option<Probe>,
}

/// The health check of an image, as its config has it. A time of nothing, and 0 times, are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageCheck {
    /// `CMD` with words, `CMD-SHELL` with a line, or `NONE`; empty: the image has none.
    pub test: Vec<String>,
    /// What runs a line, such as `/bin/bash -c`; empty: `/bin/sh -c`.
    pub shell: Vec<String>,
    /// Between two tests.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// Failures that do not count, from the start on.
    pub start_period: Option<Duration>,
    /// Between two tests in that time.
    pub start_interval: Option<Duration>,
    /// Failures in a row before it is unhealthy.
    pub retries: Option<u64>,
}

/// The times of a check in whole seconds; a start period of 0 is none.
struct Timing {
    interval: i32,
    timeout: i32,
    retries: i32,
    start_period: i32,
    start_interval: i32,
}

/// The probes of a service.
///
/// * `image`: what its image says, where the image is at hand.
pub fn probes(service: &Service, image: Option<&ImageCheck>, holder: &Holder, ledger: &mut Ledger) -> Probes {
    let none = HealthCheck::default();
    let check = service.health_check.as_ref().unwrap_or(&none);
    let shell = image.map_or(&[][..], |image| &image.shell);
    let command = match &check.test {
        Some(Test::Disabled(leaf)) => {
            ledger.agrees(*leaf, "no probe is written");
            without_test(check, ledger, |ledger, leaf| {
                ledger.dropped(leaf, "the check is switched off, so Docker ignored it too");
            });
            return Probes::default();
        }
        Some(Test::Program(leaf, words)) if words.is_empty() => {
            ledger.needs_input(*leaf, "CMD without a program fails always; write the test");
            without_test(check, ledger, |ledger, leaf| ledger.needs_input(leaf, "the test lacks a program"));
            return Probes::default();
        }
        Some(Test::Program(_, words)) => words.iter().map(|word| word.value.clone()).collect(),
        Some(Test::Shell(_, line)) => shell_command(shell, &line.value),
        None => match image.map(|image| image_command(image, shell)) {
            Some(Some(command)) => command,
            Some(None) => {
                without_test(check, ledger, |ledger, leaf| {
                    ledger.dropped(leaf, "neither the service nor its image has a test, so Docker ran none either");
                });
                return Probes::default();
            }
            None => {
                without_test(check, ledger, |ledger, leaf| {
                    ledger.needs_input(
                        leaf,
                        "the test is the image's, which is not at hand: give the image with --images ARCHIVE, or write \
                         `test`",
                    );
                });
                return Probes::default();
            }
        },
    };
    let changes = changes_state(&command);
    // The kubelet expands `$(NAME)` in the command of a probe as in the container's (`pkg/kubelet/prober`).
    let command: Vec<String> = command.iter().map(|word| protected(word)).collect();
    let timing = timing(check, image, changes, holder, ledger);
    let probes = assembled(&command, &timing, changes);
    mark_test(check, changes, &probes, holder, ledger);
    probes
}

/// Marks the timings of a check that is not written.
fn without_test(check: &HealthCheck, ledger: &mut Ledger, mark: impl Fn(&mut Ledger, Leaf)) {
    let times = [check.interval, check.timeout, check.start_period, check.start_interval];
    times.into_iter().flatten().for_each(|time| mark(ledger, time.leaf));
    check.retries.iter().for_each(|retries| mark(ledger, retries.leaf));
}

/// The command of an image's test; `None` where it has none.
fn image_command(image: &ImageCheck, shell: &[String]) -> Option<Vec<String>> {
    match image.test.split_first() {
        Some((kind, words)) if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
        Some((kind, words)) if kind == "CMD-SHELL" && !words.is_empty() => Some(shell_command(shell, &words[0])),
        _ => None,
    }
}

fn shell_command(shell: &[String], line: &str) -> Vec<String> {
    let shell = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell.to_vec() };
    shell.into_iter().chain([line.to_owned()]).collect()
}

/// Whether a test seems to change something: a guess by its words. A wrong guess costs nothing, for the check runs as often as in a swarm then.
fn changes_state(command: &[String]) -> bool {
    let is_border = |letter: char| letter.is_whitespace() || ";|&()'\"`=".contains(letter);
    let mut words = command.iter().flat_map(|word| word.split(is_border));
    words.any(|word| {
        let name = word.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let method = word.strip_prefix("-X").unwrap_or(word);
        CHANGING.contains(&name.as_str())
            || CHANGING_METHODS.contains(&method)
            || CHANGING_OPTIONS.iter().any(|option| word.starts_with(option))
    })
}

fn seconds(time: Duration) -> i32 {
    i32::try_from(whole_seconds(time)).unwrap_or(i32::MAX)
}

/// Reads the times, and marks their leaves.
fn timing(
    check: &HealthCheck,
    image: Option<&ImageCheck>,
    changes: bool,
    holder: &Holder,
    ledger: &mut Ledger,
) -> Timing {
    let has_start = effective(check.start_period, image.and_then(|image| image.start_period)).is_some();
    let steady: &[&str] = if changes { &["livenessProbe"] } else { &["livenessProbe", "readinessProbe"] };
    let all: Vec<&str> = steady.iter().copied().chain((has_start || changes).then_some("startupProbe")).collect();
    let fields = |probes: &[&str], field: &str| -> Vec<String> {
        probes.iter().map(|probe| format!("{probe}.{field}")).collect()
    };
    let mut reader = Reader { check: image, holder, ledger };
    let interval =
        reader.time(check.interval, |image| image.interval, Some(INTERVAL), &fields(steady, "periodSeconds"));
    let timeout = reader.time(check.timeout, |image| image.timeout, Some(TIMEOUT), &fields(&all, "timeoutSeconds"));
    let thresholds = fields(steady, "failureThreshold");
    let retries = reader.retries(check.retries, &thresholds);
    let start = ["startupProbe.failureThreshold".to_owned()];
    let start_period = reader.time(check.start_period, |image| image.start_period, None, &start);
    let period = ["startupProbe.periodSeconds".to_owned()];
    let start_interval = if has_start {
        reader.time(check.start_interval, |image| image.start_interval, Some(START_INTERVAL), &period)
    } else {
        if let Some(unused) = check.start_interval {
            reader.ledger.agrees(unused.leaf, "it counts within start_period only, and there is none");
        }
        interval
    };
    Timing { interval, timeout, retries, start_period, start_interval }
}

/// What is written, or else what the image has; nothing, as Docker reads it, is not written.
fn effective(written: Option<At<Duration>>, image: Option<Duration>) -> Option<Duration> {
    written.map(|time| time.value).filter(|time| !time.is_zero()).or(image.filter(|time| !time.is_zero()))
}

/// Reads times of a check, and marks their leaves.
struct Reader<'a> {
    check: Option<&'a ImageCheck>,
    holder: &'a Holder,
    ledger: &'a mut Ledger,
}

impl Reader<'_> {
    /// A time in seconds; 0: there is none, and Docker has no default.
    fn time(
        &mut self,
        written: Option<At<Duration>>,
        image: impl Fn(&ImageCheck) -> Option<Duration>,
        default: Option<Duration>,
        fields: &[String],
    ) -> i32 {
        let image = self.check.and_then(image);
        let time = effective(written, image);
        let result = time.or(default).map_or(0, seconds);
        let is_cut = time.is_some_and(|time| Duration::from_secs(result.unsigned_abs().into()) != time);
        self.mark(written.map(|time| (time.leaf, time.value.is_zero())), time.is_some(), is_cut, fields);
        result
    }

    /// Failures in a row.
    fn retries(&mut self, written: Option<At<u64>>, fields: &[String]) -> i32 {
        let from_image = self.check.and_then(|image| image.retries).filter(|number| *number > 0);
        let number = written.map(|number| number.value).filter(|number| *number > 0).or(from_image);
        let result = i32::try_from(number.unwrap_or(RETRIES)).unwrap_or(i32::MAX);
        self.mark(written.map(|number| (number.leaf, number.value == 0)), number.is_some(), false, fields);
        result
    }

    /// * `written`: the leaf, and whether it says nothing.
    /// * `is_chosen`: whether the service or the image says it, and not Docker's default.
    fn mark(&mut self, written: Option<(Leaf, bool)>, is_chosen: bool, is_cut: bool, fields: &[String]) {
        let targets = fields.iter().map(|field| self.holder.container(field));
        match written {
            None => targets.for_each(|target| {
                let from = if is_chosen { "the image's health check has it" } else { "Docker's default" };
                // A time that is neither written nor has a default is in no field.
                if is_chosen || !target.field.ends_with("startupProbe.failureThreshold") {
                    self.ledger.added(target, from);
                }
            }),
            Some((leaf, true)) if !is_chosen => self.ledger.agrees(leaf, "0 is Docker's default"),
            Some((leaf, _)) => targets.for_each(|target| {
                let (outcome, reason) = match is_cut {
                    true => (Outcome::Approximated, "Kubernetes has whole seconds; rounded up"),
                    false => (Outcome::Converted, ""),
                };
                self.ledger.mark(leaf, outcome, reason, Some(target));
            }),
        }
    }
}

fn assembled(command: &[String], timing: &Timing, changes: bool) -> Probes {
    // A success is one, in Docker as in Kubernetes.
    let probe = |delay: i32, period: i32, failures: i32| Probe {
        exec: Some(ExecAction { command: Some(command.to_vec()) }),
        initial_delay_seconds: Some(delay).filter(|delay| *delay > 0),
        period_seconds: Some(period),
        timeout_seconds: Some(timing.timeout),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    let has_startup = timing.start_period > 0 || changes;
    // Docker tests for the first time after one interval, so that a container without a start period is not killed before `retries` of them.
    // A startup probe holds the others back anyway.
    let delay = if has_startup { 0 } else { timing.interval };
    let steady = |delay| probe(delay, timing.interval, timing.retries);
    // In Docker the first success ends the start; failures count from the end of the start period on, one in each interval, and the last of
    // `retries` kills. Counted in start intervals, rounded up: the period, and `retries` times the interval. Docker's first counted failure
    // may be right at the end of the period, so that this may be one interval more, never less: Docker waits from the end of a test to the
    // next, Kubernetes from start to start.
    let startup = has_startup.then(|| {
        let steps = |time: i64| (time + i64::from(timing.start_interval) - 1) / i64::from(timing.start_interval);
        let counted = i64::from(timing.interval).saturating_mul(i64::from(timing.retries));
        let failures = steps(i64::from(timing.start_period)).saturating_add(steps(counted));
        probe(timing.start_interval, timing.start_interval, i32::try_from(failures).unwrap_or(i32::MAX))
    });
    Probes {
        startup,
        liveness: Some(steady(delay)),
        // Without a readiness probe a pod is ready once its startup probe succeeded, and until it is killed: a container of Docker's. So one
        // probe runs at any time, and a test that changes something runs as often as it did.
        readiness: (!changes).then(|| steady(0)),
    }
}

/// Marks the leaves of the test.
fn mark_test(check: &HealthCheck, changes: bool, probes: &Probes, holder: &Holder, ledger: &mut Ledger) {
    let all =
        [("livenessProbe", &probes.liveness), ("readinessProbe", &probes.readiness), ("startupProbe", &probes.startup)];
    let (outcome, reason) = match changes {
        true => (
            Outcome::Approximated,
            "the test seems to change something, so one probe runs at a time and there is no readiness probe: the pod is \
             ready from its first success until it is started again",
        ),
        false => (Outcome::Converted, ""),
    };
    for (name, probe) in all.iter().filter_map(|(name, probe)| probe.as_ref().map(|probe| (name, probe))) {
        if probe.initial_delay_seconds.is_some() {
            let delay = holder.container(&format!("{name}.initialDelaySeconds"));
            ledger.added(delay, "Docker tests for the first time after one interval, Kubernetes at once");
        }
        let command = holder.container(&format!("{name}.exec.command"));
        match &check.test {
            Some(Test::Program(leaf, words)) => {
                // `CMD` says how the words are run, which every probe does.
                ledger.agrees(*leaf, "a probe runs the words without a shell");
                words.iter().for_each(|word| ledger.mark(word.leaf, outcome, reason, Some(command.clone())));
            }
            Some(Test::Shell(leaf, line)) => {
                if let Some(leaf) = leaf {
                    ledger.mark(*leaf, Outcome::Converted, "", Some(command.clone()));
                }
                ledger.mark(line.leaf, outcome, reason, Some(command));
            }
            _ => ledger.added(command, "the image's health check, which Kubernetes does not read"),
        }
    }
}

#[cfg(test)]
mod tests;
