//! HTTP: MCP at `/mcp`, the tools and the sources as REST under `/v1`, and the admin listener.
//!
//! Invariants: a request is refused at once when too many are being answered; a body, a head and the time to send them are bounded,
//! and nothing of a body is waited for before its request was let in; requests from web pages of other origins are refused (DNS rebinding). The admin listener runs on its
//! own thread, so that health and metrics answer while everything else is busy.

mod access_control;
mod admin;
mod body;
mod connections;
mod cors;
mod handshake;
mod holding;
mod http_service;
mod listener;
mod metrics;
mod presence;
pub(crate) mod rest;
mod rpc;
mod settings;
mod socket;
mod stdio;
mod unread;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any_service, get};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::rest::{error_response, error_response_as};
use crate::auth::Authenticator;
use crate::mcp::{Catalog, NodeTools, Server, ToolError};
use crate::task::Drain;

pub use admin::Admin;
pub use body::BodyLimits;
pub use cors::{Origin, OriginError};
pub use http_service::HttpService;
pub use listener::{Limits, ListenError, Listener};
pub use metrics::{Metrics, ServedMetrics};
pub use settings::{AllowedHost, AllowedHostError, Hosts, InFlightMax, Service, Settings, Tls};
pub use stdio::{StdioError, answer_stdio};

/// The configuration of the MCP and REST listener.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its address.
    pub listen: SocketAddr,
    /// Whom it lets in.
    pub authenticator: Authenticator,
    /// The authority of its certificate, PEM; `None` if there is none to publish.
    pub authority: Option<String>,
    /// Names allowed in `Host` and `Origin` besides loopback ones.
    pub allowed_hosts: Hosts,
    /// Origins of pages that browsers let read the answers.
    pub cors_origins: Vec<Origin>,
    /// How request bodies are received.
    pub bodies: BodyLimits,
    /// Requests answered at once.
    pub in_flight_max: InFlightMax,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a stop waits for requests in flight.
    pub drain_timeout: Duration,
}

/// The state shared by the handlers.
#[derive(Clone)]
pub(crate) struct Shared {
    tools: Arc<NodeTools>,
    catalog: Catalog,
    jobs: Arc<rest::jobs::Jobs>,
    /// Ends what would wait for longer than a stop does.
    stopping: CancellationToken,
}

/// The service of the MCP and REST listener.
pub fn http_service(config: &Config, tools: Arc<NodeTools>, metrics: &Metrics, drain: &Drain) -> HttpService {
    let catalog = Catalog::new(Arc::clone(&tools) as _, Vec::new());
    let server = Server::new(catalog.clone());
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(NeverSessionManager::default()),
        mcp_config(config, drain),
    );
    let access = access_control::AccessControl::new(
        config.authenticator.clone(),
        config.allowed_hosts.clone(),
        cors::Cors::new(&config.cors_origins),
        config.in_flight_max.clone(),
        config.connections_max,
        metrics.clone(),
    );
    let authority: Option<Arc<str>> = config.authority.as_deref().map(Arc::from);
    let router = rest::routes(Router::new())
        .route("/", get(greeting))
        // Bodies arrive here complete, and within their limit.
        .layer(DefaultBodyLimit::disable())
        .route("/mcp", any_service(service).layer(axum::middleware::from_fn(presence::watch)))
        .route(http_service::AUTHORITY, get(move || hand_out(authority.clone())))
        .fallback(not_found)
        .method_not_allowed_fallback(other_method)
        .with_state(Shared { tools: Arc::clone(&tools), catalog, jobs: Arc::default(), stopping: drain.token() });
    HttpService::new(access, body::Bodies::new(config.bodies), tools, router)
}

fn mcp_config(config: &Config, drain: &Drain) -> rmcp::transport::streamable_http_server::StreamableHttpServerConfig {
    rmcp::transport::streamable_http_server::StreamableHttpServerConfig::default()
        // Sessions would keep state per client; nothing here needs any.
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(config.bodies.bytes_max)
        .with_cancellation_token(drain.token())
        // Host and Origin are checked once for all routes, by the access control.
        .disable_allowed_hosts()
        .disable_allowed_origins()
}

async fn greeting() -> &'static str {
    concat!(
        "Cairn ",
        env!("CARGO_PKG_VERSION"),
        "\nMCP: POST /mcp\nREST: /v1, described by GET /v1/openapi.json\nTools: POST /v1/tools/{name}\n"
    )
}

/// `GET /authority.pem`: the authority that clients have to trust. It is not proof of its own authenticity: compare its
/// fingerprint.
async fn hand_out(authority: Option<Arc<str>>) -> Response {
    match authority {
        Some(pem) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem.to_string()).into_response(),
        None => {
            let message = "this node does not use an authority of its own";
            error_response(&ToolError::not_found(message))
        }
    }
}

async fn other_method() -> Response {
    let message = "this address does not support the method; the header Allow lists those that it supports";
    error_response_as(&ToolError::bad_argument(message), StatusCode::METHOD_NOT_ALLOWED)
}

async fn not_found() -> Response {
    let message =
        "not found; MCP is at /mcp, the tools are at /v1/tools/{name}, and /v1/openapi.json describes all of /v1";
    error_response(&ToolError::not_found(message))
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}

/// The answer to a request that there is no room for.
fn busy_response() -> Response {
    error_response(&ToolError::overloaded())
}

fn ready_json(reasons: &BTreeMap<String, String>) -> Value {
    json!({"ready": reasons.is_empty(), "reasons": reasons})
}
