//! Where a verb's work is done: by a running node over HTTP, or in this process on the data directory.
//!
//! Invariants: one process has the directory open, and the others reach it. A process that holds it for long answers on
//! a loopback port and records that in `running.json`; one that finds it locked waits for that file or for the lock.
//! When the node behind a verb disappears, the next one is searched for and the call repeated, once: everything with an
//! id can be written or read again.

mod absent;
mod handover;
mod http;
mod local;
mod remote;
mod trust;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::Failure;
use crate::api::rest::sources::SyncedSource;
use crate::app::Node;
use crate::auth::{Caller, Transport};
use crate::base::{Fault, Lsn, NodeId};
use crate::collection::{Folder, OpenError};
use crate::config::Config;
use crate::mcp::{
    Arguments, Context as ToolContext, ErrorCode, NodeProvider as _, SOURCES_PAGE, Tool, ToolError, ToolProvider as _,
};
use crate::store;

pub(super) use absent::{beside_service, expect_node, holds_node};
pub(super) use local::Local;
use remote::{Gone, Remote};
pub(super) use remote::{Unavailable, prove};

/// How long to wait for a process that has the data directory open.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How often to check whether it answers or has ended. There is no notification of either.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// After how long a waiting user is told what for.
const NOTE_AFTER: Duration = Duration::from_secs(1);

/// Between two tries at a node that does not answer, at first and at last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After how long a user waiting for space is told.
const BUSY_NOTE_AFTER: Duration = Duration::from_secs(5);
/// How long a node that disappeared has to return before its data directory is opened here.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(10);

/// How long a change is waited for in this process.
const LOCAL_CHANGE_WAIT: Duration = Duration::from_secs(1);

/// How long a verb keeps the data directory when it has to open it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// For one answer: others wait.
    Brief,
    /// For as long as its client or its files need: other processes get answers meanwhile.
    Long,
}

/// What happens where there is no node on the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// An error is reported, and nothing is created.
    Refuse,
    /// One is made.
    Make,
}

/// A node as the user named it.
#[derive(Debug, Clone, Default)]
pub(super) struct Address {
    /// Where it is; `None`: on the data directory.
    pub(super) url: Option<String>,
    /// The answer that it gets when it asks for a token.
    pub(super) token: Option<String>,
    /// The authority that an `https://` address is trusted for; `None`: those of the system.
    pub(super) ca: Option<PathBuf>,
    /// Where the name in the address leads, whatever others say.
    pub(super) resolve: Option<IpAddr>,
}

/// The node that does the work.
#[expect(clippy::large_enum_variant, reason = "there is one for each backend")]
enum NodeHandle {
    /// A running node.
    Remote(Remote),
    /// This process.
    Local(Local),
}

/// The node behind a verb.
pub(super) struct Backend {
    config: Config,
    address: Address,
    stay: Stay,
    absent: Absent,
    /// How long a node that went away or has no room is waited for.
    patience: Duration,
    outage: Outage,
    runtime: OnceLock<Runtime>,
    /// Held for moments only.
    resolution: Mutex<Resolution>,
    /// Locked while the next node is searched for.
    resolving: Mutex<()>,
}

/// A period in which the node does not answer, or is full. Shared by all callers: the first answer ends it.
#[derive(Default)]
struct Outage(Mutex<Silences>);

#[derive(Default)]
struct Silences {
    present: Option<Silence>,
    /// When the last one ended.
    ended: Option<Instant>,
}

struct Silence {
    since: Instant,
    is_reported: bool,
}

/// A time limit as people say it.
fn in_words(limit: Duration) -> String {
    match limit.as_secs() {
        seconds @ ..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

impl Outage {
    /// Records that another call was not answered. Returns since when none was, while the outage is tolerated.
    ///
    /// * `asked`: the time of the call. A call from before the end of the last outage belongs to that one.
    fn goes_on(&self, failure: &Failure, is_gone: bool, patience: Duration, asked: Instant) -> Option<Instant> {
        if patience.is_zero() {
            return None;
        }
        let mut silences = self.0.lock();
        if silences.present.is_none() && silences.ended.is_some_and(|ended| asked < ended) {
            return Some(asked);
        }
        let silence = silences.present.get_or_insert_with(|| Silence { since: Instant::now(), is_reported: false });
        let waited = silence.since.elapsed();
        if waited >= patience {
            return None;
        }
        if !silence.is_reported && (is_gone || waited >= BUSY_NOTE_AFTER) {
            silence.is_reported = true;
            eprintln!("{}; waiting for it, {} at most", failure.error, in_words(patience));
        }
        Some(silence.since)
    }

    /// A call was answered.
    ///
    /// * `asked`: when. The answer to one of before the silence says nothing: it may have been on its way when the node went.
    fn over(&self, node: &str, asked: Instant) {
        let mut silences = self.0.lock();
        if silences.present.as_ref().is_none_or(|silence| asked < silence.since) {
            return;
        }
        silences.ended = Some(Instant::now());
        if silences.present.take().is_some_and(|silence| silence.is_reported) {
            eprintln!("{node} answers again; continuing");
        }
    }
}

impl NodeHandle {
    /// What people know it by.
    fn display_name(&self) -> &str {
        match self {
            Self::Remote(remote) => remote.base_url(),
            Self::Local(_) => "the data directory",
        }
    }
}

/// Which node does the work, if known.
enum Resolution {
    /// Not resolved yet.
    Unknown,
    Found(Arc<NodeHandle>),
    /// The backend was closed.
    Closed,
}

impl Backend {
    /// The node at the address; else the one that runs on the data directory; else the directory itself.
    pub(super) fn find(address: Address, config: Config, stay: Stay, absent: Absent) -> Result<Self, Failure> {
        let backend = Self::later(address, config, stay, absent);
        backend.handle()?;
        Ok(backend)
    }

    /// The same, resolved when it is first needed, and again as long as there is none.
    pub(super) fn later(address: Address, config: Config, stay: Stay, absent: Absent) -> Self {
        let (runtime, resolution, resolving) = (OnceLock::new(), Mutex::new(Resolution::Unknown), Mutex::new(()));
        let (patience, outage) = (Duration::ZERO, Outage::default());
        Self { config, address, stay, absent, patience, outage, runtime, resolution, resolving }
    }

    /// Waits this long for a node that disappears or is full meanwhile, and then repeats the request.
    pub(super) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The node at the address, else the one that runs on the data directory, if one does. Opens nothing.
    pub(super) fn running(address: Address, config: Config) -> Result<Option<Self>, Failure> {
        let remote = match &address.url {
            Some(url) => Some(Remote::at(url, &address)?),
            None => Remote::running_on(&config.data_dir, address.token.as_deref()),
        };
        Ok(remote.map(|remote| Self {
            config,
            address,
            stay: Stay::Brief,
            absent: Absent::Refuse,
            patience: Duration::ZERO,
            outage: Outage::default(),
            runtime: OnceLock::new(),
            resolution: Mutex::new(Resolution::Found(Arc::new(NodeHandle::Remote(remote)))),
            resolving: Mutex::new(()),
        }))
    }

    fn resolve(&self) -> Result<NodeHandle, Failure> {
        if let Some(url) = &self.address.url {
            return Remote::at(url, &self.address).map(NodeHandle::Remote);
        }
        let start = Instant::now();
        let mut is_reported = false;
        loop {
            if let Some(remote) = Remote::running_on(&self.config.data_dir, self.address.token.as_deref()) {
                return Ok(NodeHandle::Remote(remote));
            }
            if self.absent == Absent::Refuse {
                expect_node(&self.config)?;
            }
            let holder = if store::HandoverRequest::is_made(&self.config.data_dir) {
                // A node is about to start on it.
                None
            } else {
                match Local::open(&self.config, self.runtime()?.handle(), self.stay) {
                    Ok(local) => return Ok(NodeHandle::Local(local)),
                    Err(OpenError::Store(store::OpenError::Locked { pid, .. })) => pid,
                    Err(error) if is_denied(&error) => return Err(absent::not_ours(&self.config.data_dir)),
                    Err(error) => return Err(error.into()),
                }
            };
            if start.elapsed() >= LOCK_PATIENCE {
                return Err(Failure::unreachable(anyhow!(self.held_by(holder))));
            }
            if !is_reported && start.elapsed() >= NOTE_AFTER {
                is_reported = true;
                eprintln!("waiting for {}, which has {} open", store::holder(holder), self.config.data_dir.display());
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    fn held_by(&self, holder: Option<u32>) -> String {
        let end = holder.map_or_else(String::new, |pid| format!(" (kill {pid})"));
        format!(
            "{} has {} open and does not answer; try again when it has ended, or end it{end}",
            store::holder(holder),
            self.config.data_dir.display()
        )
    }

    /// Largest request that a node with these settings accepts.
    pub(super) fn request_bytes_max(&self) -> usize {
        self.config.server.request_bytes_max.as_usize()
    }

    /// The runtime of whatever runs in this process.
    pub(super) fn runtime(&self) -> io::Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let built = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(self.runtime.get_or_init(|| built))
    }

    /// The resolved node, if any.
    fn resolved(&self) -> Option<Arc<NodeHandle>> {
        match &*self.resolution.lock() {
            Resolution::Found(handle) => Some(Arc::clone(handle)),
            Resolution::Unknown | Resolution::Closed => None,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(*self.resolution.lock(), Resolution::Closed)
    }

    fn handle(&self) -> Result<Arc<NodeHandle>, Failure> {
        let known = || match &*self.resolution.lock() {
            Resolution::Found(handle) => Ok(Some(Arc::clone(handle))),
            Resolution::Unknown => Ok(None),
            Resolution::Closed => Err(stopping()),
        };
        if let Some(handle) = known()? {
            return Ok(handle);
        }
        let _resolving = self.resolving.lock();
        match known()? {
            Some(handle) => Ok(handle),
            None => self.store_resolved(self.resolve()?),
        }
    }

    /// Stores the resolved node.
    fn store_resolved(&self, handle: NodeHandle) -> Result<Arc<NodeHandle>, Failure> {
        let found = Arc::new(handle);
        match &mut *self.resolution.lock() {
            // Closed meanwhile: what was found is closed with its last use.
            Resolution::Closed => Err(stopping()),
            resolution => {
                *resolution = Resolution::Found(Arc::clone(&found));
                Ok(found)
            }
        }
    }

    /// Does `work` at the node; if that has disappeared, resolves the next one and repeats it there. If patience was
    /// requested, waits for a node that disappeared or is full.
    fn with_handle<T>(&self, mut work: impl FnMut(&NodeHandle) -> Result<T, Failure>) -> Result<T, Failure> {
        let (mut handle, mut pause, mut looked) = (self.handle()?, PAUSE_MIN, false);
        loop {
            let asked = Instant::now();
            let failure = match work(&handle) {
                Ok(done) => {
                    self.outage.over(handle.display_name(), asked);
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            let is_gone = failure.error.is::<Gone>();
            // This process has no room for the moment either, when it adds much at once. One that stops has none any more.
            let may_pass = is_gone || (failure.is_for_now() && !self.is_closed());
            if may_pass && let Some(since) = self.outage.goes_on(&failure, is_gone, self.patience, asked) {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
                // A given address is retried unchanged. Here another process may have taken over.
                if is_gone && self.address.url.is_none() {
                    handle = self.reconnect(&handle, since)?.unwrap_or(handle);
                }
            } else if is_gone && self.address.url.is_none() && !looked {
                looked = true;
                handle = self.next(&handle)?;
            } else {
                return Err(failure);
            }
        }
    }

    /// The node that returned, or another one; `None` as long as there is none. The data directory is not opened here
    /// immediately: a restarting service would find it locked.
    fn reconnect(&self, gone: &Arc<NodeHandle>, since: Instant) -> Result<Option<Arc<NodeHandle>>, Failure> {
        if since.elapsed() >= TAKE_OVER_AFTER {
            return self.next(gone).map(Some);
        }
        let _resolving = self.resolving.lock();
        match self.resolved() {
            Some(current) if Arc::ptr_eq(&current, gone) => {
                let remote = Remote::running_on(&self.config.data_dir, self.address.token.as_deref());
                remote.map(|remote| self.store_resolved(NodeHandle::Remote(remote))).transpose()
            }
            Some(current) => Ok(Some(current)),
            None if self.is_closed() => Err(stopping()),
            None => Ok(None),
        }
    }

    /// The node that came after `gone`. The first caller searches for it, the others use the result.
    fn next(&self, gone: &Arc<NodeHandle>) -> Result<Arc<NodeHandle>, Failure> {
        let _resolving = self.resolving.lock();
        match self.resolved() {
            Some(current) if Arc::ptr_eq(&current, gone) => self.store_resolved(self.resolve()?),
            Some(current) => Ok(current),
            None if self.is_closed() => Err(stopping()),
            None => self.store_resolved(self.resolve()?),
        }
    }

    /// Calls a tool.
    pub(super) fn call(&self, tool: impl AsRef<str>, arguments: Value) -> Result<Value, Failure> {
        let (tool, arguments) = (tool.as_ref(), without_nulls(arguments));
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.call(tool, &arguments),
            NodeHandle::Local(local) => {
                local.wait_ready()?;
                let caller = caller();
                let call = local.node().tools().call(tool, arguments.clone(), ToolContext::of(&caller));
                Ok(self.runtime()?.block_on(call).map_err(failure)?.structured)
            }
        })
    }

    /// Calls a tool for the outcome only.
    pub(super) fn call_unread(&self, tool: Tool, arguments: Value) -> Result<(), Failure> {
        if let NodeHandle::Remote(remote) = &*self.handle()? {
            return remote.call_unread(tool, &without_nulls(arguments));
        }
        self.call(tool, arguments).map(drop)
    }

    /// The status of a running node, if it answers immediately. Unlike [`Self::call`] it does not search for another
    /// node.
    pub(super) fn peek(&self) -> Option<Value> {
        match &*self.resolved()? {
            NodeHandle::Remote(remote) => remote.peek(),
            NodeHandle::Local(local) => {
                let caller = caller();
                let call = local.node().tools().call(Tool::GetStatus.name(), Map::new(), ToolContext::of(&caller));
                Some(self.runtime().ok()?.block_on(call).ok()?.structured)
            }
        }
    }

    /// Brings a source's documents in line with its content; see `Library::sync_source`. `repeated` in the outcome: an earlier try
    /// may have done it.
    pub(super) fn sync_source(
        &self,
        collection: &str,
        source: &str,
        mut bytes: Vec<u8>,
        metadata: &Map<String, Value>,
    ) -> Result<Value, Failure> {
        let mut times = 0;
        let synced = self.with_handle(|handle| {
            times += 1;
            match handle {
                NodeHandle::Remote(remote) => remote.sync_source(collection, source, &bytes, metadata),
                NodeHandle::Local(local) => {
                    // This process does not go away from itself: the bytes are wanted once.
                    let bytes = std::mem::take(&mut bytes);
                    let (tools, caller) = (local.node().tools(), caller());
                    let synced = tools.sync_source(&caller, collection, source, bytes, metadata.clone());
                    let outcome = self.runtime()?.block_on(synced).map_err(failure)?;
                    Ok(serde_json::to_value(SyncedSource::new(source, &outcome)).expect("an outcome is plain data"))
                }
            }
        });
        synced.map(|mut outcome| {
            if times > 1 {
                outcome["repeated"] = true.into();
            }
            outcome
        })
    }

    /// The folders that were added to a collection; none when there is no such collection.
    pub(super) fn folders(&self, collection: &str) -> Result<Vec<Folder>, Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.folders(collection),
            NodeHandle::Local(local) => {
                let caller = caller();
                none_if_missing(self.runtime()?.block_on(local.node().tools().folders(&caller, collection)))
            }
        })
    }

    /// Remembers where a folder is, with its collection.
    pub(super) fn note_folder(&self, collection: &str, folder: &Folder) -> Result<(), Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.note_folder(collection, folder),
            NodeHandle::Local(local) => {
                let caller = caller();
                let noted = local.node().tools().note_folder(&caller, collection, &folder.prefix, &folder.origin);
                self.runtime()?.block_on(noted).map_err(failure)
            }
        })
    }

    /// The sources of a collection whose paths begin with `prefix`, each with the number of its documents; none when there
    /// is no such collection.
    pub(super) fn sources(&self, collection: &str, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        let mut sources: Vec<(String, u64)> = Vec::new();
        loop {
            let after = sources.last().map(|(source, _)| source.clone());
            let page = self.with_handle(|handle| match handle {
                NodeHandle::Remote(remote) => remote.sources(collection, prefix, after.as_deref()),
                NodeHandle::Local(local) => {
                    let caller = caller();
                    let tools = local.node().tools();
                    let listed = tools.sources(&caller, collection, prefix, after.as_deref(), SOURCES_PAGE);
                    none_if_missing(self.runtime()?.block_on(listed))
                }
            })?;
            if page.is_empty() {
                return Ok(sources);
            }
            sources.extend(page);
        }
    }

    /// Deletes the documents of a source. Returns how many.
    pub(super) fn delete_source(&self, collection: &str, source: &str) -> Result<u64, Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.delete_source(collection, source),
            NodeHandle::Local(local) => {
                let caller = caller();
                let deleted = local.node().tools().delete_source(&caller, collection, source);
                Ok(self.runtime()?.block_on(deleted).map_err(failure)?.len() as u64)
            }
        })
    }

    /// Waits until everything written so far can be found.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.flush(),
            NodeHandle::Local(local) => {
                let caller = caller();
                self.runtime()?.block_on(local.node().tools().flush(&caller)).map(drop).map_err(failure)
            }
        })
    }

    /// Has the node prove a snapshot, when it is a running one.
    pub(super) fn verify_snapshot(&self, id: Option<&str>) -> Result<Option<Value>, Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.verify_snapshot(id).map(Some),
            NodeHandle::Local(_) => Ok(None),
        })
    }

    /// The settings and results of snapshots, from a running node.
    pub(super) fn snapshot_schedule(&self) -> Result<Option<Value>, Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.snapshot_schedule().map(Some),
            NodeHandle::Local(_) => Ok(None),
        })
    }

    /// Has a running node remove the snapshots that its settings do not keep.
    pub(super) fn prune_snapshots(&self, node: Option<&str>, dry_run: bool) -> Result<Option<Value>, Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => remote.prune_snapshots(node, dry_run).map(Some),
            NodeHandle::Local(_) => Ok(None),
        })
    }

    /// The address of the node, when it is a running one.
    pub(super) fn address(&self) -> Option<String> {
        match &*self.resolved()? {
            NodeHandle::Remote(remote) => Some(remote.base_url().to_owned()),
            NodeHandle::Local(_) => None,
        }
    }

    /// Identity of the node. Does not wait for it to be ready.
    pub(super) fn node(&self) -> Result<NodeId, Failure> {
        self.with_handle(|handle| match handle {
            NodeHandle::Remote(remote) => {
                let status = remote.call(Tool::GetStatus.name(), &Map::new())?;
                Ok(status["node"].as_str().unwrap_or_default().parse().context("the node does not report its id")?)
            }
            NodeHandle::Local(local) => Ok(local.node().tools().node()),
        })
    }

    /// The position of the last write, where the node was found that has it; unlike [`Self::call`] this looks for no other node.
    /// Waits for another position as long as it is `known`, `wait` at most.
    pub(super) fn changed(&self, known: Option<Lsn>, wait: Duration) -> Option<Result<Lsn, Failure>> {
        Some(match &*self.resolved()? {
            NodeHandle::Remote(remote) => remote.changed(known, wait),
            NodeHandle::Local(local) => {
                let caller = caller();
                // Short: what waits here holds the data directory.
                let changed = local.node().tools().changed(&caller, known, wait.min(LOCAL_CHANGE_WAIT));
                self.runtime().map_err(Failure::from).and_then(|runtime| runtime.block_on(changed).map_err(failure))
            }
        })
    }

    /// The node in this process, when there is one and it is ready.
    pub(super) fn node_here(&self) -> Option<Arc<Node>> {
        match &*self.resolved()? {
            NodeHandle::Local(local) if local.node().readiness().is_ready() => Some(Arc::clone(local.node())),
            NodeHandle::Local(_) | NodeHandle::Remote(_) => None,
        }
    }

    /// Answers waiting callers and closes the files, if they are open here. Later calls are refused. Not for tasks of
    /// the runtime: it blocks.
    pub(super) fn close(&self) {
        self.end(Local::close);
    }

    /// The same, and faster after a large change: merging indexes is left to the next process that opens the files.
    pub(super) fn close_soon(&self) {
        self.end(Local::close_soon);
    }

    fn end(&self, close: impl FnOnce(&Local)) {
        let resolution = std::mem::replace(&mut *self.resolution.lock(), Resolution::Closed);
        if let Resolution::Found(handle) = resolution
            && let NodeHandle::Local(local) = &*handle
        {
            close(local);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.close();
        if let Some(runtime) = self.runtime.take() {
            // Standard input may still be read by a thread that nothing ends.
            runtime.shutdown_background();
        }
    }
}

/// The caller for the command line on a data directory.
pub(super) fn caller() -> Caller {
    Caller::local(Transport::CommandLine)
}

/// The list of a collection's items; empty when the collection does not exist.
fn none_if_missing<T>(listed: Result<Vec<T>, ToolError>) -> Result<Vec<T>, Failure> {
    match listed {
        Err(error) if error.code == ErrorCode::NotFound => Ok(Vec::new()),
        listed => listed.map_err(failure),
    }
}

/// A call's arguments. Null ones are left out: the tool's defaults apply.
fn without_nulls(arguments: Value) -> Arguments {
    match arguments {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

fn stopping() -> Failure {
    Failure::unreachable(anyhow!("this process is stopping"))
}

/// Whether a data directory belongs to another user.
fn is_denied(error: &OpenError) -> bool {
    let mut causes = anyhow::Chain::new(error);
    causes.any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

/// A tool's error with its exit code.
fn failure(error: ToolError) -> Failure {
    match error.fault {
        Fault::Environment if error.code == ErrorCode::Overloaded => Failure::unreachable(error),
        Fault::Caller | Fault::Environment | Fault::Damage => error.into(),
    }
}

/// A list of names as tools accept it, or null.
pub(super) fn names(names: &[String]) -> Value {
    if names.is_empty() { Value::Null } else { json!(names) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    fn backend(data_dir: &Path, stay: Stay) -> Result<Backend, Failure> {
        let overrides = Overrides { data_dir: Some(data_dir.to_owned()), ..Overrides::default() };
        let config = Config::load(None, [], &overrides).expect("the defaults are valid");
        Backend::find(Address::default(), config, stay, Absent::Make)
    }

    fn add(backend: &Backend, id: &str) {
        let documents = json!([{"id": id, "text": "The heron stands in the reeds."}]);
        backend.call(Tool::AddDocuments, json!({"collection": "notes", "documents": documents})).expect("written");
    }

    fn count(backend: &Backend) -> u64 {
        backend.call(Tool::GetStatus, json!({})).expect("answered")["documents"].as_u64().expect("a number")
    }

    #[test]
    fn whoever_comes_second_is_answered_and_takes_over() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let first = backend(directory.path(), Stay::Long).expect("opened");
        add(&first, "a");
        let second = backend(directory.path(), Stay::Long).expect("answered by the first");
        assert!(first.address().is_none() && second.address().is_some());
        add(&second, "b");
        assert_eq!((count(&first), count(&second)), (2, 2));
        drop(first);
        assert!(!directory.path().join("running.json").exists());
        assert_eq!(count(&second), 2, "it opens the directory itself");
        assert!(second.address().is_none());
        let third = backend(directory.path(), Stay::Brief).expect("answered by the second");
        add(&third, "c");
        assert_eq!(count(&second), 3);
    }

    #[test]
    fn a_brief_stay_is_waited_for() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let first = backend(directory.path(), Stay::Brief).expect("opened");
        add(&first, "a");
        assert!(!directory.path().join("running.json").exists(), "nobody would reach it in time");
        let path = directory.path().to_owned();
        let second =
            crate::task::spawn_thread("waits", move || backend(&path, Stay::Brief).map(|second| count(&second)));
        drop(first);
        let counted = second.expect("a thread").join().expect("no panic");
        assert_eq!(counted.map_err(|failure| failure.to_string()), Ok(1));
    }

    #[test]
    fn a_leftover_whose_port_another_node_has_is_recognised() {
        let (left, other) = (tempfile::tempdir().expect("created"), tempfile::tempdir().expect("created"));
        add(&backend(left.path(), Stay::Brief).expect("opened"), "a");
        let elsewhere = backend(other.path(), Stay::Long).expect("opened");
        let mut running: Value =
            serde_json::from_slice(&std::fs::read(other.path().join("running.json")).expect("read")).expect("JSON");
        running["node"] = "00000000000000000000000000000000".into();
        std::fs::write(left.path().join("running.json"), running.to_string()).expect("written");
        let found = backend(left.path(), Stay::Brief).expect("opened");
        assert_eq!((found.address(), count(&found), count(&elsewhere)), (None, 1, 0));
    }

    #[test]
    fn what_a_node_refuses_keeps_its_code_on_the_way() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let first = backend(directory.path(), Stay::Long).expect("opened");
        let second = backend(directory.path(), Stay::Brief).expect("answered by the first");
        for (tool, arguments) in [
            (Tool::Fetch, json!({"id": "notes/none"})),
            (Tool::Search, json!({"limit": 3})),
            (Tool::Search, json!({"query": "x", "collections": ["none"]})),
            (Tool::DeleteDocuments, json!({})),
        ] {
            let error = |backend: &Backend| {
                let failure = backend.call(tool, arguments.clone()).expect_err("refused");
                (failure.code, failure.error.downcast::<ToolError>().expect("a tool's"))
            };
            assert_eq!(error(&first), error(&second), "{tool:?}");
        }
        assert_eq!(second.sources("none", "").map_err(|failure| failure.to_string()), Ok(Vec::new()));
    }
}
