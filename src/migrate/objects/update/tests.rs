//! Tests of updates, restarts and stopping.

use super::lifetime::JobRestart;
use super::*;
use crate::migrate::Dialect;
use crate::migrate::objects::service_test::{Input, added, fate, holder, service};
use crate::migrate::stack::{HealthCheck, Mode, ModeKind, RestartCondition, RestartPolicy};

fn int(number: i32) -> IntOrString {
    IntOrString::Int(number)
}

fn rolling(update: &DeploymentUpdate) -> (IntOrString, IntOrString) {
    let rolling = update.strategy.rolling_update.clone().expect("a rolling update");
    (rolling.max_unavailable.expect("written"), rolling.max_surge.expect("written"))
}

fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[test]
fn without_update_config_one_is_stopped_first() {
    let mut ledger = Input::default().ledger();
    let found = deployment(&service(), false, &holder(), &mut ledger);
    assert_eq!(rolling(&found), (int(1), int(0)));
    assert_eq!((found.min_ready_seconds, found.progress_deadline_seconds), (5, 600));
    assert!(added(&ledger).contains(&"spec.strategy.rollingUpdate.maxUnavailable".to_owned()));
    let daemons = daemon_set(&service(), &holder(), &mut ledger).strategy.rolling_update.expect("rolling");
    assert_eq!((daemons.max_unavailable, daemons.max_surge), (Some(int(1)), Some(int(0))));
}

#[test]
fn order_and_parallelism_are_unavailable_or_surge() {
    let found = |parallelism: u64, order: UpdateOrder| {
        let (mut input, mut service) = (Input::default(), service());
        let config = UpdateConfig {
            parallelism: Some(input.at("p", parallelism)),
            order: Some(input.at("o", order)),
            ..UpdateConfig::default()
        };
        service.update = Some(config);
        let mut ledger = input.ledger();
        let found = rolling(&deployment(&service, false, &holder(), &mut ledger));
        assert!(ledger.unmarked().is_empty());
        found
    };
    let all = IntOrString::String("100%".to_owned());
    assert_eq!(found(2, UpdateOrder::StopFirst), (int(2), int(0)));
    assert_eq!(found(2, UpdateOrder::StartFirst), (int(0), int(2)));
    assert_eq!(found(0, UpdateOrder::StopFirst), (all.clone(), int(0)));
    assert_eq!(found(0, UpdateOrder::StartFirst), (int(0), all));
}

#[test]
fn a_single_pod_with_a_volume_ends_before_the_next_starts() {
    let mut ledger = Input::default().ledger();
    let found = deployment(&service(), true, &holder(), &mut ledger);
    assert_eq!((found.strategy.type_.as_deref(), found.strategy.rolling_update), (Some("Recreate"), None));
    let (mut input, mut several) = (Input::default(), service());
    several.mode.replicas = Some(input.at("r", 3));
    let mut ledger = input.ledger();
    assert_eq!(deployment(&several, true, &holder(), &mut ledger).strategy.type_.as_deref(), Some("RollingUpdate"));
}

#[test]
fn a_new_pod_is_watched_for_the_longer_of_delay_and_monitor() {
    let found = |delay: Duration, monitor: Duration| {
        let (mut input, mut service) = (Input::default(), service());
        let config = UpdateConfig {
            delay: Some(input.at("d", delay)),
            monitor: Some(input.at("m", monitor)),
            ..UpdateConfig::default()
        };
        service.update = Some(config.clone());
        let mut ledger = input.ledger();
        let found = deployment(&service, false, &holder(), &mut ledger);
        assert_eq!(fate(&ledger, config.monitor.expect("written").leaf).0, Outcome::Approximated);
        (found.min_ready_seconds, found.progress_deadline_seconds)
    };
    assert_eq!(found(secs(10), secs(60)), (60, 600));
    assert_eq!(found(secs(30), secs(20)), (30, 600));
    assert_eq!(found(Duration::from_millis(6500), Duration::ZERO), (7, 600));
    let (wait, deadline) = found(secs(3600), secs(5));
    assert!(deadline > wait, "the API refuses a deadline that is not later");
    let (wait, deadline) = found(Duration::MAX, secs(5));
    assert!(deadline > wait && wait > 0);
}

#[test]
fn what_kubernetes_does_not_do_on_a_failure_is_reported() {
    for (action, outcome) in
        [("pause", Outcome::Approximated), ("rollback", Outcome::Approximated), ("continue", Outcome::Dropped)]
    {
        let (mut input, mut service) = (Input::default(), service());
        let written = input.at("f", action.to_owned());
        let leaf = written.leaf;
        let ratio = input.at("m", 0.25);
        service.update = Some(UpdateConfig {
            failure_action: Some(written),
            max_failure_ratio: Some(ratio),
            ..UpdateConfig::default()
        });
        let mut ledger = input.ledger();
        deployment(&service, false, &holder(), &mut ledger);
        let (found, reason, _) = fate(&ledger, leaf);
        assert_eq!(found, outcome);
        assert_eq!(reason.contains("kubectl rollout undo deployment/search"), action == "rollback", "{reason}");
        assert_eq!(fate(&ledger, ratio.leaf).0, Outcome::Dropped);
    }
}

#[test]
fn a_roll_back_that_differs_from_updates_is_dropped() {
    let (mut input, mut service) = (Input::default(), service());
    let config = UpdateConfig {
        parallelism: Some(input.at("p", 0)),
        order: Some(input.at("o", UpdateOrder::StopFirst)),
        monitor: Some(input.at("m", secs(5))),
        failure_action: Some(input.at("f", "pause".to_owned())),
        ..UpdateConfig::default()
    };
    service.rollback = Some(config.clone());
    let mut ledger = input.ledger();
    let found = deployment(&service, false, &holder(), &mut ledger);
    assert!(ledger.unmarked().is_empty());
    assert_eq!(fate(&ledger, config.parallelism.expect("written").leaf).0, Outcome::Dropped);
    assert_eq!(fate(&ledger, config.order.expect("written").leaf).0, Outcome::Approximated);
    assert!(found.revision_history_limit > 0);
}

#[test]
fn a_stateful_set_replaces_one_at_a_time_and_starts_all_at_once() {
    let (mut input, mut service) = (Input::default(), service());
    let config = UpdateConfig {
        parallelism: Some(input.at("p", 2)),
        order: Some(input.at("o", UpdateOrder::StartFirst)),
        ..UpdateConfig::default()
    };
    service.update = Some(config.clone());
    let mut ledger = input.ledger();
    let found = stateful_set(&service, &holder(), &mut ledger);
    assert_eq!((found.strategy.rolling_update, found.pod_management_policy), (None, "Parallel"));
    assert_eq!(fate(&ledger, config.parallelism.expect("written").leaf).0, Outcome::Approximated);
    assert_eq!(fate(&ledger, config.order.expect("written").leaf).0, Outcome::Approximated);
}

#[test]
fn a_job_with_update_config_is_refused() {
    let (mut input, mut service) = (Input::default(), service());
    service.update = Some(UpdateConfig { parallelism: Some(input.at("p", 2)), ..UpdateConfig::default() });
    assert_eq!(refused_of_job(&service, input.ledger().leaves()), None);
    service.mode.kind = Some(input.at("mode", ModeKind::ReplicatedJob));
    let mistake = refused_of_job(&service, input.ledger().leaves()).expect("a mistake");
    assert!(mistake.to_string().starts_with("stack.yml:1:1: a job"), "{mistake}");
}

fn with_condition(input: &mut Input, condition: RestartCondition) -> Service {
    let mut service = service();
    service.restart.condition = Some(input.at("c", condition));
    service
}

#[test]
fn only_what_nothing_marks_as_a_server_is_a_job() {
    let mut input = Input::default();
    assert_eq!(lifetime(&service()).0, Lifetime::Server);
    // A worker that starts again after a failure is to be replaced by its next version, which a Job's pods are not.
    let worker = with_condition(&mut input, RestartCondition::OnFailure);
    assert_eq!(lifetime(&worker).0, Lifetime::Server);
    let once = with_condition(&mut input, RestartCondition::None);
    let (found, rule) = lifetime(&once);
    assert_eq!(found, Lifetime::Job { backoff_limit: 0, restart: JobRestart::Never });
    assert!(rule.contains("none"), "{rule}");
    let mut replicas = once.clone();
    replicas.mode.replicas = Some(input.at("r", 3));
    let mut checked = once.clone();
    checked.health_check = Some(HealthCheck::default());
    let mut updated = once.clone();
    updated.update = Some(UpdateConfig { parallelism: Some(input.at("p", 2)), ..UpdateConfig::default() });
    let mut exposed = once.clone();
    exposed.compose.expose = vec![input.at("e", "80".to_owned())];
    let mut global = once.clone();
    global.mode = Mode { kind: Some(input.at("k", ModeKind::Global)), ..Mode::default() };
    for server in [replicas, checked, updated, exposed, global] {
        assert_eq!(lifetime(&server).0, Lifetime::Server);
    }
    // What a running swarm writes out says nothing.
    let mut defaults = once.clone();
    defaults.update = Some(UpdateConfig { parallelism: Some(input.at("p", 1)), ..UpdateConfig::default() });
    assert_ne!(lifetime(&defaults).0, Lifetime::Server);
    let mut job = service();
    job.mode = Mode { kind: Some(input.at("k", ModeKind::ReplicatedJob)), ..Mode::default() };
    // Swarm's default, any, is on-failure of a job, without a limit.
    assert_eq!(lifetime(&job).0, Lifetime::Job { backoff_limit: i32::MAX, restart: JobRestart::OnFailure });
}

#[test]
fn attempts_that_swarm_never_reached_are_no_limit() {
    let outcome = |attempts: u64, delay: Option<u64>, window: Option<u64>| {
        let (mut input, mut service) = (Input::default(), service());
        let limit = input.at("m", attempts);
        service.restart = RestartPolicy {
            condition: None,
            delay: delay.map(|delay| input.at("d", secs(delay))),
            max_attempts: Some(limit),
            window: window.map(|window| input.at("w", secs(window))),
        };
        let mut ledger = input.ledger();
        let policy = restart(&service, Dialect::Stack, (&Lifetime::Server, ""), &holder(), &mut ledger);
        assert_eq!(policy, "Always");
        assert!(ledger.unmarked().is_empty());
        fate(&ledger, limit.leaf).0
    };
    assert_eq!(outcome(3, Some(10), Some(1)), Outcome::Converted, "moby/swarmkit#2936");
    assert_eq!(outcome(3, None, Some(15)), Outcome::Converted, "3 times the default of 5 s");
    assert_eq!(outcome(3, None, Some(120)), Outcome::Dropped);
    assert_eq!(outcome(3, None, None), Outcome::Dropped);
    assert_eq!(outcome(0, None, Some(120)), Outcome::Converted);
}

#[test]
fn the_condition_says_what_a_workload_does_instead() {
    for (condition, outcome) in [
        (RestartCondition::Any, Outcome::Converted),
        (RestartCondition::OnFailure, Outcome::Approximated),
        (RestartCondition::None, Outcome::Approximated),
    ] {
        let mut input = Input::default();
        let service = with_condition(&mut input, condition);
        let mut ledger = input.ledger();
        restart(&service, Dialect::Stack, (&Lifetime::Server, "a server"), &holder(), &mut ledger);
        assert_eq!(fate(&ledger, service.restart.condition.expect("written").leaf).0, outcome);
    }
    let (mut input, mut service) = (Input::default(), service());
    service.restart.max_attempts = Some(input.at("m", 2));
    let mut ledger = input.ledger();
    let cron = Holder { object: "CronJob/x".to_owned(), template: "spec.jobTemplate.spec.template".to_owned() };
    assert_eq!(restart(&service, Dialect::Stack, (&job(&service), "a job"), &cron, &mut ledger), "OnFailure");
    let (_, _, field) = fate(&ledger, service.restart.max_attempts.expect("written").leaf);
    assert_eq!(field, "spec.jobTemplate.spec.backoffLimit");
}

#[test]
fn the_grace_of_docker_is_always_written() {
    let mut ledger = Input::default().ledger();
    assert_eq!(grace_period(&service(), &holder(), &mut ledger), 10);
    assert_eq!(added(&ledger), ["spec.template.spec.terminationGracePeriodSeconds"]);
    for (grace, signal, expected, outcomes) in [
        (90_000, "SIGTERM", 90, [Outcome::Converted, Outcome::Converted]),
        (1_500, "SIGQUIT", 2, [Outcome::Approximated, Outcome::Dropped]),
        (0, "15", 0, [Outcome::Converted, Outcome::Converted]),
    ] {
        let (mut input, mut service) = (Input::default(), service());
        let time = input.at("g", Duration::from_millis(grace));
        service.stop_grace_period = Some(time);
        service.stop_signal = Some(input.at("s", signal.to_owned()));
        let mut ledger = input.ledger();
        assert_eq!(grace_period(&service, &holder(), &mut ledger), expected);
        let signal = fate(&ledger, service.stop_signal.expect("written").leaf).0;
        assert_eq!([fate(&ledger, time.leaf).0, signal], outcomes);
    }
}
