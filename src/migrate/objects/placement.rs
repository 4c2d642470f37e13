//! Where the pods of a service run: Swarm's constraints, preferences and platforms as affinities and spreads.
//!
//! Invariants: all constraints of a service are in one term of its affinity, so that all hold. A constraint that Kubernetes cannot say is
//! left out and asked for; none is widened in silence.

mod constraint;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodAntiAffinity,
    Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use self::constraint::{Constraint, ConstraintError, Key};
use super::Holder;
use crate::migrate::leaf::Leaf;
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::{ModeKind, Service};

/// The label that Kubernetes' control plane has. K3s gives it to its servers, with the value `true`.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// The label with the name of a node.
const HOST_NAME: &str = "kubernetes.io/hostname";
/// The label with the processor of a node, by Go's names.
const ARCHITECTURE: &str = "kubernetes.io/arch";
/// Where terms are in a pod.
const TERM: &str = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
/// Longest name of a label, and longest value.
const LABEL_LENGTH_MAX: usize = 63;

/// Where the pods of a service run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scheduling {
    /// Of the pod.
    pub affinity: Option<Affinity>,
    /// Of the pod.
    pub spread: Vec<TopologySpreadConstraint>,
    /// Of the pod.
    pub tolerations: Vec<Toleration>,
    /// Labels that nodes have to have.
    pub node_labels: BTreeSet<NodeLabel>,
}

/// Whether Swarm takes a constraint.
///
/// # Errors
/// Why it does not.
pub fn check(constraint: &str) -> Result<(), ConstraintError> {
    Constraint::parse(constraint).map(|_| ())
}

/// A label that nodes of the swarm have, and that nodes of the cluster need.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeLabel {
    /// The key.
    pub key: String,
    /// The value that services ask for or avoid. `None`: any; pods are spread over the values.
    pub value: Option<String>,
}

/// A constraint as an expression.
struct Expression {
    key: String,
    operator: &'static str,
    value: Option<String>,
    outcome: Outcome,
    reason: String,
}

impl Scheduling {
    /// Adds pods that have to be on the same node.
    pub fn join(&mut self, together: Vec<PodAffinityTerm>) {
        if !together.is_empty() {
            let pods = self.affinity.get_or_insert_default().pod_affinity.get_or_insert_default();
            pods.required_during_scheduling_ignored_during_execution.get_or_insert_default().extend(together);
        }
    }
}

/// Where the pods of a service run.
///
/// * `selector`: the labels that the pods of this service have, and no others.
pub fn placement(
    service: &Service,
    selector: &BTreeMap<String, String>,
    holder: &Holder,
    ledger: &mut Ledger,
) -> Scheduling {
    let mut scheduling = Scheduling::default();
    let mut expressions = Vec::new();
    constraints(service, holder, &mut expressions, &mut scheduling, ledger);
    platforms(service, holder, &mut expressions, ledger);
    if !expressions.is_empty() {
        let term = NodeSelectorTerm { match_expressions: Some(expressions), match_fields: None };
        let selector = NodeSelector { node_selector_terms: vec![term] };
        let nodes = NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(selector),
            ..NodeAffinity::default()
        };
        scheduling.affinity.get_or_insert_default().node_affinity = Some(nodes);
    }
    preferences(service, selector, holder, &mut scheduling, ledger);
    most_on_a_node(service, selector, holder, &mut scheduling, ledger);
    scheduling
}

fn constraints(
    service: &Service,
    holder: &Holder,
    expressions: &mut Vec<NodeSelectorRequirement>,
    scheduling: &mut Scheduling,
    ledger: &mut Ledger,
) {
    let mut parsed: Vec<(Leaf, Constraint)> = Vec::new();
    // The values of one label by their small letters: Swarm takes `SSD` and `ssd` for one, so the first spelling counts.
    let mut spellings: BTreeMap<(String, String), String> = BTreeMap::new();
    for written in &service.placement.constraints {
        let mut constraint = match Constraint::parse(&written.value) {
            Ok(constraint) => constraint,
            Err(error) => {
                ledger.needs_input(written.leaf, format!("Swarm refuses this constraint: {error}"));
                continue;
            }
        };
        let spelling = (format!("{:?}", constraint.key), constraint.value.to_ascii_lowercase());
        constraint.value = spellings.entry(spelling).or_insert(constraint.value).clone();
        parsed.push((written.leaf, constraint));
    }
    for (leaf, constraint) in &parsed {
        let expression = match expression(constraint) {
            Ok(expression) => expression,
            Err(reason) => {
                if let (Key::System, false) = (&constraint.key, constraint.is_negated) {
                    ledger.cannot_move(format!("service {}: K3s has no nodes with Windows", service.name));
                }
                ledger.needs_input(*leaf, reason);
                continue;
            }
        };
        if let (Key::Role, "Exists") = (&constraint.key, expression.operator) {
            tolerate_control_plane(holder, scheduling, ledger);
        }
        if matches!(constraint.key, Key::NodeLabel(_) | Key::EngineLabel(_)) {
            scheduling.node_labels.insert(NodeLabel { key: expression.key.clone(), value: expression.value.clone() });
        }
        let requirement = NodeSelectorRequirement {
            key: expression.key,
            operator: expression.operator.to_owned(),
            values: expression.value.map(|value| vec![value]),
        };
        let place = expressions.iter().position(|other| *other == requirement).unwrap_or_else(|| {
            expressions.push(requirement);
            expressions.len() - 1
        });
        let target = holder.pod(&format!("{TERM}.matchExpressions[{place}]"));
        ledger.mark(*leaf, expression.outcome, expression.reason, Some(target));
    }
    for leaf in contradictory(&parsed) {
        ledger.needs_input(
            leaf,
            "it contradicts another constraint of the service, so that Swarm never scheduled it, and neither does \
             Kubernetes",
        );
    }
}

/// The leaves of constraints of which no node meets both: `== a` and `== b`, `== a` and `!= a`.
fn contradictory(parsed: &[(Leaf, Constraint)]) -> BTreeSet<Leaf> {
    type ByValue = BTreeMap<String, Vec<Leaf>>;
    let mut all: BTreeMap<String, (ByValue, ByValue)> = BTreeMap::new();
    for (leaf, constraint) in parsed {
        let (equal, different) = all.entry(format!("{:?}", constraint.key)).or_default();
        let leaves = if constraint.is_negated { different } else { equal };
        leaves.entry(constraint.value.to_ascii_lowercase()).or_default().push(*leaf);
    }
    let mut leaves = BTreeSet::new();
    for (equal, different) in all.values() {
        if equal.len() > 1 {
            leaves.extend(equal.values().flatten());
        }
        for (value, first) in equal {
            if let Some(second) = different.get(value) {
                leaves.extend(first.iter().chain(second));
            }
        }
    }
    leaves
}

/// Swarm schedules on managers, unless they are drained; K3s on servers, unless they are tainted. A taint is thus what a drain was, and only
/// a service that asks for managers, and would run nowhere else, gets past it.
fn tolerate_control_plane(holder: &Holder, scheduling: &mut Scheduling, ledger: &mut Ledger) {
    let toleration = Toleration {
        key: Some(CONTROL_PLANE.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    };
    if !scheduling.tolerations.contains(&toleration) {
        scheduling.tolerations.push(toleration);
        ledger.added(
            holder.pod("tolerations"),
            "the service asks for managers; K3s does not taint its servers, other clusters taint their control plane",
        );
    }
}

/// A constraint as an expression, or why it cannot be one.
fn expression(constraint: &Constraint) -> Result<Expression, String> {
    let compared = if constraint.is_negated { "NotIn" } else { "In" };
    let of = |key: &str, operator, value: Option<String>| Expression {
        key: key.to_owned(),
        operator,
        value,
        outcome: Outcome::Converted,
        reason: String::new(),
    };
    let value = &constraint.value;
    match &constraint.key {
        Key::Role => {
            let is_manager = match value.to_ascii_lowercase().as_str() {
                "manager" => true,
                "worker" => false,
                _ => return Err("the roles of nodes are manager and worker; choose one".to_owned()),
            };
            let operator = if is_manager == constraint.is_negated { "DoesNotExist" } else { "Exists" };
            Ok(of(CONTROL_PLANE, operator, None))
        }
        Key::HostName => {
            // The name of a node has small letters only; K3s folds a host's.
            let name = value.to_ascii_lowercase();
            if !is_label_value(&name) {
                return Err("not the name of a node of a cluster; choose one of `kubectl get nodes`".to_owned());
            }
            let reason = "the node has to have this name in the cluster".to_owned();
            Ok(Expression { reason, ..of(HOST_NAME, compared, Some(name)) })
        }
        Key::System => match value.to_ascii_lowercase().as_str() {
            "linux" => Ok(of("kubernetes.io/os", compared, Some("linux".to_owned()))),
            _ if constraint.is_negated && is_label_value(value) => {
                Ok(of("kubernetes.io/os", compared, Some(value.to_ascii_lowercase())))
            }
            _ => Err("K3s has no Windows nodes; such a service stays where it is".to_owned()),
        },
        Key::Architecture => {
            let name = value.to_ascii_lowercase();
            if !is_label_value(&name) {
                return Err("not the name of a processor; choose one, such as x86_64".to_owned());
            }
            let (architecture, note) = architecture(&name);
            let outcome = if note.is_empty() { Outcome::Converted } else { Outcome::Approximated };
            Ok(Expression {
                outcome,
                reason: note.to_owned(),
                ..of(ARCHITECTURE, compared, Some(architecture.to_owned()))
            })
        }
        Key::NodeLabel(key) | Key::EngineLabel(key) => {
            if !is_label_name(key) {
                return Err(
                    "nodes of a cluster cannot have a label of this name (63 letters, digits, `-`, `_` and `.`, the \
                     first and the last a letter or a digit); choose another, and label the nodes"
                        .to_owned(),
                );
            }
            if !is_label_value(value) {
                return Err(
                    "a label of a node cannot have this value (63 letters, digits, `-`, `_` and `.`, the first \
                            and the last a letter or a digit); choose another, and label the nodes"
                        .to_owned(),
                );
            }
            let has_case = value.bytes().any(|byte| byte.is_ascii_alphabetic());
            let (outcome, case) = match has_case {
                true => (Outcome::Approximated, "; Swarm compares without regard to case, Kubernetes with it"),
                false => (Outcome::Converted, ""),
            };
            let reason = format!("nodes need this label: run the script that labels them{case}");
            Ok(Expression { outcome, reason, ..of(key, compared, Some(value.clone())) })
        }
        Key::Id => Err("a node of the cluster has another id; choose its name with node.hostname".to_owned()),
        Key::Address => Err("Kubernetes does not schedule by address; label the nodes, and use node.labels".to_owned()),
        Key::Unknown => Err("Swarm does not know this key, and never scheduled the service; expected node.role, \
                             node.hostname, node.platform.os, node.platform.arch, node.labels.X or engine.labels.X"
            .to_owned()),
    }
}

/// Go's name of a processor for the kernel's, and what differs.
fn architecture(name: &str) -> (&str, &'static str) {
    // A node of a swarm has the kernel's name, and no constraint on another name ever matched.
    let other_name = "nodes of a swarm have the name that `uname -m` prints, which this is not; Kubernetes takes it";
    match name {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "armv7l" | "armv6l" | "armv8l" => ("arm", "Kubernetes has one name for all processors of 32-bit ARM"),
        "i386" | "i486" | "i586" | "i686" => ("386", "Kubernetes has one name for all processors of 32-bit x86"),
        "loongarch64" => ("loong64", ""),
        "amd64" | "arm64" | "arm" | "386" => (name, other_name),
        other => (other, ""),
    }
}

/// What the image is for. Only a running stack has it, and its objects are to be those of its file, so the usual case is not written.
fn platforms(service: &Service, holder: &Holder, expressions: &mut Vec<NodeSelectorRequirement>, ledger: &mut Ledger) {
    let platforms = &service.placement.platforms;
    // swarmkit takes an empty name for any, and knows these two names of these two processors as one.
    let fold = |name: &str| match name {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let mut architectures = BTreeSet::new();
    for platform in platforms {
        let system = platform.os.as_ref().map_or("", |os| os.value.as_str());
        let architecture = platform.architecture.as_ref().map_or("", |one| one.value.as_str());
        if system.is_empty() || system == "linux" {
            architectures.insert(fold(architecture));
        }
    }
    let leaves = |ledger: &mut Ledger, mark: &dyn Fn(&mut Ledger, Leaf)| {
        for platform in platforms {
            let pair = [platform.architecture.as_ref(), platform.os.as_ref()];
            pair.into_iter().flatten().for_each(|one| mark(ledger, one.leaf));
        }
    };
    if platforms.is_empty() {
        return;
    }
    if architectures.is_empty() {
        ledger.cannot_move(format!("service {}: its image is not for Linux, which K3s runs only", service.name));
        leaves(ledger, &|ledger, leaf| {
            ledger.needs_input(leaf, "K3s has no nodes with Windows; choose an image for Linux")
        });
    } else if architectures.contains("") || architectures.contains("amd64") {
        leaves(ledger, &|ledger, leaf| {
            ledger.agrees(leaf, "Docker has it from the image; nodes that cannot run it need a constraint");
        });
    } else if architectures.iter().all(|name| is_label_value(name)) {
        expressions.push(NodeSelectorRequirement {
            key: ARCHITECTURE.to_owned(),
            operator: "In".to_owned(),
            values: Some(architectures.into_iter().collect()),
        });
        let target = holder.pod(&format!("{TERM}.matchExpressions[{}]", expressions.len() - 1));
        leaves(ledger, &|ledger, leaf| ledger.converted(leaf, target.clone()));
    } else {
        leaves(ledger, &|ledger, leaf| ledger.needs_input(leaf, "not the name of a processor; choose the nodes"));
    }
}

fn preferences(
    service: &Service,
    selector: &BTreeMap<String, String>,
    holder: &Holder,
    scheduling: &mut Scheduling,
    ledger: &mut Ledger,
) {
    for written in &service.placement.spread {
        if is_on_each_node(service) {
            ledger.agrees(written.leaf, "there is one on each node anyway");
            continue;
        }
        let key = match Key::label(&written.value) {
            Some(Key::NodeLabel(key) | Key::EngineLabel(key)) => key,
            _ => {
                ledger.dropped(written.leaf, "Swarm spreads over node.labels.X and engine.labels.X only");
                continue;
            }
        };
        if !is_label_name(&key) {
            ledger.needs_input(written.leaf, "nodes of a cluster cannot have a label of this name; choose another");
            continue;
        }
        let place = scheduling.spread.len();
        let mut reason =
            "nodes need this label: run the script that labels them; Swarm takes the nodes without it for \
                          one group more, Kubernetes does not count them"
                .to_owned();
        if place > 0 {
            reason.push_str("; Swarm spreads by it within the groups before, Kubernetes weighs all alike");
        }
        let target = holder.pod(&format!("topologySpreadConstraints[{place}]"));
        ledger.approximated(written.leaf, target, reason);
        scheduling.spread.push(TopologySpreadConstraint {
            label_selector: Some(of_service(selector)),
            max_skew: 1,
            topology_key: key.clone(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            ..TopologySpreadConstraint::default()
        });
        scheduling.node_labels.insert(NodeLabel { key, value: None });
    }
}

fn most_on_a_node(
    service: &Service,
    selector: &BTreeMap<String, String>,
    holder: &Holder,
    scheduling: &mut Scheduling,
    ledger: &mut Ledger,
) {
    let Some(most) = service.placement.max_replicas else { return };
    match most.value {
        0 => ledger.agrees(most.leaf, "0 is any number"),
        _ if is_on_each_node(service) => ledger.agrees(most.leaf, "there is one on each node anyway"),
        1 => {
            let term = PodAffinityTerm {
                label_selector: Some(of_service(selector)),
                topology_key: HOST_NAME.to_owned(),
                ..PodAffinityTerm::default()
            };
            let pods = PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: Some(vec![term]),
                ..PodAntiAffinity::default()
            };
            scheduling.affinity.get_or_insert_default().pod_anti_affinity = Some(pods);
            let field = "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
            ledger.converted(most.leaf, holder.pod(field));
        }
        number => {
            // `maxSkew` is how many more pods a node may have than the one with the fewest. The fewest count as none where there are fewer
            // nodes than `minDomains`, which no cluster reaches, so that `maxSkew` is the most on each node.
            let place = scheduling.spread.len();
            scheduling.spread.push(TopologySpreadConstraint {
                label_selector: Some(of_service(selector)),
                max_skew: i32::try_from(number).unwrap_or(i32::MAX),
                min_domains: Some(i32::MAX),
                topology_key: HOST_NAME.to_owned(),
                when_unsatisfiable: "DoNotSchedule".to_owned(),
                ..TopologySpreadConstraint::default()
            });
            let reason = "minDomains is larger than any cluster, so that maxSkew counts from 0";
            let target = holder.pod(&format!("topologySpreadConstraints[{place}]"));
            ledger.mark(most.leaf, Outcome::Converted, reason, Some(target));
        }
    }
}

fn of_service(selector: &BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(selector.clone()), ..LabelSelector::default() }
}

fn is_on_each_node(service: &Service) -> bool {
    matches!(service.mode.kind.map(|kind| kind.value), Some(ModeKind::Global | ModeKind::GlobalJob))
}

/// Whether a label may have this name; constraints have none with a prefix.
fn is_label_name(text: &str) -> bool {
    !text.is_empty() && is_label_value(text)
}

/// Whether a label may have this value.
fn is_label_value(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_LENGTH_MAX
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && is_end(bytes.first())
        && is_end(bytes.last())
}

#[cfg(test)]
mod tests;
