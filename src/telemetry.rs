//! Logs and metrics: the tracing subscriber, the registry of metrics and their kinds.
//!
//! Invariants: the subscriber, with the handle of its filter, is the only process-wide state, set once by `main`; logs go to standard error or to journald, so
//! that standard output carries answers alone (over stdio it carries the protocol). Metrics are plain counters that
//! cost nanoseconds; rendering happens on the admin thread.

mod journal;
mod metrics;

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer};
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry as Subscriber, reload};

use self::journal::Journal;
pub use self::metrics::{
    CollectionLabels, Counter, EncodeLabelSet, Family, FloatGauge, Gauge, Histogram, Histograms, Registry, doubling,
    seconds,
};
use crate::base::setting;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Journal entries under systemd, text on a terminal, JSON otherwise.
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
    /// Journal entries with the event's fields; JSON if journald cannot be reached.
    Journal,
}

/// A valid filter: levels, or parts of the program with levels, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

/// A text that is not a valid filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found '{found}', expected error, warn, info, debug, trace or off, or a part with its level such as cairn::store=debug"
)]
pub struct FilterError {
    /// The part of the text that is invalid.
    pub found: String,
}

impl FromStr for Filter {
    type Err = FilterError;

    /// tracing's syntax, without single words that are not levels: tracing would take one for the name of a part, and
    /// log nothing.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut directives = Vec::new();
        for found in text.split(',').map(str::trim) {
            let refused = || FilterError { found: found.to_owned() };
            let (part, level) = found.rsplit_once('=').map_or(("", found), |(part, level)| (part.trim(), level.trim()));
            let level = match level.to_ascii_lowercase().as_str() {
                // The name in syslog and Python.
                "warning" => "warn".to_owned(),
                level @ ("error" | "warn" | "info" | "debug" | "trace" | "off") => level.to_owned(),
                _ => return Err(refused()),
            };
            let directive = match (part, found.contains('=')) {
                (_, false) => level,
                ("", true) => return Err(refused()),
                (part, true) => format!("{part}={level}"),
            };
            directive.parse::<Directive>().map_err(|_| refused())?;
            directives.push(directive);
        }
        Ok(Self(directives.join(",")))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is logged and how, section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// See [`LogFormat`].
    pub format: LogFormat,
    /// Levels in tracing's syntax: `info`, or `warn,cairn::store=debug`.
    #[serde(rename = "level", deserialize_with = "level")]
    pub filter: String,
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let filter = setting::text(deserializer)?.parse::<Filter>().map_err(serde::de::Error::custom)?;
    Ok(filter.to_string())
}

/// Handle to change the filter of the process's subscriber.
static FILTER: OnceLock<reload::Handle<EnvFilter, Subscriber>> = OnceLock::new();

/// The protocol library logs every request at `info`, and each rejected one, which its caller is informed of, at `warn`
/// as its own types: only a filter that names the library shows that.
fn quiet(filter: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // When a listening client leaves, it logs that the answer did not arrive.
    let quiet = if filter.contains("rmcp") { "" } else { concat!(",rmcp=error,rmcp", "::service=off") };
    format!("{filter}{quiet}").parse()
}

/// Changes what is logged from now on. Does nothing without a subscriber, or with a text that is not a [`Filter`].
pub fn set_filter(filter: &str) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), quiet(filter)) {
        // The subscriber always exists.
        let _ = handle.reload(filter);
    }
}

/// Sets the process's subscriber. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(config: &Config) -> Result<(), tracing_subscriber::filter::ParseError> {
    let (filter, handle) = reload::Layer::new(quiet(&config.filter)?);
    let format = match config.format {
        LogFormat::Auto if journal::is_connected() => LogFormat::Journal,
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        named => named,
    };
    let (journal, unreachable) = match format {
        LogFormat::Journal => {
            Journal::connect().map_or_else(|error| (None, Some(error)), |journal| (Some(journal), None))
        }
        _ => (None, None),
    };
    // If nothing reads standard error, the library would panic while reporting that.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let layer: Box<dyn Layer<Subscriber> + Send + Sync> = match (journal, format) {
        (Some(journal), _) => journal.boxed(),
        (None, LogFormat::Text) => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        (None, _) => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    // The error means that there is one already: the first stays.
    let is_first = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_ok();
    if is_first {
        // Set once, like the subscriber.
        let _ = FILTER.set(handle);
    }
    if let Some(error) = unreachable.filter(|_| is_first) {
        tracing::warn!(%error, "journald cannot be reached; logs go to standard error");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_words_and_parts_have_one() {
        for (text, expected) in [
            ("info", "info"),
            ("WARNING", "warn"),
            ("warn, cairn::store=debug", "warn,cairn::store=debug"),
            ("off", "off"),
            ("info,cairn::api=warning", "info,cairn::api=warn"),
            ("warn,[request{tool=search}]=trace", "warn,[request{tool=search}]=trace"),
        ] {
            assert_eq!(text.parse::<Filter>().map(|filter| filter.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "loud", "verbose,info", "info,", "info,cairn::store", "cairn::store=loud", "=debug", "1"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }

    /// A field of these names would be in the object of a JSON line twice.
    #[test]
    fn no_field_has_the_name_of_one_that_every_line_has() {
        fn check(folder: &std::path::Path) {
            for entry in std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path()) {
                if entry.is_dir() {
                    check(&entry);
                    continue;
                }
                if entry.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                let code = std::fs::read_to_string(&entry).expect("readable");
                for call in code.split("tracing::").skip(1).filter_map(|call| call.split_once("!(")) {
                    let fields = call.1.split('"').next().unwrap_or_default();
                    for name in ["timestamp", "level", "target", "message"] {
                        let is_field = |field: &str| field.split('=').next().unwrap_or_default().trim() == name;
                        assert!(!fields.split(',').any(is_field), "{}: {name} in {fields}", entry.display());
                    }
                }
            }
        }
        check(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    }
}
