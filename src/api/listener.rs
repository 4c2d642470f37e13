//! Accepts connections: bounded in number and by open files, with time limits for slow clients, drained on shutdown.
//! With or without TLS.
//!
//! Invariants: a silent client never excludes others: when places run out its connection is closed (see
//! [`super::connections`]). Descriptors are always left for the store.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::connections::{Connection, Connections, OpenConnection};
use super::handshake;
use super::holding::holding;
use super::http_service::HttpService;
use super::socket::Socket;
use crate::auth::Identity;
use crate::base::Fault;
use crate::task::{self, Drain};

/// Connections that the kernel queues until they are accepted. The usual 128 are a burst; further clients wait a
/// second.
const WAITING_MAX: u32 = 4_096;
/// Largest head of a request. Heads are read before authentication.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How long to wait after `accept` failed (no file descriptors, usually) before trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the log says that there is no room.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// The limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once, at least 1.
    pub connections_max: usize,
    /// One past the highest descriptor that a connection may have. The kernel assigns the lowest free one, so all other
    /// open files count too.
    pub descriptors_max: u64,
    /// Time limit for a request's head. Idle connections are closed after it too.
    pub head_timeout: Duration,
    /// Time limit of a handshake; a tenth of it while more than half of the connections are in use.
    pub handshake_timeout: Duration,
}

/// The service that answers the requests of a listener's connections.
pub(super) trait Answers: Clone + Send + Sync + 'static {
    /// The answer; `None` when the connection was given up before the request was received.
    fn answer(
        &self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Option<Response>> + Send + 'static;
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", hint(.source))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program, perhaps another Cairn, uses it; choose another with --listen or --admin"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need privileges; choose a higher one",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => "",
    }
}

impl ListenError {
    /// Always the machine's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Environment
    }
}

/// A bound address.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`; port 0 means any free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restarted node reuses its port, even if old connections linger.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(WAITING_MAX)
        };
        let listener = listen().map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address, with the actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves MCP and REST until the drain starts, then waits for the requests in flight, at most `drain_timeout`.
    ///
    /// * `tls`: what is shown to clients; `None` speaks plain HTTP.
    pub async fn serve(
        self,
        front: HttpService,
        tls: Option<Arc<Identity>>,
        limits: Limits,
        drain: Drain,
        drain_timeout: Duration,
    ) {
        self.answer(front, tls, limits, drain, drain_timeout).await;
    }

    /// Serves until the drain starts, then waits for the requests in flight, at most `drain_timeout`.
    ///
    /// * `answers`: what answers requests.
    /// * `tls`: what is shown to clients; `None` speaks plain HTTP.
    pub(super) async fn answer(
        self,
        answers: impl Answers,
        tls: Option<Arc<Identity>>,
        limits: Limits,
        drain: Drain,
        drain_timeout: Duration,
    ) {
        let graceful = GracefulShutdown::new();
        let connections = Connections::new(limits.connections_max);
        let mut http = Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_header_size(HEAD_BYTES_MAX);
        let mut crowd = Crowd::default();
        loop {
            let held = tokio::select! {
                biased;
                () = drain.ordered() => break,
                accepted = self.accept(&connections, limits.descriptors_max, &mut crowd) => accepted,
            };
            let Some((stream, held)) = held else { continue };
            let connection = Arc::clone(held.connection());
            let (http, answers, watcher) = (http.clone(), answers.clone(), graceful.watcher());
            // Each ends with its connection, which the graceful shutdown waits for.
            let task = match &tls {
                None => task::spawn("connection", async move {
                    let socket = Socket::new(stream, Arc::clone(held.connection()));
                    answer(TokioIo::new(socket), http, answers, watcher, &held).await;
                }),
                Some(identity) => {
                    let (identity, drain) = (Arc::clone(identity), drain.clone());
                    let patience = handshake::patience(limits.handshake_timeout, connections.is_crowded());
                    // Accepting continues meanwhile: no client waits for another one's handshake.
                    task::spawn("connection", async move {
                        if let Some(stream) = handshake::shake(stream, identity, patience, &drain, &held).await {
                            answer(TokioIo::new(stream), http, answers, watcher, &held).await;
                        }
                    })
                }
            };
            connection.runs_in(task.abort_handle());
        }
        drop(self.listener);
        if tokio::time::timeout(drain_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still being answered at the deadline; they are cut off");
        }
    }

    /// The next connection, and its place among the others; `None` when there was none to be had.
    async fn accept(
        &self,
        connections: &Arc<Connections>,
        descriptors_max: u64,
        crowd: &mut Crowd,
    ) -> Option<(TcpStream, OpenConnection)> {
        let (stream, peer) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if is_out_of_descriptors(&error) {
                    connections.make_room();
                    crowd.warn("no file may be opened for another connection");
                } else {
                    tracing::debug!(%error, "a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return None;
            }
        };
        if u64::try_from(stream.as_raw_fd()).is_ok_and(|descriptor| descriptor >= descriptors_max) {
            crowd.warn("only as many files may still be opened as the store is to have");
            // If others are closed this one may stay: it only exceeds the limit for a moment.
            if connections.make_room() == 0 {
                drop(stream);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return None;
            }
        }
        // Without it every streamed answer waits 40 ms for an acknowledgement (Nagle with delayed ACK).
        stream.set_nodelay(true).ok()?;
        Some((stream, connections.register(peer.ip()).await))
    }
}

/// Whether a call failed because this process, or the machine, may open no more files.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].into_iter().any(|errno| code == Some(errno.raw_os_error()))
}

/// Says that there is no room, now and then.
#[derive(Default)]
struct Crowd {
    last_warning: Option<Instant>,
}

impl Crowd {
    fn warn(&mut self, reason: &str) {
        if self.last_warning.is_none_or(|last_warning| last_warning.elapsed() >= WARN_INTERVAL) {
            self.last_warning = Some(Instant::now());
            tracing::warn!(
                reason,
                "connections that wait for their clients are closed to make room; a greater limit of open files (LimitNOFILE, \
                 ulimit -n) gives more"
            );
        }
    }
}

/// Answers the requests of a connection until it ends.
async fn answer<T>(stream: T, http: Builder, answers: impl Answers, watcher: Watcher, held: &OpenConnection)
where
    T: Read + Write + Unpin + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let connection = Arc::clone(held.connection());
        let answers = answers.clone();
        async move {
            // A connection that is given up ends within a moment, and answers nothing more.
            let answered = match connection.start_receiving() {
                true => answers.answer(request, Arc::clone(&connection)).await,
                false => None,
            };
            match answered {
                Some(response) => Ok::<_, Infallible>(followed(response, connection)),
                None => pending().await,
            }
        }
    });
    let connection = watcher.watch(http.serve_connection(stream, service));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection failed");
    }
}

/// Sees to it that the connection waits for its client again when the response is all made.
fn followed(response: Response, connection: Arc<Connection>) -> Response {
    holding(response, Waits(connection))
}

struct Waits(Arc<Connection>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.start_waiting();
    }
}
