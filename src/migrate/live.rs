//! The stack of a running swarm: what `docker … inspect` prints, as the same types that the files of a stack come to.
//!
//! Owns the script that collects it, and which of its objects are the stack's: those with the stack's label, and what its services use.
//! Where no service has such a label, and a name for the stack is given, the services without a label are the stack.
//!
//! Invariants: every leaf of the stack's objects is in the [`Stack`] or in [`LiveStack::outcomes`]; an object that is not part of the stack
//! has one entry there. Docker's defaults, which it writes out, are values like others. The file has no payload of a secret.

#[cfg(test)]
mod comparable;
mod container;
mod document;
mod fields;
mod mounts;
mod names;
mod objects;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;

#[cfg(test)]
pub use self::comparable::comparable;
use self::document::{Kind, Objects};
use self::fields::Reader;
use self::mounts::Volumes;
use self::names::Names;
use self::objects::{Files, Networks};
use self::service::Context;
use super::stack::Stack;
use super::{Dialect, Leaf, Leaves, Mistake, Outcome, Position, Source};
use crate::base::Fault;

/// The script that collects the objects of a swarm on one of its managers. It needs a POSIX shell and Docker's client.
pub const SCRIPT: &str = include_str!("live/collect.sh");

/// The stack of a running swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveStack {
    /// The stack.
    pub stack: Stack,
    /// The leaves of the files.
    pub leaves: Leaves,
    /// What became of the leaves that the stack has no field for. A leaf may be in both; the worse outcome counts then.
    pub outcomes: Vec<(Leaf, Outcome, String)>,
    /// The nodes of the swarm by host name, for the labels that constraints ask for.
    pub nodes: Vec<SwarmNode>,
}

/// A node of a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmNode {
    /// What `node.id` in a constraint compares.
    pub id: String,
    /// What `node.hostname` compares.
    pub hostname: String,
    /// `manager` or `worker`.
    pub role: String,
    /// What `node.labels.…` compares, by name.
    pub labels: Vec<(String, String)>,
    /// What `engine.labels.…` compares, by name.
    pub engine_labels: Vec<(String, String)>,
    /// Such as `x86_64`.
    pub architecture: Option<String>,
    /// Such as `linux`.
    pub os: Option<String>,
    /// Where it is in its file.
    pub at: Position,
}

/// Why the files give no stack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// What is wrong in the files, at least one mistake.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
    /// Nothing to convert.
    #[error("the files have no services; collect them on a manager node with the script of `cairn migrate script`")]
    NoServices,
    /// It is not clear which stack is meant.
    #[error("the files have {} stacks, expected one; name it with --stack: {}", .found.len(), .found.join(", "))]
    SeveralStacks {
        /// The stacks that services belong to.
        found: Vec<String>,
    },
    /// There are others.
    #[error("found no service of the stack '{stack}'; the files have: {}", .found.join(", "))]
    UnknownStack {
        /// What was asked for.
        stack: String,
        /// The stacks that services belong to.
        found: Vec<String>,
    },
    /// The services were started without a stack.
    #[error("the services belong to no stack; name one with --stack, and it will be these: {}", .services.join(", "))]
    NoStack {
        /// The names of the services.
        services: Vec<String>,
    },
}

impl LiveError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().enumerate().fold(String::new(), |mut text, (number, mistake)| {
        let _ = write!(text, "{}{mistake}", if number > 0 { "\n" } else { "" });
        text
    })
}

/// Reads the files of a swarm: the one document of [`SCRIPT`], or what `docker KIND inspect` printed, in any number of files.
///
/// * `stack`: which one, where there are several; where services belong to none, the name that they get.
///
/// # Errors
/// See [`LiveError`].
pub fn read(sources: &[Source], stack: Option<&str>) -> Result<LiveStack, LiveError> {
    let mut reader = Reader::default();
    let objects = Objects::read(sources, &mut reader);
    if !reader.mistakes.is_empty() {
        return Err(LiveError::Mistakes(reader.mistakes));
    }
    let (stack, is_by_hand) = choose(&objects, stack)?;
    let mut names = Names::new(&stack, is_by_hand, &objects);
    let (mut networks, mut volumes, mut files) = (Networks::new(&objects), Volumes::default(), Files::default());
    let mut services = Vec::new();
    for object in objects.of(Kind::Service) {
        if names.owns(object) {
            let item = object.number(&mut reader);
            let mut context = Context {
                reader: &mut reader,
                names: &mut names,
                networks: &mut networks,
                volumes: &mut volumes,
                files: &mut files,
            };
            services.extend(service::read(&item, &mut context));
        } else {
            object.note(Outcome::Converted, &objects::not_part(Kind::Service, object), &mut reader);
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let stack = Stack {
        name: stack,
        dialect: Dialect::Stack,
        services,
        networks: networks.finish(&objects, &mut names, &mut reader),
        volumes: volumes.finish(&objects, &names, &mut reader),
        configs: objects::payloads(Kind::Config, files.configs, &objects, &mut names, &mut reader),
        secrets: objects::payloads(Kind::Secret, files.secrets, &objects, &mut names, &mut reader),
    };
    let nodes = objects::nodes(&objects, &mut reader);
    if reader.mistakes.is_empty() {
        Ok(LiveStack { stack, leaves: reader.leaves, outcomes: reader.outcomes, nodes })
    } else {
        Err(LiveError::Mistakes(reader.mistakes))
    }
}

/// The stack to read, and whether it is the services without one.
fn choose(objects: &Objects, asked: Option<&str>) -> Result<(String, bool), LiveError> {
    let services = objects.of(Kind::Service);
    if services.is_empty() {
        return Err(LiveError::NoServices);
    }
    let found: BTreeSet<_> = services.iter().filter_map(|service| service.stack.clone()).collect();
    let found: Vec<_> = found.into_iter().collect();
    match (asked, found.as_slice()) {
        (Some(stack), []) => Ok((stack.to_owned(), true)),
        (Some(stack), _) if found.iter().any(|one| one == stack) => Ok((stack.to_owned(), false)),
        (Some(stack), _) => Err(LiveError::UnknownStack { stack: stack.to_owned(), found }),
        (None, [stack]) => Ok((stack.clone(), false)),
        (None, []) => {
            Err(LiveError::NoStack { services: services.iter().map(|service| service.name.clone()).collect() })
        }
        (None, _) => Err(LiveError::SeveralStacks { found }),
    }
}
