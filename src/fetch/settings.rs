//! The settings of outgoing requests, section `[fetch]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Config, Proxy, Trust};
use crate::base::setting;

/// How the node makes requests.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// Authorities that are trusted in addition to the system's.
    #[serde(deserialize_with = "setting::path")]
    ca_file: Option<PathBuf>,
    /// `None`: taken from the variables.
    #[serde(deserialize_with = "proxy")]
    proxy: Option<String>,
    /// Hosts that are reached directly.
    #[serde(deserialize_with = "setting::text")]
    no_proxy: String,
    /// Time limit for connecting.
    #[serde(deserialize_with = "setting::duration::<_, 1, { setting::ANY }>")]
    connect_timeout: Duration,
}

/// No proxy, regardless of the variables.
const NONE: &str = "none";

impl Settings {
    /// The client configuration for these settings.
    #[must_use]
    pub fn config(&self) -> Config {
        let proxy = match self.proxy.as_deref() {
            None => Proxy::from_environment(),
            Some(NONE) => Proxy::none(),
            // It was validated earlier.
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
