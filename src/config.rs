//! Settings: layers (the built-in defaults, a file, the environment, options), read into the settings of the parts.
//!
//! Each part has a struct for its settings, with ranges at the fields; they are composed here (`Config::compose`) and
//! checked as a whole. Invariants: [`Config`] contains only valid values. All problems are reported at once, each with
//! its key and origin. `config/default.toml` is both the defaults and their documentation; a key that it lacks does not
//! exist, except for lists of tables, which are empty without it.

mod check;
mod layers;
mod live;
mod problem;
mod reader;
#[cfg(test)]
mod tests;

use std::cell::LazyCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::base::tree::{Node, Value};
use crate::base::{ByteSize, setting, small_file};
use crate::index::gpu::service as gpu;
use crate::index::vector;
use crate::snapshot::{Destination, Retention, Schedule, Target};
use crate::{api, extraction, fetch, ingest, retrieval, store, telemetry};

use self::check::Checker;
use self::layers::{Layers, SHOWN};
use self::reader::{Keys, LazyKeys, Reader, unknown};

pub use self::layers::Overrides;
pub use self::live::{Changes, LIVE};
pub use self::problem::{ConfigError, Problem};

/// The defaults, as shipped.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// The node's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The MCP and REST listener.
    pub server: api::Settings,
    /// Address of `/health`, `/ready` and `/metrics`.
    pub admin_listen: SocketAddr,
    /// The node's memory limit; 0: that of the machine or its container.
    pub memory_max_bytes: ByteSize,
    /// The log's sizes.
    pub store: store::Settings,
    /// Limits of documents and passages.
    pub ingest: ingest::Settings,
    /// How documents are read.
    pub extraction: extraction::Settings,
    /// The vector index.
    pub vectors: vector::Config,
    /// Whether the GPU is used, and how.
    pub gpu: gpu::Options,
    /// Defaults of searches.
    pub search: retrieval::Config,
    /// Backups.
    pub snapshot: Snapshot,
    /// How other machines are asked.
    pub fetch: fetch::Config,
    /// The format and the level of log lines.
    pub log: telemetry::Config,
    /// All settings as TOML, after merging the layers.
    pub effective: String,
}

/// Backups.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Where the log is shipped; `None`: nowhere automatically.
    pub target: Option<Target>,
    /// Key of an encrypted repository.
    pub key_file: Option<PathBuf>,
    /// When the log is shipped and proved.
    pub schedule: Schedule,
    /// How long snapshots are retained.
    pub retention: Retention,
}

/// Section `[node]`.
#[derive(Deserialize)]
struct NodeSettings {
    #[serde(deserialize_with = "setting::path")]
    data_dir: Option<PathBuf>,
}

/// Section `[admin]`.
#[derive(Deserialize)]
struct Admin {
    #[serde(deserialize_with = "setting::address")]
    listen: SocketAddr,
}

/// Section `[memory]`.
#[derive(Deserialize)]
struct Memory {
    #[serde(deserialize_with = "setting::size::<_, 0>")]
    max_bytes: ByteSize,
}

/// The sources of settings, for a node that reloads them while it runs.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// See [`Config::load`].
    pub file: Option<PathBuf>,
    /// Variables.
    pub environment: Vec<(String, String)>,
    /// Options.
    pub overrides: Overrides,
}

impl Source {
    /// Reads the layers and checks the result.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.file.as_deref(), self.environment.iter().cloned(), &self.overrides)
    }

    /// The path of the file, even if it does not have to exist.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref().map(|path| optional(path).unwrap_or(path))
    }
}

impl Config {
    /// Reads the layers and checks the result.
    ///
    /// * `file`: a TOML file with some of the keys of `config/default.toml`; after a leading dash, as in systemd units,
    ///   it does not have to exist.
    /// * `environment`: name and value pairs; only names that start with `CAIRN_` are considered.
    ///
    /// # Errors
    /// Every problem found: first unknown keys, then the others in the order of the keys.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            let optional = optional(path);
            let path = optional.unwrap_or(path);
            let text = match small_file::read_to_string(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => match optional {
                    Some(_) => Ok(String::new()),
                    None => {
                        Err("there is no such file; `cairn serve --print-config` prints one to begin with".to_owned())
                    }
                },
                read => read.map_err(|error| error.to_string()),
            };
            (path.display().to_string(), text)
        };
        Self::from_layers(file.map(read), environment, overrides, |config, checker| checker.check_here(config))
    }

    /// Checks the text of a file that will be read elsewhere.
    ///
    /// * `origin`: used as the file's name in problems.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn read(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Self::from_layers(Some((origin.to_owned(), Ok(text.to_owned()))), [], &Overrides::default(), |_, _| {})
    }

    fn from_layers(
        file: Option<(String, Result<String, String>)>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
        check_here: impl FnOnce(&Self, &mut Checker<'_>),
    ) -> Result<Self, ConfigError> {
        let (mut config, settings) =
            read_layers(DEFAULTS, file, environment, overrides, Self::compose, |config, checker| {
                checker.check(config);
                check_here(config, checker);
            })?;
        config.effective = settings.to_string();
        if let Some(data_dir) = &overrides.data_dir {
            // Settings are text, and a path may not be.
            config.data_dir.clone_from(data_dir);
        }
        Ok(config)
    }

    /// Composes the settings of the parts. A new section, or a list of tables, is a field and a line here; a key is a
    /// field of the part's struct.
    fn compose(reader: &mut Reader<'_>) -> Self {
        let node: NodeSettings = reader.section("node");
        let server = reader.section("server");
        let admin: Admin = reader.section("admin");
        let memory: Memory = reader.section("memory");
        let store = reader.section("store");
        let (ingest, extraction) = (reader.section("ingest"), reader.section("ingest"));
        let (vectors, gpu) = (reader.section("index"), reader.section("index"));
        let search = reader.section("search");
        let destination: Destination = reader.section("snapshot");
        let fetch: fetch::Settings = reader.section("fetch");
        let (schedule, retention) = (reader.section("snapshot"), reader.section("snapshot"));
        Self {
            data_dir: node.data_dir.unwrap_or_else(default_data_dir),
            server,
            admin_listen: admin.listen,
            memory_max_bytes: memory.max_bytes,
            store,
            ingest,
            extraction,
            vectors,
            gpu,
            search,
            snapshot: Snapshot {
                target: destination.target(),
                key_file: destination.encryption_key_file,
                schedule,
                retention,
            },
            fetch: fetch.config(),
            log: reader.section("log"),
            effective: String::new(),
        }
    }
}

/// Reads layers into settings of any type; outside of tests, those of a node are the only one.
///
/// * `defaults`: TOML with every key of every section.
/// * `file`: its name and its text, or why it cannot be read.
/// * `compose`: reads sections and lists.
/// * `check`: records the rules that the settings break.
fn read_layers<T>(
    defaults: &str,
    file: Option<(String, Result<String, String>)>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
    compose: impl Fn(&mut Reader<'_>) -> T,
    check: impl FnOnce(&T, &mut Checker<'_>),
) -> Result<(T, toml::Table), ConfigError> {
    let defaults = Node::parse(defaults, None).expect("the defaults are TOML: a test reads them");
    // Most starts have no variable and no `--set`, which alone ask for the keys before anything is read.
    let keys: LazyKeys<'_> = LazyCell::new(Box::new(|| keys_of(&defaults, &compose)));
    let (mut settings, mut problems) = (defaults.clone(), Vec::new());
    match file {
        None => {}
        Some((name, Ok(text))) => match Node::parse(&text, Some(&name)) {
            Ok(layer) => settings.merge(layer),
            Err(mut found) => problems.append(&mut found),
        },
        Some((key, Err(message))) => {
            problems.push(Problem { key, origin: "configuration file".to_owned(), message });
        }
    }
    let mut layers = Layers { settings: &mut settings, defaults: &defaults, keys: &keys, problems: &mut problems };
    layers.variables(environment);
    layers.options(overrides);
    let mut invalid = Vec::new();
    let mut reader = Reader::new(&mut settings, &defaults, &mut invalid);
    let composed = compose(&mut reader);
    let keys = reader.keys();
    refuse_unknown(&settings, &keys, &mut problems);
    problems.append(&mut invalid);
    if problems.is_empty() {
        check(&composed, &mut Checker::new(&settings, &mut problems));
    }
    match settings.to_toml() {
        Some(toml::Value::Table(table)) if problems.is_empty() => Ok((composed, table)),
        _ => Err(ConfigError { problems }),
    }
}

/// The existing keys: those that are read from the defaults.
fn keys_of<T>(defaults: &Node, compose: impl Fn(&mut Reader<'_>) -> T) -> Keys {
    let (mut settings, mut problems) = (defaults.clone(), Vec::new());
    let mut reader = Reader::new(&mut settings, defaults, &mut problems);
    let _ = compose(&mut reader);
    reader.keys()
}

/// Records the sections that do not exist, and the keys that their section does not have.
fn refuse_unknown(settings: &Node, keys: &Keys, problems: &mut Vec<Problem>) {
    let Value::Table(sections) = &settings.value else { return };
    let mut refuse = |key: String, node: &Node, message: String| {
        problems.push(Problem { key, origin: node.origin.to_string(), message: format!("{message}; {SHOWN}") });
    };
    for (section, node) in sections {
        let known = keys.get(section);
        let Value::Table(inside) = &node.value else {
            if known.is_none() {
                refuse(section.clone(), node, unknown(section, keys.keys().map(String::as_str)));
            }
            continue;
        };
        // A list of tables is checked when it is read.
        if matches!(known, Some(None)) {
            continue;
        }
        let known = known.and_then(Option::as_ref);
        for (key, node) in inside {
            match known {
                Some(known) if known.contains(key) => {}
                Some(known) => refuse(format!("{section}.{key}"), node, unknown(key, known.iter().map(String::as_str))),
                None => refuse(format!("{section}.{key}"), node, unknown(section, keys.keys().map(String::as_str))),
            }
        }
    }
}

/// The path after the dash of an optional file.
fn optional(path: &Path) -> Option<&Path> {
    path.to_str().and_then(|path| path.strip_prefix('-')).map(Path::new)
}

/// The default data directory: the system's for root, the user's otherwise.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/cairn");
    }
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("XDG_DATA_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("cairn")
}
