//! How pods are replaced: Swarm's updates and roll-backs as strategies of the three workloads that run for ever.
//!
//! Invariants: a strategy is always written, for Kubernetes' own is not Swarm's (one at a time, the old one stops first). Every leaf of
//! `update_config` and `rollback_config` is marked. Waits are whole seconds, rounded up.

mod lifetime;

use std::time::Duration;

use k8s_openapi::api::apps::v1::{
    DaemonSetUpdateStrategy, DeploymentStrategy, RollingUpdateDaemonSet, RollingUpdateDeployment,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub use self::lifetime::{Lifetime, grace_period, job, lifetime, restart};
use super::Holder;
use crate::migrate::Mistake;
use crate::migrate::leaf::{At, Leaf, Leaves};
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::{ModeKind, Service, UpdateConfig, UpdateOrder};

/// How long a new container is watched where nothing is written.
const MONITOR: Duration = Duration::from_secs(5);
/// Kubernetes' own deadline for the next sign of progress. Swarm has none; a short one only makes the report of a roll-out wrong.
const PROGRESS_DEADLINE: i32 = 600;
/// Kubernetes' own number of earlier revisions. Swarm has one.
const REVISIONS: i32 = 10;

/// How a Deployment replaces its pods.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentUpdate {
    /// `spec.strategy`
    pub strategy: DeploymentStrategy,
    /// `spec.minReadySeconds`
    pub min_ready_seconds: i32,
    /// `spec.progressDeadlineSeconds`, more than `min_ready_seconds`.
    pub progress_deadline_seconds: i32,
    /// `spec.revisionHistoryLimit`
    pub revision_history_limit: i32,
}

/// How a StatefulSet replaces its pods.
#[derive(Debug, Clone, PartialEq)]
pub struct StatefulSetUpdate {
    /// `spec.updateStrategy`
    pub strategy: StatefulSetUpdateStrategy,
    /// `spec.minReadySeconds`
    pub min_ready_seconds: i32,
    /// `spec.revisionHistoryLimit`
    pub revision_history_limit: i32,
    /// `spec.podManagementPolicy`
    pub pod_management_policy: &'static str,
}

/// How a DaemonSet replaces its pods.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonSetUpdate {
    /// `spec.updateStrategy`
    pub strategy: DaemonSetUpdateStrategy,
    /// `spec.minReadySeconds`
    pub min_ready_seconds: i32,
    /// `spec.revisionHistoryLimit`
    pub revision_history_limit: i32,
}

/// The workloads that have a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    /// `Recreate`
    Single,
    Deployment,
    StatefulSet,
    DaemonSet,
}

/// How a Deployment replaces its pods.
///
/// * `has_own_volume`: whether it writes a volume, which two pods must not do at a time.
pub fn deployment(service: &Service, has_own_volume: bool, holder: &Holder, ledger: &mut Ledger) -> DeploymentUpdate {
    let replicas = service.mode.replicas.map_or(1, |replicas| replicas.value);
    let is_single = has_own_volume && replicas <= 1;
    let workload = if is_single { Workload::Single } else { Workload::Deployment };
    let chosen = chosen(service, workload, holder, ledger);
    let strategy = match is_single {
        true => {
            ledger.added(
                holder.field("spec.strategy.type"),
                "two pods would write one volume for a moment, so the old one ends first",
            );
            DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }
        }
        false => DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(chosen.surge()),
                max_unavailable: Some(chosen.unavailable()),
            }),
        },
    };
    // The deadline has to be later than the wait.
    let deadline = PROGRESS_DEADLINE.saturating_add(if chosen.wait > 60 { chosen.wait } else { 0 });
    DeploymentUpdate {
        strategy,
        min_ready_seconds: chosen.wait.min(i32::MAX - 1),
        progress_deadline_seconds: deadline,
        revision_history_limit: REVISIONS,
    }
}

/// How a StatefulSet replaces its pods.
pub fn stateful_set(service: &Service, holder: &Holder, ledger: &mut Ledger) -> StatefulSetUpdate {
    let chosen = chosen(service, Workload::StatefulSet, holder, ledger);
    ledger.added(
        holder.field("spec.podManagementPolicy"),
        "Swarm starts all containers at once; those that wait for each other would never start one by one",
    );
    StatefulSetUpdate {
        strategy: StatefulSetUpdateStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: None },
        min_ready_seconds: chosen.wait,
        revision_history_limit: REVISIONS,
        pod_management_policy: "Parallel",
    }
}

/// How a DaemonSet replaces its pods.
pub fn daemon_set(service: &Service, holder: &Holder, ledger: &mut Ledger) -> DaemonSetUpdate {
    let chosen = chosen(service, Workload::DaemonSet, holder, ledger);
    DaemonSetUpdate {
        strategy: DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDaemonSet {
                max_surge: Some(chosen.surge()),
                max_unavailable: Some(chosen.unavailable()),
            }),
        },
        min_ready_seconds: chosen.wait,
        revision_history_limit: REVISIONS,
    }
}

/// What Swarm refuses about a job.
pub fn refused_of_job(service: &Service, leaves: &Leaves) -> Option<Mistake> {
    let is_job =
        service.mode.kind.is_some_and(|kind| matches!(kind.value, ModeKind::ReplicatedJob | ModeKind::GlobalJob));
    let configs = [service.update.as_ref(), service.rollback.as_ref()];
    let first = configs.into_iter().flatten().flat_map(leaves_of).next().filter(|_| is_job)?;
    let message = "a job cannot have update_config or rollback_config, and Swarm refuses the service; remove it";
    Some(leaves.mistake(first, message))
}

/// The leaves of `update_config` or `rollback_config`.
pub fn leaves_of(config: &UpdateConfig) -> impl Iterator<Item = Leaf> {
    let all = [
        config.parallelism.map(|one| one.leaf),
        config.delay.map(|one| one.leaf),
        config.failure_action.as_ref().map(|one| one.leaf),
        config.monitor.map(|one| one.leaf),
        config.max_failure_ratio.map(|one| one.leaf),
        config.order.map(|one| one.leaf),
    ];
    all.into_iter().flatten()
}

/// What a strategy is made of.
struct Chosen {
    /// How many at once; 0: all.
    parallelism: u64,
    starts_first: bool,
    /// In seconds.
    wait: i32,
}

impl Chosen {
    fn amount(&self) -> IntOrString {
        match self.parallelism {
            0 => IntOrString::String("100%".to_owned()),
            number => IntOrString::Int(i32::try_from(number).unwrap_or(i32::MAX)),
        }
    }

    fn surge(&self) -> IntOrString {
        if self.starts_first { self.amount() } else { IntOrString::Int(0) }
    }

    fn unavailable(&self) -> IntOrString {
        if self.starts_first { IntOrString::Int(0) } else { self.amount() }
    }
}

impl Workload {
    /// Where how many at once is written.
    fn amount_field(self, starts_first: bool) -> &'static str {
        match (self, starts_first) {
            (Self::Single, _) => "spec.strategy.type",
            (Self::Deployment, false) => "spec.strategy.rollingUpdate.maxUnavailable",
            (Self::Deployment, true) => "spec.strategy.rollingUpdate.maxSurge",
            (Self::StatefulSet, _) => "spec.updateStrategy.type",
            (Self::DaemonSet, false) => "spec.updateStrategy.rollingUpdate.maxUnavailable",
            (Self::DaemonSet, true) => "spec.updateStrategy.rollingUpdate.maxSurge",
        }
    }
}

/// A time rounded up to whole seconds, which is all that Kubernetes has.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Reads `update_config` and `rollback_config`, and marks their leaves.
fn chosen(service: &Service, workload: Workload, holder: &Holder, ledger: &mut Ledger) -> Chosen {
    let none = UpdateConfig::default();
    let update = service.update.as_ref().unwrap_or(&none);
    let mut result = Chosen {
        parallelism: update.parallelism.map_or(1, |parallelism| parallelism.value),
        starts_first: update.order.map(|order| order.value) == Some(UpdateOrder::StartFirst),
        wait: 0,
    };
    if matches!(workload, Workload::Single | Workload::StatefulSet) {
        result.starts_first = false;
    }
    let amount = holder.field(workload.amount_field(result.starts_first));
    if update.parallelism.is_none() && update.order.is_none() && workload != Workload::Single {
        ledger.added(amount.clone(), "Swarm replaces one container at a time, and stops the old one first");
    }
    if let Some(parallelism) = update.parallelism {
        match (workload, parallelism.value) {
            (Workload::Single, _) => ledger.agrees(parallelism.leaf, "there is one container"),
            (Workload::StatefulSet, 1) => ledger.converted(parallelism.leaf, amount.clone()),
            (Workload::StatefulSet, _) => {
                ledger.approximated(parallelism.leaf, amount.clone(), "a StatefulSet replaces one pod at a time");
            }
            _ => ledger.converted(parallelism.leaf, amount.clone()),
        }
    }
    if let Some(order) = update.order {
        match (workload, order.value) {
            (Workload::Deployment, UpdateOrder::StopFirst) => ledger.approximated(
                order.leaf,
                amount,
                "a new pod may start while the old one still ends; Swarm waits for the end",
            ),
            (Workload::Single, UpdateOrder::StartFirst) => ledger.approximated(
                order.leaf,
                amount,
                "the old pod ends first, so that two never write the volume: there is a gap",
            ),
            (Workload::StatefulSet, UpdateOrder::StartFirst) => ledger.approximated(
                order.leaf,
                amount,
                "the old pod ends first, for a StatefulSet has one pod of a name: there is a gap",
            ),
            _ => ledger.converted(order.leaf, amount),
        }
    }
    result.wait = wait(update, holder, ledger);
    failures(update, workload, holder, ledger);
    rollback(service.rollback.as_ref(), update, holder, ledger);
    result
}

/// How long a new pod has to be ready before the next is replaced: the longer one of `delay` and `monitor`. Swarm waits for `delay` before the
/// next container, and watches the new one for `monitor`.
fn wait(update: &UpdateConfig, holder: &Holder, ledger: &mut Ledger) -> i32 {
    let delay = update.delay.map_or(Duration::ZERO, |delay| delay.value);
    // A monitor of nothing is not written, to Docker.
    let monitor = update.monitor.map(|monitor| monitor.value).filter(|time| !time.is_zero()).unwrap_or(MONITOR);
    let target = holder.field("spec.minReadySeconds");
    let longer = delay.max(monitor);
    let is_cut = longer.subsec_nanos() > 0;
    let mut mark = |written: Option<At<Duration>>, reason: &str| {
        let Some(written) = written else { return };
        let mut reason = reason.to_owned();
        if written.value == longer && is_cut {
            reason.push_str("; rounded up to whole seconds");
        }
        ledger.approximated(written.leaf, target.clone(), reason);
    };
    mark(
        update.delay,
        match delay < monitor {
            true => "the next pod waits for the longer monitor, while the new one is ready",
            false => "the new pod has to be ready for that long before the next one is replaced",
        },
    );
    mark(
        update.monitor,
        match monitor < delay {
            true => "the new pod is watched for the longer delay",
            false => {
                "the new pod has to be ready for that long; one that is not holds the update up, and never fails it"
            }
        },
    );
    if update.delay.is_none() && update.monitor.is_none() {
        ledger.added(target, "Swarm watches a new container for 5 s before the next one counts");
    }
    i32::try_from(whole_seconds(longer)).unwrap_or(i32::MAX)
}

fn failures(update: &UpdateConfig, workload: Workload, holder: &Holder, ledger: &mut Ledger) {
    let undo = format!(
        "`cairn migrate rollback DIR` or `kubectl rollout undo {}` does it",
        holder.object.to_ascii_lowercase()
    );
    if let Some(action) = &update.failure_action {
        let field = match workload {
            Workload::Deployment | Workload::Single => "spec.progressDeadlineSeconds",
            Workload::StatefulSet | Workload::DaemonSet => "spec.minReadySeconds",
        };
        let target = holder.field(field);
        match action.value.as_str() {
            "pause" | "" => ledger.approximated(
                action.leaf,
                target,
                "the update waits at a pod that is not ready, and resumes when it is; Swarm waits for a person",
            ),
            "rollback" => ledger.approximated(
                action.leaf,
                target,
                format!("the update stops at a pod that is not ready, and nothing rolls it back: {undo}"),
            ),
            _ => ledger.dropped(action.leaf, "Kubernetes never continues past a pod that is not ready"),
        }
    }
    if let Some(ratio) = update.max_failure_ratio {
        match ratio.value > 0.0 {
            false => ledger.agrees(ratio.leaf, "Kubernetes does not continue past a pod that is not ready"),
            true => ledger.dropped(ratio.leaf, "Kubernetes has no share of failures that an update may have"),
        }
    }
}

/// Kubernetes rolls back by the strategy of updates.
fn rollback(rollback: Option<&UpdateConfig>, update: &UpdateConfig, holder: &Holder, ledger: &mut Ledger) {
    let Some(rollback) = rollback else { return };
    let order = |config: &UpdateConfig| config.order.map_or(UpdateOrder::StopFirst, |order| order.value);
    let monitor = |config: &UpdateConfig| config.monitor.map_or(MONITOR, |monitor| monitor.value);
    let same = [
        (rollback.parallelism.map(|one| one.leaf), {
            let number = |config: &UpdateConfig| config.parallelism.map_or(1, |one| one.value);
            number(rollback) == number(update)
        }),
        (rollback.delay.map(|one| one.leaf), {
            let delay = |config: &UpdateConfig| config.delay.map_or(Duration::ZERO, |delay| delay.value);
            delay(rollback) == delay(update)
        }),
        (rollback.monitor.map(|one| one.leaf), monitor(rollback) == monitor(update)),
        (rollback.order.map(|one| one.leaf), order(rollback) == order(update)),
    ];
    let revisions = holder.field("spec.revisionHistoryLimit");
    for (leaf, is_same) in same {
        let Some(leaf) = leaf else { continue };
        let reason = match is_same {
            true => "a roll-back has the strategy of updates, which says the same; a person starts it",
            false => "a roll-back has the strategy of updates, which says something else; a person starts it",
        };
        let outcome = if is_same { Outcome::Approximated } else { Outcome::Dropped };
        ledger.mark(leaf, outcome, reason, is_same.then(|| revisions.clone()));
    }
    for leaf in [rollback.failure_action.as_ref().map(|one| one.leaf), rollback.max_failure_ratio.map(|one| one.leaf)]
        .into_iter()
        .flatten()
    {
        let reason = "Kubernetes does not judge a roll-back; it waits at a pod that is not ready";
        ledger.approximated(leaf, revisions.clone(), reason);
    }
}

#[cfg(test)]
mod tests;
