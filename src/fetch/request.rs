//! Requests and answers.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::body::{AnswerBody, Body};
use super::proxy::without_password;
use super::{FetchError, Limits, retry};

/// A request that has not been sent.
#[derive(Debug)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) limits: Option<Limits>,
    pub(super) is_repeatable: bool,
}

impl Request {
    /// A request without a body.
    ///
    /// # Errors
    /// [`FetchError::Url`] when the URL is not an http or https address.
    pub fn new(method: Method, url: &str) -> Result<Self, FetchError> {
        let wrong = |reason: &str| FetchError::Url { url: without_password(url), reason: reason.to_owned() };
        let mut parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        check_url(&parsed).map_err(wrong)?;
        // Credentials would not be sent.
        if parsed.set_username("").is_err() || parsed.set_password(None).is_err() {
            return Err(wrong("it names no host"));
        }
        let is_repeatable = retry::is_idempotent(&method);
        Ok(Self { method, url: parsed, headers: HeaderMap::new(), body: Body::default(), limits: None, is_repeatable })
    }

    /// A GET request.
    ///
    /// # Errors
    /// As [`Request::new`].
    pub fn get(url: &str) -> Result<Self, FetchError> {
        Self::new(Method::GET, url)
    }

    /// A POST request.
    ///
    /// # Errors
    /// As [`Request::new`].
    pub fn post(url: &str) -> Result<Self, FetchError> {
        Self::new(Method::POST, url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Adds a token in the `Authorization` header. A token that is not a valid header value is sent empty, so that the
    /// host refuses it.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
        value.set_sensitive(true);
        self.header(AUTHORIZATION, value)
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body.
    ///
    /// # Errors
    /// [`FetchError::Json`] when the value cannot be written as JSON.
    pub fn json(mut self, value: &impl Serialize) -> Result<Self, FetchError> {
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let bytes = serde_json::to_vec(value).map_err(|source| FetchError::Json { host, source })?;
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self.body(bytes))
    }

    /// Sets limits in place of the client's.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Marks it as repeatable like a GET, regardless of its method: the host ensures that sending it twice is harmless.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }
}

/// Checks whether a URL can be requested.
pub(super) fn check_url(url: &Url) -> Result<(), &'static str> {
    match url.scheme() {
        "http" | "https" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(()),
        "http" | "https" => Err("it names no host"),
        _ => Err("expected http:// or https://"),
    }
}

/// An answer whose head was received.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The final URL, after all redirects.
    pub url: Url,
    pub(super) body: AnswerBody,
    pub(super) host: Arc<str>,
}

impl Answer {
    /// The body, as a stream.
    #[must_use]
    pub fn into_body(self) -> AnswerBody {
        self.body
    }

    /// As the protocol library's type.
    #[must_use]
    pub fn into_http(self) -> http::Response<AnswerBody> {
        let mut response = http::Response::new(self.body);
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.headers);
        response
    }

    /// Limits the body to this many bytes, if the request allows more.
    pub fn limit(&mut self, bytes: u64) {
        self.body.limit(bytes);
    }

    /// The whole body, within the limits of the request.
    ///
    /// # Errors
    /// [`FetchError`] when it does not come.
    pub async fn bytes(self) -> Result<Bytes, FetchError> {
        Ok(self.body.collect().await?.to_bytes())
    }

    /// Reads the body to its end and discards it.
    ///
    /// # Errors
    /// As [`Answer::bytes`].
    pub async fn discard(mut self) -> Result<(), FetchError> {
        while let Some(frame) = self.body.frame().await {
            frame?;
        }
        Ok(())
    }

    /// The whole body as text; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`Answer::bytes`].
    pub async fn text(self) -> Result<String, FetchError> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// As [`Answer::bytes`], and [`FetchError::Json`].
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, FetchError> {
        let host = Arc::clone(&self.host);
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| FetchError::Json { host: host.to_string(), source })
    }
}
