//! Progress of long work on a terminal, done here or by a running node.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::Value;

use crate::cli::backend::Backend;
use crate::cli::{Common, Failure, output};
use crate::mcp::Tool;
use crate::snapshot::{Progress, REBUILDING};

/// How often a node that works is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Calls a tool that takes long, and shows the progress that the node reports.
///
/// * `work`: its name in the node's status.
pub(super) fn call_with_progress(
    common: &Common,
    node: &Backend,
    tool: Tool,
    arguments: Value,
    work: &str,
) -> Result<Value, Failure> {
    with_progress(common, node, work, || node.call(tool, arguments))
}

/// The same for any question.
pub(super) fn with_progress<T>(
    common: &Common,
    node: &Backend,
    work: &str,
    ask: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let bar = Bar::new(common);
    if bar.bar.is_hidden() {
        return ask();
    }
    let answer = std::thread::scope(|scope| {
        let (over, waiting) = std::sync::mpsc::channel::<()>();
        let bar = &bar;
        scope.spawn(move || {
            while waiting.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // Without an answer the bar stops; the call itself reports the error.
                let Some(status) = node.peek() else { continue };
                let under_way = status["snapshots"]["under_way"].as_array();
                if let Some(now) = under_way.into_iter().flatten().find(|now| now["work"] == work) {
                    let number = |name: &str| now[name].as_u64().unwrap_or_default();
                    bar.show(output::text(now, "step"), number("done"), number("total"));
                }
            }
        });
        let answer = ask();
        drop(over);
        answer
    });
    bar.finish();
    answer
}

/// A bar with the time that is left, on a terminal.
pub(super) struct Bar {
    bar: ProgressBar,
    /// The step that is shown.
    step: Mutex<String>,
}

impl Bar {
    pub(super) fn new(common: &Common) -> Self {
        let bar = if output::is_watched(common) { ProgressBar::no_length() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{elapsed}").expect("the template is valid"));
        // So that the time moves where nothing else does.
        bar.enable_steady_tick(ASK_EVERY);
        Self { bar, step: Mutex::default() }
    }

    fn show(&self, step: &str, done: u64, total: u64) {
        let mut shown = self.step.lock();
        if *shown != step {
            step.clone_into(&mut shown);
            let template = match (step, total) {
                (_, 0) => "{msg:12} {elapsed}",
                (REBUILDING, _) => "{msg:12} {wide_bar} {human_pos:>10} / {human_len:10} records {eta:>6} left",
                _ => "{msg:12} {wide_bar} {bytes:>10} / {total_bytes:10} {eta:>6} left",
            };
            self.bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
            self.bar.reset();
            self.bar.set_message(shown.clone());
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn report(&self, step: &'static str, done: u64, total: u64) {
        self.show(step, done, total);
    }
}
