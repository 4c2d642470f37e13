//! Whom the command line trusts where a node speaks TLS.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;

use crate::auth;
use crate::base::small_file;
use crate::fetch::{self, Authorities, PemError};

/// Whom a connection to a node trusts.
pub(super) enum Trust {
    /// The authorities of the system; Mozilla's where it has none.
    System,
    /// One authority, for any host.
    Authority(Authorities),
    /// One authority, or those of the system, for a node that has a name and is found at this address.
    At(Option<Authorities>, SocketAddr),
}

impl Trust {
    /// The authorities in a file.
    pub(super) fn file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::Authority(authorities(path)?))
    }

    /// The authority of a data directory, for the node that runs on it.
    pub(super) fn here(data_dir: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        Self::node_authority(&auth::Authority::file(data_dir), address)
    }

    /// The authority in a file, for the node of that authority at this address.
    pub(super) fn node_authority(path: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::At(Some(authorities(path)?), address))
    }

    /// The same trust, at this address whatever the name says.
    pub(super) fn at(self, address: SocketAddr) -> Self {
        match self {
            Self::System => Self::At(None, address),
            Self::Authority(roots) => Self::At(Some(roots), address),
            Self::At(roots, _) => Self::At(roots, address),
        }
    }

    /// The authorities that are trusted.
    pub(super) fn authorities(&self) -> fetch::Trust {
        match self {
            Self::System | Self::At(None, _) => fetch::Trust::System,
            Self::Authority(roots) | Self::At(Some(roots), _) => fetch::Trust::Only(roots.clone()),
        }
    }

    /// Where the node is, whatever its name says.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::At(_, address) => Some(*address),
            Self::System | Self::Authority(_) => None,
        }
    }
}

fn authorities(path: &Path) -> anyhow::Result<Authorities> {
    let pem = small_file::read(path).with_context(|| format!("cannot read the authority {}", path.display()))?;
    Authorities::from_pem(&pem).map_err(|error| match error {
        PemError::Syntax(_) => anyhow::Error::from(error).context(format!("{} is not a PEM file", path.display())),
        PemError::Missing { what } => anyhow::anyhow!("there is no {what} in {}", path.display()),
    })
}
