//! Why a request failed, in words that say which host, what failed and what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::BoxError;
use super::dial::DialError;
use crate::base::Fault;

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until the connection was made, TLS and proxy included.
    Connect,
    /// Until the answer began.
    Answer,
    /// Between two pieces of the answer.
    Body,
    /// All of it.
    Whole,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address is not one.
    #[error("'{url}' is not an http or https address: {reason}")]
    Url {
        /// As it was written.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings of the client cannot be used.
    #[error("{what}")]
    Setting {
        /// Which, and what was expected.
        what: String,
    },
    /// A file that the settings name cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        source: BoxError,
    },
    /// The rules about hosts do not allow it.
    #[error("{host} may not be reached: {reason}")]
    Refused {
        /// Which host.
        host: String,
        /// What the rule says.
        reason: &'static str,
    },
    /// The name leads nowhere.
    #[error(
        "no machine of the name {host} is known here; is it spelled right, and does the resolver of this machine work?"
    )]
    UnknownHost {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: Option<io::Error>,
    },
    /// No connection.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// To which host.
        host: String,
        /// The system's error.
        reason: String,
    },
    /// The proxy did not make the connection.
    #[error("the proxy {proxy} did not connect to {host}: {reason}")]
    Proxy {
        /// Which proxy.
        proxy: String,
        /// To which host.
        host: String,
        /// The underlying error.
        reason: String,
    },
    /// The host's certificate is not trusted.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Certificate {
        /// Whose.
        host: String,
        /// Why not.
        reason: String,
    },
    /// The host speaks HTTP without TLS.
    #[error("{host} speaks plain HTTP, not TLS: use http://")]
    PlainHttp {
        /// Which host.
        host: String,
    },
    /// TLS failed otherwise.
    #[error("no TLS with {host}: {reason}")]
    Tls {
        /// With which host.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// It took too long.
    #[error("{}", slow(.host, *.phase, *.after))]
    Timeout {
        /// Which host.
        host: String,
        /// What took too long.
        phase: Phase,
        /// How long was waited.
        after: Duration,
    },
    /// What answers is not HTTP.
    #[error("what answers at {host} does not speak HTTP")]
    NotHttp {
        /// Where.
        host: String,
        /// What came.
        source: BoxError,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {host} broke before the answer was complete")]
    Interrupted {
        /// To which host.
        host: String,
        /// What happened.
        source: BoxError,
    },
    /// The answer is larger than what is read.
    #[error("the answer of {host} is larger than {most} bytes")]
    TooLarge {
        /// Whose.
        host: String,
        /// The limit, of its head or of its body.
        most: u64,
    },
    /// It leads elsewhere, and that is not followed.
    #[error("{host} redirects to {target}: {reason}")]
    Redirect {
        /// Which host.
        host: String,
        /// Where to.
        target: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// The host failed too often, and is left alone for a while.
    #[error("{host} failed {failures} times in a row; it is asked again in {} seconds", .left.as_secs().max(1))]
    BreakerOpen {
        /// Which host.
        host: String,
        /// How often it failed.
        failures: u32,
        /// Until it is asked again.
        left: Duration,
    },
    /// The answer is not JSON, or not of the shape that was expected.
    #[error("{host} answered something other than the JSON that was expected")]
    Json {
        /// Which host.
        host: String,
        /// What is wrong with it.
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

    /// In one word, for metrics and logs.
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

    /// Whether the request did not reach the host, so that it can be sent again whatever it does.
    #[must_use]
    pub fn is_before_sending(&self) -> bool {
        match self {
            Self::UnknownHost { .. } | Self::Connect { .. } | Self::Proxy { .. } | Self::BreakerOpen { .. } => true,
            Self::Timeout { phase, .. } => *phase == Phase::Connect,
            _ => false,
        }
    }

    /// Whether it may go better in a moment.
    pub(super) fn is_passing(&self) -> bool {
        self.is_before_sending() || matches!(self, Self::Timeout { .. } | Self::Interrupted { .. })
    }
}

/// Every error below this one, itself first. What an I/O error wraps is not among its own sources.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), |error| below(*error))
}

/// What the client library says of a request, in words of our own.
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
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let reason = "the authority that signed it is not known to this machine".to_owned();
            FetchError::Certificate { host, reason }
        }
        rustls::Error::InvalidCertificate(reason) => FetchError::Certificate { host, reason: reason.to_string() },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => FetchError::PlainHttp { host },
        other => FetchError::Tls { host, reason: other.to_string() },
    }
}

/// What the client library says while an answer is read.
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
