//! Accepting connections: bounded in number, patient with slow clients for a while only, drained on a stop. With TLS or
//! without.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;

use super::handshake;
use crate::auth::Identity;
use crate::base::Fault;
use crate::task::{self, Drain};

/// Connections held at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections that the kernel keeps until they are accepted. The usual 128 are a burst; who finds them taken waits a second.
const WAITING_MAX: u32 = 4_096;
/// How long a client may take to send a request's head. Idle connections are closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long to wait after `accept` failed (no file descriptors, usually) before trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A node that starts again takes the port that it had, though old connections linger.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(WAITING_MAX)
        };
        let listener = listen().map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the drain starts, then waits for the requests in flight, at most `drain_timeout`.
    ///
    /// * `service`: what answers requests.
    /// * `tls`: what is shown to clients; `None` speaks plain HTTP.
    pub async fn serve<S>(self, service: S, tls: Option<Arc<Identity>>, drain: Drain, drain_timeout: Duration)
    where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut http = Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        loop {
            let permit = tokio::select! {
                biased;
                () = drain.ordered() => break,
                permit = Arc::clone(&connections).acquire_owned() => permit.expect("the semaphore is never closed"),
            };
            let accepted = tokio::select! {
                biased;
                () = drain.ordered() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Without it every streamed answer waits 40 ms for an acknowledgement (Nagle with delayed ACK).
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let (http, service, watcher) = (http.clone(), service.clone(), graceful.watcher());
            // Each ends with its connection, which the graceful shutdown waits for.
            match &tls {
                None => drop(task::spawn("connection", async move {
                    answer(TokioIo::new(stream), http, service, watcher).await;
                    drop(permit);
                })),
                Some(identity) => {
                    let (identity, drain) = (Arc::clone(identity), drain.clone());
                    let patience = handshake::patience(connections.available_permits(), CONNECTIONS_MAX);
                    // Accepting goes on meanwhile: nobody waits for somebody else's handshake.
                    drop(task::spawn("connection", async move {
                        if let Some(stream) = handshake::shake(stream, identity, patience, &drain).await {
                            answer(TokioIo::new(stream), http, service, watcher).await;
                        }
                        drop(permit);
                    }));
                }
            }
        }
        drop(self.listener);
        if tokio::time::timeout(drain_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still being answered at the deadline; they are cut off");
        }
    }
}

/// Answers the requests of a connection until it ends.
async fn answer<T, S>(stream: T, http: Builder, service: S, watcher: Watcher)
where
    T: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    let connection = watcher.watch(http.serve_connection(stream, service));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended badly");
    }
}
