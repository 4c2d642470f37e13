//! A running node, reached over its REST interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::http::{Agent, Reply, RequestBuilder};
use super::trust::Trust;
use super::{Address, Failure, failure};
use crate::api::rest::Problem;
use crate::api::rest::collections::OfCollection;
use crate::api::rest::endpoint::{Endpoint, Nothing};
use crate::api::rest::node::{ChangesQuery, Flush, Flushed, GetChanges};
use crate::api::rest::snapshots::{PruneQuery, PruneSnapshots, SnapshotSchedule, VerifyQuery, VerifySnapshot};
use crate::api::rest::sources::{
    DeleteSource, Folders, ListFolders, ListQuery, ListSources, NoteFolder, OfFolder, OfSource, SourcesPage, SyncQuery,
    SyncSource,
};
use crate::api::rest::tools::{CallTool, OfTool};
use crate::app::RunningNode;
use crate::auth::LOCAL_NAME;
use crate::base::{Fault, Lsn};
use crate::collection::Folder;
use crate::fetch::{FetchError, Phase, Request};
use crate::mcp::{Arguments, ErrorCode, Tool, ToolError};

/// How long to wait for what a node says of itself: a leftover's port may belong to anybody by now.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a node that the user named: one that is starting accepts connections, and answers once its log is open.
const GREETING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for an answer: a large file takes long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long to wait for taking or restoring a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
/// How long a file waits for a node that has no room for it, and between two attempts.
const BUSY_PATIENCE: Duration = Duration::from_secs(600);
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
pub(super) struct Remote {
    agent: Agent,
    base: String,
    /// The same for people.
    base_url: String,
    token: Option<String>,
}

/// No node answers, or it went away before the answer was complete.
#[derive(Debug, thiserror::Error)]
#[error("the node at {base} does not answer")]
pub(super) struct Gone {
    base: String,
    #[source]
    source: FetchError,
}

/// A proxy answers in the node's place, or the node reports that it cannot answer now.
#[derive(Debug, thiserror::Error)]
#[error("the node at {base} is not available: {answer}")]
pub(in crate::cli) struct Unavailable {
    base: String,
    answer: String,
}

impl Remote {
    fn new(base: &str, trust: Trust, token: Option<String>) -> Self {
        Self {
            agent: Agent::new(trust, ANSWER_TIMEOUT, ANSWER_BYTES_MAX),
            base: base.to_owned(),
            base_url: base.to_owned(),
            token,
        }
    }

    /// The node that the user named.
    pub(super) fn at(url: &str, address: &Address) -> Result<Self, Failure> {
        let is_url =
            url.split_once("://").is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && !rest.is_empty());
        if !is_url || Request::get(url).is_err() {
            let hint = match url.split_once("://") {
                None => format!("put http:// or https:// before it, such as http://{url}"),
                Some(_) => "expected an address such as http://127.0.0.1:7171".to_owned(),
            };
            return Err(Failure::usage(anyhow!("--url (CAIRN_URL) '{url}' is not the address of a node: {hint}")));
        }
        let base = url.trim_end_matches('/').trim_end_matches("/mcp");
        let mut trust = address.ca.as_deref().map_or(Ok(Trust::System), Trust::file).map_err(Failure::usage)?;
        if let Some(resolved) = address.resolve {
            trust = trust.at(SocketAddr::new(resolved, port(base)));
        }
        let remote = Self::new(base, trust, address.token.clone());
        match remote.greet(url) {
            Err(Greeting::Distrusted { reason, is_unknown }) => {
                let distrusted = || {
                    let advice = match is_unknown {
                        true => "; copy tls/authority.pem from its data directory and name it with --ca (CAIRN_CA)",
                        false => "",
                    };
                    Failure::unreachable(anyhow!(
                        "the certificate of the node at {url} is not trusted here: {reason}{advice}"
                    ))
                };
                let own = Self::by_own_name(base, address).ok_or_else(distrusted)?;
                match own.greet(url) {
                    Ok(()) => Ok(own),
                    Err(Greeting::Distrusted { .. }) => Err(distrusted()),
                    Err(Greeting::Failed(failure)) => Err(failure),
                }
            }
            Err(Greeting::Failed(failure)) => Err(failure),
            Ok(()) => Ok(remote),
        }
    }

    /// Whether a node answers there, and accepts the token.
    fn greet(&self, url: &str) -> Result<(), Greeting> {
        let nobody = || Failure::unreachable(anyhow!("no node answers at {url}; start one with `cairn serve`"));
        let foreign = |says: &str| Failure::unreachable(anyhow!("what answers at {url} is not Cairn: {says}"));
        let silent = |error: &FetchError| match error {
            FetchError::UnknownHost { .. } => {
                Failure::unreachable(anyhow!("no node answers at {url}: no machine of that name is known here"))
            }
            FetchError::Timeout { after, .. } => {
                let seconds = after.as_secs();
                let hint = "If the node is starting, wait until its log says \"ready\". Otherwise, is the address right, and does every \
                            firewall on the way let it through?";
                Failure::unreachable(anyhow!("no node answers at {url} within {seconds} seconds. {hint}"))
            }
            FetchError::NotHttp { .. } => foreign("it does not speak HTTP"),
            FetchError::PlainHttp { .. } => {
                Failure::unreachable(anyhow!("what answers at {url} speaks plain HTTP, not TLS: use http://"))
            }
            FetchError::Proxy { .. } => Failure::unreachable(anyhow!("no node answers at {url}: {error}")),
            _ => nobody(),
        };
        let greeting = self.authorized(self.agent.get(&self.base)).timeout(GREETING_TIMEOUT);
        let response = greeting.call().map_err(|error| match error {
            FetchError::Certificate { reason, is_unknown, .. } => Greeting::Distrusted { reason, is_unknown },
            FetchError::Tls { reason, .. } => Greeting::Distrusted { reason, is_unknown: false },
            error => Greeting::Failed(silent(&error)),
        })?;
        let status = response.status();
        let other = || foreign(&format!("it says {status}"));
        let text = response.text();
        if text.starts_with("Cairn ") {
            return Ok(());
        }
        if status == StatusCode::BAD_REQUEST && text.starts_with("this listener speaks TLS") {
            return Err(Greeting::Failed(Failure::unreachable(anyhow!("the node at {url} speaks TLS: use https://"))));
        }
        if status == StatusCode::NOT_FOUND && self.is_admin() {
            let hint = "MCP and REST have an address of their own, 127.0.0.1:7171 unless server.listen says otherwise";
            return Err(Greeting::Failed(Failure::unreachable(anyhow!(
                "{url} is a node's admin address, for /health, /ready and /metrics; {hint}"
            ))));
        }
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        Err(Greeting::Failed(match tool_error(&answer) {
            Some(error) => failure(error),
            None if is_in_between(status) => nobody(),
            None => other(),
        }))
    }

    /// Whether the listener is the one for probes.
    fn is_admin(&self) -> bool {
        let health = self.agent.get(format!("{}/health", self.base)).timeout(PROBE_TIMEOUT);
        let text = health.call().ok().map(|response| response.text());
        text.is_some_and(|text| text.starts_with("ok"))
    }

    /// The same where the node shows a certificate without this address: it cannot know all that lead to it, such as that of a
    /// service in a cluster. Its own authority vouches for it by the name that every node has.
    fn by_own_name(base: &str, address: &Address) -> Option<Self> {
        let listener: SocketAddr = base.strip_prefix("https://")?.parse().ok()?;
        let trust = Trust::node_authority(address.ca.as_deref()?, listener).ok()?;
        let own = Self::new(&format!("https://{LOCAL_NAME}:{}", listener.port()), trust, address.token.clone());
        Some(Self { base_url: base.to_owned(), ..own })
    }

    /// The node that says that it runs on the data directory, if it answers and is the one.
    pub(super) fn running_on(data_dir: &Path, token: Option<&str>) -> Option<Self> {
        let running = RunningNode::read(data_dir)?;
        let token = running.token.or_else(|| token.map(str::to_owned));
        let address = reachable(running.listen);
        let remote = if running.tls {
            let trust = Trust::here(data_dir, address).ok()?;
            let remote = Self::new(&format!("https://{LOCAL_NAME}:{}", address.port()), trust, token);
            Self { base_url: format!("https://{address}"), ..remote }
        } else {
            Self::new(&format!("http://{address}"), Trust::System, token)
        };
        let status = remote.tool(Tool::GetStatus.name()).timeout(PROBE_TIMEOUT);
        let is_here = match remote.answer(status.send_json(&json!({}))) {
            Ok(status) => running.node.is_none_or(|node| status["node"] == node.as_str()),
            // Too busy to say more, so it is alive.
            Err(failure) => {
                failure.error.downcast_ref::<ToolError>().is_some_and(|error| error.code == ErrorCode::Overloaded)
            }
        };
        is_here.then_some(remote)
    }

    /// Where it is, as a URL without a path.
    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    fn authorized<'a>(&self, request: RequestBuilder<'a>) -> RequestBuilder<'a> {
        match &self.token {
            Some(token) => request.bearer(token),
            None => request,
        }
    }

    /// A request to a route.
    fn request<E: Endpoint>(&self, path: &E::Path, query: &E::Query) -> RequestBuilder<'_> {
        self.authorized(self.agent.ask(E::METHOD, &E::url(&self.base, path, query)))
    }

    fn tool(&self, tool: &str) -> RequestBuilder<'_> {
        self.request::<CallTool>(&OfTool { tool: tool.to_owned() }, &Nothing {})
    }

    /// Calls a tool; its structured answer.
    pub(super) fn call(&self, tool: &str, arguments: &Arguments) -> Result<Value, Failure> {
        let request = match Tool::named(tool) {
            Some(Tool::CreateSnapshot | Tool::RestoreSnapshot) => self.tool(tool).timeout(SNAPSHOT_TIMEOUT),
            _ => self.tool(tool),
        };
        self.answer(request.send_json(arguments))
    }

    /// The same for callers that only need the outcome: parsing a search's answer takes longer than the search.
    pub(super) fn call_unread(&self, tool: Tool, arguments: &Arguments) -> Result<(), Failure> {
        let response = self.tool(tool.name()).unread().send_json(arguments).map_err(|error| self.failed(error))?;
        if response.status().is_success() { Ok(()) } else { self.answer(Ok(response)).map(drop) }
    }

    /// The node's status, when it answers within seconds.
    pub(super) fn peek(&self) -> Option<Value> {
        let request = self.tool(Tool::GetStatus.name()).timeout(PROBE_TIMEOUT);
        self.answer(request.send_json(&Map::new())).ok()
    }

    pub(super) fn sync_source(
        &self,
        collection: &str,
        source: &str,
        bytes: &[u8],
        metadata: &Map<String, Value>,
    ) -> Result<Value, Failure> {
        let path = OfSource { collection: collection.to_owned(), source: source.to_owned() };
        let query = SyncQuery { metadata: Some(Value::Object(metadata.clone()).to_string()) };
        let start = Instant::now();
        loop {
            let request = self.request::<SyncSource>(&path, &query);
            let answered = self.answer(request.content_type("application/octet-stream").send(bytes));
            let is_busy = |failure: &Failure| {
                failure.error.downcast_ref::<ToolError>().is_some_and(|error| error.code == ErrorCode::Overloaded)
            };
            match answered {
                Err(failure) if is_busy(&failure) && start.elapsed() < BUSY_PATIENCE => std::thread::sleep(BUSY_PAUSE),
                answered => return answered,
            }
        }
    }

    /// A page of sources; none when there is no such collection.
    pub(super) fn sources(
        &self,
        collection: &str,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<(String, u64)>, Failure> {
        let query = ListQuery { prefix: Some(prefix.to_owned()), after: after.map(str::to_owned), limit: None };
        let request = self.request::<ListSources>(&OfCollection { collection: collection.to_owned() }, &query);
        let listed = match self.answer(request.call()) {
            Ok(listed) => listed,
            Err(failure) if failure.is_not_found() => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        let page: SourcesPage = read(listed)?;
        Ok(page.sources.into_iter().map(|listed| (listed.source, listed.documents)).collect())
    }

    /// The folders of a collection; none when there is no such collection.
    pub(super) fn folders(&self, collection: &str) -> Result<Vec<Folder>, Failure> {
        let request = self.request::<ListFolders>(&OfCollection { collection: collection.to_owned() }, &Nothing {});
        let listed = match self.answer(request.call()) {
            Ok(listed) => listed,
            Err(failure) if failure.is_not_found() => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        let listed: Folders = read(listed)?;
        Ok(listed.folders.into_iter().map(Folder::from).collect())
    }

    pub(super) fn note_folder(&self, collection: &str, folder: &Folder) -> Result<(), Failure> {
        let path = OfFolder { collection: collection.to_owned(), prefix: folder.prefix.clone() };
        match self.answer(self.request::<NoteFolder>(&path, &Nothing {}).send_json(&folder.origin)) {
            // An older node: it does without.
            Err(failure) if failure.is_not_found() => Ok(()),
            noted => noted.map(drop),
        }
    }

    pub(super) fn delete_source(&self, collection: &str, source: &str) -> Result<u64, Failure> {
        let path = OfSource { collection: collection.to_owned(), source: source.to_owned() };
        Ok(self.answer(self.request::<DeleteSource>(&path, &Nothing {}).call())?["deleted"]
            .as_u64()
            .unwrap_or_default())
    }

    pub(super) fn flush(&self) -> Result<(), Failure> {
        self.answer(self.request::<Flush>(&Nothing {}, &Nothing {}).call()).map(drop)
    }

    /// The position of the last write. Waits for another one as long as it is `known`, `wait` at most.
    pub(super) fn changed(&self, known: Option<Lsn>, wait: Duration) -> Result<Lsn, Failure> {
        let query = ChangesQuery { known: known.map(|known| known.0), wait_s: Some(wait.as_secs()) };
        let request = self.request::<GetChanges>(&Nothing {}, &query).timeout(wait + PROBE_TIMEOUT);
        let Flushed { generation } = read(self.answer(request.call())?)?;
        Ok(Lsn(generation))
    }

    /// Has a snapshot proved, the newest when none is named.
    pub(super) fn verify_snapshot(&self, id: Option<&str>) -> Result<Value, Failure> {
        let query = VerifyQuery { id: id.map(str::to_owned) };
        let request = self.request::<VerifySnapshot>(&Nothing {}, &query);
        self.answer(request.timeout(SNAPSHOT_TIMEOUT).call())
    }

    /// The settings and results of snapshots.
    pub(super) fn snapshot_schedule(&self) -> Result<Value, Failure> {
        self.answer(self.request::<SnapshotSchedule>(&Nothing {}, &Nothing {}).call())
    }

    /// Has the snapshots removed that the node's settings do not keep.
    pub(super) fn prune_snapshots(&self, node: Option<&str>, dry_run: bool) -> Result<Value, Failure> {
        let query = PruneQuery { node: node.map(str::to_owned), dry_run };
        let request = self.request::<PruneSnapshots>(&Nothing {}, &query);
        self.answer(request.timeout(SNAPSHOT_TIMEOUT).call())
    }

    fn answer(&self, response: Result<Reply, FetchError>) -> Result<Value, Failure> {
        let response = response.map_err(|error| self.failed(error))?;
        let (status, text) = (response.status(), response.text());
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        match tool_error(&answer) {
            _ if status.is_success() => Ok(answer),
            Some(error) => Err(failure(error)),
            None if is_in_between(status) => {
                let answer = answer.as_str().unwrap_or(status.as_str()).chars().take(200).collect();
                Err(Failure::unreachable(Unavailable { base: self.base_url.clone(), answer }))
            }
            None => Err(anyhow!("the node at {} answered {status}: {answer}", self.base_url).into()),
        }
    }

    fn failed(&self, error: FetchError) -> Failure {
        let base = self.base_url.clone();
        match error {
            // It is there, and may still be at it: not to be asked twice.
            FetchError::Timeout { phase: Phase::Answer | Phase::Body | Phase::Whole, .. } => {
                let minutes = ANSWER_TIMEOUT.as_secs() / 60;
                Failure::unreachable(anyhow!(error).context(format!("no answer from {base} within {minutes} minutes")))
            }
            FetchError::TooLarge { .. } => anyhow!(error).context(format!("the answer of {base} is too long")).into(),
            source => Failure::unreachable(Gone { base, source }),
        }
    }
}

/// Checks that any client that trusts only this authority can reach a node at this address.
///
/// * `resolve`: the address of the host, for a name that only other machines know.
pub(in crate::cli) fn prove(url: &str, ca: Option<&Path>, resolve: Option<IpAddr>) -> Result<(), String> {
    let base = url.trim_end_matches('/').trim_end_matches("/mcp");
    let mut trust = ca.map_or(Ok(Trust::System), Trust::file).map_err(|error| format!("{error:#}"))?;
    if let Some(resolved) = resolve {
        trust = trust.at(SocketAddr::new(resolved, port(base)));
    }
    // A refusal for lack of a token proves that the node answers.
    let answer = Agent::new(trust, PROBE_TIMEOUT, ANSWER_BYTES_MAX).get(base).call();
    answer.map(drop).map_err(|error| refused_certificate(&error).unwrap_or_else(|| error.to_string()))
}

/// Whether this is the answer of a proxy that cannot reach the node.
fn is_in_between(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Why a node was not greeted back.
enum Greeting {
    /// Its certificate is not trusted.
    Distrusted {
        reason: String,
        /// Whether only its authority is not known here.
        is_unknown: bool,
    },
    /// Anything else.
    Failed(Failure),
}

/// The port of a URL without a path.
fn port(base: &str) -> u16 {
    let (scheme, authority) = base.split_once("://").unwrap_or(("http", base));
    let named = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    named.unwrap_or(if scheme == "https" { 443 } else { 80 })
}

/// Why a node's certificate was rejected, if that was the error.
fn refused_certificate(error: &FetchError) -> Option<String> {
    match error {
        FetchError::Certificate { reason, .. } | FetchError::Tls { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

/// The error in an answer, as reported by its origin.
fn tool_error(answer: &Value) -> Option<ToolError> {
    let error: Problem = serde_json::from_value(answer.clone()).ok()?;
    let mut message = error.detail;
    let fault = match error.fault.as_str() {
        "caller" => Fault::Caller,
        "damage" => Fault::Damage,
        _ => Fault::Environment,
    };
    let unknown = if fault == Fault::Caller { ErrorCode::BadArgument } else { ErrorCode::Internal };
    let code = ErrorCode::named(&error.code).unwrap_or(unknown);
    if code == ErrorCode::Unauthorized {
        message.push_str(" (--token or CAIRN_TOKEN)");
    }
    Some(ToolError::new(code, message, fault))
}

/// An address to connect to, for one to listen on: "all of this machine's" means this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// An answer as it was typed.
fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    Ok(serde_json::from_value(answer)
        .context("the node's answer is not the expected one; is it of another version?")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_as_they_were_written() {
        for &code in ErrorCode::ALL {
            for fault in [Fault::Caller, Fault::Environment, Fault::Damage] {
                let error = ToolError::new(code, "words", fault);
                let problem = serde_json::to_value(Problem::new(&error, StatusCode::BAD_REQUEST)).expect("plain data");
                let read = tool_error(&problem).expect("an error");
                assert_eq!((read.code, read.fault), (error.code, error.fault));
                assert!(read.message.starts_with("words"));
            }
        }
        assert_eq!(tool_error(&json!({"results": []})), None);
        assert_eq!(tool_error(&json!("502 Bad Gateway")), None);
        let newer = tool_error(
            &json!({"type": "urn:x", "title": "t", "status": 400, "code": "quota", "detail": "m", "fault": "caller"}),
        );
        assert_eq!(newer, Some(ToolError::bad_argument("m")));
    }

    #[test]
    fn a_node_on_all_addresses_is_reached_on_this_machine() {
        for (listen, expected) in [
            ("0.0.0.0:7171", "127.0.0.1:7171"),
            ("[::]:7171", "[::1]:7171"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("127.0.0.1:7171", "127.0.0.1:7171"),
        ] {
            let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
            assert_eq!(reachable(parse(listen)), parse(expected));
        }
    }
}
