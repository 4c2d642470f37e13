//! Tests of where pods run.

use k8s_openapi::api::core::v1::NodeSelectorRequirement;

use super::*;
use crate::migrate::leaf::At;
use crate::migrate::objects::service_test::{Input, added, fate, holder, selector, service};
use crate::migrate::stack::{Mode, Platform};

/// The expressions as `KEY OPERATOR VALUES`, the scheduling, the ledger, and the leaves of the constraints.
fn constrained(constraints: &[&str]) -> (Vec<String>, Scheduling, Ledger, Vec<Leaf>) {
    let (mut input, mut service) = (Input::default(), service());
    service.placement.constraints = constraints.iter().map(|text| input.at("c", (*text).to_owned())).collect();
    let leaves = service.placement.constraints.iter().map(|text| text.leaf).collect();
    let mut ledger = input.ledger();
    let scheduling = placement(&service, &selector(), &holder(), &mut ledger);
    (expressions(&scheduling), scheduling, ledger, leaves)
}

fn expressions(scheduling: &Scheduling) -> Vec<String> {
    let nodes = scheduling.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = nodes.and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(required) = required else { return Vec::new() };
    assert_eq!(required.node_selector_terms.len(), 1, "all have to hold, so there is one term");
    let all = required.node_selector_terms[0].match_expressions.clone().unwrap_or_default();
    let text = |one: NodeSelectorRequirement| {
        format!("{} {} {}", one.key, one.operator, one.values.unwrap_or_default().join(","))
    };
    all.into_iter().map(text).collect()
}

#[test]
fn constraints_are_one_term_with_or_without_blanks() {
    let (found, scheduling, ledger, leaves) =
        constrained(&["node.labels.disk!=hdd", "node.labels.zone == 1", "engine.labels.gpu==YES"]);
    assert_eq!(found, ["disk NotIn hdd", "zone In 1", "gpu In YES"]);
    assert_eq!(fate(&ledger, leaves[1]).0, Outcome::Converted);
    let (outcome, reason, field) = fate(&ledger, leaves[2]);
    assert_eq!(outcome, Outcome::Approximated, "Swarm compares without regard to case");
    assert!(reason.contains("case"), "{reason}");
    assert!(field.ends_with("nodeSelectorTerms[0].matchExpressions[2]"), "{field}");
    let labels: Vec<_> = scheduling.node_labels.iter().map(|one| (one.key.as_str(), one.value.as_deref())).collect();
    assert_eq!(labels, [("disk", Some("hdd")), ("gpu", Some("YES")), ("zone", Some("1"))]);
}

#[test]
fn roles_are_the_label_of_the_control_plane() {
    let label = |operator| vec![format!("{CONTROL_PLANE} {operator} ")];
    for (constraint, operator) in [
        ("node.role==manager", "Exists"),
        ("node.role != worker", "Exists"),
        ("node.role == Worker", "DoesNotExist"),
        ("node.role!=manager", "DoesNotExist"),
    ] {
        let (found, scheduling, ledger, leaves) = constrained(&[constraint]);
        assert_eq!(found, label(operator), "{constraint}");
        assert_eq!(fate(&ledger, leaves[0]).0, Outcome::Converted);
        assert_eq!(scheduling.tolerations.len(), usize::from(operator == "Exists"), "{constraint}");
    }
    let (_, _, ledger, _) = constrained(&["node.role==manager"]);
    assert_eq!(added(&ledger), ["spec.template.spec.tolerations"]);
}

#[test]
fn platforms_have_the_names_of_go() {
    for (constraint, expected, outcome) in [
        ("node.platform.arch==x86_64", "kubernetes.io/arch In amd64", Outcome::Converted),
        ("node.platform.arch != aarch64", "kubernetes.io/arch NotIn arm64", Outcome::Converted),
        ("node.platform.arch==armv7l", "kubernetes.io/arch In arm", Outcome::Approximated),
        ("node.platform.arch==amd64", "kubernetes.io/arch In amd64", Outcome::Approximated),
        ("node.platform.os == Linux", "kubernetes.io/os In linux", Outcome::Converted),
        ("node.platform.os != windows", "kubernetes.io/os NotIn windows", Outcome::Converted),
        ("node.hostname==Web01", "kubernetes.io/hostname In web01", Outcome::Converted),
    ] {
        let (found, _, ledger, leaves) = constrained(&[constraint]);
        assert_eq!(found, [expected], "{constraint}");
        assert_eq!(fate(&ledger, leaves[0]).0, outcome, "{constraint}");
    }
}

#[test]
fn what_kubernetes_cannot_say_is_asked_for() {
    for constraint in [
        "node.id==2ivku8v2gvtg4",
        "node.ip==10.0.0.0/8",
        "node.platform.os==windows",
        "node.labels.x == a b",
        "node.labels.-x == 1",
        "node.color == red",
        "node.role == boss",
        "node.role=manager",
        "node.labels.zone==",
        "",
    ] {
        let (found, _, ledger, leaves) = constrained(&[constraint]);
        assert!(found.is_empty(), "{constraint}: {found:?}");
        assert_eq!(fate(&ledger, leaves[0]).0, Outcome::NeedsInput, "{constraint}");
    }
    assert!(
        fate(&constrained(&["node.color==red"]).2, constrained(&["node.color==red"]).3[0])
            .1
            .contains("never scheduled")
    );
}

#[test]
fn constraints_that_contradict_are_both_written_and_reported() {
    for pair in [["node.labels.a==x", "node.labels.a==y"], ["node.role==manager", "node.role==worker"]] {
        let (found, _, ledger, leaves) = constrained(&pair);
        assert_eq!(found.len(), 2);
        assert!(leaves.iter().all(|leaf| fate(&ledger, *leaf).0 == Outcome::NeedsInput), "{pair:?}");
    }
    let (found, _, ledger, leaves) = constrained(&["node.labels.a==SSD", "node.labels.a == ssd"]);
    assert_eq!(found, ["a In SSD"], "Swarm takes the two for one");
    assert!(leaves.iter().all(|leaf| fate(&ledger, *leaf).0 == Outcome::Approximated));
}

#[test]
fn preferences_are_spreads_that_yield() {
    let (mut input, mut service) = (Input::default(), service());
    service.placement.spread =
        ["node.labels.zone", "engine.labels.rack", "node.id"].map(|text| input.at("s", text.to_owned())).to_vec();
    let mut ledger = input.ledger();
    let found = placement(&service, &selector(), &holder(), &mut ledger);
    let spreads: Vec<_> = found
        .spread
        .iter()
        .map(|one| (one.topology_key.as_str(), one.max_skew, one.when_unsatisfiable.as_str()))
        .collect();
    assert_eq!(spreads, [("zone", 1, "ScheduleAnyway"), ("rack", 1, "ScheduleAnyway")]);
    assert_eq!(found.spread[0].label_selector, Some(of_service(&selector())));
    let outcomes: Vec<Outcome> = service.placement.spread.iter().map(|one| fate(&ledger, one.leaf).0).collect();
    assert_eq!(outcomes, [Outcome::Approximated, Outcome::Approximated, Outcome::Dropped]);
    assert!(fate(&ledger, service.placement.spread[0].leaf).1.contains("without it"));
    assert!(found.node_labels.contains(&NodeLabel { key: "zone".to_owned(), value: None }));
}

#[test]
fn the_most_on_a_node_is_a_hard_rule() {
    let found = |number, kind| {
        let (mut input, mut service) = (Input::default(), service());
        let most = input.at("m", number);
        service.placement.max_replicas = Some(most);
        service.mode = Mode { kind: Some(input.at("k", kind)), ..Mode::default() };
        let mut ledger = input.ledger();
        let scheduling = placement(&service, &selector(), &holder(), &mut ledger);
        assert_eq!(fate(&ledger, most.leaf).0, Outcome::Converted);
        scheduling
    };
    let one = found(1, ModeKind::Replicated);
    let pods = one.affinity.expect("an affinity").pod_anti_affinity.expect("between pods");
    let terms = pods.required_during_scheduling_ignored_during_execution.expect("required");
    assert_eq!((terms.len(), terms[0].topology_key.as_str()), (1, "kubernetes.io/hostname"));
    assert_eq!(terms[0].label_selector, Some(of_service(&selector())));
    let three = found(3, ModeKind::Replicated).spread;
    assert_eq!((three[0].max_skew, three[0].when_unsatisfiable.as_str()), (3, "DoNotSchedule"));
    // The Kubernetes API: with fewer nodes than minDomains the global minimum is 0.
    assert!(three[0].min_domains.is_some_and(|least| least > 100_000));
    assert_eq!(found(0, ModeKind::Replicated), Scheduling::default());
    assert_eq!(found(2, ModeKind::Global), Scheduling::default());
}

#[test]
fn platforms_of_the_image_are_written_where_usual_nodes_do_not_fit() {
    let found = |platforms: &[(&str, &str)]| {
        let (mut input, mut service) = (Input::default(), service());
        let mut platform = |(architecture, os): &(&str, &str)| Platform {
            architecture: Some(input.at("a", (*architecture).to_owned())),
            os: Some(input.at("o", (*os).to_owned())),
        };
        service.placement.platforms = platforms.iter().map(&mut platform).collect();
        let leaf = service.placement.platforms[0].architecture.as_ref().map(|one: &At<String>| one.leaf);
        let mut ledger = input.ledger();
        let scheduling = placement(&service, &selector(), &holder(), &mut ledger);
        assert!(ledger.unmarked().is_empty());
        (expressions(&scheduling), fate(&ledger, leaf.expect("written")).0)
    };
    assert_eq!(found(&[("amd64", "linux")]), (Vec::new(), Outcome::Converted));
    assert_eq!(found(&[("x86_64", "linux"), ("arm64", "linux")]), (Vec::new(), Outcome::Converted));
    assert_eq!(found(&[("aarch64", "linux")]), (vec!["kubernetes.io/arch In arm64".to_owned()], Outcome::Converted));
    assert_eq!(found(&[("amd64", "windows")]), (Vec::new(), Outcome::NeedsInput));
}
