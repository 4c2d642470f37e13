//! Why a call did not do what it was asked, in one list of codes for MCP, REST and the command line.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::Fault;
use crate::calls::{self, Permit, Refusal};

macro_rules! error_codes {
    ($($name:ident $word:literal $description:literal;)*) => {
        /// A stable word for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $description] $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As answers spell it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Its meaning.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

error_codes! {
    BadArgument "bad_argument" "An argument is invalid; the message says what is expected.";
    NotFound "not_found" "The named object does not exist.";
    Conflict "conflict" "It exists already, or at another version.";
    Unauthorized "unauthorized" "The request has no valid token.";
    Forbidden "forbidden" "The caller may not do this.";
    ReadOnly "read_only" "The node does not accept writes.";
    Overloaded "overloaded" "The node has no capacity now; try again after the time in `Retry-After`.";
    NotVisible "not_visible" "The write is durable, but searches do not see it yet.";
    KeyReused "key_reused" "The idempotency key was used for another request within a day.";
    StillUnread "still_unread" "The source cannot be read, and the same bytes could not be read before.";
    Internal "internal" "The node failed.";
    Usage "usage" "The command line is invalid.";
    Unreachable "unreachable" "No node answers.";
    Failed "failed" "The command failed outside the node.";
}

impl ErrorCode {
    /// Who can usually mend what has this code.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::BadArgument
            | Self::NotFound
            | Self::Conflict
            | Self::Unauthorized
            | Self::Forbidden
            | Self::KeyReused
            | Self::StillUnread
            | Self::Usage => Fault::Caller,
            Self::ReadOnly
            | Self::Overloaded
            | Self::NotVisible
            | Self::Internal
            | Self::Unreachable
            | Self::Failed => Fault::Environment,
        }
    }

    /// The code of that word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a tool did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ToolError {
    /// For programs.
    pub code: ErrorCode,
    /// For people and models: what was found and what to do.
    pub message: String,
    /// Who can fix it.
    pub fault: Fault,
    /// When to try again, where that is known.
    pub retry_after: Option<Duration>,
}

/// Maximum characters of a message: it repeats input of callers, which may have any length.
const MESSAGE_CHARS_MAX: usize = 1_000;

impl ToolError {
    /// An error that says nothing about when to try again.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>, fault: Fault) -> Self {
        Self { code, message: message.into(), fault, retry_after: None }
    }

    /// An argument that cannot be used.
    #[must_use]
    pub fn bad_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadArgument, message, Fault::Caller)
    }

    /// Something that is not there.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message, Fault::Caller)
    }

    /// There is no room for the call now.
    #[must_use]
    pub fn overloaded() -> Self {
        let message = "the node is answering as many requests as it can; try again in a second";
        Self::new(ErrorCode::Overloaded, message, Fault::Environment)
    }

    /// The message without its middle where it is long: the beginning says what is wrong, the end what to do.
    #[must_use]
    pub fn shortened_message(&self) -> Cow<'_, str> {
        let message = &self.message;
        let count = message.chars().count();
        if count <= MESSAGE_CHARS_MAX {
            return message.into();
        }
        let half = MESSAGE_CHARS_MAX / 2;
        let at = |nth| message.char_indices().nth(nth).map_or(message.len(), |(at, _)| at);
        format!("{} … {}", &message[..at(half)], &message[at(count - half)..]).into()
    }

    /// Who can fix it, as answers spell it.
    #[must_use]
    pub const fn fault_word(&self) -> &'static str {
        match self.fault {
            Fault::Caller => "caller",
            Fault::Environment => "environment",
            Fault::Damage => "damage",
        }
    }

    /// As the structured content of a tool error.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"error": {"code": self.code.as_str(), "message": self.shortened_message(), "fault": self.fault_word()}})
    }
}

impl From<Refusal> for ToolError {
    fn from(refusal: Refusal) -> Self {
        let (message, fault) = (refusal.to_string(), refusal.fault());
        let (code, retry_after) = match refusal {
            Refusal::Forbidden { .. } => (ErrorCode::Forbidden, None),
            Refusal::Limited { retry_after, .. } => (ErrorCode::Overloaded, Some(retry_after)),
        };
        Self { retry_after, ..Self::new(code, message, fault) }
    }
}

/// Ends a call with its result.
pub(super) fn ended<T>(permit: Permit, result: Result<T, ToolError>) -> Result<T, ToolError> {
    permit.end(match &result {
        Ok(_) => calls::Outcome::Done,
        Err(error) => calls::Outcome::Failed(error.code.as_str()),
    });
    result
}
