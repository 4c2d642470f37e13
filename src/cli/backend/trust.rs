//! The HTTP client of the command line, and whom it trusts where a node speaks TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::auth;

/// How long to wait for a node to accept a connection: it is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Whom a connection to a node trusts.
pub(super) enum Trust {
    /// The authorities of the system; Mozilla's where it has none.
    System,
    /// One authority, for whoever was named.
    Authority(RootCerts),
    /// One authority, or those of the system, for a node that has a name and is found at this address.
    At(Option<RootCerts>, SocketAddr),
}

impl Trust {
    /// The authorities in a file.
    pub(super) fn file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::Authority(authorities(path)?))
    }

    /// The authority of a data directory, for the node that runs on it.
    pub(super) fn here(data_dir: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        Self::own(&auth::Authority::file(data_dir), address)
    }

    /// The authority in a file, for the node of that authority at this address.
    pub(super) fn own(path: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::At(Some(authorities(path)?), address))
    }

    /// The same trust, at this address whatever the name says.
    pub(super) fn at(self, address: SocketAddr) -> Self {
        match self {
            Self::System => Self::At(system(), address),
            Self::Authority(roots) => Self::At(Some(roots), address),
            Self::At(roots, _) => Self::At(roots, address),
        }
    }
}

fn authorities(path: &Path) -> anyhow::Result<RootCerts> {
    let pem = fs::read(path).with_context(|| format!("cannot read the authority {}", path.display()))?;
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.with_context(|| format!("{} is no PEM file", path.display()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(anyhow!("there is no certificate in {}", path.display()));
    }
    Ok(found.into())
}

/// A client that trusts as told, with a deadline for a whole answer.
pub(super) fn agent(trust: Trust, answer_timeout: Duration) -> Agent {
    let (roots, address) = match trust {
        Trust::System => (system(), None),
        Trust::Authority(roots) => (Some(roots), None),
        Trust::At(roots, address) => (roots, Some(address)),
    };
    let tls = TlsConfig::builder()
        .root_certs(roots.unwrap_or(RootCerts::WebPki))
        .unversioned_rustls_crypto_provider(auth::provider())
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(answer_timeout))
        .http_status_as_error(false)
        .proxy(None)
        .build();
    match address {
        None => config.new_agent(),
        Some(address) => Agent::with_parts(config, DefaultConnector::default(), At(address)),
    }
}

/// What the system trusts, or the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` say.
fn system() -> Option<RootCerts> {
    let found = rustls_native_certs::load_native_certs().certs;
    let certificates: Vec<Certificate<'static>> =
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    (!certificates.is_empty()).then(|| certificates.into())
}

/// Every name is at one address: the machine need not know the name by which the node is trusted.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolver for At {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}
