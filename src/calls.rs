//! The single entry point: every operation of the node starts with [`Calls::enter`] and runs under the [`Permit`] that
//! it returns.
//!
//! Owns authorisation: [`Rule`]s decide on a call before it runs, may narrow its reach, and are notified when it ends. A
//! node has none so far; policy, rate limits and the audit are meant to be rules. The node's reads and writes ([`crate::collection::Access`],
//! [`crate::retrieval::Retrieval`]) require a permit, and only `enter` creates one, so an interface that forgets to
//! call it does not compile.
//!
//! Invariants:
//! * A call enters once, whatever the interface: MCP, REST, standard input, or the command line on a data directory. Only
//!   notifications, which last for hours, enter again before each look at what changed.
//! * Rules decide by the collections that a call names, so where there are rules a call reaches no others.
//! * A permit ends exactly once, with an outcome, even if its client leaves or its task panics.
//! * Without rules, entering costs two reference counts and one clock read.

mod metrics;
mod operation;
mod reach;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::Caller;
use crate::base::Fault;

pub use metrics::{Metrics, ToolLabels};
pub use operation::{Effect, Operation, Scope, ToolName};
pub use reach::Reach;

/// Why a call may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller is not allowed to do this.
    #[error("{caller} may not {operation} here: {reason}")]
    Forbidden {
        /// The caller's name.
        caller: String,
        /// The operation's name.
        operation: String,
        /// Why, and who can change it.
        reason: String,
    },
    /// The caller has exceeded a limit.
    #[error("{caller} has reached its limit of {limit}; try again in {} seconds", .retry_after.as_secs().max(1))]
    Limited {
        /// The caller's name.
        caller: String,
        /// The limit, such as "60 calls a minute".
        limit: String,
        /// When to retry.
        retry_after: Duration,
    },
}

impl Refusal {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did what was asked.
    Done,
    /// It failed; the code says why.
    Failed(&'static str),
    /// A rule refused it.
    Refused,
    /// It never ended properly: its client left, or its task panicked.
    Abandoned,
}

/// A call, as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What is to be done.
    pub operation: &'a Operation,
    /// The caller.
    pub caller: &'a Caller,
    /// Which collections it names.
    pub scope: &'a Scope<'a>,
}

/// A call that ended, as reported to rules.
#[derive(Debug, Clone, Copy)]
pub struct EndedCall<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// The caller.
    pub caller: &'a Caller,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
}

/// Decides on calls. Its methods run on the caller's task, so they must not block.
pub trait Rule: Send + Sync + 'static {
    /// Whether the call may run, and on what: `reach` can be narrowed.
    ///
    /// # Errors
    /// When the call is refused.
    fn admit(&self, call: &Call<'_>, reach: &mut Reach) -> Result<(), Refusal>;

    /// Whether the operation is visible to the caller at all, for instance in the list of tools. It is checked again
    /// when it is called.
    fn shows(&self, _operation: &Operation, _caller: &Caller) -> bool {
        true
    }

    /// The call ended.
    fn ended(&self, _ended: &EndedCall<'_>) {}
}

/// The entry point. Clones share their rules.
#[derive(Clone)]
pub struct Calls {
    shared: Arc<Shared>,
}

struct Shared {
    rules: Vec<Box<dyn Rule>>,
    metrics: Metrics,
}

impl Calls {
    /// An entry point with these rules; they run in order, and the first refusal counts.
    #[must_use]
    pub fn new(rules: Vec<Box<dyn Rule>>, metrics: Metrics) -> Self {
        Self { shared: Arc::new(Shared { rules, metrics }) }
    }

    /// An entry point without rules and metrics, for work that no caller reaches, such as checking a restored node.
    #[must_use]
    pub fn unwatched() -> Self {
        Self::new(Vec::new(), Metrics::default())
    }

    /// Starts a call.
    ///
    /// * `scope`: the collections that it names. Where there are rules, which decide by it, the permit does not reach
    ///   others.
    ///
    /// # Errors
    /// When a rule refuses it.
    pub fn enter(&self, operation: Operation, caller: &Caller, scope: &Scope<'_>) -> Result<Permit, Refusal> {
        let mut permit = self.permit(operation, caller.clone());
        if !self.shared.rules.is_empty() {
            match scope {
                Scope::Node | Scope::Every => {}
                Scope::One(name) => permit.reach.narrow_to([name.clone().into_owned()]),
                Scope::Many(names) => permit.reach.narrow_to(names.iter().cloned()),
            }
        }
        for rule in &self.shared.rules {
            let call = Call { operation: &permit.operation, caller, scope };
            if let Err(refusal) = rule.admit(&call, &mut permit.reach) {
                permit.outcome = Outcome::Refused;
                return Err(refusal);
            }
        }
        Ok(permit)
    }

    /// Whether the operation is visible to the caller.
    #[must_use]
    pub fn shows(&self, operation: &Operation, caller: &Caller) -> bool {
        self.shared.rules.iter().all(|rule| rule.shows(operation, caller))
    }

    /// Starts the node's own work, which no rule can refuse: it fulfils earlier guarantees.
    pub fn internal_permit(&self, operation: Operation) -> Permit {
        self.permit(operation, Caller::node())
    }

    fn permit(&self, operation: Operation, caller: Caller) -> Permit {
        Permit {
            shared: Arc::clone(&self.shared),
            operation,
            caller,
            reach: Reach::default(),
            began: Instant::now(),
            outcome: Outcome::Abandoned,
        }
    }
}

/// Permission for one operation of one caller. Dropping it ends the call.
#[must_use = "dropping it ends the call"]
pub struct Permit {
    shared: Arc<Shared>,
    operation: Operation,
    caller: Caller,
    reach: Reach,
    began: Instant,
    outcome: Outcome,
}

impl Permit {
    /// The caller.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// What the call may see and change.
    #[must_use]
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Ends the call.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        if let Some(tool) = self.operation.tool_label() {
            let outcome = if self.outcome == Outcome::Done { "ok" } else { "error" };
            let labels = ToolLabels { tool, outcome };
            self.shared.metrics.tool_calls.get_or_create(&labels).inc();
            self.shared.metrics.tool_seconds.get_or_create(&labels).observe(duration.as_secs_f64());
        }
        for rule in &self.shared.rules {
            let Self { operation, caller, outcome, .. } = self;
            rule.ended(&EndedCall { operation, caller, outcome: *outcome, duration });
        }
    }
}

#[cfg(test)]
mod tests;
