//! Reports the node's state to systemd: that it serves, what it is doing, that it is alive, that it stops.
//!
//! Invariants: nothing happens unless `NOTIFY_SOCKET` is set. A separate thread sends everything, in order, and sleeps
//! in between. A heartbeat (`WATCHDOG=1`, `EXTEND_TIMEOUT_USEC`) is sent only when the runtime that answers requests
//! has just run a task and every vital thread is alive. So a node that hangs or has lost a thread goes silent and is
//! restarted, while this thread and the admin listener keep running. `/health` checks the same (`api/admin.rs`).

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::runtime::Handle;

use crate::collection::Library;
use crate::task::{self, Readiness};

/// How far each heartbeat extends the timeout of a start. Longer than any pause of the runtime that is not a hang.
const START_EXTENSION: Duration = Duration::from_secs(60);
/// How often a start in progress reports what it is doing.
const START_TICK: Duration = Duration::from_secs(1);
/// How often the status is checked when there is no watchdog.
const IDLE_TICK: Duration = Duration::from_secs(30);

/// What happens to the node.
enum Event {
    /// It starts, and is not ready for these reasons.
    Starting(Readiness),
    /// Requests are answered at this address.
    Serving {
        mcp: String,
        library: Weak<Library>,
    },
    /// It reloads its settings, and has finished that.
    Reloading,
    Reloaded,
    /// It closes the log, to open a restored one.
    Restarting,
    /// It drains and ends.
    Stopping,
    /// The runtime ran a task.
    Answered,
    /// Time has passed.
    Tick,
    /// The process ends.
    Ended,
}

/// Notifies systemd; silent without one. The last message is sent before the value is dropped.
pub(super) struct Supervisor(Option<Running>);

struct Running {
    events: mpsc::Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts, when a service manager listens.
    ///
    /// * `runtime`: the one that answers requests.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(super) fn start(runtime: &Handle) -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let (events, incoming) = mpsc::channel();
        let (answers, runtime) = (events.clone(), runtime.clone());
        let thread = task::spawn_thread("supervisor", move || run(&incoming, &answers, &runtime))?;
        Ok(Self(Some(Running { events, thread: Some(thread) })))
    }

    fn send(&self, event: Event) {
        if let Some(running) = &self.0 {
            // The thread ends with this value; a panic in it only ends the messages.
            let _ = running.events.send(event);
        }
    }

    /// The node starts to open its data.
    pub(super) fn starting(&self, readiness: &Readiness) {
        self.send(Event::Starting(readiness.clone()));
    }

    /// The log is open and requests are answered.
    pub(super) fn serving(&self, mcp: &str, library: &Arc<Library>) {
        self.send(Event::Serving { mcp: mcp.to_owned(), library: Arc::downgrade(library) });
    }

    /// The node reloads its settings.
    pub(super) fn reloading(&self) {
        self.send(Event::Reloading);
    }

    /// It runs with them, or with the previous ones.
    pub(super) fn reloaded(&self) {
        self.send(Event::Reloaded);
    }

    /// The node starts again in the same process.
    pub(super) fn restarting(&self) {
        self.send(Event::Restarting);
    }

    /// The final shutdown starts.
    pub(super) fn stopping(&self) {
        self.send(Event::Stopping);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.send(Event::Ended);
        if let Some(thread) = self.0.as_mut().and_then(|running| running.thread.take()) {
            // A panic there was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// The thread: waits, lets the machine decide, sends.
fn run(events: &mpsc::Receiver<Event>, answers: &mpsc::Sender<Event>, runtime: &Handle) {
    let watchdog = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero());
    let mut machine = Machine { watchdog, ..Machine::default() };
    let mut node = NodeState::default();
    let (mut last, mut tick) = (Instant::now(), Instant::now());
    let mut was_sent = true;
    loop {
        let event = match events.recv_timeout(tick.saturating_duration_since(Instant::now())) {
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Tick,
        };
        node.learn(&event);
        machine.is_failed = !node.readiness.failures().is_empty();
        machine.has_wrong_settings = node.has_wrong_settings();
        let is_tick = matches!(event, Event::Tick);
        for effect in machine.apply(event, &node.reasons()) {
            if let Effect::Ask = effect {
                let (answers, _entered) = (answers.clone(), runtime.enter());
                // The event is the result; the task's handle is not needed.
                drop(task::spawn("heartbeat", async move {
                    let _ = answers.send(Event::Answered);
                }));
                continue;
            }
            let sent = notify(&effect);
            if let Err(error) = &sent
                && was_sent
            {
                tracing::warn!(%error, "cannot report the node's status to the service manager");
            }
            was_sent = sent.is_ok();
        }
        // Counted from the last tick, so that other events do not delay the next one.
        if is_tick {
            last = Instant::now();
        }
        tick = last + machine.pause();
    }
}

fn notify(effect: &Effect) -> io::Result<()> {
    match effect {
        Effect::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Effect::Reloading => sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
        Effect::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Effect::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
        Effect::Extend => {
            let micros = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
            sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(micros)])
        }
        Effect::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
        Effect::Ask => Ok(()),
    }
}

/// The sources of the reasons for not being ready.
#[derive(Default)]
struct NodeState {
    readiness: Readiness,
    /// Weak: a restart waits until the closed log is released.
    library: Weak<Library>,
}

impl NodeState {
    fn learn(&mut self, event: &Event) {
        match event {
            Event::Starting(readiness) => self.readiness = readiness.clone(),
            Event::Serving { library, .. } => self.library = library.clone(),
            Event::Restarting | Event::Stopping => *self = Self::default(),
            Event::Reloading | Event::Reloaded | Event::Answered | Event::Tick | Event::Ended => {}
        }
    }

    /// Whether newer settings are not used.
    fn has_wrong_settings(&self) -> bool {
        !self.readiness.settings().problems.is_empty()
    }

    fn reasons(&self) -> Vec<String> {
        // The status must be a single line.
        crate::mcp::problems(self.library.upgrade().as_deref(), &self.readiness)
            .into_values()
            .map(|reason| reason.replace('\n', " "))
            .collect()
    }
}

/// An action to take.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
    Extend,
    Status(String),
    /// Spawn a task on the runtime.
    Ask,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Serving {
        mcp: String,
    },
    Restarting,
    Stopping,
}

/// Decides what is sent when. Uses no clock and no socket.
#[derive(Debug, Default)]
struct Machine {
    phase: Phase,
    watchdog: Option<Duration>,
    status: String,
    /// A task was spawned on the runtime and has not run yet.
    is_asked: bool,
    /// The node has lost something that only a restart restores.
    is_failed: bool,
    /// Changed settings are invalid.
    has_wrong_settings: bool,
}

impl Machine {
    /// * `reasons`: why the node is not ready.
    fn apply(&mut self, event: Event, reasons: &[String]) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Starting(_) => self.phase = Phase::Starting,
            Event::Serving { mcp, .. } => {
                self.phase = Phase::Serving { mcp };
                effects.push(Effect::Ready);
            }
            Event::Reloading => effects.push(Effect::Reloading),
            Event::Reloaded => effects.push(Effect::Ready),
            Event::Restarting => {
                self.phase = Phase::Restarting;
                effects.push(Effect::Reloading);
            }
            Event::Stopping => {
                self.phase = Phase::Stopping;
                effects.push(Effect::Stopping);
            }
            Event::Answered => {
                self.is_asked = false;
                if self.is_failed {
                    return effects;
                }
                if matches!(self.phase, Phase::Starting | Phase::Restarting) {
                    effects.push(Effect::Extend);
                }
                if self.watchdog.is_some() {
                    effects.push(Effect::Watchdog);
                }
            }
            Event::Tick if !self.is_asked && self.wants_life() => {
                self.is_asked = true;
                effects.push(Effect::Ask);
            }
            Event::Tick | Event::Ended => {}
        }
        let status = self.status(reasons);
        if status != self.status {
            self.status.clone_from(&status);
            effects.push(Effect::Status(status));
        }
        effects
    }

    /// Whether a heartbeat is expected.
    fn wants_life(&self) -> bool {
        self.watchdog.is_some() || matches!(self.phase, Phase::Starting | Phase::Restarting)
    }

    fn status(&self, reasons: &[String]) -> String {
        let reasons = reasons.join("; ");
        match &self.phase {
            Phase::Starting if reasons.is_empty() => "Starting".to_owned(),
            Phase::Starting => format!("Starting: {reasons}"),
            Phase::Serving { mcp } => {
                let not_ready = if reasons.is_empty() { String::new() } else { format!("; not ready: {reasons}") };
                let settings =
                    if self.has_wrong_settings { "; the changed settings are not used, see the log" } else { "" };
                format!("Answers MCP at {mcp}{not_ready}{settings}")
            }
            Phase::Restarting => "Restarting on restored data".to_owned(),
            Phase::Stopping => "Stopping: finishing requests, writing the indexes".to_owned(),
        }
    }

    /// Time until the next tick: a third of the watchdog's timeout, so that one late answer does no harm.
    fn pause(&self) -> Duration {
        let usual = if matches!(self.phase, Phase::Serving { .. }) { IDLE_TICK } else { START_TICK };
        self.watchdog.map_or(usual, |interval| usual.min(interval / 3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving() -> Event {
        Event::Serving { mcp: "http://127.0.0.1:7171/mcp".to_owned(), library: Weak::new() }
    }

    #[test]
    fn a_sign_of_life_needs_an_answer_of_the_runtime() {
        let mut machine = Machine { watchdog: Some(Duration::from_secs(30)), ..Machine::default() };
        machine.apply(Event::Starting(Readiness::default()), &[]);
        machine.apply(serving(), &[]);
        assert_eq!(machine.apply(Event::Tick, &[]), [Effect::Ask]);
        for _ in 0..10 {
            assert_eq!(machine.apply(Event::Tick, &[]), [], "asked once, and nothing is said before the answer");
        }
        assert_eq!(machine.apply(Event::Answered, &[]), [Effect::Watchdog]);
        assert_eq!(machine.apply(Event::Tick, &[]), [Effect::Ask]);
    }

    #[test]
    fn a_node_that_lost_a_thread_gives_no_sign_of_life() {
        let mut machine = Machine { watchdog: Some(Duration::from_secs(30)), ..Machine::default() };
        machine.apply(serving(), &[]);
        machine.is_failed = true;
        let lost = ["the thread log-writer panicked".to_owned()];
        let said = machine.apply(Event::Tick, &lost);
        assert!(matches!(&said[..], [Effect::Ask, Effect::Status(status)] if status.ends_with(&lost[0])), "{said:?}");
        assert_eq!(machine.apply(Event::Answered, &lost), []);
        // A restart in the same process starts with new threads.
        machine.is_failed = false;
        machine.apply(Event::Tick, &lost);
        assert_eq!(machine.apply(Event::Answered, &lost), [Effect::Watchdog]);
    }

    #[test]
    fn ready_is_said_when_requests_are_answered_and_again_after_a_restart() {
        let mut machine = Machine::default();
        let reading = ["the log is being read".to_owned()];
        let status = |text: &str| Effect::Status(text.to_owned());
        assert_eq!(
            machine.apply(Event::Starting(Readiness::default()), &reading),
            [status("Starting: the log is being read")]
        );
        assert_eq!(machine.apply(Event::Tick, &reading), [Effect::Ask]);
        assert_eq!(machine.apply(Event::Answered, &reading), [Effect::Extend]);
        let at = "Answers MCP at http://127.0.0.1:7171/mcp";
        assert_eq!(
            machine.apply(serving(), &["catching up".to_owned()]),
            [Effect::Ready, status(&format!("{at}; not ready: catching up"))]
        );
        assert_eq!(machine.apply(Event::Tick, &[]), [status(at)], "without a watchdog nobody asks for life");
        let restarting = machine.apply(Event::Restarting, &[]);
        assert_eq!(restarting, [Effect::Reloading, status("Restarting on restored data")]);
        assert_eq!(machine.apply(Event::Starting(Readiness::default()), &[]), [status("Starting")]);
        assert_eq!(machine.apply(serving(), &[]), [Effect::Ready, status(at)]);
        assert_eq!(machine.apply(Event::Stopping, &[])[0], Effect::Stopping);
    }

    #[test]
    fn the_watchdog_is_fed_thrice_in_its_interval() {
        let mut machine = Machine { watchdog: Some(Duration::from_secs(30)), ..Machine::default() };
        machine.apply(serving(), &[]);
        assert_eq!(machine.pause(), Duration::from_secs(10));
        machine.watchdog = None;
        assert_eq!(machine.pause(), IDLE_TICK);
    }
}
