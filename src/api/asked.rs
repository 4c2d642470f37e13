//! What an address asks for: the names in its path and its query, and what is said where they cannot be read.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::error_response;
use crate::mcp::ToolError;

/// The names in a path.
pub(super) struct Named<T>(pub(super) T);

/// A query. Each of its values is text, so that what is wrong with one is said in words of its own.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        Path::from_request_parts(parts, state).await.map(|Path(named)| Self(named)).map_err(|rejection| {
            let message = match rejection {
                PathRejection::FailedToDeserializePathParams(_) => {
                    "a name in the path is not UTF-8; write each of its bytes that is no letter of ASCII as %XX"
                        .to_owned()
                }
                other => other.body_text(),
            };
            error_response(&ToolError::bad_argument(message))
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Asked<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        Query::from_request_parts(parts, state).await.map(|Query(asked)| Self(asked)).map_err(|_| {
            let message =
                "the query behind the ? cannot be read; expected NAME=VALUE pairs with & between them, each name once";
            error_response(&ToolError::bad_argument(message))
        })
    }
}
