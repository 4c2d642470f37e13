//! The two threads of the write path: one writes the log, the other makes the writes visible.
//!
//! Requests wait in a bounded queue; the writer combines all that wait, up to a size, into one append and one fdatasync
//! (group commit). The indexer applies whole groups in log order. The writer answers callers that wait for durability,
//! the indexer those that wait for visibility. While the indexer works on one group the writer can sync the next. When
//! the queue is full the caller waits.
//!
//! An index that fails (no descriptor, no space) is resumed from its last complete state, using the log. A write that
//! is not visible is never reported as visible: it is durable then, and the caller gets that answer.
//!
//! Making writes visible has its own cost (a small segment, merged later), so while nobody waits for it the indexer
//! gathers the writes of bulk loads. Measured on 130,000 passages: half of the CPU time went into small segments
//! before.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self as sync_mpsc, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::compactor::CompactorBell;
use super::metrics::Metrics;
use super::upkeep::Bell;
use super::views::{self, Views};
use super::{Config, WriteError};
use crate::base::Lsn;
use crate::store::{Change, ChangeKind, CollectionId, CommitError, Operation, Outcome, Reader, WriteRequest, Writer};
use crate::task::{self, MemoryReservation, Readiness};

/// Requests that may wait for the writer.
const QUEUE_LENGTH: usize = 256;
/// Groups that may wait for the indexer.
const GROUPS_WAITING: usize = 16;
/// A group is closed once its passages have this many bytes of text.
const GROUP_BYTES: usize = 8 << 20;
/// A group is closed once it has this many requests.
const GROUP_REQUESTS: usize = 256;

/// Passages that bulk loads may write before the indexer makes them visible.
const PENDING_PASSAGES: usize = 8_000;
/// How long what bulk loads wrote may stay invisible.
const PENDING_TIME: Duration = Duration::from_millis(500);

/// Time between two attempts to resume a failed index, at first and at most.
const REPAIR_PAUSE: Duration = Duration::from_millis(500);
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(300);

/// The event that the caller of a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// It is on stable storage. Searches see it within about half a second, and say up to where they see.
    Durable,
    /// It is on stable storage and the next search sees it.
    Visible,
}

/// A write that is done.
#[derive(Debug)]
pub struct Written {
    /// One per operation, in order; none when the request was done before, see [`crate::store::RunOnce`].
    pub outcomes: Vec<Outcome>,
    /// The answer of a request that runs only once.
    pub answer: Option<Vec<u8>>,
    /// Everything up to here is on stable storage.
    pub lsn: Lsn,
}

enum Job {
    Write {
        request: WriteRequest,
        until: WaitFor,
        reply: Reply,
        /// Memory for it.
        held: Option<MemoryReservation>,
    },
    /// Close the segment that is being written.
    Seal { reply: oneshot::Sender<Result<Lsn, WriteError>> },
}

/// The queue's end that callers have; `None` once it is closed.
type Jobs = Arc<Mutex<Option<mpsc::Sender<Job>>>>;

/// Has the segment sealed that is being written, for a thread that may wait.
pub(super) struct Sealer(Jobs);

impl Sealer {
    /// See [`WriteQueue::seal`].
    pub(super) fn seal(&self) -> Result<Lsn, WriteError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.0.lock().clone().ok_or(WriteError::Stopping)?;
        jobs.blocking_send(Job::Seal { reply }).map_err(|_| WriteError::Stopping)?;
        answer.blocking_recv().map_err(|_| WriteError::Stopping)?
    }
}

type Reply = oneshot::Sender<Result<Written, WriteError>>;

struct Group {
    changes: Vec<Change>,
    last: Lsn,
    /// Callers that wait until it is visible.
    replies: Vec<VisibilityWaiter>,
    /// Memory for it.
    held: Vec<MemoryReservation>,
}

/// A caller that waits until its write is visible.
struct VisibilityWaiter {
    reply: Reply,
    written: Written,
    subject: WaitScope,
}

/// The writes that a caller waits for.
enum WaitScope {
    /// Everything that was written before.
    All,
    /// Writes to these collections.
    These(Vec<CollectionId>),
}

impl WaitScope {
    fn of(request: &WriteRequest) -> Self {
        if request.operations.is_empty() {
            return Self::All;
        }
        let mut collections: Vec<CollectionId> = request
            .operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::PutDocument(document) => Some(document.collection),
                Operation::DeleteDocument { collection, .. } | Operation::DeleteFromSource { collection, .. } => {
                    Some(*collection)
                }
                // No search shows a note.
                Operation::CreateCollection(_) | Operation::DeleteCollection { .. } | Operation::Note { .. } => None,
            })
            .collect();
        collections.dedup();
        Self::These(collections)
    }

    /// Adds the collections that were made, and leaves out those that there are not.
    fn with(self, outcomes: &[Outcome]) -> Self {
        match self {
            Self::All => Self::All,
            Self::These(mut collections) => {
                for outcome in outcomes {
                    match outcome {
                        Outcome::CollectionCreated(id) => collections.push(*id),
                        // Operations of one request are about one collection.
                        Outcome::NoSuchCollection => return Self::These(Vec::new()),
                        _ => {}
                    }
                }
                Self::These(collections)
            }
        }
    }
}

/// The way to the writer.
pub(super) struct WriteQueue {
    jobs: Jobs,
    threads: Mutex<Vec<JoinHandle<()>>>,
    readiness: Readiness,
}

/// Names of the threads, under which [`Readiness`] knows of their end.
const INDEXER: &str = "indexer";
const LOG_WRITER: &str = "log-writer";

/// Why searches may lack the newest documents after the start.
const CATCHING_UP: &str = "the indexes are catching up with the log";

impl WriteQueue {
    /// Starts both threads. The indexer first brings the views up to the log.
    pub(super) fn start(
        writer: Writer,
        config: Config,
        reader: Arc<Reader>,
        views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
        (bell, compactor): (Bell, CompactorBell),
        readiness: &Readiness,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(QUEUE_LENGTH);
        let (groups, committed) = sync_mpsc::sync_channel(GROUPS_WAITING);
        let swept = compactor.clone();
        // Before the first write.
        let position = views::Position::of(&reader);
        // Not where the thread has nothing to do but start: probes would find a node unready that lacks nothing.
        if position.is_ahead_of(&views.read()) {
            readiness.set_reason("indexes", CATCHING_UP);
        }
        let indexer = {
            let (readiness, metrics) = (readiness.clone(), metrics.clone());
            task::spawn_vital(INDEXER, &readiness.clone(), move || {
                let (current, last) = (views.read().clone(), position.last());
                let threads = config.memory.catch_up_threads;
                views::catch_up(&current, &reader, position, threads, |reached, last| {
                    readiness.set_reason("indexes", format!("{CATCHING_UP}: record {reached} of {last}"));
                });
                drop(current);
                readiness.clear_reason("indexes");
                bell.ring();
                index(&views, &config, &reader, last, &committed, (&bell, &compactor), &metrics);
            })?
        };
        let writer = task::spawn_vital(LOG_WRITER, readiness, move || write(writer, waiting, &groups, &swept))?;
        let threads = Mutex::new(vec![writer, indexer]);
        Ok(Self { jobs: Arc::new(Mutex::new(Some(jobs))), threads, readiness: readiness.clone() })
    }

    /// The way to seal for a thread that may wait.
    pub(super) fn sealer(&self) -> Sealer {
        Sealer(Arc::clone(&self.jobs))
    }

    /// Why nothing can be written until the node is restarted; `None` while its threads run.
    pub(super) fn failure(&self) -> Option<String> {
        self.readiness.known_failure_of(&[LOG_WRITER, INDEXER])
    }

    /// Why a request was not answered.
    async fn unanswered(&self) -> WriteError {
        if self.jobs.lock().is_none() {
            return WriteError::Stopping;
        }
        // The threads end for no other reason.
        WriteError::Broken { reason: self.readiness.failure_of(&[LOG_WRITER, INDEXER]).await }
    }

    /// Hands a job to the writer and waits for its answer.
    async fn done<T>(&self, job: Job, answer: oneshot::Receiver<Result<T, WriteError>>) -> Result<T, WriteError> {
        let jobs = self.jobs.lock().clone().ok_or(WriteError::Stopping)?;
        let is_taken = jobs.send(job).await.is_ok();
        drop(jobs);
        match answer.await {
            Ok(result) if is_taken => result,
            _ => Err(self.unanswered().await),
        }
    }

    /// Writes, and waits. An empty request waits for everything written before it.
    ///
    /// * `held`: memory of the write; released when it is visible.
    pub(super) async fn write(
        &self,
        request: WriteRequest,
        until: WaitFor,
        held: Option<MemoryReservation>,
    ) -> Result<Written, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.done(Job::Write { request, until, reply, held }, answer).await
    }

    /// Closes the segment that is being written, after everything that was queued before.
    pub(super) async fn seal(&self) -> Result<Lsn, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.done(Job::Seal { reply }, answer).await
    }

    /// Answers what was queued, then ends both threads.
    pub(super) fn close(&self) {
        self.jobs.lock().take();
        for thread in self.threads.lock().drain(..) {
            // A panic was logged when it happened.
            let _ = thread.join();
        }
    }
}

/// The next job; `None` when there will be none. While waiting, removes keys of deleted collections from the catalog,
/// so that the compactor learns which records are dead.
fn next_job(waiting: &mut mpsc::Receiver<Job>, writer: &mut Writer, swept: &CompactorBell) -> Option<Job> {
    loop {
        match waiting.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        match writer.sweep() {
            Ok(true) => swept.ring(),
            Ok(false) => return waiting.blocking_recv(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot remove deleted collections");
                return waiting.blocking_recv();
            }
        }
    }
}

fn write(
    mut writer: Writer,
    mut waiting: mpsc::Receiver<Job>,
    groups: &sync_mpsc::SyncSender<Group>,
    swept: &CompactorBell,
) {
    while let Some(first) = next_job(&mut waiting, &mut writer, swept) {
        let (mut bytes, mut requests, mut replies, mut memory) = (0, Vec::new(), Vec::new(), Vec::new());
        let (mut next, mut seal) = (Some(first), None);
        while let Some(job) = next {
            match job {
                Job::Write { request, until, reply, held } => {
                    memory.extend(held);
                    bytes += size_of(&request);
                    replies.push((until, reply, WaitScope::of(&request)));
                    requests.push(request);
                }
                Job::Seal { reply } => {
                    seal = Some(reply);
                    break;
                }
            }
            let is_full = bytes >= GROUP_BYTES || requests.len() >= GROUP_REQUESTS;
            next = if is_full { None } else { waiting.try_recv().ok() };
        }
        // With too little room, what deletes is still done: it makes some.
        if let Err(full) = writer.check_room(bytes as u64) {
            let (deletes, others): (Vec<_>, Vec<_>) =
                requests.into_iter().zip(replies).partition(|(request, _)| request.only_deletes());
            refuse(others.into_iter().map(|(_, reply)| reply), full);
            (requests, replies) = deletes.into_iter().unzip();
        }
        if requests.is_empty() {
            if let Some(reply) = seal {
                let _ = reply.send(writer.seal().map_err(|error| WriteError::Commit(Arc::new(error))));
            }
            continue;
        }
        match writer.commit(requests) {
            Ok(committed) => {
                let last = committed.last;
                let mut waiting = Vec::new();
                let done = committed.outcomes.into_iter().zip(committed.answers);
                for ((until, reply, subject), (outcomes, answer)) in replies.into_iter().zip(done) {
                    let subject = subject.with(&outcomes);
                    let written = Written { outcomes, answer, lsn: last };
                    match until {
                        WaitFor::Visible => waiting.push(VisibilityWaiter { reply, written, subject }),
                        // A caller that went away does not need its answer.
                        WaitFor::Durable => drop(reply.send(Ok(written))),
                    }
                }
                if groups.send(Group { changes: committed.changes, last, replies: waiting, held: memory }).is_err() {
                    break;
                }
            }
            Err(error) => refuse(replies.into_iter(), error),
        }
        if let Some(reply) = seal {
            let _ = reply.send(writer.seal().map_err(|error| WriteError::Commit(Arc::new(error))));
        }
    }
    if let Err(error) = writer.close() {
        tracing::warn!(%error, "the catalog was not closed cleanly; the next start rebuilds it");
    }
}

fn refuse(replies: impl ExactSizeIterator<Item = (WaitFor, Reply, WaitScope)>, error: CommitError) {
    if replies.len() == 0 {
        return;
    }
    tracing::error!(%error, "a write failed");
    let error = Arc::new(error);
    for (_, reply, _) in replies {
        let _ = reply.send(Err(WriteError::Commit(Arc::clone(&error))));
    }
}

fn size_of(request: &WriteRequest) -> usize {
    request
        .operations
        .iter()
        .map(|operation| match operation {
            Operation::PutDocument(document) => {
                document.chunks.iter().map(|chunk| chunk.body.text.len() + 64).sum::<usize>() + 512
            }
            Operation::Note { key, value, .. } => key.len() + value.len(),
            Operation::CreateCollection(_)
            | Operation::DeleteCollection { .. }
            | Operation::DeleteDocument { .. }
            | Operation::DeleteFromSource { .. } => 128,
        })
        .sum()
}

fn index(
    views: &ViewsById,
    config: &Config,
    reader: &Reader,
    reached: Lsn,
    committed: &sync_mpsc::Receiver<Group>,
    (bell, compactor): (&Bell, &CompactorBell),
    metrics: &Metrics,
) {
    let (mut pending, mut repairs) = (Pending::default(), RepairSchedule { reached, ..RepairSchedule::default() });
    // One may have failed while it caught up.
    repairs.note(views::commit_all(views, reached));
    let mut is_open = true;
    while is_open {
        let patience = [pending.time_left(), repairs.time_left()].into_iter().flatten().min();
        let group = match patience {
            None => committed.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(patience) => committed.recv_timeout(patience),
        };
        match group {
            Ok(group) => {
                repairs.note(views::follow(views, config, &group.changes));
                count(&group.changes, metrics);
                pending.add(group);
                // All waiting groups are committed to the indexes together.
                while pending.passages < PENDING_PASSAGES
                    && let Ok(next) = committed.try_recv()
                {
                    repairs.note(views::follow(views, config, &next.changes));
                    count(&next.changes, metrics);
                    pending.add(next);
                }
                if pending.replies.is_empty() && pending.passages < PENDING_PASSAGES {
                    continue;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => is_open = false,
        }
        if let Some(last) = pending.last_change() {
            repairs.note(views::commit_all(views, last));
            repairs.reached = last;
        }
        repairs.mend(views, config, reader);
        pending.answer(views, reader, bell);
        compactor.ring();
    }
}

/// The views by their collection.
type ViewsById = RwLock<HashMap<CollectionId, Arc<Views>>>;

/// Changes that were applied to the indexes and are not visible yet.
#[derive(Default)]
struct Pending {
    /// Since when; `None` when there is nothing.
    since: Option<Instant>,
    passages: usize,
    last: Lsn,
    replies: Vec<VisibilityWaiter>,
    /// Memory of the changes; released with the rest.
    held: Vec<MemoryReservation>,
}

impl Pending {
    fn add(&mut self, group: Group) {
        self.since.get_or_insert_with(Instant::now);
        self.passages += group.changes.iter().map(views::passages).sum::<usize>();
        self.last = group.last;
        self.replies.extend(group.replies);
        self.held.extend(group.held);
    }

    /// How long it may still wait.
    fn time_left(&self) -> Option<Duration> {
        self.since.map(|since| PENDING_TIME.saturating_sub(since.elapsed()))
    }

    fn last_change(&self) -> Option<Lsn> {
        self.since.map(|_| self.last)
    }

    /// Answers the waiting callers, after everything was committed. A write that is not visible then is not reported as
    /// visible.
    fn answer(&mut self, views: &ViewsById, reader: &Reader, bell: &Bell) {
        let shown = std::mem::take(self);
        if shown.since.is_none() {
            return;
        }
        for VisibilityWaiter { reply, written, subject } in shown.replies {
            let collections = match subject {
                WaitScope::All => views.read().keys().copied().collect(),
                WaitScope::These(collections) => collections,
            };
            let reason = collections.into_iter().find_map(|id| views::why_not_visible(views, reader, id, written.lsn));
            // A caller that went away does not need its answer.
            let _ = reply.send(match reason {
                None => Ok(written),
                Some(reason) => Err(WriteError::NotVisible { reason }),
            });
        }
        bell.ring();
    }
}

/// Takes up indexes that failed: at once, and then more and more seldom.
#[derive(Default)]
struct RepairSchedule {
    /// The position that the views should reach.
    reached: Lsn,
    /// When to retry; `None` when nothing needs repair.
    due: Option<Instant>,
    pause: Duration,
}

impl RepairSchedule {
    fn note(&mut self, is_whole: bool) {
        if !is_whole {
            self.due.get_or_insert_with(Instant::now);
        }
    }

    /// Time until the next attempt.
    fn time_left(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn mend(&mut self, views: &ViewsById, config: &Config, reader: &Reader) {
        if self.time_left().is_none_or(|left| left > Duration::ZERO) {
            return;
        }
        if views::mend(views, config, reader, self.reached) {
            *self = Self { reached: self.reached, ..Self::default() };
            return;
        }
        self.pause = (self.pause * 2).clamp(REPAIR_PAUSE, REPAIR_PAUSE_MAX);
        self.due = Some(Instant::now() + self.pause);
    }
}

fn count(changes: &[Change], metrics: &Metrics) {
    for change in changes {
        match &change.kind {
            ChangeKind::DocumentPut { bodies, .. } => {
                metrics.documents_written.inc();
                metrics.passages_written.inc_by(bodies.len() as u64);
            }
            ChangeKind::DocumentDeleted { .. } => {
                metrics.documents_written.inc();
            }
            ChangeKind::CollectionCreated(_)
            | ChangeKind::CollectionDeleted(_)
            | ChangeKind::DocumentSuperseded { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::{Body, DocumentInput, Library, MediaType, Missing, Searcher};
    use super::*;
    use crate::base::{Clock, Fault, SystemClock, UnixMillis};
    use crate::calls::{Calls, Operation};

    /// A clock that ends the log-writer, once it is broken.
    #[derive(Default)]
    struct Fragile(AtomicBool);

    impl Clock for Fragile {
        fn now(&self) -> UnixMillis {
            let is_writer = std::thread::current().name() == Some(LOG_WRITER);
            assert!(!(is_writer && self.0.load(Ordering::SeqCst)), "the clock is broken");
            SystemClock.now()
        }
    }

    fn note(text: &str) -> Vec<DocumentInput> {
        let body = Body::Text(text.to_owned(), MediaType::Text);
        vec![DocumentInput { id: Some(text.to_owned()), body, ..DocumentInput::default() }]
    }

    #[tokio::test]
    async fn a_writer_that_panics_is_told_and_reads_go_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::<Fragile>::default();
        let mut config = Config::for_test(directory.path());
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let readiness = Readiness::default();
        let (library, _) = Library::open(config, &readiness, &Metrics::default()).expect("opened");
        let permit = Calls::unwatched().internal_permit(Operation::TAKE_SNAPSHOT);
        let access = library.access(&permit);
        let info = access.create_collection("notes", "", None).await.expect("created");
        access.add("notes", Missing::Refuse, note("one")).await.expect("written");
        assert_eq!(library.write_failure(), None);
        clock.0.store(true, Ordering::SeqCst);
        // The first write is in progress when the thread ends, the second one arrives afterwards.
        for text in ["two", "three"] {
            let error = access.add("notes", Missing::Refuse, note(text)).await.expect_err("nobody writes");
            assert!(matches!(error, WriteError::Broken { .. }), "{error}");
            assert_eq!(error.fault(), Fault::Environment);
        }
        let error = access.seal().await.expect_err("nobody writes");
        assert!(error.to_string().contains("the thread log-writer panicked (the clock is broken)"), "{error}");
        let failures = readiness.failures();
        assert_eq!(failures.keys().collect::<Vec<_>>(), [LOG_WRITER]);
        assert_eq!(library.write_failure(), failures.get(LOG_WRITER).cloned());
        assert!(access.lookup(info.id, "one").expect("read").is_some());
        let searcher = access.searcher(&info).expect("open");
        let lookup = Searcher::look_up(std::slice::from_ref(&searcher), "one").remove(0).expect("looked up");
        let found = searcher.lexical(lookup, 9, None).expect("searched");
        assert_eq!(found.len(), 1);
        library.close();
        let error = access.add("notes", Missing::Refuse, note("four")).await.expect_err("it is closed");
        assert!(matches!(error, WriteError::Stopping), "{error}");
    }
}
