//! The names of a node's objects: all of them follow from the one name in its settings.
//!
//! Invariants: the objects of two nodes with different names in one namespace have different names, and so have their files in the
//! manifests folder of a K3s server, because no node's name ends as a derived name does. Each derived name is as short as the cluster
//! wants it.

use std::collections::BTreeMap;

/// The program: what objects say that they run, and what they are managed by. It is the default name of a node, too.
pub const PROGRAM: &str = "cairn";

/// The claim template of the data.
pub(super) const CLAIM_TEMPLATE: &str = "data";

/// Longest name of a node. K3s makes a DaemonSet `svclb-SERVICE-12345678` for a load balancer, whose name is the value of a label: 63
/// letters, of which `-loadbalancer` takes 13 and K3s 15. A CronJob has 52 letters at most, a Service 63.
pub(super) const LENGTH_MAX: usize = 35;

/// What derived names end in, in the order of the alphabet; and `default`, the account that every namespace has.
pub(super) const ENDINGS: [&str; 9] =
    ["authority", "default", "documents", "headless", "loadbalancer", "namespace", "self-signed", "tls", "token"];

/// Whether a node may have this name: a DNS label that leaves room for what is added to it, and ends in none of [`ENDINGS`].
pub(super) fn is_node_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= LENGTH_MAX
        && text.bytes().all(is_inner)
        && !text.ends_with('-')
        && !ENDINGS.iter().any(|ending| format!("-{text}").ends_with(&format!("-{ending}")))
}

/// The names of a node's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectNames(String);

impl ObjectNames {
    /// Those of the node with this name, which the settings have checked.
    #[must_use]
    pub fn of(node: &str) -> Self {
        Self(node.to_owned())
    }

    /// The name of the node, and of each object that needs no other.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0
    }

    fn with(&self, ending: &str) -> String {
        format!("{}-{ending}", self.0)
    }

    /// The Service that gives the pod its name in DNS.
    #[must_use]
    pub fn headless(&self) -> String {
        self.with("headless")
    }

    /// The Service of `--with loadbalancer`.
    #[must_use]
    pub fn load_balancer(&self) -> String {
        self.with("loadbalancer")
    }

    /// The Secret with the token that clients use.
    #[must_use]
    pub fn token_secret(&self) -> String {
        self.with("token")
    }

    /// The Secret with the certificate of `--with cert-manager`.
    #[must_use]
    pub fn tls_secret(&self) -> String {
        self.with("tls")
    }

    /// The CronJob of `--with documents`, and its NetworkPolicy.
    #[must_use]
    pub fn documents(&self) -> String {
        self.with("documents")
    }

    /// The authority that clients trust. As a ConfigMap it is the node's own, for pods that have to trust it; that one is in no manifest,
    /// because the node makes its authority itself. As a Certificate and its Secret it is cert-manager's.
    #[must_use]
    pub fn authority(&self) -> String {
        self.with("authority")
    }

    /// The issuer that signs cert-manager's authority, and nothing else.
    #[must_use]
    pub fn self_signed_issuer(&self) -> String {
        self.with("self-signed")
    }

    /// The pod: the first of its set.
    #[must_use]
    pub fn pod(&self) -> String {
        self.with("0")
    }

    /// The claim to the data, which the set makes of its template.
    #[must_use]
    pub fn claim(&self) -> String {
        format!("{CLAIM_TEMPLATE}-{}", self.pod())
    }

    /// What the names of its files begin with. K3s has files of its own in the folder, such as `traefik.yaml`.
    fn file(&self) -> String {
        if self.0 == PROGRAM { PROGRAM.to_owned() } else { format!("{PROGRAM}-{}", self.0) }
    }

    /// The file with the Namespace. K3s applies files in the order of the alphabet; `-` comes before `.`, and so this one before
    /// [`ObjectNames::main_file`].
    #[must_use]
    pub fn namespace_file(&self) -> String {
        format!("{}-namespace.yaml", self.file())
    }

    /// The file with everything else.
    #[must_use]
    pub fn main_file(&self) -> String {
        format!("{}.yaml", self.file())
    }

    /// Labels by which the pod is found. They can never change: a StatefulSet's selector is fixed.
    #[must_use]
    pub(super) fn selector_labels(&self) -> BTreeMap<String, String> {
        self.labels_of_pods(PROGRAM)
    }

    /// Labels by which the pods of a program of this node are found.
    pub(super) fn labels_of_pods(&self, program: &str) -> BTreeMap<String, String> {
        [(NAME_LABEL, program), (INSTANCE_LABEL, &self.0)]
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .into()
    }
}

/// The label with the program.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// The label with the name of the node.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";

/// Whether a file of the manifests folder is one with a Namespace.
#[must_use]
pub fn is_namespace_file(name: &str) -> bool {
    // No other file ends so, because no node's name does.
    name.ends_with("-namespace.yaml")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::deploy::k3s::schema;
    use crate::deploy::k3s::spec::InstanceName;

    #[test]
    fn names_of_two_nodes_never_meet() {
        let longest = "a".repeat(LENGTH_MAX);
        let good = [
            "cairn",
            "cairn-2",
            "a",
            "b",
            "a-b",
            "second",
            "tokens",
            "token-2",
            "0-of".trim_start_matches("0-"),
            &longest,
        ];
        let mut all = BTreeSet::new();
        let mut count = 0;
        for name in good {
            assert!(name.parse::<InstanceName>().is_ok(), "{name}");
            let names = ObjectNames::of(name);
            let objects = [
                names.node().to_owned(),
                names.headless(),
                names.load_balancer(),
                names.token_secret(),
                names.tls_secret(),
                names.documents(),
                names.authority(),
                names.self_signed_issuer(),
                names.pod(),
                names.claim(),
            ];
            let files = [names.namespace_file(), names.main_file()];
            assert!(files[0] < files[1], "the namespace first: {files:?}");
            assert!(objects.iter().all(|name| name.len() <= 48), "{objects:?}");
            count += objects.len() + files.len();
            all.extend(objects.into_iter().chain(files));
        }
        assert_eq!(all.len(), count);
        // The longest names that K3s and a CronJob make of them.
        assert!(format!("svclb-{}-12345678", ObjectNames::of(&longest).load_balancer()).len() <= 63);
        assert!(ObjectNames::of(&longest).documents().len() <= 52);
    }

    #[test]
    fn a_name_that_could_be_an_object_of_another_node_is_refused() {
        let too_long = "a".repeat(LENGTH_MAX + 1);
        for name in ["", "-a", "a-", "2nd", "a.b", "A", "a_b", &too_long] {
            assert!(!is_node_name(name), "{name}");
        }
        let field = schema()["properties"]["name"].clone();
        assert_eq!(field["maxLength"], LENGTH_MAX);
        let (pattern, refused) =
            (field["not"]["pattern"].as_str().expect("a pattern"), "site-x".parse::<InstanceName>());
        assert!(refused.is_ok());
        for ending in ENDINGS {
            for name in [ending.to_owned(), format!("site-{ending}")] {
                let refused = name.parse::<InstanceName>().expect_err(&name);
                assert!(refused.expected.contains(ending), "{refused}");
            }
            assert!(pattern.split(['(', '|', ')']).any(|part| part == ending), "{ending} in {pattern}");
        }
    }
}
