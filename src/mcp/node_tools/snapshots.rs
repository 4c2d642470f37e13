//! The tools for snapshots.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::super::{ErrorCode, Progress, ToolError, answers, arguments};
use crate::base::{Fault, Lsn, UnixMillis, with_causes};
use crate::snapshot::{
    self, CreateError, Health, Kind, NodeSummary, Probe, RepositoryError, RestoreError, RestoreTarget, Snapshots,
    UnderWay, Verified, Whose, WhoseError,
};
use crate::task::Restart;

/// A bucket that was checked less than this many seconds ago is not checked again for a status.
const LOOK_AGAIN: u64 = 30;
/// How long a status waits for a check.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// The snapshots of a node, and the node as they see it.
pub struct NodeSnapshots {
    /// The snapshots.
    pub snapshots: Arc<Snapshots>,
    /// The node.
    pub node: Arc<dyn Probe>,
    /// How the node restarts on restored data; `None` if nothing listens for that.
    pub restart: Option<Restart>,
    /// Calls that wait for long work of another one.
    queues: Queues,
}

/// Work of which one at a time can be done. Tasks wait for it, not threads: there are only so many for all calls.
struct Queues {
    create: Arc<Semaphore>,
    verify: Arc<Semaphore>,
    restore: Arc<Semaphore>,
}

/// Waits until the work may begin. The permit goes with the work and not with the call, which may be given up.
async fn next_in(queue: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(queue).acquire_owned().await.ok()
}

impl From<CreateError> for ToolError {
    fn from(error: CreateError) -> Self {
        failed(&error, error.fault())
    }
}

impl From<RepositoryError> for ToolError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::NoSuchSnapshot { .. } | RepositoryError::Empty { .. } => {
                Self::not_found(error.to_string())
            }
            error => failed(&error, error.fault()),
        }
    }
}

impl From<WhoseError> for ToolError {
    fn from(error: WhoseError) -> Self {
        failed(&error, error.fault())
    }
}

impl From<RestoreError> for ToolError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Repository(error) => error.into(),
            error => failed(&error, error.fault()),
        }
    }
}

fn failed(error: &dyn std::error::Error, fault: Fault) -> ToolError {
    let message = with_causes(error);
    let code = if fault == Fault::Caller { ErrorCode::BadArgument } else { ErrorCode::Internal };
    ToolError::new(code, message, fault)
}

/// Carries reports from a thread that works to the task that answers.
struct Reports(mpsc::Sender<(&'static str, u64, u64)>);

impl snapshot::Progress for Reports {
    fn report(&self, step: &'static str, done: u64, total: u64) {
        // When the task is behind, the next report says more.
        let _ = self.0.try_send((step, done, total));
    }
}

/// Runs `work` on a thread that may block, and passes its reports on.
async fn reported<T: Send + 'static>(progress: &dyn Progress, work: impl FnOnce(&Reports) -> T + Send + 'static) -> T {
    let (sender, mut reports) = mpsc::channel(16);
    let working = tokio::task::spawn_blocking(move || work(&Reports(sender)));
    while let Some((step, done, total)) = reports.recv().await {
        progress.report(done, total, step);
    }
    match working.await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The snapshots there are, as the tool answers; blocks.
///
/// # Errors
/// When the repository cannot be used.
pub(crate) fn snapshots_json(snapshots: &Snapshots, whose: &Whose) -> Result<serde_json::Value, ToolError> {
    list(snapshots, whose).map(|answer| serde_json::to_value(answer).expect("answers are plain data"))
}

/// The result of a proof, for REST and the command line.
///
/// * `snapshots`: the node's snapshots; `problem` is the problem of their target.
pub(crate) fn verified_json(snapshots: &Snapshots, verified: &Verified) -> serde_json::Value {
    let checked = &verified.checked;
    let problems: Vec<serde_json::Value> =
        checked.problems.iter().map(|problem| json!({"name": problem.name, "message": problem.message})).collect();
    json!({
        "id": verified.id, "ok": problems.is_empty(), "problems": problems, "segments": checked.segments,
        "bytes": checked.bytes, "records": checked.records, "documents": checked.documents,
        "passages": checked.passages, "canaries": checked.canaries, "seconds": verified.took.as_secs_f64(),
        "problem": snapshots.health().problem,
    })
}

/// Settings and results, for REST and the command line; checks the target, so it blocks.
pub(crate) fn schedule_json(snapshots: &Snapshots) -> serde_json::Value {
    let (health, told) = (snapshots.check_target(), snapshots.config());
    let live = snapshots.live();
    let (schedule, retention) = (&live.schedule, &live.retention);
    json!({
        "target": health.target, "scheduled": health.scheduled,
        "interval_seconds": schedule.interval.as_secs(), "verify_interval_seconds": schedule.verify_interval.as_secs(),
        "daily": retention.daily, "weekly": retention.weekly, "monthly": retention.monthly,
        "max_bytes": retention.max_bytes, "point_in_time_seconds": retention.point_in_time.as_secs(),
        "encrypted": told.key_file.is_some(),
        "state": health.standing, "problem": health.problem, "snapshots": health.snapshots, "missing": health.missing,
        "newest": health.newest, "age_seconds": health.age_seconds, "verified": health.verified,
        "verified_age_seconds": health.verified_age_seconds, "warnings": health.warnings,
    })
}

/// Removes what the settings do not keep, or says what that would be, for REST and the command line; blocks.
///
/// # Errors
/// When the repository cannot be used.
pub(crate) fn prune_json(snapshots: &Snapshots, whose: &Whose, dry_run: bool) -> Result<serde_json::Value, ToolError> {
    let pruned = snapshots.prune(whose, dry_run)?;
    Ok(json!({
        "dry_run": dry_run, "snapshots": pruned.snapshots, "segments": pruned.segments, "bytes": pruned.bytes,
        "kept": pruned.kept, "unreadable": pruned.unreadable,
    }))
}

fn list(snapshots: &Snapshots, whose: &Whose) -> Result<answers::ListSnapshotsAnswer, ToolError> {
    let (listed, others) = snapshots.list(whose)?;
    let health = snapshots.health();
    let proof = snapshots.proof();
    let mut known = HashSet::new();
    // Oldest first, so that each counts what none before it has.
    let mut summaries: Vec<answers::SnapshotSummary> = listed
        .into_iter()
        .rev()
        .map(|listed| {
            let verified = proof.as_ref().filter(|proof| proof.id == listed.id);
            let mut summary = answers::SnapshotSummary {
                id: listed.id,
                verified_at: verified.map(|proof| proof.time.to_string()),
                ..answers::SnapshotSummary::default()
            };
            match listed.manifest {
                Ok(manifest) => {
                    summary.node = Some(manifest.node.clone());
                    let new = manifest.segments.iter().filter(|segment| known.insert(segment.file.clone()));
                    summary.new_bytes = Some(new.map(|segment| segment.bytes).sum());
                    summary.kind = Some(manifest.kind.as_str().to_owned());
                    summary.created = Some(manifest.created.to_string());
                    summary.lsn = Some(manifest.last.0);
                    summary.bytes = Some(manifest.bytes());
                    let documents =
                        |counts: &Vec<snapshot::CollectionCount>| counts.iter().map(|count| count.documents).sum();
                    summary.documents = manifest.counts.as_ref().map(documents);
                }
                Err(error) => summary.problem = Some(ToolError::from(error).message),
            }
            summary
        })
        .collect();
    summaries.reverse();
    Ok(answers::ListSnapshotsAnswer {
        target: health.target,
        state: health.standing,
        problem: health.problem,
        elsewhere: health.elsewhere.map(|(newest, target)| answers::Elsewhere { newest, target }),
        snapshots: summaries,
        others: others.into_iter().map(other).collect(),
    })
}

fn other(summary: NodeSummary) -> answers::OtherNode {
    let NodeSummary { node, host, snapshots, newest } = summary;
    answers::OtherNode { node, host: Some(host).filter(|host| !host.is_empty()), snapshots, newest }
}

fn work(of: UnderWay) -> answers::SnapshotWork {
    let UnderWay { work, step, done, total } = of;
    answers::SnapshotWork { work, step, done, total }
}

impl NodeSnapshots {
    /// * `restart`: how the node restarts on restored data; `None` if nothing listens for that.
    #[must_use]
    pub fn new(snapshots: Arc<Snapshots>, node: Arc<dyn Probe>, restart: Option<Restart>) -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { snapshots, node, restart, queues: Queues { create: one(), verify: one(), restore: one() } }
    }

    pub(super) async fn create(
        &self,
        given: arguments::CreateSnapshot,
        progress: &dyn Progress,
    ) -> Result<answers::CreateSnapshotAnswer, ToolError> {
        let anew = given.begin_anew;
        let (snapshots, node) = (Arc::clone(&self.snapshots), Arc::clone(&self.node));
        let target = snapshots.target().to_string();
        let permit = next_in(&self.queues.create).await;
        let create = move |reports: &Reports| {
            let _permit = permit;
            snapshots.create(&*node, Kind::Manual, anew, reports)
        };
        let created = reported(progress, create).await?;
        let (manifest, problem) = (created.manifest, self.snapshots.health().problem);
        Ok(answers::CreateSnapshotAnswer {
            target,
            lsn: manifest.last.0,
            bytes: manifest.bytes(),
            new_bytes: created.new_bytes,
            segments: manifest.segments.len(),
            new_segments: created.new_segments,
            documents: manifest.counts.iter().flatten().map(|count| count.documents).sum(),
            canaries: manifest.canaries.len(),
            problem,
            damage: manifest.damage,
            id: manifest.id,
        })
    }

    pub(super) async fn list(
        &self,
        given: arguments::ListSnapshots,
    ) -> Result<answers::ListSnapshotsAnswer, ToolError> {
        let whose = Whose::read(given.node.as_deref())?;
        let snapshots = Arc::clone(&self.snapshots);
        reported(&super::super::NoProgress, move |_| list(&snapshots, &whose)).await
    }

    /// Proves a snapshot, the newest when none is named; what was found, which may be that it is not whole.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub(super) async fn verify(&self, id: Option<String>) -> Result<serde_json::Value, ToolError> {
        let snapshots = Arc::clone(&self.snapshots);
        let permit = next_in(&self.queues.verify).await;
        let verify = move |reports: &Reports| {
            let _permit = permit;
            snapshots.verify(id.as_deref(), reports)
        };
        let verified = reported(&super::super::NoProgress, verify).await?;
        Ok(verified_json(&self.snapshots, &verified))
    }

    /// Settings and results.
    pub(super) async fn schedule(&self) -> serde_json::Value {
        let snapshots = Arc::clone(&self.snapshots);
        reported(&super::super::NoProgress, move |_| schedule_json(&snapshots)).await
    }

    /// Removes what the settings do not keep; says only what that would be when `dry_run`.
    pub(super) async fn prune(&self, node: Option<String>, dry_run: bool) -> Result<serde_json::Value, ToolError> {
        let whose = Whose::read(node.as_deref())?;
        let snapshots = Arc::clone(&self.snapshots);
        reported(&super::super::NoProgress, move |_| prune_json(&snapshots, &whose, dry_run)).await
    }

    pub(super) async fn restore(
        &self,
        given: arguments::RestoreSnapshot,
        progress: &dyn Progress,
    ) -> Result<answers::RestoreSnapshotAnswer, ToolError> {
        let target = match (given.id, given.to_lsn, given.to_time) {
            (None, None, None) => RestoreTarget::Newest,
            (Some(id), None, None) => RestoreTarget::Snapshot(id),
            (None, Some(lsn), None) => RestoreTarget::Lsn(Lsn(lsn)),
            (None, None, Some(time)) => RestoreTarget::Time(time.parse::<UnixMillis>().map_err(|_| {
                ToolError::bad_argument(format!("to_time is '{time}', expected a time such as 2026-07-28T09:30:00Z"))
            })?),
            _ => return Err(ToolError::bad_argument("expected at most one of id, to_lsn and to_time")),
        };
        if !given.dry_run && given.confirm != "restore" {
            let found = &given.confirm;
            return Err(ToolError::bad_argument(format!(
                "confirm is '{found}', expected 'restore'; dry_run shows what would be done"
            )));
        }
        let whose = Whose::read(given.node.as_deref())?;
        let permit = next_in(&self.queues.restore).await;
        let snapshots = Arc::clone(&self.snapshots);
        let plan = reported(progress, move |_| snapshots.plan(&target, &whose)).await?;
        let present = self.node.library().log().last();
        let mut answer = answers::RestoreSnapshotAnswer {
            status: "planned".to_owned(),
            snapshot: plan.manifest.id.clone(),
            lsn: plan.last.0,
            records_set_aside: present.0.saturating_sub(plan.last.0),
            bytes: plan.bytes(),
            segments: plan.segments.len(),
            documents: None,
            canaries: None,
            old_data: None,
        };
        if given.dry_run {
            return Ok(answer);
        }
        let (snapshots, restart) = (Arc::clone(&self.snapshots), self.restart.clone());
        // Completed even if the caller disconnects: a restore that waits for some later start would be a surprise.
        let restored = reported(progress, move |reports| {
            let _permit = permit;
            let restored = snapshots.restore(plan, reports)?;
            // The node leaves time for the answer before it drains.
            restart.inspect(Restart::request);
            Ok::<_, RestoreError>(restored)
        });
        let restored = restored.await?;
        answer.lsn = restored.checked.last.0;
        answer.documents = Some(restored.checked.documents);
        answer.canaries = Some(restored.checked.canaries);
        answer.old_data = Some(restored.old_data.display().to_string());
        answer.status = if self.restart.is_some() { "restarting" } else { "scheduled" }.to_owned();
        Ok(answer)
    }

    /// Looks at the place where snapshots go, as long as an answer can wait for that.
    async fn current_health(&self) -> Health {
        let recent = |health: &Health| health.seen_seconds.is_some_and(|seconds| seconds < LOOK_AGAIN);
        let health = self.snapshots.health();
        if recent(&health) && self.snapshots.target().is_remote() {
            return health;
        }
        let snapshots = Arc::clone(&self.snapshots);
        let looking = tokio::task::spawn_blocking(move || snapshots.check_target());
        match tokio::time::timeout(LOOK_TIMEOUT, looking).await {
            Ok(Ok(health)) => health,
            Ok(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            // It continues, and the next answer reports it.
            Err(_) => self.snapshots.health(),
        }
    }

    pub(super) async fn status(&self) -> answers::SnapshotStatus {
        let health = self.current_health().await;
        answers::SnapshotStatus {
            target: health.target,
            scheduled: health.scheduled,
            state: health.standing,
            problem: health.problem,
            snapshots: health.snapshots,
            missing: Some(health.missing).filter(|missing| *missing > 0),
            seen_seconds: health.seen_seconds,
            newest: health.newest,
            age_seconds: health.age_seconds,
            verified: health.verified,
            verified_age_seconds: health.verified_age_seconds,
            warnings: health.warnings,
            under_way: self.snapshots.under_way().into_iter().map(work).collect(),
        }
    }
}
