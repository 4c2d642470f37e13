//! Composition: from settings to a running node, and the order in which it stops.
//!
//! Start: admin listener, MCP listener, log, indexes, requests. Stop, with a deadline: no new connections, requests in
//! flight, background work, indexes, log. Acknowledged data is on stable storage at every moment in between.

mod limits;
mod listener_auth;
mod memory;
mod metrics;
#[cfg(test)]
mod models_test;
mod reload;
mod running;
mod snapshots;
mod supervisor;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::api::{self, Admin, Hosts, InFlightMax, ListenError, Listener};
use crate::auth::{Authority, Token};
use crate::base::{ByteSize, SystemClock};
use crate::calls::{self, Calls, Operation, Rule};
use crate::collection::{self, Library, OpenError};
use crate::config::{Config, Source};
use crate::embed::Models;
use crate::extraction;
use crate::index::gpu::service::{GpuClient, GpuService, Use};
use crate::index::lexical::WordCache;
use crate::mcp::{NodeSnapshots, NodeTools};
use crate::retrieval::Retrieval;
use crate::snapshot::{Probe, Snapshots};
use crate::store;
use crate::task::{self, Drain, FairSemaphore, Pulse, Readiness, Restart};

use listener_auth::ListenerAuth;
use memory::Memory;
pub use metrics::Metrics;
use reload::{Cause, Settings};
use running::url;
pub use running::{RunningNode, SnapshotLocation};
pub use snapshots::snapshots;
use supervisor::Supervisor;

/// How often expired documents are removed and memory is divided again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Time between a restart request and the shutdown, for the answer to its caller.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How long a restart waits for users of the closed log.
const REOPEN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a process that acts as the node may take to hand the data directory over.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);
/// How often to check whether the data directory is free. There is no notification of that.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Documents removed in one sweep.
const SWEEP_DOCUMENTS: usize = 1_000;

/// An opened node: everything but the sockets.
pub struct Node {
    /// Dropped first, so that its thread holds nothing of a collection when the files are closed.
    gpu: Option<GpuService>,
    library: Arc<Library>,
    tools: Arc<NodeTools>,
    snapshots: Arc<Snapshots>,
    compute: FairSemaphore,
    memory: Memory,
    metrics: Metrics,
    readiness: Readiness,
}

impl Node {
    /// Opens the data directory.
    ///
    /// * `runtime`: runs the network operations of snapshots.
    /// * `restart`: how the node restarts on restored data; `None` where nobody listens for that.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be read or written.
    pub fn open(
        config: &Config,
        readiness: Readiness,
        metrics: Metrics,
        runtime: &Handle,
        restart: Option<Restart>,
    ) -> Result<Self, OpenError> {
        Self::open_under(Vec::new(), config, readiness, metrics, runtime, restart)
    }

    /// * `rules`: decide on every call.
    fn open_under(
        rules: Vec<Box<dyn Rule>>,
        config: &Config,
        readiness: Readiness,
        metrics: Metrics,
        runtime: &Handle,
        restart: Option<Restart>,
    ) -> Result<Self, OpenError> {
        let start = Instant::now();
        keep_files_private();
        // A command that opens the data directory ends before a GPU would be ready.
        let gpu = (restart.is_some() && config.gpu.how != Use::Off)
            .then(|| GpuService::start(config.gpu.clone(), metrics.collections.gpu.clone()).map_err(OpenError::Thread))
            .transpose()?;
        let library = library_config(config, Arc::new(Models::built_in()), gpu.as_ref().map(GpuService::client));
        let (library, report) = Library::open(library, &readiness, &metrics.collections)?;
        for warning in &report.warnings {
            tracing::warn!("{warning}");
        }
        crate::snapshot::forget_old_attempts(&config.data_dir);
        for damage in &report.damage {
            tracing::error!(%damage, "the log is damaged; what the record held cannot be read, the rest is served");
        }
        if report.torn_bytes > 0 {
            tracing::warn!(
                bytes = report.torn_bytes,
                "an unfinished write at the end of the log was cut off; nothing acknowledged was in it"
            );
        }
        tracing::info!(
            node = %report.node, lsn = report.last.0, catalog = ?report.catalog,
            collections = library.log().collections(), took_ms = start.elapsed().as_millis() as u64, "the log is open",
        );
        let calls = Calls::new(rules, metrics.calls.clone());
        Ok(Self { gpu, ..Self::over(library, calls, config, (readiness, metrics), runtime, restart) })
    }

    /// The rest of a node, on its open collections.
    fn over(
        library: Arc<Library>,
        calls: Calls,
        config: &Config,
        (readiness, metrics): (Readiness, Metrics),
        runtime: &Handle,
        restart: Option<Restart>,
    ) -> Self {
        let retrieval = Retrieval::new(Arc::clone(&library), config.search, metrics.searches.clone());
        let budget = library.memory().budget.clone();
        let snapshots = Arc::new(snapshots::beside(
            config,
            Arc::clone(library.models()),
            budget,
            metrics.fetch.clone(),
            runtime.clone(),
        ));
        let node = Arc::new(snapshots::Collections::new(Arc::clone(&library), calls.clone()));
        let backups = NodeSnapshots::new(Arc::clone(&snapshots), node, restart);
        let compute = FairSemaphore::new(task::cores(), config.server.in_flight_max);
        let tools = Arc::new(NodeTools::new(
            retrieval,
            backups,
            readiness.clone(),
            metrics.reads.clone(),
            compute.clone(),
            calls,
        ));
        let memory = Memory::new(config, Arc::clone(&tools), metrics.memory.clone());
        memory.rebalance();
        Self { gpu: None, library, tools, snapshots, compute, memory, metrics, readiness }
    }

    fn probe(&self) -> Arc<dyn Probe> {
        Arc::new(snapshots::Collections::new(Arc::clone(&self.library), self.calls().clone()))
    }

    /// The tools over the node's collections.
    #[must_use]
    pub fn tools(&self) -> &Arc<NodeTools> {
        &self.tools
    }

    /// The entry point for calls.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        self.tools.calls()
    }

    /// The node's collections.
    #[must_use]
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// The reasons why the node is not ready.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Blocks until the node is ready, at most for `patience`. Returns whether it is.
    #[must_use]
    pub fn wait_ready(&self, patience: Duration) -> bool {
        self.readiness.wait(patience)
    }

    /// Answers the other processes of this machine at a free loopback port, for a process that holds the data directory
    /// for longer than they would want to wait.
    ///
    /// # Errors
    /// When no port is available.
    pub async fn answer_locally(self: &Arc<Self>, config: &Config, drain: &Drain) -> Result<Answering, ListenError> {
        let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let listener_auth = ListenerAuth::open();
        let running = RunningNode::new(config, self, &listener, &listener_auth, false, None);
        let live = Live::new(config, &listener_auth);
        Ok(self.answer(config, listener, &listener_auth, running, &live, drain))
    }

    /// Answers MCP and REST until the shutdown starts, removes expired documents meanwhile, and registers the address
    /// for the command line.
    fn answer(
        self: &Arc<Self>,
        config: &Config,
        listener: Listener,
        listener_auth: &ListenerAuth,
        running: RunningNode,
        live: &Live,
        drain: &Drain,
    ) -> Answering {
        let (limits, _) = limits::of_listeners(config);
        let server = api::Config {
            listen: listener.address(),
            authenticator: listener_auth.server.clone(),
            authority: listener_auth.authority().map(|authority| authority.pem.clone()),
            allowed_hosts: live.hosts.clone(),
            cors_origins: config.server.cors_origins.clone(),
            bodies: limits::of_bodies(config),
            in_flight_max: live.in_flight_max.clone(),
            connections_max: limits.connections_max,
            drain_timeout: config.server.drain_timeout,
        };
        let service = api::http_service(&server, Arc::clone(&self.tools), &self.metrics.requests, drain);
        let tls = listener_auth.identity.clone().filter(|_| running.tls);
        let serving = task::spawn("serve", listener.serve(service, tls, limits, drain.clone(), server.drain_timeout));
        let sweeping = task::spawn("sweep", sweep(Arc::clone(self), drain.clone()));
        // Written last: a process that reads it gets an answer at the port.
        if let Err(error) = running.write(&config.data_dir) {
            tracing::warn!(%error, "the command line will not find this node by its data directory");
        }
        Answering { running, data_dir: config.data_dir.clone(), serving, sweeping }
    }

    /// Finishes running work and closes the files.
    pub fn close(&self) {
        self.stop_gpu();
        self.library.close();
    }

    /// The same, but faster: merging indexes is left to the next node that opens the data directory.
    pub fn close_soon(&self) {
        self.stop_gpu();
        self.library.close_soon(true);
    }

    fn stop_gpu(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.stop();
        }
    }
}

/// Makes all files that this process creates from now on readable by its owner alone: libraries that write to the data
/// directory set no mode.
fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

fn library_config(config: &Config, models: Arc<Models>, gpu: Option<GpuClient>) -> collection::Config {
    collection::Config {
        data_dir: config.data_dir.clone(),
        store: config.store.clone(),
        extraction: extraction::Config {
            // The unit tests' executable is not Cairn.
            isolation: if cfg!(test) { extraction::Isolation::InProcess } else { extraction::Isolation::Children },
            width: task::cores(),
            memory_bytes_max: (config.extraction.parse_memory_bytes_max)
                .unwrap_or_else(|| extraction::memory_bytes_max(memory::budget(config))),
            time_max: config.extraction.parse_time_max,
        },
        limits: config.ingest.limits(),
        chunks: config.ingest.chunks(),
        vectors: config.vectors.clone(),
        gpu,
        models,
        words: Arc::new(WordCache::new(config.search.word_cache_bytes)),
        memory: memory::of_collections(config),
        clock: Arc::new(SystemClock),
        followers: snapshots::followers(config),
    }
}

/// The tasks of a node that serves a socket.
#[must_use = "the tasks end in order only when they are awaited"]
pub struct Answering {
    running: RunningNode,
    data_dir: PathBuf,
    serving: JoinHandle<()>,
    sweeping: JoinHandle<()>,
}

impl Answering {
    /// Waits for the requests in flight; the drain must have started.
    ///
    /// # Errors
    /// When a task panicked.
    pub async fn finish(self) -> anyhow::Result<()> {
        let served = self.serving.await.context("serving panicked");
        let swept = self.sweeping.await.context("the sweep panicked");
        // Before the lock is released: afterwards the file may belong to the next process.
        self.running.remove(&self.data_dir);
        served.and(swept)
    }
}

/// Facts about a node that answers requests.
pub struct Ready<'a> {
    /// Its address.
    pub node: &'a RunningNode,
    /// The URL of its admin listener.
    pub admin: String,
    /// The node's token, if it was just created: it is not shown again.
    pub token: Option<&'a Token>,
    /// The authority that clients have to trust, if the node's certificate comes from its own authority.
    pub authority: Option<&'a Authority>,
}

/// Settings that listeners read for each request, because they may change while running.
struct Live {
    hosts: Hosts,
    in_flight_max: InFlightMax,
}

impl Live {
    fn new(config: &Config, listener_auth: &ListenerAuth) -> Self {
        Self {
            hosts: Hosts::new(listener_auth.allowed_hosts(config)),
            in_flight_max: InFlightMax::new(config.server.in_flight_max),
        }
    }
}

/// Why a node stopped answering.
enum StopReason {
    /// It was asked to.
    Stopped,
    /// It restarts, at the same address.
    Restarting(SocketAddr),
}

/// Runs a node until SIGTERM or SIGINT; a restore restarts it in between. `ready` is called once, when requests are
/// answered.
///
/// * `source`: where the settings came from, and are reloaded from.
/// * `new_token`: creates a new node token; the old one becomes invalid.
///
/// # Errors
/// When an address cannot be bound or the data directory cannot be opened.
pub fn serve(config: &Config, source: Source, new_token: bool, ready: impl FnOnce(Ready<'_>)) -> anyhow::Result<()> {
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("cairn")
        // One more than may compute at once (`FairSemaphore`): it reads sockets and refuses requests while all others
        // search.
        .worker_threads(task::cores() + 1)
        .build()
        .context("cannot start the runtime")?;
    let result = serve_on(&runtime, config, source, new_token, ready);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn serve_on(
    runtime: &Runtime,
    config: &Config,
    source: Source,
    new_token: bool,
    ready: impl FnOnce(Ready<'_>),
) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let supervisor = Supervisor::start(runtime.handle()).context("cannot start a thread")?;
    let (mut new_token, mut ready) = (new_token, Some(ready));
    // Listened to throughout: signals that arrive during a restart count too.
    let (mut signals, mut settings) = {
        let _entered = runtime.enter();
        ((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?), Settings::new(config, source)?)
    };
    loop {
        let (drain, readiness) = (Drain::default(), Readiness::default());
        // Until the node itself reports what it waits for: the admin listener answers from the first moment.
        readiness.set_reason("start", "the node is starting");
        supervisor.starting(&readiness);
        let config = &settings.config;
        let listener_auth = ListenerAuth::make(config, new_token)?;
        let live = Live::new(config, &listener_auth);
        let admin = Admin::start(
            config.admin_listen,
            listener_auth.admin.clone(),
            listener_auth.identity_at(config, config.admin_listen),
            limits::of_listeners(config).1,
            live.hosts.clone(),
            readiness.clone(),
            Pulse::of(runtime.handle().clone()),
            metrics.served(),
            drain.clone(),
        )?;
        settings.config.admin_listen = admin.address();
        let (metrics, ready) = (metrics.clone(), ready.take());
        let running = run(
            &mut settings,
            &listener_auth,
            &live,
            &admin,
            &drain,
            &supervisor,
            readiness,
            metrics,
            &mut signals,
            ready,
        );
        let ended = runtime.block_on(running);
        drain.start();
        admin.join().context("the admin listener did not stop")?;
        match ended? {
            StopReason::Stopped => return Ok(()),
            StopReason::Restarting(listen) => {
                settings.config.server.listen = listen;
                new_token = false;
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what a round shares with the next one, and what it has for itself")]
async fn run(
    settings: &mut Settings,
    listener_auth: &ListenerAuth,
    live: &Live,
    admin: &Admin,
    drain: &Drain,
    supervisor: &Supervisor,
    readiness: Readiness,
    metrics: Metrics,
    (terminate, interrupt): &mut (Signal, Signal),
    ready: Option<impl FnOnce(Ready<'_>)>,
) -> anyhow::Result<StopReason> {
    let config = &settings.config;
    let listener = Listener::bind(config.server.listen).await?;
    let (opening, restart, is_first) = (config.clone(), Restart::default(), ready.is_some());
    let wish = restart.clone();
    let node = tokio::task::spawn_blocking(move || open(&opening, readiness, metrics, wish, is_first));
    let node = Arc::new(node.await.context("opening the data directory panicked")??);
    node.readiness().clear_reason("start");
    admin.watch(Arc::clone(node.library()), Arc::clone(&node.snapshots), node.calls().clone());
    let tls = config.server.tls;
    let running = RunningNode::new(
        config,
        &node,
        &listener,
        listener_auth,
        tls.covers(config.server.listen),
        Some(admin.address()),
    );
    let answering = node.answer(config, listener, listener_auth, running.clone(), live, drain);
    let schedule = snapshots::schedule(Arc::clone(&node.snapshots), node.probe(), drain.clone());
    let schedule = task::spawn("snapshots", schedule);
    let lookup = listener_auth.identity.clone().zip(config.server.service.as_ref()).map(|(identity, service)| {
        task::spawn("lookup", listener_auth::watch_service_addresses(identity, service.full.clone(), drain.clone()))
    });
    let admin = url(tls.covers(config.admin_listen), admin.address());
    supervisor.serving(&running.mcp(), &node.library);
    let problems = crate::mcp::problems(Some(node.library()), node.readiness());
    if problems.is_empty() {
        tracing::info!(mcp = %running.mcp(), %admin, "ready");
    } else {
        let problems: Vec<String> = problems.into_values().collect();
        tracing::info!(mcp = %running.mcp(), %admin, reasons = problems.join("; "), "requests are answered, but the node is not ready");
    }
    if let Some(ready) = ready {
        ready(Ready { node: &running, admin, token: listener_auth.new.as_ref(), authority: listener_auth.authority() });
    }
    // The file may have changed since it was read; and a restarted node does not know of earlier problems.
    settings.catch_up(&reload::Parts { node: &node, listener_auth, live }).await;
    let ended = loop {
        let cause = tokio::select! {
            _ = terminate.recv() => { tracing::info!("SIGTERM: stopping"); break StopReason::Stopped; }
            _ = interrupt.recv() => { tracing::info!("SIGINT: stopping"); break StopReason::Stopped; }
            () = restart.requested() => {
                // The protocol library drops pending answers when the shutdown starts, and the requester of the restart
                // waits for one.
                tokio::time::sleep(RESTART_PAUSE).await;
                tracing::info!("restarting on restored data");
                break StopReason::Restarting(running.listen);
            }
            cause = settings.cause() => cause,
        };
        if cause == Cause::TerminalGone {
            tracing::info!("SIGHUP: the terminal is gone, stopping");
            break StopReason::Stopped;
        }
        supervisor.reloading();
        settings.reload(cause, &reload::Parts { node: &node, listener_auth, live }).await;
        supervisor.reloaded();
    };
    match ended {
        StopReason::Stopped => supervisor.stopping(),
        StopReason::Restarting(_) => supervisor.restarting(),
    }
    drain.start();
    schedule.await.context("the snapshot schedule panicked")?;
    if let Some(lookup) = lookup {
        lookup.await.context("looking names up panicked")?;
    }
    answering.finish().await?;
    let closing = Arc::clone(&node);
    tokio::task::spawn_blocking(move || closing.close()).await.context("closing panicked")?;
    tracing::info!(log = %ByteSize(node.library().log().bytes()), "stopped");
    Ok(ended)
}

/// Opens the data directory. Waits for remaining users of the closed log after a restart, and at the first start for a process
/// that acts as the node to hand the directory over.
fn open(
    config: &Config,
    readiness: Readiness,
    metrics: Metrics,
    restart: Restart,
    is_first: bool,
) -> Result<Node, OpenError> {
    let start = Instant::now();
    let mut request = None;
    loop {
        let (readiness, metrics) = (readiness.clone(), metrics.clone());
        let (pid, error) = match Node::open(config, readiness, metrics, &Handle::current(), Some(restart.clone())) {
            Err(OpenError::Store(error @ store::OpenError::Locked { pid, .. })) => (pid, error),
            opened => return opened,
        };
        let patience = if is_first { HANDOVER_PATIENCE } else { REOPEN_PATIENCE };
        // Another node stays where it is. The file may be left over from one that died.
        let is_node = is_first
            && RunningNode::read(&config.data_dir)
                .is_some_and(|running| running.admin.is_some() && pid.is_none_or(|pid| pid == running.pid));
        if is_node || start.elapsed() >= patience {
            return Err(error.into());
        }
        if is_first && request.is_none() {
            tracing::info!(pid, "another process has the data directory open; waiting for it to hand it over");
            request = store::HandoverRequest::make(&config.data_dir)
                .inspect_err(|error| tracing::warn!(%error, "cannot request the data directory"))
                .ok();
        }
        // Opening it starts more than a look at the lock.
        while start.elapsed() < patience && store::is_open(&config.data_dir) {
            std::thread::sleep(LOCK_POLL);
        }
    }
}

/// Periodic maintenance, whether or not there are requests.
async fn sweep(node: Arc<Node>, drain: Drain) {
    loop {
        tokio::select! {
            () = drain.ordered() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        node.memory.rebalance();
        node.library.look_at_recall();
        let permit = node.calls().internal_permit(Operation::SWEEP);
        let swept = node.library.access(&permit).sweep_expired(SWEEP_DOCUMENTS).await;
        permit.end(if swept.is_ok() { calls::Outcome::Done } else { calls::Outcome::Failed("sweep") });
        match swept {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "expired documents were removed"),
            Err(error) => tracing::warn!(%error, "expired documents stay, hidden"),
        }
    }
}

#[cfg(test)]
mod tests;
