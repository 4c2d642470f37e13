//! The checks of every request: first its names (`Host` and `Origin`) and its authentication, and, once it was received
//! completely, the limit of requests in flight.
//!
//! Invariants: the first checks only use a request's head, so that nothing waits for a stranger's body; a place in
//! flight is held by a request that is being answered, never by one that is still arriving.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::cors::Cors;
use super::metrics::Metrics;
use super::settings::{Hosts, InFlightMax};
use crate::auth::{AuthError, Authenticator, LOCAL_NAME, Subject};
use crate::base::Fault;
use crate::mcp::{ErrorCode, ToolError};

/// The access control's settings and counters.
pub(super) struct AccessControl {
    authenticator: Authenticator,
    allowed_hosts: Hosts,
    cors: Option<Cors>,
    in_flight: AtomicUsize,
    listening: AtomicUsize,
    listening_max: usize,
    in_flight_max: InFlightMax,
    metrics: Metrics,
}

/// A place among the requests in flight, or among those that listen, until this is dropped.
pub(super) struct InFlight {
    access: Arc<AccessControl>,
    listens: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.listens {
            self.access.listening.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.access.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.access.metrics.requests_in_flight.dec();
        }
    }
}

/// Why a request was not let in.
pub(super) enum Refused {
    /// It does not say, or says twice, whom it is for.
    Nameless(&'static str),
    /// A page of another site may have made it.
    Foreign {
        header: &'static str,
        value: String,
    },
    Unknown(AuthError),
    Busy,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Nameless(message) => super::error_response(&ToolError::bad_argument(message)),
            Self::Foreign { header, value } => forbidden(header, &value),
            Self::Unknown(refusal) => unauthorized(refusal),
            Self::Busy => super::busy_response(),
        }
    }
}

impl AccessControl {
    /// * `connections_max`: half of the connections may listen for notifications at once.
    pub(super) fn new(
        authenticator: Authenticator,
        allowed_hosts: Hosts,
        cors: Option<Cors>,
        in_flight_max: InFlightMax,
        connections_max: usize,
        metrics: Metrics,
    ) -> Self {
        Self {
            authenticator,
            allowed_hosts,
            cors,
            in_flight: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            listening_max: (connections_max / 2).max(1),
            in_flight_max,
            metrics,
        }
    }

    /// What answers pages of other origins, where there are any.
    pub(super) fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    /// Who makes a request, when it may come in.
    pub(super) fn check(&self, head: &Parts) -> Result<Arc<Subject>, Refused> {
        self.check_names(head)?;
        self.authenticator.authenticate(authorization(&head.headers)).map_err(Refused::Unknown)
    }

    /// What authenticates the requests.
    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// A place for a request that has arrived.
    pub(super) fn in_flight(self: &Arc<Self>) -> Result<InFlight, Refused> {
        let max = self.in_flight_max.get();
        let one_more = |held: usize| (held < max).then_some(held + 1);
        if self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.metrics.requests_shed.inc();
            return Err(Refused::Busy);
        }
        self.metrics.requests_in_flight.inc();
        Ok(InFlight { access: Arc::clone(self), listens: false })
    }

    /// A place for a request that listens for notifications: it is open for hours and does almost nothing, so it uses
    /// none of the places of requests that are answered.
    pub(super) fn listening(self: &Arc<Self>) -> Result<InFlight, Refused> {
        let one_more = |held: usize| (held < self.listening_max).then_some(held + 1);
        if self.listening.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.metrics.requests_shed.inc();
            return Err(Refused::Busy);
        }
        Ok(InFlight { access: Arc::clone(self), listens: true })
    }

    /// Whether the request says once, and with a name that is allowed, whom it is for, and whether a page that made it may.
    pub(super) fn check_names(&self, head: &Parts) -> Result<(), Refused> {
        let foreign = |header, value: &str| Refused::Foreign { header, value: value.to_owned() };
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (_, Some(_)) => return Err(Refused::Nameless("the request has several Host headers, expected one")),
            (None, None) if head.version >= Version::HTTP_11 => {
                return Err(Refused::Nameless("the request has no Host header, which HTTP/1.1 asks for"));
            }
            (host, _) => host,
        };
        // If the request line names the host, the header must be ignored; both are checked against the allowed ones.
        let authority = head.uri.authority().map(Authority::as_str);
        let host = host.map(|host| host.to_str().unwrap_or("?"));
        for named in [host, authority].into_iter().flatten() {
            if !self.is_host_allowed(named) {
                return Err(foreign("Host", named));
            }
        }
        match head.headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("?")) {
            Some(origin) if !self.is_origin_allowed(origin, authority.or(host)) => Err(foreign("Origin", origin)),
            _ => Ok(()),
        }
    }

    /// A name that a page of another site cannot have made to point here: an address, `localhost`, a name below it, or one
    /// that the operator listed. (DNS rebinding needs a name of the attacker's.)
    fn is_host_allowed(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let is_local = |name: &str| host.eq_ignore_ascii_case(name);
        is_local("localhost")
            || host.parse::<IpAddr>().is_ok()
            || is_local(LOCAL_NAME)
            || self.is_listed(authority, host)
    }

    fn is_listed(&self, authority: &str, host: &str) -> bool {
        self.allowed_hosts.contain(authority, host)
    }

    /// A page may access the node when it comes from this machine, from the node itself, or from a listed name.
    fn is_origin_allowed(&self, origin: &str, own: Option<&str>) -> bool {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        let host = host_of(authority);
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            || own.is_some_and(|own| own.eq_ignore_ascii_case(authority))
            || self.cors.as_ref().is_some_and(|cors| cors.allows(origin))
            || self.is_listed(authority, host)
    }
}

/// `name:port`, `address:port`, `[v6]:port` without the port and brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// The check of names alone, for a listener that asks for more route by route.
pub(super) async fn check_names(State(access): State<Arc<AccessControl>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match access.check_names(&head) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refused) => refused.into_response(),
    }
}

/// The `Authorization` header, when there is one and it is text.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}

/// 401, with the way to do better.
pub(super) fn unauthorized(refusal: AuthError) -> Response {
    let error = ToolError::new(ErrorCode::Unauthorized, refusal.to_string(), Fault::Caller);
    let mut response = super::error_response(&error);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cairn\""));
    response
}

fn forbidden(header: &str, value: &str) -> Response {
    let message = format!(
        "requests with the {header} '{}' are refused; list the {}",
        value.chars().take(100).collect::<String>(),
        match header {
            "Origin" => "origin in server.cors_origins to let its pages read the answers",
            _ => "name in server.allowed_hosts to allow it",
        }
    );
    super::error_response(&ToolError::new(ErrorCode::Forbidden, message, Fault::Caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metrics that nobody reads.
    fn unread() -> Metrics {
        let registry = crate::telemetry::Registry::new();
        Metrics::register(&registry, &crate::mcp::Metrics::register(&registry))
    }

    fn access() -> AccessControl {
        AccessControl::new(
            Authenticator::open(),
            Hosts::new(vec!["docs.example".to_owned()]),
            None,
            InFlightMax::new(1),
            16,
            unread(),
        )
    }

    #[test]
    fn half_of_the_connections_may_listen() {
        let access = Arc::new(access());
        let held: Vec<_> = (0..9).map_while(|_| access.listening().ok()).collect();
        assert_eq!(held.len(), 8, "of 16 connections");
        drop(held);
        assert!(access.listening().is_ok());
    }

    #[test]
    fn only_names_that_cannot_be_rebound_are_hosts() {
        for host in ["localhost", "localhost:7171", "127.0.0.1:7171", "[::1]:7171", "10.1.2.3", "docs.example:443"] {
            assert!(access().is_host_allowed(host), "{host}");
        }
        for host in ["evil.example", "evil.example:7171", "localhost.evil.example", ""] {
            assert!(!access().is_host_allowed(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_no_origins() {
        let own = Some("10.1.2.3:7171");
        for origin in ["http://localhost:3000", "http://127.0.0.1", "http://10.1.2.3:7171", "https://docs.example"] {
            assert!(access().is_origin_allowed(origin, own), "{origin}");
        }
        for origin in ["http://evil.example", "null", "http://10.1.2.4:7171", "https://docs.example.evil"] {
            assert!(!access().is_origin_allowed(origin, own), "{origin}");
        }
    }
}
