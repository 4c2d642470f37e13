//! Calls at a rate, and how long each took.
//!
//! The load is open: calls are due at fixed times, whether or not earlier ones were answered, and a call's time counts from when it
//! was due. A generator that waits for an answer before it asks again leaves out just those calls that would have waited
//! (coordinated omission), and shows a slow node as a quick one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What came of one call.
pub(super) enum Answer {
    /// It was answered.
    Answered,
    /// The node was overloaded, and said so.
    Refused,
    /// Anything else.
    Failed,
}

/// Whether and how often to call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Calls each second, above 0, from all clients together; `None`: each client calls again as soon as it has its answer.
    pub(super) rate: Option<f64>,
    /// How long.
    pub(super) time: Duration,
}

/// The result of a load.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Times of the calls that were answered, ascending.
    pub(super) answered: Vec<Duration>,
    /// Times of those that were refused, ascending.
    pub(super) refused: Vec<Duration>,
    /// Calls that failed.
    pub(super) failed: usize,
    /// Calls that were due while every client waited for an answer, until the time was over.
    pub(super) unsent: usize,
    /// How long all of it took.
    pub(super) time: Duration,
}

impl Outcome {
    /// Answers each second.
    pub(super) fn rate(&self) -> f64 {
        self.answered.len() as f64 / self.time.as_secs_f64()
    }
}

/// The time that a part of all calls stayed below: the nearest rank of times that ascend.
///
/// * `part`: 0 to 1.
pub(super) fn quantile(times: &[Duration], part: f64) -> Duration {
    let rank = (part * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Calls as the load says, each client on a thread of its own.
///
/// * `clients`: each gets the number of its call, which no other call has.
pub(super) fn run<C: FnMut(u64) -> Answer + Send>(load: Load, first: u64, clients: &mut [C]) -> Outcome {
    let next = AtomicU64::new(0);
    let start = Instant::now();
    let work = |client: &mut C| {
        let mut own = Outcome::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let due = load.rate.map_or_else(|| start.elapsed(), |rate| Duration::from_secs_f64(number as f64 / rate));
            if due >= load.time {
                return own;
            }
            if load.rate.is_some() && start.elapsed() >= load.time {
                own.unsent += 1;
                continue;
            }
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let answer = client(first + number);
            let took = start.elapsed() - due;
            match answer {
                Answer::Answered => own.answered.push(took),
                Answer::Refused => own.refused.push(took),
                Answer::Failed => own.failed += 1,
            }
        }
    };
    let mut all = Outcome::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| work(client))).collect();
        for thread in threads {
            let own = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.answered.extend(own.answered);
            all.refused.extend(own.refused);
            all.failed += own.failed;
            all.unsent += own.unsent;
        }
    });
    all.time = start.elapsed();
    all.answered.sort_unstable();
    all.refused.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_waits_for_another_is_as_late_as_it_is() {
        // One client, and a first call that takes as long as thirty are due in: those after it were due meanwhile.
        let load = Load { rate: Some(1_000.0), time: Duration::from_millis(40) };
        let long = Duration::from_millis(30);
        let mut client = |number: u64| {
            let begun = Instant::now();
            while number == 0 && begun.elapsed() < long {
                std::thread::yield_now();
            }
            Answer::Answered
        };
        let outcome = run(load, 0, std::slice::from_mut(&mut client));
        assert_eq!(outcome.answered.len() + outcome.unsent, 40, "every call that was due is accounted for");
        let late = outcome.answered.iter().filter(|time| **time > long / 3).count();
        assert!(late >= 20, "those that were due behind the long one have waited: {:?}", outcome.answered);
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        for (part, rank) in [(0.5, 100), (0.99, 198), (0.999, 200), (1.0, 200), (0.0, 1)] {
            assert_eq!(quantile(&times, part), Duration::from_millis(rank));
        }
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
