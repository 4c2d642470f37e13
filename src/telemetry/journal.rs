//! Events for journald, with their fields as journal fields.
//!
//! Invariants: an event is one journal entry. Its fields are named `CAIRN_<FIELD>`, so that none can be mistaken for
//! one of journald's own; the message repeats them as text, because plain `journalctl` shows only the message. An entry
//! that journald rejects goes to standard error instead.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use log::{Level, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The identifier for `journalctl -t`.
const IDENTIFIER: &str = "cairn";

/// Whether the service manager connected standard error to the journal.
pub(super) fn is_connected() -> bool {
    connected_to_journal()
}

/// Sends events to journald.
pub(super) struct Journal {
    log: JournalLog,
}

impl Journal {
    /// Connects to journald.
    ///
    /// # Errors
    /// When nothing listens on its socket.
    pub(super) fn connect() -> io::Result<Self> {
        let log = JournalLog::empty()?
            .with_syslog_identifier(IDENTIFIER.to_owned())
            .add_extra_field("CAIRN_VERSION", env!("CARGO_PKG_VERSION"));
        Ok(Self { log })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = EventFields::default();
        event.record(&mut entry);
        let meta = event.metadata();
        let text = entry.text();
        let result = self.log.journal_send(
            &Record::builder()
                .level(level(*meta.level()))
                .target(meta.target())
                .module_path(meta.module_path())
                .file(meta.file())
                .line(meta.line())
                .key_values(&entry.fields)
                .args(format_args!("{text}"))
                .build(),
        );
        if let Err(error) = result {
            // The last resort; if that fails too, there is nowhere left to report it.
            let _ = writeln!(io::stderr(), "{} {}: {text} (not in the journal: {error})", meta.level(), meta.target());
        }
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// The content of an event: its message and its fields, by their names in the journal.
#[derive(Debug, Default, PartialEq, Eq)]
struct EventFields {
    message: String,
    /// The fields as text, after the message.
    tail: String,
    fields: Vec<(String, String)>,
}

impl EventFields {
    fn text(&self) -> String {
        format!("{}{}", self.message, self.tail)
    }

    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
            return;
        }
        // Raw identifiers: a field called `type` is written `r#type`.
        let name = field.name().trim_start_matches("r#");
        // Writing into a string does not fail.
        let _ = write!(self.tail, " {name}={value}");
        self.fields.push((format!("CAIRN_{name}"), value));
    }
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    struct Collect(Arc<Mutex<Vec<EventFields>>>);

    impl<S: Subscriber> Layer<S> for Collect {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut entry = EventFields::default();
            event.record(&mut entry);
            self.0.lock().push(entry);
        }
    }

    #[test]
    fn fields_keep_their_values_and_get_a_name_of_their_own() {
        let entries = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Collect(Arc::clone(&entries)));
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no space");
            tracing::warn!(lsn = 7_u64, path = "/a b", %error, PRIORITY = "0", "the log\nis open");
        });
        let entries = entries.lock();
        let [entry] = entries.as_slice() else { panic!("one event is one entry: {entries:?}") };
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            entry.fields,
            [
                field("CAIRN_lsn", "7"),
                field("CAIRN_path", "/a b"),
                field("CAIRN_error", "no space"),
                field("CAIRN_PRIORITY", "0"),
            ],
            "the logger makes them upper case"
        );
        assert_eq!(entry.text(), "the log\nis open lsn=7 path=/a b error=no space PRIORITY=0");
    }
}
