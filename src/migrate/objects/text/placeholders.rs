//! Placeholders: `{{.Task.Slot}}` and its kind, which Swarm expands in values of variables, host names, mounts, and payloads with a
//! template driver (swarmkit, `template`).
//!
//! Invariants: what only the running pod knows comes from a variable of the pod; what is the same for every pod is written out.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};

use super::protected;
use crate::migrate::report::Outcome;

/// What a placeholder asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Placeholder {
    ServiceId,
    ServiceName,
    ServiceLabel(String),
    NodeId,
    NodeHostname,
    NodeSystem,
    NodeArchitecture,
    TaskId,
    TaskName,
    TaskSlot,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
    /// A template that is more than a placeholder, as written.
    Other(String),
}

/// How the pods of a service differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// There is one: its slot is 1.
    Single,
    /// Each has a number, from 1 on: those of a StatefulSet.
    Numbered,
    /// Each has a node: those of a DaemonSet. Swarm's slot is the node's id then.
    Node,
    /// Nothing: several of a Deployment or of a job.
    None,
}

/// What the placeholders of a service come to.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `STACK_SERVICE`
    pub service: &'a str,
    /// The labels of the service.
    pub labels: &'a [(String, String)],
    /// How its pods differ.
    pub identity: Identity,
}

/// A variable that Kubernetes fills in for each pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Downward {
    /// The name of the node.
    NodeName,
    /// The name of the pod.
    PodName,
    /// The id of the pod.
    PodId,
    /// The number of the pod in its StatefulSet; it begins as the set's ordinals do.
    PodIndex,
}

impl Downward {
    /// The variable's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeName => "CAIRN_NODE_NAME",
            Self::PodName => "CAIRN_POD_NAME",
            Self::PodId => "CAIRN_POD_ID",
            Self::PodIndex => "CAIRN_TASK_SLOT",
        }
    }

    /// The variable, which has to be before those that refer to it.
    #[must_use]
    pub fn variable(self) -> EnvVar {
        let field_path = match self {
            Self::NodeName => "spec.nodeName",
            Self::PodName => "metadata.name",
            Self::PodId => "metadata.uid",
            Self::PodIndex => "metadata.labels['apps.kubernetes.io/pod-index']",
        };
        let field = ObjectFieldSelector { field_path: field_path.to_owned(), ..ObjectFieldSelector::default() };
        EnvVar {
            name: self.name().to_owned(),
            value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
            ..EnvVar::default()
        }
    }
}

/// A text without placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// Protected, with `$(NAME)` for each of `needs`.
    pub text: String,
    /// Variables that the pod needs.
    pub needs: BTreeSet<Downward>,
    /// What differs from Swarm, with how bad it is.
    pub notes: Vec<(Outcome, String)>,
}

impl Expanded {
    /// Whether the text is the same for every pod.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.needs.is_empty() && self.notes.iter().all(|(outcome, _)| *outcome < Outcome::NeedsInput)
    }
}

impl Scope<'_> {
    /// Expands the placeholders of a text.
    #[must_use]
    pub fn expand(&self, text: &str) -> Expanded {
        let mut result = Expanded::default();
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => result.text.push_str(&protected(&text)),
                Piece::Other(text) => {
                    result.text.push_str(&protected(&text));
                    let note = format!("{text} is a template that Kubernetes cannot expand; write its result");
                    result.notes.push((Outcome::NeedsInput, note));
                }
                Piece::Placeholder(placeholder) => self.fill(&placeholder, &mut result),
            }
        }
        result
    }

    fn fill(&self, placeholder: &Placeholder, result: &mut Expanded) {
        let mut need = |downward: Downward, note: Option<&str>| {
            result.text.push_str(&format!("$({})", downward.name()));
            result.needs.insert(downward);
            result.notes.extend(note.map(|note| (Outcome::Approximated, note.to_owned())));
        };
        match placeholder {
            Placeholder::TaskSlot => match self.identity {
                Identity::Single => result.text.push('1'),
                Identity::Numbered => need(Downward::PodIndex, None),
                Identity::Node => need(
                    Downward::NodeName,
                    Some("on each node, the slot is the node's id in Swarm; here it is the node's name"),
                ),
                Identity::None => {
                    result.text.push_str("{{.Task.Slot}}");
                    let note = "the pods of a job have no number from 1 on; decide what replaces {{.Task.Slot}}";
                    result.notes.push((Outcome::NeedsInput, note.to_owned()));
                }
            },
            Placeholder::NodeHostname => need(Downward::NodeName, None),
            Placeholder::NodeId => {
                need(Downward::NodeName, Some("a node's id in Swarm is its name here"));
            }
            Placeholder::TaskId => need(Downward::PodId, Some("a task's id in Swarm is the pod's UID here")),
            Placeholder::TaskName => need(
                Downward::PodName,
                Some("a task is called SERVICE.SLOT.ID in Swarm; here it is the name of the pod"),
            ),
            Placeholder::ServiceName => result.text.push_str(&protected(self.service)),
            Placeholder::ServiceLabel(key) => {
                let label = self.labels.iter().find(|(name, _)| name == key);
                result.text.push_str(&protected(label.map_or("", |(_, value)| value)));
            }
            Placeholder::ServiceId => {
                result.text.push_str(&protected(self.service));
                let note = "a service's id in Swarm is its name here";
                result.notes.push((Outcome::Approximated, note.to_owned()));
            }
            Placeholder::NodeSystem => result.text.push_str("linux"),
            Placeholder::NodeArchitecture => {
                result.text.push_str("{{.Node.Platform.Architecture}}");
                let note = "Kubernetes does not give a pod the processor of its node; write it out";
                result.notes.push((Outcome::NeedsInput, note.to_owned()));
            }
        }
    }
}

/// Whether a text differs from slot to slot.
#[must_use]
pub fn has_slot(text: &str) -> bool {
    pieces(text).iter().any(|piece| match piece {
        Piece::Placeholder(placeholder) => *placeholder == Placeholder::TaskSlot,
        Piece::Other(text) => text.contains(".Task.Slot"),
        Piece::Text(_) => false,
    })
}

/// The parts of a text.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims_start = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((action, behind)) = after.split_once("}}") else { break };
        // A hyphen next to a blank removes the blanks on its side of the braces (Go, `text/template`).
        let trims_end = action.starts_with("- ");
        let mut plain = if trims_start { before.trim_start() } else { before };
        plain = if trims_end { plain.trim_end() } else { plain };
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        trims_start = action.ends_with(" -");
        let inner = action.strip_prefix("- ").unwrap_or(action);
        let inner = inner.strip_suffix(" -").unwrap_or(inner).trim();
        match placeholder(inner) {
            Some(placeholder) => pieces.push(Piece::Placeholder(placeholder)),
            None => pieces.push(Piece::Other(format!("{{{{{action}}}}}"))),
        }
        rest = behind;
    }
    let plain = if trims_start { rest.trim_start() } else { rest };
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.to_owned()));
    }
    pieces
}

/// What is between the braces.
fn placeholder(text: &str) -> Option<Placeholder> {
    Some(match text {
        ".Service.ID" => Placeholder::ServiceId,
        ".Service.Name" => Placeholder::ServiceName,
        ".Node.ID" => Placeholder::NodeId,
        ".Node.Hostname" => Placeholder::NodeHostname,
        ".Node.Platform.OS" => Placeholder::NodeSystem,
        ".Node.Platform.Architecture" => Placeholder::NodeArchitecture,
        ".Task.ID" => Placeholder::TaskId,
        ".Task.Name" => Placeholder::TaskName,
        ".Task.Slot" => Placeholder::TaskSlot,
        _ => {
            let key = match text.strip_prefix("index .Service.Labels ") {
                Some(quoted) => quoted.trim().strip_prefix('"')?.strip_suffix('"')?,
                None => text.strip_prefix(".Service.Labels.")?,
            };
            let is_key = !key.is_empty() && !key.contains(['"', '\\', ' ']);
            is_key.then(|| Placeholder::ServiceLabel(key.to_owned()))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, identity: Identity) -> Expanded {
        let labels = [("shop.tier".to_owned(), "back$(A)".to_owned())];
        Scope { service: "shop_etcd", labels: &labels, identity }.expand(text)
    }

    #[test]
    fn what_is_the_same_for_every_pod_is_written_out() {
        let of = |text| expanded(text, Identity::Single);
        assert_eq!(of("{{.Service.Name}}-{{ .Task.Slot }}").text, "shop_etcd-1");
        assert_eq!(of("{{index .Service.Labels \"shop.tier\"}}").text, "back$$(A)");
        assert_eq!(of("a {{- .Task.Slot -}} b").text, "a1b");
        assert_eq!(of("a {{- .Task.Slot }} b {{.Task.Slot -}} c").text, "a1 b 1c");
        assert!(of("etcd {{ .Node.Platform.OS }}").is_static());
    }

    #[test]
    fn what_a_pod_alone_knows_is_a_variable_of_the_pod() {
        let slot = expanded("etcd-{{.Task.Slot}}", Identity::Numbered);
        assert_eq!((slot.text.as_str(), slot.notes.len()), ("etcd-$(CAIRN_TASK_SLOT)", 0));
        assert_eq!(slot.needs, BTreeSet::from([Downward::PodIndex]));
        let node = expanded("{{.Task.Slot}}@{{.Node.Hostname}}", Identity::Node);
        assert_eq!((node.text.as_str(), node.notes.len()), ("$(CAIRN_NODE_NAME)@$(CAIRN_NODE_NAME)", 1));
        let field = Downward::PodIndex.variable().value_from.and_then(|from| from.field_ref).expect("a field");
        assert_eq!(field.field_path, "metadata.labels['apps.kubernetes.io/pod-index']");
        assert_eq!(expanded("{{.Task.Slot}}", Identity::None).notes[0].0, Outcome::NeedsInput);
    }

    #[test]
    fn templates_that_decide_are_left_and_named() {
        let text = r#"{{if eq .Task.Slot "1"}}primary{{else}}replica{{end}}"#;
        let found = expanded(text, Identity::Numbered);
        assert_eq!(found.text, text);
        assert!(found.notes.iter().all(|(outcome, _)| *outcome == Outcome::NeedsInput) && !found.is_static());
        assert!(has_slot(text) && has_slot("{{ .Task.Slot }}") && !has_slot("{{.Node.ID}} .Task.Slot"));
        assert_eq!(expanded("{{.Task.Slot", Identity::Single).text, "{{.Task.Slot");
        let hostile = "{{".repeat(1 << 19);
        assert_eq!(expanded(&hostile, Identity::Single).text, hostile);
    }
}
