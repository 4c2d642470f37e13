//! `/health`, `/ready` and `/metrics` on their own address and thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::connections::Connection;
use super::listener::{Answers, Limits};
use super::metrics::ServedMetrics;
use super::settings::{Hosts, InFlightMax};
use super::{ListenError, Listener, access_control, unread};
use crate::auth::{Authenticator, Caller, Identity, Transport};
use crate::calls::{Calls, Operation, Outcome, Scope};
use crate::collection::Library;
use crate::mcp::ToolError;
use crate::snapshot::Snapshots;
use crate::task::{self, Drain, Pulse, Readiness};

/// Requests are answered at once, so this is only for clients that do not read.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes and scrapers are few.
const CONNECTIONS_MAX: usize = 256;

/// How long the threads that answer requests may be unresponsive. Searches leave one of them free, so a busy node
/// answers within milliseconds; anything longer is a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Damaged places that `/ready` names; `get_status` names them all.
const DAMAGE_SHOWN: usize = 10;

#[derive(Clone)]
struct Shared {
    authenticator: Authenticator,
    watched: Arc<OnceLock<Watched>>,
    readiness: Readiness,
    pulse: Pulse,
    metrics: ServedMetrics,
}

/// What readiness and metrics are about.
struct Watched {
    library: Arc<Library>,
    calls: Calls,
    snapshots: Arc<Snapshots>,
}

/// The admin listener.
pub struct Admin {
    address: SocketAddr,
    watched: Arc<OnceLock<Watched>>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Starts answering, before the node is ready.
    ///
    /// * `tls`: the certificate; `None` for plain HTTP.
    /// * `pulse`: of the runtime that answers requests.
    /// * `limits`: those of the other listener; this one accepts fewer connections.
    ///
    /// # Errors
    /// When the address cannot be bound.
    #[expect(clippy::too_many_arguments, reason = "what a listener is told, once")]
    pub fn start(
        listen: SocketAddr,
        authenticator: Authenticator,
        tls: Option<Arc<Identity>>,
        limits: Limits,
        allowed_hosts: Hosts,
        readiness: Readiness,
        pulse: Pulse,
        metrics: ServedMetrics,
        drain: Drain,
    ) -> Result<Self, ListenError> {
        let watched = Arc::new(OnceLock::new());
        let failed = |source| ListenError { address: listen, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = runtime.block_on(Listener::bind(listen))?;
        let address = listener.address();
        let access = access_control::AccessControl::new(
            authenticator.clone(),
            allowed_hosts,
            None,
            InFlightMax::new(usize::MAX),
            CONNECTIONS_MAX,
            metrics.requests.clone(),
        );
        let router = Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics_text))
            .fallback(not_found)
            .method_not_allowed_fallback(super::other_method)
            .layer(axum::middleware::from_fn_with_state(Arc::new(access), access_control::check_names))
            .with_state(Shared { authenticator, watched: Arc::clone(&watched), readiness, pulse, metrics });
        let thread = task::spawn_thread("admin", move || {
            let answers = AdminAnswers { router: TowerToHyperService::new(router) };
            let limits = Limits { connections_max: limits.connections_max.min(CONNECTIONS_MAX), ..limits };
            runtime.block_on(listener.answer(answers, tls, limits, drain, DRAIN_TIMEOUT));
        })
        .map_err(failed)?;
        Ok(Self { address, watched, thread })
    }

    /// Its address, with the actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What readiness and metrics are about, once it is open.
    pub fn watch(&self, library: Arc<Library>, snapshots: Arc<Snapshots>, calls: Calls) {
        // A restart has an admin listener of its own.
        let _ = self.watched.set(Watched { library, snapshots, calls });
    }

    /// Waits for the thread to end; the drain must have started.
    ///
    /// # Errors
    /// When the thread panicked.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().map_err(|_| io::Error::other("the admin thread panicked"))
    }
}

#[derive(Clone)]
struct AdminAnswers {
    router: TowerToHyperService<Router>,
}

impl Answers for AdminAnswers {
    fn answer(
        &self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Option<Response>> + Send + 'static {
        let router = self.router.clone();
        async move {
            // Nothing here has a body that would count.
            let (head, body) = request.into_parts();
            let is_empty = body.is_end_stream();
            let response = match router.call(Request::from_parts(head, Body::empty())).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Some(if is_empty { response } else { unread::close_connection(response, &connection) })
        }
    }
}

/// Whether a restart would help: a thread that the node cannot do without has ended, or none that answers requests does. It
/// says no more than that, for probes carry no token.
async fn health(State(shared): State<Shared>) -> Response {
    let failures = shared.readiness.failures();
    let silence = shared.pulse.silence();
    if let Some(name) = failures.keys().next() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("the thread {name} has ended\n")).into_response();
    }
    if silence > PATIENCE {
        let seconds = silence.as_secs();
        let text = format!("no thread has answered a request for {seconds} s\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    "ok\n".into_response()
}

async fn not_found() -> Response {
    let message =
        "not found; this listener has /health, /ready and /metrics, the other one has MCP and REST (server.listen)";
    super::error_response(&ToolError::not_found(message))
}

/// Probes have no token: they get the status. The reasons require one.
async fn ready(State(shared): State<Shared>, request: Request) -> Response {
    let watched = shared.watched.get();
    let problems = crate::mcp::problems(watched.map(|watched| &*watched.library), &shared.readiness);
    let reasons = &problems;
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match shared.authenticator.authenticate(access_control::authorization(request.headers())) {
        Ok(subject) => {
            let caller = Caller::new(subject, None, Transport::Http);
            let entered = watched.map(|watched| watched.calls.enter(Operation::OBSERVE, &caller, &Scope::Node));
            let Ok(permit) = entered.transpose() else { return status.into_response() };
            let access = watched.zip(permit.as_ref()).map(|(watched, permit)| watched.library.access(permit));
            let shown = match access {
                Some(access) => crate::mcp::shown_to(access, &problems),
                None => problems,
            };
            let mut detail = super::ready_json(&shown);
            // The node runs on with the settings that it has.
            let settings = shared.readiness.settings();
            detail["settings"] = serde_json::json!({"restart": settings.restart, "problems": settings.problems});
            // Reported here, but a node without a backup serves as well as one with it: taking it out of service would
            // add an outage to a risk. Monitoring of backups uses the metrics.
            if let (Some(watched), Some(access)) = (watched, access) {
                let health = watched.snapshots.health();
                detail["snapshots"] = serde_json::json!({
                    "state": health.standing,
                    "problem": health.problem,
                    "age_seconds": health.age_seconds,
                    "verified_age_seconds": health.verified_age_seconds,
                    "warnings": health.warnings,
                });
                // Damaged records affect only requests for them; everything else is served.
                let damage = watched.library.log().damage();
                detail["damage"] = damage.iter().take(DAMAGE_SHOWN).map(ToString::to_string).collect();
                // Nor is one without its GPU slow to answer for it: the CPU does.
                detail["gpu"] = crate::mcp::gpu_json(access);
            }
            if let Some(permit) = permit {
                permit.end(Outcome::Done);
            }
            super::json_response(status, detail.to_string())
        }
        Err(_) => status.into_response(),
    }
}

async fn metrics_text(State(shared): State<Shared>, request: Request) -> Response {
    if let Err(refusal) = shared.authenticator.authenticate(access_control::authorization(request.headers())) {
        return access_control::unauthorized(refusal);
    }
    if let Some(watched) = shared.watched.get() {
        shared.metrics.collections.observe(&watched.library);
        shared.metrics.snapshots.observe(&watched.snapshots);
    }
    match shared.metrics.registry.render() {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
