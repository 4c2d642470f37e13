//! Long work that continues after its request was answered (`Prefer: respond-async`, RFC 7240).
//!
//! Invariants: jobs are in memory, the last hundred of them; only the caller who started a job sees it. As many run as
//! the node can do at once, and a few of each caller; one that runs is never forgotten, and one whose task ends has
//! ended. A call that is refused at once is not a job.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::http::Method;
use parking_lot::Mutex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::endpoint::{Answer, Endpoint, EndpointRequest, NoBody, Nothing, Reply};
use super::problem::{Failure, Problem};
use crate::api::Shared;
use crate::auth::Caller;
use crate::base::{Clock as _, Fault, SystemClock};
use crate::calls::{Operation, Outcome, Scope};
use crate::mcp::{Context, ErrorCode, NoProgress, NodeProvider as _, Progress, ToolError};
use crate::task;

/// Jobs that are remembered.
const JOBS_MAX: usize = 100;
/// Jobs that run at once, and those of one caller.
const RUNNING_MAX: usize = 16;
const RUNNING_OF_CALLER_MAX: usize = 4;
/// When a caller may try again: jobs take seconds at least.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The status of a job that has not ended.
const RUNNING: &str = "running";

/// A job as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Job {
    pub(crate) id: String,
    /// What it does, such as `create_snapshot`.
    pub(crate) operation: String,
    /// `running`, `succeeded` or `failed`.
    pub(crate) status: String,
    /// When it was started.
    pub(crate) started_at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    /// What it is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<String>,
    /// Of the step.
    #[serde(default)]
    pub(crate) done: u64,
    /// Of the step; 0 where nobody knows.
    #[serde(default)]
    pub(crate) total: u64,
    /// What the request would have been answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Value>,
    /// Why it failed: the problem that the request would have been answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Problem>,
}

/// The jobs of a node.
#[derive(Default)]
pub(crate) struct Jobs {
    next: AtomicU64,
    jobs: Mutex<VecDeque<Started>>,
}

struct Started {
    caller: u64,
    job: Arc<Mutex<Job>>,
}

impl Started {
    fn is_running(&self) -> bool {
        self.job.lock().status == RUNNING
    }
}

impl Jobs {
    /// Makes a job, when there is room for another.
    fn start(self: &Arc<Self>, operation: &str, caller: &Caller) -> Result<RunningJob, ToolError> {
        let mut jobs = self.jobs.lock();
        let running: Vec<u64> =
            jobs.iter().filter(|started| started.is_running()).map(|started| started.caller).collect();
        let own = running.iter().filter(|of| **of == caller.id()).count();
        if own >= RUNNING_OF_CALLER_MAX || running.len() >= RUNNING_MAX {
            let message = if own >= RUNNING_OF_CALLER_MAX {
                format!("{own} of your jobs are running, which is as many as one caller may have; wait for one of them")
            } else {
                format!("{RUNNING_MAX} jobs are running, which is as many as the node runs; try again later")
            };
            let fault = if own >= RUNNING_OF_CALLER_MAX { Fault::Caller } else { Fault::Environment };
            let refused = ToolError::new(ErrorCode::Overloaded, message, fault);
            return Err(ToolError { retry_after: Some(RETRY_AFTER), ..refused });
        }
        while jobs.len() >= JOBS_MAX {
            let ended = |started: &Started| !started.is_running();
            let own = jobs.iter().position(|started| started.caller == caller.id() && ended(started));
            // Those that run are fewer than those that are remembered.
            let Some(place) = own.or_else(|| jobs.iter().position(ended)) else { break };
            jobs.remove(place);
        }
        let job = Arc::new(Mutex::new(Job {
            id: (self.next.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
            operation: operation.to_owned(),
            status: RUNNING.to_owned(),
            started_at: SystemClock.now().to_string(),
            ended_at: None,
            step: None,
            done: 0,
            total: 0,
            result: None,
            error: None,
        }));
        jobs.push_back(Started { caller: caller.id(), job: Arc::clone(&job) });
        Ok(RunningJob { jobs: Arc::clone(self), job })
    }

    /// Forgets a job that was refused before it began.
    fn forget(&self, job: &Arc<Mutex<Job>>) {
        self.jobs.lock().retain(|started| !Arc::ptr_eq(&started.job, job));
    }

    fn of(&self, caller: &Caller) -> Vec<Job> {
        let jobs = self.jobs.lock();
        let own = jobs.iter().rev().filter(|started| started.caller == caller.id());
        own.map(|started| started.job.lock().clone()).collect()
    }
}

/// A job while it runs. Dropping it before it ended, as a task that panics does, ends it as failed.
struct RunningJob {
    jobs: Arc<Jobs>,
    job: Arc<Mutex<Job>>,
}

impl RunningJob {
    fn end(&self, result: Result<Value, ToolError>) {
        let mut job = self.job.lock();
        job.ended_at = Some(SystemClock.now().to_string());
        job.step = None;
        job.status = if result.is_ok() { "succeeded" } else { "failed" }.to_owned();
        match result {
            Ok(answer) => job.result = Some(answer),
            Err(error) => job.error = Some(Problem::of(&error)),
        }
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        let is_running = self.job.lock().status == RUNNING;
        if is_running {
            let message = "the job ended without a result; the node's log says why";
            self.end(Err(ToolError::new(ErrorCode::Internal, message, Fault::Damage)));
        }
    }
}

/// Writes down how far a job is.
struct Noted(Arc<Mutex<Job>>);

impl Progress for Noted {
    fn report(&self, done: u64, total: u64, message: &str) {
        let mut job = self.0.lock();
        (job.done, job.total, job.step) = (done, total, Some(message.to_owned()));
    }
}

/// An answer, or the job that makes it.
pub(crate) enum OrJob<T> {
    Done(Value, std::marker::PhantomData<fn() -> T>),
    Job(Box<Job>),
}

impl<T: JsonSchema> Answer for OrJob<T> {
    fn write(self) -> Option<(&'static str, Vec<u8>)> {
        match self {
            Self::Done(answer, _) => answer.write(),
            Self::Job(job) => job.write(),
        }
    }

    fn describe(schemas: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        let choices = [schemas.subschema_for::<T>(), schemas.subschema_for::<Job>()];
        Some(("application/json", json_schema!({ "anyOf": choices })))
    }
}

/// Whether a request with this error was not begun.
fn is_refusal(code: ErrorCode) -> bool {
    match code {
        ErrorCode::BadArgument
        | ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::ReadOnly
        | ErrorCode::Overloaded
        | ErrorCode::Usage => true,
        ErrorCode::NotFound
        | ErrorCode::Conflict
        | ErrorCode::NotVisible
        | ErrorCode::KeyReused
        | ErrorCode::StillUnread
        | ErrorCode::Internal
        | ErrorCode::Unreachable
        | ErrorCode::Failed => false,
    }
}

impl<E: Endpoint<Answer = OrJob<T>>, T: JsonSchema> EndpointRequest<E> {
    /// Does `work`, or starts a job that does it where the request prefers that.
    pub(super) async fn maybe_later<F>(
        self,
        operation: &str,
        work: impl FnOnce(Shared, Caller, Box<dyn Progress>) -> F,
    ) -> Result<Reply<OrJob<T>>, Failure>
    where
        F: Future<Output = Result<Value, ToolError>> + Send + 'static,
    {
        let Self { shared, caller, conditions, .. } = self;
        if !conditions.respond_async {
            let answer = work(shared, caller, Box::new(NoProgress)).await?;
            return Ok(Reply::ok(OrJob::Done(answer, std::marker::PhantomData)));
        }
        let running = shared.jobs.start(operation, &caller)?;
        let job = Arc::clone(&running.job);
        let mut working = Box::pin(work(shared, caller, Box::new(Noted(Arc::clone(&job)))));
        // A call enters, and looks at its arguments, before it waits for anything: what is refused is refused now. What ends as early for another
        // reason did not have to wait for long.
        match futures_util::poll!(working.as_mut()) {
            Poll::Ready(Err(error)) if is_refusal(error.code) => {
                running.jobs.forget(&job);
                return Err(error.into());
            }
            Poll::Ready(result) => running.end(result),
            Poll::Pending => drop(task::spawn("job", async move {
                let result = working.await;
                running.end(result);
            })),
        }
        let job = job.lock().clone();
        let location = GetJob::url("", &OfJob { job: job.id.clone() }, &Nothing {});
        Ok(Reply::accepted(OrJob::Job(Box::new(job)), &location))
    }

    /// Calls a tool, or starts a job that calls it.
    pub(super) async fn tool_maybe_later(
        self,
        tool: &'static str,
        arguments: Value,
    ) -> Result<Reply<OrJob<T>>, Failure> {
        let call = move |shared: Shared, caller: Caller, progress: Box<dyn Progress>| async move {
            let arguments = match arguments {
                Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
                _ => serde_json::Map::new(),
            };
            let context = Context { progress: &*progress, ..Context::of(&caller) };
            Ok(shared.catalog.call(tool, arguments, context).await?.structured)
        };
        self.maybe_later(tool, call).await
    }
}

impl<E: Endpoint> EndpointRequest<E> {
    /// The jobs that the caller started.
    fn own_jobs(&self) -> Result<Vec<Job>, ToolError> {
        let permit = self.shared.tools.enter(Operation::LIST_JOBS, &self.caller, &Scope::Node)?;
        let jobs = self.shared.jobs.of(&self.caller);
        if let Some(permit) = permit {
            permit.end(Outcome::Done);
        }
        Ok(jobs)
    }
}

/// The jobs that a caller started.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct JobList {
    /// Newest first.
    pub(crate) jobs: Vec<Job>,
}

/// `GET /v1/jobs`
pub(crate) struct ListJobs;

impl Endpoint for ListJobs {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/jobs";
    const ID: &'static str = "listJobs";
    const TAG: &'static str = "Jobs";
    const SUMMARY: &'static str = "List the jobs that you started";
    type Path = Nothing;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = JobList;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        Ok(Reply::ok(JobList { jobs: asked.own_jobs()? }))
    }
}

/// A job in a path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OfJob {
    /// The job's id.
    pub(crate) job: String,
}

/// `GET /v1/jobs/{job}`
pub(crate) struct GetJob;

impl Endpoint for GetJob {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/jobs/{job}";
    const ID: &'static str = "getJob";
    const TAG: &'static str = "Jobs";
    const SUMMARY: &'static str = "Status and result of a job";
    type Path = OfJob;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = Job;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let wanted = &asked.path.job;
        let job = asked.own_jobs()?.into_iter().find(|job| job.id == *wanted);
        let shown: String = wanted.chars().take(80).collect();
        let unknown =
            || ToolError::not_found(format!("there is no job '{shown}'; a node forgets its jobs when it restarts"));
        Ok(Reply::ok(job.ok_or_else(unknown)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Subject, SubjectKind, Transport};

    fn caller(id: u64) -> Caller {
        Caller::new(Arc::new(Subject::new(id, "x", SubjectKind::Token)), None, Transport::Http)
    }

    #[test]
    fn a_few_jobs_run_at_once_and_fewer_of_a_caller() {
        let jobs = Arc::new(Jobs::default());
        let mut running = Vec::new();
        for id in 0..4 {
            running.extend((0..RUNNING_OF_CALLER_MAX).map(|_| jobs.start("x", &caller(id)).expect("room")));
            let refused = jobs.start("x", &caller(id)).map(drop).expect_err("one too many");
            assert_eq!((refused.code, refused.fault), (ErrorCode::Overloaded, Fault::Caller));
        }
        let refused = jobs.start("x", &caller(9)).map(drop).expect_err("all together");
        assert_eq!((refused.code, refused.fault), (ErrorCode::Overloaded, Fault::Environment));
        assert!(refused.retry_after.is_some());
        running.pop().expect("one").end(Ok(Value::Null));
        assert!(jobs.start("x", &caller(9)).is_ok());
    }

    #[test]
    fn what_ended_goes_first_and_what_runs_stays() {
        let jobs = Arc::new(Jobs::default());
        let theirs = jobs.start("x", &caller(1)).expect("room");
        theirs.end(Ok(Value::Null));
        let long = jobs.start("long", &caller(2)).expect("room");
        for _ in 0..2 * JOBS_MAX {
            jobs.start("x", &caller(2)).expect("room").end(Ok(Value::Null));
        }
        assert_eq!(jobs.of(&caller(1)).len(), 1, "a caller takes the room of his own jobs");
        let own = jobs.of(&caller(2));
        assert_eq!((own.len(), own.last().map(|job| job.operation.as_str())), (JOBS_MAX - 1, Some("long")));
        drop(long);
    }

    #[test]
    fn a_job_whose_task_is_gone_has_failed() {
        let jobs = Arc::new(Jobs::default());
        drop(jobs.start("x", &caller(1)).expect("room"));
        let job = jobs.of(&caller(1)).pop().expect("it is remembered");
        assert_eq!((job.status.as_str(), job.error.map(|problem| problem.status)), ("failed", Some(500)));
    }
}
