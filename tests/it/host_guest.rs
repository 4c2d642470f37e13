//! A machine of its own: a Debian with systemd that qemu runs, made once by `make setup-guest`. With `CAIRN_TEST_GUEST=arm64` it is a board
//! like a Raspberry Pi 5, and the program in it that of `AARCH64_PROGRAM`.
//!
//! It has no network device. Commands go in and results come back through virtio ports, served by `tests/guest/agent`; what the
//! guest writes to its serial console can be waited for while a command runs. Its disk is a fresh overlay over the common image.
//!
//! A power cut is `SIGKILL` to qemu. What the guest had not written to its disk is lost with its memory. What it had written but not
//! flushed is lost where it went to new places of the overlay, whose tables qemu holds in its own memory; the rest of such writes
//! survives in the page cache of the machine that runs the test, which is kinder than some disks. `tests/it/power.rs` is not kind.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use crate::left_out::left_out;
use crate::node::CAIRN;

/// How long a boot may take. It takes 15 s alone on one core with software emulation.
const BOOT: Duration = Duration::from_secs(240);
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(180);
/// How long qemu may take to open its ports.
const START: Duration = Duration::from_secs(30);
/// The guest's memory in MiB.
const MEMORY_MIB: u64 = 768;

/// The guest's memory in bytes.
pub const MEMORY: u64 = MEMORY_MIB << 20;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A guest. It is switched off when dropped.
pub struct Guest {
    directory: TempDir,
    running: Option<Running>,
    console: Vec<String>,
}

struct Running {
    qemu: Child,
    commands: BufReader<UnixStream>,
    files: UnixStream,
    lines: mpsc::Receiver<String>,
    requests: u64,
}

/// Whether the guest is a board, which is emulated on every machine.
pub fn is_board() -> bool {
    std::env::var("CAIRN_TEST_GUEST").is_ok_and(|value| value == "arm64")
}

/// The program that runs in the guest.
pub fn program() -> PathBuf {
    if !is_board() {
        return PathBuf::from(CAIRN);
    }
    std::env::var_os("AARCH64_PROGRAM").map(PathBuf::from).expect("AARCH64_PROGRAM names the program for the guest")
}

fn image(file: &str) -> PathBuf {
    let folder = if is_board() { "target/guest-arm64" } else { "target/guest" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(file)
}

fn emulator() -> &'static str {
    if is_board() { "qemu-system-aarch64" } else { "qemu-system-x86_64" }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

impl Guest {
    /// A guest that has booted, with these files in it; `None`, with a word about it, where there is none to be had.
    ///
    /// # Panics
    /// In CI, where one must be had.
    pub fn start(files: &[(&Path, &str)]) -> Option<Self> {
        let missing = if !image("complete").is_file() {
            Some("`make setup-guest` was not run, or could not make the guest without root")
        } else if !is_on_path(emulator()) || !is_on_path("qemu-img") {
            Some("qemu is not installed")
        } else {
            None
        };
        if let Some(missing) = missing {
            left_out(missing);
            return None;
        }
        let directory = tempfile::tempdir().expect("temporary directory");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([image("disk.raw"), directory.path().join("disk")])
            .status();
        assert!(made.expect("qemu-img runs").success(), "the overlay cannot be made");
        let mut guest = Self { directory, running: None, console: Vec::new() };
        let took = guest.boot();
        eprintln!("the guest booted in {:.1} s ({})", took.as_secs_f64(), accelerator());
        for (from, to) in files {
            guest.put(from, to);
        }
        Some(guest)
    }

    /// Switches it on and waits until systemd has started what belongs to a start. Returns how long that took.
    pub fn boot(&mut self) -> Duration {
        assert!(self.running.is_none(), "it is on");
        let start = Instant::now();
        let port = |name: &str| {
            let path = self.directory.path().join(name);
            // A leftover of the last boot.
            let _ = fs::remove_file(&path);
            UnixListener::bind(path).expect("a socket")
        };
        let (commands, files) = (port("commands"), port("files"));
        let mut qemu = self.command().spawn().expect("qemu starts");
        let (sender, lines) = mpsc::channel();
        let console = BufReader::new(qemu.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in console.split(b'\n').map_while(Result::ok) {
                // An error says that nobody reads any more.
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
            }
        });
        let commands = accept(&commands).unwrap_or_else(|error| panic!("qemu does not come up: {error}"));
        let files = accept(&files).unwrap_or_else(|error| panic!("qemu does not come up: {error}"));
        files.set_write_timeout(Some(COMMAND)).expect("a timeout");
        self.running = Some(Running { qemu, commands: BufReader::new(commands), files, lines, requests: 0 });
        self.answer("booted", BOOT);
        // The exit code tells of units that failed. Not every test is about a host in order.
        self.run("systemctl is-system-running --wait");
        start.elapsed()
    }

    fn command(&self) -> Command {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        // The board's processor is a Raspberry Pi 5's.
        let (machine, processor, console) =
            if is_board() { ("virt", "cortex-a76", "ttyAMA0") } else { ("q35", "max", "ttyS0") };
        let mut qemu = Command::new(emulator());
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", machine])
            .args(["-accel", &accelerator(), "-cpu", processor, "-smp", "2", "-m", &format!("{MEMORY_MIB}M")])
            .args(["-kernel", &image("kernel").display().to_string()])
            .args(["-initrd", &image("initial.gz").display().to_string()])
            .args(["-append", &format!("console={console} root=/dev/vda panic=-1 quiet systemd.show_status=0")])
            .args(["-drive", &format!("file={},if=virtio,format=qcow2,cache=writeback", at("disk"))])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=4"])
            .args(["-chardev", &format!("socket,id=commands,path={}", at("commands"))])
            .args(["-device", "virtserialport,chardev=commands,nr=1"])
            .args(["-chardev", &format!("socket,id=files,path={}", at("files"))])
            .args(["-device", "virtserialport,chardev=files,nr=2"])
            .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        qemu
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it is on")
    }

    /// Sends a request; its number.
    fn request(&mut self, verb: &str, rest: &str) -> String {
        let running = self.running();
        running.requests += 1;
        let id = running.requests.to_string();
        let line = format!("{verb} {id} {rest}\n");
        running.commands.get_mut().write_all(line.as_bytes()).expect("the agent listens");
        id
    }

    /// The answer to a request.
    fn answer(&mut self, id: &str, patience: Duration) -> Output {
        let read = self.try_answer(id, patience);
        read.unwrap_or_else(|error| panic!("no answer of the guest within {patience:?}: {error}\n{}", self.console()))
    }

    fn try_answer(&mut self, id: &str, patience: Duration) -> io::Result<Output> {
        let running = self.running();
        running.commands.get_mut().set_read_timeout(Some(patience))?;
        let mut line = String::new();
        running.commands.read_line(&mut line)?;
        let bad = || io::Error::other(format!("the agent said {line:?}"));
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [said, status, stdout, stderr] = parts[..] else { return Err(bad()) };
        assert_eq!(said, id, "answers come in the order of the requests");
        let text = |field: &str| -> io::Result<String> {
            let bytes = BASE64_STANDARD.decode(field.strip_prefix('.').ok_or_else(bad)?).map_err(io::Error::other)?;
            String::from_utf8(bytes).map_err(io::Error::other)
        };
        Ok(Output { status: status.parse().map_err(io::Error::other)?, stdout: text(stdout)?, stderr: text(stderr)? })
    }

    /// Runs a script of bash as root and waits for its end.
    pub fn run(&mut self, script: &str) -> Output {
        let id = self.request("run", &BASE64_STANDARD.encode(script));
        self.answer(&id, COMMAND)
    }

    /// Runs a script that must succeed; what it printed.
    #[track_caller]
    pub fn must(&mut self, script: &str) -> String {
        let output = self.run(script);
        assert_eq!(output.status, 0, "{script}\n{}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Begins a script whose end nobody waits for: only a power cut ends it.
    pub fn begin(&mut self, script: &str) {
        self.request("run", &BASE64_STANDARD.encode(script));
    }

    /// Waits for lines of the console that begin with this text, and returns what follows it, in order.
    pub fn console_lines(&mut self, start: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + COMMAND;
        let mut found = Vec::new();
        while found.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.running().lines.recv_timeout(left);
            let Ok(line) = line else { panic!("{found:?} of {count} lines {start:?}\n{}", self.console()) };
            found.extend(line.strip_prefix(start).map(str::to_owned));
            self.console.push(line);
        }
        found
    }

    /// Everything that the console said.
    pub fn console(&mut self) -> String {
        if let Some(running) = &self.running {
            self.console.extend(running.lines.try_iter());
        }
        self.console.join("\n")
    }

    /// Copies a file into the guest, readable by all; executable when it is here.
    pub fn put(&mut self, from: &Path, to: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let mut file = File::open(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let meta = file.metadata().expect("readable");
        self.must(&format!("mkdir -p \"$(dirname '{to}')\" && rm -f '{to}'"));
        let id = self.request("put", &format!("{} {}", meta.len(), BASE64_STANDARD.encode(to)));
        let sent = io::copy(&mut file, &mut self.running().files).expect("the agent reads");
        assert_eq!(sent, meta.len(), "the file did not change meanwhile");
        let output = self.answer(&id, COMMAND);
        assert_eq!(output.status, 0, "{to}: {}", output.stderr);
        // What a test copies before it cuts the power was there before it.
        self.must(&format!("chmod {:o} '{to}' && sync", meta.permissions().mode() & 0o777));
    }

    /// Writes a text file into the guest.
    pub fn write(&mut self, path: &str, mode: u32, text: &str) {
        let text = BASE64_STANDARD.encode(text);
        self.must(&format!(
            "mkdir -p \"$(dirname '{path}')\" && base64 -d <<<'{text}' >'{path}' && chmod {mode:o} '{path}'"
        ));
    }

    /// Loses the power: whatever was not on the disk is gone. [`Self::boot`] brings it back.
    pub fn power_cut(&mut self) {
        let mut running = self.running.take().expect("it is on");
        running.qemu.kill().expect("qemu runs");
        running.qemu.wait().expect("it can be waited for");
        // What the console said before is read to its end.
        self.console.extend(running.lines.iter());
    }

    /// Switches it off in order.
    pub fn shutdown(&mut self) {
        let Running { mut qemu, commands, files, lines, .. } = {
            self.request("run", &BASE64_STANDARD.encode("systemctl poweroff"));
            self.running.take().expect("it is on")
        };
        // qemu ends with the machine, and its console with qemu.
        let deadline = Instant::now() + COMMAND;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.console.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = qemu.kill();
                    panic!("the guest did not switch itself off\n{}", self.console());
                }
            }
        }
        drop((commands, files));
        assert!(qemu.wait().expect("it can be waited for").success());
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if self.running.is_some()
                && let Ok(log) = self.last_words()
            {
                eprintln!("the guest's journal:\n{log}");
            }
            eprintln!("the guest's console:\n{}", self.console());
        }
        if let Some(mut running) = self.running.take() {
            // The error is "it has ended": what was wanted.
            let _ = running.qemu.kill();
            let _ = running.qemu.wait();
        }
    }
}

impl Guest {
    /// What the guest has to say after a test failed; an error when it is still busy with something.
    fn last_words(&mut self) -> io::Result<String> {
        let id = self.request("run", &BASE64_STANDARD.encode("journalctl -b --no-pager -n 80; systemctl status cairn"));
        self.try_answer(&id, Duration::from_secs(20)).map(|output| output.stdout)
    }
}

/// What runs the guest: `make setup-guest` found out whether this machine's hardware acceleration works, not only exists.
fn accelerator() -> String {
    let found = fs::read_to_string(image("accelerator")).unwrap_or_default();
    if found.trim().is_empty() { "tcg".to_owned() } else { found.trim().to_owned() }
}

/// The next connection.
///
/// # Errors
/// When none comes in time.
fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let mut waited = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let patience = i32::try_from(START.as_millis()).expect("half a minute");
    // SAFETY: the pointer is to one structure, which lives through the call.
    match unsafe { libc::poll(&raw mut waited, 1, patience) } {
        1 => listener.accept().map(|(stream, _)| stream),
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
