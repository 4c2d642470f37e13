//! The tools that a caller can call, from several providers: the node's own, and others that are added.
//!
//! Invariants: a name belongs to one provider, the first that has it; the list has a fixed order, providers one after the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rmcp::model::Tool as ToolDefinition;
use tokio::sync::watch;

use super::{Arguments, NoProgress, Progress, ToolAnswer, ToolError};
use crate::auth::Caller;
use crate::base::{Lsn, NodeId};
use crate::calls::{Operation, Permit, Scope};

/// The future of a provider's work.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A call on its way to a provider.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// The call that contains this one, such as the list of resources, which calls the list of documents of each
    /// collection; `None` if it enters on its own.
    pub within: Option<&'a Permit>,
    /// Where long work reports how far it is.
    pub progress: &'a dyn Progress,
}

impl<'a> Context<'a> {
    /// A call of its own that reports no progress.
    #[must_use]
    pub fn of(caller: &'a Caller) -> Self {
        Self { caller, within: None, progress: &NoProgress }
    }

    /// A part of the call that `permit` was made for; `None` where another process decides.
    #[must_use]
    pub fn within(caller: &'a Caller, permit: Option<&'a Permit>) -> Self {
        Self { within: permit, ..Self::of(caller) }
    }
}

/// A source of tools.
pub trait ToolProvider: Send + Sync + 'static {
    /// The facts about a tool, without a query; `None` when this provider does not have it.
    fn definition(&self, name: &str) -> Option<ToolDefinition>;

    /// Whether this provider has a tool, by the same knowledge; asked for each call.
    fn has(&self, name: &str) -> bool {
        self.definition(name).is_some()
    }

    /// Names of the tools as this caller sees them, without a query.
    fn names(&self, caller: &Caller) -> Vec<String>;

    /// The tools as this caller sees them.
    fn tools<'a>(&'a self, context: Context<'a>) -> Answering<'a, Vec<ToolDefinition>>;

    /// Runs a tool that this provider has.
    fn call<'a>(
        &'a self,
        tool: &'a str,
        arguments: Arguments,
        context: Context<'a>,
    ) -> Answering<'a, Result<ToolAnswer, ToolError>>;
}

/// The provider of the node's own tools, and what else faces need of the node.
pub trait NodeProvider: ToolProvider {
    /// The node that answers; part of resource addresses.
    fn node(&self) -> NodeId;

    /// The position of the log, announced whenever it grows; `None` where another process has the log.
    fn changes(&self) -> Option<watch::Receiver<Lsn>>;

    /// Begins a call that is not a tool's; `None` where another process decides.
    ///
    /// # Errors
    /// When a rule refuses it.
    fn enter(&self, operation: Operation, caller: &Caller, scope: &Scope<'_>) -> Result<Option<Permit>, ToolError>;
}

/// The tools there are. Clones share their providers.
#[derive(Clone)]
pub struct Catalog {
    node: Arc<dyn NodeProvider>,
    others: Arc<[Arc<dyn ToolProvider>]>,
}

impl Catalog {
    /// The node's tools, and after them those of other providers.
    #[must_use]
    pub fn new(node: Arc<dyn NodeProvider>, others: Vec<Arc<dyn ToolProvider>>) -> Self {
        Self { node, others: others.into() }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &dyn NodeProvider {
        &*self.node
    }

    fn providers(&self) -> impl Iterator<Item = &dyn ToolProvider> {
        let node: &dyn ToolProvider = &*self.node;
        std::iter::once(node).chain(self.others.iter().map(|provider| &**provider))
    }

    /// The facts about a tool; `None` when no tool has that name.
    #[must_use]
    pub fn definition(&self, name: &str) -> Option<ToolDefinition> {
        self.providers().find_map(|provider| provider.definition(name))
    }

    /// The tools as this caller sees them.
    pub async fn tools(&self, context: Context<'_>) -> Vec<ToolDefinition> {
        let mut tools: Vec<ToolDefinition> = Vec::new();
        for provider in self.providers() {
            let more = provider.tools(context).await;
            tools.extend(more.into_iter().filter(|tool| {
                // The first provider of a name answers its calls.
                let first = self.providers().find(|other| other.has(&tool.name));
                first.is_none_or(|first| std::ptr::addr_eq(first, provider))
            }));
        }
        tools
    }

    /// Runs a tool.
    ///
    /// # Errors
    /// `not_found` when no tool has that name, and the tool's own errors.
    pub async fn call(&self, name: &str, arguments: Arguments, context: Context<'_>) -> Result<ToolAnswer, ToolError> {
        match self.providers().find(|provider| provider.has(name)) {
            Some(provider) => provider.call(name, arguments, context).await,
            None => Err(self.unknown(name, context.caller)),
        }
    }

    /// That there is no such tool, and which there are.
    #[must_use]
    pub fn unknown(&self, name: &str, caller: &Caller) -> ToolError {
        let mut names: Vec<String> = Vec::new();
        for provider in self.providers() {
            let more = provider.names(caller);
            names.extend(more.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        }
        ToolError::not_found(format!("there is no tool '{name}'; there are {}", names.join(", ")))
    }
}
