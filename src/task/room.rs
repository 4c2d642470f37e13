//! Memory that work sets aside before it begins, so that what goes on at once fits into the node's limit.
//!
//! Invariants: what is held never goes beyond what there is, but for what was held already when that became less. Who waits is
//! served in the order of coming, so that large work is not passed over for ever; a thread that waits beside them has a claim that
//! they respect. Only a few wait: each has a place that searches want, too. Who holds some and wants more waits only if nobody else
//! does so: two would wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turnstile, Notify};
use tokio::time::timeout;

/// Room for what is done beside what a node always holds. Clones are the same room.
#[derive(Clone)]
pub struct Room {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Rung when there is more.
    freed: Notify,
    /// Those who hold nothing yet, in the order of coming.
    coming: Turnstile<()>,
    /// How many they are.
    waiting: AtomicUsize,
    /// The one who holds some and waits for more.
    growing: Turnstile<()>,
}

/// How many may wait at once.
const WAITING_MAX: usize = 4;

struct State {
    max: u64,
    held: u64,
    /// What a thread waits for that does not stand in the queue; who comes leaves it free.
    claimed: u64,
    /// Told of what is held whenever that, or what there is, has changed by much.
    listener: Option<Listener>,
    /// What was held and what there was when it was told.
    told: Option<(u64, u64)>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("max", &self.max()).field("held", &self.held()).finish_non_exhaustive()
    }
}

/// See [`Room::listen`].
type Listener = Arc<dyn Fn(u64) + Send + Sync>;

/// Less than this is not told to the listener.
const MUCH: u64 = 1 << 20;

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// It would not fit if nothing else went on.
    #[error("more than there is")]
    Never {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are.
        max: u64,
    },
    /// Others hold it.
    #[error("others hold it")]
    Busy,
}

impl Room {
    /// * `max`: bytes that may be held.
    #[must_use]
    pub fn new(max: u64) -> Self {
        let state = Mutex::new(State { max, held: 0, claimed: 0, listener: None, told: None });
        let shared = Shared {
            state,
            freed: Notify::new(),
            coming: Turnstile::default(),
            waiting: AtomicUsize::new(0),
            growing: Turnstile::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Bytes that may be held.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.shared.state.lock().max
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shared.state.lock().held
    }

    /// Changes how many bytes may be held. What is held stays held.
    pub fn set_max(&self, max: u64) {
        let mut state = self.shared.state.lock();
        if state.max == max && state.told.is_some() {
            return;
        }
        state.max = max;
        state.tell();
        drop(state);
        self.shared.freed.notify_waiters();
    }

    /// Has `listener` told of the bytes that are held before more are given out, and after some came back: what can be given up
    /// for them, such as caches, is given up there. It must not use the room.
    pub fn listen(&self, listener: impl Fn(u64) + Send + Sync + 'static) {
        self.shared.state.lock().listener = Some(Arc::new(listener));
    }

    /// Sets `bytes` aside, waiting for others at most `patience`.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub async fn hold(&self, bytes: u64, patience: Duration) -> Result<Held, NoRoom> {
        let shared = &self.shared;
        // Nobody waits, and it fits: that is no waiting.
        if shared.waiting.load(Ordering::SeqCst) == 0 {
            match shared.try_take(bytes, Asks::First) {
                Err(NoRoom::Busy) => {}
                done => return done.map(|()| Held { shared: Arc::clone(shared), bytes }),
            }
        }
        let _one = Waiting::begin(&shared.waiting).ok_or(NoRoom::Busy)?;
        let waiting = async {
            let _turn = shared.coming.lock().await;
            shared.take(bytes, Asks::First).await
        };
        timeout(patience, waiting).await.unwrap_or(Err(NoRoom::Busy))?;
        Ok(Held { shared: Arc::clone(shared), bytes })
    }

    /// The same for a thread that is no task. It does not stand in the queue, and what comes there leaves it what it waits for.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn hold_here(&self, bytes: u64, patience: Duration) -> Result<Held, NoRoom> {
        let deadline = std::time::Instant::now() + patience;
        let mut claim = None;
        while let Err(error) = self.shared.try_take(bytes, Asks::Claimed) {
            if error != NoRoom::Busy || std::time::Instant::now() >= deadline {
                return Err(error);
            }
            claim.get_or_insert_with(|| Claim::of(&self.shared, bytes));
            std::thread::sleep(PAUSE);
        }
        Ok(Held { shared: Arc::clone(&self.shared), bytes })
    }
}

/// How often a thread that is no task looks whether there is room.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Somebody who holds nothing.
    First,
    /// Somebody who holds some, or has a claim.
    Claimed,
}

/// One more who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(all: &'a AtomicUsize) -> Option<Self> {
        let one = Self(all);
        (all.fetch_add(1, Ordering::SeqCst) < WAITING_MAX).then_some(one)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes that who comes leaves free.
struct Claim<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl<'a> Claim<'a> {
    fn of(shared: &'a Shared, bytes: u64) -> Self {
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
    fn try_take(&self, bytes: u64, asks: Asks) -> Result<(), NoRoom> {
        let mut state = self.state.lock();
        if bytes > state.max {
            return Err(NoRoom::Never { needed: bytes, max: state.max });
        }
        let claimed = if asks == Asks::First { state.claimed } else { 0 };
        if state.held.saturating_add(bytes).saturating_add(claimed) > state.max {
            return Err(NoRoom::Busy);
        }
        state.held += bytes;
        state.tell();
        Ok(())
    }

    /// Waits until it can take them.
    async fn take(&self, bytes: u64, asks: Asks) -> Result<(), NoRoom> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.try_take(bytes, asks) {
                Err(NoRoom::Busy) => freed.await,
                done => return done,
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.held -= bytes;
        state.tell();
        drop(state);
        self.freed.notify_waiters();
    }
}

impl State {
    fn tell(&mut self) {
        let is_much = |(held, max): (u64, u64)| self.held.abs_diff(held) >= MUCH || self.max.abs_diff(max) >= MUCH;
        if let Some(listener) = self.listener.as_ref().filter(|_| self.told.is_none_or(is_much)) {
            listener(self.held);
            self.told = Some((self.held, self.max));
        }
    }
}

/// Memory that was set aside; dropping it gives it back.
#[must_use = "it is given back when it is dropped"]
pub struct Held {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Held {
    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let beyond = self.bytes.saturating_sub(bytes);
        self.bytes -= beyond;
        self.shared.give_back(beyond);
    }

    /// Takes more, until it is `bytes`. Waits at most `patience`, and not at all while another one waits for more.
    ///
    /// # Errors
    /// [`NoRoom`]; it holds what it held.
    pub async fn grow_to(&mut self, bytes: u64, patience: Duration) -> Result<(), NoRoom> {
        let missing = bytes.saturating_sub(self.bytes);
        if missing == 0 {
            return Ok(());
        }
        let max = self.shared.state.lock().max;
        if bytes > max {
            return Err(NoRoom::Never { needed: bytes, max });
        }
        if self.shared.try_take(missing, Asks::Claimed).is_err() {
            let _alone = self.shared.growing.try_lock().map_err(|_| NoRoom::Busy)?;
            timeout(patience, self.shared.take(missing, Asks::Claimed)).await.unwrap_or(Err(NoRoom::Busy))?;
        }
        self.bytes += missing;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.give_back(self.bytes);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("bytes", &self.bytes).finish_non_exhaustive()
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
        let room = Room::new(100);
        let first = room.hold(60, LONG).await.expect("there is room");
        assert_eq!(room.hold(101, LONG).await.expect_err("too much"), NoRoom::Never { needed: 101, max: 100 });
        assert_eq!(room.hold(50, Duration::ZERO).await.expect_err("held"), NoRoom::Busy);
        let large = room.hold(90, LONG);
        tokio::pin!(large);
        assert!(large.as_mut().now_or_never().is_none());
        // What would fit stands behind it.
        let small = room.hold(10, LONG);
        tokio::pin!(small);
        assert!(small.as_mut().now_or_never().is_none());
        drop(first);
        let large = large.await.expect("it came");
        let small = small.await.expect("it came");
        assert_eq!(room.held(), 100);
        drop((large, small));
        assert_eq!(room.held(), 0);
    }

    #[tokio::test]
    async fn two_that_want_more_do_not_wait_for_each_other() {
        let room = Room::new(100);
        let mut one = room.hold(50, LONG).await.expect("there is room");
        let mut two = room.hold(50, LONG).await.expect("there is room");
        {
            let growing = one.grow_to(60, LONG);
            tokio::pin!(growing);
            assert!(growing.as_mut().now_or_never().is_none());
            assert_eq!(two.grow_to(60, LONG).await, Err(NoRoom::Busy));
            two.shrink_to(40);
            growing.await.expect("it came");
        }
        assert_eq!((one.bytes, two.bytes, room.held()), (60, 40, 100));
        assert_eq!(one.grow_to(101, LONG).await, Err(NoRoom::Never { needed: 101, max: 100 }));
    }

    #[tokio::test]
    async fn one_that_stops_waiting_leaves_nothing_behind() {
        let room = Room::new(100);
        let first = room.hold(100, LONG).await.expect("there is room");
        let waiting = room.hold(10, LONG);
        assert!(waiting.now_or_never().is_none(), "it is dropped here");
        drop(first);
        assert_eq!(room.held(), 0);
        let all = room.hold(100, LONG).await.expect("nobody is before it");
        room.set_max(50);
        assert_eq!(room.hold(10, Duration::ZERO).await.expect_err("more is held than there is"), NoRoom::Busy);
        drop(all);
        assert!(room.hold_here(50, Duration::ZERO).is_ok());
    }

    #[tokio::test]
    async fn the_listener_knows_before_much_is_given_out() {
        let room = Room::new(MUCH * 4);
        let told = Arc::new(AtomicU64::new(0));
        let listener = Arc::clone(&told);
        room.listen(move |held| listener.store(held, Ordering::SeqCst));
        let held = room.hold(MUCH * 3, LONG).await.expect("there is room");
        assert_eq!(told.load(Ordering::SeqCst), MUCH * 3);
        drop(held);
        assert_eq!(told.load(Ordering::SeqCst), 0);
        // Many small steps are much, too.
        let mut held = room.hold(0, LONG).await.expect("there is room");
        for step in 1..=6 {
            held.grow_to(step * MUCH / 2, LONG).await.expect("there is room");
        }
        assert_eq!(told.load(Ordering::SeqCst), MUCH * 3);
    }

    #[tokio::test]
    async fn few_wait_and_they_leave_a_thread_what_it_claims() {
        let room = Room::new(100);
        let all = room.hold(100, LONG).await.expect("there is room");
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(room.hold(10, LONG))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert_eq!(room.hold(10, LONG).await.expect_err("enough wait"), NoRoom::Busy);
        drop(waiting);
        drop(all);
        // Many may come at once where there is room.
        let many: Vec<_> = (0..10).map(|_| room.hold(10, Duration::ZERO)).collect();
        let all = futures_util::future::join_all(many).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        let claim = Claim::of(&room.shared, 95);
        drop(all);
        assert_eq!(room.hold(10, Duration::ZERO).await.expect_err("it is claimed"), NoRoom::Busy);
        let thread = room.hold_here(95, Duration::ZERO).expect("it is his");
        drop(claim);
        drop(thread);
        assert!(room.hold(10, Duration::ZERO).await.is_ok());
    }
}
