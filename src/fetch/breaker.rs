//! Circuit breakers: a host that fails repeatedly gets no requests for a while.
//!
//! Invariants: one breaker for each authority, and at most [`AUTHORITIES_MAX`] of them; while one is open, a single
//! request at a time is let through as a probe, once its pause is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Authorities that are remembered; beyond that, the one that failed longest ago is forgotten.
const AUTHORITIES_MAX: usize = 256;

/// When a breaker opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Consecutive failures after which it opens; 0 for never.
    pub failures: u32,
    /// How long it stays open before a probe.
    pub pause: Duration,
}

impl BreakerConfig {
    /// No breaker: for a client that gives up on the first failure, or repeats by rules of its own.
    pub const OFF: Self = Self { failures: 0, pause: Duration::ZERO };
}

/// The breakers of a client.
#[derive(Debug, Clone)]
pub(super) struct Breakers {
    config: BreakerConfig,
    states: Arc<Mutex<FxHashMap<String, State>>>,
}

/// A host that failed.
#[derive(Debug)]
struct State {
    /// Consecutive failures.
    failures: u32,
    last: Instant,
    is_probed: bool,
}

/// The breaker of a host is open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) failures: u32,
    /// Time until a request is let through.
    pub(super) left: Duration,
}

/// A request that was let through. Dropped without an outcome, it does not affect the breaker.
#[must_use]
pub(super) struct Pass<'a> {
    breakers: &'a Breakers,
    authority: &'a str,
    is_probe: bool,
}

impl Breakers {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self { config, states: Arc::default() }
    }

    /// Lets a request through, or returns how long the breaker stays open.
    pub(super) fn enter<'a>(&'a self, authority: &'a str, now: Instant) -> Result<Pass<'a>, Open> {
        let mut is_probe = false;
        if self.config.failures > 0
            && let Some(state) = self.states.lock().get_mut(authority)
            && state.failures >= self.config.failures
        {
            let left = self.config.pause.saturating_sub(now.saturating_duration_since(state.last));
            if !left.is_zero() || state.is_probed {
                return Err(Open { failures: state.failures, left });
            }
            (state.is_probed, is_probe) = (true, true);
        }
        Ok(Pass { breakers: self, authority, is_probe })
    }
}

impl Pass<'_> {
    /// The outcome of the request.
    pub(super) fn record(self, is_ok: bool, now: Instant) {
        if self.breakers.config.failures == 0 {
            return;
        }
        let mut states = self.breakers.states.lock();
        if is_ok {
            states.remove(self.authority);
            return;
        }
        if let Some(state) = states.get_mut(self.authority) {
            (state.failures, state.last) = (state.failures.saturating_add(1), now);
            return;
        }
        if states.len() >= AUTHORITIES_MAX
            && let Some(oldest) = states.iter().min_by_key(|(_, state)| state.last).map(|(name, _)| name.clone())
        {
            states.remove(&oldest);
        }
        states.insert(self.authority.to_owned(), State { failures: 1, last: now, is_probed: false });
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe
            && let Some(state) = self.breakers.states.lock().get_mut(self.authority)
        {
            state.is_probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig { failures: 2, pause: Duration::from_secs(10) };

    fn fails(breakers: &Breakers, host: &str, now: Instant) {
        breakers.enter(host, now).map_err(|_| ()).expect("let through").record(false, now);
    }

    #[test]
    fn a_host_that_fails_is_left_alone_and_probed_by_one_request() {
        let (breakers, start) = (Breakers::new(CONFIG), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        fails(&breakers, "a:443", at(0));
        fails(&breakers, "a:443", at(1));
        let open = breakers.enter("a:443", at(5)).err();
        assert_eq!(open, Some(Open { failures: 2, left: Duration::from_secs(6) }));
        assert!(breakers.enter("b:443", at(5)).is_ok(), "another host");
        let probe = breakers.enter("a:443", at(11)).map_err(|_| ()).expect("a probe");
        assert!(breakers.enter("a:443", at(11)).is_err(), "one at a time");
        drop(probe);
        fails(&breakers, "a:443", at(12));
        assert!(breakers.enter("a:443", at(21)).is_err(), "it failed again");
        breakers.enter("a:443", at(22)).map_err(|_| ()).expect("a probe").record(true, at(22));
        fails(&breakers, "a:443", at(23));
        assert!(breakers.enter("a:443", at(23)).is_ok(), "it begins anew");
    }

    #[test]
    fn the_number_of_breakers_is_bounded() {
        let (breakers, start) = (Breakers::new(CONFIG), Instant::now());
        for number in 0..2_000 {
            fails(&breakers, &format!("host{number}:80"), start + Duration::from_millis(number));
        }
        assert_eq!(breakers.states.lock().len(), AUTHORITIES_MAX);
        let off = Breakers::new(BreakerConfig::OFF);
        for _ in 0..10 {
            fails(&off, "a:80", start);
        }
        assert!(off.states.lock().is_empty());
    }
}
