//! Redirects: their target, and the parts of the request that are sent there.

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, LOCATION, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use super::body::Body;
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
    let refused = |target: &str, reason| FetchError::Redirect {
        host: authority(&answer.url),
        target: target.chars().take(200).collect(),
        reason,
    };
    let text = location.to_str().map_err(|_| refused("…", "that is not an address"))?;
    let mut target = answer.url.join(text).map_err(|_| refused(text, "that is not an address"))?;
    // Credentials in a URL would be sent to the host that it names.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    check_url(&target).map_err(|_| refused(text, "that is not an http or https address"))?;
    Ok(Some(target))
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

/// Removes what only the first host may see.
pub(super) fn drop_credentials(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
        headers.remove(name);
    }
}

/// Removes headers about a body that is not sent.
pub(super) fn drop_body_headers(headers: &mut HeaderMap) {
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING] {
        headers.remove(name);
    }
}
