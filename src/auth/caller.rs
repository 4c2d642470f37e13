//! Who asks, and how the request came.
//!
//! Invariants: a caller is made by what authenticated it and never changed afterwards; cloning one copies a pointer and a few bytes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

/// An identity that was authenticated: a person, a program, or the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Distinguishes subjects while the node runs, and for tokens also between runs: the beginning of the token's digest.
    pub id: u64,
    /// For people: the token's name, `local`, or `node`.
    pub name: String,
    /// How it was authenticated.
    pub kind: SubjectKind,
    /// Groups that it belongs to, as its token or issuer says.
    pub groups: Vec<String>,
    /// Anything else that its token or issuer says.
    pub labels: BTreeMap<String, String>,
}

/// How a subject was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// By reaching a listener or a file that only this machine reaches.
    Local,
    /// By one of the node's tokens.
    Token,
    /// Not at all: the node's own work, such as removing expired documents.
    Node,
}

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over the MCP and REST listener.
    Http,
    /// MCP on standard input.
    Stdio,
    /// The command line on a data directory that it opened itself.
    CommandLine,
    /// It did not: the node's own work.
    Internal,
}

impl Transport {
    /// As audit records and logs spell it.
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

    /// Whoever reaches what only this machine reaches.
    #[must_use]
    pub fn local() -> Arc<Self> {
        static LOCAL: LazyLock<Arc<Subject>> = LazyLock::new(|| Arc::new(Subject::new(0, "local", SubjectKind::Local)));
        Arc::clone(&LOCAL)
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    subject: Arc<Subject>,
    remote: Option<IpAddr>,
    transport: Transport,
}

impl Caller {
    /// A subject behind a connection.
    ///
    /// * `remote`: the other end's address, where there is one.
    #[must_use]
    pub fn new(subject: Arc<Subject>, remote: Option<IpAddr>, transport: Transport) -> Self {
        Self { subject, remote, transport }
    }

    /// Somebody on this machine, who needs no token.
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

    /// Distinguishes callers; see [`Subject::id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.subject.id
    }

    /// For people; see [`Subject::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.subject.name
    }

    /// Who was authenticated.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The other end's address, where there is one.
    #[must_use]
    pub fn remote(&self) -> Option<IpAddr> {
        self.remote
    }

    /// How the request came.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }
}
