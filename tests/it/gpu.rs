//! The GPU helper: what it computes, what it may do, and that the node lives on without it. On the software rasteriser of Mesa, which
//! `make setup` installs: it counts as a GPU for these tests only.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::left_out::left_out;
use crate::node::{CAIRN, assert_says, cairn, clean, stderr, stdout};
use crate::tls::wait_until;

fn gpu(arguments: &[&str]) -> Output {
    cairn().arg("gpu").args(arguments).output().expect("starts")
}

/// The helper that a process has started, once it has.
pub fn helper_of(process: u32) -> u32 {
    loop {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
        let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
        let mut children = children.flat_map(|ids| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        // Between fork and exec it still has the name of the one that starts it.
        let is_helper = |id: &String| {
            fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe.to_string_lossy().contains("cairn-gpu"))
        };
        if let Some(id) = children.find(is_helper) {
            return id.parse().expect("a number");
        }
    }
}

/// A self-test that takes a while, of which an answer may take a second, with its helper, which has opened its device.
fn long_selftest() -> (Child, u32) {
    let mut command = cairn();
    command.args(["gpu", "selftest", "--software", "--cases", "10000000", "--patience", "1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let helper = helper_of(child.id());
    wait_until("the helper has opened its device", || is_open(helper));
    (child, helper)
}

/// How a self-test ends whose helper gets a signal.
fn signalled(signal: &str) -> (Output, u32) {
    let (child, helper) = long_selftest();
    assert!(Command::new("kill").args([signal, &helper.to_string()]).status().expect("kill is there").success());
    (child.wait_with_output().expect("it ends"), helper)
}

pub fn is_open(helper: u32) -> bool {
    // It forbids new programs once the device is open: the second filter.
    fs::read_to_string(format!("/proc/{helper}/status")).is_ok_and(|status| status.contains("Seccomp_filters:\t2"))
}

#[test]
fn ten_thousand_answers_are_those_of_the_definition() {
    let tested = gpu(&["selftest", "--software", "--cases", "10000", "--json"]);
    assert!(tested.status.success(), "{}{}", stdout(&tested), stderr(&tested));
    let told: Value = serde_json::from_slice(&tested.stdout).expect("JSON");
    assert!(told["questions"].as_u64().is_some_and(|questions| questions >= 10_000), "{told}");
    assert_eq!(told["wrong"], Value::Array(Vec::new()));
}

#[test]
fn a_bench_tells_what_the_device_took() {
    let benched = gpu(&[
        "bench",
        "--software",
        "--rows",
        "1000",
        "--dimensions",
        "64",
        "--batches",
        "1,40",
        "--formats",
        "halves",
        "--json",
    ]);
    assert!(benched.status.success(), "{}", stderr(&benched));
    let told: Value = serde_json::from_slice(&benched.stdout).expect("JSON");
    let rounds = told["rounds"].as_array().expect("a list");
    let of = |round: &Value| (round["what"].as_str().map(str::to_owned), round["batch"].as_u64());
    let expected = [("GPU, halves", 1), ("GPU, halves", 40), ("CPU, one core", 1)];
    assert_eq!(
        rounds.iter().map(of).collect::<Vec<_>>(),
        expected.map(|(what, batch)| (Some(what.into()), Some(batch)))
    );
    for round in &rounds[..2] {
        let took = |key: &str| round[key].as_f64().expect("a number");
        assert!(0.0 < took("device_p50_ms") && took("device_p50_ms") < took("p99_ms"), "{round}");
    }
    assert!(rounds[2]["device_p50_ms"].is_null());
}

#[test]
fn a_rasteriser_is_no_gpu() {
    let listed = gpu(&["list"]);
    assert_eq!(listed.status.code(), Some(1));
    assert_says(&stdout(&listed), &["llvmpipe", "software", "no, slower than the CPU itself"]);
    assert_says(&stderr(&listed), &["Vulkan finds no GPU here", "docs/gpu.md"]);
    let tested = gpu(&["selftest"]);
    assert_eq!(tested.status.code(), Some(1));
    assert_says(&stderr(&tested), &["rasteriser on the CPU (llvmpipe"]);
}

#[test]
fn without_a_driver_there_is_no_gpu() {
    let mut command = cairn();
    let none =
        command.args(["gpu", "list"]).env("VK_DRIVER_FILES", "/nowhere.json").env("VK_ICD_FILENAMES", "/nowhere.json");
    let none = none.output().expect("starts");
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(stdout(&none), "");
    assert_says(&stderr(&none), &["Vulkan finds no GPU here"]);
}

#[test]
fn a_helper_that_dies_is_an_error_and_nothing_more() {
    let (ended, _) = signalled("-9");
    assert_eq!(ended.status.code(), Some(1));
    assert_says(&stderr(&ended), &["the GPU helper ended"]);
}

#[test]
fn a_helper_that_hangs_is_given_up_and_ended() {
    let (ended, helper) = signalled("-STOP");
    assert_eq!(ended.status.code(), Some(1));
    assert_says(&stderr(&ended), &["the GPU helper did not answer in time"]);
    assert!(!fs::exists(format!("/proc/{helper}")).expect("/proc is there"), "nothing is left behind");
}

#[test]
fn a_helper_ends_with_whoever_started_it() {
    let (mut child, helper) = long_selftest();
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    // Gone, or a zombie that nobody has waited for yet.
    let lives = || fs::read_to_string(format!("/proc/{helper}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    wait_until("the helper has ended", || !lives());
}

#[test]
fn a_helper_may_do_little() {
    let (mut child, helper) = long_selftest();
    let status = fs::read_to_string(format!("/proc/{helper}/status")).expect("it runs");
    assert_says(&status, &["NoNewPrivs:\t1", "Seccomp:\t2"]);
    let limits = fs::read_to_string(format!("/proc/{helper}/limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let group = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse::<u32>().ok())
    };
    assert_eq!(group(helper), Some(helper), "a process group of its own");
    let environment = fs::read(format!("/proc/{helper}/environ")).expect("it runs");
    assert!(!String::from_utf8_lossy(&environment).contains("CAIRN_"), "what is the node's own stays there");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn garbage_ends_a_helper() {
    let scratch = tempfile::tempdir().expect("temporary directory");
    let program = scratch.path().join("helper");
    let extracted = gpu(&["extract", program.to_str().expect("UTF-8")]);
    assert!(extracted.status.success(), "{}", stderr(&extracted));
    let header = |version: u16, kind: u16, length: u32| {
        let mut bytes = b"CGPU".to_vec();
        bytes.extend(version.to_le_bytes().into_iter().chain(kind.to_le_bytes()).chain(7u64.to_le_bytes()));
        bytes.extend(length.to_le_bytes());
        bytes
    };
    for (sent, said) in [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "not a message of the helper's protocol"),
        (header(9, 7, 0), "has version 9"),
        (header(2, 7, u32::MAX), "it is too long"),
        (header(2, 99, 0), "there is no such kind"),
        ([header(2, 7, 1), vec![0]].concat(), "bytes too many"),
        (header(2, 5, 0), "it ends too soon"),
    ] {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let mut command = clean(Command::new(&program));
        let mut helper = command.stdin(OwnedFd::from(theirs)).stderr(Stdio::piped()).spawn().expect("starts");
        drop(command);
        ours.write_all(&sent).expect("sent");
        let mut told = String::new();
        helper.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
        assert_says(&told, &[said]);
        assert!(!helper.wait().expect("it ends").success());
    }
}

#[test]
fn an_empty_root_has_no_gpu() {
    if !rustix::process::geteuid().is_root() {
        left_out("an empty root takes root to enter");
        return;
    }
    let root = tempfile::tempdir().expect("temporary directory");
    fs::copy(CAIRN, root.path().join("cairn")).expect("copied");
    let mut command = clean(Command::new("/usr/sbin/chroot"));
    let listed =
        command.arg(root.path()).args(["/cairn", "gpu", "list"]).env_clear().output().expect("chroot is there");
    assert_eq!(listed.status.code(), Some(1));
    assert_says(&stderr(&listed), &["the GPU helper cannot be started", "Vulkan loader"]);
}

#[test]
fn where_memory_is_not_executed_the_helper_is_taken_from_disk() {
    if !rustix::process::geteuid().is_root() {
        left_out("it takes root to forbid that memory is executed");
        return;
    }
    // Both are this test's own: the rule holds for a namespace of process ids, and the folder lies over the machine's.
    let script = "mount -t tmpfs none /usr/libexec && echo 2 >/proc/sys/vm/memfd_noexec || exit 99
                  \"$1\" gpu list; echo; \"$1\" gpu extract && \"$1\" gpu list";
    let mut command = clean(Command::new("unshare"));
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh", CAIRN]);
    let done = command.output().expect("unshare is there");
    if done.status.code() == Some(99) {
        left_out("this kernel has no vm.memfd_noexec");
        return;
    }
    assert_says(&stderr(&done), &["cairn gpu extract"]);
    assert_says(&stdout(&done), &["wrote /usr/libexec/cairn-gpu", "llvmpipe"]);
}
