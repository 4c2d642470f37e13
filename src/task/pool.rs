//! A thread pool for long computations: parsing, splitting and embedding documents that are added.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Runs long computations on as many threads as there are cores, at a lower priority than request handling, so a search
/// gets its core immediately. The queue is unbounded; the callers that wait bound it.
pub struct CpuPool {
    /// `None` once the pool shuts down.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl CpuPool {
    /// Starts `width` threads, at least one.
    ///
    /// * `name`: name of the threads.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub fn start(name: &str, width: usize) -> io::Result<Self> {
        let (jobs, waiting) = unbounded();
        let threads = (0..width.max(1)).map(|_| {
            let waiting = waiting.clone();
            super::spawn_behind(name, move || work(&waiting))
        });
        Ok(Self { jobs: Some(jobs), threads: threads.collect::<io::Result<_>>()? })
    }

    /// Runs `job` once a thread is free. A panic of the job is resumed in the caller. A job whose caller was dropped
    /// still runs.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The job is gone after a panic, and its shared state is behind locks without poisoning.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(job)));
        });
        self.jobs.as_ref().expect("taken in drop only").send(job).expect("the threads live as long as the pool");
        match answer.await.expect("every job is answered") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for CpuPool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A job may own the pool, so the last reference may be dropped on one of its threads.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for CpuPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuPool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

fn work(waiting: &Receiver<Job>) {
    while let Ok(job) = waiting.recv() {
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn jobs_run_and_a_panic_comes_back() {
        let pool = Arc::new(CpuPool::start("jobs", 2).expect("threads"));
        let sums = (0..50u64).map(|number| {
            let pool = Arc::clone(&pool);
            crate::task::spawn("sum", async move { pool.run(move || number * 2).await })
        });
        let mut total = 0;
        for sum in sums.collect::<Vec<_>>() {
            total += sum.await.expect("computed");
        }
        assert_eq!(total, 50 * 49);
        let failing = Arc::clone(&pool);
        let failed = crate::task::spawn("fails", async move { failing.run(|| panic!("as it may be")).await });
        assert!(failed.await.is_err_and(|error| error.is_panic()));
        assert_eq!(pool.run(|| 7).await, 7, "the threads are there still");
    }

    #[tokio::test]
    async fn they_give_way() {
        let pool = CpuPool::start("jobs", 1).expect("a thread");
        let own = rustix::process::getpriority_process(None).expect("known");
        let behind = pool.run(|| rustix::process::getpriority_process(None).expect("known")).await;
        assert!(behind > own, "{behind} {own}");
    }
}
