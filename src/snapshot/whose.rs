//! Selects the node whose snapshots are used, if several nodes write to one repository. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::manifest::SnapshotManifest;
use super::marker::Note;
use crate::base::Fault;

/// Digits of a node's id that are enough to name it.
const DIGITS_MIN: usize = 4;
const DIGITS_MAX: usize = 32;

/// Whose snapshots are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// This node's; where the data directory holds nothing yet, those of the only node there is.
    Own,
    /// Those of the node whose id begins so.
    Node(String),
    /// All.
    Any,
}

impl Whose {
    /// Reads what a caller named: nothing, `any`, or the first digits of a node's id.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(named: Option<&str>) -> Result<Self, WhoseError> {
        match named.map(str::trim) {
            None | Some("") => Ok(Self::Own),
            Some("any") => Ok(Self::Any),
            Some(id)
                if (DIGITS_MIN..=DIGITS_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                Ok(Self::Node(id.to_ascii_lowercase()))
            }
            Some(other) => Err(WhoseError::NotANode { found: other.chars().take(100).collect() }),
        }
    }
}

/// A node that has snapshots in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSummary {
    /// Its id.
    pub node: String,
    /// Name of its machine when it last wrote there; empty when that is not known.
    pub host: String,
    /// How many there are.
    pub snapshots: usize,
    /// Id of the newest.
    pub newest: String,
}

impl fmt::Display for NodeSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, host, snapshots, newest } = self;
        let host = if host.is_empty() { String::new() } else { format!("on {}, ", host.escape_debug()) };
        let noun = if *snapshots == 1 { "snapshot" } else { "snapshots" };
        write!(f, "{node} ({host}{snapshots} {noun}, the newest {newest})")
    }
}

/// Why no snapshot was chosen.
#[derive(Debug, thiserror::Error)]
pub enum WhoseError {
    /// The given text cannot be a node.
    #[error("'{}' is not a node: expected the first {DIGITS_MIN} to {DIGITS_MAX} digits of its id, or 'any'", .found.escape_debug())]
    NotANode {
        /// The text.
        found: String,
    },
    /// There is no such node.
    #[error("no node whose id begins with {named} has snapshots in {target}; there are: {}", list(.nodes))]
    NoSuchNode {
        /// The given id.
        named: String,
        /// Where.
        target: String,
        /// The nodes that have snapshots.
        nodes: Vec<NodeSummary>,
    },
    /// The id is ambiguous, or nothing says which of several nodes to use.
    #[error("{target} holds snapshots of several nodes: {}. Say whose are meant with --node and the beginning of its id", list(.nodes))]
    Several {
        /// Where.
        target: String,
        /// The nodes.
        nodes: Vec<NodeSummary>,
    },
    /// There are snapshots, of other nodes.
    #[error(
        "no snapshot in {target} is of this node, {own}. There are: {}. To take another node's data name it: --node {}", list(.nodes), short(.nodes)
    )]
    OthersOnly {
        /// Where.
        target: String,
        /// This node.
        own: String,
        /// The nodes that have snapshots.
        nodes: Vec<NodeSummary>,
    },
    /// The snapshot that was named is of another node.
    #[error("snapshot {id} is of node {node}, and this is node {own}. To put its data in the place of this node's add --node {}", .node.get(..8).unwrap_or(.node))]
    OfAnother {
        /// The snapshot.
        id: String,
        /// Whose it is.
        node: String,
        /// This node.
        own: String,
    },
}

fn list(nodes: &[NodeSummary]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn short(nodes: &[NodeSummary]) -> &str {
    nodes.first().map_or("", |summary| summary.node.get(..8).unwrap_or(&summary.node))
}

impl WhoseError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotANode { .. }
            | Self::NoSuchNode { .. }
            | Self::Several { .. }
            | Self::OthersOnly { .. }
            | Self::OfAnother { .. } => Fault::Caller,
        }
    }
}

/// The nodes that have snapshots, by id.
pub(super) fn nodes(manifests: &[SnapshotManifest], notes: &[Note]) -> Vec<NodeSummary> {
    let mut nodes: BTreeMap<&str, NodeSummary> = BTreeMap::new();
    for manifest in manifests {
        let summary = nodes.entry(&manifest.node).or_insert_with(|| NodeSummary {
            node: manifest.node.clone(),
            host: notes
                .iter()
                .find(|note| note.node == manifest.node)
                .map_or_else(String::new, |note| note.host.clone()),
            snapshots: 0,
            newest: String::new(),
        });
        summary.snapshots += 1;
        if manifest.id > summary.newest {
            summary.newest.clone_from(&manifest.id);
        }
    }
    nodes.into_values().collect()
}

/// The selected node; `None` when it does not matter.
///
/// * `own`: this node; `None` while its data directory is empty.
pub(super) fn choose(
    whose: &Whose,
    own: Option<&str>,
    nodes: Vec<NodeSummary>,
    target: &str,
) -> Result<Option<String>, WhoseError> {
    let target = target.to_owned();
    let candidates: Vec<&NodeSummary> = match (whose, own) {
        (Whose::Any, _) => return Ok(None),
        (Whose::Node(named), _) => nodes.iter().filter(|summary| summary.node.starts_with(named)).collect(),
        (Whose::Own, Some(own)) => {
            if !nodes.is_empty() && nodes.iter().all(|summary| summary.node != own) {
                return Err(WhoseError::OthersOnly { target, own: own.to_owned(), nodes });
            }
            return Ok(Some(own.to_owned()));
        }
        (Whose::Own, None) => nodes.iter().collect(),
    };
    match (candidates.as_slice(), whose) {
        ([one], _) => Ok(Some(one.node.clone())),
        ([], Whose::Node(named)) if !nodes.is_empty() => {
            Err(WhoseError::NoSuchNode { named: named.clone(), target, nodes })
        }
        ([], _) => Ok(None),
        _ => Err(WhoseError::Several { target, nodes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[&str]) -> Vec<NodeSummary> {
        let summary = |id: &&str| NodeSummary {
            node: (*id).to_owned(),
            host: String::new(),
            snapshots: 1,
            newest: "20260728T093000Z-7".to_owned(),
        };
        ids.iter().map(summary).collect()
    }

    fn chosen(named: Option<&str>, own: Option<&str>, there: &[&str]) -> Result<Option<String>, String> {
        let whose = Whose::read(named).map_err(|error| error.to_string())?;
        choose(&whose, own, nodes(there), "/mnt/x").map_err(|error| error.to_string())
    }

    #[test]
    fn another_nodes_snapshots_need_its_name() {
        let (one, two) = ("aaaa1111", "bbbb2222");
        assert_eq!(chosen(None, Some(one), &[one, two]), Ok(Some(one.to_owned())));
        assert_eq!(chosen(None, None, &[two]), Ok(Some(two.to_owned())), "a new machine");
        assert_eq!(chosen(None, None, &[]), Ok(None));
        assert_eq!(chosen(None, Some(one), &[]), Ok(Some(one.to_owned())));
        assert_eq!(chosen(Some("BBBB"), Some(one), &[one, two]), Ok(Some(two.to_owned())));
        assert_eq!(chosen(Some("any"), Some(one), &[one, two]), Ok(None));
        for (named, own, there, said) in [
            (None, Some(one), &[two][..], "--node bbbb2222"),
            (None, None, &[one, two][..], "several nodes"),
            (Some("cccc"), Some(one), &[one, two][..], "no node whose id begins with cccc"),
            (Some("aaaa"), None, &["aaaa1111", "aaaa2222"][..], "several nodes"),
            (Some("site-7"), Some(one), &[one][..], "'site-7' is not a node"),
            (Some("aa"), Some(one), &[one][..], "is not a node"),
        ] {
            let error = chosen(named, own, there).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }
}
