//! From arguments to the types of the parts below.

use std::str::FromStr;

use base64::prelude::BASE64_STANDARD;
use base64::{DecodeError, Engine as _};
use serde_json::Value;

use super::super::arguments::{self, ConflictArgument, DetailArgument};
use super::super::{ToolError, UNKNOWN_CURSOR, document_ref};
use crate::base::UnixMillis;
use crate::collection::{Body, Conflict, DocumentInput, MediaType};
use crate::retrieval::Filter;
use crate::retrieval::{self, Detail};

/// A cursor as received; `None` for the first page.
pub(super) fn cursor<T: FromStr>(text: Option<&str>) -> Result<Option<T>, ToolError> {
    let given = text.filter(|text| !text.is_empty());
    given.map(|text| text.parse().map_err(|_| ToolError::bad_argument(UNKNOWN_CURSOR))).transpose()
}

pub(super) fn detail(given: DetailArgument) -> Detail {
    match given {
        DetailArgument::Ids => Detail::Ids,
        DetailArgument::Snippet => Detail::Snippet,
        DetailArgument::Fitted => Detail::Fitted,
        DetailArgument::Full => Detail::Full,
    }
}

pub(super) fn filter(
    given: Option<&Value>,
    after: Option<&str>,
    before: Option<&str>,
) -> Result<Option<Filter>, ToolError> {
    for (name, text) in [("after", after), ("before", before)] {
        if let Some(text) = text
            && text.parse::<UnixMillis>().is_err()
        {
            let message = format!(
                "{name} is '{text}', expected an RFC 3339 time such as 2026-07-28T09:30:00Z, or a date such as 2026-07-28"
            );
            return Err(ToolError::bad_argument(message));
        }
    }
    let normal =
        |text: Option<&str>| text.and_then(|text| text.parse::<UnixMillis>().ok()).map(|time| time.to_string());
    let time = retrieval::updated_between(normal(after).as_deref(), normal(before).as_deref());
    let given = match given {
        None | Some(Value::Null) => None,
        Some(value) => Some(Filter::from_json(value).map_err(|error| ToolError::bad_argument(error.to_string()))?),
    };
    Ok(match (given, time) {
        (Some(given), Some(time)) => Some(Filter::And(vec![given, time])),
        (given, time) => given.or(time),
    })
}

/// That a filter may be deleted by: one that was left empty, by mistake or not, would delete everything.
pub(super) fn deletes(filter: &Value, collection: &str) -> Result<(), ToolError> {
    match Filter::from_json(filter) {
        Ok(filter) if filter.admits_all() => Err(ToolError::bad_argument(format!(
            "the filter has no condition, so every document of '{collection}' matches; to delete them all, delete the collection"
        ))),
        Ok(_) => Ok(()),
        Err(error) => Err(ToolError::bad_argument(error.to_string())),
    }
}

/// Why base64 is invalid, in words.
fn not_base64(error: &DecodeError, content: &str) -> String {
    match error {
        DecodeError::InvalidByte(at, _) => {
            let found = content.get(*at..).and_then(|rest| rest.chars().next()).unwrap_or('?');
            format!("is not base64: character {} is {found:?}", at + 1)
        }
        DecodeError::InvalidLength(_) | DecodeError::InvalidLastSymbol { .. } => {
            "is base64 that was cut off".to_owned()
        }
        DecodeError::InvalidPadding => "is base64 without the = that end it".to_owned(),
    }
}

pub(super) fn media_type_of(text: &str) -> Result<MediaType, ToolError> {
    MediaType::from_mime(text).ok_or_else(|| {
        let known = MediaType::ALL.map(MediaType::as_str).join(", ");
        ToolError::bad_argument(format!("media_type is '{text}', expected one of {known}"))
    })
}

pub(super) fn data_uri(uri: &str) -> Result<Body, ToolError> {
    let rest = uri.strip_prefix("data:").unwrap_or_default();
    let (kind, data) =
        rest.split_once(',').ok_or_else(|| ToolError::bad_argument("expected data:[TYPE][;base64],CONTENT"))?;
    let (kind, is_base64) = kind.strip_suffix(";base64").map_or((kind, false), |kind| (kind, true));
    let bytes = if is_base64 {
        let data = data.trim();
        BASE64_STANDARD
            .decode(data)
            .map_err(|error| ToolError::bad_argument(format!("the content of uri {}", not_base64(&error, data))))?
    } else {
        document_ref::decode(data).ok_or_else(|| ToolError::bad_argument("no percent-encoded text"))?.into_bytes()
    };
    let mime = kind.split(';').next().filter(|mime| !mime.is_empty()).unwrap_or("text/plain");
    Ok(Body::Typed(media_type_of(mime)?, bytes))
}

/// A document as it is written.
///
/// * `content`: its text or bytes where they do not come with `given`, or are copied from another document.
///
/// # Errors
/// What is wrong with it, with its id, which is empty when it has none.
pub(super) fn input(
    given: arguments::NewDocument,
    content: Option<Body>,
    conflict: ConflictArgument,
) -> Result<DocumentInput, (String, ToolError)> {
    let id = given.id.clone();
    prepared(given, content, conflict).map_err(|error| (id.unwrap_or_default(), error))
}

/// The content that comes with a document.
fn content_of(given: &mut arguments::NewDocument) -> Result<Body, ToolError> {
    match (given.text.take(), given.content_base64.take(), given.uri.take()) {
        (None, None, Some(uri)) if uri.starts_with("data:") => data_uri(&uri),
        (None, None, Some(uri)) => {
            let shown: String = uri.chars().take(80).collect();
            Err(ToolError::bad_argument(format!(
                "uri is '{shown}', expected data: or ctx://; nothing is fetched from a network or a disk, so give the text, \
                 or add files with `cairn add`"
            )))
        }
        (Some(text), None, None) => {
            Ok(Body::Text(text, media_type_of(given.media_type.as_deref().unwrap_or("text/markdown"))?))
        }
        (None, Some(content), None) => {
            let content = content.trim();
            let bytes = BASE64_STANDARD
                .decode(content)
                .map_err(|error| ToolError::bad_argument(format!("content_base64 {}", not_base64(&error, content))))?;
            let name = given.filename.take().or_else(|| given.id.clone()).unwrap_or_else(|| "document".to_owned());
            Ok(Body::File { name, bytes })
        }
        (None, None, None) => Err(ToolError::bad_argument("expected one of text, uri and content_base64, found none")),
        _ => Err(ToolError::bad_argument("expected one of text, uri and content_base64, found several")),
    }
}

fn prepared(
    mut given: arguments::NewDocument,
    content: Option<Body>,
    conflict: ConflictArgument,
) -> Result<DocumentInput, ToolError> {
    let body = match content {
        Some(content) => content,
        None => content_of(&mut given)?,
    };
    let expires_at = match given.expires_at.as_deref().map(str::parse::<UnixMillis>) {
        None => None,
        Some(Ok(time)) => Some(time),
        Some(Err(_)) => {
            let found: String = given.expires_at.unwrap_or_default().chars().take(80).collect();
            return Err(ToolError::bad_argument(format!(
                "expires_at is '{found}', expected an RFC 3339 time such as 2026-07-28T09:30:00Z, or a date such as 2026-07-28"
            )));
        }
    };
    Ok(DocumentInput {
        id: given.id,
        body,
        title: given.title,
        url: given.url,
        metadata: given.metadata,
        source: None,
        expires_at,
        if_version: (conflict == ConflictArgument::Fail).then_some(0),
        conflict: if conflict == ConflictArgument::Skip { Conflict::Skip } else { Conflict::Replace },
    })
}
