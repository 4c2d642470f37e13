//! The requests of a bucket's library, sent by the HTTP client of the rest of Cairn.
//!
//! Invariant: a page of a listing is checked before the library sees it.

use std::sync::OnceLock;
use std::time::Duration;

use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::super::listing::{ListingError, check_page};
use crate::fetch::{self, BreakerConfig, Client, FetchError, Limits, Phase, Reach, Request, Retries};

/// Until the head of an answer, besides the time that the request's own bytes may take, …
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// … at this many bytes a second.
const UPLOAD_RATE_MIN: u64 = 64 << 10;
/// Between two pieces of an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A page of 1,000 names of 1,024 bytes each, with all else that services say about them.
const PAGE_BYTES_MAX: u64 = 16 << 20;
/// Answers other than objects and listings, errors above all.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// The client for buckets, made when it is first needed: a node that keeps its snapshots in a directory has no use for the
/// system's authorities.
pub(in crate::snapshot) struct Http {
    config: fetch::Config,
    metrics: fetch::Metrics,
    client: OnceLock<Client>,
}

impl Http {
    pub(in crate::snapshot) fn new(config: fetch::Config, metrics: fetch::Metrics) -> Self {
        Self { config, metrics, client: OnceLock::new() }
    }

    pub(in crate::snapshot) fn client(&self) -> Result<&Client, FetchError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let limits = Limits { answer: ANSWER_TIMEOUT, idle: STALL_TIMEOUT, total: None, body_bytes: u64::MAX };
        // The library has its own retry rules, and the operator configured the address.
        let (retries, breaker) = (Retries::OFF, BreakerConfig::OFF);
        let config = fetch::Config { limits, retries, breaker, redirects: 0, ..self.config.clone() };
        let made = Client::new(config, Reach::Anywhere, "snapshot", self.metrics.clone())?;
        Ok(self.client.get_or_init(|| made))
    }
}

/// Hands the client to the library.
#[derive(Debug)]
pub(super) struct Connector(pub(super) Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Client);

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let upload = Duration::from_secs(request.body().content_length() as u64 / UPLOAD_RATE_MIN);
        let is_get = request.method() == "GET";
        let is_listing =
            is_get && request.uri().query().is_some_and(|query| query.split('&').any(|one| one == "list-type=2"));
        let (head, body) = request.into_parts();
        let mut sent = Request::new(head.method, &head.uri.to_string()).map_err(failed)?;
        for (name, value) in &head.headers {
            sent = sent.header(name.clone(), value.clone());
        }
        let limits = Limits {
            answer: ANSWER_TIMEOUT + upload,
            idle: STALL_TIMEOUT,
            total: None,
            // Objects are streamed, and counted where they are read.
            body_bytes: if is_listing { PAGE_BYTES_MAX } else { u64::MAX },
        };
        let mut answer = self.0.send(sent.body(fetch::Body::stream(body)).limits(limits)).await.map_err(failed)?;
        if is_listing && answer.status == 404 {
            return Err(HttpError::new(HttpErrorKind::Decode, ListingError::NoBucket));
        }
        if !(is_get && answer.status.is_success()) {
            answer.limit(SMALL_BYTES_MAX);
        }
        let is_page = is_listing && answer.status.is_success();
        let (head, body) = answer.into_http().into_parts();
        if !is_page {
            return Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body.map_err(failed))));
        }
        let page = body.collect().await.map_err(failed)?.to_bytes();
        check_page(&page).map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        Ok(HttpResponse::from_parts(head, page.into()))
    }
}

/// A failure as the library repeats requests by it.
fn failed(error: FetchError) -> HttpError {
    let kind = match &error {
        FetchError::TooLarge { .. } => HttpErrorKind::Decode,
        FetchError::Timeout { phase, .. } if *phase != Phase::Connect => HttpErrorKind::Timeout,
        FetchError::Interrupted { .. } => HttpErrorKind::Interrupted,
        error if error.is_before_sending() => HttpErrorKind::Connect,
        _ => HttpErrorKind::Request,
    };
    HttpError::new(kind, error)
}
