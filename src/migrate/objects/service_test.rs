//! A service for tests, whose values have leaves with numbers of their own.

use std::collections::BTreeMap;

use super::Holder;
use crate::migrate::leaf::{At, Leaf, Leaves, Path, Segment, Written};
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::source::Position;
use crate::migrate::stack::{ComposeOnly, Mode, Placement, Resources, RestartPolicy, Service};

/// The leaves of a test.
#[derive(Default)]
pub struct Input(Leaves);

impl Input {
    /// A value with a leaf of its own.
    pub fn at<T>(&mut self, path: &str, value: T) -> At<T> {
        let path = Path(vec![Segment::Key(path.to_owned())]);
        let leaf = self.0.push(Written { path, at: position() });
        At::new(value, leaf)
    }

    /// An empty ledger of these leaves.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.0.clone())
    }
}

/// The outcome, reason and field of a leaf.
pub fn fate(ledger: &Ledger, leaf: Leaf) -> (Outcome, String, String) {
    let entry = ledger.clone().finish().entries.swap_remove(leaf.number());
    assert!(ledger.is_marked(leaf), "a leaf is not marked");
    (entry.outcome, entry.reason, entry.field)
}

/// The fields that Cairn wrote of its own.
pub fn added(ledger: &Ledger) -> Vec<String> {
    let entries = ledger.clone().finish().entries;
    entries.into_iter().filter(|entry| entry.outcome == Outcome::Added).map(|entry| entry.field).collect()
}

/// The Deployment of the service.
pub fn holder() -> Holder {
    Holder { object: "Deployment/search".to_owned(), template: "spec.template".to_owned() }
}

/// The labels of its pods.
pub fn selector() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/name".to_owned(), "search".to_owned())])
}

fn position() -> Position {
    Position { file: "stack.yml".into(), line: 1, column: 1 }
}

/// A service of which nothing is written.
pub fn service() -> Service {
    Service {
        name: "search".to_owned(),
        at: position(),
        image: None,
        entrypoint: None,
        command: None,
        environment: Vec::new(),
        working_dir: None,
        user: None,
        groups: Vec::new(),
        hostname: None,
        init: None,
        tty: None,
        stdin_open: None,
        read_only: None,
        stop_signal: None,
        stop_grace_period: None,
        health_check: None,
        extra_hosts: Vec::new(),
        dns_servers: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        capabilities_added: Vec::new(),
        capabilities_dropped: Vec::new(),
        sysctls: Vec::new(),
        ulimits: Vec::new(),
        labels: Vec::new(),
        service_labels: Vec::new(),
        mode: Mode::default(),
        resources: Resources::default(),
        placement: Placement::default(),
        update: None,
        rollback: None,
        restart: RestartPolicy::default(),
        endpoint_mode: None,
        ports: Vec::new(),
        networks: Vec::new(),
        mounts: Vec::new(),
        configs: Vec::new(),
        secrets: Vec::new(),
        logging: None,
        compose: ComposeOnly::default(),
    }
}
