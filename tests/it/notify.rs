//! What a node tells its service manager, read from the socket that systemd would read.

#![allow(unsafe_code)]

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::node::{agent, cairn, send};

/// How long a message may take to come. None needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service manager's end of the socket.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        Self { directory, socket }
    }

    fn serve(&self, environment: &[(&str, &str)]) -> Child {
        cairn()
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
            .arg(self.data_dir())
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.directory.path().join("log")).expect("a log file"))
            .spawn()
            .expect("the binary starts")
    }

    fn data_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    /// The next message; `None` when none comes in time.
    fn next(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).expect("a timeout");
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).expect("UTF-8"))
    }

    /// The messages up to one that starts with this text.
    fn until(&self, start: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let Some(message) = self.next(PATIENCE) else {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                panic!("no {start} within {PATIENCE:?}, only {heard:?}\n{log}");
            };
            heard.push(message);
            if heard.last().is_some_and(|message| message.starts_with(start)) {
                return heard;
            }
        }
    }
}

fn says(messages: &[String], start: &str) -> bool {
    messages.iter().any(|message| message.starts_with(start))
}

/// Host and port of a status, which names the address of MCP.
fn address(status: &str) -> &str {
    let rest = status.split_once("http://").expect("an address").1;
    rest.split_once("/mcp").expect("the address of MCP").0
}

#[test]
fn ready_is_said_once_requests_are_answered_and_stopping_when_they_no_longer_are() {
    let manager = Manager::new();
    let mut node = manager.serve(&[]);
    let before = manager.until("READY=1");
    assert!(says(&before, "STATUS=Starting"), "{before:?}");
    let status = manager.until("STATUS=Answers MCP at http://").pop().expect("a status");
    TcpStream::connect(address(&status)).expect("READY was said, so the port is open");
    kill_process(Pid::from_child(&node), Signal::TERM).expect("it runs");
    let after = manager.until("STOPPING=1");
    assert!(!says(&after, "READY=1"), "said once: {after:?}");
    assert!(node.wait().expect("it ends").success());
}

#[test]
fn settings_that_are_read_again_are_told_as_a_reload() {
    let manager = Manager::new();
    let mut node = manager.serve(&[]);
    manager.until("STATUS=Answers MCP at http://");
    kill_process(Pid::from_child(&node), Signal::HUP).expect("it runs");
    let heard = manager.until("READY=1");
    assert!(says(&heard, "RELOADING=1\nMONOTONIC_USEC="), "{heard:?}");
    kill_process(Pid::from_child(&node), Signal::TERM).expect("it runs");
    assert!(node.wait().expect("it ends").success());
}

#[test]
fn a_restore_is_told_as_a_reload() {
    let manager = Manager::new();
    let mut node = manager.serve(&[]);
    let status = manager.until("STATUS=Answers MCP at http://").pop().expect("a status");
    let base = format!("http://{}", address(&status));
    let post = |path: &str, body: serde_json::Value| {
        let headers = [("content-type", "application/json")];
        let answer = send(&agent(), "POST", &format!("{base}{path}"), &headers, Some(body.to_string().as_bytes()));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    };
    post("/v1/tools/add_documents", json!({"collection": "notes", "documents": [{"id": "a", "text": "One."}]}));
    let verb = |arguments: &[&str]| {
        let output = crate::node::run_on(&manager.data_dir(), arguments);
        assert!(output.status.success(), "{}", crate::node::stderr(&output));
    };
    verb(&["snapshot", "create"]);
    verb(&["snapshot", "restore", "--yes"]);
    let heard = manager.until("READY=1");
    let reloading = heard.iter().position(|message| message.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(reloading.is_some(), "{heard:?}");
    kill_process(Pid::from_child(&node), Signal::TERM).expect("it runs");
    assert!(node.wait().expect("it ends").success());
}

/// Threads of a process that answer requests: tokio's workers have the name that the program gives them.
pub fn workers(process: u32) -> Vec<i32> {
    let folder = format!("/proc/{process}/task");
    let tasks = fs::read_dir(&folder).expect("it runs").map(|task| task.expect("readable").path());
    let is_worker = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "cairn");
    let number = |task: &Path| task.file_name()?.to_str()?.parse().ok();
    tasks.filter(|task| is_worker(task)).filter_map(|task| number(&task)).collect()
}

/// Halts single threads of a child, as a debugger does, while the others go on. They go on when this is dropped.
pub struct Halted(Vec<i32>);

impl Halted {
    pub fn halt(threads: Vec<i32>) -> Self {
        for &thread in &threads {
            let none = std::ptr::null_mut::<libc::c_void>();
            let mut status = 0;
            // SAFETY: the calls take numbers, null pointers and a pointer to a number that lives through the call.
            let is_halted = unsafe {
                libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) == 0
                    && libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none) == 0
                    && libc::waitpid(thread, &raw mut status, libc::__WALL) == thread
            };
            assert!(is_halted, "thread {thread}: {}", std::io::Error::last_os_error());
        }
        Self(threads)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        for &thread in &self.0 {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: the call takes numbers and null pointers. That it fails says that the thread is gone.
            let _ = unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, none, none) };
        }
    }
}

#[test]
fn the_watchdog_is_fed_only_while_requests_could_be_answered() {
    let manager = Manager::new();
    // Fed every 0.5 s.
    let mut node = manager.serve(&[("WATCHDOG_USEC", "1500000")]);
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    let halted = Halted::halt(workers(node.id()));
    // What was on its way.
    let pause = Duration::from_secs(3);
    let late: Vec<String> = std::iter::from_fn(|| manager.next(pause)).take(10).collect();
    assert!(late.len() < 3, "fed while no thread could answer a request: {late:?}");
    drop(halted);
    manager.until("WATCHDOG=1");
    kill_process(Pid::from_child(&node), Signal::TERM).expect("it runs");
    manager.until("STOPPING=1");
    assert!(node.wait().expect("it ends").success());
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new();
    let mut node = manager.serve(&[("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "1")]);
    manager.until("STATUS=Answers MCP at http://");
    assert_eq!(manager.next(Duration::from_secs(2)), None);
    kill_process(Pid::from_child(&node), Signal::TERM).expect("it runs");
    assert!(node.wait().expect("it ends").success());
}
