//! A budget of memory that work reserves before it starts, so that everything that runs at once fits into the node's
//! limit.
//!
//! Invariants: reservations never exceed the maximum, except for those made before the maximum was lowered. Requests
//! are served in order of arrival, so that large ones do not starve; a blocking thread outside the queue has a claim
//! that later requests respect. Only a few requests may wait, because each of them occupies a place that searches need
//! too. A holder that wants more waits only while no other holder does: two would deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turnstile, Notify};
use tokio::time::timeout;

/// A budget for work beyond the memory that a node always holds. Clones share the same budget.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified when memory was released.
    freed: Notify,
    /// Requests without a reservation, in order of arrival.
    arrivals: Turnstile<()>,
    /// How many of them wait.
    waiting: AtomicUsize,
    /// The one holder that waits to grow its reservation.
    growing: Turnstile<()>,
}

/// How many requests may wait at once.
const WAITING_MAX: usize = 4;

struct State {
    max: u64,
    reserved: u64,
    /// Bytes that blocking threads wait for outside the queue; newcomers leave them free.
    claimed: u64,
    /// Called when the reserved bytes or the maximum have changed noticeably.
    listener: Option<Listener>,
    /// The reserved bytes and the maximum at the last call.
    reported: Option<(u64, u64)>,
}

impl std::fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("max", &self.max())
            .field("reserved", &self.reserved())
            .finish_non_exhaustive()
    }
}

/// See [`MemoryBudget::on_change`].
type Listener = Arc<dyn Fn(u64) + Send + Sync>;

/// Smaller changes are not reported to the listener.
const REPORT_STEP: u64 = 1 << 20;

/// Why memory cannot be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// It exceeds the whole budget.
    #[error("more than there is")]
    TooLarge {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes of the budget.
        max: u64,
    },
    /// Other work holds the memory.
    #[error("others hold it")]
    Busy,
}

impl MemoryBudget {
    /// * `max`: bytes that may be reserved.
    #[must_use]
    pub fn new(max: u64) -> Self {
        let state = Mutex::new(State { max, reserved: 0, claimed: 0, listener: None, reported: None });
        let shared = Shared {
            state,
            freed: Notify::new(),
            arrivals: Turnstile::default(),
            waiting: AtomicUsize::new(0),
            growing: Turnstile::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Bytes that may be reserved.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.shared.state.lock().max
    }

    /// Bytes that are reserved.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.shared.state.lock().reserved
    }

    /// Changes how many bytes may be reserved. Existing reservations stay.
    pub fn set_max(&self, max: u64) {
        let mut state = self.shared.state.lock();
        if state.max == max && state.reported.is_some() {
            return;
        }
        state.max = max;
        state.notify_listener();
        drop(state);
        self.shared.freed.notify_waiters();
    }

    /// Registers `listener`, which is called with the reserved bytes before more are granted and after some were
    /// released, so that caches and the like can be shrunk to make room. It must not use the budget.
    pub fn on_change(&self, listener: impl Fn(u64) + Send + Sync + 'static) {
        self.shared.state.lock().listener = Some(Arc::new(listener));
    }

    /// Reserves `bytes`; waits at most `patience`.
    ///
    /// # Errors
    /// [`ReserveError`]
    pub async fn reserve(&self, bytes: u64, patience: Duration) -> Result<MemoryReservation, ReserveError> {
        let shared = &self.shared;
        // Nothing else waits and it fits, so this does not count as waiting.
        if shared.waiting.load(Ordering::SeqCst) == 0 {
            match shared.try_reserve(bytes, Requester::Newcomer) {
                Err(ReserveError::Busy) => {}
                done => return done.map(|()| MemoryReservation { shared: Arc::clone(shared), bytes }),
            }
        }
        let _one = QueueSlot::enter(&shared.waiting).ok_or(ReserveError::Busy)?;
        let waiting = async {
            let _first = shared.arrivals.lock().await;
            shared.reserve(bytes, Requester::Newcomer).await
        };
        timeout(patience, waiting).await.unwrap_or(Err(ReserveError::Busy))?;
        Ok(MemoryReservation { shared: Arc::clone(shared), bytes })
    }

    /// Like [`Self::reserve`], for a thread that is not a task. It does not join the queue; requests that arrive later
    /// leave free what it waits for.
    ///
    /// # Errors
    /// [`ReserveError`]
    pub fn reserve_blocking(&self, bytes: u64, patience: Duration) -> Result<MemoryReservation, ReserveError> {
        let deadline = std::time::Instant::now() + patience;
        let mut claim = None;
        while let Err(error) = self.shared.try_reserve(bytes, Requester::Holder) {
            if error != ReserveError::Busy || std::time::Instant::now() >= deadline {
                return Err(error);
            }
            claim.get_or_insert_with(|| Claim::new(&self.shared, bytes));
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(MemoryReservation { shared: Arc::clone(&self.shared), bytes })
    }
}

/// How often a blocking thread checks for free memory.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Who makes a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Requester {
    /// Holds no reservation.
    Newcomer,
    /// Holds a reservation or has a claim.
    Holder,
}

/// A place among the requests that wait.
struct QueueSlot<'a>(&'a AtomicUsize);

impl<'a> QueueSlot<'a> {
    fn enter(all: &'a AtomicUsize) -> Option<Self> {
        let one = Self(all);
        (all.fetch_add(1, Ordering::SeqCst) < WAITING_MAX).then_some(one)
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes that newcomers leave free.
struct Claim<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl<'a> Claim<'a> {
    fn new(shared: &'a Shared, bytes: u64) -> Self {
        let mut state = shared.state.lock();
        state.claimed = state.claimed.saturating_add(bytes);
        Self { shared, bytes }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.claimed = state.claimed.saturating_sub(self.bytes);
        drop(state);
        self.shared.freed.notify_waiters();
    }
}

impl Shared {
    fn try_reserve(&self, bytes: u64, requester: Requester) -> Result<(), ReserveError> {
        let mut state = self.state.lock();
        if bytes > state.max {
            return Err(ReserveError::TooLarge { needed: bytes, max: state.max });
        }
        let claimed = if requester == Requester::Newcomer { state.claimed } else { 0 };
        if state.reserved.saturating_add(bytes).saturating_add(claimed) > state.max {
            return Err(ReserveError::Busy);
        }
        state.reserved += bytes;
        state.notify_listener();
        Ok(())
    }

    /// Waits until the bytes can be reserved.
    async fn reserve(&self, bytes: u64, requester: Requester) -> Result<(), ReserveError> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.try_reserve(bytes, requester) {
                Err(ReserveError::Busy) => freed.await,
                done => return done,
            }
        }
    }

    fn release(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.reserved -= bytes;
        state.notify_listener();
        drop(state);
        self.freed.notify_waiters();
    }
}

impl State {
    fn notify_listener(&mut self) {
        let is_much = |(reserved, max): (u64, u64)| {
            self.reserved.abs_diff(reserved) >= REPORT_STEP || self.max.abs_diff(max) >= REPORT_STEP
        };
        if let Some(listener) = self.listener.as_ref().filter(|_| self.reported.is_none_or(is_much)) {
            listener(self.reserved);
            self.reported = Some((self.reserved, self.max));
        }
    }
}

/// Reserved memory; dropping it releases the reservation.
#[must_use = "it is given back when it is dropped"]
pub struct MemoryReservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl MemoryReservation {
    /// Releases what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let beyond = self.bytes.saturating_sub(bytes);
        self.bytes -= beyond;
        self.shared.release(beyond);
    }

    /// Grows the reservation to `bytes`. Waits at most `patience`, and not at all while another holder waits to grow.
    ///
    /// # Errors
    /// [`ReserveError`]; the reservation is unchanged then.
    pub async fn grow_to(&mut self, bytes: u64, patience: Duration) -> Result<(), ReserveError> {
        let missing = bytes.saturating_sub(self.bytes);
        if missing == 0 {
            return Ok(());
        }
        let max = self.shared.state.lock().max;
        if bytes > max {
            return Err(ReserveError::TooLarge { needed: bytes, max });
        }
        if self.shared.try_reserve(missing, Requester::Holder).is_err() {
            let _alone = self.shared.growing.try_lock().map_err(|_| ReserveError::Busy)?;
            timeout(patience, self.shared.reserve(missing, Requester::Holder))
                .await
                .unwrap_or(Err(ReserveError::Busy))?;
        }
        self.bytes += missing;
        Ok(())
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.shared.release(self.bytes);
    }
}

impl std::fmt::Debug for MemoryReservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryReservation").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn what_does_not_fit_waits_and_what_never_fits_is_refused() {
        let budget = MemoryBudget::new(100);
        let first = budget.reserve(60, LONG).await.expect("there is budget");
        assert_eq!(
            budget.reserve(101, LONG).await.expect_err("too much"),
            ReserveError::TooLarge { needed: 101, max: 100 }
        );
        assert_eq!(budget.reserve(50, Duration::ZERO).await.expect_err("reserved"), ReserveError::Busy);
        let large = budget.reserve(90, LONG);
        tokio::pin!(large);
        assert!(large.as_mut().now_or_never().is_none());
        // A request that would fit waits behind it.
        let small = budget.reserve(10, LONG);
        tokio::pin!(small);
        assert!(small.as_mut().now_or_never().is_none());
        drop(first);
        let large = large.await.expect("it came");
        let small = small.await.expect("it came");
        assert_eq!(budget.reserved(), 100);
        drop((large, small));
        assert_eq!(budget.reserved(), 0);
    }

    #[tokio::test]
    async fn two_that_want_more_do_not_wait_for_each_other() {
        let budget = MemoryBudget::new(100);
        let mut one = budget.reserve(50, LONG).await.expect("there is budget");
        let mut two = budget.reserve(50, LONG).await.expect("there is budget");
        {
            let growing = one.grow_to(60, LONG);
            tokio::pin!(growing);
            assert!(growing.as_mut().now_or_never().is_none());
            assert_eq!(two.grow_to(60, LONG).await, Err(ReserveError::Busy));
            two.shrink_to(40);
            growing.await.expect("it came");
        }
        assert_eq!((one.bytes, two.bytes, budget.reserved()), (60, 40, 100));
        assert_eq!(one.grow_to(101, LONG).await, Err(ReserveError::TooLarge { needed: 101, max: 100 }));
    }

    #[tokio::test]
    async fn one_that_stops_waiting_leaves_nothing_behind() {
        let budget = MemoryBudget::new(100);
        let first = budget.reserve(100, LONG).await.expect("there is budget");
        let waiting = budget.reserve(10, LONG);
        assert!(waiting.now_or_never().is_none(), "it is dropped here");
        drop(first);
        assert_eq!(budget.reserved(), 0);
        let all = budget.reserve(100, LONG).await.expect("nobody is before it");
        budget.set_max(50);
        assert_eq!(
            budget.reserve(10, Duration::ZERO).await.expect_err("more is reserved than there is"),
            ReserveError::Busy
        );
        drop(all);
        assert!(budget.reserve_blocking(50, Duration::ZERO).is_ok());
    }

    #[tokio::test]
    async fn the_listener_knows_before_much_is_given_out() {
        let budget = MemoryBudget::new(REPORT_STEP * 4);
        let reported = Arc::new(AtomicU64::new(0));
        let listener = Arc::clone(&reported);
        budget.on_change(move |reserved| listener.store(reserved, Ordering::SeqCst));
        let reserved = budget.reserve(REPORT_STEP * 3, LONG).await.expect("there is budget");
        assert_eq!(reported.load(Ordering::SeqCst), REPORT_STEP * 3);
        drop(reserved);
        assert_eq!(reported.load(Ordering::SeqCst), 0);
        // Many small steps add up to a large change.
        let mut reserved = budget.reserve(0, LONG).await.expect("there is budget");
        for step in 1..=6 {
            reserved.grow_to(step * REPORT_STEP / 2, LONG).await.expect("there is budget");
        }
        assert_eq!(reported.load(Ordering::SeqCst), REPORT_STEP * 3);
    }

    #[tokio::test]
    async fn few_wait_and_they_leave_a_thread_what_it_claims() {
        let budget = MemoryBudget::new(100);
        let all = budget.reserve(100, LONG).await.expect("there is budget");
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(budget.reserve(10, LONG))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert_eq!(budget.reserve(10, LONG).await.expect_err("enough wait"), ReserveError::Busy);
        drop(waiting);
        drop(all);
        // Any number may arrive at once while there is budget.
        let many: Vec<_> = (0..10).map(|_| budget.reserve(10, Duration::ZERO)).collect();
        let all = futures_util::future::join_all(many).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        let claim = Claim::new(&budget.shared, 95);
        drop(all);
        assert_eq!(budget.reserve(10, Duration::ZERO).await.expect_err("it is claimed"), ReserveError::Busy);
        let thread = budget.reserve_blocking(95, Duration::ZERO).expect("it is his");
        drop(claim);
        drop(thread);
        assert!(budget.reserve(10, Duration::ZERO).await.is_ok());
    }
}
