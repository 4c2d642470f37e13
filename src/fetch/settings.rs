//! The settings of outgoing requests, section `[fetch]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Config, Proxy, Trust};
use crate::base::setting;

/// How the node asks other machines.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// Authorities that are trusted besides those of the system.
    #[serde(deserialize_with = "setting::path")]
    ca_file: Option<PathBuf>,
    /// `None`: what the variables say.
    #[serde(deserialize_with = "proxy")]
    proxy: Option<String>,
    /// Hosts that are reached without the proxy.
    #[serde(deserialize_with = "setting::text")]
    no_proxy: String,
    /// Until a connection is made.
    #[serde(deserialize_with = "setting::duration::<_, 1, { setting::ANY }>")]
    connect_timeout: Duration,
}

/// No proxy, whatever the variables say.
const NONE: &str = "none";

impl Settings {
    /// How a client works with these settings.
    #[must_use]
    pub fn config(&self) -> Config {
        let proxy = match self.proxy.as_deref() {
            None => Proxy::from_environment(),
            Some(NONE) => Proxy::none(),
            // It was read before.
            Some(url) => Proxy::new(url, &self.no_proxy).unwrap_or_else(|_| Proxy::none()),
        };
        let trust = self.ca_file.clone().map_or(Trust::System, Trust::SystemAnd);
        Config { trust, proxy, connect_timeout: self.connect_timeout, ..Config::default() }
    }
}

fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let proxy = setting::text(deserializer)?;
    // Settings are shown, and stored with snapshots.
    if proxy.contains('@') {
        return Err(D::Error::custom(
            "found a name or a password; say them in HTTPS_PROXY instead, with fetch.proxy empty",
        ));
    }
    if !proxy.is_empty() && proxy != NONE {
        Proxy::new(&proxy, "").map_err(D::Error::custom)?;
    }
    Ok(Some(proxy).filter(|proxy| !proxy.is_empty()))
}
