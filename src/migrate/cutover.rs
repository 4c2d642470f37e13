//! From a folder of objects to a cluster that runs them: applied in phases, each checked before the next, and undone when it fails.
//!
//! Invariants: nothing is changed before the server has accepted every object in a dry run, and what is there before is stored in the
//! namespace before it is changed. A phase that fails is undone; those before it are ready, and stay. Claims, volumes and the namespace
//! are never deleted: data is in them.

mod apply;
mod check;
mod hosts;
mod input;
mod mcp;
mod ownership;
mod plan;
mod ready;
mod record;
mod rollback;
mod status;
mod undo;

use crate::base::Fault;
use crate::deploy::cluster::ApiError;

pub use self::apply::{Action, Applied, ApplyOptions, Cutover, PhaseResult, Trouble, prepare};
pub use self::input::{Input, InputError, OpenEntry, read};
pub use self::mcp::{Gate, McpServer};
pub use self::plan::{Phase, Plan};
pub use self::record::{RecordState, Run};
pub use self::rollback::{Rollback, prepare_rollback};
pub use self::status::{ServiceStatus, status};
pub use self::undo::Undone;

/// The field manager of everything that is applied.
pub const MANAGER: &str = "cairn-migrate";

/// Why a cut-over did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CutoverError {
    /// The folder is not one of a conversion.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The cluster was no help.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server would not accept some of the objects. Nothing was changed.
    #[error("nothing was changed; {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<ApiError>),
    /// Something has to be decided or provided first.
    #[error("{}", .0.join("\n"))]
    Open(Vec<String>),
    /// What is stored of the runs before cannot be used.
    #[error("{0}")]
    Record(String),
}

impl CutoverError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Input(error) => error.fault(),
            Self::Open(_) | Self::Api(ApiError::NoKubeconfig | ApiError::Kubeconfig { .. }) => Fault::Caller,
            Self::Api(_) | Self::Refused(_) | Self::Record(_) => Fault::Environment,
        }
    }

    /// Whether the cluster did not answer at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api(ApiError::Unreachable { .. }))
    }
}
