//! Tests of limits and requests.

use super::*;
use crate::migrate::objects::service_test::{Input, added, fate, holder, service};
use crate::migrate::stack::{GenericResource, Resources};

type Amount = Option<u64>;

/// Limits and requests as `cpu=…`, and the ledger with every leaf marked.
fn found(cpu: (Amount, Amount), memory: (Amount, Amount)) -> (String, String, Ledger) {
    let (mut input, mut service) = (Input::default(), service());
    let mut at = |amount: Amount| amount.map(|amount| input.at("r", amount));
    service.resources = Resources {
        cpu_limit: at(cpu.0),
        cpu_reservation: at(cpu.1),
        memory_limit: at(memory.0),
        memory_reservation: at(memory.1),
        ..Resources::default()
    };
    let mut ledger = input.ledger();
    let needs = resources(&service, &holder(), &mut ledger).resources.unwrap_or_default();
    assert!(ledger.unmarked().is_empty());
    let text = |list: Option<BTreeMap<String, Quantity>>| {
        let all = list.unwrap_or_default().into_iter().map(|(name, amount)| format!("{name}={}", amount.0));
        all.collect::<Vec<_>>().join(" ")
    };
    (text(needs.limits), text(needs.requests), ledger)
}

fn outcomes(ledger: &Ledger) -> Vec<Outcome> {
    ledger.leaves().iter().map(|(leaf, _)| fate(ledger, leaf).0).collect()
}

#[test]
fn memory_is_readable_and_exact() {
    // Docker's units are binary: 512M, 4G, 2.5G, 100m, 50M, 268435456.
    for (bytes, expected) in [
        (536_870_912, "512Mi"),
        (4_294_967_296, "4Gi"),
        (2_684_354_560, "2560Mi"),
        (104_857_600, "100Mi"),
        (52_428_800, "50Mi"),
        (268_435_456, "256Mi"),
        (5_243_904, "5121Ki"),
        (5_000_001, "5000001"),
    ] {
        assert_eq!(found((None, None), (None, Some(bytes))).1, format!("memory={expected}"));
    }
}

#[test]
fn processors_are_thousandths_rounded_up() {
    for (nanos, expected, outcome) in [
        (500_000_000, "500m", Outcome::Converted),
        (1_000_000_000, "1", Outcome::Converted),
        (1_500_000_000, "1500m", Outcome::Converted),
        (1_000_000, "1m", Outcome::Converted),
        (100_000, "1m", Outcome::Approximated),
        (1_500_001, "2m", Outcome::Approximated),
    ] {
        let (_, requests, ledger) = found((None, Some(nanos)), (None, None));
        assert_eq!(requests, format!("cpu={expected}"));
        assert_eq!(outcomes(&ledger), [outcome], "{nanos}");
    }
}

#[test]
fn each_of_the_four_combinations_has_its_requests() {
    const CPU: u64 = 500_000_000;
    const MEMORY: u64 = 512 << 20;
    let (limits, requests, ledger) = found((Some(CPU), None), (Some(MEMORY), None));
    assert_eq!((limits.as_str(), requests.as_str()), ("cpu=500m memory=512Mi", "cpu=10m memory=32Mi"));
    assert_eq!(added(&ledger).len(), 2);
    let (limits, requests, _) = found((None, Some(CPU)), (None, Some(MEMORY)));
    assert_eq!((limits.as_str(), requests.as_str()), ("", "cpu=500m memory=512Mi"));
    let (limits, requests, ledger) = found((Some(CPU), Some(CPU / 2)), (Some(MEMORY), Some(MEMORY / 4)));
    assert_eq!((limits.as_str(), requests.as_str()), ("cpu=500m memory=512Mi", "cpu=250m memory=128Mi"));
    assert_eq!(outcomes(&ledger), [Outcome::Converted; 4]);
    assert!(added(&ledger).is_empty());
    let (limits, requests, _) = found((None, None), (None, None));
    assert!(limits.is_empty() && requests.is_empty());
}

#[test]
fn a_request_is_never_above_its_limit() {
    let (_, requests, ledger) = found((Some(5_000_000), None), (Some(8 << 20), Some(16 << 20)));
    assert_eq!(requests, "cpu=5m memory=8Mi");
    assert_eq!(outcomes(&ledger), [Outcome::Converted, Outcome::Converted, Outcome::Approximated]);
    assert_eq!(found((Some(0), Some(0)), (None, None)).0, "", "0 is no limit");
}

#[test]
fn gpus_are_those_of_nvidias_plugin() {
    let gpus = |kind: &str, amount| {
        let (mut input, mut service) = (Input::default(), service());
        service.resources.generic =
            vec![GenericResource { kind: input.at("k", kind.to_owned()), amount: input.at("a", amount) }];
        let mut ledger = input.ledger();
        let needs = resources(&service, &holder(), &mut ledger);
        let limit = needs.resources.and_then(|all| all.limits).and_then(|limits| limits.get(GPU).cloned());
        (limit.map(|limit| limit.0), needs.runtime_class, fate(&ledger, service.resources.generic[0].kind.leaf))
    };
    let nvidia = Some("nvidia".to_owned());
    for kind in ["NVIDIA-GPU", "gpu", "GPU"] {
        let (limit, class, (outcome, _, field)) = gpus(kind, ResourceAmount::Count(2));
        assert_eq!((limit, class, outcome), (Some("2".to_owned()), nvidia.clone(), Outcome::Approximated));
        assert_eq!(field, "spec.template.spec.containers[0].resources.limits[\"nvidia.com/gpu\"]");
    }
    assert_eq!(gpus("gpu", ResourceAmount::Named("GPU-1".to_owned())).0, Some("1".to_owned()));
    for kind in ["FPGA", "AMD-GPU"] {
        let (limit, class, (outcome, ..)) = gpus(kind, ResourceAmount::Count(1));
        assert_eq!((limit, class, outcome), (None, None, Outcome::NeedsInput));
    }
}

#[test]
fn devices_of_compose_are_gpus_or_asked_for() {
    let device = |driver: Option<&str>, count: Option<i64>, ids: &[&str], capability: &str| {
        let (mut input, mut service) = (Input::default(), service());
        service.resources.devices = vec![DeviceRequest {
            driver: driver.map(|driver| input.at("d", driver.to_owned())),
            count: count.map(|count| input.at("c", count)),
            ids: ids.iter().map(|id| input.at("i", (*id).to_owned())).collect(),
            capabilities: vec![input.at("g", capability.to_owned())],
            options: Vec::new(),
        }];
        let mut ledger = input.ledger();
        let needs = resources(&service, &holder(), &mut ledger);
        let limit = needs.resources.and_then(|all| all.limits).and_then(|limits| limits.get(GPU).cloned());
        (limit.map_or(String::new(), |limit| limit.0), outcomes(&ledger))
    };
    use Outcome::{Approximated, Converted, NeedsInput};
    let case = |amount: &str, outcomes: &[Outcome]| (amount.to_owned(), outcomes.to_vec());
    assert_eq!(device(Some("nvidia"), Some(2), &[], "gpu"), case("2", &[Converted, Converted, Approximated]));
    assert_eq!(device(Some("nvidia"), Some(-1), &[], "gpu"), case("1", &[Converted, NeedsInput, Approximated]));
    assert_eq!(device(None, None, &[], "gpu"), case("1", &[NeedsInput]));
    assert_eq!(device(None, None, &["0", "3"], "gpu"), case("2", &[Approximated; 3]));
    assert_eq!(device(Some("cdi"), None, &["vendor/x"], "tpu"), case("", &[NeedsInput; 3]));
}

#[test]
fn what_pods_have_no_field_for_is_dropped() {
    let (mut input, mut service) = (Input::default(), service());
    service.resources.pids = Some(input.at("p", 100));
    service.resources.swap = Some(input.at("s", -1));
    service.resources.swappiness = Some(input.at("w", 60));
    let mut ledger = input.ledger();
    assert_eq!(resources(&service, &holder(), &mut ledger), Needs::default());
    assert_eq!(outcomes(&ledger), [Outcome::Dropped; 3]);
}
