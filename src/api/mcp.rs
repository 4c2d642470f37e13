//! `/mcp`: plain searches directly, everything else by the protocol library.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;

use crate::auth::Principal;
use crate::mcp::{NodeTools, Server, Wire};

/// A larger request is no plain search.
const DIRECT_BYTES_MAX: usize = 16 << 10;
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What answers at `/mcp`.
#[derive(Clone)]
pub(super) struct Endpoint {
    tools: Arc<NodeTools>,
    service: StreamableHttpService<Server, NeverSessionManager>,
}

impl Endpoint {
    pub(super) fn new(tools: Arc<NodeTools>, service: StreamableHttpService<Server, NeverSessionManager>) -> Self {
        Self { tools, service }
    }
}

pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    if !may_be_plain(&request) {
        return endpoint.service.handle(request).await.into_response();
    }
    let (head, body) = request.into_parts();
    // The length was announced and is small.
    let bytes = match axum::body::to_bytes(body, DIRECT_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return (axum::http::StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let principal = head.extensions.get().copied().unwrap_or(Principal::Local);
    if let Some(wire) = wire(&head.headers)
        && let Some(answered) = endpoint.tools.search_directly(wire, &bytes, principal).await
    {
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        return answered
            .map_or_else(|error| super::error_response(&error), |response| (json, response).into_response());
    }
    endpoint.service.handle(Request::from_parts(head, Body::from(bytes))).await.into_response()
}

fn may_be_plain(request: &Request) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let accepts = one(headers, &header::ACCEPT).is_some_and(|accept| {
        let named = |wanted: &str| accept.split(',').any(|kind| kind.trim() == wanted);
        named("application/json") && named("text/event-stream")
    });
    request.method() == Method::POST
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
