//! Headers that make a request conditional (RFC 9110, 13), repeatable or asynchronous (RFC 7240).
//!
//! Invariants: a route reads the headers that its description names, and no others; a condition that a route cannot
//! check is refused, never ignored.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, header};

use super::problem::Failure;
use crate::mcp::{DocumentVersion, ToolError};

/// An entity tag of any server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityTag {
    is_weak: bool,
    opaque: String,
}

/// The tags of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`: any.
    Any,
    /// These.
    List(Vec<EntityTag>),
}

/// A document's state as an entity tag.
pub(super) struct ETag(pub(super) DocumentVersion);

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DocumentVersion { collection, version } = self.0;
        match collection {
            Some(collection) => write!(f, "\"{collection}-{version}\""),
            None => write!(f, "\"{version}\""),
        }
    }
}

impl EntityTag {
    /// The state that it names; a version alone is one in any collection. `None` for tags of other servers.
    fn version(&self) -> Option<DocumentVersion> {
        let (collection, version) = match self.opaque.split_once('-') {
            Some((collection, version)) => (Some(number(collection)?), version),
            None => (None, self.opaque.as_str()),
        };
        Some(DocumentVersion { collection, version: number(version)? })
    }
}

/// A number as tags have it: digits without a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl Tags {
    /// The states that a write may replace: strong tags only.
    pub(super) fn strong(&self) -> Vec<DocumentVersion> {
        match self {
            Self::Any => Vec::new(),
            Self::List(tags) => tags.iter().filter(|tag| !tag.is_weak).filter_map(EntityTag::version).collect(),
        }
    }

    /// Whether the client has what is at `current`, by weak comparison.
    pub(super) fn has(&self, current: DocumentVersion) -> bool {
        match self {
            Self::Any => true,
            Self::List(tags) => tags.iter().filter_map(EntityTag::version).any(|version| version.is_of(current)),
        }
    }
}

/// The conditions in a request's headers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// `If-Match`.
    pub(super) if_match: Option<Tags>,
    /// `If-None-Match`: the versions that the client has; `Any` for what must not be there.
    pub(super) if_none_match: Option<Tags>,
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
    ("If-Match", "Only if the document is at this version, as its ETag says: `\"254-3\"`; `*`: only if there is one.");
/// See [`IF_MATCH`].
pub(super) const IF_NONE_MATCH: (&str, &str) = ("If-None-Match", "`*`: only if there is no such document.");
/// See [`IF_MATCH`].
pub(super) const IF_CHANGED: (&str, &str) =
    ("If-None-Match", "The ETags that the client has: answers 304 if nothing changed.");
/// See [`IF_MATCH`].
pub(super) const REPEATABLE: (&str, &str) =
    ("Idempotency-Key", "A request repeated with the same key within a day writes nothing and gets the first answer.");
/// See [`IF_MATCH`].
pub(super) const ASYNC: (&str, &str) =
    ("Prefer", "`respond-async`: answers 202 at once, with the address of the job that does it.");

impl Conditions {
    /// * `known`: the headers that the route reads, as its description names them.
    ///
    /// # Errors
    /// When one of them cannot be read, or is a condition that the route cannot check.
    pub(super) fn read(headers: &HeaderMap, known: &[(&str, &str)]) -> Result<Self, Failure> {
        let reads = |name: &HeaderName| known.iter().any(|(known, _)| name.as_str().eq_ignore_ascii_case(known));
        let text = |name: &HeaderName| -> Result<Option<String>, Failure> {
            let values = headers.get_all(name).iter().filter(|_| reads(name)).map(|value| value.to_str());
            let values = values.collect::<Result<Vec<_>, _>>();
            let values = values.map_err(|_| ToolError::bad_argument(format!("the header {name} is not ASCII")))?;
            Ok((!values.is_empty()).then(|| values.join(",")))
        };
        let tags = |name: &HeaderName| text(name)?.map(|text| tags(name, &text)).transpose();
        if reads(&header::IF_MATCH) && !reads(&header::IF_NONE_MATCH) && headers.contains_key(header::IF_NONE_MATCH) {
            let message = "If-None-Match is for PUT (with *) and GET; this request takes If-Match";
            return Err(ToolError::bad_argument(message).into());
        }
        let respond_async = text(&PREFER)?.is_some_and(|preferences| {
            preferences.split(',').any(|preference| {
                preference.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async")
            })
        });
        Ok(Self {
            if_match: tags(&header::IF_MATCH)?,
            if_none_match: tags(&header::IF_NONE_MATCH)?,
            idempotency_key: text(&IDEMPOTENCY_KEY)?.map(|key| key.trim().trim_matches('"').to_owned()),
            respond_async,
        })
    }
}

/// The tags of a header: `*`, or a list of tags in quotes, each perhaps marked as weak.
fn tags(name: &HeaderName, text: &str) -> Result<Tags, Failure> {
    if text.trim() == "*" {
        return Ok(Tags::Any);
    }
    let wrong = || {
        let shown: String = text.trim().chars().take(80).collect();
        let message = format!("{name} is '{shown}', expected * or ETags of this node such as \"254-3\"");
        Failure::from(ToolError::bad_argument(message))
    };
    let (mut list, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return if list.is_empty() { Err(wrong()) } else { Ok(Tags::List(list)) };
        }
        let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
        let (opaque, after) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or_else(wrong)?;
        list.push(EntityTag { is_weak, opaque: opaque.to_owned() });
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(wrong());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[(&str, &str)] = &[IF_MATCH, IF_NONE_MATCH, REPEATABLE, ASYNC];

    fn headers(values: &[(&'static str, &str)]) -> HeaderMap {
        let values =
            values.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value")));
        values.collect()
    }

    fn at(collection: u64, version: u64) -> DocumentVersion {
        DocumentVersion { collection: Some(collection), version }
    }

    #[test]
    fn conditions_are_read_as_the_standards_say() {
        let headers = headers(&[
            ("if-match", "\"7\""),
            ("if-none-match", "*"),
            ("idempotency-key", "\"a-b\""),
            ("prefer", "wait=10, Respond-Async"),
        ]);
        let expected = Conditions {
            if_match: Some(Tags::List(vec![EntityTag { is_weak: false, opaque: "7".to_owned() }])),
            if_none_match: Some(Tags::Any),
            idempotency_key: Some("a-b".to_owned()),
            respond_async: true,
        };
        assert_eq!(Conditions::read(&headers, ALL).ok(), Some(expected));
        assert_eq!(Conditions::read(&headers, &[]).ok(), Some(Conditions::default()), "of a route that reads none");
        assert!(Conditions::read(&headers, &[IF_MATCH]).is_err(), "it cannot check the other one");
    }

    #[test]
    fn tags_are_compared_as_the_standard_says() {
        let read = |value: &str| tags(&header::IF_MATCH, value).ok();
        for (value, is_strong, is_weak) in [
            ("\"254-3\"", true, true),
            ("\"3\"", true, true),
            ("W/\"254-3\"", false, true),
            ("W/\"3\"", false, true),
            ("\"1\", \"254-3\"", true, true),
            ("\"a,b\" ,W/\"254-3\",\"2\"", false, true),
            ("\"255-3\"", false, false),
            ("\"254-2\", \"abc\", \"\", \"-3\", \"+3\", \"254-\"", false, false),
        ] {
            let tags = read(value).unwrap_or_else(|| panic!("{value}"));
            assert_eq!(tags.strong().iter().any(|version| version.is_of(at(254, 3))), is_strong, "{value}");
            assert_eq!(tags.has(at(254, 3)), is_weak, "{value}");
        }
        for wrong in ["seven", "", ",", "\"7", "7\"", "w/\"7\"", "\"7\" \"8\"", "\"7\", *"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(ETag(at(254, 3)).to_string(), "\"254-3\"");
    }
}
