//! Threads that compute, and the lines of jobs before them: bounded in number, and shared fairly.
//!
//! Invariants:
//! * Nobody waits to be refused: whether there is room is decided when a job comes.
//! * Nobody can take all the room. A principal, and likewise a subject, may hold as many jobs as there is room left, so that one
//!   alone gets half of it, and of many each gets its part. (The dynamic threshold of shared memory switches, α = 1: Choudhury
//!   and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
//! * Flows take turns, so that one with a long line does not hold up one with a short line.
//! * A job that nobody waits for any more is not begun.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::spawn_thread;

/// Whose a job is and what it is about, as numbers that the caller chooses. Jobs of equal flows run in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who wants it.
    pub principal: u64,
    /// What it works on.
    pub subject: u64,
}

/// There is no room for another job; trying again a little later helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many jobs wait as may")]
pub struct Busy;

type Job = Box<dyn FnOnce() + Send>;

/// The threads and the lines. Dropping it ends the threads; jobs that still wait are not begun.
pub struct FairPool {
    lines: Arc<Lines>,
    threads: Vec<JoinHandle<()>>,
}

struct Lines {
    state: Mutex<State>,
    /// Rung for each job that comes, and for the end.
    coming: Condvar,
    /// Jobs held at once, those that run included.
    room: usize,
}

#[derive(Default)]
struct State {
    /// The jobs that wait; no line is empty.
    waiting: FxHashMap<Flow, VecDeque<Job>>,
    /// The flows with a line, next one first.
    turns: VecDeque<Flow>,
    /// Jobs that wait or run, together and by whose they are; no entry is 0.
    held: usize,
    of_principal: FxHashMap<u64, usize>,
    of_subject: FxHashMap<u64, usize>,
    is_over: bool,
}

impl State {
    fn has_room(&self, flow: Flow, room: usize) -> bool {
        let left = room.saturating_sub(self.held);
        let held = |counts: &FxHashMap<u64, usize>, whose| counts.get(&whose).copied().unwrap_or_default();
        held(&self.of_principal, flow.principal) < left && held(&self.of_subject, flow.subject) < left
    }

    fn enter(&mut self, flow: Flow, job: Job) {
        self.held += 1;
        *self.of_principal.entry(flow.principal).or_default() += 1;
        *self.of_subject.entry(flow.subject).or_default() += 1;
        let line = self.waiting.entry(flow).or_default();
        if line.is_empty() {
            self.turns.push_back(flow);
        }
        line.push_back(job);
    }

    fn next(&mut self) -> Option<(Flow, Job)> {
        let flow = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&flow)?;
        let job = line.pop_front()?;
        if line.is_empty() {
            self.waiting.remove(&flow);
        } else {
            self.turns.push_back(flow);
        }
        Some((flow, job))
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
}

impl Lines {
    /// Runs one job after another until the end.
    fn work(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            let Some((flow, job)) = state.next() else {
                self.coming.wait(&mut state);
                continue;
            };
            drop(state);
            job();
            state = self.state.lock();
            state.leave(flow);
        }
    }
}

impl FairPool {
    /// A pool of `threads` threads, named `name`, that holds up to `room` jobs, those that run included. Both are at least one.
    ///
    /// # Errors
    /// When the machine has no thread left.
    pub fn start(name: &str, threads: usize, room: usize) -> io::Result<Self> {
        let lines = Lines { state: Mutex::default(), coming: Condvar::new(), room: room.max(1) };
        let mut pool = Self { lines: Arc::new(lines), threads: Vec::new() };
        for _ in 0..threads.max(1) {
            let lines = Arc::clone(&pool.lines);
            pool.threads.push(spawn_thread(name, move || lines.work())?);
        }
        Ok(pool)
    }

    /// Runs `job` when it is its flow's turn. A panic of the job goes on in the caller. A caller that goes away before its job
    /// has begun takes it along.
    ///
    /// # Errors
    /// [`Busy`], at once, when there is no room for it.
    pub async fn run<T: Send + 'static>(
        &self,
        flow: Flow,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (answer, answered) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let job = move || {
            if !answer.is_closed() {
                let _ = answer.send(catch_unwind(AssertUnwindSafe(job)));
            }
        };
        {
            let mut state = self.lines.state.lock();
            if !state.has_room(flow, self.lines.room) {
                return Err(Busy);
            }
            state.enter(flow, Box::new(job));
        }
        self.lines.coming.notify_one();
        match answered.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => resume_unwind(panic),
            // The pool ended before it was this job's turn.
            Err(_) => Err(Busy),
        }
    }
}

impl Drop for FairPool {
    fn drop(&mut self) {
        let left = {
            let mut state = self.lines.state.lock();
            state.is_over = true;
            std::mem::take(&mut state.waiting)
        };
        self.lines.coming.notify_all();
        drop(left);
        for thread in self.threads.drain(..) {
            // A job's panic was its caller's; the thread itself does nothing that could.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Pending = Pin<Box<dyn Future<Output = Result<u64, Busy>> + Send>>;

    fn flow(principal: u64, subject: u64) -> Flow {
        Flow { principal, subject }
    }

    /// Asks once; what waits goes on waiting.
    fn poll(pending: &mut Pending) -> Poll<Result<u64, Busy>> {
        pending.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A pool of one thread, held up until the sender is dropped.
    fn held_up(room: usize) -> (Arc<FairPool>, Pending, mpsc::Sender<()>) {
        let pool = Arc::new(FairPool::start("test", 1, room).expect("a thread"));
        let (first, hold) = hold_up(&pool);
        (pool, first, hold)
    }

    /// Holds up the one thread of a pool, from now on, with a job of nobody else's flow.
    fn hold_up(pool: &Arc<FairPool>) -> (Pending, mpsc::Sender<()>) {
        let (hold, held) = mpsc::channel::<()>();
        let (begun, beginning) = mpsc::channel();
        let mut first = submit(pool, flow(u64::MAX, u64::MAX), move || {
            begun.send(()).expect("awaited");
            let _ = held.recv();
            0
        });
        assert!(poll(&mut first).is_pending());
        beginning.recv().expect("begun");
        (first, hold)
    }

    fn submit(pool: &Arc<FairPool>, flow: Flow, job: impl FnOnce() -> u64 + Send + 'static) -> Pending {
        let pool = Arc::clone(pool);
        Box::pin(async move { pool.run(flow, job).await })
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    /// How many jobs of `flow` get in, one after another.
    fn admitted(pool: &Arc<FairPool>, flow: Flow, waiting: &mut Vec<Pending>) -> usize {
        let mut count = 0;
        loop {
            let mut next = submit(pool, flow, || 1);
            if poll(&mut next).is_ready() {
                return count;
            }
            waiting.push(next);
            count += 1;
        }
    }

    #[test]
    fn one_gets_half_of_the_room_and_another_still_finds_some() {
        let (pool, first, hold) = held_up(101);
        let mut waiting = Vec::new();
        assert_eq!(admitted(&pool, flow(1, 1), &mut waiting), 50, "as many as there is room left");
        assert_eq!(admitted(&pool, flow(1, 2), &mut waiting), 0, "the principal has its part, whatever it asks for");
        assert_eq!(admitted(&pool, flow(2, 1), &mut waiting), 0, "so has the subject, whoever asks");
        assert_eq!(admitted(&pool, flow(2, 2), &mut waiting), 25);
        assert_eq!(admitted(&pool, flow(3, 3), &mut waiting), 13);
        drop(hold);
        assert_eq!(block_on(first), Ok(0));
        for pending in waiting.drain(..) {
            assert_eq!(block_on(pending), Ok(1));
        }
        let (again, hold) = hold_up(&pool);
        assert_eq!(admitted(&pool, flow(1, 1), &mut waiting), 50, "room comes back");
        drop(hold);
        assert_eq!(block_on(again), Ok(0));
        for pending in waiting {
            assert_eq!(block_on(pending), Ok(1));
        }
    }

    #[test]
    fn flows_take_turns() {
        let (pool, first, hold) = held_up(100);
        let (told, order) = mpsc::channel();
        let mut waiting = Vec::new();
        for (principal, number) in [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)] {
            let told = told.clone();
            let mut pending = submit(&pool, flow(principal, principal), move || {
                told.send(number).expect("awaited");
                number
            });
            assert!(poll(&mut pending).is_pending());
            waiting.push(pending);
        }
        drop((hold, told));
        assert_eq!(order.into_iter().collect::<Vec<_>>(), [10, 20, 30, 11, 21, 12]);
        block_on(first).expect("run");
        for pending in waiting {
            block_on(pending).expect("run");
        }
    }

    #[test]
    fn who_goes_away_takes_the_job_along() {
        let (pool, first, hold) = held_up(100);
        let (told, order) = mpsc::channel();
        let tell = |number: u64| {
            let told = told.clone();
            move || {
                told.send(number).expect("awaited");
                number
            }
        };
        let mut gone = submit(&pool, flow(1, 1), tell(1));
        let mut stays = submit(&pool, flow(1, 1), tell(2));
        assert!(poll(&mut gone).is_pending() && poll(&mut stays).is_pending());
        drop(gone);
        drop((hold, told));
        assert_eq!(block_on(stays), Ok(2));
        assert_eq!(order.into_iter().collect::<Vec<_>>(), [2]);
        block_on(first).expect("run");
    }

    #[test]
    fn a_panic_is_the_callers_and_the_pool_goes_on() {
        let pool = Arc::new(FairPool::start("test", 1, 4).expect("a thread"));
        let pending = submit(&pool, flow(1, 1), || panic!("a job's own"));
        let told = catch_unwind(AssertUnwindSafe(|| block_on(pending))).expect_err("it panics here");
        assert_eq!(told.downcast_ref::<&str>(), Some(&"a job's own"));
        assert_eq!(block_on(submit(&pool, flow(1, 1), || 7)), Ok(7));
    }

    #[test]
    fn what_waits_when_the_pool_ends_is_refused() {
        let (pool, first, hold) = held_up(100);
        let (answer, answered) = oneshot::channel::<u64>();
        {
            let mut state = pool.lines.state.lock();
            state.enter(flow(1, 1), Box::new(move || assert!(answer.send(1).is_ok())));
        }
        // The job in hand ends first; a thread that ends waits for it.
        let ending = spawn_thread("ends", move || drop((first, pool))).expect("a thread");
        assert!(block_on(answered).is_err(), "never begun");
        drop(hold);
        ending.join().expect("ended");
    }
}
