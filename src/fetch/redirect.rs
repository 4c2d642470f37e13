//! Redirects: their target, and the parts of the request that are sent there.

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, LOCATION, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use url::Url;

use super::body::Body;
use super::proxy::without_password;
use super::request::check_url;
use super::{Answer, FetchError, authority};

/// The request to the target.
pub(super) struct Step {
    pub(super) method: Method,
    pub(super) body: Body,
    /// Whether the request lost its body.
    pub(super) drops_body: bool,
    /// Whether scheme, host or port differ.
    pub(super) is_other_origin: bool,
}

/// The target of a redirect; `None` if there is none.
pub(super) fn target(answer: &Answer) -> Result<Option<Url>, FetchError> {
    let leads = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = answer.headers.get(LOCATION).filter(|_| leads) else { return Ok(None) };
    let refused =
        |target: &str, reason| FetchError::Redirect { host: authority(&answer.url), target: printable(target), reason };
    let text = location.to_str().map_err(|_| refused("…", "that is not an address"))?;
    let mut target = answer.url.join(text).map_err(|_| refused(text, "that is not an address"))?;
    // Credentials in a URL would be sent to the host that it names.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    check_url(&target).map_err(|_| refused(text, "that is not an http or https address"))?;
    Ok(Some(target))
}

/// A target for messages: without a password, and without a query, which may be signed.
fn printable(target: &str) -> String {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    without_password(target).chars().take(200).collect()
}

/// The request to the target.
///
/// * `again`: a copy of the body, if it can be sent twice.
pub(super) fn step(
    method: &Method,
    status: StatusCode,
    from: &Url,
    to: &Url,
    again: Option<Body>,
) -> Result<Step, FetchError> {
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(refused(from, to, "that would be without TLS"));
    }
    let is_other_origin = from.origin() != to.origin();
    let keeps = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
        || (status != StatusCode::SEE_OTHER && *method != Method::POST);
    if !keeps && *method != Method::HEAD {
        return Ok(Step { method: Method::GET, body: Body::default(), drops_body: true, is_other_origin });
    }
    let body = again.ok_or_else(|| refused(from, to, "what was sent cannot be sent again"))?;
    Ok(Step { method: method.clone(), body, drops_body: false, is_other_origin })
}

pub(super) fn refused(from: &Url, to: &Url, reason: &'static str) -> FetchError {
    FetchError::Redirect { host: authority(from), target: authority(to), reason }
}

/// Removes what only the first host may see: the usual headers, and those that were marked as sensitive.
pub(super) fn drop_credentials(headers: &mut HeaderMap) {
    let marked = headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(name, _)| name.clone());
    let marked: Vec<HeaderName> = marked.collect();
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].into_iter().chain(marked) {
        headers.remove(name);
    }
}

/// Removes headers about a body that is not sent.
pub(super) fn drop_body_headers(headers: &mut HeaderMap) {
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn another_origin_sees_no_secret() {
        let mut headers = HeaderMap::new();
        let mut secret = HeaderValue::from_static("key");
        secret.set_sensitive(true);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        headers.insert("x-api-key", secret);
        headers.insert("accept", HeaderValue::from_static("*/*"));
        drop_credentials(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn messages_show_no_credentials_of_a_target() {
        assert_eq!(printable("ftp://user:secret@host/path?signature=abc#x"), "ftp://…@host/path");
        assert_eq!(printable("/elsewhere"), "/elsewhere");
        assert_eq!(printable(&"x".repeat(999)).len(), 200);
    }
}
