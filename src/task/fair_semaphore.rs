//! A fair semaphore for compute: limits how many tasks compute at once, queues the others, and rejects work immediately
//! when the queue is full.
//!
//! A task acquires a permit before it computes on its own thread and drops the permit afterwards. Work is not moved to
//! other threads; that would cost a tenth of a search. A runtime with one thread more than there are permits always has
//! a thread that reads sockets.
//!
//! Invariants:
//! * A request is refused immediately or not at all: capacity is checked when a task asks for a permit.
//! * No flow can use all the capacity. A principal, and likewise a subject, may occupy at most as many places as are
//!   still free: a single one gets half of the capacity, and several share it. (The dynamic threshold of shared memory
//!   switches, α = 1: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
//! * Flows are served round-robin, so a flow with a long queue does not delay one with a short queue.
//! * Permits are never lost: a task that is dropped while it waits is skipped, and one that is dropped just after it
//!   was granted a permit passes it to the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

/// Whose work this is and what it works on, as numbers that the caller chooses. Permits of equal flows are granted in
/// order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who requests the work.
    pub principal: u64,
    /// What the work is about.
    pub subject: u64,
}

/// The queue is full; retrying a little later helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wait queue is full")]
pub struct Busy;

/// A semaphore with a queue for each flow. Clones share the same permits.
#[derive(Clone)]
pub struct FairSemaphore {
    queues: Arc<Queues>,
}

/// Permission to compute now. Dropping it releases the permit; do not hold it while waiting for anything else.
#[must_use = "dropping it ends the permit"]
pub struct FairPermit {
    /// `None` once the permit was released.
    queues: Option<Arc<Queues>>,
    flow: Flow,
}

/// A permit that was released while its task waits for something other than the processor. The task still counts
/// towards the capacity; dropping this ends that.
#[must_use = "dropping it ends the permit"]
pub struct PausedPermit {
    /// `None` once it was resumed.
    queues: Option<Arc<Queues>>,
    flow: Flow,
}

struct Queues {
    state: Mutex<State>,
    /// Permits that can be held at once.
    permits: usize,
    /// Tasks that may compute or wait at once.
    capacity: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// The tasks that wait; no queue is empty.
    waiting: FxHashMap<Flow, VecDeque<oneshot::Sender<FairPermit>>>,
    /// The flows that have a queue, next one first.
    order: VecDeque<Flow>,
    /// Tasks that compute.
    running: usize,
    /// Tasks that wait or compute: all, by principal, and by subject. No entry is 0.
    admitted: usize,
    of_principal: FxHashMap<u64, usize>,
    of_subject: FxHashMap<u64, usize>,
}

impl State {
    fn has_capacity(&self, flow: Flow, capacity: usize) -> bool {
        let left = capacity.saturating_sub(self.admitted);
        let admitted = |counts: &FxHashMap<u64, usize>, whose| counts.get(&whose).copied().unwrap_or_default();
        admitted(&self.of_principal, flow.principal) < left && admitted(&self.of_subject, flow.subject) < left
    }

    fn enter(&mut self, flow: Flow) {
        self.admitted += 1;
        *self.of_principal.entry(flow.principal).or_default() += 1;
        *self.of_subject.entry(flow.subject).or_default() += 1;
    }

    fn leave(&mut self, flow: Flow) {
        self.admitted -= 1;
        for (counts, whose) in [(&mut self.of_principal, flow.principal), (&mut self.of_subject, flow.subject)] {
            if let Some(count) = counts.get_mut(&whose) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&whose);
                }
            }
        }
    }

    fn wait(&mut self, flow: Flow, waiter: oneshot::Sender<FairPermit>) {
        let queue = self.waiting.entry(flow).or_default();
        if queue.is_empty() {
            self.order.push_back(flow);
        }
        queue.push_back(waiter);
    }

    fn next(&mut self) -> Option<(Flow, oneshot::Sender<FairPermit>)> {
        let flow = self.order.pop_front()?;
        let queue = self.waiting.get_mut(&flow)?;
        let waiter = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&flow);
        } else {
            self.order.push_back(flow);
        }
        Some((flow, waiter))
    }
}

impl FairSemaphore {
    /// A semaphore with `permits` permits and places for `capacity` tasks that compute or wait. Both are at least one.
    #[must_use]
    pub fn new(permits: usize, capacity: usize) -> Self {
        Self {
            queues: Arc::new(Queues {
                state: Mutex::default(),
                permits: permits.max(1),
                capacity: AtomicUsize::new(capacity.max(1)),
            }),
        }
    }

    /// Changes the capacity. Tasks that were admitted stay.
    pub fn set_capacity(&self, capacity: usize) {
        self.queues.capacity.store(capacity.max(1), Ordering::Relaxed);
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// [`Busy`], immediately, when there is no capacity left.
    pub async fn acquire(&self, flow: Flow) -> Result<FairPermit, Busy> {
        let granted = {
            let mut state = self.queues.state.lock();
            if !state.has_capacity(flow, self.queues.capacity.load(Ordering::Relaxed)) {
                return Err(Busy);
            }
            state.enter(flow);
            if state.running < self.queues.permits {
                state.running += 1;
                return Ok(FairPermit { queues: Some(Arc::clone(&self.queues)), flow });
            }
            let (waiter, granted) = oneshot::channel();
            state.wait(flow, waiter);
            granted
        };
        // The holder of a permit keeps the queues alive, and a task only waits while another one holds a permit.
        granted.await.map_err(|_| Busy)
    }
}

impl Queues {
    /// Grants a free permit to the next task in the queue.
    fn grant_next(self: &Arc<Self>, state: &mut State) {
        while let Some((flow, waiter)) = state.next() {
            match waiter.send(FairPermit { queues: Some(Arc::clone(self)), flow }) {
                Ok(()) => return,
                // The waiting task was dropped.
                Err(mut permit) => {
                    permit.queues = None;
                    state.leave(flow);
                }
            }
        }
        state.running -= 1;
    }
}

impl FairPermit {
    /// Releases the permit while this task waits for something else. The task stays admitted.
    pub fn pause(mut self) -> PausedPermit {
        let queues = self.queues.take();
        if let Some(queues) = &queues {
            queues.grant_next(&mut queues.state.lock());
        }
        PausedPermit { queues, flow: self.flow }
    }
}

impl PausedPermit {
    /// Waits for the next permit of the flow. The task was admitted before, so it is not refused.
    ///
    /// # Errors
    /// [`Busy`] when the semaphore no longer exists.
    pub async fn resume(mut self) -> Result<FairPermit, Busy> {
        let Some(queues) = self.queues.take() else { return Err(Busy) };
        let granted = {
            let mut state = queues.state.lock();
            if state.running < queues.permits {
                state.running += 1;
                return Ok(FairPermit { queues: Some(Arc::clone(&queues)), flow: self.flow });
            }
            let (waiter, granted) = oneshot::channel();
            state.wait(self.flow, waiter);
            granted
        };
        drop(queues);
        granted.await.map_err(|_| Busy)
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        let Some(queues) = self.queues.take() else { return };
        let mut state = queues.state.lock();
        state.leave(self.flow);
        queues.grant_next(&mut state);
    }
}

impl Drop for PausedPermit {
    fn drop(&mut self) {
        if let Some(queues) = self.queues.take() {
            queues.state.lock().leave(self.flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Acquiring = Pin<Box<dyn Future<Output = Result<FairPermit, Busy>> + Send>>;

    fn flow(principal: u64, subject: u64) -> Flow {
        Flow { principal, subject }
    }

    fn ask(semaphore: &FairSemaphore, flow: Flow) -> Acquiring {
        let semaphore = semaphore.clone();
        Box::pin(async move { semaphore.acquire(flow).await })
    }

    /// Polls once; a pending acquisition stays in the queue.
    fn poll(acquiring: &mut Acquiring) -> Poll<Result<FairPermit, Busy>> {
        acquiring.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// The permit, which must be available now.
    fn granted(acquiring: &mut Acquiring) -> FairPermit {
        match poll(acquiring) {
            Poll::Ready(Ok(permit)) => permit,
            Poll::Ready(Err(Busy)) => panic!("refused"),
            Poll::Pending => panic!("it waits"),
        }
    }

    /// Queues tasks of a flow until one is refused; returns how many were queued.
    fn fill_queue(semaphore: &FairSemaphore, flow: Flow, waiting: &mut Vec<Acquiring>) -> usize {
        let before = waiting.len();
        loop {
            let mut next = ask(semaphore, flow);
            match poll(&mut next) {
                Poll::Pending => waiting.push(next),
                Poll::Ready(Err(Busy)) => return waiting.len() - before,
                Poll::Ready(Ok(_)) => panic!("every permit is running"),
            }
        }
    }

    #[test]
    fn one_gets_half_of_the_room_and_another_still_finds_some() {
        let semaphore = FairSemaphore::new(1, 101);
        for _ in 0..2 {
            let first = granted(&mut ask(&semaphore, flow(9, 9)));
            let mut waiting = Vec::new();
            assert_eq!(fill_queue(&semaphore, flow(1, 1), &mut waiting), 50, "as many as there is capacity left");
            assert_eq!(
                fill_queue(&semaphore, flow(1, 2), &mut waiting),
                0,
                "the principal has its part, whatever it asks for"
            );
            assert_eq!(fill_queue(&semaphore, flow(2, 1), &mut waiting), 0, "so has the subject, whoever asks");
            assert_eq!(fill_queue(&semaphore, flow(2, 2), &mut waiting), 25);
            assert_eq!(fill_queue(&semaphore, flow(3, 3), &mut waiting), 13);
            drop(first);
            // Each one gets a permit when an earlier one is released; then everything is as at the start.
            while !waiting.is_empty() {
                let left = waiting.len();
                waiting.retain_mut(|acquiring| poll(acquiring).is_pending());
                assert!(waiting.len() < left);
            }
        }
    }

    #[test]
    fn flows_alternate() {
        let semaphore = FairSemaphore::new(1, 100);
        let first = granted(&mut ask(&semaphore, flow(9, 9)));
        let mut waiting: Vec<(u32, Acquiring)> = [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)]
            .map(|(principal, number)| (number, ask(&semaphore, flow(principal, principal))))
            .into();
        waiting.iter_mut().for_each(|(_, acquiring)| assert!(poll(acquiring).is_pending()));
        drop(first);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            waiting.retain_mut(|(number, acquiring)| {
                let is_pending = poll(acquiring).is_pending();
                if !is_pending {
                    order.push(*number);
                }
                is_pending
            });
        }
        assert_eq!(order, [10, 20, 30, 11, 21, 12]);
    }

    #[test]
    fn who_pauses_lets_others_compute_and_keeps_the_place() {
        let semaphore = FairSemaphore::new(1, 2);
        let first = granted(&mut ask(&semaphore, flow(1, 1)));
        let mut second = ask(&semaphore, flow(2, 2));
        assert!(poll(&mut second).is_pending());
        let paused = first.pause();
        let second = granted(&mut second);
        assert!(matches!(poll(&mut ask(&semaphore, flow(3, 3))), Poll::Ready(Err(Busy))), "both places are admitted");
        let mut resumed: Acquiring = Box::pin(paused.resume());
        assert!(poll(&mut resumed).is_pending(), "another computes");
        drop(second);
        let first = granted(&mut resumed);
        drop(first.pause());
        let others: Vec<FairPermit> = vec![granted(&mut ask(&semaphore, flow(4, 4)))];
        assert!(poll(&mut ask(&semaphore, flow(5, 5))).is_pending(), "the place of who paused and went is free");
        drop(others);
    }

    #[test]
    fn there_are_as_many_turns_as_said_and_no_more() {
        let semaphore = FairSemaphore::new(2, 100);
        let (one, two) = (granted(&mut ask(&semaphore, flow(1, 1))), granted(&mut ask(&semaphore, flow(1, 1))));
        let mut third = ask(&semaphore, flow(1, 1));
        assert!(poll(&mut third).is_pending());
        drop(two);
        let third = granted(&mut third);
        assert!(poll(&mut ask(&semaphore, flow(1, 1))).is_pending());
        drop((one, third));
        let _again = (granted(&mut ask(&semaphore, flow(1, 1))), granted(&mut ask(&semaphore, flow(1, 1))));
    }

    #[test]
    fn who_goes_away_is_passed_over_and_its_turn_goes_on() {
        let semaphore = FairSemaphore::new(1, 100);
        let first = granted(&mut ask(&semaphore, flow(1, 1)));
        let (mut gone, mut chosen, mut stays) =
            (ask(&semaphore, flow(1, 1)), ask(&semaphore, flow(1, 1)), ask(&semaphore, flow(1, 1)));
        for acquiring in [&mut gone, &mut chosen, &mut stays] {
            assert!(poll(acquiring).is_pending());
        }
        drop(gone);
        drop(first);
        // It was granted a permit by now, but is never polled again.
        drop(chosen);
        drop(granted(&mut stays));
        assert_eq!(semaphore.queues.state.lock().admitted, 0);
        assert!(
            semaphore.queues.state.lock().of_principal.is_empty()
                && semaphore.queues.state.lock().of_subject.is_empty()
        );
        let _again = granted(&mut ask(&semaphore, flow(1, 1)));
    }
}
