//! The one way in: every operation of the node begins with [`Calls::enter`] and runs under the [`Permit`] that it returns.
//!
//! Owns who may do what: [`Rule`]s decide on a call before it runs, may narrow what it reaches, and hear how it ended. Policy, rate
//! limits and the audit are rules. The node's reads and writes ([`crate::collection::Access`], [`crate::retrieval::Retrieval`]) take
//! a permit, and nothing but `enter` makes one, so a way in that forgets to ask does not compile.
//!
//! Invariants:
//! * A call enters once, whatever the way in: MCP, REST, standard input, or the command line on a data directory.
//! * A permit ends exactly once, with an outcome: also when its client leaves or its task panics.
//! * Without rules, entering costs two reference counts and one reading of the clock.

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
    /// The caller may not do this.
    #[error("{caller} may not {operation} here: {reason}")]
    Forbidden {
        /// The caller's name.
        caller: String,
        /// The operation's name.
        operation: String,
        /// Why, and who can change it.
        reason: String,
    },
    /// The caller has used up what it may use for now.
    #[error("{caller} has reached its limit of {limit}; try again in {} seconds", .retry_after.as_secs().max(1))]
    Limited {
        /// The caller's name.
        caller: String,
        /// The limit, such as "60 calls a minute".
        limit: String,
        /// After how long a call may be let in again.
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
    /// It did not; the code says why.
    Failed(&'static str),
    /// A rule refused it.
    Refused,
    /// It never ended: its client left, or its task panicked.
    Abandoned,
}

/// A call, as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What is to be done.
    pub operation: &'a Operation,
    /// Who asks.
    pub caller: &'a Caller,
    /// Which collections it names.
    pub scope: &'a Scope<'a>,
}

/// A call that ended, as a rule hears of it.
#[derive(Debug, Clone, Copy)]
pub struct EndedCall<'a> {
    /// What was to be done.
    pub operation: &'a Operation,
    /// Who asked.
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
    /// When it may not run.
    fn admit(&self, call: &Call<'_>, reach: &mut Reach) -> Result<(), Refusal>;

    /// Whether the operation is shown to the caller at all, such as in the list of tools. It is decided on when it is called, too.
    fn shows(&self, _operation: &Operation, _caller: &Caller) -> bool {
        true
    }

    /// The call ended.
    fn ended(&self, _ended: &EndedCall<'_>) {}
}

/// The way in. Clones share their rules.
#[derive(Clone)]
pub struct Calls {
    shared: Arc<Shared>,
}

struct Shared {
    rules: Vec<Box<dyn Rule>>,
    metrics: Metrics,
}

impl Calls {
    /// A way in under these rules; they are asked in order, and the first refusal counts.
    #[must_use]
    pub fn new(rules: Vec<Box<dyn Rule>>, metrics: Metrics) -> Self {
        Self { shared: Arc::new(Shared { rules, metrics }) }
    }

    /// A way in without rules that nobody counts, for what no caller reaches, such as a node that is opened to be checked.
    #[must_use]
    pub fn unwatched() -> Self {
        Self::new(Vec::new(), Metrics::default())
    }

    /// Begins a call.
    ///
    /// * `scope`: the collections that it names. A permit does not reach others.
    ///
    /// # Errors
    /// When a rule refuses it.
    pub fn enter(&self, operation: Operation, caller: &Caller, scope: &Scope<'_>) -> Result<Permit, Refusal> {
        let mut permit = self.permit(operation, caller.clone());
        for rule in &self.shared.rules {
            let call = Call { operation: &permit.operation, caller, scope };
            if let Err(refusal) = rule.admit(&call, &mut permit.reach) {
                permit.outcome = Outcome::Refused;
                return Err(refusal);
            }
        }
        Ok(permit)
    }

    /// Whether the operation is shown to the caller.
    #[must_use]
    pub fn shows(&self, operation: &Operation, caller: &Caller) -> bool {
        self.shared.rules.iter().all(|rule| rule.shows(operation, caller))
    }

    /// Begins work of the node's own, which no rule can refuse: it keeps promises that were made before.
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

/// The right to do one operation for one caller. Dropping it ends the call.
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
    /// Who asked.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What is done.
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
