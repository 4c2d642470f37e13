//! `/health`, `/ready` and `/metrics` on their own address and thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use super::{ListenError, Listener, guard};
use crate::auth::Door;
use crate::collection::Library;
use crate::task::{self, Drain, Readiness};
use crate::telemetry::{CollectionLabels, Metrics};

/// Requests are answered at once, so this is only for clients that do not read.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Shared {
    door: Door,
    library: Arc<OnceLock<Arc<Library>>>,
    readiness: Readiness,
    metrics: Metrics,
}

/// The admin listener.
pub struct Admin {
    address: SocketAddr,
    library: Arc<OnceLock<Arc<Library>>>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Starts answering, before there is anything to be ready.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(
        listen: SocketAddr,
        door: Door,
        allowed_hosts: Vec<String>,
        readiness: Readiness,
        metrics: Metrics,
        drain: Drain,
    ) -> Result<Self, ListenError> {
        let library = Arc::new(OnceLock::new());
        let failed = |source| ListenError { address: listen, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = runtime.block_on(Listener::bind(listen))?;
        let address = listener.address();
        let guard = guard::Guard::new(door.clone(), allowed_hosts, Semaphore::MAX_PERMITS, metrics.clone());
        let router = Router::new()
            .route("/health", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics_text))
            .layer(axum::middleware::from_fn_with_state(Arc::new(guard), guard::check_host))
            .with_state(Shared { door, library: Arc::clone(&library), readiness, metrics });
        let thread = task::spawn_thread("admin", move || {
            runtime.block_on(listener.serve(router, drain, DRAIN_TIMEOUT));
        })
        .map_err(failed)?;
        Ok(Self { address, library, thread })
    }

    /// Its address, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What readiness and metrics are about, once it is open.
    pub fn watch(&self, library: Arc<Library>) {
        // A second library is never opened.
        let _ = self.library.set(library);
    }

    /// Waits for the thread to end; the drain must have started.
    ///
    /// # Errors
    /// When the thread panicked.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().map_err(|_| io::Error::other("the admin thread panicked"))
    }
}

/// Probes carry no token: they get the status. The reasons are for those who may know.
async fn ready(State(shared): State<Shared>, request: Request) -> Response {
    let reasons = super::not_ready(shared.library.get().map(Arc::as_ref), &shared.readiness);
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match shared.door.admit(guard::authorization(&request)) {
        Ok(_) => super::json_response(status, super::ready_json(&reasons).to_string()),
        Err(_) => status.into_response(),
    }
}

async fn metrics_text(State(shared): State<Shared>, request: Request) -> Response {
    if let Err(refusal) = shared.door.admit(guard::authorization(&request)) {
        return guard::unauthorized(refusal);
    }
    if let Some(library) = shared.library.get() {
        observe(library, &shared.metrics);
    }
    match shared.metrics.render() {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Sizes are read when somebody asks for them.
fn observe(library: &Library, metrics: &Metrics) {
    use crate::collection::WriterState;
    let reader = library.reader();
    metrics.log_lsn.set(reader.last().0 as f64);
    metrics.log_bytes.set(reader.log_bytes() as f64);
    metrics.read_only.set(i64::from(!matches!(reader.state(), WriterState::Writable)));
    metrics.documents.clear();
    metrics.passages.clear();
    metrics.passages_unlinked.clear();
    for info in library.collections() {
        let labels = CollectionLabels { collection: info.name.clone() };
        metrics.documents.get_or_create(&labels).set(info.documents.cast_signed());
        metrics.passages.get_or_create(&labels).set(info.chunks.cast_signed());
        if let Some(searcher) = library.searcher(&info) {
            metrics.passages_unlinked.get_or_create(&labels).set(searcher.unlinked() as i64);
        }
    }
}
