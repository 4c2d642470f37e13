//! Errors by operation.

use super::DIMENSIONS;
use super::disk::DiskError;
use crate::base::Fault;

/// Why an index could not be opened. Damaged files are not an error: they are discarded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configured number of dimensions is not supported.
    #[error("vectors of {found} dimensions are configured, supported are {} to {}", DIMENSIONS.start(), DIMENSIONS.end())]
    Dimensions {
        /// The configured number.
        found: usize,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The graph could not be set up.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl From<BuildError> for OpenError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Graph(error) => Self::Graph(error),
            BuildError::Disk(error) => Self::Disk(error),
        }
    }
}

impl OpenError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Dimensions { .. } => Fault::Caller,
            Self::Disk(_) => Fault::Environment,
            Self::Graph(error) => error.fault(),
        }
    }
}

/// Why a batch was not applied. Nothing of it is visible, and the same or another batch can be applied next.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A vector has the wrong number of dimensions.
    #[error("vector {key} has {found} dimensions, expected {expected}")]
    Dimensions {
        /// Its key.
        key: u64,
        /// Its length.
        found: usize,
        /// The index's number of dimensions.
        expected: usize,
    },
    /// Keys are not in ascending order, or not above those of earlier batches.
    #[error("key {key} follows key {previous}, keys must ascend")]
    Order {
        /// The offending key.
        key: u64,
        /// The one before it.
        previous: u64,
    },
    /// A file could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl ApplyError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Dimensions { .. } | Self::Order { .. } => Fault::Caller,
            Self::Disk(_) => Fault::Environment,
        }
    }
}

/// The graph's engine returned an error.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The engine's own message.
    #[error("the vector graph reports: {0}")]
    Engine(String),
    /// A saved graph does not belong to these rows or this configuration.
    #[error("the saved vector graph does not fit its rows or the configuration")]
    Unfit,
    /// The file system wrote less than requested.
    #[error("{written} bytes of the vector graph were written, expected {expected}")]
    Short {
        /// Length of the file.
        written: u64,
        /// Length of a whole graph.
        expected: u64,
    },
}

impl GraphError {
    pub(super) fn engine(error: impl std::fmt::Display) -> Self {
        Self::Engine(error.to_string())
    }

    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Engine(_) | Self::Short { .. } => Fault::Environment,
            Self::Unfit => Fault::Damage,
        }
    }
}

/// Why linking rows failed. Rows that were not linked are scanned, so searches stay complete.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The graph could not grow.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The smaller matrix could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl BuildError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Graph(error) => error.fault(),
            Self::Disk(_) => Fault::Environment,
        }
    }
}

/// Why a checkpoint failed. The one before it stays in force.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The graph could not be saved.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Rows that were trusted at open are not what the last checkpoint wrote: open again with
    /// [`Trust::Verify`](super::Trust::Verify).
    #[error("stored vectors differ from those of the last checkpoint")]
    Damaged,
}

impl CheckpointError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Disk(_) => Fault::Environment,
            Self::Graph(error) => error.fault(),
            Self::Damaged => Fault::Damage,
        }
    }
}
