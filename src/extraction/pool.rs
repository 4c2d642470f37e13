//! Schedules sources on children.
//!
//! * As many children compute at once as there are cores. A child that computes for longer than [`LONG`] no longer
//!   counts, so that slow documents do not block the others; they share the cores then.
//! * The caller reserves the memory of a document: nothing waits for memory here.
//! * A short document does not wait for a slot: a thread of the caller sends it and waits for the answer, for
//!   [`AT_ONCE`] at most. Waking another thread at each step costs more than reading the document.
//! * An idle child waits for the next document, for [`IDLE`]. One that used much memory is ended instead.

use std::io::Write as _;
use std::mem;
use std::os::fd::AsFd as _;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::child::{Child, ExitCause, Starter};
use super::metrics::{Metrics, RefusedLabels};
use super::wire::{self, Batch, END, End, HEAD, ITEMS, Order, PLAIN_BYTES_MAX, REFUSED, Refused};
use super::{Config, ExtractError, Isolation, Protections, Request, Usage, helper};
use crate::base::ByteSize;
use crate::task;

/// The longest time that a thread waits for a child, …
const AT_ONCE: Duration = Duration::from_millis(50);
/// … and the size of documents for which it does: with their metadata they fit into a socket's buffer.
const AT_ONCE_BYTES: usize = 64 << 10;
/// A child that computes for longer releases its slot.
const LONG: Duration = Duration::from_secs(1);
/// Children beyond the slots: those that have computed for long.
const LONG_CHILDREN_PER_PLACE: usize = 4;
/// How long an idle child is kept.
const IDLE: Duration = Duration::from_secs(30);
/// A child whose document used more than this is ended: the allocator returns memory late.
const KEPT_MEMORY_MAX: u64 = 48 << 20;
/// On a busy machine, a document may take this many times its processor time by the clock before its child counts as
/// hanging.
const WAIT_PER_TIME: u32 = 20;
/// Bytes of an answer that are read and returned at a time.
const READ_BYTES: usize = 256 << 10;

/// Reads sources in children; see [`super`]. Dropping it ends them.
#[derive(Debug)]
pub struct Extraction {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    metrics: Metrics,
    slots: Arc<Semaphore>,
    /// The same for short documents: those that a thread waits for, and as many that turned out to take longer.
    short_slots: Arc<Semaphore>,
    children: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// The runtime on which documents are requested.
    runtime: OnceLock<Handle>,
    /// Last: its thread ends when every child was dropped.
    starter: Mutex<Option<Arc<Starter>>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The most recently used one is at the end: it is used next, and the others may be ended.
    children: Vec<Child>,
    used: Option<Instant>,
    /// Ends them when they were idle.
    ending: Option<JoinHandle<()>>,
    /// The first child's greeting, for the log.
    protections: Option<Protections>,
}

impl Extraction {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(config: Config, metrics: Metrics) -> Self {
        let width = config.width.max(1);
        let shared = Shared {
            slots: Arc::new(Semaphore::new(width)),
            short_slots: Arc::new(Semaphore::new(2 * width)),
            children: Arc::new(Semaphore::new(width * (3 + LONG_CHILDREN_PER_PLACE))),
            idle: Mutex::default(),
            runtime: OnceLock::new(),
            starter: Mutex::default(),
            config,
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Reads a source. [`ExtractionStream::next`] returns the answer; dropping it ends the child.
    ///
    /// # Panics
    /// Outside a runtime, unless it is read in this process.
    pub fn read(&self, request: Request) -> ExtractionStream {
        let shared = Arc::clone(&self.shared);
        let length = request.bytes.len();
        let memory = shared.config.memory_for(length).min(request.memory_bytes_max);
        let limit = Limit { memory, time: shared.config.time_for(length) };
        let order = Order::new(&request, limit.memory, limit.time);
        if shared.config.isolation == Isolation::InProcess {
            return ExtractionStream::in_process(shared, limit, &order, request.bytes);
        }
        shared.runtime.get_or_init(Handle::current);
        let mut unsent = Vec::with_capacity(256 + length.min(AT_ONCE_BYTES));
        unsent.extend([0; 4]);
        let mut unsent = postcard::to_extend(&order, unsent).expect("memory takes all that is written");
        let order_length = u32::try_from(unsent.len() - 4).expect("names are short");
        unsent[..4].copy_from_slice(&order_length.to_le_bytes());
        ExtractionStream {
            state: ReadState::NotStarted(request.bytes),
            left: limit.time * WAIT_PER_TIME,
            unsent,
            ..ExtractionStream::new(shared, limit)
        }
    }
}

impl Shared {
    /// An idle child.
    fn idle_child(&self) -> Option<Child> {
        loop {
            let child = self.idle.lock().children.pop()?;
            // If something ends idle children, such as a kernel without memory, that is not the next document's fault.
            if child.is_there() {
                return Some(child);
            }
        }
    }

    /// A child to work with: an idle one or a new one.
    async fn child(self: &Arc<Self>) -> std::io::Result<Child> {
        if let Some(child) = self.idle_child() {
            return Ok(child);
        }
        let started = self.starter()?.child().await;
        self.started(started)
    }

    /// The same on a thread that may block.
    fn child_blocking(self: &Arc<Self>) -> std::io::Result<Child> {
        if let Some(child) = self.idle_child() {
            return Ok(child);
        }
        let started = self.starter()?.child().blocking_recv();
        self.started(started)
    }

    fn started(&self, answer: Result<std::io::Result<Child>, RecvError>) -> std::io::Result<Child> {
        let child = answer.map_err(|_| std::io::Error::other("the thread that starts parsers has ended"))??;
        self.metrics.starts.inc();
        self.say_once(child.protections);
        Ok(child)
    }

    fn starter(&self) -> std::io::Result<Arc<Starter>> {
        let mut starter = self.starter.lock();
        if let Some(starter) = &*starter {
            return Ok(Arc::clone(starter));
        }
        let program = match &self.config.isolation {
            Isolation::ChildrenOf(program) => Some(program.clone()),
            Isolation::Children | Isolation::InProcess => None,
        };
        let started = Arc::new(Starter::start(program, self.config.memory_bytes_max)?);
        *starter = Some(Arc::clone(&started));
        Ok(started)
    }

    fn say_once(&self, protections: Protections) {
        if self.idle.lock().protections.replace(protections).is_some() {
            return;
        }
        if protections.is_confined() {
            tracing::debug!(%protections, "documents are read in confined processes");
        } else {
            tracing::warn!(
                %protections,
                "documents are read in processes of their own that could open files and connections: this kernel or container does \
                 not let a process filter its system calls (seccomp)"
            );
        }
    }

    /// Returns a child that has finished.
    fn return_child(self: &Arc<Self>, child: Child) {
        let mut idle = self.idle.lock();
        idle.children.push(child);
        idle.used = Some(Instant::now());
        if idle.ending.as_ref().is_none_or(JoinHandle::is_finished) {
            // This may be a thread without a runtime.
            let _runtime = self.runtime.get().map(Handle::enter);
            idle.ending = Some(task::spawn("idle parsers", end_idle(Arc::downgrade(self))));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let idle = mem::take(self.idle.get_mut());
        if let Some(ending) = idle.ending {
            ending.abort();
        }
    }
}

/// Ends idle children, once none has worked for [`IDLE`].
async fn end_idle(shared: Weak<Shared>) {
    let mut wait = IDLE;
    loop {
        tokio::time::sleep(wait).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut idle = shared.idle.lock();
        let rested = idle.used.map_or(IDLE, |used| used.elapsed());
        if rested >= IDLE {
            let children = mem::take(&mut idle.children);
            // A later caller notices that this has ended.
            idle.ending = None;
            drop(idle);
            drop(children);
            return;
        }
        wait = IDLE - rested;
    }
}

/// The limits of a document.
#[derive(Debug, Clone, Copy)]
struct Limit {
    memory: u64,
    time: Duration,
}

/// What a document holds while it is read.
#[derive(Debug)]
struct Permits {
    slot: Option<OwnedSemaphorePermit>,
    _child: OwnedSemaphorePermit,
}

impl Permits {
    async fn acquire(shared: &Shared) -> Self {
        const OPEN: &str = "nobody closes it";
        // Always in this order, which prevents deadlocks.
        let child = Arc::clone(&shared.children).acquire_owned().await.expect(OPEN);
        let slot = Arc::clone(&shared.slots).acquire_owned().await.expect(OPEN);
        Self { slot: Some(slot), _child: child }
    }

    /// The same for a short document, without waiting.
    fn try_acquire(shared: &Shared) -> Option<Self> {
        let child = Arc::clone(&shared.children).try_acquire_owned().ok()?;
        let slot = Arc::clone(&shared.short_slots).try_acquire_owned().ok()?;
        Some(Self { slot: Some(slot), _child: child })
    }
}

/// A child at work.
#[derive(Debug)]
struct BusyChild {
    child: Child,
    /// Its socket on the runtime, once it was used there; until then the child has it.
    socket: Option<UnixStream>,
}

impl BusyChild {
    fn new(child: Child) -> Self {
        Self { child, socket: None }
    }

    fn socket(&mut self) -> std::io::Result<&mut UnixStream> {
        if let Some(socket) = self.child.socket.take() {
            self.socket = Some(UnixStream::from_std(socket)?);
        }
        self.socket.as_mut().ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }
}

/// The source of an answer.
#[derive(Debug)]
enum ReadState {
    /// The document, which has not been sent yet.
    NotStarted(Vec<u8>),
    Child(Box<BusyChild>),
    /// The buffer has all of it.
    Buffered,
    Ended,
}

/// The answer for a source that is being read.
#[derive(Debug)]
#[must_use = "dropping it ends the reading"]
pub struct ExtractionStream {
    state: ReadState,
    shared: Arc<Shared>,
    limit: Limit,
    /// How long to wait for the child at most from now on.
    left: Duration,
    /// How long the child has been waited for.
    computed: Duration,
    permits: Option<Permits>,
    /// The part of the order that was not sent yet.
    unsent: Vec<u8>,
    /// Bytes that were received but not returned.
    buffer: Vec<u8>,
    /// Bytes that were returned.
    taken: u64,
    end: Option<End>,
    usage: Option<Usage>,
}

impl ExtractionStream {
    fn new(shared: Arc<Shared>, limit: Limit) -> Self {
        Self {
            state: ReadState::Buffered,
            shared,
            limit,
            left: Duration::ZERO,
            computed: Duration::ZERO,
            permits: None,
            unsent: Vec::new(),
            buffer: Vec::new(),
            taken: 0,
            end: None,
            usage: None,
        }
    }

    /// Reads it in this process.
    fn in_process(shared: Arc<Shared>, limit: Limit, order: &Order, bytes: Vec<u8>) -> Self {
        let mut buffer = Vec::new();
        helper::answer_with(order, bytes, &mut buffer, Usage::default).expect("memory takes all that is written");
        Self { buffer, ..Self::new(shared, limit) }
    }

    /// Whether it should be read by [`Self::start_blocking`].
    #[must_use]
    pub fn is_short(&self) -> bool {
        matches!(&self.state, ReadState::NotStarted(source) if self.unsent.len() + source.len() <= AT_ONCE_BYTES)
    }

    /// Sends a short source to a child, and waits on this thread for the answer, for a moment at most. Does nothing if
    /// that would require waiting for other work. [`Self::ready`] returns what was received.
    ///
    /// # Errors
    /// [`ExtractError::Start`].
    ///
    /// # Panics
    /// On a thread that runs tasks: it blocks.
    pub fn start_blocking(&mut self) -> Result<(), ExtractError> {
        let ReadState::NotStarted(source) = &self.state else { return Ok(()) };
        if !self.is_short() {
            return Ok(());
        }
        let Some(permits) = Permits::try_acquire(&self.shared) else { return Ok(()) };
        let child = self.shared.child_blocking().map_err(ExtractError::Start)?;
        self.permits = Some(permits);
        self.unsent.extend_from_slice(source);
        self.state = ReadState::Child(Box::new(BusyChild::new(child)));
        let since = Instant::now();
        self.wait_blocking(since + AT_ONCE);
        self.computed = since.elapsed();
        self.left = self.left.saturating_sub(self.computed);
        Ok(())
    }

    /// Failures show again when the rest is awaited.
    fn wait_blocking(&mut self, until: Instant) {
        let ReadState::Child(busy) = &self.state else { return };
        let Some(mut socket) = busy.child.socket.as_ref() else { return };
        let Ok(written) = socket.write(&self.unsent) else { return };
        self.unsent.drain(..written);
        self.buffer.reserve(AT_ONCE_BYTES);
        while self.unsent.is_empty() && self.buffer.len() < READ_BYTES && !wire::is_whole(&self.buffer) {
            let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap_or_default();
            match poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => continue,
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
            self.buffer.reserve(AT_ONCE_BYTES);
            match rustix::io::read(socket, spare_capacity(&mut self.buffer)) {
                Ok(1..) | Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Sends the source to a child, once a slot is free.
    async fn start(&mut self) -> Result<(), ExtractError> {
        let source = match mem::replace(&mut self.state, ReadState::Ended) {
            ReadState::NotStarted(source) => {
                self.permits = Some(Permits::acquire(&self.shared).await);
                let child = self.shared.child().await.map_err(ExtractError::Start)?;
                self.state = ReadState::Child(Box::new(BusyChild::new(child)));
                source
            }
            begun => {
                self.state = begun;
                Vec::new()
            }
        };
        let mut head = mem::take(&mut self.unsent);
        // Small sources go in one call.
        let (first, rest) = source.split_at(source.len().min(READ_BYTES));
        head.extend_from_slice(first);
        let ReadState::Child(busy) = &mut self.state else { return Ok(()) };
        let socket = busy.socket().map_err(ExtractError::Start)?;
        let written = async {
            socket.write_all(&head).await?;
            socket.write_all(rest).await
        };
        match timeout(self.left, written).await {
            Ok(Ok(())) => Ok(()),
            // It stops receiving only by ending.
            Ok(Err(_)) => Err(self.ended().await),
            Err(_) => Err(self.stuck()),
        }
    }

    /// The next part of the answer; `None` at its end. Cancel-safe: only the reading is lost.
    ///
    /// # Errors
    /// [`ExtractError`]; no more parts follow then.
    pub async fn next(&mut self) -> Result<Option<Batch>, ExtractError> {
        loop {
            if let Some(batch) = self.ready()? {
                return Ok(Some(batch));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            if matches!(self.state, ReadState::NotStarted(_)) || !self.unsent.is_empty() {
                self.start().await?;
            }
            self.receive().await?;
        }
    }

    /// The received part of the answer; `None` when there is none yet.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub fn ready(&mut self) -> Result<Option<Batch>, ExtractError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let Some(batch) = self.take_batch()? else { return Ok(None) };
        self.taken += batch.0.len() as u64;
        wire::check_length(self.taken, self.limit.memory)?;
        Ok(Some(batch))
    }

    /// The items of all complete frames received. Also checks the frame after them.
    fn take_batch(&mut self) -> Result<Option<Batch>, ExtractError> {
        let (mut items, mut at) = (Vec::new(), 0);
        while let Some((kind, length)) = wire::head(&self.buffer[at..]) {
            let longest =
                if kind == ITEMS { usize::try_from(self.limit.memory).unwrap_or(usize::MAX) } else { PLAIN_BYTES_MAX };
            if length > longest {
                return Err(ExtractError::nonsense("it is too long"));
            }
            let Some(frame) = self.buffer.get(at + HEAD..at + HEAD + length) else { break };
            match kind {
                ITEMS => items.extend_from_slice(frame),
                // Items that were read before are returned first.
                END | REFUSED if !items.is_empty() => break,
                END => {
                    let end: End = wire::value(frame)?;
                    self.usage = Some(end.usage);
                    self.end = Some(end);
                }
                REFUSED => {
                    let Refused { reason, usage } = wire::value(frame)?;
                    self.usage = Some(usage);
                    self.give_back(usage);
                    return Err(ExtractError::Unreadable { reason });
                }
                _ => return Err(ExtractError::nonsense("it has a part of an unknown kind")),
            }
            at += HEAD + length;
            if self.end.is_some() {
                break;
            }
        }
        self.buffer.drain(..at);
        if self.end.is_some() && !self.buffer.is_empty() {
            return Err(ExtractError::nonsense("it continues after its end"));
        }
        Ok((!items.is_empty()).then_some(Batch(items)))
    }

    /// Waits for more bytes.
    async fn receive(&mut self) -> Result<(), ExtractError> {
        let ReadState::Child(busy) = &mut self.state else {
            return Err(ExtractError::nonsense("it has no end"));
        };
        self.buffer.reserve(READ_BYTES);
        let holds_slot = self.permits.as_ref().is_some_and(|permits| permits.slot.is_some());
        let patience = if holds_slot { LONG.saturating_sub(self.computed).min(self.left) } else { self.left };
        let Ok(socket) = busy.socket() else { return Err(self.ended().await) };
        let since = Instant::now();
        let read = timeout(patience, socket.read_buf(&mut self.buffer)).await;
        let waited = since.elapsed();
        self.computed += waited;
        self.left = self.left.saturating_sub(waited);
        match read {
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0) | Err(_)) => Err(self.ended().await),
            Err(_) if holds_slot && !self.left.is_zero() => {
                self.permits.as_mut().and_then(|permits| permits.slot.take());
                Ok(())
            }
            Err(_) => Err(self.stuck()),
        }
    }

    /// The child ended; returns why.
    async fn ended(&mut self) -> ExtractError {
        let ReadState::Child(busy) = mem::replace(&mut self.state, ReadState::Ended) else {
            return ExtractError::nonsense("it has no end");
        };
        let BusyChild { child, socket } = *busy;
        drop(socket);
        let (reason, error) = match ExitCause::of(child.end().await) {
            ExitCause::Memory => ("memory", ExtractError::Memory { limit: ByteSize(self.limit.memory) }),
            ExitCause::Time => ("time", ExtractError::Time { limit: self.limit.time }),
            ExitCause::Crash(how) => ("crash", ExtractError::Crash { how }),
        };
        self.shared.metrics.refused.get_or_create(&RefusedLabels { reason }).inc();
        error
    }

    /// The child has not answered within any plausible time. It is ended.
    fn stuck(&mut self) -> ExtractError {
        self.state = ReadState::Ended;
        self.shared.metrics.refused.get_or_create(&RefusedLabels { reason: "time" }).inc();
        ExtractError::Time { limit: self.limit.time }
    }

    /// The resources used, once the child has reported them: at the end of an answer, or when the source cannot be
    /// read.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Completes an answer that was read to its end: returns notes for the person who added the source. The child
    /// becomes idle.
    ///
    /// # Panics
    /// When [`Self::next`] has not returned `None`.
    pub fn finish(mut self) -> Vec<String> {
        let End { warnings, usage } = self.end.take().expect("read to its end");
        self.give_back(usage);
        warnings
    }

    /// Makes the child idle, or ends it.
    fn give_back(&mut self, usage: Usage) {
        let ReadState::Child(busy) = mem::replace(&mut self.state, ReadState::Ended) else { return };
        let BusyChild { mut child, socket } = *busy;
        // Without its socket it is ended.
        if let Some(socket) = socket {
            child.socket = socket.into_std().ok();
        }
        if child.socket.is_some() && usage.memory_bytes <= KEPT_MEMORY_MAX.min(self.shared.config.memory_bytes_max / 4)
        {
            self.shared.return_child(child);
        }
    }
}
