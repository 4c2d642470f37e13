//! A containerd under test, with a root, a state and a socket of its own, and containers that it runs with runc.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::left_out::left_out;
use crate::node::{Answer, agent, modern_request, send, stderr};

/// Where Kubernetes keeps its images and containers.
const NAMESPACE: &str = "k8s.io";
/// What ctr gives a container unless told otherwise: all of it is taken away, as Kubernetes' `drop: [ALL]` does.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A running containerd. It ends when dropped.
pub struct Containerd {
    folder: TempDir,
    process: Child,
    snapshotter: &'static str,
}

impl Containerd {
    /// Starts one; `None` for anybody but root.
    pub fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            left_out("containers are run by containerd and runc, which takes root");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("socket")
        );
        fs::write(path("config.toml"), config).expect("written");
        let mut process = Command::new("containerd")
            .arg("--config")
            .arg(path("config.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("containerd is missing, run make setup-test: {error}"));
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let mut said = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("containerd ended: {said:#?}")).expect("text");
            let is_up = line.contains("containerd successfully booted");
            said.push(line);
            if is_up {
                break;
            }
        }
        // Or it would block once the pipe is full; the thread ends with it.
        std::thread::spawn(move || lines.for_each(drop));
        let mut containerd = Self { folder, process, snapshotter: "overlayfs" };
        // Within a container the kernel may not allow overlays on overlays.
        let plugins = containerd.ctr(&["plugins", "ls"]);
        if !plugins.lines().any(|line| line.contains(" overlayfs ") && line.trim_end().ends_with("ok")) {
            containerd.snapshotter = "native";
        }
        Some(containerd)
    }

    /// A folder for a test's own files, removed at the end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.folder.path().join("socket"))
            .args(["--namespace", NAMESPACE])
            .args(arguments);
        command.env("CONTAINERD_SNAPSHOTTER", self.snapshotter).stdin(Stdio::null());
        command
    }

    /// Runs ctr, which must succeed; what it printed.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("ctr comes with containerd");
        assert!(output.status.success(), "ctr {arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs a verb of the program in an image as Kubernetes would: a read-only root, no capability, the default filter of system calls.
    pub fn once(&self, image: &str, name: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(&["run", "--rm", "--read-only", "--seccomp"]);
        for capability in CAPABILITIES {
            command.args(["--cap-drop", capability]);
        }
        command.args([image, name, "/cairn"]).args(arguments).output().expect("ctr comes with containerd")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The error is "it has ended": what was wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A container with a node in it, in the network of this machine. It ends when dropped.
pub struct Container<'a> {
    containerd: &'a Containerd,
    name: &'static str,
    process: Child,
    _stdout: BufReader<ChildStdout>,
    log: PathBuf,
    pid: String,
    mcp: String,
    admin: String,
}

impl<'a> Container<'a> {
    /// Runs an image as Kubernetes would: nothing is writable but the data, and no capability is left.
    pub fn run(containerd: &'a Containerd, image: &str, name: &'static str, data: &Path) -> Self {
        let (log, pid_file) =
            (containerd.folder().join(format!("{name}.log")), containerd.folder().join(format!("{name}.pid")));
        let mount = format!("type=bind,src={},dst=/var/lib/cairn,options=rbind:rw", data.display());
        let mut command = containerd.command(&["run", "--rm", "--read-only", "--net-host", "--mount", &mount]);
        command.arg("--pid-file").arg(&pid_file);
        for capability in CAPABILITIES {
            command.args(["--cap-drop", capability]);
        }
        // Free ports, and the line that tells them. Without arguments, so that it is the image that says what runs.
        for variable in ["CAIRN_SERVER_LISTEN=127.0.0.1:0", "CAIRN_ADMIN_LISTEN=127.0.0.1:0", "CAIRN_JSON=true"] {
            command.args(["--env", variable]);
        }
        command.args([image, name]);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("ctr comes with containerd");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the line that tells the addresses");
        let line: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in {line:?}: {}", fs::read_to_string(&log).unwrap_or_default()));
        let text = |name: &str| line[name].as_str().expect("an address").to_owned();
        let pid = fs::read_to_string(pid_file).expect("ctr writes it before the start");
        Self { containerd, name, process, _stdout: stdout, log, pid, mcp: text("mcp"), admin: text("admin") }
    }

    /// GETs a route of the admin listener.
    pub fn get(&self, route: &str) -> Answer {
        send(&agent(), "GET", &format!("{}{route}", self.admin.trim_end_matches('/')), &[], None)
    }

    /// Calls a tool over MCP.
    pub fn call(&self, tool: &str, arguments: Value) -> Value {
        let (headers, body) = modern_request("tools/call", json!({"name": tool, "arguments": arguments}));
        let mut all = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
        let result = send(&agent(), "POST", &self.mcp, &all, Some(body.to_string().as_bytes())).result();
        assert_ne!(result["isError"], true, "{result}");
        match &result["structuredContent"] {
            Value::Null => serde_json::from_str(result["content"][0]["text"].as_str().expect("text")).expect("JSON"),
            structured => structured.clone(),
        }
    }

    /// What the kernel says of its process, by field.
    pub fn status(&self) -> impl Fn(&str) -> String + use<> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        move |field| {
            let prefix = format!("{field}:\t");
            let line = status.lines().find_map(|line| line.strip_prefix(&prefix));
            line.unwrap_or_else(|| panic!("no {field}")).to_owned()
        }
    }

    /// Whether its `/` is mounted read-only.
    pub fn root_is_read_only(&self) -> bool {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.pid)).expect("it runs");
        let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("it has a root");
        root.split(' ').nth(3).is_some_and(|options| options.split(',').any(|option| option == "ro"))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("readable")
    }

    /// Asks it to stop, as Kubernetes does, and waits; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.containerd.ctr(&["tasks", "kill", "--signal", "SIGTERM", self.name]);
        self.process.wait().expect("it can be waited for").code()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Does nothing once it has stopped.
        let _ = self.containerd.command(&["tasks", "kill", "--signal", "SIGKILL", self.name]).output();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.name, fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}
