//! The HTTP client of the command line: the one of all of Cairn, for threads that wait for the answer.
//!
//! Invariant: a call blocks its thread and nothing else; it may be made on any thread, whatever runs there.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use tokio::runtime::{Builder, Handle, Runtime};

use super::trust::Trust;
use crate::fetch::{
    self, BreakerConfig, Client, FetchError, Limits, OneAddress, Proxy, Reach, Request, Retries, TestHooks,
};
use crate::task;

/// How long to wait for a node to accept a connection: it is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A client of one node.
pub(super) struct Agent {
    trust: Trust,
    answer_timeout: Duration,
    answer_bytes_max: u64,
    client: OnceLock<Client>,
}

impl Agent {
    /// A client by this trust.
    ///
    /// * `answer_timeout`: for a whole answer.
    /// * `answer_bytes_max`: of its body.
    pub(super) fn new(trust: Trust, answer_timeout: Duration, answer_bytes_max: u64) -> Self {
        Self { trust, answer_timeout, answer_bytes_max, client: OnceLock::new() }
    }

    pub(super) fn get(&self, url: impl AsRef<str>) -> RequestBuilder<'_> {
        self.ask(Method::GET, url.as_ref())
    }

    pub(super) fn ask(&self, method: Method, url: &str) -> RequestBuilder<'_> {
        let request = Request::new(method, url);
        RequestBuilder { agent: self, request, timeout: self.answer_timeout, is_read: true }
    }

    fn client(&self) -> Result<&Client, FetchError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let config = fetch::Config {
            trust: self.trust.authorities(),
            // A node at a fixed address is on this machine, or its name is unknown elsewhere.
            proxy: if self.trust.address().is_some() { Proxy::none() } else { Proxy::from_environment() },
            connect_timeout: CONNECT_TIMEOUT,
            // The verbs repeat by rules of their own.
            retries: Retries::OFF,
            breaker: BreakerConfig::OFF,
            ..fetch::Config::default()
        };
        let names = self.trust.address().map(|address| std::sync::Arc::new(OneAddress(address.ip())) as _);
        let hooks = TestHooks { names, timing: None };
        let made = Client::with(config, Reach::Anywhere, "cli", crate::fetch::Metrics::default(), hooks)?;
        Ok(self.client.get_or_init(|| made))
    }
}

/// The runtime that all requests of this process are sent on.
fn runtime() -> Result<&'static Handle, FetchError> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle());
    }
    let failed = |error: std::io::Error| FetchError::Setting { what: format!("cannot start a thread: {error}") };
    let built = Builder::new_multi_thread().worker_threads(1).thread_name("fetch").enable_all().build();
    let built = built.map_err(failed)?;
    Ok(RUNTIME.get_or_init(|| built).handle())
}

/// A request while it is put together.
pub(super) struct RequestBuilder<'a> {
    agent: &'a Agent,
    /// An error in it is reported when it is sent.
    request: Result<Request, FetchError>,
    timeout: Duration,
    is_read: bool,
}

/// An answer.
pub(super) struct Reply {
    status: StatusCode,
    body: Bytes,
}

impl RequestBuilder<'_> {
    fn map(mut self, change: impl FnOnce(Request) -> Result<Request, FetchError>) -> Self {
        self.request = self.request.and_then(change);
        self
    }

    /// With a header; one with letters that no header has is left out.
    pub(super) fn header(self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.map(|request| Ok(request.header(name, value))),
            Err(_) => self,
        }
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.map(|request| Ok(request.bearer(token)))
    }

    pub(super) fn content_type(self, value: &'static str) -> Self {
        self.header(CONTENT_TYPE, value)
    }

    /// With another time for the whole answer.
    pub(super) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// For the status only: the body of a successful answer is read and dropped.
    pub(super) fn unread(mut self) -> Self {
        self.is_read = false;
        self
    }

    pub(super) fn send_json(self, value: &impl Serialize) -> Result<Reply, FetchError> {
        self.map(|request| request.json(value)).call()
    }

    pub(super) fn send(self, bytes: &[u8]) -> Result<Reply, FetchError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.map(|request| Ok(request.body(bytes))).call()
    }

    /// Sends it as it is, and waits for all of the answer.
    pub(super) fn call(self) -> Result<Reply, FetchError> {
        let limits = Limits {
            answer: self.timeout,
            idle: self.timeout,
            total: Some(self.timeout),
            body_bytes: self.agent.answer_bytes_max,
        };
        let (client, request, is_read) = (self.agent.client()?.clone(), self.request?.limits(limits), self.is_read);
        let exchange = async move {
            let answer = client.send(request).await?;
            let status = answer.status;
            let body = match is_read || !status.is_success() {
                true => answer.bytes().await?,
                false => {
                    answer.discard().await?;
                    Bytes::new()
                }
            };
            Ok(Reply { status, body })
        };
        let done = task::block_on(runtime()?.spawn(exchange));
        done.unwrap_or_else(|error| Err(FetchError::Setting { what: format!("the request ended: {error}") }))
    }
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
