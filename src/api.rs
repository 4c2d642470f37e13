//! HTTP: MCP at `/mcp`, the tools and the sources as REST under `/v1`, and the admin listener.
//!
//! Invariants: a request is refused at once when too many are being answered; a body, a head and the time to send them are bounded,
//! and nothing of a body is waited for before its request was let in; requests from web pages of other origins are refused (DNS rebinding). The admin listener runs on its
//! own thread, so that health and metrics answer while everything else is busy.

mod admin;
mod asked;
mod body;
mod connections;
mod front;
mod guard;
mod handshake;
mod holding;
mod listener;
mod presence;
mod rpc;
mod socket;
mod sources;
mod stdio;
mod unread;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any_service, get, post};
use axum::{Extension, Router};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use serde_json::{Value, json};

use self::asked::Named;
use crate::auth::{Authenticator, Caller};
use crate::base::Fault;
use crate::collection::Library;
use crate::mcp::{Arguments, Catalog, Context, ErrorCode, NodeTools, Server, Tool, ToolError};
use crate::task::{Drain, Readiness};
use crate::telemetry::Metrics;

pub use admin::Admin;
pub use body::BodyLimits;
pub use front::Front;
pub use listener::{Limits, ListenError, Listener};
pub(crate) use sources::outcome_json as source_outcome_json;
pub use stdio::{StdioError, answer_stdio};

/// What a refused client should wait, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// What the MCP and REST listener is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its address.
    pub listen: SocketAddr,
    /// Whom it lets in.
    pub authenticator: Authenticator,
    /// The authority of the certificate that it shows, PEM; `None` where there is none to hand out.
    pub authority: Option<String>,
    /// Names allowed in `Host` and `Origin` besides loopback ones.
    pub allowed_hosts: Vec<String>,
    /// How request bodies are received.
    pub bodies: BodyLimits,
    /// Requests answered at once.
    pub in_flight_max: usize,
    /// How long a stop waits for requests in flight.
    pub drain_timeout: Duration,
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    tools: Arc<NodeTools>,
    catalog: Catalog,
}

/// What answers at the MCP and REST listener.
pub fn front(config: &Config, tools: Arc<NodeTools>, metrics: &Metrics, drain: &Drain) -> Front {
    let catalog = Catalog::new(Arc::clone(&tools) as _, Vec::new());
    let server = Server::new(catalog.clone());
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(NeverSessionManager::default()),
        mcp_config(config, drain),
    );
    let guard = guard::Guard::new(
        config.authenticator.clone(),
        config.allowed_hosts.clone(),
        config.in_flight_max,
        metrics.clone(),
    );
    let authority: Option<Arc<str>> = config.authority.as_deref().map(Arc::from);
    let router = Router::new()
        .route("/", get(greeting))
        .route("/v1/tools/{tool}", post(call_tool))
        .route("/v1/flush", post(sources::flush))
        .route("/v1/compact", post(sources::compact))
        .route("/v1/snapshots/verify", post(sources::verify_snapshot))
        .route("/v1/snapshots/schedule", get(sources::snapshot_schedule))
        .route("/v1/snapshots/prune", post(sources::prune_snapshots))
        .route("/v1/collections/{collection}/sources", get(sources::list))
        .route("/v1/collections/{collection}/sources/{*source}", post(sources::sync).delete(sources::remove))
        .route("/v1/collections/{collection}/folders", get(sources::folders))
        .route("/v1/collections/{collection}/folders/{*prefix}", post(sources::note_folder))
        // Bodies come here whole, and within their limit.
        .layer(DefaultBodyLimit::disable())
        .route("/mcp", any_service(service).layer(axum::middleware::from_fn(presence::watch)))
        .route(front::AUTHORITY, get(move || hand_out(authority.clone())))
        .fallback(not_found)
        .method_not_allowed_fallback(other_method)
        .with_state(Shared { tools: Arc::clone(&tools), catalog });
    Front::new(guard, body::Bodies::new(config.bodies), tools, router)
}

fn mcp_config(config: &Config, drain: &Drain) -> rmcp::transport::streamable_http_server::StreamableHttpServerConfig {
    rmcp::transport::streamable_http_server::StreamableHttpServerConfig::default()
        // Sessions would keep state per client; nothing here needs any.
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(config.bodies.bytes_max)
        .with_cancellation_token(drain.token())
        // Host and Origin are checked once for all routes, by the guard.
        .disable_allowed_hosts()
        .disable_allowed_origins()
}

async fn greeting() -> &'static str {
    concat!("Cairn ", env!("CARGO_PKG_VERSION"), "\nMCP: POST /mcp\nTools: POST /v1/tools/{name}\n")
}

/// `GET /authority.pem`: what a client has to trust. It proves nothing by itself: compare its fingerprint.
async fn hand_out(authority: Option<Arc<str>>) -> Response {
    match authority {
        Some(pem) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem.to_string()).into_response(),
        None => {
            let message = "this node shows no certificate of an authority of its own";
            error_response(&ToolError::not_found(message))
        }
    }
}

async fn other_method() -> Response {
    let message = "this address is there and takes another method; the header Allow names it";
    let mut response = error_response(&ToolError::bad_argument(message));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

async fn not_found() -> Response {
    let message = "there is nothing here; MCP is at /mcp, the tools are at /v1/tools/{name}";
    error_response(&ToolError::not_found(message))
}

/// `POST /v1/tools/{tool}`: a tool's arguments in, its structured answer out.
async fn call_tool(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Named(name): Named<String>,
    arguments: Result<axum::Json<Arguments>, JsonRejection>,
) -> Response {
    if shared.catalog.definition(&name).is_none() {
        return error_response(&shared.catalog.unknown(&name, Context::of(&caller)).await);
    }
    let arguments = match arguments {
        Ok(axum::Json(arguments)) => arguments,
        Err(rejection) => {
            let mut response = error_response(&ToolError::bad_argument(unreadable(&rejection)));
            *response.status_mut() = match rejection {
                JsonRejection::JsonDataError(_) => StatusCode::BAD_REQUEST,
                _ => rejection.status(),
            };
            return response;
        }
    };
    let answered = if name == Tool::Search.name() {
        shared.tools.search_as_text(arguments, &caller).await
    } else {
        shared.catalog.call(&name, arguments, Context::of(&caller)).await.map(|answer| answer.text)
    };
    answered.map_or_else(|error| error_response(&error), |text| json_response(StatusCode::OK, text))
}

/// What is wrong with arguments that are none, in words of JSON.
fn unreadable(rejection: &JsonRejection) -> String {
    // The innermost one, without the path of JSON that leads there: of nested lists that is long and says little.
    let cause = || {
        let first = std::error::Error::source(rejection);
        let innermost = std::iter::successors(first, |error| error.source()).last();
        innermost.map_or_else(|| rejection.body_text(), ToString::to_string)
    };
    match rejection {
        JsonRejection::JsonDataError(_) => {
            "the body is JSON and no object; expected the arguments by their names, such as {\"query\": \"pump\"}"
                .to_owned()
        }
        JsonRejection::JsonSyntaxError(_) => format!("the body is not JSON: {}", cause()),
        JsonRejection::MissingJsonContentType(_) => {
            "the body has to be JSON, with the header `Content-Type: application/json`".to_owned()
        }
        _ => rejection.body_text(),
    }
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}

/// An error in the shape that tool errors have, with the status that fits whose fault it is.
fn error_response(error: &ToolError) -> Response {
    let status = match (error.code, error.fault) {
        (ErrorCode::NotFound, _) => StatusCode::NOT_FOUND,
        (ErrorCode::Conflict, _) => StatusCode::CONFLICT,
        (ErrorCode::Unauthorized, _) => StatusCode::UNAUTHORIZED,
        (ErrorCode::Forbidden, _) => StatusCode::FORBIDDEN,
        // Its own limit, not the node's.
        (ErrorCode::Overloaded, Fault::Caller) => StatusCode::TOO_MANY_REQUESTS,
        (ErrorCode::ReadOnly | ErrorCode::Overloaded, _) | (_, Fault::Environment) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Fault::Caller) => StatusCode::BAD_REQUEST,
        (_, Fault::Damage) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let response = json_response(status, error.to_json().to_string());
    if error.code == ErrorCode::Overloaded { later(response) } else { response }
}

fn later(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

/// The answer to a request that there is no room for. It is written once: it is given most when there is least time for it.
fn busy_response() -> Response {
    static BODY: LazyLock<Bytes> = LazyLock::new(|| ToolError::overloaded().to_json().to_string().into());
    later(json_response(StatusCode::SERVICE_UNAVAILABLE, BODY.clone()))
}

/// Why the node is not ready, as `/ready` shows it; empty when it is.
pub(crate) fn not_ready(library: Option<&Library>, readiness: &Readiness) -> serde_json::Map<String, Value> {
    let problems = crate::mcp::problems(library, readiness);
    problems.into_iter().map(|(name, reason)| (name, reason.into())).collect()
}

fn ready_json(reasons: &serde_json::Map<String, Value>) -> Value {
    json!({"ready": reasons.is_empty(), "reasons": reasons})
}
