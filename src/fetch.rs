//! Outgoing HTTP: one client for all parts that make requests to other machines.
//!
//! Invariants:
//! * Every request ends: connecting, the head of the answer, and pauses within it have time limits, and its bytes have
//!   a limit.
//! * Where [`Reach`] restricts a client, addresses are checked after the name was resolved, the checked address is the
//!   one that is connected to, and redirects are checked like first requests. Behind a proxy, which resolves names
//!   itself, only names are checked.
//! * A redirect never leads from https to http, and credentials never go to another origin.
//! * Requests that are not idempotent are sent once, unless they did not reach the host.
//! * An error names the host, what failed, and if useful what to do. No error and no log line contains credentials.

mod body;
mod breaker;
mod dial;
mod error;
mod metrics;
mod proxy;
mod reach;
mod redirect;
mod request;
mod retry;
mod settings;
mod trust;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use url::Url;

use self::breaker::{Breakers, Open};
use self::dial::{Connector, SystemNames};
use self::retry::SystemTiming;

pub use body::{AnswerBody, Body};
pub use breaker::BreakerConfig;
pub use dial::{OneAddress, Resolve, Resolving};
pub use error::{FetchError, Phase};
pub use metrics::{FetchLabels, Metrics};
pub use proxy::Proxy;
pub use reach::{BadHost, HostList, Reach};
pub use request::{Answer, Request};
pub use retry::{Retries, Timing};
pub use settings::Settings;
pub use trust::{Authorities, ClientCertificate, PemError, Trust, provider};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Idle connections to a host that are kept for later requests, and for how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The user agent.
const NAME: HeaderValue = HeaderValue::from_static(concat!("cairn/", env!("CARGO_PKG_VERSION")));

/// The limits of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time until the head of the answer is received, including connecting and sending.
    pub answer: Duration,
    /// Time between two chunks of the answer.
    pub idle: Duration,
    /// Total time, including repetitions and redirects; `None` for answers without a time limit.
    pub total: Option<Duration>,
    /// Maximum bytes of the answer's body.
    pub body_bytes: u64,
}

/// The configuration of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The trusted authorities.
    pub trust: Trust,
    /// The client certificate.
    pub certificate: Option<ClientCertificate>,
    /// The name that host certificates must have, if it is not the one in the URL.
    pub server_name: Option<String>,
    /// The proxies.
    pub proxy: Proxy,
    /// Time limit for connecting, including TLS and proxy.
    pub connect_timeout: Duration,
    /// The default limits of a request.
    pub limits: Limits,
    /// How requests are repeated.
    pub retries: Retries,
    /// The circuit breaker.
    pub breaker: BreakerConfig,
    /// Maximum number of redirects.
    pub redirects: usize,
}

impl Default for Config {
    /// Defaults for a service: the system's trust, no proxy, some repetitions.
    fn default() -> Self {
        Self {
            trust: Trust::System,
            certificate: None,
            server_name: None,
            proxy: Proxy::none(),
            connect_timeout: Duration::from_secs(10),
            limits: Limits {
                answer: Duration::from_secs(30),
                idle: Duration::from_secs(15),
                total: Some(Duration::from_secs(120)),
                body_bytes: 16 << 20,
            },
            retries: Retries { most: 2, first_pause: Duration::from_millis(250), pause_max: Duration::from_secs(10) },
            breaker: BreakerConfig { failures: 8, pause: Duration::from_secs(15) },
            redirects: 5,
        }
    }
}

/// A client. Cloning gives another handle to the same connections.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<Connector, Body>,
    config: Arc<Config>,
    reach: Arc<Reach>,
    breakers: Breakers,
    timing: Arc<dyn Timing>,
    /// The part that makes the requests, for the metrics.
    part: &'static str,
    metrics: Metrics,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("part", &self.part).field("reach", &self.reach).finish_non_exhaustive()
    }
}

/// Parts of a client that tests replace.
#[derive(Default)]
pub struct TestHooks {
    /// Resolves names; the machine's resolver by default.
    pub names: Option<Arc<dyn Resolve>>,
    /// Clock and timer; the machine's by default.
    pub timing: Option<Arc<dyn Timing>>,
}

impl Client {
    /// A client. Reads the system's authorities, which takes some milliseconds.
    ///
    /// * `part`: the part that makes the requests; a label of the metrics, so it must be one of a few.
    ///
    /// # Errors
    /// When a certificate of the settings cannot be used.
    pub fn new(config: Config, reach: Reach, part: &'static str, metrics: Metrics) -> Result<Self, FetchError> {
        Self::with(config, reach, part, metrics, TestHooks::default())
    }

    /// A client with its own resolver or clock.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with(
        config: Config,
        reach: Reach,
        part: &'static str,
        metrics: Metrics,
        hooks: TestHooks,
    ) -> Result<Self, FetchError> {
        let tls = trust::tls(&config.trust, config.certificate.clone())?;
        let reach = Arc::new(reach);
        let names = hooks.names.unwrap_or_else(|| Arc::new(SystemNames));
        let server_name = config.server_name.clone().map(|name| {
            let what = format!("'{name}' cannot be the name of a server");
            name.try_into().map_err(|_| FetchError::Setting { what })
        });
        let tls = (tls, server_name.transpose()?);
        let connector = Connector::new(names, Arc::clone(&reach), config.proxy.clone(), tls, config.connect_timeout);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        let breakers = Breakers::new(config.breaker);
        let timing = hooks.timing.unwrap_or_else(|| Arc::new(SystemTiming));
        Ok(Self { http, config: Arc::new(config), reach, breakers, timing, part, metrics })
    }

    /// Sends a request, and repeats it and follows redirects according to the client's settings. Any status counts as
    /// an answer.
    ///
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn send(&self, request: Request) -> Result<Answer, FetchError> {
        let result = self.follow(request).await;
        let outcome = match &result {
            Ok(answer) => match answer.status.as_u16() {
                500.. => "server_error",
                400.. => "client_error",
                _ => "ok",
            },
            Err(error) => error.kind(),
        };
        self.metrics.requests.get_or_create(&FetchLabels { part: self.part, outcome }).inc();
        result
    }

    async fn follow(&self, request: Request) -> Result<Answer, FetchError> {
        let Request { mut method, mut url, mut headers, mut body, limits, is_repeatable } = request;
        let limits = limits.unwrap_or(self.config.limits);
        let deadline = limits.total.map(|total| tokio::time::Instant::now() + total);
        headers.entry(USER_AGENT).or_insert(NAME);
        for followed in 0.. {
            let again = body.again();
            let job = Job { method: &method, url: &url, headers: &headers, limits, deadline, is_repeatable };
            let answer = self.repeat(&job, body).await?;
            // A client that follows no redirects returns them, wherever they lead.
            if self.config.redirects == 0 {
                return Ok(answer);
            }
            let Some(next) = redirect::target(&answer)? else { return Ok(answer) };
            if followed == self.config.redirects {
                return Err(redirect::refused(&url, &next, "it leads elsewhere too often"));
            }
            let step = redirect::step(&method, answer.status, &url, &next, again)?;
            if step.is_other_origin {
                redirect::drop_credentials(&mut headers);
            }
            (method, body, url) = (step.method, step.body, next);
            headers.remove(HOST);
            if step.drops_body {
                redirect::drop_body_headers(&mut headers);
            }
        }
        unreachable!("the range has no end")
    }

    /// Sends a request to one URL until it is answered, or retrying is pointless.
    async fn repeat(&self, job: &Job<'_>, mut body: Body) -> Result<Answer, FetchError> {
        let authority = authority(job.url);
        let mut attempt = 1;
        loop {
            let again = body.again();
            let open = |Open { failures, left }| FetchError::BreakerOpen { host: authority.clone(), failures, left };
            let pass = self.breakers.enter(&authority, self.timing.now()).map_err(open)?;
            let result = self.exchange(job, body).await;
            match &result {
                Ok(answer) => pass.record(!retry::is_down(answer.status), self.timing.now()),
                Err(error) if error.is_passing() => pass.record(false, self.timing.now()),
                // This does not affect the breaker.
                Err(_) => drop(pass),
            }
            let (may_repeat, asked) = match &result {
                Ok(answer) if retry::is_passing(answer.status) => {
                    (job.is_repeatable, retry::retry_after(&answer.headers, SystemTime::now()))
                }
                Err(error) if error.is_passing() => (job.is_repeatable || error.is_before_sending(), None),
                _ => return result,
            };
            let (true, true, Some(next)) = (may_repeat, attempt <= self.config.retries.most, again) else {
                return result;
            };
            let Some(pause) = self.config.retries.pause(attempt, asked) else { return result };
            if job.deadline.is_some_and(|deadline| tokio::time::Instant::now() + pause >= deadline) {
                return result;
            }
            tracing::debug!(host = authority, attempt, part = self.part, "a request is repeated");
            drop(result);
            self.timing.pause(pause).await;
            (body, attempt) = (next, attempt + 1);
        }
    }

    /// Sends a request once.
    async fn exchange(&self, job: &Job<'_>, body: Body) -> Result<Answer, FetchError> {
        let host = authority(job.url);
        let wrong = |reason: String| FetchError::Url { url: proxy::without_password(job.url.as_str()), reason };
        let uri: Uri = job.url.as_str().parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
        let proxy = self.config.proxy.of(&uri);
        // Checked even if an earlier connection is reused.
        self.reach
            .check_host(uri.host().unwrap_or_default(), proxy.is_some())
            .map_err(|reason| FetchError::Refused { host: host.clone(), reason })?;
        let mut request = http::Request::new(body);
        *request.headers_mut() = job.headers.clone();
        if let Some(credentials) = proxy.as_ref().and_then(|proxy| proxy.basic_auth())
            && uri.scheme_str() == Some("http")
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        (*request.method_mut(), *request.uri_mut()) = (job.method.clone(), uri);
        let now = tokio::time::Instant::now();
        let (until, phase, after) = match job.deadline {
            Some(deadline) if deadline < now + job.limits.answer => {
                (deadline, Phase::Whole, job.limits.total.unwrap_or_default())
            }
            _ => (now + job.limits.answer, Phase::Answer, job.limits.answer),
        };
        let answered = tokio::time::timeout_at(until, self.http.request(request)).await;
        let answered = answered.map_err(|_| FetchError::Timeout { host: host.clone(), phase, after })?;
        let response = answered.map_err(|error| error::of_exchange(error, &host, HEAD_BYTES_MAX as u64))?;
        let (head, body) = response.into_parts();
        let host: Arc<str> = host.into();
        let body = AnswerBody::new(body, Arc::clone(&host), job.limits, job.deadline);
        Ok(Answer { status: head.status, headers: head.headers, url: job.url.clone(), body, host })
    }
}

/// A request to one URL.
struct Job<'a> {
    method: &'a Method,
    url: &'a Url,
    headers: &'a HeaderMap,
    limits: Limits,
    deadline: Option<tokio::time::Instant>,
    is_repeatable: bool,
}

/// Host and port for messages.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
