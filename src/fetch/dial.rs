//! Connections: from a URL to a stream of bytes, applying the rules about hosts, proxies and TLS.
//!
//! Invariant: a name is resolved once for a connection, and only addresses that [`Reach`] allows are connected to.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{BoxError, Proxy, Reach};

/// Maximum addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// The future addresses of a host.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Resolves names to addresses.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a host; an error, or none, if the name is unknown.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The machine's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SystemNames;

impl Resolve for SystemNames {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect()) })
    }
}

/// One address for every name: for a host whose certificate has a name that the machine cannot resolve.
#[derive(Debug, Clone, Copy)]
pub struct OneAddress(pub IpAddr);

impl Resolve for OneAddress {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(std::future::ready(Ok(vec![self.0])))
    }
}

/// Why no connection was made, in addition to errors of the system and of TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{reason}")]
    Refused { reason: &'static str },
    #[error("the name is unknown")]
    Unknown(#[source] Option<io::Error>),
    #[error("no connection within {} seconds", .0.as_secs_f32())]
    Slow(Duration),
    #[error("{what}")]
    Proxy { proxy: String, what: String },
}

/// Resolves names for the connector below, and drops addresses that are not allowed.
#[derive(Clone)]
struct Resolver {
    names: Arc<dyn Resolve>,
    reach: Arc<Reach>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { names, reach } = self.clone();
        Box::pin(async move {
            let mut found = names.resolve(name.as_str()).await.map_err(|error| DialError::Unknown(Some(error)))?;
            if found.is_empty() {
                return Err(DialError::Unknown(None));
            }
            let mut refused = None;
            found.retain(|address| match reach.check_address(name.as_str(), *address) {
                Ok(()) => true,
                Err(reason) => {
                    refused = Some(reason);
                    false
                }
            });
            match refused {
                Some(reason) if found.is_empty() => Err(DialError::Refused { reason }),
                _ => {
                    found.truncate(ADDRESSES_MAX);
                    let addresses: Vec<SocketAddr> = found.into_iter().map(|address| (address, 0).into()).collect();
                    Ok(addresses.into_iter())
                }
            }
        })
    }
}

/// Makes TCP connections, directly or through a proxy.
#[derive(Clone)]
pub(super) struct Dial {
    direct: HttpConnector<Resolver>,
    to_proxy: HttpConnector<Resolver>,
    proxy: Proxy,
    reach: Arc<Reach>,
}

impl Service<Uri> for Dial {
    type Response = Wire;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Self { mut direct, mut to_proxy, proxy, reach } = self.clone();
        Box::pin(async move {
            let proxy = proxy.of(&target);
            let host = target.host().unwrap_or_default();
            reach.check_host(host, proxy.is_some()).map_err(|reason| DialError::Refused { reason })?;
            let Some(proxy) = proxy else {
                return Ok(Wire { stream: direct.call(target).await?, is_proxied: false });
            };
            let shown = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
            let failed = |what: String| DialError::Proxy { proxy: shown.clone(), what };
            if proxy.uri().scheme_str() != Some("http") {
                let scheme = proxy.uri().scheme_str().unwrap_or_default();
                return Err(failed(format!("it is a proxy for {scheme}, and only http is supported")).into());
            }
            if target.scheme_str() != Some("https") {
                let stream = to_proxy.call(proxy.uri().clone()).await.map_err(|error| failed(words(&error)))?;
                return Ok(Wire { stream, is_proxied: true });
            }
            let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            let stream = tunnel.call(target).await.map_err(|error| failed(words(&error)))?;
            Ok(Wire { stream, is_proxied: false })
        })
    }
}

/// The message of a proxy library's error, reworded if it is unclear.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let words = crate::base::with_causes(error);
    let words = words.strip_prefix("tunnel error: ").unwrap_or(&words);
    match words {
        "proxy authorization required" => {
            "it asks for a name and a password (http://USER:PASSWORD@HOST:PORT)".to_owned()
        }
        "unsuccessful" => "it refused to connect".to_owned(),
        words => words.strip_prefix("failed to create underlying connection: ").unwrap_or(words).to_owned(),
    }
}

/// A connection, to the host or to a proxy that forwards individual requests.
pub(super) struct Wire {
    stream: TokioIo<TcpStream>,
    is_proxied: bool,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_proxied)
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }
}

/// Makes connections, with TLS if the URL requires it, within a total time limit.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Dial>,
    time_max: Duration,
}

impl Connector {
    pub(super) fn new(
        names: Arc<dyn Resolve>,
        reach: Arc<Reach>,
        proxy: Proxy,
        (tls, server_name): (ClientConfig, Option<ServerName<'static>>),
        time_max: Duration,
    ) -> Self {
        let tcp = |names, reach| {
            let mut tcp = HttpConnector::new_with_resolver(Resolver { names, reach });
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            // Divided among the addresses, so that an unresponsive one leaves time for the next.
            tcp.set_connect_timeout(Some(time_max));
            tcp
        };
        let direct = tcp(names, Arc::clone(&reach));
        // The operator chose it, and it may be in a private network.
        let to_proxy = tcp(Arc::new(SystemNames), Arc::new(Reach::Anywhere));
        let dial = Dial { direct, to_proxy, proxy, reach };
        let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = server_name {
            https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        Self { https: https.enable_http1().wrap_connector(dial), time_max }
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<Dial> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (connecting, time_max) = (self.https.call(target), self.time_max);
        Box::pin(
            async move { tokio::time::timeout(time_max, connecting).await.map_err(|_| DialError::Slow(time_max))? },
        )
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connector")
    }
}
