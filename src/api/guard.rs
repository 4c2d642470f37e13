//! What every request passes first: the check of `Host` and `Origin`, the door, and the limit of requests in flight.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::auth::{Door, LOCAL_NAME, Principal, Refusal};
use crate::base::Fault;
use crate::mcp::ToolError;
use crate::telemetry::Metrics;

/// The guard's settings and counters.
pub(super) struct Guard {
    door: Door,
    allowed_hosts: Vec<String>,
    in_flight: Semaphore,
    metrics: Metrics,
}

/// A request that was let in; it counts as one in flight until this is dropped.
pub(super) struct Entry<'a> {
    pub(super) principal: Principal,
    guard: &'a Guard,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.guard.metrics.requests_in_flight.dec();
    }
}

/// Why a request was not let in.
pub(super) enum Refused {
    /// A page of another site may have made it.
    Foreign {
        header: &'static str,
        value: String,
    },
    Unknown(Refusal),
    Busy,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Foreign { header, value } => forbidden(header, &value),
            Self::Unknown(refusal) => unauthorized(refusal),
            Self::Busy => super::busy_response(),
        }
    }
}

impl Guard {
    pub(super) fn new(door: Door, allowed_hosts: Vec<String>, in_flight_max: usize, metrics: Metrics) -> Self {
        Self { door, allowed_hosts, in_flight: Semaphore::new(in_flight_max), metrics }
    }

    /// Lets a request in.
    pub(super) fn enter<B>(&self, request: &Request<B>) -> Result<Entry<'_>, Refused> {
        self.check_names(request)?;
        let principal = self.door.admit(authorization(request)).map_err(Refused::Unknown)?;
        let Ok(permit) = self.in_flight.try_acquire() else {
            self.metrics.requests_shed.inc();
            return Err(Refused::Busy);
        };
        self.metrics.requests_in_flight.inc();
        Ok(Entry { principal, guard: self, _permit: permit })
    }

    fn check_names<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        let text = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
        let foreign = |header, value: &str| Refused::Foreign { header, value: value.to_owned() };
        let host = text(header::HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        match (host, text(header::ORIGIN)) {
            (Some(host), _) if !self.is_host_allowed(host) => Err(foreign("Host", host)),
            (_, Some(origin)) if !self.is_origin_allowed(origin, host) => Err(foreign("Origin", origin)),
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
        self.allowed_hosts.iter().any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(authority))
    }

    /// A page may talk to the node when it comes from this machine, from the node itself, or from a listed name.
    fn is_origin_allowed(&self, origin: &str, own: Option<&str>) -> bool {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        let host = host_of(authority);
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            || own.is_some_and(|own| own.eq_ignore_ascii_case(authority))
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

/// Lets a request through, or says why not.
pub(super) async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let entry = match guard.enter(&request) {
        Ok(entry) => entry,
        Err(refused) => return refused.into_response(),
    };
    // Whoever answers the request finds there who made it.
    request.extensions_mut().insert(entry.principal);
    next.run(request).await
}

/// The check of `Host` and `Origin` alone, for a listener that asks for more route by route.
pub(super) async fn check_host(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check_names(&request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// The `Authorization` header, when there is one and it is text.
pub(super) fn authorization<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}

/// 401, with the way to do better.
pub(super) fn unauthorized(refusal: Refusal) -> Response {
    let error = ToolError { code: "unauthorized", message: refusal.to_string(), fault: Fault::Caller };
    let mut response = super::error_response(&error);
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cairn\""));
    response
}

fn forbidden(header: &str, value: &str) -> Response {
    let message = format!(
        "requests with the {header} '{}' are refused; list the name in server.allowed_hosts to allow it",
        value.chars().take(100).collect::<String>()
    );
    let mut response = super::error_response(&ToolError { code: "forbidden", message, fault: Fault::Caller });
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(Door::open(), vec!["docs.example".to_owned()], 1, Metrics::new())
    }

    #[test]
    fn only_names_that_cannot_be_rebound_are_hosts() {
        for host in ["localhost", "localhost:7171", "127.0.0.1:7171", "[::1]:7171", "10.1.2.3", "docs.example:443"] {
            assert!(guard().is_host_allowed(host), "{host}");
        }
        for host in ["evil.example", "evil.example:7171", "localhost.evil.example", ""] {
            assert!(!guard().is_host_allowed(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_no_origins() {
        let own = Some("10.1.2.3:7171");
        for origin in ["http://localhost:3000", "http://127.0.0.1", "http://10.1.2.3:7171", "https://docs.example"] {
            assert!(guard().is_origin_allowed(origin, own), "{origin}");
        }
        for origin in ["http://evil.example", "null", "http://10.1.2.4:7171", "https://docs.example.evil"] {
            assert!(!guard().is_origin_allowed(origin, own), "{origin}");
        }
    }
}
