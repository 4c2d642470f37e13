//! Receives the bodies of requests: bounded in size, time and speed, and in total memory.
//!
//! Invariants: nothing of a body is read before its request was admitted. A body that stalls, or arrives too slowly,
//! ends its request. Memory of large bodies, complete or partial, counts against one budget until their requests are
//! answered; a request that does not fit waits a moment, unread, and is refused. Small bodies are not counted: the
//! number of connections bounds them, and a search must not wait for another client's upload.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http_body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::base::ByteSize;

/// Bodies up to this size are small.
pub(super) const SMALL: usize = 16 << 10;
/// The size of one permit of the budget.
const UNIT: usize = 1 << 10;
/// Over how long the speed of a body is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// How bodies are received.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes of one body.
    pub bytes_max: usize,
    /// Bytes of all that are being received and answered.
    pub together_max: usize,
    /// How long a request waits, unread, for others to be answered when there is no room for its body.
    pub room_timeout: Duration,
    /// Time limit of a body.
    pub timeout: Duration,
    /// Minimum bytes a second of a body, over ten seconds; 0 for no minimum.
    pub rate_min: u64,
}

/// The bodies of a listener.
pub(super) struct Bodies {
    limits: BodyLimits,
    room: Arc<Semaphore>,
}

/// A body that has arrived, and its part of the budget.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why a body was not received.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(
        "the request is larger than {} (server.request_bytes_max, or what its memory allows); send less at a time",
        ByteSize(*.0 as u64)
    )]
    TooLarge(usize),
    #[error("the node is receiving as much as it can hold ({}, by server.bodies_bytes_max or its memory); try again in a second", ByteSize(*.0 as u64))]
    NoRoom(usize),
    #[error(
        "the request's body did not arrive within {} s, or came more slowly than {} a second (server.body_timeout, server.body_rate_min)",
        .0.timeout.as_secs_f32(), ByteSize(.0.rate_min)
    )]
    TooSlow(BodyLimits),
    #[error("the request's body cannot be read: {0}")]
    Broken(String),
}

impl Bodies {
    pub(super) fn new(limits: BodyLimits) -> Self {
        // One body of the largest size fits always: it would have to be refused for ever.
        let together = limits.together_max.max(limits.bytes_max);
        let limits = BodyLimits { together_max: together, ..limits };
        Self { limits, room: Arc::new(Semaphore::new(together.div_ceil(UNIT))) }
    }

    /// Reads a body to its end.
    pub(super) async fn receive<B>(&self, mut body: B) -> Result<Received, BodyError>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        if body.is_end_stream() {
            return Ok(Received { bytes: Bytes::new(), _room: None });
        }
        let most = self.limits.bytes_max;
        let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced.is_some_and(|bytes| bytes > most) {
            return Err(BodyError::TooLarge(most));
        }
        let mut room = None;
        self.make_room(&mut room, announced.unwrap_or_default()).await?;
        let mut pace = Pace::new(&self.limits, Instant::now());
        let mut collected = Vec::new();
        while let Some(data) = pace.next(&mut body).await? {
            // Most bodies arrive in one piece.
            if collected.is_empty() && announced == Some(data.len()) {
                return Ok(Received { bytes: data, _room: room });
            }
            let length = collected.len() + data.len();
            if length > most {
                return Err(BodyError::TooLarge(most));
            }
            if collected.capacity() < length {
                // What grows is doubled, so that it is seldom copied.
                let capacity = announced.unwrap_or_else(|| (length * 2).min(most));
                self.make_room(&mut room, capacity).await?;
                collected.reserve_exact(capacity - collected.len());
            }
            collected.extend_from_slice(&data);
        }
        Ok(Received { bytes: collected.into(), _room: room })
    }

    /// Ensures that `room` covers this many bytes. A body that already has some does not wait for more: two would
    /// deadlock.
    async fn make_room(&self, room: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), BodyError> {
        let full = || BodyError::NoRoom(self.limits.together_max);
        let has = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(UNIT).saturating_sub(has);
        if bytes <= SMALL || missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| full())?;
        let all = Arc::clone(&self.room);
        match room {
            Some(room) => room.merge(all.try_acquire_many_owned(missing).map_err(|_| full())?),
            None => {
                let waiting = timeout(self.limits.room_timeout, all.acquire_many_owned(missing)).await;
                *room = Some(waiting.ok().and_then(Result::ok).ok_or_else(full)?);
            }
        }
        Ok(())
    }
}

/// Whether a body arrives fast enough.
struct Pace<'a> {
    limits: &'a BodyLimits,
    end: Instant,
    window_end: Instant,
    in_window: u64,
}

impl<'a> Pace<'a> {
    fn new(limits: &'a BodyLimits, now: Instant) -> Self {
        Self { limits, end: now + limits.timeout, window_end: now + WINDOW, in_window: 0 }
    }

    /// When to check next, at the latest.
    fn due(&self) -> Instant {
        self.end.min(self.window_end)
    }

    /// Counts received bytes, and returns whether they are enough.
    fn goes_on(&mut self, now: Instant, bytes: usize) -> Result<(), BodyError> {
        self.in_window += bytes as u64;
        if now < self.due() {
            return Ok(());
        }
        if now >= self.end || self.in_window < self.limits.rate_min.saturating_mul(WINDOW.as_secs()) {
            return Err(BodyError::TooSlow(*self.limits));
        }
        (self.window_end, self.in_window) = (now + WINDOW, 0);
        Ok(())
    }

    /// The next piece; `None` at the end.
    async fn next<B>(&mut self, body: &mut B) -> Result<Option<Bytes>, BodyError>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
            let frame = match timeout_at(self.due(), frame).await {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => Some(frame.map_err(|error| BodyError::Broken(error.to_string()))?),
                Err(_) => None,
            };
            // Trailers are not part of the body.
            let data = frame.and_then(|frame| frame.into_data().ok());
            self.goes_on(Instant::now(), data.as_ref().map_or(0, Bytes::len))?;
            if data.is_some() {
                return Ok(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use http_body::{Frame, SizeHint};

    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        bytes_max: 1 << 20,
        together_max: 2 << 20,
        room_timeout: Duration::ZERO,
        timeout: Duration::from_secs(60),
        rate_min: 100,
    };

    /// A body in pieces of these sizes; an incomplete one waits for ever after the last.
    struct Pieces {
        pieces: VecDeque<usize>,
        announced: Option<u64>,
        is_complete: bool,
    }

    fn pieces(announced: Option<u64>, pieces: &[usize]) -> Pieces {
        Pieces { pieces: pieces.iter().copied().collect(), announced, is_complete: true }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.pieces.pop_front() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(vec![b'x'; bytes].into())))),
                None if self.is_complete => Poll::Ready(None),
                None => Poll::Pending,
            }
        }

        fn size_hint(&self) -> SizeHint {
            self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    /// Whether pieces that arrive at these seconds, with this many bytes, are fast enough.
    fn is_fast_enough(limits: BodyLimits, pieces: impl IntoIterator<Item = (u64, usize)>) -> bool {
        let begin = Instant::now();
        let mut pace = Pace::new(&limits, begin);
        pieces.into_iter().all(|(seconds, bytes)| pace.goes_on(begin + Duration::from_secs(seconds), bytes).is_ok())
    }

    #[test]
    fn a_body_that_stops_or_crawls_ends() {
        assert!(is_fast_enough(LIMITS, [(0, 10), (1, 400_000), (9, 1)]));
        assert!(
            is_fast_enough(LIMITS, (1..6).map(|piece| (piece * 9, 1_000))),
            "1,000 bytes in ten seconds are enough"
        );
        assert!(is_fast_enough(BodyLimits { rate_min: 0, ..LIMITS }, [(50, 1), (59, 1)]), "any speed");
        assert!(!is_fast_enough(LIMITS, [(0, 999), (10, 0)]), "nothing comes any more");
        assert!(!is_fast_enough(LIMITS, [(0, 500_000), (10, 0), (20, 0)]), "what came before does not count");
        assert!(!is_fast_enough(LIMITS, (1..60).map(|second| (second, 1))), "a byte each second");
        assert!(!is_fast_enough(LIMITS, (1..=60).map(|second| (second, 1_000))), "longer than a body may take");
    }

    #[tokio::test]
    async fn a_body_arrives_as_it_was_cut() {
        let bodies = Bodies::new(LIMITS);
        for (announced, cut, length) in [
            (Some(10), &[10][..], 10),
            (Some(800_000), &[1, 399_999, 400_000], 800_000),
            (None, &[10, 400_000, 400_000, 1], 800_011),
            (None, &[], 0),
        ] {
            let received = bodies.receive(pieces(announced, cut)).await.map(|received| received.bytes.len());
            assert_eq!(received.expect("received"), length);
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_received() {
        for body in [pieces(Some(2 << 20), &[]), pieces(None, &[600_000, 600_000])] {
            let error = Bodies::new(LIMITS).receive(body).await.map(drop).expect_err("too large");
            assert!(error.to_string().contains("1 MiB"), "{error}");
        }
    }

    #[tokio::test]
    async fn large_bodies_share_a_budget_until_they_are_answered() {
        let bodies = Bodies::new(LIMITS);
        let first = bodies.receive(pieces(Some(1 << 20), &[1 << 20])).await.expect("room");
        let second = bodies.receive(pieces(None, &[300_000, 300_000])).await.expect("room");
        let refused = bodies.receive(pieces(Some(1 << 20), &[1 << 20])).await;
        assert!(matches!(refused, Err(BodyError::NoRoom(_))));
        let small = bodies.receive(pieces(Some(100), &[100])).await.expect("small ones are not counted");
        assert_eq!(small.bytes.len(), 100);
        drop(first);
        bodies.receive(pieces(Some(1 << 20), &[1 << 20])).await.map(drop).expect("room again");
        drop(second);
    }

    #[tokio::test]
    async fn a_body_that_goes_away_gives_its_room_back() {
        let bodies = Bodies::new(BodyLimits { together_max: 1 << 20, ..LIMITS });
        {
            let half_sent = Pieces { is_complete: false, ..pieces(Some(1 << 20), &[1_000]) };
            let mut receiving = pin!(bodies.receive(half_sent));
            assert!(receiving.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(bodies.receive(pieces(Some(20_000), &[20_000])).await.is_err());
        }
        assert!(bodies.receive(pieces(Some(20_000), &[20_000])).await.is_ok());
    }
}
