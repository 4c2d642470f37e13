//! When a request is repeated.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, StatusCode, header};

/// How idempotent requests are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first.
    pub most: u32,
    /// Pause before the second attempt; it doubles each time, and is randomly shortened by up to a half.
    pub first_pause: Duration,
    /// Longest pause. An answer whose `Retry-After` asks for more is returned instead.
    pub pause_max: Duration,
}

impl Retries {
    /// None: for callers that repeat by rules of their own.
    pub const OFF: Self = Self { most: 0, first_pause: Duration::ZERO, pause_max: Duration::ZERO };

    /// How long to wait before attempt `attempt + 1`; `None` if the host requests a longer pause.
    ///
    /// * `attempt`: from 1.
    /// * `asked`: the pause that the host requests.
    pub(super) fn pause(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        match asked {
            Some(asked) => (asked <= self.pause_max).then_some(asked),
            None => {
                let whole = self.first_pause.saturating_mul(1 << (attempt - 1).min(16)).min(self.pause_max);
                // Without randomness all clients of a failed host would return at the same time.
                let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
                Some(whole.mul_f64(0.5 + share / 2.0))
            }
        }
    }
}

/// A client's clock and timer; tests provide their own.
pub trait Timing: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Instant;
    /// Waits.
    fn pause<'a>(&'a self, length: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SystemTiming;

impl Timing for SystemTiming {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause<'a>(&'a self, length: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(tokio::time::sleep(length))
    }
}

/// Whether a request can be sent twice safely.
pub(super) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

/// Whether an answer says that the host, or a gateway in front of it, cannot answer now.
pub(super) fn is_passing(status: StatusCode) -> bool {
    is_down(status) || status == StatusCode::TOO_MANY_REQUESTS
}

/// Whether an answer says that the host, or one behind it, is down.
pub(super) fn is_down(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// The pause that a host requests, in seconds or until a time; `None` if there is none or it is invalid.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        let retries = Retries { most: 5, first_pause: Duration::from_millis(200), pause_max: Duration::from_secs(1) };
        for (attempt, whole) in [(1, 200), (2, 400), (3, 800), (4, 1_000), (40, 1_000)] {
            let pause = retries.pause(attempt, None).expect("a pause").as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{attempt}: {pause}");
        }
        assert_eq!(retries.pause(1, Some(Duration::from_secs(1))), Some(Duration::from_secs(1)));
        assert_eq!(retries.pause(1, Some(Duration::from_secs(2))), None, "it would be too early");
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let asks = |value: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().expect("a value"))]);
            retry_after(&headers, now).map(|asked| asked.as_secs())
        };
        assert_eq!(asks("120"), Some(120));
        assert_eq!(asks("Sun, 06 Nov 1994 08:50:00 GMT"), Some(23));
        assert_eq!(asks("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "a time that is past");
        for wrong in ["-1", "soon", "1.5", "", "99999999999999999999999"] {
            assert_eq!(asks(wrong), None, "{wrong}");
        }
    }
}
