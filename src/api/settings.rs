//! The settings of the listener of MCP and REST, section `[server]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Deserializer};

use super::cors::Origin;
use crate::auth::{CertificateFiles, Name};
use crate::base::{ByteSize, setting};

/// A day, in milliseconds.
const DAY: u64 = 86_400_000;

/// The listener of MCP and REST.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// Its address.
    #[serde(deserialize_with = "setting::address")]
    pub listen: SocketAddr,
    /// Whether other addresses than loopback are answered without the node's token.
    pub allow_unauthenticated: bool,
    /// Which listeners speak TLS.
    pub tls: Tls,
    /// The certificate that clients are shown, PEM; `None`: one of the node's own authority.
    #[serde(deserialize_with = "setting::path")]
    pub tls_certificate_file: Option<PathBuf>,
    /// Its private key, PEM; there is one where there is a certificate.
    #[serde(deserialize_with = "setting::path")]
    pub tls_key_file: Option<PathBuf>,
    /// More names in a certificate of the node's own authority.
    pub tls_names: Vec<Name>,
    /// The service of Kubernetes in front of the node.
    #[serde(rename = "pod", deserialize_with = "service")]
    pub service: Option<Service>,
    /// File with a token that is accepted in addition to those of the data directory.
    #[serde(deserialize_with = "setting::path")]
    pub token_file: Option<PathBuf>,
    /// Names allowed in `Host` and `Origin` besides the loopback ones and the address.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Origins of pages that browsers let read the answers.
    pub cors_origins: Vec<Origin>,
    /// Largest request body.
    #[serde(deserialize_with = "setting::size::<_, { 64 << 10 }>")]
    pub request_bytes_max: ByteSize,
    /// Time limit of a request's body.
    #[serde(deserialize_with = "setting::duration::<_, 1_000, DAY>")]
    pub body_timeout: Duration,
    /// Minimum bytes a second of a body.
    #[serde(deserialize_with = "setting::size::<_, 0>")]
    pub body_rate_min: ByteSize,
    /// Bytes of the bodies that are being received and answered, together.
    #[serde(deserialize_with = "setting::size::<_, { 1 << 20 }>")]
    pub bodies_bytes_max: ByteSize,
    /// Connections at once.
    #[serde(deserialize_with = "setting::count::<_, 8, 1_000_000>")]
    pub connections_max: usize,
    /// Time limit for a request's head, and for the next request.
    #[serde(deserialize_with = "setting::duration::<_, 1_000, DAY>")]
    pub head_timeout: Duration,
    /// Time limit of a TLS handshake.
    #[serde(deserialize_with = "setting::duration::<_, 1_000, DAY>")]
    pub handshake_timeout: Duration,
    /// Requests answered at once.
    #[serde(deserialize_with = "setting::count::<_, 1, 100_000>")]
    pub in_flight_max: usize,
    /// How long a stop waits for requests in flight.
    #[serde(deserialize_with = "setting::duration::<_, 0, { setting::ANY }>")]
    pub drain_timeout: Duration,
}

impl Settings {
    /// The certificate that clients are shown; `None`: one of the node's own authority.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateFiles> {
        let (certificate, key) = self.tls_certificate_file.clone().zip(self.tls_key_file.clone())?;
        Some(CertificateFiles { certificate, key })
    }

    /// Whether the listener at this address asks for a token.
    #[must_use]
    pub fn guards(&self, listen: SocketAddr) -> bool {
        !listen.ip().is_loopback() && !self.allow_unauthenticated
    }
}

/// Which listeners speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Those that other machines reach.
    Auto,
    /// All.
    On,
    /// None.
    Off,
}

impl Tls {
    /// Whether the listener at this address does.
    #[must_use]
    pub fn covers(self, listen: SocketAddr) -> bool {
        match self {
            Self::Auto => !listen.ip().is_loopback(),
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// A service of Kubernetes whose one pod is this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What clients call it, and the pod's own name.
    pub names: Vec<Name>,
    /// The name that cannot mean anyone else.
    pub full: String,
}

impl Service {
    /// The service of a pod `SET-NUMBER.NAMESPACE.svc.DOMAIN`; `None` for any other text.
    fn of_pod(text: &str) -> Option<Self> {
        let (pod, rest) = text.split_once('.')?;
        let (namespace, domain) = rest.split_once(".svc.")?;
        let (set, number) = pod.rsplit_once('-')?;
        number.parse::<u32>().ok()?;
        let full = format!("{set}.{namespace}.svc.{domain}");
        let names = [
            set.to_owned(),
            format!("{set}.{namespace}"),
            format!("{set}.{namespace}.svc"),
            full.clone(),
            format!("{pod}.{set}-headless.{namespace}.svc.{domain}"),
        ];
        let names: Option<Vec<Name>> =
            names.iter().map(|name| name.parse().ok().filter(|name| matches!(name, Name::Dns(_)))).collect();
        Some(Self { names: names?, full })
    }
}

/// The service that leads to a pod; `None` for an empty text.
fn service<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Service>, D::Error> {
    let pod = setting::text(deserializer)?;
    if pod.is_empty() {
        return Ok(None);
    }
    Service::of_pod(&pod).map(Some).ok_or_else(|| {
        let expected = "a pod of a set with its namespace, such as cairn-0.site.svc.cluster.local";
        serde::de::Error::invalid_value(serde::de::Unexpected::Str(&pod), &expected)
    })
}

/// A name as in `Host` and `Origin`, without optional parts: scheme, port, path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AllowedHost(String);

/// A text that can never match a `Host`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowedHostError {
    /// It has a wildcard.
    #[error("found '{0}', expected names: a pattern matches nothing, so list each name")]
    Pattern(String),
    /// It has more than a name.
    #[error("found '{found}', expected a name alone, such as '{host}': it is allowed with every scheme and port")]
    MoreThanName {
        /// The text.
        found: String,
        /// The name in it.
        host: String,
    },
    /// It is not a name.
    #[error(transparent)]
    Name(#[from] crate::auth::NameError),
}

impl TryFrom<String> for AllowedHost {
    type Error = AllowedHostError;

    fn try_from(name: String) -> Result<Self, AllowedHostError> {
        let rest = name.split_once("://").map_or(name.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let host = match host.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => host,
        };
        if name.contains('*') {
            return Err(AllowedHostError::Pattern(name));
        }
        if host != name && host.parse::<Name>().is_ok() {
            return Err(AllowedHostError::MoreThanName { host: host.to_owned(), found: name });
        }
        name.trim_matches(['[', ']']).parse::<Name>()?;
        Ok(Self(name))
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names that a running listener allows; all clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Arc<RwLock<Vec<String>>>);

impl Hosts {
    /// Allows these names.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self(Arc::new(RwLock::new(names)))
    }

    /// Allows these names instead.
    pub fn set(&self, names: Vec<String>) {
        *self.0.write() = names;
    }

    /// Whether a name of either form is among them.
    pub(super) fn contain(&self, authority: &str, host: &str) -> bool {
        let names = self.0.read();
        names.iter().any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(authority))
    }
}

/// How many requests a running listener answers at once; all clones are the same number.
#[derive(Debug, Clone)]
pub struct InFlightMax(Arc<AtomicUsize>);

impl InFlightMax {
    /// So many.
    #[must_use]
    pub fn new(requests: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(requests)))
    }

    /// So many from now on. Those that are being answered are.
    pub fn set(&self, requests: usize) {
        self.0.store(requests, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_reached_by_the_names_of_its_service() {
        let service = Service::of_pod("team-cairn-0.team-a.svc.cluster.local").expect("a service");
        let names: Vec<String> = service.names.iter().map(ToString::to_string).collect();
        assert_eq!(names[..3], ["team-cairn", "team-cairn.team-a", "team-cairn.team-a.svc"]);
        assert_eq!(service.full, "team-cairn.team-a.svc.cluster.local");
        assert_eq!(names[4], "team-cairn-0.team-cairn-headless.team-a.svc.cluster.local");
        for wrong in ["cairn", "cairn.site.svc.cluster.local", "cairn-0.site", "cairn-x.site.svc.local", "-0..svc.x"] {
            assert_eq!(Service::of_pod(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn listeners_speak_tls_as_it_is_set() {
        let other = "192.0.2.1:1".parse().expect("an address");
        let here = "[::1]:1".parse().expect("an address");
        assert_eq!(
            [Tls::Auto, Tls::On, Tls::Off].map(|tls| (tls.covers(other), tls.covers(here))),
            [(true, false), (true, true), (false, false)]
        );
    }
}
