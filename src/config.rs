//! Settings: layers (the compiled-in defaults, a file, the environment, flags), checked as a whole, turned into what each part takes.
//!
//! Invariants: [`Config`] holds only valid values. Every problem is reported at once, each with its key and where it came
//! from. `config/default.toml` is both the defaults and their documentation; a key it lacks does not exist.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::auth::{CertificateFiles, Name};
use crate::base::{ByteSize, Fault};
use crate::fetch;
use crate::index::gpu::service as gpu;
use crate::snapshot::{BucketConfig, Retention, Target};
use crate::telemetry::{self, LogFormat};

/// The defaults, as shipped.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Everything a node is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The MCP and REST listener.
    pub server: Server,
    /// Address of `/health`, `/ready` and `/metrics`.
    pub admin_listen: SocketAddr,
    /// The log's sizes.
    pub store: Store,
    /// Limits of documents and passages.
    pub ingest: Ingest,
    /// The vector index.
    pub index: Index,
    /// What the node may take; 0: what the machine or its container allows.
    pub memory_max_bytes: ByteSize,
    /// Defaults of a search.
    pub search: Search,
    /// Backups.
    pub snapshot: Snapshot,
    /// How other machines are asked.
    pub fetch: fetch::Config,
    /// Logs.
    pub log: telemetry::Config,
    /// All settings as TOML, as they came out of the layers.
    pub effective: String,
}

/// Backups.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Where the log is shipped; `None`: nowhere by itself.
    pub target: Option<Target>,
    /// Key of an encrypted repository.
    pub key_file: Option<PathBuf>,
    /// How often a log that changed is shipped.
    pub interval: Duration,
    /// How often the newest snapshot is proved; zero: never by itself.
    pub verify_interval: Duration,
    /// What is kept.
    pub retention: Retention,
}

/// A service of Kubernetes whose one pod is this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What clients call it, and the pod's own name.
    pub names: Vec<Name>,
    /// The one of them that means nobody else.
    pub full: String,
}

/// The MCP and REST listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Its address.
    pub listen: SocketAddr,
    /// Whether other addresses than loopback are answered without the node's token.
    pub allow_unauthenticated: bool,
    /// Which listeners speak TLS.
    pub tls: Tls,
    /// The certificate that clients are shown; `None`: one of the node's own authority.
    pub certificate: Option<CertificateFiles>,
    /// More names in a certificate of the node's own authority.
    pub tls_names: Vec<Name>,
    /// The service of Kubernetes in front of the node.
    pub service: Option<Service>,
    /// File with a token that is taken besides those of the data directory.
    pub token_file: Option<PathBuf>,
    /// Names allowed in `Host` and `Origin` besides the loopback ones and the address.
    pub allowed_hosts: Vec<String>,
    /// Largest request body.
    pub request_bytes_max: ByteSize,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// Bytes a second that must come of a body.
    pub body_rate_min: ByteSize,
    /// Bytes of the bodies that are being received and answered, together.
    pub bodies_bytes_max: ByteSize,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a client may take to send a request's head, or to send another request.
    pub head_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Requests answered at once.
    pub in_flight_max: usize,
    /// How long a stop waits for requests in flight.
    pub drain_timeout: Duration,
}

impl Server {
    /// Whether the listener at this address asks for a token.
    #[must_use]
    pub fn guards(&self, listen: SocketAddr) -> bool {
        !listen.ip().is_loopback() && !self.allow_unauthenticated
    }
}

/// Which listeners speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Those that other machines reach.
    Auto,
    /// All.
    On,
    /// None.
    Off,
}

impl Tls {
    /// Whether the listener at this address does.
    #[must_use]
    pub fn covers(self, listen: SocketAddr) -> bool {
        match self {
            Self::Auto => !listen.ip().is_loopback(),
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl std::str::FromStr for Tls {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(()),
        }
    }
}

/// The log's sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// Size at which a segment is sealed.
    pub segment_bytes: ByteSize,
    /// Free space below which writes are refused.
    pub reserve_bytes: ByteSize,
    /// Most bytes of the log; 0 for no limit.
    pub max_bytes: ByteSize,
    /// Bytes each second that compaction reads and writes at most; 0 for no limit.
    pub compaction_rate: ByteSize,
    /// How long deleted and replaced content may stay in the log's files; 0: until clearing it out is worth the work.
    pub erase_within: Duration,
}

/// Limits of documents and passages.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingest {
    /// Largest source.
    pub source_bytes_max: ByteSize,
    /// Memory that reading a source may take; 0: what the node's memory leaves.
    pub parse_memory_bytes_max: ByteSize,
    /// Processor time that reading a source may take.
    pub parse_time_max: Duration,
    /// Tokens a passage aims at.
    pub passage_tokens: usize,
    /// Tokens a passage never exceeds.
    pub passage_tokens_max: usize,
}

/// The vector index.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// Largest collection that is scanned exactly.
    pub flat_max: usize,
    /// HNSW's M.
    pub connectivity: usize,
    /// HNSW's efConstruction.
    pub expansion_add: usize,
    /// HNSW's ef.
    pub expansion_search: usize,
    /// Recall@10 that searches by the graph are to have.
    pub recall: f64,
    /// Largest filtered set that is scanned exactly.
    pub scan_max: usize,
    /// Whether the GPU is used, and how.
    pub gpu: gpu::Options,
}

/// Defaults of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Passages per answer.
    pub limit: usize,
    /// Tokens per answer.
    pub tokens_max: usize,
    /// Candidates per half.
    pub candidates: usize,
    /// Memory of the result cache.
    pub cache_bytes: ByteSize,
    /// Memory for words that are searched for.
    pub word_cache_bytes: ByteSize,
    /// Memory for passages and documents read from the log.
    pub passage_cache_bytes: ByteSize,
}

/// What flags and their environment variables override.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--admin`
    pub admin: Option<SocketAddr>,
    /// `--allow-unauthenticated`
    pub allow_unauthenticated: bool,
}

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key, or the file for a problem of the whole file.
    pub key: String,
    /// Where the value came from.
    pub origin: String,
    /// What was found and what was expected.
    pub message: String,
}

/// Everything wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration has problems:")?;
        self.problems
            .iter()
            .try_for_each(|problem| write!(f, "\n  {} ({}): {}", problem.key, problem.origin, problem.message))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Always the operator's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}

/// A value with where it came from.
#[derive(Debug, Clone)]
struct Setting {
    key: String,
    value: toml::Value,
    origin: String,
}

impl Config {
    /// Reads the layers and checks the result.
    ///
    /// * `file`: a TOML file with some of the keys of `config/default.toml`; behind a dash, as in units of systemd, it need not exist.
    /// * `environment`: name and value pairs; only names that start with `CAIRN_` are looked at.
    ///
    /// # Errors
    /// Every problem found, in the order of the keys.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            let optional = path.to_str().and_then(|path| path.strip_prefix('-')).map(Path::new);
            let path = optional.unwrap_or(path);
            let text = match std::fs::read_to_string(path) {
                Err(error) if optional.is_some() && error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
                read => read.map_err(|error| error.to_string()),
            };
            (path.display().to_string(), text)
        };
        Self::from_layers(file.map(read), environment, overrides)
    }

    /// Checks the text of a file that is going to be read elsewhere.
    ///
    /// * `origin`: what stands for the file's name in problems.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn read(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Self::from_layers(Some((origin.to_owned(), Ok(text.to_owned()))), [], &Overrides::default())
    }

    fn from_layers(
        file: Option<(String, Result<String, String>)>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut settings = flatten(&DEFAULTS.parse().expect("the defaults are TOML: a test reads them"), "default");
        if let Some((origin, text)) = file {
            match text.and_then(|text| text.parse::<toml::Table>().map_err(|error| error.to_string())) {
                Ok(table) => merge(&mut settings, flatten(&table, &origin), &mut problems),
                Err(message) => {
                    problems.push(Problem { key: origin, origin: "configuration file".to_owned(), message });
                }
            }
        }
        let names: Vec<(String, String)> =
            environment.into_iter().filter(|(name, _)| name.starts_with("CAIRN_")).collect();
        for setting in &mut settings {
            let name = format!("CAIRN_{}", setting.key.replace('.', "_").to_uppercase());
            if let Some((_, value)) = names.iter().find(|(known, _)| *known == name) {
                setting.value = from_environment(&setting.value, value);
                setting.origin = name;
            }
        }
        for (name, _) in &names {
            let is_key = |setting: &Setting| *name == format!("CAIRN_{}", setting.key.replace('.', "_").to_uppercase());
            let section = |setting: &Setting| {
                setting.key.split('.').next().map(|section| format!("CAIRN_{}_", section.to_uppercase()))
            };
            // Kubernetes sets CAIRN_SERVER_SERVICE_HOST, CAIRN_SERVER_PORT and more beside a service called cairn-server.
            let injected = name.contains("_SERVICE_") || name.contains("_PORT");
            if !injected
                && settings.iter().filter_map(section).any(|section| name.starts_with(&section))
                && !settings.iter().any(is_key)
            {
                let message = "there is no such setting; `cairn serve --print-config` shows all of them".to_owned();
                problems.push(Problem { key: name.clone(), origin: "environment".to_owned(), message });
            }
        }
        let config = check(&settings, overrides, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }
}

fn flatten(table: &toml::Table, origin: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (section, value) in table {
        match value {
            toml::Value::Table(keys) => settings.extend(keys.iter().map(|(key, value)| Setting {
                key: format!("{section}.{key}"),
                value: value.clone(),
                origin: origin.to_owned(),
            })),
            other => {
                settings.push(Setting { key: section.clone(), value: other.clone(), origin: origin.to_owned() });
            }
        }
    }
    settings
}

fn merge(settings: &mut [Setting], layer: Vec<Setting>, problems: &mut Vec<Problem>) {
    for setting in layer {
        match settings.iter_mut().find(|known| known.key == setting.key) {
            Some(known) => *known = setting,
            None => problems.push(Problem {
                message: "there is no such key; `cairn serve --print-config` shows all of them".to_owned(),
                key: setting.key,
                origin: setting.origin,
            }),
        }
    }
}

/// An environment variable is text; it becomes what the default is.
fn from_environment(default: &toml::Value, text: &str) -> toml::Value {
    match default {
        toml::Value::Integer(_) => text.parse().map_or_else(|_| text.into(), toml::Value::Integer),
        toml::Value::Float(_) => text.parse().map_or_else(|_| text.into(), toml::Value::Float),
        toml::Value::Boolean(_) => text.parse().map_or_else(|_| text.into(), toml::Value::Boolean),
        toml::Value::Array(_) => toml::Value::Array(
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(toml::Value::from).collect(),
        ),
        _ => text.into(),
    }
}

struct Checker<'a> {
    settings: &'a [Setting],
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn setting(&self, key: &str) -> &Setting {
        self.settings.iter().find(|setting| setting.key == key).expect("the key is in the defaults: a test loads them")
    }

    fn problem(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.setting(key).origin.clone();
        self.problems.push(Problem { key: key.to_owned(), origin, message: message.into() });
    }

    /// Text that parses as `T`; what it stands for on a problem does not matter, the load fails.
    fn parsed<T: std::str::FromStr>(&mut self, key: &str, fallback: T, expected: &str) -> T {
        match self.setting(key).value.as_str().map(str::parse) {
            Some(Ok(value)) => value,
            _ => {
                let found = self.setting(key).value.to_string();
                self.problem(key, format!("found {found}, expected {expected}"));
                fallback
            }
        }
    }

    /// A number from 0 to 1.
    fn share(&mut self, key: &str) -> f64 {
        let setting = self.setting(key);
        let share = match setting.value {
            toml::Value::Integer(number) => Some(number as f64),
            toml::Value::Float(number) => Some(number),
            _ => None,
        };
        match share {
            Some(share) if (0.0..=1.0).contains(&share) => share,
            _ => {
                let found = setting.value.to_string();
                self.problem(key, format!("found {found}, expected a number from 0 to 1"));
                0.0
            }
        }
    }

    fn size(&mut self, key: &str, least: u64) -> ByteSize {
        let setting = self.setting(key);
        let size = match &setting.value {
            toml::Value::Integer(bytes) => u64::try_from(*bytes).ok().map(ByteSize),
            toml::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match size {
            Some(size) if size.0 >= least => size,
            _ => {
                let found = setting.value.to_string();
                self.problem(key, format!("found {found}, expected a size of at least {}", ByteSize(least)));
                ByteSize(least)
            }
        }
    }

    fn count(&mut self, key: &str, range: std::ops::RangeInclusive<usize>) -> usize {
        let value = self.setting(key).value.as_integer().and_then(|value| usize::try_from(value).ok());
        match value {
            Some(value) if range.contains(&value) => value,
            _ => {
                let found = self.setting(key).value.to_string();
                self.problem(
                    key,
                    format!("found {found}, expected a whole number from {} to {}", range.start(), range.end()),
                );
                *range.start()
            }
        }
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.setting(key).value.as_bool() {
            Some(value) => value,
            None => {
                let found = self.setting(key).value.to_string();
                self.problem(key, format!("found {found}, expected true or false"));
                false
            }
        }
    }

    /// A duration that must not be longer than `most`.
    fn duration_to(&mut self, key: &str, most: Duration) -> Duration {
        let duration = self.duration(key);
        if duration > most {
            self.problem(key, format!("found {duration:?}, expected at most {most:?}"));
        }
        duration.min(most)
    }

    fn duration(&mut self, key: &str) -> Duration {
        let read = |text: &str| -> Option<Duration> { text.parse::<jiff::SignedDuration>().ok()?.try_into().ok() };
        match self.setting(key).value.as_str().and_then(read) {
            Some(duration) => duration,
            None => {
                let found = self.setting(key).value.to_string();
                self.problem(key, format!("found {found}, expected a duration such as 20s or 5m"));
                Duration::ZERO
            }
        }
    }

    /// How long somebody else is waited for.
    fn patience(&mut self, key: &str) -> Duration {
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(86_400));
        let patience = self.duration(key);
        if !(least..=most).contains(&patience) && patience != Duration::ZERO {
            let found = self.setting(key).value.to_string();
            self.problem(key, format!("found {found}, expected a duration from 1s to 1d"));
        }
        patience
    }

    fn text(&mut self, key: &str) -> String {
        match self.setting(key).value.as_str() {
            Some(text) => text.to_owned(),
            None => {
                self.problem(key, "expected a text");
                String::new()
            }
        }
    }

    /// A path, or nothing when it is empty.
    fn path(&mut self, key: &str) -> Option<PathBuf> {
        Some(self.text(key)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    fn texts(&mut self, key: &str) -> Vec<String> {
        let texts = self.setting(key).value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
        });
        match texts {
            Some(texts) => texts,
            None => {
                self.problem(key, "expected a list of texts");
                Vec::new()
            }
        }
    }
}

/// Least that reading a document may be given: with less not even small ones can be read.
const PARSE_MEMORY_LEAST: u64 = 16 << 20;
const PARSE_TIME_LEAST: Duration = Duration::from_secs(1);
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn check(settings: &[Setting], overrides: &Overrides, problems: &mut Vec<Problem>) -> Config {
    let mut checker = Checker { settings, problems };
    let address = "an address and port such as 127.0.0.1:7171";
    let listen = overrides.listen.unwrap_or_else(|| checker.parsed("server.listen", LOOPBACK, address));
    let admin_listen = overrides.admin.unwrap_or_else(|| checker.parsed("admin.listen", LOOPBACK, address));
    let allow_unauthenticated = overrides.allow_unauthenticated || checker.flag("server.allow_unauthenticated");
    if listen == admin_listen && listen.port() != 0 {
        checker.problem("admin.listen", format!("{admin_listen} is the address of server.listen too"));
    }
    let passage_tokens_max = checker.count("ingest.passage_tokens_max", 32..=512);
    let passage_tokens = checker.count("ingest.passage_tokens", 16..=512);
    if passage_tokens > passage_tokens_max {
        checker.problem("ingest.passage_tokens", format!("more than ingest.passage_tokens_max ({passage_tokens_max})"));
    }
    let source_bytes_max = checker.size("ingest.source_bytes_max", 1 << 10);
    let parse_memory_bytes_max = checker.size("ingest.parse_memory_bytes_max", 0);
    if (1..PARSE_MEMORY_LEAST).contains(&parse_memory_bytes_max.0) {
        let least = ByteSize(PARSE_MEMORY_LEAST);
        checker.problem("ingest.parse_memory_bytes_max", format!("less than {least}; 0 leaves it to the node"));
    }
    let parse_time_max = checker.duration("ingest.parse_time_max");
    if parse_time_max < PARSE_TIME_LEAST {
        checker.problem(
            "ingest.parse_time_max",
            format!("found {parse_time_max:?}, expected at least {PARSE_TIME_LEAST:?}"),
        );
    }
    let request_bytes_max = checker.size("server.request_bytes_max", 64 << 10);
    let filter = match checker.setting("log.level").value.as_str().unwrap_or_default().parse::<telemetry::Filter>() {
        Ok(filter) => filter.to_string(),
        Err(error) => {
            checker.problem("log.level", error.to_string());
            String::new()
        }
    };
    let data_dir = match (&overrides.data_dir, checker.setting("node.data_dir").value.as_str()) {
        (Some(path), _) => path.clone(),
        (None, Some("")) => default_data_dir(),
        (None, Some(path)) => PathBuf::from(path),
        (None, None) => {
            checker.problem("node.data_dir", "expected a path");
            PathBuf::new()
        }
    };
    Config {
        data_dir,
        server: Server {
            listen,
            allow_unauthenticated,
            tls: checker.parsed("server.tls", Tls::Auto, "auto, on or off"),
            certificate: certificate(&mut checker),
            tls_names: tls_names(&mut checker),
            service: service(&mut checker),
            token_file: checker.path("server.token_file"),
            allowed_hosts: allowed_hosts(&mut checker),
            request_bytes_max,
            body_timeout: checker.patience("server.body_timeout"),
            body_rate_min: checker.size("server.body_rate_min", 0),
            bodies_bytes_max: checker.size("server.bodies_bytes_max", 1 << 20),
            connections_max: checker.count("server.connections_max", 8..=1_000_000),
            head_timeout: checker.patience("server.head_timeout"),
            handshake_timeout: checker.patience("server.handshake_timeout"),
            in_flight_max: checker.count("server.in_flight_max", 1..=100_000),
            drain_timeout: checker.duration("server.drain_timeout"),
        },
        admin_listen,
        memory_max_bytes: checker.size("memory.max_bytes", 0),
        store: Store {
            segment_bytes: checker.size("store.segment_bytes", 1 << 20),
            reserve_bytes: checker.size("store.reserve_bytes", 0),
            max_bytes: checker.size("store.max_bytes", 0),
            compaction_rate: checker.size("store.compaction_rate", 0),
            erase_within: checker.duration("store.erase_within"),
        },
        ingest: Ingest { source_bytes_max, parse_memory_bytes_max, parse_time_max, passage_tokens, passage_tokens_max },
        index: Index {
            flat_max: checker.count("index.flat_max", 0..=10_000_000),
            connectivity: checker.count("index.connectivity", 4..=128),
            expansion_add: checker.count("index.expansion_add", 8..=2_048),
            expansion_search: checker.count("index.expansion_search", 8..=2_048),
            recall: checker.share("index.recall"),
            scan_max: checker.count("index.scan_max", 0..=10_000_000),
            gpu: gpu::Options {
                how: checker.parsed("index.gpu", gpu::Use::Auto, "auto, on or off"),
                memory_bytes_max: checker.size("index.gpu_memory_bytes_max", 0).0,
                batch_wait: checker.duration_to("index.gpu_batch_wait", gpu::BATCH_WAIT_MAX),
                idle: gpu::IDLE,
            },
        },
        search: Search {
            limit: checker.count("search.limit", 1..=50),
            tokens_max: checker.count("search.tokens_max", 100..=20_000),
            candidates: checker.count("search.candidates", 10..=1_000),
            cache_bytes: checker.size("search.cache_bytes", 0),
            word_cache_bytes: checker.size("search.word_cache_bytes", 0),
            passage_cache_bytes: checker.size("search.passage_cache_bytes", 0),
        },
        snapshot: snapshot(&mut checker),
        fetch: fetch(&mut checker),
        log: telemetry::Config {
            format: checker.parsed("log.format", LogFormat::Auto, "auto, text, json or journal"),
            filter,
        },
        effective: effective(settings, overrides),
    }
}

/// A certificate and its key: both or neither.
fn certificate(checker: &mut Checker<'_>) -> Option<CertificateFiles> {
    let (file, key_file) = ("server.tls_certificate_file", "server.tls_key_file");
    match (checker.path(file), checker.path(key_file)) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            checker.problem(key_file, format!("is empty, and {file} is not: a certificate needs its key"));
            None
        }
        (None, Some(_)) => {
            checker.problem(file, format!("is empty, and {key_file} is not: a key needs its certificate"));
            None
        }
    }
}

fn tls_names(checker: &mut Checker<'_>) -> Vec<Name> {
    let mut names = Vec::new();
    for text in checker.texts("server.tls_names") {
        match text.parse::<Name>() {
            Ok(name) => names.push(name),
            Err(error) => checker.problem("server.tls_names", error.to_string()),
        }
    }
    names
}

/// The service that leads to a pod.
fn service(checker: &mut Checker<'_>) -> Option<Service> {
    let key = "server.pod";
    let text = checker.text(key);
    if text.is_empty() {
        return None;
    }
    let service = Service::of_pod(&text);
    if service.is_none() {
        let expected = "a pod of a set with its namespace, such as cairn-0.site.svc.cluster.local";
        checker.problem(key, format!("found '{text}', expected {expected}"));
    }
    service
}

impl Service {
    /// The service of a pod `SET-NUMBER.NAMESPACE.svc.DOMAIN`; `None` for any other text.
    fn of_pod(text: &str) -> Option<Self> {
        let (pod, rest) = text.split_once('.')?;
        let (namespace, domain) = rest.split_once(".svc.")?;
        let (set, number) = pod.rsplit_once('-')?;
        number.parse::<u32>().ok()?;
        let full = format!("{set}.{namespace}.svc.{domain}");
        let names = [
            set.to_owned(),
            format!("{set}.{namespace}"),
            format!("{set}.{namespace}.svc"),
            full.clone(),
            format!("{pod}.{set}-headless.{namespace}.svc.{domain}"),
        ];
        let names: Option<Vec<Name>> =
            names.iter().map(|name| name.parse().ok().filter(|name| matches!(name, Name::Dns(_)))).collect();
        Some(Self { names: names?, full })
    }
}

/// Names as they come in `Host` and `Origin`, without what those never or not always have.
fn allowed_hosts(checker: &mut Checker<'_>) -> Vec<String> {
    let key = "server.allowed_hosts";
    let names = checker.texts(key);
    for name in &names {
        let rest = name.split_once("://").map_or(name.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let host = match host.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => host,
        };
        if name.contains('*') {
            let message = format!("found '{name}', expected names: a pattern matches nothing, so list each name");
            checker.problem(key, message);
        } else if host != name && host.parse::<Name>().is_ok() {
            let message = format!(
                "found '{name}', expected a name alone, such as '{host}': it is allowed with every scheme and port"
            );
            checker.problem(key, message);
        } else if let Err(error) = name.trim_matches(['[', ']']).parse::<Name>() {
            checker.problem(key, error.to_string());
        }
    }
    names
}

fn fetch(checker: &mut Checker<'_>) -> fetch::Config {
    let proxy = match checker.text("fetch.proxy").as_str() {
        "" => fetch::Proxy::from_environment(),
        "none" => fetch::Proxy::none(),
        // Settings are shown, and stored with snapshots.
        url if url.contains('@') => {
            checker.problem(
                "fetch.proxy",
                "found a name or a password; say them in HTTPS_PROXY instead, with fetch.proxy empty",
            );
            fetch::Proxy::none()
        }
        url => fetch::Proxy::new(url, &checker.text("fetch.no_proxy")).unwrap_or_else(|error| {
            checker.problem("fetch.proxy", error.to_string());
            fetch::Proxy::none()
        }),
    };
    let connect_timeout = checker.duration("fetch.connect_timeout");
    if connect_timeout.is_zero() {
        checker.problem("fetch.connect_timeout", "expected more than 0s");
    }
    let trust = checker.path("fetch.ca_file").map_or(fetch::Trust::System, fetch::Trust::SystemAnd);
    fetch::Config { trust, proxy, connect_timeout, ..fetch::Config::default() }
}

fn snapshot(checker: &mut Checker<'_>) -> Snapshot {
    let endpoint = checker.text("snapshot.s3_endpoint");
    if !endpoint.is_empty() && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        checker.problem("snapshot.s3_endpoint", format!("found '{endpoint}', expected http:// or https:// and a host"));
    }
    let region = checker.text("snapshot.s3_region");
    let access_key_file = checker.path("snapshot.s3_access_key_file");
    let target = checker.text("snapshot.target");
    let target = match target.split_once("://") {
        _ if target.is_empty() => None,
        None => Some(Target::Directory(PathBuf::from(target))),
        Some(("s3", place)) => {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            if bucket.is_empty() {
                checker.problem("snapshot.target", format!("found '{target}', expected s3://bucket/prefix"));
            }
            Some(Target::Bucket(BucketConfig {
                bucket: bucket.to_owned(),
                prefix: prefix.trim_matches('/').to_owned(),
                endpoint: Some(endpoint).filter(|endpoint| !endpoint.is_empty()),
                region,
                access_key_file,
            }))
        }
        Some(_) => {
            checker.problem("snapshot.target", format!("found '{target}', expected a directory or s3://bucket/prefix"));
            None
        }
    };
    let interval = checker.duration("snapshot.interval");
    if interval < Duration::from_secs(1) {
        checker.problem("snapshot.interval", "expected at least 1s; an empty snapshot.target turns shipping off");
    }
    let max_bytes = checker.size("snapshot.max_bytes", 0).0;
    Snapshot {
        target,
        key_file: checker.path("snapshot.encryption_key_file"),
        interval,
        verify_interval: checker.duration("snapshot.verify_interval"),
        retention: Retention {
            daily: checker.count("snapshot.daily", 0..=10_000),
            weekly: checker.count("snapshot.weekly", 0..=10_000),
            monthly: checker.count("snapshot.monthly", 0..=10_000),
            max_bytes: Some(max_bytes).filter(|most| *most > 0),
            point_in_time: checker.duration("snapshot.point_in_time"),
        },
    }
}

/// The settings as a file for `--config`.
fn effective(settings: &[Setting], overrides: &Overrides) -> String {
    let mut sections = toml::Table::new();
    for setting in settings {
        let Some((section, key)) = setting.key.split_once('.') else { continue };
        let value = match (setting.key.as_str(), overrides) {
            ("node.data_dir", Overrides { data_dir: Some(path), .. }) => path.display().to_string().into(),
            ("server.listen", Overrides { listen: Some(address), .. })
            | ("admin.listen", Overrides { admin: Some(address), .. }) => address.to_string().into(),
            ("server.allow_unauthenticated", Overrides { allow_unauthenticated: true, .. }) => true.into(),
            _ => setting.value.clone(),
        };
        let section = sections.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let Some(keys) = section.as_table_mut() {
            keys.insert(key.to_owned(), value);
        }
    }
    sections.to_string()
}

/// Where data goes when nobody says: the system's place for root, the user's otherwise.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("cairn.toml");
        std::fs::write(&path, file).expect("write");
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Config::load(Some(&path), environment, &Overrides::default())
    }

    #[test]
    fn a_pod_is_reached_by_the_names_of_its_service() {
        let config = load("", &[("CAIRN_SERVER_POD", "team-cairn-0.team-a.svc.cluster.local")]).expect("valid");
        let service = config.server.service.expect("a service");
        let names: Vec<String> = service.names.iter().map(ToString::to_string).collect();
        assert_eq!(names[..3], ["team-cairn", "team-cairn.team-a", "team-cairn.team-a.svc"]);
        assert_eq!(service.full, "team-cairn.team-a.svc.cluster.local");
        assert_eq!(names[4], "team-cairn-0.team-cairn-headless.team-a.svc.cluster.local");
        for wrong in ["cairn", "cairn.site.svc.cluster.local", "cairn-0.site", "cairn-x.site.svc.local", "-0..svc.x"] {
            let error = load("", &[("CAIRN_SERVER_POD", wrong)]).expect_err(wrong);
            assert_eq!(error.problems[0].key, "server.pod", "{wrong}");
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::load(None, [], &Overrides::default()).expect("valid");
        assert_eq!(config.server.listen, "127.0.0.1:7171".parse().expect("address"));
        assert_eq!(config.admin_listen, "127.0.0.1:9464".parse().expect("address"));
        assert_eq!(config.server.drain_timeout, Duration::from_secs(20));
    }

    #[test]
    fn later_layers_win() {
        let file = "[server]\nlisten = \"127.0.0.1:1\"\nin_flight_max = 5\n[node]\ndata_dir = \"/from/file\"";
        let config = load(file, &[("CAIRN_SERVER_LISTEN", "127.0.0.1:2"), ("CAIRN_SERVER_ALLOWED_HOSTS", "a, b")])
            .expect("valid");
        assert_eq!(config.server.listen.port(), 2);
        assert_eq!(config.server.in_flight_max, 5);
        assert_eq!(config.server.allowed_hosts, ["a", "b"]);
        assert_eq!(config.data_dir, PathBuf::from("/from/file"));
        let overrides = Overrides { listen: Some("127.0.0.1:3".parse().expect("address")), ..Overrides::default() };
        let environment = [("CAIRN_SERVER_LISTEN".to_owned(), "127.0.0.1:2".to_owned())];
        assert_eq!(Config::load(None, environment, &overrides).expect("valid").server.listen.port(), 3);
    }

    #[test]
    fn what_flags_set_is_in_the_settings_that_are_kept() {
        let address = |text: &str| Some(text.parse().expect("an address"));
        let overrides = Overrides {
            data_dir: Some("/elsewhere".into()),
            listen: address("10.0.0.1:7171"),
            admin: address("10.0.0.1:9464"),
            allow_unauthenticated: true,
        };
        let config = Config::load(None, [], &overrides).expect("valid");
        let kept = Config::read(&config.effective, "kept").expect("valid");
        assert_eq!(kept, Config { effective: kept.effective.clone(), ..config });
    }

    #[test]
    fn a_file_behind_a_dash_need_not_exist_but_is_read_when_it_does() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("cairn.toml");
        let optional = PathBuf::from(format!("-{}", path.display()));
        let load = |file: &Path| Config::load(Some(file), [], &Overrides::default());
        assert!(load(&path).is_err(), "one that is named must exist");
        assert_eq!(load(&optional).expect("valid").server.in_flight_max, 512);
        std::fs::write(&path, "[server]\nin_flight_max = 5").expect("written");
        assert_eq!(load(&optional).expect("valid").server.in_flight_max, 5);
        std::fs::write(&path, "[server]\nin_flight_max = 0").expect("written");
        let error = load(&optional).expect_err("invalid");
        assert_eq!(error.problems[0].origin, path.display().to_string(), "told without the dash");
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let file =
            "[server]\nlisten = \"here\"\nlissen = 1\n[search]\nlimit = 1000\n[store]\nsegment_bytes = \"1 elephant\"";
        let error = load(file, &[("CAIRN_LOG_FORMAT", "xml")]).expect_err("invalid");
        let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["server.lissen", "server.listen", "store.segment_bytes", "search.limit", "log.format"]);
        assert!(error.problems[4].origin.contains("CAIRN_LOG_FORMAT"));
    }

    #[test]
    fn a_level_that_does_not_exist_is_refused_wherever_it_comes_from() {
        for level in ["loud", "verbose,info", "cairn::store"] {
            let by_file = load(&format!("[log]\nlevel = \"{level}\""), &[]).expect_err("invalid");
            let by_variable = load("", &[("CAIRN_LOG_LEVEL", level)]).expect_err("invalid");
            for (error, origin) in [(by_file, "cairn.toml"), (by_variable, "CAIRN_LOG_LEVEL")] {
                let [problem] = &error.problems[..] else { panic!("{error}") };
                assert!(problem.key == "log.level" && problem.origin.ends_with(origin), "{error}");
                assert!(problem.message.contains("expected error, warn, info"), "{error}");
            }
        }
        assert_eq!(load("[log]\nlevel = \"Warning\"", &[]).expect("valid").log.filter, "warn");
    }

    #[test]
    fn a_certificate_needs_its_key_and_names_are_names() {
        let file = "[server]\ntls = \"yes\"\ntls_key_file = \"/key\"\ntls_names = [\"ok.example\", \"*.example\", \"10.0.0.1\"]";
        let error = load(file, &[]).expect_err("invalid");
        let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["server.tls", "server.tls_certificate_file", "server.tls_names"]);
        let config = load("", &[("CAIRN_SERVER_TLS_NAMES", "Site-Box, 10.0.0.1")]).expect("valid");
        let names: Vec<String> = config.server.tls_names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["site-box", "10.0.0.1"]);
        let other = "192.0.2.1:1".parse().expect("an address");
        let here = "[::1]:1".parse().expect("an address");
        assert_eq!(
            [Tls::Auto, Tls::On, Tls::Off].map(|tls| (tls.covers(other), tls.covers(here))),
            [(true, false), (true, true), (false, false)]
        );
    }
}
