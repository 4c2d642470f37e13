//! A node under test: the real binary on free ports, with a data directory of its own, and the clients that talk to it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The protocol without sessions, which says everything in every request.
pub const MODERN: &str = "2026-07-28";
/// The newest protocol that begins with `initialize`.
pub const LEGACY: &str = "2025-11-25";

/// The binary under test.
pub const CAIRN: &str = env!("CARGO_BIN_EXE_cairn");

/// A command that runs the binary without the caller's own settings; where `CAIRN_TEST_PROGRAM` names another one, that: the program for
/// another processor with its emulator.
pub fn cairn() -> Command {
    clean(Command::new(program()))
}

fn program() -> OsString {
    std::env::var_os("CAIRN_TEST_PROGRAM").unwrap_or_else(|| CAIRN.into())
}

/// Takes Cairn's variables out of a command's environment.
pub fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CAIRN_") {
            command.env_remove(name);
        }
    }
    command
}

/// How a node is started.
struct Settings {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// How many files it may have open; `None` for as many as the test.
    files: Option<u64>,
}

/// What a node that only this machine reaches is started with.
const LOOPBACK: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// A running node. It is killed when dropped.
pub struct TestNode {
    directory: TempDir,
    settings: Settings,
    process: Child,
    // Held so that the node never writes into a closed pipe.
    _stdout: BufReader<ChildStdout>,
    /// Address of MCP, `http://127.0.0.1:…/mcp`.
    pub mcp: String,
    /// Address of the admin listener.
    pub admin: String,
    /// The token that its line showed.
    pub token: Option<String>,
    /// The authority that its line named.
    pub authority: Option<PathBuf>,
    agent: ureq::Agent,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON; of an event stream, the last message.
    pub fn json(&self) -> Value {
        self.messages().pop().unwrap_or_default()
    }

    /// Every message of the body: one of a JSON body, any number of an event stream.
    pub fn messages(&self) -> Vec<Value> {
        let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
        if self.header("content-type").starts_with("text/event-stream") {
            let data = self.text.lines().filter_map(|line| line.strip_prefix("data:"));
            return data.map(str::trim).filter(|data| !data.is_empty()).map(parse).collect();
        }
        if self.text.is_empty() { Vec::new() } else { vec![parse(&self.text)] }
    }

    /// A header; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The result of a JSON-RPC answer.
    pub fn result(&self) -> Value {
        let mut answer = self.json();
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].take()
    }
}

/// A client that shows every status as an answer, goes through no proxy and keeps no connection: a node that refuses a
/// request before it has read the body closes the connection, and the next request must not meet that.
pub fn agent() -> ureq::Agent {
    agent_trusting(ureq::tls::RootCerts::WebPki)
}

/// The same, with these authorities for addresses that begin with `https://`.
pub fn agent_trusting(roots: ureq::tls::RootCerts) -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).max_idle_connections(0);
    config.tls_config(tls).build().new_agent()
}

/// The authority in a file.
pub fn authority(path: &Path) -> ureq::tls::RootCerts {
    let pem = fs::read(path).expect("an authority");
    [ureq::tls::Certificate::from_pem(&pem).expect("a certificate")].into_iter().into()
}

/// The address that a node's line names, for a client on this machine.
pub fn reachable(url: &str) -> String {
    url.replace("//0.0.0.0:", "//127.0.0.1:")
}

impl TestNode {
    /// Starts a node with the settings it is shipped with.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a node with environment variables.
    pub fn with(environment: &[(&str, &str)]) -> Self {
        Self::with_arguments(&LOOPBACK, environment)
    }

    /// Starts a node with arguments for `cairn serve` and environment variables.
    pub fn with_arguments(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::inside(tempfile::tempdir().expect("temporary directory"), arguments, environment, None)
    }

    /// Starts a node that may have so many files open, and no more.
    pub fn with_files(files: u64, environment: &[(&str, &str)]) -> Self {
        Self::inside(tempfile::tempdir().expect("temporary directory"), &LOOPBACK, environment, Some(files))
    }

    /// Starts a node on a data directory that `prepare` fills.
    pub fn on(prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        prepare(&data_dir(directory.path()));
        Self::inside(directory, &LOOPBACK, &[], None)
    }

    fn inside(directory: TempDir, arguments: &[&str], environment: &[(&str, &str)], files: Option<u64>) -> Self {
        let settings = Settings {
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            files,
        };
        let (process, stdout, line) = spawn(directory.path(), &settings);
        let mut node = Self {
            directory,
            settings,
            process,
            _stdout: stdout,
            mcp: String::new(),
            admin: String::new(),
            token: None,
            authority: None,
            agent: agent(),
        };
        node.read_line(&line);
        node
    }

    fn read_line(&mut self, line: &Value) {
        assert_eq!(line["pid"], self.process.id());
        self.mcp = reachable(line["mcp"].as_str().expect("an address"));
        self.admin = reachable(line["admin"].as_str().expect("an address"));
        self.token = line["token"].as_str().map(str::to_owned);
        self.authority = line["authority"].as_str().map(PathBuf::from);
        if let Some(path) = &self.authority {
            self.agent = agent_trusting(authority(path));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.directory.path())
    }

    /// A folder for a test's own files, removed with the node.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// Address of the routes beside `/mcp`.
    pub fn base(&self) -> &str {
        self.mcp.strip_suffix("/mcp").expect("MCP is served at /mcp")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Ends it without warning, as a power cut ends a process.
    pub fn kill(&mut self) {
        // The error is "it has ended": what was wanted.
        let _ = self.process.kill();
        self.process.wait().expect("it can be waited for");
    }

    /// Asks it to stop, without waiting.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("it runs");
    }

    /// Waits for it to end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().expect("it can be waited for")
    }

    /// Asks it to stop and waits until it has, without an error.
    pub fn stop(&mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Starts it again on the same data, after [`Self::kill`] or [`Self::stop`].
    pub fn restart(&mut self) {
        let (process, stdout, line) = spawn(self.directory.path(), &self.settings);
        self.process = process;
        self._stdout = stdout;
        self.read_line(&line);
    }

    /// Starts it again with other arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.settings.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.restart();
    }

    /// A request of any kind to an address; `None` sends no body.
    pub fn request(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        send(&self.agent, method, url, headers, body)
    }

    /// GETs an address.
    pub fn get(&self, url: &str) -> Answer {
        self.request("GET", url, &[], None)
    }

    /// The value of a metric that has no labels.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get(&format!("{}/metrics", self.admin)).text;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().unwrap_or_else(|error| panic!("{name} {value}: {error}"))
    }

    /// POSTs JSON text to MCP with these headers besides the media types.
    pub fn post(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        all.extend_from_slice(headers);
        self.request("POST", &self.mcp, &all, Some(body.as_bytes()))
    }

    /// A request of the era without sessions, with the headers and fields that it demands.
    pub fn modern(&self, method: &str, params: Value) -> Answer {
        let (headers, body) = modern_request(method, params);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.post(&headers, &body.to_string())
    }

    /// A request of the era that begins with `initialize`.
    pub fn legacy(&self, method: &str, params: Value) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.post(&[("mcp-protocol-version", LEGACY)], &body.to_string())
    }

    /// Calls a tool; the words of the refusal when it refuses.
    pub fn try_call(&self, tool: &str, arguments: Value) -> Result<Value, String> {
        let result = self.modern("tools/call", json!({"name": tool, "arguments": &arguments})).result();
        if result["isError"] == true {
            return Err(result["content"][0]["text"].as_str().expect("words").to_owned());
        }
        let text = result["content"][0]["text"].as_str().expect("text for clients that read nothing else");
        let same: Value = serde_json::from_str(text).expect("the same as JSON text");
        let structured = &result["structuredContent"];
        let asked = list(arguments.get("include").unwrap_or(&json!([]))).contains(&json!("structured"));
        // What brings texts comes once, as text, unless it was asked for both.
        if TOOLS_IN_TEXT.contains(&tool) && !asked {
            assert!(structured.is_null(), "{tool}: {result}");
        } else {
            assert_eq!(same, *structured);
        }
        Ok(same)
    }

    /// Calls a tool that must do what it is asked.
    pub fn call(&self, tool: &str, arguments: Value) -> Value {
        self.try_call(tool, arguments.clone()).unwrap_or_else(|words| panic!("{tool} {arguments}: {words}"))
    }

    /// Calls a tool that must refuse; its words.
    pub fn refusal(&self, tool: &str, arguments: Value) -> String {
        match self.try_call(tool, arguments.clone()) {
            Ok(answer) => panic!("{tool} {arguments} was expected to be refused, answered {answer}"),
            Err(words) => words,
        }
    }

    /// Writes documents that must all be taken.
    pub fn add(&self, collection: &str, documents: Value) -> Value {
        let answer = self.call("add_documents", json!({"collection": collection, "documents": documents}));
        for document in outcomes(&answer) {
            assert_ne!(document["status"], "failed", "{answer}");
        }
        answer
    }

    /// Waits until the views have followed the log to its end, which a start does not wait for: a write is answered once it
    /// can be found, and what was logged before it can be found before it.
    pub fn catch_up(&self) {
        let lsn = self.call("get_status", json!({}))["lsn"].clone();
        self.add("catch-up", json!([{"id": "last", "text": format!("The log was at {lsn}.")}]));
    }

    /// Ids of what a search finds within one collection, each document once, best first.
    pub fn found(&self, collection: &str, query: &str, mode: &str) -> Vec<String> {
        let asked =
            json!({"query": query, "collections": [collection], "mode": mode, "limit": 8, "include": ["searched"]});
        let answer = self.call("search", asked);
        assert_eq!(answer["searched"]["mode_used"], mode, "{answer}");
        documents(&answer)
    }

    /// Runs a verb of the command line on the node's data directory.
    pub fn cairn<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        run_on(&self.data_dir(), arguments)
    }

    /// Runs a verb that must succeed; its JSON.
    pub fn cairn_json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        json_of(&self.cairn(arguments))
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the node's log:\n{}", self.log());
        }
    }
}

fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn spawn(directory: &Path, settings: &Settings) -> (Child, BufReader<ChildStdout>, Value) {
    let log = File::options().create(true).append(true).open(directory.join("log")).expect("a log file");
    let mut command = match settings.files {
        None => cairn(),
        Some(files) => {
            let mut command = clean(Command::new("sh"));
            command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]).arg(program());
            command
        }
    };
    let mut process = command
        .args(["--json", "serve", "--data-dir"])
        .arg(data_dir(directory))
        .args(&settings.arguments)
        .envs(settings.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the binary starts");
    let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the line that tells the addresses");
    if line.is_empty() {
        let status = process.wait().expect("it can be waited for");
        let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
        panic!("the node ended before it was ready: {status}\n{log}");
    }
    let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    (process, stdout, line)
}

/// Headers and body of a request of the era without sessions.
pub fn modern_request(method: &str, mut params: Value) -> (Vec<(&'static str, String)>, Value) {
    let mut headers = vec![("mcp-protocol-version", MODERN.to_owned()), ("mcp-method", method.to_owned())];
    let name = match method {
        "tools/call" | "prompts/get" => params["name"].as_str(),
        "resources/read" => params["uri"].as_str(),
        _ => None,
    };
    headers.extend(name.map(|name| ("mcp-name", name.to_owned())));
    for (key, value) in modern_meta().as_object().expect("an object") {
        params["_meta"][key] = value.clone();
    }
    (headers, json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
}

/// What every request of the era without sessions says about its sender.
pub fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// Sends a request; every status is an answer.
pub fn send(agent: &ureq::Agent, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = match body {
        Some(body) => agent.run(request.body(body).expect("a request")),
        None => agent.run(request.body(()).expect("a request")),
    };
    let mut response = response.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).expect("a whole body in UTF-8");
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), text }
}

/// Runs a verb of the command line on a data directory.
pub fn run_on<S: AsRef<OsStr>>(data_dir: &Path, arguments: &[S]) -> Output {
    cairn().env("CAIRN_DATA_DIR", data_dir).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

/// The JSON of a verb that succeeded.
pub fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}: {}", output.status, stderr(output));
    let text = stdout(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The elements of a list that must be there.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("expected a list, found {value}"))
}

/// What became of each document of a write, in the order they were given.
pub fn outcomes(answer: &Value) -> &[Value] {
    list(&answer["documents"])
}

/// The values of one text field, in order.
pub fn texts(values: &Value, field: &str) -> Vec<String> {
    let text = |value: &Value| value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned();
    list(values).iter().map(text).collect()
}

/// Tools whose answers have no structured content.
const TOOLS_IN_TEXT: [&str; 4] = ["search", "fetch", "find_similar", "list_documents"];

/// The document of each result of a search, best first: the id without collection and passage.
pub fn hits(answer: &Value) -> Vec<String> {
    let document = |id: &String| {
        let (_, rest) = id.split_once('/').unwrap_or_else(|| panic!("no collection in {id}"));
        rest.rsplit_once('#').unwrap_or_else(|| panic!("no passage in {id}")).0.to_owned()
    };
    texts(&answer["results"], "id").iter().map(document).collect()
}

/// The documents of a search's results, each once, best first.
pub fn documents(answer: &Value) -> Vec<String> {
    let mut ids = hits(answer);
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    ids
}

/// Asserts that a text names each of these.
#[track_caller]
pub fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "expected {word:?} in: {text}");
    }
}
