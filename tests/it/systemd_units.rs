//! The files under `systemd/`: systemd's own tools read them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cairn::base::ByteSize;
use cairn::deploy::systemd::{self, Machine};
use tempfile::TempDir;

use crate::left_out::left_out;
use crate::node::{TestNode, stderr, stdout};

const FOLDER: &str = "/usr/local/lib/cairn";
const CURRENT: &str = "/usr/local/lib/cairn/current";

/// Highest exposure that is let through, in tenths: 2.0 of 10.
const EXPOSURE_MAX: &str = "20";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs what the tests need"))
}

/// What an installation writes, below a folder of its own; the program is a file that can be executed.
fn staged(gpu: bool) -> TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    let inside = |path: &Path| directory.path().join(path.strip_prefix("/").expect("absolute"));
    let write = |path: &Path, mode: u32, bytes: &[u8]| {
        let path = inside(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(&path, bytes).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
    };
    for file in systemd::files(Machine { current: Path::new(CURRENT), memory: ByteSize(4 << 30), gpu }) {
        write(&file.path, file.mode, &file.bytes);
    }
    let release = Path::new(FOLDER).join("0.0.0-00000000");
    write(&release.join("cairn"), 0o755, b"#!/bin/true\n");
    symlink(release, inside(Path::new(CURRENT))).expect("linked");
    directory
}

fn unit(staged: &TempDir) -> String {
    let path = staged.path().join("etc/systemd/system/cairn.service");
    path.to_str().expect("UTF-8").to_owned()
}

/// Exposure of the installed unit as systemd rates it, with its drop-ins.
fn exposure(gpu: bool) -> f64 {
    let staged = staged(gpu);
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let output = run("systemd-analyze", &["security", "--offline=true", "--no-pager", &threshold, &unit(&staged)]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    assert_eq!(stderr(&output), "", "every line is understood");
    let line = text.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
    line.split_whitespace().find_map(|word| word.parse().ok()).expect("a figure")
}

#[test]
fn the_unit_is_hardened() {
    let (cpu, gpu) = (exposure(false), exposure(true));
    eprintln!("exposure: {cpu}, with the GPU's drop-in {gpu}");
    // What systemd 252 says, measured. Newer versions may add lines; the gate is EXPOSURE_MAX.
    assert!(cpu < gpu, "the GPU is an exception, not the rule");
}

#[test]
fn the_unit_is_understood_as_a_whole() {
    for gpu in [false, true] {
        let staged = staged(gpu);
        let root = staged.path().to_str().expect("UTF-8").to_owned();
        // The machine's shell, which reloads; all else that the unit names is installed.
        fs::create_dir_all(staged.path().join("bin")).expect("made");
        fs::copy("/bin/sh", staged.path().join("bin/sh")).expect("every machine has a shell");
        let output =
            run("systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", "--root", &root, "cairn.service"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn the_user_and_the_folders_are_made() {
    let staged = staged(false);
    let root = format!("--root={}", staged.path().display());
    let output = run("systemd-sysusers", &[&root]);
    assert!(output.status.success(), "{}", stderr(&output));
    let read = |path: &str| fs::read_to_string(staged.path().join(path)).expect("made");
    let (users, groups) = (read("etc/passwd"), read("etc/group"));
    let cairn = users.lines().find(|line| line.starts_with("cairn:")).expect("the user");
    assert!(cairn.ends_with(":/var/lib/cairn:/usr/sbin/nologin"), "{cairn}");
    assert!(groups.lines().any(|line| line.starts_with("cairn:")), "{groups}");
    if !rustix::process::geteuid().is_root() {
        left_out("giving folders to another user takes root");
        return;
    }
    let output = run("systemd-tmpfiles", &[&root, "--create"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let uid: u32 = cairn.split(':').nth(2).and_then(|id| id.parse().ok()).expect("a number");
    for (path, mode, owner) in
        [("etc/cairn", 0o755, 0), ("var/lib/cairn", 0o700, uid), ("var/lib/cairn-snapshots", 0o700, uid)]
    {
        let meta = fs::metadata(staged.path().join(path)).expect("made");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (mode, owner), "{path}");
    }
}

/// Where the installer made no token systemd hands the node a blank one. Taken for a token, it would leave a node that answers nobody.
#[test]
fn a_node_that_is_handed_a_blank_token_makes_one() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let credential = directory.path().join("token");
    fs::write(&credential, "\n").expect("written");
    let file = [("CAIRN_SERVER_TOKEN_FILE", credential.to_str().expect("UTF-8"))];
    let node = TestNode::with_arguments(&["--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"], &file);
    assert!(node.token.is_some(), "{}", node.log());
}

#[test]
fn every_file_is_installed() {
    let shipped = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path());
        entries.filter(|path| path.is_file() && path.file_name().is_some_and(|name| name != "README.md")).collect()
    };
    let files = systemd::files(Machine { current: Path::new(CURRENT), memory: ByteSize(4 << 30), gpu: true });
    for file in shipped(folder()).into_iter().chain(shipped(folder().join("cairn.service.d"))) {
        let bytes = fs::read(&file).expect("readable");
        let is_installed = files.iter().any(|installed| installed.bytes == bytes);
        assert!(is_installed, "{} is installed nowhere", file.display());
    }
}

#[test]
fn each_line_of_the_hardening_is_explained() {
    let readme = fs::read_to_string(folder().join("README.md")).expect("readable");
    let hardening = systemd::UNIT.split_once("# What it may not do.").expect("the heading").1;
    let settings = hardening.lines().take_while(|line| *line != "[Install]").chain(systemd::GPU.lines());
    for setting in settings.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')) {
        assert!(readme.contains(&format!("`{}", setting.0)), "README.md does not say why {} is there", setting.0);
    }
}
