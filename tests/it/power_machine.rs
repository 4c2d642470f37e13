//! A machine that can lose its power: a disk of [`crate::power_disk`], and the real binary on it.
//!
//! The binary tells a crash of the process from one of the machine by `/proc/sys/kernel/random/boot_id`, which stays the
//! same here however often a test cuts the power. So the test's thread takes a mount namespace of its own and binds a file
//! over that path: processes that it starts read the boot id that the test wrote, whatever way the binary reads it, and
//! nothing of it is seen outside. The disk is mounted in the same namespace, so that it cannot outlive the test.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::left_out::left_out;
use crate::node::{authority, cairn, reachable};
use crate::power_disk::Disk;
use crate::power_tree::{Random, Tree};

/// Whether a node's log tells of a panic. It takes more than the word, which tantivy says of a thread that met an error. One of
/// sled's does not count: it has no other way to say that a file cannot be written, the store catches it, and the catalog
/// is built anew at the next start.
pub fn tells_of_a_panic(log: &str) -> bool {
    log.lines().any(|line| line.contains("panicked at") && !line.contains("/sled-"))
}

/// How long a node may take to start, to answer or to stop. None needs a tenth of it, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A free port that only this machine reaches.
pub const LOOPBACK: &str = "127.0.0.1:0";

/// A machine, switched on.
pub struct Machine {
    /// Before the directory that it is mounted in, so that it goes first.
    disk: Option<Disk>,
    directory: TempDir,
    boots: u64,
    starts: u64,
}

impl Machine {
    /// A machine with an empty disk; `None`, with a word about it, for a user who may not mount.
    ///
    /// # Panics
    /// When root cannot mount: then the tests that need this would pass without testing anything.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            left_out("cutting the power takes a mounted file system, and that takes root");
            return None;
        }
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(directory.path().join("disk")).expect("created");
        private_mounts().expect("root takes a mount namespace of its own");
        let mut machine = Self { disk: None, directory, boots: 0, starts: 0 };
        machine.boot();
        bind(&machine.boot_id(), Path::new("/proc/sys/kernel/random/boot_id")).expect("root binds a file over another");
        machine.insert(Tree::new());
        Some(machine)
    }

    fn boot_id(&self) -> PathBuf {
        self.directory.path().join("boot_id")
    }

    fn boot(&mut self) {
        self.boots += 1;
        // The file stays the same, as it is bound.
        fs::write(self.boot_id(), format!("00000000-0000-4000-8000-{:012}\n", self.boots)).expect("written");
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("always there but while it is changed")
    }

    fn insert(&mut self, tree: Tree) {
        let disk = Disk::mount(tree, &self.directory.path().join("disk"));
        let hint = "FUSE is missing: the tests that cut the power need /dev/fuse and a kernel with FUSE";
        self.disk = Some(disk.unwrap_or_else(|error| panic!("{hint}: {error}")));
    }

    /// Takes the disk out. No node may run.
    pub fn take(&mut self) -> Tree {
        self.disk.take().expect("always there but while it is changed").unmount()
    }

    /// Loses the power and gets it back. No node may run any more.
    pub fn lose_power(&mut self, random: &mut Random) {
        let tree = self.take().survive(random);
        self.boot();
        self.insert(tree);
    }

    /// Puts another disk in.
    pub fn change_disk(&mut self, tree: Tree) {
        drop(self.take());
        self.boot();
        self.insert(tree);
    }

    /// Mounts the disk anew as it is seen, unsynced parts included, and healthy.
    pub fn repair(&mut self) {
        let tree = self.take();
        self.insert(tree);
    }

    /// What the last node wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join(format!("log-{}", self.starts))
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("disk/data")
    }

    /// Starts a node.
    ///
    /// # Errors
    /// What there is to say of one that ended, or did not answer in time.
    pub fn start(&mut self) -> Result<Node, String> {
        let _ = fs::remove_file(self.log_path());
        self.starts += 1;
        Node::start(&self.data_dir(), &self.log_path(), LOOPBACK)
    }
}

/// Mounts made by this thread, and by what it starts, are seen nowhere else.
fn private_mounts() -> std::io::Result<()> {
    // SAFETY: both calls take plain numbers and strings that end in a zero.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn bind(file: &Path, over: &Path) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let text = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no zero in a path");
    let (file, over) = (text(file), text(over));
    // SAFETY: the strings live through the call and end in a zero; the other pointers may be null.
    let failed =
        unsafe { libc::mount(file.as_ptr(), over.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null()) };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A node on such a machine. It is killed when dropped.
pub struct Node {
    process: Child,
    /// Tells when the node has ended, as its standard output ends then.
    ended: mpsc::Receiver<String>,
    pub client: Client,
}

impl Node {
    /// Starts a node on a data directory; what it logs goes into a file of its own.
    ///
    /// # Errors
    /// What there is to say of one that ended, or did not answer in time.
    pub fn start(data_dir: &Path, log: &Path, listen: &str) -> Result<Self, String> {
        // What a node leaves behind becomes this process's, see `wait_for_orphans`.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("Linux has them");
        let mut process = cairn()
            .args(["--json", "serve", "--listen", listen, "--admin", LOOPBACK, "--data-dir"])
            .arg(data_dir)
            // Small segments, so that their ends are met often.
            .env("CAIRN_STORE_SEGMENT_BYTES", "1MiB")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log).expect("a log file"))
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // An error is an end too.
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            let _ = stdout.read_to_string(&mut String::new());
        });
        let line = ended.recv_timeout(PATIENCE);
        let said = || fs::read_to_string(log).unwrap_or_default();
        match line {
            Ok(line) if !line.is_empty() => {
                let line: Value = match serde_json::from_str(&line) {
                    Ok(line) => line,
                    Err(error) => {
                        let _ = process.kill();
                        let _ = process.wait();
                        return Err(format!("{error} in {line:?}"));
                    }
                };
                if let Some(error) = line["error"]["message"].as_str() {
                    let status = process.wait().expect("it can be waited for");
                    return Err(format!("the node ended before it was ready: {status}: {error}\n{}", said()));
                }
                let url = line["mcp"].as_str().and_then(|url| url.strip_suffix("/mcp")).expect("a URL");
                let client = Client::new(&reachable(url), line["authority"].as_str().map(Path::new));
                Ok(Self { process, ended, client })
            }
            Ok(_) => {
                let status = process.wait().expect("it can be waited for");
                Err(format!("the node ended before it was ready: {status}\n{}", said()))
            }
            Err(_) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(format!("the node did not start within {PATIENCE:?}\n{}", said()))
            }
        }
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // The error is "it has ended": what was wanted.
        let _ = self.process.kill();
        self.process.wait().expect("it can be waited for");
        wait_for_orphans();
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub fn stop(mut self) -> Result<ExitStatus, String> {
        self.terminate();
        match self.ended.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(self.process.wait().expect("it can be waited for")),
            _ => Err(format!("the node did not stop within {PATIENCE:?}")),
        }
    }
}

/// Waits for what a killed node was just starting: until it has become the other program it has the node's files open. It ends by
/// itself, as nobody wants anything of it.
fn wait_for_orphans() {
    let threads = fs::read_dir("/proc/self/task").expect("a list of threads").flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>());
    for pid in pids.filter_map(Pid::from_raw) {
        // Another thread may have been quicker.
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub enum Trouble {
    /// There was no whole answer.
    Broken(String),
    /// The node refused it.
    Refused(String),
}

impl Trouble {
    pub fn words(self) -> String {
        match self {
            Self::Broken(words) => format!("no answer: {words}"),
            Self::Refused(words) => format!("refused: {words}"),
        }
    }
}

/// Whoever talks to a node. Its connections are kept, which the load of a test is too high to go without.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    fn new(base: &str, trusted: Option<&Path>) -> Self {
        let roots = trusted.map_or(ureq::tls::RootCerts::WebPki, authority);
        let agent = ureq::Agent::config_builder()
            .tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build())
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self { agent, base: base.to_owned() }
    }

    fn post(&self, path: &str, body: &str) -> Result<Value, Trouble> {
        let broken = |error: &dyn std::fmt::Display| Trouble::Broken(error.to_string());
        let request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        let mut answer = request.send(body).map_err(|error| broken(&error))?;
        let mut text = String::new();
        answer.body_mut().as_reader().read_to_string(&mut text).map_err(|error| broken(&error))?;
        if !answer.status().is_success() {
            return Err(Trouble::Refused(text));
        }
        serde_json::from_str(&text).map_err(|error| broken(&error))
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn call(&self, tool: &str, arguments: &Value) -> Result<Value, Trouble> {
        self.post(&format!("/v1/tools/{tool}"), &arguments.to_string())
    }

    /// Calls a tool that must answer.
    ///
    /// # Errors
    /// The words of the trouble.
    pub fn ask(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        self.call(tool, arguments).map_err(|trouble| format!("{tool} {arguments}: {}", trouble.words()))
    }

    /// Has the log compacted now.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn compact(&self) -> Result<Value, Trouble> {
        self.post("/v1/compact", "")
    }

    /// Waits until all that was written can be found.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn flush(&self) -> Result<Value, Trouble> {
        self.post("/v1/flush", &json!({}).to_string())
    }
}
