//! Whether the containers of a service end, and what becomes of those that do.
//!
//! Invariants: a service that anything marks as a server never becomes a job. Each leaf of `restart_policy` and of stopping is marked.

use std::time::Duration;

use super::whole_seconds;
use crate::migrate::Dialect;
use crate::migrate::defaults::is_default;
use crate::migrate::objects::Holder;
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::{ModeKind, RestartCondition, RestartPolicy, Service, Test};

/// Between the end of a container and the next start, where nothing is written.
const DELAY: Duration = Duration::from_secs(5);
/// Between the signal and the kill, where nothing is written, in seconds.
const GRACE: i64 = 10;

/// Whether the containers of a service end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// They run until they are stopped: a Deployment, a StatefulSet or a DaemonSet.
    Server,
    /// They end: a Job.
    Job {
        /// `spec.backoffLimit`: failures before the job has failed.
        backoff_limit: i32,
        /// What becomes of a container that fails.
        restart: JobRestart,
    },
}

/// The policies that the pods of a Job can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRestart {
    /// It stays as it is.
    Never,
    /// It starts again.
    OnFailure,
}

impl JobRestart {
    /// `spec.template.spec.restartPolicy`
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::OnFailure => "OnFailure",
        }
    }
}

/// Whether the containers of a service end, and by which rule.
///
/// A service of `mode` replicated whose containers are never started again is a job, unless something marks it as a server: a port, a health
/// check, several replicas, or a way to update it.
pub fn lifetime(service: &Service) -> (Lifetime, String) {
    let kind = service.mode.kind.map(|kind| kind.value);
    if let Some(ModeKind::ReplicatedJob | ModeKind::GlobalJob) = kind {
        return (job(service), "its mode is that of a job".to_owned());
    }
    let name = match condition(&service.restart) {
        RestartCondition::Any => return (Lifetime::Server, "its containers always start again".to_owned()),
        // A Job's pods cannot be replaced by another version, and what starts again after a failure is often a worker.
        RestartCondition::OnFailure => {
            return (Lifetime::Server, "its containers start again after a failure".to_owned());
        }
        RestartCondition::None => "none",
    };
    let is_checked = service.health_check.as_ref().is_some_and(|check| !matches!(check.test, Some(Test::Disabled(_))));
    let marks = [
        (kind == Some(ModeKind::Global), "it is on each node"),
        (!service.ports.is_empty(), "it publishes a port"),
        (!service.compose.expose.is_empty(), "it exposes a port"),
        (is_checked, "it has a health check"),
        (service.mode.replicas.is_some_and(|replicas| replicas.value > 1), "it has several replicas"),
        (
            [&service.update, &service.rollback].into_iter().flatten().any(|config| !is_default(config)),
            "it has update_config or rollback_config",
        ),
    ];
    match marks.into_iter().find(|(is_marked, _)| *is_marked) {
        Some((_, mark)) => (Lifetime::Server, format!("a server, for {mark}")),
        None => (
            job(service),
            format!(
                "a job: its restart condition is {name}, and it has no port, no health check, no update_config and at \
                 most one replica"
            ),
        ),
    }
}

/// The job that a service is, whatever it is marked as: also one that a schedule starts.
pub fn job(service: &Service) -> Lifetime {
    match condition(&service.restart) {
        RestartCondition::None => Lifetime::Job { backoff_limit: 0, restart: JobRestart::Never },
        // A job's container that ended well is never started again, whatever is written.
        RestartCondition::OnFailure | RestartCondition::Any => {
            let attempts = service.restart.max_attempts.map_or(0, |attempts| attempts.value);
            // 0 sets no limit in Swarm; Kubernetes always has one, which is 6 where nothing is written.
            let backoff_limit = match attempts {
                0 => i32::MAX,
                number => i32::try_from(number).unwrap_or(i32::MAX),
            };
            Lifetime::Job { backoff_limit, restart: JobRestart::OnFailure }
        }
    }
}

fn condition(restart: &RestartPolicy) -> RestartCondition {
    restart.condition.map_or(RestartCondition::Any, |condition| condition.value)
}

/// Marks `restart_policy`, and returns the policy of the pods.
///
/// * `lifetime`, `rule`: what [`lifetime`] returned.
pub fn restart(
    service: &Service,
    dialect: Dialect,
    (lifetime, rule): (&Lifetime, &str),
    holder: &Holder,
    ledger: &mut Ledger,
) -> &'static str {
    match lifetime {
        Lifetime::Server => {
            of_server(&service.restart, dialect, rule, holder, ledger);
            "Always"
        }
        Lifetime::Job { restart, .. } => {
            of_job(service, rule, holder, ledger);
            restart.as_str()
        }
    }
}

fn of_server(policy: &RestartPolicy, dialect: Dialect, rule: &str, holder: &Holder, ledger: &mut Ledger) {
    let target = holder.pod("restartPolicy");
    let is_any = condition(policy) == RestartCondition::Any;
    let never = condition(policy) == RestartCondition::None;
    match policy.condition {
        Some(condition) if is_any => ledger.converted(condition.leaf, target.clone()),
        Some(condition) => {
            let reason = match never {
                true => format!("{rule}; its containers are started again whenever they end, which Swarm did not"),
                false => format!("{rule}; its containers are started again also when they ended well"),
            };
            ledger.approximated(condition.leaf, target.clone(), reason);
        }
        None if dialect == Dialect::Compose => {
            ledger.added(target.clone(), "a server is started again; Compose does not where nothing is written");
        }
        None => {}
    }
    if let Some(delay) = policy.delay {
        match never {
            true => ledger.dropped(delay.leaf, "with the condition none it did not count in Swarm either"),
            false => ledger.approximated(
                delay.leaf,
                target,
                "Kubernetes starts a container again at once, then after 10 s, twice as long each time, up to 5 minutes",
            ),
        }
    }
    attempts(policy, ledger);
}

/// Attempts of a server. Swarm counts those of a slot within the window before the failure.
fn attempts(policy: &RestartPolicy, ledger: &mut Ledger) {
    let limit = policy.max_attempts.map_or(0, |attempts| attempts.value);
    let delay = policy.delay.map_or(DELAY, |delay| delay.value);
    let window = policy.window.map_or(Duration::ZERO, |window| window.value);
    // Two starts are a delay apart at least, and the last one is a delay before the failure, so that fewer than `window / delay` count.
    let least = u32::try_from(limit).map_or(Duration::MAX, |limit| delay.saturating_mul(limit));
    let is_endless = limit > 0 && !window.is_zero() && window <= least;
    let (outcome, reason) = if condition(policy) == RestartCondition::None {
        (Outcome::Dropped, "with the condition none it did not count in Swarm either")
    } else if limit == 0 {
        (Outcome::Converted, "there is no limit of attempts, in Swarm as in Kubernetes")
    } else if is_endless {
        (
            Outcome::Converted,
            "so many attempts with this delay take longer than the window, so that Swarm started the container again \
             without end, as Kubernetes does",
        )
    } else if window.is_zero() {
        (Outcome::Dropped, "Swarm gave up after so many attempts; Kubernetes starts a container again without end")
    } else {
        (
            Outcome::Dropped,
            "Swarm gave up after so many attempts within the window; Kubernetes starts a container again without end",
        )
    };
    for leaf in [policy.max_attempts.map(|one| one.leaf), policy.window.map(|one| one.leaf)].into_iter().flatten() {
        ledger.mark(leaf, outcome, reason, None);
    }
}

fn of_job(service: &Service, rule: &str, holder: &Holder, ledger: &mut Ledger) {
    let policy = &service.restart;
    let target = holder.pod("restartPolicy");
    let is_job_mode =
        matches!(service.mode.kind.map(|kind| kind.value), Some(ModeKind::ReplicatedJob | ModeKind::GlobalJob));
    if let Some(condition) = policy.condition {
        let (outcome, reason) = match (is_job_mode, condition.value) {
            (true, RestartCondition::Any) => {
                (Outcome::Converted, "Swarm starts a job's container again only after a failure too")
            }
            (true, _) => (Outcome::Converted, ""),
            (false, _) => (Outcome::Approximated, rule),
        };
        ledger.mark(condition.leaf, outcome, reason, Some(target.clone()));
    }
    let backoff = of_spec(holder, "backoffLimit");
    let never = condition(policy) == RestartCondition::None;
    let unused = "with the condition none it did not count in Swarm either";
    if let Some(delay) = policy.delay {
        match never {
            true => ledger.dropped(delay.leaf, unused),
            false => ledger.approximated(
                delay.leaf,
                target,
                "Kubernetes starts a container again after 10 s, twice as long each time, up to 5 minutes",
            ),
        }
    }
    match policy.max_attempts {
        Some(attempts) if never => ledger.dropped(attempts.leaf, unused),
        Some(attempts) if attempts.value == 0 => ledger.converted(attempts.leaf, backoff),
        Some(attempts) => ledger.approximated(
            attempts.leaf,
            backoff,
            "Kubernetes counts the failures of all pods of the job together, and stops it at the last of them; Swarm \
             counted each slot's",
        ),
        None => ledger.added(backoff, "Swarm tries without end where max_attempts is not set, or never"),
    }
    if let Some(window) = policy.window {
        ledger.dropped(window.leaf, "a Job counts all its failures, without a window");
    }
}

/// A field next to the template of the pod.
fn of_spec(holder: &Holder, field: &str) -> Target {
    let spec = holder.template.strip_suffix("template").unwrap_or("spec.");
    holder.field(&format!("{spec}{field}"))
}

/// The seconds between the signal and the kill of a pod. Marks `stop_signal`, too.
pub fn grace_period(service: &Service, holder: &Holder, ledger: &mut Ledger) -> i64 {
    if let Some(signal) = &service.stop_signal {
        let name = signal.value.trim().to_ascii_uppercase();
        match name.strip_prefix("SIG").unwrap_or(&name) {
            "TERM" | "15" => ledger.agrees(signal.leaf, "Kubernetes sends it, unless the image has a STOPSIGNAL"),
            _ => ledger.dropped(
                signal.leaf,
                "Kubernetes sends the image's STOPSIGNAL, or SIGTERM: set STOPSIGNAL in the image (a pod's field for it \
                 is not stable yet)",
            ),
        }
    }
    let target = holder.pod("terminationGracePeriodSeconds");
    let Some(grace) = service.stop_grace_period else {
        ledger.added(target, "Docker waits for 10 s before it kills, Kubernetes for 30 s where nothing is written");
        return GRACE;
    };
    match grace.value.subsec_nanos() > 0 {
        true => ledger.approximated(grace.leaf, target, "Kubernetes has whole seconds; rounded up"),
        false => ledger.converted(grace.leaf, target),
    }
    i64::try_from(whole_seconds(grace.value)).unwrap_or(i64::MAX)
}
