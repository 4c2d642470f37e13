//! Ends an MCP call when its client has left: the protocol library would continue it in a separate task.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mcp::Presence;

/// The body of an answer, which is being read while it exists.
struct Awaited {
    body: Body,
    _guard: DropGuard,
}

impl HttpBody for Awaited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Notifies the handler when the client no longer waits for the answer, but not before all of it was sent.
pub(super) async fn watch(mut request: Request, next: Next) -> Response {
    let left = CancellationToken::new();
    request.extensions_mut().insert(Presence::new(left.clone()));
    // Dropped with this future when the connection ends, or with the answer's body.
    let guard = left.drop_guard();
    next.run(request).await.map(|body| Body::new(Awaited { body, _guard: guard }))
}
