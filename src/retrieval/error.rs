//! Why a search was not answered.

use crate::base::Fault;
use crate::collection::ReadError;
use crate::embed::EmbedError;
use crate::index::lexical::LexicalError;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// No word in it.
    #[error("the query is empty")]
    EmptyQuery,
    /// A collection that does not exist.
    #[error("there is no collection '{name}'; there {}", listed(.known))]
    NoSuchCollection {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A document that does not exist.
    #[error("there is no document '{id}'")]
    NoSuchDocument {
        /// The id asked for.
        id: String,
    },
    /// A limit, offset or budget out of range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The argument.
        name: &'static str,
        /// Its value.
        found: usize,
        /// The range.
        expected: String,
    },
    /// An index cannot be read.
    #[error(transparent)]
    Lexical(#[from] LexicalError),
    /// The model of a collection is not on this node, or cannot answer.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The vectors of a collection are of another length than what its model makes of the question.
    #[error("the vectors of collection '{collection}' have {expected} dimensions, its model {model} gives {found}")]
    Dimensions {
        /// The collection.
        collection: String,
        /// The model that it names.
        model: String,
        /// Length of the question's embedding.
        found: usize,
        /// Length of the collection's.
        expected: usize,
    },
    /// The index of a collection is not open.
    #[error("{reason}")]
    NoIndex {
        /// Of which, and why.
        reason: String,
    },
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "are no collections yet".to_owned(),
        [name] => format!("is '{name}'"),
        names => format!("are {}", names.join(", ")),
    }
}

impl SearchError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::EmptyQuery
            | Self::NoSuchCollection { .. }
            | Self::NoSuchDocument { .. }
            | Self::OutOfRange { .. } => Fault::Caller,
            Self::Lexical(error) => error.fault(),
            // The caller named a collection, not its model.
            Self::Embed(EmbedError::Unknown { .. }) => Fault::Environment,
            Self::Embed(error) => error.fault(),
            Self::Read(error) => error.fault(),
            Self::Dimensions { .. } => Fault::Damage,
            Self::NoIndex { .. } => Fault::Environment,
        }
    }
}
