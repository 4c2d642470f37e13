//! Why a request failed: the host, the failure, and what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::BoxError;
use super::dial::DialError;
use crate::base::Fault;

/// The phase that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, including TLS and proxy.
    Connect,
    /// Waiting for the answer to start.
    Answer,
    /// Waiting for the next chunk of the answer.
    Body,
    /// The whole request.
    Whole,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is invalid.
    #[error("'{url}' is not an http or https address: {reason}")]
    Url {
        /// As given.
        url: String,
        /// The problem.
        reason: String,
    },
    /// The settings of the client are invalid.
    #[error("{what}")]
    Setting {
        /// Which setting, and what was expected.
        what: String,
    },
    /// A file that the settings name cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Its path.
        path: PathBuf,
        /// The problem.
        source: BoxError,
    },
    /// The host is not allowed.
    #[error("{host} may not be reached: {reason}")]
    Refused {
        /// The host.
        host: String,
        /// The rule.
        reason: &'static str,
    },
    /// The name cannot be resolved.
    #[error(
        "no machine of the name {host} is known here; is it spelled right, and does the resolver of this machine work?"
    )]
    UnknownHost {
        /// The name.
        host: String,
        /// The resolver's error.
        #[source]
        source: Option<io::Error>,
    },
    /// The connection failed.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// The host.
        host: String,
        /// The system's error.
        reason: String,
    },
    /// The proxy could not connect.
    #[error("the proxy {proxy} did not connect to {host}: {reason}")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// The host.
        host: String,
        /// The underlying error.
        reason: String,
    },
    /// The host's certificate is not trusted.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Certificate {
        /// The host.
        host: String,
        /// The reason, and what to do unless it is the authority.
        reason: String,
        /// Whether only its authority is not known: naming that one helps.
        is_unknown: bool,
    },
    /// The host speaks HTTP without TLS.
    #[error("{host} speaks plain HTTP, not TLS: use http://")]
    PlainHttp {
        /// The host.
        host: String,
    },
    /// Another TLS error.
    #[error("no TLS with {host}: {reason}")]
    Tls {
        /// The host.
        host: String,
        /// The error.
        reason: String,
    },
    /// It took too long.
    #[error("{}", slow(.host, *.phase, *.after))]
    Timeout {
        /// The host.
        host: String,
        /// The phase.
        phase: Phase,
        /// The time limit.
        after: Duration,
    },
    /// The answer is not HTTP.
    #[error("what answers at {host} does not speak HTTP")]
    NotHttp {
        /// The host.
        host: String,
        /// What was received.
        source: BoxError,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {host} broke before the answer was complete")]
    Interrupted {
        /// The host.
        host: String,
        /// The error.
        source: BoxError,
    },
    /// The answer is too large.
    #[error("the answer of {host} is larger than {most} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit, of its head or of its body.
        most: u64,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects to {target}: {reason}")]
    Redirect {
        /// The host.
        host: String,
        /// Its target.
        target: String,
        /// The reason.
        reason: &'static str,
    },
    /// The host failed too often; its circuit breaker is open.
    #[error("{host} failed {failures} times in a row; it is asked again in {} seconds", .left.as_secs().max(1))]
    BreakerOpen {
        /// The host.
        host: String,
        /// The number of failures.
        failures: u32,
        /// Time until the next attempt.
        left: Duration,
    },
    /// The answer is not JSON, or does not have the expected shape.
    #[error("{host} answered something other than the JSON that was expected")]
    Json {
        /// The host.
        host: String,
        /// The problem.
        source: serde_json::Error,
    },
}

fn slow(host: &str, phase: Phase, after: Duration) -> String {
    let seconds = after.as_secs_f32();
    match phase {
        Phase::Connect => format!(
            "no connection to {host} within {seconds} seconds; is the address right, and does every firewall on the way let it through?"
        ),
        Phase::Answer => format!("no answer from {host} within {seconds} seconds"),
        Phase::Body => format!("the answer of {host} stopped for {seconds} seconds"),
        Phase::Whole => format!("the answer of {host} was not complete within {seconds} seconds"),
    }
}

impl FetchError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Url { .. } | Self::Setting { .. } | Self::Refused { .. } => Fault::Caller,
            Self::File { .. }
            | Self::UnknownHost { .. }
            | Self::Connect { .. }
            | Self::Proxy { .. }
            | Self::Certificate { .. }
            | Self::PlainHttp { .. }
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::NotHttp { .. }
            | Self::Interrupted { .. }
            | Self::TooLarge { .. }
            | Self::Redirect { .. }
            | Self::BreakerOpen { .. }
            | Self::Json { .. } => Fault::Environment,
        }
    }

    /// A single word for metrics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Setting { .. } | Self::File { .. } => "settings",
            Self::Refused { .. } => "refused",
            Self::UnknownHost { .. } => "unknown_host",
            Self::Connect { .. } => "connect",
            Self::Proxy { .. } => "proxy",
            Self::Certificate { .. } | Self::PlainHttp { .. } | Self::Tls { .. } => "tls",
            Self::Timeout { .. } => "timeout",
            Self::NotHttp { .. } => "not_http",
            Self::Interrupted { .. } => "interrupted",
            Self::TooLarge { .. } => "too_large",
            Self::Redirect { .. } => "redirect",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Json { .. } => "json",
        }
    }

    /// Whether the request did not reach the host, so that it can be repeated even if it is not idempotent.
    #[must_use]
    pub fn is_before_sending(&self) -> bool {
        match self {
            Self::UnknownHost { .. } | Self::Connect { .. } | Self::Proxy { .. } | Self::BreakerOpen { .. } => true,
            Self::Timeout { phase, .. } => *phase == Phase::Connect,
            _ => false,
        }
    }

    /// Whether a retry may succeed.
    pub(super) fn is_passing(&self) -> bool {
        self.is_before_sending() || matches!(self, Self::Timeout { .. } | Self::Interrupted { .. })
    }
}

/// The chain of errors, starting with this one. An error wrapped in an I/O error is not among the latter's sources.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), |error| below(*error))
}

/// Converts an error of the client library.
///
/// * `head_bytes`: the limit of an answer's head.
pub(super) fn of_exchange(error: hyper_util::client::legacy::Error, host: &str, head_bytes: u64) -> FetchError {
    let host = host.to_owned();
    let is_not_http = |error: &hyper::Error| error.is_parse() && !error.is_parse_too_large();
    if causes(&error).filter_map(|cause| cause.downcast_ref()).any(is_not_http) {
        return FetchError::NotHttp { host, source: error.into() };
    }
    for cause in causes(&error) {
        if let Some(dial) = cause.downcast_ref::<DialError>() {
            return of_dial(dial, host);
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(tls, host);
        }
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse_too_large) {
            return FetchError::TooLarge { host, most: head_bytes };
        }
    }
    if !error.is_connect() {
        return FetchError::Interrupted { host, source: error.into() };
    }
    let io = causes(&error).find_map(|cause| cause.downcast_ref::<io::Error>());
    let reason = match io.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused; nothing listens there".to_owned(),
        Some(io::ErrorKind::TimedOut) => "it did not answer in time".to_owned(),
        _ => match io {
            Some(io) => io.to_string(),
            None => crate::base::with_causes(&error),
        },
    };
    FetchError::Connect { host, reason }
}

fn of_dial(error: &DialError, host: String) -> FetchError {
    match error {
        DialError::Refused { reason } => FetchError::Refused { host, reason },
        DialError::Unknown(source) => {
            let source = source.as_ref().map(|source| io::Error::new(source.kind(), source.to_string()));
            let name = host.rsplit_once(':').map_or(&*host, |(name, _)| name).to_owned();
            FetchError::UnknownHost { host: name, source }
        }
        DialError::Slow(after) => FetchError::Timeout { host, phase: Phase::Connect, after: *after },
        DialError::Proxy { proxy, what } => FetchError::Proxy { proxy: proxy.clone(), host, reason: what.clone() },
    }
}

fn of_tls(error: &rustls::Error, host: String) -> FetchError {
    use rustls::{CertificateError, InvalidMessage};
    match error {
        rustls::Error::InvalidCertificate(error) => {
            let is_unknown = matches!(error, CertificateError::UnknownIssuer);
            FetchError::Certificate { host, reason: of_certificate(error), is_unknown }
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => FetchError::PlainHttp { host },
        other => FetchError::Tls { host, reason: other.to_string() },
    }
}

/// Why a certificate is not accepted, in words: most of the library's are names of its own.
fn of_certificate(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Error;
    let words = match error {
        Error::UnknownIssuer => "the authority that signed it is not known to this machine",
        Error::Expired | Error::ExpiredContext { .. } => "it has expired; renew it there",
        Error::NotValidYet | Error::NotValidYetContext { .. } => {
            "it is not valid yet; check the clocks of both machines"
        }
        Error::NotValidForName => "it is for other names; ask by one of them, or have it made for this one",
        Error::Revoked => "its authority has revoked it; replace it there",
        Error::BadSignature => "its signature is not that of the authority; make it again",
        Error::BadEncoding => "it cannot be read as a certificate; replace it there",
        Error::InvalidPurpose | Error::InvalidPurposeContext { .. } => {
            "it is not for servers; have one made for server authentication"
        }
        Error::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is the certificate of an authority, not of a server; install one that the authority signed"
        }
        Error::Other(other) => return other.0.to_string(),
        other => return other.to_string(),
    };
    words.to_owned()
}

/// Converts an error of the client library while an answer is read.
pub(super) fn of_body(error: hyper::Error, host: &str) -> FetchError {
    let host = host.to_owned();
    if error.is_parse() {
        FetchError::NotHttp { host, source: error.into() }
    } else {
        FetchError::Interrupted { host, source: error.into() }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => "connect",
            Self::Answer => "answer",
            Self::Body => "body",
            Self::Whole => "whole",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{CertificateError, OtherError};

    use super::*;

    #[test]
    fn a_certificate_is_refused_in_words() {
        let other = CertificateError::Other(OtherError(Arc::new(io::Error::other("CaUsedAsEndEntity"))));
        for (error, beginning, is_unknown) in [
            (CertificateError::Expired, "it has expired", false),
            (CertificateError::UnknownIssuer, "the authority that signed it is not known", true),
            (CertificateError::NotValidYet, "it is not valid yet", false),
            (CertificateError::NotValidForName, "it is for other names", false),
            (other, "it is the certificate of an authority", false),
        ] {
            match of_tls(&rustls::Error::InvalidCertificate(error), "host".to_owned()) {
                FetchError::Certificate { reason, is_unknown: found, .. } => {
                    assert!(reason.starts_with(beginning), "{reason}");
                    assert_eq!(found, is_unknown, "{reason}");
                }
                other => panic!("{other}"),
            }
        }
    }
}
