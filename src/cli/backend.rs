//! Where a verb's work is done: by a running node over HTTP, or in this process on the data directory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value, json};

use super::Failure;
use crate::app::{Node, RunningNode};
use crate::base::Fault;
use crate::collection::OpenError;
use crate::config::Config;
use crate::mcp::{Arguments, NoProgress, Tool, ToolError, ToolProvider as _};
use crate::store;
use crate::task::Readiness;
use crate::telemetry::Metrics;

/// How long to wait for a node to accept a connection: it is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for an answer: a large file takes its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// The node behind a verb.
pub(super) enum Backend {
    /// A running node.
    Remote(Remote),
    /// The data directory, opened by this process.
    Local(Local),
}

pub(super) struct Remote {
    agent: ureq::Agent,
    base: String,
}

pub(super) struct Local {
    runtime: tokio::runtime::Runtime,
    node: Arc<Node>,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.node.close();
    }
}

impl Backend {
    /// The node at `url`; else the one that runs on the data directory; else the directory itself.
    pub(super) fn find(url: Option<&str>, config: &Config) -> Result<Self, Failure> {
        if let Some(url) = url {
            let remote = Remote::new(url.trim_end_matches('/').trim_end_matches("/mcp"));
            return match remote.is_cairn() {
                true => Ok(Self::Remote(remote)),
                false => Err(Failure::unreachable(anyhow!("no node answers at {url}; start one with `cairn serve`"))),
            };
        }
        if let Some(running) = RunningNode::read(&config.data_dir) {
            let remote = Remote::new(&format!("http://{}", running.listen));
            if remote.is_cairn() {
                return Ok(Self::Remote(remote));
            }
        }
        match Local::open(config) {
            Ok(local) => Ok(Self::Local(local)),
            Err(OpenError::Store(error @ store::OpenError::Locked { .. })) => Err(Failure::unreachable(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls a tool.
    pub(super) fn call(&self, tool: Tool, arguments: Value) -> Result<Value, Failure> {
        let arguments: Arguments = match arguments {
            // What was not given is left out: the tool's default counts.
            Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => Map::new(),
        };
        match self {
            Self::Remote(remote) => {
                let url = format!("{}/v1/tools/{}", remote.base, tool.name());
                remote.answer(remote.agent.post(&url).send_json(Value::Object(arguments)))
            }
            Self::Local(local) => {
                let call = local.node.tools().call(tool, arguments, &NoProgress);
                Ok(local.runtime.block_on(call).map_err(failure)?.structured)
            }
        }
    }

    /// Brings a source's documents in line with its content; see `Library::sync_source`.
    pub(super) fn sync_source(
        &self,
        collection: &str,
        source: &str,
        bytes: Vec<u8>,
        metadata: &Map<String, Value>,
    ) -> Result<Value, Failure> {
        match self {
            Self::Remote(remote) => {
                let url = remote.source_url(collection, source);
                let request = remote.agent.post(&url).query("metadata", Value::Object(metadata.clone()).to_string());
                remote.answer(request.content_type("application/octet-stream").send(&bytes))
            }
            Self::Local(local) => {
                let library = local.node.library();
                let synced = async {
                    library.ensure_collection(collection).await?;
                    library.sync_source(collection, source, bytes, metadata.clone()).await
                };
                let outcome = local.runtime.block_on(synced).map_err(|error| failure(ToolError::from(error)))?;
                Ok(crate::api::source_outcome_json(source, &outcome))
            }
        }
    }

    /// Paths of the sources of a collection that begin with `prefix`.
    pub(super) fn sources(&self, collection: &str, prefix: &str) -> Result<Vec<String>, Failure> {
        let mut sources: Vec<String> = Vec::new();
        loop {
            let after = sources.last().cloned();
            let page: Vec<String> = match self {
                Self::Remote(remote) => {
                    let url = format!("{}/v1/collections/{collection}/sources", remote.base);
                    let mut request = remote.agent.get(&url).query("prefix", prefix);
                    if let Some(after) = &after {
                        request = request.query("after", after);
                    }
                    let listed = remote.answer(request.call())?;
                    let listed = listed["sources"].as_array().into_iter().flatten();
                    listed.filter_map(|source| source["source"].as_str().map(str::to_owned)).collect()
                }
                Self::Local(local) => {
                    let library = local.node.library();
                    let info = library
                        .collection(collection)
                        .with_context(|| format!("there is no collection '{collection}'"))?;
                    let listed = library.sources(info.id, prefix, after.as_deref(), 1_000)?;
                    listed.into_iter().map(|source| source.source).collect()
                }
            };
            if page.is_empty() {
                return Ok(sources);
            }
            sources.extend(page);
        }
    }

    /// Deletes the documents of a source. Returns how many.
    pub(super) fn delete_source(&self, collection: &str, source: &str) -> Result<u64, Failure> {
        match self {
            Self::Remote(remote) => {
                let url = remote.source_url(collection, source);
                let deleted = remote.answer(remote.agent.delete(&url).call())?;
                Ok(deleted["deleted"].as_u64().unwrap_or_default())
            }
            Self::Local(local) => {
                let library = local.node.library();
                let deleted = local.runtime.block_on(library.delete_source(collection, source));
                Ok(deleted.map_err(|error| failure(ToolError::from(error)))?.len() as u64)
            }
        }
    }

    /// The address of the node, when it is a running one.
    pub(super) fn address(&self) -> Option<&str> {
        match self {
            Self::Remote(remote) => Some(&remote.base),
            Self::Local(_) => None,
        }
    }

    /// The node in this process, when there is one.
    pub(super) fn local(&self) -> Option<(&tokio::runtime::Runtime, &Arc<Node>)> {
        match self {
            Self::Remote(_) => None,
            Self::Local(local) => Some((&local.runtime, &local.node)),
        }
    }
}

impl Local {
    /// Opens the data directory in this process.
    pub(super) fn open(config: &Config) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(OpenError::Thread)?;
        let node = Node::open(config, Readiness::default(), Metrics::new())?;
        Ok(Self { runtime, node: Arc::new(node) })
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(super) fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }
}

impl Remote {
    fn new(base: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, base: base.to_owned() }
    }

    fn is_cairn(&self) -> bool {
        let greeting = self.agent.get(&self.base).call().and_then(|mut response| response.body_mut().read_to_string());
        greeting.is_ok_and(|text| text.starts_with("Cairn "))
    }

    fn source_url(&self, collection: &str, source: &str) -> String {
        format!("{}/v1/collections/{collection}/sources/{}", self.base, encode_path(source))
    }

    fn answer(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut response = response.map_err(|error| {
            Failure::unreachable(anyhow!(error).context(format!("the node at {} does not answer", self.base)))
        })?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(1 << 30).read_to_string().context("the answer broke off")?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(answer);
        }
        let message =
            answer["error"]["message"].as_str().map_or_else(|| format!("HTTP {status}: {answer}"), str::to_owned);
        let error = anyhow!(message);
        Err(if status.as_u16() == 503 { Failure::unreachable(error) } else { error.into() })
    }
}

/// Percent-encodes a path for a URL; `/` stays.
fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn failure(error: ToolError) -> Failure {
    match error.fault {
        Fault::Environment if error.code == "overloaded" => Failure::unreachable(error),
        Fault::Caller | Fault::Environment | Fault::Damage => error.into(),
    }
}

/// A list of names as a tool takes it, or nothing.
pub(super) fn names(names: &[String]) -> Value {
    if names.is_empty() { Value::Null } else { json!(names) }
}
