//! Informs a client that an answer ends its connection: hyper closes a connection whose request was not read
//! completely, and a client that reused it would lose its next request.

use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::connections::Connection;

/// Adds `Connection: close` to the answer of a request whose body is not read, and discards the rest of it before the
/// connection is closed: otherwise it would be reset, and the answer could be lost.
pub(super) fn close_connection(mut response: Response, connection: &Connection) -> Response {
    connection.leave_unread();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
