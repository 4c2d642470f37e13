//! The start of a TLS connection: the handshake, or a message for clients that use plain HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::OpenConnection;
use super::socket::Socket;
use crate::auth::Identity;
use crate::task::Drain;

/// The part of its time limit that a handshake gets while more than half of the connections are in use: clients that
/// stall make room for others.
const CROWDED: u32 = 10;
/// The first byte of every TLS connection: the record type of a handshake.
const HANDSHAKE: u8 = 0x16;
/// How much of a plain request is read before it is answered: its head, if that is not too long.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How much of it is read afterwards. A connection that is closed with unread bytes is reset, and the answer may be
/// lost with it.
const REST_BYTES_MAX: u64 = 1 << 20;
const PLAIN: &str = "this listener speaks TLS: use https:// in place of http://; its authority is at /authority.pem\n";

/// The time limit of the next handshake.
pub(super) fn patience(usual: Duration, is_crowded: bool) -> Duration {
    if is_crowded { usual / CROWDED } else { usual }
}

/// The connection with TLS on it; `None` when it is over.
pub(super) async fn shake(
    stream: TcpStream,
    identity: Arc<Identity>,
    patience: Duration,
    drain: &Drain,
    held: &OpenConnection,
) -> Option<TlsStream<Socket>> {
    let shaken = tokio::select! {
        biased;
        () = drain.ordered() => return None,
        shaken = tokio::time::timeout(patience, start_tls(stream, identity, held)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(?patience, "a handshake took too long");
            None
        }
    }
}

async fn start_tls(
    mut stream: TcpStream,
    identity: Arc<Identity>,
    held: &OpenConnection,
) -> io::Result<Option<TlsStream<Socket>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    match first[0] {
        HANDSHAKE => {}
        // A method.
        b'A'..=b'Z' => return answer_plain_http(&mut stream).await.map(|()| None),
        _ => return Ok(None),
    }
    let address = stream.local_addr()?.ip();
    let config = identity.config();
    if identity.is_refresh_due(address) {
        // It may read and write files.
        tokio::task::spawn_blocking(move || identity.refresh(address)).await.map_err(io::Error::other)?;
    }
    let socket = Socket::new(stream, Arc::clone(held.connection()));
    TlsAcceptor::from(config).accept(socket).await.map(Some)
}

/// Answers a plain request.
async fn answer_plain_http(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let length = PLAIN.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{PLAIN}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REST_BYTES_MAX), &mut tokio::io::sink()).await.map(drop)
}
