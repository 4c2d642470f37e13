//! The GPU for the indexes: a queue of queries, and one thread that owns the helper and answers them in batches.
//!
//! # The way of a query
//! A search uses the GPU only if its collection's [`Seat`] is open, which costs one load. Its query waits in the queue;
//! queries that wait while the device is busy form one batch. After a batch of several queries the thread waits a
//! moment for as many again; a single query is sent immediately. The search waits for [`PATIENCE`] and then runs on the
//! CPU.
//!
//! # When the device fails
//! All waiting queries are given up immediately, every seat is closed, and the helper is ended and restarted, after one
//! second, then two, up to five minutes. Then collections are loaded from their files again. Until then the CPU answers
//! and nothing waits.
//!
//! # Invariants
//! * No search waits for the GPU longer than [`PATIENCE`], and none waits at all while it is known not to answer.
//! * Every query is answered or given up: a caller without a deadline waits no longer than a batch may take.
//! * An answer names the matrix and the rows that the device had: the index decides whether it is usable.
//! * Without a service nothing here costs anything.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use half::f16;
use parking_lot::{Condvar, Mutex};
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use tokio::sync::oneshot;

use super::super::vector::{Bits, RowSet};
use super::metrics::Metrics;
use super::worker::Worker;
use super::{Adapter, LIMIT_MAX, Scored};
use crate::base::setting;
use crate::task;

/// How long a search waits for the GPU before the CPU answers it.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// How long the GPU is not used after a search waited in vain, unless a batch is answered before.
const STALL: Duration = Duration::from_secs(1);
/// Milliseconds that a search of a refused collection is remembered beyond `idle`.
const WANTED_LATELY: u64 = 5_000;
/// Maximum length of the queue.
const QUEUE_MAX: usize = 1_024;
/// Maximum bytes of all filters of a batch: a quarter of a message's.
pub(super) const FILTER_BYTES_MAX: usize = 16 << 20;
/// Additional rows to request, since some may have been removed meanwhile.
const SPARE: usize = 16;

/// Whether the GPU is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// If it answers with less work, and a single query hardly later than the CPU.
    Auto,
    /// For every collection that is not tiny.
    On,
    /// Nowhere.
    Off,
    /// Like `On`, and a rasteriser on the CPU is acceptable: for tests.
    Software,
}

impl FromStr for Use {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            "software" => Ok(Self::Software),
            _ => Err(()),
        }
    }
}

impl<'de> Deserialize<'de> for Use {
    /// [`Use::Software`] is hidden: it is for tests.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = setting::text(deserializer)?;
        text.parse().map_err(|()| D::Error::invalid_value(Unexpected::Str(&text), &"auto, on or off"))
    }
}

/// The configuration of the service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Options {
    /// Whether the GPU is used.
    #[serde(rename = "gpu")]
    pub how: Use,
    /// Device memory for vectors, in bytes; 0 for all of it.
    #[serde(rename = "gpu_memory_bytes_max", deserialize_with = "setting::bytes::<_, 0>")]
    pub memory_bytes_max: u64,
    /// How long a batch waits for more queries under load; at most [`BATCH_WAIT_MAX`].
    #[serde(rename = "gpu_batch_wait", deserialize_with = "setting::duration::<_, 0, BATCH_WAIT_MAX_MS>")]
    pub batch_wait: Duration,
    /// How long a collection must be idle before another may take its memory.
    #[serde(skip, default = "usual_idle")]
    pub idle: Duration,
}

/// Longest `batch_wait`: questions are given up after [`PATIENCE`].
pub const BATCH_WAIT_MAX: Duration = Duration::from_millis(BATCH_WAIT_MAX_MS);
const BATCH_WAIT_MAX_MS: u64 = 50;
/// The usual `idle`.
pub const IDLE: Duration = Duration::from_secs(60);

fn usual_idle() -> Duration {
    IDLE
}

/// A snapshot of a collection's vectors.
pub(in crate::index) struct Snapshot {
    /// The generation of the matrix.
    pub generation: u64,
    /// The file with the vectors, row after row.
    pub file: Arc<File>,
    /// Numbers of a vector.
    pub dimensions: usize,
    /// Rows in the file, including removed ones.
    pub rows: usize,
    /// Rows that a search may find.
    pub live: usize,
    /// Those rows.
    pub alive: Bits,
}

/// A collection that the GPU may search.
pub(in crate::index) trait Vectors: Send + Sync {
    /// Its current vectors.
    fn snapshot(&self) -> Snapshot;
    /// Up to `count` of its vectors, evenly spread.
    fn samples(&self, count: usize) -> Vec<Vec<f16>>;
    /// Answers a query on the CPU, for comparison.
    fn search_by_cpu(&self, query: &[f16], limit: usize);
}

/// Which processor answers the queries of a collection, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is the GPU.
    pub by_gpu: bool,
    /// The reason in words.
    pub reason: String,
}

/// A collection's registration with the service.
pub struct Seat {
    id: u64,
    /// Whether queries are accepted.
    is_open: AtomicBool,
    /// The collection is reviewed again when it reaches this many rows.
    review_at: AtomicUsize,
    /// There is no memory for it on the device until other collections release theirs.
    is_refused: AtomicBool,
    /// When it was last searched while it was refused, in milliseconds after the start of the service.
    wanted: AtomicU64,
    /// The number of requested rows is multiplied by this: bytes distinguish near neighbours less well.
    factor: AtomicUsize,
    verdict: Mutex<Verdict>,
}

impl Seat {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether queries are accepted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Whether answers are exact: bytes may miss a neighbour.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.is_open() && self.factor.load(Ordering::Relaxed) == 1
    }

    /// Which processor answers, and why.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict.lock().clone()
    }

    pub(super) fn open(&self, factor: usize, reason: String) {
        self.factor.store(factor, Ordering::Relaxed);
        *self.verdict.lock() = Verdict { by_gpu: true, reason };
        self.is_open.store(true, Ordering::Release);
    }

    pub(super) fn close(&self, reason: impl Into<String>) {
        self.is_open.store(false, Ordering::Release);
        *self.verdict.lock() = Verdict { by_gpu: false, reason: reason.into() };
    }

    /// Closes it for lack of memory.
    pub(super) fn refuse(&self, reason: impl Into<String>) {
        self.close(reason);
        self.is_refused.store(true, Ordering::Release);
    }

    /// Resets whether it was refused, and returns it; it is being reviewed now.
    pub(super) fn take_refusal(&self) -> bool {
        self.is_refused.swap(false, Ordering::AcqRel)
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Acquire)
    }

    pub(super) fn review_at(&self, rows: usize) {
        self.review_at.store(rows, Ordering::Relaxed);
    }
}

/// The device's answer to a query.
#[derive(Debug)]
pub struct DeviceResult {
    /// The matrix that was searched.
    pub generation: u64,
    /// Rows below this were searched.
    pub rows: usize,
    /// Rows that were requested: fewer results mean that there are no more.
    pub wanted: usize,
    /// Best first.
    pub scored: Vec<Scored>,
}

/// A query in the queue.
pub(super) struct PendingQuery {
    pub(super) seat: Arc<Seat>,
    pub(super) query: Vec<f16>,
    pub(super) wanted: usize,
    pub(super) allowed: Option<Arc<RowSet>>,
    pub(super) asked: Instant,
    pub(super) reply: oneshot::Sender<DeviceResult>,
}

/// The state of the device.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceState {
    /// It is being opened.
    Starting,
    /// It works.
    Ready {
        /// Its name.
        adapter: Adapter,
    },
    /// It failed and will be retried.
    Failed {
        /// The error.
        reason: String,
        /// Time until the next attempt, from when this was noted.
        again_in: Duration,
    },
    /// There is none, and no further attempt is made.
    Absent {
        /// The reason.
        reason: String,
    },
}

/// Work for the thread.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) questions: VecDeque<PendingQuery>,
    /// New collections.
    pub(super) members: Vec<(Arc<Seat>, Weak<dyn Vectors>)>,
    /// Seats whose collection grew or was dropped.
    pub(super) reviews: Vec<u64>,
    pub(super) is_stopping: bool,
    /// The thread has ended: nothing will be answered.
    pub(super) is_over: bool,
}

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) metrics: Metrics,
    pub(super) queue: Mutex<Queue>,
    pub(super) rung: Condvar,
    started: Instant,
    /// Until when the GPU is not used, in milliseconds after `started`: a search waited in vain for the current batch.
    stalled: AtomicU64,
    pub(super) state: Mutex<DeviceState>,
    /// The helper's socket, so that stopping the service does not wait for the helper.
    pub(super) breaker: Mutex<Option<UnixStream>>,
    next_seat: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Stops using the GPU for a while, or until a batch is answered.
    pub(super) fn stall(&self, time: Duration) {
        self.stalled.store(self.now() + time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether a refused collection was searched recently.
    pub(super) fn is_wanted(&self, seat: &Seat) -> bool {
        let wanted = seat.wanted.load(Ordering::Relaxed);
        wanted > 0 && self.now().saturating_sub(wanted) <= self.options.idle.as_millis() as u64 + WANTED_LATELY
    }

    fn is_stalled(&self) -> bool {
        let until = self.stalled.load(Ordering::Relaxed);
        until > 0 && self.now() < until
    }

    /// Why queries are no longer answered.
    pub(super) fn why_over(&self) -> String {
        match &*self.state.lock() {
            DeviceState::Absent { reason } => reason.clone(),
            DeviceState::Starting | DeviceState::Ready { .. } | DeviceState::Failed { .. } => {
                "nothing answers for the GPU any more".to_owned()
            }
        }
    }

    /// The CPU has to answer these.
    pub(super) fn give_up(&self, questions: Vec<PendingQuery>, why: &'static str) {
        if !questions.is_empty() {
            self.metrics.fell_back(why, questions.len());
        }
    }

    /// A batch was answered.
    pub(super) fn goes_on(&self) {
        self.stalled.store(0, Ordering::Relaxed);
    }
}

/// A client of the service. Cheap to clone.
#[derive(Clone)]
pub struct GpuClient {
    shared: Arc<Shared>,
}

/// The thread that owns the helper.
pub struct GpuService {
    client: GpuClient,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl GpuService {
    /// Starts the thread, which opens the device.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub fn start(options: Options, metrics: Metrics) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            options,
            metrics,
            queue: Mutex::default(),
            rung: Condvar::new(),
            started: Instant::now(),
            stalled: AtomicU64::new(0),
            state: Mutex::new(DeviceState::Starting),
            breaker: Mutex::new(None),
            next_seat: AtomicU64::new(1),
        });
        let worker = Worker::new(Arc::clone(&shared));
        let thread = task::spawn_thread("gpu", move || worker.run())?;
        Ok(Self { client: GpuClient { shared }, thread: Mutex::new(Some(thread)) })
    }

    /// A client of this service.
    #[must_use]
    pub fn client(&self) -> GpuClient {
        self.client.clone()
    }

    /// Ends the thread and the helper. Waiting queries are given up.
    pub fn stop(&self) {
        let shared = &self.client.shared;
        shared.queue.lock().is_stopping = true;
        shared.rung.notify_all();
        if let Some(socket) = &*shared.breaker.lock() {
            // An error means that it has already ended.
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the GPU's thread panicked");
        }
    }
}

impl Drop for GpuService {
    fn drop(&mut self) {
        self.stop();
    }
}

impl GpuClient {
    /// A seat for a collection. Its vectors are reviewed soon.
    #[must_use]
    pub(in crate::index) fn join(&self, vectors: Weak<dyn Vectors>) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            id: self.shared.next_seat.fetch_add(1, Ordering::Relaxed),
            is_open: AtomicBool::new(false),
            review_at: AtomicUsize::new(usize::MAX),
            is_refused: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            factor: AtomicUsize::new(1),
            verdict: Mutex::new(Verdict { by_gpu: false, reason: "the GPU is being opened".to_owned() }),
        });
        let mut queue = self.shared.queue.lock();
        if queue.is_over {
            seat.close(self.shared.why_over());
        } else {
            queue.members.push((Arc::clone(&seat), vectors));
            self.shared.rung.notify_all();
        }
        drop(queue);
        seat
    }

    /// Records the collection's new number of rows.
    pub fn grew(&self, seat: &Seat, rows: usize) {
        if rows >= seat.review_at.load(Ordering::Relaxed) {
            seat.review_at(usize::MAX);
            self.request_review(seat);
        }
    }

    /// Requests a review of a collection, also after it was dropped.
    pub fn request_review(&self, seat: &Seat) {
        self.shared.queue.lock().reviews.push(seat.id);
        self.shared.rung.notify_all();
    }

    /// Submits a query; `None` if the GPU will not answer it.
    ///
    /// * `query`: a unit vector of the collection's dimensions.
    /// * `limit`: rows that are wanted.
    /// * `allowed`: rows that may be found; `None` for all.
    #[must_use]
    pub fn ask(
        &self,
        seat: &Arc<Seat>,
        query: Vec<f16>,
        limit: usize,
        allowed: Option<Arc<RowSet>>,
    ) -> Option<oneshot::Receiver<DeviceResult>> {
        let wanted = limit * seat.factor.load(Ordering::Relaxed) + SPARE;
        let is_too_much =
            wanted > LIMIT_MAX as usize || allowed.as_ref().is_some_and(|allowed| allowed.bytes() > FILTER_BYTES_MAX);
        if is_too_much || !seat.is_open() || self.shared.is_stalled() {
            return None;
        }
        let (reply, found) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.is_over {
                return None;
            }
            if queue.questions.len() >= QUEUE_MAX {
                self.shared.metrics.fell_back("full", 1);
                return None;
            }
            let question =
                PendingQuery { seat: Arc::clone(seat), query, wanted, allowed, asked: Instant::now(), reply };
            queue.questions.push_back(question);
        }
        self.shared.rung.notify_one();
        Some(found)
    }

    /// Records that a collection without memory on the device is searched.
    pub fn mark_wanted(&self, seat: &Seat) {
        if seat.is_refused() {
            seat.wanted.store(self.shared.now().max(1), Ordering::Relaxed);
        }
    }

    /// Counts a query that was answered in vain.
    pub(in crate::index) fn fell_back(&self, why: &'static str) {
        self.shared.metrics.fell_back(why, 1);
    }

    /// The device's answer, or `None` when it takes too long or the query was given up.
    ///
    /// * `asked`: when the query was submitted; the time limit counts from then.
    pub async fn wait(&self, asked: Instant, found: oneshot::Receiver<DeviceResult>) -> Option<DeviceResult> {
        let Ok(found) = tokio::time::timeout_at((asked + PATIENCE).into(), found).await else {
            self.shared.stall(STALL);
            self.shared.metrics.fell_back("late", 1);
            return None;
        };
        found.ok()
    }

    /// The state of the device.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        self.shared.state.lock().clone()
    }
}
