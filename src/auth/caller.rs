//! Who makes a request, and how it arrived.
//!
//! Invariants: a caller is created by the code that authenticated it and never changes; a clone copies a pointer and a
//! few bytes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

/// An identity that was authenticated: a person, a program, or the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Unique while the node runs, and for tokens also across runs: the first bytes of the token's digest.
    pub id: u64,
    /// For people: the token's name, `local`, or `node`.
    pub name: String,
    /// How it was authenticated.
    pub kind: SubjectKind,
    /// The groups that the token or issuer names.
    pub groups: Vec<String>,
    /// Other attributes that the token or issuer names.
    pub labels: BTreeMap<String, String>,
}

/// How a subject was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// Through a listener or a file that only this machine reaches.
    Local,
    /// With one of the node's tokens.
    Token,
    /// Not authenticated: the node's own work, such as removing expired documents.
    Node,
}

/// How a request arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over the MCP and REST listener.
    Http,
    /// MCP on standard input.
    Stdio,
    /// The command line, on a data directory that it opened without a node.
    CommandLine,
    /// Not a request: the node's own work.
    Internal,
}

impl Transport {
    /// The name used in audit records and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Stdio => "stdio",
            Self::CommandLine => "command_line",
            Self::Internal => "internal",
        }
    }
}

impl Subject {
    /// A subject without groups and labels.
    #[must_use]
    pub fn new(id: u64, name: impl Into<String>, kind: SubjectKind) -> Self {
        Self { id, name: name.into(), kind, groups: Vec::new(), labels: BTreeMap::new() }
    }

    /// The subject of clients that reach something only this machine reaches.
    #[must_use]
    pub fn local() -> Arc<Self> {
        static LOCAL: LazyLock<Arc<Subject>> = LazyLock::new(|| Arc::new(Subject::new(0, "local", SubjectKind::Local)));
        Arc::clone(&LOCAL)
    }
}

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    subject: Arc<Subject>,
    remote: Option<IpAddr>,
    transport: Transport,
}

impl Caller {
    /// A subject behind a connection.
    ///
    /// * `remote`: the peer's address, where there is one.
    #[must_use]
    pub fn new(subject: Arc<Subject>, remote: Option<IpAddr>, transport: Transport) -> Self {
        Self { subject, remote, transport }
    }

    /// A local client, which needs no token.
    #[must_use]
    pub fn local(transport: Transport) -> Self {
        Self::new(Subject::local(), None, transport)
    }

    /// The node itself.
    #[must_use]
    pub fn node() -> Self {
        static NODE: LazyLock<Arc<Subject>> =
            LazyLock::new(|| Arc::new(Subject::new(u64::MAX, "node", SubjectKind::Node)));
        Self::new(Arc::clone(&NODE), None, Transport::Internal)
    }

    /// Identifies the caller; see [`Subject::id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.subject.id
    }

    /// For people; see [`Subject::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.subject.name
    }

    /// The authenticated subject.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The peer's address, where there is one.
    #[must_use]
    pub fn remote(&self) -> Option<IpAddr> {
        self.remote
    }

    /// How the request arrived.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }
}
