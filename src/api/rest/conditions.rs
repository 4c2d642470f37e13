//! Headers that make a request conditional (RFC 9110, 13), repeatable or asynchronous (RFC 7240).

use axum::http::{HeaderMap, HeaderName, header};

use super::problem::Failure;
use crate::mcp::ToolError;

/// A version that has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Any.
    Any,
    /// This one.
    Version(u64),
}

/// The conditions in a request's headers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// `If-Match`.
    pub(super) if_match: Option<Expected>,
    /// `If-None-Match`: the version that the client has; `Any` for what must not be there.
    pub(super) if_none_match: Option<Expected>,
    /// `Idempotency-Key`.
    pub(super) idempotency_key: Option<String>,
    /// `Prefer: respond-async`.
    pub(super) respond_async: bool,
}

/// A header that makes a repeated request safe.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// For descriptions of endpoints.
pub(super) const IF_MATCH: (&str, &str) =
    ("If-Match", "Only if the document is at this version, as its ETag says: `\"3\"`.");
/// See [`IF_MATCH`].
pub(super) const IF_NONE_MATCH: (&str, &str) = ("If-None-Match", "`*`: only if there is no such document.");
/// See [`IF_MATCH`].
pub(super) const IF_CHANGED: (&str, &str) =
    ("If-None-Match", "The ETag that the client has: answers 304 if nothing changed.");
/// See [`IF_MATCH`].
pub(super) const REPEATABLE: (&str, &str) =
    ("Idempotency-Key", "A request repeated with the same key within a day writes nothing and gets the first answer.");
/// See [`IF_MATCH`].
pub(super) const ASYNC: (&str, &str) =
    ("Prefer", "`respond-async`: answers 202 at once, with the address of the job that does it.");

impl Conditions {
    /// # Errors
    /// When a header cannot be read.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let text = |name: &HeaderName| -> Result<Option<&str>, Failure> {
            let value = headers.get(name).map(|value| value.to_str());
            value.transpose().map_err(|_| ToolError::bad_argument(format!("the header {name} is not ASCII")).into())
        };
        let expected = |name: &HeaderName| text(name)?.map(|text| tag(name, text)).transpose();
        let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let respond_async = preferences.flat_map(|value| value.split(',')).any(|preference| {
            preference.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async")
        });
        Ok(Self {
            if_match: expected(&header::IF_MATCH)?,
            if_none_match: expected(&header::IF_NONE_MATCH)?,
            idempotency_key: text(&IDEMPOTENCY_KEY)?.map(|key| key.trim().trim_matches('"').to_owned()),
            respond_async,
        })
    }
}

fn tag(name: &HeaderName, text: &str) -> Result<Expected, Failure> {
    let text = text.trim();
    if text == "*" {
        return Ok(Expected::Any);
    }
    let version = text.trim_start_matches("W/").strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let version = version.and_then(|version| version.parse().ok()).map(Expected::Version);
    version.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        let message = format!("{name} is '{shown}', expected * or an ETag of this node such as \"3\"");
        ToolError::bad_argument(message).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_the_standards_say() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("if-match", "\"7\""),
            ("if-none-match", "*"),
            ("idempotency-key", "\"a-b\""),
            ("prefer", "wait=10, Respond-Async"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        let expected = Conditions {
            if_match: Some(Expected::Version(7)),
            if_none_match: Some(Expected::Any),
            idempotency_key: Some("a-b".to_owned()),
            respond_async: true,
        };
        assert_eq!(Conditions::read(&headers).ok(), Some(expected));
        headers.insert("if-match", "seven".parse().expect("a value"));
        assert!(Conditions::read(&headers).is_err());
    }
}
