//! Turns at the processor: who may compute, who waits for it, and who is told at once that there is no room to wait in.
//!
//! A turn is taken by a task that is about to compute on the thread it runs on, and given back when it is done; nothing is handed to
//! other threads, which would cost a tenth of a search. A runtime that has a thread more than there are turns always has one that
//! reads sockets.
//!
//! Invariants:
//! * Nobody waits to be refused: whether there is room is decided when a task asks.
//! * Nobody can take all the room. A principal, and likewise a subject, may hold as many places as there is room left, so that one
//!   alone gets half of it, and of many each gets its part. (The dynamic threshold of shared memory switches, α = 1: Choudhury
//!   and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
//! * Flows alternate, so that one with a long line does not hold up one with a short line.
//! * A turn is never lost: a task that goes away while it waits is passed over, and one that was just given its turn gives it on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

/// Whose work is and what it is about, as numbers that the caller chooses. Equal flows get their turns in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who wants it.
    pub principal: u64,
    /// What it works on.
    pub subject: u64,
}

/// There is no room to wait in; asking again a little later helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wait queue is full")]
pub struct Busy;

/// The turns there are, and the lines before them.
#[derive(Clone)]
pub struct Turns {
    lines: Arc<Lines>,
}

/// The right to compute now. It ends when this is dropped, which must not wait for anything but the computing.
#[must_use = "dropping it ends the turn"]
pub struct Turn {
    /// `None` once the turn was given back.
    lines: Option<Arc<Lines>>,
    flow: Flow,
}

/// A turn that was put off while its task waits for something else than the processor. Its place is kept; dropping it gives it up.
#[must_use = "dropping it ends the turn"]
pub struct Paused {
    /// `None` once it went on.
    lines: Option<Arc<Lines>>,
    flow: Flow,
}

struct Lines {
    state: Mutex<State>,
    /// Turns at once.
    width: usize,
    /// Places, those of tasks that compute included.
    room: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// The tasks that wait; no line is empty.
    waiting: FxHashMap<Flow, VecDeque<oneshot::Sender<Turn>>>,
    /// The flows with a line, next one first.
    order: VecDeque<Flow>,
    /// Tasks that compute.
    taken: usize,
    /// Tasks that wait or compute, together and by whose they are; no entry is 0.
    held: usize,
    of_principal: FxHashMap<u64, usize>,
    of_subject: FxHashMap<u64, usize>,
}

impl State {
    fn has_room(&self, flow: Flow, room: usize) -> bool {
        let left = room.saturating_sub(self.held);
        let held = |counts: &FxHashMap<u64, usize>, whose| counts.get(&whose).copied().unwrap_or_default();
        held(&self.of_principal, flow.principal) < left && held(&self.of_subject, flow.subject) < left
    }

    fn enter(&mut self, flow: Flow) {
        self.held += 1;
        *self.of_principal.entry(flow.principal).or_default() += 1;
        *self.of_subject.entry(flow.subject).or_default() += 1;
    }

    fn leave(&mut self, flow: Flow) {
        self.held -= 1;
        for (counts, whose) in [(&mut self.of_principal, flow.principal), (&mut self.of_subject, flow.subject)] {
            if let Some(count) = counts.get_mut(&whose) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&whose);
                }
            }
        }
    }

    fn wait(&mut self, flow: Flow, waiter: oneshot::Sender<Turn>) {
        let line = self.waiting.entry(flow).or_default();
        if line.is_empty() {
            self.order.push_back(flow);
        }
        line.push_back(waiter);
    }

    fn next(&mut self) -> Option<(Flow, oneshot::Sender<Turn>)> {
        let flow = self.order.pop_front()?;
        let line = self.waiting.get_mut(&flow)?;
        let waiter = line.pop_front()?;
        if line.is_empty() {
            self.waiting.remove(&flow);
        } else {
            self.order.push_back(flow);
        }
        Some((flow, waiter))
    }
}

impl Turns {
    /// `width` turns at once, and `room` places for tasks that compute or wait. Both are at least one.
    #[must_use]
    pub fn new(width: usize, room: usize) -> Self {
        Self {
            lines: Arc::new(Lines {
                state: Mutex::default(),
                width: width.max(1),
                room: AtomicUsize::new(room.max(1)),
            }),
        }
    }

    /// Changes the number of places. Those that have one keep it.
    pub fn set_room(&self, room: usize) {
        self.lines.room.store(room.max(1), Ordering::Relaxed);
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Busy`], at once, when there is no room to wait in.
    pub async fn take(&self, flow: Flow) -> Result<Turn, Busy> {
        let given = {
            let mut state = self.lines.state.lock();
            if !state.has_room(flow, self.lines.room.load(Ordering::Relaxed)) {
                return Err(Busy);
            }
            state.enter(flow);
            if state.taken < self.lines.width {
                state.taken += 1;
                return Ok(Turn { lines: Some(Arc::clone(&self.lines)), flow });
            }
            let (waiter, given) = oneshot::channel();
            state.wait(flow, waiter);
            given
        };
        // The lines are kept by whoever has a turn, and somebody has one while anybody waits.
        given.await.map_err(|_| Busy)
    }
}

impl Lines {
    /// Gives a turn that is free to whoever is next.
    fn hand_on(self: &Arc<Self>, state: &mut State) {
        while let Some((flow, waiter)) = state.next() {
            match waiter.send(Turn { lines: Some(Arc::clone(self)), flow }) {
                Ok(()) => return,
                // Nobody waits for it any more.
                Err(mut turn) => {
                    turn.lines = None;
                    state.leave(flow);
                }
            }
        }
        state.taken -= 1;
    }
}

impl Turn {
    /// Lets others compute while this task waits for something else, and keeps its place.
    pub fn pause(mut self) -> Paused {
        let lines = self.lines.take();
        if let Some(lines) = &lines {
            lines.hand_on(&mut lines.state.lock());
        }
        Paused { lines, flow: self.flow }
    }
}

impl Paused {
    /// Waits for the next turn of the flow. It was let in before, so it is not refused.
    ///
    /// # Errors
    /// [`Busy`] when the turns are gone.
    pub async fn resume(mut self) -> Result<Turn, Busy> {
        let Some(lines) = self.lines.take() else { return Err(Busy) };
        let given = {
            let mut state = lines.state.lock();
            if state.taken < lines.width {
                state.taken += 1;
                return Ok(Turn { lines: Some(Arc::clone(&lines)), flow: self.flow });
            }
            let (waiter, given) = oneshot::channel();
            state.wait(self.flow, waiter);
            given
        };
        drop(lines);
        given.await.map_err(|_| Busy)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(lines) = self.lines.take() else { return };
        let mut state = lines.state.lock();
        state.leave(self.flow);
        lines.hand_on(&mut state);
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.take() {
            lines.state.lock().leave(self.flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Asking = Pin<Box<dyn Future<Output = Result<Turn, Busy>> + Send>>;

    fn flow(principal: u64, subject: u64) -> Flow {
        Flow { principal, subject }
    }

    fn ask(turns: &Turns, flow: Flow) -> Asking {
        let turns = turns.clone();
        Box::pin(async move { turns.take(flow).await })
    }

    /// Asks once; who waits goes on waiting.
    fn poll(asking: &mut Asking) -> Poll<Result<Turn, Busy>> {
        asking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// The turn that must be had now.
    fn given(asking: &mut Asking) -> Turn {
        match poll(asking) {
            Poll::Ready(Ok(turn)) => turn,
            Poll::Ready(Err(Busy)) => panic!("refused"),
            Poll::Pending => panic!("it waits"),
        }
    }

    /// How many of a flow find a place, one after another.
    fn placed(turns: &Turns, flow: Flow, waiting: &mut Vec<Asking>) -> usize {
        let before = waiting.len();
        loop {
            let mut next = ask(turns, flow);
            match poll(&mut next) {
                Poll::Pending => waiting.push(next),
                Poll::Ready(Err(Busy)) => return waiting.len() - before,
                Poll::Ready(Ok(_)) => panic!("every turn is taken"),
            }
        }
    }

    #[test]
    fn one_gets_half_of_the_room_and_another_still_finds_some() {
        let turns = Turns::new(1, 101);
        for _ in 0..2 {
            let first = given(&mut ask(&turns, flow(9, 9)));
            let mut waiting = Vec::new();
            assert_eq!(placed(&turns, flow(1, 1), &mut waiting), 50, "as many as there is room left");
            assert_eq!(placed(&turns, flow(1, 2), &mut waiting), 0, "the principal has its part, whatever it asks for");
            assert_eq!(placed(&turns, flow(2, 1), &mut waiting), 0, "so has the subject, whoever asks");
            assert_eq!(placed(&turns, flow(2, 2), &mut waiting), 25);
            assert_eq!(placed(&turns, flow(3, 3), &mut waiting), 13);
            drop(first);
            // Each gets its turn when one before it ends; then everything is as at first.
            while !waiting.is_empty() {
                let left = waiting.len();
                waiting.retain_mut(|asking| poll(asking).is_pending());
                assert!(waiting.len() < left);
            }
        }
    }

    #[test]
    fn flows_alternate() {
        let turns = Turns::new(1, 100);
        let first = given(&mut ask(&turns, flow(9, 9)));
        let mut waiting: Vec<(u32, Asking)> = [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)]
            .map(|(principal, number)| (number, ask(&turns, flow(principal, principal))))
            .into();
        waiting.iter_mut().for_each(|(_, asking)| assert!(poll(asking).is_pending()));
        drop(first);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            waiting.retain_mut(|(number, asking)| {
                let is_pending = poll(asking).is_pending();
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
        let turns = Turns::new(1, 2);
        let first = given(&mut ask(&turns, flow(1, 1)));
        let mut second = ask(&turns, flow(2, 2));
        assert!(poll(&mut second).is_pending());
        let paused = first.pause();
        let second = given(&mut second);
        assert!(matches!(poll(&mut ask(&turns, flow(3, 3))), Poll::Ready(Err(Busy))), "both places are held");
        let mut resumed: Asking = Box::pin(paused.resume());
        assert!(poll(&mut resumed).is_pending(), "another computes");
        drop(second);
        let first = given(&mut resumed);
        drop(first.pause());
        let others: Vec<Turn> = vec![given(&mut ask(&turns, flow(4, 4)))];
        assert!(poll(&mut ask(&turns, flow(5, 5))).is_pending(), "the place of who paused and went is free");
        drop(others);
    }

    #[test]
    fn there_are_as_many_turns_as_said_and_no_more() {
        let turns = Turns::new(2, 100);
        let (one, two) = (given(&mut ask(&turns, flow(1, 1))), given(&mut ask(&turns, flow(1, 1))));
        let mut third = ask(&turns, flow(1, 1));
        assert!(poll(&mut third).is_pending());
        drop(two);
        let third = given(&mut third);
        assert!(poll(&mut ask(&turns, flow(1, 1))).is_pending());
        drop((one, third));
        let _again = (given(&mut ask(&turns, flow(1, 1))), given(&mut ask(&turns, flow(1, 1))));
    }

    #[test]
    fn who_goes_away_is_passed_over_and_its_turn_goes_on() {
        let turns = Turns::new(1, 100);
        let first = given(&mut ask(&turns, flow(1, 1)));
        let (mut gone, mut chosen, mut stays) =
            (ask(&turns, flow(1, 1)), ask(&turns, flow(1, 1)), ask(&turns, flow(1, 1)));
        for asking in [&mut gone, &mut chosen, &mut stays] {
            assert!(poll(asking).is_pending());
        }
        drop(gone);
        drop(first);
        // It was given its turn by now, and never looks.
        drop(chosen);
        drop(given(&mut stays));
        assert_eq!(turns.lines.state.lock().held, 0);
        assert!(turns.lines.state.lock().of_principal.is_empty() && turns.lines.state.lock().of_subject.is_empty());
        let _again = given(&mut ask(&turns, flow(1, 1)));
    }
}
