//! Pages of other origins (CORS, the Fetch standard): which of them browsers let read the answers.
//!
//! Invariants: without origins in the settings nothing here runs. An origin is compared as a whole, and there is no wildcard: a node on
//! loopback asks for no token, so any page in its user's browser could read every document.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Request, header};
use axum::response::Response;
use serde::Deserialize;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_layer::Layer as _;
use tower_service::Service;

/// How long a browser may keep the answer to a preflight request; browsers keep it for two hours at most.
const MAX_AGE: Duration = Duration::from_secs(3_600);
/// What a page may ask with.
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Response headers that a page may read, besides those that the standard allows.
const EXPOSED: [HeaderName; 5] = [
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("mcp-protocol-version"),
];

/// An origin, `SCHEME://HOST` or `SCHEME://HOST:PORT`, as browsers send it: in lower case, without the scheme's own port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(String);

/// A text that no browser sends as an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It has a wildcard.
    #[error("found '{0}', expected origins such as https://app.example: list each one, there is no wildcard")]
    Wildcard(String),
    /// It is not an origin.
    #[error("found '{0}', expected an origin such as https://app.example or http://localhost:3000, without a path")]
    NotOne(String),
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        if text.contains('*') {
            return Err(OriginError::Wildcard(text));
        }
        let parsed = text.parse::<axum::http::Uri>().ok().filter(|uri| uri.path() == "/" && uri.query().is_none());
        let authority = parsed.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
        let Some((scheme, authority)) = authority.filter(|_| !text.ends_with(['/', '#']) && !text.contains('@')) else {
            return Err(OriginError::NotOne(text));
        };
        let own_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let authority = authority.as_str();
        let authority = authority.strip_suffix(own_port).unwrap_or(authority);
        Ok(Self(format!("{scheme}://{authority}").to_ascii_lowercase()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Pages of which origins may read the answers.
#[derive(Clone)]
pub(super) struct Cors {
    layer: CorsLayer,
    origins: Vec<Origin>,
}

impl Cors {
    /// `None` where there are no such origins.
    pub(super) fn new(origins: &[Origin]) -> Option<Self> {
        if origins.is_empty() {
            return None;
        }
        let values = origins.iter().filter_map(|origin| HeaderValue::from_str(&origin.0).ok());
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::list(values))
            .allow_methods(METHODS)
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .allow_private_network(true)
            .max_age(MAX_AGE);
        Some(Self { layer, origins: origins.to_vec() })
    }

    /// Whether pages of an origin may read the answers.
    pub(super) fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.0 == origin)
    }

    /// What is needed of a request to answer it for a page; `None` where no page asks.
    pub(super) fn asks<B>(&self, request: &Request<B>) -> Option<Request<()>> {
        if !request.headers().contains_key(header::ORIGIN) {
            return None;
        }
        let mut asks = Request::new(());
        request.method().clone_into(asks.method_mut());
        request.headers().clone_into(asks.headers_mut());
        Some(asks)
    }

    /// The response with the headers by which a browser decides.
    ///
    /// * `response`: an empty one where the page asks what it may before its request (preflight).
    pub(super) async fn dressed(&self, asks: Request<()>, response: Response) -> Response {
        match self.layer.layer(Answered(Some(response))).call(asks).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Whether a page asks what it may, before it sends its request.
pub(super) fn is_preflight(asks: &Request<()>) -> bool {
    asks.method() == Method::OPTIONS && asks.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// A service whose answer is there already.
struct Answered(Option<Response>);

impl Service<Request<()>> for Answered {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(self.0.take().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        for (text, origin) in [
            ("https://App.example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("vscode-webview://abc", "vscode-webview://abc"),
        ] {
            assert_eq!(Origin::try_from(text.to_owned()).map(|origin| origin.0).as_deref(), Ok(origin));
        }
        for text in
            ["", "*", "app.example", "https://app.example/", "https://app.example/x", "https://*.example", "null"]
        {
            assert!(Origin::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
