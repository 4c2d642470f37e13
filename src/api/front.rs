//! Where the requests of a connection arrive: plain searches are answered here, everything else by the router.
//!
//! Invariants: what is asked of a request here is asked by the router's guard too, and in the same words; a client that sends
//! its body slowly holds a connection and nothing else.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::guard::Guard;
use crate::mcp::{NodeTools, Wire};
use crate::task::Busy;

/// A larger request is no plain search.
const DIRECT_BYTES_MAX: usize = 16 << 10;
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// What answers the connections of the MCP and REST listener.
#[derive(Clone)]
pub struct Front {
    plain: Arc<Plain>,
    router: TowerToHyperService<Router>,
}

/// What a plain search needs.
struct Plain {
    guard: Arc<Guard>,
    tools: Arc<NodeTools>,
}

impl Front {
    pub(super) fn new(guard: Arc<Guard>, tools: Arc<NodeTools>, router: Router) -> Self {
        Self { plain: Arc::new(Plain { guard, tools }), router: TowerToHyperService::new(router) }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        if !may_be_plain(&request) {
            return Box::pin(self.router.call(request.map(Body::new)));
        }
        let front = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // The length was announced and is small.
            let bytes = match axum::body::to_bytes(Body::new(body), DIRECT_BYTES_MAX).await {
                Ok(bytes) => bytes,
                Err(error) => return Ok((StatusCode::BAD_REQUEST, error.to_string()).into_response()),
            };
            let request = Request::from_parts(head, bytes);
            match front.plain.answer(&request).await {
                Some(response) => Ok(response),
                None => front.router.call(request.map(Body::from)).await,
            }
        })
    }
}

impl Plain {
    /// The answer to a plain search; `None` when it is none.
    async fn answer(&self, request: &Request<Bytes>) -> Option<Response> {
        let wire = wire(request.headers())?;
        let entry = match self.guard.enter(request) {
            Ok(entry) => entry,
            Err(refused) => return Some(refused.into_response()),
        };
        Some(match self.tools.search_directly(wire, request.body(), entry.principal).await? {
            Ok(answer) => super::json_response(StatusCode::OK, answer),
            Err(Busy) => super::busy_response(),
        })
    }
}

fn may_be_plain(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let accepts = one(headers, &header::ACCEPT).is_some_and(|accept| {
        let named = |wanted: &str| accept.split(',').any(|kind| kind.trim() == wanted);
        named("application/json") && named("text/event-stream")
    });
    request.uri().path() == "/mcp"
        && request.method() == Method::POST
        && length.is_some_and(|length| length <= DIRECT_BYTES_MAX)
        && one(headers, &header::CONTENT_TYPE) == Some("application/json")
        && accepts
}

/// The protocol's headers; `None` when one is repeated, not text, or of a kind that has to be checked.
fn wire(headers: &HeaderMap) -> Option<Wire<'_>> {
    let known = |name: &HeaderName| !headers.contains_key(name) || one(headers, name).is_some();
    let checked_elsewhere =
        headers.keys().any(|name| name.as_str().starts_with("mcp-param-") || name.as_str() == "mcp-session-id");
    if checked_elsewhere || !known(&METHOD) || !known(&NAME) {
        return None;
    }
    Some(Wire { version: one(headers, &VERSION)?, method: one(headers, &METHOD), name: one(headers, &NAME) })
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
