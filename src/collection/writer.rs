//! The two threads of the write path: one writes the log, one makes what was written visible.
//!
//! Requests wait in a bounded queue; the writer takes all that wait, up to a size, into one append and one fdatasync
//! (group commit). The indexer applies whole groups in log order and then answers everyone in them. While the indexer
//! works on one group the writer can be syncing the next. When the queue is full the caller waits.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc as sync_mpsc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use super::upkeep::Bell;
use super::views::{self, Views};
use super::{Config, WriteError};
use crate::base::Lsn;
use crate::store::{Change, ChangeKind, CollectionId, CommitError, Operation, Outcome, Reader, WriteRequest, Writer};
use crate::task::{self, Readiness};
use crate::telemetry::Metrics;

/// Requests that may wait for the writer.
const QUEUE_LENGTH: usize = 256;
/// Groups that may wait for the indexer.
const GROUPS_WAITING: usize = 4;
/// A group is closed once its passages have this many bytes of text.
const GROUP_BYTES: usize = 8 << 20;
/// A group is closed once it has this many requests.
const GROUP_REQUESTS: usize = 256;

/// A write that is on stable storage and visible.
#[derive(Debug)]
pub struct Written {
    /// One per operation, in order.
    pub outcomes: Vec<Outcome>,
    /// Everything up to here is on stable storage.
    pub lsn: Lsn,
}

struct Job {
    request: WriteRequest,
    reply: oneshot::Sender<Result<Written, WriteError>>,
}

struct Group {
    changes: Vec<Change>,
    last: Lsn,
    replies: Vec<(oneshot::Sender<Result<Written, WriteError>>, Written)>,
}

/// The way to the writer.
pub(super) struct WriteQueue {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl WriteQueue {
    /// Starts both threads. The indexer first brings the views up to the log.
    pub(super) fn start(
        writer: Writer,
        config: Config,
        reader: Arc<Reader>,
        views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
        bell: Bell,
        readiness: &Readiness,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(QUEUE_LENGTH);
        let (groups, committed) = sync_mpsc::sync_channel(GROUPS_WAITING);
        readiness.hold("indexes", "the indexes are catching up with the log");
        let indexer = {
            let (readiness, metrics) = (readiness.clone(), metrics.clone());
            task::spawn_thread("indexer", move || {
                let current = views.read().clone();
                views::catch_up(&current, &reader);
                drop(current);
                readiness.release("indexes");
                bell.ring();
                index(&views, &config, &committed, &bell, &metrics);
            })?
        };
        let writer = task::spawn_thread("log-writer", move || write(writer, waiting, &groups))?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), threads: Mutex::new(vec![writer, indexer]) })
    }

    /// Writes, and waits until it is on stable storage and visible.
    pub(super) async fn write(&self, request: WriteRequest) -> Result<Written, WriteError> {
        let jobs = self.jobs.lock().clone().ok_or(WriteError::Stopping)?;
        let (reply, answer) = oneshot::channel();
        jobs.send(Job { request, reply }).await.map_err(|_| WriteError::Stopping)?;
        drop(jobs);
        answer.await.map_err(|_| WriteError::Stopping)?
    }

    /// Answers what was queued, then ends both threads.
    pub(super) fn close(&self) {
        self.jobs.lock().take();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the write path panicked");
            }
        }
    }
}

fn write(mut writer: Writer, mut waiting: mpsc::Receiver<Job>, groups: &sync_mpsc::SyncSender<Group>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut bytes = size_of(&first.request);
        let (mut requests, mut replies) = (vec![first.request], vec![first.reply]);
        while bytes < GROUP_BYTES && requests.len() < GROUP_REQUESTS {
            let Ok(job) = waiting.try_recv() else { break };
            bytes += size_of(&job.request);
            requests.push(job.request);
            replies.push(job.reply);
        }
        match writer.commit(requests) {
            Ok(committed) => {
                let last = committed.last;
                let replies = replies
                    .into_iter()
                    .zip(committed.outcomes)
                    .map(|(reply, outcomes)| (reply, Written { outcomes, lsn: last }))
                    .collect();
                if groups.send(Group { changes: committed.changes, last, replies }).is_err() {
                    break;
                }
            }
            Err(error) => refuse(replies, error),
        }
    }
    if let Err(error) = writer.close() {
        tracing::warn!(%error, "the catalog was not closed cleanly; the next start rebuilds it");
    }
}

fn refuse(replies: Vec<oneshot::Sender<Result<Written, WriteError>>>, error: CommitError) {
    tracing::error!(%error, "a write failed");
    let error = Arc::new(error);
    for reply in replies {
        // A caller that went away does not need its answer.
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
            Operation::RememberAnswer { answer, .. } => answer.len(),
            Operation::CreateCollection(_) | Operation::DeleteCollection { .. } | Operation::DeleteDocument { .. } => {
                128
            }
        })
        .sum()
}

fn index(
    views: &RwLock<HashMap<CollectionId, Arc<Views>>>,
    config: &Config,
    committed: &sync_mpsc::Receiver<Group>,
    bell: &Bell,
    metrics: &Metrics,
) {
    while let Ok(mut group) = committed.recv() {
        // Whatever else is waiting goes into the same commit of the indexes.
        while let Ok(next) = committed.try_recv() {
            group.changes.extend(next.changes);
            group.replies.extend(next.replies);
            group.last = next.last;
        }
        views::follow(views, config, &group.changes, group.last);
        for change in &group.changes {
            match &change.kind {
                ChangeKind::DocumentPut { bodies, .. } => {
                    metrics.documents_written.inc();
                    metrics.passages_written.inc_by(bodies.len() as u64);
                }
                ChangeKind::DocumentDeleted { .. } => {
                    metrics.documents_written.inc();
                }
                ChangeKind::CollectionCreated(_) | ChangeKind::CollectionDeleted(_) => {}
            }
        }
        for (reply, written) in group.replies {
            let _ = reply.send(Ok(written));
        }
        bell.ring();
    }
}
