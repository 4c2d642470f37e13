//! Long work that continues after its request was answered (`Prefer: respond-async`, RFC 7240).
//!
//! Invariants: jobs are in memory, the last hundred of them; only the caller who started a job sees it.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::Method;
use parking_lot::Mutex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::endpoint::{Answer, Endpoint, EndpointRequest, NoBody, Nothing, Reply};
use super::problem::Failure;
use crate::api::Shared;
use crate::auth::Caller;
use crate::base::{Clock as _, SystemClock};
use crate::mcp::{Context, NoProgress, Progress, ToolError};
use crate::task;

/// Jobs that are remembered.
const JOBS_MAX: usize = 100;

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
    /// Why it failed: what the request would have been answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
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

impl Jobs {
    fn start(&self, operation: &str, caller: &Caller) -> Arc<Mutex<Job>> {
        let job = Arc::new(Mutex::new(Job {
            id: (self.next.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
            operation: operation.to_owned(),
            status: "running".to_owned(),
            started_at: SystemClock.now().to_string(),
            ended_at: None,
            step: None,
            done: 0,
            total: 0,
            result: None,
            error: None,
        }));
        let mut jobs = self.jobs.lock();
        jobs.push_back(Started { caller: caller.id(), job: Arc::clone(&job) });
        while jobs.len() > JOBS_MAX {
            jobs.pop_front();
        }
        job
    }

    fn of(&self, caller: &Caller) -> Vec<Job> {
        let jobs = self.jobs.lock();
        let own = jobs.iter().rev().filter(|started| started.caller == caller.id());
        own.map(|started| started.job.lock().clone()).collect()
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
        let job = shared.jobs.start(operation, &caller);
        let working = work(shared, caller, Box::new(Noted(Arc::clone(&job))));
        let ending = Arc::clone(&job);
        drop(task::spawn("job", async move {
            let result = working.await;
            let mut job = ending.lock();
            job.ended_at = Some(SystemClock.now().to_string());
            job.step = None;
            job.status = if result.is_ok() { "succeeded" } else { "failed" }.to_owned();
            match result {
                Ok(answer) => job.result = Some(answer),
                Err(error) => job.error = Some(error.shortened_message().into_owned()),
            }
        }));
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
        Ok(Reply::ok(JobList { jobs: asked.shared.jobs.of(&asked.caller) }))
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
        let job = asked.shared.jobs.of(&asked.caller).into_iter().find(|job| job.id == *wanted);
        let shown: String = wanted.chars().take(80).collect();
        let unknown =
            || ToolError::not_found(format!("there is no job '{shown}'; a node forgets its jobs when it restarts"));
        Ok(Reply::ok(job.ok_or_else(unknown)?))
    }
}
