//! What goes wrong, as `application/problem+json` (RFC 9457), with the same codes as tools and the command line.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::Fault;
use crate::mcp::{ErrorCode, ToolError};

/// A problem as clients read it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Problem {
    /// Names the kind of problem; `code` is its last part.
    pub(crate) r#type: String,
    /// The kind of problem, for people.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What was found and what to do.
    pub(crate) detail: String,
    /// A stable word for programs.
    pub(crate) code: String,
    /// Who can fix it: `caller`, `environment` or `damage`.
    pub(crate) fault: String,
}

/// Why a request failed, and the status of that answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(super) error: ToolError,
    status: StatusCode,
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        let status = status_of(&error);
        Self { error, status }
    }
}

impl Failure {
    /// With another status than the code's own.
    pub(super) fn with_status(error: ToolError, status: StatusCode) -> Self {
        Self { error, status }
    }

    /// The document is not at the version that the request expects, or is there and must not be.
    pub(super) fn precondition(error: ToolError) -> Self {
        Self::with_status(error, StatusCode::PRECONDITION_FAILED)
    }

    /// A body of a media type that is not read here.
    ///
    /// * `known`: those that are.
    pub(super) fn unsupported_of(known: &str) -> Self {
        let message = format!("the header Content-Type has to be one of {known}");
        Self::with_status(ToolError::bad_argument(message), StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }

    /// A body of another media type than the one that is read here.
    pub(super) fn unsupported(expected: &str) -> Self {
        let message = format!("the body has to be {expected}, with the header `Content-Type: {expected}`");
        Self::with_status(ToolError::bad_argument(message), StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }
}

/// The status of a code.
fn status_of(error: &ToolError) -> StatusCode {
    match (error.code, error.fault) {
        (ErrorCode::NotFound, _) => StatusCode::NOT_FOUND,
        (ErrorCode::Conflict, _) => StatusCode::CONFLICT,
        (ErrorCode::KeyReused, _) => StatusCode::UNPROCESSABLE_ENTITY,
        (ErrorCode::Unauthorized, _) => StatusCode::UNAUTHORIZED,
        (ErrorCode::Forbidden, _) => StatusCode::FORBIDDEN,
        // Its own limit, not the node's.
        (ErrorCode::Overloaded, Fault::Caller) => StatusCode::TOO_MANY_REQUESTS,
        (ErrorCode::ReadOnly | ErrorCode::Overloaded, _) | (_, Fault::Environment) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Fault::Caller) => StatusCode::BAD_REQUEST,
        (_, Fault::Damage) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Problem {
    /// An error as clients read it, with the status of its code.
    pub(super) fn of(error: &ToolError) -> Self {
        Self::new(error, status_of(error))
    }

    /// An error as clients read it.
    pub(crate) fn new(error: &ToolError, status: StatusCode) -> Self {
        Self {
            r#type: format!("urn:cairn:problem:{}", error.code),
            title: error.code.description().to_owned(),
            status: status.as_u16(),
            detail: error.shortened_message().into_owned(),
            code: error.code.to_string(),
            fault: error.fault_word().to_owned(),
        }
    }
}

/// An error as an answer with this status.
pub(crate) fn error_response_as(error: &ToolError, status: StatusCode) -> Response {
    let problem = Problem::new(error, status);
    let content = serde_json::to_vec(&problem).expect("a problem is plain data");
    let mut response = Response::new(content.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if error.code == ErrorCode::Overloaded {
        let seconds = error.retry_after.map_or(1, |time| time.as_secs_f64().ceil().max(1.0) as u64);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A failure as an answer.
pub(super) fn problem(failure: &Failure) -> Response {
    error_response_as(&failure.error, failure.status)
}

/// An error as an answer with the status of its code.
pub(crate) fn error_response(error: &ToolError) -> Response {
    error_response_as(error, status_of(error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::calls::Refusal;

    #[test]
    fn a_client_learns_when_to_try_again() {
        let after = |response: Response| {
            let header =
                response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().expect("text").to_owned());
            (response.status().as_u16(), header)
        };
        let limited = |retry_after| {
            let (caller, limit) = ("laptop".to_owned(), "60 calls a minute".to_owned());
            error_response(&Refusal::Limited { caller, limit, retry_after }.into())
        };
        assert_eq!(after(limited(Duration::from_secs(60))), (429, Some("60".to_owned())));
        assert_eq!(after(limited(Duration::from_millis(1_500))), (429, Some("2".to_owned())));
        assert_eq!(after(limited(Duration::ZERO)), (429, Some("1".to_owned())));
        assert_eq!(after(error_response(&ToolError::overloaded())), (503, Some("1".to_owned())));
        assert_eq!(after(error_response(&ToolError::not_found("x"))), (404, None));
    }
}
