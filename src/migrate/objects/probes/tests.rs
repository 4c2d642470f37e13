//! Tests of health checks as probes.

use super::*;
use crate::migrate::objects::service_test::{Input, added, fate, holder, service};

fn checked(make: impl FnOnce(&mut Input) -> HealthCheck, image: Option<&ImageCheck>) -> (Probes, Ledger, HealthCheck) {
    let (mut input, mut service) = (Input::default(), service());
    let check = make(&mut input);
    service.health_check = Some(check.clone());
    let mut ledger = input.ledger();
    let found = probes(&service, image, &holder(), &mut ledger);
    assert!(ledger.unmarked().is_empty(), "{:?}", ledger.unmarked());
    (found, ledger, check)
}

fn shell(input: &mut Input, line: &str) -> Option<Test> {
    Some(Test::Shell(Some(input.at("t0", ()).leaf), input.at("t1", line.to_owned())))
}

fn command(probe: Option<&Probe>) -> Vec<String> {
    probe.and_then(|probe| probe.exec.clone()).and_then(|exec| exec.command).unwrap_or_default()
}

/// Initial delay, period, timeout and failures.
fn times(probe: Option<&Probe>) -> Option<[i32; 4]> {
    let probe = probe?;
    let times = [probe.initial_delay_seconds, probe.period_seconds, probe.timeout_seconds, probe.failure_threshold];
    Some(times.map(Option::unwrap_or_default))
}

#[test]
fn a_line_is_run_by_a_shell_with_dockers_defaults() {
    let make = |input: &mut Input| HealthCheck {
        test: Some(Test::Shell(None, input.at("t", "echo hi".to_owned()))),
        ..HealthCheck::default()
    };
    let (found, ledger, _) = checked(make, None);
    assert_eq!(command(found.liveness.as_ref()), ["/bin/sh", "-c", "echo hi"]);
    assert_eq!(command(found.readiness.as_ref()), ["/bin/sh", "-c", "echo hi"]);
    assert_eq!(found.startup, None, "there is no start period");
    // 30 s, 30 s, 3 times, and the first test after one interval.
    assert_eq!(times(found.liveness.as_ref()), Some([30, 30, 30, 3]));
    assert_eq!(times(found.readiness.as_ref()), Some([0, 30, 30, 3]));
    assert!(added(&ledger).iter().any(|field| field.ends_with("livenessProbe.periodSeconds")));
}

#[test]
fn a_program_has_its_words_without_cmd() {
    let make = |input: &mut Input| HealthCheck {
        test: Some(Test::Program(
            input.at("t0", ()).leaf,
            ["curl", "-f", "http://{{.Node.Hostname}}/$(id)$$"].map(|word| input.at("t", word.to_owned())).to_vec(),
        )),
        ..HealthCheck::default()
    };
    let (found, ledger, check) = checked(make, None);
    // Kubernetes expands `$(id)` to nothing else and `$$` to `$`; Swarm expands no placeholder here.
    assert_eq!(command(found.liveness.as_ref()), ["curl", "-f", "http://{{.Node.Hostname}}/$$(id)$$$"]);
    let Some(Test::Program(leaf, words)) = check.test else { panic!("a program") };
    assert_eq!(fate(&ledger, leaf).0, Outcome::Converted);
    assert_eq!(fate(&ledger, words[2].leaf).0, Outcome::Converted);
}

#[test]
fn times_are_whole_seconds_rounded_up() {
    let make = |input: &mut Input| HealthCheck {
        test: shell(input, "true"),
        interval: Some(input.at("i", Duration::from_millis(1500))),
        timeout: Some(input.at("o", Duration::from_millis(200))),
        retries: Some(input.at("r", 5)),
        start_period: Some(input.at("p", Duration::ZERO)),
        start_interval: Some(input.at("s", Duration::from_secs(1))),
    };
    let (found, ledger, check) = checked(make, None);
    assert_eq!(times(found.liveness.as_ref()), Some([2, 2, 1, 5]));
    assert_eq!(fate(&ledger, check.interval.expect("written").leaf).0, Outcome::Approximated);
    assert_eq!(fate(&ledger, check.timeout.expect("written").leaf).0, Outcome::Approximated);
    assert_eq!(fate(&ledger, check.retries.expect("written").leaf).0, Outcome::Converted);
    assert_eq!(fate(&ledger, check.start_period.expect("written").leaf).0, Outcome::Converted);
    assert_eq!(found.startup, None);
}

#[test]
fn nothing_is_dockers_default() {
    let make = |input: &mut Input| HealthCheck {
        test: shell(input, "true"),
        interval: Some(input.at("i", Duration::ZERO)),
        timeout: Some(input.at("o", Duration::ZERO)),
        retries: Some(input.at("r", 0)),
        ..HealthCheck::default()
    };
    let (found, ..) = checked(make, None);
    assert_eq!(times(found.liveness.as_ref()), Some([30, 30, 30, 3]));
}

#[test]
fn a_start_is_never_cut_short() {
    let make = |interval: Option<u64>| {
        move |input: &mut Input| HealthCheck {
            test: shell(input, "true"),
            interval: Some(input.at("i", Duration::from_secs(10))),
            start_period: Some(input.at("p", Duration::from_secs(60))),
            start_interval: interval.map(|seconds| input.at("s", Duration::from_secs(seconds))),
            ..HealthCheck::default()
        }
    };
    // Each 5 s for 60 s, then 3 failures in 10 s each: 12 + 6.
    let (found, ..) = checked(make(None), None);
    assert_eq!(times(found.startup.as_ref()), Some([5, 5, 30, 18]));
    assert_eq!(times(found.liveness.as_ref()), Some([0, 10, 30, 3]), "the startup probe holds it back");
    let (found, ..) = checked(make(Some(10)), None);
    assert_eq!(times(found.startup.as_ref()), Some([10, 10, 30, 9]), "60 / 10, and 3 retries");
}

#[test]
fn a_check_that_is_switched_off_is_no_probe() {
    let make = |input: &mut Input| HealthCheck {
        test: Some(Test::Disabled(input.at("t", ()).leaf)),
        interval: Some(input.at("i", Duration::from_secs(5))),
        ..HealthCheck::default()
    };
    let image = ImageCheck { test: vec!["CMD".to_owned(), "x".to_owned()], ..ImageCheck::default() };
    let (found, ledger, check) = checked(make, Some(&image));
    assert_eq!(found, Probes::default());
    assert_eq!(fate(&ledger, check.interval.expect("written").leaf).0, Outcome::Dropped);
    let Some(Test::Disabled(leaf)) = check.test else { panic!("disabled") };
    assert_eq!(fate(&ledger, leaf).0, Outcome::Converted);
}

#[test]
fn timings_without_a_test_are_for_the_test_of_the_image() {
    let make = |input: &mut Input| HealthCheck {
        interval: Some(input.at("i", Duration::from_secs(20))),
        retries: Some(input.at("r", 3)),
        ..HealthCheck::default()
    };
    let (found, ledger, check) = checked(make, None);
    assert_eq!(found, Probes::default());
    let (outcome, reason, _) = fate(&ledger, check.interval.expect("written").leaf);
    assert_eq!(outcome, Outcome::NeedsInput);
    assert!(reason.contains("--images"), "{reason}");
    let image = ImageCheck {
        test: vec!["CMD-SHELL".to_owned(), "wget -q localhost".to_owned()],
        shell: vec!["/bin/ash".to_owned(), "-c".to_owned()],
        timeout: Some(Duration::from_secs(4)),
        retries: Some(9),
        ..ImageCheck::default()
    };
    let (found, ..) = checked(make, Some(&image));
    assert_eq!(command(found.liveness.as_ref()), ["/bin/ash", "-c", "wget -q localhost"]);
    assert_eq!(times(found.liveness.as_ref()), Some([20, 20, 4, 3]), "what is written comes before the image's");
    let (found, ..) = checked(make, Some(&ImageCheck::default()));
    assert_eq!(found, Probes::default());
}

#[test]
fn the_check_of_an_image_is_written_out() {
    let image = ImageCheck { test: vec!["CMD".to_owned(), "ready".to_owned()], ..ImageCheck::default() };
    let mut ledger = Input::default().ledger();
    let found = probes(&service(), Some(&image), &holder(), &mut ledger);
    assert_eq!(command(found.readiness.as_ref()), ["ready"]);
    assert!(added(&ledger).iter().any(|field| field.ends_with("readinessProbe.exec.command")));
    assert_eq!(probes(&service(), None, &holder(), &mut ledger), Probes::default());
}

#[test]
fn a_test_that_changes_something_runs_as_often_as_in_a_swarm() {
    for line in ["redis-cli incr ping", "redis-cli INCR ping", "rm -f /tmp/x && touch /tmp/x", "curl -X POST a/b"] {
        let make = |input: &mut Input| HealthCheck { test: shell(input, line), ..HealthCheck::default() };
        let (found, ledger, check) = checked(make, None);
        assert_eq!(found.readiness, None, "{line}");
        assert_eq!(command(found.startup.as_ref()), ["/bin/sh", "-c", line], "the others wait for it");
        assert_eq!(times(found.startup.as_ref()), Some([30, 30, 30, 3]));
        let Some(Test::Shell(_, written)) = check.test else { panic!("a line") };
        assert_eq!(fate(&ledger, written.leaf).0, Outcome::Approximated);
    }
    for line in ["redis-cli ping", "curl -f http://localhost:80/health", "test -f /tmp/warm", "pg_isready -U postgres"]
    {
        assert!(!changes_state(&[line.to_owned()]), "{line}");
    }
}

#[test]
fn hostile_numbers_are_cut() {
    let make = |input: &mut Input| HealthCheck {
        test: shell(input, "true"),
        interval: Some(input.at("i", Duration::MAX)),
        retries: Some(input.at("r", u64::MAX)),
        start_period: Some(input.at("p", Duration::MAX)),
        start_interval: Some(input.at("s", Duration::from_nanos(1))),
        ..HealthCheck::default()
    };
    assert_eq!(times(checked(make, None).0.startup.as_ref()), Some([1, 1, 30, i32::MAX]));
}
