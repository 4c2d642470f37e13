//! Reloading settings while the node runs: at SIGHUP and when the file changes.
//!
//! Invariants: invalid settings change nothing, and are reported until the file is valid again. Settings that need a
//! restart are reported, and the running value stays: a snapshot always stores the settings in effect.

mod watch;

use std::io::IsTerminal as _;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::watch::FileWatch;
use super::listener_auth::ListenerAuth;
use super::{Live, Node, snapshots};
use crate::config::{Config, ConfigError, Source};
use crate::task::SettingsState;
use crate::telemetry;

/// The settings of a running node, and the source of newer ones.
pub(super) struct Settings {
    /// The settings in effect.
    pub(super) config: Config,
    source: Arc<Source>,
    hangups: Signal,
    file: Option<FileWatch>,
    /// Whether the process was started at a terminal, whose closing sends SIGHUP too.
    has_terminal: bool,
}

/// The parts that apply changed settings.
pub(super) struct Parts<'a> {
    pub(super) node: &'a Node,
    pub(super) listener_auth: &'a ListenerAuth,
    pub(super) live: &'a Live,
}

/// Why settings are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Hangup,
    FileChanged,
    /// The terminal was closed: nobody sees the node's output, and no key can stop it.
    TerminalGone,
}

impl Settings {
    /// Starts listening; must be called within a runtime.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub(super) fn new(config: &Config, source: Source) -> std::io::Result<Self> {
        Ok(Self {
            config: config.clone(),
            hangups: signal(SignalKind::hangup())?,
            file: source.path().map(FileWatch::new),
            source: Arc::new(source),
            has_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// Takes what the file has become since the settings were read. Without a file nothing can have changed, so nothing is read.
    pub(super) async fn catch_up(&mut self, parts: &Parts<'_>) {
        if self.file.is_some() {
            self.reload(Cause::FileChanged, parts).await;
        }
    }

    /// Waits until there is a reason to read them again. Cancel-safe.
    pub(super) async fn cause(&mut self) -> Cause {
        let changed = async {
            match &mut self.file {
                Some(file) => file.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.hangups.recv() => {
                let is_gone = self.has_terminal && !std::io::stderr().is_terminal();
                if is_gone { Cause::TerminalGone } else { Cause::Hangup }
            }
            () = changed => Cause::FileChanged,
        }
    }

    /// Reads them again, and applies what can be changed while running.
    pub(super) async fn reload(&mut self, cause: Cause, parts: &Parts<'_>) {
        let source = Arc::clone(&self.source);
        let loaded = tokio::task::spawn_blocking(move || source.load()).await;
        let Ok(loaded) = loaded else {
            tracing::error!("reading the settings panicked; the old ones stay");
            return;
        };
        let state = match loaded {
            Ok(newer) => self.accept(&newer, cause, parts),
            Err(error) => {
                let restart = parts.node.readiness().settings().restart;
                SettingsState { restart, problems: refused(&error) }
            }
        };
        parts.node.readiness().set_settings(state);
    }

    fn accept(&mut self, newer: &Config, cause: Cause, parts: &Parts<'_>) -> SettingsState {
        let changes = self.config.take_live(newer);
        if !changes.taken.is_empty() {
            self.apply(parts);
        }
        let before = parts.node.readiness().settings();
        let taken = changes.taken.join(", ");
        match (changes.taken.is_empty(), cause) {
            (false, _) => tracing::info!("settings reloaded: {taken}"),
            (true, _) if !before.problems.is_empty() => tracing::info!("the settings are valid again; nothing changed"),
            (true, Cause::Hangup) if changes.restart.is_empty() => tracing::info!("settings reloaded: nothing changed"),
            (true, _) => {}
        }
        if !changes.restart.is_empty() && (changes.restart != before.restart || cause == Cause::Hangup) {
            tracing::warn!("settings changed that need a restart: {}", changes.restart.join(", "));
        }
        SettingsState { restart: changes.restart, problems: Vec::new() }
    }

    fn apply(&self, parts: &Parts<'_>) {
        let (config, node) = (&self.config, parts.node);
        telemetry::set_filter(&config.log.filter);
        parts.live.hosts.set(parts.listener_auth.allowed_hosts(config));
        parts.live.in_flight_max.set(config.server.in_flight_max);
        node.compute.set_capacity(config.server.in_flight_max);
        node.tools.retrieval().set_defaults(config.search);
        node.snapshots.set_live(snapshots::live(config));
    }
}

/// Logs the problems, and returns them in words.
fn refused(error: &ConfigError) -> Vec<String> {
    for problem in &error.problems {
        tracing::error!(key = problem.key, origin = problem.origin, "settings: {problem}");
    }
    tracing::error!(
        problems = error.problems.len(),
        "the changed settings are not used; those that the node runs with stay"
    );
    error.problems.iter().map(ToString::to_string).collect()
}
