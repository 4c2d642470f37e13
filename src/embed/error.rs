//! Why a model cannot answer.

use crate::base::Fault;

/// Why texts could not be embedded. Cheap to clone: one failure is reported for every collection of the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The node has no model of this name.
    #[error("there is no model '{model}'; this node has {}", .known.join(", "))]
    Unknown {
        /// The name asked for.
        model: String,
        /// The models that the node has.
        known: Vec<String>,
    },
    /// The model's own files cannot be read as a model.
    #[error("model {model} cannot be used: {detail}")]
    Damaged {
        /// Name of the model.
        model: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The model does not answer now: it is remote, and unreachable or too slow.
    #[error("model {model} does not answer: {detail}")]
    Unavailable {
        /// Name of the model.
        model: String,
        /// What failed.
        detail: String,
    },
    /// The model returned something other than the requested vectors.
    #[error("model {model} returned {detail}")]
    BadAnswer {
        /// Name of the model.
        model: String,
        /// What it returned.
        detail: String,
    },
}

impl EmbedError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unknown { .. } => Fault::Caller,
            Self::Damaged { .. } => Fault::Damage,
            Self::Unavailable { .. } | Self::BadAnswer { .. } => Fault::Environment,
        }
    }
}
