//! Bodies of requests, and of answers with their limits.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{BoxError, FetchError, Limits, Phase, error};

/// The body of a request.
#[derive(Default)]
pub struct Body(Kind);

enum Kind {
    Bytes(Bytes),
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Body {
    /// A body that is produced while it is sent. A request with one is never repeated.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Stream(body.map_err(Into::into).boxed_unsync()))
    }

    /// A copy, if possible.
    pub(super) fn again(&self) -> Option<Self> {
        match &self.0 {
            Kind::Bytes(bytes) => Some(Self(Kind::Bytes(bytes.clone()))),
            Kind::Stream(_) => None,
        }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Bytes(bytes) => write!(formatter, "{} bytes", bytes.len()),
            Kind::Stream(_) => formatter.write_str("a stream"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}

/// The body of an answer, as a stream. It fails when it stalls for too long or is too large.
pub struct AnswerBody {
    body: Incoming,
    host: Arc<str>,
    limits: Limits,
    /// The deadline of the whole answer.
    deadline: Option<Instant>,
    pause: Pin<Box<Sleep>>,
    /// Bytes received.
    length: u64,
}

impl AnswerBody {
    pub(super) fn new(body: Incoming, host: Arc<str>, limits: Limits, deadline: Option<Instant>) -> Self {
        let pause = Box::pin(sleep_until(next_pause(&limits, deadline)));
        Self { body, host, limits, deadline, pause, length: 0 }
    }

    /// Limits the body to this many bytes.
    pub(super) fn limit(&mut self, bytes: u64) {
        self.limits.body_bytes = self.limits.body_bytes.min(bytes);
    }
}

/// The deadline of the next chunk.
fn next_pause(limits: &Limits, deadline: Option<Instant>) -> Instant {
    let pause = Instant::now() + limits.idle;
    deadline.map_or(pause, |deadline| deadline.min(pause))
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = FetchError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FetchError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            let next = next_pause(&self.limits, self.deadline);
            self.pause.as_mut().reset(next);
            let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            self.length = self.length.saturating_add(bytes as u64);
            if self.length > self.limits.body_bytes {
                let (host, most) = (self.host.to_string(), self.limits.body_bytes);
                return Poll::Ready(Some(Err(FetchError::TooLarge { host, most })));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|source| error::of_body(source, &self.host))));
        }
        match self.pause.as_mut().poll(context) {
            Poll::Ready(()) => {
                let is_whole = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
                let phase = if is_whole { Phase::Whole } else { Phase::Body };
                let after = if is_whole { self.limits.total.unwrap_or_default() } else { self.limits.idle };
                Poll::Ready(Some(Err(FetchError::Timeout { host: self.host.to_string(), phase, after })))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AnswerBody")
            .field("host", &self.host)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
